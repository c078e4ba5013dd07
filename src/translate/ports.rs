//! What translation needs from the outside.

use std::io::IoSlice;

use crate::config::Lease;
use crate::flow::{DropReason, Drops, FlowId, Pool};
use crate::forward::{Destination, Neighbours, Via};
use crate::wire::{Addr, Endpoint, Head, IcmpMessage, Mac};

use super::tcp::{Boards, Timeouts};
use super::{Fragmenter, MtuDiscovery, Now};

/// Names a host socket. Only whoever made it knows what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SockId(pub i32);

/// Why the host could not do something, sorted by what the guest should learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostError {
    /// Nobody listens there.
    Refused,
    /// No route, or the network or host is unreachable.
    Unreachable,
    /// The peer did not answer.
    TimedOut,
    /// Out of descriptors, ports or kernel memory.
    Exhausted,
    /// Longer than the first link takes, or than the network reported that the path does.
    TooLong,
    /// Anything else.
    Other,
}

/// Why a flow was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unopened {
    /// Out of descriptors, ports or kernel memory: it may work when something comes free.
    Exhausted,
    /// Anything else; it was counted, and the guest told if it helps.
    Refused,
}

/// Result of starting a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connected {
    /// Established at once.
    Now(SockId),
    /// In progress: a write or error event will tell.
    Later(SockId),
}

/// Result of a stream send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// This many bytes were taken; fewer than offered means the buffer is full now.
    Bytes(usize),
    /// The connection is broken.
    Broken,
}

/// Result of looking at a stream's receive queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peeked {
    /// This many bytes were copied; fewer than asked for means there are no more now.
    Bytes(usize),
    /// Nothing beyond the offset.
    Empty,
    /// The peer has finished, and everything up to the offset was seen before.
    End,
    /// The connection is broken.
    Broken,
}

/// Result of a datagram receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A datagram of this length.
    Bytes(usize),
    /// None left.
    Empty,
    /// The socket reported an error, for example port unreachable; it can be used again.
    Error(HostError),
}

/// Datagrams of the same peer in the order in which they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Train<'a> {
    /// Their payloads, one behind the other.
    pub data: &'a [u8],
    /// The length of each but the last, which may be shorter; 0 if there is only one.
    pub segment: u16,
    /// Type of service or traffic class of all.
    pub tos: u8,
    /// Time to live or hop limit of all.
    pub ttl: u8,
}

/// How the packets of a connection are to travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynMarks {
    /// Type of service or traffic class.
    pub tos: u8,
    /// TTL or hop limit, if it is so low that the guest wants to hear who is on the way.
    pub hops: Option<u8>,
}

/// An error that the network reported about something sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// What it says.
    pub message: IcmpMessage,
    /// Who says so.
    pub offender: Option<Addr>,
    /// How much of the payload is known.
    pub quoted: usize,
}

/// What to expect of a socket, from what it had before. Wrong guesses cost time, nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expect {
    /// Length of a datagram that comes alone; 0 if that is unknown, or the kernel makes trains.
    pub size: u16,
    /// How many come at a time.
    pub count: u16,
}

/// Result of receiving several datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gathered {
    /// Some trains, for [`DatagramSockets::train`].
    Trains {
        /// How many.
        count: usize,
        /// There may be more datagrams.
        more: bool,
    },
    /// None left.
    Empty,
    /// As [`Received::Error`].
    Error(HostError),
}

/// Names a pipe: its reading and its writing end. Only whoever made it knows what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PipeId(pub i32, pub i32);

/// Names a listening socket. Only whoever made it knows what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerId {
    /// The socket.
    pub sock: SockId,
    /// It is an IPv6 socket, whatever it serves.
    pub v6: bool,
}

/// Result of moving bytes out of or into a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// This many bytes, at least one.
    Bytes(usize),
    /// Would block.
    Nothing,
    /// The source has ended.
    End,
    /// The connection is broken.
    Broken,
}

