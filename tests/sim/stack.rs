//! A guest with a complete TCP/IP stack of its own: smoltcp, behind a link that loses, repeats,
//! delays and reorders frames.

use std::collections::VecDeque;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr, Ipv4Address, Ipv6Address};

use passt::wire::Addr;

use super::net::{Behaviour, Outcome};
use super::rng::Rng;
use super::world::{GUEST_MAC, World};

/// What the link does to frames.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Percent of frames lost, repeated, and delayed.
    pub lose: u64,
    pub repeat: u64,
    pub delay: u64,
    /// Longest extra delay, microseconds.
    pub delay_us: u64,
}

pub const CALM: Weather = Weather { lose: 0, repeat: 0, delay: 0, delay_us: 0 };

struct Wire {
    mtu: usize,
    rx: VecDeque<Vec<u8>>,
    tx: Vec<Vec<u8>>,
}

struct Rx(Vec<u8>);
struct Tx<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let r = f(&mut frame);
        self.0.push(frame);
        r
    }
}

impl Device for Wire {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Rx, Tx<'_>)> {
        Some((Rx(self.rx.pop_front()?), Tx(&mut self.tx)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Tx<'_>> {
        Some(Tx(&mut self.tx))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut caps = DeviceCapabilities::default();
        caps.medium = Medium::Ethernet;
        caps.max_transmission_unit = self.mtu + 14;
        caps
    }
}

/// The guest and the frames in flight on either direction of its link.
pub struct Guest {
    wire: Wire,
    iface: Interface,
    pub sockets: SocketSet<'static>,
    to_guest: Vec<(u64, u64, Vec<u8>)>,
    to_us: Vec<(u64, u64, Vec<u8>)>,
    weather: Weather,
    rng: Rng,
    serial: u64,
}

fn ip(a: Addr) -> IpAddress {
    match a.to_ip() {
        std::net::IpAddr::V4(a) => IpAddress::Ipv4(a),
        std::net::IpAddr::V6(a) => IpAddress::Ipv6(a),
    }
}

impl Guest {
    pub fn new(w: &World, mtu: usize, weather: Weather, rng: Rng) -> Self {
        let mut wire = Wire { mtu, rx: VecDeque::new(), tx: vec![] };
        let mut config = Config::new(EthernetAddress(GUEST_MAC.0).into());
        config.random_seed = rng.clone().next();
        let mut iface = Interface::new(config, &mut wire, at(w.now));
        iface.update_ip_addrs(|addrs| {
            addrs.push(IpCidr::new(ip(w.guest()), if w.v6 { 64 } else { 24 })).unwrap();
            if w.v6 {
                let ll = Ipv6Address::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
                addrs.push(IpCidr::new(ll.into(), 64)).unwrap();
            }
        });
        iface.routes_mut().add_default_ipv4_route(Ipv4Address::new(192, 0, 2, 1)).unwrap();
        let gateway = Ipv6Address::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
        iface.routes_mut().add_default_ipv6_route(gateway).unwrap();
        Self {
            wire,
            iface,
            sockets: SocketSet::new(vec![]),
            to_guest: vec![],
            to_us: vec![],
            weather,
            rng,
            serial: 0,
        }
    }

    pub fn socket(&mut self, rx: usize, tx: usize) -> SocketHandle {
        let rx = tcp::SocketBuffer::new(vec![0; rx]);
        let tx = tcp::SocketBuffer::new(vec![0; tx]);
        let mut socket = tcp::Socket::new(rx, tx);
        socket.set_ack_delay(self.rng.pick(&[None, Some(Duration::from_millis(10))]));
        socket.set_tsval_generator(self.rng.pick(&[None, Some(clock as fn() -> u32)]));
        socket.set_nagle_enabled(self.rng.chance(50));
        self.sockets.add(socket)
    }

    pub fn connect(&mut self, w: &World, h: SocketHandle, port: u16) {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(h);
        socket.connect(self.iface.context(), (ip(w.peer()), 80), port).unwrap();
    }

    pub fn tcp(&mut self, h: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(h)
    }

