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
use std::os::fd::{AsRawFd as _, OwnedFd};

use super::sockaddr::SockAddr;
use crate::translate::SockId;
use crate::wire::Endpoint;

/// Most datagrams that are looked at.
const MOST: usize = 64;

/// Datagrams for the flow that was opened last.
#[derive(Debug, Default)]
pub(super) struct Early {
    of: Option<SockId>,
    datagrams: VecDeque<Vec<u8>>,
}

impl Early {
    /// Empties a socket that has just been connected to `peer`; what was kept of another one is gone.
    pub(super) fn sort(&mut self, fd: &OwnedFd, peer: Endpoint) {
        *self = Self::default();
        for _ in 0..MOST {
            let Some((from, datagram)) = next(fd) else { return };
            if from == peer {
                self.datagrams.push_back(datagram);
            }
        }
    }

    /// They are those of `s`.
    pub(super) fn are_of(&mut self, s: SockId) {
        self.of = Some(s).filter(|_| !self.datagrams.is_empty());
    }

    /// The oldest one, if they are those of `s`.
    pub(super) fn take(&mut self, s: SockId) -> Option<Vec<u8>> {
        if self.of == Some(s) { self.datagrams.pop_front() } else { None }
    }
}

/// Takes a datagram from a socket, and who sent it.
fn next(fd: &OwnedFd) -> Option<(Endpoint, Vec<u8>)> {
    let flags = libc::MSG_PEEK | libc::MSG_TRUNC | libc::MSG_DONTWAIT;
    // SAFETY: a length of 0 lets the kernel write nothing; it tells the length of the datagram.
    let len = unsafe { libc::recv(fd.as_raw_fd(), std::ptr::null_mut(), 0, flags) };
    let mut datagram = vec![0; usize::try_from(len).ok()?];
    let (mut from, mut size) = (SockAddr::empty(), SockAddr::capacity());
    // SAFETY: the kernel writes at most the lengths given to memory that we hold exclusively.
    let n = unsafe {
        libc::recvfrom(
            fd.as_raw_fd(),
            datagram.as_mut_ptr().cast(),
            datagram.len(),
            libc::MSG_DONTWAIT,
            from.as_mut_ptr(),
            &raw mut size,
        )
    };
    datagram.truncate(usize::try_from(n).ok()?);
    Some((from.endpoint()?, datagram))
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
        let mut early = Early::default();
        early.sort(&fd, Endpoint::new(at.ip().into(), at.port()));
        early.are_of(SockId(7));
        assert_eq!(early.take(SockId(8)), None);
        for expected in ["one", "", "three"] {
            assert_eq!(early.take(SockId(7)).unwrap(), expected.as_bytes());
        }
        assert_eq!(early.take(SockId(7)), None);
        assert!(next(&fd).is_none());
    }
}
