//! Wrong input: one clear line, status 1, and nothing left behind.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use nix::mount::{MsFlags, mount};

use crate::lab::{Lab, Output, SOON, ip, output_within};
use crate::pasta::processes;

/// Runs pasta with a line of arguments and checks that it refuses as it should.
#[track_caller]
fn refuses(lab: &Lab, line: &str, named: &str) -> Output {
    let args: Vec<&str> = line.split_whitespace().collect();
    let mut command = lab.command("");
    refuses_command(lab, command.args(args), line, named)
}

#[track_caller]
fn refuses_command(lab: &Lab, command: &mut Command, line: &str, named: &str) -> Output {
    let namespaces = || -> BTreeSet<_> {
        fs::read_dir("/run/netns").unwrap().map(|e| e.unwrap().file_name()).collect()
    };
    let before = (processes(), namespaces());
    let out = output_within(command, SOON);
    assert_eq!(out.status.code(), Some(1), "{line}: {out:?}");
    assert!(out.stdout.is_empty(), "{line}: {out:?}");
    assert!(out.stderr.contains(named), "{line}: {named:?} is not named: {out:?}");
    crate::lab::eventually("processes are gone", SOON, || {
        while nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG))
            .is_ok_and(|s| s != nix::sys::wait::WaitStatus::StillAlive)
        {}
        (processes(), namespaces()) == before
    });
    assert!(!lab.dir().join("refused.pid").exists(), "{line}: PID file left behind");
    out
}

/// Lines of stderr that are not about running as root.
fn lines(out: &Output) -> Vec<&str> {
    out.stderr.lines().filter(|l| !l.trim().is_empty() && !l.contains("root")).collect()
}

#[test]
fn bad_values_are_named() {
    // [CLI table] [CLI-6] [COMPAT-42]
    Lab::run(|lab| {
        for (options, named) in [
            ("-a 1.2.3", "1.2.3"),
            ("-a nonsense", "nonsense"),
            ("-a 127.0.0.1", "127.0.0.1"),
            ("-g 1.2.3.4.5", "1.2.3.4.5"),
            ("-n 255.0.255.0 -a 10.0.0.1", "255.0.255.0"),
            ("-n 33 -a 10.0.0.1", "33"),
            ("-m 65522", "65522"),
            ("-m many", "many"),
            ("-M 00:11:22", "00:11:22"),
            ("--ns-mac-addr zz:zz:zz:zz:zz:zz", "zz:zz"),
            ("-i nope0", "nope0"),
            ("-I averyveryverylongname", "averyveryverylongname"),
            ("-t 0", "0"),
            ("-t 65536", "65536"),
            ("-u 100-50", "100-50"),
            ("-t 8080/tcp", "8080/tcp"),
            ("-T http", "http"),
            ("-t 80:80:80", "80:80:80"),
            ("--dns-forward 300.1.1.1", "300.1.1.1"),
            ("-D what", "what"),
            ("-o 10.1.2", "10.1.2"),
            ("--runas nosuchuser", "nosuchuser"),
            ("--map-guest-addr 127.0.0.1", "127.0.0.1"),
            ("--dns-host 0.0.0.0", "0.0.0.0"),
            ("-t all:80", "all:80"),
            ("-t 8080 --no-tcp", "8080"),
            ("-u ~x", "~x"),
            ("-t lo%lo/80", "lo%lo/80"),
            ("-t %nosuch0/80", "nosuch0"),
            ("-t 80:10.0.0.1", "10.0.0.1"),
            ("-S what..example", "what..example"),
            ("--fqdn .example", ".example"),
        ] {
            let pid = lab.dir().join("refused.pid");
            let line = format!("-q --config-net {options} --pid {} -- true", pid.display());
            let out = refuses(lab, &line, named);
            assert_eq!(lines(&out).len(), 1, "{options}: {out:?}");
        }
    });
}

#[test]
fn unknown_options_are_named() {
    // [CLI-12] [COMPAT-4] [COMPAT-42]
    Lab::run(|lab| {
        let out = refuses(lab, "--frobnicate -- true", "--frobnicate");
        assert!(out.stderr.contains("unrecognized option '--frobnicate'"), "{out:?}");
        refuses(
            lab,
            "--map-guest-addrX 1.2.3.4 -- true",
            "unrecognized option '--map-guest-addrX'",
        );
        refuses(lab, "-Y -- true", "Y");
        refuses(lab, "--config-net -a", "a");
    });
}

#[test]
fn missing_targets_are_named() {
    // [NS-2] [CLI-10] [CLI-11]
    Lab::run(|lab| {
        refuses(lab, "-q --config-net --netns nope", "/run/netns/nope");
        refuses(lab, "-q --config-net --netns /run/lab/nope", "/run/lab/nope");
        refuses(lab, "-q --config-net 99999999999", "99999999999");
        refuses(lab, "-q --config-net 3999999", "3999999");
        let gone = Command::new("true").spawn().and_then(|mut c| c.wait().map(|_| c.id())).unwrap();
        refuses(lab, &format!("-q --config-net {gone}"), &gone.to_string());
        lab.new_netns("one");
        refuses(lab, "-q --config-net --netns one true", "");
        refuses(lab, "-q --config-net --netns /etc/passwd", "/etc/passwd");
        let pid = lab.dir().join("refused.pid");
        let line = format!("-q --config-net --pid {} --netns nope", pid.display());
        refuses(lab, &line, "/run/netns/nope");
    });
}

