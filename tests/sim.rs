//! Translation in a world without I/O: a fake link and a fake host around it, a clock that is
//! advanced by hand, and guests of two kinds: scripted segments, and smoltcp's complete stack.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::precedence,
    clippy::wrong_self_convention,
    clippy::too_many_lines,
    missing_docs,
    unreachable_pub
)]

#[path = "sim/datagrams.rs"]
mod datagrams;
#[path = "sim/link.rs"]
mod link;
#[path = "sim/net.rs"]
mod net;
#[path = "sim/raw.rs"]
mod raw;
#[path = "sim/rng.rs"]
mod rng;
#[path = "sim/watch.rs"]
mod watch;
#[path = "sim/world.rs"]
mod world;

#[path = "sim/closed_ports.rs"]
mod closed_ports;
#[path = "sim/closing.rs"]
mod closing;
#[path = "sim/download.rs"]
mod download;
#[path = "sim/dscp.rs"]
mod dscp;
#[path = "sim/fragments.rs"]
mod fragments;
#[path = "sim/fuzz.rs"]
mod fuzz;
#[path = "sim/handshake.rs"]
mod handshake;
#[path = "sim/inbound.rs"]
mod inbound;
#[path = "sim/ingress.rs"]
mod ingress;
#[path = "sim/local.rs"]
mod local;
#[path = "sim/loss.rs"]
mod loss;
#[path = "sim/many.rs"]
mod many;
#[path = "sim/model/mod.rs"]
mod model;
#[path = "sim/neighbours.rs"]
mod neighbours;
#[path = "sim/reorder.rs"]
mod reorder;
#[path = "sim/served.rs"]
mod served;
#[path = "sim/stack.rs"]
mod stack;
#[path = "sim/timers.rs"]
mod timers;
#[path = "sim/trouble.rs"]
mod trouble;
#[path = "sim/upload.rs"]
mod upload;
