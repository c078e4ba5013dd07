//! Which resolvers the guest is told, and where its queries go [ADDR-7, NL-12, NL-14].
//!
//! A resolver on the host's loopback (a local stub), or one whose address means something else to
//! the guest (the gateway, which stands for the host), cannot be advertised as it is. Another
//! address is advertised in its place, and queries to that one are sent to the host's resolver.

/// An address of one family, as far as resolvers are concerned.
pub(super) trait Ip: Copy + Eq {
    /// On the loopback interface. The C library takes the unspecified address for that too.
    fn is_local(&self) -> bool;
    /// What to send queries for this address to.
    fn reachable(self) -> Self;
}

impl Ip for std::net::Ipv4Addr {
    fn is_local(&self) -> bool {
        self.is_loopback() || self.is_unspecified()
    }

    fn reachable(self) -> Self {
        if self.is_unspecified() { Self::LOCALHOST } else { self }
    }
}

impl Ip for std::net::Ipv6Addr {
    fn is_local(&self) -> bool {
        self.is_loopback() || self.is_unspecified()
    }

    fn reachable(self) -> Self {
        if self.is_unspecified() { Self::LOCALHOST } else { self }
    }
}

/// Resolvers to advertise, at most, per family.
const SERVERS_MAX: usize = 3;

/// What decides about one family.
pub(super) struct DnsInput<'a, A> {
    /// Addresses given with `-D`: advertised as they are.
    pub(super) given: &'a [A],
    /// `-D none`: nothing from resolv.conf is advertised.
    pub(super) none: bool,
    /// `--dns-forward`.
    pub(super) forward: Option<A>,
    /// `--dns-host`.
    pub(super) forward_to: Option<A>,
    /// The host's resolvers.
    pub(super) resolvers: &'a [A],
    /// The guest-visible address that means the host.
    pub(super) host: Option<A>,
}

/// What follows for one family.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DnsPlan<A> {
    /// To advertise.
    pub(super) servers: Vec<A>,
    /// Whose DNS traffic is redirected.
    pub(super) dns_match: Option<A>,
    /// Where to.
    pub(super) dns_host: Option<A>,
    /// `--dns-forward` is without effect: there is no resolver to forward to.
    pub(super) unserved: bool,
}

