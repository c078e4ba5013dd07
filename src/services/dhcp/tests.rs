#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::cast_possible_truncation
)]

use super::super::testing::{GUEST, hex};
use super::*;
use crate::wire::checksum;
use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr, Ipv4Packet, Ipv4Repr, UdpPacket};

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const GUEST4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const OTHER4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);
const OURS4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const MALFORMED: Outcome = Outcome::Dropped(Reason::Malformed);

fn lease() -> Lease {
    Lease { v6: false, ..Lease::example() }
}

/// The lease of the worked example.
fn golden() -> Lease {
    Lease {
        dns4: vec![Ipv4Addr::new(192, 0, 2, 53)],
        search: vec!["abcdef".into()],
        fqdn: Some("h.example.org".into()),
        hostname: Some("myhost".into()),
        ..lease()
    }
}

/// A message of a client.
#[derive(Clone)]
struct Client {
    flags: u16,
    ciaddr: Ipv4Addr,
    giaddr: Ipv4Addr,
    options: Vec<u8>,
}

fn client(options: &str) -> Client {
    Client { flags: 0, ciaddr: ANY, giaddr: ANY, options: hex(options) }
}

impl Client {
    fn bytes(&self) -> Vec<u8> {
        let mut m = hex("01 01 06 03 11223344 0007");
        m.extend(self.flags.to_be_bytes());
        m.extend(self.ciaddr.octets());
        m.extend([0; 8]);
        m.extend(self.giaddr.octets());
        m.extend(GUEST.0);
        m.extend([0xee; 10 + 64 + 128]); // must not come back
        m.extend(hex("63825363"));
        m.extend(&self.options);
        m
    }
}

/// What we answer.
#[derive(Debug)]
struct Got {
    dst: Ipv4Addr,
    port: u16,
    ip_len: usize,
    bootp: Vec<u8>,
}

impl Got {
    /// Codes and values of the options field, in order; it has to end properly.
    fn options(&self) -> Vec<(u8, Vec<u8>)> {
        area(&self.bootp[240..])
    }

    fn codes(&self) -> Vec<u8> {
        self.options().iter().map(|(code, _)| *code).collect()
    }

    /// All instances of an option in all areas, joined.
    fn value(&self, code: u8) -> Option<Vec<u8>> {
        let mut out = [0; 2000];
        Message::parse(&self.bootp).unwrap().option(code, &mut out).map(<[u8]>::to_vec)
    }

    fn kind(&self) -> u8 {
        self.value(53).unwrap()[0]
    }
}

fn area(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut out = Vec::new();
    while bytes[0] != 255 {
        let len = usize::from(bytes[1]);
        out.push((bytes[0], bytes[2..2 + len].to_vec()));
        bytes = &bytes[2 + len..];
    }
    assert!(bytes[1..].iter().all(|b| *b == 0), "{bytes:?}");
    out
}

fn ask_raw(lease: &Lease, src: Ipv4Addr, payload: &[u8]) -> Result<Got, Outcome> {
    let mut reply = Reply::new();
    let request = Request { eth_src: GUEST, src, payload };
    let outcome = respond(lease, &request, &mut reply);
    let frame = reply.frame();
    if outcome != Outcome::Replied {
        assert!(frame.is_empty());
        return Err(outcome);
    }
    // Another implementation checks the headers, checksum included.
    assert_eq!((&frame[..6], &frame[6..12]), (&GUEST.0[..], &lease.our_mac.0[..]));
    assert_eq!(frame[12..14], [8, 0]);
    let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
    let repr = Ipv4Repr::parse(&ip, &ChecksumCapabilities::default()).unwrap();
    assert_eq!((repr.src_addr, repr.hop_limit), (lease.gateway4, 255));
    assert_eq!(checksum::of(&frame[14..34]), 0);
    assert_eq!((ip.dscp(), ip.ecn(), ip.ident(), ip.dont_frag()), (0, 0, 0, true));
    assert_eq!(usize::from(ip.total_len()), frame.len() - 14);
    let udp = UdpPacket::new_checked(ip.payload()).unwrap();
    assert_eq!((udp.src_port(), udp.checksum()), (67, 0));
    assert_eq!(usize::from(udp.len()), frame.len() - 34);
    let bootp = udp.payload().to_vec();
    assert!(bootp.len() >= 300);
    let ip_len = ip.total_len().into();
    Ok(Got { dst: repr.dst_addr, port: udp.dst_port(), ip_len, bootp })
}

