//! Code points of packets, as they arrive at the other end.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, recv,
    setsockopt, socket, sockopt,
};

use crate::bulk::QUIET;
use crate::lab::{HOST4, HOST6, Lab, REMOTE4, REMOTE6, SOON, at, eventually};
use crate::net::{accept, listen, pass};
use crate::ns::Ns;

const EF: u8 = 0xb8;
const AF11: u8 = 0x28;

/// Everything that the interfaces of a namespace receive and send.
struct Sniffer(OwnedFd);

impl Sniffer {
    fn new(ns: &Ns) -> Sniffer {
        let all = SockProtocol::EthAll;
        let open = || socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_NONBLOCK, all);
        Sniffer(ns.enter(open).unwrap())
    }

    /// Types of service or traffic classes of TCP packets to a port, from the first on, of those
    /// that came since the last look; repeated ones are left out.
    fn marks(&self, port: u16) -> Vec<u8> {
        let mut frame = [0; 200];
        let mut marks = Vec::new();
        while let Ok(len) = recv(self.0.as_raw_fd(), &mut frame, MsgFlags::empty()) {
            let (mark, protocol, tcp) = match (frame[12], frame[13]) {
                (0x08, 0x00) => (frame[15], frame[23], 34),
                (0x86, 0xdd) => (frame[14] << 4 | frame[15] >> 4, frame[20], 54),
                _ => continue,
            };
            let to_port = frame[tcp + 2..tcp + 4] == port.to_be_bytes();
            // The two other bits are the kernel's.
            if len > tcp && protocol == 6 && to_port && marks.last() != Some(&(mark & 0xfc)) {
                marks.push(mark & 0xfc);
            }
        }
        marks
    }
}

/// Marks what a socket sends.
fn mark(socket: &impl std::os::fd::AsFd, v4: bool, tos: u8) {
    if v4 {
        setsockopt(socket, sockopt::Ipv4Tos, &tos.into()).unwrap();
    } else {
        setsockopt(socket, sockopt::Ipv6TClass, &tos.into()).unwrap();
    }
}

/// A connection whose SYN is marked already.
fn connect_marked(ns: &Ns, to: SocketAddr, tos: u8) -> TcpStream {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let stream = ns.enter(|| {
        let stream = socket(family, SockType::Stream, SockFlag::empty(), None).unwrap();
        mark(&stream, to.is_ipv4(), tos);
        connect(stream.as_raw_fd(), &SockaddrStorage::from(to)).unwrap();
        TcpStream::from(stream)
    });
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

/// Waits for packets with exactly these marks, one kind after the other.
#[track_caller]
fn expect(sniffer: &Sniffer, port: u16, marks: &[u8]) {
    let mut seen = Vec::new();
    eventually("marked packets", Duration::from_secs(2), || {
        seen.extend(sniffer.marks(port));
        seen.dedup();
        seen.len() >= marks.len()
    });
    assert_eq!(seen, marks);
}

#[test]
fn the_guests_mark_arrives_at_the_remote() {
    // [TCP-87]
    Lab::run(|lab| {
        let guest = lab.guest(QUIET);
        for server in [REMOTE4, REMOTE6] {
            let sniffer = Sniffer::new(&lab.remote);
            let listener = listen(&lab.remote, at(server, 7000));
            let mut near = connect_marked(&guest.ns, at(server, 7000), EF);
            let mut far = accept(&listener);
            pass(&mut near, &mut far, b"marked");
            expect(&sniffer, 7000, &[EF]);
            mark(&near, server.is_ipv4(), AF11);
            pass(&mut near, &mut far, b"otherwise");
            expect(&sniffer, 7000, &[AF11]);
        }
    });
}

#[test]
fn the_peers_mark_arrives_at_the_guest() {
    // [TCP-87] and what the guest then answers with arrives at the peer
    Lab::run(|lab| {
        let guest = lab.guest("-t 8080:80 -u none -T none -U none");
        let listener = listen(&guest.ns, at(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 80));
        for host in [HOST4, HOST6] {
            let inside = Sniffer::new(&guest.ns);
            let mut near = connect_marked(&lab.remote, at(host, 8080), EF);
            let outside = Sniffer::new(&lab.remote);
            let mut far = accept(&listener);
            pass(&mut near, &mut far, b"marked");
            expect(&inside, 80, &[EF]);
            outside.marks(0);
            mark(&far, host.is_ipv4(), AF11);
            pass(&mut far, &mut near, b"answer");
            let port = near.local_addr().unwrap().port();
            eventually("the answer is marked", SOON, || outside.marks(port).contains(&AF11));
        }
    });
}

#[test]
fn a_guest_that_wants_congestion_notification_works() {
    // [TCP-8] its kernel offers it, and goes on without
    Lab::run(|lab| {
        let guest = lab.guest(QUIET);
        guest.ns.sysctl("net/ipv4/tcp_ecn", "1");
        for server in [REMOTE4, REMOTE6] {
            let listener = listen(&lab.remote, at(server, 7000));
            let (near, far) = crate::net::roundtrip(&guest.ns, at(server, 7000), &listener);
            let data = crate::net::pattern(1_000_000);
            for (from, to) in [(&near, &far), (&far, &near)] {
                let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                std::thread::scope(|scope| {
                    scope.spawn(|| crate::far::send_all(from, &data));
                    crate::far::receive_all(to, &data, "with an offer");
                });
            }
        }
    });
}
