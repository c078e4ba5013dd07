//! UDP between two loopbacks: a port of the namespace that leads to the host.
//!
//! # Theory of operation
//!
//! No socket can be made in the namespace any more, so what a client there sends arrives at the
//! listening socket, whoever it is from, and answers leave through the same socket, from the
//! address that the client had sent to. Towards the host each client has a connected socket of its
//! own, with the client's address and port where they can be had [FWD-7].
//!
//! A flow is found by client and listening address. In the [index](crate::flow::Index) it is kept
//! apart from flows of the guest, which may have the same addresses, by a protocol number that no
//! packet has ([`PROTOCOL`]).
//!
//! Nothing is queued, errors are not passed on [UDP-9], and idle flows end as those of guests do
//! [UDP-10].

use super::idle::{Idle, Timeouts};
use super::{
    Bind, DatagramSockets, Deadline, HostError, Io, ListenerId, Now, Received, SockId,
    SpliceSockets, Verdict,
};
use crate::flow::{DropReason, FlowId, Tuple};
use crate::wire::{Endpoint, proto};

/// UDP of two loopbacks in the index: a protocol number that no packet we look up has.
pub const PROTOCOL: u8 = 0x80 | proto::UDP;

/// Errors in one visit after which the socket is beyond hope: the kernel holds one at a time.
const MAX_ERRORS: u32 = 8;

/// A UDP exchange between a client in the namespace and a server of the host.
#[derive(Debug)]
pub struct SpliceUdp {
    /// The client.
    peer: Endpoint,
    /// Where it sends to, an address of the listening socket.
    local: Endpoint,
    listener: ListenerId,
    /// Connected to the server.
    sock: SockId,
    idle: Idle,
    /// The socket may hold more.
    more: bool,
}

impl SpliceUdp {
    /// A flow for what `peer` sends to `local`; it leads to the same address of the host, there
    /// `to_port`.
    ///
    /// `None` if there can be none; the reason was counted.
    pub fn open<O, N: DatagramSockets>(
        id: FlowId,
        listener: ListenerId,
        (peer, local): (Endpoint, Endpoint),
        to_port: u16,
        io: &mut Io<'_, O, N>,
    ) -> Option<Self> {
        if !peer.addr.is_loopback() || !local.addr.is_loopback() {
            io.drop(DropReason::Martian);
            return None;
        }
        let to = Endpoint::new(local.addr, to_port);
        // A socket that is connected to itself would answer itself.
        let same = if peer == to { Err(HostError::Other) } else { Ok(Bind::Exactly(peer)) };
        let sock = same
            .and_then(|bind| io.net.open_udp(id, bind, to))
            // Privileged or taken.
            .or_else(|_| io.net.open_udp(id, Bind::Port(0), to));
        let Ok(sock) = sock else {
            io.drop(DropReason::NoSocket);
            return None;
        };
        let idle = Idle::new(Timeouts::default(), io.now);
        Some(Self { peer, local, listener, sock, idle, more: false })
    }

    /// Key of the flow for what `peer` sends to `local`.
    pub fn key(peer: Endpoint, local: Endpoint) -> Tuple {
        Tuple { protocol: PROTOCOL, ours: local, guest: peer }
    }

    /// The flow's key in the index.
    pub fn tuple(&self) -> Tuple {
        Self::key(self.peer, self.local)
    }

    /// A datagram of the client.
    pub fn on_listener<O, N: DatagramSockets>(&mut self, data: &[u8], io: &mut Io<'_, O, N>) {
        self.idle.near(io.now);
        // The first error may be an earlier datagram's, and this one not sent because of it.
        let sent = io.net.send_datagram(self.sock, data, 0);
        if sent.or_else(|_| io.net.send_datagram(self.sock, data, 0)).is_err() {
            io.drop(DropReason::HostSend);
        }
    }

    /// The socket has datagrams or an error: passes on up to `budget` of them.
    pub fn on_socket<O, N: DatagramSockets + SpliceSockets>(
        &mut self,
        budget: u32,
        buf: &mut [u8],
        io: &mut Io<'_, O, N>,
    ) -> Verdict {
        let mut errors = 0u32;
        let mut any = false;
        self.more = true;
        for _ in 0..budget {
            match io.net.receive_datagram(self.sock, buf) {
                Received::Bytes(len) => {
                    any = true;
                    let data = buf.get(..len).unwrap_or_default();
                    if !io.net.answer(self.listener, self.local, self.peer, data) {
                        io.drop(DropReason::HostSend);
                    }
                }
                Received::Empty => {
                    self.more = false;
                    break;
                }
                Received::Error(_) => {
                    errors = errors.saturating_add(1);
                    if errors >= MAX_ERRORS {
                        return Verdict::Close;
                    }
                }
            }
        }
        if any {
            self.idle.far(io.now);
        }
        Verdict::Keep
    }

    /// True if [`SpliceUdp::on_socket`] stopped for want of budget.
    pub fn wants_more(&self) -> bool {
        self.more
    }

    /// When the flow will have been idle for too long.
    pub fn deadline(&self) -> Deadline {
        self.idle.deadline()
    }

    /// The deadline has passed, or may have.
    pub fn on_timer(&self, now: Now) -> Verdict {
        if self.deadline().is_due(now) { Verdict::Close } else { Verdict::Keep }
    }

    /// Gives back what the flow holds.
    pub fn release<N: DatagramSockets>(&mut self, net: &mut N) {
        net.close_datagram(self.sock);
    }
}

#[cfg(test)]
mod tests;
