#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use smoltcp::wire as smol;

use super::*;
use crate::translate::HostError;
use crate::translate::fake::{ID, Rig, SOCK, addr, out};
use crate::wire::ETH_LEN;

/// How pings of a Linux guest travel.
const MARKS: Marks = Marks { ttl: 64, tos: 0, df: true };

const GUEST_ID: u16 = 0x1234;

fn flow(rig: &mut Rig, v4: bool) -> Ping {
    let (guest, ours, to) = if v4 {
        ("192.0.2.10", "192.0.2.1", "127.0.0.1")
    } else {
        ("2001:db8::10", "fe80::1", "::1")
    };
    let guest = Endpoint::new(addr(guest), GUEST_ID);
    Ping::from_guest(ID, (addr(ours), guest), out(Endpoint::new(addr(to), 0)), &mut rig.io())
        .unwrap()
}

/// An echo message with an identifier of the kernel's and a checksum that no longer fits.
fn echo(kind: u8, seq: u8) -> Vec<u8> {
    vec![kind, 0, 0xde, 0xad, 0x99, 0x99, 0, seq, b'd', b'a', b't']
}

// [ICMP-1] Echo requests only, of the right family, whole.
#[test]
fn requests() {
    let request = [8, 0, 1, 2, 0x12, 0x34, 0, 1, 9];
    assert_eq!(request_id(proto::ICMP, &request), Some(GUEST_ID));
    assert_eq!(request_id(proto::ICMP, &request[..8]), Some(GUEST_ID));
    assert_eq!(request_id(proto::ICMP, &request[..7]), None);
    assert_eq!(request_id(proto::ICMPV6, &request), None);
    assert_eq!(request_id(proto::UDP, &request), None);
    let with = |kind: u8, code: u8| {
        let mut message = request;
        [message[0], message[1]] = [kind, code];
        message
    };
    assert_eq!(request_id(proto::ICMPV6, &with(128, 0)), Some(GUEST_ID));
    assert_eq!(request_id(proto::ICMP, &with(8, 1)), None);
    for other in [0, 3, 5, 13, 128] {
        assert_eq!(request_id(proto::ICMP, &with(other, 0)), None);
    }
    for other in [1, 8, 129, 135, 143] {
        assert_eq!(request_id(proto::ICMPV6, &with(other, 0)), None);
    }
}

// [ICMP-2] One socket per flow, which is family, guest, identifier and destination.
#[test]
fn flows_and_keys() {
    let mut rig = Rig::new();
    let mut ping = flow(&mut rig, true);
    assert_eq!(rig.net.ping, [(ID, out(Endpoint::new(addr("127.0.0.1"), 0)))]);
    let key = Ping::key(addr("192.0.2.1"), Endpoint::new(addr("192.0.2.10"), GUEST_ID));
    assert_eq!(ping.tuple(), key);
    assert_eq!((key.protocol, key.ours.port, key.guest.port), (proto::ICMP, 0, GUEST_ID));
    assert_eq!(flow(&mut rig, false).tuple().protocol, proto::ICMPV6);
    ping.release(&mut rig.net);
    assert_eq!(rig.net.closed, [SOCK]);

    let guest = Endpoint::new(addr("224.0.0.1"), GUEST_ID);
    let to = out(Endpoint::new(addr("127.0.0.1"), 0));
    assert!(Ping::from_guest(ID, (addr("192.0.2.1"), guest), to, &mut rig.io()).is_err());
    // [ICMP-7]
    rig.net.open_error = Some(HostError::Other);
    let guest = Endpoint::new(addr("192.0.2.10"), GUEST_ID);
    assert!(Ping::from_guest(ID, (addr("192.0.2.1"), guest), to, &mut rig.io()).is_err());
    assert_eq!(rig.drops(), [(DropReason::Martian, 1), (DropReason::NoSocket, 1)]);
}

// [ICMP-3] The whole message is sent as it is, with the guest's TTL.
#[test]
fn requests_are_sent() {
    for v4 in [true, false] {
        let mut rig = Rig::new();
        let mut ping = flow(&mut rig, v4);
        let request = echo(if v4 { 8 } else { 128 }, 1);
        for ttl in [1, 1, 64] {
            assert_eq!(
                ping.on_guest(&request, Marks { ttl, ..MARKS }, &mut rig.io()),
                Verdict::Keep
            );
        }
        assert_eq!(rig.net.sent, vec![(request.clone(), 0); 3]);
        assert_eq!(rig.net.ttls, [(v4, 1), (v4, 64)]);
        // [ICMP-8]
        rig.net.send_errors.push_back(HostError::Unreachable);
        assert_eq!(ping.on_guest(&request, MARKS, &mut rig.io()), Verdict::Keep);
        assert_eq!(rig.drops(), [(DropReason::HostSend, 1)]);
        assert!(rig.out.frames.is_empty());
    }
}

