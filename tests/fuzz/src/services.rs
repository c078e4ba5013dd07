//! Requests to the services, made of a fuzzer's input: bytes as they are, and messages that are
//! almost right.
//!
//! What is answered has to be one well-formed frame that fits the link, and to say the same when it
//! is asked again.

use passt::config::Lease;
use passt::forward::GuestAddrs;
use passt::services::{Offered, Outcome, Reply, arp, dhcp, dhcpv6, ndp};
use passt::wire::{Body, Datagram, Frame, Mac, proto};

/// The guest's link-layer address.
const GUEST: Mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

/// What is left of the input.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// The next byte; 0 when there are no more.
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// The next `len` bytes, or what there is.
    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// Pairs of a code and a value, in a layout that `header` decides.
    fn options(&mut self, codes: &[u8], header: impl Fn(&mut Vec<u8>, u8, usize)) -> Vec<u8> {
        let mut out = Vec::new();
        while !self.0.is_empty() {
            let code = match self.byte() {
                b @ 200.. => b,
                b => codes[usize::from(b) % codes.len()],
            };
            let len = match self.byte() {
                b @ 0..240 => usize::from(b) % 40,
                b => usize::from(b),
            };
            // Sometimes the length is not that of the value.
            let wrong = if self.byte() > 250 { 1 } else { 0 };
            header(&mut out, code, len + wrong);
            out.extend(self.bytes(len));
        }
        out
    }
}

/// The lease of the worked examples, with more or less in it.
fn lease(how: u8) -> Lease {
    let name = |n: usize| format!("{}.name{n}.example.", "x".repeat(n * 9));
    let full = how & 1 != 0;
    Lease {
        dns4: if full { vec![[192, 0, 2, 53].into(); 3] } else { vec![] },
        dns6: if full { vec!["2001:db8::53".parse().unwrap(); 3] } else { vec![] },
        search: (0..usize::from(how >> 1 & 7)).map(name).collect(),
        hostname: (how & 16 != 0).then(|| "y".repeat(120)),
        fqdn: (how & 32 != 0).then(|| name(5)),
        gateway4: if how & 64 != 0 { [10, 9, 9, 1].into() } else { [192, 0, 2, 1].into() },
        mtu: if how & 128 != 0 { 1280 } else { 65_520 },
        ..Lease::example()
    }
}

/// One request to one service.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input(data);
    let lease = lease(input.byte());
    let how = input.byte();
    let request = match how % 4 {
        0 => bootp(&mut input, how & 4 == 0),
        1 => dhcpv6_message(&mut input, how & 4 == 0),
        2 => arp_message(&mut input, how & 4 == 0),
        _ => input.0.to_vec(),
    };
    let ask = |reply: &mut Reply| match how % 4 {
        0 => {
            let src = if how & 8 == 0 { [0; 4] } else { [192, 0, 2, 10] }.into();
            dhcp::respond(&lease, &dhcp::Request { eth_src: GUEST, src, payload: &request }, reply)
        }
        1 => {
            let (src, dst) = ("fe80::9".parse().unwrap(), "ff02::1:2".parse().unwrap());
            let request = dhcpv6::Request { eth_src: GUEST, src, dst, payload: &request };
            dhcpv6::respond(&lease, &request, reply)
        }
        2 => arp::respond(&lease, &request, |_| lease.our_mac, |_| how & 16 != 0, reply),
        _ => {
            let src = if how & 8 == 0 { "fe80::9" } else { "::" }.parse().unwrap();
            let request = ndp::Request { eth_src: GUEST, src, hop_limit: 255, icmp: &request };
            if let Some(address) = ndp::tentative(&request) {
                assert!(src.is_unspecified() && !address.is_multicast());
                GuestAddrs::new(&lease, false, false).expect(&lease, address);
            }
            ndp::respond(&lease, Offered::default(), &request, |_| lease.our_mac, reply)
        }
    };
    let mut reply = Reply::new();
    let outcome = ask(&mut reply);
    assert_eq!(outcome == Outcome::Replied, !reply.frame().is_empty());
    assert_ne!(outcome, Outcome::Dropped(passt::services::Reason::TooLong));
    let mut again = Reply::new();
    again.put(&[0xaa; 1000]);
    assert_eq!((ask(&mut again), again.frame()), (outcome, reply.frame()));
    if outcome == Outcome::Replied {
        check(reply.frame());
    }
}

/// Looks at what is sent as the guest would.
fn check(frame: &[u8]) {
    assert!((60..=1514).contains(&frame.len()));
    let parsed = Frame::parse(frame).expect("a frame");
    assert_eq!((parsed.src, &frame[..6]), (Mac::DEFAULT_OURS, &GUEST.0[..]));
    let Body::Ip(packet) = parsed.body else { return };
    if packet.protocol != proto::UDP {
        return;
    }
    let datagram = Datagram::parse(packet.transport, false).expect("a datagram");
    match datagram.src_port {
        passt::wire::dhcp::SERVER_PORT => {
            assert!(passt::wire::dhcp::Message::parse(datagram.payload).is_some());
        }
        _ => assert!(passt::wire::dhcpv6::Message::parse(datagram.payload).is_some()),
    }
}

fn bootp(input: &mut Input<'_>, structured: bool) -> Vec<u8> {
    if !structured {
        return input.0.to_vec();
    }
    let mut m = vec![0; 236];
    (m[0], m[1], m[2]) = (1, 1, 6);
    for at in [10, 12, 24, 44, 108] {
        if input.byte() > 200 {
            let bytes = input.bytes(4);
            m[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }
    m.extend([0x63, 0x82, 0x53, 0x63, 53, 1, input.byte() % 10]);
    let codes = [50, 52, 53, 54, 55, 57, 61, 80, 81, 82, 0, 12, 119];
    m.extend(input.options(&codes, |out, code, len| out.extend([code, len as u8])));
    m
}

fn dhcpv6_message(input: &mut Input<'_>, structured: bool) -> Vec<u8> {
    if !structured {
        return input.0.to_vec();
    }
    let mut m = vec![input.byte() % 14, 1, 2, 3];
    let identifiers = input.byte();
    if identifiers & 1 == 0 {
        m.extend([0, 1, 0, 10, 0, 3, 0, 1, 2, 0, 0, 0, 0, 1]);
    }
    if identifiers & 2 == 0 {
        m.extend([0, 2, 0, 10, 0, 3, 0, 1, 0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55]);
    }
    if identifiers & 4 == 0 {
        m.extend([0, 3, 0, 40, 0, 0, 0, 5]);
        m.extend([0; 8]);
        m.extend([0, 5, 0, 24]);
        m.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, input.byte() & 0x11]);
        m.extend([0; 8]);
    }
    let codes = [1, 2, 3, 4, 6, 8, 14, 25, 39];
    m.extend(input.options(&codes, |out, code, len| {
        out.extend([0, code]);
        out.extend((len as u16).to_be_bytes());
    }));
    m
}

fn arp_message(input: &mut Input<'_>, structured: bool) -> Vec<u8> {
    if !structured {
        return input.0.to_vec();
    }
    let mut f = vec![0xff; 6];
    f.extend(GUEST.0);
    f.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, input.byte() % 4]);
    f.extend(input.0);
    f
}
