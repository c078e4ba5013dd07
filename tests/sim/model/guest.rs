//! A minimal, correct TCP: the least that RFC 9293 asks of the other end, with its own
//! retransmission, and every choice that the plan gives it.
//!
//! Numbers inside are offsets from the initial sequence numbers: 0 is SYN, the stream begins at 1.
//! What it is sent is checked against what it knows: content, order, acknowledgements of what it
//! never sent, selective acknowledgements of what never arrived, timestamps.

use std::collections::BTreeMap;

use super::super::raw::{ACK, FIN, PSH, RST, SYN, Seg, seg};
use super::plan::Stack;

/// First timeout, and the longest, microseconds.
const RTO_US: (u64, u64) = (250_000, 4_000_000);

/// Segments sent in one go.
const BURST: usize = 50;

/// Byte `at` of the stream of one side.
pub fn byte(side: u8, at: usize) -> u8 {
    (at * 31 + (at >> 8) * 7 + usize::from(side) * 101) as u8
}

pub const GUEST: u8 = 0;
pub const PEER: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Listen,
    SynSent,
    SynReceived,
    Open,
    /// Remembers nothing.
    Gone,
}

/// Which bytes arrived, and how many of them without a hole.
#[derive(Default)]
struct Reached {
    bytes: Vec<bool>,
    prefix: usize,
}

impl Reached {
    fn mark(&mut self, at: i64) {
        if let Some(b) = usize::try_from(at).ok().and_then(|at| self.bytes.get_mut(at)) {
            *b = true;
        }
        while self.bytes.get(self.prefix) == Some(&true) {
            self.prefix += 1;
        }
    }
}

impl std::fmt::Debug for Reached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.prefix, self.bytes.len())
    }
}

#[derive(Debug)]
pub struct Guest {
    stack: Stack,
    ports: (u16, u16),
    pub state: State,
    /// The connection was reset or refused by us.
    pub was_reset: bool,

    irs: u32,
    una: i64,
    nxt: i64,
    max: i64,
    /// Right edge of our window.
    edge: i64,
    pub written: usize,
    pub closing: bool,
    /// What of its stream reached us at least once.
    reached: Reached,
    cut: usize,
    dups: u8,
    last_win: u16,
    backoff: u32,
    rto_at: Option<u64>,

    pub got: Vec<u8>,
    ahead: BTreeMap<i64, Vec<u8>>,
    rnxt: i64,
    fin_at: Option<i64>,
    pub fin_got: bool,
    room: u32,
    unacked: u8,
    ack_at: Option<u64>,

    scale: Option<u8>,
    our_scale: u8,
    sack: bool,
    timestamps: bool,
    ts_recent: u32,

    pub out: Vec<Seg>,
}

impl Guest {
    pub fn new(stack: Stack, inbound: bool) -> Self {
        Self {
            ports: if inbound { (80, 4000) } else { (4000, 80) },
            state: if inbound { State::Listen } else { State::SynSent },
            was_reset: false,
            irs: 0,
            una: 0,
            nxt: 1,
            max: 1,
            edge: 0,
            written: 0,
            closing: false,
            reached: Reached::default(),
            cut: 0,
            dups: 0,
            last_win: 0,
            backoff: 0,
            rto_at: None,
            got: vec![],
            ahead: BTreeMap::new(),
            rnxt: 0,
            fin_at: None,
            fin_got: false,
            room: 65_535,
            unacked: 0,
            ack_at: None,
            scale: None,
            our_scale: 0,
            sack: false,
            timestamps: false,
            ts_recent: 0,
            out: vec![],
            stack,
        }
    }

    /// Opens the connection if it is the client.
    pub fn start(&mut self, now: u64) {
        if self.state == State::SynSent {
            self.send_syn(now);
        }
    }

    /// All that it wanted to send is acknowledged, and the peer's end has come.
    pub fn is_done(&self) -> bool {
        self.fin_got && self.fin_acked()
    }

    fn fin_acked(&self) -> bool {
        self.closing && self.una == self.end()
    }

    /// Behind the FIN.
    fn end(&self) -> i64 {
        1 + self.written as i64 + i64::from(self.closing)
    }

