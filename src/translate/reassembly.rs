//! Fragments of the guest, made whole packets again [L2-4] [L2-6].
//!
//! # Theory of operation
//!
//! A guest cuts what is longer than its MTU. What the fragments make together goes the way of any
//! other packet. Memory is reserved at the start: places for a fixed number of packets, each with
//! room for the longest; together as much as Linux allows itself (`ipfrag_high_thresh`). Only
//! places that were used are touched. When all are taken, the packet that waits longest gives way.
//!
//! Two maps tell what has arrived, in units of eight bytes: which units, and where fragments begin.
//! A fragment that came before, exactly so, is ignored. Any other overlap is no accident: the
//! packet is given up (RFC 5722; RFC 8200, 4.5). For IPv6, what is yet to come of it is refused,
//! too; identifications of IPv4 come back so soon that it would hit others.
//!
//! A packet is given up 60 seconds after its first fragment came (RFC 8200, 4.5; RFC 1122,
//! 3.3.2), and the guest is told if it sent its beginning. A packet whose checksum is wrong was put
//! together from two (RFC 4963), and is dropped.

use crate::flow::{DropReason, Drops};
use crate::wire::{Addr, FRAGMENT_UNIT, Fragment, Packet, ParseError, Reassembled};

/// Packets that wait at a time.
const PLACES: usize = 64;

/// Room for one.
const ROOM: usize = 1 << 16;

/// How long one may wait, milliseconds.
const PATIENCE_MS: u64 = 60_000;

/// Network headers of a first fragment that are kept, to be quoted; longer ones are not.
const HEADERS: usize = 120;

/// The two bits for congestion notification, and their value for "congestion experienced".
const ECN: u8 = 3;

/// Packets that wait for the rest of them.
#[derive(Debug, Default)]
pub(super) struct Reassembly {
    places: Vec<Place>,
    /// Room for each.
    memory: Box<[u8]>,
    /// The place that the last fragment went to: likely that of the next.
    recent: usize,
    /// Not later than this the first of them has waited long enough.
    due: Option<u64>,
}

/// What the fragments of a packet have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    src: Addr,
    dst: Addr,
    id: u32,
    /// 0 for IPv6, where it may differ (RFC 8200, 4.5).
    protocol: u8,
}

/// A packet of which something has arrived; unused without a key.
#[derive(Debug)]
struct Place {
    key: Option<Key>,
    /// When it is given up, milliseconds.
    until: u64,
    /// It was given up already, and so is what comes of it.
    refused: bool,
    /// Its length, once the last fragment has come.
    total: Option<usize>,
    /// How far fragments have reached.
    reached: usize,
    units: Map,
    begins: Map,
    /// Some fragment met congestion.
    congested: bool,
    first: Option<First>,
}

/// What is known from the first fragment.
#[derive(Clone, Copy, Debug)]
struct First {
    /// What the packet has of it.
    head: Reassembled,
    /// Length of its part.
    len: usize,
    headers: [u8; HEADERS],
    /// 0 if they are too long to be kept.
    headers_len: usize,
}

/// What is told of a packet that was given up: the headers of its first fragment, and its part.
pub(super) struct Expired<'a> {
    pub(super) src: Addr,
    pub(super) dst: Addr,
    pub(super) headers: &'a [u8],
    pub(super) data: &'a [u8],
}

/// Why a fragment does not fit those that came before.
enum Misfit {
    /// It is one of them.
    Duplicate,
    /// It lies over some of them.
    Overlap,
    /// The packet would have two ends.
    Ends,
}

impl Reassembly {
    /// Nothing yet; all memory is reserved here.
    pub(super) fn new() -> Self {
        let memory = vec![0; PLACES.saturating_mul(ROOM)].into_boxed_slice();
        Self { places: Vec::with_capacity(PLACES), memory, recent: 0, due: None }
    }

