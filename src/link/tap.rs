//! A tap device with a virtio network header per frame, as the kernel allows.
//!
//! # Theory of operation
//!
//! With `IFF_VNET_HDR` a frame in either direction may be a train of segments of up to 64 KiB
//! with unfinished checksums: the guest's kernel hands over what TCP produced, uncut, and takes
//! what we peeked from a socket, uncut. The header also lets *us* send such frames whatever the
//! guest may send, so towards the guest there are only two cases: header or no header.
//!
//! What the guest may send is set by `TUNSETOFFLOAD`, probed from most to least ([`Offload`]).
//! Without the header, frames to the guest are cut in software (`segment.rs`).
//!
//! System calls after opening: `read`, `writev`.

use std::fs::OpenOptions;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;

use thiserror::Error;

use super::{End, FRAME_MIN, Link, PADDING, RxFrame, segment};
use crate::config::Offload;
use crate::event::{Registrar, Source};
use crate::translate::FrameOut;
use crate::wire::{ETH_LEN, Gso, Head, VNET_LEN, Vnet};

/// Longest frame: an IP packet of 65 535 bytes behind an Ethernet header.
const FRAME_MAX: usize = ETH_LEN + 65_535;

/// Why a tap device cannot be had.
#[derive(Debug, Error)]
pub enum TapError {
    /// The clone device cannot be opened.
    #[error("cannot open /dev/net/tun: {0}")]
    Open(#[source] io::Error),
    /// The kernel refused the interface.
    #[error("cannot create tap interface '{name}': {source}")]
    Create {
        /// Interface name asked for.
        name: String,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// A tap interface, opened in the current network namespace.
#[derive(Debug)]
pub struct Tap {
    /// Its name.
    pub name: String,
    /// What it offloads.
    pub offload: Offload,
    /// Frames of the guest.
    pub rx: TapRx,
    /// Frames to the guest.
    pub tx: TapTx,
}

impl Tap {
    /// Opens (creating it unless it exists and is persistent) the interface `name`, with at most
    /// the offloads of `most`.
    pub fn open(name: &str, most: Offload) -> Result<Self, TapError> {
        let refuse = |source| TapError::Create { name: name.to_owned(), source };
        let mut levels = [Offload::Udp, Offload::Tcp, Offload::None].into_iter();
        let mut level = most;
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK)
                .open("/dev/net/tun")
                .map_err(TapError::Open)?;
            let result = attach(file.as_fd(), name, level != Offload::None).and_then(|()| {
                if level == Offload::None { Ok(()) } else { offloads(file.as_fd(), level) }
            });
            match result {
                Ok(()) => {
                    let file = Arc::new(file);
                    let vnet = level != Offload::None;
                    return Ok(Self {
                        name: name.to_owned(),
                        offload: level,
                        rx: TapRx::new(Arc::clone(&file), vnet),
                        tx: TapTx::new(file, level),
                    });
                }
                Err(e) => match levels.find(|l| *l < level) {
                    Some(less) if e.raw_os_error() == Some(libc::EINVAL) => level = less,
                    _ => return Err(refuse(e)),
                },
            }
        }
    }
}

fn attach(fd: BorrowedFd<'_>, name: &str, vnet: bool) -> io::Result<()> {
    // SAFETY: all-zero is a valid ifreq.
    let mut req: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= req.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, from) in req.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | if vnet { libc::IFF_VNET_HDR } else { 0 };
    req.ifr_ifru.ifru_flags = i16::try_from(flags).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives until the call returns.
    let r = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut req) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn offloads(fd: BorrowedFd<'_>, level: Offload) -> io::Result<()> {
    let size = libc::c_int::try_from(VNET_LEN).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: TUNSETVNETHDRSZ reads one int, which lives until the call returns.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const size) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    let udp = if level == Offload::Udp { libc::TUN_F_USO4 | libc::TUN_F_USO6 } else { 0 };
    let bits = libc::c_ulong::from(tcp | udp);
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    let r = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, bits) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Result of reading a frame.
#[derive(Debug)]
enum Fill {
    Frame(usize),
    Empty,
    Gone(io::Error),
}

/// Frames of the guest.
#[derive(Debug)]
pub struct TapRx {
    file: Arc<std::fs::File>,
    vnet: bool,
    buf: Box<[u8]>,
    gone: Option<io::Error>,
}

