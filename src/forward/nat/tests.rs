use super::*;
use crate::cli::{self, CliEnv, Outcome};
use crate::config::{HostAddr4, HostAddr6, HostFamily, HostView};

pub(in crate::forward) fn addr(s: &str) -> Addr {
    s.parse::<IpAddr>().unwrap().into()
}

fn at(s: &str, port: u16) -> Endpoint {
    Endpoint::new(addr(s), port)
}

pub(in crate::forward) fn lease() -> Lease {
    Lease {
        map_host_loopback4: Some("192.0.2.200".parse().unwrap()),
        map_host_loopback6: Some("fe80::1".parse().unwrap()),
        dns_match4: Some("192.0.2.222".parse().unwrap()),
        dns_match6: Some("2001:db8::53".parse().unwrap()),
        dns_host4: Some("127.0.0.53".parse().unwrap()),
        dns_host6: Some("2001:db8:9::53".parse().unwrap()),
        scope6: 2,
        ..Lease::example()
    }
}

fn to(port: u16) -> ForwardTarget {
    ForwardTarget { addr: None, port }
}

fn out(lease: &Lease, protocol: u8, dst: Endpoint) -> Option<String> {
    outbound(lease, protocol, dst).map(|d| d.to.to_string())
}

// [FWD-2] Resolver, on its ports and for TCP and UDP only.
#[test]
fn dns_is_redirected() {
    let l = lease();
    for protocol in [proto::TCP, proto::UDP] {
        for port in [53, 853] {
            let got = out(&l, protocol, at("192.0.2.222", port)).unwrap();
            assert_eq!(got, format!("127.0.0.53:{port}"));
            let got = out(&l, protocol, at("2001:db8::53", port)).unwrap();
            assert_eq!(got, format!("[2001:db8:9::53]:{port}"));
        }
        let got = out(&l, protocol, at("192.0.2.222", 80)).unwrap();
        assert_eq!(got, "192.0.2.222:80");
    }
    assert_eq!(out(&l, proto::ICMP, at("192.0.2.222", 53)).unwrap(), "192.0.2.222:53");
}

// [FWD-2] [ADDR-7] Resolver first, then loopback; without a resolver, no redirection.
#[test]
fn dns_comes_before_loopback() {
    let gw = at("192.0.2.200", 53);
    let mut l = Lease { dns_match4: lease().map_host_loopback4, ..lease() };
    assert_eq!(out(&l, proto::UDP, gw).unwrap(), "127.0.0.53:53");
    l.dns_host4 = None;
    assert_eq!(out(&l, proto::UDP, gw).unwrap(), "127.0.0.1:53");
    l.map_host_loopback4 = None;
    assert_eq!(out(&l, proto::UDP, gw).unwrap(), "192.0.2.200:53");
}

// [FWD-2] [ADDR-6] The mapped address means the host's loopback, for every protocol.
#[test]
fn loopback_mapping() {
    let mut l = lease();
    for protocol in [proto::TCP, proto::UDP, proto::ICMP] {
        assert_eq!(out(&l, protocol, at("192.0.2.200", 8000)).unwrap(), "127.0.0.1:8000");
    }
    assert_eq!(out(&l, proto::TCP, at("fe80::1", 8000)).unwrap(), "[::1]:8000");
    l.map_host_loopback6 = None;
    assert_eq!(out(&l, proto::TCP, at("fe80::1", 8000)).unwrap(), "[fe80::1]:8000");
}

// [FWD-2] [ADDR-6] The host's address that the guest has too; after the resolver and loopback.
#[test]
fn guest_mapping() {
    let l = Lease {
        map_guest4: Some("192.0.2.201".parse().unwrap()),
        map_guest6: Some("2001:db8::201".parse().unwrap()),
        ..lease()
    };
    for protocol in [proto::TCP, proto::UDP, proto::ICMP] {
        assert_eq!(out(&l, protocol, at("192.0.2.201", 53)).unwrap(), "192.0.2.10:53");
    }
    assert_eq!(out(&l, proto::TCP, at("2001:db8::201", 80)).unwrap(), "[2001:db8::10]:80");
    assert_eq!(out(&lease(), proto::TCP, at("192.0.2.201", 80)).unwrap(), "192.0.2.201:80");
    let both = Lease { map_guest4: l.map_host_loopback4, ..l.clone() };
    assert_eq!(out(&both, proto::TCP, at("192.0.2.200", 80)).unwrap(), "127.0.0.1:80");
    // In local mode there is no address to stand for.
    let alone = Lease { addr6: None, twin6: None, ..l };
    let same = out(&alone, proto::TCP, at("2001:db8::201", 80)).unwrap();
    assert_eq!(same, "[2001:db8::201]:80");
}

