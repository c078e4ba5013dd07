//! A virtual machine on a UNIX stream socket, as QEMU's `-netdev stream` speaks it [TAP-2].
//!
//! # Theory of operation
//!
//! Each frame is preceded by its length, four bytes in network order; nothing else is on the
//! stream. One read takes as many frames as there are, and one write sends all that a turn of the
//! loop made. There is no header for offloads, so what the translator makes is cut and summed here
//! (`outbox.rs`), and what the guest had to cut is put together again (`coalesce.rs`).
//!
//! * `inbox.rs`: bytes of the guest to frames, however they were split. No I/O.
//! * `outbox.rs`: frames for the guest to bytes, in one buffer. No I/O.
//! * `listen.rs`: the socket that guests connect to, and its path.
//! * This file: the sockets, who is connected, and what happens when that ends.
//!
//! **One guest at a time** [TAP-7]. Another one is accepted and closed at once. When the guest
//! goes, whatever was collected in either direction goes with it, an incomplete frame above all
//! [W-5]: the next guest's stream begins at its first byte. Flows stay [LIFE-12].
//!
//! **A guest that does not read.** A frame that was begun is finished before anything else, since
//! everything waits in one queue. When the socket takes no more, the link is *blocked*: there is no
//! room for payload until the queue is empty, so that TCP data stays in the host's sockets. Small
//! frames still have a reserve. An event tells when the socket takes more.
//!
//! **Without a guest** frames are lost, and reported as such.
//!
//! System calls: `accept4`, `recvfrom`, `sendto`, `getsockopt`, `setsockopt`, `close`, `fcntl`.

mod coalesce;
mod inbox;
mod listen;
mod outbox;

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send, setsockopt, sockopt};
use thiserror::Error;

use super::{Admitted, End, Link, RxFrame};
use crate::event::{Registrar, Source};
use crate::flow::DropReason;
use crate::limited;
use crate::translate::FrameOut;
use crate::wire::{Head, Vnet};
pub use inbox::{BadLength, Inbox};
pub use listen::{SocketError, SocketFile, connected};
pub use outbox::Outbox;

/// Why a guest is no longer connected.
#[derive(Debug, Error)]
pub enum Left {
    /// It closed the connection between two frames.
    #[error("connection closed")]
    Closed,
    /// It closed the connection inside a frame.
    #[error("connection closed inside a frame: {have} of {want} bytes, length included")]
    Inside {
        /// Bytes of it that arrived.
        have: usize,
        /// How many it should have had; 4 if not even its length was complete.
        want: usize,
    },
    /// What it sent is no stream of frames.
    #[error("disconnected: {0}")]
    Length(BadLength),
    /// The socket is broken.
    #[error("connection broken: {0}")]
    Broken(#[source] io::Error),
}

impl Left {
    /// What it is counted as, if it is a fault.
    pub fn reason(&self) -> Option<DropReason> {
        match self {
            Self::Closed | Self::Broken(_) => None,
            Self::Inside { .. } => Some(DropReason::CutOff),
            Self::Length(_) => Some(DropReason::BadLength),
        }
    }
}

/// Where guests come from.
#[derive(Debug)]
pub enum Guests {
    /// They connect to a socket of ours.
    Listener(OwnedFd),
    /// There is one, which our caller has connected.
    Connected(OwnedFd),
}

/// The guest's side of a virtual machine.
#[derive(Debug)]
pub struct Stream {
    listener: Option<OwnedFd>,
    /// Keeps a descriptor free for the next guest, whatever flows have used up.
    spare: Option<OwnedFd>,
    /// The process ends with its first guest.
    one_off: bool,
    sock: Option<Arc<OwnedFd>>,
    inbox: Inbox,
    left: Option<Left>,
}

impl Stream {
    /// Both halves of the link.
    pub fn new(guests: Guests, one_off: bool) -> (Self, StreamTx) {
        let (listener, sock) = match guests {
            Guests::Listener(fd) => (Some(fd), None),
            Guests::Connected(fd) => (None, Some(Arc::new(fd))),
        };
        let one_off = one_off || listener.is_none();
        let spare = listener.as_ref().and_then(|fd| fd.try_clone().ok());
        let mut tx = StreamTx { sock: None, outbox: Outbox::new(), full: false, broken: None };
        if let Some(sock) = &sock {
            tx.connect(Arc::clone(sock));
        }
        (Self { listener, spare, one_off, sock, inbox: Inbox::new(), left: None }, tx)
    }

    /// Frames are what the guest sent, for who wants to see them: segments are not put together.
    pub fn keep_apart(&mut self) {
        self.inbox.keep_apart();
    }

    /// Takes what the socket has; false when there is nothing now, or never again.
    fn fill(&mut self) -> bool {
        let Some(sock) = &self.sock else { return false };
        loop {
            match recv(sock.as_raw_fd(), self.inbox.room(), MsgFlags::MSG_DONTWAIT) {
                // Reset: it closed before it had read everything.
                Ok(0) | Err(Errno::ECONNRESET) => self.left = Some(self.inbox.end()),
                Ok(n) => {
                    self.inbox.filled(n);
                    return true;
                }
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => {}
                Err(e) => self.left = Some(Left::Broken(e.into())),
            }
            return false;
        }
    }

