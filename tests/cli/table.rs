//! Every option of the modes that exist, in every spelling: a row each.
//!
//! What an option *does* is tested elsewhere. Here: that each way to write it means the same, that
//! it means something, that it is refused where it belongs to the other mode, that a wrong or
//! missing argument is one clear line and status 1. [CLI-2] [CLI-3] [CLI-21] [COMPAT-7] [COMPAT-42]

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use passt::cli::Outcome;

use crate::support::{outcome, printed, refused};

/// Where an option belongs.
#[derive(Clone, Copy, PartialEq)]
enum In {
    Both,
    Pasta,
    Passt,
}
use In::{Both, Passt, Pasta};

/// One option.
struct Row {
    long: &'static str,
    short: Option<char>,
    mode: In,
    /// Arguments that are accepted, the first of which is not the default. None for a flag.
    good: &'static [&'static str],
    /// Arguments that are not, and what the message has to contain.
    bad: &'static [(&'static str, &'static str)],
    /// What has to stand before it.
    before: &'static str,
    /// Accepted without any effect, or with that of a default.
    inert: bool,
}

const fn flag(long: &'static str, short: Option<char>, mode: In) -> Row {
    Row { long, short, mode, good: &[], bad: &[], before: "", inert: false }
}

const fn value(
    long: &'static str,
    short: Option<char>,
    mode: In,
    good: &'static [&'static str],
    bad: &'static [(&'static str, &'static str)],
) -> Row {
    Row { long, short, mode, good, bad, before: "", inert: false }
}

const fn after(before: &'static str, row: Row) -> Row {
    Row { before, ..row }
}

const fn inert(row: Row) -> Row {
    Row { inert: true, ..row }
}

