//! Watches both directions of the wire and checks what must hold for every connection, whatever
//! the test is about.

use std::collections::HashMap;

use passt::wire::{Body, Endpoint, Frame, Segment, Seq, SynOptions, TcpFlags, proto};

#[derive(Debug, Default)]
struct Wire {
    our_scale: Option<u8>,
    guest_scale: Option<u8>,
    mss: u16,
    /// Highest acknowledgement we sent.
    acked: Option<Seq>,
    /// Furthest right edge we offered.
    edge: Option<Seq>,
    /// Furthest right edge the guest offered.
    guest_edge: Option<Seq>,
    guest_acked: Option<Seq>,
    isn: Option<Seq>,
    guest_isn: Option<Seq>,
    /// End of what we sent.
    sent: Option<Seq>,
    fin: Option<Seq>,
}

/// Every connection ever seen, by the guest's and our endpoint.
#[derive(Debug, Default)]
pub struct Watch {
    wires: HashMap<(Endpoint, Endpoint), Wire>,
}

impl Watch {
    /// A frame the guest sent, as we receive it.
    pub fn from_guest(&mut self, frame: &[u8]) {
        let Some((src, dst, seg)) = parse(frame) else { return };
        if seg.flags.has(TcpFlags::SYN) && !seg.flags.has(TcpFlags::ACK) {
            // A new connection, or the same SYN again.
            let old = self.wires.get(&(src, dst));
            if old.is_none_or(|w| w.guest_isn.is_some_and(|isn| isn != seg.seq)) {
                self.wires.insert((src, dst), Wire::default());
            }
        }
        let wire = self.wires.entry((src, dst)).or_default();
        if seg.flags.has(TcpFlags::SYN) {
            wire.guest_isn = Some(seg.seq);
            let options = SynOptions::parse(seg.options);
            wire.guest_scale = Some(options.wscale.unwrap_or(0).min(14));
            if options.wscale.is_none() {
                wire.our_scale = Some(0);
            }
            wire.mss = options.mss.unwrap_or(536).max(48);
        }
        if seg.flags.has(TcpFlags::ACK) {
            let shift =
                if seg.flags.has(TcpFlags::SYN) { 0 } else { wire.guest_scale.unwrap_or(0) };
            let edge = seg.ack.add(u32::from(seg.window) << shift);
            wire.guest_edge = Some(wire.guest_edge.map_or(edge, |e| e.max(edge)));
            wire.guest_acked = Some(wire.guest_acked.map_or(seg.ack, |a| a.max(seg.ack)));
        }
    }

    /// The connection is over.
    pub fn forget(&mut self, guest: Endpoint, ours: Endpoint) {
        self.wires.remove(&(guest, ours));
    }

    /// A frame we sent, before the link delays or loses it.
    pub fn to_guest(&mut self, frame: &[u8], hostile: bool) {
        let Some((src, dst, seg)) = parse(frame) else { return };
        let wire = self.wires.entry((dst, src)).or_default();
        if seg.flags.has(TcpFlags::RST) {
            return;
        }
        let syn = seg.flags.has(TcpFlags::SYN);
        if syn {
            if wire.isn.is_some_and(|isn| isn != seg.seq) {
                *wire = Wire {
                    guest_isn: wire.guest_isn,
                    guest_scale: wire.guest_scale,
                    our_scale: wire.our_scale.filter(|s| *s == 0),
                    mss: wire.mss,
                    ..Wire::default()
                };
            }
            if wire.our_scale != Some(0) {
                wire.our_scale = SynOptions::parse(seg.options).wscale;
            }
            wire.isn = Some(seg.seq);
        } else {
            assert!(seg.flags.has(TcpFlags::ACK), "[TCP-45] no ACK flag: {seg:?}");
            assert!(seg.options.is_empty(), "options on {seg:?}");
        }
        if seg.flags.has(TcpFlags::ACK) {
            let shift = if syn { 0 } else { wire.our_scale.unwrap_or(0) };
            if let Some(acked) = wire.acked {
                assert!(!seg.ack.before(acked), "[TCP-44] ACK went back: {acked:?} then {seg:?}");
            }
            wire.acked = Some(seg.ack);
            if hostile {
                return;
            }
            let edge = seg.ack.add(u32::from(seg.window) << shift);
            if let Some(before) = wire.edge {
                // Rounding to the scale may take back less than one unit (RFC 7323, 2.4).
                let slack = (1u32 << shift) - 1;
                // A FIN is acknowledged without extending the window.
                assert!(
                    !edge.add(slack).before(before),
                    "the window shrank: {before:?} then {edge:?}: {seg:?}"
                );
            }
            assert!(
                edge.since(seg.ack) <= 16 << 20,
                "[TCP-57] window of {} bytes",
                edge.since(seg.ack)
            );
            wire.edge = Some(wire.edge.map_or(edge, |e| e.max(edge)));
        }
        let end = seg.seq.add(seg.seq_len());
        if hostile {
            return;
        }
        if let (Some(edge), false) = (wire.guest_edge, syn) {
            // One byte beyond it is a probe.
            let limit = edge.add(1);
            if seg.seq_len() != 0 {
                assert!(!end.after(limit), "beyond the guest's window {edge:?}: {seg:?}");
            }
        }
        assert!(seg.payload.len() <= usize::from(wire.mss.max(536)), "longer than the MSS");
        if let Some(fin) = wire.fin {
            assert!(!end.after(fin.add(1)), "sent beyond our FIN: {seg:?}");
        }
        if seg.flags.has(TcpFlags::FIN) {
            let at = seg.seq.add(seg.len());
            assert!(wire.fin.is_none_or(|f| f == at), "the FIN moved to {at:?}");
            wire.fin = Some(at);
        }
        if let Some(sent) = wire.sent {
            assert!(!seg.seq.after(sent), "a hole in what we send: {sent:?} then {seg:?}");
        }
        wire.sent = Some(wire.sent.map_or(end, |s| s.max(end)));
    }
}

fn parse(frame: &[u8]) -> Option<(Endpoint, Endpoint, Segment<'_>)> {
    let Ok(Frame { body: Body::Ip(p), .. }) = Frame::parse(frame) else { return None };
    if p.protocol != proto::TCP {
        return None;
    }
    let seg = Segment::parse(p.transport).ok()?;
    let (src, dst) = (Endpoint::new(p.src, seg.src_port), Endpoint::new(p.dst, seg.dst_port));
    Some((src, dst, seg))
}
