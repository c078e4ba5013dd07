//! The guest's side: layer-2 frames.
//!
//! A link has two halves. One gives frames of the guest, and is a [`Link`] to the loop; the other
//! takes frames for it ([`FrameOut`](crate::translate::FrameOut)). They are separate values, so that
//! a handler may hold a received frame while it sends others. There are two links: the tap device
//! of a namespace ([`Tap`]), and the socket of a virtual machine ([`Stream`]). A namespace may do
//! without ([`NoLink`]). What crosses a link can be recorded ([`captured`]).
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod capture;
mod none;
mod pcap;
mod segment;
mod stream;
mod sum;
mod tap;

use std::io;
use std::os::fd::OwnedFd;

use crate::event::Registrar;
use crate::translate::FrameOut;
use crate::wire::Vnet;
pub use capture::{Captured, CapturedTx, captured};
pub use none::{NoLink, NoLinkTx};
pub use pcap::Pcap;
pub use stream::{
    BadLength, Guests, Inbox, Left, Outbox, SocketError, SocketFile, Stream, StreamTx, connected,
};
pub use tap::{Tap, TapError, TapRx, TapTx};

/// Shortest frame on the wire without its check sequence; shorter ones are padded [TAP-6].
const FRAME_MIN: usize = 60;

/// What they are padded with.
const PADDING: [u8; FRAME_MIN] = [0; FRAME_MIN];

/// A frame of the guest.
#[derive(Clone, Copy, Debug)]
pub struct RxFrame<'a> {
    /// Its offload header; all zero on a link without.
    pub vnet: Vnet,
    /// The frame from its Ethernet header on.
    pub frame: &'a [u8],
}

/// A link as the loop drives it: the half that gives frames, and knows who is there.
pub trait Link {
    /// The half that takes them.
    type Tx: FrameOut;

    /// False where there is nobody to send frames to: what cannot go past the link is refused.
    const FRAMES: bool = true;

    /// Registers what there is to wait for at the start.
    ///
    /// # Errors
    /// The kernel refuses.
    fn begin(&mut self, registrar: &Registrar) -> io::Result<()>;

    /// Tells that one of the link's queues may have frames.
    fn ready(&mut self, queue: u8) {
        let _ = queue;
    }

    /// The next frame of the guest; `None` when there is none now, or never again
    /// ([`Link::ended`]).
    fn next_frame(&mut self) -> Option<RxFrame<'_>>;

    /// Why no more frames come, told once.
    fn ended(&mut self, out: &mut Self::Tx) -> Option<End>;

    /// True if the guest has gone, though frames of it may be left.
    fn is_deserted(&self) -> bool {
        false
    }

    /// Somebody who asks to be served, if there is anybody.
    fn arrival(&mut self) -> Option<OwnedFd> {
        None
    }

    /// Lets who arrived in, unless there is a guest.
    fn admit(&mut self, who: OwnedFd, out: &mut Self::Tx, registrar: &Registrar) -> Admitted {
        let _ = (who, out, registrar);
        Admitted::Refused(0)
    }
}

/// The end of a link, or of who was behind it.
#[derive(Debug)]
pub enum End {
    /// The device has gone, and so must we.
    Device(io::Error),
    /// The guest has gone.
    Guest {
        /// Why.
        why: Left,
        /// No other one is served.
        last: bool,
    },
}

/// Who was at the door; with the process id, 0 if that cannot be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// A guest, which is connected now.
    Guest(i32),
    /// One too many.
    Refused(i32),
}
