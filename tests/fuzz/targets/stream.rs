//! What a guest may write on the stream socket; see `src/stream.rs`.
#![no_main]

#[path = "../src/stream.rs"]
mod stream;

libfuzzer_sys::fuzz_target!(|data: &[u8]| stream::run(data));
