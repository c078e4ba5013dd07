//! Data for the guest: segments, windows, retransmission. Spec sections 9 to 11.

use super::net::Behaviour;
use super::raw::*;
use super::rng::Rng;
use super::world::World;

const S: u64 = 1_000_000;

fn lens(got: &[Seg]) -> Vec<usize> {
    got.iter().map(|s| s.data.len()).collect()
}

/// No window scale: the window field is in bytes.
const PLAIN: [u8; 4] = [2, 4, 5, 0xb4];

fn payload(n: usize) -> Vec<u8> {
    Rng::new(n as u64).bytes(n)
}

// [TCP-61, TCP-62] As much as the window allows, in segments of the guest's size, PSH on the last.
#[test]
fn fills_the_window() {
    let mut w = World::new();
    let s = w.connected_with(Behaviour::default(), &PLAIN, 8000);
    let got = w.peer_writes(s, &payload(30_000));
    // Whole segments first, then what is left of the window.
    assert_eq!(lens(&got), [1460, 1460, 1460, 1460, 1460, 700]);
    assert!(got[5].flags & PSH != 0);
    assert_eq!(got.iter().filter(|s| s.flags & ACK == 0).count(), 0);
    assert_eq!(w.wait(S / 2), []);
    let got = w.guest_sends(&[seg(ACK, G + 1, US + 8001).win(8000)]);
    assert_eq!(got[0].seq, US + 8001);
    assert_eq!(lens(&got).iter().sum::<usize>(), 8000);
}

// [TCP-59, TCP-67] Bytes are removed from the socket only when the guest has acknowledged them.
#[test]
fn socket_keeps_what_is_not_acknowledged() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    w.peer_writes(s, &payload(20_000));
    assert_eq!(w.net.socks[s].queued(), 20_000);
    w.guest_sends(&[seg(ACK, G + 1, US + 10_001)]);
    assert!(w.net.socks[s].queued() >= 10_000);
    w.guest_sends(&[seg(ACK, G + 1, US + 20_001)]);
    assert!(w.net.socks[s].queued() < 4096);
    assert!(!w.deadline_armed(), "[TCP-67] nothing in flight, no timer");
}

// Removal is lazy, but never so lazy that a small receive buffer stays full.
#[test]
fn small_receive_buffer_does_not_stall() {
    for rcvbuf in [5000, 20_000, 65_536] {
        let mut w = World::new();
        let s = w.connected(Behaviour { rcvbuf, ..Behaviour::default() });
        let data = payload(500_000);
        let mut got: Vec<u8> = vec![];
        let mut segs = w.peer_writes(s, &data);
        while !segs.is_empty() {
            for s in &segs {
                got.extend(&s.data);
            }
            segs = w.guest_sends(&[seg(ACK, G + 1, US + 1 + got.len() as u32)]);
        }
        assert!(got == data, "{} of {} with {rcvbuf}", got.len(), data.len());
    }
}

// [TCP-68] Three duplicate acknowledgements: the segment from there on is sent again.
#[test]
fn fast_retransmit() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    w.peer_writes(s, &payload(6500));
    let dup = || seg(ACK, G + 1, US + 1461);
    assert_eq!(w.guest_sends(&[dup()]), []);
    assert_eq!(w.guest_sends(&[dup(), dup()]), []);
    let got = w.guest_sends(&[dup()]);
    assert_eq!(brief(&got), [(ACK | PSH, 1461, 1, 1460)]);
    // Further ones say nothing new.
    assert_eq!(w.guest_sends(&[dup(), dup(), dup(), dup()]), []);
    assert_eq!(w.guest_sends(&[seg(ACK, G + 1, US + 6501)]), []);
    assert!(!w.deadline_armed());
}

