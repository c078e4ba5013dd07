//! Discovery and configuration against a real kernel, in throw-away namespaces.
//!
//! Every test runs itself again under `unshare`, as root of a new user and network namespace that
//! plays the host. The guest is a second network namespace, entered by a thread, with a real tap
//! device. Needs `unshare`, `ip` and `/dev/net/tun`; no privileges.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[macro_use]
mod isolated;

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use isolated::ip;
use nix::sched::{CloneFlags, unshare};
use passt::config::{Config, HostView, Lease, Neighbour};
use passt::sys::netlink::{self, Configured, Monitor, News, Socket, Told};
use passt::wire::Mac;

/// Name of the tap device in the guest.
const TAP: &str = "guest0";

/// Runs ip(8) and returns its lines, trimmed.
fn lines(words: &str) -> Vec<String> {
    ip(words).lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// A host interface that is up, with an IPv6 link-local address and no surprises.
fn uplink(name: &str, addrs: &[&str]) {
    ip(&format!("link add {name} type veth peer name {name}p"));
    for end in [name.to_owned(), format!("{name}p")] {
        ip(&format!("link set {end} addrgenmode none"));
        ip(&format!("link set {end} up"));
    }
    ip(&format!("-6 addr add fe80::5/64 dev {name} nodad"));
    for addr in addrs {
        let nodad = if addr.contains(':') { "nodad" } else { "" };
        ip(&format!("addr add {addr} dev {name} {nodad}"));
    }
}

fn config() -> Config {
    Config { config_net: true, ..Config::default() }
}

fn discover(config: &Config) -> HostView {
    let mut socket = Socket::open().unwrap();
    netlink::discover(&mut socket, config, Path::new("/nonexistent")).unwrap()
}

/// Interface, address, prefix and gateway for IPv4.
fn found4(config: &Config) -> (String, String, Option<IpAddr>) {
    let f = discover(config).v4.expect("an IPv4 template");
    (f.ifname, format!("{}/{}", f.addr.addr, f.addr.prefix), f.gateway)
}

fn v4(s: &str) -> Ipv4Addr {
    s.parse().unwrap()
}

fn v6(s: &str) -> Ipv6Addr {
    s.parse().unwrap()
}

/// Opens a tap device of the calling thread's namespace.
fn open_tap() -> File {
    nix::ioctl_write_ptr_bad!(tunsetiff, libc::TUNSETIFF, libc::ifreq);
    let file = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    // SAFETY: ifreq is a plain C structure for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(TAP.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_TAP | libc::IFF_NO_PI).unwrap();
    // SAFETY: the descriptor is open and the request outlives the call.
    unsafe { tunsetiff(file.as_raw_fd(), &raw const request) }.unwrap();
    file
}

/// Discovers the host, configures a new guest namespace from it, and looks around in there.
fn in_guest<T: Send>(
    config: &Config,
    before: impl FnOnce() + Send,
    look: impl FnOnce(Configured) -> T + Send,
) -> T {
    let mut host = Socket::open().unwrap();
    let view = netlink::discover(&mut host, config, Path::new("/nonexistent")).unwrap();
    let snapshot = netlink::snapshot(&mut host, &view).unwrap();
    let (lease, _) = Lease::new(config, &view, true).unwrap();
    std::thread::scope(|scope| {
        let guest = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            before();
            let _tap = open_tap();
            let mut socket = Socket::open().unwrap();
            let start = Instant::now();
            let done =
                netlink::configure(&mut socket, &snapshot, &lease, config, Some(TAP)).unwrap();
            println!("configured in {:?}", start.elapsed());
            look(done)
        });
        guest.join().unwrap_or_else(|e| std::panic::resume_unwind(e))
    })
}

