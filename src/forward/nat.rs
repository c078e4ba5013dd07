//! Address translation between guest and host, as functions of the lease.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::GuestAddrs;
use crate::config::Lease;
use crate::wire::{Addr, Endpoint, proto};

/// Ports of DNS and DNS over TLS, which are redirected to the host's resolver.
const DNS_PORTS: [u16; 2] = [53, 853];

/// Where on the host traffic of `protocol` from the guest to `dst` goes [FWD-2].
///
/// `None` if it goes nowhere: the unspecified address is no destination, and a loopback address on
/// the link must not reach the host's loopback [L2-7]. The port never changes.
pub fn outbound(lease: &Lease, protocol: u8, dst: Endpoint) -> Option<Endpoint> {
    if dst.addr.is_unspecified() || dst.addr.is_loopback() {
        return None;
    }
    let addr = resolver(lease, protocol, dst)
        .or_else(|| host_loopback(lease, dst.addr))
        .or_else(|| host_twin(lease, dst.addr))
        .unwrap_or(dst.addr);
    Some(Endpoint::new(addr, dst.port))
}

/// Where a forwarded port leads to, in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardTarget {
    /// The address, if the rule names one; otherwise where the guest is reached.
    pub addr: Option<Addr>,
    /// The port.
    pub port: u16,
}

/// How a flow that `peer` on the host started towards a forwarded port looks to the guest: the
/// source it sees, and the destination [FWD-4, FWD-6].
///
/// `None` if it cannot be shown: `peer` is nobody who could be answered, no address of ours could
/// stand for it, or the guest has no address to send to. Different peers may come out as the same
/// source; the caller sees that the pair is taken and picks another source port.
pub fn inbound(
    lease: &Lease,
    guest: &GuestAddrs,
    peer: Endpoint,
    to: ForwardTarget,
) -> Option<(Endpoint, Endpoint)> {
    if !peer.addr.is_unicast() || peer.port == 0 || to.port == 0 {
        return None;
    }
    let mapped = mapped_loopback(lease, peer.addr).or_else(|| mapped_twin(lease, peer.addr));
    let source = match mapped {
        Some(mapped) => mapped,
        None if accessible(lease, guest, peer.addr) => peer.addr,
        None => our_address(lease, peer.addr)?,
    };
    let destination = match to.addr {
        Some(addr) if addr.is_v4() == source.is_v4() => addr,
        Some(_) => return None,
        None => guest.reached_from(source)?,
    };
    Some((Endpoint::new(source, peer.port), Endpoint::new(destination, to.port)))
}

/// The host's resolver, for queries to the address that is matched. Without a resolver there is
/// no redirection: queries to nowhere would help nobody.
fn resolver(lease: &Lease, protocol: u8, dst: Endpoint) -> Option<Addr> {
    if !matches!(protocol, proto::TCP | proto::UDP) || !DNS_PORTS.contains(&dst.port) {
        return None;
    }
    let host = match dst.addr.to_ip() {
        IpAddr::V4(a) if lease.dns_match4 == Some(a) => lease.dns_host4.map(Addr::from),
        IpAddr::V6(a) if lease.dns_match6 == Some(a) => lease.dns_host6.map(Addr::from),
        _ => None,
    };
    host.filter(|a| !a.is_unspecified())
}

