//! The addresses that a guest sees of those who connect to its forwarded ports: their own, unless
//! it could not answer them; and then every one of them still gets its own answer.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;

use nix::sys::signal::Signal;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, sockopt};

use crate::lab::{
    GATEWAY4, GATEWAY6, HOST4, HOST6, Lab, REMOTE4, REMOTE6, SOON, at, ip_batch, output_within,
};
use crate::machine::Raw;
use crate::net::{accept, listen, pass, roundtrip, udp};
use crate::ns::Ns;
use crate::pasta::Guest;
use crate::stream::talking;
use crate::udp::echo;

const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
const LO4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LO6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Port 8080 of the guest, for both protocols, over the link also for clients on the loopback.
const FORWARD: &str = "--no-splice -t 8080 -u 8080 -T none -U none";

/// A connection from `ns` that comes from the address `from`.
#[track_caller]
fn connect_from(ns: &Ns, from: SocketAddr, to: SocketAddr) -> TcpStream {
    let stream = ns.enter(|| {
        let family = if from.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        socket::setsockopt(&fd, sockopt::ReuseAddr, &true).unwrap();
        socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(from))
            .unwrap_or_else(|e| panic!("{from}: {e}"));
        socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(to))
            .unwrap_or_else(|e| panic!("{from} -> {to}: {e}"));
        TcpStream::from(fd)
    });
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

/// What the guest sees of a client, which is the same for TCP and UDP.
#[track_caller]
fn seen(guest: &Guest, client: &Ns, from: SocketAddr, to: SocketAddr) -> SocketAddr {
    let server = listen(&guest.ns, at(ANY6, 8080));
    let mut near = connect_from(client, from, to);
    let mut far = accept(&server);
    pass(&mut near, &mut far, b"question");
    pass(&mut far, &mut near, b"answer");
    let by_tcp = far.peer_addr().unwrap();
    let server = udp(&guest.ns, at(ANY6, 8080));
    let near = udp(client, from);
    let mut got = [0; 100];
    near.send_to(b"question", to).unwrap();
    let (_, by_udp) = server.recv_from(&mut got).expect("the server receives");
    server.send_to(b"answer", by_udp).unwrap();
    let (n, _) = near.recv_from(&mut got).expect("the client gets its answer");
    assert_eq!(&got[..n], b"answer");
    assert_eq!(by_tcp.ip(), by_udp.ip(), "{from}");
    let port = if from.port() == 0 { by_udp.port() } else { from.port() };
    SocketAddr::new(by_udp.ip().to_canonical(), port)
}

/// The link-local address of an interface, with its scope.
fn link_local(ns: &Ns, name: &str) -> SocketAddrV6 {
    let mut command = ns.command("ip");
    let text = output_within(command.args(["-6", "-o", "addr", "show", "dev", name]), SOON).ok();
    let line = text.lines().find(|l| l.contains("fe80")).expect("a link-local address");
    let word = line.split_whitespace().find(|w| w.starts_with("fe80")).unwrap();
    let index: u32 = line.split(':').next().unwrap().trim().parse().unwrap();
    SocketAddrV6::new(word.split('/').next().unwrap().parse().unwrap(), 0, 0, index)
}

#[test]
fn others_are_seen_as_themselves() {
    // [FWD-6] [FWD-4] TCP and UDP, IPv4 and IPv6, address and port, also the router's
    Lab::run(|lab| {
        let guest = lab.guest(FORWARD);
        for (client, host) in
            [(REMOTE4, HOST4), (GATEWAY4, HOST4), (REMOTE6, HOST6), (GATEWAY6, HOST6)]
        {
            let from = at(client, 6001);
            assert_eq!(seen(&guest, &lab.remote, from, at(host, 8080)), from);
        }
    });
}

#[test]
fn neighbours_are_seen_as_themselves() {
    // [FWD-4] [FWD-6] link-local addresses of the template's link
    Lab::run(|lab| {
        let guest = lab.guest(FORWARD);
        let (mut from, mut to) = (link_local(&lab.remote, "rem0"), link_local(&lab.host(), "up0"));
        from.set_port(6001);
        to.set_port(8080);
        to.set_scope_id(from.scope_id());
        let seen = seen(&guest, &lab.remote, from.into(), to.into());
        assert_eq!((seen.ip(), seen.port()), (IpAddr::V6(*from.ip()), 6001));
    });
}