    pub fn write(&mut self, n: usize, now: u64) {
        if !self.closing {
            self.written += n;
            self.reached.bytes.resize(self.written, false);
            self.pump(now);
        }
    }

    pub fn close(&mut self, now: u64) {
        self.closing = true;
        self.pump(now);
    }

    pub fn set_room(&mut self, room: u32, now: u64) {
        let more = room > self.room;
        self.room = room;
        if self.state == State::Open && more {
            self.send_ack(now);
        }
    }

    pub fn reset(&mut self) {
        if matches!(self.state, State::Open | State::SynReceived) {
            let s = self.segment(RST | ACK, self.max, &[], 0);
            self.out.push(s);
        }
        self.state = State::Gone;
        self.rto_at = None;
        self.ack_at = None;
    }

    /// A segment with an old number, as keepalives have it.
    pub fn probe(&mut self, now: u64) {
        if self.state == State::Open {
            let s = self.segment(ACK, self.una - 1, &[], now);
            self.out.push(s);
        }
    }

    /// A segment of its has arrived at our end of the link.
    pub fn arrived(&mut self, s: &Seg) {
        let at = self.sent_offset(s.seq) - 1;
        for i in 0..s.data.len() as i64 {
            self.reached.mark(at + i);
        }
    }

    pub fn next(&self) -> Option<u64> {
        [self.rto_at, self.ack_at].into_iter().flatten().min()
    }

    pub fn on_time(&mut self, now: u64) {
        if self.ack_at.is_some_and(|at| at <= now) {
            self.send_ack(now);
        }
        if self.rto_at.is_none_or(|at| at > now) {
            return;
        }
        self.rto_at = None;
        self.backoff += 1;
        match self.state {
            State::SynSent => self.send_syn(now),
            State::SynReceived => self.send_synack(now),
            State::Open => {
                self.nxt = self.una;
                if self.nxt < self.end() && self.nxt >= self.edge {
                    // A probe of a closed window.
                    self.send_one(1, now);
                }
                self.pump(now);
            }
            State::Listen | State::Gone => {}
        }
    }

    /// A segment of ours.
    pub fn on_segment(&mut self, s: &Seg, now: u64) {
        match self.state {
            State::Gone => self.refuse(s),
            State::Listen => {
                if s.flags & (SYN | ACK | RST) == SYN {
                    self.irs = s.seq;
                    self.rnxt = 1;
                    self.negotiate(s);
                    self.state = State::SynReceived;
                    self.send_synack(now);
                } else {
                    self.refuse(s);
                }
            }
            State::SynSent => self.on_synack(s, now),
            State::SynReceived if s.flags & SYN != 0 => self.send_synack(now),
            State::SynReceived => {
                if s.flags & RST != 0 {
                    self.on_reset(s, now);
                } else if s.flags & ACK != 0 && self.sent_offset(s.ack) == 1 {
                    self.open(s);
                    self.on_open(s, now);
                }
            }
            State::Open => self.on_open(s, now),
        }
    }

    fn on_synack(&mut self, s: &Seg, now: u64) {
        let acked = s.flags & ACK != 0 && self.sent_offset(s.ack) == 1;
        if s.flags & RST != 0 {
            // RFC 9293, 3.10.7.3: without a proper ACK it is not believed.
            if acked {
                self.was_reset = true;
                self.state = State::Gone;
                self.rto_at = None;
            }
            return;
        }
        assert!(s.flags & (SYN | ACK) == SYN | ACK && acked, "not the answer to a SYN: {s:?}");
        self.irs = s.seq;
        self.rnxt = 1;
        self.negotiate(s);
        self.open(s);
        self.edge = 1 + i64::from(s.win);
        let waiting = self.out.len();
        self.pump(now);
        if !self.stack.eager || self.out.len() == waiting {
            self.send_ack(now);
        }
    }

    fn open(&mut self, s: &Seg) {
        self.state = State::Open;
        self.una = 1;
        self.nxt = self.nxt.max(1);
        self.backoff = 0;
        self.rto_at = None;
        self.last_win = s.win;
    }

