//! Addresses of the template interface: choosing one, and copying them all.

use std::net::IpAddr;

use super::attrs::{AttrBuf, parse};
use super::message::{AddrHeader, DELADDR, F_CREATE, Message, NEWADDR};

/// `IFA_ADDRESS`: the peer's address on point-to-point links, else the address itself.
const IFA_ADDRESS: u16 = 1;
/// `IFA_LOCAL`: the interface's own address; absent for IPv6 without a peer.
const IFA_LOCAL: u16 = 2;
/// `IFA_LABEL`: interface name, with an alias suffix at most.
const IFA_LABEL: u16 = 3;
/// `IFA_BROADCAST`.
const IFA_BROADCAST: u16 = 4;
/// `IFA_CACHEINFO`: lifetimes.
const IFA_CACHEINFO: u16 = 6;
/// `IFA_FLAGS`: all 32 flag bits.
const IFA_FLAGS: u16 = 8;

/// `IFA_F_NODAD`: usable at once, without duplicate address detection.
const F_NODAD: u32 = 0x02;
/// `IFA_F_DEPRECATED`.
const F_DEPRECATED: u32 = 0x20;
/// What is state of the host's address rather than configuration: `IFA_F_SECONDARY` (also
/// `IFA_F_TEMPORARY`), `IFA_F_DADFAILED`, deprecated, tentative. `IFA_F_MANAGETEMPADDR` goes too:
/// it would make the guest's kernel invent addresses that nobody told us about.
const F_STATE: u32 = 0x01 | 0x08 | F_DEPRECATED | 0x40 | 0x100;

/// `RT_SCOPE_LINK`; numerically smaller scopes are wider.
const SCOPE_LINK: u8 = 253;

/// The parts of an address message that selection looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// Interface index.
    pub(super) index: u32,
    /// The interface's own address.
    pub(super) ip: IpAddr,
    /// Prefix length.
    pub(super) prefix: u8,
    /// Scope.
    pub(super) scope: u8,
    /// All flag bits.
    flags: u32,
}

impl Address {
    /// Reads an address message; `None` if it makes no sense.
    pub(super) fn parse(message: &Message) -> Option<Self> {
        let header = AddrHeader::parse(&message.body)?;
        let attrs = parse(message.body.get(AddrHeader::LEN..)?)?;
        let (mut local, mut address, mut flags) = (None, None, u32::from(header.flags));
        for attr in &attrs {
            match attr.kind() {
                IFA_LOCAL => local = attr.ip(),
                IFA_ADDRESS => address = attr.ip(),
                IFA_FLAGS => flags |= attr.u32()?,
                _ => {}
            }
        }
        let ip = local.or(address)?;
        let family = if ip.is_ipv4() { super::INET } else { super::INET6 };
        if family != header.family {
            return None;
        }
        Some(Self { index: header.index, ip, prefix: header.prefix, scope: header.scope, flags })
    }

    /// Scope wider than the link, and not on its way out [NL-4].
    pub(super) fn is_usable(&self) -> bool {
        self.scope < SCOPE_LINK && self.flags & F_DEPRECATED == 0
    }

    /// An IPv6 link-local address.
    pub(super) fn is_link_local6(&self) -> bool {
        matches!(self.ip, IpAddr::V6(a) if a.is_unicast_link_local())
    }
}

/// The address to give to the guest: longest prefix, first among equals [NL-4].
///
/// An IPv4 address of link scope is better than none, but worse than any other: it is not copied
/// to the namespace either.
pub(super) fn choose(addrs: &[Address]) -> Option<Address> {
    let longest =
        |candidates: Vec<&Address>| candidates.into_iter().rev().max_by_key(|a| a.prefix).copied();
    longest(addrs.iter().filter(|a| a.is_usable()).collect()).or_else(|| {
        longest(addrs.iter().filter(|a| a.ip.is_ipv4() && a.flags & F_DEPRECATED == 0).collect())
    })
}

/// A link-local IPv6 address: longest prefix, first among equals.
pub(super) fn choose_link_local(addrs: &[Address]) -> Option<Address> {
    addrs.iter().rev().filter(|a| a.is_link_local6()).max_by_key(|a| a.prefix).copied()
}

