//! A lot of data: nothing is lost, nothing is retransmitted, nobody spins.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, TcpStream};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use crate::json::Json;
use crate::lab::{
    HOST4, HOST6, Helper, Lab, REMOTE4, REMOTE6, SOON, at, eventually, output_within,
};
use crate::net::{listen, pattern, roundtrip};
use crate::ns::Ns;
use crate::pasta::{Guest, QUIET};

/// Slower than this is broken rather than slow, even on a busy machine and a debug build.
const LEAST: f64 = 50e6;

/// A server process that is ready when its port listens; ends with the test.
fn serve(ns: &Ns, port: u16, program: &str, args: &[&str]) -> Helper {
    let child = ns
        .command(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let server = Helper(child);
    let listening = format!(":{port:04X} ");
    eventually("server listens", SOON, || {
        ns.enter(|| {
            ["tcp", "tcp6"].iter().any(|table| {
                fs::read_to_string(format!("/proc/thread-self/net/{table}")).is_ok_and(|text| {
                    text.lines().any(|l| l.contains(&listening) && l.contains(" 0A "))
                })
            })
        })
    });
    server
}

/// Runs iperf3 against `remote`, which must not be slower than what is broken; the totals of its
/// report.
#[track_caller]
pub(crate) fn iperf(lab: &Lab, client: &Ns, server: IpAddr, options: &str) -> Json {
    let end = iperf_at_any_rate(lab, client, server, options);
    for sum in ["sum_received", "sum_received_bidir_reverse"] {
        if let Some(rate) = end.at(sum).at("bits_per_second").number() {
            assert!(
                rate > LEAST || options.contains("-u"),
                "{options}: {:.3} Mbit/s in {sum}",
                rate / 1e6
            );
        }
    }
    end
}

/// The same, however fast it is.
#[track_caller]
pub(crate) fn iperf_at_any_rate(lab: &Lab, client: &Ns, server: IpAddr, options: &str) -> Json {
    let _server = serve(&lab.remote, 5201, "iperf3", &["-s", "-1", "-p", "5201"]);
    let mut command = client.command("iperf3");
    command.args(["-J", "-p", "5201", "--connect-timeout", "5000", "-c", &server.to_string()]);
    command.args(options.split_whitespace());
    let out = output_within(&mut command, Duration::from_secs(30));
    assert!(out.status.success(), "{options}: {}{}", out.stdout, out.stderr);
    Json::parse(&out.stdout).at("end").clone()
}

/// What the guest sent is never sent twice: the path is clean and nothing of ours drops.
///
/// A guest that hears nothing for some milliseconds repeats its last segment. On a busy machine
/// that says that we did not get to run, not that anything was lost: a loss shows as duplicate
/// acknowledgements, which make the guest repeat what is missing.
#[track_caller]
pub(crate) fn never_twice(guest: &Ns, end: &Json, what: &str) {
    let told = end.at("sum_sent").at("retransmits").number();
    assert!(told.is_some(), "{what}: no report");
    let missing = counter(guest, "TCPFastRetrans");
    assert_eq!(missing, 0, "{what}: {told:?} segments repeated, {missing} of them as missing");
}

/// A TCP counter of the namespace, from a table of names and values.
pub(crate) fn counter(ns: &Ns, name: &str) -> u64 {
    let text = ns.enter(|| fs::read_to_string("/proc/thread-self/net/netstat").unwrap());
    let mut lines = text.lines().filter(|l| l.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split_whitespace().position(|n| n == name).unwrap();
    values.split_whitespace().nth(at).unwrap().parse().unwrap()
}

/// Two seconds from the guest to the remote.
fn one_way(lab: &Lab, mtu: u32, congestion: &str) {
    let guest = lab.guest(&format!("-m {mtu} {QUIET}"));
    let known = fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control").unwrap();
    assert!(known.contains(congestion), "the kernel has {known} but not {congestion}");
    let end = iperf(lab, &guest.ns, REMOTE4, &format!("-t 2 -C {congestion}"));
    never_twice(&guest.ns, &end, &format!("MTU {mtu}, {congestion}"));
}

// [D1] TCP towards the remote without a single retransmission, for each way of growing a window.

#[test]
fn cubic_mtu65520() {
    Lab::run(|lab| one_way(lab, 65520, "cubic"));
}

#[test]
fn cubic_mtu1500() {
    Lab::run(|lab| one_way(lab, 1500, "cubic"));
}

#[test]
fn reno_mtu65520() {
    Lab::run(|lab| one_way(lab, 65520, "reno"));
}

#[test]
fn reno_mtu1500() {
    Lab::run(|lab| one_way(lab, 1500, "reno"));
}

#[test]
fn bbr_mtu65520() {
    Lab::run(|lab| one_way(lab, 65520, "bbr"));
}

#[test]
fn bbr_mtu1500() {
    Lab::run(|lab| one_way(lab, 1500, "bbr"));
}

#[test]
fn ipv6_both_mtus() {
    // [D1]
    Lab::run(|lab| {
        for mtu in [65520, 1500] {
            let guest = lab.guest(&format!("-m {mtu} {QUIET}"));
            never_twice(&guest.ns, &iperf(lab, &guest.ns, REMOTE6, "-t 2"), &format!("MTU {mtu}"));
        }
    });
}

#[test]
fn towards_the_guest() {
    // Both MTUs, both families
    Lab::run(|lab| {
        for (mtu, server) in [(65520, REMOTE4), (1500, REMOTE6)] {
            let guest = lab.guest(&format!("-m {mtu} {QUIET}"));
            iperf(lab, &guest.ns, server, "-t 2 -R");
        }
    });
}

#[test]
fn eight_flows() {
    // [D1]
    Lab::run(|lab| {
        let guest = lab.guest(QUIET);
        never_twice(&guest.ns, &iperf(lab, &guest.ns, REMOTE4, "-t 2 -P 8"), "8 flows out");
        iperf(lab, &guest.ns, REMOTE4, "-t 2 -P 8 -R");
    });
}

#[test]
fn both_directions_at_once() {
    // [D1]
    Lab::run(|lab| {
        let guest = lab.guest(QUIET);
        never_twice(&guest.ns, &iperf(lab, &guest.ns, REMOTE4, "-t 3 --bidir"), "bidir");
    });
}

#[test]
fn udp_stream() {
    // A rate far below what any link takes arrives. Where all processors are busy a receiver may
    // sleep for longer than its buffer lasts; more than that is not bad luck.
    Lab::run(|lab| {
        let guest = lab.guest(QUIET);
        for direction in ["", "-R"] {
            let end =
                iperf(lab, &guest.ns, REMOTE4, &format!("-u -b 20M -l 1400 -t 2 {direction}"));
            let lost = end.at("sum").at("lost_percent").number();
            assert!(lost.is_some_and(|lost| lost <= 5.0), "{direction} {end:?}");
        }
    });
}

#[test]
fn two_hundred_megabytes_over_http_in_both_directions() {
    // [COMPAT-25] real client, real server, equal digests
    Lab::run(|lab| {
        let guest = lab.guest("-t 8080:80 -u none -T none -U none");
        let block = pattern(1 << 20);
        let mut file = fs::File::create(lab.dir().join("data")).unwrap();
        for n in 0..200_u32 {
            file.write_all(&n.to_le_bytes()).unwrap();
            file.write_all(&block).unwrap();
        }
        drop(file);
        let digest = |name: &str| {
            let path = lab.dir().join(name);
            let mut command = std::process::Command::new("sha256sum");
            let out = output_within(command.arg(path), Duration::from_secs(30)).ok();
            out.split_whitespace().next().unwrap().to_owned()
        };
        let original = digest("data");
        let http = ["-m", "http.server", "--bind", "::", "--directory", "/run/lab"];
        let _outside =
            serve(&lab.remote, 8000, "/usr/bin/python3", &[&http[..], &["8000"]].concat());
        let _inside = serve(&guest.ns, 80, "/usr/bin/python3", &[&http[..], &["80"]].concat());
        for (client, url, name) in [
            (&guest.ns, format!("http://{REMOTE4}:8000/data"), "out4"),
            (&guest.ns, format!("http://[{REMOTE6}]:8000/data"), "out6"),
            (&lab.remote, format!("http://{HOST4}:8080/data"), "in4"),
            (&lab.remote, format!("http://[{HOST6}]:8080/data"), "in6"),
        ] {
            let path = lab.dir().join(name);
            let mut curl = client.command("curl");
            curl.args(["-sSf", "--noproxy", "*", "--max-time", "30", "-o"]).arg(&path).arg(&url);
            output_within(&mut curl, Duration::from_secs(40)).ok();
            assert_eq!(digest(name), original, "{url}");
            fs::remove_file(path).unwrap();
        }
    });
}

/// One end sends, the other takes a first piece, pauses, and then takes the rest: all of it has
/// to be there, and pasta must not use the processor meanwhile.
#[track_caller]
fn paused_reader(guest: &mut Guest, sender: TcpStream, mut reader: TcpStream) {
    const LEN: usize = 48 << 20;
    const PAUSE: Duration = Duration::from_secs(4);
    let data = pattern(LEN);
    thread::scope(|scope| {
        let (data, mut sender) = (&data, sender);
        scope.spawn(move || {
            // What is missing shows at the other end.
            sender.write_all(data).ok();
            drop(sender);
        });
        let mut got = vec![0; 100_000];
        reader.read_exact(&mut got).unwrap();
        thread::sleep(Duration::from_secs(1)); // every buffer on the way fills up
        let before = guest.pasta.cpu();
        thread::sleep(PAUSE);
        let used = guest.pasta.cpu() - before;
        let end = reader.read_to_end(&mut got);
        drop(reader);
        assert!(end.is_ok(), "{end:?} after {} bytes", got.len());
        assert!(got == *data, "{} of {LEN} bytes, or others", got.len());
        assert!(used < Duration::from_millis(100), "{used:?} of processor time in {PAUSE:?}");
    });
    assert!(guest.pasta.alive());
}

#[test]
fn paused_remote_reader_loses_nothing_and_costs_nothing() {
    // [D1] [COMPAT-83]
    Lab::run(|lab| {
        let mut guest = lab.guest(QUIET);
        let listener = listen(&lab.remote, at(REMOTE4, 7000));
        let (near, far) = roundtrip(&guest.ns, at(REMOTE4, 7000), &listener);
        paused_reader(&mut guest, near, far);
    });
}

#[test]
fn paused_guest_reader_loses_nothing_and_costs_nothing() {
    // [D1] [COMPAT-83]
    Lab::run(|lab| {
        let mut guest = lab.guest("-t 8080 -u none -T none -U none");
        let listener = listen(&guest.ns, at(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 8080));
        let (near, far) = roundtrip(&lab.remote, at(HOST4, 8080), &listener);
        paused_reader(&mut guest, near, far);
    });
}

#[test]
fn idle_pasta_costs_nothing() {
    // [COMPAT-83]
    Lab::run(|lab| {
        let guest = lab.guest("");
        let listener = listen(&lab.remote, at(REMOTE4, 7000));
        let _open = roundtrip(&guest.ns, at(REMOTE4, 7000), &listener);
        let before = guest.pasta.cpu();
        thread::sleep(Duration::from_secs(3));
        let used = guest.pasta.cpu() - before;
        assert!(used <= Duration::from_millis(30), "{used:?} in 3 s");
    });
}

#[test]
fn many_small_writes_arrive_in_order() {
    // [COMPAT-83]
    Lab::run(|lab| {
        let guest = lab.guest(QUIET);
        let listener = listen(&lab.remote, at(REMOTE4, 7000));
        let (near, far) = roundtrip(&guest.ns, at(REMOTE4, 7000), &listener);
        for (mut from, mut to) in
            [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)]
        {
            from.set_nodelay(true).unwrap();
            let data = pattern(2_000_000);
            thread::scope(|scope| {
                let data = &data;
                scope.spawn(move || data.chunks(100).for_each(|c| from.write_all(c).unwrap()));
                let mut got = vec![0; data.len()];
                to.read_exact(&mut got).unwrap();
                assert!(got == *data);
            });
        }
    });
}