fn ask_with(lease: &Lease, client: &Client) -> Result<Got, Outcome> {
    ask_raw(lease, client.ciaddr, &client.bytes())
}

fn ask(client: &Client) -> Result<Got, Outcome> {
    ask_with(&lease(), client)
}

// [DHCP-4] [DHCP-5] [DHCP-6] [DHCP-7] Every byte of an offer.
#[test]
fn offer() {
    let got = ask_with(&golden(), &client("35 01 01 37 03 01 03 06 ff")).unwrap();
    let head = hex("02 01 06 00 11223344 0000 0000 00000000 c000020a 00000000 00000000
         525400123456 eeeeeeeeeeeeeeeeeeee");
    assert_eq!(got.bootp[..44], head);
    assert_eq!(got.bootp[44..236], [0; 192]);
    let options = hex("63825363
         35 01 02 01 04 ffffff00 03 04 c0000201 06 04 c0000235 0c 06 6d79686f7374 1a 02 fff0
         33 04 ffffffff 36 04 c0000201
         51 12 04ffff 01 68 07 6578616d706c65 03 6f7267 00 77 08 06 616263646566 00 ff");
    assert_eq!(got.bootp[236..], options);
    assert_eq!(got.bootp.len(), 316);
    assert_eq!((got.dst, got.port), (GUEST4, 68));
}

// [DHCP-6] Without a list by code; with one as it says, the type first unless it is in the list,
// and nothing twice.
#[test]
fn order() {
    let codes = |options: &str| ask_with(&golden(), &client(options)).unwrap().codes();
    assert_eq!(codes("35 01 01 ff"), [1, 3, 6, 12, 26, 51, 53, 54, 81, 119]);
    assert_eq!(codes("35 01 01 37 00 ff"), [1, 3, 6, 12, 26, 51, 53, 54, 81, 119]);
    assert_eq!(codes("35 01 01 50 00 ff"), [1, 3, 6, 12, 26, 51, 53, 54, 80, 81, 119]);
    let listed = codes("35 01 01 37 05 77 63 06 06 01 ff");
    assert_eq!(listed, [53, 119, 6, 1, 3, 12, 26, 51, 54, 81]);
    let with_type = codes("37 03 03 35 01 35 01 01 ff");
    assert_eq!(with_type, [3, 53, 1, 6, 12, 26, 51, 54, 81, 119]);
}

// [DHCP-5] Nothing but the necessary, and BOOTP's least length.
#[test]
fn minimal() {
    let lease = Lease { mtu: 0, ..lease() };
    let got = ask_with(&lease, &client("35 01 01 ff")).unwrap();
    assert_eq!(got.codes(), [1, 3, 51, 53, 54]);
    assert_eq!(got.bootp.len(), 300);
}

// [DHCP-5] [DHCP-10] The gateway is where the netmask says, or has routes of its own.
#[test]
fn gateway_outside() {
    let far = Lease { gateway4: Ipv4Addr::new(10, 9, 9, 1), ..lease() };
    let got = ask_with(&far, &client("35 01 01 ff")).unwrap();
    assert_eq!(got.value(121).unwrap(), hex("20 0a090901 00000000 00 0a090901"));
    assert_eq!(got.value(3).unwrap(), [10, 9, 9, 1]);
    let alone = ask_with(&Lease { prefix4: 32, ..lease() }, &client("35 01 01 ff")).unwrap();
    assert_eq!(alone.value(1).unwrap(), [255; 4]);
    assert_eq!(alone.value(121).unwrap().len(), 14);
    let all = ask_with(&Lease { prefix4: 0, ..far }, &client("35 01 01 ff")).unwrap();
    assert_eq!((all.value(1).unwrap(), all.value(121)), (vec![0; 4], None));
}

// [DHCP-3] Which message is answered with which.
#[test]
fn answers() {
    let kind = |options: &str| ask(&client(options)).map(|got| got.kind());
    assert_eq!(kind("35 01 01 ff"), Ok(2));
    assert_eq!(kind("35 01 01 50 00 ff"), Ok(5), "rapid commit");
    assert_eq!(kind("ff"), Ok(5), "BOOTP");
    assert_eq!(kind("35 00 ff"), Ok(5), "BOOTP");
    for ignored in ["35 01 02", "35 01 04", "35 01 05", "35 01 06", "35 01 07", "35 01 09"] {
        assert_eq!(kind(ignored).unwrap_err(), Outcome::Consumed, "{ignored}");
    }
    let mut from_server = client("35 01 01 ff").bytes();
    from_server[0] = 2;
    assert_eq!(ask_raw(&lease(), ANY, &from_server).unwrap_err(), MALFORMED);
}

// [DHCP-3] RFC 2131, 4.3.2: taking the offer, after a restart, before and after the middle of the
// lease. The right address is given, another one refused; other servers' clients are left alone.
#[test]
fn requests() {
    let kind =
        |ciaddr, options: &str| ask(&Client { ciaddr, ..client(options) }).map(|got| got.kind());
    let (ack, nak) = (Ok(5), Ok(6));
    assert_eq!(kind(ANY, "35 01 03 32 04 c000020a 36 04 c0000201 ff"), ack);
    assert_eq!(kind(ANY, "35 01 03 32 04 c0000263 36 04 c0000201 ff"), nak);
    assert_eq!(
        kind(ANY, "35 01 03 32 04 c000020a 36 04 c0000202 ff").unwrap_err(),
        Outcome::Consumed
    );
    assert_eq!(kind(ANY, "35 01 03 32 04 c000020a ff"), ack);
    assert_eq!(kind(ANY, "35 01 03 32 04 0a000005 ff"), nak);
    assert_eq!(kind(GUEST4, "35 01 03 ff"), ack);
    assert_eq!(kind(OTHER4, "35 01 03 ff"), nak);
    assert_eq!(kind(ANY, "35 01 03 ff"), ack);
}

// [DHCP-3] RFC 2131, table 3: nothing but why, and everybody can hear it.
#[test]
fn refusal() {
    let c = Client { ciaddr: OTHER4, ..client("35 01 03 3d 03 01aabb 37 02 01 03 ff") };
    let got = ask_with(&golden(), &c).unwrap();
    assert_eq!(got.codes(), [53, 54, 56, 61]);
    assert_eq!(got.value(61).unwrap(), [1, 0xaa, 0xbb]);
    assert_eq!((got.dst, got.port), (Ipv4Addr::BROADCAST, 68));
    assert_eq!(got.bootp[10..20], [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let relay = Ipv4Addr::new(10, 1, 0, 1);
    let got = ask(&Client { giaddr: relay, ..c }).unwrap();
    assert_eq!((got.kind(), got.dst, got.port), (6, relay, 67));
}

// [DHCP-3] RFC 2131, 4.3.5: an address of its own, but the rest from us; for no time.
#[test]
fn inform() {
    let c = Client { ciaddr: OTHER4, ..client("35 01 08 37 03 01 06 33 ff") };
    let got = ask_with(&golden(), &c).unwrap();
    assert_eq!(got.codes(), [53, 1, 6, 3, 12, 26, 54, 81, 119]);
    assert_eq!((got.dst, got.port), (OTHER4, 68));
    assert_eq!(got.bootp[12..20], [192, 0, 2, 99, 0, 0, 0, 0]);
    // A client that does not say its address there has it in the header.
    let c = client("35 01 08 ff");
    assert_eq!(ask_raw(&lease(), OTHER4, &c.bytes()).unwrap().dst, OTHER4);
    assert_eq!(ask(&c).unwrap_err(), MALFORMED);
    let c = Client { ciaddr: Ipv4Addr::LOCALHOST, ..c };
    assert_eq!(ask(&c).unwrap_err(), MALFORMED);
}

// [DHCP-7] RFC 2131, 4.1: to the relay, to the address in use, to all if asked, or to the address
// that is given.
#[test]
fn destinations() {
    let to = |flags, ciaddr, giaddr: &str, options: &str| {
        let giaddr = giaddr.parse().unwrap();
        let got = ask(&Client { flags, ciaddr, giaddr, options: hex(options) }).unwrap();
        (got.dst, got.port)
    };
    let relay = Ipv4Addr::new(10, 1, 0, 1);
    assert_eq!(to(0, ANY, "0.0.0.0", "35 01 01"), (GUEST4, 68));
    assert_eq!(to(0x8000, ANY, "0.0.0.0", "35 01 01"), (Ipv4Addr::BROADCAST, 68));
    assert_eq!(to(0x7fff, ANY, "0.0.0.0", "35 01 01"), (GUEST4, 68));
    assert_eq!(to(0x8000, GUEST4, "0.0.0.0", "35 01 03"), (GUEST4, 68));
    assert_eq!(to(0x8000, GUEST4, "10.1.0.1", "35 01 03"), (relay, 67));
}

// RFC 6842, RFC 3046: what identifies the client, and what its relay said, come back, the latter
// at the end.
#[test]
fn echoes() {
    let got = ask_with(
        &golden(),
        &client("35 01 01 52 06 01 04 aabbccdd 3d 07 01 525400123456 37 02 52 06 ff"),
    )
    .unwrap();
    assert_eq!(got.value(61).unwrap(), hex("01 525400123456"));
    assert_eq!(got.options().pop().unwrap(), (82, hex("01 04 aabbccdd")));
}

// [DHCP-5] RFC 4702, 4: a client whose wish for an update is not fulfilled learns of it.
#[test]
fn name_updates() {
    let flags =
        |options: &str| ask_with(&golden(), &client(options)).unwrap().value(81).unwrap()[0];
    assert_eq!(flags("35 01 01 51 04 01 00 00 61 ff"), 0x06);
    assert_eq!(flags("35 01 01 51 04 04 00 00 00 ff"), 0x04);
    assert_eq!(flags("35 01 01 51 00 ff"), 0x04);
}

// [DHCP-9] [W-10] What another reads is what was given.
#[test]
fn search_list() {
    let search = ["example.community", "foo.example.com", "x.y.", "bar.example.com", "bad..name"];
    let lease = Lease { search: search.map(String::from).to_vec(), ..lease() };
    let got = ask_with(&lease, &client("35 01 01 ff")).unwrap();
    let names = crate::wire::name::tests::decode(&got.value(119).unwrap()).unwrap();
    assert_eq!(names, ["example.community", "foo.example.com", "x.y", "bar.example.com"]);
}

// [DHCP-6] What does not fit in 576 bytes goes to other fields, most important things first; a
// client that takes more gets it in one place.
#[test]
fn overload() {
    let label = "x".repeat(60);
    let name = [label.as_str(); 4].join(".");
    let lease = Lease {
        fqdn: Some(format!("h.{label}.org")),
        hostname: Some("y".repeat(100)),
        search: (0..6).map(|n| format!("search{n}.{label}.example{n}")).collect(),
        ..golden()
    };
    let small = ask_with(&lease, &client("35 01 01 37 05 77 51 0c 01 06 ff")).unwrap();
    assert!(small.ip_len <= 576, "{}", small.ip_len);
    assert_eq!(small.value(52).unwrap(), [1], "{:?}", small.codes());
    for code in [1, 3, 6, 26, 51, 53, 54] {
        assert!(small.codes().contains(&code), "{code}");
    }
    assert_eq!(small.value(12).unwrap(), vec![b'y'; 100]);
    assert!(area(&small.bootp[108..236]).iter().any(|(code, _)| *code == 12));
    assert_eq!(small.bootp[44..108], [0; 64]);
    let names = crate::wire::name::tests::decode(&small.value(119).unwrap()).unwrap();
    assert!((1..6).contains(&names.len()), "{names:?}");

    let large = ask_with(&lease, &client("35 01 01 39 02 05dc 37 05 77 51 0c 01 06 ff")).unwrap();
    assert_eq!(large.value(52), None);
    assert!(large.ip_len > 576 && large.ip_len <= 1500);
    let codes = large.codes();
    // RFC 3396: the list is cut in two, one right behind the other.
    assert_eq!(codes[..5], [53, 119, 119, 81, 12]);
    let names = crate::wire::name::tests::decode(&large.value(119).unwrap()).unwrap();
    assert_eq!(names, lease.search);

    // A link that does not take more is not asked to.
    let narrow = Lease { mtu: 1280, search: vec![name.clone(); 6], ..lease.clone() };
    let got = ask_with(&narrow, &client("35 01 01 39 02 ffff ff")).unwrap();
    assert!(got.ip_len <= 1280);
    // The server name's field takes a short name.
    let short = Lease { hostname: Some("y".repeat(60)), ..lease.clone() };
    let got = ask_with(&short, &client("35 01 01 ff")).unwrap();
    assert_eq!(got.value(52).unwrap(), [3]);
    assert_eq!(area(&got.bootp[44..108]), [(12, vec![b'y'; 60])]);
    // BOOTP knows no other fields.
    let got = ask_with(&lease, &client("ff")).unwrap();
    assert!(got.ip_len <= 576);
    assert_eq!((got.value(52), &got.bootp[44..236]), (None, &[0; 192][..]));
    assert_eq!(got.kind(), 5);
}

// [DHCP-5] A name of the longest kind does not fit its option, and is left out.
#[test]
fn longest_names() {
    let name = |last: usize| {
        let label = "x".repeat(63);
        [label.as_str(), &label, &label, &"y".repeat(last)].join(".")
    };
    let with = |last| {
        let lease = Lease { fqdn: Some(name(last)), ..lease() };
        ask_with(&lease, &client("35 01 01 39 02 05dc ff")).unwrap().value(81)
    };
    assert_eq!(with(58).unwrap().len(), 255);
    assert_eq!(with(59), None);
    let lease = Lease { hostname: Some("z".repeat(253)), ..lease() };
    let got = ask_with(&lease, &client("35 01 01 39 02 05dc ff")).unwrap();
    assert_eq!(got.value(12).unwrap().len(), 253);
}

// [DHCP-1] Swallowed where there is nothing to give.
#[test]
fn off() {
    let request = client("35 01 01 ff");
    for lease in
        [Lease { v4: false, ..lease() }, Lease { gateway4: Ipv4Addr::UNSPECIFIED, ..lease() }]
    {
        assert_eq!(ask_with(&lease, &request).unwrap_err(), Outcome::Consumed);
    }
    let mut reply = Reply::new();
    let bytes = request.bytes();
    let group = Request { eth_src: Mac::BROADCAST, src: ANY, payload: &bytes };
    assert_eq!(respond(&lease(), &group, &mut reply), MALFORMED);
    assert_eq!(OURS4, lease().gateway4);
}

/// Requests as real clients and firmware send them, by their options.
const CLIENTS: [(&str, &str); 7] = [
    // Message size, architecture (EFI x86-64), network interface, UUID, a long list, class.
    (
        "UEFI",
        "35 01 01 39 02 05c0
         37 23 01 02 03 04 05 06 0c 0d 0f 11 12 16 17 1c 28 29 2a 2b 32 33 36 3a 3b 3c 42 43 61
               80 81 82 83 84 85 86 87
         61 11 00 00112233445566778899aabbccddeeff 5e 03 01 03 10 5d 02 00 07
         3c 20 505845436c69656e743a417263683a30303030373a554e44493a303033303136 ff",
    ),
    (
        "iPXE",
        "35 01 01 39 02 05c0 5d 02 0000 5e 03 010201
         3c 20 505845436c69656e743a417263683a30303030303a554e44493a303032303031 4d 04 69505845
         37 16 01 03 06 07 0c 0f 11 1a 2b 3c 42 43 77 80 81 82 83 84 85 86 87 af
         af 06 b1 01 01 12 01 01 3d 07 01 525400123456
         61 11 00 00112233445566778899aabbccddeeff ff",
    ),
    (
        "Windows 10",
        "35 01 01 3d 07 01 525400123456 32 04 c000020a 0c 07 4445534b544f50
         3c 08 4d53465420352e30 37 0e 01 03 06 0f 1f 21 2b 2c 2e 2f 77 79 f9 fc ff",
    ),
    (
        "macOS",
        "35 01 01 37 0c 01 79 03 06 0f 6c 72 77 fc 5f 2c 2e 39 02 05dc 3d 07 01 525400123456
         33 04 0076a700 0c 03 6d6163 ff 00 00 00 00",
    ),
    ("udhcpc", "35 01 01 3d 07 01 525400123456 39 02 0240 37 07 01 03 06 0c 0f 1c 2a ff"),
    ("mTCP", "35 01 01 37 05 01 03 06 0c 0f ff"),
    (
        "Android",
        "35 01 01 3d 07 01 525400123456 50 00 39 02 05dc 37 0a 01 03 06 0f 1a 1c 33 3a 3b 2b ff",
    ),
];

// Stock clients get what they need in a shape that another implementation reads.
#[test]
fn stock_clients() {
    for (name, options) in CLIENTS {
        let got = ask_with(&golden(), &client(options)).unwrap();
        let want = if name == "Android" { DhcpMessageType::Ack } else { DhcpMessageType::Offer };
        let packet = DhcpPacket::new_checked(&got.bootp).unwrap();
        let repr = DhcpRepr::parse(&packet).unwrap();
        assert_eq!(repr.message_type, want, "{name}");
        assert_eq!(repr.your_ip, GUEST4, "{name}");
        assert_eq!(repr.router, Some(OURS4), "{name}");
        assert_eq!(repr.subnet_mask, Some(Ipv4Addr::new(255, 255, 255, 0)), "{name}");
        assert_eq!(repr.server_identifier, Some(OURS4), "{name}");
        assert_eq!(repr.dns_servers.unwrap()[0], Ipv4Addr::new(192, 0, 2, 53), "{name}");
        assert_eq!(repr.lease_duration, Some(u32::MAX), "{name}");
        if options.contains("37 ") {
            assert_eq!(got.codes()[0], 53, "{name}");
        }
    }
}

/// What they send next, and what Windows asks once it has an address.
const NEXT: [(&str, &str); 4] = [
    (
        "iPXE",
        "35 01 03 39 02 05c0 5d 02 0000 5e 03 010201
         3c 20 505845436c69656e743a417263683a30303030303a554e44493a303032303031 4d 04 69505845
         37 16 01 03 06 07 0c 0f 11 1a 2b 3c 42 43 77 80 81 82 83 84 85 86 87 af
         af 06 b1 01 01 12 01 01 3d 07 01 525400123456
         61 11 00 00112233445566778899aabbccddeeff 36 04 c0000201 32 04 c000020a ff",
    ),
    (
        "Windows 10",
        "35 01 03 3d 07 01 525400123456 32 04 c000020a 36 04 c0000201 0c 07 4445534b544f50
         51 0a 00 00 00 4445534b544f50
         3c 08 4d53465420352e30 37 0e 01 03 06 0f 1f 21 2b 2c 2e 2f 77 79 f9 fc ff",
    ),
    (
        "macOS",
        "35 01 03 37 0c 01 79 03 06 0f 6c 72 77 fc 5f 2c 2e 39 02 05dc 3d 07 01 525400123456
         32 04 c000020a 36 04 c0000201 0c 03 6d6163 ff",
    ),
    (
        "Windows, for a proxy",
        "35 01 08 3d 07 01 525400123456 0c 07 4445534b544f50
         3c 08 4d53465420352e30 37 0d 01 03 06 0f 1f 21 2b 2c 2e 2f 79 f9 fc ff",
    ),
];

// [DHCP-3] They take what they were offered; who has an address is told the rest.
#[test]
fn stock_clients_go_on() {
    for (name, options) in NEXT {
        let inform = name == "Windows, for a proxy";
        let mut request = client(options);
        request.ciaddr = if inform { GUEST4 } else { ANY };
        let got = ask_with(&golden(), &request).unwrap();
        assert_eq!(got.kind(), 5, "{name}");
        let yiaddr = if inform { [0; 4] } else { GUEST4.octets() };
        assert_eq!(got.bootp[16..20], yiaddr, "{name}");
        assert_eq!(got.value(51).is_none(), inform, "{name}");
        assert_eq!(got.value(6), Some(vec![192, 0, 2, 53]), "{name}");
        // Nothing that would start it from a network that has nothing to start from.
        assert!([43, 60, 66, 67].iter().all(|code| got.value(*code).is_none()), "{name}");
    }
}

// [DHCP-8] Which requests give the guest its address.
#[test]
fn requests_that_assign() {
    for (options, gives) in [
        ("35 01 01 ff", false),
        ("35 01 01 50 00 ff", true),
        ("35 01 03 32 04 c000020a ff", true),
        ("35 01 03 32 04 c0000263 ff", false),
        ("35 01 08 ff", false),
        ("35 01 07 ff", false),
        ("ff", true),
    ] {
        assert_eq!(assigns(&lease(), &client(options).bytes()), gives, "{options}");
    }
    assert!(!assigns(&lease(), &[1; 100]));
}

// [DHCP-2] Every truncation is refused, or is a complete message with fewer options.
#[test]
fn truncated() {
    for (name, options) in CLIENTS.into_iter().chain(NEXT) {
        let bytes = client(options).bytes();
        for len in 0..bytes.len() {
            let outcome = ask_raw(&golden(), ANY, &bytes[..len]);
            assert!(len >= 240 || outcome.is_err(), "{name}: {len}");
        }
    }
    // Nor does an answer of ours, cut or not, make us answer.
    let offer = ask_with(&golden(), &client(CLIENTS[0].1)).unwrap().bootp;
    for len in 0..offer.len() {
        assert_eq!(ask_raw(&golden(), ANY, &offer[..len]).unwrap_err(), MALFORMED);
    }
}

proptest! {
    #[test]
    fn never_panics(
        mut payload in proptest::collection::vec(any::<u8>(), 0..700),
        options in proptest::collection::vec(any::<u8>(), 0..300),
        kind in 0u8..10, overload in 0u8..5, src: [u8; 4], real in any::<bool>(),
    ) {
        if real {
            let mut c = client("");
            c.options = [&[53, 1, kind, 52, 1, overload], options.as_slice()].concat();
            let mut bytes = c.bytes();
            let fields = payload.len().min(192);
            bytes[44..44 + fields].copy_from_slice(&payload[..fields]);
            payload = bytes;
        }
        if let Ok(got) = ask_raw(&golden(), src.into(), &payload) {
            Message::parse(&got.bootp).unwrap();
        }
    }

    // Whatever the lease and the client's list: one well-formed message of a length that the client
    // takes, with what matters in it.
    #[test]
    fn every_lease_can_be_given(
        prefix4 in 0u8..=32, mtu: u16, dns in proptest::collection::vec(any::<[u8; 4]>(), 0..4),
        search in proptest::collection::vec("[a-z.]{0,200}", 0..7),
        hostname in proptest::option::of("[a-z]{1,253}"),
        fqdn in proptest::option::of("[a-z]{1,63}(\\.[a-z]{1,63}){0,2}"),
        list in proptest::collection::vec(any::<u8>(), 0..255),
        size: u16, id in proptest::collection::vec(any::<u8>(), 0..255),
    ) {
        let dns4 = dns.into_iter().map(Ipv4Addr::from).collect();
        let lease = Lease { prefix4, mtu, dns4, search, hostname, fqdn, ..lease() };
        let mut c = client("35 01 01 39 02");
        c.options.extend(size.to_be_bytes());
        for (code, value) in [(55, &list), (61, &id)] {
            c.options.extend([code, value.len() as u8]);
            c.options.extend(value);
        }
        let got = ask_with(&lease, &c).unwrap();
        prop_assert!(got.ip_len <= usize::from(size.clamp(576, 1500)));
        prop_assert_eq!(got.kind(), 2);
        for code in [1, 3, 51, 54] {
            prop_assert_eq!(got.value(code).map(|v| v.len()), Some(4));
        }
        if let Some(list) = got.value(119) {
            prop_assert!(crate::wire::name::tests::decode(&list).is_some());
        }
    }
}
