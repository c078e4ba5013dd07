//! Where messages go [LOG-1, LOG-2, LOG-3, LOG-5, LOG-7, W-6].
//!
//! # Theory of operation
//!
//! Until the options are known: standard error. Then the system log (with `--debug`: standard
//! error), and standard error as well as long as somebody reads it there: until we detach, or the
//! command runs. For a command's sake only warnings and errors are shown on standard error even
//! before that, unless debugging [NS-7].
//!
//! The socket of the system log is opened once, since the sandbox has no `/dev/log`, and never
//! blocks: a log daemon that does not read costs messages, not traffic.
//!
//! Messages are one line: control characters in them, which a peer may have chosen, are replaced.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Instant;

use log::{Level, LevelFilter};

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

/// Applies the options. `command`: a command is going to run in this terminal.
pub fn configure(mode: Mode, verbosity: Verbosity, command: bool) {
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
    if !debug {
        SYSLOG.get_or_init(|| Syslog {
            name: match mode {
                Mode::Passt => "passt",
                Mode::Pasta => "pasta",
            },
            socket: connect("/dev/log").ok(),
        });
    }
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
            if level as u8 <= STDERR.load(Ordering::Relaxed) {
                let time = DEBUG.load(Ordering::Relaxed).then(|| START.get_or_init(Instant::now));
                stderr_line(&mut self.0, time.map(|start| start.elapsed()), text);
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

fn stderr_line(line: &mut Vec<u8>, elapsed: Option<std::time::Duration>, text: &[u8]) {
    line.clear();
    if let Some(elapsed) = elapsed {
        // Units of 100 microseconds.
        let _ = write!(line, "{}.{:04}: ", elapsed.as_secs(), elapsed.subsec_micros() / 100);
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
fn finish(line: &mut Vec<u8>, text: &[u8]) {
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
    use std::time::Duration;

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
