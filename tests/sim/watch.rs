//! Watches both directions of the wire and checks what must hold for every connection, whatever
//! the test is about.

use std::collections::{HashMap, HashSet};

use passt::wire::{
    Body, Endpoint, Frame, SackBlock, SackBlocks, Segment, Seq, SynOptions, TcpFlags, Timestamps,
    proto,
};

#[derive(Debug, Default)]
struct Wire {
    our_scale: Option<u8>,
    guest_scale: Option<u8>,
    /// What the guest's SYN offered, and whether ours did.
    guest_offer: SynOptions,
    our_offer: SynOptions,
    /// Our last timestamp, and every one the guest sent.
    stamp: Option<u32>,
    guest_stamps: HashSet<u32>,
    /// What the guest sent, as it came.
    guest_sent: Vec<SackBlock>,
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
    /// What the guest reported to have beyond its acknowledgement, and when it last said
    /// something new.
    sacked: Vec<(Seq, Seq)>,
    /// The same, with what we may have forgotten since: to hear it again is not new.
    told: Vec<(Seq, Seq)>,
    /// The guest's latest timestamp.
    latest: Option<Seq>,
    heard: u64,
    /// Its window is closed.
    closed: bool,
}

impl Wire {
    /// What the guest tells of its queue.
    fn note_blocks(&mut self, seg: &Segment<'_>, now: u64) {
        let una = self.guest_acked.map_or(seg.ack, |a| a.max(seg.ack));
        if seg.window == 0 || self.closed || self.sacked.iter().any(|s| s.0 == una) {
            // It has no memory, or takes back what it said.
            self.sacked.clear();
        }
        if seg.ack == una {
            self.closed = seg.window == 0;
        }
        self.sacked.retain(|s| s.1.after(una));
        self.told.retain(|s| s.1.after(una));
        if self.guest_acked != Some(una) {
            self.heard = now;
        }
        // One that looks too old is not looked at (RFC 7323, 5).
        let stamp = Timestamps::find(seg.options).map(|t| Seq(t.value));
        let outdated = stamp.zip(self.latest).is_some_and(|(stamp, latest)| stamp.before(latest));
        if !outdated {
            self.latest = stamp;
        }
        let blocks = if outdated { SackBlocks::default() } else { SackBlocks::find(seg.options) };
        for b in blocks.as_slice() {
            let inside = |s: &(Seq, Seq)| !b.left.before(s.0) && !b.right.after(s.1);
            if b.left.after(una) && b.right.after(b.left) && !self.told.iter().any(inside) {
                self.sacked.push((b.left, b.right));
                self.told.push((b.left, b.right));
                self.heard = now;
            }
        }
    }

    /// What was agreed upon, and only that.
    fn check_options(&mut self, seg: &Segment<'_>, syn: bool, hostile: bool) {
        let stamps = Timestamps::find(seg.options);
        if let Some(stamps) = stamps {
            if let Some(last) = self.stamp {
                assert!(!Seq(stamps.value).before(Seq(last)), "our clock went back: {seg:?}");
            }
            self.stamp = Some(stamps.value);
            let known = self.guest_stamps.contains(&stamps.echo);
            assert!(known || stamps.echo == 0 || hostile, "echo of what was never sent: {seg:?}");
        }
        if syn || hostile {
            return;
        }
        let both = self.our_offer.timestamps.is_some() && self.guest_offer.timestamps.is_some();
        assert_eq!(stamps.is_some(), both, "timestamps: {seg:?}");
        let found = SackBlocks::find(seg.options);
        let blocks = found.as_slice();
        let mut len = if both { usize::from(Timestamps::LEN) } else { 0 };
        if !blocks.is_empty() {
            len += 4 + 8 * blocks.len();
            assert!(seg.is_empty(), "blocks beside data: {seg:?}");
            self.check_blocks(blocks, seg);
        }
        assert_eq!(seg.options.len(), len, "other options: {seg:?}");
    }

    /// [W-1] RFC 2018, 3 and 4; RFC 2883, 4.
    fn check_blocks(&self, blocks: &[SackBlock], seg: &Segment<'_>) {
        let agreed = self.our_offer.sack_permitted && self.guest_offer.sack_permitted;
        assert!(agreed, "SACK was not agreed upon: {seg:?} {blocks:?}");
        for b in blocks {
            assert!(b.left.before(b.right), "empty: {blocks:?}");
            assert!(self.was_sent(*b), "the guest never sent this: {b:?} in {seg:?}");
        }
        let within =
            |a: &SackBlock, b: &SackBlock| !a.left.before(b.left) && !a.right.after(b.right);
        let twice = !blocks[0].right.after(seg.ack)
            || blocks.get(1).is_some_and(|second| within(&blocks[0], second));
        let ahead = &blocks[usize::from(twice)..];
        for (n, b) in ahead.iter().enumerate() {
            assert!(b.left.after(seg.ack), "not ahead of a hole: {b:?} in {seg:?}");
            // A FIN needs no window.
            let edge = self.edge.unwrap().add(1);
            assert!(!b.right.after(edge), "beyond the window {edge:?}: {b:?} in {seg:?}");
            for other in &ahead[..n] {
                let apart = b.right.before(other.left) || b.left.after(other.right);
                assert!(apart, "blocks touch: {blocks:?}");
            }
        }
    }

