//! Pipes of spliced flows.
//!
//! A pipe is a few kilobytes of kernel memory until it carries something, but how many pages all
//! pipes of a user may have is limited (`pipe(7)`, `pipe-user-pages-soft`), so flows take one when
//! they need it and give it back. Empty ones are kept for the next flow.
//!
//! System calls: `pipe2`, `fcntl`, `close`.

use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd};

use crate::translate::PipeId;

/// Sizes asked for: what an ordinary user may have (`pipe-max-size`), or less [SPLICE-7].
const SIZES: [i32; 3] = [1 << 20, 512 << 10, 256 << 10];

/// A smaller pipe is not worth its system calls; new ones have this size unless the user has too
/// many.
const SMALLEST: i32 = 64 << 10;

/// Empty pipes kept.
const KEPT: usize = 32;

/// Pipes, empty or lent to flows.
#[derive(Debug)]
pub(super) struct Pipes {
    kept: Vec<[OwnedFd; 2]>,
    lent: usize,
}

impl Pipes {
    /// Most bytes a pipe holds.
    pub(super) const SIZE: usize = 1 << 20;

    /// None yet.
    pub(super) fn new() -> Self {
        Self { kept: Vec::with_capacity(KEPT), lent: 0 }
    }

    /// Lends an empty pipe [SPLICE-6].
    pub(super) fn take(&mut self) -> Option<PipeId> {
        let pipe = match self.kept.pop() {
            Some(pipe) => pipe,
            None => open().ok().filter(|p| enlarge(p) >= SMALLEST)?,
        };
        let [from, to] = pipe.map(OwnedFd::into_raw_fd);
        self.lent += 1;
        Some(PipeId(from, to))
    }

    /// Takes a pipe back.
    pub(super) fn put(&mut self, pipe: PipeId, empty: bool) {
        // SAFETY: both are descriptors that `take` gave up, and whoever had them gives them up.
        let pipe = [pipe.0, pipe.1].map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        self.lent -= 1;
        if empty && self.kept.len() < KEPT {
            self.kept.push(pipe);
        }
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        debug_assert!(self.lent == 0 || std::thread::panicking(), "{} pipes leaked", self.lent);
    }
}

fn open() -> std::io::Result<[OwnedFd; 2]> {
    let mut fds = [-1; 2];
    // SAFETY: the kernel writes two descriptors, which are owned from here on.
    unsafe {
        if libc::pipe2(fds.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) < 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(fds.map(|fd| OwnedFd::from_raw_fd(fd)))
    }
}

/// Makes a pipe as large as may be; the size it has then.
fn enlarge(pipe: &[OwnedFd; 2]) -> i32 {
    let fd = pipe[0].as_raw_fd();
    // SAFETY: no pointers are passed.
    let set = |size: i32| unsafe { libc::fcntl(fd, libc::F_SETPIPE_SZ, size) };
    SIZES.into_iter().map(set).find(|&size| size >= 0).unwrap_or_else(|| {
        // SAFETY: as above.
        unsafe { libc::fcntl(fd, libc::F_GETPIPE_SZ) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // [SPLICE-6] An empty pipe serves again, one with something in it does not.
    #[test]
    fn empty_pipes_are_kept() {
        let mut pipes = Pipes::new();
        let a = pipes.take().unwrap();
        let b = pipes.take().unwrap();
        assert_ne!(a, b);
        pipes.put(a, true);
        assert_eq!(pipes.take(), Some(a));
        pipes.put(a, false);
        pipes.put(b, true);
        assert_eq!(pipes.kept.len(), 1);
    }
}
