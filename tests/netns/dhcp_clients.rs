//! The clients that guests really have, behind pasta without `--config-net`: ISC's dhclient, dhcpcd,
//! busybox's udhcpc, systemd-networkd, and tools that look at neighbour discovery and ARP.
//!
//! (Debian's busybox comes without its DHCPv6 client, udhcpc6.)
//!
//! Some clients configure the interface themselves, and it is the kernel that is asked what came of
//! it. Others call a script, and what they tell it is looked at; the script does what is to be done
//! for an address to work.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::config::Link;
use crate::lab::{
    HOST4, HOST6, Helper, Lab, REMOTE4, REMOTE6, SOON, at, eventually, output_within,
};
use crate::net::{listen, roundtrip};
use crate::pasta::Guest;

/// Advertise everything there is to advertise.
pub(crate) const ALL: &str = "--dhcp-dns --dhcp-search -H zebra --fqdn zebra.lab.example";

/// Clients wait for a second here and there, and for duplicate address detection.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What a client told its script: variables by name, one map for each call.
#[derive(Debug)]
struct Event {
    name: String,
    values: BTreeMap<String, String>,
}

impl Event {
    #[track_caller]
    fn value(&self, name: &str) -> &str {
        self.values.get(name).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }
}

/// A script for a client, and what it was told so far.
struct Script {
    path: PathBuf,
    log: PathBuf,
}

impl Script {
    /// Notes what it is told, and then does `action`.
    fn new(lab: &Lab, action: &str) -> Script {
        let (path, log) = (lab.fresh("script"), lab.fresh("events"));
        let text = format!(
            "#!/bin/sh\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\n{action}\n\
             {{ echo \"event=${{reason:-$1}}\"; env; echo end=; }} >>{}\n",
            log.display()
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Script { path, log }
    }

    /// What was told completely.
    fn events(&self) -> Vec<Event> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let mut events = Vec::new();
        let mut values = BTreeMap::new();
        for line in text.lines() {
            let Some((name, value)) = line.split_once('=') else { continue };
            if name == "end" {
                let name = values.remove("event").unwrap();
                events.push(Event { name, values: std::mem::take(&mut values) });
            } else {
                values.insert(name.to_owned(), value.to_owned());
            }
        }
        events
    }

    /// Waits for the `n`th event of this name.
    #[track_caller]
    fn wait(&self, name: &str, n: usize) -> Event {
        let named = |e: &Event| e.name == name;
        eventually(&format!("{name} of the client"), PATIENCE, || {
            self.events().iter().filter(|e| named(e)).count() > n
        });
        self.events().into_iter().filter(named).nth(n).unwrap()
    }
}

impl Lab {
    /// A namespace whose interface is up, and nothing more.
    #[track_caller]
    fn unconfigured(&self, options: &str) -> Guest {
        // Clients make identifiers of it, and dhclient cannot read all of those that it writes.
        let options = format!("--ns-mac-addr 02:00:5e:10:20:30 {options}");
        let guest = self.guest_raw(self.command(&options));
        guest.run("ip link set up0 up");
        guest
    }
}

impl Guest {
    /// Waits until there is a link-local address that was found to be unique.
    #[track_caller]
    fn wait_link_local(&self) {
        eventually("link-local address of the guest", PATIENCE, || {
            let text = self.run("ip -6 addr show dev up0 scope link");
            text.contains("fe80") && !text.contains("tentative")
        });
    }

    /// A client that runs until it is ended.
    pub(crate) fn start(&self, line: &str) -> Helper {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().unwrap());
        Helper(command.args(words).stdin(Stdio::null()).spawn().unwrap())
    }

    /// Waits until the interface has exactly these addresses, apart from the link-local one.
    #[track_caller]
    fn wait_addresses(&self, wanted: &[IpAddr]) -> Link {
        eventually(&format!("addresses {wanted:?}"), PATIENCE, || {
            let link = Link::of(&self.ns, "up0");
            !link.tentative && wanted.iter().all(|a| link.addresses.contains(a))
        });
        Link::of(&self.ns, "up0")
    }
}

