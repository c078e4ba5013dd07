//! What is known of the host's network while it changes, and what of it the guest is told unasked
//! [ADDR-11].

use std::net::IpAddr;

use super::Translator;
use crate::forward;
use crate::services::{arp, ndp};
use crate::translate::{DatagramSockets, FrameOut, SpliceSockets, TcpSockets};
use crate::wire::{Addr, Mac};

impl<O: FrameOut, N: TcpSockets + DatagramSockets + SpliceSockets> Translator<O, N> {
    /// A neighbour of the host has this Ethernet address, or (`None`) none that is known to work.
    ///
    /// The guest is told the first time: until now it may have taken us for the neighbour.
    pub fn on_neighbour(&mut self, neighbour: Addr, mac: Option<Mac>) {
        let Some(addr) = forward::as_seen(&self.lease, &self.guest, neighbour) else { return };
        match mac {
            Some(mac) if self.neighbours.learn(addr, mac) => self.announce(addr, mac),
            Some(_) => {}
            None => self.neighbours.forget(addr),
        }
    }

    /// These are all of the host's neighbours whose Ethernet address is known. The guest is not
    /// told: either it has not asked for any yet, or there is too much to tell.
    pub fn neighbours_are(&mut self, all: &[(Addr, Mac)]) {
        let seen =
            |(a, mac): &(Addr, Mac)| Some((forward::as_seen(&self.lease, &self.guest, *a)?, *mac));
        let mut all: Vec<_> = all.iter().filter_map(seen).collect();
        all.sort_unstable_by_key(|(addr, _)| *addr);
        self.neighbours.retain(|addr| all.binary_search_by_key(&addr, |(a, _)| *a).is_ok());
        for (addr, mac) in all {
            self.neighbours.learn(addr, mac);
        }
    }

    /// The host has this address instead of the guest's, or again the guest's.
    pub fn host_is_at(&mut self, addr: IpAddr) {
        match addr {
            IpAddr::V4(a) => self.lease.twin4 = a,
            IpAddr::V6(a) => self.lease.twin6 = Some(a),
        }
    }

    fn announce(&mut self, addr: Addr, mac: Mac) {
        let (lease, offered, guest) = (&self.lease, self.offered, self.guest_mac);
        let outcome = match (addr.v4(), addr.v6()) {
            (Some(addr), _) => arp::announce(lease, addr, mac, &mut self.reply),
            (_, Some(addr)) => ndp::announce(lease, offered, guest, (addr, mac), &mut self.reply),
            (None, None) => return,
        };
        self.on_service(outcome);
    }
}