/// A request that adds the address of `message` to interface `index` [NS-11].
///
/// Lifetimes and label are left out (the guest's address must not expire with the host's lease),
/// the address is usable at once, everything else is kept. `prefix`, if given, replaces the prefix
/// length of an address without a peer, and removes the broadcast address that went with it.
pub(super) fn copy(message: &Message, index: u32, prefix: Option<u8>) -> Option<Message> {
    let mut header = AddrHeader::parse(&message.body)?;
    let attrs = parse(message.body.get(AddrHeader::LEN..)?)?;
    let value = |kind| attrs.iter().find(|a| a.kind() == kind).map(|a| a.value);
    let peer = value(IFA_LOCAL).is_some() && value(IFA_LOCAL) != value(IFA_ADDRESS);
    let prefix = prefix.filter(|p| !peer && *p != header.prefix);
    header.index = index;
    header.prefix = prefix.unwrap_or(header.prefix);
    header.flags = low_bits(clean(u32::from(header.flags)));

    let mut out = AttrBuf::default();
    for attr in &attrs {
        match attr.kind() {
            IFA_LABEL | IFA_CACHEINFO => {}
            IFA_BROADCAST if prefix.is_some() => {}
            IFA_FLAGS => {
                out.replace(attr, &clean(attr.u32()?).to_ne_bytes());
            }
            _ => {
                out.copy(attr);
            }
        }
    }
    Some(Message { kind: NEWADDR, flags: 0, body: header.body(&out) })
}

/// A request that adds one address [NS-12].
pub(super) fn single(ip: IpAddr, prefix: u8, index: u32) -> Message {
    let family = if ip.is_ipv4() { super::INET } else { super::INET6 };
    let header = AddrHeader { family, prefix, flags: low_bits(F_NODAD), scope: 0, index };
    let mut attrs = AttrBuf::default();
    // Without IFA_ADDRESS there would be no route to the subnet.
    attrs.push_ip(IFA_LOCAL, ip).push_ip(IFA_ADDRESS, ip).push_u32(IFA_FLAGS, F_NODAD);
    Message { kind: NEWADDR, flags: 0, body: header.body(&attrs) }
}

/// Requests that remove an IPv6 link-local address and add it again, usable at once [NS-10].
pub(super) fn add_again(address: &Address, index: u32) -> [Message; 2] {
    let flags = clean(address.flags);
    let header = AddrHeader {
        family: super::INET6,
        prefix: address.prefix,
        flags: low_bits(flags),
        scope: SCOPE_LINK,
        index,
    };
    let mut attrs = AttrBuf::default();
    attrs.push_ip(IFA_LOCAL, address.ip).push_ip(IFA_ADDRESS, address.ip);
    let del = Message { kind: DELADDR, flags: 0, body: header.body(&attrs) };
    attrs.push_u32(IFA_FLAGS, flags);
    [del, Message { kind: NEWADDR, flags: F_CREATE, body: header.body(&attrs) }]
}

fn clean(flags: u32) -> u32 {
    (flags & !F_STATE) | F_NODAD
}

