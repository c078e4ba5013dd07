//! Real virtual machines: QEMU without hardware acceleration, a Debian kernel and busybox, as
//! `tests/guest/build` makes them; and a later QEMU than Debian's, which `tests/guest/qemu` unpacks.

mod vm;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::lab::{
    HOST4, HOST6, Helper, Lab, REMOTE4, REMOTE6, SOON, at, eventually, output_within, unprivileged,
};
use crate::machine::Raw;
use crate::net::{accept, connect, listen, pattern};
use crate::ns::Ns;
use crate::pasta::Running;
use vm::{Hardware, Vm, guest_file, later};

/// Bytes of a transfer that is to take its time.
const MUCH: usize = 50_000_000;

/// Longest time that an emulated machine may take for one of them, where others are busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// The SHA-256 of some bytes.
fn sha256(lab: &Lab, data: &[u8]) -> String {
    let path = lab.fresh("sha");
    fs::write(&path, data).unwrap();
    let out = output_within(Command::new("sha256sum").arg(&path), PATIENCE).ok();
    fs::remove_file(&path).unwrap();
    out.split_whitespace().next().unwrap().to_owned()
}

/// A server, and the host's address of that family.
type Family = (IpAddr, IpAddr);
const IPV4: Family = (REMOTE4, HOST4);
const IPV6: Family = (REMOTE6, HOST6);

/// Everything a machine does: `bytes` of a stream in every direction. Port 8080 of the host is port
/// 80 of the machine.
fn everything(lab: &Lab, vm: &mut Vm, bytes: usize, families: &[Family]) {
    let data = pattern(bytes);
    let digest = sha256(lab, &data);
    for &(remote, own) in families {
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
        let mut got = vec![0; bytes];
        peer.read_exact(&mut got).unwrap();
        assert!(got == data, "upload to {remote}");
        drop(peer);
        vm.finish("upload");

        inbound(lab, vm, (own, 8080), &data, &digest);

        let server = crate::net::udp(&lab.remote, at(remote, 53));
        let resolver = thread::spawn(move || resolve(&server));
        let said = vm.run(&format!("nslookup -type=a name.example {remote}"));
        assert!(said.contains("192.0.2.77"), "{said}");
        assert_eq!(resolver.join().unwrap(), own);
    }
}

/// A connection to `port` of the host, which is port 80 of the machine.
fn inbound(lab: &Lab, vm: &mut Vm, (host, port): (IpAddr, u16), data: &[u8], digest: &str) {
    vm.run("nc -l -p 80 >/tmp/in &");
    vm.run("until grep -q ':0050 .* 0A ' /proc/net/tcp /proc/net/tcp6; do sleep 0.1; done");
    let mut peer = connect(&lab.remote, at(host, port));
    peer.write_all(data).unwrap();
    drop(peer);
    let said = vm.run("wait; sha256sum </tmp/in");
    assert!(said.contains(digest), "inbound at {host}: {said}");
}

/// A little of that. By IPv4, peers come first: the machine need not have said a word. Which address
/// it made itself for IPv6 is known once it has.
fn greets(lab: &Lab, vm: &mut Vm, port: u16) {
    let data = pattern(100_000);
    let digest = sha256(lab, &data);
    inbound(lab, vm, (HOST4, port), &data, &digest);
    for remote in [REMOTE4, REMOTE6] {
        vm.run(&format!("ping -c 1 -W 10 {remote}"));
    }
    inbound(lab, vm, (HOST6, port), &data, &digest);
}

/// Moves a file into the machine in datagrams of `size` bytes and back, over both families; `port`
/// of the host is port 53 of the machine.
fn datagrams(lab: &Lab, vm: &mut Vm, bytes: usize, size: usize, port: u16) {
    let data = pattern(bytes);
    let digest = sha256(lab, &data);
    let (there, back) = (lab.dir().join("there"), lab.dir().join("back"));
    fs::write(&there, &data).unwrap();
    let run = |ns: &Ns, args: &str, input: Stdio, output: Stdio| {
        let mut command = ns.command(guest_file("datagrams"));
        command.args(args.split_whitespace()).stdin(input).stdout(output);
        Helper(command.spawn().unwrap())
    };
    for (remote, own) in [IPV4, IPV6] {
        // So that its address is known.
        vm.run(&format!("ping -c 1 -W 10 {remote}"));
        vm.begin("datagrams receive :: 53 >/tmp/in && sha256sum </tmp/in");
        let input = File::open(&there).unwrap().into();
        let mut sender =
            run(&lab.remote, &format!("send {own} {port} {size}"), input, Stdio::null());
        let said = vm.finish("datagrams into the machine");
        assert!(said.contains(&digest), "from {remote}: {said}");
        assert!(sender.0.wait().unwrap().success());

        let output = File::create(&back).unwrap().into();
        let mut receiver =
            run(&lab.remote, &format!("receive {remote} 7001"), Stdio::null(), output);
        vm.run(&format!("datagrams send {remote} 7001 {size} </tmp/in"));
        eventually("all was received", PATIENCE, || receiver.0.try_wait().unwrap().is_some());
        assert!(receiver.0.wait().unwrap().success());
        assert!(fs::read(&back).unwrap() == data, "to {remote}");
    }
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
        let mut vm = Vm::boot(&Hardware::new("virtio-net-pci", netdev(&socket), 65520));
        let network = vm.run("ip addr show dev eth0; ip route; ip -6 route");
        for expected in [&format!("inet {HOST4}/24"), "default via 10.9.0.1", "2001:db8:9:"] {
            assert!(network.contains(expected), "{expected}: {network}");
        }
        everything(lab, &mut vm, MUCH, &[IPV4]);
    });
}

