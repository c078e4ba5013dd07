//! The PID file [LIFE-3], which a start that fails does not leave behind.
//!
//! # Theory of operation
//!
//! The file is created as the starting user, before anything is sandboxed: later we may be another
//! user, without access to its directory or even a name for it. For the same reason we could not
//! remove it later. So a second process stays behind as the starting user for as long as the
//! start takes. It waits for one word on a pipe: to keep the file, and then just ends, or to remove
//! it, which is also what the end of the pipe means, should we be killed. It holds on to nothing
//! longer than that.
//!
//! A file that was there before is not ours to remove: it is emptied, and stays.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::SigSet;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{ForkResult, Pid, fork, pipe2};

use super::error::{Error, What};

/// A PID file, created empty. Dropping it removes it if it was created by us.
#[derive(Debug)]
pub struct PidFile {
    file: File,
    path: PathBuf,
    janitor: Option<Janitor>,
}

impl PidFile {
    /// Creates or empties the file, mode 0600, as the starting user and before anything is
    /// sandboxed. It stays empty until we are ready. Belongs in a process with a single thread.
    ///
    /// # Errors
    /// It cannot be created. The text names the path.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let what = || format!("cannot open PID file {}", path.display());
        let mut options = OpenOptions::new();
        options.write(true).mode(0o600);
        let (file, janitor) = match options.clone().create_new(true).open(path) {
            Ok(file) => {
                let janitor = Janitor::hire(path, &file)?;
                (file, Some(janitor))
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                (options.create(true).truncate(true).open(path).what(what)?, None)
            }
            Err(e) => return Err(e).what(what),
        };
        Ok(PidFile { file, path: path.to_owned(), janitor })
    }

    /// Writes the number and a newline, in one piece. In the foreground: our own, before the loop.
    ///
    /// # Errors
    /// The disk is full, for example.
    pub fn write(&mut self, pid: u32) -> Result<(), Error> {
        self.file
            .write_all(format!("{pid}\n").as_bytes())
            .what(|| format!("cannot write PID file {}", self.path.display()))
    }

    /// The start has succeeded: the file stays. Works within the sandbox.
    pub fn keep(mut self) {
        if let Some(janitor) = self.janitor.take() {
            janitor.dismiss(KEEP);
        }
    }

    /// Closes it in a child that has inherited it, and leaves it to the parent.
    pub(super) fn leave(mut self) {
        drop(self.janitor.take());
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Some(janitor) = self.janitor.take() {
            janitor.dismiss(REMOVE);
        }
    }
}

const KEEP: u8 = b'k';
const REMOVE: u8 = b'r';

/// The process that removes the file if need be.
#[derive(Debug)]
struct Janitor {
    pid: Pid,
    say: OwnedFd,
}

impl Janitor {
    fn hire(path: &Path, file: &File) -> Result<Self, Error> {
        let what = || "cannot watch over the PID file".to_owned();
        let made = file.metadata().what(what)?;
        let (listen, say) = pipe2(OFlag::O_CLOEXEC).what(what)?;
        // SAFETY: there is one thread, so no lock can be held by another one in the child.
        match unsafe { fork() }.what(what)? {
            ForkResult::Parent { child } => Ok(Janitor { pid: child, say }),
            ForkResult::Child => {
                drop(say);
                // What ends our parent must not end us before we have tidied up.
                let _ = SigSet::all().thread_block();
                let is_ours = |now: std::fs::Metadata| {
                    (now.dev(), now.ino()) == (made.dev(), made.ino()) && now.is_file()
                };
                if told(listen.as_fd()) != Some(KEEP) && path.symlink_metadata().is_ok_and(is_ours)
                {
                    let _ = std::fs::remove_file(path);
                }
                // SAFETY: ends this process, without handlers that belong to the parent.
                unsafe { libc::_exit(0) }
            }
        }
    }

    /// Says the word, and waits until it has been followed.
    fn dismiss(self, word: u8) {
        let _ = nix::unistd::write(&self.say, &[word]);
        while waitid(Id::Pid(self.pid), WaitPidFlag::WEXITED) == Err(Errno::EINTR) {}
    }
}

/// The word; `None` if there is nobody left to say it.
fn told(listen: BorrowedFd<'_>) -> Option<u8> {
    let mut word = [0];
    loop {
        match nix::unistd::read(listen, &mut word) {
            Ok(1) => return Some(word[0]),
            Err(Errno::EINTR) => {}
            _ => return None,
        }
    }
}
