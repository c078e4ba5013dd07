//! TCP options: maximum segment size (RFC 9293, 3.7.1), window scale and timestamps (RFC 7323),
//! selective acknowledgement (RFC 2018, RFC 2883).
//!
//! The options of a SYN are collected into [`SynOptions`]. On other segments only timestamps and
//! SACK blocks matter. Nearly all segments carry timestamps alone, in one layout that every stack
//! uses (RFC 7323, appendix A); it is recognised as a whole, without a walk.

use super::Seq;

/// Option kinds.
const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

/// Longest options of a header.
const MAX_LEN: usize = 40;

/// Options one after the other. A malformed length ends the walk [TCP-31].
struct Walk<'a>(&'a [u8]);

impl<'a> Iterator for Walk<'a> {
    /// The option with its kind and length.
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            match *self.0 {
                [NOP, ref rest @ ..] => self.0 = rest,
                [kind, len, ..] if kind != END && len >= 2 => {
                    let (option, rest) = self.0.split_at_checked(len.into())?;
                    self.0 = rest;
                    return Some(option);
                }
                _ => return None,
            }
        }
    }
}

/// The timestamps option (RFC 7323, 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamps {
    /// The sender's clock.
    pub value: u32,
    /// What it last heard from the other side; meaningful with ACK.
    pub echo: u32,
}

impl Timestamps {
    /// Length of [`Timestamps::encode`].
    pub const LEN: u16 = 12;

    /// The option aligned to words.
    pub const fn encode(self) -> [u8; 12] {
        let [v0, v1, v2, v3] = self.value.to_be_bytes();
        let [e0, e1, e2, e3] = self.echo.to_be_bytes();
        [NOP, NOP, TIMESTAMPS, 10, v0, v1, v2, v3, e0, e1, e2, e3]
    }

    /// Finds the option among those of a segment.
    #[inline]
    pub fn find(options: &[u8]) -> Option<Self> {
        match *options {
            [NOP, NOP, TIMESTAMPS, 10, v0, v1, v2, v3, e0, e1, e2, e3, ..] => Some(Self {
                value: u32::from_be_bytes([v0, v1, v2, v3]),
                echo: u32::from_be_bytes([e0, e1, e2, e3]),
            }),
            [] => None,
            _ => Walk(options).find_map(Self::of),
        }
    }

    fn of(option: &[u8]) -> Option<Self> {
        match *option {
            [TIMESTAMPS, 10, v0, v1, v2, v3, e0, e1, e2, e3] => Some(Self {
                value: u32::from_be_bytes([v0, v1, v2, v3]),
                echo: u32::from_be_bytes([e0, e1, e2, e3]),
            }),
            _ => None,
        }
    }
}

/// Octets that have arrived, out of order or again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SackBlock {
    /// The first of them.
    pub left: Seq,
    /// The one behind the last.
    pub right: Seq,
}

/// The blocks of one segment, in its order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SackBlocks {
    blocks: [SackBlock; Self::MAX],
    len: usize,
}

impl SackBlocks {
    /// As many as fit a header.
    pub const MAX: usize = 4;

    /// As many as fit a header with timestamps.
    pub const MAX_WITH_TIMESTAMPS: usize = 3;

    /// Finds the blocks among the options of a segment. Whether they make sense is for the
    /// caller to see: the numbers are as they were sent.
    pub fn find(options: &[u8]) -> Self {
        let mut found = Self::default();
        if let Some([_, _, blocks @ ..]) = Walk(options).find(|o| o.first() == Some(&SACK)) {
            let (blocks, rest) = blocks.as_chunks::<8>();
            if !rest.is_empty() {
                return found;
            }
            for &[l0, l1, l2, l3, r0, r1, r2, r3] in blocks {
                found.push(SackBlock {
                    left: Seq(u32::from_be_bytes([l0, l1, l2, l3])),
                    right: Seq(u32::from_be_bytes([r0, r1, r2, r3])),
                });
            }
        }
        found
    }

    /// Adds a block behind the others; without effect if there is no room.
    pub fn push(&mut self, block: SackBlock) {
        if let Some(slot) = self.blocks.get_mut(self.len) {
            *slot = block;
            self.len = self.len.saturating_add(1);
        }
    }

    /// The blocks.
    pub fn as_slice(&self) -> &[SackBlock] {
        self.blocks.get(..self.len).unwrap_or_default()
    }

    /// True if there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The options of a SYN that we use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynOptions {
    /// Maximum segment size.
    pub mss: Option<u16>,
    /// Window scale shift, as sent.
    pub wscale: Option<u8>,
    /// SACK blocks are welcome.
    pub sack_permitted: bool,
    /// The timestamps option.
    pub timestamps: Option<Timestamps>,
}

impl SynOptions {
    /// Walks the options; the first occurrence of each counts, and a malformed length ends the
    /// walk [TCP-31].
    pub fn parse(data: &[u8]) -> Self {
        let mut out = Self::default();
        for option in Walk(data) {
            match *option {
                [MSS, _, a, b] => {
                    out.mss.get_or_insert_with(|| u16::from_be_bytes([a, b]));
                }
                [WINDOW_SCALE, _, shift] => {
                    out.wscale.get_or_insert(shift);
                }
                [SACK_PERMITTED, _] => out.sack_permitted = true,
                [TIMESTAMPS, ..] => {
                    out.timestamps = out.timestamps.or_else(|| Timestamps::of(option));
                }
                _ => {}
            }
        }
        out
    }
}

