//! The condition that a span has a tag: in a column of its own, in the span's attributes, events and links,
//! or in what it shares with others, its resource and scope.
//!
//! A trace shows a value wherever its sender put it and whatever its type, so that is where it is looked
//! for. What has a column mostly has it for a text (or a code) alone: `http.response.status_code` as a text
//! lies in a map. ClickHouse skips what its indexes rule out in *all* parts of an OR, and columns have no
//! index; and an expression that looks everywhere takes ClickHouse long to plan. So a search first asks, by
//! keys alone, which places may hold the tag ([`Parts`]).

mod value;

use spanloom_store::schema::promoted::{Kind, PROMOTED_RESOURCE, PROMOTED_SPAN, Promoted, SERVICE};
use spanloom_store::schema::spans::NESTED_KEYS;

use crate::sql::Sql;

use self::value::{Value, json_path};

/// A tag is cut at so many of its `=`, since a key may contain some.
const CUTS_MAX: usize = 4;

/// Where a tag is looked for besides its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parts {
    /// In the resource and the scope.
    pub(super) shared: bool,
    /// In the attributes, events and links: all of them where it has a column, else all but the attributes
    /// that are texts or numbers, where it is looked for always.
    pub(super) beside: bool,
}

/// A tag as it was given, and what it may mean.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tag {
    text: String,
}

impl Tag {
    /// The tag of `key=value`; none where there is no key.
    pub(super) fn read(text: &str) -> Option<Self> {
        let tag = Self {
            text: text.to_owned(),
        };
        let read = tag.cuts().next().is_some();
        read.then_some(tag)
    }

    /// The tag as it was given.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The keys and values that the text may mean.
    fn cuts(&self) -> impl Iterator<Item = (&str, &str)> {
        let places = self.text.match_indices('=').map(|(place, _)| place);
        places
            .filter(|place| *place > 0)
            .take(CUTS_MAX)
            .filter_map(|place| {
                let (key, rest) = self.text.split_at_checked(place)?;
                Some((key, rest.strip_prefix('=')?))
            })
    }

    /// The condition that a span has the tag.
    pub(super) fn condition(&self, parts: Parts) -> Sql {
        let mut any = Any::default();
        for (key, value) in self.cuts() {
            let column = column(key, value);
            if parts.beside || column.is_none() {
                scalars(&mut any, key, value);
            }
            if parts.beside {
                others(&mut any, key, value);
                any.or(nested(key, value));
            }
            if let Some(column) = column {
                any.or(column);
            }
            if parts.shared {
                any.or(shared(key, value));
            }
        }
        any.sql()
    }

    /// The condition that the resource or the scope may have the key.
    pub(super) fn may_be_shared(&self) -> Sql {
        let mut any = Any::default();
        for (key, _) in self.cuts() {
            for base in bases(key) {
                any.or(has_text("resource", base));
                any.or(has_text("scope_attributes", base));
            }
        }
        any.sql()
    }

    /// The condition that a span has the key where [`Parts::beside`] looks, whatever its value: indexes answer
    /// it.
    pub(super) fn may_be_beside(&self) -> Sql {
        let mut any = Any::default();
        for (key, value) in self.cuts() {
            if column(key, value).is_some() {
                for map in [
                    "mapContains(attr_str, ",
                    "mapContains(attr_int, ",
                    "mapContains(attr_double, ",
                ] {
                    any.or(call(map, key));
                }
            }
            let mut nested = Sql::new("hasAny(");
            nested.push(NESTED_KEYS);
            for (place, base) in bases(key).enumerate() {
                any.or(call("mapContains(attr_other, ", base));
                nested
                    .push(if place == 0 { ", [" } else { ", " })
                    .string(base);
            }
            nested.push("])");
            any.or(nested);
        }
        any.sql()
    }
}

/// Conditions of which one must hold.
#[derive(Default)]
struct Any(Sql);

