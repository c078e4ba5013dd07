//! What arrives at a new UDP socket before it is connected [UDP-6].
//!
//! # Theory of operation
//!
//! A socket that stands beside a listening one has to be bound before it is connected, and in between
//! it gets what anybody sends to its port. It is emptied then, so that everything later is its peer's.
//! What the peer had sent already is kept, in order, until the flow asks for it: clients often begin
//! with several datagrams.
//!
//! System calls: `recvfrom`.

use std::collections::VecDeque;
use std::iter;
use std::os::fd::{AsRawFd as _, OwnedFd};

use super::sockaddr;
use crate::translate::SockId;
use crate::wire::Endpoint;

/// Most datagrams that are looked at.
const MOST: usize = 64;

/// Datagrams for the flow that was opened last, which has this socket.
#[derive(Debug)]
pub(super) struct Early {
    of: SockId,
    datagrams: VecDeque<Vec<u8>>,
}

impl Early {
    /// There is no flow yet.
    pub(super) const fn none() -> Self {
        Self::of(SockId(-1), VecDeque::new())
    }

    /// They are those of `s`.
    pub(super) const fn of(s: SockId, datagrams: VecDeque<Vec<u8>>) -> Self {
        Self { of: s, datagrams }
    }

    /// The oldest one, if they are those of `s`.
    pub(super) fn take(&mut self, s: SockId) -> Option<Vec<u8>> {
        if self.of == s { self.datagrams.pop_front() } else { None }
    }
}

/// Empties a socket that has just been connected to `peer`; what that has sent.
pub(super) fn sort(fd: &OwnedFd, peer: Endpoint) -> VecDeque<Vec<u8>> {
    let mut datagrams = VecDeque::new();
    for (from, datagram) in iter::from_fn(|| next(fd)).take(MOST) {
        if from == peer {
            datagrams.push_back(datagram);
        }
    }
    datagrams
}

/// Takes a datagram from a socket, and who sent it.
fn next(fd: &OwnedFd) -> Option<(Endpoint, Vec<u8>)> {
    let flags = libc::MSG_PEEK | libc::MSG_TRUNC | libc::MSG_DONTWAIT;
    // SAFETY: a length of 0 lets the kernel write nothing; it tells the length of the datagram.
    let len = unsafe { libc::recv(fd.as_raw_fd(), std::ptr::null_mut(), 0, flags) };
    let mut datagram = vec![0; usize::try_from(len).ok()?];
    let (len, from) = sockaddr::receive_from(fd.as_raw_fd(), &mut datagram)?;
    datagram.truncate(len);
    Some((from, datagram))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::UdpSocket;

    use super::*;

    // [UDP-6]
    #[test]
    fn what_the_peer_sent_is_kept_and_nothing_else() {
        let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let (socket, peer, stranger) = (bind(), bind(), bind());
        let to = socket.local_addr().unwrap();
        for (from, text) in [(&peer, "one"), (&stranger, "no"), (&peer, ""), (&peer, "three")] {
            from.send_to(text.as_bytes(), to).unwrap();
        }
        let at = peer.local_addr().unwrap();
        socket.connect(at).unwrap();
        let fd = OwnedFd::from(socket);
        let sorted = sort(&fd, Endpoint::new(at.ip().into(), at.port()));
        let mut early = Early::of(SockId(7), sorted);
        assert_eq!(early.take(SockId(8)), None);
        for expected in ["one", "", "three"] {
            assert_eq!(early.take(SockId(7)).unwrap(), expected.as_bytes());
        }
        assert_eq!(early.take(SockId(7)), None);
        assert!(next(&fd).is_none());
    }
}
