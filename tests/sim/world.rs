//! Plays the daemon: owns the table, the clock and the fakes, calls handlers, settles verdicts.

use std::collections::BTreeMap;
use std::net::IpAddr;

use passt::config::Lease;
use passt::flow::{DropReason, Drops, FlowId, Index, Pool, Table};
use passt::forward::{Destination, Neighbours, Via};
use passt::services::{Offered, Outcome as Service, Reply, arp, ndp};
use passt::translate::tcp::{Boards, Opened, Origin, SocketReady, Tcp, Timeouts, answer_stray};
use passt::translate::{Fragmenter, Io, Marks, Now, SockId, Verdict};
use passt::wire::{Addr, Body, Endpoint, Frame, Mac, SackBlocks, Segment, Seq, TcpFlags, proto};

use super::link::FakeLink;
use super::net::FakeNet;
use super::rng::Rng;
use super::watch::Watch;

pub const GUEST_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

/// A guest, a host, and translation between them.
pub struct World {
    pub table: Table<Tcp>,
    index: Index,
    pub net: FakeNet,
    pub link: FakeLink,
    pub pool: Pool,
    pub boards: Boards,
    pub timeouts: Timeouts,
    pool_capacity: usize,
    pub drops: Drops,
    fragmenter: Fragmenter,
    pub lease: Lease,
    pub neighbours: Neighbours,
    /// Microseconds.
    pub now: u64,
    /// Our next initial sequence number.
    pub isn: u32,
    /// What our timestamps are ahead of the clock.
    pub ts_offset: u32,
    pub watch: Watch,
    /// Sockets of all flows ever, in order.
    pub flows: Vec<(FlowId, SockId)>,
    /// How flows ended.
    pub ends: BTreeMap<u32, Verdict>,
    /// Timer calls made.
    pub timer_calls: u64,
    pub v6: bool,
    /// What the guest connects to is on the host's loopback interface.
    pub loopback: bool,
    tracing: bool,
    /// The guest breaks its own promises, so only ours are checked.
    pub hostile: bool,
    /// Captured frames that were looked at.
    watched: usize,
}

macro_rules! io {
    ($w:ident) => {
        Io {
            out: &mut $w.link,
            net: &mut $w.net,
            pool: &mut $w.pool,
            boards: &mut $w.boards,
            drops: &mut $w.drops,
            fragmenter: &mut $w.fragmenter,
            lease: &$w.lease,
            neighbours: &$w.neighbours,
            guest_mac: GUEST_MAC,
            timeouts: $w.timeouts,
            now: Now($w.now),
        }
    };
}

pub fn addr(s: &str) -> Addr {
    s.parse::<IpAddr>().unwrap().into()
}

pub fn lease(mtu: u16) -> Lease {
    Lease {
        addr4: "192.0.2.2".parse().unwrap(),
        addr6: Some("2001:db8::2".parse().unwrap()),
        mtu,
        ..Lease::example()
    }
}

impl World {
    pub fn new() -> Self {
        Self::with(65520, 64 << 20, 1)
    }

    pub fn with(mtu: u16, pool: usize, seed: u64) -> Self {
        Self {
            table: Table::new(100),
            index: Index::new(100, [7; 16]),
            net: FakeNet { now: 1_000_000, ..FakeNet::new(Rng::new(seed)) },
            link: FakeLink::new(),
            pool: Pool::new(pool).unwrap(),
            pool_capacity: Pool::new(pool).unwrap().available(),
            boards: Boards::new(),
            timeouts: Timeouts::default(),
            drops: Drops::default(),
            fragmenter: Fragmenter::new(&lease(mtu)),
            neighbours: Neighbours::new(&lease(mtu)),
            lease: lease(mtu),
            now: 1_000_000,
            isn: 5000,
            ts_offset: 0x4000_0000,
            watch: Watch::default(),
            flows: vec![],
            ends: BTreeMap::new(),
            timer_calls: 0,
            v6: false,
            loopback: false,
            tracing: std::env::var_os("SIM_TRACE").is_some(),
            hostile: false,
            watched: 0,
        }
    }

    /// The address of the party we impersonate.
    pub fn peer(&self) -> Addr {
        addr(if self.v6 { "2001:db8:1::1" } else { "198.51.100.1" })
    }

    pub fn guest(&self) -> Addr {
        addr(if self.v6 { "2001:db8::2" } else { "192.0.2.2" })
    }

