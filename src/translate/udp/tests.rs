#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use smoltcp::wire as smol;

use super::*;
use crate::forward::Via;
use crate::translate::fake::{GUEST_MAC, ID, Rig, SOCK, addr, at, out};
use crate::translate::{MtuDiscovery, Report};
use crate::wire::IcmpMessage;

/// How datagrams of a Linux guest travel.
const MARKS: Marks = Marks { ttl: 64, tos: 0, df: true };

/// Guest, the party it talks to, and who that is on the host.
fn ends(v4: bool) -> (Endpoint, Endpoint, Endpoint) {
    if v4 {
        (at("192.0.2.10", 2000), at("192.0.2.77", 5000), at("127.0.0.1", 5000))
    } else {
        (at("2001:db8::10", 2000), at("2001:db8::77", 5000), at("::1", 5000))
    }
}

fn outgoing(rig: &mut Rig, v4: bool) -> UdpFlow {
    let (guest, ours, to) = ends(v4);
    UdpFlow::from_guest(ID, (ours, guest), out(to), Timeouts::default(), &mut rig.io()).unwrap()
}

/// A datagram to the guest: addresses and ports, and its payload. Checksums are verified.
fn datagram(frame: &[u8]) -> (Endpoint, Endpoint, Vec<u8>) {
    let (src, dst, transport) = network(frame);
    let udp = smol::UdpPacket::new_checked(&transport[..]).unwrap();
    assert!(udp.verify_checksum(&src.into(), &dst.into()));
    assert_eq!(usize::from(udp.len()), transport.len());
    let end = |a: std::net::IpAddr, port| Endpoint::new(a.into(), port);
    (end(src, udp.src_port()), end(dst, udp.dst_port()), udp.payload().to_vec())
}

fn network(frame: &[u8]) -> (std::net::IpAddr, std::net::IpAddr, Vec<u8>) {
    let eth = smol::EthernetFrame::new_checked(frame).unwrap();
    assert_eq!(eth.dst_addr().0, GUEST_MAC.0);
    assert_eq!(eth.src_addr().0, Mac::DEFAULT_OURS.0);
    match eth.ethertype() {
        smol::EthernetProtocol::Ipv4 => {
            let ip = smol::Ipv4Packet::new_checked(eth.payload()).unwrap();
            assert!(ip.verify_checksum());
            (ip.src_addr().into(), ip.dst_addr().into(), ip.payload().to_vec())
        }
        _ => {
            let ip = smol::Ipv6Packet::new_checked(eth.payload()).unwrap();
            (ip.src_addr().into(), ip.dst_addr().into(), ip.payload().to_vec())
        }
    }
}

// [UDP-2] Source must be unicast, ports not 0, destination specified; multicast destinations pass.
#[test]
fn who_may_start_a_flow() {
    let (guest, ours, to) = ends(true);
    let cases = [
        (guest, ours, true),
        (guest, at("224.0.0.251", 5353), true),
        (guest, at("255.255.255.255", 9), true),
        (at("2001:db8::10", 1), at("ff02::fb", 5353), true),
        (at("224.0.0.1", 2000), ours, false),
        (at("0.0.0.0", 2000), ours, false),
        (at("192.0.2.10", 0), ours, false),
        (guest, at("192.0.2.77", 0), false),
        (guest, at("0.0.0.0", 5000), false),
    ];
    for (guest, ours, good) in cases {
        let mut rig = Rig::new();
        let flow =
            UdpFlow::from_guest(ID, (ours, guest), out(to), Timeouts::default(), &mut rig.io());
        assert_eq!(flow.is_ok(), good, "{guest} {ours}");
        assert_eq!(rig.net.udp.len(), usize::from(good));
        assert_eq!(rig.drops().len(), usize::from(!good));
        if let Ok(flow) = flow {
            let tuple = Tuple { protocol: proto::UDP, ours, guest };
            assert_eq!(flow.tuple(), tuple);
        }
    }
}