/// Everything but `--help` and `--version`, which end the run.
const ROWS: &[Row] = &[
    flag("debug", Some('d'), Both),
    flag("trace", None, Both),
    after("-f", value("stats", None, Both, &["5", "0"], &[("x", "'x'"), ("-1", "'-1'")])),
    flag("quiet", Some('q'), Both),
    flag("foreground", Some('f'), Both),
    inert(flag("stderr", Some('e'), Both)),
    value("log-file", Some('l'), Both, &["/x", "y"], &[("", "1 to 4095 bytes")]),
    value(
        "log-size",
        None,
        Both,
        &["40960", "0xa000", "0120000", "10000000"],
        &[("40959", "'40959'"), ("40960k", "'40960k'"), ("", "''"), ("x", "'x'")],
    ),
    value(
        "runas",
        None,
        Both,
        &["1000", "1000:100", "alice", "alice:staff", "0x10:staff"],
        &[("nosuch", "'nosuch'"), ("root", "is root"), ("1:nosuch", "'nosuch'")],
    ),
    value("pcap", Some('p'), Both, &["/x"], &[("", "1 to 4095 bytes")]),
    value("pid", Some('P'), Both, &["/x"], &[("", "1 to 4095 bytes")]),
    value(
        "mtu",
        Some('m'),
        Both,
        &["1500", "0", "65521", "0x5dc", "02734"],
        &[("65522", "'65522'"), ("x", "'x'"), ("", "''"), ("1500x", "'1500x'")],
    ),
    value(
        "address",
        Some('a'),
        Both,
        &["10.0.0.5", "10.0.0.5/24", "10.0.2.0", "fd00::5", "[fd00::5]/64", "::ffff:10.0.0.7"],
        &[
            ("1.2.3", "'1.2.3'"),
            ("0.0.0.0", "unspecified"),
            ("::", "unspecified"),
            ("127.0.0.1", "loopback"),
            ("::1", "loopback"),
            ("224.0.0.1", "multicast"),
            ("ff02::1", "multicast"),
            ("10.0.0.1/33", "0 to 32"),
            ("fd00::1/129", "0 to 128"),
        ],
    ),
    value(
        "netmask",
        Some('n'),
        Both,
        &["24", "255.255.255.0", "0", "32"],
        &[("33", "'33'"), ("255.0.255.0", "'255.0.255.0'"), ("", "''")],
    ),
    value(
        "mac-addr",
        Some('M'),
        Both,
        &["02:00:00:00:00:01"],
        &[("2:0:0:0:0:1", "'2:0:0:0:0:1'"), ("02-00-00-00-00-01", "MAC"), ("x", "'x'")],
    ),
    value(
        "gateway",
        Some('g'),
        Both,
        &["10.0.0.1", "fe80::1", "[fe80::1]"],
        &[
            ("0.0.0.0", "unspecified"),
            ("255.255.255.255", "broadcast"),
            ("127.1.2.3", "loopback"),
            ("::", "unspecified"),
            ("::1", "loopback"),
        ],
    ),
    value("interface", Some('i'), Both, &["eth0"], &[("", "''"), ("sixteen-letters-", "15")]),
    value(
        "outbound",
        Some('o'),
        Both,
        &["10.0.0.1", "2001:db8::1"],
        &[
            ("0.0.0.0", "unspecified"),
            ("255.255.255.255", "broadcast"),
            ("224.0.0.1", "multicast"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::ffff:10.0.0.1", "IPv4"),
            ("::10.0.0.1", "IPv4"),
            ("ff02::1", "multicast"),
        ],
    ),
    value("outbound-if4", None, Both, &["eth0"], &[("", "''"), ("sixteen-letters-", "15")]),
    value("outbound-if6", None, Both, &["eth0"], &[("", "''"), ("a/b", "'a/b'")]),
    value(
        "dns",
        Some('D'),
        Both,
        &["10.0.0.53", "fd00::53", "none", "127.0.0.53"],
        &[("x", "'x'")],
    ),
    value(
        "dns-forward",
        None,
        Both,
        &["169.254.1.1", "fd00::53"],
        &[("0.0.0.0", "unspecified"), ("127.0.0.1", "loopback"), ("none", "'none'")],
    ),
    value(
        "dns-host",
        None,
        Both,
        &["10.0.0.53", "127.0.0.53", "::1"],
        &[("0.0.0.0", "unspecified"), ("255.255.255.255", "broadcast"), ("none", "'none'")],
    ),
    value("search", Some('S'), Both, &["a.example", "none"], &[("", "''"), ("a..b", "'a..b'")]),
    flag("no-dhcp-dns", None, Passt),
    inert(flag("no-dhcp-dns", None, Pasta)),
    flag("no-dhcp-search", None, Passt),
    inert(flag("no-dhcp-search", None, Pasta)),
    flag("dhcp-dns", None, Pasta),
    flag("dhcp-search", None, Pasta),
    flag("no-tcp", None, Both),
    flag("no-udp", None, Both),
    flag("no-icmp", None, Both),
    flag("no-dhcp", None, Both),
    flag("no-ndp", None, Both),
    flag("no-dhcpv6", None, Both),
    flag("no-ra", None, Both),
    flag("freebind", None, Both),
    value(
        "map-host-loopback",
        None,
        Both,
        &["169.254.1.2", "fd00::2", "none"],
        &[("0.0.0.0", "unspecified"), ("127.0.0.1", "loopback"), ("224.0.0.1", "multicast")],
    ),
    flag("no-map-gw", None, Both),
    value(
        "map-guest-addr",
        None,
        Both,
        &["169.254.1.2", "fd00::2"],
        &[("0.0.0.0", "unspecified"), ("::1", "loopback"), ("ff02::1", "multicast")],
    ),
    flag("ipv4-only", Some('4'), Both),
    flag("ipv6-only", Some('6'), Both),
    value("hostname", Some('H'), Both, &["box"], &[("", "1 to 253 bytes")]),
    value("fqdn", None, Both, &["box.example"], &[("", "''"), ("a..b", "'a..b'")]),
    value("tcp-ports", Some('t'), Both, PORTS, BAD_PORTS),
    value("udp-ports", Some('u'), Both, PORTS, BAD_PORTS),
    value("tcp-ns", Some('T'), Pasta, NS_PORTS, BAD_NS_PORTS),
    value("udp-ns", Some('U'), Pasta, NS_PORTS, BAD_NS_PORTS),
    flag("no-splice", None, Pasta),
    inert(flag("no-splice", None, Passt)),
    flag("chroot-fallback", None, Both),
    flag("landlock-fallback", None, Both),
    value("socket", Some('s'), Passt, &["/x", "y"], &[("", "1 to 107 bytes")]),
    value("socket-path", None, Passt, &["/x"], &[("", "1 to 107 bytes")]),
    value(
        "fd",
        Some('F'),
        Passt,
        &["3", "0", "0x10"],
        &[("x", "'x'"), ("-1", "'-1'"), ("2147483648", "'2147483648'")],
    ),
    flag("one-off", Some('1'), Passt),
    value("ns-ifname", Some('I'), Pasta, &["tap0"], &[("", "''"), ("sixteen-letters-", "15")]),
    value("userns", None, Pasta, &["/x"], &[("", "1 to 4095 bytes")]),
    value("netns", None, Pasta, &["/x", "name"], &[("", "1 to 4095 bytes")]),
    flag("netns-only", None, Pasta),
    flag("no-netns-quit", None, Pasta),
    flag("config-net", None, Pasta),
    after("--config-net", flag("no-copy-routes", None, Pasta)),
    after("--config-net", flag("no-copy-addrs", None, Pasta)),
    value("ns-mac-addr", None, Pasta, &["02:00:00:00:00:01"], &[("x", "'x'")]),
    flag("splice-only", None, Pasta),
    flag("host-lo-to-ns-lo", None, Pasta),
    // Ours.
    value("offload", None, Pasta, &["none", "tcp"], &[("x", "'x'"), ("", "''")]),
    value("buffer-memory", None, Both, &["1M", "2048k"], &[("1k", "'1k'"), ("2G", "'2G'")]),
];

/// [CLI-6] [COMPAT-17] [COMPAT-18] [COMPAT-19]
const PORTS: &[&str] = &[
    "8080",
    "8080:80",
    "8080-8080:80-80",
    "8000-8010:9000-9010,~8005",
    "22,80,443",
    "~8080",
    "all",
    "127.0.0.1/8080",
    "127.0.0.1/8080:80",
    "127.0.0.1%eth0/8080",
    "%eth0/8080",
    "*%eth0/8080",
    "[::1]/8080",
    "::1/8080:80",
    "fd00::2%eth0/2000-2010:3000-3010,~2005",
    "0.0.0.0/8080:10.0.0.1/80",
];

const BAD_PORTS: &[(&str, &str)] = &[
    ("", "''"),
    ("0", "'0'"),
    ("65536", "'65536'"),
    ("99999", "99999"),
    ("100-50", "100-50"),
    ("80:80:80", "80:80:80"),
    ("8080/tcp", "8080/tcp"),
    ("http", "http"),
    ("80-82:90-91", "80-82:90-91"),
    ("10001,192.0.2.2/10002", "10001,192.0.2.2/10002"),
];

const NS_PORTS: &[&str] = &["8080", "8081:8080", "5201-5203", "none", "~8080", "80,auto"];

const BAD_NS_PORTS: &[(&str, &str)] =
    &[("127.0.0.1/80", "listening address"), ("0", "'0'"), ("x", "x")];

impl Row {
    fn programs(&self) -> &'static [&'static str] {
        match self.mode {
            Both => &["pasta", "passt"],
            Pasta => &["pasta"],
            Passt => &["passt"],
        }
    }

    fn values(&self) -> impl Iterator<Item = &'static str> {
        self.good.iter().copied()
    }
}

