//! A guest that is connected to pasta by a link with losses.
//!
//! ```text
//!   `guest`             `middle`                            `host`
//!   eth0  <-- relay -->  cable <-- bridge --> tap0  <-->  pasta  <-- sockets -->
//! ```
//!
//! pasta makes its tap device in a namespace that does nothing but pass frames on to the relay.
//! The guest's end is configured by hand, with the addresses that pasta expects.

use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::far::{receive_all, send_all};
use crate::lab::{HOST4, HOST6, Lab, REMOTE4, REMOTE6, at, ip_batch, quiet_ipv6};
use crate::net::{accept, connect, listen, pass, pattern};
use crate::ns::Ns;
use crate::pasta::{QUIET, Running};
use crate::relay::{Counts, Profile, Relay, Shape, TX_QUEUE, long_paths};
use crate::tap::{Frames, Tap};

/// How long a sender may take to find out what was lost: its timeouts double.
const PATIENCE: Duration = Duration::from_secs(60);

const FORWARD: &str = "-t 8080:80 -u none -T none -U none";
const ANY: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// A guest behind a link. `forth` of its profile leads to pasta, `back` to the guest.
pub(crate) struct Behind {
    pub(crate) ns: Ns,
    pub(crate) relay: Relay,
    pub(crate) pasta: Running,
}

impl Lab {
    /// pasta and a guest with such a link between them. A lab has one of these at most.
    #[track_caller]
    pub(crate) fn guest_behind(&self, profile: &Profile, options: &str) -> Behind {
        let (middle, ns) = (self.new_netns("middle"), self.new_netns("guest"));
        let set = format!("mtu {} txqueuelen {TX_QUEUE} up", profile.mtu);
        for conf in ["all", "default"] {
            middle.sysctl(&format!("net/ipv6/conf/{conf}/disable_ipv6"), "1");
        }
        let pasta = self.attach(&format!("-I tap0 -m {} --netns middle {options}", profile.mtu));
        let cable = Tap::open(&middle, "cable", profile.frames);
        ip_batch(
            "middle",
            &format!(
                "link add bridge type bridge forward_delay 0 mcast_snooping 0
                 link set tap0 master bridge
                 link set cable master bridge
                 link set tap0 {set}
                 link set cable {set}
                 link set bridge up"
            ),
        );
        ns.enter(quiet_ipv6);
        long_paths(&ns);
        let end = Tap::open(&ns, "eth0", profile.frames);
        ip_batch(
            "guest",
            &format!(
                "link set lo up
                 addr add 10.9.0.2/24 dev eth0
                 addr add 2001:db8:9::2/64 dev eth0 nodad
                 link set eth0 {set}
                 route add default via 10.9.0.1
                 route add ::/0 via 2001:db8:9::1"
            ),
        );
        let relay = Relay::start(end, cable, profile);
        Behind { ns, relay, pasta }
    }
}

impl Behind {
    /// At the end of a test: what was lost is what was meant to be.
    #[track_caller]
    fn finish(mut self) {
        self.relay.kept_up();
        assert!(self.pasta.alive());
    }
}

/// Loses, doubles and delays one packet in a hundred each, in both directions.
fn poor() -> Profile {
    with_faults(0.01)
}

/// Each fault befalls this part of the frames.
fn with_faults(part: f64) -> Profile {
    let shape = Shape {
        delay: Duration::from_millis(1),
        jitter: Duration::from_micros(200),
        rate: 1_000_000_000,
        queue: 4 << 20,
        loss: part,
        reorder: part,
        late: Duration::from_millis(1),
        duplicate: part,
    };
    Profile::both(shape).by_packet()
}

/// Both ends of a connection on which a word was exchanged, each of which may take its time.
#[track_caller]
fn pair(ns: &Ns, to: SocketAddr, server: &TcpListener) -> (TcpStream, TcpStream) {
    let mut near = connect(ns, to);
    let mut far = accept(server);
    for stream in [&near, &far] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
    }
    pass(&mut near, &mut far, b"ping");
    pass(&mut far, &mut near, b"pong");
    (near, far)
}

/// All of `data` from one end to the other.
#[track_caller]
fn transfer(from: &TcpStream, to: &TcpStream, data: &[u8], what: &str) {
    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    thread::scope(|scope| {
        scope.spawn(|| send_all(from, data));
        receive_all(to, data, what);
    });
}

