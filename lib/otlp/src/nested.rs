//! Array and key-value-list values: the message bytes of `ArrayValue` and `KeyValueList`, read in place.

use crate::error::{DecodeError, DecodeErrorKind as Kind};
use crate::record::{RawValue, Value};
use crate::view::sealed::Parse;
use crate::view::{KeyValueView, Messages, any_value};
use crate::wire::Reader;

/// How deep arrays and key-value lists may lie in each other: a value with no list in it has depth 0,
/// a list of such values 1. Code that follows nested values must stop here.
pub const MAX_NESTING_DEPTH: usize = 64;

/// The bytes of an `ArrayValue` or `KeyValueList` message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nested<'a>(pub &'a [u8]);

/// Iterates over the items of an array.
pub type ArrayItems<'a> = Messages<'a, RawValue<'a>>;

/// Iterates over the pairs of a key-value list.
pub type KvItems<'a> = Messages<'a, KeyValueView<'a>>;

impl<'a> Nested<'a> {
    /// The items of an `ArrayValue`. After an error the iterator ends.
    pub fn array_items(self) -> ArrayItems<'a> {
        Messages::new(Reader::new(self.0, 0), 1)
    }

    /// The pairs of a `KeyValueList`. After an error the iterator ends.
    pub fn kv_items(self) -> KvItems<'a> {
        Messages::new(Reader::new(self.0, 0), 1)
    }
}

impl<'a> Parse<'a> for RawValue<'a> {
    fn parse(reader: Reader<'a>) -> Result<Self, DecodeError> {
        any_value(reader, Value::Empty)
    }
}

/// The items of a list that is still being followed.
enum Open<'a> {
    Array(ArrayItems<'a>),
    KvList(KvItems<'a>),
}

impl<'a> Open<'a> {
    /// `None` for a value that is no list.
    fn list<T>(value: Value<'a, T>) -> Option<Self> {
        match value {
            Value::Array(list) => Some(Self::Array(list.array_items())),
            Value::KvList(list) => Some(Self::KvList(list.kv_items())),
            _ => None,
        }
    }

    fn next(&mut self) -> Option<Result<RawValue<'a>, DecodeError>> {
        match self {
            Self::Array(items) => items.next(),
            Self::KvList(items) => items.next().map(|item| item.map(|pair| pair.value)),
        }
    }
}

/// Reads everything inside `value`: an error means that it is malformed or nests deeper than
/// [`MAX_NESTING_DEPTH`]. Not recursive; allocates only for values with lists.
pub fn check_depth<T>(value: Value<'_, T>) -> Result<(), DecodeError> {
    let mut open: Vec<Open<'_>> = Open::list(value).into_iter().collect();
    while let Some(list) = open.last_mut() {
        let Some(item) = list.next() else {
            open.pop();
            continue;
        };
        if let Some(inner) = Open::list(item?) {
            if open.len() >= MAX_NESTING_DEPTH {
                return Err(DecodeError {
                    kind: Kind::NestingTooDeep,
                    offset: 0,
                });
            }
            open.push(inner);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write;

    /// `depth` lists in each other, every third one a key-value list.
    fn nest(depth: usize) -> Vec<u8> {
        let mut value = Vec::new();
        write::value(&mut value, &Value::<&str>::Int(7));
        for level in 0..depth {
            let inner = std::mem::take(&mut value);
            write::message(&mut value, if level % 3 == 0 { 6 } else { 5 }, |list| {
                if level % 3 == 0 {
                    write::message(list, 1, |pair| {
                        write::bytes(pair, 1, b"k");
                        write::bytes(pair, 2, &inner);
                    });
                } else {
                    write::bytes(list, 1, &inner);
                }
            });
        }
        value
    }

    fn depth(bytes: &[u8]) -> Result<(), Kind> {
        let value = RawValue::parse(Reader::new(bytes, 0)).map_err(|e| e.kind)?;
        check_depth(value).map_err(|e| e.kind)
    }

    #[test]
    fn depth_limit() {
        assert_eq!(depth(&nest(0)), Ok(()));
        assert_eq!(depth(&nest(1)), Ok(()));
        assert_eq!(depth(&nest(MAX_NESTING_DEPTH)), Ok(()));
        assert_eq!(
            depth(&nest(MAX_NESTING_DEPTH + 1)),
            Err(Kind::NestingTooDeep)
        );
        assert_eq!(depth(&nest(5_000)), Err(Kind::NestingTooDeep));
    }

    #[test]
    fn malformed_items() {
        assert_eq!(depth(&[0x2a, 2, 0x0a, 9]), Err(Kind::Truncated));
        assert_eq!(depth(&[0x2a, 2, 0x08, 9]), Err(Kind::WrongWireType(1)));
        assert_eq!(depth(&[0x32, 4, 0x0a, 2, 0x0a, 9]), Err(Kind::Truncated));
        let mut items = Nested(&[0x0a, 0, 0x0a, 9]).array_items();
        assert_eq!(items.next(), Some(Ok(Value::Empty)));
        assert!(matches!(items.next(), Some(Err(_))));
        assert_eq!(items.next(), None, "an iterator ends after its error");
    }
}
