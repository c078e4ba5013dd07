//! The backlog pool: where data of the guest waits that its socket could not take yet.
//!
//! # Theory of operation
//!
//! A byte inside a window we advertised is never dropped. A flow that could not hand everything
//! to its socket keeps the tail in a [`Backlog`], a chain of fixed-size chunks from one
//! process-wide [`Pool`]. Windows are *promises* on that pool: before a flow advertises a right
//! edge it asks [`Pool::promise`], and gives back what the socket has taken meanwhile. The sum of
//! promises never exceeds the pool, so a promised byte always finds room.
//!
//! What arrives ahead of a hole is written where it belongs in the same chain
//! ([`Pool::keep_ahead`]), which so never holds more than was promised (`ahead.rs`).
//!
//! Chunks are reserved as address space at start and touched when first used.

use std::collections::TryReserveError;
use std::io::IoSlice;

use super::ahead::Ahead;

/// Bytes in a chunk.
pub const CHUNK: usize = 4096;

/// What a flow with a promise may use besides: part of the first and part of the last chunk, and
/// the table of what is ahead of a hole.
const SLACK: usize = 3 * CHUNK;

/// No chunk.
pub(super) const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Chunk {
    next: u32,
    data: [u8; CHUNK],
}

/// Chunks for every flow of the process.
#[derive(Debug)]
pub struct Pool {
    chunks: Vec<Chunk>,
    /// First chunk of the free chain.
    free: u32,
    capacity: usize,
    /// Chunks in some backlog.
    used: usize,
    /// Bytes promised to guests, with slack.
    promised: usize,
}

/// One flow's part of the pool; 24 bytes, plain data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    head: u32,
    tail: u32,
    /// Bytes queued.
    len: u32,
    /// Consumed bytes of the first chunk.
    start: u16,
    /// Chunks in the chain.
    chunks: u16,
    /// What is ahead of a hole.
    pub(super) ahead: Ahead,
}

impl Default for Backlog {
    fn default() -> Self {
        Self { head: NONE, tail: NONE, len: 0, start: 0, chunks: 0, ahead: Ahead::default() }
    }
}

impl Backlog {
    /// Bytes queued.
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// True if nothing is queued.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The next `n` bytes of the chain are part of the queue.
    pub(super) fn grow(&mut self, n: u32) {
        self.len = self.len.saturating_add(n);
    }
}

impl Pool {
    /// A pool of `bytes`, rounded up to whole chunks.
    ///
    /// # Errors
    /// There is no address space for it, or a limit forbids it.
    pub fn new(bytes: usize) -> Result<Self, TryReserveError> {
        let capacity = bytes.div_ceil(CHUNK);
        let mut chunks = Vec::new();
        chunks.try_reserve_exact(capacity)?;
        Ok(Self { chunks, free: NONE, capacity, used: 0, promised: 0 })
    }

    /// Bytes that could still be promised.
    pub fn available(&self) -> usize {
        self.capacity.saturating_mul(CHUNK).saturating_sub(self.promised)
    }

    /// Changes a promise from `old` to `new` bytes; false, and nothing changed, if it is larger
    /// and there is no room.
    pub fn promise(&mut self, old: u32, new: u32) -> bool {
        let (old, new) = (cost(old), cost(new));
        if new > old && new.saturating_sub(old) > self.available() {
            return false;
        }
        self.promised = self.promised.saturating_sub(old).saturating_add(new);
        true
    }

    /// Appends to a backlog; returns how much found room.
    pub fn append(&mut self, b: &mut Backlog, data: &[u8]) -> usize {
        let written = self.write(b, b.len as usize, data);
        b.grow(u32::try_from(written).unwrap_or(0));
        written
    }

