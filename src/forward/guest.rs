//! Addresses the guest was seen to use [ADDR-8].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::Lease;
use crate::wire::Addr;

/// The guest's addresses: assigned ones, until it turns out to use others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestAddrs {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
    link_local: Option<Ipv6Addr>,
    fixed4: bool,
    fixed6: bool,
    /// `v6` was seen in use, rather than only assigned or announced.
    used6: bool,
    /// Others that it has, whether it uses them or not.
    others: Vec<Addr>,
}

impl GuestAddrs {
    /// What is known before the guest has sent anything.
    ///
    /// A family that is `fixed` (the user gave its address) learns nothing, so that strangers
    /// bridged to the guest's link cannot divert its flows.
    pub fn new(lease: &Lease, fixed4: bool, fixed6: bool) -> Self {
        let v4 = Some(lease.addr4).filter(|a| lease.v4 && !a.is_unspecified());
        let v6 = lease.addr6.filter(|a| lease.v6 && !a.is_unspecified());
        Self { v4, v6, link_local: None, fixed4, fixed6, used6: false, others: Vec::new() }
    }

    /// The same, of a guest that was given these addresses.
    #[must_use]
    pub fn with(self, given: &[IpAddr]) -> Self {
        Self { others: given.iter().copied().map(Addr::from).collect(), ..self }
    }

    /// Learns from the source of a packet the guest sent, or of any other address that it is
    /// known to have. Sources that nobody can have teach nothing.
    pub fn learn(&mut self, source: Addr) {
        if !source.is_unicast() || source.is_loopback() {
            return;
        }
        match source.to_ip() {
            IpAddr::V4(a) if !self.fixed4 => self.v4 = Some(a),
            IpAddr::V4(_) => {}
            IpAddr::V6(a) if a.is_unicast_link_local() => {
                self.link_local = Some(a);
                if self.v6.is_none() && !self.fixed6 {
                    self.v6 = Some(a);
                }
            }
            IpAddr::V6(a) if !self.fixed6 => (self.v6, self.used6) = (Some(a), true),
            IpAddr::V6(_) => {}
        }
    }

    /// The guest is about to use this address: it has asked whether anybody else does. So peers
    /// can reach it before it has sent anything from there.
    ///
    /// An address of the advertised prefix counts only as long as no other was seen in use, which
    /// would still do. A link-local one is the first thing that a guest asks about when its link
    /// comes up: what was seen before may be of another guest.
    pub fn expect(&mut self, lease: &Lease, address: Ipv6Addr) {
        if address.is_unicast_link_local() {
            self.used6 = false;
            return self.learn(address.into());
        }
        let prefix = |a: Ipv6Addr| a.to_bits() >> 64;
        let advertised = lease.addr6.is_some_and(|a| prefix(a) == prefix(address));
        if advertised && !self.fixed6 && !self.used6 {
            self.v6 = Some(address);
        }
    }

    /// Where to reach the guest from `source`; `None` if it has no address of that family.
    ///
    /// From a link-local address it is reached at its own one. As long as that is unknown the
    /// other one will do, which is on the same link.
    pub fn reached_from(&self, source: Addr) -> Option<Addr> {
        if source.is_v4() {
            self.v4.map(Addr::from)
        } else if source.is_link_local() {
            self.link_local.or(self.v6).map(Addr::from)
        } else {
            self.v6.map(Addr::from)
        }
    }

