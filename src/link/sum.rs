//! Checksums of payload, in the widest instructions that this processor has.

use crate::wire::checksum::Checksum;

/// Adds bytes that follow those added before.
pub(super) fn add(sum: &mut Checksum, data: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the function is safe but for the instructions it consists of, and the processor
        // has just been found to have them.
        return unsafe { sum.add_avx2(data) };
    }
    sum.add(data);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 read literally.
    fn model(data: &[u8]) -> u16 {
        let word = |pair: &[u8]| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |b| (*b).into());
        let mut sum: u64 = data.chunks(2).map(word).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum.try_into().unwrap()
    }

    proptest! {
        // [TCP-88] Whatever the instructions: any length, at any alignment, in any pieces.
        #[test]
        fn sums_are_those_of_the_rfc(
            data in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..70_000),
                proptest::collection::vec(Just(0xffu8), 0..70_000),
                proptest::collection::vec(any::<u8>(), 0..300),
            ],
            skip in 0usize..70,
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let data = data.get(skip..).unwrap_or_default();
            let mut at: Vec<usize> = cuts.iter().map(|i| i.index(data.len() + 1)).collect();
            at.extend([0, data.len()]);
            at.sort_unstable();
            let (mut wide, mut plain) = (Checksum::new(), Checksum::new());
            for part in at.windows(2).map(|w| &data[w[0]..w[1]]) {
                add(&mut wide, part);
                plain.add(part);
            }
            prop_assert_eq!(wide.fold(), model(data));
            prop_assert_eq!(plain.fold(), model(data));
        }
    }
}
