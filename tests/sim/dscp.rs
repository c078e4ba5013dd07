//! Code points of both sides, and congestion notification.

use passt::wire::{Body, Frame};

use super::net::Behaviour;
use super::raw::*;
use super::world::World;

const ECE: u8 = 0x40;
const CWR: u8 = 0x80;

/// The frame of a segment of the guest in a packet with this type of service or traffic class.
fn marked(w: &World, seg: &Seg, tos: u8) -> Vec<u8> {
    let mut frame = seg.frame(w);
    if w.v6 {
        frame[14] |= tos >> 4;
        frame[15] |= tos << 4;
    } else {
        frame[15] = tos;
    }
    frame
}

/// What frames to the guest are marked with.
fn marks(frames: &[Vec<u8>]) -> Vec<u8> {
    let mark = |f: &Vec<u8>| match Frame::parse(f).unwrap().body {
        Body::Ip(packet) => packet.tos,
        other => panic!("{other:?}"),
    };
    frames.iter().map(mark).collect()
}

/// For each family.
fn worlds() -> [World; 2] {
    [false, true].map(|v6| {
        let mut w = World::new();
        w.v6 = v6;
        w
    })
}

// [TCP-87] The socket has the mark of the guest's SYN when it connects.
#[test]
fn the_guests_mark_is_there_from_the_first_packet() {
    for mut w in worlds() {
        let syn = marked(&w, &seg(SYN, G, 0).opts(&OPTIONS), 0xb8);
        w.from_guest(&[syn]);
        assert_eq!(w.net.socks[0].marks, [0xb8]);
        // We know nothing of the peer's.
        assert_eq!(marks(&w.take_frames()), [0]);
    }
}

// [TCP-87] It follows the guest, but is set only when it changes; the bits for congestion
// notification do not count.
#[test]
fn the_guests_mark_follows_changes() {
    for mut w in worlds() {
        let s = w.connected(Behaviour::default());
        let tos = [0, 2, 0x28, 0x28, 0x2a, 0x29, 0x2b, 0x10, 0];
        for (seq, tos) in (G + 1..).zip(tos) {
            let data = marked(&w, &seg(ACK, seq, US + 1).data(b"x"), tos);
            w.from_guest(&[data]);
        }
        assert_eq!(w.net.socks[s].marks, [0, 0x28, 0x10, 0]);
        assert_eq!(w.net.socks[s].peer_got, b"xxxxxxxxx");
    }
}

// [TCP-87] What a peer marked its SYN with is on everything the guest gets.
#[test]
fn the_peers_mark_reaches_the_guest() {
    for mut w in worlds() {
        w.net.next = Behaviour { tos: 0x48 | 2, ..Behaviour::default() };
        let sock = w.accept(4000).0 as usize;
        assert_eq!(marks(&w.take_frames()), [0x48]);
        w.guest_sends(&[inb(SYN | ACK, G, US + 1).opts(&OPTIONS)]);
        w.net.socks[sock].peer_out.extend(b"hello");
        w.socket_events();
        let got = w.take_frames();
        assert!(!got.is_empty() && marks(&got).iter().all(|m| *m == 0x48), "{got:?}");
    }
}

// [TCP-8] An offer of congestion notification is not taken up.
#[test]
fn congestion_notification_is_declined() {
    for mut w in worlds() {
        let got = w.guest_sends(&[seg(SYN | ECE | CWR, G, 0).opts(&OPTIONS)]);
        assert_eq!(brief(&got), [(SYN | ACK, 0, 1, 0)]);
    }
}

// [TCP-8] A guest that uses it all the same, marks and flags, is understood.
#[test]
fn congestion_notification_is_ignored() {
    for mut w in worlds() {
        let s = w.connected(Behaviour::default());
        let frames = [
            marked(&w, &seg(ACK | CWR, G + 1, US + 1).data(b"one"), 2),
            marked(&w, &seg(ACK | ECE | PSH, G + 4, US + 1).data(b"two"), 3),
            marked(&w, &seg(ACK | ECE | CWR | FIN, G + 7, US + 1), 1),
        ];
        w.from_guest(&frames);
        assert_eq!(w.net.socks[s].peer_got, b"onetwo");
        w.run(1000);
        assert!(w.net.socks[s].peer_eof);
        assert_eq!(w.net.socks[s].marks, [0]);
        let got = w.sent();
        assert!(got.iter().all(|s| s.flags & (ECE | CWR) == 0), "{got:?}");
    }
}
