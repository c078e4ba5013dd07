//! What happens to the host's uplink while we run, and what the guest notices of it: nothing.

use std::any::type_name;
use std::fs::{self, File};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::config::Link;
use crate::lab::{
    HOST4, HOST6, Helper, Lab, Output, REMOTE4, REMOTE6, SOON, at, eventually, ip, ip_batch,
    output_within,
};
use crate::net::{listen, pass, roundtrip, udp};
use crate::ns::Ns;
use crate::outbound::allow_ping;
use crate::pasta::Guest;

/// A bridge named `up0` whose address is that of its lowest port. (For Open vSwitch only those count
/// that a maker gave out.)
struct Bridge {
    /// Makes it, with a link to the remote in it.
    link: fn(&Ns),
    /// Adds an interface.
    add: fn(&str),
    /// Removes one, which is then deleted.
    remove: fn(&str),
    /// What changes with the address.
    identity: fn() -> String,
}

/// The kernel's.
const LINUX: Bridge = Bridge {
    link: linux_link,
    add: |port| drop(ip(&format!("link set {port} master up0"))),
    remove: |_| (),
    identity: || Link::of(&Ns::current(), "up0").mac,
};

/// Open vSwitch, switching in its own process.
const OVS: Bridge = Bridge {
    link: ovs_link,
    add: |port| drop(vsctl(&format!("add-port up0 {port}"))),
    remove: |port| drop(vsctl(&format!("del-port up0 {port}"))),
    identity: || vsctl("get bridge up0 datapath_id"),
};

/// `up0` is a bridge, with a link to the remote in it. Its address is that of its lowest port.
fn linux_link(_remote: &Ns) {
    ip_batch(
        "",
        "link add up0 index 9 type bridge
         link add port type veth peer name rem0 netns remote
         link set port address 0c:00:00:00:00:ff
         link set port master up0
         link set port up",
    );
    tell_new_addresses();
}

/// The same of Open vSwitch. Its database and its switch run as long as the test.
fn ovs_link(remote: &Ns) {
    fs::create_dir(OVS_DIR).unwrap();
    let (database, socket) = (format!("{OVS_DIR}/conf.db"), format!("unix:{OVS_DIR}/db.sock"));
    let schema = "/usr/share/openvswitch/vswitch.ovsschema";
    let mut create = ovs("ovsdb-tool");
    output_within(create.args(["create", &database, schema]), SOON).ok();
    let start = |mut command: Command| {
        let null = Stdio::null;
        drop(command.stdin(null()).stdout(null()).stderr(null()).spawn().unwrap());
    };
    let mut server = ovs("ovsdb-server");
    server.arg(&database).arg(format!("--remote=p{socket}"));
    start(server);
    eventually("database of Open vSwitch", SOON, || vsctl_try("--no-wait init").status.success());
    let mut switch = ovs("ovs-vswitchd");
    switch.arg(&socket);
    start(switch);
    ip_batch(
        "",
        "link add port type veth peer name rem0 netns remote
         link set port address 0c:00:00:00:00:ff
         link set port up",
    );
    // It switches packets as they are, and does not complete checksums.
    let mut offload = remote.command("ethtool");
    output_within(offload.args(["-K", "rem0", "tx", "off"]), SOON).ok();
    vsctl("add-br up0 -- set bridge up0 datapath_type=netdev -- add-port up0 port");
    // It takes its interface down to change the address.
    fs::write("/proc/sys/net/ipv6/conf/up0/keep_addr_on_down", "1").unwrap();
    tell_new_addresses();
}

/// Where the files of Open vSwitch are.
const OVS_DIR: &str = "/run/ovs";

/// A program of Open vSwitch, with files of its own.
fn ovs(program: &str) -> Command {
    let mut command = Command::new(program);
    for name in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"] {
        command.env(name, OVS_DIR);
    }
    command
}

fn vsctl_try(line: &str) -> Output {
    output_within(ovs("ovs-vsctl").arg("--timeout=20").args(line.split_whitespace()), SOON * 3)
}

