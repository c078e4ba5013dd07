//! pasta joining a namespace that exists already, in the background.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::config::Link;
use crate::lab::{
    GATEWAY4, HOST4, Helper, Lab, REMOTE4, SOON, at, eventually, ip, output_within, unprivileged,
};
use crate::net::{listen, pass, roundtrip};
use crate::ns::Ns;
use crate::pasta::timed;

/// A process in network and user namespaces of its own, as a container engine would hand to us.
pub(crate) fn container() -> (Child, i32) {
    let child = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sleep", "600"])
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    eventually("container starts", SOON, || {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.starts_with(b"sleep\0"))
    });
    (child, pid)
}

/// Started as real root, pasta would become another user, who may not look at our processes.
pub(crate) fn same_user() -> &'static str {
    if unprivileged() { "" } else { "--runas 0" }
}

#[test]
fn attaches_to_a_process_and_quits_when_it_ends() {
    // [CLI-10] [LIFE-2] [LIFE-11] [COMPAT-14] [COMPAT-28] [COMPAT-74]
    Lab::run(|lab| {
        let (mut child, pid) = container();
        let mut pasta = lab.attach(&format!("--config-net {} {pid}", same_user()));
        // Ready means ready: no waiting here.
        let link = Link::of(&Ns::of_pid(pid), "up0");
        assert!(link.up, "{link:?}");
        assert!(link.addresses.contains(&HOST4), "{link:?}");
        assert!(pasta.alive());
        child.kill().unwrap();
        child.wait().unwrap();
        let (status, took) = timed(|| pasta.wait(SOON));
        assert_eq!(status.code(), Some(0));
        assert!(took < Duration::from_millis(500), "{took:?}");
    });
}

#[test]
fn attaches_to_a_named_namespace_and_quits_when_it_is_deleted() {
    // [CLI-10] [LIFE-11] [COMPAT-74] by name and by path
    Lab::run(|lab| {
        for (name, argument) in [("one", "one"), ("two", "/run/netns/two")] {
            let ns = lab.new_netns(name);
            let mut pasta = lab.attach(&format!("--config-net --netns {argument}"));
            let link = Link::of(&ns, "up0");
            assert!(link.up && link.addresses.contains(&HOST4), "{link:?}");
            assert!(Link::of(&ns, "lo").up, "loopback is brought up [NS-8]");
            drop(ns);
            let ((), took) = timed(|| {
                ip(&format!("netns del {name}"));
                assert_eq!(pasta.wait(SOON).code(), Some(0));
            });
            assert!(took < Duration::from_millis(500), "{took:?}");
        }
    });
}

