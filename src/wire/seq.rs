//! TCP sequence numbers: 32-bit, wrapping, compared within half the space (RFC 9293, 3.4).

use std::fmt;

/// A TCP sequence number. Plain `+`, `-` and `<` on it do not compile.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Seq(pub u32);

impl Seq {
    /// This number advanced by `n` octets.
    #[must_use]
    pub const fn add(self, n: u32) -> Self {
        Self(self.0.wrapping_add(n))
    }

    /// This number moved back by `n` octets.
    #[must_use]
    pub const fn sub(self, n: u32) -> Self {
        Self(self.0.wrapping_sub(n))
    }

    /// Octets from `earlier` to this number, modulo 2^32.
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// True if this number comes before `other` by less than 2^31.
    pub const fn before(self, other: Self) -> bool {
        other.0.wrapping_sub(self.0).wrapping_sub(1) < 0x7fff_ffff
    }

    /// True if this number comes after `other` by less than 2^31.
    pub const fn after(self, other: Self) -> bool {
        other.before(self)
    }

    /// The later of the two.
    #[must_use]
    pub const fn max(self, other: Self) -> Self {
        if self.before(other) { other } else { self }
    }

    /// The earlier of the two.
    #[must_use]
    pub const fn min(self, other: Self) -> Self {
        if other.before(self) { other } else { self }
    }
}

impl fmt::Debug for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
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
    use proptest::prelude::*;

    proptest! {
        // [TCP-6] Order survives the wrap for distances below 2^31.
        #[test]
        fn order_survives_the_wrap(a: u32, d in 1u32..0x7fff_ffff) {
            let (a, b) = (Seq(a), Seq(a).add(d));
            prop_assert!(a.before(b) && b.after(a) && !b.before(a) && !a.after(b));
            prop_assert_eq!(b.since(a), d);
            prop_assert_eq!(b.sub(d), a);
            prop_assert_eq!(a.max(b), b);
            prop_assert_eq!(a.min(b), a);
        }
    }

    #[test]
    fn equal_is_neither_before_nor_after() {
        assert!(!Seq(7).before(Seq(7)));
        assert!(!Seq(7).after(Seq(7)));
    }
}