/// What a command line means; the words are those of `line` and then `more`. For pasta it is about
/// a process, where that is possible: for a command some options would not matter.
fn meaning(line: &str, more: &[&str]) -> String {
    let mut words: Vec<std::ffi::OsString> = line.split_whitespace().map(Into::into).collect();
    words.extend(more.iter().map(Into::into));
    let named = |w: &&str| matches!(*w, "--netns" | "--") || w.starts_with("--netns=");
    if line.starts_with("pasta") && !more.iter().any(named) {
        words.push("7".into());
    }
    match passt::cli::parse(words, &crate::support::ENV) {
        Ok(Outcome::Run { config, .. }) => format!("{config:?}"),
        other => panic!("{line} {more:?}: {other:?}"),
    }
}

fn message(line: &str, more: &[&str]) -> passt::cli::CliError {
    let mut words: Vec<std::ffi::OsString> = line.split_whitespace().map(Into::into).collect();
    words.extend(more.iter().map(Into::into));
    match passt::cli::parse(words, &crate::support::ENV) {
        Err(error) => error,
        other => panic!("{line} {more:?}: {other:?}"),
    }
}

/// The option's name as long as it has to be: its shortest beginning that no other option has.
fn shortest(long: &str) -> Option<&str> {
    let names: BTreeSet<&str> = ROWS.iter().map(|row| row.long).chain(REFUSED).collect();
    // Two names of one option are not ambiguous.
    let others =
        || names.iter().filter(|n| **n != long && !(long == "socket" && **n == "socket-path"));
    (1..long.len())
        .map(|n| &long[..n])
        .find(|prefix| others().all(|other| !other.starts_with(prefix)))
}

