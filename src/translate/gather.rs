//! Datagrams that the guest sends one right after the other, gathered into a train.
//!
//! A bulk is datagrams of one size to one place. Those of one batch of frames go to the socket in
//! one call, which costs the kernel little more than a single datagram does. The price is a copy,
//! as the link uses its buffer again for the next frame.
//!
//! There is one train at a time: whatever does not fit it has it sent first, so that the order of
//! what the guest sends stays as it was. At the end of a batch nothing is left.

use super::Marks;
use crate::flow::FlowId;

/// Longest datagram that is gathered: longer ones do not fit a packet on most paths, and the kernel
/// makes trains of packets only.
const LONGEST: usize = 1472;

/// Longest train, in bytes and datagrams; the kernel takes no more (`UDP_MAX_SEGMENTS`).
const ROOM: usize = 65_507;
const MOST: u16 = 64;

/// The train that is being gathered.
#[derive(Debug)]
pub(super) struct Gather {
    data: Box<[u8]>,
    len: usize,
    /// Length of every datagram but the last.
    segment: usize,
    count: u16,
    /// The last one was shorter: no other may follow.
    closed: bool,
    head: Option<Head>,
}

/// What all datagrams of a train have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) id: FlowId,
    pub(super) marks: Marks,
}

/// A train to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gathered<'a> {
    pub(super) head: Head,
    pub(super) data: &'a [u8],
    /// 0 if it is one datagram.
    pub(super) segment: u16,
}

impl Gather {
    pub(super) fn new() -> Self {
        let data = vec![0; ROOM].into_boxed_slice();
        Self { data, len: 0, segment: 0, count: 0, closed: false, head: None }
    }

    /// True if a datagram may be part of a train at all.
    pub(super) fn suits(payload: &[u8]) -> bool {
        (1..=LONGEST).contains(&payload.len())
    }

    /// Adds a datagram that [suits](Gather::suits). False if the train has to be sent first.
    pub(super) fn add(&mut self, head: Head, payload: &[u8]) -> bool {
        let begins = self.head.is_none();
        let fits = self.head == Some(head)
            && !self.closed
            && self.count < MOST
            && payload.len() <= self.segment;
        let end = self.len.saturating_add(payload.len());
        if !begins && !fits {
            return false;
        }
        let Some(room) = self.data.get_mut(self.len..end) else { return false };
        room.copy_from_slice(payload);
        if begins {
            self.head = Some(head);
            self.segment = payload.len();
        }
        self.closed = payload.len() < self.segment;
        self.len = end;
        self.count = self.count.saturating_add(1);
        true
    }

    /// What there is to send; none is left afterwards.
    pub(super) fn take(&mut self) -> Option<Gathered<'_>> {
        let head = self.head.take()?;
        let data = self.data.get(..self.len)?;
        let segment = if self.count > 1 { u16::try_from(self.segment).ok()? } else { 0 };
        (self.len, self.count, self.closed) = (0, 0, false);
        Some(Gathered { head, data, segment })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MARKS: Marks = Marks { ttl: 64, tos: 0, df: true };
    const A: Head = Head { id: FlowId { index: 1, generation: 0 }, marks: MARKS };
    const B: Head = Head { id: FlowId { index: 2, generation: 0 }, marks: MARKS };

    // [UDP-8] [L2-10] A train has datagrams of one flow, with the same marks and length, but for a shorter
    // last one.
    #[test]
    fn only_equals_are_gathered() {
        let mut gather = Gather::new();
        assert!(gather.take().is_none());
        for (first, second, taken) in [
            ((A, 100), (A, 100), true),
            ((A, 100), (A, 99), true),
            ((A, 100), (A, 101), false),
            ((A, 100), (B, 100), false),
            ((A, 100), (Head { marks: Marks { ttl: 1, ..MARKS }, ..A }, 100), false),
            ((A, 100), (Head { marks: Marks { tos: 4, ..MARKS }, ..A }, 100), false),
            ((A, 100), (Head { marks: Marks { df: false, ..MARKS }, ..A }, 100), false),
        ] {
            assert!(gather.add(first.0, &vec![1; first.1]));
            assert_eq!(gather.add(second.0, &vec![2; second.1]), taken);
            // Nothing behind a shorter one.
            assert_eq!(gather.add(A, &[3; 99]), !taken || second.1 == 100);
            let train = gather.take().unwrap();
            assert_eq!((train.head, train.segment), (first.0, 100));
            assert!(gather.take().is_none());
        }
        assert!(gather.add(B, &[1; 7]));
        assert_eq!(gather.take().unwrap().segment, 0);
    }

    #[test]
    fn is_no_longer_than_the_kernel_takes() {
        for (len, most) in [(1, 64), (1400, 46), (1472, 44)] {
            let mut gather = Gather::new();
            let count = (0..1000).take_while(|_| gather.add(A, &vec![0; len])).count();
            assert_eq!(count, most);
            assert_eq!(gather.take().unwrap().data.len(), len * most);
        }
        assert!(Gather::suits(&[0; 1472]) && !Gather::suits(&[0; 1473]) && !Gather::suits(&[]));
    }
}
