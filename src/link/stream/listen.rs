//! The socket that guests connect to.
//!
//! A path that was given is used unless a live socket is there; a socket that nobody listens on any
//! more is replaced, and anything that is no socket is left alone [TAP-1] [W-12]. Without one the
//! first of a series of paths that is free is taken. The file stays when the process ends, as by
//! then there is no way to its directory; but a start that fails takes it away again.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind, connect,
    getsockopt, listen, send, socket, sockopt,
};
use thiserror::Error;

/// Paths that are tried if none is given: `/tmp/passt_1.socket` and so on.
const PROBES: std::ops::RangeInclusive<u32> = 1..=99;

/// Why there is no socket for guests.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Somebody listens there.
    #[error("socket {} is in use already", .0.display())]
    InUse(PathBuf),
    /// A file that is no socket is there.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The kernel refused.
    #[error("cannot make socket {}: {source}", path.display())]
    Refused {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Every path of the series is taken.
    #[error("no socket path free from /tmp/passt_1.socket to /tmp/passt_99.socket")]
    NoneFree,
    /// The descriptor of `--fd` will not do.
    #[error("descriptor given with --fd is not a connected UNIX stream socket")]
    NotConnected,
}

/// A socket at a path. Dropping it removes the file, unless it is to be used.
#[derive(Debug)]
pub struct SocketFile {
    fd: Option<OwnedFd>,
    path: PathBuf,
}

impl SocketFile {
    /// Makes the socket at `path`, or at the first that is free of those that clients know.
    ///
    /// # Errors
    /// See [`SocketError`].
    pub fn bind(path: Option<&Path>) -> Result<Self, SocketError> {
        match path {
            Some(path) => Self::at(path),
            None => {
                for n in PROBES {
                    match Self::at(Path::new(&format!("/tmp/passt_{n}.socket"))) {
                        Err(SocketError::InUse(_) | SocketError::NotASocket(_)) => {}
                        other => return other,
                    }
                }
                Err(SocketError::NoneFree)
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From now on guests can connect, and the file stays.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn listen(mut self) -> Result<OwnedFd, SocketError> {
        let refused = |e: Errno| SocketError::Refused { path: self.path.clone(), source: e.into() };
        // A client is taken at once or refused at once: few have to wait.
        let backlog = Backlog::new(8).map_err(refused)?;
        self.fd.as_ref().ok_or(Errno::EBADF).and_then(|fd| listen(fd, backlog)).map_err(refused)?;
        self.fd.take().ok_or_else(|| refused(Errno::EBADF))
    }

    fn at(path: &Path) -> Result<Self, SocketError> {
        let refused = |e: Errno| SocketError::Refused { path: path.to_owned(), source: e.into() };
        let address = UnixAddr::new(path).map_err(refused)?;
        let new = || {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(refused)
        };
        match path.symlink_metadata() {
            Ok(meta) if !meta.file_type().is_socket() => {
                return Err(SocketError::NotASocket(path.to_owned()));
            }
            Ok(_) => match connect(new()?.as_raw_fd(), &address) {
                // Left over; or one that we may not ask, but perhaps replace.
                Err(Errno::ECONNREFUSED | Errno::EACCES) => {
                    std::fs::remove_file(path)
                        .map_err(|source| SocketError::Refused { path: path.to_owned(), source })?;
                }
                Err(Errno::ENOENT) => {}
                Ok(()) | Err(_) => return Err(SocketError::InUse(path.to_owned())),
            },
            Err(_) => {}
        }
        let fd = new()?;
        match bind(fd.as_raw_fd(), &address) {
            Ok(()) => Ok(Self { fd: Some(fd), path: path.to_owned() }),
            Err(Errno::EADDRINUSE) => Err(SocketError::InUse(path.to_owned())),
            Err(e) => Err(refused(e)),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.fd.is_some() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A descriptor that our caller has connected to a guest.
///
/// # Errors
/// It is something else.
pub fn connected(fd: OwnedFd) -> Result<OwnedFd, SocketError> {
    let is_stream = getsockopt(&fd, sockopt::SockType) == Ok(SockType::Stream);
    let listens = getsockopt(&fd, sockopt::AcceptConn) != Ok(false);
    if is_stream && !listens { Ok(fd) } else { Err(SocketError::NotConnected) }
}

/// Takes a connection.
pub(super) fn accept(listener: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = accept4(listener.as_raw_fd(), flags)?;
    // SAFETY: the kernel has just given it to us, and to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Process id of whoever connected, 0 if it cannot be seen from here.
pub(super) fn peer(sock: impl AsFd) -> i32 {
    getsockopt(&sock.as_fd(), sockopt::PeerCredentials).map_or(0, |who| who.pid())
}

/// True if nobody holds the other end any more: then there is nowhere to send even nothing to.
pub(super) fn hung_up(sock: BorrowedFd<'_>) -> bool {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    send(sock.as_raw_fd(), &[], flags) == Err(Errno::EPIPE)
}
