//! The Internet checksum (RFC 1071): the ones' complement sum of 16-bit words.
//!
//! # Theory of operation
//!
//! The sum does not depend on byte order up to a final swap, and may be taken over wider words as
//! long as the carries are folded back in (RFC 1071, 2). So [`Checksum::add`] sums native words of
//! 64 bits in independent lanes, a loop that compilers turn into vector instructions, and only
//! [`Checksum::fold`] turns the result into network order. Processors have no carry between vector
//! lanes; what is lost when a lane overflows follows from a second sum, that of the upper halves.
//!
//! [`Checksum::add_avx2`] is the same loop for processors with wider vectors than the least that
//! we are built for. Whoever sums much finds out whether there are any.
//!
//! Data may arrive in pieces of any length. After an odd number of bytes the next piece starts in
//! the low half of a word: its sum is then byte-swapped before it is added (RFC 1071, 2.B).
//!
//! Three results can be taken:
//! * [`fold`](Checksum::fold): the plain sum, `0xffff` over anything that contains its own right
//!   checksum. For a virtio "needs checksum" frame the sum of the pseudo-header alone, *not*
//!   complemented, goes into the checksum field (virtio 1.2, 5.1.6.2).
//! * [`finish`](Checksum::finish): the complement, as stored in a header.
//! * [`finish_udp`](Checksum::finish_udp): the same, with 0 sent as `0xffff`.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A running ones' complement sum.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checksum {
    /// Sum of native-order words; far from overflowing, as every addend has at most 17 bits.
    sum: u64,
    /// An odd number of bytes was added so far.
    odd: bool,
}

impl Checksum {
    /// The sum of nothing.
    pub const fn new() -> Self {
        Self { sum: 0, odd: false }
    }

    /// The sum of an IPv4 pseudo-header (RFC 793, 3.1; RFC 768).
    ///
    /// `len` is the length of the transport header and its payload, in bytes.
    pub fn pseudo_v4(src: Ipv4Addr, dst: Ipv4Addr, proto: u8, len: u16) -> Self {
        let mut c = Self::new();
        c.add(&src.octets());
        c.add(&dst.octets());
        c.add_u16(u16::from(proto));
        c.add_u16(len);
        c
    }

    /// The sum of an IPv6 pseudo-header (RFC 8200, 8.1).
    ///
    /// `len` is the length of the upper-layer header and its payload, in bytes.
    pub fn pseudo_v6(src: Ipv6Addr, dst: Ipv6Addr, proto: u8, len: u32) -> Self {
        let mut c = Self::new();
        c.add(&src.octets());
        c.add(&dst.octets());
        c.add(&len.to_be_bytes());
        c.add_u16(u16::from(proto));
        c
    }

    /// Adds bytes that follow those added before.
    pub fn add(&mut self, data: &[u8]) {
        self.add_part(sum_native(data), data.len());
    }

    /// The same in instructions that not every processor has.
    ///
    /// # Safety
    /// This one must have AVX2. Nothing else is asked of callers.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    pub fn add_avx2(&mut self, data: &[u8]) {
        self.add_part(sum_native(data), data.len());
    }

    /// Adds the sum of the native words of `len` bytes.
    fn add_part(&mut self, sum: u64, len: usize) {
        let part = fold_native(sum);
        let part = if self.odd { part.swap_bytes() } else { part };
        self.sum = self.sum.wrapping_add(u64::from(part));
        self.odd ^= len % 2 == 1;
    }

    /// Adds a word at an even offset: a header field in host order, or the result of
    /// [`fold`](Self::fold) over some other even-length part.
    ///
    /// It does not count as data: a following [`add`](Self::add) continues where the last ended.
    pub fn add_u16(&mut self, word: u16) {
        self.sum = self.sum.wrapping_add(u64::from(word.to_be()));
    }

    /// The sum, not complemented, in host order.
    pub fn fold(self) -> u16 {
        u16::from_be(fold_native(self.sum))
    }

    /// The complement of the sum, in host order: what a checksum field holds.
    pub fn finish(self) -> u16 {
        !self.fold()
    }

    /// Like [`finish`](Self::finish) for UDP, where 0 means "none" and is forbidden over IPv6, so
    /// a computed 0 is sent as `0xffff` (RFC 768; RFC 8200, 8.1).
    pub fn finish_udp(self) -> u16 {
        match self.finish() {
            0 => 0xffff,
            sum => sum,
        }
    }
}

