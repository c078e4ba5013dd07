//! Fragments of the guest through the whole translator.

use passt::config::Protocols;
use passt::flow::DropReason;
use passt::services::Offered;
use passt::translate::{Now, Translator};
use passt::wire::Vnet;

use super::link::FakeLink;
use super::net::FakeNet;
use super::raw::{OPTIONS, SYN};
use super::served::{START, translator};
use super::world::{GUEST_MAC, lease};

const TCP: u8 = 6;
const ICMPV6: u8 = 58;

fn world() -> Translator<FakeLink, FakeNet> {
    // Nothing is said unasked.
    let offered = Offered { ra: false, ..Offered::default() };
    translator(offered, lease(1500), Protocols::default())
}

/// A fragment from the guest to a peer.
fn fragment(v4: bool, protocol: u8, (offset, more): (u16, bool), data: &[u8]) -> Vec<u8> {
    let mut f = vec![0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55];
    f.extend(GUEST_MAC.0);
    if v4 {
        f.extend([8, 0, 0x45, 0]);
        f.extend((data.len() as u16 + 20).to_be_bytes());
        f.extend([0, 9]);
        f.extend((offset / 8 | u16::from(more) << 13).to_be_bytes());
        f.extend([64, protocol, 0, 0, 192, 0, 2, 2, 198, 51, 100, 1]);
    } else {
        f.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        f.extend((data.len() as u16 + 8).to_be_bytes());
        f.extend([44, 255]);
        f.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        f.extend([0x20, 1, 0xd, 0xb8, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        f.extend([protocol, 0]);
        f.extend((offset | u16::from(more)).to_be_bytes());
        f.extend([0, 0, 0, 9]);
    }
    f.extend(data);
    f
}

/// A SYN to port 80, its checksum left to a device.
fn syn() -> Vec<u8> {
    let head = [0x0f, 0xa0, 0, 80, 0, 0, 3, 0xe8, 0, 0, 0, 0, 7 << 4, SYN, 255, 255, 0, 0, 0, 0];
    [&head[..], &OPTIONS].concat()
}

// [L2-4] [L2-6] What is whole again is handled like anything else, TCP too.
#[test]
fn a_connection_from_fragments() {
    for v4 in [true, false] {
        let mut t = world();
        let unfinished = Vnet { needs_csum: true, ..Vnet::default() };
        for (place, part) in [((24, false), &syn()[24..]), ((0, true), &syn()[..24])] {
            assert_eq!(t.len(), 0);
            t.on_frame(&unfinished, &fragment(v4, TCP, place, part));
        }
        t.end_batch();
        assert_eq!(t.len(), 1);
        // A wrong checksum that nobody is to complete.
        for (place, part) in [((24, false), &syn()[24..]), ((0, true), &syn()[..24])] {
            t.on_frame(&Vnet::default(), &fragment(v4, TCP, place, part));
        }
        assert_eq!(t.drops().get(DropReason::FragmentChecksum), 1);
        t.end_flows();
    }
}

// [L2-4] [L2-6] When the rest does not come, the guest is told from where it was to go (RFC 792; RFC
// 8200, 4.5), and only about what it sent the beginning of.
#[test]
fn the_guest_is_told_what_did_not_come() {
    for v4 in [true, false] {
        let mut t = world();
        let first = fragment(v4, TCP, (0, true), &syn()[..24]);
        t.on_frame(&Vnet::default(), &first);
        let other = if v4 { 17 } else { TCP };
        let mut later = fragment(v4, other, (24, false), &[7; 10]);
        // Another packet.
        later[if v4 { 19 } else { 61 }] = 10;
        t.on_frame(&Vnet::default(), &later);
        assert_eq!(t.next_deadline(), Some(START / 1000 + 60_000));
        t.set_now(Now(START + 59_999_000));
        t.on_time();
        assert!(t.out.frames.is_empty());
        t.set_now(Now(START + 60_000_000));
        t.on_time();
        assert_eq!(t.drops().get(DropReason::FragmentTimeout), 2);
        let told: Vec<_> = t.out.frames.drain(..).collect();
        let [told] = &told[..] else { panic!("{told:?}") };
        let (at, kind, from) = if v4 { (34, 11, 26..30) } else { (54, 3, 22..38) };
        assert_eq!((told[at], told[at + 1], &told[at + 4..at + 8]), (kind, 1, &[0; 4][..]));
        assert_eq!(told[at + 8..], first[14..], "all of the first fragment");
        let (_, to) = first[14..].split_at(if v4 { 16 } else { 24 });
        assert_eq!(told[from.clone()], to[..from.len()]);
        assert_eq!(t.next_deadline(), None);
    }
}

// [NDP-1] Neighbour discovery in fragments is ignored (RFC 6980, 5).
#[test]
fn no_discovery_in_fragments() {
    let mut t = world();
    let mut request = vec![135, 0, 0, 0, 0, 0, 0, 0];
    request.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let unfinished = Vnet { needs_csum: true, ..Vnet::default() };
    t.on_frame(&unfinished, &fragment(false, ICMPV6, (0, true), &request[..16]));
    t.on_frame(&unfinished, &fragment(false, ICMPV6, (16, false), &request[16..]));
    assert!(t.out.frames.is_empty());
    assert_eq!(t.drops().get(DropReason::BadService), 1);
}