impl Any {
    fn or(&mut self, condition: Sql) {
        if !self.0.is_empty() {
            self.0.push(" OR ");
        }
        self.0.append(&condition);
    }

    fn sql(self) -> Sql {
        match self.0.is_empty() {
            true => Sql::new("false"),
            false => self.0,
        }
    }
}

/// `function` applied to a text; the literal brings the bracket.
fn call(function: &'static str, argument: &str) -> Sql {
    let mut sql = Sql::new(function);
    sql.string(argument).push(")");
    sql
}

/// The condition on the column that holds such values of this key, if there is one.
fn column(key: &str, value: &str) -> Option<Sql> {
    let status = |number: usize| super::filter::STATUS_EQUALS.get(number).copied();
    match key {
        "error" if value == "true" => return status(2).map(Sql::new),
        "otel.status_code" => {
            let names = crate::params::SPAN_STATUSES;
            let number = names
                .iter()
                .position(|name| name.eq_ignore_ascii_case(value))?;
            return status(number).map(Sql::new);
        }
        "otel.status_description" | "status.message" => {
            let mut sql = Sql::new("status_message = ");
            sql.string(value);
            return Some(sql);
        }
        _ => {}
    }
    let all = PROMOTED_SPAN
        .iter()
        .chain(&PROMOTED_RESOURCE)
        .chain([&SERVICE]);
    in_column(all.into_iter().find(|promoted| promoted.key == key)?, value)
}

fn in_column(promoted: &Promoted, value: &str) -> Option<Sql> {
    let mut sql = Sql::new(promoted.column);
    sql.push(" = ");
    // A column holds no empty value, and no 0: they mean that there is no such attribute. That is what a
    // key with a column is then looked for beside it.
    match promoted.kind {
        Kind::Name | Kind::Text => sql.string(value),
        Kind::Code => {
            let code = value::Number::of(value).and_then(value::Number::int);
            let code = code.and_then(|code| u16::try_from(code).ok()).unwrap_or(0);
            sql.uint(code.into())
        }
    };
    match promoted.kind {
        Kind::Name | Kind::Text if value.is_empty() => Some(Sql::new("false")),
        Kind::Code => {
            sql.push(" AND ").push(promoted.column).push(" != 0");
            Some(sql)
        }
        _ => Some(sql),
    }
}

/// The conditions on the attributes that are texts or numbers.
fn scalars(any: &mut Any, key: &str, value: &str) {
    let wanted = Value::of(value);
    let mut text = Sql::default();
    if value.is_empty() {
        // A missing key reads as an empty text.
        text = call("mapContains(attr_str, ", key);
        text.push(" AND ");
    }
    text.push("attr_str[")
        .string(key)
        .push("] = ")
        .string(value);
    any.or(text);
    if let Some(number) = wanted.number {
        if let Some(int) = number.int() {
            let mut sql = Sql::default();
            if int == 0 {
                sql = call("mapContains(attr_int, ", key);
                sql.push(" AND ");
            }
            sql.push("attr_int[").string(key).push("] = ").int(int);
            any.or(sql);
        }
        let double = number.double();
        let mut sql = Sql::default();
        if double == 0.0 {
            sql = call("mapContains(attr_double, ", key);
            sql.push(" AND ");
        }
        sql.push("attr_double[").string(key).push("] = ");
        sql.double(double);
        any.or(sql);
    }
    if let Some((before, behind)) = value::special_double(value) {
        let mut sql = call("mapContains(attr_double, ", key);
        sql.push(" AND ").push(before).string(key).push(behind);
        any.or(sql);
    }
}

/// The conditions on the other attributes: arrays, maps, bytes, bools.
fn others(any: &mut Any, key: &str, value: &str) {
    let wanted = Value::of(value);
    let mut other = call("mapContains(attr_other, ", key);
    let mut stored = Sql::new("attr_other[");
    stored.string(key).push("]");
    other.push(" AND ").append(&wanted.matches(&stored));
    any.or(other);
    for (base, path) in paths(key) {
        let mut sql = call("mapContains(attr_other, ", base);
        let mut stored = Sql::new("JSONExtractRaw(attr_other[");
        stored.string(base).push("]");
        json_path(&mut stored, path);
        sql.push(" AND ").append(&wanted.matches(&stored));
        any.or(sql);
    }
}