    /// The next connection, `None` if there is none. The spare descriptor is used if need be.
    fn accept(&mut self) -> Option<OwnedFd> {
        loop {
            match listen::accept(self.listener.as_ref()?.as_fd()) {
                Ok(fd) => return Some(fd),
                Err(Errno::EINTR | Errno::ECONNABORTED) => {}
                Err(Errno::EAGAIN) => return None,
                Err(Errno::EMFILE | Errno::ENFILE) if self.spare.take().is_some() => {}
                Err(e) => {
                    limited!(Error, "cannot accept a guest: {}", e.desc());
                    return None;
                }
            }
        }
    }

    /// Puts a descriptor by again.
    fn save(&mut self) {
        if self.spare.is_none() {
            self.spare = self.listener.as_ref().and_then(|fd| fd.try_clone().ok());
        }
    }
}

impl Link for Stream {
    type Tx = StreamTx;

    fn begin(&mut self, registrar: &Registrar) -> io::Result<()> {
        if let Some(listener) = &self.listener {
            registrar.add(listener.as_fd(), Source::Guest, false)?;
        }
        match &self.sock {
            Some(sock) => registrar.add(sock.as_fd(), Source::Link(0), true),
            None => Ok(()),
        }
    }

    fn next_frame(&mut self) -> Option<RxFrame<'_>> {
        let range = loop {
            match self.inbox.next_frame() {
                Ok(Some(range)) => break range,
                Ok(None) if self.fill() => {}
                Ok(None) => return None,
                Err(e) => {
                    self.left = Some(Left::Length(e));
                    return None;
                }
            }
        };
        Some(RxFrame { vnet: Vnet::default(), frame: self.inbox.bytes(range) })
    }

    fn ended(&mut self, out: &mut StreamTx) -> Option<End> {
        self.sock.as_ref()?;
        let why = self.left.take().or_else(|| out.broken.map(|e| Left::Broken(e.into())))?;
        self.inbox.clear();
        out.disconnect();
        self.sock = None;
        self.save();
        Some(End::Guest { why, last: self.one_off })
    }

    fn is_deserted(&self) -> bool {
        self.sock.as_ref().is_some_and(|sock| listen::hung_up(sock.as_fd()))
    }

    fn arrival(&mut self) -> Option<OwnedFd> {
        self.accept()
    }

    fn admit(&mut self, fd: OwnedFd, out: &mut StreamTx, registrar: &Registrar) -> Admitted {
        let who = listen::peer(fd.as_fd());
        if self.sock.is_some() {
            drop(fd);
            self.save();
            return Admitted::Refused(who);
        }
        if let Err(e) = registrar.add(fd.as_fd(), Source::Link(0), true) {
            limited!(Error, "cannot wait for a guest's frames: {e}");
            return Admitted::Refused(who);
        }
        let sock = Arc::new(fd);
        out.connect(Arc::clone(&sock));
        self.sock = Some(sock);
        Admitted::Guest(who)
    }
}

/// Frames to the guest.
#[derive(Debug)]
pub struct StreamTx {
    sock: Option<Arc<OwnedFd>>,
    outbox: Outbox,
    /// The socket took less than there is.
    full: bool,
    /// Why it will never take any more.
    broken: Option<Errno>,
}

impl StreamTx {
    fn connect(&mut self, sock: Arc<OwnedFd>) {
        enlarge(sock.as_fd());
        self.disconnect();
        self.sock = Some(sock);
    }

    fn disconnect(&mut self) {
        self.sock = None;
        self.outbox.clear();
        (self.full, self.broken) = (false, None);
    }
}

impl FrameOut for StreamTx {
    fn payload(&mut self) -> Option<&mut [u8]> {
        if self.outbox.is_worth_sending() {
            self.flush();
        }
        if self.full { None } else { self.outbox.payload() }
    }

    fn send(&mut self, head: &Head, len: usize) -> bool {
        self.sock.is_some() && self.outbox.push(head, len)
    }

    fn control(&mut self, frame: &[u8]) -> bool {
        self.sock.is_some() && self.outbox.push_frame(frame)
    }

    fn is_blocked(&self) -> bool {
        self.full || self.sock.is_none()
    }

    fn flush(&mut self) {
        let Some(sock) = &self.sock else { return };
        self.full = false;
        while !self.full && !self.outbox.pending().is_empty() {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(sock.as_raw_fd(), self.outbox.pending(), flags) {
                Ok(n) => self.outbox.sent(n),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => self.full = true,
                // Reading tells the same, unless the guest shut down one direction only.
                Err(e) => (self.full, self.broken) = (true, Some(e)),
            }
        }
    }
}

/// Makes the buffers of a connection as large as the system allows.
fn enlarge(sock: BorrowedFd<'_>) {
    let most = usize::try_from(i32::MAX / 2).unwrap_or(0);
    let _ = setsockopt(&sock, sockopt::SndBuf, &most);
    let _ = setsockopt(&sock, sockopt::RcvBuf, &most);
}