// [FWD-2] [ADDR-12] What stands for the host follows it when it loses the guest's address; what
// comes from there comes from what stands for it.
#[test]
fn guest_mapping_follows_the_host() {
    let moved = Lease {
        map_guest4: Some("192.0.2.99".parse().unwrap()),
        twin4: "198.51.100.2".parse().unwrap(),
        ..lease()
    };
    let to = outbound(&moved, proto::TCP, at("192.0.2.99", 80)).unwrap();
    assert_eq!(to, Destination { to: at("198.51.100.2", 80), via: Via::Host });
    let guest = GuestAddrs::new(&moved, false, false);
    let seen = inbound(&moved, &guest, at("198.51.100.2", 5), None, super::tests::to(80));
    assert_eq!(seen.unwrap().0, at("192.0.2.99", 5));
}

// [FWD-6] The host talks to the guest from the address they share: the mapped one is seen.
#[test]
fn shared_address_as_source() {
    let mapped = Lease {
        map_guest4: Some("192.0.2.201".parse().unwrap()),
        map_guest6: Some("2001:db8::201".parse().unwrap()),
        ..lease()
    };
    let g = GuestAddrs::new(&mapped, false, false);
    let to = "192.0.2.10:5555";
    assert_eq!(seen("192.0.2.10", &mapped, &g), pair("192.0.2.201:6001", to));
    assert_eq!(seen("127.0.0.1", &mapped, &g), pair("192.0.2.200:6001", to));
    assert_eq!(seen("127.0.0.5", &mapped, &g), pair("192.0.2.1:6001", to));
    let to = "[2001:db8::10]:5555";
    assert_eq!(seen("2001:db8::10", &mapped, &g), pair("[2001:db8::201]:6001", to));
}

// [FWD-2] Everything else is itself, but for what cannot be a destination.
#[test]
fn other_destinations() {
    let l = Lease { map_host_loopback4: None, map_host_loopback6: None, ..lease() };
    for same in ["10.0.0.1", "169.254.169.254", "255.255.255.255", "2001:db8::77", "ff02::fb"] {
        let via = Via::Outside;
        assert_eq!(
            outbound(&l, proto::UDP, at(same, 9)),
            Some(Destination { to: at(same, 9), via })
        );
    }
    for nowhere in ["0.0.0.0", "::", "127.0.0.1", "127.9.9.9", "::1"] {
        assert_eq!(outbound(&l, proto::UDP, at(nowhere, 9)), None, "{nowhere}");
    }
}

fn seen(peer: &str, l: &Lease, g: &GuestAddrs) -> Option<(String, String)> {
    inbound(l, g, at(peer, 6001), None, to(5555)).map(|(o, g)| (o.to_string(), g.to_string()))
}

fn pair(ours: &str, guest: &str) -> Option<(String, String)> {
    Some((ours.into(), guest.into()))
}

// [FWD-6] 127.0.0.1 exactly is mapped; other loopback and the guest's own addresses become
// ours; the rest stays. The port is kept.
#[test]
fn sources_the_guest_sees() {
    let l = lease();
    let mut g = GuestAddrs::new(&l, false, false);
    let to = "192.0.2.10:5555";
    assert_eq!(seen("127.0.0.1", &l, &g), pair("192.0.2.200:6001", to));
    assert_eq!(seen("127.0.0.5", &l, &g), pair("192.0.2.1:6001", to));
    assert_eq!(seen("192.0.2.10", &l, &g), pair("192.0.2.1:6001", to));
    assert_eq!(seen("192.0.2.77", &l, &g), pair("192.0.2.77:6001", to));
    g.learn(addr("192.0.2.99"));
    let to = "192.0.2.99:5555";
    assert_eq!(seen("192.0.2.99", &l, &g), pair("192.0.2.1:6001", to));
    assert_eq!(seen("192.0.2.10", &l, &g), pair("192.0.2.1:6001", to));

    let unmapped = Lease { map_host_loopback4: None, ..lease() };
    assert_eq!(seen("127.0.0.1", &unmapped, &g), pair("192.0.2.1:6001", to));
    let alone = Lease { gateway4: Ipv4Addr::UNSPECIFIED, ..unmapped };
    assert_eq!(seen("127.0.0.1", &alone, &g), None);
    assert_eq!(seen("192.0.2.77", &alone, &g), pair("192.0.2.77:6001", to));
}

