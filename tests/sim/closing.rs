//! The end of connections, in every order. Spec section 12.

use passt::translate::Verdict;

use super::net::Behaviour;
use super::raw::*;
use super::world::World;

const S: u64 = 1_000_000;

// [TCP-76, TCP-77, TCP-80] The guest finishes first.
#[test]
fn guest_first() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    let got = w.guest_sends(&[seg(ACK | FIN, G + 1, US + 1).data(b"abc")]);
    assert_eq!(brief(&got), [(ACK, 1, 5, 0)]);
    assert!(w.net.socks[s].peer_eof);
    // [TCP-79] The other direction goes on.
    let got = w.peer_writes(s, b"reply");
    assert_eq!(brief(&got), [(ACK | PSH, 1, 5, 5)]);
    let got = w.peer_finishes(s);
    assert_eq!(brief(&got), [(FIN | ACK, 6, 5, 0)]);
    assert_eq!(w.guest_sends(&[seg(ACK, G + 5, US + 7)]), []);
    assert_eq!(w.ends[&0], Verdict::Close);
    w.assert_clean();
}

// [TCP-78, TCP-80] The peer finishes first.
#[test]
fn peer_first() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    w.peer_writes(s, b"hello");
    let got = w.peer_finishes(s);
    assert_eq!(brief(&got), [(FIN | ACK, 6, 1, 0)]);
    assert_eq!(w.guest_sends(&[seg(ACK, G + 1, US + 7)]), []);
    assert_eq!(w.wait(100 * S), [], "a half-closed connection is quiet");
    assert!(!w.deadline_armed());
    w.guest_sends(&[seg(ACK, G + 1, US + 7).data(b"late")]);
    assert_eq!(w.net.socks[s].peer_got, b"late");
    let got = w.guest_sends(&[seg(ACK | FIN, G + 5, US + 7)]);
    assert_eq!(brief(&got), [(ACK, 7, 6, 0)]);
    assert_eq!(w.ends[&0], Verdict::Close);
    w.assert_clean();
}

// [TCP-80] Both at once: the guest's FIN does not acknowledge ours.
#[test]
fn simultaneous() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    w.peer_writes(s, b"hello");
    w.peer_finishes(s);
    let got = w.guest_sends(&[seg(ACK | FIN, G + 1, US + 1).data(b"abc")]);
    assert_eq!(brief(&got), [(ACK, 7, 5, 0)]);
    assert_eq!(w.table.len(), 1, "our FIN is not acknowledged");
    assert_eq!(w.guest_sends(&[seg(ACK, G + 5, US + 7)]), []);
    assert_eq!(w.ends[&0], Verdict::Close);
    w.assert_clean();
}

// [TCP-76] A FIN ahead of missing data counts when the data has come.
#[test]
fn fin_ahead_of_a_hole() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    let got = w.guest_sends(&[seg(ACK | FIN, G + 4, US + 1).data(b"def")]);
    assert_eq!(brief(&got), [(ACK, 1, 1, 0)]);
    assert!(!w.net.socks[s].peer_eof);
    let got = w.guest_sends(&[seg(ACK, G + 1, US + 1).data(b"abc")]);
    assert_eq!(brief(&got), [(ACK, 1, 8, 0)]);
    assert_eq!(w.net.socks[s].peer_got, b"abcdef");
    assert!(w.net.socks[s].peer_eof);
}

// [TCP-76] The same without data on the FIN, and with data repeated together with it.
#[test]
fn fin_alone_ahead_of_a_hole() {
    for again in [false, true] {
        let mut w = World::new();
        let s = w.connected(Behaviour::default());
        let got = w.guest_sends(&[seg(ACK | FIN, G + 4, US + 1)]);
        assert_eq!(brief(&got), [(ACK, 1, 1, 0)]);
        let flags = if again { ACK | FIN } else { ACK };
        let got = w.guest_sends(&[seg(flags, G + 1, US + 1).data(b"abc")]);
        assert_eq!(brief(&got), [(ACK, 1, 5, 0)]);
        assert_eq!(w.net.socks[s].peer_got, b"abc");
        assert!(w.net.socks[s].peer_eof);
    }
}

