//! Data from the guest: acceptance, acknowledgement, the window. Spec sections 6 to 8.

use passt::flow::DropReason;
use passt::translate::Verdict;

use super::net::Behaviour;
use super::raw::*;
use super::rng::Rng;
use super::world::World;

const MS: u64 = 1000;
const S: u64 = 1_000_000;

fn remote(rtt_us: u64) -> Behaviour {
    Behaviour { rtt_us, ..Behaviour::default() }
}

fn payload(n: usize) -> Vec<u8> {
    Rng::new(n as u64).bytes(n)
}

// [TCP-42] A local peer that does not answer: every byte is acknowledged at once, but for the first.
#[test]
fn local_is_acknowledged_at_once() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    // The first one teaches us that the peer is local.
    w.guest_sends(&[seg(ACK | PSH, G + 1, US + 1).data(b"a")]);
    w.wait(S);
    for n in 0..10u32 {
        let got = w.guest_sends(&[seg(ACK | PSH, G + 2 + n, US + 1).data(b"b")]);
        assert_eq!(brief(&got), [(ACK, 1, 3 + n, 0)]);
    }
    assert_eq!(w.net.socks[s].peer_got.len(), 11);
    assert!(!w.deadline_armed(), "[TCP-45] quiet when all is acknowledged");
}

// [TCP-48] A local peer that answers: its answers carry the acknowledgements.
#[test]
fn answers_of_a_local_peer_acknowledge() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    for n in 0..10u32 {
        assert_eq!(w.guest_sends(&[seg(ACK | PSH, G + 1 + n, US + 1 + n).data(b"a")]), []);
        w.net.socks[s].peer_out.extend(b"b");
        assert_eq!(brief(&w.wait(100)), [(ACK | PSH, 1 + n, 2 + n, 1)]);
    }
    // A slow answer: the acknowledgement does not wait for the next one ...
    assert_eq!(w.guest_sends(&[seg(ACK | PSH, G + 11, US + 11).data(b"a")]), []);
    assert_eq!(brief(&w.wait(2 * MS)), [(ACK, 11, 12, 0)]);
    w.net.socks[s].peer_out.extend(b"b");
    w.wait(100);
    let got = w.guest_sends(&[seg(ACK | PSH, G + 12, US + 12).data(b"a")]);
    assert_eq!(brief(&got), [(ACK, 12, 13, 0)]);
    // ... and after a quick one, it does again.
    w.net.socks[s].peer_out.extend(b"b");
    w.wait(100);
    assert_eq!(w.guest_sends(&[seg(ACK | PSH, G + 13, US + 13).data(b"a")]), []);
}

// [TCP-42, TCP-47] Interactive with a remote peer: acknowledged when the peer has it, not before.
#[test]
fn remote_is_acknowledged_by_the_peer() {
    let mut w = World::new();
    w.connected(remote(100 * MS));
    w.wait(S);
    for n in 0..5u32 {
        let t = w.now;
        w.guest_sends(&[seg(ACK | PSH, G + 1 + n, US + 1).data(b"k")]);
        let early = w.wait(99 * MS);
        assert!(early.iter().all(|s| s.ack == G + 1 + n), "{early:?}");
        let got = w.wait(60 * MS);
        assert_eq!(brief(&got), [(ACK, 1, 2 + n, 0)], "at {}", w.now - t);
        assert!(!w.deadline_armed());
    }
}

// [TCP-42] Bulk: the socket has it, so it is acknowledged.
#[test]
fn bulk_is_acknowledged_at_once() {
    let mut w = World::new();
    w.connected(Behaviour { rate: 100_000_000, ..remote(100 * MS) });
    let data = payload(60_000);
    for n in 0..5 {
        let mut got = w.guest_sends(&[seg(ACK, G + 1 + n * 60_000, US + 1).data(&data)]);
        got.extend(w.wait(5 * MS));
        assert_eq!(got.last().unwrap().ack, G + 1 + (n + 1) * 60_000);
    }
}

