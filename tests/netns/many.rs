//! Thousands of flows at a time, and what happens where there can be no more.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::crowd::{Crowd, descriptor_limit, descriptors, resident};
use crate::lab::{
    HOST4, HOST6, Helper, Lab, REMOTE4, REMOTE6, SOON, at, eventually, pasta_path, soak,
};
use crate::net::{listen, roundtrip, try_connect, udp};
use crate::ns::Ns;
use crate::pasta::{Guest, QUIET, Running};
use crate::udp::echo;

/// Ports of a crowd of servers: with one the kernel would search long for free local ports.
const PORTS: u16 = 4;

/// The first of them.
const FIRST: u16 = 7000;

/// Time for thousands of connections to end, on a busy machine.
const LATER: Duration = Duration::from_secs(30);

/// Every address of a crowd of servers.
fn servers<const N: usize>(addresses: [IpAddr; N]) -> String {
    let all = (FIRST..FIRST + PORTS).flat_map(|port| addresses.map(|a| at(a, port).to_string()));
    all.collect::<Vec<_>>().join(" ")
}

/// Makes a namespace fit for many connections.
fn widen(ns: &Ns) {
    ns.sysctl("net/ipv4/ip_local_port_range", "1024 65535");
    ns.sysctl("net/core/somaxconn", "4096");
}

/// Processor time used in a second in which nothing is to be done.
fn idle_cpu(pasta: &Running) -> Duration {
    thread::sleep(Duration::from_millis(300));
    let before = pasta.cpu();
    thread::sleep(Duration::from_secs(1));
    pasta.cpu() - before
}

/// As [`Lab::guest`], with at most so many descriptors for pasta.
fn limited(lab: &Lab, limit: u16, options: &str) -> Guest {
    let mut command = Command::new("sh");
    let script = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
    command.args(["-c", &script]).arg(pasta_path()).arg("--config-net");
    command.args(options.split_whitespace());
    lab.guest_raw(command)
}

#[test]
fn nineteen_thousand_connections_at_a_time() {
    // [TCP-95] [TCP-86] [TCP-98] [TCP-100] [FLOW-5]: one descriptor each, and little memory
    Lab::run(|lab| {
        let n = 19_000.min(descriptor_limit() - 500);
        for ns in [&lab.host(), &lab.remote] {
            widen(ns);
        }
        let mut guest = lab.guest(QUIET);
        widen(&guest.ns);
        let mut far = Crowd::echoing(&lab.remote, FIRST, PORTS);
        let mut near = Crowd::clients(&guest.ns);
        let open = format!("open {n} 256 50000 {}", servers([REMOTE4, REMOTE6]));
        let pid = guest.pasta.pid;
        let idle = (descriptors(pid), resident(pid));

        let opened = near.ask(&open);
        println!("{n} connections in {} ms", opened[1]);
        assert_eq!(opened[0] as usize, n);
        assert_eq!(descriptors(pid), idle.0 + n);
        let per_flow = (resident(pid) - idle.1) / n;
        println!("{per_flow} bytes each");
        assert!(per_flow < 512, "{per_flow} bytes for each flow");
        let alive = near.ask("echo");
        println!("all have echoed after {} ms", alive[1]);
        assert_eq!(alive[0] as usize, n);
        let used = idle_cpu(&guest.pasta);
        assert!(used < Duration::from_millis(200), "{used:?} in a second with nothing to do");

        let full = resident(pid);
        assert_eq!(near.ask("close")[0] as usize, n);
        eventually("all is closed", LATER, || descriptors(pid) == idle.0);
        eventually("the servers are done", LATER, || far.ask("count") == [0]);
        // What was used once is enough.
        assert_eq!(near.ask(&open)[0] as usize, n);
        assert_eq!(near.ask("echo")[0] as usize, n);
        let again = resident(pid);
        assert!(again < full + (512 << 10), "{again} bytes after {full}");
        assert!(guest.pasta.alive());
    });
}

