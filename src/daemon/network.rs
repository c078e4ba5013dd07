//! The host's network as it changes [NL-15] [ADDR-11] [ADDR-12].
//!
//! # Theory of operation
//!
//! The guest's view stays as it is, whatever happens on the host: addresses, routes, our own
//! Ethernet address. What follows the host is what serves the guest behind that:
//!
//! * the Ethernet addresses of neighbours, as the kernel tells of them, on the *template* interface
//!   of either family;
//! * which interface that is. Where it is of no use any more (it is gone, switched off, or has no
//!   address), what would be chosen at a start now takes its place, for neighbours and for
//!   link-local destinations. As long as there is none to choose, nothing changes. That another one
//!   has the default route is no reason: the guest's neighbours are where they were;
//! * what the address stands for that the user mapped to the host's own (`--map-guest-addr`):
//!   the guest's address, as long as the host has it too, and then what it has instead.
//!
//! Looking at the network takes time on hosts with many routes. So it is done a while after the
//! news came, and not more often than it can be afforded.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;

use super::engine::clock;
use crate::config::{Config, HostView, Lease, Neighbour};
use crate::host::Net;
use crate::sys::netlink::{Monitor, News, Told};
use crate::translate::{FrameOut, Translator};
use crate::wire::Addr;

/// Messages read per visit.
const READS: u32 = 64;

/// Milliseconds from the first news of the network to a look at it: they come in flocks.
const DELAY_MS: u64 = 500;

/// Looking takes at most one part of so many of our time.
const SHARE: u64 = 20;

/// Eyes on the host.
pub(super) struct Network {
    monitor: Monitor,
    config: Config,
    template: Template,
    /// Addresses of the guest that were the host's, too, when we started.
    shared4: Option<Ipv4Addr>,
    shared6: Option<Ipv6Addr>,
    /// When to look at everything again, milliseconds of the clock.
    look_at: Option<u64>,
    /// Not before, likewise.
    rest_until: u64,
    /// News of neighbours were lost.
    lost: bool,
    /// There will be no more news.
    blind: bool,
}

/// Indices of the template interfaces; 0 if there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Template {
    v4: u32,
    v6: u32,
}

impl Template {
    fn of(view: &HostView) -> Self {
        Self {
            v4: view.v4.as_ref().map_or(0, |f| f.ifindex),
            v6: view.v6.as_ref().map_or(0, |f| f.ifindex),
        }
    }

    fn has(self, neighbour: &Neighbour) -> bool {
        let index = if neighbour.addr.is_ipv4() { self.v4 } else { self.v6 };
        neighbour.ifindex == index
    }

    /// What it is now: each that is of no use any more gives way to one in `view`, if there is one.
    fn update(self, view: &HostView, monitor: &mut Monitor) -> Self {
        let now = Self::of(view);
        let mut choose = |old, new, v4| {
            let stays = new == 0 || old == new || (old != 0 && is_usable(monitor, old, v4));
            if stays { old } else { new }
        };
        Self { v4: choose(self.v4, now.v4, true), v6: choose(self.v6, now.v6, false) }
    }
}

/// Opens a monitor in the current network namespace; to be called before the network is looked at.
/// Without one, which is said, everything stays as it was at the start.
pub(super) fn monitor() -> Option<Monitor> {
    Monitor::open()
        .inspect_err(|e| log::warn!("cannot follow changes of the host's network: {e}"))
        .ok()
}

impl Network {
    /// Follows what looked like `view` at first.
    pub(super) fn new(monitor: Monitor, config: &Config, view: &HostView, lease: &Lease) -> Self {
        Self {
            monitor,
            config: config.clone(),
            template: Template::of(view),
            shared4: Some(lease.addr4).filter(|_| lease.shared4),
            shared6: lease.addr6.filter(|_| lease.shared6),
            look_at: None,
            rest_until: 0,
            lost: false,
            blind: false,
        }
    }

