//! The whole translation between a guest and a host made of bytes; see `src/driver.rs`.
#![no_main]

#[path = "../src/driver.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|data: &[u8]| driver::run(data));
