//! Which Ethernet address stands for whom on the guest's link [ADDR-11].
//!
//! # Theory of operation
//!
//! The guest sees the real Ethernet addresses of the host's neighbours, as far as the host knows
//! them: in answers to its questions, and as the source of their frames. Whoever is not known is
//! behind the guest's router, and the router, if it is not known either, is us. So are, whatever
//! the host knows, the addresses that stand for the host itself, and our own: they are *pinned*.
//!
//! Whatever the guest is told, each of its frames comes to us. So nothing depends on it that the
//! table is complete or up to date.
//!
//! The table is sorted, of fixed capacity, and looked into for each frame to the guest. Once it is
//! full the entry that was heard of least recently makes room, but never the router's.

use crate::config::Lease;
use crate::wire::{Addr, Mac};

/// Most entries, pinned ones included.
const CAPACITY: usize = 512;

/// Ethernet addresses on the guest's link.
#[derive(Clone, Debug)]
pub struct Neighbours {
    ours: Mac,
    /// The guest's routers: IPv4, IPv6.
    gateways: [Option<Addr>; 2],
    /// What stands for them, and for all who are not in the table.
    routers: [Mac; 2],
    /// In the order of addresses.
    entries: Vec<Entry>,
    /// Counts what was heard.
    heard: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    addr: Addr,
    mac: Mac,
    /// When it was last heard of.
    heard: u64,
    /// Stays as it is.
    pinned: bool,
}

impl Neighbours {
    /// Only us.
    pub fn new(lease: &Lease) -> Self {
        let gateway4 = Some(lease.gateway4).filter(|a| !a.is_unspecified());
        let mut new = Self {
            ours: lease.our_mac,
            gateways: [gateway4.map(Addr::from), lease.gateway6.map(Addr::from)],
            routers: [lease.our_mac; 2],
            entries: Vec::with_capacity(CAPACITY),
            heard: 0,
        };
        let v4 = [lease.map_host_loopback4, lease.map_guest4].map(|a| a.map(Addr::from));
        let v6 = [lease.map_host_loopback6, lease.map_guest6].map(|a| a.map(Addr::from));
        // We speak from our link-local address, unless it is the router's.
        let own = Some(Addr::from(lease.our_ll)).filter(|a| !new.gateways.contains(&Some(*a)));
        for addr in v4.into_iter().chain(v6).chain([own]).flatten() {
            let heard = u64::MAX;
            new.put(Entry { addr, mac: lease.our_mac, heard, pinned: true });
        }
        new
    }

    /// The Ethernet address that stands for `addr`.
    pub fn mac_of(&self, addr: Addr) -> Mac {
        let [router4, router6] = self.routers;
        match self.entry(addr) {
            Some(entry) => entry.mac,
            None if addr.is_v4() => router4,
            None => router6,
        }
    }

    /// True for the guest's router.
    pub fn is_router(&self, addr: Addr) -> bool {
        self.gateways.contains(&Some(addr))
    }

    /// True if `addr` is somebody's, so that nobody else can have it.
    pub fn is_known(&self, addr: Addr) -> bool {
        self.entry(addr).is_some()
    }

    /// `addr` has this Ethernet address. True if that is news the guest should be told: the
    /// address was not known before, and so the guest may have taken us for it.
    ///
    /// Later changes are not told: the guest must believe who it asks, and not who shouts.
    pub fn learn(&mut self, addr: Addr, mac: Mac) -> bool {
        if !mac.is_station() {
            self.forget(addr);
            return false;
        }
        self.heard = self.heard.saturating_add(1);
        let heard = self.heard;
        if let Ok(at) = self.place(addr) {
            if let Some(entry) = self.entries.get_mut(at).filter(|e| !e.pinned) {
                (entry.mac, entry.heard) = (mac, heard);
                self.find_routers();
            }
            return false;
        }
        self.make_room();
        self.put(Entry { addr, mac, heard, pinned: false });
        mac != self.ours
    }

    /// The Ethernet address of `addr` is not known any more.
    pub fn forget(&mut self, addr: Addr) {
        self.retain(|known| known != addr);
    }

    /// Forgets all who are not to be kept.
    pub fn retain(&mut self, keep: impl Fn(Addr) -> bool) {
        self.entries.retain(|e| e.pinned || keep(e.addr));
        self.find_routers();
    }

    fn entry(&self, addr: Addr) -> Option<&Entry> {
        self.place(addr).ok().and_then(|at| self.entries.get(at))
    }

