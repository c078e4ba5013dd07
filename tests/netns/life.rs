//! Start and end in odd surroundings: what callers take away, hand down, or forget.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::config::Link;
use crate::lab::{
    HOST4, HOST6, Lab, REMOTE4, SOON, at, eventually, ip, output_within, pasta_path, unprivileged,
};
use crate::machine::Raw;
use crate::net::{accept, listen, roundtrip};
use crate::ns::Ns;
use crate::pasta::QUIET;
use crate::unable;
use crate::walls::assert_powerless;

#[test]
fn standard_descriptors_may_be_closed() {
    // [LIFE-4] [COMPAT-34] all combinations, in the background and in the foreground
    Lab::run(|lab| {
        for closed in 1..8u8 {
            let close: String = (0..3)
                .filter(|fd| closed & 1 << fd != 0)
                .map(|fd| format!(" {fd}{}&-", if fd == 0 { '<' } else { '>' }))
                .collect();
            let ns = lab.new_netns("one");
            let pid_file = lab.fresh("pid");
            let line = format!(
                "exec \"$0\" -q --config-net {QUIET} --pid {} --netns one{close}",
                pid_file.display()
            );
            let mut command = Command::new("sh");
            output_within(command.args(["-c", &line]).arg(pasta_path()), SOON).ok();
            let pid = fs::read_to_string(&pid_file).unwrap();
            for fd in 0..3 {
                let link = fs::read_link(format!("/proc/{}/fd/{fd}", pid.trim())).unwrap();
                assert_eq!(link.to_str(), Some("/dev/null"), "{close}: descriptor {fd}");
            }
            let server = listen(&lab.remote, at(REMOTE4, 7000));
            roundtrip(&ns, at(REMOTE4, 7000), &server);
            drop(ns);
            ip("netns del one");

            let line = format!("exec \"$0\" -q --config-net {QUIET} -- sh -c 'exit 9'{close}");
            let mut command = Command::new("sh");
            let out = output_within(command.args(["-c", &line]).arg(pasta_path()), SOON);
            assert_eq!(out.status.code(), Some(9), "{close}: {out:?}");
        }
    });
}

