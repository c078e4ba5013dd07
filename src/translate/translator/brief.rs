//! Which flows go first when there is no room for another one [UDP-14].
//!
//! # Theory of operation
//!
//! A flow of datagrams that only one side has sent anything on is likely to be one that nobody
//! waits for: a query without an answer, a scan. One on which each side has had its say once is
//! likely to be over: a query with its answer. When slots or descriptors run out, one of them ends,
//! and its place is for the new flow: an unanswered one that was not used for a second, or else an
//! answered one; if there is none, an unanswered one that may still get its answer. In either case it
//! is the one that was used longest ago. Conversations stay.
//!
//! Flows are listed in the order of their beginning, each with the time at which it was used last.
//! One that comes up and was used of late is listed again, at the end. So which one ends is near
//! enough the right one without anything being done for each datagram, and it costs little however
//! many there are.
//!
//! To end a flow and to open another one costs as much as many datagrams. A guest that does nothing
//! else would have no time left for its conversations, so room is made only so often.

use super::Translator;
use super::settle::Flow;
use crate::flow::DropReason;
use crate::translate::allowance::Allowance;
use crate::translate::idle::Brief;
use crate::translate::{DatagramSockets, FrameOut, Now, SpliceSockets, TcpSockets, Verdict};

/// How many flows are looked at to end one; if all were used meanwhile, the next one ends.
const LOOKS: usize = 64;

/// How long an answer is waited for, as long as others can go, milliseconds.
const PATIENCE_MS: u64 = 1000;

/// How many flows may end in a millisecond, and how many at once if none did for a while.
const PER_MS: u64 = 4;
const AT_ONCE: u64 = 1000;

/// Flows that may end for others; and some that may not any more.
#[derive(Debug)]
pub(super) struct Expendable {
    unanswered: List,
    answered: List,
    /// How many may end now.
    left: Allowance,
    /// By slot: the slot after it in its list.
    next: Vec<u32>,
    /// By slot: when its flow was used last, as far as known; 0 if it is not listed.
    used: Vec<u32>,
}

/// A list of slots, none of which is in another one.
#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
}

/// No slot.
const NONE: u32 = u32::MAX;

/// Bytes of the lists for each flow.
pub(super) const EXPENDABLE_ENTRY: usize = 2 * size_of::<u32>();

impl Expendable {
    /// Lists for a table of `flows` slots.
    pub(super) fn new(flows: usize) -> Self {
        let [unanswered, answered] = [List { first: NONE, last: NONE }; 2];
        // Zeros, which take no memory before they are written to.
        let [next, used] = [(); 2].map(|()| vec![0; flows]);
        Self { unanswered, answered, left: Allowance::new(PER_MS, AT_ONCE), next, used }
    }

    fn list(&mut self, which: Brief) -> &mut List {
        match which {
            Brief::Unanswered => &mut self.unanswered,
            Brief::Answered => &mut self.answered,
        }
    }

    fn set_next(&mut self, slot: u32, next: u32) {
        if let Some(n) = self.next.get_mut(slot as usize) {
            *n = next;
        }
    }

    /// Lists the flow in this slot, unless it is listed.
    pub(super) fn push(&mut self, which: Brief, slot: u32, used: Now) {
        match self.used.get_mut(slot as usize) {
            Some(known) if *known == 0 => *known = stamp(used),
            _ => return,
        }
        self.set_next(slot, NONE);
        let list = self.list(which);
        match std::mem::replace(&mut list.last, slot) {
            NONE => list.first = slot,
            before => self.set_next(before, slot),
        }
    }

    /// Takes the first slot of a list, and what is known of the use of its flow.
    fn pop(&mut self, which: Brief) -> Option<(u32, u32)> {
        let slot = self.list(which).first;
        let used = std::mem::take(self.used.get_mut(slot as usize)?);
        let next = *self.next.get(slot as usize)?;
        let list = self.list(which);
        list.first = next;
        if next == NONE {
            list.last = NONE;
        }
        Some((slot, used))
    }

