//! What is told, and where: standard error, the system log, the log file, counters.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, SystemTime};

use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;

use crate::lab::{HOST4, Lab, REMOTE4, SOON, at, eventually, ip, output_within};
use crate::net::{connect, listen, roundtrip};
use crate::pasta::QUIET;

/// The lines of a summary, as they are on standard error.
const SUMMARY: &str = "Template interface: up0 (IPv4), up0 (IPv6)
Namespace interface: up0
MAC:
    host: 9a:55:9a:55:9a:55
NAT to host 127.0.0.1: 10.9.0.1
DHCP:
    assign: 10.9.0.2
    mask: 255.255.255.0
    router: 10.9.0.1
NAT to host ::1: 2001:db8:9::1
DHCPv6:
    assign: 2001:db8:9::2
    router: 2001:db8:9::1";

/// Without what is said to root.
fn lines(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.contains("root")).collect()
}

#[test]
fn the_start_tells_what_the_guest_gets() {
    // [CLI-14] [CLI-15] [CLI-16] [COMPAT-32] [COMPAT-33]
    Lab::run(|lab| {
        let _ns = lab.new_netns("one");
        let line = format!("--config-net {QUIET} -t 8080:80 --netns one");
        let out = output_within(&mut lab.command(&line), SOON);
        assert!(out.status.success() && out.stdout.is_empty(), "{out:?}");
        let said = lines(&out.stderr).join("\n");
        assert!(said.starts_with(SUMMARY), "{said}");
        let rules = "Inbound forwarding rules (HOST):\n    TCP [*]:8080  =>  80";
        assert!(said.contains(rules), "{said}");

        let _ns = lab.new_netns("two");
        let line = format!("-q --config-net {QUIET} --netns two");
        let out = output_within(&mut lab.command(&line), SOON);
        assert_eq!(lines(&out.stderr), [""; 0]);

        // A command's own terminal is left alone.
        let out = output_within(&mut lab.command(&format!("{QUIET} -- true")), SOON);
        assert_eq!(lines(&out.stderr), [""; 0]);
        let out = output_within(&mut lab.command(&format!("-d {QUIET} -- true")), SOON);
        assert!(out.stderr.contains(": DHCP:\n"), "{out:?}");
    });
}

