//! Plays the daemon, the guest and the host from one string of bytes.
//!
//! # Theory of operation
//!
//! [`run`] makes a [`Translator`] with fake sockets and a fake link and reads steps from its
//! input until it is used up: frames of the guest, readiness and failures of sockets, connections
//! and datagrams of peers, news of neighbours, time. Nothing else decides anything, so an input is a test case.
//!
//! Checked after every step: no more and no fewer sockets are open than there are flows; the next
//! deadline is in the future; a flow is listed for another visit at most once. Checked at the end:
//! without any input things settle (nobody spins, by timer or by ready list, and idle exchanges
//! end), and once all flows are ended, sockets, pool and timers are as they were at the start. The
//! fakes check every call (`net.rs`) and every frame (`link.rs`).
//!
//! The meaning of an input follows from the order in which bytes are read here. A change of the
//! steps makes stored inputs mean something else: they then still have to pass.
#![allow(dead_code, clippy::unwrap_used, clippy::indexing_slicing)]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]

#[path = "frames.rs"]
mod frames;
#[path = "link.rs"]
mod link;
#[path = "net.rs"]
mod net;
#[path = "segments.rs"]
mod segments;

use std::net::IpAddr;

use passt::config::{Inward, Lease};
use passt::flow::{FlowId, Pool};
use passt::forward::{ForwardTarget, GuestAddrs};
use passt::services::Offered;
use passt::translate::tcp::{SocketReady, Timeouts};
use passt::translate::{Far, FrameOut, ListenerId, Now, Setup, SockId, Translator};
use passt::wire::{Addr, Endpoint, Mac, Vnet};

use link::Link;
use net::{Kind, Net, Sock};

/// Visits of the ready list in a row that end any honest work.
const MAX_VISITS: usize = 20_000;

/// Time without input after which datagram exchanges and pings are over, milliseconds.
const SILENCE_MS: u64 = 130_000;

/// Wake-ups by timer that one flow may have in a second without input. A flow looks at its socket
/// every 1 to 100 ms, less and less often.
const WAKEUPS: u64 = 60;

/// Runs one test case; panics if something is wrong.
pub(super) fn run(data: &[u8]) {
    play(data, Frames::Any);
}

/// Likewise, with TCP segments instead of frames of all kinds.
pub(super) fn run_segments(data: &[u8]) {
    play(data, Frames::Segments);
}

/// Flows that are left after the steps of an input.
pub(super) fn flows_after(data: &[u8]) -> usize {
    let mut world = World::new(Input(data), Frames::Any);
    while !world.input.0.is_empty() {
        world.step();
        world.check();
    }
    world.t.len()
}

/// What the guest sends.
#[derive(Clone, Copy)]
enum Frames {
    Any,
    Segments,
}

fn play(data: &[u8], frames: Frames) {
    let mut world = World::new(Input(data), frames);
    while !world.input.0.is_empty() {
        world.step();
        world.check();
    }
    world.settle_down();
    world.end();
}

/// The input; zeros once it is used up.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((b, rest)) => {
                self.0 = rest;
                *b
            }
            None => 0,
        }
    }

    fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    fn long(&mut self) -> u32 {
        u32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.byte()) % from.len()]
    }

    /// True for values of a byte below `of_256`.
    fn chance(&mut self, of_256: u8) -> bool {
        // Zeros, which stand for nothing more, say no.
        self.byte().wrapping_sub(1) < of_256
    }

    fn bytes(&mut self, n: usize) -> &'a [u8] {
        let (now, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        now
    }
}

struct World<'a> {
    input: Input<'a>,
    t: Translator<Link, Net>,
    /// Microseconds.
    now: u64,
    pool: usize,
    again: Vec<FlowId>,
    frames: Frames,
    /// There are Router Advertisements.
    advertises: bool,
}

fn addr(s: &str) -> Addr {
    s.parse::<IpAddr>().unwrap().into()
}

fn lease(mtu: u16, families: (bool, bool)) -> Lease {
    Lease {
        v4: families.0,
        v6: families.1,
        addr4: "192.0.2.2".parse().unwrap(),
        addr6: Some("2001:db8::2".parse().unwrap()),
        mtu,
        map_host_loopback4: Some("192.0.2.1".parse().unwrap()),
        map_host_loopback6: Some("fe80::1".parse().unwrap()),
        dns_match4: Some("192.0.2.53".parse().unwrap()),
        dns_match6: Some("2001:db8::53".parse().unwrap()),
        dns_host4: Some("203.0.113.53".parse().unwrap()),
        dns_host6: Some("2001:db8:2::53".parse().unwrap()),
        dns4: vec!["192.0.2.53".parse().unwrap()],
        dns6: vec!["2001:db8::53".parse().unwrap()],
        ..Lease::example()
    }
}

