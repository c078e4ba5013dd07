//! ICMP errors about a UDP datagram or a SYN of the guest (RFC 792; RFC 4443, 3.1).
//!
//! The guest's stack finds the socket through the quoted headers, and tells it at once. Only the
//! headers are quoted: the payload is long gone when the host learns of the error. Lengths in the
//! quoted headers say so, and nothing follows them.

use std::net::IpAddr;

use super::checksum::Checksum;
use super::{ETH_LEN, Endpoint, Head, Path, Seq, TcpFlags, TcpHead, proto};

/// What could not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// Nobody listens on the port.
    Port,
    /// The host, or the way to it.
    Host,
}

/// Ethernet, IPv6, ICMPv6 header, quoted IPv6 and TCP header: the longest such frame.
const CAPACITY: usize = ETH_LEN + 40 + 8 + 40 + 20;

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
        let mut original = Quoted::new(&Head::udp(&back(path), 0)?)?;
        if path.dst.addr.is_v4() {
            // IPv4 can do without a checksum.
            original.put_checksum(0)?;
        }
        Self::about(path, &original, what)
    }

    /// Likewise about the guest's SYN with sequence number `seq`.
    pub fn syn(path: &Path, seq: Seq, what: Unreachable) -> Option<Self> {
        let flags = TcpFlags::SYN;
        let tcp = TcpHead { seq, ack: Seq(0), flags, window: 0, options: &[], mss: 0 };
        Self::about(path, &Quoted::new(&Head::tcp(&back(path), &tcp, 0)?)?, what)
    }

    fn about(path: &Path, original: &Quoted, what: Unreachable) -> Option<Self> {
        let (kind, code, protocol) = match (path.dst.addr.is_v4(), what) {
            (true, Unreachable::Port) => (3, 3, proto::ICMP),
            (true, Unreachable::Host) => (3, 1, proto::ICMP),
            (false, Unreachable::Port) => (1, 4, proto::ICMPV6),
            (false, Unreachable::Host) => (1, 0, proto::ICMPV6),
        };
        let quoted = original.bytes();
        let length = quoted.len().checked_add(8)?;
        let mut icmp = Checksum::new();
        if let (IpAddr::V6(src), IpAddr::V6(dst)) = (path.src.addr.to_ip(), path.dst.addr.to_ip()) {
            icmp = Checksum::pseudo_v6(src, dst, protocol, u32::try_from(length).ok()?);
        }
        icmp.add(&[kind, code, 0, 0, 0, 0, 0, 0]);
        icmp.add(quoted);
        let [c0, c1] = icmp.finish().to_be_bytes();

        let head =
            Head::raw(&Path { src: Endpoint::new(path.src.addr, 0), ..*path }, protocol, length)?;
        let mut error = Self { buf: [0; CAPACITY], len: 0 };
        error.put(head.frame())?;
        error.put(&[kind, code, c0, c1, 0, 0, 0, 0])?;
        error.put(quoted)?;
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

/// The headers of what the guest sent, as it sent them.
struct Quoted {
    buf: [u8; 40 + 20],
    len: usize,
    checksum: usize,
}

impl Quoted {
    /// From headers of ours: their partial checksum is completed, as nothing follows them.
    fn new(head: &Head) -> Option<Self> {
        let bytes = head.frame().get(ETH_LEN..)?;
        let transport = usize::from(head.vnet().csum_start).checked_sub(ETH_LEN)?;
        let checksum = transport.checked_add(usize::from(head.vnet().csum_offset))?;
        let mut quoted = Self { buf: [0; 60], len: bytes.len(), checksum };
        quoted.buf.get_mut(..bytes.len())?.copy_from_slice(bytes);
        let mut sum = Checksum::new();
        sum.add(bytes.get(transport..)?);
        quoted.put_checksum(sum.finish_udp())?;
        Some(quoted)
    }

    fn put_checksum(&mut self, sum: u16) -> Option<()> {
        let field = self.buf.get_mut(self.checksum..)?.first_chunk_mut::<2>()?;
        *field = sum.to_be_bytes();
        Some(())
    }

    fn bytes(&self) -> &[u8] {
        self.buf.get(..self.len).unwrap_or_default()
    }
}

/// The way of the guest's packets.
fn back(path: &Path) -> Path {
    Path { src: path.dst, dst: path.src, ..*path }
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
            tos: 0,
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

    // [W-10] The SYN is found by its ports and sequence number; its checksum is the guest's.
    #[test]
    fn about_a_syn() {
        for (ours, guest, at) in
            [("192.0.2.77", "192.0.2.10", 20), ("2001:db8::77", "2001:db8::10", 40)]
        {
            let p = path(ours, guest);
            let error = IcmpError::syn(&p, Seq(0x0102_0304), Unreachable::Host).unwrap();
            let quoted = &error.frame()[ETH_LEN + at + 8..];
            let tcp = smol::TcpPacket::new_checked(&quoted[at..]).unwrap();
            assert_eq!((tcp.src_port(), tcp.dst_port()), (2004, 7777));
            assert_eq!(tcp.seq_number().0, 0x0102_0304);
            assert!(tcp.syn() && !tcp.ack());
            let (s, d) = (p.dst.addr.to_ip(), p.src.addr.to_ip());
            assert!(tcp.verify_checksum(&s.into(), &d.into()));
            assert_eq!(quoted.len(), at + 20);
        }
    }
}
