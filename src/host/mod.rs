//! The host's side: ordinary sockets.
//!
//! [`Net`] implements the socket ports of [`translate`](crate::translate). A socket is named by
//! its descriptor number ([`SockId`](crate::translate::SockId)); whoever holds the id closes it,
//! exactly once, through the same port. Every socket is non-blocking and close-on-exec.

mod answers;
mod cmsg;
mod datagram;
mod early;
mod errors;
mod info;
mod inside;
mod ip_option;
mod listener;
mod listeners;
mod net;
pub mod outbound;
mod pipes;
mod ports;
mod sockaddr;
mod splice;
mod tcp;
mod trains;

pub use inside::Inside;
pub use listener::{Accepted, Arrived, Listener, Side};
pub use listeners::{Conflict, ListenError, Listeners, Partial, Patience, Replaced, RuleId};
pub use net::Net;
pub use outbound::OutboundError;
