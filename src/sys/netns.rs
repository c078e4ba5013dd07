//! The target network namespace: opening it, and doing things inside it [NS-1, NS-2].
//!
//! The process stays where it was started. What has to be created in the target (the tap, its
//! netlink socket, listening sockets) is created by a short-lived thread that enters it; the
//! descriptors are ours as much as the thread's. All of this belongs before the sandbox, which
//! leaves neither the rights nor threads [HAZ-3].

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};

use super::error::{Error, What};

/// Opens the network namespace at `path` and checks that we may enter it.
///
/// # Errors
/// It does not exist, is no network namespace, or is not ours. The text names the path.
pub fn open_path(path: &Path) -> Result<OwnedFd, Error> {
    let file = open_file(path)?;
    let name = path.display();
    run_in(file.as_fd(), || ()).what(|| format!("cannot join network namespace {name}"))?;
    Ok(file.into())
}

/// Opens the file of a network namespace, which we may not be able to enter.
///
/// # Errors
/// It does not exist or is no network namespace. The text names the path.
pub fn open_file(path: &Path) -> Result<File, Error> {
    let name = path.display();
    let file = File::open(path).what(|| format!("cannot open network namespace {name}"))?;
    if namespace_type(&file) != Some(libc::CLONE_NEWNET) {
        return Err(Error::Other(format!("{name} is not a network namespace")));
    }
    Ok(file)
}

/// As [`open_file`], for the network namespace of a process.
///
/// # Errors
/// As [`open_file`]; a process that is gone is named as such.
pub fn open_pid_file(pid: i32) -> Result<File, Error> {
    exists(pid)?;
    open_file(&pid_path(pid))
}

/// True if we have what it takes to enter it.
#[must_use]
pub fn may_enter(file: &File) -> bool {
    run_in(file.as_fd(), || ()).is_ok()
}

/// Opens the network namespace of a process. To be certain that the number is not used again
/// meanwhile, take a [`NetnsWatch`](super::watch::NetnsWatch) before and ask it after.
///
/// # Errors
/// As [`open_path`]; a process that is gone is named as such.
pub fn open_pid(pid: i32) -> Result<OwnedFd, Error> {
    exists(pid)?;
    open_path(&pid_path(pid))
}

/// Runs `f` inside the namespace, on a thread of its own, and returns what it returned.
///
/// The rest of the process does not notice. Not after [`sandbox`](super::sandbox), and never
/// while locks are held that `f` needs.
///
/// # Errors
/// The thread cannot be started or may not enter the namespace; `f` has not run then.
pub fn run_in<T: Send>(netns: BorrowedFd<'_>, f: impl FnOnce() -> T + Send) -> io::Result<T> {
    let result = std::thread::scope(|scope| {
        let worker = std::thread::Builder::new().spawn_scoped(scope, || {
            setns(netns, CloneFlags::CLONE_NEWNET)?;
            Ok(f())
        })?;
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    settle();
    result
}

/// `Ok` if the process exists.
pub(super) fn exists(pid: i32) -> Result<(), Error> {
    if Path::new("/proc").join(pid.to_string()).exists() {
        Ok(())
    } else {
        Err(Error::Other(format!("process {pid} does not exist")))
    }
}

/// Where the network namespace of a process is found.
pub(super) fn pid_path(pid: i32) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join("ns/net")
}

/// The kind of namespace a file stands for, as a CLONE_ constant (ioctl_ns(2)); none if it is an
/// ordinary file.
pub(super) fn namespace_type(file: &File) -> Option<libc::c_int> {
    /// `_IO(0xb7, 0x3)` of linux/nsfs.h.
    const NS_GET_NSTYPE: u32 = 0xb703;
    let stat = nix::sys::statfs::fstatfs(file).ok()?;
    if stat.filesystem_type() != nix::sys::statfs::NSFS_MAGIC {
        return None; // another driver could take the same number for something else
    }
    // SAFETY: the request takes no argument, and the file is one of nsfs.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE as _) };
    Errno::result(kind).ok()
}

/// Waits until the kernel has seen the end of the worker too: joining a thread returns slightly
/// earlier, and a process that still counts two threads may not enter a user namespace.
fn settle() {
    for _ in 0..1000 {
        let tasks = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
        if tasks <= 1 {
            break;
        }
        std::thread::yield_now();
    }
}