    /// Moves frames and lets the stack work; true if anything happened.
    pub fn turn(&mut self, w: &mut World) -> bool {
        // It wraps in the course of a run.
        CLOCK.set(((w.now / 1000) as u32).wrapping_sub(2000));
        let mut busy = false;
        for frame in w.take_frames() {
            busy = true;
            post(&mut self.to_guest, w.now, frame, self.weather, &mut self.rng, &mut self.serial);
        }
        for frame in due(&mut self.to_guest, w.now) {
            busy = true;
            self.wire.rx.push_back(frame);
        }
        self.iface.poll(at(w.now), &mut self.wire, &mut self.sockets);
        for frame in std::mem::take(&mut self.wire.tx) {
            busy = true;
            post(&mut self.to_us, w.now, frame, self.weather, &mut self.rng, &mut self.serial);
        }
        let mut batch = due(&mut self.to_us, w.now);
        while !batch.is_empty() {
            busy = true;
            let n = 1 + self.rng.below(batch.len() as u64) as usize;
            let rest = batch.split_off(n);
            w.from_guest(&batch);
            batch = rest;
        }
        busy
    }

    pub fn next_event(&mut self, now: u64) -> Option<u64> {
        let poll = self.iface.poll_at(at(now), &self.sockets);
        let poll = poll.map(|t| (t.total_micros() as u64).max(now + 1));
        let wire = self.to_guest.iter().chain(&self.to_us).map(|(t, ..)| *t);
        wire.chain(poll).min()
    }
}

thread_local! {
    /// The guest's clock, milliseconds.
    static CLOCK: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

fn clock() -> u32 {
    CLOCK.get()
}

fn at(now: u64) -> Instant {
    Instant::from_micros(now as i64)
}

fn post(
    queue: &mut Vec<(u64, u64, Vec<u8>)>,
    now: u64,
    frame: Vec<u8>,
    weather: Weather,
    rng: &mut Rng,
    serial: &mut u64,
) {
    // Neighbour discovery has its own repetition, which would only make tests slow.
    let tcp = frame[12..14] == [8, 0] && frame[23] == 6
        || frame[12..14] == [0x86, 0xdd] && frame[20] == 6;
    let copies = match () {
        () if !tcp => 1,
        () if rng.chance(weather.lose) => 0,
        () if rng.chance(weather.repeat) => 2,
        () => 1,
    };
    for _ in 0..copies {
        let late = tcp && rng.chance(weather.delay);
        let at = now + if late { rng.below(weather.delay_us) } else { 0 };
        *serial += 1;
        queue.push((at, *serial, frame.clone()));
    }
}

fn due(queue: &mut Vec<(u64, u64, Vec<u8>)>, now: u64) -> Vec<Vec<u8>> {
    queue.sort_by_key(|(at, serial, _)| (*at, *serial));
    let n = queue.iter().take_while(|(at, ..)| *at <= now).count();
    queue.drain(..n).map(|(.., frame)| frame).collect()
}

/// When an application finishes its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finish {
    /// Once everything is written.
    Written,
    /// Once the other side has finished and everything is read.
    AfterOther,
}

/// One connection and what its two applications do.
#[derive(Debug, Clone)]
struct Plan {
    inbound: bool,
    up: usize,
    down: usize,
    guest_rx: usize,
    guest_tx: usize,
    /// Bytes the guest's application reads each `guest_read_us`.
    guest_read: usize,
    guest_read_us: u64,
    guest_finish: Finish,
    peer_finish: Finish,
    how: Behaviour,
}

struct Run {
    plan: Plan,
    h: SocketHandle,
    up: Vec<u8>,
    down: Vec<u8>,
    written: usize,
    read: Vec<u8>,
    next_read: u64,
    finished: bool,
}

impl Run {
    /// The guest's application; true if it did something.
    fn app(&mut self, w: &mut World, g: &mut Guest, sock: Option<usize>) -> bool {
        let mut busy = false;
        let socket = g.tcp(self.h);
        if self.written < self.up.len() && socket.can_send() {
            let n = socket.send_slice(&self.up[self.written..]).unwrap();
            self.written += n;
            busy |= n > 0;
        }
        if socket.can_recv() && self.next_read <= w.now {
            let mut buf = vec![0; self.plan.guest_read];
            let n = socket.recv_slice(&mut buf).unwrap();
            self.read.extend(&buf[..n]);
            self.next_read = w.now + self.plan.guest_read_us;
            busy |= n > 0;
        }
        let other = !socket.may_recv() && !socket.can_recv() && socket.is_active();
        let may = match self.plan.guest_finish {
            Finish::Written => true,
            Finish::AfterOther => other && self.read.len() == self.down.len(),
        };
        let open = matches!(socket.state(), tcp::State::Established | tcp::State::CloseWait);
        if open && !self.finished && self.written == self.up.len() && may {
            socket.close();
            self.finished = true;
            busy = true;
        }
        if let Some(sock) = sock {
            let sock = &mut w.net.socks[sock];
            let may = match self.plan.peer_finish {
                Finish::Written => true,
                Finish::AfterOther => sock.peer_eof,
            };
            if may && !sock.peer_fin {
                sock.peer_fin = true;
                busy = true;
            }
        }
        busy
    }