// [FWD-4] From a link-local source to the guest's link-local address, and never to `::`.
#[test]
fn destinations_ipv6() {
    let l = lease();
    let mut g = GuestAddrs::new(&l, false, false);
    let global = "[2001:db8::10]:5555";
    assert_eq!(seen("2001:db8::77", &l, &g), pair("[2001:db8::77]:6001", global));
    assert_eq!(seen("::1", &l, &g), pair("[fe80::1]:6001", global));
    g.learn(addr("fe80::99"));
    assert_eq!(seen("::1", &l, &g), pair("[fe80::1]:6001", "[fe80::99]:5555"));
    assert_eq!(seen("2001:db8::10", &l, &g), pair("[fe80::1]:6001", "[fe80::99]:5555"));
    assert_eq!(seen("fe80::99", &l, &g), pair("[fe80::1]:6001", "[fe80::99]:5555"));
    assert_eq!(seen("2001:db8::77", &l, &g), pair("[2001:db8::77]:6001", global));

    let l = Lease { addr6: None, ..lease() };
    let g = GuestAddrs::new(&l, false, false);
    assert_eq!(seen("::1", &l, &g), None);
    assert_eq!(seen("2001:db8::77", &l, &g), None);
}

// [UDP-4] Nobody can be answered at these.
#[test]
fn impossible_peers() {
    let l = lease();
    let g = GuestAddrs::new(&l, false, false);
    for peer in ["0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "ff02::1"] {
        assert_eq!(seen(peer, &l, &g), None, "{peer}");
    }
    assert_eq!(inbound(&l, &g, at("192.0.2.77", 0), None, to(5555)), None);
    assert_eq!(inbound(&l, &g, at("192.0.2.77", 6001), None, to(0)), None);
}

/// The lease of a host with 192.0.2.10 and 2001:db8::10 behind .1 and fe80::1, for a command line.
fn lab(options: &str) -> Lease {
    let env = CliEnv { user: |_| None, group: |_| None, ipv6: true, ephemeral: None };
    let line = format!("pasta {options}");
    let Ok(Outcome::Run { config, .. }) =
        cli::parse(line.split_whitespace().map(Into::into).collect(), &env)
    else {
        panic!("{line}")
    };
    let ip = |s: &str| s.parse::<IpAddr>().unwrap();
    let view = HostView {
        v4: Some(HostFamily {
            ifindex: 2,
            ifname: "host0".into(),
            addr: HostAddr4 { addr: "192.0.2.10".parse().unwrap(), prefix: 24 },
            gateway: Some(ip("192.0.2.1")),
            link_local: None,
        }),
        v6: Some(HostFamily {
            ifindex: 2,
            ifname: "host0".into(),
            addr: HostAddr6 { addr: "2001:db8::10".parse().unwrap(), prefix: 64 },
            gateway: Some(ip("fe80::1")),
            link_local: Some("fe80::10".parse().unwrap()),
        }),
        resolvers: vec![ip("192.0.2.53")],
        search: Vec::new(),
    };
    Lease::new(&config, &view, true).unwrap().0
}

/// Two addresses that stand for the host.
const MAPPED: &str = "--map-host-loopback 192.0.2.200 --map-guest-addr 192.0.2.201 \
     --map-host-loopback 2001:db8::200 --map-guest-addr 2001:db8::201";

