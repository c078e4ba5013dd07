//! Thousands of flows of datagrams at a time, and a thousand new ones a second for as long as wanted.
//!
//! # Theory of operation
//!
//! One thread in the guest asks, one in `remote` sends everything back, the test watches pasta
//! meanwhile. Each question has a number of its own; what comes back has to be the question, from
//! where it was sent to. Questions are asked once: a reply that is not there after [`PATIENCE`] is lost.
//!
//! A flow needs a descriptor of pasta's until it was idle for 30 seconds, or for [`IDLE`] if it is a
//! conversation, as are the [`FLOWS`] that are opened at the beginning. A thousand new ones a second
//! would be 30 000 at a time on top of those, and a process may have 20 000 descriptors in many
//! places. So most of them end early, to make room.
#![allow(clippy::cast_possible_truncation)]

use std::collections::VecDeque;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{setsockopt, sockopt};

use crate::crowd::{descriptor_limit, descriptors, resident};
use crate::lab::{Lab, REMOTE4, REMOTE6, SOON, at, eventually, soak};
use crate::ns::Ns;
use crate::pasta::QUIET;

/// Flows at a time.
const FLOWS: usize = 15_000;

/// New ones in a second, later.
const RATE: u64 = 1000;

/// Idle seconds after which any flow ends: half of what is usual, so that the test does.
const IDLE: u64 = 60;

/// Ports of the server, in either family.
const PORTS: std::ops::Range<u16> = 7000..7016;

/// Questions without an answer yet at which no other is asked.
const AHEAD: usize = 256;

/// A reply that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends back whatever comes, until `done`; counts.
struct Echo {
    sockets: Vec<UdpSocket>,
    epoll: Epoll,
    answered: AtomicU64,
    done: AtomicBool,
}

impl Echo {
    fn new(ns: &Ns) -> Echo {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let each = [REMOTE4, REMOTE6].into_iter().flat_map(|a| PORTS.map(move |p| at(a, p)));
        let sockets: Vec<_> = ns.enter(|| each.map(|a| UdpSocket::bind(a).unwrap()).collect());
        for (n, socket) in sockets.iter().enumerate() {
            setsockopt(socket, sockopt::RcvBuf, &(4 << 20)).unwrap();
            socket.set_nonblocking(true).unwrap();
            epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, n as u64)).unwrap();
        }
        Echo { sockets, epoll, answered: AtomicU64::new(0), done: AtomicBool::new(false) }
    }

    fn run(&self) {
        while !self.done.load(Relaxed) {
            let mut events = [EpollEvent::empty(); 64];
            let ready = self.epoll.wait(&mut events, EpollTimeout::from(50u8)).unwrap();
            for event in &events[..ready] {
                let socket = &self.sockets[event.data() as usize];
                let mut buf = [0; 64];
                while let Ok((len, from)) = socket.recv_from(&mut buf) {
                    socket.send_to(&buf[..len], from).unwrap();
                    self.answered.fetch_add(1, Relaxed);
                }
            }
        }
    }
}

/// One socket of the guest, and what was asked from it last.
struct Asker {
    socket: UdpSocket,
    question: [u8; 8],
    asked: Instant,
    waiting: bool,
}

/// Those who ask, in the guest.
struct Askers {
    epoll: Epoll,
    all: Vec<Option<Asker>>,
    free: Vec<usize>,
    /// Where and when questions were asked, oldest first, for those that are late.
    order: VecDeque<(usize, [u8; 8])>,
    waiting: usize,
    asked: u64,
    lost: u64,
    slowest: Duration,
    /// Whether a socket is done with after one answer.
    once: bool,
    random: u64,
}

