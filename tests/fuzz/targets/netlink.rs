//! Netlink messages and attributes, as found in whatever the kernel is said to have sent.
#![no_main]

use passt::{config, wire};

#[path = "../src/netlink.rs"]
mod netlink;

libfuzzer_sys::fuzz_target!(|data: &[u8]| netlink::run(data));
