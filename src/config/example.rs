//! A lease for tests.
//!
//! Tests of several layers, and those outside this crate, need some lease and care about few of
//! its fields. They start from this one, so that a new field is written here and in
//! [`Lease::new`] alone. The counterpart for [`Config`](super::Config) is its `Default`, which
//! is what the program itself starts from.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Lease;
use crate::wire::Mac;

/// The router, and our own address.
const ROUTER6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

impl Lease {
    /// The guest 192.0.2.10 and 2001:db8::10 behind .1 and fe80::1, without host mapping and
    /// resolvers.
    #[doc(hidden)]
    #[must_use]
    pub fn example() -> Self {
        Self {
            v4: true,
            v6: true,
            our_mac: Mac::DEFAULT_OURS,
            addr4: Ipv4Addr::new(192, 0, 2, 10),
            prefix4: 24,
            gateway4: Ipv4Addr::new(192, 0, 2, 1),
            addr6: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10)),
            gateway6: Some(ROUTER6),
            our_ll: ROUTER6,
            mtu: 65_520,
            map_host_loopback4: None,
            map_host_loopback6: None,
            map_guest4: None,
            map_guest6: None,
            dns_match4: None,
            dns_match6: None,
            dns_host4: None,
            dns_host6: None,
            dns4: Vec::new(),
            dns6: Vec::new(),
            search: Vec::new(),
            shared4: true,
            shared6: true,
            twin4: Ipv4Addr::new(192, 0, 2, 10),
            twin6: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10)),
            hostname: None,
            fqdn: None,
            scope6: 0,
        }
    }
}
