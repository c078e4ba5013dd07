//! The network identity the guest sees.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::wire::Mac;

/// Everything the guest is told, and everything address translation needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// IPv4 is in use.
    pub v4: bool,
    /// IPv6 is in use.
    pub v6: bool,
    /// The MAC address we present.
    pub our_mac: Mac,
    /// IPv4 address assigned to the guest.
    pub addr4: Ipv4Addr,
    /// Its prefix length.
    pub prefix4: u8,
    /// IPv4 gateway the guest sees; unspecified when there is none.
    pub gateway4: Ipv4Addr,
    /// IPv6 address assigned to the guest; `None` in local mode.
    pub addr6: Option<Ipv6Addr>,
    /// IPv6 gateway the guest sees (may be global or link-local).
    pub gateway6: Option<Ipv6Addr>,
    /// Our link-local address on the link [ADDR-4].
    pub our_ll: Ipv6Addr,
    /// MTU of the link; 0 means "do not assign".
    pub mtu: u16,
    /// Guest-visible address that means the host's IPv4 loopback [ADDR-6].
    pub map_host_loopback4: Option<Ipv4Addr>,
    /// Guest-visible address that means the host's IPv6 loopback.
    pub map_host_loopback6: Option<Ipv6Addr>,
    /// Guest-visible IPv4 address whose port 53 and 853 traffic goes to `dns_host4`.
    pub dns_match4: Option<Ipv4Addr>,
    /// Likewise for IPv6.
    pub dns_match6: Option<Ipv6Addr>,
    /// The host's resolver for intercepted IPv4 queries.
    pub dns_host4: Option<Ipv4Addr>,
    /// Likewise for IPv6.
    pub dns_host6: Option<Ipv6Addr>,
    /// IPv4 resolvers to advertise, at most three.
    pub dns4: Vec<Ipv4Addr>,
    /// IPv6 resolvers to advertise, at most three.
    pub dns6: Vec<Ipv6Addr>,
    /// Search domains to advertise.
    pub search: Vec<String>,
    /// Index of the host interface that IPv6 link-local destinations use as scope; 0 if none.
    pub scope6: u32,
}
