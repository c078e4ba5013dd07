//! Traffic allocates nothing: everything it needs is reserved at start [D5].
//!
//! The allocator of this test binary counts what each thread asks of it. The whole translation
//! runs between a link and sockets that keep no data; every kind of traffic runs once to warm up,
//! and then again, longer and with more flows, with the counter watched.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::IoSlice;

use passt::config::{Inward, Lease, Protocols};
use passt::flow::{FlowId, Pool};
use passt::forward::{Destination, GuestAddrs};
use passt::services::Offered;
use passt::translate::tcp::{SocketReady, Timeouts};
use passt::translate::{
    Bind, Connected, DatagramSockets, Expect, FrameOut, Gathered, HostError, MtuDiscovery, Now,
    Peeked, Received, Report, Sent, Setup, SockId, SpliceSockets, SynMarks, TcpSockets, TcpView,
    Train, Translator,
};
use passt::wire::{Endpoint, Head, Mac, Vnet};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    ALLOCATIONS.with(|n| n.set(n.get() + 1));
}

// SAFETY: everything is passed on to the system's allocator as it came; counting in a thread-local
// without destructor does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as our caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as our caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as our caller promised.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: as our caller promised.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const GIB: u64 = 1 << 30;
const FLOWS: usize = 2000;

/// Payload of everything.
static ZEROS: [u8; 65_507] = [0; 65_507];

/// A link that keeps the numbers of the last TCP segment and the length of the last payload.
struct Link {
    room: Vec<u8>,
    bytes: u64,
    frames: u64,
    next: u32,
    ack: u32,
}

impl FrameOut for Link {
    fn payload(&mut self) -> Option<&mut [u8]> {
        Some(&mut self.room)
    }

    fn send(&mut self, head: &Head, len: usize) -> bool {
        self.frames += 1;
        self.bytes += len as u64;
        if head.vnet().csum_offset == 16 {
            let tcp = &head.frame()[34..];
            let four = |n: usize| u32::from_be_bytes(*tcp[n..].first_chunk().unwrap());
            let ends = u32::from(tcp[13] & 1) + u32::from(tcp[13] >> 1 & 1);
            self.next = four(4).wrapping_add(len as u32 + ends);
            self.ack = four(8);
        }
        true
    }

    fn send_from(&mut self, head: &Head, payload: &[u8]) -> bool {
        self.send(head, payload.len())
    }

    fn control(&mut self, _frame: &[u8]) -> bool {
        self.frames += 1;
        true
    }
}

/// A socket as lengths.
#[derive(Clone, Copy, Default)]
struct Sock {
    used: bool,
    id: Option<FlowId>,
    queue: u64,
    fin: bool,
    peek: u32,
}

struct Net {
    socks: Vec<Sock>,
    sent: u64,
    sends: u64,
    /// One send in so many takes only half; 0 never.
    short: u64,
    /// Length of datagrams that arrive.
    arriving: usize,
}

impl Net {
    fn open(&mut self, id: FlowId) -> SockId {
        let n = self.socks.iter().position(|s| !s.used).unwrap();
        self.socks[n] = Sock { used: true, id: Some(id), ..Sock::default() };
        SockId(n as i32)
    }

    fn at(&mut self, s: SockId) -> &mut Sock {
        &mut self.socks[s.0 as usize]
    }
}

impl TcpSockets for Net {
    fn connect(
        &mut self,
        id: FlowId,
        _dst: Destination,
        _: SynMarks,
    ) -> Result<Connected, HostError> {
        Ok(Connected::Now(self.open(id)))
    }

    fn connect_error(&mut self, _s: SockId) -> Option<HostError> {
        None
    }

