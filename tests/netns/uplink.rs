//! What happens to the host's uplink while we run, and what the guest notices of it: nothing.

use std::any::type_name;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use crate::config::Link;
use crate::lab::{HOST4, HOST6, Helper, Lab, REMOTE4, REMOTE6, at, eventually, ip, ip_batch};
use crate::net::{listen, pass, roundtrip, udp};
use crate::ns::Ns;
use crate::pasta::Guest;
use crate::udp::echo;

/// `up0` is a bridge, with a link to the remote in it. Its address is that of its lowest port.
fn bridged_link(_remote: &Ns) {
    ip_batch(
        "",
        "link add up0 index 9 type bridge
         link add port type veth peer name rem0 netns remote
         link set port address 0e:00:00:00:00:ff
         link set port master up0
         link set port up",
    );
    // The remote is told at once, or it would take its time to ask for the new address.
    for file in ["ipv4/conf/up0/arp_notify", "ipv6/conf/up0/ndisc_notify"] {
        fs::write(format!("/proc/sys/net/{file}"), "1").unwrap();
    }
}

/// What clients in the guest are told.
#[track_caller]
fn view(lab: &Lab, guest: &Guest) -> String {
    let text = guest.run("rdisc6 -1 up0") + &guest.run("arping -c 1 -I up0 10.9.0.1");
    // Not how long it took.
    let text = text.lines().map(|l| l.split_once("]").map_or(l, |(head, _)| head));
    let (told, script) = (lab.fresh("told"), lab.fresh("script"));
    let body =
        format!("#!/bin/sh\necho $1 $ip $mask $router $serverid $mtu >>{}\n", told.display());
    fs::write(&script, body).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    guest.run(&format!("busybox udhcpc -n -q -f -O mtu -i up0 -s {}", script.display()));
    text.map(|l| format!("{l}\n")).collect::<String>() + &fs::read_to_string(told).unwrap()
}

#[test]
fn bridge_takes_the_address_of_another_port() {
    // [ADDR-12] [NDP-6] [DHCP-5]
    let closure = type_name_of(bridge_takes_the_address_of_another_port);
    Lab::run_over(bridged_link, closure, |lab| {
        let guest = lab.guest_raw(lab.command("-t 8080:80 --dhcp-dns"));
        guest.run("ip link set up0 up");
        eventually("address from the router's advertisement", Duration::from_secs(30), || {
            let link = Link::of(&guest.ns, "up0");
            !link.tentative && link.addresses.iter().any(|a| a.is_ipv6())
        });
        for line in ["ip addr add 10.9.0.2/24 dev up0", "ip route add default via 10.9.0.1"] {
            guest.run(line);
        }
        let before = view(lab, &guest);
        assert!(before.contains("bound 10.9.0.2 24 10.9.0.1 10.9.0.1 65520"), "{before}");

        let mut streams = Vec::new();
        for server in [REMOTE4, REMOTE6] {
            let listener = listen(&lab.remote, at(server, 7000));
            streams.push(roundtrip(&guest.ns, at(server, 7000), &listener));
        }
        let inside = listen(&guest.ns, at("0.0.0.0".parse().unwrap(), 80));
        streams.push(roundtrip(&lab.remote, at(HOST4, 8080), &inside));
        let question = udp(&guest.ns, at("0.0.0.0".parse().unwrap(), 0));
        let answer = udp(&lab.remote, at(REMOTE4, 7001));
        let ping = |to: &str| {
            let mut command = guest.command("ping");
            command.args(["-i", "0.2", "-q", to]);
            Helper(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
        };
        let mut pings = [ping("10.9.0.3"), ping("2001:db8:9::3")];

        let mac = || Link::of(&lab.host(), "up0").mac;
        let first = mac();
        assert_eq!(first, "0e:00:00:00:00:ff");
        let source = echo(&question, at(REMOTE4, 7001), &answer, 100);
        assert_eq!(source, HOST4);
        for n in [3, 2, 1, 0] {
            // Ports come, each lower than all before, and then all go.
            if n > 0 {
                let address = format!("02:00:00:00:00:0{n}");
                ip(&format!("link add new{n} address {address} type veth peer name end{n}"));
                ip(&format!("link set new{n} master up0"));
                assert_eq!(mac(), address);
            } else {
                (1..=3).for_each(|n| drop(ip(&format!("link del new{n}"))));
                assert_eq!(mac(), first);
            }
            for (near, far) in &mut streams {
                pass(near, far, b"still");
                pass(far, near, b"there");
            }
            assert_eq!(echo(&question, at(REMOTE4, 7001), &answer, 1000), source);
        }
        for ping in &mut pings {
            assert!(ping.0.try_wait().unwrap().is_none(), "ping has ended");
        }
        assert_eq!(view(lab, &guest), before);
        assert!(Link::of(&lab.host(), "up0").addresses.contains(&HOST6));
    });
}

fn type_name_of<F>(_: F) -> &'static str {
    type_name::<F>()
}