    /// Readable when something has changed.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.monitor.fd()
    }

    /// When to call [`Network::run`] at the latest, milliseconds of the clock.
    pub(super) fn at(&self) -> Option<u64> {
        self.look_at
    }

    /// Learns the neighbours that the host knows already.
    pub(super) fn begin<O: FrameOut>(&mut self, translator: &mut Translator<O, Net>) {
        if let Err(e) = self.learn_neighbours(translator) {
            log::warn!("cannot read the host's neighbours: {e}");
        }
    }

    /// Something has changed. True if there may be more.
    pub(super) fn on_event<O: FrameOut>(
        &mut self,
        now: u64,
        translator: &mut Translator<O, Net>,
    ) -> bool {
        for _ in 0..READS {
            if self.blind {
                return false;
            }
            let (mut network, template) = (false, self.template);
            let told = self.monitor.read(|news| match news {
                News::Neighbour(n) if template.has(&n) => {
                    translator.on_neighbour(Addr::from(n.addr), n.mac);
                }
                News::Neighbour(_) => {}
                News::Network => network = true,
            });
            if network {
                self.look_soon(now);
            }
            match told {
                Ok(Told::Some) => {}
                Ok(Told::Nothing) => {
                    if self.lost {
                        self.look_soon(now);
                    }
                    return false;
                }
                Ok(Told::Lost) => {
                    log::debug!("news of the host's network were lost");
                    self.lost = true;
                }
                Err(e) => {
                    log::warn!("cannot follow changes of the host's network any more: {e}");
                    self.blind = true;
                }
            }
        }
        true
    }

    /// Looks at the network, if it is time.
    pub(super) fn run<O: FrameOut>(&mut self, now: u64, translator: &mut Translator<O, Net>) {
        if self.look_at.is_none_or(|at| now < at) {
            return;
        }
        self.look_at = None;
        let begin = clock().ms();
        self.look(translator);
        let end = clock().ms();
        let took = end.saturating_sub(begin);
        self.rest_until = end.saturating_add(took.saturating_mul(SHARE));
    }

    fn look_soon(&mut self, now: u64) {
        let at = now.saturating_add(DELAY_MS).max(self.rest_until);
        self.look_at.get_or_insert(at);
    }

    fn look<O: FrameOut>(&mut self, translator: &mut Translator<O, Net>) {
        let before = self.template;
        match self.monitor.look(&self.config) {
            Ok(view) => {
                self.template = before.update(&view, &mut self.monitor);
                self.find_twins(&view, translator);
                if self.template != before {
                    tell(&view, before, self.template);
                    translator.net.set_scope6(self.template.v6);
                }
            }
            // The interface that the user named is gone, for now.
            Err(e) => log::debug!("{e}"),
        }
        if (self.lost || self.template != before)
            && let Err(e) = self.learn_neighbours(translator)
        {
            log::debug!("cannot read the host's neighbours: {e}");
        }
    }

    /// Asks for all neighbours, and forgets all others.
    fn learn_neighbours<O: FrameOut>(
        &mut self,
        translator: &mut Translator<O, Net>,
    ) -> io::Result<()> {
        let all = self.monitor.neighbours()?;
        let ours = all.iter().filter(|n| self.template.has(n));
        let known: Vec<_> = ours.filter_map(|n| Some((Addr::from(n.addr), n.mac?))).collect();
        translator.neighbours_are(&known);
        self.lost = false;
        Ok(())
    }

    fn find_twins<O: FrameOut>(&mut self, view: &HostView, translator: &mut Translator<O, Net>) {
        let v4 =
            self.shared4.map(|a| (IpAddr::V4(a), view.v4.as_ref().map(|f| f.addr.addr.into())));
        let v6 =
            self.shared6.map(|a| (IpAddr::V6(a), view.v6.as_ref().map(|f| f.addr.addr.into())));
        for (shared, present) in [v4, v6].into_iter().flatten() {
            match self.monitor.has_address(shared) {
                Ok(true) => translator.host_is_at(shared),
                Ok(false) => {
                    if let Some(present) = present {
                        translator.host_is_at(present);
                    }
                }
                Err(e) => log::debug!("{e}"),
            }
        }
    }
}

/// An interface that is gone is an error for kernels with strict checking.
fn is_usable(monitor: &mut Monitor, index: u32, v4: bool) -> bool {
    monitor.is_usable(index, v4).unwrap_or(false)
}

/// Says which interface took the place of another one.
fn tell(view: &HostView, before: Template, now: Template) {
    let v4 = view.v4.as_ref().filter(|_| now.v4 != before.v4).map(|f| (4, &f.ifname));
    let v6 = view.v6.as_ref().filter(|_| now.v6 != before.v6).map(|f| (6, &f.ifname));
    for (version, name) in [v4, v6].into_iter().flatten() {
        log::info!("The host's network has changed, its IPv{version} interface is {name}");
    }
}
