//! Ports of one loopback interface that lead to the other one, past the link.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, send, setsockopt, sockopt};

use crate::lab::{HOST4, Lab, SOON, at, eventually};
use crate::net::{accept, connect, listen, pass, pattern, roundtrip, try_connect, udp};
use crate::ns::Ns;
use crate::pasta::{Guest, timed};

const LO4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LO6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const RESOLVER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));

/// A way past the link: port 9001 of the client's side is port 9000 of the server's, at the same
/// loopback address.
struct Way {
    guest: Guest,
    client: Ns,
    server: Ns,
}

impl Way {
    /// A connection, both ends.
    fn pair(&self, ip: IpAddr) -> (TcpStream, TcpStream) {
        let server = listen(&self.server, at(ip, 9000));
        roundtrip(&self.client, at(ip, 9001), &server)
    }
}

/// From the namespace to the host.
fn outward(lab: &Lab) -> Way {
    let guest = lab.guest("-t none -u none -T 9001:9000 -U 9001:9000");
    let client = guest.ns.clone();
    Way { guest, client, server: lab.host() }
}

/// From the host to the namespace.
fn inward(lab: &Lab) -> Way {
    let guest = lab.guest("--host-lo-to-ns-lo -T none -U none -t 9001:9000 -u 9001:9000");
    let server = guest.ns.clone();
    Way { guest, client: lab.host(), server }
}

fn each_way(lab: &Lab, test: impl Fn(&Way)) {
    for open in [outward, inward] {
        test(&open(lab));
    }
}

/// Sends everything and FIN on a thread; what arrives at the other end.
fn transfer(mut from: TcpStream, to: &mut TcpStream, data: &'static [u8]) -> Vec<u8> {
    let sender = thread::spawn(move || {
        from.write_all(data).unwrap();
        from.shutdown(Shutdown::Write).unwrap();
        from
    });
    let mut got = Vec::new();
    to.read_to_end(&mut got).unwrap();
    sender.join().unwrap();
    got
}

fn leaked(len: usize) -> &'static [u8] {
    pattern(len).leak()
}

#[test]
fn any_amount_of_data_in_both_directions() {
    // [SPLICE-2] [SPLICE-8] [SPLICE-12] [CLI table -T]
    Lab::run(|lab| {
        each_way(lab, |way| {
            for (ip, sizes) in [
                (LO4, &[0, 1, 65_535, 65_536, 65_537, 100 << 20][..]),
                (LO6, &[0, 1, 65_536, 20 << 20]),
                (RESOLVER, &[1000]),
            ] {
                let server = listen(&way.server, at(ip, 9000));
                for size in sizes {
                    let data = leaked(*size);
                    let near = connect(&way.client, at(ip, 9001));
                    let mut far = accept(&server);
                    assert_eq!(far.local_addr().unwrap().ip(), ip, "the same loopback address");
                    assert!(far.peer_addr().unwrap().ip().is_loopback());
                    let mut near = {
                        let clone = near.try_clone().unwrap();
                        assert!(transfer(near, &mut far, data) == data, "{size} to {ip}");
                        clone
                    };
                    assert!(transfer(far, &mut near, data) == data, "{size} from {ip}");
                }
            }
        });
    });
}

#[test]
fn both_directions_at_once() {
    // [SPLICE-12]: directions are independent
    Lab::run(|lab| {
        each_way(lab, |way| {
            let (near, far) = way.pair(LO4);
            let data = leaked(50 << 20);
            let (mut near2, mut far2) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            let down = thread::spawn(move || transfer(far, &mut near2, data) == data);
            assert!(transfer(near, &mut far2, data) == data);
            assert!(down.join().unwrap());
        });
    });
}

#[test]
fn half_closed_connection_goes_on_the_other_way() {
    // [SPLICE-12] in both orders
    Lab::run(|lab| {
        each_way(lab, |way| {
            for ip in [LO4, LO6] {
                for far_first in [false, true] {
                    let (near, far) = way.pair(ip);
                    let (mut first, mut second) = if far_first { (far, near) } else { (near, far) };
                    first.write_all(b"last words").unwrap();
                    first.shutdown(Shutdown::Write).unwrap();
                    let mut got = String::new();
                    second.read_to_string(&mut got).unwrap();
                    assert_eq!(got, "last words");
                    thread::sleep(Duration::from_millis(50));
                    let data = leaked(3 << 20);
                    assert!(transfer(second, &mut first, data) == data);
                }
            }
        });
    });
}

