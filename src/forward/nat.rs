//! Address translation between guest and host, as functions of the lease.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::GuestAddrs;
use crate::config::Lease;
use crate::wire::{Addr, Endpoint, proto};

/// Ports of DNS and DNS over TLS, which are redirected to the host's resolver.
const DNS_PORTS: [u16; 2] = [53, 853];

/// Where on the host a flow of the guest goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Its peer.
    pub to: Endpoint,
    /// How it gets there.
    pub via: Via,
}

/// Whether a flow of the guest leaves the host [FWD-3].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// It does not: the kernel chooses the source, and no interface but its own would do.
    Host,
    /// It does: from the address and through the interface that the user chose, if any.
    Outside,
}

/// Where on the host traffic of `protocol` from the guest to `dst` goes [FWD-2, FWD-3].
///
/// `None` if it goes nowhere: the unspecified address is no destination, and a loopback address on
/// the link must not reach the host's loopback [L2-7]. The port never changes.
pub fn outbound(lease: &Lease, protocol: u8, dst: Endpoint) -> Option<Destination> {
    if dst.addr.is_unspecified() || dst.addr.is_loopback() {
        return None;
    }
    let addr = resolver(lease, protocol, dst)
        .or_else(|| host_loopback(lease, dst.addr))
        .or_else(|| host_twin(lease, dst.addr))
        .unwrap_or(dst.addr);
    let via =
        if addr.is_loopback() || is_hosts_own(lease, addr) { Via::Host } else { Via::Outside };
    Some(Destination { to: Endpoint::new(addr, dst.port), via })
}

/// Where a forwarded port leads to, in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardTarget {
    /// The address, if the rule names one; otherwise where the guest is reached.
    pub addr: Option<Addr>,
    /// The port.
    pub port: u16,
}

/// How a flow that `peer` on the host started towards a forwarded port looks to the guest: the
/// source it sees, and the destination [FWD-4, FWD-6]. `sent_to` is the address that the peer used,
/// where it can make a difference: what was meant for many stays so.
///
/// `None` if it cannot be shown: `peer` is nobody who could be answered, no address of ours could
/// stand for it, or the guest has no address to send to. Different peers may come out as the same
/// source; the caller sees that the pair is taken and picks another source port.
pub fn inbound(
    lease: &Lease,
    guest: &GuestAddrs,
    peer: Endpoint,
    sent_to: Option<Addr>,
    to: ForwardTarget,
) -> Option<(Endpoint, Endpoint)> {
    if !peer.addr.is_unicast() || peer.port == 0 || to.port == 0 {
        return None;
    }
    let mapped = mapped_loopback(lease, peer.addr).or_else(|| mapped_twin(lease, peer.addr));
    let source = match mapped {
        Some(mapped) => mapped,
        None if accessible(lease, guest, peer.addr) => peer.addr,
        None => our_address(lease, peer.addr)?,
    };
    let destination = match (to.addr, sent_to.filter(|a| is_for_many(lease, *a))) {
        (Some(addr), _) | (None, Some(addr)) if addr.is_v4() == source.is_v4() => addr,
        (None, None) => guest.reached_from(source)?,
        _ => return None,
    };
    Some((Endpoint::new(source, peer.port), Endpoint::new(destination, to.port)))
}

/// How the guest sees a neighbour of the host [ADDR-11]; `None` if it does not: it has that address
/// itself, or nobody can.
pub fn as_seen(lease: &Lease, guest: &GuestAddrs, neighbour: Addr) -> Option<Addr> {
    mapped_loopback(lease, neighbour)
        .or_else(|| mapped_twin(lease, neighbour))
        .or_else(|| Some(neighbour).filter(|a| accessible(lease, guest, *a)))
        .filter(Addr::is_unicast)
}

/// How the guest sees whoever reports an error about something it sent: a router, or the host.
/// `None` if nobody could have sent it from there.
pub fn reporter(lease: &Lease, guest: Addr, offender: Addr) -> Option<Addr> {
    if !offender.is_unicast() || offender.is_v4() != guest.is_v4() {
        return None;
    }
    let other = !is_assigned(lease, offender) && !offender.is_loopback() && offender != guest;
    mapped_loopback(lease, offender)
        .or_else(|| mapped_twin(lease, offender))
        .or_else(|| Some(offender).filter(|_| other))
        .or_else(|| our_address(lease, offender))
}

