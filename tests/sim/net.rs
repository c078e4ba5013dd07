//! A host that exists only in memory: sockets with two byte queues and a peer behind them.
//!
//! The fake checks the contract of [`TcpSockets`] strictly and models what translation can see of
//! a kernel: a send buffer that is freed when the peer acknowledges, a receive queue of limited
//! size, edge-triggered readiness, and FIN and RST of the peer.

use std::collections::VecDeque;
use std::io::IoSlice;

use passt::flow::FlowId;
use passt::forward::Destination;
use passt::translate::tcp::SocketReady;
use passt::translate::{
    Connected, HostError, Peeked, Report, Sent, SockId, SynMarks, TcpSockets, TcpView,
};
use passt::wire::Endpoint;

use super::datagrams::Datagrams;
use super::rng::Rng;

/// What becomes of a connection attempt.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    Now,
    /// Established after so many microseconds.
    Later(u64),
    /// Fails after so many microseconds.
    LaterError(u64, HostError),
    Error(HostError),
}

/// How a socket and its peer behave.
#[derive(Clone, Debug)]
pub struct Behaviour {
    pub outcome: Outcome,
    /// Send buffer, bytes.
    pub sndbuf: usize,
    /// Receive buffer, bytes.
    pub rcvbuf: usize,
    /// Time until what was sent is acknowledged, microseconds.
    pub rtt_us: u64,
    /// Receive buffer of the peer, bytes.
    pub peer_rcvbuf: usize,
    /// Bytes the peer's application reads each `peer_read_us`; `usize::MAX` reads at once.
    pub peer_read: usize,
    pub peer_read_us: u64,
    /// Bytes the peer writes each `peer_write_us`.
    pub peer_write: usize,
    pub peer_write_us: u64,
    /// One send in this many takes only a random part; 0 never.
    pub short_sends: u64,
    /// Bytes acknowledged and delivery rate are known.
    pub info: bool,
    /// Delivery rate reported, bytes per second.
    pub rate: u64,
    /// Peek offsets are kept by the kernel; otherwise the end is seen only at offset 0.
    pub peek_off: bool,
    /// Type of service or traffic class of the peer's SYN.
    pub tos: u8,
    /// So many sends take nothing, although there is room, and no event follows: no memory.
    pub refusals: u32,
    /// Segments in the receive queue are merged into one, and what is removed from it counts
    /// until it is empty.
    pub merge: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            outcome: Outcome::Now,
            sndbuf: 1 << 20,
            rcvbuf: 1 << 20,
            rtt_us: 0,
            peer_rcvbuf: 1 << 20,
            peer_read: usize::MAX,
            peer_read_us: 1000,
            peer_write: usize::MAX,
            peer_write_us: 0,
            short_sends: 0,
            info: true,
            rate: 0,
            peek_off: true,
            tos: 0,
            refusals: 0,
            merge: true,
        }
    }
}

/// A socket and its peer.
#[derive(Debug)]
pub struct Sock {
    pub flow: Option<FlowId>,
    pub to: Option<Endpoint>,
    /// How far its packets are to get.
    pub hops: Option<u8>,
    pub how: Behaviour,
    pub connected: bool,
    connect_at: Option<(u64, Option<HostError>)>,
    error: Option<HostError>,
    active: bool,

    /// Sent and not acknowledged: when it arrives, and what.
    sending: VecDeque<(u64, u8)>,
    nospace: bool,
    acked: u64,
    shut: bool,
    shut_at: u64,
    fin_acked: bool,
    /// In the peer's buffer, unread.
    peer_unread: usize,
    peer_read_next: u64,
    /// Everything the peer's application has read.
    pub peer_got: Vec<u8>,
    peer_buffer: VecDeque<u8>,
    pub peer_eof: bool,
    pub peer_reset: bool,

    /// Still to be written by the peer.
    pub peer_out: VecDeque<u8>,
    /// How much there was to write so far.
    pub peer_wrote: usize,
    peer_write_next: u64,
    /// The peer finishes once everything is written.
    pub peer_fin: bool,
    fin_received: bool,
    queue: VecDeque<u8>,
    /// Bytes removed from the queue whose memory is not free yet.
    held: usize,
    peek_at: u32,
    peeked: u32,
    events: Vec<SocketReady>,

    /// What packets were marked with, one after the other.
    pub marks: Vec<u8>,
    pub closed: bool,
    pub aborted: bool,
    pub calls: Calls,
}

/// How often the expensive calls were made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calls {
    pub send: u32,
    pub peek: u32,
    pub seek: u32,
    pub discard: u32,
    pub view: u32,
}

