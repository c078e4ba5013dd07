//! Throughput over long and lossy paths, against the same transfer without pasta.
//!
//! Not part of the suite: rows are printed, nothing is asserted. `tests/bench/README.md` says how
//! to run it.

use std::fmt;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use crate::lab::{Lab, REMOTE4, REMOTE6, at, ip_batch};
use crate::net::{listen, roundtrip};
use crate::ns::Ns;
use crate::pasta::QUIET;
use crate::relay::{Counts, Profile, Relay, Shape, far_link};

/// Mbit/s of a transfer from its beginning, and of its second half.
struct Rate {
    all: f64,
    half: f64,
    /// Frames that found the queue of the link full.
    dropped: u64,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:6.1} {:6.1} {:4}", self.all, self.half, self.dropped)
    }
}

/// Sends for so long that `time` can be measured; what the receiver got.
fn measure(mut from: TcpStream, mut to: TcpStream, time: Duration) -> Rate {
    to.set_read_timeout(Some(time)).unwrap();
    let start = Instant::now();
    let (mut all, mut half) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(move || {
            let block = vec![0x5a; 1 << 20];
            // Ends when the receiver does.
            while from.write_all(&block).is_ok() {}
        });
        let mut buf = vec![0; 1 << 20];
        while start.elapsed() < time {
            let n = to.read(&mut buf).unwrap_or(0);
            all += n;
            half += if start.elapsed() > time / 2 { n } else { 0 };
        }
        // What is on its way is not waited for.
        setsockopt(&to, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
        drop(to);
    });
    let mbit = |bytes: usize, time: Duration| bytes as f64 * 8e-6 / time.as_secs_f64();
    Rate { all: mbit(all, time), half: mbit(half, time / 2), dropped: 0 }
}

/// One way over one link: from `client` to a server in `lab.remote` or `at`, or back.
fn one_way(
    (client, server_ns, server): (&Ns, &Ns, IpAddr),
    out: bool,
    time: Duration,
    relay: &Relay,
) -> Rate {
    let port = 7000 + u16::from(out);
    let dropped = |c: [Counts; 2]| c[0].dropped + c[1].dropped;
    let before = dropped(relay.counts());
    let listener = listen(server_ns, at(server, port));
    let (near, far) = roundtrip(client, at(server, port), &listener);
    let (from, to) = if out { (near, far) } else { (far, near) };
    let rate = measure(from, to, time);
    thread::sleep(time / 4); // until the link is empty
    Rate { dropped: dropped(relay.counts()) - before, ..rate }
}

fn row(what: &str, out: bool, [direct, ours]: [Rate; 2]) {
    println!(
        "{what} {:3} | direct {direct} | pasta {ours} | {:4.2} {:4.2}",
        if out { "out" } else { "in" },
        ours.all / direct.all,
        ours.half / direct.half,
    );
}

/// Through pasta, against a process of the host: over the same link.
fn far(lab: &Lab, relay: &Relay, profile: &Profile, server: IpAddr) {
    let guest = lab.guest(QUIET);
    let rtt = 2 * profile.forth.delay;
    let time = (rtt * 20).clamp(Duration::from_secs(4), Duration::from_secs(10));
    let family = if server.is_ipv4() { "IPv4" } else { "IPv6" };
    let what =
        format!("{:3} ms {:4} Mbit/s {family}", rtt.as_millis(), profile.forth.rate / 1_000_000);
    for out in [true, false] {
        let rate = |ns: &Ns| one_way((ns, &lab.remote, server), out, time, relay);
        row(&what, out, [rate(&lab.host()), rate(&guest.ns)]);
    }
    relay.kept_up();
}

