//! The guest's acknowledgements, and what is sent again because of them, or for want of them.
//!
//! # Theory of operation
//!
//! Data in flight stays in the socket's queue, so a retransmission is a peek at another offset.
//! `tx_next` stays where it is. What is to be sent again is the range from `rtx` to `rtx_end`,
//! without what the board says the guest has; [`Tcp::repair`] sends it, and moves `rtx` on. There
//! is no congestion window: the link to the guest has no queue of others', and its window is the
//! limit.
//!
//! What is lost is found in these ways, the first that applies:
//!
//! * *Blocks* (RFC 2018): see [`Board`](super::scoreboard::Board). Holes with enough above them
//!   are lost at once, others after a short wait, in case they were overtaken. Nothing else is
//!   sent again.
//! * *Three duplicate acknowledgements* (RFC 5681, 3.2), from a guest without blocks: the first
//!   segment is lost. What else is shows only one hole at a time: each acknowledgement of a part
//!   of what was in flight ends in front of the next one (RFC 6582). So each time it ends exactly
//!   where we had sent again, twice as much follows.
//! * *The tail probe* (RFC 8985, 7): two round trips after the last segments they are still not
//!   acknowledged. The last one is sent again, and its block makes holes of the others.
//! * *The timeout* (RFC 6298): everything is lost, and blocks are forgotten, as the guest may have
//!   thrown away what it reported (RFC 2018, 8). One frame is sent, and the rest as the guest
//!   acknowledges: if the guest was only slow, the rest has arrived.
//! * *A window that was closed* in front of data in flight: the guest had no room for it [TCP-69].
//!
//! Recovery ends when the guest has all that was in flight when it began, or, as long as its
//! blocks are all that counts, when it has nothing out of order.

use super::scoreboard::BoardId;
use super::{Events, Tcp};
use crate::flow::DropReason;
use crate::translate::{Deadline, FrameOut, Io, Now, Peeked, TcpSockets, Verdict};
use crate::wire::{SackBlocks, Segment, Seq, TcpFlags, Timestamps};

/// Largest window of the guest that is used [TCP-69].
const MAX_WINDOW: u32 = 16 << 20;

/// Duplicate acknowledgements that ask for a retransmission (RFC 5681, 3.2).
const DUP_ACKS: u8 = 3;

/// What is sent again at a time, as [`Tcp::burst`]: one segment, to a guest that has something
/// out of order and acknowledges it at once; two, if it may have nothing else and would delay
/// that; and after a timeout about as much as a frame takes.
const ONE: u8 = 1;
const TWO: u8 = 2;
const FRAME: u8 = 7;

/// Timestamps of acknowledgements older than this are not believed, milliseconds.
const OLDEST_ECHO_MS: u32 = 1 << 18;

/// What blocks said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blocks {
    /// Nothing that concerns what is in flight.
    Nothing,
    /// What we knew.
    Old,
    /// Something new.
    New,
    /// Something, but there is no board to note it.
    Unnoted,
}

/// What became of a retransmission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resent {
    /// So many octets of sequence space were sent.
    Sent(u32),
    /// The link could not take it.
    LinkFull,
    /// The socket is broken.
    Broken,
}

impl Tcp {
    /// The acknowledgement and window of a segment. A verdict ends its processing.
    pub(super) fn on_ack<O: FrameOut, N: TcpSockets>(
        &mut self,
        seg: &Segment<'_>,
        io: &mut Io<'_, O, N>,
    ) -> Option<Verdict> {
        let old = seg.ack.before(self.tx_una);
        if !old && seg.ack.since(self.tx_una) > self.in_flight() {
            // Acknowledges what was never sent (RFC 9293, 3.10.7.4).
            self.events.set(Events::FORCE_ACK);
            io.drop(DropReason::BadSegment);
            return Some(Verdict::Keep);
        }
        if old {
            // Overtaken by a later one, but what it reports still holds.
            if self.has_blocks(seg) {
                self.on_blocks(seg, io);
            }
            return None;
        }
        let window = (u32::from(seg.window) << self.gws).min(MAX_WINDOW);
        if seg.ack == self.tx_una {
            self.on_same_ack(seg, window, io);
            return None;
        }
        self.dup_acks = 0;
        self.retries = 0;
        self.gwin = window;
        self.tx_una = seg.ack;
        self.measure(seg, io.now);
        if self.events.has(Events::LOSS) {
            self.on_progress(seg, io);
        } else if self.has_blocks(seg) {
            self.on_blocks(seg, io);
        }
        if self.in_flight() == 0 {
            self.rto_at = Deadline::NEVER;
            if self.events.has(Events::FIN_SENT) {
                self.events.set(Events::FIN_ACKED);
            }
        } else {
            self.events.clear(Events::PROBED);
            if !self.events.has(Events::REORDER) {
                self.arm_rto(io);
            }
        }
        None
    }