// [TCP-68] An acknowledgement of a part goes on at once (RFC 6582), with more and more while
// everything is missing, and with one gap's worth where the next gap is elsewhere.
#[test]
fn partial_acknowledgements() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    w.peer_writes(s, &payload(60 * 1460));
    let at = |n: u32| US + 1 + n * 1460;
    let dup = || seg(ACK, G + 1, at(0));
    let mut got = w.guest_sends(&[dup(), dup(), dup()]);
    let start = w.now;
    for (from, n) in [(0, 1), (1, 2), (3, 4), (7, 8)] {
        assert_eq!((got[0].seq, got.len()), (at(from), n as usize));
        got = w.guest_sends(&[seg(ACK, G + 1, at(from + n))]);
    }
    // The rest of that frame arrived, and some more.
    let got = w.guest_sends(&[seg(ACK, G + 1, at(40))]);
    assert_eq!((got[0].seq, got.len()), (at(40), 2));
    let got = w.guest_sends(&[seg(ACK, G + 1, at(60))]);
    assert_eq!((got, w.now), (vec![], start));
    assert!(!w.deadline_armed());
}

// [TCP-68] What is no duplicate: a window update, data, a FIN, an old keepalive.
#[test]
fn not_a_duplicate() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    w.peer_writes(s, &payload(5000));
    for win in [1000, 1001, 1002, 1003, 1004] {
        assert_eq!(w.guest_sends(&[seg(ACK, G + 1, US + 1).win(win)]), []);
    }
    for n in 0..5u32 {
        let got = w.guest_sends(&[seg(ACK, G + 1 + n, US + 1).win(1004).data(b"x")]);
        assert!(got.iter().all(|s| s.data.is_empty()));
        let got = w.guest_sends(&[seg(ACK, G + n, US + 1).win(1004)]);
        assert!(got.iter().all(|s| s.data.is_empty()));
    }
}

// [TCP-67] An acknowledgement of what was not sent is ignored and answered.
#[test]
fn acknowledges_too_much() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    w.peer_writes(s, b"hello");
    let got = w.guest_sends(&[seg(ACK, G + 1, US + 7)]);
    assert_eq!(brief(&got), [(ACK, 6, 1, 0)]);
    assert_eq!(w.net.socks[s].queued(), 5);
    assert_eq!(w.wait(S + 1000)[0].data, b"hello");
}

// [TCP-72, TCP-73] Retransmission after 1, 3, 7, 15, 31, 63, 127 s, and the end at 247 s.
#[test]
fn retransmission_times() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    let start = w.now;
    assert_eq!(w.peer_writes(s, b"hello")[0].data, b"hello");
    let mut at = vec![];
    while !w.table.is_empty() {
        w.run(500_000);
        for s in w.sent() {
            at.push((w.now - start) / S);
            if s.flags & RST == 0 {
                assert_eq!((s.seq, &s.data[..]), (US + 1, &b"hello"[..]));
            }
        }
    }
    assert_eq!(at, [1, 3, 7, 15, 31, 63, 127, 247]);
    assert!(w.net.socks[s].peer_reset);
    w.assert_clean();
}

// [TCP-72] After a repeated SYN the first timeout is 3 s.
#[test]
fn retransmission_after_syn_retry() {
    let mut w = World::new();
    let s = w.accept(4000).0 as usize;
    w.sent();
    w.wait(S);
    w.guest_sends(&[inb(SYN | ACK, G, US + 1).opts(&OPTIONS)]);
    w.peer_writes(s, b"hello");
    assert_eq!(w.wait(2_900_000), []);
    assert_eq!(w.wait(200_000)[0].data, b"hello");
}

// [TCP-73] Progress restarts the counter.
#[test]
fn progress_restarts_the_counter() {
    let mut w = World::new();
    let s = w.connected_with(Behaviour::default(), &PLAIN, 3000);
    w.peer_writes(s, &payload(100_000));
    for n in 1..20u32 {
        let got = w.wait(S * 11 / 10);
        assert!(!got.is_empty(), "round {n}");
        let got = w.guest_sends(&[seg(ACK, G + 1, US + 1 + 1460 * n).win(3000)]);
        assert!(!got.is_empty());
    }
    assert_eq!(w.table.len(), 1);
}

