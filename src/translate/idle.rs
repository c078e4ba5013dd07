//! How long a UDP exchange may be idle [UDP-10].

use super::{Deadline, Now};

/// How long a flow may be idle, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A single datagram, or one question and one answer.
    pub short_ms: u32,
    /// Traffic both ways, and more than one datagram one way.
    pub stream_ms: u32,
}

impl Timeouts {
    /// From what the kernel tells, in seconds; its defaults where it does not. Zero is none.
    #[must_use]
    pub fn new(short: Option<u32>, stream: Option<u32>) -> Self {
        let ms = |s: Option<u32>, or| s.filter(|s| *s > 0).map_or(or, |s| s.saturating_mul(1000));
        let Self { short_ms, stream_ms } = Self::default();
        Self { short_ms: ms(short, short_ms), stream_ms: ms(stream, stream_ms) }
    }
}

impl Default for Timeouts {
    /// As the kernel's connection tracking does (`nf_conntrack_udp_timeout`, `.._stream`).
    fn default() -> Self {
        Self { short_ms: 30_000, stream_ms: 120_000 }
    }
}

/// How far an exchange has come that is not a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Brief {
    /// Only one side has sent anything.
    Unanswered,
    /// Both have, once.
    Answered,
}

/// What decides when a flow has been idle for too long.
#[derive(Debug)]
pub(super) struct Idle {
    /// Last time a datagram passed, either way.
    active: Now,
    timeouts: Timeouts,
    /// Visits with datagrams of the namespace or guest; saturates.
    near: u8,
    /// Visits with datagrams of the host or peer; saturates.
    far: u8,
}

impl Idle {
    pub(super) fn new(timeouts: Timeouts, now: Now) -> Self {
        Self { active: now, timeouts, near: 0, far: 0 }
    }

    /// Datagrams came from namespace or guest.
    pub(super) fn near(&mut self, now: Now) {
        self.near = self.near.saturating_add(1);
        self.active = now;
    }

    /// Datagrams came from the host or beyond.
    pub(super) fn far(&mut self, now: Now) {
        self.far = self.far.saturating_add(1);
        self.active = now;
    }

    /// How far it has come, and when it was used last, if it is not a conversation.
    pub(super) fn brief(&self) -> Option<(Brief, Now)> {
        let how = match (self.near, self.far) {
            (0, _) | (_, 0) => Brief::Unanswered,
            (1, 1) => Brief::Answered,
            _ => return None,
        };
        Some((how, self.active))
    }

    /// When it will have been idle for so long, milliseconds.
    pub(super) fn within(&self, ms: u64) -> Deadline {
        Deadline::after(self.active, ms)
    }

    /// When the flow will have been idle for too long.
    pub(super) fn deadline(&self) -> Deadline {
        let stream = self.brief().is_none();
        let limit = if stream { self.timeouts.stream_ms } else { self.timeouts.short_ms };
        Deadline::after(self.active, u64::from(limit).saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // [UDP-10] What the kernel tells, its defaults otherwise.
    #[test]
    fn limits_of_the_kernel() {
        let limits = |short, stream| {
            let Timeouts { short_ms, stream_ms } = Timeouts::new(short, stream);
            (short_ms, stream_ms)
        };
        assert_eq!(limits(None, None), (30_000, 120_000));
        assert_eq!(limits(Some(10), Some(180)), (10_000, 180_000));
        assert_eq!(limits(Some(0), Some(u32::MAX)), (30_000, u32::MAX));
    }
}