// [UDP-3] [FWD-3] The socket is asked for the guest's port and goes where the address leads.
#[test]
fn socket_has_the_guests_port() {
    let mut rig = Rig::new();
    let mut flow = outgoing(&mut rig, true);
    assert_eq!(rig.net.udp, [(ID, Bind::Port(2000, Via::Outside), at("127.0.0.1", 5000))]);
    assert_eq!(flow.on_guest(b"hello", 0, MARKS, &mut rig.io()), Verdict::Keep);
    assert_eq!(flow.on_guest(b"", 0, MARKS, &mut rig.io()), Verdict::Keep);
    assert_eq!(flow.on_guest(&[9; 300], 100, MARKS, &mut rig.io()), Verdict::Keep);
    assert_eq!(rig.net.sent, [(b"hello".to_vec(), 0), (Vec::new(), 0), (vec![9; 300], 100)]);
    flow.release(&mut rig.net);
    assert_eq!(rig.net.closed, [SOCK]);
    assert!(rig.drops().is_empty());
}

// [UDP-8] TTL is set before sending, and only when it is another one.
#[test]
fn ttl_is_passed_on() {
    for v4 in [true, false] {
        let mut rig = Rig::new();
        let mut flow = outgoing(&mut rig, v4);
        for ttl in [37, 37, 9, 9, 37] {
            let _ = flow.on_guest(b"x", 0, Marks { ttl, ..MARKS }, &mut rig.io());
        }
        assert_eq!(rig.net.ttls, [(v4, 37), (v4, 9), (v4, 37)]);
        let _ = flow.on_guest(b"x", 0, Marks { ttl: 0, ..MARKS }, &mut rig.io());
        assert_eq!((rig.net.ttls.len(), rig.net.sent.len()), (3, 5));
        assert_eq!(rig.drops(), [(DropReason::BadHeader, 1)]);
    }
}

// [UDP-7] [UDP-17] Answers come in order, and from where the guest sent to; empty ones too.
#[test]
fn answers_reach_the_guest() {
    for v4 in [true, false] {
        let mut rig = Rig::new();
        let mut flow = outgoing(&mut rig, v4);
        let (guest, ours, _) = ends(v4);
        let large = vec![0xa5; 65_472];
        rig.net.incoming.extend([Ok(b"odd".to_vec()), Ok(Vec::new()), Ok(large.clone())]);
        assert_eq!(flow.on_socket(32, &mut rig.io()), Verdict::Keep);
        let got: Vec<_> = rig.out.frames.iter().map(|f| datagram(f)).collect();
        let want = [b"odd".to_vec(), Vec::new(), large].map(|payload| (ours, guest, payload));
        assert_eq!(got, want);
        assert!(!flow.wants_more() && rig.drops().is_empty());
    }
}

// [UDP-8] What must not be cut leaves so; what the host's link does not take is cut by the host, from
// then on.
#[test]
fn longer_than_the_hosts_link() {
    for v4 in [true, false] {
        let mut rig = Rig::new();
        let mut flow = outgoing(&mut rig, v4);
        rig.net.send_errors.extend([HostError::TooLong; 2]);
        for _ in 0..2 {
            let _ = flow.on_guest(&[7; 4000], 0, MARKS, &mut rig.io());
        }
        assert_eq!(rig.net.sent.len(), 2);
        let (probe, want) = (MtuDiscovery::Probe, MtuDiscovery::Want);
        assert_eq!(rig.net.discovery, [(v4, probe), (v4, want)]);
        assert!(rig.drops().is_empty() && rig.out.frames.is_empty());
        // Nothing takes this.
        rig.net.send_errors.extend([HostError::TooLong; 2]);
        let _ = flow.on_guest(&[7; 65_515], 0, MARKS, &mut rig.io());
        assert_eq!(rig.drops(), [(DropReason::HostSend, 1)]);
    }
}

