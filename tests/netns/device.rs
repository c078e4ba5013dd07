//! The tap device under pasta: down, gone, with frames as long as they get, and with more of them
//! than one turn of the loop takes.

use std::net::{IpAddr, Ipv6Addr};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::lab::{HOST4, Lab, REMOTE4, REMOTE6, SOON, at, eventually, ip};
use crate::net::{accept, connect, listen, pass, pattern, roundtrip, udp};
use crate::pasta::{Guest, QUIET};
use crate::udp::{any, echo};

const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// As a client in the guest that configures it would.
fn bring_up(guest: &Guest) {
    guest.run("ip link set up0 up");
    guest.run(&format!("ip route replace default via {REMOTE4} dev up0"));
}

#[test]
fn what_comes_while_the_device_is_down_is_lost_and_nothing_else() {
    // [TAP-12] [L2-13] before it was ever up, and when it is taken down
    Lab::run(|lab| {
        let mut guest = lab.guest_raw(lab.command("-t 8080:80 -u 8053:53 -T none -U none"));
        let server = listen(&guest.ns, at(ANY6, 80));
        let sink = udp(&guest.ns, at(ANY6, 53));
        let client = udp(&lab.remote, at(REMOTE4, 0));
        // The host accepts it, and the guest will when it can.
        let mut early = connect(&lab.remote, at(HOST4, 8080));
        for n in 0..100 {
            client.send_to(&[n], at(HOST4, 8053)).unwrap();
        }
        thread::sleep(Duration::from_millis(300));
        let busy = guest.pasta.cpu();
        thread::sleep(Duration::from_millis(500));
        assert!(guest.pasta.alive());
        assert!(guest.pasta.cpu() - busy < Duration::from_millis(100), "spins on a device");

        guest.run(&format!("ip addr add {HOST4}/24 dev up0"));
        bring_up(&guest);
        let mut far = accept(&server);
        pass(&mut early, &mut far, b"patience");
        client.send_to(b"late", at(HOST4, 8053)).unwrap();
        let mut got = [0; 10];
        assert_eq!((sink.recv(&mut got).unwrap(), &got[..4]), (4, &b"late"[..]), "others are lost");

        guest.run("ip link set up0 down");
        client.send_to(b"lost", at(HOST4, 8053)).unwrap();
        std::io::Write::write_all(&mut early, b"waits").unwrap();
        thread::sleep(Duration::from_millis(300));
        bring_up(&guest);
        let mut word = [0; 5];
        std::io::Read::read_exact(&mut far, &mut word).unwrap();
        assert_eq!(&word, b"waits");
        client.send_to(b"more", at(HOST4, 8053)).unwrap();
        assert_eq!((sink.recv(&mut got).unwrap(), &got[..4]), (4, &b"more"[..]));
    });
}

#[test]
fn the_end_of_the_device_is_ours() {
    // [TAP-11] [L2-13] status 1, and why
    Lab::run(|lab| {
        let mut guest = lab.guest(QUIET);
        guest.run("ip link del up0");
        assert_eq!(guest.pasta.wait(SOON).code(), Some(1));

        let (_ns, pid) = (lab.new_netns("one"), lab.fresh("pid"));
        let mut command = lab.command(&format!("-f --config-net {QUIET} --netns one --pid"));
        command.arg(&pid);
        let mut pasta = lab.foreground(command);
        eventually("it is ready", SOON, || std::fs::read(&pid).is_ok_and(|text| !text.is_empty()));
        ip("-n one link del up0");
        assert_eq!(pasta.wait(SOON).code(), Some(1));
        let said = pasta.stderr();
        assert!(said.contains("the guest's link is gone"), "{said}");
    });
}

#[test]
fn the_longest_frames_are_whole() {
    // [TAP-11] 65535 bytes with the Ethernet header, in both directions
    Lab::run(|lab| {
        let guest = lab.guest(&format!("-m 65521 {QUIET}"));
        for (remote, headers) in [(REMOTE4, 28), (REMOTE6, 48)] {
            let server = udp(&lab.remote, at(remote, 7000));
            let client = udp(&guest.ns, at(any(remote), 0));
            echo(&client, at(remote, 7000), &server, 65_521 - headers);
        }
    });
}

#[test]
fn more_at_once_than_a_turn_takes() {
    // [TAP-11] [LIFE-13] [LIFE-14] frames, and sockets with something to read: whatever has come is
    // served, without anything else that happens
    const FLOWS: usize = 200;
    Lab::run(|lab| {
        let guest = lab.guest(QUIET);
        let server = udp(&lab.remote, at(REMOTE4, 7000));
        let clients: Vec<_> = (0..FLOWS).map(|_| udp(&guest.ns, at(any(HOST4), 0))).collect();
        // No frames but ours: no groups, no routers, and the router's Ethernet address is known.
        guest.ns.sysctl("net/ipv6/conf/up0/disable_ipv6", "1");
        echo(&udp(&guest.ns, at(any(HOST4), 0)), at(REMOTE4, 7000), &server, 1);
        // It is asked for again after five seconds.
        server.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        guest.pasta.signal(Signal::SIGSTOP);
        for (n, client) in clients.iter().enumerate() {
            client.send_to(&pattern(n), at(REMOTE4, 7000)).unwrap();
        }
        guest.pasta.signal(Signal::SIGCONT);
        let mut buf = [0; 1000];
        let peers: Vec<_> = (0..FLOWS).map(|_| server.recv_from(&mut buf).unwrap()).collect();
        guest.pasta.signal(Signal::SIGSTOP);
        for (n, peer) in &peers {
            server.send_to(&pattern(n + 1), peer).unwrap();
        }
        guest.pasta.signal(Signal::SIGCONT);
        for (n, client) in clients.iter().enumerate() {
            assert_eq!(client.recv(&mut buf).expect("an answer"), n + 1);
        }
        // Nothing is left over, and nobody looks for it again and again.
        let busy = guest.pasta.cpu();
        thread::sleep(Duration::from_millis(500));
        assert!(guest.pasta.cpu() - busy < Duration::from_millis(100));
        let tcp = listen(&lab.remote, at(REMOTE4, 7000));
        roundtrip(&guest.ns, at(REMOTE4, 7000), &tcp);
    });
}
