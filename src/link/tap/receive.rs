//! Frames of the guest, and in which order queues are read.
//!
//! Queues with something are read in turn. A turn of the first one, with the flows that we answer,
//! is [`FIRST`] frames long, that of another one [`OTHER`]. When a flow may have come to the first
//! queue from another one, the first one waits until the others have been read empty: what was in
//! there before the flow moved is older than all that came to the first queue afterwards. It waits
//! for as many frames as a queue holds at most, and has as long a turn then: a flood that is answered
//! does not keep it waiting for ever, but frames of a flow that moves meanwhile may change their order.
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

/// Whose turn it is: a weighted round robin.
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
    /// Which of the others have turns before the first one, until they are found empty once.
    before: [bool; QUEUES],
    /// Frames that the first queue has waited for because of that.
    waited: u32,
}

impl Order {
    fn new(count: usize) -> Self {
        let [ready, before] = [[false; QUEUES]; 2];
        Self { count, ready, at: 0, left: FIRST, before, waited: 0 }
    }

    fn set_ready(&mut self, queue: usize, ready: bool) {
        if let Some(r) = self.ready.iter_mut().take(self.count).nth(queue) {
            *r = ready;
        }
        if let Some(b) = self.before.get_mut(queue).filter(|_| !ready) {
            *b = false;
        }
    }

    fn is_ready(&self, queue: usize) -> bool {
        self.ready.get(queue).is_some_and(|r| *r)
    }

    fn is_emptying(&self) -> bool {
        self.before.contains(&true)
    }

    /// The queue to read a frame from; `None` if none has any.
    fn next(&mut self, device: &Device) -> Option<usize> {
        while self.ready.contains(&true) {
            let may_wait = self.waited < GUEST_QUEUE;
            if self.is_emptying() && !may_wait {
                self.before = [false; QUEUES];
                // A turn as long as its wait.
                (self.at, self.left) = (0, self.waited);
            } else if self.at == 0 && self.is_ready(0) && may_wait && device.has_moved() {
                device.set_moved(false);
                // Also those that nobody has told of yet.
                let others = self.ready.iter_mut().zip(&mut self.before);
                others.take(self.count).skip(1).for_each(|(r, b)| (*r, *b) = (true, true));
                (self.at, self.left) = (1, OTHER);
            }
            let emptying = self.is_emptying();
            let has = if emptying { &self.before } else { &self.ready };
            if self.left > 0 && has.get(self.at).is_some_and(|h| *h) {
                self.left = self.left.saturating_sub(1);
                self.waited = self.waited.saturating_add(u32::from(emptying));
                return Some(self.at);
            }
            self.pass_on(emptying);
        }
        None
    }

    /// It is the next one's turn.
    fn pass_on(&mut self, emptying: bool) {
        if self.at == 0 {
            self.waited = 0;
        }
        self.at = self.at.saturating_add(1);
        if self.at >= self.count {
            self.at = usize::from(emptying);
        }
        self.left = if self.at == 0 { FIRST.max(self.waited) } else { OTHER };
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
        // Always something, or again and again.
        for frames in [usize::MAX, 30] {
            let (mut order, device) = (all_ready(), device());
            let mut total = [0; QUEUES];
            for _ in 0..1000 {
                device.set_moved(true);
                let mut has = [usize::MAX, frames, frames, frames];
                let read = read(&mut order, &device, 100, &mut has);
                total = std::array::from_fn(|n| total[n] + read[n]);
            }
            assert!(total[0] >= 30_000, "{total:?}");
        }
    }

    #[test]
    fn a_single_queue_is_enough() {
        let (mut order, device, mut has) = (Order::new(1), device(), [100, 100, 0, 0]);
        (0..QUEUES).for_each(|queue| order.set_ready(queue, true));
        device.set_moved(true);
        assert_eq!(read(&mut order, &device, usize::MAX, &mut has), [100, 0, 0, 0]);
    }
}
