//! Command lines that are refused, and what is said.

use passt::cli::parse;

use crate::support::{ENV, error, outcome, refused};

// [CLI-1]
#[test]
fn no_mode() {
    assert_eq!(
        refused("foo --version").message,
        "cannot determine mode from program name 'foo': it must contain 'pasta' or 'passt'"
    );
    assert!(refused("").message.starts_with("cannot determine mode"));
}

// [COMPAT-4] [CLI-21] Wrong syntax: getopt's words and the usage text.
#[test]
fn syntax() {
    for (line, message) in [
        ("pasta --foo", "pasta: unrecognized option '--foo'"),
        ("/x/pasta -d --foo", "/x/pasta: unrecognized option '--foo'"),
        ("pasta -Z", "pasta: invalid option -- 'Z'"),
        ("pasta --mtu", "pasta: option '--mtu' requires an argument"),
        ("pasta -m", "pasta: option requires an argument -- 'm'"),
        ("pasta --no-tcp=1", "pasta: option '--no-tcp' doesn't allow an argument"),
        ("passt --foo", "passt: unrecognized option '--foo'"),
    ] {
        let error = refused(line);
        assert_eq!(error.message, message);
        assert!(error.usage.unwrap().starts_with("Usage: pas"), "{line}");
    }
}

#[test]
fn messages_stay_on_one_line() {
    for line in [["pasta", "--a\nb"], ["pa\nsta", "--foo"], ["pasta", "-m1\n\x1b[2J"]] {
        let argv = line.iter().map(Into::into).collect();
        let message = parse(argv, &ENV).unwrap_err().message;
        assert!(message.contains("\\n") && !message.contains(char::is_control), "{message:?}");
    }
}

