//! DHCP messages (RFC 2131, RFC 2132): reading requests.
//!
//! A [`Message`] is a view of the bytes. Its options may be spread over three areas, the options
//! field itself and, if the Option Overload option says so, the fields for a boot file and a server
//! name, and one option may be cut into several instances of the same code (RFC 3396). Everything
//! is checked once, in [`Message::parse`]; reading an option then cannot fail.

use std::net::Ipv4Addr;

/// Client port.
pub const CLIENT_PORT: u16 = 68;
/// Server and relay port.
pub const SERVER_PORT: u16 = 67;

/// `op`: from a client.
pub const BOOTREQUEST: u8 = 1;
/// `op`: from a server.
pub const BOOTREPLY: u8 = 2;

/// Before the options, with the four bytes that say that options follow.
pub const FIXED_LEN: usize = 240;
/// Where the server name is, and the boot file behind it.
pub const SNAME_AT: usize = 44;
/// Length of the server name.
pub const SNAME_LEN: usize = 64;
/// Where the boot file is.
pub const FILE_AT: usize = 108;
/// Length of the boot file.
pub const FILE_LEN: usize = 128;
/// Longest link-layer address, and so largest `hlen`.
const CHADDR_LEN: u8 = 16;
/// The broadcast flag, in `flags`.
const BROADCAST: u16 = 0x8000;
/// What options begin with (RFC 2132, 2).
const MAGIC: [u8; 4] = [0x63, 0x82, 0x53, 0x63];

/// Values of the message type option (RFC 2132, 9.6).
pub mod kind {
    /// A client looks for a server.
    pub const DISCOVER: u8 = 1;
    /// What a server would give.
    pub const OFFER: u8 = 2;
    /// A client takes an offer, or asks to keep what it has.
    pub const REQUEST: u8 = 3;
    /// A client found the address in use.
    pub const DECLINE: u8 = 4;
    /// A server gives.
    pub const ACK: u8 = 5;
    /// A server refuses.
    pub const NAK: u8 = 6;
    /// A client needs its address no more.
    pub const RELEASE: u8 = 7;
    /// A client that has an address wants to know the rest.
    pub const INFORM: u8 = 8;
}

/// Codes of options.
pub mod option {
    /// One byte of nothing.
    pub const PAD: u8 = 0;
    /// Subnet mask.
    pub const NETMASK: u8 = 1;
    /// Routers.
    pub const ROUTERS: u8 = 3;
    /// Resolvers.
    pub const DNS: u8 = 6;
    /// Host name.
    pub const HOST_NAME: u8 = 12;
    /// MTU of the interface.
    pub const MTU: u8 = 26;
    /// The address that a client asks for.
    pub const REQUESTED_ADDRESS: u8 = 50;
    /// Time of the lease, in seconds.
    pub const LEASE_TIME: u8 = 51;
    /// Which other fields hold options.
    pub const OVERLOAD: u8 = 52;
    /// Message type.
    pub const TYPE: u8 = 53;
    /// Server identifier.
    pub const SERVER: u8 = 54;
    /// Options that a client asks for.
    pub const PARAMETERS: u8 = 55;
    /// Why a request is refused.
    pub const MESSAGE: u8 = 56;
    /// Longest message that a client takes.
    pub const MAX_SIZE: u8 = 57;
    /// Client identifier.
    pub const CLIENT: u8 = 61;
    /// Rapid commit (RFC 4039).
    pub const RAPID_COMMIT: u8 = 80;
    /// Fully qualified domain name of the client (RFC 4702).
    pub const FQDN: u8 = 81;
    /// What a relay wants back (RFC 3046).
    pub const RELAY: u8 = 82;
    /// Search list (RFC 3397).
    pub const SEARCH: u8 = 119;
    /// Classless routes (RFC 3442).
    pub const ROUTES: u8 = 121;
    /// Nothing follows.
    pub const END: u8 = 255;
}

/// A message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    data: &'a [u8],
    fixed: &'a [u8; FIXED_LEN],
    /// [`kind`]; 0 for a client that speaks BOOTP only.
    pub kind: u8,
    areas: [&'a [u8]; 3],
}

