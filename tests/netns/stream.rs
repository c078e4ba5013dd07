//! passt: start, end, guests that come and go, and what they send.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::bulk::{counter, iperf_at_any_rate, never_twice};
use crate::crowd::{descriptors, resident};
use crate::lab::{
    HOST4, HOST6, Lab, REMOTE4, REMOTE6, SOON, at, eventually, output_within, unprivileged,
};
use crate::machine::{Raw, arp, framed};
use crate::net::{accept, connect, listen, pattern, roundtrip, udp};
use crate::pasta::Running;
use crate::udp::echo;
use crate::walls::assert_powerless;

const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
const LO4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LO6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Everything in every direction, whole.
fn all_ways(mtu: u32) {
    Lab::run_as(&format!("netns::stream::everything_works_mtu{mtu}"), |lab| {
        allow_pings(lab);
        let (_passt, socket) = lab.passt(&format!("-m {mtu} -t 8080:80 -u 8053:53"));
        let mut guest = lab.machine("vm", mtu);
        guest.plug(&socket);
        for remote in [REMOTE4, REMOTE6] {
            guest.run_command(&format!("ping -c 1 -W 5 {remote}"));
            guest.run_command(&format!("ping -c 1 -W 5 -s 1000 {remote}"));
        }
        for (remote, host, lo) in [(REMOTE4, HOST4, LO4), (REMOTE6, HOST6, LO6)] {
            let server = listen(&lab.remote, at(remote, 7000));
            let (near, far) = roundtrip(&guest.ns, at(remote, 7000), &server);
            assert_eq!(far.peer_addr().unwrap().ip(), host, "the remote sees the host");
            exchange(near, far, 4 << 20);

            let server = listen(&guest.ns, at(if remote.is_ipv4() { HOST4 } else { HOST6 }, 80));
            for (from, to) in [(&lab.remote, host), (&lab.host(), lo)] {
                let near = connect(from, at(to, 8080));
                exchange(near, accept(&server), 1 << 20);
            }

            let server = udp(&lab.remote, at(remote, 7001));
            let client = udp(&guest.ns, at(if remote.is_ipv4() { HOST4 } else { HOST6 }, 0));
            for size in [0, 1, mtu as usize - 48] {
                assert_eq!(echo(&client, at(remote, 7001), &server, size), host);
            }
            let server = udp(&guest.ns, at(if remote.is_ipv4() { HOST4 } else { HOST6 }, 53));
            let client = udp(&lab.remote, at(remote, 0));
            for size in [1, mtu as usize - 48] {
                echo(&client, at(host, 8053), &server, size);
            }
        }
    });
}

/// Lets whoever passt runs as have ping sockets.
fn allow_pings(lab: &Lab) {
    let range = if unprivileged() { "0 0" } else { "0 65534" };
    lab.host().sysctl("net/ipv4/ping_group_range", range);
}

/// Sends different data both ways at once, closes, and compares.
#[track_caller]
pub(crate) fn exchange(near: std::net::TcpStream, far: std::net::TcpStream, len: usize) {
    let send = |mut s: std::net::TcpStream, data: Vec<u8>| {
        thread::spawn(move || {
            s.write_all(&data).unwrap();
            s.shutdown(std::net::Shutdown::Write).unwrap();
        })
    };
    let (there, back) = (pattern(len), pattern(len / 2).into_iter().rev().collect::<Vec<_>>());
    let a = send(near.try_clone().unwrap(), there.clone());
    let b = send(far.try_clone().unwrap(), back.clone());
    for (mut s, expected) in [(far, there), (near, back)] {
        let mut got = Vec::new();
        s.read_to_end(&mut got).unwrap();
        assert!(got == expected, "{} of {} bytes", got.len(), expected.len());
    }
    a.join().unwrap();
    b.join().unwrap();
}

// [TAP-2] [TCP-*] [UDP-*] [ICMP-*] [COMPAT-26] TCP, UDP and ping, out and in, both families.

#[test]
fn everything_works_mtu1500() {
    all_ways(1500);
}

#[test]
fn everything_works_mtu65520() {
    all_ways(65520);
}

