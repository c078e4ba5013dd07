//! ARP (RFC 826): every address but the guest's own is behind us.
//!
//! # Theory of operation
//!
//! The link has two parties, so a request for any address that is not the guest's is answered:
//! whatever it is, we forward to it (proxy ARP for all) [ARP-1]. What must stay unanswered is
//! whatever the guest asks to find out whether an address is *free*:
//!
//! * requests for the address assigned to the guest, which DHCP clients send before use [ARP-2];
//! * announcements, where the sender and target addresses are the same: the host may own that
//!   address too, and the guest would see a conflict [ARP-2];
//! * probes (RFC 5227, 1.1: sender 0.0.0.0), unless the address is one we claim, or a neighbour of
//!   the host is known to have it [ARP-3].
//!
//! Unasked, the guest is told once that a neighbour of the host has an Ethernet address of its own
//! ([`announce`]) [ARP-4].

use std::net::Ipv4Addr;

use super::{Outcome, Reason, Reply, field};
use crate::config::Lease;
use crate::wire::{Addr, Mac};

/// Answers an ARP message from the guest.
///
/// `frame` is the whole Ethernet frame, padding allowed. `resolve` gives the MAC address that
/// stands for an address on this link, and `is_known` tells whether somebody is known to have it.
pub fn respond(
    lease: &Lease,
    frame: &[u8],
    resolve: impl Fn(Addr) -> Mac,
    is_known: impl Fn(Addr) -> bool,
    reply: &mut Reply,
) -> Outcome {
    reply.clear();
    if !lease.v4 {
        return Outcome::Consumed;
    }
    let Some(request) = Message::parse(frame) else { return Outcome::Dropped(Reason::Malformed) };
    let target = request.target_ip;
    if request.operation != REQUEST || !is_answered(lease, request.sender_ip, target, is_known) {
        return Outcome::Consumed;
    }
    Message {
        eth_dst: request.eth_src,
        eth_src: lease.our_mac,
        operation: REPLY,
        sender_mac: resolve(target.into()),
        sender_ip: target,
        target_mac: request.sender_mac,
        target_ip: request.sender_ip,
    }
    .write(reply)
}

/// Asks for the guest's MAC address when it connects [ADDR-10].
///
/// After a restart of ours the guest has no reason to speak first, and without its MAC address
/// nothing can be sent to it.
pub fn solicit_guest(lease: &Lease, reply: &mut Reply) -> Outcome {
    reply.clear();
    if !lease.v4 || lease.addr4.is_unspecified() {
        return Outcome::Consumed;
    }
    Message {
        eth_dst: Mac::BROADCAST,
        eth_src: lease.our_mac,
        operation: REQUEST,
        sender_mac: lease.our_mac,
        sender_ip: lease.gateway4,
        target_mac: Mac::BROADCAST,
        target_ip: lease.addr4,
    }
    .write(reply)
}

/// Tells the guest that `addr` has this MAC address, as its owner would (RFC 5227, 3) [ADDR-11].
pub fn announce(lease: &Lease, addr: Ipv4Addr, mac: Mac, reply: &mut Reply) -> Outcome {
    reply.clear();
    if !lease.v4 {
        return Outcome::Consumed;
    }
    Message {
        eth_dst: Mac::BROADCAST,
        eth_src: mac,
        operation: REQUEST,
        sender_mac: mac,
        sender_ip: addr,
        target_mac: Mac([0; 6]),
        target_ip: addr,
    }
    .write(reply)
}

/// Whether a request from `sender` for `target` gets an answer.
fn is_answered(
    lease: &Lease,
    sender: Ipv4Addr,
    target: Ipv4Addr,
    is_known: impl Fn(Addr) -> bool,
) -> bool {
    if target == lease.addr4 || target == sender {
        return false; // [ARP-2]
    }
    if !Addr::from(target).is_unicast() || target.is_loopback() {
        return false; // no station has such an address (RFC 1122, 3.2.1.3)
    }
    !sender.is_unspecified() || is_ours(lease, target) || is_known(target.into()) // [ARP-3]
}

