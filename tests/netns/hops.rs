//! What routers say about datagrams, on a path with two of them: it has to reach the guest.
//!
//! ```text
//!   host  10.9.0.2  <---->  remote  10.9.1.1  <-- MTU 1400 -->  far  10.9.1.2
//!   2001:db8:9::2                   2001:db8:a::1                    2001:db8:a::2
//! ```

use std::io::IoSliceMut;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, recvmsg, setsockopt, sockopt,
};

use crate::lab::{
    GATEWAY4, GATEWAY6, HOST4, HOST6, Lab, REMOTE4, REMOTE6, SOON, at, eventually, ip, ip_batch,
    output_within, unprivileged,
};
use crate::net::{pattern, udp};
use crate::ns::Ns;
use crate::pasta::Guest;

const FAR4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 1, 2));
const FAR6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 2));
const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Lengths of the largest datagrams on the narrow link, without headers.
const FITS4: usize = 1400 - 28;
const FITS6: usize = 1400 - 48;

/// A network behind `remote`, which becomes a router.
fn far(lab: &Lab) -> Ns {
    let far = lab.new_netns("far");
    ip("link add hop0 netns remote mtu 1400 type veth peer name far0 netns far mtu 1400");
    ip_batch(
        "remote",
        "addr add 10.9.1.1/24 dev hop0
         addr add 2001:db8:a::1/64 dev hop0 nodad
         link set hop0 up",
    );
    ip_batch(
        "far",
        "addr add 10.9.1.2/24 dev far0
         addr add 2001:db8:a::2/64 dev far0 nodad
         link set far0 up
         route add default via 10.9.1.1
         route add ::/0 via 2001:db8:a::1",
    );
    lab.remote.sysctl("net/ipv4/ip_forward", "1");
    lab.remote.sysctl("net/ipv6/conf/all/forwarding", "1");
    for ns in [&lab.remote, &far] {
        // Errors are rare by default.
        ns.sysctl("net/ipv4/icmp_ratelimit", "0");
        ns.sysctl("net/ipv6/icmp/ratelimit", "0");
    }
    far
}

/// A socket of the guest that is told of errors.
fn prober(guest: &Guest, to: IpAddr, port: u16) -> UdpSocket {
    let socket = udp(&guest.ns, at(if to.is_ipv4() { ANY4 } else { ANY6 }, 0));
    if to.is_ipv4() {
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true).unwrap();
    } else {
        setsockopt(&socket, sockopt::Ipv6RecvErr, &true).unwrap();
    }
    socket.connect(at(to, port)).unwrap();
    socket
}

/// An error as the guest's kernel has it.
#[derive(Debug)]
struct Told {
    kind: u8,
    code: u8,
    offender: Option<IpAddr>,
    quoted: Vec<u8>,
}

/// Waits for an error of a socket.
#[track_caller]
fn told(socket: &UdpSocket) -> Told {
    let mut found = None;
    eventually("an error", SOON, || {
        let mut payload = [0; 2000];
        let mut iov = [IoSliceMut::new(&mut payload)];
        let mut room = nix::cmsg_space!([u8; 64]);
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let Ok(got) = recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut room), flags) else {
            return false;
        };
        let v4 = |a: libc::sockaddr_in| IpAddr::V4(SockaddrIn::from(a).ip());
        let v6 = |a: libc::sockaddr_in6| IpAddr::V6(SockaddrIn6::from(a).ip());
        let error = got.cmsgs().unwrap().find_map(|c| match c {
            ControlMessageOwned::Ipv4RecvErr(e, from) => Some((e, from.map(v4))),
            ControlMessageOwned::Ipv6RecvErr(e, from) => Some((e, from.map(v6))),
            _ => None,
        });
        let len = got.bytes;
        let (e, offender) = error.expect("an extended error");
        let quoted = payload[..len].to_vec();
        found = Some(Told { kind: e.ee_type, code: e.ee_code, offender, quoted });
        true
    });
    found.unwrap()
}

