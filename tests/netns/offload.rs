//! Every level of offloads on the link; what the best one hides must work as well.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::thread;

use nix::sys::socket::{setsockopt, sockopt};

use crate::lab::{HOST4, HOST6, Lab, REMOTE4, REMOTE6, at, unprivileged};
use crate::net::{listen, pattern, roundtrip, udp};
use crate::udp::echo;

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
const LEN: usize = 50 << 20;

/// Everything from one end has to arrive at the other.
#[track_caller]
fn transfer(mut from: TcpStream, mut to: TcpStream, data: &[u8], what: &str) {
    thread::scope(|scope| {
        scope.spawn(move || {
            // What is missing shows at the other end.
            from.write_all(data).ok();
        });
        let mut got = vec![0; data.len()];
        to.read_exact(&mut got).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(got == data, "{what}: other bytes");
    });
}

/// TCP both ways and both opened, datagrams, trains of datagrams and pings.
fn level(lab: &Lab, options: &str) {
    let range = if unprivileged() { "0 0" } else { "0 65534" };
    lab.host().sysctl("net/ipv4/ping_group_range", range);
    let guest = lab.guest(&format!("{options} -t 8080:80 -u none -T none -U none"));
    let data = pattern(LEN);
    for (remote, data) in [(REMOTE4, &data[..]), (REMOTE6, &data[..LEN / 5])] {
        let listener = listen(&lab.remote, at(remote, 7000));
        let (near, far) = roundtrip(&guest.ns, at(remote, 7000), &listener);
        transfer(near.try_clone().unwrap(), far.try_clone().unwrap(), data, "to the remote");
        transfer(far, near, data, "to the guest");
    }
    let inside = listen(&guest.ns, at(ANY6, 80));
    for host in [HOST4, HOST6] {
        let (near, far) = roundtrip(&lab.remote, at(host, 8080), &inside);
        transfer(near, far, &data[..LEN / 10], "through a forwarded port");
    }
    for (remote, any) in [(REMOTE4, ANY4), (REMOTE6, ANY6)] {
        let server = udp(&lab.remote, at(remote, 7001));
        let client = udp(&guest.ns, at(any, 0));
        for size in [0, 1, 101, 1400] {
            echo(&client, at(remote, 7001), &server, size);
        }
        train(&client, &server);
        let client = udp(&guest.ns, at(any, 0));
        echo(&client, at(remote, 7001), &server, 100);
        server.connect(client_seen(&client, at(remote, 7001), &server)).unwrap();
        train_from(&server, &client);
        plain(&server, &client);
        plain(&client, &server);
        let out = guest.run(&format!("ping -n -c 3 -i 0.05 -W 3 {remote}"));
        assert!(out.contains("3 received"), "{out}");
    }
}

/// A train of datagrams, as QUIC sends them: separate and in order at the server.
#[track_caller]
fn train(client: &UdpSocket, server: &UdpSocket) {
    client.connect(server.local_addr().unwrap()).unwrap();
    train_from(client, server);
}

/// Where a server sees a client.
fn client_seen(client: &UdpSocket, to: SocketAddr, server: &UdpSocket) -> SocketAddr {
    client.connect(to).unwrap();
    client.send(b"me").unwrap();
    server.recv_from(&mut [0; 2]).unwrap().1
}

/// The same between connected sockets.
#[track_caller]
fn train_from(client: &UdpSocket, server: &UdpSocket) {
    setsockopt(client, sockopt::UdpGsoSegment, &1200).unwrap();
    for len in [1200, 1201, 12_000, 12_345, 60_000] {
        let data = pattern(len);
        client.send(&data).unwrap();
        let mut got = [0; 65_536];
        for (n, datagram) in data.chunks(1200).enumerate() {
            let len = server.recv(&mut got).unwrap_or_else(|e| panic!("{n} of {len} bytes: {e}"));
            assert!(got[..len] == *datagram, "datagram {n} of {} bytes is {len} long", data.len());
        }
    }
    setsockopt(client, sockopt::UdpGsoSegment, &0).unwrap();
}

/// Datagrams of equal and other lengths, sent one by one and at once: separate and in order.
#[track_caller]
fn plain(from: &UdpSocket, to: &UdpSocket) {
    let lengths = [[1000; 20], [1400; 20], [0; 20]].concat();
    let lengths = [&lengths[..], &[1400, 1400, 10, 1400, 0, 1450, 1400, 1, 1, 1]].concat();
    for _ in 0..5 {
        for (n, len) in (0u8..).zip(&lengths) {
            from.send(&vec![n; *len]).unwrap();
        }
        let mut got = [0; 65_536];
        for (n, want) in (0u8..).zip(&lengths) {
            let len = to.recv(&mut got).unwrap_or_else(|e| panic!("number {n}: {e}"));
            assert!(got[..len] == vec![n; *want], "number {n}: {len} bytes for {want}");
        }
    }
}

#[test]
fn udp_and_tcp() {
    // [UDP-7] [UDP-8]
    Lab::run(|lab| level(lab, "--offload udp -m 1500"));
}

#[test]
fn tcp_only() {
    // [TCP-62]
    Lab::run(|lab| level(lab, "--offload tcp -m 1500"));
}

#[test]
fn nothing() {
    // [TCP-62] [TCP-88]
    Lab::run(|lab| level(lab, "--offload none -m 1500"));
}

#[test]
fn nothing_with_the_largest_mtu() {
    Lab::run(|lab| level(lab, "--offload none"));
}
