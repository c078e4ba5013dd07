//! What is told at the start: the guest's network in a few lines [CLI-15 to CLI-17].
//!
//! People read these lines, and so do programs that set up a guest by hand: `DHCP:` with the lines
//! indented below it that say `assign:`, `mask:` and `router:`, in this order [COMPAT-33]. So
//! wording and order are an interface.

use std::net::Ipv4Addr;

use super::{Config, ForwardSpec, HostView, Lease};

/// The lines. `ifname` is the interface in the namespace, if there is one.
pub fn summary(
    config: &Config,
    host: &HostView,
    lease: &Lease,
    ifname: Option<&str>,
) -> Vec<String> {
    let mut lines = Lines(Vec::new());
    let template4 = host.v4.as_ref().filter(|_| lease.v4).map(|f| f.ifname.as_str());
    let template6 = host.v6.as_ref().filter(|_| lease.v6).map(|f| f.ifname.as_str());
    lines.by_family("Template interface", template4, template6);
    let out = &config.outbound;
    lines.by_family("Outbound interface", out.if4.as_deref(), out.if6.as_deref());
    lines.value("Outbound IPv4 address", out.addr4);
    lines.value("Outbound IPv6 address", out.addr6);
    lines.value("Namespace interface", ifname);
    if !config.splice_only {
        lines.put("MAC:");
        lines.item("host", lease.our_mac);
        if lease.v4 {
            lines.ipv4(config, lease);
        }
        if lease.v6 {
            lines.ipv6(config, lease);
        }
    }
    lines.rules("Inbound forwarding rules (HOST)", [&config.tcp_in, &config.udp_in]);
    lines.rules("Outbound forwarding rules (SPLICE)", [&config.tcp_out, &config.udp_out]);
    lines.0
}

struct Lines(Vec<String>);

impl Lines {
    fn put(&mut self, line: impl Into<String>) {
        self.0.push(line.into());
    }

    fn value(&mut self, name: &str, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            self.put(format!("{name}: {value}"));
        }
    }

    fn item(&mut self, name: &str, value: impl std::fmt::Display) {
        self.put(format!("    {name}: {value}"));
    }

    fn by_family(&mut self, name: &str, v4: Option<&str>, v6: Option<&str>) {
        let parts: Vec<_> = [(v4, "IPv4"), (v6, "IPv6")]
            .into_iter()
            .filter_map(|(value, family)| value.map(|value| format!("{value} ({family})")))
            .collect();
        self.value(name, (!parts.is_empty()).then(|| parts.join(", ")));
    }

    fn list(&mut self, name: &str, items: impl IntoIterator<Item = impl std::fmt::Display>) {
        let items: Vec<_> = items.into_iter().map(|item| format!("    {item}")).collect();
        if !items.is_empty() {
            self.put(format!("{name}:"));
            self.0.extend(items);
        }
    }

    fn ipv4(&mut self, config: &Config, lease: &Lease) {
        self.value("NAT to host 127.0.0.1", lease.map_host_loopback4);
        // DHCP is served only where there is a router to tell of [DHCP-1].
        if config.dhcp && !lease.gateway4.is_unspecified() {
            self.put("DHCP:");
            self.item("assign", lease.addr4);
            self.item("mask", mask(lease.prefix4));
            self.item("router", lease.gateway4);
        }
        self.list("DNS", &lease.dns4);
        self.list("DNS search list", &lease.search);
    }

    fn ipv6(&mut self, config: &Config, lease: &Lease) {
        self.value("NAT to host ::1", lease.map_host_loopback6);
        let dhcpv6 = config.dhcpv6 && lease.addr6.is_some();
        let ndp = config.ndp && config.ra && !config.config_net;
        let heading = match (ndp, dhcpv6) {
            (true, true) => "NDP/DHCPv6:",
            (true, false) => "NDP:",
            (false, true) => "DHCPv6:",
            (false, false) => "",
        };
        if !heading.is_empty() {
            self.put(heading);
            if let Some(addr) = lease.addr6 {
                self.item("assign", addr);
            }
            if let Some(gateway) = lease.gateway6 {
                self.item("router", gateway);
            }
            self.item("our link-local", lease.our_ll);
        }
        self.list("DNS", &lease.dns6);
        // Told once if both families have it.
        if !lease.v4 {
            self.list("DNS search list", &lease.search);
        }
    }

    fn rules(&mut self, name: &str, specs: [&ForwardSpec; 2]) {
        // The blank at the end of a rule is for lists that go on behind it.
        self.list(name, specs.into_iter().flat_map(|s| &s.rules).map(|r| r.to_string()));
    }
}