fn set_ttl(socket: &UdpSocket, v4: bool, ttl: u8) {
    if v4 {
        socket.set_ttl(ttl.into()).unwrap();
    } else {
        setsockopt(socket, sockopt::Ipv6Ttl, &ttl.into()).unwrap();
    }
}

// [UDP-11] A guest that traces the path to a host sees the router, and then the host.
#[test]
fn the_path_can_be_traced() {
    Lab::run(|lab| {
        let _far = far(lab);
        let guest = lab.guest("-t none -u none -T none -U none");
        for (to, router) in [(FAR4, [GATEWAY4, REMOTE4]), (FAR6, [GATEWAY6, REMOTE6])] {
            let v4 = to.is_ipv4();
            let socket = prober(&guest, to, 33_434);
            set_ttl(&socket, v4, 1);
            socket.send(b"who is there?").unwrap();
            let hop = told(&socket);
            assert_eq!((hop.kind, hop.code), if v4 { (11, 0) } else { (3, 0) }, "{hop:?}");
            assert!(router.contains(&hop.offender.unwrap()), "{hop:?}");
            assert_eq!(hop.quoted, b"who is there?");
            set_ttl(&socket, v4, 2);
            while socket.send(b"and there?").is_err() {}
            let end = told(&socket);
            assert_eq!((end.kind, end.code), if v4 { (3, 3) } else { (1, 4) }, "{end:?}");
            assert_eq!(end.offender, Some(to));
        }
    });
}

/// How a socket of the guest treats what is too long: `libc::IP_PMTUDISC_*`.
fn set_discovery(socket: &UdpSocket, v4: bool, how: libc::c_int) {
    option(socket, v4, (libc::IP_MTU_DISCOVER, libc::IPV6_MTU_DISCOVER), Some(how));
}

/// What the guest's kernel believes that the path takes.
fn path_mtu(socket: &UdpSocket, v4: bool) -> i32 {
    option(socket, v4, (libc::IP_MTU, libc::IPV6_MTU), None)
}

/// Sets an option, by its names for the families, or reads it.
fn option(socket: &UdpSocket, v4: bool, names: (i32, i32), set: Option<i32>) -> i32 {
    let (level, name) =
        if v4 { (libc::IPPROTO_IP, names.0) } else { (libc::IPPROTO_IPV6, names.1) };
    let (mut value, mut len) = (set.unwrap_or(0), 4);
    let (fd, at) = (socket.as_raw_fd(), &raw mut value);
    // SAFETY: the kernel reads or writes one int, and its length, both of which live until it
    // returns.
    let r = unsafe {
        match set {
            Some(_) => libc::setsockopt(fd, level, name, at.cast(), 4),
            None => libc::getsockopt(fd, level, name, at.cast(), &raw mut len),
        }
    };
    assert_eq!(r, 0, "{}", std::io::Error::last_os_error());
    value
}

/// Where a report about a link of 1400 bytes may come from.
const ROUTERS: [IpAddr; 4] = [GATEWAY4, REMOTE4, GATEWAY6, REMOTE6];

// [UDP-11] [UDP-8] [L2-4] A datagram too long for a link further on, from a program that does not
// mind: its kernel hears of it, cuts what follows, and everything arrives.
#[test]
fn longer_than_the_path_takes() {
    Lab::run(|lab| {
        let far = far(lab);
        let guest = lab.guest("-m 1500 -t none -u none -T none -U none");
        for (to, fits) in [(FAR4, FITS4), (FAR6, FITS6)] {
            let server = udp(&far, at(to, 7000));
            server.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let socket = udp(&guest.ns, at(if to.is_ipv4() { ANY4 } else { ANY6 }, 0));
            socket.connect(at(to, 7000)).unwrap();
            let mut got = [0; 5000];
            for len in [fits + 40, fits, 4000] {
                eventually("a long datagram arrives", SOON, || {
                    let _ = socket.send(&vec![1; len]);
                    server.recv(&mut got).is_ok_and(|n| n == len)
                });
                for _ in 0..20 {
                    socket.send(&vec![1; len]).unwrap();
                    assert_eq!(server.recv(&mut got).expect("it arrives"), len);
                }
            }
            assert_eq!(path_mtu(&socket, to.is_ipv4()), 1400);
        }
    });
}

