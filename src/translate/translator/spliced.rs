//! New flows between the loopbacks of namespace and host.

use super::Translator;
use super::settle::Flow;
use crate::flow::{DropReason, FlowId};
use crate::translate::splice::Splice;
use crate::translate::splice_udp::SpliceUdp;
use crate::translate::{DatagramSockets, FrameOut, ListenerId, SockId, SpliceSockets, TcpSockets};
use crate::wire::Endpoint;

impl<O: FrameOut, N: TcpSockets + DatagramSockets + SpliceSockets> Translator<O, N> {
    /// A client in the namespace connected to a port that leads to the host's `to_port`; `ends`
    /// are its own and the address it connected to. The socket is registered under `id`, which
    /// [`Translator::next_id`] gave just before.
    pub fn on_spliced(
        &mut self,
        id: FlowId,
        client: SockId,
        ends: (Endpoint, Endpoint),
        to_port: u16,
    ) {
        match Splice::open(id, client, ends, to_port, &mut self.net) {
            Ok(flow) => {
                log::debug!("flow {}: TCP {} -> {} (host, {to_port})", id.index, ends.0, ends.1);
                // Nobody looks it up.
                self.enter(0, Flow::Splice(flow));
            }
            Err(e) => {
                let reason = if e.is_some() { DropReason::NoSocket } else { DropReason::Martian };
                self.drops.count(reason);
                // [SPLICE-1, SPLICE-5]
                self.net.abort(client);
            }
        }
    }

    /// Room for a datagram of [`Translator::on_spliced_datagram`].
    pub fn buffer(&mut self) -> &mut [u8] {
        &mut self.buf
    }

    /// A datagram of a client in the namespace to a port that leads to the host's `to_port`;
    /// `ends` are its own and the address it sent to. Its `len` bytes are in the
    /// [buffer](Translator::buffer).
    pub fn on_spliced_datagram(
        &mut self,
        listener: ListenerId,
        ends: (Endpoint, Endpoint),
        len: usize,
        to_port: u16,
    ) {
        let (hash, known) = self.lookup(&SpliceUdp::key(ends.0, ends.1));
        let id = match known {
            Some(id) => id,
            None => {
                let Some(id) = self.next_id() else { return };
                let (_, mut io) = self.split();
                let Some(flow) = SpliceUdp::open(id, listener, ends, to_port, &mut io) else {
                    return;
                };
                log::debug!("flow {}: UDP {} -> {} (host, {to_port})", id.index, ends.0, ends.1);
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
