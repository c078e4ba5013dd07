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
    GATEWAY4, GATEWAY6, Lab, REMOTE4, REMOTE6, SOON, at, eventually, ip, ip_batch, output_within,
    unprivileged,
};
use crate::net::udp;
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

// [UDP-11] A datagram too long for a link further on: the host learns what fits, and cuts what
// follows.
#[test]
fn longer_than_the_path_takes() {
    Lab::run(|lab| {
        let far = far(lab);
        let guest = lab.guest("-m 1500 -t none -u none -T none -U none");
        for (to, fits) in [(FAR4, FITS4), (FAR6, FITS6)] {
            let server = udp(&far, at(to, 7000));
            server.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let socket = prober(&guest, to, 7000);
            let mut got = [0; 2000];
            eventually("a long datagram arrives", SOON, || {
                socket.send(&vec![1; fits + 40]).unwrap();
                server.recv(&mut got).is_ok_and(|n| n == fits + 40)
            });
            // The guest goes on as before, and does not begin to cut.
            for _ in 0..20 {
                socket.send(&vec![1; fits + 40]).unwrap();
                assert_eq!(server.recv(&mut got).expect("it arrives"), fits + 40);
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
