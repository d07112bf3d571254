//! Attributes and their values.

use super::sealed::Parse;
use super::{Attributes, Messages};
use crate::error::{DecodeError, DecodeErrorKind as Kind};
use crate::nested::Nested;
use crate::record::{RawValue, Value};
use crate::wire::{FIXED64, LEN, Reader, VARINT, key};

/// One attribute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KeyValueView<'a> {
    /// The key, not yet checked to be UTF-8.
    pub key: &'a [u8],
    /// The value.
    pub value: RawValue<'a>,
}

const KEY: u32 = key(1, LEN);
const VALUE: u32 = key(2, LEN);

impl<'a> Parse<'a> for KeyValueView<'a> {
    #[inline(always)]
    fn parse(mut reader: Reader<'a>) -> Result<Self, DecodeError> {
        match Self::short(reader.rest()) {
            Some(view) => Ok(view),
            None => Self::parse_any(&mut reader),
        }
    }
}

impl<'a> KeyValueView<'a> {
    /// Reads what nearly all attributes look like: a short key, then one short scalar and nothing else.
    #[inline(always)]
    fn short(bytes: &'a [u8]) -> Option<Self> {
        let [0x0a, key_len @ ..0x80, ref rest @ ..] = *bytes else {
            return None;
        };
        let (key, rest) = rest.split_at_checked(usize::from(key_len))?;
        let [0x12, any_len @ ..0x80, kind, ref any @ ..] = *rest else {
            return None;
        };
        if any.len() + 1 != usize::from(any_len) {
            return None;
        }
        let value = match (u32::from(kind), any) {
            (STRING, &[len @ ..0x80, ref text @ ..]) if text.len() == usize::from(len) => {
                Value::Str(text)
            }
            (BOOL, &[b @ ..0x80]) => Value::Bool(b != 0),
            (INT, &[n @ ..0x80]) => Value::Int(i64::from(n)),
            (INT, &[a @ 0x80..=0xff, b @ ..0x80]) => {
                Value::Int(i64::from(a & 0x7f) | i64::from(b) << 7)
            }
            (DOUBLE, any) => Value::Double(f64::from_le_bytes(any.try_into().ok()?)),
            _ => return None,
        };
        Some(Self { key, value })
    }

    #[inline(never)]
    fn parse_any(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut view = Self {
            key: &[],
            value: Value::Empty,
        };
        while !reader.is_empty() {
            match reader.key()? {
                KEY => view.key = reader.bytes()?,
                VALUE => view.value = any_value(reader.message()?, view.value)?,
                other => reader.unused(other, 0b110)?,
            }
        }
        Ok(view)
    }
}

const STRING: u32 = key(1, LEN);
const BOOL: u32 = key(2, VARINT);
const INT: u32 = key(3, VARINT);
const DOUBLE: u32 = key(4, FIXED64);
const ARRAY: u32 = key(5, LEN);
const KV_LIST: u32 = key(6, LEN);
const BYTES: u32 = key(7, LEN);
/// An index into the dictionary of a profile; in a trace it means nothing.
const STRING_INDEX: u32 = key(8, VARINT);

/// Reads an `AnyValue` into `value`: the last field counts.
pub(crate) fn any_value<'a>(
    mut reader: Reader<'a>,
    mut value: RawValue<'a>,
) -> Result<RawValue<'a>, DecodeError> {
    while !reader.is_empty() {
        let next = match reader.key()? {
            STRING => Value::Str(reader.bytes()?),
            BOOL => Value::Bool(reader.varint()? != 0),
            INT => Value::Int(reader.varint()?.cast_signed()),
            DOUBLE => Value::Double(f64::from_bits(reader.fixed64()?)),
            ARRAY => Value::Array(Nested(reader.bytes()?)),
            KV_LIST => Value::KvList(Nested(reader.bytes()?)),
            BYTES => Value::Bytes(reader.bytes()?),
            STRING_INDEX => {
                reader.varint()?;
                Value::Empty
            }
            other => {
                reader.unused(other, 0b1_1111_1110)?;
                continue;
            }
        };
        value = match value {
            Value::Array(_) | Value::KvList(_) => after_list(&reader, value, next)?,
            _ => next,
        };
    }
    Ok(value)
}

/// A second field after a list: fine only if the list is empty, or joined by an empty one.
#[cold]
fn after_list<'a>(
    at: &Reader<'a>,
    list: RawValue<'a>,
    next: RawValue<'a>,
) -> Result<RawValue<'a>, DecodeError> {
    match (list, next) {
        (Value::Array(Nested([])) | Value::KvList(Nested([])), _) => Ok(next),
        (Value::Array(_), Value::Array(Nested([]))) => Ok(list),
        (Value::KvList(_), Value::KvList(Nested([]))) => Ok(list),
        _ => Err(at.fail(Kind::SplitValue)),
    }
}

/// The attributes of a resource or scope, also where the message came in several pieces.
#[derive(Debug, Clone)]
pub struct MergedAttributes<'a> {
    current: Attributes<'a>,
    /// The pieces after the current one; almost always none.
    more: Messages<'a, Piece<'a>>,
    field: u32,
}

/// A message whose fields are looked at later.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece<'a>(Reader<'a>);

impl<'a> Parse<'a> for Piece<'a> {
    fn parse(reader: Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self(reader))
    }
}

impl<'a> MergedAttributes<'a> {
    /// Attributes with the number `field` in `first`, then in the messages that `more` has as its
    /// field 1.
    pub(super) fn new(first: Reader<'a>, more: Reader<'a>, field: u32) -> Self {
        Self {
            current: Messages::new(first, field),
            more: Messages::new(more, 1),
            field,
        }
    }
}

impl<'a> Iterator for MergedAttributes<'a> {
    type Item = Result<KeyValueView<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.current.next() {
                if item.is_err() {
                    self.more.reader.stop();
                }
                return Some(item);
            }
            match self.more.next()? {
                Ok(Piece(piece)) => self.current = Messages::new(piece, self.field),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
