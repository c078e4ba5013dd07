//! Ethernet addresses of the host's neighbours, and of the guest's own, as they become known.

use std::net::IpAddr;

use passt::config::Lease;
use passt::flow::DropReason;
use passt::translate::{Now, Translator};
use passt::wire::{Addr, Mac, Vnet};

use super::inbound::{TO, at, translator};
use super::link::FakeLink;
use super::net::FakeNet;
use super::world::{GUEST_MAC, lease};

const NEIGHBOUR: Mac = Mac([2, 0, 0, 0, 0, 0x77]);
const ROUTER: Mac = Mac([2, 0, 0, 0, 0, 1]);
const OURS: Mac = Mac::DEFAULT_OURS;

type T = Translator<FakeLink, FakeNet>;

fn addr(s: &str) -> Addr {
    s.parse::<IpAddr>().unwrap().into()
}

/// Everything that was sent.
fn sent(t: &mut T) -> Vec<Vec<u8>> {
    t.out.frames.drain(..).collect()
}

fn source(frame: &[u8]) -> Mac {
    Mac(frame[6..12].try_into().unwrap())
}

/// The Ethernet address that the guest is told for an IPv4 address, if any.
fn ask(t: &mut T, sender: [u8; 4], target: [u8; 4]) -> Option<Mac> {
    let mut f = [Mac::BROADCAST.0, GUEST_MAC.0].concat();
    f.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    f.extend(GUEST_MAC.0);
    f.extend(sender);
    f.extend([0; 6]);
    f.extend(target);
    t.on_frame(&Vnet::default(), &f);
    let reply = sent(t).pop()?;
    Some(Mac(reply[22..28].try_into().unwrap()))
}

/// An ICMPv6 message of the guest.
fn icmpv6(src: &str, dst: &str, message: &[u8]) -> Vec<u8> {
    let mut f = [[0x33, 0x33, 0, 0, 0, 1], GUEST_MAC.0].concat();
    f.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, u8::try_from(message.len()).unwrap(), 58, 255]);
    f.extend(addr(src).octets());
    f.extend(addr(dst).octets());
    f.extend(message);
    f
}

fn solicit(src: &str, target: &str) -> Vec<u8> {
    let message = [&[135, 0, 0, 0, 0, 0, 0, 0], addr(target).octets().as_slice()].concat();
    icmpv6(src, "ff02::1:ff00:1", &message)
}

/// An acknowledgement that belongs to no connection.
fn stray(dst: [u8; 4]) -> Vec<u8> {
    let mut f = [OURS.0, GUEST_MAC.0].concat();
    f.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 2]);
    f.extend(dst);
    f.extend([0, 9, 0, 9, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 16, 1, 0, 0, 0, 0, 0]);
    f
}

/// A SYN to port 80, from a port of its own.
fn open(dst: [u8; 4], port: u8) -> Vec<u8> {
    let mut f = stray(dst);
    (f[35], f[37], f[47]) = (port, 80, 2);
    f
}

/// Where a peer's connection reaches the guest, and the Ethernet address it comes from.
fn connect(t: &mut T, peer: &str) -> (String, Mac) {
    let (id, sock) = (t.next_id().unwrap(), t.net.accept());
    t.on_connection(id, sock, at(peer, 6001), TO);
    let syn = sent(t).pop().unwrap();
    let dst = if syn[12] == 8 {
        addr(&format!("{}.{}.{}.{}", syn[30], syn[31], syn[32], syn[33]))
    } else {
        Addr::from_octets(syn[38..54].try_into().unwrap())
    };
    (dst.to_string(), source(&syn))
}

// [ADDR-11] [ARP-1] [ARP-4] [FLOW-17] First it is us; then the guest is told once, and asks, and sees frames
// from there; then it is the router again.
#[test]
fn a_neighbour_is_shown_while_it_is_known() {
    let mut t = translator(lease(65520), 10);
    assert_eq!(ask(&mut t, [192, 0, 2, 2], [192, 0, 2, 77]), Some(OURS));
    t.on_neighbour(addr("192.0.2.77"), Some(NEIGHBOUR));
    let told = sent(&mut t);
    assert_eq!(told.len(), 1);
    assert_eq!((told[0][12..14].to_vec(), source(&told[0])), (vec![8, 6], NEIGHBOUR));
    t.on_neighbour(addr("192.0.2.77"), Some(NEIGHBOUR));
    assert_eq!(sent(&mut t), <[Vec<u8>; 0]>::default(), "no news");

    assert_eq!(ask(&mut t, [192, 0, 2, 2], [192, 0, 2, 77]), Some(NEIGHBOUR));
    assert_eq!(connect(&mut t, "192.0.2.77").1, NEIGHBOUR);
    assert_eq!(connect(&mut t, "203.0.113.7").1, OURS);
    // A frame that belongs to nothing is answered from there, too.
    t.on_frame(&Vnet::default(), &stray([192, 0, 2, 77]));
    assert_eq!(source(&sent(&mut t)[0]), NEIGHBOUR);
    for (dst, mac) in [([192, 0, 2, 77], NEIGHBOUR), ([203, 0, 113, 7], OURS)] {
        t.on_frame(&Vnet::default(), &open(dst, dst[3]));
        t.end_batch();
        let synack = sent(&mut t).pop().unwrap();
        assert_eq!((synack[47], source(&synack)), (0x12, mac), "[FLOW-17] the guest's own flow");
    }

    t.on_neighbour(addr("192.0.2.1"), Some(ROUTER));
    sent(&mut t);
    assert_eq!(connect(&mut t, "203.0.113.8").1, ROUTER);
    t.on_neighbour(addr("192.0.2.77"), None);
    assert_eq!(sent(&mut t).len(), 0);
    assert_eq!(ask(&mut t, [192, 0, 2, 2], [192, 0, 2, 77]), Some(ROUTER));
}

