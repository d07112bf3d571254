//! Attribute values: from the store's columns and JSON text to what the API answers with.
//!
//! The store's JSON text keeps OTLP's types apart: a number with a point or an exponent is a
//! double, one without is an integer, `{"bytesValue":…}`, `{"doubleValue":…}` and
//! `{"kvlistValue":{…}}` are what their names say.

use std::fmt;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;
use utoipa::ToSchema;

/// OTLP's types of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ValueType {
    /// Text.
    String,
    /// A 64-bit integer; the value is its text.
    Int,
    /// A double; NaN and the infinities are texts.
    Double,
    /// A boolean.
    Bool,
    /// Bytes; the value is their base64.
    Bytes,
    /// A list of values, each with its type.
    Array,
    /// A list of keys and values.
    Kvlist,
    /// An attribute without a value.
    Empty,
}

impl ValueType {
    /// The type that answers call `name`.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "string" => Self::String,
            "int" => Self::Int,
            "double" => Self::Double,
            "bool" => Self::Bool,
            "bytes" => Self::Bytes,
            "array" => Self::Array,
            "kvlist" => Self::Kvlist,
            "empty" => Self::Empty,
            _ => return None,
        })
    }
}

/// One attribute.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Attribute {
    /// The key.
    pub key: String,
    /// The value's type.
    pub r#type: ValueType,
    /// The value: an integer is a string of digits; an array holds objects of type and value; a
    /// kvlist holds objects of key, type and value.
    pub value: Json,
}

/// A value with its type.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TypedValue {
    r#type: ValueType,
    value: Json,
}

impl TypedValue {
    fn new(r#type: ValueType, value: impl Into<Json>) -> Self {
        Self {
            r#type,
            value: value.into(),
        }
    }

    /// Text.
    pub fn string(text: String) -> Self {
        Self::new(ValueType::String, text)
    }

    /// An integer.
    pub fn int(number: i64) -> Self {
        Self::new(ValueType::Int, number.to_string())
    }

    /// A double.
    pub fn double(number: f64) -> Self {
        let text = match number {
            _ if number.is_nan() => "NaN",
            f64::INFINITY => "Infinity",
            f64::NEG_INFINITY => "-Infinity",
            _ => return Self::new(ValueType::Double, number),
        };
        Self::new(ValueType::Double, text)
    }

    /// A boolean.
    pub fn bool(value: bool) -> Self {
        Self::new(ValueType::Bool, value)
    }

