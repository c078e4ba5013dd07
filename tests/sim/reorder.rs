//! Segments of the guest that overtake each other, are lost, or come twice: what is kept, and what
//! the guest is told. RFC 2018, RFC 2883, RFC 7323.

use passt::flow::DropReason;
use passt::wire::{SackBlocks, SynOptions, TcpOptions, Timestamps};

use super::net::Behaviour;
use super::raw::*;
use super::rng::Rng;
use super::world::World;

const MS: u64 = 1000;
const S: u64 = 1_000_000;

/// MSS 1460, window scale 7, and what the test is about. The guest's clock is at 100.
fn syn(sack: bool, stamps: bool) -> Vec<u8> {
    let options = SynOptions {
        mss: Some(1460),
        wscale: Some(7),
        sack_permitted: sack,
        timestamps: stamps.then_some(Timestamps { value: 100, echo: 0 }),
    };
    TcpOptions::syn(&options).as_slice().to_vec()
}

/// A connection with SACK.
fn sack(how: Behaviour) -> (World, usize) {
    let mut w = World::new();
    let s = w.connected_with(how, &syn(true, false), 0xffff);
    (w, s)
}

/// A connection with SACK and timestamps.
fn linux(how: Behaviour) -> (World, usize) {
    let mut w = World::new();
    w.net.next = how;
    w.guest_sends(&[seg(SYN, G, 0).opts(&syn(true, true))]);
    w.guest_sends(&[at(0, b"").opts(&linux_ts(100, 1))]);
    (w, 0)
}

/// Data at an offset of the stream.
fn at(offset: u32, data: &[u8]) -> Seg {
    seg(ACK, G + 1 + offset, US + 1).data(data)
}

/// The blocks of a segment as offsets.
fn blocks(s: &Seg) -> Vec<(u32, u32)> {
    let rel = |n: passt::wire::Seq| n.0.wrapping_sub(G + 1);
    SackBlocks::find(&s.opts).as_slice().iter().map(|b| (rel(b.left), rel(b.right))).collect()
}

/// What was acknowledged, and the blocks, of the one segment that was sent.
fn report(got: &[Seg]) -> (u32, Vec<(u32, u32)>) {
    assert_eq!(got.len(), 1, "{got:?}");
    assert!(got[0].data.is_empty() && got[0].flags == ACK);
    (got[0].ack - G - 1, blocks(&got[0]))
}

fn echo(s: &Seg) -> u32 {
    Timestamps::find(&s.opts).unwrap().echo
}

// [W-1] The latest range is the first block, then those before it; neighbours are one range. As many
// as fit (RFC 2018, 4).
#[test]
fn blocks_latest_first() {
    for stamps in [false, true] {
        let (mut w, s) =
            if stamps { linux(Behaviour::default()) } else { sack(Behaviour::default()) };
        let ts = |s: Seg| if stamps { s.opts(&linux_ts(100, 1)) } else { s };
        let mut send = |o, d: &[u8]| report(&w.guest_sends(&[ts(at(o, d))]));
        assert_eq!(send(10, b"ab"), (0, vec![(10, 12)]));
        assert_eq!(send(20, b"ab"), (0, vec![(20, 22), (10, 12)]));
        assert_eq!(send(12, b"cd"), (0, vec![(10, 14), (20, 22)]));
        assert_eq!(send(30, b"ab"), (0, vec![(30, 32), (10, 14), (20, 22)]));
        let most = if stamps { 3 } else { 4 };
        let all = [(40, 42), (30, 32), (10, 14), (20, 22)];
        assert_eq!(send(40, b"ab"), (0, all[..most].to_vec()));
        let all = [(50, 52), (40, 42), (30, 32), (10, 14)];
        assert_eq!(send(50, b"ab"), (0, all[..most].to_vec()));
        // Part of the hole: acknowledged, the rest still reported.
        assert_eq!(send(0, b"0123456789").0, 14);
        assert_eq!(w.net.socks[s].peer_got, b"0123456789abcd");
        // Across several ranges, and all of it.
        let rest: Vec<u8> = (14..60).collect();
        assert_eq!(report(&w.guest_sends(&[ts(at(14, &rest))])), (60, vec![]));
        assert_eq!(w.net.socks[s].peer_got.len(), 60);
        assert!(!w.deadline_armed());
        assert_eq!(w.pool.used(), 0);
    }
}