impl<'a> World<'a> {
    fn new(mut input: Input<'a>, frames: Frames) -> Self {
        let mtu = input.pick(&[65_520, 1500, 1280, 576, 68, 0]);
        let families =
            input.pick(&[(true, true), (true, true), (true, true), (true, false), (false, true)]);
        let lease = lease(mtu, families);
        let how = input.byte();
        let pool = [1 << 20, 0, 64 << 10, 300 << 10][usize::from(how & 3)];
        let now = 1_000_000;
        let setup = Setup {
            protocols: passt::config::Protocols::default(),
            services: Offered { ra: how & 4 != 0, ..Offered::default() },
            guest: GuestAddrs::new(&lease, how & 8 != 0, how & 8 != 0),
            linked: true,
            inward: Inward::Address,
            guest_mac: Mac([2, 0, 0, 0, 0, 1]),
            key: [7; 16],
            flows: [16, 1, 3, 64][usize::from(how >> 4 & 3)],
            pool: Pool::new(pool).unwrap(),
            timeouts: Timeouts::default(),
            idle: passt::translate::udp::Timeouts::default(),
            now: Now(now),
            lease,
        };
        let t = Translator::new(setup, Link::new(mtu), Net::default());
        let pool = t.pool().available();
        let advertises = how & 4 != 0 && families.1;
        let mut world = Self { input, t, now, pool, again: vec![], frames, advertises };
        if how & 0x40 != 0 {
            world.t.solicit_guest();
        }
        world
    }

    fn step(&mut self) {
        let op = self.input.byte();
        match op % 32 {
            0..12 => self.batch(),
            12..16 => self.ready(),
            16..18 => self.peer_sends(),
            18 => self.peer_finishes(),
            19 => self.peer_fails(),
            20 => self.room(),
            21 if op & 0x40 != 0 => self.spliced(),
            21 => self.accept(),
            22 if op & 0x40 != 0 => self.spliced_datagram(),
            22 => self.listener_datagram(),
            23 => self.datagrams(),
            24 | 25 => self.pass_time(),
            26 => self.t.out.full = self.input.chance(127),
            27 => self.t.out.lose = self.input.byte() % 4,
            28 => self.t.net.trouble = self.input.byte(),
            29 if op & 0x40 != 0 => self.neighbour(),
            29 => self.visits(),
            30 => self.stale(),
            _ => self.t.net.acked_by_peer(self.input.byte()),
        }
        // Several steps can be one turn of the loop.
        if op & 0x80 == 0 {
            self.collect();
        }
    }

    fn batch(&mut self) {
        for _ in 0..=self.input.byte() % 4 {
            let (vnet, frame) = match self.frames {
                Frames::Any => frames::frame(&mut self.input, &mut self.t.out),
                Frames::Segments => {
                    (Vnet::default(), segments::frame(&mut self.input, &mut self.t.out))
                }
            };
            self.t.on_frame(&vnet, &frame);
        }
        self.t.end_batch();
    }

    /// One of the sockets that are open.
    fn some_socket(&mut self) -> Option<usize> {
        let open = self.t.net.open();
        let n = usize::from(self.input.byte());
        open.get(n.checked_rem(open.len())?).copied()
    }

    /// Tells the flow of a socket that it is ready, whether it is or not.
    fn ready(&mut self) {
        let Some(n) = self.some_socket() else { return };
        self.t.net.connects(n, self.input.byte());
        let bits = self.input.byte();
        let sock = &self.t.net.socks[n];
        let ready = SocketReady {
            read: bits & 1 != 0,
            // The kernel does not say so before there is a connection.
            write: bits & 2 != 0 && sock.connected,
            error: bits & 4 != 0 || sock.broken,
            read_closed: bits & 8 != 0 || sock.fin || sock.broken,
        };
        let (id, side) = (sock.id, sock.far);
        self.t.on_socket(id, side, ready);
    }

    fn event(&mut self, n: usize, ready: SocketReady) {
        let Sock { id, far, .. } = self.t.net.socks[n];
        self.t.on_socket(id, far, ready);
    }