#[test]
fn a_reader_that_stops_does_no_harm() {
    // [COMPAT-33] [COMPAT-37]: as a caller that reads up to `router:`, and closes the pipe
    Lab::run(|lab| {
        let mut command = lab.passt_command("-f -4 -t 2222:22 -s");
        let socket = lab.fresh("s");
        let mut child =
            command.arg(&socket).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = Vec::new();
        for line in BufReader::new(child.stderr.take().unwrap()).lines() {
            said.push(line.unwrap());
            if said.last().is_some_and(|line| line.trim().starts_with("router:")) {
                break;
            }
        }
        let dhcp = said.iter().position(|line| line == "DHCP:").unwrap();
        assert_eq!(
            said[dhcp + 1..],
            ["    assign: 10.9.0.2", "    mask: 255.255.255.0", "    router: 10.9.0.1"]
        );
        // It says more now: who connects.
        eventually("passt listens", SOON, || UnixStream::connect(&socket).is_ok());
        for _ in 0..3 {
            assert!(crate::machine::Raw::connect(&socket).is_served(64));
        }
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

/// Puts a system log of the test's own in the place of the machine's. Nothing reads it yet.
fn system_log() -> UnixDatagram {
    let none = None::<&str>;
    let dev = Path::new("/run/dev");
    fs::create_dir_all(dev.join("net")).unwrap();
    for name in ["null", "urandom", "net/tun"] {
        let place = dev.join(name);
        fs::write(&place, "").unwrap();
        mount(Some(&Path::new("/dev").join(name)), &place, none, MsFlags::MS_BIND, none).unwrap();
    }
    let socket = UnixDatagram::bind(dev.join("log")).unwrap();
    fs::set_permissions(dev.join("log"), fs::Permissions::from_mode(0o666)).unwrap();
    mount(Some(dev), "/dev", none, MsFlags::MS_BIND | MsFlags::MS_REC, none).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

#[test]
fn the_system_log_gets_what_nobody_else_would() {
    // [LOG-1] [LOG-7] [W-6] one datagram each, with severity and facility
    Lab::run(|lab| {
        let log = system_log();
        // Its queue is short: somebody has to read all the time.
        let reader = thread::spawn(move || {
            let (mut messages, mut buf) = (Vec::new(), [0; 10_000]);
            while !messages.iter().any(|m: &String| m.contains("namespace is gone")) {
                let n = log.recv(&mut buf).unwrap();
                messages.push(String::from_utf8(buf[..n].to_vec()).unwrap());
            }
            messages
        });
        let _ns = lab.new_netns("one");
        let pasta = lab.attach(&format!("--config-net {QUIET} -e --netns one"));
        ip("netns del one");
        let messages = reader.join().unwrap();
        for message in &messages {
            let (priority, text) = message.split_once("> pasta: ").expect("name");
            let severity =
                if text.contains("deprecated") || text.contains("root") { 28 } else { 30 };
            assert_eq!(priority, format!("<{severity}"), "{message}");
            assert!(text.ends_with('\n') && text.trim_end().lines().count() == 1, "{message:?}");
        }
        assert!(messages.iter().any(|m| m.contains("--stderr is deprecated")));
        assert!(messages.iter().any(|m| m.ends_with("    router: 10.9.0.1\n")), "{messages:?}");
        drop(pasta);
    });
}

#[test]
fn a_system_log_that_nobody_reads_holds_nothing_up() {
    // [LOG-7] [W-6] its queue is full long before all rules have been told
    Lab::run(|lab| {
        let _log = system_log();
        let ns = lab.new_netns("one");
        let rules: String = (20_000..20_150).map(|port| format!(" -t {port}")).collect();
        let _pasta = lab.attach(&format!("--config-net -u none{rules} --netns one"));
        let server = listen(&lab.remote, at(REMOTE4, 7000));
        roundtrip(&ns, at(REMOTE4, 7000), &server);
    });
}

/// A directory that whoever pasta runs as can use.
fn open_dir(lab: &Lab, name: &str) -> PathBuf {
    let dir = lab.dir().join(name);
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
    dir
}

/// The lines of a log file behind the first, each without its time: `LEVEL: TEXT`.
fn logged(path: &Path) -> (String, Vec<String>) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n'), "{text}");
    let mut lines = text.lines();
    let first = lines.next().unwrap().to_owned();
    let mut last = 0.0;
    let rest = lines
        .map(|line| {
            let (time, rest) = line.split_once(": ").expect("time");
            let time: f64 = time.parse().expect("time");
            assert!(time >= last, "{line}");
            last = time;
            rest.to_owned()
        })
        .collect();
    (first, rest)
}

#[test]
fn the_log_file_has_everything_from_the_start_to_the_end() {
    // [LOG-1] [LOG-2] [LOG-4] [W-15] [COMPAT-40]
    Lab::run(|lab| {
        let _ns = lab.new_netns("one");
        let path = lab.dir().join("log");
        fs::write(&path, "of an earlier process, and longer than what follows\n".repeat(100))
            .unwrap();
        let mut pasta =
            lab.attach(&format!("--config-net {QUIET} -e -l {} --netns one", path.display()));
        assert!(pasta.stderr().contains("    router: 10.9.0.1"), "until it is in the background");
        ip("netns del one");
        assert_eq!(pasta.wait(SOON).code(), Some(0));
        let (first, rest) = logged(&path);
        // The number of the process in the background, not of the one that was started.
        let end = format!(" ({})", pasta.pid);
        assert!(first.starts_with("pasta ") && first.ends_with(&end), "{first}: {}", pasta.pid);
        assert!(first.contains(concat!(" ", env!("CARGO_PKG_VERSION"), ": /")), "{first}");
        assert!(
            rest.contains(&"WARNING: option --stderr is deprecated and has no effect".to_owned())
        );
        assert!(rest.contains(&"info:        router: 10.9.0.1".to_owned()), "{rest:?}");
        assert_eq!(rest.last().unwrap(), "info:    namespace is gone, exiting");

        // In the foreground, quiet: nothing but warnings.
        let path = lab.dir().join("quiet");
        let line = format!("-q {QUIET} -e --log-file {} -- true", path.display());
        output_within(&mut lab.command(&line), SOON).ok();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let (_, rest) = logged(&path);
        assert!(
            !rest.is_empty() && rest.iter().all(|line| line.starts_with("WARNING: ")),
            "{rest:?}"
        );
        // With debug messages, on standard error as well.
        let path = lab.dir().join("debug");
        let line = format!("--trace {QUIET} --log-file {} -- true", path.display());
        let out = output_within(&mut lab.command(&line), SOON);
        let (_, rest) = logged(&path);
        assert!(rest.iter().any(|line| line.starts_with("         ")), "{rest:?}");
        assert!(out.stderr.contains(": DHCP:"), "{out:?}");
    });
}

#[test]
fn errors_of_the_start_are_on_standard_error_too() {
    // [COMPAT-40] [COMPAT-42]
    Lab::run(|lab| {
        let _busy = std::net::TcpListener::bind("[::]:7171").unwrap();
        let _ns = lab.new_netns("one");
        let path = lab.dir().join("log");
        let line = format!("-q --config-net -t 7171 -l {} --netns one", path.display());
        let out = output_within(&mut lab.command(&line), SOON);
        assert_eq!(out.status.code(), Some(1));
        assert!(
            out.stderr.contains("Failed to bind port 7171 (Address already in use)"),
            "{out:?}"
        );
        let (first, rest) = logged(&path);
        assert!(first.ends_with(')'), "{first}");
        assert!(rest.last().unwrap().starts_with("ERROR:   Failed to bind port 7171"), "{rest:?}");
        let mut command = lab.command("-l /nonexistent/log -- true");
        let out = output_within(&mut command, SOON);
        let message = "cannot open log file /nonexistent/log: No such file or directory\n";
        assert_eq!((out.status.code(), out.stderr.as_str()), (Some(1), message));
    });
}

#[test]
fn the_log_file_keeps_its_limit_while_running() {
    // [LOG-6] [W-16] [SANDBOX-11] on a disk and in memory
    Lab::run(|lab| {
        let server = listen(&lab.remote, at(REMOTE4, 7000));
        // The directory of the lab is in memory.
        let unix_nanos = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();
        let disk = Path::new("/var/tmp").join(format!("passt-log-{}", unix_nanos));
        for (file, user) in [(lab.dir().join("log"), ""), (disk.clone(), "")] {
            let options = format!("--trace -l {} --log-size 40960 {QUIET} {user}", file.display());
            let guest = lab.guest(&options);
            let mut turns = 0;
            for _ in 0..60 {
                drop(roundtrip(&guest.ns, at(REMOTE4, 7000), &server));
                let len = fs::metadata(&file).unwrap().len();
                assert!(len <= 40_960, "{len}");
                turns += u32::from(len > 20_480);
            }
            assert!(turns > 10, "it never grew: {turns}");
            let (first, rest) = logged(&file);
            assert!(
                first.contains(&format!(" ({}) - log truncated at ", guest.pasta.pid)),
                "{first}"
            );
            assert!(rest.len() > 100);
        }
        fs::remove_file(disk).unwrap();
    });
}

#[test]
fn a_full_disk_costs_messages_and_nothing_else() {
    // [LOG-6] [T-29]
    Lab::run(|lab| {
        let dir = open_dir(lab, "full");
        mount(Some("full"), &dir, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).unwrap();
        let file = dir.join("log");
        let mut guest = lab.guest(&format!("--trace -l {} --runas 0 {QUIET}", file.display()));
        let server = listen(&lab.remote, at(REMOTE4, 7000));
        for _ in 0..300 {
            drop(roundtrip(&guest.ns, at(REMOTE4, 7000), &server));
        }
        assert!(guest.pasta.alive());
        assert!(logged(&file).1.len() > 100);
        mount(Some("full"), &dir, Some("tmpfs"), MsFlags::MS_REMOUNT, Some("size=10m")).unwrap();
        let lost = || fs::read_to_string(&file).unwrap().contains("messages were lost");
        eventually("it is told that messages were lost", SOON, || {
            drop(roundtrip(&guest.ns, at(REMOTE4, 7000), &server));
            lost()
        });
    });
}

#[test]
fn messages_that_guests_cause_are_limited() {
    // [LOG-8]
    Lab::run(|lab| {
        let (socket, file) = (lab.fresh("s"), lab.dir().join("log"));
        let mut command = lab.passt_command(&format!("-f -l {} -s", file.display()));
        command.arg(&socket);
        let mut passt = lab.foreground(command);
        eventually("passt listens", SOON, || UnixStream::connect(&socket).is_ok());
        for _ in 0..200 {
            assert!(crate::machine::Raw::connect(&socket).is_served(64));
        }
        thread::sleep(Duration::from_millis(1100));
        assert!(crate::machine::Raw::connect(&socket).is_served(64));
        passt.signal(Signal::SIGTERM);
        assert_eq!(passt.wait(SOON).code(), Some(0));
        let (_, rest) = logged(&file);
        let about = |what: &str| rest.iter().filter(|line| line.contains(what)).count();
        assert!((5..100).contains(&about("guest: connected")), "{rest:?}");
        assert!(about("messages like the next one were left out") > 0, "{rest:?}");
    });
}

#[test]
fn counters_are_printed() {
    // [CLI-23] [FLOW-19] while something happens, and not more often than is wanted
    Lab::run(|lab| {
        let server = listen(&lab.remote, at(REMOTE4, 7000));
        let command = lab.command(&format!("-f --stats 0 --config-net -q {QUIET} -t 8080:80"));
        let guest = lab.guest_raw(command);
        let inside = listen(&guest.ns, at(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 80));
        for _ in 0..30 {
            drop(roundtrip(&guest.ns, at(REMOTE4, 7000), &server));
        }
        let near = connect(&lab.remote, at(HOST4, 8080));
        drop((near, crate::net::accept(&inside)));
        let said = guest.pasta.stderr();
        let mut rows = said.lines().filter(|line| !line.contains("root"));
        let names: Vec<&str> = rows.next().unwrap().split_whitespace().collect();
        assert!(names.starts_with(&["tcp", "tcp-s", "tcp-l", "timer"]), "{names:?}");
        let heads = said.lines().filter(|line| line.contains("tcp-l")).count();
        let rows: Vec<Vec<u64>> = rows
            .filter(|line| !line.contains("tcp-l"))
            .map(|line| line.split_whitespace().map(|n| n.parse().unwrap()).collect())
            .collect();
        assert_eq!(heads, rows.len().div_ceil(20));
        let last = rows.last().unwrap();
        let of = |name: &str| last[names.iter().position(|n| *n == name).unwrap()];
        assert!(of("tcp") >= 30 && of("link") >= 30 && of("tcp-l") >= 1, "{names:?} {last:?}");
        assert!(rows.windows(2).all(|two| two[0].iter().zip(&two[1]).all(|(a, b)| a <= b)));

        let command = lab.command(&format!("-f --stats 3600 --config-net -q {QUIET}"));
        let guest = lab.guest_raw(command);
        for _ in 0..3 {
            drop(roundtrip(&guest.ns, at(REMOTE4, 7000), &server));
        }
        let said = guest.pasta.stderr();
        let numbers = |l: &&str| l.split_whitespace().all(|n| n.parse::<u64>().is_ok());
        assert_eq!(said.lines().filter(numbers).count(), 1, "{said}");
    });
}
