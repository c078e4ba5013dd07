//! New flows past the link: between sockets of the host and of the guest's namespace.

use super::Translator;
use super::settle::Flow;
use crate::flow::{DropReason, FlowId};
use crate::forward::{ForwardTarget, spliced_in, spliced_out};
use crate::translate::splice::Splice;
use crate::translate::splice_udp::SpliceUdp;
use crate::translate::{
    DatagramSockets, Far, FrameOut, ListenerId, SockId, SpliceSockets, TcpSockets, Verdict,
};
use crate::wire::Endpoint;

impl<O: FrameOut, N: TcpSockets + DatagramSockets + SpliceSockets> Translator<O, N> {
    /// True if what `peer` sends to `local`, a forwarded port of the host, goes past the link.
    pub fn goes_past_link(&self, ends: (Endpoint, Endpoint), to: ForwardTarget) -> bool {
        spliced_in(self.inward, &self.guest, ends, to).is_some()
    }

    /// A client connected to a port that leads past the link to the `far` side; `ends` are its own
    /// and the address it connected to. The socket is registered under `id`, which
    /// [`Translator::next_id`] gave just before.
    pub fn on_spliced(
        &mut self,
        id: FlowId,
        client: SockId,
        ends: (Endpoint, Endpoint),
        (far, to): (Far, ForwardTarget),
    ) {
        let server = self.server(ends, (far, to));
        let reason = DropReason::Martian;
        let flow = server.ok_or(reason).and_then(|server| {
            Splice::open(id, client, (far, server), &mut self.net)
                .map(|flow| (flow, server))
                .map_err(|_| DropReason::NoSocket)
        });
        match flow {
            Ok((flow, server)) => {
                log::debug!("flow {}: TCP {} -> {} = {far:?} {server}", id.index, ends.0, ends.1);
                // Nobody looks it up.
                self.enter(0, Flow::Splice(flow));
            }
            Err(reason) => {
                self.drops.count(reason);
                // [SPLICE-1, SPLICE-5]
                self.net.abort(client);
            }
        }
    }

    fn server(
        &self,
        ends: (Endpoint, Endpoint),
        (far, to): (Far, ForwardTarget),
    ) -> Option<Endpoint> {
        match far {
            Far::Host => spliced_out(ends, to.port),
            Far::Guest => spliced_in(self.inward, &self.guest, ends, to),
        }
    }

    /// These listening sockets were closed: ends the flows whose answers would leave through them.
    /// To be called before another socket can get their names.
    pub fn end_listeners(&mut self, closed: &[SockId]) {
        if closed.is_empty() {
            return;
        }
        for index in (0u32..).take(self.flows.slots()) {
            let Some(id) = self.flows.id_at(index) else { continue };
            if matches!(self.flows.get(id), Some(Flow::SpliceUdp(f)) if closed.contains(&f.listener().sock))
            {
                self.settle(id, Verdict::Close);
            }
        }
    }

    /// Room for a datagram that a listening socket receives.
    pub fn buffer(&mut self) -> &mut [u8] {
        &mut self.buf
    }

    /// A datagram of a client to a port that leads past the link to the `far` side; `ends` are its
    /// own and the address it sent to. Its `len` bytes are in the [buffer](Translator::buffer).
    pub fn on_spliced_datagram(
        &mut self,
        listener: ListenerId,
        ends: (Endpoint, Endpoint),
        len: usize,
        (far, to): (Far, ForwardTarget),
    ) {
        let (hash, known) = self.lookup(&SpliceUdp::key(far, ends.0, ends.1));
        let id = match known {
            Some(id) => id,
            None => {
                let Some(server) = self.server(ends, (far, to)) else {
                    return self.drops.count(DropReason::Martian);
                };
                let idle = self.idle;
                let made = self
                    .open(|id, _, io| SpliceUdp::open(id, listener, ends, (far, server), idle, io));
                let Some((id, flow)) = made else { return };
                log::debug!("flow {}: UDP {} -> {} = {far:?} {server}", id.index, ends.0, ends.1);
                self.enter(hash, Flow::SpliceUdp(flow));
                id
            }
        };
        let (flows, buf, mut io) = self.split_all();
        if let Some(Flow::SpliceUdp(flow)) = flows.get_mut(id) {
            flow.on_listener(buf.get(..len).unwrap_or_default(), &mut io);
        }
    }
}
