//! The socket factory: creates, registers, closes.
//!
//! System calls: `socket`, `setsockopt`, `getsockopt`, `connect`, `bind`, `close`, `epoll_ctl`.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, IntoRawFd as _, OwnedFd};

use super::early::Early;
use super::inside::Inside;
use super::listener::{Listener, Side};
use super::pipes::Pipes;
use super::ports::Ports;
use super::sockaddr::SockAddr;
use super::trains::Trains;
use crate::config::{Outbound, Proto};
use crate::event::{Registrar, Source};
use crate::flow::FlowId;
use crate::translate::{HostError, SockId};
use crate::wire::Endpoint;

/// Host sockets of every flow.
#[derive(Debug)]
pub struct Net {
    registrar: Registrar,
    /// Interface index for IPv6 link-local destinations.
    scope6: u32,
    /// Where flows of the guest leave the host.
    pub(super) outbound: Outbound,
    /// Sockets may be bound to addresses that are not ours.
    pub(super) freebind: bool,
    /// UDP ports of the host that the guest's flows may share.
    pub(super) ports: Ports,
    /// `SO_PEEK_OFF` works for TCP in every family there is [TCP-60].
    pub(super) peek_off: bool,
    /// Where bytes before the offset go when it does not.
    pub(super) skip: Box<[u8]>,
    /// What came for the flow that was opened last before it was.
    pub(super) early: Early,
    /// What flows of the guest received last.
    pub(super) trains: Trains,
    /// The warning about ping sockets was given.
    pub(super) told_about_ping: bool,
    /// Pipes of spliced flows.
    pub(super) pipes: Pipes,
    /// Sockets of the guest's namespace.
    pub inside: Inside,
    /// Sockets open now; equals the number of sockets of live flows.
    open: usize,
}

impl Net {
    /// Sockets will be registered through `registrar`.
    pub fn new(
        registrar: Registrar,
        scope6: u32,
        inside: Inside,
        outbound: Outbound,
        freebind: bool,
    ) -> Self {
        let peek_off = in_every_family(|family| {
            let fd = socket(family, libc::SOCK_STREAM, 0).ok()?;
            Some(set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEEK_OFF, 0).is_ok())
        });
        // Only old kernels need the room.
        let skip = if peek_off { 0 } else { super::tcp::SKIP };
        Self {
            registrar,
            scope6,
            outbound,
            freebind,
            ports: Ports::new(),
            peek_off,
            skip: vec![0; skip].into_boxed_slice(),
            early: Early::none(),
            trains: Trains::new(),
            told_about_ping: false,
            pipes: Pipes::new(),
            inside,
            open: 0,
        }
    }

    /// IPv6 link-local destinations are on this interface from now on.
    pub fn set_scope6(&mut self, index: u32) {
        self.scope6 = index;
    }

    /// Sockets open now.
    pub fn open_sockets(&self) -> usize {
        self.open
    }

    /// A listening socket was opened: datagrams that the guest sends from the port it leads to may
    /// leave from there [UDP-3].
    pub fn listens(&mut self, listener: &Listener<'_>) {
        for v4 in shared(listener) {
            self.ports.add(listener.port, v4);
        }
    }

    /// It is about to be closed.
    pub(super) fn listens_no_more(&mut self, listener: &Listener<'_>) {
        for v4 in shared(listener) {
            self.ports.remove(listener.port, v4);
        }
    }

    /// True if this is where the guest's datagrams come from: an address of the host, and a port
    /// that a flow has. Asked of what was sent to many, which the kernel also delivers to the host
    /// itself; nothing may go round in circles [UDP-13].
    pub fn sent_by_guest(&self, from: Endpoint) -> bool {
        let v4 = from.addr.is_v4();
        // An address is the host's if a socket can have it.
        let is_hosts = |at: Endpoint| {
            let fd = socket(family(at), libc::SOCK_DGRAM, 0)?;
            bind(fd.as_fd(), at, self.scope6)
        };
        self.ports.are_of_a_flow(from.port, v4) && is_hosts(Endpoint::new(from.addr, 0)).is_ok()
    }

    /// Takes over a connected TCP socket, for flow `id`.
    pub fn adopt_stream(&mut self, fd: OwnedFd, id: FlowId) -> Result<SockId, HostError> {
        super::tcp::prepare(fd.as_raw_fd(), self.peek_off);
        self.adopt(fd, id)
    }

    /// Takes over a socket for flow `id`, the client's if it is spliced.
    pub fn adopt(&mut self, fd: OwnedFd, id: FlowId) -> Result<SockId, HostError> {
        self.adopt_side(fd, id, false)
    }

    /// Takes over one of the two TCP sockets of a spliced flow; `side` is true for the one that
    /// leads to the server.
    pub(super) fn adopt_side(
        &mut self,
        fd: OwnedFd,
        id: FlowId,
        side: bool,
    ) -> Result<SockId, HostError> {
        let registered = self.registrar.add_stream(fd.as_fd(), Source::Flow { id, side });
        self.keep(fd, registered)
    }

    /// Interface index for link-local destinations.
    pub(super) fn scope6(&self) -> u32 {
        self.scope6
    }

    /// Registers a datagram socket: readable only, a write edge for every send would be waste.
    pub(super) fn adopt_datagram(
        &mut self,
        fd: OwnedFd,
        id: FlowId,
        side: bool,
    ) -> Result<SockId, HostError> {
        let registered = self.registrar.add(fd.as_fd(), Source::Flow { id, side }, false);
        self.keep(fd, registered)
    }

    /// From here on the socket is known by its id; one that could not be registered is closed.
    fn keep(&mut self, fd: OwnedFd, registered: io::Result<()>) -> Result<SockId, HostError> {
        registered.map_err(|_| HostError::Exhausted)?;
        self.open += 1;
        Ok(SockId(fd.into_raw_fd()))
    }

    /// Closes a socket. Closing also takes it out of the event set.
    pub(super) fn close_socket(&mut self, s: SockId) {
        if s.0 < 0 {
            return;
        }
        // SAFETY: the id is a descriptor that `adopt` took over, and its flow gives it up here,
        // the only place that closes it.
        drop(unsafe { OwnedFd::from_raw_fd(s.0) });
        self.open -= 1;
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        debug_assert!(self.open == 0 || std::thread::panicking(), "{} sockets leaked", self.open);
    }
}