// [UDP-8] [UDP-11] Who asks about the path is told what the host's link takes.
#[test]
fn probes_hear_of_the_hosts_link() {
    for v4 in [true, false] {
        let mut rig = Rig::new();
        rig.net.mtu = Some(1500);
        let mut flow = outgoing(&mut rig, v4);
        rig.net.send_errors.extend([HostError::TooLong; 2]);
        let _ = flow.on_guest(&[7; 4000], 0, Marks { ttl: 3, ..MARKS }, &mut rig.io());
        assert!(rig.net.sent.is_empty() && rig.drops().is_empty());
        let (from, _, icmp) = network(&rig.out.frames[0]);
        let (gateway, head) = if v4 { ("192.0.2.1", [3, 4]) } else { ("fe80::1", [2, 0]) };
        assert_eq!((from.to_string().as_str(), &icmp[..2], &icmp[4..8]), {
            (gateway, &head[..], &[0, 0, 5, 220][..])
        });
        // A short one is sent as ever.
        let _ = flow.on_guest(&[7; 40], 0, Marks { ttl: 3, ..MARKS }, &mut rig.io());
        assert_eq!(rig.net.sent.len(), 1);
    }
}

// [UDP-11] The path takes less than was sent before: the guest is told, and this one is sent.
#[test]
fn the_path_takes_less() {
    let mut rig = Rig::new();
    let mut flow = outgoing(&mut rig, true);
    rig.net.send_errors.push_back(HostError::TooLong);
    let message = IcmpMessage { kind: 3, code: 4, mtu: 1400 };
    let report = Report { message, offender: Some(addr("198.51.100.1")), quoted: 8 };
    rig.net.reports.push_back((report, vec![7; 8]));
    let _ = flow.on_guest(&[7; 1000], 0, MARKS, &mut rig.io());
    assert_eq!((rig.net.sent.len(), rig.out.frames.len()), (1, 1));
    let (from, _, icmp) = network(&rig.out.frames[0]);
    assert_eq!((from.to_string().as_str(), &icmp[..2], &icmp[6..8]), {
        ("198.51.100.1", &[3, 4][..], &[5, 120][..])
    });
    assert_eq!(rig.net.discovery, [(true, MtuDiscovery::Probe)]);
}

// [UDP-7] A train leaves as one frame, and everything with the marks that the peer gave it.
#[test]
fn trains_and_marks_reach_the_guest() {
    for v4 in [true, false] {
        let mut rig = Rig::new();
        let mut flow = outgoing(&mut rig, v4);
        rig.net.incoming.extend([Ok(vec![1; 2500])]);
        rig.net.marks = (1000, 0xb9, 17);
        let _ = flow.on_socket(32, &mut rig.io());
        assert_eq!(rig.out.gso, [crate::wire::Gso::Udp(1000)]);
        let frame = &rig.out.frames[0];
        let (tos, ttl) =
            if v4 { (frame[15], frame[22]) } else { (frame[14] << 4 | frame[15] >> 4, frame[21]) };
        assert_eq!((tos, ttl), (0xb9, 17));
    }
}

// [UDP-8] The type of service is set before sending, and only when it is another one.
#[test]
fn marks_of_the_guest_are_passed_on() {
    for v4 in [true, false] {
        let mut rig = Rig::new();
        let mut flow = outgoing(&mut rig, v4);
        for tos in [0, 0xb8, 0xb8, 3, 0] {
            let _ = flow.on_guest(b"x", 0, Marks { tos, ..MARKS }, &mut rig.io());
        }
        assert_eq!(rig.net.tos, [(v4, 0xb8), (v4, 3), (v4, 0)]);
    }
}

// [UDP-7] A visit ends with the budget, and the rest is not forgotten.
#[test]
fn budget_is_kept() {
    let mut rig = Rig::new();
    let mut flow = outgoing(&mut rig, true);
    rig.net.incoming.extend((0..5).map(|n| Ok(vec![n])));
    let _ = flow.on_socket(3, &mut rig.io());
    assert_eq!(rig.out.frames.len(), 3);
    assert!(flow.wants_more());
    let _ = flow.on_socket(3, &mut rig.io());
    assert_eq!(rig.out.frames.len(), 5);
    assert!(!flow.wants_more());
}

