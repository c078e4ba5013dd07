//! Finds the flow of a packet: a hash table under a secret key.
//!
//! The hash is driven by values the guest chooses; without the key it could force long probe
//! chains, and the same hash seeds initial sequence numbers [FLOW-9]. Open addressing with linear
//! probing; deletion moves later entries of the cluster back, so there are no tombstones
//! [FLOW-10]. Each bucket keeps 32 bits of the hash beside the flow's index, so most mismatches
//! are told apart without touching the flow.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher24;

use super::table::MAX_FLOWS;
use crate::wire::{Addr, Endpoint};

/// What identifies a flow on the guest's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// IP protocol number.
    pub protocol: u8,
    /// The party we impersonate.
    pub ours: Endpoint,
    /// The guest.
    pub guest: Endpoint,
}

/// Bytes of the index for each flow, at the load it is made for.
pub const INDEX_ENTRY: usize = (size_of::<u64>() * 10).div_ceil(7);

/// Maps tuples to slot numbers of the flow table.
#[derive(Debug)]
pub struct Index {
    /// Hash in the high half, slot number plus one in the low half; 0 is empty.
    buckets: Box<[u64]>,
    key: [u8; 16],
    len: usize,
}

impl Index {
    /// An index for `flows` entries at a load of 70 percent at most. `key` must be random.
    pub fn new(flows: usize, key: [u8; 16]) -> Self {
        let flows = flows.clamp(1, MAX_FLOWS);
        let buckets = flows.saturating_mul(10).div_euclid(7).saturating_add(1);
        Self { buckets: vec![0; buckets].into_boxed_slice(), key, len: 0 }
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The keyed hash of a tuple (SipHash-2-4), which also seeds sequence numbers [TCP-35].
    pub fn hash(&self, t: &Tuple) -> u64 {
        let mut h = SipHasher24::new_with_key(&self.key);
        let [ours, guest] = [t.ours.addr, t.guest.addr].map(Addr::bits);
        let [ours_port, guest_port] = [t.ours.port, t.guest.port].map(u64::from);
        // Whole words, which the hash takes quickest.
        for word in [ours, guest].as_flattened() {
            h.write_u64(*word);
        }
        h.write_u64(u64::from(t.protocol) << 32 | ours_port << 16 | guest_port);
        h.finish()
    }

    /// The slot number stored under `hash` for which `is_it` says yes [FLOW-12].
    pub fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let mut at = self.home(hash);
        for _ in 0..self.buckets.len() {
            let bucket = *self.buckets.get(at)?;
            if bucket == 0 {
                return None;
            }
            if let Some(slot) = slot_of(bucket, hash)
                && is_it(slot)
            {
                return Some(slot);
            }
            at = self.next(at);
        }
        None
    }

    /// Adds an entry; false when the table is full.
    pub fn insert(&mut self, hash: u64, slot: u32) -> bool {
        // One bucket stays empty, so that every search ends.
        if self.len.saturating_add(1) >= self.buckets.len() {
            return false;
        }
        let mut at = self.home(hash);
        while let Some(bucket) = self.buckets.get_mut(at) {
            if *bucket == 0 {
                *bucket = (hash & !0xffff_ffff) | u64::from(slot.wrapping_add(1));
                self.len = self.len.saturating_add(1);
                return true;
            }
            at = self.next(at);
        }
        false
    }