fn mask(prefix: u8) -> Ipv4Addr {
    let ones = u32::MAX.checked_shl(32u32.saturating_sub(prefix.into())).unwrap_or(0);
    Ipv4Addr::from(ones)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{HostAddr4, HostFamily, Mode, PortRule, Proto};

    fn host() -> HostView {
        HostView {
            v4: Some(HostFamily {
                ifindex: 2,
                ifname: "eth0".into(),
                addr: HostAddr4 { addr: Ipv4Addr::new(192, 0, 2, 10), prefix: 24 },
                gateway: None,
                link_local: None,
            }),
            ..HostView::default()
        }
    }

    fn rule(auto: bool) -> PortRule {
        PortRule {
            proto: Proto::Tcp,
            listen: None,
            interface: None,
            first: 22,
            last: 22,
            target: None,
            to_first: 2222,
            weak: false,
            auto,
        }
    }

    #[test]
    fn masks() {
        for (prefix, text) in [(0, "0.0.0.0"), (1, "128.0.0.0"), (24, "255.255.255.0")] {
            assert_eq!(mask(prefix).to_string(), text);
        }
        assert_eq!(mask(32).to_string(), "255.255.255.255");
    }

    // [CLI-15] [COMPAT-33]
    #[test]
    fn everything() {
        let mut config = Config { mode: Mode::Passt, ..Config::default() };
        config.outbound.if4 = Some("eth0".into());
        config.outbound.addr6 = Some("2001:db8::7".parse().unwrap());
        config.tcp_in.rules.push(rule(false));
        config.tcp_out.rules.push(rule(true));
        let lease = Lease {
            map_host_loopback4: Some(Ipv4Addr::new(192, 0, 2, 1)),
            map_host_loopback6: Some("fe80::1".parse().unwrap()),
            dns4: vec![Ipv4Addr::new(192, 0, 2, 53)],
            dns6: vec!["2001:db8::53".parse().unwrap()],
            search: vec!["a.example".into(), "b.example".into()],
            ..Lease::example()
        };
        let text = summary(&config, &host(), &lease, Some("tap0")).join("\n");
        assert_eq!(
            text,
            "Template interface: eth0 (IPv4)
Outbound interface: eth0 (IPv4)
Outbound IPv6 address: 2001:db8::7
Namespace interface: tap0
MAC:
    host: 9a:55:9a:55:9a:55
NAT to host 127.0.0.1: 192.0.2.1
DHCP:
    assign: 192.0.2.10
    mask: 255.255.255.0
    router: 192.0.2.1
DNS:
    192.0.2.53
DNS search list:
    a.example
    b.example
NAT to host ::1: fe80::1
NDP/DHCPv6:
    assign: 2001:db8::10
    router: fe80::1
    our link-local: fe80::1
DNS:
    2001:db8::53
Inbound forwarding rules (HOST):
    TCP [*]:22  =>  2222 \n\
Outbound forwarding rules (SPLICE):
    TCP [*]:22  =>  2222  (auto-scan)"
        );
    }

    // [CLI-15] Headings stand for what is on.
    #[test]
    fn what_is_off_is_not_there() {
        let headings = |change: &dyn Fn(&mut Config, &mut Lease)| {
            let (mut config, mut lease) = (Config::default(), Lease::example());
            change(&mut config, &mut lease);
            let lines = summary(&config, &HostView::default(), &lease, None);
            lines.into_iter().filter(|l| !l.starts_with(' ')).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(headings(&|_, _| {}), "MAC: DHCP: NDP/DHCPv6:");
        assert_eq!(headings(&|c, _| c.dhcp = false), "MAC: NDP/DHCPv6:");
        assert_eq!(headings(&|_, l| l.gateway4 = Ipv4Addr::UNSPECIFIED), "MAC: NDP/DHCPv6:");
        assert_eq!(headings(&|c, _| c.ndp = false), "MAC: DHCP: DHCPv6:");
        assert_eq!(headings(&|c, _| c.config_net = true), "MAC: DHCP: DHCPv6:");
        assert_eq!(headings(&|_, l| l.addr6 = None), "MAC: DHCP: NDP:");
        assert_eq!(headings(&|c, _| (c.ra, c.dhcpv6) = (false, false)), "MAC: DHCP:");
        assert_eq!(headings(&|_, l| l.v4 = false), "MAC: NDP/DHCPv6:");
        assert_eq!(headings(&|_, l| l.v6 = false), "MAC: DHCP:");
        assert_eq!(headings(&|c, _| c.splice_only = true), "");
    }
}