#[test]
fn bulk_transfers_lose_nothing() {
    // [D1] [TAP-4] both ways, neither side repeats anything
    Lab::run(|lab| {
        for mtu in [1500, 65520] {
            let (passt, socket) = lab.passt(&format!("-m {mtu}"));
            let mut guest = lab.machine(&format!("vm{mtu}"), mtu);
            guest.plug(&socket);
            let end = iperf_at_any_rate(lab, &guest.ns, REMOTE4, "-t 1 -C cubic");
            never_twice(&guest.ns, &end, "out");
            let ahead = counter(&guest.ns, "TCPOFOQueue");
            iperf_at_any_rate(lab, &guest.ns, REMOTE6, "-t 1 -R");
            // A tail may be repeated that was only late; a loss makes the guest wait for segments.
            let missing = counter(&guest.ns, "TCPOFOQueue") - ahead;
            assert_eq!(missing, 0, "segments that came before others");
            end_of(passt);
        }
    });
}

#[test]
fn a_guest_that_does_not_read_loses_nothing_of_a_stream() {
    // [TAP-4] [L2-13] [W-41] [T-32]: bounded memory, others go on, datagrams are lost and TCP is not
    Lab::run(|lab| {
        let (passt, socket) = lab.passt("-t 8080:80 -u 8053:53");
        let mut guest = lab.machine("vm", 1500);
        guest.plug(&socket);
        let server = listen(&guest.ns, at(HOST4, 80));
        let sink = udp(&guest.ns, at(HOST4, 53));
        let mut near = connect(&lab.remote, at(HOST4, 8080));
        let mut far = accept(&server);
        let data = pattern(8 << 20);
        let sent = data.clone();
        let writer = thread::spawn(move || near.write_all(&sent).map(|()| near));
        guest.freeze(true);
        let client = udp(&lab.remote, at(REMOTE4, 0));
        for _ in 0..2000 {
            client.send_to(&[7; 1000], at(HOST4, 8053)).unwrap();
        }
        thread::sleep(Duration::from_secs(3));
        assert!(resident(passt.pid) < 64 << 20, "{} bytes in memory", resident(passt.pid));
        let busy = passt.cpu();
        thread::sleep(Duration::from_millis(500));
        assert!(passt.cpu() - busy < Duration::from_millis(100), "spins on a full link");
        guest.freeze(false);
        let mut got = vec![0; data.len()];
        far.read_exact(&mut got).unwrap();
        assert!(got == data);
        drop(writer.join().unwrap().unwrap());
        let mut datagram = [0; 2000];
        assert_eq!(sink.recv(&mut datagram).unwrap(), 1000);
    });
}

#[test]
fn connections_outlast_the_guest_s_link() {
    // [LIFE-12] [TAP-8] The guest's link goes, in the middle of transfers, and comes back.
    Lab::run(|lab| {
        let (mut passt, socket) = lab.passt("-t 8080:80");
        let mut guest = lab.machine("vm", 1500);
        guest.plug(&socket);
        let inner = listen(&guest.ns, at(HOST4, 80));
        let outer = listen(&lab.remote, at(REMOTE6, 7000));
        let (near, far) = roundtrip(&guest.ns, at(REMOTE6, 7000), &outer);
        let client = connect(&lab.remote, at(HOST4, 8080));
        let accepted = accept(&inner);
        let transfers = thread::scope(|s| {
            let a = s.spawn(|| exchange(near, far, 16 << 20));
            let b = s.spawn(|| exchange(client, accepted, 16 << 20));
            for _ in 0..3 {
                thread::sleep(Duration::from_millis(30));
                guest.unplug();
                thread::sleep(Duration::from_millis(30));
                guest.plug(&socket);
            }
            (a.join(), b.join())
        });
        assert!(transfers.0.is_ok() && transfers.1.is_ok());
        assert!(passt.alive());
        // Somebody else's turn; what comes in finds the new guest without a word from it.
        guest.unplug();
        drop(inner);
        let mut other = lab.machine("other", 65520);
        let server = listen(&other.ns, at(HOST4, 80));
        other.plug(&socket);
        let near = connect(&lab.remote, at(HOST4, 8080));
        exchange(near, accept(&server), 1 << 20);
    });
}

#[test]
fn guests_come_and_go_in_the_middle_of_a_frame() {
    // [W-5] [TAP-3] [LIFE-12]: no byte, descriptor or page is left
    Lab::run(|lab| {
        let (mut passt, socket) = lab.passt("");
        let mut seed = 0x9e37_79b9_u32;
        let mut random = |n: usize| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as usize % n
        };
        let mut base = None;
        for n in 0..100 {
            let mut guest = Raw::connect(&socket);
            let mut stream: Vec<u8> = (0..random(4)).flat_map(|_| framed(&arp())).collect();
            stream.extend(framed(&vec![0x55; 14 + random(65_000)]));
            stream.truncate(random(stream.len() + 1));
            guest.0.write_all(&stream).unwrap();
            if n % 3 == 0 {
                let _ = guest.0.shutdown(std::net::Shutdown::Both);
            }
            drop(guest);
            let mut guest = Raw::connect(&socket);
            assert!(guest.is_served(1 + random(60)), "the guest after {n}");
            if n == 10 {
                base = Some((descriptors(passt.pid), resident(passt.pid)));
            }
        }
        let (fds, memory) = base.unwrap();
        eventually("descriptors are closed", SOON, || descriptors(passt.pid) <= fds);
        assert!(resident(passt.pid) < memory + (1 << 20), "{} after {memory}", resident(passt.pid));
        assert!(passt.alive());
    });
}

