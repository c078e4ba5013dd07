#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use super::super::testing::{GUEST, hex, lease};
use super::*;
use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, Icmpv6Packet, Icmpv6Repr, Ipv6Packet, Ipv6Repr, NdiscNeighborFlags,
    NdiscPrefixInfoFlags, NdiscRepr, NdiscRouterFlags, RawHardwareAddress,
};

const MALFORMED: Outcome = Outcome::Dropped(Reason::Malformed);
const ON: Offered = Offered { dhcp: true, dhcpv6: true, ndp: true, ra: true };

fn a6(s: &str) -> Ipv6Addr {
    s.parse().unwrap()
}

fn ns(target: &str) -> Vec<u8> {
    let mut icmp = hex("87 00 0000 00000000");
    icmp.extend(a6(target).octets());
    icmp.extend(hex("01 01 525400123456"));
    icmp
}

fn rs() -> Vec<u8> {
    hex("85 00 0000 00000000")
}

fn request<'a>(src: &str, icmp: &'a [u8]) -> Request<'a> {
    Request { eth_src: GUEST, src: a6(src), hop_limit: 255, icmp }
}

fn ask_with(lease: &Lease, offered: Offered, request: &Request<'_>) -> (Outcome, Vec<u8>) {
    let mut reply = Reply::new();
    let outcome = respond(lease, offered, request, |_| lease.our_mac, &mut reply);
    assert_eq!(outcome == Outcome::Replied, !reply.frame().is_empty());
    (outcome, reply.frame().to_vec())
}

fn ask(src: &str, icmp: &[u8]) -> (Outcome, Vec<u8>) {
    ask_with(&lease(), ON, &request(src, icmp))
}

/// Headers checked by another implementation, checksum included; the message as it reads it.
fn parse(frame: &[u8]) -> (Ipv6Repr, Icmpv6Repr<'_>) {
    let ip = Ipv6Packet::new_checked(&frame[14..]).unwrap();
    let repr = Ipv6Repr::parse(&ip).unwrap();
    let icmp = Icmpv6Packet::new_checked(&frame[54..]).unwrap();
    let caps = ChecksumCapabilities::default();
    let message = Icmpv6Repr::parse(&repr.src_addr, &repr.dst_addr, &icmp, &caps).unwrap();
    (repr, message)
}

fn options(frame: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut rest = &frame[54 + 16..];
    let mut found = Vec::new();
    while let [kind, units, ..] = *rest {
        assert_ne!(units, 0, "an option of length 0 voids the message");
        let (option, tail) = rest.split_at(usize::from(units) * 8);
        found.push((kind, option.to_vec()));
        rest = tail;
    }
    assert!(rest.is_empty());
    found
}

// [NDP-2] Every byte of the answer for the gateway: router, solicited, override.
#[test]
fn advertises_the_gateway() {
    let (outcome, frame) = ask("fe80::5054:ff:fe12:3456", &ns("fe80::1"));
    assert_eq!(outcome, Outcome::Replied);
    let want = hex("525400123456 9a559a559a55 86dd
         60000000 0020 3a ff fe800000000000000000000000000001 fe80000000000000505400fffe123456
         88 00 4761 e0000000 fe800000000000000000000000000001 02 01 9a559a559a55");
    assert_eq!(frame, want);
}

// [NDP-2] Any other address: not a router, but the answer is otherwise the same.
#[test]
fn advertises_every_other_address() {
    for target in ["2001:db8::77", "2001:db8:ffff::1", "fe80::77"] {
        let (outcome, frame) = ask("2001:db8::10", &ns(target));
        assert_eq!(outcome, Outcome::Replied);
        assert_eq!(frame.len(), 86);
        let (ip, message) = parse(&frame);
        assert_eq!((ip.src_addr, ip.dst_addr), (a6("fe80::1"), a6("2001:db8::10")));
        assert_eq!(ip.hop_limit, 255);
        let Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { flags, target_addr, lladdr }) = message
        else {
            panic!("{message:?}")
        };
        assert_eq!(flags, NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE);
        assert_eq!(target_addr, a6(target));
        assert_eq!(lladdr, Some(RawHardwareAddress::from(EthernetAddress(Mac::DEFAULT_OURS.0))));
    }
}

