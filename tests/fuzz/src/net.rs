//! Sockets that hold no data, only lengths, and check how they are used.
//!
//! Outcomes follow [`Net::trouble`]: 0 means that everything succeeds, any other value is the
//! seed of what goes wrong from then on.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::Ipv4Addr;

use passt::flow::FlowId;
use passt::forward::Destination;
use passt::translate::{
    Answer, Bind, Connected, DatagramSockets, Expect, Far, Gathered, HostError, ListenerId, Moved,
    MtuDiscovery, Peeked, PipeId, Received, Report, Sent, SockId, SpliceSockets, SynMarks,
    TcpSockets, TcpView, Train,
};
use passt::wire::{Addr, Endpoint, IcmpMessage};

/// Payload of all trains.
static ZEROS: [u8; 65_535] = [0; 65_535];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Stream,
    Udp,
    Ping,
}

/// Of the host's link.
const MTU: usize = 1500;

const ERRORS: [HostError; 6] = [
    HostError::Refused,
    HostError::Unreachable,
    HostError::TimedOut,
    HostError::Exhausted,
    HostError::TooLong,
    HostError::Other,
];

#[derive(Debug)]
pub(super) struct Sock {
    pub(super) id: FlowId,
    pub(super) kind: Kind,
    pub(super) open: bool,
    pub(super) connected: bool,
    pub(super) broken: bool,
    shut: bool,
    /// Bytes the send buffer takes.
    pub(super) room: usize,
    /// Taken, and of that acknowledged by the peer.
    sent: u64,
    acked: u64,
    /// Bytes in the receive queue, and the peer's end behind them.
    pub(super) queue: u32,
    pub(super) fin: bool,
    peek_at: u32,
    peeked: u32,
    /// What will be received.
    incoming: VecDeque<Received>,
    /// For pings.
    v4: bool,
    /// What is too long for the link is cut.
    cuts: bool,
    /// The server's of a spliced flow.
    pub(super) far: bool,
}

impl Sock {
    pub(super) fn break_down(&mut self) {
        self.broken = true;
        self.queue = 0;
    }

