//! What reaches TCP of the guest's frames at all.

use super::net::Behaviour;
use super::raw::*;
use super::world::World;

fn data() -> Seg {
    seg(ACK | PSH, G + 1, US + 1).data(b"abc")
}

/// What the peer has after these frames.
fn delivered(w: &mut World, s: usize, frames: &[Vec<u8>]) -> Vec<u8> {
    w.from_guest(frames);
    w.run(1000);
    w.net.socks[s].peer_got.clone()
}

// [TCP-1] A short frame is padded to 60 bytes by some drivers: the padding is no data.
#[test]
fn padding_is_trimmed() {
    for v6 in [false, true] {
        let mut w = World::new();
        w.v6 = v6;
        let s = w.connected(Behaviour::default());
        let mut f = data().frame(&w);
        f.resize(f.len() + 9, 0xaa);
        assert_eq!(delivered(&mut w, s, &[f]), b"abc");
        let mut f = seg(ACK, G + 4, US + 1).frame(&w);
        f.resize(f.len().max(54) + 6, 0xaa);
        assert_eq!(delivered(&mut w, s, &[f]), b"abc");
    }
}

// [TCP-1] Fragments, of which only the first has a TCP header.
#[test]
fn fragments_are_no_segments() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    for bits in [0x20, 0x60] {
        let mut f = data().frame(&w);
        f[20] = bits;
        assert_eq!(delivered(&mut w, s, &[f]), b"");
    }
    let mut f = data().frame(&w);
    f[21] = 1;
    assert_eq!(delivered(&mut w, s, &[f]), b"");
    // "Don't fragment" says nothing.
    for bits in [0, 0x40] {
        let mut f = data().frame(&w);
        f[20] = bits;
        assert_eq!(delivered(&mut w, s, &[f]), b"abc");
    }
    w.wait(1000);
    assert_eq!(w.table.len(), 1);
}

// [TCP-1] Lengths that cannot be.
#[test]
fn lengths_are_checked() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    let whole = data().frame(&w);
    let mut longer = whole.clone();
    longer[17] += 1;
    let mut header = whole.clone();
    header[14] = 0x44;
    let mut no_tcp = whole.clone();
    no_tcp[16..18].copy_from_slice(&39u16.to_be_bytes());
    assert_eq!(delivered(&mut w, s, &[longer, header, no_tcp]), b"");
    assert_eq!(w.take_frames().len(), 0);
    assert_eq!(delivered(&mut w, s, &[whole]), b"abc");
}

// [TCP-1] TCP behind IPv6 extension headers.
#[test]
fn extension_headers_are_skipped() {
    let mut w = World::new();
    w.v6 = true;
    let s = w.connected(Behaviour::default());
    let mut f = data().frame(&w);
    // Destination options: six bytes of padding.
    f.splice(54..54, [6, 0, 1, 4, 0, 0, 0, 0]);
    f[20] = 60;
    f[19] += 8;
    assert_eq!(delivered(&mut w, s, &[f]), b"abc");
}

// [TCP-3] [TCP-8] Header lengths that lie, urgent pointers, ECN and PSH: the former is no segment,
// the rest changes nothing.
#[test]
fn odd_headers() {
    let mut w = World::new();
    let s = w.connected(Behaviour::default());
    for words in [0, 4, 7, 15] {
        let mut f = data().frame(&w);
        f[46] = words << 4;
        assert_eq!(delivered(&mut w, s, &[f]), b"");
    }
    let mut at = 0;
    for flags in [0x20, 0x40, 0x80, 0xe0, 0xe8] {
        for urgent in [0u16, 1, 3, 0xffff] {
            let mut d = seg(ACK | flags, G + 1 + at, US + 1).data(b"x").frame(&w);
            d[52..54].copy_from_slice(&urgent.to_be_bytes());
            at += 1;
            assert_eq!(delivered(&mut w, s, &[d]).len(), at as usize);
        }
    }
}