// A link without room leaves datagrams in the socket; a lossy one is counted; a datagram that
// does not fit a packet is counted.
#[test]
fn link_trouble() {
    let mut rig = Rig::new();
    let mut flow = outgoing(&mut rig, true);
    rig.net.incoming.push_back(Ok(b"x".to_vec()));
    rig.out.full = true;
    // A timer tries again, and less often if that is in vain.
    let (start, mut visits) = (rig.now.ms(), 0);
    while rig.now.ms() < start + 10_000 {
        assert_eq!(flow.on_socket(32, &mut rig.io()), Verdict::Keep);
        assert!(!flow.wants_more() && rig.net.incoming.len() == 1);
        let wait = flow.deadline().at().unwrap() - rig.now.ms();
        rig.wait_ms(wait);
        assert!(wait > 0 && flow.retries(rig.now));
        assert_eq!(flow.on_timer(rig.now), Verdict::Keep);
        visits += 1;
    }
    assert!((10..30).contains(&visits), "{visits} visits in 10 s");
    rig.out.full = false;
    rig.out.lossy = true;
    let _ = flow.on_socket(32, &mut rig.io());
    assert_eq!(rig.drops(), [(DropReason::LinkFull, 1)]);
    assert!(!flow.retries(Now(u64::MAX / 2)));
    rig.net.incoming.push_back(Ok(vec![0; 65_508]));
    let _ = flow.on_socket(32, &mut rig.io());
    assert_eq!(rig.drops(), [(DropReason::LinkFull, 1), (DropReason::NotBuilt, 1)]);
    assert!(rig.out.frames.is_empty());
}

// [UDP-5] [UDP-4] A peer's datagram opens a socket at exactly the address it was sent to, and
// reaches the guest.
#[test]
fn peers_start_flows() {
    let mut rig = Rig::new();
    let (ours, guest) = (at("192.0.2.1", 6001), at("192.0.2.10", 5555));
    let (peer, local) = (at("127.0.0.5", 6001), at("127.0.0.9", 4444));
    let limits = Timeouts::default();
    let flow =
        UdpFlow::from_peer(ID, (ours, guest), (peer, local), b"first", limits, &mut rig.io());
    let mut flow = flow.unwrap();
    assert_eq!(rig.net.udp, [(ID, Bind::Exactly(local), peer)]);
    flow.on_listener(b"second", &mut rig.io());
    let got: Vec<_> = rig.out.frames.iter().map(|f| datagram(f)).collect();
    assert_eq!(got, [(ours, guest, b"first".to_vec()), (ours, guest, b"second".to_vec())]);
    let _ = flow.on_guest(b"answer", 0, MARKS, &mut rig.io());
    assert_eq!(rig.net.sent, [(b"answer".to_vec(), 0)]);

    // [FWD-6] Others that look the same to the guest can be told apart.
    assert!(flow.belongs(peer, local));
    assert!(!flow.belongs(at("127.0.0.6", 6001), local));
    assert!(!flow.belongs(peer, at("127.0.0.8", 4444)));
    assert!(!outgoing(&mut rig, true).belongs(at("127.0.0.1", 5000), local));

    rig.net.open_error = Some(HostError::Other);
    let none = UdpFlow::from_peer(ID, (ours, guest), (peer, local), b"lost", limits, &mut rig.io());
    assert!(none.is_err());
    assert_eq!(rig.drops(), [(DropReason::NoSocket, 1)]);
    assert_eq!(rig.out.frames.len(), 2);
}

/// How long the flow may be idle, milliseconds; checks that the timer agrees.
fn idle_limit(flow: &UdpFlow, rig: &Rig) -> u64 {
    let at = flow.deadline().at().unwrap();
    assert_eq!(flow.on_timer(Now((at - 1) * 1000)), Verdict::Keep);
    assert_eq!(flow.on_timer(Now(at * 1000)), Verdict::Close);
    at - 1 - rig.now.ms()
}

