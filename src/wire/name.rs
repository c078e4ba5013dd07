//! Domain names as options carry them (RFC 1035, 3.1 and 4.1.4).
//!
//! A name is a sequence of labels, each with its length before it, and ends with the root label,
//! which is empty. A dot at the end of the text is that root, and no label of its own.
//!
//! In a [compressed](compress) list the rest of a name may be a pointer to where the same labels
//! were written before. A pointer always leads to the beginning of a label, and what follows there
//! up to the root is exactly the rest that was meant.

/// Longest name as written, its root label included (RFC 1035, 2.3.4).
pub const MAX_NAME: usize = 255;

/// Longest label (RFC 1035, 2.3.4).
const MAX_LABEL: usize = 63;

/// The two bits that make a length byte the first byte of a pointer (RFC 1035, 4.1.4).
const POINTER: usize = 0xc000;

/// What a pointer can reach.
const MAX_POINTER: usize = 0x3fff;

/// Names of a list that later ones can point into; more are written, but not pointed at.
const MAX_TARGETS: usize = 32;

/// Whether this can be written as a name. The root alone is none.
pub fn is_valid(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let label = |l: &str| (1..=MAX_LABEL).contains(&l.len());
    // Each dot becomes a length byte; one more comes first, and the root last.
    name.len() <= MAX_NAME - 2 && name.split('.').all(label)
}

/// Writes one name and returns its length; `None` if it is invalid or does not fit in `out`.
pub fn write(name: &str, out: &mut [u8]) -> Option<usize> {
    let name = is_valid(name).then_some(name)?;
    let mut used = 0usize;
    for label in name.strip_suffix('.').unwrap_or(name).split('.') {
        used = write_label(label, out, used)?;
    }
    *out.get_mut(used)? = 0;
    used.checked_add(1)
}

/// Writes names one behind the other, without pointers, and returns their length together. Those
/// that are invalid or do not fit are left out.
pub fn write_all<S: AsRef<str>>(names: &[S], out: &mut [u8]) -> usize {
    let mut used = 0usize;
    for name in names {
        let room = out.get_mut(used..).unwrap_or_default();
        used = used.saturating_add(write(name.as_ref(), room).unwrap_or(0));
    }
    used
}

/// Writes names one behind the other, with pointers, and returns their length together. Those that
/// are invalid or do not fit are left out.
///
/// Pointers count from the beginning of `out` (RFC 3397, 2).
pub fn compress<S: AsRef<str>>(names: &[S], out: &mut [u8]) -> usize {
    let mut targets = Targets::default();
    let mut used = 0usize;
    for name in names.iter().map(AsRef::as_ref).filter(|n| is_valid(n)) {
        let before = targets.len;
        match compress_one(name.strip_suffix('.').unwrap_or(name), out, used, &mut targets) {
            Some(end) => used = end,
            // What was written of it is no place to point to.
            None => targets.len = before,
        }
    }
    used
}

/// Writes one name at `at`; the end of it.
fn compress_one<'a>(
    name: &'a str,
    out: &mut [u8],
    mut at: usize,
    targets: &mut Targets<'a>,
) -> Option<usize> {
    let mut rest = name;
    loop {
        if let Some(target) = targets.find(rest) {
            let pointer = u16::try_from(POINTER | target).ok()?.to_be_bytes();
            let end = at.checked_add(pointer.len())?;
            out.get_mut(at..end)?.copy_from_slice(&pointer);
            return Some(end);
        }
        targets.add(rest, at);
        let (label, tail) = rest.split_once('.').unwrap_or((rest, ""));
        at = write_label(label, out, at)?;
        if tail.is_empty() {
            *out.get_mut(at)? = 0;
            return at.checked_add(1);
        }
        rest = tail;
    }
}

/// Writes one valid label at `at`; the end of it.
fn write_label(label: &str, out: &mut [u8], at: usize) -> Option<usize> {
    let len = u8::try_from(label.len()).ok()?;
    let end = at.checked_add(1)?.checked_add(label.len())?;
    let (first, rest) = out.get_mut(at..end)?.split_first_mut()?;
    *first = len;
    rest.copy_from_slice(label.as_bytes());
    Some(end)
}

