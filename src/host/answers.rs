//! Answers to what the guest sends to many.
//!
//! # Theory of operation
//!
//! The socket of a flow is connected, so it gets what its peer sends and nothing else. A group or a
//! broadcast address sends nothing: whoever hears a question answers from an address of its own. So
//! a flow to many has a second socket, with the address and port that its questions come from, and
//! connected to nobody. It is there only as long as the flow, which ends soon if nothing follows.
//!
//! System calls: `getsockname`, `socket`, `setsockopt`, `bind`, `recvfrom`.

use std::os::fd::{AsFd as _, AsRawFd as _};

use super::net::{Net, bind, family, set_option, socket};
use super::sockaddr;
use crate::flow::FlowId;
use crate::translate::{Answer, SockId};

impl Net {
    /// A socket beside `asked`, unless what comes there is for a port that is forwarded.
    pub(super) fn listen_beside(&mut self, id: FlowId, asked: SockId) -> Option<SockId> {
        let at = sockaddr::local(asked.0)?;
        let v4 = at.addr.is_v4();
        if self.ports.are_forwarded(at.port, v4) {
            return None;
        }
        let fd = socket(family(at), libc::SOCK_DGRAM, 0).ok()?;
        set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).ok()?;
        bind(fd.as_fd(), at, self.scope6()).ok()?;
        let sock = self.adopt_datagram(fd, id, true).ok()?;
        self.ports.add_flow(sock.0, at.port, v4);
        Some(sock)
    }
}

/// Receives one.
pub(super) fn receive(s: SockId, buf: &mut [u8]) -> Option<Answer> {
    let (len, peer) = sockaddr::receive_from(s.0, buf)?;
    Some(Answer { len, peer, local: sockaddr::local(s.0)? })
}