// [UDP-10] Short until both sides have spoken and one of them twice, then long. Both count from
// the last activity, whoever's it was; the limit itself is not too long.
#[test]
fn idle_flows_end() {
    let mut rig = Rig::new();
    let mut flow = outgoing(&mut rig, true);
    let _ = flow.on_guest(b"question", 0, MARKS, &mut rig.io());
    assert_eq!(idle_limit(&flow, &rig), 30_000);
    rig.wait_ms(29_000);
    rig.net.incoming.extend([Ok(b"a".to_vec()), Ok(b"batch counts once".to_vec())]);
    let _ = flow.on_socket(32, &mut rig.io());
    assert_eq!(idle_limit(&flow, &rig), 30_000);
    rig.wait_ms(29_000);
    let _ = flow.on_guest(b"another", 0, MARKS, &mut rig.io());
    assert_eq!(idle_limit(&flow, &rig), 120_000);

    // Unanswered, however often.
    let mut flow = outgoing(&mut rig, true);
    for _ in 0..300 {
        let _ = flow.on_guest(b"question", 0, MARKS, &mut rig.io());
    }
    assert_eq!(idle_limit(&flow, &rig), 30_000);
    // A wake-up without datagrams is no activity.
    rig.wait_ms(1000);
    let _ = flow.on_socket(32, &mut rig.io());
    rig.net.incoming.push_back(Err(HostError::Other));
    let _ = flow.on_socket(32, &mut rig.io());
    assert_eq!(idle_limit(&flow, &rig), 29_000);
}

// [UDP-10] Nobody asks twice from a port whose queries were all answered.
#[test]
fn answered_queries_end_the_flow() {
    let (guest, server) = (at("192.0.2.10", 2000), at("192.0.2.53", 53));
    let limits = Timeouts::default();
    let mut rig = Rig::new();
    let flow = UdpFlow::from_guest(ID, (server, guest), out(server), limits, &mut rig.io());
    let mut flow = flow.unwrap();
    let _ = flow.on_guest(b"AAAAA", 3, MARKS, &mut rig.io());
    assert_eq!(idle_limit(&flow, &rig), 30_000);
    rig.net.incoming.push_back(Ok(b"one".to_vec()));
    let _ = flow.on_socket(8, &mut rig.io());
    assert_eq!(idle_limit(&flow, &rig), 30_000);
    rig.net.incoming.push_back(Ok(b"two".to_vec()));
    let _ = flow.on_socket(8, &mut rig.io());
    assert_eq!(idle_limit(&flow, &rig) + 1, 1000);
    // It lives on if there is more to ask.
    let _ = flow.on_guest(b"another", 0, MARKS, &mut rig.io());
    assert_eq!(idle_limit(&flow, &rig), 120_000);
}

// [UDP-10] The same from the other side, with limits of one's own.
#[test]
fn idle_inbound_flows_end() {
    let mut rig = Rig::new();
    let (ours, guest) = (at("192.0.2.1", 6001), at("192.0.2.10", 5555));
    let ends = (at("127.0.0.5", 6001), at("127.0.0.9", 4444));
    let limits = Timeouts { short_ms: 5000, stream_ms: 7000 };
    let mut flow =
        UdpFlow::from_peer(ID, (ours, guest), ends, b"abc", limits, &mut rig.io()).unwrap();
    assert_eq!(idle_limit(&flow, &rig), 5000);
    let _ = flow.on_guest(b"answer", 0, MARKS, &mut rig.io());
    assert_eq!(idle_limit(&flow, &rig), 5000);
    let _ = flow.on_guest(b"more", 0, MARKS, &mut rig.io());
    assert_eq!(idle_limit(&flow, &rig), 7000);
}

/// Type and code of an ICMP error, and the ports of the datagram it quotes.
fn error(frame: &[u8]) -> (Endpoint, u8, u8, [u8; 4]) {
    let (src, dst, icmp) = network(frame);
    let quoted = if dst.is_ipv4() { 8 + 20 } else { 8 + 40 };
    let ports = *icmp[quoted..].first_chunk().unwrap();
    (Endpoint::new(src.into(), 0), icmp[0], icmp[1], ports)
}

