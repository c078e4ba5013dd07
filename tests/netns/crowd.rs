//! Thousands of connections at a time.
//!
//! # Theory of operation
//!
//! A process may have a limited number of descriptors, and pasta needs one per connection as well.
//! So a test has a [`Crowd`] of clients and one of servers: this test binary, started again in some
//! namespace for the one test [`worker`]. Each gets lines on its standard input and answers each
//! with one line of numbers.
//!
//! What a client sends after filling up is checked by the server: the first four bytes name the
//! stream, the others follow from that and their offset. At the end the server says how many there
//! were, or nothing if one was wrong.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]

use std::collections::HashMap;
use std::env;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, connect, getsockopt, listen,
    setsockopt, socket, sockopt,
};

use crate::lab::Helper;
use crate::ns::Ns;

/// Set for a worker: its role.
const ROLE: &str = "PASST_TESTS_CROWD";

/// A worker that has not done in this time what it was told fails.
const LIMIT: Duration = Duration::from_secs(60);

/// How long nothing may move until everything is full.
const STILL: Duration = Duration::from_millis(500);

/// A process full of connections.
pub(crate) struct Crowd {
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    _process: Helper,
}

impl Crowd {
    /// Clients, none yet. Told to
    /// * `open N AHEAD MS ADDR...`: opens N connections to the addresses in turn, at most AHEAD at a
    ///   time, and gives up after MS; answers how many there are now, and milliseconds;
    /// * `echo`: sends a byte on each and waits for it to come back; how many did, milliseconds;
    /// * `fill`: sends on each until nothing moves any more; bytes sent;
    /// * `finish`: sends a little more, and the end; how many streams the servers found good;
    /// * `close`: closes all; how many.
    pub(crate) fn clients(ns: &Ns) -> Crowd {
        Crowd::start(ns, "clients".into())
    }

    /// Servers on the ports from `first` on, of all addresses, that send back what they get. Told
    /// to `count`, they answer how many connections there are.
    pub(crate) fn echoing(ns: &Ns, first: u16, ports: u16) -> Crowd {
        Crowd::servers(ns, first, ports, "echo")
    }

    /// Servers that read nothing until they are told to `read`, with small buffers.
    pub(crate) fn sleeping(ns: &Ns, first: u16, ports: u16) -> Crowd {
        Crowd::servers(ns, first, ports, "sink")
    }

    fn servers(ns: &Ns, first: u16, ports: u16, how: &str) -> Crowd {
        let mut crowd = Crowd::start(ns, format!("servers {first} {ports} {how}"));
        crowd.ask("count");
        crowd
    }

