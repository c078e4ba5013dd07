//! The stream of a virtual machine: bytes of the guest in pieces of any size.
//!
//! The first byte of the input says how long pieces are. Whatever comes, the frames must be those
//! that a plain reading of the same bytes gives, but for segments that were put together.

use passt::link::{BadLength, Inbox};

/// What the link makes of the bytes, read in pieces.
fn taken(bytes: &[u8], piece: usize) -> (Vec<Vec<u8>>, Option<BadLength>) {
    let (mut inbox, mut frames, mut rest) = (Inbox::new(), Vec::new(), bytes);
    loop {
        match inbox.next_frame() {
            Ok(Some(range)) => frames.push(inbox.bytes(range).to_vec()),
            Ok(None) if rest.is_empty() => return (frames, None),
            Ok(None) => {
                let room = inbox.room();
                assert!(!room.is_empty());
                let n = piece.min(room.len()).min(rest.len());
                room[..n].copy_from_slice(&rest[..n]);
                inbox.filled(n);
                rest = &rest[n..];
            }
            Err(e) => return (frames, Some(e)),
        }
    }
}

/// What the format says that the bytes are.
fn plain(mut bytes: &[u8]) -> (Vec<&[u8]>, Option<BadLength>) {
    let mut frames = Vec::new();
    while let Some((prefix, rest)) = bytes.split_first_chunk::<4>() {
        let len = u32::from_be_bytes(*prefix);
        if !(14..=65535).contains(&len) {
            return (frames, Some(BadLength(len)));
        }
        let Some((frame, rest)) = rest.split_at_checked(len as usize) else { break };
        frames.push(frame);
        bytes = rest;
    }
    (frames, None)
}

/// Sequence number and payload of a TCP segment, if it is one; its options may be nonsense.
fn segment(frame: &[u8]) -> Option<(u32, &[u8])> {
    let packet = frame.get(14..)?;
    let (protocol, len, tcp) = match (frame.get(12..14)?, packet.first()? >> 4) {
        ([0x08, 0x00], 4) => (packet.get(9)?, word(packet, 2)?, usize::from(packet[0] & 15) * 4),
        ([0x86, 0xdd], 6) => (packet.get(6)?, word(packet, 4)? + 40, 40),
        _ => return None,
    };
    let segment = packet.get(tcp..len)?;
    let seq = u32::from_be_bytes(*segment.get(4..)?.first_chunk()?);
    let payload = segment.get(usize::from(*segment.get(12)? >> 4) * 4..)?;
    (*protocol == 6).then_some((seq, payload))
}

fn word(data: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes(*data.get(at..)?.first_chunk()?)))
}

pub(crate) fn run(data: &[u8]) {
    let Some((piece, bytes)) = data.split_first() else { return };
    let piece = if *piece == 0 { usize::MAX } else { usize::from(*piece) };
    let (frames, fault) = taken(bytes, piece);
    let (expected, expected_fault) = plain(bytes);
    assert_eq!(fault, expected_fault);
    let mut expected = expected.into_iter();
    for frame in &frames {
        let first = expected.next().expect("no frame out of nothing");
        if frame == first {
            continue;
        }
        // The payloads of several segments, one behind the other.
        let (seq, whole) = segment(frame).expect("only segments are changed");
        let (from, mut sum) = segment(first).map(|(s, p)| (s, p.to_vec())).expect("a segment");
        assert_eq!(seq, from);
        while sum.len() < whole.len() {
            let (seq, part) = segment(expected.next().expect("more")).expect("a segment");
            assert_eq!(seq, from.wrapping_add(sum.len() as u32));
            sum.extend_from_slice(part);
        }
        assert_eq!(sum, whole);
    }
    assert_eq!(expected.next(), None, "no frame is lost");
}
