//! Real virtual machines: QEMU without hardware acceleration, a Debian kernel and busybox, as
//! `tests/guest/build` makes them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use crate::lab::{
    HOST4, HOST6, Helper, Lab, REMOTE4, REMOTE6, SOON, at, output_within, unprivileged,
};
use crate::machine::Raw;
use crate::net::{accept, connect, listen, pattern};

/// Booting and moving data takes its time without acceleration, above all where others are busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of each transfer.
const MUCH: usize = 4 << 20;

/// A running machine; ends with this value.
struct Vm {
    qemu: Helper,
    console: ChildStdin,
    lines: Receiver<String>,
}

impl Vm {
    /// Boots a machine with this network card and back end, and waits until it is up.
    #[track_caller]
    fn boot(card: &str, netdev: &str, mtu: u16) -> Vm {
        let mut vm = Vm::start(card, netdev, mtu);
        vm.until("guest: up");
        vm
    }

    fn start(card: &str, netdev: &str, mtu: u16) -> Vm {
        let dir = std::env::var_os("PASST_GUEST").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/guest"),
            PathBuf::from,
        );
        let file = |name: &str| {
            let path = dir.join(name);
            assert!(path.exists(), "{} is missing: tests/guest/build makes it", path.display());
            path
        };
        let host_mtu =
            if card.starts_with("virtio") { format!(",host_mtu={mtu}") } else { String::new() };
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args([
                "-accel",
                "tcg",
                "-m",
                "256",
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
            ])
            .args(["-no-reboot", "-serial", "stdio", "-netdev", netdev])
            .args(["-device", &format!("{card},netdev=s,romfile={host_mtu}")])
            .arg("-kernel")
            .arg(file("vmlinuz"))
            .arg("-initrd")
            .arg(file("initrd.gz"))
            .arg("-append")
            .arg(format!("console=ttyS0 quiet panic=-1 mtu={mtu}"));
        let mut child: Child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let console = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (say, lines) = channel();
        thread::spawn(move || {
            for line in output.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim().to_owned();
                if say.send(line).is_err() {
                    break;
                }
            }
        });
        Vm { qemu: Helper(child), console, lines }
    }

    /// Runs a line inside; what it printed, if it ended well.
    #[track_caller]
    fn run(&mut self, line: &str) -> String {
        self.begin(line);
        self.finish(line)
    }

    fn begin(&mut self, line: &str) {
        self.console.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    #[track_caller]
    fn finish(&mut self, line: &str) -> String {
        let (status, text) = self.until("guest: done ");
        assert_eq!(status, "0", "{line}: {text}");
        text
    }

    /// Waits for a line that begins so; its rest, and what came before.
    #[track_caller]
    fn until(&mut self, start: &str) -> (String, String) {
        let mut text = String::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    if let Some(rest) = line.strip_prefix(start) {
                        return (rest.to_owned(), text);
                    }
                    text += &line;
                    text.push('\n');
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!("no {start:?} within {PATIENCE:?}\n{text}")
                }
                Err(RecvTimeoutError::Disconnected) => panic!("QEMU ended\n{text}"),
            }
        }
    }
}

/// The SHA-256 of some bytes.
fn sha256(data: &[u8]) -> String {
    let path = std::env::temp_dir().join(format!("passt-sha-{}", std::process::id()));
    std::fs::write(&path, data).unwrap();
    let out = output_within(Command::new("sha256sum").arg(&path), SOON).ok();
    std::fs::remove_file(&path).unwrap();
    out.split_whitespace().next().unwrap().to_owned()
}

/// Everything a machine does, over both families.
fn everything(lab: &Lab, vm: &mut Vm, port: u16) {
    let data = pattern(MUCH);
    let digest = sha256(&data);
    for (remote, own) in [(REMOTE4, HOST4), (REMOTE6, HOST6)] {
        vm.run(&format!("ping -c 1 -W 10 {remote}"));

        let server = listen(&lab.remote, at(remote, 7000));
        vm.begin(&format!("nc {remote} 7000 </dev/null >/tmp/got; sha256sum </tmp/got"));
        let mut peer = accept(&server);
        peer.write_all(&data).unwrap();
        drop(peer);
        let said = vm.finish("download");
        assert!(said.contains(&digest), "download from {remote}: {said}");

        vm.begin(&format!("nc {remote} 7000 </tmp/got"));
        let mut peer = accept(&server);
        let mut got = vec![0; MUCH];
        peer.read_exact(&mut got).unwrap();
        assert!(got == data, "upload to {remote}");
        drop(peer);
        vm.finish("upload");

        inbound(lab, vm, own, port);

        let server = crate::net::udp(&lab.remote, at(remote, 53));
        let resolver = thread::spawn(move || resolve(&server));
        let said = vm.run(&format!("nslookup -type=a name.example {remote}"));
        assert!(said.contains("192.0.2.77"), "{said}");
        assert_eq!(resolver.join().unwrap(), own);
    }
}

