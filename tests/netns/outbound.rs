//! Where flows of the guest leave the host: `-o`, `--outbound-if4`, `--outbound-if6`; and ports on
//! addresses that the host does not have (yet): `--freebind`.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt,
};

use crate::lab::{
    GATEWAY4, GATEWAY6, HOST4, HOST6, Lab, REMOTE4, REMOTE6, SOON, at, eventually, ip, ip_batch,
    output_within, unprivileged,
};
use crate::net::{listen, roundtrip, try_connect, udp};
use crate::ns::Ns;
use crate::pasta::{Guest, QUIET};
use crate::udp::echo;

/// A second interface of the host, `up1`, by which the same world is reached from other addresses:
/// 10.8.0.2 and 2001:db8:8::2.
fn second_way(lab: &Lab) {
    ip_batch(
        "",
        "link add up1 index 19 type veth peer name rem1 netns remote
         addr add 10.8.0.2/24 dev up1
         addr add 2001:db8:8::2/64 dev up1 nodad
         link set up1 up",
    );
    ip_batch(
        "remote",
        "addr add 10.8.0.1/24 dev rem1
         addr add 2001:db8:8::1/64 dev rem1 nodad
         link set rem1 up",
    );
    eventually("link-local address of up1", SOON, || {
        ip("-6 addr show dev up1 scope link").contains("fe80")
    });
    ip_batch(
        "",
        "route add default via 10.8.0.1 metric 500\nroute add ::/0 via 2001:db8:8::1 metric 5000",
    );
    let _ = lab;
}

fn any(like: IpAddr) -> SocketAddr {
    if like.is_ipv4() { "0.0.0.0:0".parse().unwrap() } else { "[::]:0".parse().unwrap() }
}

/// The address from which the server is reached, by TCP and by UDP.
#[track_caller]
fn seen(guest: &Guest, to: IpAddr, server: (&Ns, IpAddr)) -> IpAddr {
    let listener = listen(server.0, at(server.1, 7000));
    let (_near, far) = roundtrip(&guest.ns, at(to, 7000), &listener);
    let socket = udp(server.0, at(server.1, 7000));
    let client = udp(&guest.ns, any(to));
    let by_udp = echo(&client, at(to, 7000), &socket, 100);
    assert_eq!(far.peer_addr().unwrap().ip(), by_udp);
    by_udp
}

/// Lets the lab's user ping.
pub(crate) fn allow_ping(ns: &Ns) {
    ns.sysctl("net/ipv4/ping_group_range", if unprivileged() { "0 0" } else { "0 65534" });
}

/// Pings `target` from the guest; the source of the request as it came in on this interface of
/// `remote`.
fn ping_source(lab: &Lab, guest: &Guest, interface: &str, target: IpAddr) -> IpAddr {
    let (family, protocol, request) = match target {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128),
    };
    let raw = lab
        .remote
        .enter(|| socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).unwrap());
    setsockopt(&raw, sockopt::BindToDevice, &interface.into()).unwrap();
    // Receiving does not depend on the protocol.
    let raw = UdpSocket::from(raw);
    raw.set_read_timeout(Some(SOON)).unwrap();
    guest.run(&format!("ping -n -c 1 -W 3 {target}"));
    let mut packet = [0; 256];
    loop {
        let (_, from) = raw.recv_from(&mut packet).expect("an echo request");
        // IPv4 raw sockets show the header, too.
        let header = if target.is_ipv4() { usize::from(packet[0] & 15) * 4 } else { 0 };
        if packet[header] == request {
            return from.ip();
        }
    }
}

#[test]
fn source_address_can_be_chosen() {
    // [FWD-3] [CLI table -o]: TCP, UDP, ping; the host's loopback is not outside
    Lab::run(|lab| {
        allow_ping(&lab.host());
        ip_batch("", "addr add 10.9.0.22/24 dev up0\naddr add 2001:db8:9::22/64 dev up0 nodad");
        let (out4, out6): (IpAddr, IpAddr) =
            ("10.9.0.22".parse().unwrap(), "2001:db8:9::22".parse().unwrap());
        let guest = lab.guest(&format!("-o {out4} -o {out6} {QUIET}"));
        for (server, out, gateway) in [(REMOTE4, out4, GATEWAY4), (REMOTE6, out6, GATEWAY6)] {
            assert_eq!(seen(&guest, server, (&lab.remote, server)), out);
            let loopback: IpAddr =
                if out.is_ipv4() { [127, 0, 0, 1].into() } else { "::1".parse().unwrap() };
            assert_eq!(seen(&guest, gateway, (&lab.host(), loopback)), loopback);
        }
        for (out, server) in [(out4, REMOTE4), (out6, REMOTE6)] {
            assert_eq!(ping_source(lab, &guest, "rem0", server), out);
        }
        // One source address has as many ports for each peer as it has without being named.
        let low = lab.host();
        low.sysctl("net/ipv4/ip_local_port_range", "50000 50003");
        let servers: Vec<_> =
            (7100..7110).map(|p| (p, listen(&lab.remote, at(REMOTE4, p)))).collect();
        let _held: Vec<_> =
            servers.iter().map(|(p, s)| roundtrip(&guest.ns, at(REMOTE4, *p), s)).collect();
    });
}