// [CLI-22] [COMPAT-42] The first fault from the left is the one reported.
#[test]
fn values() {
    for (options, message) in [
        ("-m 70000", "invalid MTU '70000': must be 0 to 65521"),
        ("-m 65522 --version", "invalid MTU '65522': must be 0 to 65521"),
        ("--mtu junk --version", "invalid MTU 'junk': must be 0 to 65521"),
        ("--mtu junk --foo", "invalid MTU 'junk': must be 0 to 65521"),
        ("--mtu=", "invalid MTU '': must be 0 to 65521"),
        ("-m -1", "invalid MTU '-1': must be 0 to 65521"),
        ("--offload all", "invalid --offload 'all': must be udp, tcp or none"),
        ("--buffer-memory 1023k", "invalid --buffer-memory '1023k': must be 1M to 1G"),
        ("--buffer-memory 2G", "invalid --buffer-memory '2G': must be 1M to 1G"),
        ("--buffer-memory 64MB", "invalid --buffer-memory '64MB': must be 1M to 1G"),
        ("--buffer-memory=", "invalid --buffer-memory '': must be 1M to 1G"),
        ("-a 1.2.3", "invalid address '1.2.3': must be an IPv4 or IPv6 address"),
        ("-a 0.0.0.0", "invalid address '0.0.0.0': must not be unspecified, multicast or loopback"),
        (
            "-a 127.0.0.1/8",
            "invalid address '127.0.0.1/8': must not be unspecified, multicast or loopback",
        ),
        ("-a ff02::1", "invalid address 'ff02::1': must not be unspecified, multicast or loopback"),
        ("-a 10.0.0.1/33", "invalid address '10.0.0.1/33': prefix length must be 0 to 32"),
        ("-a 10.0.0.1/", "invalid address '10.0.0.1/': prefix length must be 0 to 32"),
        ("-a fd00::1/129", "invalid address 'fd00::1/129': prefix length must be 0 to 128"),
        ("-n 33", "invalid netmask '33': must be 0 to 32 or a contiguous mask"),
        ("-n 255.0.255.0", "invalid netmask '255.0.255.0': must be 0 to 32 or a contiguous mask"),
        (
            "-a 10.0.0.1/24 -n 16",
            "redundant netmask '16': address '10.0.0.1/24' has a prefix length already",
        ),
        (
            "-n 255.0.0.0 -a 10.0.0.1/8",
            "redundant netmask '255.0.0.0': address '10.0.0.1/8' has a prefix length already",
        ),
        (
            "-g 127.0.0.1",
            "invalid gateway address '127.0.0.1': must not be unspecified, loopback or broadcast",
        ),
        ("-g ::", "invalid gateway address '::': must not be unspecified, loopback or broadcast"),
        (
            "-g 255.255.255.255",
            "invalid gateway address '255.255.255.255': must not be unspecified, loopback or broadcast",
        ),
        ("-M 1:2", "invalid MAC address '1:2': must be six pairs of hexadecimal digits, xx:xx:..."),
        (
            "--ns-mac-addr x",
            "invalid MAC address 'x': must be six pairs of hexadecimal digits, xx:xx:...",
        ),
        ("-I abcdefghijklmnop", "invalid interface name 'abcdefghijklmnop': must be 1 to 15 bytes"),
        ("--ns-ifname=", "invalid interface name '': must be 1 to 15 bytes"),
        ("-i a/b", "invalid interface name 'a/b': not a name an interface can have"),
        ("-D foo", "invalid DNS address 'foo': must be an IPv4 or IPv6 address, or none"),
        (
            "--dns-forward none",
            "invalid --dns-forward address 'none': must be an IPv4 or IPv6 address",
        ),
        (
            "--dns-forward 127.0.0.53",
            "invalid --dns-forward address '127.0.0.53': \
          must not be unspecified, loopback or broadcast",
        ),
        (
            "--map-host-loopback 224.0.0.1",
            "invalid --map-host-loopback address '224.0.0.1': \
          must not be unspecified, loopback or multicast",
        ),
        (
            "--map-host-loopback ::1",
            "invalid --map-host-loopback address '::1': \
          must not be unspecified, loopback or multicast",
        ),
        (
            "--map-guest-addr 127.0.0.1",
            "invalid --map-guest-addr address '127.0.0.1': \
          must not be unspecified, loopback or multicast",
        ),
        ("--dns-host x", "invalid --dns-host address 'x': must be an IPv4 or IPv6 address"),
        (
            "--dns-host 0.0.0.0",
            "invalid --dns-host address '0.0.0.0': must not be unspecified or broadcast",
        ),
        ("-o 1.2.3", "invalid --outbound address '1.2.3': must be an IPv4 or IPv6 address"),
        ("--outbound=", "invalid --outbound address '': must be an IPv4 or IPv6 address"),
        (
            "-o 0.0.0.0",
            "invalid --outbound address '0.0.0.0': must not be unspecified, broadcast or multicast",
        ),
        (
            "-o 255.255.255.255",
            "invalid --outbound address '255.255.255.255': \
          must not be unspecified, broadcast or multicast",
        ),
        (
            "-o 224.0.0.1",
            "invalid --outbound address '224.0.0.1': \
          must not be unspecified, broadcast or multicast",
        ),
        (
            "-o ::",
            "invalid --outbound address '::': must not be unspecified, loopback or multicast",
        ),
        (
            "-o ::1",
            "invalid --outbound address '::1': must not be unspecified, loopback or multicast",
        ),
        (
            "-o ff02::1",
            "invalid --outbound address 'ff02::1': must not be unspecified, loopback or multicast",
        ),
        (
            "-o ::ffff:10.0.0.1",
            "invalid --outbound address '::ffff:10.0.0.1': \
          must not be an IPv4 address in the form of IPv6",
        ),
        (
            "-o ::10.0.0.1",
            "invalid --outbound address '::10.0.0.1': \
          must not be an IPv4 address in the form of IPv6",
        ),
        ("--outbound-if4=", "invalid interface name '': must be 1 to 15 bytes"),
        (
            "--outbound-if6 abcdefghijklmnop",
            "invalid interface name 'abcdefghijklmnop': must be 1 to 15 bytes",
        ),
        ("--outbound-if4 .", "invalid interface name '.': not a name an interface can have"),
        ("--hostname=", "invalid host name '': must be 1 to 253 bytes"),
        ("--search=", "invalid search domain '': must be domain names, or none"),
        ("-S a..b", "invalid search domain 'a..b': must be domain names, or none"),
        ("-S .", "invalid search domain '.': must be domain names, or none"),
        (
            "-S a -S b -S c -S none -S 1 -S 2 -S 3 -S 4 -S 5 -S 6 -S 7",
            "too many search domains: '7' is one more than 6",
        ),
        ("--fqdn=", "invalid --fqdn '': must be a domain name"),
        ("--fqdn a..b", "invalid --fqdn 'a..b': must be a domain name"),
        ("--no-copy-routes", "option --no-copy-routes needs --config-net"),
        ("--no-copy-addrs", "option --no-copy-addrs needs --config-net"),
        ("--pid=", "invalid --pid path \"\": must be 1 to 4095 bytes"),
        ("--netns=", "invalid --netns path \"\": must be 1 to 4095 bytes"),
        ("--runas nosuch", "invalid --runas 'nosuch': no user 'nosuch'"),
        ("--runas root", "invalid --runas 'root': user 'root' is root"),
        ("--runas toor:1", "invalid --runas 'toor:1': user 'toor' is root"),
        ("--runas 1:nosuch", "invalid --runas '1:nosuch': no group 'nosuch'"),
        ("--runas 1:", "invalid --runas '1:': no group ''"),
        ("--runas 4294967295", "invalid --runas '4294967295': no user '4294967295'"),
    ] {
        assert_eq!(error(options), message, "{options}");
    }
    assert!(error(&format!("--pid /{}", "x".repeat(4095))).contains("must be 1 to 4095 bytes"));
}