/// The condition that one of the keys of events and links is this one.
fn has_nested_key(key: &str) -> Sql {
    let mut sql = Sql::new("has(");
    sql.push(NESTED_KEYS).push(", ").string(key).push(")");
    sql
}

/// The condition on the attributes of events and links.
fn nested(key: &str, value: &str) -> Sql {
    let wanted = Value::of(value);
    let mut any = Any::default();
    let bases = [(key, "")].into_iter().chain(paths(key));
    for (base, path) in bases {
        let mut sql = has_nested_key(base);
        let mut stored = Sql::new("JSONExtractRaw(j, ");
        stored.string(base);
        match path {
            "" => _ = stored.push(")"),
            path => json_path(&mut stored, path),
        }
        sql.push(" AND arrayExists(j -> ")
            .append(&wanted.matches(&stored));
        sql.push(
            ", arrayConcat(tupleElement(events, 'attributes'), tupleElement(links, 'attributes')))",
        );
        any.or(sql);
    }
    any.sql()
}

/// The condition on the resource and on the scope.
fn shared(key: &str, value: &str) -> Sql {
    let mut any = Any::default();
    any.or(json_object("resource", key, value));
    any.or(json_object("scope_attributes", key, value));
    any.sql()
}

/// The condition on a column of JSON objects. ClickHouse reads JSON row by row, but looks for a text in a
/// dictionary-encoded column once per entry: only rows that hold a part of the key have their JSON read.
fn json_object(column: &'static str, key: &str, value: &str) -> Sql {
    let wanted = Value::of(value);
    let mut any = Any::default();
    let bases = [(key, "")].into_iter().chain(paths(key));
    for (base, path) in bases {
        let mut sql = has_text(column, base);
        sql.push(" AND ");
        let mut stored = Sql::new("JSONExtractRaw(");
        stored.push(column).push(", ").string(base);
        match path {
            "" => _ = stored.push(")"),
            path => json_path(&mut stored, path),
        }
        any.or({
            sql.append(&wanted.matches(&stored));
            sql
        });
    }
    any.sql()
}

/// The condition that a column of JSON objects holds a key, or a text like it, somewhere.
pub fn has_text(column: &'static str, key: &str) -> Sql {
    let run = never_escaped(key);
    if run.is_empty() {
        return Sql::new("true");
    }
    let mut sql = Sql::new("position(");
    sql.push(column).push(", ");
    match run.len() == key.len() {
        true => sql.string(&format!("\"{key}\"")),
        false => sql.string(run),
    };
    sql.push(") > 0");
    sql
}

/// A key, and the keys of maps that it may reach into.
fn bases(key: &str) -> impl Iterator<Item = &str> {
    std::iter::once(key).chain(paths(key).map(|(base, _)| base))
}

/// The keys of maps that a key may reach into: `a.b.c` may be `b.c` in the map `a`, or `c` in `a.b`.
fn paths(key: &str) -> impl Iterator<Item = (&str, &str)> {
    const PATHS_MAX: usize = 3;
    let dots = key.match_indices('.').map(|(place, _)| place);
    dots.take(PATHS_MAX).filter_map(|place| {
        let (base, rest) = key.split_at_checked(place)?;
        let path = rest.strip_prefix('.')?;
        (!base.is_empty() && !path.is_empty()).then_some((base, path))
    })
}

/// The longest part of a text that every JSON writer writes as it is.
pub fn never_escaped(text: &str) -> &str {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '.' | ':' | '_');
    text.split(|c| !plain(c))
        .max_by_key(|run| run.len())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