/// Both families carry traffic.
#[track_caller]
pub(crate) fn check_traffic(lab: &Lab, guest: &Guest, servers: &[IpAddr]) {
    for server in servers {
        let listener = listen(&lab.remote, at(*server, 7000));
        roundtrip(&guest.ns, at(*server, 7000), &listener);
    }
}

fn signal(client: &Helper, signal: Signal) {
    kill(Pid::from_raw(client.0.id().cast_signed()), signal).unwrap();
}

/// Sets what a script of udhcpc was told.
const APPLY: &str = "case $1 in
bound|renew) ip addr replace $ip/$mask dev $interface
    ip route replace default via $router dev $interface
    [ -z \"$mtu\" ] || ip link set $interface mtu $mtu ;;
deconfig) ip addr flush dev $interface scope global ;;
esac";

#[test]
fn udhcpc() {
    // [DHCP-3] [DHCP-5] [DHCP-7]
    Lab::run(|lab| {
        let guest = lab.unconfigured(ALL);
        let script = Script::new(lab, APPLY);
        let client = guest.start(&format!(
            "busybox udhcpc -f -i up0 -s {} -O search -O mtu -O staticroutes -x hostname:guest",
            script.path.display()
        ));
        let bound = script.wait("bound", 0);
        for (name, value) in [
            ("ip", "10.9.0.2"),
            ("mask", "24"),
            ("router", "10.9.0.1"),
            ("serverid", "10.9.0.1"),
            ("dns", "10.9.0.53"),
            ("search", "lab.example"),
            ("hostname", "zebra"),
            ("mtu", "65520"),
            ("lease", "4294967295"),
        ] {
            assert_eq!(bound.value(name), value, "{name}");
        }
        let link = guest.wait_addresses(&[HOST4]);
        assert!((link.mtu - 65520.0).abs() < 0.1, "{link:?}");
        check_traffic(lab, &guest, &[REMOTE4]);

        signal(&client, Signal::SIGUSR1);
        assert_eq!(script.wait("renew", 0).value("ip"), "10.9.0.2");
        signal(&client, Signal::SIGUSR2);
        script.wait("deconfig", 1);
        // After a release it starts from the beginning.
        signal(&client, Signal::SIGUSR1);
        assert_eq!(script.wait("bound", 1).value("ip"), "10.9.0.2");
    });
}

#[test]
fn leases_are_logged_once() {
    // [DHCP-8] [DHCP6-6]
    Lab::run(|lab| {
        let guest = lab.unconfigured("-d");
        guest.wait_link_local();
        let mac = Link::of(&guest.ns, "up0").mac;
        let script = Script::new(lab, "");
        for _ in 0..2 {
            guest.run(&format!("busybox udhcpc -n -q -f -i up0 -s {}", script.path.display()));
        }
        let client = Dhclient::new(lab, "-6");
        client.run(&guest, "-1");
        client.stop();
        let log = guest.pasta.stderr();
        for line in ["DHCP: 10.9.0.2 for", "DHCPv6: 2001:db8:9::2 for"] {
            assert_eq!(log.matches(&format!("{line} {mac}")).count(), 1, "{log}");
        }
    });
}

