#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::config::Lease;
use crate::flow::Drops;
use crate::forward::{Destination, Neighbours};
use crate::translate::fake::{ID, at, lease};
use crate::translate::tcp::{Boards, Timeouts};
use crate::translate::{Connected, Fragmenter, Now, Peeked, SynMarks, TcpView};
use crate::wire::Mac;

const CLIENT: SockId = SockId(0);
const SERVER: SockId = SockId(1);
const PIPE: usize = 50;

/// One end of a connection, with the edge-triggered events a kernel would report.
#[derive(Default)]
struct Sock {
    rx: VecDeque<u8>,
    rx_end: bool,
    /// Reads stop before this many more bytes, once, as at urgent data.
    mark: Option<usize>,
    tx: Vec<u8>,
    room: usize,
    no_space: bool,
    shut: bool,
    error: bool,
    ready: SocketReady,
    news: bool,
}

impl Sock {
    fn give(&mut self, data: &[u8]) {
        self.rx.extend(data);
        self.ready.read = true;
        self.news = true;
    }

    fn end(&mut self) {
        self.rx_end = true;
        self.ready.read = true;
        self.ready.read_closed = true;
        self.news = true;
    }

    fn make_room(&mut self, n: usize) {
        self.room += n;
        if n > 0 && std::mem::take(&mut self.no_space) {
            self.ready.write = true;
            self.news = true;
        }
    }

    fn read(&mut self, most: usize, splice: bool) -> Result<Vec<u8>, Moved> {
        if self.error {
            return Err(Moved::Broken);
        }
        let mut n = most.min(self.rx.len());
        if let Some(mark) = self.mark {
            n = n.min(mark);
            if n == mark && !splice {
                self.mark = None;
                if n == 0 {
                    return self.read(most, splice);
                }
            } else {
                self.mark = Some(mark - n);
            }
            if n == 0 {
                return Err(Moved::Nothing);
            }
        }
        if self.rx.is_empty() {
            return Err(if self.rx_end { Moved::End } else { Moved::Nothing });
        }
        Ok(self.rx.drain(..n).collect())
    }

    fn write(&mut self, data: &[u8]) -> usize {
        let n = data.len().min(self.room);
        self.room -= n;
        self.no_space |= n < data.len();
        self.tx.extend(&data[..n]);
        n
    }
}

#[derive(Default)]
struct Net {
    socks: [Sock; 2],
    connected_to: Option<Endpoint>,
    /// One per direction; `None` while it is lent to nobody.
    pipes: [Option<VecDeque<u8>>; 2],
    no_pipes: bool,
    /// Sockets closed, and whether by a reset.
    closed: Vec<(SockId, bool)>,
    reads: usize,
}

impl Net {
    fn sock(&mut self, s: SockId) -> &mut Sock {
        &mut self.socks[usize::try_from(s.0).unwrap()]
    }

    fn pipe(&mut self, pipe: PipeId) -> &mut VecDeque<u8> {
        self.pipes[usize::try_from(pipe.0).unwrap()].as_mut().unwrap()
    }

    fn lent(&self) -> bool {
        self.pipes.iter().any(Option::is_some)
    }
}

impl SpliceSockets for Net {
    fn connect_far(&mut self, id: FlowId, far: Far, to: Endpoint) -> Result<SockId, HostError> {
        assert_eq!((id, far), (ID, Far::Guest));
        self.connected_to = Some(to);
        Ok(SERVER)
    }
    fn receive(&mut self, s: SockId, buf: &mut [u8]) -> Moved {
        self.reads += 1;
        match self.sock(s).read(buf.len(), false) {
            Ok(data) => {
                buf[..data.len()].copy_from_slice(&data);
                Moved::Bytes(data.len())
            }
            Err(e) => e,
        }
    }
    fn take_pipe(&mut self) -> Option<PipeId> {
        let n = self.pipes.iter().position(Option::is_none).filter(|_| !self.no_pipes)?;
        self.pipes[n] = Some(VecDeque::new());
        let n = i32::try_from(n).unwrap();
        Some(PipeId(n, n))
    }
    fn return_pipe(&mut self, pipe: PipeId, empty: bool) {
        let lent = self.pipes[usize::try_from(pipe.0).unwrap()].take().unwrap();
        assert_eq!(empty, lent.is_empty());
    }
    fn fill(&mut self, from: SockId, pipe: PipeId) -> Moved {
        let room = PIPE - self.pipe(pipe).len();
        if room == 0 {
            return Moved::Nothing;
        }
        match self.sock(from).read(room, true) {
            Ok(data) => {
                self.pipe(pipe).extend(&data);
                Moved::Bytes(data.len())
            }
            Err(e) => e,
        }
    }
    fn drain(&mut self, pipe: PipeId, to: SockId, pending: usize) -> Moved {
        let data: Vec<u8> = self.pipe(pipe).iter().copied().collect();
        assert_eq!(pending, data.len());
        match self.sock(to).write(&data) {
            0 => Moved::Nothing,
            n => {
                self.pipe(pipe).drain(..n);
                Moved::Bytes(n)
            }
        }
    }
}

