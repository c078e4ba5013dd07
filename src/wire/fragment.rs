//! Fragments of IPv4 and IPv6 packets (RFC 791, 3.2; RFC 8200, 4.5).
//!
//! A fragment that parses can be part of a datagram: its lengths make sense. Whether it fits the
//! others of its datagram is for whoever puts them together to see.

use super::Addr;
use super::checksum::Checksum;
use super::ether::{IPV6_LEN, Packet, ParseError, proto};
use super::extension::{self, FRAGMENT_LEN, Part};
use super::head::pseudo_header;

/// The largest payload of an IP packet, and so the end of every fragment.
const IP_MAX: usize = 65_535;

/// Fragments begin at multiples of this.
pub const FRAGMENT_UNIT: usize = 8;

/// A fragment of a packet of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// What the fragments of a datagram have in common, besides addresses (and the protocol of
    /// IPv4).
    pub id: u32,
    /// Transport protocol (IPv4), or the first header of the fragmentable part (IPv6).
    pub protocol: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Type of service or traffic class.
    pub tos: u8,
    /// Where it begins in the fragmentable part.
    pub offset: usize,
    /// It is not the last one.
    pub more: bool,
    /// Its own network headers.
    pub headers: &'a [u8],
    /// Its part; not empty.
    pub data: &'a [u8],
}

impl<'a> Fragment<'a> {
    /// From an IPv4 packet of `header_len` bytes of header whose third word is `word`.
    pub(super) fn v4(
        whole: &Packet<'a>,
        (id, word): (u16, u16),
        headers: &'a [u8],
    ) -> Result<Self, ParseError> {
        if word & 0x8000 != 0 {
            // A bit without a meaning.
            return Err(ParseError::Header);
        }
        Self {
            src: whole.src,
            dst: whole.dst,
            id: id.into(),
            protocol: whole.protocol,
            ttl: whole.ttl,
            tos: whole.tos,
            offset: usize::from(word & 0x1fff).saturating_mul(FRAGMENT_UNIT),
            more: word & 0x2000 != 0,
            headers,
            data: whole.transport,
        }
        .checked(headers.len())
    }

    /// From an IPv6 packet, of which `packet` is all.
    pub(super) fn v6(
        whole: &Packet<'a>,
        part: Part<'a>,
        packet: &'a [u8],
    ) -> Result<Self, ParseError> {
        let headers = packet.len().checked_sub(part.data.len()).ok_or(ParseError::Fragment)?;
        let headers = packet.get(..headers).ok_or(ParseError::Fragment)?;
        if part.offset == 0 && !extension::is_complete(part.next, part.data) {
            return Err(ParseError::Fragment);
        }
        Self {
            src: whole.src,
            dst: whole.dst,
            id: part.id,
            protocol: part.next,
            ttl: whole.ttl,
            tos: whole.tos,
            offset: part.offset,
            more: part.more,
            headers,
            data: part.data,
        }
        // Its own header goes, and the IPv6 header does not count.
        .checked(headers.len().saturating_sub(IPV6_LEN).saturating_sub(FRAGMENT_LEN))
    }

    /// Where it ends in the fragmentable part.
    pub fn end(&self) -> usize {
        self.offset.saturating_add(self.data.len())
    }

    /// If it can be part of a datagram that has `headers` more bytes, as counted by its length
    /// field.
    fn checked(self, headers: usize) -> Result<Self, ParseError> {
        let odd = self.more && !self.data.len().is_multiple_of(FRAGMENT_UNIT);
        if self.data.is_empty() || odd || self.end().saturating_add(headers) > IP_MAX {
            return Err(ParseError::Fragment);
        }
        Ok(self)
    }
}

impl<'a> Packet<'a> {
    /// The packet whose fragmentable part is `data`, where `first` is its first fragment.
    ///
    /// # Errors
    /// It has headers that make no sense.
    pub fn reassembled(first: &Reassembled, data: &'a [u8]) -> Result<Self, ParseError> {
        let Reassembled { src, dst, protocol, ttl, tos } = *first;
        let (protocol, transport) =
            if dst.is_v4() { (protocol, data) } else { extension::walk_whole(protocol, data)? };
        Ok(Self { src, dst, protocol, ttl, tos, df: false, transport })
    }

