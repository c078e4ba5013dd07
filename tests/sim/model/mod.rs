//! Streams in, streams out: any plan of segmentation, loss, reordering, windows, sockets, timers
//! and resets, against a model.
//!
//! The model is a guest with a TCP of its own (`guest.rs`) and the fake host's peer. What one
//! writes the other has to read, in both directions at once, each FIN once and behind its stream,
//! within bounded (virtual) time, and in the end nothing is left of the connection. After a reset
//! what was read has to be a prefix of what was written. A connection without a reset in its plan
//! may not be reset, unless the link lost as many frames as a connection is given up for.
//!
//! On every frame: nothing new beyond the guest's window, no acknowledgement of what neither the
//! socket nor the pool has; and all that `watch.rs` and `guest.rs` look for.
//!
//! `MODEL_CASES` sets the number of cases per seed (256), `MODEL_SEED` the first seed (1), and
//! `MODEL_SEEDS` the number of seeds (1). A failure names its seed and shows the least plan that
//! still fails.

mod guest;
mod plan;

use std::collections::BTreeMap;

use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use passt::translate::tcp::SocketReady;

use super::raw::{ACK, FIN, RST, SYN, Seg, decode};
use super::world::World;
use guest::{GUEST, Guest, PEER, State, byte};
use plan::{Act, Fate, Plan, plans};

/// Timeouts that end a connection, and what may be lost without that.
const GIVEN_UP: u64 = 8;

/// Time after the last act within which everything has to end, microseconds: more than all
/// timeouts of a connection that is given up.
const PATIENCE_US: u64 = 900_000_000;

/// The same without any trouble on the link or with windows.
const SMOOTH_US: u64 = 60_000_000;

/// Turns that end any honest case.
const MAX_TURNS: usize = 300_000;

const KEEPALIVE_US: u64 = 30_000_000;

/// One direction of the link.
struct Way<'p> {
    fates: std::slice::Iter<'p, Fate>,
    us: u64,
    /// By time of arrival and order of departure.
    on_its_way: BTreeMap<(u64, u64), Vec<u8>>,
    count: u64,
}

impl<'p> Way<'p> {
    fn new(fates: &'p [Fate], us: u64) -> Self {
        Self { fates: fates.iter(), us, on_its_way: BTreeMap::new(), count: 0 }
    }

    fn send(&mut self, frame: Vec<u8>, now: u64) {
        let mut put = |at: u64, frame: Vec<u8>| {
            self.count += 1;
            self.on_its_way.insert((at, self.count), frame);
        };
        let at = now + self.us;
        match self.fates.next().copied().unwrap_or(Fate::Arrives) {
            Fate::Arrives => put(at, frame),
            Fate::Lost => {}
            Fate::Twice(us) => {
                put(at, frame.clone());
                put(at + us, frame);
            }
            Fate::Late(us) => put(at + us, frame),
        }
    }

    fn next(&self) -> Option<u64> {
        self.on_its_way.first_key_value().map(|((at, _), _)| *at)
    }

    fn due(&mut self, now: u64) -> Option<Vec<u8>> {
        let ((at, _), _) = self.on_its_way.first_key_value()?;
        if *at > now { None } else { self.on_its_way.pop_first().map(|(_, f)| f) }
    }
}

struct Case<'p> {
    plan: &'p Plan,
    w: World,
    guest: Guest,
    to_guest: Way<'p>,
    from_guest: Way<'p>,
    acts: Vec<(u64, Act)>,
    next_act: usize,
    jitter: usize,
    /// When timers are looked at next, if they are late.
    late: Option<(u64, u64)>,
    keepalive_at: u64,
    peer_written: usize,
    peer_closing: bool,
    reset: bool,
    /// Window of the guest as it reached us last, end of what we sent, and our ISN.
    window_edge: Option<u32>,
    sent_to: Option<u32>,
    scale: u8,
    smooth: bool,
}

