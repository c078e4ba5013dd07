//! UDP: datagrams between one guest endpoint and one host socket.
//!
//! # Theory of operation
//!
//! A [`UdpFlow`] pairs what the guest sees (`ours`, `guest`) with a connected host socket. Either
//! side may have started it: the guest, and the socket has the guest's source port so that servers
//! see the port it chose; or a peer that sent to a forwarded port, and the socket is bound to
//! exactly where the peer sent to, so that the guest's answers come from there.
//!
//! Nothing is ever queued here: what a side cannot take is lost and counted, as on any network. But while the link can
//! take nothing at all, datagrams stay in the socket's queue, and a timer tries again.
//!
//! A flow ends when it has been idle: soon after a question and its answer, later when there was a
//! conversation [UDP-10], and at once, as it were, when every query for a name was answered: clients
//! use a port for each. The deadline follows from the last activity and is not moved per packet;
//! whoever keeps the timers looks again when an entry comes up early.
//!
//! A flow also ends when the guest reports that nobody has its port any more [UDP-12]: then the host's
//! kernel has no socket for what the peer sends next, and tells it so, as we cannot. Where a port is
//! forwarded the listening socket stays, and the peer hears nothing; if it goes on sending, it gets
//! a flow again. So that this does not happen for each datagram, such a flow stays for a moment.

pub use super::idle::Timeouts;
use super::{
    Answer, Bind, DatagramSockets, Deadline, Expect, FrameOut, Gathered, HostError, Io, Now,
    SockId, Unopened, Verdict,
};

use super::idle::{Brief, Idle};
use super::marks::{Marks, Told};
use super::reports::{self, About};
use super::retry::Retry;
use crate::flow::{DropReason, FlowId, Tuple};
use crate::forward::{Destination, is_for_many};
use crate::wire::{Endpoint, IcmpError, Mac, Path, Unreachable, proto};

/// Errors in one visit after which the socket is beyond hope: the kernel holds one at a time.
const MAX_ERRORS: u32 = 8;

/// Where queries for names go (RFC 1035, 4.2.1).
const DNS: u16 = 53;

/// How long a flow whose queries were all answered waits for another one, milliseconds.
const ANSWERED_MS: u64 = 1000;

/// How long a flow to a forwarded port of the guest stays when nobody has that port, milliseconds.
const CLOSED_MS: u64 = 1000;

/// Errors of the network that are passed on at a time.
const MAX_REPORTS: u32 = 16;

/// A UDP exchange between the guest and a host socket.
#[derive(Debug)]
pub struct UdpFlow {
    /// The party we impersonate.
    pub ours: Endpoint,
    /// The guest's end.
    pub guest: Endpoint,
    /// The peer, as the host knows it.
    pub peer: Endpoint,
    /// What the peer sent to, if it started the flow.
    pub local: Option<Endpoint>,
    /// The host socket.
    pub sock: SockId,
    /// Where answers come from others than the peer, which is many.
    answers: Option<SockId>,

    idle: Idle,
    /// If these are queries for names: how many are not answered yet.
    unanswered: Option<u8>,
    /// When it ends because nobody has the guest's port.
    closed: Deadline,
    /// How what is sent travels.
    told: Told,
    /// What the socket will have.
    expect: Expect,
    /// The socket may hold more.
    more: bool,
    /// When to see whether the link has room again.
    retry: Retry,
}

const _: () = assert!(size_of::<UdpFlow>() <= 192);

