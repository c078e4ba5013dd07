//! A private piece of network for one test.
//!
//! # Theory of operation
//!
//! [`Lab::run`] is called from a `#[test]` function. Outside a lab it starts the test binary again,
//! for that one test, in fresh mount, network and PID namespaces, and in a user namespace unless
//! it runs as root; then it waits for it, with a deadline. Inside, it builds the network below and
//! calls the body.
//!
//! ```text
//!   `host`: where the test body and pasta run       `remote`: the rest of the world
//!   up0  10.9.0.2/24      2001:db8:9::2/64  <---->  rem0  10.9.0.1, .3   2001:db8:9::1, ::3
//!   default routes via .1 and ::1
//! ```
//!
//! The body is process 1 of its PID namespace. So when it ends, however it ends, the kernel ends
//! everything it started, and a pasta that went to the background becomes its child and can be
//! waited for by PID. A namespace of the lab is an [`Ns`]: closures run in it on a thread of their
//! own, so sockets of every side are plain `std::net` values in one function.
//!
//! Output of a failed test, with what pasta said, is printed by the outer process.
//!
//! Environment:
//! * `PASTA=PATH` tests another binary;
//! * `PASST_TESTS_SKIP=name,...` skips tests, and says so;
//! * `PASST_TESTS_TRACE=1` shows the output of tests that pass, too;
//! * `PASST_TESTS_PCAP=1` captures what every guest sends and gets in `tests/output`, or in the
//!   directory `PASST_TESTS_OUTPUT`.

use std::any::type_name;
use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::ns::{self, Ns};

/// Addresses of the lab's network.
pub(crate) const HOST4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2));
/// The host's IPv6 address.
pub(crate) const HOST6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 2));
/// The default router, an address of `remote`.
pub(crate) const GATEWAY4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));
/// The IPv6 default router.
pub(crate) const GATEWAY6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 1));
/// A remote server.
pub(crate) const REMOTE4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 3));
/// A remote server.
pub(crate) const REMOTE6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 3));

/// How long anything that should happen at once may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(10);
/// Time limit of one test, set-up included.
const TEST_LIMIT: Duration = Duration::from_secs(120);
/// Set in the inner process.
const INSIDE: &str = "PASST_TESTS_INSIDE";

/// The network of one test, seen from its `host` namespace.
pub(crate) struct Lab {
    /// The rest of the world.
    pub(crate) remote: Ns,
    dir: PathBuf,
    name: String,
}

impl Lab {
    /// Runs `body` in a lab of its own; fails the calling test if it fails or takes too long.
    pub(crate) fn run<F: FnOnce(&Lab)>(body: F) {
        Lab::run_as(type_name::<F>(), body);
    }

    /// The same, for the test that contains the closure of this type.
    pub(crate) fn run_as(closure: &str, body: impl FnOnce(&Lab)) {
        Lab::run_over(plain_link, closure, body);
    }

    /// The same, where `link` makes the interfaces `up0` of `host` and `rem0` of `remote`.
    pub(crate) fn run_over(link: impl FnOnce(&Ns), closure: &str, body: impl FnOnce(&Lab)) {
        // The closure's type is named after the test: "netns::module::test::{{closure}}".
        let path = closure.trim_end_matches("::{{closure}}");
        let name = path.split_once("::").map_or(path, |(_, name)| name);
        if skipped(name) {
            eprintln!("SKIPPED {name} (PASST_TESTS_SKIP)");
            return;
        }
        if env::var_os(INSIDE).is_some() {
            body(&Lab::build(name, link));
        } else {
            rerun(name);
        }
    }

