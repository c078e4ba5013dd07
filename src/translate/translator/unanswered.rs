//! Which flows go first when there is no room for another one [UDP-14].
//!
//! # Theory of operation
//!
//! A flow of datagrams that only one side has sent anything on is likely to be one that nobody
//! waits for: a query without an answer, a scan. When slots or descriptors run out, the one of
//! them that was used longest ago ends, and its place is for the new flow.
//!
//! Flows are listed in the order of their beginning, each with the time at which it was used last.
//! One that comes up and was used since is listed again, at the end. So an end is near the right one
//! without anything being done for each datagram, and costs little however many there are.
//!
//! To end a flow and to open another one costs as much as many datagrams. A guest that does nothing
//! else would have no time left for its conversations, so room is made only so often.

use std::collections::VecDeque;

use super::Translator;
use super::settle::Flow;
use crate::flow::DropReason;
use crate::translate::allowance::Allowance;
use crate::translate::{DatagramSockets, FrameOut, Now, SpliceSockets, TcpSockets, Verdict};

/// How many flows are looked at to end one; if all were used meanwhile, the next one ends.
const LOOKS: usize = 64;

/// How many flows may end in a millisecond, and how many at once if none did for a while.
const PER_MS: u64 = 4;
const AT_ONCE: u64 = 1000;

/// Flows that nobody has answered, and maybe others.
#[derive(Debug)]
pub(super) struct Unanswered {
    slots: VecDeque<u32>,
    /// How many may end now.
    left: Allowance,
    /// By slot: when its flow was used last, as far as known; 0 if it is not listed.
    used: Vec<u32>,
}

/// Bytes of the list for each flow.
pub(super) const UNANSWERED_ENTRY: usize = 2 * size_of::<u32>();

impl Unanswered {
    /// A list for a table of `flows` slots.
    pub(super) fn new(flows: usize) -> Self {
        let slots = VecDeque::with_capacity(flows);
        Self { slots, left: Allowance::new(PER_MS, AT_ONCE), used: vec![0; flows] }
    }

    /// Lists the flow in this slot, unless it is listed.
    pub(super) fn push(&mut self, slot: u32, used: Now) {
        if let Some(entry) = self.used.get_mut(slot as usize)
            && *entry == 0
        {
            *entry = stamp(used);
            self.slots.push_back(slot);
        }
    }

    /// Takes the first slot; true if its flow was not used since, which was last at the time that
    /// `used` tells.
    fn pop(&mut self, used: impl Fn(u32) -> Option<Now>) -> Option<(u32, Option<Now>, bool)> {
        let slot = self.slots.pop_front()?;
        let entry = self.used.get_mut(slot as usize)?;
        let known = std::mem::take(entry);
        let used = used(slot);
        Some((slot, used, used.is_some_and(|used| stamp(used) == known)))
    }
}

/// A time as it is kept: only whether it is the same matters. Never 0.
fn stamp(at: Now) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "it may wrap")]
    let ms = at.ms() as u32;
    ms | 1
}

impl<O: FrameOut, N: TcpSockets + DatagramSockets + SpliceSockets> Translator<O, N> {
    /// Ends a flow that nobody has answered, one that was not used for long; false if there is
    /// none, or if too many have ended just now.
    pub(super) fn make_room(&mut self) -> bool {
        if !self.unanswered.left.spend(self.now) {
            return false;
        }
        // It may be for a flow that was not used for long.
        self.send_gathered();
        for n in 0.. {
            let Self { unanswered, flows, .. } = self;
            let used = |slot| flows.at(slot).and_then(Flow::unanswered);
            let Some((slot, used, idle)) = unanswered.pop(used) else { return false };
            // It was answered, or is another one now.
            let Some(used) = used else { continue };
            if !idle && n < LOOKS {
                unanswered.push(slot, used);
                continue;
            }
            let Some(id) = flows.id_at(slot) else { continue };
            self.drops.count(DropReason::Evicted);
            self.settle(id, Verdict::Close);
            return true;
        }
        false
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // [UDP-14] Each slot once; the time that was noted tells whether a flow was used since.
    #[test]
    fn in_order_of_use() {
        let at = |ms: u64| Now(ms * 1000);
        let mut list = Unanswered::new(4);
        for (slot, ms) in [(2, 0), (0, 10), (2, 20), (3, 30)] {
            list.push(slot, at(ms));
        }
        let used = |slot| match slot {
            2 => Some(at(0)),
            0 => Some(at(50)),
            _ => None,
        };
        assert_eq!(list.pop(used), Some((2, Some(at(0)), true)));
        let (slot, again, idle) = list.pop(used).unwrap();
        assert_eq!((slot, again, idle), (0, Some(at(50)), false));
        list.push(slot, again.unwrap());
        assert_eq!(list.pop(used), Some((3, None, false)));
        assert_eq!(list.pop(used), Some((0, Some(at(50)), true)));
        assert_eq!(list.pop(used), None);
        list.push(9, at(0));
        assert_eq!(list.pop(used), None);
    }
}
