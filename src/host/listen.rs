//! Listening sockets of forwarded ports [FWD-14].
//!
//! System calls: `socket`, `setsockopt`, `bind`, `listen`, `accept4`, `recvmsg`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::cmsg::Control;
use super::net::{bind, family, set_option, socket};
use super::sockaddr::SockAddr;
use super::splice::prepare_spliced;
use super::tcp::linger_reset;
use crate::config::{PortRule, Proto};
use crate::translate::{ListenerId, SockId};
use crate::wire::{Addr, Endpoint};

/// Connections or datagrams that come to nothing, or errors, skipped per call: an error that stays
/// must not hold up everything else.
const ATTEMPTS: usize = 64;

/// Connections the kernel completes ahead of us.
const BACKLOG: i32 = 128;

/// How long a port may still be in use: by the instance before us, whose namespace has just gone
/// [COMPAT-22].
const PATIENCE: Duration = Duration::from_secs(1);

/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(5);

/// A port could not be listened on.
#[derive(Debug, Error)]
#[error("cannot listen on {proto} {addr} port {port}: {source}")]
pub struct ListenError {
    /// Protocol.
    pub proto: Proto,
    /// Address, as asked for.
    pub addr: IpAddr,
    /// Port.
    pub port: u16,
    /// The kernel's reason.
    pub source: io::Error,
}

/// One socket on one forwarded port.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    /// Protocol.
    pub proto: Proto,
    /// The port it listens on.
    pub port: u16,
    /// The port it stands for on the other side.
    pub to_port: u16,
    /// True for ports of the namespace that lead to the host (`-T`, `-U`).
    pub spliced: bool,
    /// It is an IPv6 socket.
    v6: bool,
}

/// Sockets of all rules, in order of their rules.
pub type Listeners = Vec<Listener>;

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
        let mut addr = SockAddr::empty();
        let mut len = SockAddr::capacity();
        // SAFETY: the kernel writes at most `len` bytes of address.
        let r = unsafe { libc::getsockname(self.fd.as_raw_fd(), addr.as_mut_ptr(), &raw mut len) };
        if r < 0 { None } else { addr.endpoint() }
    }
}

/// Opens every port of `rules`, in the current network namespace. One failure fails all; that a
/// port is in use is one only if it stays so for [`PATIENCE`].
pub fn open_listeners(
    rules: &[PortRule],
    (v4, v6): (bool, bool),
    spliced: bool,
) -> Result<Listeners, ListenError> {
    let mut out = Vec::new();
    let deadline = Instant::now().checked_add(PATIENCE);
    for rule in rules {
        for port in rule.first..=rule.last {
            let to_port = rule.to_first.wrapping_add(port.wrapping_sub(rule.first));
            let addr = rule.listen.unwrap_or(if v6 {
                IpAddr::V6(Ipv6Addr::UNSPECIFIED)
            } else {
                IpAddr::V4(Ipv4Addr::UNSPECIFIED)
            });
            // One socket serves both families where both are wanted.
            let dual = rule.listen.is_none() && v4 && v6;
            let at = Endpoint::new(addr.into(), port);
            let fd = loop {
                match open(rule.proto, at, dual, spliced) {
                    Ok(fd) => break fd,
                    Err(e)
                        if e.kind() == io::ErrorKind::AddrInUse
                            && deadline.is_some_and(|d| Instant::now() < d) =>
                    {
                        std::thread::sleep(PAUSE);
                    }
                    Err(source) => {
                        return Err(ListenError { proto: rule.proto, addr, port, source });
                    }
                }
            };
            out.push(Listener {
                fd,
                proto: rule.proto,
                port,
                to_port,
                spliced,
                v6: addr.is_ipv6(),
            });
        }
    }
    Ok(out)
}

