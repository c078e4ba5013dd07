//! Processes, namespaces and the sandbox, against the real kernel.
//!
//! Every case runs in a forked child: it has a single thread, as the program has, and what it does
//! to itself ends with it. The cases work, and prove something, as root and as any other user.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::sys::signal::{SigHandler, SigSet, Signal, kill, signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, geteuid, getpid, pipe2};
use passt::config::{Mode, RunAs, Verbosity};
use passt::sys::sandbox::{Fallback, Run};
use passt::sys::seccomp::Allow;
use passt::sys::signals::{Inherited, Signals};
use passt::sys::spawn::{Child, Program, Waiting};
use passt::sys::watch::NetnsWatch;
use passt::sys::{
    background, caps, fds, ids, logsink, netns, pidfile, sandbox, seccomp, signals, spawn, userns,
};

// --- The stage ---------------------------------------------------------------------------------

/// A child running a case.
struct Case {
    pid: Pid,
    output: File,
    hold: Option<OwnedFd>,
    ended: bool,
}

/// A test that fails leaves nothing running.
impl Drop for Case {
    fn drop(&mut self) {
        if !self.ended {
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = waitpid(self.pid, None);
        }
    }
}

/// One test at a time: a child forked by one would keep open the pipes of the others.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Forks a case. `f` gets a way to report and the read end of a pipe that closes when the parent
/// lets it go.
fn start(f: impl FnOnce(&mut File, File)) -> Case {
    let (output, report) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let (held, hold) = pipe2(OFlag::O_CLOEXEC).unwrap();
    // SAFETY: the child uses nothing that another thread might have locked, and does not return.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => {
            Case { pid: child, output: File::from(output), hold: Some(hold), ended: false }
        }
        ForkResult::Child => {
            drop(output);
            drop(hold);
            let mut report = File::from(report);
            let result = catch_unwind(AssertUnwindSafe(|| f(&mut report, File::from(held))));
            let code = match result {
                Ok(()) => 0,
                Err(panic) => {
                    let text = panic.downcast_ref::<String>().cloned();
                    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()));
                    let _ = write!(report, "panic: {}", text.unwrap_or_default());
                    101
                }
            };
            // SAFETY: the exit handlers are the parent's.
            unsafe { libc::_exit(code) }
        }
    }
}

impl Case {
    /// Lets it go on, and waits for its end.
    fn end(mut self) -> (WaitStatus, String) {
        self.hold = None;
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        self.ended = true;
        (waitpid(self.pid, None).unwrap(), text)
    }

    /// What it has reported up to a newline.
    fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while self.output.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }

    fn status(&self, field: &str) -> String {
        status_field(&format!("/proc/{}/status", self.pid), field)
    }
}

fn status_field(path: &str, field: &str) -> String {
    let text = fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {field} in {text}")).trim().to_owned()
}

/// Runs a case to its successful end; what it reported.
fn run(f: impl FnOnce(&mut File)) -> String {
    let (status, text) = start(|report, _| f(report)).end();
    assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}: {text}");
    text
}

/// Runs a case that is expected to die.
fn run_to_death(f: impl FnOnce()) -> WaitStatus {
    let case = start(|_, _| f());
    let (status, text) = case.end();
    assert_eq!(text, "");
    status
}

/// A directory for a test, that everybody may use, since root becomes somebody else.
fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("passt-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
    dir
}

fn argv(args: &[&str]) -> Vec<OsString> {
    args.iter().map(Into::into).collect()
}

