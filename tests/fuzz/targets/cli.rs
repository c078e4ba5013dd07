//! Command lines: arguments are what NULs separate.
#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use passt::cli::{CliEnv, Outcome, parse};
use passt::config::RunAs;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let env = CliEnv {
        user: |name| (name == "user").then_some(RunAs { uid: 1000, gid: 1000 }),
        group: |name| (name == "group").then_some(1001),
        ipv6: true,
        ephemeral: None,
    };
    let words = data.split(|b| *b == 0).map(|w| OsString::from_vec(w.to_vec()));
    let argv = std::iter::once(OsString::from("pasta")).chain(words).collect();
    match parse(argv, &env) {
        Ok(Outcome::Run { config, .. }) => {
            for rule in config.tcp_in.rules.iter().chain(&config.udp_in.rules) {
                assert!(rule.first != 0 && rule.first <= rule.last);
                assert!(rule.to_first.checked_add(rule.last - rule.first).is_some());
            }
        }
        Ok(Outcome::Print { text }) => assert!(!text.is_empty()),
        Err(e) => assert!(!e.message.is_empty() && !e.message.contains('\n')),
    }
});
