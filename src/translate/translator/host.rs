//! Reactions to host sockets and to time.

use super::Translator;
use super::settle::Flow;
use crate::flow::{DropReason, FlowId, Tuple};
use crate::forward::ForwardTarget;
use crate::translate::tcp::{INACTIVITY_SCAN_MS, KEEPALIVE_SCAN_MS, SocketReady, Tcp};
use crate::translate::udp::UdpFlow;
use crate::translate::{
    DatagramSockets, FrameOut, Io, SockId, SpliceSockets, TcpSockets, Unopened, Verdict,
};
use crate::wire::{Addr, Endpoint, proto};

/// Time until waiting connections are looked at again, if no flow ends before, milliseconds.
const STARVED_MS: u64 = 1000;

/// Datagrams received per visit.
const DATAGRAMS: u32 = 32;

/// Answers to what was sent to many, per event. More than this are left to the next one.
const ANSWERS: u32 = 256;

/// Calls to receive many datagrams, per visit.
const GATHERINGS: u32 = 8;

/// The first port that may stand for another one.
const FIRST_SUBSTITUTE: u16 = 1024;

/// Source ports tried for a peer that looks to the guest like another one.
const SUBSTITUTES: u16 = 64;

impl<O: FrameOut, N: TcpSockets + DatagramSockets + SpliceSockets> Translator<O, N> {
    /// A flow's socket is ready.
    pub fn on_socket(&mut self, id: FlowId, side: bool, ready: SocketReady) {
        let (flows, buf, mut io) = self.split_all();
        let (verdict, more) = match flows.get_mut(id) {
            Some(Flow::Tcp(flow)) => {
                let verdict = flow.on_socket(ready, &mut io);
                (verdict, flow.wants_push())
            }
            Some(Flow::Udp(_)) if side => return self.on_answers(id),
            Some(Flow::Udp(flow)) => {
                let verdict = flow.on_socket(GATHERINGS, &mut io);
                (verdict, flow.wants_more())
            }
            Some(Flow::Ping(flow)) => {
                let verdict = flow.on_socket(DATAGRAMS, buf, &mut io);
                (verdict, flow.wants_more())
            }
            Some(Flow::Splice(flow)) => {
                let verdict = flow.on_socket(side, ready, buf, &mut io);
                (verdict, flow.wants_more())
            }
            Some(Flow::SpliceUdp(flow)) => {
                let verdict = flow.on_socket(DATAGRAMS, buf, &mut io);
                (verdict, flow.wants_more())
            }
            None => return,
        };
        self.settle(id, verdict);
        if more && verdict == Verdict::Keep {
            self.again.push(id);
        }
    }

    /// A flow's deadline has passed, or may have.
    pub(super) fn on_timer(&mut self, id: FlowId) {
        if self.flows.get(id).is_some_and(|f| f.retries(self.now)) {
            return self.on_socket(id, false, SocketReady::default());
        }
        let (flows, mut io) = self.split();
        let verdict = match flows.get_mut(id) {
            Some(Flow::Tcp(flow)) => flow.on_timer(&mut io),
            Some(Flow::Udp(flow)) => flow.on_timer(io.now),
            Some(Flow::Ping(flow)) => flow.on_timer(io.now),
            Some(Flow::SpliceUdp(flow)) => flow.on_timer(io.now),
            Some(Flow::Splice(_)) => Verdict::Keep,
            None => return,
        };
        self.settle(id, verdict);
    }

