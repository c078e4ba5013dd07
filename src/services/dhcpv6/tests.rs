#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::cast_possible_truncation
)]

use super::super::testing::{GUEST, hex};
use super::*;
use crate::wire::name::tests::decode;
use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Ipv6Packet, Ipv6Repr, UdpPacket, UdpRepr};

const MALFORMED: Outcome = Outcome::Dropped(Reason::Malformed);
const SERVER: &str = "0002 000a 0003 0001 9a559a559a55";
const CLIENT: &str = "0001 000a 0003 0001 525400123456";
const GUEST6: &str = "20010db8000000000000000000000010";
const OTHER6: &str = "20010db8000000000000000000000099";
const INFINITE: &str = "ffffffff ffffffff";

fn a6(s: &str) -> Ipv6Addr {
    s.parse().unwrap()
}

/// The lease of the worked example.
fn golden() -> Lease {
    Lease {
        dns6: vec![a6("2001:db8::53"), a6("2001:db8::54")],
        search: vec!["a.example.org".into(), "b.example.org.".into()],
        fqdn: Some("h.example.org".into()),
        ..Lease::example()
    }
}

/// No more than an address.
fn bare() -> Lease {
    Lease::example()
}

fn ia(number: u32, addresses: &[&str]) -> String {
    let mut body = String::new();
    for a in addresses {
        body += &format!("0005 0018 {a} 00000e10 00001c20");
    }
    format!("0003 {:04x} {number:08x} 00000708 00000b40 {body}", 12 + 28 * addresses.len())
}

fn ask_raw(lease: &Lease, src: &str, dst: &str, payload: &[u8]) -> Result<Vec<u8>, Outcome> {
    let mut reply = Reply::new();
    let request = Request { eth_src: GUEST, src: a6(src), dst: a6(dst), payload };
    let outcome = respond(lease, &request, &mut reply);
    let frame = reply.frame();
    if outcome != Outcome::Replied {
        assert!(frame.is_empty());
        return Err(outcome);
    }
    assert_eq!((&frame[..6], &frame[6..12]), (&GUEST.0[..], &lease.our_mac.0[..]));
    assert_eq!(frame[12..14], [0x86, 0xdd]);
    assert!(frame.len() <= 14 + 1280);
    let ip = Ipv6Packet::new_checked(&frame[14..]).unwrap();
    let repr = Ipv6Repr::parse(&ip).unwrap();
    assert_eq!((repr.src_addr, repr.dst_addr, repr.hop_limit), (lease.our_ll, a6(src), 255));
    let [a, b, c] = [payload[1], payload[2], payload[3]];
    assert_eq!(ip.flow_label(), u32::from_le_bytes([a, b, c, 0]) & 0xf_ffff);
    let udp = UdpPacket::new_checked(ip.payload()).unwrap();
    let (from, to) = (repr.src_addr.into(), repr.dst_addr.into());
    let ports = UdpRepr::parse(&udp, &from, &to, &ChecksumCapabilities::default()).unwrap();
    assert_eq!((ports.src_port, ports.dst_port), (547, 546));
    Ok(udp.payload().to_vec())
}

fn ask_with(lease: &Lease, message: &str) -> Result<Vec<u8>, Outcome> {
    ask_raw(lease, "fe80::9", "ff02::1:2", &hex(message))
}

/// Asks and compares with what is to come, both as hexadecimal.
#[track_caller]
fn check(lease: &Lease, message: &str, answer: &str) {
    let got = ask_with(lease, message).unwrap();
    let text = |b: &[u8]| b.iter().map(|b| format!("{b:02x}")).collect::<String>();
    assert_eq!(text(&got), text(&hex(answer)));
}