    /// A fragment of the guest: the packet, if this completes it. With `summed` its transport
    /// checksum must be right. It lasts until the next call.
    pub(super) fn add(
        &mut self,
        fragment: &Fragment<'_>,
        summed: bool,
        now: u64,
        drops: &mut Drops,
    ) -> Option<Packet<'_>> {
        let key = Key::of(fragment);
        let n = match self.find(&key) {
            Some(n) => n,
            None => self.claim(key, now, drops)?,
        };
        self.recent = n;
        let place = self.places.get_mut(n)?;
        let start = n.checked_mul(ROOM)?;
        let memory = self.memory.get_mut(start..start.checked_add(ROOM)?)?;
        if place.refused {
            drops.count(DropReason::FragmentOverlap);
            return None;
        }
        match place.misfit(fragment, memory) {
            Some(Misfit::Duplicate) => {
                drops.count(DropReason::FragmentDuplicate);
                return None;
            }
            Some(Misfit::Overlap) => {
                drops.count(DropReason::FragmentOverlap);
                place.give_up();
                return None;
            }
            Some(Misfit::Ends) => {
                drops.count(DropReason::Fragment);
                place.give_up();
                return None;
            }
            None => place.put(fragment, memory)?,
        }
        let total = place.total.filter(|total| place.units.count() == units(*total))?;
        let mut head = place.first?.head;
        place.key = None;
        if place.congested {
            head.tos |= ECN;
        }
        match Packet::reassembled(&head, memory.get(..total)?) {
            Ok(packet) if !summed || packet.has_right_checksum() => Some(packet),
            Ok(_) => {
                drops.count(DropReason::FragmentChecksum);
                None
            }
            Err(e) => {
                drops.count(match e {
                    ParseError::Truncated => DropReason::Truncated,
                    _ => DropReason::Extension,
                });
                None
            }
        }
    }

    /// When to call [`Reassembly::expire`], milliseconds; not too late, but it may be too early.
    pub(super) fn due(&self) -> Option<u64> {
        self.due
    }

    /// Gives up what has waited long enough, and tells of that of which the beginning is there.
    pub(super) fn expire(
        &mut self,
        now: u64,
        drops: &mut Drops,
        mut tell: impl FnMut(&Expired<'_>, &mut Drops),
    ) {
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        let rooms = self.memory.chunks_exact(ROOM);
        for (place, memory) in self.places.iter_mut().zip(rooms) {
            let Some(Key { src, dst, .. }) = place.key.filter(|_| place.until <= now) else {
                continue;
            };
            place.key = None;
            if place.refused {
                continue;
            }
            drops.count(DropReason::FragmentTimeout);
            let first = place.first.as_ref().and_then(|first| {
                let headers = first.headers.get(..first.headers_len)?;
                Some((headers, memory.get(..first.len)?))
            });
            if let Some((headers, data)) = first.filter(|(headers, _)| !headers.is_empty()) {
                tell(&Expired { src, dst, headers, data }, drops);
            }
        }
        self.due = self.places.iter().filter(|p| p.key.is_some()).map(|p| p.until).min();
    }

    fn find(&self, key: &Key) -> Option<usize> {
        let is_it = |place: &Place| place.key.as_ref() == Some(key);
        if self.places.get(self.recent).is_some_and(is_it) {
            return Some(self.recent);
        }
        self.places.iter().position(is_it)
    }

    /// A place for a packet, if need be that of another one.
    fn claim(&mut self, key: Key, now: u64, drops: &mut Drops) -> Option<usize> {
        let until = now.saturating_add(PATIENCE_MS);
        self.due = Some(self.due.map_or(until, |due| due.min(until)));
        let n = match self.places.iter().position(|p| p.key.is_none()) {
            Some(free) => free,
            None if self.places.len() < PLACES => {
                self.places.push(Place::default());
                self.places.len().checked_sub(1)?
            }
            None => {
                let (n, oldest) = self.places.iter().enumerate().min_by_key(|(_, p)| p.until)?;
                if !oldest.refused {
                    drops.count(DropReason::FragmentLimit);
                }
                n
            }
        };
        *self.places.get_mut(n)? = Place { key: Some(key), until, ..Place::default() };
        Some(n)
    }
}

impl Default for Place {
    fn default() -> Self {
        Self {
            key: None,
            until: 0,
            refused: false,
            total: None,
            reached: 0,
            units: Map::new(),
            begins: Map::new(),
            congested: false,
            first: None,
        }
    }
}

