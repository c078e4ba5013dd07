//! The tap device at every level of offloads, against the kernel that will be at its other end.
//!
//! Every test runs itself again under `unshare`, as root of a new user and network namespace: the
//! guest. Frames are what its kernel sends and takes. Needs `unshare`, `ip` and `/dev/net/tun`;
//! no privileges.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
#![allow(clippy::cast_possible_truncation)]

#[macro_use]
#[path = "../isolated/mod.rs"]
mod isolated;
mod queues;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use isolated::ip;
use nix::sys::socket::{setsockopt, sockopt};
use passt::config::Offload;
use passt::link::{Link as _, RxFrame, Tap};
use passt::translate::FrameOut as _;
use passt::wire::{
    Addr, Body, Datagram, Endpoint, Frame, Gso, Head, Mac, Packet, Path, Segment, Seq, SynOptions,
    TcpFlags, TcpHead, Vnet, checksum, proto,
};

const TAP: &str = "guest0";
const MTU: usize = 1500;
const SOON: Duration = Duration::from_secs(10);
const OUR_MAC: Mac = Mac::DEFAULT_OURS;
const LEVELS: [Offload; 3] = [Offload::Udp, Offload::Tcp, Offload::None];

/// The address of the guest and that of everybody else.
fn addrs(v6: bool) -> (IpAddr, IpAddr) {
    let of = |n: u8| match v6 {
        false => IpAddr::from([192, 0, 2, n]),
        true => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)]),
    };
    (of(2), of(1))
}

/// A tap device at this level, configured, with an entry for us in the neighbour tables.
fn tap(level: Offload) -> Tap {
    let tap = Tap::open(TAP, level).unwrap();
    assert_eq!(tap.offload, level, "this kernel grants every level");
    ip(&format!("link set {TAP} addrgenmode none mtu {MTU} address 02:00:00:00:00:01 up"));
    for v6 in [false, true] {
        let (guest, peer) = addrs(v6);
        let (len, nodad) = if v6 { (64, "nodad") } else { (24, "") };
        ip(&format!("addr add {guest}/{len} dev {TAP} {nodad}"));
        ip(&format!("neigh add {peer} lladdr 9a:55:9a:55:9a:55 dev {TAP}"));
    }
    tap
}

/// What of a received frame the tests look at.
#[derive(Debug)]
struct Got {
    gso: Gso,
    src: u16,
    tcp: Option<(Seq, Seq, TcpFlags, Option<u16>)>,
    payload: Vec<u8>,
    /// Length of the IP packet.
    len: usize,
}

/// The next frame of the guest, from whichever queue.
fn frame(tap: &mut Tap) -> Option<RxFrame<'_>> {
    (0..=u8::MAX).for_each(|queue| tap.rx.ready(queue));
    tap.rx.next_frame()
}

/// The next TCP or UDP frame of the guest; its checksum is checked unless it is left to us.
fn next(tap: &mut Tap, protocol: u8) -> Option<Got> {
    let vnet_hdr = tap.offload != Offload::None;
    loop {
        let RxFrame { vnet, frame } = frame(tap)?;
        let Ok(Frame { body: Body::Ip(packet), .. }) = Frame::parse(frame) else { continue };
        if packet.protocol != protocol {
            continue;
        }
        if !vnet_hdr {
            assert_eq!(vnet, Vnet::default());
        }
        if !vnet.needs_csum {
            assert_eq!(sum(&packet), 0, "a wrong checksum: {frame:?}");
        }
        let len = frame.len() - 14;
        return Some(match protocol {
            proto::TCP => {
                let s = Segment::parse(packet.transport).unwrap();
                Got {
                    gso: vnet.gso,
                    src: s.src_port,
                    tcp: Some((s.seq, s.ack, s.flags, SynOptions::parse(s.options).mss)),
                    payload: s.payload.to_vec(),
                    len,
                }
            }
            _ => {
                let train = matches!(vnet.gso, Gso::Udp(_));
                let d = Datagram::parse(packet.transport, train).unwrap();
                Got { gso: vnet.gso, src: d.src_port, tcp: None, payload: d.payload.to_vec(), len }
            }
        });
    }
}

/// 0 if the transport checksum is right.
fn sum(p: &Packet<'_>) -> u16 {
    let mut sum = match (p.src.to_ip(), p.dst.to_ip()) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            checksum::Checksum::pseudo_v4(s, d, p.protocol, p.transport.len() as u16)
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            checksum::Checksum::pseudo_v6(s, d, p.protocol, p.transport.len() as u32)
        }
        _ => panic!("mixed families"),
    };
    sum.add(p.transport);
    sum.finish()
}

fn wait_for(tap: &mut Tap, protocol: u8) -> Got {
    let start = Instant::now();
    loop {
        if let Some(got) = next(tap, protocol) {
            return got;
        }
        assert!(start.elapsed() < SOON, "no frame of the guest");
        thread::sleep(Duration::from_millis(1));
    }
}

