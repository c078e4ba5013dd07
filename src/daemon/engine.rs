//! The loop.
//!
//! # Theory of operation
//!
//! One turn: wait for events (not at all while work is left over), read the clock once, serve
//! every event, then every timer that is due. Each visit to a source has a budget; what is left
//! when it is spent goes on the reactor's ready list. All memory that traffic needs is reserved
//! before the first turn.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::ExitCode;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::auto::Auto;
use super::network::Network;
use super::stages::StartError;
use super::stats::Stats;
use crate::config::Proto;
use crate::event::{Reactor, Ready, Registrar, Source};
use crate::flow::{DropReason, FlowId};
use crate::forward::ForwardTarget;
use crate::host::{Accepted, Arrived, Listener, Listeners, Net, Side};
use crate::limited;
use crate::link::{Admitted, End, Link, RxFrame};
use crate::sys::logsink;
use crate::sys::signals::Signals;
use crate::sys::spawn::{Child, Waiting};
use crate::sys::watch::NetnsWatch;
use crate::translate::tcp::SocketReady;
use crate::translate::{Far, FrameOut, Now, Translator};
use crate::wire::{Addr, Endpoint};

/// Frames read from the link per visit.
const FRAMES: usize = 64;

/// Bytes read from the link per visit.
const BYTES: usize = 256 * 1024;

/// A queue that no link has: a visit to go on with those that have something.
const NO_QUEUE: u8 = u8::MAX;

/// Connections accepted per visit.
const ACCEPTS: usize = 16;

/// What ends the loop.
#[derive(Debug, Default)]
pub(super) struct Lifeline {
    /// The command we are about to start.
    pub(super) waiting: Option<Waiting>,
    /// The command we started.
    pub(super) child: Option<Child>,
    /// The namespace we joined.
    pub(super) netns: Option<NetnsWatch>,
}

/// The loop and what feeds it.
pub(super) struct Engine<L: Link> {
    pub(super) translator: Translator<L::Tx, Net>,
    pub(super) link: L,
    pub(super) listeners: Listeners,
    /// Ports that follow the other side.
    pub(super) auto: Option<Auto>,
    /// Follows the host's network.
    pub(super) network: Option<Network>,
    pub(super) reactor: Reactor,
    pub(super) registrar: Registrar,
    pub(super) signals: Signals,
    pub(super) life: Lifeline,
    /// When to ask for the namespace, where nothing tells of its end; milliseconds of the clock.
    pub(super) ask_at: u64,
    /// Listening sockets with connections for which there was no room, in order.
    pub(super) waiting: Vec<u32>,
    pub(super) stop: Option<ExitCode>,
    /// Counters that somebody wants to see.
    pub(super) stats: Option<Stats>,
    /// UDP listeners whose datagrams wait for a link that is blocked, in order.
    pub(super) parked: Vec<u32>,
}

/// What a listening socket had.
enum Taken {
    /// Something; there may be more.
    One,
    /// Nothing.
    Nothing,
    /// A connection, which stays there until there is room for it.
    NoRoom,
}

impl<L: Link> Engine<L> {
    /// Registers what there is to wait for, and lets the command run.
    pub(super) fn begin(mut self) -> Result<Self, StartError> {
        let failed = |e| StartError::Io("cannot wait for events", e);
        let add =
            |fd: BorrowedFd<'_>, source| self.registrar.add(fd, source, false).map_err(failed);
        add(self.signals.as_fd(), Source::Signal)?;
        self.link.begin(&self.registrar).map_err(failed)?;
        if let Some(fd) = self.life.netns.as_ref().and_then(NetnsWatch::fd) {
            add(fd, Source::Netns)?;
        }
        for (index, listener) in self.listeners.iter() {
            add(listener.as_fd(), Source::Listener(index))?;
            self.translator.net.listens(&listener);
        }
        if let Some(network) = &mut self.network {
            add(network.fd(), Source::Network)?;
            network.begin(&mut self.translator);
        }
        // What is bound already is there when we are ready [FWD-24].
        self.follow(clock().ms());
        if let Some(waiting) = self.life.waiting.take() {
            let child = waiting.release()?;
            self.registrar.add(child.as_fd(), Source::Child, false).map_err(failed)?;
            self.life.child = Some(child);
            logsink::command_started();
        }
        Ok(self)
    }

