//! Whether to look again for a moment before going to sleep.
//!
//! # Theory of operation
//!
//! A request that meets a sleeping process pays for waking a processor, which costs more than
//! serving it. Where one small message follows the other, asking the kernel again for a few
//! microseconds before blocking is the cheaper way to wait, for us and for whoever waits for us.
//! Everywhere else it only takes time from those who have work to do (for transfers past the link
//! there is [courtesy](super::courtesy)), so four things must agree:
//!
//! - the last [`CALM`] turns were *small*: at most one event, served within [`SMALL`]. A transfer
//!   has larger ones among them;
//! - looking again has paid of late: every time it did not, twice as many waits go without, up to
//!   [`MOST_SKIPPED`];
//! - the processor is ours. Where others wait for it, time spent on looking is held against us, and
//!   when there is work we are made to wait. A small turn, or a look, that took [`TAKEN`] or longer
//!   shows that somebody else had the processor meanwhile. Then we sleep at once for a while, the
//!   longer the more often that happens;
//! - there is nothing else to do: the wait would have blocked.

use std::time::{Duration, Instant};

use super::rest::Rest;

/// How long to look again before blocking.
pub(super) const LIMIT: Duration = Duration::from_micros(50);

/// The longest a turn may take that counts as small.
const SMALL: Duration = Duration::from_micros(40);

/// Small turns in a row before we look again.
const CALM: u32 = 16;

/// Waits that go without after a row of disappointments.
const MOST_SKIPPED: u32 = 64;

/// Nothing of ours that is small takes as long as this.
const TAKEN: Duration = Duration::from_micros(400);

/// What the recent turns were like.
#[derive(Debug)]
pub(super) struct Spin {
    calm: u32,
    skip: u32,
    back: u32,
    rest: Rest,
}

impl Spin {
    pub(super) const fn new() -> Self {
        Self { calm: 0, skip: 0, back: 1, rest: Rest::new() }
    }

    /// A turn of so many events is over that began and ended then; true if looking again is worth
    /// it.
    pub(super) fn wanted(&mut self, events: usize, (began, now): (Instant, Instant)) -> bool {
        let took = now.saturating_duration_since(began);
        if events > 1 || took > SMALL {
            if self.calm >= CALM && events <= 1 && took >= TAKEN {
                self.rest.begin(now);
            }
            self.calm = 0;
            return false;
        }
        self.calm = self.calm.saturating_add(1);
        if self.calm < CALM || self.rest.lasts(now) {
            return false;
        }
        self.skip = self.skip.saturating_sub(1);
        self.skip == 0
    }

    /// Whether looking again found something, and how long it took, from when to when.
    pub(super) fn looked(&mut self, found: bool, (began, now): (Instant, Instant)) {
        if now.saturating_duration_since(began) >= TAKEN {
            self.rest.begin(now);
        }
        if found {
            self.back = 1;
        } else {
            self.back = self.back.saturating_mul(2).min(MOST_SKIPPED);
            self.skip = self.back;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rest::{FIRST, MOST};
    use super::*;

    const QUICK: Duration = Duration::from_micros(5);

    /// A clock that stands still but for what tests do.
    struct Rig {
        spin: Spin,
        now: Instant,
    }

    impl Rig {
        fn new() -> Self {
            Self { spin: Spin::new(), now: Instant::now() }
        }

        fn turn(&mut self, events: usize, took: Duration) -> bool {
            let began = self.now;
            self.now += took;
            self.spin.wanted(events, (began, self.now))
        }

        fn look(&mut self, found: bool, took: Duration) {
            let began = self.now;
            self.now += took;
            self.spin.looked(found, (began, self.now));
        }

        fn calm(&mut self) {
            for _ in 1..CALM {
                assert!(!self.turn(1, QUICK));
            }
            assert!(self.turn(1, QUICK));
            self.look(true, QUICK);
        }
    }

    #[test]
    fn one_small_message_after_the_other() {
        let mut rig = Rig::new();
        rig.calm();
        for _ in 0..100 {
            assert!(rig.turn(1, QUICK));
            rig.look(true, QUICK);
        }
    }

    #[test]
    fn neither_a_transfer_nor_many_at_once() {
        for (events, took) in [(2, QUICK), (1, SMALL + QUICK), (100, TAKEN)] {
            let mut rig = Rig::new();
            rig.calm();
            assert!(!rig.turn(events, took));
            rig.calm();
        }
    }

    #[test]
    fn disappointments_are_rare() {
        let mut rig = Rig::new();
        rig.calm();
        let mut tried = 0;
        for _ in 0..6400 {
            if rig.turn(1, QUICK) {
                rig.look(false, LIMIT);
                tried += 1;
            }
        }
        assert!((100..=106).contains(&tried), "{tried}");
        // One that was worth it is followed by others.
        while !rig.turn(1, QUICK) {}
        rig.look(true, QUICK);
        assert!(rig.turn(1, QUICK));
    }

    #[test]
    fn others_go_first() {
        let mut rig = Rig::new();
        rig.calm();
        let mut rest = FIRST;
        for _ in 0..10 {
            assert!(rig.turn(1, QUICK));
            rig.look(true, TAKEN);
            let until = rig.now + rest;
            while rig.now + QUICK < until {
                assert!(!rig.turn(1, QUICK));
            }
            assert!(rig.turn(1, QUICK) || rig.turn(1, QUICK));
            rest = (rest * 2).min(MOST);
        }
        // The same if it happens while we serve something, and less when it is long ago.
        rig.now += MOST * 3;
        assert!(!rig.turn(2, QUICK));
        rig.calm();
        assert!(!rig.turn(1, TAKEN));
        rig.now += FIRST;
        rig.calm();
    }
}
