//! Routes: choosing the template interface and gateway, and copying routes.

use std::net::IpAddr;

use super::attrs::{AttrBuf, align4, parse, u16_at, u32_at};
use super::message::{F_APPEND, F_CREATE, F_EXCL, Message, NEWROUTE, RouteHeader};

/// `RTA_DST`.
const RTA_DST: u16 = 1;
/// `RTA_OIF`: index of the output interface.
const RTA_OIF: u16 = 4;
/// `RTA_GATEWAY`.
const RTA_GATEWAY: u16 = 5;
/// `RTA_PREFSRC`: preferred source address.
const RTA_PREFSRC: u16 = 7;
/// `RTA_MULTIPATH`: a list of `struct rtnexthop`.
const RTA_MULTIPATH: u16 = 9;
/// `RTA_CACHEINFO`: usage and expiry.
const RTA_CACHEINFO: u16 = 12;
/// `RTA_TABLE`: table number of 32 bits.
const RTA_TABLE: u16 = 15;
/// `RTA_VIA`: gateway of another family.
const RTA_VIA: u16 = 18;
/// `RTA_NH_ID`: nexthop object.
const RTA_NH_ID: u16 = 30;

/// `RT_TABLE_MAIN`.
pub(super) const TABLE_MAIN: u8 = 254;
/// `RTN_UNICAST`.
pub(super) const UNICAST: u8 = 1;
/// `RTPROT_KERNEL`: made by the kernel for an address.
const PROTOCOL_KERNEL: u8 = 2;
/// `RTPROT_BOOT`: static.
const PROTOCOL_BOOT: u8 = 3;
/// `RTM_F_CLONED`: an entry of the route cache.
const RTM_F_CLONED: u32 = 0x200;
/// `RTNH_F_ONLINK`: the gateway is on the link whatever the addresses say.
const RTNH_F_ONLINK: u32 = 0x04;
/// The flags that configure a route; all others report its state, and a request with them fails.
/// `RTNH_F_PERVASIVE` and `RTNH_F_ONLINK`.
const CONFIGURABLE: u32 = 0x02 | RTNH_F_ONLINK;
/// Length of `struct rtnexthop`.
const NEXTHOP: usize = 8;

/// One way out of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hop {
    index: u32,
    gateway: Option<IpAddr>,
    weight: u8,
}

/// The parts of a route that selection looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    header: RouteHeader,
    dst: Option<IpAddr>,
    table: u32,
    /// Empty for routes without an output interface.
    hops: Vec<Hop>,
}

/// The outcome of template selection for one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Template {
    /// Index of the interface.
    pub(super) index: u32,
    /// By a default route, rather than by any route.
    pub(super) default: bool,
    /// Interfaces, or default routes, that would have qualified too.
    pub(super) others: usize,
}

impl Route {
    /// Reads a route message; `None` if it makes no sense.
    pub(super) fn parse(message: &Message) -> Option<Self> {
        let header = RouteHeader::parse(&message.body)?;
        let attrs = parse(message.body.get(RouteHeader::LEN..)?)?;
        let mut single = Hop { index: 0, gateway: None, weight: 0 };
        let (mut dst, mut table, mut hops) = (None, u32::from(header.table), Vec::new());
        for attr in &attrs {
            match attr.kind() {
                RTA_DST => dst = attr.ip(),
                RTA_OIF => single.index = attr.u32()?,
                RTA_GATEWAY => single.gateway = attr.ip(),
                RTA_TABLE => table = attr.u32()?,
                RTA_MULTIPATH => hops = nexthops(attr.value)?.iter().map(Hop::from).collect(),
                _ => {}
            }
        }
        if hops.is_empty() && single.index != 0 {
            hops.push(single);
        }
        Some(Self { header, dst, table, hops })
    }

    /// An ordinary unicast route of the main table of `family`.
    pub(super) fn is_ordinary(&self, family: u8) -> bool {
        self.header.family == family
            && self.header.kind == UNICAST
            && self.header.flags & RTM_F_CLONED == 0
            && self.table == u32::from(TABLE_MAIN)
    }

    fn is_default(&self) -> bool {
        self.header.dst_len == 0
    }

    /// Within 169.254.0.0/16 or fe80::/10: no sign of connectivity.
    fn is_link_local(&self) -> bool {
        match self.dst {
            Some(IpAddr::V4(a)) => a.is_link_local() && self.header.dst_len >= 16,
            Some(IpAddr::V6(a)) => a.is_unicast_link_local() && self.header.dst_len >= 10,
            None => false,
        }
    }
}

/// Picks the template interface from routes in the kernel's order, which is by metric [NL-2].
///
/// `eligible` tells interfaces that may serve from those that may not (loopback).
pub(super) fn template(routes: &[Route], eligible: impl Fn(u32) -> bool) -> Option<Template> {
    let usable = || {
        routes.iter().filter(|r| !r.is_link_local()).filter_map(|r| {
            let index = r.hops.first()?.index;
            eligible(index).then_some((r, index))
        })
    };
    let mut defaults = usable().filter(|(r, _)| r.is_default());
    if let Some((_, index)) = defaults.next() {
        return Some(Template { index, default: true, others: defaults.count() });
    }
    let (_, index) = usable().next()?;
    let mut others: Vec<u32> = usable().map(|(_, i)| i).filter(|i| *i != index).collect();
    others.sort_unstable();
    others.dedup();
    Some(Template { index, default: false, others: others.len() })
}