fn eventually(what: &str, mut f: impl FnMut() -> bool) {
    let start = Instant::now();
    while !f() {
        assert!(start.elapsed() < Duration::from_secs(20), "timeout: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Everything up to a waiting command, as the program does it.
fn prepare(program: &Program, inherited: &Inherited) -> Waiting {
    signals::ignore_sigpipe();
    fds::raise_nofile();
    caps::reduce_initial().unwrap();
    let ids = ids::resolve(None).unwrap();
    ids.switch().unwrap();
    userns::create(Some(ids)).unwrap();
    spawn::prepare(program, None, inherited).unwrap()
}

fn wait(mut child: Child) -> u8 {
    let mut status = None;
    eventually("the command ends", || {
        status = child.try_wait();
        status.is_some()
    });
    status.unwrap()
}

/// Runs a shell command in the program's way; its status and what it wrote to standard output.
fn shell(name: &str, before: impl FnOnce(), command: &str) -> (u8, String) {
    let dir = scratch(name);
    let text = run(|report| {
        before();
        let inherited = Inherited::record();
        let _signals = Signals::listen(false).unwrap();
        let out = File::create(dir.join("out")).unwrap();
        nix::unistd::dup2_stdout(&out).unwrap();
        let program = Program::find(&argv(&["sh", "-c", command])).unwrap();
        let status = wait(prepare(&program, &inherited).release().unwrap());
        write!(report, "{status}").unwrap();
    });
    let output = fs::read_to_string(dir.join("out")).unwrap();
    fs::remove_dir_all(&dir).unwrap();
    (text.parse().unwrap(), output)
}

/// Identity of a namespace of ours, by way of `/proc` opened earlier.
fn namespace(proc: &File, kind: &str) -> String {
    let link = nix::fcntl::readlinkat(proc, format!("self/ns/{kind}").as_str()).unwrap();
    link.into_string().unwrap()
}

// --- Descriptors and signals -------------------------------------------------------------------

// [LIFE-4] [LIFE-5] [TCP-97]
#[test]
fn inherited_descriptors_are_closed_and_the_standard_ones_filled() {
    let _turn = turn();
    for closed in 0..8 {
        let status = run_to_death(|| {
            let (_leaked, _ends) = pipe2(OFlag::empty()).unwrap();
            for fd in 0..3 {
                if closed & (1 << fd) != 0 {
                    // SAFETY: the case prints nothing.
                    unsafe { libc::close(fd) };
                }
            }
            fds::sanitize(None).unwrap();
            let open = |fd| {
                // SAFETY: only asks.
                unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
            };
            let good = (0..3).all(open) && !(3..1024).any(open);
            // SAFETY: the reporting pipe is gone, the status must do.
            unsafe { libc::_exit(if good { 42 } else { 1 }) };
        });
        assert!(matches!(status, WaitStatus::Exited(_, 42)), "closed {closed:03b}: {status:?}");
    }
}

// [W-4] [LIFE-8] [HAZ-1]
#[test]
fn a_command_finds_the_signals_and_limits_of_our_caller() {
    let _turn = turn();
    let limit = || {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 123, hard).unwrap();
        SigSet::empty().thread_set_mask().unwrap();
    };
    let (status, output) =
        shell("signals", limit, "grep -E '^Sig(Blk|Ign):' /proc/self/status; ulimit -n");
    assert_eq!(status, 0, "{output}");
    assert!(output.contains("SigBlk:\t0000000000000000\n"), "{output}");
    let ignored = output.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    let ignored = u64::from_str_radix(ignored, 16).unwrap();
    let expected = u64::from(std::env::var_os(SIGPIPE_IGNORED).is_some()) << 12;
    assert_eq!(ignored & 0x1000, expected, "{output}");
    assert!(output.ends_with("123\n"), "{output}");
}

const SIGPIPE_IGNORED: &str = "ISOLATION_TEST_SIGPIPE_IGNORED";

// [W-4] [HAZ-1]
#[test]
fn a_caller_that_ignores_sigpipe_is_respected() {
    let _turn = turn();
    let this = std::env::current_exe().unwrap();
    let status = std::process::Command::new("sh")
        .args(["-c", "trap '' PIPE; exec \"$0\" --exact \"$1\""])
        .arg(this)
        .arg("a_command_finds_the_signals_and_limits_of_our_caller")
        .env(SIGPIPE_IGNORED, "1")
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}

// [LIFE-6] [W-26]
#[test]
fn ending_signals_are_read_from_a_descriptor() {
    let _turn = turn();
    run(|_| {
        let mut signals = Signals::listen(true).unwrap();
        assert_eq!(signals.next_signal(), None);
        for signal in [Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGINT, Signal::SIGHUP] {
            kill(getpid(), signal).unwrap();
            assert_eq!(signals.next_signal(), Some(signal as i32));
        }
        assert_eq!(signals.next_signal(), None);
    });
    // In the foreground a hangup ends us in the usual way: a shell shows 129.
    let status = run_to_death(|| {
        // nohup would have it ignored.
        // SAFETY: no handler function is installed.
        unsafe { signal(Signal::SIGHUP, SigHandler::SigDfl) }.unwrap();
        let _signals = Signals::listen(false).unwrap();
        kill(getpid(), Signal::SIGHUP).unwrap();
    });
    assert!(matches!(status, WaitStatus::Signaled(_, Signal::SIGHUP, _)), "{status:?}");
}

// --- Users and user namespaces -----------------------------------------------------------------

// [SANDBOX-5]
#[test]
fn root_of_the_machine_becomes_nobody_and_others_stay() {
    let _turn = turn();
    let ids = ids::resolve(None).unwrap();
    if geteuid().is_root() && userns::is_initial() {
        assert_eq!((ids.uid, ids.gid), (65534, 65534));
    } else {
        assert_eq!(ids.uid, geteuid().as_raw());
    }
    let asked = ids::resolve(Some(RunAs { uid: 7, gid: 8 })).unwrap();
    assert_eq!((asked.uid, asked.gid), (7, 8));
    run(|_| {
        if geteuid().is_root() && userns::is_initial() {
            asked.switch().unwrap();
            assert_eq!(geteuid().as_raw(), 7);
            let text = fs::read_to_string("/proc/self/status").unwrap();
            assert!(text.contains("Groups:\t \n"), "{text}");
        } else {
            let error = asked.switch().unwrap_err().to_string();
            // Root of a container has no such user.
            let reason =
                if geteuid().is_root() { "Invalid argument" } else { "Operation not permitted" };
            assert_eq!(error, format!("cannot switch to user 7 and group 8: {reason}"));
        }
    });
}

// [SANDBOX-1] [SANDBOX-3]
#[test]
fn capabilities_shrink_step_by_step() {
    let _turn = turn();
    run(|_| {
        let own =
            |field| u64::from_str_radix(&status_field("/proc/self/status", field), 16).unwrap();
        caps::reduce_initial().unwrap();
        // BIND_SERVICE, SETUID, SETGID, SETPCAP, SYS_ADMIN, NET_ADMIN, DAC_OVERRIDE, SYS_CHROOT,
        // SETFCAP, SYS_PTRACE
        let initial = 1 << 10 | 1 << 7 | 1 << 6 | 1 << 8 | 1 << 21 | 1 << 12 | 1 << 1 | 1 << 18;
        let initial = initial | 1 << 31 | 1 << 19;
        assert_eq!(own("CapEff") & !initial, 0);
        assert_eq!(own("CapPrm") & !initial, 0);
        if geteuid().is_root() && userns::is_initial() {
            ids::Ids { uid: 65534, gid: 65534 }.switch().unwrap();
            let setup = 1 << 10 | 1 << 8 | 1 << 21 | 1 << 12 | 1 << 19 | 1 << 18;
            assert_eq!(own("CapPrm") & !setup, 0);
            assert_eq!(own("CapEff"), own("CapPrm"));
        }
        caps::drop_all().unwrap();
        assert_eq!((own("CapEff"), own("CapPrm"), own("CapInh"), own("CapAmb")), (0, 0, 0, 0));
    });
}

// [NS-3] [W-27]
#[test]
fn a_command_is_root_in_its_namespaces_whoever_started_us() {
    let _turn = turn();
    let ids = ids::resolve(None).unwrap();
    let script = "cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; id -u; \
                  cat /proc/1/comm /proc/sys/net/ipv4/ping_group_range; hostname; \
                  grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status";
    let (status, output) = shell("root", || {}, script);
    let words = output.split_whitespace().collect::<Vec<_>>().join(" ");
    let (uid, gid) = (ids.uid, ids.gid);
    let expected = format!("0 {uid} 1 0 {gid} 1 deny 0 sh 0 0 pasta-");
    assert!(words.starts_with(&expected), "{words}");
    assert_eq!(status, 0);
    // [NS-6]
    assert!(words.ends_with("NoNewPrivs: 0 Seccomp: 0"), "{words}");
    let caps = words.split("CapEff: ").nth(1).unwrap().split(' ').next().unwrap();
    let caps = u64::from_str_radix(caps, 16).unwrap();
    assert_eq!(caps & 0x1f_ffff_ffff, 0x1f_ffff_ffff, "{words}");
}

// [SANDBOX-3]
#[test]
fn without_a_map_nobody_is_mapped() {
    let _turn = turn();
    run(|_| {
        ids::resolve(None).unwrap().switch().unwrap();
        let before = fs::metadata("/proc/self/ns/user").unwrap().ino();
        userns::create(None).unwrap();
        assert_ne!(fs::metadata("/proc/self/ns/user").unwrap().ino(), before);
        assert_eq!(fs::read_to_string("/proc/self/uid_map").unwrap(), "");
        assert!(!userns::is_initial());
    });
}

// [W-45]
#[test]
fn ones_own_user_namespace_is_already_joined() {
    let _turn = turn();
    run(|_| {
        let own = Path::new("/proc/self/ns/user");
        assert_eq!(userns::join(own).unwrap(), userns::Joined::Already);
        let pid = i32::try_from(std::process::id()).unwrap();
        assert_eq!(userns::join_pid(pid).unwrap(), userns::Joined::Already);
        let error = userns::join(Path::new("/proc/self/ns/net")).unwrap_err().to_string();
        assert_eq!(error, "/proc/self/ns/net is not a user namespace");
        let error = userns::join(Path::new("/nope")).unwrap_err().to_string();
        assert_eq!(error, "cannot open user namespace /nope: No such file or directory");
    });
}

// [NS-2] [CLI-10]
#[test]
fn another_process_is_joined_by_its_number() {
    let _turn = turn();
    let mut target = start(|report, mut held| {
        let ids = ids::resolve(None).unwrap();
        ids.switch().unwrap();
        userns::create(Some(ids)).unwrap();
        nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let user = fs::metadata("/proc/self/ns/user").unwrap().ino();
        let net = fs::metadata("/proc/self/ns/net").unwrap().ino();
        writeln!(report, "{user} {net}").unwrap();
        held.read_to_end(&mut Vec::new()).unwrap();
    });
    let expected = target.line();
    let pid = target.pid.as_raw();
    let found = run(|report| {
        caps::reduce_initial().unwrap();
        // Root becomes nobody, and must still be able to join.
        ids::resolve(None).unwrap().switch().unwrap();
        let outside = fs::metadata("/proc/self/ns/net").unwrap().ino();
        assert_eq!(userns::join_pid(pid).unwrap(), userns::Joined::Moved);
        let netns = netns::open_pid(pid).unwrap();
        let net = netns::run_in(netns.as_fd(), || {
            fs::metadata("/proc/thread-self/ns/net").unwrap().ino()
        });
        assert_eq!(fs::metadata("/proc/self/ns/net").unwrap().ino(), outside);
        let user = fs::metadata("/proc/self/ns/user").unwrap().ino();
        write!(report, "{user} {}", net.unwrap()).unwrap();
    });
    assert_eq!(found, expected);
    target.end();
}

#[test]
fn a_refused_user_namespace_names_the_cause() {
    let _turn = turn();
    run(|_| {
        let ids = ids::resolve(None).unwrap();
        ids.switch().unwrap();
        userns::create(Some(ids)).unwrap();
        fs::write("/proc/sys/user/max_user_namespaces", "0").unwrap();
        let error = userns::create(None).unwrap_err().to_string();
        assert_eq!(
            error,
            "cannot create a user namespace: No space left on device \
             (sysctl user.max_user_namespaces is 0; or see --landlock-fallback)"
        );
    });
}

// --- Network namespaces ------------------------------------------------------------------------

// [NS-2] [CLI-10]
#[test]
fn a_bad_network_namespace_is_named_with_the_reason() {
    let _turn = turn();
    let text = |path: &str| netns::open_path(Path::new(path)).unwrap_err().to_string();
    assert_eq!(
        text("/run/netns/nope"),
        "cannot open network namespace /run/netns/nope: No such file or directory"
    );
    assert_eq!(text("/etc/passwd"), "/etc/passwd is not a network namespace");
    assert_eq!(text("/proc/self/ns/user"), "/proc/self/ns/user is not a network namespace");
    let gone = i32::MAX;
    assert_eq!(
        netns::open_pid(gone).unwrap_err().to_string(),
        format!("process {gone} does not exist")
    );
    run(|_| {
        caps::drop_all().unwrap();
        let error = netns::open_path(Path::new("/proc/self/ns/net")).unwrap_err().to_string();
        assert_eq!(
            error,
            "cannot join network namespace /proc/self/ns/net: Operation not permitted"
        );
    });
}

// [NS-1] [HAZ-4]
#[test]
fn work_in_a_namespace_leaves_a_single_thread_behind() {
    let _turn = turn();
    run(|_| {
        let ids = ids::resolve(None).unwrap();
        ids.switch().unwrap();
        userns::create(Some(ids)).unwrap();
        let netns = File::open("/proc/self/ns/net").unwrap();
        nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let inside = File::open("/proc/self/ns/net").unwrap();
        drop(netns);
        for _ in 0..20 {
            // A user namespace can only be created with one thread.
            netns::run_in(inside.as_fd(), || ()).unwrap();
            assert_eq!(fs::read_dir("/proc/self/task").unwrap().count(), 1);
        }
        userns::create(None).unwrap();
    });
}

// --- The command -------------------------------------------------------------------------------

// [CLI-12] [LIFE-9]
#[test]
fn the_status_of_a_command_is_ours() {
    let _turn = turn();
    assert_eq!(shell("status0", || {}, "exit 0").0, 0);
    assert_eq!(shell("status3", || {}, "exit 3").0, 3);
    let text = run(|report| {
        let program = Program::find(&argv(&["sleep", "100"])).unwrap();
        let mut child = prepare(&program, &Inherited::record()).release().unwrap();
        assert_eq!(child.try_wait(), None);
        kill(Pid::from_raw(child.pid()), Signal::SIGKILL).unwrap();
        write!(report, "{}", wait(child)).unwrap();
    });
    assert_eq!(text, "137");
}

// [CLI-12]
#[test]
fn a_command_that_cannot_be_executed_says_so() {
    let _turn = turn();
    let dir = scratch("exec");
    let script = dir.join("script");
    fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let text = run(|report| {
        let err = File::create(dir.join("err")).unwrap();
        nix::unistd::dup2_stderr(&err).unwrap();
        let program = Program::find(&[script.clone().into()]).unwrap();
        let child = prepare(&program, &Inherited::record()).release().unwrap();
        write!(report, "{}", wait(child)).unwrap();
    });
    assert_eq!(text, "1");
    let err = fs::read_to_string(dir.join("err")).unwrap();
    assert_eq!(err, format!("cannot execute {}: No such file or directory\n", script.display()));
    fs::remove_dir_all(&dir).unwrap();
}

// [NS-5]
#[test]
fn a_shell_is_a_login_shell() {
    let _turn = turn();
    let dir = scratch("login");
    run(|_| {
        let out = File::create(dir.join("out")).unwrap();
        nix::unistd::dup2_stdout(&out).unwrap();
        nix::unistd::dup2_stdin(File::open("/dev/null").unwrap()).unwrap();
        let shell = dir.join("shell");
        std::os::unix::fs::symlink("/bin/cat", &shell).unwrap();
        // SAFETY: one thread. `cat` with no arguments reads the empty input; its name is looked at
        // from outside meanwhile.
        unsafe { std::env::set_var("SHELL", &shell) };
        let program = Program::shell().unwrap();
        let (input, keep) = pipe2(OFlag::empty()).unwrap();
        nix::unistd::dup2_stdin(&input).unwrap();
        drop(input);
        nix::fcntl::fcntl(&keep, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))
            .unwrap();
        let child = prepare(&program, &Inherited::record()).release().unwrap();
        let cmdline = format!("/proc/{}/cmdline", child.pid());
        let expected = format!("-{}\0", shell.display());
        eventually("argv[0] has a dash", || fs::read_to_string(&cmdline).unwrap() == expected);
        drop(keep);
        assert_eq!(wait(child), 0);
        // SAFETY: one thread.
        unsafe { std::env::set_var("SHELL", "x".repeat(5000)) };
        assert_eq!(Program::shell().unwrap_err().to_string(), "$SHELL is too long");
    });
    fs::remove_dir_all(&dir).unwrap();
}

// [LIFE-8]
#[test]
fn a_command_waits_until_it_is_released_and_gets_no_descriptor_of_ours() {
    let _turn = turn();
    let dir = scratch("go");
    let out = dir.join("out");
    run(|_| {
        nix::unistd::dup2_stdout(File::create(&out).unwrap()).unwrap();
        let _leak = pipe2(OFlag::empty()).unwrap(); // not close-on-exec: sanitized in real life
        let program = Program::find(&argv(&["sh", "-c", "echo started"])).unwrap();
        let waiting = prepare(&program, &Inherited::record());
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(fs::read_to_string(&out).unwrap(), "");
        assert!(waiting.netns().as_raw_fd() > 2);
        assert_eq!(wait(waiting.release().unwrap()), 0);
        assert_eq!(fs::read_to_string(&out).unwrap(), "started\n");
    });
    fs::remove_dir_all(&dir).unwrap();
    // Not even what a test has inherited, and what `fds::sanitize` would have closed.
    let (status, listing) = shell("fds", || {}, "ls /proc/self/fd | wc -l");
    assert_eq!((status, listing.trim()), (0, "4")); // 0, 1, 2 and the directory
}

// [W-14] [LIFE-8]
#[test]
fn nothing_is_left_of_a_start_that_fails() {
    let _turn = turn();
    for attempt in 0..30 {
        let text = run(|report| {
            let program = Program::find(&argv(&["sleep", "1000"])).unwrap();
            let waiting = prepare(&program, &Inherited::record());
            if attempt % 2 == 0 {
                drop(waiting);
                let left = nix::sys::wait::wait();
                assert_eq!(left, Err(Errno::ECHILD));
            } else {
                write!(report, "{}", waiting.pid()).unwrap();
                // SAFETY: dies as by a signal: nothing is dropped.
                unsafe { libc::_exit(0) };
            }
        });
        if attempt % 2 == 1 {
            let stat = format!("/proc/{text}/stat");
            eventually("the waiting child ends", || {
                // A zombie is as good as gone: whoever inherits it has to collect it.
                fs::read_to_string(&stat).map_or(true, |text| text.contains(") Z"))
            });
        }
    }
}

// [W-14] [SANDBOX-10] The same once the system call filter is there.
#[test]
fn a_start_that_fails_late_ends_the_waiting_command() {
    let _turn = turn();
    run(|_| {
        let program = Program::find(&argv(&["sleep", "1000"])).unwrap();
        let waiting = prepare(&program, &Inherited::record());
        sandbox::isolate(Run::Foreground, Fallback::default()).unwrap();
        sandbox::seal(Allow { namespace: true, ..Allow::default() }).unwrap();
        drop(waiting);
        let all = nix::sys::wait::Id::All;
        assert_eq!(
            nix::sys::wait::waitid(all, nix::sys::wait::WaitPidFlag::WEXITED),
            Err(Errno::ECHILD)
        );
    });
}

// [NS-4] With --netns-only the user namespace is that of the outside, and mounts would propagate.
#[test]
fn mounts_of_a_command_are_not_seen_outside() {
    let _turn = turn();
    run(|_| {
        let ids = ids::resolve(None).unwrap();
        ids.switch().unwrap();
        userns::create(Some(ids)).unwrap();
        nix::sched::unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none: Option<&str> = None;
        let shared = nix::mount::MsFlags::MS_SHARED | nix::mount::MsFlags::MS_REC;
        nix::mount::mount(none, "/", none, shared, none).unwrap();
        let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let program = Program::find(&argv(&["true"])).unwrap();
        let waiting = spawn::prepare(&program, None, &Inherited::record()).unwrap();
        assert_eq!(wait(waiting.release().unwrap()), 0);
        assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    });
}

// --- The sandbox -------------------------------------------------------------------------------

/// Up to and with the sandbox, as `passt` does it.
fn isolate(run: Run) {
    caps::reduce_initial().unwrap();
    ids::resolve(None).unwrap().switch().unwrap();
    userns::create(None).unwrap();
    caps::reduce_for_setup(Fallback::default()).unwrap();
    sandbox::isolate(run, Fallback::default()).unwrap();
}

// [SANDBOX-7]
#[test]
fn the_root_is_empty_and_the_namespaces_are_our_own() {
    let _turn = turn();
    for kind in [Run::Foreground, Run::Background] {
        run(|_| {
            let proc = File::open("/proc").unwrap();
            let kinds = ["mnt", "ipc", "uts", "net", "pid_for_children"];
            let before: Vec<_> = kinds.iter().map(|kind| namespace(&proc, kind)).collect();
            isolate(kind);
            assert_eq!(fs::read_dir("/").unwrap().count(), 0);
            assert_eq!(fs::read_dir(".").unwrap().count(), 0);
            assert_eq!(fs::read_dir("..").unwrap().count(), 0);
            assert!(File::create("/x").is_err());
            assert!(fs::create_dir("/x").is_err());
            if kind == Run::Background {
                return; // in the new PID namespace there is no process yet, not even us
            }
            for (kind, before) in kinds.iter().zip(&before) {
                let same = matches!(*kind, "net" | "pid_for_children");
                assert_eq!(namespace(&proc, kind) == *before, same, "{kind}");
            }
        });
    }
}

// [SANDBOX-9] [SANDBOX-10] [W-2]
#[test]
fn the_running_process_has_no_capability_and_is_filtered() {
    let _turn = turn();
    let mut case = start(|report, mut held| {
        isolate(Run::Foreground);
        sandbox::seal(Allow::default()).unwrap();
        writeln!(report, "sealed").unwrap();
        // One call, at its end: `read_to_end` asks for the size first, which is not allowed.
        assert_eq!(held.read(&mut [0]).unwrap(), 0);
    });
    assert_eq!(case.line(), "sealed");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(case.status(set), "0000000000000000", "{set}");
    }
    assert_eq!(case.status("NoNewPrivs"), "1");
    assert_eq!(case.status("Seccomp"), "2");
    if !geteuid().is_root() {
        let memory = File::open(format!("/proc/{}/mem", case.pid));
        assert_eq!(memory.unwrap_err().raw_os_error(), Some(libc::EACCES)); // not dumpable
    }
    let (status, text) = case.end();
    assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?} {text}");
}

