//! Who is on this host, so that nothing is gained by waiting for its acknowledgements; and what is
//! acknowledged when something has to be said at once.

use super::net::Behaviour;
use super::raw::*;
use super::world::World;

const MS: u64 = 1000;

fn remote(rtt_us: u64) -> Behaviour {
    Behaviour { rtt_us, ..Behaviour::default() }
}

/// When a byte is acknowledged on the connection from this port, in milliseconds; the `n`th one.
fn acknowledged_after(w: &mut World, port: u16, n: u32) -> u64 {
    let start = w.now;
    let data = seg(ACK | PSH, G + 1 + n, US + 1).data(b"x").ports(port, 80);
    let mut got = w.guest_sends(&[data]);
    while !got.iter().any(|s| s.dport == port && s.ack == G + 2 + n) {
        assert!(w.now - start < 1000 * MS, "never");
        got = w.wait(MS / 10);
    }
    (w.now - start) / MS
}

// [TCP-25] Loopback addresses are this host's from the first byte on, however its kernel measures.
#[test]
fn loopback_is_local() {
    for (loopback, at_least, at_most) in [(true, 0, 1), (false, 100, 200)] {
        let mut w = World::new();
        w.loopback = loopback;
        w.connected(remote(100 * MS));
        let after = acknowledged_after(&mut w, 4000, 0);
        assert!((at_least..=at_most).contains(&after), "{after} ms");
        w.wait(1000 * MS);
        let after = acknowledged_after(&mut w, 4000, 1);
        assert!((at_least..=at_most.saturating_sub(1)).contains(&after), "{after} ms");
    }
}

// [TCP-26] So is whoever answers within ten microseconds; each connection is judged by itself,
// though the peer's address is the same.
#[test]
fn who_answers_within_ten_microseconds_is_local() {
    let mut w = World::new();
    for (port, rtt_us) in [(4001, 10), (4002, 11)] {
        w.net.next = remote(rtt_us);
        w.guest_sends(&[seg(SYN, G, 0).opts(&OPTIONS).ports(port, 80)]);
        w.guest_sends(&[seg(ACK, G + 1, US + 1).ports(port, 80)]);
        // It shows with the first one.
        acknowledged_after(&mut w, port, 0);
        w.wait(1000 * MS);
    }
    let send = |port| seg(ACK | PSH, G + 2, US + 1).data(b"x").ports(port, 80);
    assert_eq!(brief(&w.guest_sends(&[send(4001)])), [(ACK, 1, 3, 0)]);
    assert_eq!(w.guest_sends(&[send(4002)]), [], "the peer has it a little later");
    assert_eq!(brief(&w.wait(2 * MS)), [(ACK, 1, 3, 0)]);
}

// [TCP-43] An answer that is due at once acknowledges what would have been acknowledged anyway, not
// what the peer does not have yet.
#[test]
fn answers_at_once_do_not_acknowledge_more() {
    let mut w = World::new();
    w.connected(remote(100 * MS));
    assert_eq!(w.guest_sends(&[seg(ACK | PSH, G + 1, US + 1).data(b"abc")]), []);
    w.wait(10 * MS);
    // A keepalive, a SYN of a guest that has forgotten, a RST that only might be right.
    for strange in [seg(ACK, G + 3, US + 1), seg(SYN, G, 0).opts(&OPTIONS), seg(RST, G + 10, 0)] {
        let got = w.guest_sends(&[strange]);
        assert_eq!(brief(&got), [(ACK, 1, 1, 0)]);
    }
    let got = w.wait(100 * MS);
    assert_eq!(got.last().map(|s| s.ack), Some(G + 4));
    // From then on that is what they say.
    assert_eq!(brief(&w.guest_sends(&[seg(ACK, G + 3, US + 1)])), [(ACK, 1, 4, 0)]);
}
