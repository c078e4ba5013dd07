//! ICMP errors about what the guest sent (RFC 792; RFC 4443, 3).
//!
//! The guest's stack finds the socket through the quoted headers, and tells it at once. Of the
//! payload only that is quoted which the error brought along: the rest is long gone when the host
//! learns of it. Lengths in the quoted headers say so, and nothing follows.

use std::net::IpAddr;

use super::checksum::Checksum;
use super::{Addr, ETH_LEN, Endpoint, Head, Path, Seq, TcpFlags, TcpHead, proto};

/// What could not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// Nobody listens on the port.
    Port,
    /// The host, or the way to it.
    Host,
}

impl Unreachable {
    /// What says so.
    pub fn message(self, v4: bool) -> IcmpMessage {
        let (kind, code) = match (v4, self) {
            (true, Self::Port) => (3, 3),
            (true, Self::Host) => (3, 1),
            (false, Self::Port) => (1, 4),
            (false, Self::Host) => (1, 0),
        };
        IcmpMessage { kind, code, mtu: 0 }
    }
}

/// An ICMP error, of the family of the packet it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpMessage {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// What fits the way on, if it was too long.
    pub mtu: u32,
}

impl IcmpMessage {
    /// Fragmentation needed, packet too big: what fits is `mtu`.
    pub fn too_long(v4: bool, mtu: u32) -> Self {
        let (kind, code) = if v4 { (3, 4) } else { (2, 0) };
        Self { kind, code, mtu }
    }

    /// The second word of the header; `None` if it is no error.
    fn rest(self, v4: bool) -> Option<[u8; 4]> {
        match (v4, self.kind, self.code) {
            // Fragmentation needed (RFC 1191, 4), packet too big.
            (true, 3, 4) => Some(self.mtu.min(0xffff).to_be_bytes()),
            (false, 2, _) => Some(self.mtu.to_be_bytes()),
            // Unreachable, time exceeded.
            (true, 3 | 11, _) | (false, 1 | 3, _) => Some([0; 4]),
            _ => None,
        }
    }
}

/// The longest frame: with the smallest IPv6 packet that everybody takes (RFC 4443, 2.4 c).
const CAPACITY: usize = ETH_LEN + 1280;

/// The longest IPv4 packet (RFC 1812, 4.3.2.3).
const LONGEST_V4: usize = 576;

/// A complete frame to the guest, checksums and all.
#[derive(Clone, Debug)]
pub struct IcmpError {
    buf: [u8; CAPACITY],
    len: usize,
}

impl IcmpError {
    /// Most of a payload that is quoted.
    pub const QUOTED: usize = 1280 - 40 - 8 - 48;

    /// An error about a datagram that went against `path`: from the guest at `path.dst` to
    /// `path.src`, who seems to report it.
    ///
    /// `None` if the addresses are of different families.
    pub fn udp(path: &Path, what: Unreachable) -> Option<Self> {
        let message = what.message(path.dst.addr.is_v4());
        Self::datagram(path, path.src.addr, message, &[])
    }

    /// An error that `from` reports about such a datagram, of which `payload` is known.
    ///
    /// `None` also if it is no error that a guest should see.
    pub fn datagram(path: &Path, from: Addr, what: IcmpMessage, payload: &[u8]) -> Option<Self> {
        let v4 = path.dst.addr.is_v4();
        let payload = known(payload, v4);
        let mut original = Quoted::new(&Head::udp(&back(path), payload.len(), 0)?, payload)?;
        if v4 {
            // IPv4 can do without a checksum.
            original.put_checksum(0)?;
        }
        Self::about(path, from, original.bytes(), payload, what)
    }

    /// An error that `from` reports about an echo request that went against `path`, whose ends
    /// have the guest's identifier as port. `request` is what is known of it, with an identifier
    /// that the guest has never seen.
    pub fn echo(path: &Path, from: Addr, what: IcmpMessage, request: &[u8]) -> Option<Self> {
        let v4 = path.dst.addr.is_v4();
        let protocol = if v4 { proto::ICMP } else { proto::ICMPV6 };
        let (header, payload) = known(request, v4).split_first_chunk::<8>()?;
        let [kind, code, c0, c1, i0, i1, s0, s1] = *header;
        // Incrementally (RFC 1624): most of what it covers may be missing.
        let [d0, d1] = path.dst.port.to_be_bytes();
        let mut sum = Checksum::new();
        sum.add(&[!c0, !c1, !i0, !i1, d0, d1]);
        let [c0, c1] = sum.finish().to_be_bytes();
        let length = payload.len().checked_add(8)?;
        let head = Head::raw(&back(path), protocol, length)?;
        let mut original = Self { buf: [0; CAPACITY], len: 0 };
        original.put(head.frame().get(ETH_LEN..)?)?;
        original.put(&[kind, code, c0, c1, d0, d1, s0, s1])?;
        Self::about(path, from, original.frame(), payload, what)
    }

