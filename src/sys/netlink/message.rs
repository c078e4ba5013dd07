//! Netlink messages: the stream walker and the four rtnetlink headers we use.

use super::attrs::{AttrBuf, align4, u16_at, u32_at};

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;

/// `NLMSG_NOOP`: to be ignored.
pub(super) const NOOP: u16 = 1;
/// `NLMSG_ERROR`: acknowledgement or error.
pub(super) const ERROR: u16 = 2;
/// `NLMSG_DONE`: end of a dump.
pub(super) const DONE: u16 = 3;
/// `NLMSG_OVERRUN`: data lost.
pub(super) const OVERRUN: u16 = 4;

/// `NLM_F_REQUEST`.
pub(super) const F_REQUEST: u16 = 0x1;
/// `NLM_F_ACK`.
pub(super) const F_ACK: u16 = 0x4;
/// `NLM_F_DUMP_INTR`: the dumped table changed under the dump.
pub(super) const F_DUMP_INTR: u16 = 0x10;
/// `NLM_F_DUMP`, and `NLM_F_REPLACE` / `_EXCL` / `_CREATE` / `_APPEND`, which share its bits.
pub(super) const F_DUMP: u16 = 0x300;
/// `NLM_F_REPLACE`.
pub(super) const F_REPLACE: u16 = 0x100;
/// `NLM_F_EXCL`.
pub(super) const F_EXCL: u16 = 0x200;
/// `NLM_F_CREATE`.
pub(super) const F_CREATE: u16 = 0x400;
/// `NLM_F_APPEND`.
pub(super) const F_APPEND: u16 = 0x800;

/// `RTM_NEWLINK`; this and the following are of linux/rtnetlink.h.
pub(super) const NEWLINK: u16 = 16;
/// `RTM_DELLINK`.
pub(super) const DELLINK: u16 = 17;
/// `RTM_GETLINK`.
pub(super) const GETLINK: u16 = 18;
/// `RTM_NEWADDR`.
pub(super) const NEWADDR: u16 = 20;
/// `RTM_DELADDR`.
pub(super) const DELADDR: u16 = 21;
/// `RTM_GETADDR`.
pub(super) const GETADDR: u16 = 22;
/// `RTM_NEWROUTE`.
pub(super) const NEWROUTE: u16 = 24;
/// `RTM_DELROUTE`.
pub(super) const DELROUTE: u16 = 25;
/// `RTM_GETROUTE`.
pub(super) const GETROUTE: u16 = 26;
/// `RTM_NEWQDISC`.
pub(super) const NEWQDISC: u16 = 36;
/// `RTM_NEWNEIGH`.
pub(super) const NEWNEIGH: u16 = 28;
/// `RTM_DELNEIGH`.
pub(super) const DELNEIGH: u16 = 29;
/// `RTM_GETNEIGH`.
pub(super) const GETNEIGH: u16 = 30;

/// A message without its header: what a dump yields and what a request is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Message type (`RTM_*`).
    pub(super) kind: u16,
    /// Header flags.
    pub(super) flags: u16,
    /// Family header and attributes.
    pub(super) body: Vec<u8>,
}

impl Message {
    /// Appends the wire form to `out`.
    pub(super) fn emit(&self, extra_flags: u16, sequence: u32, out: &mut Vec<u8>) {
        let len = self.wire_len();
        out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_ne_bytes());
        out.extend_from_slice(&self.kind.to_ne_bytes());
        out.extend_from_slice(&(self.flags | extra_flags | F_REQUEST).to_ne_bytes());
        out.extend_from_slice(&sequence.to_ne_bytes());
        // Port 0: the kernel fills in ours.
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.body);
        out.resize(align4(out.len()), 0);
    }

    /// Bytes [`emit`](Self::emit) writes, padding excluded.
    pub(super) fn wire_len(&self) -> usize {
        HEADER.saturating_add(self.body.len())
    }
}

/// A message within a received datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Received<'a> {
    /// Message type.
    pub(super) kind: u16,
    /// Header flags.
    pub(super) flags: u16,
    /// Sequence number of the request it answers.
    pub(super) sequence: u32,
    /// What follows the header.
    pub(super) body: &'a [u8],
}

