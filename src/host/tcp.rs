//! TCP sockets of flows.
//!
//! System calls: `sendmsg`, `recvfrom`, `recvmsg`, `setsockopt`, `getsockopt`, `shutdown`.

use std::io::{self, IoSlice};
use std::os::fd::AsRawFd as _;

use super::ip_option::IpOption;
use super::net::{Net, classify, classify_io, family, set_option, socket, take_error};
use super::{errors, info};
use crate::flow::FlowId;
use crate::forward::Destination;
use crate::translate::{
    Connected, HostError, Peeked, Report, Sent, SockId, SynMarks, TcpSockets, TcpView,
};

/// Room to skip bytes in, without `SO_PEEK_OFF`.
pub(super) const SKIP: usize = 1 << 20;

/// How often that room is used per call: 16 MiB in flight, the largest window we honour.
const SKIPS: usize = 16;

impl TcpSockets for Net {
    fn connect(
        &mut self,
        id: FlowId,
        dst: Destination,
        marks: SynMarks,
    ) -> Result<Connected, HostError> {
        let fd = socket(family(dst.to), libc::SOCK_STREAM, 0).map_err(|e| classify_io(&e))?;
        prepare(fd.as_raw_fd(), self.peek_off);
        let v4 = dst.to.addr.is_v4();
        if marks.tos != 0 {
            mark(fd.as_raw_fd(), v4, marks.tos);
        }
        if let Some(hops) = marks.hops {
            errors::enable(fd.as_raw_fd(), v4);
            limit_hops(fd.as_raw_fd(), v4, hops);
        }
        let at_once = self.connect_via(&fd, dst).map_err(|e| classify_io(&e))?;
        let sock = self.adopt(fd, id)?;
        Ok(if at_once { Connected::Now(sock) } else { Connected::Later(sock) })
    }

    fn connect_report(&mut self, s: SockId) -> Option<Report> {
        errors::take(s.0, &mut [])
    }

    fn connect_error(&mut self, s: SockId) -> Option<HostError> {
        match take_error(s.0) {
            0 => None,
            errno => Some(classify(errno)),
        }
    }

    fn send(&mut self, s: SockId, data: &[IoSlice<'_>]) -> Sent {
        // SAFETY: all-zero is a valid msghdr.
        let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
        msg.msg_iov = data.as_ptr().cast_mut().cast();
        msg.msg_iovlen = data.len() as _;
        loop {
            // SAFETY: IoSlice has the layout of iovec, the kernel only reads through it, and the
            // slices outlive the call.
            let n = unsafe {
                libc::sendmsg(s.0, &raw const msg, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
            };
            return match usize::try_from(n) {
                Ok(n) => Sent::Bytes(n),
                Err(_) => match io::Error::last_os_error().raw_os_error() {
                    Some(libc::EINTR) => continue,
                    Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => Sent::Bytes(0),
                    _ => Sent::Broken,
                },
            };
        }
    }

    fn peek(&mut self, s: SockId, offset: u32, buf: &mut [u8]) -> Peeked {
        if self.peek_off {
            return received(receive(s.0, buf.as_mut_ptr().cast(), buf.len(), libc::MSG_PEEK), 0);
        }
        self.peek_beyond(s, offset as usize, buf)
    }

    fn seek(&mut self, s: SockId, offset: u32) -> bool {
        if !self.peek_off {
            return true;
        }
        let offset = i32::try_from(offset).unwrap_or(i32::MAX);
        set_option(s.0, libc::SOL_SOCKET, libc::SO_PEEK_OFF, offset).is_ok()
    }

    fn discard(&mut self, s: SockId, n: u32) -> bool {
        let mut left = n as usize;
        while left > 0 {
            // For TCP, MSG_TRUNC removes without copying; the buffer is not touched (tcp(7)).
            match received(receive(s.0, std::ptr::null_mut(), left, libc::MSG_TRUNC), 0) {
                Peeked::Bytes(n) => left = left.saturating_sub(n),
                _ => return false,
            }
        }
        true
    }

    fn shutdown(&mut self, s: SockId) -> bool {
        // SAFETY: no pointers are passed.
        unsafe { libc::shutdown(s.0, libc::SHUT_WR) == 0 }
    }

    fn view(&mut self, s: SockId) -> Option<TcpView> {
        info::view(s.0)
    }

    fn free_space(&mut self, s: SockId) -> u32 {
        info::free_space(s.0)
    }

    fn send_buffer(&mut self, s: SockId) -> u32 {
        info::send_buffer(s.0)
    }

    fn set_tos(&mut self, s: SockId, v4: bool, tos: u8) {
        mark(s.0, v4, tos);
    }

    fn peer_tos(&mut self, s: SockId) -> u8 {
        info::peer_tos(s.0)
    }

    fn close(&mut self, s: SockId) {
        self.close_socket(s);
    }

    fn abort(&mut self, s: SockId) {
        linger_reset(s.0);
        self.close_socket(s);
    }
}

impl Net {
    /// Peeks without `SO_PEEK_OFF`: everything in flight is copied again, to nowhere.
    fn peek_beyond(&mut self, s: SockId, offset: usize, buf: &mut [u8]) -> Peeked {
        let mut iov = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; SKIPS + 1];
        let mut left = offset;
        let mut used = 0;
        while left > 0 {
            if used == SKIPS {
                return Peeked::Broken;
            }
            let n = left.min(self.skip.len());
            iov[used] = libc::iovec { iov_base: self.skip.as_mut_ptr().cast(), iov_len: n };
            left -= n;
            used += 1;
        }
        iov[used] = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
        // SAFETY: all-zero is a valid msghdr.
        let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
        msg.msg_iov = iov.as_mut_ptr();
        msg.msg_iovlen = (used + 1) as _;
        // SAFETY: every element points at memory that we hold exclusively for the call; parts of
        // the same scratch room may be written several times, which is as good as once.
        let n = unsafe { libc::recvmsg(s.0, &raw mut msg, libc::MSG_PEEK | libc::MSG_DONTWAIT) };
        received(n, offset)
    }
}

/// Options every TCP socket of a flow needs [TCP-94]. Failures cost performance, no more.
pub(super) fn prepare(fd: i32, peek_off: bool) {
    // Message boundaries of the guest are not known here: never wait for more.
    let _ = set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
    // Urgent data stays in the stream: out of band it would stop every peek at its mark, and its
    // byte would be missing from what we count.
    let _ = set_option(fd, libc::SOL_SOCKET, libc::SO_OOBINLINE, 1);
    if peek_off {
        let _ = set_option(fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, 0);
    }
}

/// Marks what a socket sends. A kernel that refuses leaves it as it was: marks are a wish.
pub(super) fn mark(fd: i32, v4: bool, tos: u8) {
    let _ = IpOption::TOS.set(fd, v4, tos.into());
}

/// Limits how far it gets what a socket sends; likewise.
pub(super) fn limit_hops(fd: i32, v4: bool, hops: u8) {
    let _ = IpOption::TTL.set(fd, v4, hops.into());
}

/// Makes the next close send RST [TCP-20].
pub(super) fn linger_reset(fd: i32) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let len = libc::socklen_t::try_from(size_of::<libc::linger>()).unwrap_or(0);
    // SAFETY: the kernel reads one struct linger, which lives until the call returns. Failing is
    // harmless: the close then is an orderly one.
    unsafe {
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), len);
    }
}