impl TcpSockets for Net {
    fn connect(&mut self, _: FlowId, _: Destination, _: SynMarks) -> Result<Connected, HostError> {
        unreachable!()
    }
    fn connect_error(&mut self, s: SockId) -> Option<HostError> {
        self.sock(s).error.then_some(HostError::Refused)
    }
    fn send(&mut self, s: SockId, data: &[IoSlice<'_>]) -> Sent {
        if self.sock(s).error {
            return Sent::Broken;
        }
        let data: Vec<u8> = data.iter().flat_map(|d| d.iter().copied()).collect();
        Sent::Bytes(self.sock(s).write(&data))
    }
    fn peek(&mut self, _: SockId, _: u32, _: &mut [u8]) -> Peeked {
        unreachable!()
    }
    fn seek(&mut self, _: SockId, _: u32) -> bool {
        unreachable!()
    }
    fn discard(&mut self, _: SockId, _: u32) -> bool {
        unreachable!()
    }
    fn shutdown(&mut self, s: SockId) -> bool {
        assert!(!std::mem::replace(&mut self.sock(s).shut, true), "shut twice");
        true
    }
    fn view(&mut self, _: SockId) -> Option<TcpView> {
        unreachable!()
    }
    fn free_space(&mut self, _: SockId) -> u32 {
        unreachable!()
    }
    fn send_buffer(&mut self, _: SockId) -> u32 {
        unreachable!()
    }
    fn set_tos(&mut self, _: SockId, _: bool, _: u8) {
        unreachable!()
    }
    fn peer_tos(&mut self, _: SockId) -> u8 {
        unreachable!()
    }
    fn close(&mut self, s: SockId) {
        self.closed.push((s, false));
    }
    fn abort(&mut self, s: SockId) {
        self.closed.push((s, true));
    }
}

struct Rig {
    net: Net,
    flow: Splice,
    pool: Pool,
    drops: Drops,
    lease: Lease,
    buf: Vec<u8>,
    now: Now,
}

impl Rig {
    /// A flow that is connecting, with a buffer and a pool of these sizes.
    fn connecting(buf: usize, pool: usize) -> Self {
        let mut net = Net::default();
        let flow =
            Splice::open(ID, CLIENT, (Far::Guest, at("127.0.0.53", 9000)), &mut net).unwrap();
        assert_eq!(net.connected_to, Some(at("127.0.0.53", 9000)));
        let pool = Pool::new(pool).unwrap();
        Self {
            net,
            flow,
            pool,
            drops: Drops::default(),
            lease: lease(),
            buf: vec![0; buf],
            now: Now(0),
        }
    }

    fn new(buf: usize, pool: usize) -> Self {
        let mut rig = Self::connecting(buf, pool);
        let ready = SocketReady { write: true, ..SocketReady::default() };
        assert_eq!(rig.event(true, ready), Verdict::Keep);
        rig
    }

    fn event(&mut self, far: bool, ready: SocketReady) -> Verdict {
        let mut io = Io {
            out: &mut (),
            net: &mut self.net,
            pool: &mut self.pool,
            boards: &mut Boards::new(),
            drops: &mut self.drops,
            fragmenter: &mut Fragmenter::new(&self.lease),
            lease: &self.lease,
            neighbours: &Neighbours::new(&self.lease),
            guest_mac: Mac::DEFAULT_OURS,
            timeouts: Timeouts::default(),
            now: self.now,
        };
        self.flow.on_socket(far, ready, &mut self.buf, &mut io)
    }

    /// Reports what has happened to the sockets, until nothing is left to do.
    fn settle(&mut self) -> Verdict {
        for far in [false, true] {
            let sock = &mut self.net.socks[usize::from(far)];
            if std::mem::take(&mut sock.news) {
                let ready = std::mem::take(&mut sock.ready);
                let mut verdict = self.event(far, ready);
                while verdict == Verdict::Keep && self.flow.wants_more() {
                    let again = SocketReady { read: true, write: true, ..SocketReady::default() };
                    verdict = self.event(false, again);
                }
                if verdict != Verdict::Keep {
                    return verdict;
                }
            }
        }
        Verdict::Keep
    }

