//! TCP connections in every direction, and how they end.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use crate::lab::{
    GATEWAY4, GATEWAY6, HOST4, HOST6, Lab, REMOTE4, REMOTE6, SOON, at, output_within,
};
use crate::net::{accept, connect, listen, pattern, roundtrip, try_connect};
use crate::pasta::{QUIET, timed};

const LO4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LO6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Closes a connection with a reset.
fn reset(stream: TcpStream) {
    let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&stream, sockopt::Linger, &at_once).unwrap();
}

#[test]
fn guest_reaches_remote_servers_as_the_host() {
    // [TCP-13] [COMPAT-84]: the remote server sees the host's address
    Lab::run(|lab| {
        let guest = lab.guest(QUIET);
        for (server, host) in [(REMOTE4, HOST4), (REMOTE6, HOST6)] {
            let listener = listen(&lab.remote, at(server, 7000));
            let (near, far) = roundtrip(&guest.ns, at(server, 7000), &listener);
            assert_eq!(far.peer_addr().unwrap().ip(), host);
            assert_eq!(near.peer_addr().unwrap(), at(server, 7000));
        }
    });
}

#[test]
fn remote_and_host_reach_a_forwarded_port() {
    // [CLI-6] [CLI-7] [COMPAT-17] [COMPAT-20] [COMPAT-25] [COMPAT-84]
    Lab::run(|lab| {
        let guest = lab.guest("-t 8080:80 -u none -T none -U none");
        let server = listen(&guest.ns, at(ANY6, 80));
        for (host, remote) in [(HOST4, REMOTE4), (HOST6, REMOTE6)] {
            let to = at(host, 8080);
            let (_near, far) = roundtrip(&lab.remote, to, &server);
            let seen = far.peer_addr().unwrap().ip().to_canonical();
            // The remote end has two addresses; the kernel chose either.
            let expected = [remote, if remote.is_ipv4() { GATEWAY4 } else { GATEWAY6 }];
            assert!(expected.contains(&seen), "{seen}");
            roundtrip(&lab.host(), to, &server);
        }
        for loopback in [LO4, LO6] {
            roundtrip(&lab.host(), at(loopback, 8080), &server);
        }
    });
}

#[test]
fn forwarded_ranges_and_addresses() {
    // [CLI-6] [COMPAT-17] [COMPAT-18]
    Lab::run(|lab| {
        let guest = lab.guest(
            "-t 9000-9002:9100-9102 -t 127.0.0.1/8081:81 -t [::1]/8082:82 -t 10.9.0.2/8083 \
             -u none -T none -U none",
        );
        for (to, inside) in [
            (at(HOST4, 9000), 9100),
            (at(HOST4, 9002), 9102),
            (at(LO4, 8081), 81),
            (at(LO6, 8082), 82),
            (at(HOST4, 8083), 8083),
        ] {
            let server = listen(&guest.ns, at(ANY6, inside));
            roundtrip(&lab.host(), to, &server);
        }
        for closed in [at(HOST4, 8081), at(LO4, 8082), at(LO4, 8083), at(HOST4, 9003)] {
            let refused = try_connect(&lab.host(), closed).expect_err("not forwarded").kind();
            assert_eq!(refused, ErrorKind::ConnectionRefused, "{closed}");
        }
    });
}

#[test]
fn forwarded_exclusions_targets_and_interfaces() {
    // [PORT-1] [PORT-2] [FWD-4] [FWD-14] [FWD-15]
    Lab::run(|lab| {
        let guest = lab.guest(
            "-t ~1-8999,~9003-65535 -t 0.0.0.0/8081:10.9.0.77/81 -t %up0/8082:82 -t %lo/8082:83 \
             -u none -T none -U none",
        );
        let add = ["addr", "add", "10.9.0.77/32", "dev", "lo"];
        output_within(guest.ns.command("ip").args(add), SOON).ok();
        for (from, to, inside) in [
            (lab.host(), at(LO4, 9000), at(ANY6, 9000)),
            (lab.remote.clone(), at(HOST6, 9002), at(ANY6, 9002)),
            (lab.remote.clone(), at(HOST4, 8081), at("10.9.0.77".parse().unwrap(), 81)),
            (lab.remote.clone(), at(HOST4, 8082), at(ANY6, 82)),
            (lab.host(), at(LO4, 8082), at(ANY6, 83)),
        ] {
            let server = listen(&guest.ns, inside);
            roundtrip(&from, to, &server);
        }
        for closed in [at(HOST4, 8999), at(HOST4, 9003)] {
            let refused = try_connect(&lab.host(), closed).expect_err("not forwarded").kind();
            assert_eq!(refused, ErrorKind::ConnectionRefused, "{closed}");
        }
    });
}