// [UDP-11] Errors of the host socket become ICMP errors from the party the guest talks to.
#[test]
fn errors_reach_the_guest() {
    for v4 in [true, false] {
        let mut rig = Rig::new();
        let mut flow = outgoing(&mut rig, v4);
        let (_, ours, _) = ends(v4);
        let from = Endpoint::new(ours.addr, 0);
        // 2000 to 5000, as the guest sent it.
        let ports = [0x07, 0xd0, 0x13, 0x88];
        let (port, host) = if v4 { ((3, 3), (3, 1)) } else { ((1, 4), (1, 0)) };
        rig.net.incoming.extend([
            Err(HostError::Refused),
            Ok(b"goes on".to_vec()),
            Err(HostError::Unreachable),
        ]);
        assert_eq!(flow.on_socket(32, &mut rig.io()), Verdict::Keep);
        assert_eq!(error(&rig.out.frames[0]), (from, port.0, port.1, ports));
        assert_eq!(datagram(&rig.out.frames[1]).2, b"goes on");
        assert_eq!(error(&rig.out.frames[2]), (from, host.0, host.1, ports));
        assert!(rig.drops().is_empty());
    }
}

// [UDP-11] What the network reports is passed on from whoever reported it, as the guest sees them;
// what was meant for the host alone is not.
#[test]
fn reports_reach_the_guest() {
    for v4 in [true, false] {
        let (_, ours, peer) = ends(v4);
        let (router, own, link, kind) = if v4 {
            ("198.51.100.1", "192.0.2.10", "192.0.2.1", 11)
        } else {
            ("2001:db8:7::1", "2001:db8::10", "fe80::1", 3)
        };
        let mut rig = Rig::new();
        let link =
            if v4 { at(link, 0).addr } else { crate::translate::fake::lease().our_ll.into() };
        let mut flow = outgoing(&mut rig, v4);
        let exceeded = IcmpMessage { kind, code: 0, mtu: 0 };
        for (offender, seen) in [
            (Some(at(router, 0).addr), at(router, 0).addr),
            // The peer itself may be known under another address.
            (Some(peer.addr), ours.addr),
            // Our host found out by itself, and its address is the guest's.
            (Some(at(own, 0).addr), link),
            (None, ours.addr),
        ] {
            let report = Report { message: exceeded, offender, quoted: 5 };
            rig.net.reports.push_back((report, b"quote".to_vec()));
            rig.net.incoming.push_back(Err(HostError::Other));
            let _ = flow.on_socket(32, &mut rig.io());
            let frame = rig.out.frames.pop().unwrap();
            assert_eq!(error(&frame), (Endpoint::new(seen, 0), kind, 0, [0x07, 0xd0, 0x13, 0x88]));
            assert!(frame.ends_with(b"quote") && rig.out.frames.is_empty());
        }
        assert!(rig.drops().is_empty());
        // A redirect, and a reporter of no family of the guest's.
        let other = at(if v4 { "2001:db8:7::1" } else { "198.51.100.1" }, 0).addr;
        let redirect = IcmpMessage { kind: if v4 { 5 } else { 137 }, ..exceeded };
        for (message, offender) in [(redirect, peer.addr), (exceeded, other)] {
            let report = Report { message, offender: Some(offender), quoted: 0 };
            rig.net.reports.push_back((report, vec![]));
        }
        rig.net.incoming.push_back(Err(HostError::Other));
        let _ = flow.on_socket(32, &mut rig.io());
        assert!(rig.out.frames.is_empty());
        assert_eq!(rig.drops(), [(DropReason::HostSend, 2)]);
    }
}

// [ADDR-11] [UDP-20] Datagrams come from the Ethernet address that the neighbour has now, reports from
// that of who reports.
#[test]
fn frames_come_from_neighbours() {
    let mut rig = Rig::new();
    let (_, ours, peer) = ends(true);
    let mut flow = outgoing(&mut rig, true);
    let mut source = |rig: &mut Rig| {
        let _ = flow.on_socket(32, &mut rig.io());
        let frame = rig.out.frames.pop().unwrap();
        Mac(frame[6..12].try_into().unwrap())
    };
    for mac in [Mac([2; 6]), Mac([4; 6])] {
        rig.neighbours.learn(ours.addr, mac);
        rig.net.incoming.push_back(Ok(b"answer".to_vec()));
        assert_eq!(source(&mut rig), mac);
    }
    rig.neighbours.learn(at("192.0.2.1", 0).addr, Mac([6; 6]));
    let router = at("198.51.100.1", 0).addr;
    for (offender, mac) in [(router, Mac([6; 6])), (peer.addr, Mac([4; 6]))] {
        let message = IcmpMessage { kind: 11, code: 0, mtu: 0 };
        rig.net
            .reports
            .push_back((Report { message, offender: Some(offender), quoted: 0 }, vec![]));
        rig.net.incoming.push_back(Err(HostError::Other));
        assert_eq!(source(&mut rig), mac);
    }
}