/// Where a datagram socket is bound before it is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bind {
    /// The address that follows from the way; this port, or any other if it cannot be had [UDP-3].
    Port(u16, Via),
    /// Exactly here: the peer expects answers from where it sent to [UDP-5].
    Exactly(Endpoint),
}

/// The kernel's view of a connection (`struct tcp_info`); `None` where the kernel is too old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpView {
    /// Smoothed round-trip time, microseconds.
    pub rtt_us: u32,
    /// Smallest round-trip time seen, microseconds.
    pub min_rtt_us: Option<u32>,
    /// Octets the peer has acknowledged, as `tcpi_bytes_acked` counts them.
    pub bytes_acked: Option<u64>,
    /// Delivery rate, bytes per second.
    pub delivery_rate: Option<u64>,
}

/// Host TCP sockets.
pub trait TcpSockets {
    /// Starts a connection of flow `id`, its packets marked as told; events for it will carry that
    /// id.
    fn connect(
        &mut self,
        id: FlowId,
        dst: Destination,
        marks: SynMarks,
    ) -> Result<Connected, HostError>;
    /// Why the network did not carry the SYN, if its hops were limited and somebody said so.
    fn connect_report(&mut self, s: SockId) -> Option<Report> {
        let _ = s;
        None
    }
    /// The outcome of a connection in progress, once there is an event.
    fn connect_error(&mut self, s: SockId) -> Option<HostError>;
    /// Sends without blocking.
    fn send(&mut self, s: SockId, data: &[IoSlice<'_>]) -> Sent;
    /// Copies queued bytes from `offset` on, without removing them.
    ///
    /// The offset must follow from the calls before: each peek moves it on by what was returned,
    /// each discard back by what was removed, and [`TcpSockets::seek`] sets it.
    fn peek(&mut self, s: SockId, offset: u32, buf: &mut [u8]) -> Peeked;
    /// Sets the offset of the next peek; false if the socket is broken.
    fn seek(&mut self, s: SockId, offset: u32) -> bool;
    /// Removes bytes from the head of the queue; false if the socket is broken.
    fn discard(&mut self, s: SockId, n: u32) -> bool;
    /// Sends FIN after everything sent so far; false if the socket is broken.
    fn shutdown(&mut self, s: SockId) -> bool;
    /// The kernel's view, `None` if the socket is broken.
    fn view(&mut self, s: SockId) -> Option<TcpView>;
    /// Bytes the send buffer can take now, without growing.
    fn free_space(&mut self, s: SockId) -> u32;
    /// Size of the send buffer in bytes.
    fn send_buffer(&mut self, s: SockId) -> u32;
    /// Sets type of service (`v4`) or traffic class of what is sent from now on; the two bits for
    /// congestion notification are the kernel's.
    fn set_tos(&mut self, s: SockId, v4: bool, tos: u8);
    /// Type of service or traffic class of the SYN of a connection that a peer opened, 0 if it is
    /// not known. Asked once per connection.
    fn peer_tos(&mut self, s: SockId) -> u8;
    /// Closes in an orderly way.
    fn close(&mut self, s: SockId);
    /// Closes with RST.
    fn abort(&mut self, s: SockId);
}

/// Host datagram sockets, UDP and ICMP echo.
///
/// Sockets are connected: datagrams of anyone but the peer are never delivered [UDP-17], not even
/// those that came in between binding and connecting [UDP-6].
pub trait DatagramSockets {
    /// A UDP socket of flow `id`, bound as told and connected to `to`; events for it will carry
    /// that id.
    fn open_udp(&mut self, id: FlowId, bind: Bind, to: Endpoint) -> Result<SockId, HostError>;
    /// A ping socket (`IPPROTO_ICMP`/`IPPROTO_ICMPV6` datagram) of flow `id`, connected to the
    /// address of `dst`; the kernel chooses its echo identifier [ICMP-2].
    fn open_ping(&mut self, id: FlowId, dst: Destination) -> Result<SockId, HostError>;
    /// Sends one datagram, or with `segment` non-zero a train of datagrams of that size.
    ///
    /// May fail with the error that an *earlier* datagram met, and can be tried again then.
    fn send_datagram(&mut self, s: SockId, data: &[u8], segment: u16) -> Result<(), HostError>;
    /// Takes a datagram of its peer that came before a UDP socket was connected: to be asked right
    /// after it was opened, until there is none.
    fn take_early(&mut self, s: SockId) -> Option<Vec<u8>> {
        let _ = s;
        None
    }
    /// Receives one datagram into `buf`.
    fn receive_datagram(&mut self, s: SockId, buf: &mut [u8]) -> Received;
    /// Receives datagrams of a UDP flow of the guest into memory of its own, where they stay until
    /// the next call.
    fn receive_trains(&mut self, s: SockId, expect: &mut Expect) -> Gathered;
    /// One of the trains that were received last.
    fn train(&self, n: usize) -> Option<Train<'_>>;
    /// Takes the oldest error that the network reported to a socket of a flow of the guest; what is
    /// known of the payload goes to `quoted`.
    fn take_report(&mut self, s: SockId, quoted: &mut [u8]) -> Option<Report>;
    /// Sets type of service (`v4`) or traffic class of what is sent from now on.
    fn set_mark(&mut self, s: SockId, v4: bool, tos: u8);
    /// Sets TTL (`v4`) or hop limit of what is sent from now on.
    fn set_ttl(&mut self, s: SockId, v4: bool, ttl: u8);
    /// Says what becomes of what is too long, from now on.
    fn set_mtu_discovery(&mut self, s: SockId, v4: bool, how: MtuDiscovery);
    /// What the path is known to take, in bytes of a packet; `None` if the kernel does not say.
    fn path_mtu(&mut self, s: SockId, v4: bool) -> Option<u32>;
    /// A second socket of flow `id`, for answers to what `s` sends to many; `None` if there is no
    /// need, or none can be had. Events for it say that it is the far one.
    fn open_answers(&mut self, id: FlowId, s: SockId) -> Option<SockId> {
        let _ = (id, s);
        None
    }
    /// Receives one of them into `buf`.
    fn receive_answer(&mut self, s: SockId, buf: &mut [u8]) -> Option<Answer> {
        let _ = (s, buf);
        None
    }
    /// Closes the socket.
    fn close_datagram(&mut self, s: SockId);
}

/// A datagram that came because the guest had asked many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its length.
    pub len: usize,
    /// Who sent it.
    pub peer: Endpoint,
    /// Where it was sent to: where the question had come from.
    pub local: Endpoint,
}

/// Where the server of a spliced flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Far {
    /// On the host.
    Host,
    /// In the guest's namespace.
    Guest,
}

