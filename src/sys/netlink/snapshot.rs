//! The template interface's addresses and routes, as raw messages to be copied.

use super::discover::{DiscoverError, dump_addrs, dump_routes};
use super::message::Message;
use super::{INET, INET6, Socket};
use crate::config::HostView;

/// What there is to copy for one address family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FamilySnapshot {
    /// Index of the template interface on the host.
    pub ifindex: u32,
    /// Its addresses, in the kernel's order.
    pub addrs: Vec<Message>,
    /// The routes through it, in the kernel's order.
    pub routes: Vec<Message>,
}

/// What there is to copy. A family in local mode has nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// IPv4.
    pub v4: Option<FamilySnapshot>,
    /// IPv6.
    pub v6: Option<FamilySnapshot>,
}

/// Reads addresses and routes of the template interfaces in `view`.
///
/// # Errors
/// See [`DiscoverError`].
pub fn snapshot(socket: &mut Socket, view: &HostView) -> Result<Snapshot, DiscoverError> {
    let v4 = view.v4.as_ref().map(|f| family(socket, INET, f.ifindex)).transpose()?;
    let v6 = view.v6.as_ref().map(|f| family(socket, INET6, f.ifindex)).transpose()?;
    Ok(Snapshot { v4, v6 })
}

fn family(socket: &mut Socket, family: u8, ifindex: u32) -> Result<FamilySnapshot, DiscoverError> {
    let mut addrs = dump_addrs(socket, family, ifindex)?;
    // The kernel lists IPv6 addresses newest first. Adding them in reverse gives the same list,
    // and hence the same choice of source address, in the guest.
    if family == INET6 {
        addrs.reverse();
    }
    Ok(FamilySnapshot { ifindex, addrs, routes: dump_routes(socket, family, Some(ifindex))? })
}
