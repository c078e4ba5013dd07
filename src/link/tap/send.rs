//! Frames to the guest.

use std::fs::File;
use std::io::{IoSlice, Write as _};
use std::sync::Arc;

use super::answered::Answered;
use super::{Device, FRAME_MAX};
use crate::config::Offload;
use crate::link::{FRAME_MIN, PADDING, segment};
use crate::translate::FrameOut;
use crate::wire::{Gso, Head, VNET_LEN};

/// Frames to the guest.
#[derive(Debug)]
pub struct TapTx {
    device: Arc<Device>,
    offload: Offload,
    payload: Box<[u8]>,
    answered: Answered,
}

impl TapTx {
    pub(super) fn new(device: Arc<Device>, offload: Offload) -> Self {
        let payload = vec![0; FRAME_MAX].into_boxed_slice();
        Self { device, offload, payload, answered: Answered::new() }
    }
}

impl FrameOut for TapTx {
    fn payload(&mut self) -> Option<&mut [u8]> {
        Some(&mut self.payload)
    }

    fn send(&mut self, head: &Head, len: usize) -> bool {
        let Some(payload) = self.payload.get(..len) else { return false };
        transmit(self.answered.queue(&self.device, head), self.offload, head, payload)
    }

    fn send_from(&mut self, head: &Head, payload: &[u8]) -> bool {
        transmit(self.answered.queue(&self.device, head), self.offload, head, payload)
    }

    fn control(&mut self, frame: &[u8]) -> bool {
        write(self.device.second(), unused(self.offload), &[], frame)
    }
}

/// Sends what the headers stand for: as one frame if the device can, else as one per packet.
fn transmit(file: &File, offload: Offload, head: &Head, payload: &[u8]) -> bool {
    let whole = match head.vnet().gso {
        Gso::Udp(_) => offload == Offload::Udp,
        _ => offload != Offload::None,
    };
    if whole {
        let (vnet, frame) = head.with_vnet().split_at_checked(VNET_LEN).unwrap_or_default();
        return write(file, vnet, frame, payload);
    }
    segment::each(head, payload, |headers, payload| write(file, unused(offload), headers, payload))
}

/// What precedes a frame that asks for nothing.
fn unused(offload: Offload) -> &'static [u8] {
    if offload == Offload::None { &[] } else { &[0; VNET_LEN] }
}

/// Writes one frame, padded, behind its offload header if the device has that.
fn write(mut file: &File, vnet: &[u8], headers: &[u8], payload: &[u8]) -> bool {
    let missing = FRAME_MIN.saturating_sub(headers.len()).saturating_sub(payload.len());
    let padding = PADDING.get(..missing).unwrap_or_default();
    let parts = [vnet, headers, payload, padding].map(IoSlice::new);
    let used = if missing != 0 { 4 } else { 3 };
    file.write_vectored(parts.get(..used).unwrap_or_default()).is_ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::wire::{Addr, Endpoint, Mac, Path, Seq, TcpFlags, TcpHead};

    /// A queue, and what reads frames written there.
    fn queue() -> (File, File) {
        let (a, b) = UnixDatagram::pair().unwrap();
        a.set_nonblocking(true).unwrap();
        b.set_nonblocking(true).unwrap();
        (OwnedFd::from(a).into(), OwnedFd::from(b).into())
    }

    /// The guest is answered through the first queue; with a reset, or for everybody, through
    /// another one, so that the kernel puts nothing into the first one on that account.
    #[test]
    fn only_answers_go_through_the_first_queue() {
        let ((first, mut at_first), (other, mut at_other)) = (queue(), queue());
        let device = Device { first, others: vec![other], moved: AtomicBool::new(false) };
        let device = Arc::new(device);
        let mut tx = TapTx::new(Arc::clone(&device), Offload::Tcp);
        let mut which = || {
            let mut buf = [0; 2048];
            [at_first.read(&mut buf).is_ok(), at_other.read(&mut buf).is_ok()]
        };
        let end = |n: u8| Endpoint::new(Addr::from(std::net::IpAddr::from([192, 0, 2, n])), 80);
        let path = Path {
            src_mac: Mac::DEFAULT_OURS,
            dst_mac: Mac::BROADCAST,
            src: end(1),
            dst: end(2),
            flow_label: 0,
            tos: 0,
            ttl: 64,
        };
        let mut segment = |flags| {
            let (seq, ack) = (Seq(1), Seq(1));
            let tcp = TcpHead { seq, ack, flags, window: 0, options: &[], mss: 0 };
            assert!(tx.send(&Head::tcp(&path, &tcp, 0).unwrap(), 0));
        };
        let moved = || {
            let moved = device.has_moved();
            device.set_moved(false);
            moved
        };
        segment(TcpFlags::RST);
        assert_eq!((which(), moved()), ([false, true], false));
        // Whom we call has sent nothing that could be in another queue.
        segment(TcpFlags::SYN);
        segment(TcpFlags::ACK);
        assert_eq!((which(), which(), moved()), ([true, false], [true, false], false));
        segment(TcpFlags::RST);
        segment(TcpFlags::SYN.with(TcpFlags::ACK));
        assert_eq!((which(), moved()), ([true, true], true));
        assert!(tx.send(&Head::udp(&path, 0, 0).unwrap(), 0) && tx.control(&[0; 60]));
        assert_eq!((which(), moved()), ([true, true], true));
        assert!(tx.send(&Head::udp(&path, 0, 0).unwrap(), 0));
        assert_eq!((which(), moved()), ([true, false], false));
    }
}