    /// Looks over all TCP flows, when it is time: asks silent guests whether they are still there
    /// [TCP-91], and ends flows on which nothing happens [TCP-92].
    pub(super) fn scan(&mut self) {
        let now = self.now.ms();
        if now < self.keepalive_at {
            return;
        }
        // An idle process sleeps past the time; what was missed then is not made up for.
        self.keepalive_at = now.saturating_add(KEEPALIVE_SCAN_MS);
        let inactive = now >= self.inactivity_at;
        if inactive {
            self.inactivity_at = now.saturating_add(INACTIVITY_SCAN_MS);
        }
        for index in (0u32..).take(self.flows.slots()) {
            let Some(id) = self.flows.id_at(index) else { continue };
            let (flows, mut io) = self.split();
            let Some(Flow::Tcp(flow)) = flows.get_mut(id) else { continue };
            flow.on_keepalive_scan(&mut io);
            let verdict = if inactive { flow.on_inactivity_scan(&mut io) } else { Verdict::Keep };
            self.settle(id, verdict);
        }
    }

    /// The id a new flow will get; `None` when the table is full, and
    /// [`Translator::take_starved`] will tell when to try again.
    pub fn next_id(&mut self) -> Option<FlowId> {
        if self.flows.is_full() && !self.make_room() {
            self.starve();
            self.drops.count(DropReason::TableFull);
            return None;
        }
        self.flows.next_id()
    }

    /// No descriptor could be had for a connection that waits.
    pub fn no_socket(&mut self) {
        self.starve();
        self.make_room();
        self.drops.count(DropReason::NoSocket);
    }