isolated! {
    // [NL-2] [T-18] The default route of the lowest metric, not of the lowest index.
    fn default_route_by_metric() {
        uplink("u0", &["192.0.2.5/24", "2001:db8:1::5/64"]);
        uplink("u1", &["198.51.100.5/24", "2001:db8:2::5/64"]);
        ip("route add default via 192.0.2.1 metric 200");
        ip("route add default via 198.51.100.1 metric 100");
        ip("-6 route add default via fe80::1 dev u0 metric 300");
        ip("-6 route add default via fe80::2 dev u1 metric 20");
        let view = discover(&config());
        let (four, six) = (view.v4.unwrap(), view.v6.unwrap());
        assert_eq!((four.ifname.as_str(), four.gateway), ("u1", Some(v4("198.51.100.1").into())));
        assert_eq!((six.ifname.as_str(), six.gateway), ("u1", Some(v6("fe80::2").into())));
        assert_eq!(four.addr.addr, v4("198.51.100.5"));
        assert_eq!(six.addr.addr, v6("2001:db8:2::5"));
        assert_eq!(six.link_local, Some(v6("fe80::5")));

        // [NL-9] -i is the template for both.
        let fixed = Config { template: Some("u0".into()), ..config() };
        assert_eq!(found4(&fixed), ("u0".into(), "192.0.2.5/24".into(), Some(v4("192.0.2.1").into())));
        assert_eq!(discover(&fixed).v6.unwrap().gateway, Some(v6("fe80::1").into()));
        // [NL-8] A family that is off is not looked for.
        assert_eq!(discover(&Config { v6: false, ..config() }).v6, None);
    }
}

isolated! {
    // [ADDR-1] -i must exist, and the error says so.
    fn interface_must_exist() {
        let mut socket = Socket::open().unwrap();
        let c = Config { template: Some("nope".into()), ..config() };
        let e = netlink::discover(&mut socket, &c, Path::new("/nonexistent")).unwrap_err();
        let text = e.to_string();
        assert!(text.contains("nope") && text.contains("No such device"), "{text}");
        // The socket is not out of step afterwards [NL-1].
        assert!(netlink::discover(&mut socket, &config(), Path::new("/nonexistent")).is_ok());
    }
}

isolated! {
    // [NL-3] [W-29] Equal weights: the first; unequal weights: the greatest.
    fn multipath_default() {
        uplink("u0", &["192.0.2.5/24"]);
        ip("route add default nexthop via 192.0.2.1 dev u0 weight 1 nexthop via 192.0.2.2 dev u0 weight 1");
        assert_eq!(found4(&config()).2, Some(v4("192.0.2.1").into()));
        ip("route replace default nexthop via 192.0.2.1 dev u0 weight 1 nexthop via 192.0.2.2 dev u0 weight 3");
        assert_eq!(found4(&config()).2, Some(v4("192.0.2.2").into()));
    }
}

isolated! {
    // [NL-2] [NL-6] Without a default route: the first interface with a route that is neither
    // loopback's nor link-local.
    fn no_default_route() {
        assert_eq!(discover(&config()), HostView::default());
        ip("route add 203.0.113.0/24 dev lo");
        uplink("u0", &["169.254.7.7/16"]);
        assert_eq!(discover(&config()), HostView::default());
        uplink("u1", &["192.0.2.5/24", "2001:db8::5/64"]);
        assert_eq!(found4(&config()), ("u1".into(), "192.0.2.5/24".into(), None));
        let six = discover(&config()).v6.unwrap();
        assert_eq!((six.ifname.as_str(), six.gateway), ("u1", None));
        // [NL-6] No link-local address, no IPv6.
        ip("-6 addr del fe80::5/64 dev u1");
        assert_eq!(discover(&config()).v6, None);
    }
}

isolated! {
    // [NL-4] Point-to-point, deprecated, /128 with /64.
    fn address_choice() {
        uplink("u0", &["2001:db8::64/64", "2001:db8::128/128"]);
        ip("addr add 10.8.0.6 peer 10.8.0.1 dev u0");
        ip("route add default dev u0");
        assert_eq!(found4(&config()), ("u0".into(), "10.8.0.6/32".into(), None));
        assert_eq!(discover(&config()).v6.unwrap().addr.addr, v6("2001:db8::128"));
        ip("-6 addr change 2001:db8::128/128 dev u0 preferred_lft 0 valid_lft 100");
        assert_eq!(discover(&config()).v6.unwrap().addr.addr, v6("2001:db8::64"));
    }
}

