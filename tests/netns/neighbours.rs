//! The host's neighbours, and its network, as they change while we run.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::config::Link;
use crate::lab::{HOST4, Helper, Lab, REMOTE4, SOON, at, eventually, ip, ip_batch, output_within};
use crate::net::{listen, roundtrip};
use crate::outbound::allow_ping;
use crate::pasta::Guest;

/// Our own Ethernet address.
const OURS: &str = "9a:55:9a:55:9a:55";

impl Guest {
    /// The Ethernet address that the guest is told for an address: by ARP.
    #[track_caller]
    fn told(&self, address: &str) -> String {
        let text = self.run(&format!("arping -c 1 -w 5 -I up0 {address}"));
        let (_, rest) = text.split_once('[').unwrap_or_else(|| panic!("{text}"));
        rest.split_once(']').unwrap().0.to_lowercase()
    }

    /// The same by neighbour discovery, which is left to the kernel.
    fn told6(&self, address: &str) -> Option<String> {
        self.run(&format!("ip neigh flush to {address} dev up0"));
        let mut ping = self.command("ping");
        output_within(ping.args(["-c", "1", "-w", "1", address]), SOON);
        self.believed(address)
    }

    /// What the guest's kernel believes, if anything.
    fn believed(&self, address: &str) -> Option<String> {
        let text = self.run(&format!("ip neigh show {address} dev up0"));
        let (_, rest) = text.split_once("lladdr ")?;
        rest.split_whitespace().next().map(str::to_owned)
    }
}

/// Makes the host forget a neighbour.
fn forget(address: &str) {
    ip(&format!("neigh flush to {address} dev up0"));
}

#[test]
fn neighbours_have_their_own_ethernet_addresses() {
    // [ADDR-11] [NL-15] [ARP-1] [NDP-2]
    Lab::run(|lab| {
        let remote = || Link::of(&lab.remote, "rem0").mac;
        // Known before.
        output_within(std::process::Command::new("ping").args(["-c1", "10.9.0.3"]), SOON).ok();
        let guest = lab.guest("");
        assert_eq!(guest.told("10.9.0.3"), remote());
        // What stands for the host is ours, although the host knows the router's.
        assert_eq!(guest.told("10.9.0.1"), OURS);
        assert_eq!(guest.told("10.9.0.77"), OURS, "nobody is there");

        // It gets another one, and the host learns it.
        ip("-n remote link set rem0 address 02:00:00:00:00:33");
        ip("neigh replace 10.9.0.3 lladdr 02:00:00:00:00:33 dev up0 nud reachable");
        eventually("another address of the neighbour", SOON, || {
            guest.told("10.9.0.3") == "02:00:00:00:00:33"
        });
        ip("neigh del 10.9.0.3 dev up0");
        eventually("no address of the neighbour", SOON, || guest.told("10.9.0.3") == OURS);

        ip("neigh replace 2001:db8:9::77 lladdr 02:00:00:00:00:77 dev up0 nud permanent");
        eventually("address of an IPv6 neighbour", SOON, || {
            guest.told6("2001:db8:9::77").is_some_and(|mac| mac == "02:00:00:00:00:77")
        });
        // Others are no neighbours of the template interface, or no neighbours at all.
        ip_batch(
            "",
            "link add other type veth peer name far
             link set other up
             neigh replace 10.9.0.78 lladdr 02:00:00:00:00:78 dev other nud permanent
             neigh replace 10.9.0.79 lladdr 01:00:5e:00:00:79 dev up0 nud permanent
             neigh replace 10.9.0.80 lladdr 02:00:00:00:00:80 dev up0 nud permanent",
        );
        eventually("the last one", SOON, || guest.told("10.9.0.80") == "02:00:00:00:00:80");
        assert_eq!((guest.told("10.9.0.78"), guest.told("10.9.0.79")), (OURS.into(), OURS.into()));
    });
}

#[test]
fn guest_is_told_when_a_neighbour_becomes_known() {
    // [ADDR-11] [ARP-4] [NDP-4] At first we stand for it: the host itself has to ask.
    Lab::run(|lab| {
        allow_ping(&lab.host());
        let guest = lab.guest("");
        let remote = Link::of(&lab.remote, "rem0").mac;
        for address in ["10.9.0.3", "2001:db8:9::3"] {
            forget(address);
            guest.run(&format!("ip neigh flush to {address} dev up0"));
            guest.run(&format!("ping -c 1 {address}"));
            eventually("the guest believes it", SOON, || {
                guest.believed(address).as_ref() == Some(&remote)
            });
        }
    });
}

#[test]
fn routers_are_shown_where_they_do_not_stand_for_the_host() {
    // [ADDR-11] Whoever is not known is behind the router then.
    Lab::run(|lab| {
        output_within(std::process::Command::new("ping").args(["-c1", "10.9.0.1"]), SOON).ok();
        let guest = lab.guest("--no-map-gw");
        let remote = Link::of(&lab.remote, "rem0").mac;
        assert_eq!(guest.told("10.9.0.1"), remote);
        assert_eq!(guest.told("203.0.113.9"), remote);
        let guest = lab.guest("--map-host-loopback 10.9.0.66 --map-guest-addr 10.9.0.67");
        for address in ["10.9.0.66", "10.9.0.67"] {
            ip(&format!("neigh replace {address} lladdr 02:00:00:00:00:66 dev up0 nud permanent"));
            assert_eq!(guest.told(address), OURS, "{address}");
        }
        assert_eq!(guest.told("10.9.0.1"), remote);
    });
}