    /// Puts back what was taken.
    fn put_back(&mut self, which: Brief, (slot, used): (u32, u32)) {
        if let Some(known) = self.used.get_mut(slot as usize) {
            *known = used;
        }
        let list = self.list(which);
        let next = std::mem::replace(&mut list.first, slot);
        if next == NONE {
            list.last = slot;
        }
        self.set_next(slot, next);
    }

    /// Takes a flow of a list that was not used since, by what each slot's flow is, and when it was
    /// used last.
    fn take(
        &mut self,
        which: Brief,
        since: u64,
        flow: impl Fn(u32) -> Option<(Brief, Now)>,
    ) -> Option<u32> {
        for n in 0.. {
            let (slot, known) = self.pop(which)?;
            // It has ended, or is a conversation now.
            let Some((is, used)) = flow(slot) else { continue };
            let recent = used.ms() > since;
            if is != which || (recent && stamp(used) != known && n < LOOKS) {
                self.push(is, slot, used);
                continue;
            }
            if recent {
                self.put_back(which, (slot, known));
                return None;
            }
            return Some(slot);
        }
        None
    }
}

/// A time as it is kept: only whether it is the same matters. Never 0.
fn stamp(at: Now) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "it may wrap")]
    let ms = at.ms() as u32;
    ms | 1
}

impl<O: FrameOut, N: TcpSockets + DatagramSockets + SpliceSockets> Translator<O, N> {
    /// Ends a flow that may go for another one; false if there is none, or if too many have ended
    /// just now.
    pub(super) fn make_room(&mut self) -> bool {
        if !self.expendable.left.spend(self.now) {
            return false;
        }
        // It may be for a flow that was not used for long.
        self.send_gathered();
        let Self { expendable, flows, now, .. } = self;
        let flow = |slot| flows.at(slot).and_then(Flow::brief);
        let (now, before) = (now.ms(), now.ms().saturating_sub(PATIENCE_MS));
        let mut take = |which, since| expendable.take(which, since, flow);
        let slot = take(Brief::Unanswered, before)
            .or_else(|| take(Brief::Answered, now))
            .or_else(|| take(Brief::Unanswered, now));
        let Some(id) = slot.and_then(|slot| flows.id_at(slot)) else { return false };
        self.drops.count(DropReason::Evicted);
        self.settle(id, Verdict::Close);
        true
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use Brief::{Answered, Unanswered};

    use super::*;

    const fn at(ms: u64) -> Now {
        Now(ms * 1000)
    }

    // [UDP-14] Each slot once, in the order of their use.
    #[test]
    fn in_order_of_use() {
        let mut list = Expendable::new(4);
        for (slot, ms) in [(2, 0), (0, 10), (2, 20), (3, 30)] {
            list.push(Unanswered, slot, at(ms));
        }
        // One was used since, another one is over.
        let flow = |slot| match slot {
            2 => Some((Unanswered, at(0))),
            0 => Some((Unanswered, at(50))),
            _ => None,
        };
        let mut take = || list.take(Unanswered, 60, flow);
        assert_eq!([take(), take(), take()], [Some(2), Some(0), None]);
        list.push(Unanswered, 9, at(0));
        assert_eq!(list.take(Unanswered, 60, flow), None);
    }

    // [UDP-14] One that was answered meanwhile is listed as such, and a conversation not at all. Those
    // in use stay where they are.
    #[test]
    fn not_while_in_use() {
        let mut list = Expendable::new(4);
        (0..3).for_each(|slot| list.push(Unanswered, slot, at(0)));
        let flow = |slot| match slot {
            0 | 2 => Some((Answered, at(500))),
            _ => None,
        };
        assert_eq!(list.take(Unanswered, 600, flow), None);
        let mut take = |since| list.take(Answered, since, flow);
        assert_eq!([take(499), take(500), take(500), take(500)], [None, Some(0), Some(2), None]);
    }
}