#[test]
fn all_ports_but_those_in_use() {
    // [PORT-2] [PORT-6] [FWD-15] As many as there are descriptors for; a taken one is left out.
    Lab::run(|lab| {
        let _taken = listen(&lab.host(), at(ANY6, 1));
        let guest = lab.guest("-t all -u none -T none -U none");
        for port in [2, 80, 1000] {
            let server = listen(&guest.ns, at(ANY6, port));
            roundtrip(&lab.remote, at(HOST4, port), &server);
        }
    });
}

#[test]
fn gateway_stands_for_the_hosts_loopback() {
    // [NL-10] [ADDR-6]
    Lab::run(|lab| {
        let guest = lab.guest(QUIET);
        for (gateway, loopback) in [(GATEWAY4, LO4), (GATEWAY6, LO6)] {
            let server = listen(&lab.host(), at(loopback, 7000));
            let (_, far) = roundtrip(&guest.ns, at(gateway, 7000), &server);
            assert_eq!(far.peer_addr().unwrap().ip(), loopback);
        }
    });
}

#[test]
fn gateway_mapping_can_be_switched_off() {
    // [NL-10] [COMPAT-57]
    Lab::run(|lab| {
        let guest = lab.guest(&format!("--no-map-gw {QUIET}"));
        for (gateway, loopback) in [(GATEWAY4, LO4), (GATEWAY6, LO6)] {
            let _wrong = listen(&lab.host(), at(loopback, 7000));
            let right = listen(&lab.remote, at(gateway, 7000));
            roundtrip(&guest.ns, at(gateway, 7000), &right);
        }
    });
}

#[test]
fn host_loopback_can_be_mapped_elsewhere() {
    // [NL-10] [COMPAT-57]
    Lab::run(|lab| {
        let options = "--map-host-loopback 10.9.0.77 --map-host-loopback 2001:db8:9::77";
        let guest = lab.guest(&format!("{options} {QUIET}"));
        for (mapped, loopback) in [("10.9.0.77", LO4), ("2001:db8:9::77", LO6)] {
            let server = listen(&lab.host(), at(loopback, 7000));
            roundtrip(&guest.ns, at(mapped.parse().unwrap(), 7000), &server);
        }
        let at_gateway = listen(&lab.remote, at(GATEWAY4, 7000));
        roundtrip(&guest.ns, at(GATEWAY4, 7000), &at_gateway);
    });
}

#[test]
fn guest_address_of_the_host_can_be_mapped() {
    // [FWD-2] [FWD-6] [COMPAT-57]: --map-guest-addr reaches what is bound to the host's own
    // address, and is what the guest sees of the host when that is where a connection comes from
    Lab::run(|lab| {
        let mapped = "--map-guest-addr 169.254.1.2 --map-guest-addr fd00::2";
        let guest = lab.guest(&format!("{mapped} -t 8080 -u none -T none -U none"));
        let inside = listen(&guest.ns, at(ANY6, 8080));
        for (mapped, host) in [("169.254.1.2", HOST4), ("fd00::2", HOST6)] {
            let mapped: IpAddr = mapped.parse().unwrap();
            let server = listen(&lab.host(), at(host, 7000));
            let (near, far) = roundtrip(&guest.ns, at(mapped, 7000), &server);
            assert_eq!(near.peer_addr().unwrap().ip(), mapped);
            assert_eq!(far.peer_addr().unwrap().ip(), host);
            let (_, far) = roundtrip(&lab.host(), at(host, 8080), &inside);
            assert_eq!(far.peer_addr().unwrap().ip().to_canonical(), mapped);
        }
    });
}