/// The families in which a listener's port stands for the same port of the guest.
fn shared(listener: &Listener<'_>) -> impl Iterator<Item = bool> {
    let same = listener.to_port() == listener.port && listener.target().is_none();
    let ours = listener.side == Side::Host && listener.proto() == Proto::Udp && same;
    let (v4, v6) = listener.families();
    [(v4, true), (v6, false)].into_iter().filter_map(move |(on, v4)| (on && ours).then_some(v4))
}

/// True if something works in every family of which there are sockets. The kernels that first had
/// peek offsets had them for one family only, and all flows must do the same.
fn in_every_family(works: impl Fn(i32) -> Option<bool>) -> bool {
    [libc::AF_INET, libc::AF_INET6].into_iter().all(|family| works(family).unwrap_or(true))
}

/// Creates a non-blocking socket.
pub(super) fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    let kind = kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers are passed; the result is checked and owned from here on.
    unsafe {
        match libc::socket(family, kind, protocol) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// The address family of an endpoint.
pub(super) fn family(e: Endpoint) -> i32 {
    if e.addr.is_v4() { libc::AF_INET } else { libc::AF_INET6 }
}

/// Sets an integer option.
pub(super) fn set_option(fd: i32, level: i32, name: i32, value: i32) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<i32>()).unwrap_or(4);
    // SAFETY: the kernel reads one int, which lives until the call returns.
    let r = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), len) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Connects; `Ok(false)` means in progress.
pub(super) fn connect(fd: BorrowedFd<'_>, to: Endpoint, scope: u32) -> io::Result<bool> {
    let addr = SockAddr::new(to, scope);
    // SAFETY: the address is valid for the length given until the call returns.
    if unsafe { libc::connect(fd.as_raw_fd(), addr.as_ptr(), addr.len()) } == 0 {
        return Ok(true);
    }
    let e = io::Error::last_os_error();
    if e.raw_os_error() == Some(libc::EINPROGRESS) { Ok(false) } else { Err(e) }
}

/// Binds to an address.
pub(super) fn bind(fd: BorrowedFd<'_>, to: Endpoint, scope: u32) -> io::Result<()> {
    let addr = SockAddr::new(to, scope);
    // SAFETY: the address is valid for the length given until the call returns.
    let r = unsafe { libc::bind(fd.as_raw_fd(), addr.as_ptr(), addr.len()) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes the pending error of a socket, 0 if there is none.
pub(super) fn take_error(fd: i32) -> i32 {
    option(fd, libc::SOL_SOCKET, libc::SO_ERROR).unwrap_or(libc::EBADF)
}

/// An integer option.
pub(super) fn option(fd: i32, level: i32, name: i32) -> io::Result<i32> {
    let mut value = 0i32;
    let mut len = libc::socklen_t::try_from(size_of::<i32>()).unwrap_or(4);
    // SAFETY: the kernel writes one int and its length, both of which live until it returns.
    let r = unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut len) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// Sorts an errno by what the guest should learn.
pub(super) fn classify(errno: i32) -> HostError {
    match errno {
        libc::ECONNREFUSED => HostError::Refused,
        libc::EHOSTUNREACH
        | libc::ENETUNREACH
        | libc::ENETDOWN
        | libc::ENODEV
        | libc::EHOSTDOWN
        | libc::EADDRNOTAVAIL => HostError::Unreachable,
        libc::ETIMEDOUT => HostError::TimedOut,
        libc::EMSGSIZE => HostError::TooLong,
        libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EAGAIN => {
            HostError::Exhausted
        }
        _ => HostError::Other,
    }
}

/// [`classify`] for a failed call.
pub(super) fn classify_io(e: &io::Error) -> HostError {
    classify(e.raw_os_error().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    // [TCP-60] [TCP-101] Peek offsets of one family only are as good as none (Linux 6.9 had them
    // for IPv4 before IPv6); a family that does not exist is no obstacle.
    #[test]
    fn peek_offsets_have_to_work_everywhere() {
        let on = |v4, v6| in_every_family(|f| if f == libc::AF_INET { v4 } else { v6 });
        assert!(on(Some(true), Some(true)));
        assert!(!on(Some(true), Some(false)));
        assert!(!on(Some(false), Some(true)));
        assert!(!on(Some(false), Some(false)));
        assert!(on(Some(true), None) && on(None, Some(true)));
        assert!(!on(Some(false), None));
    }
}