    /// A list of values.
    pub fn array(items: impl Iterator<Item = Self>) -> Self {
        let items =
            items.map(|typed| serde_json::json!({"type": typed.r#type, "value": typed.value}));
        Self::new(ValueType::Array, items.collect::<Vec<_>>())
    }

    /// The value of the store's JSON text. Text that is not of ours comes back as the string that
    /// it is.
    pub fn stored(text: &str) -> Self {
        parse(text).map_or_else(|| Self::string(text.to_owned()), Self::from_stored)
    }

    fn from_stored(stored: Stored) -> Self {
        match stored {
            Stored::Null => Self::new(ValueType::Empty, Json::Null),
            Stored::Bool(value) => Self::bool(value),
            Stored::Int(number) => Self::int(number),
            Stored::Double(number) => Self::double(number),
            Stored::Str(text) => Self::string(text),
            Stored::Array(items) => Self::array(items.into_iter().map(Self::from_stored)),
            Stored::Object(members) => Self::from_object(members),
        }
    }

    fn from_object(mut members: Vec<(String, Stored)>) -> Self {
        let only = (members.len() == 1).then(|| members.pop()).flatten();
        match only {
            Some((key, Stored::Str(text))) if key == "bytesValue" => {
                Self::new(ValueType::Bytes, text)
            }
            Some((key, Stored::Str(text))) if key == "doubleValue" => {
                Self::new(ValueType::Double, text)
            }
            Some((key, Stored::Object(inner))) if key == "kvlistValue" => kvlist(inner),
            Some(other) => kvlist(vec![other]),
            // A bare object is not of ours; a list of its members is what it means.
            None => kvlist(members),
        }
    }

    /// This value under `key`.
    pub fn under(self, key: String) -> Attribute {
        Attribute {
            key,
            r#type: self.r#type,
            value: self.value,
        }
    }
}

fn kvlist(members: Vec<(String, Stored)>) -> TypedValue {
    let members = members.into_iter().map(|(key, value)| {
        let typed = TypedValue::from_stored(value);
        serde_json::json!({"key": key, "type": typed.r#type, "value": typed.value})
    });
    TypedValue::new(ValueType::Kvlist, members.collect::<Vec<_>>())
}

/// The double of an attribute's value, as [`TypedValue::double`] writes it.
pub fn double_of(value: &Json) -> f64 {
    match value.as_str() {
        Some("NaN") => f64::NAN,
        Some("Infinity") => f64::INFINITY,
        Some("-Infinity") => f64::NEG_INFINITY,
        _ => value.as_f64().unwrap_or(0.0),
    }
}

/// The attributes of the store's JSON object, `''` being none.
pub fn stored_attributes(text: &str) -> Vec<Attribute> {
    match parse(text) {
        Some(Stored::Object(members)) => members
            .into_iter()
            .map(|(key, value)| TypedValue::from_stored(value).under(key))
            .collect(),
        _ => Vec::new(),
    }
}

/// JSON with its members in their order, none lost, and integers apart from doubles.
enum Stored {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Str(String),
    Array(Vec<Stored>),
    Object(Vec<(String, Stored)>),
}

/// Values nest 64 deep at most, and a kvlist takes two levels of JSON.
const JSON_DEPTH_MAX: usize = 2 * 64 + 8;

fn parse(text: &str) -> Option<Stored> {
    if depth(text) > JSON_DEPTH_MAX {
        return None;
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    // Its own limit of 128 is just too low for us; the depth is known to be bounded.
    deserializer.disable_recursion_limit();
    let stored = Stored::deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    Some(stored)
}

/// How deep the brackets of a JSON text nest, those in strings left out.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0_usize);
    let (mut in_string, mut escaped) = (false, false);
    for byte in text.bytes() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

impl<'de> Deserialize<'de> for Stored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StoredVisitor)
    }
}

struct StoredVisitor;

impl<'de> Visitor<'de> for StoredVisitor {
    type Value = Stored;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Stored, E> {
        Ok(Stored::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Stored, E> {
        Ok(Stored::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Stored, E> {
        Ok(Stored::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Stored, E> {
        // Beyond an i64 it is not an integer of OTLP.
        #[expect(clippy::cast_precision_loss)]
        Ok(i64::try_from(value).map_or(Stored::Double(value as f64), Stored::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Stored, E> {
        Ok(Stored::Double(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Stored, E> {
        Ok(Stored::Str(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Stored, E> {
        Ok(Stored::Str(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Stored, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Stored::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Stored, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Stored::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(stored: &str, expect: &str) {
        let value = serde_json::to_string(&TypedValue::stored(stored)).unwrap();
        assert_eq!(value, expect, "{stored}");
    }

    #[test]
    fn values() {
        check("null", r#"{"type":"empty","value":null}"#);
        check("true", r#"{"type":"bool","value":true}"#);
        check(
            "9223372036854775807",
            r#"{"type":"int","value":"9223372036854775807"}"#,
        );
        check(
            "-9223372036854775808",
            r#"{"type":"int","value":"-9223372036854775808"}"#,
        );
        check("1.0", r#"{"type":"double","value":1.0}"#);
        check("-0.0", r#"{"type":"double","value":-0.0}"#);
        check("1e300", r#"{"type":"double","value":1e+300}"#);
        check(
            r#"{"doubleValue":"NaN"}"#,
            r#"{"type":"double","value":"NaN"}"#,
        );
        check(
            r#"{"doubleValue":"-Infinity"}"#,
            r#"{"type":"double","value":"-Infinity"}"#,
        );
        check(
            r#"{"bytesValue":"AQI="}"#,
            r#"{"type":"bytes","value":"AQI="}"#,
        );
        check(r#""a\n\"b""#, r#"{"type":"string","value":"a\n\"b"}"#);
        check("[]", r#"{"type":"array","value":[]}"#);
        check(
            r#"[1,"x",[2.5]]"#,
            concat!(
                r#"{"type":"array","value":[{"type":"int","value":"1"},"#,
                r#"{"type":"string","value":"x"},"#,
                r#"{"type":"array","value":[{"type":"double","value":2.5}]}]}"#
            ),
        );
        check(
            r#"{"kvlistValue":{"b":1,"a":{"kvlistValue":{}}}}"#,
            concat!(
                r#"{"type":"kvlist","value":[{"key":"b","type":"int","value":"1"},"#,
                r#"{"key":"a","type":"kvlist","value":[]}]}"#
            ),
        );
        // A key that looks like one of ours is told apart by standing inside a list.
        check(
            r#"{"kvlistValue":{"bytesValue":"x"}}"#,
            r#"{"type":"kvlist","value":[{"key":"bytesValue","type":"string","value":"x"}]}"#,
        );
        check("{oops", r#"{"type":"string","value":"{oops"}"#);
        check("1 2", r#"{"type":"string","value":"1 2"}"#);
        check("", r#"{"type":"string","value":""}"#);
    }

    #[test]
    fn deep_values() {
        let nested = |depth: usize, open: &str, close: &str| {
            TypedValue::stored(&format!("{}1{}", open.repeat(depth), close.repeat(depth)))
        };
        assert_eq!(nested(64, "[", "]").r#type, ValueType::Array);
        assert_eq!(
            nested(64, r#"{"kvlistValue":{"k":"#, "}}").r#type,
            ValueType::Kvlist
        );
        assert_eq!(nested(100_000, "[", "]").r#type, ValueType::String);
        assert_eq!(depth(r#"["]]]\"[[["]"#), 1);
    }

    #[test]
    fn attribute_sets() {
        let keys = |text: &str| {
            let attributes = stored_attributes(text).into_iter();
            attributes
                .map(|attribute| attribute.key)
                .collect::<Vec<_>>()
        };
        assert_eq!(keys(r#"{"b":1,"a":"x"}"#), ["b", "a"]);
        assert_eq!(keys(r#"{"bytesValue":"x"}"#), ["bytesValue"]);
        assert_eq!(keys("{}"), [""; 0]);
        assert_eq!(keys(""), [""; 0]);
        assert_eq!(keys("[1]"), [""; 0]);
    }
}