// [ICMP-4] IPv4: the guest's identifier, a right checksum, source as pinged, TTL 255.
#[test]
fn replies_v4() {
    let mut rig = Rig::new();
    let mut ping = flow(&mut rig, true);
    rig.net.incoming.push_back(Ok(echo(0, 0)));
    assert_eq!(ping.on_socket(8, &mut [0; 100], &mut rig.io()), Verdict::Keep);
    let ip = smol::Ipv4Packet::new_checked(&rig.out.frames[0][ETH_LEN..]).unwrap();
    assert!(ip.verify_checksum());
    assert_eq!((ip.src_addr(), ip.dst_addr()), {
        ("192.0.2.1".parse().unwrap(), "192.0.2.10".parse().unwrap())
    });
    assert_eq!((ip.hop_limit(), usize::from(ip.total_len())), (255, 20 + 11));
    let icmp = smol::Icmpv4Packet::new_checked(ip.payload()).unwrap();
    assert!(icmp.verify_checksum());
    assert_eq!(icmp.msg_type(), smol::Icmpv4Message::EchoReply);
    assert_eq!((icmp.echo_ident(), icmp.echo_seq_no(), icmp.data()), (GUEST_ID, 0, &b"dat"[..]));
    assert!(!ping.wants_more() && rig.drops().is_empty());
}

// [ICMP-4] IPv6: likewise, and the checksum covers the addresses the guest sees.
#[test]
fn replies_v6() {
    let mut rig = Rig::new();
    let mut ping = flow(&mut rig, false);
    rig.net.incoming.push_back(Ok(echo(129, 7)));
    assert_eq!(ping.on_socket(8, &mut [0; 100], &mut rig.io()), Verdict::Keep);
    let ip = smol::Ipv6Packet::new_checked(&rig.out.frames[0][ETH_LEN..]).unwrap();
    assert_eq!(ip.src_addr().to_string(), "fe80::1");
    assert_eq!(ip.dst_addr().to_string(), "2001:db8::10");
    assert_eq!((ip.hop_limit(), ip.next_header()), (255, smol::IpProtocol::Icmpv6));
    let icmp = smol::Icmpv6Packet::new_checked(ip.payload()).unwrap();
    assert!(icmp.verify_checksum(&ip.src_addr(), &ip.dst_addr()));
    assert_eq!(icmp.msg_type(), smol::Icmpv6Message::EchoReply);
    assert_eq!((icmp.echo_ident(), icmp.echo_seq_no()), (GUEST_ID, 7));
    assert_eq!(icmp.payload(), b"dat");
}

// [ICMP-4] Nothing else is passed on.
#[test]
fn other_messages_are_dropped() {
    let mut rig = Rig::new();
    let mut ping = flow(&mut rig, true);
    let short = echo(0, 1)[..7].to_vec();
    rig.net.incoming.extend([Ok(echo(8, 1)), Ok(echo(129, 1)), Ok(short), Ok(Vec::new())]);
    let _ = ping.on_socket(8, &mut [0; 100], &mut rig.io());
    assert!(rig.out.frames.is_empty());
    assert_eq!(rig.drops(), [(DropReason::IcmpType, 4)]);
}

// [ICMP-5] The same sequence number again is another reply; a visit keeps to its budget.
#[test]
fn equal_sequence_numbers() {
    let mut rig = Rig::new();
    let mut ping = flow(&mut rig, true);
    rig.net.incoming.extend((0..3).map(|_| Ok(echo(0, 5))));
    let _ = ping.on_socket(2, &mut [0; 100], &mut rig.io());
    assert!(ping.wants_more());
    let _ = ping.on_socket(2, &mut [0; 100], &mut rig.io());
    assert!(!ping.wants_more());
    assert_eq!(rig.out.frames.len(), 3);
}

// A link without room leaves replies in the socket, and a timer tries again; it does not keep the
// flow alive.
#[test]
fn full_link() {
    let mut rig = Rig::new();
    let mut ping = flow(&mut rig, true);
    rig.net.incoming.push_back(Ok(echo(0, 5)));
    rig.out.full = true;
    let mut visits = 0;
    while ping.on_timer(rig.now) == Verdict::Keep {
        let _ = ping.on_socket(8, &mut [0; 100], &mut rig.io());
        assert!(!ping.wants_more() && rig.net.incoming.len() == 1);
        let wait = ping.deadline().at().unwrap() - rig.now.ms();
        assert!(wait > 0);
        rig.wait_ms(wait);
        visits += 1;
    }
    assert!((90..120).contains(&visits), "{visits} visits in 60 s");
    rig.out.full = false;
    let _ = ping.on_socket(8, &mut [0; 100], &mut rig.io());
    assert_eq!(rig.out.frames.len(), 1);
    assert!(!ping.retries(Now(u64::MAX / 2)));
}

// [ICMP-6] More than 60 s after the last request; replies do not count.
#[test]
fn expiry() {
    let mut rig = Rig::new();
    let mut ping = flow(&mut rig, true);
    rig.wait_ms(10_000);
    let _ = ping.on_guest(&echo(8, 1), MARKS, &mut rig.io());
    let last = rig.now.ms();
    rig.wait_ms(30_000);
    rig.net.incoming.push_back(Ok(echo(0, 1)));
    let _ = ping.on_socket(8, &mut [0; 100], &mut rig.io());
    assert_eq!(ping.deadline().at(), Some(last + 60_001));
    assert_eq!(ping.on_timer(Now((last + 60_000) * 1000)), Verdict::Keep);
    assert_eq!(ping.on_timer(Now((last + 60_001) * 1000)), Verdict::Close);
}

#[test]
fn hopeless_sockets_are_closed() {
    let mut rig = Rig::new();
    let mut ping = flow(&mut rig, true);
    rig.net.incoming.extend((0..100).map(|_| Err(HostError::Other)));
    assert_eq!(ping.on_socket(32, &mut [0; 100], &mut rig.io()), Verdict::Close);
}
