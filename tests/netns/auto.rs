//! Ports that follow the other side (`auto`).

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::lab::{HOST4, HOST6, Lab, SOON, at, eventually, output_within};
use crate::net::{connect, listen, pass, roundtrip, try_connect, udp};
use crate::ns::Ns;
use crate::udp::{echo, refused};

const LO4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LO6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// By then a new listener is noticed, on a machine that has other things to do, too.
const NOTICED: Duration = Duration::from_secs(3);

/// True if connections are accepted there.
fn is_open(ns: &Ns, to: SocketAddr) -> bool {
    match try_connect(ns, to) {
        Ok(_) => true,
        // By somebody who finds nobody behind.
        Err(e) if e.kind() == ErrorKind::ConnectionReset => true,
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::ConnectionRefused, "{to}: {e}");
            false
        }
    }
}

/// Takes the connections of [`is_open`].
fn drain(server: &TcpListener) {
    std::thread::sleep(Duration::from_millis(100));
    while server.accept().is_ok() {}
}

/// Sends datagrams until one arrives and is answered: the port may still be closed.
#[track_caller]
fn ask(client: &UdpSocket, to: SocketAddr, server: &UdpSocket) {
    for socket in [client, server] {
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    }
    eventually("a datagram is answered", NOTICED, || {
        client.send_to(b"?", to).ok();
        let Ok((_, peer)) = server.recv_from(&mut [0; 9]) else { return false };
        server.send_to(b"!", peer).unwrap();
        client.recv(&mut [0; 9]).is_ok()
    });
}

#[track_caller]
fn becomes(open: bool, ns: &Ns, to: SocketAddr) {
    let what = format!("{to} becomes {}", if open { "open" } else { "closed" });
    eventually(&what, NOTICED, || is_open(ns, to) == open);
}

#[test]
fn listeners_in_the_namespace_appear_on_the_host() {
    // [FWD-19] [FWD-22] [NS-16]
    Lab::run(|lab| {
        let guest = lab.guest("-t auto -u none -T none -U none");
        let to = at(HOST4, 9100);
        assert!(!is_open(&lab.remote, to));
        let server = listen(&guest.ns, at(ANY6, 9100));
        becomes(true, &lab.remote, to);
        drain(&server);
        let (mut near, mut far) = roundtrip(&lab.remote, to, &server);
        let (mut near6, mut far6) = roundtrip(&lab.host(), at(LO6, 9100), &server);
        drop(server);
        becomes(false, &lab.remote, to);
        assert!(!is_open(&lab.host(), at(LO6, 9100)));
        // What was connected stays so.
        pass(&mut near, &mut far, b"still there");
        pass(&mut near6, &mut far6, b"still there");
        let server = listen(&guest.ns, at(HOST4, 9100));
        becomes(true, &lab.remote, to);
        drop(server);
    });
}

#[test]
fn listeners_of_the_host_appear_in_the_namespace() {
    // [FWD-17] [FWD-19] [FWD-22]
    Lab::run(|lab| {
        let guest = lab.guest("-t none -u none -T auto -U none");
        assert!(!is_open(&guest.ns, at(LO4, 9100)));
        let server = listen(&lab.host(), at(ANY6, 9100));
        becomes(true, &guest.ns, at(LO4, 9100));
        drain(&server);
        let (mut near, mut far) = roundtrip(&guest.ns, at(LO6, 9100), &server);
        drop(server);
        becomes(false, &guest.ns, at(LO4, 9100));
        pass(&mut near, &mut far, b"still there");
    });
}

#[test]
fn bound_before_the_start() {
    // [FWD-24]: they are there as soon as we are
    Lab::run(|lab| {
        let ns = lab.new_netns("one");
        let server = listen(&ns, at(ANY6, 9100));
        let host = listen(&lab.host(), at(ANY6, 9200));
        let _pasta = lab.attach("--config-net -u none -U none --netns one");
        roundtrip(&lab.remote, at(HOST4, 9100), &server);
        roundtrip(&ns, at(LO4, 9200), &host);
    });
}

#[test]
fn all_four_by_default() {
    // [PORT-4]
    Lab::run(|lab| {
        let guest = lab.guest("");
        let (inside, outside) =
            (listen(&guest.ns, at(ANY6, 9100)), listen(&lab.host(), at(ANY6, 9200)));
        becomes(true, &lab.remote, at(HOST6, 9100));
        becomes(true, &guest.ns, at(LO6, 9200));
        let (inside_udp, outside_udp) =
            (udp(&guest.ns, at(ANY4, 9101)), udp(&lab.host(), at(ANY4, 9201)));
        ask(&udp(&lab.host(), at(LO4, 0)), at(LO4, 9101), &inside_udp);
        ask(&udp(&guest.ns, at(LO4, 0)), at(LO4, 9201), &outside_udp);
        drop((inside, outside));
    });
}

