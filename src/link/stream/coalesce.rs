//! Puts segments together that a guest had to send one by one.
//!
//! # Theory of operation
//!
//! A link without offloads carries a bulk transfer in frames of the MTU. Handled one by one each
//! of them would be a system call on the host's socket. So, as receive offload in a kernel does,
//! segments of one connection that lie next to each other in the buffer, each continuing the one
//! before, are made one segment: the payload of each moves down behind that of the one before, over
//! headers that are not needed any more. Only segments that differ in nothing but sequence number,
//! checksums, IP identification and the flags PSH and FIN are put together.
//!
//! The checksums of the result are not true. Nobody looks at them: the socket is memory of this
//! machine, and the host's kernel makes new ones.

use std::ops::Range;

use super::inbox::{PREFIX, whole};
use crate::wire::{ETH_LEN, TcpFlags, proto};

/// Longest IP packet.
const IP_MAX: usize = 65_535;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// Offsets within a TCP header.
const SEQ: usize = 4;
const ACK: usize = 8;
const OFFSET: usize = 12;
const FLAGS: usize = 13;
const WINDOW: usize = 14;
const URGENT: usize = 18;
const TCP_MIN: usize = 20;

/// A frame that holds a segment of the plain kind, without padding.
#[derive(Clone, Copy)]
struct Shape {
    /// IPv4 or IPv6.
    v4: bool,
    /// Where the TCP header begins.
    tcp: usize,
    /// Length of all headers.
    headers: usize,
    seq: u32,
    flags: u8,
}

/// Extends the frame at `first` by the frames that follow it and continue it, as far as `end`.
/// Where the whole lies now, and where the next frame's length begins.
pub(super) fn extend(buf: &mut [u8], first: Range<usize>, end: usize) -> (Range<usize>, usize) {
    let (start, mut stop, mut next) = (first.start, first.end, first.end);
    let alone = (start..stop, next);
    // Cheap tests first: most frames are alone.
    if end.saturating_sub(stop) <= PREFIX {
        return alone;
    }
    let Some(head) = buf.get(first).and_then(shape) else { return alone };
    let payload = stop.saturating_sub(start).saturating_sub(head.headers);
    let mut seq = head.seq.wrapping_add(u32::try_from(payload).unwrap_or(0));
    let mut flags = head.flags;
    while flags & TcpFlags::FIN.0 == 0 {
        let unread = buf.get(next..end).unwrap_or_default();
        let Ok(Some(other)) = whole(unread, next) else { break };
        let (old, new) = (buf.get(start..stop), buf.get(other.clone()));
        let (Some(old), Some(new)) = (old, new) else { break };
        let Some(more) = shape(new).filter(|more| more.seq == seq) else { break };
        if !alike(&head, old, &more, new) {
            break;
        }
        let from = other.start.saturating_add(more.headers)..other.end;
        let added = from.len();
        let total = stop.saturating_sub(start).saturating_add(added);
        if total > ETH_LEN.saturating_add(IP_MAX) || from.start < stop || from.end > buf.len() {
            break;
        }
        let after = from.end;
        buf.copy_within(from, stop);
        stop = stop.saturating_add(added);
        next = after;
        seq = seq.wrapping_add(u32::try_from(added).unwrap_or(0));
        flags |= more.flags;
    }
    if next != alone.1
        && let Some(frame) = buf.get_mut(start..stop)
    {
        finish(frame, &head, flags);
    }
    (start..stop, next)
}

