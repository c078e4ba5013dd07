//! Trying again what failed for want of something whose return nobody announces: room on the link,
//! memory of the pool.

use super::{Deadline, Now};

/// Time to the second attempt, milliseconds.
pub(super) const FIRST_MS: u64 = 5;

/// How often the time doubles while attempts fail: to 640 ms.
pub(super) const DOUBLINGS: u8 = 7;

/// When to try again: soon at first, and less and less often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    at: Deadline,
    tries: u8,
}

impl Default for Retry {
    fn default() -> Self {
        Self { at: Deadline::NEVER, tries: 0 }
    }
}

impl Retry {
    /// An attempt failed. One before its time changes nothing.
    pub(super) fn later(&mut self, now: Now) {
        if self.at.is_armed() && !self.at.is_due(now) {
            return;
        }
        self.at = Deadline::after(now, FIRST_MS << self.tries.min(DOUBLINGS));
        self.tries = self.tries.saturating_add(1);
    }

    /// An attempt succeeded, or there is nothing to try.
    pub(super) fn done(&mut self) {
        *self = Self::default();
    }

    /// When to try.
    pub(super) fn deadline(&self) -> Deadline {
        self.at
    }

    /// True if it is time.
    pub(super) fn is_due(&self, now: Now) -> bool {
        self.at.is_due(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_get_rarer_until_one_succeeds() {
        let at = |ms: u64| Now(ms * 1000);
        let mut retry = Retry::default();
        assert!(!retry.deadline().is_armed());
        let mut now = 0;
        let mut waits = vec![];
        for _ in 0..9 {
            retry.later(at(now));
            // Others may fail meanwhile.
            retry.later(at(now + 1));
            let due = retry.deadline().at().unwrap_or(u64::MAX);
            assert!(!retry.is_due(at(due - 1)) && retry.is_due(at(due)));
            waits.push(due - now);
            now = due;
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 640, 640]);
        retry.done();
        assert!(!retry.deadline().is_armed());
        retry.later(at(now));
        assert_eq!(retry.deadline().at(), Some(now + 5));
    }
}