#[test]
fn refused_connections_fail_at_once() {
    // [TCP-14]
    Lab::run(|lab| {
        let guest = lab.guest(QUIET);
        for server in [REMOTE4, REMOTE6, GATEWAY4, GATEWAY6] {
            let (error, took) = timed(|| try_connect(&guest.ns, at(server, 7999)).unwrap_err());
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{server}");
            assert!(took < Duration::from_secs(1), "{server}: {took:?}");
        }
    });
}

#[test]
fn unreachable_destinations_fail_at_once() {
    // [TCP-14]
    Lab::run(|lab| {
        lab.remote.sysctl("net/ipv4/ip_forward", "1");
        lab.remote.sysctl("net/ipv6/conf/all/forwarding", "1");
        let guest = lab.guest(QUIET);
        for nowhere in ["203.0.113.1:80", "[2001:db8:dead::1]:80"] {
            let (error, took) =
                timed(|| try_connect(&guest.ns, nowhere.parse().unwrap()).unwrap_err());
            // The guest is told what happened, not that somebody refused [W-10].
            let told = [ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable];
            assert!(told.contains(&error.kind()), "{nowhere}: {error}");
            assert!(took < Duration::from_secs(3), "{nowhere}: {error}, {took:?}");
        }
    });
}

#[test]
fn refusal_by_the_guest_reaches_the_client() {
    // [TCP-22] [TCP-24]
    Lab::run(|lab| {
        let _guest = lab.guest("-t 8080 -u none -T none -U none");
        for host in [HOST4, HOST6] {
            let (end, took) = timed(|| {
                let mut client = try_connect(&lab.remote, at(host, 8080))?;
                client.read(&mut [0])
            });
            assert!(matches!(end, Err(ref e) if e.kind() == ErrorKind::ConnectionReset), "{end:?}");
            assert!(took < Duration::from_secs(1), "{took:?}");
        }
    });
}

#[test]
fn silent_guest_is_waited_for_as_the_host_would() {
    // [TCP-23]: three seconds, or seven before Linux 6.5; with the defaults longer than the client waits
    Lab::run(|lab| {
        lab.host().sysctl("net/ipv4/tcp_syn_retries", "1");
        if Path::new("/proc/sys/net/ipv4/tcp_syn_linear_timeouts").exists() {
            lab.host().sysctl("net/ipv4/tcp_syn_linear_timeouts", "0");
        }
        let guest = lab.guest("-t 7000 -u none -T none -U none");
        for remote in [REMOTE4, GATEWAY4] {
            guest.run(&format!("ip route add blackhole {remote}"));
        }
        let mut client = connect(&lab.remote, at(HOST4, 7000));
        let (end, took) = timed(|| client.read(&mut [0]));
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!(took > Duration::from_secs(2) && took < Duration::from_secs(9), "{took:?}");
    });
}

#[test]
fn either_end_may_close_its_half_first() {
    // [TCP-77] [TCP-78] [TCP-79] [COMPAT-26]: then a megabyte still goes the other way.
    Lab::run(|lab| {
        let guest = lab.guest("-t 8080 -u none -T none -U none");
        let data = pattern(1 << 20);
        let inside = listen(&guest.ns, at(ANY6, 8080));
        for (server, host) in [(REMOTE4, HOST4), (REMOTE6, HOST6)] {
            let outside = listen(&lab.remote, at(server, 7000));
            let (g1, r1) = roundtrip(&guest.ns, at(server, 7000), &outside);
            let (g2, r2) = roundtrip(&guest.ns, at(server, 7000), &outside);
            let (r3, g3) = roundtrip(&lab.remote, at(host, 8080), &inside);
            let (r4, g4) = roundtrip(&lab.remote, at(host, 8080), &inside);
            let pairs = [
                ("guest client", g1, r1),
                ("remote server", r2, g2),
                ("guest server", g3, r3),
                ("remote client", r4, g4),
            ];
            for (who, mut first, mut other) in pairs {
                first.shutdown(Shutdown::Write).unwrap();
                assert_eq!(other.read(&mut [0]).unwrap(), 0, "end of stream");
                thread::scope(|scope| {
                    let data = &data;
                    scope.spawn(move || {
                        other.write_all(data).unwrap();
                        drop(other);
                    });
                    let mut got = Vec::new();
                    let end = first.read_to_end(&mut got);
                    assert!(
                        end.is_ok() && got == *data,
                        "{who} closed first: {end:?}, {} bytes arrived",
                        got.len()
                    );
                });
            }
        }
    });
}

