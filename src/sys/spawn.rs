//! The command that pasta starts in namespaces of its own [NS-3..NS-7, LIFE-8, LIFE-9].
//!
//! # Theory of operation
//!
//! [`prepare`] forks a child into new IPC, PID, network, UTS and mount namespaces. The child sets
//! up its surroundings and then waits on a pipe, so that the command's first instruction already
//! finds a configured network. [`Waiting::release`] writes the byte it waits for. If we give up or
//! end instead, however that comes about, the pipe is closed and the child ends too: there is no
//! moment at which it could miss that [W-14], and no signal is sent, which the system call filter
//! would not allow. Once released it is independent of us: it survives
//! our end [LIFE-10].
//!
//! Between the fork and the execution the child runs our code, but only system calls on values
//! prepared before: it neither allocates nor prints through buffers.
//!
//! Belongs after the change of user and the creation of the user namespace, in a single-threaded
//! process, before [`caps::reduce_for_setup`](super::caps::reduce_for_setup): the child keeps
//! what the parent has.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use nix::unistd::{gethostname, pipe2};

use super::error::{Error, What};
use super::signals::Inherited;
use super::{netns, userns};

/// A command that has been looked up.
#[derive(Clone, Debug)]
pub struct Program {
    /// What execvp(3) searches for.
    file: CString,
    argv: Vec<CString>,
}

impl Program {
    /// Looks up a command (program and arguments) as execvp(3) will.
    ///
    /// # Errors
    /// It does not exist, is not executable, or contains a NUL byte. The text names the command.
    pub fn find(argv: &[OsString]) -> Result<Self, Error> {
        let Some(file) = argv.first() else {
            return Err(Error::Other("no command given".into()));
        };
        let what = || format!("cannot execute {}", file.display());
        look_up(file).what(what)?;
        let c = |arg: &OsString| {
            CString::new(arg.clone().into_vec())
                .map_err(|_| Error::Other(format!("{}: NUL byte in argument", what())))
        };
        Ok(Program { file: c(file)?, argv: argv.iter().map(c).collect::<Result<_, _>>()? })
    }

    /// The user's login shell: `$SHELL`, or `/bin/sh` where that is unset or empty [NS-5].
    ///
    /// # Errors
    /// As [`find`](Program::find), or `$SHELL` is too long to be a path.
    pub fn shell() -> Result<Self, Error> {
        let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
        let shell = shell.unwrap_or_else(|| "/bin/sh".into());
        if shell.len() >= usize::try_from(libc::PATH_MAX).unwrap_or(4096) {
            return Err(Error::Other("$SHELL is too long".into()));
        }
        let mut program = Program::find(std::slice::from_ref(&shell))?;
        // A leading dash is how a shell learns that this is a login.
        let argv0 = [b"-", program.file.as_bytes()].concat();
        program.argv = vec![CString::new(argv0).map_err(|e| Error::Other(e.to_string()))?];
        Ok(program)
    }
}

/// A child in its namespaces, waiting to be released. Dropping it ends the child and leaves
/// nothing behind.
#[derive(Debug)]
pub struct Waiting {
    child: Option<Child>,
    netns: OwnedFd,
    go: Option<OwnedFd>,
}

impl Waiting {
    /// The child's network namespace, checked to be accessible.
    #[must_use]
    pub fn netns(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }

    /// The child's process id, as seen from outside.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.as_ref().map_or(0, Child::pid) // there is one until `release` or drop
    }

    /// Lets the command run. To be called when everything else is ready.
    ///
    /// # Errors
    /// The child has died meanwhile.
    pub fn release(mut self) -> Result<Child, Error> {
        if let Some(go) = &self.go {
            nix::unistd::write(go, &[1]).what(|| "cannot start the command".into())?;
        }
        self.child.take().ok_or_else(|| Error::Other("no child".into()))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.go = None;
        if let Some(child) = self.child.take() {
            let _ = child.wait(0);
        }
    }
}

/// The running command. The descriptor is readable when it has ended.
#[derive(Debug)]
pub struct Child {
    pid: i32,
    pidfd: OwnedFd,
}

impl Child {
    /// Process id, as seen from outside.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The exit status to pass on if the command has ended: its own, or 128 plus the number of
    /// the signal that ended it [CLI-12]. Does not block.
    pub fn try_wait(&mut self) -> Option<u8> {
        self.wait(libc::WNOHANG)
    }