    /// Runs until something ends us; the exit status.
    pub(super) fn run(mut self) -> ExitCode {
        #[cfg(feature = "attack")]
        crate::sys::attack::run();
        self.on_netns();
        while self.stop.is_none() {
            if let Err(e) = self.turn() {
                log::error!("cannot wait for events: {e}");
                self.stop = Some(ExitCode::FAILURE);
            }
        }
        // Before the link: the kernel can take seconds to remove that on a busy machine, while the
        // next instance waits for our ports [COMPAT-22] [LIFE-7].
        self.listeners.clear();
        for (reason, n) in self.translator.drops().iter() {
            log::debug!("dropped: {} {n}", reason.text());
        }
        self.translator.end_flows();
        self.translator.out.flush();
        logsink::sync();
        self.stop.unwrap_or(ExitCode::FAILURE)
    }

    fn turn(&mut self) -> std::io::Result<()> {
        self.reactor.wait(self.timeout())?;
        let now = clock();
        self.translator.set_now(now);
        let mut n = 0;
        let mut link = self.link_events();
        let mut transfers = 0;
        while let Some((source, ready)) = self.reactor.event(n) {
            n += 1;
            log::trace!("event {source:?} {ready:?}");
            if self.stats.is_some() {
                self.count(source);
            }
            match source {
                // All its queues in one go.
                Source::Link(_) if std::mem::take(&mut link) => self.on_link(),
                Source::Link(_) => {}
                Source::Guest => self.on_guest(),
                Source::Flow { id, side } => {
                    self.translator.on_socket(id, side, ready.into());
                    transfers += usize::from(self.translator.is_transfer(id));
                }
                Source::Listener(index) => self.on_listener(index),
                Source::Signal => self.on_signal(),
                Source::Child => self.on_child(),
                Source::Netns => self.on_netns(),
                Source::Network => self.on_network(now.ms()),
            }
        }
        self.reactor.served(n > 0 && transfers == n);
        if let Some(network) = &mut self.network {
            network.run(now.ms(), &mut self.translator);
        }
        if let Some(stats) = &mut self.stats
            && self.translator.next_deadline().is_some_and(|at| at <= now.ms())
        {
            stats.timer();
        }
        self.translator.on_time();
        self.translator.out.flush();
        // All who want another visit have something for the guest. Those whom the link stopped would
        // only be stopped again: they wait for its event.
        if !self.translator.out.is_blocked() {
            while let Some(id) = self.translator.take_again() {
                self.reactor.again(Source::Flow { id, side: false });
            }
            self.unpark();
        }
        if self.translator.take_starved() {
            for index in self.waiting.drain(..) {
                self.reactor.again(Source::Listener(index));
            }
        }
        self.follow(now.ms());
        self.ask_for_netns(now.ms());
        if let Some(stats) = &mut self.stats {
            stats.turn(now.ms(), self.translator.drops().iter().map(|(_, n)| n).sum());
        }
        Ok(())
    }

    /// Counts an event before it is served, which may be the end of what it is about.
    fn count(&mut self, source: Source) {
        let (mut flow, mut proto) = (None, None);
        match source {
            Source::Flow { id, .. } => flow = self.translator.kind(id),
            Source::Listener(index) => proto = self.listeners.get(index).map(|l| l.proto()),
            _ => {}
        }
        if let Some(stats) = &mut self.stats {
            stats.count(source, flow, proto);
        }
    }

