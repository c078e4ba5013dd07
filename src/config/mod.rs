//! What the user asked for, what the host looks like, and what the guest is told.
//!
//! * [`Config`] is the command line after validation; it never changes.
//! * [`HostView`] is a snapshot of the host's network: interfaces, addresses, routes, resolvers.
//!   It is a plain value and can be replaced while running.
//! * [`Lease`] is derived from both: the network identity the guest sees.
#![forbid(unsafe_code)]

mod dns;
mod example;
mod hostview;
mod lease;
mod options;
mod ports;
mod portset;
mod resolvconf;
mod summary;

pub use hostview::{HostAddr4, HostAddr6, HostFamily, HostView, Neighbour};
pub use lease::{Lease, LeaseError, Notice};
pub use options::{
    Config, DnsServers, GUEST_QUEUE, GuestSocket, Inward, MapAddr, Mode, Offload, Outbound,
    Protocols, RunAs, Target, Verbosity,
};
pub use ports::{ForwardSpec, PortRule, Proto};
pub use portset::PortSet;
pub use resolvconf::ResolvConf;
pub use summary::summary;
