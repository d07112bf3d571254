//! JSON text back to values.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::json::parser::{Parser, Token};
use crate::json::{JsonError, JsonErrorKind as Problem};
use crate::nested::MAX_NESTING_DEPTH;

/// A value that owns what it holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum OwnedValue {
    /// No value.
    #[default]
    Empty,
    /// Text.
    Str(String),
    /// A boolean.
    Bool(bool),
    /// A signed 64-bit integer.
    Int(i64),
    /// A double.
    Double(f64),
    /// Raw bytes.
    Bytes(Vec<u8>),
    /// An array.
    Array(Vec<OwnedValue>),
    /// A key-value list, in the sender's order.
    KvList(Vec<(String, OwnedValue)>),
}

/// Reads a set of attributes, in order; empty text is an empty set.
pub fn parse_attributes(text: &str) -> Result<Vec<(String, OwnedValue)>, JsonError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut parser = Parser::new(text);
    let attributes = match parser.value()? {
        Token::Object => pairs(&mut parser, 0)?,
        _ => {
            return Err(JsonError::new(
                Problem::Expected("an object of attributes"),
                0,
            ));
        }
    };
    parser.end()?;
    Ok(attributes)
}

/// Reads one value.
pub fn parse_value(text: &str) -> Result<OwnedValue, JsonError> {
    let mut parser = Parser::new(text);
    let value = value(&mut parser, 0)?;
    parser.end()?;
    Ok(value)
}

/// The rest of an object whose values are values. Recursive through [`value`], which counts.
fn pairs(parser: &mut Parser<'_>, depth: usize) -> Result<Vec<(String, OwnedValue)>, JsonError> {
    let mut pairs = Vec::new();
    let mut first = true;
    while let Some(key) = parser.next_key(&mut first)? {
        pairs.push((key.into_owned(), value(parser, depth)?));
    }
    Ok(pairs)
}

fn value(parser: &mut Parser<'_>, depth: usize) -> Result<OwnedValue, JsonError> {
    Ok(match parser.value()? {
        Token::Null => OwnedValue::Empty,
        Token::Bool(b) => OwnedValue::Bool(b),
        Token::String(text) => OwnedValue::Str(text.into_owned()),
        Token::Number(text) => number(parser, text)?,
        Token::Array if depth >= MAX_NESTING_DEPTH => {
            return Err(parser.fail(Problem::TooDeep(MAX_NESTING_DEPTH)));
        }
        Token::Array => {
            let mut items = Vec::new();
            let mut first = true;
            while parser.next_item(&mut first)? {
                items.push(value(parser, depth + 1)?);
            }
            OwnedValue::Array(items)
        }
        Token::Object => object(parser, depth)?,
    })
}

fn number(parser: &Parser<'_>, text: &str) -> Result<OwnedValue, JsonError> {
    if text.contains(['.', 'e', 'E']) {
        return match text.parse::<f64>() {
            Ok(x) if x.is_finite() => Ok(OwnedValue::Double(x)),
            _ => Err(parser.fail(Problem::Expected("a finite number"))),
        };
    }
    match text.parse() {
        Ok(n) => Ok(OwnedValue::Int(n)),
        Err(_) => Err(parser.fail(Problem::Expected("an integer of 64 bits"))),
    }
}

