#![allow(clippy::unwrap_used)]
use super::*;
use crate::config::DnsServers;

fn config() -> Config {
    Config { advertise_dns: true, advertise_search: true, ..Config::default() }
}

fn ip(s: &str) -> IpAddr {
    s.parse().unwrap()
}

fn v4(s: &str) -> Ipv4Addr {
    s.parse().unwrap()
}

fn v6(s: &str) -> Ipv6Addr {
    s.parse().unwrap()
}

fn host() -> HostView {
    HostView {
        v4: Some(HostFamily {
            ifindex: 2,
            ifname: "eth0".into(),
            addr: HostAddr4 { addr: v4("192.0.2.5"), prefix: 25 },
            gateway: Some(ip("192.0.2.1")),
            link_local: None,
        }),
        v6: Some(HostFamily {
            ifindex: 3,
            ifname: "eth1".into(),
            addr: HostAddr6 { addr: v6("2001:db8::5"), prefix: 128 },
            gateway: Some(ip("fe80::ffff")),
            link_local: Some(v6("fe80::5")),
        }),
        resolvers: vec![ip("198.51.100.53"), ip("2001:db8::53")],
        search: vec!["example.org".into()],
    }
}

fn lease(config: &Config, host: &HostView) -> Lease {
    Lease::new(config, host, true).unwrap().0
}

// [ADDR-2] [ADDR-3] [ADDR-4] [NL-10] [NL-12] Everything from the host.
#[test]
fn from_host() {
    let (l, notices) = Lease::new(&config(), &host(), true).unwrap();
    assert!(l.v4 && l.v6);
    assert_eq!((l.addr4, l.prefix4, l.gateway4), (v4("192.0.2.5"), 25, v4("192.0.2.1")));
    assert_eq!((l.addr6, l.gateway6), (Some(v6("2001:db8::5")), Some(v6("fe80::ffff"))));
    assert_eq!((l.our_ll, l.scope6), (v6("fe80::ffff"), 3));
    assert_eq!(l.map_host_loopback4, Some(v4("192.0.2.1")));
    assert_eq!(l.map_host_loopback6, Some(v6("fe80::ffff")));
    assert_eq!((l.dns4, l.dns6), (vec![v4("198.51.100.53")], vec![v6("2001:db8::53")]));
    assert_eq!((l.dns_host4, l.dns_match4), (Some(v4("198.51.100.53")), None));
    assert_eq!(l.search, ["example.org"]);
    assert_eq!(notices, []);
}

// [NL-7] [ADDR-5] Local mode, per family.
#[test]
fn local_mode() {
    let c = Config { advertise_dns: false, ..config() };
    let (l, notices) = Lease::new(&c, &HostView::default(), true).unwrap();
    assert_eq!((l.addr4, l.prefix4, l.gateway4), (LOCAL_ADDR4, 16, LOCAL_GATEWAY4));
    assert_eq!((l.addr6, l.gateway6, l.our_ll), (None, Some(v6("fe80::1")), v6("fe80::1")));
    assert_eq!(l.map_host_loopback4, Some(v4("169.254.2.2")));
    assert_eq!(l.map_host_loopback6, Some(v6("fe80::1")));
    assert_eq!(l.scope6, 0);
    assert_eq!(notices.len(), 2);
    assert!(notices.iter().all(|n| n.level == log::Level::Info));

    let half = HostView { v6: None, ..host() };
    let (l, notices) = Lease::new(&config(), &half, true).unwrap();
    assert_eq!((l.addr4, l.addr6, l.our_ll), (v4("192.0.2.5"), None, v6("fe80::1")));
    assert_eq!(notices.len(), 1);

    // What is disabled is not in local mode.
    let c = Config { v6: false, ..config() };
    assert_eq!(Lease::new(&c, &half, true).unwrap().1, []);
}

// [NL-5] [W-8] -n goes before the host's prefix; -a without length takes the class's.
#[test]
fn prefix_lengths() {
    let of = |addr4, prefix4| lease(&Config { addr4, prefix4, ..config() }, &host()).prefix4;
    assert_eq!(of(None, None), 25);
    assert_eq!(of(None, Some(16)), 16);
    assert_eq!(of(Some(v4("10.1.2.3")), None), 8);
    assert_eq!(of(Some(v4("172.16.0.1")), None), 16);
    assert_eq!(of(Some(v4("192.168.0.1")), None), 24);
    assert_eq!(of(Some(v4("240.0.0.1")), None), 32);
    assert_eq!(of(Some(v4("10.1.2.3")), Some(20)), 20);
    let c = Config { prefix4: Some(24), ..config() };
    assert_eq!(lease(&c, &HostView::default()).prefix4, 24);
}