    fn send(&mut self, _s: SockId, data: &[IoSlice<'_>]) -> Sent {
        let total: usize = data.iter().map(|d| d.len()).sum();
        self.sends += 1;
        let short = self.short != 0 && self.sends.is_multiple_of(self.short);
        let n = if short { total / 2 } else { total };
        self.sent += n as u64;
        Sent::Bytes(n)
    }

    fn peek(&mut self, s: SockId, offset: u32, buf: &mut [u8]) -> Peeked {
        let sock = self.at(s);
        let n = (buf.len() as u64).min(sock.queue.saturating_sub(offset.into()));
        match n {
            0 if sock.fin => Peeked::End,
            0 => Peeked::Empty,
            _ => {
                sock.peek = offset + n as u32;
                Peeked::Bytes(n as usize)
            }
        }
    }

    fn seek(&mut self, _s: SockId, _offset: u32) -> bool {
        true
    }

    fn discard(&mut self, s: SockId, n: u32) -> bool {
        self.at(s).queue -= u64::from(n);
        true
    }

    fn shutdown(&mut self, _s: SockId) -> bool {
        true
    }

    fn view(&mut self, _s: SockId) -> Option<TcpView> {
        Some(TcpView {
            rtt_us: 100,
            min_rtt_us: Some(50),
            bytes_acked: Some(self.sent + 1),
            delivery_rate: Some(1 << 30),
        })
    }

    fn free_space(&mut self, _s: SockId) -> u32 {
        1 << 20
    }

    fn send_buffer(&mut self, _s: SockId) -> u32 {
        1 << 20
    }

    fn set_tos(&mut self, _s: SockId, _v4: bool, _tos: u8) {}

    fn peer_tos(&mut self, _s: SockId) -> u8 {
        0
    }

    fn close(&mut self, s: SockId) {
        self.at(s).used = false;
    }

    fn abort(&mut self, s: SockId) {
        self.at(s).used = false;
    }
}

impl SpliceSockets for Net {}

impl DatagramSockets for Net {
    fn open_udp(&mut self, id: FlowId, _bind: Bind, _to: Endpoint) -> Result<SockId, HostError> {
        Ok(self.open(id))
    }

    fn open_ping(&mut self, id: FlowId, _dst: Destination) -> Result<SockId, HostError> {
        Ok(self.open(id))
    }

    fn send_datagram(&mut self, s: SockId, data: &[u8], _segment: u16) -> Result<(), HostError> {
        self.sent += data.len() as u64;
        self.at(s).queue += 1;
        Ok(())
    }

    fn receive_datagram(&mut self, s: SockId, _buf: &mut [u8]) -> Received {
        let sock = self.at(s);
        if sock.queue == 0 {
            return Received::Empty;
        }
        sock.queue -= 1;
        Received::Bytes(100)
    }

    fn receive_trains(&mut self, s: SockId, _: &mut Expect) -> Gathered {
        match self.receive_datagram(s, &mut []) {
            Received::Empty => Gathered::Empty,
            _ => Gathered::Trains { count: 1, more: true },
        }
    }

    fn train(&self, _n: usize) -> Option<Train<'_>> {
        Some(Train { data: &ZEROS[..self.arriving], segment: 0, tos: 0, ttl: 64 })
    }

    fn take_report(&mut self, _: SockId, _: &mut [u8]) -> Option<Report> {
        None
    }

    fn set_mark(&mut self, _s: SockId, _v4: bool, _tos: u8) {}

    fn set_ttl(&mut self, _s: SockId, _v4: bool, _ttl: u8) {}

    fn set_mtu_discovery(&mut self, _s: SockId, _v4: bool, _how: MtuDiscovery) {}

    fn path_mtu(&mut self, _s: SockId, _v4: bool) -> Option<u32> {
        None
    }

    fn close_datagram(&mut self, s: SockId) {
        self.at(s).used = false;
    }
}

const SYN: u8 = 2;
const ACK: u8 = 16;
const FIN: u8 = 1;

/// The guest, the clock and everything between.
struct World {
    t: Translator<Link, Net>,
    frame: Vec<u8>,
    now: u64,
}

/// A TCP connection of the guest: its port and numbers.
#[derive(Clone, Copy)]
struct Conn {
    port: u16,
    seq: u32,
    ack: u32,
    id: FlowId,
    sock: SockId,
}