// [W-1] Nothing but numbers for a guest that did not permit SACK. One duplicate for each segment,
// so that it comes to three, but not without end (RFC 5681, 3.2).
#[test]
fn duplicates_for_a_guest_without_sack() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    let batch: Vec<_> = (1..6).map(|n| at(n * 10, &[1; 10])).collect();
    let got = w.guest_sends(&batch);
    assert_eq!(brief(&got), vec![(ACK, 1, 1, 0); 5]);
    assert!(got.iter().all(|s| *s == got[0]));
    let batch: Vec<_> = (6..100).map(|n| at(n * 10, &[1; 10])).collect();
    assert_eq!(brief(&w.guest_sends(&batch)), vec![(ACK, 1, 1, 0); 8]);
    // New data and more ahead of the next hole: first the progress, then the duplicates.
    let got = w.guest_sends(&[at(0, &[1; 10]), at(1010, &[1; 10]), at(1020, &[1; 10])]);
    assert_eq!(brief(&got), vec![(ACK, 1, 1001, 0); 3]);
    assert_eq!(w.net.socks[s].peer_got.len(), 1000);
}

// [TCP-36, W-1] What is in order again by the end of a batch is not reported.
#[test]
fn reordering_within_a_batch_is_silent() {
    let (mut w, s) = sack(Behaviour::default());
    let data = Rng::new(3).bytes(8000);
    let part = |n: usize| at(n as u32 * 1000, &data[n * 1000..][..1000]);
    let order = [3, 1, 7, 0, 2, 6, 5, 4];
    let got = w.guest_sends(&order.map(part));
    assert_eq!(got, []);
    assert_eq!(report(&w.wait(2 * MS)), (8000, vec![]));
    assert_eq!(w.net.socks[s].peer_got, data);
    assert_eq!(w.pool.used(), 0);
}

// [W-1] Octets that came twice are reported first, once; if they are ahead of a hole, their range
// follows (RFC 2883, 4).
#[test]
fn duplicates_are_reported() {
    let (mut w, _) = sack(Behaviour::default());
    w.guest_sends(&[at(0, b"abcdef")]);
    w.wait(S);
    let mut send = |o, d: &[u8]| report(&w.guest_sends(&[at(o, d)]));
    assert_eq!(send(0, b"abc"), (6, vec![(0, 3)]));
    assert_eq!(send(3, b"defg"), (7, vec![(3, 6)]));
    assert_eq!(send(20, b"xyz"), (7, vec![(20, 23)]));
    assert_eq!(send(20, b"xyz"), (7, vec![(20, 23), (20, 23)]));
    assert_eq!(send(30, b"xyz"), (7, vec![(30, 33), (20, 23)]));
    assert_eq!(send(21, b"y"), (7, vec![(21, 22), (20, 23), (30, 33)]));
    assert_eq!(send(0, b"a"), (7, vec![(0, 1), (20, 23), (30, 33)]));
    // A keepalive without data repeats nothing.
    assert_eq!(send(6, b""), (7, vec![(20, 23), (30, 33)]));
    // Two in a batch that belong together are one block.
    let got = w.guest_sends(&[at(0, b"abc"), at(3, b"def")]);
    assert_eq!(report(&got).1[0], (0, 6));
}

// [W-1] A FIN ahead of a hole is part of its range.
#[test]
fn fin_in_a_block() {
    let (mut w, s) = sack(Behaviour::default());
    let got = w.guest_sends(&[seg(ACK | FIN, G + 4, US + 1).data(b"def")]);
    assert_eq!(report(&got), (0, vec![(3, 7)]));
    assert_eq!(report(&w.guest_sends(&[at(0, b"abc")])), (7, vec![]));
    assert!(w.net.socks[s].peer_eof);
}

