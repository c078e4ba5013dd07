//! What the messages that the kernel sends unasked mean to us.
//!
//! Beside neighbours only that matters which may make the host look different to us: interfaces that
//! go up or down, addresses, and default routes.

use super::message::{
    AddrHeader, DELADDR, DELLINK, DELNEIGH, DELROUTE, LinkHeader, NEWADDR, NEWLINK, NEWNEIGH,
    NEWROUTE, Received, RouteHeader,
};
use super::neighbours;
use crate::config::Neighbour;

/// `RTN_UNICAST`.
const UNICAST: u8 = 1;

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// What is known of a neighbour.
    Neighbour(Neighbour),
    /// Something that the host's view depends on.
    Network,
}

/// What a message means to us, if anything.
pub(super) fn read(m: &Received<'_>) -> Option<News> {
    let matters = match m.kind {
        NEWNEIGH | DELNEIGH => return neighbours::read(m.kind, m.body).map(News::Neighbour),
        // Nothing has changed about most interfaces that are told of: wireless ones report scans.
        NEWLINK => LinkHeader::parse(m.body)?.change != 0,
        DELLINK => true,
        NEWADDR | DELADDR => AddrHeader::parse(m.body).is_some(),
        // A router with a million routes would keep us busy with all of them.
        NEWROUTE | DELROUTE => {
            let route = RouteHeader::parse(m.body)?;
            route.dst_len == 0 && route.kind == UNICAST
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
        read(&Received { kind, flags: 0, sequence: 0, body })
    }

    // [ADDR-12] What may change the view of the host, and what is only noise.
    #[test]
    fn what_matters() {
        let attrs = AttrBuf::default();
        let route = RouteHeader { kind: UNICAST, ..RouteHeader::default() };
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
