//! What the guest is answered without involving the host: neighbours, routers, configuration.
//!
//! # Theory of operation
//!
//! A service is a pure function from a request, and the [`Lease`](crate::config::Lease) that says
//! who we and the guest are, to at most one frame for the guest. It keeps no state, does no I/O and
//! reads no clock; the caller hands the request in, looks at the [`Outcome`], and sends
//! [`Reply::frame`] if there is one. The frame is complete: Ethernet header, checksums, padding.
//!
//! Nothing a guest sends can make a service panic; the lints below keep it that way.
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

pub mod arp;
pub mod dhcp;
pub mod dhcpv6;
pub mod ndp;
mod udp;

/// What the user allows of these services. (ARP there is wherever there is IPv4.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered {
    /// DHCP.
    pub dhcp: bool,
    /// DHCPv6.
    pub dhcpv6: bool,
    /// Neighbour Discovery is spoken at all; without it the guest's messages are swallowed.
    pub ndp: bool,
    /// Router Advertisements are sent; they would compete with addresses configured by us.
    pub ra: bool,
}

impl Default for Offered {
    fn default() -> Self {
        Self { dhcp: true, dhcpv6: true, ndp: true, ra: true }
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// The reply buffer holds a frame to send to the guest.
    Replied,
    /// The request was understood and deliberately gets no answer.
    Consumed,
    /// The request was not acceptable.
    Dropped(Reason),
}

/// Why a service did not accept a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Truncated, or with field values the protocol does not allow.
    Malformed,
    /// Neighbour Discovery with a hop limit other than 255: it may come from off the link.
    HopLimit,
    /// The answer does not fit in a frame.
    TooLong,
}

/// Room for one Ethernet frame to the guest, filled front to back.
///
/// Writing past the end is remembered and turns [`finish`](Self::finish) into a drop, so that
/// builders need not check each step.
#[derive(Clone, Debug)]
pub struct Reply {
    buf: [u8; Self::CAPACITY],
    len: usize,
    overflow: bool,
}

impl Reply {
    /// Longest frame: an Ethernet header and 1500 bytes.
    pub const CAPACITY: usize = 1514;

    /// Shortest frame; shorter ones are padded with zeros [L2-11].
    pub const MIN_FRAME: usize = 60;

    /// An empty buffer.
    pub const fn new() -> Self {
        Self { buf: [0; Self::CAPACITY], len: 0, overflow: false }
    }

    /// The frame written so far; empty unless the last outcome was [`Outcome::Replied`].
    pub fn frame(&self) -> &[u8] {
        self.buf.get(..self.len).unwrap_or_default()
    }

    /// Forgets what was written.
    pub fn clear(&mut self) {
        self.len = 0;
        self.overflow = false;
    }

    /// Appends bytes.
    pub fn put(&mut self, bytes: &[u8]) {
        match self.spare().get_mut(..bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.advance(bytes.len());
            }
            None => self.overflow = true,
        }
    }

    /// Appends `n` zero bytes.
    pub fn put_zeros(&mut self, n: usize) {
        match self.spare().get_mut(..n) {
            Some(room) => {
                room.fill(0);
                self.advance(n);
            }
            None => self.overflow = true,
        }
    }

    /// Overwrites bytes already written, `at` bytes into the frame: lengths and checksums known
    /// only at the end.
    pub fn patch(&mut self, at: usize, bytes: &[u8]) {
        let written = self.buf.get_mut(..self.len).unwrap_or_default();
        match written.get_mut(at..).and_then(|tail| tail.get_mut(..bytes.len())) {
            Some(room) => room.copy_from_slice(bytes),
            None => self.overflow = true,
        }
    }

    /// The room that is left, for a writer that fills a slice; [`advance`](Self::advance) says how
    /// much it used.
    pub fn spare(&mut self) -> &mut [u8] {
        self.buf.get_mut(self.len..).unwrap_or_default()
    }

    /// Counts `n` bytes of [`spare`](Self::spare) as written.
    pub fn advance(&mut self, n: usize) {
        match self.len.checked_add(n).filter(|len| *len <= Self::CAPACITY) {
            Some(len) => self.len = len,
            None => self.overflow = true,
        }
    }

    /// Pads the frame to [`MIN_FRAME`](Self::MIN_FRAME): `Replied`, or `Dropped` with nothing in
    /// the buffer if anything did not fit.
    pub fn finish(&mut self) -> Outcome {
        self.put_zeros(Self::MIN_FRAME.saturating_sub(self.len));
        if self.overflow {
            self.clear();
            return Outcome::Dropped(Reason::TooLong);
        }
        Outcome::Replied
    }
}

impl Default for Reply {
    fn default() -> Self {
        Self::new()
    }
}

/// `N` bytes of `bytes` starting at `at`, if they are there.
fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod testing {
    use std::net::Ipv4Addr;

    use crate::config::Lease;
    use crate::wire::Mac;

    pub(super) const GUEST: Mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

    /// The guest of the worked examples: 192.0.2.10 and 2001:db8::10 behind .1 and fe80::1.
    pub(super) fn lease() -> Lease {
        Lease {
            map_host_loopback4: Some(Ipv4Addr::new(192, 0, 2, 200)),
            map_host_loopback6: None,
            ..Lease::example()
        }
    }

    /// Bytes from hexadecimal digits; blanks are ignored.
    pub(super) fn hex(s: &str) -> Vec<u8> {
        let digits: Vec<u8> =
            s.chars().filter_map(|c| c.to_digit(16)).map(|d| d.try_into().unwrap_or(0)).collect();
        digits.chunks(2).map(|d| d.iter().fold(0, |n, d| n << 4 | d)).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    // [L2-11] Frames shorter than 60 bytes are zero-padded, also over the rests of an older one.
    #[test]
    fn short_frames_are_padded_with_zeros() {
        let mut reply = Reply::new();
        reply.put(&[0xee; 1000]);
        assert_eq!(reply.finish(), Outcome::Replied);
        assert_eq!(reply.frame().len(), 1000);
        reply.clear();
        assert!(reply.frame().is_empty());
        reply.put(&[0xaa; 42]);
        assert_eq!(reply.finish(), Outcome::Replied);
        assert_eq!(reply.frame().len(), 60);
        assert_eq!(reply.frame()[42..], [0; 18]);
    }

    #[test]
    fn overflow_is_a_drop() {
        let too_long = Outcome::Dropped(Reason::TooLong);
        let mut reply = Reply::new();
        reply.put(&[1; Reply::CAPACITY]);
        assert_eq!(reply.finish(), Outcome::Replied);
        reply.put(&[1]);
        assert_eq!(reply.finish(), too_long);
        assert!(reply.frame().is_empty());
        reply.put_zeros(Reply::CAPACITY + 1);
        assert_eq!(reply.finish(), too_long);
        reply.advance(usize::MAX);
        assert_eq!(reply.finish(), too_long);
        reply.put(&[1, 2]);
        reply.patch(1, &[3, 4]);
        assert_eq!(reply.finish(), too_long);
        reply.put(&[1, 2]);
        reply.patch(1, &[3]);
        assert_eq!(reply.finish(), Outcome::Replied);
        assert_eq!(reply.frame()[..3], [1, 3, 0]);
    }
}
