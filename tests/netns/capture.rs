//! `--pcap`: what the file holds, and what it must not disturb.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;

use crate::lab::{HOST4, Lab, REMOTE4, REMOTE6, SOON, at, eventually, output_within};
use crate::machine::{Raw, arp};
use crate::net::{accept, connect, listen, pass, pattern, roundtrip, udp};
use crate::pasta::QUIET;
use crate::stream::exchange;

/// A frame as captured.
struct Frame {
    time: f64,
    data: Vec<u8>,
}

impl Frame {
    /// TCP payload bytes from a port, if it is one.
    fn payload_from(&self, port: u16) -> Option<&[u8]> {
        let (protocol, at) = match self.data.get(12..14)? {
            [8, 0] => (*self.data.get(23)?, 34),
            _ => (*self.data.get(20)?, 54),
        };
        let tcp = self.data.get(at..).filter(|_| protocol == 6)?;
        let from = u16::from_be_bytes([tcp[0], tcp[1]]);
        (from == port).then(|| &tcp[usize::from(tcp[12] >> 4) * 4..])
    }
}

/// Reads a capture; it has to be complete to the last byte.
#[track_caller]
fn read(path: &Path) -> Vec<Frame> {
    let file = fs::read(path).unwrap();
    assert_eq!(file[..4], 0xa1b2_c3d4_u32.to_ne_bytes(), "magic number");
    let mut frames = Vec::new();
    let mut rest = &file[24..];
    while !rest.is_empty() {
        let word = |n: usize| u32::from_ne_bytes(rest[4 * n..4 * n + 4].try_into().unwrap());
        let (seconds, micros, len) = (word(0), word(1), word(2) as usize);
        assert!(micros < 1_000_000 && word(3) as usize == len && len >= 14);
        assert!(rest.len() >= 16 + len, "the last record is cut off");
        let data = rest[16..16 + len].to_vec();
        frames.push(Frame { time: f64::from(seconds) + f64::from(micros) / 1e6, data });
        rest = &rest[16 + len..];
    }
    frames
}

/// What tcpdump makes of it, every checksum looked at.
#[track_caller]
fn tcpdump(path: &Path) -> String {
    // Root would become another user, who may not read our files; so it is not to look like root.
    let mut command = Command::new("unshare");
    command.args(["--user", "tcpdump", "-nvvr"]).arg(path);
    let out = output_within(&mut command, Duration::from_secs(60));
    assert!(out.status.success(), "{out:?}");
    for line in out.stdout.lines() {
        let bad =
            line.contains("incorrect") || line.contains("bad cksum") || line.contains("bad udp");
        assert!(!bad, "{line}");
    }
    assert!(!out.stderr.contains("truncated"), "{}", out.stderr);
    out.stdout
}

#[test]
fn both_directions_as_they_crossed_the_tap() {
    // [PCAP-1] [PCAP-2] [PCAP-3] [PCAP-5]
    Lab::run(|lab| {
        let path = lab.dir().join("pcap");
        let before =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        let mut guest = lab.guest(&format!("{QUIET} --pcap {}", path.display()));
        for remote in [REMOTE4, REMOTE6] {
            let server = listen(&lab.remote, at(remote, 7000));
            let near = connect(&guest.ns, at(remote, 7000));
            exchange(near, accept(&server), 6 << 20);
            let (server, client) =
                (udp(&lab.remote, at(remote, 17_001)), udp(&guest.ns, any(remote)));
            client.send_to(&[1; 900], at(remote, 17_001)).unwrap();
            let (_, peer) = server.recv_from(&mut [0; 1000]).unwrap();
            server.send_to(&[2; 800], peer).unwrap();
            client.recv(&mut [0; 1000]).unwrap();
        }
        guest.pasta.signal(Signal::SIGTERM);
        assert_eq!(guest.pasta.wait(SOON).code(), Some(0));
        let frames = read(&path);
        assert!(frames.iter().all(|f| f.time >= before && f.time < before + 60.0));
        // What was sent to the guest, and may have been sent twice.
        let sent: Vec<_> = frames.iter().filter_map(|f| f.payload_from(7000)).collect();
        let total: usize = sent.iter().map(|p| p.len()).sum();
        assert!((6 << 20..7 << 20).contains(&total), "{total}");
        assert!(sent.iter().any(|p| p.len() > 10_000), "trains are shown whole");
        let ours = [0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55];
        assert!(frames.iter().filter(|f| f.data[6..12] == ours).all(|f| f.data.len() >= 60));
        let text = tcpdump(&path);
        assert!(text.contains("UDP, length 900") && text.contains("UDP, length 800"), "{text}");
    });
}

fn any(like: IpAddr) -> std::net::SocketAddr {
    at(if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }, 0)
}

#[test]
fn segments_of_a_machine_are_shown_one_by_one() {
    // [PCAP-2] [PCAP-3] without offloads nothing is longer than the link allows
    Lab::run(|lab| {
        let path = lab.dir().join("pcap");
        let (mut passt, socket) = lab.passt(&format!("-m 1500 --pcap {}", path.display()));
        let mut guest = lab.machine("vm", 1500);
        guest.plug(&socket);
        for remote in [REMOTE4, REMOTE6] {
            let server = listen(&lab.remote, at(remote, 7000));
            let (near, far) = roundtrip(&guest.ns, at(remote, 7000), &server);
            exchange(near, far, 1 << 20);
        }
        passt.signal(Signal::SIGTERM);
        assert_eq!(passt.wait(SOON).code(), Some(0));
        let frames = read(&path);
        let longest = frames.iter().map(|f| f.data.len()).max().unwrap();
        assert!(frames.len() > 2000 && longest == 1514, "{} {longest}", frames.len());
        tcpdump(&path);
    });
}

