//! A link that checks every frame for the guest, remembers TCP numbers for the guest's answers, and
//! keeps the fragments that the guest has yet to send.

use passt::translate::FrameOut;
use passt::wire::{Body, Datagram, ETH_LEN, Fragment, Frame, Gso, Head, Mac, Segment, proto};

/// Longest IP packet (IPv6 does not count its header) behind an Ethernet header.
const FRAME_MAX: usize = ETH_LEN + 40 + 65_535;

/// Frames up to this length are parsed as a whole.
const PARSED: usize = 2000;

/// A TCP connection as the guest knows it.
#[derive(Clone, Debug)]
pub(super) struct Conn {
    /// Addresses as in a frame of the guest: source, then destination.
    pub(super) addrs: Vec<u8>,
    /// The guest's port, ours.
    pub(super) ports: (u16, u16),
    /// What the guest sends next.
    pub(super) guest_next: u32,
    /// What we send next.
    pub(super) ours_next: u32,
}

/// Towards the guest.
#[derive(Debug)]
pub(super) struct Link {
    room: Vec<u8>,
    /// Can take nothing.
    pub(super) full: bool,
    /// Loses so many frames from now on.
    pub(super) lose: u8,
    /// Connections seen, the latest last.
    pub(super) conns: Vec<Conn>,
    /// Of the guest.
    pub(super) fragments: Vec<Vec<u8>>,
    /// What the guest's MTU is.
    mtu: usize,
    /// The packet of ours of which fragments are being sent: identification, how far it came.
    cut: Option<(u32, usize)>,
}

impl Link {
    pub(super) fn new(mtu: u16) -> Self {
        let mtu = if mtu == 0 { 1500 } else { mtu.into() };
        let room = vec![0; 65_536];
        Self { room, full: false, lose: 0, conns: vec![], fragments: vec![], mtu, cut: None }
    }

    /// Fragments come in order, and their packet begins with the first.
    fn continues(&mut self, f: &Fragment<'_>) {
        let begun = self.cut.take().unwrap_or((f.id, 0));
        assert!(f.offset == 0 || begun == (f.id, f.offset), "{begun:?} {} {}", f.id, f.offset);
        assert!(f.offset > 0 || f.more, "an atomic fragment");
        self.cut = f.more.then_some((f.id, f.end()));
    }

    fn lost(&mut self) -> bool {
        if self.lose > 0 {
            self.lose -= 1;
            return true;
        }
        self.full
    }

    fn learn(&mut self, headers: &[u8], payload: usize) {
        let v6 = headers[12..14] == [0x86, 0xdd];
        let (at, src, dst) = if v6 { (54, 22..38, 38..54) } else { (34, 26..30, 30..34) };
        let tcp = &headers[at..];
        let two = |n: usize| u16::from_be_bytes([tcp[n], tcp[n + 1]]);
        let four = |n: usize| u32::from_be_bytes([tcp[n], tcp[n + 1], tcp[n + 2], tcp[n + 3]]);
        let flags = tcp[13];
        if flags & 4 != 0 {
            return;
        }
        let addrs = [&headers[dst], &headers[src]].concat();
        let ports = (two(2), two(0));
        let len = payload as u32 + u32::from(flags & 1) + u32::from(flags >> 1 & 1);
        let ours_next = four(4).wrapping_add(len);
        match self.conns.iter_mut().find(|c| c.ports == ports && c.addrs == addrs) {
            Some(c) => {
                c.ours_next = ours_next;
                if flags & 0x10 != 0 {
                    c.guest_next = four(8);
                }
            }
            None => {
                if self.conns.len() == 16 {
                    self.conns.remove(0);
                }
                let guest_next = if flags & 0x10 != 0 { four(8) } else { 1000 };
                self.conns.push(Conn { addrs, ports, guest_next, ours_next });
            }
        }
    }
}

impl FrameOut for Link {
    fn payload(&mut self) -> Option<&mut [u8]> {
        if self.full { None } else { Some(&mut self.room) }
    }

    fn send(&mut self, head: &Head, len: usize) -> bool {
        let payload = self.room[..len].to_vec();
        self.send_from(head, &payload)
    }

    fn send_from(&mut self, head: &Head, payload: &[u8]) -> bool {
        let len = payload.len();
        let (headers, vnet) = (head.frame(), head.vnet());
        check_source(headers);
        assert!(len <= self.room.len() && headers.len() + len <= FRAME_MAX, "frame too long");
        assert_eq!(usize::from(vnet.hdr_len), headers.len());
        match vnet.gso {
            Gso::None => {}
            Gso::Tcp4(n) | Gso::Tcp6(n) => assert!(n > 0 && len > usize::from(n), "train of one"),
            Gso::Udp(n) => assert!(n > 0 && len > usize::from(n), "train of one"),
        }
        let v6 = headers[12] == 0x86;
        if vnet.csum_offset != 16 && vnet.gso == Gso::None {
            let least = if v6 { 1280 } else { 68 };
            assert!(headers.len() + len <= ETH_LEN + self.mtu.max(least), "beyond the MTU");
        }
        let part = if v6 { headers[20] == 44 } else { headers[20] & 0x3f != 0 || headers[21] != 0 };
        if part {
            let whole = [headers, payload].concat();
            match Frame::parse(&whole).expect("a frame of ours parses").body {
                Body::Fragment(f) => self.continues(&f),
                other => panic!("{other:?}"),
            }
        } else if headers.len() + len <= PARSED {
            let whole = [headers, payload].concat();
            check(&whole, len);
        }
        if vnet.csum_offset == 16 && vnet.needs_csum {
            self.learn(headers, len);
        }
        !self.lost()
    }

    fn control(&mut self, frame: &[u8]) -> bool {
        assert!(frame.len() >= ETH_LEN && frame.len() <= PARSED, "{} bytes", frame.len());
        Frame::parse(frame).expect("a frame of ours parses");
        check_source(frame);
        !self.lost()
    }
}

/// A frame of ours is from one station, us or a neighbour.
fn check_source(frame: &[u8]) {
    let source = Mac(frame[6..12].try_into().unwrap());
    assert!(source.is_station(), "from {source}");
}

/// A frame of ours says what it carries.
fn check(frame: &[u8], payload: usize) {
    let Body::Ip(packet) = Frame::parse(frame).expect("a frame of ours parses").body else {
        panic!("not IP")
    };
    assert_eq!(packet.src.is_v4(), packet.dst.is_v4());
    let len = match packet.protocol {
        proto::TCP => {
            let segment = Segment::parse(packet.transport).expect("a segment of ours parses");
            segment.payload.len()
        }
        proto::UDP => Datagram::parse(packet.transport, false).expect("parses").payload.len(),
        _ => packet.transport.len(),
    };
    assert_eq!(len, payload);
}