/// What is needed to compare a frame with its neighbour; `None` for one that stays alone.
fn shape(frame: &[u8]) -> Option<Shape> {
    let packet = frame.get(ETH_LEN..)?;
    let kind: [u8; 2] = *frame.get(12..)?.first_chunk()?;
    let (v4, tcp, total) = match kind {
        ETHERTYPE_IPV4 => {
            let [vihl, _, l0, l1, _, _, f0, f1, _, protocol, ..] = *packet.first_chunk::<20>()?;
            let plain = vihl == 0x45 && protocol == proto::TCP && f0 & !0x40 == 0 && f1 == 0;
            (true, plain.then_some(20)?, usize::from(u16::from_be_bytes([l0, l1])))
        }
        ETHERTYPE_IPV6 => {
            let [v, _, _, _, l0, l1, protocol, _] = *packet.first_chunk::<8>()?;
            let plain = v >> 4 == 6 && protocol == proto::TCP;
            let len = usize::from(u16::from_be_bytes([l0, l1]));
            (false, plain.then_some(40)?, len.checked_add(40)?)
        }
        _ => return None,
    };
    if total != packet.len() {
        return None;
    }
    let header: &[u8; TCP_MIN] = packet.get(tcp..)?.first_chunk()?;
    let length = usize::from(header.get(OFFSET)? >> 4).checked_mul(4)?;
    let flags = *header.get(FLAGS)?;
    let ends = TcpFlags::PSH.0 | TcpFlags::FIN.0;
    let headers = ETH_LEN.checked_add(tcp)?.checked_add(length)?;
    // With payload, and nothing special about it.
    (length >= TCP_MIN && headers < frame.len() && flags & !ends == TcpFlags::ACK.0)
        .then_some(())?;
    let seq = u32::from_be_bytes(*header.get(SEQ..)?.first_chunk()?);
    Some(Shape { v4, tcp: ETH_LEN.checked_add(tcp)?, headers, seq, flags })
}

/// True if two frames differ only where segments of one train may.
fn alike(a: &Shape, old: &[u8], b: &Shape, new: &[u8]) -> bool {
    if (a.v4, a.headers) != (b.v4, b.headers) {
        return false;
    }
    let at = |n: usize| a.tcp.saturating_add(n);
    // Without length, IPv4 identification and header checksum.
    let network = if a.v4 { [0..16, 20..24, 26..34] } else { [0..18, 20..54, 0..0] };
    // Without sequence number, flags and checksum.
    let transport =
        [at(0)..at(SEQ), at(ACK)..at(FLAGS), at(WINDOW)..at(WINDOW + 2), at(URGENT)..a.headers];
    network.into_iter().chain(transport).all(|part| old.get(part.clone()) == new.get(part))
}

