//! TCP segments of every kind, sockets of every kind; see `src/driver.rs` and `src/segments.rs`.
#![no_main]

#[path = "../src/driver.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|data: &[u8]| driver::run_segments(data));
