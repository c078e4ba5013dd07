//! Attacks from inside: a build of the program that turns on itself once it runs.
//!
//!     cargo test --features attack --test attack
//!
//! Each attack is made with the system call filter, which kills, and without, so that what stands
//! behind it (no file to name, no capability, namespaces) is seen to hold on its own; and once more
//! where there are no namespaces, but Landlock.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "netns/unable.rs"]
mod unable;

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::{env, fs};

/// Attacks, and the errors that the walls behind the filter answer with; none where only the
/// filter is in the way.
const ATTACKS: [(&str, &[i32]); 13] = [
    ("open", &[libc::ENOENT]),
    ("create", &[libc::EROFS]),
    ("execve", &[libc::ENOENT]),
    ("ptrace", &[libc::EPERM, libc::ESRCH]),
    ("packet socket", &[libc::EPERM]),
    ("raw socket", &[libc::EPERM]),
    ("mount", &[libc::EPERM]),
    ("unshare", &[libc::EPERM]),
    ("setns", &[libc::EPERM, libc::EINVAL, libc::EBADF]),
    ("setuid", &[libc::EPERM, libc::EINVAL]),
    ("kill", &[]),
    ("fork", &[]),
    ("executable memory", &[]),
];

/// What an attack meets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Walls {
    All,
    Unfiltered,
    LandlockUnfiltered,
}

/// How the program ended that made this attack.
fn attacked(mode: &str, name: &str, walls: Walls) -> ExitStatus {
    let mut command = match mode {
        "pasta" => {
            let mut command = Command::new(env!("CARGO_BIN_EXE_pasta"));
            command.args(["--config-net", "--", "sleep", "10"]);
            command
        }
        _ => {
            let mut command = Command::new(env!("CARGO_BIN_EXE_passt"));
            command.args(["-f", "-t", "none", "-u", "none", "--socket"]).arg(socket());
            command
        }
    };
    command.env("PASST_ATTACK", name).stdin(Stdio::null()).stderr(Stdio::null());
    if walls != Walls::All {
        command.env("PASST_ATTACK_UNFILTERED", "1");
    }
    if walls == Walls::LandlockUnfiltered {
        command.arg("--landlock-fallback");
        // SAFETY: the hook only makes system calls.
        unsafe { command.pre_exec(unable::unshare) };
    }
    let status = command.status().unwrap();
    fs::remove_file(socket()).ok();
    status
}

/// Where the passt of this process listens.
fn socket() -> PathBuf {
    env::temp_dir().join(format!("attack-{}.socket", std::process::id()))
}

#[test]
fn the_filter_kills() {
    // [SANDBOX-10] [SANDBOX-11]
    for mode in ["pasta", "passt"] {
        for (name, _) in ATTACKS {
            let status = attacked(mode, name, Walls::All);
            assert_eq!(status.signal(), Some(libc::SIGSYS), "{mode} {name}: {status}");
        }
    }
}

#[test]
fn the_walls_behind_it_hold() {
    // [SANDBOX-7] [SANDBOX-9]
    for mode in ["pasta", "passt"] {
        for (name, errors) in ATTACKS.into_iter().filter(|(_, errors)| !errors.is_empty()) {
            let status = attacked(mode, name, Walls::Unfiltered);
            let code = status.code().unwrap_or(0);
            assert!(errors.contains(&code), "{mode} {name}: {status}");
        }
    }
}

// [SANDBOX-7] Only a passt can do without any namespace: a pasta has one to work in.
#[test]
fn landlock_holds_where_there_are_no_namespaces() {
    for (name, errors) in [
        ("open", &[libc::EACCES][..]),
        ("create", &[libc::EACCES]),
        ("execve", &[libc::EACCES]),
        ("ptrace", &[libc::EPERM]),
        ("packet socket", &[libc::EPERM]),
        ("mount", &[libc::EPERM]),
        ("setuid", &[libc::EPERM]),
    ] {
        let status = attacked("passt", name, Walls::LandlockUnfiltered);
        let code = status.code().unwrap_or(0);
        assert!(errors.contains(&code), "{name}: {status}");
    }
}
