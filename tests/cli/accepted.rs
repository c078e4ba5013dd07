//! Valid command lines and the configuration they make.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use passt::cli::{CliEnv, Outcome, parse};
use passt::config::{
    ForwardSpec, GuestSocket, Inward, MapAddr, Mode, Offload, Protocols, RunAs, Target, Verbosity,
};
use passt::wire::Mac;

use crate::support::{ENV, config, outcome, outcome_on, printed, run};

#[test]
fn defaults() {
    let (c, warnings) = run("");
    assert_eq!((c.mode, c.target, c.foreground), (Mode::Pasta, Target::Shell, true));
    assert_eq!((c.v4, c.v6, c.mtu, c.our_mac), (true, true, 65520, Mac::DEFAULT_OURS));
    assert_eq!((c.map_gw, c.map_host_loopback4), (true, MapAddr::Default));
    assert_eq!((c.addr4, c.prefix4, c.addr6, c.ifname), (None, None, None, None));
    // [PORT-4]
    for spec in [c.tcp_in, c.udp_in, c.tcp_out, c.udp_out] {
        assert!(spec.is_auto());
        assert_eq!(spec.rules.first().map(|r| (r.first, r.last)), Some((1, 32_767)));
    }
    assert!(warnings.is_empty());
}

// [CLI-1] The mode is in the last component of the program's name, anywhere in it.
#[test]
fn mode_from_the_name() {
    for program in
        ["pasta", "./my-pasta-x", "/usr/bin/pasta.avx2", "/opt/passt/pasta", "passtpasta"]
    {
        assert!(printed(&format!("{program} --version")).starts_with("pasta "), "{program}");
    }
    for program in ["passt", "/usr/bin/passt.avx2", "/opt/pasta/passt"] {
        assert!(printed(&format!("{program} --version")).starts_with("passt "), "{program}");
    }
    assert!(printed("pasta --version --vhost-user").starts_with("passt "));
    assert!(printed("foo --version --vhost-user").starts_with("passt "));
}

