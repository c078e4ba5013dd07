//! Datagram sockets of flows: UDP and ICMP echo.
//!
//! System calls: `socket`, `bind`, `connect`, `setsockopt`, `getsockopt`, `sendto`, `sendmsg`, `recvfrom`.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use super::answers;
use super::cmsg::Control;
use super::early::{self, Early};
use super::errors;
use super::ip_option::IpOption;
use super::net::{Net, bind, classify, classify_io, connect, family, set_option, socket};
use super::outbound::bind_freely;
use super::trains::UDP_GRO;
use crate::flow::FlowId;
use crate::forward::Destination;
use crate::translate::{
    Answer, Bind, DatagramSockets, Expect, Far, Gathered, HostError, MtuDiscovery, Received,
    Report, SockId, Train,
};
use crate::wire::Endpoint;

/// Longest train that is sent one by one; the kernel's own limit is 64 or 128.
const TRAIN: usize = 128;

/// Room for datagrams that wait for us.
const RECEIVE_BUFFER: i32 = 4 << 20;

/// `UDP_SEGMENT` of `linux/udp.h`.
const UDP_SEGMENT: i32 = 103;

impl DatagramSockets for Net {
    fn open_udp(&mut self, id: FlowId, at: Bind, to: Endpoint) -> Result<SockId, HostError> {
        let fd = socket(family(to), libc::SOCK_DGRAM, 0).map_err(|e| classify_io(&e))?;
        prepare(fd.as_raw_fd(), to.addr.is_v4());
        let sock = self.connect_udp(fd, id, (Far::Host, at), to)?;
        // Not earlier: then a train could come that nobody takes for one.
        let _ = set_option(sock.0, libc::SOL_UDP, UDP_GRO, 1);
        Ok(sock)
    }

    fn take_early(&mut self, s: SockId) -> Option<Vec<u8>> {
        self.early.take(s)
    }

    fn open_ping(&mut self, id: FlowId, dst: Destination) -> Result<SockId, HostError> {
        let to = dst.to;
        let protocol = if to.addr.is_v4() { libc::IPPROTO_ICMP } else { libc::IPPROTO_ICMPV6 };
        let fd = match socket(family(to), libc::SOCK_DGRAM, protocol) {
            Ok(fd) => fd,
            Err(e) => {
                if e.raw_os_error() == Some(libc::EACCES) && !self.told_about_ping {
                    self.told_about_ping = true;
                    log::warn!(
                        "cannot send pings: our group is outside sysctl net.ipv4.ping_group_range"
                    );
                }
                return Err(classify_io(&e));
            }
        };
        errors::enable(fd.as_raw_fd(), to.addr.is_v4());
        self.connect_via(&fd, dst).map_err(|e| classify_io(&e))?;
        self.adopt_datagram(fd, id, false)
    }

    fn open_answers(&mut self, id: FlowId, s: SockId) -> Option<SockId> {
        self.listen_beside(id, s)
    }

    fn receive_answer(&mut self, s: SockId, buf: &mut [u8]) -> Option<Answer> {
        answers::receive(s, buf)
    }

    fn send_datagram(&mut self, s: SockId, data: &[u8], segment: u16) -> Result<(), HostError> {
        if segment != 0 && data.len() > usize::from(segment) {
            match send_train(s.0, data, segment) {
                // No offload on the way out, or none of packets that are to be cut: one by one.
                Err(e)
                    if matches!(
                        e.raw_os_error(),
                        Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE)
                    ) && data.len().div_ceil(segment.into()) <= TRAIN =>
                {
                    return send_each(s.0, data, segment);
                }
                result => return result.map_err(|e| classify_io(&e)),
            }
        }
        send_one(s.0, data).map_err(|e| classify_io(&e))
    }

    fn receive_datagram(&mut self, s: SockId, buf: &mut [u8]) -> Received {
        loop {
            // SAFETY: the kernel writes at most the length of a buffer we hold exclusively.
            let n =
                unsafe { libc::recv(s.0, buf.as_mut_ptr().cast(), buf.len(), libc::MSG_DONTWAIT) };
            return match usize::try_from(n) {
                Ok(n) => Received::Bytes(n),
                Err(_) => match io::Error::last_os_error().raw_os_error().unwrap_or(0) {
                    libc::EINTR => continue,
                    libc::EAGAIN => Received::Empty,
                    errno => Received::Error(classify(errno)),
                },
            };
        }
    }

    fn receive_trains(&mut self, s: SockId, expect: &mut Expect) -> Gathered {
        self.trains.receive(s.0, expect)
    }

    fn train(&self, n: usize) -> Option<Train<'_>> {
        self.trains.get(n)
    }

    fn take_report(&mut self, s: SockId, quoted: &mut [u8]) -> Option<Report> {
        errors::take(s.0, quoted)
    }

    fn set_mark(&mut self, s: SockId, v4: bool, tos: u8) {
        super::tcp::mark(s.0, v4, tos);
    }

    fn set_ttl(&mut self, s: SockId, v4: bool, ttl: u8) {
        super::tcp::limit_hops(s.0, v4, ttl);
        // Without it the datagram leaves with the host's default.
        let _ = IpOption::MULTICAST_TTL.set(s.0, v4, ttl.into());
    }

    fn set_mtu_discovery(&mut self, s: SockId, v4: bool, how: MtuDiscovery) {
        let value = match how {
            MtuDiscovery::Want => libc::IP_PMTUDISC_WANT,
            MtuDiscovery::Probe => libc::IP_PMTUDISC_PROBE,
            MtuDiscovery::Dont => libc::IP_PMTUDISC_DONT,
        };
        // Without it the kernel decides, as for most programs.
        let _ = IpOption::MTU_DISCOVER.set(s.0, v4, value);
    }

    fn path_mtu(&mut self, s: SockId, v4: bool) -> Option<u32> {
        IpOption::MTU.value(s.0, v4).ok().and_then(|mtu| u32::try_from(mtu).ok())
    }

    fn close_datagram(&mut self, s: SockId) {
        self.ports.remove_flow(s.0);
        self.close_socket(s);
    }
}

