//! The calls themselves.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::lab::{
    HOST4, HOST6, Helper, Lab, SOON, at, eventually, ip, ip_batch, output_within, unprivileged,
};
use crate::net::{listen, roundtrip};
use crate::ns::Ns;
use crate::pasta::timed;

const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
const LO4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Waits until nobody but us is left that could be pasta.
pub(crate) fn gone(pid: &str) {
    let path = format!("/proc/{}/stat", pid.trim());
    eventually("pasta ends", SOON, || {
        fs::read_to_string(&path).map_or(true, |s| s.contains(") Z "))
    });
}

#[test]
fn podman_container() {
    // [COMPAT-15] [COMPAT-17] [COMPAT-18] [COMPAT-28] [COMPAT-32] [COMPAT-50] [COMPAT-57] [COMPAT-74]
    Lab::run(|lab| {
        let ns = lab.new_netns("netns-0c8f");
        let pid = lab.fresh("pid");
        let mut command = lab.command("--config-net --pid");
        command.arg(&pid).args(
            "-t 8080-8080:80-80 -t 127.0.0.1/8081-8081:81-81 -t [::1]/8082-8082:82-82 \
             -u 9000-9002:9100-9102 --dns-forward 169.254.1.1 -T none -U none --no-map-gw --quiet \
             --netns /run/netns/netns-0c8f --map-guest-addr 169.254.1.2"
                .split_whitespace(),
        );
        command.env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").current_dir("/");
        let out = output_within(&mut command, SOON);
        assert!(out.status.success(), "{out:?}");
        if unprivileged() {
            assert_eq!(out.stderr, "", "quiet");
        }
        let inside = listen(&ns, at(ANY6, 80));
        for host in [HOST4, HOST6, LO4] {
            roundtrip(&lab.host(), at(host, 8080), &inside);
        }
        let local = listen(&ns, at(ANY6, 81));
        roundtrip(&lab.host(), at(LO4, 8081), &local);
        let on_host = listen(&lab.host(), at(HOST4, 7777));
        roundtrip(&ns, "169.254.1.2:7777".parse().unwrap(), &on_host);

        let daemon = fs::read_to_string(&pid).unwrap();
        drop(ns);
        ip("netns del netns-0c8f");
        gone(&daemon);
    });
}

#[test]
fn podman_restarts_a_container_on_the_same_port() {
    // [COMPAT-22]: the new instance starts as soon as the old namespace is gone
    Lab::run(|lab| {
        for round in 0..50 {
            let name = format!("netns-{round}");
            drop(lab.new_netns(&name));
            let line = format!(
                "--config-net -t 8080-8080:80-80 --dns-forward 169.254.1.1 -u none -T none -U none \
                 --no-map-gw --quiet --netns /run/netns/{name} --map-guest-addr 169.254.1.2"
            );
            let out = output_within(&mut lab.command(&line), SOON);
            assert!(out.status.success(), "round {round}: {out:?}");
            ip(&format!("netns del {name}"));
        }
    });
}

#[test]
fn podman_bridge_network() {
    // [COMPAT-39] [COMPAT-73]: with a PID file, ended by SIGTERM
    Lab::run(|lab| {
        let _ns = lab.new_netns("rootless-netns");
        let mut pasta = lab.attach(
            "--config-net --dns-forward 169.254.1.1 -t none -u none -T none -U none --no-map-gw \
             --quiet --netns /run/netns/rootless-netns --map-guest-addr 169.254.1.2",
        );
        let (status, took) = timed(|| {
            pasta.signal(Signal::SIGTERM);
            pasta.wait(SOON)
        });
        assert_eq!(status.code(), Some(0));
        assert!(took.as_millis() < 300, "{took:?}");
    });
}

#[test]
fn podman_options_of_its_manual() {
    // [COMPAT-10] [COMPAT-11] a network address given as address, words in this order
    Lab::run(|lab| {
        let ns = lab.new_netns("one");
        let _pasta = lab.attach(
            "--config-net -a 10.0.2.0 -n 24 -g 10.0.2.2 --ipv4-only --dns-forward 10.0.2.3 -m 1500 \
             --no-ndp --no-dhcpv6 --no-dhcp -I tap0 -t none -u none -T none -U none --quiet \
             --netns one --map-guest-addr 169.254.1.2",
        );
        let text = output_within(ns.command("ip").args(["addr", "show", "tap0"]), SOON).ok();
        assert!(text.contains("inet 10.0.2.0/24") && text.contains("mtu 1500"), "{text}");
    });
}

