//! A hierarchical timer wheel: four levels of 64 slots, one millisecond per tick.
//!
//! # Theory of operation
//!
//! Keys are small integers (slot numbers of the flow table), and each has at most one entry, in
//! a doubly linked list of the slot its distance calls for. Setting, moving and expiring cost
//! O(1). When time reaches the start of a higher level's slot, its entries move down. A deadline
//! further away than the wheel reaches (4.6 hours) is parked in the last slot and moves on when
//! its turn comes.
//!
//! Moving a deadline *later* is the common case and need not be told: whoever owns a key
//! remembers its real deadline, calls [`Wheel::ensure`], which only ever moves entries earlier,
//! and does so again when an entry fires before its time.

// Nothing here comes from the guest or a peer: lists are numbered modulo their count, keys index
// `entries` only after `ensure` made room for them, and time is 64 bits of milliseconds.
#![allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

const SLOTS: usize = 64;
const LEVELS: usize = 4;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Low bits of the time it is due, which is never before the present.
    at: u32,
    prev: u32,
    next: u32,
    /// Which list it is in: level times [`SLOTS`] plus slot; [`IDLE`] in none.
    list: u16,
}

/// Bytes of the wheel for each key.
pub const WHEEL_ENTRY: usize = size_of::<Entry>();

/// Furthest deadline, milliseconds from now: 24 days. A later one fires then.
const FURTHEST: u64 = 1 << 31;

/// In no list.
const IDLE: u16 = u16::MAX;

/// Timers for keys from 0 on.
#[derive(Debug)]
pub struct Wheel {
    entries: Vec<Entry>,
    heads: [u32; LEVELS * SLOTS],
    occupied: [u64; LEVELS],
    /// Every tick up to this one has been served.
    now: u64,
}

impl Wheel {
    /// A wheel that starts at `now` (milliseconds). Address space for `keys` is reserved here
    /// and touched as keys are first used.
    pub fn new(now: u64, keys: usize) -> Self {
        Self {
            entries: Vec::with_capacity(keys),
            heads: [NONE; LEVELS * SLOTS],
            occupied: [0; LEVELS],
            now,
        }
    }

    /// Makes `key` fire at `at` (milliseconds) or earlier: an earlier entry stays.
    pub fn ensure(&mut self, key: u32, at: u64) {
        let at = at.clamp(self.now + 1, self.now + FURTHEST);
        let index = key as usize;
        while self.entries.len() <= index {
            self.entries.push(Entry { at: 0, prev: NONE, next: NONE, list: IDLE });
        }
        if self.entries[index].list != IDLE {
            if self.due(key) <= at {
                return;
            }
            self.unlink(key);
        }
        self.entries[index].at = low(at);
        self.link(key);
    }

    /// When an entry is due.
    fn due(&self, key: u32) -> u64 {
        let ahead = self.entries[key as usize].at.wrapping_sub(low(self.now));
        self.now + u64::from(ahead)
    }

    /// Removes the entry of `key`, if there is one.
    pub fn clear(&mut self, key: u32) {
        if self.entries.get(key as usize).is_some_and(|e| e.list != IDLE) {
            self.unlink(key);
        }
    }

    /// A time (milliseconds) not after the first entry is due, `None` without entries.
    pub fn next(&self) -> Option<u64> {
        (0..LEVELS).filter_map(|level| self.next_at(level)).min()
    }

    /// Moves time forward to `now` and takes one entry that is due, until there are none.
    pub fn expire(&mut self, now: u64) -> Option<u32> {
        loop {
            let key = self.heads[slot_at(self.now, 1)];
            if key != NONE {
                self.unlink(key);
                return Some(key);
            }
            if self.now >= now {
                return None;
            }
            self.step(now);
        }
    }

    /// Advances to the next tick at which something may happen, at most to `limit`.
    fn step(&mut self, limit: u64) {
        self.now = self.next().map_or(limit, |n| n.min(limit)).max(self.now + 1);
        // A slot of a higher level opens when time reaches its start.
        for level in (1..LEVELS).rev() {
            let width = width(level);
            if self.now.is_multiple_of(width) {
                let list = level * SLOTS + slot_at(self.now, width);
                while self.heads[list] != NONE {
                    let key = self.heads[list];
                    self.unlink(key);
                    self.link(key);
                }
            }
        }
    }

