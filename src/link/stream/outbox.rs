//! Frames for the guest to bytes, in the order in which they leave.
//!
//! # Theory of operation
//!
//! One buffer, in which `start..end` waits to be sent. The payload of the next frame is written by
//! the host's kernel straight behind it, where it will be if the frame's headers are as long as
//! those of the frame before; if they are not, it is moved by the difference. A train of segments
//! is spread out in place, the last segment first, so that each gets room for its headers. So
//! everything is sent as one piece, whatever it consists of, and what is left of a frame of which
//! the socket took a part is just what comes next.
//!
//! Payload gets room only if the longest train it could become fits, and [`RESERVE`] is left for
//! frames without payload: acknowledgements above all.

use std::ops::Range;

use super::inbox::{FRAME_MAX, PREFIX};
use crate::link::segment::{self, HEADERS};
use crate::link::{FRAME_MIN, PADDING};
use crate::wire::{Gso, Head};

/// What a payload may become: itself, with headers for each segment of 48 bytes, the smallest that
/// TCP here makes [TCP-32]. Datagrams are shorter, but no more than some dozens make a train.
const TRAIN_MAX: usize = FRAME_MAX + (FRAME_MAX / 48 + 1) * (PREFIX + HEADERS);

/// Enough to send without waiting for the end of the turn.
const ENOUGH: usize = 128 << 10;

/// Room that only small frames may use.
const RESERVE: usize = 128 << 10;

const CAPACITY: usize = ENOUGH + TRAIN_MAX + RESERVE;

