//! Reactions to frames of the guest.

use super::settle::Flow;
use super::{BATCH, Translator};
use crate::config::Protocols;
use crate::flow::{DropReason, FlowId, Table, Tuple};
use crate::services::ndp;
use crate::translate::gather::{Gather, Gathered, Head};
use crate::translate::ping::{self, Ping};
use crate::translate::tcp::{self, Opened, Tcp};
use crate::translate::udp::UdpFlow;
use crate::translate::{
    DatagramSockets, FrameOut, Io, Marks, SpliceSockets, TcpSockets, Unopened, Verdict,
};
use crate::wire::{
    Addr, Body, ClosedPort, Datagram, Endpoint, Frame, Gso, Packet, ParseError, Segment, Seq,
    TcpFlags, Vnet, proto,
};

impl<O: FrameOut, N: TcpSockets + DatagramSockets + SpliceSockets> Translator<O, N> {
    /// A frame of the guest. After the last one of a batch, call [`Translator::end_batch`].
    pub fn on_frame(&mut self, vnet: &Vnet, data: &[u8]) {
        let frame = match Frame::parse(data) {
            Ok(frame) => frame,
            Err(e) => {
                return self.drops.count(match e {
                    ParseError::Truncated => DropReason::Truncated,
                    ParseError::EtherType => DropReason::EtherType,
                    ParseError::Header => DropReason::BadHeader,
                    ParseError::Extension => DropReason::Extension,
                    ParseError::Fragment => DropReason::Fragment,
                });
            }
        };
        if frame.src != self.guest_mac && !frame.src.is_multicast() {
            log::debug!("the guest's Ethernet address is {}", frame.src);
            self.guest_mac = frame.src;
        }
        match frame.body {
            Body::Arp if self.lease.v4 => self.on_arp(data),
            Body::Arp => self.drops.count(DropReason::Family),
            Body::Ip(packet) => self.on_packet(&frame, vnet, &packet),
            Body::Fragment(fragment) => self.on_fragment(&frame, vnet, &fragment),
        }
    }

    pub(super) fn on_packet(&mut self, frame: &Frame<'_>, vnet: &Vnet, packet: &Packet<'_>) {
        let enabled = if packet.dst.is_v4() { self.lease.v4 } else { self.lease.v6 };
        if !enabled {
            return self.drops.count(DropReason::Family);
        }
        if packet.src.is_loopback() || packet.dst.is_loopback() {
            return self.drops.count(DropReason::Loopback);
        }
        self.guest.learn(packet.src);
        let Protocols { tcp, icmp, .. } = self.protocols;
        match packet.protocol {
            proto::TCP if !tcp => self.drops.count(DropReason::Disabled),
            proto::TCP => self.on_tcp(packet),
            proto::ICMP | proto::ICMPV6 if !icmp => self.drops.count(DropReason::Disabled),
            proto::UDP => self.on_udp(frame, vnet, packet),
            proto::ICMPV6 if packet.transport.first().is_some_and(|t| ndp::handles(*t)) => {
                self.on_ndp(frame, packet);
            }
            proto::ICMPV6 if is_membership(packet) => self.drops.count(DropReason::Membership),
            proto::ICMP | proto::ICMPV6 => self.on_icmp(packet),
            proto::IGMP => self.drops.count(DropReason::Membership),
            _ => self.drops.count(DropReason::Protocol),
        }
    }

    /// Something was lost before it came here: the last frame of a guest that has gone, for example.
    pub fn lost(&mut self, reason: DropReason) {
        self.drops.count(reason);
    }

    fn on_udp(&mut self, frame: &Frame<'_>, vnet: &Vnet, packet: &Packet<'_>) {
        let segment = match vnet.gso {
            Gso::Udp(size) => size,
            _ => 0,
        };
        let Some(datagram) = Datagram::parse(packet.transport, segment != 0) else {
            return self.drops.count(DropReason::BadTransport);
        };
        if self.on_dhcp(frame, packet, &datagram) {
            return;
        }
        if !self.protocols.udp {
            return self.drops.count(DropReason::Disabled);
        }
        let ours = Endpoint::new(packet.dst, datagram.dst_port);
        let guest = Endpoint::new(packet.src, datagram.src_port);
        let (hash, known) = self.lookup(&Tuple { protocol: proto::UDP, ours, guest });
        let Some(id) = known.or_else(|| self.open_udp(hash, ours, guest)) else { return };
        let head = Head { id, marks: marks(packet) };
        if segment != 0 || !Gather::suits(datagram.payload) {
            self.send_gathered();
            self.send_train(Gathered { head, data: datagram.payload, segment });
        } else if !self.gather.add(head, datagram.payload) {
            self.send_gathered();
            self.gather.add(head, datagram.payload);
        }
    }