#[test]
fn virtio_machine_over_ipv6() {
    // [TAP-2] [NDP-6]
    Lab::run(|lab| {
        allow_pings(lab);
        let (_passt, socket) = lab.passt("-t 8080:80");
        let mut vm = Vm::boot(&Hardware::new("virtio-net-pci", netdev(&socket), 65520));
        everything(lab, &mut vm, MUCH, &[IPV6]);
    });
}

#[test]
fn virtio_machine_in_datagrams() {
    // [UDP-*] whole, as nothing is lost that is waited for
    Lab::run(|lab| {
        allow_pings(lab);
        let (_passt, socket) = lab.passt("-u 8053:53");
        let mut vm = Vm::boot(&Hardware::new("virtio-net-pci", netdev(&socket), 65520));
        datagrams(lab, &mut vm, MUCH, 60_000, 8053);
    });
}

#[test]
fn e1000_machine() {
    // [TAP-6] [TAP-14] an old card, which pads
    Lab::run(|lab| {
        allow_pings(lab);
        let (_passt, socket) = lab.passt("-t 8080:80");
        let mut vm = Vm::boot(&Hardware::new("e1000", netdev(&socket), 1500));
        everything(lab, &mut vm, MUCH, &[IPV4, IPV6]);
    });
}

#[test]
fn e1000_machine_in_datagrams() {
    // [UDP-*] [TAP-6] [TAP-14]
    Lab::run(|lab| {
        allow_pings(lab);
        let (_passt, socket) = lab.passt("-u 8053:53");
        let mut vm = Vm::boot(&Hardware::new("e1000", netdev(&socket), 1500));
        datagrams(lab, &mut vm, MUCH, 1400, 8053);
    });
}

#[test]
fn machines_come_and_go() {
    // [LIFE-12] [T-17] [TAP-8] A machine starts again, within QEMU and with it; then there is another
    // one, with another card and address.
    Lab::run(|lab| {
        allow_pings(lab);
        let (_passt, socket) = lab.passt("-t 8080:80");
        let hardware = Hardware::new("virtio-net-pci", netdev(&socket), 65520);
        let mut vm = Vm::boot(&hardware);
        greets(lab, &mut vm, 8080);
        vm.reboot();
        greets(lab, &mut vm, 8080);
        vm.kill();
        let mut vm = Vm::boot(&Hardware { mtu: 1500, ..hardware.clone() });
        greets(lab, &mut vm, 8080);
        vm.kill();
        let other = Hardware { card: "e1000", mac: "52:54:00:77:77:77", mtu: 1500, ..hardware };
        let mut vm = Vm::boot(&other);
        greets(lab, &mut vm, 8080);
    });
}

#[test]
fn killed_machines_leave_nothing() {
    // [W-5] [LIFE-12] [T-17] QEMU killed in the middle of traffic, and another guest in between
    Lab::run(|lab| {
        let (mut passt, socket) = lab.passt("");
        let server = listen(&lab.remote, at(REMOTE4, 7000));
        for _ in 0..2 {
            let mut vm = Vm::boot(&Hardware::new("virtio-net-pci", netdev(&socket), 1500));
            vm.begin(&format!("nc {REMOTE4} 7000 </dev/zero"));
            let mut peer = accept(&server);
            peer.read_exact(&mut [0; 1 << 20]).unwrap();
            vm.kill();
            assert!(Raw::connect(&socket).is_served(7));
            assert!(passt.alive());
        }
    });
}

