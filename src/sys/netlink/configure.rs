//! Setting up the target namespace: loopback, and the tap device with addresses and routes.

use std::io;
use std::net::{IpAddr, Ipv6Addr};

use super::addrs::{self, Address};
use super::discover::{DiscoverError, read_addrs};
use super::links::{self, IFF_UP, understood};
use super::message::{F_CREATE, F_REPLACE, Message};
use super::qdisc;
use super::routes;
use super::snapshot::{FamilySnapshot, Snapshot};
use super::{INET, INET6, Socket};
use crate::config::{Config, GUEST_QUEUE, Lease};
use crate::wire::Mac;

/// What has been set up, and what the kernel decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured {
    /// Index of the tap device in the namespace.
    pub ifindex: u32,
    /// Its hardware address: the guest's.
    pub mac: Mac,
    /// Its link-local address, if the kernel gave it one (only with `--config-net`).
    pub link_local: Option<Ipv6Addr>,
    /// The addresses it was given (only with `--config-net`).
    pub addrs: Vec<IpAddr>,
    /// IPv4 is wanted and the namespace supports it [NS-15].
    pub v4: bool,
    /// IPv6, likewise.
    pub v6: bool,
}

impl Configured {
    /// What becomes of a namespace without a tap device.
    fn without_device(lease: &Lease) -> Self {
        let (v4, v6) = (lease.v4, lease.v6);
        Self { ifindex: 0, mac: Mac::BROADCAST, link_local: None, addrs: Vec::new(), v4, v6 }
    }
}

/// Why the namespace could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    /// A step failed.
    #[error("Cannot {step} in the namespace: {source}")]
    Step {
        /// What was being done.
        step: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// The tap device has no Ethernet address.
    #[error("{0} is not an Ethernet device")]
    NotEthernet(String),
    /// Addresses could not be read back.
    #[error(transparent)]
    Read(#[from] DiscoverError),
}

/// Sets up the namespace that `socket` was opened in; `ifname` is the tap device there, if any.
///
/// Loopback is brought up and `--ns-mac-addr` applied in any case [NS-8, NS-9]. With
/// `--config-net` the device gets MTU, addresses and routes and is brought up, and every address
/// is usable when this returns [NS-10].
///
/// # Errors
/// See [`ConfigureError`]. A route whose gateway stays unreachable, and a family that the
/// namespace's kernel lacks, are warned about instead.
pub fn configure(
    socket: &mut Socket,
    snapshot: &Snapshot,
    lease: &Lease,
    config: &Config,
    ifname: Option<&str>,
) -> Result<Configured, ConfigureError> {
    let all = links::all(socket).map_err(step("list interfaces"))?;
    for lo in all.iter().filter(|l| l.is_loopback()) {
        links::set_flags(socket, lo.index, IFF_UP, IFF_UP).map_err(step("bring up loopback"))?;
    }
    let Some(ifname) = ifname else { return Ok(Configured::without_device(lease)) };
    let made = links::by_name(socket, ifname).map_err(step("find the tap device"))?;
    let ifindex = made.index;
    links::set_queue_length(socket, ifindex, GUEST_QUEUE).map_err(step("set queue length"))?;
    if made.qdisc_noop
        && let Err(e) = qdisc::none(socket, ifindex)
    {
        log::debug!("the tap device gets the kernel's queueing discipline: {e}");
    }
    if let Some(mac) = config.ns_mac {
        links::set_mac(socket, ifindex, mac).map_err(step("set the MAC address"))?;
    }
    let (v4, v6, given) = (lease.v4, lease.v6, Vec::new());
    let mut setup = Setup { socket, snapshot, lease, config, ifindex, given, v4, v6 };
    let link_local = if config.config_net { setup.run()? } else { None };
    let Setup { given, v4, v6, .. } = setup;
    let link = links::by_name(socket, ifname).map_err(step("find the tap device"))?;
    let mac = link.mac.ok_or_else(|| ConfigureError::NotEthernet(ifname.to_owned()))?;
    Ok(Configured { ifindex, mac, link_local, addrs: given, v4, v6 })
}

struct Setup<'a> {
    socket: &'a mut Socket,
    snapshot: &'a Snapshot,
    lease: &'a Lease,
    config: &'a Config,
    ifindex: u32,
    /// Addresses that were assigned.
    given: Vec<IpAddr>,
    v4: bool,
    v6: bool,
}

