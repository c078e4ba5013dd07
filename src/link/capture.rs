//! Records what crosses a link (`--pcap`) [PCAP-2, PCAP-3, PCAP-5].
//!
//! # Theory of operation
//!
//! Both halves of a link are wrapped; a link that is not captured does not notice. Frames of the
//! guest are recorded as they arrive, before anybody looks at them, and those for the guest when
//! the link has taken them. They are shown as they crossed: a train that the link takes whole is
//! one long frame, and where the link has to cut it, it is the frames that it was cut into. Nothing
//! that belongs to the link (length, offload header) is recorded.
//!
//! Checksums that were left to the kernel are completed in the record, for the frame as it is: who
//! reads a capture is not to take them for errors.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::pcap::Pcap;
use super::{Admitted, End, FRAME_MIN, Link, RxFrame, segment};
use crate::config::Offload;
use crate::event::Registrar;
use crate::translate::FrameOut;
use crate::wire::{Gso, Head, Vnet};

/// Longest payload that the wrapped half is offered.
const PAYLOAD: usize = 1 << 16;

/// Wraps both halves of a link. `offload` is what the link leaves to the guest's kernel.
pub fn captured<L: Link>(
    (link, out): (L, L::Tx),
    offload: Offload,
    pcap: Pcap,
) -> (Captured<L>, CapturedTx<L::Tx>) {
    let tape = Tape(Rc::new(RefCell::new(pcap)));
    let payload = vec![0; PAYLOAD].into_boxed_slice();
    let out = CapturedTx { out, tape: tape.clone(), offload, payload };
    (Captured { link, tape }, out)
}

/// The file, as both halves have it.
#[derive(Clone, Debug)]
struct Tape(Rc<RefCell<Pcap>>);

impl Tape {
    /// Records a frame in two parts. Padding is what the link adds to short frames.
    fn record(&self, vnet: &Vnet, [headers, payload]: [&[u8]; 2], padded: bool) {
        // Never borrowed twice: neither half calls the other.
        let Ok(mut pcap) = self.0.try_borrow_mut() else { return };
        let len = headers.len().saturating_add(payload.len());
        let total = if padded { len.max(FRAME_MIN) } else { len };
        pcap.record(total, |buf| {
            let start = buf.len();
            buf.extend_from_slice(headers);
            buf.extend_from_slice(payload);
            if vnet.needs_csum
                && let Some(frame) = buf.get_mut(start..)
            {
                let _ = segment::complete(frame, vnet);
            }
        });
    }

    fn write_out(&self) {
        if let Ok(mut pcap) = self.0.try_borrow_mut() {
            pcap.write_out();
        }
    }
}

/// The half that gives frames.
#[derive(Debug)]
pub struct Captured<L> {
    link: L,
    tape: Tape,
}

impl<L: Link> Link for Captured<L> {
    type Tx = CapturedTx<L::Tx>;
    const FRAMES: bool = L::FRAMES;

    fn begin(&mut self, registrar: &Registrar) -> io::Result<()> {
        self.link.begin(registrar)
    }

    fn ready(&mut self, queue: u8) {
        self.link.ready(queue);
    }

    fn next_frame(&mut self) -> Option<RxFrame<'_>> {
        let frame = self.link.next_frame()?;
        self.tape.record(&frame.vnet, [frame.frame, &[]], false);
        Some(frame)
    }

    fn ended(&mut self, out: &mut Self::Tx) -> Option<End> {
        self.link.ended(&mut out.out)
    }

    fn is_deserted(&self) -> bool {
        self.link.is_deserted()
    }

    fn arrival(&mut self) -> Option<OwnedFd> {
        self.link.arrival()
    }

    fn admit(&mut self, who: OwnedFd, out: &mut Self::Tx, registrar: &Registrar) -> Admitted {
        self.link.admit(who, &mut out.out, registrar)
    }
}

/// The half that takes frames. Payload is written to a buffer of its own, from where the link
/// copies it: where the link keeps payload until it is sent is its own affair.
#[derive(Debug)]
pub struct CapturedTx<T> {
    out: T,
    tape: Tape,
    offload: Offload,
    payload: Box<[u8]>,
}

impl<T: FrameOut> CapturedTx<T> {
    fn transmit(&mut self, head: &Head, payload: &[u8]) -> bool {
        if !self.out.send_from(head, payload) {
            return false;
        }
        let vnet = head.vnet();
        let whole = match vnet.gso {
            Gso::None => true,
            Gso::Udp(_) => self.offload == Offload::Udp,
            Gso::Tcp4(_) | Gso::Tcp6(_) => self.offload != Offload::None,
        };
        if whole {
            self.tape.record(vnet, [head.frame(), payload], true);
        } else {
            segment::each(head, payload, |headers, payload| {
                self.tape.record(&Vnet::default(), [headers, payload], true);
                true
            });
        }
        true
    }
}

impl<T: FrameOut> FrameOut for CapturedTx<T> {
    fn payload(&mut self) -> Option<&mut [u8]> {
        self.out.payload().is_some().then_some(&mut self.payload)
    }

    fn send(&mut self, head: &Head, len: usize) -> bool {
        let payload = std::mem::take(&mut self.payload);
        let sent = payload.get(..len).is_some_and(|data| self.transmit(head, data));
        self.payload = payload;
        sent
    }

    fn send_from(&mut self, head: &Head, payload: &[u8]) -> bool {
        self.transmit(head, payload)
    }

    fn control(&mut self, frame: &[u8]) -> bool {
        let sent = self.out.control(frame);
        if sent {
            self.tape.record(&Vnet::default(), [frame, &[]], true);
        }
        sent
    }

    fn is_blocked(&self) -> bool {
        self.out.is_blocked()
    }

    fn flush(&mut self) {
        self.out.flush();
        self.tape.write_out();
    }
}
