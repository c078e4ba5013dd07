//! The running program asks the kernel for no memory.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bulk::iperf;
use crate::lab::{Lab, REMOTE4, SOON, at, eventually};
use crate::net::{listen, pass, roundtrip, udp};
use crate::pasta::{Guest, QUIET};
use crate::udp::echo;

/// What gets memory, or gives it back; and `socket`, to see that calls are seen.
const CALLS: &str = "trace=socket,brk,mmap,mremap,munmap,madvise";

/// Bulk and requests, over TCP and UDP, old and new flows.
fn traffic(lab: &Lab, guest: &Guest) {
    for options in ["-t 1", "-t 1 -R", "-t 1 -P 8", "-t 1 -u -b 20M -l 1400"] {
        iperf(lab, &guest.ns, REMOTE4, options);
    }
    let listener = listen(&lab.remote, at(REMOTE4, 7000));
    let server = udp(&lab.remote, at(REMOTE4, 7001));
    for _ in 0..20 {
        let (mut near, mut far) = roundtrip(&guest.ns, at(REMOTE4, 7000), &listener);
        let client = udp(&guest.ns, at(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
        for _ in 0..20 {
            pass(&mut near, &mut far, b"question");
            pass(&mut far, &mut near, b"answer");
            echo(&client, at(REMOTE4, 7001), &server, 100);
        }
    }
}

#[test]
fn traffic_needs_no_memory() {
    // [D5]
    Lab::run(|lab| {
        let guest = lab.guest(QUIET);
        traffic(lab, &guest); // warms up
        let log = lab.dir().join("strace");
        let mut strace = std::process::Command::new("strace")
            .args(["-f", "-e", CALLS, "-o"])
            .arg(&log)
            .args(["-p", &guest.pasta.pid.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("strace(1)");
        let traced = || {
            let status = fs::read_to_string(format!("/proc/{}/status", guest.pasta.pid)).unwrap();
            status.lines().any(|l| l.starts_with("TracerPid:") && !l.ends_with("\t0"))
        };
        eventually("strace attaches", SOON, traced);
        traffic(lab, &guest);
        assert!(traced(), "strace was there all the time");
        kill(Pid::from_raw(i32::try_from(strace.id()).unwrap()), Signal::SIGINT).unwrap();
        strace.wait().unwrap();
        let log = fs::read_to_string(log).unwrap();
        let calls = log.lines().filter(|l| l.contains('('));
        let (sockets, calls): (Vec<_>, Vec<_>) = calls.partition(|l| l.contains(" socket("));
        assert!(sockets.len() >= 40, "{log}");
        assert!(calls.is_empty(), "{} calls: {:#?}", calls.len(), &calls[..calls.len().min(20)]);
    });
}