// [UDP-11] [UDP-8] From programs that want to know: both ways of discovery see what the path takes,
// every time, and from whom. Nothing is cut behind their back.
#[test]
fn path_mtu_is_discovered() {
    Lab::run(|lab| {
        let far = far(lab);
        for mtu in [1500, 65_520] {
            let guest = lab.guest(&format!("-m {mtu} -t none -u none -T none -U none"));
            for (to, fits) in [(FAR4, FITS4), (FAR6, FITS6)] {
                let v4 = to.is_ipv4();
                let server = udp(&far, at(to, 7000));
                let kind = if v4 { (3, 4) } else { (2, 0) };
                for how in [libc::IP_PMTUDISC_PROBE, libc::IP_PMTUDISC_DO] {
                    // Of a flow that is new, and of one that is not.
                    let socket = prober(&guest, to, 7000);
                    set_discovery(&socket, v4, how);
                    for _ in 0..3 {
                        if socket.send(&vec![1; fits + 1]).is_err() {
                            // The guest's kernel knows, and says so by itself.
                            assert_eq!(how, libc::IP_PMTUDISC_DO);
                            continue;
                        }
                        let error = told(&socket);
                        assert_eq!((error.kind, error.code), kind, "{error:?}");
                        assert!(ROUTERS.contains(&error.offender.unwrap()), "{error:?}");
                    }
                    while socket.send(&vec![2; fits]).is_err() {}
                    let mut got = [0; 2000];
                    let len = server.recv(&mut got).expect("what fits arrives");
                    assert_eq!((len, got[0]), (fits, 2), "and nothing else did");
                    assert_eq!(path_mtu(&socket, v4), 1400);
                }
            }
        }
    });
}

// [ICMP-3] [ICMP-8] Likewise for pings.
#[test]
fn pings_discover_the_path_mtu() {
    Lab::run(|lab| {
        let range = if unprivileged() { "0 0" } else { "0 65534" };
        lab.host().sysctl("net/ipv4/ping_group_range", range);
        let _far = far(lab);
        let guest = lab.guest("-m 1500 -t none -u none -T none -U none");
        for (to, fits) in [(FAR4, FITS4), (FAR6, FITS6)] {
            let ping = |options: &str| {
                let line = format!("-n -c 1 -W 5 {options} {to}");
                output_within(guest.command("ping").args(line.split_whitespace()), SOON).stdout
            };
            let out = ping(&format!("-M do -s {fits}"));
            assert!(out.contains(" 1 received"), "{out}");
            let out = ping(&format!("-M do -s {}", fits + 1));
            assert!(out.contains("mtu") && out.contains("1400"), "{out}");
            let out = ping("-M want -s 4000");
            assert!(out.contains(" 1 received"), "{out}");
        }
    });
}

// [UDP-11] The other way round: what comes from beyond the narrow link, and its answer.
#[test]
fn long_datagrams_from_beyond_a_narrow_link() {
    Lab::run(|lab| {
        let far = far(lab);
        let guest = lab.guest("-m 1500 -u 8053:53 -t none -T none -U none");
        for (from, host) in [(FAR4, HOST4), (FAR6, HOST6)] {
            let server = udp(&guest.ns, at(host, 53));
            let client = udp(&far, at(from, 0));
            let data = pattern(4000);
            let mut got = [0; 5000];
            let mut peer = None;
            for socket in [&client, &server] {
                socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            }
            // The first ones may be lost: nobody knew.
            eventually("the guest receives", SOON, || {
                client.send_to(&data, at(host, 8053)).unwrap();
                peer = server.recv_from(&mut got).ok().map(|(len, peer)| {
                    assert!(got[..len] == data, "{len} bytes");
                    peer
                });
                peer.is_some()
            });
            let peer = peer.unwrap();
            eventually("an answer arrives", SOON, || {
                let _ = server.send_to(&data, peer);
                client.recv(&mut got).is_ok_and(|n| got[..n] == data)
            });
        }
    });
}