// [ADDR-3] [ADDR-4] A gateway of the user's, global or link-local; none at all.
#[test]
fn gateways() {
    let c =
        Config { gateway4: Some(v4("192.0.2.77")), gateway6: Some(v6("2001:db8::1")), ..config() };
    let l = lease(&c, &host());
    assert_eq!((l.gateway4, l.gateway6), (v4("192.0.2.77"), Some(v6("2001:db8::1"))));
    assert_eq!(l.our_ll, v6("fe80::5"));
    assert_eq!(l.map_host_loopback6, Some(v6("2001:db8::1")));

    let mut h = host();
    h.v4.as_mut().unwrap().gateway = None;
    h.v6.as_mut().unwrap().gateway = None;
    let l = lease(&config(), &h);
    assert_eq!((l.gateway4, l.gateway6), (Ipv4Addr::UNSPECIFIED, None));
    assert_eq!((l.map_host_loopback4, l.map_host_loopback6), (None, None));
    assert_eq!(l.our_ll, v6("fe80::5"));

    // Local mode with a global gateway of the user's.
    let c = Config { gateway6: Some(v6("2001:db8::1")), ..config() };
    assert_eq!(lease(&c, &HostView::default()).our_ll, v6("fe80::1"));
    let c = Config { gateway6: Some(v6("fe80::9")), ..config() };
    assert_eq!(lease(&c, &host()).our_ll, v6("fe80::9"));
}

// [ADDR-6] [NL-10]
#[test]
fn host_mapping() {
    let l = lease(&Config { map_gw: false, ..config() }, &host());
    assert_eq!((l.map_host_loopback4, l.map_host_loopback6), (None, None));
    let c = Config {
        map_gw: false,
        map_host_loopback4: MapAddr::Addr(v4("192.0.2.100")),
        map_host_loopback6: MapAddr::None,
        ..config()
    };
    let l = lease(&c, &host());
    assert_eq!((l.map_host_loopback4, l.map_host_loopback6), (Some(v4("192.0.2.100")), None));
    let c = Config { map_host_loopback4: MapAddr::None, ..config() };
    assert_eq!(lease(&c, &host()).map_host_loopback4, None);
}

// [ADDR-6] For the families in use, and off by default.
#[test]
fn guest_mapping() {
    let l = lease(&config(), &host());
    assert_eq!((l.map_guest4, l.map_guest6), (None, None));
    let c =
        Config { map_guest4: Some(v4("192.0.2.9")), map_guest6: Some(v6("fd00::9")), ..config() };
    let l = lease(&c, &host());
    assert_eq!((l.map_guest4, l.map_guest6), (Some(v4("192.0.2.9")), Some(v6("fd00::9"))));
    assert_eq!(lease(&Config { v6: false, ..c.clone() }, &host()).map_guest6, None);
    assert_eq!(lease(&Config { v4: false, ..c }, &host()).map_guest4, None);
}

// [ADDR-7] What is not advertised is forwarded all the same.
#[test]
fn advertised_or_not() {
    let h = HostView { resolvers: vec![ip("127.0.0.53")], ..host() };
    let c = Config { advertise_dns: false, advertise_search: false, ..config() };
    let l = lease(&c, &h);
    assert_eq!((l.dns4.len(), l.dns6.len(), l.search.len()), (0, 0, 0));
    assert_eq!((l.dns_match4, l.dns_host4), (Some(v4("192.0.2.1")), Some(v4("127.0.0.53"))));
    let l = lease(&Config { advertise_search: false, ..config() }, &h);
    assert_eq!((l.dns4.len(), l.search.len()), (1, 0));
}

// [ADDR-7] The user's search list goes before the host's, also an empty one.
#[test]
fn search_list_of_the_user() {
    let of = |search: &[&str], advertise_search| {
        let search = Some(search.iter().map(ToString::to_string).collect());
        lease(&Config { search, advertise_search, ..config() }, &host()).search
    };
    assert_eq!(of(&["a", "b"], true), ["a", "b"]);
    assert!(of(&[], true).is_empty());
    assert!(of(&["a"], false).is_empty());
}

