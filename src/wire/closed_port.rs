//! What the guest reports about a datagram that was sent to it: nobody has the port (RFC 792; RFC
//! 4443, 3.1).
//!
//! Of the datagram only the beginning is quoted, so lengths in it are not looked at.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::extension::{self, Chain};
use super::{Addr, Endpoint, Packet, Unreachable, proto};

/// The part of an IPv4 packet that a fragment is, in the word with the flags.
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// A UDP datagram to a port that nobody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedPort {
    /// Where the datagram came from.
    pub src: Endpoint,
    /// The port, and whose it is: who reports it.
    pub dst: Endpoint,
}

impl ClosedPort {
    /// Parses a packet; `None` if it is anything else, or not from where the datagram was sent to,
    /// or not to where it came from: nobody else can know.
    pub fn parse(packet: &Packet<'_>) -> Option<Self> {
        let v4 = packet.dst.is_v4();
        let ([kind, code, ..], quoted) = packet.transport.split_first_chunk::<8>()?;
        let expected = Unreachable::Port.message(v4);
        let protocol = if v4 { proto::ICMP } else { proto::ICMPV6 };
        if (packet.protocol, *kind, *code) != (protocol, expected.kind, expected.code) {
            return None;
        }
        let (src, dst, udp) = if v4 { quoted_v4(quoted)? } else { quoted_v6(quoted)? };
        if (src, dst) != (packet.dst, packet.src) {
            return None;
        }
        let [s0, s1, d0, d1] = *udp.first_chunk()?;
        Some(Self {
            src: Endpoint::new(src, u16::from_be_bytes([s0, s1])),
            dst: Endpoint::new(dst, u16::from_be_bytes([d0, d1])),
        })
    }
}

/// Addresses of a quoted IPv4 packet, and what is known of its UDP header.
fn quoted_v4(packet: &[u8]) -> Option<(Addr, Addr, &[u8])> {
    let [vihl, _, _, _, _, _, f0, f1, _, protocol, _, _, a, b, c, d, e, f, g, h] =
        *packet.first_chunk::<20>()?;
    let header_len = usize::from(vihl & 0x0f).saturating_mul(4);
    let offset = u16::from_be_bytes([f0, f1]) & FRAGMENT_OFFSET;
    if vihl >> 4 != 4 || header_len < 20 || protocol != proto::UDP || offset != 0 {
        return None;
    }
    let (src, dst) = (Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h));
    Some((src.into(), dst.into(), packet.get(header_len..)?))
}

