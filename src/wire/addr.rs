//! Network addresses in one 128-bit form.
//!
//! IPv4 addresses are held as IPv4-mapped IPv6 addresses (RFC 4291, 2.5.5.2), so that both
//! families compare, hash and travel alike [FLOW-1].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 or IPv6 address; 16 bytes, network order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Addr([u8; 16]);

impl Addr {
    /// The IPv6 unspecified address, `::`.
    pub const UNSPECIFIED: Self = Self([0; 16]);

    /// From the 16 bytes of an IPv6 (or IPv4-mapped) address in network order.
    pub const fn from_octets(octets: [u8; 16]) -> Self {
        Self(octets)
    }

    /// The address as two numbers: what is quickest to hash.
    pub const fn bits(self) -> [u64; 2] {
        let [high, low] = *self.0.as_chunks::<8>().0 else { return [0; 2] };
        [u64::from_ne_bytes(high), u64::from_ne_bytes(low)]
    }

    /// The 16 bytes in network order.
    pub const fn octets(&self) -> &[u8; 16] {
        &self.0
    }

    /// The IPv4 address, if this is one.
    pub fn v4(&self) -> Option<Ipv4Addr> {
        Ipv6Addr::from(self.0).to_ipv4_mapped()
    }

    /// The IPv6 address, if this is not an IPv4 one.
    pub fn v6(&self) -> Option<Ipv6Addr> {
        if self.is_v4() { None } else { Some(Ipv6Addr::from(self.0)) }
    }

    /// True for IPv4.
    pub fn is_v4(&self) -> bool {
        self.v4().is_some()
    }

    /// `127.0.0.0/8` or `::1`.
    pub fn is_loopback(&self) -> bool {
        self.to_ip().is_loopback()
    }

    /// `0.0.0.0` or `::`.
    pub fn is_unspecified(&self) -> bool {
        self.to_ip().is_unspecified()
    }

    /// `224.0.0.0/4`, `255.255.255.255` or `ff00::/8`.
    pub fn is_multicast(&self) -> bool {
        match self.to_ip() {
            IpAddr::V4(a) => a.is_multicast() || a.is_broadcast(),
            IpAddr::V6(a) => a.is_multicast(),
        }
    }

    /// Neither unspecified nor multicast nor limited broadcast.
    pub fn is_unicast(&self) -> bool {
        !self.is_unspecified() && !self.is_multicast()
    }

    /// `169.254.0.0/16` or `fe80::/10`.
    pub fn is_link_local(&self) -> bool {
        match self.to_ip() {
            IpAddr::V4(a) => a.is_link_local(),
            IpAddr::V6(a) => a.is_unicast_link_local(),
        }
    }

    /// As the standard library's type.
    pub fn to_ip(self) -> IpAddr {
        match self.v4() {
            Some(a) => IpAddr::V4(a),
            None => IpAddr::V6(Ipv6Addr::from(self.0)),
        }
    }
}

impl From<Ipv4Addr> for Addr {
    fn from(a: Ipv4Addr) -> Self {
        Self(a.to_ipv6_mapped().octets())
    }
}

impl From<Ipv6Addr> for Addr {
    fn from(a: Ipv6Addr) -> Self {
        Self(a.octets())
    }
}

impl From<IpAddr> for Addr {
    fn from(a: IpAddr) -> Self {
        match a {
            IpAddr::V4(a) => a.into(),
            IpAddr::V6(a) => a.into(),
        }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ip().fmt(f)
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ip().fmt(f)
    }
}

/// An address and a port, of one party of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The network address.
    pub addr: Addr,
    /// The transport port (or ICMP echo identifier), host order.
    pub port: u16,
}

impl Endpoint {
    /// Both parts at once.
    pub const fn new(addr: Addr, port: u16) -> Self {
        Self { addr, port }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addr.to_ip() {
            IpAddr::V4(a) => write!(f, "{a}:{}", self.port),
            IpAddr::V6(a) => write!(f, "[{a}]:{}", self.port),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#[allow(clippy::cast_possible_truncation)]
mod tests {
    use super::*;

    // [FLOW-1] A v4 address and its mapped v6 form are the same value.
    #[test]
    fn mapped_and_plain_v4_are_equal() {
        let plain = Addr::from(Ipv4Addr::new(192, 0, 2, 1));
        let mapped = Addr::from("::ffff:192.0.2.1".parse::<Ipv6Addr>().unwrap());
        assert_eq!(plain, mapped);
        assert_eq!(plain.to_string(), "192.0.2.1");
        assert!(plain.is_v4());
    }

    #[test]
    fn classes() {
        let a = |s: &str| Addr::from(s.parse::<IpAddr>().unwrap());
        assert!(a("255.255.255.255").is_multicast());
        assert!(a("224.0.0.1").is_multicast());
        assert!(a("ff02::1").is_multicast());
        assert!(a("127.3.2.1").is_loopback());
        assert!(a("::1").is_loopback());
        assert!(a("fe80::1").is_link_local());
        assert!(a("0.0.0.0").is_unspecified());
        assert!(!a("0.0.0.0").is_unicast());
    }
}