    /// True if the guest takes this address for its own, and so drops what comes from there.
    pub fn has(&self, addr: Addr) -> bool {
        let used = match addr.to_ip() {
            IpAddr::V4(a) => self.v4 == Some(a),
            IpAddr::V6(a) => self.v6 == Some(a) || self.link_local == Some(a),
        };
        used || self.others.contains(&addr)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::forward::nat::tests::{addr, lease};

    fn reached(g: &GuestAddrs, source: &str) -> Option<String> {
        g.reached_from(addr(source)).map(|a| a.to_string())
    }

    // [ADDR-8] The last source counts; impossible ones teach nothing.
    #[test]
    fn learns_the_last_source() {
        let mut g = GuestAddrs::new(&lease(), false, false);
        assert_eq!(reached(&g, "198.51.100.7").unwrap(), "192.0.2.10");
        assert_eq!(reached(&g, "2001:db8:1::7").unwrap(), "2001:db8::10");
        for nobody in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "::", "::1", "ff02::1"] {
            g.learn(addr(nobody));
        }
        assert_eq!(g, GuestAddrs::new(&lease(), false, false));
        g.learn(addr("192.0.2.99"));
        g.learn(addr("2001:db8::99"));
        assert_eq!(reached(&g, "198.51.100.7").unwrap(), "192.0.2.99");
        assert_eq!(reached(&g, "2001:db8:1::7").unwrap(), "2001:db8::99");
        assert!(g.has(addr("192.0.2.99")) && !g.has(addr("192.0.2.10")));
    }

    // [ADDR-8] An address given by the user stays; a link-local one is learnt all the same.
    #[test]
    fn fixed_families_do_not_learn() {
        let mut g = GuestAddrs::new(&lease(), true, true);
        for a in ["192.0.2.99", "2001:db8::99", "fe80::99"] {
            g.learn(addr(a));
        }
        assert_eq!(reached(&g, "198.51.100.7").unwrap(), "192.0.2.10");
        assert_eq!(reached(&g, "2001:db8:1::7").unwrap(), "2001:db8::10");
        assert_eq!(reached(&g, "fe80::1").unwrap(), "fe80::99");
    }

    // [ADDR-8] [ADDR-5] Without an assigned address the first link-local one stands in.
    #[test]
    fn local_mode_takes_the_link_local_address() {
        let mut g = GuestAddrs::new(&Lease { addr6: None, ..lease() }, false, false);
        assert_eq!(reached(&g, "2001:db8:1::7"), None);
        g.learn(addr("fe80::99"));
        assert_eq!(reached(&g, "2001:db8:1::7").unwrap(), "fe80::99");
        g.learn(addr("fe80::98"));
        assert_eq!(reached(&g, "2001:db8:1::7").unwrap(), "fe80::99");
        assert_eq!(reached(&g, "fe80::1").unwrap(), "fe80::98");
    }

    // [ADDR-8] What the guest is about to use counts until something is used.
    #[test]
    fn tentative_addresses_are_expected() {
        let v6 = |s: &str| s.parse::<Ipv6Addr>().unwrap();
        let global = |g: &GuestAddrs| reached(g, "2001:db8:1::7").unwrap();
        let mut g = GuestAddrs::new(&lease(), false, false);
        g.expect(&lease(), v6("fe80::99"));
        assert_eq!(reached(&g, "fe80::1").unwrap(), "fe80::99");
        assert_eq!(global(&g), "2001:db8::10");
        g.expect(&lease(), v6("fd00::99"));
        assert_eq!(global(&g), "2001:db8::10", "not of the advertised prefix");
        g.expect(&lease(), v6("2001:db8::99"));
        assert_eq!(global(&g), "2001:db8::99");
        g.learn(addr("2001:db8::98"));
        g.expect(&lease(), v6("2001:db8::97"));
        assert_eq!(global(&g), "2001:db8::98", "is in use");
        // The guest starts again.
        g.expect(&lease(), v6("fe80::96"));
        assert_eq!(global(&g), "2001:db8::98");
        g.expect(&lease(), v6("2001:db8::97"));
        assert_eq!(global(&g), "2001:db8::97");

        let mut fixed = GuestAddrs::new(&lease(), false, true);
        fixed.expect(&lease(), v6("2001:db8::99"));
        assert_eq!(global(&fixed), "2001:db8::10");
        let local = Lease { addr6: None, ..lease() };
        let mut g = GuestAddrs::new(&local, false, false);
        g.expect(&local, v6("2001:db8::99"));
        assert_eq!(reached(&g, "2001:db8:1::7"), None);
    }

    #[test]
    fn disabled_families_have_no_address() {
        let g = GuestAddrs::new(&Lease { v4: false, v6: false, ..lease() }, false, false);
        assert_eq!(reached(&g, "198.51.100.7"), None);
        assert_eq!(reached(&g, "2001:db8:1::7"), None);
    }
}