#[test]
fn udp_follows_tcp() {
    // [FWD-20]: iperf3 and others agree over TCP on what they do with UDP
    Lab::run(|lab| {
        let guest = lab.guest("-t none -u auto -T none -U none");
        let _control = listen(&guest.ns, at(ANY6, 9100));
        eventually("the port is open", NOTICED, || {
            lab.host().enter(|| UdpSocket::bind("0.0.0.0:9100").is_err())
        });
        let server = udp(&guest.ns, at(ANY4, 9100));
        let client = udp(&lab.remote, at(ANY4, 0));
        echo(&client, at(HOST4, 9100), &server, 100);
    });
}

#[test]
fn the_port_that_counts_is_the_one_it_leads_to() {
    // [FWD-23]
    Lab::run(|lab| {
        let guest = lab.guest("-t 9100:9200,9200:9100,auto -u none -T none -U none");
        let _server = listen(&guest.ns, at(ANY6, 9200));
        becomes(true, &lab.host(), at(HOST4, 9100));
        assert!(!is_open(&lab.host(), at(HOST4, 9200)));
    });
}

#[test]
fn nothing_keeps_itself_alive() {
    // [FWD-21]: what we hold on one side is no reason to hold it on the other
    Lab::run(|lab| {
        let guest = lab.guest("");
        for (server, client) in [(&lab.host(), &guest.ns), (&guest.ns, &lab.host())] {
            let real = listen(server, at(ANY6, 9300));
            becomes(true, client, at(LO4, 9300));
            std::thread::sleep(Duration::from_millis(1200));
            // Nobody else has the port on the side of the server, of either protocol.
            drop(udp(server, at(ANY4, 9300)));
            drop(real);
            becomes(false, client, at(LO4, 9300));
            drop(listen(server, at(ANY6, 9300)));
        }
    });
}

#[test]
fn a_port_that_is_taken_is_had_later() {
    // [FWD-22] [PORT-6]
    Lab::run(|lab| {
        let guest = lab.guest("-t auto -u none -T none -U none");
        let other = listen(&lab.host(), at(ANY6, 9400));
        let _server = listen(&guest.ns, at(ANY6, 9400));
        let second = listen(&guest.ns, at(ANY6, 9401));
        becomes(true, &lab.remote, at(HOST4, 9401));
        drop((other, second));
        becomes(false, &lab.remote, at(HOST4, 9401));
        becomes(true, &lab.remote, at(HOST4, 9400));
    });
}

#[test]
fn datagrams_after_the_port_was_gone() {
    // The flow of a client goes with the socket that its answers left through, and comes again.
    Lab::run(|lab| {
        let guest = lab.guest("-t none -u auto -T none -U none");
        let client = udp(&lab.host(), at(LO4, 0));
        for _ in 0..2 {
            let server = udp(&guest.ns, at(ANY4, 9500));
            ask(&client, at(LO4, 9500), &server);
            drop(server);
            eventually("the port is free", NOTICED, || {
                lab.host().enter(|| UdpSocket::bind("0.0.0.0:9500").is_ok())
            });
        }
    });
}

#[test]
fn clients_of_a_port_that_was_closed_are_refused() {
    // [UDP-12] [FWD-19] Also those that go on sending.
    Lab::run(|lab| {
        let guest = lab.guest("-t none -u auto -T none -U none");
        for (any, host) in [(ANY4, HOST4), (ANY6, HOST6)] {
            let client = udp(&lab.remote, at(any, 0));
            let server = udp(&guest.ns, at(any, 9600));
            ask(&client, at(host, 9600), &server);
            drop(server);
            refused(&client, at(host, 9600));
        }
    });
}

#[test]
fn real_programs() {
    // [FWD-20]
    Lab::run(|lab| {
        let guest = lab.guest("");
        let mut server = guest.command("iperf3");
        server.args(["-s", "-p", "9600"]).stdout(std::process::Stdio::null());
        let _server = crate::lab::Helper(server.spawn().unwrap());
        becomes(true, &lab.host(), at(LO4, 9600));
        for extra in ["-u", "-R", "-uR"] {
            let mut client = lab.host().command("iperf3");
            client.args(["-c", "127.0.0.1", "-p", "9600", "-t", "1", extra]);
            let mut ended = output_within(&mut client, SOON);
            let start = Instant::now();
            // The server may still be busy with the probe, or the UDP port not open yet.
            while !ended.status.success() && start.elapsed() < SOON {
                ended = output_within(&mut client, SOON);
            }
            ended.ok();
        }
    });
}

#[test]
fn connections_that_come_with_the_end() {
    // A listener that goes does not take the process with it.
    Lab::run(|lab| {
        let mut guest = lab.guest("");
        for _ in 0..3 {
            let server = listen(&guest.ns, at(ANY6, 9700));
            becomes(true, &lab.host(), at(LO4, 9700));
            let _clients: Vec<_> = (0..20).map(|_| connect(&lab.host(), at(LO4, 9700))).collect();
            drop(server);
            becomes(false, &lab.host(), at(LO4, 9700));
        }
        assert!(guest.pasta.alive());
        guest.pasta.signal(Signal::SIGTERM);
        assert!(guest.pasta.wait(SOON).success());
    });
}