/// A guest behind a link, against two kernels at the ends of one like it.
fn lossy(lab: &Lab, rtt: Duration, loss: f64) {
    const NEAR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 8, 0, 1));
    let shape = Shape { loss, queue: 16 << 20, ..Profile::path(rtt, 1000).forth };
    let profile = Profile::both(shape).by_packet();
    let other = lab.new_netns("other");
    let direct = far_link(&profile, ("kernel0", &lab.host()), ("kernel1", &other));
    ip_batch("", "addr add 10.8.0.1/24 dev kernel0\nlink set kernel0 up");
    ip_batch("other", "addr add 10.8.0.2/24 dev kernel1\nlink set kernel1 up");
    let guest = lab.guest_behind(&profile, QUIET);
    let time = Duration::from_secs(8);
    let what = format!("{:3} ms, {:.1} % lost", rtt.as_millis(), loss * 100.0);
    for out in [true, false] {
        let kernels = one_way((&other, &lab.host(), NEAR), out, time, &direct);
        let ours = one_way((&guest.ns, &lab.remote, REMOTE4), out, time, &guest.relay);
        row(&what, out, [kernels, ours]);
    }
    guest.relay.kept_up();
}

macro_rules! rows {
    ($($name:ident: $rtt:literal ms, $rate:literal Mbit, $server:ident;)*) => {
        $(
            #[test]
            #[ignore = "measures"]
            fn $name() {
                let profile = Profile::path(Duration::from_millis($rtt), $rate);
                Lab::run_far(&profile, |lab, relay| far(lab, relay, &profile, $server));
            }
        )*
    };
}

rows! {
    path_0100_mbit_000_ms_v4: 0 ms, 100 Mbit, REMOTE4;
    path_0100_mbit_001_ms_v4: 1 ms, 100 Mbit, REMOTE4;
    path_0100_mbit_010_ms_v4: 10 ms, 100 Mbit, REMOTE4;
    path_0100_mbit_050_ms_v4: 50 ms, 100 Mbit, REMOTE4;
    path_0100_mbit_200_ms_v4: 200 ms, 100 Mbit, REMOTE4;
    path_0100_mbit_500_ms_v4: 500 ms, 100 Mbit, REMOTE4;
    path_1000_mbit_000_ms_v4: 0 ms, 1000 Mbit, REMOTE4;
    path_1000_mbit_001_ms_v4: 1 ms, 1000 Mbit, REMOTE4;
    path_1000_mbit_010_ms_v4: 10 ms, 1000 Mbit, REMOTE4;
    path_1000_mbit_050_ms_v4: 50 ms, 1000 Mbit, REMOTE4;
    path_1000_mbit_200_ms_v4: 200 ms, 1000 Mbit, REMOTE4;
    path_1000_mbit_500_ms_v4: 500 ms, 1000 Mbit, REMOTE4;
    path_0100_mbit_000_ms_v6: 0 ms, 100 Mbit, REMOTE6;
    path_0100_mbit_001_ms_v6: 1 ms, 100 Mbit, REMOTE6;
    path_0100_mbit_010_ms_v6: 10 ms, 100 Mbit, REMOTE6;
    path_0100_mbit_050_ms_v6: 50 ms, 100 Mbit, REMOTE6;
    path_0100_mbit_200_ms_v6: 200 ms, 100 Mbit, REMOTE6;
    path_0100_mbit_500_ms_v6: 500 ms, 100 Mbit, REMOTE6;
    path_1000_mbit_000_ms_v6: 0 ms, 1000 Mbit, REMOTE6;
    path_1000_mbit_001_ms_v6: 1 ms, 1000 Mbit, REMOTE6;
    path_1000_mbit_010_ms_v6: 10 ms, 1000 Mbit, REMOTE6;
    path_1000_mbit_050_ms_v6: 50 ms, 1000 Mbit, REMOTE6;
    path_1000_mbit_200_ms_v6: 200 ms, 1000 Mbit, REMOTE6;
    path_1000_mbit_500_ms_v6: 500 ms, 1000 Mbit, REMOTE6;
}

#[test]
#[ignore = "measures"]
fn loss_to_the_guest() {
    Lab::run(|lab| lossy(lab, Duration::from_millis(2), 0.01));
}

#[test]
#[ignore = "measures"]
fn loss_on_a_long_way_to_the_guest() {
    Lab::run(|lab| lossy(lab, Duration::from_millis(20), 0.01));
}
