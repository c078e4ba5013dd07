//! Code points of packets, as they arrive at the other end.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, recv,
    setsockopt, socket, sockopt,
};

use crate::lab::{HOST4, HOST6, Lab, REMOTE4, REMOTE6, SOON, at, eventually};
use crate::net::{accept, listen, pass, udp};
use crate::ns::Ns;
use crate::pasta::QUIET;

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
        // The two other bits are the kernel's.
        let mut marks: Vec<_> = self.packets(6, port).iter().map(|(tos, _)| tos & 0xfc).collect();
        marks.dedup();
        marks
    }

    /// Types of service and TTLs of packets of a protocol to a port, since the last look.
    fn packets(&self, protocol: u8, port: u16) -> Vec<(u8, u8)> {
        let mut frame = [0; 200];
        let mut packets = Vec::new();
        while let Ok(len) = recv(self.0.as_raw_fd(), &mut frame, MsgFlags::empty()) {
            let (tos, ttl, it, header) = match (frame[12], frame[13]) {
                (0x08, 0x00) => (frame[15], frame[22], frame[23], 34),
                (0x86, 0xdd) => (frame[14] << 4 | frame[15] >> 4, frame[21], frame[20], 54),
                _ => continue,
            };
            let to_port = frame[header + 2..header + 4] == port.to_be_bytes();
            if len > header && it == protocol && to_port {
                packets.push((tos, ttl));
            }
        }
        packets
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

/// Sends a datagram with this type of service and TTL, and looks how it arrives.
#[track_caller]
fn marked(from: &UdpSocket, to: &UdpSocket, sniffer: &Sniffer, (tos, ttl): (u8, u8)) {
    let to_port = to.local_addr().unwrap().port();
    let v4 = from.peer_addr().unwrap().is_ipv4();
    mark(from, v4, tos);
    if v4 {
        from.set_ttl(ttl.into()).unwrap();
    } else {
        setsockopt(from, sockopt::Ipv6Ttl, &ttl.into()).unwrap();
    }
    sniffer.packets(17, to_port);
    from.send(b"marked").unwrap();
    to.recv(&mut [0; 16]).expect("arrives");
    let mut seen = vec![];
    eventually("a marked datagram", SOON, || {
        seen.extend(sniffer.packets(17, to_port));
        !seen.is_empty()
    });
    assert!(seen.contains(&(tos, ttl)), "{seen:?}, not {tos:#x} and {ttl}");
}

#[test]
fn datagrams_keep_their_marks() {
    // [UDP-8] type of service with congestion notification, and TTL, both ways
    Lab::run(|lab| {
        let guest = lab.guest(QUIET);
        for remote in [REMOTE4, REMOTE6] {
            let (inside, outside) = (Sniffer::new(&guest.ns), Sniffer::new(&lab.remote));
            let server = udp(&lab.remote, at(remote, 7000));
            let unbound: IpAddr = if remote.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
            let client = udp(&guest.ns, at(unbound, 0));
            client.connect(at(remote, 7000)).unwrap();
            client.send(b"me").unwrap();
            let (_, seen) = server.recv_from(&mut [0; 16]).unwrap();
            server.connect(seen).unwrap();
            for marks in [(EF, 37), (AF11 | 1, 9), (2, 200), (0, 64)] {
                marked(&client, &server, &outside, marks);
                marked(&server, &client, &inside, marks);
            }
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
