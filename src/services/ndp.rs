//! Neighbour Discovery (RFC 4861): we are the router, and every address but the guest's is ours.
//!
//! # Theory of operation
//!
//! As with ARP, a Neighbour Solicitation for any address that is not the guest's is answered
//! [NDP-2]; Duplicate Address Detection, which comes from `::`, is not, so the guest finds every
//! address free; it tells us what address the guest is about to use ([`tentative`]). A Router Solicitation is answered with the prefix of the guest's address, the MTU
//! and the resolvers [NDP-5, NDP-6]. Advertisements and redirects of the guest are of no interest
//! [NDP-3].
//!
//! A message must have hop limit 255, code 0 and well-formed options, or it is dropped (RFC 4861,
//! 6.1 and 7.1) [NDP-1]. Its checksum is not looked at: on a link with checksum offload it may
//! rightly be incomplete.
//!
//! The Router flag of an advertisement for a neighbour decides whether the guest keeps it as a
//! default router (RFC 4861, 7.2.5), so it is set for the address that our Router Advertisements
//! come from and for the gateway, and for nothing else.

use std::net::Ipv6Addr;

use super::{Offered, Outcome, Reason, Reply, field};
use crate::config::Lease;
use crate::wire::checksum::Checksum;
use crate::wire::{Addr, Mac, ndp};

/// An ICMPv6 message from the guest, with what is needed of the headers before it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Ethernet source.
    pub eth_src: Mac,
    /// IPv6 source.
    pub src: Ipv6Addr,
    /// IPv6 hop limit.
    pub hop_limit: u8,
    /// The ICMPv6 message, from its type on.
    pub icmp: &'a [u8],
}

/// Whether [`respond`] is responsible for an ICMPv6 message of this type.
pub const fn handles(icmp_type: u8) -> bool {
    matches!(icmp_type, ndp::ROUTER_SOLICIT..=ndp::REDIRECT)
}

/// Answers a Neighbour Discovery message from the guest.
///
/// `resolve` gives the MAC address that stands for an address on this link.
pub fn respond(
    lease: &Lease,
    offered: Offered,
    request: &Request<'_>,
    resolve: impl Fn(Addr) -> Mac,
    reply: &mut Reply,
) -> Outcome {
    reply.clear();
    if !lease.v6 || !offered.ndp {
        return Outcome::Consumed;
    }
    if request.hop_limit != HOP_LIMIT {
        return Outcome::Dropped(Reason::HopLimit);
    }
    let Some([kind, 0]) = field(request.icmp, 0) else {
        return Outcome::Dropped(Reason::Malformed);
    };
    if request.src.is_multicast() || request.eth_src.is_multicast() {
        return Outcome::Dropped(Reason::Malformed);
    }
    match kind {
        ndp::NEIGHBOUR_SOLICIT => neighbour_solicit(lease, request, resolve, reply),
        ndp::ROUTER_SOLICIT => router_solicit(lease, offered, request, resolve, reply),
        ndp::NEIGHBOUR_ADVERT | ndp::ROUTER_ADVERT | ndp::REDIRECT => Outcome::Consumed,
        _ => Outcome::Dropped(Reason::Malformed),
    }
}

/// Asks for the guest's MAC address when it connects [ADDR-10].
///
/// Like the ARP request for IPv4, this makes a guest speak that has no reason to. `guest` is its
/// MAC address as far as known, or broadcast. The destination is the address itself and not its
/// solicited-node group, which the guest need not have joined yet.
pub fn solicit_guest(lease: &Lease, offered: Offered, guest: Mac, reply: &mut Reply) -> Outcome {
    reply.clear();
    let Some(addr) = lease.addr6.filter(|_| lease.v6 && offered.ndp) else {
        return Outcome::Consumed;
    };
    begin(lease, guest, addr, reply);
    reply.put(&[ndp::NEIGHBOUR_SOLICIT, 0, 0, 0, 0, 0, 0, 0]);
    reply.put(&addr.octets());
    finish(lease, addr, reply)
}

/// Builds an unsolicited Router Advertisement to all nodes [NDP-8]; when is up to the caller.
///
/// `router` is the MAC address that stands for our link-local address, which it comes from.
pub fn advertise(
    lease: &Lease,
    offered: Offered,
    guest: Mac,
    router: Mac,
    reply: &mut Reply,
) -> Outcome {
    reply.clear();
    if !lease.v6 || !offered.ndp || !offered.ra {
        return Outcome::Consumed;
    }
    router_advert(lease, offered, (guest, ALL_NODES), router, reply)
}