    /// False if the transport checksum is wrong. Where it is left to a device it must not be asked
    /// for.
    pub fn has_right_checksum(&self) -> bool {
        let Self { src, dst, protocol, transport, .. } = *self;
        let Some(pseudo) = pseudo_header(src, dst, protocol, transport.len()) else {
            return false;
        };
        let mut sum = Checksum::new();
        // ICMP for IPv4 has none.
        if protocol != proto::ICMP || !dst.is_v4() {
            sum.add_u16(pseudo);
        }
        match protocol {
            // None was made.
            proto::UDP if dst.is_v4() && transport.get(6..8) == Some(&[0, 0]) => true,
            proto::UDP | proto::TCP | proto::ICMP | proto::ICMPV6 => {
                sum.add(transport);
                sum.fold() == 0xffff
            }
            _ => true,
        }
    }
}

/// What a whole packet has of its first fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reassembled {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// As in [`Fragment::protocol`].
    pub protocol: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Type of service or traffic class.
    pub tos: u8,
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#[allow(clippy::cast_possible_truncation)]
pub(crate) mod tests {
    use super::*;
    use crate::wire::{Body, Frame};

    /// A frame with an IPv4 fragment of these flags and offset.
    pub(crate) fn v4(id: u16, word: u16, protocol: u8, data: &[u8]) -> Vec<u8> {
        let mut f = vec![0xff; 6];
        f.extend([2, 0, 0, 0, 0, 1, 0x08, 0x00, 0x45, 4]);
        f.extend((data.len() as u16 + 20).to_be_bytes());
        f.extend(id.to_be_bytes());
        f.extend(word.to_be_bytes());
        f.extend([64, protocol, 0, 0, 192, 0, 2, 10, 192, 0, 2, 77]);
        f.extend(data);
        f
    }

