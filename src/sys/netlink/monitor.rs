//! What changes on the host while we run [NL-15] [ADDR-11].
//!
//! # Theory of operation
//!
//! One socket is told by the kernel of every change, and is read when it has something; another one
//! asks. The first is subscribed before anything is asked, so no change is missed in between: what
//! is told twice does no harm.
//!
//! News of neighbours are complete in themselves. Of all else only that is told which may make the
//! host look different to us (`news.rs`). Then the whole picture is to be asked for again; not at
//! once, as such news seldom come alone.
//!
//! The kernel drops news that are not read soon enough, and says so once ([`Told::Lost`]). Then
//! everything is to be asked for again. It has to be read to the end before: as long as anything
//! older than an answer waits, what is read after the answer may be out of date. (News that come
//! in while we ask are read later, in order, and end with what is true.)
//!
//! The messages are of the kernel, but nothing is believed that was not looked at: what is
//! malformed, or of a kind or family that we do not know, is skipped.

use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd};

use netlink_sys::{Socket as RawSocket, protocols::NETLINK_ROUTE};

use super::discover::{self, DiscoverError};
use super::message::{self, GETNEIGH, NEWNEIGH, NeighbourHeader};
use super::news::{self, News};
use super::{INET, INET6, Socket, neighbours};
use crate::config::{Config, HostView, Neighbour};

/// Groups of linux/rtnetlink.h: `RTNLGRP_LINK`, `RTNLGRP_NEIGH`, `RTNLGRP_IPV4_IFADDR`,
/// `RTNLGRP_IPV4_ROUTE`, `RTNLGRP_IPV6_IFADDR`, `RTNLGRP_IPV6_ROUTE`.
const GROUPS: [u32; 6] = [1, 3, 5, 7, 9, 11];

/// Room for one datagram of news. They hold one message each, the longest (of interfaces with many
/// virtual functions) some 30 KiB; one that is cut off is read as far as it goes.
const NEWS_BYTES: usize = 32 * 1024;

/// Follows the host.
pub struct Monitor {
    news: RawSocket,
    ask: Socket,
    buffer: Vec<u8>,
}

/// What reading brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Perhaps news; there may be more.
    Some,
    /// There is nothing more.
    Nothing,
    /// News were lost before what comes next.
    Lost,
}

impl Monitor {
    /// Opens it in the network namespace of the calling thread.
    ///
    /// # Errors
    /// Those of `socket(2)`, `bind(2)` and `setsockopt(2)`.
    pub fn open() -> io::Result<Self> {
        let mut news = RawSocket::new(NETLINK_ROUTE)?;
        news.set_non_blocking(true)?;
        news.bind_auto()?;
        for group in GROUPS {
            news.add_membership(group)?;
        }
        Ok(Self { news, ask: Socket::open()?, buffer: Vec::with_capacity(NEWS_BYTES) })
    }

    /// Readable when there are news.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }

    /// Reads once, without waiting, and hands over what there is.
    ///
    /// # Errors
    /// Those of `recvfrom(2)`; there will be no news any more.
    pub fn read(&mut self, each: impl FnMut(News)) -> io::Result<Told> {
        self.buffer.clear();
        match self.news.recv_from(&mut self.buffer, 0) {
            // Only the kernel's word counts, though nobody else could speak here.
            Ok((_, from)) if from.port_number() != 0 => Ok(Told::Some),
            Ok(_) => {
                message::walk(&self.buffer).filter_map(|m| news::read(&m)).for_each(each);
                Ok(Told::Some)
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(Told::Nothing),
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(Told::Some),
            Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => Ok(Told::Lost),
            Err(e) => Err(e),
        }
    }

    /// All neighbours whose Ethernet address is known.
    ///
    /// # Errors
    /// The kernel's error, or a socket error.
    pub fn neighbours(&mut self) -> io::Result<Vec<Neighbour>> {
        let mut all = Vec::new();
        for family in [INET, INET6] {
            // Without an interface: with strict checking kernels refuse one here.
            let header = NeighbourHeader { family, ..NeighbourHeader::default() };
            let body = header.body(&Default::default());
            let messages = self.ask.dump(GETNEIGH, NEWNEIGH, &body)?;
            all.extend(messages.iter().filter_map(|m| neighbours::read(m.kind, &m.body)));
        }
        all.retain(|n| n.mac.is_some());
        Ok(all)
    }

    /// What the host's network looks like now; resolvers are left out.
    ///
    /// # Errors
    /// See [`DiscoverError`].
    pub fn look(&mut self, config: &Config) -> Result<HostView, DiscoverError> {
        discover::look_again(&mut self.ask, config)
    }

    /// True if an interface can be used for IPv4, or else IPv6: it is there, switched on, and has an
    /// address.
    ///
    /// # Errors
    /// See [`DiscoverError`].
    pub fn is_usable(&mut self, index: u32, v4: bool) -> Result<bool, DiscoverError> {
        discover::is_usable(&mut self.ask, if v4 { INET } else { INET6 }, index)
    }

    /// True if the host has this address now.
    ///
    /// # Errors
    /// See [`DiscoverError`].
    pub fn has_address(&mut self, addr: IpAddr) -> Result<bool, DiscoverError> {
        discover::has_address(&mut self.ask, addr)
    }
}
