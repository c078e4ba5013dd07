//! A link that refuses, sockets that die unseen, guests that forget.

use passt::translate::Verdict;

use super::net::Behaviour;
use super::raw::*;
use super::world::World;

const MS: u64 = 1000;
const S: u64 = 1_000_000;

// [TCP-65] [TCP-66] The link does not take our FIN: it is sent as soon as it does, and not when
// the guest is thought not to have answered.
#[test]
fn fin_survives_a_full_link() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    w.link.lose = 1;
    assert_eq!(w.peer_finishes(s), []);
    let got = w.wait(100 * MS);
    assert_eq!(brief(&got).last(), Some(&(FIN | ACK, 1, 1, 0)));
    w.guest_sends(&[seg(FIN | ACK, G + 1, US + 2)]);
    w.wait(S);
    w.assert_clean();
    assert!(!w.net.socks[s].aborted);
}

// [TCP-66] A socket that is dead, whatever finds out: the guest is reset, and nothing is left.
#[test]
fn dead_socket_resets_the_guest() {
    type Finds = fn(&mut World, usize) -> Vec<Seg>;
    let found: [(&str, Finds); 4] = [
        ("sending", |w, _| w.guest_sends(&[seg(ACK | PSH, G + 1, US + 11).data(b"x")])),
        ("shutting down", |w, _| w.guest_sends(&[seg(FIN | ACK, G + 1, US + 11)])),
        ("removing", |w, _| w.guest_sends(&[seg(ACK, G + 1, US + 2001)])),
        ("reading", |w, s| {
            let (id, _) = w.flows[s];
            let read = passt::translate::tcp::SocketReady { read: true, ..Default::default() };
            w.on_socket(id, read);
            w.sent()
        }),
    ];
    for (how, find) in found {
        let mut w = World::new();
        let s = w.connected(Behaviour::default());
        w.peer_writes(s, &[1; 2000]);
        w.net.silent = true;
        w.net.socks[s].peer_rst();
        let got = find(&mut w, s);
        assert!(got.iter().any(|s| s.flags & RST != 0), "{how}: {got:?}");
        assert_eq!(w.ends.values().collect::<Vec<_>>(), [&Verdict::Abort], "{how}");
        w.assert_clean();
    }
}

// [TCP-4] A restarted guest answers a segment of ours with a RST that carries the number we
// acknowledged last, which may be behind what it had sent before.
#[test]
fn reset_in_answer_to_our_segment() {
    let mut w = World::new();
    let s = w.connected(Behaviour { rtt_us: 5 * S, ..Behaviour::default() });
    assert_eq!(w.guest_sends(&[seg(ACK | PSH, G + 1, US + 1).data(b"request")]), []);
    let got = w.peer_writes(s, b"something else");
    assert_eq!(brief(&got), [(ACK | PSH, 1, 1, 14)], "the request is not acknowledged yet");
    assert_eq!(w.guest_sends(&[seg(RST, G + 1, 0)]), []);
    assert!(w.table.is_empty() && w.net.socks[s].peer_reset);
    w.assert_clean();
}