/// A connection to `port` of the host, which is port 80 of the machine.
fn inbound(lab: &Lab, vm: &mut Vm, host: IpAddr, port: u16) {
    let data = pattern(1 << 20);
    vm.run("nc -l -p 80 >/tmp/in &");
    vm.run("until grep -q ':0050 .* 0A ' /proc/net/tcp /proc/net/tcp6; do sleep 0.1; done");
    let mut peer = connect(&lab.remote, at(host, port));
    peer.write_all(&data).unwrap();
    drop(peer);
    let said = vm.run("wait; sha256sum </tmp/in");
    assert!(said.contains(&sha256(&data)), "inbound at {host}: {said}");
}

/// Answers one query for an address; where it came from.
fn resolve(server: &std::net::UdpSocket) -> IpAddr {
    let mut message = [0; 512];
    let (n, from) = server.recv_from(&mut message).unwrap();
    let mut answer = message[..n].to_vec();
    // A response, with one answer: the name asked for, A, IN, a TTL, four bytes (RFC 1035, 4.1).
    answer[2..4].copy_from_slice(&[0x81, 0x80]);
    answer[7] = 1;
    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 77]);
    server.send_to(&answer, from).unwrap();
    from.ip()
}

fn allow_pings(lab: &Lab) {
    let range = if unprivileged() { "0 0" } else { "0 65534" };
    lab.host().sysctl("net/ipv4/ping_group_range", range);
}

fn netdev(socket: &Path) -> String {
    format!("stream,id=s,server=off,addr.type=unix,addr.path={}", socket.display())
}

#[test]
fn virtio_machine() {
    // [TAP-2] [COMPAT-36] [NDP-6] [DHCP-1] with a large MTU; it configures itself
    Lab::run(|lab| {
        allow_pings(lab);
        let (_passt, socket) = lab.passt("-t 8080:80");
        let mut vm = Vm::boot("virtio-net-pci", &netdev(&socket), 65520);
        let network = vm.run("ip addr show dev eth0; ip route; ip -6 route");
        for expected in [&format!("inet {HOST4}/24"), "default via 10.9.0.1", "2001:db8:9:"] {
            assert!(network.contains(expected), "{expected}: {network}");
        }
        everything(lab, &mut vm, 8080);
        // It starts again: connections of before are unknown, all else is as it was.
        drop(vm);
        let mut vm = Vm::boot("virtio-net-pci", &netdev(&socket), 1500);
        vm.run(&format!("ping -c 1 -W 10 {REMOTE6}"));
        inbound(lab, &mut vm, HOST4, 8080);
    });
}

#[test]
fn e1000_machine() {
    // [TAP-6] [TAP-14] an old card, which pads
    Lab::run(|lab| {
        allow_pings(lab);
        let (_passt, socket) = lab.passt("-t 8080:80");
        let mut vm = Vm::boot("e1000", &netdev(&socket), 1500);
        everything(lab, &mut vm, 8080);
    });
}

#[test]
fn machine_on_a_descriptor() {
    // [COMPAT-36] [LIFE-12] `-net socket,fd=` and `--fd` speak the same; both end together
    use std::os::fd::AsRawFd;
    use std::os::unix::process::CommandExt;
    Lab::run(|lab| {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut command = lab.passt_command("-f --fd 7");
        let raw = ours.as_raw_fd();
        // SAFETY: only dup2(2) and fcntl(2), on a descriptor that lives until the child runs.
        unsafe {
            command.pre_exec(move || {
                libc::dup2(raw, 7);
                libc::fcntl(7, libc::F_SETFD, 0);
                Ok(())
            });
        }
        let mut passt = lab.foreground(command);
        drop(ours);
        // SAFETY: QEMU is to inherit it.
        unsafe { libc::fcntl(theirs.as_raw_fd(), libc::F_SETFD, 0) };
        let fd = theirs.as_raw_fd();
        let mut vm = Vm::boot("virtio-net-pci", &format!("socket,id=s,fd={fd}"), 1500);
        drop(theirs);
        let server = listen(&lab.remote, at(REMOTE4, 7000));
        vm.begin(&format!("nc {REMOTE4} 7000 </dev/null"));
        accept(&server).write_all(b"hello\n").unwrap();
        assert!(vm.finish("nc").contains("hello"));
        drop(vm);
        assert_eq!(passt.wait(SOON).code(), Some(0));
    });
}

#[test]
fn killed_machines_leave_nothing() {
    // [W-5] [LIFE-12] [T-17] QEMU killed in the middle of traffic, and another guest in between
    Lab::run(|lab| {
        let (mut passt, socket) = lab.passt("");
        let server = listen(&lab.remote, at(REMOTE4, 7000));
        for _ in 0..2 {
            let mut vm = Vm::boot("virtio-net-pci", &netdev(&socket), 1500);
            vm.begin(&format!("nc {REMOTE4} 7000 </dev/zero"));
            let mut peer = accept(&server);
            peer.read_exact(&mut [0; 1 << 20]).unwrap();
            vm.qemu.0.kill().unwrap();
            vm.qemu.0.wait().unwrap();
            assert!(Raw::connect(&socket).is_served(7));
            assert!(passt.alive());
        }
    });
}
