//! Opening connections: scripted cases of spec sections 3 to 5.

use passt::flow::DropReason;
use passt::translate::{HostError, Report, Verdict};
use passt::wire::IcmpMessage;

use super::net::{Behaviour, Outcome};
use super::raw::*;
use super::world::World;

const S: u64 = 1_000_000;

fn later(us: u64) -> Behaviour {
    Behaviour { outcome: Outcome::Later(us), ..Behaviour::default() }
}

// [TCP-16, TCP-28, TCP-29, TCP-30] The SYN,ACK carries MSS and window scale, and acknowledges the SYN.
#[test]
fn synack_options() {
    let mut w = World::new();
    let got = w.guest_sends(&[seg(SYN, G, 0).opts(&OPTIONS)]);
    assert_eq!(brief(&got), [(SYN | ACK, 0, 1, 0)]);
    assert_eq!(got[0].opts, [2, 4, 0xf0, 0, 1, 3, 3, 8]);
    assert!(got[0].win >= 14600);
}

// [TCP-28, W-20] Window scale is not sent to a guest that did not offer it, and not applied.
#[test]
fn no_window_scale_unless_offered() {
    let mut w = World::new();
    let got = w.guest_sends(&[seg(SYN, G, 0)]);
    assert_eq!(got[0].opts, [2, 4, 0xf0, 0]);
    w.guest_sends(&[seg(ACK, G + 1, US + 1)]);
    let got = w.guest_sends(&[seg(ACK, G + 1, US + 1).data(b"x")]);
    let got = if got.is_empty() { w.wait(S) } else { got };
    assert!(got[0].win > 60000, "unscaled: {}", got[0].win);
}

/// MSS 1460, SACK permitted, timestamps, window scale 7: what Linux offers.
fn linux(value: u32, echo: u32) -> Vec<u8> {
    let [v, e] = [value, echo].map(u32::to_be_bytes);
    [&[2, 4, 5, 0xb4, 4, 2, 8, 10], &v[..], &e, &[1, 3, 3, 7]].concat()
}

/// The timestamps of a segment that has no other options.
fn stamps(s: &Seg) -> (u32, u32) {
    let opts: [u8; 12] = s.opts[..].try_into().unwrap();
    assert_eq!(opts[..4], [1, 1, 8, 10]);
    let word = |at: usize| u32::from_be_bytes(opts[at..at + 4].try_into().unwrap());
    (word(4), word(8))
}

// [W-1, TCP-28] A SYN,ACK carries what the SYN offered, and nothing else.
#[test]
fn synack_answers_what_was_offered() {
    let ms = |w: &World| (w.now / 1000) as u32 + w.ts_offset;
    let cases: [(&[u8], &[u8]); 5] = [
        (&[], &[]),
        (&[4, 2, 0, 0], &[1, 1, 4, 2]),
        (&[3, 3, 7, 0], &[1, 3, 3, 8]),
        (&[4, 2, 3, 3, 7, 0, 0, 0], &[1, 1, 4, 2, 1, 3, 3, 8]),
        // Malformed: as good as not offered.
        (&[8, 9, 0, 0, 0, 7, 0, 0, 0, 0, 4, 3], &[]),
    ];
    for (offered, answered) in cases {
        let mut w = World::new();
        let got = w.guest_sends(&[seg(SYN, G, 0).opts(offered)]);
        assert_eq!(got[0].opts, [&[2, 4, 0xf0, 0], answered].concat(), "{offered:?}");
    }
    let mut w = World::new();
    let [a, b, c, d] = ms(&w).to_be_bytes();
    let got = w.guest_sends(&[seg(SYN, G, 0).opts(&linux(77, 0))]);
    let want = [2, 4, 0xf0, 0, 4, 2, 8, 10, a, b, c, d, 0, 0, 0, 77, 1, 3, 3, 8];
    assert_eq!(got[0].opts, want);
    let mut w = World::new();
    let got = w.guest_sends(&[seg(SYN, G, 0).opts(&[8, 10, 0, 0, 0, 78, 0, 0, 0, 0, 0, 0])]);
    assert_eq!(got[0].opts, [2, 4, 0xf0, 0, 1, 1, 8, 10, a, b, c, d, 0, 0, 0, 78]);
}

