//! Segments of the guest, on an established connection (RFC 9293, 3.10.7.4).

use std::io::IoSlice;

use super::{Events, Tcp};
use crate::flow::{DropReason, Pool};
use crate::translate::{FrameOut, Io, Sent, TcpSockets, Verdict};
use crate::wire::{SackBlock, Segment, TcpFlags};

/// Chunks of backlog handed to the socket at a time.
const DRAIN_SLICES: usize = 64;

/// Longest payload that is gathered: a copy costs less than a call for each up to here.
const SHORT: usize = 2048;

/// What is gathered at most before it is handed to the socket.
const GATHERED: u32 = 64 * 1024;

impl Tcp {
    /// A segment from the guest. Acknowledging it and sending on are left to
    /// [`Tcp::on_batch_end`], which must follow once per batch of segments.
    pub fn on_segment<O: FrameOut, N: TcpSockets>(
        &mut self,
        seg: &Segment<'_>,
        io: &mut Io<'_, O, N>,
    ) -> Verdict {
        self.events.set(Events::GUEST_HEARD.or(Events::ACTIVE));
        if self.events.has(Events::ESTABLISHED) {
            self.on_segment_established(seg, io)
        } else if self.events.has(Events::SYN_SENT) {
            self.on_segment_syn_sent(seg, io)
        } else {
            self.on_segment_connecting(seg, io)
        }
    }

    /// The end of a batch: acknowledges, and sends what new windows allow.
    pub fn on_batch_end<O: FrameOut, N: TcpSockets>(&mut self, io: &mut Io<'_, O, N>) -> Verdict {
        if !self.events.has(Events::ESTABLISHED) {
            return Verdict::Keep;
        }
        let verdict = self.flush(io);
        if verdict != Verdict::Keep {
            return verdict;
        }
        if !self.discard(io, false) {
            return self.reset(io);
        }
        if self.events.has(Events::READ_CLOSED) && !self.events.has(Events::FIN_SENT) {
            // Without peek offsets, the end shows once everything before it is acknowledged.
            self.events.set(Events::READABLE);
        }
        self.report_hole();
        let verdict = self.push(io);
        if verdict != Verdict::Keep {
            return verdict;
        }
        self.acknowledge_batch(io);
        self.finished(io)
    }

    /// Hands the socket what was gathered, if anything.
    fn flush<O: FrameOut, N: TcpSockets>(&mut self, io: &mut Io<'_, O, N>) -> Verdict {
        if !self.events.has(Events::GATHER) {
            return Verdict::Keep;
        }
        self.events.clear(Events::GATHER);
        if self.backlog.is_empty() { Verdict::Keep } else { self.drain(io) }
    }

    /// The socket can take more: hands it the backlog.
    pub(super) fn drain<O: FrameOut, N: TcpSockets>(&mut self, io: &mut Io<'_, O, N>) -> Verdict {
        while !self.backlog.is_empty() {
            let mut slices = [IoSlice::new(&[]); DRAIN_SLICES];
            let filled = io.pool.slices(&self.backlog, &mut slices);
            let slices = slices.get(..filled).unwrap_or_default();
            let offered: usize = slices.iter().map(|s| s.len()).sum();
            match io.net.send(self.sock, slices) {
                Sent::Bytes(n) => {
                    io.pool.consume(&mut self.backlog, n);
                    if n < offered {
                        return Verdict::Keep;
                    }
                }
                Sent::Broken => return self.reset(io),
            }
        }
        self.events.clear(Events::PARKED);
        self.pass_fin_on(io)
    }

    pub(super) fn on_segment_established<O: FrameOut, N: TcpSockets>(
        &mut self,
        seg: &Segment<'_>,
        io: &mut Io<'_, O, N>,
    ) -> Verdict {
        if seg.flags.has(TcpFlags::RST) {
            return self.on_reset(seg, io);
        }
        if seg.flags.has(TcpFlags::SYN) {
            // A restarted guest: our challenge makes it reset the old connection (RFC 5961, 4).
            self.events.set(Events::FORCE_ACK);
            return Verdict::Keep;
        }
        if !seg.flags.has(TcpFlags::ACK) {
            io.drop(DropReason::BadSegment);
            return Verdict::Keep;
        }
        if self.is_outdated(seg) {
            io.drop(DropReason::BadSegment);
            if seg.seq_len() != 0 || seg.seq != self.rx_next {
                self.events.set(Events::FORCE_ACK);
            }
            return Verdict::Keep;
        }
        if let Some(verdict) = self.on_ack(seg, io) {
            return verdict;
        }
        self.take_timestamp(seg, self.rx_acked);
        if self.events.has(Events::GUEST_FIN) {
            // Nothing can follow the FIN. A repeated one was not acknowledged in time, an old
            // number is a keepalive.
            if seg.seq_len() != 0 || seg.seq != self.rx_next {
                self.events.set(Events::FORCE_ACK);
            }
            return Verdict::Keep;
        }
        self.on_payload(seg, io)
    }

    /// RFC 5961, 3.2: only the exact sequence number resets, others inside the window are
    /// challenged.
    fn on_reset<O, N>(&mut self, seg: &Segment<'_>, io: &mut Io<'_, O, N>) -> Verdict {
        // Its answer to a segment of ours carries the number we acknowledged last.
        if seg.seq == self.rx_next || seg.seq == self.rx_acked {
            return Verdict::Abort;
        }
        if seg.seq.after(self.rx_next) && seg.seq.before(self.rx_edge) {
            self.events.set(Events::FORCE_ACK);
        } else {
            io.drop(DropReason::BadSegment);
        }
        Verdict::Keep
    }

