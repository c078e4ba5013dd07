//! Socket addresses between our form and the kernel's.

use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;

use crate::wire::{Addr, Endpoint};

/// A kernel socket address of either family.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) union SockAddr {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
    any: libc::sockaddr,
}

impl SockAddr {
    /// Room for the kernel to write one.
    pub(super) const fn empty() -> Self {
        // SAFETY: all-zero is a valid sockaddr_in6, the largest variant.
        Self { v6: unsafe { mem::zeroed() } }
    }

    /// The kernel's form; `scope` is the interface of an IPv6 link-local or multicast address.
    #[expect(clippy::cast_possible_truncation, reason = "address families fit 16 bits")]
    pub(super) fn new(e: Endpoint, scope: u32) -> Self {
        let mut out = Self::empty();
        match e.addr.v4() {
            Some(a) => {
                out.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as u16,
                    sin_port: e.port.to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from(a).to_be() },
                    sin_zero: [0; 8],
                };
            }
            None => {
                out = Self::mapped(e);
                if e.addr.v6().is_some_and(needs_scope) {
                    out.v6.sin6_scope_id = scope;
                }
            }
        }
        out
    }

    /// The form for an IPv6 socket, with IPv4 addresses mapped.
    #[expect(clippy::cast_possible_truncation, reason = "address families fit 16 bits")]
    pub(super) fn mapped(e: Endpoint) -> Self {
        let mut out = Self::empty();
        out.v6 = libc::sockaddr_in6 {
            sin6_family: libc::AF_INET6 as u16,
            sin6_port: e.port.to_be(),
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: *e.addr.octets() },
            sin6_scope_id: 0,
        };
        out
    }

    /// For the kernel to read.
    pub(super) const fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const *self).cast()
    }

    /// For the kernel to write, at most `size_of::<Self>()` bytes.
    pub(super) const fn as_mut_ptr(&mut self) -> *mut libc::sockaddr {
        (&raw mut *self).cast()
    }

    /// Bytes of an address of its family.
    pub(super) fn len(&self) -> libc::socklen_t {
        let size = if self.family() == libc::AF_INET {
            mem::size_of::<libc::sockaddr_in>()
        } else {
            mem::size_of::<libc::sockaddr_in6>()
        };
        libc::socklen_t::try_from(size).unwrap_or(0)
    }

    /// Room there is.
    pub(super) fn capacity() -> libc::socklen_t {
        libc::socklen_t::try_from(mem::size_of::<Self>()).unwrap_or(0)
    }

    /// Our form; `None` for another family.
    pub(super) fn endpoint(&self) -> Option<Endpoint> {
        match self.family() {
            libc::AF_INET => {
                // SAFETY: every variant is plain data of at least this size, zeroed at first.
                let a = unsafe { self.v4 };
                let addr = Ipv4Addr::from(u32::from_be(a.sin_addr.s_addr));
                Some(Endpoint::new(addr.into(), u16::from_be(a.sin_port)))
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let a = unsafe { self.v6 };
                let addr = Ipv6Addr::from(a.sin6_addr.s6_addr);
                Some(Endpoint::new(Addr::from(addr), u16::from_be(a.sin6_port)))
            }
            _ => None,
        }
    }

    fn family(&self) -> i32 {
        // SAFETY: the family comes first in every variant.
        i32::from(unsafe { self.any.sa_family })
    }
}

/// The local address of a socket.
pub(super) fn local(fd: RawFd) -> Option<Endpoint> {
    let (mut addr, mut len) = (SockAddr::empty(), SockAddr::capacity());
    // SAFETY: the kernel writes at most `len` bytes of address.
    let result = unsafe { libc::getsockname(fd, addr.as_mut_ptr(), &raw mut len) };
    if result < 0 { None } else { addr.endpoint() }
}

/// Receives a datagram into `buf`: its length, and who sent it. `None` if there is none.
pub(super) fn receive_from(fd: RawFd, buf: &mut [u8]) -> Option<(usize, Endpoint)> {
    let (mut from, mut size) = (SockAddr::empty(), SockAddr::capacity());
    // SAFETY: the kernel writes at most the lengths given to memory that we hold exclusively.
    let n = unsafe {
        libc::recvfrom(
            fd,
            buf.as_mut_ptr().cast(),
            buf.len(),
            libc::MSG_DONTWAIT,
            from.as_mut_ptr(),
            &raw mut size,
        )
    };
    Some((usize::try_from(n).ok()?, from.endpoint()?))
}

/// True for addresses that mean something on one link only (RFC 4291, 2.5.6 and 2.7).
fn needs_scope(addr: Ipv6Addr) -> bool {
    let [first, ..] = addr.segments();
    addr.is_unicast_link_local() || matches!(first & 0xff0f, 0xff01 | 0xff02)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for text in ["192.0.2.1", "2001:db8::1", "fe80::1"] {
            let e = Endpoint::new(text.parse::<std::net::IpAddr>().unwrap().into(), 8080);
            assert_eq!(SockAddr::new(e, 3).endpoint(), Some(e));
        }
        assert_eq!(SockAddr::empty().endpoint(), None);
    }

    #[test]
    fn only_link_local_addresses_have_a_scope() {
        let e = |s: &str| Endpoint::new(s.parse::<std::net::IpAddr>().unwrap().into(), 1);
        // SAFETY: both are IPv6.
        unsafe {
            assert_eq!(SockAddr::new(e("fe80::1"), 3).v6.sin6_scope_id, 3);
            assert_eq!(SockAddr::new(e("ff02::fb"), 3).v6.sin6_scope_id, 3);
            assert_eq!(SockAddr::new(e("ff05::fb"), 3).v6.sin6_scope_id, 0);
            assert_eq!(SockAddr::new(e("2001:db8::1"), 3).v6.sin6_scope_id, 0);
        }
    }
}