/// A number of a forbidden call, and its arguments.
type Call = (&'static str, libc::c_long, [libc::c_long; 3]);

// [SANDBOX-11]
#[test]
fn a_forbidden_call_kills() {
    let _turn = turn();
    let word = |value: i32| libc::c_long::from(value);
    let forbidden: [Call; 12] = [
        ("openat", libc::SYS_openat, [word(libc::AT_FDCWD), 0, 0]),
        ("execve", libc::SYS_execve, [0, 0, 0]),
        ("clone", libc::SYS_clone, [word(libc::SIGCHLD), 0, 0]),
        ("ptrace", libc::SYS_ptrace, [0, 0, 0]),
        ("setns", libc::SYS_setns, [0, 0, 0]),
        ("mount", libc::SYS_mount, [0, 0, 0]),
        ("faccessat", libc::SYS_faccessat, [0, 0, 0]),
        ("socket(AF_UNIX)", libc::SYS_socket, [word(libc::AF_UNIX), word(libc::SOCK_DGRAM), 0]),
        ("socket(AF_NETLINK)", libc::SYS_socket, [word(libc::AF_NETLINK), 3, 0]),
        ("fcntl(F_SETOWN)", libc::SYS_fcntl, [0, word(libc::F_SETOWN), 1]),
        ("mmap(PROT_EXEC)", libc::SYS_mmap, [0, 4096, word(libc::PROT_READ | libc::PROT_EXEC)]),
        ("tgkill(1)", libc::SYS_tgkill, [1, 1, 0]),
    ];
    for (name, number, [a, b, c]) in forbidden {
        let status = run_to_death(|| {
            seccomp::Filter::compile(Allow::default()).unwrap().install().unwrap();
            // SAFETY: not executed: the process is killed instead, which is what we test.
            unsafe { libc::syscall(number, a, b, c) };
        });
        assert!(matches!(status, WaitStatus::Signaled(_, Signal::SIGSYS, _)), "{name}: {status:?}");
    }
}

// [SANDBOX-11] [HAZ-2] [LOG-9]
#[test]
fn what_the_loop_does_is_allowed() {
    let _turn = turn();
    use std::net::{TcpListener, TcpStream, UdpSocket};
    let (status, text) = start(|report, _| {
        sandbox::seal(Allow { faccessat: true, namespace: true, files: true }).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.set_nodelay(true).unwrap();
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
        client.shutdown(std::net::Shutdown::Both).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.send_to(b"x", udp.local_addr().unwrap()).unwrap();
        udp.recv(&mut [0]).unwrap();
        UdpSocket::bind("[::1]:0").map(drop).unwrap_or_default(); // may be disabled
        let (from, to) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).unwrap();
        nix::fcntl::fcntl(&to, nix::fcntl::FcntlArg::F_SETPIPE_SZ(65536)).unwrap();
        drop((from, to));
        // The allocator, small and large; hash tables; time.
        let blocks: Vec<Vec<u8>> = (0..22).map(|bits| vec![1; 1 << bits]).collect();
        assert_eq!(blocks.len(), 22);
        let map: std::collections::HashMap<u8, Instant> = [(1, Instant::now())].into();
        assert_eq!(map.len(), 1);
        // What is said of an error, in the one language of the log.
        write!(report, "fine; {}", nix::errno::Errno::ENOSPC.desc()).unwrap();
        write!(report, "; {}", std::io::Error::from_raw_os_error(libc::EPERM)).unwrap();
        // With exit handlers, as the program does.
        std::process::exit(7);
    })
    .end();
    let said = "fine; No space left on device; Operation not permitted (os error 1)";
    assert_eq!(text, said);
    assert!(matches!(status, WaitStatus::Exited(_, 7)), "{status:?}");
}

