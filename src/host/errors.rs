//! What the network said about datagrams that did not arrive: the error queue of a socket
//! (`IP_RECVERR`, ip(7)).
//!
//! System calls: `setsockopt`, `recvmsg`.

use std::io;

use super::cmsg::{Control, Message, Plain};
use super::ip_option::IpOption;
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

// SAFETY: structures of integers, and a union of such.
unsafe impl Plain for Extended {}

/// Makes the kernel queue errors. Without it only some show, as errors of calls.
pub(super) fn enable(fd: i32, v4: bool) {
    let _ = IpOption::RECV_ERR.set(fd, v4, 1);
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
        if let Some(Extended { error, offender }) = extended(control.messages(&msg))
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
fn extended<'a>(messages: impl Iterator<Item = Message<'a>>) -> Option<Extended> {
    let kinds = [true, false].map(|v4| IpOption::RECV_ERR.of(v4));
    // An IPv4 address is shorter than there is room for.
    messages.filter(|m| kinds.contains(&m.kind)).last().map(|m| m.value())
}