    fn peer_sends(&mut self) {
        let Some(n) = self.some_socket() else { return };
        let len = self.input.pick(&[1, 100, 1460, 10_000, 100_000, 2_000_000]);
        let sock = &mut self.t.net.socks[n];
        if sock.kind == Kind::Stream && sock.connected && !sock.fin && !sock.broken {
            sock.queue = (sock.queue + len).min(4 << 20);
            self.event(n, SocketReady { read: true, ..SocketReady::default() });
        }
    }

    fn peer_finishes(&mut self) {
        let Some(n) = self.some_socket() else { return };
        let sock = &mut self.t.net.socks[n];
        if sock.kind == Kind::Stream && sock.connected && !sock.broken {
            sock.fin = true;
            let ready = SocketReady { read: true, read_closed: true, ..SocketReady::default() };
            self.event(n, ready);
        }
    }

    fn peer_fails(&mut self) {
        let Some(n) = self.some_socket() else { return };
        let quiet = self.input.chance(127);
        let sock = &mut self.t.net.socks[n];
        if sock.kind == Kind::Stream && sock.connected {
            sock.break_down();
            if !quiet {
                let ready = SocketReady { read: true, write: true, error: true, read_closed: true };
                self.event(n, ready);
            }
        }
    }

    fn room(&mut self) {
        let Some(n) = self.some_socket() else { return };
        let room = self.input.pick(&[0, 1, 1000, 50_000, 1 << 20, 1 << 24]);
        let sock = &mut self.t.net.socks[n];
        sock.room = room;
        if sock.kind == Kind::Stream && sock.connected {
            self.event(n, SocketReady { write: true, ..SocketReady::default() });
        }
    }

    /// The host learns the Ethernet address of a neighbour, or forgets it, or lists all it knows.
    fn neighbour(&mut self) {
        let addr = frames::peer(&mut self.input).addr;
        let mac = Mac([self.input.byte(), 0, 0, 0, 0, self.input.byte()]);
        match self.input.byte() % 4 {
            0 => self.t.on_neighbour(addr, None),
            1 => self.t.neighbours_are(&[(addr, mac), (addr, Mac([2; 6]))]),
            _ => self.t.on_neighbour(addr, Some(mac)),
        }
    }

    /// A peer connects to a forwarded port.
    fn accept(&mut self) {
        let peer = frames::peer(&mut self.input);
        let to_port = self.input.pick(&[80, 22, 1]);
        let Some(id) = self.t.next_id() else { return };
        if self.input.chance(20) {
            return self.t.no_socket();
        }
        let sock = self.t.net.adopt(id);
        self.t.on_connection(id, sock, peer, ForwardTarget { addr: None, port: to_port });
    }

    /// A peer sends to a forwarded port.
    fn listener_datagram(&mut self) {
        let peer = frames::peer(&mut self.input);
        let local = Endpoint::new(
            if peer.addr.is_v4() { addr("203.0.113.9") } else { addr("2001:db8:2::9") },
            self.input.pick(&[5353, 53]),
        );
        let len = frames::length(&mut self.input).min(65_507);
        if self.t.out.payload().is_some() {
            self.t.on_datagram(peer, local, len, ForwardTarget { addr: None, port: 53 });
        }
    }

    /// A client in the namespace connects to a port that leads to the host.
    fn spliced(&mut self) {
        let ends = frames::loopback(&mut self.input);
        let Some(id) = self.t.next_id() else { return };
        let client = self.t.net.adopt(id);
        let to = ForwardTarget { addr: None, port: 8080 };
        let far = far(ends.0);
        self.t.on_spliced(id, client, ends, (far, to));
    }

    /// A client in the namespace sends to such a port.
    fn spliced_datagram(&mut self) {
        let ends = frames::loopback(&mut self.input);
        let len = frames::length(&mut self.input).min(65_507);
        let listener = ListenerId { sock: SockId(0), v6: !ends.1.addr.is_v4() };
        let to = ForwardTarget { addr: None, port: 5353 };
        let far = far(ends.0);
        self.t.on_spliced_datagram(listener, ends, len, (far, to));
    }

    /// Datagrams, replies or errors arrive at a flow's socket.
    fn datagrams(&mut self) {
        let Some(n) = self.some_socket() else { return };
        for _ in 0..=self.input.byte() % 40 {
            let what = self.input.byte();
            self.t.net.socks[n].arrives(what);
        }
        if self.t.net.socks[n].kind != Kind::Stream {
            self.event(n, SocketReady { read: true, ..SocketReady::default() });
        }
    }