#[test]
fn what_is_told_can_be_chosen() {
    // [ADDR-7] [DHCP-5] [NDP-6] [W-10] [COMPAT-70]
    Lab::run(|lab| {
        let told = |options: &[&str]| {
            let mut command = lab.command("--dhcp-dns --dhcp-search");
            command.args(options);
            let guest = lab.guest_raw(command);
            guest.run("ip link set up0 up");
            let script = Script::new(lab, "");
            let path = script.path.display();
            guest.run(&format!(
                "busybox udhcpc -n -q -f -i up0 -O search -O mtu -O staticroutes -s {path}"
            ));
            guest.wait_link_local();
            (script.wait("bound", 0), guest.run("rdisc6 -1 up0"))
        };
        let (bound, router) = told(&[
            "-D",
            "192.0.2.53",
            "-D",
            "2001:db8::54",
            "-S",
            "a.example b.example",
            "-S",
            "c.example.",
            "-m",
            "1400",
        ]);
        assert_eq!(bound.value("dns"), "192.0.2.53");
        assert_eq!(bound.value("search"), "a.example b.example c.example");
        assert_eq!(bound.value("mtu"), "1400");
        assert!(
            !bound.values.contains_key("staticroutes") && !bound.values.contains_key("hostname")
        );
        assert!(router.contains("2001:db8::54") && router.contains("1400 bytes"), "{router}");
        assert!(router.contains("a.example b.example c.example"), "{router}");

        let nothing: [&[&str]; 2] = [
            &["-D", "none", "-S", "none", "-m", "0"],
            &["--no-dhcp-dns", "--no-dhcp-search", "-m0"],
        ];
        for options in nothing {
            let (bound, router) = told(options);
            for name in ["dns", "search", "mtu"] {
                assert!(!bound.values.contains_key(name), "{options:?}: {bound:?}");
            }
            assert!(!router.contains("DNS") && !router.contains("MTU"), "{options:?}: {router}");
        }

        // A gateway that the netmask does not reach.
        let (bound, _) = told(&["-a", "10.77.0.5/32", "-g", "10.9.9.1"]);
        assert_eq!((bound.value("ip"), bound.value("mask")), ("10.77.0.5", "32"));
        assert_eq!(bound.value("staticroutes"), "10.9.9.1/32 0.0.0.0 0.0.0.0/0 10.9.9.1");
    });
}

#[test]
fn udhcpc_is_refused_another_address() {
    // [DHCP-3] It asks for one first, as after a restart, and takes what it gets.
    Lab::run(|lab| {
        let guest = lab.unconfigured("");
        let script = Script::new(lab, APPLY);
        let path = script.path.display();
        let _client = guest.start(&format!("busybox udhcpc -f -i up0 -r 10.9.0.99 -s {path}"));
        let bound = script.wait("bound", 0);
        assert_eq!(bound.value("ip"), "10.9.0.2");
        // Nothing is told that was not asked for.
        assert!(!bound.values.contains_key("dns"), "{bound:?}");
    });
}

/// dhclient, with files of its own.
struct Dhclient {
    script: Script,
    version: &'static str,
    files: [PathBuf; 3],
}

impl Dhclient {
    fn new(lab: &Lab, version: &'static str) -> Dhclient {
        let files = ["conf", "leases", "dhclient-pid"].map(|name| lab.fresh(name));
        let conf = "request subnet-mask, broadcast-address, routers, domain-name-servers,\n\
                    domain-search, host-name, interface-mtu, dhcp6.name-servers,\n\
                    dhcp6.domain-search, dhcp6.fqdn;\ntimeout 50;\n";
        for (file, text) in files.iter().zip([conf, "", ""]) {
            fs::write(file, text).unwrap();
        }
        let apply = "case $reason in
BOUND|RENEW|REBIND|REBOOT) ip addr replace $new_ip_address/$new_subnet_mask dev $interface
    ip route replace default via ${new_routers%% *} dev $interface ;;
BOUND6|RENEW6|REBIND6) ip addr replace $new_ip6_address/$new_ip6_prefixlen dev $interface ;;
RELEASE|RELEASE6) ip addr flush dev $interface scope global ;;
esac";
        Dhclient { script: Script::new(lab, apply), version, files }
    }

    /// Runs it until it has got what it wants, and goes to the background; what it says.
    #[track_caller]
    fn run(&self, guest: &Guest, options: &str) -> String {
        let [conf, leases, pid] = &self.files;
        let mut command = guest.command("dhclient");
        command.args([self.version, "-v", "-cf"]).arg(conf).arg("-lf").arg(leases);
        command.arg("-pf").arg(pid).arg("-sf").arg(&self.script.path);
        if self.version == "-6" {
            // No time in the identifier, for the same reason.
            command.args(["-D", "LL"]);
        }
        let out = output_within(command.args(options.split_whitespace()).arg("up0"), PATIENCE);
        assert!(out.status.success(), "{out:?}");
        out.stderr
    }

    /// Ends the one in the background, without a word.
    fn stop(&self) {
        // It is written by the one in the background.
        let pid = || fs::read_to_string(&self.files[2]).ok()?.trim().parse().ok();
        eventually("PID of dhclient", SOON, || pid().is_some());
        kill(Pid::from_raw(pid().unwrap()), Signal::SIGKILL).unwrap();
    }
}

