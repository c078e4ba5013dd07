//! The port specifiers of `-t`, `-u`, `-T` and `-U`, from text to rules [CLI-6].
//!
//! `grammar.rs` reads a specifier, `fault.rs` says why it cannot be read, `expand.rs` works out which
//! ports it means, and this module checks the outcome against the address families and against earlier rules.

mod expand;
mod fault;
mod grammar;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use self::grammar::{Chunk, Fault, Listen, Range, Spec};
use crate::config::{ForwardSpec, PortRule, Proto};

/// Most rules in one table, of either protocol.
pub(super) const MAX_RULES: usize = 255;

/// Most listening sockets in one table.
pub(super) const MAX_PORTS: usize = 327_680;

/// The ports the kernel hands out, where it does not tell (RFC 6335, 6).
const EPHEMERAL: (u16, u16) = (49_152, 65_535);

/// Which way connections go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the host to the guest.
    In,
    /// From the namespace to the host; they are listened for on its loopback interface alone.
    Out,
}

/// What a specifier means depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    /// IPv4 is enabled.
    pub(super) v4: bool,
    /// IPv6 is enabled.
    pub(super) v6: bool,
    /// There is another side to look at.
    pub(super) auto: bool,
    /// The ports the kernel hands out, inclusive.
    pub(super) ephemeral: Option<(u16, u16)>,
}

/// Adds one specifier to what the same option said before.
pub(super) fn add(
    text: &str,
    proto: Proto,
    direction: Direction,
    context: Context,
    into: &mut ForwardSpec,
) -> Result<(), String> {
    let (listen, chunks) = match Spec::parse(text).map_err(fault)? {
        Spec::Ports { listen, chunks } => (listen, chunks),
        Spec::None => {
            return match into.rules.first() {
                None => Ok(()),
                Some(rule) => Err(format!("'none' conflicts with earlier rule '{}'", quoted(rule))),
            };
        }
    };
    if chunks.contains(&Chunk::Auto) && !context.auto {
        return Err(format!("port specifier '{text}': 'auto' is for pasta mode only"));
    }
    let listen = match direction {
        Direction::In => listen,
        Direction::Out if listen.is_some() => {
            return Err(format!(
                "invalid port specifier '{text}': listening address not allowed here"
            ));
        }
        Direction::Out => Some(Listen { addr: None, interface: Some("lo".to_string()) }),
    };
    let (first, last) = context.ephemeral.unwrap_or(EPHEMERAL);
    let rules = expand::expand(proto, listen, &chunks, Range { first, last })
        .map_err(|why| format!("invalid port specifier '{text}': {why}"))?;
    for mut rule in rules {
        rule.listen = normalise(&rule, context)?;
        check_target(&rule, direction)?;
        if let Some(other) = into.rules.iter().find(|other| other.conflicts(&rule)) {
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
    let ports: usize = rules().map(PortRule::count).sum();
    if rules().count() > MAX_RULES {
        return Err(format!("too many forwarding rules: must be at most {MAX_RULES}"));
    }
    if ports > MAX_PORTS {
        return Err(format!("too many forwarded ports: must be at most {MAX_PORTS}"));
    }
    Ok(())
}

fn fault(fault: Fault<'_>) -> String {
    match fault {
        Fault::Syntax(part) => {
            format!("invalid port specifier '{part}': {}", fault::broken_rule(part))
        }
        Fault::Interface(message) => message,
    }
}

/// The listening address for the enabled families: with only one of them, its own wildcard
/// stands for "all" [CLI-7].
fn normalise(rule: &PortRule, context: Context) -> Result<Option<IpAddr>, String> {
    let Context { v4, v6, .. } = context;
    let enabled = match rule.listen {
        None if v4 && v6 => return Ok(None),
        None if v4 => return Ok(Some(Ipv4Addr::UNSPECIFIED.into())),
        None => return Ok(Some(Ipv6Addr::UNSPECIFIED.into())),
        Some(IpAddr::V4(_)) => v4,
        Some(IpAddr::V6(_)) => v6,
    };
    let family = if rule.listen.is_some_and(|a| a.is_ipv4()) { "IPv4" } else { "IPv6" };
    if enabled {
        Ok(rule.listen)
    } else {
        Err(format!("forwarding rule '{}': {family} is not enabled", quoted(rule)))
    }
}

/// A target address is of the family that is listened on, and of somebody [FWD-11].
fn check_target(rule: &PortRule, direction: Direction) -> Result<(), String> {
    let Some(target) = rule.target else { return Ok(()) };
    let wildcard = if target.is_ipv4() { "0.0.0.0" } else { "[::]" };
    let why = match (target, rule.listen) {
        _ if direction == Direction::Out => "target address not allowed here".to_string(),
        (IpAddr::V4(a), _) if a.is_broadcast() => "target is the broadcast address".to_string(),
        _ if target.is_multicast() => "target is a multicast address".to_string(),
        (_, None) => {
            format!("a target address needs one family to listen on: write '{wildcard}/...'")
        }
        (_, Some(listen)) if listen.is_ipv4() != target.is_ipv4() => {
            "listening and target address are of different families".to_string()
        }
        _ => return Ok(()),
    };
    Err(format!("forwarding rule '{}': {why}", quoted(rule)))
}

/// The rule as listed at start, without what pads that line.
fn quoted(rule: &PortRule) -> String {
    rule.to_string().trim_end().to_string()
}
