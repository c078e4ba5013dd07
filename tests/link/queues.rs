//! Frames that wait in the device: who may lose some, and in which order they come.

use std::net::{SocketAddr, UdpSocket};

use super::*;

/// A socket of the guest that talks to the peer.
fn talker(port: u16) -> UdpSocket {
    let (guest, peer) = addrs(false);
    let socket = UdpSocket::bind(SocketAddr::new(guest, port)).unwrap();
    socket.connect(SocketAddr::new(peer, 80)).unwrap();
    socket
}

fn answer(tap: &mut Tap, port: u16) {
    send(tap, Head::udp(&path(false, port), 2, 0), b"ok");
}

/// Numbers sent by the guest from this port, of the frames given.
fn numbers(frames: &[Got], port: u16) -> Vec<u32> {
    let of = frames.iter().filter(|f| f.src == port);
    of.map(|f| u32::from_be_bytes(f.payload[..].try_into().unwrap())).collect()
}

isolated! {
    // Strangers, who are many times as many as can be read, take nothing from a conversation.
    fn a_flood_takes_nothing_from_who_is_answered() {
        let mut tap = tap(Offload::Udp);
        let strangers: Vec<_> = (6000..6064).map(talker).collect();
        let known = talker(5000);
        known.send(&[0; 4]).unwrap();
        while wait_for(&mut tap, proto::UDP).src != 5000 {}
        answer(&mut tap, 5000);
        let (mut got, mut flood) = (vec![], strangers.iter().cycle());
        for n in 0..200u32 {
            for stranger in flood.by_ref().take(128) {
                // The kernel may say at once that it had no room.
                let _ = stranger.send(&[0; 4]);
            }
            known.send(&n.to_be_bytes()).unwrap();
            got.extend((0..80).map_while(|_| next(&mut tap, proto::UDP)));
        }
        assert!(got.iter().filter(|f| f.src != 5000).count() > 200, "strangers are read, too");
        got.extend(std::iter::from_fn(|| next(&mut tap, proto::UDP)));
        assert_eq!(numbers(&got, 5000), (0..200).collect::<Vec<_>>());
    }
}

isolated! {
    // Whenever its flow is answered first, what a socket sends stays in order.
    fn the_first_answer_changes_no_order() {
        let mut tap = tap(Offload::Udp);
        let ports = 5000..5016u16;
        let sockets: Vec<_> = ports.clone().map(talker).collect();
        let say = |numbers: std::ops::Range<u32>| {
            for n in numbers {
                for socket in &sockets {
                    socket.send(&n.to_be_bytes()).unwrap();
                }
            }
        };
        say(0..10);
        let mut got = vec![wait_for(&mut tap, proto::UDP)];
        for port in ports.clone() {
            answer(&mut tap, port);
            got.extend((0..3).map_while(|_| next(&mut tap, proto::UDP)));
        }
        say(10..20);
        got.extend(std::iter::from_fn(|| next(&mut tap, proto::UDP)));
        for port in ports {
            assert_eq!(numbers(&got, port), (0..20).collect::<Vec<_>>(), "port {port}");
        }
    }
}

isolated! {
    // A device that somebody else has made, with whatever it was made for.
    fn a_device_that_exists_is_used() {
        for made in ["", "vnet_hdr"] {
            ip(&format!("tuntap add {TAP} mode tap {made}"));
            let mut tap = tap(Offload::Udp);
            let socket = talker(5000);
            until_heard(&mut tap, &socket, false);
            socket.send(b"hello").unwrap();
            assert_eq!(wait_for(&mut tap, proto::UDP).payload, b"hello", "{made}");
            drop(tap);
            ip(&format!("link del {TAP}"));
        }
    }
}

isolated! {
    // Two at one device would take frames from each other.
    fn a_device_in_use_is_refused() {
        let refused = |why| {
            let error = Tap::open(TAP, Offload::Udp).unwrap_err().to_string();
            assert!(error.contains(TAP) && error.contains(why), "{error}");
        };
        let mut tap = tap(Offload::Udp);
        refused("busy");
        let socket = talker(5000);
        until_heard(&mut tap, &socket, false);
        drop(tap);
        // Whether anybody is at one with several queues cannot be seen.
        ip(&format!("tuntap add {TAP} mode tap multi_queue"));
        refused("busy");
    }
}
