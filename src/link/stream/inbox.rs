//! Bytes of the guest, as they come, to frames.
//!
//! # Theory of operation
//!
//! One buffer, in which `start..end` is what arrived and was not taken yet. Frames are handed out
//! where they lie. What is left when no frame is complete moves to the front when the room behind
//! it gets short; it is less than one frame.

use std::fmt;
use std::ops::Range;

use super::{Left, coalesce};
use crate::wire::ETH_LEN;

/// Bytes of the length before each frame.
pub(super) const PREFIX: usize = 4;

/// Longest frame [TAP-13].
pub(super) const FRAME_MAX: usize = 65_535;

/// Room for what one read takes: more than the socket's buffer usually holds.
const CAPACITY: usize = 384 << 10;

/// A read with less room than this is not worth its system call.
const ROOM_MIN: usize = 128 << 10;

const _: () = assert!(CAPACITY >= ROOM_MIN + PREFIX + FRAME_MAX);

/// A length that no frame has: the stream cannot be followed any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLength(pub u32);

impl fmt::Display for BadLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => write!(f, "a frame of length 0"),
            n if (n as usize) < ETH_LEN => {
                write!(f, "a frame of {n} bytes is shorter than an Ethernet header")
            }
            n => write!(f, "a frame of {n} bytes is longer than {FRAME_MAX}"),
        }
    }
}

/// What arrived from the guest.
#[derive(Debug)]
pub struct Inbox {
    buf: Box<[u8]>,
    start: usize,
    end: usize,
    /// Segments are handed out one by one, as they came.
    apart: bool,
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Inbox {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { buf: vec![0; CAPACITY].into_boxed_slice(), start: 0, end: 0, apart: false }
    }

    /// Hands out every frame by itself from now on.
    pub fn keep_apart(&mut self) {
        self.apart = true;
    }

    /// Where to put what arrives next; then say how much it was with [`Inbox::filled`]. Never
    /// empty if [`Inbox::next_frame`] found no frame before.
    pub fn room(&mut self) -> &mut [u8] {
        let short = self.buf.len().saturating_sub(self.end) < ROOM_MIN;
        if (short || self.start == self.end) && self.start <= self.end {
            self.buf.copy_within(self.start..self.end, 0);
            self.end = self.end.saturating_sub(self.start);
            self.start = 0;
        }
        self.buf.get_mut(self.end..).unwrap_or_default()
    }

    /// `n` more bytes are there.
    pub fn filled(&mut self, n: usize) {
        self.end = self.end.saturating_add(n).min(self.buf.len());
    }

    /// Takes the next frame, if it is complete, or several segments of a connection as if the guest
    /// had sent them in one.
    ///
    /// # Errors
    /// There is no telling where the next frame begins.
    pub fn next_frame(&mut self) -> Result<Option<Range<usize>>, BadLength> {
        let Some(first) = whole(self.unread(), self.start)? else { return Ok(None) };
        if self.apart {
            self.start = first.end;
            return Ok(Some(first));
        }
        let (frame, next) = coalesce::extend(&mut self.buf, first, self.end);
        self.start = next;
        Ok(Some(frame))
    }

    /// The bytes of a frame, until the next call.
    pub fn bytes(&self, frame: Range<usize>) -> &[u8] {
        self.buf.get(frame).unwrap_or_default()
    }

