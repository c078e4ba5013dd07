//! A guest that sends frames as fast as it can, to use up what we have.
//!
//! The frames come from a packet socket on the guest's interface, past its network stack. While they
//! come an ordinary connection has to go on, and afterwards everything has to be as it was: memory,
//! descriptors, and room for new connections.

#![allow(clippy::cast_possible_truncation)]

use std::io;
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::crowd::{descriptors, resident};
use crate::lab::{HOST4, Lab, REMOTE4, SOON, at, eventually, output_within};
use crate::net::{listen, pass, pattern, roundtrip};
use crate::ns::Ns;
use crate::pasta::{Guest, QUIET};

/// How long an attack goes on.
const TIME: Duration = Duration::from_secs(2);

/// What a process may grow by: the records of all flows that descriptors allow, and reassembly.
const GROWTH: usize = 48 << 20;

/// How long flows to nowhere may take to end.
const END: Duration = Duration::from_secs(60);

/// A cheap sequence of numbers that looks like noise.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next().to_le_bytes()[3])
    }
}

/// A packet socket on the guest's interface.
struct Wire {
    fd: OwnedFd,
    mac: [u8; 6],
}

impl Wire {
    fn open(ns: &Ns) -> Wire {
        let shown = output_within(ns.command("ip").args(["-o", "link", "show", "up0"]), SOON).ok();
        let word =
            |n: &str| shown.split_whitespace().skip_while(|w| *w != n).nth(1).map(String::from);
        let mac = word("link/ether").expect("an Ethernet interface");
        let mut bytes = mac.split(':').map(|b| u8::from_str_radix(b, 16).unwrap());
        let mac = std::array::from_fn(|_| bytes.next().unwrap());
        let index: i32 = shown.split(':').next().unwrap().trim().parse().unwrap();
        let fd = ns.enter(|| packet_socket(index)).unwrap();
        Wire { fd, mac }
    }

    /// A frame of this type. Whom it is for does not matter.
    fn frame(&self, ethertype: u16, payload: &[u8]) -> Vec<u8> {
        [&[0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55], &self.mac[..], &ethertype.to_be_bytes(), payload]
            .concat()
    }

    fn send(&self, frame: &[u8]) {
        // SAFETY: the frame is there during the call. What the queue does not take is lost.
        unsafe {
            libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), libc::MSG_DONTWAIT)
        };
    }
}

fn packet_socket(index: i32) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor, which nobody else knows.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all-zero is a valid address.
    let mut addr: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    addr.sll_family = libc::AF_PACKET as u16;
    addr.sll_ifindex = index;
    // SAFETY: the address is there during the call, and as long as we say.
    let bound = unsafe {
        let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        libc::bind(fd.as_raw_fd(), (&raw const addr).cast(), len)
    };
    if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(fd) }
}

/// An IPv4 packet. Checksums are not looked at on this link.
fn ipv4(protocol: u8, fragment: u16, (src, dst): (Ipv4Addr, Ipv4Addr), payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() + 20) as u16;
    let id = (payload.len() as u16).to_be_bytes();
    let head =
        [0x45, 0, (len >> 8) as u8, len as u8, id[0], id[1], (fragment >> 8) as u8, fragment as u8];
    [&head, &[64, protocol, 0, 0][..], &src.octets(), &dst.octets(), payload].concat()
}

fn guest4() -> Ipv4Addr {
    match HOST4 {
        std::net::IpAddr::V4(a) => a,
        std::net::IpAddr::V6(_) => unreachable!(),
    }
}

fn remote4() -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 0, 3)
}

fn tcp(ports: [u8; 4], seq: [u8; 8], flags: u8, payload: &[u8]) -> Vec<u8> {
    [&ports[..], &seq, &[0x50, flags, 0xff, 0xff, 0, 0, 0, 0], payload].concat()
}

/// Sends frames that `next` makes for [`TIME`], with a connection that has to go on meanwhile.
#[track_caller]
fn withstands(
    lab: &Lab,
    guest: &mut Guest,
    mut next: impl FnMut(&Wire, &mut Noise) -> Vec<u8> + Send,
) -> usize {
    let wire = Wire::open(&guest.ns);
    let server = listen(&lab.remote, at(REMOTE4, 9000));
    let (mut near, mut far) = roundtrip(&guest.ns, at(REMOTE4, 9000), &server);
    let pid = guest.pasta.pid;
    let (memory, open) = (resident(pid), descriptors(pid));
    let over = AtomicBool::new(false);
    let rounds = thread::scope(|scope| {
        let attack = scope.spawn(|| {
            let (mut noise, start, mut n) = (Noise(0x9e37_79b9_7f4a_7c15), Instant::now(), 0u64);
            while start.elapsed() < TIME {
                for _ in 0..64 {
                    wire.send(&next(&wire, &mut noise));
                    n += 1;
                }
            }
            over.store(true, Ordering::Relaxed);
            n
        });
        let rounds = exchange(&over, &mut near, &mut far);
        println!(
            "{} frames, {rounds} rounds, {} descriptors",
            attack.join().unwrap(),
            descriptors(pid)
        );
        rounds
    });
    // How fast depends on who else wants the processors; frames queue up with those of the attack.
    assert!(rounds > 0, "no exchange in {TIME:?}");
    let grown = resident(pid).saturating_sub(memory);
    assert!(grown < GROWTH, "{grown} bytes");
    assert!(guest.pasta.alive());
    // There is room again at once.
    let (mut near, mut far) = roundtrip(&guest.ns, at(REMOTE4, 9000), &server);
    pass(&mut near, &mut far, b"still here");
    open
}

