//! Requests for ARP, neighbour discovery, DHCP and DHCPv6.
#![no_main]

#[path = "../src/services.rs"]
mod services;

libfuzzer_sys::fuzz_target!(|data: &[u8]| services::run(data));