// [ADDR-11] [NDP-2] [NDP-4] The same for IPv6.
#[test]
fn a_neighbour_is_shown_in_ipv6() {
    let mut t = translator(lease(65520), 10);
    t.on_neighbour(addr("2001:db8::77"), Some(NEIGHBOUR));
    let told = sent(&mut t);
    assert_eq!((told.len(), told[0][54], told[0][58]), (1, 136, 0x20), "override alone");
    assert_eq!(told[0][38..54], *addr("ff02::1").octets());
    assert_eq!(told[0][80..86], NEIGHBOUR.0);
    t.on_frame(&Vnet::default(), &solicit("2001:db8::2", "2001:db8::77"));
    let advert = sent(&mut t).remove(0);
    assert_eq!((source(&advert), &advert[80..86]), (OURS, &NEIGHBOUR.0[..]));
    assert_eq!(connect(&mut t, "2001:db8::77").1, NEIGHBOUR);
}

// [ADDR-11] What the host's neighbours have is not shown where it is the guest's, or stands for
// the host.
#[test]
fn what_is_not_shown() {
    let mapped = Lease {
        map_host_loopback4: Some("192.0.2.1".parse().unwrap()),
        map_guest4: Some("192.0.2.99".parse().unwrap()),
        ..lease(65520)
    };
    let mut t = translator(mapped, 10);
    for a in ["192.0.2.2", "192.0.2.1", "192.0.2.99", "224.0.0.1", "127.0.0.5", "2001:db8::2"] {
        t.on_neighbour(addr(a), Some(NEIGHBOUR));
        assert_eq!(sent(&mut t).len(), 0, "{a}");
    }
    for a in [[192, 0, 2, 1], [192, 0, 2, 99], [203, 0, 113, 7]] {
        assert_eq!(ask(&mut t, [192, 0, 2, 2], a), Some(OURS), "{a:?}");
    }
}

// [ADDR-11] All are replaced, and nobody is told.
#[test]
fn all_neighbours_at_once() {
    let mut t = translator(lease(65520), 10);
    t.on_neighbour(addr("192.0.2.77"), Some(NEIGHBOUR));
    sent(&mut t);
    t.neighbours_are(&[(addr("192.0.2.78"), ROUTER), (addr("192.0.2.2"), ROUTER)]);
    assert_eq!(sent(&mut t).len(), 0);
    assert_eq!(ask(&mut t, [192, 0, 2, 2], [192, 0, 2, 77]), Some(OURS));
    assert_eq!(ask(&mut t, [192, 0, 2, 2], [192, 0, 2, 78]), Some(ROUTER));
    // [ARP-3] Whoever would take its address is told that it is taken; others are free.
    assert_eq!(ask(&mut t, [0; 4], [192, 0, 2, 78]), Some(ROUTER));
    assert_eq!(ask(&mut t, [0; 4], [192, 0, 2, 79]), None);
}

// [ADDR-8] A guest that configures itself is reached at the address that it is about to use.
#[test]
fn reached_before_it_speaks() {
    let mut t = translator(lease(65520), 10);
    assert_eq!(connect(&mut t, "2001:db8:7::7").0, "2001:db8::2");
    t.on_frame(&Vnet::default(), &solicit("::", "2001:db8::5054:ff:fe12:3456"));
    assert_eq!(sent(&mut t).len(), 0, "no answer to detection of duplicates");
    assert_eq!(connect(&mut t, "2001:db8:7::8").0, "2001:db8::5054:ff:fe12:3456");
}

// [D6] What we answer by ourselves is limited, each kind for itself: a flood costs no more than to
// drop it.
#[test]
fn answers_are_limited() {
    let mut t = translator(lease(65520), 10);
    let strays = |t: &mut T| {
        (0..3000).for_each(|_| t.on_frame(&Vnet::default(), &stray([192, 0, 2, 77])));
        sent(t).len()
    };
    let questions =
        |t: &mut T| (0..3000).filter(|_| ask(t, [192, 0, 2, 2], [192, 0, 2, 77]).is_some()).count();
    assert_eq!((strays(&mut t), questions(&mut t)), (1000, 1000));
    assert_eq!(t.drops().get(DropReason::AnswerLimit), 4000);
    // The router is found all the same.
    assert_eq!(ask(&mut t, [192, 0, 2, 2], [192, 0, 2, 1]), Some(OURS));
    t.set_now(Now(1_010_000));
    assert_eq!((strays(&mut t), questions(&mut t)), (100, 500));
    t.on_frame(&Vnet::default(), &solicit("2001:db8::2", "2001:db8::77"));
    assert_eq!(sent(&mut t).len(), 0);
    t.set_now(Now(1_015_000));
    t.on_frame(&Vnet::default(), &solicit("2001:db8::2", "2001:db8::77"));
    assert_eq!(sent(&mut t).len(), 1);
}
