//! What the whole translator answers by itself, and says unasked.

use passt::config::{Inward, Lease, Protocols};
use passt::flow::{DropReason, Pool};
use passt::forward::GuestAddrs;
use passt::services::Offered;
use passt::translate::tcp::Timeouts;
use passt::translate::{Now, Setup, Translator};
use passt::wire::Vnet;

use super::inbound::{TO, at};
use super::link::FakeLink;
use super::net::FakeNet;
use super::rng::Rng;
use super::world::GUEST_MAC;

pub const START: u64 = 1_000_000;

type Served = Translator<FakeLink, FakeNet>;

pub fn translator(offered: Offered, lease: Lease, protocols: Protocols) -> Served {
    let setup = Setup {
        services: offered,
        linked: true,
        inward: Inward::Link,
        protocols,
        guest: GuestAddrs::new(&lease, false, false),
        guest_mac: GUEST_MAC,
        key: [7; 16],
        flows: 4,
        pool: Pool::new(1 << 20).unwrap(),
        timeouts: Timeouts::default(),
        idle: passt::translate::udp::Timeouts::default(),
        now: Now(START),
        lease,
    };
    let net = FakeNet { now: START, ..FakeNet::new(Rng::new(1)) };
    Translator::new(setup, FakeLink::new(), net)
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|d| (d[0] << 4 | d[1]) as u8).collect()
}

/// A DISCOVER, to an address of the world as well.
fn discover(dst: &str) -> Vec<u8> {
    let mut f = hex("ffffffffffff 525400123456 0800 4500 0112 0000 0000 40 11 0000 00000000");
    f.extend(hex(dst));
    f.extend(hex("0044 0043 00fe 0000 01010600 11223344"));
    f.resize(14 + 20 + 8 + 236, 0);
    f.extend(hex("63825363 350101 ff 0000"));
    f
}

fn solicit() -> Vec<u8> {
    let mut f = hex("333300010002 525400123456 86dd 60000000 002a 11 01");
    f.extend(hex("fe800000000000005054000000123456 ff020000000000000000000000010002"));
    f.extend(hex("0222 0223 002a 0000 01 123456 0001000a00030001525400123456"));
    f.extend(hex("0003000c 00000001 00000000 00000000"));
    f
}

// [L2-9] [DHCP-1] [DHCP6-1] Requests for servers never leave, wherever they go and whatever is
// forwarded; they are answered if that is wanted.
#[test]
fn requests_for_servers() {
    let off = Offered { dhcp: false, dhcpv6: false, ..Offered::default() };
    let no_udp = Protocols { udp: false, ..Protocols::default() };
    for (offered, protocols, answers) in [
        (Offered::default(), Protocols::default(), 1),
        (Offered::default(), no_udp, 1),
        (off, Protocols::default(), 0),
    ] {
        for frame in [discover("ffffffff"), discover("c6336401"), solicit()] {
            let mut t = translator(offered, Lease::example(), protocols);
            t.on_frame(&Vnet::default(), &frame);
            assert_eq!(t.out.frames.len(), answers);
            assert_eq!(t.drops().get(DropReason::NoService), 1 - answers as u64);
            assert!(t.is_empty());
        }
    }
    let mut t = translator(Offered::default(), Lease::example(), Protocols::default());
    let mut bad = discover("ffffffff");
    bad[42] = 2;
    t.on_frame(&Vnet::default(), &bad);
    assert_eq!((t.out.frames.len(), t.drops().get(DropReason::BadService)), (0, 1));
}

// [NDP-8] Again and again, at intervals that differ, to all nodes; the first one after an interval.
#[test]
fn router_is_advertised_again_and_again() {
    let mut t = translator(Offered::default(), Lease::example(), Protocols::default());
    let mut last = START / 1000;
    let mut intervals = Vec::new();
    for _ in 0..50 {
        let due = t.next_deadline().unwrap();
        t.set_now(Now((due - 1) * 1000));
        t.on_time();
        assert!(t.out.frames.is_empty());
        t.set_now(Now(due * 1000));
        t.on_time();
        let frame = t.out.frames.pop_front().unwrap();
        assert!(t.out.frames.is_empty());
        assert_eq!(frame[38..54], hex("ff02 0000 0000 0000 0000 0000 0000 0001"));
        assert_eq!((&frame[..6], frame[54]), (&GUEST_MAC.0[..], 134));
        intervals.push(due - last);
        last = due;
    }
    assert!(intervals.iter().all(|ms| (200_000..600_000).contains(ms)), "{intervals:?}");
    intervals.sort_unstable();
    assert!(intervals[0] < 300_000 && intervals[49] > 500_000, "{intervals:?}");
}

