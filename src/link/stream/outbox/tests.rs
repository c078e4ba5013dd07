use super::*;
use crate::link::segment::tests::path;
use crate::wire::{Seq, TcpFlags, TcpHead};
use smoltcp::wire as smol;

fn tcp(v6: bool, options: &[u8], mss: u16, payload: usize) -> Head {
    let flags = TcpFlags::ACK.with(TcpFlags::PSH);
    let head = TcpHead { seq: Seq(7), ack: Seq(9), flags, window: 9, options, mss };
    Head::tcp(&path(v6), &head, payload).unwrap()
}

/// The frames that wait, as a guest would see them.
fn frames(outbox: &mut Outbox) -> Vec<Vec<u8>> {
    let (mut rest, mut out) = (outbox.pending().to_vec(), Vec::new());
    while !rest.is_empty() {
        let len = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        assert!((60..=FRAME_MAX).contains(&len), "{len}");
        let frame = rest.drain(..4 + len).skip(4).collect();
        out.push(frame);
    }
    outbox.clear();
    out
}

/// Payload of a frame whose checksums are right.
fn payload(v6: bool, frame: &[u8]) -> Vec<u8> {
    let p = path(v6);
    let packet = if v6 {
        smol::Ipv6Packet::new_checked(&frame[14..]).unwrap().payload().to_vec()
    } else {
        let ip = smol::Ipv4Packet::new_checked(&frame[14..]).unwrap();
        assert!(ip.verify_checksum());
        ip.payload().to_vec()
    };
    let t = smol::TcpPacket::new_checked(&packet[..]).unwrap();
    assert!(t.verify_checksum(&p.src.addr.to_ip().into(), &p.dst.addr.to_ip().into()));
    t.payload().to_vec()
}

fn fill(outbox: &mut Outbox, data: &[u8]) {
    outbox.payload().unwrap()[..data.len()].copy_from_slice(data);
}

// [TAP-2] [TCP-62] [TCP-89] Trains of every size come out whole and in order, whatever the headers were
// before, and whatever waits before them.
#[test]
fn trains_are_spread_in_place() {
    let data: Vec<u8> = (0..60_000u32).map(|n| (n % 251) as u8).collect();
    let mut outbox = Outbox::new();
    for v6 in [false, true, true, false] {
        for (mss, len) in [(1400, 5001), (48, 60_000), (1448, 1448), (60_000, 60_000), (536, 1)] {
            for options in [&[][..], &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]] {
                assert!(outbox.push_frame(&[3; 42]));
                fill(&mut outbox, &data[..len]);
                assert!(outbox.push(&tcp(v6, options, mss, len), len));
                assert!(outbox.push(&tcp(v6, &[], mss, 0), 0));
                let got = frames(&mut outbox);
                assert_eq!(got[0], [&[3; 42][..], &[0; 18]].concat());
                let all: Vec<_> = got[1..].iter().flat_map(|f| payload(v6, f)).collect();
                assert!(all == data[..len], "{v6} {mss} {len}");
                let trains = len.div_ceil(usize::from(mss));
                assert_eq!(got.len(), trains + 2);
            }
        }
    }
}

// [TAP-6] Short frames are padded with zeros, whatever was in the buffer before.
#[test]
fn frames_have_60_bytes() {
    let mut outbox = Outbox::new();
    fill(&mut outbox, &[0xff; 200]);
    assert!(outbox.push(&tcp(false, &[], 1400, 200), 200));
    outbox.clear();
    for len in [0, 1, 5, 6, 7] {
        fill(&mut outbox, &vec![9; len]);
        assert!(outbox.push(&tcp(false, &[], 1400, len), len));
        let got = frames(&mut outbox);
        assert_eq!(got[0].len(), 60.max(54 + len));
        assert_eq!(payload(false, &got[0]), vec![9; len]);
        assert!(got[0][54 + len..].iter().all(|b| *b == 0));
    }
}

// [TAP-6] [UDP-7] So are the short datagrams of a train, each by itself.
#[test]
fn short_datagrams_of_a_train_are_padded() {
    let mut outbox = Outbox::new();
    for v6 in [false, true] {
        for size in [1usize, 2, 7, 8, 17, 18, 19, 100] {
            for len in [2 * size, 64 * size, 63 * size + 1] {
                let data: Vec<u8> = (0..len).map(|n| (n % 251) as u8 | 1).collect();
                fill(&mut outbox, &data);
                let head = Head::udp(&path(v6), len, size as u16).unwrap();
                assert!(outbox.push(&head, len));
                let (mut all, p) = (Vec::new(), path(v6));
                for frame in frames(&mut outbox) {
                    let at = if v6 { 54 } else { 34 };
                    let udp = smol::UdpPacket::new_checked(&frame[at..]).unwrap();
                    let (s, d) = (p.src.addr.to_ip(), p.dst.addr.to_ip());
                    assert!(udp.verify_checksum(&s.into(), &d.into()));
                    let n = udp.payload().len();
                    assert!(frame[at + 8 + n..].iter().all(|b| *b == 0), "padding");
                    all.extend_from_slice(udp.payload());
                }
                assert!(all == data, "{v6} {size} {len}");
            }
        }
    }
}

// [TAP-4] Memory is bounded: payload first, then everything; what was taken can be sent in any
// pieces, and makes room again.
#[test]
fn what_waits_is_bounded() {
    let mut outbox = Outbox::new();
    let mut taken = 0;
    while outbox.payload().is_some() {
        assert!(outbox.push(&tcp(false, &[], 65_000, 65_000), 65_000));
        taken += 1;
        assert!(taken < 100);
    }
    let mut small = 0;
    while outbox.push_frame(&[1; 60]) {
        small += 1;
        assert!(small < 1_000_000);
    }
    assert!(small * 64 >= RESERVE - 64, "{small}");
    assert!(!outbox.push(&tcp(false, &[], 100, 0), 0));
    let mut out = Vec::new();
    let mut n = 1;
    while !outbox.pending().is_empty() {
        let part = n.min(outbox.pending().len());
        out.extend_from_slice(&outbox.pending()[..part]);
        outbox.sent(part);
        n = n % 70_001 + 997;
        if outbox.push_frame(&[2; 60]) && out.len() > 400_000 {
            break;
        }
    }
    out.extend_from_slice(outbox.pending());
    let mut rest = &out[..];
    let mut kinds = vec![];
    while !rest.is_empty() {
        let len = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        kinds.push(rest[4]);
        rest = &rest[4 + len..];
    }
    assert_eq!(kinds.iter().filter(|k| **k == 1).count(), small);
    assert!(kinds.contains(&2), "room was made by sending");
}

#[test]
fn too_long_for_a_frame() {
    let mut outbox = Outbox::new();
    fill(&mut outbox, &[1; 65_507]);
    assert!(!outbox.push(&Head::udp(&path(false), 65_507, 0).unwrap(), 65_507));
    assert!(outbox.pending().is_empty());
    fill(&mut outbox, &[1; 65_493]);
    assert!(outbox.push(&Head::udp(&path(false), 65_493, 0).unwrap(), 65_493));
    assert_eq!(frames(&mut outbox)[0].len(), FRAME_MAX);
}
