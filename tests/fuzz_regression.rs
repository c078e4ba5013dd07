//! What fuzzing once found, and a little fuzzing on every run.
//!
//! `tests/fuzz` is the fuzzer proper. Its driver runs here too: on every input that once failed
//! (`tests/data/fuzz`, hexadecimal, each with a line that says what was wrong), on the seeds of
//! the corpus, and on inputs of a fixed random sequence.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
#![allow(clippy::cast_possible_truncation)]

#[path = "fuzz/src/driver.rs"]
mod driver;
#[path = "fuzz/src/services.rs"]
mod services;
#[path = "fuzz/src/stream.rs"]
mod stream;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Random inputs tried.
const INPUTS: u64 = 20_000;

fn files(dir: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(dir);
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text
        .lines()
        .filter(|l| !l.starts_with('#'))
        .flat_map(str::chars)
        .filter_map(|c| c.to_digit(16))
        .collect();
    digits.chunks(2).map(|d| (d[0] * 16 + d[1]) as u8).collect()
}

/// Runs one input; a failure shows it in full.
fn run(what: &str, data: &[u8]) {
    run_with(driver::run, what, data);
}

fn run_with(target: fn(&[u8]), what: &str, data: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| target(data))).is_err() {
        panic!("{what} fails (message above); the input is\n{}", hex(data));
    }
}

#[test]
fn past_failures_stay_fixed() {
    for file in files("data/fuzz") {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("# "), "{}: no description", file.display());
        let name = file.display().to_string();
        let target = match &name {
            name if name.contains("segments-") => driver::run_segments,
            name if name.contains("services-") => services::run,
            name if name.contains("stream-") => stream::run,
            _ => driver::run,
        };
        run_with(target, &name, &unhex(&text));
    }
}

#[test]
fn seeds_pass() {
    for file in files("fuzz/corpus-seed/frames") {
        run(&file.display().to_string(), &fs::read(&file).unwrap());
    }
    for file in files("fuzz/corpus-seed/segments") {
        let data = fs::read(&file).unwrap();
        run_with(driver::run_segments, &file.display().to_string(), &data);
    }
    for file in files("fuzz/corpus-seed/stream") {
        let data = fs::read(&file).unwrap();
        run_with(stream::run, &file.display().to_string(), &data);
    }
}

// [L2-4] [L2-6] A datagram that comes in fragments is one, which its flow shows.
#[test]
fn seeds_of_fragments_make_a_datagram() {
    for name in ["fragments4", "fragments6"] {
        let path = "tests/fuzz/corpus-seed/frames/".to_owned() + name;
        let seed = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        assert_eq!(driver::flows_after(&seed), 1, "{name}");
    }
}

// [TAP-2] [TAP-3] The seeds of the stream with one to three bytes changed, in pieces of any size.
#[test]
fn changed_streams_pass() {
    let mut x = 0x2545_f491_4f6c_dd1du64;
    let mut random = |n: usize| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 8) as usize % n
    };
    let seeds: Vec<_> =
        files("fuzz/corpus-seed/stream").iter().map(|f| fs::read(f).unwrap()).collect();
    for n in 0..2000 {
        let mut data = seeds[n % seeds.len()].clone();
        data[0] = random(256) as u8;
        for _ in 0..random(4) {
            let at = random(data.len());
            data[at] = random(256) as u8;
        }
        run_with(stream::run, &format!("stream {n}"), &data);
    }
}

// [D6] [COMPAT-82] The same inputs on every run.
#[test]
fn random_inputs_pass() {
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    for n in 0..INPUTS {
        let len = random() % 400 + 8;
        let mut data: Vec<u8> = (0..len).map(|_| (random() >> 32) as u8).collect();
        // The settings that leave most to happen, most of the time.
        if n % 4 != 0 {
            data[0] = (n % 5) as u8;
            data[1] = 0;
            data[2] &= 0x4f;
        }
        run(&format!("input {n}"), &data);
        if n % 4 == 0 {
            run_with(driver::run_segments, &format!("segments {n}"), &data);
        }
        // As bytes, and as messages that are almost right.
        data[1] = (n % 16) as u8;
        run_with(services::run, &format!("request {n}"), &data);
    }
}

/// The settings of a seed.
const SETUP: [u8; 3] = [0; 3];

fn steps(steps: &[&[u8]]) -> Vec<u8> {
    [&SETUP[..]].iter().chain(steps).flat_map(|s| s.iter().copied()).collect()
}

/// A SYN to the peer of that number; see `frames::addrs` and `frames::new_tcp`.
fn syn(to: u8) -> [u8; 14] {
    [0, 0, 10, to, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

// [TCP-1] Loopback addresses never cross the link, in either role.
#[test]
fn loopback_addresses_are_dropped() {
    assert_eq!(driver::flows_after(&steps(&[&syn(0)])), 1);
    assert_eq!(driver::flows_after(&steps(&[&syn(5 + 7)])), 0, "to 127.0.0.1");
    assert_eq!(driver::flows_after(&steps(&[&syn(16 + 5 + 7)])), 0, "to ::1");
}

// [TCP-92] [TCP-93] A connection of the guest on which nothing happens ends after two to four
// hours, a spliced one does not.
#[test]
fn spliced_flows_may_be_idle() {
    // Three hours of 3,600,000 ms pass at once.
    let hours = [&[24, 6][..], &10_800_000u32.to_le_bytes()].concat();
    let ready = [12, 0, 1, 3];
    let ack = [0, 0, 0, 0, 0, 0, 0, 0, 200, 0, 0, 0, 0];
    let guest = [&syn(0)[..], &ready, &ack].concat();
    assert_eq!(driver::flows_after(&steps(&[&guest, &hours])), 1);
    assert_eq!(driver::flows_after(&steps(&[&guest, &hours, &hours])), 0);
    // Accepted from 127.0.0.1, and its other side connected.
    let spliced = [0x55, 0, 0, 12, 1, 1, 3, 12, 0, 0, 3];
    assert_eq!(driver::flows_after(&steps(&[&spliced, &hours, &hours, &hours])), 1);
}