#[test]
fn source_port_of_datagrams_is_kept() {
    // [FWD-3] [UDP-3] with and without an address
    Lab::run(|lab| {
        for (options, port) in [(String::new(), 5000), (format!("-o {HOST4} -o {HOST6}"), 6000)] {
            let guest = lab.guest(&format!("{options} {QUIET}"));
            for (server, own) in [(REMOTE4, HOST4), (REMOTE6, HOST6)] {
                let socket = udp(&lab.remote, at(server, 7000));
                let client = udp(&guest.ns, SocketAddr::new(any(server).ip(), port));
                client.send_to(b"hello", at(server, 7000)).unwrap();
                assert_eq!(socket.recv_from(&mut [0; 9]).unwrap().1, at(own, port), "{options}");
                // Taken: another one, from the same address.
                let _taken = udp(&lab.host(), SocketAddr::new(any(server).ip(), port + 1));
                let client = udp(&guest.ns, SocketAddr::new(any(server).ip(), port + 1));
                assert_eq!(echo(&client, at(server, 7000), &socket, 10), own, "{options}");
            }
        }
    });
}

#[test]
fn datagrams_to_every_peer_leave_from_one_port() {
    // [FWD-3] [UDP-3] [UDP-17] also from a forwarded one, whose other peers are still heard
    Lab::run(|lab| {
        let options = "-u 5353 -u 5354:5355 -t none -T none -U none";
        for (options, first) in [(options, 5000), ("-u auto -t none -T none -U none", 6000)] {
            let guest = lab.guest(options);
            for (server, own) in [(REMOTE4, HOST4), (REMOTE6, HOST6)] {
                let servers: Vec<_> =
                    (7000..7004).map(|p| (p, udp(&lab.remote, at(server, p)))).collect();
                for port in [first, 5353] {
                    let client = udp(&guest.ns, SocketAddr::new(any(server).ip(), port));
                    if options.contains("auto") {
                        // Until a port that is bound inside is listened on outside.
                        std::thread::sleep(Duration::from_millis(1300));
                    }
                    for (p, socket) in &servers {
                        client.send_to(b"hello", at(server, *p)).unwrap();
                        let from = socket.recv_from(&mut [0; 9]).unwrap().1;
                        assert_eq!(from, at(own, port), "{options}");
                        socket.send_to(b"hello yourself", from).unwrap();
                        assert_eq!(client.recv_from(&mut [0; 20]).unwrap(), (14, at(server, *p)));
                    }
                    if port == first && !options.contains("auto") {
                        continue;
                    }
                    let stranger = udp(&lab.remote, at(server, 6001));
                    stranger.send_to(b"and I?", at(own, port)).unwrap();
                    assert_eq!(client.recv_from(&mut [0; 20]).unwrap(), (6, at(server, 6001)));
                }
            }
            guest.pasta.signal(nix::sys::signal::Signal::SIGTERM);
            let mut pasta = guest.pasta;
            pasta.wait(SOON);
        }
    });
}