// [DHCP6-4] [DHCP6-9] Every byte of an advertisement; the identifier is made of the link-layer
// address.
#[test]
fn advertise() {
    check(
        &golden(),
        &format!("01 123456 {CLIENT} {}", ia(5, &[])),
        &format!(
            "02 123456 {SERVER}
             0003 0028 00000005 ffffffff ffffffff 0005 0018 {GUEST6} {INFINITE} {CLIENT}
             0017 0020 20010db8000000000000000000000053 20010db8000000000000000000000054
             0018 001e 01 61 07 6578616d706c65 03 6f7267 00 01 62 07 6578616d706c65 03 6f7267 00
             0027 0010 00 01 68 07 6578616d706c65 03 6f7267 00"
        ),
    );
    // What the client would like to have makes no difference.
    let hint = ask_with(&bare(), &format!("01 123456 {CLIENT} {}", ia(5, &[OTHER6]))).unwrap();
    assert_eq!(hint, ask_with(&bare(), &format!("01 123456 {CLIENT} {}", ia(5, &[]))).unwrap());
}

fn assigned() -> String {
    format!("0003 0028 00000005 {INFINITE} 0005 0018 {GUEST6} {INFINITE}")
}

// [DHCP6-3] Taking it, keeping it: of us, or of whatever server there is.
#[test]
fn replies() {
    let answer = format!("07 abcdef {SERVER} {} {CLIENT}", assigned());
    let mine = ia(5, &[GUEST6]);
    check(&bare(), &format!("03 abcdef {CLIENT} {SERVER} {mine}"), &answer);
    check(&bare(), &format!("03 abcdef {CLIENT} {SERVER} {}", ia(5, &[])), &answer);
    check(&bare(), &format!("05 abcdef {CLIENT} {SERVER} {mine}"), &answer);
    check(&bare(), &format!("06 abcdef {CLIENT} {mine}"), &answer);
    // RFC 8415, 18.3.1
    check(
        &bare(),
        &format!("01 abcdef {CLIENT} 000e 0000 {}", ia(5, &[])),
        &format!("07 abcdef {SERVER} {} {CLIENT} 000e 0000", assigned()),
    );
}

// [DHCP6-5] Another address than ours: it is not on this link.
#[test]
fn not_on_link() {
    let status = "000d 0022 0004 546869732061646472657373206973206e6f74206f6e2074686973206c696e6b";
    check(
        &golden(),
        &format!("03 123456 {SERVER} {CLIENT} {}", ia(7, &[OTHER6])),
        &format!("07 123456 {SERVER} 0003 0032 00000007 00000708 00000b40 {status} {CLIENT}"),
    );
    check(
        &golden(),
        &format!(
            "03 123456 {SERVER} {CLIENT} 0004 0020 00000008 0005 0018 {OTHER6} {INFINITE} {}",
            ia(7, &[GUEST6])
        ),
        &format!("07 123456 {SERVER} 0004 002a 00000008 {status} {CLIENT}"),
    );
}

// [DHCP6-3] [DHCP6-5] RFC 8415, 18.3.3: are the addresses right?
#[test]
fn confirm() {
    let yes = format!("07 123456 {SERVER} {CLIENT} 000d 0002 0000");
    check(&golden(), &format!("04 123456 {CLIENT} {}", ia(1, &[GUEST6])), &yes);
    for wrong in [ia(1, &[OTHER6]), ia(1, &[GUEST6, OTHER6]), ia(1, &[GUEST6]) + &ia(2, &[OTHER6])]
    {
        let got = ask_with(&golden(), &format!("04 123456 {CLIENT} {wrong}")).unwrap();
        let m = Message::parse(&got).unwrap();
        assert_eq!(m.option(option::STATUS).unwrap()[..2], [0, 4]);
        assert!(!m.has(option::IA_NA));
    }
    let nothing = ask_with(&golden(), &format!("04 123456 {CLIENT} {}", ia(1, &[])));
    assert_eq!(nothing.unwrap_err(), Outcome::Consumed);
}

