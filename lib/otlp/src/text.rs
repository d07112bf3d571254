//! Bytes to text: the check for UTF-8.

/// The bytes as text, if they are UTF-8.
///
/// Almost all text in traces is short and ASCII. For that the standard library's check for UTF-8
/// takes about a nanosecond a byte, one for ASCII a few nanoseconds in all; a span has some
/// twenty texts.
#[inline]
#[allow(unsafe_code)] // the one place in this crate, for the reason above
pub fn utf8(bytes: &[u8]) -> Option<&str> {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