#[test]
fn the_host_is_seen_as_what_stands_for_it() {
    // [FWD-6] [ADDR-4] [ADDR-6] each of its addresses, also one of several that were copied
    Lab::run(|lab| {
        let (other4, other6): (IpAddr, IpAddr) =
            ("10.9.1.2".parse().unwrap(), "2001:db8:9:1::2".parse().unwrap());
        ip_batch("", "addr add 10.9.1.2/24 dev up0\naddr add 2001:db8:9:1::2/64 dev up0 nodad");
        let our_ll = IpAddr::V6(*link_local(&lab.host(), "up0").ip());
        let lo5: IpAddr = "127.0.0.5".parse().unwrap();
        let guest = lab.guest(FORWARD);
        for (from, to, source) in [
            (LO4, LO4, GATEWAY4),
            (lo5, LO4, GATEWAY4),
            (lo5, lo5, GATEWAY4),
            (HOST4, HOST4, GATEWAY4),
            (other4, HOST4, GATEWAY4),
            (LO6, LO6, GATEWAY6),
            (HOST6, HOST6, our_ll),
            (other6, HOST6, our_ll),
        ] {
            let seen = seen(&guest, &lab.host(), at(from, 0), at(to, 8080));
            assert_eq!(seen.ip(), source, "{from}");
        }
    });
}

#[test]
fn the_hosts_addresses_can_be_told_apart() {
    // [FWD-6] [ADDR-6] by options
    Lab::run(|lab| {
        let mapped = "--map-host-loopback 10.9.0.200 --map-guest-addr 10.9.0.201 \
                      --map-host-loopback 2001:db8:9::200 --map-guest-addr 2001:db8:9::201";
        let guest = lab.guest(&format!("{mapped} {FORWARD}"));
        for (from, source) in [
            (LO4, "10.9.0.200"),
            ("127.0.0.5".parse().unwrap(), "10.9.0.1"),
            (HOST4, "10.9.0.201"),
            (LO6, "2001:db8:9::200"),
            (HOST6, "2001:db8:9::201"),
        ] {
            let to = if from.is_loopback() && from.is_ipv4() { LO4 } else { from };
            let seen = seen(&guest, &lab.host(), at(from, 0), at(to, 8080));
            assert_eq!(seen.ip(), source.parse::<IpAddr>().unwrap(), "{from}");
        }
    });
}

#[test]
fn the_guests_address_elsewhere_is_replaced() {
    // [FWD-6] somebody else has the address that the guest was given
    Lab::run(|lab| {
        let guest = lab.guest(&format!("-a 10.9.0.3 -a 2001:db8:9::3 {FORWARD}"));
        let our_ll = IpAddr::V6(*link_local(&lab.host(), "up0").ip());
        for (client, host, source) in [(REMOTE4, HOST4, GATEWAY4), (REMOTE6, HOST6, our_ll)] {
            let seen = seen(&guest, &lab.remote, at(client, 6001), at(host, 8080));
            assert_eq!(seen.ip(), source);
        }
        // And the host's own no longer needs to be.
        let from = at(HOST4, 6002);
        assert_eq!(seen(&guest, &lab.host(), from, at(HOST4, 8080)), from);
    });
}

#[test]
fn clients_that_look_alike_get_their_own_answers() {
    // [FWD-6] One address for all, and one source port: each answer reaches who asked, by TCP and by
    // UDP, also if one client asks at several addresses.
    Lab::run(|lab| two_hundred_alike(lab, FORWARD));
}

#[test]
fn clients_on_the_loopback_get_their_own_answers() {
    // [FWD-5] [FWD-6] the same past the link
    Lab::run(|lab| two_hundred_alike(lab, FORWARD.trim_start_matches("--no-splice")));
}