/// Whether the guest must not take `addr` for itself because we intercept what is sent to it.
fn is_ours(lease: &Lease, addr: Ipv4Addr) -> bool {
    addr == lease.gateway4
        || lease.map_host_loopback4 == Some(addr)
        || lease.map_guest4 == Some(addr)
        || lease.dns_match4 == Some(addr)
}

/// Ethernet type of ARP.
const ETHERTYPE: [u8; 2] = [0x08, 0x06];
/// Ethernet hardware, IPv4 protocol, and the lengths of their addresses.
const FORMAT: [u8; 6] = [0x00, 0x01, 0x08, 0x00, 6, 4];
/// Operation: request.
const REQUEST: u16 = 1;
/// Operation: reply.
const REPLY: u16 = 2;

/// An Ethernet frame with an ARP message for IPv4.
struct Message {
    eth_dst: Mac,
    eth_src: Mac,
    operation: u16,
    sender_mac: Mac,
    sender_ip: Ipv4Addr,
    target_mac: Mac,
    target_ip: Ipv4Addr,
}

impl Message {
    /// `None` if it is too short, not about IPv4 on Ethernet, or from a group address.
    fn parse(frame: &[u8]) -> Option<Self> {
        if field(frame, 12) != Some(ETHERTYPE) || field(frame, 14) != Some(FORMAT) {
            return None;
        }
        let message = Self {
            eth_dst: Mac(field(frame, 0)?),
            eth_src: Mac(field(frame, 6)?),
            operation: u16::from_be_bytes(field(frame, 20)?),
            sender_mac: Mac(field(frame, 22)?),
            sender_ip: field::<4>(frame, 28)?.into(),
            target_mac: Mac(field(frame, 32)?),
            target_ip: field::<4>(frame, 38)?.into(),
        };
        (!message.eth_src.is_multicast()).then_some(message)
    }

    fn write(&self, reply: &mut Reply) -> Outcome {
        reply.put(&self.eth_dst.0);
        reply.put(&self.eth_src.0);
        reply.put(&ETHERTYPE);
        reply.put(&FORMAT);
        reply.put(&self.operation.to_be_bytes());
        reply.put(&self.sender_mac.0);
        reply.put(&self.sender_ip.octets());
        reply.put(&self.target_mac.0);
        reply.put(&self.target_ip.octets());
        reply.finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::super::testing::{GUEST, hex, lease};
    use super::*;
    use proptest::prelude::*;
    use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress};

    const MALFORMED: Outcome = Outcome::Dropped(Reason::Malformed);

    fn request(sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
        let mut f = hex("ffffffffffff 525400123456 0806 0001 0800 06 04 0001 525400123456");
        f.extend(sender);
        f.extend([0; 6]);
        f.extend(target);
        f
    }

    fn ask(lease: &Lease, frame: &[u8]) -> (Outcome, Vec<u8>) {
        let mut reply = Reply::new();
        let outcome = respond(lease, frame, |_| lease.our_mac, |_| false, &mut reply);
        assert_eq!(outcome == Outcome::Replied, !reply.frame().is_empty());
        (outcome, reply.frame().to_vec())
    }

    fn outcome(sender: [u8; 4], target: [u8; 4]) -> Outcome {
        ask(&lease(), &request(sender, target)).0
    }