/// A process in a user and a network namespace of its own, as RootlessKit's child.
fn child() -> (Helper, u32) {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "--mount", "sleep", "600"]);
    let child = Helper(command.stdin(Stdio::null()).spawn().unwrap());
    let pid = child.0.id();
    eventually("child starts", SOON, || {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.starts_with(b"sleep\0"))
    });
    (child, pid)
}

/// Real root would become another user, who may not look into our processes.
fn same_user() -> &'static str {
    if unprivileged() { "" } else { "--runas 0" }
}

#[test]
fn buildah_by_process() {
    // [COMPAT-15] [COMPAT-74]: the namespace is a file of a process
    Lab::run(|lab| {
        // buildah is root in its user namespace already, and so is the owner of the namespace.
        let mut command = Command::new("unshare");
        command.args(["--net", "sleep", "600"]).stdin(Stdio::null());
        let mut child = Helper(command.spawn().unwrap());
        let pid = child.0.id();
        eventually("child starts", SOON, || {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.starts_with(b"sleep\0"))
        });
        let mut pasta = lab.attach(&format!(
            "--config-net {} --dns-forward 169.254.1.1 -t none -u none -T none -U none --no-map-gw \
             --quiet --netns /proc/{pid}/ns/net --map-guest-addr 169.254.1.2",
            same_user()
        ));
        child.0.kill().unwrap();
        child.0.wait().unwrap();
        let (status, took) = timed(|| pasta.wait(SOON));
        assert_eq!(status.code(), Some(0));
        assert!(took.as_millis() < 500, "{took:?}");
    });
}

#[test]
fn rootlesskit_two_with_its_own_tap() {
    // [COMPAT-52] [COMPAT-30]: the tap exists, is up, and is configured by somebody else
    Lab::run(|lab| {
        for by_path in [false, true] {
            let (_child, pid) = child();
            let enter = |line: &str| {
                let mut command = Command::new("nsenter");
                command.args(["-t", &pid.to_string(), "-U", "--preserve-credentials", "-n", "--"]);
                output_within(command.args(line.split_whitespace()), SOON).ok()
            };
            enter("ip tuntap add name tap0 mode tap");
            enter("ip link set tap0 up");
            let target = if by_path {
                format!("--userns=/proc/{pid}/ns/user --netns=/proc/{pid}/ns/net")
            } else {
                pid.to_string()
            };
            let line = format!(
                "--foreground --stderr --ns-ifname=tap0 --mtu=65520 --no-dhcp --no-ra \
                 --address=10.0.2.100 --netmask=24 --gateway=10.0.2.2 --dns-forward=10.0.2.3 {} \
                 --tcp-ports=none --udp-ports=none {target}",
                same_user()
            );
            let stderr = lab.fresh("stderr");
            let mut command = lab.command(&line);
            command.stdin(Stdio::null()).stderr(fs::File::create(&stderr).unwrap());
            let mut pasta = Helper(command.spawn().unwrap());
            eventually("tap gets a carrier", SOON, || {
                let said = fs::read_to_string(&stderr).unwrap();
                assert!(pasta.0.try_wait().unwrap().is_none(), "pasta ended: {said}");
                enter("ip -o link show tap0").contains("LOWER_UP")
            });
            enter("ip link set tap0 mtu 65520");
            enter("ip addr add 10.0.2.100/24 dev tap0");
            enter("ip route add default via 10.0.2.2 dev tap0");
            enter("ip link set lo up");
            let ns = Ns::of_pid(i32::try_from(pid).unwrap());
            let outside = listen(&lab.remote, at(crate::lab::REMOTE4, 7000));
            roundtrip(&ns, at(crate::lab::REMOTE4, 7000), &outside);
            assert!(enter("ip addr show tap0").contains("10.0.2.100/24"));
            pasta.0.kill().unwrap(); // SIGKILL, then wait: the caller's way to end it
            pasta.0.wait().unwrap();
        }
    });
}

