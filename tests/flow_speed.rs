//! What operations on a full flow table cost. Asserts nothing; prints nanoseconds per operation:
//!
//! ```text
//! cargo test --release --test flow_speed -- --ignored --nocapture
//! ```
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use passt::flow::{Index, MAX_FLOWS, Table, Tuple, Wheel};
use passt::wire::Endpoint;

/// As large as a flow.
type Flow = (Tuple, [u64; 16]);

fn tuple(n: u32) -> Tuple {
    // Scattered, so that neither the table nor the index is walked in order.
    let n = n.wrapping_mul(0x9e37_79b1);
    let guest = Endpoint::new(Ipv4Addr::new(10, 0, 0, 2).into(), (n >> 16) as u16 | 1);
    Tuple { protocol: 6, ours: Endpoint::new(Ipv4Addr::from(n).into(), 80), guest }
}

/// Processor time of this thread: others may be busy, too.
fn clock() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

fn print(what: &str, start: Duration, operations: u32) {
    println!("{what:<28} {:>4} ns", (clock() - start).as_nanos() / u128::from(operations));
}

#[test]
#[ignore = "measures"]
fn nanoseconds_at_full_load() {
    let n = u32::try_from(MAX_FLOWS).unwrap();
    let mut table: Table<Flow> = Table::new(MAX_FLOWS);
    let mut index = Index::new(MAX_FLOWS, [7; 16]);
    let mut wheel = Wheel::new(0, MAX_FLOWS);

    let enter = |table: &mut Table<Flow>, index: &mut Index, wheel: &mut Wheel, t: &Tuple| {
        let id = table.insert((*t, [0; 16])).unwrap();
        assert!(index.insert(index.hash(t), id.index));
        wheel.ensure(id.index, u64::from(id.index % 60_000) + 1);
        id
    };
    let start = clock();
    for t in (0..n).map(tuple) {
        enter(&mut table, &mut index, &mut wheel, &t);
    }
    print("insert, first use of memory", start, n);

    // In another order than they were entered; made up again, as packets bring their own addresses.
    let order = || (0..n).map(|i| (u64::from(i) * 40_503 % u64::from(n)) as u32);
    let start = clock();
    for i in order() {
        black_box(index.hash(&tuple(i)));
    }
    print("hash", start, n);
    let start = clock();
    for i in order() {
        let t = tuple(i);
        let found = index.find(index.hash(&t), |slot| table.at(slot).is_some_and(|f| f.0 == t));
        assert_eq!(black_box(found), Some(i));
    }
    print("lookup, with hash", start, n);
    let start = clock();
    for i in order() {
        let mut t = tuple(i);
        t.protocol = 17;
        let found = index.find(index.hash(&t), |slot| table.at(slot).is_some_and(|f| f.0 == t));
        assert_eq!(black_box(found), None);
    }
    print("lookup in vain, with hash", start, n);

    let start = clock();
    for i in order() {
        let id = table.id_at(i).unwrap();
        let (t, _) = table.remove(id).unwrap();
        assert!(index.remove(index.hash(&t), id.index));
        wheel.clear(id.index);
        enter(&mut table, &mut index, &mut wheel, &t);
    }
    print("remove and insert", start, n);

    let start = clock();
    let mut fired = 0;
    while wheel.expire(60_000).is_some() {
        fired += 1;
    }
    assert_eq!(fired, n);
    print("timer, to its end", start, n);
}