    fn wait(&self, flags: libc::c_int) -> Option<u8> {
        // The bare call: nix refuses real-time signals.
        // SAFETY: an all-zero siginfo is a valid value to be overwritten.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        loop {
            // SAFETY: the kernel writes into a valid structure.
            let result = unsafe {
                libc::waitid(
                    libc::P_PID,
                    self.pid.cast_unsigned(),
                    &raw mut info,
                    libc::WEXITED | flags,
                )
            };
            match Errno::result(result) {
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(_) => return Some(1), // not our child: cannot come back, so it has ended
            }
        }
        // SAFETY: the kernel has filled in what belongs to SIGCHLD, or left zeros.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        match info.si_code {
            _ if pid == 0 => None,
            // A status has 8 bits, and the last signal is 64: neither conversion can fail.
            libc::CLD_EXITED => Some(u8::try_from(status & 0xff).unwrap_or(1)),
            _ => Some(u8::try_from(status + 128).unwrap_or(u8::MAX)),
        }
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Forks the child. `hostname` is `-H`; without it the name is `pasta-` and the present one.
///
/// # Errors
/// The namespaces cannot be created, or not be entered from outside. Nothing is left then.
pub fn prepare(
    program: &Program,
    hostname: Option<&str>,
    inherited: &Inherited,
) -> Result<Waiting, Error> {
    let (wait, go) = pipe2(OFlag::O_CLOEXEC).what(|| "cannot create a pipe".into())?;
    let mut argv: Vec<*const libc::c_char> = program.argv.iter().map(|arg| arg.as_ptr()).collect();
    argv.push(std::ptr::null());
    let plan = Plan {
        file: &program.file,
        argv: &argv,
        hostname: &host_name(hostname),
        wait: wait.as_fd(),
        go: go.as_raw_fd(),
        inherited,
    };

    let mut pidfd: libc::c_int = -1;
    let namespaces = libc::CLONE_NEWIPC
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWNS;
    let flags = libc::c_long::from(namespaces | libc::CLONE_PIDFD | libc::SIGCHLD);
    let null: libc::c_long = 0;
    // SAFETY: without CLONE_VM and with no stack this is fork(2), in a process with one thread;
    // the kernel writes the pidfd to a valid place. Argument order as on all supported machines.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, null, &raw mut pidfd, null, null) };
    match Errno::result(pid) {
        Ok(0) => plan.run(),
        Ok(pid) => {
            drop(wait);
            let pid = i32::try_from(pid).unwrap_or(i32::MAX);
            // SAFETY: the kernel has just created it for us.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let child = Child { pid, pidfd };
            match netns::open_pid(pid) {
                Ok(netns) => Ok(Waiting { child: Some(child), netns, go: Some(go) }),
                Err(error) => {
                    drop(go);
                    let _ = child.wait(0);
                    Err(error)
                }
            }
        }
        Err(errno) => {
            Err(userns::refused("cannot create namespaces for the command", errno, false))
        }
    }
}

/// All that the child needs, prepared by the parent.
struct Plan<'a> {
    file: &'a CStr,
    /// Ends with a null pointer.
    argv: &'a [*const libc::c_char],
    hostname: &'a OsStr,
    wait: BorrowedFd<'a>,
    go: libc::c_int,
    inherited: &'a Inherited,
}

impl Plan<'_> {
    /// The life of the child up to the command. Async-signal-safe calls only.
    fn run(&self) -> ! {
        // SAFETY: our copy of the parent's end, never used again: while it were open, the parent's
        // death would not be seen.
        unsafe { libc::close(self.go) };
        // In a user namespace that is not new the mounts would still be those of the outside.
        let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
        check(c"cannot detach mounts", mount(NONE, c"/", NONE, slave, NONE));
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        check(c"cannot mount /proc", mount(Some(c"proc"), c"/proc", Some(c"proc"), flags, NONE));
        check(c"cannot set ping_group_range", allow_ping());
        check(c"cannot set the host name", nix::unistd::sethostname(self.hostname));

        let mut byte = [0];
        loop {
            match nix::unistd::read(self.wait, &mut byte) {
                Ok(1) => break,
                Err(Errno::EINTR) => {}
                // SAFETY: ends this process, without handlers that belong to the parent.
                _ => unsafe { libc::_exit(1) }, // the parent is gone
            }
        }

        // Every descriptor of ours is close-on-exec; should one not be, it still stays here.
        let flag = libc::CLOSE_RANGE_CLOEXEC;
        // SAFETY: takes integers only; nothing is closed before the command runs.
        unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, flag) };
        self.inherited.restore();
        // SAFETY: both are NUL-terminated, the list by a null pointer, and outlive the call.
        unsafe { libc::execvp(self.file.as_ptr(), self.argv.as_ptr()) };
        say(&[b"cannot execute ", self.file.to_bytes(), b": ", Errno::last().desc().as_bytes()]);
        // SAFETY: as above.
        unsafe { libc::_exit(1) }
    }
}

