//! Data of the peer, towards the guest, and the guest's acknowledgements of it.

use super::{Events, Tcp};
use crate::translate::{FrameOut, Io, Peeked, TcpSockets, Verdict};
use crate::wire::{Segment, TcpFlags};

/// Longest payload of one frame: 64 KiB less the longest plain headers.
const MAX_PAYLOAD: u32 = 65_475;

/// Bytes moved to the guest per visit, so that one flow cannot starve the others.
const BUDGET: u32 = 1 << 20;

/// Duplicate acknowledgements that ask for a retransmission (RFC 5681, 3.2).
const DUP_ACKS: u8 = 3;

impl Tcp {
    /// Sends what the peer sent and the guest's window allows.
    pub(super) fn push<O: FrameOut, N: TcpSockets>(&mut self, io: &mut Io<'_, O, N>) -> Verdict {
        let mut budget = BUDGET;
        let mut header = None;
        while self.events.has(Events::READABLE) && !self.events.has(Events::FIN_SENT) {
            let room = self.gwin.saturating_sub(self.in_flight());
            if room == 0 || budget == 0 {
                // The guest's next acknowledgement goes on, or the timer probes.
                if !self.rto_at.is_armed() {
                    self.arm_rto(io);
                }
                break;
            }
            let want = self.train(room);
            let Some(buf) = io.out.payload().and_then(|b| b.get_mut(..want as usize)) else {
                break;
            };
            match io.net.peek(self.sock, self.tx_next.since(self.tx_base), buf) {
                Peeked::Bytes(n) => {
                    let n32 = u32::try_from(n).unwrap_or(0);
                    if n32 < want && !self.events.has(Events::READ_CLOSED) {
                        // A short read has emptied the queue; the next arrival is an event.
                        self.events.clear(Events::READABLE);
                    }
                    // The numbers are fresh enough for one visit.
                    let (ack, window) = match header {
                        Some(header) => header,
                        None => *header.insert(self.piggyback(io)),
                    };
                    let flags = TcpFlags::ACK.with(TcpFlags::PSH);
                    let seq = self.tx_next;
                    if !self.emit(io, flags, seq, ack, window, &[], n) {
                        // Lost on the link: take it back and let the timer repeat it.
                        io.drop(crate::flow::DropReason::LinkFull);
                        if !io.net.seek(self.sock, self.tx_next.since(self.tx_base)) {
                            return self.reset(io);
                        }
                        self.events.set(Events::READABLE);
                        self.arm_rto(io);
                        break;
                    }
                    self.tx_next = self.tx_next.add(n32);
                    self.tx_max = self.tx_max.max(self.tx_next);
                    budget = budget.saturating_sub(n32);
                    if !self.rto_at.is_armed() {
                        self.arm_rto(io);
                    }
                }
                Peeked::Empty => self.events.clear(Events::READABLE),
                Peeked::End => self.send_fin(io),
                Peeked::Broken => return self.reset(io),
            }
        }
        Verdict::Keep
    }

    /// True if [`Tcp::push`] stopped for want of budget only.
    pub fn wants_push(&self) -> bool {
        self.events.has(Events::READABLE.or(Events::ESTABLISHED))
            && !self.events.has(Events::FIN_SENT)
            && self.gwin > self.in_flight()
    }

    /// Whole segments as far as they go, at most one frame's worth.
    fn train(&self, room: u32) -> u32 {
        let most = room.min(MAX_PAYLOAD);
        let mss = u32::from(self.gmss);
        match most.checked_div(mss) {
            None | Some(0) => most,
            Some(n) => n.saturating_mul(mss),
        }
    }

    fn send_fin<O: FrameOut, N: TcpSockets>(&mut self, io: &mut Io<'_, O, N>) {
        let (ack, window) = self.piggyback(io);
        let flags = TcpFlags::FIN.with(TcpFlags::ACK);
        let seq = self.tx_next;
        self.emit(io, flags, seq, ack, window, &[], 0);
        self.events.set(Events::FIN_SENT);
        self.events.clear(Events::READABLE);
        self.tx_next = self.tx_next.add(1);
        self.tx_max = self.tx_max.max(self.tx_next);
        self.arm_rto(io);
    }

    /// Goes back to the oldest unacknowledged byte; everything after it will be sent again
    /// [TCP-81].
    pub(super) fn rewind<O, N: TcpSockets>(&mut self, io: &mut Io<'_, O, N>) -> bool {
        self.tx_next = self.tx_una;
        self.events.clear(Events::FIN_SENT);
        self.events.set(Events::READABLE);
        io.net.seek(self.sock, self.tx_next.since(self.tx_base))
    }

    /// The acknowledgement and window of a segment. A verdict ends its processing.
    pub(super) fn on_ack<O: FrameOut, N: TcpSockets>(
        &mut self,
        seg: &Segment<'_>,
        io: &mut Io<'_, O, N>,
    ) -> Option<Verdict> {
        if seg.ack.after(self.tx_max) {
            // Acknowledges what was never sent (RFC 9293, 3.10.7.4).
            self.events.set(Events::FORCE_ACK);
            io.drop(crate::flow::DropReason::BadSegment);
            return Some(Verdict::Keep);
        }
        if seg.ack.before(self.tx_una) {
            return None;
        }
        let window = u32::from(seg.window) << self.gws;
        if seg.ack == self.tx_una {
            let duplicate = seg.seq_len() == 0 && window == self.gwin && self.in_flight() != 0;
            // A segment that is old itself is a probe, not a request.
            if duplicate && seg.seq == self.rx_next {
                self.dup_acks = self.dup_acks.saturating_add(1);
                if self.dup_acks == DUP_ACKS && !self.rewind(io) {
                    return Some(self.reset(io));
                }
            }
            self.gwin = window;
            return None;
        }
        self.dup_acks = 0;
        self.retries = 0;
        self.gwin = window;
        self.tx_una = seg.ack;
        if seg.ack.after(self.tx_next) {
            // Sent before a rewind, and received after all.
            self.tx_next = seg.ack;
            if !io.net.seek(self.sock, self.tx_next.since(self.tx_base)) {
                return Some(self.reset(io));
            }
        }
        if self.in_flight() == 0 {
            self.rto_at = crate::translate::Deadline::NEVER;
            if self.events.has(Events::FIN_SENT) {
                self.events.set(Events::FIN_ACKED);
            }
        } else {
            self.arm_rto(io);
        }
        None
    }
}
