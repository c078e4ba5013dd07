//! Opening connections, from either side (RFC 9293, 3.5).

use super::dscp::code_point;
use super::rtt::Rtt;
use super::scoreboard::BoardId;
use super::{DEFAULT_MSS, Events, MIN_MSS, OUR_SCALE, Tcp};
use crate::config::Lease;
use crate::flow::{Backlog, DropReason, FlowId};
use crate::forward::{self, Destination};
use crate::translate::{
    Connected, Deadline, FrameOut, HostError, Io, Marks, SockId, SynMarks, TcpSockets, Verdict,
};
use crate::wire::{
    Addr, Endpoint, IcmpError, IcmpMessage, SackBlock, Segment, Seq, SynOptions, TcpFlags,
    TcpOptions, Timestamps, Unreachable,
};

/// Largest payload of an IPv4 or IPv6 packet with plain TCP headers, in multiples of four.
const MAX_MSS: [u16; 2] = [65492, 65472];

/// Page size that segment sizes are rounded to [TCP-29].
const PAGE: u16 = 4096;

/// Where our numbers on a connection begin. Both must be such that nobody can guess them.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// Our initial sequence number.
    pub isn: Seq,
    /// What our timestamps are ahead of the clock; the same for every connection of one tuple,
    /// so that they grow from each to the next (RFC 7323, 5.4 and 7.1).
    pub ts_offset: u32,
}

/// What came of the guest's SYN.
#[derive(Debug)]
pub enum Opened {
    /// A connection in the making.
    Flow(Tcp),
    /// Out of descriptors, ports or kernel memory; the guest was not told.
    Exhausted,
    /// Refused; the guest was told.
    Refused,
}

/// The MSS we offer: what the link's MTU leaves, in whole pages when it is larger than one
/// [TCP-29].
pub fn mss_to_offer(lease: &Lease, v4: bool) -> u16 {
    let mtu = if lease.mtu == 0 { 1500 } else { lease.mtu };
    let mss = mtu.saturating_sub(if v4 { 40 } else { 60 });
    let pages = mss.checked_div(PAGE).unwrap_or(0).saturating_mul(PAGE);
    if pages != 0 { pages } else { mss.max(MIN_MSS) }
}

