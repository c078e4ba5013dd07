//! A guest that sends exactly the segments a test names.

use passt::wire::{Addr, Body, Frame, Mac, Packet, Segment, TcpFlags};

use super::net::Behaviour;
use super::world::{GUEST_MAC, World};

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;

/// A segment, from or to the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seg {
    pub sport: u16,
    pub dport: u16,
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub win: u16,
    pub opts: Vec<u8>,
    pub data: Vec<u8>,
}

/// A segment of the guest's usual connection.
pub fn seg(flags: u8, seq: u32, ack: u32) -> Seg {
    Seg { sport: 4000, dport: 80, flags, seq, ack, win: 0xffff, opts: vec![], data: vec![] }
}

impl Seg {
    pub fn win(mut self, win: u16) -> Self {
        self.win = win;
        self
    }

    pub fn opts(mut self, opts: &[u8]) -> Self {
        self.opts = opts.to_vec();
        self
    }

    pub fn data(mut self, data: &[u8]) -> Self {
        self.data = data.to_vec();
        self
    }

    pub fn ports(mut self, sport: u16, dport: u16) -> Self {
        self.sport = sport;
        self.dport = dport;
        self
    }

    /// The whole frame; checksums are left zero, they are not verified [TCP-2].
    pub fn frame(&self, w: &World) -> Vec<u8> {
        let mut tcp = vec![];
        tcp.extend(self.sport.to_be_bytes());
        tcp.extend(self.dport.to_be_bytes());
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        tcp.push(((20 + self.opts.len()) / 4 << 4) as u8);
        tcp.push(self.flags);
        tcp.extend(self.win.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(&self.opts);
        tcp.extend(&self.data);
        framed(&packet(w.guest(), w.peer(), 6, &tcp))
    }
}

/// An IP packet without options and extension headers.
pub fn packet(src: Addr, dst: Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).unwrap();
    let (mut p, ip_octets) = if src.is_v4() {
        let [high, low] = (len + 20).to_be_bytes();
        (vec![0x45, 0, high, low, 0, 0, 0x40, 0, 64, protocol, 0, 0], 12..)
    } else {
        let [high, low] = len.to_be_bytes();
        (vec![0x60, 0, 0, 0, high, low, protocol, 64], 0..)
    };
    p.extend(&src.octets()[ip_octets.clone()]);
    p.extend(&dst.octets()[ip_octets]);
    p.extend(payload);
    p
}

/// A frame of the guest with this packet in it.
pub fn framed(packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    [&Mac::DEFAULT_OURS.0[..], &GUEST_MAC.0, &ethertype, packet].concat()
}

pub fn decode(frame: &[u8]) -> Seg {
    let Ok(Frame { body: Body::Ip(Packet { transport, .. }), .. }) = Frame::parse(frame) else {
        panic!("not IP: {frame:?}")
    };
    let s = Segment::parse(transport).unwrap();
    let TcpFlags(flags) = s.flags;
    Seg {
        sport: s.src_port,
        dport: s.dst_port,
        flags,
        seq: s.seq.0,
        ack: s.ack.0,
        win: s.window,
        opts: s.options.to_vec(),
        data: s.payload.to_vec(),
    }
}

/// MSS 1460 and window scale 7.
pub const OPTIONS: [u8; 8] = [2, 4, 5, 0xb4, 1, 3, 3, 7];

/// The same, and SACK permitted.
pub const SACK_OPTIONS: [u8; 12] = [2, 4, 5, 0xb4, 1, 1, 4, 2, 1, 3, 3, 7];

/// Timestamps as on every later segment of Linux.
pub fn linux_ts(value: u32, echo: u32) -> Vec<u8> {
    let [v, e] = [value, echo].map(u32::to_be_bytes);
    [&[1, 1, 8, 10], &v[..], &e].concat()
}

/// The guest's initial sequence number in most tests, and ours.
pub const G: u32 = 1000;
pub const US: u32 = 5000;

impl World {
    /// The guest sends one batch; what we send at once is returned.
    pub fn guest_sends(&mut self, segs: &[Seg]) -> Vec<Seg> {
        let frames: Vec<_> = segs.iter().map(|s| s.frame(self)).collect();
        self.from_guest(&frames);
        self.sent()
    }

    /// What we sent since the last look.
    pub fn sent(&mut self) -> Vec<Seg> {
        self.take_frames().iter().map(|f| decode(f)).collect()
    }

    /// What we send within `us` microseconds.
    pub fn wait(&mut self, us: u64) -> Vec<Seg> {
        self.run(us);
        self.sent()
    }

    /// A connection of the guest (port 4000 to 80), established; next numbers are G+1 and US+1.
    pub fn connected(&mut self, how: Behaviour) -> usize {
        self.connected_with(how, &OPTIONS, 0xffff)
    }

    pub fn connected_with(&mut self, how: Behaviour, opts: &[u8], win: u16) -> usize {
        self.net.next = how;
        let got = self.guest_sends(&[seg(SYN, G, 0).opts(opts)]);
        assert_eq!((got.len(), got[0].flags), (1, SYN | ACK), "{got:?}");
        let got = self.guest_sends(&[seg(ACK, G + 1, US + 1).win(win)]);
        assert_eq!(got, [], "nothing to say after the handshake");
        self.net.socks.len() - 1
    }

    /// A connection of a peer (port 4000 to the guest's 80), established with the same numbers.
    pub fn accepted(&mut self, how: Behaviour) -> usize {
        self.net.next = how;
        let sock = self.accept(4000);
        let got = self.sent();
        assert_eq!((got.len(), got[0].flags), (1, SYN), "{got:?}");
        let got = self.guest_sends(&[inb(SYN | ACK, G, US + 1).opts(&OPTIONS)]);
        assert_eq!(got[0].flags, ACK);
        sock.0 as usize
    }

    /// The peer writes.
    pub fn peer_writes(&mut self, sock: usize, data: &[u8]) -> Vec<Seg> {
        self.net.socks[sock].peer_out.extend(data);
        self.socket_events();
        self.sent()
    }

    pub fn peer_finishes(&mut self, sock: usize) -> Vec<Seg> {
        self.net.socks[sock].peer_fin = true;
        self.socket_events();
        self.sent()
    }
}

/// A segment of the guest as a server.
pub fn inb(flags: u8, s: u32, ack: u32) -> Seg {
    seg(flags, s, ack).ports(80, 4000)
}

/// Flags, sequence number relative to `US`, acknowledgement relative to `G`, payload length.
pub fn brief(segs: &[Seg]) -> Vec<(u8, u32, u32, usize)> {
    segs.iter()
        .map(|s| (s.flags, s.seq.wrapping_sub(US), s.ack.wrapping_sub(G), s.data.len()))
        .collect()
}
