//! Values to JSON text.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::nested::MAX_NESTING_DEPTH;
use crate::record::{Attr, Value};

/// Appends a value's JSON text.
///
/// Lists deeper than [`MAX_NESTING_DEPTH`] become `null` and a malformed list ends at its error:
/// [`check_depth`](crate::nested::check_depth) finds both beforehand. Invalid UTF-8 inside lists
/// becomes U+FFFD.
pub fn write_value(out: &mut Vec<u8>, value: &Value<'_>) {
    match value {
        Value::Str(text) => escape(out, text),
        other => any(out, other, 0),
    }
}

/// Appends attributes as one JSON object.
pub fn write_attributes(out: &mut Vec<u8>, attributes: &[Attr<'_>]) {
    out.push(b'{');
    for (i, attribute) in attributes.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        escape(out, attribute.key);
        out.push(b':');
        write_value(out, &attribute.value);
    }
    out.push(b'}');
}

/// A value that may be inside a list, whose text is not checked. Recursive, as deep as lists may nest.
fn any<T: AsRef<[u8]>>(out: &mut Vec<u8>, value: &Value<'_, T>, depth: usize) {
    match value {
        Value::Empty => out.extend_from_slice(b"null"),
        Value::Str(text) => escape(out, &String::from_utf8_lossy(text.as_ref())),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int(n) => print(out, format_args!("{n}")),
        // Rust's debug form of a finite double is its shortest exact one, with a point or exponent.
        Value::Double(x) if x.is_finite() => print(out, format_args!("{x:?}")),
        Value::Double(x) => {
            let name = match (x.is_nan(), *x > 0.0) {
                (true, _) => "NaN",
                (_, true) => "Infinity",
                (_, false) => "-Infinity",
            };
            print(out, format_args!(r#"{{"doubleValue":"{name}"}}"#));
        }
        Value::Bytes(raw) => print(
            out,
            format_args!(r#"{{"bytesValue":"{}"}}"#, STANDARD.encode(raw)),
        ),
        Value::Array(_) | Value::KvList(_) if depth >= MAX_NESTING_DEPTH => {
            out.extend_from_slice(b"null");
        }
        Value::Array(list) => {
            out.push(b'[');
            for (i, item) in list.array_items().map_while(Result::ok).enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                any(out, &item, depth + 1);
            }
            out.push(b']');
        }
        Value::KvList(list) => {
            out.extend_from_slice(br#"{"kvlistValue":{"#);
            for (i, pair) in list.kv_items().map_while(Result::ok).enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                escape(out, &String::from_utf8_lossy(pair.key));
                out.push(b':');
                any(out, &pair.value, depth + 1);
            }
            out.extend_from_slice(b"}}");
        }
    }
}

/// Appends formatted text.
pub(crate) fn print(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a vector has no error.
    let _ = out.write_fmt(text);
}

/// For each byte what follows the backslash: 0 for none needed, `u` for a four-digit escape.
const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = b'u';
        byte += 1;
    }
    table[b'\n' as usize] = b'n';
    table[b'\r' as usize] = b'r';
    table[b'\t' as usize] = b't';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

/// Appends text as a JSON string, with its quotes.
pub fn escape(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest
        .iter()
        .position(|&byte| ESCAPES[usize::from(byte)] != 0)
    {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        let [byte, after @ ..] = special else { break };
        match ESCAPES[usize::from(*byte)] {
            b'u' => print(out, format_args!("\\u{byte:04x}")),
            letter => out.extend_from_slice(&[b'\\', letter]),
        }
        rest = after;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}