// [W-1] While there is a hole, everything before it is acknowledged, even what the peer or the
// socket does not have: the guest takes for lost what is neither acknowledged nor in a block.
#[test]
fn holes_are_where_they_seem() {
    let far = Behaviour { rtt_us: 500 * MS, sndbuf: 3000, ..Behaviour::default() };
    let (mut w, s) = sack(far);
    let data = Rng::new(4).bytes(20_000);
    let part = |from: usize, to: usize| at(from as u32, &data[from..to]);
    assert_eq!(w.guest_sends(&[part(0, 1000), part(1000, 2000)]), []);
    assert_eq!(report(&w.guest_sends(&[part(3000, 4000)])), (2000, vec![(3000, 4000)]));
    // The socket is full by now.
    assert_eq!(report(&w.guest_sends(&[part(2000, 3000)])), (4000, vec![]));
    let got = w.guest_sends(&[part(4000, 9000), part(12_000, 20_000)]);
    assert_eq!(report(&got), (9000, vec![(12_000, 20_000)]));
    assert_eq!(report(&w.guest_sends(&[part(9000, 12_000)])).1, []);
    w.wait(30 * S);
    assert!(w.net.socks[s].peer_got == data);
    assert_eq!(w.pool.used(), 0);
}

// [W-1] A hole is reported although data goes the other way at the same time.
#[test]
fn a_hole_is_reported_beside_data() {
    let (mut w, s) = linux(Behaviour::default());
    w.net.socks[s].peer_out.extend([1; 1000]);
    let got = w.guest_sends(&[at(10, b"abc").opts(&linux_ts(100, 1))]);
    let bare: Vec<_> = got.iter().filter(|s| s.data.is_empty()).collect();
    assert_eq!(bare.len(), 1, "{got:?}");
    assert_eq!(blocks(bare[0]), [(10, 13)]);
    assert_eq!(got.iter().map(|s| s.data.len()).sum::<usize>(), 1000);
}

// [TCP-5] Ahead of a hole and beyond the window: cut there, and the stream stays whole.
#[test]
fn window_ahead_of_a_hole() {
    let (mut w, s) = sack(Behaviour::default());
    // That of the SYN,ACK.
    let edge = 65_535;
    let data = Rng::new(5).bytes(edge as usize + 5000);
    let part = |from: usize, to: usize| at(from as u32, &data[from..to]);
    let inside = edge as usize;
    let got = w.guest_sends(&[part(inside - 1000, inside + 1000)]);
    assert_eq!(report(&got), (0, vec![(edge - 1000, edge)]));
    assert_eq!(w.drops.get(DropReason::BeyondWindow), 1);
    assert_eq!(report(&w.guest_sends(&[part(inside + 1, inside + 1000)])).1.len(), 1);
    assert_eq!(w.drops.get(DropReason::BeyondWindow), 2);
    for from in (0..inside - 1000).step_by(60_000) {
        w.guest_sends(&[part(from, (from + 60_000).min(inside - 1000))]);
    }
    assert!(w.net.socks[s].peer_got == data[..inside]);
    assert_eq!(w.pool.used(), 0);
}

// [W-1] Without memory to promise nothing is kept ahead of a hole; the guest repeats it, and nothing
// breaks.
#[test]
fn no_promise_no_reassembly() {
    let mut w = World::with(1500, 0, 1);
    let s = w.connected_with(Behaviour::default(), &syn(true, false), 0xffff);
    assert_eq!(report(&w.guest_sends(&[at(3, b"def")])), (0, vec![]));
    assert_eq!(w.drops.get(DropReason::OutOfOrder), 1);
    w.guest_sends(&[at(0, b"abc")]);
    w.guest_sends(&[at(3, b"def")]);
    assert_eq!(w.net.socks[s].peer_got, b"abcdef");
}