    /// Sends again what is lost, as far as the guest's window allows.
    pub(super) fn repair<O: FrameOut, N: TcpSockets>(
        &mut self,
        budget: &mut u32,
        io: &mut Io<'_, O, N>,
    ) -> Verdict {
        let edge = self.tx_una.add(self.gwin);
        let mut any = false;
        while *budget != 0 && self.rtx.before(self.rtx_end) {
            let board = io.boards.get(self.board);
            let hole =
                board.map_or(Some((self.rtx, self.rtx_end)), |b| b.next(self.rtx, self.rtx_end));
            let Some((start, end)) = hole else {
                self.rtx = self.rtx_end;
                break;
            };
            self.rtx = start;
            if !start.before(edge) {
                break;
            }
            any = true;
            match self.resend(start, end.min(edge), io) {
                Resent::Sent(n) => {
                    self.rtx = start.add(n);
                    *budget = budget.saturating_sub(n);
                    if let Some(board) = io.boards.get_mut(self.board) {
                        board.retransmitted(self.tx_next, start == self.tx_una);
                    }
                }
                Resent::LinkFull => break,
                Resent::Broken => return self.reset(io),
            }
        }
        if any && !self.seek_new(io) {
            return self.reset(io);
        }
        if !self.rto_at.is_armed() && self.in_flight() != 0 {
            self.arm_rto(io);
        }
        Verdict::Keep
    }

    /// True if something lost could be sent now.
    pub(super) fn wants_repair(&self) -> bool {
        self.events.has(Events::LOSS)
            && self.rtx.before(self.rtx_end)
            && self.rtx.before(self.tx_una.add(self.gwin))
    }

    /// The timeout: everything in flight is lost, whatever the guest reported.
    pub(super) fn lose_after_timeout<O, N>(&mut self, io: &mut Io<'_, O, N>) {
        self.enter_loss(FRAME, io);
        self.extend_burst();
    }

    /// One octet into a closed window, to learn whether it still is [TCP-70].
    pub(super) fn probe_window<O: FrameOut, N: TcpSockets>(
        &mut self,
        io: &mut Io<'_, O, N>,
    ) -> Verdict {
        self.gwin = 1;
        let verdict = self.push(io);
        self.gwin = 0;
        verdict
    }

    /// The last segments were not acknowledged in the time that it usually takes: sends the very
    /// last one again (RFC 8985, 7.3). New data would do, but what the window allows was sent.
    pub(super) fn probe_tail<O: FrameOut, N: TcpSockets>(
        &mut self,
        io: &mut Io<'_, O, N>,
    ) -> Verdict {
        self.events.clear(Events::PROBE);
        self.events.set(Events::PROBED);
        let data_end = self.data_end();
        let last = data_end.sub(self.gmss.into()).max(self.tx_una);
        if self.tx_next.since(self.tx_una) <= self.gwin {
            if last.before(data_end) {
                let sent = self.resend(last, data_end, io);
                if sent == Resent::Broken || !self.seek_new(io) {
                    return self.reset(io);
                }
            }
            if data_end.before(self.tx_next) {
                self.resend(data_end, self.tx_next, io);
            }
        }
        self.arm_rto(io);
        Verdict::Keep
    }

    /// What the guest has still not got was not overtaken, but is lost.
    pub(super) fn on_overtaken<O: FrameOut, N: TcpSockets>(
        &mut self,
        io: &mut Io<'_, O, N>,
    ) -> Verdict {
        if let Some(hole) = io.boards.get(self.board).and_then(|b| b.highest_hole()) {
            self.rtx_end = self.rtx_end.max(hole);
            self.find_lost_again(true, io);
        }
        self.arm_rto(io);
        self.push(io)
    }

    /// Starts to time the segment just sent, unless another one is being timed.
    pub(super) fn time_segment(&mut self, now: Now) {
        if !self.events.any(Events::TIMING.or(Events::LOSS)) {
            self.events.set(Events::TIMING);
            self.timed = self.tx_next;
            self.timed_at = low(now);
        }
    }

    /// Measures the round trip that `seg` ends.
    fn measure(&mut self, seg: &Segment<'_>, now: Now) {
        if self.events.has(Events::TIMING) {
            if !seg.ack.before(self.timed) {
                self.events.clear(Events::TIMING);
                self.guest_rtt.sample(low(now).wrapping_sub(self.timed_at));
                self.backoff = 0;
            }
        } else if self.backoff != 0 {
            // What was timed may have been sent twice. The guest's echo tells which one it means,
            // in milliseconds (RFC 7323, 4).
            let stamps = Timestamps::find(seg.options);
            let stamps = stamps.filter(|_| self.events.has(Events::TIMESTAMPS));
            let age = stamps.map(|s| self.ts_now(now).wrapping_sub(s.echo));
            if let Some(ms) = age.filter(|ms| *ms < OLDEST_ECHO_MS) {
                self.guest_rtt.sample(ms.max(1).saturating_mul(1000));
                self.backoff = 0;
            } else if !self.guest_rtt.is_known() {
                // The first timeout is long enough for any guest.
                self.backoff = 0;
            }
        }
    }