// [W-1] The SYN,ACK to a repeated SYN echoes the later timestamp.
#[test]
fn synack_echoes_the_latest_syn() {
    let mut w = World::new();
    w.guest_sends(&[seg(SYN, G, 0).opts(&linux(77, 0))]);
    w.run(S);
    w.sent();
    for (value, echo) in [(1077, 1077), (900, 1077)] {
        let got = w.guest_sends(&[seg(SYN, G, 0).opts(&linux(value, 0))]);
        assert_eq!(got[0].opts[12..16], u32::to_be_bytes(echo));
    }
}

// [W-1] Timestamps on every segment once they are agreed upon, and room is left for them.
#[test]
fn timestamps_on_every_segment() {
    for inbound in [false, true] {
        for v6 in [false, true] {
            let mut w = World::new();
            w.v6 = v6;
            let s = if inbound {
                let s = w.accept(4000);
                w.sent();
                let got = w.guest_sends(&[inb(SYN | ACK, G, US + 1).opts(&linux(500, 1))]);
                assert_eq!(stamps(&got[0]).1, 500);
                s.0 as usize
            } else {
                w.guest_sends(&[seg(SYN, G, 0).opts(&linux(500, 0))]);
                w.guest_sends(&[seg(ACK, G + 1, US + 1).opts(&linux_ts(501, 1))]);
                0
            };
            let say = |flags, s, a| if inbound { inb(flags, s, a) } else { seg(flags, s, a) };
            let echo = if inbound { 500 } else { 501 };
            let start = w.now;
            let got = w.peer_writes(s, &[5; 50_000]);
            assert_eq!(got.iter().map(|s| s.data.len()).sum::<usize>(), 50_000);
            for s in &got {
                assert!(s.data.len() <= 1448);
                assert_eq!(stamps(s), ((start / 1000) as u32 + w.ts_offset, echo));
            }
            assert_eq!(got[0].data.len(), 1448);
            w.run(2000);
            // An acknowledgement of data, an answer to a keepalive, a keepalive, a reset.
            let ack = US + 1 + 50_000;
            let mut got = w.guest_sends(&[say(ACK, G + 1, ack).opts(&linux_ts(600, 1)).data(b"x")]);
            got.extend(w.guest_sends(&[say(ACK, G, ack).opts(&linux_ts(600, 1))]));
            w.keepalive_scan();
            w.keepalive_scan();
            got.extend(w.sent());
            w.net.socks[s].peer_rst();
            w.socket_events();
            got.extend(w.sent());
            assert!(got.len() >= 3 && got.last().unwrap().flags & RST != 0, "{got:?}");
            for s in got {
                assert_eq!(stamps(&s), ((w.now / 1000) as u32 + w.ts_offset, 600));
            }
            w.assert_clean();
        }
    }
}

// [W-1, W-20] A guest whose SYN,ACK has no options gets none: they hold only if both sides sent them.
#[test]
fn nothing_is_agreed_without_the_guest() {
    let mut w = World::new();
    let s = w.accept(4000).0 as usize;
    w.sent();
    let mut got = w.guest_sends(&[inb(SYN | ACK, G, US + 1)]);
    got.extend(w.peer_writes(s, &[1; 1000]));
    assert!(got.iter().all(|s| s.opts.is_empty()), "{got:?}");
    assert_eq!(got.last().unwrap().data.len(), 1000 - 536);
    assert!(got[0].win > 60_000, "unscaled: {}", got[0].win);
}

// The longest segments that there are fit a frame with timestamps too.
#[test]
fn longest_segments_with_timestamps() {
    for v6 in [false, true] {
        let mut w = World::new();
        w.v6 = v6;
        let mut opts = linux(500, 0);
        opts[2..4].fill(0xff);
        w.guest_sends(&[seg(SYN, G, 0).opts(&opts)]);
        w.guest_sends(&[seg(ACK, G + 1, US + 1).opts(&linux_ts(501, 1)).win(2000)]);
        let got = w.peer_writes(0, &[5; 200_000]);
        assert_eq!(got.iter().map(|s| s.data.len()).sum::<usize>(), 200_000);
        assert!(got[0].data.len() > 65_000);
    }
}

