//! Headers of frames to the guest: vnet, Ethernet, IP and transport in one small buffer.
//!
//! The payload travels separately (the kernel writes it straight into the link's buffer), so a
//! header is built from the payload's *length* alone. The transport checksum field holds the
//! pseudo-header sum and the vnet header asks for its completion: on an offloaded link nobody
//! computes a checksum for local traffic; a link without offloads completes it in software.

use std::net::IpAddr;

use super::checksum::{self, Checksum};
use super::ether::{ETH_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, proto};
use super::extension::{FRAGMENT_LEN, next};
use super::fragment::FRAGMENT_UNIT;
use super::{Addr, Endpoint, Gso, Mac, Seq, TcpFlags, VNET_LEN, Vnet};

/// Room for the largest set of headers: vnet, Ethernet, IPv6, TCP with 40 bytes of options.
const CAPACITY: usize = VNET_LEN + ETH_LEN + 40 + 60;

/// Time to live and hop limit of what nobody else gave one [TCP-87, L2-11].
pub const TTL: u8 = 255;

/// Where the checksum is in a TCP header, and in a UDP header.
const TCP_CHECKSUM: u16 = 16;
const UDP_CHECKSUM: u16 = 6;

/// The largest IP packet.
const IP_MAX: usize = 65535;

/// Link and network addresses of a frame to the guest.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// Ethernet source.
    pub src_mac: Mac,
    /// Ethernet destination: the guest's.
    pub dst_mac: Mac,
    /// Network source, and port or echo identifier.
    pub src: Endpoint,
    /// Network destination: the guest's.
    pub dst: Endpoint,
    /// IPv6 flow label, low 20 bits.
    pub flow_label: u32,
    /// Type of service or traffic class.
    pub tos: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
}

/// The changing parts of a TCP header.
#[derive(Clone, Copy, Debug)]
pub struct TcpHead<'a> {
    /// Sequence number.
    pub seq: Seq,
    /// Acknowledgement number; written only with [`TcpFlags::ACK`].
    pub ack: Seq,
    /// Flags.
    pub flags: TcpFlags,
    /// Window field, already scaled.
    pub window: u16,
    /// Options; a multiple of four bytes, at most 40.
    pub options: &'a [u8],
    /// Payload bytes per segment when the payload is longer than one; 0 never segments.
    pub mss: u16,
}

/// Which fragment of a packet.
#[derive(Clone, Copy, Debug)]
pub struct FragmentHead {
    /// What those of a packet have in common; IPv4 has room for the lower half.
    pub id: u32,
    /// Where it begins, in bytes: a multiple of eight.
    pub offset: usize,
    /// It is not the last one.
    pub more: bool,
}

/// Headers of one frame.
#[derive(Clone)]
pub struct Head {
    buf: [u8; CAPACITY],
    len: usize,
    /// Where the network header starts is fixed; where the transport header starts is not.
    transport: usize,
    vnet: Vnet,
}

impl Head {
    /// A TCP segment (or a train of them) with `payload` bytes of payload to follow.
    ///
    /// `None` if the packet would not fit IP's length field.
    pub fn tcp(path: &Path, tcp: &TcpHead<'_>, payload: usize) -> Option<Self> {
        let header = 20usize.checked_add(tcp.options.len())?;
        let mut h = Self::network(path, proto::TCP, header.checked_add(payload)?)?;
        let offset = u8::try_from(header / 4).ok()?.checked_shl(4)?;
        let ack = if tcp.flags.has(TcpFlags::ACK) { tcp.ack.0 } else { 0 };
        h.put(&path.src.port.to_be_bytes())?;
        h.put(&path.dst.port.to_be_bytes())?;
        h.put(&tcp.seq.0.to_be_bytes())?;
        h.put(&ack.to_be_bytes())?;
        h.put(&[offset, tcp.flags.0])?;
        h.put(&tcp.window.to_be_bytes())?;
        h.put_partial_checksum(path, proto::TCP, header.checked_add(payload)?)?;
        h.put(&[0, 0])?;
        h.put(tcp.options)?;
        h.offload(TCP_CHECKSUM);
        if tcp.mss != 0 && payload > usize::from(tcp.mss) {
            h.vnet.gso =
                if path.dst.addr.is_v4() { Gso::Tcp4(tcp.mss) } else { Gso::Tcp6(tcp.mss) };
        }
        h.seal();
        Some(h)
    }

