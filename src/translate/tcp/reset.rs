//! Resets: ours, and the answer to segments that belong to no connection.

use super::Tcp;
use crate::translate::{FrameOut, Io, Verdict};
use crate::wire::Endpoint;
use crate::wire::{Head, Packet, Path, Segment, Seq, TcpFlags, TcpHead};

impl Tcp {
    /// Resets both sides [TCP-82].
    pub(super) fn reset<O: FrameOut, N>(&mut self, io: &mut Io<'_, O, N>) -> Verdict {
        self.emit_reset(io);
        Verdict::Abort
    }
}

/// Answers a segment that matches no flow and opens none (RFC 9293, 3.10.7.1) [TCP-9].
pub fn answer_stray<O: FrameOut, N>(packet: &Packet<'_>, seg: &Segment<'_>, io: &mut Io<'_, O, N>) {
    if seg.flags.has(TcpFlags::RST) {
        return;
    }
    let (flags, seq, ack) = if seg.flags.has(TcpFlags::ACK) {
        (TcpFlags::RST, seg.ack, Seq(0))
    } else {
        (TcpFlags::RST.with(TcpFlags::ACK), Seq(0), seg.seq.add(seg.seq_len()))
    };
    let path = Path {
        src_mac: io.mac_of(packet.dst),
        dst_mac: io.guest_mac,
        src: Endpoint::new(packet.dst, seg.dst_port),
        dst: Endpoint::new(packet.src, seg.src_port),
        flow_label: 0,
        tos: 0,
        ttl: crate::wire::TTL,
    };
    let tcp = TcpHead { seq, ack, flags, window: 0, options: &[], mss: 0 };
    if let Some(head) = Head::tcp(&path, &tcp, 0) {
        io.out.send(&head, 0);
    }
}