#[test]
fn rootlesskit_newer() {
    // [COMPAT-28] [COMPAT-29]: no --foreground; parent's end is readiness, output is read to its end
    Lab::run(|lab| {
        let (_child, pid) = child();
        let line = format!(
            "--stderr --ns-ifname=tap0 --mtu=65521 --config-net --address=10.0.2.100 --netmask=24 \
             --gateway=10.0.2.2 --dns-forward=10.0.2.3 {} --tcp-ports=none --udp-ports=none {pid}",
            same_user()
        );
        let out = lab.command(&line).stdin(Stdio::null()).output().unwrap();
        assert!(out.status.success(), "{out:?}");
        let ns = Ns::of_pid(i32::try_from(pid).unwrap());
        let text = output_within(ns.command("ip").args(["addr", "show", "tap0"]), SOON).ok();
        assert!(text.contains("10.0.2.100/24") && text.contains("mtu 65521"), "{text}");
    });
}

#[test]
fn root_of_a_user_namespace_stays_who_it_is() {
    // [SANDBOX-5] [COMPAT-43]; real root becomes nobody [COMPAT-44]
    Lab::run(|lab| {
        let _ns = lab.new_netns("one");
        let pasta = lab.attach("--config-net --netns one");
        let status = fs::read_to_string(format!("/proc/{}/status", pasta.pid)).unwrap();
        let uid = status.lines().find(|l| l.starts_with("Uid:")).unwrap();
        let expected = if unprivileged() { "0" } else { "65534" };
        assert!(uid.split_whitespace().skip(1).all(|u| u == expected), "{uid}");
    });
}

#[test]
fn several_uplinks_and_an_uplink_without_a_gateway() {
    // [NL-2] [NL-3] [COMPAT-55]: multipath, and a default route through a device only
    Lab::run(|lab| {
        ip_batch(
            "",
            "route del default
             route add default nexthop via 10.9.0.1 dev up0 nexthop via 10.9.0.3 dev up0",
        );
        let out = lab.pasta(&["--config-net", "--", "ip", "-4", "route"]).ok();
        assert!(out.contains("default") && out.contains("10.9.0.1"), "{out}");
        ip_batch("", "route del default\nroute add default dev up0");
        let out = lab.pasta(&["--config-net", "--", "ip", "-4", "route"]).ok();
        assert!(out.contains("default dev up0"), "{out}");
    });
}

#[test]
fn programs_that_know_slirp4netns_only() {
    // [AUX-2] [W-25] the wrapper in contrib: readiness and end by descriptors, addresses
    Lab::run(|lab| {
        let script = lab.dir().join("slirp4netns");
        fs::write(&script, include_str!("../../contrib/slirp4netns")).unwrap();
        let (_child, pid) = child();
        let line = format!(
            "mkfifo /run/lab/ready /run/lab/exit; exec 3<>/run/lab/ready 4<>/run/lab/exit
             sh {} --configure --mtu=65520 --disable-host-loopback --ready-fd=3 --exit-fd=4 {pid} \
             tap0 & head -c 1 <&3; ip_of() {{ nsenter -t {pid} -U --preserve-credentials -n \"$@\"; }}
             ip_of ip addr show tap0; ip_of ip route; echo >&4; wait; ip_of ip link",
            script.display()
        );
        let mut command = Command::new("bash");
        // Real root would become somebody else.
        let pasta = lab.dir().join("pasta");
        let text = format!(
            "#!/bin/sh\nexec {} {} \"$@\"\n",
            crate::lab::pasta_path().display(),
            same_user()
        );
        fs::write(&pasta, text).unwrap();
        fs::set_permissions(&pasta, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        command.args(["-c", &line]).env("PASTA", &pasta);
        let out = output_within(&mut command, SOON);
        let text = &out.stdout;
        assert!(text.starts_with('1'), "{out:?}");
        for part in ["10.0.2.100/24", "mtu 65520", "default via 10.0.2.2 dev tap0"] {
            assert!(text.contains(part), "{part}: {out:?}");
        }
        assert_eq!(text.matches(": tap0: ").count(), 1, "gone in the end: {out:?}");
    });
}
