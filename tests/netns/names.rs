//! Name resolution through `--dns-forward`.

use std::fs;
use std::process::Stdio;

use crate::lab::{Helper, Lab, SOON, eventually, ip_batch};
use crate::ns::Ns;
use crate::pasta::Guest;

/// A name server on one address and port 53 of a namespace; ends with the test.
fn name_server(lab: &Lab, ns: &Ns, address: &str, answer: &str) -> Helper {
    let log = lab.fresh("dnsmasq");
    let child = ns
        .command("dnsmasq")
        .args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"])
        .args(["--user=root", "--group=", "--pid-file=", "--bind-interfaces", "--log-facility=-"])
        .arg(format!("--listen-address={address}"))
        .arg(format!("--host-record=www.lab.example,{answer}"))
        .arg(format!("--txt-record=long.lab.example,{}", vec!["x".repeat(200); 20].join(",")))
        .stdin(Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .expect("dnsmasq starts (package dnsmasq-base)");
    let mut server = Helper(child);
    eventually("dnsmasq starts", SOON, || {
        let said = fs::read_to_string(&log).unwrap();
        assert!(server.0.try_wait().unwrap().is_none(), "dnsmasq: {said}");
        said.contains("started")
    });
    server
}

/// One question over UDP and TCP.
#[track_caller]
fn resolves(guest: &Guest, server: &str, answer: &str) {
    for transport in ["+notcp", "+tcp"] {
        let line = format!("dig +short +tries=1 +time=3 {transport} @{server} www.lab.example A");
        assert_eq!(guest.run(&line).trim(), answer, "{line}");
    }
    // Too long for UDP: the answer says so and dig asks again over TCP.
    let long = guest.run(&format!("dig +short +tries=1 +time=3 @{server} long.lab.example TXT"));
    assert_eq!(long.matches('x').count(), 4000, "{long}");
}

#[test]
fn queries_go_to_the_hosts_name_server() {
    // [CLI table --dns-forward] [NL-12] [COMPAT-58]
    Lab::run(|lab| {
        ip_batch("remote", "addr add 10.9.0.53/24 dev rem0");
        let _server = name_server(lab, &lab.remote, "10.9.0.53", "192.0.2.1");
        let guest = lab.guest("-t none -u none -T none -U none --dns-forward 169.254.1.1");
        resolves(&guest, "169.254.1.1", "192.0.2.1");
    });
}

#[test]
fn queries_reach_a_stub_resolver_on_the_hosts_loopback() {
    // [NL-12] [NL-14] [COMPAT-58]: also with the gateway mapping off, as podman does
    Lab::run(|lab| {
        fs::write("/etc/resolv.conf", "nameserver 127.0.0.53\n").unwrap();
        let _server = name_server(lab, &lab.host(), "127.0.0.53", "192.0.2.2");
        for extra in ["", "--no-map-gw"] {
            let options = "-t none -u none -T none -U none --dns-forward 169.254.1.1";
            let guest = lab.guest(&format!("{options} {extra}"));
            resolves(&guest, "169.254.1.1", "192.0.2.2");
        }
    });
}

#[test]
fn queries_over_ipv6_go_to_the_hosts_name_server() {
    // [CLI table --dns-forward] [NL-12]
    Lab::run(|lab| {
        ip_batch("remote", "addr add 2001:db8:9::53/64 dev rem0 nodad");
        let _server = name_server(lab, &lab.remote, "2001:db8:9::53", "192.0.2.3");
        let guest = lab.guest("-t none -u none -T none -U none --dns-forward fd00::53");
        resolves(&guest, "fd00::53", "192.0.2.3");
    });
}

#[test]
fn host_name_server_can_be_chosen() {
    // [CLI table --dns-host]
    Lab::run(|lab| {
        ip_batch("remote", "addr add 10.9.0.54/24 dev rem0");
        let _server = name_server(lab, &lab.remote, "10.9.0.54", "192.0.2.4");
        let options = "-t none -u none -T none -U none --dns-forward 169.254.1.1";
        let guest = lab.guest(&format!("{options} --dns-host 10.9.0.54"));
        resolves(&guest, "169.254.1.1", "192.0.2.4");
    });
}