// [TCP-14] Refused at once or later: RST,ACK that a guest in SYN-SENT believes.
#[test]
fn refused() {
    for outcome in
        [Outcome::Error(HostError::Refused), Outcome::LaterError(5000, HostError::Refused)]
    {
        let mut w = World::new();
        w.net.next = Behaviour { outcome, ..Behaviour::default() };
        let mut got = w.guest_sends(&[seg(SYN, G, 0).opts(&OPTIONS)]);
        got.extend(w.wait(10_000));
        assert_eq!(brief(&got), [(RST | ACK, 0, 1, 0)], "{outcome:?}");
        w.assert_clean();
    }
}

// [W-10] Unreachable, at once or later: an ICMP error about the SYN, which the guest's stack hands
// to its caller. No answer from the peer: none from us either, the guest's own timer is running.
#[test]
fn unreachable_is_not_refused() {
    for (outcome, told) in [
        (Outcome::Error(HostError::Unreachable), true),
        (Outcome::LaterError(5000, HostError::Unreachable), true),
        (Outcome::LaterError(5000, HostError::TimedOut), false),
    ] {
        let mut w = World::new();
        w.net.next = Behaviour { outcome, ..Behaviour::default() };
        let syn = seg(SYN, G, 0).opts(&OPTIONS).frame(&w);
        w.from_guest(&[syn]);
        w.run(10_000);
        let got = w.take_frames();
        assert_eq!(got.len(), usize::from(told), "{outcome:?}");
        if let Some(frame) = got.first() {
            // IPv4, ICMP, destination unreachable, host unreachable.
            assert_eq!((frame[14] >> 4, frame[23], frame[34], frame[35]), (4, 1, 3, 1));
        }
        w.assert_clean();
    }
}

// [UDP-11] A SYN that is not to get far leaves with that limit, and the guest hears of the router
// where it ended; one that is to arrive leaves without, and hears of the host.
#[test]
fn routers_on_the_way_of_a_syn_are_heard() {
    for (ttl, hops) in [(3, Some(3)), (30, Some(30)), (31, None), (64, None)] {
        let mut w = World::new();
        let outcome = Outcome::LaterError(5000, HostError::Unreachable);
        w.net.next = Behaviour { outcome, ..Behaviour::default() };
        if hops.is_some() {
            let offender = Some("198.51.100.9".parse::<std::net::IpAddr>().unwrap().into());
            let message = IcmpMessage { kind: 11, code: 0, mtu: 0 };
            w.net.report = Some(Report { message, offender, quoted: 0 });
        }
        let mut syn = seg(SYN, G, 0).opts(&OPTIONS).frame(&w);
        syn[22] = ttl;
        w.from_guest(&[syn]);
        assert_eq!(w.net.socks[0].hops, hops);
        w.run(10_000);
        let got = w.take_frames();
        let frame = &got[0];
        let (source, what) = (&frame[26..30], (frame[34], frame[35]));
        if hops.is_some() {
            assert_eq!((source, what), (&[198, 51, 100, 9][..], (11, 0)));
        } else {
            assert_eq!(what, (3, 1));
        }
        w.assert_clean();
    }
}

// [TCP-96] Out of descriptors: silence, the guest tries again.
#[test]
fn out_of_sockets() {
    let mut w = World::new();
    let outcome = Outcome::Error(HostError::Exhausted);
    w.net.next = Behaviour { outcome, ..Behaviour::default() };
    assert_eq!(w.guest_sends(&[seg(SYN, G, 0)]), []);
    assert_eq!(w.drops.get(DropReason::NoSocket), 1);
    w.assert_clean();
}

