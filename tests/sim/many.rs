//! As many flows as there can be, and more, on the whole translator: the table is full, nothing
//! can be opened, memory is short.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use passt::config::{Inward, Protocols};
use passt::flow::{CHUNK, DropReason, MAX_FLOWS, Pool};
use passt::forward::GuestAddrs;
use passt::services::Offered;
use passt::translate::tcp::Timeouts;
use passt::translate::{HostError, Now, Setup, Translator};
use passt::wire::{Addr, Body, Frame, Segment, TcpFlags, Vnet};

use super::link::FakeLink;
use super::net::{Behaviour, FakeNet, Outcome};
use super::raw::{ACK, G, OPTIONS, RST, SYN, framed, packet};
use super::rng::Rng;
use super::world::{GUEST_MAC, addr, lease};

const POOL: usize = 8 << 20;

/// The whole translator between fakes.
struct Host {
    t: Translator<FakeLink, FakeNet>,
    now: u64,
}

/// A connection of the guest: its number decides addresses and ports.
#[derive(Clone, Copy)]
struct Conn(u32);

impl Conn {
    fn v6(self) -> bool {
        self.0 % 2 == 1
    }

    fn port(self) -> u16 {
        (1024 + self.0 % 60_000) as u16
    }

    fn to(self) -> Addr {
        let n = (self.0 / 60_000) as u8;
        if self.v6() {
            Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, u16::from(n) + 1).into()
        } else {
            Ipv4Addr::new(198, 51, 100, n + 1).into()
        }
    }

    fn frame(self, flags: u8, seq: u32, ack: u32, data: &[u8]) -> Vec<u8> {
        let options: &[u8] = if flags & SYN != 0 { &OPTIONS } else { &[] };
        let mut tcp = vec![];
        tcp.extend(self.port().to_be_bytes());
        tcp.extend(80u16.to_be_bytes());
        tcp.extend(seq.to_be_bytes());
        tcp.extend(ack.to_be_bytes());
        tcp.extend([((5 + options.len() / 4) << 4) as u8, flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend(options);
        tcp.extend(data);
        let guest = addr(if self.v6() { "2001:db8::2" } else { "192.0.2.2" });
        framed(&packet(guest, self.to(), 6, &tcp))
    }
}

/// What we sent: the connection's address and port, and the segment's numbers.
struct Sent {
    key: (Addr, u16),
    flags: TcpFlags,
    seq: u32,
    ack: u32,
    win: u16,
}

impl Host {
    fn new(how: Behaviour) -> Self {
        let lease = lease(65520);
        let now = 1_000_000;
        let setup = Setup {
            services: Offered::default(),
            protocols: Protocols::default(),
            guest: GuestAddrs::new(&lease, false, false),
            linked: true,
            inward: Inward::Link,
            guest_mac: GUEST_MAC,
            key: [7; 16],
            flows: MAX_FLOWS,
            pool: Pool::new(POOL).unwrap(),
            timeouts: Timeouts::default(),
            idle: passt::translate::udp::Timeouts::default(),
            now: Now(now),
            lease,
        };
        let mut net = FakeNet { now, ..FakeNet::new(Rng::new(1)) };
        net.next = how;
        Self { t: Translator::new(setup, FakeLink::new(), net), now }
    }

    fn guest_sends(&mut self, frames: &[Vec<u8>]) -> Vec<Sent> {
        for frame in frames {
            self.t.on_frame(&Vnet::default(), frame);
        }
        self.t.end_batch();
        self.sent()
    }

    fn sent(&mut self) -> Vec<Sent> {
        let frames = self.t.out.frames.drain(..);
        frames
            .map(|f| {
                let Ok(Frame { body: Body::Ip(p), .. }) = Frame::parse(&f) else { panic!() };
                let s = Segment::parse(p.transport).unwrap();
                let key = (p.src, s.dst_port);
                Sent { key, flags: s.flags, seq: s.seq.0, ack: s.ack.0, win: s.window }
            })
            .collect()
    }

    /// Opens a connection; what follows the number of our SYN,ACK.
    fn open(&mut self, c: Conn) -> Option<u32> {
        let sent = self.guest_sends(&[c.frame(SYN, G, 0, &[])]);
        let [synack] = &sent[..] else {
            assert!(sent.is_empty());
            return None;
        };
        assert!(synack.flags.has(TcpFlags::SYN.with(TcpFlags::ACK)), "{:?}", synack.flags);
        let next = synack.seq.wrapping_add(1);
        assert_eq!(self.guest_sends(&[c.frame(ACK, G + 1, next, &[])]).len(), 0);
        Some(next)
    }

    /// Lets time pass, in one step, and does what is due.
    fn pass(&mut self, us: u64) -> Vec<Sent> {
        self.now += us;
        self.t.set_now(Now(self.now));
        self.t.net.advance(self.now);
        for (id, ready) in self.t.net.take_events() {
            self.t.on_socket(id, false, ready);
        }
        self.t.on_time();
        while let Some(id) = self.t.take_again() {
            self.t.on_socket(id, false, Default::default());
        }
        self.sent()
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.t.drops().iter().find(|(r, _)| *r == reason).map_or(0, |(_, n)| n)
    }
}

// [FLOW-5] [FLOW-8] [FLOW-10] All slots in use: one more SYN meets silence, one more connection of
// a peer stays where it is, and neither is tried at every turn. Every flow still works, and a slot
// that comes free serves again.
#[test]
fn full_table() {
    let n = MAX_FLOWS as u32;
    assert_eq!(n, 131_071);
    let mut h = Host::new(Behaviour::default());
    let next: Vec<u32> = (0..n).map(|i| h.open(Conn(i)).unwrap()).collect();
    assert_eq!((h.t.len(), h.dropped(DropReason::TableFull)), (MAX_FLOWS, 0));
    assert!(!h.t.take_starved());

    assert_eq!(h.open(Conn(n)), None);
    assert_eq!(h.t.next_id(), None);
    assert_eq!(h.dropped(DropReason::TableFull), 2);
    for _ in 0..50 {
        h.pass(100_000);
        assert!(!h.t.take_starved(), "there is still no slot");
    }
    // What wakes us is the scan of all flows.
    assert!(h.t.next_deadline().is_some_and(|at| at > h.now / 1000 + 1000));

    for i in (0..n).step_by(7) {
        let c = Conn(i);
        h.guest_sends(&[c.frame(ACK, G + 1, next[i as usize], b"x")]);
        assert_eq!(h.t.net.socks[i as usize].peer_got, b"x");
    }
    let ended = 70_000; // one of those that have sent a byte
    h.guest_sends(&[Conn(ended).frame(RST | ACK, G + 2, next[ended as usize], &[])]);
    assert!(h.t.net.socks[ended as usize].aborted);
    assert!(h.t.take_starved(), "a slot is free");
    assert!(!h.t.take_starved(), "told once");
    let id = h.t.next_id().unwrap();
    assert_eq!(id.index, ended, "[FLOW-6] the lowest free slot");
    assert!(id.generation > 0, "[FLOW-13] events of the old flow find nothing");
    assert!(h.open(Conn(n)).is_some());
    assert_eq!(h.t.len(), MAX_FLOWS);

    h.t.end_flows();
    assert!(h.t.is_empty());
    assert_eq!((h.t.pool().used(), h.t.pool().available()), (0, POOL));
    assert!(h.t.net.socks.iter().all(|s| s.closed), "[TCP-86] no socket is left open");
}

// [TCP-96] [FLOW-8] Without descriptors a SYN meets silence, and connections that wait are tried
// again when a flow ends, otherwise after a second, however often it fails meanwhile.
#[test]
fn no_descriptors() {
    let mut h = Host::new(Behaviour::default());
    let next = h.open(Conn(0)).unwrap();
    h.t.net.next.outcome = Outcome::Error(HostError::Exhausted);
    assert_eq!(h.open(Conn(1)), None);
    assert_eq!((h.t.len(), h.dropped(DropReason::NoSocket)), (1, 1));

    let start = h.now;
    h.t.no_socket();
    assert!(h.t.next_deadline().is_some_and(|at| at <= start / 1000 + 1000));
    for _ in 0..9 {
        h.pass(100_000);
        assert!(!h.t.take_starved());
        h.t.no_socket();
    }
    h.pass(100_000);
    assert!(h.t.take_starved(), "a second is over");
    assert!(!h.t.take_starved());

    h.t.no_socket();
    assert!(!h.t.take_starved());
    h.guest_sends(&[Conn(0).frame(RST | ACK, G + 1, next, &[])]);
    assert!(h.t.take_starved(), "a descriptor has come free");
}

/// What a stalled sender knows.
#[derive(Clone, Copy)]
struct Sender {
    conn: Conn,
    /// What we sent it so far.
    ours: u32,
    /// Bytes sent.
    sent: u32,
    acked: u32,
    /// Right edge of the window, counted like bytes sent.
    edge: u32,
}

// [D1] [TCP-98] Ten thousand senders, both families, fill the windows of peers that do not read:
// memory is never exceeded, nothing inside a window is dropped, and we do not become busy with it.
// When the peers read, everything arrives, and all memory is free again.
#[test]
fn ten_thousand_stalled_flows() {
    const FLOWS: u32 = 10_000;
    const MORE: u32 = 5000;
    let how = Behaviour { sndbuf: 4000, peer_rcvbuf: 1000, peer_read: 0, ..Behaviour::default() };
    let mut h = Host::new(how);
    let data: Vec<u8> = Rng::new(5).bytes(400_000);
    let mut senders = vec![];
    let mut by_key = BTreeMap::new();
    for n in 0..FLOWS {
        let conn = Conn(n);
        let ours = h.open(conn).unwrap();
        by_key.insert((conn.to(), conn.port()), senders.len());
        senders.push(Sender { conn, ours, sent: 0, acked: 0, edge: 4000 });
    }
    let note = |senders: &mut Vec<Sender>, got: Vec<Sent>| {
        for s in got {
            let sender = &mut senders[by_key[&s.key]];
            assert!(!s.flags.has(TcpFlags::RST), "reset");
            sender.acked = sender.acked.max(s.ack.wrapping_sub(G + 1));
            sender.edge = sender.edge.max(s.ack.wrapping_sub(G + 1) + (u32::from(s.win) << 8));
        }
    };
    let fill = |h: &mut Host, senders: &mut Vec<Sender>, most: u32| -> bool {
        let mut any = false;
        for n in 0..senders.len() {
            let s = senders[n];
            let end = s.edge.min(s.sent + 30_000).min(most);
            if end > s.sent {
                any = true;
                let part = &data[s.sent as usize..end as usize];
                let got = h.guest_sends(&[s.conn.frame(ACK, G + 1 + s.sent, s.ours, part)]);
                senders[n].sent = end;
                note(senders, got);
            }
            assert!(h.t.pool().used() * CHUNK <= POOL);
        }
        any
    };
    let mut still = 0;
    while still < 40 {
        still = if fill(&mut h, &mut senders, 400_000 - MORE) { 0 } else { still + 1 };
        let got = h.pass(50_000);
        note(&mut senders, got);
    }
    let stuck: u64 = senders.iter().map(|s| u64::from(s.sent)).sum();
    let most = senders.iter().map(|s| s.sent).max().unwrap();
    assert!(most < 395_000, "every window is closed: {most}");
    assert!(stuck > u64::from(FLOWS) * 4000, "every socket is full: {stuck}");
    assert!(h.t.pool().used() * CHUNK > POOL / 2, "the pool is in use");
    assert_eq!(h.dropped(DropReason::BeyondWindow), 0);

    // Let it settle; then, about one look per second and flow.
    for _ in 0..40 {
        let got = h.pass(100_000);
        note(&mut senders, got);
    }
    let looks = |h: &Host| {
        h.t.net.socks.iter().map(|s| u64::from(s.calls.view + s.calls.send)).sum::<u64>()
    };
    let before = looks(&h);
    for _ in 0..100 {
        let got = h.pass(100_000);
        note(&mut senders, got);
    }
    let looks = looks(&h) - before;
    assert!(looks < u64::from(FLOWS) * 15, "{looks} looks in 10 s");

    let target: Vec<u32> = senders.iter().map(|s| s.sent + MORE).collect();
    for s in &mut h.t.net.socks {
        s.how.peer_read = usize::MAX;
    }
    for _ in 0..200 {
        for (n, target) in target.iter().enumerate() {
            let s = senders[n];
            let end = s.edge.min(s.sent + 30_000).min(*target);
            if end > s.sent {
                let part = &data[s.sent as usize..end as usize];
                let got = h.guest_sends(&[s.conn.frame(ACK, G + 1 + s.sent, s.ours, part)]);
                senders[n].sent = end;
                note(&mut senders, got);
            }
        }
        let got = h.pass(50_000);
        note(&mut senders, got);
        if senders.iter().zip(&target).all(|(s, t)| s.acked == *t) {
            break;
        }
    }
    for (n, target) in target.iter().enumerate() {
        assert_eq!(senders[n].acked, *target, "flow {n}");
        assert!(h.t.net.socks[n].peer_got == data[..*target as usize], "flow {n}");
    }
    assert_eq!((h.dropped(DropReason::BeyondWindow), h.t.pool().used()), (0, 0));
    h.t.end_flows();
    assert_eq!(h.t.pool().available(), POOL);
}

// [FLOW-15] [FLOW-16] [L2-10] Segments of more flows than a batch holds, in turns: each flow's arrive in order, and
// each is acknowledged once the batch is over.
#[test]
fn a_batch_of_many_flows() {
    const FLOWS: u32 = 200;
    let mut h = Host::new(Behaviour::default());
    let next: Vec<u32> = (0..FLOWS).map(|n| h.open(Conn(n)).unwrap()).collect();
    let mut frames = vec![];
    for round in 0..5u32 {
        for n in 0..FLOWS {
            let data = [round as u8; 100];
            frames.push(Conn(n).frame(ACK, G + 1 + round * 100, next[n as usize], &data));
        }
    }
    let mut sent = h.guest_sends(&frames);
    for _ in 0..20 {
        sent.extend(h.pass(1000));
    }
    let want: Vec<u8> = (0..5).flat_map(|r| [r; 100]).collect();
    for s in &h.t.net.socks {
        assert!(s.peer_got == want);
    }
    let last: BTreeMap<_, u32> = sent.iter().map(|s| (s.key, s.ack)).collect();
    assert_eq!(last.len(), FLOWS as usize);
    assert!(last.values().all(|ack| *ack == G + 501));
}
