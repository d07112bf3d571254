//! Quick looks at text: whether a class may be in it, and where. Most text has none, and is told apart
//! without reading each of its bytes.

use std::ops::Range;

use memchr::{memchr, memchr_iter, memchr2, memchr2_iter, memchr3};

/// A set of bytes.
#[derive(Clone, Copy)]
pub(crate) struct Set {
    /// Whether a byte is of the set.
    pub(crate) has: fn(u8) -> bool,
    /// Marks, in eight bytes at once, those that may be of it, by their highest bits.
    pub(crate) mark: fn(u64) -> u64,
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHEST: u64 = ONES << 7;

/// Marks bytes from `first` to `last`, both ASCII.
#[inline]
pub(crate) const fn between(bytes: u64, first: u8, last: u8) -> u64 {
    let low = bytes & !HIGHEST;
    // The sum of two numbers below 128 reaches the highest bit, and never the next byte.
    let from = low + ONES * (0x80 - first as u64);
    let beyond = low + ONES * (0x7f - last as u64);
    from & !beyond & !bytes & HIGHEST
}

/// Marks bytes that are not ASCII.
#[inline]
pub(crate) const fn not_ascii(bytes: u64) -> u64 {
    bytes & HIGHEST
}

/// The ranges of `text` that have only bytes of a set, as far as they go, from `least` bytes on, which must
/// be at least 7.
#[inline]
pub(crate) fn runs(text: &str, least: usize, set: Set) -> impl Iterator<Item = Range<usize>> {
    let bytes = text.as_bytes();
    // Words of four bytes, at multiples of 4: one is in each run of 7, two together are in each of 11.
    let two = least >= 11;
    let (mut done, mut next) = (0, 0);
    std::iter::from_fn(move || {
        loop {
            let rest = bytes.get(next..).filter(|_| bytes.len() - done >= least)?;
            let word = next + first_word(rest, set, two)?;
            let (before, after) = (bytes.get(done..word)?, bytes.get(word..)?);
            let outside = |&byte: &u8| !(set.has)(byte);
            let start = before
                .iter()
                .rposition(outside)
                .map_or(done, |at| done + at + 1);
            let end = after
                .iter()
                .position(outside)
                .map_or(bytes.len(), |at| word + at);
            done = end;
            // A word that was only taken for one is passed.
            next = end.max(word + 4);
            if end - start >= least {
                return Some(start..end);
            }
        }
    })
}

/// Where the first word is that may be of the set, or with `two` the second of two together.
#[inline]
fn first_word(bytes: &[u8], set: Set, two: bool) -> Option<usize> {
    const ALL: u32 = HIGHEST as u32;
    let (pairs, rest) = bytes.as_chunks::<8>();
    // Whether the word before is enough.
    let mut before = !two;
    for (number, pair) in pairs.iter().enumerate() {
        let marks = (set.mark)(u64::from_le_bytes(*pair));
        let (first, second) = (marks as u32 == ALL, (marks >> 32) as u32 == ALL);
        if first & before {
            return Some(8 * number);
        }
        if second & (first | !two) {
            return Some(8 * number + 4);
        }
        before = second | !two;
    }
    let last = rest.first_chunk::<4>().filter(|_| before)?;
    let is_word = last.iter().all(|&byte| (set.has)(byte));
    is_word.then_some(8 * pairs.len())
}

/// What a text has, seen in one pass over a short one. A long one may have more than that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traits(u8);

impl Traits {
    /// A digit.
    pub(crate) const DIGIT: Self = Self(1);
    /// A dot.
    pub(crate) const DOT: Self = Self(2);
    /// What stands for an `@`, or begins what does.
    pub(crate) const AT: Self = Self(4);
    /// The letter J.
    pub(crate) const J: Self = Self(8);
    /// The letter B, or what stands for an `@`.
    pub(crate) const B_OR_AT: Self = Self(16);
    const NOT_A_DOT: Self = Self(29);