#[test]
fn ports_of_others_are_not_shared() {
    // [UDP-3] although they would allow it
    Lab::run(|lab| {
        let guest = lab.guest(QUIET);
        for (server, own) in [(REMOTE4, HOST4), (REMOTE6, HOST6)] {
            let others = lab.host().enter(|| {
                use nix::sys::socket::{
                    AddressFamily, SockFlag, SockType, SockaddrStorage, sockopt,
                };
                let at = SocketAddr::new(any(server).ip(), 5000);
                let family = if at.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
                let fd = nix::sys::socket::socket(
                    family,
                    SockType::Datagram,
                    SockFlag::SOCK_CLOEXEC,
                    None,
                )
                .unwrap();
                nix::sys::socket::setsockopt(&fd, sockopt::ReuseAddr, &true).unwrap();
                if at.is_ipv6() {
                    nix::sys::socket::setsockopt(&fd, sockopt::Ipv6V6Only, &true).unwrap();
                }
                nix::sys::socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(at)).unwrap();
                std::net::UdpSocket::from(fd)
            });
            let socket = udp(&lab.remote, at(server, 7000));
            let client = udp(&guest.ns, SocketAddr::new(any(server).ip(), 5000));
            for _ in 0..2 {
                client.send_to(b"hello", at(server, 7000)).unwrap();
                let from = socket.recv_from(&mut [0; 9]).unwrap().1;
                assert!(from.ip() == own && from.port() != 5000, "{from}");
            }
            socket.send_to(b"for another", at(own, 5000)).unwrap();
            assert_eq!(others.recv(&mut [0; 20]).unwrap(), 11);
        }
    });
}

#[test]
fn interface_can_be_chosen() {
    // [FWD-3] [ADDR-1] [NL-9] [CLI table --outbound-if4 --outbound-if6]: by another interface than
    // the default route's; the mapped loopback is still reached
    Lab::run(|lab| {
        second_way(lab);
        allow_ping(&lab.host());
        let (up4, up6): (IpAddr, IpAddr) =
            ("10.8.0.2".parse().unwrap(), "2001:db8:8::2".parse().unwrap());
        for sysctl in ["net/ipv4/conf/all/rp_filter", "net/ipv4/conf/up1/rp_filter"] {
            lab.host().sysctl(sysctl, "0");
        }
        let guest = lab.guest(&format!(
            "--outbound-if4 up1 --outbound-if6 up1 --map-guest-addr 169.254.1.2 \
             --map-guest-addr fd00::2 {QUIET}"
        ));
        let (gate4, gate6): (IpAddr, IpAddr) =
            ("10.8.0.1".parse().unwrap(), "2001:db8:8::1".parse().unwrap());
        for (server, out, gateway, mapped) in
            [(REMOTE4, up4, gate4, "169.254.1.2"), (REMOTE6, up6, gate6, "fd00::2")]
        {
            assert_eq!(seen(&guest, server, (&lab.remote, server)), out);
            let loopback: IpAddr =
                if out.is_ipv4() { [127, 0, 0, 1].into() } else { "::1".parse().unwrap() };
            assert_eq!(seen(&guest, gateway, (&lab.host(), loopback)), loopback);
            assert_eq!(seen(&guest, mapped.parse().unwrap(), (&lab.host(), out)), out);
        }
        for (out, server) in [(up4, REMOTE4), (up6, REMOTE6)] {
            assert_eq!(ping_source(lab, &guest, "rem1", server), out);
        }
        // Its addresses are the guest's, as for --interface.
        let addrs = guest.run("ip addr show dev up1");
        assert!(addrs.contains("10.8.0.2/24") && addrs.contains("2001:db8:8::2/64"), "{addrs}");
    });
}

#[test]
fn nothing_leaves_by_another_interface() {
    // [FWD-3] [FWD-14]: once the interface is gone, neither TCP nor UDP; and what --interface names
    // stays the template
    Lab::run(|lab| {
        second_way(lab);
        let mut guest = lab.guest(&format!("-i up0 --outbound-if4 up1 {QUIET}"));
        assert!(guest.run("ip addr show dev up0").contains("10.9.0.2/24"));
        let up4: IpAddr = "10.8.0.2".parse().unwrap();
        for sysctl in ["net/ipv4/conf/all/rp_filter", "net/ipv4/conf/up1/rp_filter"] {
            lab.host().sysctl(sysctl, "0");
        }
        assert_eq!(seen(&guest, REMOTE4, (&lab.remote, REMOTE4)), up4);
        ip("link del up1");
        let listener = listen(&lab.remote, at(REMOTE4, 7000));
        assert!(try_connect(&guest.ns, at(REMOTE4, 7000)).is_err());
        let socket = udp(&lab.remote, at(REMOTE4, 7000));
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let client = udp(&guest.ns, any(REMOTE4));
        client.send_to(b"hello", at(REMOTE4, 7000)).unwrap();
        assert!(socket.recv(&mut [0; 9]).is_err());
        assert!(listener.accept().is_err());
        assert!(guest.pasta.alive());
    });
}