impl Tcp {
    /// The guest's SYN, and how it was marked: connects to `dst` on the host [TCP-12].
    ///
    /// The caller has checked that both ends can be ends of a connection [TCP-13].
    pub fn from_guest<O: FrameOut, N: TcpSockets>(
        id: FlowId,
        (ours, guest): (Endpoint, Endpoint),
        dst: Destination,
        (seg, marks): (&Segment<'_>, Marks),
        origin: Origin,
        io: &mut Io<'_, O, N>,
    ) -> Opened {
        let mut flow = Self::new(ours, guest, SockId(-1), origin);
        flow.guest_tos = code_point(marks.tos);
        flow.rx_next = seg.seq.add(1);
        flow.rx_acked = flow.rx_next;
        flow.rx_edge = flow.rx_next;
        // The kernel counts its own SYN on connections it opened [TCP-40].
        flow.rx_base = seg.seq;
        flow.guest_options(&SynOptions::parse(seg.options));
        flow.gwin = u32::from(seg.window);
        flow.events.set(Events::CONNECTING.or(Events::GUEST_HEARD).or(Events::ACTIVE));
        if dst.to.addr.is_loopback() {
            flow.events.set(Events::LOCAL);
        }
        match io.net.connect(id, dst, SynMarks { tos: flow.guest_tos, hops: marks.few_hops() }) {
            Ok(Connected::Now(sock)) => {
                flow.sock = sock;
                flow.send_synack(io);
                Opened::Flow(flow)
            }
            Ok(Connected::Later(sock)) => {
                flow.sock = sock;
                Opened::Flow(flow)
            }
            Err(HostError::Exhausted) => Opened::Exhausted,
            Err(e) => {
                flow.tell_failure(e, io);
                Opened::Refused
            }
        }
    }

    /// The host could not connect: tells the guest what happened, as far as the network would.
    ///
    /// A refusal is a RST, whose ACK flag a guest in SYN-SENT needs to believe it [TCP-14]; an
    /// unreachable host is an ICMP error, which the guest's stack hands to its caller; a peer that
    /// does not answer is silence: the guest's own timer is running [W-10].
    pub(super) fn tell_failure<O: FrameOut, N: TcpSockets>(
        &mut self,
        e: HostError,
        io: &mut Io<'_, O, N>,
    ) {
        match e {
            HostError::Unreachable => {
                let path = self.path(io.mac_of(self.ours.addr), io.guest_mac);
                let syn = self.rx_next.sub(1);
                let (from, what) = self.told(io);
                if let Some(error) = IcmpError::syn(&path, from, what, syn) {
                    io.out.control(error.frame());
                }
            }
            HostError::TimedOut => {}
            HostError::Refused | HostError::Exhausted | HostError::TooLong | HostError::Other => {
                self.emit_reset(io)
            }
        }
    }

    /// Who says why the SYN did not get through, and what: a router, if the guest asked for
    /// routers, or else the host it was meant for.
    fn told<O, N: TcpSockets>(&self, io: &mut Io<'_, O, N>) -> (Addr, IcmpMessage) {
        let report = io.net.connect_report(self.sock);
        let heard = report.and_then(|report| {
            let from = forward::reporter(io.lease, self.guest.addr, report.offender?)?;
            Some((from, report.message))
        });
        let v4 = self.guest.addr.is_v4();
        heard.unwrap_or_else(|| (self.ours.addr, Unreachable::Host.message(v4)))
    }

    /// A peer connected to a forwarded port: asks the guest [TCP-21].
    pub fn from_peer<O: FrameOut, N: TcpSockets>(
        sock: SockId,
        (ours, guest): (Endpoint, Endpoint),
        origin: Origin,
        io: &mut Io<'_, O, N>,
    ) -> Self {
        let mut flow = Self::new(ours, guest, sock, origin);
        flow.events.set(Events::SYN_SENT.or(Events::INBOUND).or(Events::ACTIVE));
        flow.peer_tos = code_point(io.net.peer_tos(sock));
        // Whatever the peer sent already waits in the socket.
        flow.events.set(Events::READABLE);
        flow.send_syn(io);
        flow
    }

    fn new(ours: Endpoint, guest: Endpoint, sock: SockId, origin: Origin) -> Self {
        let Origin { isn, ts_offset } = origin;
        Self {
            ours,
            guest,
            sock,
            events: Events::default(),
            tx_next: isn.add(1),
            tx_una: isn,
            tx_base: isn.add(1),
            gwin: 0,
            rtx: isn,
            rtx_end: isn,
            recover: isn,
            guest_rtt: Rtt::default(),
            timed: isn,
            timed_at: 0,
            board: BoardId::NONE,
            rx_next: Seq(0),
            rx_acked: Seq(0),
            rx_edge: Seq(0),
            rx_base: Seq(0),
            promised: 0,
            rx_fin: Seq(0),
            duplicate: SackBlock::default(),
            backlog: Backlog::default(),
            ack_at: Deadline::NEVER,
            rto_at: Deadline::NEVER,
            rtt_us: 0,
            gmss: DEFAULT_MSS,
            ts_recent: 0,
            ts_offset,
            gws: 0,
            ows: OUR_SCALE,
            ack_tries: 0,
            retries: 0,
            backoff: 0,
            burst: 0,
            dup_acks: 0,
            ahead: 0,
            asks: 0,
            asked: 0,
            growth: 0,
            undiscarded: 0,
            guest_tos: 0,
            peer_tos: 0,
            link_tries: 0,
        }
    }

    /// Takes what the guest's SYN or SYN,ACK offers [TCP-32, TCP-33]. We offer everything that we
    /// know in our SYN, and in a SYN,ACK all that was offered: so all of it is agreed upon.
    fn guest_options(&mut self, options: &SynOptions) {
        let [max4, max6] = MAX_MSS;
        let max = if self.guest.addr.is_v4() { max4 } else { max6 };
        self.gmss = options.mss.unwrap_or(DEFAULT_MSS).clamp(MIN_MSS, max) & !3;
        if options.sack_permitted {
            self.events.set(Events::SACK);
        }
        if let Some(stamps) = options.timestamps {
            self.events.set(Events::TIMESTAMPS);
            self.ts_recent = stamps.value;
            // The size that the guest names does not count options (RFC 9293, 3.7.1).
            self.gmss = self.gmss.saturating_sub(Timestamps::LEN);
        }
        match options.wscale {
            Some(shift) => {
                // RFC 7323, 2.3: larger shifts count as 14.
                self.gws = shift.min(14);
                self.ows = OUR_SCALE;
                self.events.set(Events::SCALED);
            }
            // Without the option neither side scales [TCP-28].
            None => {
                self.gws = 0;
                self.ows = 0;
            }
        }
    }

    /// A segment before the handshake is complete, on a connection the guest opened
    /// [TCP-15, TCP-17].
    pub(super) fn on_segment_connecting<O: FrameOut, N: TcpSockets>(
        &mut self,
        seg: &Segment<'_>,
        io: &mut Io<'_, O, N>,
    ) -> Verdict {
        if seg.flags.has(TcpFlags::RST) {
            return if seg.seq == self.rx_next { Verdict::Abort } else { Verdict::Keep };
        }
        if seg.flags.has(TcpFlags::SYN) {
            // The same SYN again: our SYN,ACK was lost, or the peer takes its time. A SYN with
            // another number is a restarted guest, which the SYN,ACK makes reset the old
            // connection (RFC 9293, 3.5.1).
            if seg.seq == self.rx_next.sub(1) {
                self.take_timestamp(seg, seg.seq);
            }
            if self.events.has(Events::SYNACK_SENT) {
                self.send_synack(io);
            }
            return Verdict::Keep;
        }
        if !self.events.has(Events::SYNACK_SENT) || !seg.flags.has(TcpFlags::ACK) {
            return self.reset(io);
        }
        if seg.ack != self.tx_next {
            return self.refuse_ack(seg, io);
        }
        self.establish();
        self.gwin = u32::from(seg.window) << self.gws;
        self.on_segment_established(seg, io)
    }

    /// A segment before the handshake is complete, on a connection a peer opened [TCP-24].
    pub(super) fn on_segment_syn_sent<O: FrameOut, N: TcpSockets>(
        &mut self,
        seg: &Segment<'_>,
        io: &mut Io<'_, O, N>,
    ) -> Verdict {
        let acceptable = seg.flags.has(TcpFlags::ACK) && seg.ack == self.tx_next;
        if seg.flags.has(TcpFlags::RST) {
            return if acceptable { Verdict::Abort } else { Verdict::Keep };
        }
        if seg.flags.has(TcpFlags::ACK) && !acceptable {
            return self.refuse_ack(seg, io);
        }
        if !acceptable || !seg.flags.has(TcpFlags::SYN) || seg.flags.has(TcpFlags::FIN) {
            return self.reset(io);
        }
        self.rx_next = seg.seq.add(1);
        self.rx_acked = self.rx_next;
        self.rx_edge = self.rx_next;
        self.rx_base = self.rx_next;
        self.guest_options(&SynOptions::parse(seg.options));
        self.establish();
        // A window in a SYN is never scaled (RFC 7323, 2.2).
        self.gwin = u32::from(seg.window);
        // The guest may speak first: its ACK leaves before anything else.
        self.events.set(Events::FORCE_ACK);
        self.acknowledge(io);
        Verdict::Keep
    }

    /// An acknowledgement of what we did not send: the guest remembers an older connection. The
    /// reset makes it forget that one, ours goes on (RFC 9293, 3.10.7.3 and 3.10.7.4).
    fn refuse_ack<O: FrameOut, N>(&mut self, seg: &Segment<'_>, io: &mut Io<'_, O, N>) -> Verdict {
        io.drop(DropReason::BadSegment);
        self.emit(io, TcpFlags::RST, seg.ack, Seq(0), 0, 0);
        Verdict::Keep
    }

    fn establish(&mut self) {
        self.events.clear(Events::CONNECTING.or(Events::SYN_SENT).or(Events::SYNACK_SENT));
        self.events.set(Events::ESTABLISHED);
        self.tx_una = self.tx_next;
        self.rto_at = Deadline::NEVER;
        self.retries = 0;
    }

    /// The host socket is connected: answer the guest.
    pub(super) fn send_synack<O: FrameOut, N: TcpSockets>(&mut self, io: &mut Io<'_, O, N>) {
        self.events.set(Events::SYNACK_SENT);
        let window = self.first_window(io);
        let offer = Offer {
            scale: self.events.has(Events::SCALED),
            sack: self.events.has(Events::SACK),
            timestamps: self.events.has(Events::TIMESTAMPS),
        };
        let options = self.syn_options(&offer, io);
        let flags = TcpFlags::SYN.with(TcpFlags::ACK);
        let (seq, ack) = (self.tx_next.sub(1), self.rx_next);
        self.emit_with(io, flags, seq, ack, window, options.as_slice(), 0);
        self.arm_handshake(io);
    }

    fn send_syn<O: FrameOut, N: TcpSockets>(&mut self, io: &mut Io<'_, O, N>) {
        let offer = Offer { scale: true, sack: true, timestamps: true };
        let options = self.syn_options(&offer, io);
        let seq = self.tx_next.sub(1);
        // The window of a SYN promises nothing yet; the SYN,ACK's answer carries the real one.
        self.emit_with(io, TcpFlags::SYN, seq, Seq(0), FIRST_SYN_WINDOW, options.as_slice(), 0);
        self.arm_handshake(io);
    }

    fn syn_options<O, N>(&self, offer: &Offer, io: &Io<'_, O, N>) -> TcpOptions {
        TcpOptions::syn(&SynOptions {
            mss: Some(mss_to_offer(io.lease, self.guest.addr.is_v4())),
            wscale: offer.scale.then_some(OUR_SCALE),
            sack_permitted: offer.sack,
            timestamps: offer.timestamps.then(|| self.timestamps(io.now)),
        })
    }

    fn arm_handshake<O, N>(&mut self, io: &Io<'_, O, N>) {
        self.rto_at = Deadline::after(io.now, io.timeouts.handshake_ms(self.retries));
    }

    /// The guest did not answer in time [TCP-16, TCP-23].
    pub(super) fn on_handshake_timeout<O: FrameOut, N: TcpSockets>(
        &mut self,
        io: &mut Io<'_, O, N>,
    ) -> Verdict {
        if self.retries >= io.timeouts.syn_retries {
            return self.reset(io);
        }
        self.retries = self.retries.saturating_add(1);
        self.events.set(Events::SYN_RETRIED);
        if self.events.has(Events::SYN_SENT) {
            self.send_syn(io);
        } else {
            self.send_synack(io);
        }
        Verdict::Keep
    }
}

/// Window of our SYN: one initial window of a modern sender (RFC 6928).
const FIRST_SYN_WINDOW: u16 = 14600;

/// What we offer besides a segment size: everything in a SYN, in a SYN,ACK what the guest offered
/// [TCP-28].
struct Offer {
    scale: bool,
    sack: bool,
    timestamps: bool,
}