// [UDP-11] [ICMP-8] [UDP-8] What the usual programs show: one router and the host, and what the path
// takes.
#[test]
fn programs_trace_the_path() {
    Lab::run(|lab| {
        let range = if unprivileged() { "0 0" } else { "0 65534" };
        lab.host().sysctl("net/ipv4/ping_group_range", range);
        let _far = far(lab);
        for mtu in [1500, 65_520] {
            let guest = lab.guest(&format!("-m {mtu} -t none -u none -T none -U none"));
            for (to, routers) in [(FAR4, [GATEWAY4, REMOTE4]), (FAR6, [GATEWAY6, REMOTE6])] {
                for kind in ["", "-I", "-T"] {
                    let out = guest.run(&format!("traceroute -n -q 2 -w 3 {kind} {to}"));
                    let hops: Vec<_> = out.lines().skip(1).collect();
                    let [first, second] = hops[..] else { panic!("{out}") };
                    let router = |r: &IpAddr| first.contains(&format!(" {r} "));
                    assert!(routers.iter().any(router) && !first.contains('*'), "{out}");
                    let last = second.contains(&format!(" {to} "));
                    assert!(last && !second.contains('*'), "{out}");
                }
                let out = guest.run(&format!("tracepath -n {to}"));
                let hop = |n: u8, who: &IpAddr| {
                    let begins = format!("{n}:");
                    let mut lines = out.lines().map(str::trim_start);
                    lines.any(|l| l.starts_with(&begins) && l.contains(&format!(" {who} ")))
                };
                assert!(routers.iter().any(|r| hop(1, r)) && hop(2, &to), "{out}");
                assert!(out.contains("Resume: pmtu 1400 hops 2"), "{out}");
            }
        }
    });
}

// [UDP-11] No way to a network, and no such host: from whom the guest hears it.
#[test]
fn routers_and_the_host_know_no_way() {
    Lab::run(|lab| {
        let _far = far(lab);
        ip_batch("remote", "route add unreachable 10.9.2.0/24\nroute add prohibit 10.9.3.0/24");
        let guest = lab.guest("-t none -u none -T none -U none");
        for (to, code) in [([10, 9, 2, 1], 1), ([10, 9, 3, 1], 13)] {
            let socket = prober(&guest, IpAddr::from(to), 7000);
            socket.send(b"hello").unwrap();
            let error = told(&socket);
            assert_eq!((error.kind, error.code), (3, code), "{error:?}");
            assert!([GATEWAY4, REMOTE4].contains(&error.offender.unwrap()), "{error:?}");
        }
        // Nobody has this address; the host finds out by itself.
        let socket = prober(&guest, IpAddr::from([10, 9, 0, 77]), 7000);
        socket.send(b"hello").unwrap();
        let error = told(&socket);
        assert_eq!((error.kind, error.code), (3, 1), "{error:?}");
    });
}

// [ICMP-8] [ICMP-3] A ping that gets no further is told so by the router.
#[test]
fn pings_hear_of_routers() {
    Lab::run(|lab| {
        let range = if unprivileged() { "0 0" } else { "0 65534" };
        lab.host().sysctl("net/ipv4/ping_group_range", range);
        let _far = far(lab);
        let guest = lab.guest("-t none -u none -T none -U none");
        for (to, words) in [(FAR4, "Time to live exceeded"), (FAR6, "Time exceeded: Hop limit")] {
            let line = format!("-n -c 1 -W 5 -t 1 {to}");
            let mut command = guest.command("ping");
            let out = output_within(command.args(line.split_whitespace()), SOON);
            assert!(out.stdout.contains(words), "{}", out.stdout);
            let out = guest.run(&format!("ping -n -c 1 -W 5 -t 2 {to}"));
            assert!(out.contains("1 received"), "{out}");
        }
    });
}