fn open(proto: Proto, at: Endpoint, dual: bool, loopback_only: bool) -> io::Result<OwnedFd> {
    let kind = match proto {
        Proto::Tcp => libc::SOCK_STREAM,
        Proto::Udp => libc::SOCK_DGRAM,
    };
    let fd = socket(family(at), kind, 0)?;
    let raw = fd.as_raw_fd();
    if !at.addr.is_v4() {
        // Explicit either way: the default is a system setting.
        set_option(raw, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, i32::from(!dual))?;
    }
    set_option(raw, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if loopback_only {
        // Ports of the namespace that lead to the host serve its loopback alone [FWD-17].
        bind_to_device(raw, b"lo")?;
    }
    if proto == Proto::Udp {
        packet_info(raw, at, dual)?;
    }
    bind(fd.as_fd(), at, 0)?;
    if proto == Proto::Tcp {
        // Accepted sockets inherit it.
        set_option(raw, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
        if loopback_only {
            prepare_spliced(raw);
        } else {
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

fn bind_to_device(fd: i32, name: &[u8]) -> io::Result<()> {
    let len = libc::socklen_t::try_from(name.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the kernel reads `len` bytes of a live slice.
    let r = unsafe {
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name.as_ptr().cast(), len)
    };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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

impl Listener {
    /// Its name, for as long as it is open.
    pub fn id(&self) -> ListenerId {
        ListenerId { sock: SockId(self.fd.as_raw_fd()), v6: self.v6 }
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
}

impl Listener {
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
            if let (Some(peer), Some(local)) = (addr.endpoint(), local_address(&msg))
                && peer.addr.is_unicast()
                && peer.port != 0
            {
                return Some(Arrived { len, peer, local: Endpoint::new(local, self.port) });
            }
        }
        None
    }
}

/// The destination address of a received datagram.
fn local_address(msg: &libc::msghdr) -> Option<Addr> {
    let mut found = None;
    // SAFETY: the kernel filled in the control messages and their total length; the macros stay
    // inside it, and the data of each is at least as long as its type says.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(msg);
        while let Some(h) = header.as_ref() {
            match (h.cmsg_level, h.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = libc::CMSG_DATA(h).cast::<libc::in_pktinfo>().read_unaligned();
                    found = Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = libc::CMSG_DATA(h).cast::<libc::in6_pktinfo>().read_unaligned();
                    found = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                }
                _ => {}
            }
            header = libc::CMSG_NXTHDR(msg, h);
        }
    }
    found
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    fn rule(proto: Proto, listen: Option<&str>, first: u16, last: u16) -> PortRule {
        let listen = listen.map(|a| a.parse().unwrap());
        PortRule { proto, listen, first, last, to_first: 80 }
    }

    // [FWD-14] One dual-stack socket serves both families.
    #[test]
    fn dual_stack() {
        let l = open_listeners(&[rule(Proto::Tcp, None, 39801, 39802)], (true, true), false);
        let l = l.unwrap();
        assert_eq!(
            l.iter().map(|l| (l.port, l.to_port)).collect::<Vec<_>>(),
            [(39801, 80), (39802, 81)]
        );
        let _a = TcpStream::connect("127.0.0.1:39801").unwrap();
        let got = l[0].accept().unwrap().unwrap();
        assert_eq!(got.peer.addr.to_string(), "127.0.0.1");
        let _b = TcpStream::connect("[::1]:39801").unwrap();
        assert_eq!(l[0].accept().unwrap().unwrap().peer.addr.to_string(), "::1");
        assert!(l[0].accept().unwrap().is_none());
    }

    // [FWD-15] A port that is taken is named, and nothing is left behind.
    #[test]
    fn taken_port_is_named() {
        let _taken = std::net::TcpListener::bind("127.0.0.1:39804").unwrap();
        let rules = [rule(Proto::Tcp, Some("127.0.0.1"), 39803, 39804)];
        let e = open_listeners(&rules, (true, true), false).unwrap_err();
        assert_eq!(
            e.to_string(),
            "cannot listen on TCP 127.0.0.1 port 39804: Address already in use (os error 98)"
        );
        std::net::TcpListener::bind("127.0.0.1:39803").unwrap();
    }

    // [UDP-4] The address a datagram was sent to is known, on a dual-stack socket too.
    #[test]
    fn datagrams_know_their_destination() {
        let l = open_listeners(&[rule(Proto::Udp, None, 39805, 39805)], (true, true), false);
        let l = l.unwrap();
        for (from, to) in [("127.0.0.1:0", "127.0.0.5"), ("[::1]:0", "::1")] {
            let c = std::net::UdpSocket::bind(from).unwrap();
            c.send_to(b"hi", (to, 39805)).unwrap();
            let mut buf = [0; 10];
            let got = l[0].receive(&mut buf).unwrap();
            assert_eq!(got.len, 2);
            assert_eq!(got.local.addr.to_string(), to);
            assert_eq!(got.local.port, 39805);
            assert_eq!(got.peer.port, c.local_addr().unwrap().port());
        }
        assert!(l[0].receive(&mut [0; 10]).is_none());
    }
}