#[test]
fn bad_streams_end_the_connection_and_nothing_else() {
    // [L2-1] [TAP-2] [T-31] and each is told and counted
    Lab::run(|lab| {
        let (mut passt, socket) = talking(lab, "--debug");
        for (stream, what) in [
            (vec![0, 0, 0, 0], "a frame of length 0"),
            (vec![0, 0, 0, 13], "a frame of 13 bytes is shorter than an Ethernet header"),
            (vec![0, 1, 0, 0], "a frame of 65536 bytes is longer than 65535"),
            (vec![255, 255, 255, 255], "a frame of 4294967295 bytes is longer than 65535"),
        ] {
            let mut guest = Raw::connect(&socket);
            // What came before is served.
            guest.send(&arp());
            guest.0.write_all(&stream).unwrap();
            while guest.receive().is_some() {}
            eventually(what, SOON, || passt.stderr().contains(what));
        }
        for (cut, what) in [
            (2, "connection closed inside a frame: 2 of 4 bytes"),
            (40, "connection closed inside a frame: 40 of 64 bytes"),
        ] {
            let mut guest = Raw::connect(&socket);
            guest.0.write_all(&framed(&arp())[..cut]).unwrap();
            drop(guest);
            eventually(what, SOON, || passt.stderr().contains(what));
        }
        for len in [14, 65535] {
            let mut guest = Raw::connect(&socket);
            guest.send(&vec![0; len]);
            assert!(guest.is_served(64), "after a frame of {len} bytes");
        }
        passt.signal(Signal::SIGTERM);
        assert_eq!(passt.wait(SOON).code(), Some(0));
        let said = passt.stderr();
        assert!(said.contains("dropped: bad-frame-length 4"), "{said}");
        assert!(said.contains("dropped: frame-cut-off 2"), "{said}");
    });
}

#[test]
fn one_guest_at_a_time() {
    // [TAP-7] [T-34]
    Lab::run(|lab| {
        let (_passt, socket) = lab.passt("");
        let mut first = Raw::connect(&socket);
        assert!(first.is_served(64));
        for _ in 0..50 {
            let mut second = Raw::connect(&socket);
            assert_eq!(second.receive(), None);
        }
        assert!(first.is_served(3));
        drop(first);
        assert!(Raw::connect(&socket).is_served(1));
    });
}

#[test]
fn the_guest_is_asked_for_its_address() {
    // [TAP-8] [TAP-6] [T-33] [T-34] before it has said anything
    Lab::run(|lab| {
        let (_passt, socket) = lab.passt("");
        for _ in 0..3 {
            let mut guest = Raw::connect(&socket);
            let (arp, nd) = (guest.receive().unwrap(), guest.receive().unwrap());
            assert_eq!((arp.len(), &arp[12..14], &arp[20..22]), (60, &[8, 6][..], &[0, 1][..]));
            assert_eq!((&nd[12..14], nd[54]), (&[0x86, 0xdd][..], 135));
        }
    });
}

#[test]
fn the_background_process_is_ready_when_its_parent_has_ended() {
    // [LIFE-2] [LIFE-3] [LIFE-6] [LIFE-7] [T-11] [COMPAT-28]
    Lab::run(|lab| {
        for _ in 0..20 {
            let (mut passt, socket) = lab.passt("");
            let mut guest = Raw::connect(&socket);
            assert!(guest.is_served(64));
            passt.signal(Signal::SIGTERM);
            assert_eq!(passt.wait(SOON).code(), Some(0));
            while guest.receive().is_some() {}
            assert!(fs::metadata(&socket).unwrap().file_type().is_socket());
        }
    });
}