/// Known, and refused by name.
const REFUSED: [&str; 8] = [
    "help",
    "version",
    "conf-path",
    "vhost-user",
    "print-capabilities",
    "repair-path",
    "migrate-exit",
    "migrate-no-linger",
];

#[test]
fn every_spelling_means_the_same() {
    for row in ROWS {
        let Row { long, before, .. } = row;
        for program in row.programs() {
            let line = &format!("{program} {before}");
            let values: Vec<Option<&str>> =
                if row.good.is_empty() { vec![None] } else { row.values().map(Some).collect() };
            for (n, value) in values.into_iter().enumerate() {
                let full = format!("--{long}");
                let spelled = match value {
                    Some(value) => meaning(line, &[&full, value]),
                    None => meaning(line, &[&full]),
                };
                if n == 0 {
                    let changes = spelled != meaning(line, &[]);
                    assert_eq!(changes, !row.inert, "{line} {full} {value:?}");
                }
                let mut ways: Vec<Vec<String>> = Vec::new();
                if let Some(value) = value {
                    ways.push(vec![format!("--{long}={value}")]);
                }
                let with = |word: String| -> Vec<String> {
                    std::iter::once(word).chain(value.map(str::to_owned)).collect()
                };
                ways.extend(shortest(long).map(|prefix| with(format!("--{prefix}"))));
                if let Some(short) = row.short {
                    ways.push(with(format!("-{short}")));
                    if let Some(value) = value.filter(|value| !value.is_empty()) {
                        ways.push(vec![format!("-{short}{value}")]);
                    }
                }
                for way in ways {
                    let way: Vec<&str> = way.iter().map(String::as_str).collect();
                    let same = meaning(line, &way) == spelled;
                    assert!(same, "{line} {way:?}: {}\n{spelled}", meaning(line, &way));
                    // In front of what is not an option.
                    if *program == "pasta" && *long != "netns" {
                        let words = [&way[..], &["--", "-4"]].concat();
                        assert!(meaning(line, &words).contains("Command([\"-4\"])"), "{words:?}");
                    }
                }
                // Clustered behind a flag, with the argument glued on or not.
                if let Some(short) = row.short {
                    let plain = match value {
                        Some(value) => meaning(line, &["-q", &full, value]),
                        None => meaning(line, &["-q", &full]),
                    };
                    let rest = value.unwrap_or_default();
                    assert_eq!(meaning(line, &[&format!("-q{short}{rest}")]), plain, "{long}");
                }
            }
        }
    }
}

#[test]
fn the_last_of_several_counts() {
    // [CLI-3] [COMPAT-8] What adds up is elsewhere.
    let adds = ["tcp-ports", "udp-ports", "tcp-ns", "udp-ns", "dns", "search"];
    for row in ROWS.iter().filter(|row| !adds.contains(&row.long)) {
        for program in row.programs() {
            let line = &format!("{program} {}", row.before);
            let long = format!("--{}", row.long);
            let Some(first) = row.good.first() else {
                assert_eq!(meaning(line, &[&long, &long]), meaning(line, &[&long]), "{long}");
                continue;
            };
            for value in row.values() {
                // Of each family, where there are two.
                let v6 = |text: &str| text.contains("::") && !text.contains("ffff");
                if v6(first) != v6(value) || value == "none" {
                    continue;
                }
                let (both, one) = ([&long, *first, &long, value], [&long, value]);
                assert_eq!(meaning(line, &both), meaning(line, &one), "{both:?}");
            }
        }
    }
}

