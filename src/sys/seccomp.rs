//! The system call filter [SANDBOX-10, SANDBOX-11].
//!
//! # Theory of operation
//!
//! An allow-list; anything else kills the process (SIGSYS, a shell shows 159). There is no call in
//! it that opens a file by name, executes, forks, traces, mounts, changes ids or namespaces, or
//! maps executable memory.
//!
//! The lists below are by the part of the program that makes the call, with the reason. A call
//! with a condition on its arguments is evaluated every time; one without is decided by the
//! kernel's own cache (Linux 5.11), so the length of the list costs the data path nothing: no call
//! made per packet has a condition.
//!
//! The list serves glibc and musl, and the machines that `seccompiler` knows: x86_64, aarch64 and
//! riscv64. On others compiling the filter fails, and so does the start.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::error::Error;

/// What the process needs beyond the common list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allow {
    /// A namespace is served: its loopback interface is spliced to ours, and it may have a command.
    pub namespace: bool,
    /// A namespace is watched by its file, which may have to be looked for
    /// ([`NetnsWatch::looks`](super::watch::NetnsWatch::looks)).
    pub faccessat: bool,
    /// Files are written that may have to be cut: the log ([`logfile`](super::logfile)), a capture.
    pub files: bool,
}

/// A compiled filter.
#[derive(Debug)]
pub struct Filter(BpfProgram);

impl Filter {
    /// Compiles the filter for this process: after a fork, not before.
    ///
    /// # Errors
    /// The machine is not supported.
    pub fn compile(allow: Allow) -> Result<Self, Error> {
        Self::from_rules(rules(allow)?)
    }

    /// Compiles the filter of the process that makes sockets ([`factory`](super::factory)): inside
    /// that process.
    ///
    /// # Errors
    /// The machine is not supported.
    pub fn factory() -> Result<Self, Error> {
        let mut rules = listed(&[FACTORY, RUNTIME]);
        restricted(&mut rules)?;
        // std checks descriptors in debug builds.
        one_of(&mut rules, libc::SYS_fcntl, 1, &[libc::F_GETFD])?;
        Self::from_rules(rules)
    }

    fn from_rules(rules: Rules) -> Result<Self, Error> {
        let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(failed)?;
        let filter =
            SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch)
                .map_err(failed)?;
        BpfProgram::try_from(filter).map(Filter).map_err(failed)
    }

    /// Installs it, for good.
    ///
    /// # Errors
    /// The kernel has no filters or refuses this one.
    pub fn install(&self) -> Result<(), Error> {
        seccompiler::apply_filter(&self.0).map_err(|error| {
            Error::Other(format!("cannot install the system call filter: {error}"))
        })
    }
}

/// The loop: `event`, timers and signals. One number each for what C libraries spell differently.
const EVENT: &[i64] = &[
    #[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
    libc::SYS_epoll_wait,
    #[cfg(not(all(target_arch = "x86_64", target_env = "gnu")))]
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_ctl,
    libc::SYS_clock_gettime, // where the vDSO cannot answer
    libc::SYS_waitid,        // the command's status, or that of who looks after the PID file
];

/// Data: `link`, `host`, the log, the end of a namespace watch, and netlink sockets opened before
/// (`sendto` and `recvfrom`: ports that are bound, changes of the host's network).
const DATA: &[i64] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_close,
];

/// Sockets of flows: `host`. `socket` itself is restricted below.
const SOCKETS: &[i64] = &[
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_listen,
    libc::SYS_accept4,
    libc::SYS_shutdown,
    libc::SYS_getsockname, // where a connection or datagram came in
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
];

/// Language runtime and allocator. `mmap` and `mprotect` are restricted below.
const RUNTIME: &[i64] = &[
    libc::SYS_brk,    // the heap
    libc::SYS_munmap, // large blocks, musl's heap
    libc::SYS_mremap, // growing a large block
    #[cfg(target_env = "musl")]
    libc::SYS_madvise, // giving back a part of its heap
    libc::SYS_futex,  // locks inside the libraries, even if never contended by us
    libc::SYS_getrandom, // keys of hash tables
    libc::SYS_sigaltstack, // std takes its overflow stack down in exit()
    libc::SYS_exit_group,
    libc::SYS_rt_sigreturn, // std's handler lets a fault kill us as what it is
    // abort() looks like one, also to whoever started us.
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_getpid, // for the log file, too
    #[cfg(not(target_env = "musl"))]
    libc::SYS_gettid,
];

