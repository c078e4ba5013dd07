//! Fakes of the ports, for tests of handlers: a link that records frames, scripted sockets.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::VecDeque;
use std::net::IpAddr;

use super::tcp::{Boards, Timeouts};
use super::{
    Bind, DatagramSockets, Expect, Far, Fragmenter, FrameOut, Gathered, HostError, Io, ListenerId,
    MtuDiscovery, Now, Received, Report, SockId, SpliceSockets, Train,
};
use crate::config::Lease;
use crate::flow::{DropReason, Drops, FlowId, Pool};
use crate::forward::{Destination, Neighbours, Via};
use crate::wire::{Addr, Endpoint, Gso, Head, Mac, checksum};

/// The flow under test.
pub(super) const ID: FlowId = FlowId { index: 7, generation: 1 };

/// Its socket.
pub(super) const SOCK: SockId = SockId(42);

/// The guest's Ethernet address.
pub(super) const GUEST_MAC: Mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

/// An address and a port.
pub(super) fn at(addr: &str, port: u16) -> Endpoint {
    Endpoint::new(addr.parse::<IpAddr>().unwrap().into(), port)
}

/// An address.
pub(super) fn addr(addr: &str) -> Addr {
    at(addr, 0).addr
}

/// A link that records what it is given.
pub(super) struct Link {
    /// Complete frames, checksums completed.
    pub(super) frames: Vec<Vec<u8>>,
    /// How those with a payload are to be cut.
    pub(super) gso: Vec<Gso>,
    /// Can take nothing at all.
    pub(super) full: bool,
    /// Loses what it takes.
    pub(super) lossy: bool,
    room: Vec<u8>,
}

impl FrameOut for Link {
    fn payload(&mut self) -> Option<&mut [u8]> {
        if self.full { None } else { Some(&mut self.room) }
    }

    fn send(&mut self, head: &Head, len: usize) -> bool {
        let payload = self.room[..len].to_vec();
        self.send_from(head, &payload)
    }

    fn send_from(&mut self, head: &Head, payload: &[u8]) -> bool {
        let mut frame = head.frame().to_vec();
        frame.extend(payload);
        let vnet = head.vnet();
        if vnet.needs_csum {
            let start = usize::from(vnet.csum_start);
            let sum = checksum::of(&frame[start..]);
            let field = start + usize::from(vnet.csum_offset);
            frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        }
        if !self.lossy {
            self.gso.push(vnet.gso);
        }
        self.control(&frame)
    }

    fn control(&mut self, frame: &[u8]) -> bool {
        if !self.lossy {
            self.frames.push(frame.to_vec());
        }
        !self.lossy
    }
}

/// Sockets that record what they are told and say what they were told to.
#[derive(Default)]
pub(super) struct Sockets {
    /// UDP sockets opened.
    pub(super) udp: Vec<(FlowId, Bind, Endpoint)>,
    /// UDP sockets opened in the namespace.
    pub(super) udp_inside: Vec<(FlowId, Bind, Endpoint)>,
    /// Ping sockets opened.
    pub(super) ping: Vec<(FlowId, Destination)>,
    /// Opening fails like this.
    pub(super) open_error: Option<HostError>,
    /// Datagrams sent, with segment sizes.
    pub(super) sent: Vec<(Vec<u8>, u16)>,
    /// Sending fails like this, once each.
    pub(super) send_errors: VecDeque<HostError>,
    /// What receiving will yield.
    pub(super) incoming: VecDeque<Result<Vec<u8>, HostError>>,
    /// What the network reported, and the payload known.
    pub(super) reports: VecDeque<(Report, Vec<u8>)>,
    /// The train received last.
    pub(super) train: Vec<u8>,
    /// Its segments, type of service and TTL.
    pub(super) marks: (u16, u8, u8),
    /// Types of service set, and whether for IPv4.
    pub(super) tos: Vec<(bool, u8)>,
    /// TTLs set, and whether for IPv4.
    pub(super) ttls: Vec<(bool, u8)>,
    /// Path MTU discovery set, and whether for IPv4.
    pub(super) discovery: Vec<(bool, MtuDiscovery)>,
    /// What the path takes.
    pub(super) mtu: Option<u32>,
    /// Datagrams sent through a listener: from, to.
    pub(super) answers: Vec<(ListenerId, Endpoint, Endpoint, Vec<u8>)>,
    /// Sockets closed.
    pub(super) closed: Vec<SockId>,
}

impl Sockets {
    fn open(&self) -> Result<SockId, HostError> {
        self.open_error.map_or(Ok(SOCK), Err)
    }
}

impl SpliceSockets for Sockets {
    fn open_udp_far(
        &mut self,
        id: FlowId,
        far: Far,
        bind: Bind,
        to: Endpoint,
    ) -> Result<SockId, HostError> {
        if far == Far::Host {
            return self.open_udp(id, bind, to);
        }
        self.udp_inside.push((id, bind, to));
        self.open()
    }