// [FWD-2] [FWD-3] [FWD-9] [ADDR-6] [NL-10] From the guest to the host: options, where the guest
// sends to, where that is on the host, and whether it leaves the host, as `-o` and
// `--outbound-if4` say.
#[test]
fn table_from_the_guest() {
    use Via::{Host, Outside};
    const DNS: &str = "--dns-forward 192.0.2.222 --dns-host 127.0.0.1";
    let cases = [
        ("", "192.0.2.1:8000", "127.0.0.1:8000", Host),
        ("", "[fe80::1]:8000", "[::1]:8000", Host),
        ("", "192.0.2.77:8000", "192.0.2.77:8000", Outside),
        ("", "[2001:db8::77]:8000", "[2001:db8::77]:8000", Outside),
        ("", "[fe80::77]:8000", "[fe80::77]:8000", Outside),
        ("", "169.254.169.254:80", "169.254.169.254:80", Outside),
        ("", "224.0.0.251:5353", "224.0.0.251:5353", Outside),
        ("", "255.255.255.255:9", "255.255.255.255:9", Outside),
        ("", "192.0.2.53:53", "192.0.2.53:53", Outside),
        ("--no-map-gw", "192.0.2.1:8000", "192.0.2.1:8000", Outside),
        ("--no-map-gw", "[fe80::1]:8000", "[fe80::1]:8000", Outside),
        ("--map-host-loopback none", "192.0.2.1:8000", "192.0.2.1:8000", Outside),
        ("--map-host-loopback none", "[fe80::1]:8000", "[fe80::1]:8000", Outside),
        ("-g 192.0.2.9", "192.0.2.9:8000", "127.0.0.1:8000", Host),
        ("-g 192.0.2.9", "192.0.2.1:8000", "192.0.2.1:8000", Outside),
        ("-g 2001:db8::1", "[2001:db8::1]:8000", "[::1]:8000", Host),
        (MAPPED, "192.0.2.200:8000", "127.0.0.1:8000", Host),
        (MAPPED, "192.0.2.201:8000", "192.0.2.10:8000", Host),
        (MAPPED, "192.0.2.1:8000", "192.0.2.1:8000", Outside),
        (MAPPED, "[2001:db8::200]:8000", "[::1]:8000", Host),
        (MAPPED, "[2001:db8::201]:8000", "[2001:db8::10]:8000", Host),
        (MAPPED, "[fe80::1]:8000", "[fe80::1]:8000", Outside),
        // An address that the host does not have is elsewhere.
        ("-a 192.0.2.55 --map-guest-addr 192.0.2.201", "192.0.2.201:1", "192.0.2.55:1", Outside),
        ("-a 2001:db8::55 --map-guest-addr fd00::2", "[fd00::2]:1", "[2001:db8::55]:1", Outside),
        ("-a 192.0.2.10 --map-guest-addr 192.0.2.201", "192.0.2.201:1", "192.0.2.10:1", Host),
        (DNS, "192.0.2.222:53", "127.0.0.1:53", Host),
        (DNS, "192.0.2.222:853", "127.0.0.1:853", Host),
        (DNS, "192.0.2.222:80", "192.0.2.222:80", Outside),
        ("--dns-forward 192.0.2.222", "192.0.2.222:53", "192.0.2.53:53", Outside),
        ("--dns-forward 192.0.2.222 --no-map-gw", "192.0.2.222:53", "192.0.2.53:53", Outside),
        ("--dns-forward 192.0.2.1", "192.0.2.1:53", "192.0.2.53:53", Outside),
        ("--dns-forward 192.0.2.1", "192.0.2.1:80", "127.0.0.1:80", Host),
        (
            "--dns-forward fd00::53 --dns-host 2001:db8::5",
            "[fd00::53]:53",
            "[2001:db8::5]:53",
            Outside,
        ),
        // The loopback that the gateway stands for is not behind any other interface.
        ("--outbound-if4 host0", "192.0.2.1:8000", "127.0.0.1:8000", Host),
    ];
    for (options, from, to, via) in cases {
        let lease = lab(options);
        let dst: std::net::SocketAddr = from.parse().unwrap();
        let dst = Endpoint::new(dst.ip().into(), dst.port());
        for protocol in [proto::TCP, proto::UDP] {
            let got = outbound(&lease, protocol, dst).map(|d| (d.to.to_string(), d.via));
            assert_eq!(got, Some((to.to_owned(), via)), "{options} {from}");
        }
    }
}

