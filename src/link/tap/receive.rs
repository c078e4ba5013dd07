//! Frames of the guest, and in which order queues are read.
//!
//! Queues with something are read in turn. A turn of the first one, with the flows that we answer,
//! is [`FIRST`] frames long, that of another one [`OTHER`]. When a flow may have come to the first
//! queue from another one, the first one waits until the others have been read empty: what was in
//! there before the flow moved is older than all that came to the first queue afterwards. It waits
//! for a full queue at most, so that a flood with answers does not keep it waiting for ever; frames
//! of a flow that moves in the midst of such a flood may change their order.
//!
//! Whether a queue has something is told by the loop ([`Link::ready`]), so that an empty one costs
//! no system call.

use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use super::{Device, FRAME_MAX, QUEUES, TapTx};
use crate::config::GUEST_QUEUE;
use crate::event::{Registrar, Source};
use crate::link::{End, Link, RxFrame};
use crate::wire::{VNET_LEN, Vnet};

/// Frames that are read of the first queue while others have some, too.
const FIRST: u32 = 48;

/// Frames that are read of another queue meanwhile.
const OTHER: u32 = 4;

/// Result of reading a frame.
#[derive(Debug)]
enum Fill {
    Frame(usize),
    Empty,
    Gone(io::Error),
}

/// Frames of the guest.
#[derive(Debug)]
pub struct TapRx {
    device: Arc<Device>,
    vnet: bool,
    buf: Box<[u8]>,
    gone: Option<io::Error>,
    order: Order,
}

impl TapRx {
    pub(super) fn new(device: Arc<Device>, vnet: bool) -> Self {
        let buf = vec![0; VNET_LEN.saturating_add(FRAME_MAX)].into_boxed_slice();
        let order = Order::new(device.queues().count());
        Self { device, vnet, buf, gone: None, order }
    }

    fn fill(&mut self) -> Fill {
        while let Some(queue) = self.order.next(&self.device) {
            let Some(mut file) = self.device.queues().nth(queue) else { break };
            match file.read(&mut self.buf) {
                Ok(0) => return Fill::Gone(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => return Fill::Frame(n),
                Err(e) => match e.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // EIO is an interface that is down, not one that is gone.
                    Some(libc::EAGAIN | libc::EIO) => self.order.set_ready(queue, false),
                    _ => return Fill::Gone(e),
                },
            }
        }
        Fill::Empty
    }
}

impl Link for TapRx {
    type Tx = TapTx;

    fn begin(&mut self, registrar: &Registrar) -> io::Result<()> {
        for (number, file) in (0..).zip(self.device.queues()) {
            registrar.add(file.as_fd(), Source::Link(number), false)?;
        }
        Ok(())
    }

    fn ready(&mut self, number: u8) {
        self.order.set_ready(usize::from(number), true);
    }

    fn next_frame(&mut self) -> Option<RxFrame<'_>> {
        let len = match self.fill() {
            Fill::Frame(len) => len,
            Fill::Empty => return None,
            Fill::Gone(e) => {
                self.gone = Some(e);
                return None;
            }
        };
        let data = self.buf.get(..len).unwrap_or_default();
        if !self.vnet {
            return Some(RxFrame { vnet: Vnet::default(), frame: data });
        }
        // A header we cannot read makes a frame that parses as nothing.
        let (head, frame) = data.split_first_chunk().unwrap_or((&[0; VNET_LEN], &[]));
        match Vnet::decode(head) {
            Some(vnet) => Some(RxFrame { vnet, frame }),
            None => Some(RxFrame { vnet: Vnet::default(), frame: &[] }),
        }
    }

    fn ended(&mut self, _out: &mut TapTx) -> Option<End> {
        self.gone.take().map(End::Device)
    }
}

/// Whose turn it is.
#[derive(Debug)]
struct Order {
    /// How many queues there are.
    count: usize,
    /// Which of them may have something.
    ready: [bool; QUEUES],
    /// Whose turn it is.
    at: usize,
    /// Frames left of it.
    left: u32,
    /// The others are read empty, in one turn together.
    emptying: bool,
    /// There were too many in the others: the first queue has its turn before that is tried again.
    owed: bool,
}

impl Order {
    fn new(count: usize) -> Self {
        let ready = [false; QUEUES];
        Self { count, ready, at: 0, left: FIRST, emptying: false, owed: false }
    }

