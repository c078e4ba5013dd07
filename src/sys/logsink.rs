//! Where messages go [LOG-1, LOG-2, LOG-3, LOG-5, LOG-7, LOG-8, W-6].
//!
//! # Theory of operation
//!
//! Until the options are known: standard error. Then the log file if there is one, else the system
//! log (with `--debug`: standard error), and standard error as well as long as somebody reads it
//! there: until we detach, or the command runs. For a command's sake only warnings and errors are
//! shown on standard error even before that, unless debugging [NS-7].
//!
//! The socket of the system log is opened once, since the sandbox has no `/dev/log`, and never
//! blocks: a log daemon that does not read costs messages, not traffic.
//!
//! Messages are one line: control characters in them, which a peer may have chosen, are replaced.
//! What a guest or peer can cause again and again goes through a [`Limit`] of its own.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use log::{Level, LevelFilter};

use super::logfile::{LogFile, stamp};
use crate::config::{Mode, Verbosity};

/// Starts logging to standard error, at the default level. First step of all that logs; a second
/// call does nothing. Also makes a panic one line here instead of a backtrace.
pub fn init() {
    START.get_or_init(Instant::now);
    let mut builder = env_logger::Builder::new();
    builder
        .filter_level(LevelFilter::Trace)
        .format(|line, record| writeln!(line, "{} {}", record.level() as usize, record.args()))
        .target(env_logger::Target::Pipe(Box::new(Sink(Vec::with_capacity(LINE)))));
    if builder.try_init().is_ok() {
        log::set_max_level(LevelFilter::Info);
        std::panic::set_hook(Box::new(|panic| log::error!("internal error: {panic}")));
    }
}

/// Applies the options. `command`: a command is going to run in this terminal. `file`: where
/// messages go instead of the system log; see [`identify`].
pub fn configure(mode: Mode, verbosity: Verbosity, command: bool, file: Option<LogFile>) {
    let debug = verbosity >= Verbosity::Debug;
    log::set_max_level(match verbosity {
        Verbosity::Quiet => LevelFilter::Warn,
        Verbosity::Info => LevelFilter::Info,
        Verbosity::Debug => LevelFilter::Debug,
        Verbosity::Trace => LevelFilter::Trace,
    });
    DEBUG.store(debug, Ordering::Relaxed);
    let stderr = if command && !debug { LevelFilter::Warn } else { LevelFilter::Trace };
    STDERR.store(stderr as u8, Ordering::Relaxed);
    if let (Some(file), Ok(mut place)) = (file, FILE.lock()) {
        *place = Some(file);
    } else if !debug {
        let socket = connect("/dev/log").ok();
        SYSLOG.get_or_init(|| Syslog { name: mode.name(), socket });
    }
}

/// Says which process it is that logs from here on: the number as seen by who started us. What was
/// logged before is in the log file only then.
pub fn identify(pid: u32) {
    if let Ok(mut file) = FILE.try_lock()
        && let Some(file) = file.as_mut()
    {
        file.begin(pid);
    }
}

/// The end: what is in the log file is on the disk.
pub fn sync() {
    if let Ok(file) = FILE.try_lock()
        && let Some(file) = file.as_ref()
    {
        file.sync();
    }
}

/// Keeps a message that somebody else can cause from filling the log: a call site has one, see
/// [`limited!`](crate::limited). Five messages per second are shown, and then how many were not.
#[derive(Debug)]
pub struct Limit {
    /// Milliseconds since the start at which the present second began.
    since: AtomicU64,
    /// Messages in it.
    count: AtomicU64,
}