// [TCP-44] The method changes, the number does not go back. The watcher checks it on every frame.
#[test]
fn never_back() {
    let mut w = World::new();
    let s = w.connected(Behaviour { rate: 100_000_000, ..remote(100 * MS) });
    let data = payload(60_000);
    w.guest_sends(&[seg(ACK, G + 1, US + 1).data(&data)]);
    w.wait(5 * MS);
    w.guest_sends(&[seg(ACK, G + 60_001, US + 1).data(&data)]);
    w.net.socks[s].how.rate = 0;
    for n in 0..20u32 {
        w.guest_sends(&[seg(ACK, G + 120_001 + n, US + 1).data(b"x")]);
        w.wait(20 * MS);
    }
    w.wait(S);
    assert!(!w.deadline_armed());
}

// [TCP-36] Segments in the wrong order within a batch.
#[test]
fn reordered_in_batch() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    let at = |n, data| seg(ACK, G + n, US + 1).data(data);
    let got = w.guest_sends(&[at(4, b"def"), at(1, b"abc")]);
    assert_eq!(got, [], "nothing to report: acknowledged as if it had come in order");
    assert_eq!(w.net.socks[s].peer_got, b"abcdef");
    assert_eq!(brief(&w.wait(S)), [(ACK, 1, 7, 0)]);
    assert_eq!(w.net.socks[s].calls.send, 2);
}

// [TCP-38] A hole is reported at once, with what is expected. What is ahead of it is kept.
#[test]
fn hole() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    for _ in 0..3 {
        let got = w.guest_sends(&[seg(ACK, G + 4, US + 1).data(b"def")]);
        assert_eq!(brief(&got), [(ACK, 1, 1, 0)]);
    }
    assert_eq!(w.net.socks[s].peer_got, b"");
    let got = w.guest_sends(&[seg(ACK, G + 1, US + 1).data(b"abc")]);
    assert_eq!(brief(&got), [(ACK, 1, 7, 0)]);
    assert_eq!(w.net.socks[s].peer_got, b"abcdef");
    assert_eq!(w.drops.get(DropReason::OutOfOrder), 0);
}

// [TCP-38] Reports of one hole are duplicates of each other: the guest's stack counts those that do
// not change the window only.
#[test]
fn hole_reports_are_duplicates() {
    let mut w = World::new();
    w.connected(Behaviour::default());
    let data = payload(1000);
    for n in 0..30 {
        let at = G + 1 + n * 1000;
        let got = w.guest_sends(&[seg(ACK, at, US + 1).data(&data)]);
        let got = if got.is_empty() { w.wait(S) } else { got };
        assert_eq!(got.last().unwrap().ack, at + 1000);
    }
    let at = G + 1 + 31_000;
    let first = w.guest_sends(&[seg(ACK, at, US + 1).data(&data)]);
    for n in 1..5 {
        assert_eq!(w.guest_sends(&[seg(ACK, at + n * 1000, US + 1).data(&data)]), first);
    }
}

// [TCP-36, TCP-49] Overlap: only what is new is taken; wholly old data is acknowledged again.
#[test]
fn overlap_and_old_data() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    w.guest_sends(&[seg(ACK, G + 1, US + 1).data(b"abc")]);
    w.wait(S);
    let got = w.guest_sends(&[seg(ACK, G + 1, US + 1).data(b"abcdef")]);
    assert_eq!(brief(&got), [(ACK, 1, 7, 0)]);
    let got = w.guest_sends(&[seg(ACK, G + 1, US + 1).data(b"abcdef")]);
    assert_eq!(brief(&got), [(ACK, 1, 7, 0)]);
    assert_eq!(w.net.socks[s].peer_got, b"abcdef");
}

