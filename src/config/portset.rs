//! A set of port numbers.

use std::fmt;

const WORDS: usize = (u16::MAX as usize + 1) / 64;

/// Port numbers, 8 KiB whatever is in it.
#[derive(Clone, PartialEq, Eq)]
pub struct PortSet(Box<[u64; WORDS]>);

impl Default for PortSet {
    fn default() -> Self {
        Self(Box::new([0; WORDS]))
    }
}

impl PortSet {
    /// Adds a port; false if it was there.
    pub fn insert(&mut self, port: u16) -> bool {
        let had = self.contains(port);
        if let Some(word) = self.0.get_mut(usize::from(port >> 6)) {
            *word |= bit(port);
        }
        !had
    }

    /// Takes a port out.
    pub fn remove(&mut self, port: u16) {
        if let Some(word) = self.0.get_mut(usize::from(port >> 6)) {
            *word &= !bit(port);
        }
    }

    /// True if it is there.
    pub fn contains(&self, port: u16) -> bool {
        self.0.get(usize::from(port >> 6)).is_some_and(|word| word & bit(port) != 0)
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Adds everything of another set.
    pub fn add(&mut self, other: &Self) {
        for (word, other) in self.0.iter_mut().zip(&*other.0) {
            *word |= other;
        }
    }

    /// Takes everything of another set out.
    pub fn subtract(&mut self, other: &Self) {
        for (word, other) in self.0.iter_mut().zip(&*other.0) {
            *word &= !other;
        }
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        (0..=u16::MAX).filter(|port| self.contains(*port))
    }
}

const fn bit(port: u16) -> u64 {
    1 << (port & 63)
}

impl FromIterator<u16> for PortSet {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Self {
        let mut set = Self::default();
        for port in ports {
            set.insert(port);
        }
        set
    }
}

impl fmt::Debug for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ports: &[u16]) -> PortSet {
        ports.iter().copied().collect()
    }

    #[test]
    fn like_any_set() {
        let mut s = set(&[0, 63, 64, 65_535]);
        assert!(!s.insert(64) && s.insert(80));
        s.remove(63);
        assert_eq!(s.iter().collect::<Vec<_>>(), [0, 64, 80, 65_535]);
        s.add(&set(&[1, 80]));
        s.subtract(&set(&[0, 65_535, 7]));
        assert_eq!(s, set(&[1, 64, 80]));
        assert!(!s.is_empty() && PortSet::default().is_empty());
        assert_eq!(format!("{s:?}"), "{1, 64, 80}");
    }
}
