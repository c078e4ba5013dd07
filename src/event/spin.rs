//! Whether to look again for a moment before going to sleep.
//!
//! # Theory of operation
//!
//! A request that meets a sleeping process pays for waking a processor, which costs more than
//! serving it. Where one small message follows the other, asking the kernel again for a few
//! microseconds before blocking is the cheaper way to wait, for us and for whoever waits for us.
//! Everywhere else it only takes time from those who have work to do, so three things must agree:
//!
//! - the last [`CALM`] turns were *small*: at most one event, served within [`SMALL`]. A transfer
//!   has larger ones among them, and so has a machine on which we are made to wait for a processor;
//! - looking again has paid of late: every time it did not, twice as many waits go without, up to
//!   [`MOST_SKIPPED`];
//! - there is nothing else to do: the wait would have blocked.

use std::time::Duration;

/// How long to look again before blocking.
pub(super) const LIMIT: Duration = Duration::from_micros(50);

/// The longest a turn may take that counts as small.
const SMALL: Duration = Duration::from_micros(40);

/// Small turns in a row before we look again.
const CALM: u32 = 16;

/// Waits that go without after a row of disappointments.
const MOST_SKIPPED: u32 = 64;

/// What the recent turns were like.
#[derive(Debug)]
pub(super) struct Spin {
    calm: u32,
    skip: u32,
    back: u32,
}

impl Spin {
    pub(super) const fn new() -> Self {
        Self { calm: 0, skip: 0, back: 1 }
    }

    /// A turn of so many events is over; true if looking again is worth it.
    pub(super) fn wanted(&mut self, events: usize, took: Duration) -> bool {
        if events > 1 || took > SMALL {
            self.calm = 0;
            return false;
        }
        self.calm = self.calm.saturating_add(1);
        if self.calm < CALM {
            return false;
        }
        self.skip = self.skip.saturating_sub(1);
        self.skip == 0
    }

    /// Whether looking again found something.
    pub(super) fn found(&mut self, something: bool) {
        if something {
            self.back = 1;
        } else {
            self.back = self.back.saturating_mul(2).min(MOST_SKIPPED);
            self.skip = self.back;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_micros(5);

    fn calmed() -> Spin {
        let mut spin = Spin::new();
        for _ in 1..CALM {
            assert!(!spin.wanted(1, QUICK));
        }
        spin
    }

    #[test]
    fn one_small_message_after_the_other() {
        let mut spin = calmed();
        for _ in 0..100 {
            assert!(spin.wanted(1, QUICK));
            spin.found(true);
        }
    }

    #[test]
    fn neither_a_transfer_nor_many_at_once() {
        for (events, took) in [(2, QUICK), (1, SMALL + QUICK)] {
            let mut spin = calmed();
            assert!(spin.wanted(1, QUICK));
            spin.found(true);
            assert!(!spin.wanted(events, took));
            for _ in 1..CALM {
                assert!(!spin.wanted(1, QUICK));
            }
            assert!(spin.wanted(1, QUICK));
        }
    }

    #[test]
    fn disappointments_are_rare() {
        let mut spin = calmed();
        let mut tried = 0;
        for _ in 0..6400 {
            if spin.wanted(1, QUICK) {
                spin.found(false);
                tried += 1;
            }
        }
        assert!((100..=106).contains(&tried), "{tried}");
        // One that was worth it is followed by others.
        while !spin.wanted(1, QUICK) {}
        spin.found(true);
        assert!(spin.wanted(1, QUICK));
    }
}
