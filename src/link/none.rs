//! No link at all: a namespace that is connected by its loopback interface alone
//! (`--splice-only`) [FWD-8].
//!
//! Nothing comes, and what is sent is lost; the loop asks [`Link::FRAMES`] first.

use std::io;

use super::{End, Link, RxFrame};
use crate::event::Registrar;
use crate::translate::FrameOut;
use crate::wire::Head;

/// The half that never gives a frame.
#[derive(Debug)]
pub struct NoLink;

/// The half that loses them.
#[derive(Debug)]
pub struct NoLinkTx(Box<[u8]>);

impl NoLink {
    /// Both halves.
    pub fn new() -> (Self, NoLinkTx) {
        (Self, NoLinkTx(vec![0; 1 << 16].into_boxed_slice()))
    }
}

impl Link for NoLink {
    type Tx = NoLinkTx;
    const FRAMES: bool = false;

    fn begin(&mut self, _: &Registrar) -> io::Result<()> {
        Ok(())
    }

    fn next_frame(&mut self) -> Option<RxFrame<'_>> {
        None
    }

    fn ended(&mut self, _: &mut NoLinkTx) -> Option<End> {
        None
    }
}

impl FrameOut for NoLinkTx {
    fn payload(&mut self) -> Option<&mut [u8]> {
        Some(&mut self.0)
    }

    fn send(&mut self, _: &Head, _: usize) -> bool {
        false
    }

    fn control(&mut self, _: &[u8]) -> bool {
        false
    }
}
