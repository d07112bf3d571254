//! A tag's value against what is stored as JSON text: an attribute that is neither text nor number, or an
//! attribute of a resource, scope, event or link.

use crate::sql::Sql;

/// The number that a tag's value reads as.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Int(i64),
    Double(f64),
}

impl Number {
    /// Reads a value; `inf` and `nan` are no numbers here, see [`special_double`].
    pub(super) fn of(value: &str) -> Option<Self> {
        if let Ok(int) = value.parse() {
            return Some(Self::Int(int));
        }
        let looks_like_one = value.bytes().any(|byte| byte.is_ascii_digit());
        value
            .parse()
            .ok()
            .filter(|double: &f64| looks_like_one && double.is_finite())
            .map(Self::Double)
    }

    /// The integer that it is: 3.0 is 3.
    pub(super) fn int(self) -> Option<i64> {
        // Beyond this, doubles are whole numbers that not all integers have.
        const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
        match self {
            Self::Int(int) => Some(int),
            #[expect(clippy::cast_possible_truncation)]
            Self::Double(double) if double.fract() == 0.0 && double.abs() <= EXACT_MAX => {
                Some(double as i64)
            }
            Self::Double(_) => None,
        }
    }

    /// The nearest double: what a person means who types a whole number.
    pub(super) fn double(self) -> f64 {
        match self {
            #[expect(clippy::cast_precision_loss)]
            Self::Int(int) => int as f64,
            Self::Double(double) => double,
        }
    }
}

/// The test, around the key, that an attribute is the double which a trace shows so.
pub(super) fn special_double(value: &str) -> Option<(&'static str, &'static str)> {
    match value {
        "NaN" => Some(("isNaN(attr_double[", "])")),
        "Infinity" => Some(("attr_double[", "] = inf")),
        "-Infinity" => Some(("attr_double[", "] = -inf")),
        _ => None,
    }
}

/// A tag's value.
pub(super) struct Value<'a> {
    text: &'a str,
    pub(super) number: Option<Number>,
    /// The JSON texts that stand for it.
    literals: Vec<String>,
}

impl<'a> Value<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        Self {
            text,
            number: Number::of(text),
            literals: literals(text),
        }
    }

    /// The condition that the JSON text `stored`, or an element of the array that it is, is this value.
    pub(super) fn matches(&self, stored: &Sql) -> Sql {
        let mut sql = Sql::new("arrayExists(r -> ");
        for literal in &self.literals {
            sql.push("r = ").string(literal).push(" OR ");
        }
        if let Some(number) = self.number {
            sql.push("JSONType(r) = 'Double' AND JSONExtractFloat(r) = ")
                .double(number.double())
                .push(" OR ");
        }
        sql.push("startsWith(r, '\"') AND JSONExtractString(r) = ")
            .string(self.text);
        sql.push(", arrayConcat([toString(").append(stored);
        sql.push(")], JSONExtractArrayRaw(toString(")
            .append(stored)
            .push("))))");
        sql
    }
}

/// The JSON texts, as the store writes them, that stand for a value.
fn literals(text: &str) -> Vec<String> {
    let mut literals = Vec::new();
    match text {
        "" => literals.push("null".to_owned()),
        "true" | "false" => literals.push(text.to_owned()),
        "NaN" | "Infinity" | "-Infinity" => {
            literals.push(format!("{{\"doubleValue\":\"{text}\"}}"));
        }
        _ => {}
    }
    if let Some(int) = Number::of(text).and_then(Number::int) {
        literals.push(int.to_string());
    }
    if text.starts_with(['[', '{'])
        && let Ok(json) = serde_json::from_str::<serde_json::Value>(text)
    {
        // As it is written without spaces, and as it was given: the order of a map's keys is the sender's.
        for json in [json.to_string(), text.to_owned()] {
            if json.starts_with('{') {
                literals.push(format!("{{\"kvlistValue\":{json}}}"));
            }
            literals.push(json);
        }
    }
    if is_base64(text) {
        literals.push(format!("{{\"bytesValue\":\"{text}\"}}"));
    }
    literals
}

fn is_base64(text: &str) -> bool {
    let digits = text.trim_end_matches('=');
    let of_alphabet = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    !text.is_empty() && text.len().is_multiple_of(4) && digits.bytes().all(of_alphabet)
}

/// Ends a call of `JSONExtractRaw` with the steps to `path` in a map.
pub(super) fn json_path(sql: &mut Sql, path: &str) {
    for step in path.split('.') {
        sql.push(", 'kvlistValue', ").string(step);
    }
    sql.push(")");
}
