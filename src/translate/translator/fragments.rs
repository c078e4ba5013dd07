//! Fragments of the guest.

use super::Translator;
use crate::flow::{DropReason, Drops};
use crate::services::ndp;
use crate::translate::reassembly::Expired;
use crate::translate::{DatagramSockets, FrameOut, SpliceSockets, TcpSockets};
use crate::wire::{Endpoint, Fragment, Frame, IcmpError, Packet, Path, TTL, Vnet, proto};

impl<O: FrameOut, N: TcpSockets + DatagramSockets + SpliceSockets> Translator<O, N> {
    /// A fragment; the last one that was missing makes a packet like any other.
    #[cold]
    pub(super) fn on_fragment(&mut self, frame: &Frame<'_>, vnet: &Vnet, part: &Fragment<'_>) {
        // It lends us the packet while everything else handles it.
        let mut reassembly = std::mem::take(&mut self.reassembly);
        // A kernel that cuts has made the checksum before.
        let summed = !vnet.needs_csum;
        let packet = reassembly.add(part, summed, self.now.ms(), &mut self.drops);
        match packet {
            // RFC 6980, 5.
            Some(packet) if is_discovery(&packet) => self.drops.count(DropReason::BadService),
            Some(packet) => self.on_packet(frame, &Vnet::default(), &packet),
            None => {}
        }
        self.reassembly = reassembly;
    }

    /// Gives up packets of which fragments never came, and tells the guest.
    pub(super) fn expire_fragments(&mut self) {
        let Self { reassembly, drops, out, lease, guest_mac, .. } = self;
        let (our_mac, guest_mac) = (lease.our_mac, *guest_mac);
        let tell = |expired: &Expired<'_>, drops: &mut Drops| {
            if !expired.src.is_unicast() || !expired.dst.is_unicast() {
                return;
            }
            let (src_mac, dst_mac) = (our_mac, guest_mac);
            let (src, dst) = (Endpoint::new(expired.dst, 0), Endpoint::new(expired.src, 0));
            let path = Path { src_mac, dst_mac, src, dst, flow_label: 0, tos: 0, ttl: TTL };
            match IcmpError::reassembly(&path, (expired.headers, expired.data)) {
                Some(error) if out.control(error.frame()) => {}
                Some(_) => drops.count(DropReason::LinkFull),
                None => drops.count(DropReason::NotBuilt),
            }
        };
        reassembly.expire(self.now.ms(), drops, tell);
    }
}

/// True for messages of neighbour discovery, which must not be cut.
fn is_discovery(packet: &Packet<'_>) -> bool {
    packet.protocol == proto::ICMPV6 && packet.transport.first().is_some_and(|t| ndp::handles(*t))
}
