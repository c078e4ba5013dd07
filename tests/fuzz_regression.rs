//! What fuzzing once found, and a little fuzzing on every run.
//!
//! `tests/fuzz` is the fuzzer proper. Its driver runs here too: on every input that once failed
//! (`tests/data/fuzz`, hexadecimal, each with a line that says what was wrong), on the seeds of
//! the corpus, and on inputs of a fixed random sequence.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
#![allow(clippy::cast_possible_truncation)]

#[path = "fuzz/src/driver.rs"]
mod driver;

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
    if catch_unwind(AssertUnwindSafe(|| driver::run(data))).is_err() {
        panic!("{what} fails (message above); the input is\n{}", hex(data));
    }
}

#[test]
fn past_failures_stay_fixed() {
    for file in files("data/fuzz") {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("# "), "{}: no description", file.display());
        run(&file.display().to_string(), &unhex(&text));
    }
}

#[test]
fn seeds_pass() {
    for file in files("fuzz/corpus-seed/frames") {
        run(&file.display().to_string(), &fs::read(&file).unwrap());
    }
}

// [D6] The same inputs on every run.
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
    }
}
