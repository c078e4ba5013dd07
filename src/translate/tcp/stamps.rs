//! Timestamps of an established connection (RFC 7323).
//!
//! Our clock ticks once a millisecond, from an offset that differs for every pair of endpoints.
//! What we echo is the timestamp of the segment that moved, or would have moved, our last
//! acknowledgement, so that the guest measures the time to the acknowledgement and not less.
//!
//! A segment with a timestamp before the one we would echo is an old duplicate, whatever its
//! sequence number says (PAWS, RFC 7323, 5). That one cannot be so old itself that the comparison
//! turns round, after 24 days: the keepalive of `timer.rs` makes a silent guest send a new one, and
//! a connection on which nothing happens for some hours is ended.

use super::{Events, Tcp};
use crate::translate::Now;
use crate::wire::{Segment, Seq, Timestamps};

impl Tcp {
    /// Our clock.
    pub(super) fn ts_now(&self, now: Now) -> u32 {
        // It wraps, as the field does.
        let low = u32::try_from(now.ms() & 0xffff_ffff).unwrap_or(0);
        low.wrapping_add(self.ts_offset)
    }

    /// The option for a segment that leaves now.
    pub(super) fn timestamps(&self, now: Now) -> Timestamps {
        Timestamps { value: self.ts_now(now), echo: self.ts_recent }
    }

    /// True for an old duplicate. A segment without the option is not taken for one.
    pub(super) fn is_outdated(&self, seg: &Segment<'_>) -> bool {
        self.events.has(Events::TIMESTAMPS)
            && Timestamps::find(seg.options).is_some_and(|s| is_before(s.value, self.ts_recent))
    }

    /// Remembers the timestamp of an acceptable segment, if it is to be echoed: not before a later
    /// one, and only of a segment that begins at or before `acked`, what we acknowledged last
    /// (RFC 7323, 4.3).
    pub(super) fn take_timestamp(&mut self, seg: &Segment<'_>, acked: Seq) {
        let old = seg.seq.add(seg.seq_len()).before(acked);
        if !self.events.has(Events::TIMESTAMPS) || seg.seq.after(acked) || old {
            return;
        }
        if let Some(stamps) = Timestamps::find(seg.options)
            && !is_before(stamps.value, self.ts_recent)
        {
            self.ts_recent = stamps.value;
        }
    }
}

/// Timestamps wrap and compare as sequence numbers do (RFC 7323, 5.2).
fn is_before(a: u32, b: u32) -> bool {
    Seq(a).before(Seq(b))
}