    fn pass_time(&mut self) {
        let us = match self.input.byte() % 8 {
            0 => u64::from(self.input.byte()),
            1 => u64::from(self.input.word()) * 100,
            2 => 5_000,
            3 => 1_100_000,
            4 => 31_000_000,
            5 => 121_000_000,
            6 => u64::from(self.input.long()) * 1000,
            _ => {
                let at = self.t.next_deadline().map_or(0, |ms| ms * 1000);
                at.saturating_sub(self.now)
            }
        };
        self.now += us;
        self.t.set_now(Now(self.now));
        self.t.on_time();
    }

    /// An event for a flow that may be long gone.
    fn stale(&mut self) {
        let id = FlowId {
            index: u32::from(self.input.byte() % 70),
            generation: u32::from(self.input.byte() % 4),
        };
        // A live one only learns that its socket may be ready for reading.
        self.t.on_socket(id, false, SocketReady { read: true, ..SocketReady::default() });
    }

    fn collect(&mut self) {
        let mut turn = vec![];
        while let Some(id) = self.t.take_again() {
            assert!(!turn.contains(&id), "{id:?} is listed twice in one turn");
            turn.push(id);
        }
        for id in turn {
            if !self.again.contains(&id) {
                self.again.push(id);
            }
        }
        self.t.take_starved();
    }

    /// One turn of the ready list.
    fn visits(&mut self) {
        for id in std::mem::take(&mut self.again) {
            let write = self.t.net.socks.iter().any(|s| s.open && s.id == id && s.connected);
            self.t.on_socket(id, false, SocketReady { read: true, write, ..Default::default() });
        }
    }

    fn check(&mut self) {
        let near = self.t.net.socks.iter().filter(|s| s.open && !s.far).count();
        assert_eq!(near, self.t.len(), "sockets open, flows");
        self.t.take_starved();
        if let Some(at) = self.t.next_deadline() {
            assert!(at > Now(self.now).ms() || !self.t.is_empty(), "timer without a flow");
        }
        assert!(self.t.pool().available() <= self.pool);
    }

    /// Nothing happens any more: everything has to come to rest.
    fn settle_down(&mut self) {
        self.t.out.full = false;
        self.t.out.lose = 0;
        self.t.net.trouble = 0;
        self.collect();
        self.t.set_now(Now(self.now));
        self.t.on_time();
        self.t.take_starved();
        self.collect();
        self.drain();
        let begin = self.now;
        let end = begin + SILENCE_MS * 1000;
        let mut wakeups = 0u64;
        while let Some(at) = self.t.next_deadline().filter(|at| at * 1000 <= end) {
            assert!(at > Now(self.now).ms(), "the next deadline is not in the future");
            self.now = self.now.max(at * 1000);
            wakeups += 1;
            let seconds = (self.now - begin) / 1_000_000 + 2;
            // The wheel looks at itself as well, once in a while.
            let limit = 200 + seconds * WAKEUPS * (self.t.len() as u64 + 1);
            assert!(wakeups < limit, "{wakeups} wake-ups in {seconds} s");
            self.t.set_now(Now(self.now));
            self.t.on_time();
            self.t.take_starved();
            self.collect();
            self.drain();
            self.check();
        }
        self.now = self.now.max(end);
        for sock in self.t.net.socks.iter().filter(|s| s.open) {
            assert_eq!(sock.kind, Kind::Stream, "a datagram flow without end");
        }
    }

    /// Visits what is on the ready list until nothing is.
    fn drain(&mut self) {
        for visits in 0.. {
            if self.again.is_empty() {
                break;
            }
            assert!(visits < MAX_VISITS, "the ready list never gets empty");
            self.visits();
            self.collect();
        }
    }

    fn end(mut self) {
        self.t.end_flows();
        self.collect();
        self.visits();
        assert!(self.t.is_empty());
        assert_eq!(self.t.net.open().len(), 0, "sockets leaked");
        assert_eq!(self.t.net.pipes_taken(), 0, "pipes leaked");
        assert_eq!(self.t.pool().used(), 0, "chunks leaked");
        assert_eq!(self.t.boards().lent(), 0, "boards leaked");
        assert_eq!(self.t.pool().available(), self.pool, "promises leaked");
        self.t.take_starved();
        // What is left to wait for is the next Router Advertisement.
        assert_eq!(self.t.next_deadline().is_some(), self.advertises, "timers leaked");
    }
}

/// Which way a spliced flow of this client goes.
fn far(client: Endpoint) -> Far {
    if client.port.is_multiple_of(2) { Far::Guest } else { Far::Host }
}
