//! A small protobuf writer, and the sink that turns records back into OTLP.
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

/// Appends a varint field: integers, enumerations and booleans. Negative numbers go in as `i64 as u64`.
pub fn uint(out: &mut Vec<u8>, field: u32, value: u64) {
    varint(out, u64::from(key(field, VARINT)));
    varint(out, value);
}

/// Appends a `fixed64` field.
pub fn fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    varint(out, u64::from(key(field, FIXED64)));
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a `fixed32` field.
pub fn fixed32(out: &mut Vec<u8>, field: u32, value: u32) {
    varint(out, u64::from(key(field, FIXED32)));
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a field of bytes or text, or a message that is encoded already.
pub fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    varint(out, u64::from(key(field, LEN)));
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Appends a sub-message whose fields `write` appends.
pub fn message(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    let mark = open(out, field);
    write(out);
    close(out, mark);
}

/// Where an open sub-message began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark(usize);

/// Begins a sub-message.
pub(crate) fn open(out: &mut Vec<u8>, field: u32) -> Mark {
    varint(out, u64::from(key(field, LEN)));
    out.push(0);
    Mark(out.len())
}

/// Ends it: puts its length in front, which moves the content where one byte does not hold it.
pub(crate) fn close(out: &mut Vec<u8>, Mark(start): Mark) {
    let len = out.len().saturating_sub(start);
    let head = start.saturating_sub(1);
    if len < 0x80 {
        if let Some(byte) = out.get_mut(head) {
            *byte = len as u8;
        }
        return;
    }
    let mut prefix = Vec::with_capacity(5);
    varint(&mut prefix, len as u64);
    out.splice(head..start, prefix);
}

/// Begins a sub-message whose length will take `N` bytes, at most 2^(7N).
pub(crate) fn open_padded<const N: usize>(out: &mut Vec<u8>, field: u32) -> Mark {
    varint(out, u64::from(key(field, LEN)));
    out.extend_from_slice(&[0; N]);
    Mark(out.len())
}

/// Ends a message begun with [`open_padded`], without moving its content.
pub(crate) fn close_padded<const N: usize>(out: &mut [u8], Mark(start): Mark) {
    let mut len = out.len().saturating_sub(start);
    for (i, byte) in out
        .iter_mut()
        .take(start)
        .skip(start.saturating_sub(N))
        .enumerate()
    {
        *byte = (len & 0x7f) as u8 | if i + 1 < N { 0x80 } else { 0 };
        len >>= 7;
    }
}

/// Appends the fields of an `AnyValue` (none for [`Value::Empty`]); `T` is `&str` or `&[u8]`.
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
pub fn key_value<T: AsRef<[u8]>>(out: &mut Vec<u8>, field: u32, name: &[u8], v: &Value<'_, T>) {
    message(out, field, |pair| {
        bytes(pair, 1, name);
        message(pair, 2, |any| value(any, v));
    });
}

/// Appends attributes as the repeated field `field`.
pub fn attributes(out: &mut Vec<u8>, field: u32, attributes: &[Attr<'_>]) {
    for attribute in attributes {
        key_value(out, field, attribute.key.as_bytes(), &attribute.value);
    }
}