/// Makes the headers true for the whole, but for the checksums.
fn finish(frame: &mut [u8], head: &Shape, flags: u8) {
    let packet = frame.len().saturating_sub(ETH_LEN);
    let (at, len) = if head.v4 { (16, packet) } else { (18, packet.saturating_sub(40)) };
    if let Some(field) = frame.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<2>) {
        *field = u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
    }
    if let Some(field) = frame.get_mut(head.tcp.saturating_add(FLAGS)) {
        *field = flags;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#[allow(clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use crate::wire::{Addr, Endpoint, Frame, Head, Mac, Path, Segment, Seq, TcpHead, Timestamps};

    const ACK: TcpFlags = TcpFlags::ACK;

    fn path(v6: bool, port: u16) -> Path {
        let a = |n: u8| match v6 {
            true => Addr::from(std::net::Ipv6Addr::from([
                0x20, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n,
            ])),
            false => Addr::from(std::net::Ipv4Addr::new(192, 0, 2, n)),
        };
        Path {
            src_mac: Mac([2, 0, 0, 0, 0, 1]),
            dst_mac: Mac::DEFAULT_OURS,
            src: Endpoint::new(a(1), port),
            dst: Endpoint::new(a(2), 80),
            flow_label: 5,
            tos: 0,
            ttl: crate::wire::TTL,
        }
    }

    fn frame(v6: bool, port: u16, seq: u32, flags: TcpFlags, stamp: u32, data: &[u8]) -> Vec<u8> {
        let options = Timestamps { value: stamp, echo: 1 }.encode();
        let tcp =
            TcpHead { seq: Seq(seq), ack: Seq(9), flags, window: 99, options: &options, mss: 0 };
        let head = Head::tcp(&path(v6, port), &tcp, data.len()).unwrap();
        [head.frame(), data].concat()
    }

    /// What comes out: sequence number, flags and payload of each segment.
    fn run(frames: &[Vec<u8>]) -> Vec<(u32, u8, Vec<u8>)> {
        let mut buf: Vec<u8> =
            frames.iter().flat_map(|f| [&(f.len() as u32).to_be_bytes()[..], f].concat()).collect();
        let (end, mut at, mut out) = (buf.len(), 0, Vec::new());
        while at < end {
            let first = whole(&buf[at..end], at).unwrap().unwrap();
            let (range, next) = extend(&mut buf, first, end);
            let at_tcp = if buf[range.start + 12] == 8 { 34 } else { 54 };
            let s = Segment::parse(&buf[range.start + at_tcp..range.end]).unwrap();
            assert!(Frame::parse(&buf[range]).is_ok());
            out.push((s.seq.0, s.flags.0, s.payload.to_vec()));
            at = next;
        }
        out
    }

    // [TCP-37] A train becomes one segment, its last flags with it; what follows is untouched.
    #[test]
    fn trains_are_put_together() {
        for v6 in [false, true] {
            let data: Vec<u8> = (0..4000u32).map(|n| (n % 251) as u8).collect();
            let mut frames: Vec<_> = data
                .chunks(1400)
                .enumerate()
                .map(|(n, part)| {
                    frame(v6, 7, (u32::MAX - 100).wrapping_add(1400 * n as u32), ACK, 5, part)
                })
                .collect();
            frames.push(frame(
                v6,
                7,
                (u32::MAX - 100).wrapping_add(4000),
                ACK.with(TcpFlags::FIN),
                5,
                b"x",
            ));
            frames.push(frame(v6, 7, (u32::MAX - 100).wrapping_add(4001), ACK, 5, b"y"));
            let got = run(&frames);
            assert_eq!(got.len(), 2, "{got:?}");
            assert_eq!(got[0].0, u32::MAX - 100);
            assert_eq!(got[0].1, ACK.with(TcpFlags::FIN).0);
            assert_eq!(got[0].2, [&data[..], b"x"].concat());
            assert_eq!(got[1].2, b"y");
        }
    }

    #[test]
    fn differences_keep_segments_apart() {
        let base = || frame(false, 7, 100, ACK, 5, b"abcd");
        let changed = |at: usize, value: u8| {
            let mut f = frame(false, 7, 104, ACK, 5, b"efgh");
            f[at] = value;
            f
        };
        for (what, second) in [
            ("port", frame(false, 8, 104, ACK, 5, b"efgh")),
            ("family", frame(true, 7, 104, ACK, 5, b"efgh")),
            ("a hole", frame(false, 7, 105, ACK, 5, b"efgh")),
            ("repeated", frame(false, 7, 100, ACK, 5, b"abcd")),
            ("timestamp", frame(false, 7, 104, ACK, 6, b"efgh")),
            ("empty", frame(false, 7, 104, ACK, 5, b"")),
            ("reset", frame(false, 7, 104, ACK.with(TcpFlags::RST), 5, b"efgh")),
            ("type of service", changed(15, 4)),
            ("time to live", changed(22, 9)),
            ("window", changed(48, 1)),
            ("acknowledgement", changed(42, 1)),
            ("padding", [&frame(false, 7, 104, ACK, 5, b"efgh")[..], &[0; 3]].concat()),
        ] {
            assert_eq!(run(&[base(), second]).len(), 2, "{what}");
        }
        let pushed = frame(false, 7, 100, ACK.with(TcpFlags::PSH), 5, b"abcd");
        assert_eq!(run(&[pushed, frame(false, 7, 104, ACK, 5, b"efgh")]).len(), 1);
    }

    #[test]
    fn packets_stay_within_the_length_field() {
        let part = vec![1; 30_000];
        let frames: Vec<_> = (0..3).map(|n| frame(true, 7, 30_000 * n, ACK, 5, &part)).collect();
        let got: Vec<_> = run(&frames).iter().map(|s| s.2.len()).collect();
        assert_eq!(got, [60_000, 30_000]);
    }
}
