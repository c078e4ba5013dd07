//! The network identity the guest sees.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::dns::{self, DnsInput, DnsPlan, Ip};
use super::{Config, HostAddr4, HostAddr6, HostFamily, HostView, MapAddr};
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
    /// Guest-visible address that means the host-side address equal to `addr4` [ADDR-6].
    pub map_guest4: Option<Ipv4Addr>,
    /// Likewise for `addr6`.
    pub map_guest6: Option<Ipv6Addr>,
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
    /// `addr4` is an address of the host, too.
    pub shared4: bool,
    /// `addr6` is an address of the host, too.
    pub shared6: bool,
    /// The host's address that `map_guest4` means: `addr4`, or, where the host had that too but lost
    /// it, what it has now.
    pub twin4: Ipv4Addr,
    /// Likewise for `map_guest6`.
    pub twin6: Option<Ipv6Addr>,
    /// Host name that the guest is given by DHCP.
    pub hostname: Option<String>,
    /// Fully qualified name that the guest is given by DHCP and DHCPv6.
    pub fqdn: Option<String>,
    /// Index of the host interface that IPv6 link-local destinations use as scope; 0 if none.
    pub scope6: u32,
}

/// Something to tell the user about the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// How important it is.
    pub level: log::Level,
    /// What to say.
    pub text: String,
}

/// Why there can be no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// `-6` on a host without IPv6.
    #[error("IPv6-only mode requested, but IPv6 is not available on this host")]
    NoIpv6,
    /// Both families are disabled.
    #[error("Neither IPv4 nor IPv6 is enabled")]
    NoFamily,
}

/// Guest address in local mode [NL-7].
const LOCAL_ADDR4: Ipv4Addr = Ipv4Addr::new(169, 254, 2, 1);
/// Gateway in local mode.
const LOCAL_GATEWAY4: Ipv4Addr = Ipv4Addr::new(169, 254, 2, 2);
/// Prefix length in local mode.
const LOCAL_PREFIX4: u8 = 16;
/// Gateway and our own address in local mode.
const LOCAL_GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

impl Lease {
    /// Works out the guest's network identity [ADDR-2 to ADDR-7].
    ///
    /// `ipv6_available` tells whether IPv6 sockets can be created on this host; IPv6 is off
    /// otherwise. Notices are returned rather than logged: they are for the user to see once.
    ///
    /// Everything in the lease is computed here and now, so that what identifies us on the link
    /// stays the same while the host's network changes.
    ///
    /// # Errors
    /// See [`LeaseError`].
    pub fn new(
        config: &Config,
        host: &HostView,
        ipv6_available: bool,
    ) -> Result<(Self, Vec<Notice>), LeaseError> {
        let (v4, v6) = (config.v4, config.v6 && ipv6_available);
        if !v4 && !v6 {
            return Err(if config.v6 { LeaseError::NoIpv6 } else { LeaseError::NoFamily });
        }
        let mut notices = Notices::default();
        if config.v6 && !v6 {
            notices.info("IPv6 not available on this host, disabling it".to_owned());
        }
        let (host4, host6) = (host.v4.as_ref().filter(|_| v4), host.v6.as_ref().filter(|_| v6));
        let linked = !config.splice_only;
        notices.local_mode(4, linked && v4 && host4.is_none());
        notices.local_mode(6, linked && v6 && host6.is_none());

        let (addr4, prefix4) = address4(config, host4);
        let addr6 = config.addr6.or_else(|| host6.map(|h| h.addr.addr));
        let gateway4 = config.gateway4.unwrap_or_else(|| gateway4(host4));
        let gateway6 = config.gateway6.or_else(|| gateway6(host6));
        let map4 = mapping(
            config.map_host_loopback4,
            config.map_gw,
            Some(gateway4).filter(|g| v4 && !g.is_unspecified()),
        );
        let map6 = mapping(config.map_host_loopback6, config.map_gw, gateway6.filter(|_| v6));
        let given4 = (config.dns_forward4.filter(|_| v4), config.dns_host4.filter(|_| v4));
        let given6 = (config.dns_forward6.filter(|_| v6), config.dns_host6.filter(|_| v6));
        let dns4 = dns(config, host, given4, map4, v4, only_v4);
        let dns6 = dns(config, host, given6, map6, v6, only_v6);
        notices.unserved(4, dns4.unserved);
        notices.unserved(6, dns6.unserved);
        let advertised = dns4.servers.len() + dns6.servers.len();
        notices.no_servers(config, advertised == 0);

        let lease = Self {
            v4,
            v6,
            our_mac: config.our_mac,
            addr4,
            prefix4,
            gateway4,
            addr6,
            gateway6,
            our_ll: our_link_local(gateway6, host6),
            mtu: config.mtu,
            map_host_loopback4: map4,
            map_host_loopback6: map6,
            map_guest4: config.map_guest4.filter(|_| v4),
            map_guest6: config.map_guest6.filter(|_| v6),
            dns_match4: dns4.dns_match,
            dns_match6: dns6.dns_match,
            dns_host4: dns4.dns_host,
            dns_host6: dns6.dns_host,
            dns4: if config.advertise_dns { dns4.servers } else { Vec::new() },
            dns6: if config.advertise_dns { dns6.servers } else { Vec::new() },
            shared4: host4.is_some_and(|h| h.addr.addr == addr4),
            shared6: host6.is_some_and(|h| Some(h.addr.addr) == addr6),
            twin4: addr4,
            twin6: addr6,
            search: search(config, host),
            hostname: config.hostname.clone(),
            fqdn: config.fqdn.clone(),
            scope6: host6.map_or(0, |h| h.ifindex),
        };
        Ok((lease, notices.0))
    }
}