/// passt on one end of a connection.
fn passt_on(lab: &Lab, end: UnixStream, options: &str) -> Running {
    let mut command = lab.passt_command(&format!("-f --fd 7 {options}"));
    let raw = end.as_raw_fd();
    // SAFETY: only dup2(2) and fcntl(2), on a descriptor that lives until the child runs.
    unsafe {
        command.pre_exec(move || {
            libc::dup2(raw, 7);
            inherited(7);
            Ok(())
        });
    }
    let passt = lab.foreground(command);
    drop(end);
    passt
}

/// Lets programs that are started have a descriptor.
fn inherited(fd: RawFd) {
    // SAFETY: changes a flag of a descriptor that the caller has open.
    unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
}

/// A word from the machine's peer.
fn hears(lab: &Lab, vm: &mut Vm) {
    let server = listen(&lab.remote, at(REMOTE4, 7000));
    vm.begin(&format!("nc {REMOTE4} 7000 </dev/null"));
    accept(&server).write_all(b"hello\n").unwrap();
    assert!(vm.finish("nc").contains("hello"));
}

#[test]
fn machine_on_a_descriptor() {
    // [COMPAT-36] [LIFE-12] `socket,fd=`, `stream` with a descriptor and `--fd` speak the same; both
    // end together
    Lab::run(|lab| {
        for netdev in ["socket,id=s,fd=", "stream,id=s,server=off,addr.type=fd,addr.str="] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let mut passt = passt_on(lab, ours, "");
            let fd = theirs.as_raw_fd();
            inherited(fd);
            let mut vm = Vm::boot(&Hardware::new("virtio-net-pci", format!("{netdev}{fd}"), 1500));
            drop(theirs);
            hears(lab, &mut vm);
            vm.kill();
            assert_eq!(passt.wait(SOON).code(), Some(0));
        }
    });
}

#[test]
fn machine_that_listens() {
    // [COMPAT-36] QEMU as the server: whoever connects hands the connection to passt, again after
    // that has ended
    Lab::run(|lab| {
        let path = lab.fresh("qemu.socket");
        let netdev = format!("stream,id=s,server=on,addr.type=unix,addr.path={}", path.display());
        let mut vm = Vm::start(&Hardware::new("virtio-net-pci", netdev, 1500));
        let connection = || {
            let mut end = None;
            eventually("QEMU listens", PATIENCE, || {
                end = UnixStream::connect(&path).ok();
                end.is_some()
            });
            end.unwrap()
        };
        let mut passt = passt_on(lab, connection(), "-t 8080:80");
        vm.is_up();
        hears(lab, &mut vm);
        passt.signal(Signal::SIGTERM);
        assert_eq!(passt.wait(SOON).code(), Some(0));
        let _passt = passt_on(lab, connection(), "-t 8080:80");
        hears(lab, &mut vm);
        let data = pattern(100_000);
        inbound(lab, &mut vm, (HOST4, 8080), &data, &sha256(lab, &data));
    });
}

/// A machine of the QEMU of the next Debian.
fn later_machine(lab: &Lab, card: &'static str, mtu: u16) {
    allow_pings(lab);
    let (_passt, socket) = lab.passt("-t 8080:80");
    let hardware = Hardware { qemu: later(), ..Hardware::new(card, netdev(&socket), mtu) };
    everything(lab, &mut Vm::boot(&hardware), MUCH, &[IPV4, IPV6]);
}

#[test]
fn later_qemu() {
    // [COMPAT-36] [TAP-2]
    Lab::run(|lab| later_machine(lab, "virtio-net-pci", 65520));
}

#[test]
fn later_qemu_with_e1000() {
    // [COMPAT-36] [TAP-6] [TAP-14]
    Lab::run(|lab| later_machine(lab, "e1000", 1500));
}

#[test]
fn later_qemu_connects_again() {
    // [TAP-8] [LIFE-12] [TAP-1] passt ends and another one starts: QEMU comes back by itself, and is
    // found before the machine has said a word
    Lab::run(|lab| {
        allow_pings(lab);
        for (again, end) in
            [("reconnect-ms=100", Signal::SIGKILL), ("reconnect=1", Signal::SIGTERM)]
        {
            let (mut passt, socket) = lab.passt("-t 8080:80");
            let netdev = format!("{},{again}", netdev(&socket));
            let card = Hardware::new("virtio-net-pci", netdev, 1500);
            let mut vm = Vm::boot(&Hardware { qemu: later(), ..card });
            hears(lab, &mut vm);
            passt.signal(end);
            passt.wait(SOON);
            let mut command = lab.passt_command("-t 8080:80 --socket");
            command.arg(&socket);
            passt = lab.background(command);
            greets(lab, &mut vm, 8080);
            passt.signal(Signal::SIGTERM);
            passt.wait(SOON);
        }
    });
}