    fn place(&self, addr: Addr) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&addr, |e| e.addr)
    }

    /// Adds an entry whose address is not there yet.
    fn put(&mut self, entry: Entry) {
        if let Err(at) = self.place(entry.addr) {
            self.entries.insert(at, entry);
        }
        self.find_routers();
    }

    fn make_room(&mut self) {
        if self.entries.len() < CAPACITY {
            return;
        }
        let gateways = self.gateways;
        let may_go = |e: &&Entry| !e.pinned && !gateways.contains(&Some(e.addr));
        let oldest = self.entries.iter().filter(may_go).min_by_key(|e| e.heard);
        if let Some(addr) = oldest.map(|e| e.addr) {
            self.entries.retain(|e| e.addr != addr);
        }
    }

    fn find_routers(&mut self) {
        let mac = |gateway: Option<Addr>| gateway.and_then(|a| self.entry(a)).map(|e| e.mac);
        self.routers = self.gateways.map(|gateway| mac(gateway).unwrap_or(self.ours));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use crate::forward::nat::tests::addr;

    const ROUTER: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const NEIGHBOUR: Mac = Mac([2, 0, 0, 0, 0, 7]);
    const OURS: Mac = Mac::DEFAULT_OURS;

    fn mapped() -> Lease {
        Lease {
            map_host_loopback4: Some("192.0.2.1".parse().unwrap()),
            map_host_loopback6: Some("fe80::1".parse().unwrap()),
            map_guest4: Some("192.0.2.99".parse().unwrap()),
            ..Lease::example()
        }
    }

    // [ADDR-11] What stands for the host is ours, whatever the host says it is.
    #[test]
    fn the_hosts_addresses_are_pinned() {
        let mut table = Neighbours::new(&mapped());
        for a in ["192.0.2.1", "192.0.2.99", "fe80::1"] {
            assert!(!table.learn(addr(a), ROUTER), "{a}");
            table.forget(addr(a));
            table.retain(|_| false);
            assert_eq!(table.mac_of(addr(a)), OURS, "{a}");
            assert!(table.is_known(addr(a)));
        }
        assert_eq!(table.mac_of(addr("203.0.113.1")), OURS);
        assert_eq!(table.mac_of(addr("2001:db8:ff::1")), OURS);
    }

    // [ADDR-11] Exactly, else the router's, else ours.
    #[test]
    fn whoever_is_not_known_is_behind_the_router() {
        let mut table = Neighbours::new(&Lease::example());
        assert_eq!(table.mac_of(addr("192.0.2.7")), OURS);
        assert!(table.learn(addr("192.0.2.7"), NEIGHBOUR));
        assert!(!table.learn(addr("192.0.2.7"), NEIGHBOUR), "no news");
        assert_eq!(table.mac_of(addr("192.0.2.7")), NEIGHBOUR);
        assert_eq!(table.mac_of(addr("192.0.2.8")), OURS);
        assert!(table.learn(addr("192.0.2.1"), ROUTER));
        assert_eq!(table.mac_of(addr("192.0.2.8")), ROUTER);
        assert_eq!(table.mac_of(addr("203.0.113.8")), ROUTER);
        assert_eq!(table.mac_of(addr("2001:db8::8")), OURS);
        assert!(table.learn(addr("fe80::1"), ROUTER));
        assert_eq!(table.mac_of(addr("2001:db8::8")), ROUTER);
        // Changes count at once, and are not told.
        assert!(!table.learn(addr("192.0.2.1"), NEIGHBOUR));
        assert_eq!(table.mac_of(addr("203.0.113.8")), NEIGHBOUR);
        table.forget(addr("192.0.2.1"));
        assert_eq!(table.mac_of(addr("203.0.113.8")), OURS);
        assert!(table.learn(addr("192.0.2.1"), ROUTER), "news again");
    }

    #[test]
    fn our_link_local_address_is_ours_unless_it_is_the_routers() {
        let own = Lease { gateway6: Some("2001:db8::1".parse().unwrap()), ..Lease::example() };
        let mut table = Neighbours::new(&own);
        table.learn(addr("2001:db8::1"), ROUTER);
        assert_eq!(table.mac_of(addr("fe80::1")), OURS);
        assert_eq!(table.mac_of(addr("fe80::2")), ROUTER);
    }

    #[test]
    fn groups_and_zero_are_nobodys() {
        let mut table = Neighbours::new(&Lease::example());
        for mac in [Mac::BROADCAST, Mac([0; 6]), Mac([1, 0, 0x5e, 0, 0, 1])] {
            assert!(!table.learn(addr("192.0.2.7"), mac));
            assert!(!table.is_known(addr("192.0.2.7")));
        }
    }

    // [ADDR-11] Bounded: the one that was not heard of for longest goes, but not the router.
    #[test]
    fn a_full_table_forgets_the_oldest() {
        let mut table = Neighbours::new(&mapped());
        let router = Lease::example().gateway6.map(Addr::from).unwrap();
        let mut table2 = Neighbours::new(&Lease::example());
        assert!(table2.learn(router, ROUTER));
        let nth = |n: u32| Addr::from(std::net::Ipv4Addr::from(0x0a00_0000 + n));
        for n in 0..2000 {
            for table in [&mut table, &mut table2] {
                assert!(table.learn(nth(n), NEIGHBOUR));
                assert!(!table.learn(nth(0), NEIGHBOUR), "is kept by news of it");
                assert!(table.entries.len() <= CAPACITY);
                assert_eq!(table.entries.capacity(), CAPACITY);
            }
        }
        assert!(table.is_known(nth(1999)) && !table.is_known(nth(1)));
        assert!(table.is_known(addr("192.0.2.99")));
        assert_eq!(table2.mac_of(router), ROUTER);
    }
}