impl Net {
    /// Makes a new UDP socket of the host, or of the guest's namespace, that of flow `id`.
    pub(super) fn connect_udp(
        &mut self,
        fd: OwnedFd,
        id: FlowId,
        (place, at): (Far, Bind),
        to: Endpoint,
    ) -> Result<SockId, HostError> {
        let has_port = match at {
            Bind::Port(port, via) => self.connect_from(&fd, (place, port), Destination { to, via }),
            Bind::Exactly(local) => self.connect_exactly(&fd, local, to).map(|_| None),
        };
        let has_port = has_port.map_err(|e| classify_io(&e))?;
        let early = early::sort(&fd, to);
        let sock = self.adopt_datagram(fd, id, false)?;
        self.early = Early::of(sock, early);
        if let Some(port) = has_port {
            self.ports.add_flow(sock.0, port, to.addr.is_v4());
        }
        Ok(sock)
    }

    /// Beside the listening socket, which has the port, too, and where it may be bound to what is
    /// not ours [FWD-16].
    fn connect_exactly(&self, fd: &OwnedFd, local: Endpoint, to: Endpoint) -> io::Result<bool> {
        set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        if self.freebind {
            bind_freely(fd.as_raw_fd(), local.addr.is_v4())?;
        }
        bind(fd.as_fd(), local, self.scope6())?;
        connect(fd.as_fd(), to, self.scope6())
    }
}

/// Asks for what is wanted with each datagram. Where the kernel has none of it, datagrams come one
/// by one, and without marks.
fn prepare(fd: i32, v4: bool) {
    for option in [IpOption::RECV_TOS, IpOption::RECV_TTL] {
        let _ = option.set(fd, v4, 1);
    }
    errors::enable(fd, v4);
    // The kernel cuts it to what anybody may have: bursts wait here while we are busy.
    let _ = set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER);
}

fn send_one(fd: i32, data: &[u8]) -> io::Result<()> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the kernel reads a live slice.
    let n = unsafe { libc::send(fd, data.as_ptr().cast(), data.len(), flags) };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends the datagrams of a train one by one. What fails after the first is lost, as on any network:
/// those before it must not be sent again.
fn send_each(fd: i32, data: &[u8], segment: u16) -> Result<(), HostError> {
    let mut sent = false;
    for datagram in data.chunks(segment.into()) {
        // The first error may have been an earlier datagram's.
        match send_one(fd, datagram).or_else(|_| send_one(fd, datagram)) {
            Ok(()) => sent = true,
            Err(e) if !sent => return Err(classify_io(&e)),
            Err(_) => {}
        }
    }
    Ok(())
}

fn send_train(fd: i32, data: &[u8], segment: u16) -> io::Result<()> {
    let mut iov = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    let mut control = Control::new();
    // SAFETY: all-zero is a valid msghdr.
    let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
    msg.msg_iov = &raw mut iov;
    msg.msg_iovlen = 1;
    control.put(&mut msg, (libc::SOL_UDP, UDP_SEGMENT), segment);
    // SAFETY: everything `msg` points at lives until the call returns; the kernel only reads.
    let n = unsafe { libc::sendmsg(fd, &raw const msg, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
