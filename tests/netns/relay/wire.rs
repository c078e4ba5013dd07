//! One direction of a link: what it does to each frame, and the frames that are on their way.
//!
//! # Theory of operation
//!
//! A frame first waits for the wire to become free (the queue; a frame that would make it too long
//! is dropped), then takes its size divided by the rate to be put on it, and then travels for the
//! delay. All that is known when the frame comes, so it is given the time when it has to leave
//! ([`Wire::accept`]) and kept until then ([`Wire::take`]).
//!
//! Frames are kept in one ring of bytes, in the order in which they came, so nothing is allocated
//! per frame. A heap holds the times. Room is given back in order: a frame that others overtake
//! holds up those behind it in the ring, but not on the wire.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use crate::tap::{Frames, VNET_LEN};

/// Longest frame with its header: an IP packet of 65 535 bytes behind Ethernet.
const FRAME_MAX: usize = VNET_LEN + 14 + 65_535;

/// Room for a link without a rate.
const UNLIMITED: usize = 64 << 20;

/// What one direction of a link does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Time that every frame takes.
    pub(crate) delay: Duration,
    /// Additional time, from nothing to this, chosen for each frame. Order is kept.
    pub(crate) jitter: Duration,
    /// Bits per second; 0 is no limit.
    pub(crate) rate: u64,
    /// Bytes that may wait for the wire.
    pub(crate) queue: u64,
    /// Part of the frames that is lost.
    pub(crate) loss: f64,
    /// Part of the frames that is late, so that others overtake them, and by how much.
    pub(crate) reorder: f64,
    /// How late those are.
    pub(crate) late: Duration,
    /// Part of the frames that arrives twice.
    pub(crate) duplicate: f64,
}

impl Shape {
    /// A wire that does nothing.
    pub(crate) const PLAIN: Shape = Shape {
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        rate: 0,
        queue: u64::MAX,
        loss: 0.0,
        reorder: 0.0,
        late: Duration::from_millis(2),
        duplicate: 0.0,
    };

    /// Bytes that can be on their way at once, waiting or travelling.
    fn capacity(&self) -> usize {
        let travel = self.delay + self.jitter + self.late;
        let flying = u128::from(self.rate) * travel.as_nanos() / 8_000_000_000;
        let bytes = match self.rate {
            0 => UNLIMITED as u128,
            // A twentieth more: the thread may be late in taking frames out.
            _ => (flying + u128::from(self.queue)) * 21 / 20 + (8 << 20),
        };
        usize::try_from(bytes).unwrap()
    }
}

/// What a direction did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Frames that came, and their packets on the wire.
    pub(crate) frames: u64,
    pub(crate) packets: u64,
    /// Their size on the wire.
    pub(crate) bytes: u64,
    /// Frames delivered, copies included.
    pub(crate) delivered: u64,
    /// Frames dropped because the queue was full.
    pub(crate) dropped: u64,
    /// Frames lost, late, doubled as asked for.
    pub(crate) lost: u64,
    pub(crate) late: u64,
    pub(crate) doubled: u64,
    /// Frames lost because the relay did not keep up.
    pub(crate) failed: u64,
    /// Longest time that a frame was delivered too late, nanoseconds.
    pub(crate) lag: u64,
    /// Most bytes that ever waited for the wire.
    pub(crate) longest_queue: u64,
}

struct Kept {
    at: usize,
    len: usize,
    /// Deliveries to come.
    copies: u8,
}

/// One direction. Times are nanoseconds of one clock.
pub(crate) struct Wire {
    shape: Shape,
    frames: Frames,
    random: Random,
    /// When the wire has put everything on its way that came so far.
    free_at: u64,
    /// When the latest frame arrives.
    last: u64,
    ring: Vec<u8>,
    /// Where the next frame goes.
    next: usize,
    kept: VecDeque<Kept>,
    /// Number of the first of them.
    first: u64,
    due: BinaryHeap<Reverse<(u64, u64)>>,
    pub(crate) counts: Counts,
}

impl Wire {
    pub(crate) fn new(shape: Shape, frames: Frames, seed: u64) -> Wire {
        let capacity = shape.capacity();
        Wire {
            shape,
            frames,
            random: Random(seed),
            free_at: 0,
            last: 0,
            // Touched only as far as it is used.
            ring: vec![0; capacity.max(4 * FRAME_MAX)],
            next: 0,
            kept: VecDeque::with_capacity(1 << 16),
            first: 0,
            due: BinaryHeap::with_capacity(1 << 16),
            counts: Counts::default(),
        }
    }