// [TCP-15] While the socket connects, repeated SYNs are waited out, even with another number.
#[test]
fn syn_again_while_connecting() {
    let mut w = World::new();
    w.net.next = later(5 * S);
    assert_eq!(w.guest_sends(&[seg(SYN, G, 0).opts(&OPTIONS)]), []);
    for _ in 0..4 {
        assert_eq!(w.wait(S), []);
        assert_eq!(w.guest_sends(&[seg(SYN, G, 0).opts(&OPTIONS)]), []);
    }
    assert_eq!(w.guest_sends(&[seg(SYN, G + 77, 0).opts(&OPTIONS)]), []);
    assert_eq!(brief(&w.wait(S)), [(SYN | ACK, 0, 1, 0)]);
    // A SYN after that gets the same SYN,ACK again.
    assert_eq!(brief(&w.guest_sends(&[seg(SYN, G, 0).opts(&OPTIONS)])), [(SYN | ACK, 0, 1, 0)]);
}

// [TCP-15] Anything else before the SYN,ACK resets both sides.
#[test]
fn early_segment() {
    let mut w = World::new();
    w.net.next = later(5 * S);
    w.guest_sends(&[seg(SYN, G, 0)]);
    let got = w.guest_sends(&[seg(ACK, G + 1, US + 1)]);
    assert_eq!((got.len(), got[0].flags & RST), (1, RST));
    assert_eq!(w.ends[&0], Verdict::Abort);
    w.assert_clean();
}

// [TCP-16, TCP-23] The SYN,ACK is repeated unchanged, then both sides are reset.
#[test]
fn synack_repeated() {
    let mut w = World::new();
    let start = w.now;
    let first = w.guest_sends(&[seg(SYN, G, 0).opts(&OPTIONS)]);
    let mut at = vec![];
    let last = loop {
        w.run(100_000);
        let got = w.sent();
        for s in &got {
            at.push((w.now - start) / S);
            if s.flags & RST != 0 {
                break;
            }
            assert_eq!(*s, first[0]);
        }
        if let Some(s) = got.last()
            && s.flags & RST != 0
        {
            break s.clone();
        }
        assert!(w.now - start < 100 * S);
    };
    assert_eq!(at, [1, 2, 3, 4, 5, 7, 11, 19]);
    assert_eq!(last.seq, US + 1);
    assert_eq!(w.ends[&0], Verdict::Abort);
    w.assert_clean();
}

// [TCP-17] The completing segment must acknowledge our SYN; others are answered by RST and
// change nothing (RFC 9293, 3.10.7.4).
#[test]
fn completing_ack_is_checked() {
    let mut w = World::new();
    w.guest_sends(&[seg(SYN, G, 0).opts(&OPTIONS)]);
    for bad in [US, US + 2, US.wrapping_sub(7)] {
        let got = w.guest_sends(&[seg(ACK, G + 1, bad)]);
        assert_eq!((got.len(), got[0].flags & RST, got[0].seq), (1, RST, bad));
    }
    w.guest_sends(&[seg(ACK, G + 1, US + 1)]);
    let got = w.peer_writes(0, b"hello");
    assert_eq!(got[0].data, b"hello");
}

// [TCP-18] Data on the completing segment is delivered, once.
#[test]
fn data_on_completing_ack() {
    let mut w = World::new();
    w.guest_sends(&[seg(SYN, G, 0).opts(&OPTIONS)]);
    let mut got = w.guest_sends(&[seg(ACK | PSH, G + 1, US + 1).data(b"hello")]);
    got.extend(w.wait(S));
    assert_eq!(brief(&got), [(ACK, 1, 6, 0)]);
    assert_eq!(w.net.socks[0].peer_got, b"hello");
    assert!(!w.deadline_armed());
}

// [TCP-18] FIN on the completing segment, and a SYN right behind it in the same batch.
#[test]
fn fin_on_completing_ack() {
    let mut w = World::new();
    w.guest_sends(&[seg(SYN, G, 0).opts(&OPTIONS)]);
    let got = w.guest_sends(&[seg(ACK | FIN, G + 1, US + 1).data(b"bye")]);
    assert_eq!(brief(&got), [(ACK, 1, 5, 0)]);
    assert_eq!(w.net.socks[0].peer_got, b"bye");
    assert!(w.net.socks[0].peer_eof);
}