    /// An acknowledgement of nothing new: a window update, a duplicate, an answer to a probe.
    fn on_same_ack<O, N>(&mut self, seg: &Segment<'_>, window: u32, io: &mut Io<'_, O, N>) {
        let in_flight = self.in_flight() != 0;
        let was = self.gwin;
        self.gwin = window;
        if window == 0 {
            // The guest is alive: it may keep its window closed as long as it likes
            // (RFC 9293, 3.8.6.1).
            while self.retries != 0 && self.is_hopeless(self.retries, io) {
                self.retries = self.retries.saturating_sub(1);
            }
        } else if was == 0 {
            self.retries = 0;
            self.backoff = 0;
            self.rto_at = Deadline::NEVER;
        }
        if !in_flight {
            return;
        }
        if window == 0 || was == 0 {
            // What is in flight met, or may have met, a closed window [TCP-69]. A guest without
            // memory may also have thrown away what it reported before.
            self.enter_loss(FRAME, io);
            self.rtx_end = self.tx_next;
            if self.has_blocks(seg) {
                self.on_blocks(seg, io);
            }
            return;
        }
        let blocks = if self.has_blocks(seg) { self.on_blocks(seg, io) } else { Blocks::Unnoted };
        // A segment that is old itself would be a probe, not a request. Blocks that tell nothing,
        // or only what came twice, ask for nothing either.
        if blocks == Blocks::Unnoted
            && self.board == BoardId::NONE
            && !self.events.has(Events::LOSS)
            && seg.seq_len() == 0
            && window == was
            && seg.seq == self.rx_next
        {
            self.dup_acks = self.dup_acks.saturating_add(1);
            if self.dup_acks == DUP_ACKS {
                self.enter_loss(ONE, io);
                self.extend_burst();
                self.arm_rto(io);
            }
        }
    }

    /// New data is acknowledged while something is lost.
    fn on_progress<O, N>(&mut self, seg: &Segment<'_>, io: &mut Io<'_, O, N>) {
        let una = self.tx_una;
        let (exactly, beyond) = (una == self.rtx, una.after(self.rtx));
        self.rtx = self.rtx.max(una);
        self.rtx_end = self.rtx_end.max(una);
        if let Some(board) = io.boards.get_mut(self.board)
            && !board.acknowledge(una)
        {
            // The guest has forgotten what it reported.
            self.enter_loss(FRAME, io);
            self.extend_burst();
        }
        if self.has_blocks(seg) {
            self.on_blocks(seg, io);
        }
        if !una.before(self.recover) {
            self.burst = 0;
        } else if self.burst != 0 {
            if exactly {
                self.burst = self.burst.saturating_add(1);
            } else if beyond {
                self.burst = TWO;
            }
            self.extend_burst();
        }
        if self.burst == 0 && io.boards.get(self.board).is_none_or(|b| b.is_empty()) {
            self.events.clear(Events::LOSS.or(Events::REORDER));
            io.boards.give_back(&mut self.board);
        }
    }

    /// True if the segment has options beyond those that every segment has.
    fn has_blocks(&self, seg: &Segment<'_>) -> bool {
        let usual = if self.events.has(Events::TIMESTAMPS) { Timestamps::LEN } else { 0 };
        seg.options.len() > usual.into() && self.events.has(Events::SACK)
    }

    /// Notes what the guest has out of order, and what is lost therefore.
    fn on_blocks<O, N>(&mut self, seg: &Segment<'_>, io: &mut Io<'_, O, N>) -> Blocks {
        let blocks = self.note_blocks(seg, io);
        if blocks != Blocks::New {
            return blocks;
        }
        let Some(board) = io.boards.get(self.board) else { return blocks };
        if let Some(lost) = board.lost(self.gmss.into()) {
            self.rtx_end = self.rtx_end.max(lost);
        }
        self.find_lost_again(false, io);
        let Some(board) = io.boards.get(self.board) else { return blocks };
        let waiting = board.highest_hole().is_some_and(|hole| hole.after(self.rtx_end));
        if !waiting && !board.is_suspicious(self.tx_una) {
            self.arm_rto(io);
        } else if !self.events.has(Events::REORDER) {
            self.events.clear(Events::PROBE);
            self.events.set(Events::REORDER);
            self.rto_at = Deadline::after(io.now, self.guest_rtt.reorder_ms());
        }
        blocks
    }