// [NDP-2] A global gateway is a router, and so is the source of our Router Advertisements: an
// answer without the flag would make the guest drop its default route.
#[test]
fn both_router_addresses_have_the_flag() {
    let lease = Lease { gateway6: Some(a6("2001:db8::1")), ..lease() };
    for (target, flags) in [("2001:db8::1", 0xe0), ("fe80::1", 0xe0), ("2001:db8::2", 0x60)] {
        let (_, frame) = ask_with(&lease, ON, &request("2001:db8::10", &ns(target)));
        assert_eq!(frame[58], flags, "{target}");
    }
}

// [NDP-2] The link-layer option is the target's, the Ethernet source always ours.
#[test]
fn shows_the_resolved_mac() {
    let router = Mac([2, 0, 0, 0, 0, 0x77]);
    let target = Addr::from(a6("2001:db8::77"));
    let mut reply = Reply::new();
    let resolve = |a| if a == target { router } else { Mac::DEFAULT_OURS };
    let icmp = ns("2001:db8::77");
    let request = request("2001:db8::10", &icmp);
    assert_eq!(respond(&lease(), ON, &request, resolve, &mut reply), Outcome::Replied);
    assert_eq!(reply.frame()[6..12], Mac::DEFAULT_OURS.0);
    assert_eq!(reply.frame()[80..86], router.0);
}

// [NDP-2] Duplicate address detection finds every address free.
#[test]
fn silent_about_duplicate_address_detection() {
    let dad = &ns("2001:db8::10")[..24];
    assert_eq!(ask("::", dad).0, Outcome::Consumed);
    assert_eq!(ask("::", &ns("fe80::1")[..24]).0, Outcome::Consumed);
    // RFC 4861, 7.1.1: `::` has no link-layer address.
    assert_eq!(ask("::", &ns("2001:db8::10")).0, MALFORMED);
}

// [NDP-2] The guest's own addresses are not ours to answer for.
#[test]
fn silent_about_the_guests_address() {
    assert_eq!(ask("fe80::9", &ns("2001:db8::10")).0, Outcome::Consumed);
    assert_eq!(ask("fe80::9", &ns("fe80::9")).0, Outcome::Consumed);
}

#[test]
fn no_station_has_such_an_address() {
    assert_eq!(ask("fe80::9", &ns("ff02::1")).0, MALFORMED);
    assert_eq!(ask("ff02::9", &ns("fe80::1")).0, MALFORMED);
    assert_eq!(ask("fe80::9", &ns("::")).0, Outcome::Consumed);
    assert_eq!(ask("fe80::9", &ns("::1")).0, Outcome::Consumed);
}

// [NDP-1] Hop limit, code, length, options.
#[test]
fn refuses_invalid_messages() {
    let good = ns("fe80::1");
    for hop_limit in [0, 1, 64, 254] {
        let off_link = Request { hop_limit, ..request("fe80::9", &good) };
        let outcome = ask_with(&lease(), ON, &off_link).0;
        assert_eq!(outcome, Outcome::Dropped(Reason::HopLimit));
    }
    for message in [good.clone(), [rs(), hex("01 01 525400123456")].concat()] {
        let mut coded = message.clone();
        coded[1] = 1;
        assert_eq!(ask("fe80::9", &coded).0, MALFORMED);
        let mut empty_option = message.clone();
        let at = message.len() - 7;
        empty_option[at] = 0;
        assert_eq!(ask("fe80::9", &empty_option).0, MALFORMED);
        for cut in 1..8 {
            assert_eq!(ask("fe80::9", &message[..message.len() - cut]).0, MALFORMED);
        }
    }
    for len in 0..24 {
        assert_eq!(ask("fe80::9", &good[..len]).0, MALFORMED);
    }
    assert_eq!(ask("fe80::9", &rs()[..7]).0, MALFORMED);
    let group = Request { eth_src: Mac::BROADCAST, ..request("fe80::9", &good) };
    assert_eq!(ask_with(&lease(), ON, &group).0, MALFORMED);
}