    /// A UDP datagram with `payload` bytes to follow; with `segment` non-zero and less than that, a
    /// train of datagrams of this many bytes, of which the last may be shorter.
    pub fn udp(path: &Path, payload: usize, segment: u16) -> Option<Self> {
        let len = payload.checked_add(8)?;
        let mut h = Self::network(path, proto::UDP, len)?;
        h.put(&path.src.port.to_be_bytes())?;
        h.put(&path.dst.port.to_be_bytes())?;
        h.put(&u16::try_from(len).ok()?.to_be_bytes())?;
        h.put_partial_checksum(path, proto::UDP, len)?;
        h.offload(UDP_CHECKSUM);
        if segment != 0 && payload > usize::from(segment) {
            h.vnet.gso = Gso::Udp(segment);
        }
        h.seal();
        Some(h)
    }

    /// Network headers only, for `protocol` with `payload` bytes of complete transport to follow.
    pub fn raw(path: &Path, protocol: u8, payload: usize) -> Option<Self> {
        let mut h = Self::network(path, protocol, payload)?;
        h.seal();
        Some(h)
    }

    /// Headers of a fragment of a packet of `protocol`, with `payload` bytes of it to follow.
    ///
    /// A UDP datagram can be cut without moving it: `before` goes before the payload, and counts as
    /// part of the fragment.
    pub fn fragment(
        path: &Path,
        protocol: u8,
        which: &FragmentHead,
        before: &[u8],
        payload: usize,
    ) -> Option<Self> {
        let len = payload.checked_add(before.len())?;
        let units = u16::try_from(which.offset / FRAGMENT_UNIT).ok()?;
        let mut h = if path.dst.addr.is_v4() {
            let mut h = Self::network(path, protocol, len)?;
            let [_, _, i0, i1] = which.id.to_be_bytes();
            let [f0, f1] = (units | u16::from(which.more) << 13).to_be_bytes();
            let header = h.buf.get_mut(VNET_LEN.checked_add(ETH_LEN)?..)?;
            let header = header.first_chunk_mut::<20>()?;
            let [_, _, _, _, id0, id1, flags, offset, _, _, c0, c1, ..] = header;
            [*id0, *id1, *flags, *offset, *c0, *c1] = [i0, i1, f0, f1, 0, 0];
            let sum = checksum::of(header).to_be_bytes();
            header.get_mut(10..12)?.copy_from_slice(&sum);
            h
        } else {
            let mut h = Self::network(path, next::FRAGMENT, len.checked_add(FRAGMENT_LEN)?)?;
            h.put(&[protocol, 0])?;
            h.put(&(units << 3 | u16::from(which.more)).to_be_bytes())?;
            h.put(&which.id.to_be_bytes())?;
            h
        };
        h.put(before)?;
        h.seal();
        Some(h)
    }

    /// The UDP header of a datagram with this payload, its checksum complete.
    pub fn udp_header(path: &Path, payload: &[u8]) -> Option<[u8; 8]> {
        let len = payload.len().checked_add(8)?;
        let [s0, s1] = path.src.port.to_be_bytes();
        let [d0, d1] = path.dst.port.to_be_bytes();
        let [l0, l1] = u16::try_from(len).ok()?.to_be_bytes();
        let mut sum = Checksum::new();
        sum.add_u16(pseudo_header(path.src.addr, path.dst.addr, proto::UDP, len)?);
        sum.add(&[s0, s1, d0, d1, l0, l1, 0, 0]);
        sum.add(payload);
        let [c0, c1] = sum.finish_udp().to_be_bytes();
        Some([s0, s1, d0, d1, l0, l1, c0, c1])
    }

    /// The vnet header.
    pub fn vnet(&self) -> &Vnet {
        &self.vnet
    }

    /// All headers, the encoded vnet header first.
    pub fn with_vnet(&self) -> &[u8] {
        self.buf.get(..self.len).unwrap_or_default()
    }

    /// The headers of the frame proper.
    pub fn frame(&self) -> &[u8] {
        self.buf.get(VNET_LEN..self.len).unwrap_or_default()
    }