// RFC 8415, 18.3.4: a renewal with addresses that are not ours takes them back.
#[test]
fn wrong_addresses_are_taken_back() {
    check(
        &bare(),
        &format!("05 123456 {CLIENT} {SERVER} {}", ia(5, &[OTHER6, GUEST6])),
        &format!(
            "07 123456 {SERVER} 0003 0044 00000005 {INFINITE}
             0005 0018 {GUEST6} {INFINITE} 0005 0018 {OTHER6} 00000000 00000000 {CLIENT}"
        ),
    );
}

// [DHCP6-3] RFC 8415, 18.3.7 and 18.3.8: giving back and declining are acknowledged.
#[test]
fn release_and_decline() {
    for kind in ["08", "09"] {
        check(
            &golden(),
            &format!("{kind} 123456 {CLIENT} {SERVER} {}", ia(5, &[GUEST6])),
            &format!("07 123456 {SERVER} {CLIENT} 000d 0002 0000"),
        );
    }
}

// [DHCP6-3] RFC 8415, 18.3.6: no addresses, and no need to say who asks.
#[test]
fn information_request() {
    let lease = Lease { fqdn: None, search: vec![], ..golden() };
    let dns = "0017 0020 20010db8000000000000000000000053 20010db8000000000000000000000054";
    check(&lease, "0b 123456 0006 0002 0017", &format!("07 123456 {SERVER} {dns}"));
    check(
        &lease,
        &format!("0b 123456 {CLIENT} {SERVER}"),
        &format!("07 123456 {SERVER} {CLIENT} {dns}"),
    );
    let with_address = format!("0b 123456 {CLIENT} {}", ia(1, &[]));
    assert_eq!(ask_with(&lease, &with_address).unwrap_err(), MALFORMED);
}

// [DHCP6-7] One address there is; that there is no other, nor a prefix, is said.
#[test]
fn other_associations() {
    let (second, temporary) = (ia(6, &[]), "0004 0004 00000009");
    let prefix = "0019 000c 00000007 00000000 00000000";
    check(
        &bare(),
        &format!("01 123456 {CLIENT} {prefix} {} {second} {temporary}", ia(5, &[])),
        &format!(
            "02 123456 {SERVER} 0019 0012 00000007 {INFINITE} 000d 0002 0006 {}
             0003 0012 00000006 {INFINITE} 000d 0002 0002 0004 000a 00000009 000d 0002 0002
             {CLIENT}",
            assigned()
        ),
    );
    check(
        &bare(),
        &format!("01 123456 {CLIENT} {prefix}"),
        &format!("02 123456 {SERVER} 0019 0012 00000007 {INFINITE} 000d 0002 0006 {CLIENT}"),
    );
}

// [DHCP6-8] RFC 4704, 4.1: the wish that the server updates names is overridden.
#[test]
fn name_updates() {
    let flags = |option: &str| {
        let got = ask_with(&golden(), &format!("01 123456 {CLIENT} {option}")).unwrap();
        Message::parse(&got).unwrap().option(option::FQDN).unwrap()[0]
    };
    assert_eq!(flags("0027 0003 01 01 61"), 2);
    assert_eq!(flags("0027 0003 04 01 61"), 0);
    assert_eq!(flags("0027 0000"), 0);
    assert_eq!(flags(""), 0);
}

