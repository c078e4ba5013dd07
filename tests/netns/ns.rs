//! Network namespaces as values, and the way into fresh ones.
//!
//! Entering happens on threads of their own (a network namespace belongs to a thread) or in a
//! child between `fork` and `exec`; the test's own thread never moves.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;

/// A network namespace, kept alive by this handle.
#[derive(Clone, Debug)]
pub(crate) struct Ns {
    file: Arc<File>,
}

impl Ns {
    /// The calling thread's.
    pub(crate) fn current() -> Ns {
        Ns::open("/proc/thread-self/ns/net")
    }

    /// That of a process.
    pub(crate) fn of_pid(pid: i32) -> Ns {
        Ns::open(format!("/proc/{pid}/ns/net"))
    }

    /// That behind a file.
    #[track_caller]
    pub(crate) fn open(path: impl AsRef<Path>) -> Ns {
        let path = path.as_ref();
        let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Ns { file: Arc::new(file) }
    }

    /// Runs `f` inside, on another thread, and hands back what it returns. Sockets it makes stay
    /// in this namespace.
    #[track_caller]
    pub(crate) fn enter<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                join_netns(&self.file).unwrap();
                f()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A command that will run inside.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let file = Arc::clone(&self.file);
        let mut command = Command::new(program);
        // SAFETY: the hook only calls setns(2).
        unsafe { command.pre_exec(move || join_netns(&file)) };
        command
    }

    /// Sets a network sysctl (`net/ipv4/...`).
    #[track_caller]
    pub(crate) fn sysctl(&self, key: &str, value: &str) {
        let path = format!("/proc/sys/{key}");
        self.enter(|| fs::write(&path, value).unwrap_or_else(|e| panic!("{path}: {e}")));
    }
}

/// User and group mapping of a new user namespace: the caller is root there.
pub(crate) struct IdMaps {
    files: Option<[(&'static [u8], Vec<u8>); 3]>,
}

impl IdMaps {
    /// Prepares the mapping; none if the caller is root and needs no user namespace.
    pub(crate) fn new() -> IdMaps {
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        if uid.is_root() {
            return IdMaps { files: None };
        }
        let map = |id: u32| format!("0 {id} 1").into_bytes();
        IdMaps {
            files: Some([
                (b"/proc/self/setgroups\0", b"deny".to_vec()),
                (b"/proc/self/uid_map\0", map(uid.as_raw())),
                (b"/proc/self/gid_map\0", map(gid.as_raw())),
            ]),
        }
    }
}

/// Moves a process between `fork` and `exec` into new namespaces and makes it process 1 there; a
/// process in between waits for it and ends as it does. Both end with the thread that forked.
pub(crate) fn isolate(maps: &IdMaps) -> io::Result<()> {
    let user = if maps.files.is_some() { libc::CLONE_NEWUSER } else { 0 };
    let flags = user | libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWPID;
    // SAFETY: plain system calls; memory they read was prepared before the first fork.
    unsafe {
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        check(libc::unshare(flags))?;
        for (path, text) in maps.files.iter().flatten() {
            let fd = check(libc::open(path.as_ptr().cast(), libc::O_WRONLY | libc::O_CLOEXEC))?;
            if libc::write(fd, text.as_ptr().cast(), text.len()) < 0 {
                return Err(io::Error::last_os_error());
            }
            libc::close(fd);
        }
        let child = check(libc::fork())?;
        if child == 0 {
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            return Ok(());
        }
        // The pipe that reports a failed exec has to close when the child execs.
        libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0);
        let mut status = 0;
        while libc::waitpid(child, &raw mut status, 0) < 0 {}
        libc::_exit(if libc::WIFEXITED(status) {
            libc::WEXITSTATUS(status)
        } else {
            128 + libc::WTERMSIG(status)
        })
    }
}

fn join_netns(file: &File) -> io::Result<()> {
    // SAFETY: plain system call on an open descriptor.
    check(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