isolated! {
    // The device never had a use for a queueing discipline, but who chose one keeps it.
    fn nothing_queues_before_the_device() {
        uplink("u0", &["192.0.2.5/24"]);
        ip("route add default via 192.0.2.1 dev u0");
        let discipline = |_| ip(&format!("link show dev {TAP}"));
        assert!(in_guest(&config(), || (), discipline).contains("qdisc noqueue"));
        let chosen = || {
            let mut tc = Command::new("tc");
            tc.args(["qdisc", "add", "dev", TAP, "root", "pfifo"]);
            ip(&format!("tuntap add {TAP} mode tap"));
            assert!(tc.status().unwrap().success());
        };
        let kept = in_guest(&config(), chosen, discipline);
        assert!(kept.contains("qdisc pfifo "), "{kept}");
    }
}

isolated! {
    // [NL-4] [NS-11] [NS-13] [W-42] A host like NetworkManager leaves it.
    fn copies_addresses_and_routes() {
        uplink("u0", &[]);
        uplink("u1", &["198.51.100.5/24"]);
        ip("addr add 192.0.2.5/24 dev u0 noprefixroute valid_lft 1000 preferred_lft 900");
        ip("addr add 192.0.2.6/24 dev u0 label u0:1 noprefixroute");
        ip("addr add 10.9.0.1/16 dev u0");
        ip("-6 addr add 2001:db8::5/64 dev u0 nodad valid_lft 1000 preferred_lft 900");
        ip("-6 addr add 2001:db8::6/128 dev u0 nodad");
        ip("route add 192.0.2.0/24 dev u0 proto kernel scope link src 192.0.2.5 metric 600");
        ip("route add default via 192.0.2.1 dev u0 proto dhcp src 192.0.2.5 metric 600");
        ip("route add 203.0.113.0/28 via 172.16.0.1 dev u0 onlink");
        ip("route add 203.0.113.16/28 nexthop via 192.0.2.1 dev u0 weight 3 nexthop via 192.0.2.2 dev u0");
        ip("route add 203.0.113.32/28 nexthop via 192.0.2.1 dev u0 nexthop via 198.51.100.1 dev u1");
        ip("route add blackhole 203.0.113.48/28");
        ip("route add 203.0.113.64/28 via 198.51.100.1");
        ip("nexthop add id 7 via 192.0.2.9 dev u0");
        ip("route add 203.0.113.80/28 nhid 7");
        ip("route add 203.0.113.96/28 via inet6 fe80::1 dev u0");
        ip("route add 203.0.113.112/28 via 192.0.2.1 mtu 1400 advmss 1300");
        ip("-6 route add default via fe80::1 dev u0 proto ra metric 600 pref high");
        ip("-6 route add 2001:db8:9::/48 via 2001:db8::9 dev u0 src 2001:db8::5");
        in_guest(&config(), || {}, |done| {
            assert!(done.v4 && done.v6);
            let addrs = ip(&format!("addr show dev {TAP}"));
            assert!(!addrs.contains("tentative"), "{addrs}");
            assert!(!addrs.contains("900sec") && !addrs.contains("u0"), "{addrs}");
            assert!(!addrs.contains("NOARP"), "{addrs}");
            assert!(addrs.contains("mtu 65520"), "{addrs}");
            for a in ["192.0.2.5/24", "192.0.2.6/24", "10.9.0.1/16", "2001:db8::5/64", "2001:db8::6/128"] {
                assert!(addrs.contains(a), "{a}: {addrs}");
            }
            // The host's link-local address is not ours to give away.
            assert!(!addrs.contains("fe80::5/"), "{addrs}");

            let mut routes = lines("route show");
            routes.sort();
            let mut expected = [
                "default via 192.0.2.1 dev guest0 proto dhcp metric 600",
                "10.9.0.0/16 dev guest0 proto kernel scope link src 10.9.0.1",
                "192.0.2.0/24 dev guest0 proto kernel scope link metric 600",
                "203.0.113.0/28 via 172.16.0.1 dev guest0 onlink",
                "203.0.113.16/28",
                "nexthop via 192.0.2.1 dev guest0 weight 3",
                "nexthop via 192.0.2.2 dev guest0 weight 1",
                "203.0.113.80/28 via 192.0.2.9 dev guest0",
                "203.0.113.96/28 via inet6 fe80::1 dev guest0",
                "203.0.113.112/28 via 192.0.2.1 dev guest0 mtu 1400 advmss 1300",
            ];
            expected.sort_unstable();
            assert_eq!(routes, expected);

            let routes = ip("-6 route show");
            assert!(routes.contains("default via fe80::1 dev guest0 proto ra metric 600 pref high"), "{routes}");
            assert!(routes.contains("2001:db8:9::/48 via 2001:db8::9 dev guest0 metric 1024"), "{routes}");
            for connected in ["2001:db8::/64", "2001:db8::6 ", "fe80::/64"] {
                assert_eq!(routes.matches(connected).count(), 1, "{connected}: {routes}");
            }
        });
    }
}