/// Tells all nodes that `addr` has this MAC address [NDP-4] [ADDR-11].
///
/// Nobody has asked, so it does not say so (RFC 4861, 4.4 and 7.2.6).
pub fn announce(
    lease: &Lease,
    offered: Offered,
    guest: Mac,
    (addr, mac): (Ipv6Addr, Mac),
    reply: &mut Reply,
) -> Outcome {
    reply.clear();
    if !lease.v6 || !offered.ndp {
        return Outcome::Consumed;
    }
    let flags = router_flag(lease, addr) | ndp::NA_OVERRIDE;
    neighbour_advert(lease, (guest, ALL_NODES), flags, (addr, mac), reply)
}

/// The address that a guest is about to use, if that is what this message finds out (RFC 4862,
/// 5.4): a Neighbour Solicitation from `::`.
pub fn tentative(request: &Request<'_>) -> Option<Ipv6Addr> {
    let is_solicit = field(request.icmp, 0) == Some([ndp::NEIGHBOUR_SOLICIT, 0]);
    if !is_solicit || !request.src.is_unspecified() || request.hop_limit != HOP_LIMIT {
        return None;
    }
    let target = Ipv6Addr::from(field::<16>(request.icmp, 8)?);
    let valid = options_are_valid(request, request.icmp.get(24..)?);
    (valid && Addr::from(target).is_unicast() && !target.is_loopback()).then_some(target)
}

/// Answers a Neighbour Solicitation, whose type and code have been looked at [NDP-2].
fn neighbour_solicit(
    lease: &Lease,
    request: &Request<'_>,
    resolve: impl Fn(Addr) -> Mac,
    reply: &mut Reply,
) -> Outcome {
    let (Some(target), Some(options)) = (field::<16>(request.icmp, 8), request.icmp.get(24..))
    else {
        return Outcome::Dropped(Reason::Malformed);
    };
    let target = Ipv6Addr::from(target);
    if target.is_multicast() || !options_are_valid(request, options) {
        return Outcome::Dropped(Reason::Malformed);
    }
    let is_dad = request.src.is_unspecified();
    let is_guests = lease.addr6 == Some(target) || request.src == target;
    if is_dad || is_guests || target.is_unspecified() || target.is_loopback() {
        return Outcome::Consumed;
    }

    let flags = router_flag(lease, target) | ndp::NA_SOLICITED | ndp::NA_OVERRIDE;
    let of = (target, resolve(target.into()));
    neighbour_advert(lease, (request.eth_src, request.src), flags, of, reply)
}

/// Set in advertisements of the gateway and of our own address.
fn router_flag(lease: &Lease, target: Ipv6Addr) -> u8 {
    let is_router = target == lease.our_ll || lease.gateway6 == Some(target);
    if is_router { ndp::NA_ROUTER } else { 0 }
}

/// Builds a Neighbour Advertisement.
fn neighbour_advert(
    lease: &Lease,
    (eth_dst, dst): (Mac, Ipv6Addr),
    flags: u8,
    (target, mac): (Ipv6Addr, Mac),
    reply: &mut Reply,
) -> Outcome {
    begin(lease, eth_dst, dst, reply);
    reply.put(&[ndp::NEIGHBOUR_ADVERT, 0, 0, 0, flags, 0, 0, 0]);
    reply.put(&target.octets());
    reply.put(&ndp::link_layer(ndp::OPT_TARGET_LL, mac));
    finish(lease, dst, reply)
}

/// Answers a Router Solicitation, whose type and code have been looked at [NDP-5].
fn router_solicit(
    lease: &Lease,
    offered: Offered,
    request: &Request<'_>,
    resolve: impl Fn(Addr) -> Mac,
    reply: &mut Reply,
) -> Outcome {
    if !request.icmp.get(8..).is_some_and(|options| options_are_valid(request, options)) {
        return Outcome::Dropped(Reason::Malformed);
    }
    if !offered.ra {
        return Outcome::Consumed;
    }
    // A guest without an address yet can only be reached as one of all nodes (RFC 4861, 6.2.6).
    let dst = if request.src.is_unspecified() { ALL_NODES } else { request.src };
    router_advert(lease, offered, (request.eth_src, dst), resolve(lease.our_ll.into()), reply)
}