impl Received<'_> {
    /// The error number of `NLMSG_ERROR` and `NLMSG_DONE`, positive; 0 is success.
    ///
    /// Old kernels end a dump with an empty `NLMSG_DONE`.
    pub(super) fn errno(&self) -> i32 {
        let raw = u32_at(self.body, 0).unwrap_or(0).cast_signed();
        raw.checked_neg().unwrap_or(libc::EIO)
    }
}

/// Splits a datagram into messages. Ends early, with a warning, at one whose length is absurd.
pub(super) fn walk(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let Some(message) = first(bytes) else {
            log::warn!("netlink: malformed message, rest of the datagram ignored");
            bytes = &[];
            return None;
        };
        let len = HEADER.saturating_add(message.body.len());
        bytes = bytes.get(align4(len)..).unwrap_or_default();
        Some(message)
    })
}

fn first(bytes: &[u8]) -> Option<Received<'_>> {
    let len = usize::try_from(u32_at(bytes, 0)?).ok()?;
    Some(Received {
        kind: u16_at(bytes, 4)?,
        flags: u16_at(bytes, 6)?,
        sequence: u32_at(bytes, 8)?,
        body: bytes.get(HEADER..len)?,
    })
}

/// `struct ifinfomsg`: 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkHeader {
    /// Interface index; 0 to select by name.
    pub(super) index: u32,
    /// `IFF_*`.
    pub(super) flags: u32,
    /// Which of `flags` a request changes.
    pub(super) change: u32,
}

impl LinkHeader {
    /// Length on the wire.
    pub(super) const LEN: usize = 16;

    /// From the front of a body.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        Some(Self { index: u32_at(body, 4)?, flags: u32_at(body, 8)?, change: u32_at(body, 12)? })
    }

    /// A body with these attributes.
    pub(super) fn body(&self, attrs: &AttrBuf) -> Vec<u8> {
        let mut out = vec![0; 4];
        for field in [self.index, self.flags, self.change] {
            out.extend_from_slice(&field.to_ne_bytes());
        }
        out.extend_from_slice(&attrs.0);
        out
    }
}

/// `struct ifaddrmsg`: 8 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AddrHeader {
    /// Address family.
    pub(super) family: u8,
    /// Prefix length.
    pub(super) prefix: u8,
    /// The low eight `IFA_F_*` bits.
    pub(super) flags: u8,
    /// `RT_SCOPE_*`.
    pub(super) scope: u8,
    /// Interface index.
    pub(super) index: u32,
}

impl AddrHeader {
    /// Length on the wire.
    pub(super) const LEN: usize = 8;

    /// From the front of a body.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let &[family, prefix, flags, scope] = body.first_chunk::<4>()?;
        Some(Self { family, prefix, flags, scope, index: u32_at(body, 4)? })
    }

    /// A body with these attributes.
    pub(super) fn body(&self, attrs: &AttrBuf) -> Vec<u8> {
        let mut out = vec![self.family, self.prefix, self.flags, self.scope];
        out.extend_from_slice(&self.index.to_ne_bytes());
        out.extend_from_slice(&attrs.0);
        out
    }
}

/// `struct rtmsg`: 12 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RouteHeader {
    /// Address family.
    pub(super) family: u8,
    /// Destination prefix length.
    pub(super) dst_len: u8,
    /// Source prefix length.
    pub(super) src_len: u8,
    /// Type of service.
    pub(super) tos: u8,
    /// Table, if below 256.
    pub(super) table: u8,
    /// `RTPROT_*`.
    pub(super) protocol: u8,
    /// `RT_SCOPE_*`.
    pub(super) scope: u8,
    /// `RTN_*`.
    pub(super) kind: u8,
    /// `RTM_F_*` and `RTNH_F_*`.
    pub(super) flags: u32,
}

impl RouteHeader {
    /// Length on the wire.
    pub(super) const LEN: usize = 12;

    /// From the front of a body.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let &[family, dst_len, src_len, tos, table, protocol, scope, kind] =
            body.first_chunk::<8>()?;
        let flags = u32_at(body, 8)?;
        Some(Self { family, dst_len, src_len, tos, table, protocol, scope, kind, flags })
    }

    /// A body with these attributes.
    pub(super) fn body(&self, attrs: &AttrBuf) -> Vec<u8> {
        let mut out = vec![
            self.family,
            self.dst_len,
            self.src_len,
            self.tos,
            self.table,
            self.protocol,
            self.scope,
            self.kind,
        ];
        out.extend_from_slice(&self.flags.to_ne_bytes());
        out.extend_from_slice(&attrs.0);
        out
    }
}

