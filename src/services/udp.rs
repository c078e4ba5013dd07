//! Datagrams that services send: headers around a body that is written in between.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Outcome, Reply};
use crate::wire::checksum::{self, Checksum};
use crate::wire::{ETH_LEN, IPV4_LEN, IPV6_LEN, Mac, UDP_LEN, proto};

/// Addresses and ports of a datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route<A> {
    /// Source and destination on the link.
    pub(super) mac: (Mac, Mac),
    /// Source and destination.
    pub(super) addr: (A, A),
    /// Source and destination.
    pub(super) port: (u16, u16),
}

/// Where its length is.
const IPV4_TOTAL_AT: usize = ETH_LEN + 2;
/// Where its checksum is.
const IPV4_SUM_AT: usize = ETH_LEN + 10;
/// Where its length is.
const IPV6_LEN_AT: usize = ETH_LEN + 4;

/// Everything before the payload of a datagram over IPv4.
pub(super) const HEADERS4: usize = ETH_LEN + IPV4_LEN + UDP_LEN;

/// Writes the headers; [`finish4`] fills in the rest. There is no checksum of the payload, as is
/// allowed over IPv4 [DHCP-7].
pub(super) fn begin4(route: &Route<Ipv4Addr>, reply: &mut Reply) {
    ether(route.mac, [0x08, 0x00], reply);
    // Version and length, type of service, length; identifier 0, never to be fragmented; time to
    // live, protocol, checksum [L2-11].
    reply.put(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 255, proto::UDP, 0, 0]);
    reply.put(&route.addr.0.octets());
    reply.put(&route.addr.1.octets());
    ports(route.port, reply);
}

/// Fills in lengths and the checksum of the header.
pub(super) fn finish4(reply: &mut Reply) -> Outcome {
    let ip = len_from(ETH_LEN, reply);
    reply.patch(IPV4_TOTAL_AT, &ip.to_be_bytes());
    let udp = len_from(ETH_LEN + IPV4_LEN, reply);
    reply.patch(ETH_LEN + IPV4_LEN + 4, &udp.to_be_bytes());
    let header = reply.frame().get(ETH_LEN..).and_then(|ip| ip.get(..IPV4_LEN));
    let sum = checksum::of(header.unwrap_or_default());
    reply.patch(IPV4_SUM_AT, &sum.to_be_bytes());
    reply.finish()
}

/// Writes the headers; [`finish6`] fills in the rest.
pub(super) fn begin6(route: &Route<Ipv6Addr>, flow_label: [u8; 3], reply: &mut Reply) {
    ether(route.mac, [0x86, 0xdd], reply);
    let [high, middle, low] = flow_label;
    reply.put(&[0x60, high & 0x0f, middle, low, 0, 0, proto::UDP, 255]);
    reply.put(&route.addr.0.octets());
    reply.put(&route.addr.1.octets());
    ports(route.port, reply);
}

/// Fills in lengths and checksum.
pub(super) fn finish6(route: &Route<Ipv6Addr>, reply: &mut Reply) -> Outcome {
    let udp = ETH_LEN + IPV6_LEN;
    let len = len_from(udp, reply);
    reply.patch(IPV6_LEN_AT, &len.to_be_bytes());
    reply.patch(udp + 4, &len.to_be_bytes());
    let mut sum = Checksum::pseudo_v6(route.addr.0, route.addr.1, proto::UDP, len.into());
    sum.add(reply.frame().get(udp..).unwrap_or_default());
    reply.patch(udp + 6, &sum.finish_udp().to_be_bytes());
    reply.finish()
}

fn ether((src, dst): (Mac, Mac), ethertype: [u8; 2], reply: &mut Reply) {
    reply.put(&dst.0);
    reply.put(&src.0);
    reply.put(&ethertype);
}

fn ports((src, dst): (u16, u16), reply: &mut Reply) {
    reply.put(&src.to_be_bytes());
    reply.put(&dst.to_be_bytes());
    reply.put_zeros(4);
}

/// Bytes from `at` to the end; a frame is far shorter than what 16 bits count.
fn len_from(at: usize, reply: &Reply) -> u16 {
    u16::try_from(reply.frame().len().saturating_sub(at)).unwrap_or(u16::MAX)
}