fn low_bits(flags: u32) -> u8 {
    flags.to_ne_bytes()[if cfg!(target_endian = "big") { 3 } else { 0 }]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn message(header: AddrHeader, attrs: &[(u16, &[u8])]) -> Message {
        let mut buf = AttrBuf::default();
        for (kind, value) in attrs {
            buf.push(*kind, value);
        }
        Message { kind: NEWADDR, flags: 0, body: header.body(&buf) }
    }

    fn v4(prefix: u8, last: u8, flags: u32, scope: u8) -> Address {
        let ip = IpAddr::from([192, 0, 2, last]);
        Address { index: 2, ip, prefix, scope, flags }
    }

    // [NL-4] On a point-to-point link the own address counts, not the peer's.
    #[test]
    fn local_wins_over_address() {
        let h = AddrHeader { family: 2, prefix: 32, flags: 0x80, scope: 0, index: 5 };
        let m = message(h, &[(IFA_ADDRESS, &[10, 8, 0, 1]), (IFA_LOCAL, &[10, 8, 0, 6])]);
        let a = Address::parse(&m).unwrap();
        assert_eq!(a.ip, IpAddr::from([10, 8, 0, 6]));
        assert_eq!((a.index, a.prefix), (5, 32));
    }

    // [NL-4] Longest prefix, first among equals; deprecated ones are skipped.
    #[test]
    fn choice() {
        let list = [v4(24, 1, 0, 0), v4(28, 2, F_DEPRECATED, 0), v4(26, 3, 0, 0), v4(26, 4, 0, 0)];
        assert_eq!(choose(&list).unwrap().ip, IpAddr::from([192, 0, 2, 3]));
        assert_eq!(choose(&[v4(28, 2, F_DEPRECATED, 0)]), None);
        let list = [v4(32, 1, 0, SCOPE_LINK), v4(24, 2, 0, 0)];
        assert_eq!(choose(&list).unwrap().prefix, 24);
        assert_eq!(choose(&list[..1]).unwrap().prefix, 32);
    }

    // [NL-4] The /128 from DHCPv6 rather than the /64; link-local apart.
    #[test]
    fn choice_v6() {
        let v6 = |s: &str, prefix, scope| Address {
            index: 2,
            ip: s.parse().unwrap(),
            prefix,
            scope,
            flags: 0,
        };
        let list = [
            v6("2001:db8::1", 64, 0),
            v6("2001:db8::2", 128, 0),
            v6("fec0::1", 64, 200),
            v6("fe80::1", 64, SCOPE_LINK),
        ];
        assert_eq!(choose(&list).unwrap().ip, list[1].ip);
        assert_eq!(choose(&list[2..]).unwrap().ip, list[2].ip);
        assert_eq!(choose(&list[3..]), None);
        assert_eq!(choose_link_local(&list).unwrap().ip, list[3].ip);
    }

    #[test]
    fn nonsense_is_refused() {
        let h = AddrHeader { family: 10, prefix: 24, ..Default::default() };
        assert_eq!(Address::parse(&message(h, &[(IFA_LOCAL, &[1, 2, 3, 4])])), None);
        assert_eq!(Address::parse(&message(h, &[])), None);
        assert_eq!(Address::parse(&message(h, &[(IFA_ADDRESS, &[1, 2, 3])])), None);
    }

    // [NS-11] Lifetimes and label go, NODAD comes in both fields, unknown attributes stay.
    #[test]
    fn copies() {
        let h = AddrHeader { family: 10, prefix: 64, flags: 0xe1, scope: 0, index: 5 };
        let ip = [0x20u8; 16];
        let m = message(
            h,
            &[
                (IFA_ADDRESS, &ip),
                (IFA_CACHEINFO, &[1; 16]),
                (IFA_FLAGS, &0x2e1u32.to_ne_bytes()),
                (IFA_LABEL, b"eth0\0"),
                (0x8123, b"new"),
            ],
        );
        let c = copy(&m, 9, None).unwrap();
        let header = AddrHeader::parse(&c.body).unwrap();
        assert_eq!(header, AddrHeader { index: 9, flags: 0x82, ..h });
        let attrs = parse(&c.body[AddrHeader::LEN..]).unwrap();
        let kinds: Vec<_> = attrs.iter().map(|a| a.kind()).collect();
        assert_eq!(kinds, [IFA_ADDRESS, IFA_FLAGS, 0x0123]);
        assert_eq!(attrs[1].u32(), Some(0x282));
        assert_eq!(attrs[2].value, b"new");
    }

    // [W-8] A netmask given by the user applies to copied addresses, but not to peers.
    #[test]
    fn prefix_override() {
        let h = AddrHeader { family: 2, prefix: 24, ..Default::default() };
        let own: &[u8] = &[192, 0, 2, 5];
        let m = message(h, &[(IFA_ADDRESS, own), (IFA_LOCAL, own), (IFA_BROADCAST, own)]);
        let c = copy(&m, 1, Some(16)).unwrap();
        assert_eq!(AddrHeader::parse(&c.body).unwrap().prefix, 16);
        assert_eq!(parse(&c.body[AddrHeader::LEN..]).unwrap().len(), 2);
        let m = message(h, &[(IFA_ADDRESS, &[192, 0, 2, 1]), (IFA_LOCAL, own)]);
        assert_eq!(AddrHeader::parse(&copy(&m, 1, Some(16)).unwrap().body).unwrap().prefix, 24);
    }
}
