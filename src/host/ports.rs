//! UDP ports of the host that are ours.
//!
//! # Theory of operation
//!
//! A guest may talk to many peers from one port. Each is a flow with a connected socket of its own,
//! and all of them are to have the guest's port on the host, so that peers can tell each other about
//! it [UDP-3]; also if the port is forwarded to the guest, and so has a listening socket.
//!
//! The kernel lets sockets share a port if all of them allow it (`SO_REUSEADDR`). Other programs
//! may allow it, too, and we must not share with those: our connected socket would get what their
//! peers send. So the first socket is bound without allowing it, and allows it afterwards; and
//! others are bound allowing it if the port is ours already, which is counted here.

use std::os::fd::RawFd;

/// Who has which port, by family.
#[derive(Debug)]
pub(super) struct Ports {
    /// Sockets of ours on each port, for IPv4 and for IPv6. Touched when used.
    counts: Box<[[u16; 2]]>,
    /// What each descriptor that is a flow's holds.
    flows: Vec<Option<(u16, bool)>>,
}

impl Ports {
    /// None are ours.
    pub(super) fn new() -> Self {
        Self { counts: vec![[0; 2]; 1 << 16].into_boxed_slice(), flows: Vec::new() }
    }

    /// True if a socket of ours has this port.
    pub(super) fn are_ours(&self, port: u16, v4: bool) -> bool {
        self.counts[usize::from(port)][usize::from(!v4)] > 0
    }

    /// A listening socket was opened on it.
    pub(super) fn add(&mut self, port: u16, v4: bool) {
        let count = &mut self.counts[usize::from(port)][usize::from(!v4)];
        *count = count.saturating_add(1);
    }

    /// It was closed.
    pub(super) fn remove(&mut self, port: u16, v4: bool) {
        let count = &mut self.counts[usize::from(port)][usize::from(!v4)];
        *count = count.saturating_sub(1);
    }

    /// The socket of a flow was bound to it.
    pub(super) fn add_flow(&mut self, fd: RawFd, port: u16, v4: bool) {
        let Ok(fd) = usize::try_from(fd) else { return };
        if fd >= self.flows.len() {
            self.flows.resize(fd.saturating_add(1), None);
        }
        self.flows[fd] = Some((port, v4));
        self.add(port, v4);
    }

    /// True if a listening socket has this port.
    pub(super) fn are_forwarded(&self, port: u16, v4: bool) -> bool {
        let held = self.flows.iter().filter(|held| **held == Some((port, v4))).count();
        usize::from(self.counts[usize::from(port)][usize::from(!v4)]) > held
    }

    /// True if the socket of a flow has this port.
    pub(super) fn are_of_a_flow(&self, port: u16, v4: bool) -> bool {
        self.are_ours(port, v4) && self.flows.contains(&Some((port, v4)))
    }

    /// The socket of a flow is closed, whatever it was bound to.
    pub(super) fn remove_flow(&mut self, fd: RawFd) {
        let held = usize::try_from(fd).ok().and_then(|fd| self.flows.get_mut(fd));
        if let Some((port, v4)) = held.and_then(Option::take) {
            self.remove(port, v4);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // [UDP-3] A port is ours while any of our sockets has it, in its family.
    #[test]
    fn ours_to_the_last_socket() {
        let mut ports = Ports::new();
        ports.add(5000, true);
        ports.add_flow(7, 5000, true);
        ports.add_flow(9, 65535, false);
        assert!(ports.are_ours(5000, true) && !ports.are_ours(5000, false));
        assert!(ports.are_ours(65535, false) && !ports.are_ours(65535, true));
        assert!(ports.are_of_a_flow(5000, true) && !ports.are_of_a_flow(5000, false));
        ports.add(6000, true);
        assert!(!ports.are_of_a_flow(6000, true));
        ports.remove_flow(8);
        ports.remove_flow(1000);
        ports.remove(5000, true);
        assert!(ports.are_ours(5000, true));
        ports.remove_flow(7);
        ports.remove_flow(7);
        assert!(!ports.are_ours(5000, true) && ports.are_ours(65535, false));
    }
}