// [TCP-67] An acknowledgement of what was sent before a rewind.
#[test]
fn acknowledged_after_rewind() {
    let mut w = World::new();
    let s = w.connected_with(Behaviour::default(), &PLAIN, 3000);
    let data = payload(10_000);
    w.peer_writes(s, &data);
    // The guest closes its window behind what it has; the timer then goes back.
    w.guest_sends(&[seg(ACK, G + 1, US + 1).win(0)]);
    w.wait(S + 1000);
    let got = w.guest_sends(&[seg(ACK, G + 1, US + 3001).win(3000)]);
    assert_eq!((got[0].seq, &got[0].data[..]), (US + 3001, &data[3000..4460]));
}

// [TCP-69, TCP-70] A closed window is probed with one byte, at 1, 3, 7 s and so on; an update
// resumes at once with the right byte.
#[test]
fn zero_window_probe() {
    for answered in [false, true] {
        let mut w = World::new();
        let s = w.connected_with(Behaviour::default(), &PLAIN, 0);
        let data = payload(5000);
        assert_eq!(w.peer_writes(s, &data), []);
        let start = w.now;
        let mut at = vec![];
        while w.now - start < 70 * S {
            w.run(500_000);
            for s in w.sent() {
                at.push((w.now - start) / S);
                assert_eq!((s.seq, &s.data[..]), (US + 1, &data[..1]));
                if answered {
                    assert_eq!(w.guest_sends(&[seg(ACK, G + 1, US + 1).win(0)]), []);
                }
            }
        }
        assert_eq!(at, [1, 3, 7, 15, 31, 63], "answered {answered}");
        // The probe was refused: everything has to be sent, at once.
        let got = w.guest_sends(&[seg(ACK, G + 1, US + 1).win(8000)]);
        let all: Vec<u8> = got.iter().flat_map(|s| s.data.clone()).collect();
        assert!(all == data, "answered {answered}: {} bytes", all.len());
        w.guest_sends(&[seg(ACK, G + 1, US + 5001).win(8000)]);
        assert!(!w.deadline_armed());
    }
}

// [TCP-70] A guest that answers probes is alive, however long its window stays closed
// (RFC 9293, 3.8.6.1).
#[test]
fn answered_probes_keep_the_connection() {
    let mut w = World::new();
    let s = w.connected_with(Behaviour::default(), &PLAIN, 0);
    w.peer_writes(s, &payload(5000));
    let end = w.now + 3600 * S;
    while w.now < end {
        w.run(S);
        if !w.sent().is_empty() {
            w.guest_sends(&[seg(ACK, G + 1, US + 1).win(0)]);
        }
    }
    assert_eq!(w.table.len(), 1);
    let got = w.guest_sends(&[seg(ACK, G + 1, US + 1).win(8000)]);
    assert_eq!(lens(&got).iter().sum::<usize>(), 5000);
}

// [TCP-69] Closed and opened within one batch.
#[test]
fn zero_then_open_in_one_batch() {
    let mut w = World::new();
    let s = w.connected_with(Behaviour::default(), &PLAIN, 3000);
    let data = payload(10_000);
    w.peer_writes(s, &data);
    let got = w.guest_sends(&[seg(ACK, G + 1, US + 1).win(0), seg(ACK, G + 1, US + 1).win(5000)]);
    // What was in flight is lost or not; nothing may be skipped.
    let mut have = vec![0u8; 10_000];
    let mut seen = 0;
    for s in &got {
        let at = (s.seq - US - 1) as usize;
        have[at..at + s.data.len()].copy_from_slice(&s.data);
        seen = seen.max(at + s.data.len());
    }
    assert_eq!(seen, 5000);
    assert!(have[3000..5000] == data[3000..5000]);
}

// [TCP-69] The guest shrinks its window in front of data in flight: it is sent again as soon as
// there is room.
#[test]
fn shrunk_window() {
    let mut w = World::new();
    let s = w.connected_with(Behaviour::default(), &PLAIN, 3000);
    let data = payload(3000);
    w.peer_writes(s, &data);
    w.guest_sends(&[seg(ACK, G + 1, US + 1).win(0)]);
    let got = w.guest_sends(&[seg(ACK, G + 1, US + 1).win(4000)]);
    let all: Vec<u8> = got.iter().flat_map(|s| s.data.clone()).collect();
    assert!(all == data, "{} bytes", all.len());
}

