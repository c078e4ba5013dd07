//! A hierarchical timer wheel: four levels of 64 slots, one millisecond per tick.
//!
//! Insertion and expiry cost O(1); a deadline further away than 64^4 ms (4.6 hours) is parked in
//! the last slot and moves on when its turn comes. Entries are never cancelled: whoever owns a
//! key remembers its real deadlines and ignores, or re-inserts, an entry that fires early. That
//! makes moving a deadline later free.

const SLOTS: usize = 64;
const LEVELS: usize = 4;
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Entry<K> {
    key: K,
    at: u64,
    next: u32,
}

/// Timers for keys of type `K`.
#[derive(Debug)]
pub struct Wheel<K> {
    entries: Vec<Entry<K>>,
    free: u32,
    heads: [[u32; SLOTS]; LEVELS],
    occupied: [u64; LEVELS],
    /// Every tick up to this one has been served.
    now: u64,
    len: usize,
}

impl<K: Copy> Wheel<K> {
    /// A wheel that starts at `now` (milliseconds). Address space for `capacity` entries is
    /// reserved here.
    pub fn new(now: u64, capacity: usize) -> Self {
        Self {
            entries: Vec::with_capacity(capacity),
            free: NONE,
            heads: [[NONE; SLOTS]; LEVELS],
            occupied: [0; LEVELS],
            now,
            len: 0,
        }
    }

    /// Inserts an entry that fires when [`Wheel::expire`] passes `at` (milliseconds).
    pub fn insert(&mut self, at: u64, key: K) {
        let entry = Entry { key, at: at.max(self.now + 1), next: NONE };
        let index = if let Some(old) = self.entries.get_mut(self.free as usize) {
            let index = self.free;
            self.free = old.next;
            *old = entry;
            index
        } else {
            let Ok(index) = u32::try_from(self.entries.len()) else { return };
            self.entries.push(entry);
            index
        };
        self.len += 1;
        self.place(index);
    }

    /// Entries not fired yet.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A time (milliseconds) not after the first entry is due, `None` without entries.
    pub fn next(&self) -> Option<u64> {
        (0..LEVELS).filter_map(|level| self.next_at(level)).min()
    }

    /// Moves time forward to `now` and returns one entry that is due, until there are none.
    pub fn expire(&mut self, now: u64) -> Option<K> {
        loop {
            if let Some(key) = self.pop_due() {
                return Some(key);
            }
            if self.now >= now {
                return None;
            }
            self.step(now);
        }
    }

    /// Takes an entry out of the slot of the current tick.
    fn pop_due(&mut self) -> Option<K> {
        let slot = slot_at(self.now, 1);
        let index = self.heads[0][slot];
        let entry = self.entries.get_mut(index as usize)?;
        self.heads[0][slot] = entry.next;
        if entry.next == NONE {
            self.occupied[0] &= !(1 << slot);
        }
        entry.next = self.free;
        self.free = index;
        self.len -= 1;
        Some(entry.key)
    }

    /// Advances to the next tick at which something may happen, at most to `limit`.
    fn step(&mut self, limit: u64) {
        let target = self.next().map_or(limit, |n| n.min(limit)).max(self.now + 1);
        self.now = target;
        // A slot of a higher level opens when time reaches its start.
        for level in (1..LEVELS).rev() {
            let width = 1u64 << (6 * level);
            if target.is_multiple_of(width) {
                self.cascade(level, slot_at(target, width));
            }
        }
    }

    fn cascade(&mut self, level: usize, slot: usize) {
        let mut index = std::mem::replace(&mut self.heads[level][slot], NONE);
        self.occupied[level] &= !(1 << slot);
        while let Some(entry) = self.entries.get(index as usize) {
            let next = entry.next;
            self.place(index);
            index = next;
        }
    }

    /// Links an entry into the slot its distance calls for.
    fn place(&mut self, index: u32) {
        let now = self.now;
        let Some(entry) = self.entries.get_mut(index as usize) else { return };
        let distance = entry.at.saturating_sub(now);
        let level = match distance {
            0..64 => 0,
            64..4096 => 1,
            4096..262_144 => 2,
            _ => 3,
        };
        let width = 1u64 << (6 * level);
        // Too far away: as far as the wheel reaches.
        let at = entry.at.min(now + (width * (SLOTS as u64 - 1)));
        let slot = slot_at(at, width);
        entry.next = self.heads[level][slot];
        self.heads[level][slot] = index;
        self.occupied[level] |= 1 << slot;
    }

    /// When the next occupied slot of a level opens.
    fn next_at(&self, level: usize) -> Option<u64> {
        let bits = self.occupied[level];
        if bits == 0 {
            return None;
        }
        let width = 1u64 << (6 * level);
        let current = self.now / width;
        // Distance in slots from the current one; the current one itself is a full turn away,
        // except on the lowest level, where it is due now.
        let rotated = bits.rotate_right(u32::try_from(slot_at(current, 1)).unwrap_or(0));
        let ahead = if level == 0 {
            u64::from(rotated.trailing_zeros())
        } else {
            match (rotated & !1).trailing_zeros() {
                64 => SLOTS as u64,
                n => u64::from(n),
            }
        };
        Some((current + ahead) * width)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "below SLOTS")]
fn slot_at(time: u64, width: u64) -> usize {
    ((time / width) % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        // Every entry fires exactly once, not before its time and not later than the step that
        // passes it.
        #[test]
        fn fires_once_and_on_time(
            start in 0u64..1 << 40,
            ops in proptest::collection::vec((0u64..20_000_000, 1u64..300_000), 1..60),
        ) {
            let mut w = Wheel::new(start, 4);
            let mut now = start;
            let mut pending: Vec<u64> = Vec::new();
            for (delay, step) in ops {
                w.insert(now + delay, now + delay);
                pending.push((now + delay).max(now + 1));
                now += step;
                while let Some(at) = w.expire(now) {
                    let at = at.max(start + 1);
                    prop_assert!(at <= now);
                    let i = pending.iter().position(|p| *p == at || *p == at + 1).unwrap();
                    pending.remove(i);
                }
                prop_assert!(pending.iter().all(|p| *p > now), "{:?} at {}", pending, now);
                prop_assert_eq!(w.len(), pending.len());
                match (w.next(), pending.iter().min()) {
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
        w.insert(1010, 'a');
        w.insert(1005, 'b');
        assert_eq!(w.next(), Some(1005));
        assert_eq!(w.expire(1004), None);
        assert_eq!(w.expire(1005), Some('b'));
        assert_eq!(w.expire(1005), None);
        assert_eq!(w.expire(2000), Some('a'));
        assert!(w.is_empty());
    }
}