#[test]
fn closed_at_once_after_a_lot_of_data() {
    // [SPLICE-13 fix]: the receiver half-closed, the sender closes with data on its way
    Lab::run(|lab| {
        each_way(lab, |way| {
            for _ in 0..5 {
                let (mut near, mut far) = way.pair(LO4);
                near.shutdown(Shutdown::Write).unwrap();
                assert_eq!(far.read(&mut [0]).unwrap(), 0);
                let data = leaked(3 << 20);
                let sender = thread::spawn(move || far.write_all(data).unwrap());
                thread::sleep(Duration::from_millis(50));
                let mut got = Vec::new();
                near.read_to_end(&mut got).unwrap();
                assert_eq!(got.len(), data.len());
                assert!(got == data);
                sender.join().unwrap();
            }
        });
    });
}

#[test]
fn stalled_reader_costs_nothing() {
    // [SPLICE-9] [SPLICE-10] [SPLICE-16 fix], with and without a half-close of the sender
    Lab::run(|lab| {
        each_way(lab, |way| {
            for close in [false, true] {
                let (mut near, mut far) = way.pair(LO4);
                // More than the buffers of both connections can grow to.
                let data = leaked(100 << 20);
                near.set_nonblocking(true).unwrap();
                let mut sent = 0;
                let mut quiet = 0;
                // Until nothing more goes in for a while.
                while quiet < 20 && sent < data.len() {
                    match near.write(&data[sent..]) {
                        Ok(n) => (sent, quiet) = (sent + n, 0),
                        Err(e) => {
                            assert_eq!(e.kind(), ErrorKind::WouldBlock);
                            quiet += 1;
                            thread::sleep(Duration::from_millis(10));
                        }
                    }
                }
                assert!(sent < data.len(), "somebody swallows everything");
                if close {
                    near.shutdown(Shutdown::Write).unwrap();
                }
                let before = way.guest.pasta.cpu();
                thread::sleep(Duration::from_secs(1));
                let used = way.guest.pasta.cpu() - before;
                assert!(
                    used <= Duration::from_millis(50),
                    "{used:?} of processor time in a second"
                );

                let mut got = vec![0; sent];
                far.read_exact(&mut got).unwrap();
                assert!(got == data[..sent]);
                if close {
                    assert_eq!(far.read(&mut [0]).unwrap(), 0);
                } else {
                    near.set_nonblocking(false).unwrap();
                    pass(&mut near, &mut far, b"still there");
                }
            }
        });
    });
}

#[test]
fn nobody_listens() {
    // [SPLICE-5]
    Lab::run(|lab| {
        each_way(lab, |way| {
            for ip in [LO4, LO6] {
                // The reset may come before `connect` looks at the outcome.
                let client = try_connect(&way.client, at(ip, 9001));
                let error = client.and_then(|mut c| c.read(&mut [0])).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{ip}: {error}");
            }
        });
    });
}

