//! A small protobuf writer.
//!
//! Each function appends one field to a message's bytes. Zeroes and empty text are written like any
//! other value: callers leave out what need not be sent.

use crate::record::{Attr, Value};
use crate::wire::{FIXED32, FIXED64, LEN, VARINT, key};

/// Appends a bare varint.
#[inline]
pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes that a varint takes.
#[inline]
const fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    (bits * 9 + 64) / 64
}

/// Bytes that a field of bytes takes, with a key of one byte.
#[inline]
const fn bytes_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

/// Appends a varint field: integers, enumerations and booleans. Negative numbers go in as `i64 as u64`.
#[inline]
pub fn uint(out: &mut Vec<u8>, field: u32, value: u64) {
    varint(out, u64::from(key(field, VARINT)));
    varint(out, value);
}

/// Appends a `fixed64` field.
#[inline]
pub fn fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    varint(out, u64::from(key(field, FIXED64)));
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a `fixed32` field.
#[inline]
pub fn fixed32(out: &mut Vec<u8>, field: u32, value: u32) {
    varint(out, u64::from(key(field, FIXED32)));
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a field of bytes or text, or a message that is encoded already.
#[inline]
pub fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    let tag = key(field, LEN);
    if tag < 0x80 && value.len() < 0x80 {
        out.extend_from_slice(&[tag as u8, value.len() as u8]);
    } else {
        varint(out, u64::from(tag));
        varint(out, value.len() as u64);
    }
    out.extend_from_slice(value);
}

/// Appends a sub-message whose fields `write` appends.
pub fn message(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    let mark = open(out, field);
    write(out);
    close(out, mark);
}

/// Where an open sub-message began, and the bytes left for its length before that.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    start: usize,
    room: usize,
}

/// Begins a sub-message.
pub(crate) fn open(out: &mut Vec<u8>, field: u32) -> Mark {
    open_with::<1>(out, field)
}

/// Begins a sub-message whose length will take `N` bytes, most likely.
#[inline]
pub(crate) fn open_with<const N: usize>(out: &mut Vec<u8>, field: u32) -> Mark {
    varint(out, u64::from(key(field, LEN)));
    out.extend_from_slice(&[0; N]);
    Mark {
        start: out.len(),
        room: N,
    }
}

/// Ends it: puts its length in front, which moves the content where the room does not fit.
#[inline]
pub(crate) fn close(out: &mut Vec<u8>, Mark { start, room }: Mark) {
    let len = out.len().saturating_sub(start);
    let needed = varint_len(len as u64);
    if needed != room {
        shift(out, start, room, needed);
    }
    put_len(out, start.saturating_sub(room), needed, len);
}

/// Ends it without moving its content: the length takes all the room that there is.
pub(crate) fn close_padded(out: &mut [u8], Mark { start, room }: Mark) {
    let len = out.len().saturating_sub(start);
    put_len(out, start.saturating_sub(room), room, len);
}

/// Moves what begins at `start` to where `needed` bytes instead of `room` lie before it.
#[cold]
fn shift(out: &mut Vec<u8>, start: usize, room: usize, needed: usize) {
    let end = out.len();
    if needed > room {
        out.resize(end + (needed - room), 0);
        out.copy_within(start..end, start + (needed - room));
    } else {
        out.copy_within(start..end, start.saturating_sub(room - needed));
        out.truncate(end.saturating_sub(room - needed));
    }
}

/// Writes a length as a varint of `width` bytes.
#[inline]
fn put_len(out: &mut [u8], at: usize, width: usize, mut len: usize) {
    for (i, byte) in out.iter_mut().skip(at).take(width).enumerate() {
        *byte = (len & 0x7f) as u8 | if i + 1 < width { 0x80 } else { 0 };
        len >>= 7;
    }
}

/// Bytes that [`value`] appends.
#[inline]
fn value_len<T: AsRef<[u8]>>(value: &Value<'_, T>) -> usize {
    match value {
        Value::Empty => 0,
        Value::Str(text) => bytes_len(text.as_ref().len()),
        Value::Bool(_) => 2,
        Value::Int(n) => 1 + varint_len(n.cast_unsigned()),
        Value::Double(_) => 9,
        Value::Array(list) | Value::KvList(list) => bytes_len(list.0.len()),
        Value::Bytes(raw) => bytes_len(raw.len()),
    }
}

/// Appends the fields of an `AnyValue` (none for [`Value::Empty`]); `T` is `&str` or `&[u8]`.
#[inline]
pub fn value<T: AsRef<[u8]>>(out: &mut Vec<u8>, value: &Value<'_, T>) {
    match value {
        Value::Empty => {}
        Value::Str(text) => bytes(out, 1, text.as_ref()),
        Value::Bool(b) => uint(out, 2, u64::from(*b)),
        Value::Int(n) => uint(out, 3, n.cast_unsigned()),
        Value::Double(x) => fixed64(out, 4, x.to_bits()),
        Value::Array(list) => bytes(out, 5, list.0),
        Value::KvList(list) => bytes(out, 6, list.0),
        Value::Bytes(raw) => bytes(out, 7, raw),
    }
}

/// Appends a `KeyValue` as field `field`.
#[inline]
pub fn key_value<T: AsRef<[u8]>>(out: &mut Vec<u8>, field: u32, name: &[u8], v: &Value<'_, T>) {
    // The lengths are known beforehand: nothing has to be moved for them.
    let any = value_len(v);
    let pair = bytes_len(name.len()) + bytes_len(any);
    let tag = key(field, LEN);
    if pair < 0x80 && tag < 0x80 {
        // What nearly all attributes look like: every key and length is one byte.
        out.reserve(2 + pair);
        out.extend_from_slice(&[tag as u8, pair as u8, 0x0a, name.len() as u8]);
        out.extend_from_slice(name);
        match v {
            Value::Str(text) => {
                let text = text.as_ref();
                out.extend_from_slice(&[0x12, any as u8, 0x0a, text.len() as u8]);
                out.extend_from_slice(text);
            }
            _ => {
                out.extend_from_slice(&[0x12, any as u8]);
                value(out, v);
            }
        }
        return;
    }
    varint(out, u64::from(tag));
    varint(out, pair as u64);
    bytes(out, 1, name);
    varint(out, u64::from(key(2, LEN)));
    varint(out, any as u64);
    value(out, v);
}

/// Appends attributes as the repeated field `field`.
#[inline]
pub fn attributes(out: &mut Vec<u8>, field: u32, attributes: &[Attr<'_>]) {
    for attribute in attributes {
        key_value(out, field, attribute.key.as_bytes(), &attribute.value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of `len` bytes, between others, begun with room for `N` bytes of length.
    fn check<const N: usize>(len: usize) {
        let content = vec![7; len];
        let mut expect = vec![1, 2];
        bytes(&mut expect, 3, &content);
        let mut out = vec![1, 2];
        let mark = open_with::<N>(&mut out, 3);
        out.extend_from_slice(&content);
        close(&mut out, mark);
        assert_eq!(out, expect, "{len} bytes with room for {N}");
        out.push(9);
        assert_eq!(out.len(), expect.len() + 1);
    }

    #[test]
    fn lengths_are_as_short_as_they_can_be() {
        for len in [0, 1, 127, 128, 300, 16_383, 16_384, 2_097_151, 2_097_152] {
            check::<1>(len);
            check::<2>(len);
            check::<3>(len);
        }
    }

    #[test]
    fn a_varint_is_as_long_as_it_says() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                varint(&mut out, value);
                assert_eq!(varint_len(value), out.len(), "{value}");
            }
        }
    }
}