    /// Sends what was gathered.
    pub(super) fn send_gathered(&mut self) {
        let (flows, gather, mut io) = self.split_gather();
        if let Some(train) = gather.take() {
            let id = train.head.id;
            let Some(verdict) = send(flows, train, &mut io) else { return };
            self.settle(id, verdict);
        }
    }

    fn send_train(&mut self, train: Gathered<'_>) {
        let (flows, mut io) = self.split();
        let Some(verdict) = send(flows, train, &mut io) else { return };
        self.settle(train.head.id, verdict);
    }

    fn open_udp(&mut self, hash: u64, ours: Endpoint, guest: Endpoint) -> Option<FlowId> {
        let Some(dst) = crate::forward::outbound(&self.lease, proto::UDP, ours) else {
            self.drops.count(DropReason::Martian);
            return None;
        };
        let idle = self.idle;
        let (id, flow) =
            self.open(|id, _, io| UdpFlow::from_guest(id, (ours, guest), dst, idle, io))?;
        log::debug!("flow {}: UDP {guest} -> {ours} ({})", id.index, dst.to);
        self.enter(hash, Flow::Udp(flow));
        Some(id)
    }

    fn on_icmp(&mut self, packet: &Packet<'_>) {
        let Some(echo) = ping::request_id(packet.protocol, packet.transport) else {
            return self.on_closed_port(packet);
        };
        if packet.dst.is_multicast() {
            return self.drops.count(DropReason::Multicast);
        }
        let guest = Endpoint::new(packet.src, echo);
        let (hash, known) = self.lookup(&Ping::key(packet.dst, guest));
        let Some(id) = known.or_else(|| self.open_ping(hash, packet.dst, guest)) else { return };
        let (flows, mut io) = self.split();
        let Some(Flow::Ping(flow)) = flows.get_mut(id) else { return };
        let verdict = flow.on_guest(packet.transport, marks(packet), &mut io);
        self.settle(id, verdict);
    }

    /// The guest may report that nobody has the port that a flow leads to [UDP-12]. That is said of
    /// one flow alone: a program may have connected the port to another peer.
    fn on_closed_port(&mut self, packet: &Packet<'_>) {
        let closed = ClosedPort::parse(packet).and_then(|ClosedPort { src, dst }| {
            self.lookup(&Tuple { protocol: proto::UDP, ours: src, guest: dst }).1
        });
        let Some(id) = closed else { return self.drops.count(DropReason::IcmpType) };
        // What came from the port before is still to leave.
        self.send_gathered();
        let Some(Flow::Udp(flow)) = self.flows.get_mut(id) else { return };
        let verdict = flow.on_closed_port(self.now);
        self.settle(id, verdict);
    }

    fn open_ping(&mut self, hash: u64, ours: Addr, guest: Endpoint) -> Option<FlowId> {
        let protocol = if ours.is_v4() { proto::ICMP } else { proto::ICMPV6 };
        let Some(dst) = crate::forward::outbound(&self.lease, protocol, Endpoint::new(ours, 0))
        else {
            self.drops.count(DropReason::Martian);
            return None;
        };
        let (id, flow) = self.open(|id, _, io| Ping::from_guest(id, (ours, guest), dst, io))?;
        log::debug!("flow {}: ping {} -> {ours} ({})", id.index, guest.addr, dst.to.addr);
        self.enter(hash, Flow::Ping(flow));
        Some(id)
    }

