//! passt, and a guest on its stream socket.
//!
//! The guest is a network namespace with a tap device, and a program (`tests/bench/guest.c`) that
//! relays frames between the device and the socket: the kernel's network stack, behind the link of a
//! virtual machine. The device outlasts the program, so that the guest can be taken off the socket
//! and come back with its connections.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::lab::{
    GATEWAY4, GATEWAY6, HOST4, HOST6, Helper, Lab, SOON, eventually, ip_batch, output_within,
};
use crate::ns::Ns;
use crate::pasta::Running;

/// A guest, connected or not.
pub(crate) struct Machine {
    /// Its network.
    pub(crate) ns: Ns,
    program: PathBuf,
    relay: Option<Helper>,
}

impl Lab {
    /// `passt OPTIONS`, not started yet.
    pub(crate) fn passt_command(&self, options: &str) -> Command {
        let path = std::env::var_os("PASST")
            .map_or_else(|| env!("CARGO_BIN_EXE_passt").into(), PathBuf::from);
        let mut command = Command::new(path);
        command.args(options.split_whitespace());
        command
    }

    /// `passt --socket PATH OPTIONS` in the background, and the path.
    #[track_caller]
    pub(crate) fn passt(&self, options: &str) -> (Running, PathBuf) {
        let path = self.fresh("guest.socket");
        let mut command = self.passt_command(options);
        command.arg("--socket").arg(&path);
        if std::env::var_os("PASST_TESTS_PCAP").is_some() {
            command.arg("--pcap").arg(self.capture());
        }
        (self.background(command), path)
    }

    /// A guest with the host's addresses and this MTU, not connected yet.
    #[track_caller]
    pub(crate) fn machine(&self, name: &str, mtu: u32) -> Machine {
        let program = self.dir().join("guest");
        if !program.exists() {
            let source = self.dir().join("guest.c");
            std::fs::write(&source, include_str!("../bench/guest.c")).unwrap();
            let mut cc = Command::new("cc");
            cc.args(["-O2", "-pthread", "-o"]).arg(&program).arg(source);
            output_within(&mut cc, SOON).ok();
        }
        let ns = self.new_netns(name);
        ns.enter(crate::lab::quiet_ipv6);
        ip_batch(
            name,
            &format!(
                "tuntap add name vm0 mode tap
                 link set lo up
                 link set vm0 mtu {mtu} up
                 addr add {HOST4}/24 dev vm0
                 addr add {HOST6}/64 dev vm0 nodad
                 route add default via {GATEWAY4}
                 route add ::/0 via {GATEWAY6} dev vm0"
            ),
        );
        Machine { ns, program, relay: None }
    }
}

impl Machine {
    /// Connects it to a socket.
    pub(crate) fn plug(&mut self, socket: &Path) {
        let mut command = self.ns.command(&self.program);
        self.run(command.arg(socket).arg("vm0"));
    }

    fn run(&mut self, command: &mut Command) {
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        self.relay = Some(Helper(child));
        eventually("the guest's link is up", SOON, || {
            let text = self.ns.enter(|| std::fs::read_to_string("/proc/thread-self/net/route"));
            assert!(self.relay().try_wait().unwrap().is_none(), "the guest's link has gone");
            // With a carrier, a route is in use; flag 1 is RTF_UP.
            text.is_ok_and(|t| t.contains("vm0")) && self.has_carrier()
        });
    }

    fn has_carrier(&self) -> bool {
        let mut ip = self.ns.command("ip");
        output_within(ip.args(["link", "show", "vm0"]), SOON).ok().contains("LOWER_UP")
    }

    /// The program behind the socket.
    pub(crate) fn relay(&mut self) -> &mut Child {
        &mut self.relay.as_mut().expect("plugged").0
    }

    /// Stops, or lets go on, the program behind the socket: a guest that does not read.
    pub(crate) fn freeze(&mut self, frozen: bool) {
        use nix::sys::signal::{Signal, kill};
        let pid = nix::unistd::Pid::from_raw(self.relay().id().cast_signed());
        kill(pid, if frozen { Signal::SIGSTOP } else { Signal::SIGCONT }).unwrap();
    }

    /// Kills the program behind the socket, in the middle of whatever it does.
    pub(crate) fn unplug(&mut self) {
        self.relay = None;
    }

    /// Runs `PROGRAM ARGS` inside; its output if it ended well.
    #[track_caller]
    pub(crate) fn run_command(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let mut command = self.ns.command(words.next().unwrap());
        output_within(command.args(words), Duration::from_secs(30)).ok()
    }
}

/// A guest that is a few frames made by hand.
pub(crate) struct Raw(pub(crate) UnixStream);

impl Raw {
    /// Connects.
    #[track_caller]
    pub(crate) fn connect(socket: &Path) -> Raw {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        Raw(stream)
    }

    /// Sends a frame.
    pub(crate) fn send(&mut self, frame: &[u8]) {
        self.0.write_all(&framed(frame)).unwrap();
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) fn receive(&mut self) -> Option<Vec<u8>> {
        let mut prefix = [0; 4];
        self.0.read_exact(&mut prefix).ok()?;
        let mut frame = vec![0; u32::from_be_bytes(prefix) as usize];
        self.0.read_exact(&mut frame).ok()?;
        Some(frame)
    }

    /// Asks for the gateway's address, in pieces of this size; true if there is an answer.
    pub(crate) fn is_served(&mut self, piece: usize) -> bool {
        for part in framed(&arp()).chunks(piece) {
            if self.0.write_all(part).is_err() {
                return false;
            }
        }
        let start = Instant::now();
        while start.elapsed() < SOON {
            match self.receive() {
                // An ARP reply; everything else is asked of us.
                Some(f) if f[12..14] == [8, 6] && f[20..22] == [0, 2] => return true,
                Some(_) => {}
                None => return false,
            }
        }
        false
    }
}

/// A frame with its length.
pub(crate) fn framed(frame: &[u8]) -> Vec<u8> {
    [&u32::try_from(frame.len()).unwrap().to_be_bytes()[..], frame].concat()
}

/// The guest's request for the gateway's address.
pub(crate) fn arp() -> Vec<u8> {
    let (std::net::IpAddr::V4(guest), std::net::IpAddr::V4(gateway)) = (HOST4, GATEWAY4) else {
        unreachable!()
    };
    let mac = [2, 0, 0, 0, 0, 9];
    let head: &[u8] = &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1];
    [&[0xff; 6], &mac[..], head, &mac, &guest.octets(), &[0; 6], &gateway.octets(), &[0; 18]]
        .concat()
}
