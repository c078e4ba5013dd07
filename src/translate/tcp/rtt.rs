//! The round-trip time to the guest, and the timeouts that follow from it (RFC 6298, RFC 8985).
//!
//! One segment at a time is timed, and none that may have been sent twice (Karn's algorithm).
//! While something is being repeated, the guest's timestamps tell which transmission it answers,
//! if there are any.

/// Timeouts that are the same for every connection: what the host's kernel uses itself [TCP-72].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Repetitions of SYN or SYN,ACK before a connection attempt is given up [TCP-23].
    pub syn_retries: u8,
    /// Timeouts of equal length before they double.
    pub syn_linear: u8,
    /// The longest retransmission timeout, milliseconds.
    pub rto_max_ms: u32,
}

impl Timeouts {
    /// From the host's `tcp_syn_retries`, `tcp_syn_linear_timeouts` and `tcp_rto_max_ms`; the
    /// kernel's defaults where it has none.
    pub fn new(retries: Option<u32>, linear: Option<u32>, rto_max_ms: Option<u32>) -> Self {
        let [retries, linear] = [retries.unwrap_or(6), linear.unwrap_or(4)].map(|n| n.min(127));
        let all = retries.saturating_add(linear).min(MAX_SYN_RETRIES.into());
        let seconds = rto_max_ms.unwrap_or(120_000).div_ceil(1000).clamp(1, 120);
        Self {
            syn_retries: u8::try_from(all).unwrap_or(MAX_SYN_RETRIES),
            syn_linear: u8::try_from(linear).unwrap_or(u8::MAX),
            rto_max_ms: seconds.saturating_mul(1000),
        }
    }

    /// Time to wait for an answer to our SYN or SYN,ACK after `retries` repetitions, milliseconds.
    pub(super) fn handshake_ms(&self, retries: u8) -> u64 {
        self.backed_off(INITIAL_MS, retries.saturating_sub(self.syn_linear))
    }

    /// `ms` doubled so many times, milliseconds.
    pub(super) fn backed_off(&self, ms: u64, doublings: u8) -> u64 {
        ms.checked_shl(doublings.into()).unwrap_or(u64::MAX).min(self.rto_max_ms.into())
    }

    /// True if a connection whose first timeout was `ms` has been without an answer for long
    /// enough after `retries` repetitions [TCP-73]: seven, and no shorter than seven that start at
    /// one second. A guest that usually answers within a millisecond may still be paused for a
    /// minute (RFC 9293, 3.8.3: no less than 100 seconds).
    pub(super) fn is_hopeless(&self, ms: u64, retries: u8) -> bool {
        let after = |ms, retries| -> u64 { (0..=retries).map(|n| self.backed_off(ms, n)).sum() };
        retries >= MAX_RETRIES && after(ms, retries) >= after(INITIAL_MS, MAX_RETRIES)
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self::new(None, None, None)
    }
}

/// Retransmission timeout before there is a measurement, milliseconds (RFC 6298, 2.1).
const INITIAL_MS: u64 = 1000;

/// The same after a repeated SYN (RFC 6298, 5.7).
const INITIAL_AFTER_SYN_MS: u64 = 3000;

/// The longest that a guest is expected to wait before it acknowledges, milliseconds: Linux up to
/// 40, Windows and BSD up to 200. A timeout that leaves no room for that repeats what has arrived.
const MAX_ACK_DELAY_MS: u64 = 200;

/// Granularity of the clock of deadlines, milliseconds: one that was set within this millisecond
/// may be early by as much.
const GRANULARITY_MS: u64 = 1;

/// Retransmissions in a row before the connection is given up, at least [TCP-73].
const MAX_RETRIES: u8 = 7;

/// Repetitions of SYN or SYN,ACK at most.
const MAX_SYN_RETRIES: u8 = 7;

/// An estimate of the round-trip time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rtt {
    /// Smoothed, microseconds; 0 means not measured yet.
    smoothed: u32,
    /// Mean deviation, microseconds.
    variation: u32,
}

impl Rtt {
    /// A measurement, microseconds (RFC 6298, 2.2 and 2.3).
    pub(super) fn sample(&mut self, us: u32) {
        let us = us.max(1);
        if self.smoothed == 0 {
            (self.smoothed, self.variation) = (us, us / 2);
            return;
        }
        let mix = |old: u32, new: u32, shift: u32| {
            let old = u64::from(old);
            let mixed = (old << shift).saturating_sub(old).saturating_add(new.into()) >> shift;
            u32::try_from(mixed).unwrap_or(u32::MAX)
        };
        self.variation = mix(self.variation, self.smoothed.abs_diff(us), 2);
        self.smoothed = mix(self.smoothed, us, 3).max(1);
    }

