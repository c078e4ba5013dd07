//! Data of the peer, towards the guest, and the guest's acknowledgements of it.

use super::timer::MAX_RETRIES;
use super::{Events, Tcp};
use crate::translate::{Deadline, FrameOut, Io, Peeked, TcpSockets, Verdict};
use crate::wire::{Segment, TcpFlags};

/// Longest payload of one frame: 64 KiB less the longest headers, timestamps among them.
const MAX_PAYLOAD: u32 = 65_463;

/// Bytes moved to the guest per visit, so that one flow cannot starve the others.
const BUDGET: u32 = 128 * 1024;

/// Time for a full link to make room, milliseconds.
pub(super) const LINK_RETRY_MS: u64 = 5;

/// Largest window of the guest that is used [TCP-69].
const MAX_WINDOW: u32 = 16 << 20;

/// Duplicate acknowledgements that ask for a retransmission (RFC 5681, 3.2).
const DUP_ACKS: u8 = 3;

impl Tcp {
    /// Sends what the peer sent and the guest's window allows.
    pub(super) fn push<O: FrameOut, N: TcpSockets>(&mut self, io: &mut Io<'_, O, N>) -> Verdict {
        self.events.clear(Events::LINK_FULL);
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
                self.retry_soon(io);
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
                    if !self.emit(io, flags, seq, ack, window, n) {
                        // Lost on the link: take it back and try again in a moment.
                        io.drop(crate::flow::DropReason::LinkFull);
                        if !io.net.seek(self.sock, self.tx_next.since(self.tx_base)) {
                            return self.reset(io);
                        }
                        self.events.set(Events::READABLE);
                        self.retry_soon(io);
                        break;
                    }
                    self.note_answer(io.now);
                    self.tx_next = self.tx_next.add(n32);
                    self.tx_max = self.tx_max.max(self.tx_next);
                    budget = budget.saturating_sub(n32);
                    if !self.rto_at.is_armed() {
                        self.arm_rto(io);
                    }
                }
                // Without peek offsets the end shows at the head of the queue only.
                Peeked::Empty if self.hides_end() => {
                    if !self.discard(io, true) {
                        return self.reset(io);
                    }
                }
                Peeked::Empty => self.events.clear(Events::READABLE),
                Peeked::End => self.send_fin(io),
                Peeked::Broken => return self.reset(io),
            }
        }
        Verdict::Keep
    }

    /// True if the flow has more for the guest and stopped only to let others have their turn:
    /// the caller comes back with [`Tcp::on_socket`] and nothing ready.
    pub fn wants_push(&self) -> bool {
        self.events.has(Events::READABLE.or(Events::ESTABLISHED))
            && !self.events.any(Events::FIN_SENT.or(Events::LINK_FULL))
            && self.gwin > self.in_flight()
    }

    /// The link is full. Coming back at once would spin, and waiting for the retransmission timer
    /// would be long.
    fn retry_soon<O, N>(&mut self, io: &Io<'_, O, N>) {
        self.events.set(Events::LINK_FULL);
        // A link that stays full, or is down, ends the flow like a guest that does not answer.
        if !self.rto_at.is_armed() {
            self.arm_rto(io);
        }
        self.ack_at = self.ack_at.min(Deadline::after(io.now, LINK_RETRY_MS));
    }

    /// True if the end may be in the queue, behind what the guest has acknowledged.
    fn hides_end(&self) -> bool {
        self.events.has(Events::READ_CLOSED)
            && self.in_flight() == 0
            && self.tx_next != self.tx_base
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
        self.emit(io, flags, seq, ack, window, 0);
        self.events.set(Events::FIN_SENT.or(Events::END_KNOWN));
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
        let window = (u32::from(seg.window) << self.gws).min(MAX_WINDOW);
        if seg.ack == self.tx_una {
            return self.on_same_ack(seg, window, io);
        }
        self.dup_acks = 0;
        self.retries = 0;
        self.gwin = window;
        self.tx_una = seg.ack;
        if seg.ack.after(self.tx_next) && !self.catch_up(io) {
            return Some(self.reset(io));
        }
        if self.in_flight() == 0 {
            self.rto_at = Deadline::NEVER;
            if self.events.has(Events::FIN_SENT) {
                self.events.set(Events::FIN_ACKED);
            }
        } else {
            self.arm_rto(io);
        }
        None
    }

    /// An acknowledgement of nothing new: a window update, a duplicate, an answer to a probe.
    fn on_same_ack<O: FrameOut, N: TcpSockets>(
        &mut self,
        seg: &Segment<'_>,
        window: u32,
        io: &mut Io<'_, O, N>,
    ) -> Option<Verdict> {
        let in_flight = self.in_flight() != 0;
        let mut again = false;
        if window == 0 || self.gwin == 0 {
            // What is in flight met, or may have met, a closed window [TCP-69].
            again = in_flight;
        } else if in_flight && seg.seq_len() == 0 && window == self.gwin && seg.seq == self.rx_next
        {
            // A segment that is old itself would be a probe, not a request.
            self.dup_acks = self.dup_acks.saturating_add(1);
            again = self.dup_acks == DUP_ACKS;
        }
        if window == 0 {
            // The guest is alive: it may keep its window closed as long as it likes
            // (RFC 9293, 3.8.6.1).
            self.retries = self.retries.min(MAX_RETRIES.saturating_sub(1));
        } else if self.gwin == 0 {
            self.retries = 0;
            self.rto_at = Deadline::NEVER;
        }
        self.gwin = window;
        if again && !self.rewind(io) {
            return Some(self.reset(io));
        }
        None
    }

    /// What was sent before a rewind has arrived after all: goes on behind it.
    fn catch_up<O, N: TcpSockets>(&mut self, io: &mut Io<'_, O, N>) -> bool {
        self.tx_next = self.tx_una;
        let fin = self.events.has(Events::END_KNOWN) && self.tx_una == self.tx_max;
        if fin {
            self.events.set(Events::FIN_SENT);
            self.events.clear(Events::READABLE);
        }
        let offset = self.tx_next.sub(u32::from(fin)).since(self.tx_base);
        io.net.seek(self.sock, offset)
    }
}
