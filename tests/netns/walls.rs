//! The running process seen from outside: what it holds, and what it could reach.
//!
//! In each shape that it runs in. Root sees more of it than other users, who may not look into a
//! process that cannot be traced.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use crate::attach::{container, same_user};
use crate::lab::{Lab, SOON, eventually, output_within, unprivileged};
use crate::machine::Raw;
use crate::pasta::children;

/// Namespaces that are always its own; in the background also that of processes.
const OWN: [&str; 3] = ["mnt", "ipc", "uts"];

/// What every loop has open.
const LOOP: [&str; 4] = ["/dev/null", "anon_inode:[eventpoll]", "anon_inode:[signalfd]", "socket"];

fn read(pid: i32, what: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{what}")).unwrap()
}

/// What anybody can see: no capability in any set, nothing to gain, a filter, and one thread.
#[track_caller]
pub(crate) fn assert_powerless(pid: i32) {
    let status = read(pid, "status");
    let field = |name: &str| {
        let line = status.lines().find(|l| l.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_string()
    };
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1".into(), "2".into()));
    assert_eq!(field("Threads:"), "1");
}

/// What only root can see: an empty root, namespaces, memory, and this and nothing else open.
#[track_caller]
fn assert_enclosed(pid: i32, own: &[&str], open: &[&str]) {
    if unprivileged() && fs::read_dir(format!("/proc/{pid}/fd")).is_err() {
        return;
    }
    assert_eq!(fs::read_dir(format!("/proc/{pid}/root")).unwrap().count(), 0);
    let mounts = read(pid, "mounts");
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert!(mounts.contains(" / tmpfs ro,"), "{mounts}");
    let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
    assert_eq!(cwd, PathBuf::from("/"));
    let namespace =
        |pid: &str, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    for kind in own {
        assert_ne!(namespace(&pid.to_string(), kind), namespace("self", kind), "{kind}");
    }
    let maps = read(pid, "maps");
    let both = |line: &&str| line.split_whitespace().nth(1).is_some_and(|p| p[1..3] == *"wx");
    assert_eq!(maps.lines().find(both), None, "writable and executable");
    let open: BTreeSet<_> = open.iter().map(ToString::to_string).collect();
    // The command may run a little before the start is over.
    eventually("this and nothing else is open", SOON, || {
        let now = descriptors(pid);
        if now != open {
            println!("{now:?}");
        }
        now == open
    });
}

/// Kinds of descriptors: sockets and pipes have numbers, of which any may be there.
fn descriptors(pid: i32) -> BTreeSet<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let links = entries.filter_map(|e| fs::read_link(e.path()).ok());
    let kind = |link: PathBuf| {
        let name = link.to_string_lossy().into_owned();
        name.split_once(":[")
            .filter(|(k, _)| *k != "anon_inode")
            .map_or_else(|| name.clone(), |(k, _)| k.into())
    };
    links.map(kind).collect()
}

#[test]
fn pasta_with_a_command() {
    // [SANDBOX-7] [SANDBOX-9] [SANDBOX-10] [T-25] [W-2]
    Lab::run(|lab| {
        let guest = lab.guest("-t 8080 -T 8081");
        assert_powerless(guest.pasta.pid);
        // Standard output and error, which are the command's as well.
        let streams = ["pipe", "/run/lab/stderr.0"];
        let open = [&["/dev/net/tun", "anon_inode:[pidfd]"][..], &streams].concat();
        assert_enclosed(guest.pasta.pid, &OWN, &[&LOOP[..], &open].concat());
        for pid in children(guest.pasta.pid).into_iter().filter(|&pid| pid != guest.pid) {
            assert_powerless(pid);
            assert_enclosed(pid, &OWN, &["socket"]);
        }
    });
}

#[test]
fn pasta_in_the_background() {
    // [SANDBOX-7] [SANDBOX-9] [SANDBOX-10] [T-25] [W-2]
    Lab::run(|lab| {
        let (mut child, pid) = container();
        let pasta = lab.attach(&format!("--config-net -t 8080 {} {pid}", same_user()));
        assert_powerless(pasta.pid);
        let open = ["/dev/net/tun", "anon_inode:[pidfd]"];
        assert_enclosed(pasta.pid, &[&OWN[..], &["pid"]].concat(), &[&LOOP[..], &open].concat());
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

#[test]
fn files_are_made_by_who_started_us() {
    // [LIFE-1] [SANDBOX-6] where nobody else may, before we become somebody else; they stay theirs
    Lab::run(|lab| {
        let dir = lab.dir().join("private");
        DirBuilder::new().mode(0o700).create(&dir).unwrap();
        let mut command = lab.passt_command("");
        for (option, file) in [("--log-file", "log"), ("--pcap", "pcap"), ("--socket", "socket")] {
            command.arg(option).arg(dir.join(file));
        }
        let pid = dir.join("pid");
        let mut command = with_umask(command, 0o027);
        output_within(command.arg("--pid").arg(&pid), SOON).ok();
        let running: i32 = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
        assert!(Raw::connect(&dir.join("socket")).is_served(64));
        let owner = fs::metadata(&dir).unwrap().uid();
        if !unprivileged() {
            let status = read(running, "status");
            assert!(status.contains("Uid:\t65534\t65534"), "{status}");
        }
        for (file, mode) in [("pid", 0o600), ("log", 0o600), ("pcap", 0o600), ("socket", 0o750)] {
            let meta = fs::symlink_metadata(dir.join(file)).unwrap();
            assert_eq!((meta.uid(), meta.mode() & 0o777), (owner, mode), "{file}");
        }
    });
}

/// The same command, for which files get other permissions.
fn with_umask(mut command: Command, mask: libc::mode_t) -> Command {
    // SAFETY: the hook only makes a system call.
    unsafe {
        command.pre_exec(move || {
            libc::umask(mask);
            Ok(())
        });
    }
    command
}

#[test]
fn passt() {
    // [SANDBOX-7] [SANDBOX-9] [SANDBOX-10] [T-25] [W-2]
    Lab::run(|lab| {
        let (passt, _) = lab.passt("-t 8080");
        assert_powerless(passt.pid);
        assert_enclosed(passt.pid, &[&OWN[..], &["pid", "user"]].concat(), &LOOP);
        assert_eq!(children(passt.pid), []);
    });
}
