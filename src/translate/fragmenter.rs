//! Packets for the guest that may be longer than its MTU: they are cut (RFC 791, 3.2; RFC 8200,
//! 4.5).
//!
//! Most are not, and then this is one comparison. A datagram that is cut gets its checksum here:
//! no device completes one that covers several frames.

use super::FrameOut;
use crate::config::Lease;
use crate::flow::DropReason;
use crate::wire::{FRAGMENT_UNIT, FragmentHead, Head, IPV4_LEN, IPV6_LEN, Path, UDP_LEN, proto};

/// Length of an IPv6 header and a fragment header.
const IPV6_FRAGMENT_LEN: usize = IPV6_LEN + 8;

/// The MTU of a link of which nobody said anything.
const USUAL_MTU: u16 = 1500;

/// The least that every link of the families carries (RFC 791; RFC 8200, 5).
const LEAST4: u16 = 68;
const LEAST6: u16 = 1280;

/// Sends datagrams and ICMP messages to the guest, in as many frames as it takes.
#[derive(Debug)]
pub struct Fragmenter {
    mtu4: usize,
    mtu6: usize,
    /// Identification of what is cut next.
    id: u32,
}

impl Fragmenter {
    /// For the link of this lease.
    pub fn new(lease: &Lease) -> Self {
        let mtu = if lease.mtu == 0 { USUAL_MTU } else { lease.mtu };
        Self { mtu4: mtu.max(LEAST4).into(), mtu6: mtu.max(LEAST6).into(), id: 1 }
    }

    /// Sends a UDP datagram, or with `segment` non-zero a train of datagrams of this length.
    ///
    /// # Errors
    /// Not all of it was sent.
    pub(super) fn send_udp<O: FrameOut>(
        &mut self,
        path: &Path,
        data: &[u8],
        segment: u16,
        out: &mut O,
    ) -> Result<(), DropReason> {
        let each = if segment == 0 { data.len() } else { data.len().min(segment.into()) };
        if each.saturating_add(UDP_LEN) <= self.fits(path) {
            let head = Head::udp(path, data.len(), segment).ok_or(DropReason::NotBuilt)?;
            return out.send_from(&head, data).then_some(()).ok_or(DropReason::LinkFull);
        }
        for datagram in data.chunks(each) {
            if datagram.len().saturating_add(UDP_LEN) <= self.fits(path) {
                self.send_udp(path, datagram, 0, out)?;
                continue;
            }
            let header = Head::udp_header(path, datagram).ok_or(DropReason::NotBuilt)?;
            self.cut(path, proto::UDP, &header, datagram, out)?;
        }
        Ok(())
    }

    /// Sends a complete transport part.
    ///
    /// # Errors
    /// Not all of it was sent.
    pub(super) fn send_raw<O: FrameOut>(
        &mut self,
        path: &Path,
        protocol: u8,
        data: &[u8],
        out: &mut O,
    ) -> Result<(), DropReason> {
        if data.len() > self.fits(path) {
            return self.cut(path, protocol, &[], data, out);
        }
        let head = Head::raw(path, protocol, data.len()).ok_or(DropReason::NotBuilt)?;
        out.send_from(&head, data).then_some(()).ok_or(DropReason::LinkFull)
    }

    /// Longest transport part of one packet.
    fn fits(&self, path: &Path) -> usize {
        if path.dst.addr.is_v4() {
            self.mtu4.saturating_sub(IPV4_LEN)
        } else {
            self.mtu6.saturating_sub(IPV6_LEN)
        }
    }

