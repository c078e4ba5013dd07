//! Attacks on ourselves from behind the walls, to see that they hold.
//!
//! # Theory of operation
//!
//! With the feature `attack`, which release builds refuse, the running process does what
//! [`ATTACK`] names as its first deed, as somebody would who has taken it over: it makes the system
//! call and exits with the error number, or with [`BREACH`] if the call succeeded. With the filter
//! installed it does not get that far. [`UNFILTERED`] leaves the filter out, so that the walls
//! behind it are tried on their own. `tests/attack.rs` is the other half.

use std::ffi::CStr;

use nix::libc;

/// The environment variable that names the attack.
pub const ATTACK: &str = "PASST_ATTACK";

/// The environment variable that leaves out the system call filter.
pub const UNFILTERED: &str = "PASST_ATTACK_UNFILTERED";

/// Exit status when a call went through.
pub const BREACH: i32 = 200;

/// A file that exists everywhere but in an empty root.
const FILE: &CStr = c"/proc/self/exe";

/// Does what the environment asks for; returns if that is nothing.
pub fn run() {
    let Ok(name) = std::env::var(ATTACK) else { return };
    let word = |value: i32| libc::c_long::from(value);
    let file = FILE.as_ptr() as libc::c_long;
    let parent = word(nix::unistd::getppid().as_raw());
    let (number, args): (libc::c_long, [libc::c_long; 5]) = match name.as_str() {
        "open" => (libc::SYS_openat, [word(libc::AT_FDCWD), file, word(libc::O_RDONLY), 0, 0]),
        "create" => {
            let flags = libc::O_CREAT | libc::O_WRONLY;
            (
                libc::SYS_openat,
                [word(libc::AT_FDCWD), c"/new".as_ptr() as i64, word(flags), 0o600, 0],
            )
        }
        "execve" => (libc::SYS_execve, [file, 0, 0, 0, 0]),
        "ptrace" => (libc::SYS_ptrace, [16, parent, 0, 0, 0]), // PTRACE_ATTACH
        "packet socket" => {
            (libc::SYS_socket, [word(libc::AF_PACKET), word(libc::SOCK_RAW), 0, 0, 0])
        }
        "raw socket" => (libc::SYS_socket, [word(libc::AF_INET), word(libc::SOCK_RAW), 255, 0, 0]),
        "mount" => {
            let tmpfs = c"tmpfs".as_ptr() as libc::c_long;
            (libc::SYS_mount, [tmpfs, c"/".as_ptr() as i64, tmpfs, 0, 0])
        }
        "unshare" => (libc::SYS_unshare, [word(libc::CLONE_NEWNET), 0, 0, 0, 0]),
        "setns" => {
            // A namespace has to be had first: that of the parent, by its process.
            // SAFETY: no memory is involved.
            let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, parent, 0) };
            (libc::SYS_setns, [fd, word(libc::CLONE_NEWNET), 0, 0, 0])
        }
        "setuid" => (libc::SYS_setuid, [1, 0, 0, 0, 0]),
        "kill" => (libc::SYS_kill, [parent, 0, 0, 0, 0]),
        "fork" => (libc::SYS_clone, [word(libc::SIGCHLD), 0, 0, 0, 0]),
        "executable memory" => {
            let (prot, flags) =
                (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANON);
            (libc::SYS_mmap, [0, 4096, word(prot), word(flags), -1])
        }
        _ => std::process::exit(BREACH + 1),
    };
    let [a, b, c, d, e] = args;
    // SAFETY: the process ends right after, whatever the call does to it.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, 0) };
    let status = if result < 0 { nix::errno::Errno::last_raw() } else { BREACH };
    // SAFETY: ends the process. Nothing of it is worth keeping.
    unsafe { libc::_exit(status) }
}
