//! Deadlines, and events of the host socket.

use super::{Events, Tcp};
use crate::translate::{Deadline, FrameOut, HostError, Io, TcpSockets, Verdict};
use crate::wire::TcpFlags;

/// First retransmission timeout, milliseconds; after a repeated SYN (RFC 6298, 2.1 and 5.7).
const RTO_MS: [u64; 2] = [1000, 3000];

/// Longest retransmission timeout, milliseconds.
const RTO_MAX_MS: u64 = 120_000;

/// Timeouts in a row before the connection is given up [TCP-73].
pub(super) const MAX_RETRIES: u8 = 7;

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
            self.on_ack_timer(io);
            if self.events.has(Events::LINK_FULL) {
                let verdict = self.push(io);
                if verdict != Verdict::Keep {
                    return verdict;
                }
            }
        }
        if !self.rto_at.is_due(io.now) {
            return Verdict::Keep;
        }
        self.rto_at = Deadline::NEVER;
        if !self.events.has(Events::ESTABLISHED) {
            return self.on_handshake_timeout(io);
        }
        self.on_rto(io)
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

    /// Retransmission timeout, with `retries` doublings.
    pub(super) fn arm_rto<O, N>(&mut self, io: &Io<'_, O, N>) {
        let [first, after_syn] = RTO_MS;
        let first = if self.events.has(Events::SYN_RETRIED) { after_syn } else { first };
        let ms = first.checked_shl(self.retries.into()).unwrap_or(RTO_MAX_MS).min(RTO_MAX_MS);
        self.rto_at = Deadline::after(io.now, ms);
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
        if self.retries >= MAX_RETRIES {
            return self.reset(io);
        }
        self.retries = self.retries.saturating_add(1);
        let probe = self.gwin == 0;
        if probe {
            self.gwin = 1;
        }
        if !self.rewind(io) {
            return self.reset(io);
        }
        let verdict = self.push(io);
        if probe {
            self.gwin = 0;
        }
        self.arm_rto(io);
        verdict
    }
}