isolated! {
    // [NS-10] IPv6 is usable at once, the link-local address included.
    fn no_duplicate_address_detection() {
        uplink("u0", &["2001:db8::5/64"]);
        ip("-6 route add default via fe80::1 dev u0");
        let c = Config { v4: false, ..config() };
        in_guest(&c, || {}, |done| {
            let link_local = done.link_local.expect("the kernel's link-local address");
            assert!(link_local.is_unicast_link_local());
            let global = v6("2001:db8::5");
            UdpSocket::bind((global, 0)).unwrap();
            let scoped = std::net::SocketAddrV6::new(link_local, 0, 0, done.ifindex);
            UdpSocket::bind(scoped).unwrap();
            let addrs = ip(&format!("-6 addr show dev {TAP}"));
            assert!(!addrs.contains("tentative"), "{addrs}");
            // Only what was asked for.
            assert_eq!(ip(&format!("-4 addr show dev {TAP}")), "");
            assert_eq!(ip("-6 route show").matches("fe80::/64").count(), 1);
            assert_eq!(ip("-6 route show table all").matches("multicast ff00::/8").count(), 1);
        });
    }
}

isolated! {
    // [NS-13] [W-7] Thousands of routes, in no particular time limit but printed.
    fn two_thousand_routes() {
        uplink("u0", &["192.0.2.5/24", "2001:db8::5/64"]);
        let mut batch = String::from("route add default via 192.0.2.1\n");
        for i in 0..2000 {
            batch += &format!("route add 10.{}.{}.0/24 via 192.0.2.{}\n", i / 250, i % 250, 1 + i % 4);
        }
        for i in 0..1000 {
            batch += &format!("route add 2001:db8:{:x}::/48 via fe80::1 dev u0\n", i + 16);
        }
        let path = std::env::temp_dir().join(format!("netlink-test-routes-{}", std::process::id()));
        std::fs::write(&path, batch).unwrap();
        ip(&format!("-batch {}", path.display()));
        std::fs::remove_file(&path).unwrap();
        in_guest(&config(), || {}, |_| {
            assert_eq!(lines("-4 route show").len(), 2002);
            let six = lines("-6 route show");
            assert_eq!(six.iter().filter(|l| l.contains("via fe80::1")).count(), 1000);
        });
    }
}

isolated! {
    // [NL-7] [NS-12] [NS-14] Local mode: one address, one route, per family.
    fn local_mode() {
        in_guest(&config(), || {}, |done| {
            assert!(done.v4 && done.v6);
            let addrs = ip(&format!("addr show dev {TAP}"));
            assert!(addrs.contains("169.254.2.1/16"), "{addrs}");
            assert!(addrs.contains(&done.link_local.unwrap().to_string()), "{addrs}");
            assert_eq!(lines("-4 route show default"), ["default via 169.254.2.2 dev guest0"]);
            let six = ip("-6 route show default");
            assert!(six.starts_with("default via fe80::1 dev guest0"), "{six}");
        });
    }
}