    fn on_payload<O: FrameOut, N: TcpSockets>(
        &mut self,
        seg: &Segment<'_>,
        io: &mut Io<'_, O, N>,
    ) -> Verdict {
        if seg.seq.after(self.rx_next) {
            self.on_ahead(seg, io);
            return Verdict::Keep;
        }
        let old = self.rx_next.since(seg.seq);
        if old != 0 {
            // Something we have already, a keepalive or a window probe: say so [TCP-49, TCP-71].
            self.events.set(Events::FORCE_ACK);
            let again = seg.seq.add(old.min(seg.len()));
            self.note_duplicate(SackBlock { left: seg.seq, right: again });
        }
        let fresh = seg.payload.get(old as usize..).unwrap_or_default();
        let inside = self.inside(fresh, self.rx_next, io);
        if !inside.is_empty() {
            let verdict = self.deliver(inside, io);
            if verdict != Verdict::Keep {
                return verdict;
            }
        }
        // A FIN counts only with everything before it; this also holds for one repeated
        // together with data we have [TCP-76].
        if inside.len() == fresh.len() {
            self.note_fin(seg, io);
        }
        self.reach_fin(io)
    }

    /// Hands payload to the socket, the rest to the backlog.
    fn deliver<O: FrameOut, N: TcpSockets>(
        &mut self,
        data: &[u8],
        io: &mut Io<'_, O, N>,
    ) -> Verdict {
        let gathers = self.may_gather(data, io.pool);
        if !gathers {
            let verdict = self.flush(io);
            if verdict != Verdict::Keep {
                return verdict;
            }
        }
        let direct = !gathers && self.backlog.is_empty();
        let sent = if direct {
            match io.net.send(self.sock, &[IoSlice::new(data)]) {
                Sent::Bytes(n) => n,
                Sent::Broken => return self.reset(io),
            }
        } else {
            0
        };
        if direct && sent == data.len() {
            self.events.set(Events::GATHER);
        }
        let hole = self.has_hole();
        if hole {
            io.pool.pass(&mut self.backlog, sent);
        }
        let rest = data.get(sent..).unwrap_or_default();
        let kept = if rest.is_empty() { 0 } else { self.keep(rest, io.pool) };
        if kept < rest.len() {
            // Only a window that was not backed by a promise can come here.
            io.drop(DropReason::BeyondWindow);
            self.events.set(Events::FORCE_ACK);
        }
        self.note_request(io.now);
        let taken = u32::try_from(sent.saturating_add(kept)).unwrap_or(0);
        self.rx_next = self.rx_next.add(taken);
        if hole {
            self.close_hole(io);
            if direct && rest.is_empty() {
                return self.drain(io);
            }
        }
        Verdict::Keep
    }

    /// True if `data` can wait for the end of the batch.
    fn may_gather(&mut self, data: &[u8], pool: &mut Pool) -> bool {
        self.events.has(Events::GATHER)
            && !self.has_hole()
            && data.len() <= SHORT
            && self.backlog.len() < GATHERED
            && self.secure_room(data, pool)
    }

    /// Sees to it that the backlog has room for `data`, as [`Tcp::secure`].
    fn secure_room(&mut self, data: &[u8], pool: &mut Pool) -> bool {
        let more = u32::try_from(data.len()).unwrap_or(u32::MAX);
        self.secure(self.backlog.len().saturating_add(more), pool)
    }

    /// Appends to the backlog what was promised; returns how much.
    fn keep(&mut self, data: &[u8], pool: &mut Pool) -> usize {
        self.secure_room(data, pool);
        let room = self.promised.saturating_sub(self.backlog.len()) as usize;
        pool.append(&mut self.backlog, data.get(..room.min(data.len())).unwrap_or_default())
    }

    /// Sees to it that `need` bytes behind what the socket has taken are promised. False if they
    /// are not.
    pub(super) fn secure(&mut self, need: u32, pool: &mut Pool) -> bool {
        // A window that was not backed by a promise, because the socket had said it could take
        // as much, must not use what others were promised.
        if need > self.promised && pool.promise(self.promised, need) {
            self.promised = need;
        }
        need <= self.promised
    }

    /// Shuts the write side of the socket once everything before the guest's FIN is in it
    /// [TCP-77].
    pub(super) fn pass_fin_on<O: FrameOut, N: TcpSockets>(
        &mut self,
        io: &mut Io<'_, O, N>,
    ) -> Verdict {
        if self.events.has(Events::GUEST_FIN)
            && !self.events.has(Events::PEER_SHUT)
            && self.backlog.is_empty()
        {
            if !io.net.shutdown(self.sock) {
                return self.reset(io);
            }
            self.events.set(Events::PEER_SHUT.or(Events::FORCE_ACK));
        }
        Verdict::Keep
    }

    /// True end: both FINs passed on, ours acknowledged [TCP-80].
    pub(super) fn finished<O, N: TcpSockets>(&mut self, io: &mut Io<'_, O, N>) -> Verdict {
        if self.events.has(Events::PEER_SHUT.or(Events::FIN_ACKED)) {
            // Closing with unread data would turn the end into a reset.
            self.discard(io, true);
            return Verdict::Close;
        }
        Verdict::Keep
    }
}
