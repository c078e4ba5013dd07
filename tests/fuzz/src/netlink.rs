//! The parsers of the main project, which keeps them private.
#![allow(dead_code)]

#[path = "../../../src/sys/netlink/attrs.rs"]
mod attrs;
#[path = "../../../src/sys/netlink/message.rs"]
mod message;
#[path = "../../../src/sys/netlink/neighbours.rs"]
mod neighbours;
#[path = "../../../src/sys/netlink/news.rs"]
mod news;

use news::News;

/// Address families, as the parsers know them.
const INET: u8 = 2;
const INET6: u8 = 10;

pub(super) fn run(data: &[u8]) {
    let mut seen = 0;
    for received in message::walk(data) {
        seen += 16 + received.body.len();
        assert!(seen <= data.len() + 3);
        received.errno();
        message::LinkHeader::parse(received.body);
        message::AddrHeader::parse(received.body);
        message::RouteHeader::parse(received.body);
        if let Some(News::Neighbour(n)) = news::read(&received) {
            assert!(!n.addr.is_unspecified() && !n.addr.is_multicast() && !n.addr.is_loopback());
            assert!(n.mac.is_none_or(|mac| mac.is_station()));
        }
        for skip in [0, 8, 12, 16] {
            let attrs = attrs::parse(received.body.get(skip..).unwrap_or_default());
            for attr in attrs.unwrap_or_default() {
                (attr.kind(), attr.u32(), attr.ip(), attr.string());
            }
        }
    }
}