impl Sock {
    fn new(flow: Option<FlowId>, how: Behaviour, active: bool) -> Self {
        Self {
            flow,
            to: None,
            hops: None,
            how,
            connected: !active,
            connect_at: None,
            error: None,
            active,
            sending: VecDeque::new(),
            nospace: false,
            acked: 0,
            shut: false,
            shut_at: 0,
            fin_acked: false,
            peer_unread: 0,
            peer_read_next: 0,
            peer_got: Vec::new(),
            peer_buffer: VecDeque::new(),
            peer_eof: false,
            peer_reset: false,
            peer_out: VecDeque::new(),
            peer_wrote: 0,
            peer_write_next: 0,
            peer_fin: false,
            fin_received: false,
            queue: VecDeque::new(),
            held: 0,
            peek_at: 0,
            peeked: 0,
            events: Vec::new(),
            marks: Vec::new(),
            closed: false,
            aborted: false,
            calls: Calls::default(),
        }
    }

    /// Bytes in the receive queue.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Bytes it has taken from us since it was connected.
    pub fn taken(&self) -> u64 {
        self.acked - u64::from(self.active) + self.sending.len() as u64
    }

    pub fn is_shut(&self) -> bool {
        self.shut
    }

    /// Resets the connection from the peer's side.
    pub fn peer_rst(&mut self) {
        self.error = Some(HostError::Other);
        self.sending.clear();
        self.queue.clear();
        self.events.push(SocketReady { read: true, write: true, error: true, read_closed: true });
    }

    fn free(&self) -> usize {
        self.how.sndbuf.saturating_sub(self.sending.len())
    }

    fn advance(&mut self, now: u64) {
        if let Some((at, error)) = self.connect_at
            && at <= now
        {
            self.connect_at = None;
            self.error = error;
            self.connected = error.is_none();
            self.events.push(SocketReady {
                read: error.is_some(),
                write: true,
                error: error.is_some(),
                read_closed: error.is_some(),
            });
        }
        if !self.connected || self.error.is_some() {
            return;
        }
        self.deliver(now);
        self.peer_writes(now);
    }

    fn deliver(&mut self, now: u64) {
        if self.peer_reset {
            return;
        }
        loop {
            let mut moved = false;
            while self.peer_buffer.len() < self.how.peer_rcvbuf
                && self.sending.front().is_some_and(|(at, _)| *at <= now)
            {
                let (_, byte) = self.sending.pop_front().unwrap();
                self.peer_buffer.push_back(byte);
                self.acked += 1;
                moved = true;
            }
            if self.how.peer_read == usize::MAX {
                self.peer_got.extend(self.peer_buffer.drain(..));
            } else if self.how.peer_read > 0 && self.peer_read_next <= now {
                self.peer_read_next = now + self.how.peer_read_us;
                let n = self.how.peer_read.min(self.peer_buffer.len());
                self.peer_got.extend(self.peer_buffer.drain(..n));
            }
            self.peer_unread = self.peer_buffer.len();
            if !moved {
                break;
            }
        }
        if self.nospace && self.free() * 3 >= self.how.sndbuf {
            self.nospace = false;
            self.events.push(SocketReady { write: true, ..SocketReady::default() });
        }
        if self.shut && self.sending.is_empty() && self.shut_at <= now {
            self.fin_acked = true;
            self.peer_eof = self.peer_buffer.is_empty();
        }
    }

    fn peer_writes(&mut self, now: u64) {
        if self.fin_received || self.peer_write_next > now || self.closed {
            return;
        }
        let room = self.how.rcvbuf.saturating_sub(self.queue.len() + self.held);
        let n = room.min(self.peer_out.len()).min(self.how.peer_write);
        let mut ready = SocketReady::default();
        if n > 0 {
            self.queue.extend(self.peer_out.drain(..n));
            self.peer_write_next = now + self.how.peer_write_us;
            ready.read = true;
        }
        if self.peer_out.is_empty() && self.peer_fin {
            self.fin_received = true;
            ready.read = true;
            ready.read_closed = true;
        }
        if ready.read {
            self.events.push(ready);
        }
    }