    /// What frames of a flow have in common: addresses, and for whole segments and datagrams ports,
    /// as they are in the frame; and a number for the protocol.
    pub fn flow(&self) -> (&[u8], u16) {
        let version = self.buf.get(VNET_LEN.saturating_add(ETH_LEN)).map_or(0, |b| b >> 4);
        let addrs = if version == 4 { 8 } else { 32 };
        let ports = if self.vnet.needs_csum { 4 } else { 0 };
        let range = self.transport.saturating_sub(addrs)..self.transport.saturating_add(ports);
        (self.buf.get(range).unwrap_or_default(), self.vnet.csum_offset)
    }

    /// The flags of a TCP segment.
    pub fn tcp_flags(&self) -> Option<TcpFlags> {
        let at =
            self.transport.checked_add(13).filter(|_| self.vnet.csum_offset == TCP_CHECKSUM)?;
        self.buf.get(at).copied().map(TcpFlags)
    }

    fn network(path: &Path, protocol: u8, payload: usize) -> Option<Self> {
        let mut h = Self { buf: [0; CAPACITY], len: VNET_LEN, transport: 0, vnet: Vnet::default() };
        h.put(&path.dst_mac.0)?;
        h.put(&path.src_mac.0)?;
        match (path.src.addr.v4(), path.dst.addr.v4()) {
            (Some(src), Some(dst)) => {
                let total = u16::try_from(payload.checked_add(20)?).ok()?;
                h.put(&ETHERTYPE_IPV4.to_be_bytes())?;
                let at = h.len;
                h.put(&[0x45, path.tos])?;
                h.put(&total.to_be_bytes())?;
                // Identification 0 with don't-fragment is an atomic datagram (RFC 6864).
                h.put(&[0, 0, 0x40, 0, path.ttl, protocol, 0, 0])?;
                h.put(&src.octets())?;
                h.put(&dst.octets())?;
                let sum = checksum::of(h.buf.get(at..h.len)?);
                h.buf
                    .get_mut(at.checked_add(10)?..)?
                    .first_chunk_mut::<2>()?
                    .copy_from_slice(&sum.to_be_bytes());
            }
            (None, None) => {
                if payload > IP_MAX {
                    return None;
                }
                let length = u16::try_from(payload).ok()?;
                h.put(&ETHERTYPE_IPV6.to_be_bytes())?;
                let word =
                    0x6000_0000 | u32::from(path.tos) << 20 | (path.flow_label & 0x000f_ffff);
                h.put(&word.to_be_bytes())?;
                h.put(&length.to_be_bytes())?;
                h.put(&[protocol, path.ttl])?;
                h.put(path.src.addr.octets())?;
                h.put(path.dst.addr.octets())?;
            }
            _ => return None,
        }
        h.transport = h.len;
        Some(h)
    }

    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len.checked_add(bytes.len())?;
        self.buf.get_mut(self.len..end)?.copy_from_slice(bytes);
        self.len = end;
        Some(())
    }

    fn put_partial_checksum(&mut self, path: &Path, protocol: u8, len: usize) -> Option<()> {
        let sum = pseudo_header(path.src.addr, path.dst.addr, protocol, len)?;
        self.put(&sum.to_be_bytes())
    }

    fn offload(&mut self, csum_offset: u16) {
        let at = self.transport.saturating_sub(VNET_LEN);
        self.vnet.needs_csum = true;
        self.vnet.csum_start = u16::try_from(at).unwrap_or(0);
        self.vnet.csum_offset = csum_offset;
    }

    fn seal(&mut self) {
        self.vnet.hdr_len = u16::try_from(self.len.saturating_sub(VNET_LEN)).unwrap_or(0);
        let encoded = self.vnet.encode();
        if let Some(room) = self.buf.first_chunk_mut::<VNET_LEN>() {
            *room = encoded;
        }
    }
}

