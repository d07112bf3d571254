//! Bytes to text: the check for UTF-8, and cuts that do not split a character.

/// The bytes as text, if they are UTF-8.
///
/// Almost all text in traces is short and ASCII. For that the standard library's check for UTF-8
/// takes about a nanosecond a byte, one for ASCII a few nanoseconds in all; a span has some
/// twenty texts.
#[inline]
#[allow(unsafe_code)] // the one place in this crate, for the reason above
pub(crate) fn utf8(bytes: &[u8]) -> Option<&str> {
    if is_ascii(bytes) {
        // SAFETY: ASCII is UTF-8.
        Some(unsafe { std::str::from_utf8_unchecked(bytes) })
    } else {
        simdutf8::basic::from_utf8(bytes).ok()
    }
}

/// Whether all bytes are ASCII. The standard library's check looks at up to 63 bytes at the end one by one,
/// which for most texts is all of them.
#[inline]
fn is_ascii(bytes: &[u8]) -> bool {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let (words, rest) = bytes.as_chunks::<8>();
    let mut all = words
        .iter()
        .fold(0, |all, word| all | u64::from_ne_bytes(*word));
    all |= match bytes.last_chunk::<8>() {
        // The last eight, some of them a second time.
        Some(word) => u64::from_ne_bytes(*word),
        None => u64::from(rest.iter().fold(0, |all, byte| all | byte)),
    };
    all & HIGH == 0
}

/// The longest start of `text` that has at most `max` bytes and ends with a whole character.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cuts_between_characters() {
        let check = |text, max, expect| assert_eq!(cut(text, max), expect);
        check("abc", 3, "abc");
        check("abc", 2, "ab");
        check("abc", 0, "");
        check("aé", 2, "a");
        check("aé", 3, "aé");
        check("😀", 3, "");
        check("", 5, "");
    }

    proptest! {
        #[test]
        fn agrees_with_the_standard_library(bytes: Vec<u8>) {
            prop_assert_eq!(utf8(&bytes), std::str::from_utf8(&bytes).ok());
        }

        #[test]
        fn finds_the_one_byte_that_is_not_ascii(len in 1usize..200, at: prop::sample::Index, byte in 0x80u8..) {
            let mut bytes = vec![b'a'; len];
            prop_assert!(is_ascii(&bytes));
            bytes[at.index(len)] = byte;
            prop_assert!(!is_ascii(&bytes));
        }

        #[test]
        fn takes_all_text(text: String) {
            prop_assert_eq!(utf8(text.as_bytes()), Some(&*text));
        }
    }
}
