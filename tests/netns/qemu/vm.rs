//! A machine that runs under QEMU, and its console.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use crate::lab::Helper;

/// Booting and moving data takes its time without acceleration, above all where others are busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// What `tests/guest/build` made.
pub(super) fn guest_file(name: &str) -> PathBuf {
    let dir = std::env::var_os("PASST_GUEST")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/guest"), PathBuf::from);
    let path = dir.join(name);
    assert!(path.exists(), "{} is missing: tests/guest/build makes it", path.display());
    path
}

/// QEMU as installed.
pub(super) fn installed() -> PathBuf {
    "qemu-system-x86_64".into()
}

/// A later one, where `tests/run` keeps it.
pub(super) fn later() -> PathBuf {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let kept = ["/var/cache".into(), home.join(".cache")].map(|d| d.join("passt-tests/qemu/run"));
    let named = std::env::var_os("PASST_LATER_QEMU").map(PathBuf::from);
    let found = named.into_iter().chain(kept).find(|path| path.exists());
    found.expect("no later QEMU: tests/guest/qemu unpacks one")
}

/// The machine to start.
#[derive(Clone, Debug)]
pub(super) struct Hardware {
    pub(super) qemu: PathBuf,
    /// Model of the network card.
    pub(super) card: &'static str,
    pub(super) mac: &'static str,
    /// What the card is connected to: arguments of `-netdev`, with the id `s`.
    pub(super) netdev: String,
    pub(super) mtu: u16,
}

impl Hardware {
    pub(super) fn new(card: &'static str, netdev: String, mtu: u16) -> Self {
        Self { qemu: installed(), card, mac: "52:54:00:12:34:56", netdev, mtu }
    }
}

/// A running machine; ends with this value.
pub(super) struct Vm {
    pub(super) qemu: Helper,
    console: ChildStdin,
    lines: Receiver<String>,
}

impl Vm {
    /// Starts a machine, and waits until it is up.
    #[track_caller]
    pub(super) fn boot(hardware: &Hardware) -> Vm {
        let mut vm = Vm::start(hardware);
        vm.is_up();
        vm
    }

    /// Waits until it is up.
    #[track_caller]
    pub(super) fn is_up(&mut self) {
        self.until("guest: up");
    }

    /// Starts a machine.
    #[track_caller]
    pub(super) fn start(hardware: &Hardware) -> Vm {
        let Hardware { qemu, card, mac, netdev, mtu } = hardware;
        let host_mtu =
            if card.starts_with("virtio") { format!(",host_mtu={mtu}") } else { String::new() };
        let mut command = Command::new(qemu);
        command
            .args(["-accel", "tcg", "-m", "384", "-nodefaults", "-no-user-config"])
            .args(["-display", "none", "-serial", "stdio", "-netdev", netdev])
            .args(["-device", &format!("{card},netdev=s,mac={mac},romfile={host_mtu}")])
            .arg("-kernel")
            .arg(guest_file("vmlinuz"))
            .arg("-initrd")
            .arg(guest_file("initrd.gz"))
            .arg("-append")
            .arg(format!("console=ttyS0 quiet mtu={mtu}"));
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
    pub(super) fn run(&mut self, line: &str) -> String {
        self.begin(line);
        self.finish(line)
    }

    /// Has a line run inside.
    pub(super) fn begin(&mut self, line: &str) {
        self.console.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// What the line printed that was begun, if it ended well.
    #[track_caller]
    pub(super) fn finish(&mut self, line: &str) -> String {
        let (status, text) = self.until("guest: done ");
        assert_eq!(status, "0", "{line}: {text}");
        text
    }

    /// Starts the machine again, without QEMU.
    #[track_caller]
    pub(super) fn reboot(&mut self) {
        self.begin("reboot -f");
        self.is_up();
    }

    /// Ends QEMU, as a crash would.
    pub(super) fn kill(mut self) {
        self.qemu.0.kill().unwrap();
        self.qemu.0.wait().unwrap();
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
