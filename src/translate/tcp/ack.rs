//! What we acknowledge to the guest, and the window we offer.
//!
//! # Acknowledgement
//!
//! For a remote peer, "acknowledged" means that the peer has it: the kernel's count of
//! acknowledged octets decides. That needs a `TCP_INFO` and a look again after half a round trip,
//! and it would starve a bulk transfer, whose socket has to stay full for the kernel to grow its
//! buffer. So everything the socket has taken is acknowledged at once when the peer is local,
//! when either side has sent FIN, and when the path holds more than a small part of the send
//! buffer [TCP-42].
//!
//! Data in the backlog is not acknowledged while the socket makes progress. If it stops, because
//! the peer is paused or far away behind a slow line, the guest would repeat what we have, and in
//! the end give the connection up; so after a while everything is acknowledged, what waits in the
//! socket as well as the backlog, until the peer has caught up. What is left then is a closed
//! window, which is the proper sign of a peer that does not read.
//!
//! While there is a hole in what the guest sent, everything before it is acknowledged
//! (`reassemble.rs`).
//!
//! To a peer on this host or next to it that would be a segment for every request, just before the
//! answer. So a small request is acknowledged with its answer, or after a millisecond; and once
//! that has happened, at once: a guest that sends a request in parts may be waiting for it.
//!
//! # Window
//!
//! The right edge is what the socket has taken plus a promise on the backlog pool. The promise
//! starts small and doubles while the guest uses it up, to at most [`MAX_PROMISE`] and to a
//! fraction of what the pool has left. When the pool has nothing left, the socket's own free
//! space is offered instead, unless that would make the guest send crumbs. The edge never moves
//! back.

use super::{Events, Tcp};
use crate::translate::{Deadline, FrameOut, Io, Now, TcpSockets};
use crate::wire::Seq;

/// Promise of a new connection; more than the largest frame.
const FIRST_PROMISE: u32 = 128 * 1024;

/// Largest promise of one connection.
const MAX_PROMISE: u32 = 1 << 20;

/// Part of the free pool that one connection may be promised.
const POOL_SHARE: usize = 16;

/// A promise below this is not worth a window.
const MIN_PROMISE: u32 = 16 * 1024;

/// Data the guest may have unacknowledged before we ask the kernel how the transfer goes.
const BULK_BYTES: u32 = 64 * 1024;

/// Unacknowledged data that makes it worth asking for the size of the send buffer as well.
const BULK_SAMPLE: u32 = 16 * 1024;

/// A transfer is bulk when the path holds more than one part in this many of the send buffer.
const INTERACTIVE_FACTOR: u64 = 20;

/// Looks at the socket in vain before they are made less often.
const PATIENCE: u8 = 4;

/// How long data may wait in the backlog before it is acknowledged, milliseconds, where the
/// guest is used to immediate answers: its stack repeats what is not acknowledged after some
/// 8 ms (RFC 8985, 7.2).
const PARK_MS: u64 = 2;

/// Looks in vain before data that the peer does not take is acknowledged, where the guest is used
/// to the round-trip time of the peer.
const PARK_TRIES: u8 = 11;

/// Longest time between two looks, milliseconds, unless half a round trip is longer: ten thousand
/// connections whose peers do not read must not keep us busy.
const MAX_LOOK_MS: u64 = 1000;

/// The same where everything is acknowledged, and only an event that got lost is made up for.
const MAX_PARKED_LOOK_MS: u64 = 15_000;

/// How often the time between two looks doubles at most.
const LOOK_DOUBLINGS: u8 = 14;

/// Data of a local flow, up to this, is acknowledged with the answer to it, if that comes soon.
const SMALL: u32 = 16 * 1024;

/// Round-trip times up to this many microseconds mean a peer on this host.
const LOCAL_RTT_US: u32 = 10;

