//! What a backlog holds ahead of a hole: data that overtook other data.
//!
//! # Theory of operation
//!
//! The data itself is in the chain of the [`Backlog`], where it will be needed. Here is the table
//! of which octets are there: ranges that neither overlap nor touch, the one that changed last in
//! front. That is the order in which they are to be reported to the guest (RFC 2018, 4), and with
//! few ranges as good for everything else as any other. The table takes one chunk of the pool, and
//! only while there is a hole; so the number of ranges is bounded, and what would be one too many
//! is not kept.
//!
//! Sequence numbers are those of the guest. All of them lie within one window.

use super::pool::{Backlog, NONE, Pool};
use crate::wire::{SackBlock, Seq};

/// Bytes of an entry: left and right edge.
const ENTRY: usize = 8;

/// The table of one backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ahead {
    /// The chunk it is in.
    table: u32,
    /// Ranges in it.
    len: u16,
}

impl Default for Ahead {
    fn default() -> Self {
        Self { table: NONE, len: 0 }
    }
}

impl Ahead {
    pub(super) const fn is_empty(self) -> bool {
        self.len == 0
    }
}

impl Backlog {
    /// True if there is data ahead of a hole.
    pub const fn has_hole(&self) -> bool {
        !self.ahead.is_empty()
    }
}

impl Pool {
    /// Keeps data ahead of a hole. `next` is the number behind the queue, `seq` that of the data,
    /// and not before it. False if there is no room for all of it; then none of it counts.
    pub fn keep_ahead(&mut self, b: &mut Backlog, next: Seq, seq: Seq, data: &[u8]) -> bool {
        let Ok(len) = u32::try_from(data.len()) else { return false };
        let offset = b.len().saturating_add(seq.since(next)) as usize;
        let range = SackBlock { left: seq, right: seq.add(len) };
        let kept = self.write(b, offset, data) == data.len() && self.note(&mut b.ahead, range);
        if !kept {
            self.clear_if_unused(b);
        }
        kept
    }

    /// Adds what is contiguous now to the queue, whose end is at `next`; returns its length.
    pub fn join(&mut self, b: &mut Backlog, next: Seq) -> u32 {
        let mut end = next;
        self.retain(&mut b.ahead, |range| {
            let reached = !range.left.after(next);
            if reached {
                end = end.max(range.right);
            }
            !reached
        });
        let joined = end.since(next);
        b.grow(joined);
        self.clear_if_unused(b);
        joined
    }

    /// The ranges ahead of the hole, the one that changed last first.
    pub fn ranges(&self, b: &Backlog) -> impl Iterator<Item = SackBlock> + '_ {
        let table = self.chunk(b.ahead.table).map(|t| t.as_chunks().0).unwrap_or_default();
        table.iter().take(b.ahead.len.into()).copied().map(decode)
    }

    /// The range that holds all of `block`, made the first.
    pub fn find_range(&mut self, b: &mut Backlog, block: SackBlock) -> Option<SackBlock> {
        let table = self.table(&b.ahead);
        let at = table.iter().position(|e| {
            let range = decode(*e);
            !range.left.after(block.left) && !range.right.before(block.right)
        })?;
        table.get_mut(..=at)?.rotate_right(1);
        table.first().copied().map(decode)
    }

    /// Gives the table back.
    pub(super) fn forget(&mut self, a: &mut Ahead) {
        self.give_back(a.table);
        *a = Ahead::default();
    }

    /// Adds a range, merged with those it touches, as the first. False if there is no room.
    fn note(&mut self, a: &mut Ahead, range: SackBlock) -> bool {
        if a.table == NONE {
            let Some(table) = self.take() else { return false };
            a.table = table;
        }
        let mut merged = range;
        // Those in the table do not touch each other: only what touches `range` itself merges.
        self.retain(a, |other| {
            let apart = other.right.before(range.left) || other.left.after(range.right);
            if !apart {
                merged.left = merged.left.min(other.left);
                merged.right = merged.right.max(other.right);
            }
            apart
        });
        let len = usize::from(a.len);
        let table = self.chunk_mut(a.table).map(|t| t.as_chunks_mut().0).unwrap_or_default();
        let Some(table) = table.get_mut(..=len) else { return false };
        table.rotate_right(1);
        if let Some(first) = table.first_mut() {
            *first = encode(merged);
        }
        a.len = a.len.saturating_add(1);
        true
    }

    /// Leaves the ranges for which `keep` is true, in their order.
    fn retain(&mut self, a: &mut Ahead, mut keep: impl FnMut(SackBlock) -> bool) {
        let table = self.table(a);
        let mut kept = 0usize;
        for at in 0..table.len() {
            let Some(&entry) = table.get(at) else { break };
            if keep(decode(entry)) {
                if let Some(slot) = table.get_mut(kept) {
                    *slot = entry;
                }
                kept = kept.saturating_add(1);
            }
        }
        a.len = u16::try_from(kept).unwrap_or(0);
    }

    fn table(&mut self, a: &Ahead) -> &mut [[u8; ENTRY]] {
        let table = self.chunk_mut(a.table).map(|t| t.as_chunks_mut().0).unwrap_or_default();
        table.get_mut(..a.len.into()).unwrap_or_default()
    }
}