/// Sum of the pseudo-header, not complemented.
pub(super) fn pseudo_header(src: Addr, dst: Addr, protocol: u8, len: usize) -> Option<u16> {
    let sum = match (src.to_ip(), dst.to_ip()) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            Checksum::pseudo_v4(s, d, protocol, u16::try_from(len).ok()?)
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            Checksum::pseudo_v6(s, d, protocol, u32::try_from(len).ok()?)
        }
        _ => return None,
    };
    Some(sum.fold())
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
    use smoltcp::wire as smol;

    fn path(v6: bool) -> Path {
        let a = |s: &str| Addr::from(s.parse::<std::net::IpAddr>().unwrap());
        let (src, dst) = if v6 {
            (a("2001:db8::1"), a("2001:db8::2"))
        } else {
            (a("192.0.2.1"), a("192.0.2.2"))
        };
        Path {
            src_mac: Mac::DEFAULT_OURS,
            dst_mac: Mac([2, 0, 0, 0, 0, 1]),
            src: Endpoint::new(src, 80),
            dst: Endpoint::new(dst, 4000),
            flow_label: 5,
            tos: 0,
            ttl: crate::wire::TTL,
        }
    }

    fn head(mss: u16) -> TcpHead<'static> {
        TcpHead {
            seq: Seq(1000),
            ack: Seq(2000),
            flags: TcpFlags::ACK,
            window: 300,
            options: &[],
            mss,
        }
    }

    // [TCP-87] IPv4: no options, ID 0, DF, TTL 255, valid header checksum.
    #[test]
    fn ipv4_header_values() {
        let h = Head::tcp(&path(false), &head(0), 100).unwrap();
        let frame = h.frame();
        let ip = smol::Ipv4Packet::new_unchecked(&frame[14..]);
        assert!(ip.verify_checksum());
        assert_eq!((ip.header_len(), ip.total_len(), ip.hop_limit()), (20, 140, 255));
        assert!(ip.dont_frag());
        assert_eq!(ip.ident(), 0);
        assert_eq!(frame.len(), 14 + 20 + 20);
    }

    // [TCP-88] Completing the partial checksum over header and payload gives a valid one.
    #[test]
    fn partial_checksum_completes() {
        for v6 in [false, true] {
            let payload = [7u8; 33];
            let h = Head::tcp(&path(v6), &head(0), payload.len()).unwrap();
            let mut frame = h.frame().to_vec();
            frame.extend(payload);
            let v = *h.vnet();
            let start = usize::from(v.csum_start);
            let sum = !smol::checksum::data(&frame[start..]);
            let at = start + usize::from(v.csum_offset);
            frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
            let p = path(v6);
            let tcp = smol::TcpPacket::new_checked(&frame[start..]).unwrap();
            let (s, d) = (p.src.addr.to_ip(), p.dst.addr.to_ip());
            assert!(tcp.verify_checksum(&s.into(), &d.into()));
            assert_eq!(tcp.seq_number().0, 1000);
            assert_eq!(tcp.ack_number().0, 2000);
            assert_eq!(tcp.window_len(), 300);
        }
    }

    #[test]
    fn segmentation_is_asked_for_only_beyond_one_segment() {
        assert_eq!(Head::tcp(&path(false), &head(1460), 1460).unwrap().vnet().gso, Gso::None);
        let h = Head::tcp(&path(false), &head(1460), 1461).unwrap();
        assert_eq!(h.vnet().gso, Gso::Tcp4(1460));
        let h = Head::tcp(&path(true), &head(1440), 5000).unwrap();
        assert_eq!(h.vnet().gso, Gso::Tcp6(1440));
        assert_eq!(Vnet::decode(h.with_vnet().first_chunk().unwrap()), Some(*h.vnet()));
    }

    #[test]
    fn too_long_for_ip() {
        assert!(Head::tcp(&path(false), &head(0), 65535 - 40).is_some());
        assert!(Head::tcp(&path(false), &head(0), 65535 - 39).is_none());
        assert!(Head::udp(&path(false), 65535 - 28, 0).is_some());
        assert!(Head::udp(&path(false), 65535 - 27, 0).is_none());
        assert!(Head::udp(&path(true), 65535 - 8, 0).is_some());
        assert!(Head::udp(&path(true), 65535 - 7, 0).is_none());
    }

    #[test]
    fn mixed_families_are_refused() {
        let mut p = path(false);
        p.src.addr = path(true).src.addr;
        assert!(Head::udp(&p, 1, 0).is_none());
    }
}
