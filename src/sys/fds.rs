//! Inherited descriptors and the descriptor limit [LIFE-4, CLI-4].
//!
//! Called first of all, before anything of ours is open: before the log sink (it opens `/dev/log`)
//! and before the event loop.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::stat::Mode;
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use super::error::{Error, What};

/// Fills descriptors 0 to 2 with `/dev/null` where closed, and closes every other one, but for the
/// one to `keep`: it is moved to 3, and what it leaves behind is filled or closed like the others.
///
/// A caller that leaks a pipe would otherwise never see its end, and one that closed its standard
/// descriptors would have our sockets overwritten when we detach.
///
/// # Errors
/// `/dev/null` is needed and cannot be opened, or the descriptor to keep is not open. Failure to
/// close is only a warning.
pub fn sanitize(keep: Option<i32>) -> Result<Option<OwnedFd>, Error> {
    let kept = keep.map(take).transpose()?;
    for fd in 0..=2 {
        // SAFETY: only asked whether it is open; F_GETFD does not touch it otherwise.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        if fcntl(borrowed, FcntlArg::F_GETFD) == Err(Errno::EBADF) {
            // The lowest free number is used: with the lower ones filled, it is `fd` itself.
            let null = nix::fcntl::open("/dev/null", OFlag::O_RDWR, Mode::empty())
                .what(|| "cannot open /dev/null".into())?;
            let _standard_for_ever = null.into_raw_fd();
        }
    }
    let first = if kept.is_some() { 4 } else { 3 };
    // SAFETY: nothing of ours is open yet but what is kept, so no owner loses its descriptor; plain
    // integers.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_UNSHARE) };
    if let Err(errno) = Errno::result(result) {
        log::warn!("cannot close inherited descriptors: {}", errno.desc());
    }
    Ok(kept)
}

/// Moves an inherited descriptor to 3 [LIFE-5].
fn take(fd: i32) -> Result<OwnedFd, Error> {
    let what = || format!("cannot use descriptor {fd}");
    // SAFETY: nothing of ours is open yet, so that the number is the caller's, if it is open.
    let inherited = unsafe { BorrowedFd::borrow_raw(fd) };
    let wanted = 3;
    if fd != wanted {
        // SAFETY: what is there is an inherited descriptor that nobody owns; plain integers.
        let copy = unsafe { libc::dup3(fd, wanted, libc::O_CLOEXEC) };
        Errno::result(copy).what(what)?;
        // SAFETY: as above. The original would keep the connection open.
        unsafe { libc::close(fd) };
    } else {
        fcntl(inherited, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).what(what)?;
    }
    // SAFETY: it is open, and ours alone from here on.
    Ok(unsafe { OwnedFd::from_raw_fd(wanted) })
}

/// Raises the soft limit of open descriptors to the hard one.
///
/// The original is kept by [`Inherited`](super::signals::Inherited), which must be recorded
/// before, for the command we start.
pub fn raise_nofile() {
    if let Some((soft, hard)) = nofile()
        && soft < hard
        && let Err(errno) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        log::warn!("cannot raise the limit of open files: {}", errno.desc());
    }
}

/// The soft and hard limits of open descriptors.
pub fn nofile() -> Option<(rlim_t, rlim_t)> {
    getrlimit(Resource::RLIMIT_NOFILE).ok()
}