#[test]
fn dhclient() {
    // [DHCP-3] [DHCP-5]
    Lab::run(|lab| {
        let guest = lab.unconfigured(ALL);
        let client = Dhclient::new(lab, "-4");
        client.run(&guest, "-1");
        let bound = client.script.wait("BOUND", 0);
        for (name, value) in [
            ("new_ip_address", "10.9.0.2"),
            ("new_subnet_mask", "255.255.255.0"),
            ("new_routers", "10.9.0.1"),
            ("new_domain_name_servers", "10.9.0.53"),
            ("new_domain_search", "lab.example."),
            ("new_host_name", "zebra"),
            ("new_interface_mtu", "65520"),
            ("new_dhcp_server_identifier", "10.9.0.1"),
            ("new_dhcp_lease_time", "4294967295"),
        ] {
            assert_eq!(bound.value(name), value, "{name}");
        }
        check_traffic(lab, &guest, &[REMOTE4]);

        // It asks for what it had when it is started again, and gives it back when told to.
        client.stop();
        client.run(&guest, "-1");
        assert_eq!(client.script.wait("REBOOT", 0).value("new_ip_address"), "10.9.0.2");
        client.run(&guest, "-r");
        client.script.wait("RELEASE", 0);
        client.run(&guest, "-1");
        assert_eq!(client.script.wait("BOUND", 1).value("new_ip_address"), "10.9.0.2");
        client.stop();
    });
}

#[test]
fn dhclient_is_refused_another_address() {
    // [DHCP-3] The host, and with it the address, is another one after a restart.
    Lab::run(|lab| {
        let guest = lab.unconfigured("-a 10.77.0.5 -n 24 -g 10.77.0.1");
        let client = Dhclient::new(lab, "-4");
        client.run(&guest, "-1");
        client.stop();
        drop(guest);
        let guest = lab.unconfigured("");
        let said = client.run(&guest, "-1");
        assert!(said.contains("DHCPNAK"), "{said}");
        assert_eq!(client.script.wait("BOUND", 1).value("new_ip_address"), "10.9.0.2");
        client.stop();
    });
}

#[test]
fn dhclient_for_ipv6() {
    // [DHCP6-3] [DHCP6-4]
    Lab::run(|lab| {
        let guest = lab.unconfigured(ALL);
        guest.wait_link_local();
        let client = Dhclient::new(lab, "-6");
        client.run(&guest, "-1");
        let bound = client.script.wait("BOUND6", 0);
        for (name, value) in [
            ("new_ip6_address", "2001:db8:9::2"),
            ("new_ip6_prefixlen", "128"),
            ("new_dhcp6_name_servers", "2001:db8:9::53"),
            ("new_dhcp6_domain_search", "lab.example."),
            ("new_max_life", "4294967295"),
            ("new_preferred_life", "4294967295"),
        ] {
            assert_eq!(bound.value(name), value, "{name}");
        }
        guest.wait_addresses(&[HOST6]);
        check_traffic(lab, &guest, &[REMOTE6]);

        // Started again, it asks whether the address is right.
        client.stop();
        let said = client.run(&guest, "-1");
        assert!(said.contains("Confirm"), "{said}");
        client.run(&guest, "-r");
        client.script.wait("RELEASE6", 0);
        // Without an address.
        let said = client.run(&guest, "-S -1");
        assert!(said.contains("Info-Request") || said.contains("Information"), "{said}");
    });
}

#[test]
fn dhclient_for_ipv6_learns_that_it_has_moved() {
    // [DHCP6-5]
    Lab::run(|lab| {
        let guest = lab.unconfigured("-a 2001:db8:77::5");
        guest.wait_link_local();
        let client = Dhclient::new(lab, "-6");
        client.run(&guest, "-1");
        assert_eq!(client.script.wait("BOUND6", 0).value("new_ip6_address"), "2001:db8:77::5");
        client.stop();
        drop(guest);
        let guest = lab.unconfigured("");
        guest.wait_link_local();
        client.run(&guest, "-1");
        assert_eq!(client.script.wait("BOUND6", 1).value("new_ip6_address"), "2001:db8:9::2");
        client.stop();
    });
}

