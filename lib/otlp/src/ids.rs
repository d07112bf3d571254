//! Trace and span ids: bytes inside, hexadecimal text outside.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Why text is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum IdError {
    /// Too many or too few digits.
    #[error("an id of {expected} hexadecimal digits is needed, this has {found} characters")]
    Length {
        /// Digits that the id has.
        expected: usize,
        /// Characters that the text has.
        found: usize,
    },
    /// Not a hexadecimal digit.
    #[error("{character:?} at position {position} is not a hexadecimal digit")]
    Digit {
        /// The offending character.
        character: char,
        /// Its byte position, from 0.
        position: usize,
    },
}

/// The value of a hexadecimal digit of either case.
pub(crate) fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// An id of `N` bytes that is not zero.
#[inline]
pub fn not_zero<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    let id: [u8; N] = bytes.try_into().ok()?;
    (id != [0; N]).then_some(id)
}

/// Reads up to `2 * N` digits, flush right.
fn parse<const N: usize>(text: &str) -> Result<[u8; N], IdError> {
    let mut id = [0u8; N];
    if text.len() > 2 * N || text.is_empty() {
        return Err(IdError::Length {
            expected: 2 * N,
            found: text.chars().count(),
        });
    }
    for (position, character) in text.char_indices() {
        let digit = u8::try_from(character).ok().and_then(hex_digit);
        let Some(digit) = digit else {
            return Err(IdError::Digit {
                character,
                position,
            });
        };
        let place = 2 * N - text.len() + position;
        if let Some(byte) = id.get_mut(place / 2) {
            *byte |= if place.is_multiple_of(2) {
                digit << 4
            } else {
                digit
            };
        }
    }
    Ok(id)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// The length in bytes.
            pub const LEN: usize = $len;

            /// Whether all bytes are zero, which is not a valid id.
            pub fn is_zero(self) -> bool {
                self.0 == [0; $len]
            }

            /// The id of these bytes; `None` if they are too many or too few.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// Reads all the id's hexadecimal digits, of either case.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                match parse(text) {
                    Ok(_) if text.len() != 2 * $len => {
                        Err(IdError::Length { expected: 2 * $len, found: text.len() })
                    }
                    id => id.map(Self),
                }
            }

            /// Like [`Self::parse`], but leading zeros may be missing, as some tools cut them.
            pub fn parse_loose(text: &str) -> Result<Self, IdError> {
                parse(text).map(Self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id! {
    /// The id of a trace: 16 bytes, 32 lower-case digits as text.
    TraceId, 16
}
id! {
    /// The id of a span: 8 bytes, 16 lower-case digits as text.
    SpanId, 8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, strict: bool, loose: Option<&str>) {
        assert_eq!(SpanId::parse(text).is_ok(), strict, "strict {text:?}");
        let id = SpanId::parse_loose(text).ok().map(|id| id.to_string());
        assert_eq!(id.as_deref(), loose, "loose {text:?}");
    }

    #[test]
    fn span_ids() {
        check("0123456789abcdef", true, Some("0123456789abcdef"));
        check("0123456789ABCDEF", true, Some("0123456789abcdef"));
        check("0000000000000000", true, Some("0000000000000000"));
        check("1", false, Some("0000000000000001"));
        check("abc", false, Some("0000000000000abc"));
        check("123456789abcdef", false, Some("0123456789abcdef"));
        check("", false, None);
        check("00123456789abcdef", false, None);
        check("0123456789abcdeg", false, None);
        check("0x", false, None);
        check("-1", false, None);
        check(" 1", false, None);
        check("é", false, None);
        check("ééééééé", false, None);
    }

    #[test]
    fn trace_ids() {
        let text = "4bf92f3577b34da6a3ce929d0e0e4736";
        let id: TraceId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(id.0[0], 0x4b);
        assert_eq!(id.0[15], 0x36);
        assert!(!id.is_zero());
        assert!(TraceId::default().is_zero());
        assert_eq!(TraceId::from_slice(&id.0), Some(id));
        assert_eq!(TraceId::from_slice(&id.0[1..]), None);
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let error = SpanId::parse("01234é6789abcde").unwrap_err();
        assert_eq!(
            error,
            IdError::Digit {
                character: 'é',
                position: 5
            }
        );
        let error = SpanId::parse("12").unwrap_err().to_string();
        assert_eq!(
            error,
            "an id of 16 hexadecimal digits is needed, this has 2 characters"
        );
    }
}
