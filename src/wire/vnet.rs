//! The virtio network header that precedes each frame on links with offloads
//! (virtio 1.2, section 5.1.6; Linux `Documentation/networking/tuntap.rst`).

/// Length of the header, with the `num_buffers` field.
pub const VNET_LEN: usize = 12;

/// How a frame is to be cut into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Gso {
    /// One packet.
    #[default]
    None,
    /// TCP over IPv4, segments of this many payload bytes.
    Tcp4(u16),
    /// TCP over IPv6, segments of this many payload bytes.
    Tcp6(u16),
    /// UDP datagrams of this many payload bytes each.
    Udp(u16),
}

/// The header, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Vnet {
    /// Segmentation.
    pub gso: Gso,
    /// The transport checksum field holds the pseudo-header sum only; to be completed from
    /// `csum_start` on, at `csum_offset` behind it.
    pub needs_csum: bool,
    /// Offset of the transport header in the frame.
    pub csum_start: u16,
    /// Offset of the checksum field in the transport header.
    pub csum_offset: u16,
    /// Length of all headers, for segmentation.
    pub hdr_len: u16,
}

const F_NEEDS_CSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

impl Vnet {
    /// Decodes a header in the byte order of this machine, as tap devices use it.
    ///
    /// `None` for a segmentation type we did not agree to.
    pub fn decode(b: &[u8; VNET_LEN]) -> Option<Self> {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1, _, _] = *b;
        let size = u16::from_ne_bytes([g0, g1]);
        let gso = match gso_type & !GSO_ECN {
            0 => Gso::None,
            GSO_TCPV4 => Gso::Tcp4(size),
            GSO_TCPV6 => Gso::Tcp6(size),
            GSO_UDP_L4 => Gso::Udp(size),
            _ => return None,
        };
        Some(Self {
            gso,
            needs_csum: flags & F_NEEDS_CSUM != 0,
            csum_start: u16::from_ne_bytes([s0, s1]),
            csum_offset: u16::from_ne_bytes([o0, o1]),
            hdr_len: u16::from_ne_bytes([h0, h1]),
        })
    }

    /// Encodes the header in the byte order of this machine.
    pub fn encode(&self) -> [u8; VNET_LEN] {
        let (gso_type, size) = match self.gso {
            Gso::None => (0, 0),
            Gso::Tcp4(s) => (GSO_TCPV4, s),
            Gso::Tcp6(s) => (GSO_TCPV6, s),
            Gso::Udp(s) => (GSO_UDP_L4, s),
        };
        let flags = if self.needs_csum { F_NEEDS_CSUM } else { 0 };
        let [h0, h1] = self.hdr_len.to_ne_bytes();
        let [g0, g1] = size.to_ne_bytes();
        let [s0, s1] = self.csum_start.to_ne_bytes();
        let [o0, o1] = self.csum_offset.to_ne_bytes();
        [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1, 0, 0]
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

    #[test]
    fn round_trip() {
        for gso in [Gso::None, Gso::Tcp4(1460), Gso::Tcp6(1440), Gso::Udp(1200)] {
            let v = Vnet { gso, needs_csum: true, csum_start: 34, csum_offset: 16, hdr_len: 54 };
            assert_eq!(Vnet::decode(&v.encode()), Some(v));
        }
        let mut ecn = Vnet { gso: Gso::Tcp4(9), ..Vnet::default() }.encode();
        ecn[1] |= 0x80;
        assert_eq!(Vnet::decode(&ecn).unwrap().gso, Gso::Tcp4(9));
        ecn[1] = 3;
        assert_eq!(Vnet::decode(&ecn), None);
    }
}
