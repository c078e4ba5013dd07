use super::*;
use crate::wire::{Body, Frame, checksum, proto};
use proptest::prelude::*;

/// A part of a datagram: where it begins, and how long it is; and whether something follows.
type Part = (usize, usize, bool);

/// A frame with a part of `data`.
fn frame(v4: bool, id: u32, (offset, len, more): Part, data: &[u8]) -> Vec<u8> {
    let data = &data[offset..offset + len];
    let word = offset as u16 | u16::from(more);
    let mut f = vec![0xff; 6];
    f.extend([2, 0, 0, 0, 0, 1]);
    if v4 {
        f.extend([8, 0, 0x45, 0]);
        f.extend((data.len() as u16 + 20).to_be_bytes());
        f.extend((id as u16).to_be_bytes());
        f.extend((word >> 3 | u16::from(more) << 13).to_be_bytes());
        f.extend([64, proto::UDP, 0, 0, 192, 0, 2, 10, 192, 0, 2, 77]);
    } else {
        f.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        f.extend((data.len() as u16 + 8).to_be_bytes());
        f.extend([44, 64]);
        f.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10]);
        f.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x77]);
        f.extend([proto::UDP, 0]);
        f.extend(word.to_be_bytes());
        f.extend(id.to_be_bytes());
    }
    f.extend(data);
    f
}

/// A UDP datagram, the same for each seed, with its checksum if `summed`.
fn datagram(v4: bool, len: usize, seed: u8, summed: bool) -> Vec<u8> {
    let mut data: Vec<u8> = (0..len).map(|n| (n / 8 + n) as u8 ^ seed).collect();
    data[6..8].fill(0);
    if summed {
        let whole = frame(v4, 1, (0, len, false), &data);
        // The pseudo-header: addresses, protocol, length.
        let addresses = if v4 { 26..34 } else { 22..54 };
        let more = [&whole[addresses], &[0, 17], &(len as u16).to_be_bytes()[..], &data].concat();
        let sum = checksum::of(&more);
        data[6..8].copy_from_slice(&sum.to_be_bytes());
    }
    data
}

/// The parts of a datagram of `len` bytes that is cut every `size`.
fn parts(len: usize, size: usize) -> Vec<Part> {
    (0..len).step_by(size).map(|at| (at, size.min(len - at), at + size < len)).collect()
}

struct Rig {
    reassembly: Reassembly,
    drops: Drops,
    now: u64,
}

impl Rig {
    fn new() -> Self {
        Self { reassembly: Reassembly::new(), drops: Drops::default(), now: 1000 }
    }

    /// Adds a fragment; the datagram that it completes.
    fn add(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let Body::Fragment(f) = Frame::parse(frame).unwrap().body else { panic!("whole") };
        let packet = self.reassembly.add(&f, true, self.now, &mut self.drops)?;
        assert!(!packet.df);
        Some(packet.transport.to_vec())
    }

    fn all(&mut self, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        frames.iter().filter_map(|f| self.add(f)).collect()
    }

    fn drops(&self) -> Vec<(DropReason, u64)> {
        self.drops.iter().collect()
    }

    /// Lets time pass; what is told: destination, length of the headers, and the data.
    fn expire(&mut self, ms: u64) -> Vec<(Addr, usize, Vec<u8>)> {
        let mut told = vec![];
        self.now += ms;
        self.reassembly.expire(self.now, &mut self.drops, |e, _| {
            told.push((e.dst, e.headers.len(), e.data.to_vec()));
        });
        told
    }
}