impl World {
    fn new() -> Self {
        let addr4 = "192.0.2.2".parse().unwrap();
        let lease = Lease { v6: false, addr4, ..Lease::example() };
        let setup = Setup {
            services: Offered::default(),
            protocols: Protocols::default(),
            guest: GuestAddrs::new(&lease, false, false),
            linked: true,
            inward: Inward::Link,
            guest_mac: Mac([2, 0, 0, 0, 0, 1]),
            key: [7; 16],
            flows: FLOWS,
            pool: Pool::new(64 << 20).unwrap(),
            timeouts: Timeouts::default(),
            idle: passt::translate::udp::Timeouts::default(),
            now: Now(1_000_000),
            lease,
        };
        let link = Link { room: vec![0; 65_536], bytes: 0, frames: 0, next: 0, ack: 0 };
        let net =
            Net { socks: vec![Sock::default(); FLOWS], sent: 0, sends: 0, short: 0, arriving: 100 };
        let frame = Vec::with_capacity(70_000);
        Self { t: Translator::new(setup, link, net), frame, now: 1_000_000 }
    }

    /// Builds an IPv4 packet of the guest: `transport` and `data` zero bytes behind it.
    fn guest_sends(&mut self, protocol: u8, transport: &[u8], data: usize) {
        self.frame.clear();
        let total = (20 + transport.len() + data) as u16;
        self.frame.extend(Mac::DEFAULT_OURS.0);
        self.frame.extend([2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0]);
        self.frame.extend(total.to_be_bytes());
        self.frame.extend([0, 0, 0x40, 0, 64, protocol, 0, 0, 192, 0, 2, 2, 198, 51, 100, 1]);
        self.frame.extend(transport);
        self.frame.resize(self.frame.len() + data, 0);
        self.t.on_frame(&Vnet::default(), &self.frame);
    }

    fn tcp(&mut self, c: &Conn, flags: u8, options: &[u8; 8], data: usize) {
        let [s0, s1, s2, s3] = c.seq.to_be_bytes();
        let [a0, a1, a2, a3] = c.ack.to_be_bytes();
        let [p0, p1] = c.port.to_be_bytes();
        let [w0, w1] = [0xff, 0xff];
        let mut t =
            [p0, p1, 0, 80, s0, s1, s2, s3, a0, a1, a2, a3, 0x70, flags, w0, w1, 0, 0, 0, 0]
                .padded();
        t[20..].copy_from_slice(options);
        self.guest_sends(6, &t, data);
    }

    fn ack(&mut self, c: &Conn) {
        self.tcp(c, ACK, &[1; 8], 0);
        self.t.end_batch();
    }

    fn connect(&mut self, port: u16) -> Conn {
        let id = self.t.next_id().unwrap();
        let mut c = Conn { port, seq: 1000, ack: 0, id, sock: SockId(-1) };
        self.tcp(&c, SYN, &[2, 4, 0xff, 0x00, 1, 3, 3, 8], 0);
        self.t.end_batch();
        c.sock = SockId(self.t.net.socks.iter().position(|s| s.id == Some(id)).unwrap() as i32);
        c.seq = 1001;
        c.ack = self.t.out.next;
        self.ack(&c);
        c
    }

    fn ready(&mut self, c: &Conn) {
        let ready = SocketReady { read: true, write: true, ..SocketReady::default() };
        self.t.on_socket(c.id, false, ready);
    }

    /// Ends a turn as the loop does.
    fn turn(&mut self, us: u64) {
        self.now += us;
        self.t.set_now(Now(self.now));
        self.t.on_time();
        for _ in 0..FLOWS {
            if self.t.take_again().is_none() {
                break;
            }
        }
    }

