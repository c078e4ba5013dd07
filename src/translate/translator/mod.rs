//! All flows of a guest: which one a frame or a socket event belongs to, and what becomes of it.
//!
//! # Theory of operation
//!
//! A [`Translator`] owns the flow table and everything else that traffic changes, and is generic
//! over the link ([`FrameOut`]) and the host's sockets, so that tests and fuzzers drive exactly
//! what runs in production. Its inputs are frames of the guest ([`Translator::on_frame`], then
//! [`Translator::end_batch`] once per batch), socket events ([`Translator::on_socket`],
//! [`Translator::on_connection`]), neighbours of the host
//! ([`Translator::on_neighbour`]) and time ([`Translator::on_time`]). Its outputs go through the
//! ports. A flow with work left over, because a budget was spent, is listed by
//! [`Translator::take_again`] and wants another [`Translator::on_socket`] soon.
//!
//! `settle.rs` is the only place where flows are inserted and removed.

mod again;
mod brief;
mod fragments;
mod guest;
mod host;
mod neighbours;
mod served;
mod settle;
mod spliced;

use super::allowance::Allowance;
use super::fragmenter::Fragmenter;
use super::gather::Gather;
use super::reassembly::Reassembly;
use super::tcp::{Boards, INACTIVITY_SCAN_MS, KEEPALIVE_SCAN_MS, Timeouts};
use super::udp;
use super::{DatagramSockets, FrameOut, Io, Now, SpliceSockets, TcpSockets};
use crate::config::{Inward, Lease, Protocols};
use crate::flow::{Drops, FlowId, Index, Pool, Table, Wheel};
use crate::forward::{GuestAddrs, Neighbours};
use crate::services::{Offered, Reply};
use crate::wire::Mac;
use again::Again;
use brief::Expendable;
use served::Logged;
use settle::Flow;

pub use settle::FlowKind;

/// Flows of one batch of frames; a batch that touches more is ended early.
const BATCH: usize = 64;

/// Answers that we give by ourselves, in a millisecond: those that connections to come wait for may
/// take a tenth of our time.
const ANSWERS_PER_MS: u64 = 50;
const RESETS_PER_MS: u64 = 10;

/// The same at once, if there were none for a while.
const ANSWERS_AT_ONCE: u64 = 1000;

/// Bytes that spliced flows copy at a time; at least the longest datagram.
const BUFFER: usize = 64 << 10;

/// Sizes and secrets a [`Translator`] is made with.
#[derive(Debug)]
pub struct Setup {
    /// The guest's network identity.
    pub lease: Lease,
    /// What is forwarded.
    pub protocols: Protocols,
    /// What is answered by ourselves.
    pub services: Offered,
    /// Where the guest is reached.
    pub guest: GuestAddrs,
    /// Where clients on the host's loopback interface reach it.
    pub inward: Inward,
    /// There is a link; otherwise what cannot go past it is refused.
    pub linked: bool,
    /// Its Ethernet address.
    pub guest_mac: Mac,
    /// Key of the flow hash; must be random.
    pub key: [u8; 16],
    /// Most flows at a time.
    pub flows: usize,
    /// Memory for data that sockets do not take at once.
    pub pool: Pool,
    /// How patient TCP is.
    pub timeouts: Timeouts,
    /// How long UDP flows may be idle.
    pub idle: udp::Timeouts,
    /// The time now.
    pub now: Now,
}

/// The flows of a guest.
#[derive(Debug)]
pub struct Translator<O, N> {
    /// Towards the guest.
    pub out: O,
    /// Host sockets.
    pub net: N,
    lease: Lease,
    protocols: Protocols,
    offered: Offered,
    guest: GuestAddrs,
    neighbours: Neighbours,
    inward: Inward,
    linked: bool,
    guest_mac: Mac,
    flows: Table<Flow>,
    index: Index,
    wheel: Wheel,
    pool: Pool,
    boards: Boards,
    timeouts: Timeouts,
    idle: udp::Timeouts,
    drops: Drops,
    reply: Reply,
    logged: Logged,
    /// How many answers of our own the guest may have: about addresses that somebody is known to
    /// have, of other services, and resets for segments of no connection.
    known_answers: Allowance,
    answers: Allowance,
    resets: Allowance,
    /// What spliced flows copy through; see [`Translator::buffer`].
    buf: Box<[u8]>,
    /// Datagrams of the present batch of frames that are yet to be sent.
    gather: Gather,
    /// Packets of the guest that are not complete yet.
    reassembly: Reassembly,
    /// Cuts what the guest's MTU does not take.
    fragmenter: Fragmenter,
    /// Flows that got segments in the present batch of frames.
    touched: Vec<FlowId>,
    /// Flows with work left over.
    again: Again,
    /// Flows that may have to make room.
    expendable: Expendable,
    /// When all TCP flows are looked over next, milliseconds of the clock.
    keepalive_at: u64,
    inactivity_at: u64,
    /// When the router is advertised next, unless it never is; likewise.
    advertise_at: u64,
    /// When it may be advertised because of the guest, likewise.
    advertise_early_at: u64,
    /// Connections may be waiting that were not accepted for want of a slot or descriptor: when
    /// to try again, milliseconds of the clock.
    starved: Option<u64>,
    now: Now,
}

