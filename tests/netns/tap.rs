//! Tap devices of the tests themselves, for [`relay`](crate::relay).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use crate::ns::Ns;

/// Length of the virtio header of a tap device that was not told otherwise.
pub(crate) const VNET_LEN: usize = 10;

/// What crosses a tap device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frames {
    /// Packets as they would be on a wire, cut and with checksums.
    Wire,
    /// A virtio header, and then up to 64 KiB that the kernel has left uncut.
    Trains,
}

/// One end of a link: a tap interface, which is there as long as this is.
pub(crate) struct Tap {
    pub(crate) file: File,
    pub(crate) frames: Frames,
}

impl Tap {
    /// Makes the interface `name` in `ns`.
    #[track_caller]
    pub(crate) fn open(ns: &Ns, name: &str, frames: Frames) -> Tap {
        let file = ns.enter(|| attach(name, frames));
        Tap { file: file.unwrap_or_else(|e| panic!("tap {name}: {e}")), frames }
    }
}

fn attach(name: &str, frames: Frames) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    // SAFETY: all-zero is a valid ifreq.
    let mut req: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in req.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let vnet = if frames == Frames::Trains { libc::IFF_VNET_HDR } else { 0 };
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | vnet;
    req.ifr_ifru.ifru_flags = i16::try_from(flags).unwrap();
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives until the call returns.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut req) })?;
    if frames == Frames::Trains {
        let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        check(unsafe {
            libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(tcp))
        })?;
    }
    Ok(file)
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