    fn release(&mut self, how: Verdict) {
        self.flow.release(&mut self.net, &mut self.pool, how);
        assert!(!self.net.lent());
        assert_eq!(self.pool.used(), 0);
        self.net.closed.sort_by_key(|c| c.0.0);
    }
}

// [SPLICE-5] [SPLICE-11] A failed connection resets the client, and what it sent before waits.
#[test]
fn connecting() {
    let mut rig = Rig::connecting(10, 1 << 20);
    rig.net.socks[0].give(b"early");
    assert_eq!(rig.settle(), Verdict::Keep);
    assert_eq!(rig.net.socks[0].rx.len(), 5);
    rig.net.socks[1].room = 100;
    let ready = SocketReady { write: true, ..SocketReady::default() };
    assert_eq!(rig.event(true, ready), Verdict::Keep);
    assert_eq!(rig.net.socks[1].tx, b"early");

    let mut rig = Rig::connecting(10, 1 << 20);
    rig.net.socks[1].error = true;
    let ready = SocketReady { write: true, read: true, error: true, ..SocketReady::default() };
    assert_eq!(rig.event(true, ready), Verdict::Abort);
    rig.release(Verdict::Abort);
    assert_eq!(rig.net.closed, [(CLIENT, true), (SERVER, true)]);

    let mut rig = Rig::connecting(10, 1 << 20);
    let ready = SocketReady { read: true, ..SocketReady::default() };
    assert_eq!(rig.event(true, ready), Verdict::Abort);
}

// [D4] A message costs one read: the next one makes another event.
#[test]
fn one_read_per_message() {
    let mut rig = Rig::new(10, 1 << 20);
    rig.net.socks[1].room = 100;
    rig.net.socks[0].give(b"ping");
    assert_eq!(rig.settle(), Verdict::Keep);
    assert_eq!(rig.net.socks[1].tx, b"ping");
    assert_eq!(rig.net.reads, 1);
    assert!(!rig.net.lent(), "no pipe for a small message");
}

// [SPLICE-11] [SPLICE-13] Only a pending error resets; that both directions are shut does not.
#[test]
fn hang_up_drains() {
    let mut rig = Rig::new(10, 1 << 20);
    rig.net.socks[0].end();
    assert_eq!(rig.settle(), Verdict::Keep);
    assert!(rig.net.socks[1].shut);
    rig.net.socks[1].give(&[7; 200]);
    rig.net.socks[1].end();
    assert_eq!(rig.settle(), Verdict::Keep);
    // The error flag without an error: the peer's queue of error messages, say.
    let odd = SocketReady { error: true, ..SocketReady::default() };
    assert_eq!(rig.event(true, odd), Verdict::Keep);
    rig.net.socks[0].make_room(1000);
    assert_eq!(rig.settle(), Verdict::Close);
    assert_eq!(rig.net.socks[0].tx.len(), 200);
    rig.release(Verdict::Close);
    assert_eq!(rig.net.closed, [(CLIENT, false), (SERVER, false)]);
}

// [SPLICE-11] [SPLICE-13] An error resets both, whatever is under way.
#[test]
fn errors_reset_both() {
    let mut rig = Rig::new(10, 1 << 20);
    rig.net.socks[0].give(&[7; 200]);
    assert_eq!(rig.settle(), Verdict::Keep);
    assert!(rig.net.lent(), "data waits in the pipe or before it");
    rig.net.socks[1].error = true;
    let ready = SocketReady { error: true, read: true, write: true, read_closed: true };
    assert_eq!(rig.event(true, ready), Verdict::Abort);
    rig.release(Verdict::Abort);
    assert_eq!(rig.net.closed, [(CLIENT, true), (SERVER, true)]);
}

// [SPLICE-6] Without pipes everything is copied, without memory everything is spliced; with
// neither nothing is read, as it could be lost.
#[test]
fn short_of_pipes_or_memory() {
    for (pool, no_pipes) in [(1 << 20, true), (0, false)] {
        let mut rig = Rig::new(10, pool);
        rig.net.no_pipes = no_pipes;
        rig.net.socks[0].give(&[7; 500]);
        rig.net.socks[0].end();
        for _ in 0..500 {
            rig.net.socks[1].make_room(1);
            assert_eq!(rig.settle(), Verdict::Keep);
        }
        assert_eq!(rig.net.socks[1].tx.len(), 500);
        assert!(rig.net.socks[1].shut);
        rig.release(Verdict::Abort);
    }
    let mut rig = Rig::new(10, 0);
    rig.net.no_pipes = true;
    rig.net.socks[1].room = 100;
    rig.net.socks[0].give(b"x");
    assert_eq!(rig.settle(), Verdict::Keep);
    assert_eq!(rig.net.reads, 0);
    // A timer tries again, and less often if that is in vain; there is no other event.
    let mut visits = 0;
    while rig.now.ms() < 10_000 {
        let at = rig.flow.deadline().at().unwrap();
        assert!(at > rig.now.ms() && !rig.flow.wants_more());
        rig.now = Now(at * 1000);
        assert!(rig.flow.retries(rig.now));
        assert_eq!(rig.event(false, SocketReady::default()), Verdict::Keep);
        visits += 1;
    }
    assert!((10..30).contains(&visits), "{visits} visits in 10 s");
    rig.net.no_pipes = false;
    let at = rig.flow.deadline().at().unwrap();
    rig.now = Now(at * 1000);
    assert_eq!(rig.event(false, SocketReady::default()), Verdict::Keep);
    assert_eq!(rig.net.socks[1].tx, b"x");
    assert!(!rig.flow.deadline().is_armed());
    rig.release(Verdict::Abort);
}

// [D4] A visit has a budget, and what is left is announced.
#[test]
fn budget() {
    let mut rig = Rig::new(4096, 1 << 20);
    rig.net.no_pipes = true;
    rig.net.socks[1].room = usize::MAX;
    rig.net.socks[0].give(&vec![7; 2 * BUDGET + 1]);
    let ready = SocketReady { read: true, ..SocketReady::default() };
    for visit in 1..=2 {
        assert_eq!(rig.event(false, ready), Verdict::Keep);
        assert_eq!(rig.net.socks[1].tx.len(), visit * BUDGET);
        assert!(rig.flow.wants_more());
    }
    assert_eq!(rig.event(false, SocketReady::default()), Verdict::Keep);
    assert!(!rig.flow.wants_more());
    assert_eq!(rig.net.socks[1].tx.len(), 2 * BUDGET + 1);
}

/// What may happen to a connection from the outside.
#[derive(Clone, Debug)]
enum Op {
    Give(bool, usize),
    Mark(bool, usize),
    Room(bool, usize),
    End(bool),
    Settle,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (any::<bool>(), 1..80usize).prop_map(|(s, n)| Op::Give(s, n)),
        1 => (any::<bool>(), 0..80usize).prop_map(|(s, n)| Op::Mark(s, n)),
        4 => (any::<bool>(), 1..80usize).prop_map(|(s, n)| Op::Room(s, n)),
        1 => any::<bool>().prop_map(Op::End),
        6 => Just(Op::Settle),
    ]
}

