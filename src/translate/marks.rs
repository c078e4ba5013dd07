//! What the guest's packets say about how they are to travel, and what its sockets were told of
//! it: TTL, type of service, and whether they may be cut [UDP-8] [ICMP-3].
//!
//! # Theory of operation
//!
//! Socket options are set only when something changes, which is seldom.
//!
//! **Don't fragment.** What the guest forbids to cut leaves as one packet with the same flag,
//! whatever the host has learnt about the path (`IP_PMTUDISC_PROBE`): so routers tell the guest
//! what fits, and it is the guest that remembers. What it allows to cut, by leaving the flag away
//! or by having cut it itself, the host or any router may cut (`IP_PMTUDISC_DONT`).
//!
//! **Longer than any packet of the host.** The guest's MTU may be larger than that of the host's
//! link: it makes frames cheap, and says nothing about the network. Kernels set the flag on all that
//! fits it. So what is too long for the host's first link is cut by the host's kernel, once and for
//! the whole flow (`IP_PMTUDISC_WANT`). Who only wants to know what the path is like is told, though: a
//! packet that is not to get further than [`PROBE_TTL`] hops.

use super::{DatagramSockets, SockId};

/// Most hops of what traces a path; what is to arrive gets 64 and more.
const PROBE_TTL: u8 = 30;

/// How a packet of the guest is to travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// TTL or hop limit.
    pub ttl: u8,
    /// Type of service or traffic class.
    pub tos: u8,
    /// It must not be cut.
    pub df: bool,
}

impl Marks {
    /// True if its sender wants to hear of what is in its way.
    pub(super) fn is_probe(&self) -> bool {
        self.df && self.few_hops().is_some()
    }

    /// The TTL or hop limit of what is not to get far.
    pub(super) fn few_hops(&self) -> Option<u8> {
        Some(self.ttl).filter(|ttl| (1..=PROBE_TTL).contains(ttl))
    }
}

/// What the kernel does about packets that are too long (`IP_MTU_DISCOVER`, ip(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MtuDiscovery {
    /// Cuts what is longer than the path is known to take; the rest may not be cut on its way.
    Want,
    /// Cuts nothing, and sends what fits the first link; nobody may cut it on its way.
    Probe,
    /// Cuts what is longer than the path is known to take; all may be cut further.
    Dont,
}

/// What a socket was told.
#[derive(Debug)]
pub(super) struct Told {
    ttl: Option<u8>,
    tos: u8,
    discovery: MtuDiscovery,
    /// The guest sent what the host's link does not take.
    oversized: bool,
}

impl Told {
    /// Nothing yet: a new socket.
    pub(super) fn new() -> Self {
        Self { ttl: None, tos: 0, discovery: MtuDiscovery::Want, oversized: false }
    }

    /// Sees to it that what is sent next travels like this.
    pub(super) fn tell<N: DatagramSockets>(
        &mut self,
        sock: SockId,
        v4: bool,
        marks: Marks,
        net: &mut N,
    ) {
        if self.ttl != Some(marks.ttl) {
            self.ttl = Some(marks.ttl);
            net.set_ttl(sock, v4, marks.ttl);
        }
        if self.tos != marks.tos {
            self.tos = marks.tos;
            net.set_mark(sock, v4, marks.tos);
        }
        let discovery = match (marks.df, self.oversized) {
            (true, false) => MtuDiscovery::Probe,
            (true, true) => MtuDiscovery::Want,
            (false, _) => MtuDiscovery::Dont,
        };
        if self.discovery != discovery {
            self.discovery = discovery;
            net.set_mtu_discovery(sock, v4, discovery);
        }
    }

    /// Sends again what the host's link did not take: from now on the host may cut that. False if
    /// it was not sent, or if the host could have cut it before.
    pub(super) fn send_oversized<N: DatagramSockets>(
        &mut self,
        sock: SockId,
        v4: bool,
        (data, segment, marks): (&[u8], u16, Marks),
        net: &mut N,
    ) -> bool {
        if std::mem::replace(&mut self.oversized, true) {
            return false;
        }
        self.tell(sock, v4, marks, net);
        net.send_datagram(sock, data, segment).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translate::fake::{Rig, SOCK};

    // [UDP-8] [ICMP-3] The socket is told when something changes, and only then.
    #[test]
    fn told_once() {
        for v4 in [true, false] {
            let (mut rig, mut told) = (Rig::new(), Told::new());
            for (ttl, tos, df) in
                [(64, 0, true), (64, 0, true), (9, 0, true), (9, 4, false), (9, 4, false)]
            {
                told.tell(SOCK, v4, Marks { ttl, tos, df }, &mut rig.net);
            }
            assert_eq!(rig.net.ttls, [(v4, 64), (v4, 9)]);
            assert_eq!(rig.net.tos, [(v4, 4)]);
            assert_eq!(rig.net.discovery, [(v4, MtuDiscovery::Probe), (v4, MtuDiscovery::Dont)]);
        }
    }

    // [UDP-8] Once something was too long for the host's link, it cuts; what may be cut by anyone
    // still may.
    #[test]
    fn oversized() {
        let (mut rig, mut told) = (Rig::new(), Told::new());
        let marks = Marks { ttl: 64, tos: 0, df: true };
        told.tell(SOCK, true, marks, &mut rig.net);
        let again = (&[7][..], 0, marks);
        assert!(told.send_oversized(SOCK, true, again, &mut rig.net));
        assert!(!told.send_oversized(SOCK, true, again, &mut rig.net));
        assert_eq!(rig.net.sent, [(vec![7], 0)]);
        told.tell(SOCK, true, marks, &mut rig.net);
        told.tell(SOCK, true, Marks { df: false, ..marks }, &mut rig.net);
        told.tell(SOCK, true, marks, &mut rig.net);
        let (want, dont) = (MtuDiscovery::Want, MtuDiscovery::Dont);
        let set: Vec<_> = rig.net.discovery.iter().map(|d| d.1).collect();
        assert_eq!(set, [MtuDiscovery::Probe, want, dont, want]);
    }
}