    /// A directory of this test alone, gone with it.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A new file for a capture, kept after the test.
    pub(crate) fn capture(&self) -> PathBuf {
        let dir = env::var_os("PASST_TESTS_OUTPUT").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/output"),
            PathBuf::from,
        );
        fs::create_dir_all(&dir).unwrap();
        let name = self.name.replace("::", ".");
        let path = |n| dir.join(format!("{name}.{n}.pcap"));
        (0..).map(path).find(|p| !p.exists()).unwrap()
    }

    /// The namespace pasta runs in.
    pub(crate) fn host(&self) -> Ns {
        Ns::current()
    }

    /// Makes an empty network namespace, reachable as `/run/netns/NAME`.
    pub(crate) fn new_netns(&self, name: &str) -> Ns {
        ip(&format!("netns add {name}"));
        Ns::open(Path::new("/run/netns").join(name))
    }

    /// Builds the namespaces and links. The process is alone in new namespaces already.
    fn build(name: &str, link: impl FnOnce(&Ns)) -> Lab {
        private_files();
        quiet_ipv6();
        ip("netns add remote");
        let remote = Ns::open("/run/netns/remote");
        remote.enter(quiet_ipv6);
        ip("link set lo up");
        link(&remote);
        ip_batch(
            "",
            "addr add 10.9.0.2/24 dev up0
             addr add 2001:db8:9::2/64 dev up0 nodad
             link set up0 up",
        );
        ip_batch(
            "remote",
            "addr add 10.9.0.3/24 dev rem0
             addr add 10.9.0.1/24 dev rem0
             addr add 2001:db8:9::3/64 dev rem0 nodad
             addr add 2001:db8:9::1/64 dev rem0 nodad
             link set lo up
             link set rem0 up",
        );
        eventually("link-local address of up0", SOON, || {
            fs::read_to_string("/proc/thread-self/net/if_inet6").is_ok_and(|t| {
                t.lines()
                    .any(|l| l.starts_with("fe80") && l.contains(" 20 80 ") && l.ends_with("up0"))
            })
        });
        ip_batch("", "route add default via 10.9.0.1\nroute add ::/0 via 2001:db8:9::1");
        let dir = PathBuf::from("/run/lab");
        fs::create_dir(&dir).unwrap();
        Lab { remote, dir, name: name.into() }
    }
}

/// The binary under test.
pub(crate) fn pasta_path() -> PathBuf {
    env::var_os("PASTA").map_or_else(|| env!("CARGO_BIN_EXE_pasta").into(), PathBuf::from)
}

/// Is the test inside a user namespace of its own, as an ordinary user needs it?
pub(crate) fn unprivileged() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    map.split_whitespace().ne(["0", "0", "4294967295"])
}

/// Polls until `done` says so, or fails the test after `limit`. Returns the time it took.
#[track_caller]
pub(crate) fn eventually(what: &str, limit: Duration, mut done: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        thread::sleep(Duration::from_millis(2));
    }
    start.elapsed()
}

/// Runs a command to its end, which has to come within `limit`.
#[track_caller]
pub(crate) fn output_within(command: &mut Command, limit: Duration) -> Output {
    let (mut out, mut err) = (scratch_file(), scratch_file());
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out.try_clone().unwrap())
        .stderr(err.try_clone().unwrap())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > limit {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!(
                "{command:?}: still running after {limit:?}\n{}{}",
                text(&mut out),
                text(&mut err)
            );
        }
        thread::sleep(Duration::from_millis(1));
    };
    Output { status, stdout: text(&mut out), stderr: text(&mut err) }
}

/// What a finished command left.
#[derive(Debug)]
pub(crate) struct Output {
    /// Exit status.
    pub(crate) status: std::process::ExitStatus,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

impl Output {
    /// Fails the test unless the command ended well; its standard output.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert!(self.status.success(), "{self:?}");
        self.stdout
    }
}

/// A process that helps a test and ends with this value.
pub(crate) struct Helper(pub(crate) Child);

