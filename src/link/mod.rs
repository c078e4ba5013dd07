//! The guest's side: layer-2 frames.
//!
//! A link has two halves. [`TapRx`] reads frames of the guest, [`TapTx`] implements
//! [`FrameOut`](crate::translate::FrameOut) towards it. They are separate values, so that a
//! handler may hold a received frame while it sends others.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod segment;
mod tap;

pub use tap::{RxFrame, Tap, TapError, TapRx, TapTx};
