//! UDP between a client on one side's loopback interface and a server on the other side.
//!
//! # Theory of operation
//!
//! What a client sends arrives at the listening socket, whoever it is from, and answers leave
//! through the same socket, from the address that the client had sent to. Towards the server each
//! client has a connected socket of its own: on the host with the client's address and port, in the
//! namespace with its port, where they can be had [FWD-7] [FWD-5].
//!
//! A flow is found by client and listening address. In the [index](crate::flow::Index) it is kept
//! apart from flows of the guest, and from those of the other side, which may have the same
//! addresses, by a protocol number that no packet has.
//!
//! Nothing is queued, errors are not passed on [UDP-9], and idle flows end as those of guests do
//! [UDP-10].

use super::idle::{Brief, Idle, Timeouts};
use super::{
    Bind, DatagramSockets, Deadline, Far, HostError, Io, ListenerId, Now, Received, SockId,
    SpliceSockets, Unopened, Verdict,
};
use crate::flow::{DropReason, FlowId, Tuple};
use crate::forward::Via;
use crate::wire::{Endpoint, proto};

/// Added to the protocol in the index: no packet that we look up has such a number.
const TO_HOST: u8 = 0x80;
const TO_GUEST: u8 = 0xc0;

/// Errors in one visit after which the socket is beyond hope: the kernel holds one at a time.
const MAX_ERRORS: u32 = 8;

/// A UDP exchange between a client on one side and a server on the other.
#[derive(Debug)]
pub struct SpliceUdp {
    /// Where the server is.
    far: Far,
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
    /// A flow for what `peer` sends to `local`; it leads to `to` on the `far` side.
    ///
    /// # Errors
    /// There can be none.
    pub fn open<O, N: SpliceSockets>(
        id: FlowId,
        listener: ListenerId,
        (peer, local): (Endpoint, Endpoint),
        (far, to): (Far, Endpoint),
        timeouts: Timeouts,
        io: &mut Io<'_, O, N>,
    ) -> Result<Self, Unopened> {
        // A socket that is connected to itself would answer itself.
        let bind = match far {
            Far::Host if peer != to => Bind::Exactly(peer),
            Far::Guest if peer.port != to.port => Bind::Port(peer.port, Via::Host),
            _ => Bind::Port(0, Via::Host),
        };
        let sock = io
            .net
            .open_udp_far(id, far, bind, to)
            // Privileged or taken.
            .or_else(|_| io.net.open_udp_far(id, far, Bind::Port(0, Via::Host), to));
        let sock = match sock {
            Ok(sock) => sock,
            Err(HostError::Exhausted) => return Err(Unopened::Exhausted),
            Err(_) => {
                io.drop(DropReason::NoSocket);
                return Err(Unopened::Refused);
            }
        };
        let idle = Idle::new(timeouts, io.now);
        Ok(Self { far, peer, local, listener, sock, idle, more: false })
    }

    /// Key of the flow for what `peer` sends to `local`, which leads to the `far` side.
    pub fn key(far: Far, peer: Endpoint, local: Endpoint) -> Tuple {
        let mark = if far == Far::Host { TO_HOST } else { TO_GUEST };
        Tuple { protocol: mark | proto::UDP, ours: local, guest: peer }
    }

    /// How far it has come, and when it was used last, if it is not a conversation.
    pub(super) fn brief(&self) -> Option<(Brief, Now)> {
        self.idle.brief()
    }

    /// The socket that answers leave through.
    pub fn listener(&self) -> ListenerId {
        self.listener
    }

    /// The flow's key in the index.
    pub fn tuple(&self) -> Tuple {
        Self::key(self.far, self.peer, self.local)
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