    /// Opens a flow for something that has come, `None` if there can be none, which is counted. If
    /// there is no room for it, another one may have to go, and it is tried again.
    pub(super) fn open<F>(
        &mut self,
        flow: impl Fn(FlowId, &[u8], &mut Io<'_, O, N>) -> Result<F, Unopened>,
    ) -> Option<(FlowId, F)> {
        for last in [false, true] {
            let id = self.next_id()?;
            let (_, buf, mut io) = self.split_all();
            match flow(id, buf, &mut io) {
                Ok(flow) => return Some((id, flow)),
                Err(Unopened::Exhausted) if !last && self.make_room() => {}
                Err(Unopened::Exhausted) => break,
                Err(Unopened::Refused) => return None,
            }
        }
        self.drops.count(DropReason::NoSocket);
        None
    }

    /// True once after resources came free that a waiting connection may need [FLOW-8].
    pub fn take_starved(&mut self) -> bool {
        let due = self.starved.is_some_and(|at| at <= self.now.ms()) && !self.flows.is_full();
        if due {
            self.starved = None;
        }
        due
    }

    /// A flow that ends makes room for a connection that waits. What we lack may also be used by
    /// others, so we look again after a while, but not at once: that would spin [FLOW-8].
    fn starve(&mut self) {
        let at = self.now.ms().saturating_add(STARVED_MS);
        // What happens again and again must not put it off for ever.
        self.starved = Some(self.starved.map_or(at, |earlier| earlier.min(at)));
    }

    /// `peer` connected to a port that is forwarded [TCP-19]. The socket is registered under `id`, which [`Translator::next_id`] gave just before.
    pub fn on_connection(&mut self, id: FlowId, sock: SockId, peer: Endpoint, to: ForwardTarget) {
        let Some((hash, tuple)) = self.inbound(proto::TCP, peer, None, to, |_| false) else {
            self.drops.count(DropReason::Martian);
            return self.net.abort(sock);
        };
        let origin = self.origin(hash);
        let (_, mut io) = self.split();
        let flow = Tcp::from_peer(sock, (tuple.ours, tuple.guest), origin, &mut io);
        log::debug!("flow {}: TCP {peer} ({}) -> {}", id.index, tuple.ours, tuple.guest);
        self.enter(hash, Flow::Tcp(flow));
    }

    /// A datagram from `peer` to `local`, a port that is forwarded. Its `len` bytes are in the
    /// [buffer](Translator::buffer); not to be called while the link has no room.
    pub fn on_datagram(&mut self, peer: Endpoint, local: Endpoint, len: usize, to: ForwardTarget) {
        let same = |f: &Flow| matches!(f, Flow::Udp(u) if u.belongs(peer, local));
        let Some((hash, tuple)) = self.inbound(proto::UDP, peer, Some(local.addr), to, same) else {
            return self.drops.count(DropReason::Martian);
        };
        if let (_, Some(id)) = self.lookup(&tuple) {
            // It arrived before the flow's own socket was connected.
            let (flows, buf, mut io) = self.split_all();
            if let (Some(Flow::Udp(flow)), Some(data)) = (flows.get_mut(id), buf.get(..len)) {
                flow.on_listener(data, &mut io);
            }
            return;
        }
        let (idle, sides) = (self.idle, (tuple.ours, tuple.guest));
        let made = self.open(|id, buf, io| {
            let data = buf.get(..len).unwrap_or_default();
            UdpFlow::from_peer(id, sides, (peer, local), data, idle, io)
        });
        if let Some((id, flow)) = made {
            log::debug!("flow {}: UDP {peer} ({}) -> {}", id.index, tuple.ours, tuple.guest);
            self.enter(hash, Flow::Udp(flow));
        }
    }

    /// Passes on what comes from those who heard what the guest had sent to many. Each of them
    /// becomes a flow of its own.
    fn on_answers(&mut self, id: FlowId) {
        for _ in 0..ANSWERS {
            let (flows, buf, io) = self.split_all();
            let Some(Flow::Udp(flow)) = flows.get(id) else { return };
            let to = ForwardTarget { addr: Some(flow.guest.addr), port: flow.guest.port };
            let Some(answer) = flow.receive_answer(buf, io.net) else { return };
            if self.out.payload().is_none() {
                self.drops.count(DropReason::LinkFull);
                continue;
            }
            self.on_datagram(answer.peer, answer.local, answer.len, to);
        }
    }

    /// What the guest sees of a peer: the tuple, free or used by the flow that is the `same`.
    ///
    /// Peers whose addresses cannot be shown to the guest share one of ours; where their ports
    /// collide too, the later one gets another [FWD-6]. `sent_to` is where a datagram went.
    fn inbound(
        &self,
        protocol: u8,
        peer: Endpoint,
        sent_to: Option<Addr>,
        to: ForwardTarget,
        same: impl Fn(&Flow) -> bool,
    ) -> Option<(u64, Tuple)> {
        if !self.linked {
            return None;
        }
        let (mut ours, guest) =
            crate::forward::inbound(&self.lease, &self.guest, peer, sent_to, to)?;
        for attempt in 0..SUBSTITUTES {
            let tuple = Tuple { protocol, ours, guest };
            let (hash, taken) = self.lookup(&tuple);
            match taken.and_then(|id| self.flows.get(id)) {
                Some(flow) if !same(flow) => {
                    ours.port = match attempt {
                        0 => self.substitute(protocol, peer, sent_to),
                        _ => ours.port.checked_add(1).unwrap_or(FIRST_SUBSTITUTE),
                    }
                }
                _ => return Some((hash, tuple)),
            }
        }
        None
    }

    /// Where to start looking for another port: elsewhere for each peer, so that a thousand of
    /// them do not try the same ones, and in the same place each time, so that a peer that comes
    /// again is likely to look the same.
    fn substitute(&self, protocol: u8, peer: Endpoint, sent_to: Option<Addr>) -> u16 {
        let guest = Endpoint::new(sent_to.unwrap_or(Addr::UNSPECIFIED), 0);
        let hash = self.index.hash(&Tuple { protocol, ours: peer, guest });
        let ports = u64::from(u16::MAX.saturating_sub(FIRST_SUBSTITUTE)).saturating_add(1);
        let offset = hash.checked_rem(ports).and_then(|n| u16::try_from(n).ok()).unwrap_or(0);
        FIRST_SUBSTITUTE.saturating_add(offset)
    }

    /// Ends every flow, so that guest and peers are not left waiting.
    pub fn end_flows(&mut self) {
        for index in (0u32..).take(self.flows.slots()) {
            if let Some(id) = self.flows.id_at(index) {
                self.settle(id, Verdict::Abort);
            }
        }
    }
}