impl Limit {
    /// Messages that are shown per second.
    const MOST: u64 = 5;

    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { since: AtomicU64::new(0), count: AtomicU64::new(0) }
    }

    /// Logs, or does not. Who debugs sees everything.
    pub fn log(&self, level: Level, text: std::fmt::Arguments<'_>) {
        if log::max_level() >= LevelFilter::Debug {
            log::log!(level, "{text}");
            return;
        }
        let now = START.get_or_init(Instant::now).elapsed();
        match self.count(u64::try_from(now.as_millis()).unwrap_or(u64::MAX)) {
            Verdict::Show { left_out: 0 } => log::log!(level, "{text}"),
            Verdict::Show { left_out } => {
                log::log!(level, "{left_out} messages like the next one were left out");
                log::log!(level, "{text}");
            }
            Verdict::Last => {
                log::log!(level, "{text} (more of these within a second are left out)");
            }
            Verdict::LeaveOut => {}
        }
    }

    fn count(&self, now: u64) -> Verdict {
        let since = self.since.load(Ordering::Relaxed);
        if now.saturating_sub(since) >= 1000 {
            self.since.store(now, Ordering::Relaxed);
            let before = self.count.swap(1, Ordering::Relaxed);
            return Verdict::Show { left_out: before.saturating_sub(Self::MOST) };
        }
        match self.count.fetch_add(1, Ordering::Relaxed).saturating_add(1) {
            n if n < Self::MOST => Verdict::Show { left_out: 0 },
            Self::MOST => Verdict::Last,
            _ => Verdict::LeaveOut,
        }
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self::new()
    }
}

/// What becomes of a message.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Show { left_out: u64 },
    Last,
    LeaveOut,
}

/// As `log::log!`, for messages that a guest or peer can cause: at most five a second from the same
/// place in the program [LOG-8].
#[macro_export]
macro_rules! limited {
    ($level:ident, $($text:tt)+) => {{
        static LIMIT: $crate::sys::logsink::Limit = $crate::sys::logsink::Limit::new();
        LIMIT.log(::log::Level::$level, format_args!($($text)+));
    }};
}

/// Standard error is no longer ours: we are in the background.
pub fn detach() {
    STDERR.store(LevelFilter::Off as u8, Ordering::Relaxed);
}

/// Standard error is the command's now. While debugging we go on sharing it.
pub fn command_started() {
    if !DEBUG.load(Ordering::Relaxed) {
        detach();
    }
}

/// Longest message, in bytes; the rest is cut off.
const LINE: usize = 8192;

/// The origin of time stamps.
static START: OnceLock<Instant> = OnceLock::new();
/// Most verbose level shown on standard error, as a `LevelFilter`.
static STDERR: AtomicU8 = AtomicU8::new(LevelFilter::Trace as u8);
/// Debugging: time stamps, and no system log.
static DEBUG: AtomicBool = AtomicBool::new(false);
static SYSLOG: OnceLock<Syslog> = OnceLock::new();
static FILE: Mutex<Option<LogFile>> = Mutex::new(None);

struct Syslog {
    name: &'static str,
    /// None: there is no system log, and nobody to tell.
    socket: Option<UnixDatagram>,
}

/// Receives `LEVEL TEXT\n`, one record per write; the buffer is reused.
struct Sink(Vec<u8>);