/// `struct ndmsg`: 12 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NeighbourHeader {
    /// Address family.
    pub(super) family: u8,
    /// Interface index.
    pub(super) index: u32,
    /// `NUD_*`.
    pub(super) state: u16,
    /// `NTF_*`.
    pub(super) flags: u8,
}

impl NeighbourHeader {
    /// Length on the wire.
    pub(super) const LEN: usize = 12;

    /// From the front of a body.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let (family, index) = (*body.first()?, u32_at(body, 4)?);
        let (state, flags) = (u16_at(body, 8)?, *body.get(10)?);
        body.get(11)?;
        Some(Self { family, index, state, flags })
    }

    /// A body with these attributes.
    pub(super) fn body(&self, attrs: &AttrBuf) -> Vec<u8> {
        let mut out = vec![self.family, 0, 0, 0];
        out.extend_from_slice(&self.index.to_ne_bytes());
        out.extend_from_slice(&self.state.to_ne_bytes());
        out.extend_from_slice(&[self.flags, 0]);
        out.extend_from_slice(&attrs.0);
        out
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn message(body: &[u8]) -> Message {
        Message { kind: NEWROUTE, flags: 0, body: body.to_vec() }
    }

    // [NL-1] A multi-part datagram is split at message boundaries; damage ends the walk only.
    #[test]
    fn walks_and_survives_damage() {
        let mut wire = Vec::new();
        message(&[1, 2, 3]).emit(F_ACK, 7, &mut wire);
        message(&[4; 8]).emit(0, 8, &mut wire);
        let whole: Vec<_> = walk(&wire).collect();
        assert_eq!(whole.len(), 2);
        assert_eq!(whole[0].body, [1, 2, 3]);
        assert_eq!(whole[0].flags, F_REQUEST | F_ACK);
        assert_eq!((whole[1].sequence, whole[1].body), (8, &[4u8; 8][..]));
        for cut in 0..wire.len() {
            assert!(walk(&wire[..cut]).count() < 2, "{cut}");
        }
        // A length below the header's would loop for ever if it were believed.
        wire[0..4].copy_from_slice(&0u32.to_ne_bytes());
        assert_eq!(walk(&wire).count(), 0);
    }

    #[test]
    fn headers_round_trip() {
        let attrs = AttrBuf::default();
        let r = RouteHeader { family: 2, dst_len: 24, table: 254, flags: 4, ..Default::default() };
        assert_eq!(RouteHeader::parse(&r.body(&attrs)), Some(r));
        assert_eq!(r.body(&attrs).len(), RouteHeader::LEN);
        let a = AddrHeader { family: 10, prefix: 64, flags: 2, scope: 0, index: 77 };
        assert_eq!(AddrHeader::parse(&a.body(&attrs)), Some(a));
        assert_eq!(a.body(&attrs).len(), AddrHeader::LEN);
        let l = LinkHeader { index: 3, flags: 1, change: 1 };
        assert_eq!(LinkHeader::parse(&l.body(&attrs)), Some(l));
        assert_eq!(l.body(&attrs).len(), LinkHeader::LEN);
        let n = NeighbourHeader { family: 2, index: 7, state: 0x80, flags: 8 };
        assert_eq!(NeighbourHeader::parse(&n.body(&attrs)), Some(n));
        assert_eq!(n.body(&attrs).len(), NeighbourHeader::LEN);
        assert!(RouteHeader::parse(&[0; 11]).is_none());
        assert!(NeighbourHeader::parse(&[0; 11]).is_none());
    }

    #[test]
    fn error_numbers() {
        let errno = |body: &[u8]| Received { kind: ERROR, flags: 0, sequence: 1, body }.errno();
        assert_eq!(errno(&(-17i32).to_ne_bytes()), libc::EEXIST);
        assert_eq!(errno(&[]), 0);
        assert_eq!(errno(&i32::MIN.to_ne_bytes()), libc::EIO);
    }
}
