//! What an event is about, packed into the machine word that epoll hands back.
//!
//! On 64-bit machines: kind 8, generation 23, side 1, index 32 bits. On 32-bit machines: kind 4,
//! generation 10, side 1, index 17 bits.

use mio::Token;

use crate::flow::{FlowId, GENERATION_BITS, MAX_FLOWS};

#[cfg(target_pointer_width = "64")]
const INDEX_BITS: u32 = 32;
#[cfg(target_pointer_width = "32")]
const INDEX_BITS: u32 = 17;

const SIDE_SHIFT: u32 = INDEX_BITS;
const GENERATION_SHIFT: u32 = INDEX_BITS + 1;
const KIND_SHIFT: u32 = GENERATION_SHIFT + GENERATION_BITS;

const _: () = assert!(MAX_FLOWS < 1usize.wrapping_shl(INDEX_BITS).wrapping_sub(1));
const _: () = assert!(KIND_SHIFT + 4 <= usize::BITS);

/// Where an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The guest's link, by its queue; any other number is for what was left over.
    Link(u8),
    /// Where guests connect.
    Guest,
    /// Signals.
    Signal,
    /// The command we started, or the process whose namespace we serve.
    Child,
    /// The namespace's path.
    Netns,
    /// The host's network.
    Network,
    /// A listening socket, by its place in the table of listeners.
    Listener(u32),
    /// A flow's socket; `side` is true for the second socket of a spliced flow.
    Flow {
        /// The flow.
        id: FlowId,
        /// Which of its sockets.
        side: bool,
    },
}

/// Packs a source.
pub fn encode(source: Source) -> Token {
    let (kind, index, generation, side) = match source {
        Source::Link(n) => (0, u32::from(n), 0, false),
        Source::Signal => (1, 0, 0, false),
        Source::Child => (2, 0, 0, false),
        Source::Netns => (3, 0, 0, false),
        Source::Listener(n) => (4, n, 0, false),
        Source::Guest => (6, 0, 0, false),
        Source::Network => (7, 0, 0, false),
        Source::Flow { id, side } => (5, id.index, id.generation, side),
    };
    Token(
        (kind << KIND_SHIFT)
            | ((generation as usize) << GENERATION_SHIFT)
            | (usize::from(side) << SIDE_SHIFT)
            | index as usize,
    )
}

/// Unpacks a token; `None` for one that [`encode`] did not make.
pub fn source(token: Token) -> Option<Source> {
    let bits = |shift: u32, width: u32| (token.0 >> shift) & (1usize.wrapping_shl(width) - 1);
    let index = u32::try_from(bits(0, INDEX_BITS)).ok()?;
    Some(match token.0 >> KIND_SHIFT {
        0 => Source::Link(u8::try_from(index).ok()?),
        1 => Source::Signal,
        2 => Source::Child,
        3 => Source::Netns,
        4 => Source::Listener(index),
        5 => Source::Flow {
            id: FlowId {
                index,
                generation: u32::try_from(bits(GENERATION_SHIFT, GENERATION_BITS)).ok()?,
            },
            side: bits(SIDE_SHIFT, 1) == 1,
        },
        6 => Source::Guest,
        7 => Source::Network,
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip(
            kind in 0..8u8,
            index in 0..MAX_FLOWS as u32,
            generation in 0..1u32 << GENERATION_BITS,
            side: bool,
        ) {
            let s = match kind {
                0 => Source::Link(index as u8),
                1 => Source::Signal,
                2 => Source::Child,
                3 => Source::Netns,
                4 => Source::Listener(index),
                6 => Source::Guest,
                7 => Source::Network,
                _ => Source::Flow { id: FlowId { index, generation }, side },
            };
            prop_assert_eq!(source(encode(s)), Some(s));
        }

        #[test]
        fn any_token_is_safe(t: usize) {
            let _ = source(Token(t));
        }
    }
}