fn path(v6: bool, guest_port: u16) -> Path {
    let (guest, peer) = addrs(v6);
    Path {
        src_mac: OUR_MAC,
        dst_mac: Mac([2, 0, 0, 0, 0, 1]),
        src: Endpoint::new(Addr::from(peer), 80),
        dst: Endpoint::new(Addr::from(guest), guest_port),
        flow_label: 0,
        tos: 0,
        ttl: 255,
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Sends one frame to the guest.
fn send(tap: &mut Tap, head: Option<Head>, payload: &[u8]) {
    tap.tx.payload().unwrap()[..payload.len()].copy_from_slice(payload);
    assert!(tap.tx.send(&head.unwrap(), payload.len()), "frame lost");
}

/// The kernel makes an address receive a moment after it has it: knocks until it is heard, and
/// takes away what was sent in vain.
fn until_heard(tap: &mut Tap, socket: &UdpSocket, v6: bool) {
    let mut buf = [0; 10];
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let heard = (0..100).any(|_| {
        send(tap, Head::udp(&path(v6, 5000), 5, 0), b"knock");
        socket.recv(&mut buf).is_ok()
    });
    assert!(heard, "the guest takes our datagram");
    while socket.recv(&mut buf).is_ok() {}
    socket.set_read_timeout(Some(SOON)).unwrap();
}

/// Datagrams, and with a level that has them trains, of the guest and for it.
fn udp(level: Offload, v6: bool) {
    let mut tap = tap(level);
    let (guest, peer) = addrs(v6);
    let socket = UdpSocket::bind(SocketAddr::new(guest, 5000)).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.connect(SocketAddr::new(peer, 80)).unwrap();
    until_heard(&mut tap, &socket, v6);
    for len in [0, 1, 100, 1400] {
        let data = pattern(len);
        socket.send(&data).unwrap();
        let got = wait_for(&mut tap, proto::UDP);
        assert_eq!((got.gso, got.src, &got.payload), (Gso::None, 5000, &data));
        send(&mut tap, Head::udp(&path(v6, 5000), len, 0), &data);
        let mut buf = [0; 2000];
        let n = socket.recv(&mut buf).expect("the guest takes our datagram");
        assert_eq!(buf[..n], data);
    }
    // A train, as QUIC sends them: whole where we said that we take it, cut by the kernel if not.
    setsockopt(&socket, sockopt::UdpGsoSegment, &1000).unwrap();
    let data = pattern(10_500);
    socket.send(&data).unwrap();
    let mut got = vec![];
    let mut frames = 0;
    while got.len() < data.len() {
        let frame = wait_for(&mut tap, proto::UDP);
        frames += 1;
        match level {
            Offload::Udp => assert_eq!(frame.gso, Gso::Udp(1000)),
            _ => assert_eq!((frame.gso, frame.payload.len() <= 1000), (Gso::None, true)),
        }
        got.extend(frame.payload);
    }
    assert_eq!(frames, if level == Offload::Udp { 1 } else { 11 });
    assert!(got == data);
}

/// A real connection of the guest's kernel to a peer that is this function: a megabyte each way,
/// towards the guest in trains.
fn tcp(level: Offload, v6: bool) {
    const LEN: usize = 1 << 20;
    const MSS: u16 = 1400;
    let mut tap = tap(level);
    let (guest, peer) = addrs(v6);
    // The peer below does not repeat what is lost.
    let socket = UdpSocket::bind(SocketAddr::new(guest, 5000)).unwrap();
    until_heard(&mut tap, &socket, v6);
    let data = pattern(LEN);
    let sent = data.clone();
    let client = thread::spawn(move || {
        let mut s = TcpStream::connect_timeout(&SocketAddr::new(peer, 80), SOON).unwrap();
        s.set_read_timeout(Some(SOON)).unwrap();
        s.set_write_timeout(Some(SOON)).unwrap();
        s.write_all(&sent).unwrap();
        let mut got = vec![0; LEN];
        s.read_exact(&mut got).unwrap();
        assert!(got == sent, "the guest got other bytes");
    });
    let syn = wait_for(&mut tap, proto::TCP);
    let (seq, _, flags, mss) = syn.tcp.unwrap();
    assert!(flags.has(TcpFlags::SYN) && mss.is_some());
    let path = path(v6, syn.src);
    let mut head = TcpHead {
        seq: Seq(7000),
        ack: seq.add(1),
        flags: TcpFlags::SYN.with(TcpFlags::ACK),
        window: u16::MAX,
        options: &[2, 4, 5, 0x78],
        mss: 0,
    };
    send(&mut tap, Head::tcp(&path, &head, 0), &[]);
    head.options = &[];
    head.flags = TcpFlags::ACK;
    head.seq = Seq(7001);
    head.mss = MSS;

    // From the guest, in order on a link that loses nothing.
    let (mut got, mut trains) = (vec![], 0);
    while got.len() < LEN {
        let frame = wait_for(&mut tap, proto::TCP);
        let (seq, ..) = frame.tcp.unwrap();
        let at = seq.since(syn.tcp.unwrap().0.add(1)) as usize;
        if frame.payload.is_empty() || at < got.len() {
            continue;
        }
        assert_eq!(at, got.len(), "a hole");
        match (level, frame.gso) {
            (Offload::None, gso) => assert!(gso == Gso::None && frame.len <= MTU, "{frame:?}"),
            (_, Gso::Tcp4(n) | Gso::Tcp6(n)) => {
                assert_eq!((frame.gso == Gso::Tcp6(n), n <= MSS), (v6, true));
                trains += 1;
            }
            (_, gso) => assert!(gso == Gso::None && frame.len <= MTU, "{frame:?}"),
        }
        got.extend(frame.payload);
        head.ack = syn.tcp.unwrap().0.add(1 + got.len() as u32);
        send(&mut tap, Head::tcp(&path, &head, 0), &[]);
    }
    assert!(got == data, "other bytes arrived");
    assert_eq!(trains > 0, level != Offload::None);

    // To the guest, trains of 20 segments, within a window that is never scaled.
    let mut acked = 0;
    let mut next_at = 0;
    let start = Instant::now();
    while acked < LEN {
        if next_at < LEN && next_at - acked <= 28_000 {
            let part = &data[next_at..LEN.min(next_at + 28_000)];
            head.seq = Seq(7001).add(next_at as u32);
            send(&mut tap, Head::tcp(&path, &head, part.len()), part);
            next_at += part.len();
        }
        if let Some(Got { tcp: Some((_, ack, ..)), .. }) = next(&mut tap, proto::TCP) {
            acked = acked.max(ack.since(Seq(7001)) as usize);
        }
        assert!(start.elapsed() < SOON, "stuck: {acked} of {next_at} acknowledged");
    }
    client.join().unwrap();
    // Nothing was damaged on the way: the kernel counts what it could not accept.
    let snmp = std::fs::read_to_string("/proc/net/snmp").unwrap();
    let lines: Vec<_> = snmp.lines().filter(|l| l.starts_with("Tcp:")).collect();
    let column = |name| lines[0].split(' ').position(|w| w == name).unwrap();
    for name in ["InErrs", "InCsumErrors"] {
        assert_eq!(lines[1].split(' ').nth(column(name)), Some("0"), "{name}");
    }
}

macro_rules! every_level {
    ($($name:ident: $test:ident $level:ident $v6:literal;)*) => {
        $(isolated! { fn $name() { $test(Offload::$level, $v6); } })*
    };
}

// [TCP-62] [TCP-88] Checksums and segmentation by the kernel, or by us.
every_level! {
    udp4_level_udp: udp Udp false;
    udp6_level_udp: udp Udp true;
    udp4_level_tcp: udp Tcp false;
    udp6_level_tcp: udp Tcp true;
    udp4_level_none: udp None false;
    udp6_level_none: udp None true;
    tcp4_level_udp: tcp Udp false;
    tcp6_level_udp: tcp Udp true;
    tcp4_level_tcp: tcp Tcp false;
    tcp6_level_tcp: tcp Tcp true;
    tcp4_level_none: tcp None false;
    tcp6_level_none: tcp None true;
}

isolated! {
    // A device goes away with its file, so that levels can be tried one after the other.
    fn every_level_is_granted() {
        for level in LEVELS {
            let tap = Tap::open(TAP, level).unwrap();
            assert_eq!((tap.offload, tap.name.as_str()), (level, TAP));
        }
    }
}

isolated! {
    // [TAP-6] What ARP and the like are sent with: padded, and taken by the kernel.
    fn control_frames_arrive() {
        for level in LEVELS {
            let mut tap = tap(level);
            let (guest, peer) = addrs(false);
            ip(&format!("neigh del {peer} dev {TAP}"));
            let mut request = vec![0xff; 6];
            request.extend(OUR_MAC.0);
            request.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
            request.extend(OUR_MAC.0);
            let (IpAddr::V4(guest), IpAddr::V4(peer)) = (guest, peer) else { panic!() };
            request.extend(peer.octets());
            request.extend([0; 6]);
            request.extend(guest.octets());
            assert!(tap.tx.control(&request));
            let start = Instant::now();
            let reply = loop {
                match frame(&mut tap) {
                    Some(f) if f.frame[12..14] == [8, 6] && f.frame[21] == 2 => {
                        break f.frame.to_vec();
                    }
                    _ => assert!(start.elapsed() < SOON, "{level:?}: no reply"),
                }
            };
            assert_eq!(reply[28..32], guest.octets());
        }
    }
}

#[test]
fn a_name_too_long_is_refused() {
    assert!(Tap::open("a-name-that-is-too-long", Offload::None).is_err());
}
