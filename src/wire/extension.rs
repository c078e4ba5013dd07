//! IPv6 extension headers (RFC 8200, 4), on the way to the transport header [L2-6].

use super::ether::{ParseError, proto};

/// Most extension headers of a packet. Senders need three or four; each costs us a look.
const MOST: usize = 8;

/// Length of a fragment header.
pub(super) const FRAGMENT_LEN: usize = 8;

/// "Next header" of what we have a name for.
pub(super) mod next {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    /// Fragment header (RFC 8200, 4.5).
    pub(in crate::wire) const FRAGMENT: u8 = 44;
    pub(super) const AUTH: u8 = 51;
    pub(super) const DESTINATION: u8 = 60;
    pub(super) const MOBILITY: u8 = 135;
    pub(super) const HIP: u8 = 139;
    pub(super) const SHIM6: u8 = 140;
}

/// What a chain of headers leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chain<'a> {
    /// The transport part.
    Transport(u8, &'a [u8]),
    /// A part of something longer.
    Fragment(Part<'a>),
}

/// A fragment header, and what is behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    /// The first header of the fragmentable part.
    pub(super) next: u8,
    /// Its place, in bytes.
    pub(super) offset: usize,
    /// It is not the last one.
    pub(super) more: bool,
    /// Identification.
    pub(super) id: u32,
    /// Its part.
    pub(super) data: &'a [u8],
}

/// Walks the headers in `data`, of which `next` names the first.
///
/// Options are not looked at: they are for others on the way, or experiments. What may not be
/// skipped is an error: a route that is not at its end, hop-by-hop options that are not the first
/// header, a second fragment header.
pub(super) fn walk(mut next: u8, mut data: &[u8]) -> Result<Chain<'_>, ParseError> {
    let mut fragmented = false;
    for n in 0..=MOST {
        let length = |unit: usize, more: usize| {
            let length = *data.get(1).ok_or(ParseError::Truncated)?;
            Ok(usize::from(length).saturating_add(more).saturating_mul(unit))
        };
        let len = match next {
            next::HOP_BY_HOP if n > 0 => return Err(ParseError::Extension),
            next::ROUTING if *data.get(3).ok_or(ParseError::Truncated)? != 0 => {
                return Err(ParseError::Extension);
            }
            next::HOP_BY_HOP
            | next::ROUTING
            | next::DESTINATION
            | next::MOBILITY
            | next::HIP
            | next::SHIM6 => length(8, 1)?,
            next::AUTH => length(4, 2)?,
            next::FRAGMENT if fragmented => return Err(ParseError::Extension),
            next::FRAGMENT => {
                let (head, rest) =
                    data.split_first_chunk::<FRAGMENT_LEN>().ok_or(ParseError::Truncated)?;
                let [first, _, o0, o1, i0, i1, i2, i3] = *head;
                let word = u16::from_be_bytes([o0, o1]);
                let (offset, more) = (usize::from(word & 0xfff8), word & 1 != 0);
                // An atomic fragment is a whole packet (RFC 6946).
                if offset != 0 || more {
                    let id = u32::from_be_bytes([i0, i1, i2, i3]);
                    return Ok(Chain::Fragment(Part { next: first, offset, more, id, data: rest }));
                }
                fragmented = true;
                FRAGMENT_LEN
            }
            transport => return Ok(Chain::Transport(transport, data)),
        };
        next = *data.first().ok_or(ParseError::Truncated)?;
        data = data.get(len..).ok_or(ParseError::Truncated)?;
    }
    Err(ParseError::Extension)
}

/// Walks the headers of a whole fragmentable part, in which there is no other fragment header.
pub(super) fn walk_whole(next: u8, data: &[u8]) -> Result<(u8, &[u8]), ParseError> {
    match next {
        // What is for every hop cannot be in there.
        next::HOP_BY_HOP | next::FRAGMENT => Err(ParseError::Extension),
        _ => match walk(next, data)? {
            Chain::Transport(protocol, transport) => Ok((protocol, transport)),
            Chain::Fragment(_) => Err(ParseError::Extension),
        },
    }
}