    /// Where the next frame is to be put; `None` if there is no room.
    pub(crate) fn room(&mut self) -> Option<&mut [u8]> {
        let at = match self.kept.front() {
            None => 0,
            Some(oldest) if self.next > oldest.at => {
                if self.next + FRAME_MAX <= self.ring.len() {
                    self.next
                } else if FRAME_MAX < oldest.at {
                    0
                } else {
                    return None;
                }
            }
            Some(oldest) if self.next + FRAME_MAX < oldest.at => self.next,
            Some(_) => return None,
        };
        self.next = at;
        Some(&mut self.ring[at..at + FRAME_MAX])
    }

    /// A frame of `len` bytes came and was put in the room.
    pub(crate) fn accept(&mut self, now: u64, len: usize) {
        let (size, packets) = on_the_wire(&self.ring[self.next..self.next + len], self.frames);
        self.counts.frames += 1;
        self.counts.packets += packets;
        self.counts.bytes += size;
        let start = self.free_at.max(now);
        if self.shape.rate != 0 {
            let waiting = scale(start - now, self.shape.rate, 8_000_000_000);
            self.counts.longest_queue = self.counts.longest_queue.max(waiting);
            if waiting + size > self.shape.queue {
                self.counts.dropped += 1;
                return;
            }
            self.free_at = start + scale(size, 8_000_000_000, self.shape.rate);
        } else {
            self.free_at = start;
        }
        // What is lost has used the wire all the same.
        if self.random.happens(self.shape.loss) {
            self.counts.lost += 1;
            return;
        }
        let jitter = self.random.below(nanos(self.shape.jitter));
        let mut at = self.free_at + nanos(self.shape.delay) + jitter;
        if self.random.happens(self.shape.reorder) {
            self.counts.late += 1;
            at += nanos(self.shape.late);
        } else {
            at = at.max(self.last);
            self.last = at;
        }
        let copies = 1 + u8::from(self.random.happens(self.shape.duplicate));
        self.counts.doubled += u64::from(copies - 1);
        let number = self.first + self.kept.len() as u64;
        for _ in 0..copies {
            self.due.push(Reverse((at, number)));
        }
        self.kept.push_back(Kept { at: self.next, len, copies });
        self.next += len;
    }

    /// A frame came and there was no room.
    pub(crate) fn refuse(&mut self) {
        self.counts.frames += 1;
        self.counts.failed += 1;
    }

    /// When the next frame has to be delivered.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// Hands the next frame that is due to `deliver`, which says whether it could; false if there
    /// is none.
    pub(crate) fn take(&mut self, now: u64, deliver: impl FnOnce(&[u8]) -> bool) -> bool {
        let Some(&Reverse((at, number))) = self.due.peek() else { return false };
        if at > now {
            return false;
        }
        self.due.pop();
        let kept = &mut self.kept[usize::try_from(number - self.first).unwrap()];
        kept.copies -= 1;
        self.counts.lag = self.counts.lag.max(now - at);
        if deliver(&self.ring[kept.at..kept.at + kept.len]) {
            self.counts.delivered += 1;
        } else {
            self.counts.failed += 1;
        }
        while self.kept.front().is_some_and(|k| k.copies == 0) {
            self.kept.pop_front();
            self.first += 1;
        }
        true
    }
}

/// Bytes that the packets of a frame have on a wire, Ethernet headers included, and their number.
fn on_the_wire(frame: &[u8], frames: Frames) -> (u64, u64) {
    if frames == Frames::Wire {
        return (frame.len() as u64, 1);
    }
    let (vnet, packet) = frame.split_at(VNET_LEN.min(frame.len()));
    let field = |at: usize| usize::from(u16::from_ne_bytes([vnet[at], vnet[at + 1]]));
    let (train, segment, transport) = (vnet[1] != 0, field(4), field(6));
    if !train || segment == 0 || packet.len() < transport + 20 {
        return (packet.len() as u64, 1);
    }
    let headers = transport + usize::from(packet[transport + 12] >> 4) * 4;
    let payload = packet.len().saturating_sub(headers);
    let packets = payload.div_ceil(segment).max(1);
    ((payload + packets * headers) as u64, packets as u64)
}

/// `n * times / by`.
fn scale(n: u64, times: u64, by: u64) -> u64 {
    u64::try_from(u128::from(n) * u128::from(times) / u128::from(by)).unwrap()
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap()
}

/// SplitMix64: a sequence that follows from its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number less than `end`, or 0.
    fn below(&mut self, end: u64) -> u64 {
        scale(self.next() >> 1, end, 1 << 63)
    }

    fn happens(&mut self, part: f64) -> bool {
        part > 0.0 && (self.next() as f64) < part * u64::MAX as f64
    }
}