impl Write for Sink {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        if let Some((level, text)) = split(record) {
            let elapsed = START.get_or_init(Instant::now).elapsed();
            if level as u8 <= STDERR.load(Ordering::Relaxed) {
                let time = DEBUG.load(Ordering::Relaxed).then_some(elapsed);
                stderr_line(&mut self.0, time, text);
                // Nobody could be told of an error here. Not through std's handle, whose lock a
                // panic might hold.
                let _ = nix::unistd::write(io::stderr(), &self.0);
            }
            if let Some(Syslog { name, socket: Some(socket) }) = SYSLOG.get()
                && !DEBUG.load(Ordering::Relaxed)
            {
                syslog_line(&mut self.0, level, name, text);
                let _ = socket.send(&self.0);
            }
            // Held only by a panic in the middle of this.
            if let Ok(mut file) = FILE.try_lock()
                && let Some(file) = file.as_mut()
            {
                file.put(elapsed, level, text);
            }
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn connect(path: &str) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(path)?;
    Ok(socket)
}

fn split(record: &[u8]) -> Option<(Level, &[u8])> {
    let (digit, rest) = record.split_first()?;
    let level = Level::iter().find(|level| *level as u8 == digit.wrapping_sub(b'0'))?;
    Some((level, rest.strip_prefix(b" ")?.trim_ascii_end()))
}

fn stderr_line(line: &mut Vec<u8>, elapsed: Option<Duration>, text: &[u8]) {
    line.clear();
    if let Some(elapsed) = elapsed {
        line.extend(stamp(elapsed).into_bytes());
    }
    finish(line, text);
}

fn syslog_line(line: &mut Vec<u8>, level: Level, name: &str, text: &[u8]) {
    let severity: libc::c_int = match level {
        Level::Error => libc::LOG_ERR,
        Level::Warn => libc::LOG_WARNING,
        Level::Info => libc::LOG_INFO,
        Level::Debug | Level::Trace => libc::LOG_DEBUG,
    };
    line.clear();
    let _ = write!(line, "<{}> {name}: ", libc::LOG_DAEMON | severity);
    finish(line, text);
}

/// Appends the text as one line of bounded length.
pub(super) fn finish(line: &mut Vec<u8>, text: &[u8]) {
    let room = LINE - 1 - line.len().min(LINE - 1);
    line.extend(
        text.iter().take(room).map(|&byte| if byte.is_ascii_control() { b' ' } else { byte }),
    );
    line.push(b'\n');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    // [LOG-8] Five a second, a word about the rest, and how many it was.
    #[test]
    fn what_others_cause_is_limited() {
        let limit = Limit::new();
        let show = Verdict::Show { left_out: 0 };
        let first: Vec<_> = (0..8).map(|n| limit.count(5000 + n)).collect();
        assert!(first[..4].iter().all(|verdict| *verdict == show), "{first:?}");
        assert_eq!(first[4..6], [Verdict::Last, Verdict::LeaveOut]);
        assert_eq!(limit.count(5999), Verdict::LeaveOut);
        assert_eq!(limit.count(6000), Verdict::Show { left_out: 4 });
        assert_eq!(limit.count(7000), show);
    }

    // [LOG-3]
    #[test]
    fn debug_lines_carry_seconds_and_tenths_of_milliseconds() {
        let mut line = Vec::new();
        stderr_line(&mut line, Some(Duration::from_micros(12_003_456)), b"hello");
        assert_eq!(line, b"12.0034: hello\n");
        stderr_line(&mut line, None, b"hello");
        assert_eq!(line, b"hello\n");
    }

    // [LOG-7] [W-6]
    #[test]
    fn syslog_lines_are_of_the_daemon_facility() {
        let mut line = Vec::new();
        syslog_line(&mut line, Level::Warn, "pasta", b"look out");
        assert_eq!(line, b"<28> pasta: look out\n");
        syslog_line(&mut line, Level::Info, "passt", b"a\nb");
        assert_eq!(line, b"<30> passt: a b\n");
    }

    #[test]
    fn records_are_split_and_bounded() {
        assert_eq!(split(b"1 text\n"), Some((Level::Error, &b"text"[..])));
        assert_eq!(split(b"5 x y\n"), Some((Level::Trace, &b"x y"[..])));
        assert_eq!(split(b"9 x\n"), None);
        let mut line = Vec::new();
        stderr_line(&mut line, None, &[b'x'; 3 * LINE]);
        assert_eq!(line.len(), LINE);
    }

    // [W-6]
    #[test]
    fn an_unread_system_log_does_not_block() {
        let path = std::env::temp_dir().join(format!("passt-log-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let server = UnixDatagram::bind(&path).unwrap();
        let client = connect(path.to_str().unwrap()).unwrap();
        let full = (0..100_000).any(|_| client.send(b"<30> passt: x\n").is_err());
        assert!(full, "the queue never filled");
        drop(server);
        std::fs::remove_file(&path).unwrap();
    }
}
