//! Frames of the guest, most of them right.

use passt::wire::{Endpoint, Gso, VNET_LEN, Vnet};

use super::link::{Conn, Link};
use super::{Input, addr};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Addresses the guest sends from, then to.
const GUESTS4: [&str; 5] = ["192.0.2.2", "192.0.2.2", "192.0.2.3", "0.0.0.0", "224.0.0.1"];
const GUESTS6: [&str; 5] = ["2001:db8::2", "2001:db8::2", "fe80::2", "::", "ff02::1"];
const PEERS4: [&str; 10] = [
    "198.51.100.1",
    "192.0.2.1",
    "198.51.100.2",
    "192.0.2.53",
    "192.0.2.2",
    "255.255.255.255",
    "224.0.0.251",
    "127.0.0.1",
    "0.0.0.0",
    "192.0.2.255",
];
const PEERS6: [&str; 10] = [
    "2001:db8:1::1",
    "fe80::1",
    "2001:db8:1::2",
    "2001:db8::53",
    "2001:db8::2",
    "ff02::fb",
    "ff02::1:ff00:1",
    "::1",
    "::",
    "fe80::99",
];

/// A peer on the host's side.
pub(super) fn peer(input: &mut Input<'_>) -> Endpoint {
    let from = if input.chance(100) { &PEERS6 } else { &PEERS4 };
    let host = addr(input.pick(from));
    Endpoint::new(host, input.pick(&[80, 53, 4000, 4000, 4001, 0, 65_535]))
}

/// A client in the namespace and what it connected to.
pub(super) fn loopback(input: &mut Input<'_>) -> (Endpoint, Endpoint) {
    let b = input.byte();
    let host = addr(if b & 1 == 0 { "127.0.0.1" } else { "::1" });
    let client = if b > 240 { addr("192.0.2.7") } else { host };
    (Endpoint::new(client, input.pick(&[4000, 4001, 5353, 1])), Endpoint::new(host, 80))
}

/// A payload length: often short, seldom as long as can be.
pub(super) fn length(input: &mut Input<'_>) -> usize {
    match input.byte() {
        b @ 0..100 => usize::from(b),
        b @ 100..200 => usize::from(b - 99) * 15,
        200..230 => usize::from(input.word()) % 20_000,
        230..245 => 60_000,
        _ => usize::from(input.word()),
    }
}

/// One frame with its offload header.
pub(super) fn frame(input: &mut Input<'_>, link: &mut Link) -> (Vnet, Vec<u8>) {
    let mut vnet = Vnet::default();
    let mut frame = match input.byte() % 32 {
        0..10 => known_tcp(input, link),
        10..15 => new_tcp(input),
        15..20 => udp(input, &mut vnet),
        20 | 23 => {
            // Otherwise checksums, of which there are none, would have to be right.
            vnet.needs_csum = true;
            fragment(input, link)
        }
        21 | 22 => echo(input),
        24 | 25 => arp(input),
        26..29 => ndp(input),
        29 => other(input),
        _ => return raw(input),
    };
    // Frames that are almost right.
    if input.chance(24) {
        for _ in 0..=input.byte() % 4 {
            let at = usize::from(input.byte()) % frame.len().min(100);
            frame[at] = input.byte();
        }
    }
    match input.byte() {
        250 => frame.truncate(usize::from(input.word()) % frame.len()),
        251 => frame.resize(frame.len() + usize::from(input.byte()), 0),
        252 => vnet.gso = input.pick(&[Gso::None, Gso::Tcp4(0), Gso::Udp(0), Gso::Udp(1)]),
        _ => {}
    }
    (vnet, frame)
}

/// Bytes, header and all.
fn raw(input: &mut Input<'_>) -> (Vnet, Vec<u8>) {
    let len = usize::from(input.byte());
    let bytes = input.bytes(len);
    let Some((head, frame)) = bytes.split_first_chunk::<VNET_LEN>() else {
        return (Vnet::default(), bytes.to_vec());
    };
    (Vnet::decode(head).unwrap_or_default(), frame.to_vec())
}