/// Two hundred clients of two hundred addresses and one port ask, and get their answers.
fn two_hundred_alike(lab: &Lab, options: &str) {
    let guest = lab.guest(options);
    let host = lab.host();
    let crowd = (2..=200).map(|n| IpAddr::from([127, 0, 0, n]));
    let clients: Vec<IpAddr> = [LO4, HOST4].into_iter().chain(crowd).collect();

    let server = listen(&guest.ns, at(ANY6, 8080));
    let mut pairs: Vec<(TcpStream, TcpStream)> = vec![];
    for client in &clients {
        let near = connect_from(&host, at(*client, 6001), at(LO4, 8080));
        pairs.push((near, accept(&server)));
    }
    for (n, (near, far)) in pairs.iter_mut().enumerate() {
        near.write_all(format!("{n:3}").as_bytes()).unwrap();
        let mut got = [0; 3];
        far.read_exact(&mut got).unwrap();
        far.write_all(&got).unwrap();
    }
    for (n, (near, _)) in pairs.iter_mut().enumerate() {
        let mut got = [0; 3];
        near.read_exact(&mut got).unwrap();
        assert_eq!(got, format!("{n:3}").as_bytes());
    }

    let server = udp(&guest.ns, at(ANY6, 8080));
    let to = [LO4, HOST4].map(|to| at(to, 8080));
    let sockets: Vec<UdpSocket> = clients.iter().map(|c| udp(&host, at(*c, 6001))).collect();
    // Twice: the second time by the flow that the first one made.
    for _ in 0..2 {
        for (n, socket) in sockets.iter().enumerate() {
            for to in to {
                socket.send_to(format!("{n:3} {to}").as_bytes(), to).unwrap();
                let mut got = [0; 100];
                let (len, from) = server.recv_from(&mut got).expect("the server receives");
                server.send_to(&got[..len], from).unwrap();
            }
        }
        for (n, socket) in sockets.iter().enumerate() {
            for _ in to {
                let mut got = [0; 100];
                let (len, from) = socket.recv_from(&mut got).expect("an answer");
                assert_eq!(&got[..len], format!("{n:3} {from}").as_bytes());
            }
        }
    }
}

#[test]
fn the_shared_address_is_the_guests_own() {
    // [FWD-9] The host is not reached by the address that the guest has, too.
    Lab::run(|lab| {
        let guest = lab.guest("-t none -u none -T none -U none");
        for host in [HOST4, HOST6] {
            let _server = listen(&lab.host(), at(host, 7000));
            let refused = crate::net::try_connect(&guest.ns, at(host, 7000)).unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        }
    });
}

#[test]
fn what_is_meant_for_many_stays_so() {
    // [FWD-4] [UDP-13] multicast that somebody on the host joined, and broadcast of the subnet
    Lab::run(|lab| {
        // A socket for both families would not get multicast of IPv4.
        let options = "-u 0.0.0.0/5353 -u [::]/5353 -t none -T none -U none";
        let guest = lab.guest(options);
        let up0 = [link_local(&lab.host(), "up0"), link_local(&guest.ns, "up0")];
        let [outer, inner] = up0.map(|a| a.scope_id());
        let (group4, group6) = (Ipv4Addr::new(224, 0, 0, 251), "ff02::fb".parse().unwrap());
        let any = Ipv4Addr::UNSPECIFIED;
        let member = udp(&lab.host(), at(HOST4, 0));
        member.join_multicast_v4(&group4, &any).unwrap();
        let member6 = udp(&lab.host(), at(HOST6, 0));
        member6.join_multicast_v6(&group6, outer).unwrap();
        // Bound to the address: what comes to another one does not count.
        for to in [IpAddr::V4(group4), "10.9.0.255".parse().unwrap()] {
            let client = udp(&lab.remote, at(REMOTE4, 6001));
            client.set_broadcast(true).unwrap();
            let inside = udp(&guest.ns, at(to, 5353));
            if to == IpAddr::V4(group4) {
                inside.join_multicast_v4(&group4, &any).unwrap();
            }
            client.send_to(b"anybody?", at(to, 5353)).unwrap();
            let (n, from) = inside.recv_from(&mut [0; 20]).unwrap_or_else(|e| panic!("{to}: {e}"));
            assert_eq!((n, from), (8, at(REMOTE4, 6001)));
        }
        let mut from = link_local(&lab.remote, "rem0");
        let inside = udp(&guest.ns, SocketAddrV6::new(group6, 5353, 0, inner).into());
        inside.join_multicast_v6(&group6, inner).unwrap();
        from.set_port(6001);
        let client = udp(&lab.remote, from.into());
        let to = SocketAddrV6::new(group6, 5353, 0, from.scope_id());
        client.send_to(b"anybody?", to).unwrap();
        let (n, seen) = inside.recv_from(&mut [0; 20]).expect("multicast of IPv6");
        assert_eq!((n, seen.ip(), seen.port()), (8, IpAddr::V6(*from.ip()), 6001));
    });
}