/// Ends of names, and where they are written.
#[derive(Default)]
struct Targets<'a> {
    all: [(&'a str, usize); MAX_TARGETS],
    len: usize,
}

impl<'a> Targets<'a> {
    /// Names are the same whatever their case (RFC 1035, 2.3.3).
    fn find(&self, rest: &str) -> Option<usize> {
        let known = self.all.get(..self.len).unwrap_or_default();
        known.iter().find(|(name, _)| name.eq_ignore_ascii_case(rest)).map(|(_, at)| *at)
    }

    fn add(&mut self, rest: &'a str, at: usize) {
        if at > MAX_POINTER {
            return;
        }
        if let Some(slot) = self.all.get_mut(self.len) {
            *slot = (rest, at);
            self.len = self.len.saturating_add(1);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads a list back, following pointers; `None` if it is not well-formed.
    pub(crate) fn decode(list: &[u8]) -> Option<Vec<String>> {
        let mut names = Vec::new();
        let mut at = 0;
        while at < list.len() {
            let (mut labels, mut from, mut end) = (Vec::new(), at, None);
            loop {
                let len = usize::from(*list.get(from)?);
                if len >= 0xc0 {
                    end = end.or(Some(from + 2));
                    let target = (len & 0x3f) << 8 | usize::from(*list.get(from + 1)?);
                    if target >= from {
                        return None;
                    }
                    from = target;
                } else if len == 0 {
                    break;
                } else {
                    let label = list.get(from + 1..from + 1 + len)?;
                    labels.push(String::from_utf8(label.to_vec()).ok()?);
                    from += 1 + len;
                }
            }
            names.push(labels.join("."));
            at = end.unwrap_or(from + 1);
        }
        Some(names)
    }

    fn compressed(names: &[&str]) -> Vec<u8> {
        let mut out = [0xaa; 600];
        let len = compress(names, &mut out);
        assert!(out[len..].iter().all(|b| *b == 0xaa) || decode(&out[..len]).is_some());
        out[..len].to_vec()
    }

    #[test]
    fn limits() {
        let label = "x".repeat(63);
        let longest = [label.as_str(), &label, &label, &"y".repeat(61)].join(".");
        assert_eq!(longest.len(), 253);
        for good in ["a", "a.", "a.b", "a-b.c_d", &longest, &format!("{longest}.")] {
            assert!(is_valid(good), "{good}");
            let mut out = [0; 255];
            let len = write(good, &mut out).unwrap();
            assert_eq!(decode(&out[..len]).unwrap(), [good.trim_end_matches('.')]);
            assert_eq!(write(good, &mut out[..len - 1]), None);
        }
        let (label, longer) = ("x".repeat(64), format!("{longest}y"));
        for bad in ["", ".", "..", "a..b", ".a", "a..", &label, &longer] {
            assert!(!is_valid(bad), "{bad}");
            assert_eq!(write(bad, &mut [0; 300]), None);
        }
    }

    // [DHCP-9] A pointer stands for the whole rest of a name and for nothing else.
    #[test]
    fn pointers() {
        assert_eq!(
            compressed(&["a.example.org", "b.example.org", "example.org", "org"]),
            b"\x01a\x07example\x03org\0\x01b\xc0\x02\xc0\x02\xc0\x0a"
        );
        // The end of the bytes of another label is not the same label.
        let tricky = ["example.community", "foo.example.com"];
        assert_eq!(compressed(&tricky), b"\x07example\x09community\0\x03foo\x07example\x03com\0");
        assert_eq!(compressed(&["x.y.", "x.y."]), b"\x01x\x01y\0\xc0\x00");
        assert_eq!(compressed(&["q.com", "x.y."]), b"\x01q\x03com\0\x01x\x01y\0");
        assert_eq!(compressed(&["a..b", "", "."]), b"");
        assert_eq!(compressed(&["A.B", "c.a.b"]), b"\x01A\x01B\0\x01c\xc0\x00");
    }

    // A name that did not fit is not pointed into.
    #[test]
    fn no_pointer_to_what_is_left_out() {
        let mut out = [0; 12];
        let len = compress(&["abc", "some.long.name", "name", "c"], &mut out);
        assert_eq!(decode(&out[..len]).unwrap(), ["abc", "name"]);
    }

    proptest! {
        #[test]
        fn lists_decode_to_their_input(
            names in proptest::collection::vec("[ab]{1,2}(\\.[ab]{1,2}){0,4}\\.?", 0..12),
        ) {
            let want: Vec<_> = names.iter().map(|n| n.trim_end_matches('.')).collect();
            let mut out = [0; 1000];
            let len = compress(&names, &mut out);
            let got = decode(&out[..len]).unwrap();
            prop_assert_eq!(got.iter().map(String::as_str).collect::<Vec<_>>(), want.clone());
            let plain = write_all(&names, &mut out);
            prop_assert!(len <= plain);
            prop_assert_eq!(decode(&out[..plain]).unwrap(), want);
        }

        #[test]
        fn never_panics(names in proptest::collection::vec(".*", 0..40), room in 0usize..600) {
            let mut out = vec![0; room];
            let len = compress(&names, &mut out);
            prop_assert!(len <= room && decode(&out[..len]).is_some());
            let len = write_all(&names, &mut out);
            prop_assert!(len <= room && decode(&out[..len]).is_some());
        }
    }
}
