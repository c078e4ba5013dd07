//! Which connections go past the link, from socket to socket, and where to.
//!
//! A client on the host's loopback interface reaches a forwarded port of the guest through a socket
//! inside the guest's namespace [FWD-5], and one on the namespace's loopback interface the host
//! [FWD-7]. The same port may be used through the link, too: it depends on the client alone.

use super::{ForwardTarget, GuestAddrs};
use crate::config::Inward;
use crate::wire::Endpoint;

/// Where inside the namespace a connection or datagram of `peer` to `local`, a forwarded port of
/// the host, leads; `None` if it takes the link.
///
/// That is the case too where the rule names an address, and as long as the guest has none that
/// could be used: a link-local one of IPv6 would need the name of a link.
pub fn spliced_in(
    how: Inward,
    guest: &GuestAddrs,
    (peer, local): (Endpoint, Endpoint),
    to: ForwardTarget,
) -> Option<Endpoint> {
    if how == Inward::Link || to.addr.is_some() || to.port == 0 || !peer.addr.is_loopback() {
        return None;
    }
    if how == Inward::Loopback && local.addr.is_loopback() {
        return Some(Endpoint::new(local.addr, to.port));
    }
    let addr = guest.reached_from(local.addr).filter(|a| a.is_v4() || !a.is_link_local())?;
    Some(Endpoint::new(addr, to.port))
}

/// Where on the host a connection or datagram of `peer` to `local`, a forwarded port of the
/// namespace, leads: to the same loopback address. `None` if either is none, which is nowhere.
pub fn spliced_out((peer, local): (Endpoint, Endpoint), to_port: u16) -> Option<Endpoint> {
    let both = peer.addr.is_loopback() && local.addr.is_loopback();
    both.then(|| Endpoint::new(local.addr, to_port))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Lease;
    use crate::forward::nat::tests::{addr, lease};

    fn at(s: &str, port: u16) -> Endpoint {
        Endpoint::new(addr(s), port)
    }

    fn into(how: Inward, guest: &GuestAddrs, peer: &str, local: &str) -> Option<String> {
        let to = ForwardTarget { addr: None, port: 80 };
        spliced_in(how, guest, (at(peer, 6001), at(local, 8080)), to).map(|e| e.to_string())
    }

    // [FWD-5] [SPLICE-1] [SPLICE-2] Clients on loopback only; to the address of the namespace.
    #[test]
    fn inwards_to_the_address() {
        let guest = GuestAddrs::new(&lease(), false, false);
        let go = |peer, local| into(Inward::Address, &guest, peer, local);
        assert_eq!(go("127.0.0.1", "127.0.0.1").unwrap(), "192.0.2.10:80");
        assert_eq!(go("127.0.0.1", "127.0.0.5").unwrap(), "192.0.2.10:80");
        assert_eq!(go("127.9.9.9", "192.0.2.10").unwrap(), "192.0.2.10:80");
        assert_eq!(go("::1", "::1").unwrap(), "[2001:db8::10]:80");
        assert_eq!(go("192.0.2.10", "192.0.2.10"), None);
        assert_eq!(go("2001:db8::77", "2001:db8::10"), None);
        assert_eq!(into(Inward::Link, &guest, "127.0.0.1", "127.0.0.1"), None);
    }

    // [SPLICE-1] Rules with an address of their own, and guests without a usable one.
    #[test]
    fn inwards_through_the_link() {
        let guest = GuestAddrs::new(&lease(), false, false);
        let ends = (at("127.0.0.1", 6001), at("127.0.0.1", 8080));
        let to = ForwardTarget { addr: Some(addr("192.0.2.99")), port: 80 };
        assert_eq!(spliced_in(Inward::Address, &guest, ends, to), None);
        let mut guest = GuestAddrs::new(&Lease { addr6: None, ..lease() }, false, false);
        assert_eq!(into(Inward::Address, &guest, "::1", "::1"), None);
        guest.learn(addr("fe80::99"));
        assert_eq!(into(Inward::Address, &guest, "::1", "::1"), None);
    }

    // [SPLICE-2] [ADDR-5] A link-local address of IPv4 is one like any other: guests without a network
    // have no other.
    #[test]
    fn inwards_to_a_link_local_address() {
        let local = Lease { addr4: "169.254.2.1".parse().unwrap(), ..lease() };
        let guest = GuestAddrs::new(&local, false, false);
        let go = |peer, local| into(Inward::Address, &guest, peer, local);
        assert_eq!(go("127.0.0.1", "127.0.0.1").unwrap(), "169.254.2.1:80");
        assert_eq!(go("169.254.2.1", "169.254.2.1"), None);
    }

    // [FWD-5] [FWD-4] The same loopback address, if one was used.
    #[test]
    fn inwards_to_loopback() {
        let guest = GuestAddrs::new(&lease(), false, false);
        let go = |peer, local| into(Inward::Loopback, &guest, peer, local);
        assert_eq!(go("127.0.0.1", "127.0.0.5").unwrap(), "127.0.0.5:80");
        assert_eq!(go("::1", "::1").unwrap(), "[::1]:80");
        assert_eq!(go("127.0.0.1", "192.0.2.77").unwrap(), "192.0.2.10:80");
        assert_eq!(go("192.0.2.77", "192.0.2.10"), None);
    }

    // [FWD-7] Both ends on loopback, and the same address on the other side.
    #[test]
    fn outwards() {
        let go =
            |peer, local| spliced_out((at(peer, 6001), at(local, 8080)), 80).map(|e| e.to_string());
        assert_eq!(go("127.0.0.1", "127.0.0.53").unwrap(), "127.0.0.53:80");
        assert_eq!(go("::1", "::1").unwrap(), "[::1]:80");
        assert_eq!(go("192.0.2.10", "127.0.0.1"), None);
        assert_eq!(go("127.0.0.1", "192.0.2.10"), None);
    }
}