#[test]
fn what_callers_leak_is_closed() {
    // [LIFE-4] [COMPAT-29] [COMPAT-35] twenty descriptors, one of them the end of a pipe
    Lab::run(|lab| {
        let _ns = lab.new_netns("one");
        let (mut reader, writer) = std::io::pipe().unwrap();
        let leaked = writer.as_raw_fd();
        let mut command = lab.command(&format!("-q --config-net {QUIET} --netns one"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: the hook only makes system calls.
        unsafe {
            command.pre_exec(move || {
                for fd in 60..80 {
                    if libc::dup2(leaked, fd) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        assert!(command.status().unwrap().success());
        drop(command);
        drop(writer);
        // It is running, and has no end of the pipe.
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    });
}

/// `setpriv` without any capability, and no way to get one.
fn powerless(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    if !unprivileged() {
        command.args(["--reuid=54321", "--regid=54321", "--clear-groups"]);
    }
    command.args(["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", program]);
    command
}

#[test]
fn no_capability_no_environment_and_a_directory_nobody_may_read() {
    // [COMPAT-16] [COMPAT-45] as libvirt starts us
    Lab::run(|lab| {
        let dir = lab.dir().join("closed");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(lab.dir(), fs::Permissions::from_mode(0o755)).unwrap();
        let server = listen(&lab.remote, at(REMOTE4, 7000));
        let line = format!(
            "cd {0} && chmod 000 {0} && exec \"$@\" -q --config-net {QUIET} -- \
             /bin/bash -c 'exec 3<>/dev/tcp/{REMOTE4}/7000; read -r word <&3; echo $word; pwd'",
            dir.display()
        );
        let powerless = powerless(pasta_path().to_str().unwrap());
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &line, "sh"]).arg("/usr/bin/env").arg("-i");
        command.arg(powerless.get_program()).args(powerless.get_args());
        let answer = std::thread::spawn(move || accept(&server).write_all(b"hello\n").unwrap());
        let out = output_within(&mut command, SOON);
        assert_eq!(out.stdout.lines().next(), Some("hello"), "{out:?}");
        assert!(out.status.success(), "{out:?}");
        answer.join().unwrap();

        // passt, likewise.
        let socket_dir = lab.dir().join("sockets");
        fs::create_dir(&socket_dir).unwrap();
        fs::set_permissions(&socket_dir, fs::Permissions::from_mode(0o777)).unwrap();
        let mut command = powerless_passt(lab);
        command.env_clear().current_dir("/").args(["--one-off", "--socket"]);
        command.arg(socket_dir.join("s")).arg("--pid").arg(socket_dir.join("p"));
        output_within(&mut command, SOON).ok();
        let mut guest = crate::machine::Raw::connect(&socket_dir.join("s"));
        assert!(guest.is_served(64));
        drop(guest);
        let pid = fs::read_to_string(socket_dir.join("p")).unwrap();
        eventually("passt ends with its guest", SOON, || gone(pid.trim()));
    });
}

fn powerless_passt(lab: &Lab) -> Command {
    let passt = lab.passt_command("");
    powerless(passt.get_program().to_str().unwrap())
}

/// No process, or one that nobody waited for.
fn gone(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |stat| stat.contains(") Z "))
}

#[test]
fn inside_another_pasta() {
    // [NS-3] [NL-4] three deep, in both directions
    Lab::run(|lab| {
        let server = listen(&lab.remote, at(REMOTE4, 7000));
        let pasta = pasta_path();
        let pasta = pasta.to_str().unwrap();
        let outer = "-q --config-net -T none -U none -u none -t";
        let script = format!(
            "exec {pasta} {outer} 8080:8081 -- {pasta} {outer} 8081:80 -- \
             sh -c 'echo up; exec sleep 600'"
        );
        let mut command = lab.command(&format!("{outer} 8080 --"));
        command.args(["sh", "-c", &script]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut word = [0; 3];
        child.stdout.take().unwrap().read_exact(&mut word).unwrap();
        let inner = Ns::of_pid(deepest(i32::try_from(child.id()).unwrap()));
        let link = Link::of(&inner, "up0");
        assert!(link.addresses.contains(&HOST4) && link.addresses.contains(&HOST6), "{link:?}");
        roundtrip(&inner, at(REMOTE4, 7000), &server);
        let inside = listen(&inner, at(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 80));
        for host in [HOST4, HOST6] {
            roundtrip(&lab.remote, at(host, 8080), &inside);
        }
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

/// The last of a line of only children.
fn deepest(pid: i32) -> i32 {
    crate::pasta::children(pid).into_iter().map(deepest).max().unwrap_or(pid)
}

#[test]
fn ready_means_ready() {
    // [LIFE-2] [LIFE-3] [COMPAT-28] no waiting between the parent's end and use
    Lab::run(|lab| {
        for round in 0..30 {
            let ns = lab.new_netns("one");
            let inside = listen(&ns, at(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 80));
            let pasta =
                lab.attach(&format!("-q --config-net -t 8080:80 {} --netns one", &QUIET[8..]));
            let link = Link::of(&ns, "up0");
            assert!(link.up && link.addresses.contains(&HOST6), "round {round}: {link:?}");
            roundtrip(&lab.remote, at(HOST4, 8080), &inside);
            let comm = fs::read_to_string(format!("/proc/{}/comm", pasta.pid)).unwrap();
            assert_eq!(comm, "pasta\n"); // [COMPAT-49]
            drop(ns);
            drop(inside);
            ip("netns del one");
        }
    });
}

#[test]
fn pid_file_of_the_foreground_is_the_callers_child() {
    // [LIFE-3] [COMPAT-30] [COMPAT-31] [COMPAT-39] when it is complete, everything works
    Lab::run(|lab| {
        let ns = lab.new_netns("one");
        for target in ["--netns one", "-- sleep 600"] {
            let pid_file = lab.fresh("pid");
            fs::write(&pid_file, "a number of another process\n").unwrap();
            let mut command = lab.command("-f -q --config-net --pid");
            command.arg(&pid_file).args(target.split_whitespace());
            let mut pasta = lab.foreground(command);
            eventually("PID file", SOON, || {
                fs::read_to_string(&pid_file)
                    .is_ok_and(|text| text.ends_with('\n') && !text.contains('a'))
            });
            assert_eq!(fs::read_to_string(&pid_file).unwrap(), format!("{}\n", pasta.pid));
            if target.starts_with("--netns") {
                assert!(Link::of(&ns, "up0").up);
            }
            pasta.signal(Signal::SIGTERM);
            assert_eq!(pasta.wait(Duration::from_secs(2)).code(), Some(0));
            assert!(pid_file.exists(), "it stays");
        }
    });
}

#[test]
fn no_files_are_touched_but_those_that_profiles_know() {
    // [COMPAT-47] profiles of AppArmor and SELinux are written for passt
    Lab::run(|lab| {
        let trace = lab.dir().join("trace");
        let _ns = lab.new_netns("one");
        let pid = lab.fresh("pid");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-e", "trace=%file", "-o"]).arg(&trace);
        command.arg(pasta_path()).args(["-q", "--config-net", "--runas", "0", "--pid"]);
        // What runs the tests may say where to look for libraries.
        command.arg(&pid).args(["--netns", "one"]).env_remove("LD_LIBRARY_PATH");
        let mut child = command.stdin(Stdio::null()).spawn().unwrap();
        eventually("it is ready", SOON, || fs::read(&pid).is_ok_and(|text| !text.is_empty()));
        let known = [
            "/dev/net/tun",
            "/dev/null",
            "/dev/urandom",
            "/dev/log",
            "/etc/resolv.conf",
            "/etc/nsswitch.conf",
            "/etc/passwd",
            "/etc/group",
            "/etc/ld.so",
            "/lib",
            "/usr/lib",
            "/proc/",
            "/run/netns",
            "/run/lab",
            "/tmp",
            "/sys/fs/cgroup",
            "/",
            ".",
        ];
        let program = pasta_path();
        let text = fs::read_to_string(&trace).unwrap();
        for line in text.lines().filter(|line| line.contains('"')) {
            let path = line.split('"').nth(1).unwrap();
            let fine = known.iter().any(|k| path == *k || k.len() > 1 && path.starts_with(k))
                || path.is_empty()
                || program.to_str() == Some(path)
                || ["proc", "tmpfs", "one"].contains(&path);
            assert!(fine, "{line}");
        }
        let pid = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM).unwrap();
        child.wait().unwrap();
    });
}

#[test]
fn a_hangup_ends_the_foreground() {
    // [LIFE-6]
    Lab::run(|lab| {
        let mut guest = lab.guest(QUIET);
        guest.pasta.signal(Signal::SIGHUP);
        assert_eq!(guest.pasta.wait(SOON).signal(), Some(libc::SIGHUP));
    });
}

#[test]
fn the_root_directory_can_be_changed_where_it_cannot_be_pivoted() {
    // [SANDBOX-8] as in an initramfs; here a filter refuses the call
    Lab::run(|lab| {
        let (ns, server) = (lab.new_netns("one"), listen(&lab.remote, at(REMOTE4, 7000)));
        let _other = lab.new_netns("other");
        let run = |options: &str| {
            let mut command = lab.command(&format!("-q --config-net {options}"));
            // SAFETY: the hook only makes system calls.
            unsafe { command.pre_exec(unable::pivot_root) };
            command
        };
        let out = output_within(&mut run("--netns other"), SOON);
        assert_eq!(out.status.code(), Some(1), "{out:?}");
        assert!(out.stderr.contains("see --chroot-fallback"), "{out:?}");
        // With the process that makes sockets, which has a root of its own.
        let pasta = lab.background(run("--chroot-fallback -t auto --netns one"));
        roundtrip(&ns, at(REMOTE4, 7000), &server);
        let root: Vec<_> = fs::read_dir(format!("/proc/{}/root", pasta.pid)).unwrap().collect();
        assert!(root.is_empty(), "{root:?}");
    });
}

#[test]
fn a_container_in_a_chroot_will_do() {
    // [COMPAT-46] no user namespaces in there, and sysctls that cannot be written
    Lab::run(|lab| {
        let (ns, server) = (lab.new_netns("one"), listen(&lab.remote, at(REMOTE4, 7000)));
        let script = lab.fresh("script");
        let lines = "#!/bin/sh
            mkdir -p /run/lab/root
            exec unshare --mount --propagation private sh -c '
                mount --rbind / /run/lab/root && cd /run/lab/root/proc/sys &&
                mount -o bind,ro,nosuid,nodev,noexec . . && cd / &&
                exec chroot /run/lab/root \"$@\"' sh ";
        fs::write(&script, format!("{lines} {} \"$@\"\n", pasta_path().display())).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new(&script);
        command.args(["-q", "--config-net", "-t", "8080", "-u", "auto", "--netns", "one"]);
        let pasta = lab.background(command);
        roundtrip(&ns, at(REMOTE4, 7000), &server);
        roundtrip(&lab.remote, at(HOST4, 8080), &listen(&ns, at(HOST4, 8080)));
        assert_powerless(pasta.pid);
        // A command would need a user namespace, which the kernel refuses in a chroot.
        let out = output_within(Command::new(&script).args(["-q", "--", "true"]), SOON);
        assert_eq!(out.status.code(), Some(1), "{out:?}");
        assert!(out.stderr.contains("cannot create a user namespace"), "{out:?}");
        assert!(out.stderr.contains("a chroot"), "{out:?}");
    });
}

#[test]
fn landlock_isolates_where_namespaces_cannot_be_had() {
    // [SANDBOX-7] as in containers that allow none; here a filter refuses the call
    Lab::run(|lab| {
        let run = |options: &str| {
            let (mut command, socket) = (lab.passt_command("-f -t 8080:80"), lab.fresh("socket"));
            command.args(options.split_whitespace()).arg("-s").arg(&socket);
            // SAFETY: the hook only makes system calls.
            unsafe { command.pre_exec(unable::unshare) };
            (command, socket)
        };
        let out = output_within(&mut run("").0, SOON);
        assert_eq!(out.status.code(), Some(1), "{out:?}");
        assert!(out.stderr.contains("cannot create a user namespace"), "{out:?}");
        assert!(out.stderr.contains("see --landlock-fallback"), "{out:?}");

        let (command, socket) = run("--landlock-fallback");
        let passt = lab.foreground(command);
        eventually("passt listens", SOON, || UnixStream::connect(&socket).is_ok());
        assert!(Raw::connect(&socket).is_served(7));
        assert!(passt.stderr().contains("isolating by Landlock instead"));
        assert_powerless(passt.pid);
        // With namespaces there is no need for it, and nothing is said.
        let pasta = lab.guest(&format!("{QUIET} --landlock-fallback"));
        assert!(!pasta.pasta.stderr().contains("Landlock"));
    });
}