#[test]
fn in_the_foreground_with_a_pid_file() {
    // [LIFE-7] [SANDBOX-11]
    Lab::run(|lab| {
        let (file, socket) = (lab.fresh("pid"), lab.fresh("socket"));
        let mut command = lab.passt_command("-f -t none -u none");
        command.arg("--pid").arg(&file).arg("--socket").arg(&socket);
        let mut passt = lab.foreground(command);
        let said = || fs::read_to_string(&file).unwrap_or_default();
        eventually("the number is there", SOON, || said() == format!("{}\n", passt.pid));
        assert!(Raw::connect(&socket).is_served(64));
        passt.signal(Signal::SIGTERM);
        assert_eq!(passt.wait(SOON).code(), Some(0));
    });
}

#[test]
fn it_is_confined() {
    // [SANDBOX-3] [SANDBOX-7] [SANDBOX-9] [SANDBOX-10] [HAZ-7] [T-25] and works all the same, though it
    // was another process that opened everything
    Lab::run(|lab| {
        let (passt, socket) = lab.passt("");
        assert_powerless(passt.pid);
        let map = fs::read_to_string(format!("/proc/{}/uid_map", passt.pid)).unwrap();
        assert_eq!(map, "");
        for ns in ["user", "mnt", "ipc", "uts", "pid"] {
            let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{ns}")).unwrap();
            assert_ne!(of(&passt.pid.to_string()), of("self"), "{ns}");
        }
        assert!(Raw::connect(&socket).is_served(64));
    });
}

#[test]
fn one_off() {
    // [LIFE-12] [T-17] [COMPAT-36] ends with its first guest, not before
    Lab::run(|lab| {
        let (mut passt, socket) = lab.passt("--one-off");
        let mut guest = Raw::connect(&socket);
        assert!(guest.is_served(64));
        assert_eq!(Raw::connect(&socket).receive(), None, "refused");
        assert!(passt.alive());
        guest.0.write_all(&[0, 0]).unwrap();
        drop(guest);
        assert_eq!(passt.wait(SOON).code(), Some(0));
    });
}