    /// Something arrives at a datagram socket.
    pub(super) fn arrives(&mut self, what: u8) {
        const LENGTHS: [usize; 8] = [8, 0, 7, 64, 1472, 9000, 65_507, 65_535];
        if self.incoming.len() < 100 {
            self.incoming.push_back(match what {
                0..=223 => Received::Bytes(LENGTHS[usize::from(what & 7)]),
                _ => Received::Error(ERRORS[usize::from(what) % ERRORS.len()]),
            });
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Net {
    pub(super) socks: Vec<Sock>,
    pub(super) trouble: u8,
    dice: u32,
    /// Length of the train received last.
    train: usize,
    /// Bytes in every pipe there ever was; `None` for one that was given back.
    pipes: Vec<Option<usize>>,
}

impl Net {
    /// Open sockets, oldest first.
    pub(super) fn open(&self) -> Vec<usize> {
        (0..self.socks.len()).filter(|n| self.socks[*n].open).collect()
    }

    /// Pipes that were not given back.
    pub(super) fn pipes_taken(&self) -> usize {
        self.pipes.iter().flatten().count()
    }

    /// A connection a peer made.
    pub(super) fn adopt(&mut self, id: FlowId) -> SockId {
        self.make(id, Kind::Stream, true)
    }

    /// The outcome of a connection in progress.
    pub(super) fn connects(&mut self, n: usize, how: u8) {
        let sock = &mut self.socks[n];
        if sock.kind == Kind::Stream && !sock.connected && !sock.broken {
            match how & 3 {
                0 => {}
                3 => sock.broken = true,
                _ => sock.connected = true,
            }
        }
    }

    /// Peers acknowledge part of what they were sent.
    pub(super) fn acked_by_peer(&mut self, part: u8) {
        for sock in &mut self.socks {
            sock.acked += (sock.sent - sock.acked) * u64::from(part) / 255;
        }
    }

    /// 0 without trouble.
    fn roll(&mut self) -> u32 {
        if self.trouble == 0 {
            return 0;
        }
        let x = self.dice ^ u32::from(self.trouble).wrapping_mul(0x9e37_79b9);
        let x = x.wrapping_mul(0x85eb_ca6b).rotate_left(13) ^ x >> 16;
        self.dice = self.dice.wrapping_add(x | 1);
        x >> 8 & 0xff
    }

    fn error(&mut self) -> HostError {
        ERRORS[self.roll() as usize % ERRORS.len()]
    }

    fn make(&mut self, id: FlowId, kind: Kind, connected: bool) -> SockId {
        self.socks.push(Sock {
            id,
            kind,
            open: true,
            connected,
            broken: false,
            shut: false,
            room: 1 << 20,
            sent: 0,
            acked: 0,
            queue: 0,
            fin: false,
            peek_at: 0,
            peeked: 0,
            incoming: VecDeque::new(),
            v4: false,
            cuts: true,
            far: false,
        });
        SockId(self.socks.len() as i32 - 1)
    }

    fn live(&mut self, s: SockId, stream: bool) -> &mut Sock {
        let sock = &mut self.socks[s.0 as usize];
        assert!(sock.open, "socket used after it was closed");
        assert_eq!(sock.kind == Kind::Stream, stream, "socket of another kind");
        sock
    }
}

impl TcpSockets for Net {
    fn connect(
        &mut self,
        id: FlowId,
        dst: Destination,
        marks: SynMarks,
    ) -> Result<Connected, HostError> {
        let to = dst.to;
        assert_eq!(marks.tos & 3, 0, "congestion notification is not ours");
        assert!(to.addr.is_unicast() && to.port != 0, "connection to {to}");
        Ok(match self.roll() {
            0..100 => Connected::Now(self.make(id, Kind::Stream, true)),
            100..200 => Connected::Later(self.make(id, Kind::Stream, false)),
            _ => return Err(self.error()),
        })
    }

    fn connect_error(&mut self, s: SockId) -> Option<HostError> {
        let error = self.error();
        self.live(s, true).broken.then_some(error)
    }

    fn send(&mut self, s: SockId, data: &[IoSlice<'_>]) -> Sent {
        let roll = self.roll() as usize;
        let sock = self.live(s, true);
        assert!(sock.connected && !sock.shut, "sent before connected or after shutdown");
        let total: usize = data.iter().map(|d| d.len()).sum();
        assert!(total > 0, "empty send");
        assert!(data.iter().all(|d| !d.is_empty()), "empty slice");
        if sock.broken || roll > 250 {
            sock.break_down();
            return Sent::Broken;
        }
        let n = total.min(sock.room);
        let n = if roll > 180 { n * (roll - 180) / 80 } else { n };
        sock.room -= n;
        sock.sent += n as u64;
        Sent::Bytes(n)
    }

    fn peek(&mut self, s: SockId, offset: u32, buf: &mut [u8]) -> Peeked {
        let roll = self.roll();
        let sock = self.live(s, true);
        assert!(sock.connected && !buf.is_empty(), "empty peek");
        assert_eq!(offset, sock.peek_at, "peek offset does not follow from the calls before");
        if sock.broken || roll > 250 {
            sock.break_down();
            return Peeked::Broken;
        }
        let n = (buf.len() as u32).min(sock.queue.saturating_sub(offset));
        if n == 0 {
            return if sock.fin { Peeked::End } else { Peeked::Empty };
        }
        sock.peek_at += n;
        sock.peeked = sock.peeked.max(sock.peek_at);
        Peeked::Bytes(n as usize)
    }

    fn seek(&mut self, s: SockId, offset: u32) -> bool {
        let sock = self.live(s, true);
        assert!(offset <= sock.peeked, "seek beyond what was seen: {offset} > {}", sock.peeked);
        sock.peek_at = offset;
        !sock.broken
    }

    fn discard(&mut self, s: SockId, n: u32) -> bool {
        let sock = self.live(s, true);
        assert!(n > 0 && n <= sock.peeked, "discarded {n} bytes, {} were seen", sock.peeked);
        if sock.broken {
            return false;
        }
        sock.queue -= n;
        sock.peeked -= n;
        sock.peek_at = sock.peek_at.saturating_sub(n);
        true
    }

    fn shutdown(&mut self, s: SockId) -> bool {
        let sock = self.live(s, true);
        assert!(sock.connected && !sock.shut, "shut down before connected, or twice");
        sock.shut = true;
        !sock.broken
    }

    fn view(&mut self, s: SockId) -> Option<TcpView> {
        let roll = self.roll();
        let sock = self.live(s, true);
        assert!(sock.connected);
        if sock.broken {
            return None;
        }
        Some(TcpView {
            rtt_us: [20_000, 5, 0, 3_000_000, u32::MAX][roll as usize % 5],
            min_rtt_us: Some([20_000, 5, 0, u32::MAX][roll as usize % 4]).filter(|_| roll < 250),
            // The kernel counts its own SYN.
            bytes_acked: Some(sock.acked + 1).filter(|_| roll < 230),
            delivery_rate: Some([0, 1_000_000, u64::MAX][roll as usize % 3]),
        })
    }

    fn free_space(&mut self, s: SockId) -> u32 {
        self.live(s, true).room as u32
    }

    fn send_buffer(&mut self, s: SockId) -> u32 {
        let roll = self.roll();
        self.live(s, true);
        [1 << 20, 0, 4096, u32::MAX][roll as usize % 4]
    }

    fn set_tos(&mut self, s: SockId, _v4: bool, tos: u8) {
        assert_eq!(tos & 3, 0, "congestion notification is not ours");
        self.live(s, true);
    }

    fn peer_tos(&mut self, s: SockId) -> u8 {
        self.live(s, true);
        0xff
    }

    fn close(&mut self, s: SockId) {
        let sock = self.live(s, true);
        assert!(sock.broken || sock.queue == 0, "closed with {} unread bytes", sock.queue);
        sock.open = false;
    }

    fn abort(&mut self, s: SockId) {
        self.live(s, true).open = false;
    }
}

impl SpliceSockets for Net {
    fn open_udp_far(
        &mut self,
        id: FlowId,
        _far: Far,
        bind: Bind,
        to: Endpoint,
    ) -> Result<SockId, HostError> {
        self.open_udp(id, bind, to)
    }

    fn connect_far(&mut self, id: FlowId, far: Far, to: Endpoint) -> Result<SockId, HostError> {
        assert_eq!(to.addr.is_loopback(), far == Far::Host, "spliced to {to}");
        assert!(to.addr.is_unicast() && to.port != 0, "spliced to {to}");
        if self.roll() > 200 {
            return Err(self.error());
        }
        let s = self.make(id, Kind::Stream, false);
        self.live(s, true).far = true;
        Ok(s)
    }

    fn receive(&mut self, s: SockId, buf: &mut [u8]) -> Moved {
        let roll = self.roll();
        let sock = self.live(s, true);
        assert!(sock.connected && !buf.is_empty());
        if sock.broken || roll > 250 {
            sock.break_down();
            return Moved::Broken;
        }
        let n = sock.queue.min(buf.len() as u32);
        sock.queue -= n;
        match n {
            0 if sock.fin => Moved::End,
            0 => Moved::Nothing,
            _ => Moved::Bytes(n as usize),
        }
    }

    fn take_pipe(&mut self) -> Option<PipeId> {
        if self.roll() > 200 {
            return None;
        }
        self.pipes.push(Some(0));
        let n = self.pipes.len() as i32 - 1;
        Some(PipeId(n, n))
    }

    fn return_pipe(&mut self, pipe: PipeId, empty: bool) {
        let held = self.pipes[pipe.0 as usize].take().expect("a pipe given back twice");
        assert_eq!(empty, held == 0, "a pipe with {held} bytes");
    }

    fn fill(&mut self, from: SockId, pipe: PipeId) -> Moved {
        const CAPACITY: usize = 256 << 10;
        let roll = self.roll();
        let held = self.pipes[pipe.0 as usize].expect("a pipe given back");
        let sock = self.live(from, true);
        assert!(sock.connected);
        if sock.broken || roll > 250 {
            sock.break_down();
            return Moved::Broken;
        }
        let n = (CAPACITY - held).min(sock.queue as usize);
        sock.queue -= n as u32;
        let end = sock.fin && sock.queue == 0;
        self.pipes[pipe.0 as usize] = Some(held + n);
        match n {
            0 if end => Moved::End,
            0 => Moved::Nothing,
            n => Moved::Bytes(n),
        }
    }

    fn drain(&mut self, pipe: PipeId, to: SockId, pending: usize) -> Moved {
        let roll = self.roll();
        let held = self.pipes[pipe.0 as usize].expect("a pipe given back");
        assert!(pending > 0 && held == pending, "{held} bytes in the pipe, not {pending}");
        let sock = self.live(to, true);
        assert!(sock.connected && !sock.shut);
        if sock.broken || roll > 250 {
            sock.break_down();
            return Moved::Broken;
        }
        let n = pending.min(sock.room);
        sock.room -= n;
        self.pipes[pipe.0 as usize] = Some(held - n);
        if n == 0 { Moved::Nothing } else { Moved::Bytes(n) }
    }

    fn answer(&mut self, _: ListenerId, from: Endpoint, to: Endpoint, data: &[u8]) -> bool {
        assert!(from.addr.is_loopback() && to.addr.is_loopback() && data.len() <= 65_535);
        self.roll() <= 200
    }
}

impl DatagramSockets for Net {
    fn open_udp(&mut self, id: FlowId, _bind: Bind, to: Endpoint) -> Result<SockId, HostError> {
        assert!(to.port != 0 && !to.addr.is_unspecified(), "connected to {to}");
        if self.roll() > 200 { Err(self.error()) } else { Ok(self.make(id, Kind::Udp, true)) }
    }

    fn open_ping(&mut self, id: FlowId, dst: Destination) -> Result<SockId, HostError> {
        let to = dst.to;
        assert!(!to.addr.is_unspecified(), "connected to {to}");
        if self.roll() > 200 {
            return Err(self.error());
        }
        let s = self.make(id, Kind::Ping, true);
        self.live(s, false).v4 = to.addr.is_v4();
        Ok(s)
    }

    fn open_answers(&mut self, id: FlowId, s: SockId) -> Option<SockId> {
        assert_eq!(self.live(s, false).kind, Kind::Udp);
        if self.roll() > 200 {
            return None;
        }
        let answers = self.make(id, Kind::Udp, true);
        self.live(answers, false).far = true;
        Some(answers)
    }

    fn receive_answer(&mut self, s: SockId, _: &mut [u8]) -> Option<Answer> {
        let Received::Bytes(len) = self.live(s, false).incoming.pop_front()? else { return None };
        let host = u8::try_from(self.roll() % 256).unwrap();
        let peer = Endpoint::new(Ipv4Addr::new(198, 51, 100, host).into(), host.into());
        let local = Endpoint::new(Ipv4Addr::new(192, 0, 2, 2).into(), 1900);
        Some(Answer { len, peer, local })
    }

    fn send_datagram(&mut self, s: SockId, data: &[u8], segment: u16) -> Result<(), HostError> {
        let roll = self.roll();
        let sock = self.live(s, false);
        assert!(data.len() <= 65_535);
        assert!(segment == 0 || sock.kind == Kind::Udp, "a train of pings");
        let each = if segment == 0 { data.len() } else { segment.into() };
        match roll {
            201.. => Err(self.error()),
            _ if each > MTU && !sock.cuts => Err(HostError::TooLong),
            _ => Ok(()),
        }
    }

    fn receive_datagram(&mut self, s: SockId, buf: &mut [u8]) -> Received {
        let sock = self.live(s, false);
        let Some(what) = sock.incoming.pop_front() else { return Received::Empty };
        if let (Kind::Ping, Received::Bytes(n)) = (sock.kind, what)
            && n >= 8
        {
            // Replies, but for one length.
            let kind = if sock.v4 { 0 } else { 129 };
            let kind = if n == 1472 { 3 } else { kind };
            buf[..8].copy_from_slice(&[kind, 0, 0, 0, 0, 0, 0, 1]);
        }
        what
    }

    fn receive_trains(&mut self, s: SockId, expect: &mut Expect) -> Gathered {
        let sock = self.live(s, false);
        assert_eq!(sock.kind, Kind::Udp);
        match sock.incoming.pop_front() {
            None => Gathered::Empty,
            Some(Received::Error(e)) => Gathered::Error(e),
            Some(Received::Empty) => Gathered::Empty,
            Some(Received::Bytes(n)) => {
                expect.count = expect.count.wrapping_add(1);
                self.train = n;
                Gathered::Trains { count: 1, more: true }
            }
        }
    }

    fn train(&self, n: usize) -> Option<Train<'_>> {
        assert_eq!(n, 0);
        let len = self.train;
        // Some are trains.
        let segment = if len.is_multiple_of(3) { len / 3 } else { 0 };
        let marks = len.to_le_bytes();
        let segment = u16::try_from(segment).unwrap();
        Some(Train { data: &ZEROS[..len], segment, tos: marks[0], ttl: marks[0] })
    }

    fn take_report(&mut self, s: SockId, quoted: &mut [u8]) -> Option<Report> {
        self.live(s, false);
        if self.roll() <= 200 {
            return None;
        }
        let (kind, code) = (self.roll() as u8, self.roll() as u8);
        let message = IcmpMessage { kind, code, mtu: self.roll() };
        let offender =
            (self.roll() <= 200).then(|| Addr::from(std::net::Ipv4Addr::from(self.roll())));
        Some(Report { message, offender, quoted: quoted.len().min(self.roll() as usize) })
    }

    fn set_mark(&mut self, s: SockId, _v4: bool, _tos: u8) {
        self.live(s, false);
    }

    fn set_ttl(&mut self, s: SockId, _v4: bool, ttl: u8) {
        assert!(ttl != 0);
        self.live(s, false);
    }

    fn set_mtu_discovery(&mut self, s: SockId, _v4: bool, how: MtuDiscovery) {
        self.live(s, false).cuts = how != MtuDiscovery::Probe;
    }

    fn path_mtu(&mut self, s: SockId, _v4: bool) -> Option<u32> {
        self.live(s, false);
        Some(MTU as u32)
    }

    fn close_datagram(&mut self, s: SockId) {
        self.live(s, false).open = false;
    }
}