    /// One batch of frames from the guest.
    pub fn from_guest(&mut self, frames: &[Vec<u8>]) {
        let mut touched: Vec<FlowId> = vec![];
        for f in frames {
            self.watch_sent();
            self.trace("-->", f);
            self.watch.from_guest(f, self.now);
            let Ok(frame) = Frame::parse(f) else { continue };
            let packet = match frame.body {
                Body::Arp => {
                    let mut reply = Reply::new();
                    let us = self.lease.our_mac;
                    if arp::respond(&self.lease, f, |_| us, |_| false, &mut reply)
                        == Service::Replied
                    {
                        self.link.frames.push_back(reply.frame().to_vec());
                    }
                    continue;
                }
                Body::Ip(packet) => packet,
                Body::Fragment(_) => continue,
            };
            if packet.protocol == proto::ICMPV6 {
                let mut reply = Reply::new();
                let us = self.lease.our_mac;
                let request = ndp::Request {
                    eth_src: frame.src,
                    src: packet.src.v6().unwrap(),
                    hop_limit: packet.ttl,
                    icmp: packet.transport,
                };
                let offered = Offered { ra: false, ..Offered::default() };
                let got = ndp::respond(&self.lease, offered, &request, |_| us, &mut reply);
                if got == Service::Replied {
                    self.link.frames.push_back(reply.frame().to_vec());
                }
                continue;
            }
            let Ok(seg) = Segment::parse(packet.transport) else { continue };
            let ours = Endpoint::new(packet.dst, seg.dst_port);
            let guest = Endpoint::new(packet.src, seg.src_port);
            let tuple = passt::flow::Tuple { protocol: proto::TCP, ours, guest };
            let hash = self.index.hash(&tuple);
            let table = &self.table;
            let found = self.index.find(hash, |i| table.at(i).is_some_and(|f| f.tuple() == tuple));
            if let Some(id) = found.and_then(|i| self.table.id_at(i)) {
                let flow = self.table.get_mut(id).unwrap();
                flow.on_mark(packet.tos, &mut io!(self));
                let verdict = flow.on_segment(&seg, &mut io!(self));
                if !touched.contains(&id) {
                    touched.push(id);
                }
                self.settle(id, verdict);
                continue;
            }
            let plain = seg.flags.has(TcpFlags::SYN)
                && !seg.flags.has(TcpFlags::ACK)
                && !seg.flags.has(TcpFlags::RST);
            if !plain {
                answer_stray(&packet, &seg, &mut io!(self));
                continue;
            }
            let id = self.table.next_id().unwrap();
            let origin = self.origin();
            let lo = Endpoint::new(addr("127.0.0.1"), ours.port);
            match Tcp::from_guest(
                id,
                (ours, guest),
                Destination { to: if self.loopback { lo } else { ours }, via: Via::Outside },
                (&seg, Marks { ttl: packet.ttl, tos: packet.tos, df: packet.df }),
                origin,
                &mut io!(self),
            ) {
                Opened::Flow(flow) => {
                    self.flows.push((id, flow.sock));
                    self.table.insert(flow).unwrap();
                    self.index.insert(hash, id.index);
                }
                Opened::Exhausted => self.drops.count(DropReason::NoSocket),
                Opened::Refused => {}
            }
        }
        for id in touched {
            if let Some(flow) = self.table.get_mut(id) {
                let verdict = flow.on_batch_end(&mut io!(self));
                self.settle(id, verdict);
            }
        }
        self.socket_events();
    }

    fn origin(&self) -> Origin {
        Origin { isn: Seq(self.isn), ts_offset: self.ts_offset }
    }

    /// A peer connects; its port is `port`, the guest's is 80.
    pub fn accept(&mut self, port: u16) -> SockId {
        self.accept_on(port, 80)
    }

    pub fn accept_on(&mut self, port: u16, guest_port: u16) -> SockId {
        let sock = self.net.accept();
        let ours = Endpoint::new(self.peer(), port);
        let guest = Endpoint::new(self.guest(), guest_port);
        let flow = Tcp::from_peer(sock, (ours, guest), self.origin(), &mut io!(self));
        let hash = self.index.hash(&flow.tuple());
        let id = self.table.insert(flow).unwrap();
        self.index.insert(hash, id.index);
        self.net.sock(sock).flow = Some(id);
        self.flows.push((id, sock));
        sock
    }

    fn settle(&mut self, id: FlowId, verdict: Verdict) {
        if verdict == Verdict::Keep {
            return;
        }
        let mut flow = self.table.remove(id).unwrap();
        let hash = self.index.hash(&flow.tuple());
        assert!(self.index.remove(hash, id.index));
        self.watch_sent();
        self.watch.forget(flow.guest, flow.ours);
        self.ends.insert(flow.sock.0 as u32, verdict);
        flow.release(&mut self.net, &mut self.pool, &mut self.boards, verdict);
    }