// [NDP-1] Off means swallowed, whatever it is.
#[test]
fn swallows_when_off() {
    let off = Offered { ndp: false, ..ON };
    let no_v6 = Lease { v6: false, ..lease() };
    for icmp in [ns("fe80::1"), rs(), vec![]] {
        let request = request("fe80::9", &icmp);
        assert_eq!(ask_with(&lease(), off, &request).0, Outcome::Consumed);
        assert_eq!(ask_with(&no_v6, ON, &request).0, Outcome::Consumed);
    }
    let mut reply = Reply::new();
    assert_eq!(solicit_guest(&no_v6, ON, GUEST, &mut reply), Outcome::Consumed);
    assert_eq!(solicit_guest(&lease(), off, GUEST, &mut reply), Outcome::Consumed);
    assert_eq!(advertise(&no_v6, ON, GUEST, lease().our_mac, &mut reply), Outcome::Consumed);
    assert_eq!(advertise(&lease(), off, GUEST, lease().our_mac, &mut reply), Outcome::Consumed);
}

// [NDP-3] What the guest says of itself is not answered.
#[test]
fn ignores_advertisements_and_redirects() {
    for kind in [134, 136, 137] {
        assert!(handles(kind));
        let mut icmp = ns("fe80::1");
        icmp[0] = kind;
        assert_eq!(ask("fe80::9", &icmp).0, Outcome::Consumed);
    }
    assert!(handles(133) && handles(135) && !handles(128) && !handles(132) && !handles(138));
}

// [NDP-5] [NDP-6] Every byte of a Router Advertisement without search list, in order.
#[test]
fn advertises_the_router() {
    let lease = Lease { dns6: vec![a6("2001:db8::53")], ..lease() };
    let (outcome, frame) = ask_with(&lease, ON, &request("fe80::9", &rs()));
    assert_eq!(outcome, Outcome::Replied);
    let want = hex("525400123456 9a559a559a55 86dd
         60000000 0058 3a ff fe800000000000000000000000000001 fe800000000000000000000000000009
         86 00 ef5f ff80ffff 00000000 00000000
         0304 40c0 ffffffff ffffffff 00000000 20010db8000000000000000000000000
         0101 9a559a559a55 0501 0000 0000fff0
         1903 0000 ffffffff 20010db8000000000000000000000053");
    assert_eq!(frame, want);
}

// [NDP-6] Another implementation reads the same.
#[test]
fn router_advertisement_parses() {
    let (_, frame) = ask("fe80::9", &rs());
    let (ip, message) = parse(&frame);
    assert_eq!((ip.src_addr, ip.dst_addr, ip.hop_limit), (a6("fe80::1"), a6("fe80::9"), 255));
    let Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert {
        hop_limit,
        flags,
        router_lifetime,
        lladdr,
        mtu,
        prefix_info,
        ..
    }) = message
    else {
        panic!("{message:?}")
    };
    assert_eq!((hop_limit, flags), (255, NdiscRouterFlags::MANAGED));
    assert_eq!(router_lifetime.secs(), 65535);
    assert_eq!(lladdr, Some(RawHardwareAddress::from(EthernetAddress(Mac::DEFAULT_OURS.0))));
    assert_eq!(mtu, Some(65520));
    let prefix = prefix_info.unwrap();
    assert_eq!((prefix.prefix, prefix.prefix_len), (a6("2001:db8::"), 64));
    assert_eq!(prefix.flags, NdiscPrefixInfoFlags::ON_LINK | NdiscPrefixInfoFlags::ADDRCONF);
    assert_eq!(prefix.valid_lifetime.secs(), 0xffff_ffff);
}

// [NDP-6] A guest is sent to the DHCPv6 server if there is one.
#[test]
fn managed_flag_tells_of_dhcpv6() {
    let flags = |lease: &Lease, offered| {
        let (_, frame) = ask_with(lease, offered, &request("fe80::9", &rs()));
        frame[59]
    };
    assert_eq!(flags(&lease(), ON), 0x80);
    assert_eq!(flags(&lease(), Offered { dhcpv6: false, ..ON }), 0);
    assert_eq!(flags(&Lease { addr6: None, ..lease() }, ON), 0);
}