/// The host's resolver, for queries to the address that is matched. Without a resolver there is
/// no redirection: queries to nowhere would help nobody.
fn resolver(lease: &Lease, protocol: u8, dst: Endpoint) -> Option<Addr> {
    if !matches!(protocol, proto::TCP | proto::UDP) || !DNS_PORTS.contains(&dst.port) {
        return None;
    }
    let host = match dst.addr.to_ip() {
        IpAddr::V4(a) if lease.dns_match4 == Some(a) => lease.dns_host4.map(Addr::from),
        IpAddr::V6(a) if lease.dns_match6 == Some(a) => lease.dns_host6.map(Addr::from),
        _ => None,
    };
    host.filter(|a| !a.is_unspecified())
}

/// The host's loopback address, if `addr` is what stands for it.
fn host_loopback(lease: &Lease, addr: Addr) -> Option<Addr> {
    match addr.to_ip() {
        IpAddr::V4(a) if lease.map_host_loopback4 == Some(a) => Some(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(a) if lease.map_host_loopback6 == Some(a) => Some(Ipv6Addr::LOCALHOST.into()),
        _ => None,
    }
}

/// What stands for the host's loopback address, if `addr` is exactly that.
fn mapped_loopback(lease: &Lease, addr: Addr) -> Option<Addr> {
    match addr.to_ip() {
        IpAddr::V4(Ipv4Addr::LOCALHOST) => lease.map_host_loopback4.map(Addr::from),
        IpAddr::V6(Ipv6Addr::LOCALHOST) => lease.map_host_loopback6.map(Addr::from),
        _ => None,
    }
}

/// The host's address that the guest has too, or had, if `addr` is what stands for it.
fn host_twin(lease: &Lease, addr: Addr) -> Option<Addr> {
    match addr.to_ip() {
        IpAddr::V4(a) if lease.map_guest4 == Some(a) => Some(lease.twin4.into()),
        IpAddr::V6(a) if lease.map_guest6 == Some(a) => lease.twin6.map(Addr::from),
        _ => None,
    }
}

/// What stands for the host's address that the guest has too, if `addr` is that.
fn mapped_twin(lease: &Lease, addr: Addr) -> Option<Addr> {
    match addr.to_ip() {
        IpAddr::V4(a) if a == lease.addr4 || a == lease.twin4 => lease.map_guest4.map(Addr::from),
        IpAddr::V6(a) if lease.addr6 == Some(a) || lease.twin6 == Some(a) => {
            lease.map_guest6.map(Addr::from)
        }
        _ => None,
    }
}

/// True if the host has this address, which is the guest's, too, or was [FWD-9].
fn is_hosts_own(lease: &Lease, addr: Addr) -> bool {
    match addr.to_ip() {
        IpAddr::V4(a) => lease.shared4 && a == lease.twin4,
        IpAddr::V6(a) => lease.shared6 && lease.twin6 == Some(a),
    }
}

/// True for multicast and for broadcast, also of the subnet.
pub fn is_for_many(lease: &Lease, addr: Addr) -> bool {
    let hosts = u32::MAX.checked_shr(lease.prefix4.into()).unwrap_or(0);
    let subnet = |a: Ipv4Addr| hosts > 1 && u32::from(a) == u32::from(lease.addr4) | hosts;
    addr.is_multicast() || addr.v4().is_some_and(subnet)
}

/// True if the guest can answer this address: it does not take it for its own.
fn accessible(lease: &Lease, guest: &GuestAddrs, addr: Addr) -> bool {
    !is_assigned(lease, addr) && !addr.is_loopback() && !guest.has(addr)
}

fn is_assigned(lease: &Lease, addr: Addr) -> bool {
    match addr.to_ip() {
        IpAddr::V4(a) => a == lease.addr4,
        IpAddr::V6(a) => lease.addr6 == Some(a),
    }
}

/// Our own address on the link, of the same family [ADDR-4].
pub fn our_address(lease: &Lease, like: Addr) -> Option<Addr> {
    let ours: Addr = if like.is_v4() { lease.gateway4.into() } else { lease.our_ll.into() };
    Some(ours).filter(|a| !a.is_unspecified())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
pub(super) mod tests;
