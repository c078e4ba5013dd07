//! From a specifier to rules: what its chunks mean together [PORT-2].
//!
//! Exclusions and `auto` count for the whole specifier, wherever they stand. Ranges that are named must open;
//! `all`, and what remains where nothing but exclusions is named, is best effort: every port but
//! those that the kernel itself hands out (listening on them would cost much memory, and take them
//! from others). Where `all` and ranges are both given, a range counts for its ports and `all` for
//! the rest.

use std::net::IpAddr;

use super::grammar::{Chunk, Listen, Range};
use crate::config::{PortRule, Proto};

/// Rules of one specifier, without regard to families.
///
/// # Errors
/// A port 0, as a message without the specifier.
pub(super) fn expand(
    proto: Proto,
    listen: Option<Listen>,
    chunks: &[Chunk],
    ephemeral: Range,
) -> Result<Vec<PortRule>, &'static str> {
    let Listen { addr, interface } = listen.unwrap_or(Listen { addr: None, interface: None });
    let mut taken: Vec<Range> = Vec::new();
    for chunk in chunks {
        if let Chunk::Except(range) = chunk {
            taken.push(*range);
        }
    }
    let auto = chunks.contains(&Chunk::Auto);
    let mut rules = Vec::new();
    let mut push = |piece: Range, target: Option<IpAddr>, to_first: u16, weak: bool| {
        let (interface, Range { first, last }) = (interface.clone(), piece);
        let listen = addr;
        rules.push(PortRule {
            proto,
            listen,
            interface,
            first,
            last,
            target,
            to_first,
            weak,
            auto,
        });
    };
    let mut named = Vec::new();
    for chunk in chunks {
        let &Chunk::Ports { from, addr, to } = chunk else { continue };
        let to = to.unwrap_or(from);
        if from.first == 0 {
            return Err("cannot map from port 0");
        }
        if to.first == 0 {
            return Err("cannot map to port 0");
        }
        for piece in without(from, &taken) {
            let to_first = to.first.saturating_add(piece.first.saturating_sub(from.first));
            push(piece, addr, to_first, false);
        }
        named.push(from);
    }
    let all = chunks.iter().find_map(|chunk| match chunk {
        Chunk::All(target) => Some(*target),
        _ => None,
    });
    if all.is_some() || named.is_empty() {
        taken.append(&mut named);
        taken.push(ephemeral);
        for piece in without(Range { first: 1, last: u16::MAX }, &taken) {
            push(piece, all.flatten(), piece.first, true);
        }
    }
    Ok(rules)
}

/// What is left of `range`, in order.
fn without(range: Range, taken: &[Range]) -> Vec<Range> {
    let mut taken = taken.to_vec();
    taken.sort_by_key(|hole| hole.first);
    let mut left = Vec::new();
    // One past the last port does not fit into 16 bits.
    let mut next = u32::from(range.first);
    for hole in taken {
        if let Ok(first) = u16::try_from(next)
            && let Some(before) = hole.first.checked_sub(1)
            && first <= before.min(range.last)
        {
            left.push(Range { first, last: before.min(range.last) });
        }
        next = next.max(u32::from(hole.last).saturating_add(1));
    }
    if let Ok(first) = u16::try_from(next)
        && first <= range.last
    {
        left.push(Range { first, last: range.last });
    }
    left
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range() -> impl Strategy<Value = Range> {
        (any::<u16>(), any::<u16>()).prop_map(|(a, b)| Range { first: a.min(b), last: a.max(b) })
    }

    proptest! {
        // [PORT-2]
        #[test]
        fn holes_are_cut_out_and_nothing_else(
            whole in range(),
            holes in prop::collection::vec(range(), 0..4),
            port in any::<u16>(),
        ) {
            let left = without(whole, &holes);
            let within = |r: &Range| r.first <= port && port <= r.last;
            let expected = within(&whole) && !holes.iter().any(within);
            prop_assert_eq!(left.iter().filter(|r| within(r)).count(), usize::from(expected));
            prop_assert!(left.windows(2).all(|w| w[0].last < w[1].first));
        }
    }
}