impl Drop for Helper {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Runs `ip ARGS` in the host namespace; its output.
#[track_caller]
pub(crate) fn ip(args: &str) -> String {
    output_within(Command::new("ip").args(args.split_whitespace()), SOON).ok()
}

/// Runs lines of `ip` commands in the host namespace or in a named one.
#[track_caller]
pub(crate) fn ip_batch(netns: &str, lines: &str) {
    let file = Path::new("/run/ip-batch");
    fs::write(file, lines.lines().map(|l| l.trim().to_owned() + "\n").collect::<String>()).unwrap();
    let mut command = Command::new("ip");
    if !netns.is_empty() {
        command.args(["-n", netns]);
    }
    output_within(command.arg("-batch").arg(file), SOON).ok();
}

/// Socket address.
pub(crate) fn at(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}

fn skipped(name: &str) -> bool {
    let list = env::var("PASST_TESTS_SKIP").unwrap_or_default();
    list.split(',').any(|s| !s.is_empty() && (s == name || name.ends_with(&format!("::{s}"))))
}

/// How long to go on with what can go on for any time: the seconds in `PASST_TESTS_SOAK`.
pub(crate) fn soak() -> Option<Duration> {
    let seconds = env::var("PASST_TESTS_SOAK").ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Runs this test again in namespaces of its own and reports its output if it fails.
fn rerun(name: &str) {
    let mut log = scratch_file();
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args([name, "--exact", "--nocapture", "--include-ignored", "--test-threads=1"])
        .env(INSIDE, "1")
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log.try_clone().unwrap())
        .process_group(0);
    let maps = ns::IdMaps::new();
    // SAFETY: the hook only makes system calls, on memory prepared before the fork.
    unsafe { command.pre_exec(move || ns::isolate(&maps)) };
    let mut child = command.spawn().unwrap_or_else(|e| {
        panic!("cannot make namespaces ({e}); the tests need user namespaces or root")
    });
    let start = Instant::now();
    let limit = TEST_LIMIT + soak().unwrap_or_default();
    let verdict = loop {
        match child.try_wait().unwrap() {
            Some(status) if status.success() => break None,
            Some(status) => break Some(format!("{status}")),
            None if start.elapsed() > limit => {
                child.kill().unwrap();
                child.wait().unwrap();
                break Some(format!("not finished after {limit:?}"));
            }
            None => thread::sleep(Duration::from_millis(5)),
        }
    };
    // Indented, so that the inner verdict is not mistaken for an outer one.
    let text: String = text(&mut log).lines().map(|l| format!("  | {l}\n")).collect();
    if env::var_os("PASST_TESTS_TRACE").is_some() {
        println!("{text}");
    }
    if let Some(verdict) = verdict {
        panic!("in the lab: {verdict}\n{text}");
    }
    assert!(text.contains("1 passed"), "the test did not run in the lab:\n{text}");
}

/// A mount namespace that shows this PID namespace, an empty /run, and a known resolv.conf.
fn private_files() {
    use nix::mount::{MsFlags, mount};
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none).unwrap();
    let resolv = fs::canonicalize("/etc/resolv.conf").unwrap_or_else(|_| "/etc/resolv.conf".into());
    mount(Some("lab"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=0755")).unwrap();
    fs::create_dir("/run/netns").unwrap();
    let text = "nameserver 10.9.0.53\nnameserver 2001:db8:9::53\nsearch lab.example\n\
                options timeout:1 attempts:1\n";
    if resolv.starts_with("/run") {
        fs::create_dir_all(resolv.parent().unwrap()).unwrap();
        fs::write(&resolv, text).unwrap();
    } else {
        let ours = "/run/resolv.conf";
        fs::write(ours, text).unwrap();
        mount(Some(ours), &resolv, none, MsFlags::MS_BIND, none).unwrap();
    }
}

/// `up0` here and `rem0` in `remote`.
fn plain_link(_remote: &Ns) {
    // Equal numbers at both ends would make the kernel take them for one device without a peer, and
    // IPv6 wait up to a second for news of the carrier.
    ip("link add up0 index 9 type veth peer name rem0 netns remote");
}

/// No duplicate address detection, no router solicitations on links made from now on. Detection is
/// off only if `all` says so, too.
pub(crate) fn quiet_ipv6() {
    for conf in ["all", "default"] {
        for key in ["accept_dad", "accept_ra", "router_solicitations"] {
            fs::write(format!("/proc/sys/net/ipv6/conf/{conf}/{key}"), "0").unwrap();
        }
    }
}

/// An unnamed temporary file.
fn scratch_file() -> File {
    memfd_create(c"scratch", MFdFlags::MFD_CLOEXEC).unwrap().into()
}

fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.seek(io::SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
