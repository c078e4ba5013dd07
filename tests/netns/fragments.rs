//! Datagrams that are longer than the guest's MTU, in every direction and on every kind of link.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::sys::signal::Signal;

use crate::lab::{HOST4, HOST6, Lab, REMOTE4, REMOTE6, SOON, at, output_within, unprivileged};
use crate::machine::Raw;
use crate::net::{pattern, udp};
use crate::ns::Ns;
use crate::stream::talking;
use crate::udp::echo;

/// Lengths of payloads: with and without need of fragments, also with a last one of a few bytes.
const SIZES: [usize; 7] = [1, 1452, 1473, 1480, 2953, 4000, 65_000];

fn any(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// Packets that a namespace put together, of both families.
fn reassembled(ns: &Ns) -> (u64, u64) {
    let read = |name| ns.enter(|| fs::read_to_string(format!("/proc/thread-self/net/{name}")));
    let snmp = read("snmp").unwrap();
    let mut lines = snmp.lines().filter(|l| l.starts_with("Ip:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let place = names.split_whitespace().position(|n| n == "ReasmOKs").unwrap();
    let four = values.split_whitespace().nth(place).unwrap().parse().unwrap();
    let snmp6 = read("snmp6").unwrap();
    let line = snmp6.lines().find(|l| l.starts_with("Ip6ReasmOKs")).unwrap();
    (four, line.split_whitespace().nth(1).unwrap().parse().unwrap())
}

/// Datagrams and pings of the guest, and datagrams for it, which come back.
fn all_ways(lab: &Lab, guest: &Ns) {
    for (remote, host) in [(REMOTE4, HOST4), (REMOTE6, HOST6)] {
        let before = reassembled(guest);
        let server = udp(&lab.remote, at(remote, 7000));
        let client = udp(guest, at(any(remote), 0));
        for size in SIZES {
            assert_eq!(echo(&client, at(remote, 7000), &server, size), host);
        }
        let server = udp(guest, at(host, 53));
        let client = udp(&lab.remote, at(remote, 0));
        for size in SIZES {
            echo(&client, at(host, 8053), &server, size);
        }
        for size in [1400, 1473, 4000, 65_000] {
            let mut ping = guest.command("ping");
            ping.args(["-n", "-c", "1", "-W", "5", "-s", &size.to_string()]);
            let out = output_within(ping.arg(remote.to_string()), SOON).ok();
            assert!(out.contains(" 1 received"), "{out}");
        }
        let after = reassembled(guest);
        let (now, then) = if remote.is_ipv4() { (after.0, before.0) } else { (after.1, before.1) };
        // Five long sizes each way, three long pings.
        assert_eq!(now - then, 5 + 5 + 3, "the guest gets fragments: {remote}");
    }
}

fn allow_pings(lab: &Lab) {
    let range = if unprivileged() { "0 0" } else { "0 65534" };
    lab.host().sysctl("net/ipv4/ping_group_range", range);
}

// [L2-4] [L2-6] [L2-11] [ICMP-3] [ICMP-4] A tap device with all offloads, and without any.

#[test]
fn long_datagrams_cross_the_tap_device() {
    Lab::run(|lab| {
        allow_pings(lab);
        let guest = lab.guest("-m 1500 -u 8053:53 -t none -T none -U none");
        all_ways(lab, &guest.ns);
    });
}

#[test]
fn long_datagrams_cross_a_tap_device_without_offloads() {
    Lab::run(|lab| {
        allow_pings(lab);
        let guest = lab.guest("-m 1500 --offload none -u 8053:53 -t none -T none -U none");
        all_ways(lab, &guest.ns);
    });
}

#[test]
fn long_datagrams_cross_the_stream_socket() {
    // [L2-4] [L2-6] [L2-11] [UDP-16]
    Lab::run(|lab| {
        allow_pings(lab);
        let (_passt, socket) = lab.passt("-m 1500 -u 8053:53");
        let mut guest = lab.machine("vm", 1500);
        guest.plug(&socket);
        all_ways(lab, &guest.ns);
    });
}

#[test]
fn the_longest_datagram_crosses_the_stream_socket() {
    // [UDP-16] [L2-1] Longer than a frame may be on the stream.
    Lab::run(|lab| {
        let (_passt, socket) = lab.passt("-u 8053:53");
        let mut guest = lab.machine("vm", 65520);
        guest.plug(&socket);
        for (remote, host) in [(REMOTE4, HOST4), (REMOTE6, HOST6)] {
            let server = udp(&guest.ns, at(host, 53));
            let client = udp(&lab.remote, at(remote, 0));
            echo(&client, at(host, 8053), &server, 65_507);
        }
    });
}

/// An IPv4 frame of the guest with a part of a datagram.
fn frame4(id: u8, word: u16, data: &[u8]) -> Vec<u8> {
    let (IpAddr::V4(guest), IpAddr::V4(remote)) = (HOST4, REMOTE4) else { unreachable!() };
    let len = u16::try_from(data.len() + 20).unwrap().to_be_bytes();
    let [w0, w1] = word.to_be_bytes();
    let head = [0x45, 0, len[0], len[1], 0, id, w0, w1, 64, 17, 0, 0];
    let mac: &[u8] = &[2, 0, 0, 0, 0, 9, 8, 0];
    [&[0xff; 6], mac, &head, &guest.octets(), &remote.octets(), data].concat()
}

/// An IPv6 frame of the guest with these headers and data.
fn frame6(next: u8, data: &[u8]) -> Vec<u8> {
    let (IpAddr::V6(guest), IpAddr::V6(remote)) = (HOST6, REMOTE6) else { unreachable!() };
    let len = u16::try_from(data.len()).unwrap().to_be_bytes();
    let head = [0x60, 0, 0, 0, len[0], len[1], next, 64];
    let mac: &[u8] = &[2, 0, 0, 0, 0, 9, 0x86, 0xdd];
    [&[0xff; 6], mac, &head, &guest.octets(), &remote.octets(), data].concat()
}

/// A UDP datagram from port 2000 to 7000, without checksum.
fn datagram(payload: &[u8]) -> Vec<u8> {
    let [l0, l1] = u16::try_from(payload.len() + 8).unwrap().to_be_bytes();
    [&[7, 208, 27, 88, l0, l1, 0, 0], payload].concat()
}

#[test]
fn fragments_that_do_not_fit_make_no_datagram() {
    // [L2-4] [L2-3] and each loss has a name
    Lab::run(|lab| {
        let (mut passt, socket) = talking(lab, "--debug");
        let server = udp(&lab.remote, at(REMOTE4, 7000));
        let mut guest = Raw::connect(&socket);
        let payload = pattern(2992);
        let whole = datagram(&payload);
        let part = |id, from: usize, to: usize| {
            let more = if to < whole.len() { 0x2000 } else { 0 };
            frame4(id, u16::try_from(from / 8).unwrap() | more, &whole[from..to])
        };
        let mut got = [0; 4000];
        let mut expect = |what: &str| {
            let len = server.recv(&mut got).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert!(got[..len] == payload, "{what}");
        };
        for (from, to) in [(2000, 3000), (0, 1000), (1000, 2000)] {
            guest.send(&part(1, from, to));
        }
        expect("any order");
        for (from, to) in [(0, 1000), (0, 1000), (2000, 3000), (1000, 2000)] {
            guest.send(&part(2, from, to));
        }
        expect("twice the same");
        // It would be complete, but for the overlap.
        for (from, to) in [(0, 1000), (992, 2000), (2000, 3000)] {
            guest.send(&part(3, from, to));
        }
        guest.send(&frame4(4, 0x2000, &[0; 15]));
        guest.send(&frame4(5, 0x1fff, &[0; 100]));
        for n in 0..65 {
            guest.send(&part(100 + n, 0, 1000));
        }
        for (from, to) in [(0, 1000), (1000, 3000)] {
            guest.send(&part(6, from, to));
        }
        expect("the one behind all those");
        assert!(guest.is_served(64));
        passt.signal(Signal::SIGTERM);
        assert_eq!(passt.wait(SOON).code(), Some(0));
        let said = passt.stderr();
        for line in ["fragment-duplicate 1", "fragment-overlap 1", "bad-fragment 2"] {
            assert!(said.contains(&format!("dropped: {line}\n")), "{line}: {said}");
        }
        // What was left of the overlap, one of the many, and the last.
        assert!(said.contains("dropped: fragment-limit 3\n"), "{said}");
    });
}

#[test]
fn extension_headers_are_passed_over() {
    // [L2-6] Hop-by-hop and destination options, a route at its end, a fragment header.
    Lab::run(|lab| {
        let (mut passt, socket) = talking(lab, "--debug");
        let server = udp(&lab.remote, at(REMOTE6, 7000));
        let mut guest = Raw::connect(&socket);
        let options = |next| [next, 0, 1, 4, 0, 0, 0, 0];
        let route = |left| [60, 0, 0, left, 0, 0, 0, 0];
        let chain = |left, payload: &[u8]| {
            let udp = datagram(payload);
            [&options(43)[..], &route(left), &options(17), &udp].concat()
        };
        let mut got = [0; 4000];
        guest.send(&frame6(0, &chain(0, b"whole")));
        let (len, from) = server.recv_from(&mut got).expect("whole");
        assert_eq!((&got[..len], from.port()), (&b"whole"[..], 2000));
        guest.send(&frame6(0, &chain(1, b"on its way")));
        // Two fragments, the transport header behind options in the first.
        let mut udp = datagram(&pattern(2000));
        let sum = checksum(&udp);
        udp[6..8].copy_from_slice(&sum.to_be_bytes());
        let data = [&options(17)[..], &udp].concat();
        for (word, part) in [(1u16, &data[..1000]), (1000, &data[1000..])] {
            let [w0, w1] = word.to_be_bytes();
            let frame = [&options(44)[..], &[60, 0, w0, w1, 0, 0, 0, 7], part].concat();
            guest.send(&frame6(0, &frame));
        }
        let (len, from) = server.recv_from(&mut got).expect("in fragments");
        assert!(got[..len] == pattern(2000) && from.port() == 2000, "{len} bytes from {from}");
        passt.signal(Signal::SIGTERM);
        assert_eq!(passt.wait(SOON).code(), Some(0));
        let said = passt.stderr();
        assert!(said.contains("dropped: ipv6-extension-header 1\n"), "{said}");
    });
}

/// The checksum of a UDP datagram between guest and remote.
fn checksum(udp: &[u8]) -> u16 {
    let (IpAddr::V6(guest), IpAddr::V6(remote)) = (HOST6, REMOTE6) else { unreachable!() };
    let len = u16::try_from(udp.len()).unwrap().to_be_bytes();
    let all = [&guest.octets()[..], &remote.octets(), &len, &[0, 17], udp].concat();
    let sum = all.chunks(2).fold(0u32, |sum, pair| {
        let sum = sum + (u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
        (sum & 0xffff) + (sum >> 16)
    });
    !u16::try_from(sum).unwrap()
}