    // [ARP-1] Every byte of the answer, padding included.
    #[test]
    fn answers_for_the_gateway() {
        let (outcome, frame) = ask(&lease(), &request([192, 0, 2, 10], [192, 0, 2, 1]));
        assert_eq!(outcome, Outcome::Replied);
        let want = hex("525400123456 9a559a559a55 0806 0001 0800 06 04 0002
             9a559a559a55 c0000201 525400123456 c000020a
             0000 0000 0000 0000 0000 0000 0000 0000 0000");
        assert_eq!(frame, want);
        let repr = ArpRepr::parse(&ArpPacket::new_checked(&frame[14..]).unwrap()).unwrap();
        let ArpRepr::EthernetIpv4 { operation, source_hardware_addr, .. } = repr else {
            unreachable!()
        };
        assert_eq!(operation, ArpOperation::Reply);
        assert_eq!(source_hardware_addr, EthernetAddress(Mac::DEFAULT_OURS.0));
    }

    // [ARP-1] On or off the subnet, and whatever the guest's own address is.
    #[test]
    fn answers_for_every_other_address() {
        assert_eq!(outcome([192, 0, 2, 10], [192, 0, 2, 77]), Outcome::Replied);
        assert_eq!(outcome([192, 0, 2, 10], [203, 0, 113, 9]), Outcome::Replied);
        assert_eq!(outcome([10, 9, 8, 7], [10, 9, 8, 1]), Outcome::Replied);
    }

    // [ARP-1] The sender hardware address is the target's, the Ethernet source always ours.
    #[test]
    fn shows_the_resolved_mac() {
        let router = Mac([2, 0, 0, 0, 0, 0x77]);
        let target = Ipv4Addr::new(192, 0, 2, 77);
        let mut reply = Reply::new();
        let resolve = |a| if a == Addr::from(target) { router } else { Mac::DEFAULT_OURS };
        let frame = request([192, 0, 2, 10], target.octets());
        assert_eq!(respond(&lease(), &frame, resolve, |_| true, &mut reply), Outcome::Replied);
        assert_eq!(reply.frame()[6..12], Mac::DEFAULT_OURS.0);
        assert_eq!(reply.frame()[22..28], router.0);
    }

    // [ARP-1] Goes to the Ethernet source, which need not be the ARP sender (bridged guests).
    #[test]
    fn answers_the_ethernet_source() {
        let mut frame = request([192, 0, 2, 10], [192, 0, 2, 1]);
        frame[22..28].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        let (_, got) = ask(&lease(), &frame);
        assert_eq!(got[..6], GUEST.0);
        assert_eq!(got[32..38], [2, 0, 0, 0, 0, 1]);
    }

    // [ARP-2] The guest's own address, by probe or by request.
    #[test]
    fn silent_about_the_guests_address() {
        assert_eq!(outcome([0; 4], [192, 0, 2, 10]), Outcome::Consumed);
        assert_eq!(outcome([192, 0, 2, 99], [192, 0, 2, 10]), Outcome::Consumed);
    }

    // [ARP-2] Announcements, even of an address that is ours.
    #[test]
    fn silent_about_announcements() {
        assert_eq!(outcome([192, 0, 2, 55], [192, 0, 2, 55]), Outcome::Consumed);
        assert_eq!(outcome([192, 0, 2, 1], [192, 0, 2, 1]), Outcome::Consumed);
    }

    // [ARP-2] Replies and reverse ARP are understood; other formats and short frames are not.
    #[test]
    fn silent_about_other_messages() {
        let good = request([192, 0, 2, 10], [192, 0, 2, 1]);
        for operation in [0, 2, 3, 4, 9] {
            let mut frame = good.clone();
            frame[21] = operation;
            assert_eq!(ask(&lease(), &frame).0, Outcome::Consumed, "{operation}");
        }
        for (at, value) in [(12, 0x86), (14, 1), (15, 6), (16, 0x86), (18, 8), (19, 16), (6, 1)] {
            let mut frame = good.clone();
            frame[at] = value;
            assert_eq!(ask(&lease(), &frame).0, MALFORMED, "{at}");
        }
        for len in 0..good.len() {
            assert_eq!(ask(&lease(), &good[..len]).0, MALFORMED, "{len}");
        }
        let padded = [good.as_slice(), &[0; 18]].concat();
        assert_eq!(ask(&lease(), &padded).0, Outcome::Replied);
    }

    // [ARP-3] A probe is answered only for what we claim, so the guest can choose any other.
    #[test]
    fn probes_find_foreign_addresses_free() {
        assert_eq!(outcome([0; 4], [192, 0, 2, 55]), Outcome::Consumed);
        assert_eq!(outcome([0; 4], [192, 0, 2, 1]), Outcome::Replied);
        assert_eq!(outcome([0; 4], [192, 0, 2, 200]), Outcome::Replied);
        assert_eq!(outcome([0; 4], [192, 0, 2, 222]), Outcome::Consumed);
        let dns = Lease { dns_match4: Some(Ipv4Addr::new(192, 0, 2, 222)), ..lease() };
        assert_eq!(ask(&dns, &request([0; 4], [192, 0, 2, 222])).0, Outcome::Replied);
    }

    // [ARP-3] Who would take the address of a neighbour finds it taken, by that neighbour.
    #[test]
    fn probes_find_addresses_of_neighbours_taken() {
        let neighbour = Mac([2, 0, 0, 0, 0, 0x77]);
        let is_known = |a| a == Addr::from(Ipv4Addr::new(192, 0, 2, 55));
        let probe = |last| {
            let (frame, mut reply) = (request([0; 4], [192, 0, 2, last]), Reply::new());
            let outcome = respond(&lease(), &frame, |_| neighbour, is_known, &mut reply);
            (outcome, reply.frame().get(22..32).map(<[u8]>::to_vec))
        };
        let claim = [neighbour.0.as_slice(), &[192, 0, 2, 55]].concat();
        assert_eq!(probe(55), (Outcome::Replied, Some(claim)));
        assert_eq!(probe(56), (Outcome::Consumed, None));
    }

    // [ARP-4] [ADDR-11] Every byte of what a neighbour would say itself.
    #[test]
    fn announces_a_neighbour() {
        let (mac, mut reply) = (Mac([2, 0, 0, 0, 0, 0x77]), Reply::new());
        let neighbour = Ipv4Addr::new(192, 0, 2, 77);
        assert_eq!(announce(&lease(), neighbour, mac, &mut reply), Outcome::Replied);
        let want = hex("ffffffffffff 020000000077 0806 0001 0800 06 04 0001
             020000000077 c000024d 000000000000 c000024d
             0000 0000 0000 0000 0000 0000 0000 0000 0000");
        assert_eq!(reply.frame(), want);
        let off = Lease { v4: false, ..lease() };
        assert_eq!(announce(&off, neighbour, mac, &mut reply), Outcome::Consumed);
    }

    #[test]
    fn no_station_has_a_group_address() {
        for target in [[0; 4], [255; 4], [224, 0, 0, 1], [127, 0, 0, 1]] {
            assert_eq!(outcome([192, 0, 2, 10], target), Outcome::Consumed);
        }
    }

    // [ARP-5] Nothing without IPv4.
    #[test]
    fn inactive_without_ipv4() {
        let off = Lease { v4: false, ..lease() };
        let frame = request([192, 0, 2, 10], [192, 0, 2, 1]);
        assert_eq!(ask(&off, &frame), (Outcome::Consumed, vec![]));
        assert_eq!(solicit_guest(&off, &mut Reply::new()), Outcome::Consumed);
    }

    // [ADDR-10] The broadcast request on connect.
    #[test]
    fn solicits_the_guest() {
        let mut reply = Reply::new();
        assert_eq!(solicit_guest(&lease(), &mut reply), Outcome::Replied);
        let want = hex("ffffffffffff 9a559a559a55 0806 0001 0800 06 04 0001
             9a559a559a55 c0000201 ffffffffffff c000020a
             0000 0000 0000 0000 0000 0000 0000 0000 0000");
        assert_eq!(reply.frame(), want);
    }

    proptest! {
        #[test]
        fn never_panics(frame in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = ask(&lease(), &frame);
        }

        #[test]
        fn answers_are_for_what_was_asked(sender: [u8; 4], target: [u8; 4]) {
            let (outcome, frame) = ask(&lease(), &request(sender, target));
            if outcome == Outcome::Replied {
                prop_assert_eq!(&frame[28..32], &target);
                prop_assert_eq!(&frame[38..42], &sender);
                prop_assert_eq!(frame.len(), 60);
                prop_assert_ne!(target, [192, 0, 2, 10]);
            }
        }
    }
}