// [L2-4] [L2-6] In order, in reverse, interleaved with another one; of any length.
#[test]
fn fragments_become_datagrams() {
    for v4 in [true, false] {
        let mut rig = Rig::new();
        for (id, (len, size)) in (1..).zip([(4000, 1480), (1481, 1480), (65_515, 1480), (4000, 8)])
        {
            let data = datagram(v4, len, 1, true);
            let mut frames: Vec<_> =
                parts(len, size).iter().map(|p| frame(v4, id, *p, &data)).collect();
            assert_eq!(rig.all(&frames), std::slice::from_ref(&data));
            frames.reverse();
            assert_eq!(rig.all(&frames), std::slice::from_ref(&data));
            let other = datagram(v4, len, 2, true);
            let others = parts(len, size).into_iter().map(|p| frame(v4, id + 100, p, &other));
            let mixed: Vec<_> = frames.into_iter().zip(others).flat_map(|(a, b)| [a, b]).collect();
            assert_eq!(rig.all(&mixed), [data, other]);
        }
        assert_eq!(rig.drops(), []);
        rig.expire(PATIENCE_MS);
        assert_eq!((rig.reassembly.due(), rig.drops().len()), (None, 0));
    }
}

// [L2-4] Only what has the same addresses, identification and, for IPv4, protocol belongs together.
#[test]
fn strangers_are_kept_apart() {
    for (v4, at, apart) in [
        (true, 19, true),  // identification
        (true, 29, true),  // source
        (true, 33, true),  // destination
        (true, 23, true),  // protocol
        (true, 22, false), // TTL
        (false, 61, true),
        (false, 37, true),
        (false, 53, true),
        (false, 54, false), // next header of a later fragment
        (false, 21, false),
    ] {
        let mut rig = Rig::new();
        let data = datagram(v4, 2000, 1, false);
        let mut frames = [(0, 1000, true), (1000, 1000, false)].map(|p| frame(v4, 9, p, &data));
        frames[1][at] ^= 1;
        let whole = if v4 { rig.all(&frames) } else { vec![] };
        assert_eq!(v4 && whole.is_empty(), v4 && apart, "{at}");
        // Without a checksum IPv6 does not accept it; that it was put together is enough.
        if !v4 {
            let all = rig.all(&frames);
            let count = rig.drops.get(DropReason::FragmentChecksum);
            assert_eq!((all.len(), count), (0, u64::from(!apart)), "{at}");
        }
    }
}

// [L2-4] [L2-6] The same fragment again changes nothing; any other overlap is the end of the
// packet (RFC 5722), for IPv6 also of what is yet to come.
#[test]
fn overlaps_are_refused() {
    use DropReason::{FragmentDuplicate, FragmentOverlap};
    for v4 in [true, false] {
        let data = datagram(v4, 3000, 1, true);
        let part = |p| frame(v4, 7, p, &data);
        let [a, b, c] = [(0, 1000, true), (1000, 1000, true), (2000, 1000, false)].map(part);
        let mut rig = Rig::new();
        let again = [&a, &a, &c, &c, &b].map(Clone::clone);
        assert_eq!(rig.all(&again), std::slice::from_ref(&data));
        assert_eq!(rig.drops(), [(FragmentDuplicate, 2)]);

        let mut changed = b.clone();
        *changed.last_mut().unwrap() ^= 1;
        for bad in [
            part((992, 16, true)),
            part((0, 8, true)),
            part((0, 2000, true)),
            part((1992, 8, true)),
            part((1000, 1000, false)),
            changed,
        ] {
            let mut rig = Rig::new();
            let frames = [&a, &b, &bad, &c].map(Clone::clone);
            assert_eq!(rig.all(&frames), Vec::<Vec<u8>>::new());
            assert_eq!(rig.drops(), [(FragmentOverlap, if v4 { 1 } else { 2 })]);
            // Another packet of this identification is not in danger of it for long.
            rig.expire(PATIENCE_MS);
            assert_eq!(rig.all(&[&a, &b, &c].map(Clone::clone)), std::slice::from_ref(&data));
        }
        // Two that together are a third one.
        let mut rig = Rig::new();
        let frames = [part((0, 1000, true)), part((1000, 1000, true)), part((0, 2000, true))];
        assert_eq!(rig.all(&frames), Vec::<Vec<u8>>::new());
        assert_eq!(rig.drops(), [(FragmentOverlap, 1)]);
    }
}

