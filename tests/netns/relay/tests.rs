//! The link does what it was asked for: between two kernels, without pasta.

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use super::{Profile, Relay, Shape};
use crate::lab::{HOST4, Lab, REMOTE4, REMOTE6, SOON, at, eventually};
use crate::net::{listen, pattern, roundtrip, udp};
use crate::tap::Frames;

const MS: Duration = Duration::from_millis(1);

#[test]
fn delays() {
    let shape = |delay| Shape { delay, ..Shape::PLAIN };
    let profile = Profile { back: shape(30 * MS), ..Profile::both(shape(20 * MS)) };
    Lab::run_far(&profile, |lab, relay| {
        let here = udp(&lab.host(), at(HOST4, 7000));
        let there = udp(&lab.remote, at(REMOTE4, 7000));
        let (mut one_way, mut whole) = (Vec::new(), Vec::new());
        for _ in 0..20 {
            let start = Instant::now();
            here.send_to(b"?", at(REMOTE4, 7000)).unwrap();
            there.recv(&mut [0; 10]).unwrap();
            one_way.push(start.elapsed());
            there.send_to(b"!", at(HOST4, 7000)).unwrap();
            here.recv(&mut [0; 10]).unwrap();
            whole.push(start.elapsed());
        }
        one_way.sort();
        whole.sort();
        // Neither processor may have been there in time, but never too early.
        assert!(one_way[0] >= 20 * MS && whole[0] >= 50 * MS, "{one_way:?} {whole:?}");
        assert!(one_way[5] < 40 * MS && whole[5] < 80 * MS, "{one_way:?} {whole:?}");
        relay.kept_up();
    });
}

/// Twenty megabytes each way at 100 Mbit/s, at the same time: neither direction takes from the
/// other.
#[track_caller]
fn rate(lab: &Lab, relay: &Relay, frames: Frames) {
    let data = pattern(20_000_000);
    for server in [REMOTE4, REMOTE6] {
        let listener = listen(&lab.remote, at(server, 7000));
        let (near, far) = roundtrip(&lab.host(), at(server, 7000), &listener);
        let start = Instant::now();
        thread::scope(|scope| {
            for (mut from, mut to) in
                [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)]
            {
                let data = &data;
                scope.spawn(move || from.write_all(data).unwrap());
                scope.spawn(move || {
                    let mut got = vec![0; data.len()];
                    to.read_exact(&mut got).unwrap();
                    assert!(got == *data);
                });
            }
        });
        let took = start.elapsed();
        // TCP on a busy machine may not fill the link, but it cannot be faster.
        assert!(took >= 1590 * MS && took < 8000 * MS, "{took:?}");
    }
    relay.kept_up();
    for counts in relay.counts() {
        let each = counts.frames == counts.packets && counts.bytes / counts.frames <= 1514;
        assert_eq!(each, frames == Frames::Wire, "{counts:?}");
    }
}

#[test]
fn limits_the_rate_of_trains() {
    Lab::run_far(&Profile::path(4 * MS, 100), |lab, relay| rate(lab, relay, Frames::Trains));
}

#[test]
fn limits_the_rate_of_packets() {
    Lab::run_far(&Profile::path(4 * MS, 100).by_packet(), |lab, relay| {
        rate(lab, relay, Frames::Wire)
    });
}

#[test]
fn trains_count_as_their_packets() {
    Lab::run_far(&Profile::both(Shape::PLAIN), |lab, relay| {
        let listener = listen(&lab.remote, at(REMOTE4, 7000));
        let (mut near, mut far) = roundtrip(&lab.host(), at(REMOTE4, 7000), &listener);
        let data = pattern(20_000_000);
        thread::scope(|scope| {
            scope.spawn(|| near.write_all(&data).unwrap());
            far.read_exact(&mut vec![0; data.len()]).unwrap();
        });
        let [forth, _] = relay.counts();
        // 1448 bytes in a packet of 1514, with timestamps.
        let packets = data.len() as u64 / 1448;
        assert!(forth.packets >= packets && forth.packets < packets * 11 / 10, "{forth:?}");
        assert!(forth.bytes >= packets * 1514 && forth.bytes < packets * 1514 * 11 / 10);
        assert!(forth.frames < packets / 2, "{forth:?}");
    });
}