#[test]
fn wrong_arguments_are_refused_by_name_and_value() {
    for row in ROWS {
        let long = format!("--{}", row.long);
        for program in row.programs() {
            let line = &format!("{program} {}", row.before);
            if row.good.is_empty() {
                let error = message(line, &[&format!("{long}=x")]);
                assert!(
                    error.message.ends_with(&format!("option '{long}' doesn't allow an argument"))
                );
                assert!(error.usage.is_some());
                continue;
            }
            let error = message(line, &[&long]);
            // The other name of an option is told by its first.
            let told = long.replace("socket-path", "socket");
            let wanted = format!("option '{told}' requires an argument");
            assert!(error.message.ends_with(&wanted), "{error:?}");
            assert!(error.usage.is_some());
            if let Some(short) = row.short {
                let error = message(line, &[&format!("-{short}")]);
                let wanted = format!("option requires an argument -- '{short}'");
                assert!(error.message.ends_with(&wanted), "{error:?}");
            }
            for (value, fragment) in row.bad {
                let error = message(line, &[&format!("{long}={value}")]);
                assert!(error.message.contains(fragment), "{long}={value}: {error:?}");
                assert!(!error.message.contains('\n') && error.usage.is_none(), "{error:?}");
            }
        }
    }
    assert!(message("pasta", &["-t", "::/"]).message.contains("::/"));
}

#[test]
fn each_mode_has_its_options() {
    for row in ROWS {
        let argument = row.good.first().map(|value| format!(" {value}")).unwrap_or_default();
        let (other, mode) = match row.mode {
            Pasta => ("passt", "pasta"),
            Passt => ("pasta", "passt"),
            Both => continue,
        };
        if ROWS.iter().any(|r| r.long == row.long && r.mode != row.mode) {
            continue;
        }
        let error = refused(&format!("{other} --{}{argument}", row.long));
        assert!(error.message.ends_with(&format!("is for {mode} mode only")), "{error:?}");
        assert!(error.message.contains("option --"), "{error:?}");
    }
}

#[test]
fn help_and_table_are_about_the_same_options() {
    for program in ["pasta", "passt"] {
        let help = printed(&format!("{program} --help"));
        let listed: BTreeSet<&str> = help
            .lines()
            .filter(|line| line.trim_start().starts_with('-') && !line.trim().starts_with("-t "))
            .filter_map(|line| line.split_whitespace().find_map(|word| word.strip_prefix("--")))
            .collect();
        let known: BTreeSet<&str> = ROWS
            .iter()
            .filter(|row| row.programs().contains(&program))
            .map(|row| row.long)
            .chain(["help", "version"])
            .collect();
        let unknown: Vec<_> = listed.difference(&known).collect();
        assert!(unknown.is_empty(), "{program}: not in the table: {unknown:?}");
        // What only repeats a default, or is out of use, need not be told.
        let untold = ["stderr", "no-dhcp-dns", "no-dhcp-search", "no-copy-routes", "no-copy-addrs"];
        let missing: Vec<_> = known
            .difference(&listed)
            .filter(|o| !untold.contains(o) && **o != "socket-path")
            .collect();
        assert!(
            missing.is_empty() || program == "passt" && missing == [&"no-splice"],
            "{missing:?}"
        );
    }
}

// The defaults of each mode, where they differ.
#[test]
fn defaults() {
    let config = |line: &str| match outcome(line) {
        Ok(Outcome::Run { config, .. }) => *config,
        other => panic!("{line}: {other:?}"),
    };
    let (pasta, passt) = (config("pasta"), config("passt"));
    for (c, auto) in [(&pasta, true), (&passt, false)] {
        for spec in [&c.tcp_in, &c.udp_in] {
            assert_eq!((spec.is_auto(), spec.rules.is_empty()), (auto, !auto));
        }
        assert_eq!((c.tcp_out.is_auto(), c.udp_out.is_auto()), (auto, auto));
        // What a namespace has from the host, a machine has to be told.
        assert_eq!((c.advertise_dns, c.advertise_search), (!auto, !auto));
        assert_eq!((c.mtu, c.log_size, c.log_file.is_none()), (65_520, 1 << 20, true));
        assert_eq!(c.our_mac.to_string(), "9a:55:9a:55:9a:55");
        assert!(c.v4 && c.v6 && c.map_gw && c.dhcp && c.dhcpv6 && c.ndp && c.ra);
        assert!(!c.one_off && !c.config_net && !c.freebind && !c.splice_only && c.netns_quit);
        assert!(c.stats.is_none() && c.pcap.is_none() && c.pid_file.is_none() && c.runas.is_none());
        // A shell owns the terminal.
        assert_eq!(c.foreground, auto);
    }
    assert!(!config("pasta 1").foreground);
}