impl<'p> Case<'p> {
    fn new(plan: &'p Plan) -> Self {
        let mut w = World::with(plan.mtu, plan.pool, plan.seed);
        w.isn = plan.isn;
        w.v6 = plan.v6;
        w.net.next = plan.host.clone();
        let mut at = w.now;
        let mut acts: Vec<_> = plan
            .acts
            .iter()
            .map(|(us, act)| {
                at += us;
                (at, act.clone())
            })
            .collect();
        // In the end everybody is well, and closes.
        let well = [
            Act::LinkFull(false),
            Act::Silent(false),
            Act::PeerReads(usize::MAX),
            Act::GuestRoom(1 << 20),
            Act::GuestCloses,
            Act::PeerCloses,
        ];
        acts.extend(well.map(|a| (at + 100_000, a)));
        let quiet = |a: &Act| {
            matches!(
                a,
                Act::GuestWrites(_) | Act::PeerWrites(_) | Act::Ready(..) | Act::GuestProbes
            )
        };
        let smooth = plan.to_guest.is_empty()
            && plan.from_guest.is_empty()
            && plan.has_room()
            && plan.acts.iter().all(|(_, a)| quiet(a));
        Self {
            guest: Guest::new(plan.stack.clone(), plan.inbound),
            to_guest: Way::new(&plan.to_guest, plan.link_us),
            from_guest: Way::new(&plan.from_guest, plan.link_us),
            acts,
            next_act: 0,
            jitter: 0,
            late: None,
            keepalive_at: w.now + KEEPALIVE_US,
            peer_written: 0,
            peer_closing: false,
            reset: false,
            window_edge: None,
            sent_to: None,
            scale: 0,
            smooth,
            w,
            plan,
        }
    }

    fn run(mut self) {
        if self.plan.inbound {
            self.w.accept(4000);
        }
        self.guest.start(self.w.now);
        let begin = self.w.now;
        let last_act = self.acts.last().map_or(0, |(at, _)| *at);
        let limit = last_act + if self.smooth { SMOOTH_US } else { PATIENCE_US };
        for turn in 0.. {
            self.carry();
            if self.is_over() {
                break;
            }
            assert!(turn < MAX_TURNS, "it goes on and on: {:#?}", self.guest);
            let at =
                self.next().unwrap_or_else(|| panic!("nothing will happen: {:#?}", self.guest));
            assert!(at <= limit, "it takes too long: {:#?} {:#?}", self.guest, self.flow());
            self.w.now = self.w.now.max(at);
            self.w.net.now = self.w.now;
            // RFC 6528: a clock of 32 ns.
            self.w.isn = self.plan.isn.wrapping_add(((self.w.now - begin) * 1000 / 32) as u32);
            self.turn();
        }
        self.judge();
    }

    fn flow(&self) -> Vec<&passt::translate::tcp::Tcp> {
        self.w.table.ids().filter_map(|id| self.w.table.get(id)).collect()
    }

    /// Frames that were sent go on their way.
    fn carry(&mut self) {
        self.carry_to_guest();
        for s in std::mem::take(&mut self.guest.out) {
            let frame = s.frame(&self.w);
            self.from_guest.send(frame, self.w.now);
        }
    }

    fn carry_to_guest(&mut self) {
        for frame in self.w.take_frames() {
            self.check(&decode(&frame));
            self.to_guest.send(frame, self.w.now);
        }
    }

    fn timers_at(&mut self) -> Option<u64> {
        let ids = self.w.table.ids();
        let ms = ids.filter_map(|id| self.w.table.get(id)?.deadline().at()).min()?;
        let at = ms * 1000;
        if self.plan.jitter.is_empty() {
            return Some(at);
        }
        match self.late {
            Some((of, late)) if of == at => Some(late),
            _ => {
                self.jitter += 1;
                let late = at + self.plan.jitter[self.jitter % self.plan.jitter.len()];
                self.late = Some((at, late));
                Some(late)
            }
        }
    }