#[test]
fn ten_thousand_stalled_connections_stay_within_memory() {
    // [D1] [TCP-98] [TCP-99]: servers that do not read, then do; memory is bounded, nothing is lost
    const POOL: usize = 8 << 20;
    Lab::run(|lab| {
        let n = 10_000.min(descriptor_limit() - 500);
        for ns in [&lab.host(), &lab.remote] {
            widen(ns);
        }
        // All the kernel's buffers together are to stay well below what it gives to TCP: beyond
        // that, it would refuse and drop at will.
        lab.host().sysctl("net/ipv4/tcp_wmem", "4096 8192 16384");
        let mut guest = lab.guest(&format!("{QUIET} --buffer-memory 8M"));
        widen(&guest.ns);
        let mut far = Crowd::sleeping(&lab.remote, FIRST, PORTS);
        let mut near = Crowd::clients(&guest.ns);
        let (pid, idle) = (guest.pasta.pid, resident(guest.pasta.pid));
        let open = format!("open {n} 256 50000 {}", servers([REMOTE4, REMOTE6]));
        assert_eq!(near.ask(&open)[0] as usize, n);

        let filled = near.ask("fill");
        println!("{} MiB are stuck after {} ms", filled[0] >> 20, filled[1]);
        let grown = resident(pid) - idle;
        println!("{} KiB more are in use", grown >> 10);
        assert!(grown < POOL + n * 512, "{grown} bytes more than at the start");
        assert!(grown > POOL / 2, "the memory is used: {grown} bytes");
        let used = idle_cpu(&guest.pasta);
        println!("{used:?} of processor time in a second");
        assert!(used < Duration::from_millis(700), "{used:?} in a second");

        far.ask("read");
        let done = near.ask("finish");
        println!("{} streams are done after {} ms", done[0], done[1]);
        assert_eq!(done[0] as usize, n);
        near.ask("close");
        eventually("all is closed", LATER, || descriptors(pid) < 100);
        assert!(guest.pasta.alive());
    });
}

#[test]
fn nothing_is_left_of_connections_in_quick_succession() {
    // [FLOW-7] Over the link and past it, both ways. Set PASST_TESTS_SOAK to the number of seconds.
    Lab::run(|lab| {
        const OUTSIDE: u16 = FIRST + 100;
        let time = soak().unwrap_or(Duration::from_secs(5));
        for ns in [&lab.host(), &lab.remote] {
            widen(ns);
        }
        let ports = |first| format!("{first}-{}", first + PORTS - 1);
        let options = format!("-t {} -T {} -u none -U none", ports(FIRST), ports(OUTSIDE));
        let mut guest = lab.guest(&options);
        widen(&guest.ns);
        let _servers = [
            Crowd::echoing(&guest.ns, FIRST, PORTS),
            Crowd::echoing(&lab.host(), OUTSIDE, PORTS),
            Crowd::echoing(&lab.remote, FIRST, PORTS),
        ];
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let to = |addr, first| {
            let all = (first..first + PORTS).map(|port| at(addr, port).to_string());
            format!("open 60 60 10000 {}", all.collect::<Vec<_>>().join(" "))
        };
        let mut clients = [
            (Crowd::clients(&lab.host()), to(loopback, FIRST)),
            (Crowd::clients(&guest.ns), to(loopback, OUTSIDE)),
            (Crowd::clients(&lab.remote), to(HOST6, FIRST)),
            (Crowd::clients(&guest.ns), to(REMOTE6, FIRST)),
        ];
        let mut run = |time: Duration| {
            let (start, mut n) = (Instant::now(), 0);
            while start.elapsed() < time {
                for (client, open) in &mut clients {
                    assert_eq!(client.ask(open)[0], 60);
                    assert_eq!(client.ask("echo")[0], 60);
                    assert_eq!(client.ask("close")[0], 60);
                    n += 60;
                }
            }
            n
        };
        run(Duration::from_secs(1));
        let pid = guest.pasta.pid;
        // Sockets and pipes are kept in stock.
        let few = 120;
        eventually("all is closed", LATER, || descriptors(pid) < few);
        let before = resident(pid);
        let n = run(time);
        println!("{n} connections in {time:?}");
        eventually("all is closed", LATER, || descriptors(pid) < few);
        let after = resident(pid);
        // The index of the flows is used here and there, and in the end everywhere.
        assert!(after < before + (2 << 20), "{after} bytes after {before}");
        let used = idle_cpu(&guest.pasta);
        assert!(used < Duration::from_millis(50), "{used:?} in a second with nothing to do");
        assert!(guest.pasta.alive());
    });
}

/// What an idle process has open. The command may run a little before the start is over.
fn idle_descriptors(pid: i32) -> usize {
    let mut last = 0;
    eventually("the start is over", SOON, || {
        std::thread::sleep(Duration::from_millis(100));
        let before = std::mem::replace(&mut last, descriptors(pid));
        last == before
    });
    last
}