impl<'a> Message<'a> {
    /// `None` if it is not a complete message with well-formed options.
    pub fn parse(data: &'a [u8]) -> Option<Self> {
        let fixed = data.first_chunk::<FIXED_LEN>()?;
        let [_, _, hlen, ..] = *fixed;
        if hlen > CHADDR_LEN {
            return None;
        }
        let mut message = Self { data, fixed, kind: 0, areas: [&[]; 3] };
        if !fixed.ends_with(&MAGIC) {
            return Some(message); // BOOTP, with something of its own after the fixed part
        }
        message.areas = [data.get(FIXED_LEN..)?, &[], &[]];
        let overload = message.byte(option::OVERLOAD)?.unwrap_or(0);
        let field = |at: usize, len| data.get(at..)?.get(..len);
        if overload & 1 != 0 {
            message.areas[1] = field(FILE_AT, FILE_LEN)?;
        }
        if overload & 2 != 0 {
            message.areas[2] = field(SNAME_AT, SNAME_LEN)?;
        }
        for area in message.areas {
            if !Options(area).all(|option| option.is_some()) {
                return None;
            }
        }
        message.kind = message.byte(option::TYPE)?.unwrap_or(0);
        Some(message)
    }

    /// The fixed part, up to and with what says that options follow.
    pub fn fixed(&self) -> &'a [u8; FIXED_LEN] {
        self.fixed
    }

    /// Length of the whole.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Never: there is a fixed part.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Who sent it: [`BOOTREQUEST`] or [`BOOTREPLY`].
    pub fn op(&self) -> u8 {
        self.fixed[0]
    }

    /// The client cannot get unicast packets yet.
    pub fn broadcast(&self) -> bool {
        u16::from_be_bytes([self.fixed[10], self.fixed[11]]) & BROADCAST != 0
    }

    /// The address that the client has and uses.
    pub fn ciaddr(&self) -> Ipv4Addr {
        self.address_at(12)
    }

    /// The relay that the message came through.
    pub fn giaddr(&self) -> Ipv4Addr {
        self.address_at(24)
    }

    /// All instances of an option, one after the other (RFC 3396), in `out`; `None` if it is not
    /// there or longer than `out`.
    pub fn option<'o>(&self, code: u8, out: &'o mut [u8]) -> Option<&'o [u8]> {
        let (mut used, mut found) = (0usize, false);
        for (this, value) in self.areas.iter().flat_map(|a| Options(a)).flatten() {
            if this == code {
                found = true;
                let end = used.checked_add(value.len())?;
                out.get_mut(used..end)?.copy_from_slice(value);
                used = end;
            }
        }
        if found { out.get(..used) } else { None }
    }

    /// Whether an option is there.
    pub fn has(&self, code: u8) -> bool {
        self.areas.iter().flat_map(|a| Options(a)).flatten().any(|(this, _)| this == code)
    }

    /// An option that is an address.
    pub fn address(&self, code: u8) -> Option<Ipv4Addr> {
        let mut out = [0; 4];
        let octets = self.option(code, &mut out)?.first_chunk::<4>()?;
        Some((*octets).into())
    }

    /// An option that is a number of two bytes.
    pub fn number(&self, code: u8) -> Option<u16> {
        let mut out = [0; 2];
        self.option(code, &mut out)?.first_chunk::<2>().map(|b| u16::from_be_bytes(*b))
    }

    /// An option of one byte, the last if there are several; `None` if one is malformed, and
    /// `Some(None)` if there is none, or an empty one.
    fn byte(&self, code: u8) -> Option<Option<u8>> {
        let mut found = None;
        for option in self.areas.iter().flat_map(|a| Options(a)) {
            let (this, value) = option?;
            if this == code {
                found = value.first().copied();
            }
        }
        Some(found)
    }

    fn address_at(&self, at: usize) -> Ipv4Addr {
        let octets = self.fixed.get(at..).and_then(|f| f.first_chunk::<4>());
        octets.map_or(Ipv4Addr::UNSPECIFIED, |o| (*o).into())
    }
}

