//! TCP: one guest connection to one host socket.
//!
//! # Theory of operation
//!
//! A [`Tcp`] terminates the guest's connection and mirrors it on a kernel socket. It is not an
//! RFC state machine but a set of observed [`Events`], because what is to be done depends on what
//! was seen and not on who closed first [TCP-11].
//!
//! **Guest to peer.** Payload goes straight from the frame to the socket, but for short segments
//! that come in one batch: after the first they go together. What the socket does not take waits
//! in the flow's backlog, and the window we offer is a promise on the backlog
//! pool, so nothing inside it is ever dropped (`receive.rs`, `ack.rs`). While data waits, the
//! right edge stays where it is: the kernel sees a full socket and grows its buffer, and once it
//! has drained, most data passes without the detour.
//!
//! Segments may overtake each other. What is ahead of a hole is kept as well, and reported
//! (`reassemble.rs`).
//!
//! *Invariant:* `rx_next - backlog - (FIN not passed on)` is what the socket has taken. We do not
//! acknowledge more, except when the backlog has to wait so long that the guest would repeat it,
//! or when there is a hole behind it.
//!
//! **Acknowledging.** For a remote peer an acknowledgement means that the *peer* has the data;
//! for local peers, and for bulk transfers, that the socket has it (`ack.rs`).
//!
//! **Peer to guest.** Data is peeked from the socket directly into the link's buffer and removed
//! only once the guest has acknowledged it, so the kernel's receive queue is our retransmission
//! buffer (`send.rs`).
//!
//! *Invariant:* the socket's queue begins at `tx_base`; its peek offset is `tx_next - tx_base`,
//! except while something is sent again. `tx_next` never moves back.
//! Removal lags behind `tx_una` to save system calls and is made up for before the socket is
//! closed, since closing with unread data would send RST.
//!
//! **Loss.** `recover.rs` decides what is lost and sends it again, with the help of
//! `scoreboard.rs` if the guest tells what it has, and `rtt.rs` knows how long to wait.
//!
//! **Code points.** What the guest marks its packets with, the socket's carry as well, and the other
//! way round as far as the kernel tells (`dscp.rs`).
//!
//! **Timers.** Two independent deadlines: one to look again whether more can be acknowledged,
//! one to retransmit or to probe (`timer.rs`) [TCP-74].

mod ack;
mod dscp;
mod events;
mod open;
mod reassemble;
mod receive;
mod recover;
mod reset;
mod rtt;
mod scoreboard;
mod segment;
mod send;
mod stamps;
mod timer;

pub use events::Events;
pub use open::{Opened, Origin, mss_to_offer};
pub use reset::answer_stray;
pub use rtt::Timeouts;
pub use scoreboard::Boards;
pub use timer::{INACTIVITY_SCAN_MS, KEEPALIVE_SCAN_MS, SocketReady};

use crate::flow::{Backlog, Pool, Tuple};
use crate::wire::{Endpoint, SackBlock, Seq, proto};

use rtt::Rtt;
use scoreboard::BoardId;

use super::{Deadline, Io, SockId, TcpSockets, Verdict};

/// Window scale we offer: windows up to 16 MiB [TCP-30].
const OUR_SCALE: u8 = 8;

/// The guest's segment size when it names none (RFC 9293, 3.7.1).
const DEFAULT_MSS: u16 = 536;

/// Smallest segment size we honour; smaller ones would be an attack [TCP-32].
const MIN_MSS: u16 = 48;

/// Acknowledged bytes that may stay in the socket's queue before they are removed. Little: what
/// stays closes the window towards the peer, and hides progress from the kernel's buffer tuning.
const LAZY_BYTES: u32 = 1024;

/// Batches of acknowledgements before the same: even one byte occupies most of a kilobyte.
const LAZY_BATCHES: u8 = 16;

/// A TCP connection between the guest and a host socket.
#[derive(Debug)]
pub struct Tcp {
    /// The party we impersonate.
    pub ours: Endpoint,
    /// The guest's end.
    pub guest: Endpoint,
    /// The host socket.
    pub sock: SockId,
    /// What has happened so far.
    pub events: Events,

    /// Next sequence number to send to the guest.
    tx_next: Seq,
    /// Oldest one not acknowledged by the guest.
    tx_una: Seq,
    /// What the head of the socket's receive queue stands for.
    tx_base: Seq,
    /// Window of the guest beyond `tx_una`, bytes.
    gwin: u32,
    /// Where retransmission goes on, and how far it goes: what lies between is lost, except for
    /// what the board says.
    rtx: Seq,
    rtx_end: Seq,
    /// What was to be sent next when the loss was noticed.
    recover: Seq,
    /// Round-trip time to the guest.
    guest_rtt: Rtt,
    /// End of the segment whose round trip is measured, and when it was sent: low bits of
    /// microseconds.
    timed: Seq,
    timed_at: u32,
    /// What the guest has out of order, while it has anything.
    board: BoardId,