    /// A frame with an IPv6 fragment of this offset, behind `before`, whose next header is the
    /// fragment header.
    pub(crate) fn v6(
        id: u32,
        word: u16,
        (first, before): (u8, &[u8]),
        next: u8,
        data: &[u8],
    ) -> Vec<u8> {
        let mut f = vec![0xff; 6];
        f.extend([2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0x40, 0, 0]);
        f.extend(((before.len() + 8 + data.len()) as u16).to_be_bytes());
        f.extend([first, 64]);
        f.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10]);
        f.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x77]);
        f.extend(before);
        f.extend([next, 0]);
        f.extend(word.to_be_bytes());
        f.extend(id.to_be_bytes());
        f.extend(data);
        f
    }

    pub(crate) fn parse(frame: &[u8]) -> Result<Fragment<'_>, ParseError> {
        match Frame::parse(frame)?.body {
            Body::Fragment(f) => Ok(f),
            other => panic!("{other:?}"),
        }
    }

    // [L2-4] What an IPv4 fragment says.
    #[test]
    fn ipv4() {
        let frame = v4(0xbeef, 0x2000 | 3, 17, &[7; 16]);
        let f = parse(&frame).unwrap();
        assert_eq!((f.id, f.protocol, f.offset, f.more, f.end()), (0xbeef, 17, 24, true, 40));
        assert_eq!((f.ttl, f.tos, f.data), (64, 4, &[7; 16][..]));
        assert_eq!((f.headers.len(), f.headers[0]), (20, 0x45));
        // Don't-fragment on a fragment is possible: it is not to be cut again.
        assert!(!parse(&v4(1, 0x4000 | 3, 17, &[7; 3])).unwrap().more);
    }

    // [L2-6] What an IPv6 fragment says, with a header before it and one in it.
    #[test]
    fn ipv6() {
        let before = [44, 0, 1, 4, 0, 0, 0, 0];
        let data = [&[17, 0, 1, 4, 0, 0, 0, 0][..], &[9; 16]].concat();
        let frame = v6(0xdead_beef, 1, (0, &before), 60, &data);
        let f = parse(&frame).unwrap();
        assert_eq!((f.id, f.protocol, f.offset, f.more), (0xdead_beef, 60, 0, true));
        assert_eq!((f.ttl, f.tos, f.headers.len()), (64, 4, 40 + 8 + 8));
        assert_eq!(f.data, data);
        let first = Reassembled { src: f.src, dst: f.dst, protocol: 60, ttl: 1, tos: 2 };
        let whole = Packet::reassembled(&first, &data).unwrap();
        assert_eq!((whole.protocol, whole.ttl, whole.tos, whole.df), (17, 1, 2, false));
        assert_eq!(whole.transport, [9; 16]);
        let twice = Reassembled { protocol: 44, ..first };
        assert_eq!(Packet::reassembled(&twice, &data).unwrap_err(), ParseError::Extension);
    }

    // [L2-4] [L2-6] Lengths that no fragment has.
    #[test]
    fn impossible_fragments() {
        let bad = Err(ParseError::Fragment);
        for (word, len) in [(0x2000, 0), (0x2000, 15), (1, 0), (0x1fff, 9), (0x1ffe, 0)] {
            assert_eq!(parse(&v4(1, word, 17, &vec![7; len])), bad, "{word:x} {len}");
        }
        // With its header, 65,535 bytes.
        assert!(parse(&v4(1, 0x1ffc, 17, &[7; 11])).is_ok());
        assert!(parse(&v4(1, 0x1ffc, 17, &[7; 12])).is_err());
        assert_eq!(parse(&v4(1, 0xa000, 17, &[7; 8])), Err(ParseError::Header));

        for (word, len) in [(1, 0), (9, 15), (8, 0), (0xfff8, 8)] {
            assert_eq!(parse(&v6(1, word, (44, &[]), 17, &vec![7; len])), bad, "{word:x} {len}");
        }
        assert!(parse(&v6(1, 0xfff8, (44, &[]), 17, &[7; 7])).is_ok());
        let before = [44, 0, 1, 4, 0, 0, 0, 0];
        assert_eq!(parse(&v6(1, 0xfff8, (0, &before), 17, &[7; 7])), bad);
        // The first one has to have the transport header.
        assert_eq!(parse(&v6(1, 1, (44, &[]), 6, &[7; 16])), bad);
        assert!(parse(&v6(1, 1, (44, &[]), 6, &[7; 24])).is_ok());
    }

    fn packet<'a>(frame: &'a [u8], protocol: u8, transport: &'a [u8]) -> Packet<'a> {
        let f = parse(frame).unwrap();
        Packet { src: f.src, dst: f.dst, protocol, ttl: 1, tos: 0, df: false, transport }
    }

    // [L2-4] Checksums tell whether fragments belong together (RFC 4963).
    #[test]
    fn checksums() {
        let (four, six) = (v4(1, 0x2000, 17, &[0; 8]), v6(1, 9, (44, &[]), 17, &[0; 8]));
        for (frame, icmp) in [(&four, proto::ICMP), (&six, proto::ICMPV6)] {
            for (protocol, at) in [(proto::UDP, 6), (proto::TCP, 16), (icmp, 2)] {
                let mut transport = (0..101).collect::<Vec<u8>>();
                transport[at..at + 2].copy_from_slice(&[0, 0]);
                let p = packet(frame, protocol, &transport);
                let mut sum = match (p.src.v4(), p.dst.v4(), p.src.v6(), p.dst.v6()) {
                    (Some(s), Some(d), ..) if protocol != proto::ICMP => {
                        Checksum::pseudo_v4(s, d, protocol, 101)
                    }
                    (Some(_), ..) => Checksum::new(),
                    (.., Some(s), Some(d)) => Checksum::pseudo_v6(s, d, protocol, 101),
                    _ => unreachable!(),
                };
                let none = protocol == proto::UDP && p.dst.is_v4();
                assert_eq!(p.has_right_checksum(), none, "{protocol}");
                sum.add(&transport);
                transport[at..at + 2].copy_from_slice(&sum.finish().to_be_bytes());
                assert!(packet(frame, protocol, &transport).has_right_checksum());
                transport[50] ^= 1;
                assert!(!packet(frame, protocol, &transport).has_right_checksum());
            }
            assert!(packet(frame, 99, &[1]).has_right_checksum());
        }
    }
}