    fn is_ready(&self, queue: usize) -> bool {
        self.ready.get(queue).is_some_and(|r| *r)
    }

    fn set_ready(&mut self, queue: usize, ready: bool) {
        if let Some(r) = self.ready.get_mut(queue) {
            *r = ready;
        }
    }

    /// The queue to read a frame from; `None` if none has any.
    fn next(&mut self, device: &Device) -> Option<usize> {
        while self.ready.contains(&true) {
            if self.at == 0 && self.is_ready(0) && !self.owed && device.has_moved() {
                device.set_moved(false);
                self.empty_others();
            }
            if self.left > 0 && self.is_ready(self.at) {
                self.left = self.left.saturating_sub(1);
                return Some(self.at);
            }
            self.pass_on();
        }
        None
    }

    fn empty_others(&mut self) {
        // We may not have been told yet.
        self.ready.iter_mut().take(self.count).for_each(|r| *r = true);
        (self.at, self.left, self.emptying) = (1, GUEST_QUEUE, true);
    }

    /// It is the next one's turn.
    fn pass_on(&mut self) {
        self.owed = self.emptying && self.left == 0;
        self.at = self.at.saturating_add(1);
        if self.at >= self.count || self.owed {
            (self.at, self.left, self.emptying) = (0, FIRST, false);
        } else if !self.emptying {
            self.left = OTHER;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests {
    use std::fs::File;
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn device() -> Device {
        let first = File::open("/dev/null").unwrap();
        Device { first, others: Vec::new(), moved: AtomicBool::new(false) }
    }

    /// Reads so many frames of queues that have these; how many of each were read, and what is left.
    fn read(
        order: &mut Order,
        device: &Device,
        frames: usize,
        has: &mut [usize; QUEUES],
    ) -> [usize; QUEUES] {
        let mut read = [0; QUEUES];
        while read.iter().sum::<usize>() < frames {
            let Some(queue) = order.next(device) else { break };
            if has[queue] == 0 {
                order.set_ready(queue, false);
            } else {
                has[queue] -= 1;
                read[queue] += 1;
            }
        }
        read
    }

    fn all_ready() -> Order {
        let mut order = Order::new(QUEUES);
        (0..QUEUES).for_each(|queue| order.set_ready(queue, true));
        order
    }

    #[test]
    fn the_first_queue_is_read_most() {
        let (mut order, device, mut has) = (all_ready(), device(), [usize::MAX; QUEUES]);
        assert_eq!(read(&mut order, &device, 120, &mut has), [96, 8, 8, 8]);
        // Turns of who has nothing go to the others.
        let mut has = [0, 10, 0, 100];
        assert_eq!(read(&mut order, &device, usize::MAX, &mut has), [0, 10, 0, 100]);
        assert_eq!(order.next(&device), None);
        order.set_ready(2, true);
        assert_eq!(order.next(&device), Some(2));
    }

    #[test]
    fn the_others_are_emptied_before_a_flow_that_moved() {
        let (mut order, device, mut has) = (all_ready(), device(), [100, 50, 0, 50]);
        assert_eq!(read(&mut order, &device, 10, &mut has), [10, 0, 0, 0]);
        device.set_moved(true);
        // Nobody has told of what came since.
        order.set_ready(3, false);
        assert_eq!(read(&mut order, &device, 100, &mut has), [0, 50, 0, 50]);
        assert_eq!(read(&mut order, &device, 90, &mut has), [90, 0, 0, 0]);
        // Where only the others have something there is nothing to keep in order.
        device.set_moved(true);
        let mut has = [0, 8, 8, 8];
        order.set_ready(0, false);
        (1..QUEUES).for_each(|queue| order.set_ready(queue, true));
        assert_eq!(read(&mut order, &device, 12, &mut has), [0, 4, 4, 4]);
        assert!(device.has_moved());
    }

    #[test]
    fn others_without_end_do_not_starve_the_first_queue() {
        let (mut order, device, mut has) = (all_ready(), device(), [usize::MAX; QUEUES]);
        let mut total = [0; QUEUES];
        for _ in 0..100 {
            device.set_moved(true);
            let read = read(&mut order, &device, 1000, &mut has);
            total = std::array::from_fn(|n| total[n] + read[n]);
        }
        assert!(total[0] >= 20 * FIRST as usize, "{total:?}");
    }
}
