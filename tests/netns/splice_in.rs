//! What comes from the host's loopback interface to a forwarded port: which way it takes, and what
//! the server in the namespace sees.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::lab::{
    GATEWAY4, HOST4, HOST6, Helper, Lab, REMOTE4, SOON, at, eventually, ip, output_within,
};
use crate::net::{accept, connect, listen, pass, roundtrip, try_connect, udp};
use crate::pasta::children;
use crate::udp::echo;
use crate::walls::assert_powerless;

const LO4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LO6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const OTHER_LO4: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 5));
const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

const PORTS: &str = "-t 8080:80 -u 8080:80 -T none -U none";

fn any(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { ANY4 } else { ANY6 }
}

#[test]
fn arrives_at_the_address_of_the_namespace() {
    // [FWD-5] [SPLICE-1] [SPLICE-2]: from its own address, and not through the link
    Lab::run(|lab| {
        let guest = lab.guest(PORTS);
        for (from, to, own) in
            [(LO4, LO4, HOST4), (LO4, OTHER_LO4, HOST4), (OTHER_LO4, LO4, HOST4), (LO6, LO6, HOST6)]
        {
            let server = listen(&guest.ns, at(ANY6, 80));
            let (_near, far) = roundtrip(&lab.host(), at(to, 8080), &server);
            assert_eq!(far.peer_addr().unwrap().ip().to_canonical(), own);
            assert_eq!(far.local_addr().unwrap().ip().to_canonical(), own);

            let server = udp(&guest.ns, at(any(own), 80));
            let client = udp(&lab.host(), at(from, 0));
            for size in [1, 0, 1400, 60_000] {
                assert_eq!(echo(&client, at(to, 8080), &server, size), own);
            }
            client.send_to(b"port", at(to, 8080)).unwrap();
            let (_, peer) = server.recv_from(&mut [0; 16]).unwrap();
            assert_eq!(peer.port(), client.local_addr().unwrap().port(), "the port is kept");
        }
    });
}

#[test]
fn arrives_there_on_a_host_without_network() {
    // [SPLICE-2] [ADDR-5] [NL-7]: the address is a link-local one
    Lab::run(|lab| {
        ip("link del up0");
        let guest = lab.guest(PORTS);
        let own = IpAddr::from([169, 254, 2, 1]);
        let server = listen(&guest.ns, at(ANY4, 80));
        let (_near, far) = roundtrip(&lab.host(), at(LO4, 8080), &server);
        assert_eq!(far.peer_addr().unwrap().ip(), own);
        assert_eq!(far.local_addr().unwrap().ip(), own);
        let server = udp(&guest.ns, at(ANY4, 80));
        let client = udp(&lab.host(), at(LO4, 0));
        assert_eq!(echo(&client, at(LO4, 8080), &server, 100), own);
    });
}

