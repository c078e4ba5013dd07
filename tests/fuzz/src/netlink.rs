//! The parsers of the main project, which keeps them private.
#![allow(dead_code)]

#[path = "../../../src/sys/netlink/attrs.rs"]
mod attrs;
#[path = "../../../src/sys/netlink/message.rs"]
mod message;

pub(super) fn run(data: &[u8]) {
    let mut seen = 0;
    for received in message::walk(data) {
        seen += 16 + received.body.len();
        assert!(seen <= data.len() + 3);
        received.errno();
        message::LinkHeader::parse(received.body);
        message::AddrHeader::parse(received.body);
        message::RouteHeader::parse(received.body);
        for skip in [0, 8, 12, 16] {
            let attrs = attrs::parse(received.body.get(skip..).unwrap_or_default());
            for attr in attrs.unwrap_or_default() {
                (attr.kind(), attr.u32(), attr.ip(), attr.string());
            }
        }
    }
}