    /// The next time something happens by itself.
    fn next(&self, now: u64) -> Option<u64> {
        let mut at = vec![];
        if let Some((t, _)) = self.connect_at {
            at.push(t);
        }
        if self.connected && self.error.is_none() && !self.aborted {
            let reads = self.how.peer_read != 0 && self.how.peer_read != usize::MAX;
            if let Some((t, _)) = self.sending.front()
                && self.peer_buffer.len() < self.how.peer_rcvbuf
            {
                at.push((*t).max(now + 1));
            }
            if reads && !self.peer_buffer.is_empty() {
                at.push(self.peer_read_next.max(now + 1));
            }
            let room = self.how.rcvbuf > self.queue.len() + self.held;
            let more = !self.peer_out.is_empty() && room && self.how.peer_write != 0;
            let more = more || (self.peer_out.is_empty() && self.peer_fin);
            if !self.closed && !self.fin_received && more {
                at.push(self.peer_write_next.max(now + 1));
            }
            if self.shut && !self.fin_acked && self.sending.is_empty() {
                at.push(self.shut_at.max(now + 1));
            }
        }
        at.into_iter().min()
    }
}

/// All sockets there ever were.
#[derive(Debug)]
pub struct FakeNet {
    pub now: u64,
    /// How the next socket behaves.
    pub next: Behaviour,
    pub socks: Vec<Sock>,
    /// What the network says of the next connection that fails.
    pub report: Option<Report>,
    /// Readiness is not reported for the time being.
    pub silent: bool,
    pub datagrams: Datagrams,
    pub rng: Rng,
}

impl FakeNet {
    pub fn new(rng: Rng) -> Self {
        Self {
            now: 0,
            next: Behaviour::default(),
            socks: Vec::new(),
            report: None,
            silent: false,
            datagrams: Datagrams::default(),
            rng,
        }
    }

    /// A connection a peer made; the flow is not known yet.
    pub fn accept(&mut self) -> SockId {
        self.socks.push(Sock::new(None, self.next.clone(), false));
        SockId(self.socks.len() as i32 - 1)
    }

    pub fn sock(&mut self, s: SockId) -> &mut Sock {
        &mut self.socks[s.0 as usize]
    }

    pub fn advance(&mut self, now: u64) {
        self.now = now;
        for s in &mut self.socks {
            s.advance(now);
        }
    }

    pub fn next_event(&self) -> Option<u64> {
        self.socks.iter().filter_map(|s| s.next(self.now)).min()
    }

    /// Readiness that was not reported yet.
    pub fn take_events(&mut self) -> Vec<(FlowId, SocketReady)> {
        let mut out = vec![];
        if self.silent {
            return out;
        }
        for s in &mut self.socks {
            if let Some(id) = s.flow
                && !s.closed
            {
                out.extend(s.events.drain(..).map(|e| (id, e)));
            }
        }
        out
    }

    fn live(&mut self, s: SockId) -> &mut Sock {
        let sock = &mut self.socks[s.0 as usize];
        assert!(!sock.closed, "socket used after it was closed");
        sock
    }
}

impl TcpSockets for FakeNet {
    fn connect_report(&mut self, _: SockId) -> Option<Report> {
        self.report.take()
    }

    fn connect(
        &mut self,
        id: FlowId,
        dst: Destination,
        marks: SynMarks,
    ) -> Result<Connected, HostError> {
        let mut sock = Sock::new(Some(id), self.next.clone(), true);
        sock.marks.push(marks.tos);
        sock.hops = marks.hops;
        sock.to = Some(dst.to);
        // The kernel counts its own SYN [TCP-40].
        sock.acked = 1;
        let s = SockId(self.socks.len() as i32);
        let result = match sock.how.outcome {
            Outcome::Error(e) => return Err(e),
            Outcome::Now => {
                sock.connected = true;
                Ok(Connected::Now(s))
            }
            Outcome::Later(us) => {
                sock.connect_at = Some((self.now + us, None));
                Ok(Connected::Later(s))
            }
            Outcome::LaterError(us, e) => {
                sock.connect_at = Some((self.now + us, Some(e)));
                Ok(Connected::Later(s))
            }
        };
        self.socks.push(sock);
        result
    }

    fn connect_error(&mut self, s: SockId) -> Option<HostError> {
        self.live(s).error
    }

