//! TCP segments from the guest (RFC 9293).

use super::Seq;

/// Header flags, wire values.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement field is significant.
    pub const ACK: Self = Self(0x10);

    /// True if every flag of `other` is set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::fmt::Debug for TcpFlags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (flag, name) in [
            (Self::SYN, "S"),
            (Self::FIN, "F"),
            (Self::RST, "R"),
            (Self::PSH, "P"),
            (Self::ACK, "."),
        ] {
            if self.has(flag) {
                f.write_str(name)?;
            }
        }
        Ok(())
    }
}

/// A segment. The urgent pointer and ECN bits are ignored [TCP-8].
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sequence number of the first octet (or of SYN, FIN).
    pub seq: Seq,
    /// Acknowledgement number; meaningful with [`TcpFlags::ACK`].
    pub ack: Seq,
    /// Flags.
    pub flags: TcpFlags,
    /// Window field as sent, unscaled.
    pub window: u16,
    /// Option bytes.
    pub options: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
}

/// Why a segment could not be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentError {
    /// Fewer than 20 bytes: not even ports to answer to.
    Truncated,
    /// The data offset is below 5 or beyond the packet [TCP-3].
    Offset,
}

impl<'a> Segment<'a> {
    /// Length of a header without options.
    pub const MIN_HEADER: usize = 20;

    /// Parses the transport part of a packet.
    pub fn parse(data: &'a [u8]) -> Result<Self, SegmentError> {
        let head = data.first_chunk::<20>().ok_or(SegmentError::Truncated)?;
        let [s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, off, flags, w0, w1, ..] = *head;
        let header_len = usize::from(off >> 4).saturating_mul(4);
        let options = data.get(Self::MIN_HEADER..header_len).ok_or(SegmentError::Offset)?;
        let payload = data.get(header_len..).ok_or(SegmentError::Offset)?;
        Ok(Self {
            src_port: u16::from_be_bytes([s0, s1]),
            dst_port: u16::from_be_bytes([d0, d1]),
            seq: Seq(u32::from_be_bytes([q0, q1, q2, q3])),
            ack: Seq(u32::from_be_bytes([a0, a1, a2, a3])),
            flags: TcpFlags(flags),
            window: u16::from_be_bytes([w0, w1]),
            options,
            payload,
        })
    }

    /// Payload length. A segment is shorter than 64 KiB by construction.
    pub fn len(&self) -> u32 {
        u32::try_from(self.payload.len()).unwrap_or(u32::MAX)
    }

    /// True if there is no payload.
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }

    /// Octets of sequence space: payload plus SYN and FIN (RFC 9293, 3.4).
    pub fn seq_len(&self) -> u32 {
        self.len()
            .wrapping_add(u32::from(self.flags.has(TcpFlags::SYN)))
            .wrapping_add(u32::from(self.flags.has(TcpFlags::FIN)))
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
    use proptest::prelude::*;

    // [TCP-3] Data offsets out of bounds are an error of their own.
    #[test]
    fn data_offset_bounds() {
        let mut seg = [0u8; 24];
        assert_eq!(Segment::parse(&seg[..19]).unwrap_err(), SegmentError::Truncated);
        for off in [0, 4, 7, 15] {
            seg[12] = off << 4;
            assert_eq!(Segment::parse(&seg).unwrap_err(), SegmentError::Offset, "{off}");
        }
        seg[12] = 6 << 4;
        assert_eq!(Segment::parse(&seg).unwrap().options.len(), 4);
        seg[12] = 5 << 4;
        assert_eq!(Segment::parse(&seg).unwrap().payload.len(), 4);
    }

    proptest! {
        #[test]
        fn never_panics(data in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Segment::parse(&data);
        }
    }
}