#[test]
fn the_guest_can_send_to_many() {
    // [UDP-13] broadcast, of the subnet and limited, and groups of both families
    Lab::run(|lab| {
        let guest = lab.guest("-t none -u none -T none -U none");
        let (group4, group6) = (Ipv4Addr::new(224, 0, 0, 251), "ff02::fb".parse().unwrap());
        let server = udp(&lab.remote, at(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 7000));
        let (IpAddr::V4(remote), IpAddr::V4(own)) = (REMOTE4, HOST4) else { unreachable!() };
        server.join_multicast_v4(&group4, &remote).unwrap();
        for to in [Ipv4Addr::new(10, 9, 0, 255), Ipv4Addr::BROADCAST, group4] {
            let client = udp(&guest.ns, at(HOST4, 6001));
            client.set_broadcast(true).unwrap();
            client.send_to(b"anybody?", (to, 7000)).unwrap();
            let (n, from) = server.recv_from(&mut [0; 20]).unwrap_or_else(|e| panic!("{to}: {e}"));
            assert_eq!((n, from), (8, (own, 6001).into()), "{to}");
        }
        let server = udp(&lab.remote, at(ANY6, 7001));
        server.join_multicast_v6(&group6, link_local(&lab.remote, "rem0").scope_id()).unwrap();
        let own = link_local(&guest.ns, "up0");
        let client = udp(&guest.ns, SocketAddr::new(ANY6, 6002));
        client.send_to(b"anybody?", SocketAddrV6::new(group6, 7001, 0, own.scope_id())).unwrap();
        let (n, from) = server.recv_from(&mut [0; 20]).expect("multicast of IPv6");
        assert_eq!((n, from.port()), (8, 6002));
    });
}

#[test]
fn everybody_who_was_asked_can_answer() {
    // [UDP-13] as those do who are asked by SSDP, with an address of their own; then it is a
    // conversation like any other
    Lab::run(|lab| {
        let guest = lab.guest("-t none -u 6003 -T none -U none");
        let (group4, group6) = (Ipv4Addr::new(239, 255, 255, 250), "ff02::c".parse().unwrap());
        let (other4, other6) =
            (IpAddr::from([10, 9, 0, 3]), IpAddr::V6("2001:db8:9::3".parse().unwrap()));
        let scope = link_local(&guest.ns, "up0").scope_id();
        for (to, answer_from) in [
            (IpAddr::V4(group4), [REMOTE4, other4]),
            (IpAddr::V4(Ipv4Addr::BROADCAST), [REMOTE4, other4]),
            (IpAddr::V4(Ipv4Addr::new(10, 9, 0, 255)), [REMOTE4, other4]),
            (IpAddr::V6(group6), [REMOTE6, other6]),
        ] {
            let any = if to.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { ANY6 };
            let server = udp(&lab.remote, at(any, 1900));
            let IpAddr::V4(remote) = REMOTE4 else { unreachable!() };
            if to.is_ipv4() {
                server.join_multicast_v4(&group4, &remote).unwrap();
            } else {
                let scope = link_local(&lab.remote, "rem0").scope_id();
                server.join_multicast_v6(&group6, scope).unwrap();
            }
            let client = udp(&guest.ns, at(any, 6001));
            client.set_broadcast(true).unwrap();
            let to = match to {
                IpAddr::V4(_) => at(to, 1900),
                IpAddr::V6(group) => SocketAddrV6::new(group, 1900, 0, scope).into(),
            };
            client.send_to(b"who?", to).unwrap();
            let (_, asker) = server.recv_from(&mut [0; 20]).unwrap_or_else(|e| panic!("{to}: {e}"));
            let mut buf = [0; 20];
            for (n, from) in answer_from.into_iter().enumerate() {
                let answering = udp(&lab.remote, at(from, 3000));
                for text in [b"one", b"two"] {
                    answering.send_to(text, asker).unwrap();
                    let (len, from) =
                        client.recv_from(&mut buf).unwrap_or_else(|e| panic!("{to}, {n}: {e}"));
                    assert_eq!((&buf[..len], from), (&text[..], answering.local_addr().unwrap()));
                }
                client.send_to(b"more", answering.local_addr().unwrap()).unwrap();
                let (len, from) = answering.recv_from(&mut buf).expect("from the guest");
                assert_eq!((len, from.port()), (4, asker.port()));
            }
        }

        // Also where the port is forwarded anyway.
        let server = udp(&lab.remote, at(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 1900));
        let client = udp(&guest.ns, at(HOST4, 6003));
        client.set_broadcast(true).unwrap();
        client.send_to(b"who?", (Ipv4Addr::BROADCAST, 1900)).unwrap();
        let (_, asker) = server.recv_from(&mut [0; 20]).expect("broadcast");
        assert_eq!(asker, at(HOST4, 6003));
        let answering = udp(&lab.remote, at(other4, 3000));
        for text in [b"one", b"two"] {
            answering.send_to(text, asker).unwrap();
            let mut buf = [0; 20];
            let (len, from) = client.recv_from(&mut buf).expect("an answer");
            assert_eq!((&buf[..len], from), (&text[..], at(other4, 3000)));
        }
    });
}