// [CLI-10] [CLI-11]
#[test]
fn operands() {
    for (options, message) in [
        ("--netns foo bar", "unexpected argument \"bar\": not allowed with --netns"),
        ("--netns foo 123", "unexpected argument \"123\": not allowed with --netns"),
        ("2147483648", "invalid PID '2147483648': must be 1 to 2147483647"),
        ("99999999999999999999", "invalid PID '99999999999999999999': must be 1 to 2147483647"),
        ("0", "invalid PID '0': must be 1 to 2147483647"),
    ] {
        assert_eq!(error(options), message, "{options}");
    }
    // [CLI-9]
    assert_eq!(refused("passt foo").message, "unexpected argument \"foo\"");
}

// [PORT-3] Faults in rules name the option too; the grammar has its own tests.
#[test]
fn forwarding() {
    for (options, message) in [
        ("-t 0", "invalid port specifier '0': cannot map from port 0, in option '-t 0'"),
        (
            "-u 65536",
            "invalid port specifier '65536': a port must be 1 to 65535, in option '-u 65536'",
        ),
        (
            "-T 127.0.0.1/80",
            "invalid port specifier '127.0.0.1/80': \
          listening address not allowed here, in option '-T 127.0.0.1/80'",
        ),
        (
            "-t 80 -t 127.0.0.1/80:81",
            "forwarding rule 'TCP [127.0.0.1]:80  =>  81' \
          conflicts with 'TCP [*]:80  =>  80', in option '-t 127.0.0.1/80:81'",
        ),
        (
            "-t 80 -t none",
            "'none' conflicts with earlier rule 'TCP [*]:80  =>  80', in option '-t none'",
        ),
        (
            "-t [::1]/80 -4",
            "forwarding rule 'TCP [::1]:80  =>  80': IPv6 is not enabled, \
          in option '-t [::1]/80'",
        ),
        (
            "-6 -u 127.0.0.1/80",
            "forwarding rule 'UDP [127.0.0.1]:80  =>  80': \
          IPv4 is not enabled, in option '-u 127.0.0.1/80'",
        ),
        ("--no-tcp -t 80", "TCP is not enabled, in option '-t 80'"),
        ("-T 80 --no-tcp", "TCP is not enabled, in option '-T 80'"),
        ("-u none -U 53 --no-udp", "UDP is not enabled, in option '-U 53'"),
    ] {
        assert_eq!(error(options), message, "{options}");
    }
    let long = "x".repeat(254);
    assert!(error(&format!("-H {long}")).contains("must be 1 to 253 bytes"));
}

// Known by name, refused by name and value, where they stand.
#[test]
fn not_supported() {
    for (option, named) in [
        ("--conf-path x", "--conf-path 'x'"),
        ("--print-capabilities", "--print-capabilities"),
        ("-c x", "--conf-path 'x'"),
    ] {
        let message = format!("option {named} is not supported yet");
        assert_eq!(error(option), message);
        assert_eq!(error(&format!("{option} --version")), message);
    }
}

