//! Flows of every kind, and the one place where they end.

use super::Translator;
use super::again::AGAIN_ENTRY;
use super::brief::EXPENDABLE_ENTRY;
use crate::flow::{FlowId, INDEX_ENTRY, Tuple, WHEEL_ENTRY, slot_size};
use crate::translate::idle::Brief;
use crate::translate::ping::Ping;
use crate::translate::splice::Splice;
use crate::translate::splice_udp::SpliceUdp;
use crate::translate::tcp::Tcp;
use crate::translate::udp::UdpFlow;
use crate::translate::{
    DatagramSockets, Deadline, FrameOut, Now, SpliceSockets, TcpSockets, Verdict,
};

/// An entry of the flow table.
#[derive(Debug)]
pub(super) enum Flow {
    /// A TCP connection.
    Tcp(Tcp),
    /// An exchange of UDP datagrams.
    Udp(UdpFlow),
    /// A sequence of pings.
    Ping(Ping),
    /// A TCP connection past the link.
    Splice(Splice),
    /// UDP past the link.
    SpliceUdp(SpliceUdp),
}

/// What a flow carries, for figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowKind {
    /// A TCP connection.
    Tcp,
    /// One past the link.
    TcpSpliced,
    /// An exchange of UDP datagrams.
    Udp,
    /// One past the link.
    UdpSpliced,
    /// A sequence of pings.
    Ping,
}

impl Flow {
    /// What it carries.
    pub(super) fn kind(&self) -> FlowKind {
        match self {
            Self::Tcp(_) => FlowKind::Tcp,
            Self::Udp(_) => FlowKind::Udp,
            Self::Ping(_) => FlowKind::Ping,
            Self::Splice(_) => FlowKind::TcpSpliced,
            Self::SpliceUdp(_) => FlowKind::UdpSpliced,
        }
    }
}

const _: () = assert!(size_of::<Option<Flow>>() <= 256);

// All that a flow takes outside the pool [TCP-98].
const LISTS: usize = AGAIN_ENTRY + EXPENDABLE_ENTRY;
const _: () = assert!(slot_size::<Flow>() + INDEX_ENTRY + WHEEL_ENTRY + LISTS <= 256);

impl Flow {
    /// The flow's key in the index; `None` for one that only events of its sockets concern.
    pub(super) fn tuple(&self) -> Option<Tuple> {
        match self {
            Self::Tcp(t) => Some(t.tuple()),
            Self::Udp(u) => Some(u.tuple()),
            Self::Ping(p) => Some(p.tuple()),
            Self::Splice(_) => None,
            Self::SpliceUdp(u) => Some(u.tuple()),
        }
    }

    fn deadline(&self) -> Deadline {
        match self {
            Self::Tcp(t) => t.deadline(),
            Self::Udp(u) => u.deadline(),
            Self::Ping(p) => p.deadline(),
            Self::Splice(s) => s.deadline(),
            Self::SpliceUdp(u) => u.deadline(),
        }
    }

    /// How far a flow of datagrams has come, and when it was used last, if it is not a conversation.
    pub(super) fn brief(&self) -> Option<(Brief, Now)> {
        match self {
            Self::Udp(u) => u.brief(),
            Self::SpliceUdp(u) => u.brief(),
            Self::Tcp(_) | Self::Ping(_) | Self::Splice(_) => None,
        }
    }

    /// True if it has something for the guest that the link did not take.
    fn waits_for_link(&self) -> bool {
        match self {
            Self::Tcp(t) => t.waits_for_link(),
            Self::Udp(u) => u.waits_for_link(),
            Self::Ping(p) => p.waits_for_link(),
            Self::Splice(_) | Self::SpliceUdp(_) => false,
        }
    }

    /// True if what its socket has is to be tried again now.
    pub(super) fn retries(&self, now: Now) -> bool {
        match self {
            Self::Udp(u) => u.retries(now),
            Self::Ping(p) => p.retries(now),
            Self::Splice(s) => s.retries(now),
            Self::Tcp(_) | Self::SpliceUdp(_) => false,
        }
    }
}

impl<O: FrameOut, N: TcpSockets + DatagramSockets + SpliceSockets> Translator<O, N> {
    /// The flow a packet belongs to, and the hash of its tuple.
    pub(super) fn lookup(&self, tuple: &Tuple) -> (u64, Option<FlowId>) {
        let hash = self.index.hash(tuple);
        let is_it = |slot| self.flows.at(slot).is_some_and(|f| f.tuple().as_ref() == Some(tuple));
        let id = self.index.find(hash, is_it).and_then(|slot| self.flows.id_at(slot));
        (hash, id)
    }

    /// Enters a new flow, for which [`Table::next_id`](crate::flow::Table::next_id) was used. The
    /// hash is that of its tuple, if it has one.
    pub(super) fn enter(&mut self, hash: u64, flow: Flow) {
        let deadline = flow.deadline();
        let listed = flow.tuple().is_some();
        let brief = flow.brief();
        if let Ok(id) = self.flows.insert(flow) {
            if let Some((how, used)) = brief {
                self.expendable.push(how, id.index, used);
            }
            if listed {
                self.index.insert(hash, id.index);
            }
            if let Some(at) = deadline.at() {
                self.wheel.ensure(id.index, at);
            }
        }
    }

    /// Applies a verdict: keeps the flow's timer true, or ends the flow. One that waits for a link
    /// that tells when it takes more is visited as soon as it does, whatever its timer says.
    pub(super) fn settle(&mut self, id: FlowId, verdict: Verdict) {
        if verdict == Verdict::Keep {
            let Some(flow) = self.flows.get(id) else { return };
            if let Some(at) = flow.deadline().at() {
                self.wheel.ensure(id.index, at);
            }
            if self.out.is_blocked() && flow.waits_for_link() {
                self.again.push(id);
            }
            return;
        }
        let Some(mut flow) = self.flows.remove(id) else { return };
        log::debug!("flow {}: end ({verdict:?})", id.index);
        if let Some(tuple) = flow.tuple() {
            let hash = self.index.hash(&tuple);
            self.index.remove(hash, id.index);
        }
        self.wheel.clear(id.index);
        self.starved = self.starved.map(|_| self.now.ms());
        match &mut flow {
            Flow::Tcp(t) => {
                t.release(&mut self.net, &mut self.pool, &mut self.boards, verdict);
            }
            Flow::Udp(u) => u.release(&mut self.net),
            Flow::Ping(p) => p.release(&mut self.net),
            Flow::Splice(s) => s.release(&mut self.net, &mut self.pool, verdict),
            Flow::SpliceUdp(u) => u.release(&mut self.net),
        }
    }
}