/// What a namespace is served with.
const NAMESPACE: &[i64] = &[
    libc::SYS_writev, // frames, and what goes before them, to the tap
    libc::SYS_splice,
    libc::SYS_pipe2,
    libc::SYS_sched_yield, // between turns of transfers past the link
    // State of a pidfd; the answer of the process that makes sockets.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(not(target_arch = "x86_64"))]
    libc::SYS_ppoll,
];

/// Files that may have to be cut.
const FILES: &[i64] = &[libc::SYS_ftruncate, libc::SYS_lseek, libc::SYS_fsync];

/// The process that makes sockets: its connection to us. `socket` is restricted below.
const FACTORY: &[i64] = &[
    libc::SYS_recvfrom,
    libc::SYS_sendto, // what musl and glibc make of send()
    libc::SYS_sendmsg,
    libc::SYS_close,
    libc::SYS_restart_syscall, // after a stop and continue
];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn rules(allow: Allow) -> Result<Rules, Error> {
    let mut rules = listed(&[EVENT, DATA, SOCKETS, RUNTIME]);
    if allow.namespace {
        rules.extend(listed(&[NAMESPACE]));
    }
    if allow.files {
        rules.extend(listed(&[FILES]));
    }
    if allow.faccessat {
        rules.insert(libc::SYS_faccessat, vec![]);
    }
    restricted(&mut rules)?;
    // std checks descriptors in debug builds; a listening socket is kept; sizes of splice pipes.
    let commands = [libc::F_GETFD, libc::F_DUPFD_CLOEXEC, libc::F_GETPIPE_SZ, libc::F_SETPIPE_SZ];
    one_of(&mut rules, libc::SYS_fcntl, 1, &commands)?;
    Ok(rules)
}

/// Calls without a condition.
fn listed(lists: &[&[i64]]) -> Rules {
    lists.concat().into_iter().map(|call| (call, vec![])).collect()
}

/// What every process of ours may do, with conditions.
fn restricted(rules: &mut Rules) -> Result<(), Error> {
    // Networks only: no netlink, no packet sockets, no UNIX peers by abstract name.
    one_of(rules, libc::SYS_socket, 0, &[libc::AF_INET, libc::AF_INET6])?;
    // Memory that is not executable.
    let executable = u64::from(libc::PROT_EXEC.unsigned_abs());
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let not_executable = condition(2, SeccompCmpOp::MaskedEq(executable), 0)?;
        rules.insert(call, vec![SeccompRule::new(vec![not_executable]).map_err(failed)?]);
    }
    // abort() signals itself: our own process only.
    #[cfg(target_env = "musl")]
    let call = libc::SYS_tkill;
    #[cfg(not(target_env = "musl"))]
    let call = libc::SYS_tgkill;
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    one_of(rules, call, 0, &[own])
}

/// Allows a call if its 32-bit argument number `index` is one of `values`.
fn one_of(rules: &mut Rules, call: i64, index: u8, values: &[i32]) -> Result<(), Error> {
    let mut alternatives = Vec::with_capacity(values.len());
    for value in values {
        let condition = condition(index, SeccompCmpOp::Eq, u64::from(value.cast_unsigned()))?;
        alternatives.push(SeccompRule::new(vec![condition]).map_err(failed)?);
    }
    rules.insert(call, alternatives);
    Ok(())
}

fn condition(index: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, Error> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, op, value).map_err(failed)
}

#[allow(clippy::needless_pass_by_value)] // used as `map_err(failed)`
fn failed(error: seccompiler::BackendError) -> Error {
    Error::Other(format!("cannot compile the system call filter: {error}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // [SANDBOX-11] A short list stays one: passt allows 34 calls for a machine, 44 for a namespace.
    #[test]
    fn the_lists_are_short() {
        // Everything on, as with a log file or a capture.
        let count = |namespace| {
            rules(Allow { namespace, faccessat: namespace, files: true }).unwrap().len()
        };
        assert!(count(false) <= 40, "{}", count(false));
        assert!(count(true) <= 49, "{}", count(true));
    }
}