/// Hides what is in a directory, and lets us write there.
pub(crate) fn mount_over(dir: &str) {
    use nix::mount::{MsFlags, mount};
    mount(Some("lab"), dir, Some("tmpfs"), MsFlags::empty(), Some("mode=0755")).unwrap();
}

/// Puts another file in the place of one, for this test.
fn replace_file(lab: &Lab, file: &str, text: &str) {
    use nix::mount::{MsFlags, mount};
    let ours = lab.fresh("file");
    fs::write(&ours, text).unwrap();
    mount(Some(&ours), file, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}

/// The accounts without this one: where only root exists, nobody can become it.
fn forget_user(lab: &Lab, user: &str) {
    let prefix = format!("{user}:");
    let text = fs::read_to_string("/etc/passwd").unwrap();
    let others = text.lines().filter(|l| !l.starts_with(&prefix)).map(|l| format!("{l}\n"));
    replace_file(lab, "/etc/passwd", &others.collect::<String>());
}

#[test]
fn dhcpcd() {
    // [DHCP-3] [DHCP6-3] [NDP-6] Both families, router advertisements, rapid commit.
    Lab::run(|lab| {
        let guest = lab.unconfigured(ALL);
        mount_over("/var/lib/dhcpcd");
        forget_user(lab, "dhcpcd");
        let conf = lab.fresh("dhcpcd.conf");
        let text = "duid\noption interface_mtu, domain_search, rapid_commit\nslaac hwaddr\n";
        fs::write(&conf, text).unwrap();
        let script = Script::new(lab, "");
        let line = format!("-B -f {} -c {} up0", conf.display(), script.path.display());
        let _client = guest.start(&format!("dhcpcd {line}"));

        let router = script.wait("ROUTERADVERT", 0);
        for (name, value) in [
            ("nd1_flags", "M"),
            ("nd1_lifetime", "65535"),
            ("nd1_mtu", "65520"),
            ("nd1_prefix_information1_prefix", "2001:db8:9::"),
            ("nd1_prefix_information1_vltime", "4294967295"),
            ("nd1_rdnss1_servers", "2001:db8:9::53"),
            ("nd1_dnssl1_search", "lab.example"),
        ] {
            assert_eq!(router.value(name), value, "{name}");
        }
        let bound6 = script.wait("BOUND6", 0);
        for (name, value) in [
            ("new_dhcp6_ia_na1_ia_addr1", "2001:db8:9::2"),
            ("new_dhcp6_name_servers", "2001:db8:9::53"),
            ("new_dhcp6_domain_search", "lab.example"),
            ("new_dhcp6_fqdn", "zebra.lab.example"),
            ("new_dhcp6_rapid_commit", ""),
            ("new_dhcp6_server_id", "000300019a559a559a55"),
        ] {
            assert_eq!(bound6.value(name), value, "{name}");
        }
        let bound = script.wait("BOUND", 0);
        for (name, value) in [
            ("new_ip_address", "10.9.0.2"),
            ("new_subnet_cidr", "24"),
            ("new_routers", "10.9.0.1"),
            ("new_domain_name_servers", "10.9.0.53"),
            ("new_domain_search", "lab.example"),
            ("new_host_name", "zebra"),
            ("new_fqdn", "zebra.lab.example"),
            ("new_interface_mtu", "65520"),
            ("new_rapid_commit", ""),
        ] {
            assert_eq!(bound.value(name), value, "{name}");
        }
        // It configures the interface by itself.
        guest.wait_addresses(&[HOST4, HOST6]);
        let routes = guest.run("ip route") + &guest.run("ip -6 route");
        assert!(routes.contains("default via 10.9.0.1 dev up0"), "{routes}");
        assert!(routes.contains("default via fe80::"), "{routes}");
        check_traffic(lab, &guest, &[REMOTE4, REMOTE6]);

        guest.run(&format!("dhcpcd -n {line}"));
        assert_eq!(script.wait("RENEW", 0).value("new_ip_address"), "10.9.0.2");
        script.wait("REBOOT6", 0);
        guest.run(&format!("dhcpcd -k {line}"));
        eventually("addresses are gone", SOON, || {
            let link = Link::of(&guest.ns, "up0");
            !link.addresses.iter().any(|a| [HOST4, HOST6].contains(a))
        });
    });
}

#[test]
fn networkd() {
    // [DHCP-3] [DHCP6-3] [NDP-6]
    Lab::run(|lab| {
        use nix::mount::{MsFlags, mount};
        let guest = lab.unconfigured(ALL);
        // Otherwise it waits for udev.
        let (fs_type, sys) = (Some("tmpfs"), "/sys");
        mount(Some("lab"), sys, fs_type, MsFlags::MS_RDONLY, None::<&str>).unwrap();
        replace_file(
            lab,
            "/etc/passwd",
            "root:x:0:0::/:/bin/sh\nsystemd-network:x:0:0::/:/bin/sh\n",
        );
        fs::create_dir_all("/run/systemd/network").unwrap();
        let text = "[Match]\nName=up0\n[Network]\nDHCP=yes\nIPv6AcceptRA=yes\n\
                    [DHCPv4]\nUseMTU=yes\nUseDomains=yes\n[DHCPv6]\nUseDomains=yes\n\
                    [IPv6AcceptRA]\nUseDomains=yes\n";
        fs::write("/run/systemd/network/10-up0.network", text).unwrap();
        let _client = guest.start("/lib/systemd/systemd-networkd");

        let link = guest.wait_addresses(&[HOST4, HOST6]);
        assert!((link.mtu - 65520.0).abs() < 0.1, "{link:?}");
        // One more from the prefix.
        assert_eq!(link.addresses.len(), 3, "{link:?}");
        let routes = guest.run("ip route") + &guest.run("ip -6 route");
        assert!(routes.contains("default via 10.9.0.1 dev up0 proto dhcp"), "{routes}");
        assert!(routes.contains("default via fe80::"), "{routes}");
        check_traffic(lab, &guest, &[REMOTE4, REMOTE6]);
        let state = |key: &str| {
            let files = fs::read_dir("/run/systemd/netif/links").unwrap().flatten();
            let text: String = files.flat_map(|f| fs::read_to_string(f.path())).collect();
            text.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_default().to_owned()
        };
        for (key, values) in
            [("DNS=", &["10.9.0.53", "2001:db8:9::53"][..]), ("DOMAINS=", &["lab.example"])]
        {
            eventually(key, SOON, || values.iter().all(|v| state(key).contains(v)));
        }
    });
}

#[test]
fn guest_is_reached_where_it_configured_itself() {
    // [ADDR-8] By router advertisement, and before it has sent anything from there.
    Lab::run(|lab| {
        let guest = lab.unconfigured("-t 8080");
        let server = listen(&guest.ns, at("::".parse().unwrap(), 8080));
        eventually("address from the advertised prefix", PATIENCE, || {
            let link = Link::of(&guest.ns, "up0");
            !link.tentative && link.addresses.iter().any(IpAddr::is_ipv6)
        });
        roundtrip(&lab.remote, at(HOST6, 8080), &server);
    });
}

#[test]
fn tools_see_the_router() {
    // [NDP-2] [NDP-5] [NDP-6]
    Lab::run(|lab| {
        let guest = lab.unconfigured(ALL);
        guest.wait_link_local();
        let text = guest.run("rdisc6 -1 up0");
        let value = |name: &str| {
            let line = text.lines().find(|l| l.trim_start().starts_with(name));
            let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
            line.split_once(": ").map_or("", |(_, value)| value.trim()).to_owned()
        };
        for (name, start) in [
            ("Hop limit", "255"),
            ("Stateful address conf.", "Yes"),
            ("Stateful other conf.", "No"),
            ("Router preference", "medium"),
            ("Router lifetime", "65535"),
            ("Prefix", "2001:db8:9::/64"),
            ("On-link", "Yes"),
            ("Autonomous address conf.", "Yes"),
            ("Valid time", "infinite"),
            ("Pref. time", "infinite"),
            ("Source link-layer address", "9A:55:9A:55:9A:55"),
            ("MTU", "65520"),
            ("Recursive DNS server", "2001:db8:9::53"),
            ("DNS search list", "lab.example"),
        ] {
            assert!(value(name).starts_with(start), "{name}: {text}");
        }
        let router = text.lines().find_map(|l| l.trim().strip_prefix("from ")).unwrap();
        let text = guest.run(&format!("ndisc6 -1 {router} up0"));
        assert!(text.contains("9A:55:9A:55:9A:55"), "{text}");
    });
}

#[test]
fn radvdump_reads_the_advertisement() {
    // [NDP-6] [NDP-7] As the configuration of a router that would send the same.
    Lab::run(|lab| {
        let guest = lab.unconfigured(ALL);
        guest.wait_link_local();
        let said = lab.fresh("radvdump");
        let mut command = guest.command("radvdump");
        command.stdin(Stdio::null()).stdout(fs::File::create(&said).unwrap());
        let _radvdump = Helper(command.spawn().unwrap());
        let read = || fs::read_to_string(&said).unwrap();
        eventually("radvdump has read an advertisement", PATIENCE, || {
            guest.run("rdisc6 -1 up0");
            read().contains("# End") || read().contains("}; # End of interface")
        });
        let text = read();
        for line in [
            "AdvManagedFlag on;",
            "AdvOtherConfigFlag off;",
            "AdvDefaultLifetime 65535;",
            "AdvCurHopLimit 255;",
            "AdvLinkMTU 65520;",
            "AdvSourceLLAddress on;",
            "prefix 2001:db8:9::/64",
            "AdvValidLifetime infinity;",
            "AdvOnLink on;",
            "AdvAutonomous on;",
            "RDNSS 2001:db8:9::53",
            "DNSSL lab.example",
        ] {
            assert!(text.contains(line), "no {line:?} in {text}");
        }
    });
}

#[test]
fn tools_see_no_router_where_none_is_wanted() {
    // [NDP-1] [NDP-5]
    Lab::run(|lab| {
        for options in ["--no-ra", "--no-ndp", "--no-icmp", "--config-net", "-4"] {
            let guest = lab.unconfigured(options);
            if options != "-4" {
                guest.wait_link_local();
            }
            let out = output_within(
                guest.command("rdisc6").args(["-1", "-r", "1", "-w", "300", "up0"]),
                PATIENCE,
            );
            assert!(!out.status.success(), "{options}: {out:?}");
        }
    });
}

#[test]
fn no_server_where_none_is_wanted() {
    // [DHCP-1] [DHCP6-1] [L2-9]
    Lab::run(|lab| {
        for options in ["--no-dhcp", "-6", "-a 10.9.0.2/24 -4"] {
            let guest = lab.unconfigured(options);
            let script = Script::new(lab, "");
            let mut command = guest.command("busybox");
            command.args(["udhcpc", "-n", "-q", "-t", "2", "-T", "1", "-i", "up0", "-s"]);
            let out = output_within(command.arg(&script.path), PATIENCE);
            assert_eq!(out.status.success(), options.ends_with("-4"), "{options}: {out:?}");
        }
    });
}

#[test]
fn duplicate_address_detection_of_arping() {
    // [ARP-1] [ARP-2] [ARP-3] [NDP-2] An address that nobody has is free; those that are ours are
    // not; and all that is not the guest's own is there for packets.
    Lab::run(|lab| {
        let guest = lab.unconfigured("--map-host-loopback 10.9.0.77");
        let arping = |line: &str| {
            let mut command = guest.command("arping");
            let out = output_within(command.args(line.split_whitespace()), PATIENCE);
            out.status.success()
        };
        // With -D, success is an address that nobody answered for.
        for (address, free) in [
            ("10.9.0.2", true),
            ("10.9.0.99", true),
            ("203.0.113.9", true),
            ("10.9.0.1", false),
            ("10.9.0.77", false),
        ] {
            assert_eq!(arping(&format!("-D -q -c 2 -w 2 -I up0 {address}")), free, "{address}");
        }
        guest.run("ip addr add 10.9.0.2/24 dev up0");
        for (address, there) in [("10.9.0.1", true), ("10.9.0.99", true), ("10.9.0.2", false)] {
            assert_eq!(arping(&format!("-q -c 1 -w 2 -I up0 {address}")), there, "{address}");
        }
    });
}
