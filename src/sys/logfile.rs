//! The log file [LOG-4, LOG-6, W-15, W-16].
//!
//! # Theory of operation
//!
//! The file is opened by the user who starts us, before the sandbox has no name for it any more.
//! Its first line names the process that logs, and in the background that process does not exist
//! yet: until it says who it is ([`LogFile::begin`]), lines wait in memory, and a fork takes them
//! along.
//!
//! Lines are appended, so that whoever truncates the file meanwhile (`logrotate` with
//! `copytruncate`) leaves no hole. When the next line would make the file too long, its oldest part
//! goes: what is left is moved to the front, from the beginning of a line on, behind a first line
//! that says so. That works on every file system, and needs nothing but reading and writing through
//! descriptors: one that appends, one that does not.
//!
//! A file system that is full costs lines, which are counted and told when there is room again.
//!
//! System calls: `read`, `write`, `lseek`, `ftruncate`, `fsync`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use log::Level;

use super::error::{Error, What};

/// Part of the limit that is cut off at a time, in percent.
const CUT: u64 = 30;

/// What is cut off is a multiple of this.
const PAGE: u64 = 4096;

/// Lines that wait for the process that is going to log; more are lost.
const WAITING: usize = 1 << 20;

/// A log file, opened.
#[derive(Debug)]
pub struct LogFile {
    /// Adds to the end.
    end: File,
    /// Reads and writes in the middle; `None` if it is no regular file, and has no length.
    middle: Option<File>,
    limit: u64,
    len: u64,
    /// The first line, without its newline.
    header: String,
    /// What is to be written once we know who we are.
    waiting: Option<Vec<u8>>,
    line: Vec<u8>,
    /// Where moved data passes through.
    copy: Box<[u8]>,
    /// Lines that could not be written.
    lost: u64,
}

impl LogFile {
    /// Creates or empties the file, mode 0600. `program` is told in its first line.
    ///
    /// # Errors
    /// It cannot be opened. The text names the path.
    pub fn create(path: &Path, limit: u64, program: &str) -> Result<Self, Error> {
        let what = || format!("cannot open log file {}", path.display());
        let mut options = OpenOptions::new();
        options.create(true).mode(0o600);
        let end = options.clone().append(true).open(path).what(what)?;
        let middle = if end.metadata().what(what)?.is_file() {
            end.set_len(0).what(what)?;
            Some(OpenOptions::new().read(true).write(true).open(path).what(what)?)
        } else {
            None
        };
        let exe = std::env::current_exe().unwrap_or_default();
        let version = env!("CARGO_PKG_VERSION");
        Ok(Self {
            end,
            middle,
            limit,
            len: 0,
            header: format!("{program} {version}: {}", exe.display()),
            waiting: Some(Vec::new()),
            line: Vec::with_capacity(1024),
            copy: vec![0; 16 << 10].into_boxed_slice(),
            lost: 0,
        })
    }

    /// Says who logs: `pid` as others see it. Everything up to now is written.
    pub(super) fn begin(&mut self, pid: u32) {
        if let Some(waiting) = self.waiting.take() {
            self.header = format!("{} ({pid})", self.header);
            let first = format!("{}\n", self.header);
            self.append(first.as_bytes());
            for line in waiting.split_inclusive(|byte| *byte == b'\n') {
                self.add(line, Duration::ZERO);
            }
        }
    }

    /// Adds a line.
    pub(super) fn put(&mut self, since_start: Duration, level: Level, text: &[u8]) {
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        let tag = match level {
            Level::Error => "ERROR:   ",
            Level::Warn => "WARNING: ",
            Level::Info => "info:    ",
            Level::Debug | Level::Trace => "         ",
        };
        let _ = write!(line, "{}{tag}", stamp(since_start));
        super::logsink::finish(&mut line, text);
        match &mut self.waiting {
            Some(waiting) if waiting.len() < WAITING => waiting.extend(&line),
            Some(_) => self.lost += 1,
            None => self.add(&line, since_start),
        }
        self.line = line;
    }

    /// Sees to it that what was written survives the machine's end.
    pub(super) fn sync(&self) {
        let _ = self.end.sync_all();
    }

    fn add(&mut self, line: &[u8], since_start: Duration) {
        if self.lost > 0 {
            let text = format!("{}WARNING: {} messages were lost\n", stamp(since_start), self.lost);
            if !self.append(text.as_bytes()) {
                self.lost += 1;
                return;
            }
            self.lost = 0;
        }
        if self.len + line.len() as u64 >= self.limit {
            self.shorten(since_start);
        }
        if !self.append(line) {
            self.lost += 1;
        }
    }

    /// Writes all or nothing.
    fn append(&mut self, line: &[u8]) -> bool {
        match (&self.end).write(line) {
            Ok(n) if n == line.len() => {
                self.len += n as u64;
                true
            }
            Ok(_) => {
                // The last bytes of a file system: a part of a line is worth nothing.
                let _ = self.middle.as_ref().map(|file| file.set_len(self.len));
                false
            }
            Err(_) => false,
        }
    }

    /// Cuts off the oldest part.
    fn shorten(&mut self, since_start: Duration) {
        let Some(file) = &self.middle else {
            self.len = 0;
            return;
        };
        let first = format!("{} - log truncated at {}", self.header, stamp(since_start));
        let first = format!("{}\n", first.trim_end_matches([':', ' ']));
        let cut = (self.limit * CUT / 100).next_multiple_of(PAGE);
        let kept = write_at(file, first.as_bytes(), 0).and_then(|()| {
            // What is moved must not lie where the first line is.
            let from = line_start(file, cut.max(first.len() as u64), &mut self.copy)?;
            shift(file, from, first.len() as u64, &mut self.copy)
        });
        // If that fails, what there is cannot be trusted.
        self.len = kept.unwrap_or(0);
        let _ = file.set_len(self.len);
    }
}