/// Frames on their way to the guest.
#[derive(Debug)]
pub struct Outbox {
    buf: Box<[u8]>,
    start: usize,
    end: usize,
    /// Length of the headers that the next payload leaves room for.
    headers: usize,
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Outbox {
    /// An empty one.
    pub fn new() -> Self {
        Self { buf: vec![0; CAPACITY].into_boxed_slice(), start: 0, end: 0, headers: 54 }
    }

    /// Room for the payload of the next frame, `None` if there is not enough.
    pub fn payload(&mut self) -> Option<&mut [u8]> {
        self.make_room(PREFIX + HEADERS + TRAIN_MAX + RESERVE)?;
        let at = self.payload_at();
        self.buf.get_mut(at..at.checked_add(FRAME_MAX)?)
    }

    /// Adds a frame, or those that it is to be cut into: `head`, and the first `len` bytes of the
    /// payload room. False if there is no room, or if a frame would be too long.
    pub fn push(&mut self, head: &Head, len: usize) -> bool {
        if len == 0 {
            // It has not been told apart from payload that is not wanted: nothing lies there.
            let frame = head.frame();
            if self.make_room(PREFIX.saturating_add(frame.len().max(FRAME_MIN))).is_none() {
                return false;
            }
        }
        let at = self.end;
        match self.spread(head, len) {
            Some(end) => {
                self.end = end;
                self.headers = if len == 0 { self.headers } else { head.frame().len() };
                true
            }
            None => {
                self.end = at;
                false
            }
        }
    }

    /// Adds a complete frame. False if there is no room.
    pub fn push_frame(&mut self, frame: &[u8]) -> bool {
        let room = PREFIX.saturating_add(frame.len().max(FRAME_MIN));
        self.make_room(room).and_then(|()| self.seal(self.end, &[frame], frame.len())).is_some_and(
            |end| {
                self.end = end;
                true
            },
        )
    }

    /// What is to be sent.
    pub fn pending(&self) -> &[u8] {
        self.buf.get(self.start..self.end).unwrap_or_default()
    }

    /// `n` bytes of it were.
    pub fn sent(&mut self, n: usize) {
        self.start = self.start.saturating_add(n).min(self.end);
        if self.start == self.end {
            self.clear();
        }
    }

    /// True if there is enough to be sent in the middle of a turn.
    pub fn is_worth_sending(&self) -> bool {
        self.end.saturating_sub(self.start) >= ENOUGH
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    fn payload_at(&self) -> usize {
        self.end.saturating_add(PREFIX).saturating_add(self.headers)
    }

    /// Sees to it that `n` bytes fit behind what waits, which may have to move.
    fn make_room(&mut self, n: usize) -> Option<()> {
        if self.buf.len().saturating_sub(self.end) >= n {
            return Some(());
        }
        shift(&mut self.buf, self.start..self.end, 0)?;
        self.end = self.end.checked_sub(self.start)?;
        self.start = 0;
        (self.buf.len().checked_sub(self.end)? >= n).then_some(())
    }

    /// Makes frames of the headers and the payload that lies ready; where they end.
    fn spread(&mut self, head: &Head, len: usize) -> Option<usize> {
        let headers = head.frame().len();
        let size = match head.vnet().gso {
            Gso::None => len,
            Gso::Tcp4(n) | Gso::Tcp6(n) | Gso::Udp(n) => usize::from(n),
        };
        let size = size.max(1);
        let count = len.div_ceil(size).max(1);
        if PREFIX.checked_add(headers)?.checked_add(size.min(len))? > PREFIX + FRAME_MAX {
            return None;
        }
        let (mut source, step) = (self.payload_at(), PREFIX.checked_add(headers)?);
        let first = self.end.checked_add(step)?;
        if source > first {
            // Nothing may move down over what has yet to move.
            shift(&mut self.buf, source..source.checked_add(len)?, first)?;
            source = first;
        }
        let mut end = None;
        // Room for one frame of the train: short datagrams are padded, each of them.
        let stride = PREFIX.checked_add(headers.checked_add(size)?.max(FRAME_MIN))?;
        // From the back, as every segment moves up by what is added to those before.
        for n in (0..count).rev() {
            let offset = n.checked_mul(size)?;
            let part = len.saturating_sub(offset).min(size);
            let frame = self.end.checked_add(n.checked_mul(stride)?)?;
            let payload = frame.checked_add(step)?;
            let from = source.checked_add(offset)?;
            shift(&mut self.buf, from..from.checked_add(part)?, payload)?;
            let mut room = [0; HEADERS];
            let data = self.buf.get(payload..payload.checked_add(part)?)?;
            let last = n.checked_add(1)? == count;
            let written = segment::cut(head, &mut room, offset, data, last)?;
            let after = self.seal(frame, &[written], headers.checked_add(part)?)?;
            end = end.or(Some(after));
        }
        end
    }

    /// Writes a length at `at`, the beginning of a frame of `len` bytes behind it, and its padding
    /// [TAP-6]; where the frame ends.
    fn seal(&mut self, at: usize, parts: &[&[u8]], len: usize) -> Option<usize> {
        let padded = len.max(FRAME_MIN);
        let frame = self.buf.get_mut(at..at.checked_add(PREFIX)?.checked_add(padded)?)?;
        let (prefix, mut rest) = frame.split_at_mut_checked(PREFIX)?;
        prefix.copy_from_slice(&u32::try_from(padded).ok()?.to_be_bytes());
        rest.get_mut(len..)?.copy_from_slice(PADDING.get(..padded.checked_sub(len)?)?);
        for part in parts {
            let (here, later) = rest.split_at_mut_checked(part.len())?;
            here.copy_from_slice(part);
            rest = later;
        }
        at.checked_add(PREFIX)?.checked_add(padded)
    }
}

/// Moves bytes within the buffer, if they and their new place lie inside it.
fn shift(buf: &mut [u8], from: Range<usize>, to: usize) -> Option<()> {
    let end = to.checked_add(from.len())?;
    if from.start > from.end || from.end > buf.len() || end > buf.len() {
        return None;
    }
    if from.start != to {
        buf.copy_within(from, to);
    }
    Some(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#[allow(clippy::cast_possible_truncation)]
mod tests;
