//! What has been seen of a connection [TCP-11].

/// A set of events.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Events(u32);

impl Events {
    /// The guest's SYN was received; the host socket is connecting or SYN,ACK is on its way.
    pub const CONNECTING: Self = Self(1 << 0);
    /// SYN,ACK was sent to the guest.
    pub const SYNACK_SENT: Self = Self(1 << 1);
    /// A peer connected; SYN was sent to the guest.
    pub const SYN_SENT: Self = Self(1 << 2);
    /// The handshake with the guest is complete.
    pub const ESTABLISHED: Self = Self(1 << 3);
    /// The guest's FIN was accepted.
    pub const GUEST_FIN: Self = Self(1 << 4);
    /// The guest's FIN was passed on: the write side of the socket is shut.
    pub const PEER_SHUT: Self = Self(1 << 5);
    /// The peer's FIN was passed on to the guest.
    pub const FIN_SENT: Self = Self(1 << 6);
    /// The guest has acknowledged it.
    pub const FIN_ACKED: Self = Self(1 << 7);

    /// The socket may have data (or its end) beyond the peek offset.
    pub const READABLE: Self = Self(1 << 8);
    /// The peer's FIN may be in the queue: read on to the end.
    pub const READ_CLOSED: Self = Self(1 << 9);
    /// An acknowledgement is owed whatever the numbers say.
    pub const FORCE_ACK: Self = Self(1 << 10);
    /// The peer is on this host or next to it: what the socket takes counts as delivered.
    pub const LOCAL: Self = Self(1 << 11);
    /// The transfer is bulk: acknowledge what the socket takes, so that it stays full.
    pub const BULK: Self = Self(1 << 12);
    /// A SYN had to be repeated; later timeouts start at three seconds (RFC 6298, 5.7).
    pub const SYN_RETRIED: Self = Self(1 << 13);
    /// The connection was opened by a peer.
    pub const INBOUND: Self = Self(1 << 14);
    /// The guest's window scale option was seen, so ours is in force.
    pub const SCALED: Self = Self(1 << 15);
    /// Something that was sent is or may be lost: `rtx`, `rtx_end` and `recover` are in use.
    pub const LOSS: Self = Self(1 << 16);
    /// The guest sent something since the last keepalive scan.
    pub const GUEST_HEARD: Self = Self(1 << 17);
    /// Guest or socket stirred since the last inactivity scan.
    pub const ACTIVE: Self = Self(1 << 18);
    /// The link could not take what there is for the guest; the timer tries again.
    pub const LINK_FULL: Self = Self(1 << 19);
    /// The socket's receive queue was empty when acknowledged bytes were last removed from it.
    pub const DRAINED: Self = Self(1 << 20);
    /// The backlog has waited so long that it is acknowledged.
    pub const PARKED: Self = Self(1 << 21);

    /// A local peer was slower to answer than we are to acknowledge: do not wait for its answer.
    pub const QUICK_ACK: Self = Self(1 << 22);
    /// Both sides offered timestamps, so every segment carries them (RFC 7323, 3.2).
    pub const TIMESTAMPS: Self = Self(1 << 23);
    /// Both sides permitted SACK blocks (RFC 2018, 2).
    pub const SACK: Self = Self(1 << 24);
    /// Where the guest's data ends is known, but not all of it is here.
    pub const FIN_AHEAD: Self = Self(1 << 25);
    /// The guest was told of a hole, and not yet that it is closed.
    pub const HOLE_TOLD: Self = Self(1 << 26);
    /// The segment that ends at `timed` was sent once, at `timed_at`.
    pub const TIMING: Self = Self(1 << 27);
    /// The timer is set to probe whether the last segments arrived (RFC 8985, 7).
    pub const PROBE: Self = Self(1 << 28);
    /// That was done, without an answer yet.
    pub const PROBED: Self = Self(1 << 29);
    /// The timer is set to the end of the wait for segments that others have overtaken.
    pub const REORDER: Self = Self(1 << 30);

    /// Data of the guest went to the socket in this batch, which took all of it: what follows in
    /// short segments is gathered in the backlog until the batch ends.
    pub const GATHER: Self = Self(1 << 31);

    /// True if all of `other` have happened.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// True if any of `other` has happened.
    pub const fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Adds events.
    pub const fn set(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Removes events.
    pub const fn clear(&mut self, other: Self) {
        self.0 &= !other.0;
    }

    /// Both sets.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const NAMES: [&str; 32] = [
            "connecting",
            "synack-sent",
            "syn-sent",
            "established",
            "guest-fin",
            "peer-shut",
            "fin-sent",
            "fin-acked",
            "readable",
            "read-closed",
            "force-ack",
            "local",
            "bulk",
            "syn-retried",
            "inbound",
            "scaled",
            "loss",
            "guest-heard",
            "active",
            "link-full",
            "drained",
            "parked",
            "quick-ack",
            "timestamps",
            "sack",
            "fin-ahead",
            "hole-told",
            "timing",
            "probe",
            "probed",
            "reorder",
            "gather",
        ];
        let set = (0u32..).zip(NAMES).filter(|(n, _)| self.0 >> n & 1 == 1);
        f.debug_set().entries(set.map(|(_, name)| name)).finish()
    }
}