fn encode(range: SackBlock) -> [u8; ENTRY] {
    let (left, right) = (u64::from(range.left.0), u64::from(range.right.0));
    (left << 32 | right).to_ne_bytes()
}

fn decode(entry: [u8; ENTRY]) -> SackBlock {
    let word = u64::from_ne_bytes(entry);
    let half = |n: u64| Seq(u32::try_from(n & 0xffff_ffff).unwrap_or(0));
    SackBlock { left: half(word >> 32), right: half(word) }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#[allow(clippy::cast_possible_truncation)]
mod tests {
    use super::super::CHUNK;
    use super::*;
    use proptest::prelude::*;
    use std::io::IoSlice;

    const MAX_RANGES: usize = CHUNK / ENTRY;

    /// One connection: octet n of the stream is `octet(n)`, and `first` is the number of octet 0.
    struct Model {
        pool: Pool,
        b: Backlog,
        first: Seq,
        /// Octets consumed, and contiguous.
        front: usize,
        next: usize,
        have: Vec<bool>,
    }

    fn octet(n: usize) -> u8 {
        (n.wrapping_mul(0x9e37_79b9) >> 11) as u8
    }

    fn stream(from: usize, to: usize) -> Vec<u8> {
        (from..to).map(octet).collect()
    }

    impl Model {
        fn seq(&self, n: usize) -> Seq {
            self.first.add(n as u32)
        }

        fn arrives(&mut self, from: usize, to: usize) {
            let next = self.seq(self.next);
            if from > self.next {
                let (data, seq) = (stream(from, to), self.seq(from));
                assert!(self.pool.keep_ahead(&mut self.b, next, seq, &data));
            } else if to > self.next {
                let data = stream(self.next, to);
                // As in a flow: to the socket, if nothing waits, and some of it after all not.
                let past = if self.b.is_empty() { data.len() * 2 / 3 } else { 0 };
                self.pool.pass(&mut self.b, past);
                self.front += past;
                assert_eq!(self.pool.append(&mut self.b, &data[past..]), data.len() - past);
                self.next = to;
            }
            self.have[from..to].fill(true);
            let next = self.seq(self.next);
            let joined = self.pool.join(&mut self.b, next);
            self.next += joined as usize;
        }

        fn check(&mut self, recent: Option<(usize, usize)>) {
            let want = self.have.iter().take_while(|h| **h).count();
            assert_eq!(self.next, want);
            assert_eq!(self.b.len() as usize, self.next - self.front);
            let mut slices = [IoSlice::new(&[]); 64];
            let n = self.pool.slices(&self.b, &mut slices);
            let queued: Vec<u8> = slices[..n].iter().flat_map(|s| s.to_vec()).collect();
            assert!(queued == stream(self.front, self.next));
            let mut want = vec![];
            for (n, have) in self.have.iter().enumerate().skip(self.next) {
                match want.last_mut() {
                    Some((_, right)) if *have && *right == n => *right = n + 1,
                    _ if *have => want.push((n, n + 1)),
                    _ => {}
                }
            }
            let got = self.pool.ranges(&self.b);
            let mut got: Vec<_> = got
                .map(|r| (r.left.since(self.first) as usize, r.right.since(self.first) as usize))
                .collect();
            if let (Some((from, to)), Some((left, right))) = (recent, got.first()) {
                assert!(*left <= from && to <= *right, "the latest is not the first");
            }
            got.sort_unstable();
            assert_eq!(got, want);
            assert_eq!(self.b.has_hole(), !want.is_empty());
            if self.b.is_empty() && want.is_empty() {
                assert_eq!(self.pool.used(), 0);
            }
        }
    }

    proptest! {
        // [TCP-36] Whatever overtakes what: the stream comes out in order, nothing is kept twice,
        // and no more memory is used than a promise of the same size costs.
        #[test]
        fn any_order_gives_the_stream(
            first: u32,
            steps in proptest::collection::vec((0usize..20_000, 1usize..5000, 0usize..4), 1..60),
        ) {
            let mut m = Model {
                pool: Pool::new(20_000 + 3 * CHUNK).unwrap(),
                b: Backlog::default(),
                first: Seq(first),
                front: 0,
                next: 0,
                have: vec![false; 20_000],
            };
            for (from, len, what) in steps {
                let from = if what == 0 { m.next.min(19_999) } else { from };
                let to = (from + len).min(20_000);
                m.arrives(from, to);
                m.check((from > m.next).then_some((from, to)));
                if what == 3 {
                    let n = m.b.len() as usize / 2 + 1;
                    let n = n.min(m.b.len() as usize);
                    m.pool.consume(&mut m.b, n);
                    m.front += n;
                    m.check(None);
                }
            }
            m.arrives(0, 20_000);
            m.check(None);
            m.pool.clear(&mut m.b);
            prop_assert_eq!(m.pool.used(), 0);
        }
    }

    // A guest that sends every other octet: the table ends, the pool does not.
    #[test]
    fn the_table_is_bounded() {
        let mut pool = Pool::new(8 * CHUNK).unwrap();
        let mut b = Backlog::default();
        let next = Seq(100);
        for n in 0..MAX_RANGES as u32 {
            assert!(pool.keep_ahead(&mut b, next, next.add(1 + 2 * n), &[1]));
        }
        assert!(!pool.keep_ahead(&mut b, next, next.add(4001), &[1]));
        // What touches a range still finds its place, and makes room.
        assert!(pool.keep_ahead(&mut b, next, next.add(2), &[1]));
        assert!(pool.keep_ahead(&mut b, next, next.add(4001), &[1]));
        assert_eq!(pool.ranges(&b).count(), MAX_RANGES);
        pool.clear(&mut b);
        assert_eq!(pool.used(), 0);
        assert!(!b.has_hole());
    }

    // Without room for the data, or for the table, nothing is left behind.
    #[test]
    fn no_room() {
        let next = Seq(100);
        for chunks in 1..4 {
            let mut pool = Pool::new(chunks * CHUNK).unwrap();
            let mut b = Backlog::default();
            let data = vec![1; chunks * CHUNK - 1];
            assert!(!pool.keep_ahead(&mut b, next, next.add(1), &data));
            assert_eq!(pool.used(), 0);
            assert!(!b.has_hole() && b.is_empty());
        }
    }

    #[test]
    fn what_is_there_already_is_found() {
        let mut pool = Pool::new(8 * CHUNK).unwrap();
        let mut b = Backlog::default();
        let next = Seq(u32::MAX - 10);
        let block = |l, r| SackBlock { left: next.add(l), right: next.add(r) };
        assert!(pool.keep_ahead(&mut b, next, next.add(5), &[1; 10]));
        assert!(pool.keep_ahead(&mut b, next, next.add(20), &[1; 10]));
        assert_eq!(pool.find_range(&mut b, block(7, 15)), Some(block(5, 15)));
        assert_eq!(pool.ranges(&b).collect::<Vec<_>>(), [block(5, 15), block(20, 30)]);
        assert_eq!(pool.find_range(&mut b, block(4, 6)), None);
        assert_eq!(pool.find_range(&mut b, block(14, 21)), None);
        pool.clear(&mut b);
    }
}
