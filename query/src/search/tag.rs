//! A tag, as the conditions of TraceQL on the places that may have it.
//!
//! A trace shows a value wherever its sender put it and whatever its type, so that is where it is looked for: in the
//! attributes of the span, of what it shares with others, of its events and links, as a text, a number and a boolean.

use serde_json::Value as Json;
use spanloom_store::schema::promoted::{Kind, PROMOTED_SPAN};
use spanloom_store::schema::spans::NESTED_KEYS;
use spanloom_traceql::{Literal, Scope};

use crate::params::SPAN_STATUSES;
use crate::sql::Sql;
use crate::traceql::attribute;

/// A tag is cut at so many of its `=`, since a key may contain some.
const CUTS_MAX: usize = 4;

/// A place where spans may have a tag, besides their attributes that are texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The attributes of the span that are no texts.
    Others,
    /// The resource.
    Resource,
    /// The scope.
    Scope,
    /// The events.
    Events,
    /// The links.
    Links,
    /// A map, in whichever of them: the key is a path.
    Maps,
}

impl Place {
    pub(super) const ALL: [Self; 6] = [
        Self::Others,
        Self::Resource,
        Self::Scope,
        Self::Events,
        Self::Links,
        Self::Maps,
    ];

    /// The bit of the place for a tag, by the tag's number.
    pub(super) fn bit(self, number: usize) -> u64 {
        1 << (number * Self::ALL.len() + self as usize)
    }
}

/// Places where spans may have a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Places(u8);

impl Places {
    /// None of them.
    #[cfg(test)]
    pub(super) const NONE: Self = Self(0);

    /// Any of them.
    pub(super) const ALL: Self = Self(0b11_1111);

    /// Those of the tag of a number.
    pub(super) fn of_bits(bits: u64, number: usize) -> Self {
        let set = Place::ALL
            .into_iter()
            .filter(|place| bits & place.bit(number) != 0);
        Self(set.fold(0, |all, place| all | 1 << place as u8))
    }

    pub(super) fn has(self, place: Place) -> bool {
        self.0 & 1 << place as u8 != 0
    }
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

    /// Conditions of TraceQL of which a span with the tag meets one, if it can have it only in these places.
    pub(super) fn terms(&self, places: Places) -> Vec<String> {
        let mut terms = Vec::new();
        for (key, value) in self.cuts() {
            terms.extend(intrinsic(key, value));
            let (literals, elements) = (literals(value), elements(value));
            for (place, scope) in [
                (Place::Others, Scope::Span),
                (Place::Resource, Scope::Resource),
                (Place::Scope, Scope::Instrumentation),
                (Place::Events, Scope::Event),
                (Place::Links, Scope::Link),
            ] {
                // Each span has a service.
                let is_service = scope == Scope::Resource && key == "service.name";
                let is_anywhere = places.has(place) || places.has(Place::Maps);
                let taken = match place {
                    _ if is_anywhere => literals.len(),
                    Place::Others => 1,
                    _ if is_service => 1,
                    _ => 0,
                };
                let field = attribute(scope, key);
                let equal = |literal: &Literal| format!("{field} = {literal}");
                terms.extend(literals.iter().take(taken).map(equal));
                if is_anywhere && !elements.is_empty() {
                    let all: Vec<_> = elements.iter().map(equal).collect();
                    terms.push(format!("({})", all.join(" && ")));
                }
            }
        }
        terms
    }

    /// Conditions, in SQL, that a span may have the key in each place, whatever its value.
    pub(super) fn probes(&self) -> [(Place, Sql); 6] {
        Place::ALL.map(|place| {
            let mut any = Sql::new("false");
            for (key, _) in self.cuts() {
                let keys = match place {
                    Place::Maps => bases(key).collect(),
                    _ => vec![key],
                };
                for key in keys {
                    any.push(" OR ").append(&may_have(place, key));
                }
            }
            (place, any)
        })
    }

    /// The keys of maps that the tag may reach into.
    pub(super) fn bases(&self) -> impl Iterator<Item = &str> {
        self.cuts().flat_map(|(key, _)| bases(key))
    }
}

/// What a tag means that is a field of the span.
fn intrinsic(key: &str, value: &str) -> Option<String> {
    match key {
        "error" if value == "true" => Some("status = error".to_owned()),
        "otel.status_code" => {
            let mut names = SPAN_STATUSES.iter();
            let name = names.find(|name| name.eq_ignore_ascii_case(value))?;
            Some(format!("status = {}", name.to_ascii_lowercase()))
        }
        "otel.status_description" | "status.message" => Some(format!(
            "statusMessage = {}",
            Literal::Str(value.to_owned())
        )),
        _ => None,
    }
}

/// What a value may be: a text first, then a number or a boolean if it reads as one.
fn literals(value: &str) -> Vec<Literal> {
    let mut literals = vec![Literal::Str(value.to_owned())];
    let looks_like_number = value.bytes().any(|byte| byte.is_ascii_digit());
    let double = || value.parse().ok().filter(|double: &f64| double.is_finite());
    literals.extend(match value.parse() {
        Ok(number) => Some(Literal::Int(number)),
        Err(_) if looks_like_number => double().map(Literal::Float),
        Err(_) => value.parse().ok().map(Literal::Bool),
    });
    literals
}

/// The elements of an array, where a value is the JSON of one: it is looked for by all of them.
fn elements(value: &str) -> Vec<Literal> {
    let Ok(Json::Array(items)) = serde_json::from_str(value) else {
        return Vec::new();
    };
    let literal = |item: &Json| match item {
        Json::String(text) => Some(Literal::Str(text.clone())),
        Json::Bool(value) => Some(Literal::Bool(*value)),
        Json::Number(number) => number
            .as_i64()
            .map(Literal::Int)
            .or_else(|| number.as_f64().map(Literal::Float)),
        _ => None,
    };
    let literals: Option<Vec<_>> = items.iter().map(literal).collect();
    literals.unwrap_or_default()
}