/// Options ready to be sent: whole words, at most 40 bytes.
#[derive(Clone, Copy, Debug)]
pub struct TcpOptions {
    bytes: [u8; MAX_LEN],
    len: usize,
}

impl TcpOptions {
    /// Those of a SYN or SYN,ACK.
    pub fn syn(syn: &SynOptions) -> Self {
        let mut options = Self { bytes: [0; MAX_LEN], len: 0 };
        if let Some(mss) = syn.mss {
            let [a, b] = mss.to_be_bytes();
            options.put(&[MSS, 4, a, b]);
        }
        match (syn.sack_permitted, syn.timestamps) {
            (true, Some(timestamps)) => {
                // The place of the padding is just long enough.
                let [_, _, rest @ ..] = timestamps.encode();
                options.put(&[SACK_PERMITTED, 2]);
                options.put(&rest);
            }
            (true, None) => options.put(&[NOP, NOP, SACK_PERMITTED, 2]),
            (false, Some(timestamps)) => options.put(&timestamps.encode()),
            (false, None) => {}
        }
        if let Some(shift) = syn.wscale {
            options.put(&[NOP, WINDOW_SCALE, 3, shift]);
        }
        options
    }

    /// Those of a later segment; the last blocks are left out if there is no room.
    pub fn segment(timestamps: Option<Timestamps>, sack: &SackBlocks) -> Self {
        let mut options = Self { bytes: [0; MAX_LEN], len: 0 };
        let mut most = SackBlocks::MAX;
        if let Some(timestamps) = timestamps {
            options.put(&timestamps.encode());
            most = SackBlocks::MAX_WITH_TIMESTAMPS;
        }
        let blocks = sack.as_slice();
        let blocks = blocks.get(..blocks.len().min(most)).unwrap_or_default();
        if !blocks.is_empty() {
            let len = u8::try_from(blocks.len()).unwrap_or(0).saturating_mul(8).saturating_add(2);
            options.put(&[NOP, NOP, SACK, len]);
            for block in blocks {
                options.put(&block.left.0.to_be_bytes());
                options.put(&block.right.0.to_be_bytes());
            }
        }
        options
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Without effect if there is no room, which the constructors see to.
    fn put(&mut self, bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len());
        if let Some(room) = self.bytes.get_mut(self.len..end) {
            room.copy_from_slice(bytes);
            self.len = end;
        }
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
    use smoltcp::wire as smol;

    const TS: Timestamps = Timestamps { value: 0x0102_0304, echo: 0x0506_0708 };

    // [TCP-31] Unknown options are skipped, malformed ones end the walk.
    #[test]
    fn syn_options() {
        let p = SynOptions::parse;
        let both = SynOptions { mss: Some(1460), wscale: Some(7), ..SynOptions::default() };
        assert_eq!(p(&[2, 4, 5, 0xb4, 1, 3, 3, 7]), both);
        let all = SynOptions { sack_permitted: true, timestamps: Some(TS), ..both };
        let options = [4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 30, 3, 0, 2, 4, 5, 0xb4, 3, 3, 7];
        assert_eq!(p(&options), all);
        assert_eq!(p(&[2, 4, 5, 0xb4, 2, 4, 0, 1]).mss, Some(1460));
        // Right kind, wrong length: as good as unknown.
        let odd = [2, 3, 5, 3, 2, 4, 3, 0, 8, 9, 1, 2, 3, 4, 5, 6, 7, 2, 4, 5, 0xb4];
        assert_eq!(p(&odd), SynOptions { mss: Some(1460), ..SynOptions::default() });
        for kind in [2, 3, 4, 5, 8, 254] {
            for bad in [0, 1, 7, 255] {
                assert_eq!(p(&[kind, bad, 2, 4, 5, 0xb4]), SynOptions::default(), "{kind} {bad}");
            }
            assert_eq!(p(&[kind]), SynOptions::default());
        }
        assert_eq!(p(&[0, 2, 4, 5, 0xb4]), SynOptions::default());
    }

    // [TCP-31] In the usual layout or any other; an option cut short is none.
    #[test]
    fn timestamps_are_found() {
        let encoded = TS.encode();
        assert_eq!(encoded, [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(Timestamps::find(&encoded), Some(TS));
        assert_eq!(Timestamps::find(&encoded[1..]), Some(TS));
        assert_eq!(Timestamps::find(&encoded[2..]), Some(TS));
        let behind_sack = [&[5, 10, 0, 0, 0, 1, 0, 0, 0, 2], &encoded[2..]].concat();
        assert_eq!(Timestamps::find(&behind_sack), Some(TS));
        for n in 0..12 {
            assert_eq!(Timestamps::find(&encoded[..n]), None);
        }
        assert_eq!(Timestamps::find(&[0, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]), None);
        for bad in [0, 1, 9, 11, 255] {
            assert_eq!(Timestamps::find(&[1, 1, 8, bad, 1, 2, 3, 4, 5, 6, 7, 8]), None);
        }
    }

    // [W-1] SACK blocks are read, whatever else there is; an incomplete block spoils the option.
    #[test]
    fn blocks_are_found() {
        let block = |l, r| SackBlock { left: Seq(l), right: Seq(r) };
        let one = [1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        assert_eq!(SackBlocks::find(&one).as_slice(), [block(1, 2)]);
        let behind = [&TS.encode()[..], &one].concat();
        assert_eq!(SackBlocks::find(&behind).as_slice(), [block(1, 2)]);
        for bad in [0, 1, 2, 3, 9, 11, 18, 255] {
            let option = [5, bad, 0, 0, 0, 1, 0, 0, 0, 2, 1, 1];
            assert!(SackBlocks::find(&option).is_empty(), "{bad}");
        }
    }

    // [TCP-28] Only what is given, in whole words, padded in front.
    #[test]
    fn syn_layouts() {
        let encode = |syn| TcpOptions::syn(&syn).as_slice().to_vec();
        let mss = SynOptions { mss: Some(1460), ..SynOptions::default() };
        assert_eq!(encode(mss), [2, 4, 5, 0xb4]);
        assert_eq!(encode(SynOptions { wscale: Some(8), ..mss }), [2, 4, 5, 0xb4, 1, 3, 3, 8]);
        let sack = SynOptions { sack_permitted: true, ..mss };
        assert_eq!(encode(sack), [2, 4, 5, 0xb4, 1, 1, 4, 2]);
        let all = SynOptions { wscale: Some(8), timestamps: Some(TS), ..sack };
        let want = [2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 8];
        assert_eq!(encode(all), want);
    }

    proptest! {
        // What is written is read again, by us and by another stack.
        #[test]
        fn syn_options_survive(
            mss in proptest::option::of(any::<u16>()),
            wscale in proptest::option::of(0u8..15),
            sack_permitted: bool,
            ts in proptest::option::of(any::<(u32, u32)>()),
        ) {
            let timestamps = ts.map(|(value, echo)| Timestamps { value, echo });
            let syn = SynOptions { mss, wscale, sack_permitted, timestamps };
            let options = TcpOptions::syn(&syn);
            prop_assert_eq!(options.as_slice().len() % 4, 0);
            prop_assert_eq!(SynOptions::parse(options.as_slice()), syn);
        }

        #[test]
        fn segment_options_survive(
            ts in proptest::option::of(any::<(u32, u32)>()),
            blocks in proptest::collection::vec(any::<(u32, u32)>(), 0..6),
        ) {
            let timestamps = ts.map(|(value, echo)| Timestamps { value, echo });
            let mut sack = SackBlocks::default();
            for (l, r) in &blocks {
                sack.push(SackBlock { left: Seq(*l), right: Seq(*r) });
            }
            let options = TcpOptions::segment(timestamps, &sack);
            let bytes = options.as_slice();
            prop_assert!(bytes.len().is_multiple_of(4) && bytes.len() <= 40);
            prop_assert_eq!(Timestamps::find(bytes), timestamps);
            let most = if ts.is_some() { 3 } else { 4 };
            let kept = &sack.as_slice()[..blocks.len().min(most)];
            let found = SackBlocks::find(bytes);
            prop_assert_eq!(found.as_slice(), kept);

            let mut header = vec![0u8; 20];
            header[12] = (((20 + bytes.len()) / 4) << 4) as u8;
            header.extend(bytes);
            let seen = smol::TcpPacket::new_checked(&header[..]).unwrap().options_summary().unwrap();
            prop_assert_eq!(seen.timestamp, ts);
            for (seen, sent) in seen.sack_ranges.iter().flatten().zip(kept) {
                prop_assert_eq!(*seen, (sent.left.0, sent.right.0));
            }
        }

        #[test]
        fn never_panics(data in proptest::collection::vec(any::<u8>(), 0..44)) {
            let _ = SynOptions::parse(&data);
            let _ = Timestamps::find(&data);
            let _ = SackBlocks::find(&data);
        }

        // [TCP-31] Any bytes at all behind the right kinds.
        #[test]
        fn lengths_are_checked(kind in 0u8..9, len: u8, n in 0usize..40, at in 0usize..20) {
            let mut data = vec![NOP; at];
            data.extend([kind, len]);
            data.extend(vec![2u8; n]);
            let fits = kind > 1 && usize::from(len) <= n + 2;
            prop_assert_eq!(Timestamps::find(&data).is_some(), kind == TIMESTAMPS && len == 10 && fits);
            prop_assert_eq!(
                !SackBlocks::find(&data).is_empty(),
                kind == SACK && len >= 10 && (len - 2) % 8 == 0 && fits
            );
            let syn = SynOptions::parse(&data);
            prop_assert_eq!(syn.mss.is_some(), kind == MSS && len == 4 && fits);
            prop_assert_eq!(syn.wscale.is_some(), kind == WINDOW_SCALE && len == 3 && fits);
        }
    }
}