    fn start(ns: &Ns, role: String) -> Crowd {
        let mut child = ns
            .command(env::current_exe().unwrap())
            .args(["crowd::worker", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let to = child.stdin.take().unwrap();
        let from = BufReader::new(child.stdout.take().unwrap());
        Crowd { to, from, _process: Helper(child) }
    }

    /// Tells it to do something; the numbers it answers.
    #[track_caller]
    pub(crate) fn ask(&mut self, what: &str) -> Vec<u64> {
        writeln!(self.to, "{what}").unwrap();
        loop {
            let mut line = String::new();
            let n = self.from.read_line(&mut line).unwrap();
            assert!(n > 0, "{what}: the worker has ended");
            // What the test harness prints comes first.
            if let Some((_, answer)) = line.split_once('@') {
                return answer.split_whitespace().map(|n| n.parse().unwrap()).collect();
            }
        }
    }
}

#[test]
#[ignore = "a process that other tests start"]
fn worker() {
    let Ok(role) = env::var(ROLE) else { return };
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let words: Vec<&str> = role.split_whitespace().collect();
    match words[..] {
        ["clients"] => Clients::new().run(),
        ["servers", first, ports, how] => {
            let first = first.parse().unwrap();
            Servers::new(first..first + ports.parse::<u16>().unwrap(), how == "sink").run();
        }
        _ => panic!("{role}"),
    }
}

fn answer(numbers: &[u128]) {
    let words: Vec<String> = numbers.iter().map(u128::to_string).collect();
    println!("@{}", words.join(" "));
}

/// The bytes of a stream from `at` on, a multiple of four, behind its name.
fn content(id: u32, at: usize, out: &mut [u8]) {
    for (word, out) in (at / 4..).zip(out.chunks_mut(4)) {
        let mixed = (id ^ 0x9e37_79b9).wrapping_mul(0x85eb_ca6b).wrapping_add(word as u32);
        let mixed = if word == 0 { id } else { mixed.wrapping_mul(0xc2b2_ae35).rotate_left(13) };
        out.copy_from_slice(&mixed.to_le_bytes()[..out.len()]);
    }
}

/// Bytes written at a time.
const PIECE: usize = 4096;

struct Client {
    stream: TcpStream,
    /// Bytes sent.
    sent: usize,
    /// To be sent in all.
    target: usize,
    finished: bool,
    /// What the server said.
    got: Vec<u8>,
    end: bool,
}

struct Clients {
    epoll: Epoll,
    all: Vec<Client>,
}

impl Clients {
    fn new() -> Self {
        Self { epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap(), all: vec![] }
    }

    fn run(mut self) {
        for line in std::io::stdin().lines() {
            let line = line.unwrap();
            let words: Vec<&str> = line.split_whitespace().collect();
            let start = Instant::now();
            let n = match words[..] {
                ["open", n, ahead, ms, ref to @ ..] => {
                    let to: Vec<SocketAddr> = to.iter().map(|a| a.parse().unwrap()).collect();
                    let limit = Duration::from_millis(ms.parse().unwrap());
                    self.open(n.parse().unwrap(), ahead.parse().unwrap(), limit, &to)
                }
                ["echo"] => self.echo(),
                ["fill"] => self.fill(),
                ["finish"] => self.finish(),
                ["close"] => std::mem::take(&mut self.all).len(),
                _ => panic!("{line}"),
            };
            answer(&[n as u128, start.elapsed().as_millis()]);
        }
    }

    fn open(&mut self, n: usize, ahead: usize, limit: Duration, to: &[SocketAddr]) -> usize {
        let opening = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let flags = EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        let mut waiting = HashMap::new();
        let (start, mut next) = (Instant::now(), 0);
        while next < n || !waiting.is_empty() {
            while next < n && waiting.len() < ahead {
                let fd = start_connection(to[next % to.len()]);
                opening.add(&fd, EpollEvent::new(flags, next as u64)).unwrap();
                waiting.insert(next, fd);
                next += 1;
            }
            if start.elapsed() > limit {
                break;
            }
            let mut events = [EpollEvent::empty(); 256];
            let ready = opening.wait(&mut events, EpollTimeout::from(50u8)).unwrap();
            for event in &events[..ready] {
                // One that comes up while connecting says nothing.
                let Some(fd) = waiting.remove(&(event.data() as usize)) else { continue };
                opening.delete(&fd).unwrap();
                if getsockopt(&fd, sockopt::SocketError).unwrap() == 0 {
                    self.enter(TcpStream::from(fd));
                }
            }
        }
        self.all.len()
    }

    fn enter(&mut self, stream: TcpStream) {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        self.epoll.add(&stream, EpollEvent::new(flags, self.all.len() as u64)).unwrap();
        self.all.push(Client {
            stream,
            sent: 0,
            target: 0,
            finished: false,
            got: vec![],
            end: false,
        });
    }

    fn echo(&mut self) -> usize {
        for client in &mut self.all {
            client.got.clear();
            // What is broken will not come back.
            let _ = client.stream.write(b"?");
        }
        self.until(|all| all.iter().all(|c| c.end || !c.got.is_empty()));
        self.all.iter().filter(|c| !c.end && c.got == b"?").count()
    }

    fn fill(&mut self) -> usize {
        for client in &mut self.all {
            client.target = usize::MAX;
            client.write();
        }
        let (mut sent, mut since) = (0, Instant::now());
        self.until(|all| {
            let now = all.iter().map(|c| c.sent).sum();
            if now != sent {
                (sent, since) = (now, Instant::now());
            }
            since.elapsed() > STILL
        });
        sent
    }

    fn finish(&mut self) -> usize {
        for client in &mut self.all {
            client.target = (client.sent + 3 * PIECE) & !3;
            client.write();
        }
        self.until(|all| all.iter().all(|c| c.end));
        let good = |c: &&Client| c.got == (c.sent as u64).to_le_bytes() && c.sent == c.target;
        self.all.iter().filter(good).count()
    }

    /// Serves events until everything is `done`.
    fn until(&mut self, mut done: impl FnMut(&[Client]) -> bool) {
        let (start, mut look) = (Instant::now(), Instant::now());
        loop {
            let mut events = [EpollEvent::empty(); 512];
            let ready = self.epoll.wait(&mut events, EpollTimeout::from(50u8)).unwrap();
            for event in &events[..ready] {
                let client = &mut self.all[event.data() as usize];
                client.read();
                client.write();
            }
            // Looking at all is not free.
            if ready == 0 || look.elapsed() > Duration::from_millis(20) {
                look = Instant::now();
                if done(&self.all) {
                    return;
                }
                assert!(start.elapsed() < LIMIT, "not done after {LIMIT:?}");
            }
        }
    }
}

impl Client {
    fn read(&mut self) {
        let mut buf = [0; 64];
        while !self.end {
            match self.stream.read(&mut buf) {
                Ok(0) => self.end = true,
                Ok(n) => self.got.extend(&buf[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.end = true,
            }
        }
    }

    fn write(&mut self) {
        let mut piece = [0; PIECE + 4];
        while self.sent < self.target && !self.end {
            let (word, skip) = (self.sent & !3, self.sent & 3);
            content(self.stream_id(), word, &mut piece);
            let len = PIECE.min(self.target - self.sent);
            match self.stream.write(&piece[skip..skip + len]) {
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.end = true,
            }
        }
        if self.target != 0 && self.sent == self.target && !self.finished {
            self.finished = true;
            self.stream.shutdown(std::net::Shutdown::Write).ok();
        }
    }

    fn stream_id(&self) -> u32 {
        u32::try_from(self.stream.as_raw_fd()).unwrap()
    }
}

fn start_connection(to: SocketAddr) -> OwnedFd {
    let fd = stream_socket(to.is_ipv6());
    // Little of what a client sends is to wait in the client.
    setsockopt(&fd, sockopt::SndBuf, &4096).unwrap();
    setsockopt(&fd, sockopt::TcpNoDelay, &true).unwrap();
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(nix::Error::EINPROGRESS) => fd,
        Err(e) => panic!("connect to {to}: {e}"),
    }
}

fn stream_socket(v6: bool) -> OwnedFd {
    let family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    socket(family, SockType::Stream, flags, None).unwrap()
}

/// Connections that servers begin to read from at a time.
const WAKE: usize = 32;

struct Server {
    stream: TcpStream,
    id: [u8; 4],
    got: usize,
    bad: bool,
}

struct Servers {
    epoll: Epoll,
    listeners: Vec<TcpListener>,
    all: HashMap<i32, Server>,
    sink: bool,
    reading: bool,
    /// Connections that are not read from yet.
    asleep: Vec<i32>,
}

impl Servers {
    fn new(ports: std::ops::Range<u16>, sink: bool) -> Self {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let listeners = ports.map(|port| {
            let fd = stream_socket(true);
            setsockopt(&fd, sockopt::ReuseAddr, &true).unwrap();
            setsockopt(&fd, sockopt::Ipv6V6Only, &false).unwrap();
            if sink {
                setsockopt(&fd, sockopt::RcvBuf, &4096).unwrap();
            }
            let any = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port));
            bind(fd.as_raw_fd(), &SockaddrStorage::from(any)).unwrap();
            listen(&fd, Backlog::new(4096).unwrap()).unwrap();
            let listener = TcpListener::from(fd);
            let readable = EpollFlags::EPOLLIN;
            epoll.add(&listener, EpollEvent::new(readable, listener.as_raw_fd() as u64)).unwrap();
            listener
        });
        let listeners = listeners.collect();
        // SAFETY: standard input stays open as long as the process.
        let stdin = unsafe { std::os::fd::BorrowedFd::borrow_raw(0) };
        epoll.add(stdin, EpollEvent::new(EpollFlags::EPOLLIN, 0)).unwrap();
        Self { epoll, listeners, all: HashMap::new(), sink, reading: !sink, asleep: vec![] }
    }

    fn run(mut self) {
        loop {
            let mut events = [EpollEvent::empty(); 512];
            let waking = self.reading && !self.asleep.is_empty();
            let timeout = if waking { EpollTimeout::from(1u8) } else { EpollTimeout::NONE };
            let ready = self.epoll.wait(&mut events, timeout).unwrap();
            self.wake();
            for event in &events[..ready] {
                let fd = event.data() as i32;
                if fd == 0 {
                    let mut line = [0; 100];
                    match std::io::stdin().read(&mut line).unwrap() {
                        0 => return,
                        n => self.told(std::str::from_utf8(&line[..n]).unwrap().trim()),
                    }
                } else if self.listeners.iter().any(|l| l.as_raw_fd() == fd) {
                    self.accept(fd);
                } else {
                    self.on_stream(fd);
                }
            }
        }
    }

    fn told(&mut self, what: &str) {
        if what == "read" {
            self.reading = true;
        }
        answer(&[self.all.len() as u128]);
    }

    /// Begins to read from some that wait for it. All at once would open more windows than the
    /// kernel's queues between namespaces hold, and what is lost is repeated late.
    fn wake(&mut self) {
        if self.reading {
            for fd in self.asleep.drain(self.asleep.len().saturating_sub(WAKE)..) {
                if let Some(server) = self.all.get(&fd) {
                    watch(&self.epoll, &server.stream);
                }
            }
        }
    }

    fn accept(&mut self, fd: i32) {
        let listener = self.listeners.iter().find(|l| l.as_raw_fd() == fd).unwrap();
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(true).unwrap();
            stream.set_nodelay(true).unwrap();
            if self.sink {
                self.asleep.push(stream.as_raw_fd());
            } else {
                watch(&self.epoll, &stream);
            }
            let server = Server { id: [0; 4], got: 0, bad: false, stream };
            self.all.insert(server.stream.as_raw_fd(), server);
        }
    }