#[track_caller]
fn vsctl(line: &str) -> String {
    vsctl_try(line).ok()
}

fn tell_new_addresses() {
    // The remote is told at once, or it would take its time to ask for the new address.
    for file in ["ipv4/conf/up0/arp_notify", "ipv6/conf/up0/ndisc_notify"] {
        fs::write(format!("/proc/sys/net/{file}"), "1").unwrap();
    }
}

/// Question number `n` and its answer. Either may be lost, or come twice, while the bridge changes.
/// Where the question came from.
#[track_caller]
fn exchange(client: &UdpSocket, server: &UdpSocket, n: u8) -> SocketAddr {
    let data = [n; 1000];
    let next = |socket: &UdpSocket| {
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut got = [0; 2000];
        while let Ok((len, from)) = socket.recv_from(&mut got) {
            if got[..len] == data {
                return Some(from);
            }
        }
        None
    };
    let mut source = None;
    eventually("an answer", SOON, || {
        client.send_to(&data, at(REMOTE4, 7001)).unwrap();
        source = next(server);
        source.is_some_and(|from| {
            server.send_to(&data, from).unwrap();
            next(client).is_some()
        })
    });
    source.unwrap()
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
    // [ADDR-12] [COMPAT-85] [NDP-6] [DHCP-5]
    nothing_is_noticed(&LINUX, type_name_of(bridge_takes_the_address_of_another_port));
}

#[test]
fn open_vswitch_takes_the_address_of_another_port() {
    // [ADDR-12] [COMPAT-85] [NDP-6] [DHCP-5]
    nothing_is_noticed(&OVS, type_name_of(open_vswitch_takes_the_address_of_another_port));
}

/// Ports come and go while TCP, UDP and pings are under way.
fn nothing_is_noticed(bridge: &Bridge, test: &str) {
    Lab::run_over(bridge.link, test, |lab| {
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
        allow_ping(&lab.host());
        let pings = ["10.9.0.3", "2001:db8:9::3"].map(|to| {
            let said = lab.fresh("ping");
            let mut command = guest.command("ping");
            command.args(["-i", "0.2", to]).stdin(Stdio::null());
            let ping = command.stdout(File::create(&said).unwrap()).spawn().unwrap();
            (Helper(ping), said)
        });

        let mac = || Link::of(&lab.host(), "up0").mac;
        let first = mac();
        assert_eq!(first, "0c:00:00:00:00:ff");
        let mut identity = (bridge.identity)();
        let source = exchange(&question, &answer, 9);
        assert_eq!(source.ip(), HOST4);
        for n in [3, 2, 1, 0] {
            // Ports come, each lower than all before, and then all go.
            if n > 0 {
                let address = format!("00:16:3e:00:00:0{n}");
                ip(&format!("link add new{n} address {address} type veth peer name end{n}"));
                (bridge.add)(&format!("new{n}"));
                eventually("address of the new port", SOON, || mac() == address);
            } else {
                for n in 1..=3 {
                    (bridge.remove)(&format!("new{n}"));
                    ip(&format!("link del new{n}"));
                }
                eventually("address of the first port", SOON, || mac() == first);
            }
            eventually("another identity", SOON, || (bridge.identity)() != identity);
            identity = (bridge.identity)();
            for (near, far) in &mut streams {
                pass(near, far, b"still");
                pass(far, near, b"there");
            }
            assert_eq!(exchange(&question, &answer, n), source);
            for (_ping, said) in &pings {
                let replies = || fs::read_to_string(said).unwrap().matches("bytes from").count();
                let before = replies();
                eventually("replies to pings", SOON, || replies() > before + 1);
            }
        }
        assert_eq!(view(lab, &guest), before);
        assert!(Link::of(&lab.host(), "up0").addresses.contains(&HOST6));
    });
}

fn type_name_of<F>(_: F) -> &'static str {
    type_name::<F>()
}