// [FWD-4] [FWD-6] [ADDR-6] From the host to the guest: options, who sends to which address, and
// the addresses that the guest sees.
#[test]
fn table_to_the_guest() {
    const ALONE: &str = "--no-map-gw -a 10.5.0.2/32 -g 10.5.0.1";
    let cases = [
        // Sources that the guest can answer stay.
        ("", "192.0.2.77", "192.0.2.10", "192.0.2.77", "192.0.2.10"),
        ("", "2001:db8::77", "2001:db8::10", "2001:db8::77", "2001:db8::10"),
        ("", "fe80::77", "fe80::10", "fe80::77", "fe80::99"),
        ("", "192.0.2.1", "192.0.2.10", "192.0.2.1", "192.0.2.10"),
        ("", "169.254.7.7", "192.0.2.10", "169.254.7.7", "192.0.2.10"),
        (ALONE, "192.0.2.10", "192.0.2.10", "192.0.2.10", "10.5.0.2"),
        (ALONE, "192.0.2.77", "192.0.2.10", "192.0.2.77", "10.5.0.2"),
        // Others become the address that stands for them, or ours.
        ("", "127.0.0.1", "127.0.0.1", "192.0.2.1", "192.0.2.10"),
        ("", "127.0.0.5", "127.0.0.1", "192.0.2.1", "192.0.2.10"),
        ("", "192.0.2.10", "192.0.2.10", "192.0.2.1", "192.0.2.10"),
        ("", "::1", "::1", "fe80::1", "fe80::99"),
        ("", "2001:db8::10", "2001:db8::10", "fe80::1", "fe80::99"),
        ("", "fe80::99", "fe80::10", "fe80::1", "fe80::99"),
        ("", "192.0.2.11", "192.0.2.10", "192.0.2.1", "192.0.2.10"),
        ("", "2001:db8::11", "2001:db8::10", "fe80::1", "fe80::99"),
        (ALONE, "127.0.0.1", "127.0.0.1", "10.5.0.1", "10.5.0.2"),
        (ALONE, "10.5.0.2", "192.0.2.10", "10.5.0.1", "10.5.0.2"),
        (MAPPED, "127.0.0.1", "127.0.0.1", "192.0.2.200", "192.0.2.10"),
        (MAPPED, "127.0.0.5", "127.0.0.1", "192.0.2.1", "192.0.2.10"),
        (MAPPED, "192.0.2.10", "192.0.2.10", "192.0.2.201", "192.0.2.10"),
        (MAPPED, "::1", "::1", "2001:db8::200", "2001:db8::10"),
        (MAPPED, "2001:db8::10", "2001:db8::10", "2001:db8::201", "2001:db8::10"),
        // What is meant for many stays so.
        ("", "192.0.2.77", "224.0.0.251", "192.0.2.77", "224.0.0.251"),
        ("", "192.0.2.77", "255.255.255.255", "192.0.2.77", "255.255.255.255"),
        ("", "192.0.2.77", "192.0.2.255", "192.0.2.77", "192.0.2.255"),
        ("", "fe80::77", "ff02::fb", "fe80::77", "ff02::fb"),
        ("", "127.0.0.1", "224.0.0.251", "192.0.2.1", "224.0.0.251"),
        (ALONE, "192.0.2.77", "10.5.0.2", "192.0.2.77", "10.5.0.2"),
    ];
    for (options, peer, sent_to, source, destination) in cases {
        let lease = lab(options);
        let others = ["192.0.2.11", "2001:db8::11"].map(|a| a.parse::<IpAddr>().unwrap());
        let mut guest = GuestAddrs::new(&lease, false, false).with(&others);
        guest.learn(addr("fe80::99"));
        let got = inbound(&lease, &guest, at(peer, 6001), Some(addr(sent_to)), to(5555));
        let got = got.map(|(ours, guest)| (ours.to_string(), guest.to_string()));
        let want = (at(source, 6001).to_string(), at(destination, 5555).to_string());
        assert_eq!(got, Some(want), "{options} {peer} -> {sent_to}");
    }
}

// [FWD-4] The address of the rule goes before everything else, in its own family only.
#[test]
fn rules_with_an_address() {
    let lease = lab("");
    let guest = GuestAddrs::new(&lease, false, false);
    let rule = ForwardTarget { addr: Some(addr("192.0.2.5")), port: 6000 };
    for sent_to in ["192.0.2.10", "224.0.0.251"] {
        let got = inbound(&lease, &guest, at("192.0.2.77", 6001), Some(addr(sent_to)), rule);
        assert_eq!(got, Some((at("192.0.2.77", 6001), at("192.0.2.5", 6000))));
    }
    assert_eq!(inbound(&lease, &guest, at("2001:db8::77", 6001), None, rule), None);
}