/// The keys of maps that a key may reach into: `a.b.c` may be `b.c` in the map `a`, or `c` in `a.b`.
fn bases(key: &str) -> impl Iterator<Item = &str> {
    const BASES_MAX: usize = 3;
    let dots = key.match_indices('.').map(|(place, _)| place);
    dots.take(BASES_MAX).filter_map(|place| {
        let (base, path) = key.split_at_checked(place)?;
        (!base.is_empty() && path.len() > 1).then_some(base)
    })
}

fn may_have(place: Place, key: &str) -> Sql {
    match place {
        Place::Maps => {
            let mut sql = Sql::new("mapContains(attr_other, ");
            sql.string(key).push(") OR ");
            for column in ["resource", "scope_attributes"] {
                sql.append(&has_text(column, key)).push(" OR ");
            }
            sql.push("has(")
                .push(NESTED_KEYS)
                .push(", ")
                .string(key)
                .push(")");
            sql
        }
        Place::Others => {
            let mut sql = Sql::default();
            let columns = PROMOTED_SPAN.iter();
            let mut codes = columns.filter(|promoted| promoted.kind == Kind::Code);
            if let Some(promoted) = codes.find(|promoted| promoted.key == key) {
                sql.push(promoted.column).push(" != 0 OR ");
            }
            for (map, end) in [
                ("mapContains(attr_int, ", ") OR "),
                ("mapContains(attr_double, ", ") OR "),
                ("mapContains(attr_other, ", ")"),
            ] {
                sql.push(map).string(key).push(end);
            }
            sql
        }
        Place::Resource => has_text("resource", key),
        Place::Scope => has_text("scope_attributes", key),
        // The index has the keys of both.
        Place::Events | Place::Links => {
            let mut sql = Sql::new("has(");
            sql.push(NESTED_KEYS).push(", ").string(key).push(") AND ");
            sql.push(match place {
                Place::Events => "notEmpty(events.time)",
                _ => "notEmpty(links.trace_id)",
            });
            sql
        }
    }
}

/// The condition that a column of JSON objects holds a key, or a text like it, somewhere. ClickHouse looks for a text in
/// a dictionary-encoded column once per entry.
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

/// The longest part of a text that every JSON writer writes as it is.
pub fn never_escaped(text: &str) -> &str {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '.' | ':' | '_');
    text.split(|c| !plain(c))
        .max_by_key(|run| run.len())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_cuts(text: &str, expect: &[(&str, &str)]) {
        let tag = Tag::read(text);
        let cuts: Vec<_> = tag.iter().flat_map(Tag::cuts).collect();
        assert_eq!(cuts, expect, "{text}");
    }

    #[test]
    fn a_key_may_contain_an_equals_sign() {
        check_cuts("a=b", &[("a", "b")]);
        check_cuts("a=", &[("a", "")]);
        check_cuts("a=b=c", &[("a", "b=c"), ("a=b", "c")]);
        check_cuts("=b=c", &[("=b", "c")]);
        check_cuts("=b", &[]);
        check_cuts("a", &[]);
        check_cuts("", &[]);
        check_cuts("ü=💡=", &[("ü", "💡="), ("ü=💡", "")]);
        let many = "=".repeat(100);
        assert_eq!(Tag::read(&many).unwrap().cuts().count(), CUTS_MAX);
    }

    #[test]
    fn a_key_may_reach_into_a_map() {
        let check = |key: &str, expect: &[&str]| {
            assert_eq!(bases(key).collect::<Vec<_>>(), expect, "{key}");
        };
        check("a", &[]);
        check("a.b.c", &["a", "a.b"]);
        check(".a", &[]);
        check("a.", &[]);
        check("a.b.c.d.e", &["a", "a.b", "a.b.c"]);
    }

    #[test]
    fn an_array_is_looked_for_by_its_elements() {
        let text = |text: &str| Literal::Str(text.to_owned());
        assert_eq!(elements(r#"["a","b"]"#), [text("a"), text("b")]);
        let others = [Literal::Int(1), Literal::Float(1.5), Literal::Bool(true)];
        assert_eq!(elements("[1, 1.5, true]"), others);
        for other in ["", "a", "[", "[]", "[[1]]", "[null]", "{}", "1"] {
            assert_eq!(elements(other), [], "{other}");
        }
    }

    #[test]
    fn parts_that_no_writer_escapes() {
        assert_eq!(never_escaped("host.name"), "host.name");
        assert_eq!(never_escaped("a/bcd\"e"), "bcd");
        assert_eq!(never_escaped("naïves"), "ves");
        assert_eq!(never_escaped("💡"), "");
        assert_eq!(never_escaped(""), "");
    }

    #[test]
    fn values_are_texts_numbers_and_booleans() {
        #[track_caller]
        fn check(value: &str, other: Option<Literal>) {
            let text = Literal::Str(value.to_owned());
            let expect: Vec<_> = [text].into_iter().chain(other).collect();
            assert_eq!(literals(value), expect, "{value}");
        }
        check("3", Some(Literal::Int(3)));
        check("3.0", Some(Literal::Float(3.0)));
        check("-5", Some(Literal::Int(-5)));
        check("1e21", Some(Literal::Float(1e21)));
        check(
            "9223372036854775808",
            Some(Literal::Float(9_223_372_036_854_775_808.0)),
        );
        check("true", Some(Literal::Bool(true)));
        check("True", None);
        check("inf", None);
        check("NaN", None);
        check("1e999", None);
        check("", None);
    }
}
