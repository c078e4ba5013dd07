//! So many a second: what a guest can make us do, however often it tries.
//!
//! An allowance grows with time up to a limit, and shrinks by one with each use. So a burst passes,
//! and a flood costs no more than what it takes to drop it; whatever else the guest does goes on
//! beside it.

use super::Now;

/// What is left of an allowance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    per_ms: u64,
    at_once: u64,
    left: u64,
    /// As of this time, milliseconds.
    at: u64,
}

impl Allowance {
    /// `per_ms` in a millisecond, and `at_once` at once if there were none for a while.
    pub(super) const fn new(per_ms: u64, at_once: u64) -> Self {
        Self { per_ms, at_once, left: at_once, at: 0 }
    }

    /// True if there is one left, which is used.
    pub(super) fn spend(&mut self, now: Now) -> bool {
        let gained = now.ms().saturating_sub(self.at).saturating_mul(self.per_ms);
        self.at = now.ms();
        self.left = self.left.saturating_add(gained).min(self.at_once);
        let any = self.left > 0;
        self.left = self.left.saturating_sub(1);
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // [UDP-14] Not more than so many in a time.
    #[test]
    fn only_so_often() {
        let at = |ms: u64| Now(ms * 1000);
        let mut allowance = Allowance::new(4, 1000);
        let mut all = |ms| (0..5000).take_while(|_| allowance.spend(at(ms))).count();
        assert_eq!([all(7), all(7), all(8), all(10), all(9000)], [1000, 0, 4, 8, 1000]);
    }
}
