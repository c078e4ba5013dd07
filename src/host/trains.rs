//! Receiving many datagrams in one call, and finding the trains among them.
//!
//! # Theory of operation
//!
//! A sender of a bulk sends datagrams of one size. Where the kernel saw that they belong together
//! (`UDP_GRO`), it delivers them as one. Where it did not, they are in the socket's queue one by
//! one, and one `recvmmsg` takes many: each into a *place* of the size expected, place behind
//! place, so that equal ones come to lie as a train does, and the guest gets them as one frame.
//!
//! What is longer than expected goes on in memory of its own, which has room before it for what
//! went into the place. So a wrong guess costs a copy of that, and nothing is ever cut off.
//!
//! System calls: `recvmmsg`.

use std::io;
use std::mem::{self, MaybeUninit};

use super::cmsg::{Control, Message};
use super::net::classify;
use crate::translate::{Expect, Gathered, Train};

/// Datagrams of one call.
const MOST: usize = 64;

/// Fewest that are asked for where the size is known, and most where it is not.
const FEW: usize = 4;

/// Longest train: with headers it is one IPv4 packet.
const LONGEST: usize = 65_535 - 28;

/// Memory for what is longer than expected, of each datagram; no datagram is as long.
const LONG: usize = 1 << 16;

/// `UDP_GRO` of `linux/udp.h`.
pub(super) const UDP_GRO: i32 = 104;

/// The datagrams of the last call.
pub(super) struct Trains {
    /// The places.
    places: Box<[u8]>,
    /// What is longer, [`LONG`] each; untouched memory while guesses are right.
    long: Box<[u8]>,
    control: Box<[Control; MOST]>,
    found: Box<[Found; MOST]>,
    len: usize,
}

/// Where a train is, and what it is.
#[derive(Clone, Copy, Default)]
struct Found {
    long: bool,
    start: usize,
    len: usize,
    marks: Marks,
}

/// What the kernel says about a datagram besides its bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Marks {
    segment: u16,
    tos: u8,
    ttl: u8,
}

impl Trains {
    pub(super) fn new() -> Self {
        Self {
            places: vec![0; LONG].into_boxed_slice(),
            long: vec![0; LONG * MOST].into_boxed_slice(),
            control: Box::new([const { Control::new() }; MOST]),
            found: Box::new([Found::default(); MOST]),
            len: 0,
        }
    }

    /// Receives what a socket has.
    pub(super) fn receive(&mut self, fd: i32, expect: &mut Expect) -> Gathered {
        self.len = 0;
        let size = usize::from(expect.size);
        let wanted = match size {
            0 => FEW,
            _ => (2 * usize::from(expect.count)).clamp(FEW, MOST).min(LONGEST / size).max(1),
        };
        // All are reserved, only those wanted are written: this is done for every datagram.
        let mut iovs = [const { MaybeUninit::<[libc::iovec; 2]>::uninit() }; MOST];
        let mut messages = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MOST];
        let (places, long) = (self.places.as_mut_ptr(), self.long.as_mut_ptr());
        for n in 0..wanted {
            // Inside both, as `wanted` places fit: see above.
            let place = (places.wrapping_add(n * size), size);
            let rest = (long.wrapping_add(n * LONG + size), LONG - size);
            let parts = iovs[n].write(
                [place, rest]
                    .map(|(part, len)| libc::iovec { iov_base: part.cast(), iov_len: len }),
            );
            // SAFETY: all-zero is a valid mmsghdr.
            let message = messages[n].write(unsafe { mem::zeroed() });
            message.msg_hdr.msg_iov = parts.as_mut_ptr();
            message.msg_hdr.msg_iovlen = 2;
            self.control[n].receive(&mut message.msg_hdr);
        }
        let got = loop {
            // SAFETY: `wanted` messages were filled in; all they point at is ours and lives on.
            let n = unsafe {
                libc::recvmmsg(
                    fd,
                    messages.as_mut_ptr().cast(),
                    u32::try_from(wanted).unwrap_or(1),
                    libc::MSG_DONTWAIT as _,
                    std::ptr::null_mut(),
                )
            };
            if let Ok(n) = usize::try_from(n) {
                break n;
            }
            match io::Error::last_os_error().raw_os_error().unwrap_or(0) {
                libc::EINTR => {}
                libc::EAGAIN => return Gathered::Empty,
                errno => return Gathered::Error(classify(errno)),
            }
        };
        let mut longest = 0;
        let mut made = false;
        for (n, message) in messages[..got.min(wanted)].iter().enumerate() {
            // SAFETY: one of those that were written.
            let message = unsafe { message.assume_init_ref() };
            let len = message.msg_len as usize;
            let mut marks = marks(self.control[n].messages(&message.msg_hdr));
            if usize::from(marks.segment) >= len {
                marks.segment = 0;
            }
            made |= marks.segment != 0;
            longest = longest.max(len);
            self.add(n, size, len, marks);
        }
        expect.size = if made { 0 } else { u16::try_from(longest).unwrap_or(0) };
        expect.count = u16::try_from(got).unwrap_or(0);
        // An error that ended it early is an event of its own.
        Gathered::Trains { count: self.len, more: got == wanted }
    }

    /// One of the trains of the last call.
    pub(super) fn get(&self, n: usize) -> Option<Train<'_>> {
        let Found { long, start, len, marks } = *self.found[..self.len].get(n)?;
        let memory = if long { &self.long } else { &self.places };
        let data = memory.get(start..start + len)?;
        Some(Train { data, segment: marks.segment, tos: marks.tos, ttl: marks.ttl })
    }

    /// Datagram number `n` of the call is `len` bytes long.
    fn add(&mut self, n: usize, size: usize, len: usize, marks: Marks) {
        let start = n * size;
        if len > size {
            let place = &self.places[start..start + size];
            self.long[n * LONG..n * LONG + size].copy_from_slice(place);
            return self.push(Found { long: true, start: n * LONG, len, marks });
        }
        if let Some(last) = self.found[..self.len].last_mut()
            && marks.segment == 0
            && len != 0
            && !last.long
            // Of full datagrams without a gap.
            && last.start + last.len == start
            && matches!(usize::from(last.marks.segment), s if s == size || s == 0 && last.len == size)
            && (last.marks.tos, last.marks.ttl) == (marks.tos, marks.ttl)
        {
            last.len += len;
            last.marks.segment = u16::try_from(size).unwrap_or(0);
            return;
        }
        self.push(Found { long: false, start, len, marks });
    }

    fn push(&mut self, found: Found) {
        self.found[self.len] = found;
        self.len += 1;
    }
}

