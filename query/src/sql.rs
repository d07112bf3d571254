//! SQL text with its parameters.
//!
//! The text is made of literals of this crate only ([`Sql::push`] takes `&'static str`); whatever
//! comes from outside is a parameter that the server binds by its declared type. There is no way to
//! do otherwise.

use std::fmt::{self, Display, Formatter, Write};

use spanloom_store::schema::rollup::SATURATING_SUM;

use crate::ids::hex;

/// A value for the server to bind.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Str(String),
    Int(i64),
    UInt(u64),
    Double(f64),
    Strs(Vec<String>),
    Ints(Vec<i64>),
}

impl Value {
    /// ClickHouse's name of the type.
    fn kind(&self) -> &'static str {
        match self {
            Self::Str(_) => "String",
            Self::Int(_) => "Int64",
            Self::UInt(_) => "UInt64",
            Self::Double(_) => "Float64",
            Self::Strs(_) => "Array(String)",
            Self::Ints(_) => "Array(Int64)",
        }
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
        match self {
            Self::Str(text) => f.write_str(&quoted(text)),
            Self::Int(number) => number.fmt(f),
            Self::UInt(number) => number.fmt(f),
            Self::Double(number) => write!(f, "{number:?}"),
            Self::Strs(texts) => {
                let texts: Vec<_> = texts.iter().map(|text| quoted(text)).collect();
                write!(f, "[{}]", texts.join(", "))
            }
            Self::Ints(numbers) => write!(f, "{numbers:?}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(&'static str),
    Value(Value),
}

/// A query, or a piece of one, and its parameters.
#[derive(Debug, Clone, Default)]
pub struct Sql {
    parts: Vec<Part>,
}

impl Sql {
    /// A query that begins with `text`.
    pub fn new(text: &'static str) -> Self {
        Self {
            parts: vec![Part::Text(text)],
        }
    }

    /// Adds text of ours.
    pub fn push(&mut self, text: &'static str) -> &mut Self {
        self.parts.push(Part::Text(text));
        self
    }

    /// Adds the sum of a column of durations, which ends at the greatest number and does not wrap.
    pub fn saturating_sum(&mut self, column: &'static str) -> &mut Self {
        let [before, after] = SATURATING_SUM;
        self.push(before).push(column).push(after)
    }

    /// Adds a string parameter.
    pub fn string(&mut self, value: &str) -> &mut Self {
        self.bind(Value::Str(value.to_owned()))
    }

    /// Adds a signed integer parameter.
    pub fn int(&mut self, value: i64) -> &mut Self {
        self.bind(Value::Int(value))
    }

    /// Adds an unsigned integer parameter.
    pub fn uint(&mut self, value: u64) -> &mut Self {
        self.bind(Value::UInt(value))
    }

    /// Adds a double parameter; it must be finite, since parameters have no text for the others.
    pub fn double(&mut self, value: f64) -> &mut Self {
        debug_assert!(
            value.is_finite(),
            "the parser lets only finite numbers through"
        );
        self.bind(Value::Double(value))
    }

    /// Adds a list of integers.
    pub fn ints(&mut self, values: &[i64]) -> &mut Self {
        self.bind(Value::Ints(values.to_vec()))
    }

    /// Adds a time from nanoseconds since 1970.
    pub fn time(&mut self, ns: i64) -> &mut Self {
        self.push("fromUnixTimestamp64Nano(").int(ns).push(")")
    }

    /// Adds the condition that a span starts in `from_ns..=to_ns`: on its time, and on the time's five
    /// minutes, the first expression of the key. ClickHouse does not derive the second from the first,
    /// since the one is a DateTime64 and the other a DateTime, and without it reads the whole day's
    /// index.
    pub fn started_within(&mut self, from_ns: i64, to_ns: i64) -> &mut Self {
        const STEP_NS: i64 = 300_000_000_000;
        // The key's DateTime begins in 1970 and ends in 2106, and no span is stored beyond.
        let step = |ns: i64| (ns.div_euclid(STEP_NS) * 300).clamp(0, u32::MAX.into());
        self.push("time >= ").time(from_ns).push(" AND time <= ");
        self.time(to_ns)
            .push(" AND toStartOfFiveMinutes(time) >= toDateTime(")
            .int(step(from_ns));
        self.push(") AND toStartOfFiveMinutes(time) <= toDateTime(")
            .int(step(to_ns))
            .push(")")
    }

    /// Leaves out the traces of which the index says what `having` does, of those that have such rows of `spans`. A
    /// trace that the index does not know yet stays in.
    pub fn but_traces(&mut self, having: &Self) -> &mut Self {
        let rows = self.clone();
        self.push(
            " AND trace_id GLOBAL NOT IN (SELECT trace_id FROM trace_index WHERE tenant = '' AND \
             trace_id GLOBAL IN (SELECT trace_id FROM spans WHERE ",
        )
        .append(&rows)
        .push(") GROUP BY trace_id HAVING ")
        .append(having)
        .push(")")
    }

    /// Adds one trace id.
    pub fn trace_id(&mut self, id: [u8; 16]) -> &mut Self {
        self.push("toFixedString(unhex(")
            .string(&hex(&id))
            .push("), 16)")
    }

    /// Adds the condition that `trace_id` is one of `ids`.
    pub fn trace_id_in(&mut self, ids: impl Iterator<Item = [u8; 16]>) -> &mut Self {
        let ids = ids.map(|id| hex(&id)).collect();
        // A set from a subquery is built before the read, so that the key and the indices can use
        // it.
        self.push("trace_id IN (SELECT toFixedString(unhex(arrayJoin(")
            .bind(Value::Strs(ids))
            .push(")), 16))")
    }

    /// Whether there is nothing in it yet.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Adds another piece with its parameters.
    pub fn append(&mut self, other: &Self) -> &mut Self {
        self.parts.extend_from_slice(&other.parts);
        self
    }

    fn bind(&mut self, value: Value) -> &mut Self {
        self.parts.push(Part::Value(value));
        self
    }

    fn values(&self) -> impl Iterator<Item = &Value> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Value(value) => Some(value),
        })
    }

    /// The text, with a numbered placeholder for each value.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut count = 0;
        for part in &self.parts {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Value(value) => {
                    // Writing to a String cannot fail.
                    let _ = write!(text, "{{p{count}:{}}}", value.kind());
                    count += 1;
                }
            }
        }
        text
    }

    /// The text with its values in it, for people: nothing is sent like this.
    pub fn shown(&self) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Value(value) => {
                    let _ = write!(text, "{value}");
                }
            }
        }
        text
    }

    /// The query for `client` to send.
    pub fn query(&self, client: &clickhouse::Client) -> clickhouse::query::Query {
        let mut query = client.query_raw(&self.text());
        for (place, value) in self.values().enumerate() {
            let name = format!("p{place}");
            query = match value {
                Value::Str(text) => query.param(&name, text),
                Value::Int(number) => query.param(&name, number),
                Value::UInt(number) => query.param(&name, number),
                Value::Double(number) => query.param(&name, number),
                Value::Strs(texts) => query.param(&name, texts),
                Value::Ints(numbers) => query.param(&name, numbers),
            };
        }
        query
    }
}

