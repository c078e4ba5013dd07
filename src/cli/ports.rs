//! The port specifiers of `-t`, `-u`, `-T` and `-U` [CLI-6] [PORT-1].
//!
//! ```text
//! spec   = "none" | [ listen "/" ] chunk { "," chunk }
//! listen = [ address | "*" ] [ "%" ifname ]        IPv6 bracketed or not
//! chunk  = range [ ":" range ]                     both of the same length
//! range  = port [ "-" port ]
//! ```
//!
//! The rest of the grammar (`all`, `auto`, `~` exclusions, target addresses) is recognised and
//! refused by name. A first `/` ends a listen part only if what precedes it is one; so in
//! `8080:192.0.2.1/80` it belongs to a target.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::values;
use crate::config::{ForwardSpec, PortRule, Proto};

/// Most rules in one table, of either protocol.
pub(super) const MAX_RULES: usize = 255;

/// Most listening sockets in one table.
pub(super) const MAX_PORTS: usize = 327_680;

/// Which way connections go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the host to the guest.
    In,
    /// From the namespace to the host; no listening address can be chosen.
    Out,
}

/// The enabled address families.
#[derive(Clone, Copy, Debug)]
pub(super) struct Families {
    pub(super) v4: bool,
    pub(super) v6: bool,
}

/// Adds one specifier to what the same option said before.
pub(super) fn add(
    spec: &str,
    proto: Proto,
    direction: Direction,
    families: Families,
    into: &mut ForwardSpec,
) -> Result<(), String> {
    if spec == "none" {
        return match into.rules.first() {
            None => Ok(()),
            Some(rule) => Err(format!("'none' conflicts with earlier rule '{}'", quoted(rule))),
        };
    }
    for mut rule in parse(spec, proto, direction)? {
        rule.listen = normalise(&rule, families)?;
        if let Some(other) = into.rules.iter().find(|other| conflict(other, &rule)) {
            return Err(format!(
                "forwarding rule '{}' conflicts with '{}'",
                quoted(&rule),
                quoted(other)
            ));
        }
        into.rules.push(rule);
    }
    Ok(())
}

/// Checks the size of a table of both protocols.
pub(super) fn check_limits(table: [&ForwardSpec; 2]) -> Result<(), String> {
    let rules = || table.iter().flat_map(|spec| spec.rules.iter());
    let ports: usize = rules().map(|r| usize::from(r.last - r.first) + 1).sum();
    if rules().count() > MAX_RULES {
        return Err(format!("too many forwarding rules: must be at most {MAX_RULES}"));
    }
    if ports > MAX_PORTS {
        return Err(format!("too many forwarded ports: must be at most {MAX_PORTS}"));
    }
    Ok(())
}

fn parse(spec: &str, proto: Proto, direction: Direction) -> Result<Vec<PortRule>, String> {
    let (listen, list) = match spec.split_once('/').map(|(l, rest)| (listen(l), rest)) {
        Some((Some(listen), rest)) => (Some(listen?), rest),
        _ => (None, spec),
    };
    if listen.is_some() && direction == Direction::Out {
        return Err(format!("invalid port specifier '{spec}': listening address not allowed here"));
    }
    list.split(',').map(|chunk| rule(chunk, list, proto, listen.flatten())).collect()
}

/// The address of a listen part, `None` inside for a wildcard; `None` if it is not a listen part.
fn listen(text: &str) -> Option<Result<Option<IpAddr>, String>> {
    let (addr, interface) = match text.split_once('%') {
        Some((addr, interface)) => (addr, Some(interface)),
        None => (text, None),
    };
    let addr = match addr {
        "" | "*" => None,
        addr => Some(values::address(addr)?),
    };
    match interface {
        None => Some(Ok(addr)),
        Some("") => None,
        Some(name) => Some(Err(values::ifname(name).map_or_else(
            |error| error,
            |name| format!("listening on an interface ('%{name}') is not supported yet"),
        ))),
    }
}

