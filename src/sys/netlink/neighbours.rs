//! Neighbours of the host: what the kernel knows of their Ethernet addresses.

use std::net::IpAddr;

use super::attrs::parse;
use super::message::{DELNEIGH, NEWNEIGH, NeighbourHeader};
use super::{INET, INET6};
use crate::config::Neighbour;
use crate::wire::Mac;

/// `NDA_DST`: address.
const NDA_DST: u16 = 1;
/// `NDA_LLADDR`: link-layer address.
const NDA_LLADDR: u16 = 2;

/// States in which the link-layer address is good: `NUD_REACHABLE`, `NUD_STALE`, `NUD_DELAY`,
/// `NUD_PROBE`, `NUD_NOARP`, `NUD_PERMANENT`. In others it is looked for, or was not found.
const VALID: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80;

/// `NTF_PROXY`: the host itself answers for the address.
const NTF_PROXY: u8 = 0x08;

/// Reads a message of a dump or a notification; `None` if it is not about a neighbour in an
/// Ethernet, or makes no sense.
///
/// Entries of bridges come in such messages, too (with family `AF_BRIDGE`), and groups are
/// neighbours for the kernel.
pub(super) fn read(kind: u16, body: &[u8]) -> Option<Neighbour> {
    let header = NeighbourHeader::parse(body)?;
    if !matches!(kind, NEWNEIGH | DELNEIGH)
        || !matches!(header.family, INET | INET6)
        || header.flags & NTF_PROXY != 0
    {
        return None;
    }
    let attrs = parse(body.get(NeighbourHeader::LEN..)?)?;
    let value = |kind| attrs.iter().find(|a| a.kind() == kind);
    let addr = value(NDA_DST)?.ip()?;
    if addr.is_ipv4() != (header.family == INET) || !is_neighbours(addr) {
        return None;
    }
    let valid = kind == NEWNEIGH && header.state & VALID != 0;
    let mac = value(NDA_LLADDR).and_then(|a| a.value.try_into().ok()).map(Mac);
    let mac = mac.filter(|mac| valid && mac.is_station());
    Some(Neighbour { ifindex: header.index, addr, mac })
}

fn is_neighbours(addr: IpAddr) -> bool {
    let broadcast = matches!(addr, IpAddr::V4(a) if a.is_broadcast());
    !addr.is_unspecified() && !addr.is_multicast() && !addr.is_loopback() && !broadcast
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::attrs::AttrBuf;
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
    const STALE: u16 = 0x04;

    fn body(header: NeighbourHeader, attrs: &[(u16, &[u8])]) -> Vec<u8> {
        let mut buf = AttrBuf::default();
        for (kind, value) in attrs {
            buf.push(*kind, value);
        }
        header.body(&buf)
    }

    fn v4(state: u16, addr: [u8; 4], mac: &[u8]) -> Option<Neighbour> {
        let header = NeighbourHeader { family: INET, index: 3, state, flags: 0 };
        read(NEWNEIGH, &body(header, &[(NDA_DST, &addr), (NDA_LLADDR, mac)]))
    }

    // [NL-15] [ADDR-11] Good while the kernel would use it, DELAY included; gone in other states.
    #[test]
    fn states() {
        let known = Neighbour { ifindex: 3, addr: [10, 0, 0, 7].into(), mac: Some(Mac(MAC)) };
        for state in [0x02, 0x04, 0x08, 0x10, 0x40, 0x80] {
            assert_eq!(v4(state, [10, 0, 0, 7], &MAC), Some(known), "{state:#x}");
        }
        for state in [0, 0x01, 0x20] {
            let gone = Some(Neighbour { mac: None, ..known });
            assert_eq!(v4(state, [10, 0, 0, 7], &MAC), gone, "{state:#x}");
        }
        let header = NeighbourHeader { family: INET, index: 3, state: STALE, flags: 0 };
        let deleted = body(header, &[(NDA_DST, &[10, 0, 0, 7]), (NDA_LLADDR, &MAC)]);
        assert_eq!(read(DELNEIGH, &deleted), Some(Neighbour { mac: None, ..known }));
    }

    // [NL-15] Ethernet alone; nobody's addresses and groups are no neighbours.
    #[test]
    fn nonsense() {
        let gone = |addr: [u8; 4]| Some(Neighbour { ifindex: 3, addr: addr.into(), mac: None });
        for mac in [&[][..], &MAC[..5], &[2; 20], &[0; 6], &[0xff; 6], &[1, 0, 0x5e, 0, 0, 1]] {
            assert_eq!(v4(STALE, [10, 0, 0, 7], mac), gone([10, 0, 0, 7]), "{mac:?}");
        }
        for addr in [[0; 4], [255; 4], [224, 0, 0, 1], [127, 0, 0, 1]] {
            assert_eq!(v4(STALE, addr, &MAC), None, "{addr:?}");
        }
        let header = NeighbourHeader { family: INET, index: 3, state: STALE, flags: 0 };
        let attrs: [(u16, &[u8]); 2] = [(NDA_DST, &[10, 0, 0, 7]), (NDA_LLADDR, &MAC)];
        let good = body(header, &attrs);
        assert!(read(NEWNEIGH, &good).is_some());
        assert_eq!(read(16, &good), None);
        for len in 0..20 {
            assert_eq!(read(NEWNEIGH, &good[..len]), None, "{len}");
        }
        for bad in [
            NeighbourHeader { family: 7, ..header },
            NeighbourHeader { family: INET6, ..header },
            NeighbourHeader { flags: NTF_PROXY, ..header },
        ] {
            assert_eq!(read(NEWNEIGH, &body(bad, &attrs)), None, "{bad:?}");
        }
        assert_eq!(read(NEWNEIGH, &body(header, &attrs[1..])), None, "without address");
    }
}