#[test]
fn other_mode() {
    for (option, long) in [
        ("--socket x", "socket"),
        ("--socket-path x", "socket"),
        ("-s x", "socket"),
        ("--fd 3", "fd"),
        ("-F 0", "fd"),
        ("--one-off", "one-off"),
        ("-1", "one-off"),
        ("--repair-path x", "repair-path"),
        ("--migrate-exit", "migrate-exit"),
        ("--migrate-no-linger", "migrate-no-linger"),
    ] {
        assert_eq!(error(option), format!("option --{long} is for passt mode only"));
    }
    for option in [
        "-I x",
        "--netns x",
        "--userns x",
        "--netns-only",
        "--no-netns-quit",
        "--config-net",
        "--no-copy-routes",
        "--no-copy-addrs",
        "--ns-mac-addr x",
        "--splice-only",
        "--host-lo-to-ns-lo",
        "-T 1",
        "-U 1",
        "--dhcp-dns",
        "--dhcp-search",
    ] {
        let message = refused(&format!("passt {option}")).message;
        assert!(message.ends_with("is for pasta mode only"), "{option}: {message}");
    }
}

// [SPLICE-3] In whichever order.
#[test]
fn splicing() {
    for line in ["--no-splice --host-lo-to-ns-lo", "--host-lo-to-ns-lo --no-splice"] {
        let message = "option --host-lo-to-ns-lo: not allowed with --no-splice";
        assert_eq!(error(line), message);
    }
    let message = "option --splice-only: not allowed with --no-splice";
    assert_eq!(error("--no-splice --splice-only"), message);
}

// [CLI-1] [CLI-9] What passt mode does not do yet is named, also if it is what chose the mode.
#[test]
fn passt_mode() {
    for (line, message) in [
        ("passt --vhost-user", "option --vhost-user is not supported yet"),
        ("pasta --vhost-user", "option --vhost-user is not supported yet"),
        ("passt --repair-path x", "option --repair-path 'x' is not supported yet"),
        ("passt --migrate-exit", "option --migrate-exit is not supported yet"),
        ("passt --migrate-no-linger", "option --migrate-no-linger is not supported yet"),
        ("passt --print-capabilities", "option --print-capabilities is not supported yet"),
        (
            "passt -t auto",
            "port specifier 'auto': 'auto' is for pasta mode only, in option '-t auto'",
        ),
        ("passt --host-lo-to-ns-lo", "option --host-lo-to-ns-lo is for pasta mode only"),
        ("passt sh", "unexpected argument \"sh\""),
        ("passt -1 7", "unexpected argument \"7\""),
        ("passt --offload none", "option --offload is for pasta mode only"),
        ("passt --fd x", "invalid descriptor 'x': must be 0 to 2147483647"),
        ("passt --fd -1", "invalid descriptor '-1': must be 0 to 2147483647"),
        ("passt --fd 2147483648", "invalid descriptor '2147483648': must be 0 to 2147483647"),
        ("passt --socket=", "invalid socket path \"\": must have 1 to 107 bytes"),
    ] {
        assert_eq!(refused(line).message, message, "{line}");
    }
    let long = "x".repeat(108);
    assert!(refused(&format!("passt -s {long}")).message.ends_with("must have 1 to 107 bytes"));
    assert!(outcome(&format!("passt -s {}", &long[1..])).is_ok());
}

// An argument that must be text and is not is named.
#[test]
fn not_utf8() {
    use std::os::unix::ffi::OsStringExt;
    let junk = std::ffi::OsString::from_vec(vec![b'1', 0xff]);
    let argv = vec!["pasta".into(), "--mtu".into(), junk];
    let error = passt::cli::parse(argv, &crate::support::ENV).unwrap_err();
    assert_eq!(error.message, "invalid argument \"1\\xFF\": not valid UTF-8");
    // As an option it is unknown, and as part of one too.
    for word in [vec![b'-', 0xff], vec![b'-', b'-', 0xff], vec![b'-', b'-', b'f', 0xff, b'=', b'1']]
    {
        let argv = vec!["pasta".into(), std::ffi::OsString::from_vec(word)];
        let error = passt::cli::parse(argv, &crate::support::ENV).unwrap_err();
        assert!(error.usage.is_some(), "{error}");
    }
}
