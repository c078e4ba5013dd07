//! What changes on the host while we run [NL-15] [ADDR-11].
//!
//! # Theory of operation
//!
//! One socket is told by the kernel of every change, and is read when it has something; another one
//! asks. The first is subscribed before anything is asked, so no change is missed in between: what
//! is told twice does no harm.
//!
//! News of neighbours are complete in themselves. Of all else only that is told which may make the
//! host look different to us: interfaces that go up or down, addresses, and default routes. Then
//! the whole picture is to be asked for again; not at once, as such news seldom come alone.
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
use super::message::{
    self, AddrHeader, DELADDR, DELLINK, DELNEIGH, DELROUTE, GETNEIGH, LinkHeader, NEWADDR, NEWLINK,
    NEWNEIGH, NEWROUTE, NeighbourHeader, Received, RouteHeader,
};
use super::{INET, INET6, Socket, neighbours, routes};
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

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// What is known of a neighbour.
    Neighbour(Neighbour),
    /// Something that the host's view depends on.
    Network,
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
                message::walk(&self.buffer).filter_map(|m| news(&m)).for_each(each);
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

    /// True if the host has this address now.
    ///
    /// # Errors
    /// See [`DiscoverError`].
    pub fn has_address(&mut self, addr: IpAddr) -> Result<bool, DiscoverError> {
        discover::has_address(&mut self.ask, addr)
    }
}

/// What a message means to us, if anything.
fn news(m: &Received<'_>) -> Option<News> {
    let matters = match m.kind {
        NEWNEIGH | DELNEIGH => return neighbours::read(m.kind, m.body).map(News::Neighbour),
        // Nothing has changed about most interfaces that are told of: wireless ones report scans.
        NEWLINK => LinkHeader::parse(m.body)?.change != 0,
        DELLINK => true,
        NEWADDR | DELADDR => AddrHeader::parse(m.body).is_some(),
        // A router with a million routes would keep us busy with all of them.
        NEWROUTE | DELROUTE => {
            let route = RouteHeader::parse(m.body)?;
            route.dst_len == 0 && route.kind == routes::UNICAST
        }
        _ => false,
    };
    matters.then_some(News::Network)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::attrs::AttrBuf;
    use super::*;

    fn of(kind: u16, body: &[u8]) -> Option<News> {
        news(&Received { kind, flags: 0, sequence: 0, body })
    }

    // [ADDR-12] What may change the view of the host, and what is only noise.
    #[test]
    fn what_matters() {
        let attrs = AttrBuf::default();
        let route = RouteHeader { kind: routes::UNICAST, ..RouteHeader::default() };
        let link = LinkHeader { index: 3, flags: 1, change: 1 };
        for (kind, body, matters) in [
            (NEWROUTE, route.body(&attrs), true),
            (DELROUTE, route.body(&attrs), true),
            (NEWROUTE, RouteHeader { dst_len: 24, ..route }.body(&attrs), false),
            (NEWROUTE, RouteHeader { kind: 5, ..route }.body(&attrs), false),
            (NEWLINK, link.body(&attrs), true),
            (NEWLINK, LinkHeader { change: 0, ..link }.body(&attrs), false),
            (DELLINK, link.body(&attrs), true),
            (NEWADDR, AddrHeader::default().body(&attrs), true),
            (DELADDR, AddrHeader::default().body(&attrs), true),
            (99, link.body(&attrs), false),
        ] {
            assert_eq!(of(kind, &body), matters.then_some(News::Network), "{kind} {body:?}");
        }
        for kind in 0..100 {
            let _ = of(kind, &[]);
            let _ = of(kind, &[1; 3]);
        }
    }
}
