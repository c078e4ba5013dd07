//! Sockets of another network namespace, while running [SPLICE-14].
//!
//! # Theory of operation
//!
//! A socket belongs to the network namespace of whoever calls `socket(2)`, for good: it can be
//! bound, connected and listened on from anywhere. To enter the target namespace takes
//! capabilities that the running process must not have. So a process of its own, the *factory*,
//! enters it during the start, shuts itself in as tightly as we do, and from then on does one
//! thing: it makes sockets, and hands them over (unix(7), SCM_RIGHTS).
//!
//! It is a process and no thread: threads share a descriptor table, and every call on a shared
//! table takes a reference. It can name no file, knows no secret, and its filter knows half a
//! dozen calls. It ends when our end of the connection is closed, so at our own end at the latest.
//!
//! Requests and replies are messages of a `SOCK_SEQPACKET` pair. A request is the kind and number
//! of sockets; a reply the kind, with the sockets. The first message says whether the start
//! succeeded: nothing but a zero byte, or the error in words.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd};
use std::time::Duration;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv,
    recvmsg, send, sendmsg, socket, socketpair,
};
use nix::unistd::{ForkResult, fork};

use super::error::{Error, What};
use super::sandbox::{self, Fallback, Run};
use super::seccomp::Filter;

/// Most sockets per reply.
pub const MOST: usize = 16;

/// How long a reply may take before we go on without.
const PATIENCE: Duration = Duration::from_secs(1);

/// What kind of socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv4.
    Udp4,
    /// UDP over IPv6.
    Udp6,
}

impl Kind {
    /// All of them, by their number in messages.
    pub const ALL: [Self; 4] = [Self::Tcp4, Self::Tcp6, Self::Udp4, Self::Udp6];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }

    fn open(self) -> nix::Result<OwnedFd> {
        let family = match self {
            Self::Tcp4 | Self::Udp4 => AddressFamily::Inet,
            Self::Tcp6 | Self::Udp6 => AddressFamily::Inet6,
        };
        let kind = match self {
            Self::Tcp4 | Self::Tcp6 => SockType::Stream,
            Self::Udp4 | Self::Udp6 => SockType::Datagram,
        };
        socket(family, kind, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)
    }
}

/// A factory that may not be ready yet.
#[derive(Debug)]
pub struct Starting(OwnedFd);

/// Our end of a factory.
#[derive(Debug)]
pub struct Factory(OwnedFd);

/// Starts a factory for the namespace. It sets itself up while we go on.
///
/// Needs a single thread and the right to enter the namespace: belongs before
/// [`isolate`](sandbox::isolate), and after [`Signals::listen`](super::signals::Signals::listen),
/// so that the signals that end us do not end it first.
///
/// # Errors
/// No process can be started.
pub fn start(netns: BorrowedFd<'_>, fallback: Fallback) -> Result<Starting, Error> {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .what(|| "cannot create a socket pair".into())?;
    // SAFETY: there is one thread, so no lock can be held by another one in the child.
    match unsafe { fork() }.what(|| "cannot start the process that makes sockets".into())? {
        ForkResult::Parent { .. } => Ok(Starting(ours)),
        ForkResult::Child => {
            let status = i32::from(live(&theirs, netns, fallback).is_err());
            // SAFETY: ends this process, without handlers that belong to the parent.
            unsafe { libc::_exit(status) }
        }
    }
}

impl Starting {
    /// Waits until the factory is shut in and ready.
    ///
    /// # Errors
    /// Those of its start, or that it ended.
    pub fn ready(self) -> Result<Factory, Error> {
        let mut text = [0; 512];
        let what = || "cannot start the process that makes sockets".to_owned();
        match recv(self.0.as_raw_fd(), &mut text, MsgFlags::empty()).what(what)? {
            1 if text[0] == 0 => Ok(Factory(self.0)),
            n => {
                let text = text.get(..n).filter(|text| !text.is_empty()).unwrap_or(b"it has ended");
                Err(Error::Other(format!("{}: {}", what(), String::from_utf8_lossy(text))))
            }
        }
    }
}