impl UdpFlow {
    /// A flow for the guest's first datagram, from `guest` to `ours`, which is `dst` on the host
    /// [UDP-2, UDP-3]. The datagram itself is passed to [`UdpFlow::on_guest`] afterwards.
    ///
    /// # Errors
    /// There can be none.
    pub fn from_guest<O: FrameOut, N: DatagramSockets>(
        id: FlowId,
        (ours, guest): (Endpoint, Endpoint),
        dst: Destination,
        timeouts: Timeouts,
        io: &mut Io<'_, O, N>,
    ) -> Result<Self, Unopened> {
        // Multicast and broadcast are good destinations.
        if !guest.addr.is_unicast()
            || ours.addr.is_unspecified()
            || guest.port == 0
            || ours.port == 0
        {
            io.drop(DropReason::Martian);
            return Err(Unopened::Refused);
        }
        let mut flow = Self::new((ours, guest), (dst.to, None), timeouts, io.now);
        match io.net.open_udp(id, Bind::Port(guest.port, dst.via), dst.to) {
            Ok(sock) => {
                flow.sock = sock;
                flow.unanswered = (ours.port == DNS).then_some(0);
                if is_for_many(io.lease, ours.addr) {
                    flow.answers = io.net.open_answers(id, sock);
                }
                Ok(flow)
            }
            Err(HostError::Exhausted) => Err(Unopened::Exhausted),
            Err(e) => {
                flow.report(e, io);
                Err(Unopened::Refused)
            }
        }
    }

    /// A flow for a datagram that `peer` sent to `local`, where a port is forwarded [UDP-5].
    ///
    /// `ours` and `guest` are how the guest sees it.
    ///
    /// # Errors
    /// There can be no socket for answers: then the datagram is lost.
    pub fn from_peer<O: FrameOut, N: DatagramSockets>(
        id: FlowId,
        (ours, guest): (Endpoint, Endpoint),
        (peer, local): (Endpoint, Endpoint),
        payload: &[u8],
        timeouts: Timeouts,
        io: &mut Io<'_, O, N>,
    ) -> Result<Self, Unopened> {
        let mut flow = Self::new((ours, guest), (peer, Some(local)), timeouts, io.now);
        match io.net.open_udp(id, Bind::Exactly(local), peer) {
            Ok(sock) => {
                flow.sock = sock;
                flow.on_listener(payload, io);
                while let Some(early) = io.net.take_early(sock) {
                    flow.on_listener(&early, io);
                }
                Ok(flow)
            }
            Err(HostError::Exhausted) => Err(Unopened::Exhausted),
            Err(_) => {
                io.drop(DropReason::NoSocket);
                Err(Unopened::Refused)
            }
        }
    }

    /// The flow's key in the index.
    pub fn tuple(&self) -> Tuple {
        Tuple { protocol: proto::UDP, ours: self.ours, guest: self.guest }
    }

    /// How far it has come, and when it was used last, if it is not a conversation.
    pub(super) fn brief(&self) -> Option<(Brief, Now)> {
        self.idle.brief()
    }

    /// True if a datagram that `peer` sent to the listener at `local` belongs to this flow. If it
    /// does not although it has the same tuple, it needs another port on our side [FWD-6].
    pub fn belongs(&self, peer: Endpoint, local: Endpoint) -> bool {
        self.peer == peer && self.local == Some(local)
    }

    /// When the flow will have been idle for too long, or wants to try again.
    pub fn deadline(&self) -> Deadline {
        self.end().min(self.retry.deadline())
    }

    /// True if [`UdpFlow::on_socket`] is to be tried again, as the link was full.
    pub fn retries(&self, now: Now) -> bool {
        self.retry.is_due(now)
    }

    /// Gives back what the flow holds.
    pub fn release<N: DatagramSockets>(&mut self, net: &mut N) {
        net.close_datagram(self.sock);
        if let Some(answers) = self.answers {
            net.close_datagram(answers);
        }
    }

    /// The next answer of somebody who was asked among many, and is somebody new: the datagram is
    /// in `buf`.
    pub fn receive_answer<N: DatagramSockets>(
        &self,
        buf: &mut [u8],
        net: &mut N,
    ) -> Option<Answer> {
        net.receive_answer(self.answers?, buf)
    }

