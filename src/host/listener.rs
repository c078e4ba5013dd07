//! One listening socket of a forwarded port [FWD-14].
//!
//! System calls: `socket`, `setsockopt`, `bind`, `listen`, `accept4`, `recvmsg`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use super::cmsg::{Control, Message};
use super::net::{bind, family, set_option};
use super::outbound;
use super::sockaddr::{self, SockAddr};
use super::tcp::linger_reset;
use crate::config::{PortRule, Proto};
use crate::translate::{ListenerId, SockId};
use crate::wire::{Addr, Endpoint};

/// Connections or datagrams that come to nothing, or errors, skipped per call: an error that stays
/// must not hold up everything else.
const ATTEMPTS: usize = 64;

/// Connections the kernel completes ahead of us.
const BACKLOG: i32 = 128;

/// Which namespace a listening socket is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The host's: connections go to the guest.
    Host,
    /// The guest's: connections go to the host, without passing the link.
    Namespace,
}

/// One open port of a rule.
#[derive(Clone, Copy, Debug)]
pub struct Listener<'a> {
    fd: BorrowedFd<'a>,
    rule: &'a PortRule,
    /// Where its socket is.
    pub side: Side,
    /// The port it listens on.
    pub port: u16,
    /// It is an IPv6 socket.
    v6: bool,
}

/// A new connection.
#[derive(Debug)]
pub struct Accepted {
    /// Its socket.
    pub fd: OwnedFd,
    /// Who connected.
    pub peer: Endpoint,
}

impl Accepted {
    /// Where the peer connected to.
    pub fn local(&self) -> Option<Endpoint> {
        sockaddr::local(self.fd.as_raw_fd())
    }
}

