//! Refraining from something for a while, the longer the more often it turned out badly.

use std::time::{Duration, Instant};

/// How long: at first, and at most.
pub(super) const FIRST: Duration = Duration::from_millis(100);
pub(super) const MOST: Duration = Duration::from_secs(5);

/// Until when, and how long it was.
#[derive(Debug)]
pub(super) struct Rest {
    length: Duration,
    until: Option<Instant>,
}

impl Rest {
    pub(super) const fn new() -> Self {
        Self { length: FIRST, until: None }
    }

    /// True while it lasts.
    pub(super) fn lasts(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Begins one: twice as long as the last, unless that is long ago.
    pub(super) fn begin(&mut self, now: Instant) {
        let again = self.until.is_some_and(|until| now < until + self.length);
        self.length = if again { self.length.saturating_mul(2).min(MOST) } else { FIRST };
        self.until = Some(now + self.length);
    }
}