// [L2-4] [L2-6] A packet has one end.
#[test]
fn ends_must_agree() {
    for v4 in [true, false] {
        let data = datagram(v4, 4000, 1, true);
        for frames in [
            [(2000, 100, false), (3000, 100, false)],
            [(3000, 100, false), (2000, 100, false)],
            [(2000, 100, false), (2400, 80, true)],
            [(2400, 80, true), (2000, 100, false)],
        ] {
            let mut rig = Rig::new();
            assert_eq!(rig.all(&frames.map(|p| frame(v4, 7, p, &data))), Vec::<Vec<u8>>::new());
            assert_eq!(rig.drops(), [(DropReason::Fragment, 1)]);
        }
    }
}

// [L2-4] [L2-6] After a minute what is not complete is given up, and the guest is told if it sent
// the beginning.
#[test]
fn nothing_waits_for_ever() {
    for v4 in [true, false] {
        let mut rig = Rig::new();
        let data = datagram(v4, 4000, 1, true);
        rig.add(&frame(v4, 1, (1000, 1000, true), &data));
        rig.now += 1000;
        rig.add(&frame(v4, 2, (0, 800, true), &data));
        assert_eq!(rig.reassembly.due(), Some(1000 + PATIENCE_MS));
        assert_eq!(rig.expire(PATIENCE_MS - 1001), []);
        assert_eq!(rig.drops(), []);
        assert_eq!(rig.expire(1), []);
        assert_eq!(rig.drops(), [(DropReason::FragmentTimeout, 1)]);
        assert_eq!(rig.reassembly.due(), Some(2000 + PATIENCE_MS));
        let told = rig.expire(1000);
        let [(dst, headers, first)] = &told[..] else { panic!("{told:?}") };
        assert_eq!((dst.is_v4(), *headers, &first[..]), {
            (v4, if v4 { 20 } else { 48 }, &data[..800])
        });
        assert_eq!((rig.reassembly.due(), rig.drops()[0].1), (None, 2));
        assert_eq!(rig.add(&frame(v4, 2, (800, 3200, false), &data)), None);
    }
}

// [L2-4] Places are few: what waits longest gives way.
#[test]
fn the_oldest_gives_way() {
    let data = datagram(true, 2000, 1, true);
    let mut rig = Rig::new();
    let begin = |rig: &mut Rig, id| {
        rig.now += 1;
        assert_eq!(rig.add(&frame(true, id, (0, 1000, true), &data)), None);
    };
    let end = |id| frame(true, id, (1000, 1000, false), &data);
    (0..PLACES as u32).for_each(|id| begin(&mut rig, id));
    assert_eq!(rig.drops(), []);
    begin(&mut rig, 500);
    assert_eq!(rig.drops(), [(DropReason::FragmentLimit, 1)]);
    assert_eq!(rig.add(&end(1)), Some(data.clone()));
    assert_eq!(rig.add(&end(500)), Some(data.clone()));
    begin(&mut rig, 501);
    assert_eq!(rig.drops(), [(DropReason::FragmentLimit, 1)]);
    assert_eq!(rig.add(&end(0)), None);
}

// [L2-4] Fragments of two packets with one identification: the checksum shows it (RFC 4963), and
// congestion that one met is not lost (RFC 3168, 5.3).
#[test]
fn checksum_and_congestion() {
    let (one, two) = (datagram(true, 2000, 1, true), datagram(true, 2000, 2, true));
    let mut rig = Rig::new();
    let a = frame(true, 7, (0, 1000, true), &one);
    assert_eq!(rig.add(&a), None);
    assert_eq!(rig.add(&frame(true, 7, (1000, 1000, false), &two)), None);
    assert_eq!(rig.drops(), [(DropReason::FragmentChecksum, 1)]);
    assert_eq!(rig.add(&a), None);
    let mut b = frame(true, 7, (1000, 1000, false), &one);
    b[15] = 3;
    let Body::Fragment(f) = Frame::parse(&b).unwrap().body else { panic!("whole") };
    let packet = rig.reassembly.add(&f, true, 0, &mut rig.drops).unwrap();
    assert_eq!((packet.tos, packet.ttl), (3, 64));
}

