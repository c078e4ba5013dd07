//! The queueing discipline of the tap device: none.
//!
//! The kernel gives a device one as it comes up, and to one with several queues one for each that it
//! may ever have: 256 for a tap device. Such a device never tells the kernel to wait, so nothing is
//! ever queued there: frames only pass. With `noqueue` they are spared the way, and the start the
//! making of so many.

use std::io;

use super::Socket;
use super::attrs::AttrBuf;
use super::message::{F_CREATE, F_REPLACE, Message, NEWQDISC};

/// `TCA_KIND`: which discipline.
const TCA_KIND: u16 = 1;
/// `TC_H_ROOT`: the one that all frames come to.
const TC_H_ROOT: u32 = u32::MAX;

/// Lets frames pass the interface without a queue.
pub(super) fn none(socket: &mut Socket, index: u32) -> io::Result<()> {
    let mut attrs = AttrBuf::default();
    attrs.push_str(TCA_KIND, "noqueue");
    // struct tcmsg (linux/rtnetlink.h): family, interface, handle, parent, info.
    let mut body = Vec::new();
    for field in [0, index, 0, TC_H_ROOT, 0] {
        body.extend_from_slice(&field.to_ne_bytes());
    }
    body.extend_from_slice(&attrs.0);
    socket.request(&Message { kind: NEWQDISC, flags: F_CREATE | F_REPLACE, body }).map(drop)
}