impl std::fmt::Debug for Trains {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trains").field("len", &self.len).finish_non_exhaustive()
    }
}

/// What the control messages say.
fn marks<'a>(messages: impl Iterator<Item = Message<'a>>) -> Marks {
    let mut marks = Marks { segment: 0, tos: 0, ttl: crate::wire::TTL };
    for message in messages {
        let int = || message.value::<i32>();
        match message.kind {
            (libc::SOL_UDP, UDP_GRO) => marks.segment = u16::try_from(int()).unwrap_or(0),
            (libc::IPPROTO_IP, libc::IP_TOS) => marks.tos = message.value(),
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                marks.ttl = u8::try_from(int()).unwrap_or(crate::wire::TTL);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => marks.tos = u8::try_from(int()).unwrap_or(0),
            _ => {}
        }
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd as _;

    fn pair() -> (UdpSocket, UdpSocket) {
        let a = UdpSocket::bind("127.0.0.1:0").unwrap();
        let b = UdpSocket::bind("127.0.0.1:0").unwrap();
        a.connect(b.local_addr().unwrap()).unwrap();
        (a, b)
    }

    /// Datagrams of these lengths arrive, in two calls: lengths and segment sizes of the trains.
    fn trains(size: u16, lengths: &[usize]) -> Vec<(usize, u16)> {
        let (a, b) = pair();
        for (n, len) in (0u8..).zip(lengths) {
            a.send(&vec![n; *len]).unwrap();
        }
        let mut trains = Trains::new();
        let mut expect = Expect { size, count: 32 };
        let mut all = vec![];
        let mut seen = vec![];
        while let Gathered::Trains { count, .. } = trains.receive(b.as_raw_fd(), &mut expect) {
            for n in 0..count {
                let train = trains.get(n).unwrap();
                let each = if train.segment == 0 { train.data.len() } else { train.segment.into() };
                all.extend(train.data.chunks(each.max(1)).map(<[u8]>::to_vec));
                if train.data.is_empty() {
                    all.push(vec![]);
                }
                seen.push((train.data.len(), train.segment));
            }
            expect = Expect { size, count: 32 };
        }
        let sent: Vec<_> = (0u8..).zip(lengths).map(|(n, l)| vec![n; *l]).collect();
        assert!(all == sent, "every datagram, whole and in order");
        seen
    }

    // [UDP-7] [UDP-16] Equal datagrams become a train that a shorter one ends; longer and empty
    // ones travel alone; whatever was expected, what was sent comes out.
    #[test]
    fn equal_datagrams_become_trains() {
        assert_eq!(trains(100, &[100, 100, 100]), [(300, 100)]);
        assert_eq!(trains(100, &[100, 100, 40, 100]), [(240, 100), (100, 0)]);
        assert_eq!(trains(100, &[40, 100, 40]), [(40, 0), (140, 100)]);
        assert_eq!(
            trains(100, &[100, 0, 100, 100, 101, 65_507, 100]),
            [(100, 0), (0, 0), (200, 100), (101, 0), (65_507, 0), (100, 0)]
        );
        assert_eq!(trains(100, &[40, 40]), [(40, 0), (40, 0)]);
        assert_eq!(trains(0, &[7, 0, 65_507]), [(7, 0), (0, 0), (65_507, 0)]);
        assert_eq!(trains(65_507, &[7, 65_507]), [(7, 0), (65_507, 0)]);
        let many = trains(1400, &[1400; 60]);
        assert_eq!(many.iter().map(|t| t.0).sum::<usize>(), 84_000);
        assert!(many.iter().all(|t| t.0 <= LONGEST));
    }

    // [UDP-7] A size that was seen is expected, and the number of them grows.
    #[test]
    fn expects_what_was_seen() {
        let (a, b) = pair();
        let mut trains = Trains::new();
        let mut expect = Expect::default();
        let mut counts = vec![];
        for _ in 0..20 {
            a.send(&[1; 200]).unwrap();
        }
        while let Gathered::Trains { more, .. } = trains.receive(b.as_raw_fd(), &mut expect) {
            assert_eq!(expect.size, 200);
            counts.push((expect.count, more));
        }
        assert_eq!(counts, [(4, true), (8, true), (8, false)]);
    }
}
