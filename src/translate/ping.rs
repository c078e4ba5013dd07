//! ICMP echo: the guest's pings, on one ping socket per identifier and destination.
//!
//! # Theory of operation
//!
//! Echo requests go out through an unprivileged ping socket. The kernel writes its own identifier
//! into them, and delivers the replies that carry it: a process cannot take another one's replies,
//! and neither can we [ICMP-2]. A reply gets the guest's identifier back.
//!
//! Replies are passed on one by one as they come, whatever their sequence number: some programs
//! send every request with the same one [ICMP-5].

use std::net::IpAddr;

use super::marks::{Marks, Told};
use super::reports::{self, About};
use super::retry::Retry;
use super::{
    DatagramSockets, Deadline, FrameOut, HostError, Io, Now, Received, SockId, Unopened, Verdict,
};
use crate::flow::{DropReason, FlowId, Tuple};
use crate::forward::Destination;
use crate::wire::checksum::Checksum;
use crate::wire::{Addr, Endpoint, IcmpError, Mac, Path, TTL, proto};

/// How long after the last request a flow ends, milliseconds [ICMP-6].
const IDLE_MS: u64 = 60_000;

/// Errors in one visit after which the socket is beyond hope.
const MAX_ERRORS: u32 = 8;

/// Echo request and echo reply (RFC 792).
const ECHO_V4: (u8, u8) = (8, 0);

/// Echo request and echo reply (RFC 4443, 4).
const ECHO_V6: (u8, u8) = (128, 129);

/// The identifier of an echo request, or `None` if the ICMP message is nothing of the kind
/// [ICMP-1].
pub fn request_id(protocol: u8, message: &[u8]) -> Option<u16> {
    let [kind, code, _, _, i0, i1, _, _] = *message.first_chunk::<8>()?;
    let request = match protocol {
        proto::ICMP => ECHO_V4.0,
        proto::ICMPV6 => ECHO_V6.0,
        _ => return None,
    };
    if kind == request && code == 0 { Some(u16::from_be_bytes([i0, i1])) } else { None }
}

/// A sequence of pings with one identifier to one destination.
#[derive(Debug)]
pub struct Ping {
    /// The destination as the guest knows it; port 0.
    pub ours: Endpoint,
    /// The guest; its port is the echo identifier.
    pub guest: Endpoint,
    /// The destination, as the host knows it.
    peer: Addr,
    /// The ping socket.
    pub sock: SockId,

    /// Last request.
    active: Now,
    /// How requests travel.
    told: Told,
    /// The socket may hold more.
    more: bool,
    /// When to see whether the link has room again.
    retry: Retry,
}

const _: () = assert!(size_of::<Ping>() <= 192);

impl Ping {
    /// A flow for the guest's first echo request with identifier `guest.port` to `ours`, which
    /// is `dst` on the host. The request itself is passed to [`Ping::on_guest`] afterwards.
    ///
    /// # Errors
    /// There can be none [ICMP-7].
    pub fn from_guest<O, N: DatagramSockets>(
        id: FlowId,
        (ours, guest): (Addr, Endpoint),
        dst: Destination,
        io: &mut Io<'_, O, N>,
    ) -> Result<Self, Unopened> {
        if !guest.addr.is_unicast() || ours.is_unspecified() {
            io.drop(DropReason::Martian);
            return Err(Unopened::Refused);
        }
        let sock = match io.net.open_ping(id, dst) {
            Ok(sock) => sock,
            Err(HostError::Exhausted) => return Err(Unopened::Exhausted),
            Err(_) => {
                io.drop(DropReason::NoSocket);
                return Err(Unopened::Refused);
            }
        };
        Ok(Self {
            ours: Endpoint::new(ours, 0),
            guest,
            peer: dst.to.addr,
            sock,
            active: io.now,
            told: Told::new(),
            more: false,
            retry: Retry::default(),
        })
    }

    /// The flow's key in the index, for messages of these addresses and this identifier.
    pub fn key(ours: Addr, guest: Endpoint) -> Tuple {
        Tuple { protocol: protocol(guest.addr), ours: Endpoint::new(ours, 0), guest }
    }

    /// The flow's key in the index.
    pub fn tuple(&self) -> Tuple {
        Self::key(self.ours.addr, self.guest)
    }

    /// When the last request will be too long ago, or replies are to be tried again.
    pub fn deadline(&self) -> Deadline {
        self.end().min(self.retry.deadline())
    }

    /// True if [`Ping::on_socket`] is to be tried again, as the link was full.
    pub fn retries(&self, now: Now) -> bool {
        self.retry.is_due(now)
    }

    /// Gives back what the flow holds.
    pub fn release<N: DatagramSockets>(&mut self, net: &mut N) {
        net.close_datagram(self.sock);
    }

    /// An echo request of the guest: a whole ICMP message. How it is to travel is passed on; the
    /// kernel replaces identifier and checksum [ICMP-3].
    pub fn on_guest<O: FrameOut, N: DatagramSockets>(
        &mut self,
        message: &[u8],
        marks: Marks,
        io: &mut Io<'_, O, N>,
    ) -> Verdict {
        if marks.ttl == 0 {
            io.drop(DropReason::BadHeader);
            return Verdict::Keep;
        }
        self.active = io.now;
        self.told.tell(self.sock, self.guest.addr.is_v4(), marks, io.net);
        let Err(e) = io.net.send_datagram(self.sock, message, 0) else { return Verdict::Keep };
        // It may have been an earlier one's, and this one not sent because of it.
        if self.relay(io) || e == HostError::TooLong {
            match io.net.send_datagram(self.sock, message, 0) {
                Ok(()) => {}
                Err(HostError::TooLong) => self.on_too_long(message, marks, io),
                Err(_) => io.drop(DropReason::HostSend),
            }
        } else {
            io.drop(DropReason::HostSend);
        }
        Verdict::Keep
    }