/// `len` bytes each way at the same time, over each family, on connections opened by the guest and
/// by the remote.
#[track_caller]
fn transfers(lab: &Lab, profile: &Profile, sack: bool, len: usize) {
    let guest = lab.guest_behind(profile, FORWARD);
    guest.ns.sysctl("net/ipv4/tcp_sack", if sack { "1" } else { "0" });
    let data = &pattern(len);
    let mut pairs = Vec::new();
    for (server, host) in [(REMOTE4, HOST4), (REMOTE6, HOST6)] {
        let outside = listen(&lab.remote, at(server, 7000));
        pairs.push((pair(&guest.ns, at(server, 7000), &outside), format!("to {server}")));
        let inside = listen(&guest.ns, at(ANY, 80));
        pairs.push((pair(&lab.remote, at(host, 8080), &inside), format!("through {host}")));
    }
    thread::scope(|scope| {
        for ((near, far), what) in &pairs {
            scope.spawn(move || transfer(near, far, data, what));
            scope.spawn(move || transfer(far, near, data, &format!("{what}, back")));
        }
    });
    let [a, b] = guest.relay.counts();
    let any = |n: fn(&Counts) -> u64| n(&a) + n(&b) > 0;
    assert!(any(|c| c.lost) && any(|c| c.late) && any(|c| c.doubled), "{a:?} {b:?}");
    guest.finish();
}

// [TCP-68] [TCP-72] Whatever a link does, everything arrives once and in order.

#[test]
fn losses_with_sack() {
    Lab::run(|lab| transfers(lab, &poor(), true, 400_000));
}

#[test]
fn losses_without_sack() {
    Lab::run(|lab| transfers(lab, &poor(), false, 400_000));
}

#[test]
fn lost_trains() {
    // A frame of up to 64 KiB is lost as a whole, and there are few of them.
    let profile = Profile { frames: Frames::Trains, ..with_faults(0.05) };
    Lab::run(|lab| transfers(lab, &profile, true, 200_000));
}

#[test]
fn either_half_may_end_first() {
    // [TCP-81]
    Lab::run(|lab| {
        let guest = lab.guest_behind(&poor(), QUIET);
        let data = pattern(20_000);
        for server in [REMOTE4, REMOTE6] {
            let listener = listen(&lab.remote, at(server, 7000));
            for n in 0..8 {
                let (near, far) = pair(&guest.ns, at(server, 7000), &listener);
                let (first, second) = if n % 2 == 0 { (near, far) } else { (far, near) };
                // A question up to its end, then an answer up to its end.
                transfer(&first, &second, &data[..n * 2000], "question");
                transfer(&second, &first, &data, "answer");
            }
        }
        guest.finish();
    });
}

#[test]
fn many_small_flows() {
    // [TCP-16] [TCP-23] Handshakes get lost as well.
    Lab::run(|lab| {
        let guest = lab.guest_behind(&poor(), FORWARD);
        let listeners = [listen(&lab.remote, at(REMOTE4, 7000)), listen(&guest.ns, at(ANY, 80))];
        // The guest has to be heard of before anybody can reach it.
        pair(&guest.ns, at(REMOTE4, 7000), &listeners[0]);
        let ends = [(&guest.ns, at(REMOTE4, 7000)), (&lab.remote, at(HOST4, 8080))];
        for ((ns, to), listener) in ends.into_iter().zip(&listeners) {
            let near: Vec<_> = thread::scope(|scope| {
                let each: Vec<_> = (0..50).map(|_| scope.spawn(|| connect(ns, to))).collect();
                each.into_iter().map(|c| c.join().unwrap()).collect()
            });
            thread::scope(|scope| {
                for _ in &near {
                    let mut stream = accept(listener);
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    scope.spawn(move || {
                        // Says back what it hears, up to the end.
                        std::io::copy(&mut stream.try_clone().unwrap(), &mut stream).unwrap();
                        stream.shutdown(Shutdown::Write).unwrap();
                    });
                }
                for stream in near {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    scope.spawn(move || {
                        let mut data = pattern(3000);
                        data.extend(stream.local_addr().unwrap().port().to_be_bytes());
                        send_all(stream.try_clone().unwrap(), &data);
                        receive_all(stream, &data, "echo");
                    });
                }
            });
        }
        guest.finish();
    });
}

#[test]
fn nothing_is_repeated_on_a_long_way_to_the_guest() {
    // [TCP-72] a hundred milliseconds, a queue that holds all there is
    const LEN: usize = 4_000_000;
    let rtt = Duration::from_millis(100);
    let shape = Shape { queue: 16 << 20, ..Profile::path(rtt, 100).forth };
    Lab::run(|lab| {
        let guest = lab.guest_behind(&Profile::both(shape), QUIET);
        let data = pattern(LEN);
        for server in [REMOTE4, REMOTE6] {
            let listener = listen(&lab.remote, at(server, 7000));
            let (near, far) = pair(&guest.ns, at(server, 7000), &listener);
            transfer(&near, &far, &data, "out");
            transfer(&far, &near, &data, "in");
        }
        let most = LEN as u64 * 2 * 11 / 10; // with headers, and acknowledgements of the other way
        let counts = guest.relay.counts();
        assert!(counts.iter().all(|c| c.dropped == 0 && c.bytes < most), "{counts:?}");
        guest.finish();
    });
}
