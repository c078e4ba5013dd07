//! Which flows the kernel knows that we answer, and so through which queue a frame goes.
//!
//! The kernel notes the queue that a frame of ours was written to, by the flow that it is of, and
//! forgets a flow that got none for three seconds (`TUN_FLOW_EXPIRE`, drivers/net/tun.c). Nothing
//! tells us what it knows. So the flows of frames sent are noted here as well, with the time: one
//! that is not noted, or was not for a while, may come from another queue with what the guest sends
//! next.
//!
//! The table is small and forgetful. Where two flows meet in a place, the later one stays, and the
//! other one counts as new: then the other queues are read first once more than need be, which is
//! bounded (`receive.rs`).

use std::fs::File;
use std::time::Instant;

use super::Device;
use crate::wire::{Head, TcpFlags};

/// Places: the kernel has 4096 flows per device at most.
const PLACES: usize = 8192;

/// Seconds for which a flow is known, by a clock of whole seconds: at most three in fact.
const KNOWN: u32 = 2;

/// Flows we have answered of late.
#[derive(Debug)]
pub(super) struct Answered {
    began: Instant,
    /// By hash: which flow, and the second in which it was answered last, from 1.
    places: Box<[(u32, u32)]>,
}

impl Answered {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), places: vec![(0, 0); PLACES].into_boxed_slice() }
    }

    /// The queue for a frame of a flow, by which the guest's will come from now on.
    pub(super) fn queue<'a>(&mut self, device: &'a Device, head: &Head) -> &'a File {
        if device.others.is_empty() {
            return &device.first;
        }
        // Nobody waits for what follows, nor did perhaps for what was.
        if head.tcp_flags().is_some_and(|f| f.has(TcpFlags::RST)) {
            self.forget(head);
            return device.second();
        }
        if self.moves(head) {
            device.set_moved(true);
        }
        &device.first
    }

    /// Notes a frame sent; true if older frames of its flow may wait in another queue than those to
    /// come.
    fn moves(&mut self, head: &Head) -> bool {
        let second = u32::try_from(self.began.elapsed().as_secs()).unwrap_or(u32::MAX);
        // Whom we call has sent nothing yet.
        self.note(head.flow(), second.saturating_add(1)) && head.tcp_flags() != Some(TcpFlags::SYN)
    }

    /// Notes that a frame went another way, and that the kernel knows.
    fn forget(&mut self, head: &Head) {
        let (at, _) = hash(head.flow());
        if let Some(place) = self.places.get_mut(at as usize % PLACES) {
            *place = (0, 0);
        }
    }

    /// Notes the flow as answered now; true if it was not known.
    fn note(&mut self, flow: (&[u8], u16), now: u32) -> bool {
        let (at, tag) = hash(flow);
        let Some(place) = self.places.get_mut(at as usize % PLACES) else { return true };
        let (known, last) = std::mem::replace(place, (tag, now));
        last == 0 || known != tag || now.saturating_sub(last) > KNOWN
    }
}

/// Two hashes: one chooses the place, the other one tells flows there apart.
fn hash((ends, protocol): (&[u8], u16)) -> (u32, u32) {
    let mix = |hash: u64, word: &[u8]| {
        let word = word.iter().fold(0u64, |w, b| w << 8 | u64::from(*b));
        let hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^ hash >> 32
    };
    let [a, b, c, d, tag @ ..] = ends.chunks(8).fold(u64::from(protocol), mix).to_be_bytes();
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_known_while_it_is_answered() {
        let mut answered = Answered::new();
        let [a, b] = [[1u8; 12], [2; 12]];
        let [a, b, other] = [(&a[..], 6), (&b[..], 6), (&a[..], 16)];
        assert!(answered.note(a, 1));
        assert!(!answered.note(a, 1) && !answered.note(a, 3));
        assert!(answered.note(b, 3) && answered.note(other, 3) && !answered.note(a, 5));
        // Longer than the kernel remembers, perhaps.
        assert!(answered.note(a, 8) && answered.note(b, 8));
    }

    #[test]
    fn a_thousand_flows_seldom_meet() {
        let mut answered = Answered::new();
        let ends =
            |n: u16| [[10, 0, 0, 1, 10, 0, 0, 2, 0, 80].as_slice(), &n.to_be_bytes()].concat();
        let mut new = || (0..1000).filter(|n| answered.note((&ends(*n), 6), 1)).count();
        assert_eq!(new(), 1000);
        assert!(new() < 300);
    }
}
