//! When the two deadlines of a flow fire, and that neither holds up the other.

use super::net::Behaviour;
use super::raw::*;
use super::world::World;

const MS: u64 = 1000;
const S: u64 = 1_000_000;

// [TCP-74] The guest waits for its window to open, and we for its acknowledgement: what it does
// not acknowledge is repeated all the same.
#[test]
fn closed_window_does_not_hold_up_retransmission() {
    let mut w = World::with(65_520, 0, 1);
    let stuck = Behaviour { sndbuf: 3000, peer_rcvbuf: 0, peer_read: 0, ..Behaviour::default() };
    let s = w.connected(stuck);
    let got = w.guest_sends(&[seg(ACK | PSH, G + 1, US + 1).data(&[1; 3000])]);
    let got = got.into_iter().chain(w.wait(S)).last().unwrap();
    assert_eq!((got.ack, got.win), (G + 3001, 0), "the window is closed");
    let first = w.peer_writes(s, b"answer");
    assert_eq!(first.last().unwrap().data, b"answer");
    let again = w.wait(3 * S + 100 * MS);
    assert!(again.iter().any(|g| g.data == b"answer" && g.seq == US + 1), "{again:?}");
}

// [TCP-46] [TCP-56] Nothing but time and the peer is needed for a closed window to open.
#[test]
fn window_opens_without_being_asked_for() {
    for rtt_us in [0, 20 * MS] {
        let mut w = World::with(65_520, 0, 1);
        let stuck = Behaviour {
            sndbuf: 3000,
            peer_rcvbuf: 0,
            peer_read: 0,
            rtt_us,
            ..Behaviour::default()
        };
        let s = w.connected(stuck);
        let got = w.guest_sends(&[seg(ACK | PSH, G + 1, US + 1).data(&[1; 3000])]);
        let got = got.into_iter().chain(w.wait(10 * S)).last();
        assert!(got.is_none_or(|g| g.win == 0));
        w.net.socks[s].how.peer_rcvbuf = 100_000;
        w.net.socks[s].how.peer_read = usize::MAX;
        let got = w.wait(S);
        let last = got.last().unwrap();
        assert!(last.ack == G + 3001 && last.win != 0, "{got:?}");
        assert_eq!(w.net.socks[s].peer_got.len(), 3000);
    }
}

// [TCP-46] [TCP-47] [TCP-75] An acknowledgement is owed until the peer has the data, and passed on
// within half a round trip, however long that is; in between the socket is looked at a few times.
#[test]
fn looks_follow_the_round_trip() {
    for rtt_us in [300, 3 * MS, 30 * MS, 180 * MS, 3 * S] {
        let mut w = World::new();
        let s = w.connected(Behaviour { rtt_us, ..Behaviour::default() });
        for n in 0..3u32 {
            let began = w.now;
            let looks = w.net.socks[s].calls.view;
            let got = w.guest_sends(&[seg(ACK | PSH, G + 1 + n, US + 1).data(b"x")]);
            assert_eq!(got, []);
            let mut got = vec![];
            while got.is_empty() {
                assert!(w.now < began + 2 * rtt_us + 10 * MS, "round trip {rtt_us}, not yet");
                got = w.wait(MS / 4);
                // The window may grow meanwhile.
                got.retain(|s| s.ack != G + 1 + n);
            }
            assert_eq!(brief(&got), [(ACK, 1, 2 + n, 0)]);
            assert!(w.now - began >= rtt_us, "before the peer had it");
            assert!(w.now - began <= rtt_us + rtt_us / 2 + 3 * MS, "{} of {rtt_us}", w.now - began);
            assert!(w.net.socks[s].calls.view - looks <= 6);
        }
        assert!(!w.deadline_armed());
    }
}

// [TCP-27] A round trip of some microseconds means a peer on this host: what the socket has is
// acknowledged, though the peer has not acknowledged it. For one further away it is not.
#[test]
fn near_peer_is_local() {
    for (rtt_us, near) in [(5, true), (10, true), (200, false)] {
        let mut w = World::new();
        let behaviour = Behaviour { rtt_us, peer_rcvbuf: 1, peer_read: 0, ..Behaviour::default() };
        w.connected(behaviour);
        let got = w.guest_sends(&[seg(ACK | PSH, G + 1, US + 1).data(b"to be acknowledged")]);
        assert_eq!(got, []);
        let got = w.wait(100 * MS);
        assert_eq!(got.last().is_some_and(|s| s.ack == G + 19), near, "{rtt_us}: {got:?}");
    }
}

// [TCP-58] A guest that closes its window for long gets all of it once it opens again: the socket's
// own window was never tied to it.
#[test]
fn guest_window_is_not_the_sockets() {
    let mut w = World::new();
    let s = w.connected_with(Behaviour { rcvbuf: 50_000, ..Behaviour::default() }, &OPTIONS, 0);
    w.peer_writes(s, &[7; 200_000]);
    w.run(200 * MS);
    assert_eq!(w.net.socks[s].queued(), 50_000, "the socket goes on receiving");
    w.sent();
    let mut next = US + 1;
    let mut got = w.guest_sends(&[seg(ACK, G + 1, next).win(0xffff)]);
    for _ in 0..1000 {
        for g in &got {
            next += if g.seq == next { g.data.len() as u32 } else { 0 };
        }
        if next == US + 1 + 200_000 {
            return;
        }
        got = w.guest_sends(&[seg(ACK, G + 1, next).win(0xffff)]);
        got.extend(w.wait(MS));
    }
    panic!("{} bytes arrived", next - US - 1);
}