impl Place {
    /// What is wrong with a fragment.
    fn misfit(&self, fragment: &Fragment<'_>, memory: &[u8]) -> Option<Misfit> {
        let (start, end) = (fragment.offset, fragment.end());
        let (from, to) = (start / FRAGMENT_UNIT, units(end));
        match self.units.count_in(from, to) {
            0 => {}
            n if n == to.saturating_sub(from)
                && self.begins.has(from)
                && self.begins.count_in(from, to) == 1
                && (!self.units.has(to) || self.begins.has(to))
                && self.ends_alike(fragment)
                && memory.get(start..end) == Some(fragment.data) =>
            {
                return Some(Misfit::Duplicate);
            }
            _ => return Some(Misfit::Overlap),
        }
        let beyond = self.total.is_some_and(|total| end > total || !fragment.more);
        (beyond || !fragment.more && end < self.reached).then_some(Misfit::Ends)
    }

    /// If a fragment that seems to be known is the last one, or not, as the known one.
    fn ends_alike(&self, fragment: &Fragment<'_>) -> bool {
        fragment.more != (self.total == Some(fragment.end()))
    }

    /// Adds a fragment that fits; `None` if there is no room for it, which does not happen.
    fn put(&mut self, fragment: &Fragment<'_>, memory: &mut [u8]) -> Option<()> {
        let (start, end) = (fragment.offset, fragment.end());
        memory.get_mut(start..end)?.copy_from_slice(fragment.data);
        self.units.set(start / FRAGMENT_UNIT, units(end));
        self.begins.set(start / FRAGMENT_UNIT, (start / FRAGMENT_UNIT).checked_add(1)?);
        self.reached = self.reached.max(end);
        if !fragment.more {
            self.total = Some(end);
        }
        self.congested |= fragment.tos & ECN == ECN;
        if start == 0 {
            let Fragment { src, dst, protocol, ttl, tos, headers, .. } = *fragment;
            let head = Reassembled { src, dst, protocol, ttl, tos };
            let mut first = First { head, len: end, headers: [0; HEADERS], headers_len: 0 };
            if let Some(room) = first.headers.get_mut(..headers.len()) {
                room.copy_from_slice(headers);
                first.headers_len = headers.len();
            }
            self.first = Some(first);
        }
        Some(())
    }

    /// Forgets what has come. The packets of IPv6 stay refused until their time is over.
    fn give_up(&mut self) {
        self.refused = true;
        if self.key.is_some_and(|key| key.dst.is_v4()) {
            self.key = None;
        }
    }
}

impl Key {
    fn of(fragment: &Fragment<'_>) -> Self {
        let Fragment { src, dst, id, protocol, .. } = *fragment;
        Self { src, dst, id, protocol: if dst.is_v4() { protocol } else { 0 } }
    }
}

/// Units that so many bytes take.
fn units(bytes: usize) -> usize {
    bytes.div_ceil(FRAGMENT_UNIT)
}

/// A bit for each unit of a packet.
#[derive(Debug)]
struct Map {
    words: [u64; ROOM / FRAGMENT_UNIT / 64],
    count: usize,
}

impl Map {
    const fn new() -> Self {
        Self { words: [0; ROOM / FRAGMENT_UNIT / 64], count: 0 }
    }

    /// How many bits are set.
    fn count(&self) -> usize {
        self.count
    }

    fn has(&self, bit: usize) -> bool {
        self.words.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 != 0)
    }

    /// How many bits of `from..to` are set.
    fn count_in(&self, from: usize, to: usize) -> usize {
        let words = self
            .words
            .iter()
            .enumerate()
            .skip(from / 64)
            .take_while(|(n, _)| n.saturating_mul(64) < to);
        words.map(|(n, word)| (word & mask(n, from, to)).count_ones() as usize).sum()
    }

    /// Sets the bits of `from..to`, none of which is set.
    fn set(&mut self, from: usize, to: usize) {
        let words = self.words.iter_mut().enumerate().skip(from / 64);
        for (n, word) in words.take_while(|(n, _)| n.saturating_mul(64) < to) {
            *word |= mask(n, from, to);
        }
        self.count = self.count.saturating_add(to.saturating_sub(from));
    }
}

/// The bits of `from..to` that lie in the word with this number.
fn mask(word: usize, from: usize, to: usize) -> u64 {
    let first = word.saturating_mul(64);
    let below = |bit: usize| match bit.saturating_sub(first) {
        n @ 0..64 => (1u64 << n).wrapping_sub(1),
        _ => u64::MAX,
    };
    below(to) & !below(from)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#[allow(clippy::cast_possible_truncation)]
mod tests;
