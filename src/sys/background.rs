//! Going to the background [LIFE-2].
//!
//! # Theory of operation
//!
//! One fork. The child starts a session, loses the terminal at once and goes on; the parent waits
//! for what it says on a pipe. A zero byte means ready: the parent writes the PID file and exits
//! 0. Anything else is the text of an error, which the parent prints before it exits 1, as it does
//! with words of its own if the child just ends. So a caller that sees status 0 can connect at
//! once, and one that does not sees why.
//!
//! The child is process 1 of a namespace of its own. For the log file, which is to name it as others
//! see it, the parent tells its number.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, fork, pipe2, setsid};

use super::error::{Error, What};
use super::logsink;
use super::pidfile::PidFile;

/// `/dev/null`, opened while there are still files to open.
#[derive(Debug)]
pub struct Null(OwnedFd);

impl Null {
    /// Opens it.
    ///
    /// # Errors
    /// There is none.
    pub fn open() -> Result<Self, Error> {
        let file = OpenOptions::new().read(true).write(true).open("/dev/null");
        Ok(Null(file.what(|| "cannot open /dev/null".into())?.into()))
    }
}

/// The child's side: a parent that waits for an answer. Dropping it means failure.
#[derive(Debug)]
pub struct Background(OwnedFd);

impl Background {
    /// Everything works: the parent exits 0. To be called just before the loop, after
    /// [`seal`](super::sandbox::seal).
    ///
    /// # Errors
    /// The parent is gone.
    pub fn ready(self) -> Result<(), Error> {
        nix::unistd::write(&self.0, &[0]).what(|| "cannot report readiness".into()).map(drop)
    }

    /// It does not: the parent prints the error and exits 1. The caller ends.
    pub fn fail(self, error: &Error) {
        let _ = nix::unistd::write(&self.0, error.to_string().as_bytes());
    }
}

/// Forks. Returns in the child only, which has no standard streams any more; the parent does not
/// return.
///
/// Belongs after [`isolate`](super::sandbox::isolate), so that the child starts the PID namespace,
/// and before [`seal`](super::sandbox::seal), in a process with a single thread.
///
/// # Errors
/// No process can be started.
pub fn detach(null: Null, pid_file: Option<PidFile>) -> Result<Background, Error> {
    let (answer, say) = pipe2(OFlag::O_CLOEXEC).what(|| "cannot create a pipe".into())?;
    let (listen, tell) = pipe2(OFlag::O_CLOEXEC).what(|| "cannot create a pipe".into())?;
    // SAFETY: there is one thread, so no lock can be held by another one in the child.
    match unsafe { fork() }.what(|| "cannot start the background process".into())? {
        ForkResult::Parent { child } => {
            drop((say, listen));
            let pid = u32::try_from(child.as_raw()).unwrap_or(0);
            let _ = nix::unistd::write(&tell, &pid.to_ne_bytes());
            drop(tell);
            let mut text = Vec::new();
            let _ = File::from(answer).read_to_end(&mut text);
            std::process::exit(report(&text, pid, pid_file));
        }
        ForkResult::Child => {
            drop((answer, tell));
            let mut pid = [0; 4];
            let _ = File::from(listen).read_exact(&mut pid);
            logsink::identify(u32::from_ne_bytes(pid));
            if let Some(file) = pid_file {
                file.leave();
            }
            let what = || "cannot detach from the terminal".to_owned();
            setsid().what(what)?;
            logsink::detach();
            dup2_stdin(null.0.as_fd()).what(what)?;
            dup2_stdout(null.0.as_fd()).what(what)?;
            dup2_stderr(null.0.as_fd()).what(what)?;
            Ok(Background(say))
        }
    }
}

/// What the parent makes of the answer: its exit status. The PID file stays only with status 0.
fn report(text: &[u8], pid: u32, pid_file: Option<PidFile>) -> i32 {
    match text {
        [0] => {
            let Some(mut file) = pid_file else { return 0 };
            match file.write(pid) {
                Ok(()) => {
                    file.keep();
                    return 0;
                }
                Err(error) => log::error!("{error}"),
            }
        }
        [] => log::error!("the background process ended unexpectedly"),
        text => log::error!("{}", String::from_utf8_lossy(text)),
    }
    1
}
