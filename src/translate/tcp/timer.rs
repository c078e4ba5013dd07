//! Deadlines, and events of the host socket.

use super::{Events, Tcp};
use crate::translate::{Deadline, FrameOut, HostError, Io, TcpSockets, Verdict};
use crate::wire::TcpFlags;

/// Doublings of the timeout that are remembered: more than there can be before it is as long as
/// it may get.
const MAX_BACKOFF: u8 = 16;

/// Time between calls of [`Tcp::on_keepalive_scan`], milliseconds.
pub const KEEPALIVE_SCAN_MS: u64 = 30_000;

/// Time between calls of [`Tcp::on_inactivity_scan`], milliseconds.
pub const INACTIVITY_SCAN_MS: u64 = 7_200_000;

/// What an event said about the host socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketReady {
    /// There may be something to read.
    pub read: bool,
    /// There may be room to write.
    pub write: bool,
    /// An error is pending.
    pub error: bool,
    /// The peer has finished sending.
    pub read_closed: bool,
}

impl Tcp {
    /// The host socket is ready for something.
    pub fn on_socket<O: FrameOut, N: TcpSockets>(
        &mut self,
        ready: SocketReady,
        io: &mut Io<'_, O, N>,
    ) -> Verdict {
        self.events.set(Events::ACTIVE);
        if self.events.has(Events::CONNECTING) && !self.events.has(Events::SYNACK_SENT) {
            return self.on_connected(ready, io);
        }
        if ready.error && io.net.connect_error(self.sock).is_some() {
            return self.reset(io);
        }
        if ready.read {
            self.events.set(Events::READABLE);
        }
        if ready.read_closed {
            self.events.set(Events::READABLE.or(Events::READ_CLOSED));
        }
        if !self.events.has(Events::ESTABLISHED) {
            return Verdict::Keep;
        }
        if ready.write && !self.backlog.is_empty() {
            let verdict = self.drain(io);
            if verdict != Verdict::Keep {
                return verdict;
            }
            self.acknowledge(io);
        }
        let verdict = self.push(io);
        if verdict != Verdict::Keep {
            return verdict;
        }
        self.finished(io)
    }

    /// The flow's earliest deadline has passed, or may have.
    pub fn on_timer<O: FrameOut, N: TcpSockets>(&mut self, io: &mut Io<'_, O, N>) -> Verdict {
        if self.ack_at.is_due(io.now) {
            // The socket may have refused for want of kernel memory, which is followed by no event.
            if !self.backlog.is_empty() {
                let verdict = self.drain(io);
                if verdict != Verdict::Keep {
                    return verdict;
                }
            }
            if self.events.has(Events::LINK_FULL) {
                self.link_tries = self.link_tries.saturating_add(1);
            }
            self.on_ack_timer(io);
            if self.events.has(Events::LINK_FULL) {
                let verdict = self.push(io);
                if verdict != Verdict::Keep {
                    return verdict;
                }
            }
            let verdict = self.finished(io);
            if verdict != Verdict::Keep {
                return verdict;
            }
        }
        if !self.rto_at.is_due(io.now) {
            return Verdict::Keep;
        }
        self.rto_at = Deadline::NEVER;
        if !self.events.has(Events::ESTABLISHED) {
            self.on_handshake_timeout(io)
        } else if self.events.has(Events::PROBE) {
            self.probe_tail(io)
        } else if self.events.has(Events::REORDER) {
            self.on_overtaken(io)
        } else {
            self.on_rto(io)
        }
    }

    /// To be called every [`KEEPALIVE_SCAN_MS`]: asks a guest that was silent since the last call
    /// whether it still knows the connection. If not it answers with RST [TCP-91].
    pub fn on_keepalive_scan<O: FrameOut, N>(&mut self, io: &mut Io<'_, O, N>) {
        let heard = self.events.has(Events::GUEST_HEARD);
        self.events.clear(Events::GUEST_HEARD);
        if self.events.has(Events::ESTABLISHED) && !heard {
            let window = self.window_field();
            let seq = self.tx_una.sub(1);
            self.emit(io, TcpFlags::ACK, seq, self.rx_acked, window, 0);
        }
    }

    /// To be called every [`INACTIVITY_SCAN_MS`]: ends a connection on which nothing happened
    /// since the last call [TCP-92].
    pub fn on_inactivity_scan<O: FrameOut, N>(&mut self, io: &mut Io<'_, O, N>) -> Verdict {
        let active = self.events.has(Events::ACTIVE);
        self.events.clear(Events::ACTIVE);
        if active { Verdict::Keep } else { self.reset(io) }
    }

    /// Sets the timer of what is in flight: to the retransmission timeout (RFC 6298, 5), or to
    /// when the tail is probed, if that is earlier (RFC 8985, 7.2).
    pub(super) fn arm_rto<O, N>(&mut self, io: &Io<'_, O, N>) {
        self.events.clear(Events::PROBE.or(Events::REORDER));
        let rto = self.guest_rtt.rto_ms(self.events.has(Events::SYN_RETRIED));
        let mut ms = io.timeouts.backed_off(rto, self.backoff);
        if self.may_probe() {
            let probe = self.guest_rtt.probe_ms(self.in_flight() <= self.gmss.into());
            if probe < ms {
                ms = probe;
                self.events.set(Events::PROBE);
            }
        }
        self.rto_at = Deadline::after(io.now, ms);
    }

    /// True if what is in flight is the tail of something, and probing it could help: blocks tell
    /// the guest's answer from any other, and one probe is enough (RFC 8985, 7.2).
    fn may_probe(&self) -> bool {
        let in_flight = self.in_flight();
        self.events.has(Events::SACK)
            && !self.events.any(Events::LOSS.or(Events::PROBED))
            && self.backoff == 0
            && self.guest_rtt.is_known()
            && in_flight != 0
            && in_flight <= self.gwin
    }

    fn on_connected<O: FrameOut, N: TcpSockets>(
        &mut self,
        ready: SocketReady,
        io: &mut Io<'_, O, N>,
    ) -> Verdict {
        if ready.error {
            let why = io.net.connect_error(self.sock).unwrap_or(HostError::Other);
            self.tell_failure(why, io);
            return Verdict::Abort;
        }
        if ready.read || ready.read_closed {
            self.events.set(Events::READABLE);
        }
        if ready.read_closed {
            self.events.set(Events::READ_CLOSED);
        }
        if ready.write {
            self.send_synack(io);
        }
        Verdict::Keep
    }

    /// Nothing was acknowledged in time: repeats, or probes a closed window [TCP-70, TCP-73].
    fn on_rto<O: FrameOut, N: TcpSockets>(&mut self, io: &mut Io<'_, O, N>) -> Verdict {
        let pending = self.in_flight() != 0 || self.events.has(Events::READABLE);
        if !pending {
            self.retries = 0;
            return Verdict::Keep;
        }
        if self.is_hopeless(self.retries, io) {
            return self.reset(io);
        }
        self.retries = self.retries.saturating_add(1);
        self.backoff = self.backoff.saturating_add(1).min(MAX_BACKOFF);
        self.lose_after_timeout(io);
        let verdict = if self.gwin == 0 { self.probe_window(io) } else { self.push(io) };
        self.arm_rto(io);
        verdict
    }

    /// True if a guest that did not answer so many retransmissions will not answer any more.
    pub(super) fn is_hopeless<O, N>(&self, retries: u8, io: &Io<'_, O, N>) -> bool {
        let first = self.guest_rtt.rto_ms(self.events.has(Events::SYN_RETRIED));
        io.timeouts.is_hopeless(first, retries)
    }
}