impl TapRx {
    fn new(file: Arc<std::fs::File>, vnet: bool) -> Self {
        let buf = vec![0; VNET_LEN.saturating_add(FRAME_MAX)].into_boxed_slice();
        Self { file, vnet, buf, gone: None }
    }

    fn fill(&mut self) -> Fill {
        loop {
            return match (&*self.file).read(&mut self.buf) {
                Ok(0) => Fill::Gone(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => Fill::Frame(n),
                Err(e) => match e.raw_os_error() {
                    Some(libc::EINTR) => continue,
                    // EIO is an interface that is down, not one that is gone.
                    Some(libc::EAGAIN | libc::EIO) => Fill::Empty,
                    _ => Fill::Gone(e),
                },
            };
        }
    }
}

impl Link for TapRx {
    type Tx = TapTx;

    fn begin(&mut self, registrar: &Registrar) -> io::Result<()> {
        registrar.add(self.file.as_fd(), Source::Link, false)
    }

    fn next_frame(&mut self) -> Option<RxFrame<'_>> {
        let len = match self.fill() {
            Fill::Frame(len) => len,
            Fill::Empty => return None,
            Fill::Gone(e) => {
                self.gone = Some(e);
                return None;
            }
        };
        let data = self.buf.get(..len).unwrap_or_default();
        if !self.vnet {
            return Some(RxFrame { vnet: Vnet::default(), frame: data });
        }
        // A header we cannot read makes a frame that parses as nothing.
        let (head, frame) = data.split_first_chunk().unwrap_or((&[0; VNET_LEN], &[]));
        match Vnet::decode(head) {
            Some(vnet) => Some(RxFrame { vnet, frame }),
            None => Some(RxFrame { vnet: Vnet::default(), frame: &[] }),
        }
    }

    fn ended(&mut self, _out: &mut TapTx) -> Option<End> {
        self.gone.take().map(End::Device)
    }
}

/// Frames to the guest.
#[derive(Debug)]
pub struct TapTx {
    file: Arc<std::fs::File>,
    offload: Offload,
    payload: Box<[u8]>,
}

impl TapTx {
    fn new(file: Arc<std::fs::File>, offload: Offload) -> Self {
        Self { file, offload, payload: vec![0; FRAME_MAX].into_boxed_slice() }
    }
}

impl FrameOut for TapTx {
    fn payload(&mut self) -> Option<&mut [u8]> {
        Some(&mut self.payload)
    }

    fn send(&mut self, head: &Head, len: usize) -> bool {
        let payload = self.payload.get(..len).unwrap_or_default();
        transmit(&self.file, self.offload, head, payload)
    }

    fn send_from(&mut self, head: &Head, payload: &[u8]) -> bool {
        transmit(&self.file, self.offload, head, payload)
    }

    fn control(&mut self, frame: &[u8]) -> bool {
        write(&self.file, unused(self.offload), &[], frame)
    }
}

/// Sends what the headers stand for: as one frame if the device can, else as one per packet.
fn transmit(file: &std::fs::File, offload: Offload, head: &Head, payload: &[u8]) -> bool {
    let whole = match head.vnet().gso {
        Gso::Udp(_) => offload == Offload::Udp,
        _ => offload != Offload::None,
    };
    if whole {
        let (vnet, frame) = head.with_vnet().split_at_checked(VNET_LEN).unwrap_or_default();
        return write(file, vnet, frame, payload);
    }
    segment::each(head, payload, |headers, payload| write(file, unused(offload), headers, payload))
}

/// What precedes a frame that asks for nothing.
fn unused(offload: Offload) -> &'static [u8] {
    if offload == Offload::None { &[] } else { &[0; VNET_LEN] }
}

/// Writes one frame, padded, behind its offload header if the device has that.
fn write(mut file: &std::fs::File, vnet: &[u8], headers: &[u8], payload: &[u8]) -> bool {
    let missing = FRAME_MIN.saturating_sub(headers.len()).saturating_sub(payload.len());
    let padding = PADDING.get(..missing).unwrap_or_default();
    let parts = [vnet, headers, payload, padding].map(IoSlice::new);
    let used = if missing != 0 { 4 } else { 3 };
    file.write_vectored(parts.get(..used).unwrap_or_default()).is_ok()
}