/// The checksum field for one contiguous piece of data, such as an IPv4 header whose own
/// checksum field is zero.
pub fn of(data: &[u8]) -> u16 {
    let mut c = Checksum::new();
    c.add(data);
    c.finish()
}

/// Bytes taken per turn of the main loop: a 64-bit word for each lane.
const BLOCK: usize = 64;

/// Sum of the native-order words of `data`, the last padded with zeros, folded to 32-bit words.
///
/// 2^31 words can be added before the total could overflow: 16 GiB. Inlined, so that it is compiled for what its caller may use.
#[inline(always)]
fn sum_native(data: &[u8]) -> u64 {
    let (blocks, tail) = data.as_chunks::<BLOCK>();
    // Sums modulo 2^64 of the words, and sums of their upper halves.
    let mut whole = [0u64; BLOCK / 8];
    let mut upper = [0u64; BLOCK / 8];
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        for ((whole, upper), word) in whole.iter_mut().zip(&mut upper).zip(words) {
            let word = u64::from_ne_bytes(*word);
            *whole = whole.wrapping_add(word);
            *upper = upper.wrapping_add(word >> 32);
        }
    }
    // The sum of the lower halves is no longer than 64 bits, so it is known although the other
    // wrapped around.
    let sum = whole.iter().zip(&upper).fold(0u64, |sum, (whole, upper)| {
        sum.wrapping_add(whole.wrapping_sub(upper << 32)).wrapping_add(*upper)
    });
    sum.wrapping_add(sum_short(tail))
}

/// The same for a little.
#[inline(always)]
fn sum_short(data: &[u8]) -> u64 {
    let (words, rest) = data.as_chunks::<4>();
    let sum =
        words.iter().fold(0u64, |sum, word| sum.wrapping_add(u64::from(u32::from_ne_bytes(*word))));
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    sum.wrapping_add(u64::from(u32::from_ne_bytes(last)))
}