impl<O: FrameOut, N: TcpSockets + DatagramSockets + SpliceSockets> Translator<O, N> {
    /// No flows yet. All memory that traffic needs is reserved here.
    pub fn new(setup: Setup, out: O, net: N) -> Self {
        let mut new = Self {
            neighbours: Neighbours::new(&setup.lease),
            out,
            net,
            fragmenter: Fragmenter::new(&setup.lease),
            reassembly: Reassembly::new(),
            lease: setup.lease,
            protocols: setup.protocols,
            offered: setup.services,
            guest: setup.guest,
            inward: setup.inward,
            linked: setup.linked,
            guest_mac: setup.guest_mac,
            flows: Table::new(setup.flows),
            index: Index::new(setup.flows, setup.key),
            wheel: Wheel::new(setup.now.ms(), setup.flows),
            pool: setup.pool,
            boards: Boards::new(),
            timeouts: setup.timeouts,
            idle: setup.idle,
            drops: Drops::default(),
            reply: Reply::default(),
            logged: Logged::default(),
            known_answers: Allowance::new(ANSWERS_PER_MS, ANSWERS_AT_ONCE),
            answers: Allowance::new(ANSWERS_PER_MS, ANSWERS_AT_ONCE),
            resets: Allowance::new(RESETS_PER_MS, ANSWERS_AT_ONCE),
            buf: vec![0; BUFFER].into_boxed_slice(),
            gather: Gather::new(),
            touched: Vec::with_capacity(BATCH),
            again: Again::new(setup.flows),
            expendable: Expendable::new(setup.flows),
            keepalive_at: setup.now.ms().saturating_add(KEEPALIVE_SCAN_MS),
            inactivity_at: setup.now.ms().saturating_add(INACTIVITY_SCAN_MS),
            advertise_at: 0,
            advertise_early_at: 0,
            starved: None,
            now: setup.now,
        };
        new.schedule_advertisement();
        new
    }

    /// Sets the time for everything until the next call.
    pub fn set_now(&mut self, now: Now) {
        self.now = now;
    }

    /// When the first deadline may be due, milliseconds of the clock.
    pub fn next_deadline(&self) -> Option<u64> {
        let scan = (!self.flows.is_empty()).then_some(self.keepalive_at);
        let starved = self.starved.filter(|_| !self.flows.is_full());
        let advertise = self.next_advertisement();
        let fragments = self.reassembly.due();
        let others = scan.into_iter().chain(starved).chain(advertise).chain(fragments);
        self.wheel.next().into_iter().chain(others).min()
    }

    /// Serves every deadline that has passed.
    pub fn on_time(&mut self) {
        while let Some(index) = self.wheel.expire(self.now.ms()) {
            if let Some(id) = self.flows.id_at(index) {
                self.on_timer(id);
            }
        }
        self.scan();
        self.advertise();
        self.expire_fragments();
    }

    /// A flow that wants another visit; each comes up once.
    pub fn take_again(&mut self) -> Option<FlowId> {
        self.again.pop()
    }

    /// Counters of dropped packets.
    pub fn drops(&self) -> &Drops {
        &self.drops
    }

    /// Flows now.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// True if there are no flows.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// What a flow carries, if it is still there; for figures.
    pub fn kind(&self, id: FlowId) -> Option<FlowKind> {
        self.flows.get(id).map(Flow::kind)
    }

    /// True if the flow is a transfer past the link: much at a time.
    pub fn is_transfer(&self, id: FlowId) -> bool {
        matches!(self.flows.get(id), Some(Flow::Splice(flow)) if flow.is_transfer())
    }

    /// The backlog pool, for figures.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// What guests have out of order, for figures.
    pub fn boards(&self) -> &Boards {
        &self.boards
    }

    /// The table, and what handlers of its flows may touch.
    fn split(&mut self) -> (&mut Table<Flow>, Io<'_, O, N>) {
        let (flows, _, _, io) = self.parts();
        (flows, io)
    }

    /// As [`Translator::split`], with the buffer of spliced flows.
    fn split_all(&mut self) -> (&mut Table<Flow>, &mut [u8], Io<'_, O, N>) {
        let (flows, buf, _, io) = self.parts();
        (flows, buf, io)
    }

    /// As [`Translator::split`], with what was gathered.
    fn split_gather(&mut self) -> (&mut Table<Flow>, &mut Gather, Io<'_, O, N>) {
        let (flows, _, gather, io) = self.parts();
        (flows, gather, io)
    }

    fn parts(&mut self) -> (&mut Table<Flow>, &mut [u8], &mut Gather, Io<'_, O, N>) {
        let io = Io {
            out: &mut self.out,
            net: &mut self.net,
            pool: &mut self.pool,
            boards: &mut self.boards,
            drops: &mut self.drops,
            fragmenter: &mut self.fragmenter,
            lease: &self.lease,
            neighbours: &self.neighbours,
            guest_mac: self.guest_mac,
            timeouts: self.timeouts,
            now: self.now,
        };
        (&mut self.flows, &mut self.buf, &mut self.gather, io)
    }
}