// [TCP-76] Ends that contradict what was sent: nothing is taken from behind an end, and no end
// from before data. The stream goes on as it was.
#[test]
fn contradictory_ends() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    w.guest_sends(&[seg(ACK | FIN, G + 4, US + 1).data(b"def")]);
    // Behind the end, another end behind it, and an end in the middle.
    w.guest_sends(&[seg(ACK, G + 7, US + 1).data(b"ghi")]);
    w.guest_sends(&[seg(ACK | FIN, G + 9, US + 1)]);
    w.guest_sends(&[seg(ACK | FIN, G + 5, US + 1)]);
    let got = w.guest_sends(&[seg(ACK, G + 1, US + 1).data(b"abcdefgh")]);
    assert_eq!(brief(&got), [(ACK, 1, 8, 0)]);
    assert_eq!(w.net.socks[s].peer_got, b"abcdef");
    assert!(w.net.socks[s].peer_eof);

    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    w.guest_sends(&[seg(ACK, G + 4, US + 1).data(b"def")]);
    w.guest_sends(&[seg(ACK | FIN, G + 5, US + 1)]);
    w.guest_sends(&[seg(ACK, G + 1, US + 1).data(b"abc")]);
    assert_eq!(w.net.socks[s].peer_got, b"abcdef");
    assert!(!w.net.socks[s].peer_eof);
    w.guest_sends(&[seg(ACK | FIN, G + 7, US + 1)]);
    assert!(w.net.socks[s].peer_eof);
}

// [TCP-49] A repeated FIN is acknowledged again.
#[test]
fn fin_again() {
    let mut w = World::new();
    w.connected(Behaviour::default());
    for _ in 0..3 {
        let got = w.guest_sends(&[seg(ACK | FIN, G + 1, US + 1).data(b"abc")]);
        assert_eq!(brief(&got), [(ACK, 1, 5, 0)]);
    }
    // [TCP-79] Data behind it is not ours to have.
    let got = w.guest_sends(&[seg(ACK, G + 5, US + 1).data(b"more")]);
    assert_eq!(brief(&got), [(ACK, 1, 5, 0)]);
    assert_eq!(w.net.socks[0].peer_got, b"abc");
}

// [TCP-77] The guest's FIN waits behind data the socket has not taken, and is acknowledged only
// when it has been passed on.
#[test]
fn fin_behind_backlog() {
    let mut w = World::new();
    let how = Behaviour { sndbuf: 1000, peer_rcvbuf: 1, peer_read: 0, ..Behaviour::default() };
    let s = w.connected(how);
    let data = [5; 20_000];
    let mut got = w.guest_sends(&[seg(ACK | FIN, G + 1, US + 1).data(&data)]);
    got.extend(w.wait(10 * S));
    assert!(got.iter().all(|s| s.ack <= G + 20_001), "acknowledged a FIN the socket has not");
    assert!(!w.net.socks[s].is_shut());
    w.net.socks[s].how.peer_read = usize::MAX;
    let got = w.wait(S);
    assert_eq!(got.last().unwrap().ack, G + 20_002);
    assert_eq!(w.net.socks[s].peer_got.len(), 20_000);
    assert!(w.net.socks[s].peer_eof);
    w.wait(10 * S);
    assert!(!w.deadline_armed());
}

// A FIN right at the edge of the window leaves a sensible window behind, and silence.
#[test]
fn fin_at_the_edge() {
    let mut w = World::with(1500, 64 << 20, 1);
    let s = w.connected(Behaviour::default());
    let data = vec![5; 60_000];
    // One batch, so that the window does not open in between.
    let got = w.guest_sends(&[
        seg(ACK, G + 1, US + 1).data(&data),
        seg(ACK | FIN, G + 60_001, US + 1).data(&data[..5535]),
    ]);
    assert_eq!(got.last().unwrap().ack, G + 65_537);
    let window = u32::from(got.last().unwrap().win) << 8;
    assert!(window <= 2 << 20, "{window}");
    assert!(w.net.socks[s].peer_eof);
    assert_eq!(w.wait(10 * S), []);
    assert!(!w.deadline_armed(), "a timer runs on a quiet connection");
}