    fn next_event(&self, g: &mut Guest, now: u64) -> Option<u64> {
        g.tcp(self.h).can_recv().then_some(self.next_read.max(now + 1))
    }
}

fn simulate(seed: u64, mut plans: Vec<Plan>, weather: Weather, mtu: u16, v6: bool, pool: usize) {
    let mut r = Rng::new(seed ^ 0x5151);
    let mut w = World::with(if r.chance(50) { mtu } else { 65520 }, pool, seed);
    w.v6 = v6;
    w.isn = r.pick(&[5000, u32::MAX - 20_000, 0x7fff_ff00]);
    let mut g = Guest::new(&w, mtu.into(), weather, r.clone());
    let mut runs = vec![];
    // Outbound first, then inbound: sockets are told apart by their order.
    plans.sort_by_key(|p| p.inbound);
    for (n, plan) in plans.into_iter().enumerate() {
        let h = g.socket(plan.guest_rx, plan.guest_tx);
        if plan.inbound {
            g.tcp(h).listen(80 + n as u16).unwrap();
            w.net.next = plan.how.clone();
            w.accept_on(4000 + n as u16, 80 + n as u16);
        } else {
            w.net.next = plan.how.clone();
            g.connect(&w, h, 4000 + n as u16);
            // The SYN must meet this plan's socket.
            for _ in 0..2_000_000 {
                if w.net.socks.len() > n {
                    break;
                }
                step(&mut w, &mut g, &mut []);
            }
        }
        let up = r.bytes(plan.up);
        let down = r.bytes(plan.down);
        w.net.socks[n].peer_out.extend(&down);
        let read = vec![];
        runs.push(Run { plan, h, up, down, written: 0, read, next_read: 0, finished: false });
    }
    let end = w.now + 4000 * 1_000_000;
    loop {
        if !step(&mut w, &mut g, &mut runs) {
            break;
        }
        assert!(w.now < end, "takes too long: {}", report(&w, &mut g, &runs));
        let done = runs.iter().all(|r| {
            let socket = g.tcp(r.h);
            let over = matches!(socket.state(), tcp::State::Closed | tcp::State::TimeWait);
            over && !socket.can_recv()
        });
        if done && w.table.is_empty() {
            break;
        }
    }
    w.run(1_000_000);
    for (n, run) in runs.iter().enumerate() {
        let s = &w.net.socks[n];
        let ok = s.peer_got == run.up && run.read == run.down;
        assert!(ok, "connection {n} lost bytes: {}", report(&w, &mut g, &runs));
        // A guest that forgot the connection while its last ACKs were lost answers with RST.
        let forgot = weather.lose > 5 && s.peer_eof;
        assert!(!s.aborted || forgot, "connection {n} was reset: {}", report(&w, &mut g, &runs));
    }
    w.assert_clean();
}

/// One turn, and on to the next event; false if nothing will ever happen.
fn step(w: &mut World, g: &mut Guest, runs: &mut [Run]) -> bool {
    w.turn();
    let mut busy = g.turn(w);
    // Inbound and outbound connections sort alike on both sides.
    for (n, run) in runs.iter_mut().enumerate() {
        let sock = (n < w.net.socks.len()).then_some(n);
        busy |= run.app(w, g, sock);
    }
    if busy {
        w.socket_events();
        return true;
    }
    let mut next = w.next_event().into_iter().chain(g.next_event(w.now)).min();
    for run in &*runs {
        next = next.into_iter().chain(run.next_event(g, w.now)).min();
    }
    match next {
        Some(at) => w.now = w.now.max(at),
        None => return false,
    }
    true
}

fn report(w: &World, g: &mut Guest, runs: &[Run]) -> String {
    let mut out = format!("at {} s", w.now / 1_000_000);
    for (n, run) in runs.iter().enumerate() {
        let s = &w.net.socks[n];
        let state = g.tcp(run.h).state();
        out += &format!(
            "\n{n}: up {}/{} down {}/{} guest {state} queued {} eof {} shut {} aborted {} {:?}",
            s.peer_got.len(),
            run.up.len(),
            run.read.len(),
            run.down.len(),
            s.queued(),
            s.peer_eof,
            s.is_shut(),
            s.aborted,
            run.plan
        );
    }
    for id in w.table.ids() {
        out += &format!("\n{:?}", w.table.get(id).unwrap());
    }
    out
}

fn plan(r: &mut Rng, weather: Weather) -> Plan {
    // Repairing one hole after the other takes the guest long.
    let limit = if weather.lose == 0 { 400_000 } else { 100_000 };
    let size = |r: &mut Rng| {
        let most = r.pick(&[1, 100, 5000, 70_000, 400_000]);
        r.below(most.min(limit)) as usize
    };
    // Not both may wait for the other.
    let (guest_finish, peer_finish) = r.pick(&[
        (Finish::Written, Finish::Written),
        (Finish::AfterOther, Finish::Written),
        (Finish::Written, Finish::AfterOther),
    ]);
    Plan {
        inbound: r.chance(40),
        up: size(r),
        down: size(r),
        guest_rx: r.pick(&[600, 3000, 65_535, 200_000]),
        guest_tx: r.pick(&[600, 3000, 65_535, 200_000]),
        guest_read: r.pick(&[100, 5000, 1_000_000]),
        guest_read_us: r.pick(&[0, 100, 3000]),
        guest_finish,
        peer_finish,
        how: Behaviour {
            outcome: r.pick(&[Outcome::Now, Outcome::Later(200), Outcome::Later(1_500_000)]),
            sndbuf: r.pick(&[3000, 30_000, 500_000]),
            rcvbuf: r.pick(&[5000, 50_000, 500_000]),
            rtt_us: r.pick(&[0, 50, 3000, 80_000]),
            peer_rcvbuf: r.pick(&[2000, 50_000, 500_000]),
            peer_read: r.pick(&[2000, 30_000, usize::MAX]),
            peer_read_us: r.pick(&[50, 2000]),
            peer_write: r.pick(&[100, 3000, usize::MAX]),
            peer_write_us: r.pick(&[0, 20, 1000]),
            short_sends: r.pick(&[0, 0, 2, 10]),
            info: r.chance(80),
            rate: r.pick(&[0, 1_000_000, 100_000_000]),
            peek_off: r.chance(80),
            tos: 0,
            // The guest of these tests forgets its retransmission timer where a window that was
            // closed opens and the next segment is lost.
            refusals: if weather.lose == 0 { r.pick(&[0, 0, 0, 5]) } else { 0 },
            merge: r.chance(50),
        },
    }
}

fn run_seed(seed: u64, weather: Weather) {
    let mut r = Rng::new(seed);
    let v6 = r.chance(30);
    let mtu = r.pick(&[1500, 1500, 9000, 1280]);
    let pool = r.pick(&[8 << 20, 64 << 20]);
    let plans: Vec<_> = (0..=r.below(3)).map(|_| plan(&mut r, weather)).collect();
    // Printed by the harness if the test fails.
    println!("seed {seed} {weather:?} mtu {mtu} v6 {v6} pool {pool}");
    simulate(seed, plans, weather, mtu, v6, pool);
}

fn seeds(n: u64) -> std::ops::Range<u64> {
    match std::env::var("SIM_SEED").ok().and_then(|s| s.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..std::env::var("SIM_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(n),
    }
}

#[test]
fn calm() {
    for seed in seeds(60) {
        run_seed(seed, CALM);
    }
}

#[test]
fn jitter() {
    for seed in seeds(60) {
        run_seed(seed, Weather { delay: 30, delay_us: 5000, repeat: 5, ..CALM });
    }
}

#[test]
fn loss() {
    for seed in seeds(60) {
        run_seed(seed, Weather { lose: 3, ..CALM });
    }
}

#[test]
fn storm() {
    for seed in seeds(60) {
        run_seed(seed, Weather { lose: 10, repeat: 10, delay: 30, delay_us: 20_000 });
    }
}
