//! Segments that overtook others, and what is told about them (RFC 9293, 3.10.7.4; RFC 2018).
//!
//! # Theory of operation
//!
//! What lies inside the window is kept, wherever it lies. Data ahead of a hole goes to its place
//! in the backlog (`flow/ahead.rs`); once the hole is closed it is as if it had come in order. A
//! FIN ahead of a hole is remembered.
//!
//! The guest is told at the end of the batch, if there is a hole then: what was only reordered on
//! its way costs nothing. A guest that permits SACK gets one acknowledgement with blocks, another
//! one duplicate for each segment that came ahead, so that it counts to three (RFC 5681, 3.2).
//! Either would take everything behind the acknowledgement for lost that no block names. So while
//! there is a hole everything before it is acknowledged, also what the peer or even the socket
//! does not have yet.
//!
//! What comes twice is reported as well (RFC 2883), which tells the guest that it repeated
//! something in vain.

use super::{Events, Tcp};
use crate::flow::DropReason;
use crate::translate::{FrameOut, Io, TcpSockets, Verdict};
use crate::wire::{SackBlock, SackBlocks, Segment, Seq, TcpFlags, TcpOptions};

/// Most duplicate acknowledgements for one batch.
const MAX_DUPLICATES: u8 = 8;

impl Tcp {
    /// True if data ahead of a hole waits.
    pub(super) fn has_hole(&self) -> bool {
        self.backlog.has_hole()
    }

    /// True if everything before the hole has to be acknowledged; also the first time after a hole
    /// that the guest knows of was closed, when nothing else says so.
    pub(super) fn hole_counts(&self) -> bool {
        self.has_hole() || self.events.any(Events::HOLE_TOLD.or(Events::FIN_AHEAD))
    }

    /// True if the next acknowledgement has to tell more than a number: it must be a segment
    /// without payload, and leave soon.
    pub(super) fn has_report(&self) -> bool {
        self.ahead != 0 || self.duplicate != SackBlock::default()
    }

    /// A segment beyond what is expected next.
    pub(super) fn on_ahead<O, N>(&mut self, seg: &Segment<'_>, io: &mut Io<'_, O, N>) {
        if seg.seq_len() == 0 {
            return;
        }
        self.ahead = self.ahead.saturating_add(1);
        let data = self.inside(seg.payload, seg.seq, io);
        if !data.is_empty() && !self.keep_ahead(data, seg.seq, io) {
            // No room: the guest will repeat it.
            io.drop(DropReason::OutOfOrder);
            self.events.set(Events::FORCE_ACK);
            return;
        }
        if data.len() == seg.payload.len() {
            self.note_fin(seg, io);
        }
    }

