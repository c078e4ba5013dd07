//! What happens in one case: everything random is here, so that shrinking is plain.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::net::{Behaviour, Outcome};

/// Segments of a long stream.
const SEGMENTS: usize = 300;

/// A pool with enough for one connection.
const AMPLE_POOL: usize = 300_000;

/// What becomes of a frame on the link to or from the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Arrives,
    Lost,
    /// Once more after so many microseconds.
    Twice(u64),
    /// Only after so many microseconds: others overtake it.
    Late(u64),
}

/// Something that one of the parties does.
#[derive(Clone, Debug)]
pub enum Act {
    GuestWrites(usize),
    GuestCloses,
    /// The room the guest has for what it receives from now on.
    GuestRoom(u32),
    GuestResets,
    PeerWrites(usize),
    PeerCloses,
    /// How much the peer's application reads at a time.
    PeerReads(usize),
    PeerResets,
    /// The socket is said to be ready to read, to write.
    Ready(bool, bool),
    /// What the socket is ready for is not reported for the time being.
    Silent(bool),
    /// The device of the guest takes nothing for the time being.
    LinkFull(bool),
    /// It refuses so many frames.
    LinkRefuses(u32),
    /// The guest asks for the window to be confirmed, as keepalives do.
    GuestProbes,
}

/// The guest's stack.
#[derive(Clone, Debug)]
pub struct Stack {
    pub isn: u32,
    pub mss: Option<u16>,
    pub scale: Option<u8>,
    pub sack: bool,
    pub timestamps: bool,
    /// Keeps what is ahead of a hole.
    pub keeps: bool,
    /// Acknowledges every second segment, or after 40 ms.
    pub lazy: bool,
    /// Its acknowledgement of SYN,ACK waits for data.
    pub eager: bool,
    /// Longest payload of segments, in turn.
    pub cuts: Vec<usize>,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub inbound: bool,
    pub v6: bool,
    pub mtu: u16,
    pub isn: u32,
    pub pool: usize,
    pub seed: u64,
    pub host: Behaviour,
    pub stack: Stack,
    /// Time on the link, microseconds.
    pub link_us: u64,
    /// Most frames that arrive in one batch.
    pub batch: usize,
    /// How late timers are, in turn, microseconds.
    pub jitter: Vec<u64>,
    pub to_guest: Vec<Fate>,
    pub from_guest: Vec<Fate>,
    /// Each so many microseconds after the one before.
    pub acts: Vec<(u64, Act)>,
}

impl Plan {
    /// Frames that may have to be repeated for want of an answer.
    pub fn losses(&self) -> u64 {
        let frames = self.to_guest.iter().chain(&self.from_guest);
        let mut lost = frames.filter(|f| **f == Fate::Lost).count() as u64;
        let (mut full, mut full_us) = (false, 0);
        for (us, act) in &self.acts {
            full_us += if full { *us } else { 0 };
            match act {
                Act::LinkRefuses(n) => lost += u64::from(*n),
                Act::LinkFull(now) => full = *now,
                _ => {}
            }
        }
        // Meanwhile nothing is repeated more often than once a second.
        lost + if full || full_us > 0 { full_us.div_ceil(1_000_000) + 1 } else { 0 }
    }

    /// What does not fit the socket has room elsewhere.
    pub fn has_room(&self) -> bool {
        self.pool >= AMPLE_POOL || self.host.short_sends == 0
    }

    /// Frames may overtake each other.
    pub fn reorders(&self) -> bool {
        let late = |f: &Fate| matches!(f, Fate::Late(_) | Fate::Twice(_));
        self.to_guest.iter().chain(&self.from_guest).any(late)
    }

    /// Longest stream of the guest: what takes some hundred segments.
    pub fn most_of_guest(&self) -> usize {
        SEGMENTS * self.stack.cuts.iter().sum::<usize>() / self.stack.cuts.len()
    }

    pub fn most_of_peer(&self) -> usize {
        let mss = usize::from(self.stack.mss.unwrap_or(536)).max(48);
        SEGMENTS * mss.min(self.host.peer_write)
    }

    pub fn refused(&self) -> bool {
        !self.inbound && matches!(self.host.outcome, Outcome::LaterError(..))
    }
}

pub fn plans() -> impl Strategy<Value = Plan> {
    let us = (any::<bool>(), any::<bool>(), select(vec![65_520, 1500, 1280, 576, 68, 0]));
    let numbers = (isn(), select(vec![64 << 20, 300_000, 64 << 10, 4096, 0]), any::<u64>());
    let link = (
        select(vec![0, 0, 100, 10_000]),
        select(vec![64, 1, 2, 8]),
        vec(select(vec![0, 500, 1500, 20_000]), 0..4),
    );
    // Some cases are without any trouble on the link: those must go through whatever else is so.
    let fates = prop_oneof![Just(vec![]), vec(fate(6), 0..40), vec(fate(1), 0..150)];
    let acts = vec((select(vec![0, 0, 10, 1000, 50_000, 300_000, 2_000_000]), act()), 0..16);
    (us, numbers, host(), stack(), link, fates.clone(), fates, acts).prop_map(
        |(us, numbers, mut host, stack, link, to_guest, from_guest, acts)| {
            if numbers.1 < AMPLE_POOL && host.short_sends == 1 {
                // With a socket that never takes what it says it can, and nowhere else to put it,
                // bytes trickle.
                host.short_sends = 2;
            }
            Plan {
                inbound: us.0,
                v6: us.1,
                mtu: us.2,
                isn: numbers.0,
                pool: numbers.1,
                seed: numbers.2,
                host,
                stack,
                link_us: link.0,
                batch: link.1,
                jitter: link.2,
                to_guest,
                from_guest,
                acts,
            }
        },
    )
}