// [CLI-1] [CLI-2] A command's own options are its own.
#[test]
fn options_end_at_the_command() {
    let command = |line| match config(line).target {
        Target::Command(words) => {
            words.iter().map(|w| w.to_str().unwrap().to_string()).collect::<Vec<_>>().join(" ")
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(command("--config-net ip -6 route"), "ip -6 route");
    assert_eq!(command("prog -6 -F x --vhost-user --fd 9"), "prog -6 -F x --vhost-user --fd 9");
    assert_eq!(command("-- --vhost-user"), "--vhost-user");
    assert_eq!(command("-d -- prog --version"), "prog --version");
    assert!(config("prog -4").v6);
}

// A command's words need not be UTF-8.
#[test]
fn command_of_any_bytes() {
    let word = std::ffi::OsString::from_vec(vec![0xff, 0xfe]);
    match parse(vec!["pasta".into(), word.clone()], &ENV) {
        Ok(Outcome::Run { config, .. }) => assert_eq!(config.target, Target::Command(vec![word])),
        other => panic!("{other:?}"),
    }
}

// [CLI-22] [COMPAT-3] Immediate options act where they stand.
#[test]
fn immediate_options() {
    for line in [
        "--version --mtu junk",
        "--version --unknown",
        "--version --mtu",
        "--version --log-file /x",
        "-d --version",
        "-4d --vers",
        // Rules are looked at once all options are known.
        "-t junk --version",
    ] {
        assert!(printed(&format!("pasta {line}")).starts_with("pasta "), "{line}");
    }
    for line in ["-h --version", "--help --unknown", "-4h"] {
        assert!(printed(&format!("pasta {line}")).starts_with("Usage: pasta "), "{line}");
    }
    assert!(printed("passt --help").starts_with("Usage: passt "));
}

// [CLI-20] [COMPAT-2]
#[test]
fn version_text() {
    let text = printed("pasta --version");
    assert_eq!(text.lines().next().unwrap(), concat!("pasta ", env!("CARGO_PKG_VERSION")));
    assert!(text.contains("MIT License"));
    assert!(text.ends_with(".\n\n"));
}

/// Options that work in both modes.
const OF_BOTH: &str = "help version foreground quiet debug trace runas pid buffer-memory ipv4-only \
    ipv6-only interface address netmask gateway mtu mac-addr outbound outbound-if4 outbound-if6 dns \
    dns-forward dns-host search hostname fqdn map-host-loopback no-map-gw map-guest-addr tcp-ports \
    udp-ports freebind log-file log-size stats pcap chroot-fallback landlock-fallback no-tcp no-udp no-icmp no-dhcp no-ndp no-dhcpv6 no-ra";

/// Options for namespaces.
const OF_PASTA: &str = "netns userns netns-only config-net ns-ifname ns-mac-addr offload \
    no-netns-quit dhcp-dns dhcp-search tcp-ns udp-ns no-splice splice-only host-lo-to-ns-lo";

/// Options for virtual machines.
const OF_PASST: &str = "socket fd one-off no-dhcp-dns no-dhcp-search";

/// The options that a help text lists, each with what it says of it in one line.
fn listed(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut last = None;
    for line in text.lines().take_while(|line| !line.starts_with("SPEC")) {
        if let Some((_, rest)) =
            line.split_once("--").filter(|_| line.trim_start().starts_with('-'))
        {
            let (name, text) = rest.split_once(' ').unwrap_or((rest, ""));
            found.insert(name.to_owned(), text.to_owned());
            last = Some(name.to_owned());
        } else if let Some(option) = &last {
            let text = found.entry(option.clone()).or_default();
            *text = format!("{text} {}", line.trim());
        }
    }
    found
}

// [CLI-21] [COMPAT-5] Every option that works in a mode, with its default, and nothing that is
// refused there.
#[test]
fn help_lists_what_works() {
    for (mode, own) in [("pasta", OF_PASTA), ("passt", OF_PASST)] {
        let text = printed(&format!("{mode} --help"));
        let listed = listed(&text);
        let mut expected: Vec<_> =
            OF_BOTH.split(' ').chain(own.split(' ')).filter(|w| !w.is_empty()).collect();
        expected.sort_unstable();
        assert_eq!(listed.keys().map(String::as_str).collect::<Vec<_>>(), expected, "{mode}");
        for (option, text) in &listed {
            let has_default = text.contains("[default: ");
            assert!(
                has_default || ["help", "version"].contains(&option.as_str()),
                "{mode} {option}"
            );
        }
        assert!(text.lines().all(|line| line.len() <= 80 && line.trim_end() == line), "{text}");
    }
}

// [CLI-21] What it says is true for the mode.
#[test]
fn help_text() {
    let text = printed("pasta --help");
    for part in [
        "pasta [OPTION]... [COMMAND",
        "pasta [OPTION]... PID",
        "--netns PATH|NAME",
        "-f, --foreground",
        "-I, --ns-ifname ",
        "[default: 65520]",
        "[default: 9a:55:9a:55:9a:55]",
        "-t auto,~22",
        "-t 8000-8010:80-90",
    ] {
        assert!(text.contains(part), "{part}");
    }
    let default = |text: &str, option: &str| {
        let said = listed(text).remove(option).unwrap();
        let (_, default) = said.split_once("[default: ").unwrap();
        default.split_inclusive(']').next().unwrap().to_owned()
    };
    assert_eq!(default(&text, "tcp-ports"), "auto]");
    let text = printed("passt --help");
    for part in ["-s, --socket <PATH>", "-F, --fd <FD>", "-1, --one-off", "-t ~25", "-t %eth0/22"] {
        assert!(text.contains(part), "{part}");
    }
    for (option, expected) in [
        ("tcp-ports", "none]"),
        ("udp-ports", "none]"),
        ("foreground", "off]"),
        ("hostname", "none]"),
        ("no-ra", "off]"),
        ("no-dhcp-dns", "off]"),
    ] {
        assert_eq!(default(&text, option), expected, "{option}");
    }
    for part in ["namespace", "-T", "auto", "command", "--config-net"] {
        assert!(!text.contains(part), "{part}");
    }
}

// What is done anyway can be asked for, whatever the mode.
#[test]
fn no_repair_socket() {
    for mode in ["pasta", "passt"] {
        let outcome = outcome(&format!("{mode} --repair-path none"));
        assert!(matches!(outcome, Ok(Outcome::Run { .. })), "{mode}: {outcome:?}");
    }
}

// [CLI-3] [W-23] [LIFE-12] Where a virtual machine is found: the last of `-s` and `-F` counts.
#[test]
fn machines() {
    let machine = |options: &str| match outcome(&format!("passt {options}")) {
        Ok(Outcome::Run { config, .. }) => *config,
        other => panic!("{options}: {other:?}"),
    };
    let path = |p: &str| Target::Machine(GuestSocket::Path(p.into()));
    for (options, target) in [
        ("", Target::Machine(GuestSocket::Probe)),
        ("-s /a", path("/a")),
        ("--socket /a --socket-path b", path("b")),
        ("--fd 0", Target::Machine(GuestSocket::Inherited)),
        ("-s /a -F 0x10", Target::Machine(GuestSocket::Inherited)),
        ("-F 3 -s /a", path("/a")),
    ] {
        assert_eq!(machine(options).target, target, "{options}");
    }
    let config = machine("-1 -t 8080:80 -m 1500 -a 192.0.2.5/24 --no-udp --no-map-gw -P /run/p");
    assert!(config.one_off && !config.foreground && !config.protocols.udp && !config.map_gw);
    assert_eq!((config.mode, config.mtu, config.prefix4), (Mode::Passt, 1500, Some(24)));
    assert_eq!(config.tcp_in.rules.len(), 1);
    // A machine has no resolv.conf of ours: it is told unless that is refused.
    assert!(config.advertise_dns && config.advertise_search);
    let config = machine("--no-dhcp-dns --no-dhcp-search");
    assert!(!config.advertise_dns && !config.advertise_search);
    assert!(!crate::support::config("").advertise_dns);
    // The descriptor has to be known before anything else.
    for (line, fd) in [
        ("passt -F 5 -F 6", Some(6)),
        ("passt --fd=0x10 -s /x", Some(16)),
        ("passt --fd x --fd 7", Some(7)),
        ("pasta -- prog --fd 3", None),
        ("pasta prog -F 3", None),
        ("passt", None),
    ] {
        let argv: Vec<_> = line.split_whitespace().map(Into::into).collect();
        assert_eq!(passt::cli::guest_fd(&argv), fd, "{line}");
    }
}

// [CLI-3] [COMPAT-8] The last of contradictory options wins.
#[test]
fn last_one_wins() {
    assert_eq!(config("--quiet --debug").verbosity, Verbosity::Debug);
    assert_eq!(config("-d -q").verbosity, Verbosity::Quiet);
    assert_eq!(config("--trace -d").verbosity, Verbosity::Trace);
    assert_eq!(config("--trace -q").verbosity, Verbosity::Quiet);
    assert_eq!(config("--trace -q -d").verbosity, Verbosity::Debug);
    assert_eq!(config("").verbosity, Verbosity::Info);
    assert_eq!(config("-m 1500 -m 1400").mtu, 1400);
    let c = config("-4 -6");
    assert_eq!((c.v4, c.v6), (false, true));
    let c = config("-6 -4");
    assert_eq!((c.v4, c.v6), (true, false));
    let c = config("--ns-mac-addr 02:00:00:00:00:01 --ns-mac-addr 02:00:00:00:00:02");
    assert_eq!(c.ns_mac, Some(Mac([2, 0, 0, 0, 0, 2])));
    let c = config("--userns /u --netns-only 1");
    assert_eq!((c.userns, c.netns_only), (None, true));
    let c = config("--netns-only --userns /u 1");
    assert_eq!((c.userns, c.netns_only), (Some(PathBuf::from("/u")), false));
}

// [CLI-10] [COMPAT-14]
#[test]
fn targets() {
    for (line, target) in [
        ("1234", Target::Pid(1234)),
        ("-- 1234", Target::Pid(1234)),
        ("+12", Target::Pid(12)),
        ("2147483647", Target::Pid(i32::MAX)),
        ("12 34", Target::Command(vec!["12".into(), "34".into()])),
        ("12a", Target::Command(vec!["12a".into()])),
        ("--netns /proc/1/ns/net", Target::Netns("/proc/1/ns/net".into())),
        ("--netns blue", Target::Netns("/run/netns/blue".into())),
        ("--netns a --netns ./b", Target::Netns("./b".into())),
        ("--", Target::Shell),
    ] {
        assert_eq!(config(line).target, target, "{line}");
    }
    match parse(vec!["pasta".into(), " 7".into()], &ENV) {
        Ok(Outcome::Run { config, .. }) => assert_eq!(config.target, Target::Pid(7)),
        other => panic!("{other:?}"),
    }
}

// [CLI-10] [COMPAT-15] Which user namespace is joined is found out later, unless it is given.
#[test]
fn user_namespaces() {
    assert!(!config("--netns /n").netns_only);
    assert!(config("--netns /n --netns-only").netns_only);
    let c = config("--netns /n --userns /u");
    assert_eq!((c.netns_only, c.userns), (false, Some(PathBuf::from("/u"))));
    assert!(!config("1234").netns_only);
    assert!(!config("").netns_only);
}

// Attached, we go to the background; with a command we never do.
#[test]
fn foreground() {
    assert!(!config("--netns /n").foreground);
    assert!(!config("1234").foreground);
    assert!(config("-f 1234").foreground);
    assert!(config("true").foreground);
}

#[test]
fn addresses() {
    let c = config("-a 10.0.0.5/24 -a [fd00::5]/64");
    assert_eq!((c.addr4, c.prefix4), (Some(Ipv4Addr::new(10, 0, 0, 5)), Some(24)));
    assert_eq!(c.addr6, Some("fd00::5".parse().unwrap()));
    // [COMPAT-11] A network address is accepted; no length is invented.
    let c = config("-a 10.0.2.0");
    assert_eq!((c.addr4, c.prefix4), (Some(Ipv4Addr::new(10, 0, 2, 0)), None));
    let c = config("-a 10.0.0.5/24 -a 10.0.0.6");
    assert_eq!((c.addr4, c.prefix4), (Some(Ipv4Addr::new(10, 0, 0, 6)), None));
    assert_eq!(config("-a ::ffff:10.0.0.7").addr4, Some(Ipv4Addr::new(10, 0, 0, 7)));
    assert_eq!(config("-a fe80::1").addr6, Some("fe80::1".parse().unwrap()));
}

// [COMPAT-10] Bits or mask, before or after the address, whatever IPv6 says.
#[test]
fn netmasks() {
    for line in [
        "-n 24",
        "-n 255.255.255.0",
        "-a 10.0.0.1 -n 24",
        "-n 24 -a 10.0.0.1",
        "-n 24 -a fd00::1/64",
        "-a fd00::1/64 -n 24",
        "-a 10.0.0.1/24",
        "-n 16 -n 24",
    ] {
        assert_eq!(config(line).prefix4, Some(24), "{line}");
    }
    assert_eq!(config("-n 0").prefix4, Some(0));
    assert_eq!(config("-n 255.255.255.255").prefix4, Some(32));
}

// [COMPAT-13] Numbers in any base; [W-24] nothing is said about 0.
#[test]
fn mtu() {
    for (text, mtu) in [("0", 0), ("65521", 65521), ("0x5dc", 1500), ("02734", 1500)] {
        let (c, warnings) = run(&format!("-m {text}"));
        assert_eq!((c.mtu, warnings), (mtu, vec![]), "{text}");
    }
    let too_small = |options| run(options).1;
    assert_eq!(too_small("-m 1279"), ["MTU 1279 is too small for IPv6 (minimum 1280)"]);
    assert_eq!(too_small("-m 1279 -4"), [""; 0]);
    assert_eq!(too_small("-4 -m 67"), ["MTU 67 is too small for IPv4 (minimum 68)"]);
    assert_eq!(too_small("-m 67").len(), 2);
    assert_eq!(too_small("-6 -m 67").len(), 1);
    assert_eq!(too_small("-m 1280"), [""; 0]);
    // Where the interface is configured, one family is better than none.
    let (c, warnings) = run("--config-net -m 1279");
    assert_eq!((c.v4, c.v6), (true, false));
    assert_eq!(warnings, ["MTU 1279 is too small for IPv6 (minimum 1280): IPv6 is off"]);
    assert!(run("--config-net -m 1279 -6").0.v6);
}

#[test]
fn offload() {
    assert_eq!(config("-f").offload, Offload::Udp);
    for (text, level) in [("udp", Offload::Udp), ("tcp", Offload::Tcp), ("none", Offload::None)] {
        assert_eq!(config(&format!("--offload none --offload {text}")).offload, level);
    }
}

#[test]
fn buffer_memory() {
    assert_eq!(config("-f").buffer_memory, 64 << 20);
    for (text, bytes) in [
        ("1M", 1 << 20),
        ("2048k", 2 << 20),
        ("3145728", 3 << 20),
        ("100m", 100 << 20),
        ("1G", 1 << 30),
    ] {
        assert_eq!(config(&format!("--buffer-memory {text}")).buffer_memory, bytes, "{text}");
    }
}

#[test]
fn interfaces_and_routes() {
    let c = config("-i eth0 -I wan0 -g 10.0.0.1 -g fe80::1 -M 02:00:00:00:00:01 --config-net");
    assert_eq!((c.template.as_deref(), c.ifname.as_deref()), (Some("eth0"), Some("wan0")));
    assert_eq!(c.gateway4, Some(Ipv4Addr::new(10, 0, 0, 1)));
    assert_eq!(c.gateway6, Some("fe80::1".parse().unwrap()));
    assert_eq!(c.our_mac, Mac([2, 0, 0, 0, 0, 1]));
    assert!(c.config_net);
    assert_eq!(config("-I abcdefghijklmno").ifname.unwrap().len(), 15);
}

// [CLI table -o --outbound-if4 --outbound-if6 --freebind] [FWD-3] [FWD-16]
#[test]
fn outbound() {
    let c = config("-o 10.0.0.1 -o 10.0.0.2 --outbound [2001:db8::2]");
    assert_eq!(c.outbound.addr4, Some(Ipv4Addr::new(10, 0, 0, 2)));
    assert_eq!(c.outbound.addr6, Some("2001:db8::2".parse().unwrap()));
    assert_eq!(c.outbound.addr(false), Some("2001:db8::2".parse().unwrap()));
    assert_eq!((c.outbound.interface(true), c.freebind), (None, false));
    let c = config("--outbound-if4 eth0 --outbound-if4 eth1 --outbound-if6=wan --freebind");
    assert_eq!(
        (c.outbound.interface(true), c.outbound.interface(false)),
        (Some("eth1"), Some("wan"))
    );
    assert_eq!((c.outbound.addr(true), c.freebind), (None, true));
}

#[test]
fn resolvers() {
    let servers = |line| {
        let dns = config(line).dns;
        (dns.none, dns.servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(servers(""), (false, String::new()));
    assert_eq!(servers("-D 1.1.1.1 -D fd00::1"), (false, "1.1.1.1 fd00::1".to_string()));
    assert_eq!(
        servers("-D 1.1.1.1 -D 1.1.1.2 -D 1.1.1.3 -D 1.1.1.4 -D fd00::1"),
        (false, "1.1.1.1 1.1.1.2 1.1.1.3 fd00::1".to_string())
    );
    assert_eq!(servers("-D 1.1.1.1 -D none"), (true, String::new()));
    assert_eq!(servers("-D none -D 127.0.0.53"), (false, "127.0.0.53".to_string()));

    let c = config("--dns-forward 169.254.1.1 --dns-forward fd00::53");
    assert_eq!(c.dns_forward4, Some(Ipv4Addr::new(169, 254, 1, 1)));
    assert_eq!(c.dns_forward6, Some("fd00::53".parse().unwrap()));
    let c = config("--dns-forward 169.254.1.1 --dns-forward fd00::53 -D none");
    assert_eq!((c.dns_forward4, c.dns_forward6), (None, None));
    assert!(config("-D none --dns-forward 169.254.1.1").dns_forward4.is_some());

    let c = config("--dns-host 127.0.0.53 --dns-host ::1 --dns-host 1.1.1.1");
    assert_eq!(c.dns_host4, Some(Ipv4Addr::new(1, 1, 1, 1)));
    assert_eq!(c.dns_host6, Some("::1".parse().unwrap()));
    let c = config("--dns-host 127.0.0.53 --dns-host ::1 -D none");
    assert_eq!((c.dns_host4, c.dns_host6), (None, None));
}

// [PORT-4] Each option on its own, and nothing of a protocol that is off.
#[test]
fn automatic_forwarding() {
    let auto = |line: &str| {
        let c = config(line);
        [c.tcp_in, c.udp_in, c.tcp_out, c.udp_out].map(|spec| spec.is_auto())
    };
    assert_eq!(auto("-t none -U 53"), [false, true, true, false]);
    assert_eq!(auto("-t 80,auto -u auto"), [true; 4]);
    assert_eq!(auto("--no-tcp"), [false, true, false, true]);
    assert_eq!(auto("--no-udp"), [true, false, true, false]);
    let c = config("--no-tcp --no-udp");
    assert_eq!(
        [c.tcp_in, c.udp_in, c.tcp_out, c.udp_out],
        [(); 4].map(|()| ForwardSpec::default())
    );
}

// [SPLICE-3]
#[test]
fn splicing() {
    assert_eq!(config("").inward, Inward::Address);
    assert_eq!(config("--no-splice").inward, Inward::Link);
    assert_eq!(config("--host-lo-to-ns-lo").inward, Inward::Loopback);
    let c = config("--splice-only");
    assert_eq!((c.inward, c.splice_only), (Inward::Loopback, true));
    assert!(!c.protocols.icmp && c.dns.none);
}

#[test]
fn host_mapping() {
    let c = config("--map-host-loopback 169.254.1.2");
    assert_eq!(c.map_host_loopback4, MapAddr::Addr(Ipv4Addr::new(169, 254, 1, 2)));
    assert_eq!((c.map_host_loopback6, c.map_gw), (MapAddr::Default, true));
    let c = config("--no-map-gw");
    assert_eq!((c.map_host_loopback4, c.map_gw), (MapAddr::Default, false));
    let c = config("--map-host-loopback fd00::1 --map-host-loopback none");
    assert_eq!((c.map_host_loopback4, c.map_host_loopback6), (MapAddr::None, MapAddr::None));
    assert!(!c.map_gw);
    let c = config("--map-host-loopback none --map-host-loopback fd00::1");
    assert_eq!(c.map_host_loopback4, MapAddr::None);
    assert_eq!(c.map_host_loopback6, MapAddr::Addr("fd00::1".parse().unwrap()));
}

#[test]
fn guest_mapping() {
    let c = config("--map-guest-addr 169.254.1.2 --map-guest-addr fd00::2");
    assert_eq!(c.map_guest4, Some(Ipv4Addr::new(169, 254, 1, 2)));
    assert_eq!(c.map_guest6, Some("fd00::2".parse().unwrap()));
    let c = config("--map-guest-addr 169.254.1.2 --map-guest-addr none --map-guest-addr fd00::2");
    assert_eq!((c.map_guest4, c.map_guest6), (None, Some("fd00::2".parse().unwrap())));
}

// [L2-9] [PORT-4] [NDP-1] What is switched off, alone and with what it implies.
#[test]
fn protocols() {
    let all = config("").protocols;
    assert_eq!(all, Protocols { tcp: true, udp: true, icmp: true });
    assert_eq!(config("--no-tcp").protocols, Protocols { tcp: false, ..all });
    assert_eq!(config("--no-udp -u none -t 80").protocols, Protocols { udp: false, ..all });
    let c = config("--no-icmp");
    assert_eq!((c.protocols, c.ndp, c.ra), (Protocols { icmp: false, ..all }, false, true));
    let c = config("--no-ndp");
    assert_eq!((c.protocols, c.ndp), (all, false));
    let c = config("--no-ra");
    assert_eq!((c.ndp, c.ra), (true, false));
    assert!(config("").ndp && config("").ra);
    // [DHCP-1] [DHCP6-1]
    let c = config("");
    assert!(c.dhcp && c.dhcpv6);
    let c = config("--no-dhcp");
    assert_eq!((c.dhcp, c.dhcpv6), (false, true));
    let c = config("--no-dhcpv6");
    assert_eq!((c.dhcp, c.dhcpv6), (true, false));
}

// [ADDR-7] [COMPAT-9] The last of both ways wins.
#[test]
fn advertising() {
    let c = config("");
    assert!(!c.advertise_dns && !c.advertise_search);
    let c = config("--dhcp-dns --dhcp-search");
    assert!(c.advertise_dns && c.advertise_search);
    let c = config("--dhcp-dns --no-dhcp-dns --no-dhcp-search --dhcp-search");
    assert!(!c.advertise_dns && c.advertise_search);
}

// [ADDR-7] [W-10] Several options, several names in one; `none` forgets what came before it.
#[test]
fn search_list() {
    let search = |options: &str| config(options).search;
    let list = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(search(""), None);
    assert_eq!(search("-S a.example --search b.example."), list(&["a.example", "b.example."]));
    assert_eq!(search("-S none"), list(&[]));
    assert_eq!(search("-S a -S none"), list(&[]));
    assert_eq!(search("-S none -S a"), list(&["a"]));
    let argv = ["pasta", "-S", " a  b\tc "].map(std::ffi::OsString::from).to_vec();
    match passt::cli::parse(argv, &ENV) {
        Ok(Outcome::Run { config, .. }) => assert_eq!(config.search, list(&["a", "b", "c"])),
        other => panic!("{other:?}"),
    }
}

// [DHCP-5] [DHCP6-4] The last name wins.
#[test]
fn names_of_the_guest() {
    assert_eq!(config("").fqdn, None);
    let c = config("--fqdn a.example --fqdn b.example -H a -H b");
    assert_eq!((c.fqdn.as_deref(), c.hostname.as_deref()), (Some("b.example"), Some("b")));
}

#[test]
fn namespace_set_up() {
    let c = config("");
    assert!(c.copy_routes && c.copy_addrs && c.netns_quit && c.hostname.is_none());
    let c = config("--no-netns-quit -H zebra 1");
    assert_eq!((c.netns_quit, c.hostname.as_deref()), (false, Some("zebra")));
    assert_eq!(config(&format!("-H {}", "x".repeat(253))).hostname.unwrap().len(), 253);
    // [COMPAT-9] Deprecated, before or after --config-net.
    let (c, warnings) = run("--no-copy-routes --config-net --no-copy-addrs");
    assert!(!c.copy_routes && !c.copy_addrs);
    assert_eq!(
        warnings,
        [
            "option --no-copy-routes is deprecated: use --gateway",
            "option --no-copy-addrs is deprecated: use --address"
        ]
    );
}

#[test]
fn runas() {
    for (text, uid, gid) in [
        ("1000", 1000, 1000),
        ("0x10:010", 16, 8),
        ("0", 0, 0),
        ("alice", 1000, 100),
        ("alice:staff", 1000, 50),
        ("alice:7", 1000, 7),
        ("7:staff", 7, 50),
    ] {
        assert_eq!(config(&format!("--runas {text}")).runas, Some(RunAs { uid, gid }), "{text}");
    }
    assert_eq!(config("").runas, None);
}

// [PORT-1] Each option has its own table, adds up, and keeps its order.
#[test]
fn forwarding() {
    let shown = |spec: &ForwardSpec| {
        spec.rules.iter().map(|r| format!("{r}|")).collect::<Vec<_>>().concat()
    };
    let c = config("-t 8080:80 -t 127.0.0.1/22,25 -u 53 -T 631 -U 123:124 -t 9000-9001");
    // [CLI-16]
    assert_eq!(
        shown(&c.tcp_in),
        "TCP [*]:8080  =>  80 |TCP [127.0.0.1]:22  =>  22 |TCP [127.0.0.1]:25  =>  25 |\
         TCP [*]:9000-9001  =>  9000-9001 |"
    );
    assert_eq!(shown(&c.udp_in), "UDP [*]:53  =>  53 |");
    assert_eq!(shown(&c.tcp_out), "TCP [*]%lo:631  =>  631 |");
    assert_eq!(shown(&c.udp_out), "UDP [*]%lo:123  =>  124 |");
    let c = config("-t none -u none -T none -U none");
    assert!(c.tcp_in.rules.is_empty() && c.udp_out.rules.is_empty());
    // The tables and protocols are separate.
    config("-t 80 -u 80 -T 80 -U 80");
    // Families are those of the whole line.
    let c = config("-t 80 -4");
    assert_eq!(c.tcp_in.rules[0].listen, Some(IpAddr::from(Ipv4Addr::UNSPECIFIED)));
}

// [CLI-5] [COMPAT-81] Without IPv6 sockets, IPv4 only.
#[test]
fn host_without_ipv6() {
    let env = CliEnv { ipv6: false, ..ENV };
    match outcome_on("pasta -m 1000", &env) {
        Ok(Outcome::Run { config, warnings }) => {
            assert_eq!((config.v4, config.v6, warnings.len()), (true, false, 0));
        }
        other => panic!("{other:?}"),
    }
    let error = outcome_on("pasta -6", &env).unwrap_err();
    assert_eq!(error.message, "option --ipv6-only: IPv6 is not available on this host");
}

// [COMPAT-9] Deprecated, harmless.
#[test]
fn stderr_option() {
    assert_eq!(run("-e").1, ["option --stderr is deprecated and has no effect"]);
}

// Podman's own command line.
#[test]
fn podman() {
    let c = config(
        "--config-net --dns-forward 169.254.1.1 -t none -u none -T none -U none --no-map-gw \
         --quiet --netns /run/user/1000/netns/x --pid /tmp/p",
    );
    assert_eq!(c.target, Target::Netns("/run/user/1000/netns/x".into()));
    assert_eq!(c.pid_file, Some("/tmp/p".into()));
    assert_eq!((c.verbosity, c.foreground), (Verbosity::Quiet, false));
}