/// What there is to tell.
#[derive(Default)]
struct Notices(Vec<Notice>);

impl Notices {
    fn info(&mut self, text: String) {
        self.0.push(Notice { level: log::Level::Info, text });
    }

    fn warn(&mut self, text: String) {
        self.0.push(Notice { level: log::Level::Warn, text });
    }

    fn local_mode(&mut self, version: u8, local: bool) {
        if local {
            self.info(format!("No external interface usable for IPv{version}: local mode"));
        }
    }

    fn unserved(&mut self, version: u8, unserved: bool) {
        if unserved {
            self.warn(format!("No IPv{version} resolver on the host: DNS is not forwarded to it"));
        }
    }

    /// Only where resolvers are advertised, and only if there is none at all [NL-13, W-37].
    fn no_servers(&mut self, config: &Config, none: bool) {
        if none && config.advertise_dns && !config.dns.none {
            self.warn("Couldn't get any nameserver address".to_owned());
        }
    }
}

/// The search list of the user, or else the host's [ADDR-7].
fn search(config: &Config, host: &HostView) -> Vec<String> {
    let list = config.search.as_ref().unwrap_or(&host.search);
    if config.advertise_search { list.clone() } else { Vec::new() }
}

/// Guest address and prefix length [ADDR-2]: those of the user go before the host's [W-8].
fn address4(config: &Config, host: Option<&HostFamily<HostAddr4>>) -> (Ipv4Addr, u8) {
    let (addr, own_prefix) = match (config.addr4, host) {
        (Some(addr), _) => (addr, None),
        (None, Some(host)) => (host.addr.addr, Some(host.addr.prefix)),
        (None, None) => (LOCAL_ADDR4, Some(LOCAL_PREFIX4)),
    };
    (addr, config.prefix4.or(own_prefix).unwrap_or_else(|| class_prefix(addr)))
}

/// The prefix length of the address's class [NL-5].
fn class_prefix(addr: Ipv4Addr) -> u8 {
    match addr.octets() {
        [0x00..=0x7f, ..] => 8,
        [0x80..=0xbf, ..] => 16,
        [0xc0..=0xdf, ..] => 24,
        _ => 32,
    }
}

fn gateway4(host: Option<&HostFamily<HostAddr4>>) -> Ipv4Addr {
    match host {
        None => LOCAL_GATEWAY4,
        Some(host) => match host.gateway {
            Some(IpAddr::V4(gateway)) => gateway,
            _ => Ipv4Addr::UNSPECIFIED,
        },
    }
}

fn gateway6(host: Option<&HostFamily<HostAddr6>>) -> Option<Ipv6Addr> {
    match host {
        None => Some(LOCAL_GATEWAY6),
        Some(host) => match host.gateway {
            Some(IpAddr::V6(gateway)) => Some(gateway),
            _ => None,
        },
    }
}

/// The gateway if it is link-local, for it is who the guest takes us for; else the template
/// interface's [ADDR-4].
fn our_link_local(gateway: Option<Ipv6Addr>, host: Option<&HostFamily<HostAddr6>>) -> Ipv6Addr {
    gateway
        .filter(Ipv6Addr::is_unicast_link_local)
        .or_else(|| host.and_then(|h| h.link_local))
        .unwrap_or(LOCAL_GATEWAY6)
}

/// The address that means the host's loopback [ADDR-6, NL-10].
fn mapping<A>(option: MapAddr<A>, map_gateway: bool, gateway: Option<A>) -> Option<A> {
    match option {
        MapAddr::Addr(addr) => Some(addr),
        MapAddr::None => None,
        MapAddr::Default => gateway.filter(|_| map_gateway),
    }
}

/// The resolvers of one family, which `of_family` picks from a mixed list; `given` is what the
/// user said with `--dns-forward` and `--dns-host`.
fn dns<A: Ip>(
    config: &Config,
    host: &HostView,
    given: (Option<A>, Option<A>),
    map: Option<A>,
    enabled: bool,
    of_family: fn(&IpAddr) -> Option<A>,
) -> DnsPlan<A> {
    let pick = |list: &[IpAddr]| -> Vec<A> {
        list.iter().filter(|_| enabled).filter_map(of_family).collect()
    };
    dns::plan(&DnsInput {
        given: &pick(&config.dns.servers),
        none: config.dns.none,
        forward: given.0,
        forward_to: given.1,
        resolvers: &pick(&host.resolvers),
        host: map,
    })
}

fn only_v4(addr: &IpAddr) -> Option<Ipv4Addr> {
    match addr {
        IpAddr::V4(a) => Some(*a),
        IpAddr::V6(_) => None,
    }
}

fn only_v6(addr: &IpAddr) -> Option<Ipv6Addr> {
    match addr {
        IpAddr::V4(_) => None,
        IpAddr::V6(a) => Some(*a),
    }
}

#[cfg(test)]
mod tests;