// [NDP-5] A guest without an address is answered as one of all nodes.
#[test]
fn unspecified_solicitor_gets_multicast() {
    let (outcome, frame) = ask("::", &rs());
    assert_eq!(outcome, Outcome::Replied);
    assert_eq!(parse(&frame).0.dst_addr, a6("ff02::1"));
    assert_eq!(frame[..6], GUEST.0);
    let with_ll = [rs(), hex("01 01 525400123456")].concat();
    assert_eq!(ask("::", &with_ll).0, MALFORMED);
    assert_eq!(ask("fe80::9", &with_ll).0, Outcome::Replied);
}

// [NDP-5] Without Router Advertisements neighbours are still answered.
#[test]
fn no_router_advertisements_when_off() {
    let no_ra = Offered { ra: false, ..ON };
    assert_eq!(ask_with(&lease(), no_ra, &request("fe80::9", &rs())).0, Outcome::Consumed);
    assert_eq!(
        advertise(&lease(), no_ra, GUEST, lease().our_mac, &mut Reply::new()),
        Outcome::Consumed
    );
    let icmp = ns("fe80::1");
    assert_eq!(ask_with(&lease(), no_ra, &request("fe80::9", &icmp)).0, Outcome::Replied);
}

// [NDP-6] [NDP-9] Options that say nothing are left out.
#[test]
fn omits_empty_options() {
    let kinds = |lease: &Lease| {
        let (_, frame) = ask_with(lease, ON, &request("fe80::9", &rs()));
        parse(&frame);
        options(&frame).iter().map(|(kind, _)| *kind).collect::<Vec<_>>()
    };
    let search = vec!["example.org".to_owned()];
    let dns6 = vec![a6("2001:db8::53")];
    assert_eq!(kinds(&lease()), [3, 1, 5]);
    assert_eq!(kinds(&Lease { addr6: None, mtu: 0, ..lease() }), [1]);
    assert_eq!(kinds(&Lease { search: search.clone(), ..lease() }), [3, 1, 5]);
    assert_eq!(kinds(&Lease { search, dns6: dns6.clone(), ..lease() }), [3, 1, 5, 25, 31]);
    assert_eq!(kinds(&Lease { search: vec!["..".into()], dns6, ..lease() }), [3, 1, 5, 25]);
}

// [NDP-6] At most three resolvers; [NDP-7] a list of whole units ends the message exactly.
#[test]
fn dns_options() {
    let dns6: Vec<_> = (1..=5).map(|n| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n)).collect();
    let lease = Lease { dns6, search: vec!["abcdef".into()], ..lease() };
    let (_, frame) = ask_with(&lease, ON, &request("fe80::9", &rs()));
    parse(&frame);
    let options = options(&frame);
    assert_eq!(options[3].1.len(), 8 + 3 * 16);
    assert_eq!(options[3].1[40..56], a6("2001:db8::3").octets());
    assert_eq!(options[4].1, *b"\x1f\x02\0\0\xff\xff\xff\xff\x06abcdef\0");
    assert!(frame.ends_with(b"\x06abcdef\0"));
}

// [NDP-6] The longest possible search list does not make the packet larger than any link's MTU.
#[test]
fn fits_every_link() {
    let label = "x".repeat(62);
    let search = vec![[label.as_str(); 4].join("."); 6];
    let lease = Lease { dns6: vec![a6("2001:db8::53"); 3], search, ..lease() };
    let (outcome, frame) = ask_with(&lease, ON, &request("fe80::9", &rs()));
    assert_eq!(outcome, Outcome::Replied);
    parse(&frame);
    assert!(frame.len() <= 14 + 1280, "{}", frame.len());
    let list = options(&frame).pop().unwrap();
    assert_eq!((list.0, list.1.len()), (31, (8usize + 4 * 253).next_multiple_of(8)));
}