/// The rest of `{"bytesValue":…}`, `{"doubleValue":…}` or `{"kvlistValue":…}`.
fn object(parser: &mut Parser<'_>, depth: usize) -> Result<OwnedValue, JsonError> {
    const PROBLEM: Problem =
        Problem::Expected("bytesValue, doubleValue or kvlistValue, and it alone");
    let mut first = true;
    let Some(key) = parser.next_key(&mut first)? else {
        return Err(parser.fail(PROBLEM));
    };
    let value = match (key.as_ref(), parser.value()?) {
        ("bytesValue", Token::String(text)) => match STANDARD.decode(text.as_bytes()) {
            Ok(raw) => OwnedValue::Bytes(raw),
            Err(_) => return Err(parser.fail(Problem::Expected("base64"))),
        },
        ("doubleValue", Token::String(text)) => match text.as_ref() {
            "NaN" => OwnedValue::Double(f64::NAN),
            "Infinity" => OwnedValue::Double(f64::INFINITY),
            "-Infinity" => OwnedValue::Double(f64::NEG_INFINITY),
            _ => return Err(parser.fail(Problem::Expected("NaN, Infinity or -Infinity"))),
        },
        ("kvlistValue", Token::Object) if depth >= MAX_NESTING_DEPTH => {
            return Err(parser.fail(Problem::TooDeep(MAX_NESTING_DEPTH)));
        }
        ("kvlistValue", Token::Object) => OwnedValue::KvList(pairs(parser, depth + 1)?),
        _ => return Err(parser.fail(PROBLEM)),
    };
    match parser.next_key(&mut first)? {
        None => Ok(value),
        Some(_) => Err(parser.fail(PROBLEM)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nested::Nested;
    use crate::record::{Attr, Value};
    use crate::value_json::{write_attributes, write_value};
    use crate::write;
    use proptest::prelude::*;

    fn text(value: &Value<'_>) -> String {
        let mut out = Vec::new();
        write_value(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn written_forms() {
        let check = |value: Value<'_>, expect| assert_eq!(text(&value), expect);
        check(Value::Empty, "null");
        check(Value::Str("a\"\\\n\u{1}/é"), r#""a\"\\\n\u0001/é""#);
        check(Value::Bool(true), "true");
        check(Value::Int(i64::MIN), "-9223372036854775808");
        check(Value::Double(1.0), "1.0");
        check(Value::Double(-0.0), "-0.0");
        check(Value::Double(1e300), "1e300");
        check(Value::Double(0.1), "0.1");
        check(Value::Double(f64::NAN), r#"{"doubleValue":"NaN"}"#);
        check(
            Value::Double(f64::NEG_INFINITY),
            r#"{"doubleValue":"-Infinity"}"#,
        );
        check(Value::Bytes(b"\xff\xfe"), r#"{"bytesValue":"//4="}"#);
        check(Value::Array(Nested(&[])), "[]");
        check(Value::KvList(Nested(&[])), r#"{"kvlistValue":{}}"#);
        let invalid = [0x0a, 4, 0x0a, 2, 0xff, b'a', 0x0a, 0];
        check(Value::Array(Nested(&invalid)), "[\"\u{fffd}a\",null]");
    }

    #[test]
    fn what_is_not_a_value() {
        let bad = |text: &str| assert!(parse_value(text).is_err(), "{text}");
        for text in [
            "",
            "{}",
            "{\"a\":1}",
            "9223372036854775808",
            "1e999",
            "[1,]",
            "[1] 2",
        ] {
            bad(text);
        }
        bad(r#"{"bytesValue":"*"}"#);
        bad(r#"{"bytesValue":1}"#);
        bad(r#"{"doubleValue":"1"}"#);
        bad(r#"{"kvlistValue":[]}"#);
        bad(r#"{"kvlistValue":{},"kvlistValue":{}}"#);
        bad(&"[".repeat(100_000));
        bad(&r#"{"kvlistValue":{"k":"#.repeat(100_000));
        assert_eq!(parse_attributes(""), Ok(Vec::new()));
        assert!(parse_attributes("[]").is_err());
    }

    #[test]
    fn the_deepest_value_survives() {
        for field in [5, 6] {
            let mut bytes = Vec::new();
            let mut expect = OwnedValue::Empty;
            for _ in 0..MAX_NESTING_DEPTH {
                let inner = std::mem::take(&mut bytes);
                write::message(&mut bytes, field, |list| match field {
                    5 => write::bytes(list, 1, &inner),
                    _ => write::message(list, 1, |pair| write::bytes(pair, 2, &inner)),
                });
                expect = match field {
                    5 => OwnedValue::Array(vec![expect]),
                    _ => OwnedValue::KvList(vec![(String::new(), expect)]),
                };
            }
            let mut wrapped = Vec::new();
            write::bytes(&mut wrapped, 1, &bytes);
            let item = Nested(&wrapped).array_items().next().unwrap().unwrap();
            let value: Value<'_> = match item {
                Value::Array(list) => Value::Array(list),
                Value::KvList(list) => Value::KvList(list),
                other => panic!("{other:?}"),
            };
            assert_eq!(parse_value(&text(&value)), Ok(expect));
        }
    }

    fn any_value() -> impl Strategy<Value = OwnedValue> {
        let leaf = prop_oneof![
            Just(OwnedValue::Empty),
            ".*".prop_map(OwnedValue::Str),
            any::<bool>().prop_map(OwnedValue::Bool),
            any::<i64>().prop_map(OwnedValue::Int),
            any::<f64>()
                .prop_filter("NaN equals nothing", |x| !x.is_nan())
                .prop_map(OwnedValue::Double),
            any::<Vec<u8>>().prop_map(OwnedValue::Bytes),
        ];
        leaf.prop_recursive(5, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(OwnedValue::Array),
                prop::collection::vec((".*", inner), 0..6).prop_map(OwnedValue::KvList),
            ]
        })
    }

    /// The fields of an `AnyValue`.
    fn encode(out: &mut Vec<u8>, value: &OwnedValue) {
        match value {
            OwnedValue::Array(items) => write::message(out, 5, |list| {
                items
                    .iter()
                    .for_each(|item| write::message(list, 1, |any| encode(any, item)));
            }),
            OwnedValue::KvList(pairs) => write::message(out, 6, |list| {
                for (key, value) in pairs {
                    write::message(list, 1, |pair| {
                        write::bytes(pair, 1, key.as_bytes());
                        write::message(pair, 2, |any| encode(any, value));
                    });
                }
            }),
            OwnedValue::Empty => {}
            OwnedValue::Str(text) => write::value(out, &Value::Str(text.as_str())),
            OwnedValue::Bool(b) => write::value(out, &Value::<&str>::Bool(*b)),
            OwnedValue::Int(n) => write::value(out, &Value::<&str>::Int(*n)),
            OwnedValue::Double(x) => write::value(out, &Value::<&str>::Double(*x)),
            OwnedValue::Bytes(raw) => write::value(out, &Value::<&str>::Bytes(raw)),
        }
    }

    proptest! {
        #[test]
        fn values_survive(pairs in prop::collection::vec((".*", any_value()), 0..6)) {
            let mut bytes = Vec::new();
            for (key, value) in &pairs {
                write::message(&mut bytes, 1, |pair| {
                    write::bytes(pair, 1, key.as_bytes());
                    write::message(pair, 2, |any| encode(any, value));
                });
            }
            let attributes: Vec<Attr<'_>> = Nested(&bytes)
                .kv_items()
                .map(Result::unwrap)
                .map(|pair| Attr {
                    key: std::str::from_utf8(pair.key).unwrap(),
                    value: match pair.value {
                        Value::Str(text) => Value::Str(std::str::from_utf8(text).unwrap()),
                        Value::Empty => Value::Empty,
                        Value::Bool(b) => Value::Bool(b),
                        Value::Int(n) => Value::Int(n),
                        Value::Double(x) => Value::Double(x),
                        Value::Bytes(raw) => Value::Bytes(raw),
                        Value::Array(list) => Value::Array(list),
                        Value::KvList(list) => Value::KvList(list),
                    },
                })
                .collect();
            let mut out = Vec::new();
            write_attributes(&mut out, &attributes);
            let json = String::from_utf8(out).unwrap();
            prop_assert_eq!(parse_attributes(&json), Ok(pairs));
            prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(&json).is_ok());
        }
    }
}