// [TCP-6] Sequence numbers wrap.
#[test]
fn sequence_wrap() {
    let mut w = World::new();
    w.isn = u32::MAX - 5;
    let g = u32::MAX - 10;
    w.guest_sends(&[seg(SYN, g, 0).opts(&OPTIONS)]);
    w.guest_sends(&[seg(ACK, g.wrapping_add(1), w.isn.wrapping_add(1))]);
    let mut all = vec![];
    let mut at = g.wrapping_add(1);
    for n in 0..20usize {
        let d = payload(3 + n);
        w.guest_sends(&[seg(ACK, at, u32::MAX - 4).data(&d)]);
        at = at.wrapping_add(d.len() as u32);
        all.extend(d);
    }
    assert_eq!(w.net.socks[0].peer_got, all);
    let got = w.peer_writes(0, &[9; 5000]);
    assert_eq!(got.iter().map(|s| s.data.len()).sum::<usize>(), 5000);
    let end = (u32::MAX - 4).wrapping_add(5000);
    assert_eq!(w.guest_sends(&[seg(ACK, at, end)]), []);
    assert!(!w.deadline_armed());
}

// [TCP-71] Keepalives and probes with zero and one old byte are answered at once.
#[test]
fn guest_keepalive() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    w.guest_sends(&[seg(ACK, G + 1, US + 1).data(b"abc")]);
    w.wait(S);
    for data in [&b""[..], b"c"] {
        let got = w.guest_sends(&[seg(ACK, G + 3, US + 1).data(data)]);
        assert_eq!(brief(&got), [(ACK, 1, 4, 0)]);
    }
    assert_eq!(w.net.socks[s].peer_got, b"abc");
    // Half-closed guests too.
    w.guest_sends(&[seg(ACK | FIN, G + 4, US + 1)]);
    let got = w.guest_sends(&[seg(ACK, G + 4, US + 1)]);
    assert_eq!(brief(&got), [(ACK, 1, 5, 0)]);
}

// [TCP-7] SYN on an established connection: a challenge, in and out of the window.
#[test]
fn syn_on_established() {
    for at in [G, G + 1, G + 500, G + (1 << 30)] {
        let mut w = World::new();
        w.connected(Behaviour::default());
        let got = w.guest_sends(&[seg(SYN, at, 0).opts(&OPTIONS)]);
        assert_eq!(brief(&got), [(ACK, 1, 1, 0)], "{at}");
        // The restarted guest knows nothing of it.
        assert_eq!(w.guest_sends(&[seg(RST, G + 1, 0)]), []);
        assert_eq!(w.ends[&0], Verdict::Abort);
        let got = w.guest_sends(&[seg(SYN, at, 0).opts(&OPTIONS)]);
        assert_eq!(got[0].flags, SYN | ACK);
    }
}

// [TCP-4] RFC 5961, 3.2: the exact number resets, others in the window are challenged, the rest
// is dropped. Data before the RST in the same batch is delivered.
#[test]
fn reset_by_the_guest() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    let got = w.guest_sends(&[seg(RST, G + 5, 0)]);
    assert_eq!(brief(&got), [(ACK, 1, 1, 0)]);
    assert_eq!(w.guest_sends(&[seg(RST, G, 0), seg(RST, G + (1 << 30), 0)]), []);
    assert_eq!(w.table.len(), 1);
    let got = w.guest_sends(&[
        seg(ACK, G + 1, US + 1).data(b"last words"),
        seg(RST | ACK, G + 11, US + 1),
        seg(SYN, G + 9999, 0).opts(&OPTIONS),
    ]);
    assert_eq!(w.net.socks[s].peer_got, b"last words");
    assert!(w.net.socks[s].peer_reset, "[TCP-83]");
    // [FLOW-11] The SYN behind it opens a new connection.
    assert_eq!((got.last().unwrap().flags, got.last().unwrap().ack), (SYN | ACK, G + 10_000));
}

