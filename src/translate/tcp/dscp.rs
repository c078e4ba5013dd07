//! Differentiated services code points (RFC 2474) of both sides.
//!
//! The host socket's packets are marked like those of the guest: from the SYN on, and again
//! whenever the guest's mark changes. In the other direction the kernel tells little: the mark of
//! the SYN of a connection that a peer opened, which is then put on everything we send for it. The
//! marks of a connection's other packets are never shown to a stream socket.
//!
//! # Congestion notification
//!
//! The two other bits of the field are a matter between the two ends of a path (RFC 3168), and our
//! connections are two paths. Towards the peer the host's kernel negotiates and reacts as it is
//! configured; it ignores these bits when we set the field. Between the guest and us no queue marks
//! packets, so it is not negotiated: a SYN that offers it is answered without, and the bits of a
//! guest that sets them all the same are ignored.

use super::Tcp;
use crate::translate::{Io, TcpSockets};

/// The bits of the field that are the code point.
const DSCP: u8 = 0xfc;

/// The code point in a type of service or traffic class.
pub(super) const fn code_point(tos: u8) -> u8 {
    tos & DSCP
}

impl Tcp {
    /// A packet of the guest is marked with `tos`.
    pub fn on_mark<O, N: TcpSockets>(&mut self, tos: u8, io: &mut Io<'_, O, N>) {
        let mark = code_point(tos);
        if mark != self.guest_tos {
            self.guest_tos = mark;
            io.net.set_tos(self.sock, self.ours.addr.is_v4(), mark);
        }
    }
}