/// Ethernet and IP around a transport part.
pub(super) fn ip(input: &mut Input<'_>, protocol: u8, addrs: &[u8], transport: &[u8]) -> Vec<u8> {
    let ttl = input.pick(&[64, 255, 1, 0]);
    let mut f = passt::wire::Mac::DEFAULT_OURS.0.to_vec();
    f.extend([2, 0, 0, 0, 0, 1]);
    if addrs.len() == 8 {
        let total = (transport.len() + 20).min(65_535) as u16;
        f.extend([8, 0, 0x45, 0]);
        f.extend(total.to_be_bytes());
        f.extend([0, 0, 0x40, 0, ttl, protocol, 0, 0]);
        f.extend(addrs);
    } else {
        let extension: &[u8] = match input.byte() {
            240..248 => &[protocol, 0, 1, 4, 0, 0, 0, 0],
            248..252 => &[protocol, 1, 5, 2, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            252 => &[protocol, 0, 0, 0, 0, 0, 0, 1],
            _ => &[],
        };
        let next = match extension.len() {
            0 => protocol,
            8 if extension[2] == 1 => 0,
            8 => 44,
            _ => 60,
        };
        let len = (transport.len() + extension.len()).min(65_535) as u16;
        f.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        f.extend(len.to_be_bytes());
        f.extend([next, ttl]);
        f.extend(addrs);
        f.extend(extension);
    }
    f.extend(transport);
    f
}

/// A pair of addresses of one family.
fn addrs(input: &mut Input<'_>) -> Vec<u8> {
    let b = input.byte();
    let (guest, peer) = (usize::from(b >> 5), usize::from(b & 15));
    let pick = |from: &[&str], n: usize| addr(from[n % from.len()]);
    // Mostly from the guest to the usual peer.
    let (guest, peer) = (if guest < 4 { 0 } else { guest - 3 }, peer.saturating_sub(5));
    if b & 16 == 0 {
        let (s, d) = (pick(&GUESTS4, guest), pick(&PEERS4, peer));
        [s.v4().unwrap().octets(), d.v4().unwrap().octets()].concat()
    } else {
        let (s, d) = (pick(&GUESTS6, guest), pick(&PEERS6, peer));
        [s.v6().unwrap().octets(), d.v6().unwrap().octets()].concat()
    }
}

fn tcp(
    input: &mut Input<'_>,
    flags: u8,
    numbers: (u32, u32),
    ports: (u16, u16),
    data: usize,
) -> Vec<u8> {
    let (seq, ack) = numbers;
    let [a, b, c, d] = seq.to_be_bytes();
    let stamps = [1, 1, 8, 10, a, b, c, d, 0, 0, 0, 9];
    let [a, b, c, d] = ack.wrapping_add(100).to_be_bytes();
    let [e, f, g, h] = ack.wrapping_add(5000).to_be_bytes();
    let sack = [1, 1, 5, 10, a, b, c, d, e, f, g, h];
    let options: &[u8] = match input.byte() {
        0..60 if flags & SYN != 0 => &[2, 4, 5, 0xb4, 1, 3, 3, 7],
        60..80 if flags & SYN != 0 => &[2, 4, 0, 1, 3, 3, 14, 0],
        80..90 if flags & SYN != 0 => &[3, 3, 255, 2, 4, 0xff, 0xff, 0],
        90..100 => &[8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0],
        100..105 => &[2, 0, 0, 0],
        105..110 => &[255, 255, 255, 255],
        110..150 if flags & SYN != 0 => {
            &[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 3, 232, 0, 0, 0, 0, 1, 3, 3, 7]
        }
        110..180 => &stamps,
        180..200 => &sack,
        _ => &[],
    };
    let window = input.pick(&[65_535, 65_535, 1000, 1, 0, 0, 65_535, 300]);
    let mut t = vec![];
    t.extend(ports.0.to_be_bytes());
    t.extend(ports.1.to_be_bytes());
    t.extend(numbers.0.to_be_bytes());
    t.extend(numbers.1.to_be_bytes());
    t.push((((20 + options.len()) / 4) << 4) as u8);
    t.push(flags);
    t.extend(u16::to_be_bytes(window));
    t.extend([0; 4]);
    t.extend(options);
    t.resize(t.len() + data, 0x55);
    t
}

fn new_tcp(input: &mut Input<'_>) -> Vec<u8> {
    let addrs = addrs(input);
    let flags = match input.byte() {
        0..200 => SYN,
        200..220 => ACK,
        220..230 => SYN | ACK,
        b => b & 0x3f,
    };
    let isn = input.pick(&[1000, 1000, u32::MAX, 0x7fff_fff0]);
    let ports =
        (input.pick(&[4000, 4001, 80, 0, 65_535]), input.pick(&[80, 80, 443, 80, 53, 0, 4000]));
    let data = if input.chance(30) { length(input) } else { 0 };
    let t = tcp(input, flags, (isn, 0), ports, data);
    ip(input, 6, &addrs, &t)
}

fn known_tcp(input: &mut Input<'_>, link: &mut Link) -> Vec<u8> {
    let Conn { addrs, ports, guest_next, ours_next } = match link.conns.len() {
        0 => return new_tcp(input),
        n => link.conns[n - 1 - usize::from(input.byte()) % n].clone(),
    };
    let flags = match input.byte() {
        0..180 => ACK,
        180..200 => FIN | ACK,
        200..215 => SYN | ACK,
        215..220 => SYN,
        220..224 => RST,
        224..228 => RST | ACK,
        b => b & 0x3f & !RST,
    };
    let mut near = |n: u32| match input.byte() {
        0..180 => n,
        180..190 => n.wrapping_sub(1),
        190..200 => n.wrapping_add(1),
        200..215 => n.wrapping_add(u32::from(input.word())),
        215..240 => n.wrapping_sub(u32::from(input.word())),
        240..250 => n.wrapping_add(u32::from(input.word()) << 8),
        _ => input.long(),
    };
    let (seq, ack) = (near(guest_next), near(ours_next));
    let data = if input.chance(120) { length(input) } else { 0 };
    if seq == guest_next {
        let conn = link.conns.iter_mut().find(|c| c.ports == ports && c.addrs == addrs).unwrap();
        let len = data as u32 + u32::from(flags & FIN) + u32::from(flags >> 1 & 1);
        conn.guest_next = seq.wrapping_add(len);
    }
    let t = tcp(input, flags, (seq, ack), ports, data);
    ip(input, 6, &addrs, &t)
}

fn udp(input: &mut Input<'_>, vnet: &mut Vnet) -> Vec<u8> {
    let addrs = addrs(input);
    let ports: (u16, u16) =
        (input.pick(&[5000, 5000, 5001, 53, 0]), input.pick(&[53, 80, 5353, 4000, 0]));
    let data = length(input);
    match input.byte() {
        200..230 => vnet.gso = Gso::Udp(1400),
        230..240 => vnet.gso = Gso::Udp(input.word()),
        _ => {}
    }
    let len = match input.byte() {
        250 => input.word(),
        _ => (data + 8).min(65_535) as u16,
    };
    let mut t = vec![];
    t.extend(ports.0.to_be_bytes());
    t.extend(ports.1.to_be_bytes());
    t.extend(len.to_be_bytes());
    t.extend([0, 0]);
    t.resize(8 + data, 0x66);
    ip(input, 17, &addrs, &t)
}

fn echo(input: &mut Input<'_>) -> Vec<u8> {
    let addrs = addrs(input);
    let v4 = addrs.len() == 8;
    let kind = match input.byte() {
        0..200 => [128, 8][usize::from(v4)],
        b => b,
    };
    let data = length(input);
    let mut t = vec![kind, input.pick(&[0, 0, 0, 1]), 0, 0, 0, input.byte() % 4, 0, 1];
    t.resize(8 + data, 0x77);
    ip(input, if v4 { 1 } else { 58 }, &addrs, &t)
}

/// A fragment of something that was cut, now or before; often it is gone then.
fn fragment(input: &mut Input<'_>, link: &mut Link) -> Vec<u8> {
    if link.fragments.is_empty() || input.chance(60) {
        let whole = match input.byte() % 8 {
            0..5 => udp(input, &mut Vnet::default()),
            5 | 6 => echo(input),
            _ => new_tcp(input),
        };
        cut(&whole, input, &mut link.fragments);
    }
    let at = usize::from(input.byte()) % link.fragments.len();
    if input.chance(30) { link.fragments[at].clone() } else { link.fragments.remove(at) }
}

/// Cuts a frame into fragments; not more than a few are kept.
fn cut(frame: &[u8], input: &mut Input<'_>, to: &mut Vec<Vec<u8>>) {
    let v4 = frame[12] == 8;
    let (headers, data) = frame.split_at(if v4 { 34 } else { 54 });
    let size = match input.byte() {
        b @ 0..200 => (usize::from(b) + 1) * 8,
        _ => 1480,
    };
    // The same again is an overlap, or a repetition.
    let id = input.byte() % 4;
    for (n, part) in data.chunks(size).take(48).enumerate() {
        let offset = (n * size) as u16;
        let more = n * size + part.len() < data.len();
        let mut f = headers.to_vec();
        if v4 {
            f[16..18].copy_from_slice(&(part.len() as u16 + 20).to_be_bytes());
            f[19] = id;
            f[20..22].copy_from_slice(&(offset >> 3 | u16::from(more) << 13).to_be_bytes());
        } else {
            f[18..20].copy_from_slice(&(part.len() as u16 + 8).to_be_bytes());
            let next = std::mem::replace(&mut f[20], 44);
            f.extend([next, 0]);
            f.extend((offset | u16::from(more)).to_be_bytes());
            f.extend([0, 0, 0, id]);
        }
        f.extend(part);
        to.push(f);
    }
    let surplus = to.len().saturating_sub(200);
    to.drain(..surplus);
}

fn arp(input: &mut Input<'_>) -> Vec<u8> {
    let mut f = vec![0xff; 6];
    f.extend([2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, input.pick(&[1, 1, 2, 3])]);
    f.extend([2, 0, 0, 0, 0, 1]);
    f.extend(addr(input.pick(&GUESTS4)).v4().unwrap().octets());
    f.extend([0; 6]);
    f.extend(addr(input.pick(&PEERS4)).v4().unwrap().octets());
    f.resize(60, 0);
    f
}

fn ndp(input: &mut Input<'_>) -> Vec<u8> {
    let kind = input.pick(&[135, 133, 136, 134, 137]);
    let src = addr(input.pick(&GUESTS6)).v6().unwrap().octets();
    let dst = addr(input.pick(&PEERS6)).v6().unwrap().octets();
    let mut t = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    if kind >= 135 {
        t.extend(addr(input.pick(&PEERS6)).v6().unwrap().octets());
    }
    for _ in 0..input.byte() % 4 {
        match input.byte() {
            0..150 => t.extend([1, 1, 2, 0, 0, 0, 0, 1]),
            150..200 => t.extend([14, 1, 1, 2, 3, 4, 5, 6]),
            b => t.extend([b, input.byte() % 4, 0, 0, 0, 0, 0, 0]),
        }
    }
    let addrs = [src, dst].concat();
    // The hop limit is the next byte of the input; 255 is what it should be.
    ip(input, 58, &addrs, &t)
}

fn other(input: &mut Input<'_>) -> Vec<u8> {
    let addrs = addrs(input);
    let (protocol, len) = (input.byte(), usize::from(input.byte() % 64));
    let t = input.bytes(len).to_vec();
    ip(input, protocol, &addrs, &t)
}