// [TCP-39] The socket is full: what it did not take waits, nothing is dropped, and once it
// drains the guest gets its window without asking.
#[test]
fn stalled_peer_loses_nothing() {
    let mut w = World::new();
    let stalled =
        Behaviour { sndbuf: 20_000, peer_rcvbuf: 10_000, peer_read: 0, ..Behaviour::default() };
    let s = w.connected(stalled);
    let data = payload(3 << 20);
    let mut fill = Filler::new();
    fill.run(&mut w, &data);
    let offered = fill.sent;
    assert!(offered >= 65_535, "only {offered} bytes of window");
    assert_eq!(w.drops.get(DropReason::BeyondWindow), 0);
    // The guest is patient; so are we.
    let calls = w.timer_calls;
    fill.note(&w.wait(60 * S));
    assert_eq!(fill.sent, offered);
    assert!(w.timer_calls - calls < 200, "{} timer calls in a minute", w.timer_calls - calls);

    w.net.socks[s].how.peer_read = 5000;
    for _ in 0..5000 {
        fill.note(&w.wait(MS));
        fill.run(&mut w, &data);
        if w.net.socks[s].peer_got.len() == data.len() {
            break;
        }
    }
    assert_eq!(fill.resent, 0);
    assert!(w.net.socks[s].peer_got == data, "{} of {}", w.net.socks[s].peer_got.len(), data.len());
    fill.note(&w.wait(S));
    assert_eq!(fill.acked, data.len());
    assert!(!w.deadline_armed(), "[TCP-45] quiet when all is acknowledged");
    for r in [DropReason::BeyondWindow, DropReason::OutOfOrder] {
        assert_eq!(w.drops.get(r), 0);
    }
}

/// A guest that always fills the window it was offered, and never repeats itself.
struct Filler {
    sent: usize,
    acked: usize,
    edge: usize,
    scale: u8,
    resent: usize,
    segment: usize,
}

impl Filler {
    fn new() -> Self {
        Self { sent: 0, acked: 0, edge: 65535, scale: 8, resent: 0, segment: 1460 }
    }

    fn note(&mut self, got: &[Seg]) {
        for s in got {
            assert_eq!(s.flags & (RST | SYN), 0, "{s:?}");
            self.acked = self.acked.max(s.ack.wrapping_sub(G + 1) as usize);
            let edge = s.ack.wrapping_sub(G + 1) as usize + (usize::from(s.win) << self.scale);
            self.edge = self.edge.max(edge);
        }
    }

    fn run(&mut self, w: &mut World, data: &[u8]) {
        loop {
            let end = self.edge.min(data.len());
            if self.sent >= end {
                break;
            }
            let mut batch = vec![];
            while self.sent < end && batch.len() < 8 {
                let n = self.segment.min(end - self.sent);
                let at = G.wrapping_add(1 + self.sent as u32);
                batch.push(seg(ACK, at, US + 1).data(&data[self.sent..self.sent + n]));
                self.sent += n;
            }
            let got = w.guest_sends(&batch);
            self.note(&got);
        }
    }
}

// [TCP-39] [TCP-50] [TCP-52] The property behind it, over many kinds of sockets, pools and guests: whatever fits a
// window we offered arrives, with no repetition by the guest.
#[test]
fn offered_windows_are_kept() {
    for seed in 0..200 {
        let mut r = Rng::new(seed);
        let pool = r.pick(&[0, 40_000, 400_000, 4 << 20, 64 << 20]);
        let mut w = World::with(1500, pool, seed);
        let how = Behaviour {
            sndbuf: r.pick(&[2000, 20_000, 200_000, 2_000_000]),
            peer_rcvbuf: r.pick(&[1000, 50_000, 1_000_000]),
            peer_read: r.pick(&[500, 20_000, usize::MAX]),
            peer_read_us: r.pick(&[100, 2000]),
            rtt_us: r.pick(&[0, 0, 300, 20_000, 200_000]),
            // Without a pool, the socket has to keep its word.
            short_sends: if pool < 4 << 20 { 0 } else { r.pick(&[0, 3, 20]) },
            rate: r.pick(&[0, 10_000_000]),
            info: r.chance(80),
            ..Behaviour::default()
        };
        let scaled = r.chance(80);
        let opts = if scaled { &OPTIONS[..] } else { &OPTIONS[..4] };
        w.net.next = how.clone();
        let got = w.guest_sends(&[seg(SYN, G, 0).opts(opts)]);
        let mut fill = Filler::new();
        fill.scale = if scaled { 8 } else { 0 };
        fill.edge = usize::from(got[0].win);
        fill.segment = r.pick(&[100, 1460, 60_000]);
        w.guest_sends(&[seg(ACK, G + 1, US + 1)]);
        let data = payload(300_000);
        let context = format!("seed {seed}: pool {pool} scaled {scaled} {how:?}");
        let give_up = w.now + 3000 * S;
        let mut last = w.now;
        while w.net.socks[0].peer_got.len() < data.len() {
            let before = (fill.sent, w.net.socks[0].peer_got.len());
            fill.run(&mut w, &data);
            let at = w.next_event();
            assert!(at.is_some() || fill.sent != before.0, "stalled at {before:?}: {context}");
            if let Some(at) = at {
                w.now = w.now.max(at);
                w.turn();
            }
            fill.note(&w.sent());
            if (fill.sent, w.net.socks[0].peer_got.len()) != before {
                last = w.now;
            }
            assert!(w.now - last < 10 * S, "no progress for 10 s at {before:?}: {context}");
            assert!(w.now < give_up, "too slow: {context}");
        }
        assert!(w.net.socks[0].peer_got == data, "{context}");
        fill.note(&w.wait(10 * S));
        assert_eq!(fill.acked, data.len(), "{context}");
        assert!(!w.deadline_armed(), "a timer runs on a quiet connection: {context}");
        for reason in [DropReason::BeyondWindow, DropReason::OutOfOrder] {
            assert_eq!(w.drops.get(reason), 0, "{reason:?}: {context}");
        }
        w.guest_sends(&[seg(RST, G + 1 + data.len() as u32, 0)]);
        w.assert_clean();
    }
}