/// Sockets and pipes of spliced flows, beside [`TcpSockets`] and [`DatagramSockets`].
///
/// Whoever never splices need not implement any of it.
pub trait SpliceSockets {
    /// Starts the second connection of flow `id`, from wherever to `to`. Events for it carry the
    /// id and say `far`; the first one tells whether it succeeded.
    fn connect_far(&mut self, id: FlowId, far: Far, to: Endpoint) -> Result<SockId, HostError> {
        let _ = (id, far, to);
        Err(HostError::Exhausted)
    }
    /// As [`DatagramSockets::open_udp`], on either side.
    fn open_udp_far(
        &mut self,
        id: FlowId,
        far: Far,
        bind: Bind,
        to: Endpoint,
    ) -> Result<SockId, HostError> {
        let _ = (id, far, bind, to);
        Err(HostError::Exhausted)
    }
    /// Takes bytes out of a stream.
    fn receive(&mut self, s: SockId, buf: &mut [u8]) -> Moved {
        let _ = (s, buf);
        Moved::Broken
    }
    /// An empty pipe, `None` if there can be none now.
    fn take_pipe(&mut self) -> Option<PipeId> {
        None
    }
    /// Gives a pipe back; one that is not `empty` is closed [SPLICE-13].
    fn return_pipe(&mut self, pipe: PipeId, empty: bool) {
        let _ = (pipe, empty);
    }
    /// Moves what the socket has to the pipe; [`Moved::Nothing`] if it has nothing, or if the pipe
    /// is full.
    fn fill(&mut self, from: SockId, pipe: PipeId) -> Moved {
        let _ = (from, pipe);
        Moved::Broken
    }
    /// Moves the `pending` bytes of the pipe to the socket; [`Moved::Nothing`] if it takes none.
    fn drain(&mut self, pipe: PipeId, to: SockId, pending: usize) -> Moved {
        let _ = (pipe, to, pending);
        Moved::Broken
    }
    /// Sends one datagram through a listening socket, from one of its addresses; false if lost.
    fn answer(&mut self, listener: ListenerId, from: Endpoint, to: Endpoint, data: &[u8]) -> bool {
        let _ = (listener, from, to, data);
        false
    }
}