// [TCP-63] Nothing new and nothing in flight: no timer, no event.
#[test]
fn quiet_after_spurious_readiness() {
    let mut w = World::new();
    let s = w.connected_with(Behaviour::default(), &PLAIN, 0);
    let (id, _) = w.flows[0];
    let ready = passt::translate::tcp::SocketReady { read: true, ..Default::default() };
    w.on_socket(id, ready);
    assert_eq!(w.wait(10 * S), []);
    assert!(!w.deadline_armed());
    w.guest_sends(&[seg(ACK, G + 1, US + 1).win(5000)]);
    assert_eq!(w.peer_writes(s, b"x").len(), 1);
}

// [TCP-65] The link loses a frame and says so: it is sent again without loss of data.
#[test]
fn link_loses_frames() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    w.link.lose = 1;
    let data = payload(4000);
    let mut got = w.peer_writes(s, &data);
    got.extend(w.wait(2 * S));
    let mut all = vec![0; 4000];
    for s in got.iter().filter(|s| !s.data.is_empty()) {
        let at = (s.seq - US - 1) as usize;
        all[at..at + s.data.len()].copy_from_slice(&s.data);
    }
    assert!(all == data);
}

// [TCP-65] The link is full for a while.
#[test]
fn link_is_full() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    w.link.full = true;
    let data = payload(4000);
    assert_eq!(w.peer_writes(s, &data), []);
    assert!(w.deadline_armed(), "progress is owed, and nothing will remind us");
    let calls = w.timer_calls;
    assert_eq!(w.wait(10 * S), []);
    assert!(w.timer_calls - calls < 50, "{} attempts", w.timer_calls - calls);
    assert_eq!(w.table.len(), 1);
    w.link.full = false;
    let got = w.wait(S);
    let all: Vec<u8> = got.iter().flat_map(|s| s.data.clone()).collect();
    assert!(all == data);
}

// A flow with much to say is asked to continue later, and does.
#[test]
fn large_window_in_several_visits() {
    let mut w = World::new();
    let how = Behaviour { rcvbuf: 16 << 20, ..Behaviour::default() };
    let s = w.connected(how);
    let data = payload(12 << 20);
    let got = w.peer_writes(s, &data);
    let all: Vec<u8> = got.iter().flat_map(|s| s.data.clone()).collect();
    assert!(all == data[..65535 << 7], "{}", all.len());
}

// [TCP-60] The old kind of kernel, without peek offsets.
#[test]
fn end_is_seen_without_peek_offsets() {
    let mut w = World::new();
    let s = w.connected(Behaviour { peek_off: false, ..Behaviour::default() });
    let got = w.peer_writes(s, b"hello");
    assert_eq!(lens(&got), [5]);
    let mut got = w.peer_finishes(s);
    got.extend(w.guest_sends(&[seg(ACK, G + 1, US + 6)]));
    assert_eq!(brief(&got), [(FIN | ACK, 6, 1, 0)]);
}

// Behind a closed window, acknowledgements carry a number the guest will look at, although a
// probe is in flight.
#[test]
fn acknowledges_inside_the_window() {
    let mut w = World::new();
    let s = w.connected_with(Behaviour::default(), &PLAIN, 0);
    w.peer_writes(s, &payload(3000));
    assert_eq!(lens(&w.wait(S + 1000)), [1]);
    let got = w.guest_sends(&[seg(ACK, G, US + 1).win(0)]);
    assert_eq!(brief(&got), [(ACK, 1, 1, 0)]);
    w.wait(2 * S);
    let got = w.guest_sends(&[seg(ACK, G + 1, US + 1).win(0).data(b"x")]);
    let got = if got.is_empty() { w.wait(S / 10) } else { got };
    assert_eq!(brief(&got), [(ACK, 1, 2, 0)]);
}