#[test]
fn without_descriptors_the_guest_gets_no_new_connections() {
    // [TCP-96] [FLOW-8]: SYNs are dropped, old connections go on, and nobody spins
    Lab::run(|lab| {
        let mut guest = limited(lab, 150, QUIET);
        let _far = Crowd::echoing(&lab.remote, FIRST, PORTS);
        let mut near = Crowd::clients(&guest.ns);
        let open = |n| format!("open {n} 64 4000 {}", servers([REMOTE4, REMOTE6]));
        let pid = guest.pasta.pid;
        let idle = idle_descriptors(pid);
        let opened = near.ask(&open(300))[0] as usize;
        assert_eq!(opened, 150 - idle);
        assert_eq!(near.ask("echo")[0] as usize, opened);
        let to = at(REMOTE4, FIRST);
        let wait = Duration::from_millis(1500);
        let refused = guest.ns.enter(|| TcpStream::connect_timeout(&to, wait)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::TimedOut, "silence, so that the guest tries again");
        let used = idle_cpu(&guest.pasta);
        assert!(used < Duration::from_millis(50), "{used:?} in a second with nothing to do");
        assert_eq!(near.ask("echo")[0] as usize, opened);
        near.ask("close");
        eventually("descriptors are free", SOON, || descriptors(pid) == idle);
        assert_eq!(near.ask(&open(100))[0], 100);
        assert_eq!(near.ask("echo")[0], 100);
        assert!(guest.pasta.alive());
    });
}

#[test]
fn without_descriptors_unanswered_datagrams_make_room() {
    // [UDP-14]: those used longest ago, for new ones and for connections; nothing else ends
    Lab::run(|lab| {
        let mut guest = limited(lab, 150, &format!("--debug {QUIET}"));
        let server = udp(&lab.remote, at(REMOTE4, 7000));
        let listener = listen(&lab.remote, at(REMOTE4, 7001));
        let client = || udp(&guest.ns, at(HOST4, 0));
        let room = 150 - idle_descriptors(guest.pasta.pid);
        let talking: Vec<_> = (0..20).map(|_| client()).collect();
        let exchange = |c: &UdpSocket| {
            echo(c, at(REMOTE4, 7000), &server, 10);
        };
        for _ in 0..2 {
            talking.iter().for_each(exchange);
        }
        let mut silent = vec![];
        for n in 0..300u16 {
            let c = client();
            c.send_to(&n.to_be_bytes(), at(REMOTE4, 7000)).unwrap();
            let mut got = [0; 10];
            assert_eq!((server.recv(&mut got).unwrap(), &got[..2]), (2, &n.to_be_bytes()[..]));
            silent.push(c);
        }
        talking.iter().for_each(exchange);
        let pair = roundtrip(&guest.ns, at(REMOTE4, 7001), &listener);
        assert!(descriptors(guest.pasta.pid) <= 150);
        drop(pair);
        guest.pasta.signal(Signal::SIGTERM);
        guest.pasta.wait(SOON);
        let evicted = format!("dropped: flow-evicted {}\n", 20 + 300 + 1 - room);
        let said = guest.pasta.stderr();
        let dropped: Vec<_> = said.lines().filter(|l| l.contains("dropped: ")).collect();
        assert!(said.contains(&evicted), "not {evicted:?}: {dropped:?}");
        assert!(!said.contains("no-socket"), "{dropped:?}");
    });
}

#[test]
fn without_descriptors_answered_questions_make_room() {
    // [UDP-14]: each question is answered, though more are asked than flows can be; conversations stay
    Lab::run(|lab| {
        let mut guest = limited(lab, 150, &format!("--debug {QUIET}"));
        let server = udp(&lab.remote, at(REMOTE4, 7000));
        let room = 150 - idle_descriptors(guest.pasta.pid);
        let exchange = |c: &UdpSocket| {
            echo(c, at(REMOTE4, 7000), &server, 10);
        };
        // Each port once: what comes from one that was used is the same conversation.
        let mut ports = 20_000..;
        let mut client = || udp(&guest.ns, at(HOST4, ports.next().unwrap()));
        let talking: Vec<_> = (0..20).map(|_| client()).collect();
        for _ in 0..2 {
            talking.iter().for_each(exchange);
        }
        for _ in 0..3 * (room - 20) {
            exchange(&client());
        }
        // An answer that is on its way arrives, though there are others who need room meanwhile.
        let late = client();
        late.send_to(b"question", at(REMOTE4, 7000)).unwrap();
        let mut buf = [0; 10];
        let (_, from) = server.recv_from(&mut buf).unwrap();
        for _ in 0..9 {
            exchange(&client());
        }
        server.send_to(b"answer", from).unwrap();
        assert_eq!((late.recv(&mut buf).unwrap(), &buf[..6]), (6, &b"answer"[..]));
        talking.iter().for_each(exchange);
        assert!(descriptors(guest.pasta.pid) <= 150);
        guest.pasta.signal(Signal::SIGTERM);
        guest.pasta.wait(SOON);
        let said = guest.pasta.stderr();
        let dropped: Vec<_> = said.lines().filter(|l| l.contains("dropped: ")).collect();
        let evicted = format!("dropped: flow-evicted {}\n", 2 * (room - 20) + 10);
        assert!(said.contains(&evicted), "not {evicted:?}: {dropped:?}");
        assert!(!said.contains("no-socket"), "{dropped:?}");
    });
}

