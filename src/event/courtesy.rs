//! Whether to let others have the processor before going to sleep.
//!
//! # Theory of operation
//!
//! Where the two ends of a transfer and we share fewer processors, the sender is often in the middle
//! of a write when we have passed on what there was. To sleep then is to be woken for the next part
//! of that write, with less to pass on than it cost to wake us. To stand back while we stay runnable
//! (`sched_yield(2)`) lets the sender, or the receiver, go on first, and the next visit finds more.
//! With a processor of our own it returns at once.
//!
//! Whoever stands back may be kept waiting, so two things must agree:
//!
//! - the last [`CALM`] turns served transfers and nothing else, which a moment does not matter to;
//! - whoever goes first does not keep the processor. An end of a transfer stops when it has filled a
//!   buffer or emptied it. Where it took [`TAKEN`] or longer somebody computes, and we refrain from
//!   it for a [while](Rest): one who sleeps is served before those who compute.

use std::time::{Duration, Instant};

use super::rest::Rest;

/// Turns of transfers in a row before we stand back.
const CALM: u32 = 16;

/// No end of a transfer keeps a processor for as long.
const TAKEN: Duration = Duration::from_millis(2);

/// What the recent turns were like.
#[derive(Debug)]
pub(super) struct Courtesy {
    calm: u32,
    rest: Rest,
}

impl Courtesy {
    pub(super) const fn new() -> Self {
        Self { calm: 0, rest: Rest::new() }
    }

    /// A turn is over, which served transfers alone or not.
    pub(super) fn served(&mut self, transfers: bool) {
        self.calm = if transfers { self.calm.saturating_add(1) } else { 0 };
    }

    /// True if the last turn served transfers alone.
    pub(super) fn is_calm(&self) -> bool {
        self.calm > 0
    }

    /// True if others should go first.
    pub(super) fn wanted(&self, now: Instant) -> bool {
        self.calm >= CALM && !self.rest.lasts(now)
    }

    /// When they were let, and when we went on.
    pub(super) fn stood_back(&mut self, began: Instant, now: Instant) {
        if now.saturating_duration_since(began) >= TAKEN {
            self.rest.begin(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rest::FIRST;
    use super::*;

    fn turn(c: &mut Courtesy, transfers: bool, now: Instant) -> bool {
        c.served(transfers);
        assert_eq!(c.is_calm(), transfers);
        c.wanted(now)
    }

    #[test]
    fn transfers_alone() {
        let (mut c, now) = (Courtesy::new(), Instant::now());
        for _ in 1..CALM {
            assert!(!turn(&mut c, true, now));
        }
        assert!(turn(&mut c, true, now));
        // Something else is served at once, and so is what it is answered with.
        assert!(!turn(&mut c, false, now));
        assert!(!turn(&mut c, true, now));
    }

    #[test]
    fn not_where_somebody_computes() {
        let (mut c, now) = (Courtesy::new(), Instant::now());
        while !turn(&mut c, true, now) {}
        c.stood_back(now, now + TAKEN / 2);
        assert!(turn(&mut c, true, now));
        c.stood_back(now, now + TAKEN);
        assert!(!turn(&mut c, true, now + TAKEN));
        assert!(turn(&mut c, true, now + TAKEN + FIRST));
    }
}
