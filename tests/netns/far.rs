//! Long paths between the host and the rest of the world.
//!
//! Everything arrives as it was sent, in both directions at once, over IPv4 and IPv6, and the
//! guest repeats nothing: what is lost between host and remote is the business of the host's
//! kernel.

mod bench;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use crate::bulk::counter;
use crate::lab::{Lab, REMOTE4, REMOTE6, at};
use crate::net::{listen, pattern, roundtrip};
use crate::pasta::QUIET;
use crate::relay::{Profile, Relay};

/// Everything from one end to the other, and then the end.
pub(crate) fn send_all(mut from: TcpStream, data: &[u8]) {
    // What is missing shows at the other end.
    from.write_all(data).ok();
    from.shutdown(Shutdown::Write).ok();
}

/// Receives `data` and the end after it.
#[track_caller]
pub(crate) fn receive_all(mut from: TcpStream, data: &[u8], what: &str) {
    let mut buf = vec![0; 1 << 18];
    let mut at = 0;
    loop {
        match from.read(&mut buf) {
            Ok(0) => break,
            Ok(n) => {
                assert!(at + n <= data.len(), "{what}: more than was sent");
                assert!(buf[..n] == data[at..at + n], "{what}: other bytes behind {at}");
                at += n;
            }
            Err(e) => panic!("{what}: {e} behind {at} of {} bytes", data.len()),
        }
    }
    assert_eq!(at, data.len(), "{what}: ended early");
}

/// Four transfers of `len` bytes at once: out and in, over each family.
fn path(lab: &Lab, relay: &Relay, len: usize) {
    let guest = lab.guest(QUIET);
    let data = pattern(len);
    thread::scope(|scope| {
        for server in [REMOTE4, REMOTE6] {
            for (port, out) in [(7000, true), (7001, false)] {
                let (data, guest) = (&data, &guest);
                scope.spawn(move || {
                    let listener = listen(&lab.remote, at(server, port));
                    let (near, far) = roundtrip(&guest.ns, at(server, port), &listener);
                    let (from, to) = if out { (near, far) } else { (far, near) };
                    let (from_too, to_too) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    thread::scope(|scope| {
                        scope.spawn(move || send_all(from, data));
                        receive_all(to, data, &format!("{server}, out {out}"));
                    });
                    // The other half was open all the time.
                    send_all(to_too, b"done");
                    receive_all(from_too, b"done", "the other way");
                });
            }
        }
    });
    // A timeout may mean that nobody ran; a fast retransmission, that something was missing.
    assert_eq!(counter(&guest.ns, "TCPFastRetrans"), 0, "the guest repeated what was not lost");
    relay.kept_up();
}

/// A test of a round-trip time in milliseconds, a rate in Mbit/s, and a number of bytes.
macro_rules! paths {
    ($($name:ident: $rtt:literal ms, $rate:literal Mbit, $len:literal;)*) => {
        $(
            #[test]
            fn $name() {
                // [D1] [TCP-53]
                let profile = Profile::path(Duration::from_millis($rtt), $rate);
                Lab::run_far(&profile, |lab, relay| path(lab, relay, $len));
            }
        )*
    };
}

paths! {
    rtt_0_ms_100_mbit: 0 ms, 100 Mbit, 6_000_000;
    rtt_1_ms_100_mbit: 1 ms, 100 Mbit, 6_000_000;
    rtt_10_ms_100_mbit: 10 ms, 100 Mbit, 6_000_000;
    rtt_50_ms_100_mbit: 50 ms, 100 Mbit, 6_000_000;
    rtt_200_ms_100_mbit: 200 ms, 100 Mbit, 6_000_000;
    rtt_500_ms_100_mbit: 500 ms, 100 Mbit, 3_000_000;
    rtt_0_ms_1_gbit: 0 ms, 1000 Mbit, 40_000_000;
    rtt_1_ms_1_gbit: 1 ms, 1000 Mbit, 40_000_000;
    rtt_10_ms_1_gbit: 10 ms, 1000 Mbit, 40_000_000;
    rtt_50_ms_1_gbit: 50 ms, 1000 Mbit, 40_000_000;
    rtt_200_ms_1_gbit: 200 ms, 1000 Mbit, 20_000_000;
    rtt_500_ms_1_gbit: 500 ms, 1000 Mbit, 6_000_000;
}