impl Tcp {
    /// Acknowledges after a batch of the guest's segments, if there is reason to.
    pub(super) fn acknowledge_batch<O: FrameOut, N: TcpSockets>(&mut self, io: &mut Io<'_, O, N>) {
        let owed = if self.owes() { self.rx_ackable().since(self.rx_acked) } else { 0 };
        if self.events.has(Events::LOCAL)
            && !self.events.any(Events::FORCE_ACK.or(Events::QUICK_ACK))
            && !self.is_closing()
            && owed < SMALL
        {
            // The answer to a request on this host will be here at once, and carry it.
            if owed != 0 && !self.ack_at.is_armed() {
                self.ack_at = Deadline::after(io.now, 1);
            }
        } else if self.events.any(Events::FORCE_ACK.or(Events::LOCAL)) || self.is_closing() {
            if owed != 0 || self.events.has(Events::FORCE_ACK) {
                self.acknowledge(io);
            }
        } else if owed >= BULK_BYTES || (owed != 0 && self.events.has(Events::BULK)) {
            self.acknowledge(io);
        } else if owed != 0 && !self.ack_at.is_armed() {
            self.arm_ack(io);
        }
        if !self.backlog.is_empty() && !self.ack_at.is_armed() {
            // The socket took nothing at all.
            self.arm_ack(io);
        }
    }

    /// Data of the guest came.
    pub(super) fn note_request(&mut self, now: Now) {
        self.asks = self.asks.saturating_add(1);
        self.asked = low(now);
    }

    /// Data of the peer goes to the guest: an answer to one segment, and soon, is worth waiting
    /// for again.
    pub(super) fn note_answer(&mut self, now: Now) {
        if self.asks == 1 && low(now).wrapping_sub(self.asked) <= 1 {
            self.events.clear(Events::QUICK_ACK);
        }
        self.asks = 0;
    }

    /// Re-evaluates, and sends an acknowledgement if anything changed or one is forced.
    pub(super) fn acknowledge<O: FrameOut, N: TcpSockets>(&mut self, io: &mut Io<'_, O, N>) {
        let (acked, edge) = (self.rx_acked, self.rx_edge);
        let (ack, mut window) = self.evaluate(io);
        let moved = self.rx_edge.since(edge);
        let was_closed = edge.since(self.rx_next) < u32::from(self.gmss);
        // A window that grew by little is not worth a segment of its own (RFC 9293, 3.8.6.2.2).
        let worth = !self.has_hole() && (moved >= FIRST_PROMISE / 2 || (was_closed && moved != 0));
        if ack == acked && !worth {
            // Duplicates count as such only with the same window (RFC 5681, 2), and if nothing
            // is sent, nothing is offered.
            self.rx_edge = edge;
            window = self.window_field();
        }
        if ack != acked || worth || self.events.has(Events::FORCE_ACK) {
            self.events.clear(Events::FORCE_ACK);
            if !self.emit_ack(io, ack, window, ack == acked) {
                // The link lost it: try again before the guest has to.
                self.events.set(Events::FORCE_ACK);
                self.arm_ack(io);
            }
        }
    }

    /// Numbers for a segment that leaves anyway [TCP-48].
    pub(super) fn piggyback<O, N: TcpSockets>(&mut self, io: &mut Io<'_, O, N>) -> (Seq, u16) {
        if !self.owes() && !self.events.has(Events::FORCE_ACK) {
            return (self.rx_acked, self.window_field());
        }
        if !self.has_report() {
            self.events.clear(Events::FORCE_ACK);
        }
        self.evaluate(io)
    }

    /// The window of our SYN,ACK, which is never scaled (RFC 7323, 2.2).
    pub(super) fn first_window<O, N: TcpSockets>(&mut self, io: &mut Io<'_, O, N>) -> u16 {
        self.open_window(io);
        let bytes = self.rx_edge.since(self.rx_next);
        u16::try_from(bytes).unwrap_or(u16::MAX)
    }

