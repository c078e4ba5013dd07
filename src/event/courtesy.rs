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

    /// A turn is over, which served transfers alone or not; true if others should go first.
    pub(super) fn wanted(&mut self, transfers: bool, now: Instant) -> bool {
        self.calm = if transfers { self.calm.saturating_add(1) } else { 0 };
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

    #[test]
    fn transfers_alone() {
        let (mut c, now) = (Courtesy::new(), Instant::now());
        for _ in 1..CALM {
            assert!(!c.wanted(true, now));
        }
        assert!(c.wanted(true, now));
        // Something else is served at once, and so is what it is answered with.
        assert!(!c.wanted(false, now));
        assert!(!c.wanted(true, now));
    }

    #[test]
    fn not_where_somebody_computes() {
        let (mut c, now) = (Courtesy::new(), Instant::now());
        while !c.wanted(true, now) {}
        c.stood_back(now, now + TAKEN / 2);
        assert!(c.wanted(true, now));
        c.stood_back(now, now + TAKEN);
        assert!(!c.wanted(true, now + TAKEN));
        assert!(c.wanted(true, now + TAKEN + FIRST));
    }
}
