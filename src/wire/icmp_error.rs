//! ICMP errors about a UDP datagram of the guest (RFC 792; RFC 4443, 3.1).
//!
//! The guest's stack finds the socket through the quoted headers, and tells it at once. Only the
//! headers are quoted: the payload is long gone when the host learns of the error. Lengths in the
//! quoted headers say so, and nothing follows them.

use std::net::IpAddr;

use super::checksum::Checksum;
use super::{ETH_LEN, Endpoint, Head, Path, proto};

/// What could not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// Nobody listens on the port.
    Port,
    /// The host, or the way to it.
    Host,
}

/// Ethernet, IPv6, ICMPv6 header, quoted IPv6 and UDP header: the longest such frame.
const CAPACITY: usize = ETH_LEN + 40 + 8 + 40 + 8;

/// A complete frame to the guest, checksums and all.
#[derive(Clone, Debug)]
pub struct IcmpError {
    buf: [u8; CAPACITY],
    len: usize,
}

impl IcmpError {
    /// An error about a datagram that went against `path`: from the guest at `path.dst` to
    /// `path.src`, who seems to report it.
    ///
    /// `None` if the addresses are of different families.
    pub fn udp(path: &Path, what: Unreachable) -> Option<Self> {
        let v4 = path.dst.addr.is_v4();
        let (kind, code, protocol) = match (v4, what) {
            (true, Unreachable::Port) => (3, 3, proto::ICMP),
            (true, Unreachable::Host) => (3, 1, proto::ICMP),
            (false, Unreachable::Port) => (1, 4, proto::ICMPV6),
            (false, Unreachable::Host) => (1, 0, proto::ICMPV6),
        };
        let original = Head::udp(&Path { src: path.dst, dst: path.src, ..*path }, 0)?;
        let quoted = original.frame().get(ETH_LEN..)?;
        let (quoted, udp_checksum) = quoted.split_last_chunk::<2>()?;

        let mut icmp = Checksum::new();
        let length = quoted.len().checked_add(2 + 8)?;
        if let (IpAddr::V6(src), IpAddr::V6(dst)) = (path.src.addr.to_ip(), path.dst.addr.to_ip()) {
            icmp = Checksum::pseudo_v6(src, dst, protocol, u32::try_from(length).ok()?);
        }
        // A template holds the pseudo-header's sum. IPv4 can do without a checksum.
        let udp_checksum = if v4 {
            [0, 0]
        } else {
            let mut udp = Checksum::new();
            udp.add(quoted.last_chunk::<6>()?);
            udp.add(udp_checksum);
            udp.finish_udp().to_be_bytes()
        };
        icmp.add(&[kind, code, 0, 0, 0, 0, 0, 0]);
        icmp.add(quoted);
        icmp.add(&udp_checksum);
        let [c0, c1] = icmp.finish().to_be_bytes();

        let head =
            Head::raw(&Path { src: Endpoint::new(path.src.addr, 0), ..*path }, protocol, length)?;
        let mut error = Self { buf: [0; CAPACITY], len: 0 };
        error.put(head.frame())?;
        error.put(&[kind, code, c0, c1, 0, 0, 0, 0])?;
        error.put(quoted)?;
        error.put(&udp_checksum)?;
        Some(error)
    }