    fn answer(&mut self, l: ListenerId, from: Endpoint, to: Endpoint, data: &[u8]) -> bool {
        self.answers.push((l, from, to, data.to_vec()));
        true
    }
}

impl DatagramSockets for Sockets {
    fn open_udp(&mut self, id: FlowId, bind: Bind, to: Endpoint) -> Result<SockId, HostError> {
        self.udp.push((id, bind, to));
        self.open()
    }

    fn open_ping(&mut self, id: FlowId, dst: Destination) -> Result<SockId, HostError> {
        self.ping.push((id, dst));
        self.open()
    }

    fn send_datagram(&mut self, s: SockId, data: &[u8], segment: u16) -> Result<(), HostError> {
        assert_eq!(s, SOCK);
        if let Some(e) = self.send_errors.pop_front() {
            return Err(e);
        }
        self.sent.push((data.to_vec(), segment));
        Ok(())
    }

    fn receive_datagram(&mut self, s: SockId, buf: &mut [u8]) -> Received {
        assert_eq!(s, SOCK);
        match self.incoming.pop_front() {
            None => Received::Empty,
            Some(Err(e)) => Received::Error(e),
            Some(Ok(data)) => {
                buf[..data.len()].copy_from_slice(&data);
                Received::Bytes(data.len())
            }
        }
    }

    fn receive_trains(&mut self, s: SockId, _: &mut Expect) -> Gathered {
        assert_eq!(s, SOCK);
        match self.incoming.pop_front() {
            None => Gathered::Empty,
            Some(Err(e)) => Gathered::Error(e),
            Some(Ok(data)) => {
                self.train = data;
                Gathered::Trains { count: 1, more: true }
            }
        }
    }

    fn train(&self, n: usize) -> Option<Train<'_>> {
        assert_eq!(n, 0);
        let (segment, tos, ttl) = self.marks;
        Some(Train { data: &self.train, segment, tos, ttl })
    }

    fn take_report(&mut self, s: SockId, quoted: &mut [u8]) -> Option<Report> {
        assert_eq!(s, SOCK);
        let (report, payload) = self.reports.pop_front()?;
        quoted[..payload.len()].copy_from_slice(&payload);
        Some(report)
    }

    fn set_mark(&mut self, s: SockId, v4: bool, tos: u8) {
        assert_eq!(s, SOCK);
        self.tos.push((v4, tos));
    }

    fn set_ttl(&mut self, s: SockId, v4: bool, ttl: u8) {
        assert_eq!(s, SOCK);
        self.ttls.push((v4, ttl));
    }

    fn set_mtu_discovery(&mut self, s: SockId, v4: bool, how: MtuDiscovery) {
        assert_eq!(s, SOCK);
        self.discovery.push((v4, how));
    }

    fn path_mtu(&mut self, s: SockId, _v4: bool) -> Option<u32> {
        assert_eq!(s, SOCK);
        self.mtu
    }

    fn close_datagram(&mut self, s: SockId) {
        self.closed.push(s);
    }
}

/// Everything a handler may touch.
pub(super) struct Rig {
    pub(super) out: Link,
    pub(super) net: Sockets,
    pub(super) now: Now,
    drops: Drops,
    pool: Pool,
    boards: Boards,
    fragmenter: Fragmenter,
    lease: Lease,
    pub(super) neighbours: Neighbours,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self {
            out: Link {
                frames: Vec::new(),
                gso: Vec::new(),
                full: false,
                lossy: false,
                room: vec![0; 65_536],
            },
            net: Sockets::default(),
            now: Now(1_000_000),
            drops: Drops::default(),
            pool: Pool::new(0).unwrap(),
            boards: Boards::new(),
            fragmenter: Fragmenter::new(&lease()),
            lease: lease(),
            neighbours: Neighbours::new(&lease()),
        }
    }

    pub(super) fn io(&mut self) -> Io<'_, Link, Sockets> {
        Io {
            out: &mut self.out,
            net: &mut self.net,
            pool: &mut self.pool,
            boards: &mut self.boards,
            drops: &mut self.drops,
            fragmenter: &mut self.fragmenter,
            lease: &self.lease,
            neighbours: &self.neighbours,
            guest_mac: GUEST_MAC,
            timeouts: Timeouts::default(),
            now: self.now,
        }
    }

    /// Lets time pass.
    pub(super) fn wait_ms(&mut self, ms: u64) {
        self.now.0 += ms * 1000;
    }

    /// What was dropped, and how often.
    pub(super) fn drops(&self) -> Vec<(DropReason, u64)> {
        self.drops.iter().collect()
    }
}

/// A guest's network identity.
pub(super) fn lease() -> Lease {
    Lease::example()
}

/// The way out of the host to this endpoint.
pub(super) fn out(to: Endpoint) -> Destination {
    Destination { to, via: Via::Outside }
}