    /// The part of `data` at `seq` that may be accepted: inside the window, and before the end.
    pub(super) fn inside<'a, O, N>(
        &mut self,
        data: &'a [u8],
        seq: Seq,
        io: &mut Io<'_, O, N>,
    ) -> &'a [u8] {
        let mut limit = self.rx_edge;
        if self.events.has(Events::FIN_AHEAD) {
            limit = limit.min(self.rx_fin);
        }
        let room = if seq.before(limit) { limit.since(seq) as usize } else { 0 };
        if room < data.len() {
            // A guest that ignores our window, or a probe of a closed one.
            io.drop(DropReason::BeyondWindow);
            self.events.set(Events::FORCE_ACK);
        }
        data.get(..room.min(data.len())).unwrap_or_default()
    }

    fn keep_ahead<O, N>(&mut self, data: &[u8], seq: Seq, io: &mut Io<'_, O, N>) -> bool {
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let block = SackBlock { left: seq, right: seq.add(len) };
        if self.has_hole() && io.pool.find_range(&mut self.backlog, block).is_some() {
            self.note_duplicate(block);
            return true;
        }
        self.secure(block.right.since(self.rx_taken()), io.pool)
            && io.pool.keep_ahead(&mut self.backlog, self.rx_next, seq, data)
    }

    /// Adds to the queue what a segment in order has made contiguous.
    pub(super) fn close_hole<O, N>(&mut self, io: &mut Io<'_, O, N>) {
        let joined = io.pool.join(&mut self.backlog, self.rx_next);
        self.rx_next = self.rx_next.add(joined);
        if self.events.has(Events::HOLE_TOLD) {
            // The guest waits to hear of it (RFC 5681, 4.2).
            self.events.set(Events::FORCE_ACK);
        }
    }

    /// Remembers where the guest's data ends, if the segment, whose payload was accepted, says so.
    pub(super) fn note_fin<O, N>(&mut self, seg: &Segment<'_>, io: &mut Io<'_, O, N>) {
        if !seg.flags.has(TcpFlags::FIN) || self.events.has(Events::FIN_AHEAD) {
            return;
        }
        let end = seg.seq.add(seg.len());
        // An end before what the guest has sent already is none.
        let beyond = |r: SackBlock| r.right.after(end);
        if end.before(self.rx_next)
            || end.after(self.rx_edge)
            || io.pool.ranges(&self.backlog).any(beyond)
        {
            io.drop(DropReason::BadSegment);
            return;
        }
        self.rx_fin = end;
        self.events.set(Events::FIN_AHEAD);
    }

    /// Accepts the FIN if everything before it is here.
    pub(super) fn reach_fin<O: FrameOut, N: TcpSockets>(
        &mut self,
        io: &mut Io<'_, O, N>,
    ) -> Verdict {
        if !self.events.has(Events::FIN_AHEAD) || self.rx_next != self.rx_fin {
            return Verdict::Keep;
        }
        self.events.clear(Events::FIN_AHEAD);
        self.events.set(Events::GUEST_FIN.or(Events::FORCE_ACK));
        self.rx_next = self.rx_next.add(1);
        // A FIN needs no window, and may be right behind it.
        self.rx_edge = self.rx_edge.max(self.rx_next);
        self.pass_fin_on(io)
    }

    /// Octets that we have already came again. Several in a row are one block.
    pub(super) fn note_duplicate(&mut self, block: SackBlock) {
        if !self.events.has(Events::SACK) || block.left == block.right {
            return;
        }
        let last = self.duplicate;
        let apart = last == SackBlock::default()
            || last.right.before(block.left)
            || last.left.after(block.right);
        self.duplicate = if apart {
            block
        } else {
            SackBlock { left: last.left.min(block.left), right: last.right.max(block.right) }
        };
        self.events.set(Events::FORCE_ACK);
    }

    /// At the end of a batch: a hole that segments of this batch are ahead of is reported.
    pub(super) fn report_hole(&mut self) {
        if self.ahead != 0 && (self.has_hole() || self.events.has(Events::FIN_AHEAD)) {
            self.events.set(Events::FORCE_ACK);
        } else {
            self.ahead = 0;
        }
    }

    /// Sends an acknowledgement without payload, and with all there is to report. `again`: it
    /// acknowledges no more than the one before. False if the link lost it.
    pub(super) fn emit_ack<O: FrameOut, N>(
        &mut self,
        io: &mut Io<'_, O, N>,
        ack: Seq,
        window: u16,
        again: bool,
    ) -> bool {
        let seq = self.acceptable_seq();
        let ahead = std::mem::take(&mut self.ahead);
        if !self.has_hole() && self.duplicate == SackBlock::default() && ahead == 0 {
            return self.emit(io, TcpFlags::ACK, seq, ack, window, 0);
        }
        if self.has_hole() {
            self.events.set(Events::HOLE_TOLD);
        }
        if self.events.has(Events::SACK) {
            let blocks = self.blocks(ack, io);
            let stamps = self.events.has(Events::TIMESTAMPS).then(|| self.timestamps(io.now));
            let options = TcpOptions::segment(stamps, &blocks);
            return self.emit_with(io, TcpFlags::ACK, seq, ack, window, options.as_slice(), 0);
        }
        let sent = self.emit(io, TcpFlags::ACK, seq, ack, window, 0);
        for _ in u8::from(again)..ahead.min(MAX_DUPLICATES) {
            self.emit(io, TcpFlags::ACK, seq, ack, window, 0);
        }
        sent
    }

    /// The blocks to report: what came twice, then what is ahead of holes, the latest first.
    fn blocks<O, N>(&mut self, ack: Seq, io: &mut Io<'_, O, N>) -> SackBlocks {
        let mut blocks = SackBlocks::default();
        let twice = std::mem::take(&mut self.duplicate);
        if twice != SackBlock::default()
            && (!twice.right.after(ack) || io.pool.find_range(&mut self.backlog, twice).is_some())
        {
            blocks.push(twice);
        }
        for range in io.pool.ranges(&self.backlog) {
            // The FIN occupies the number behind the data.
            let fin = self.events.has(Events::FIN_AHEAD) && range.right == self.rx_fin;
            blocks.push(SackBlock { right: range.right.add(u32::from(fin)), ..range });
        }
        blocks
    }
}