isolated! {
    // [NS-12] [NS-14] -a and -g: that address, that route, per family. [W-8] -n.
    fn explicit_address_and_gateway() {
        uplink("u0", &["192.0.2.5/24", "192.0.2.6/32", "2001:db8::5/64"]);
        ip("route add default via 192.0.2.1");
        ip("-6 route add default via fe80::1 dev u0");
        let c = Config {
            addr4: Some(v4("10.0.2.100")),
            prefix4: Some(24),
            gateway4: Some(v4("10.0.2.2")),
            ..config()
        };
        in_guest(&c, || {}, |_| {
            let addrs = lines(&format!("-4 addr show dev {TAP}"));
            assert_eq!(addrs[1], "inet 10.0.2.100/24 scope global guest0");
            assert_eq!(addrs.iter().filter(|l| l.starts_with("inet ")).count(), 1);
            assert_eq!(lines("-4 route show"), [
                "default via 10.0.2.2 dev guest0",
                "10.0.2.0/24 dev guest0 proto kernel scope link src 10.0.2.100",
            ]);
            // The other family is copied as ever.
            assert!(ip("-6 addr").contains("2001:db8::5/64"));
        });

        // A gateway outside the subnet.
        let c = Config { gateway4: Some(v4("172.16.0.1")), gateway6: Some(v6("2001:db8:7::1")), ..config() };
        in_guest(&c, || {}, |_| {
            assert_eq!(lines("-4 route show default"), ["default via 172.16.0.1 dev guest0 onlink"]);
            assert!(ip("-6 route show default").contains("default via 2001:db8:7::1 dev guest0"));
        });

        // An address outside the subnet of the copied routes: the host's subnet becomes a route.
        let c = Config { addr4: Some(v4("10.0.2.100")), ..config() };
        in_guest(&c, || {}, |_| {
            assert_eq!(lines("-4 route show default"), ["default via 192.0.2.1 dev guest0"]);
        });

        // -n applies to the copied address that the guest is told about.
        let c = Config { prefix4: Some(20), ..config() };
        in_guest(&c, || {}, |_| {
            let addrs = ip(&format!("-4 addr show dev {TAP}"));
            assert!(addrs.contains("192.0.2.6/20") && addrs.contains("192.0.2.5/24"), "{addrs}");
        });
    }
}

isolated! {
    // [NS-11] Several IPv6 addresses come in the host's order, which decides about source addresses.
    fn address_order() {
        uplink("u0", &["2001:db8::1/64", "2001:db8::2/64", "2001:db8::3/64", "192.0.2.1/24", "192.0.2.2/24"]);
        ip("route add default via 192.0.2.9");
        ip("-6 route add default via fe80::1 dev u0");
        let order = |dev: &str| -> Vec<String> {
            let all = lines(&format!("addr show dev {dev} scope global"));
            let addrs = all.iter().filter(|l| l.starts_with("inet"));
            addrs.map(|l| l.split(' ').nth(1).unwrap().to_owned()).collect()
        };
        let host = order("u0");
        assert_eq!(host.len(), 5);
        assert_eq!(in_guest(&config(), || {}, |_| order(TAP)), host);
    }
}

isolated! {
    // [NS-15] IPv6 disabled in the namespace: IPv4 works, IPv6 is off, nothing fails.
    fn ipv6_disabled_in_guest() {
        let disable = || {
            for which in ["all", "default"] {
                std::fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "1").unwrap();
            }
        };
        in_guest(&config(), disable, |done| {
            assert!(done.v4 && !done.v6);
            assert_eq!(done.link_local, None);
            assert_eq!(lines("-4 route show default").len(), 1);
        });
        uplink("u0", &["192.0.2.5/24", "2001:db8::5/64"]);
        ip("route add default via 192.0.2.1");
        ip("-6 route add default via fe80::1 dev u0");
        in_guest(&config(), disable, |done| {
            assert!(done.v4 && !done.v6);
            assert_eq!(lines("-4 route show default").len(), 1);
        });
    }
}

isolated! {
    // [NS-8] [NS-9] Without --config-net only loopback and the MAC address are touched.
    fn loopback_only() {
        let mac: Mac = "02:00:00:00:00:07".parse().unwrap();
        let c = Config { config_net: false, ns_mac: Some(mac), ..config() };
        in_guest(&c, || {}, |done| {
            assert_eq!(done.mac, mac);
            assert_eq!(done.link_local, None);
            assert!(ip("link show lo").contains("LOOPBACK,UP"));
            let tap = ip(&format!("addr show dev {TAP}"));
            assert!(!tap.contains("inet") && !tap.contains(",UP"), "{tap}");
            assert!(tap.contains("02:00:00:00:00:07"), "{tap}");
            assert!(tap.contains("mtu 1500"), "{tap}");
        });
        // The kernel's choice otherwise; MTU 0 leaves the MTU alone.
        in_guest(&Config { mtu: 0, ..config() }, || {}, |done| {
            let tap = ip(&format!("link show dev {TAP}"));
            assert!(tap.contains(&done.mac.to_string()) && tap.contains("mtu 1500"), "{tap}");
        });
    }
}