// What contradicts another option, in whichever order unless said otherwise.
#[test]
fn conflicts() {
    for (line, fragment) in [
        ("pasta -a 10.0.0.1/24 -n 16", "redundant netmask"),
        ("pasta -n 16 -a 10.0.0.1/24", "redundant netmask"),
        ("pasta --no-splice --splice-only", "--no-splice"),
        ("pasta --splice-only --no-splice", "--no-splice"),
        ("pasta --no-splice --host-lo-to-ns-lo", "--no-splice"),
        ("pasta --host-lo-to-ns-lo --no-splice", "--no-splice"),
        ("pasta --no-copy-routes", "needs --config-net"),
        ("pasta --no-copy-addrs", "needs --config-net"),
        ("pasta --stats 1 -f", "needs --foreground before it"),
        ("passt --stats 1", "needs --foreground before it"),
        ("pasta --netns x true", "not allowed with --netns"),
        ("pasta --netns x 1", "not allowed with --netns"),
        ("passt true", "unexpected argument"),
        ("passt -t auto", "'auto' is for pasta mode only"),
        ("pasta -t 80 -t none", "'none' conflicts"),
        ("pasta -t 80 -t 80", "conflicts"),
        ("pasta -t 80 -t 127.0.0.1/80:81", "conflicts"),
        ("pasta --no-tcp -t 80", "TCP is not enabled"),
        ("pasta -U 53 --no-udp", "UDP is not enabled"),
        ("pasta -4 -t [::1]/80", "IPv6 is not enabled"),
        ("pasta -t 127.0.0.1/80 -6", "IPv4 is not enabled"),
        ("pasta -S a -S b -S c -S d -S e -S f -S g", "too many search domains"),
    ] {
        let error = refused(line);
        assert!(error.message.contains(fragment) && error.usage.is_none(), "{line}: {error:?}");
    }
    for line in ["pasta -t none -t 80", "passt -4 -6", "passt -s /x --fd 3", "passt --fd 3 -s /x"] {
        assert!(outcome(line).is_ok(), "{line}");
    }
}

// [CLI-12] The programs themselves: status 1 exactly, one line, on standard error.
#[test]
fn the_programs_refuse_with_status_1() {
    let run = |program: &str, args: &[&str]| {
        let path = match program {
            "pasta" => env!("CARGO_BIN_EXE_pasta"),
            _ => env!("CARGO_BIN_EXE_passt"),
        };
        let output = Command::new(path).args(args).stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{program} {args:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{program} {args:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    for row in ROWS {
        let program = row.programs()[0];
        let long = format!("--{}", row.long);
        let before: Vec<&str> = row.before.split_whitespace().collect();
        if let Some((bad, fragment)) = row.bad.iter().find(|(bad, _)| *bad != "root") {
            // Later faults do not matter.
            let args = [&before[..], &[&long, bad, "--netns", "/nonexistent"]].concat();
            let args = if program == "passt" { &args[..args.len() - 2] } else { &args[..] };
            let stderr = run(program, args);
            assert_eq!(stderr.lines().count(), 1, "{stderr}");
            // The fragment of `nosuch` is that of a host where nobody is called that.
            assert!(stderr.contains(fragment), "{long} {bad}: {stderr}");
        }
    }
    let stderr = run("pasta", &["--no-such-option"]);
    assert!(stderr.contains("unrecognized option '--no-such-option'\nUsage: pasta "), "{stderr}");
    let stderr = run("passt", &["--netns", "x"]);
    assert_eq!(stderr, "option --netns is for pasta mode only\n");
}
