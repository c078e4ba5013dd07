//! Frames from the guest: Ethernet II, IPv4 and IPv6 down to the transport header.
//!
//! One pass, no copy, no allocation. Checksums are not verified: with offloads a guest hands
//! over partial ones [TCP-2]. Everything else that RFC 791 and RFC 8200 ask of a receiver is.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::extension::{self, Chain};
use super::{Addr, Fragment, Mac};

/// Length of an Ethernet II header.
pub const ETH_LEN: usize = 14;
/// Length of an IPv4 header without options.
pub const IPV4_LEN: usize = 20;
/// Length of an IPv6 header.
pub const IPV6_LEN: usize = 40;
/// Length of a UDP header.
pub const UDP_LEN: usize = 8;
/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// The flag of an IPv4 packet that must not be cut on its way; in the word with the offset.
const DONT_FRAGMENT: u16 = 0x4000;

/// IP protocol numbers we handle.
pub mod proto {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// Membership of multicast groups.
    pub const IGMP: u8 = 2;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
}

/// Why a frame could not be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// Shorter than its headers say, or than an Ethernet header.
    Truncated,
    /// An EtherType we do not handle.
    EtherType,
    /// Version, header length or total length make no sense.
    Header,
    /// IPv6 extension headers that may not be skipped, or too many of them.
    Extension,
    /// A fragment that cannot be part of any packet.
    Fragment,
}

/// A frame, as far as its EtherType.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Source address: the guest's.
    pub src: Mac,
    /// Destination address; never checked [L2-2].
    pub dst: Mac,
    /// Contents.
    pub body: Body<'a>,
}

/// What a frame carries.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// ARP; its service parses the whole frame.
    Arp,
    /// An IPv4 or IPv6 packet.
    Ip(Packet<'a>),
    /// A part of one.
    Fragment(Fragment<'a>),
}

/// An IPv4 or IPv6 packet with its transport part.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Transport protocol, after any IPv6 extension headers.
    pub protocol: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Type of service or traffic class.
    pub tos: u8,
    /// It must not be cut into fragments on its way.
    pub df: bool,
    /// Transport header and payload, link padding removed.
    pub transport: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Parses a whole frame without its frame check sequence.
    pub fn parse(frame: &'a [u8]) -> Result<Self, ParseError> {
        let (head, rest) = frame.split_at_checked(ETH_LEN).ok_or(ParseError::Truncated)?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] =
            *head.first_chunk::<ETH_LEN>().ok_or(ParseError::Truncated)?;
        let body = match u16::from_be_bytes([t0, t1]) {
            ETHERTYPE_IPV4 => ipv4(rest)?,
            ETHERTYPE_IPV6 => ipv6(rest)?,
            ETHERTYPE_ARP => Body::Arp,
            _ => return Err(ParseError::EtherType),
        };
        Ok(Self { dst: Mac([d0, d1, d2, d3, d4, d5]), src: Mac([s0, s1, s2, s3, s4, s5]), body })
    }
}

fn ipv4(data: &[u8]) -> Result<Body<'_>, ParseError> {
    let head = data.first_chunk::<20>().ok_or(ParseError::Truncated)?;
    let [vihl, tos, l0, l1, i0, i1, f0, f1, ttl, protocol, _, _, a, b, c, d, e, f, g, h] = *head;
    let header_len = usize::from(vihl & 0x0f).saturating_mul(4);
    let total = usize::from(u16::from_be_bytes([l0, l1]));
    if vihl >> 4 != 4 || header_len < 20 || total < header_len {
        return Err(ParseError::Header);
    }
    // Bytes beyond the total length are link padding, not an error [L2-3].
    let transport = data.get(header_len..total).ok_or(ParseError::Truncated)?;
    let flags = u16::from_be_bytes([f0, f1]);
    let packet = Packet {
        src: Ipv4Addr::new(a, b, c, d).into(),
        dst: Ipv4Addr::new(e, f, g, h).into(),
        protocol,
        ttl,
        tos,
        df: flags & DONT_FRAGMENT != 0,
        transport,
    };
    if flags & !DONT_FRAGMENT != 0 {
        let id = u16::from_be_bytes([i0, i1]);
        let headers = data.get(..header_len).ok_or(ParseError::Truncated)?;
        return Ok(Body::Fragment(Fragment::v4(&packet, (id, flags), headers)?));
    }
    Ok(Body::Ip(packet))
}

fn ipv6(data: &[u8]) -> Result<Body<'_>, ParseError> {
    let (head, rest) = data.split_at_checked(40).ok_or(ParseError::Truncated)?;
    let [v0, v1, _, _, l0, l1, next, ttl] = *head.first_chunk().ok_or(ParseError::Truncated)?;
    let src: [u8; 16] = chunk(head, 8)?;
    let dst: [u8; 16] = chunk(head, 24)?;
    if v0 >> 4 != 6 {
        return Err(ParseError::Header);
    }
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    // Padding is trimmed as for IPv4: a driver that pads to 60 bytes pads both.
    let payload = rest.get(..len).ok_or(ParseError::Truncated)?;
    let mut packet = Packet {
        src: Ipv6Addr::from(src).into(),
        dst: Ipv6Addr::from(dst).into(),
        protocol: next,
        ttl,
        tos: (v0 << 4) | (v1 >> 4),
        // Nobody but the sender may.
        df: true,
        transport: payload,
    };
    match extension::walk(next, payload)? {
        Chain::Transport(protocol, transport) => {
            (packet.protocol, packet.transport) = (protocol, transport);
            Ok(Body::Ip(packet))
        }
        Chain::Fragment(part) => {
            let whole = data.get(..len.saturating_add(40)).ok_or(ParseError::Truncated)?;
            Ok(Body::Fragment(Fragment::v6(&packet, part, whole)?))
        }
    }
}