// [UDP-11] A report that shows when the next datagram is sent: both are passed on.
#[test]
fn reports_lose_nothing() {
    let mut rig = Rig::new();
    let mut flow = outgoing(&mut rig, true);
    let message = IcmpMessage { kind: 3, code: 4, mtu: 1400 };
    let report = Report { message, offender: Some(at("198.51.100.1", 0).addr), quoted: 0 };
    rig.net.reports.push_back((report, vec![]));
    rig.net.send_errors.push_back(HostError::Other);
    let _ = flow.on_guest(b"x", 0, MARKS, &mut rig.io());
    assert_eq!(rig.net.sent, [(b"x".to_vec(), 0)]);
    assert_eq!(rig.out.frames.len(), 1);
    assert!(rig.drops().is_empty());
}

// [UDP-11] An earlier datagram's error shows when the next one is sent; that one must not be lost.
#[test]
fn pending_errors_lose_nothing() {
    let mut rig = Rig::new();
    let mut flow = outgoing(&mut rig, true);
    rig.net.send_errors.push_back(HostError::Refused);
    let _ = flow.on_guest(b"x", 0, MARKS, &mut rig.io());
    assert_eq!(rig.net.sent, [(b"x".to_vec(), 0)]);
    assert_eq!(rig.out.frames.len(), 1);
    assert!(rig.drops().is_empty());

    // Twice: it is this one's own. One message is enough.
    rig.net.send_errors.extend([HostError::Unreachable, HostError::Unreachable]);
    let _ = flow.on_guest(b"y", 0, MARKS, &mut rig.io());
    assert_eq!((rig.net.sent.len(), rig.out.frames.len()), (1, 2));
    assert_eq!(rig.drops(), [(DropReason::HostSend, 1)]);

    // What ICMP has no words for is counted, and not tried again.
    rig.net.send_errors.push_back(HostError::Other);
    let _ = flow.on_guest(b"z", 0, MARKS, &mut rig.io());
    assert_eq!((rig.net.sent.len(), rig.out.frames.len()), (1, 2));
    assert_eq!(rig.drops(), [(DropReason::HostSend, 2)]);
}

// [UDP-11] [UDP-14] [UDP-18] No flow without a socket, and nothing is left of the attempt. No way to
// the destination is known at once; lack of resources is nobody's fault; and
// nothing is said about multicast.
#[test]
fn errors_of_opening() {
    let (guest, ours, to) = ends(true);
    let group = at("224.0.0.251", 5353);
    for (ours, e, frames, drops) in [
        (ours, HostError::Unreachable, 1, vec![]),
        (ours, HostError::Exhausted, 0, vec![]),
        (ours, HostError::Other, 0, vec![(DropReason::HostSend, 1)]),
        (group, HostError::Unreachable, 0, vec![(DropReason::HostSend, 1)]),
    ] {
        let mut rig = Rig::new();
        rig.net.open_error = Some(e);
        let flow =
            UdpFlow::from_guest(ID, (ours, guest), out(to), Timeouts::default(), &mut rig.io());
        assert!(flow.is_err());
        assert_eq!((rig.out.frames.len(), rig.drops()), (frames, drops));
    }
}

// [UDP-11] A socket with nothing but errors is given up instead of read for ever.
#[test]
fn hopeless_sockets_are_closed() {
    let mut rig = Rig::new();
    let mut flow = outgoing(&mut rig, true);
    rig.net.incoming.extend((0..100).map(|_| Err(HostError::Other)));
    assert_eq!(flow.on_socket(32, &mut rig.io()), Verdict::Close);
}