// [DHCP6-2] [DHCP6-3] RFC 8415, 16: what a server discards.
#[test]
fn refused() {
    let mine = ia(5, &[GUEST6]);
    let long = format!("0001 0083 {}", "00".repeat(131));
    let other = "0002 000a 0003 0001 9a559a559a56";
    for message in [
        format!("01 123456 {mine}"),
        format!("01 123456 {CLIENT} {SERVER} {mine}"),
        format!("01 123456 0001 0000 {mine}"),
        format!("01 123456 {long} {mine}"),
        format!("03 123456 {CLIENT} {mine}"),
        format!("03 123456 {CLIENT} {other} {mine}"),
        format!("03 123456 {CLIENT} 0002 0009 0003 0001 9a559a559a {mine}"),
        format!("03 123456 {SERVER} {mine}"),
        format!("04 123456 {CLIENT} {SERVER} {mine}"),
        format!("05 123456 {CLIENT} {other} {mine}"),
        format!("06 123456 {CLIENT} {SERVER} {mine}"),
        format!("08 123456 {CLIENT} {other} {mine}"),
        format!("0b 123456 {CLIENT} {other}"),
        format!("01 123456 {CLIENT} 0003 000b 00000005 00000000 000000"),
        format!("01 123456 {CLIENT} 0003 0010 00000005 00000000 00000000 0005 0001"),
        format!("03 123456 {CLIENT} {SERVER} 0003 0011 00000005 00000000 00000000 0005 0001 00"),
    ] {
        assert_eq!(ask_with(&golden(), &message).unwrap_err(), MALFORMED, "{message}");
    }
    let longest = format!("01 123456 0001 0082 {} {}", "07".repeat(130), ia(5, &[]));
    assert!(ask_with(&golden(), &longest).is_ok());
    for ignored in ["02", "07", "0a", "0c", "0d", "00", "ff"] {
        let outcome = ask_with(&golden(), &format!("{ignored} 123456 {CLIENT}"));
        assert_eq!(outcome.unwrap_err(), Outcome::Consumed, "{ignored}");
    }
}

// [DHCP6-1] [DHCP6-6] Off without an address; to groups only; the answer goes to where the
// request came from, global or not.
#[test]
fn addresses() {
    let solicit = hex(&format!("01 123456 {CLIENT} {}", ia(5, &[])));
    for lease in [Lease { v6: false, ..golden() }, Lease { addr6: None, ..golden() }] {
        let outcome = ask_raw(&lease, "fe80::9", "ff02::1:2", &solicit);
        assert_eq!(outcome.unwrap_err(), Outcome::Consumed);
    }
    let to = |src, dst| ask_raw(&golden(), src, dst, &solicit).map(|_| ());
    assert_eq!(to("2001:db8::10", "ff02::1:2"), Ok(()));
    assert_eq!(to("fe80::9", "ff05::1:3"), Ok(()));
    assert_eq!(to("fe80::9", "fe80::1"), Err(MALFORMED));
    assert_eq!(to("::", "ff02::1:2"), Err(MALFORMED));
    assert_eq!(to("ff02::1", "ff02::1:2"), Err(MALFORMED));
}

// [DHCP6-4] What is too long for every link is left out, the name last.
#[test]
fn fits_every_link() {
    let label = "x".repeat(62);
    let name = [label.as_str(); 4].join(".");
    let lease = Lease {
        search: vec![name.clone(); 6],
        fqdn: Some(name),
        dns6: vec![a6("2001:db8::53"); 3],
        ..golden()
    };
    let got = ask_with(&lease, &format!("01 123456 {CLIENT} {}", ia(5, &[]))).unwrap();
    let m = Message::parse(&got).unwrap();
    assert_eq!(decode(m.option(option::SEARCH).unwrap()).unwrap().len(), 3);
    assert_eq!(m.option(option::FQDN).unwrap().len(), 254);
    let client = format!("0001 0082 {}", "07".repeat(130));
    let many: String = (0..200).map(|n| ia(n, &[GUEST6, OTHER6])).collect();
    for kind in ["01 123456", &format!("03 123456 {SERVER}"), &format!("05 123456 {SERVER}")] {
        assert!(ask_with(&lease, &format!("{kind} {client} {many}")).is_ok());
    }
}