// [DHCP-5] [DHCP6-4]
#[test]
fn names() {
    let l = lease(&config(), &host());
    assert_eq!((l.hostname, l.fqdn), (None, None));
    let (hostname, fqdn) = (Some("h".to_owned()), Some("h.example".to_owned()));
    let c = Config { hostname: hostname.clone(), fqdn: fqdn.clone(), ..config() };
    let l = lease(&c, &host());
    assert_eq!((l.hostname, l.fqdn), (hostname, fqdn));
}

// [ADDR-7] --dns-host goes before the host's resolver, in its family.
#[test]
fn resolver_of_the_user() {
    let c = Config {
        dns_forward4: Some(v4("169.254.1.1")),
        dns_host4: Some(v4("127.0.0.1")),
        dns_host6: Some(v6("2001:db8::7")),
        ..config()
    };
    let l = lease(&c, &host());
    assert_eq!((l.dns_match4, l.dns_host4), (Some(v4("169.254.1.1")), Some(v4("127.0.0.1"))));
    assert_eq!((l.dns_match6, l.dns_host6), (None, Some(v6("2001:db8::7"))));
    assert_eq!(lease(&Config { v4: false, ..c }, &host()).dns_host4, None);
}

// [NL-14] [ADDR-7] A local stub without a host mapping, with and without --dns-forward.
#[test]
fn local_stub() {
    let h = HostView { resolvers: vec![ip("127.0.0.53")], ..host() };
    let l = lease(&config(), &h);
    assert_eq!(l.dns4, [v4("192.0.2.1")]);
    assert_eq!((l.dns_match4, l.dns_host4), (Some(v4("192.0.2.1")), Some(v4("127.0.0.53"))));
    let c = Config { map_gw: false, dns_forward4: Some(v4("169.254.1.1")), ..config() };
    let l = lease(&c, &h);
    assert_eq!(l.dns4, [v4("169.254.1.1")]);
    assert_eq!((l.dns_match4, l.dns_host4), (Some(v4("169.254.1.1")), Some(v4("127.0.0.53"))));
    assert!(lease(&Config { map_gw: false, ..config() }, &h).dns4.is_empty());
}

// [ADDR-7] Resolvers of the other family only: DNS stays untranslated, and that is said.
#[test]
fn forward_without_resolver() {
    let h = HostView { resolvers: vec![ip("2001:db8::53")], ..host() };
    let c = Config { dns_forward4: Some(v4("169.254.1.1")), ..config() };
    let (l, notices) = Lease::new(&c, &h, true).unwrap();
    assert_eq!((l.dns_match4, l.dns_host4), (None, None));
    assert_eq!(notices.len(), 1);
    assert_eq!(notices[0].level, log::Level::Warn);
}

// [NL-13] [W-37] One family's servers are enough; pasta advertises none by default anyway.
#[test]
fn missing_resolvers() {
    let none = HostView { resolvers: vec![], ..host() };
    let silent = Config { advertise_dns: false, ..config() };
    let count = |c: &Config, h: &HostView| Lease::new(c, h, true).unwrap().1.len();
    assert_eq!(count(&config(), &none), 1);
    assert_eq!(count(&silent, &none), 0);
    assert_eq!(count(&config(), &HostView { resolvers: vec![ip("192.0.2.53")], ..host() }), 0);
    let c = Config { dns: DnsServers { none: true, servers: vec![] }, ..config() };
    assert_eq!(count(&c, &none), 0);
}

// [NL-8] [CLI-5] No IPv6 on the host.
#[test]
fn without_ipv6() {
    let (l, notices) = Lease::new(&config(), &host(), false).unwrap();
    assert!(l.v4 && !l.v6);
    assert!(l.dns6.is_empty() && l.dns_host6.is_none() && l.map_host_loopback6.is_none());
    assert_eq!(notices.len(), 1);
    let six = Config { v4: false, ..config() };
    assert_eq!(Lease::new(&six, &host(), false).unwrap_err(), LeaseError::NoIpv6);
    assert!(Lease::new(&six, &host(), true).is_ok());
    let neither = Config { v4: false, v6: false, ..config() };
    assert_eq!(Lease::new(&neither, &host(), true).unwrap_err(), LeaseError::NoFamily);
}