/// The same for IPv6.
fn quoted_v6(packet: &[u8]) -> Option<(Addr, Addr, &[u8])> {
    let (head, rest) = packet.split_first_chunk::<40>()?;
    let ([version, _, _, _, _, _, next, _], addrs) = head.split_first_chunk()?;
    let (src, dst) = addrs.split_first_chunk::<16>()?;
    let dst = dst.first_chunk::<16>()?;
    match extension::walk(*next, rest).ok()? {
        Chain::Transport(proto::UDP, udp) if version >> 4 == 6 => {
            Some((Ipv6Addr::from(*src).into(), Ipv6Addr::from(*dst).into(), udp))
        }
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::wire::{Body, ETH_LEN, Frame, IcmpError, Mac, Path};
    use proptest::prelude::*;

    fn at(s: &str, port: u16) -> Endpoint {
        Endpoint::new(s.parse::<IpAddr>().unwrap().into(), port)
    }

    /// The guest's end, and the other one.
    fn ends(v4: bool) -> (Endpoint, Endpoint) {
        if v4 {
            (at("192.0.2.10", 2004), at("198.51.100.7", 7777))
        } else {
            (at("2001:db8::10", 2004), at("2001:db8:7::7", 7777))
        }
    }

    /// The guest's report about a datagram.
    fn report(v4: bool, what: Unreachable) -> Vec<u8> {
        let (guest, ours) = ends(v4);
        let (src_mac, dst_mac) = (Mac([2, 0, 0, 0, 0, 1]), Mac::DEFAULT_OURS);
        let (src, dst) = (guest, ours);
        let path = Path { src_mac, dst_mac, src, dst, flow_label: 0, tos: 0, ttl: 64 };
        IcmpError::udp(&path, what).unwrap().frame().to_vec()
    }

    fn parse(frame: &[u8]) -> Option<ClosedPort> {
        let Ok(Frame { body: Body::Ip(packet), .. }) = Frame::parse(frame) else { panic!() };
        ClosedPort::parse(&packet)
    }

    // [UDP-12] Who had sent what to which port; and nothing but that.
    #[test]
    fn reports() {
        for v4 in [true, false] {
            let (guest, ours) = ends(v4);
            let good = report(v4, Unreachable::Port);
            assert_eq!(parse(&good), Some(ClosedPort { src: ours, dst: guest }));
            assert_eq!(parse(&report(v4, Unreachable::Host)), None);
            let ip = if v4 { 20 } else { 40 };
            let quoted = ETH_LEN + ip + 8;
            let (protocol, addrs) = if v4 { (9, 12..20) } else { (6, 8..40) };
            let mut wrong = vec![ETH_LEN + protocol, ETH_LEN + ip, quoted, quoted + protocol];
            wrong.extend(addrs.clone().map(|n| quoted + n));
            wrong.extend(addrs.map(|n| ETH_LEN + n));
            for n in wrong {
                let mut bad = good.clone();
                bad[n] ^= 0x81;
                assert_eq!(parse(&bad), None, "byte {n}");
            }
        }
    }

    // [UDP-12] The quoted headers may be longer; a later fragment has no ports.
    #[test]
    fn quoted_headers() {
        let (guest, ours) = ends(true);
        let packet = |quoted: &[u8], v4: bool| {
            let (guest, ours) = ends(v4);
            let (head, protocol) = if v4 { ([3, 3], 1) } else { ([1, 4], 58) };
            let transport = [&head[..], &[0; 6], quoted].concat();
            let (src, dst) = (guest.addr, ours.addr);
            let (ttl, tos, df, transport) = (64, 0, true, &transport[..]);
            ClosedPort::parse(&Packet { src, dst, protocol, ttl, tos, df, transport })
        };
        let whole = &report(true, Unreachable::Port)[ETH_LEN + 20 + 8..];
        let (head, udp) = whole.split_at(20);
        let mut longer = [head, &[1; 4], udp].concat();
        longer[0] = 0x46;
        assert_eq!(packet(&longer, true), Some(ClosedPort { src: ours, dst: guest }));
        for (n, value) in [(0, 0x44), (0, 0x66), (7, 1), (6, 0x10)] {
            let mut bad = whole.to_vec();
            bad[n] = value;
            assert_eq!(packet(&bad, true), None, "byte {n}");
        }
        for short in 0..24 {
            assert_eq!(packet(&whole[..short], true), None, "{short}");
        }

        let (guest, ours) = ends(false);
        let whole = &report(false, Unreachable::Port)[ETH_LEN + 40 + 8..];
        let (head, udp) = whole.split_at(40);
        let mut longer = [head, &[17, 0, 1, 4, 0, 0, 0, 0], udp].concat();
        longer[6] = 60;
        assert_eq!(packet(&longer, false), Some(ClosedPort { src: ours, dst: guest }));
        for short in 0..44 {
            assert_eq!(packet(&whole[..short], false), None, "{short}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(v4: bool, quoted in proptest::collection::vec(any::<u8>(), 0..100)) {
            let (src, dst) = ends(v4);
            let (head, protocol) = if v4 { ([3, 3], 1) } else { ([1, 4], 58) };
            let transport = &[&head[..], &[0; 6], &quoted].concat()[..];
            let (src, dst, ttl, tos, df) = (src.addr, dst.addr, 64, 0, true);
            let _ = ClosedPort::parse(&Packet { src, dst, protocol, ttl, tos, df, transport });
        }
    }
}