/// Starts passt with one end of a connection as this descriptor; passt, and the other end.
fn on_descriptor(lab: &Lab, number: i32, options: &str) -> (Running, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = lab.passt_command(&format!("-f --fd {number} {options}"));
    // SAFETY: makes a copy, with a number that is none of those tested.
    let raw = unsafe { libc::fcntl(theirs.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 300) };
    // SAFETY: nobody else has the number.
    let theirs = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: only dup2(2), on a descriptor that lives until the child runs.
    unsafe {
        command.pre_exec(move || {
            if libc::dup2(raw, number) < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    // The hook runs after the standard streams are set up, so the number may be one of theirs.
    let passt = lab.foreground(command);
    drop(theirs);
    (passt, ours)
}

#[test]
fn a_descriptor_in_place_of_a_socket() {
    // [LIFE-4] [LIFE-5] [T-12] [COMPAT-36] [W-23]
    Lab::run(|lab| {
        for number in [0, 1, 3, 4, 200] {
            let (mut passt, ours) = on_descriptor(lab, number, "");
            ours.set_read_timeout(Some(SOON)).unwrap();
            let mut guest = Raw(ours);
            assert!(guest.is_served(64), "descriptor {number}");
            drop(guest);
            assert_eq!(passt.wait(SOON).code(), Some(0), "descriptor {number}");
        }
        // The last of contradicting options counts.
        let path = lab.fresh("unused");
        let (mut passt, ours) = on_descriptor(lab, 5, &format!("-s {}", path.display()));
        eventually("the path is used", SOON, || path.exists());
        let mut rest = Vec::new();
        assert_eq!((&ours).read_to_end(&mut rest).unwrap(), 0, "and the descriptor is closed");
        passt.signal(Signal::SIGTERM);
        passt.wait(SOON);
        // What is no connection is refused.
        for (command, named) in [("--fd 77", "77"), ("--fd 0", "--fd"), ("--fd -1", "-1")] {
            let out = output_within(&mut lab.passt_command(command), SOON);
            assert_eq!(out.status.code(), Some(1), "{out:?}");
            assert!(out.stderr.contains(named), "{out:?}");
        }
    });
}

#[test]
fn what_is_at_the_socket_path() {
    // [TAP-1] [W-12] [T-30]
    Lab::run(|lab| {
        let refused = |path: &Path, why: &str| {
            let mut command = lab.passt_command("-s");
            let out = output_within(command.arg(path), SOON);
            assert_eq!(out.status.code(), Some(1), "{out:?}");
            assert!(out.stderr.contains(why), "{out:?}");
        };
        let dir = lab.dir();
        let file = dir.join("file");
        fs::write(&file, "precious").unwrap();
        refused(&file, "is not a socket");
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
        let link = dir.join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        refused(&link, "is not a socket");
        assert!(fs::symlink_metadata(&link).unwrap().file_type().is_symlink());
        refused(&dir.join("no/where"), "No such file");
        let live = dir.join("live");
        let listener = UnixListener::bind(&live).unwrap();
        refused(&live, "in use");
        drop(listener);
        // Nobody listens there any more.
        let mut command = lab.passt_command("-s");
        command.arg(&live);
        let mut passt = lab.background(command);
        assert!(Raw::connect(&live).is_served(64));
        refused(&live, "in use");
        assert!(Raw::connect(&live).is_served(64));
        passt.signal(Signal::SIGTERM);
        passt.wait(SOON);
        // A start that fails leaves none behind.
        let failed = dir.join("failed");
        let mut command = lab.passt_command("--pid /nonexistent/pid -s");
        assert!(!output_within(command.arg(&failed), SOON).status.success());
        assert!(!failed.exists());
    });
}

#[test]
fn socket_paths_that_clients_know() {
    // [TAP-1] [CLI-17] [CLI-18]: the first that is free, and it is told, with how to connect
    Lab::run(|lab| {
        // The program may be below /tmp itself.
        let program = lab.dir().join("passt");
        fs::copy(lab.passt_command("").get_program(), &program).unwrap();
        let none = None::<&str>;
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("lab"), "/tmp", Some("tmpfs"), flags, none).unwrap();
        fs::write("/tmp/passt_2.socket", "").unwrap();
        for expected in [1, 3] {
            let passt = lab.background(Command::new(&program));
            let path = format!("/tmp/passt_{expected}.socket");
            let said = passt.stderr();
            assert!(said.lines().any(|l| l.ends_with(&format!(" {path}"))), "{said}");
            assert!(said.contains(&format!("addr.type=unix,addr.path={path}")), "{said}");
            assert!(said.contains("qrap 5 qemu-system-x86_64"), "{said}");
            assert!(Raw::connect(Path::new(&path)).is_served(64));
        }
    });
}

#[test]
fn a_flood_of_datagrams_leaves_the_link_to_others() {
    // [UDP-*] [TAP-4] what does not fit is lost, and the guest still answers
    Lab::run(|lab| {
        allow_pings(lab);
        let (_passt, socket) = lab.passt("-u 8053:53");
        let mut guest = lab.machine("vm", 1500);
        guest.plug(&socket);
        let sink = udp(&guest.ns, at(ANY6, 53));
        let client = udp(&lab.remote, at(REMOTE4, 0));
        for _ in 0..20_000 {
            client.send_to(&[7; 1400], at(HOST4, 8053)).unwrap();
        }
        guest.run_command(&format!("ping -c 1 -W 5 {REMOTE4}"));
        let mut got = [0; 2000];
        assert_eq!(sink.recv(&mut got).unwrap(), 1400);
    });
}

#[test]
fn bursts_of_short_datagrams_arrive_one_by_one() {
    // [TAP-6] [UDP-7] The guest's frames are whole, though they came as a train.
    Lab::run(|lab| {
        let (_passt, socket) = lab.passt("-u 8053:53");
        let mut guest = lab.machine("vm", 1500);
        guest.plug(&socket);
        for (remote, host) in [(REMOTE4, HOST4), (REMOTE6, HOST6)] {
            let server = udp(&guest.ns, at(host, 53));
            let client = udp(&lab.remote, at(remote, 0));
            // What arrives while the flow's own socket is made may be lost.
            client.send_to(&[0], at(host, 8053)).unwrap();
            assert_eq!(server.recv(&mut [0; 100]).unwrap(), 1);
            for round in 0..20_u8 {
                for n in 0..40_u8 {
                    client.send_to(&[round, n, 7], at(host, 8053)).unwrap();
                }
                for n in 0..40 {
                    let mut got = [0; 100];
                    let len = server.recv(&mut got).unwrap();
                    assert_eq!(got[..len], [round, n, 7], "{host}");
                }
            }
        }
    });
}

/// passt in the foreground, so that it can be heard, and its socket.
pub(crate) fn talking(lab: &Lab, options: &str) -> (Running, std::path::PathBuf) {
    let path = lab.fresh("guest.socket");
    let mut command: Command = lab.passt_command(&format!("-f {options}"));
    command.arg("-s").arg(&path);
    let passt = lab.foreground(command);
    eventually("passt listens", SOON, || UnixStream::connect(&path).is_ok());
    (passt, path)
}

fn end_of(mut passt: Running) {
    passt.signal(Signal::SIGTERM);
    assert_eq!(passt.wait(SOON).code(), Some(0));
}