    /// A datagram of the guest, or with `segment` non-zero a train of datagrams of that size; how
    /// they are to travel is passed on [UDP-8].
    pub fn on_guest<O: FrameOut, N: DatagramSockets>(
        &mut self,
        payload: &[u8],
        segment: u16,
        marks: Marks,
        io: &mut Io<'_, O, N>,
    ) -> Verdict {
        if marks.ttl == 0 {
            // Has no hop left, not even the one to us.
            io.drop(DropReason::BadHeader);
            return Verdict::Keep;
        }
        self.idle.near(io.now);
        self.closed = Deadline::NEVER;
        let queries = datagrams(payload.len(), segment);
        self.unanswered = self.unanswered.map(|n| n.saturating_add(queries));
        self.told.tell(self.sock, self.peer.addr.is_v4(), marks, io.net);
        let Err(e) = io.net.send_datagram(self.sock, payload, segment) else {
            return Verdict::Keep;
        };
        let told = self.relay(io);
        if !told && e != HostError::TooLong {
            self.report(e, io);
        }
        // The error may have been an earlier datagram's, and this one not sent because of it.
        if told || e == HostError::TooLong || unreachable(e).is_some() {
            match io.net.send_datagram(self.sock, payload, segment) {
                Ok(()) => {}
                Err(HostError::TooLong) => self.on_too_long(payload, segment, marks, io),
                Err(_) => io.drop(DropReason::HostSend),
            }
        }
        Verdict::Keep
    }

    /// The guest forbids to cut what the host's link does not take.
    fn on_too_long<O: FrameOut, N: DatagramSockets>(
        &mut self,
        payload: &[u8],
        segment: u16,
        marks: Marks,
        io: &mut Io<'_, O, N>,
    ) {
        if marks.is_probe() && self.ours.addr.is_unicast() {
            let path = self.path(io.lease.our_mac, io.guest_mac);
            let (sock, guest) = (self.sock, self.guest.addr);
            return reports::too_long((sock, guest), io, |from, message| {
                IcmpError::datagram(&path, from, message, payload)
            });
        }
        let again = (payload, segment, marks);
        if !self.told.send_oversized(self.sock, self.peer.addr.is_v4(), again, io.net) {
            io.drop(DropReason::HostSend);
        }
    }

    /// The socket has datagrams or an error: passes them on, in up to `budget` turns [UDP-7]. What
    /// the kernel, or we, found to be a train goes to the guest as one frame.
    pub fn on_socket<O: FrameOut, N: DatagramSockets>(
        &mut self,
        budget: u32,
        io: &mut Io<'_, O, N>,
    ) -> Verdict {
        let mut errors = 0u32;
        let mut any = false;
        let waiting = self.retry;
        self.more = true;
        self.retry.done();
        for _ in 0..budget {
            if io.out.payload().is_none() {
                self.more = false;
                self.retry = waiting;
                self.retry.later(io.now);
                break;
            }
            match io.net.receive_trains(self.sock, &mut self.expect) {
                Gathered::Trains { count, more } => {
                    any = true;
                    let answers = self.pass_on(count, io);
                    self.unanswered = self.unanswered.map(|n| n.saturating_sub(answers));
                    if !more {
                        self.more = false;
                        break;
                    }
                }
                Gathered::Empty => {
                    self.more = false;
                    break;
                }
                Gathered::Error(e) => {
                    errors = errors.saturating_add(1);
                    if errors >= MAX_ERRORS {
                        return Verdict::Close;
                    }
                    if !self.relay(io) {
                        self.report(e, io);
                    }
                }
            }
        }
        if any {
            self.idle.far(io.now);
        }
        Verdict::Keep
    }

    /// True if the link was full when the socket had something.
    pub fn waits_for_link(&self) -> bool {
        self.retry.deadline().is_armed()
    }

    /// True if [`UdpFlow::on_socket`] stopped for want of budget.
    pub fn wants_more(&self) -> bool {
        self.more
    }

    /// A datagram of the peer that came in at the listener.
    pub fn on_listener<O: FrameOut, N>(&mut self, payload: &[u8], io: &mut Io<'_, O, N>) {
        self.idle.far(io.now);
        let path = self.path(io.mac_of(self.ours.addr), io.guest_mac);
        if let Err(reason) = io.fragmenter.send_udp(&path, payload, 0, io.out) {
            io.drop(reason);
        }
    }

    /// The guest reports that nobody has the port that the flow leads to [UDP-12].
    pub fn on_closed_port(&mut self, now: Now) -> Verdict {
        if self.local.is_none() {
            return Verdict::Close;
        }
        self.closed = self.closed.min(Deadline::after(now, CLOSED_MS));
        Verdict::Keep
    }