proptest! {
    // [SPLICE-8] [SPLICE-9] [SPLICE-10] [SPLICE-12] [SPLICE-17] Whatever happens in whatever order, every byte
    // arrives once and in order, then FIN; no wake-up is lost.
    #[test]
    fn everything_arrives(
        ops in proptest::collection::vec(op(), 0..60),
        buf in 1..60usize,
        memory in any::<bool>(),
        no_pipes in any::<bool>(),
    ) {
        let mut rig = Rig::new(buf, if memory || no_pipes { 1 << 20 } else { 0 });
        rig.net.no_pipes = no_pipes;
        let mut sent = [Vec::new(), Vec::new()];
        let mut next = 0u8;
        let mut verdict = Verdict::Keep;
        for op in ops {
            match op {
                Op::Give(s, n) if !rig.net.socks[usize::from(s)].rx_end => {
                    let data: Vec<u8> = (0..n).map(|_| { next = next.wrapping_add(1); next }).collect();
                    sent[usize::from(s)].extend(&data);
                    rig.net.socks[usize::from(s)].give(&data);
                }
                // Getting past urgent data takes memory for a copy.
                Op::Mark(s, n) if memory || no_pipes => {
                    let sock = &mut rig.net.socks[usize::from(s)];
                    if !sock.rx_end && n < sock.rx.len() {
                        sock.mark = Some(n);
                        sock.ready.read = true;
                        sock.ready.read_closed = true;
                        sock.news = true;
                    }
                }
                Op::Room(s, n) => rig.net.socks[usize::from(s)].make_room(n),
                Op::End(s) => rig.net.socks[usize::from(s)].end(),
                Op::Settle if verdict == Verdict::Keep => verdict = rig.settle(),
                _ => {}
            }
        }
        for sock in &mut rig.net.socks {
            sock.end();
        }
        for _ in 0..50 {
            if verdict == Verdict::Keep {
                for sock in &mut rig.net.socks {
                    sock.make_room(100_000);
                }
                verdict = rig.settle();
            }
        }
        prop_assert_eq!(verdict, Verdict::Close);
        prop_assert_eq!(&rig.net.socks[1].tx, &sent[0]);
        prop_assert_eq!(&rig.net.socks[0].tx, &sent[1]);
        prop_assert!(rig.net.socks.iter().all(|s| s.shut));
        rig.release(verdict);
    }
}