// [NDP-8] The periodic message goes to all nodes, at the guest's MAC address.
#[test]
fn unsolicited_router_advertisement() {
    let mut reply = Reply::new();
    assert_eq!(advertise(&lease(), ON, GUEST, lease().our_mac, &mut reply), Outcome::Replied);
    assert_eq!(reply.frame()[..6], GUEST.0);
    assert_eq!(parse(reply.frame()).0.dst_addr, a6("ff02::1"));
    assert_eq!(reply.frame()[54], 134);
}

// [ADDR-10] The solicitation on connect: unicast destination, no option.
#[test]
fn solicits_the_guest() {
    let mut reply = Reply::new();
    assert_eq!(solicit_guest(&lease(), ON, Mac::BROADCAST, &mut reply), Outcome::Replied);
    let want = hex("ffffffffffff 9a559a559a55 86dd
         60000000 0018 3a ff fe800000000000000000000000000001 20010db8000000000000000000000010
         87 00 1e99 00000000 20010db8000000000000000000000010");
    assert_eq!(reply.frame(), want);
    let local = Lease { addr6: None, ..lease() };
    assert_eq!(solicit_guest(&local, ON, GUEST, &mut reply), Outcome::Consumed);
    assert!(reply.frame().is_empty());
}

/// What systems send when their link comes up, by source: a solicitation of routers and the search
/// for duplicates of the address they want, with a nonce (RFC 7527) or without.
const STOCK: [(&str, &str, &str); 6] = [
    ("Linux", "fe80::5054:ff:fe12:3456", "85 00 0000 00000000 01 01 525400123456"),
    ("Linux", "::", "87 00 0000 00000000 fe80 0000000000005054 00fffe123456 0e 01 a1b2c3d4e5f6"),
    ("Windows", "fe80::d5b1:1234:5678:9abc", "85 00 0000 00000000 01 01 525400123456"),
    ("Windows", "::", "85 00 0000 00000000"),
    ("macOS", "fe80::4b1:2:3:4", "85 00 0000 00000000 01 01 525400123456 0e 01 a1b2c3d4e5f6"),
    ("macOS", "::", "87 00 0000 00000000 fe80 00000000000004b1 000200030004 0e 01 a1b2c3d4e5f6"),
];

// [NDP-2] [NDP-5] Solicitations of routers are answered, searches for duplicates are not; cut short,
// none is.
#[test]
fn stock_guests() {
    for (name, src, message) in STOCK {
        let icmp = hex(message);
        let (outcome, frame) = ask(src, &icmp);
        if icmp[0] == 0x85 {
            assert_eq!(outcome, Outcome::Replied, "{name}");
            let dst = if src == "::" { "ff02::1" } else { src };
            assert_eq!(frame[38..54], a6(dst).octets(), "{name}");
            assert_eq!(frame[54], 134, "{name}");
        } else {
            assert_eq!(outcome, Outcome::Consumed, "{name}");
            let tentative = tentative(&request(src, &icmp)).unwrap();
            assert!(tentative.is_unicast_link_local(), "{name}");
        }
        for len in 0..icmp.len() {
            let whole = len == if icmp[0] == 0x85 { 8 } else { 24 };
            let whole = whole || (len == 16 && icmp[0] == 0x85 && icmp.len() > 16);
            let refused = ask(src, &icmp[..len]).0 == MALFORMED;
            assert_eq!(refused, !whole, "{name}: {len}");
        }
    }
}

// [NDP-4] [ADDR-11] Of a neighbour: to all nodes, not solicited, no router.
#[test]
fn announces_a_neighbour() {
    let (mac, mut reply) = (Mac([2, 0, 0, 0, 0, 0x77]), Reply::new());
    let neighbour = a6("2001:db8::77");
    assert_eq!(announce(&lease(), ON, GUEST, (neighbour, mac), &mut reply), Outcome::Replied);
    assert_eq!(reply.frame()[..12], hex("525400123456 9a559a559a55"));
    let (ip, message) = parse(reply.frame());
    assert_eq!((ip.src_addr, ip.dst_addr), (a6("fe80::1"), a6("ff02::1")));
    let Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { flags, target_addr, lladdr }) = message
    else {
        panic!()
    };
    assert_eq!((flags, target_addr), (NdiscNeighborFlags::OVERRIDE, neighbour));
    assert_eq!(lladdr, Some(RawHardwareAddress::from(EthernetAddress(mac.0))));
    // The router is one whoever asks.
    let router = (a6("fe80::1"), mac);
    assert_eq!(announce(&lease(), ON, GUEST, router, &mut reply), Outcome::Replied);
    assert_eq!(reply.frame()[58], 0xa0);
    let off = Offered { ndp: false, ..ON };
    assert_eq!(announce(&lease(), off, GUEST, router, &mut reply), Outcome::Consumed);
}

