//! Translation between frames of the guest and host sockets: decisions, no I/O.
//!
//! # Theory of operation
//!
//! Handlers see one flow and an [`Io`], never the flow table, so they cannot alias or free
//! themselves; they return a [`Verdict`] and the caller settles it. Everything outside is reached
//! through the ports in this module ([`FrameOut`], [`TcpSockets`], [`DatagramSockets`], [`SpliceSockets`]),
//! implemented by `link` and `host` in production and by fakes in tests. Time is passed in as
//! [`Now`]; nothing here reads a clock.
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod allowance;
#[cfg(test)]
mod fake;
mod fragmenter;
mod gather;
mod idle;
mod marks;
pub mod ping;
mod ports;
mod reassembly;
mod reports;
mod retry;
pub mod splice;
pub mod splice_udp;
pub mod tcp;
mod time;
mod translator;
pub mod udp;

pub use fragmenter::Fragmenter;
pub use marks::{Marks, MtuDiscovery};
pub use ports::{
    Answer, Bind, Connected, DatagramSockets, Expect, Far, FrameOut, Gathered, HostError, Io,
    ListenerId, Moved, Peeked, PipeId, Received, Report, Sent, SockId, SpliceSockets, SynMarks,
    TcpSockets, TcpView, Train, Unopened, Verdict,
};
pub use time::{Deadline, Now};
pub use translator::{FlowKind, Setup, Translator};
