//! A capture file, in the classic format of libpcap [PCAP-1, PCAP-2, PCAP-4].
//!
//! # Theory of operation
//!
//! Records collect in one buffer and are written at the end of a turn of the loop, or when the
//! buffer is full. What the file does not take stays in the buffer, and while that is full frames
//! are not recorded: they are counted, and forwarded all the same. So a full file system, or a
//! reader of a pipe that does not keep up, costs records and nothing else, and the file is sound
//! again as soon as there is room. Nothing is ever written twice or in the wrong order.
//!
//! At the end a record of which only a part fitted is cut off.
//!
//! System calls: `write`, `ftruncate`, `fsync`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Bytes of a record's header: seconds, microseconds, length captured, length.
const HEADER: usize = 16;

/// Longest frame that readers are told to expect: with offloads frames are longer than the 65535
/// bytes of an IP packet.
const SNAPLEN: u32 = 262_144;

/// What may wait for the file.
const CAPACITY: usize = 512 << 10;

/// Ethernet (`LINKTYPE_ETHERNET`).
const LINKTYPE: u32 = 1;

/// A capture file.
#[derive(Debug)]
pub struct Pcap {
    file: File,
    path: PathBuf,
    buf: Vec<u8>,
    /// Bytes at the beginning of the buffer that belong to a record begun in the file.
    rest: usize,
    /// Bytes of that record that are in the file.
    begun: usize,
    /// Bytes in the file.
    len: u64,
    /// Frames that were not recorded.
    lost: u64,
    /// That there is trouble has been told.
    told: bool,
}

impl Pcap {
    /// Creates or empties the file, mode 0600, and writes its header. A named pipe must have a
    /// reader.
    ///
    /// # Errors
    /// It cannot be opened or written.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.custom_flags(libc::O_NONBLOCK).open(path)?;
        let mut header = [0; 24];
        let words = [0xa1b2_c3d4, 2 | 4 << 16, 0, 0, SNAPLEN, LINKTYPE];
        for (room, word) in header.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *room = word.to_ne_bytes();
        }
        if cfg!(target_endian = "big") {
            // Major before minor, in whichever order the bytes are.
            header.get_mut(4..8).unwrap_or_default().copy_from_slice(&[0, 2, 0, 4]);
        }
        file.write_all(&header)?;
        Ok(Self {
            file,
            path: path.to_owned(),
            buf: Vec::with_capacity(CAPACITY),
            rest: 0,
            begun: 0,
            len: 24,
            lost: 0,
            told: false,
        })
    }

    /// Adds a frame, which `write` appends to the buffer; the time is now.
    pub fn record(&mut self, len: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let size = HEADER.saturating_add(len);
        if self.room() < size {
            self.write_out();
        }
        if self.room() < size {
            self.lost = self.lost.saturating_add(1);
            return;
        }
        let start = self.buf.len();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = rounded(now);
        let len = u32::try_from(len).unwrap_or(0);
        // The format has 32 bits; they last until 2106.
        let seconds = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
        for word in [seconds, now.subsec_micros(), len, len] {
            self.buf.extend(word.to_ne_bytes());
        }
        write(&mut self.buf);
        // Whatever the writer did, the record is as long as its header says.
        self.buf.resize(start.saturating_add(size), 0);
    }

    /// Writes what waits, as far as the file takes it.
    pub fn write_out(&mut self) {
        while !self.buf.is_empty() {
            match (&self.file).write(&self.buf) {
                Ok(n) => {
                    self.written(n);
                    self.told &= !self.buf.is_empty();
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    // Slow readers are no news, and counted.
                    if !self.told && e.kind() != io::ErrorKind::WouldBlock {
                        log::warn!("cannot write to {}: {e}; frames are lost", self.path.display());
                        self.told = true;
                    }
                    return;
                }
            }
        }
    }

    /// Frames that were not recorded.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Frames in the buffer, one that was begun in the file included.
    fn waiting(&self) -> u64 {
        let (mut at, mut frames) = (self.rest, u64::from(self.rest > 0));
        while let Some(len) = self.record_at(at) {
            at = at.saturating_add(len);
            frames = frames.saturating_add(1);
        }
        frames
    }

    /// Length of the record that begins at a place of the buffer.
    fn record_at(&self, at: usize) -> Option<usize> {
        let len = self.buf.get(at.saturating_add(8)..)?.first_chunk()?;
        Some(HEADER.saturating_add(u32::from_ne_bytes(*len) as usize))
    }

    fn room(&self) -> usize {
        CAPACITY.saturating_sub(self.buf.len())
    }

    /// Removes `n` bytes from the buffer, and notes where in which record the file ends.
    fn written(&mut self, n: usize) {
        let mut done = 0usize;
        while done < n {
            if self.rest == 0 {
                self.rest = self.record_at(done).unwrap_or(HEADER);
                self.begun = 0;
            }
            let part = self.rest.min(n.saturating_sub(done));
            self.rest = self.rest.saturating_sub(part);
            self.begun = self.begun.saturating_add(part);
            done = done.saturating_add(part);
        }
        self.len = self.len.saturating_add(n as u64);
        self.buf.drain(..n.min(self.buf.len()));
    }
}

