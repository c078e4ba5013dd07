//! Everything that lives while we run, and the loop.
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

use super::settle::Flow;
use super::stages::StartError;
use crate::config::Lease;
use crate::event::{Reactor, Registrar, Source, Wheel};
use crate::flow::{Drops, FlowId, Index, MAX_FLOWS, Pool, Table};
use crate::forward::GuestAddrs;
use crate::host::{Listeners, Net};
use crate::link::{TapRx, TapTx};
use crate::services::Reply;
use crate::services::ndp;
use crate::sys::logsink;
use crate::sys::signals::Signals;
use crate::sys::spawn::{Child, Waiting};
use crate::sys::watch::NetnsWatch;
use crate::translate::{Io, Now};
use crate::wire::Mac;

/// Bytes of the backlog pool.
const POOL: usize = 64 << 20;

/// Flows of one batch of frames.
pub(super) const BATCH: usize = 64;

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

/// Everything that lives while we run.
pub(super) struct Engine {
    pub(super) lease: Lease,
    pub(super) ndp: ndp::Params,
    solicit: bool,
    pub(super) guest: GuestAddrs,
    pub(super) guest_mac: Mac,
    /// Taken while its frames are being served.
    pub(super) rx: Option<TapRx>,
    pub(super) tx: TapTx,
    pub(super) net: Net,
    pub(super) listeners: Listeners,
    pub(super) reactor: Reactor,
    registrar: Registrar,
    pub(super) flows: Table<Flow>,
    pub(super) index: Index,
    pub(super) wheel: Wheel,
    pub(super) pool: Pool,
    pub(super) drops: Drops,
    pub(super) reply: Reply,
    /// Flows that got segments in the present batch of frames.
    pub(super) touched: Vec<FlowId>,
    pub(super) now: Now,
    pub(super) signals: Signals,
    pub(super) life: Lifeline,
    pub(super) stop: Option<ExitCode>,
}

/// What [`Engine::new`] is made of.
pub(super) struct Parts {
    pub(super) lease: Lease,
    pub(super) ndp: ndp::Params,
    /// Ask the guest for its Ethernet address at the start [ADDR-10].
    pub(super) solicit: bool,
    pub(super) guest: GuestAddrs,
    pub(super) guest_mac: Mac,
    pub(super) link: (TapRx, TapTx),
    pub(super) listeners: Listeners,
    pub(super) reactor: Reactor,
    pub(super) registrar: Registrar,
    pub(super) net: Net,
    pub(super) key: [u8; 16],
    pub(super) signals: Signals,
    pub(super) life: Lifeline,
}

impl Engine {
    pub(super) fn new(parts: Parts) -> Self {
        let (rx, tx) = parts.link;
        let now = clock();
        Self {
            lease: parts.lease,
            ndp: parts.ndp,
            solicit: parts.solicit,
            guest: parts.guest,
            guest_mac: parts.guest_mac,
            rx: Some(rx),
            tx,
            net: parts.net,
            listeners: parts.listeners,
            reactor: parts.reactor,
            registrar: parts.registrar,
            flows: Table::new(MAX_FLOWS),
            index: Index::new(MAX_FLOWS, parts.key),
            wheel: Wheel::new(now.ms(), MAX_FLOWS),
            pool: Pool::new(POOL),
            drops: Drops::default(),
            reply: Reply::default(),
            touched: Vec::with_capacity(BATCH),
            now,
            signals: parts.signals,
            life: parts.life,
            stop: None,
        }
    }

    /// Registers what there is to wait for, and lets the command run.
    pub(super) fn begin(mut self) -> Result<Self, StartError> {
        let failed = |e| StartError::Io("cannot wait for events", e);
        let add =
            |fd: BorrowedFd<'_>, source| self.registrar.add(fd, source, false).map_err(failed);
        add(self.signals.as_fd(), Source::Signal)?;
        if let Some(rx) = &self.rx {
            add(rx.as_fd(), Source::Link)?;
        }
        if let Some(fd) = self.life.netns.as_ref().and_then(NetnsWatch::fd) {
            add(fd, Source::Netns)?;
        }
        for (n, listener) in (0..).zip(&self.listeners) {
            add(listener.as_fd(), Source::Listener(n))?;
        }
        if self.solicit {
            self.solicit_guest();
        }
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
        if self.life.netns.as_mut().is_some_and(NetnsWatch::gone) {
            self.stop = Some(ExitCode::SUCCESS);
        }
        while self.stop.is_none() {
            if let Err(e) = self.turn() {
                log::error!("cannot wait for events: {e}");
                self.stop = Some(ExitCode::FAILURE);
            }
        }
        for (reason, n) in self.drops.iter() {
            log::debug!("dropped: {} {n}", reason.text());
        }
        self.end_flows();
        self.stop.unwrap_or(ExitCode::FAILURE)
    }

    fn turn(&mut self) -> std::io::Result<()> {
        self.reactor.wait(self.timeout())?;
        self.now = clock();
        let mut n = 0;
        while let Some((source, ready)) = self.reactor.event(n) {
            n += 1;
            log::trace!("event {source:?} {ready:?}");
            match source {
                Source::Link => self.on_link(),
                Source::Flow { id, side } => self.on_socket(id, side, ready),
                Source::Listener(index) => self.on_listener(index),
                Source::Signal => self.on_signal(),
                Source::Child => self.on_child(),
                Source::Netns => self.on_netns(),
            }
        }
        while let Some(index) = self.wheel.expire(self.now.ms()) {
            if let Some(id) = self.flows.id_at(index) {
                self.on_timer(id);
            }
        }
        if self.life.netns.as_ref().is_some_and(|w| w.interval().is_some()) {
            self.on_netns();
        }
        Ok(())
    }

    fn timeout(&self) -> Option<Duration> {
        let timer =
            self.wheel.next().map(|at| Duration::from_millis(at.saturating_sub(self.now.ms())));
        let poll = self.life.netns.as_ref().and_then(NetnsWatch::interval);
        timer.into_iter().chain(poll).min()
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

    fn on_netns(&mut self) {
        if self.life.netns.as_mut().is_some_and(NetnsWatch::gone) {
            log::info!("namespace is gone, exiting");
            self.stop = Some(ExitCode::SUCCESS);
        }
    }

    /// Splits off what handlers may touch.
    pub(super) fn io(&mut self) -> (&mut Table<Flow>, Io<'_, TapTx, Net>) {
        let io = Io {
            out: &mut self.tx,
            net: &mut self.net,
            pool: &mut self.pool,
            drops: &mut self.drops,
            lease: &self.lease,
            guest_mac: self.guest_mac,
            now: self.now,
        };
        (&mut self.flows, io)
    }
}

/// The monotonic clock, in microseconds.
fn clock() -> Now {
    let t = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    Now(u64::try_from(t.as_micros()).unwrap_or(0))
}