    /// That the rest of a packet never came, of which `first` is the first fragment: its network
    /// headers, and its part. From where it was to go (RFC 792; RFC 8200, 4.5).
    pub fn reassembly(path: &Path, (headers, data): (&[u8], &[u8])) -> Option<Self> {
        let v4 = path.dst.addr.is_v4();
        let most = if v4 { LONGEST_V4 - 20 - 8 } else { CAPACITY - ETH_LEN - 40 - 8 };
        let data = data.get(..most.checked_sub(headers.len())?).unwrap_or(data);
        let what = IcmpMessage { kind: if v4 { 11 } else { 3 }, code: 1, mtu: 0 };
        Self::about(path, path.src.addr, headers, data, what)
    }

    /// An error that `from` reports about the guest's SYN with sequence number `seq`.
    pub fn syn(path: &Path, from: Addr, what: IcmpMessage, seq: Seq) -> Option<Self> {
        let flags = TcpFlags::SYN;
        let tcp = TcpHead { seq, ack: Seq(0), flags, window: 0, options: &[], mss: 0 };
        let original = Quoted::new(&Head::tcp(&back(path), &tcp, 0)?, &[])?;
        Self::about(path, from, original.bytes(), &[], what)
    }

    fn about(
        path: &Path,
        from: Addr,
        quoted: &[u8],
        payload: &[u8],
        what: IcmpMessage,
    ) -> Option<Self> {
        let v4 = path.dst.addr.is_v4();
        let protocol = if v4 { proto::ICMP } else { proto::ICMPV6 };
        let IcmpMessage { kind, code, .. } = what;
        let [r0, r1, r2, r3] = what.rest(v4)?;
        let path = Path { src: Endpoint::new(from, 0), ..*path };
        let length = quoted.len().checked_add(payload.len())?.checked_add(8)?;
        let mut icmp = Checksum::new();
        if let (IpAddr::V6(src), IpAddr::V6(dst)) = (path.src.addr.to_ip(), path.dst.addr.to_ip()) {
            icmp = Checksum::pseudo_v6(src, dst, protocol, u32::try_from(length).ok()?);
        }
        icmp.add(&[kind, code, 0, 0, r0, r1, r2, r3]);
        icmp.add(quoted);
        icmp.add(payload);
        let [c0, c1] = icmp.finish().to_be_bytes();

        let head = Head::raw(&path, protocol, length)?;
        let mut error = Self { buf: [0; CAPACITY], len: 0 };
        error.put(head.frame())?;
        error.put(&[kind, code, c0, c1, r0, r1, r2, r3])?;
        error.put(quoted)?;
        error.put(payload)?;
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
    /// From headers of ours, whose partial checksum is completed, and what follows them.
    fn new(head: &Head, payload: &[u8]) -> Option<Self> {
        let bytes = head.frame().get(ETH_LEN..)?;
        let transport = usize::from(head.vnet().csum_start).checked_sub(ETH_LEN)?;
        let checksum = transport.checked_add(usize::from(head.vnet().csum_offset))?;
        let mut quoted = Self { buf: [0; 60], len: bytes.len(), checksum };
        quoted.buf.get_mut(..bytes.len())?.copy_from_slice(bytes);
        let mut sum = Checksum::new();
        sum.add(bytes.get(transport..)?);
        sum.add(payload);
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

/// As much of a payload as may be quoted.
fn known(payload: &[u8], v4: bool) -> &[u8] {
    let most = if v4 { LONGEST_V4 - 20 - 8 - 28 } else { IcmpError::QUOTED };
    payload.get(..most).unwrap_or(payload)
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
            ttl: crate::wire::TTL,
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

    // [UDP-11] What routers say: who says it, MTU, and what is quoted of the payload, within the
    // limits of both families and with true checksums.
    #[test]
    fn from_routers() {
        let payload: Vec<u8> = (0..=255).cycle().take(2000).collect();
        let a = |s: &str| Addr::from(s.parse::<IpAddr>().unwrap());
        for (v4, kind, code, rest) in [
            (true, 3, 4, [0, 0, 5, 120]),
            (true, 3, 0, [0; 4]),
            (true, 11, 0, [0; 4]),
            (false, 2, 0, [0, 0, 5, 120]),
            (false, 3, 0, [0; 4]),
            (false, 1, 3, [0; 4]),
        ] {
            let (p, from) = if v4 {
                (path("192.0.2.77", "192.0.2.10"), a("198.51.100.1"))
            } else {
                (path("2001:db8::77", "2001:db8::10"), a("2001:db8:1::1"))
            };
            let what = IcmpMessage { kind, code, mtu: 1400 };
            for len in [0, 9, 2000] {
                let error = IcmpError::datagram(&p, from, what, &payload[..len]).unwrap();
                let (at, longest) = if v4 { (20, 576) } else { (40, 1280) };
                let packet = &error.frame()[ETH_LEN..];
                assert!(if len == 2000 { packet.len() == longest } else { packet.len() < longest });
                let icmp = &packet[at..];
                assert_eq!((icmp[0], icmp[1], &icmp[4..8]), (kind, code, &rest[..]));
                let quoted = &icmp[8 + at + 8..];
                assert_eq!(*quoted, payload[..quoted.len()]);
                assert!(len == 2000 || quoted.len() == len);
                if v4 {
                    let ip = smol::Ipv4Packet::new_checked(packet).unwrap();
                    assert!(ip.verify_checksum() && Addr::from(ip.src_addr()) == from);
                    assert!(smol::Icmpv4Packet::new_checked(icmp).unwrap().verify_checksum());
                    assert!(smol::Ipv4Packet::new_checked(&icmp[8..]).unwrap().verify_checksum());
                } else {
                    let ip = smol::Ipv6Packet::new_checked(packet).unwrap();
                    assert!(Addr::from(ip.src_addr()) == from);
                    let icmp6 = smol::Icmpv6Packet::new_checked(icmp).unwrap();
                    assert!(icmp6.verify_checksum(&ip.src_addr(), &ip.dst_addr()));
                    let udp = smol::UdpPacket::new_checked(&icmp[48..]).unwrap();
                    let (src, dst) = (p.dst.addr.to_ip(), p.src.addr.to_ip());
                    assert!(udp.verify_checksum(&src.into(), &dst.into()));
                }
            }
            // Redirects and replies are none of the guest's business.
            for kind in [0, 5, 128, 129, 137] {
                let what = IcmpMessage { kind, code: 0, mtu: 0 };
                assert!(IcmpError::datagram(&p, from, what, &[]).is_none());
            }
        }
    }

    // [ICMP-8] The guest gets its own identifier back, under a checksum that follows from it.
    #[test]
    fn about_an_echo_request() {
        for (ours, guest, at) in
            [("192.0.2.77", "192.0.2.10", 20), ("2001:db8::77", "2001:db8::10", 40)]
        {
            let v4 = at == 20;
            let p = path(ours, guest);
            let mut request = [if v4 { 8 } else { 128 }, 0, 0, 0, 1, 2, 0, 9, 5, 6, 7];
            let sum = super::super::checksum::of(&request);
            request[2..4].copy_from_slice(&sum.to_be_bytes());
            let what = IcmpMessage { kind: if v4 { 11 } else { 3 }, code: 0, mtu: 0 };
            let error = IcmpError::echo(&p, p.src.addr, what, &request).unwrap();
            let quoted = &error.frame()[ETH_LEN + at + 8 + at..];
            assert_eq!(quoted[4..], [0x07, 0xd4, 0, 9, 5, 6, 7]);
            assert_eq!(super::super::checksum::of(quoted), 0);
            assert!(IcmpError::echo(&p, p.src.addr, what, &request[..7]).is_none());
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
            let what = Unreachable::Host.message(p.dst.addr.is_v4());
            let error = IcmpError::syn(&p, p.src.addr, what, Seq(0x0102_0304)).unwrap();
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
