//! TCP segments of the guest, field by field.
//!
//! [`super::frames`] makes mostly right ones among frames of all kinds. Here nothing is likely:
//! flags in every combination, numbers at and around those that matter, options as bytes, header
//! lengths that lie. Only addresses and ports are those of connections, or of a new one.

use super::Input;
use super::frames::{ip, length};
use super::link::{Conn, Link};

const FIN: u8 = 1;
const SYN: u8 = 2;
const URG: u8 = 0x20;

/// 192.0.2.2 to 198.51.100.1; 2001:db8::2 to 2001:db8:1::1.
const ADDRS4: [u8; 8] = [192, 0, 2, 2, 198, 51, 100, 1];
const ADDRS6: [u8; 32] = [
    0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, //
    0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
];

/// One frame.
pub(super) fn frame(input: &mut Input<'_>, link: &mut Link) -> Vec<u8> {
    let which = input.byte();
    let known = link.conns.len();
    let conn = if which < 64 || known == 0 {
        // About to wrap, most of the time.
        let isn = input.pick(&[u32::MAX, 0x7fff_ffff, 1000, u32::MAX - 40_000]);
        let addrs = if which & 1 == 0 { ADDRS4.to_vec() } else { ADDRS6.to_vec() };
        let ports = (4000 + u16::from(which >> 1 & 3), 80);
        Conn { addrs, ports, guest_next: isn, ours_next: 0 }
    } else {
        link.conns[known - 1 - usize::from(which) % known].clone()
    };
    let flags = input.byte();
    let seq = near(input, conn.guest_next);
    let ack = near(input, conn.ours_next);
    let window = match input.byte() {
        0 => u16::MAX,
        1 => 0,
        2 => input.word(),
        n => u16::from(n),
    };
    let mut options = match input.byte() {
        0 => vec![],
        1 => vec![2, 4, 5, 0xb4, 1, 3, 3, 7],
        // What else stacks offer: SACK, timestamps.
        2 => vec![2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7],
        n => input.bytes(usize::from(n) % 41).to_vec(),
    };
    options.resize(options.len().next_multiple_of(4), 0);
    let words = match input.byte() {
        // A header length of any kind.
        lie @ 224.. => lie & 15,
        _ => (5 + options.len() / 4) as u8,
    };
    let urgent = if flags & URG != 0 { input.word() } else { 0 };
    let data = if input.chance(128) { length(input) } else { 0 };
    if seq == conn.guest_next
        && let Some(c) =
            link.conns.iter_mut().find(|c| c.ports == conn.ports && c.addrs == conn.addrs)
    {
        let len = data as u32 + u32::from(flags & FIN) + u32::from(flags & SYN != 0);
        c.guest_next = seq.wrapping_add(len);
    }

    let mut t = vec![];
    t.extend(conn.ports.0.to_be_bytes());
    t.extend(conn.ports.1.to_be_bytes());
    t.extend(seq.to_be_bytes());
    t.extend(ack.to_be_bytes());
    t.extend([words << 4, flags]);
    t.extend(window.to_be_bytes());
    t.extend([0, 0]);
    t.extend(urgent.to_be_bytes());
    t.extend(options);
    t.resize(t.len() + data, 0x55);
    ip(input, 6, &conn.addrs, &t)
}

/// A number relative to one that matters.
fn near(input: &mut Input<'_>, n: u32) -> u32 {
    let by = input.byte();
    let m = u32::from(by);
    match by {
        0..120 => n,
        120..160 => n.wrapping_add(m - 119),
        160..200 => n.wrapping_sub(m - 159),
        200..215 => n.wrapping_add((m - 199) * 1460),
        215..230 => n.wrapping_sub((m - 214) * 1460),
        230..240 => n.wrapping_add((m - 229) << 15),
        240..250 => n.wrapping_sub((m - 239) << 15),
        _ => input.long(),
    }
}
