//! What the guest has of the data in flight, as its SACK blocks tell (RFC 2018, RFC 6675).
//!
//! # Theory of operation
//!
//! A [`Board`] is a sorted list of the ranges that the guest reported beyond its acknowledgement.
//! What lies between them are *holes*. A hole is lost when enough arrived above it: more than two
//! segments' worth, or three separate ranges (RFC 6675, `IsLost`); for fewer the caller waits a
//! little for a segment that was overtaken (RFC 8985, 6.2).
//!
//! **Lost retransmissions.** Holes are retransmitted in *passes*, each from the lowest to the
//! highest, and new data follows. So within a pass the order of sequence numbers is the order of
//! sending, and the same rule holds again: a retransmission is lost when enough that was sent
//! after it has arrived. That is the idea of RFC 8985, without a time for each segment: the board
//! counts what arrives that the present pass has sent, and how far that reaches. Everything
//! missing below belongs into another pass, which ends there (`limit`), while the first goes on
//! where it was (`resume`). As long as the second is not through, only its own retransmissions
//! count, and new data sent after all of them. So no hole is repeated more than once in the round
//! trip that it takes to hear of something later.
//!
//! A board is needed only while something is missing, so boards are lent from one place,
//! [`Boards`], reserved at the start and touched when used. A connection that gets none does as
//! with a guest that sends no blocks.

use crate::wire::Seq;

/// Ranges a board can hold. One window of 4 MiB that loses three segments in a hundred.
const RANGES: usize = 128;

/// Connections that can have holes at the same time.
const BOARDS: usize = 256;

/// Separate ranges above a hole, or segments' worth of data, that make it lost
/// (`DupThresh` of RFC 6675).
const DUP_THRESH: u32 = 3;

/// What the guest has, from `start` on and before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: Seq,
    end: Seq,
}

/// The data of one connection that arrived out of order.
#[derive(Debug)]
pub(super) struct Board {
    ranges: [Range; RANGES],
    len: usize,
    /// What was new when the last retransmission was sent: all from here on was sent after it.
    pass: Seq,
    /// Octets that arrived of what the present pass has sent, and how far they reach.
    fresh: u32,
    high: Seq,
    /// Where a pass ends that repeats retransmissions, and where the one before it goes on.
    limit: Option<Seq>,
    resume: Seq,
}

impl Board {
    const EMPTY: Self = Self {
        ranges: [Range { start: Seq(0), end: Seq(0) }; RANGES],
        len: 0,
        pass: Seq(0),
        fresh: 0,
        high: Seq(0),
        limit: None,
        resume: Seq(0),
    };

    fn ranges(&self) -> &[Range] {
        self.ranges.get(..self.len).unwrap_or_default()
    }

    /// True if the guest has nothing out of order.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A block that the guest reports: what of it is new. All before `sent` was retransmitted in
    /// the present pass, if it was missing when the pass began.
    pub(super) fn add(&mut self, start: Seq, end: Seq, sent: Seq) -> bool {
        // The ranges `from..to` overlap the block or touch it.
        let from = self.ranges().partition_point(|r| r.end.before(start));
        let to = self.ranges().partition_point(|r| !r.start.after(end));
        let mut at = start;
        for n in from..to {
            let Some(&r) = self.ranges.get(n) else { break };
            self.arrived(at, r.start.min(end), sent);
            at = at.max(r.end);
        }
        self.arrived(at, end, sent);
        let mut new = Range { start, end };
        if let Some(old) = self.ranges.get(from..to)
            && let (Some(first), Some(last)) = (old.first(), old.last())
        {
            if !start.before(first.start) && !end.after(first.end) {
                return false;
            }
            new = Range { start: start.min(first.start), end: end.max(last.end) };
        }
        self.replace(from, to, new)
    }

    /// Puts one range in the place of those at `from..to`. With all places taken the highest is
    /// forgotten: what it holds may be sent again, at worst.
    fn replace(&mut self, from: usize, to: usize, new: Range) -> bool {
        if from == to {
            if from >= RANGES {
                return false;
            }
            let end = self.len.min(RANGES.saturating_sub(1));
            self.ranges.copy_within(from..end, from.saturating_add(1));
            self.len = end.saturating_add(1);
        } else {
            let behind = from.saturating_add(1);
            self.ranges.copy_within(to..self.len, behind);
            self.len = self.len.saturating_sub(to.saturating_sub(behind));
        }
        if let Some(r) = self.ranges.get_mut(from) {
            *r = new;
        }
        true
    }

    /// Counts what arrived, from `start` on and before `end`, if the present pass has sent it.
    fn arrived(&mut self, start: Seq, end: Seq, sent: Seq) {
        let again = (start, end.min(self.limit.map_or(sent, |limit| sent.min(limit))));
        let new = (start.max(self.pass), end);
        for (start, end) in [again, new] {
            if start.before(end) {
                self.high = if self.fresh == 0 { end } else { self.high.max(end) };
                self.fresh = self.fresh.saturating_add(end.since(start));
            }
        }
    }

