//! Where flows of the guest leave the host: source address and interface [FWD-3].
//!
//! A socket that cannot be bound as the user wants is an error and never used without: that some
//! traffic does not take another way may be the very purpose.
//!
//! System calls: `socket`, `setsockopt`, `bind`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use thiserror::Error;

use super::ip_option::IpOption;
use super::net::{Net, bind, connect, family, set_option, socket};
use crate::config::Outbound;
use crate::forward::{Destination, Via};
use crate::translate::Far;
use crate::wire::{Addr, Endpoint};

/// `IP_BIND_ADDRESS_NO_PORT` of `linux/in.h`.
const IP_BIND_ADDRESS_NO_PORT: i32 = 24;

/// What the user wants cannot be had.
#[derive(Debug, Error)]
pub enum OutboundError {
    /// The interface.
    #[error("cannot use interface '{name}' of option {option}: {why}")]
    Interface {
        /// Option that named it.
        option: &'static str,
        /// Its name.
        name: String,
        /// The kernel's reason.
        why: Reason,
    },
    /// The source address.
    #[error("cannot use address '{addr}' of option --outbound: {why}")]
    Address {
        /// The address.
        addr: IpAddr,
        /// The kernel's reason.
        why: Reason,
    },
}

/// Why something cannot be used, in words where the kernel's would leave one guessing.
#[derive(Debug, Error)]
pub enum Reason {
    /// Foreign address.
    #[error("it is not an address of this host")]
    NotOurs,
    /// Kernels before Linux 5.7 allow it to root only.
    #[error("binding to an interface needs Linux 5.7")]
    TooOld,
    /// Anything else.
    #[error(transparent)]
    Other(#[from] io::Error),
}

/// Finds out whether sockets of the enabled families can be bound as they are to be.
///
/// # Errors
/// The first that cannot.
pub fn check(
    outbound: &Outbound,
    (v4, v6): (bool, bool),
    freebind: bool,
) -> Result<(), OutboundError> {
    for (enabled, v4, option) in [(v4, true, "--outbound-if4"), (v6, false, "--outbound-if6")] {
        let (addr, name) = (outbound.addr(v4), outbound.interface(v4));
        if !enabled || addr.is_none() && name.is_none() {
            continue;
        }
        let any = unspecified(v4);
        let nameless = |e| OutboundError::Address { addr: addr.unwrap_or(any), why: reason(e) };
        let fd =
            socket(family(Endpoint::new(any.into(), 0)), libc::SOCK_DGRAM, 0).map_err(nameless)?;
        if let Some(name) = name {
            bind_to_device(fd.as_raw_fd(), name).map_err(|e| OutboundError::Interface {
                option,
                name: name.to_owned(),
                why: reason(e),
            })?;
        }
        if let Some(addr) = addr {
            let free = if freebind { bind_freely(fd.as_raw_fd(), v4) } else { Ok(()) };
            free.and_then(|()| bind(fd.as_fd(), Endpoint::new(addr.into(), 0), 0))
                .map_err(|e| OutboundError::Address { addr, why: reason(e) })?;
        }
    }
    Ok(())
}

fn reason(e: io::Error) -> Reason {
    match e.raw_os_error() {
        Some(libc::EADDRNOTAVAIL) => Reason::NotOurs,
        Some(libc::EPERM) => Reason::TooOld,
        _ => Reason::Other(e),
    }
}

impl Net {
    /// Binds a socket as the user wants it, and connects it; `Ok(false)` means in progress. The
    /// local port is the kernel's choice.
    pub(super) fn connect_via(&self, fd: &OwnedFd, dst: Destination) -> io::Result<bool> {
        let v4 = dst.to.addr.is_v4();
        self.bind_to_interface(fd, dst)?;
        if let Some(addr) = self.source(dst) {
            // Otherwise a port would be taken that no other destination could share.
            let _ = set_option(fd.as_raw_fd(), libc::IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
            self.bind_source(fd, addr, 0, v4)?;
        }
        connect(fd.as_fd(), dst.to, self.scope_via(dst))
    }

    /// The same for UDP, from a port if it can be had: it may be privileged, or somebody else's, and
    /// then the kernel chooses another one. On the host, the port if it is ours now [UDP-3].
    pub(super) fn connect_from(
        &self,
        fd: &OwnedFd,
        (place, port): (Far, u16),
        dst: Destination,
    ) -> io::Result<Option<u16>> {
        let v4 = dst.to.addr.is_v4();
        self.bind_to_interface(fd, dst)?;
        if !v4 {
            // The guest may use the port for IPv4 as well.
            set_option(fd.as_raw_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
        }
        let source = self.source(dst);
        let from = Endpoint::new(source.unwrap_or_else(|| unspecified(v4).into()), port);
        let share = |on| set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, on);
        let bind = |port| self.bind_source(fd, from.addr, port, v4);
        let bound = match bind(from.port) {
            Ok(()) if place == Far::Host => share(1),
            Err(_) if place == Far::Host && self.ports.are_ours(port, v4) => {
                share(1)?;
                let bound = bind(from.port);
                // A port that the kernel chooses is for one socket.
                if bound.is_err() { share(0).and(bound) } else { bound }
            }
            bound => bound,
        };
        if bound.is_err() && source.is_some() {
            bind(0)?;
        }
        let scope = self.scope_via(dst);
        match connect(fd.as_fd(), dst.to, scope) {
            // Broadcast, which a socket has to ask for [UDP-13].
            Err(e) if e.raw_os_error() == Some(libc::EACCES) => {
                set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_BROADCAST, 1)?;
                connect(fd.as_fd(), dst.to, scope)?;
            }
            connected => {
                connected?;
            }
        }
        Ok(Some(port).filter(|_| bound.is_ok() && place == Far::Host && port != 0))
    }

    fn bind_to_interface(&self, fd: &OwnedFd, dst: Destination) -> io::Result<()> {
        match self.interface(dst) {
            Some(name) => bind_to_device(fd.as_raw_fd(), name),
            None => Ok(()),
        }
    }

    fn bind_source(&self, fd: &OwnedFd, addr: Addr, port: u16, v4: bool) -> io::Result<()> {
        if self.freebind {
            bind_freely(fd.as_raw_fd(), v4)?;
        }
        bind(fd.as_fd(), Endpoint::new(addr, port), 0)
    }

    fn source(&self, dst: Destination) -> Option<Addr> {
        let outside = dst.via == Via::Outside;
        self.outbound.addr(dst.to.addr.is_v4()).filter(|_| outside).map(Addr::from)
    }

    fn interface(&self, dst: Destination) -> Option<&str> {
        let outside = dst.via == Via::Outside;
        self.outbound.interface(dst.to.addr.is_v4()).filter(|_| outside)
    }

    /// The scope of a link-local destination; that of the interface the socket is bound to needs
    /// no telling.
    fn scope_via(&self, dst: Destination) -> u32 {
        if self.interface(dst).is_some() { 0 } else { self.scope6() }
    }
}

fn unspecified(v4: bool) -> IpAddr {
    if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// Sends and receives through this interface alone.
pub(super) fn bind_to_device(fd: i32, name: &str) -> io::Result<()> {
    let len = libc::socklen_t::try_from(name.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the kernel reads `len` bytes of a live string.
    let r = unsafe {
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name.as_ptr().cast(), len)
    };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets a socket be bound to an address that is not ours [FWD-16].
pub(super) fn bind_freely(fd: i32, v4: bool) -> io::Result<()> {
    IpOption::FREEBIND.set(fd, v4, 1)
}
