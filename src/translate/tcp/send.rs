//! New data of the peer, towards the guest. What was sent and may be lost is in `recover.rs`.

use super::{Events, Tcp};
use crate::flow::DropReason;
use crate::translate::retry;
use crate::translate::{Deadline, FrameOut, Io, Peeked, TcpSockets, Verdict};
use crate::wire::{Seq, TcpFlags};

/// Longest payload of one frame: 64 KiB less the longest headers, timestamps among them.
const MAX_PAYLOAD: u32 = 65_463;

/// Bytes moved to the guest per visit, so that one flow cannot starve the others.
const BUDGET: u32 = 128 * 1024;

impl Tcp {
    /// Sends what the peer sent and the guest's window allows; what is lost comes first.
    pub(super) fn push<O: FrameOut, N: TcpSockets>(&mut self, io: &mut Io<'_, O, N>) -> Verdict {
        self.events.clear(Events::LINK_FULL);
        let mut budget = BUDGET;
        if self.events.has(Events::LOSS) {
            let verdict = self.repair(&mut budget, io);
            if verdict != Verdict::Keep || self.events.has(Events::LINK_FULL) {
                return verdict;
            }
        }
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
                        io.drop(DropReason::LinkFull);
                        if !self.seek_new(io) {
                            return self.reset(io);
                        }
                        self.events.set(Events::READABLE);
                        self.retry_soon(io);
                        break;
                    }
                    self.link_tries = 0;
                    self.note_answer(io.now);
                    self.tx_next = self.tx_next.add(n32);
                    self.time_segment(io.now);
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
                Peeked::End => {
                    if !self.send_fin(io) {
                        break;
                    }
                }
                Peeked::Broken => return self.reset(io),
            }
        }
        Verdict::Keep
    }

    /// True if the flow has more for the guest and stopped only to let others have their turn:
    /// the caller comes back with [`Tcp::on_socket`] and nothing ready.
    pub fn wants_push(&self) -> bool {
        if !self.events.has(Events::ESTABLISHED) || self.events.has(Events::LINK_FULL) {
            return false;
        }
        let new = self.events.has(Events::READABLE)
            && !self.events.has(Events::FIN_SENT)
            && self.gwin > self.in_flight();
        new || self.wants_repair()
    }

    /// True if the link did not take what the flow has for the guest.
    pub fn waits_for_link(&self) -> bool {
        self.events.has(Events::LINK_FULL)
    }

    /// The link is full. Coming back at once would spin, and waiting for the retransmission timer
    /// would be long.
    pub(super) fn retry_soon<O, N>(&mut self, io: &Io<'_, O, N>) {
        self.events.set(Events::LINK_FULL);
        // A link that stays full, or is down, ends the flow like a guest that does not answer.
        if !self.rto_at.is_armed() {
            self.arm_rto(io);
        }
        self.ack_at = self.ack_at.min(self.link_retry_at(io));
    }

    /// When to see whether a full link has made room: soon at first, then less and less often.
    pub(super) fn link_retry_at<O, N>(&self, io: &Io<'_, O, N>) -> Deadline {
        Deadline::after(io.now, retry::FIRST_MS << self.link_tries.min(retry::DOUBLINGS))
    }

    /// True if the end may be in the queue, behind what the guest has acknowledged.
    fn hides_end(&self) -> bool {
        self.events.has(Events::READ_CLOSED)
            && self.in_flight() == 0
            && self.tx_next != self.tx_base
    }

    /// Whole segments as far as they go, at most one frame's worth.
    pub(super) fn train(&self, room: u32) -> u32 {
        let most = room.min(MAX_PAYLOAD);
        let mss = u32::from(self.gmss);
        match most.checked_div(mss) {
            None | Some(0) => most,
            Some(n) => n.saturating_mul(mss),
        }
    }

    /// False if the link could not take it: tried again in a moment, like data.
    fn send_fin<O: FrameOut, N: TcpSockets>(&mut self, io: &mut Io<'_, O, N>) -> bool {
        let (ack, window) = self.piggyback(io);
        let flags = TcpFlags::FIN.with(TcpFlags::ACK);
        let seq = self.tx_next;
        if !self.emit(io, flags, seq, ack, window, 0) {
            io.drop(crate::flow::DropReason::LinkFull);
            self.retry_soon(io);
            return false;
        }
        self.events.set(Events::FIN_SENT);
        self.events.clear(Events::READABLE);
        self.tx_next = self.tx_next.add(1);
        self.arm_rto(io);
        true
    }

    /// End of the data in flight: what follows it is our FIN, if that was sent.
    pub(super) fn data_end(&self) -> Seq {
        self.tx_next.sub(u32::from(self.events.has(Events::FIN_SENT)))
    }

    /// Puts the peek offset behind the data in flight. False if the socket is broken.
    pub(super) fn seek_new<O, N: TcpSockets>(&mut self, io: &mut Io<'_, O, N>) -> bool {
        io.net.seek(self.sock, self.data_end().since(self.tx_base))
    }
}
