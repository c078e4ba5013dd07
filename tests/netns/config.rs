//! What the namespace looks like after `--config-net`: links, addresses, routes.

use std::fs;
use std::net::IpAddr;

use crate::json::Json;
use crate::lab::{GATEWAY4, GATEWAY6, HOST4, HOST6, Lab, SOON, ip, ip_batch, output_within};
use crate::ns::Ns;

/// A network interface as `ip -j addr` shows it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) up: bool,
    pub(crate) mtu: f64,
    pub(crate) mac: String,
    /// Not link-local.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) prefixes: Vec<f64>,
    /// Some address is still being checked for duplicates.
    pub(crate) tentative: bool,
}

impl Link {
    /// Reads it from a namespace.
    #[track_caller]
    pub(crate) fn of(ns: &Ns, name: &str) -> Link {
        let text = output_within(ns.command("ip").args(["-j", "addr"]), SOON).ok();
        Link::find(&text, name).unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    /// Finds it in the output of `ip -j addr`.
    pub(crate) fn find(text: &str, name: &str) -> Option<Link> {
        let json = Json::parse(text);
        let link = json.items().iter().find(|l| l.at("ifname").str() == name)?;
        let all = link.at("addr_info").items();
        let wide: Vec<_> = all.iter().filter(|a| a.at("scope").str() != "link").collect();
        Some(Link {
            up: link.at("flags").items().iter().any(|f| f.str() == "UP"),
            mtu: link.at("mtu").number()?,
            mac: link.at("address").str().into(),
            addresses: wide.iter().filter_map(|a| a.at("local").str().parse().ok()).collect(),
            prefixes: wide.iter().filter_map(|a| a.at("prefixlen").number()).collect(),
            tentative: all.iter().any(|a| *a.at("tentative") == Json::Bool(true)),
        })
    }
}

/// Runs `pasta --config-net OPTIONS -- ip -j addr`: what the command sees first.
#[track_caller]
fn first_look(lab: &Lab, options: &str, name: &str) -> Link {
    let mut command = lab.command(&format!("--config-net {options} -- ip -j addr"));
    let text = output_within(&mut command, SOON).ok();
    Link::find(&text, name).unwrap_or_else(|| panic!("{options}: no {name} in {text}"))
}

/// Default gateways of a new namespace, one per family.
#[track_caller]
fn gateways(lab: &Lab, options: &str) -> Vec<IpAddr> {
    let script = "ip -4 -j route show default; ip -6 -j route show default";
    let mut command = lab.command(&format!("--config-net {options} -- sh -c"));
    let text = output_within(command.arg(script), SOON).ok();
    let routes: Vec<Json> =
        text.lines().filter(|l| !l.trim().is_empty()).map(Json::parse).collect();
    routes.iter().flat_map(Json::items).filter_map(|r| r.at("gateway").str().parse().ok()).collect()
}

#[test]
fn command_finds_the_network_configured_at_its_first_instruction() {
    // [NS-8] [NS-10] [NS-11] [LIFE-8] [COMPAT-50] [COMPAT-51]
    Lab::run(|lab| {
        let link = first_look(lab, "", "up0");
        assert!(link.up, "{link:?}");
        assert!((link.mtu - 65520.0).abs() < 0.1, "{link:?}");
        assert!(!link.tentative, "{link:?}");
        assert_eq!(link.addresses, [HOST4, HOST6], "{link:?}");
        assert_eq!(link.prefixes, [24.0, 64.0], "{link:?}");
        assert!(first_look(lab, "", "lo").up);
        assert_eq!(gateways(lab, ""), [GATEWAY4, GATEWAY6]);
    });
}

#[test]
fn network_works_at_the_first_instruction() {
    // [NS-10] [LIFE-8]: no duplicate address detection delays the first IPv6 connection.
    Lab::run(|lab| {
        let server = crate::net::listen(&lab.remote, crate::lab::at(crate::lab::REMOTE6, 7000));
        let mut command = lab.command("--config-net -- bash -c");
        command.arg("exec 3<>/dev/tcp/2001:db8:9::3/7000 && echo connected");
        assert_eq!(output_within(&mut command, SOON).ok(), "connected\n");
        crate::net::accept(&server);
    });
}

#[test]
fn without_config_net_nothing_is_assigned() {
    // [NS-9]
    Lab::run(|lab| {
        let text = output_within(&mut lab.command("-- ip -j addr"), SOON).ok();
        let link = Link::find(&text, "up0").expect(&text);
        assert!(!link.up && link.addresses.is_empty(), "{link:?}");
        assert!(Link::find(&text, "lo").unwrap().up);
    });
}

#[test]
fn interface_name_and_mtu_can_be_chosen() {
    // [CLI table -I -m] [COMPAT-13]
    Lab::run(|lab| {
        for options in ["-I eth7", "--ns-ifname eth7", "--ns-ifname=eth7", "-Ieth7"] {
            assert_eq!(first_look(lab, options, "eth7").addresses, [HOST4, HOST6], "{options}");
        }
        for (options, mtu) in [
            ("-m 1500", 1500.0),
            ("--mtu 1280", 1280.0),
            ("-m 65521", 65521.0),
            ("-m 0", 1500.0), // the kernel's own for a new tap
            ("-m 1400 -m 9000", 9000.0),
        ] {
            let link = first_look(lab, options, "up0");
            assert!((link.mtu - mtu).abs() < 0.1, "{options}: {link:?}");
        }
    });
}

#[test]
fn an_mtu_too_small_for_ipv6_leaves_ipv4() {
    // [CLI table -m] [COMPAT-13]
    Lab::run(|lab| {
        let told = first_look(lab, "-m 1000", "up0");
        assert!(told.mtu < 1000.5 && told.addresses == [HOST4], "{told:?}");
    });
}

#[test]
fn address_can_be_chosen() {
    // [CLI table -a -n] [NS-12] [COMPAT-10] [COMPAT-56]
    Lab::run(|lab| {
        let a4: IpAddr = "10.77.0.5".parse().unwrap();
        for options in ["-a 10.77.0.5 -n 24", "-n 255.255.255.0 -a 10.77.0.5"] {
            let link = first_look(lab, &format!("{options} -g 10.77.0.1"), "up0");
            assert_eq!(link.addresses, [a4, HOST6], "{options}: {link:?}");
            assert_eq!(link.prefixes, [24.0, 64.0], "{options}: {link:?}");
        }
        let link = first_look(lab, "-a 2001:db8:77::5", "up0");
        assert_eq!(link.addresses, [HOST4, "2001:db8:77::5".parse().unwrap()], "{link:?}");
        assert_eq!(link.prefixes, [24.0, 64.0], "{link:?}");
        assert!(!link.tentative);
    });
}

#[test]
fn gateway_can_be_chosen() {
    // [CLI table -g] [NS-14]
    Lab::run(|lab| {
        let given = gateways(lab, "-g 10.9.0.9 -g 2001:db8:9::9");
        assert_eq!(
            given,
            ["10.9.0.9".parse::<IpAddr>().unwrap(), "2001:db8:9::9".parse().unwrap()]
        );
    });
}

#[test]
fn one_family_can_be_left_out() {
    // [CLI table -4 -6] [COMPAT-54]
    Lab::run(|lab| {
        assert_eq!(first_look(lab, "-4", "up0").addresses, [HOST4]);
        assert_eq!(gateways(lab, "-4"), [GATEWAY4]);
        assert_eq!(first_look(lab, "-6", "up0").addresses, [HOST6]);
        assert_eq!(gateways(lab, "--ipv6-only"), [GATEWAY6]);
    });
}

#[test]
fn mac_addresses_can_be_chosen() {
    // [CLI table -M --ns-mac-addr] [COMPAT-71] [COMPAT-8]: ours in the neighbour table, the tap's own
    Lab::run(|lab| {
        let options = "--ns-mac-addr 02:00:00:00:00:01 --ns-mac-addr 02:11:22:33:44:55";
        let guest = lab.guest(&format!("{options} -M 02:aa:bb:cc:dd:ee"));
        assert_eq!(Link::of(&guest.ns, "up0").mac, "02:11:22:33:44:55");
        for gateway in [GATEWAY4, GATEWAY6] {
            guest.ns.enter(|| {
                let any = if gateway.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = std::net::UdpSocket::bind(any).unwrap();
                socket.send_to(b"x", (gateway, 9)).unwrap();
            });
            crate::lab::eventually("neighbour entry of the gateway", SOON, || {
                let neighbours = Json::parse(&guest.run("ip -j neigh show dev up0"));
                let entry = neighbours
                    .items()
                    .iter()
                    .find(|n| n.at("dst").str().parse() == Ok(gateway))
                    .map(|n| n.at("lladdr").str().to_owned());
                entry.as_deref() == Some("02:aa:bb:cc:dd:ee")
            });
        }
    });
}

#[test]
fn template_interface_can_be_chosen() {
    // [NL-2] [NL-9] [COMPAT-72]
    Lab::run(|lab| {
        ip_batch(
            "",
            "link add other type veth peer name far netns remote
             addr add 10.8.0.2/25 dev other
             addr add 2001:db8:8::2/64 dev other nodad
             link set other up
             route add default via 10.8.0.1 metric 500 dev other",
        );
        ip("-n remote link set far up");
        crate::lab::eventually("link-local address", SOON, || {
            ip("-6 addr show dev other scope link").contains("fe80")
        });
        let link = first_look(lab, "-i other", "other");
        let v4: IpAddr = "10.8.0.2".parse().unwrap();
        assert_eq!(link.addresses, [v4, "2001:db8:8::2".parse().unwrap()], "{link:?}");
        assert_eq!(link.prefixes, [25.0, 64.0], "{link:?}");
        assert_eq!(first_look(lab, "", "up0").addresses, [HOST4, HOST6]);
    });
}

#[test]
fn every_address_and_route_of_the_template_is_copied() {
    // [NS-11] [NS-13]
    Lab::run(|lab| {
        ip_batch(
            "",
            "addr add 10.9.1.2/24 dev up0 valid_lft 3600 preferred_lft 3600
             addr add 2001:db8:9:1::2/64 dev up0 nodad
             route add 10.50.0.0/16 via 10.9.0.3 metric 7
             route add 198.51.100.1/32 dev up0
             route add 198.51.100.0/24 via 198.51.100.1 onlink dev up0
             route add 2001:db8:50::/48 via 2001:db8:9::3
             route add blackhole 203.0.113.0/24",
        );
        let guest = lab.guest("");
        let link = Link::of(&guest.ns, "up0");
        for address in ["10.9.0.2", "10.9.1.2", "2001:db8:9::2", "2001:db8:9:1::2"] {
            assert!(link.addresses.contains(&address.parse().unwrap()), "{address}: {link:?}");
        }
        assert!(!guest.run("ip addr").contains("3600sec"), "lifetimes are not copied");
        let routes = guest.run("ip -4 route") + &guest.run("ip -6 route");
        for wanted in [
            "default via 10.9.0.1 dev up0",
            "10.50.0.0/16 via 10.9.0.3 dev up0",
            "metric 7",
            "198.51.100.0/24 via 198.51.100.1 dev up0",
            "onlink",
            "2001:db8:50::/48 via 2001:db8:9::3 dev up0",
        ] {
            assert!(routes.contains(wanted), "no {wanted:?} in\n{routes}");
        }
        assert!(!routes.contains("203.0.113.0"), "{routes}");
    });
}

#[test]
fn copying_can_be_switched_off() {
    // [CLI table --no-copy-routes --no-copy-addrs] [NS-12] [NS-14] [COMPAT-9]
    Lab::run(|lab| {
        ip_batch(
            "",
            "addr add 10.9.1.2/24 dev up0
             addr add 2001:db8:9:1::2/64 dev up0 nodad
             route add 10.50.0.0/16 via 10.9.0.3
             route add 2001:db8:50::/48 via 2001:db8:9::3",
        );
        let told = first_look(lab, "--no-copy-addrs", "up0");
        assert_eq!(told.addresses.len(), 2, "one of each family: {told:?}");
        assert!(told.addresses.contains(&HOST4), "{told:?}");
        assert!(first_look(lab, "", "up0").addresses.len() == 4);
        let guest = lab.guest("--no-copy-routes");
        let routes = guest.run("ip -4 route") + &guest.run("ip -6 route");
        for wanted in ["default via 10.9.0.1", "default via 2001:db8:9::1"] {
            assert!(routes.contains(wanted), "no {wanted:?} in\n{routes}");
        }
        assert!(!routes.contains("10.50.0.0") && !routes.contains("db8:50::"), "{routes}");
    });
}

#[test]
fn two_thousand_routes_are_copied_quickly() {
    // [NS-13] W-7
    Lab::run(|lab| {
        let lines: String = (0..2000)
            .map(|n| format!("route add 172.{}.{}.0/24 via 10.9.0.3\n", 16 + n / 256, n % 256))
            .collect();
        ip_batch("", &lines);
        let (guest, took) = crate::pasta::timed(|| lab.guest("-4"));
        let count = guest.run("ip -4 route").lines().filter(|l| l.starts_with("172.")).count();
        assert_eq!(count, 2000);
        assert!(took.as_secs() < 3, "{took:?}");
    });
}

#[test]
fn host_without_ipv6_is_no_error() {
    // [CLI-5] [COMPAT-54] [COMPAT-81]
    Lab::run(|lab| {
        lab.host().sysctl("net/ipv6/conf/all/disable_ipv6", "1");
        lab.host().sysctl("net/ipv6/conf/default/disable_ipv6", "1");
        let link = first_look(lab, "", "up0");
        assert_eq!(link.addresses, [HOST4], "{link:?}");
    });
}

#[test]
fn host_without_network_gives_local_mode() {
    // [NL-7] [CLI-19]
    Lab::run(|lab| {
        ip("link del up0");
        let link = first_look(lab, "", "tap0");
        assert_eq!(link.addresses, ["169.254.2.1".parse::<IpAddr>().unwrap()], "{link:?}");
        let gateways = gateways(lab, "");
        assert!(gateways.contains(&"169.254.2.2".parse().unwrap()), "{gateways:?}");
    });
}

#[test]
fn host_name_can_be_chosen() {
    // [NS-4]
    Lab::run(|lab| {
        let out =
            lab.pasta(&["--config-net", "-H", "zebra", "--", "cat", "/proc/sys/kernel/hostname"]);
        assert_eq!(out.ok(), "zebra\n");
        let own = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let out = lab.pasta(&["--config-net", "--", "cat", "/proc/sys/kernel/hostname"]);
        assert_eq!(out.ok(), format!("pasta-{own}"));
    });
}