/// Everything that a monitor has to tell; and whether news were lost.
fn told(monitor: &mut Monitor) -> (Vec<News>, bool) {
    let (mut all, mut lost) = (Vec::new(), false);
    loop {
        match monitor.read(|news| all.push(news)).unwrap() {
            Told::Some => {}
            Told::Lost => lost = true,
            Told::Nothing => return (all, lost),
        }
    }
}

isolated! {
    // [NL-15] [ADDR-11] [ADDR-12] A monitor tells of neighbours and of what changes the view, and
    // of nothing else; it knows when it missed something, and can ask.
    fn monitor() {
        uplink("u0", &["192.0.2.5/24"]);
        let mut monitor = Monitor::open().unwrap();
        let ifindex = discover(&config()).v4.unwrap().ifindex;
        let neighbour = |last: u8, mac: Option<&str>| Neighbour {
            ifindex,
            addr: IpAddr::from([192, 0, 2, last]),
            mac: mac.map(|m| m.parse().unwrap()),
        };
        // News of the link that came up.
        while !told(&mut monitor).0.is_empty() {
            std::thread::sleep(Duration::from_millis(500));
        }
        ip("neigh add 192.0.2.7 lladdr 02:00:00:00:00:07 dev u0 nud permanent");
        let seven = neighbour(7, Some("02:00:00:00:00:07"));
        assert_eq!(told(&mut monitor), (vec![News::Neighbour(seven)], false));
        ip("neigh add proxy 192.0.2.8 dev u0");
        ip("route add 198.51.100.0/24 via 192.0.2.7");
        assert_eq!(told(&mut monitor), (vec![], false));
        for line in [
            "route add default via 192.0.2.7",
            "route del default",
            "addr add 192.0.2.6/24 dev u0",
            "addr del 192.0.2.6/24 dev u0",
            "link set u0 down",
        ] {
            ip(line);
            assert!(told(&mut monitor).0.contains(&News::Network), "{line}");
        }
        ip("link set u0 up");
        ip("neigh replace 192.0.2.7 lladdr 02:00:00:00:00:07 dev u0 nud permanent");
        assert!(told(&mut monitor).0.contains(&News::Neighbour(seven)));
        ip("neigh del 192.0.2.7 dev u0");
        let gone = News::Neighbour(neighbour(7, None));
        assert!(told(&mut monitor).0.contains(&gone));

        let file = std::env::temp_dir().join(format!("neighbours.{}", std::process::id()));
        let mac = |n| format!("02:00:00:00:00:{:02x}", n % 99);
        let line = |n| format!("neigh replace 192.0.2.7 lladdr {} dev u0\n", mac(n));
        std::fs::write(&file, (0..3000).map(line).collect::<String>()).unwrap();
        ip(&format!("-batch {}", file.display()));
        std::fs::remove_file(&file).unwrap();
        let (news, lost) = told(&mut monitor);
        assert!(lost && news.len() < 3000);
        let last = neighbour(7, Some(&mac(2999)));
        assert_eq!(monitor.neighbours().unwrap(), [last]);
        ip("neigh del 192.0.2.7 dev u0");
        assert_eq!(told(&mut monitor).0.last(), Some(&gone), "it goes on");

        assert!(monitor.has_address(v4("192.0.2.5").into()).unwrap());
        assert!(!monitor.has_address(v4("192.0.2.7").into()).unwrap());
        assert!(monitor.is_usable(ifindex, true).unwrap());
        assert!(!monitor.is_usable(ifindex, false).unwrap(), "only link-local");
        ip("link set u0 down");
        assert!(!monitor.is_usable(ifindex, true).unwrap());
        ip("link del u0");
        assert!(!monitor.is_usable(ifindex, true).unwrap_or(false));
        assert_eq!(monitor.look(&config()).unwrap().v4, None);
        uplink("u1", &["203.0.113.5/24"]);
        assert_eq!(monitor.look(&config()).unwrap().v4.unwrap().ifname, "u1");
        let named = Config { template: Some("u0".into()), ..config() };
        assert!(monitor.look(&named).is_err());
    }
}