    fn on_stream(&mut self, fd: i32) {
        let Some(server) = self.all.get_mut(&fd) else { return };
        let mut buf = [0; 16 << 10];
        match server.stream.read(&mut buf) {
            Ok(0) => {
                if self.sink && !server.bad {
                    let _ = server.stream.write(&(server.got as u64).to_le_bytes());
                }
                self.all.remove(&fd);
            }
            Ok(n) if self.sink => server.check(&buf[..n]),
            Ok(n) => drop(server.stream.write(&buf[..n])),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(_) => drop(self.all.remove(&fd)),
        }
    }
}

impl Server {
    fn check(&mut self, data: &[u8]) {
        let name = 4usize.saturating_sub(self.got).min(data.len());
        self.id[self.got.min(4)..][..name].copy_from_slice(&data[..name]);
        let at = self.got + name;
        let data_at = &data[name..];
        self.got += data.len();
        if data_at.is_empty() {
            return;
        }
        let mut want = vec![0; (data_at.len() + 7) & !3];
        content(u32::from_le_bytes(self.id), at & !3, &mut want);
        self.bad |= want[at & 3..][..data_at.len()] != *data_at;
    }
}

fn watch(epoll: &Epoll, stream: &TcpStream) {
    let fd = stream.as_raw_fd() as u64;
    epoll.add(stream.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, fd)).unwrap();
}

/// Descriptors a process has open.
pub(crate) fn descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Memory a process has in use, in bytes.
pub(crate) fn resident(pid: i32) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    text.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// How many descriptors a process may have here.
pub(crate) fn descriptor_limit() -> usize {
    getrlimit(Resource::RLIMIT_NOFILE).unwrap().1.try_into().unwrap_or(usize::MAX)
}