/// Messages as real clients send them.
fn stock() -> [&'static str; 4] {
    [
        // Elapsed time, a DUID with a time, name, vendor class, wanted options.
        "01 a1b2c3 0008 0002 0064 0001 000e 0001 0001 2a3b4c5d 525400123456
             0003 000c 0e525400 00000000 00000000 0027 0009 00 07 4445534b544f50
             0010 000e 00000137 0008 4d53465420352e30 0006 0008 0011 0017 0018 0027",
        // macOS.
        "01 112233 0001 000e 0001 0001 2a3b4c5d 525400123456 0006 0004 0017 0018
             0008 0002 0000 0003 000c 00000000 00000000 00000000",
        // systemd-networkd: rapid commit and a prefix, too.
        "01 445566 000e 0000 0003 000c 11223344 00000000 00000000
             0019 000c 11223344 00000000 00000000 0006 000a 0017 0018 0038 001f 0053
             0001 000e 0002 0000 ab11 0102030405060708 0008 0002 0000",
        // UEFI: architecture, network interface, boot file.
        "01 778899 0001 0012 0004 00112233445566778899aabbccddeeff 0008 0002 0000
             0006 0008 003b 003c 0017 0010 003d 0002 0007 003e 0003 01 03 10
             0003 000c 00112233 00000000 00000000",
    ]
}

// [DHCP6-6] Which requests give the guest its address, rapid commit included.
#[test]
fn requests_that_assign() {
    for (message, assigns) in [
        ("01 112233", false),
        ("01 112233 000e 0000", true),
        ("03 112233", true),
        ("05 112233", true),
        ("06 112233", true),
        ("04 112233", false),
        ("0b 112233", false),
        ("03 11", false),
        ("", false),
    ] {
        assert_eq!(super::assigns(&hex(message)), assigns, "{message}");
    }
}

#[test]
fn stock_clients() {
    for message in stock() {
        let got = ask_with(&golden(), message).unwrap();
        let m = Message::parse(&got).unwrap();
        let address = associations(&m).flatten().find(|a| a.code == option::IA_NA).unwrap();
        assert_eq!(address.addresses().next(), Some(a6("2001:db8::10")));
        let mine = hex(message);
        let mine = Message::parse(&mine).unwrap();
        assert_eq!(m.option(option::CLIENT), mine.option(option::CLIENT));
        assert_eq!(m.option(option::DNS).unwrap().len(), 32);
    }
}

// [DHCP6-1] Every truncation is refused, or is a complete message with fewer options.
#[test]
fn truncated() {
    for message in stock() {
        let bytes = hex(message);
        for len in 0..bytes.len() {
            let cut = &bytes[..len];
            if ask_raw(&golden(), "fe80::9", "ff02::1:2", cut).is_ok() {
                assert!(Message::parse(cut).unwrap().has(option::CLIENT));
            }
        }
    }
    let advertise = ask_with(&golden(), stock()[0]).unwrap();
    for len in 0..=advertise.len() {
        assert!(ask_raw(&golden(), "fe80::9", "ff02::1:2", &advertise[..len]).is_err());
    }
}

proptest! {
    #[test]
    fn never_panics(
        kind in 0u8..14, src: [u8; 16], multicast: bool,
        options in proptest::collection::vec(
            (prop_oneof![1u16..6, Just(14), Just(25), Just(39), any::<u16>()],
             proptest::collection::vec(any::<u8>(), 0..60)), 0..8),
        ours: bool, tail in proptest::collection::vec(any::<u8>(), 0..6),
    ) {
        let mut payload = vec![kind, 1, 2, 3];
        payload.extend(hex(CLIENT));
        if ours {
            payload.extend(hex(SERVER));
        }
        for (code, value) in options {
            payload.extend(code.to_be_bytes());
            payload.extend((value.len() as u16).to_be_bytes());
            payload.extend(value);
        }
        payload.extend(tail);
        let src = Ipv6Addr::from(src).to_string();
        let dst = if multicast { "ff02::1:2" } else { "fe80::1" };
        if let Ok(got) = ask_raw(&golden(), &src, dst, &payload) {
            prop_assert!(Message::parse(&got).is_some());
        }
    }

    #[test]
    fn any_bytes(payload: Vec<u8>) {
        let _ = ask_raw(&golden(), "fe80::9", "ff02::1:2", &payload);
    }
}