// [NDP-6] [ADDR-11] Where the router's own MAC address is shown, it is in the advertisement, too.
#[test]
fn the_advertised_router_is_who_answers() {
    let (router, mut reply) = (Mac([2, 0, 0, 0, 0, 1]), Reply::new());
    let resolve = |a| if a == Addr::from(lease().our_ll) { router } else { lease().our_mac };
    let icmp = rs();
    let outcome = respond(&lease(), ON, &request("fe80::5", &icmp), resolve, &mut reply);
    assert_eq!(outcome, Outcome::Replied);
    let source = options(reply.frame()).into_iter().find(|(kind, _)| *kind == 1).unwrap();
    assert_eq!(source.1[2..], router.0);
}

// [ADDR-8] Duplicate address detection tells what the guest is about to use, and nothing else does.
#[test]
fn tentative_addresses() {
    let mut dad = ns("2001:db8::5:6");
    dad.truncate(24);
    assert_eq!(tentative(&request("::", &dad)), Some(a6("2001:db8::5:6")));
    assert_eq!(tentative(&request("fe80::5", &dad)), None);
    assert_eq!(tentative(&Request { hop_limit: 254, ..request("::", &dad) }), None);
    assert_eq!(tentative(&request("::", &ns("2001:db8::5:6"))), None, "with a source address");
    for len in 0..24 {
        assert_eq!(tentative(&request("::", &dad[..len])), None, "{len}");
    }
    for nobody in ["ff02::1", "::", "::1"] {
        let mut dad = ns(nobody);
        dad.truncate(24);
        assert_eq!(tentative(&request("::", &dad)), None, "{nobody}");
    }
    dad[0] = 0x88;
    assert_eq!(tentative(&request("::", &dad)), None, "an advertisement");
}

proptest! {
    #[test]
    fn never_panics(
        kind in prop_oneof![133u8..=137, any::<u8>()], code in 0u8..2, src: [u8; 16],
        hop_limit in prop_oneof![Just(255), any::<u8>()],
        rest in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let icmp = [[kind, code].as_slice(), &rest].concat();
        let src = Ipv6Addr::from(src);
        let request = Request { eth_src: GUEST, src, hop_limit, icmp: &icmp };
        let (outcome, frame) = ask_with(&lease(), ON, &request);
        if outcome == Outcome::Replied {
            prop_assert_eq!(hop_limit, 255);
            prop_assert_eq!(code, 0);
            parse(&frame);
        }
        for len in 0..icmp.len().min(2) {
            let short = Request { icmp: &icmp[..len], ..request };
            let _ = ask_with(&lease(), ON, &short);
        }
    }

    // Any lease gives a message with whole, non-empty options.
    #[test]
    fn every_lease_can_be_advertised(
        addr6: Option<[u8; 16]>, mtu: u16, dns in proptest::collection::vec(any::<[u8; 16]>(), 0..5),
        search in proptest::collection::vec("[a-z.]{0,300}", 0..7),
    ) {
        let dns6 = dns.into_iter().map(Ipv6Addr::from).collect();
        let lease = Lease { addr6: addr6.map(Ipv6Addr::from), mtu, dns6, search, ..lease() };
        let mut reply = Reply::new();
        prop_assert_eq!(advertise(&lease, ON, GUEST, lease.our_mac, &mut reply), Outcome::Replied);
        let frame = reply.frame();
        let len = usize::from(u16::from_be_bytes([frame[18], frame[19]]));
        prop_assert_eq!(frame.len(), 54 + len);
        options(frame);
    }
}