    /// Sends fragments of `header`, which is no longer than a unit, and `data`.
    fn cut<O: FrameOut>(
        &mut self,
        path: &Path,
        protocol: u8,
        header: &[u8],
        data: &[u8],
        out: &mut O,
    ) -> Result<(), DropReason> {
        let v4 = path.dst.addr.is_v4();
        let total = header.len().saturating_add(data.len());
        // A packet of which the end is out of reach is not begun.
        if total > usize::from(u16::MAX).saturating_sub(if v4 { IPV4_LEN } else { 0 }) {
            return Err(DropReason::NotBuilt);
        }
        let (mtu, headers) =
            if v4 { (self.mtu4, IPV4_LEN) } else { (self.mtu6, IPV6_FRAGMENT_LEN) };
        let room = mtu.saturating_sub(headers) & !(FRAGMENT_UNIT - 1);
        self.id = self.id.wrapping_add(1);
        let (mut before, mut rest, mut offset) = (header, data, 0usize);
        while !(before.is_empty() && rest.is_empty()) {
            let (part, later) = rest.split_at(rest.len().min(room.saturating_sub(before.len())));
            let which = FragmentHead { id: self.id, offset, more: !later.is_empty() };
            let head = Head::fragment(path, protocol, &which, before, part.len());
            if !out.send_from(&head.ok_or(DropReason::NotBuilt)?, part) {
                // What follows would be of no use.
                return Err(DropReason::LinkFull);
            }
            offset = offset.saturating_add(before.len()).saturating_add(part.len());
            (before, rest) = (&[], later);
        }
        Ok(())
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
    use crate::flow::Drops;
    use crate::translate::fake::{GUEST_MAC, Link, Rig, at, lease};
    use crate::translate::reassembly::Reassembly;
    use crate::wire::{Body, Datagram, ETH_LEN, Frame, Gso, Mac};

    fn path(v4: bool) -> Path {
        let (src, dst) =
            if v4 { ("192.0.2.77", "192.0.2.10") } else { ("2001:db8::77", "2001:db8::10") };
        let (src_mac, dst_mac) = (Mac::DEFAULT_OURS, GUEST_MAC);
        let (src, dst) = (at(src, 7777), at(dst, 2004));
        Path { src_mac, dst_mac, src, dst, flow_label: 3, tos: 0x20, ttl: 61 }
    }

    fn fragmenter(mtu: u16) -> Fragmenter {
        Fragmenter::new(&Lease { mtu, ..lease() })
    }

    fn link() -> Link {
        Rig::new().out
    }

    /// What a guest makes of frames: payloads of datagrams, or whole ICMP messages.
    fn receive(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let (mut reassembly, mut drops) = (Reassembly::new(), Drops::default());
        let mut all = vec![];
        for frame in frames {
            let packet = match Frame::parse(frame).unwrap().body {
                Body::Ip(packet) => Some(packet),
                Body::Fragment(f) => reassembly.add(&f, true, 0, &mut drops),
                Body::Arp => panic!("ARP"),
            };
            let Some(packet) = packet else { continue };
            assert!(packet.has_right_checksum());
            assert_eq!((packet.tos, packet.ttl), (0x20, 61));
            all.push(match packet.protocol {
                proto::UDP => Datagram::parse(packet.transport, false).unwrap().payload.to_vec(),
                _ => packet.transport.to_vec(),
            });
        }
        assert_eq!(drops.iter().count(), 0);
        all
    }

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|n| (n * 7 + n / 256) as u8).collect()
    }

    // [L2-11] What fits is one frame; what does not is cut, into frames that fit.
    #[test]
    fn datagrams_fit_the_link() {
        for (v4, mtu) in [(true, 1500), (true, 68), (true, 1280), (false, 1280), (false, 1500)] {
            let headers = if v4 { 28 } else { 48 };
            let fits = usize::from(mtu) - headers;
            for len in [0, 1, fits - 1, fits, fits + 1, fits + 8, 4000, 65_507] {
                let (mut out, data) = (link(), pattern(len));
                fragmenter(mtu).send_udp(&path(v4), &data, 0, &mut out).unwrap();
                assert_eq!(out.frames.len() == 1, len <= fits, "{mtu} {len}");
                assert!(out.frames.iter().all(|f| f.len() <= usize::from(mtu) + ETH_LEN));
                assert_eq!(receive(&out.frames), [data]);
            }
        }
        // Nobody said what fits, and what IPv6 cannot do without.
        for (v4, mtu, frames) in [(true, 0, 2), (false, 0, 2), (false, 100, 2), (true, 100, 19)] {
            let mut out = link();
            fragmenter(mtu).send_udp(&path(v4), &pattern(1473), 0, &mut out).unwrap();
            assert_eq!(out.frames.len(), frames);
        }
    }

    // [UDP-7] A train of datagrams that fit stays one; others are cut one by one.
    #[test]
    fn trains() {
        let data = pattern(3500);
        let mut out = link();
        fragmenter(1500).send_udp(&path(true), &data, 1472, &mut out).unwrap();
        assert_eq!(out.gso, [Gso::Udp(1472)]);
        let mut out = link();
        fragmenter(1500).send_udp(&path(true), &data, 1473, &mut out).unwrap();
        assert_eq!(out.frames.len(), 5);
        let parts: Vec<_> = data.chunks(1473).map(<[u8]>::to_vec).collect();
        assert_eq!(receive(&out.frames), parts);
    }

    // [ICMP-4] Replies to long pings.
    #[test]
    fn messages() {
        for (len, frames) in [(1480, 1), (1481, 2), (65_515, 45)] {
            let mut out = link();
            let mut message = pattern(len);
            message[2..4].fill(0);
            let sum = crate::wire::checksum::of(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            fragmenter(1500).send_raw(&path(true), proto::ICMP, &message, &mut out).unwrap();
            assert_eq!(out.frames.len(), frames);
            assert_eq!(receive(&out.frames), [message]);
        }
    }

    // [L2-11] What cannot be sent whole is not begun, or is not gone on with.
    #[test]
    fn what_cannot_be_sent() {
        let mut out = link();
        let too_long = pattern(65_508);
        let sent = fragmenter(1500).send_udp(&path(true), &too_long, 0, &mut out);
        assert_eq!((sent, out.frames.len()), (Err(DropReason::NotBuilt), 0));
        out.lossy = true;
        let sent = fragmenter(1500).send_udp(&path(true), &too_long[..9000], 0, &mut out);
        assert_eq!(sent, Err(DropReason::LinkFull));
    }
}
