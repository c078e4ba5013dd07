//! The event loop's parts: readiness, tokens, timers.
//!
//! # Theory of operation
//!
//! Every descriptor is registered once, edge-triggered, and stays registered until it is closed.
//! Readiness is a hint that is remembered by whoever owns the descriptor; work left over when a
//! budget is spent goes on the reactor's *ready list*, which the next turn serves after the
//! kernel's events. There is no `epoll_ctl` on the data path and no timer descriptor: the
//! wait ends when the first entry of the [timer wheel](crate::flow::Wheel) is due.

mod courtesy;
mod reactor;
mod rest;
mod spin;
mod token;

pub use reactor::{Reactor, Ready, Registrar};
pub use token::{Source, encode, source};
