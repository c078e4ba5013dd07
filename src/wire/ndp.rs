//! Neighbour Discovery message bodies and options (RFC 4861, RFC 8106).
//!
//! Writers of fixed-size options return arrays; writers of variable ones fill a slice and say how
//! much of it they used. Every option is a whole number of 8-byte units, and its length byte
//! counts exactly the units written: a surplus byte after an option would be read as the next
//! option, and an option of length 0 makes receivers discard the whole message.

use std::net::Ipv6Addr;

use super::{Mac, name};

/// Router Solicitation.
pub const ROUTER_SOLICIT: u8 = 133;
/// Router Advertisement.
pub const ROUTER_ADVERT: u8 = 134;
/// Neighbour Solicitation.
pub const NEIGHBOUR_SOLICIT: u8 = 135;
/// Neighbour Advertisement.
pub const NEIGHBOUR_ADVERT: u8 = 136;
/// Redirect.
pub const REDIRECT: u8 = 137;

/// Option: Source Link-layer Address (RFC 4861, 4.6.1).
pub const OPT_SOURCE_LL: u8 = 1;
/// Option: Target Link-layer Address (RFC 4861, 4.6.1).
pub const OPT_TARGET_LL: u8 = 2;
/// Option: Prefix Information (RFC 4861, 4.6.2).
pub const OPT_PREFIX: u8 = 3;
/// Option: MTU (RFC 4861, 4.6.4).
pub const OPT_MTU: u8 = 5;
/// Option: Recursive DNS Server (RFC 8106, 5.1).
pub const OPT_RDNSS: u8 = 25;
/// Option: DNS Search List (RFC 8106, 5.2).
pub const OPT_DNSSL: u8 = 31;

/// Lifetime meaning "for ever" (RFC 4861, 4.6.2; RFC 8106, 5.1), in seconds.
pub const INFINITE: u32 = 0xffff_ffff;

/// Router Advertisement flag: addresses are to be had by DHCPv6 (RFC 4861, 4.2).
pub const RA_MANAGED: u8 = 0x80;

/// Neighbour Advertisement flag: the sender is a router (RFC 4861, 4.4).
pub const NA_ROUTER: u8 = 0x80;
/// Neighbour Advertisement flag: answer to a solicitation.
pub const NA_SOLICITED: u8 = 0x40;
/// Neighbour Advertisement flag: replace a cached link-layer address.
pub const NA_OVERRIDE: u8 = 0x20;

/// The options of a message are not a sequence of non-empty, complete options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadOptions;

/// The body (after type and length) of the first option of `kind`, having checked them all.
///
/// # Errors
///
/// An option has length 0 or runs past the end; RFC 4861, 6.1 and 7.1, has the receiver discard
/// the message.
pub fn find_option(mut options: &[u8], kind: u8) -> Result<Option<&[u8]>, BadOptions> {
    let mut found = None;
    while !options.is_empty() {
        let [this, units, ..] = *options else { return Err(BadOptions) };
        let len = usize::from(units).saturating_mul(8);
        // The two header bytes are inside the option unless its length is 0.
        let (option, rest) = options.split_at_checked(len).ok_or(BadOptions)?;
        let body = option.get(2..).ok_or(BadOptions)?;
        if this == kind && found.is_none() {
            found = Some(body);
        }
        options = rest;
    }
    Ok(found)
}

/// A link-layer address option; `kind` is [`OPT_SOURCE_LL`] or [`OPT_TARGET_LL`].
pub const fn link_layer(kind: u8, mac: Mac) -> [u8; 8] {
    let [a, b, c, d, e, f] = mac.0;
    [kind, 1, a, b, c, d, e, f]
}

/// An MTU option, in bytes.
pub const fn mtu(mtu: u32) -> [u8; 8] {
    let [a, b, c, d] = mtu.to_be_bytes();
    [OPT_MTU, 1, 0, 0, a, b, c, d]
}