    fn on_tcp(&mut self, packet: &Packet<'_>) {
        let Ok(seg) = Segment::parse(packet.transport) else {
            return self.drops.count(DropReason::BadTransport);
        };
        let ours = Endpoint::new(packet.dst, seg.dst_port);
        let guest = Endpoint::new(packet.src, seg.src_port);
        let (hash, id) = self.lookup(&Tuple { protocol: proto::TCP, ours, guest });
        if let Some(id) = id {
            let (flows, mut io) = self.split();
            let Some(Flow::Tcp(flow)) = flows.get_mut(id) else { return };
            flow.on_mark(packet.tos, &mut io);
            let verdict = flow.on_segment(&seg, &mut io);
            if verdict == Verdict::Keep {
                if self.touched.len() >= BATCH {
                    self.end_batch();
                }
                if !self.touched.contains(&id) {
                    self.touched.push(id);
                }
            } else {
                self.settle(id, verdict);
            }
            return;
        }
        if seg.flags.has(TcpFlags::SYN)
            && !seg.flags.has(TcpFlags::ACK)
            && !seg.flags.has(TcpFlags::RST)
        {
            self.open_tcp(hash, (ours, guest), &seg, marks(packet));
        } else if self.resets.spend(self.now) {
            let (_, mut io) = self.split();
            tcp::answer_stray(packet, &seg, &mut io);
        } else {
            self.drops.count(DropReason::AnswerLimit);
        }
    }

    /// A SYN of the guest [TCP-12].
    fn open_tcp(
        &mut self,
        hash: u64,
        (ours, guest): (Endpoint, Endpoint),
        seg: &Segment<'_>,
        marks: Marks,
    ) {
        if seg.flags.has(TcpFlags::FIN) {
            return self.drops.count(DropReason::BadSegment);
        }
        let sane = |e: Endpoint| e.addr.is_unicast() && e.port != 0;
        if !sane(ours) || !sane(guest) {
            return self.drops.count(DropReason::Martian);
        }
        let Some(dst) = crate::forward::outbound(&self.lease, proto::TCP, ours) else {
            return self.drops.count(DropReason::Martian);
        };
        let origin = self.origin(hash);
        // Without room there is silence: the guest will try again when there may be some [TCP-96].
        let opened = self.open(|id, _, io| {
            match Tcp::from_guest(id, (ours, guest), dst, (seg, marks), origin, io) {
                Opened::Flow(flow) => Ok(flow),
                Opened::Exhausted => Err(Unopened::Exhausted),
                Opened::Refused => Err(Unopened::Refused),
            }
        });
        let Some((id, flow)) = opened else {
            return log::debug!("TCP {guest} -> {ours} ({}): not opened", dst.to);
        };
        log::debug!("flow {}: TCP {guest} -> {ours} ({})", id.index, dst.to);
        self.enter(hash, Flow::Tcp(flow));
    }

    /// RFC 6528: a keyed hash of the connection plus a clock that ticks every 32 ns [TCP-35].
    ///
    /// The timestamps begin at one half of the hash: the sequence numbers do not give it away,
    /// nor it them.
    pub(super) fn origin(&self, hash: u64) -> tcp::Origin {
        let ticks = self.now.0.wrapping_mul(1000) >> 5;
        let [high, low] = [hash >> 32, hash].map(|h| (h & 0xffff_ffff) as u32);
        #[expect(clippy::cast_possible_truncation, reason = "the clock wraps")]
        let isn = Seq((high ^ low).wrapping_add(ticks as u32));
        tcp::Origin { isn, ts_offset: low }
    }

    /// Sends the datagrams of the batch, and lets every TCP flow of it acknowledge and send on.
    pub fn end_batch(&mut self) {
        self.send_gathered();
        for n in 0..self.touched.len() {
            let Some(&id) = self.touched.get(n) else { break };
            let (flows, mut io) = self.split();
            if let Some(Flow::Tcp(flow)) = flows.get_mut(id) {
                let verdict = flow.on_batch_end(&mut io);
                let more = verdict == Verdict::Keep && flow.wants_push();
                self.settle(id, verdict);
                if more {
                    self.again.push(id);
                }
            }
        }
        self.touched.clear();
    }
}

fn send<O: FrameOut, N: DatagramSockets>(
    flows: &mut Table<Flow>,
    train: Gathered<'_>,
    io: &mut Io<'_, O, N>,
) -> Option<Verdict> {
    let Some(Flow::Udp(flow)) = flows.get_mut(train.head.id) else { return None };
    Some(flow.on_guest(train.data, train.segment, train.head.marks, io))
}

/// True for messages of multicast listener discovery (RFC 2710, RFC 3810) [MC-1].
fn is_membership(packet: &Packet<'_>) -> bool {
    matches!(packet.transport.first(), Some(130..=132 | 143))
}

/// How a packet of the guest is to travel.
fn marks(packet: &Packet<'_>) -> Marks {
    let Packet { ttl, tos, df, .. } = *packet;
    Marks { ttl, tos, df }
}