#[test]
fn without_descriptors_connections_to_forwarded_ports_wait() {
    // [TCP-96] [FLOW-8]: they stay in the listener's queue until something comes free
    Lab::run(|lab| {
        let options = format!("-t {FIRST}-{} -u none -T none -U none", FIRST + PORTS - 1);
        let mut guest = limited(lab, 150, &options);
        let mut far = Crowd::echoing(&guest.ns, FIRST, PORTS);
        let to = servers([HOST4, HOST6]);
        let [mut old, mut new] = [Crowd::clients(&lab.remote), Crowd::clients(&lab.remote)];
        let pid = guest.pasta.pid;
        let idle = idle_descriptors(pid);
        assert_eq!(old.ask(&format!("open 80 16 10000 {to}"))[0], 80);
        assert_eq!(old.ask("echo")[0], 80);
        // The kernel completes these, too.
        assert_eq!(new.ask(&format!("open 110 16 10000 {to}"))[0], 110);
        eventually("all descriptors are in use", SOON, || descriptors(pid) == 150);
        let used = idle_cpu(&guest.pasta);
        assert!(used < Duration::from_millis(50), "{used:?} in a second with nothing to do");
        assert_eq!(far.ask("count")[0] as usize, 150 - idle);
        assert_eq!(old.ask("echo")[0], 80);
        old.ask("close");
        assert_eq!(new.ask("echo")[0], 110);
        new.ask("close");
        eventually("descriptors are free", SOON, || descriptors(pid) == idle);
        assert!(guest.pasta.alive());
    });
}

#[test]
fn only_ports_with_waiting_connections_are_looked_at() {
    // [FLOW-8]: however many others are forwarded
    Lab::run(|lab| {
        let last = FIRST + PORTS - 1;
        let options = format!("-t {FIRST}-{last} -t 9000-9999 -u none -T none -U none");
        let mut guest = limited(lab, 1150, &options);
        let _far = Crowd::echoing(&guest.ns, FIRST, PORTS);
        let to = servers([HOST4, HOST6]);
        let mut near = Crowd::clients(&lab.remote);
        let pid = guest.pasta.pid;
        assert_eq!(near.ask(&format!("open 200 16 10000 {to}"))[0], 200);
        eventually("all descriptors are in use", SOON, || descriptors(pid) == 1150);
        let log = lab.fresh("strace");
        let strace = Command::new("strace")
            .args(["-f", "-e", "trace=accept4", "-o"])
            .arg(&log)
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("strace(1)");
        let _strace = Helper(strace);
        let asked = || fs::read_to_string(&log).unwrap_or_default().matches("accept4(").count();
        eventually("looks", SOON, || asked() > 0);
        thread::sleep(Duration::from_secs(2));
        assert!(asked() < 100, "{} times", asked());
        assert!(guest.pasta.alive());
    });
}

#[test]
fn refused_connections_leave_no_descriptors_and_no_messages() {
    // [TCP-20] [FLOW-4] [FLOW-18]: to a guest that refuses, and to a port of the host that nobody serves
    Lab::run(|lab| {
        let last = FIRST + PORTS - 1;
        let ports = format!("{FIRST}-{last}");
        let mut guest = lab.guest(&format!("-t {ports} -u none -T {ports} -U none"));
        for ns in [&guest.ns, &lab.remote] {
            widen(ns);
        }
        let pid = guest.pasta.pid;
        let idle = (descriptors(pid), guest.pasta.stderr());
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        for (ns, to) in [(&lab.remote, servers([HOST4, HOST6])), (&guest.ns, servers([loopback]))] {
            for _ in 0..5 {
                let mut crowd = Crowd::clients(ns);
                crowd.ask(&format!("open 2000 64 30000 {to}"));
                crowd.ask("close");
            }
            eventually("all are gone", LATER, || descriptors(pid) == idle.0);
        }
        // Nor does a guest that may not connect.
        for port in 1..200 {
            assert!(try_connect(&guest.ns, at(REMOTE4, port)).is_err());
        }
        eventually("these are gone, too", SOON, || descriptors(pid) == idle.0);
        assert_eq!(guest.pasta.stderr(), idle.1);
        assert!(guest.pasta.alive());
    });
}