    /// The guest forbids to cut what the host's link does not take.
    fn on_too_long<O: FrameOut, N: DatagramSockets>(
        &mut self,
        message: &[u8],
        marks: Marks,
        io: &mut Io<'_, O, N>,
    ) {
        if marks.is_probe() && self.ours.addr.is_unicast() {
            let path = self.path(io.lease.our_mac, io.guest_mac);
            let (sock, guest) = (self.sock, self.guest.addr);
            return reports::too_long((sock, guest), io, |from, what| {
                IcmpError::echo(&path, from, what, message)
            });
        }
        let again = (message, 0, marks);
        if !self.told.send_oversized(self.sock, self.guest.addr.is_v4(), again, io.net) {
            io.drop(DropReason::HostSend);
        }
    }

    /// The socket has replies or an error: passes on up to `budget` replies, by way of `buf`
    /// [ICMP-4].
    pub fn on_socket<O: FrameOut, N: DatagramSockets>(
        &mut self,
        budget: u32,
        buf: &mut [u8],
        io: &mut Io<'_, O, N>,
    ) -> Verdict {
        let mut errors = 0u32;
        let waiting = self.retry;
        self.more = true;
        self.retry.done();
        for _ in 0..budget {
            if io.out.payload().is_none() {
                self.more = false;
                self.retry = waiting;
                self.retry.later(io.now);
                break;
            }
            match io.net.receive_datagram(self.sock, buf) {
                Received::Bytes(len) => {
                    let message = buf.get_mut(..len).unwrap_or_default();
                    if self.restore(message) {
                        self.send(message, io);
                    } else {
                        io.drop(DropReason::IcmpType);
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
                    if !self.relay(io) {
                        io.drop(DropReason::HostSend);
                    }
                }
            }
        }
        Verdict::Keep
    }

    /// True if the link was full when the socket had something.
    pub fn waits_for_link(&self) -> bool {
        self.retry.deadline().is_armed()
    }

    /// Tells the guest what the network reported, with its own identifier [ICMP-8]; false if it
    /// reported nothing.
    fn relay<O: FrameOut, N: DatagramSockets>(&self, io: &mut Io<'_, O, N>) -> bool {
        let about = About {
            sock: self.sock,
            ours: self.ours.addr,
            guest: self.guest.addr,
            peer: self.peer,
        };
        let path = self.path(io.mac_of(self.ours.addr), io.guest_mac);
        let error = |(from, src_mac), message, quoted: &[u8]| {
            IcmpError::echo(&Path { src_mac, ..path }, from, message, quoted)
        };
        reports::relay(&about, MAX_ERRORS, error, io)
    }

    /// True if [`Ping::on_socket`] stopped for want of budget.
    pub fn wants_more(&self) -> bool {
        self.more
    }

    /// The deadline has passed, or may have.
    pub fn on_timer(&self, now: Now) -> Verdict {
        if self.end().is_due(now) { Verdict::Close } else { Verdict::Keep }
    }

    fn end(&self) -> Deadline {
        Deadline::after(self.active, IDLE_MS.saturating_add(1))
    }

    /// Makes a reply from the socket the guest's: its identifier, and a checksum to match. False
    /// if the message is not an echo reply.
    fn restore(&self, message: &mut [u8]) -> bool {
        let (ours, guest) = (self.ours.addr.to_ip(), self.guest.addr.to_ip());
        let Ok(len) = u32::try_from(message.len()) else { return false };
        let (mut sum, (_, reply)) = match (ours, guest) {
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                (Checksum::pseudo_v6(src, dst, proto::ICMPV6, len), ECHO_V6)
            }
            _ => (Checksum::new(), ECHO_V4),
        };
        let Some([kind, code, c0, c1, i0, i1, _, _]) = message.first_chunk_mut::<8>() else {
            return false;
        };
        if *kind != reply || *code != 0 {
            return false;
        }
        [*c0, *c1] = [0, 0];
        [*i0, *i1] = self.guest.port.to_be_bytes();
        sum.add(message);
        if let Some([_, _, c0, c1]) = message.first_chunk_mut::<4>() {
            [*c0, *c1] = sum.finish().to_be_bytes();
        }
        true
    }

    fn send<O: FrameOut, N>(&self, reply: &[u8], io: &mut Io<'_, O, N>) {
        let path = self.path(io.mac_of(self.ours.addr), io.guest_mac);
        let protocol = protocol(self.guest.addr);
        if let Err(reason) = io.fragmenter.send_raw(&path, protocol, reply, io.out) {
            io.drop(reason);
        }
    }

    fn path(&self, src_mac: Mac, guest_mac: Mac) -> Path {
        Path {
            src_mac,
            dst_mac: guest_mac,
            src: self.ours,
            dst: self.guest,
            flow_label: 0,
            tos: 0,
            ttl: TTL,
        }
    }
}

/// The ICMP of this address family.
fn protocol(addr: Addr) -> u8 {
    if addr.is_v4() { proto::ICMP } else { proto::ICMPV6 }
}

#[cfg(test)]
mod tests;
