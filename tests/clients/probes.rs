//! What callers ask before they use us: version, help, options.

use std::process::Command;

use crate::lab::{Lab, SOON, output_within, pasta_path};

#[test]
fn version_is_printed_completely_into_a_pipe() {
    // [CLI-20] [COMPAT-2]
    Lab::run(|_| {
        let mut command = Command::new("sh");
        let out =
            output_within(command.args(["-c", "\"$0\" --version | cat"]).arg(pasta_path()), SOON);
        let first = out.stdout.lines().next().unwrap_or_default();
        let version = first.strip_prefix("pasta ").unwrap_or_default();
        assert!(!version.trim().is_empty(), "{out:?}");
    });
}

#[test]
fn options_act_from_left_to_right() {
    // [CLI-22] [COMPAT-3]
    Lab::run(|lab| {
        for (args, status) in [
            (&["--version"][..], 0),
            (&["--config-net", "--version"], 0),
            (&["--version", "--frobnicate"], 0),
            (&["--frobnicate", "--version"], 1),
            (&["--help"], 0),
            (&["-h"], 0),
            (&["--vers"], 0), // a unique prefix is enough [CLI-2]
        ] {
            assert_eq!(lab.pasta(args).status.code(), Some(status), "{args:?}");
        }
    });
}

#[test]
fn help_names_the_options_and_is_complete_in_a_pipe() {
    // [CLI-21] [COMPAT-5]
    Lab::run(|_| {
        let mut command = Command::new("sh");
        let out =
            output_within(command.args(["-c", "\"$0\" --help | cat"]).arg(pasta_path()), SOON);
        assert!(out.stdout.len() > 4096, "{} bytes", out.stdout.len());
        let words: Vec<&str> = out.stdout.split(|c: char| c.is_whitespace() || c == ',').collect();
        for option in [
            "--debug",
            "--trace",
            "--quiet",
            "--foreground",
            "--runas",
            "--help",
            "--version",
            "--pid",
            "--mtu",
            "--address",
            "--netmask",
            "--mac-addr",
            "--gateway",
            "--interface",
            "--dns",
            "--dns-forward",
            "--no-tcp",
            "--no-udp",
            "--no-icmp",
            "--no-dhcp",
            "--no-ndp",
            "--no-dhcpv6",
            "--no-ra",
            "--map-host-loopback",
            "--map-guest-addr",
            "--no-map-gw",
            "--ipv4-only",
            "--ipv6-only",
            "--tcp-ports",
            "--udp-ports",
            "--tcp-ns",
            "--udp-ns",
            "--userns",
            "--netns",
            "--netns-only",
            "--config-net",
            "--ns-mac-addr",
            "--ns-ifname",
        ] {
            assert!(words.contains(&option), "{option} is not in the help text");
        }
    });
}

#[test]
fn every_way_to_write_an_option_is_understood() {
    // [CLI-2] [COMPAT-7]
    Lab::run(|lab| {
        for line in [
            "--config-net --mtu=1400 --",
            "--config-net --mtu 1400 --",
            "--config-net -m1400 --",
            "--config-net -m 1400",
            "--config-n -m 1400 --",
            "-4qm 1400 --config-net --",
        ] {
            let mut command = lab.command(line);
            command.args(["ip", "-o", "link", "show", "up0"]);
            let text = output_within(&mut command, SOON).ok();
            assert!(text.contains("mtu 1400 "), "{line}: {text}");
        }
    });
}

#[test]
fn old_options_are_still_accepted() {
    // [COMPAT-9]
    Lab::run(|lab| {
        for option in [
            "--stderr",
            "-e",
            "--no-copy-routes",
            "--no-copy-addrs",
            "--no-netns-quit",
            "--dhcp-dns",
            "--dhcp-search",
            "--no-dhcp-dns",
            "--no-dhcp-search",
            "--no-dhcp --no-dhcpv6",
            "-T none -U none -t none -u none",
        ] {
            let line = format!("--config-net {option} -- true");
            output_within(&mut lab.command(&line), SOON).ok();
        }
    });
}

#[test]
fn no_environment_is_needed() {
    // [COMPAT-16]
    Lab::run(|lab| {
        let mut command = lab.command("--config-net -- /bin/true");
        output_within(command.env_clear().current_dir("/proc"), SOON).ok();
    });
}