/// Folds carries back in until 16 bits are left; zero only for a zero sum.
#[allow(clippy::cast_possible_truncation)] // four folds leave at most 16 bits
fn fold_native(sum: u64) -> u16 {
    let fold = |s: u64, bits: u32| {
        let low = s & !(u64::MAX << bits);
        low.wrapping_add(s >> bits)
    };
    let s = fold(sum, 32); // at most 33 bits
    let s = fold(s, 16); // at most 18 bits
    let s = fold(s, 16); // at most 17 bits
    fold(s, 16) as u16
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use smoltcp::wire::IpProtocol;
    use smoltcp::wire::checksum as theirs;

    /// RFC 1071 read literally.
    fn model(data: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in data.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |b| u32::from(*b));
            if sum > 0xffff {
                sum -= 0xffff;
            }
        }
        sum.try_into().unwrap()
    }

    fn sum(parts: &[&[u8]]) -> u16 {
        let mut c = Checksum::new();
        parts.iter().for_each(|p| c.add(p));
        c.fold()
    }

    // Every length and alignment near those of a block, carries out of every lane included.
    #[test]
    fn lengths_and_alignments() {
        let ones = [0xffu8; 4 * BLOCK];
        let mixed: Vec<u8> =
            (0..ones.len()).map(|n| u8::try_from(n * 151 % 256).unwrap()).collect();
        for data in [&ones[..], &mixed] {
            // An interpreter takes seconds for what takes microseconds otherwise.
            for at in (0..16).step_by(if cfg!(miri) { 5 } else { 1 }) {
                for len in (0..=3 * BLOCK).step_by(if cfg!(miri) { 37 } else { 1 }) {
                    let part = &data[at..at + len];
                    assert_eq!(sum(&[part]), model(part), "{len} bytes at {at}");
                }
            }
        }
    }

    #[test]
    fn rfc1071_example() {
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(sum(&[&data]), 0xddf2);
        assert_eq!(of(&data), 0x220d);
    }

    #[test]
    fn zero_and_all_ones() {
        assert_eq!(sum(&[]), 0);
        assert_eq!(sum(&[&[0; 99]]), 0);
        assert_eq!(sum(&[&[0xff; 64]]), 0xffff);
        assert_eq!(sum(&[&vec![0xff; 1 << 17]]), 0xffff);
    }

    // A UDP checksum that comes out as 0 is sent as 0xffff.
    #[test]
    fn udp_never_zero() {
        let mut c = Checksum::new();
        c.add(&[0xff, 0xff]);
        assert_eq!(c.finish(), 0);
        assert_eq!(c.finish_udp(), 0xffff);
        c.add(&[0x00, 0x01]);
        assert_eq!(c.finish_udp(), 0xfffe);
    }

    // [D2] What a frame that needs a checksum carries: the pseudo-header's plain sum, with which
    // the device completes the field by summing the transport part, field included.
    #[test]
    fn partial_completes_like_a_device() {
        let (src, dst) = (Ipv4Addr::new(192, 0, 2, 10), Ipv4Addr::new(192, 0, 2, 77));
        // c000 + 020a + c000 + 024d + 0011 + 000a, carry folded in
        let partial = Checksum::pseudo_v4(src, dst, 17, 10).fold();
        assert_eq!(partial, 0x8473);

        // What a device does: sum from the transport header on, partial sum in place.
        let udp = |field: u16| {
            let [hi, lo] = field.to_be_bytes();
            [0x0b, 0xb8, 0x1f, 0x40, 0, 10, hi, lo, b'h', b'i']
        };
        let completed = of(&udp(partial));
        let mut verify = Checksum::pseudo_v4(src, dst, 17, 10);
        verify.add(&udp(completed));
        assert_eq!(verify.fold(), 0xffff);
    }

    proptest! {
        #[test]
        fn matches_model_and_smoltcp(data in proptest::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(sum(&[&data]), model(&data));
            prop_assert_eq!(sum(&[&data]), theirs::data(&data));
        }

        #[test]
        fn pieces_sum_like_the_whole(
            data in proptest::collection::vec(any::<u8>(), 0..400),
            mut cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut at: Vec<usize> = cuts.drain(..).map(|i| i.index(data.len() + 1)).collect();
            at.extend([0, data.len()]);
            at.sort_unstable();
            let parts: Vec<&[u8]> = at.windows(2).map(|w| &data[w[0]..w[1]]).collect();
            prop_assert_eq!(sum(&parts), model(&data));
        }

        #[test]
        fn pseudo_headers_match_smoltcp(
            a4: [u8; 4], b4: [u8; 4], a6: [u8; 16], b6: [u8; 16], proto: u8, len: u16,
            payload in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let (a4, b4) = (Ipv4Addr::from(a4), Ipv4Addr::from(b4));
            let (a6, b6) = (Ipv6Addr::from(a6), Ipv6Addr::from(b6));
            let next = IpProtocol::from(proto);
            let four = Checksum::pseudo_v4(a4, b4, proto, len);
            let six = Checksum::pseudo_v6(a6, b6, proto, u32::from(len));
            prop_assert_eq!(four.fold(), theirs::pseudo_header_v4(&a4, &b4, next, len.into()));
            prop_assert_eq!(six.fold(), theirs::pseudo_header_v6(&a6, &b6, next, len.into()));

            // A complete checksum verifies: the sum with the field in place is all ones.
            let mut c = six;
            c.add(&payload);
            let mut check = Checksum::new();
            check.add_u16(six.fold());
            check.add_u16(c.finish());
            check.add(&payload);
            prop_assert_eq!(check.fold(), 0xffff);
        }
    }
}
