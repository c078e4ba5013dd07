//! Fixed-capacity slots with generations.

/// Most flows at a time: 2^17 - 1 [FLOW-5].
pub const MAX_FLOWS: usize = (1 << 17) - 1;

/// Bits of a generation: as many as fit an event token beside the slot number.
#[cfg(target_pointer_width = "64")]
pub const GENERATION_BITS: u32 = 23;
/// Bits of a generation: as many as fit an event token beside the slot number.
#[cfg(target_pointer_width = "32")]
pub const GENERATION_BITS: u32 = 10;

const WORDS: usize = (MAX_FLOWS + 1) / 64;

/// Names a flow: the slot and which of its occupants is meant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FlowId {
    /// Slot number, below [`MAX_FLOWS`].
    pub index: u32,
    /// Which occupant; [`GENERATION_BITS`] wide, wraps.
    pub generation: u32,
}

/// Bytes of the table for each flow.
pub const fn slot_size<F>() -> usize {
    size_of::<Slot<F>>()
}

#[derive(Debug)]
struct Slot<F> {
    generation: u32,
    flow: Option<F>,
}

/// A table of flows.
///
/// Address space for every slot is reserved when the table is made and touched only as slots are
/// first used, so an idle process stays small and nothing is allocated later [FLOW-5].
#[derive(Debug)]
pub struct Table<F> {
    slots: Vec<Slot<F>>,
    /// One bit per slot, set when it is free. The lowest free slot is found in two steps.
    free: Box<[u64; WORDS]>,
    /// One bit per word of `free`, set when the word is not 0.
    summary: [u64; WORDS.div_ceil(64)],
    capacity: usize,
    len: usize,
}