#[test]
fn what_the_guest_sends_to_many_does_not_come_back() {
    // [UDP-13] although the same port is forwarded, and the host hears its own broadcast
    Lab::run(|lab| {
        let options = "-u 0.0.0.0/5353 -u [::]/5353 -t none -T none -U none";
        let guest = lab.guest(options);
        let (group4, group6) = (Ipv4Addr::new(224, 0, 0, 251), "ff02::fb".parse().unwrap());
        let (IpAddr::V4(remote), any) = (REMOTE4, Ipv4Addr::UNSPECIFIED) else { unreachable!() };
        let member = udp(&lab.host(), at(HOST4, 0));
        member.join_multicast_v4(&group4, &any).unwrap();
        let outer = link_local(&lab.host(), "up0").scope_id();
        udp(&lab.host(), at(HOST6, 0)).join_multicast_v6(&group6, outer).unwrap();
        let server = udp(&lab.remote, at(any.into(), 5353));
        server.join_multicast_v4(&group4, &remote).unwrap();
        server.set_broadcast(true).unwrap();
        let inside = udp(&guest.ns, at(any.into(), 5353));
        inside.set_broadcast(true).unwrap();
        let mut got = [0; 20];
        for to in [Ipv4Addr::new(10, 9, 0, 255), Ipv4Addr::BROADCAST, group4] {
            inside.send_to(b"anybody?", (to, 5353)).unwrap();
            // It hears itself, too.
            while server.recv(&mut got).unwrap_or_else(|e| panic!("{to}: {e}")) != 8 {}
            // Behind it the same way, and from elsewhere; with the same port.
            server.send_to(b"me", (Ipv4Addr::new(10, 9, 0, 255), 5353)).unwrap();
            // The guest's own kernel lets it hear itself.
            while let Ok((8, from)) = inside.recv_from(&mut got) {
                assert_eq!(from.ip(), HOST4, "{to} came back");
            }
            assert_eq!(&got[..2], b"me", "{to}");
        }
        let scope = link_local(&lab.remote, "rem0").scope_id();
        drop(server);
        let server = udp(&lab.remote, at(ANY6, 5353));
        server.join_multicast_v6(&group6, scope).unwrap();
        server.set_multicast_loop_v6(false).unwrap();
        let inner = link_local(&guest.ns, "up0").scope_id();
        drop(inside);
        let inside = udp(&guest.ns, at(ANY6, 5353));
        inside.send_to(b"anybody?", SocketAddrV6::new(group6, 5353, 0, inner)).unwrap();
        assert_eq!(server.recv_from(&mut got).expect("multicast of IPv6").0, 8);
        let all = "ff02::1".parse().unwrap();
        server.send_to(b"me", SocketAddrV6::new(all, 5353, 0, scope)).unwrap();
        let own = link_local(&guest.ns, "up0").ip().to_owned();
        while let Ok((8, from)) = inside.recv_from(&mut got) {
            assert_eq!(from.ip(), own, "it came back");
        }
        assert_eq!(&got[..2], b"me");
    });
}

