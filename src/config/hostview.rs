//! A snapshot of the host's network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::Mac;

/// An IPv4 address of the template interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostAddr4 {
    /// The interface's own address (`IFA_LOCAL`).
    pub addr: Ipv4Addr,
    /// Prefix length.
    pub prefix: u8,
}

/// An IPv6 address of the template interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostAddr6 {
    /// The address.
    pub addr: Ipv6Addr,
    /// Prefix length.
    pub prefix: u8,
}

/// What the host knows about the Ethernet address of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Index of the interface it is reached through.
    pub ifindex: u32,
    /// Its address.
    pub addr: IpAddr,
    /// Its Ethernet address; `None` if it is not known, or no longer.
    pub mac: Option<Mac>,
}

/// What one address family looks like through its template interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFamily<A> {
    /// Index of the template interface.
    pub ifindex: u32,
    /// Its name.
    pub ifname: String,
    /// The chosen address: longest prefix, first among equals [NL-4].
    pub addr: A,
    /// The default gateway, if there is one [NL-3].
    pub gateway: Option<IpAddr>,
    /// IPv6 only: a link-local address of the interface [NL-4].
    pub link_local: Option<Ipv6Addr>,
}

/// The host's network as far as we use it. Replaceable while running.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostView {
    /// IPv4, or `None` when the host has no usable interface (local mode, NL-7) or it is disabled.
    pub v4: Option<HostFamily<HostAddr4>>,
    /// IPv6, likewise.
    pub v6: Option<HostFamily<HostAddr6>>,
    /// Resolvers from resolv.conf, in order, scope suffix removed.
    pub resolvers: Vec<IpAddr>,
    /// Search domains from resolv.conf.
    pub search: Vec<String>,
}
