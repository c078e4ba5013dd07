//! Bytes to values and back: addresses, headers, checksums, sequence numbers.
//!
//! Nothing here allocates, panics on any input, or knows about flows, sockets or clocks.
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod addr;
pub mod checksum;
mod closed_port;
pub mod dhcp;
pub mod dhcpv6;
mod ether;
mod extension;
mod fragment;
mod head;
mod icmp_error;
mod mac;
pub mod name;
pub mod ndp;
mod seq;
mod tcp;
mod tcp_options;
mod udp;
mod vnet;

pub use addr::{Addr, Endpoint};
pub use closed_port::ClosedPort;
pub use ether::{
    Body, ETH_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, IPV4_LEN, IPV6_LEN,
    Packet, ParseError, UDP_LEN, proto,
};
pub use fragment::{FRAGMENT_UNIT, Fragment, Reassembled};
pub use head::{FragmentHead, Head, Path, TTL, TcpHead};
pub use icmp_error::{IcmpError, IcmpMessage, Unreachable};
pub use mac::Mac;
pub use seq::Seq;
pub use tcp::{Segment, SegmentError, TcpFlags};
pub use tcp_options::{SackBlock, SackBlocks, SynOptions, TcpOptions, Timestamps};
pub use udp::Datagram;
pub use vnet::{Gso, VNET_LEN, Vnet};