/// Whether the options are complete, and do not give a link-layer address for `::`, which is
/// nobody's (RFC 4861, 6.1.1 and 7.1.1).
fn options_are_valid(request: &Request<'_>, options: &[u8]) -> bool {
    match ndp::find_option(options, ndp::OPT_SOURCE_LL) {
        Ok(source) => source.is_none() || !request.src.is_unspecified(),
        Err(ndp::BadOptions) => false,
    }
}

/// Builds a Router Advertisement [NDP-6]; `router` is the MAC address of whom it seems to be from.
fn router_advert(
    lease: &Lease,
    offered: Offered,
    (eth_dst, dst): (Mac, Ipv6Addr),
    router: Mac,
    reply: &mut Reply,
) -> Outcome {
    begin(lease, eth_dst, dst, reply);
    let managed = offered.dhcpv6 && lease.addr6.is_some();
    let flags = if managed { ndp::RA_MANAGED } else { 0 };
    // Type, code, checksum; hop limit for the guest to use, flags, router lifetime (RFC 8319, 4);
    // reachable and retransmission times unspecified.
    reply.put(&[ndp::ROUTER_ADVERT, 0, 0, 0, 255, flags, 0xff, 0xff]);
    reply.put_zeros(8);
    if let Some(addr) = lease.addr6 {
        reply.put(&ndp::prefix64(addr)); // none in local mode [NDP-9]
    }
    reply.put(&ndp::link_layer(ndp::OPT_SOURCE_LL, router));
    if lease.mtu != 0 {
        reply.put(&ndp::mtu(lease.mtu.into()));
    }
    put_dns(lease, reply);
    finish(lease, dst, reply)
}

/// Appends resolvers and search list; a search list is of no use without a resolver.
///
/// What does not fit in a packet that every IPv6 link carries is left out.
fn put_dns(lease: &Lease, reply: &mut Reply) {
    let servers = lease.dns6.get(..MAX_RDNSS).unwrap_or(&lease.dns6);
    let room = MAX_FRAME.saturating_sub(reply.frame().len());
    let spare = reply.spare();
    let room = spare.len().min(room);
    let Some((rdnss, rest)) = spare.get_mut(..room).and_then(|spare| {
        let len = ndp::rdnss(servers, ndp::INFINITE, spare)?;
        Some((len, spare.get_mut(len..)?))
    }) else {
        return;
    };
    let dnssl = ndp::dnssl(&lease.search, ndp::INFINITE, rest).unwrap_or(0);
    reply.advance(rdnss.saturating_add(dnssl));
}

/// ff02::1, all nodes on the link (RFC 4291, 2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Hop limit of every Neighbour Discovery message: a router would have lowered it.
const HOP_LIMIT: u8 = 255;
/// IPv6 next header of ICMPv6.
const ICMPV6: u8 = 58;
/// Most resolvers advertised.
const MAX_RDNSS: usize = 3;
/// Where the payload length of the IPv6 header is in a frame.
const PAYLOAD_LEN_AT: usize = 14 + 4;
/// Where the ICMPv6 message starts in a frame.
const ICMP_AT: usize = 14 + 40;
/// Where the ICMPv6 checksum is in a frame.
const CHECKSUM_AT: usize = ICMP_AT + 2;
/// An Ethernet header and the smallest IPv6 link MTU (RFC 8200, 5).
const MAX_FRAME: usize = 14 + 1280;

/// Writes Ethernet and IPv6 headers; [`finish`] fills in the length.
fn begin(lease: &Lease, eth_dst: Mac, dst: Ipv6Addr, reply: &mut Reply) {
    reply.put(&eth_dst.0);
    reply.put(&lease.our_mac.0);
    reply.put(&[0x86, 0xdd]);
    reply.put(&[0x60, 0, 0, 0, 0, 0, ICMPV6, HOP_LIMIT]);
    reply.put(&lease.our_ll.octets());
    reply.put(&dst.octets());
}

/// Fills in payload length and checksum, whose fields are zero so far.
fn finish(lease: &Lease, dst: Ipv6Addr, reply: &mut Reply) -> Outcome {
    let icmp = reply.frame().get(ICMP_AT..).unwrap_or_default();
    // A frame is far shorter than what 16 bits count.
    let len = u16::try_from(icmp.len()).unwrap_or(u16::MAX);
    let mut sum = Checksum::pseudo_v6(lease.our_ll, dst, ICMPV6, len.into());
    sum.add(icmp);
    reply.patch(PAYLOAD_LEN_AT, &len.to_be_bytes());
    reply.patch(CHECKSUM_AT, &sum.finish().to_be_bytes());
    reply.finish()
}

#[cfg(test)]
mod tests;