    /// Links an entry into the list its distance calls for.
    fn link(&mut self, key: u32) {
        let at = self.due(key);
        let level = match at - self.now {
            0..64 => 0,
            64..4096 => 1,
            4096..262_144 => 2,
            _ => 3,
        };
        let width = width(level);
        // Too far away: as far as the wheel reaches.
        let at = at.min(self.now + width * (SLOTS as u64 - 1));
        let slot = slot_at(at, width);
        let list = level * SLOTS + slot;
        let head = std::mem::replace(&mut self.heads[list], key);
        if let Some(next) = self.entries.get_mut(head as usize) {
            next.prev = key;
        }
        let entry = &mut self.entries[key as usize];
        entry.prev = NONE;
        entry.next = head;
        entry.list = u16::try_from(list).unwrap_or(IDLE);
        self.occupied[level] |= 1 << slot;
    }

    fn unlink(&mut self, key: u32) {
        let Entry { prev, next, list, .. } = self.entries[key as usize];
        self.entries[key as usize].list = IDLE;
        if let Some(next) = self.entries.get_mut(next as usize) {
            next.prev = prev;
        }
        match self.entries.get_mut(prev as usize) {
            Some(prev) => prev.next = next,
            None => {
                let list = usize::from(list);
                self.heads[list] = next;
                if next == NONE {
                    self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
                }
            }
        }
    }

    /// When the next occupied slot of a level opens.
    fn next_at(&self, level: usize) -> Option<u64> {
        let bits = self.occupied[level];
        if bits == 0 {
            return None;
        }
        let width = width(level);
        let current = self.now / width;
        // Distance in slots from the current one. The current slot of a higher level was emptied
        // when it opened: what is in it is a full turn away.
        let rotated = bits.rotate_right(u32::try_from(slot_at(current, 1)).unwrap_or(0));
        let ahead = match rotated {
            1 if level > 0 => SLOTS as u64,
            _ if level > 0 => u64::from((rotated & !1).trailing_zeros()),
            _ => u64::from(rotated.trailing_zeros()),
        };
        Some((current + ahead) * width)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "what is cut off is known")]
const fn low(time: u64) -> u32 {
    time as u32
}

/// Ticks per slot of a level.
const fn width(level: usize) -> u64 {
    1 << (6 * level)
}

#[expect(clippy::cast_possible_truncation, reason = "below SLOTS")]
const fn slot_at(time: u64, width: u64) -> usize {
    ((time / width) % SLOTS as u64) as usize
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        // Every entry fires exactly once, not before its time and not later than the step that
        // passes it; entries only move earlier.
        #[test]
        fn behaves_like_a_map_of_deadlines(
            start in prop_oneof![0u64..1 << 40, (1u64 << 32) - 50_000_000..1 << 32],
            ops in proptest::collection::vec(
                (0u32..6, prop_oneof![0u64..200, 0u64..10_000, 0u64..20_000_000, 1u64 << 30..1 << 40], 0u64..300_000, any::<bool>()),
                1..80
            ),
        ) {
            let mut w = Wheel::new(start, 4);
            let mut now = start;
            let mut model: HashMap<u32, u64> = HashMap::new();
            for (key, delay, step, clear) in ops {
                if clear {
                    w.clear(key);
                    model.remove(&key);
                } else {
                    let at = (now + delay).max(now + 1);
                    w.ensure(key, now + delay);
                    let entry = model.entry(key).or_insert(at);
                    *entry = at.min(*entry);
                }
                now += step;
                while let Some(key) = w.expire(now) {
                    let at = model.remove(&key).unwrap();
                    prop_assert!(at <= now, "{} fired at {} instead of {}", key, now, at);
                }
                prop_assert!(model.values().all(|p| *p > now), "{:?} at {}", model, now);
                match (w.next(), model.values().min()) {
                    (Some(n), Some(p)) => prop_assert!(n <= *p && n > now),
                    (None, None) => {}
                    other => prop_assert!(false, "{:?}", other),
                }
            }
        }
    }

    #[test]
    fn sleeps_until_the_first_entry() {
        let mut w = Wheel::new(1000, 4);
        assert_eq!(w.next(), None);
        w.ensure(3, 1010);
        w.ensure(0, 1005);
        assert_eq!(w.next(), Some(1005));
        assert_eq!(w.expire(1004), None);
        assert_eq!(w.expire(1005), Some(0));
        assert_eq!(w.expire(1005), None);
        w.ensure(3, 5000);
        assert_eq!(w.expire(2000), Some(3));
        assert_eq!(w.next(), None);
    }
}
