//! DHCPv6 messages (RFC 8415): reading requests, and the parts that replies are made of.

/// Client port.
pub const CLIENT_PORT: u16 = 546;
/// Server and relay port.
pub const SERVER_PORT: u16 = 547;

/// Message types (RFC 8415, 7.3).
pub mod kind {
    /// A client looks for servers.
    pub const SOLICIT: u8 = 1;
    /// What a server would give.
    pub const ADVERTISE: u8 = 2;
    /// A client takes what was advertised.
    pub const REQUEST: u8 = 3;
    /// A client asks whether its addresses fit the link.
    pub const CONFIRM: u8 = 4;
    /// A client asks its server for more time.
    pub const RENEW: u8 = 5;
    /// A client asks any server for more time.
    pub const REBIND: u8 = 6;
    /// What a server answers.
    pub const REPLY: u8 = 7;
    /// A client needs addresses no more.
    pub const RELEASE: u8 = 8;
    /// A client found addresses in use.
    pub const DECLINE: u8 = 9;
    /// A client wants to know everything but addresses.
    pub const INFORMATION_REQUEST: u8 = 11;
}

/// Codes of options.
pub mod option {
    /// Client identifier.
    pub const CLIENT: u16 = 1;
    /// Server identifier.
    pub const SERVER: u16 = 2;
    /// Addresses.
    pub const IA_NA: u16 = 3;
    /// Temporary addresses.
    pub const IA_TA: u16 = 4;
    /// One address.
    pub const IA_ADDRESS: u16 = 5;
    /// How something went.
    pub const STATUS: u16 = 13;
    /// The client, or the server, does without the second pair of messages.
    pub const RAPID_COMMIT: u16 = 14;
    /// Resolvers (RFC 3646).
    pub const DNS: u16 = 23;
    /// Search list (RFC 3646).
    pub const SEARCH: u16 = 24;
    /// Prefixes for networks of the client.
    pub const IA_PD: u16 = 25;
    /// Fully qualified domain name of the client (RFC 4704).
    pub const FQDN: u16 = 39;
}

/// Status codes (RFC 8415, 21.13).
pub mod status {
    /// It went well.
    pub const SUCCESS: u16 = 0;
    /// There is no address to give.
    pub const NO_ADDRESSES: u16 = 2;
    /// The address does not fit the link.
    pub const NOT_ON_LINK: u16 = 4;
    /// There is no prefix to give.
    pub const NO_PREFIX: u16 = 6;
}

/// Length of the header before the options.
pub const HEADER_LEN: usize = 4;

/// A message between client and server.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// [`kind`].
    pub kind: u8,
    /// The transaction id.
    pub transaction: [u8; 3],
    options: &'a [u8],
}

impl<'a> Message<'a> {
    /// `None` if it is not a header and well-formed options.
    pub fn parse(data: &'a [u8]) -> Option<Self> {
        let (&[kind, a, b, c], options) = data.split_first_chunk::<HEADER_LEN>()?;
        let whole = Options::new(options).all(|option| option.is_some());
        whole.then_some(Self { kind, transaction: [a, b, c], options })
    }

    /// Codes and values, in order.
    pub fn options(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        Options::new(self.options).flatten()
    }

    /// The first option of this code.
    pub fn option(&self, code: u16) -> Option<&'a [u8]> {
        self.options().find(|(this, _)| *this == code).map(|(_, value)| value)
    }

    /// Whether an option is there.
    pub fn has(&self, code: u16) -> bool {
        self.option(code).is_some()
    }
}

/// A sequence of options; the last is `None` if it is cut off.
#[derive(Clone, Debug)]
pub struct Options<'a>(&'a [u8]);

impl<'a> Options<'a> {
    /// Those in a message, or inside another option.
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = Option<(u16, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        let data = std::mem::take(&mut self.0);
        if data.is_empty() {
            return None;
        }
        let option = data.split_first_chunk::<4>().and_then(|(&[c0, c1, l0, l1], rest)| {
            let len = usize::from(u16::from_be_bytes([l0, l1]));
            let (value, rest) = rest.split_at_checked(len)?;
            self.0 = rest;
            Some((u16::from_be_bytes([c0, c1]), value))
        });
        Some(option)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // [DHCP6-1] [DHCP6-2] A message that is cut off anywhere but between options is none.
    #[test]
    fn truncated() {
        let m = [1, 0x12, 0x34, 0x56, 0, 14, 0, 0, 0, 1, 0, 3, 0, 3, 9, 0, 8, 0, 2, 0, 0];
        for len in 0..=m.len() {
            let parsed = Message::parse(&m[..len]);
            assert_eq!(parsed.is_some(), [4, 8, 15, 21].contains(&len), "{len}");
        }
        let parsed = Message::parse(&m).unwrap();
        assert_eq!((parsed.kind, parsed.transaction), (kind::SOLICIT, [0x12, 0x34, 0x56]));
        assert_eq!(parsed.option(option::CLIENT), Some([0, 3, 9].as_slice()));
        assert!(parsed.has(option::RAPID_COMMIT) && !parsed.has(option::SERVER));
    }

    proptest! {
        #[test]
        fn never_panics(data: Vec<u8>) {
            if let Some(message) = Message::parse(&data) {
                prop_assert!(message.options().count() <= data.len());
            }
        }
    }
}