/// The options of one area; the last is `None` if it is cut off.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = Option<(u8, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some((&option::PAD, rest)) = self.0.split_first() {
            self.0 = rest;
        }
        let area = std::mem::take(&mut self.0);
        let (&code, rest) = area.split_first()?;
        if code == option::END {
            return None;
        }
        let option = rest.split_first().and_then(|(len, rest)| {
            let (value, rest) = rest.split_at_checked(usize::from(*len))?;
            self.0 = rest;
            Some((code, value))
        });
        Some(option)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(options: &[u8], file: &[u8], sname: &[u8]) -> Vec<u8> {
        let mut m = vec![0; FIXED_LEN - 4];
        (m[0], m[1], m[2]) = (BOOTREQUEST, 1, 6);
        m[SNAME_AT..][..sname.len()].copy_from_slice(sname);
        m[FILE_AT..][..file.len()].copy_from_slice(file);
        m.extend(MAGIC);
        m.extend(options);
        m
    }

    fn read(m: &[u8], code: u8) -> Option<Vec<u8>> {
        let mut out = [0; 300];
        Message::parse(m).unwrap().option(code, &mut out).map(<[u8]>::to_vec)
    }

    // [DHCP-2] Padding, end, and no end at all.
    #[test]
    fn options() {
        let m = message(&[0, 0, 53, 1, 3, 0, 50, 4, 192, 0, 2, 9, 255, 12, 9], &[], &[]);
        let parsed = Message::parse(&m).unwrap();
        assert_eq!((parsed.kind, parsed.op()), (kind::REQUEST, BOOTREQUEST));
        assert_eq!(parsed.address(50), Some(Ipv4Addr::new(192, 0, 2, 9)));
        assert!(!parsed.has(12) && parsed.has(53));
        assert_eq!(parsed.number(57), None);
        let m = message(&[57, 2, 5, 0xdc, 54, 3, 1, 2, 3], &[], &[]);
        let parsed = Message::parse(&m).unwrap();
        assert_eq!((parsed.kind, parsed.number(57), parsed.address(54)), (0, Some(1500), None));
    }

    // [DHCP-2] Every truncation is refused, or is the same message without its last options.
    #[test]
    fn truncated() {
        let m = message(&[53, 1, 1, 55, 3, 1, 3, 6, 255], &[], &[]);
        for len in 0..m.len() {
            let whole = len == 240 || (len >= 243 && !(244..248).contains(&len));
            assert_eq!(Message::parse(&m[..len]).is_some(), whole, "{len}");
        }
        let mut long_address = m;
        long_address[2] = 17;
        assert!(Message::parse(&long_address).is_none());
    }

    // RFC 2131, 4.1; RFC 3396: other fields hold options, too, in this order, and parts are joined.
    #[test]
    fn overload() {
        let m =
            message(&[53, 1, 1, 12, 1, b'a', 52, 1, 3], &[12, 1, b'b', 255, 9], &[0, 12, 1, b'c']);
        assert_eq!(read(&m, 12).unwrap(), b"abc");
        let m = message(&[12, 1, b'a', 52, 1, 1], &[12, 1, b'b'], &[12, 1, b'c']);
        assert_eq!(read(&m, 12).unwrap(), b"ab");
        let m = message(&[12, 1, b'a', 52, 1, 2], &[12, 1, b'b'], &[12, 1, b'c']);
        assert_eq!(read(&m, 12).unwrap(), b"ac");
        let m = message(&[12, 1, b'a'], &[12, 1, b'b'], &[12, 200]);
        assert_eq!(read(&m, 12).unwrap(), b"a");
        let m = message(&[52, 1, 2], &[], &[12, 200]);
        assert!(Message::parse(&m).is_none());
        let twice = message(
            &[12, 200].iter().chain(&[7; 200]).copied().cycle().take(404).collect::<Vec<_>>(),
            &[],
            &[],
        );
        assert_eq!(read(&twice, 12), None, "longer than there is room for");
    }

    // [DHCP-3] BOOTP, with an area of another kind.
    #[test]
    fn bootp() {
        let mut m = message(&[12, 200], &[], &[]);
        m[239] = 0;
        let parsed = Message::parse(&m).unwrap();
        assert_eq!((parsed.kind, parsed.has(12)), (0, false));
    }

    proptest! {
        #[test]
        fn never_panics(
            options in proptest::collection::vec(prop_oneof![any::<u8>(), Just(52), Just(1)], 0..90),
            file: [u8; 32], code: u8, cut in 0usize..400,
        ) {
            let m = message(&options, &file, &file);
            if let Some(parsed) = Message::parse(&m[..cut.min(m.len())]) {
                let mut out = [0; 40];
                let _ = (parsed.option(code, &mut out), parsed.has(code), parsed.address(code));
                let _ = (parsed.number(code), parsed.giaddr(), parsed.broadcast());
            }
        }
    }
}
