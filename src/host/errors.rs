//! What the network said about datagrams that did not arrive: the error queue of a socket
//! (`IP_RECVERR`, ip(7)).
//!
//! System calls: `setsockopt`, `recvmsg`.

use std::io;

use super::cmsg::Control;
use super::net::set_option;
use super::sockaddr::SockAddr;
use crate::translate::Report;
use crate::wire::IcmpMessage;

/// `SO_EE_ORIGIN_ICMP` and `SO_EE_ORIGIN_ICMP6` of `linux/errqueue.h`.
const ICMP: u8 = 2;
const ICMP6: u8 = 3;

/// An extended error, and the address that the kernel puts behind it: who reported it.
#[derive(Clone, Copy)]
#[repr(C)]
struct Extended {
    error: libc::sock_extended_err,
    offender: SockAddr,
}

/// Makes the kernel queue errors. Without it only some show, as errors of calls.
pub(super) fn enable(fd: i32, v4: bool) {
    let (level, name) = if v4 {
        (libc::IPPROTO_IP, libc::IP_RECVERR)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
    };
    let _ = set_option(fd, level, name, 1);
}

/// Takes the oldest error of a socket that came as an ICMP message; what the message quotes of the
/// payload goes to `quoted`.
pub(super) fn take(fd: i32, quoted: &mut [u8]) -> Option<Report> {
    // Errors of other origins are those of our own calls, which told us already.
    for _ in 0..64 {
        let mut control = Control::new();
        let mut iov = libc::iovec { iov_base: quoted.as_mut_ptr().cast(), iov_len: quoted.len() };
        // SAFETY: all-zero is a valid msghdr.
        let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
        msg.msg_iov = &raw mut iov;
        msg.msg_iovlen = 1;
        control.receive(&mut msg);
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        // SAFETY: every pointer is valid for the length beside it until the call returns.
        let n = unsafe { libc::recvmsg(fd, &raw mut msg, flags) };
        let Ok(len) = usize::try_from(n) else {
            if io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) {
                continue;
            }
            return None;
        };
        if let Some(Extended { error, offender }) = extended(&msg)
            && matches!(error.ee_origin, ICMP | ICMP6)
        {
            let message =
                IcmpMessage { kind: error.ee_type, code: error.ee_code, mtu: error.ee_info };
            let offender = offender.endpoint().map(|e| e.addr).filter(|a| !a.is_unspecified());
            return Some(Report { message, offender, quoted: len.min(quoted.len()) });
        }
    }
    None
}

/// The extended error among the control messages.
fn extended(msg: &libc::msghdr) -> Option<Extended> {
    let mut found = None;
    // SAFETY: the kernel filled in the control messages and their total length; the macros stay
    // inside it. No more is copied than a message has and than there is room for; any bytes are a
    // valid error and a valid address.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(msg);
        while let Some(h) = header.as_ref() {
            if matches!(
                (h.cmsg_level, h.cmsg_type),
                (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
            ) {
                let mut it = Extended { error: std::mem::zeroed(), offender: SockAddr::empty() };
                // Its type differs between C libraries.
                #[allow(clippy::unnecessary_cast)]
                let len = (h.cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
                let len = len.min(size_of::<Extended>());
                let to = (&raw mut it).cast::<u8>();
                std::ptr::copy_nonoverlapping(libc::CMSG_DATA(h), to, len);
                found = Some(it);
            }
            header = libc::CMSG_NXTHDR(msg, h);
        }
    }
    found
}