impl Factory {
    /// Asks for `n` sockets, at most [`MOST`], without waiting for them; false if it is gone.
    pub fn ask(&self, kind: Kind, n: usize) -> bool {
        let n = u8::try_from(n.min(MOST)).unwrap_or(0);
        send(self.0.as_raw_fd(), &[kind as u8, n], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)
            .is_ok()
    }

    /// Waits for the reply to the oldest request without one. There may be fewer sockets than were
    /// asked for, or none. `None` if the factory is gone, or does not answer.
    pub fn reply(&self) -> Option<(Kind, Vec<OwnedFd>)> {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::ZERO);
        while poll(&mut fds, patience) == Err(Errno::EINTR) {}
        let mut byte = [0];
        let mut data = [IoSliceMut::new(&mut byte)];
        let mut room = cmsg_space!([std::os::fd::RawFd; MOST]);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(self.0.as_raw_fd(), &mut data, Some(&mut room), flags).ok()?;
        let mut sockets = Vec::new();
        for part in message.cmsgs().ok()? {
            if let ControlMessageOwned::ScmRights(fds) = part {
                // SAFETY: the kernel has just made these descriptors for us.
                sockets.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        let len = message.bytes;
        Some((Kind::from_byte(byte[0]).filter(|_| len == 1)?, sockets))
    }
}

/// The life of the factory.
fn live(connection: &OwnedFd, netns: BorrowedFd<'_>, fallback: Fallback) -> Result<(), Error> {
    let say = |text: &[u8]| send(connection.as_raw_fd(), text, MsgFlags::MSG_NOSIGNAL);
    let filter = enter(netns).and_then(|()| Filter::factory());
    if let Err(error) = filter.and_then(|filter| shut_in(connection, &filter, fallback)) {
        let _ = say(error.to_string().as_bytes());
        return Err(error);
    }
    // From here on the connection is the only descriptor.
    // SAFETY: `shut_in` has just put it there.
    let connection = unsafe { BorrowedFd::borrow_raw(0) };
    let what = || String::from("cannot answer");
    send(connection.as_raw_fd(), &[0], MsgFlags::MSG_NOSIGNAL).what(what)?;
    let mut request = [0; 2];
    loop {
        match recv(connection.as_raw_fd(), &mut request, MsgFlags::empty()) {
            Ok(2) => {}
            Err(Errno::EINTR) => continue,
            _ => return Ok(()), // we are not needed any more
        }
        let [kind, n] = request;
        let kind = Kind::from_byte(kind).ok_or_else(|| Error::Other(what()))?;
        let sockets: Vec<OwnedFd> =
            (0..usize::from(n).min(MOST)).map_while(|_| kind.open().ok()).collect();
        let fds: Vec<_> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let rights: &[_] = if fds.is_empty() { &[] } else { &rights };
        let reply = [kind as u8];
        let data = [IoSlice::new(&reply)];
        sendmsg::<()>(connection.as_raw_fd(), &data, rights, MsgFlags::MSG_NOSIGNAL, None)
            .what(what)?;
    }
}

fn enter(netns: BorrowedFd<'_>) -> Result<(), Error> {
    setns(netns, CloneFlags::CLONE_NEWNET).what(|| "cannot enter the network namespace".into())
}

/// Takes every right and descriptor away but for the connection, which becomes number 0.
fn shut_in(connection: &OwnedFd, filter: &Filter, fallback: Fallback) -> Result<(), Error> {
    // Not to be taken for the process that does the work.
    let _ = prctl::set_name(c"pasta-sockets");
    sandbox::isolate(Run::Foreground, fallback)?;
    let what = || "cannot give up descriptors".to_owned();
    // SAFETY: nothing of this process uses 0 or any other descriptor but through `connection`,
    // which stays valid as number 0; nothing is dropped later, the process ends by `_exit`.
    let result = unsafe {
        match libc::dup2(connection.as_raw_fd(), 0) {
            0 => libc::syscall(libc::SYS_close_range, 1, u32::MAX, 0),
            _ => -1,
        }
    };
    Errno::result(result).what(what)?;
    sandbox::seal_with(filter)
}