// [W-1] A guest that sends every other octet gets no more memory than its window; what finds no
// place in the table is counted, and the stream is whole in the end.
#[test]
fn the_table_ends() {
    let (mut w, s) = sack(Behaviour::default());
    let data = Rng::new(6).bytes(2000);
    for n in (1..2000).step_by(2) {
        w.guest_sends(&[at(n, &data[n as usize..][..1])]);
    }
    assert_eq!(w.drops.get(DropReason::OutOfOrder), 1000 - 512);
    assert_eq!(w.pool.used(), 2);
    w.guest_sends(&[at(0, &data)]);
    assert!(w.net.socks[s].peer_got == data);
    assert_eq!(w.pool.used(), 0);
}

// [W-1] Old duplicates are told by their timestamp, whatever their number: dropped, and answered
// (RFC 7323, 5.3).
#[test]
fn old_duplicates() {
    let (mut w, s) = linux(Behaviour::default());
    let stamped = |o, d: &[u8], t| at(o, d).opts(&linux_ts(t, 1));
    w.guest_sends(&[stamped(0, b"abc", 200)]);
    w.wait(S);
    for old in [199, 100, 200u32.wrapping_sub(0x7fff_ffff)] {
        let got = w.guest_sends(&[stamped(3, b"OLD", old)]);
        assert_eq!(report(&got), (3, vec![]), "{old}");
        assert_eq!(echo(&got[0]), 200);
    }
    assert_eq!(w.drops.get(DropReason::BadSegment), 3);
    // The same, later, and without a timestamp.
    w.guest_sends(&[stamped(3, b"d", 200)]);
    w.guest_sends(&[stamped(4, b"e", 200 + 0x7fff_0000)]);
    w.guest_sends(&[at(5, b"f")]);
    assert_eq!(w.net.socks[s].peer_got, b"abcdef");
    // A reset counts in any case.
    w.guest_sends(&[seg(RST, G + 7, 0).opts(&linux_ts(1, 1))]);
    w.assert_clean();
}