// [NDP-8] A guest that looks whether its link-local address is free is about to ask for a router, and
// need not: but at most once in three seconds (RFC 4861, 6.2.6), and not for other addresses.
#[test]
fn router_is_advertised_to_a_guest_that_begins() {
    let mut t = translator(Offered::default(), Lease::example(), Protocols::default());
    let due = t.next_deadline().unwrap();
    let link_local = detection("fe80 0000 0000 0000 5054 00ff fe12 3456");
    let answers = |t: &mut Served, frame: &[u8], ms: u64| {
        t.set_now(Now(START + ms * 1000));
        t.on_frame(&Vnet::default(), frame);
        t.out.frames.drain(..).map(|f| (f[54], f[38..40].to_vec())).collect::<Vec<_>>()
    };
    let global = detection("2001 0db8 0000 0000 5054 00ff fe12 3456");
    assert_eq!(answers(&mut t, &global, 5), []);
    let advertisement = [(134, hex("ff02"))];
    assert_eq!(answers(&mut t, &link_local, 10), advertisement);
    assert_ne!(t.next_deadline(), Some(due), "the next regular one is an interval later");
    assert_eq!(answers(&mut t, &link_local, 3009), []);
    assert_eq!(answers(&mut t, &link_local, 3010), advertisement);
    let mut off = translator(
        Offered { ra: false, ..Offered::default() },
        Lease::example(),
        Protocols::default(),
    );
    assert_eq!(answers(&mut off, &link_local, 10), []);
}

/// Duplicate address detection (RFC 4862, 5.4.2).
fn detection(target: &str) -> Vec<u8> {
    let mut f = hex("3333ff123456 525400123456 86dd 60000000 0018 3a ff");
    f.extend([0; 16]);
    f.extend(hex("ff02 0000 0000 0000 0000 0001 ff12 3456 8700 0000 00000000"));
    f.extend(hex(target));
    f
}

// [NDP-8] Not where nobody is to hear it; then an idle process has nothing to wait for.
#[test]
fn router_is_not_advertised() {
    let v4 = Lease { v6: false, ..Lease::example() };
    for (offered, lease) in [
        (Offered { ra: false, ..Offered::default() }, Lease::example()),
        (Offered { ndp: false, ..Offered::default() }, Lease::example()),
        (Offered::default(), v4),
    ] {
        let mut t = translator(offered, lease, Protocols::default());
        assert_eq!(t.next_deadline(), None);
        t.set_now(Now(START * 1000));
        t.on_time();
        assert!(t.out.frames.is_empty());
    }
}

/// A packet of the guest with any protocol and content.
fn packet(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut f = hex("9a559a559a55 525400123456 0800 4500");
    f.extend((20 + payload.len() as u16).to_be_bytes());
    f.extend([0, 0, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 99, 224, 0, 0, 22]);
    f.extend(payload);
    f
}

fn packet6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut f = hex("333300000016 525400123456 86dd 60000000");
    f.extend((payload.len() as u16).to_be_bytes());
    f.extend([next, 1]);
    f.extend(hex(
        "2001 0db8 0000 0000 0000 0000 0000 0099 ff02 0000 0000 0000 0000 0000 0000 0016",
    ));
    f.extend(payload);
    f
}

// [MC-1] [L2-8] [ADDR-8] Reports of groups and transports that we do not carry are dropped without
// a word, and tell where the guest is; so are stubs of what we do carry.
#[test]
fn what_is_not_carried() {
    let router_alert = [58, 0, 5, 2, 0, 0, 1, 0];
    let report = [&router_alert[..], &[143, 0, 0, 0, 0, 0, 0, 0]].concat();
    for (frame, reason) in [
        (packet(2, &[0x22, 0, 0, 0, 0, 0, 0, 0]), DropReason::Membership),
        (packet(132, &[0; 40]), DropReason::Protocol),
        (packet(47, &[0; 40]), DropReason::Protocol),
        (packet(17, &[0; 7]), DropReason::BadTransport),
        (packet(6, &[0; 7]), DropReason::BadTransport),
        (packet(1, &[8, 0, 0, 0, 0, 0, 0]), DropReason::IcmpType),
        (packet6(0, &report), DropReason::Membership),
        (packet6(132, &[0; 40]), DropReason::Protocol),
        (packet6(59, &[0; 8]), DropReason::Protocol),
        (packet6(17, &[0; 7]), DropReason::BadTransport),
    ] {
        let mut t = translator(Offered::default(), Lease::example(), Protocols::default());
        t.on_frame(&Vnet::default(), &frame);
        t.end_batch();
        assert!(t.out.frames.is_empty() && t.is_empty(), "{frame:02x?}");
        assert_eq!(t.drops().iter().collect::<Vec<_>>(), [(reason, 1)], "{frame:02x?}");
        let (id, sock) = (t.next_id().unwrap(), t.net.accept());
        let v4 = frame[12] == 8;
        let peer = if v4 { "198.51.100.7" } else { "2001:db8:7::7" };
        t.on_connection(id, sock, at(peer, 5), TO);
        let syn = t.out.frames.pop_front().unwrap();
        let dst = if v4 { &syn[30..34] } else { &syn[38..54] };
        assert_eq!(dst.last(), Some(if v4 { &99 } else { &0x99 }), "{frame:02x?}");
    }
}

// [NDP-10] [ADDR-10] A guest that connects is asked for its addresses, and told nothing.
#[test]
fn a_guest_that_connects_is_solicited() {
    let mut t = translator(Offered::default(), Lease::example(), Protocols::default());
    t.solicit_guest();
    let kinds: Vec<_> = t.out.frames.iter().map(|f| (f[12], f[13], f[54])).collect();
    assert_eq!(kinds, [(8, 6, 0), (0x86, 0xdd, 135)]);
}