/// For tests: the names of the columns that a query selects, in their order.
#[cfg(test)]
pub(crate) fn selected(sql: &Sql) -> Vec<String> {
    let text = sql.shown();
    let (mut depth, mut names, mut begin) = (0, Vec::new(), None);
    for (place, c) in text.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            _ if depth > 0 => {}
            _ if begin.is_none() && text[place..].starts_with("SELECT ") => {
                begin = Some(place + "SELECT ".len());
            }
            ',' => names.push(&text[begin.replace(place + 1).unwrap()..place]),
            _ if text[place..].starts_with(" FROM ") => {
                names.push(&text[begin.unwrap()..place]);
                break;
            }
            _ => {}
        }
    }
    let names = names
        .into_iter()
        .map(|item| match item.rsplit_once(" AS ") {
            Some((_, name)) => name.trim().to_owned(),
            None => item.trim().to_owned(),
        });
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_names_the_steps_of_the_key() {
        #[track_caller]
        fn check(from_ns: i64, to_ns: i64, from_s: i64, to_s: i64) {
            let mut sql = Sql::default();
            sql.started_within(from_ns, to_ns);
            let values: Vec<_> = sql.values().cloned().collect();
            let expect = [from_ns, to_ns, from_s, to_s].map(Value::Int);
            assert_eq!(values, expect, "{}", sql.text());
        }
        const SECOND: i64 = 1_000_000_000;
        check(0, 0, 0, 0);
        check(299 * SECOND, 300 * SECOND, 0, 300);
        check(300 * SECOND - 1, 600 * SECOND - 1, 0, 300);
        check(-SECOND, i64::MAX, 0, u32::MAX.into());
    }

    #[test]
    fn values_are_placeholders_and_pieces_are_numbered_anew() {
        let mut condition = Sql::new("a = ");
        condition.string("x'; DROP").push(" AND b < ").int(-3);
        let mut sql = Sql::new("SELECT 1 WHERE c = ");
        sql.uint(7)
            .push(" AND ")
            .append(&condition)
            .push(" LIMIT 1");
        assert_eq!(
            sql.text(),
            "SELECT 1 WHERE c = {p0:UInt64} AND a = {p1:String} AND b < {p2:Int64} LIMIT 1"
        );
        assert_eq!(
            sql.shown(),
            "SELECT 1 WHERE c = 7 AND a = 'x\\'; DROP' AND b < -3 LIMIT 1"
        );
        let values: Vec<_> = sql.values().cloned().collect();
        assert_eq!(
            values,
            [
                Value::UInt(7),
                Value::Str("x'; DROP".into()),
                Value::Int(-3)
            ]
        );
    }
}
