//! What the guest reports about datagrams to a port of its own that nobody has, through the whole
//! translator.

use passt::flow::DropReason;
use passt::translate::{Now, Translator};
use passt::wire::{Endpoint, Vnet};

use super::inbound::{TO, at, translator};
use super::link::FakeLink;
use super::net::FakeNet;
use super::raw::{framed, packet};
use super::world::lease;

const UDP: u8 = 17;
const START: u64 = 1_000_000;

type T = Translator<FakeLink, FakeNet>;

fn world() -> T {
    let mut t = translator(lease(65520), 10);
    t.net.datagrams.most = 10;
    t
}

/// The guest, and two peers.
fn ends(v4: bool) -> (Endpoint, [Endpoint; 2]) {
    if v4 {
        (at("192.0.2.2", 2000), [at("198.51.100.1", 7000), at("198.51.100.1", 7001)])
    } else {
        (at("2001:db8::2", 2000), [at("2001:db8:7::1", 7000), at("2001:db8:7::1", 7001)])
    }
}

fn datagram(src: Endpoint, dst: Endpoint, data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(data.len()).unwrap() + 8;
    let head = [src.port, dst.port, len, 0].map(u16::to_be_bytes);
    packet(src.addr, dst.addr, UDP, &[head.as_flattened(), data].concat())
}

/// The guest sends a packet.
fn send(t: &mut T, packet: &[u8]) {
    t.on_frame(&Vnet::default(), &framed(packet));
}

/// What `from` reports to `to` about a packet: nobody has that port.
fn closed(from: Endpoint, to: Endpoint, about: &[u8]) -> Vec<u8> {
    let (protocol, head) = if from.addr.is_v4() { (1, [3, 3]) } else { (58, [1, 4]) };
    packet(from.addr, to.addr, protocol, &[&head[..], &[0; 6], about].concat())
}

fn pass(t: &mut T, us: u64) {
    t.set_now(Now(START + us));
    t.on_time();
}

// [UDP-12] The flow of that peer ends, and no other one of the same port; what the guest had sent
// before leaves.
#[test]
fn a_flow_ends_when_the_guest_has_closed_its_port() {
    for v4 in [true, false] {
        let mut t = world();
        let (guest, peers) = ends(v4);
        for to in peers {
            send(&mut t, &datagram(guest, to, b"hello"));
        }
        t.end_batch();
        assert_eq!(t.net.datagrams.peers(), peers);
        send(&mut t, &datagram(guest, peers[0], b"bye"));
        send(&mut t, &closed(guest, peers[0], &datagram(peers[0], guest, b"more")));
        t.end_batch();
        assert_eq!(t.net.datagrams.socks[0].sent, [&b"hello"[..], b"bye"]);
        assert_eq!((t.net.datagrams.peers(), t.len()), (vec![peers[1]], 1));
        assert_eq!(t.drops().iter().count(), 0);
        // Once more, it is about nothing.
        send(&mut t, &closed(guest, peers[0], &datagram(peers[0], guest, b"more")));
        assert_eq!(t.drops().get(DropReason::IcmpType), 1);
        // The port may be used again.
        send(&mut t, &datagram(guest, peers[0], b"again"));
        t.end_batch();
        assert_eq!(t.net.datagrams.peers(), [peers[1], peers[0]]);
        t.end_flows();
    }
}

// [UDP-12] Only the guest ends its flows, from the address that the flow leads to, and by a report
// that could only be made by who had got a datagram of it.
#[test]
fn what_ends_no_flow() {
    for v4 in [true, false] {
        let mut t = world();
        let (guest, [peer, other]) = ends(v4);
        send(&mut t, &datagram(guest, peer, b"hello"));
        t.end_batch();
        let stranger = Endpoint { addr: other.addr, ..guest };
        let neighbour = if v4 { at("192.0.2.3", 2000) } else { at("2001:db8::3", 2000) };
        let port = |e: Endpoint| Endpoint { port: e.port + 1, ..e };
        let about = datagram(peer, guest, b"more");
        let mut other_kind = closed(guest, peer, &about);
        other_kind[if v4 { 21 } else { 41 }] = if v4 { 1 } else { 3 };
        for wrong in [
            closed(stranger, peer, &about),
            closed(neighbour, peer, &about),
            closed(guest, neighbour, &about),
            closed(neighbour, peer, &datagram(peer, neighbour, b"more")),
            closed(guest, peer, &datagram(peer, port(guest), b"more")),
            closed(guest, peer, &datagram(port(peer), guest, b"more")),
            closed(guest, peer, &datagram(guest, peer, b"more")),
            closed(guest, peer, &packet(peer.addr, guest.addr, 6, &about[about.len() - 12..])),
            closed(guest, peer, &about[..about.len() - 10]),
            other_kind,
        ] {
            send(&mut t, &wrong);
            t.end_batch();
            assert_eq!(t.net.datagrams.peers(), [peer]);
        }
        assert_eq!(t.drops().get(DropReason::IcmpType), 10);
        t.end_flows();
    }
}

// [UDP-12] A flow that a peer began at a forwarded port ends a second after the first report, whatever
// the peer sends meanwhile, unless the guest answers.
#[test]
fn a_flow_to_a_forwarded_port_stays_for_a_moment() {
    for v4 in [true, false] {
        let (guest, [peer, _]) = ends(v4);
        let guest = Endpoint { port: TO.port, ..guest };
        let local = Endpoint { port: 80, ..guest };
        for answers in [false, true] {
            let mut t = world();
            t.on_datagram(peer, local, 5, TO);
            for us in [0, 400_000, 800_000] {
                pass(&mut t, us);
                send(&mut t, &closed(guest, peer, &datagram(peer, guest, b"hello")));
                t.on_datagram(peer, local, 5, TO);
            }
            assert_eq!(t.net.datagrams.peers(), [peer]);
            if answers {
                send(&mut t, &datagram(guest, peer, b"here I am"));
                t.end_batch();
            }
            pass(&mut t, 999_000);
            assert_eq!(t.len(), 1);
            pass(&mut t, 1_000_000);
            assert_eq!(t.net.datagrams.peers().len(), usize::from(answers));
            assert_eq!(t.len(), usize::from(answers));
            t.end_flows();
        }
    }
}