// [TCP-21, TCP-23] SYNs to the guest: times, and a constant sequence number.
#[test]
fn inbound_retries() {
    let mut w = World::new();
    let start = w.now;
    w.accept(4000);
    let mut at = vec![];
    while !w.table.is_empty() {
        for s in w.sent() {
            assert_eq!((s.flags, s.seq), (SYN, US));
            // Everything is offered; there is nothing to echo yet.
            let [a, b, c, d] = ((w.now / 1000) as u32 + w.ts_offset).to_be_bytes();
            let want = [2, 4, 0xf0, 0, 4, 2, 8, 10, a, b, c, d, 0, 0, 0, 0, 1, 3, 3, 8];
            assert_eq!(s.opts, want);
            at.push((w.now - start) / S);
        }
        w.run(100_000);
    }
    assert_eq!(at, [0, 1, 2, 3, 4, 5, 7, 11]);
    assert_eq!((w.now - start) / S, 19);
    // A guest that never answered is told in a way it can believe: no acknowledgement of nothing.
    let got = w.sent();
    assert_eq!(brief(&got), [(RST, 1, 0u32.wrapping_sub(G), 0)]);
    assert!(w.net.socks[0].peer_reset);
    w.assert_clean();
}

// [TCP-23] The host's own patience is ours.
#[test]
fn inbound_retries_as_the_host_does() {
    // Retries, timeouts of equal length, longest timeout: when SYNs leave, and the end.
    let cases: [(_, &[u64], u64); 4] = [
        ((Some(2), Some(1), None), &[0, 1, 2, 4], 8),
        ((Some(0), Some(0), None), &[0], 1),
        ((Some(5), Some(0), Some(3000)), &[0, 1, 3, 6, 9, 12], 15),
        ((Some(100), Some(100), None), &[0, 1, 2, 3, 4, 5, 6, 7], 8),
    ];
    for ((retries, linear, max), times, end) in cases {
        let mut w = World::new();
        w.timeouts = passt::translate::tcp::Timeouts::new(retries, linear, max);
        let start = w.now;
        w.accept(4000);
        let mut at = vec![];
        while !w.table.is_empty() {
            at.extend(w.sent().iter().map(|_| (w.now - start) / S));
            w.run(100_000);
        }
        assert_eq!((&at[..], (w.now - start) / S), (times, end));
    }
}

// [TCP-22, TCP-24] The guest refuses: the peer is reset.
#[test]
fn inbound_refused() {
    let mut w = World::new();
    w.accept(4000);
    w.sent();
    assert_eq!(w.guest_sends(&[inb(RST | ACK, 0, US + 1)]), []);
    assert!(w.net.socks[0].peer_reset);
    w.assert_clean();
}

// [TCP-24] A RST that acknowledges something else is not the guest's answer to our SYN.
#[test]
fn inbound_stray_reset() {
    let mut w = World::new();
    w.accept(4000);
    w.sent();
    assert_eq!(w.guest_sends(&[inb(RST | ACK, 0, US + 2), inb(RST, 0, 0)]), []);
    assert_eq!(w.table.len(), 1);
}

// [TCP-24] Answers that are none: both sides are reset.
#[test]
fn inbound_bad_answers() {
    for bad in [inb(ACK, G, US + 1), inb(SYN, G, 0), inb(SYN | ACK | FIN, G, US + 1)] {
        let mut w = World::new();
        w.accept(4000);
        w.sent();
        let got = w.guest_sends(&[bad]);
        assert_eq!((got.len(), got[0].flags & RST), (1, RST));
        assert!(w.net.socks[0].peer_reset);
        w.assert_clean();
    }
}

