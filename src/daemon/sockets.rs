//! Reactions to host sockets and to time.

use super::engine::Engine;
use super::settle::Flow;
use crate::event::{Ready, Source};
use crate::flow::{DropReason, FlowId, Tuple};
use crate::host::Accepted;
use crate::translate::tcp::{SocketReady, Tcp};
use crate::translate::{TcpSockets as _, Verdict};
use crate::wire::proto;

/// Connections accepted per visit.
const ACCEPTS: usize = 16;

impl Engine {
    /// A flow's socket is ready.
    pub(super) fn on_socket(&mut self, id: FlowId, _side: bool, ready: Ready) {
        let (flows, mut io) = self.io();
        let (verdict, more) = match flows.get_mut(id) {
            Some(Flow::Tcp(flow)) => {
                let ready = SocketReady {
                    read: ready.read,
                    write: ready.write,
                    error: ready.error,
                    read_closed: ready.read_closed,
                };
                let verdict = flow.on_socket(ready, &mut io);
                (verdict, verdict == Verdict::Keep && flow.wants_push())
            }
            None => return,
        };
        self.settle(id, verdict);
        if more {
            self.reactor.again(Source::Flow { id, side: false });
        }
    }

    /// A flow's deadline has passed, or may have.
    pub(super) fn on_timer(&mut self, id: FlowId) {
        let (flows, mut io) = self.io();
        let verdict = match flows.get_mut(id) {
            Some(Flow::Tcp(flow)) => flow.on_timer(&mut io),
            None => return,
        };
        self.settle(id, verdict);
    }

    /// A listening socket is ready.
    pub(super) fn on_listener(&mut self, index: u32) {
        for _ in 0..ACCEPTS {
            if self.flows.is_full() {
                // The rest stays in the kernel's queue until the next connection comes.
                return self.drops.count(DropReason::TableFull);
            }
            let Some(listener) = self.listeners.get(index as usize) else { return };
            match listener.accept() {
                Ok(Some(accepted)) => {
                    let to_port = listener.to_port;
                    self.accept_tcp(accepted, to_port);
                }
                Ok(None) => return,
                Err(e) => {
                    log::debug!("cannot accept a connection: {e}");
                    return self.drops.count(DropReason::NoSocket);
                }
            }
        }
        self.reactor.again(Source::Listener(index));
    }

    /// A peer connected to a forwarded port [TCP-19].
    fn accept_tcp(&mut self, accepted: Accepted, to_port: u16) {
        let Accepted { fd, peer } = accepted;
        let Some(id) = self.flows.next_id() else { return };
        let Ok(sock) = self.net.adopt_stream(fd, id, peer.addr.is_v4()) else { return };
        let sides = crate::forward::inbound(&self.lease, &self.guest, peer, to_port);
        let Some((ours, guest)) = sides else {
            return self.net.abort(sock);
        };
        let tuple = Tuple { protocol: proto::TCP, ours, guest };
        let (hash, taken) = self.lookup(&tuple);
        if taken.is_some() {
            return self.net.abort(sock);
        }
        let isn = self.isn(hash);
        let (_, mut io) = self.io();
        let flow = Tcp::from_peer(sock, (ours, guest), isn, &mut io);
        log::debug!("flow {}: TCP {peer} ({ours}) -> {guest}", id.index);
        self.enter(hash, Flow::Tcp(flow));
    }

    /// Ends every flow, so that guest and peers are not left waiting.
    pub(super) fn end_flows(&mut self) {
        let ids: Vec<FlowId> = self.flows.ids().collect();
        for id in ids {
            self.settle(id, Verdict::Abort);
        }
    }
}