#[test]
fn what_is_not_forwarded_is_counted() {
    // [MC-1] membership of groups, pings to many
    Lab::run(|lab| {
        let (mut passt, socket) = talking(lab, "--debug");
        let mut guest = Raw::connect(&socket);
        let packet4 = |protocol: u8, data: &[u8]| {
            let len = u8::try_from(20 + data.len()).unwrap();
            let head = [0x45, 0, 0, len, 0, 0, 0, 0, 1, protocol, 0, 0, 10, 9, 0, 2, 224, 0, 0, 22];
            [&[0xff; 6], &[2, 0, 0, 0, 0, 9, 8, 0][..], &head, data].concat()
        };
        guest.send(&packet4(2, &[0x16, 0, 0, 0, 224, 0, 0, 251]));
        guest.send(&packet4(1, &[8, 0, 0, 0, 0, 7, 0, 1]));
        let (IpAddr::V6(own), group) = (HOST6, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16))
        else {
            unreachable!()
        };
        // A router alert, and a report.
        let data = [58, 0, 5, 2, 0, 0, 1, 0, 143, 0, 0, 0, 0, 0, 0, 0];
        let head = [&[0x60, 0, 0, 0, 0, 16, 0, 1], &own.octets()[..], &group.octets()].concat();
        guest.send(&[&[0xff; 6], &[2, 0, 0, 0, 0, 9, 0x86, 0xdd][..], &head, &data].concat());
        assert!(guest.is_served(64));
        passt.signal(Signal::SIGTERM);
        assert_eq!(passt.wait(SOON).code(), Some(0));
        let said = passt.stderr();
        assert!(said.contains("dropped: multicast-membership 2\n"), "{said}");
        assert!(said.contains("dropped: multicast-not-forwarded 1\n"), "{said}");
    });
}

#[test]
fn a_guest_that_changes_its_mac_address_is_reached() {
    // [ADDR-9] [TAP-9] with its next frame; and who wants to know is told
    Lab::run(|lab| {
        let guest = lab.guest(&format!("{FORWARD} --debug"));
        let server = listen(&guest.ns, at(ANY6, 8080));
        roundtrip(&lab.remote, at(HOST4, 8080), &server);
        guest.run("ip link set up0 address 02:77:77:77:77:77");
        let outside = udp(&lab.remote, at(REMOTE4, 7000));
        echo(&udp(&guest.ns, at(HOST4, 0)), at(REMOTE4, 7000), &outside, 10);
        roundtrip(&lab.remote, at(HOST4, 8080), &server);
        let told = "the guest's Ethernet address is 02:77:77:77:77:77";
        assert_eq!(guest.pasta.stderr().matches(told).count(), 1, "{}", guest.pasta.stderr());
    });
}

#[test]
fn changes_of_the_host_leave_the_guests_network_alone() {
    // [ADDR-12] addresses, routes and resolvers are those of the start; traffic goes on
    Lab::run(|lab| {
        let guest = lab.guest("-t 8080 -u none -T none -U none --dns-forward 169.254.1.1");
        let before = guest.run("ip addr") + &guest.run("ip route");
        ip_batch(
            "",
            "addr add 10.9.0.99/24 dev up0
             addr del 10.9.0.2/24 dev up0
             addr add 10.9.0.99/24 dev up0
             route add default via 10.9.0.3",
        );
        std::fs::write("/etc/resolv.conf", "nameserver 10.9.0.54\n").unwrap();
        let new: IpAddr = "10.9.0.99".parse().unwrap();
        let loopback = listen(&lab.host(), at(LO4, 7000));
        roundtrip(&guest.ns, at(GATEWAY4, 7000), &loopback);
        let remote = listen(&lab.remote, at(REMOTE4, 7000));
        let (_, far) = roundtrip(&guest.ns, at(REMOTE4, 7000), &remote);
        assert_eq!(far.peer_addr().unwrap().ip(), new);
        let inside = listen(&guest.ns, at(ANY6, 8080));
        roundtrip(&lab.remote, at(new, 8080), &inside);
        assert_eq!(guest.run("ip addr") + &guest.run("ip route"), before);
    });
}