fn chunk<const N: usize>(data: &[u8], at: usize) -> Result<[u8; N], ParseError> {
    data.get(at..).and_then(|d| d.first_chunk::<N>()).copied().ok_or(ParseError::Truncated)
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
    use proptest::prelude::*;

    fn v4(total: u16, frag: u16, ihl: u8, tail: &[u8]) -> Vec<u8> {
        let mut f = vec![0xff; 6];
        f.extend([2, 0, 0, 0, 0, 1, 0x08, 0x00]);
        f.extend([0x40 | ihl, 0]);
        f.extend(total.to_be_bytes());
        f.extend([0, 0]);
        f.extend(frag.to_be_bytes());
        f.extend([64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        f.extend(tail);
        f
    }

    fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut f = vec![0xff; 6];
        f.extend([2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0, 0, 0]);
        f.extend((payload.len() as u16).to_be_bytes());
        f.extend([next, 64]);
        f.extend([0x20; 32]);
        f.extend(payload);
        f
    }

    fn packet(frame: &[u8]) -> Result<Packet<'_>, ParseError> {
        match Frame::parse(frame)?.body {
            Body::Ip(p) => Ok(p),
            other => panic!("not a whole packet: {other:?}"),
        }
    }

    // [L2-3] [TAP-14] Padding after the IPv4 total length is cut off.
    #[test]
    fn ipv4_padding_is_trimmed() {
        let frame = v4(28, 0x4000, 5, &[1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0]);
        assert_eq!(packet(&frame).unwrap().transport, &[1, 2, 3, 4, 5, 6, 7, 8]);
    }

    // [L2-5] So is padding behind IPv6 packets; what is cut short is none.
    #[test]
    fn ipv6_padding_is_trimmed() {
        let mut frame = v6(17, &[1, 2, 3, 4, 5, 6, 7, 8]);
        frame.extend([0; 4]);
        assert_eq!(packet(&frame).unwrap().transport, &[1, 2, 3, 4, 5, 6, 7, 8]);
        for len in 14..62 {
            assert_eq!(packet(&frame[..len]).unwrap_err(), ParseError::Truncated, "{len}");
        }
    }

    // [L2-4] Any fragment bit but don't-fragment makes a fragment, or nothing.
    #[test]
    fn fragments_are_told_apart() {
        let body = |word| v4(28, word, 5, &[0; 8]);
        for (word, df) in [(0, false), (0x4000, true)] {
            assert_eq!(packet(&body(word)).unwrap().df, df);
        }
        for word in [0x2000, 0x0001, 0x6000] {
            let frame = body(word);
            assert!(matches!(Frame::parse(&frame).unwrap().body, Body::Fragment(_)));
        }
        assert_eq!(Frame::parse(&body(0x8000)).unwrap_err(), ParseError::Header);
    }

    // [L2-3] Header lengths are checked against each other and the frame.
    #[test]
    fn ipv4_lengths_are_checked() {
        assert_eq!(packet(&v4(28, 0, 4, &[0; 8])).unwrap_err(), ParseError::Header);
        assert_eq!(packet(&v4(19, 0, 5, &[0; 8])).unwrap_err(), ParseError::Header);
        assert_eq!(packet(&v4(29, 0, 5, &[0; 8])).unwrap_err(), ParseError::Truncated);
        assert_eq!(packet(&v4(28, 0, 15, &[0; 8])).unwrap_err(), ParseError::Header);
    }

    // [L2-6] Extension headers are skipped, the last one included.
    #[test]
    fn extension_headers_are_skipped() {
        let mut p = vec![43, 0, 1, 4, 0, 0, 0, 0]; // hop-by-hop, then routing
        p.extend([17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        p.extend([9, 9, 9, 9, 9, 9, 9, 9]);
        let frame = v6(0, &p);
        let got = packet(&frame).unwrap();
        assert_eq!((got.protocol, got.transport), (17, &[9u8; 8][..]));
    }

    // [L2-6] An atomic fragment is whole, others are not.
    #[test]
    fn atomic_fragments_are_whole() {
        let atomic = v6(44, &[17, 0, 0, 0, 1, 2, 3, 4, 7, 7, 7, 7, 7, 7, 7, 7]);
        assert_eq!(packet(&atomic).unwrap().protocol, 17);
        for word in [1, 8] {
            let part = v6(44, &[17, 0, 0, word, 1, 2, 3, 4, 7, 7, 7, 7, 7, 7, 7, 7]);
            assert!(matches!(Frame::parse(&part).unwrap().body, Body::Fragment(_)));
        }
    }

    // [L2-2] [TAP-16] Other EtherTypes, VLAN included, are not ours; [TAP-11] nor is what has none.
    #[test]
    fn other_ethertypes() {
        let mut frame = v4(28, 0, 5, &[0; 8]);
        frame[12..14].copy_from_slice(&[0x81, 0x00]);
        assert_eq!(Frame::parse(&frame).unwrap_err(), ParseError::EtherType);
        assert_eq!(Frame::parse(&frame[..13]).unwrap_err(), ParseError::Truncated);
    }

    proptest! {
        #[test]
        fn never_panics(mut data in proptest::collection::vec(any::<u8>(), 0..200), v in 0..4u8) {
            if data.len() > 14 {
                data[12] = [0x08, 0x86, 0x08, 1][usize::from(v)];
                data[13] = [0x00, 0xdd, 0x06, 1][usize::from(v)];
            }
            let _ = Frame::parse(&data);
        }
    }
}