/// The guest's link, towards the guest.
pub trait FrameOut {
    /// Room for the payload of the next frame; at least 65 535 bytes, or `None` when the link can
    /// take nothing now. What is written there lasts until anything is sent.
    fn payload(&mut self) -> Option<&mut [u8]>;
    /// Sends a frame: `head`, then the first `len` bytes of the payload room. False if lost.
    fn send(&mut self, head: &Head, len: usize) -> bool;
    /// The same with a payload that is elsewhere, for links where it makes no difference; others
    /// copy it.
    fn send_from(&mut self, head: &Head, payload: &[u8]) -> bool {
        let Some(room) = self.payload().and_then(|room| room.get_mut(..payload.len())) else {
            return false;
        };
        room.copy_from_slice(payload);
        self.send(head, payload.len())
    }

    /// Sends a complete frame without offloads. False if lost.
    fn control(&mut self, frame: &[u8]) -> bool;
    /// True if the link takes no payload now, and whoever drives us will be told when it does. On a
    /// link that does not tell it is always false, and only time helps.
    fn is_blocked(&self) -> bool {
        false
    }
    /// Sends what was kept back to be sent together.
    fn flush(&mut self) {}
}

/// What a handler may touch besides its own flow.
#[derive(Debug)]
pub struct Io<'a, O, N> {
    /// Towards the guest.
    pub out: &'a mut O,
    /// Host sockets.
    pub net: &'a mut N,
    /// Backlog memory.
    pub pool: &'a mut Pool,
    /// What guests have out of order.
    pub boards: &'a mut Boards,
    /// Counters.
    pub drops: &'a mut Drops,
    /// Cuts what the guest's MTU does not take.
    pub fragmenter: &'a mut Fragmenter,
    /// The guest's network identity.
    pub lease: &'a Lease,
    /// Who has which Ethernet address.
    pub neighbours: &'a Neighbours,
    /// The guest's Ethernet address.
    pub guest_mac: Mac,
    /// How patient TCP is.
    pub timeouts: Timeouts,
    /// This turn's time.
    pub now: Now,
}

impl<O, N> Io<'_, O, N> {
    /// The Ethernet address that what comes from `addr` comes from [ADDR-11].
    pub fn mac_of(&self, addr: Addr) -> Mac {
        self.neighbours.mac_of(addr)
    }

    /// Counts a dropped packet.
    pub fn drop(&mut self, reason: DropReason) {
        self.drops.count(reason);
    }
}

/// What becomes of a flow after a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It goes on.
    Keep,
    /// It is over: close its socket in an orderly way and free the slot.
    Close,
    /// It is over: close its socket with RST and free the slot.
    Abort,
}