    fn send(&mut self, s: SockId, data: &[IoSlice<'_>]) -> Sent {
        let now = self.now;
        let chance = self.rng.next();
        let sock = self.live(s);
        sock.calls.send += 1;
        assert!(sock.connected, "sent before connected");
        assert!(!sock.shut, "sent after shutdown");
        if sock.error.is_some() {
            return Sent::Broken;
        }
        let total: usize = data.iter().map(|d| d.len()).sum();
        assert!(total > 0, "empty send");
        if sock.how.refusals > 0 {
            sock.how.refusals -= 1;
            return Sent::Bytes(0);
        }
        let mut n = sock.free().min(total);
        if sock.how.short_sends != 0 && chance.is_multiple_of(sock.how.short_sends) {
            n = n.min((chance >> 32) as usize % (total + 1));
            if n < total && n < sock.free() {
                // There is room: the kernel would say so before long.
                sock.events.push(SocketReady { write: true, ..SocketReady::default() });
            }
        }
        let at = now + sock.how.rtt_us;
        let bytes = data.iter().flat_map(|d| d.iter().copied()).take(n);
        sock.sending.extend(bytes.map(|b| (at, b)));
        if n < total {
            sock.nospace = true;
        }
        if sock.how.rtt_us == 0 {
            sock.deliver(now);
        }
        Sent::Bytes(n)
    }

    fn peek(&mut self, s: SockId, offset: u32, buf: &mut [u8]) -> Peeked {
        let sock = self.live(s);
        sock.calls.peek += 1;
        assert_eq!(offset, sock.peek_at, "peek offset does not follow from the calls before");
        assert!(!buf.is_empty(), "empty peek");
        if sock.error.is_some() {
            return Peeked::Broken;
        }
        let at = (offset as usize).min(sock.queue.len());
        let n = buf.len().min(sock.queue.len() - at);
        for (to, from) in buf.iter_mut().zip(sock.queue.iter().skip(at)) {
            *to = *from;
        }
        if n == 0 {
            let visible = sock.how.peek_off || offset == 0;
            return if sock.fin_received && visible { Peeked::End } else { Peeked::Empty };
        }
        sock.peek_at += n as u32;
        sock.peeked = sock.peeked.max(sock.peek_at);
        Peeked::Bytes(n)
    }

    fn seek(&mut self, s: SockId, offset: u32) -> bool {
        let sock = self.live(s);
        sock.calls.seek += 1;
        assert!(offset <= sock.peeked, "seek beyond what was seen: {offset} > {}", sock.peeked);
        sock.peek_at = offset;
        sock.error.is_none()
    }

    fn discard(&mut self, s: SockId, n: u32) -> bool {
        let sock = self.live(s);
        sock.calls.discard += 1;
        if sock.error.is_some() {
            return false;
        }
        assert!(n > 0, "empty discard");
        assert!(n <= sock.peeked, "discarded {n} bytes, {} were seen", sock.peeked);
        sock.queue.drain(..n as usize);
        sock.held += n as usize;
        if sock.queue.is_empty() || !sock.how.merge {
            sock.held = 0;
        }
        sock.peeked -= n;
        sock.peek_at = sock.peek_at.saturating_sub(n);
        true
    }

    fn shutdown(&mut self, s: SockId) -> bool {
        let now = self.now;
        let sock = self.live(s);
        assert!(sock.connected, "shut down before connected");
        assert!(!sock.shut, "shut down twice");
        sock.shut = true;
        sock.shut_at = now + sock.how.rtt_us;
        sock.deliver(now);
        sock.error.is_none()
    }

    fn view(&mut self, s: SockId) -> Option<TcpView> {
        let sock = self.live(s);
        sock.calls.view += 1;
        if sock.error.is_some() {
            return None;
        }
        let acked = sock.acked + u64::from(sock.fin_acked);
        debug_assert!(sock.active || acked == 0 || sock.acked > 0);
        Some(TcpView {
            rtt_us: sock.how.rtt_us as u32,
            min_rtt_us: sock.how.info.then_some(sock.how.rtt_us as u32),
            bytes_acked: sock.how.info.then_some(acked),
            delivery_rate: sock.how.info.then_some(sock.how.rate),
        })
    }

    fn free_space(&mut self, s: SockId) -> u32 {
        self.live(s).free() as u32
    }

    fn send_buffer(&mut self, s: SockId) -> u32 {
        self.live(s).how.sndbuf as u32
    }

    fn set_tos(&mut self, s: SockId, v4: bool, tos: u8) {
        let sock = self.live(s);
        if let Some(to) = sock.to {
            assert_eq!(to.addr.is_v4(), v4, "an option of the other family");
        }
        assert_ne!(sock.marks.last(), Some(&tos), "nothing changes");
        sock.marks.push(tos);
    }

    fn peer_tos(&mut self, s: SockId) -> u8 {
        self.live(s).how.tos
    }

    fn close(&mut self, s: SockId) {
        let now = self.now;
        let sock = self.live(s);
        assert!(sock.queue.is_empty(), "closed with {} unread bytes", sock.queue.len());
        if !sock.shut {
            sock.shut = true;
            sock.shut_at = now + sock.how.rtt_us;
        }
        sock.closed = true;
    }

    fn abort(&mut self, s: SockId) {
        let sock = self.live(s);
        sock.closed = true;
        sock.aborted = true;
        sock.peer_reset = true;
    }
}