const NONE: Option<&CStr> = None;

/// Lets every group of the namespace use ICMP echo sockets: there is only group 0.
fn allow_ping() -> nix::Result<()> {
    let file = nix::fcntl::open(
        c"/proc/sys/net/ipv4/ping_group_range",
        OFlag::O_WRONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    nix::unistd::write(&file, b"0 0").map(drop)
}

/// Prints a warning if a step failed.
fn check<T>(what: &CStr, result: nix::Result<T>) {
    if let Err(errno) = result {
        say(&[what.to_bytes(), b": ", errno.desc().as_bytes()]);
    }
}

/// Writes one line to standard error, from at most 4 parts, without allocating.
fn say(parts: &[&[u8]]) {
    let empty = io::IoSlice::new(b"");
    let mut line = [empty; 5];
    for (slot, part) in line.iter_mut().zip(parts) {
        *slot = io::IoSlice::new(part);
    }
    line[4] = io::IoSlice::new(b"\n");
    let _ = nix::sys::uio::writev(io::stderr(), &line);
}

/// The name of the new UTS namespace: at most 64 bytes, the kernel's limit.
fn host_name(wanted: Option<&str>) -> OsString {
    let mut name = match wanted {
        Some(name) => name.as_bytes().to_vec(),
        None => [b"pasta-", gethostname().unwrap_or_default().as_bytes()].concat(),
    };
    name.truncate(64);
    OsString::from_vec(name)
}

/// Finds a program as execvp(3) does, to report early what would fail late.
fn look_up(file: &OsStr) -> io::Result<()> {
    if file.is_empty() {
        return Err(Errno::ENOENT.into());
    }
    if file.as_bytes().contains(&b'/') {
        return executable(Path::new(file));
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    let mut best = Errno::ENOENT.into();
    for dir in std::env::split_paths(&path) {
        match executable(&dir.join(file)) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => best = error,
            Err(_) => {}
        }
    }
    Err(best)
}

fn executable(path: &Path) -> io::Result<()> {
    let meta = std::fs::metadata(path)?;
    if !meta.is_file() || meta.permissions().mode() & 0o111 == 0 {
        return Err(Errno::EACCES.into());
    }
    // With effective ids, as execve(2) decides.
    nix::unistd::faccessat(
        nix::fcntl::AT_FDCWD,
        path,
        nix::unistd::AccessFlags::X_OK,
        nix::fcntl::AtFlags::AT_EACCESS,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn find(argv: &[&str]) -> Result<Program, String> {
        let argv: Vec<OsString> = argv.iter().map(Into::into).collect();
        Program::find(&argv).map_err(|error| error.to_string())
    }

    // [CLI-12]
    #[test]
    fn a_bad_command_is_named_with_the_reason() {
        let text = |argv: &[&str]| find(argv).unwrap_err();
        assert_eq!(text(&["no-such-cmd"]), "cannot execute no-such-cmd: No such file or directory");
        assert_eq!(text(&["/etc/passwd", "x"]), "cannot execute /etc/passwd: Permission denied");
        assert_eq!(text(&["/etc"]), "cannot execute /etc: Permission denied");
        assert_eq!(text(&[""]), "cannot execute : No such file or directory");
        assert_eq!(find(&["true", "a"]).unwrap().argv.len(), 2);
    }

    // [NS-4]
    #[test]
    fn the_host_name_is_cut_to_the_kernels_limit() {
        assert_eq!(host_name(Some("box")), "box");
        assert_eq!(host_name(Some(&"x".repeat(100))).len(), 64);
        assert!(host_name(None).as_bytes().starts_with(b"pasta-"));
    }
}