// [W-1] The clock of the guest wraps.
#[test]
fn the_guests_clock_wraps() {
    let mut w = World::new();
    let mut first = syn(true, true);
    first[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
    w.guest_sends(&[seg(SYN, G, 0).opts(&first)]);
    for n in 0..10u32 {
        w.guest_sends(&[at(n, b"x").opts(&linux_ts(u32::MAX.wrapping_add(n * 3), 1))]);
    }
    assert_eq!(w.net.socks[0].peer_got.len(), 10);
}

// [W-1] The echo is that of the segment that moved the acknowledgement, so that the time measured is
// never too short: not of one ahead of a hole, not of a later one of the same batch, not of an old
// duplicate (RFC 7323, 4.3).
#[test]
fn what_is_echoed() {
    let (mut w, _) = linux(Behaviour::default());
    let stamped = |o, t| at(o, b"abc").opts(&linux_ts(t, 1));
    // The first one teaches us that the peer is local.
    w.guest_sends(&[stamped(0, 150)]);
    w.wait(S);
    let got = w.guest_sends(&[stamped(3, 200), stamped(6, 201), stamped(9, 202)]);
    assert_eq!((report(&got).0, echo(&got[0])), (12, 200));
    let got = w.guest_sends(&[stamped(15, 210)]);
    assert_eq!((report(&got), echo(&got[0])), ((12, vec![(15, 18)]), 200));
    let got = w.guest_sends(&[stamped(12, 220)]);
    assert_eq!((report(&got).0, echo(&got[0])), (18, 220));
    // Below the window: acknowledged, not believed.
    let got = w.guest_sends(&[stamped(3, 0x7000_0000)]);
    assert_eq!(echo(&got[0]), 220);
    // Held back until the peer has it: the echo is as old as the data.
    let (mut w, _) = linux(Behaviour { rtt_us: 50 * MS, ..Behaviour::default() });
    w.guest_sends(&[stamped(0, 300)]);
    w.wait(10 * MS);
    w.guest_sends(&[stamped(3, 310)]);
    let got = w.wait(S);
    assert_eq!(echo(&got[0]), 300);
}

// A promise never exceeds the window that the guest can see, and ends with its data.
#[test]
fn promises_fit_the_window() {
    let mut w = World::new();
    let all = w.pool.available();
    w.net.next = Behaviour { sndbuf: 1000, peer_read: 0, peer_rcvbuf: 0, ..Behaviour::default() };
    w.guest_sends(&[seg(SYN, G, 0).opts(&[2, 4, 5, 0xb4])]);
    w.guest_sends(&[at(0, b"")]);
    let promised = |w: &World| all - w.pool.available();
    assert!((65_535..80_000).contains(&promised(&w)), "{}", promised(&w));
    w.guest_sends(&[at(0, &[1; 30_000])]);
    w.wait(S);
    assert!((65_535..80_000).contains(&promised(&w)), "{}", promised(&w));
    w.guest_sends(&[seg(ACK | FIN, G + 30_001, US + 1)]);
    assert!((29_000..45_000).contains(&promised(&w)), "{}", promised(&w));
    w.net.socks[0].how.peer_read = usize::MAX;
    w.net.socks[0].how.peer_rcvbuf = 1 << 20;
    w.wait(10 * S);
    assert_eq!(w.net.socks[0].peer_got.len(), 30_000);
    assert_eq!(promised(&w), 0, "half closed, and nothing waits");
    assert_eq!(w.table.len(), 1);
}

// Any order, any repetition, any loss, a socket that takes what it likes: the peer gets the stream.
// The watcher checks every block.
#[test]
fn any_order() {
    let seeds = std::env::var("SIM_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(150u64);
    let only: Option<u64> = std::env::var("SIM_SEED").ok().and_then(|s| s.parse().ok());
    for seed in only.map_or(0..seeds, |s| s..s + 1) {
        println!("seed {seed}");
        let mut r = Rng::new(seed);
        let mut w = World::with(1500, r.pick(&[0, 300_000, 64 << 20]), seed);
        w.isn = r.pick(&[US, u32::MAX - 10]);
        let g = r.pick(&[G, u32::MAX - 30_000, 0x7fff_ff00]);
        let stamps = r.chance(50);
        w.net.next = Behaviour {
            sndbuf: r.pick(&[3000, 200_000]),
            rtt_us: r.pick(&[0, 20_000]),
            peer_rcvbuf: r.pick(&[2000, 500_000]),
            peer_read: r.pick(&[700, usize::MAX]),
            short_sends: r.pick(&[0, 3]),
            ..Behaviour::default()
        };
        let total = r.pick(&[2000, 60_000]);
        let data = r.bytes(total);
        let ours = w.isn.wrapping_add(1);
        let mut clock = 100u32;
        let opts = syn(r.chance(80), stamps);
        w.guest_sends(&[seg(SYN, g, 0).opts(&opts)]);
        let mut segs = 0;
        while !w.net.socks[0].peer_eof {
            segs += 1;
            assert!(segs < 20_000, "no progress: {}", w.net.socks[0].peer_got.len());
            let n = 1 + r.below(5);
            let mut batch = vec![];
            for _ in 0..n {
                clock += r.below(3) as u32;
                // Around what the peer has, as a window would have it, and mostly not too far.
                let got = w.net.socks[0].peer_got.len();
                let from = (got + r.below(r.clone().pick(&[1, 3000, 20_000])) as usize).min(total);
                let from = if r.chance(10) { from.saturating_sub(2000) } else { from };
                let to = (from + r.below(4000) as usize).min(total);
                let end = to == total && r.chance(70);
                let flags = if end { ACK | FIN } else { ACK };
                let mut s = seg(flags, g.wrapping_add(1 + from as u32), ours);
                s = s.data(&data[from..to]);
                if stamps {
                    s = s.opts(&linux_ts(clock, 1));
                }
                batch.push(s);
            }
            w.guest_sends(&batch);
            w.wait(r.pick(&[0, 0, 300, 30_000]));
        }
        assert!(w.net.socks[0].peer_got == data);
        w.net.socks[0].peer_rst();
        w.socket_events();
        w.assert_clean();
    }
}