/// Opens one port of a rule, for the enabled families, with a socket that `make` makes for a family
/// and type.
pub(super) fn open(
    rule: &PortRule,
    port: u16,
    side: Side,
    (v4, v6): (bool, bool),
    freebind: bool,
    make: impl FnOnce(i32, i32) -> io::Result<OwnedFd>,
) -> io::Result<OwnedFd> {
    // One socket serves both families where both are wanted.
    let dual = rule.listen.is_none() && v4 && v6;
    let at = Endpoint::new(wildcard(rule, v6).into(), port);
    let kind = match rule.proto {
        Proto::Tcp => libc::SOCK_STREAM,
        Proto::Udp => libc::SOCK_DGRAM,
    };
    let fd = make(family(at), kind)?;
    let raw = fd.as_raw_fd();
    if !at.addr.is_v4() {
        // Explicit either way: the default is a system setting.
        set_option(raw, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, i32::from(!dual))?;
    }
    set_option(raw, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if let Some(name) = &rule.interface {
        // Never without it: who names an interface wants the others kept out [FWD-14].
        outbound::bind_to_device(raw, name)?;
    }
    if freebind {
        outbound::bind_freely(raw, at.addr.is_v4())?;
    }
    if rule.proto == Proto::Udp {
        packet_info(raw, at, dual)?;
    }
    bind(fd.as_fd(), at, 0)?;
    if rule.proto == Proto::Tcp {
        // Accepted sockets inherit both, and those of spliced flows need no more [SPLICE-4].
        set_option(raw, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
        let _ = set_option(raw, libc::SOL_SOCKET, libc::SO_OOBINLINE, 1);
        if side == Side::Host {
            // The headers of the SYN show how the peer marks its packets. Without, nobody knows.
            let _ = set_option(raw, libc::IPPROTO_TCP, libc::TCP_SAVE_SYN, 1);
        }
        // SAFETY: no pointers are passed.
        if unsafe { libc::listen(raw, BACKLOG) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(fd)
}

/// The address a rule listens on; "any" as one of IPv6 if that is enabled.
pub(super) fn wildcard(rule: &PortRule, v6: bool) -> IpAddr {
    rule.listen.unwrap_or(if v6 {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    })
}

/// Asks for the local address of each datagram, so that answers leave from it [UDP-4].
fn packet_info(fd: i32, at: Endpoint, dual: bool) -> io::Result<()> {
    if at.addr.is_v4() || dual {
        set_option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
    }
    if !at.addr.is_v4() {
        set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
    }
    Ok(())
}

impl<'a> Listener<'a> {
    /// The socket of `rule` for `port`, opened with IPv6 enabled or not.
    pub(super) fn new(
        fd: BorrowedFd<'a>,
        rule: &'a PortRule,
        side: Side,
        port: u16,
        v6: bool,
    ) -> Self {
        Self { fd, rule, side, port, v6: wildcard(rule, v6).is_ipv6() }
    }

    /// Whether it is there for IPv4 and for IPv6.
    pub(super) fn families(&self) -> (bool, bool) {
        (!self.v6 || self.rule.listen.is_none(), self.v6)
    }

    /// Its name, for as long as it is open.
    pub fn id(&self) -> ListenerId {
        ListenerId { sock: SockId(self.fd.as_raw_fd()), v6: self.v6 }
    }

    /// Protocol.
    pub fn proto(&self) -> Proto {
        self.rule.proto
    }

    /// The port it stands for on the other side.
    pub fn to_port(&self) -> u16 {
        self.rule.to(self.port)
    }

    /// The address it stands for on the other side, if not the usual one.
    pub fn target(&self) -> Option<IpAddr> {
        self.rule.target
    }

    /// Takes the next connection, `Ok(None)` when there is none.
    ///
    /// # Errors
    /// Out of descriptors or kernel memory; the connection stays in the kernel's queue.
    pub fn accept(&self) -> io::Result<Option<Accepted>> {
        for _ in 0..ATTEMPTS {
            let mut addr = SockAddr::empty();
            let mut len = SockAddr::capacity();
            // SAFETY: the kernel writes at most `len` bytes of address; the result is checked and
            // owned from here on.
            let fd = unsafe {
                match libc::accept4(
                    self.fd.as_raw_fd(),
                    addr.as_mut_ptr(),
                    &raw mut len,
                    libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
                ) {
                    -1 => None,
                    fd => Some(OwnedFd::from_raw_fd(fd)),
                }
            };
            let Some(fd) = fd else {
                let e = io::Error::last_os_error();
                match e.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(None),
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                        return Err(e);
                    }
                    // Errors of the connection, not of the listener (accept(2)).
                    _ => continue,
                }
            };
            match addr.endpoint() {
                Some(peer) if peer.addr.is_unicast() && peer.port != 0 => {
                    return Ok(Some(Accepted { fd, peer }));
                }
                // Nothing that could be answered [TCP-19].
                _ => linger_reset(fd.as_raw_fd()),
            }
        }
        Err(io::ErrorKind::ConnectionAborted.into())
    }
}

/// A datagram for a forwarded port.
#[derive(Clone, Copy, Debug)]
pub struct Arrived {
    /// Its length.
    pub len: usize,
    /// Who sent it.
    pub peer: Endpoint,
    /// Where it was sent to.
    pub local: Endpoint,
    /// That is multicast or broadcast.
    pub for_many: bool,
}

impl Listener<'_> {
    /// Receives the next datagram into `buf`; `None` when there is none. One that could not be
    /// answered is skipped.
    pub fn receive(&self, buf: &mut [u8]) -> Option<Arrived> {
        for _ in 0..ATTEMPTS {
            let mut addr = SockAddr::empty();
            let mut control = Control::new();
            let mut iov = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
            // SAFETY: all-zero is a valid msghdr.
            let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
            msg.msg_name = addr.as_mut_ptr().cast();
            msg.msg_namelen = SockAddr::capacity();
            msg.msg_iov = &raw mut iov;
            msg.msg_iovlen = 1;
            control.receive(&mut msg);
            // SAFETY: every pointer is valid for the length beside it until the call returns.
            let n = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut msg, libc::MSG_DONTWAIT) };
            let Ok(len) = usize::try_from(n) else {
                match io::Error::last_os_error().raw_os_error() {
                    Some(libc::EAGAIN) | None => return None,
                    // An error some earlier answer met; it does not concern this socket.
                    Some(_) => continue,
                }
            };
            if let (Some(peer), Some((local, for_many))) =
                (addr.endpoint(), local_address(control.messages(&msg)))
                && peer.addr.is_unicast()
                && peer.port != 0
            {
                let local = Endpoint::new(local, self.port);
                return Some(Arrived { len, peer, local, for_many });
            }
        }
        None
    }
}

/// The destination address of a received datagram, and whether that is multicast or broadcast.
fn local_address<'a>(messages: impl Iterator<Item = Message<'a>>) -> Option<(Addr, bool)> {
    let mut found = None;
    for message in messages {
        match message.kind {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let info: libc::in_pktinfo = message.value();
                let to = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
                // Where it is ours alone, an answer would leave from it.
                let many = info.ipi_addr.s_addr != info.ipi_spec_dst.s_addr;
                found = Some((to.into(), many && !to.is_loopback()));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let info: libc::in6_pktinfo = message.value();
                let to = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                found = Some((to.into(), to.is_multicast()));
            }
            _ => {}
        }
    }
    found
}

impl AsFd for Listener<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd
    }
}
