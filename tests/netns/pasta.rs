//! The program under test, in its three shapes.
//!
//! * [`Lab::guest`]: `pasta OPTIONS -- COMMAND`, with a command that lives as long as the test; the
//!   usual way to get a namespace with network.
//! * [`Lab::attach`]: `pasta OPTIONS PID` or `--netns`, in the background.
//! * [`Lab::pasta`]: any command line, run to its end.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::{Lab, Output, SOON, eventually, output_within, pasta_path};
use crate::ns::Ns;

/// Options of a pasta that forwards no port.
pub(crate) const QUIET: &str = "-t none -u none -T none -U none";

/// A network namespace connected by a running pasta.
pub(crate) struct Guest {
    /// The namespace.
    pub(crate) ns: Ns,
    /// The command in it, its process 1.
    pub(crate) pid: i32,
    /// pasta.
    pub(crate) pasta: Running,
}

/// A running pasta. Prints what it said if the test fails.
pub(crate) struct Running {
    /// Its process.
    pub(crate) pid: i32,
    child: Option<Child>,
    stderr: PathBuf,
    status: Option<ExitStatus>,
}

impl Lab {
    /// `pasta --config-net OPTIONS -- sleep`, up and running.
    #[track_caller]
    pub(crate) fn guest(&self, options: &str) -> Guest {
        let mut command = self.command(&format!("--config-net {options}"));
        if std::env::var_os("PASST_TESTS_PCAP").is_some() {
            command.arg("--pcap").arg(self.capture());
        }
        self.guest_raw(command)
    }

    /// As [`Lab::guest`], from a command line prepared by the caller, without the command.
    #[track_caller]
    pub(crate) fn guest_raw(&self, mut command: Command) -> Guest {
        let stderr = self.fresh("stderr");
        let mut child = command
            .args(["--", "sh", "-c", "echo up; exec sleep infinity"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let mut pasta = Running { pid, child: Some(child), stderr, status: None };
        let mut word = [0; 3];
        let first = thread::spawn(move || stdout.read_exact(&mut word));
        eventually("command in the guest starts", SOON, || {
            let up = first.is_finished();
            assert!(up || pasta.alive(), "pasta ended before its command ran");
            up
        });
        first.join().unwrap().unwrap();
        let inner = *children(pid).first().expect("the command is a child of pasta");
        Guest { ns: Ns::of_pid(inner), pid: inner, pasta }
    }

    /// `pasta OPTIONS`, which has to go to the background by itself with status 0.
    #[track_caller]
    pub(crate) fn attach(&self, options: &str) -> Running {
        self.background(self.command(options.trim_start()))
    }

    /// As [`Lab::attach`], for a command line prepared by the caller that takes one more argument
    /// at its beginning.
    #[track_caller]
    pub(crate) fn background(&self, prepared: Command) -> Running {
        let pid_file = self.fresh("pid");
        let stderr = self.fresh("stderr");
        let options: Vec<_> = prepared.get_args().map(std::ffi::OsStr::to_owned).collect();
        let mut command = Command::new(prepared.get_program());
        command.arg("--pid").arg(&pid_file).args(&options);
        let status = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&stderr).unwrap())
            .status()
            .unwrap();
        let said = fs::read_to_string(&stderr).unwrap();
        assert!(status.success(), "{options:?}: {status}\n{said}");
        let text = fs::read_to_string(&pid_file).unwrap();
        let pid = text.strip_suffix('\n').and_then(|t| t.parse().ok());
        let pid = pid.unwrap_or_else(|| panic!("PID file says {text:?}\n{said}"));
        Running { pid, child: None, stderr, status: None }
    }

    /// Runs `pasta OPTIONS... -- ...` to its end.
    #[track_caller]
    pub(crate) fn pasta<A: Into<OsString> + Clone>(&self, args: &[A]) -> Output {
        let mut command = Command::new(pasta_path());
        command.args(args.iter().cloned().map(Into::into));
        output_within(&mut command, SOON)
    }

    /// `pasta OPTIONS`, not started yet.
    pub(crate) fn command(&self, options: &str) -> Command {
        let mut command = Command::new(pasta_path());
        command.args(options.split_whitespace());
        command
    }

    /// A program of ours in the foreground, whatever it says kept.
    pub(crate) fn foreground(&self, mut command: Command) -> Running {
        let stderr = self.fresh("stderr");
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        Running { pid, child: Some(child), stderr, status: None }
    }

    /// A path that was not used before.
    pub(crate) fn fresh(&self, name: &str) -> PathBuf {
        (0..).map(|n| self.dir().join(format!("{name}.{n}"))).find(|p| !p.exists()).unwrap()
    }
}

impl Guest {
    /// A command run inside, as root there, with the test's own files.
    pub(crate) fn command(&self, program: &str) -> Command {
        self.ns.command(program)
    }

    /// Runs `PROGRAM ARGS` inside; its output if it ended well.
    #[track_caller]
    pub(crate) fn run(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().unwrap());
        output_within(command.args(words), Duration::from_secs(60)).ok()
    }
}

impl Running {
    /// Sends a signal.
    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid), signal).unwrap();
    }

    /// Waits for the end, at most `limit`.
    #[track_caller]
    pub(crate) fn wait(&mut self, limit: Duration) -> ExitStatus {
        eventually("pasta ends", limit, || self.ended().is_some());
        self.status.unwrap()
    }

    /// Is it still there?
    pub(crate) fn alive(&mut self) -> bool {
        self.ended().is_none()
    }

    /// What it printed so far.
    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Processor time it used since it started.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap();
        let fields = stat.rsplit_once(')').unwrap().1;
        let ticks: u64 =
            fields.split_whitespace().skip(11).take(2).map(|f| f.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10) // USER_HZ is 100 everywhere
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = match &mut self.child {
                Some(child) => child.try_wait().unwrap(),
                None => reap(self.pid),
            };
        }
        self.status
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if thread::panicking() {
            let end = self.ended().map_or_else(|| "still running".into(), |s| s.to_string());
            eprintln!("--- pasta ({end}) said:\n{}---", self.stderr());
        }
    }
}

/// Direct children of a process.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let parent = |pid: i32| -> Option<i32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    processes().into_iter().filter(|&p| parent(p) == Some(pid)).collect()
}

/// Every process of the lab.
pub(crate) fn processes() -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

/// The status of an ended child of ours, adopted or not. A process nobody knows counts as ended.
fn reap(pid: i32) -> Option<ExitStatus> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the result.
    match unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) } {
        0 => None,
        _ => Some(ExitStatus::from_raw(status)),
    }
}

/// Time `f` takes.
pub(crate) fn timed<R>(f: impl FnOnce() -> R) -> (R, Duration) {
    let start = Instant::now();
    (f(), start.elapsed())
}
