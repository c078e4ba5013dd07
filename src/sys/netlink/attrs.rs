//! Netlink attributes: a walker over borrowed bytes and a builder.
//!
//! An attribute is a 16-bit length (header included), a 16-bit type with two flag bits on top, and
//! a value padded to four bytes (linux/netlink.h, `struct nlattr`).

use std::net::IpAddr;

/// Flag bits of the type field (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const KIND_MASK: u16 = 0x3fff;

/// One attribute, borrowed from a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attr<'a> {
    /// The type with its flag bits, as the kernel sent it.
    raw_kind: u16,
    /// The value, padding removed.
    pub(super) value: &'a [u8],
}

impl<'a> Attr<'a> {
    /// The type without flag bits.
    pub(super) fn kind(&self) -> u16 {
        self.raw_kind & KIND_MASK
    }

    /// The value as a host-order 32-bit number.
    pub(super) fn u32(&self) -> Option<u32> {
        Some(u32::from_ne_bytes(self.value.try_into().ok()?))
    }

    /// The value as an address, by its length.
    pub(super) fn ip(&self) -> Option<IpAddr> {
        if let Ok(v4) = <[u8; 4]>::try_from(self.value) {
            return Some(IpAddr::from(v4));
        }
        Some(IpAddr::from(<[u8; 16]>::try_from(self.value).ok()?))
    }

    /// The value as a NUL-terminated string.
    pub(super) fn string(&self) -> String {
        let end = self.value.iter().position(|b| *b == 0).unwrap_or(self.value.len());
        String::from_utf8_lossy(self.value.get(..end).unwrap_or_default()).into_owned()
    }
}

/// The attributes in `bytes`, or `None` if they are malformed anywhere.
///
/// Fewer than four bytes at the end are padding, not an error.
pub(super) fn parse(mut bytes: &[u8]) -> Option<Vec<Attr<'_>>> {
    let mut out = Vec::new();
    while bytes.len() >= 4 {
        let (len, raw_kind) = (u16_at(bytes, 0)?, u16_at(bytes, 2)?);
        let value = bytes.get(4..usize::from(len))?;
        out.push(Attr { raw_kind, value });
        bytes = bytes.get(align4(usize::from(len))..).unwrap_or_default();
    }
    Some(out)
}

/// A buffer that attributes are appended to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AttrBuf(pub(super) Vec<u8>);

impl AttrBuf {
    /// Appends an attribute. Values that do not fit a 16-bit length are a caller's error and are
    /// left out.
    pub(super) fn push(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let Ok(len) = u16::try_from(value.len().saturating_add(4)) else { return self };
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(align4(self.0.len()), 0);
        self
    }

    /// Appends a host-order 32-bit number.
    pub(super) fn push_u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.push(kind, &value.to_ne_bytes())
    }

    /// Appends an address.
    pub(super) fn push_ip(&mut self, kind: u16, ip: IpAddr) -> &mut Self {
        match ip {
            IpAddr::V4(a) => self.push(kind, &a.octets()),
            IpAddr::V6(a) => self.push(kind, &a.octets()),
        }
    }

    /// Appends a NUL-terminated string.
    pub(super) fn push_str(&mut self, kind: u16, s: &str) -> &mut Self {
        let mut bytes = s.as_bytes().to_vec();
        bytes.push(0);
        self.push(kind, &bytes)
    }

    /// Appends an attribute of a received message unchanged, flag bits included.
    pub(super) fn copy(&mut self, attr: &Attr<'_>) -> &mut Self {
        self.push(attr.raw_kind, attr.value)
    }

    /// Appends an attribute with the type of a received one and another value.
    pub(super) fn replace(&mut self, attr: &Attr<'_>, value: &[u8]) -> &mut Self {
        self.push(attr.raw_kind, value)
    }
}

/// Rounds up to the alignment of messages and attributes (`NLMSG_ALIGNTO`, `NLA_ALIGNTO`).
pub(super) fn align4(n: usize) -> usize {
    n.saturating_add(3) & !3
}

/// A host-order 16-bit number at an offset.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// A host-order 32-bit number at an offset.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn round_trip_keeps_flag_bits_and_pads() {
        let mut b = AttrBuf::default();
        b.push(0x8009, &[1, 2, 3, 4, 5]).push_u32(4, 7).push_str(3, "eth0");
        assert_eq!(b.0.len() % 4, 0);
        let attrs = parse(&b.0).unwrap();
        assert_eq!(attrs.len(), 3);
        assert_eq!((attrs[0].kind(), attrs[0].raw_kind), (9, 0x8009));
        assert_eq!(attrs[0].value, [1, 2, 3, 4, 5]);
        assert_eq!(attrs[1].u32(), Some(7));
        assert_eq!(attrs[2].string(), "eth0");
        let mut copy = AttrBuf::default();
        attrs.iter().for_each(|a| {
            copy.copy(a);
        });
        assert_eq!(copy, b);
    }

    #[test]
    fn malformed_lengths_are_refused() {
        assert!(parse(&[3, 0, 1, 0]).is_none());
        assert!(parse(&[0, 0, 1, 0]).is_none());
        assert!(parse(&[9, 0, 1, 0, 1, 2, 3, 4]).is_none());
        // The last value may lack its padding.
        assert_eq!(parse(&[5, 0, 1, 0, 9]).unwrap()[0].value, [9]);
        assert_eq!(parse(&[1, 2]).unwrap(), []);
    }
}