// [TCP-54] Without memory for promises, what a full socket has room for again is not offered in
// crumbs: nothing, or at least a segment, or half of what the socket ever holds.
#[test]
fn windows_are_not_silly() {
    for (sndbuf, least) in [(20_000, 1460), (4000, 1000)] {
        let mut w = World::with(1500, 0, 1);
        let slow = Behaviour { sndbuf, peer_rcvbuf: 100, peer_read: 100, ..remote(0) };
        let s = w.connected(slow);
        let data = payload(60_000);
        let mut fill = Filler::new();
        fill.edge = sndbuf;
        fill.run(&mut w, &data);
        let mut windows = 0;
        while w.net.socks[s].peer_got.len() < data.len() {
            let before = fill.edge;
            fill.note(&w.wait(MS));
            if fill.edge != before {
                let usable = fill.edge - fill.sent;
                assert!(usable >= least, "{usable} bytes offered, of {sndbuf}");
                windows += 1;
            }
            fill.run(&mut w, &data);
            assert!(w.now < 3000 * S, "stuck at {}", fill.sent);
        }
        assert!(windows >= 2, "the socket was full");
        assert_eq!(w.drops.get(DropReason::BeyondWindow), 0);
    }
}

// D1: a flow without a promise does not take what another one was promised.
#[test]
fn promises_of_others_are_kept() {
    let mut w = World::with(1500, 300_000, 1);
    let stalled =
        Behaviour { sndbuf: 20_000, peer_rcvbuf: 1000, peer_read: 0, ..Behaviour::default() };
    let mut edges = vec![];
    for n in 0..40u16 {
        w.net.next = stalled.clone();
        let got = w.guest_sends(&[seg(SYN, G, 0).opts(&OPTIONS).ports(4000 + n, 80)]);
        w.guest_sends(&[seg(ACK, G + 1, US + 1).ports(4000 + n, 80)]);
        edges.push(usize::from(got[0].win));
    }
    let data = payload(65_535);
    // The last ones first: they have the least.
    for n in (0..40u16).rev() {
        let len = edges[usize::from(n)];
        let mut at = 0;
        while at < len {
            let m = 1460.min(len - at);
            let s = seg(ACK, G + 1 + at as u32, US + 1).data(&data[at..at + m]);
            w.guest_sends(&[s.ports(4000 + n, 80)]);
            at += m;
        }
    }
    assert_eq!(w.drops.get(DropReason::BeyondWindow), 0, "{edges:?}");
    for s in &mut w.net.socks {
        s.how.peer_read = usize::MAX;
    }
    w.wait(10 * S);
    for (s, len) in w.net.socks.iter().zip(edges) {
        assert!(s.peer_got == data[..len]);
    }
}

