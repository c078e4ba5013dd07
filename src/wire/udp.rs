//! UDP datagrams from the guest (RFC 768).

/// A datagram.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Payload.
    pub payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Parses the transport part of a packet; `None` if it is malformed.
    ///
    /// A length field shorter than the packet cuts the payload, a longer one is malformed. With
    /// `gso` the packet is a train of datagrams (see [`super::Vnet`]) and the field is ignored.
    pub fn parse(data: &'a [u8], gso: bool) -> Option<Self> {
        let [s0, s1, d0, d1, l0, l1, _, _] = *data.first_chunk::<8>()?;
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        let payload = if gso { data.get(8..)? } else { data.get(8..len)? };
        Some(Self {
            src_port: u16::from_be_bytes([s0, s1]),
            dst_port: u16::from_be_bytes([d0, d1]),
            payload,
        })
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#[allow(clippy::cast_possible_truncation)]
mod tests {
    use super::*;

    // [UDP-8] A shorter length is honoured, a longer one drops the datagram.
    #[test]
    fn length_field() {
        let d = |len: u8| [0, 1, 0, 2, 0, len, 0, 0, b'a', b'b'];
        assert_eq!(Datagram::parse(&d(10), false).unwrap().payload, b"ab");
        assert_eq!(Datagram::parse(&d(9), false).unwrap().payload, b"a");
        assert_eq!(Datagram::parse(&d(8), false).unwrap().payload, b"");
        assert!(Datagram::parse(&d(7), false).is_none());
        assert!(Datagram::parse(&d(11), false).is_none());
        assert_eq!(Datagram::parse(&d(0), true).unwrap().payload, b"ab");
    }
}