fn rule(chunk: &str, list: &str, proto: Proto, listen: Option<IpAddr>) -> Result<PortRule, String> {
    let invalid = || format!("invalid port specifier '{list}'");
    if let Some(excluded) = chunk.strip_prefix('~') {
        range(excluded).ok_or_else(invalid)?;
        return Err(format!("port exclusion '{chunk}' is not supported yet"));
    }
    let (from, to) = match chunk.split_once(':') {
        Some((from, to)) => (from, Some(to)),
        None => (chunk, None),
    };
    let has_target_address = to.is_some_and(is_target_address);
    if from == "all" && (to.is_none() || has_target_address) || chunk == "auto" {
        return Err(format!("port specifier '{chunk}' is not supported yet"));
    }
    let (first, last) = range(from).ok_or_else(invalid)?;
    if has_target_address {
        return Err(format!("target address in '{chunk}' is not supported yet"));
    }
    let (to_first, to_last) = match to {
        Some(to) => range(to).ok_or_else(invalid)?,
        None => (first, last),
    };
    if to_last - to_first != last - first {
        return Err(invalid());
    }
    if first == 0 {
        return Err(format!("invalid port specifier '{list}': cannot map from port 0"));
    }
    if to_first == 0 {
        return Err(format!("invalid port specifier '{list}': cannot map to port 0"));
    }
    Ok(PortRule { proto, listen, first, last, to_first })
}

/// `address` or `address/range`.
fn is_target_address(text: &str) -> bool {
    match text.split_once('/') {
        Some((addr, ports)) => values::address(addr).is_some() && range(ports).is_some(),
        None => values::address(text).is_some(),
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text| values::decimal(text).and_then(|n| u16::try_from(n).ok());
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some((first, last))
}

/// The listening address for the enabled families: with only one of them, its own wildcard
/// stands for "all" [CLI-7].
fn normalise(rule: &PortRule, families: Families) -> Result<Option<IpAddr>, String> {
    let enabled = match rule.listen {
        None if families.v4 && families.v6 => return Ok(None),
        None if families.v4 => return Ok(Some(Ipv4Addr::UNSPECIFIED.into())),
        None => return Ok(Some(Ipv6Addr::UNSPECIFIED.into())),
        Some(IpAddr::V4(_)) => families.v4,
        Some(IpAddr::V6(_)) => families.v6,
    };
    let family = if rule.listen.is_some_and(|a| a.is_ipv4()) { "IPv4" } else { "IPv6" };
    if enabled {
        Ok(rule.listen)
    } else {
        Err(format!("forwarding rule '{}': {family} is not enabled", quoted(rule)))
    }
}

/// Two rules that would listen on the same port of the same address [FWD-12].
fn conflict(a: &PortRule, b: &PortRule) -> bool {
    a.proto == b.proto
        && a.first <= b.last
        && b.first <= a.last
        && match (a.listen, b.listen) {
            (None, _) | (_, None) => true,
            (Some(a), Some(b)) => {
                a == b || a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified())
            }
        }
}

