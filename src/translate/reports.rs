//! What routers and hosts report about something that the guest sent and that did not arrive
//! [UDP-11] [ICMP-8].
//!
//! A report is told to the guest as an error about what it sent itself, and from whoever reported
//! it, as the guest sees that host. Nobody is told of an error about what was meant for many
//! (RFC 1122, 3.2.2; RFC 4443, 2.4).

use super::{DatagramSockets, FrameOut, Io, SockId};
use crate::flow::DropReason;
use crate::forward;
use crate::wire::{Addr, IcmpError, IcmpMessage, Mac};

/// The flow whose socket has the reports.
pub(super) struct About {
    /// Its socket.
    pub(super) sock: SockId,
    /// The party we impersonate.
    pub(super) ours: Addr,
    /// The guest.
    pub(super) guest: Addr,
    /// Who the socket is connected to.
    pub(super) peer: Addr,
}

/// Tells the guest that what it sent through `sock` is longer than the host's link takes; by our
/// address on the link, as no router knows of it yet.
pub(super) fn too_long<O: FrameOut, N: DatagramSockets>(
    (sock, guest): (SockId, Addr),
    io: &mut Io<'_, O, N>,
    error: impl Fn(Addr, IcmpMessage) -> Option<IcmpError>,
) {
    let v4 = guest.is_v4();
    let mtu = io.net.path_mtu(sock, v4);
    let told = mtu.zip(forward::our_address(io.lease, guest));
    match told.and_then(|(mtu, from)| error(from, IcmpMessage::too_long(v4, mtu))) {
        Some(error) if io.out.control(error.frame()) => {}
        Some(_) => io.drop(DropReason::LinkFull),
        None => io.drop(DropReason::HostSend),
    }
}

/// Passes on up to `most` reports, each as what `error` makes of who tells it (as the guest sees
/// it), its content, and what it quotes of the payload. False if there was none.
pub(super) fn relay<O: FrameOut, N: DatagramSockets>(
    about: &About,
    most: u32,
    error: impl Fn((Addr, Mac), IcmpMessage, &[u8]) -> Option<IcmpError>,
    io: &mut Io<'_, O, N>,
) -> bool {
    let mut quoted = [0; IcmpError::QUOTED];
    for told in 0..most {
        let Some(report) = io.net.take_report(about.sock, &mut quoted) else {
            return told != 0;
        };
        let from = match report.offender {
            Some(offender) if offender != about.peer => {
                forward::reporter(io.lease, about.guest, offender)
            }
            // It may have another address for the guest.
            _ => Some(about.ours),
        };
        let known = quoted.get(..report.quoted).unwrap_or_default();
        let told = from
            .filter(|a| a.is_unicast() && about.ours.is_unicast())
            .and_then(|from| error((from, io.mac_of(from)), report.message, known));
        match told {
            Some(error) if io.out.control(error.frame()) => {}
            Some(_) => io.drop(DropReason::LinkFull),
            None => io.drop(DropReason::HostSend),
        }
    }
    true
}