    fn upload(&mut self, bytes: u64) {
        let mut c = self.connect(4000);
        self.t.net.short = 7;
        let until = self.t.net.sent + bytes;
        while self.t.net.sent < until {
            for _ in 0..8 {
                let window = 60_000;
                self.tcp(&c, ACK, &[1; 8], window);
                c.seq = c.seq.wrapping_add(window as u32);
            }
            self.t.end_batch();
            self.ready(&c);
            self.turn(200);
            // What did not fit is sent again.
            self.ack(&c);
            c.seq = self.t.out.ack;
        }
        self.t.net.short = 0;
        self.finish(c);
    }

    fn download(&mut self, bytes: u64, flows: u16) {
        let mut conns = [None; 256];
        for (slot, port) in conns.iter_mut().zip(5000..5000 + flows) {
            *slot = Some(self.connect(port));
        }
        let until = self.t.out.bytes + bytes;
        while self.t.out.bytes < until {
            for c in conns.iter_mut().flatten() {
                self.t.net.at(c.sock).queue += 3 << 20;
            }
            // One turn in which all have more than one visit's worth.
            for c in conns.iter_mut().flatten() {
                self.ready(c);
                c.ack = self.t.out.next;
            }
            self.turn(100);
            while conns.iter().flatten().any(|c| self.t.net.socks[c.sock.0 as usize].queue > 0) {
                for c in conns.iter_mut().flatten() {
                    self.ack(c);
                    self.ready(c);
                    c.ack = self.t.out.next;
                    // Nothing was sent: what others got is not for this one.
                    self.ack(c);
                }
                self.turn(100);
            }
        }
        for c in conns.into_iter().flatten() {
            self.finish(c);
        }
    }

    fn finish(&mut self, mut c: Conn) {
        self.tcp(&c, FIN | ACK, &[1; 8], 0);
        self.t.end_batch();
        c.seq = c.seq.wrapping_add(1);
        let sock = self.t.net.at(c.sock);
        sock.fin = true;
        self.t.on_socket(
            c.id,
            false,
            SocketReady { read: true, read_closed: true, ..SocketReady::default() },
        );
        c.ack = self.t.out.next;
        self.ack(&c);
        self.turn(10);
    }

    /// One request of 100 bytes and its answer on a connection.
    fn tcp_request(&mut self, c: &mut Conn) {
        self.tcp(c, ACK, &[1; 8], 100);
        self.t.end_batch();
        c.seq = c.seq.wrapping_add(100);
        self.t.net.at(c.sock).queue += 100;
        self.ready(c);
        c.ack = self.t.out.next;
        self.ack(c);
        self.turn(30);
    }

    fn tcp_requests(&mut self, n: u64) {
        let mut c = self.connect(6000);
        for _ in 0..n {
            self.tcp_request(&mut c);
        }
        self.finish(c);
    }

    fn tcp_connections(&mut self, n: u64) {
        for k in 0..n {
            let mut c = self.connect(7000 + (k % 20_000) as u16);
            self.tcp_request(&mut c);
            self.finish(c);
        }
    }

    fn udp_requests(&mut self, n: u64) {
        for k in 0..n {
            // Every fourth one from a new port.
            let port = if k % 4 == 0 { 10_000 + (k / 4 % 40_000) as u16 } else { 9000 };
            let [p0, p1] = port.to_be_bytes();
            let id = self.t.next_id().unwrap();
            self.guest_sends(17, &[p0, p1, 0, 53, 0, 108, 0, 0], 100);
            self.t.end_batch();
            let answered = self.t.net.socks.iter().position(|s| s.used && s.queue > 0).unwrap();
            let id = self.t.net.socks[answered].id.unwrap_or(id);
            self.t.on_socket(id, false, SocketReady { read: true, ..SocketReady::default() });
            // Two a millisecond would fill the table in a second; they last 30 s.
            self.turn(100_000);
        }
    }
}

impl World {
    /// A part of a datagram to port 7000.
    fn fragment(&mut self, id: u16, word: u16, data: &[u8]) {
        self.frame.clear();
        self.frame.extend(Mac::DEFAULT_OURS.0);
        self.frame.extend([2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0]);
        self.frame.extend((20 + data.len() as u16).to_be_bytes());
        self.frame.extend(id.to_be_bytes());
        self.frame.extend(word.to_be_bytes());
        self.frame.extend([64, 17, 0, 0, 192, 0, 2, 2, 198, 51, 100, 1]);
        self.frame.extend(data);
        self.t.on_frame(&Vnet::default(), &self.frame);
    }