    /// Notes the blocks of a segment.
    fn note_blocks<O, N>(&mut self, seg: &Segment<'_>, io: &mut Io<'_, O, N>) -> Blocks {
        let mut result = Blocks::Nothing;
        for block in SackBlocks::find(seg.options).as_slice() {
            let (start, end) = (block.left, block.right);
            // At or before the acknowledgement are only reports of what came twice (RFC 2883, 4).
            // Where such a report lies inside the next block it says nothing new.
            if !start.after(self.tx_una) || !start.before(end) || end.after(self.tx_next) {
                continue;
            }
            if self.board == BoardId::NONE {
                self.board = io.boards.lend(self.tx_next);
            }
            let Some(board) = io.boards.get_mut(self.board) else { return Blocks::Unnoted };
            if !self.events.has(Events::LOSS) {
                self.events.set(Events::LOSS);
                self.events.clear(Events::TIMING);
                self.rtx = self.tx_una;
                self.rtx_end = self.tx_una;
                self.recover = self.tx_next;
                self.burst = 0;
            }
            if board.add(start, end, self.rtx) {
                result = Blocks::New;
            } else if result == Blocks::Nothing {
                result = Blocks::Old;
            }
        }
        result
    }

    /// Begins another pass if enough arrived of what was sent after lost retransmissions. With
    /// `late` any is enough.
    fn find_lost_again<O, N>(&mut self, late: bool, io: &mut Io<'_, O, N>) {
        if let Some(board) = io.boards.get_mut(self.board)
            && let Some(end) = board.repeat(self.tx_una, self.rtx, self.gmss.into(), late)
        {
            self.rtx = self.tx_una;
            self.rtx_end = self.rtx_end.max(end);
        }
    }

    /// Everything in flight may be lost, and nothing that the guest reported counts.
    fn enter_loss<O, N>(&mut self, burst: u8, io: &mut Io<'_, O, N>) {
        io.boards.give_back(&mut self.board);
        self.events.set(Events::LOSS);
        self.events.clear(Events::TIMING);
        self.rtx = self.tx_una;
        self.rtx_end = self.tx_una;
        self.recover = self.tx_next;
        self.burst = burst;
        if self.events.any(Events::PROBE.or(Events::REORDER)) {
            // Nothing is left to wait for but the guest.
            self.arm_rto(io);
        }
    }

    /// Sends again so much from what is acknowledged now.
    fn extend_burst(&mut self) {
        let doublings = u32::from(self.burst.saturating_sub(1));
        let len = u32::from(self.gmss).checked_shl(doublings).unwrap_or(u32::MAX).min(MAX_WINDOW);
        let end = self.tx_una.add(len).min(self.recover);
        self.rtx_end = self.rtx_end.max(end);
    }

    /// Sends one frame again, of what lies between `start` and `end`. The peek offset has to be
    /// put back by the caller.
    fn resend<O: FrameOut, N: TcpSockets>(
        &mut self,
        start: Seq,
        end: Seq,
        io: &mut Io<'_, O, N>,
    ) -> Resent {
        // What is sent twice cannot be timed (RFC 6298, 3).
        self.events.clear(Events::TIMING);
        let data_end = self.data_end();
        let mut flags = TcpFlags::ACK.with(TcpFlags::PSH);
        let mut len = 0;
        if start.before(data_end) {
            let want = self.train(end.min(data_end).since(start));
            let Some(buf) = io.out.payload().and_then(|b| b.get_mut(..want as usize)) else {
                self.retry_soon(io);
                return Resent::LinkFull;
            };
            if !io.net.seek(self.sock, start.since(self.tx_base)) {
                return Resent::Broken;
            }
            match io.net.peek(self.sock, start.since(self.tx_base), buf) {
                Peeked::Bytes(n) => len = n,
                // The host lacks memory: the data is there.
                Peeked::Empty => {
                    self.retry_soon(io);
                    return Resent::LinkFull;
                }
                Peeked::End | Peeked::Broken => return Resent::Broken,
            }
        } else {
            flags = TcpFlags::FIN.with(TcpFlags::ACK);
        }
        let (ack, window) = self.piggyback(io);
        if !self.emit(io, flags, start, ack, window, len) {
            io.drop(DropReason::LinkFull);
            self.retry_soon(io);
            return Resent::LinkFull;
        }
        Resent::Sent(u32::try_from(len).unwrap_or(0).max(1))
    }
}

/// Low bits of the time in microseconds.
fn low(now: Now) -> u32 {
    u32::try_from(now.0 & 0xffff_ffff).unwrap_or(0)
}
