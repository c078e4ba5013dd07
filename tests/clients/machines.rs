//! Calls of programs that run virtual machines: libkrun, muvm, crun, libguestfs, KubeVirt and QEMU
//! itself, their words and what they do with descriptors, by a guest that is a few frames.

use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::calls::gone;
use crate::lab::{HOST4, Lab, REMOTE4, SOON, at, eventually, output_within};
use crate::machine::{Raw, framed};
use crate::net::{accept, connect, listen, udp};

/// The guest's address on the link.
const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];

/// A socket pair: our end as a guest's, and the command with the other end as descriptor `number`.
fn with_descriptor(mut command: Command, number: RawFd) -> (Raw, Command) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(SOON)).unwrap();
    // SAFETY: the hook makes one system call; the descriptor lives as long as the hook.
    unsafe {
        command.pre_exec(move || {
            if libc::dup2(theirs.as_raw_fd(), number) < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    (Raw(ours), command)
}

fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let mut sum: u32 =
        bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

/// An IPv4 packet in a frame to our gateway.
fn packet(protocol: u8, from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut ip = vec![0x45, 0, len[0], len[1], 0, 0, 0x40, 0, 64, protocol, 0, 0];
    ip.extend(from.octets());
    ip.extend(to.octets());
    let sum = (!checksum(&[&ip])).to_be_bytes();
    ip[10..12].copy_from_slice(&sum);
    [&[0xff; 6][..], &MAC, &[8, 0], &ip, payload].concat()
}

fn datagram(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + data.len()).unwrap();
    let head = [from.1, to.1, len, 0].map(u16::to_be_bytes).concat();
    packet(17, from.0, to.0, &[&head, data].concat())
}

/// As libkrun's: a DISCOVER that asks for an address at once, in a broadcast.
fn discover(options: &[u8]) -> Vec<u8> {
    let mut bootp = vec![1, 1, 6, 0, 1, 2, 3, 4, 0, 0, 0x80, 0];
    bootp.extend([0; 16]);
    bootp.extend(MAC);
    bootp.extend([0; 10 + 64 + 128]);
    bootp.extend([0x63, 0x82, 0x53, 0x63, 53, 1, 1]);
    bootp.extend(options);
    bootp.extend([55, 4, 1, 3, 6, 26, 255]);
    datagram((Ipv4Addr::UNSPECIFIED, 68), (Ipv4Addr::BROADCAST, 67), &bootp)
}

/// Codes and values.
type Options = Vec<(u8, Vec<u8>)>;

/// The next answer by DHCP: its assigned address, options, and the frame.
#[track_caller]
fn dhcp_answer(guest: &mut Raw) -> (Ipv4Addr, Options, Vec<u8>) {
    let frame = loop {
        let frame = guest.receive().expect("an answer");
        if frame.len() > 282 && frame[12..14] == [8, 0] && frame[34..36] == [0, 67] {
            break frame;
        }
    };
    let bootp = &frame[42..];
    let assigned: [u8; 4] = bootp[16..20].try_into().unwrap();
    let (mut rest, mut options) = (&bootp[240..], Vec::new());
    while let [code, len, tail @ ..] = rest {
        if *code == 255 {
            break;
        }
        let (value, tail) = tail.split_at(usize::from(*len));
        options.push((*code, value.to_vec()));
        rest = tail;
    }
    (assigned.into(), options, frame)
}

fn option(options: &[(u8, Vec<u8>)], code: u8) -> Option<&[u8]> {
    options.iter().find(|(c, _)| *c == code).map(|(_, value)| value.as_slice())
}

#[test]
fn crun_runs_a_machine() {
    // [COMPAT-27] [COMPAT-28] [COMPAT-35] [COMPAT-36]: every port, silent, in the background
    Lab::run(|lab| {
        for words in ["-t all --no-map-gw", "-t all -u all --no-dhcp-dns --no-map-gw"] {
            let pid = lab.fresh("pid");
            let command = lab.passt_command(&format!("{words} --pid {} --fd 7", pid.display()));
            let (mut guest, mut command) = with_descriptor(command, 7);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let start = Instant::now();
            assert!(command.status().unwrap().success(), "{words}");
            assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
            drop(command);
            assert!(guest.is_served(64));
            let pid = fs::read_to_string(pid).unwrap();
            let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap();
            let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
            let rss: u64 = rss.trim().trim_end_matches(" kB").parse().unwrap();
            assert!(rss < 250 << 10, "{rss} KiB");
            // It has no other end of ours than the one it was given.
            drop(guest);
            gone(&pid);
        }
    });
}

#[test]
fn muvm_spawns_and_forgets() {
    // [COMPAT-17] [COMPAT-30] [COMPAT-36]
    Lab::run(|lab| {
        let command = lab.passt_command("-q -f --fd 21 -t 127.0.0.1/8000-8001:9000-9001");
        let (mut guest, mut command) = with_descriptor(command, 21);
        let mut child = command.spawn().unwrap();
        drop(command);
        assert!(guest.is_served(64));
        let host = at(Ipv4Addr::LOCALHOST.into(), 8001);
        eventually("the port is open", SOON, || std::net::TcpStream::connect(host).is_ok());
        drop(guest);
        assert_eq!(child.wait().unwrap().code(), Some(0));
    });
}

#[test]
fn libkrun_asks_for_an_address_and_has_no_patience() {
    // [COMPAT-61] [COMPAT-69]: within 100 ms in earnest; here the machine may be busy
    Lab::run(|lab| {
        let (_passt, socket) = lab.passt("-4 -D 10.9.0.53");
        let mut guest = Raw::connect(&socket);
        for part in framed(&discover(&[80, 0])).chunks(1) {
            std::io::Write::write_all(&mut guest.0, part).unwrap();
        }
        let (assigned, options, frame) = dhcp_answer(&mut guest);
        assert_eq!(IpAddr::from(assigned), HOST4);
        assert_eq!(option(&options, 53), Some(&[5][..]), "acknowledged at once");
        assert_eq!(option(&options, 80), Some(&[][..]));
        assert_eq!(option(&options, 1), Some(&[255, 255, 255, 0][..]));
        assert_eq!(option(&options, 3), Some(&[10, 9, 0, 1][..]));
        assert_eq!(option(&options, 6), Some(&[10, 9, 0, 53][..]));
        assert_eq!(option(&options, 26), Some(&65_520_u16.to_be_bytes()[..]));
        assert!(frame.len() <= 14 + 576, "{}", frame.len());
        // Without it: an offer. To all, as it has no address yet.
        guest.send(&discover(&[]));
        let (_, options, frame) = dhcp_answer(&mut guest);
        assert_eq!(option(&options, 53), Some(&[2][..]));
        assert_eq!(frame[30..34], [255; 4]);
    });
}

#[test]
fn libkrun_leaves_checksums_and_segments_to_us() {
    // [COMPAT-62]: frames of up to 64 KiB, transport checksums of the pseudo-header alone
    Lab::run(|lab| {
        let (_passt, socket) = lab.passt("-4");
        let mut guest = Raw::connect(&socket);
        let (IpAddr::V4(us), IpAddr::V4(remote)) = (HOST4, REMOTE4) else { unreachable!() };
        // A datagram of almost 60 KB.
        let sink = udp(&lab.remote, at(REMOTE4, 7001));
        let data = crate::net::pattern(59_000);
        guest.send(&datagram((us, 1000), (remote, 7001), &data));
        let mut got = vec![0; 65_536];
        let n = sink.recv(&mut got).unwrap();
        assert!(got[..n] == data, "{n} bytes");
        // A connection, and 50 KB in one segment.
        let server = listen(&lab.remote, at(REMOTE4, 7000));
        let segment = |seq: u32, ack: u32, flags: u8, data: &[u8]| {
            let mut tcp = [&1234_u16.to_be_bytes()[..], &7000_u16.to_be_bytes()].concat();
            tcp.extend(seq.to_be_bytes());
            tcp.extend(ack.to_be_bytes());
            tcp.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
            let len = u16::try_from(20 + data.len()).unwrap().to_be_bytes();
            let sum = checksum(&[&us.octets(), &remote.octets(), &[0, 6], &len]);
            tcp[16..18].copy_from_slice(&sum.to_be_bytes());
            packet(6, us, remote, &[&tcp, data].concat())
        };
        guest.send(&segment(1, 0, 2, &[]));
        let mut peer = accept(&server);
        let ack = loop {
            let frame = guest.receive().unwrap();
            if frame[12..14] == [8, 0] && frame[23] == 6 && frame[47] & 0x12 == 0x12 {
                let seq: [u8; 4] = frame[38..42].try_into().unwrap();
                break u32::from_be_bytes(seq).wrapping_add(1);
            }
        };
        guest.send(&segment(2, ack, 0x18, &data[..50_000]));
        let mut got = vec![0; 50_000];
        peer.read_exact(&mut got).unwrap();
        assert!(got == data[..50_000]);
    });
}

#[test]
fn libguestfs_asks_first_and_then_starts() {
    // [COMPAT-5] [COMPAT-10] [COMPAT-39] [COMPAT-64] [COMPAT-71]
    Lab::run(|lab| {
        let help = output_within(lab.passt_command("").arg("--help"), SOON);
        assert_eq!(help.status.code(), Some(0));
        let (socket, pid) = (lab.fresh("sock"), lab.fresh("pid"));
        let mut command = lab.passt_command("--one-off --socket");
        command.arg(&socket).arg("--pid").arg(&pid).args(
            "--address 169.254.2.15 --netmask 16 --mac-addr 52:56:00:00:00:02 --gateway 169.254.2.2"
                .split_whitespace(),
        );
        output_within(&mut command, SOON).ok();
        let text = fs::read_to_string(&pid).unwrap();
        assert!(text.trim_end().parse::<u32>().unwrap() > 1 && text.ends_with('\n'));
        let mut guest = Raw::connect(&socket);
        guest.send(&discover(&[]));
        let (assigned, options, frame) = dhcp_answer(&mut guest);
        assert_eq!(assigned, Ipv4Addr::new(169, 254, 2, 15));
        assert_eq!(option(&options, 1), Some(&[255, 255, 0, 0][..]));
        assert_eq!(option(&options, 3), Some(&[169, 254, 2, 2][..]));
        assert_eq!(frame[6..12], [0x52, 0x56, 0, 0, 0, 2]);
        drop(guest);
        gone(&text);
    });
}

#[test]
fn kubevirt_behind_a_service_mesh() {
    // [COMPAT-16] [COMPAT-19] [COMPAT-40]: exclusions come first, and may be all there is
    Lab::run(|lab| {
        let mesh = "~15000,~15001,~15004,~15006,~15008,~15009,~15020,~15021,~15053,~15090";
        for (spec, open) in [(mesh.to_owned(), 9_000), (format!("{mesh},8080"), 8080)] {
            let (socket, pid, log) = (lab.fresh("sock"), lab.fresh("pid"), lab.fresh("log"));
            let mut command = lab.passt_command("--one-off --socket");
            command.arg(&socket).arg("--pid").arg(&pid);
            command.args(["--interface", "up0", "--log-file"]).arg(&log);
            command.args(["--tcp-ports", &spec]).env_clear().current_dir("/");
            output_within(&mut command, Duration::from_secs(60)).ok();
            let _guest = Raw::connect(&socket);
            drop(connect(&lab.remote, at(HOST4, open)));
            for closed in [15_001, 15_090] {
                assert!(
                    crate::net::try_connect(&lab.remote, at(HOST4, closed)).is_err(),
                    "{closed}"
                );
            }
            assert!(fs::read_to_string(&log).unwrap().contains("assign: 10.9.0.2"));
            drop(_guest);
            gone(&fs::read_to_string(&pid).unwrap());
        }
    });
}

#[test]
fn qemu_starts_us_again_and_again() {
    // [COMPAT-8] [COMPAT-12] [COMPAT-36] [COMPAT-39] [COMPAT-65] [COMPAT-73] -netdev passt
    Lab::run(|lab| {
        let pid_file = lab.dir().join("pid");
        fs::write(&pid_file, "").unwrap();
        for round in 0..5 {
            let mut command = lab.passt_command(
                "--quiet --mtu 1500 --address 10.0.2.15 --netmask 255.255.255.0 --mac-addr \
                 52:55:0a:00:02:02 --gateway 10.0.2.2 --dns 10.0.2.3 --fqdn vm.example \
                 --dns-forward 10.0.2.3 --dns-host 10.9.0.53 --ipv4-only --no-dhcpv6 --tcp-ports \
                 8080:80,8443:443 --udp-ports 8053:53 --search",
            );
            command.arg("a.example b.example").arg("--pid").arg(&pid_file).args(["--fd", "3"]);
            let (mut guest, mut command) = with_descriptor(command, 3);
            let out = command.stdin(Stdio::null()).output().unwrap();
            assert!(out.status.success(), "round {round}: {out:?}");
            drop(command);
            let pid = fs::read_to_string(&pid_file).unwrap();
            assert!(pid.trim().parse::<i32>().unwrap() > 0);
            guest.send(&discover(&[]));
            let (assigned, options, _) = dhcp_answer(&mut guest);
            assert_eq!(assigned, Ipv4Addr::new(10, 0, 2, 15));
            assert_eq!(option(&options, 6), Some(&[10, 0, 2, 3][..]));
            // It ends us by a signal, or by the end of the connection.
            if round % 2 == 0 {
                let pid = nix::unistd::Pid::from_raw(pid.trim().parse().unwrap());
                nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
            }
            drop(guest);
            gone(&pid);
        }
    });
}

#[test]
fn any_name_that_callers_use() {
    // [COMPAT-1] as a link, a copy, below another directory, with a suffix
    Lab::run(|lab| {
        let dir = lab.dir().join("elsewhere");
        fs::create_dir(&dir).unwrap();
        let program = lab.passt_command("").get_program().to_owned();
        for (name, linked, first) in [
            ("passt", false, "passt "),
            ("pasta", true, "pasta "),
            ("pasta.avx2", true, "pasta "),
            ("passt.avx2", false, "passt "),
        ] {
            let path = dir.join(name);
            if linked {
                std::os::unix::fs::symlink(&program, &path).unwrap();
            } else {
                fs::copy(&program, &path).unwrap();
            }
            let text = output_within(Command::new(&path).arg("--version"), SOON).ok();
            assert!(text.starts_with(first), "{name}: {text}");
        }
    });
}