impl<F> Table<F> {
    /// A table for up to `capacity` flows, at most [`MAX_FLOWS`].
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.min(MAX_FLOWS);
        let mut free = Box::new([0u64; WORDS]);
        for (w, word) in free.iter_mut().enumerate() {
            let first = w.saturating_mul(64);
            *word = match capacity.saturating_sub(first) {
                0 => 0,
                n @ 1..64 => (1u64 << n).wrapping_sub(1),
                _ => u64::MAX,
            };
        }
        let mut summary = [0u64; WORDS.div_ceil(64)];
        for (bits, words) in summary.iter_mut().zip(free.chunks(64)) {
            for (i, word) in words.iter().enumerate() {
                if *word != 0 {
                    *bits |= 1 << i;
                }
            }
        }
        Self { slots: Vec::with_capacity(capacity), free, summary, capacity, len: 0 }
    }

    /// Flows in the table.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True if the next insertion would fail.
    pub fn is_full(&self) -> bool {
        self.len >= self.capacity
    }

    /// Slots that were ever used; every index is below.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The id that the next insertion will use; `None` when the table is full.
    pub fn next_id(&self) -> Option<FlowId> {
        let index = self.lowest_free()?;
        let generation = self.slots.get(index).map_or(0, |s| s.generation);
        Some(FlowId { index: u32::try_from(index).ok()?, generation })
    }

    /// Inserts a flow in the lowest free slot [FLOW-6]; gives it back when the table is full.
    pub fn insert(&mut self, flow: F) -> Result<FlowId, F> {
        let Some(id) = self.next_id() else { return Err(flow) };
        let index = id.index as usize;
        if index == self.slots.len() {
            self.slots.push(Slot { generation: 0, flow: None });
        }
        let Some(slot) = self.slots.get_mut(index) else { return Err(flow) };
        slot.flow = Some(flow);
        self.mark(index, false);
        self.len = self.len.saturating_add(1);
        Ok(id)
    }

    /// The flow, if this is still the same one.
    pub fn get(&self, id: FlowId) -> Option<&F> {
        let slot = self.slots.get(id.index as usize)?;
        if slot.generation == id.generation { slot.flow.as_ref() } else { None }
    }

    /// The flow, if this is still the same one.
    pub fn get_mut(&mut self, id: FlowId) -> Option<&mut F> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation == id.generation { slot.flow.as_mut() } else { None }
    }

    /// Whatever occupies a slot.
    pub fn at(&self, index: u32) -> Option<&F> {
        self.slots.get(index as usize)?.flow.as_ref()
    }

    /// The id of whatever occupies a slot.
    pub fn id_at(&self, index: u32) -> Option<FlowId> {
        let slot = self.slots.get(index as usize)?;
        slot.flow.as_ref()?;
        Some(FlowId { index, generation: slot.generation })
    }

    /// Removes a flow; every id made for it goes stale.
    pub fn remove(&mut self, id: FlowId) -> Option<F> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let flow = slot.flow.take()?;
        slot.generation = slot.generation.wrapping_add(1) & ((1 << GENERATION_BITS) - 1);
        self.mark(id.index as usize, true);
        self.len = self.len.saturating_sub(1);
        Some(flow)
    }

    /// Ids of all flows, lowest slot first.
    pub fn ids(&self) -> impl Iterator<Item = FlowId> + '_ {
        (0u32..)
            .zip(&self.slots)
            .filter(|(_, s)| s.flow.is_some())
            .map(|(index, s)| FlowId { index, generation: s.generation })
    }

    fn lowest_free(&self) -> Option<usize> {
        let (group, bits) = self.summary.iter().enumerate().find(|(_, b)| **b != 0)?;
        let word = group.checked_mul(64)?.checked_add(bits.trailing_zeros() as usize)?;
        let bit = self.free.get(word)?.trailing_zeros() as usize;
        word.checked_mul(64)?.checked_add(bit)
    }

    fn mark(&mut self, index: usize, free: bool) {
        let (word, bit) = (index / 64, index % 64);
        let Some(bits) = self.free.get_mut(word) else { return };
        if free {
            *bits |= 1 << bit;
        } else {
            *bits &= !(1 << bit);
        }
        let any = *bits != 0;
        let Some(summary) = self.summary.get_mut(word / 64) else { return };
        if any {
            *summary |= 1 << (word % 64);
        } else {
            *summary &= !(1 << (word % 64));
        }
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
    use std::collections::HashMap;

    // [FLOW-6] The lowest free slot is used.
    #[test]
    fn lowest_free_slot_first() {
        let mut t = Table::new(200);
        let ids: Vec<_> = (0..200).map(|n| t.insert(n).unwrap()).collect();
        assert!(t.is_full());
        assert_eq!(t.insert(7), Err(7));
        t.remove(ids[130]).unwrap();
        t.remove(ids[70]).unwrap();
        assert_eq!(t.insert(1).unwrap().index, 70);
        assert_eq!(t.insert(2).unwrap().index, 130);
    }

    // [FLOW-13] A stale id finds nothing, not the new occupant.
    #[test]
    fn stale_ids_find_nothing() {
        let mut t = Table::new(4);
        let a = t.insert('a').unwrap();
        assert_eq!(t.remove(a), Some('a'));
        let b = t.insert('b').unwrap();
        assert_eq!(a.index, b.index);
        assert_eq!(t.get(a), None);
        assert_eq!(t.remove(a), None);
        assert_eq!(t.get(b), Some(&'b'));
    }

    proptest! {
        // [FLOW-6] [FLOW-7] Whatever comes and goes in whatever order.
        #[test]
        fn behaves_like_a_map(ops in proptest::collection::vec((any::<bool>(), 0usize..40), 0..400)) {
            let mut t = Table::new(30);
            let mut model: HashMap<u32, (FlowId, usize)> = HashMap::new();
            for (insert, n) in ops {
                if insert {
                    match t.insert(n) {
                        Ok(id) => {
                            let lowest = (0..30).find(|i| !model.contains_key(i)).unwrap();
                            prop_assert_eq!(id.index, lowest);
                            model.insert(id.index, (id, n));
                        }
                        Err(_) => prop_assert_eq!(model.len(), 30),
                    }
                } else if let Some((id, v)) = model.remove(&(n as u32)) {
                    prop_assert_eq!(t.remove(id), Some(v));
                }
                prop_assert_eq!(t.len(), model.len());
            }
            let mut left: Vec<_> = t.ids().collect();
            left.sort_by_key(|i| i.index);
            let mut want: Vec<_> = model.values().map(|v| v.0).collect();
            want.sort_by_key(|i| i.index);
            prop_assert_eq!(left, want);
        }
    }
}
