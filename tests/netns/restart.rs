//! Ports are free again as soon as a namespace is gone: the next instance gets them at once.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::attach::{container, same_user};
use crate::lab::{HOST4, HOST6, Lab, SOON, at, ip};
use crate::net::{listen, roundtrip, try_connect};
use crate::ns::Ns;
use crate::pasta::Running;

const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
const LO4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The port that every instance wants, for both protocols.
const PORTS: &str = "-t 8080 -u 8080 -T none -U none";

const CYCLES: usize = 200;

/// Makes a connection through the port, which leaves what the round says: nothing, a connection
/// that was closed here first and so waits at the host's end, or one that is open.
#[track_caller]
fn connect(lab: &Lab, guest: &Ns, round: usize) -> Option<(TcpStream, TcpStream)> {
    let server = listen(guest, at(ANY6, 8080));
    let host = if round.is_multiple_of(2) { HOST4 } else { HOST6 };
    let (mut near, mut far) = roundtrip(&lab.remote, at(host, 8080), &server);
    match round % 3 {
        0 => None,
        1 => {
            far.shutdown(Shutdown::Write).unwrap();
            assert_eq!(near.read(&mut [0]).unwrap(), 0);
            drop(near);
            assert_eq!(far.read(&mut [0]).unwrap(), 0);
            None
        }
        _ => {
            near.write_all(b"unread").unwrap();
            Some((near, far))
        }
    }
}

#[test]
fn two_hundred_commands_with_one_port() {
    // [COMPAT-22] [LIFE-7] [FWD-14]: one is not waited for before the next is started
    Lab::run(|lab| {
        let mut last: Option<Running> = None;
        for round in 0..CYCLES {
            let guest = lab.guest(PORTS);
            let _open = connect(lab, &guest.ns, round);
            kill(Pid::from_raw(guest.pid), Signal::SIGKILL).unwrap();
            if let Some(mut last) = last.replace(guest.pasta) {
                assert_eq!(last.wait(SOON).code(), Some(137), "round {round}");
            }
        }
    });
}

#[test]
fn two_hundred_attachments_with_one_port() {
    // [COMPAT-22] [LIFE-7] [LIFE-11]: to processes and to names, in turn
    Lab::run(|lab| {
        let mut last: Option<Running> = None;
        for round in 0..CYCLES {
            let pasta = if round.is_multiple_of(2) {
                let (mut child, pid) = container();
                let pasta = lab.attach(&format!("--config-net {PORTS} {} {pid}", same_user()));
                let _open = connect(lab, &Ns::of_pid(pid), round);
                child.kill().unwrap();
                child.wait().unwrap();
                pasta
            } else {
                let ns = lab.new_netns("one");
                let pasta = lab.attach(&format!("--config-net {PORTS} --netns one"));
                let _open = connect(lab, &ns, round);
                ip("netns del one");
                pasta
            };
            if let Some(mut last) = last.replace(pasta) {
                assert_eq!(last.wait(SOON).code(), Some(0), "round {round}");
            }
        }
    });
}

#[test]
fn ports_close_when_the_namespace_is_gone() {
    // [COMPAT-22] [LIFE-11]: at once, whatever else is left to do
    Lab::run(|lab| {
        let closed = |what: &str| {
            let start = Instant::now();
            loop {
                match try_connect(&lab.host(), at(LO4, 8080)).map_err(|e| e.kind()) {
                    Err(ErrorKind::ConnectionRefused) => break,
                    Ok(_) | Err(ErrorKind::ConnectionReset) => {}
                    Err(e) => panic!("{what}: {e}"),
                }
                assert!(start.elapsed() < Duration::from_millis(500), "{what}: still open");
                thread::sleep(Duration::from_micros(200));
            }
            println!("{what}: closed after {:?}", start.elapsed());
        };
        let (mut child, pid) = container();
        let _pasta = lab.attach(&format!("--config-net {PORTS} {} {pid}", same_user()));
        child.kill().unwrap();
        closed("process");
        child.wait().unwrap();
        let _ns = lab.new_netns("one");
        let _pasta = lab.attach(&format!("--config-net {PORTS} --netns one"));
        ip("netns del one");
        closed("name");
        let guest = lab.guest(PORTS);
        kill(Pid::from_raw(guest.pid), Signal::SIGKILL).unwrap();
        closed("command");
    });
}