/// The host's loopback address, if `addr` is what stands for it.
fn host_loopback(lease: &Lease, addr: Addr) -> Option<Addr> {
    match addr.to_ip() {
        IpAddr::V4(a) if lease.map_host_loopback4 == Some(a) => Some(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(a) if lease.map_host_loopback6 == Some(a) => Some(Ipv6Addr::LOCALHOST.into()),
        _ => None,
    }
}

/// What stands for the host's loopback address, if `addr` is exactly that.
fn mapped_loopback(lease: &Lease, addr: Addr) -> Option<Addr> {
    match addr.to_ip() {
        IpAddr::V4(Ipv4Addr::LOCALHOST) => lease.map_host_loopback4.map(Addr::from),
        IpAddr::V6(Ipv6Addr::LOCALHOST) => lease.map_host_loopback6.map(Addr::from),
        _ => None,
    }
}

/// The host's address that the guest has too, if `addr` is what stands for it.
fn host_twin(lease: &Lease, addr: Addr) -> Option<Addr> {
    match addr.to_ip() {
        IpAddr::V4(a) if lease.map_guest4 == Some(a) => Some(lease.addr4.into()),
        IpAddr::V6(a) if lease.map_guest6 == Some(a) => lease.addr6.map(Addr::from),
        _ => None,
    }
}

/// What stands for the host's address that the guest has too, if `addr` is that.
fn mapped_twin(lease: &Lease, addr: Addr) -> Option<Addr> {
    match addr.to_ip() {
        IpAddr::V4(a) if a == lease.addr4 => lease.map_guest4.map(Addr::from),
        IpAddr::V6(a) if lease.addr6 == Some(a) => lease.map_guest6.map(Addr::from),
        _ => None,
    }
}

/// True if the guest can answer this address: it does not take it for its own.
fn accessible(lease: &Lease, guest: &GuestAddrs, addr: Addr) -> bool {
    let assigned = match addr.to_ip() {
        IpAddr::V4(a) => a == lease.addr4,
        IpAddr::V6(a) => lease.addr6 == Some(a),
    };
    !assigned && !addr.is_loopback() && !guest.uses(addr)
}

/// Our own address on the link [ADDR-4].
fn our_address(lease: &Lease, like: Addr) -> Option<Addr> {
    let ours: Addr = if like.is_v4() { lease.gateway4.into() } else { lease.our_ll.into() };
    Some(ours).filter(|a| !a.is_unspecified())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;

    pub(in crate::forward) fn addr(s: &str) -> Addr {
        s.parse::<IpAddr>().unwrap().into()
    }

    fn at(s: &str, port: u16) -> Endpoint {
        Endpoint::new(addr(s), port)
    }

    pub(in crate::forward) fn lease() -> Lease {
        Lease {
            map_host_loopback4: Some("192.0.2.200".parse().unwrap()),
            map_host_loopback6: Some("fe80::1".parse().unwrap()),
            dns_match4: Some("192.0.2.222".parse().unwrap()),
            dns_match6: Some("2001:db8::53".parse().unwrap()),
            dns_host4: Some("127.0.0.53".parse().unwrap()),
            dns_host6: Some("2001:db8:9::53".parse().unwrap()),
            scope6: 2,
            ..Lease::example()
        }
    }

    fn to(port: u16) -> ForwardTarget {
        ForwardTarget { addr: None, port }
    }

    fn out(lease: &Lease, protocol: u8, dst: Endpoint) -> Option<String> {
        outbound(lease, protocol, dst).map(|e| e.to_string())
    }

    // [FWD-2] Resolver, on its ports and for TCP and UDP only.
    #[test]
    fn dns_is_redirected() {
        let l = lease();
        for protocol in [proto::TCP, proto::UDP] {
            for port in [53, 853] {
                let got = out(&l, protocol, at("192.0.2.222", port)).unwrap();
                assert_eq!(got, format!("127.0.0.53:{port}"));
                let got = out(&l, protocol, at("2001:db8::53", port)).unwrap();
                assert_eq!(got, format!("[2001:db8:9::53]:{port}"));
            }
            let got = out(&l, protocol, at("192.0.2.222", 80)).unwrap();
            assert_eq!(got, "192.0.2.222:80");
        }
        assert_eq!(out(&l, proto::ICMP, at("192.0.2.222", 53)).unwrap(), "192.0.2.222:53");
    }

    // [FWD-2] [ADDR-7] Resolver first, then loopback; without a resolver, no redirection.
    #[test]
    fn dns_comes_before_loopback() {
        let gw = at("192.0.2.200", 53);
        let mut l = Lease { dns_match4: lease().map_host_loopback4, ..lease() };
        assert_eq!(out(&l, proto::UDP, gw).unwrap(), "127.0.0.53:53");
        l.dns_host4 = None;
        assert_eq!(out(&l, proto::UDP, gw).unwrap(), "127.0.0.1:53");
        l.map_host_loopback4 = None;
        assert_eq!(out(&l, proto::UDP, gw).unwrap(), "192.0.2.200:53");
    }

    // [FWD-2] [ADDR-6] The mapped address means the host's loopback, for every protocol.
    #[test]
    fn loopback_mapping() {
        let mut l = lease();
        for protocol in [proto::TCP, proto::UDP, proto::ICMP] {
            assert_eq!(out(&l, protocol, at("192.0.2.200", 8000)).unwrap(), "127.0.0.1:8000");
        }
        assert_eq!(out(&l, proto::TCP, at("fe80::1", 8000)).unwrap(), "[::1]:8000");
        l.map_host_loopback6 = None;
        assert_eq!(out(&l, proto::TCP, at("fe80::1", 8000)).unwrap(), "[fe80::1]:8000");
    }

    // [FWD-2] [ADDR-6] The host's address that the guest has too; after the resolver and loopback.
    #[test]
    fn guest_mapping() {
        let l = Lease {
            map_guest4: Some("192.0.2.201".parse().unwrap()),
            map_guest6: Some("2001:db8::201".parse().unwrap()),
            ..lease()
        };
        for protocol in [proto::TCP, proto::UDP, proto::ICMP] {
            assert_eq!(out(&l, protocol, at("192.0.2.201", 53)).unwrap(), "192.0.2.10:53");
        }
        assert_eq!(out(&l, proto::TCP, at("2001:db8::201", 80)).unwrap(), "[2001:db8::10]:80");
        assert_eq!(out(&lease(), proto::TCP, at("192.0.2.201", 80)).unwrap(), "192.0.2.201:80");
        let both = Lease { map_guest4: l.map_host_loopback4, ..l.clone() };
        assert_eq!(out(&both, proto::TCP, at("192.0.2.200", 80)).unwrap(), "127.0.0.1:80");
        // In local mode there is no address to stand for.
        let alone = Lease { addr6: None, ..l };
        let same = out(&alone, proto::TCP, at("2001:db8::201", 80)).unwrap();
        assert_eq!(same, "[2001:db8::201]:80");
    }

    // [FWD-6] The host talks to the guest from the address they share: the mapped one is seen.
    #[test]
    fn shared_address_as_source() {
        let mapped = Lease {
            map_guest4: Some("192.0.2.201".parse().unwrap()),
            map_guest6: Some("2001:db8::201".parse().unwrap()),
            ..lease()
        };
        let g = GuestAddrs::new(&mapped, false, false);
        let to = "192.0.2.10:5555";
        assert_eq!(seen("192.0.2.10", &mapped, &g), pair("192.0.2.201:6001", to));
        assert_eq!(seen("127.0.0.1", &mapped, &g), pair("192.0.2.200:6001", to));
        assert_eq!(seen("127.0.0.5", &mapped, &g), pair("192.0.2.1:6001", to));
        let to = "[2001:db8::10]:5555";
        assert_eq!(seen("2001:db8::10", &mapped, &g), pair("[2001:db8::201]:6001", to));
    }

    // [FWD-2] Everything else is itself, but for what cannot be a destination.
    #[test]
    fn other_destinations() {
        let l = Lease { map_host_loopback4: None, map_host_loopback6: None, ..lease() };
        for same in ["10.0.0.1", "169.254.169.254", "255.255.255.255", "2001:db8::77", "ff02::fb"] {
            assert_eq!(outbound(&l, proto::UDP, at(same, 9)), Some(at(same, 9)));
        }
        for nowhere in ["0.0.0.0", "::", "127.0.0.1", "127.9.9.9", "::1"] {
            assert_eq!(outbound(&l, proto::UDP, at(nowhere, 9)), None, "{nowhere}");
        }
    }

    fn seen(peer: &str, l: &Lease, g: &GuestAddrs) -> Option<(String, String)> {
        inbound(l, g, at(peer, 6001), to(5555)).map(|(o, g)| (o.to_string(), g.to_string()))
    }

    fn pair(ours: &str, guest: &str) -> Option<(String, String)> {
        Some((ours.into(), guest.into()))
    }

    // [FWD-6] 127.0.0.1 exactly is mapped; other loopback and the guest's own addresses become
    // ours; the rest stays. The port is kept.
    #[test]
    fn sources_the_guest_sees() {
        let l = lease();
        let mut g = GuestAddrs::new(&l, false, false);
        let to = "192.0.2.10:5555";
        assert_eq!(seen("127.0.0.1", &l, &g), pair("192.0.2.200:6001", to));
        assert_eq!(seen("127.0.0.5", &l, &g), pair("192.0.2.1:6001", to));
        assert_eq!(seen("192.0.2.10", &l, &g), pair("192.0.2.1:6001", to));
        assert_eq!(seen("192.0.2.77", &l, &g), pair("192.0.2.77:6001", to));
        g.learn(addr("192.0.2.99"));
        let to = "192.0.2.99:5555";
        assert_eq!(seen("192.0.2.99", &l, &g), pair("192.0.2.1:6001", to));
        assert_eq!(seen("192.0.2.10", &l, &g), pair("192.0.2.1:6001", to));

        let unmapped = Lease { map_host_loopback4: None, ..lease() };
        assert_eq!(seen("127.0.0.1", &unmapped, &g), pair("192.0.2.1:6001", to));
        let alone = Lease { gateway4: Ipv4Addr::UNSPECIFIED, ..unmapped };
        assert_eq!(seen("127.0.0.1", &alone, &g), None);
        assert_eq!(seen("192.0.2.77", &alone, &g), pair("192.0.2.77:6001", to));
    }

    // [FWD-4] From a link-local source to the guest's link-local address, and never to `::`.
    #[test]
    fn destinations_ipv6() {
        let l = lease();
        let mut g = GuestAddrs::new(&l, false, false);
        let global = "[2001:db8::10]:5555";
        assert_eq!(seen("2001:db8::77", &l, &g), pair("[2001:db8::77]:6001", global));
        assert_eq!(seen("::1", &l, &g), pair("[fe80::1]:6001", global));
        g.learn(addr("fe80::99"));
        assert_eq!(seen("::1", &l, &g), pair("[fe80::1]:6001", "[fe80::99]:5555"));
        assert_eq!(seen("2001:db8::10", &l, &g), pair("[fe80::1]:6001", "[fe80::99]:5555"));
        assert_eq!(seen("fe80::99", &l, &g), pair("[fe80::1]:6001", "[fe80::99]:5555"));
        assert_eq!(seen("2001:db8::77", &l, &g), pair("[2001:db8::77]:6001", global));

        let l = Lease { addr6: None, ..lease() };
        let g = GuestAddrs::new(&l, false, false);
        assert_eq!(seen("::1", &l, &g), None);
        assert_eq!(seen("2001:db8::77", &l, &g), None);
    }

    // [UDP-4] Nobody can be answered at these.
    #[test]
    fn impossible_peers() {
        let l = lease();
        let g = GuestAddrs::new(&l, false, false);
        for peer in ["0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "ff02::1"] {
            assert_eq!(seen(peer, &l, &g), None, "{peer}");
        }
        assert_eq!(inbound(&l, &g, at("192.0.2.77", 0), to(5555)), None);
        assert_eq!(inbound(&l, &g, at("192.0.2.77", 6001), to(0)), None);
    }
}