    /// Datagrams of 3000 bytes in three fragments, of which each fifth never comes; and answers that
    /// the link does not take in one piece.
    fn fragments(&mut self, n: u64) {
        self.t.net.arriving = 65_507;
        let mut data = [0; 3000];
        data[..8].copy_from_slice(&[9, 0, 27, 88, 11, 184, 0, 0]);
        for k in 0..n {
            let id = (k % 65_536) as u16;
            self.fragment(id, 250, &data[2000..]);
            self.fragment(id, 0x2000, &data[..1000]);
            if k % 5 != 0 {
                self.fragment(id, 0x2000 | 125, &data[1000..2000]);
            }
            self.t.end_batch();
            let waiting = self.t.net.socks.iter().find(|s| s.used && s.queue > 0);
            if let Some(id) = waiting.and_then(|s| s.id) {
                self.t.on_socket(id, false, SocketReady { read: true, ..SocketReady::default() });
            }
            self.turn(1_000_000);
        }
    }
}

trait Pad {
    fn padded(self) -> [u8; 28];
}

impl Pad for [u8; 20] {
    fn padded(self) -> [u8; 28] {
        let mut out = [0; 28];
        out[..20].copy_from_slice(&self);
        out
    }
}

/// Runs a kind of traffic to warm up, then counts.
fn quiet(what: &str, warm_up: impl Fn(&mut World), traffic: impl Fn(&mut World)) -> World {
    let mut world = World::new();
    warm_up(&mut world);
    let before = ALLOCATIONS.get();
    traffic(&mut world);
    let n = ALLOCATIONS.get() - before;
    assert_eq!(n, 0, "{what}: {n} allocations");
    world
}

// [D5]
#[test]
fn a_gigabyte_from_the_guest() {
    let w = quiet("upload", |w| w.upload(1 << 20), |w| w.upload(GIB));
    assert!(w.t.net.sent >= GIB && w.t.is_empty());
}

// [D5]
#[test]
fn a_gigabyte_to_the_guest() {
    let w = quiet("download", |w| w.download(1 << 20, 1), |w| w.download(GIB, 1));
    assert!(w.t.out.bytes >= GIB && w.t.is_empty());
}

// [D5] Also when there are more flows with work left than ever before.
#[test]
fn many_flows_to_the_guest() {
    let w = quiet("downloads", |w| w.download(1 << 20, 1), |w| w.download(GIB, 200));
    assert!(w.t.out.bytes >= GIB && w.t.is_empty());
}

// [D5] [L2-4] [L2-11]
#[test]
fn datagrams_in_fragments() {
    use passt::flow::DropReason;
    let w = quiet("fragments", |w| w.fragments(100), |w| w.fragments(10_000));
    assert!(w.t.net.sent > 7000 * 2992 && w.t.out.bytes > 7000 * 65_507);
    assert!(w.t.drops().get(DropReason::FragmentTimeout) > 1000);
}

// [D5]
#[test]
fn small_requests() {
    let w = quiet("requests", |w| w.tcp_requests(100), |w| w.tcp_requests(100_000));
    assert!(w.t.out.bytes > 10_000_000 && w.t.is_empty());
    let w = quiet("connections", |w| w.tcp_connections(100), |w| w.tcp_connections(10_000));
    assert!(w.t.out.bytes > 1_000_000 && w.t.is_empty());
    let w = quiet("datagrams", |w| w.udp_requests(100), |w| w.udp_requests(100_000));
    assert!(w.t.out.bytes >= 10_000_000);
}

// The counter counts.
#[test]
fn an_allocation_is_seen() {
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(vec![1u8; 100]));
    assert!(ALLOCATIONS.get() > before);
}