/// Time since the start, in seconds and units of 100 microseconds, as it precedes a message.
pub(super) fn stamp(since_start: Duration) -> String {
    format!("{}.{:04}: ", since_start.as_secs(), since_start.subsec_micros() / 100)
}

/// As `pread64`. Reading and writing is allowed anyway, so `lseek` alone is one more call to allow.
fn read_at(mut file: &File, room: &mut [u8], at: u64) -> io::Result<usize> {
    file.seek(SeekFrom::Start(at))?;
    file.read(room)
}

/// As `pwrite64`, of everything.
fn write_at(mut file: &File, data: &[u8], at: u64) -> io::Result<()> {
    file.seek(SeekFrom::Start(at))?;
    file.write_all(data)
}

/// The first line that begins at `from` or later.
fn line_start(file: &File, from: u64, room: &mut [u8]) -> io::Result<u64> {
    // If the byte before is a newline, a line begins right there.
    let mut at = from.saturating_sub(1);
    loop {
        let n = read_at(file, room, at)?;
        let data = room.get(..n).unwrap_or_default();
        match data.iter().position(|byte| *byte == b'\n') {
            Some(newline) => return Ok(at + newline as u64 + 1),
            None if n == 0 => return Ok(at),
            None => at += n as u64,
        }
    }
}

/// Moves everything from `from` on to `to`, which lies before; the new length.
fn shift(file: &File, mut from: u64, mut to: u64, room: &mut [u8]) -> io::Result<u64> {
    loop {
        let n = read_at(file, room, from)?;
        if n == 0 {
            return Ok(to);
        }
        write_at(file, room.get(..n).unwrap_or_default(), to)?;
        from += n as u64;
        to += n as u64;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    const LIMIT: u64 = 40_960;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("passt-logfile-{name}-{}", std::process::id()))
    }

    // [LOG-4] [W-15] The first line names the process; earlier messages follow it.
    #[test]
    fn lines_wait_until_the_process_is_known() {
        let path = path("wait");
        fs::write(&path, "of an earlier process").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let mut log = LogFile::create(&path, LIMIT, "pasta").unwrap();
        log.put(Duration::from_micros(1_234_567), Level::Info, b"early");
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        log.begin(4711);
        log.put(Duration::from_secs(2), Level::Error, b"a\nb");
        log.put(Duration::from_secs(3), Level::Warn, b"w");
        log.put(Duration::from_secs(4), Level::Trace, b"t");
        let text = fs::read_to_string(&path).unwrap();
        let (first, rest) = text.split_once('\n').unwrap();
        let name = concat!("pasta ", env!("CARGO_PKG_VERSION"), ": /");
        assert!(first.starts_with(name) && first.ends_with(" (4711)"), "{first}");
        assert_eq!(
            rest,
            "1.2345: info:    early\n2.0000: ERROR:   a b\n3.0000: WARNING: w\n\
             4.0000:          t\n"
        );
        fs::remove_file(&path).unwrap();
    }

    // [LOG-6] [W-16] Any number of lines of any length: within the limit, whole, in order.
    #[test]
    fn the_oldest_lines_go() {
        let path = path("limit");
        let mut log = LogFile::create(&path, LIMIT, "passt").unwrap();
        log.begin(1);
        let mut largest = 0;
        for n in 0..4000u32 {
            let text = format!("line {n} {}", "x".repeat(usize::try_from(n * 37 % 300).unwrap()));
            log.put(Duration::from_millis(n.into()), Level::Debug, text.as_bytes());
            let len = fs::metadata(&path).unwrap().len();
            assert_eq!(len, log.len);
            largest = largest.max(len);
            assert!(len <= LIMIT && (largest < LIMIT * 9 / 10 || len > LIMIT / 2), "{len}");
        }
        assert!(largest > LIMIT * 9 / 10);
        let text = fs::read_to_string(&path).unwrap();
        let mut lines = text.lines();
        let first = lines.next().unwrap();
        let (header, time) = first.split_once(" - log truncated at ").unwrap();
        assert!(header.ends_with(" (1)") && time.parse::<f64>().is_ok(), "{first}");
        let numbers: Vec<u32> = lines
            .map(|line| {
                let (time, rest) = line.split_once(":          line ").expect("a whole line");
                let n: u32 = rest.split(' ').next().unwrap().parse().unwrap();
                assert_eq!(time, format!("{}.{:04}", n / 1000, n % 1000 * 10));
                assert_eq!(
                    rest.len(),
                    format!("{n} ").len() + usize::try_from(n * 37 % 300).unwrap()
                );
                n
            })
            .collect();
        assert_eq!(*numbers.last().unwrap(), 3999);
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "a line is missing");
        assert!(text.ends_with('\n'));
        fs::remove_file(&path).unwrap();
    }

    // What is no regular file is written to, and has no length.
    #[test]
    fn devices_are_no_files() {
        let mut log = LogFile::create(Path::new("/dev/null"), LIMIT, "passt").unwrap();
        log.begin(1);
        for _ in 0..2000 {
            log.put(Duration::ZERO, Level::Info, &[b'x'; 100]);
        }
        assert_eq!(log.lost, 0);
    }
}