    fn negotiate(&mut self, s: &Seg) {
        for (kind, value) in options(&s.opts) {
            match (kind, value) {
                (2, v) => assert!(v.len() == 2 && u16::from_be_bytes([v[0], v[1]]) >= 28, "{s:?}"),
                (3, v) => {
                    assert!(v.len() == 1 && v[0] <= 14, "scale {v:?}");
                    assert!(
                        s.flags & ACK == 0 || self.stack.scale.is_some(),
                        "[TCP-28] scale not offered"
                    );
                    self.our_scale = v[0];
                    self.scale = self.stack.scale;
                }
                (4, _) => self.sack = self.stack.sack,
                (8, v) => {
                    self.timestamps = self.stack.timestamps;
                    self.ts_recent = u32::from_be_bytes(v[..4].try_into().unwrap());
                }
                (kind, _) => panic!("option {kind} in {s:?}"),
            }
        }
        if s.flags & ACK == 0 && self.scale.is_none() {
            self.our_scale = 0;
        }
    }

    fn on_open(&mut self, s: &Seg, now: u64) {
        if s.flags & SYN != 0 {
            return self.send_ack(now);
        }
        if s.flags & RST != 0 {
            return self.on_reset(s, now);
        }
        assert!(s.flags & ACK != 0, "[TCP-45] {s:?}");
        if !self.check_options(s, now) {
            return;
        }
        self.on_ack(s, now);
        self.on_payload(s, now);
        self.pump(now);
    }

    fn on_reset(&mut self, s: &Seg, now: u64) {
        let at = self.received_offset(s.seq);
        if at == self.rnxt {
            // One that answers the repetition of our last words is no harm.
            self.was_reset |= !(self.fin_got && self.closing && self.max == self.end());
            self.state = State::Gone;
            self.rto_at = None;
            self.ack_at = None;
        } else if at > self.rnxt && at <= self.rnxt + i64::from(self.room) {
            self.send_ack(now);
        }
    }

    fn check_options(&mut self, s: &Seg, now: u64) -> bool {
        let mut stamped = false;
        for (kind, v) in options(&s.opts) {
            match kind {
                5 if self.sack => {
                    for block in v.chunks(8) {
                        let (l, r) = block.split_at(4);
                        let l = self.sent_offset(u32::from_be_bytes(l.try_into().unwrap()));
                        let r = self.sent_offset(u32::from_be_bytes(r.try_into().unwrap()));
                        assert!(l < r && l > 0 && r <= self.max, "block {l} to {r}: {s:?}");
                        let end = (r as usize - 1).min(self.written);
                        let arrived = &self.reached.bytes[l as usize - 1..end];
                        assert!(arrived.iter().all(|b| *b), "block of what never arrived: {s:?}");
                    }
                }
                8 if self.timestamps => {
                    stamped = true;
                    let val = u32::from_be_bytes(v[..4].try_into().unwrap());
                    let echo = u32::from_be_bytes(v[4..].try_into().unwrap());
                    assert!(echo <= ms(now), "echo of the future: {s:?}");
                    let old = (val.wrapping_sub(self.ts_recent) as i32) < 0;
                    if old {
                        // RFC 7323, 5.3.
                        self.send_ack(now);
                        return false;
                    }
                    if self.received_offset(s.seq) <= self.rnxt {
                        self.ts_recent = val;
                    }
                }
                _ => panic!("option {kind}, which was not negotiated, in {s:?}"),
            }
        }
        assert_eq!(stamped, self.timestamps, "RFC 7323, 3.2: {s:?}");
        true
    }

    fn on_ack(&mut self, s: &Seg, now: u64) {
        let ack = self.sent_offset(s.ack);
        assert!(ack <= self.max, "acknowledges what was never sent: {ack} of {}: {s:?}", self.max);
        let data = (ack - 1).min(self.written as i64);
        assert!(data <= self.reached.prefix as i64, "acknowledges what never arrived: {s:?}");
        if ack < self.una {
            return;
        }
        self.edge = self.edge.max(ack + (i64::from(s.win) << self.our_scale));
        if ack > self.una {
            self.una = ack;
            self.nxt = self.nxt.max(ack);
            self.dups = 0;
            self.backoff = 0;
            self.rto_at = None;
        } else if s.data.is_empty()
            && s.flags & FIN == 0
            && self.una < self.nxt
            && s.win == self.last_win
        {
            self.dups = self.dups.saturating_add(1);
            if self.dups == 3 {
                let nxt = std::mem::replace(&mut self.nxt, self.una);
                let most = self.stack.cuts[self.cut % self.stack.cuts.len()];
                self.send_one(most, now);
                self.nxt = self.nxt.max(nxt);
            }
        }
        self.last_win = s.win;
    }