impl Askers {
    fn new() -> Askers {
        Askers {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap(),
            all: Vec::new(),
            free: Vec::new(),
            order: VecDeque::new(),
            waiting: 0,
            asked: 0,
            lost: 0,
            slowest: Duration::ZERO,
            once: false,
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// Some port of the server.
    fn somewhere(&mut self) -> SocketAddr {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let port = PORTS.start + (self.random >> 8) as u16 % PORTS.len() as u16;
        at(if self.random & 1 == 0 { REMOTE4 } else { REMOTE6 }, port)
    }

    /// Asks from a new socket, whose port the kernel chooses at random.
    fn ask_anew(&mut self) {
        let to = self.somewhere();
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind(at(any, 0)).unwrap();
        socket.connect(to).unwrap();
        socket.set_nonblocking(true).unwrap();
        let slot = self.free.pop().unwrap_or_else(|| {
            self.all.push(None);
            self.all.len() - 1
        });
        self.epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, slot as u64)).unwrap();
        let asker = Asker { socket, question: [0; 8], asked: Instant::now(), waiting: false };
        self.all[slot] = Some(asker);
        self.ask(slot);
    }

    fn ask(&mut self, slot: usize) {
        self.asked += 1;
        let asker = self.all[slot].as_mut().unwrap();
        asker.question = self.asked.to_be_bytes();
        asker.asked = Instant::now();
        asker.waiting = true;
        asker.socket.send(&asker.question).unwrap();
        self.order.push_back((slot, asker.question));
        self.waiting += 1;
    }

    /// Takes what comes within `ms`, and looks for what does not come any more.
    fn listen(&mut self, ms: u8) {
        let mut events = [EpollEvent::empty(); 256];
        let ready = self.epoll.wait(&mut events, EpollTimeout::from(ms)).unwrap();
        for event in &events[..ready] {
            self.answered(event.data() as usize);
        }
        while let Some(&(slot, question)) = self.order.front() {
            let asker = self.all[slot].as_ref().filter(|a| a.waiting && a.question == question);
            match asker {
                Some(asker) if asker.asked.elapsed() < PATIENCE => break,
                Some(asker) => {
                    let from = asker.socket.local_addr().unwrap();
                    let to = asker.socket.peer_addr().unwrap();
                    let number = u64::from_be_bytes(question);
                    println!("lost: question {number} from {from} to {to}");
                    self.lost += 1;
                    self.settle(slot);
                }
                None => {}
            }
            self.order.pop_front();
        }
    }