    /// Next sequence number expected from the guest: all before it are in socket or backlog.
    rx_next: Seq,
    /// Acknowledgement number last sent.
    rx_acked: Seq,
    /// Right edge of the window last sent.
    rx_edge: Seq,
    /// Plus the kernel's count of acknowledged octets: a guest sequence number [TCP-40].
    rx_base: Seq,
    /// Bytes charged to the pool for the window offered.
    promised: u32,
    /// Where the guest's data ends, once that is known.
    rx_fin: Seq,
    /// Octets that came twice and that the guest has not been told about.
    duplicate: SackBlock,
    /// Guest data the socket has not taken yet, and what is ahead of a hole.
    backlog: Backlog,

    /// When to see whether more can be acknowledged.
    ack_at: Deadline,
    /// When to retransmit or probe.
    rto_at: Deadline,

    /// Round-trip time to the peer, microseconds, as last seen.
    rtt_us: u32,
    /// Payload of a segment to the guest: its maximum segment size less the options that we put
    /// on every segment (RFC 9293, 3.7.1).
    gmss: u16,
    /// The guest's latest timestamp that we owe it an echo of (TS.Recent of RFC 7323, 4.3).
    ts_recent: u32,
    /// What our timestamps are ahead of the clock.
    ts_offset: u32,
    /// Shift of the guest's windows.
    gws: u8,
    /// Shift of ours.
    ows: u8,
    /// Looks in a row that found nothing new to acknowledge.
    ack_tries: u8,
    /// Timeouts in a row without progress.
    retries: u8,
    /// Doublings of the timeout: not taken back before a round trip was measured (RFC 6298, 5.5).
    backoff: u8,
    /// While we do not know what the guest has: doublings of what an acknowledgement of part of
    /// it has sent again, plus one.
    burst: u8,
    /// Duplicate acknowledgements in a row.
    dup_acks: u8,
    /// Segments of this batch that were ahead of a hole.
    ahead: u8,
    /// Segments with data from the guest since the peer's last answer.
    asks: u8,
    /// When the last of them came: low bits of milliseconds.
    asked: u16,
    /// Doublings of the window granted so far.
    growth: u8,
    /// Batches of acknowledgements since something was removed from the socket's queue.
    undiscarded: u8,
    /// Code point of the guest's packets, which those of the socket carry as well.
    guest_tos: u8,
    /// Code point of the peer's, which ours to the guest carry.
    peer_tos: u8,
    /// Attempts in a row that met a full link.
    link_tries: u8,
}

const _: () = assert!(size_of::<Tcp>() <= 192);

impl Tcp {
    /// The flow's key in the index.
    pub fn tuple(&self) -> Tuple {
        Tuple { protocol: proto::TCP, ours: self.ours, guest: self.guest }
    }

    /// The earlier of the flow's deadlines.
    pub fn deadline(&self) -> Deadline {
        self.ack_at.min(self.rto_at)
    }

    /// Gives back what the flow holds: its socket, its part of the pool, and its board.
    pub fn release<N: TcpSockets>(
        &mut self,
        net: &mut N,
        pool: &mut Pool,
        boards: &mut Boards,
        how: Verdict,
    ) {
        boards.give_back(&mut self.board);
        if how == Verdict::Abort {
            net.abort(self.sock);
        } else {
            net.close(self.sock);
        }
        pool.clear(&mut self.backlog);
        pool.promise(self.promised, 0);
        self.promised = 0;
    }

    /// All the guest's data, as a sequence number, and its FIN if that was passed on.
    fn rx_end(&self) -> Seq {
        let fin = self.events.has(Events::GUEST_FIN) && !self.events.has(Events::PEER_SHUT);
        self.rx_next.sub(u32::from(fin))
    }

    /// What the socket has taken, as a guest sequence number.
    fn rx_taken(&self) -> Seq {
        self.rx_end().sub(self.backlog.len())
    }

    /// What may be acknowledged at most.
    fn rx_ackable(&self) -> Seq {
        let all = self.events.has(Events::PARKED) || self.hole_counts();
        if all { self.rx_end() } else { self.rx_taken() }
    }

    /// Bytes (and FIN) the guest has not acknowledged.
    fn in_flight(&self) -> u32 {
        self.tx_next.since(self.tx_una)
    }

    /// Removes what the guest acknowledged from the socket's queue, at once if `all`.
    fn discard<O, N: TcpSockets>(&mut self, io: &mut Io<'_, O, N>, all: bool) -> bool {
        let fin = self.events.has(Events::FIN_ACKED);
        let n = self.tx_una.sub(u32::from(fin)).since(self.tx_base);
        if n == 0 {
            return true;
        }
        self.undiscarded = self.undiscarded.saturating_add(1);
        let idle = self.in_flight() == 0;
        // With nothing in flight no acknowledgement will come to remove the rest later, and the
        // rest of a large transfer pins all of the buffer its last byte is in, which can close
        // the window for good. A few small messages after everything was removed may stay.
        let few = self.events.has(Events::DRAINED) && self.undiscarded < LAZY_BATCHES;
        if !all && n < LAZY_BYTES && (!idle || few) {
            return true;
        }
        self.undiscarded = 0;
        if idle && !self.events.has(Events::READABLE) {
            self.events.set(Events::DRAINED);
        } else {
            self.events.clear(Events::DRAINED);
        }
        self.tx_base = self.tx_base.add(n);
        io.net.discard(self.sock, n)
    }
}