/// The end: what waits is written, and what was only begun is cut off.
impl Drop for Pcap {
    fn drop(&mut self) {
        self.write_out();
        if self.rest > 0 {
            let whole = self.len.saturating_sub(self.begun as u64);
            let _ = self.file.set_len(whole);
        }
        // Pipes cannot be synchronised.
        let _ = self.file.sync_all();
        let lost = self.lost.saturating_add(self.waiting());
        if lost > 0 {
            log::warn!("{}: {lost} frames are missing", self.path.display());
        }
    }
}

/// To microseconds, of which there are less than a million [W-31].
fn rounded(time: Duration) -> Duration {
    time.saturating_add(Duration::from_nanos(500))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#[allow(clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::PermissionsExt as _;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("passt-pcap-{name}-{}", std::process::id()))
    }

    /// The frames of a capture; it must be complete to the last byte.
    fn frames(mut data: &[u8]) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while !data.is_empty() {
            let (header, rest) = data.split_at(HEADER);
            let word = |n: usize| u32::from_ne_bytes(header[4 * n..][..4].try_into().unwrap());
            assert!(word(0) > 1_700_000_000 && word(1) < 1_000_000);
            assert_eq!(word(2), word(3));
            let (frame, rest) = rest.split_at(word(2) as usize);
            frames.push(frame.to_vec());
            data = rest;
        }
        frames
    }

    fn add(pcap: &mut Pcap, frame: &[u8]) {
        pcap.record(frame.len(), |buf| buf.extend_from_slice(frame));
    }

    // [PCAP-1] [PCAP-2]
    #[test]
    fn header_and_records() {
        let path = path("records");
        let mut pcap = Pcap::create(&path).unwrap();
        add(&mut pcap, &[7; 60]);
        add(&mut pcap, &[8; 65_549]);
        pcap.write_out();
        add(&mut pcap, &[9; 14]);
        drop(pcap);
        let data = std::fs::read(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        if cfg!(target_endian = "little") {
            let header = [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0];
            assert_eq!(data[..20], header);
            assert_eq!(data[20..24], [1, 0, 0, 0]);
        }
        let frames = frames(&data[24..]);
        assert_eq!(frames, [vec![7; 60], vec![8; 65_549], vec![9; 14]]);
        std::fs::remove_file(&path).unwrap();
    }

    // A reader that is too slow costs frames, which are counted; the others are whole.
    #[test]
    fn a_slow_reader_costs_frames() {
        let path = path("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let flags = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_NONBLOCK;
        let fd = nix::fcntl::open(&path, flags, nix::sys::stat::Mode::empty()).unwrap();
        let mut reader = File::from(fd);
        let mut pcap = Pcap::create(&path).unwrap();
        for n in 0..2000u32 {
            add(&mut pcap, &[n as u8; 1000]);
            pcap.write_out();
        }
        let lost = pcap.lost();
        assert!(lost > 0);
        let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty());
        nix::fcntl::fcntl(reader.as_fd(), flags).unwrap();
        let all = std::thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            all
        });
        while !pcap.buf.is_empty() {
            pcap.write_out();
        }
        add(&mut pcap, &[0xff; 77]);
        while !pcap.buf.is_empty() {
            pcap.write_out();
        }
        drop(pcap);
        let frames = frames(&all.join().unwrap()[24..]);
        assert_eq!(frames.len() as u64, 2001 - lost);
        assert_eq!(frames.last().unwrap(), &[0xff; 77]);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn times_are_rounded() {
        let at = |nanos| rounded(Duration::new(5, nanos));
        assert_eq!((at(999_999_600).as_secs(), at(999_999_600).subsec_micros()), (6, 0));
        assert_eq!((at(1_499).subsec_micros(), at(1_500).subsec_micros()), (1, 2));
    }
}