#[test]
fn resets_are_passed_on() {
    // [TCP-4] [TCP-84] [TCP-82]
    Lab::run(|lab| {
        let guest = lab.guest("-t 8080 -u none -T none -U none");
        let outside = listen(&lab.remote, at(REMOTE4, 7000));
        let inside = listen(&guest.ns, at(ANY4, 8080));
        let (g1, r1) = roundtrip(&guest.ns, at(REMOTE4, 7000), &outside);
        let (g2, r2) = roundtrip(&guest.ns, at(REMOTE4, 7000), &outside);
        let (r3, g3) = roundtrip(&lab.remote, at(HOST4, 8080), &inside);
        let (r4, g4) = roundtrip(&lab.remote, at(HOST4, 8080), &inside);
        let pairs = [
            ("guest client", g1, r1),
            ("remote server", r2, g2),
            ("guest server", g3, r3),
            ("remote client", r4, g4),
        ];
        for (who, killer, mut victim) in pairs {
            reset(killer);
            let end = victim.read(&mut [0]);
            assert!(
                matches!(end, Err(ref e) if e.kind() == ErrorKind::ConnectionReset),
                "{who} resets: {end:?}"
            );
        }
    });
}

#[test]
fn urgent_order_of_close_and_data_is_kept() {
    // [TCP-78] [TCP-82]: data written just before close arrives, in both directions.
    Lab::run(|lab| {
        let guest = lab.guest(QUIET);
        let listener = listen(&lab.remote, at(REMOTE4, 7000));
        let data = pattern(300_000);
        for from_guest in [true, false] {
            let near = connect(&guest.ns, at(REMOTE4, 7000));
            let far = accept(&listener);
            let (mut from, mut to) = if from_guest { (near, far) } else { (far, near) };
            thread::scope(|scope| {
                let data = &data;
                scope.spawn(move || from.write_all(data).unwrap());
                let mut got = Vec::new();
                to.read_to_end(&mut got).unwrap();
                assert!(got == *data, "{} bytes arrived", got.len());
            });
        }
    });
}

#[test]
fn thousand_connections_one_after_the_other() {
    // No flow is leaked and no port is lost on the way.
    Lab::run(|lab| {
        let guest = lab.guest(QUIET);
        let listener = listen(&lab.remote, at(REMOTE4, 7000));
        for _ in 0..1000 {
            roundtrip(&guest.ns, at(REMOTE4, 7000), &listener);
        }
    });
}

#[test]
fn protocol_can_be_switched_off() {
    // [CLI table --no-tcp] [UDP-15]: nothing of it passes, the others do
    Lab::run(|lab| {
        let guest = lab.guest("--no-tcp");
        let _listener = listen(&lab.remote, at(REMOTE4, 7000));
        let stream = guest
            .ns
            .enter(|| TcpStream::connect_timeout(&at(REMOTE4, 7000), Duration::from_millis(300)));
        assert!(stream.is_err());
        let server = crate::net::udp(&lab.remote, at(REMOTE4, 7000));
        let client = crate::net::udp(&guest.ns, at(ANY4, 0));
        client.send_to(b"there", at(REMOTE4, 7000)).unwrap();
        assert_eq!(server.recv(&mut [0; 16]).unwrap(), 5);
    });
}

#[test]
fn urgent_data_stays_in_the_stream() {
    // [TCP-8] What follows an urgent byte is neither held up nor shifted.
    Lab::run(|lab| {
        let guest = lab.guest(QUIET);
        let server = listen(&lab.remote, at(REMOTE4, 7000));
        let mut client = connect(&guest.ns, at(REMOTE4, 7000));
        let mut far = accept(&server);
        for round in 0..20_u8 {
            far.write_all(&[round; 3000]).unwrap();
            nix::sys::socket::send(
                std::os::fd::AsRawFd::as_raw_fd(&far),
                b"!",
                nix::sys::socket::MsgFlags::MSG_OOB,
            )
            .unwrap();
            far.write_all(&[round; 3000]).unwrap();
            let mut got = vec![0; 6001];
            client.read_exact(&mut got).unwrap();
            let mut want = vec![round; 6001];
            want[3000] = b'!';
            assert!(got == want, "round {round}");
        }
    });
}
