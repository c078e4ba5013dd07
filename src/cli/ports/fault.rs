//! What is wrong with a port specifier that does not follow the grammar, in words.
//!
//! The grammar only says yes or no, since it tries alternatives. Here is looked for what was most
//! likely meant, and for the rule that it breaks.

use super::grammar::{chunk, range};
use crate::cli::values;

/// The rule that the first bad part of a list of ports breaks.
pub(super) fn broken_rule(list: &str) -> &'static str {
    let Some(bad) = list.split(',').find(|text| chunk(text).is_none()) else {
        // Not reached with a list that was refused; true of any other.
        return "must be ports and ranges, separated by commas";
    };
    if list.is_empty() {
        return "no ports are named";
    }
    if bad.is_empty() {
        return "a part between commas is empty";
    }
    if bad == "none" {
        return "'none' must stand alone";
    }
    if let Some(excluded) = bad.strip_prefix('~') {
        return broken_range(excluded);
    }
    if bad.contains('/') && bad.split_once(':').is_none_or(|(from, _)| from.contains('/')) {
        return "must be [ADDRESS][%INTERFACE]/PORTS, with one address for all ports";
    }
    let (from, to) = match bad.split_once(':') {
        Some((from, to)) => (from, Some(to)),
        None => (bad, None),
    };
    match (from, to) {
        ("all", _) => "'all' can have another address, but no other ports",
        ("auto", _) => "'auto' can have no target",
        (from, _) if range(from).is_none() => broken_range(from),
        (_, None) => broken_range(from),
        (_, Some(to)) => broken_target(to),
    }
}

fn broken_target(to: &str) -> &'static str {
    let ports = match to.split_once('/') {
        Some((addr, _)) if values::address(addr).is_none() => {
            return "a target must be PORTS, ADDRESS or ADDRESS/PORTS";
        }
        Some((_, ports)) => ports,
        None if to.contains(':') => return "a target must be PORTS, ADDRESS or ADDRESS/PORTS",
        None => to,
    };
    if range(ports).is_some() { "ranges must have the same length" } else { broken_range(ports) }
}

fn broken_range(text: &str) -> &'static str {
    let number = |text: &str| values::decimal(text).filter(|_| !text.is_empty());
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first.max(last) > u64::from(u16::MAX) => {
            "a port must be 1 to 65535"
        }
        (Some(first), Some(last)) if first > last => "a range must begin with its lowest port",
        _ => "a port must be a decimal number, a range two of them with '-' between",
    }
}