#[test]
fn ports_on_foreign_addresses() {
    // [FWD-16] [CLI table --freebind] [CLI table -o]: they work as soon as the address is there
    Lab::run(|lab| {
        let (own4, own6): (IpAddr, IpAddr) =
            ("10.9.0.77".parse().unwrap(), "2001:db8:9::77".parse().unwrap());
        let ports = format!("-t {own4}/8080 -t [{own6}]/8080 -u {own4}/8080 -u [{own6}]/8080");
        let out = output_within(&mut lab.command(&format!("{ports} -- true")), SOON);
        assert_eq!(out.status.code(), Some(1));
        assert!(
            out.stderr.contains("Failed to bind port 8080 (")
                && out.stderr.contains("TCP 10.9.0.77"),
            "{out:?}"
        );
        let guest = lab.guest(&format!("{ports} -T none -U none --freebind -o 10.9.0.78"));
        ip_batch(
            "",
            "addr add 10.9.0.77/24 dev up0
             addr add 10.9.0.78/24 dev up0
             addr add 2001:db8:9::77/64 dev up0 nodad",
        );
        for own in [own4, own6] {
            let server = listen(&guest.ns, SocketAddr::new(any(own).ip(), 8080));
            roundtrip(&lab.remote, at(own, 8080), &server);
            let server = udp(&guest.ns, SocketAddr::new(any(own).ip(), 8080));
            let client = udp(&lab.remote, any(own));
            echo(&client, at(own, 8080), &server, 100);
        }
        let from = "10.9.0.78".parse::<IpAddr>().unwrap();
        assert_eq!(seen(&guest, REMOTE4, (&lab.remote, REMOTE4)), from);
    });
}

#[test]
fn answers_come_from_addresses_of_a_local_route() {
    // [FWD-16] [UDP-5]: the flow's own socket, too, has an address that is on no interface
    Lab::run(|lab| {
        ip("-6 route add local 2001:db8:77::/64 dev lo");
        ip("route add local 10.77.0.0/16 dev lo");
        ip_batch(
            "remote",
            "route add 2001:db8:77::/64 via 2001:db8:9::2
             route add 10.77.0.0/16 via 10.9.0.2",
        );
        let guest = lab.guest("--freebind -u 8080 -t none -T none -U none");
        // On a busy machine the kernel gets to it late.
        eventually("the guest's address is local", SOON, || {
            guest.run("ip -6 route show table local").contains(&format!("local {HOST6} "))
        });
        for own in ["10.77.1.2", "2001:db8:77::5"] {
            let own: IpAddr = own.parse().unwrap();
            let server = udp(&guest.ns, SocketAddr::new(any(own).ip(), 8080));
            let client = udp(&lab.remote, any(own));
            echo(&client, at(own, 8080), &server, 100);
        }
    });
}

#[test]
fn what_cannot_be_used_is_named() {
    // [CLI table -o --outbound-if4 --outbound-if6] [ADDR-1] [W-9]: status 1, one line
    Lab::run(|lab| {
        ip("link add bare0 type veth peer name bare1");
        for (options, message) in [
            (
                "-o 10.1.2.3",
                "cannot use address '10.1.2.3' of option --outbound: it is not an address of this host",
            ),
            (
                "-o 2001:db8:1::3",
                "cannot use address '2001:db8:1::3' of option --outbound: it is not an address of \
                 this host",
            ),
            (
                "--outbound-if4 nope0",
                "Invalid interface name nope0 in option --outbound-if4: No such device (os error 19)",
            ),
            (
                "-i up0 --outbound-if6 nope0",
                "Invalid interface name nope0 in option --outbound-if6: No such device (os error 19)",
            ),
            (
                "--outbound-if4 bare0",
                "Interface bare0 in option --outbound-if4 is not usable: it has no IPv4 address",
            ),
            (
                "--outbound-if6 bare0",
                "Interface bare0 in option --outbound-if6 is not usable: it has no IPv6 address",
            ),
            (
                "--interface nope0",
                "Invalid interface name nope0 in option --interface: No such device (os error 19)",
            ),
        ] {
            let line = format!("-q --config-net {options} {QUIET} -- true");
            let out = output_within(&mut lab.command(&line), SOON);
            assert_eq!(out.status.code(), Some(1), "{options}: {out:?}");
            let lines: Vec<_> = out.stderr.lines().filter(|l| !l.contains("root")).collect();
            assert!(lines.len() == 1 && lines[0].ends_with(message), "{options}: {lines:?}");
        }
        // What a family that is off would need is not looked at.
        let mut command: Command =
            lab.command(&format!("-4 --outbound-if6 nope0 -o fd00::1 {QUIET} -- true"));
        output_within(&mut command, SOON).ok();
    });
}