#[test]
fn what_listens_on_loopback_alone_stays_private() {
    // [FWD-5] [SPLICE-2] [SPLICE-5]
    Lab::run(|lab| {
        let guest = lab.guest(PORTS);
        for ip in [LO4, LO6] {
            let _private = listen(&guest.ns, at(ip, 80));
            let client = try_connect(&lab.host(), at(ip, 8080));
            let error = client.and_then(|mut c| c.read(&mut [0])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{ip}: {error}");
        }
    });
}

#[test]
fn loopback_to_loopback_on_request() {
    // [FWD-4] [FWD-5] [COMPAT-24]
    Lab::run(|lab| {
        let guest = lab.guest(&format!("--host-lo-to-ns-lo {PORTS}"));
        for ip in [LO4, OTHER_LO4, LO6] {
            let server = listen(&guest.ns, at(ip, 80));
            let (_near, far) = roundtrip(&lab.host(), at(ip, 8080), &server);
            assert!(far.peer_addr().unwrap().ip().is_loopback());
            let server = udp(&guest.ns, at(ip, 80));
            let client = udp(&lab.host(), at(if ip.is_ipv4() { LO4 } else { LO6 }, 0));
            assert!(echo(&client, at(ip, 8080), &server, 100).is_loopback());
        }
        // Others come in through the link, as ever.
        let server = listen(&guest.ns, at(HOST4, 80));
        roundtrip(&lab.remote, at(HOST4, 8080), &server);
    });
}

#[test]
fn the_link_is_taken_by_everybody_else() {
    // [SPLICE-1] [FWD-6]: other sources, rules with an address, --no-splice
    Lab::run(|lab| {
        let mut guest = lab.guest(&format!("{PORTS} -t 127.0.0.1/8081:10.9.0.2/80"));
        let server = listen(&guest.ns, at(ANY6, 80));
        let peer = |from, to| {
            let (_near, far) = roundtrip(from, to, &server);
            far.peer_addr().unwrap().ip().to_canonical()
        };
        assert!([REMOTE4, GATEWAY4].contains(&peer(&lab.remote, at(HOST4, 8080))));
        assert_eq!(peer(&lab.host(), at(LO4, 8081)), GATEWAY4);
        guest.pasta.signal(Signal::SIGTERM);
        guest.pasta.wait(SOON);

        let guest = lab.guest(&format!("--no-splice {PORTS}"));
        for (ip, seen) in [(LO4, GATEWAY4), (LO6, "fe80::1".parse().unwrap())] {
            let server = listen(&guest.ns, at(ANY6, 80));
            let (_near, far) = roundtrip(&lab.host(), at(ip, 8080), &server);
            let peer = far.peer_addr().unwrap().ip().to_canonical();
            assert!(peer == seen || peer != HOST4 && peer != HOST6, "{peer}");
            let server = udp(&guest.ns, at(any(ip), 80));
            let client = udp(&lab.host(), at(ip, 0));
            let peer = echo(&client, at(ip, 8080), &server, 10);
            assert!(peer != HOST4 && peer != HOST6, "{peer}");
        }
    });
}

#[test]
fn a_burst_of_connections() {
    // [SPLICE-14]: many more than are kept ready
    Lab::run(|lab| {
        let guest = lab.guest(PORTS);
        let server = listen(&guest.ns, at(ANY6, 80));
        let mut pairs: Vec<_> = (0..100)
            .map(|n| connect(&lab.host(), at(if n % 2 == 0 { LO4 } else { LO6 }, 8080)))
            .collect();
        let mut ends: Vec<_> = pairs.iter().map(|_| accept(&server)).collect();
        for (n, near) in pairs.iter_mut().enumerate() {
            use std::io::Write as _;
            near.write_all(&[u8::try_from(n).unwrap()]).unwrap();
        }
        let mut seen: Vec<u8> = ends
            .iter_mut()
            .map(|far| {
                let mut byte = [0];
                far.read_exact(&mut byte).unwrap();
                byte[0]
            })
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
    });
}

/// The process that makes sockets in the namespace.
fn factory(pasta: i32) -> i32 {
    let name = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    children(pasta).into_iter().find(|pid| name(pid) == "pasta-sockets\n").expect("a factory")
}

#[test]
fn the_factory_is_shut_in() {
    // [SPLICE-14] [SANDBOX-9] [SANDBOX-10]: no right, no file, one descriptor, and the namespace
    Lab::run(|lab| {
        let guest = lab.guest(PORTS);
        let pid = factory(guest.pasta.pid);
        assert_powerless(pid);
        // Nobody but root may look further.
        if nix::unistd::geteuid().is_root() {
            assert_eq!(fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(), 1);
            assert_eq!(fs::read_dir(format!("/proc/{pid}/root")).unwrap().count(), 0);
            let link = |pid, what: &str| fs::read_link(format!("/proc/{pid}/ns/{what}")).unwrap();
            assert_eq!(link(pid, "net"), link(guest.pid, "net"));
            assert_ne!(link(pid, "mnt"), link(guest.pid, "mnt"));
        }
    });
}

#[test]
fn the_factory_ends_with_us() {
    Lab::run(|lab| {
        let mut guest = lab.guest(PORTS);
        let pid = factory(guest.pasta.pid);
        guest.pasta.signal(Signal::SIGKILL);
        guest.pasta.wait(SOON);
        // Nobody may be there to collect its status.
        let stat = || fs::read_to_string(format!("/proc/{pid}/stat"));
        eventually("the factory ends", SOON, || stat().map_or(true, |s| s.contains(") Z ")));
    });
}

#[test]
fn life_without_the_factory() {
    // What goes through the link is not concerned, and connections that need it fail at once.
    Lab::run(|lab| {
        let guest = lab.guest(PORTS);
        let server = listen(&guest.ns, at(ANY6, 80));
        let (mut near, mut far) = roundtrip(&lab.host(), at(LO4, 8080), &server);
        let pid = nix::unistd::Pid::from_raw(factory(guest.pasta.pid));
        nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
        // First there is a stock.
        let _used_up: Vec<_> = (0..20).map(|_| try_connect(&lab.host(), at(LO4, 8080))).collect();
        let client = try_connect(&lab.host(), at(LO4, 8080));
        let error = client.and_then(|mut c| c.read(&mut [0])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        while server.accept().is_ok() {}
        pass(&mut near, &mut far, b"still there");
        roundtrip(&lab.remote, at(HOST4, 8080), &server);
    });
}

#[test]
fn real_programs() {
    Lab::run(|lab| {
        let guest = lab.guest("-t 8080:80 -T none -U none");
        let mut server = guest.command("python3");
        let dir = lab.fresh("www");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("page"), "x".repeat(1 << 20)).unwrap();
        server.args(["-m", "http.server", "--bind", "::", "80"]).current_dir(&dir);
        let _server = Helper(server.stderr(Stdio::null()).spawn().unwrap());
        eventually("the server listens", SOON, || {
            let mut curl = lab.host().command("curl");
            curl.args(["-s", "-o", "/dev/null", "http://127.0.0.1:8080/page"]);
            output_within(&mut curl, SOON).status.success()
        });
    });
}

#[test]
fn past_the_link_alone() {
    // [FWD-8] [SPLICE-3] [FLOW-2]: no interface but loopback, and nothing for anybody else
    Lab::run(|lab| {
        let options = "--splice-only -t 8080:80 -u 8080:80 -T 9001:9000 -U 9001:9000";
        let guest = lab.guest(options);
        let links = guest.run("ip -o link");
        assert_eq!(links.lines().count(), 1, "{links}");
        for ip in [LO4, LO6] {
            let server = listen(&guest.ns, at(ip, 80));
            roundtrip(&lab.host(), at(ip, 8080), &server);
            let server = listen(&lab.host(), at(ip, 9000));
            roundtrip(&guest.ns, at(ip, 9001), &server);
            let server = udp(&guest.ns, at(ip, 80));
            echo(&udp(&lab.host(), at(ip, 0)), at(ip, 8080), &server, 100);
            let server = udp(&lab.host(), at(ip, 9000));
            echo(&udp(&guest.ns, at(ip, 0)), at(ip, 9001), &server, 100);
        }
        for (ns, ip) in [(&lab.remote, HOST4), (&lab.host(), HOST6)] {
            let client = try_connect(ns, at(ip, 8080));
            let error = client.and_then(|mut c| c.read(&mut [0])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{ip}: {error}");
            udp(ns, at(any(ip), 0)).send_to(b"lost", at(ip, 8080)).unwrap();
        }
        let server = udp(&guest.ns, at(LO4, 80));
        echo(&udp(&lab.host(), at(LO4, 0)), at(LO4, 8080), &server, 100);
    });
}