#[test]
fn news_that_were_lost_are_asked_for() {
    // [ADDR-11] More changes while we stand still than the kernel keeps for us.
    Lab::run(|lab| {
        ip("neigh replace 10.9.0.78 lladdr 02:00:00:00:00:78 dev up0 nud permanent");
        let guest = lab.guest("");
        assert_eq!(guest.told("10.9.0.78"), "02:00:00:00:00:78");
        guest.pasta.signal(Signal::SIGSTOP);
        let noise: String = (0..4000)
            .map(|n| {
                let (address, mac) = (100 + n % 5, n % 250);
                format!(
                    "neigh replace 10.9.0.{address} lladdr 02:00:00:00:01:{mac:02x} dev up0 \
                     nud permanent\n"
                )
            })
            .collect();
        ip_batch("", &noise);
        ip_batch(
            "",
            "neigh replace 10.9.0.77 lladdr 02:00:00:00:00:77 dev up0 nud permanent
             neigh del 10.9.0.78 dev up0
             neigh del 10.9.0.100 dev up0",
        );
        guest.pasta.signal(Signal::SIGCONT);
        eventually("what was told last", SOON, || {
            guest.told("10.9.0.77") == "02:00:00:00:00:77"
                && guest.told("10.9.0.78") == OURS
                && guest.told("10.9.0.100") == OURS
                && guest.told("10.9.0.104") == "02:00:00:00:01:f9"
        });
        // And it goes on.
        ip("neigh replace 10.9.0.78 lladdr 02:00:00:00:00:79 dev up0 nud permanent");
        eventually("news after that", SOON, || guest.told("10.9.0.78") == "02:00:00:00:00:79");
    });
}

#[test]
fn host_moves_to_another_network() {
    // [ADDR-12] Its interface goes, and another one comes, with another address: the guest keeps
    // what it has, reaches whatever the host reaches, and the host at the address that stands for it.
    Lab::run(|lab| {
        allow_ping(&lab.host());
        let guest = lab.guest("--map-guest-addr 10.9.0.99");
        let link = |guest: &Guest| {
            let link = Link::of(&guest.ns, "up0");
            (link.addresses, guest.run("ip route") + &guest.run("ip -6 route"))
        };
        let before = link(&guest);
        let local = listen(&lab.host(), at("0.0.0.0".parse().unwrap(), 7000));
        roundtrip(&guest.ns, at("10.9.0.99".parse().unwrap(), 7000), &local);
        let mut ping = guest.command("ping");
        ping.args(["-i", "0.2", "-q", "10.9.0.1"]).stdin(Stdio::null()).stdout(Stdio::null());
        let mut ping = Helper(ping.spawn().unwrap());

        ip("link del up0");
        ip_batch(
            "",
            "link add new0 type veth peer name far0 netns remote
             addr add 10.8.0.2/24 dev new0
             addr add 2001:db8:8::2/64 dev new0 nodad
             link set new0 up",
        );
        ip_batch(
            "remote",
            "addr add 10.8.0.1/24 dev far0
             addr add 2001:db8:8::1/64 dev far0 nodad
             addr add fe80::77/64 dev far0 nodad
             addr add 10.9.0.3/32 dev lo
             link set lo up
             link set far0 up
             route add default via 10.8.0.2",
        );
        ip("route add default via 10.8.0.1");
        eventually("link-local address", SOON, || {
            ip("-6 addr show dev new0 scope link").contains("fe80")
        });
        ip("route add ::/0 via 2001:db8:8::1");

        let server = listen(&lab.remote, at(REMOTE4, 7001));
        roundtrip(&guest.ns, at(REMOTE4, 7001), &server);
        // The address that stands for the host, once we have looked.
        let there = || {
            let to = at("10.9.0.99".parse().unwrap(), 7000);
            crate::net::try_connect(&guest.ns, to).is_ok()
        };
        eventually("the host at its new address", Duration::from_secs(30), there);
        // Neighbours are those of the new interface.
        let far = Link::of(&lab.remote, "far0").mac;
        ip(&format!("neigh replace 10.8.0.1 lladdr {far} dev new0 nud reachable"));
        eventually("the new neighbours", SOON, || guest.told("10.8.0.1") == far);
        // So are link-local addresses.
        guest.run("ping -c 1 -w 5 fe80::77%up0");

        assert!(ping.0.try_wait().unwrap().is_none());
        assert_eq!(link(&guest), before);
        assert_eq!(before.0[0], HOST4);
    });
}

#[test]
fn another_interface_takes_the_default_route() {
    // [ADDR-11] [ADDR-12] As with a VPN: the guest's neighbours are where they were.
    Lab::run(|lab| {
        let guest = lab.guest("");
        ip("neigh replace 10.9.0.77 lladdr 02:00:00:00:00:77 dev up0 nud permanent");
        let shown = || guest.told("10.9.0.77") == "02:00:00:00:00:77";
        eventually("a neighbour", SOON, shown);
        ip_batch(
            "",
            "link add vpn0 type veth peer name far0 netns remote
             addr add 10.7.0.2/24 dev vpn0
             addr add 2001:db8:7::2/64 dev vpn0 nodad
             link set vpn0 up
             route replace default via 10.7.0.1",
        );
        std::thread::sleep(Duration::from_millis(1500)); // it has looked
        assert!(shown());
        ip("neigh replace 10.9.0.78 lladdr 02:00:00:00:00:78 dev up0 nud permanent");
        eventually("another", SOON, || guest.told("10.9.0.78") == "02:00:00:00:00:78");
        // Then it is switched off.
        ip("link set up0 down");
        eventually("no neighbours", SOON, || guest.told("10.9.0.77") == OURS);
    });
}