    /// Removes the entry of `slot` stored under `hash`. Removing twice is harmless [FLOW-11].
    pub fn remove(&mut self, hash: u64, slot: u32) -> bool {
        let wanted = (hash & !0xffff_ffff) | u64::from(slot.wrapping_add(1));
        let mut hole = self.home(hash);
        loop {
            match self.buckets.get(hole) {
                None | Some(0) => return false,
                Some(b) if *b == wanted => break,
                _ => hole = self.next(hole),
            }
        }
        // Move back every later entry of the cluster that may not be reached past the hole.
        let mut at = self.next(hole);
        while let Some(&bucket) = self.buckets.get(at) {
            if bucket == 0 {
                break;
            }
            let home = self.home(bucket);
            if self.distance(home, at) >= self.distance(hole, at) {
                if let Some(b) = self.buckets.get_mut(hole) {
                    *b = bucket;
                }
                hole = at;
            }
            at = self.next(at);
        }
        if let Some(b) = self.buckets.get_mut(hole) {
            *b = 0;
        }
        self.len = self.len.saturating_sub(1);
        true
    }

    /// The high 32 bits of a hash, scaled to the table: entries keep them, so they can be moved.
    fn home(&self, hash: u64) -> usize {
        let scaled = (hash >> 32).wrapping_mul(self.buckets.len() as u64) >> 32;
        usize::try_from(scaled).unwrap_or(0)
    }

    fn next(&self, at: usize) -> usize {
        let next = at.wrapping_add(1);
        if next >= self.buckets.len() { 0 } else { next }
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from {
            to.wrapping_sub(from)
        } else {
            to.wrapping_add(self.buckets.len()).wrapping_sub(from)
        }
    }
}

fn slot_of(bucket: u64, hash: u64) -> Option<u32> {
    if (bucket ^ hash) >> 32 != 0 {
        return None;
    }
    u32::try_from(bucket & 0xffff_ffff).ok()?.checked_sub(1)
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
    use std::collections::HashMap;

    // [FLOW-10] A tiny table with forced collisions behaves like a map.
    proptest! {
        #[test]
        fn behaves_like_a_map(ops in proptest::collection::vec((0u8..3, 0u64..6, 0u32..8), 0..500)) {
            let mut index = Index::new(12, [0; 16]);
            let mut model: HashMap<(u64, u32), ()> = HashMap::new();
            for (op, h, slot) in ops {
                // Few distinct homes, so that clusters form and wrap.
                let hash = (h * 0x2fff_ffff) << 32;
                match op {
                    0 if !model.contains_key(&(hash, slot)) && model.len() < 12 => {
                        prop_assert!(index.insert(hash, slot));
                        model.insert((hash, slot), ());
                    }
                    1 => prop_assert_eq!(
                        index.remove(hash, slot),
                        model.remove(&(hash, slot)).is_some()
                    ),
                    _ => {}
                }
                prop_assert_eq!(index.len(), model.len());
                for (h, s) in model.keys() {
                    prop_assert_eq!(index.find(*h, |x| x == *s), Some(*s));
                }
            }
        }
    }

    // [FLOW-9] [FLOW-3] The key decides the hash, and every part of the tuple counts.
    #[test]
    fn hash_depends_on_key_and_every_field() {
        let ep = |a: u8, p| Endpoint::new(std::net::Ipv4Addr::new(192, 0, 2, a).into(), p);
        let base = Tuple { protocol: 6, ours: ep(1, 80), guest: ep(2, 4000) };
        let index = Index::new(4, [1; 16]);
        let mut seen = vec![index.hash(&base), Index::new(4, [2; 16]).hash(&base)];
        for t in [
            Tuple { protocol: 17, ..base },
            Tuple { ours: ep(3, 80), ..base },
            Tuple { ours: ep(1, 81), ..base },
            Tuple { guest: ep(3, 4000), ..base },
            Tuple { guest: ep(2, 4001), ..base },
        ] {
            seen.push(index.hash(&t));
        }
        let n = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), n);
    }

    // [FLOW-12] Lookup accepts any values.
    #[test]
    fn hostile_lookup_finds_nothing() {
        let index = Index::new(4, [1; 16]);
        let zero = Endpoint::new(crate::wire::Addr::UNSPECIFIED, 0);
        let t = Tuple { protocol: 0, ours: zero, guest: zero };
        assert_eq!(index.find(index.hash(&t), |_| true), None);
    }
}