// [TCP-73, TCP-81] Our FIN is repeated like data, at the same number.
#[test]
fn our_fin_is_repeated() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    w.peer_writes(s, b"hello");
    w.peer_finishes(s);
    let got = w.wait(S + 1000);
    let ends: Vec<_> = got.iter().map(|s| s.seq + s.data.len() as u32).collect();
    assert_eq!(ends.last(), Some(&(US + 6)));
    assert!(got.last().unwrap().flags & FIN != 0);
    // Acknowledging the data leaves the FIN.
    assert_eq!(w.guest_sends(&[seg(ACK, G + 1, US + 6)]), []);
    let got = w.wait(10 * S);
    assert_eq!(brief(&got[..1]), [(FIN | ACK, 6, 1, 0)]);
    assert_eq!(w.guest_sends(&[seg(ACK, G + 1, US + 7)]), []);
    assert!(!w.deadline_armed());
}

// [TCP-80, TCP-81] The acknowledgement of our FIN arrives after a rewind.
#[test]
fn fin_acknowledged_after_rewind() {
    for guest_fin in [false, true] {
        let mut w = World::new();
        let s = w.connected_with(Behaviour::default(), &[2, 4, 5, 0xb4], 3000);
        w.peer_writes(s, &[1; 2000]);
        w.peer_finishes(s);
        // A closed window, and the timer goes back and sends one byte only.
        w.guest_sends(&[seg(ACK, G + 1, US + 1).win(0)]);
        w.wait(S + 1000);
        if guest_fin {
            w.guest_sends(&[seg(ACK | FIN, G + 1, US + 2002).win(3000)]);
        } else {
            assert_eq!(w.guest_sends(&[seg(ACK, G + 1, US + 2002).win(3000)]), []);
            assert_eq!(w.wait(10 * S), []);
            assert!(!w.deadline_armed());
            w.guest_sends(&[seg(ACK | FIN, G + 1, US + 2002)]);
        }
        assert_eq!(w.ends[&0], Verdict::Close);
        w.assert_clean();
    }
}

// [TCP-78] FIN behind a closed window: probed for, and sent once it opens.
#[test]
fn fin_behind_closed_window() {
    let mut w = World::new();
    let s = w.connected_with(Behaviour::default(), &[2, 4, 5, 0xb4], 1000);
    w.peer_writes(s, &[1; 1000]);
    w.peer_finishes(s);
    let got = w.guest_sends(&[seg(ACK, G + 1, US + 1001).win(0)]);
    assert_eq!(got, []);
    let got = w.wait(S / 4);
    assert_eq!(brief(&got), [(FIN | ACK, 1001, 1, 0)]);
    w.guest_sends(&[seg(ACK, G + 1, US + 1001).win(0)]);
    let got = w.guest_sends(&[seg(ACK, G + 1, US + 1001).win(1000)]);
    assert_eq!(brief(&got), [(FIN | ACK, 1001, 1, 0)]);
    w.guest_sends(&[seg(ACK | FIN, G + 1, US + 1002)]);
    w.assert_clean();
}

// [TCP-80] A late acknowledgement, or a FIN repeated because our last one was lost, gets RST.
#[test]
fn late_segments() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    w.peer_finishes(s);
    w.guest_sends(&[seg(ACK | FIN, G + 1, US + 2)]);
    w.assert_clean();
    let got = w.guest_sends(&[seg(ACK | FIN, G + 1, US + 2)]);
    assert_eq!((got.len(), got[0].flags, got[0].seq), (1, RST, US + 2));
}