// [TCP-24] A guest that still knows an old connection of the same ports answers SYN with its
// old numbers: the RST makes it forget, and the next SYN succeeds (RFC 9293, 3.5.1).
#[test]
fn inbound_half_open() {
    let mut w = World::new();
    w.accept(4000);
    w.sent();
    let got = w.guest_sends(&[inb(ACK, 99, 77)]);
    assert_eq!((got.len(), got[0].flags, got[0].seq), (1, RST, 77));
    let got = w.wait(S);
    assert_eq!(brief(&got)[0].0, SYN);
    let got = w.guest_sends(&[inb(SYN | ACK, G, US + 1).opts(&OPTIONS)]);
    assert_eq!(brief(&got), [(ACK, 1, 1, 0)]);
}

// [TCP-24] A pure ACK leaves before data the peer has sent already.
#[test]
fn inbound_ack_first() {
    let mut w = World::new();
    w.accept(4000);
    w.net.socks[0].peer_out.extend([7; 3000]);
    w.socket_events();
    w.sent();
    let got = w.guest_sends(&[inb(SYN | ACK, G, US + 1)]);
    // Without an MSS option segments have 536 bytes [TCP-32].
    let lens: Vec<_> = got.iter().map(|s| s.data.len()).collect();
    assert_eq!(lens, [0, 536, 536, 536, 536, 536, 320]);
    assert_eq!(got[0].flags, ACK);
    assert_eq!(got[6].flags, ACK | PSH);
    assert_eq!(got[1].seq, US + 1);
}

// [TCP-24] The guest may speak first.
#[test]
fn inbound_server_first() {
    let mut w = World::new();
    let s = w.accepted(Behaviour::default());
    w.guest_sends(&[inb(ACK | PSH, G + 1, US + 1).data(b"220 ready")]);
    assert_eq!(w.net.socks[s].peer_got, b"220 ready");
}

// [TCP-24] The SYN,ACK again means that our ACK was lost.
#[test]
fn inbound_synack_again() {
    let mut w = World::new();
    w.accepted(Behaviour::default());
    let got = w.guest_sends(&[inb(SYN | ACK, G, US + 1).opts(&OPTIONS)]);
    assert_eq!(brief(&got), [(ACK, 1, 1, 0)]);
}

// [TCP-24, TCP-78] The peer finished before the guest answered.
#[test]
fn inbound_early_fin() {
    let mut w = World::new();
    w.accept(4000);
    w.net.socks[0].peer_out.extend(b"hi");
    w.net.socks[0].peer_fin = true;
    w.socket_events();
    w.sent();
    let got = w.guest_sends(&[inb(SYN | ACK, G, US + 1).opts(&OPTIONS)]);
    let flags: Vec<_> = got.iter().map(|s| s.flags & !PSH).collect();
    assert_eq!(flags, [ACK, ACK, ACK | FIN]);
    let got = w.guest_sends(&[inb(ACK | FIN, G + 1, US + 4)]);
    assert_eq!(brief(&got), [(ACK, 4, 2, 0)]);
    w.assert_clean();
    assert_eq!(w.ends[&0], Verdict::Close);
}

// [TCP-31, TCP-32] Whatever the MSS option says, data gets through.
#[test]
fn strange_segment_sizes() {
    for mss in [0u16, 1, 2, 3, 4, 47, 48, 50, 536, 1461, 65495, 65535] {
        let mut w = World::new();
        let [a, b] = mss.to_be_bytes();
        let s = w.connected_with(Behaviour::default(), &[2, 4, a, b, 1, 3, 3, 7], 0xffff);
        let data: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        let got = w.peer_writes(s, &data);
        let all: Vec<u8> = got.iter().flat_map(|s| s.data.clone()).collect();
        assert_eq!(all, data, "MSS {mss}");
        let longest = got.iter().map(|s| s.data.len()).max().unwrap();
        assert!(longest <= usize::from(mss.max(48)).min(65492), "MSS {mss}: {longest}");
    }
}

// [TCP-31] Malformed options are as good as none.
#[test]
fn malformed_options() {
    for opts in [[2u8, 0, 0, 0], [2, 255, 0, 0], [3, 1, 1, 1], [254, 3, 0, 2], [2, 3, 1, 3]] {
        let mut w = World::new();
        let s = w.connected_with(Behaviour::default(), &opts, 0xffff);
        let got = w.peer_writes(s, &[1; 600]);
        assert_eq!(got.iter().map(|s| s.data.len()).collect::<Vec<_>>(), [536, 64]);
    }
}