impl Setup<'_> {
    fn run(&mut self) -> Result<Option<Ipv6Addr>, ConfigureError> {
        if self.lease.mtu != 0 {
            links::set_mtu(self.socket, self.ifindex, self.lease.mtu).map_err(step("set MTU"))?;
        }
        links::set_flags(self.socket, self.ifindex, IFF_UP, IFF_UP)
            .map_err(step("bring up the tap device"))?;
        if self.v4 {
            self.v4 = self.add_addrs(self.addrs4(), 4)?;
        }
        let mut link_local = None;
        if self.v6 {
            link_local = self.settle_link_local()?;
            self.v6 = self.add_addrs(self.addrs6(), 6)?;
        }
        // Routes last, of both families at once: an IPv4 route may have an IPv6 gateway.
        self.add_copied_routes()?;
        self.add_default_routes()?;
        Ok(link_local)
    }

    /// `-a` means that address and no other, `--no-copy-addrs` the first that the host has.
    fn addrs4(&self) -> Vec<Message> {
        let (addr, prefix) = (IpAddr::from(self.lease.addr4), self.lease.prefix4);
        match &self.snapshot.v4 {
            Some(from) if self.config.addr4.is_none() && self.config.copy_addrs => {
                self.copied_addrs(from, |a| (a.ip == addr).then_some(prefix))
            }
            _ => vec![addrs::single(addr, prefix, self.ifindex)],
        }
    }

    fn addrs6(&self) -> Vec<Message> {
        match (&self.snapshot.v6, self.lease.addr6) {
            (Some(from), _) if self.config.addr6.is_none() && self.config.copy_addrs => {
                self.copied_addrs(from, |_| None)
            }
            (_, Some(addr)) => vec![addrs::single(addr.into(), 64, self.ifindex)],
            (_, None) => Vec::new(),
        }
    }

    fn copied_addrs(
        &self,
        from: &FamilySnapshot,
        prefix: impl Fn(&Address) -> Option<u8>,
    ) -> Vec<Message> {
        let all = understood(&from.addrs, |m| Some((Address::parse(m)?, m)), "address");
        let mut chosen: Vec<_> = all.iter().filter(|(a, _)| a.is_usable()).collect();
        if chosen.is_empty() {
            // The one address there is has link scope, and the guest has been told to use it.
            let told = IpAddr::from(self.lease.addr4);
            chosen = all.iter().filter(|(a, _)| a.ip == told).collect();
        }
        chosen.iter().filter_map(|(a, m)| addrs::copy(m, self.ifindex, prefix(a))).collect()
    }

    /// Adds addresses; false if the namespace does not do this family [NS-15].
    fn add_addrs(&mut self, add: Vec<Message>, version: u8) -> Result<bool, ConfigureError> {
        let mut add = add;
        for message in &mut add {
            message.flags = F_CREATE | F_REPLACE;
        }
        for errno in self.socket.batch(&add).map_err(step("add addresses"))? {
            match errno {
                0 | libc::EEXIST => {}
                errno if is_unsupported(errno) => {
                    log::warn!("IPv{version} not supported in the namespace, disabling it");
                    return Ok(false);
                }
                errno => return Err(step("add addresses")(io::Error::from_raw_os_error(errno))),
            }
        }
        self.given.extend(add.iter().filter_map(Address::parse).map(|a| a.ip));
        Ok(true)
    }

    /// Makes the link-local addresses that the kernel chose usable at once, and returns one.
    ///
    /// Setting `IFA_F_NODAD` on an existing address does not end duplicate address detection that
    /// has begun, and turning off neighbour discovery while the link comes up ends it only after a
    /// random delay of up to a second (Linux 6.18). An address that is added with the flag, on
    /// the other hand, is never tentative, so we take the kernel's away and add it again.
    fn settle_link_local(&mut self) -> Result<Option<Ipv6Addr>, ConfigureError> {
        let found = read_addrs(self.socket, INET6, self.ifindex)?;
        let again: Vec<Message> = found
            .iter()
            .filter(|a| a.is_link_local6())
            .flat_map(|a| addrs::add_again(a, self.ifindex))
            .collect();
        let results = self.socket.batch(&again).map_err(step("set the link-local address"))?;
        if let Some(errno) = results.into_iter().find(|e| *e != 0) {
            let e = io::Error::from_raw_os_error(errno);
            return Err(step("set the link-local address")(e));
        }
        Ok(addrs::choose_link_local(&found).and_then(|a| match a.ip {
            IpAddr::V6(ip) => Some(ip),
            IpAddr::V4(_) => None,
        }))
    }

    /// Copies routes: first those that need no other, then the rest; those whose gateway is not
    /// reachable yet once more, as long as that adds any [NS-13, W-7].
    fn add_copied_routes(&mut self) -> Result<(), ConfigureError> {
        let mut pending = Vec::new();
        let (chosen4, chosen6) = self.default_route_only();
        for (wanted, from, family) in [
            (self.v4 && !chosen4, &self.snapshot.v4, INET),
            (self.v6 && !chosen6, &self.snapshot.v6, INET6),
        ] {
            if let (true, Some(from)) = (wanted, from) {
                let copy = |m| routes::copy(m, family, from.ifindex, self.ifindex);
                pending.extend(from.routes.iter().filter_map(copy));
            }
        }
        pending.sort_by_key(routes::has_gateway); // stable: equal metrics keep their order
        while !pending.is_empty() {
            let results = self.socket.batch(&pending).map_err(step("add routes"))?;
            let before = pending.len();
            let mut errnos = results.iter();
            pending.retain(|_| is_unreachable(errnos.next().copied().unwrap_or(0)));
            for errno in results {
                match errno {
                    0 | libc::EEXIST => {}
                    errno if is_unreachable(errno) => {}
                    libc::EOPNOTSUPP => log::warn!("A route of the host cannot be copied"),
                    errno => return Err(step("add a route")(io::Error::from_raw_os_error(errno))),
                }
            }
            if pending.len() == before {
                log::warn!("{before} route(s) not copied: gateway unreachable in the namespace");
                break;
            }
        }
        Ok(())
    }

    /// Whether a default route takes the place of the host's routes: IPv4, IPv6.
    fn default_route_only(&self) -> (bool, bool) {
        let Config { gateway4, gateway6, copy_routes, .. } = self.config;
        let only = |given: bool, host: bool| given || !copy_routes || !host;
        let Snapshot { v4, v6 } = self.snapshot;
        (only(gateway4.is_some(), v4.is_some()), only(gateway6.is_some(), v6.is_some()))
    }

    /// Adds a default route where routes are not copied [NS-14].
    fn add_default_routes(&mut self) -> Result<(), ConfigureError> {
        let (snapshot, lease) = (self.snapshot, self.lease);
        let (only4, only6) = self.default_route_only();
        let gateway4 = Some(lease.gateway4).filter(|g| !g.is_unspecified());
        if self.v4 && only4 {
            self.v4 = self.add_default_route(gateway4.map(IpAddr::from), snapshot.v4.is_none())?;
        }
        if self.v6 && only6 {
            let gateway6 = lease.gateway6.map(IpAddr::from);
            self.v6 = self.add_default_route(gateway6, snapshot.v6.is_none())?;
        }
        Ok(())
    }

    /// Adds a default route; false if the namespace does not do this family, in local mode.
    fn add_default_route(
        &mut self,
        gateway: Option<IpAddr>,
        local: bool,
    ) -> Result<bool, ConfigureError> {
        let Some(gateway) = gateway else { return Ok(true) };
        let mut add =
            |onlink| match self.socket.request(&routes::single(gateway, self.ifindex, onlink)) {
                Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(()),
                result => result.map(drop),
            };
        let result = match add(false) {
            // The gateway is outside the subnet; there is nobody else on this link, so it is ours.
            Err(e) if e.raw_os_error().is_some_and(is_unreachable) => add(true),
            result => result,
        };
        match result {
            Err(e) if local && e.raw_os_error().is_some_and(is_unsupported) => {
                log::warn!("No route to {gateway} possible in the namespace, family disabled");
                Ok(false)
            }
            result => result.map(|()| true).map_err(step("add the default route")),
        }
    }
}

/// The kernel, or a `disable_ipv6` setting, rules out the whole family.
fn is_unsupported(errno: i32) -> bool {
    matches!(errno, libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EACCES)
}

fn is_unreachable(errno: i32) -> bool {
    matches!(errno, libc::ENETUNREACH | libc::EHOSTUNREACH)
}

fn step(step: &'static str) -> impl Fn(io::Error) -> ConfigureError {
    move |source| ConfigureError::Step { step, source }
}