// [HAZ-2] An abort must look like one.
#[test]
fn an_abort_is_not_mistaken_for_a_violation() {
    let _turn = turn();
    let status = run_to_death(|| {
        seccomp::Filter::compile(Allow::default()).unwrap().install().unwrap();
        std::process::abort();
    });
    assert!(matches!(status, WaitStatus::Signaled(_, Signal::SIGABRT, _)), "{status:?}");
}

// --- The background ----------------------------------------------------------------------------

/// What a caller sees of a start: status, standard error, PID file if there is one.
fn background(
    name: &str,
    child: impl FnOnce(background::Background),
) -> (i32, String, Option<String>) {
    let dir = scratch(name);
    let (pid_path, err_path) = (dir.join("pid"), dir.join("err"));
    let (status, text) = start(|report, _| {
        nix::unistd::dup2_stderr(File::create(&err_path).unwrap()).unwrap();
        logsink::init();
        logsink::configure(Mode::Passt, Verbosity::Info, false, None);
        let pid_file = pidfile::PidFile::open(&pid_path).unwrap();
        let null = background::Null::open().unwrap();
        isolate(Run::Background);
        let background = background::detach(null, Some(pid_file)).unwrap();
        // The test waits for the end of this pipe, which the background process must not keep.
        // SAFETY: replaces it by /dev/null, under the same number.
        unsafe { libc::dup2(0, report.as_raw_fd()) };
        child(background);
    })
    .end();
    let WaitStatus::Exited(_, status) = status else { panic!("{status:?} {text}") };
    assert_eq!(text, "");
    let pid = fs::read_to_string(&pid_path).ok();
    if pid.is_some() {
        assert_eq!(fs::metadata(&pid_path).unwrap().mode() & 0o777, 0o600);
    }
    let err = fs::read_to_string(err_path).unwrap();
    // Root is told that it becomes nobody, which is not the point here.
    let err =
        err.split_inclusive('\n').filter(|line| !line.starts_with("started as root")).collect();
    let result = (status, err, pid);
    fs::remove_dir_all(&dir).unwrap();
    result
}