    fn next(&mut self) -> Option<u64> {
        let act = self.acts.get(self.next_act).map(|(at, _)| *at);
        let keepalive = (!self.w.table.is_empty()).then_some(self.keepalive_at);
        let host = self.w.net.next_event();
        [
            self.timers_at(),
            act,
            keepalive,
            host,
            self.guest.next(),
            self.to_guest.next(),
            self.from_guest.next(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn turn(&mut self) {
        let now = self.w.now;
        while let Some(frame) = self.to_guest.due(now) {
            self.guest.on_segment(&decode(&frame), now);
        }
        loop {
            let due = (0..self.plan.batch).map_while(|_| self.from_guest.due(now));
            let batch: Vec<_> = due.collect();
            if batch.is_empty() {
                break;
            }
            for f in &batch {
                self.arrives(&decode(f));
            }
            self.w.from_guest(&batch);
            self.carry_to_guest();
        }
        while let Some((_, act)) = self.acts.get(self.next_act).filter(|(at, _)| *at <= now) {
            let act = act.clone();
            self.next_act += 1;
            self.act(act);
        }
        self.guest.on_time(now);
        if self.keepalive_at <= now {
            self.keepalive_at = now + KEEPALIVE_US;
            self.w.keepalive_scan();
        }
        self.feed_peer();
        if self.timers_at().is_some_and(|at| at <= now) {
            self.w.turn();
        } else {
            self.w.socket_events();
        }
    }

    /// A segment of the guest reaches us.
    fn arrives(&mut self, s: &Seg) {
        self.guest.arrived(s);
        if s.flags & SYN != 0 {
            for (kind, v) in guest::options(&s.opts) {
                if kind == 3 {
                    self.scale = v[0].min(14);
                }
            }
        }
        // The window of a SYN counts once.
        let again = s.flags & SYN != 0 && self.window_edge.is_some();
        if s.flags & ACK != 0 && s.flags & RST == 0 && !again {
            let shift = if s.flags & SYN != 0 { 0 } else { self.scale };
            self.window_edge = Some(s.ack.wrapping_add(u32::from(s.win) << shift));
        }
    }

    fn act(&mut self, act: Act) {
        let now = self.w.now;
        match act {
            Act::GuestWrites(n) => {
                let most = self.plan.most_of_guest().saturating_sub(self.guest.written);
                self.guest.write(n.min(most), now);
            }
            Act::GuestCloses => self.guest.close(now),
            Act::GuestRoom(n) => self.guest.set_room(n, now),
            Act::GuestProbes => self.guest.probe(now),
            Act::GuestResets => {
                self.reset = true;
                self.guest.reset();
            }
            Act::PeerWrites(n) if !self.peer_closing => {
                self.peer_written = (self.peer_written + n).min(self.plan.most_of_peer());
            }
            Act::PeerWrites(_) => {}
            Act::PeerCloses => self.peer_closing = true,
            Act::PeerReads(n) => {
                for s in &mut self.w.net.socks {
                    // In the end its own pace will do.
                    s.how.peer_read = if n == usize::MAX { self.plan.host.peer_read } else { n };
                }
            }
            Act::PeerResets => {
                self.reset = true;
                for s in &mut self.w.net.socks {
                    if s.connected && !s.closed {
                        s.peer_rst();
                    }
                }
            }
            Act::Ready(read, write) => {
                for (id, sock) in self.w.flows.clone() {
                    let s = self.w.net.sock(sock);
                    let ready =
                        SocketReady { read, write: write && s.connected, ..SocketReady::default() };
                    if !s.closed {
                        self.w.on_socket(id, ready);
                    }
                }
            }
            Act::Silent(silent) => self.w.net.silent = silent,
            Act::LinkFull(full) => self.w.link.full = full,
            Act::LinkRefuses(n) => self.w.link.lose += n,
        }
    }

    /// The peer writes to its end of the first connection, once there is one.
    fn feed_peer(&mut self) {
        let (written, closing) = (self.peer_written, self.peer_closing);
        if let Some(s) = self.w.net.socks.first_mut()
            && s.connected
        {
            let from = s.peer_wrote;
            s.peer_out.extend((from..written).map(|n| byte(PEER, n)));
            s.peer_wrote = written;
            s.peer_fin = closing;
        }
        // A SYN that comes again after a reset makes another connection, which says nothing.
        for s in self.w.net.socks.iter_mut().skip(1) {
            s.peer_fin = closing;
        }
    }

    /// A segment for the guest.
    fn check(&mut self, s: &Seg) {
        if s.flags & RST != 0 {
            return;
        }
        if s.flags & SYN != 0 {
            self.sent_to = Some(s.seq.wrapping_add(1));
            return;
        }
        if let ([sock], false) = (&self.w.net.socks[..], self.reset) {
            let have = sock.taken() + (self.w.pool.used() * 4096) as u64;
            let acked = u64::from(s.ack.wrapping_sub(self.plan.stack.isn));
            // SYN and FIN.
            assert!(acked <= have + 2, "acknowledges {acked} of {have} bytes: {s:?}");
        }
        let Some(sent_to) = self.sent_to else { return };
        let end = s.seq.wrapping_add(s.data.len() as u32 + u32::from(s.flags & FIN != 0));
        let new = end.wrapping_sub(sent_to) as i32;
        if new <= 0 {
            return;
        }
        self.sent_to = Some(end);
        // What overtakes tells nothing of windows. One octet probes; a FIN needs no window.
        if let Some(edge) = self.window_edge.filter(|_| !self.plan.reorders()) {
            let fin = i32::from(s.flags & FIN != 0);
            let beyond = end.wrapping_sub(edge) as i32 - fin;
            assert!(beyond <= 0 || new - fin <= 1, "{beyond} beyond the guest's window: {s:?}");
        }
    }

    fn is_over(&self) -> bool {
        let told = self.next_act == self.acts.len();
        let ended = self.guest.is_done() || self.guest.state == State::Gone;
        let silent = self.to_guest.on_its_way.is_empty() && self.from_guest.on_its_way.is_empty();
        let socks = &self.w.net.socks;
        let delivered = socks.first().is_none_or(|s| s.aborted || s.peer_eof || !s.connected);
        told && silent && delivered && self.w.table.is_empty() && (ended || self.may_break())
    }

    /// The end need not be a clean one.
    fn may_break(&self) -> bool {
        self.reset || self.plan.refused() || self.plan.losses() >= GIVEN_UP
    }

    fn judge(&self) {
        self.w.assert_clean();
        let guest = &self.guest;
        let peer_got = self.w.net.socks.first().map_or(&[][..], |s| &s.peer_got);
        assert!(peer_got.len() <= guest.written && guest.got.len() <= self.peer_written);
        for (n, b) in peer_got.iter().enumerate() {
            assert_eq!(*b, byte(GUEST, n), "byte {n} of the guest's stream");
        }
        // What the guest got it has looked at.
        if self.may_break() {
            return;
        }
        assert!(!guest.was_reset, "the guest was reset");
        assert_eq!(peer_got.len(), guest.written, "what the peer got");
        assert_eq!(guest.got.len(), self.peer_written, "what the guest got");
        assert!(guest.fin_got && self.w.net.socks[0].peer_eof);
        assert!(!self.w.net.socks[0].aborted, "the peer was reset");
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

// [TCP-36] [TCP-37] [TCP-59] [TCP-60] [TCP-74] [TCP-76] [TCP-78] [TCP-81] [TCP-101]
#[test]
fn streams_arrive_whole() {
    let first = number("MODEL_SEED").unwrap_or(1);
    let config = Config {
        cases: number("MODEL_CASES").unwrap_or(256) as u32,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    for seed in first..first + number("MODEL_SEEDS").unwrap_or(1) {
        println!("seed {seed}");
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(config.clone(), rng);
        let result = runner.run(&plans(), |plan| {
            Case::new(&plan).run();
            Ok(())
        });
        if let Err(e) = result {
            panic!("MODEL_SEED={seed}: {e}");
        }
    }
}