/// Initial sequence numbers, some about to wrap.
fn isn() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(5000u32),
        (0u32..100_000).prop_map(|n| u32::MAX - n),
        (0u32..100_000).prop_map(|n| 0x8000_0000 - n),
        any::<u32>(),
    ]
}

fn host() -> impl Strategy<Value = Behaviour> {
    let outcome = prop_oneof![
        6 => Just(Outcome::Now),
        6 => select(vec![0, 1000, 3_000_000]).prop_map(Outcome::Later),
        1 => Just(Outcome::LaterError(1000, passt::translate::HostError::Refused)),
    ];
    let buffers = (
        select(vec![1 << 20, 200_000, 20_000, 3000]),
        select(vec![1 << 20, 100_000, 5000]),
        select(vec![1 << 20, 100_000, 2000]),
    );
    let speed = (
        select(vec![0, 5, 300, 20_000, 400_000]),
        select(vec![usize::MAX, 5000]),
        select(vec![usize::MAX, 20_000, 1000, 1]),
        select(vec![0, 100, 10_000]),
    );
    let kernel = (
        select(vec![0, 1, 2, 5]),
        any::<bool>(),
        select(vec![0, 100_000, 100_000_000]),
        any::<bool>(),
        any::<bool>(),
        select(vec![0, 0, 0, 5]),
    );
    (outcome, buffers, speed, kernel).prop_map(|(outcome, buffers, speed, kernel)| Behaviour {
        outcome,
        sndbuf: buffers.0,
        rcvbuf: buffers.1,
        peer_rcvbuf: buffers.2,
        rtt_us: speed.0,
        peer_read: speed.1,
        peer_read_us: 1000,
        peer_write: speed.2,
        // One byte at a time, but neither all at the same time nor for hours.
        peer_write_us: if speed.2 == 1 { 10 } else { speed.3 },
        short_sends: kernel.0,
        info: kernel.1,
        rate: kernel.2,
        tos: 0,
        refusals: kernel.5,
        peek_off: kernel.3,
        merge: kernel.4,
    })
}

fn stack() -> impl Strategy<Value = Stack> {
    let mss = prop_oneof![
        4 => Just(Some(1460)),
        1 => Just(None),
        3 => select(vec![0, 1, 3, 4, 48, 50, 536, 9000, 65_495, 65_535]).prop_map(Some),
    ];
    let scale = select(vec![Some(7), None, Some(0), Some(14), Some(255)]);
    let cuts = vec(select(vec![1460, 60_000, 1, 7, 100, 536, 4096, 20_001]), 1..5);
    let options = (mss, scale, any::<bool>(), any::<bool>());
    let manners = (any::<bool>(), any::<bool>(), any::<bool>());
    (isn(), options, manners, cuts).prop_map(|(isn, options, manners, cuts)| Stack {
        isn,
        mss: options.0,
        scale: options.1,
        sack: options.2,
        timestamps: options.3,
        keeps: manners.0,
        lazy: manners.1,
        eager: manners.2,
        cuts,
    })
}

fn fate(good: u32) -> impl Strategy<Value = Fate> {
    let delay = select(vec![1, 700, 30_000, 400_000, 1_500_000]);
    prop_oneof![
        good * 3 => Just(Fate::Arrives),
        1 => Just(Fate::Lost),
        1 => delay.clone().prop_map(Fate::Twice),
        1 => delay.prop_map(Fate::Late),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let size = || prop_oneof![1usize..200, 1usize..5000, 1usize..60_000];
    prop_oneof![
        10 => size().prop_map(Act::GuestWrites),
        10 => size().prop_map(Act::PeerWrites),
        2 => Just(Act::GuestCloses),
        2 => Just(Act::PeerCloses),
        6 => select(vec![0, 1, 100, 3000, 65_535, 1 << 20]).prop_map(Act::GuestRoom),
        3 => select(vec![0, 1000, usize::MAX]).prop_map(Act::PeerReads),
        1 => Just(Act::GuestResets),
        1 => Just(Act::PeerResets),
        3 => (any::<bool>(), any::<bool>()).prop_map(|(r, w)| Act::Ready(r, w)),
        2 => any::<bool>().prop_map(Act::Silent),
        2 => any::<bool>().prop_map(Act::LinkFull),
        2 => (1u32..4).prop_map(Act::LinkRefuses),
        2 => Just(Act::GuestProbes),
    ]
}