    fn on_payload(&mut self, s: &Seg, now: u64) {
        let at = self.received_offset(s.seq);
        let fin = s.flags & FIN != 0;
        let end = at + s.data.len() as i64;
        for (i, b) in s.data.iter().enumerate() {
            let n = usize::try_from(at + i as i64 - 1).expect("data before the stream");
            assert_eq!(*b, byte(PEER, n), "byte {n} of the peer's stream");
        }
        if fin {
            assert!(self.fin_at.is_none_or(|f| f == end), "the FIN moved");
            self.fin_at = Some(end);
        }
        if let Some(f) = self.fin_at {
            assert!(s.data.is_empty() || end <= f, "data behind the FIN");
        }
        if s.data.is_empty() && !fin {
            if at < self.rnxt {
                self.send_ack(now);
            }
            return;
        }
        let in_order = at <= self.rnxt;
        // What is beyond the window now is dropped, whatever was offered before.
        let window = self.rnxt + i64::from(self.room);
        let fits = s.data.get(..(window - at).clamp(0, s.data.len() as i64) as usize).unwrap();
        if in_order {
            self.take(at, fits);
            while let Some((at, data)) = self.ahead.pop_first() {
                if at > self.rnxt {
                    self.ahead.insert(at, data);
                    break;
                }
                self.take(at, &data);
            }
        } else if self.stack.keeps && !fits.is_empty() {
            self.ahead.insert(at, fits.to_vec());
        }
        if self.fin_at == Some(self.rnxt) && !self.fin_got {
            self.fin_got = true;
            self.rnxt += 1;
        }
        self.unacked += 1;
        if self.stack.lazy && in_order && self.unacked < 2 && self.ahead.is_empty() && !fin {
            self.ack_at.get_or_insert(now + 40_000);
        } else {
            self.send_ack(now);
        }
    }

    /// Appends what is new of data that begins no later than expected.
    fn take(&mut self, at: i64, data: &[u8]) {
        let new = data.get((self.rnxt - at) as usize..).unwrap_or_default();
        if !self.fin_got {
            self.got.extend(new);
            self.rnxt += new.len() as i64;
        }
    }

    /// Sends what may be sent.
    fn pump(&mut self, now: u64) {
        if self.state != State::Open {
            return;
        }
        for _ in 0..BURST {
            // A FIN needs no window.
            let last = self.closing && self.nxt == self.end() - 1;
            if self.nxt >= self.end() || (self.nxt >= self.edge && !last) {
                break;
            }
            self.cut += 1;
            let most = self.stack.cuts[self.cut % self.stack.cuts.len()];
            let most = most.min((self.edge - self.nxt).max(0) as usize);
            self.send_one(most, now);
        }
        if self.rto_at.is_none() && self.una < self.end() {
            let (first, longest) = RTO_US;
            self.rto_at = Some(now + (first << self.backoff.min(10)).min(longest));
        }
    }

    /// One segment of data at `nxt`, with FIN if nothing follows.
    fn send_one(&mut self, most: usize, now: u64) {
        let from = (self.nxt - 1) as usize;
        let to = self.written.min(from + most);
        let data: Vec<u8> = (from..to).map(|n| byte(GUEST, n)).collect();
        let mut flags = ACK;
        if to == self.written {
            flags |= PSH;
            if self.closing {
                flags |= FIN;
            }
        }
        let s = self.segment(flags, self.nxt, &data, now);
        self.nxt += data.len() as i64 + i64::from(flags & FIN != 0);
        self.max = self.max.max(self.nxt);
        self.out.push(s);
        self.acked();
    }

    fn send_ack(&mut self, now: u64) {
        let s = self.segment(ACK, self.max, &[], now);
        self.out.push(s);
        self.acked();
    }

    fn acked(&mut self) {
        self.unacked = 0;
        self.ack_at = None;
    }

    fn send_syn(&mut self, now: u64) {
        let mut s = self.segment(SYN, 0, &[], now);
        s.ack = 0;
        s.opts = self.syn_options(now, self.stack.scale, self.stack.sack, self.stack.timestamps);
        self.out.push(s);
        self.arm(now);
    }