    /// True if the guest's segments cover the block.
    fn was_sent(&self, block: SackBlock) -> bool {
        let mut at = block.left;
        while at.before(block.right) {
            let covers = |s: &&SackBlock| !s.left.after(at) && s.right.after(at);
            match self.guest_sent.iter().find(covers) {
                Some(s) => at = s.right,
                None => return false,
            }
        }
        true
    }

    fn guest_sends(&mut self, seg: &Segment<'_>) {
        let new = SackBlock { left: seg.seq, right: seg.seq.add(seg.seq_len()) };
        match self.guest_sent.last_mut() {
            Some(last) if last.right == new.left => last.right = new.right,
            _ => self.guest_sent.push(new),
        }
    }
}

/// A guest that said nothing new for so long may see a timeout of ours, microseconds.
const LEAST_RTO_US: u64 = 200_000;

/// Every connection ever seen, by the guest's and our endpoint.
#[derive(Debug, Default)]
pub struct Watch {
    wires: HashMap<(Endpoint, Endpoint), Wire>,
}

impl Watch {
    /// A frame the guest sent, as we receive it.
    pub fn from_guest(&mut self, frame: &[u8], now: u64) {
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
            wire.guest_offer = options;
            wire.guest_scale = Some(options.wscale.unwrap_or(0).min(14));
            if options.wscale.is_none() {
                wire.our_scale = Some(0);
            }
            wire.mss = options.mss.unwrap_or(536).max(48);
        }
        wire.guest_sends(&seg);
        wire.guest_stamps.extend(Timestamps::find(seg.options).map(|t| t.value));
        if seg.flags.has(TcpFlags::ACK) {
            let shift =
                if seg.flags.has(TcpFlags::SYN) { 0 } else { wire.guest_scale.unwrap_or(0) };
            let edge = seg.ack.add(u32::from(seg.window) << shift);
            wire.guest_edge = Some(wire.guest_edge.map_or(edge, |e| e.max(edge)));
            wire.note_blocks(&seg, now);
            wire.guest_acked = Some(wire.guest_acked.map_or(seg.ack, |a| a.max(seg.ack)));
        }
    }

    /// The connection is over.
    pub fn forget(&mut self, guest: Endpoint, ours: Endpoint) {
        self.wires.remove(&(guest, ours));
    }

    /// A frame we sent, before the link delays or loses it.
    pub fn to_guest(&mut self, frame: &[u8], hostile: bool, now: u64) {
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
                    guest_offer: wire.guest_offer,
                    guest_stamps: std::mem::take(&mut wire.guest_stamps),
                    guest_sent: std::mem::take(&mut wire.guest_sent),
                    our_scale: wire.our_scale.filter(|s| *s == 0),
                    mss: wire.mss,
                    ..Wire::default()
                };
            }
            if wire.our_scale != Some(0) {
                wire.our_scale = SynOptions::parse(seg.options).wscale;
            }
            wire.isn = Some(seg.seq);
            wire.our_offer = SynOptions::parse(seg.options);
            if seg.flags.has(TcpFlags::ACK) && !hostile {
                let (ours, guests) = (wire.our_offer, wire.guest_offer);
                assert_eq!(ours.sack_permitted, guests.sack_permitted);
                assert_eq!(ours.timestamps.is_some(), guests.timestamps.is_some());
                assert_eq!(ours.wscale.is_some(), guests.wscale.is_some(), "[TCP-28]");
            }
        } else {
            assert!(seg.flags.has(TcpFlags::ACK), "[TCP-45] no ACK flag: {seg:?}");
        }
        wire.check_options(&seg, syn, hostile);
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
        let whole = seg.payload.len() + if syn { 0 } else { seg.options.len() };
        assert!(whole <= usize::from(wire.mss.max(536)), "longer than the MSS");
        if now - wire.heard >= LEAST_RTO_US {
            // After a timeout nothing that the guest reported counts (RFC 2018, 8).
            wire.sacked.clear();
        }
        let has = |s: &&(Seq, Seq)| seg.seq.before(s.1) && end.after(s.0);
        let sacked = wire.sacked.iter().find(has);
        assert!(
            seg.is_empty() || sacked.is_none(),
            "the guest has {sacked:?}: {:?}",
            (seg.seq, end)
        );
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
