//! passt while nobody is at the other end of its socket, and what it learns from who comes then.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::lab::{HOST4, Lab, REMOTE4, SOON, at, eventually};
use crate::machine::{Raw, arp};
use crate::net::{accept, connect, listen, udp};
use crate::stream::talking;

#[test]
fn without_a_guest_datagrams_are_discarded_and_connections_wait() {
    // [TAP-5] [L2-12] nothing piles up, nobody spins, and all goes on at once with a guest
    Lab::run(|lab| {
        let (mut passt, socket) = lab.passt("-t 8080:80 -u 8053:53");
        let client = udp(&lab.remote, at(REMOTE4, 0));
        let mut early = connect(&lab.remote, at(HOST4, 8080));
        early.write_all(b"patience").unwrap();
        // Past its first retransmissions, so that the next one is two seconds away or more.
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(3200) {
            client.send_to(b"early", at(HOST4, 8053)).unwrap();
            thread::sleep(Duration::from_millis(1));
        }
        let busy = passt.cpu();
        thread::sleep(Duration::from_millis(500));
        assert!(passt.alive());
        assert!(passt.cpu() - busy < Duration::from_millis(100), "spins without a guest");

        let mut guest = lab.machine("vm", 1500);
        let server = listen(&guest.ns, at(HOST4, 80));
        let sink = udp(&guest.ns, at(HOST4, 53));
        guest.plug(&socket);
        let start = Instant::now();
        let mut far = accept(&server);
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        let mut got = [0; 8];
        far.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"patience");
        client.send_to(b"late", at(HOST4, 8053)).unwrap();
        let n = sink.recv(&mut got).unwrap();
        assert_eq!(&got[..n], b"late", "others were not kept");
    });
}

#[test]
fn a_guest_that_hangs_up_makes_room_for_the_next() {
    // [TAP-10] though it keeps its descriptor, and whether all it sent was read or not
    Lab::run(|lab| {
        let (mut passt, socket) = talking(lab, "");
        for (how, unread) in
            [(Shutdown::Write, false), (Shutdown::Both, false), (Shutdown::Both, true)]
        {
            let mut guest = Raw::connect(&socket);
            assert!(guest.is_served(64));
            // More than a turn of the loop takes: the next guest is there before its end is seen.
            for _ in 0..if unread { 100 } else { 0 } {
                guest.send(&arp());
            }
            guest.0.shutdown(how).unwrap();
            if how == Shutdown::Write {
                while guest.receive().is_some() {}
            }
            let mut next = Raw::connect(&socket);
            assert!(next.is_served(64), "after {how:?}");
            while guest.receive().is_some() {}
        }
        assert!(passt.stderr().contains("guest: connection closed"), "{}", passt.stderr());
        assert!(passt.alive());
    });
}

/// A packet of the guest from this address, of a protocol that nobody carries.
fn packet_from(src: IpAddr) -> Vec<u8> {
    let mut frame = [&[0xff; 6], &[2, 0, 0, 0, 0, 9][..]].concat();
    match src {
        IpAddr::V4(src) => {
            frame.extend([8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 253, 0, 0]);
            frame.extend(src.octets());
            frame.extend([10, 9, 0, 3]);
        }
        IpAddr::V6(src) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 253, 64]);
            frame.extend(src.octets());
            frame.extend([0x20, 1, 0xd, 0xb8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
        }
    }
    frame.extend([0; 8]);
    frame
}

#[test]
fn addresses_are_learned_unless_they_were_given() {
    // [TAP-15] [ADDR-8] by what forwarded connections lead to
    Lab::run(|lab| {
        let others: [IpAddr; 2] = ["10.9.0.77".parse().unwrap(), "2001:db8:9::77".parse().unwrap()];
        for (options, learned) in [("", true), ("-a 10.9.0.50 -a 2001:db8:9::50", false)] {
            let (mut passt, socket) = lab.passt(&format!("-t 8080:80 {options}"));
            let mut guest = Raw::connect(&socket);
            for other in others {
                guest.send(&packet_from(other));
                assert!(guest.is_served(64));
                let host = if other.is_ipv4() { HOST4 } else { crate::lab::HOST6 };
                let _client = connect(&lab.remote, at(host, 8080));
                let reached = loop {
                    let frame = guest.receive().expect("a SYN");
                    match &frame[12..] {
                        [8, 0, ip @ ..] if ip[9] == 6 => break ip[19],
                        [0x86, 0xdd, ip @ ..] if ip[6] == 6 => break ip[39],
                        _ => {}
                    }
                };
                let expected = match (learned, other.is_ipv4()) {
                    (true, true) => 77,
                    (true, false) => 0x77,
                    (false, true) => 50,
                    (false, false) => 0x50,
                };
                assert_eq!(reached, expected, "{options} {other}");
            }
            passt.signal(Signal::SIGTERM);
            passt.wait(SOON);
            eventually("the ports are free", SOON, || !passt.alive());
        }
    });
}