// [TCP-5] A guest that ignores the window: what is beyond is not taken, and it is told.
#[test]
fn beyond_the_window() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    let data = payload(60_000);
    let mut at = 0u32;
    // No turn of ours is given the chance to open the window in between.
    let batch: Vec<_> = (0..10)
        .map(|_| {
            at += 60_000;
            seg(ACK, G + 1 + at - 60_000, US + 1).data(&data)
        })
        .collect();
    let got = w.guest_sends(&batch);
    assert!(w.drops.get(DropReason::BeyondWindow) > 0);
    assert!(!got.is_empty());
    let n = w.net.socks[s].peer_got.len();
    assert!(n >= 65_535);
    assert_eq!(got.last().unwrap().ack, G + 1 + n as u32);
}

// [TCP-56] Closed window, probed: the probe is answered and not taken.
#[test]
fn probe_of_closed_window() {
    // Without a pool the window is what the socket can take.
    let mut w = World::with(1500, 0, 1);
    let how = Behaviour { sndbuf: 5000, peer_rcvbuf: 1, peer_read: 0, ..Behaviour::default() };
    let s = w.connected(how);
    let mut fill = Filler::new();
    fill.edge = 5000;
    let data = payload(100_000);
    fill.run(&mut w, &data);
    fill.note(&w.wait(S));
    fill.run(&mut w, &data);
    let end = G + 1 + fill.sent as u32;
    let got = w.guest_sends(&[seg(ACK, end, US + 1).data(&data[fill.sent..=fill.sent])]);
    assert_eq!(got.last().map(|s| (s.ack, s.win)), Some((end, 0)));
    let calls = w.timer_calls;
    w.wait(60 * S);
    let calls = w.timer_calls - calls;
    assert!(calls < 2000, "{calls} timer calls in a minute");
    w.net.socks[s].how.peer_read = usize::MAX;
    let got = w.wait(2 * S);
    assert!(got.last().is_some_and(|s| s.win > 0), "[TCP-56] no window update");
}

// [TCP-41] The socket breaks while sending.
#[test]
fn send_error() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    w.net.socks[s].peer_rst();
    let got = w.guest_sends(&[seg(ACK, G + 1, US + 1).data(b"abc")]);
    assert_eq!(brief(&got), [(RST | ACK, 1, 1, 0)]);
    w.assert_clean();
}

// [TCP-48] Data of the peer carries the acknowledgement.
#[test]
fn piggyback() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    w.net.socks[s].peer_out.extend(b"response");
    let got = w.guest_sends(&[seg(ACK | PSH, G + 1, US + 1).data(b"request")]);
    let got: Vec<_> = got.into_iter().chain(w.wait(S / 2)).collect();
    assert_eq!(brief(&got), [(ACK | PSH, 1, 8, 8)]);
}

// [TCP-66] The link cannot take an acknowledgement: it is sent once it can.
#[test]
fn lost_acknowledgement_is_repeated() {
    let mut w = World::new();
    w.connected(Behaviour::default());
    w.guest_sends(&[seg(ACK | PSH, G + 1, US + 1).data(b"a")]);
    w.wait(S);
    w.link.lose = 1;
    assert_eq!(w.guest_sends(&[seg(ACK | PSH, G + 2, US + 1).data(b"b")]), []);
    assert_eq!(brief(&w.wait(100 * MS)), [(ACK, 1, 3, 0)]);
    assert!(!w.deadline_armed());
}

// [TCP-55] A request and its response between the guest and a peer on this host: one send, one peek, and
// hardly anything else.
#[test]
fn system_calls_per_request() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    for n in 0..1000u32 {
        w.net.socks[s].peer_out.extend([1; 100]);
        let at = seg(ACK | PSH, G + 1 + n * 100, US + 1 + n * 100).data(&[2; 100]);
        let got = w.guest_sends(&[at]);
        assert_eq!(got.iter().map(|s| s.data.len()).sum::<usize>(), 100);
        assert!(got.len() <= 2, "{got:?}");
        w.wait(100);
    }
    let calls = w.net.socks[s].calls;
    assert_eq!((calls.send, calls.peek, calls.seek), (1000, 1000, 0));
    assert!(calls.discard <= 100 && calls.view <= 5, "{calls:?}");
}