/// The rule as listed at start, without what pads that line.
fn quoted(rule: &PortRule) -> String {
    rule.to_string().trim_end().to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const BOTH: Families = Families { v4: true, v6: true };

    fn rules(specs: &[&str]) -> Result<Vec<String>, String> {
        let mut into = ForwardSpec::default();
        for spec in specs {
            add(spec, Proto::Tcp, Direction::In, BOTH, &mut into)?;
        }
        Ok(into.rules.iter().map(quoted).collect())
    }

    // [PORT-1] [CLI-6] [COMPAT-17] [COMPAT-18]
    #[test]
    fn accepted() {
        for (spec, expected) in [
            ("none", &[][..]),
            ("22", &["TCP [*]:22  =>  22"][..]),
            ("+22", &["TCP [*]:22  =>  22"]),
            (" 22", &["TCP [*]:22  =>  22"]),
            ("8080:80", &["TCP [*]:8080  =>  80"]),
            ("8080-8080:80-80", &["TCP [*]:8080  =>  80"]),
            ("8000-8010", &["TCP [*]:8000-8010  =>  8000-8010"]),
            ("9000-9002:9100-9102", &["TCP [*]:9000-9002  =>  9100-9102"]),
            ("1-65535", &["TCP [*]:1-65535  =>  1-65535"]),
            ("22,80:8080", &["TCP [*]:22  =>  22", "TCP [*]:80  =>  8080"]),
            ("127.0.0.1/8080", &["TCP [127.0.0.1]:8080  =>  8080"]),
            ("[127.0.0.1]/2280", &["TCP [127.0.0.1]:2280  =>  2280"]),
            ("::ffff:127.0.0.1/2280", &["TCP [127.0.0.1]:2280  =>  2280"]),
            ("[::1]/8080", &["TCP [::1]:8080  =>  8080"]),
            ("::1/8080:80", &["TCP [::1]:8080  =>  80"]),
            ("::/80", &["TCP [::]:80  =>  80"]),
            ("fd00::2/80", &["TCP [fd00::2]:80  =>  80"]),
            ("*/8080", &["TCP [*]:8080  =>  8080"]),
            ("/2280", &["TCP [*]:2280  =>  2280"]),
        ] {
            let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
            assert_eq!(rules(&[spec]), Ok(expected), "{spec:?}");
        }
    }

    // [PORT-3]
    #[test]
    fn invalid() {
        for (spec, quoted) in [
            ("", ""),
            ("192.0.2.10/", ""),
            ("22-", "22-"),
            ("127.0.0.1/22-", "22-"),
            ("2280x", "2280x"),
            ("2280,", "2280,"),
            (",2280", ",2280"),
            ("22:22:22", "22:22:22"),
            ("none,22", "none,22"),
            ("22,none", "22,none"),
            ("127.0.0.1/none", "none"),
            ("5-3", "5-3"),
            ("65536", "65536"),
            ("22:65536", "22:65536"),
            ("22-23:65535-65536", "22-23:65535-65536"),
            ("[*]/2280", "[*]/2280"),
            ("%/22", "%/22"),
            ("22:23-24", "22:23-24"),
            ("22-23:65535", "22-23:65535"),
            ("10001,192.0.2.2/10002", "10001,192.0.2.2/10002"),
            ("8080/tcp", "8080/tcp"),
            ("22:", "22:"),
            ("-22", "-22"),
            ("~", "~"),
            ("all:80", "all:80"),
        ] {
            assert_eq!(rules(&[spec]), Err(format!("invalid port specifier '{quoted}'")));
        }
        for (spec, text) in [
            ("0", "invalid port specifier '0': cannot map from port 0"),
            ("0-5", "invalid port specifier '0-5': cannot map from port 0"),
            ("22:0", "invalid port specifier '22:0': cannot map to port 0"),
            ("%./22", "invalid interface name '.': not a name an interface can have"),
            (
                "%abcdefghijklmnop/22",
                "invalid interface name 'abcdefghijklmnop': must be 1 to 15 bytes",
            ),
        ] {
            assert_eq!(rules(&[spec]), Err(text.to_string()));
        }
    }

    #[test]
    fn not_yet() {
        for (spec, text) in [
            ("all", "port specifier 'all' is not supported yet"),
            ("all:192.0.2.1", "port specifier 'all:192.0.2.1' is not supported yet"),
            ("22,auto", "port specifier 'auto' is not supported yet"),
            ("~22-25", "port exclusion '~22-25' is not supported yet"),
            ("80:192.0.2.5", "target address in '80:192.0.2.5' is not supported yet"),
            ("80:192.0.2.5/81", "target address in '80:192.0.2.5/81' is not supported yet"),
            ("80:[fd00::2]/81", "target address in '80:[fd00::2]/81' is not supported yet"),
            ("%eth0/80", "listening on an interface ('%eth0') is not supported yet"),
            ("fd00::2%eth0/80", "listening on an interface ('%eth0') is not supported yet"),
        ] {
            assert_eq!(rules(&[spec]), Err(text.to_string()));
        }
    }

    // [FWD-12] [PORT-3] Overlaps quote both rules; separate addresses are no overlap.
    #[test]
    fn conflicts() {
        for (specs, a, b) in [
            (&["2280,2280"][..], "[*]:2280  =>  2280", "[*]:2280  =>  2280"),
            (&["80", "127.0.0.1/80"], "[127.0.0.1]:80  =>  80", "[*]:80  =>  80"),
            (&["0.0.0.0/80:1", "127.0.0.1/80"], "[127.0.0.1]:80  =>  80", "[0.0.0.0]:80  =>  1"),
            (&["[::]/80", "::1/80"], "[::1]:80  =>  80", "[::]:80  =>  80"),
            (&["10-20", "15"], "[*]:15  =>  15", "[*]:10-20  =>  10-20"),
            (&["20", "10-20"], "[*]:10-20  =>  10-20", "[*]:20  =>  20"),
        ] {
            let text = format!("forwarding rule 'TCP {a}' conflicts with 'TCP {b}'");
            assert_eq!(rules(specs), Err(text));
        }
        for specs in [
            &["0.0.0.0/80", "[::]/80"][..],
            &["127.0.0.1/80", "127.0.0.2/80"],
            &["10-20", "21"],
            &["none", "80"],
        ] {
            assert!(rules(specs).is_ok(), "{specs:?}");
        }
        assert_eq!(
            rules(&["80", "none"]),
            Err("'none' conflicts with earlier rule 'TCP [*]:80  =>  80'".to_string())
        );
    }

    // [CLI-6] `-T` and `-U` take no listening address, not even an empty one.
    #[test]
    fn outbound() {
        for spec in ["/2280", "*/2280", "127.0.0.1/2280"] {
            let mut into = ForwardSpec::default();
            let error = add(spec, Proto::Udp, Direction::Out, BOTH, &mut into).unwrap_err();
            assert!(error.contains("listening address not allowed"), "{error}");
        }
        let mut into = ForwardSpec::default();
        add("80:81", Proto::Udp, Direction::Out, BOTH, &mut into).unwrap();
        assert_eq!(quoted(&into.rules[0]), "UDP [*]:80  =>  81");
    }

    // [CLI-7] [COMPAT-20] A single family has its own wildcard; the other one's address is refused.
    #[test]
    fn families() {
        let one = |spec, v4| {
            let mut into = ForwardSpec::default();
            add(spec, Proto::Tcp, Direction::In, Families { v4, v6: !v4 }, &mut into)
                .map(|()| quoted(&into.rules[0]))
        };
        assert_eq!(one("80", true), Ok("TCP [0.0.0.0]:80  =>  80".to_string()));
        assert_eq!(one("*/80", false), Ok("TCP [::]:80  =>  80".to_string()));
        assert_eq!(
            one("::1/80", true),
            Err("forwarding rule 'TCP [::1]:80  =>  80': IPv6 is not enabled".to_string())
        );
        assert_eq!(
            one("127.0.0.1/80", false),
            Err("forwarding rule 'TCP [127.0.0.1]:80  =>  80': IPv4 is not enabled".to_string())
        );
    }

    // [CLI-7] Table limits.
    #[test]
    fn limits() {
        let filled = |specs: Vec<String>| {
            let mut into = ForwardSpec::default();
            for spec in specs {
                add(&spec, Proto::Tcp, Direction::In, BOTH, &mut into).unwrap();
            }
            into
        };
        let most = filled((1..=255).map(|p| p.to_string()).collect());
        let one = filled(vec!["1000".to_string()]);
        assert!(check_limits([&most, &ForwardSpec::default()]).is_ok());
        assert!(check_limits([&most, &one]).unwrap_err().contains("255"));
        let all = |n| filled((1..=n).map(|i| format!("127.0.0.{i}/1-65535")).collect());
        assert!(check_limits([&all(4), &ForwardSpec::default()]).is_ok());
        assert!(check_limits([&all(5), &one]).is_ok());
        assert!(check_limits([&all(6), &one]).unwrap_err().contains("327680"));
    }

    fn direction() -> impl Strategy<Value = Direction> {
        prop_oneof![Just(Direction::In), Just(Direction::Out)]
    }

    proptest! {
        // Nothing a user types makes the parser panic or accept a rule that is not one.
        #[test]
        fn any_text(
            spec in prop_oneof![any::<String>(), "[0-9:,/~%.*\\[\\]a-f +-]{0,24}"],
            direction in direction(),
            v4 in any::<bool>(),
        ) {
            let mut into = ForwardSpec::default();
            let families = Families { v4, v6: !v4 };
            if add(&spec, Proto::Tcp, direction, families, &mut into).is_ok() {
                for rule in &into.rules {
                    prop_assert!(rule.first >= 1 && rule.first <= rule.last && rule.to_first >= 1);
                    prop_assert!(rule.to_first.checked_add(rule.last - rule.first).is_some());
                }
            }
        }

        // [CLI-16] What a rule prints is what was asked for.
        #[test]
        fn printed_rule_matches_the_specifier(
            first in 1u16..=65535,
            len in 0u16..100,
            to in 1u16..=65535,
            addr in any::<Option<IpAddr>>(),
        ) {
            let (Some(last), Some(to_last)) = (first.checked_add(len), to.checked_add(len)) else {
                return Ok(());
            };
            let (listen, shown) = match addr {
                Some(addr) => (format!("[{addr}]/"), addr.to_canonical().to_string()),
                None => (String::new(), "*".to_string()),
            };
            let printed = rules(&[&format!("{listen}{first}-{last}:{to}-{to_last}")]).unwrap();
            let expected = if len == 0 {
                format!("TCP [{shown}]:{first}  =>  {to}")
            } else {
                format!("TCP [{shown}]:{first}-{last}  =>  {to}-{to_last}")
            };
            prop_assert_eq!(printed, vec![expected]);
        }
    }
}
