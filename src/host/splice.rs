//! Sockets of spliced flows.
//!
//! System calls: `socket`, `setsockopt`, `connect`, `recvfrom`, `splice`, `sendmsg`.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::ptr::null_mut;

use super::cmsg::Control;
use super::net::{Net, classify_io, connect, family, set_option, socket};
use super::pipes::Pipes;
use super::sockaddr::SockAddr;
use crate::flow::FlowId;
use crate::sys::factory::Kind;
use crate::translate::{Bind, Far, HostError, ListenerId, Moved, PipeId, SockId, SpliceSockets};
use crate::wire::Endpoint;

impl SpliceSockets for Net {
    fn connect_far(&mut self, id: FlowId, far: Far, to: Endpoint) -> Result<SockId, HostError> {
        let fd = match far {
            Far::Host => socket(family(to), libc::SOCK_STREAM, 0),
            Far::Guest if to.addr.is_v4() => self.inside.take(Kind::Tcp4),
            Far::Guest => self.inside.take(Kind::Tcp6),
        };
        let fd = fd.map_err(|e| classify_io(&e))?;
        prepare_spliced(fd.as_raw_fd());
        // The outcome is an event, even if it is known now: registering reports what is pending.
        connect(fd.as_fd(), to, self.scope6()).map_err(|e| classify_io(&e))?;
        self.adopt_side(fd, id, true)
    }

    fn open_udp_far(
        &mut self,
        id: FlowId,
        far: Far,
        at: Bind,
        to: Endpoint,
    ) -> Result<SockId, HostError> {
        if far == Far::Host {
            let fd = socket(family(to), libc::SOCK_DGRAM, 0).map_err(|e| classify_io(&e))?;
            return self.connect_udp(fd, id, (far, at), to);
        }
        let kind = if to.addr.is_v4() { Kind::Udp4 } else { Kind::Udp6 };
        let fd = self.inside.take(kind).map_err(|e| classify_io(&e))?;
        self.connect_udp(fd, id, (far, at), to)
    }

    fn receive(&mut self, s: SockId, buf: &mut [u8]) -> Moved {
        // SAFETY: the kernel writes at most the length of a buffer we hold exclusively.
        moved(|| unsafe { libc::recv(s.0, buf.as_mut_ptr().cast(), buf.len(), libc::MSG_DONTWAIT) })
    }

    fn take_pipe(&mut self) -> Option<PipeId> {
        self.pipes.take()
    }

    fn return_pipe(&mut self, pipe: PipeId, empty: bool) {
        self.pipes.put(pipe, empty);
    }

    fn fill(&mut self, from: SockId, pipe: PipeId) -> Moved {
        splice(from.0, pipe.1, Pipes::SIZE)
    }

    fn drain(&mut self, pipe: PipeId, to: SockId, pending: usize) -> Moved {
        splice(pipe.0, to.0, pending)
    }

    fn answer(&mut self, listener: ListenerId, from: Endpoint, to: Endpoint, data: &[u8]) -> bool {
        answer(listener, from, to, data).is_ok()
    }
}

/// Options of both TCP sockets of a spliced flow [SPLICE-4]. Accepted ones have them from their
/// listener.
fn prepare_spliced(fd: i32) {
    let _ = set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
    // A byte sent as urgent travels with the others.
    let _ = set_option(fd, libc::SOL_SOCKET, libc::SO_OOBINLINE, 1);
}

fn splice(from: i32, to: i32, len: usize) -> Moved {
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    // SAFETY: no offsets are passed; the kernel touches no memory of ours.
    moved(|| unsafe { libc::splice(from, null_mut(), to, null_mut(), len, flags) })
}

fn moved(mut call: impl FnMut() -> isize) -> Moved {
    loop {
        return match usize::try_from(call()) {
            Ok(0) => Moved::End,
            Ok(n) => Moved::Bytes(n),
            Err(_) => match io::Error::last_os_error().raw_os_error() {
                Some(libc::EINTR) => continue,
                Some(libc::EAGAIN) => Moved::Nothing,
                _ => Moved::Broken,
            },
        };
    }
}

/// Sends from `from`, which must be an address the socket is bound to, explicitly or not.
fn answer(listener: ListenerId, from: Endpoint, to: Endpoint, data: &[u8]) -> io::Result<()> {
    // An IPv6 socket that serves IPv4 too wants IPv4 addresses in mapped form [UDP-4].
    let mapped = listener.v6;
    let mut name = if mapped { SockAddr::mapped(to) } else { SockAddr::new(to, 0) };
    let mut iov = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    let mut control = Control::new();
    // SAFETY: all-zero is a valid msghdr.
    let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
    msg.msg_name = name.as_mut_ptr().cast();
    msg.msg_namelen = name.len();
    msg.msg_iov = &raw mut iov;
    msg.msg_iovlen = 1;
    match from.addr.v4() {
        Some(v4) if !mapped => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from(v4).to_be() },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            control.put(&mut msg, (libc::IPPROTO_IP, libc::IP_PKTINFO), info);
        }
        _ => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: *from.addr.octets() },
                ipi6_ifindex: 0,
            };
            control.put(&mut msg, (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO), info);
        }
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: everything `msg` points at lives until the call returns; the kernel only reads.
    let n = unsafe { libc::sendmsg(listener.sock.0, &raw const msg, flags) };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