#[test]
fn whatever_is_recorded_it_goes_to_the_background() {
    // [COMPAT-41] what is said and captured meanwhile, other tests look at
    Lab::run(|lab| {
        let (mut child, pid) = container();
        let capture = lab.fresh("pcap");
        for options in ["-d", "--debug", "--trace", &format!("-p {}", capture.display())] {
            let line = format!("{options} --config-net {} {pid}", same_user());
            let mut pasta = lab.attach(&line);
            assert!(pasta.alive());
            pasta.signal(Signal::SIGTERM);
            pasta.wait(SOON);
        }
        assert!(fs::metadata(&capture).unwrap().len() >= 24);
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

#[test]
fn asks_for_a_silent_file_once_per_second_however_busy_it_is() {
    // [LIFE-11] [COMPAT-83] a directory of /proc announces nothing
    Lab::run(|lab| {
        let (mut child, pid) = container();
        let path = format!("/proc/{pid}/task/{pid}/ns/net");
        let options = "--config-net --netns-only --no-map-gw";
        let mut pasta = if unprivileged() {
            lab.attach(&format!("{options} --userns /proc/{pid}/ns/user --netns {path}"))
        } else {
            lab.attach(&format!("{options} --runas 0 --netns {path}"))
        };
        let log = lab.dir().join("strace");
        let strace = Command::new("strace")
            .args(["-f", "-e", "trace=faccessat", "-o"])
            .arg(&log)
            .args(["-p", &pasta.pid.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("strace(1)");
        let _strace = Helper(strace);
        let asked = || fs::read_to_string(&log).unwrap_or_default().matches("faccessat(").count();
        eventually("asks", SOON, || asked() > 0);
        let listener = listen(&lab.remote, at(REMOTE4, 7000));
        let (mut near, mut far) = roundtrip(&Ns::of_pid(pid), at(REMOTE4, 7000), &listener);
        let (before, start, mut rounds) = (asked(), Instant::now(), 0);
        while start.elapsed() < Duration::from_secs(2) {
            pass(&mut near, &mut far, b"question");
            pass(&mut far, &mut near, b"answer");
            rounds += 1;
        }
        let asked = u64::try_from(asked() - before).unwrap();
        let most = start.elapsed().as_secs() + 2;
        assert!(rounds > 50 && (1..=most).contains(&asked), "{asked} times, {rounds} rounds");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(pasta.wait(SOON).code(), Some(0));
    });
}

/// A command as the user who owns the namespaces of these tests, who is never root of the machine.
fn as_owner(mut command: Command) -> Command {
    if !unprivileged() {
        command.uid(54321).gid(54321);
    }
    command
}

/// A process of that user, started by these words of `unshare`.
fn owned(words: &str) -> (Helper, i32) {
    let mut command = Command::new("unshare");
    command.args(words.split_whitespace()).args(["sleep", "600"]).stdin(Stdio::null());
    let child = Helper(as_owner(command).spawn().unwrap());
    let pid = i32::try_from(child.0.id()).unwrap();
    eventually("process starts", SOON, || {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.starts_with(b"sleep\0"))
    });
    (child, pid)
}

#[test]
fn the_user_namespace_is_found_from_the_network_namespace() {
    // [CLI-10] [COMPAT-15] by the file of the network namespace alone, and by a process that has
    // gone on into a user namespace of its own since, as sandboxes do
    Lab::run(|lab| {
        let server = listen(&lab.remote, at(REMOTE4, 7000));
        let flat = "--user --map-root-user --net";
        let deep = "--user --map-root-user --net unshare --user --map-root-user";
        for (words, by_path) in [(flat, false), (flat, true), (deep, false), (deep, true)] {
            let (_child, pid) = owned(words);
            let target =
                if by_path { format!("--netns /proc/{pid}/ns/net") } else { format!("-- {pid}") };
            let line = format!("-f -q --config-net -t none -u none -T none -U none {target}");
            let mut pasta = lab.foreground(as_owner(lab.command(&line)));
            let ns = Ns::of_pid(pid);
            eventually("the interface is there", SOON, || {
                assert!(pasta.alive(), "{words} {target}");
                let out = output_within(ns.command("ip").args(["-4", "route"]), SOON).ok();
                out.contains("default via 10.9.0.1")
            });
            roundtrip(&ns, at(REMOTE4, 7000), &server);
        }
    });
}

#[test]
fn no_user_namespace_is_joined_where_none_is_to_be() {
    // [CLI-10] [W-45]
    Lab::run(|lab| {
        let user = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
        let ours = fs::read_link("/proc/self/ns/user").unwrap();
        // A process whose namespaces are ours but for the network.
        let mut command = Command::new("unshare");
        let child = Helper(command.args(["--net", "sleep", "600"]).spawn().unwrap());
        let pid = i32::try_from(child.0.id()).unwrap();
        eventually("process starts", SOON, || {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.starts_with(b"sleep\0"))
        });
        for options in ["", "--netns-only"] {
            let line = format!("-q --config-net {} {options} {pid}", same_user());
            let mut pasta = lab.attach(&line);
            assert_eq!(user(pasta.pid), ours, "{options}");
            assert!(Link::of(&Ns::of_pid(pid), "up0").up);
            pasta.signal(Signal::SIGTERM);
            pasta.wait(SOON);
        }
        drop(child);
        // Where it would be needed, it is an error.
        let (_child, pid) = owned("--user --map-root-user --net");
        let line = format!("-q --config-net --netns-only --netns /proc/{pid}/ns/net");
        let mut command = as_owner(lab.command(&line));
        if unprivileged() {
            // Whoever owns the namespace in the end may enter it.
            output_within(&mut command, SOON).ok();
        } else {
            let out = output_within(&mut command, SOON);
            assert_eq!(out.status.code(), Some(1), "{out:?}");
            assert!(out.stderr.contains("cannot join network namespace"), "{out:?}");
        }
    });
}

#[test]
fn a_directory_that_may_not_be_read_is_asked() {
    // [COMPAT-48] [LIFE-11] a policy may deny what the mode does here
    Lab::run(|lab| {
        let dir = lab.dir().join("closed");
        fs::create_dir(&dir).unwrap();
        let file = dir.join("ns");
        fs::write(&file, "").unwrap();
        ip("netns add one");
        let none = None::<&str>;
        let bind = nix::mount::MsFlags::MS_BIND;
        nix::mount::mount(Some("/run/netns/one"), &file, none, bind, none).unwrap();
        for path in [lab.dir(), &dir] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o311)).unwrap();
        }
        let mut command = Command::new("setpriv");
        command.arg("--bounding-set=-dac_override,-dac_read_search");
        command.arg(crate::lab::pasta_path()).args(["-f", "-q", "--config-net", "--netns"]);
        command.arg(&file);
        let mut pasta = lab.foreground(command);
        let ns = Ns::open("/run/netns/one");
        eventually("the interface is there", SOON, || {
            assert!(pasta.alive());
            let out = output_within(ns.command("ip").args(["-4", "route"]), SOON).ok();
            out.contains("default via 10.9.0.1")
        });
        nix::mount::umount2(&file, nix::mount::MntFlags::MNT_DETACH).unwrap();
        fs::remove_file(&file).unwrap();
        assert_eq!(pasta.wait(Duration::from_secs(3)).code(), Some(0));
    });
}

