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
mod mac;

pub use addr::{Addr, Endpoint};
pub use mac::Mac;

pub mod checksum;
pub mod ndp;
