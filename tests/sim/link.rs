//! A link that exists only in memory: captures frames and does in software what offloads do.

use std::collections::VecDeque;

use passt::translate::FrameOut;
use passt::wire::checksum::Checksum;
use passt::wire::{ETH_LEN, Gso, Head};

/// Towards the guest.
#[derive(Debug)]
pub struct FakeLink {
    buf: Vec<u8>,
    given: bool,
    /// Frames for the guest: segmented, checksums complete.
    pub frames: VecDeque<Vec<u8>>,
    /// The link can take nothing.
    pub full: bool,
    /// Send fails (the frame is lost, and we know) this many times.
    pub lose: u32,
    /// Frames given to [`FrameOut::send`], trains counted once.
    pub sent: u64,
}

impl FakeLink {
    pub fn new() -> Self {
        Self {
            buf: vec![0; 65536],
            given: false,
            frames: VecDeque::new(),
            full: false,
            lose: 0,
            sent: 0,
        }
    }
}

impl FrameOut for FakeLink {
    fn payload(&mut self) -> Option<&mut [u8]> {
        if self.full {
            return None;
        }
        self.given = true;
        Some(&mut self.buf)
    }

    fn send(&mut self, head: &Head, len: usize) -> bool {
        assert!(len == 0 || self.given, "payload sent that was never written");
        self.given = false;
        let payload = self.buf[..len].to_vec();
        self.send_from(head, &payload)
    }

    fn send_from(&mut self, head: &Head, payload: &[u8]) -> bool {
        self.sent += 1;
        if self.full {
            return false;
        }
        if self.lose > 0 {
            self.lose -= 1;
            return false;
        }
        segment(head, payload, &mut self.frames);
        true
    }

    fn control(&mut self, frame: &[u8]) -> bool {
        self.frames.push_back(frame.to_vec());
        true
    }
}

/// Cuts a train into segments and completes checksums, as a receiver without offloads needs it.
fn segment(head: &Head, payload: &[u8], out: &mut VecDeque<Vec<u8>>) {
    let headers = head.frame();
    let vnet = head.vnet();
    if vnet.csum_offset == 6 {
        // UDP, whose checksums are looked at elsewhere.
        return out.push_back([headers, payload].concat());
    }
    assert_eq!(usize::from(vnet.hdr_len), headers.len());
    assert!(vnet.needs_csum);
    let v6 = headers[12..14] == [0x86, 0xdd];
    let transport = usize::from(vnet.csum_start);
    assert_eq!(transport, ETH_LEN + if v6 { 40 } else { 20 });
    assert_eq!(vnet.csum_offset, 16);
    let size = match vnet.gso {
        Gso::None => payload.len().max(1),
        Gso::Tcp4(n) if !v6 => usize::from(n),
        Gso::Tcp6(n) if v6 => usize::from(n),
        other => panic!("wrong segmentation type {other:?}"),
    };
    if vnet.gso != Gso::None {
        assert!(size > 0 && payload.len() > size, "a train of one");
    }
    let sum = u16::from_be_bytes([headers[transport + 16], headers[transport + 17]]);
    let whole = headers.len() - transport + payload.len();
    assert_eq!(sum, pseudo(headers, whole).fold(), "partial checksum");

    let mut at = 0;
    loop {
        let part = &payload[at..payload.len().min(at + size)];
        let last = at + part.len() == payload.len();
        let mut f = headers.to_vec();
        f.extend_from_slice(part);
        let l4_len = f.len() - transport;
        if v6 {
            f[18..20].copy_from_slice(&(l4_len as u16).to_be_bytes());
        } else {
            f[16..18].copy_from_slice(&((l4_len + 20) as u16).to_be_bytes());
            f[24..26].fill(0);
            let mut c = Checksum::new();
            c.add(&f[14..34]);
            let c = c.finish();
            f[24..26].copy_from_slice(&c.to_be_bytes());
        }
        let seq = u32::from_be_bytes(f[transport + 4..transport + 8].try_into().unwrap());
        f[transport + 4..transport + 8].copy_from_slice(&seq.wrapping_add(at as u32).to_be_bytes());
        if !last {
            f[transport + 13] &= !0x09;
        }
        f[transport + 16..transport + 18].fill(0);
        let mut c = pseudo(&f, l4_len);
        c.add(&f[transport..]);
        let c = c.finish();
        f[transport + 16..transport + 18].copy_from_slice(&c.to_be_bytes());
        out.push_back(f);
        at += part.len();
        if last {
            break;
        }
    }
}

fn pseudo(f: &[u8], len: usize) -> Checksum {
    if f[12..14] == [0x86, 0xdd] {
        let src: [u8; 16] = f[22..38].try_into().unwrap();
        let dst: [u8; 16] = f[38..54].try_into().unwrap();
        Checksum::pseudo_v6(src.into(), dst.into(), 6, len as u32)
    } else {
        let src: [u8; 4] = f[26..30].try_into().unwrap();
        let dst: [u8; 4] = f[30..34].try_into().unwrap();
        Checksum::pseudo_v4(src.into(), dst.into(), 6, len as u16)
    }
}