/// Fragments of a datagram: some that make it, and others that may not.
fn pieces() -> impl Strategy<Value = (bool, usize, Vec<Part>, Vec<Part>)> {
    let cuts = proptest::collection::vec(1usize..500, 0..8);
    let wrong = proptest::collection::vec((0usize..510, 1usize..600, any::<bool>()), 0..4);
    (any::<bool>(), 8usize..4080, cuts, wrong).prop_map(|(v4, len, cuts, wrong)| {
        let mut at: Vec<usize> = cuts.iter().map(|c| c * 8).filter(|c| *c < len).collect();
        at.extend([0, len]);
        at.sort_unstable();
        at.dedup();
        let right = at.windows(2).map(|w| (w[0], w[1] - w[0], w[1] < len)).collect();
        // Of the same bytes, somewhere else.
        let wrong = wrong
            .into_iter()
            .filter_map(|(at, n, more)| {
                let at = at * 8;
                let n = n.min(len.checked_sub(at)?);
                let n = if more { n / 8 * 8 } else { n };
                (n > 0 && (at > 0 || n >= 8)).then_some((at, n, more))
            })
            .collect();
        (v4, len, right, wrong)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    // [L2-4] [L2-6] In any order, and some of them again: the datagram, once.
    #[test]
    fn any_order_makes_the_original(
        (v4, len, right, _) in pieces(),
        order in any::<u64>(),
        again in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let data = datagram(v4, len, 3, true);
        let mut all = right.clone();
        shuffle(&mut all, order);
        // Before the last one, after which everything is forgotten.
        for index in again {
            let part = all[index.index(all.len())];
            let at = all.iter().position(|p| *p == part).unwrap() + 1;
            if at < all.len() {
                all.insert(at, part);
            }
        }
        let mut rig = Rig::new();
        let frames: Vec<_> = all.into_iter().filter(|p| *p != (0, len, false)).collect();
        let frames: Vec<_> = frames.into_iter().map(|p| frame(v4, 7, p, &data)).collect();
        let got = rig.all(&frames);
        prop_assert_eq!(got, if frames.is_empty() { vec![] } else { vec![data] });
    }

    // [L2-4] [L2-6] Whatever comes between, what comes out is the original.
    #[test]
    fn the_original_or_nothing(
        (v4, len, right, wrong) in pieces(),
        order in any::<u64>(),
        foreign in any::<bool>(),
    ) {
        let (data, other) = (datagram(v4, len, 3, true), datagram(v4, len, 4, true));
        let mut frames: Vec<_> = right.iter().map(|p| frame(v4, 7, *p, &data)).collect();
        frames.extend(wrong.iter().map(|p| frame(v4, 7, *p, if foreign { &other } else { &data })));
        shuffle(&mut frames, order);
        let mut rig = Rig::new();
        for f in frames {
            // An atomic one of IPv4 is a packet.
            let Ok(Frame { body: Body::Fragment(f), .. }) = Frame::parse(&f) else { continue };
            let now = rig.now;
            if let Some(packet) = rig.reassembly.add(&f, true, now, &mut rig.drops) {
                let got = packet.transport;
                prop_assert!(got == data || got == other || data.starts_with(got), "{}", got.len());
            }
        }
    }

    // Maps of bits, against lists of them.
    #[test]
    fn maps(ranges in proptest::collection::vec((0usize..8192, 0usize..300), 0..20)) {
        let (mut map, mut model) = (Map::new(), vec![false; 8192]);
        for (from, len) in ranges {
            let to = (from + len).min(8192);
            let set = model[from..to].iter().filter(|b| **b).count();
            prop_assert_eq!(map.count_in(from, to), set);
            if set == 0 {
                map.set(from, to);
                model[from..to].fill(true);
            }
            prop_assert_eq!(map.has(from), model[from]);
        }
        prop_assert_eq!(map.count(), model.iter().filter(|b| **b).count());
    }
}

fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut x = seed | 1;
    for n in (1..items.len()).rev() {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        items.swap(n, (x % (n as u64 + 1)) as usize);
    }
}
