//! Frames of the guest, and in which order queues are read.
//!
//! Queues with something are read in turn. A turn of the first one, with the flows that we answer,
//! is [`FIRST`] frames long, that of another one [`OTHER`]. When a flow may have come to the first
//! queue from another one, the first one waits until the others have been read empty: what was in
//! there before the flow moved is older than all that came to the first queue afterwards.
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
    /// Turns of the other queues last until they are empty.
    emptying: bool,
}

impl Order {
    fn new(count: usize) -> Self {
        Self { count, ready: [false; QUEUES], at: 0, left: FIRST, emptying: false }
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
            if self.at == 0 && self.is_ready(0) && device.has_moved() {
                device.set_moved(false);
                self.emptying = self.count > 1;
                // We may not have been told yet.
                self.ready.iter_mut().take(self.count).for_each(|r| *r = true);
                self.left = if self.emptying { 0 } else { self.left };
            }
            if self.left > 0 && self.is_ready(self.at) {
                self.left = self.left.saturating_sub(1);
                return Some(self.at);
            }
            self.at = self.at.saturating_add(1);
            if self.at >= self.count {
                (self.at, self.emptying) = (0, false);
            }
            self.left = match self.at {
                0 => FIRST,
                _ if self.emptying => GUEST_QUEUE,
                _ => OTHER,
            };
        }
        None
    }
}