/// As [`withstands`], and nothing is left.
#[track_caller]
fn outlasts(lab: &Lab, guest: &mut Guest, next: impl FnMut(&Wire, &mut Noise) -> Vec<u8> + Send) {
    let open = withstands(lab, guest, next);
    let pid = guest.pasta.pid;
    eventually("everything is closed", END, || descriptors(pid) <= open + 64);
}

/// Goes on until it is over; how often.
fn exchange(over: &AtomicBool, near: &mut TcpStream, far: &mut TcpStream) -> u64 {
    let (message, mut rounds) = (pattern(20_000), 0);
    while !over.load(Ordering::Relaxed) {
        pass(near, far, &message);
        pass(far, near, &message);
        rounds += 1;
    }
    rounds
}

#[test]
fn connections_to_nowhere() {
    // The host's kernel goes on trying for two minutes.
    Lab::run(|lab| {
        let mut guest = lab.guest(QUIET);
        withstands(lab, &mut guest, |wire, noise| {
            let dead = Ipv4Addr::new(10, 9, 0, 100 + (noise.next() % 100) as u8);
            let syn = tcp(noise.bytes(), noise.bytes(), 2, &[]);
            wire.frame(0x0800, &ipv4(6, 0, (guest4(), dead), &syn))
        });
    });
}

#[test]
fn segments_of_no_connection() {
    Lab::run(|lab| {
        let mut guest = lab.guest(QUIET);
        outlasts(lab, &mut guest, |wire, noise| {
            let flags = noise.bytes::<1>()[0] & !2;
            let segment = tcp(noise.bytes(), noise.bytes(), flags, &noise.bytes::<8>());
            wire.frame(0x0800, &ipv4(6, 0, (guest4(), remote4()), &segment))
        });
    });
}

#[test]
fn datagrams_from_and_to_every_port() {
    // Far more flows than there are descriptors: those without an answer make room.
    Lab::run(|lab| {
        let mut guest = lab.guest(QUIET);
        outlasts(lab, &mut guest, |wire, noise| {
            let datagram = [&noise.bytes::<4>()[..], &[0, 12, 0, 0, 1, 2, 3, 4]].concat();
            wire.frame(0x0800, &ipv4(17, 0, (guest4(), remote4()), &datagram))
        });
    });
}

#[test]
fn pings_of_every_identifier() {
    Lab::run(|lab| {
        let mut guest = lab.guest(QUIET);
        outlasts(lab, &mut guest, |wire, noise| {
            let echo = [&[8, 0, 0, 0][..], &noise.bytes::<4>(), b"ping"].concat();
            wire.frame(0x0800, &ipv4(1, 0, (guest4(), remote4()), &echo))
        });
    });
}

#[test]
fn fragments_without_an_end() {
    Lab::run(|lab| {
        let mut guest = lab.guest(QUIET);
        outlasts(lab, &mut guest, |wire, noise| {
            let offset = (noise.next() % 8000) as u16;
            let size = 8 * (1 + noise.next() % 100) as usize;
            wire.frame(0x0800, &ipv4(17, 0x2000 | offset, (guest4(), remote4()), &vec![7; size]))
        });
    });
}

#[test]
fn questions_for_every_neighbour() {
    Lab::run(|lab| {
        let mut guest = lab.guest(QUIET);
        outlasts(lab, &mut guest, |wire, noise| {
            if noise.next() % 2 == 0 {
                let target = [10, 9, noise.bytes::<1>()[0], noise.bytes::<1>()[0]];
                let who = [&wire.mac[..], &guest4().octets(), &[0; 6], &target].concat();
                wire.frame(0x0806, &[&[0, 1, 8, 0, 6, 4, 0, 1][..], &who].concat())
            } else {
                let link_local =
                    |low: [u8; 8]| [&[0xfe, 0x80, 0, 0, 0, 0, 0, 0][..], &low].concat();
                let (src, target) = (link_local(noise.bytes()), link_local(noise.bytes()));
                let ns = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target, &[1, 1], &wire.mac].concat();
                let head = [&[0x60, 0, 0, 0, 0, 32, 58, 255][..], &src, &target].concat();
                wire.frame(0x86dd, &[head, ns].concat())
            }
        });
    });
}

#[test]
fn noise() {
    Lab::run(|lab| {
        let mut guest = lab.guest(QUIET);
        outlasts(lab, &mut guest, |wire, noise| {
            let ethertype = [0x0800, 0x86dd, 0x0806, 0x8100][(noise.next() % 4) as usize];
            let mut bytes = noise.bytes::<120>();
            bytes[0] = if ethertype == 0x0800 { 0x45 } else { 0x60 };
            wire.frame(ethertype, &bytes[..(noise.next() % 120) as usize])
        });
    });
}