    /// The frame.
    pub fn frame(&self) -> &[u8] {
        self.buf.get(..self.len).unwrap_or_default()
    }

    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len.checked_add(bytes.len())?;
        self.buf.get_mut(self.len..end)?.copy_from_slice(bytes);
        self.len = end;
        Some(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::wire::{Addr, Mac};
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire as smol;

    fn path(ours: &str, guest: &str) -> Path {
        let a = |s: &str| Addr::from(s.parse::<IpAddr>().unwrap());
        Path {
            src_mac: Mac::DEFAULT_OURS,
            dst_mac: Mac([2, 0, 0, 0, 0, 1]),
            src: Endpoint::new(a(ours), 7777),
            dst: Endpoint::new(a(guest), 2004),
            flow_label: 3,
        }
    }

    // [UDP-11] Type and code, quoted headers as the guest sent them, no trailer.
    #[test]
    fn ipv4() {
        for (what, reason) in [
            (Unreachable::Port, smol::Icmpv4DstUnreachable::PortUnreachable),
            (Unreachable::Host, smol::Icmpv4DstUnreachable::HostUnreachable),
        ] {
            let error = IcmpError::udp(&path("192.0.2.77", "192.0.2.10"), what).unwrap();
            let ip = smol::Ipv4Packet::new_checked(&error.frame()[ETH_LEN..]).unwrap();
            assert!(ip.verify_checksum());
            assert_eq!((ip.src_addr().octets(), ip.hop_limit()), ([192, 0, 2, 77], 255));
            assert_eq!(usize::from(ip.total_len()), 20 + 8 + 28);
            assert_eq!(error.frame().len(), ETH_LEN + 56);
            let icmp = smol::Icmpv4Packet::new_checked(ip.payload()).unwrap();
            assert!(icmp.verify_checksum());
            let repr = smol::Icmpv4Repr::parse(&icmp, &ChecksumCapabilities::default()).unwrap();
            let smol::Icmpv4Repr::DstUnreachable { reason: got, header, .. } = repr else {
                panic!("{repr:?}")
            };
            assert_eq!(got, reason);
            assert_eq!((header.src_addr.octets(), header.dst_addr.octets()), {
                ([192, 0, 2, 10], [192, 0, 2, 77])
            });
            let quoted = smol::Ipv4Packet::new_checked(icmp.data()).unwrap();
            assert!(quoted.verify_checksum());
            assert_eq!(quoted.total_len(), 28);
            // Ports 2004 to 7777, length 8, no checksum.
            assert_eq!(quoted.payload(), [0x07, 0xd4, 0x1e, 0x61, 0, 8, 0, 0]);
        }
    }

    // [UDP-11] Likewise; the quoted UDP checksum is right, and the flow label is the flow's.
    #[test]
    fn ipv6() {
        for (what, code) in [(Unreachable::Port, 4), (Unreachable::Host, 0)] {
            let error = IcmpError::udp(&path("2001:db8::77", "2001:db8::10"), what).unwrap();
            let ip = smol::Ipv6Packet::new_checked(&error.frame()[ETH_LEN..]).unwrap();
            assert_eq!(usize::from(ip.payload_len()), 8 + 48);
            assert_eq!(error.frame().len(), ETH_LEN + 40 + 56);
            assert_eq!((ip.hop_limit(), ip.next_header()), (255, smol::IpProtocol::Icmpv6));
            let icmp = smol::Icmpv6Packet::new_checked(ip.payload()).unwrap();
            assert!(icmp.verify_checksum(&ip.src_addr(), &ip.dst_addr()));
            assert_eq!((u8::from(icmp.msg_type()), icmp.msg_code()), (1, code));
            let quoted = smol::Ipv6Packet::new_checked(icmp.payload()).unwrap();
            assert_eq!(quoted.src_addr(), ip.dst_addr());
            assert_eq!(quoted.dst_addr(), ip.src_addr());
            assert_eq!((quoted.flow_label(), quoted.payload_len()), (3, 8));
            let udp = smol::UdpPacket::new_checked(quoted.payload()).unwrap();
            assert_eq!((udp.src_port(), udp.dst_port(), udp.len()), (2004, 7777, 8));
            let (src, dst) = (quoted.src_addr(), quoted.dst_addr());
            assert!(udp.verify_checksum(&src.into(), &dst.into()));
        }
    }

    #[test]
    fn mixed_families_are_refused() {
        assert!(IcmpError::udp(&path("2001:db8::77", "192.0.2.10"), Unreachable::Port).is_none());
    }
}