// [LIFE-2] [LIFE-3] [W-26]
#[test]
fn the_parent_exits_when_the_child_is_ready() {
    let _turn = turn();
    let (mut seen, tell) = pipe2(OFlag::O_CLOEXEC).map(|(a, b)| (File::from(a), b)).unwrap();
    // The parent's copy must close for the end to be seen; the case takes it along.
    let tell_raw = tell.as_raw_fd();
    let (status, err, pid) = background("ready", |background| {
        // SAFETY: the case's own copy of the descriptor, used once.
        let mut tell = File::from(unsafe { OwnedFd::from_raw_fd(tell_raw) });
        assert_eq!(std::process::id(), 1); // of its PID namespace [SANDBOX-7]
        // SAFETY: takes an integer only.
        assert_eq!(unsafe { libc::getsid(0) }, 1);
        let mut signals = Signals::listen(true).unwrap();
        // That may poll.
        sandbox::seal(Allow { namespace: true, ..Allow::default() }).unwrap();
        background.ready().unwrap();
        let mut fds = [nix::poll::PollFd::new(signals.as_fd(), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, 20_000u16).unwrap();
        write!(tell, "signal {:?}", signals.next_signal()).unwrap();
        // SAFETY: as at the end of every case, which this process has inherited.
        unsafe { libc::_exit(0) };
    });
    drop(tell);
    assert_eq!((status, err.as_str()), (0, ""));
    let pid = pid.expect("a PID file");
    assert!(pid.ends_with('\n'), "{pid:?}");
    let pid: i32 = pid.trim_end().parse().unwrap();
    // Only standard streams on /dev/null besides what the test holds: nobody waits for us.
    if geteuid().is_root() {
        for fd in 0..3 {
            let link = fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap();
            assert_eq!(link, Path::new("/dev/null"));
        }
    }
    kill(Pid::from_raw(pid), Signal::SIGHUP).unwrap();
    let mut text = String::new();
    seen.read_to_string(&mut text).unwrap();
    assert_eq!(text, format!("signal Some({})", libc::SIGHUP));
}

// [LIFE-2]
#[test]
fn the_parent_reports_what_went_wrong_in_the_child() {
    let _turn = turn();
    let (status, err, pid) = background("fail", |background| {
        background.fail(&passt::sys::Error::Other("no luck".into()));
    });
    assert_eq!((status, err.as_str(), pid), (1, "no luck\n", None));
    let (status, err, pid) = background("died", drop);
    let expected = "the background process ended unexpectedly\n";
    assert_eq!((status, err.as_str(), pid), (1, expected, None));
}

// [LIFE-3] Only what we created is removed, and only if it is still that; however we end.
#[test]
fn the_pid_file_goes_with_a_start_that_fails() {
    let _turn = turn();
    let dir = scratch("pidfile");
    let path = dir.join("pid");
    let run = |then: &dyn Fn(pidfile::PidFile)| {
        let case = start(|_, _| then(pidfile::PidFile::open(&path).unwrap()));
        (case.end().1, fs::read_to_string(&path).ok())
    };
    let (text, left) = run(&drop);
    assert_eq!((text.as_str(), left), ("", None));
    run(&|_file| {
        // SAFETY: ends the process.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    });
    // Nobody waits for the process that tidies up then.
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while path.exists() {
        assert!(std::time::Instant::now() < deadline, "the file stays");
        std::thread::sleep(Duration::from_millis(5));
    }
    let (_, left) = run(&|mut file| {
        file.write(7).unwrap();
        file.keep();
    });
    assert_eq!(left.as_deref(), Some("7\n"));
    let (_, left) = run(&drop);
    assert_eq!(left.as_deref(), Some(""), "somebody else's file");
    fs::remove_file(&path).unwrap();
    let (_, left) = run(&|file| {
        fs::rename(&path, dir.join("ours")).unwrap();
        fs::write(&path, "theirs").unwrap();
        drop(file);
    });
    assert_eq!(left.as_deref(), Some("theirs"));
    fs::remove_dir_all(&dir).unwrap();
}

// --- Watching ----------------------------------------------------------------------------------

/// Waits inside the full sandbox until the watch says gone.
fn watch_in_sandbox(watch: impl FnOnce() -> NetnsWatch) -> Case {
    let mut case = start(|report, _| {
        let mut watch = watch();
        assert!(!watch.gone());
        isolate(Run::Foreground);
        sandbox::seal(Allow { faccessat: watch.looks(), namespace: true, files: false }).unwrap();
        writeln!(report, "{}", if watch.interval().is_some() { "ask" } else { "told" }).unwrap();
        while !watch.gone() {
            match watch.fd() {
                Some(fd) => {
                    let mut fds = [nix::poll::PollFd::new(fd, nix::poll::PollFlags::POLLIN)];
                    nix::poll::poll(&mut fds, nix::poll::PollTimeout::NONE).unwrap();
                }
                None => {
                    // Sleeping is not in the filter; polling nothing is.
                    nix::poll::poll(&mut [], 20u8).unwrap();
                }
            }
        }
        assert!(watch.gone(), "must stay gone");
        write!(report, "gone").unwrap();
    });
    let how = case.line();
    assert!(["ask", "told"].contains(&how.as_str()), "{how}");
    case
}

// [LIFE-11]
#[test]
fn the_end_of_a_process_is_noticed() {
    let _turn = turn();
    let by_pid = |pid: i32| NetnsWatch::process(pid).unwrap();
    let by_path = |pid: i32| NetnsWatch::path(Path::new(&format!("/proc/{pid}/ns/net"))).unwrap();
    // A directory that announces nothing.
    let by_asking = |pid: i32| {
        let watch = NetnsWatch::path(Path::new(&format!("/proc/{pid}/comm"))).unwrap();
        assert!(watch.fd().is_none());
        watch
    };
    for how in [&by_pid as &dyn Fn(i32) -> NetnsWatch, &by_path, &by_asking] {
        let target = start(|_, mut held| {
            held.read_to_end(&mut Vec::new()).unwrap();
        });
        let case = watch_in_sandbox(|| how(target.pid.as_raw()));
        kill(target.pid, Signal::SIGKILL).unwrap();
        target.end();
        assert_eq!(case.end().1, "gone");
    }
    let error = NetnsWatch::process(i32::MAX).unwrap_err().to_string();
    assert_eq!(error, format!("process {} does not exist", i32::MAX));
}

// [LIFE-11]
#[test]
fn a_deleted_name_is_noticed_among_others() {
    let _turn = turn();
    let dir = scratch("watch");
    let path = dir.join("ns");
    File::create(&path).unwrap();
    let case = watch_in_sandbox(|| {
        let watch = NetnsWatch::path(&path).unwrap();
        assert!(watch.fd().is_some());
        watch
    });
    for _ in 0..100 {
        for name in ["n", "ns2", "nsx"] {
            File::create(dir.join(name)).unwrap();
            fs::remove_file(dir.join(name)).unwrap();
        }
    }
    // Still there: having looked at all that, the case sleeps again, and has not reported.
    eventually("the watcher sleeps", || case.status("State").starts_with('S'));
    let mut fds = [nix::poll::PollFd::new(case.output.as_fd(), nix::poll::PollFlags::POLLIN)];
    assert_eq!(nix::poll::poll(&mut fds, nix::poll::PollTimeout::ZERO), Ok(0));
    fs::remove_file(&path).unwrap();
    assert_eq!(case.end().1, "gone");

    // So many names go that inotify loses some, and that of the file is among those.
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    for gone in [false, true] {
        File::create(&path).unwrap();
        let mut watch = NetnsWatch::path(&path).unwrap();
        for n in 0..=limit {
            let name = dir.join(format!("{n}"));
            File::create(&name).unwrap();
            fs::remove_file(name).unwrap();
        }
        if gone {
            fs::remove_file(&path).unwrap();
        }
        assert_eq!(watch.gone(), gone);
    }

    // It was gone before we looked.
    let mut late = NetnsWatch::path(&path).unwrap();
    assert!(late.gone());
    fs::remove_dir_all(&dir).unwrap();
}

// --- Logging -----------------------------------------------------------------------------------

/// Standard error after `f` has logged.
fn stderr(name: &str, f: impl FnOnce()) -> String {
    let dir = scratch(name);
    let path = dir.join("err");
    run(|_| {
        nix::unistd::dup2_stderr(File::create(&path).unwrap()).unwrap();
        logsink::init();
        f();
    });
    let text = fs::read_to_string(path).unwrap();
    fs::remove_dir_all(&dir).unwrap();
    text
}

fn log_all() {
    log::error!("e");
    log::warn!("w");
    log::info!("i");
    log::debug!("d");
    log::trace!("t");
}

// [LOG-1] [LOG-2] [LOG-3] [NS-7]
#[test]
fn standard_error_shows_what_belongs_there() {
    let _turn = turn();
    let with = |verbosity, command| {
        stderr("levels", || {
            logsink::configure(Mode::Pasta, verbosity, command, None);
            log_all();
        })
    };
    assert_eq!(stderr("early", log_all), "e\nw\ni\n");
    assert_eq!(with(Verbosity::Info, false), "e\nw\ni\n");
    assert_eq!(with(Verbosity::Quiet, false), "e\nw\n");
    assert_eq!(with(Verbosity::Info, true), "e\nw\n"); // [COMPAT-31]
    let debug = with(Verbosity::Debug, true);
    let lines: Vec<_> = debug.lines().map(|line| line.split_once(": ").unwrap()).collect();
    assert_eq!(lines.iter().map(|(_, text)| *text).collect::<String>(), "ewid");
    for (time, _) in lines {
        let (seconds, units) = time.split_once('.').unwrap();
        assert!(seconds.parse::<u32>().is_ok() && units.len() == 4, "{debug}");
    }
    assert_eq!(with(Verbosity::Trace, false).lines().count(), 5);
}

// [LOG-1] [NS-7]
#[test]
fn standard_error_is_left_alone_afterwards() {
    let _turn = turn();
    let after = |verbosity, then: fn()| {
        stderr("after", || {
            logsink::configure(Mode::Pasta, verbosity, true, None);
            then();
            log_all();
        })
    };
    assert_eq!(after(Verbosity::Info, logsink::detach), "");
    assert_eq!(after(Verbosity::Debug, logsink::detach), "");
    assert_eq!(after(Verbosity::Info, logsink::command_started), "");
    assert_eq!(after(Verbosity::Debug, logsink::command_started).lines().count(), 4);
}

// [HAZ-2]
#[test]
fn a_panic_is_one_line() {
    let _turn = turn();
    let text = stderr("panic", || {
        let _ = catch_unwind(|| panic!("oh\nno"));
    });
    assert!(text.starts_with("internal error: panicked at "), "{text}");
    assert!(text.ends_with("oh no\n"), "{text}");
    assert_eq!(text.lines().count(), 1);
}