// [TCP-37] Short segments of one batch go to the socket together, but for the first.
#[test]
fn short_segments_of_a_batch_are_gathered() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    let data = payload(40 + 5000 + 4000);
    let mut at = G + 1;
    let mut cut = |lengths: &[usize]| -> Vec<_> {
        let cut = |n: &usize| {
            let from = (at - G - 1) as usize;
            at += u32::try_from(*n).unwrap();
            seg(ACK | PSH, G + 1 + u32::try_from(from).unwrap(), US + 1).data(&data[from..from + n])
        };
        lengths.iter().map(cut).collect()
    };
    w.guest_sends(&cut(&[1; 40]));
    assert_eq!((w.net.socks[s].taken(), w.net.socks[s].calls.send), (40, 2));
    // A long one goes by itself, after what came before.
    w.guest_sends(&cut(&[100, 100, 100, 4400, 100, 100, 100]));
    assert_eq!((w.net.socks[s].taken(), w.net.socks[s].calls.send), (5040, 6));
    // One that is missing is waited for, with what came before it in the socket.
    let segments = cut(&[1000; 4]);
    let [a, b, c, d] = &segments[..] else { unreachable!() };
    w.guest_sends(&[a.clone(), b.clone(), d.clone()]);
    assert_eq!(w.net.socks[s].taken(), 7040);
    w.guest_sends(&[c.clone(), seg(FIN | ACK, at, US + 1)]);
    w.wait(S);
    assert_eq!(w.net.socks[s].peer_got, data);
    assert!(w.net.socks[s].is_shut());
}

// [TCP-39] What waits in the backlog is acknowledged before the guest's stack repeats it (its tail
// loss probe comes after some 8 ms), and long before it gives up on a peer that is only paused.
// What is left is a closed window, which a guest probes for ever.
#[test]
fn backlog_is_acknowledged_in_time() {
    for (rtt_us, rate) in [(0, 0), (100 * MS, 100_000_000)] {
        let mut w = World::new();
        let how =
            Behaviour { sndbuf: 20_000, peer_rcvbuf: 1000, peer_read: 0, rate, ..remote(rtt_us) };
        let s = w.connected(how);
        // The kind of the transfer is known after the first bytes.
        w.guest_sends(&[seg(ACK, G + 1, US + 1).data(&payload(16_500))]);
        w.wait(5 * MS);
        let data = payload(30_000);
        w.guest_sends(&[seg(ACK, G + 16_501, US + 1).data(&data)]);
        let got = w.wait(8 * MS);
        assert_eq!(got.last().map(|s| s.ack), Some(G + 46_501), "rtt {rtt_us}");
        w.wait(2 * S);
        assert!(w.net.socks[s].peer_got.is_empty());
        w.net.socks[s].how.peer_read = usize::MAX;
        w.socket_events();
        w.wait(S);
        assert_eq!(w.net.socks[s].peer_got.len(), 46_500);
        w.wait(S);
        assert!(!w.deadline_armed());
    }
}

// [TCP-42] Where the peer's acknowledgements are passed on, the guest knows how long they take.
#[test]
fn backlog_of_interactive_flow_waits_longer() {
    let mut w = World::new();
    let how = Behaviour { sndbuf: 20_000, peer_rcvbuf: 1000, peer_read: 0, ..remote(20 * MS) };
    w.connected(how);
    w.guest_sends(&[seg(ACK, G + 1, US + 1).data(&payload(46_500))]);
    let got = w.wait(100 * MS);
    assert!(got.iter().all(|s| s.ack <= G + 1001), "{got:?}");
    let got = w.wait(2 * S);
    assert_eq!(got.last().map(|s| s.ack), Some(G + 46_501));
    let calls = w.timer_calls;
    w.wait(60 * S);
    let calls = w.timer_calls - calls;
    assert!(calls < 10, "{calls} calls: all is acknowledged, the socket tells when it drains");
}