    /// From so many bytes on a scan of its own is quicker for each class.
    const LONG: usize = 64;

    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What a text has.
    #[inline]
    pub(crate) fn of(text: &str) -> Self {
        let bytes = text.as_bytes();
        if bytes.len() >= Self::LONG {
            return match memchr(b'.', bytes) {
                Some(_) => Self::NOT_A_DOT.and(Self::DOT),
                None => Self::NOT_A_DOT,
            };
        }
        // Blocks of a known size take a few instructions each; the last overlaps the one before.
        let mut seen = [0; 16];
        let (blocks, rest) = bytes.as_chunks::<16>();
        for block in blocks {
            see(&mut seen, block);
        }
        if !rest.is_empty() {
            see(&mut seen, &last_block(bytes));
        }
        let seen = u128::from_ne_bytes(seen);
        let seen = (seen | seen >> 64) as u64;
        let seen = seen | seen >> 32;
        let seen = seen | seen >> 16;
        Self((seen | seen >> 8) as u8)
    }

    /// Whether the text has all of these.
    #[inline]
    pub(crate) fn have(self, needed: Self) -> bool {
        self.0 & needed.0 == needed.0
    }

    /// All combinations of traits that have all of these, as bits of a word.
    pub(crate) fn combinations(self) -> u32 {
        let all = (0..32_u8).filter(|&traits| Self(traits).have(self));
        all.fold(0, |bits, traits| bits | 1 << traits)
    }

    /// Whether this combination is one of those.
    #[inline]
    pub(crate) fn is_in(self, combinations: u32) -> bool {
        combinations >> (self.0 & 31) & 1 == 1
    }
}

/// The last 16 bytes; of a shorter text all, some of them twice.
#[inline]
fn last_block(bytes: &[u8]) -> [u8; 16] {
    if let Some(last) = bytes.last_chunk() {
        return *last;
    }
    let mut block = [0; 16];
    let (low, high) = block.split_at_mut(8);
    match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(first), Some(last)) => {
            low.copy_from_slice(first);
            high.copy_from_slice(last);
        }
        _ => match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
            (Some(first), Some(last)) => {
                let (low, high) = low.split_at_mut(4);
                low.copy_from_slice(first);
                high.copy_from_slice(last);
            }
            _ => low.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from),
        },
    }
    block
}

#[inline]
fn see(seen: &mut [u8; 16], block: &[u8; 16]) {
    for (traits, &byte) in seen.iter_mut().zip(block) {
        *traits |= of_byte(byte);
    }
}

/// Without branches, so that a block's bytes are looked at together.
#[inline]
fn of_byte(byte: u8) -> u8 {
    let all = |is: bool, traits: Traits| u8::from(is).wrapping_neg() & traits.0;
    let is_at = (byte == b'@') | (byte == b'%') | (byte == b'\\') | (byte == b'&');
    all(byte.wrapping_sub(b'0') < 10, Traits::DIGIT)
        | all(byte == b'.', Traits::DOT)
        | all(is_at, Traits::AT.and(Traits::B_OR_AT))
        | all(byte == b'J', Traits::J)
        | all(byte | 0x20 == b'b', Traits::B_OR_AT)
}

/// Whether an email address may be in a text: something stands for an `@`.
pub(crate) fn has_at(text: &str) -> bool {
    let bytes = text.as_bytes();
    if memchr3(b'@', b'%', b'\\', bytes).is_none() && memchr(b'&', bytes).is_none() {
        return false;
    }
    memchr(b'@', bytes).is_some()
        || after_each(bytes, memchr_iter(b'%', bytes), is_escaped_at)
        || after_each(bytes, memchr_iter(b'\\', bytes), |rest| {
            rest.starts_with(b"u0040")
        })
        || after_each(bytes, memchr_iter(b'&', bytes), |rest| {
            rest.starts_with(b"#64;") || rest.starts_with(b"#x40;")
        })
}

/// Whether a JSON web token may be in a text.
pub(crate) fn has_token(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_start = |at: usize| {
        bytes
            .get(..at)
            .is_some_and(|before| before.ends_with(b"ey"))
    };
    memchr_iter(b'J', bytes).any(is_start)
}