/// True if the first part of something longer has all headers in it, that of the transport
/// included (RFC 7112; RFC 8200, 4.5): otherwise nobody on the way could see what it is.
pub(super) fn is_complete(next: u8, data: &[u8]) -> bool {
    walk_whole(next, data).is_ok_and(|(protocol, transport)| {
        let least = match protocol {
            proto::TCP => 20,
            proto::UDP | proto::ICMPV6 => 8,
            _ => 0,
        };
        transport.len() >= least
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Extension headers, by number and third and fourth byte, then eight bytes of UDP.
    fn chain(headers: &[(u8, [u8; 2])]) -> (u8, Vec<u8>) {
        let mut all = vec![];
        for (n, (_, [a, b])) in headers.iter().enumerate() {
            let next = headers.get(n + 1).map_or(proto::UDP, |h| h.0);
            all.extend([next, 0, *a, *b, 0, 0, 0, 7]);
        }
        all.extend([9; 8]);
        (headers.first().map_or(proto::UDP, |h| h.0), all)
    }

    fn end(headers: &[(u8, [u8; 2])]) -> Result<Chain<'static>, ParseError> {
        let (next, data) = chain(headers);
        walk(next, data.leak())
    }

    // [L2-6] Every kind is skipped, the last one too; lengths count as their documents say.
    #[test]
    fn headers_are_skipped() {
        let udp = Ok(Chain::Transport(proto::UDP, &[9; 8][..]));
        assert_eq!(end(&[]), udp);
        assert_eq!(
            end(&[(0, [1, 4]), (60, [1, 4]), (43, [0, 0]), (44, [0, 0]), (60, [1, 4])]),
            udp
        );
        assert_eq!(end(&[(135, [0, 0]), (139, [0, 0]), (140, [0, 0])]), udp);
        let long = [&[17, 1, 5, 2][..], &[0; 12], &[9; 8]].concat();
        assert_eq!(walk(60, &long), udp);
        let auth = [&[17, 4, 0, 0][..], &[0; 20], &[9; 8]].concat();
        assert_eq!(walk(51, &auth), udp);
    }

    // [L2-6] What may not be skipped; and there is a limit.
    #[test]
    fn headers_that_stop_us() {
        let stopped = Err(ParseError::Extension);
        assert_eq!(end(&[(43, [0, 1])]), stopped, "segments left");
        assert_eq!(end(&[(60, [1, 4]), (0, [1, 4])]), stopped, "hop-by-hop is not first");
        assert_eq!(end(&[(44, [0, 0]), (44, [0, 0])]), stopped, "fragmented twice");
        assert!(end(&[(60, [1, 4]); MOST]).is_ok());
        assert_eq!(end(&[(60, [1, 4]); MOST + 1]), stopped);
        assert_eq!(walk(60, &[17]), Err(ParseError::Truncated));
        assert_eq!(walk(60, &[17, 1, 0, 0, 0, 0, 0, 0]), Err(ParseError::Truncated));
        assert_eq!(walk(44, &[17; 7]), Err(ParseError::Truncated));
    }

    // [L2-6] A fragment header, its numbers, and what it is about.
    #[test]
    fn fragment_headers() {
        let Chain::Fragment(part) = end(&[(0, [1, 4]), (44, [0x12, 0x31])]).unwrap() else {
            unreachable!()
        };
        assert_eq!((part.next, part.offset, part.more, part.id), (17, 0x1230, true, 7));
        assert_eq!(part.data, [9; 8]);
        assert!(matches!(end(&[(44, [0, 8])]), Ok(Chain::Fragment(p)) if !p.more && p.offset == 8));
        assert!(matches!(end(&[(44, [0, 1])]), Ok(Chain::Fragment(p)) if p.more && p.offset == 0));
    }

    // [L2-6] The first fragment has to say what the datagram is.
    #[test]
    fn first_fragments_have_all_headers() {
        let (next, data) = chain(&[(60, [1, 4])]);
        assert!(is_complete(next, &data));
        assert!(!is_complete(next, &data[..15]));
        assert!(!is_complete(next, &data[..8]));
        assert!(!is_complete(proto::TCP, &[0; 19]) && is_complete(proto::TCP, &[0; 20]));
        assert!(!is_complete(44, &[17; 16]) && !is_complete(0, &[17; 16]));
        assert!(is_complete(proto::UDP, &[0; 8]) && is_complete(99, &[]));
    }

    proptest! {
        #[test]
        fn never_panics(next: u8, data in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = walk(next, &data);
            let _ = is_complete(next, &data);
        }
    }
}