    /// Writes from `offset` on, counted from the front of the queue.
    pub(super) fn write(&mut self, b: &mut Backlog, offset: usize, mut data: &[u8]) -> usize {
        let mut at = usize::from(b.start).saturating_add(offset);
        let Some(mut chunk) = self.chunk_at(b, at / CHUNK) else { return 0 };
        let mut written = 0usize;
        loop {
            let room = self.chunks.get_mut(chunk as usize).map(|c| &mut c.data);
            let room = room.and_then(|d| d.get_mut(at % CHUNK..)).unwrap_or_default();
            let n = room.len().min(data.len());
            let (now, later) = data.split_at(n);
            for (to, from) in room.chunks_mut(n.max(1)).zip(now.chunks(n.max(1))) {
                to.copy_from_slice(from);
            }
            written = written.saturating_add(n);
            at = at.saturating_add(n);
            data = later;
            if data.is_empty() || n == 0 {
                return written;
            }
            let Some(next) = self.following(b, chunk) else { return written };
            chunk = next;
        }
    }

    /// The chunk at this place in the chain, which is made longer if need be.
    fn chunk_at(&mut self, b: &mut Backlog, n: usize) -> Option<u32> {
        if b.chunks == 0 {
            self.lengthen(b)?;
        }
        let last = usize::from(b.chunks).saturating_sub(1);
        // Most data goes to the end.
        let (mut chunk, skip) =
            if n >= last { (b.tail, n.saturating_sub(last)) } else { (b.head, n) };
        for _ in 0..skip {
            chunk = self.following(b, chunk)?;
        }
        Some(chunk)
    }

    /// The chunk behind one of the chain, a new one if that was the last.
    fn following(&mut self, b: &mut Backlog, chunk: u32) -> Option<u32> {
        if chunk == b.tail {
            self.lengthen(b)
        } else {
            self.chunks.get(chunk as usize).map(|c| c.next)
        }
    }

    fn lengthen(&mut self, b: &mut Backlog) -> Option<u32> {
        let chunks = b.chunks.checked_add(1)?;
        let fresh = self.take()?;
        match self.chunks.get_mut(b.tail as usize) {
            Some(last) => last.next = fresh,
            None => b.head = fresh,
        }
        b.tail = fresh;
        b.chunks = chunks;
        Some(fresh)
    }

    /// The queued bytes in order, as many slices as `out` holds; returns how many were filled.
    pub fn slices<'a>(&'a self, b: &Backlog, out: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0usize;
        let mut at = b.head;
        let mut left = b.len as usize;
        let mut start = usize::from(b.start);
        for slot in out {
            let Some(chunk) = self.chunks.get(at as usize) else { break };
            let end = CHUNK.min(start.saturating_add(left));
            let Some(bytes) = chunk.data.get(start..end) else { break };
            if bytes.is_empty() {
                break;
            }
            left = left.saturating_sub(bytes.len());
            *slot = IoSlice::new(bytes);
            filled = filled.saturating_add(1);
            at = chunk.next;
            start = 0;
        }
        filled
    }

    /// Removes `n` bytes from the front; chunks emptied go back to the pool.
    pub fn consume(&mut self, b: &mut Backlog, n: usize) {
        let n = n.min(b.len as usize);
        b.len = b.len.saturating_sub(u32::try_from(n).unwrap_or(0));
        self.pass(b, n);
    }

    /// Moves the front on by `n` bytes that did not have to wait, so that what is ahead keeps its
    /// place. The queue must be empty.
    pub fn pass(&mut self, b: &mut Backlog, n: usize) {
        let at = usize::from(b.start).saturating_add(n);
        for _ in 0..at / CHUNK {
            self.pop(b);
        }
        b.start = if b.chunks == 0 { 0 } else { u16::try_from(at % CHUNK).unwrap_or(0) };
        self.clear_if_unused(b);
    }

    /// Gives the rest of the chain back once nothing is in it.
    pub(super) fn clear_if_unused(&mut self, b: &mut Backlog) {
        if b.len == 0 && b.ahead.is_empty() {
            self.clear(b);
        }
    }

    /// Gives back everything a backlog holds.
    pub fn clear(&mut self, b: &mut Backlog) {
        while b.chunks != 0 {
            self.pop(b);
        }
        self.forget(&mut b.ahead);
        *b = Backlog::default();
    }

    /// Chunks in use, for tests and figures.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Gives the first chunk of the chain back, if there is one.
    fn pop(&mut self, b: &mut Backlog) {
        let first = b.head;
        let Some(chunk) = self.chunks.get(first as usize) else {
            b.chunks = 0;
            return;
        };
        b.head = chunk.next;
        b.chunks = b.chunks.saturating_sub(1);
        if b.chunks == 0 {
            b.tail = NONE;
        }
        self.give_back(first);
    }

    /// The bytes of a chunk that was taken, to be used as its holder likes.
    pub(super) fn chunk(&self, index: u32) -> Option<&[u8; CHUNK]> {
        self.chunks.get(index as usize).map(|c| &c.data)
    }

    /// The same, to write.
    pub(super) fn chunk_mut(&mut self, index: u32) -> Option<&mut [u8; CHUNK]> {
        self.chunks.get_mut(index as usize).map(|c| &mut c.data)
    }

    /// Gives a chunk back that was taken.
    pub(super) fn give_back(&mut self, index: u32) {
        if let Some(chunk) = self.chunks.get_mut(index as usize) {
            chunk.next = self.free;
            self.free = index;
            self.used = self.used.saturating_sub(1);
        }
    }

    /// Takes a chunk.
    pub(super) fn take(&mut self) -> Option<u32> {
        let index = if let Some(chunk) = self.chunks.get_mut(self.free as usize) {
            let index = self.free;
            self.free = chunk.next;
            chunk.next = NONE;
            index
        } else {
            let index = self.chunks.len();
            if index >= self.capacity {
                return None;
            }
            self.chunks.push(Chunk { next: NONE, data: [0; CHUNK] });
            u32::try_from(index).ok()?
        };
        self.used = self.used.saturating_add(1);
        Some(index)
    }
}

