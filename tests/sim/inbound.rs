//! Connections of peers to forwarded ports, as the guest sees them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use passt::config::{Inward, Lease, Protocols};
use passt::flow::{DropReason, Pool};
use passt::forward::{ForwardTarget, GuestAddrs};
use passt::services::Offered;
use passt::translate::tcp::Timeouts;
use passt::translate::{Now, Setup, SockId, Translator};
use passt::wire::{Addr, Body, Endpoint, Frame, Segment};

use super::link::FakeLink;
use super::net::FakeNet;
use super::rng::Rng;
use super::world::{GUEST_MAC, lease};

pub(super) const TO: ForwardTarget = ForwardTarget { addr: None, port: 8080 };

pub(super) fn translator(lease: Lease, flows: usize) -> Translator<FakeLink, FakeNet> {
    let setup = Setup {
        services: Offered::default(),
        protocols: Protocols::default(),
        linked: true,
        inward: Inward::Link,
        guest: GuestAddrs::new(&lease, false, false),
        guest_mac: GUEST_MAC,
        key: [7; 16],
        flows,
        pool: Pool::new(8 << 20).unwrap(),
        timeouts: Timeouts::default(),
        idle: passt::translate::udp::Timeouts::default(),
        now: Now(1_000_000),
        lease,
    };
    let net = FakeNet { now: 1_000_000, ..FakeNet::new(Rng::new(1)) };
    Translator::new(setup, FakeLink::new(), net)
}

pub(super) fn at(addr: &str, port: u16) -> Endpoint {
    Endpoint::new(Addr::from(addr.parse::<IpAddr>().unwrap()), port)
}

/// Lets a peer connect; its socket, and the source and destination of the SYN that the guest gets.
fn connect(
    t: &mut Translator<FakeLink, FakeNet>,
    peer: Endpoint,
) -> (SockId, Option<(Endpoint, Endpoint)>) {
    let id = t.next_id().unwrap();
    let sock = t.net.accept();
    t.on_connection(id, sock, peer, TO);
    let syn = t.out.frames.pop_front().map(|frame| {
        let Ok(Frame { body: Body::Ip(p), .. }) = Frame::parse(&frame) else { panic!() };
        let s = Segment::parse(p.transport).unwrap();
        (Endpoint::new(p.src, s.src_port), Endpoint::new(p.dst, s.dst_port))
    });
    assert!(t.out.frames.is_empty());
    (sock, syn)
}

// [FWD-6] The source stays, address and port, in both families.
#[test]
fn sources_stay() {
    let mut t = translator(lease(65520), 10);
    for (peer, guest) in [
        ("198.51.100.7", "192.0.2.2"),
        ("192.0.2.77", "192.0.2.2"),
        ("192.0.2.1", "192.0.2.2"),
        ("2001:db8:7::7", "2001:db8::2"),
        ("fe80::77", "2001:db8::2"),
    ] {
        let (_, syn) = connect(&mut t, at(peer, 6001));
        assert_eq!(syn, Some((at(peer, 6001), at(guest, 8080))));
    }
}

// [FWD-6] Thousands of peers that look the same but for their ports, which are all the same: each
// gets a port of its own, and the first one keeps its own.
#[test]
fn thousands_of_peers_that_look_alike() {
    const PEERS: u32 = 20_000;
    let mut t = translator(lease(65520), PEERS as usize);
    let mut seen = BTreeSet::new();
    for n in 0..PEERS {
        let peer = IpAddr::from(Ipv4Addr::from(0x7f00_0001 + n)).into();
        let (_, syn) = connect(&mut t, Endpoint::new(peer, 6001));
        let (ours, guest) = syn.unwrap_or_else(|| panic!("peer {n}"));
        assert_eq!((ours.addr, guest), (at("192.0.2.1", 0).addr, at("192.0.2.2", 8080)));
        assert!(ours.port >= 1024 && (n > 0 || ours.port == 6001), "{ours}");
        assert!(seen.insert(ours.port), "{ours} twice");
    }
    assert_eq!(t.len(), PEERS as usize);
}

// [FWD-1] [FWD-6] Who cannot be shown to the guest is refused, and nothing stays.
#[test]
fn refused() {
    let alone = Lease { addr6: None, gateway4: Ipv4Addr::UNSPECIFIED, ..lease(65520) };
    let mut t = translator(alone, 10);
    for peer in ["2001:db8:7::7", "::1", "127.0.0.1", "192.0.2.2"] {
        let (sock, syn) = connect(&mut t, at(peer, 6001));
        assert_eq!(syn, None, "{peer}");
        assert!(t.net.sock(sock).aborted, "{peer}");
    }
    assert!(t.is_empty());
    let drops: Vec<_> = t.drops().iter().collect();
    assert_eq!(drops, [(DropReason::Martian, 4)]);
}
