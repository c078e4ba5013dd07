//! The flow table: slots, keyed lookup, drop reasons, the backlog pool, timers.
//!
//! # Theory of operation
//!
//! A flow is one logical packet stream (a TCP connection, a UDP exchange, a ping sequence). It
//! occupies one slot of a [`Table`] for its whole life: an active flow never changes its index,
//! because event tokens and the [`Index`] hold indices [FLOW-6]. A slot's generation is bumped
//! when its flow is removed, so a token made earlier finds nothing [FLOW-13].
//!
//! Packets from the guest find their flow through the [`Index`], a hash table under a secret key
//! [FLOW-9]. Socket events carry the flow's id and need no lookup.
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod ahead;
mod drops;
mod index;
mod pool;
mod table;
mod wheel;

pub use drops::{DropReason, Drops};
pub use index::{INDEX_ENTRY, Index, Tuple};
pub use pool::{Backlog, CHUNK, Pool};
pub use table::{FlowId, GENERATION_BITS, MAX_FLOWS, Table, slot_size};
pub use wheel::{WHEEL_ENTRY, Wheel};
