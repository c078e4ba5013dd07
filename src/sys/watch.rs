//! Noticing that the target network namespace is gone [LIFE-11].
//!
//! # Theory of operation
//!
//! A namespace that belongs to a process is gone when the process is: a pidfd tells. A namespace
//! bound to a file is gone when the name is: inotify on the directory tells. Where that does not
//! work (kernel file systems announce nothing; the user's inotify instances may be used up, or the
//! directory not be readable) the file is asked for once per second, and where inotify lost events, once.
//!
//! The watch is set up while files can still be opened, and works from inside the sandbox: it
//! keeps descriptors only.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::stat::Mode;
use nix::sys::statfs::{FsType, fstatfs};

use super::error::{Error, What};

/// File systems that send no events for names that disappear.
const SILENT: [FsType; 2] = [nix::sys::statfs::PROC_SUPER_MAGIC, FsType(0x6265_6572)]; // sysfs
/// devpts, likewise (linux/magic.h).
const DEVPTS: FsType = FsType(0x1cd1);

/// A network namespace being watched.
#[derive(Debug)]
pub struct NetnsWatch {
    how: How,
    gone: bool,
}

#[derive(Debug)]
enum How {
    Process(OwnedFd),
    Name { inotify: Inotify, file: Name },
    Ask { file: Name },
}

/// A file by name, in a directory that stays reachable inside the sandbox.
#[derive(Debug)]
struct Name {
    dir: OwnedFd,
    name: CString,
}

impl NetnsWatch {
    /// Watches a process.
    ///
    /// # Errors
    /// It does not exist.
    pub fn process(pid: i32) -> Result<Self, Error> {
        // SAFETY: takes integers only.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) });
        let fd = fd.map_err(|errno| match errno {
            Errno::ESRCH => Error::Other(format!("process {pid} does not exist")),
            errno => Error::Call { what: format!("cannot watch process {pid}"), errno },
        })?;
        let fd = i32::try_from(fd).map_err(|_| Error::Other("bad descriptor".into()))?;
        // SAFETY: the kernel has just created it for us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(NetnsWatch { how: How::Process(fd), gone: false })
    }

    /// Watches the file of a namespace. `/proc/PID/ns/net` is its process.
    ///
    /// # Errors
    /// The directory cannot be opened.
    pub fn path(path: &Path) -> Result<Self, Error> {
        if let Some(pid) = process_of(path) {
            return Self::process(pid);
        }
        let what = || format!("cannot watch {}", path.display());
        let name = path.file_name().ok_or_else(|| Error::Other(what()))?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        // Who may pass through a directory may not be allowed to read it [COMPAT-48]. (The options
        // of std would leave O_PATH out where the C library counts it as an access mode.)
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = open(parent, flags, Mode::empty()).what(what)?;
        let name = CString::new(name.as_bytes()).map_err(|_| Error::Other(what()))?;
        let silent = fstatfs(&dir).is_ok_and(|fs| {
            SILENT.contains(&fs.filesystem_type()) || fs.filesystem_type() == DEVPTS
        });
        let file = Name { dir, name };
        let inotify = inotify(parent);
        // It may have gone before the watch was there.
        let gone = !file.exists();
        let how = match inotify {
            Ok(inotify) if !silent => How::Name { inotify, file },
            _ => How::Ask { file },
        };
        Ok(NetnsWatch { how, gone })
    }

    /// The descriptor to register for reading, if there is one.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.how {
            How::Process(fd) => Some(fd.as_fd()),
            How::Name { inotify, .. } => Some(inotify.as_fd()),
            How::Ask { .. } => None,
        }
    }

    /// Whether [`gone`](Self::gone) may look for a file: the filter has to allow it
    /// ([`Allow::faccessat`](super::seccomp::Allow)).
    #[must_use]
    pub fn looks(&self) -> bool {
        !matches!(self.how, How::Process(_))
    }

    /// How often to ask [`gone`](Self::gone) where there is no descriptor.
    #[must_use]
    pub fn interval(&self) -> Option<Duration> {
        matches!(self.how, How::Ask { .. }).then_some(Duration::from_secs(1))
    }

    /// Whether the namespace is gone. To be asked once before the loop, then on every event.
    pub fn gone(&mut self) -> bool {
        if !self.gone {
            self.gone = match &self.how {
                How::Process(fd) => {
                    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
                    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
                }
                How::Name { inotify, file } => deleted(inotify, file),
                How::Ask { file } => !file.exists(),
            };
        }
        self.gone
    }
}

/// The process whose namespace `/proc/PID/ns/net` is.
fn process_of(path: &Path) -> Option<i32> {
    let rest = path.strip_prefix("/proc").ok()?;
    let pid = rest.to_str()?.strip_suffix("/ns/net")?;
    // Names a process only in decimal: not "self", and no sign.
    pid.bytes().all(|byte| byte.is_ascii_digit()).then(|| pid.parse().ok())?
}

fn inotify(dir: &Path) -> nix::Result<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    inotify.add_watch(dir, AddWatchFlags::IN_DELETE | AddWatchFlags::IN_DELETE_SELF)?;
    Ok(inotify)
}

/// Reads all events; true if one says that the file, or the directory with it, was deleted, or if
/// events were lost and the file is gone.
fn deleted(inotify: &Inotify, file: &Name) -> bool {
    let name = OsStr::from_bytes(file.name.to_bytes());
    let (mut deleted, mut lost) = (false, false);
    while let Ok(events) = inotify.read_events() {
        for event in events {
            deleted |= event.mask.contains(AddWatchFlags::IN_DELETE_SELF)
                || event.name.as_deref() == Some(name);
            lost |= event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
        }
    }
    deleted || (lost && !file.exists())
}

impl Name {
    /// Whether it is still there. Access denied means that it is.
    fn exists(&self) -> bool {
        let Name { dir, name } = self;
        // The bare system call: the library's has other ways to do it, which the filter would not
        // know.
        // SAFETY: a descriptor of ours and a NUL-terminated name, neither kept.
        let result = unsafe {
            libc::syscall(libc::SYS_faccessat, dir.as_raw_fd(), name.as_ptr(), libc::F_OK)
        };
        matches!(Errno::result(result), Ok(_) | Err(Errno::EACCES))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_plain_process_paths_are_processes() {
        assert_eq!(process_of(Path::new("/proc/42/ns/net")), Some(42));
        for other in ["/proc/self/ns/net", "/proc/+4/ns/net", "/proc//ns/net", "/run/netns/x"] {
            assert_eq!(process_of(Path::new(other)), None, "{other}");
        }
    }
}