    /// Decides acknowledgement number and window, and arms or stops the timer that looks again.
    fn evaluate<O, N: TcpSockets>(&mut self, io: &mut Io<'_, O, N>) -> (Seq, u16) {
        let taken = self.rx_ackable();
        let acked = self.rx_acked;
        let ack = self.delivered(taken, io).max(acked);
        self.rx_acked = ack;
        if !self.has_hole() {
            self.events.clear(Events::HOLE_TOLD);
        }
        self.open_window(io);
        // Only what the peer does is progress: an edge that could move may be taken back, and
        // would move again at every look.
        if ack != acked {
            self.ack_tries = 0;
        }
        // A closed window with an empty backlog: the socket is full and will not tell when it has
        // room, because it was never offered too much.
        let starved = self.backlog.is_empty()
            && !self.has_hole()
            && !self.events.has(Events::GUEST_FIN)
            && self.rx_edge.since(self.rx_next) < u32::from(self.gmss);
        self.ack_at = Deadline::NEVER;
        if ack.before(taken) || starved {
            self.arm_ack(io);
        }
        if !self.backlog.is_empty() {
            if !self.events.has(Events::PARKED) && self.follows_socket() {
                self.ack_at = self.ack_at.min(Deadline::after(io.now, PARK_MS));
            } else if !self.ack_at.is_armed() {
                self.arm_ack(io);
            }
        }
        if self.events.has(Events::LINK_FULL) {
            self.ack_at = self.ack_at.min(self.link_retry_at(io));
        }
        (ack, self.window_field())
    }

    /// How far the guest's data counts as delivered.
    fn delivered<O, N: TcpSockets>(&mut self, taken: Seq, io: &mut Io<'_, O, N>) -> Seq {
        let parked = self.events.has(Events::PARKED);
        let all = self.events.has(Events::LOCAL) || self.hole_counts() || self.is_closing();
        if all || (parked && !self.backlog.is_empty()) || !self.owes() {
            return taken;
        }
        let Some(view) = io.net.view(self.sock) else { return taken };
        self.rtt_us = view.rtt_us;
        if view.min_rtt_us.is_some_and(|rtt| rtt <= LOCAL_RTT_US) {
            self.events.set(Events::LOCAL);
            return taken;
        }
        let (Some(acked), Some(rate)) = (view.bytes_acked, view.delivery_rate) else {
            return taken;
        };
        if self.events.has(Events::BULK) || taken.since(self.rx_acked) >= BULK_SAMPLE {
            let path = u64::from(view.rtt_us).saturating_mul(rate) / 1_000_000;
            let buffer = u64::from(io.net.send_buffer(self.sock));
            if path.saturating_mul(INTERACTIVE_FACTOR) >= buffer {
                self.events.set(Events::BULK);
            } else {
                self.events.clear(Events::BULK);
            }
        }
        if self.events.has(Events::BULK) {
            return taken;
        }
        // The count is of 64 bits, the sequence number of 32: only the low half matters.
        let low = u32::try_from(acked & 0xffff_ffff).unwrap_or(0);
        let delivered = self.rx_base.add(low).min(taken);
        if parked {
            // Many looks in vain: it begins now.
            if delivered.before(self.rx_acked) || self.ack_tries >= PARK_TRIES {
                return taken;
            }
            // The peer has caught up with what was acknowledged in advance.
            self.events.clear(Events::PARKED);
        }
        delivered
    }

    /// Moves the right edge as far as socket and pool allow.
    fn open_window<O, N: TcpSockets>(&mut self, io: &mut Io<'_, O, N>) {
        let taken = self.rx_taken();
        // While data waits, the edge waits: the promise is in use.
        if self.backlog.is_empty() && !self.events.has(Events::GUEST_FIN) {
            let left = self.rx_edge.since(self.rx_next);
            let mut target = FIRST_PROMISE << self.growth;
            if left < target / 2 && target < MAX_PROMISE && self.rx_acked != self.rx_edge {
                self.growth = self.growth.saturating_add(1);
                target = FIRST_PROMISE << self.growth;
            }
            if !self.events.has(Events::SCALED) {
                // The field cannot express more.
                target = target.min(u16::MAX.into());
            }
            let share = io.pool.available().checked_div(POOL_SHARE).unwrap_or(0);
            let mut grant = target.min(u32::try_from(share).unwrap_or(u32::MAX));
            if grant < MIN_PROMISE {
                grant = 0;
            }
            let outstanding = self.rx_edge.since(taken);
            if grant < outstanding || !io.pool.promise(self.promised, grant) {
                grant = outstanding;
                io.pool.promise(self.promised, grant.min(self.promised));
                self.promised = grant.min(self.promised);
            } else {
                self.promised = grant;
            }
            if grant < MIN_PROMISE {
                // Nothing to promise: offer what the socket itself can take.
                let free = io.net.free_space(self.sock).min(MAX_PROMISE);
                if self.is_worth_a_window(free, io) {
                    grant = grant.max(free);
                }
            }
            self.move_edge(taken.add(grant));
        } else if self.events.has(Events::GUEST_FIN) {
            // Nothing can come any more.
            let need = self.backlog.len().min(self.promised);
            io.pool.promise(self.promised, need);
            self.promised = need;
        }
    }

