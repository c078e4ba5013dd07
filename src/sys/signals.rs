//! Signals: what we inherited, what the loop reads, what a command gets back [LIFE-6, W-4, W-26].
//!
//! # Theory of operation
//!
//! The signals that end us are blocked and read from a descriptor in the loop, so that the exit is
//! orderly wherever we were. SIGTERM, SIGQUIT and SIGINT always; SIGHUP only in the background,
//! where we would otherwise be the first process of a PID namespace and ignore it. In the
//! foreground SIGHUP keeps its default (a shell shows 129).
//!
//! A command that we start must not notice any of this: it gets back the signal mask, the
//! disposition of SIGPIPE and the descriptor limit that our own caller gave us. The disposition
//! has to be read before `main`, because the Rust runtime ignores SIGPIPE [HAZ-1].

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::resource::{Resource, rlim_t, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::error::{Error, What};

/// What the caller of this program gave us, to be handed on to a command.
#[derive(Clone, Debug)]
pub struct Inherited {
    mask: SigSet,
    sigpipe_ignored: bool,
    nofile: Option<(rlim_t, rlim_t)>,
}

impl Inherited {
    /// Records the present state: call before anything else changes it.
    #[must_use]
    pub fn record() -> Self {
        Inherited {
            mask: SigSet::thread_get_mask().unwrap_or_else(|_| SigSet::empty()),
            sigpipe_ignored: SIGPIPE_IGNORED.load(Ordering::Relaxed),
            nofile: super::fds::nofile(),
        }
    }

    /// Puts it back, in a child that is about to execute a command [W-4]. Does not allocate.
    pub(super) fn restore(&self) {
        let handler = if self.sigpipe_ignored { SigHandler::SigIgn } else { SigHandler::SigDfl };
        // SAFETY: no handler function is installed, only a default disposition.
        let _ = unsafe { signal(Signal::SIGPIPE, handler) };
        if let Some((soft, hard)) = self.nofile {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, soft, hard);
        }
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.mask), None);
    }
}

/// Ignores SIGPIPE: a peer that goes away is an error number, never the end of us.
pub fn ignore_sigpipe() {
    // SAFETY: no handler function is installed.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) };
}

/// The signals that end the process, as a non-blocking descriptor for the loop.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks SIGTERM, SIGQUIT and SIGINT, with `background` SIGHUP too, and collects them.
    ///
    /// # Errors
    /// No descriptor could be created.
    pub fn listen(background: bool) -> Result<Self, Error> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGTERM);
        set.add(Signal::SIGQUIT);
        set.add(Signal::SIGINT);
        if background {
            set.add(Signal::SIGHUP);
        }
        set.thread_block().what(|| "cannot block signals".into())?;
        SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .map(Signals)
            .what(|| "cannot create a signal descriptor".into())
    }

    /// The next signal that arrived, if any. Read until `None`: readiness is edge-triggered.
    pub fn next_signal(&mut self) -> Option<i32> {
        loop {
            match self.0.read_signal() {
                Ok(Some(info)) => return i32::try_from(info.ssi_signo).ok(),
                Err(Errno::EINTR) => {}
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether our caller ignored SIGPIPE.
static SIGPIPE_IGNORED: AtomicBool = AtomicBool::new(false);

/// Runs before the Rust runtime, which would hide the answer.
#[cfg_attr(miri, expect(dead_code))]
extern "C" fn note_sigpipe() {
    // SAFETY: an all-zero sigaction is a valid value to be overwritten.
    let mut old: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: only reads the disposition, into a valid structure.
    if unsafe { libc::sigaction(libc::SIGPIPE, std::ptr::null(), &raw mut old) } == 0 {
        SIGPIPE_IGNORED.store(old.sa_sigaction == libc::SIG_IGN, Ordering::Relaxed);
    }
}

// SAFETY: the section holds pointers to functions that the C library calls before main; ours
// makes one async-signal-safe call and one atomic store.
#[cfg(not(miri))] // It has no signals to ask for.
#[used]
#[unsafe(link_section = ".init_array")]
static NOTE_SIGPIPE: extern "C" fn() = note_sigpipe;