#[test]
fn stays_when_told_to() {
    // [LIFE-11] --no-netns-quit
    Lab::run(|lab| {
        let _ns = lab.new_netns("one");
        let mut pasta = lab.attach("--config-net --no-netns-quit --netns one");
        ip("netns del one");
        std::thread::sleep(Duration::from_millis(1500));
        assert!(pasta.alive());
        pasta.signal(Signal::SIGTERM);
        assert_eq!(pasta.wait(SOON).code(), Some(0));
    });
}

#[test]
fn termination_in_the_background_gives_0() {
    // [LIFE-6] [COMPAT-73]
    Lab::run(|lab| {
        let _ns = lab.new_netns("one");
        for signal in [Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGINT, Signal::SIGHUP] {
            let mut pasta = lab.attach("--config-net --netns one");
            let ((), took) = timed(|| {
                pasta.signal(signal);
                assert_eq!(pasta.wait(SOON).code(), Some(0), "{signal}");
            });
            assert!(took < Duration::from_millis(500), "{signal}: {took:?}");
        }
    });
}

#[test]
fn runs_as_the_user_it_is_told_to() {
    // [SANDBOX-5] [CLI table --runas]
    Lab::run(|lab| {
        let _ns = lab.new_netns("one");
        // In a user namespace there is nobody else to become.
        let (runas, ids) =
            if unprivileged() { ("0:0", ["0", "0"]) } else { ("12345:12346", ["12345", "12346"]) };
        let mut pasta = lab.attach(&format!("--config-net --netns one --runas {runas}"));
        let status = fs::read_to_string(format!("/proc/{}/status", pasta.pid)).unwrap();
        for (key, id) in ["Uid:", "Gid:"].into_iter().zip(ids) {
            let line = status.lines().find(|l| l.starts_with(key)).unwrap();
            assert!(line.split_whitespace().skip(1).all(|i| i == id), "{line}");
        }
        pasta.signal(Signal::SIGTERM);
        assert_eq!(pasta.wait(SOON).code(), Some(0));
    });
}

#[test]
fn pid_file_is_private_complete_and_replaces_what_was_there() {
    // [LIFE-3] [COMPAT-39]
    Lab::run(|lab| {
        let _ns = lab.new_netns("one");
        let file = lab.dir().join("pasta.pid");
        fs::write(&file, "something much longer than a process number\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let mut command = lab.command("--config-net --netns one --pid");
        output_within(command.arg(&file), SOON).ok();
        let text = fs::read_to_string(&file).unwrap();
        let pid: i32 = text.strip_suffix('\n').expect("a line").parse().expect("a number");
        assert_eq!(fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim_end(), "pasta");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

        let fresh = lab.fresh("pid");
        let _two = lab.new_netns("two");
        let mut command = lab.command("--config-net --netns two --pid");
        output_within(command.arg(&fresh), SOON).ok();
        assert_eq!(fs::metadata(&fresh).unwrap().permissions().mode() & 0o777, 0o600);
    });
}

#[test]
fn background_process_holds_nothing_of_its_caller() {
    // [LIFE-4] [COMPAT-29] [COMPAT-35]: a reader of our output sees its end as soon as the parent
    // exits, and stray descriptors are closed.
    Lab::run(|lab| {
        let _ns = lab.new_netns("one");
        let pid_file = lab.fresh("pid");
        let line = format!(
            "exec 9</dev/null 50</dev/null; \"$0\" --config-net --netns one --pid {} 2>&1 | cat",
            pid_file.display()
        );
        let mut command = Command::new("bash");
        output_within(command.args(["-c", &line]).arg(crate::lab::pasta_path()), SOON).ok();
        let pid = fs::read_to_string(&pid_file).unwrap();
        for fd in [0, 1, 2] {
            let link = fs::read_link(format!("/proc/{}/fd/{fd}", pid.trim()));
            assert_eq!(link.unwrap().to_str(), Some("/dev/null"), "descriptor {fd}");
        }
        for fd in [9, 50] {
            let link = fs::read_link(format!("/proc/{}/fd/{fd}", pid.trim()));
            assert_ne!(
                link.ok().and_then(|l| l.to_str().map(str::to_owned)).as_deref(),
                Some("/dev/null")
            );
        }
    });
}

#[test]
fn twenty_restarts_in_the_same_place() {
    // [COMPAT-22] [COMPAT-73]: ports and names are free again at once.
    Lab::run(|lab| {
        for round in 0..20 {
            let _ns = lab.new_netns("one");
            let mut pasta = lab.attach("--config-net -t 8080 -u 8080 --netns one");
            pasta.signal(if round % 2 == 0 { Signal::SIGKILL } else { Signal::SIGTERM });
            pasta.wait(SOON);
            ip("netns del one");
        }
    });
}

#[test]
fn attached_namespace_reaches_the_host() {
    // [COMPAT-28] traffic flows right after readiness
    Lab::run(|lab| {
        let ns = lab.new_netns("one");
        let _pasta = lab.attach("--config-net --netns one -t none -u none -T none -U none");
        let server = crate::net::listen(&lab.host(), (std::net::Ipv4Addr::LOCALHOST, 7000).into());
        crate::net::roundtrip(&ns, crate::lab::at(GATEWAY4, 7000), &server);
    });
}
