//! Ethernet (EUI-48) addresses.

use std::fmt;
use std::str::FromStr;

/// A six-byte Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// All ones: every station on the link.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The address we present to the guest unless told otherwise.
    pub const DEFAULT_OURS: Self = Self([0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55]);

    /// True for group addresses (broadcast included).
    pub const fn is_multicast(&self) -> bool {
        self.0[0] & 1 == 1
    }

    /// True for what one station can have: no group, and not all zero, which is nobody's.
    pub fn is_station(&self) -> bool {
        !self.is_multicast() && self.0 != [0; 6]
    }
}

impl FromStr for Mac {
    type Err = ();

    /// Exactly `xx:xx:xx:xx:xx:xx`, hexadecimal, any case.
    fn from_str(s: &str) -> Result<Self, ()> {
        let mut out = [0u8; 6];
        let mut parts = s.split(':');
        for byte in &mut out {
            let part = parts.next().ok_or(())?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| ())?;
        }
        if parts.next().is_some() { Err(()) } else { Ok(Self(out)) }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
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

    #[test]
    fn parses_and_prints() {
        let m: Mac = "9A:55:9a:55:9a:55".parse().unwrap();
        assert_eq!(m, Mac::DEFAULT_OURS);
        assert_eq!(m.to_string(), "9a:55:9a:55:9a:55");
        for bad in [
            "",
            "9a:55:9a:55:9a",
            "9a:55:9a:55:9a:5",
            "9a-55-9a-55-9a-55",
            "9a:55:9a:55:9a:55:00",
            "+a:55:9a:55:9a:55",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }
}
