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

impl Default for Timeouts {
    /// As the kernel's connection tracking does (`nf_conntrack_udp_timeout`, `.._stream`).
    fn default() -> Self {
        Self { short_ms: 30_000, stream_ms: 120_000 }
    }
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

    /// When the flow will have been idle for too long.
    pub(super) fn deadline(&self) -> Deadline {
        let both = self.near > 0 && self.far > 0;
        let stream = both && (self.near > 1 || self.far > 1);
        let limit = if stream { self.timeouts.stream_ms } else { self.timeouts.short_ms };
        Deadline::after(self.active, u64::from(limit).saturating_add(1))
    }
}