    /// True if so much room in the socket is worth a window, and not the end of large segments: room
    /// for one segment, or half of what the send buffer holds (RFC 9293, 3.8.6.2.2) [TCP-54].
    fn is_worth_a_window<O, N: TcpSockets>(&self, free: u32, io: &mut Io<'_, O, N>) -> bool {
        // The window is rounded down. The kernel's own overhead takes half of the buffer.
        let segment = u32::from(self.gmss).saturating_add(1 << self.ows);
        free >= segment || free >= io.net.send_buffer(self.sock) / 4
    }

    /// Sets the right edge as the scaled window field can express it, never back.
    fn move_edge(&mut self, edge: Seq) {
        let ack = self.rx_acked;
        let shift = if self.events.has(Events::ESTABLISHED) { self.ows } else { 0 };
        let units = (edge.since(ack) >> shift).min(u32::from(u16::MAX));
        let edge = ack.add(units << shift);
        if edge.after(self.rx_edge) {
            self.rx_edge = edge;
        }
    }

    /// The window field for the current right edge.
    pub(super) fn window_field(&self) -> u16 {
        let bytes = self.rx_edge.since(self.rx_acked);
        u16::try_from(bytes >> self.ows).unwrap_or(u16::MAX)
    }

    /// True if something could be acknowledged that was not.
    fn owes(&self) -> bool {
        self.rx_acked.before(self.rx_ackable())
    }

    /// True if what the socket takes is acknowledged at once.
    fn follows_socket(&self) -> bool {
        self.events.any(Events::LOCAL.or(Events::BULK)) || self.is_closing()
    }

    fn is_closing(&self) -> bool {
        self.events.any(Events::GUEST_FIN.or(Events::FIN_SENT))
    }

    /// Looks again after half a round trip [TCP-47], and less and less often if the peer makes no
    /// progress.
    fn arm_ack<O, N>(&mut self, io: &Io<'_, O, N>) {
        let ms = u64::from(self.rtt_us).div_ceil(2000).clamp(1, 1638);
        let doublings = self.ack_tries.saturating_sub(PATIENCE).min(LOOK_DOUBLINGS);
        // A backlog means that the socket will tell when it has room.
        let told = self.events.has(Events::PARKED) && !self.backlog.is_empty();
        let most = if told { MAX_PARKED_LOOK_MS } else { MAX_LOOK_MS };
        let slow = (ms << doublings).min(most).max(ms);
        self.ack_at = Deadline::after(io.now, slow);
    }

    /// The time to look again has come.
    pub(super) fn on_ack_timer<O: FrameOut, N: TcpSockets>(&mut self, io: &mut Io<'_, O, N>) {
        self.ack_at = Deadline::NEVER;
        self.ack_tries = self.ack_tries.saturating_add(1);
        let waits = !self.backlog.is_empty();
        if (waits && self.follows_socket())
            || (self.ack_tries >= PARK_TRIES && (waits || self.owes()))
        {
            self.events.set(Events::PARKED);
        }
        self.acknowledge(io);
        if self.events.has(Events::LOCAL) {
            // The guest may be waiting for us before it sends the rest of a request.
            self.events.set(Events::QUICK_ACK);
        }
    }
}

/// Low bits of the time in milliseconds: enough to tell short intervals.
fn low(now: Now) -> u16 {
    u16::try_from(now.ms() & 0xffff).unwrap_or(0)
}
