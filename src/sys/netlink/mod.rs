//! Routing netlink: what the host's network looks like, and how the guest's is set up.
//!
//! # Theory of operation
//!
//! Three steps before the process is sandboxed, all of them blocking:
//!
//! 1. [`discover()`] reads the host's links, addresses and routes and picks, per address family, a
//!    *template* interface. The result is a [`HostView`](crate::config::HostView), a plain value.
//! 2. [`snapshot()`] reads the template's addresses and routes as raw messages.
//! 3. [`configure()`], on a [`Socket`] opened inside the target namespace, brings up loopback and,
//!    if asked to, gives the tap device its MTU, addresses and routes.
//!
//! While the process runs a [`Monitor`] follows the host: neighbours one by one, and whether it is
//! worth to look at the rest again.
//!
//! # Robustness
//!
//! The kernel's vocabulary grows faster than any typed model of it, so this module walks messages
//! and attributes itself and interprets only the few it needs. A message that makes no sense is
//! skipped with a warning and never fails a dump; an attribute we do not know is copied as it is.
//!
//! System calls: `socket`, `setsockopt`, `bind`, `getsockname`, `sendto`, `recvfrom`; while running the last
//! two.
#![forbid(unsafe_code)]

mod addrs;
mod attrs;
mod bound;
mod configure;
mod discover;
mod links;
mod message;
mod monitor;
mod neighbours;
mod news;
mod qdisc;
mod routes;
mod snapshot;
mod socket;

pub use bound::Bound;
pub use configure::{ConfigureError, Configured, configure};
pub use discover::{DiscoverError, discover};
pub use monitor::{Monitor, Told};
pub use news::News;
pub use snapshot::{FamilySnapshot, Snapshot, snapshot};
pub use socket::Socket;

/// `AF_INET` as it appears in the one-byte family fields of rtnetlink headers.
const INET: u8 = 2;
/// `AF_INET6`, likewise.
const INET6: u8 = 10;
