//! User-mode networking for rootless containers and virtual machines.
//!
//! # Theory of operation
//!
//! One process, one thread, one epoll loop, no privileges. On one side a [`link`]: layer-2 frames
//! to and from a guest. On the other side ordinary host sockets ([`host`]). In between a table of
//! flows ([`flow`]), each translating between frames and one socket ([`translate`]), and a set of
//! [`services`] that answer the guest directly. [`daemon`] composes them.
//!
//! # Layers
//!
//! `wire` imports nothing of ours; `services`, `flow`, `forward` and `translate` import `wire` and
//! each other downwards and never see a descriptor, a system call or a clock; `link` and `host`
//! implement the ports that `translate` declares and never import each other. The test
//! `tests/layers.rs` enforces this by reading `use` lines.

pub mod cli;
pub mod config;
pub mod daemon;
pub mod event;
pub mod flow;
pub mod forward;
pub mod host;
pub mod link;
pub mod services;
pub mod sys;
pub mod translate;
pub mod wire;
