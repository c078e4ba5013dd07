//! Reactions to host sockets and to time.

use super::Translator;
use super::settle::Flow;
use crate::flow::{DropReason, FlowId, Tuple};
use crate::translate::tcp::{SocketReady, Tcp};
use crate::translate::{DatagramSockets, FrameOut, SockId, TcpSockets, Verdict};
use crate::wire::{Endpoint, proto};

impl<O: FrameOut, N: TcpSockets + DatagramSockets> Translator<O, N> {
    /// A flow's socket is ready.
    pub fn on_socket(&mut self, id: FlowId, _side: bool, ready: SocketReady) {
        let (flows, mut io) = self.split();
        let (verdict, more) = match flows.get_mut(id) {
            Some(Flow::Tcp(flow)) => {
                let verdict = flow.on_socket(ready, &mut io);
                (verdict, verdict == Verdict::Keep && flow.wants_push())
            }
            None => return,
        };
        self.settle(id, verdict);
        if more {
            self.again.push(id);
        }
    }

    /// A flow's deadline has passed, or may have.
    pub(super) fn on_timer(&mut self, id: FlowId) {
        let (flows, mut io) = self.split();
        let verdict = match flows.get_mut(id) {
            Some(Flow::Tcp(flow)) => flow.on_timer(&mut io),
            None => return,
        };
        self.settle(id, verdict);
    }

    /// The id a new flow will get; `None` when the table is full, and
    /// [`Translator::take_starved`] will tell when to try again.
    pub fn next_id(&mut self) -> Option<FlowId> {
        let id = self.flows.next_id();
        if id.is_none() {
            self.starved = true;
            self.drops.count(DropReason::TableFull);
        }
        id
    }

    /// No descriptor could be had for a connection that waits.
    pub fn no_socket(&mut self) {
        self.starved = true;
        self.drops.count(DropReason::NoSocket);
    }

    /// True once after resources came free that a waiting connection may need [FLOW-8].
    pub fn take_starved(&mut self) -> bool {
        self.starved && !self.flows.is_full() && std::mem::take(&mut self.starved)
    }

    /// `peer` connected to a port that is forwarded to the guest's `to_port` [TCP-19]. The socket
    /// is registered under `id`, which [`Translator::next_id`] gave just before.
    pub fn on_connection(&mut self, id: FlowId, sock: SockId, peer: Endpoint, to_port: u16) {
        let sides = crate::forward::inbound(&self.lease, &self.guest, peer, to_port);
        let Some((ours, guest)) = sides else {
            self.drops.count(DropReason::Martian);
            return self.net.abort(sock);
        };
        let tuple = Tuple { protocol: proto::TCP, ours, guest };
        let (hash, taken) = self.lookup(&tuple);
        if taken.is_some() {
            // Two peers that look the same to the guest.
            self.drops.count(DropReason::Martian);
            return self.net.abort(sock);
        }
        let isn = self.isn(hash);
        let (_, mut io) = self.split();
        let flow = Tcp::from_peer(sock, (ours, guest), isn, &mut io);
        log::debug!("flow {}: TCP {peer} ({ours}) -> {guest}", id.index);
        self.enter(hash, Flow::Tcp(flow));
    }

    /// Ends every flow, so that guest and peers are not left waiting.
    pub fn end_flows(&mut self) {
        for index in (0u32..).take(self.flows.slots()) {
            if let Some(id) = self.flows.id_at(index) {
                self.settle(id, Verdict::Abort);
            }
        }
    }
}