    /// Reports what sockets are ready for, until nothing is left to do.
    pub fn socket_events(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "the flow never has enough");
            self.net.advance(self.now);
            let events = self.net.take_events();
            let mut busy = !events.is_empty();
            for (id, ready) in events {
                self.on_socket(id, ready);
            }
            // The ready list: flows that stopped for want of budget only.
            let ids: Vec<_> = self.table.ids().collect();
            for id in ids {
                if self.table.get(id).unwrap().wants_push() {
                    busy = true;
                    self.on_socket(id, SocketReady::default());
                }
            }
            if !busy {
                break;
            }
        }
    }

    pub fn on_socket(&mut self, id: FlowId, ready: SocketReady) {
        if let Some(flow) = self.table.get_mut(id) {
            let verdict = flow.on_socket(ready, &mut io!(self));
            self.settle(id, verdict);
        }
    }

    fn watch_sent(&mut self) {
        for at in self.watched..self.link.frames.len() {
            self.trace("<--", &self.link.frames[at]);
            self.watch.to_guest(&self.link.frames[at], self.hostile, self.now);
        }
        self.watched = self.link.frames.len();
    }

    /// Prints a frame if the variable `SIM_TRACE` is set.
    fn trace(&self, arrow: &str, frame: &[u8]) {
        if !self.tracing {
            return;
        }
        let Ok(Frame { body: Body::Ip(p), .. }) = Frame::parse(frame) else { return };
        let Ok(s) = Segment::parse(p.transport) else { return };
        println!(
            "{:>12} {} {arrow} {}: {:?} seq {}+{} ack {} win {}{}",
            self.now,
            s.src_port,
            s.dst_port,
            s.flags,
            s.seq.0,
            s.payload.len(),
            s.ack.0,
            s.window,
            SackBlocks::find(s.options)
                .as_slice()
                .iter()
                .fold(String::new(), |text, b| { text + &format!(" {}-{}", b.left.0, b.right.0) })
        );
    }

    /// When something happens by itself, microseconds.
    pub fn next_event(&self) -> Option<u64> {
        let timers = self.table.ids().filter_map(|id| self.table.get(id)?.deadline().at());
        timers.map(|ms| ms * 1000).chain(self.net.next_event()).min()
    }

    /// Fires what is due now.
    pub fn turn(&mut self) {
        self.socket_events();
        let ids: Vec<_> = self.table.ids().collect();
        for id in ids {
            let Some(flow) = self.table.get_mut(id) else { continue };
            if flow.deadline().is_due(Now(self.now)) {
                self.timer_calls += 1;
                let verdict = flow.on_timer(&mut io!(self));
                assert!(
                    verdict != Verdict::Keep || !flow.deadline().is_due(Now(self.now)),
                    "a deadline stays due"
                );
                self.settle(id, verdict);
            }
        }
        self.socket_events();
    }

    /// Lets `us` microseconds pass.
    pub fn run(&mut self, us: u64) {
        let end = self.now + us;
        while let Some(at) = self.next_event().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.turn();
        }
        self.now = end;
        self.turn();
    }

    /// Frames for the guest since the last call.
    pub fn take_frames(&mut self) -> Vec<Vec<u8>> {
        self.watch_sent();
        self.watched = 0;
        self.link.frames.drain(..).collect()
    }

    pub fn keepalive_scan(&mut self) {
        for id in self.table.ids().collect::<Vec<_>>() {
            self.table.get_mut(id).unwrap().on_keepalive_scan(&mut io!(self));
        }
    }

    pub fn inactivity_scan(&mut self) {
        for id in self.table.ids().collect::<Vec<_>>() {
            let verdict = self.table.get_mut(id).unwrap().on_inactivity_scan(&mut io!(self));
            self.settle(id, verdict);
        }
    }

    pub fn deadline_armed(&self) -> bool {
        self.table.ids().any(|id| self.table.get(id).unwrap().deadline().is_armed())
    }

    /// Nothing is left of any connection.
    pub fn assert_clean(&self) {
        assert!(
            self.table.is_empty(),
            "flows leaked: {:?}",
            self.table.get(self.table.ids().next().unwrap())
        );
        assert!(self.index.is_empty(), "index entries leaked");
        assert_eq!(self.pool.used(), 0, "chunks leaked");
        assert_eq!(self.boards.lent(), 0, "boards leaked");
        assert_eq!(self.pool.available(), self.pool_capacity, "promises leaked");
        for (i, s) in self.net.socks.iter().enumerate() {
            assert!(s.closed, "socket {i} leaked");
        }
    }
}
