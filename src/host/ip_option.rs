//! Options that sockets of both families have, each family under a name of its own.

use std::io;

use super::net::{option, set_option};

/// Such an option.
#[derive(Clone, Copy)]
pub(super) struct IpOption {
    v4: i32,
    v6: i32,
}

impl IpOption {
    /// Type of service or traffic class of what is sent.
    pub(super) const TOS: Self = Self::new(libc::IP_TOS, libc::IPV6_TCLASS);
    /// TTL or hop limit of it.
    pub(super) const TTL: Self = Self::new(libc::IP_TTL, libc::IPV6_UNICAST_HOPS);
    /// The same of what is sent to a group.
    pub(super) const MULTICAST_TTL: Self =
        Self::new(libc::IP_MULTICAST_TTL, libc::IPV6_MULTICAST_HOPS);
    /// What becomes of what is too long; both families have the same values.
    pub(super) const MTU_DISCOVER: Self = Self::new(libc::IP_MTU_DISCOVER, libc::IPV6_MTU_DISCOVER);
    /// What the path is known to take.
    pub(super) const MTU: Self = Self::new(libc::IP_MTU, libc::IPV6_MTU);
    /// Whether type of service or traffic class come with what is received.
    pub(super) const RECV_TOS: Self = Self::new(libc::IP_RECVTOS, libc::IPV6_RECVTCLASS);
    /// Whether TTL or hop limit do.
    pub(super) const RECV_TTL: Self = Self::new(libc::IP_RECVTTL, libc::IPV6_RECVHOPLIMIT);
    /// Whether errors are queued.
    pub(super) const RECV_ERR: Self = Self::new(libc::IP_RECVERR, libc::IPV6_RECVERR);
    /// Whether it may be bound to an address that is not ours.
    pub(super) const FREEBIND: Self = Self::new(libc::IP_FREEBIND, libc::IPV6_FREEBIND);

    const fn new(v4: i32, v6: i32) -> Self {
        Self { v4, v6 }
    }

    /// Sets it on a socket, of IPv4 or of IPv6.
    pub(super) fn set(self, fd: i32, v4: bool, value: i32) -> io::Result<()> {
        let (level, name) = self.of(v4);
        set_option(fd, level, name, value)
    }

    /// Its value.
    pub(super) fn value(self, fd: i32, v4: bool) -> io::Result<i32> {
        let (level, name) = self.of(v4);
        option(fd, level, name)
    }

    /// Its level and name, which control messages have, too.
    pub(super) const fn of(self, v4: bool) -> (i32, i32) {
        if v4 { (libc::IPPROTO_IP, self.v4) } else { (libc::IPPROTO_IPV6, self.v6) }
    }
}