    fn answered(&mut self, slot: usize) {
        let Some(asker) = &self.all[slot] else { return };
        let mut buf = [0; 64];
        match asker.socket.recv(&mut buf) {
            Ok(len) => {
                assert!(asker.waiting, "an answer that nobody asked for");
                assert_eq!(&buf[..len], asker.question, "an answer to something else");
                self.slowest = self.slowest.max(asker.asked.elapsed());
                self.settle(slot);
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => panic!("{:?}: {e}", asker.socket.peer_addr()),
        }
    }

    /// Nothing is waited for at this socket any more.
    fn settle(&mut self, slot: usize) {
        self.waiting -= 1;
        self.all[slot].as_mut().unwrap().waiting = false;
        if self.once {
            self.all[slot] = None;
            self.free.push(slot);
        }
    }

    fn wait_for_all(&mut self) {
        while self.waiting > 0 {
            self.listen(10);
        }
    }

    /// New sockets until there are `n`; then each asks once more.
    fn fill(&mut self, n: usize) {
        while self.all.len() < n {
            while self.all.len() < n && self.waiting < AHEAD {
                self.ask_anew();
            }
            self.listen(1);
        }
        self.wait_for_all();
        for slot in 0..n {
            while self.waiting >= AHEAD {
                self.listen(1);
            }
            self.ask(slot);
        }
        self.wait_for_all();
    }

    /// New sockets at [`RATE`], each for one question.
    fn go_on(&mut self, time: Duration) {
        self.once = true;
        let (start, before) = (Instant::now(), self.asked);
        while start.elapsed() < time {
            let due = start.elapsed().as_millis() as u64 * RATE / 1000;
            while self.asked - before < due && self.waiting < AHEAD {
                self.ask_anew();
            }
            self.listen(1);
        }
        self.wait_for_all();
        self.once = false;
    }

    fn close(&mut self) {
        self.all.clear();
        self.free.clear();
    }
}

/// Where datagrams were lost outside pasta: lines of the kernel's counters that are not zero.
fn kernel_losses(name: &str, ns: &Ns) {
    for file in ["snmp", "snmp6"] {
        let text = ns.enter(|| {
            fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default()
        });
        for line in text.lines().filter(|l| l.starts_with("Udp")) {
            println!("{name}: {line}");
        }
    }
    let devices = ns.enter(|| fs::read_to_string("/proc/thread-self/net/dev").unwrap());
    println!("{name}: {devices}");
}

#[test]
#[ignore = "takes a minute, and as long as PASST_TESTS_SOAK says"]
fn fifteen_thousand_flows_and_a_thousand_new_ones_a_second() {
    // [UDP-10] [FLOW-5]: every question is answered, and nothing is left of flows that are over
    Lab::run(|lab| {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).unwrap().1;
        setrlimit(Resource::RLIMIT_NOFILE, limit, limit).unwrap();
        let room = descriptor_limit();
        assert!(room >= FLOWS + 4000, "{room} descriptors are too few");
        lab.host().sysctl("net/netfilter/nf_conntrack_udp_timeout_stream", &IDLE.to_string());
        let guest = lab.guest(QUIET);
        for ns in [&lab.host(), &guest.ns] {
            ns.sysctl("net/ipv4/ip_local_port_range", "1024 65535");
        }
        let pid = guest.pasta.pid;
        let mut idle = descriptors(pid);
        // The command may run a little before the start is over.
        eventually("the start is over", SOON, || {
            thread::sleep(Duration::from_millis(100));
            idle == std::mem::replace(&mut idle, descriptors(pid))
        });
        let expired = Duration::from_secs(IDLE + 20);
        let mut askers = Askers::new();
        let echo = Echo::new(&lab.remote);
        thread::scope(|scope| {
            scope.spawn(|| echo.run());
            let stop = Stop(&echo.done);

            // All at once.
            let start = Instant::now();
            guest.ns.enter(|| askers.fill(FLOWS));
            println!("{FLOWS} flows, two questions each, in {:?}", start.elapsed());
            assert_eq!(askers.lost, 0);
            let (full, memory) = (descriptors(pid), resident(pid));
            println!("{full} descriptors, {} KiB, {idle} before", memory >> 10);
            assert_eq!(full, idle + FLOWS);

            // One after the other.
            let time = soak().unwrap_or(Duration::from_secs(20));
            let (start, before) = (Instant::now(), askers.asked);
            let (mut most, mut most_memory) = (0, 0);
            let ns = guest.ns.clone();
            let going = scope.spawn(move || {
                ns.enter(|| {
                    askers.go_on(time);
                    // Those who were here before are still heard.
                    if start.elapsed() < Duration::from_secs(IDLE) {
                        askers.fill(FLOWS);
                    }
                });
                askers
            });
            while !going.is_finished() {
                thread::sleep(Duration::from_secs(1));
                (most, most_memory) = (most.max(descriptors(pid)), most_memory.max(resident(pid)));
                if start.elapsed().as_secs().is_multiple_of(30) {
                    println!(
                        "{:3} s: {} descriptors, {} KiB",
                        start.elapsed().as_secs(),
                        descriptors(pid),
                        resident(pid) >> 10
                    );
                }
            }
            let took = start.elapsed();
            let mut askers = going.join().unwrap();
            let new = askers.asked - before;
            askers.close();
            println!(
                "{new} more in {took:?}: {} lost, slowest answer {:?}, up to {most} descriptors, {} KiB",
                askers.lost,
                askers.slowest,
                most_memory >> 10
            );
            let took = eventually("all are over", expired, || descriptors(pid) <= idle);
            let after = resident(pid);
            println!("all over after {took:?}, {} KiB", after >> 10);
            drop(stop);

            if askers.lost > 0 {
                println!("{} asked, {} echoed", askers.asked, echo.answered.load(Relaxed));
                kernel_losses("remote", &lab.remote);
                kernel_losses("host", &lab.host());
                kernel_losses("guest", &guest.ns);
            }
            assert_eq!(askers.lost, 0, "of {new}");
            assert!(most <= room, "{most} descriptors");
            // As many flows more as there are descriptors. The index of the flows is used here and
            // there, and in the end everywhere.
            let enough = memory + (4 << 20);
            assert!(
                most_memory < enough && after < enough,
                "{most_memory}, {after} after {memory}"
            );
        });
    });
}

/// Ends the thread that answers, also if the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
