//! What the host's network looks like: template interfaces, addresses, gateways, resolvers.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use super::addrs::{self, Address};
use super::links::{self, Link, understood};
use super::message::{AddrHeader, GETADDR, GETROUTE, Message, NEWADDR, NEWROUTE};
use super::routes::{self, Route};
use super::{INET, INET6, Socket};
use crate::config::{Config, HostAddr4, HostAddr6, HostFamily, HostView, ResolvConf};

/// Versions of IP with the option that names an outbound interface.
const OUTBOUND: [(u8, &str); 2] = [(4, "--outbound-if4"), (6, "--outbound-if6")];

/// Why the host's network could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// An option names an interface that does not exist.
    #[error("Invalid interface name {name} in option {option}: {source}")]
    NoSuchInterface {
        /// The option.
        option: &'static str,
        /// The name.
        name: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// The interface of `--outbound-if4` or `--outbound-if6` is to be the template, too, and cannot.
    #[error("Interface {name} in option {option} is not usable: it has no IPv{version} address")]
    Unusable {
        /// The option.
        option: &'static str,
        /// The name.
        name: String,
        /// Which family.
        version: u8,
    },
    /// The kernel refused a dump, or the socket failed.
    #[error("Cannot read {what} of the host: {source}")]
    Dump {
        /// What was being read.
        what: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
}

/// Reads the host's network through a socket in the host's namespace [NL-2, NL-3, NL-4, NL-6].
///
/// A family without a template interface, or whose template has no usable address, is `None` in
/// the result: it is run in local mode. `resolv_conf` is the resolver configuration to read; if
/// it cannot be read there are no resolvers.
///
/// # Errors
/// See [`DiscoverError`].
pub fn discover(
    socket: &mut Socket,
    config: &Config,
    resolv_conf: &Path,
) -> Result<HostView, DiscoverError> {
    let mut view = look(socket, config, log::Level::Info)?;
    let resolvers = ResolvConf::read(resolv_conf);
    (view.resolvers, view.search) = (resolvers.nameservers, resolvers.search);
    Ok(view)
}

/// As [`discover`], while running: without resolvers, whose file is out of reach.
pub(super) fn look_again(socket: &mut Socket, config: &Config) -> Result<HostView, DiscoverError> {
    look(socket, config, log::Level::Debug)
}

/// Choices are told at this level.
fn look(
    socket: &mut Socket,
    config: &Config,
    level: log::Level,
) -> Result<HostView, DiscoverError> {
    let links = links::all(socket).map_err(|source| dump_error("interfaces", source))?;
    let mut named = |option, name: Option<&str>| {
        let find = |name: &str| {
            links::by_name(socket, name).map_err(|source| {
                let name = name.to_owned();
                DiscoverError::NoSuchInterface { option, name, source }
            })
        };
        name.map(find).transpose()
    };
    let fixed = named("--interface", config.template.as_deref())?;
    let [out4, out6] = OUTBOUND.map(|(version, option)| {
        let wanted = if version == 4 { config.v4 } else { config.v6 };
        let name = config.outbound.interface(version == 4).filter(|_| wanted);
        named(option, name)
    });
    let (out4, out6) = (out4?, out6?);
    let template4 = fixed.as_ref().or(out4.as_ref());
    let template6 = fixed.as_ref().or(out6.as_ref());
    let mut find = |wanted, template, version| {
        if wanted { family(socket, &links, template, version, level) } else { Ok(None) }
    };
    let (v4, v6) = (find(config.v4, template4, INET)?, find(config.v6, template6, INET6)?);
    let (v4, v6) = (v4.and_then(Found::v4), v6.and_then(Found::v6));
    for ((version, option), out, unusable) in
        [(OUTBOUND[0], out4, v4.is_none()), (OUTBOUND[1], out6, v6.is_none())]
    {
        // Who sends by an interface without addresses reaches nobody [W-9].
        if let Some(Link { name, .. }) = out.filter(|_| unusable && fixed.is_none()) {
            return Err(DiscoverError::Unusable { option, name, version });
        }
    }
    Ok(HostView { v4, v6, ..HostView::default() })
}

/// True if the interface is there, switched on, and has an address of the family.
pub(super) fn is_usable(
    socket: &mut Socket,
    family: u8,
    index: u32,
) -> Result<bool, DiscoverError> {
    let links = links::all(socket).map_err(|source| dump_error("interfaces", source))?;
    let up = links.iter().any(|l| l.index == index && l.is_up());
    Ok(up && addrs::choose(&read_addrs(socket, family, index)?).is_some())
}

/// True if some interface of the host has this address.
pub(super) fn has_address(socket: &mut Socket, ip: IpAddr) -> Result<bool, DiscoverError> {
    let family = if ip.is_ipv4() { INET } else { INET6 };
    let body = AddrHeader { family, ..AddrHeader::default() }.body(&Default::default());
    let messages =
        socket.dump(GETADDR, NEWADDR, &body).map_err(|source| dump_error("addresses", source))?;
    Ok(messages.iter().filter_map(Address::parse).any(|a| a.ip == ip))
}

/// The routes of a family's main table, in the kernel's order; through one interface or all.
pub(super) fn dump_routes(
    socket: &mut Socket,
    family: u8,
    index: Option<u32>,
) -> Result<Vec<Message>, DiscoverError> {
    socket
        .dump(GETROUTE, NEWROUTE, &routes::dump_body(family, index))
        .map_err(|source| dump_error("routes", source))
}

/// The addresses of a family on one interface, as messages.
pub(super) fn dump_addrs(
    socket: &mut Socket,
    family: u8,
    index: u32,
) -> Result<Vec<Message>, DiscoverError> {
    let body = AddrHeader { family, index, ..AddrHeader::default() }.body(&Default::default());
    let mut messages =
        socket.dump(GETADDR, NEWADDR, &body).map_err(|source| dump_error("addresses", source))?;
    // Kernels without strict checking send those of all interfaces; an unregistered family is
    // answered with those of all families.
    messages.retain(|m| {
        AddrHeader::parse(&m.body).is_some_and(|h| h.index == index && h.family == family)
    });
    Ok(messages)
}

/// The addresses of a family on one interface.
pub(super) fn read_addrs(
    socket: &mut Socket,
    family: u8,
    index: u32,
) -> Result<Vec<Address>, DiscoverError> {
    Ok(understood(&dump_addrs(socket, family, index)?, Address::parse, "address"))
}

/// A template interface with what we need of it.
struct Found {
    index: u32,
    name: String,
    gateway: Option<IpAddr>,
    addrs: Vec<Address>,
}

impl Found {
    fn v4(self) -> Option<HostFamily<HostAddr4>> {
        let chosen = addrs::choose(&self.addrs)?;
        let IpAddr::V4(addr) = chosen.ip else { return None };
        Some(HostFamily {
            ifindex: self.index,
            ifname: self.name,
            addr: HostAddr4 { addr, prefix: chosen.prefix },
            gateway: self.gateway,
            link_local: None,
        })
    }

    /// IPv6 needs a link-local address too [NL-6].
    fn v6(self) -> Option<HostFamily<HostAddr6>> {
        let chosen = addrs::choose(&self.addrs)?;
        let IpAddr::V6(addr) = chosen.ip else { return None };
        let IpAddr::V6(link_local) = addrs::choose_link_local(&self.addrs)?.ip else { return None };
        Some(HostFamily {
            ifindex: self.index,
            ifname: self.name,
            addr: HostAddr6 { addr, prefix: chosen.prefix },
            gateway: self.gateway,
            link_local: Some(link_local),
        })
    }
}

fn family(
    socket: &mut Socket,
    links: &[Link],
    fixed: Option<&Link>,
    family: u8,
    level: log::Level,
) -> Result<Option<Found>, DiscoverError> {
    let messages = dump_routes(socket, family, None)?;
    let mut routes = understood(&messages, Route::parse, "route");
    routes.retain(|r| r.is_ordinary(family));
    let Some(link) = fixed.or_else(|| automatic(links, &routes, family, level)) else {
        return Ok(None);
    };
    Ok(Some(Found {
        index: link.index,
        name: link.name.clone(),
        gateway: routes::gateway(&routes, link.index),
        addrs: read_addrs(socket, family, link.index)?,
    }))
}

fn automatic<'a>(
    links: &'a [Link],
    routes: &[Route],
    family: u8,
    level: log::Level,
) -> Option<&'a Link> {
    let by_index = |index| links.iter().find(|l| l.index == index);
    let eligible = |index| by_index(index).is_some_and(|l| !l.is_loopback());
    let template = routes::template(routes, eligible)?;
    let link = by_index(template.index)?;
    let (version, name) = (if family == INET { 4 } else { 6 }, &link.name);
    match (template.default, template.others) {
        (_, 0) => {}
        (true, _) => log::log!(level, "Multiple default IPv{version} routes, picked first: {name}"),
        (false, _) => {
            log::log!(level, "Multiple interfaces with IPv{version} routes, picked {name}")
        }
    }
    Some(link)
}

fn dump_error(what: &'static str, source: io::Error) -> DiscoverError {
    DiscoverError::Dump { what, source }
}
