//! The scoreboard against a model that has one flag for each octet.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation
)]

use super::*;
use proptest::prelude::*;

const MSS: u32 = 100;

fn board() -> Board {
    Board { pass: Seq(1_000_000), ..Board::EMPTY }
}

fn add(b: &mut Board, start: u32, end: u32) -> bool {
    b.add(Seq(start), Seq(end), Seq(0))
}

// [TCP-68] Lost is what has more than two segments' worth above it, or three ranges
// (RFC 6675, section 4).
#[test]
fn lost_holes() {
    let mut b = board();
    add(&mut b, 200, 300);
    assert_eq!(b.lost(MSS), None);
    add(&mut b, 400, 500);
    assert_eq!(b.lost(MSS), None, "two segments");
    assert_eq!(b.highest_hole(), Some(Seq(400)));
    add(&mut b, 500, 501);
    assert_eq!(b.lost(MSS), Some(Seq(200)), "more than two segments");
    let mut b = board();
    for n in [2, 4, 6] {
        add(&mut b, n * 100, n * 100 + 1);
    }
    assert_eq!(b.lost(MSS), Some(Seq(200)), "three ranges");
}

#[test]
fn a_block_that_says_nothing_new() {
    let mut b = board();
    assert!(add(&mut b, 200, 300));
    assert!(!add(&mut b, 200, 300));
    assert!(!add(&mut b, 210, 290));
    assert!(add(&mut b, 290, 310));
    assert!(add(&mut b, 100, 400));
    assert_eq!(b.len, 1);
}

// A full board keeps the lowest ranges: they are repaired first.
#[test]
fn more_ranges_than_fit() {
    let mut b = board();
    for n in (1..=RANGES as u32 + 10).rev() {
        assert!(add(&mut b, n * 10, n * 10 + 5));
    }
    assert_eq!(b.len, RANGES);
    assert_eq!(b.highest_hole(), Some(Seq(RANGES as u32 * 10)));
    assert!(!add(&mut b, 100_000, 100_005));
    assert!(add(&mut b, 15, 20), "joins two");
    assert_eq!(b.len, RANGES - 1);
}

// The guest acknowledges up to a range that it reported, or into it: it took that back.
#[test]
fn reneging() {
    let mut b = board();
    add(&mut b, 200, 300);
    add(&mut b, 400, 500);
    assert!(b.acknowledge(Seq(150)));
    assert!(b.acknowledge(Seq(300)));
    assert_eq!(b.len, 1);
    assert!(!b.acknowledge(Seq(400)));
    assert!(!b.acknowledge(Seq(450)));
    assert!(b.acknowledge(Seq(500)));
    assert!(b.is_empty());
}

// A retransmission is lost when enough arrived that was sent after it.
#[test]
fn lost_retransmissions() {
    let mut b = board();
    add(&mut b, 100, 200);
    add(&mut b, 300, 900);
    // Holes 0..100 and 200..300 are sent again, then new data from 1000 on.
    b.retransmitted(Seq(1000), true);
    let sent = Seq(300);
    b.add(Seq(900), Seq(1000), sent);
    assert!(!b.is_suspicious(Seq(0)), "sent before");
    b.add(Seq(200), Seq(300), sent);
    assert!(b.is_suspicious(Seq(0)));
    assert_eq!(b.repeat(Seq(0), sent, MSS, false), None);
    b.add(Seq(1000), Seq(1101), sent);
    assert_eq!(b.repeat(Seq(0), sent, MSS, false), Some(Seq(1101)));
    // The next pass begins.
    b.retransmitted(Seq(1200), true);
    assert!(!b.is_suspicious(Seq(0)));
    b.add(Seq(1101), Seq(1200), Seq(100));
    assert_eq!(b.repeat(Seq(0), Seq(100), MSS, true), None);
}

// What is repeated does not take along what was sent after it and is still on its way.
#[test]
fn a_pass_within_a_pass() {
    let mut b = board();
    add(&mut b, 900, 1000);
    // Everything before is sent again; the second hundred gets lost, the next two arrive.
    b.retransmitted(Seq(1000), true);
    assert!(b.acknowledge(Seq(100)));
    b.add(Seq(200), Seq(401), Seq(900));
    assert_eq!(b.repeat(Seq(100), Seq(900), MSS, false), Some(Seq(401)));
    assert_eq!(b.next(Seq(100), Seq(900)), Some((Seq(100), Seq(200))));
    b.retransmitted(Seq(1000), true);
    assert_eq!(b.next(Seq(200), Seq(900)), None, "the rest is on its way");
    assert_eq!(b.next(Seq(200), Seq(2000)), Some((Seq(1000), Seq(2000))), "new losses");
    b.add(Seq(401), Seq(800), Seq(900));
    assert!(!b.is_suspicious(Seq(100)), "sent before the second pass");
    assert!(b.acknowledge(Seq(800)));
    b.add(Seq(850), Seq(900), Seq(900));
    assert!(b.is_suspicious(Seq(800)), "the first pass counts again");
}

#[test]
fn boards_are_lent_and_come_back() {
    let mut boards = Boards::new();
    let mut ids: Vec<_> = (0..BOARDS).map(|_| boards.lend(Seq(0))).collect();
    assert_eq!(boards.lend(Seq(0)), BoardId::NONE);
    assert_eq!(boards.lent(), BOARDS);
    assert!(boards.get_mut(ids[3]).unwrap().add(Seq(5), Seq(6), Seq(0)));
    boards.give_back(&mut ids[3]);
    boards.give_back(&mut ids[3]);
    let id = boards.lend(Seq(0));
    assert!(boards.get(id).unwrap().is_empty());
    assert_eq!(boards.lend(Seq(0)), BoardId::NONE);
}

proptest! {
    #[test]
    fn same_as_a_flag_for_each_octet(
        base: u32,
        steps in proptest::collection::vec((0u32..400, 1u32..60, 0u8..5), 1..80),
    ) {
        let at = |n: u32| Seq(base).add(n);
        let mut b = Board { pass: at(10_000), ..Board::EMPTY };
        let mut have = [false; 500];
        let mut una = 0u32;
        for (start, len, what) in steps {
            let end = start + len;
            if what == 0 {
                let to = start.max(una);
                let reneged = have[to as usize];
                una = to;
                prop_assert_eq!(!b.acknowledge(at(una)), reneged);
                if reneged {
                    // The caller gives such a board back.
                    b.len = 0;
                    have = [false; 500];
                }
            } else if start > una {
                let fresh = have[start as usize..end as usize].contains(&false);
                have[start as usize..end as usize].fill(true);
                prop_assert_eq!(b.add(at(start), at(end), at(0)), fresh);
            }
            // Holes, from `una` on.
            let mut from = una;
            loop {
                let hole = b.hole(at(from), at(480));
                let start = (from..480).find(|n| !have[*n as usize]);
                let end = start.map(|s| (s..480).find(|n| have[*n as usize]).unwrap_or(480));
                prop_assert_eq!(hole, start.zip(end).map(|(s, e)| (at(s), at(e))));
                match end {
                    Some(end) => from = end,
                    None => break,
                }
            }
            let ranges = b.ranges();
            prop_assert!(ranges.windows(2).all(|w| w[0].end.before(w[1].start)));
        }
    }
}
