//! pasta as an ordinary user in a network namespace it does not own.
//!
//! Run as an ordinary user, these tests use the machine's own network namespace, and traffic on its
//! loopback only. Run as root they use a lab, and pasta is started as another user.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::{Helper, Lab, SOON, eventually, output_within, pasta_path};

/// A user that exists nowhere.
const NOBODY: u32 = 54321;

/// Runs a test body where it belongs.
fn run<F: FnOnce()>(body: F) {
    if nix::unistd::geteuid().is_root() {
        Lab::run_as(std::any::type_name::<F>(), |_| body());
    } else {
        body();
    }
}

/// `pasta --config-net OPTIONS`, as an ordinary user.
fn pasta(options: &str) -> Command {
    let mut command = Command::new(pasta_path());
    command.arg("--config-net").args(options.split_whitespace()).stdin(Stdio::null());
    if nix::unistd::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    // SAFETY: the hook makes one system call.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    command
}

/// Answers one HTTP request.
fn answer(listener: &TcpListener, text: &str) {
    let (mut stream, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip(), Ipv4Addr::LOCALHOST);
    let mut request = [0; 1024];
    let _ = stream.read(&mut request).unwrap();
    write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()).unwrap();
}

/// A port nobody listens on at the moment.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn command_runs_as_root_of_its_own_namespace() {
    // [NS-3] [CLI-12] [COMPAT-45]
    run(|| {
        let mut command = pasta("-- sh -c");
        let out = output_within(command.arg("id -u; ip -o link; exit 3"), SOON);
        assert_eq!(out.status.code(), Some(3), "{out:?}");
        assert!(out.stdout.starts_with("0\n"), "{out:?}");
        assert_eq!(out.stdout.matches("LOWER_UP").count(), 2, "lo and the tap: {out:?}");
    });
}

#[test]
fn works_without_capabilities_and_privilege_gain() {
    // [COMPAT-45]
    run(|| {
        let mut command = pasta("-- true");
        // SAFETY: the hook makes one system call.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                Ok(())
            });
        }
        output_within(&mut command, SOON).ok();
    });
}

#[test]
fn gateway_stands_for_the_hosts_loopback() {
    // [NL-10] [ADDR-6]
    run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || answer(&listener, "hello"));
        let script = format!(
            "gw=$(ip -4 route show default | sed -n 's/.* via \\([^ ]*\\).*/\\1/p' | head -n 1); \
             exec curl -sS --noproxy '*' --max-time 5 http://$gw:{port}/"
        );
        let mut command = pasta("-t none -u none -T none -U none -- sh -c");
        assert_eq!(output_within(command.arg(script), SOON).ok(), "hello");
        server.join().unwrap();
    });
}

#[test]
fn host_loopback_can_be_mapped() {
    // [NL-10] [COMPAT-57]
    run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://169.254.77.1:{}/", listener.local_addr().unwrap().port());
        let server = thread::spawn(move || answer(&listener, "hello"));
        let options = "-t none -u none -T none -U none --map-host-loopback 169.254.77.1";
        let mut command = pasta(&format!("{options} -- curl -sS --noproxy * --max-time 5"));
        assert_eq!(output_within(command.arg(url), SOON).ok(), "hello");
        server.join().unwrap();
    });
}

#[test]
fn loopback_port_of_the_host_is_reached_on_the_guests_loopback() {
    // [CLI table -T] [COMPAT-59]
    run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || answer(&listener, "hello"));
        let options = format!("-t none -u none -U none -T {port}");
        let mut command = pasta(&format!("{options} -- curl -sS --noproxy * --max-time 5"));
        let url = format!("http://127.0.0.1:{port}/");
        assert_eq!(output_within(command.arg(url), SOON).ok(), "hello");
        server.join().unwrap();
    });
}

#[test]
fn forwarded_port_is_reached_on_the_hosts_loopback() {
    // [CLI-6] [COMPAT-18] [COMPAT-25]
    run(|| {
        let port = free_port();
        let options = format!("-t 127.0.0.1/{port}:8000 -u none -T none -U none");
        let script = "import socket\n\
             s = socket.create_server(('', 8000))\n\
             c = s.accept()[0]\nc.recv(1000)\nc.sendall(b'hello')\nc.close()";
        let mut guest = Helper(
            pasta(&format!("{options} -- /usr/bin/python3 -c"))
                .arg(script)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        );
        eventually("server in the guest answers", SOON, || {
            assert!(guest.0.try_wait().unwrap().is_none(), "pasta ended");
            get(port).is_ok_and(|text| text == "hello")
        });
    });
}

#[test]
fn ends_with_its_namespace() {
    // [LIFE-11]: attached to a process of the same user
    run(|| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--net", "sleep", "60"]).stdin(Stdio::null());
        if nix::unistd::geteuid().is_root() {
            unshare.uid(NOBODY).gid(NOBODY);
        }
        let mut target = Helper(unshare.spawn().unwrap());
        let pid = target.0.id();
        eventually("target starts", SOON, || {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.starts_with(b"sleep\0"))
        });
        let mut pasta = Helper(
            pasta("-f -t none -u none -T none -U none")
                .arg(pid.to_string())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        );
        eventually("tap appears", SOON, || {
            assert!(pasta.0.try_wait().unwrap().is_none(), "pasta ended");
            fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap().lines().count() > 3
        });
        target.0.kill().unwrap();
        target.0.wait().unwrap();
        let start = Instant::now();
        eventually("pasta ends", SOON, || pasta.0.try_wait().unwrap().is_some());
        assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
        assert_eq!(pasta.0.wait().unwrap().code(), Some(0));
    });
}

#[test]
fn low_ports_need_the_right_to_them() {
    // [PORT-5] [FWD-15] [CLI-8]: by number it is an error, of all ports they are left out
    run(|| {
        let low = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
        if low.trim() != "1024" {
            eprintln!("SKIPPED: the machine forbids no ports");
            assert!(!nix::unistd::geteuid().is_root(), "{low}");
            return;
        }
        for (options, named) in [("-t 81", "TCP ::"), ("-u 127.0.0.1/81", "UDP 127.0.0.1")] {
            let line = format!("{options} -T none -U none -- true");
            let out = output_within(&mut pasta(&line), SOON);
            assert_eq!(out.status.code(), Some(1), "{out:?}");
            let message = format!(
                "Failed to bind port 81 (Permission denied) for option '{options}': {named} (low \
                 ports need CAP_NET_BIND_SERVICE or sysctl net.ipv4.ip_unprivileged_port_start)"
            );
            assert!(out.stderr.trim_end().ends_with(&message), "{out:?}");
        }
        let out = output_within(&mut pasta("-t ~1000-1000,~1100-65535 -- true"), SOON);
        assert!(out.stderr.contains("TCP: 76 of 1098 ports are forwarded"), "{out:?}");
        assert_eq!(out.status.code(), Some(0), "{out:?}");
    });
}

fn get(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