#[test]
fn resets_are_passed_on() {
    // [SPLICE-13]
    Lab::run(|lab| {
        each_way(lab, |way| {
            for far_first in [false, true] {
                let (near, far) = way.pair(LO4);
                let (first, mut second) = if far_first { (far, near) } else { (near, far) };
                let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
                setsockopt(&first, sockopt::Linger, &at_once).unwrap();
                drop(first);
                let error = second.read(&mut [0]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            }
        });
    });
}

#[test]
fn only_loopback_is_joined() {
    // [SPLICE-1] [FLOW-2]: the guest's own address is not loopback, although its packets go that way
    Lab::run(|lab| {
        let way = outward(lab);
        let _server = listen(&way.server, at(HOST4, 9000));
        let refused = match try_connect(&way.client, at(HOST4, 9001)) {
            Ok(mut client) => client.read(&mut [0]).unwrap_err(),
            Err(e) => e,
        };
        let kinds = [ErrorKind::ConnectionReset, ErrorKind::ConnectionRefused];
        assert!(kinds.contains(&refused.kind()), "{refused}");
    });
}

#[test]
fn small_messages_are_not_delayed() {
    // [SPLICE-4]: Nagle's algorithm against delayed acknowledgements takes 40 ms a time
    Lab::run(|lab| {
        each_way(lab, |way| {
            let (mut near, mut far) = way.pair(LO4);
            for end in [&near, &far] {
                end.set_nodelay(true).unwrap();
            }
            let ((), took) = timed(|| {
                for _ in 0..50 {
                    near.write_all(b"a").unwrap();
                    near.write_all(b"b").unwrap();
                    far.read_exact(&mut [0; 2]).unwrap();
                    far.write_all(b"c").unwrap();
                    far.write_all(b"d").unwrap();
                    near.read_exact(&mut [0; 2]).unwrap();
                }
            });
            assert!(took < Duration::from_secs(1), "{took:?}");
        });
    });
}

#[test]
fn urgent_bytes_do_not_hold_up_the_others() {
    Lab::run(|lab| {
        each_way(lab, |way| {
            use std::os::fd::AsRawFd;
            let (mut near, mut far) = way.pair(LO4);
            for _ in 0..100 {
                near.write_all(b"abc").unwrap();
                send(near.as_raw_fd(), b"!", MsgFlags::MSG_OOB).unwrap();
                near.write_all(b"def").unwrap();
                let mut got = [0; 7];
                far.read_exact(&mut got).unwrap();
                assert_eq!(&got, b"abc!def");
            }
        });
    });
}

#[test]
fn many_connections_come_and_go() {
    // No descriptor is left behind
    Lab::run(|lab| {
        each_way(lab, |way| {
            let server = listen(&way.server, at(LO4, 9000));
            let fds =
                || std::fs::read_dir(format!("/proc/{}/fd", way.guest.pasta.pid)).unwrap().count();
            let data = leaked(300_000);
            let run = |n: usize| {
                for round in 0..n {
                    let near = connect(&way.client, at(LO4, 9001));
                    let mut far = accept(&server);
                    let size = if round % 2 == 0 { data.len() } else { 1 };
                    assert_eq!(transfer(near, &mut far, &data[..size]).len(), size);
                }
            };
            run(2);
            eventually("connections are closed", SOON, || fds() < 100);
            let mut before = fds();
            run(100);
            // Pipes are kept for later, two descriptors each.
            before += 8;
            eventually("connections are closed", SOON, || fds() <= before);
        });
    });
}

#[test]
fn datagrams_from_one_loopback_to_the_other() {
    // [FWD-7] [FWD-5] [UDP-9]: every loopback address, the client's port is kept, answers come from
    // where the question went
    Lab::run(|lab| {
        each_way(lab, |way| {
            for (from, ip) in [(LO4, LO4), (LO6, LO6), (LO4, RESOLVER)] {
                let server = udp(&way.server, at(ip, 9000));
                let clients = [udp(&way.client, at(from, 0)), udp(&way.client, at(from, 0))];
                for size in [1, 0, 1400, 65_507, 2] {
                    for client in &clients {
                        let data = pattern(size);
                        client.send_to(&data, at(ip, 9001)).unwrap();
                        let mut got = vec![0; 65_536];
                        let (len, peer) = server.recv_from(&mut got).unwrap();
                        assert!(got[..len] == data, "{len} of {size}");
                        assert_eq!(peer.port(), client.local_addr().unwrap().port());
                        assert!(peer.ip().is_loopback());
                        server.send_to(&data, peer).unwrap();
                        let (len, peer) = client.recv_from(&mut got).unwrap();
                        assert!(got[..len] == data, "{len} of {size}");
                        assert_eq!(peer, at(ip, 9001));
                    }
                }
            }
        });
    });
}

#[test]
fn server_that_comes_late_gets_datagrams() {
    // An error of an earlier datagram does not end the flow
    Lab::run(|lab| {
        each_way(lab, |way| {
            let client = udp(&way.client, at(LO4, 0));
            for _ in 0..3 {
                client.send_to(b"lost", at(LO4, 9001)).unwrap();
                thread::sleep(Duration::from_millis(20));
            }
            let server = udp(&way.server, at(LO4, 9000));
            client.send_to(b"found", at(LO4, 9001)).unwrap();
            let mut got = [0; 16];
            let (len, peer) = server.recv_from(&mut got).unwrap();
            assert_eq!(&got[..len], b"found");
            server.send_to(b"yes", peer).unwrap();
            assert_eq!(client.recv(&mut got).unwrap(), 3);
        });
    });
}

#[test]
fn client_with_the_servers_own_address() {
    // It cannot keep its port: the socket would be connected to itself
    Lab::run(|lab| {
        each_way(lab, |way| {
            let client = udp(&way.client, at(LO4, 9000));
            let server = udp(&way.server, at(LO4, 9000));
            client.send_to(b"me", at(LO4, 9001)).unwrap();
            let (len, peer) = server.recv_from(&mut [0; 16]).unwrap();
            assert_eq!(len, 2);
            server.send_to(b"you", peer).unwrap();
            let mut got = [0; 16];
            let (len, from) = client.recv_from(&mut got).unwrap();
            assert_eq!((&got[..len], from), (&b"you"[..], at(LO4, 9001)));
        });
    });
}