    /// What the end of the stream means here.
    pub fn end(&self) -> Left {
        match self.unread() {
            [] => Left::Closed,
            unread => Left::Inside { have: unread.len(), want: wanted(unread) },
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    fn unread(&self) -> &[u8] {
        self.buf.get(self.start..self.end).unwrap_or_default()
    }
}

/// The frame that `data` begins with, which lies at `at`; `None` if it is not complete.
pub(super) fn whole(data: &[u8], at: usize) -> Result<Option<Range<usize>>, BadLength> {
    let Some(prefix) = data.first_chunk::<PREFIX>() else { return Ok(None) };
    let n = u32::from_be_bytes(*prefix);
    let len = n as usize;
    if !(ETH_LEN..=FRAME_MAX).contains(&len) {
        return Err(BadLength(n));
    }
    let from = at.saturating_add(PREFIX);
    let complete = data.len() >= len.saturating_add(PREFIX);
    Ok(complete.then_some(from..from.saturating_add(len)))
}

/// Bytes that an incomplete frame should have.
fn wanted(data: &[u8]) -> usize {
    let length = data.first_chunk::<PREFIX>().map_or(0, |n| u32::from_be_bytes(*n) as usize);
    length.saturating_add(PREFIX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#[allow(clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(frames: &[Vec<u8>]) -> Vec<u8> {
        let one = |f: &Vec<u8>| [&(f.len() as u32).to_be_bytes()[..], f].concat();
        frames.iter().flat_map(one).collect()
    }

    /// The frames of a stream that arrives in pieces of these sizes, then all at once.
    fn split(stream: &[u8], sizes: &[usize]) -> (Vec<Vec<u8>>, Option<BadLength>, Inbox) {
        let (mut inbox, mut frames, mut rest) = (Inbox::new(), Vec::new(), stream);
        let mut sizes = sizes.iter().copied();
        loop {
            loop {
                match inbox.next_frame() {
                    Ok(Some(range)) => frames.push(inbox.bytes(range).to_vec()),
                    Ok(None) => break,
                    Err(e) => return (frames, Some(e), inbox),
                }
            }
            if rest.is_empty() {
                return (frames, None, inbox);
            }
            let room = inbox.room();
            assert!(room.len() >= ROOM_MIN);
            let n = sizes.next().unwrap_or(usize::MAX).clamp(1, room.len().min(rest.len()));
            room[..n].copy_from_slice(&rest[..n]);
            inbox.filled(n);
            rest = &rest[n..];
        }
    }

    fn frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let len = prop_oneof![
            4 => 14usize..100,
            2 => 1400usize..1600,
            1 => Just(FRAME_MAX),
            1 => 60_000..FRAME_MAX
        ];
        let frame = (len, any::<u8>()).prop_map(|(n, seed)| {
            (0..n).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect()
        });
        proptest::collection::vec(frame, 0..20)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        // [TAP-2] [TAP-3] Any split of any frames gives the same frames.
        #[test]
        fn splits_do_not_matter(
            frames in frames(),
            sizes in proptest::collection::vec(1usize..5000, 0..200),
            bytewise: bool,
        ) {
            let mut stream = framed(&frames);
            let mut sizes = sizes;
            if bytewise {
                stream.truncate(3000);
                sizes = vec![1; stream.len()];
            }
            let (whole, fault, _) = split(&stream, &[]);
            prop_assert_eq!(fault, None);
            if !bytewise {
                prop_assert_eq!(&whole, &frames);
            }
            prop_assert_eq!(&split(&stream, &sizes).0, &whole);
        }

        // [TAP-2] Whatever arrives, and however: nothing panics, and the outcome is the same.
        #[test]
        fn any_bytes(
            bytes in proptest::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..600),
            sizes in proptest::collection::vec(1usize..40, 0..100),
        ) {
            let (a, b) = (split(&bytes, &[]), split(&bytes, &sizes));
            prop_assert_eq!((a.0, a.1), (b.0, b.1));
        }
    }

    // [TAP-2] The limits, and what is said about what is beyond them.
    #[test]
    fn lengths() {
        for (len, text) in [
            (0u32, "a frame of length 0"),
            (1, "a frame of 1 bytes is shorter than an Ethernet header"),
            (13, "a frame of 13 bytes is shorter than an Ethernet header"),
            (65_536, "a frame of 65536 bytes is longer than 65535"),
            (u32::MAX, "a frame of 4294967295 bytes is longer than 65535"),
        ] {
            let mut stream = framed(&[vec![7; 20]]);
            stream.extend(len.to_be_bytes());
            let (frames, fault, _) = split(&stream, &[]);
            assert_eq!(frames.len(), 1, "what came before counts");
            assert_eq!(fault.unwrap().to_string(), text);
        }
        assert_eq!(split(&framed(&[vec![1; 14], vec![2; FRAME_MAX]]), &[]).0.len(), 2);
    }

    // [W-5] What the end of the stream cut off is told, and forgotten.
    #[test]
    fn ends() {
        let stream = framed(&[vec![7; 20], vec![8; 30]]);
        for (n, text) in [
            (24, "connection closed"),
            (25, "connection closed inside a frame: 1 of 4 bytes, length included"),
            (28, "connection closed inside a frame: 4 of 34 bytes, length included"),
            (57, "connection closed inside a frame: 33 of 34 bytes, length included"),
            (58, "connection closed"),
        ] {
            let (_, _, mut inbox) = split(&stream[..n], &[]);
            assert_eq!(inbox.end().to_string(), text);
            inbox.clear();
            assert!(matches!(inbox.end(), Left::Closed));
        }
    }
}
