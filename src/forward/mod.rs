//! Forwarding: which host address a guest address stands for, and the other way round.
//!
//! # Theory of operation
//!
//! What the guest sends goes to the host ([`outbound`]), with a few destinations that mean
//! something else there: the mapped gateway is the host's loopback, the advertised resolver is the
//! host's resolver. What comes from the host to a forwarded port goes to the guest ([`inbound`]):
//! to the address it was last seen to use ([`GuestAddrs`]), from an address that it can answer.
//!
//! On the guest's link somebody's Ethernet address stands for each address ([`Neighbours`]).
//!
//! Between the two loopback interfaces there is a way past the link ([`spliced_in`],
//! [`spliced_out`]).
//!
//! The others are pure functions, asked once per flow. The flow keeps the outcome, so replies are always
//! presented from the address the guest originally used, and there is no reverse translation.
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod guest;
mod nat;
mod neighbours;
mod splice;

pub use guest::GuestAddrs;
pub use nat::{
    Destination, ForwardTarget, Via, as_seen, inbound, is_for_many, our_address, outbound, reporter,
};
pub use neighbours::Neighbours;
pub use splice::{spliced_in, spliced_out};