/// A Prefix Information option for the /64 that holds `addr`: on-link, autonomous, for ever.
///
/// Bits after the prefix are zero, as RFC 4861, 4.6.2, requires of the sender.
pub fn prefix64(addr: Ipv6Addr) -> [u8; 32] {
    let mut out = [0; 32];
    let head = [OPT_PREFIX, 4, 64, 0xc0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let network = addr.octets();
    // head, 4 reserved bytes, 8 network bytes, 8 zero host bytes
    let bytes = head.iter().chain(&[0; 4]).chain(network.iter().take(8));
    for (to, from) in out.iter_mut().zip(bytes) {
        *to = *from;
    }
    out
}

/// Writes a Recursive DNS Server option and returns its length in bytes.
///
/// `None`, with `out` in an unspecified state, if it does not fit in `out`, there is no server, or
/// there are more than the length byte can count (127).
pub fn rdnss(servers: &[Ipv6Addr], lifetime: u32, out: &mut [u8]) -> Option<usize> {
    let len = servers.len().checked_mul(16)?.checked_add(8)?;
    let option = out.get_mut(..len)?;
    let (head, body) = option.split_first_chunk_mut::<8>()?;
    *head = dns_header(OPT_RDNSS, len, lifetime)?;
    let (slots, _) = body.as_chunks_mut::<16>();
    for (slot, server) in slots.iter_mut().zip(servers) {
        *slot = server.octets();
    }
    (!servers.is_empty()).then_some(len)
}

/// Writes a DNS Search List option and returns its length in bytes.
///
/// Names are written uncompressed (RFC 8106, 5.2; RFC 1035, 3.1) and the last is followed by just
/// the zeros that complete the 8-byte unit. A trailing dot is no label of its own. Names that are
/// not valid, or do not fit in `out` (at most 2040 bytes of it are used), are left out.
///
/// `None`, with `out` in an unspecified state, if no name was written.
pub fn dnssl<S: AsRef<str>>(names: &[S], lifetime: u32, out: &mut [u8]) -> Option<usize> {
    let room = out.len().min(MAX_OPTION) & !7;
    let option = out.get_mut(..room)?;
    let (head, body) = option.split_first_chunk_mut::<8>()?;

    let used = name::write_all(names, body);
    if used == 0 {
        return None;
    }
    let padded = used.checked_next_multiple_of(8)?;
    body.get_mut(used..padded)?.fill(0);
    let len = padded.checked_add(8)?;
    *head = dns_header(OPT_DNSSL, len, lifetime)?;
    Some(len)
}

/// Longest option its length byte can express, in bytes.
const MAX_OPTION: usize = 255 * 8;

/// The first 8 bytes that RDNSS and DNSSL share; `len` is the whole option's, a multiple of 8.
fn dns_header(kind: u8, len: usize, lifetime: u32) -> Option<[u8; 8]> {
    let units = u8::try_from(len >> 3).ok()?;
    let [a, b, c, d] = lifetime.to_be_bytes();
    Some([kind, units, 0, 0, a, b, c, d])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ADDR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 3, 4, 5, 6);

    fn dnssl_of(names: &[&str]) -> Vec<u8> {
        let mut out = [0xaa; 2100];
        let len = dnssl(names, INFINITE, &mut out).unwrap_or(0);
        assert!(out[len.max(2040)..].iter().all(|b| *b == 0xaa), "writes past its room");
        out[..len].to_vec()
    }

    #[test]
    fn fixed_options() {
        assert_eq!(
            link_layer(OPT_SOURCE_LL, Mac::DEFAULT_OURS),
            [1, 1, 0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55]
        );
        assert_eq!(mtu(65520), [5, 1, 0, 0, 0, 0, 0xff, 0xf0]);
    }

    // [NDP-6] Host bits of the advertised prefix are zero.
    #[test]
    fn prefix_has_no_host_bits() {
        let want = [
            3, 4, 64, 0xc0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0x20, 0x01,
            0x0d, 0xb8, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(prefix64(ADDR), want);
    }

    #[test]
    fn rdnss_counts_servers() {
        let mut out = [0xaa; 64];
        assert_eq!(rdnss(&[ADDR, ADDR], INFINITE, &mut out), Some(40));
        assert_eq!(out[..8], [25, 5, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(out[8..24], ADDR.octets());
        assert_eq!(out[24..40], ADDR.octets());
        assert_eq!(out[40], 0xaa);
        assert_eq!(rdnss(&[], INFINITE, &mut out), None);
        assert_eq!(rdnss(&[ADDR; 4], INFINITE, &mut out), None);
        assert_eq!(rdnss(&[ADDR; 128], INFINITE, &mut [0; 4096]), None);
    }

    // [NDP-7] A list that fills its last unit exactly gets no padding at all; others get just
    // enough; a trailing dot adds nothing.
    #[test]
    fn dnssl_padding_is_exact() {
        let exact = *b"\x1f\x02\0\0\xff\xff\xff\xff\x06abcdef\0";
        assert_eq!(dnssl_of(&["abcdef"]), exact);
        assert_eq!(dnssl_of(&["abcdef."]), exact);
        let padded = *b"\x1f\x03\0\0\xff\xff\xff\xff\x07abcdefg\0\0\0\0\0\0\0\0";
        assert_eq!(dnssl_of(&["abcdefg"]), padded);
        let two =
            *b"\x1f\x05\0\0\xff\xff\xff\xff\x01a\x07example\x03org\0\x01b\x07example\x03org\0\0\0";
        assert_eq!(dnssl_of(&["a.example.org", "b.example.org."]), two);
    }

    // [NDP-7] Names that DNS cannot express are left out, and an empty list is no option.
    #[test]
    fn dnssl_skips_invalid_names() {
        let long_label = "x".repeat(64);
        let long_name = ["y".repeat(63).as_str(); 4].join(".");
        let bad = ["", ".", "..", "a..b", ".a", &long_label, &long_name];
        assert_eq!(dnssl_of(&bad), []);
        assert_eq!(dnssl_of(&[bad.as_slice(), &["abcdef"]].concat()), dnssl_of(&["abcdef"]));
        assert_eq!(dnssl_of(&[]), []);
        assert_eq!(dnssl(&["abcdef"], INFINITE, &mut [0; 15]), None);
        assert_eq!(dnssl(&["abcdef"], INFINITE, &mut [0; 16]), Some(16));
    }

    #[test]
    fn finds_options_and_refuses_empty_ones() {
        let options = [1, 1, 1, 2, 3, 4, 5, 6, 5, 1, 0, 0, 0, 0, 5, 0xdc];
        assert_eq!(find_option(&options, OPT_MTU), Ok(Some(&options[10..])));
        assert_eq!(find_option(&options, OPT_TARGET_LL), Ok(None));
        assert_eq!(find_option(&[], OPT_MTU), Ok(None));
        assert_eq!(find_option(&options[..15], OPT_SOURCE_LL), Err(BadOptions));
        assert_eq!(find_option(&[1], OPT_SOURCE_LL), Err(BadOptions));
        assert_eq!(find_option(&[0; 8], OPT_SOURCE_LL), Err(BadOptions));
    }

    proptest! {
        // Whatever the names, the option is one well-formed option and decodes to the valid ones.
        #[test]
        fn dnssl_decodes_to_its_input(
            names in proptest::collection::vec("[a-z]{1,9}(\\.[a-z]{1,9}){0,3}\\.?", 1..7),
        ) {
            let mut out = [0xaa; 512];
            let len = dnssl(&names, 7, &mut out).unwrap();
            let mut body = &find_option(&out[..len], OPT_DNSSL).unwrap().unwrap()[6..];
            prop_assert_eq!(usize::from(out[1]) * 8, len);
            let mut decoded = Vec::new();
            let mut labels: Vec<String> = Vec::new();
            while let Some((n, rest)) = body.split_first() {
                let (label, rest) = rest.split_at((*n).into());
                match *n {
                    0 if labels.is_empty() => {
                        prop_assert!(rest.len() < 7 && rest.iter().all(|b| *b == 0));
                    }
                    0 => decoded.push(std::mem::take(&mut labels).join(".")),
                    _ => labels.push(String::from_utf8(label.to_vec()).unwrap()),
                }
                body = rest;
            }
            let want: Vec<_> = names.iter().map(|n| n.trim_end_matches('.').to_owned()).collect();
            prop_assert_eq!(decoded, want);
        }

        #[test]
        fn dnssl_never_panics(names in proptest::collection::vec(".*", 0..9), room in 0usize..300) {
            if let Some(len) = dnssl(&names, 7, &mut vec![0; room]) {
                prop_assert!(len <= room && len % 8 == 0 && len >= 16);
            }
        }

        #[test]
        fn find_option_never_panics(bytes: Vec<u8>, kind: u8) {
            let _ = find_option(&bytes, kind);
        }
    }
}