    fn send_synack(&mut self, now: u64) {
        let mut s = self.segment(SYN | ACK, 0, &[], now);
        s.opts = self.syn_options(now, self.scale, self.sack, self.timestamps);
        self.out.push(s);
        self.arm(now);
    }

    fn arm(&mut self, now: u64) {
        let (first, longest) = RTO_US;
        self.rto_at = Some(now + (first << self.backoff.min(10)).min(longest));
    }

    fn syn_options(&self, now: u64, scale: Option<u8>, sack: bool, stamps: bool) -> Vec<u8> {
        let mut o = vec![];
        if let Some(mss) = self.stack.mss {
            o.extend([2, 4]);
            o.extend(mss.to_be_bytes());
        }
        if let Some(scale) = scale {
            o.extend([1, 3, 3, scale]);
        }
        if sack {
            o.extend([1, 1, 4, 2]);
        }
        if stamps {
            o.extend(self.stamp(now));
        }
        o
    }

    fn stamp(&self, now: u64) -> Vec<u8> {
        let mut o = vec![1, 1, 8, 10];
        o.extend(ms(now).to_be_bytes());
        o.extend(self.ts_recent.to_be_bytes());
        o
    }

    fn segment(&self, flags: u8, at: i64, data: &[u8], now: u64) -> Seg {
        let number = self.stack.isn.wrapping_add(at as u32);
        let shift = if flags & SYN != 0 { 0 } else { self.scale.unwrap_or(0).min(14) };
        let win = (self.room >> shift).min(65_535) as u16;
        let mut s = seg(flags, number, self.irs.wrapping_add(self.rnxt as u32)).win(win).data(data);
        s = s.ports(self.ports.0, self.ports.1);
        if flags & (SYN | RST) == 0 {
            if self.timestamps {
                s.opts = self.stamp(now);
            }
            let blocks: Vec<_> = if self.sack { self.blocks() } else { vec![] };
            if !blocks.is_empty() && data.is_empty() {
                s.opts.extend([1, 1, 5, 2 + 8 * blocks.len() as u8]);
                for (l, r) in blocks {
                    s.opts.extend(self.irs.wrapping_add(l as u32).to_be_bytes());
                    s.opts.extend(self.irs.wrapping_add(r as u32).to_be_bytes());
                }
            }
        }
        s
    }

    /// What it has ahead of a hole, at most three runs.
    fn blocks(&self) -> Vec<(i64, i64)> {
        let mut runs: Vec<(i64, i64)> = vec![];
        for (at, data) in &self.ahead {
            let end = at + data.len() as i64;
            match runs.last_mut() {
                Some(last) if last.1 >= *at => last.1 = last.1.max(end),
                _ => runs.push((*at, end)),
            }
        }
        runs.truncate(3);
        runs
    }

    /// RFC 9293, 3.10.7.1.
    fn refuse(&mut self, s: &Seg) {
        if s.flags & RST != 0 {
            return;
        }
        let len =
            s.data.len() as u32 + u32::from(s.flags & SYN != 0) + u32::from(s.flags & FIN != 0);
        let answer = if s.flags & ACK != 0 {
            seg(RST, s.ack, 0)
        } else {
            seg(RST | ACK, 0, s.seq.wrapping_add(len))
        };
        self.out.push(answer.win(0).ports(self.ports.0, self.ports.1));
    }

    fn sent_offset(&self, number: u32) -> i64 {
        i64::from(number.wrapping_sub(self.stack.isn) as i32)
    }

    fn received_offset(&self, number: u32) -> i64 {
        i64::from(number.wrapping_sub(self.irs) as i32)
    }
}

fn ms(now: u64) -> u32 {
    (now / 1000) as u32
}

/// Kinds and values.
pub fn options(mut o: &[u8]) -> Vec<(u8, &[u8])> {
    let mut found = vec![];
    while let [kind, rest @ ..] = o {
        match kind {
            0 => break,
            1 => o = rest,
            _ => {
                let len = usize::from(rest[0]);
                found.push((*kind, &o[2..len]));
                o = &o[len..];
            }
        }
    }
    found
}