// [TCP-42] A peer that does not read: what waits in the socket alone is acknowledged in the end,
// too, or the guest would give the connection up. Once the peer has caught up its
// acknowledgements count again.
#[test]
fn what_waits_in_the_socket_is_acknowledged_in_the_end() {
    let mut w = World::new();
    let how = Behaviour { sndbuf: 20_000, peer_rcvbuf: 1000, peer_read: 0, ..remote(20 * MS) };
    let s = w.connected(how);
    w.guest_sends(&[seg(ACK, G + 1, US + 1).data(&payload(5000))]);
    let got = w.wait(100 * MS);
    assert!(got.iter().all(|s| s.ack <= G + 1001), "{got:?}");
    let got = w.wait(3 * S);
    assert_eq!(got.last().map(|s| s.ack), Some(G + 5001));
    let calls = w.timer_calls;
    w.wait(60 * S);
    assert!(w.timer_calls - calls < 10, "all is acknowledged");

    w.net.socks[s].how.peer_read = 5000;
    w.wait(10 * S);
    assert_eq!(w.net.socks[s].peer_got.len(), 5000);
    for n in 0..3 {
        w.guest_sends(&[seg(ACK, G + 5001 + n, US + 1).data(b"x")]);
        let early = w.wait(5 * MS);
        // The first one shows that the peer has caught up.
        assert!(n == 0 || early.iter().all(|s| s.ack <= G + 5001 + n), "{early:?}");
        let got = w.wait(S);
        let last = early.iter().chain(&got).last();
        assert_eq!(last.map(|s| s.ack), Some(G + 5002 + n));
    }
}

// [D1] The kernel has no memory for what the guest sent, and will not tell when it has: a timer
// tries again, less and less often, and nothing is lost.
#[test]
fn refused_without_an_event() {
    for (rtt, refusals) in [(0, 1), (0, 12), (20 * MS, 1), (20 * MS, 12)] {
        let mut w = World::new();
        let s = w.connected(Behaviour { refusals, ..remote(rtt) });
        let data = payload(3000);
        let mut at = 0;
        for part in data.chunks(1000) {
            w.guest_sends(&[seg(ACK | PSH, G + 1 + at, US + 1).data(part)]);
            at += part.len() as u32;
        }
        w.guest_sends(&[seg(FIN | ACK, G + 1 + at, US + 1)]);
        w.wait(10 * S);
        let sock = &w.net.socks[s];
        assert!(sock.peer_got == data && sock.peer_eof, "rtt {rtt}, {refusals} refusals");
        assert!(w.timer_calls < 60, "{} timer calls", w.timer_calls);
    }
}

// [D1] A connection whose peer does not read at all is looked at about once a second, and goes on
// within that time when the peer does.
#[test]
fn a_stalled_peer_is_not_asked_often() {
    let mut w = World::new();
    let how = Behaviour { sndbuf: 20_000, peer_rcvbuf: 10_000, peer_read: 0, ..remote(0) };
    let s = w.connected(how);
    let data = payload(60_000);
    let segs: Vec<_> = (0u32..)
        .zip(data.chunks(1000))
        .map(|(n, part)| seg(ACK | PSH, G + 1 + n * 1000, US + 1).data(part))
        .collect();
    w.guest_sends(&segs);
    w.wait(10 * S);
    let (timers, sends) = (w.timer_calls, w.net.socks[s].calls.send);
    w.wait(60 * S);
    assert!(w.timer_calls - timers < 80, "{} timer calls in 60 s", w.timer_calls - timers);
    assert!(w.net.socks[s].calls.send - sends < 80, "sends");
    assert!(w.pool.used() > 0);
    w.net.socks[s].how.peer_read = usize::MAX;
    w.wait(2 * S);
    assert!(w.net.socks[s].peer_got == data);
    assert_eq!(w.pool.used(), 0);
}