    /// Everything before `una` is acknowledged. False if the guest takes back what it reported
    /// (RFC 2018, 8): it has what is at `una` by its own word, and should have acknowledged it.
    pub(super) fn acknowledge(&mut self, una: Seq) -> bool {
        let gone = self.ranges().partition_point(|r| !r.end.after(una));
        self.ranges.copy_within(gone..self.len, 0);
        self.len = self.len.saturating_sub(gone);
        self.limit = self.limit.filter(|limit| una.before(*limit));
        self.ranges().first().is_none_or(|r| r.start.after(una))
    }

    /// The first hole to be sent again, `from` there on and before `to`.
    pub(super) fn next(&self, from: Seq, to: Seq) -> Option<(Seq, Seq)> {
        if let Some(limit) = self.limit.filter(|limit| from.before(*limit)) {
            self.hole(from, limit).or_else(|| self.hole(self.resume, to))
        } else {
            self.hole(from, to)
        }
    }

    /// The first hole at or after `from`, before `to`.
    fn hole(&self, mut from: Seq, to: Seq) -> Option<(Seq, Seq)> {
        for r in self.ranges() {
            if r.end.after(from) {
                if r.start.after(from) {
                    return from.before(to).then_some((from, r.start.min(to)));
                }
                from = r.end;
            }
        }
        from.before(to).then_some((from, to))
    }

    /// The end of the highest hole with enough above it, for segments of `mss`.
    pub(super) fn lost(&self, mss: u32) -> Option<Seq> {
        let mut count = 0u32;
        let mut bytes = 0u32;
        self.ranges().iter().rev().find_map(|r| {
            count = count.saturating_add(1);
            bytes = bytes.saturating_add(r.end.since(r.start));
            (count >= DUP_THRESH || is_enough(bytes, mss)).then_some(r.start)
        })
    }

    /// The end of the highest hole.
    pub(super) fn highest_hole(&self) -> Option<Seq> {
        Some(self.ranges().last()?.start)
    }

    /// Begins another pass at `una`, if retransmissions of the present one, which has come to
    /// `sent`, are lost for segments of `mss`. With `late` anything that arrived after them is
    /// enough. Returns how far it goes.
    pub(super) fn repeat(&mut self, una: Seq, sent: Seq, mss: u32, late: bool) -> Option<Seq> {
        if !self.is_suspicious(una) || !(late || is_enough(self.fresh, mss)) {
            return None;
        }
        let resume = if self.limit.is_some_and(|l| sent.before(l)) { self.resume } else { sent };
        self.resume = resume.max(self.high);
        self.limit = Some(self.high);
        self.limit
    }

    /// True if something arrived that the present pass has sent, with a hole before it.
    pub(super) fn is_suspicious(&self, una: Seq) -> bool {
        self.fresh != 0 && una.before(self.high)
    }

    /// A retransmission leaves; what follows `next` will be sent after it. With `first` it is that
    /// of a new pass.
    pub(super) fn retransmitted(&mut self, next: Seq, first: bool) {
        self.pass = next;
        if first {
            self.fresh = 0;
        }
    }
}

/// True for as much data as three segments at least bring.
fn is_enough(bytes: u32, mss: u32) -> bool {
    bytes > mss.saturating_mul(DUP_THRESH.saturating_sub(1))
}

/// Names a board that is lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BoardId(u16);

impl BoardId {
    /// No board.
    pub(super) const NONE: Self = Self(u16::MAX);
}

/// All boards there are.
#[derive(Debug)]
pub struct Boards {
    /// Those that were ever lent.
    boards: Vec<Board>,
    /// Those of them that were given back.
    free: Vec<BoardId>,
}

impl Boards {
    /// Reserves the memory, and touches none of it.
    pub fn new() -> Self {
        Self { boards: Vec::with_capacity(BOARDS), free: Vec::with_capacity(BOARDS) }
    }

    /// Boards that are lent now.
    pub fn lent(&self) -> usize {
        self.boards.len().saturating_sub(self.free.len())
    }

    /// Lends an empty board to a connection that will send `next` next; [`BoardId::NONE`] if there
    /// is none left.
    pub(super) fn lend(&mut self, next: Seq) -> BoardId {
        let id = match self.free.pop() {
            Some(id) => id,
            None if self.boards.len() >= BOARDS => return BoardId::NONE,
            None => {
                self.boards.push(Board::EMPTY);
                BoardId(u16::try_from(self.boards.len().saturating_sub(1)).unwrap_or(u16::MAX))
            }
        };
        if let Some(board) = self.get_mut(id) {
            (board.len, board.pass, board.fresh, board.limit) = (0, next, 0, None);
        }
        id
    }

    /// Takes a board back.
    pub(super) fn give_back(&mut self, id: &mut BoardId) {
        if *id != BoardId::NONE {
            self.free.push(*id);
            *id = BoardId::NONE;
        }
    }

    pub(super) fn get(&self, id: BoardId) -> Option<&Board> {
        self.boards.get(usize::from(id.0))
    }

    pub(super) fn get_mut(&mut self, id: BoardId) -> Option<&mut Board> {
        self.boards.get_mut(usize::from(id.0))
    }
}

impl Default for Boards {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[path = "scoreboard/tests.rs"]
mod tests;