#[test]
fn unwritable_files_are_named() {
    // [LIFE-3] [COMPAT-39]
    Lab::run(|lab| {
        refuses(lab, "-q --config-net --pid /nonexistent/pid -- true", "/nonexistent/pid");
        refuses(lab, "-q --config-net -l /nonexistent/log -- true", "/nonexistent/log");
    });
}

#[test]
fn busy_port_is_named() {
    // [CLI-8] [COMPAT-21]
    Lab::run(|lab| {
        let _busy = std::net::TcpListener::bind("[::]:7171").unwrap();
        lab.new_netns("one");
        let pid = lab.dir().join("refused.pid");
        for line in ["-t 7171", "-t 7170-7172"] {
            let line = format!("-q --config-net {line} --pid {} --netns one", pid.display());
            let out = refuses(lab, &line, "7171");
            assert!(out.stderr.contains("Address already in use"), "{out:?}");
        }
    });
}

#[test]
fn ports_that_cannot_be_had_are_named() {
    // [CLI-8] [FWD-15] [PORT-3] [PORT-6]: who asks for them by number gets all or none
    Lab::run(|lab| {
        let _tcp = std::net::TcpListener::bind("[::]:7171").unwrap();
        let _udp = std::net::UdpSocket::bind("127.0.0.1:7172").unwrap();
        let pid = lab.dir().join("refused.pid");
        for (options, message) in [
            (
                "-t 7171",
                "Failed to bind port 7171 (Address already in use) for option '-t 7171': TCP ::",
            ),
            (
                "-4 -t 7170-7172",
                "Failed to bind port 7171 (Address already in use) for option '-t 7170-7172': \
                 TCP 0.0.0.0",
            ),
            (
                "-u 7172",
                "Failed to bind port 7172 (Address already in use) for option '-u 7172': UDP ::",
            ),
            (
                "-u 127.0.0.1/7172",
                "Failed to bind port 7172 (Address already in use) for option \
                 '-u 127.0.0.1/7172': UDP 127.0.0.1",
            ),
            (
                "-t 10.1.2.3/80",
                "Failed to bind port 80 (Cannot assign requested address) for option \
                 '-t 10.1.2.3/80': TCP 10.1.2.3 (the address must be the host's, or see \
                 --freebind)",
            ),
            (
                "-u [2001:db8:1::3]/80",
                "Failed to bind port 80 (Cannot assign requested address) for option \
                 '-u [2001:db8:1::3]/80': UDP 2001:db8:1::3 (the address must be the host's, or \
                 see --freebind)",
            ),
            (
                "-u %nosuch0/80",
                "Failed to bind port 80 (No such device) for option '-u %nosuch0/80': \
                 UDP ::%nosuch0",
            ),
            (
                "-t 127.0.0.1%nosuch0/80",
                "Failed to bind port 80 (No such device) for option '-t 127.0.0.1%nosuch0/80': \
                 TCP 127.0.0.1%nosuch0",
            ),
            (
                "-t 9000 -t 7170,7171:80",
                "Failed to bind port 7171 (Address already in use) for option \
                 '-t 7170,7171:80': TCP ::",
            ),
        ] {
            let line = format!("-q --config-net {options} --pid {} -- true", pid.display());
            let out = refuses(lab, &line, message);
            let said = lines(&out);
            assert!(said.len() == 1 && said[0].ends_with(message), "{options}: {said:?}");
        }
    });
}

#[test]
fn missing_tun_device_is_named() {
    // [NS-9]
    Lab::run(|lab| {
        let none = None::<&str>;
        mount(Some("lab"), "/dev/net", Some("tmpfs"), MsFlags::empty(), none).unwrap();
        lab.new_netns("one");
        let pid = lab.dir().join("refused.pid");
        for target in ["-- true", "--netns one"] {
            let line = format!("-q --config-net --pid {} {target}", pid.display());
            refuses(lab, &line, "/dev/net/tun");
        }
        let links = ip("-n one -o link");
        assert_eq!(links.lines().count(), 1, "only loopback: {links}");
    });
}

#[test]
fn existing_interface_is_not_taken_over() {
    // [NS-9]: a link of another kind with our name
    Lab::run(|lab| {
        lab.new_netns("one");
        ip("-n one link add up0 type veth peer name up1");
        let pid = lab.dir().join("refused.pid");
        let line = format!("-q --config-net --pid {} --netns one", pid.display());
        refuses(lab, &line, "up0");
    });
}

#[test]
fn a_pid_file_that_cannot_be_written_ends_the_start_and_the_command() {
    // [LIFE-3] [W-14] the last step of all, when nothing but the filtered calls is possible any more
    Lab::run(|lab| {
        let dir = lab.dir().join("full");
        fs::create_dir(&dir).unwrap();
        let page = Some("size=4k");
        mount(Some("full"), &dir, Some("tmpfs"), MsFlags::empty(), page).unwrap();
        fs::write(dir.join("filler"), [0; 4096]).unwrap();
        let mut command =
            lab.command("--config-net --runas 0 --pid /run/lab/full/pid -- sleep 600");
        refuses_command(lab, &mut command, "full file system", "No space left on device");
        assert!(!dir.join("pid").exists());
    });
}
