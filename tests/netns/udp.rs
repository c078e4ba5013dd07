//! Datagrams and pings in every direction.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::lab::{
    GATEWAY4, GATEWAY6, HOST4, HOST6, Lab, REMOTE4, REMOTE6, SOON, at, eventually, output_within,
    unprivileged,
};
use crate::net::{pattern, udp};
use crate::pasta::Guest;

const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
const LO4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LO6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// An unbound address of the same family.
pub(crate) fn any(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// The largest datagram that a guest with the default MTU sends in one piece.
fn largest(like: IpAddr) -> usize {
    65_520 - 8 - if like.is_ipv4() { 20 } else { 40 }
}

/// Sends a datagram, answers it, and checks both; the address the server saw.
#[track_caller]
pub(crate) fn echo(
    client: &std::net::UdpSocket,
    to: std::net::SocketAddr,
    server: &std::net::UdpSocket,
    size: usize,
) -> IpAddr {
    let data = pattern(size);
    client.send_to(&data, to).unwrap();
    let mut got = vec![0; 65536];
    let (len, from) = server.recv_from(&mut got).expect("the server receives");
    assert!(got[..len] == data, "{len} of {size} bytes");
    server.send_to(&data, from).unwrap();
    let (len, answerer) = client.recv_from(&mut got).expect("the client gets its answer");
    assert!(got[..len] == data, "{len} of {size} bytes");
    assert_eq!(answerer, to, "the answer comes from where the question went");
    from.ip().to_canonical()
}

#[test]
fn guest_reaches_remote_servers_as_the_host() {
    // [UDP-*] [COMPAT-26]: any size, also none
    Lab::run(|lab| {
        let guest = lab.guest("-t none -u none -T none -U none");
        for (remote, host) in [(REMOTE4, HOST4), (REMOTE6, HOST6)] {
            let server = udp(&lab.remote, at(remote, 7000));
            let client = udp(&guest.ns, at(any(remote), 0));
            for size in [1, 100, 1400, 1473, 9000, 40_000, largest(remote), 0] {
                assert_eq!(echo(&client, at(remote, 7000), &server, size), host);
            }
        }
    });
}

#[test]
fn remote_and_host_reach_a_forwarded_port() {
    // [CLI-6] [COMPAT-17] [COMPAT-25] [COMPAT-84]
    Lab::run(|lab| {
        let guest = lab.guest("-u 5353:53 -t none -T none -U none");
        for (host, remote) in [(HOST4, [REMOTE4, GATEWAY4]), (HOST6, [REMOTE6, GATEWAY6])] {
            let server = udp(&guest.ns, at(any(host), 53));
            let client = udp(&lab.remote, at(any(host), 0));
            for size in [1, 1400, 9000, largest(host), 0] {
                let seen = echo(&client, at(host, 5353), &server, size);
                assert!(remote.contains(&seen), "{seen}");
            }
            let client = udp(&lab.host(), at(any(host), 0));
            echo(&client, at(host, 5353), &server, 100);
            let loopback = if host.is_ipv4() { LO4 } else { LO6 };
            let client = udp(&lab.host(), at(loopback, 0));
            echo(&client, at(loopback, 5353), &server, 100);
        }
    });
}

#[test]
fn largest_datagrams_arrive() {
    // [UDP-16] [L2-11] Longer than the guest's MTU.
    Lab::run(|lab| {
        let guest = lab.guest("-u 5353 -t none -T none -U none");
        for host in [HOST4, HOST6] {
            let server = udp(&guest.ns, at(any(host), 5353));
            let client = udp(&lab.remote, at(any(host), 0));
            let data = pattern(65_507);
            client.send_to(&data, at(host, 5353)).unwrap();
            let mut got = vec![0; 65_536];
            let (len, _) = server.recv_from(&mut got).expect("the server receives");
            assert!(got[..len] == data, "{host}: {len} bytes");
        }
    });
}

#[test]
fn gateway_stands_for_the_hosts_loopback() {
    // [NL-10] [ADDR-6]
    Lab::run(|lab| {
        let guest = lab.guest("-t none -u none -T none -U none");
        for (gateway, loopback) in [(GATEWAY4, LO4), (GATEWAY6, LO6)] {
            let server = udp(&lab.host(), at(loopback, 7000));
            let client = udp(&guest.ns, at(any(gateway), 0));
            assert_eq!(echo(&client, at(gateway, 7000), &server, 1000), loopback);
        }
    });
}

#[test]
fn loopback_is_joined_from_inside() {
    // [CLI table -U] [COMPAT-59]
    Lab::run(|lab| {
        let guest = lab.guest("-U 9001:9000 -t none -u none -T none");
        for loopback in [LO4, LO6] {
            let server = udp(&lab.host(), at(loopback, 9000));
            let client = udp(&guest.ns, at(loopback, 0));
            echo(&client, at(loopback, 9001), &server, 1000);
        }
    });
}

#[test]
fn many_peers_of_one_socket_stay_apart() {
    // [UDP-1] [UDP-17]
    Lab::run(|lab| {
        let guest = lab.guest("-t none -u none -T none -U none");
        let client = udp(&guest.ns, at(any(REMOTE4), 0));
        let servers: Vec<_> = (7000..7050).map(|p| (p, udp(&lab.remote, at(REMOTE4, p)))).collect();
        for _ in 0..2 {
            for (port, server) in &servers {
                echo(&client, at(REMOTE4, *port), server, 100);
            }
        }
    });
}

#[test]
fn closed_port_is_reported_to_the_guest() {
    // Port unreachable becomes an error on the guest's connected socket.
    Lab::run(|lab| {
        let guest = lab.guest("-t none -u none -T none -U none");
        for remote in [REMOTE4, REMOTE6] {
            let client = udp(&guest.ns, at(any(remote), 0));
            client.connect(at(remote, 7999)).unwrap();
            client.send(b"anybody?").unwrap();
            let error = client.recv(&mut [0; 16]).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{remote}: {error}");
        }
    });
}

#[test]
fn peers_are_refused_where_the_guests_socket_is_gone() {
    // [UDP-12] By the host's kernel, as if the socket had been there. Others are not concerned.
    Lab::run(|lab| {
        let guest = lab.guest("-t none -u none -T none -U none");
        for (remote, host) in [(REMOTE4, HOST4), (REMOTE6, HOST6)] {
            let (one, two) = (at(remote, 7000), at(remote, 7001));
            let server = udp(&lab.remote, two);
            let other = udp(&guest.ns, at(any(remote), 5001));
            // The port can be used again.
            for _ in 0..2 {
                let peer = udp(&lab.remote, one);
                let client = udp(&guest.ns, at(any(remote), 5000));
                assert_eq!(echo(&client, one, &peer, 100), host);
                assert_eq!(echo(&client, two, &server, 100), host);
                assert_eq!(echo(&other, two, &server, 100), host);
                drop(client);
                refused(&peer, at(host, 5000));
                echo(&other, two, &server, 100);
            }
        }
    });
}

/// Sends until the port is said to be closed.
#[track_caller]
pub(crate) fn refused(socket: &std::net::UdpSocket, to: std::net::SocketAddr) {
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    eventually("the port is closed", SOON, || {
        let answer = socket.send(b"late").and_then(|_| socket.recv(&mut [0; 16]));
        answer.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
    });
}

#[test]
fn a_closed_port_of_the_guest_harms_nobody() {
    // [UDP-12] What the guest says about a forwarded one cannot be passed on; once open, it works.
    Lab::run(|lab| {
        let guest = lab.guest("-u 5353 -t none -T none -U none");
        for host in [HOST4, HOST6] {
            let client = udp(&lab.remote, at(any(host), 0));
            client.connect(at(host, 5353)).unwrap();
            client.send(b"anybody?").unwrap();
            client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let error = client.recv(&mut [0; 16]).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
            client.set_read_timeout(Some(SOON)).unwrap();
            let server = udp(&guest.ns, at(any(host), 5353));
            echo(&client, at(host, 5353), &server, 100);
        }
    });
}

#[test]
fn datagrams_in_vain_leave_no_messages() {
    // [UDP-19]
    Lab::run(|lab| {
        crate::lab::ip_batch(
            "",
            "route add unreachable 10.9.2.0/24\nroute add prohibit 10.9.3.0/24",
        );
        let guest = lab.guest("-t none -u none -T none -U none");
        let before = guest.pasta.stderr();
        let client = udp(&guest.ns, at(any(HOST4), 0));
        for n in 1..=100 {
            for net in [2, 3] {
                client.send_to(b"hello", at(IpAddr::from([10, 9, net, n]), 7000)).ok();
            }
            client.send_to(b"hello", at(REMOTE4, 20_000 + u16::from(n))).ok();
        }
        let server = udp(&lab.remote, at(REMOTE4, 7000));
        let client = udp(&guest.ns, at(any(HOST4), 0));
        echo(&client, at(REMOTE4, 7000), &server, 100);
        assert_eq!(guest.pasta.stderr(), before);
    });
}

#[test]
fn pings_are_answered() {
    // [COMPAT-60] [NS-4]
    Lab::run(|lab| {
        let range = if unprivileged() { "0 0" } else { "0 65534" };
        lab.host().sysctl("net/ipv4/ping_group_range", range);
        let guest = lab.guest("-t none -u none -T none -U none");
        for target in [REMOTE4, REMOTE6, GATEWAY4, GATEWAY6] {
            let out = guest.run(&format!("ping -n -c 3 -i 0.05 -W 3 {target}"));
            assert!(out.contains("3 received"), "{out}");
        }
        for target in [REMOTE4, REMOTE6] {
            for size in [0, 1, 1472, 1473, 20_000, 60_000] {
                let out = guest.run(&format!("ping -n -c 2 -i 0.05 -W 3 -s {size} {target}"));
                assert!(out.contains("2 received"), "{size}: {out}");
            }
        }
    });
}

#[test]
fn protocols_can_be_switched_off() {
    // [CLI table --no-udp --no-icmp --no-ndp] [ICMP-9] [NDP-1]
    Lab::run(|lab| {
        let range = if unprivileged() { "0 0" } else { "0 65534" };
        lab.host().sysctl("net/ipv4/ping_group_range", range);
        let ping = |guest: &Guest, target| {
            let line = format!("-n -c 1 -W 1 {target}");
            let mut command = guest.command("ping");
            output_within(command.args(line.split_whitespace()), SOON).status.success()
        };
        let datagram = |guest: &Guest, wait| {
            let server = udp(&lab.remote, at(REMOTE4, 7000));
            server.set_read_timeout(Some(wait)).unwrap();
            let client = udp(&guest.ns, at(any(REMOTE4), 0));
            client.send_to(b"there", at(REMOTE4, 7000)).unwrap();
            server.recv(&mut [0; 16]).is_ok()
        };
        let guest = lab.guest("--no-udp");
        assert!(!datagram(&guest, Duration::from_millis(300)));
        assert!(ping(&guest, REMOTE4) && ping(&guest, REMOTE6));
        let guest = lab.guest("--no-icmp");
        assert!(datagram(&guest, SOON));
        // Without neighbour discovery there is no IPv6 either.
        assert!(!ping(&guest, REMOTE4) && !ping(&guest, REMOTE6));
        let guest = lab.guest("--no-ndp");
        assert!(ping(&guest, REMOTE4) && !ping(&guest, REMOTE6));
    });
}

#[test]
fn socket_bound_to_every_address_serves_both_families() {
    Lab::run(|lab| {
        let guest = lab.guest("-u 5353 -t none -T none -U none");
        let server = udp(&guest.ns, at(ANY6, 5353));
        for host in [HOST4, HOST6] {
            let client = udp(&lab.remote, at(any(host), 0));
            echo(&client, at(host, 5353), &server, 100);
        }
    });
}
