#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use crate::translate::HostError;
use crate::translate::fake::{ID, Rig, SOCK, at};

const LISTENER: ListenerId = ListenerId { sock: SockId(3), v6: true };

fn open(rig: &mut Rig, peer: &str, local: &str) -> Result<SpliceUdp, Unopened> {
    let ends = (at(peer, 4000), at(local, 9001));
    SpliceUdp::open(
        ID,
        LISTENER,
        ends,
        (Far::Host, at(local, 9000)),
        Timeouts::default(),
        &mut rig.io(),
    )
}

// [FWD-7] On the host the client's own address and port.
#[test]
fn source_on_the_host() {
    for (peer, local) in [("127.0.0.1", "127.0.0.53"), ("::1", "::1")] {
        let mut rig = Rig::new();
        open(&mut rig, peer, local).unwrap();
        assert_eq!(rig.net.udp, [(ID, Bind::Exactly(at(peer, 4000)), at(local, 9000))]);
    }
}

// [FWD-5] In the namespace its port, and the address that fits.
#[test]
fn source_in_the_namespace() {
    let mut rig = Rig::new();
    let (ends, to) = ((at("127.0.0.1", 4000), at("127.0.0.1", 9001)), at("192.0.2.10", 9000));
    SpliceUdp::open(ID, LISTENER, ends, (Far::Guest, to), Timeouts::default(), &mut rig.io())
        .unwrap();
    assert_eq!(rig.net.udp_inside, [(ID, Bind::Port(4000, Via::Host), to)]);
    assert!(rig.net.udp.is_empty());
}

// [FWD-7] Never a socket that is connected to itself.
#[test]
fn client_with_the_servers_own_address() {
    let mut rig = Rig::new();
    let ends = (at("127.0.0.1", 9000), at("127.0.0.1", 9001));
    SpliceUdp::open(ID, LISTENER, ends, (Far::Host, ends.0), Timeouts::default(), &mut rig.io())
        .unwrap();
    assert_eq!(rig.net.udp, [(ID, Bind::Port(0, Via::Host), ends.0)]);
    let to = at("192.0.2.10", 9000);
    SpliceUdp::open(ID, LISTENER, ends, (Far::Guest, to), Timeouts::default(), &mut rig.io())
        .unwrap();
    assert_eq!(rig.net.udp_inside, [(ID, Bind::Port(0, Via::Host), to)]);
}

// [FWD-7] A port that cannot be had is replaced, and failing altogether is counted.
#[test]
fn port_taken() {
    let mut rig = Rig::new();
    rig.net.open_error = Some(HostError::Other);
    assert!(open(&mut rig, "127.0.0.1", "127.0.0.1").is_err());
    let binds: Vec<_> = rig.net.udp.iter().map(|u| u.1).collect();
    assert_eq!(binds, [Bind::Exactly(at("127.0.0.1", 4000)), Bind::Port(0, Via::Host)]);
    assert_eq!(rig.drops(), [(DropReason::NoSocket, 1)]);
}

// [UDP-9] Datagrams pass both ways; answers come from where the question went.
#[test]
fn both_ways() {
    let mut rig = Rig::new();
    let mut flow = open(&mut rig, "127.0.0.1", "127.0.0.53").unwrap();
    // The error of an earlier datagram costs this one nothing.
    rig.net.send_errors.push_back(HostError::Refused);
    flow.on_listener(b"question", &mut rig.io());
    assert_eq!(rig.net.sent, [(b"question".to_vec(), 0)]);
    rig.net.incoming.push_back(Err(HostError::Refused));
    rig.net.incoming.push_back(Ok(b"answer".to_vec()));
    let verdict = flow.on_socket(32, &mut [0; 100], &mut rig.io());
    assert_eq!((verdict, flow.wants_more()), (Verdict::Keep, false));
    let ends = (at("127.0.0.53", 9001), at("127.0.0.1", 4000));
    assert_eq!(rig.net.answers, [(LISTENER, ends.0, ends.1, b"answer".to_vec())]);
    assert!(rig.drops().is_empty());
    flow.release(&mut rig.net);
    assert_eq!(rig.net.closed, [SOCK]);
}

// [UDP-10] Short after one question, long after a conversation.
#[test]
fn expiry() {
    let mut rig = Rig::new();
    let mut flow = open(&mut rig, "127.0.0.1", "127.0.0.1").unwrap();
    flow.on_listener(b"q", &mut rig.io());
    rig.wait_ms(30_000);
    assert_eq!(flow.on_timer(rig.now), Verdict::Keep);
    rig.wait_ms(1);
    assert_eq!(flow.on_timer(rig.now), Verdict::Close);

    flow.on_listener(b"q", &mut rig.io());
    rig.net.incoming.push_back(Ok(b"a".to_vec()));
    let _ = flow.on_socket(32, &mut [0; 100], &mut rig.io());
    rig.wait_ms(120_000);
    assert_eq!(flow.on_timer(rig.now), Verdict::Keep);
    rig.wait_ms(1);
    assert_eq!(flow.on_timer(rig.now), Verdict::Close);
}

// No packet of the guest finds the flow, nor does a client of the other side, even with the same
// addresses.
#[test]
fn apart_from_other_flows() {
    let [host, guest] = [Far::Host, Far::Guest]
        .map(|far| SpliceUdp::key(far, at("127.0.0.1", 1), at("127.0.0.1", 2)).protocol);
    assert_ne!(host, guest);
    for protocol in [host, guest] {
        assert!(protocol > proto::ICMPV6, "a protocol that packets have");
    }
}