#[test]
fn frames_of_a_machine_are_shown_as_it_sent_and_got_them() {
    // [L2-14] [TAP-16] without their lengths; also those that nobody understands, which are
    // answered by nobody, and not those that never left
    Lab::run(|lab| {
        let path = lab.dir().join("pcap");
        let (mut passt, socket) = lab.passt(&format!("--pcap {} -u 8053:53", path.display()));
        let client = udp(&lab.remote, at(REMOTE4, 0));
        client.send_to(b"nobody is there", at(HOST4, 8053)).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        let mut guest = Raw::connect(&socket);
        let mut sent = vec![arp()];
        for ethertype in [[0x88, 0xcc], [0x81, 0], [0x88, 0xa8], [0x88, 0x63], [0, 46]] {
            let mut other = arp();
            other[12..14].copy_from_slice(&ethertype);
            sent.push(other);
        }
        sent.push(arp()[..14].to_vec());
        sent.push(arp());
        for frame in &sent {
            guest.send(frame);
        }
        let mut got = Vec::new();
        let replies = |got: &[Vec<u8>]| got.iter().filter(|f| f[20..22] == [0, 2]).count();
        while replies(&got) < 2 {
            got.push(guest.receive().unwrap());
        }
        passt.signal(Signal::SIGTERM);
        assert_eq!(passt.wait(SOON).code(), Some(0));
        got.extend(std::iter::from_fn(|| guest.receive()));
        assert_eq!(replies(&got), 2);
        let frames = read(&path).into_iter().map(|f| f.data);
        let (from_us, from_guest): (Vec<_>, Vec<_>) = frames.partition(|f| f[6..8] == [0x9a, 0x55]);
        assert_eq!((from_guest, from_us), (sent, got));
    });
}

#[test]
fn a_full_disk_costs_frames_and_nothing_else() {
    // [PCAP-4] [T-29] what was lost is counted, and what is there can be read
    Lab::run(|lab| {
        let dir = lab.dir().join("full");
        fs::create_dir(&dir).unwrap();
        mount(Some("full"), &dir, Some("tmpfs"), MsFlags::empty(), Some("size=300k")).unwrap();
        let path = dir.join("pcap");
        let mut guest = lab.guest(&format!("{QUIET} -d --runas 0 --pcap {}", path.display()));
        let server = listen(&lab.remote, at(REMOTE4, 7000));
        let (near, far) = roundtrip(&guest.ns, at(REMOTE4, 7000), &server);
        exchange(near, far, 8 << 20);
        let said = guest.pasta.stderr();
        assert_eq!(said.matches("No space left on device").count(), 1, "{said}");
        guest.pasta.signal(Signal::SIGTERM);
        assert_eq!(guest.pasta.wait(SOON).code(), Some(0));
        let frames = read(&path);
        assert!(!frames.is_empty());
        tcpdump(&path);
        assert!(guest.pasta.stderr().contains("frames are missing"), "{}", guest.pasta.stderr());
    });
}

#[test]
fn capturing_goes_on_when_there_is_room_again() {
    // [PCAP-4]
    Lab::run(|lab| {
        let dir = lab.dir().join("full");
        fs::create_dir(&dir).unwrap();
        mount(Some("full"), &dir, Some("tmpfs"), MsFlags::empty(), Some("size=100k")).unwrap();
        let path = dir.join("pcap");
        let mut guest = lab.guest(&format!("{QUIET} --runas 0 --pcap {}", path.display()));
        let server = listen(&lab.remote, at(REMOTE4, 7000));
        let (mut near, mut far) = roundtrip(&guest.ns, at(REMOTE4, 7000), &server);
        for _ in 0..20 {
            pass(&mut near, &mut far, &pattern(100_000));
        }
        mount(Some("full"), &dir, Some("tmpfs"), MsFlags::MS_REMOUNT, Some("size=50m")).unwrap();
        let len = || fs::metadata(&path).unwrap().len();
        let before = len();
        eventually("more is captured", SOON, || {
            pass(&mut near, &mut far, &pattern(1000));
            len() > before + 100_000
        });
        guest.pasta.signal(Signal::SIGTERM);
        assert_eq!(guest.pasta.wait(SOON).code(), Some(0));
        read(&path);
        tcpdump(&path);
    });
}

#[test]
fn a_capture_that_cannot_be_had_is_told() {
    // [CLI table -p] and the rest works
    Lab::run(|lab| {
        let line = format!("-q {QUIET} -p /nonexistent/pcap -- true");
        let out = output_within(&mut lab.command(&line), SOON);
        let told = "cannot capture in /nonexistent/pcap: No such file or directory";
        assert!(out.status.success() && out.stderr.contains(told), "{out:?}");
    });
}

#[test]
fn loopback_alone_has_nothing_to_capture() {
    // [FWD-8]
    Lab::run(|lab| {
        let path = lab.dir().join("pcap");
        let line = format!("-q --splice-only -p {} -- true", path.display());
        output_within(&mut lab.command(&line), SOON).ok();
        assert!(read(&path).is_empty());
    });
}
