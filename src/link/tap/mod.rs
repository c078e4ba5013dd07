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
//! # Queues
//!
//! Frames of the guest wait in the device until they are read, and a full queue drops what comes on
//! top. With a single queue, whoever in the guest makes frames faster than we can read them takes
//! the room of everybody else. So the device has several (`IFF_MULTI_QUEUE`, Linux 3.8). The kernel
//! puts frames of a flow into the queue through which the flow was last answered, and those of one
//! that was not answered in the last seconds into any, by a hash of addresses and ports. We answer
//! flows through the first queue (`answered.rs`), which is read more than the others (`receive.rs`): a
//! flood of what nobody answers spoils the other queues, and of the first one a quarter, if it is
//! of many flows; a single one is in one queue, whichever that is. What we say ourselves, as a reset
//! for a stray segment, is said through the second queue, and leaves its flow among the unanswered
//! ones.
//!
//! A flow changes queues with its first answer. Its frames stay in order, as the other queues are
//! read empty then before the first one is read again (`answered.rs`). Not seen are two changes that
//! are rare: back, when the kernel forgets a flow that we had nothing for in three seconds while more
//! of it waits than is read at a time; and the one of a flow for which the kernel had no room before,
//! as it knows 4096 at most. Fragments are a flow of their own for the kernel.
//!
//! A device that exists already has to have a single queue, and nobody else at it.
//!
//! System calls after opening: `read`, `writev`.

mod answered;
mod receive;
mod send;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;

use crate::config::Offload;
use crate::wire::{ETH_LEN, VNET_LEN};
pub use receive::TapRx;
pub use send::TapTx;

/// Longest frame: an IP packet of 65 535 bytes behind an Ethernet header.
const FRAME_MAX: usize = ETH_LEN + 65_535;

/// Queues of a device of ours.
const QUEUES: usize = 4;

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
        let mut levels = [Offload::Udp, Offload::Tcp, Offload::None].into_iter();
        let mut level = most;
        loop {
            match attach(name, level) {
                Ok((first, others)) => {
                    let device = Arc::new(Device { first, others, moved: AtomicBool::new(false) });
                    return Ok(Self {
                        name: name.to_owned(),
                        offload: level,
                        rx: TapRx::new(Arc::clone(&device), level != Offload::None),
                        tx: TapTx::new(device, level),
                    });
                }
                Err(TapError::Create { source, .. })
                    if source.raw_os_error() == Some(libc::EINVAL) && level != Offload::None =>
                {
                    level = levels.find(|l| *l < level).unwrap_or(Offload::None);
                }
                Err(e) => return Err(e),
            }
        }
    }
}

/// What both halves use.
#[derive(Debug)]
struct Device {
    /// Its first queue.
    first: File,
    /// The others, if it has any.
    others: Vec<File>,
    /// A flow may have come to the first queue from another one, where older frames of it are left.
    moved: AtomicBool,
}

impl Device {
    fn queues(&self) -> impl Iterator<Item = &File> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// For what is not to come by the first queue; the only one if there are no others.
    fn second(&self) -> &File {
        self.others.first().unwrap_or(&self.first)
    }

    fn set_moved(&self, moved: bool) {
        self.moved.store(moved, Ordering::Relaxed);
    }

    fn has_moved(&self) -> bool {
        self.moved.load(Ordering::Relaxed)
    }
}

/// The first queue of the interface, at a level of offloads, and as many others as there can be.
fn attach(name: &str, level: Offload) -> Result<(File, Vec<File>), TapError> {
    let refuse = |source| TapError::Create { name: name.to_owned(), source };
    let vnet = if level == Offload::None { 0 } else { libc::IFF_VNET_HDR };
    let flags = vnet | libc::IFF_MULTI_QUEUE;
    let errno = |e: &TapError| match e {
        TapError::Create { source, .. } => source.raw_os_error(),
        TapError::Open(_) => None,
    };
    let (first, several) = match queue(name, flags | libc::IFF_TUN_EXCL) {
        Ok(first) => (first, true),
        // It exists. One with several queues would take ours beside those of somebody else.
        Err(e) if errno(&e) == Some(libc::EBUSY) => match queue(name, vnet) {
            Err(again) if errno(&again) == Some(libc::EINVAL) => return Err(e),
            one => (one?, false),
        },
        // The kernel knows no queues, or no header.
        Err(e) if errno(&e) == Some(libc::EINVAL) => (queue(name, vnet)?, false),
        Err(e) => return Err(e),
    };
    if level != Offload::None {
        offloads(first.as_fd(), level).map_err(refuse)?;
    }
    let others = (1..QUEUES).filter(|_| several).map_while(|_| queue(name, flags).ok()).collect();
    Ok((first, others))
}

/// One queue of the interface.
fn queue(name: &str, flags: libc::c_int) -> Result<File, TapError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .map_err(TapError::Open)?;
    match set_interface(file.as_fd(), name, libc::IFF_TAP | libc::IFF_NO_PI | flags) {
        Ok(()) => Ok(file),
        Err(source) => Err(TapError::Create { name: name.to_owned(), source }),
    }
}

fn set_interface(fd: BorrowedFd<'_>, name: &str, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: all-zero is a valid ifreq.
    let mut req: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= req.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, from) in req.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let flags = u16::try_from(flags).map_err(|_| io::ErrorKind::InvalidInput)?;
    req.ifr_ifru.ifru_flags = flags.cast_signed();
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