// [TCP-33] Shifts above 14 count as 14 (RFC 7323, 2.3).
#[test]
fn large_window_scale() {
    let mut w = World::new();
    let s = w.connected_with(Behaviour::default(), &[2, 4, 5, 0xb4, 1, 3, 3, 200], 1);
    let got = w.peer_writes(s, &[0; 50_000]);
    let total: usize = got.iter().map(|s| s.data.len()).sum();
    assert_eq!(total, 1 << 14);
}

// [TCP-34] The windows of SYN and SYN,ACK are not scaled.
#[test]
fn window_of_syn_is_not_scaled() {
    let mut w = World::new();
    w.accept(4000);
    w.net.socks[0].peer_out.extend([0; 50_000]);
    w.socket_events();
    w.sent();
    let got = w.guest_sends(&[inb(SYN | ACK, G, US + 1).opts(&OPTIONS).win(1000)]);
    assert_eq!(got.iter().map(|s| s.data.len()).sum::<usize>(), 1000);
}

// [TCP-57] The first window after the handshake is what it says.
#[test]
fn first_window_after_synack() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    let got = w.peer_writes(s, b"x");
    let bytes = u32::from(got[0].win) << 8;
    assert!((60_000..=2 << 20).contains(&bytes), "{bytes}");
}

// [TCP-9] Segments of no connection (RFC 9293, 3.10.7.1: SYN and FIN count).
#[test]
fn strays() {
    let mut w = World::new();
    for v6 in [false, true] {
        w.v6 = v6;
        let got = w.guest_sends(&[seg(ACK, 100, 200).data(b"xyz")]);
        assert_eq!((got.len(), got[0].flags, got[0].seq, got[0].win), (1, RST, 200, 0));
        let got = w.guest_sends(&[seg(FIN, 100, 0).data(b"xyz")]);
        assert_eq!((got[0].flags, got[0].seq, got[0].ack), (RST | ACK, 0, 104));
        // [TCP-10] SYN,ACK opens nothing.
        let got = w.guest_sends(&[seg(SYN | ACK, 100, 200)]);
        assert_eq!((got.len(), got[0].flags, got[0].seq), (1, RST, 200));
        assert_eq!(w.guest_sends(&[seg(RST, 1, 0), seg(RST | ACK, 1, 1)]), []);
    }
    w.assert_clean();
}

// Both families, both directions.
#[test]
fn ipv6() {
    let mut w = World::new();
    w.v6 = true;
    let s = w.connected(Behaviour::default());
    w.guest_sends(&[seg(ACK, G + 1, US + 1).data(b"ping")]);
    assert_eq!(w.net.socks[s].peer_got, b"ping");
    let got = w.peer_writes(s, &[5; 3000]);
    assert_eq!(got.iter().map(|s| s.data.len()).collect::<Vec<_>>(), [1460, 1460, 80]);
}

// [TCP-40] Both bases: what the peer acknowledged is acknowledged, exactly.
#[test]
fn byte_count_base() {
    for inbound in [false, true] {
        let mut w = World::new();
        let how = Behaviour { rtt_us: 50_000, ..Behaviour::default() };
        if inbound {
            w.accepted(how)
        } else {
            w.connected(how)
        };
        let data = [0; 100];
        let s = if inbound { inb(ACK, G + 1, US + 1) } else { seg(ACK, G + 1, US + 1) };
        let mut got = w.guest_sends(&[s.data(&data)]);
        got.extend(w.wait(45_000));
        assert!(got.iter().all(|s| s.ack == G + 1), "the peer has not acknowledged: {got:?}");
        let got = w.wait(100_000);
        assert_eq!(brief(&got), [(ACK, 1, 101, 0)], "inbound {inbound}");
        assert!(!w.deadline_armed());
    }
}