    /// True if there was a measurement.
    pub(super) fn is_known(self) -> bool {
        self.smoothed != 0
    }

    /// The retransmission timeout, not backed off, milliseconds.
    pub(super) fn rto_ms(self, syn_retried: bool) -> u64 {
        if !self.is_known() {
            return if syn_retried { INITIAL_AFTER_SYN_MS } else { INITIAL_MS };
        }
        let margin = u64::from(self.variation).saturating_mul(4).div_ceil(1000);
        let smoothed = u64::from(self.smoothed).div_ceil(1000);
        smoothed.saturating_add(margin.max(MAX_ACK_DELAY_MS))
    }

    /// When to probe whether the last segments arrived, milliseconds (RFC 8985, 7.2). A guest may
    /// delay its acknowledgement of a single segment.
    pub(super) fn probe_ms(self, single: bool) -> u64 {
        let twice = u64::from(self.smoothed).saturating_mul(2).div_ceil(1000);
        let extra = if single { MAX_ACK_DELAY_MS } else { GRANULARITY_MS };
        twice.saturating_add(extra)
    }

    /// For how long a segment may have been overtaken by others, milliseconds (RFC 8985, 6.2).
    pub(super) fn reorder_ms(self) -> u64 {
        u64::from(self.smoothed / 4).div_ceil(1000).saturating_add(GRANULARITY_MS)
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // [TCP-72] RFC 6298, section 2: first measurement, and the next.
    #[test]
    fn estimate() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.rto_ms(false), 1000);
        assert_eq!(rtt.rto_ms(true), 3000);
        rtt.sample(800_000);
        assert_eq!(rtt, Rtt { smoothed: 800_000, variation: 400_000 });
        assert_eq!(rtt.rto_ms(true), 800 + 1600);
        rtt.sample(1_600_000);
        assert_eq!(rtt, Rtt { smoothed: 900_000, variation: 500_000 });
        assert_eq!(rtt.rto_ms(false), 900 + 2000);
    }

    // [TCP-72] Never so short that a delayed acknowledgement is late.
    #[test]
    fn least_timeout() {
        let mut rtt = Rtt::default();
        for _ in 0..100 {
            rtt.sample(50);
        }
        assert_eq!(rtt.rto_ms(false), 201);
        assert_eq!(rtt.probe_ms(true), 201);
        assert_eq!(rtt.probe_ms(false), 2);
    }

    // [TCP-23] What the host's settings make of it.
    #[test]
    fn host_settings() {
        let all = |t: Timeouts| (0..=t.syn_retries).map(|n| t.handshake_ms(n)).collect::<Vec<_>>();
        let s = 1000;
        let usual = [s, s, s, s, s, 2 * s, 4 * s, 8 * s];
        assert_eq!(all(Timeouts::default()), usual);
        assert_eq!(all(Timeouts::new(Some(200), Some(200), None)), [s; 8]);
        assert_eq!(all(Timeouts::new(Some(3), Some(1), None)), [s, s, 2 * s, 4 * s, 8 * s]);
        assert_eq!(
            all(Timeouts::new(Some(4), Some(0), Some(2500))),
            [s, 2 * s, 3 * s, 3 * s, 3 * s]
        );
        assert_eq!(all(Timeouts::new(Some(0), Some(0), None)), [s]);
    }

    // [TCP-73] Seven retransmissions, and with a short timeout as many as take as long.
    #[test]
    fn end() {
        let t = Timeouts::default();
        let last = |ms| (0..100).find(|n| t.is_hopeless(ms, *n));
        assert_eq!(last(1000), Some(7));
        assert_eq!(last(3000), Some(7));
        assert_eq!(last(200), Some(10));
        assert_eq!(t.backed_off(200, 10), 120_000);
        assert_eq!(t.backed_off(3000, 200), 120_000);
    }

    proptest! {
        #[test]
        fn stays_between_its_samples(us in proptest::collection::vec(1u32..u32::MAX, 1..50)) {
            let mut rtt = Rtt::default();
            for us in &us {
                rtt.sample(*us);
            }
            let (min, max) = (us.iter().min().copied(), us.iter().max().copied());
            prop_assert!(Some(rtt.smoothed) >= min && Some(rtt.smoothed) <= max);
            prop_assert!(rtt.rto_ms(false) >= 200);
        }
    }
}
