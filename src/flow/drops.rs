//! Why a packet was dropped: one name for tests, metrics and users.

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a packet from the guest, or for it, was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum DropReason { $($(#[$doc])* $name,)* }

        impl DropReason {
            /// Every reason, in order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The reason as users see it.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// Shorter than its headers claim.
    Truncated = "truncated",
    /// Longer than a link can carry.
    Oversized = "oversized",
    /// An EtherType other than IPv4, IPv6 and ARP.
    EtherType = "ethertype",
    /// Impossible version or length in an IP header.
    BadHeader = "bad-ip-header",
    /// IPv6 extension headers that may not be skipped, or too many of them.
    Extension = "ipv6-extension-header",
    /// A fragment that no packet has, or that does not fit the others of its packet.
    Fragment = "bad-fragment",
    /// A fragment that came before.
    FragmentDuplicate = "fragment-duplicate",
    /// A fragment that overlaps others, and those.
    FragmentOverlap = "fragment-overlap",
    /// A packet of which some fragments never came.
    FragmentTimeout = "fragment-timeout",
    /// A packet that waited for fragments and gave way to newer ones.
    FragmentLimit = "fragment-limit",
    /// A packet put together from fragments that do not belong together.
    FragmentChecksum = "fragment-checksum",
    /// A loopback address on the link.
    Loopback = "loopback-address",
    /// An address or port that no flow can have: unspecified, multicast source, port 0.
    Martian = "martian-address",
    /// The address family is disabled.
    Family = "family-disabled",
    /// A transport protocol we do not translate.
    Protocol = "protocol",
    /// A transport protocol that the user has disabled.
    Disabled = "protocol-disabled",
    /// Malformed transport header.
    BadTransport = "bad-transport-header",
    /// An ICMP message other than an echo request, or a report about a datagram of a flow.
    IcmpType = "icmp-type",
    /// Malformed or refused message of ARP, neighbour discovery, DHCP or DHCPv6.
    BadService = "bad-service-message",
    /// The flow table is full.
    TableFull = "flow-table-full",
    /// A flow of datagrams that nobody had answered, ended to make room for another one.
    Evicted = "flow-evicted",
    /// No socket could be had: descriptor limit or kernel memory.
    NoSocket = "no-socket",
    /// The host refused to send it.
    HostSend = "host-send-failed",
    /// Something that we would answer ourselves, had we not answered so much just now.
    AnswerLimit = "answer-limit",
    /// A request to a service of ours that is not offered.
    NoService = "service-not-offered",
    /// A TCP segment ahead of a hole for which there was no room.
    OutOfOrder = "out-of-order",
    /// TCP data beyond the window we offered.
    BeyondWindow = "beyond-window",
    /// A segment that does not fit the state of its connection.
    BadSegment = "bad-segment",
    /// The link could not take a frame for the guest.
    LinkFull = "link-full",
    /// A frame for the guest that cannot be built, for example a datagram that is too long.
    NotBuilt = "not-built",
    /// A ping to many: answers of others than the destination cannot be told apart.
    Multicast = "multicast-not-forwarded",
    /// That the guest is a member of a multicast group, or asks who is: the host does not join any
    /// for it.
    Membership = "multicast-membership",
    /// What the guest itself had sent to many, heard by a forwarded port.
    OwnMulticast = "own-multicast",
    /// A datagram from the host that no rule or flow wants.
    NoFlow = "no-flow",
    /// A guest that sent a length which no frame has, and was disconnected.
    BadLength = "bad-frame-length",
    /// A frame whose end never came, because its guest went away.
    CutOff = "frame-cut-off",
}

/// A counter per [`DropReason`].
#[derive(Clone, Debug)]
pub struct Drops([u64; DropReason::ALL.len()]);

impl Default for Drops {
    fn default() -> Self {
        Self([0; DropReason::ALL.len()])
    }
}

impl Drops {
    /// Counts one packet.
    pub fn count(&mut self, reason: DropReason) {
        if let Some(n) = self.0.get_mut(reason as usize) {
            *n = n.wrapping_add(1);
        }
    }

    /// Packets dropped for `reason`.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0.get(reason as usize).copied().unwrap_or(0)
    }

    /// Reasons that occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|&r| (r, self.get(r))).filter(|&(_, n)| n != 0)
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#[allow(clippy::cast_possible_truncation)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_reason() {
        let mut d = Drops::default();
        d.count(DropReason::NoFlow);
        d.count(DropReason::NoFlow);
        d.count(DropReason::Truncated);
        let got: Vec<_> = d.iter().map(|(r, n)| (r.text(), n)).collect();
        assert_eq!(got, [("truncated", 1), ("no-flow", 2)]);
    }
}