fn cost(bytes: u32) -> usize {
    if bytes == 0 { 0 } else { (bytes as usize).saturating_add(SLACK) }
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
    use super::*;
    use proptest::prelude::*;

    fn content(pool: &Pool, b: &Backlog) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 64];
        let n = pool.slices(b, &mut slices);
        slices[..n].iter().flat_map(|s| s.to_vec()).collect()
    }

    proptest! {
        #[test]
        fn two_backlogs_behave_like_queues(
            ops in proptest::collection::vec((any::<bool>(), any::<bool>(), 0usize..9000), 0..80)
        ) {
            let mut pool = Pool::new(16 * CHUNK).unwrap();
            let mut logs = [Backlog::default(); 2];
            let mut model = [Vec::new(), Vec::new()];
            let mut byte = 0u8;
            for (which, append, n) in ops {
                let w = usize::from(which);
                if append {
                    let data: Vec<u8> = (0..n).map(|_| { byte = byte.wrapping_add(1); byte }).collect();
                    let taken = pool.append(&mut logs[w], &data);
                    prop_assert!(taken == n || pool.used() == 16);
                    model[w].extend_from_slice(&data[..taken]);
                } else {
                    let n = n.min(model[w].len());
                    pool.consume(&mut logs[w], n);
                    model[w].drain(..n);
                }
                for i in 0..2 {
                    prop_assert_eq!(logs[i].len() as usize, model[i].len());
                    prop_assert_eq!(&content(&pool, &logs[i]), &model[i]);
                }
            }
            pool.clear(&mut logs[0]);
            pool.clear(&mut logs[1]);
            prop_assert_eq!(pool.used(), 0);
        }

        // What was promised always finds room, however the flows use it.
        #[test]
        fn promises_hold(sizes in proptest::collection::vec(1u32..60_000, 1..40), step in 1usize..5000) {
            let mut pool = Pool::new(64 * CHUNK).unwrap();
            let granted: Vec<u32> = sizes.into_iter().filter(|s| pool.promise(0, *s)).collect();
            let mut logs = vec![Backlog::default(); granted.len()];
            let data = vec![1u8; 60_000];
            for (log, n) in logs.iter_mut().zip(&granted) {
                let mut left = *n as usize;
                // A consumed first byte wastes part of the first chunk.
                while left > 0 {
                    let n = left.min(step);
                    prop_assert_eq!(pool.append(log, &data[..n]), n);
                    left -= n;
                }
                pool.consume(log, 1);
            }
            for n in granted {
                prop_assert!(pool.promise(n, 0));
            }
            prop_assert_eq!(pool.available(), 64 * CHUNK);
        }
    }
}