    fn follow(&mut self, now: u64) {
        if let Some(auto) = &mut self.auto {
            auto.run(now, &mut self.listeners, &mut self.translator, &self.registrar);
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let timer = self.translator.next_deadline();
        let poll = self.life.netns.as_ref().and_then(NetnsWatch::interval).map(|_| self.ask_at);
        let auto = self.auto.as_ref().map(Auto::at);
        let network = self.network.as_ref().and_then(Network::at);
        let next = timer.into_iter().chain(poll).chain(auto).chain(network).min()?;
        Some(Duration::from_millis(next.saturating_sub(clock().ms())))
    }

    /// Tells the link which of its queues have something; true if there is an event of it.
    fn link_events(&mut self) -> bool {
        let mut any = false;
        for (source, _) in (0..).map_while(|n| self.reactor.event(n)) {
            if let Source::Link(queue) = source {
                self.link.ready(queue);
                any = true;
            }
        }
        any
    }

    fn on_link(&mut self) {
        if self.read_link() {
            self.reactor.again(Source::Link(NO_QUEUE));
        }
    }

    /// Serves frames of the guest; true if the budget was spent before there were no more.
    fn read_link(&mut self) -> bool {
        let (mut frames, mut bytes, mut more) = (0, 0, false);
        while let Some(RxFrame { vnet, frame }) = self.link.next_frame() {
            frames += 1;
            bytes += frame.len();
            self.translator.on_frame(&vnet, frame);
            if frames >= FRAMES || bytes >= BYTES {
                more = true;
                break;
            }
        }
        self.translator.end_batch();
        match self.link.ended(&mut self.translator.out) {
            None => return more,
            Some(End::Device(e)) => {
                log::error!("the guest's link is gone: {e}");
                self.stop = Some(ExitCode::FAILURE);
            }
            Some(End::Guest { why, last }) => {
                match why.reason() {
                    Some(reason) => {
                        limited!(Warn, "guest: {why}");
                        self.translator.lost(reason);
                    }
                    None => limited!(Info, "guest: {why}"),
                }
                if last {
                    self.stop = Some(ExitCode::SUCCESS);
                }
                // What waited for this guest is not for the next one.
                self.unpark();
            }
        }
        false
    }

    /// Somebody wants to be our guest.
    fn on_guest(&mut self) {
        while let Some(who) = self.link.arrival() {
            // Whoever has gone is not in the way, though we may not have been told yet. To be asked
            // when the next one is there: that may be at once.
            while self.link.is_deserted() && self.read_link() {}
            if self.stop.is_some() {
                return;
            }
            match self.link.admit(who, &mut self.translator.out, &self.registrar) {
                Admitted::Guest(pid) => {
                    limited!(Info, "guest: connected{}", process(pid));
                    self.translator.solicit_guest();
                }
                Admitted::Refused(pid) => {
                    limited!(Info, "guest: refused another one{}", process(pid));
                }
            }
        }
    }

    fn on_listener(&mut self, index: u32) {
        for _ in 0..ACCEPTS {
            let Some(listener) = self.listeners.get(index) else { return };
            // A datagram may turn out to be one for the link.
            let for_link = listener.side == Side::Host && listener.proto() == Proto::Udp;
            if for_link && self.translator.out.payload().is_none() {
                return self.park(index);
            }
            let taken = match listener.proto() {
                Proto::Tcp => accept(&mut self.translator, &listener),
                Proto::Udp => receive(&mut self.translator, &listener),
            };
            match taken {
                Taken::One => {}
                Taken::Nothing => return,
                Taken::NoRoom => {
                    if let Err(place) = self.waiting.binary_search(&index) {
                        self.waiting.insert(place, index);
                    }
                    return;
                }
            }
        }
        self.reactor.again(Source::Listener(index));
    }

    /// Remembers a listener whose datagrams are better left where they are.
    fn park(&mut self, index: u32) {
        if let Err(at) = self.parked.binary_search(&index) {
            self.parked.insert(at, index);
        }
    }

    fn unpark(&mut self) {
        for index in self.parked.drain(..) {
            self.reactor.again(Source::Listener(index));
        }
    }

    fn on_network(&mut self, now: u64) {
        let Some(network) = &mut self.network else { return };
        if network.on_event(now, &mut self.translator) {
            self.reactor.again(Source::Network);
        }
    }

    fn on_signal(&mut self) {
        while let Some(signal) = self.signals.next_signal() {
            log::debug!("signal {signal}: ending");
            self.stop = Some(ExitCode::SUCCESS);
        }
    }

    fn on_child(&mut self) {
        if let Some(status) = self.life.child.as_mut().and_then(Child::try_wait) {
            self.stop = Some(ExitCode::from(status));
        }
    }

    /// Asks once per interval, however many turns the loop makes.
    fn ask_for_netns(&mut self, now: u64) {
        let Some(interval) = self.life.netns.as_ref().and_then(NetnsWatch::interval) else {
            return;
        };
        if now >= self.ask_at {
            self.ask_at = now.saturating_add(u64::try_from(interval.as_millis()).unwrap_or(0));
            self.on_netns();
        }
    }

    fn on_netns(&mut self) {
        if self.life.netns.as_mut().is_some_and(NetnsWatch::gone) {
            log::info!("namespace is gone, exiting");
            self.stop = Some(ExitCode::SUCCESS);
        }
    }
}

/// Takes one connection.
fn accept<O: FrameOut>(translator: &mut Translator<O, Net>, listener: &Listener<'_>) -> Taken {
    let Some(id) = translator.next_id() else { return Taken::NoRoom };
    match listener.accept() {
        Ok(Some(accepted)) => {
            take(translator, listener, id, accepted);
            Taken::One
        }
        Ok(None) => Taken::Nothing,
        Err(e) => {
            log::debug!("cannot accept a connection: {e}");
            translator.no_socket();
            Taken::NoRoom
        }
    }
}

/// A new connection: past the link or through it.
fn take<O: FrameOut>(
    translator: &mut Translator<O, Net>,
    listener: &Listener<'_>,
    id: FlowId,
    accepted: Accepted,
) {
    // Asking where it came in costs a system call, and matters to few.
    let may_pass = listener.side == Side::Namespace || accepted.peer.addr.is_loopback();
    let local = if may_pass { accepted.local() } else { None };
    let Accepted { fd, peer } = accepted;
    if let Some(local) = local
        && goes_past_link(translator, listener, (peer, local))
    {
        match translator.net.adopt(fd, id) {
            Ok(sock) => translator.on_spliced(id, sock, (peer, local), far(listener)),
            Err(_) => translator.no_socket(),
        }
    } else if listener.side == Side::Host {
        match translator.net.adopt_stream(fd, id) {
            Ok(sock) => translator.on_connection(id, sock, peer, target(listener)),
            Err(_) => translator.no_socket(),
        }
    }
}

fn goes_past_link<O: FrameOut>(
    translator: &Translator<O, Net>,
    listener: &Listener<'_>,
    ends: (Endpoint, Endpoint),
) -> bool {
    match listener.side {
        Side::Namespace => true,
        Side::Host => translator.goes_past_link(ends, target(listener)),
    }
}

/// Takes one datagram.
fn receive<O: FrameOut>(translator: &mut Translator<O, Net>, listener: &Listener<'_>) -> Taken {
    let arrived = listener.receive(translator.buffer());
    let Some(Arrived { len, peer, local, for_many }) = arrived else { return Taken::Nothing };
    if for_many && translator.net.sent_by_guest(peer) {
        translator.lost(DropReason::OwnMulticast);
        return Taken::One;
    }
    if goes_past_link(translator, listener, (peer, local)) {
        translator.on_spliced_datagram(listener.id(), (peer, local), len, far(listener));
    } else {
        translator.on_datagram(peer, local, len, target(listener));
    }
    Taken::One
}

/// Where what goes past the link leads to.
fn far(listener: &Listener<'_>) -> (Far, ForwardTarget) {
    let far = match listener.side {
        Side::Host => Far::Guest,
        Side::Namespace => Far::Host,
    };
    (far, target(listener))
}

/// A process, where it can be seen from here.
fn process(pid: i32) -> String {
    if pid == 0 { String::new() } else { format!(", process {pid}") }
}

/// Where what comes in through a listener goes to.
fn target(listener: &Listener<'_>) -> ForwardTarget {
    ForwardTarget { addr: listener.target().map(Addr::from), port: listener.to_port() }
}

impl From<Ready> for SocketReady {
    fn from(r: Ready) -> Self {
        Self { read: r.read, write: r.write, error: r.error, read_closed: r.read_closed }
    }
}

/// The monotonic clock, in microseconds.
pub(super) fn clock() -> Now {
    let t = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    Now(u64::try_from(t.as_micros()).unwrap_or(0))
}