/// Whether credentials may be in a text: the name of a scheme, or the user information of a URL.
pub(crate) fn has_credentials(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_scheme = |rest: &[u8]| {
        let is = |name: &[u8]| {
            let start = rest.get(..name.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(name))
        };
        is(b"earer") || is(b"asic")
    };
    after_each(bytes, memchr2_iter(b'b', b'B', bytes), is_scheme)
        || (memchr2(b'@', b'%', bytes).is_some()
            && (after_each(bytes, memchr_iter(b':', bytes), |rest| {
                rest.starts_with(b"//")
            }) || after_each(bytes, memchr_iter(b'%', bytes), |rest| {
                rest.starts_with(b"3")
            })))
}

/// Whether what follows one of these places is such text.
fn after_each(
    bytes: &[u8],
    mut places: impl Iterator<Item = usize>,
    is: impl Fn(&[u8]) -> bool,
) -> bool {
    places.any(|at| bytes.get(at + 1..).is_some_and(&is))
}

/// Whether a text that follows a `%` makes it an `@`, escaped once or more.
fn is_escaped_at(mut rest: &[u8]) -> bool {
    while let Some(inner) = rest.strip_prefix(b"25") {
        rest = inner;
    }
    rest.starts_with(b"40")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_are_all_there_are(text in "[0-9.]{0,9}([0-9./xé]{1,9}[0-9.]{0,9}){0,6}", least in 7..14_usize) {
            let set = Set {
                has: |byte| byte.is_ascii_digit() || byte == b'.',
                mark: |bytes| between(bytes, b'.', b'9') | not_ascii(bytes),
            };
            let mut expect = Vec::new();
            let mut start = 0;
            for (at, byte) in text.bytes().chain([b'x']).enumerate() {
                if !(set.has)(byte) {
                    if at - start >= least {
                        expect.push(start..at);
                    }
                    start = at + 1;
                }
            }
            prop_assert_eq!(runs(&text, least, set).collect::<Vec<_>>(), expect);
        }
    }

    #[test]
    fn marks_are_of_each_byte() {
        for byte in 0..=u8::MAX {
            for place in 0..8 {
                let bytes = u64::from_le_bytes([b'-'; 8]) & !(0xff << (8 * place))
                    | u64::from(byte) << (8 * place);
                let is = |marks: u64| marks >> (8 * place + 7) & 1 == 1;
                assert_eq!(
                    is(between(bytes, b'.', b'9')),
                    (b'.'..=b'9').contains(&byte),
                    "{byte}"
                );
                assert_eq!(is(not_ascii(bytes)), !byte.is_ascii(), "{byte}");
                let others = between(bytes, b'-', b'-') | 0x80 << (8 * place);
                assert_eq!(others, HIGHEST, "{byte}");
            }
        }
    }

    proptest! {
        #[test]
        fn traits_are_those_of_the_bytes(text in "[0-9.@%&\\\\JbBxé]?[a-zé]{0,40}[0-9.@%&\\\\JbBx]?[a-z]{0,40}") {
            let of_bytes = text.bytes().fold(0, |traits, byte| traits | of_byte(byte));
            let traits = Traits::of(&text);
            match text.len() < Traits::LONG {
                true => prop_assert_eq!(traits, Traits(of_bytes)),
                false => prop_assert!(traits.have(Traits(of_bytes))),
            }
        }
    }

    #[test]
    fn what_stands_for_an_at_is_seen() {
        for text in [
            "a@b",
            "a%40b",
            "a%2540b",
            "a%25252540b",
            "a\\u0040b",
            "&#64;",
            "&#x40;",
            "%20%40",
        ] {
            assert!(has_at(text), "{text}");
        }
        for text in [
            "",
            "a",
            "100%",
            "a%20b",
            "a&b=c",
            "C:\\users",
            "%2",
            "&#65;",
            "a\\",
        ] {
            assert!(!has_at(text), "{text}");
        }
    }

    #[test]
    fn what_introduces_credentials_is_seen() {
        for text in ["bEARER x", "Basic", "a://b@c", "x%3A%2F%2Fa%40b"] {
            assert!(has_credentials(text), "{text}");
        }
        for text in [
            "",
            "b",
            "bear",
            "a basket",
            "http://shop/x",
            "100 %",
            "a@b.example",
        ] {
            assert!(!has_credentials(text), "{text}");
        }
    }
}