// [TCP-84] Reset by the peer, in every state.
#[test]
fn reset_by_the_peer() {
    for state in 0..4 {
        let mut w = World::new();
        let s = w.connected(Behaviour::default());
        match state {
            1 => drop(w.peer_writes(s, b"unread")),
            2 => drop(w.guest_sends(&[seg(ACK | FIN, G + 1, US + 1)])),
            3 => drop(w.peer_finishes(s)),
            _ => {}
        }
        w.net.socks[s].peer_rst();
        w.socket_events();
        let got = w.sent();
        assert_eq!((got.len(), got[0].flags), (1, RST | ACK), "state {state}");
        let next = [1, 7, 1, 2][state];
        assert_eq!(got[0].seq, US + next);
        assert_eq!(w.ends[&0], Verdict::Abort);
        w.assert_clean();
    }
}

// [TCP-84] The peer goes away between SYN,ACK and its answer; and while the guest is asked.
#[test]
fn reset_during_handshake() {
    let mut w = World::new();
    w.guest_sends(&[seg(SYN, G, 0).opts(&OPTIONS)]);
    w.net.socks[0].peer_rst();
    w.socket_events();
    assert_eq!(brief(&w.sent()), [(RST | ACK, 1, 1, 0)]);
    w.assert_clean();

    let mut w = World::new();
    w.accept(4000);
    w.sent();
    w.net.socks[0].peer_rst();
    w.socket_events();
    assert_eq!(brief(&w.sent())[0].0, RST);
    w.assert_clean();
}

// Closing lazily kept bytes: the socket is never closed with unread data, that would reset.
#[test]
fn everything_is_read_before_the_close() {
    for n in [1usize, 1000, 4095, 4096, 70_000] {
        let mut w = World::new();
        let s = w.connected(Behaviour::default());
        w.peer_writes(s, &vec![3; n]);
        w.peer_finishes(s);
        let end = US + 1 + n as u32;
        w.guest_sends(&[seg(ACK, G + 1, end)]);
        w.guest_sends(&[seg(ACK | FIN, G + 1, end + 1)]);
        // The fake checks the rest.
        assert_eq!(w.ends[&0], Verdict::Close);
        w.assert_clean();
    }
}

// [TCP-80] A hang-up after both sides finished is nothing new.
#[test]
fn hang_up() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    w.guest_sends(&[seg(ACK | FIN, G + 1, US + 1)]);
    w.peer_finishes(s);
    let (id, _) = w.flows[0];
    let ready = passt::translate::tcp::SocketReady {
        read: true,
        write: true,
        error: false,
        read_closed: true,
    };
    w.on_socket(id, ready);
    assert_eq!(w.table.len(), 1);
    w.guest_sends(&[seg(ACK, G + 2, US + 2)]);
    assert_eq!(w.ends[&0], Verdict::Close);
    w.assert_clean();
}

// [TCP-91] A guest that is silent for a whole interval is asked whether it is still there; what
// a guest answers that is, changes nothing.
#[test]
fn keepalive() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    w.peer_writes(s, b"hello");
    w.guest_sends(&[seg(ACK, G + 1, US + 6)]);
    w.keepalive_scan();
    assert_eq!(w.sent(), []);
    w.keepalive_scan();
    assert_eq!(brief(&w.sent()), [(ACK, 5, 1, 0)]);
    assert_eq!(w.guest_sends(&[seg(ACK, G + 1, US + 6)]), []);
    w.keepalive_scan();
    assert_eq!(w.sent(), []);
    assert!(!w.deadline_armed());
    w.keepalive_scan();
    assert_eq!(w.sent().len(), 1);
    // A guest that forgot it.
    assert_eq!(w.guest_sends(&[seg(RST, G + 1, 0)]), []);
    assert_eq!(w.ends[&0], Verdict::Abort);
    w.assert_clean();
}

// [TCP-92] Nothing from either side for a whole interval.
#[test]
fn inactivity() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    w.inactivity_scan();
    w.peer_writes(s, b"hello");
    w.inactivity_scan();
    w.guest_sends(&[seg(ACK, G + 1, US + 6)]);
    w.inactivity_scan();
    assert_eq!(w.table.len(), 1);
    w.inactivity_scan();
    assert_eq!(brief(&w.sent()), [(RST | ACK, 6, 1, 0)]);
    assert!(w.net.socks[s].peer_reset);
    w.assert_clean();
}