/// The gateway of the first default route through `index` [NL-3]: with several next hops the one
/// of greatest weight, the first of those with equal weight.
pub(super) fn gateway(routes: &[Route], index: u32) -> Option<IpAddr> {
    let through = |r: &&Route| r.is_default() && r.hops.iter().any(|h| h.index == index);
    let route = routes.iter().find(through)?;
    let hops = route.hops.iter().filter(|h| h.index == index);
    hops.rev().max_by_key(|h| h.weight)?.gateway
}

/// A request that adds the route of `message`, which leads through `from`, to interface `to`
/// instead; `None` if the route is not to be copied [NS-13].
///
/// What is left out: the state of next hops, the preferred source, nexthop objects (they do not
/// exist in the guest), expiry. Routes that leave by several interfaces, or by another one, are
/// not copied. Everything else is kept, attributes we do not know included.
///
/// A route that the kernel made for an address is added exclusively: where the guest's kernel has
/// made the same one, adding it fails with `EEXIST`, which is fine. Others are appended, to
/// preserve the order of routes with equal metrics.
pub(super) fn copy(message: &Message, family: u8, from: u32, to: u32) -> Option<Message> {
    if !Route::parse(message)?.is_ordinary(family) {
        return None;
    }
    let mut header = RouteHeader::parse(&message.body)?;
    header.flags &= CONFIGURABLE;
    let mut out = AttrBuf::default();
    let mut leaves = false;
    for attr in parse(message.body.get(RouteHeader::LEN..)?)? {
        match attr.kind() {
            RTA_PREFSRC | RTA_NH_ID | RTA_CACHEINFO => {}
            RTA_OIF if attr.u32()? != from => return None,
            RTA_OIF => {
                leaves = true;
                out.replace(&attr, &to.to_ne_bytes());
            }
            RTA_MULTIPATH => {
                leaves = true;
                out.replace(&attr, &copy_nexthops(attr.value, from, to)?);
            }
            _ => {
                out.copy(&attr);
            }
        }
    }
    let flags =
        if header.protocol == PROTOCOL_KERNEL { F_CREATE | F_EXCL } else { F_CREATE | F_APPEND };
    leaves.then(|| Message { kind: NEWROUTE, flags, body: header.body(&out) })
}

/// True for a route request with a gateway, which needs another route to be there first.
pub(super) fn has_gateway(request: &Message) -> bool {
    let attrs = request.body.get(RouteHeader::LEN..).and_then(parse).unwrap_or_default();
    attrs.iter().any(|a| matches!(a.kind(), RTA_GATEWAY | RTA_VIA | RTA_MULTIPATH))
}

/// A request that adds a default route [NS-14]. `onlink` is for gateways outside the subnet.
pub(super) fn single(gateway: IpAddr, index: u32, onlink: bool) -> Message {
    let header = RouteHeader {
        family: if gateway.is_ipv4() { super::INET } else { super::INET6 },
        table: TABLE_MAIN,
        protocol: PROTOCOL_BOOT,
        kind: UNICAST,
        flags: if onlink { RTNH_F_ONLINK } else { 0 },
        ..RouteHeader::default()
    };
    let mut attrs = AttrBuf::default();
    attrs.push_ip(RTA_GATEWAY, gateway).push_u32(RTA_OIF, index);
    Message { kind: NEWROUTE, flags: F_CREATE | F_EXCL, body: header.body(&attrs) }
}

/// The body of a dump request for a family's main table, through one interface or all.
///
/// Kernels without strict checking ignore what narrows it.
pub(super) fn dump_body(family: u8, index: Option<u32>) -> Vec<u8> {
    let header = RouteHeader { family, table: TABLE_MAIN, ..RouteHeader::default() };
    let mut attrs = AttrBuf::default();
    if let Some(index) = index {
        attrs.push_u32(RTA_OIF, index);
    }
    header.body(&attrs)
}

/// `struct rtnexthop` and its attributes.
struct Nexthop<'a> {
    flags: u8,
    hops: u8,
    index: u32,
    attrs: &'a [u8],
}

impl From<&Nexthop<'_>> for Hop {
    fn from(n: &Nexthop<'_>) -> Self {
        let attrs = parse(n.attrs).unwrap_or_default();
        let gateway = attrs.iter().find(|a| a.kind() == RTA_GATEWAY).and_then(|a| a.ip());
        Self { index: n.index, gateway, weight: n.hops }
    }
}

fn nexthops(mut bytes: &[u8]) -> Option<Vec<Nexthop<'_>>> {
    let mut out = Vec::new();
    while bytes.len() >= NEXTHOP {
        let len = usize::from(u16_at(bytes, 0)?);
        let attrs = bytes.get(NEXTHOP..len)?;
        let (flags, hops) = (*bytes.get(2)?, *bytes.get(3)?);
        out.push(Nexthop { flags, hops, index: u32_at(bytes, 4)?, attrs });
        bytes = bytes.get(align4(len)..).unwrap_or_default();
    }
    Some(out)
}

fn copy_nexthops(bytes: &[u8], from: u32, to: u32) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for hop in nexthops(bytes)? {
        if hop.index != from {
            return None;
        }
        let len = u16::try_from(NEXTHOP.checked_add(hop.attrs.len())?).ok()?;
        out.extend_from_slice(&len.to_ne_bytes());
        out.push(hop.flags & u8::try_from(CONFIGURABLE).ok()?);
        out.push(hop.hops);
        out.extend_from_slice(&to.to_ne_bytes());
        out.extend_from_slice(hop.attrs);
        out.resize(align4(out.len()), 0);
    }
    Some(out)
}

#[cfg(test)]
mod tests;