#[test]
fn loses_delays_and_doubles_its_part() {
    const SENT: usize = 3000;
    let shape = Shape {
        delay: 5 * MS,
        loss: 0.1,
        reorder: 0.1,
        late: 10 * MS,
        duplicate: 0.1,
        ..Shape::PLAIN
    };
    let profile = Profile { back: Shape::PLAIN, ..Profile::both(shape) };
    Lab::run_far(&profile, |lab, relay| {
        let here = udp(&lab.host(), at(HOST4, 7000));
        let there = udp(&lab.remote, at(REMOTE4, 7000));
        there.set_read_timeout(Some(300 * MS)).unwrap();
        // The first datagram asks for the address, which may be lost, too.
        eventually("a first datagram arrives", SOON, || {
            here.send_to(&[255; 4], at(REMOTE4, 7000)).unwrap();
            there.recv(&mut [0; 10]).is_ok()
        });
        while there.recv(&mut [0; 10]).is_ok() {}
        let before = relay.counts()[0];
        let mut got = vec![0; SENT];
        let (mut last, mut overtaken) = (0, 0);
        thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..u32::try_from(SENT).unwrap() {
                    here.send_to(&n.to_be_bytes(), at(REMOTE4, 7000)).unwrap();
                    thread::sleep(MS / 5);
                }
            });
            let mut datagram = [0; 4];
            while there.recv(&mut datagram).is_ok() {
                let n = u32::from_be_bytes(datagram);
                overtaken += usize::from(n < last);
                last = last.max(n);
                got[n as usize] += 1;
            }
        });
        let after = relay.counts()[0];
        let part = |n: usize| n > SENT * 7 / 100 && n < SENT * 13 / 100; // 5 standard deviations
        let missing = got.iter().filter(|n| **n == 0).count();
        let twice = got.iter().filter(|n| **n == 2).count();
        assert!(
            part(missing) && part(twice + SENT / 100) && part(overtaken),
            "{missing} {twice} {overtaken}"
        );
        // Packets about neighbours have their fate as well.
        let some = |n: usize| n as u64..n as u64 + 20;
        assert!(some(missing).contains(&(after.lost - before.lost)), "{missing} {after:?}");
        assert!(some(twice).contains(&(after.doubled - before.doubled)), "{twice} {after:?}");
        relay.kept_up();
    });
}

#[test]
fn the_same_seed_does_the_same() {
    use super::wire::Wire;
    let shape = Shape { loss: 0.1, reorder: 0.2, duplicate: 0.1, jitter: MS, ..Shape::PLAIN };
    let history = |seed| {
        let mut wire = Wire::new(shape, Frames::Wire, seed);
        let mut arrived = Vec::new();
        for n in 0..1000_u64 {
            wire.room().unwrap()[..8].copy_from_slice(&n.to_be_bytes());
            wire.accept(n * 100_000, 8);
            while wire.take(n * 100_000, |frame| {
                arrived.push(frame.to_vec());
                true
            }) {}
        }
        (wire.counts, arrived)
    };
    assert_eq!(history(1), history(1));
    assert_ne!(history(1), history(2));
}

#[test]
fn a_full_queue_drops_and_nothing_else_does() {
    use super::wire::Wire;
    // 1 Mbit/s is 125 bytes in a millisecond.
    let shape = Shape { rate: 1_000_000, queue: 1000, delay: MS, ..Shape::PLAIN };
    let mut wire = Wire::new(shape, Frames::Wire, 1);
    for _ in 0..20 {
        wire.room().unwrap();
        wire.accept(0, 125);
    }
    // Eight fill the queue.
    assert_eq!(wire.counts.dropped, 12);
    let mut at = Vec::new();
    while let Some(due) = wire.next_due() {
        assert!(!wire.take(due - 1, |_| true), "too early");
        assert!(wire.take(due, |frame| frame.len() == 125));
        at.push(due / 1_000_000);
    }
    assert_eq!(at, [2, 3, 4, 5, 6, 7, 8, 9]);
}