fn receive(fd: i32, buf: *mut libc::c_void, len: usize, flags: i32) -> isize {
    // SAFETY: callers pass a buffer of `len` bytes they hold exclusively, or none together with
    // MSG_TRUNC on a TCP socket, which the kernel does not write to.
    unsafe { libc::recv(fd, buf, len, flags | libc::MSG_DONTWAIT) }
}

fn received(n: isize, skipped: usize) -> Peeked {
    match usize::try_from(n) {
        Ok(0) => Peeked::End,
        // Without peek offsets a queue that ends at the offset looks the same with and without
        // FIN; the next event will tell.
        Ok(n) if n == skipped => Peeked::Empty,
        Ok(n) => Peeked::Bytes(n.saturating_sub(skipped)),
        Err(_) => match io::Error::last_os_error().raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM) => Peeked::Empty,
            _ => Peeked::Broken,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(fd: i32, level: i32, name: i32) -> i32 {
        let (mut value, mut len) = (0i32, libc::socklen_t::try_from(size_of::<i32>()).unwrap());
        // SAFETY: the kernel writes one int to a variable of ours.
        let r = unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut len) };
        assert_eq!(r, 0);
        value
    }

    // [TCP-94] [TCP-58] No delay; and what the kernel tunes by itself is left to it: buffers, and
    // the largest window, which once clamped would not grow again.
    #[test]
    fn buffers_and_windows_are_the_kernels() {
        let plain = socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        let ours = socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        prepare(ours.as_raw_fd(), true);
        assert_eq!(option(ours.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY), 1);
        for (level, name) in [
            (libc::SOL_SOCKET, libc::SO_SNDBUF),
            (libc::SOL_SOCKET, libc::SO_RCVBUF),
            (libc::SOL_SOCKET, libc::SO_RCVLOWAT),
            (libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP),
            (libc::IPPROTO_TCP, libc::TCP_CORK),
            (libc::IPPROTO_TCP, libc::TCP_QUICKACK),
        ] {
            let [ours, plain] = [&ours, &plain].map(|fd| option(fd.as_raw_fd(), level, name));
            assert_eq!(ours, plain, "option {name}");
        }
    }
}