/// Works out the resolvers of one family.
pub(super) fn plan<A: Ip>(input: &DnsInput<'_, A>) -> DnsPlan<A> {
    // Always derived, whatever `-D` says: redirected queries must go somewhere.
    let first = || input.resolvers.first().map(|a| a.reachable());
    let dns_host = input.forward_to.or_else(first);
    let mut dns_match = input.forward.filter(|_| dns_host.is_some());
    let unserved = input.forward.is_some() && dns_host.is_none();
    let mut servers = Vec::new();
    if !input.given.is_empty() {
        servers.extend_from_slice(input.given);
    } else if !input.none {
        for server in input.resolvers {
            let hidden = server.is_local() || Some(*server) == input.host;
            let shown = if hidden { dns_match.or(input.host) } else { Some(*server) };
            let Some(shown) = shown else { continue };
            if hidden {
                dns_match = Some(shown);
            }
            // Two local stubs are one address to the guest.
            if !servers.contains(&shown) {
                servers.push(shown);
            }
        }
    }
    servers.truncate(SERVERS_MAX);
    DnsPlan { servers, dns_match, dns_host, unserved }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::Ipv4Addr;

    fn ip(s: &str) -> Ipv4Addr {
        s.parse().unwrap()
    }

    struct Case {
        given: &'static str,
        none: bool,
        forward: &'static str,
        forward_to: &'static str,
        resolvers: &'static str,
        host: &'static str,
    }

    const CASE: Case =
        Case { given: "", none: false, forward: "", forward_to: "", resolvers: "", host: "" };

    /// Servers, match and host as one string.
    fn run(case: &Case) -> String {
        let list = |s: &str| s.split_whitespace().map(ip).collect::<Vec<_>>();
        let one = |s: &str| list(s).first().copied();
        let (given, resolvers) = (list(case.given), list(case.resolvers));
        let p = plan(&DnsInput {
            given: &given,
            none: case.none,
            forward: one(case.forward),
            forward_to: one(case.forward_to),
            resolvers: &resolvers,
            host: one(case.host),
        });
        let show = |a: Option<Ipv4Addr>| a.map_or_else(|| "-".to_owned(), |a| a.to_string());
        let servers: Vec<_> = p.servers.iter().map(ToString::to_string).collect();
        let unserved = if p.unserved { " unserved" } else { "" };
        format!("{} {} {}{unserved}", servers.join(","), show(p.dns_match), show(p.dns_host))
    }

    // [NL-12] [NL-14] [ADDR-7]
    #[test]
    fn from_resolv_conf() {
        let r = |resolvers, forward, host| run(&Case { resolvers, forward, host, ..CASE });
        assert_eq!(r("8.8.8.8", "", "10.0.0.1"), "8.8.8.8 - 8.8.8.8");
        // Local stub: the host mapping stands in for it, or the forward address, or nothing.
        assert_eq!(r("127.0.0.53", "", "10.0.0.1"), "10.0.0.1 10.0.0.1 127.0.0.53");
        assert_eq!(r("127.0.0.53", "169.254.1.1", ""), "169.254.1.1 169.254.1.1 127.0.0.53");
        assert_eq!(r("127.0.0.53", "", ""), " - 127.0.0.53");
        assert_eq!(r("127.0.0.53 8.8.8.8", "", ""), "8.8.8.8 - 127.0.0.53");
        // The gateway is the resolver, and also means the host.
        assert_eq!(r("10.0.0.1", "", "10.0.0.1"), "10.0.0.1 10.0.0.1 10.0.0.1");
        assert_eq!(r("10.0.0.1", "169.254.1.1", "10.0.0.1"), "169.254.1.1 169.254.1.1 10.0.0.1");
        // Only the hidden ones are replaced, and only once.
        assert_eq!(
            r("127.0.0.1 127.0.0.53 8.8.8.8", "", "10.0.0.1"),
            "10.0.0.1,8.8.8.8 10.0.0.1 127.0.0.1"
        );
        assert_eq!(r("0.0.0.0", "", "10.0.0.1"), "10.0.0.1 10.0.0.1 127.0.0.1");
    }

    #[test]
    fn three_at_most() {
        let c = Case { resolvers: "1.1.1.1 2.2.2.2 3.3.3.3 4.4.4.4 5.5.5.5", ..CASE };
        assert_eq!(run(&c), "1.1.1.1,2.2.2.2,3.3.3.3 - 1.1.1.1");
    }

    // [ADDR-7] -D is the guest's view; forwarding still finds the host's resolver.
    #[test]
    fn given_addresses() {
        let c = Case {
            given: "127.0.0.1",
            forward: "169.254.1.1",
            resolvers: "8.8.8.8",
            host: "10.0.0.1",
            ..CASE
        };
        assert_eq!(run(&c), "127.0.0.1 169.254.1.1 8.8.8.8");
        let c = Case { none: true, forward: "169.254.1.1", resolvers: "127.0.0.53", ..CASE };
        assert_eq!(run(&c), " 169.254.1.1 127.0.0.53");
    }

    // [ADDR-7] Without any resolver of the family there is nothing to translate to.
    #[test]
    fn no_resolver() {
        let c = Case { forward: "169.254.1.1", host: "10.0.0.1", ..CASE };
        assert_eq!(run(&c), " - - unserved");
        assert_eq!(run(&CASE), " - -");
    }

    // [ADDR-7] --dns-host goes before resolv.conf, and does without it.
    #[test]
    fn given_resolver() {
        let c = Case { forward: "169.254.1.1", forward_to: "127.0.0.1", ..CASE };
        assert_eq!(run(&c), " 169.254.1.1 127.0.0.1");
        let c = Case { resolvers: "8.8.8.8", ..c };
        assert_eq!(run(&c), "8.8.8.8 169.254.1.1 127.0.0.1");
        let c = Case { resolvers: "127.0.0.53", forward: "", host: "10.0.0.1", ..c };
        assert_eq!(run(&c), "10.0.0.1 10.0.0.1 127.0.0.1");
    }
}
