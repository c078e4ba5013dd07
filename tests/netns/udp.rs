//! Datagrams and pings in every direction.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::lab::{GATEWAY4, GATEWAY6, HOST4, HOST6, Lab, REMOTE4, REMOTE6, at, unprivileged};
use crate::net::{pattern, udp};

const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
const LO4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LO6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// An unbound address of the same family.
fn any(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
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
            for size in [1, 100, 1400, 1473, 9000, 40_000, 0] {
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
            for size in [1, 1400, 9000, 0] {
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
        let out = guest.run(&format!("ping -n -c 2 -i 0.05 -W 3 -s 20000 {REMOTE4}"));
        assert!(out.contains("2 received"), "{out}");
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