    /// The deadline has passed, or may have.
    pub fn on_timer(&self, now: Now) -> Verdict {
        if self.end().is_due(now) { Verdict::Close } else { Verdict::Keep }
    }

    fn end(&self) -> Deadline {
        let idle = match self.unanswered {
            Some(0) => self.idle.within(ANSWERED_MS),
            _ => self.idle.deadline(),
        };
        idle.min(self.closed)
    }

    fn new(
        (ours, guest): (Endpoint, Endpoint),
        (peer, local): (Endpoint, Option<Endpoint>),
        timeouts: Timeouts,
        now: Now,
    ) -> Self {
        Self {
            ours,
            guest,
            peer,
            local,
            sock: SockId(-1),
            answers: None,
            idle: Idle::new(timeouts, now),
            unanswered: None,
            closed: Deadline::NEVER,
            told: Told::new(),
            expect: Expect::default(),
            more: false,
            retry: Retry::default(),
        }
    }

    /// Sends the trains that were received to the guest, as their peer marked them; how many
    /// datagrams they are.
    fn pass_on<O: FrameOut, N: DatagramSockets>(&self, count: usize, io: &mut Io<'_, O, N>) -> u8 {
        let mut all = 0u8;
        for train in (0..count).map_while(|n| io.net.train(n)) {
            all = all.saturating_add(datagrams(train.data.len(), train.segment));
            let (tos, ttl) = (train.tos, train.ttl);
            let path = Path { tos, ttl, ..self.path(io.mac_of(self.ours.addr), io.guest_mac) };
            let sent = io.fragmenter.send_udp(&path, train.data, train.segment, io.out);
            if let Err(reason) = sent {
                io.drops.count(reason);
            }
        }
        all
    }

    /// Tells the guest what the network reported [UDP-11]; false if it reported nothing.
    fn relay<O: FrameOut, N: DatagramSockets>(&self, io: &mut Io<'_, O, N>) -> bool {
        let about = About {
            sock: self.sock,
            ours: self.ours.addr,
            guest: self.guest.addr,
            peer: self.peer.addr,
        };
        let path = self.path(io.mac_of(self.ours.addr), io.guest_mac);
        let error = |(from, src_mac), message, quoted: &[u8]| {
            IcmpError::datagram(&Path { src_mac, ..path }, from, message, quoted)
        };
        reports::relay(&about, MAX_REPORTS, error, io)
    }

    /// Tells the guest that what it sent did not arrive, if ICMP has words for it [UDP-11].
    fn report<O: FrameOut, N>(&self, e: HostError, io: &mut Io<'_, O, N>) {
        let Some(what) = unreachable(e) else {
            io.drop(DropReason::HostSend);
            return;
        };
        // Never about multicast or broadcast (RFC 1122, 3.2.2; RFC 4443, 2.4).
        if !self.ours.addr.is_unicast() {
            io.drop(DropReason::HostSend);
            return;
        }
        match IcmpError::udp(&self.path(io.mac_of(self.ours.addr), io.guest_mac), what) {
            Some(error) if io.out.control(error.frame()) => {}
            Some(_) => io.drop(DropReason::LinkFull),
            None => io.drop(DropReason::NotBuilt),
        }
    }

    fn path(&self, src_mac: Mac, guest_mac: Mac) -> Path {
        Path {
            src_mac,
            dst_mac: guest_mac,
            src: self.ours,
            dst: self.guest,
            // Any value that is stable for the flow (RFC 6437).
            flow_label: self.sock.0.unsigned_abs(),
            tos: 0,
            ttl: crate::wire::TTL,
        }
    }
}

/// How many datagrams a train of `len` bytes is.
fn datagrams(len: usize, segment: u16) -> u8 {
    let all = if segment == 0 { 1 } else { len.div_ceil(segment.into()) };
    u8::try_from(all).unwrap_or(u8::MAX)
}

/// The ICMP error for a host error, if there is one.
fn unreachable(e: HostError) -> Option<Unreachable> {
    match e {
        HostError::Refused => Some(Unreachable::Port),
        HostError::Unreachable | HostError::TimedOut => Some(Unreachable::Host),
        HostError::Exhausted | HostError::TooLong | HostError::Other => None,
    }
}

#[cfg(test)]
mod tests;
