//! Time as handlers see it.

/// One instant, read once per turn of the loop: microseconds of the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now(pub u64);

impl Now {
    /// Whole milliseconds.
    pub const fn ms(self) -> u64 {
        self.0 / 1000
    }
}

/// When something is due, in milliseconds of the monotonic clock, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(u64);

impl Deadline {
    /// Not armed.
    pub const NEVER: Self = Self(u64::MAX);

    /// `ms` milliseconds after `now`; at least one tick.
    pub const fn after(now: Now, ms: u64) -> Self {
        Self(now.ms().saturating_add(if ms == 0 { 1 } else { ms }))
    }

    /// The time in milliseconds, `None` if not armed.
    pub const fn at(self) -> Option<u64> {
        if self.0 == u64::MAX { None } else { Some(self.0) }
    }

    /// True if the time has come.
    pub const fn is_due(self, now: Now) -> bool {
        self.0 <= now.ms()
    }

    /// True if armed.
    pub const fn is_armed(self) -> bool {
        self.0 != u64::MAX
    }

    /// The earlier of the two.
    #[must_use]
    pub const fn min(self, other: Self) -> Self {
        if self.0 <= other.0 { self } else { other }
    }
}
