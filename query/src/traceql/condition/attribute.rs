//! Conditions on attributes, wherever their values are stored.

use spanloom_store::schema::promoted::{Kind as ColumnKind, PROMOTED_RESOURCE, PROMOTED_SPAN};
use spanloom_traceql::{CompareOp, Literal, Scope};

use super::{Condition, number, re2, symbol, text_compared};
use crate::search::tag::{has_text, never_escaped};
use crate::sql::Sql;

pub(super) fn attribute_compared(
    scope: Scope,
    key: &str,
    op: CompareOp,
    literal: &Literal,
) -> Condition {
    match scope {
        Scope::Span => span_attribute(key, op, literal),
        Scope::Resource => resource_attribute(key, op, literal),
        Scope::Unscoped => {
            let mut either = Condition::any(
                [
                    span_attribute(key, op, literal),
                    resource_attribute(key, op, literal),
                ]
                .into_iter(),
            );
            // The resource's counts only where the span has none.
            either.exact = false;
            either
        }
        Scope::Event | Scope::Link | Scope::Instrumentation => {
            let value = match (op, literal) {
                (CompareOp::Eq, Literal::Str(text)) => never_escaped(text),
                _ => "",
            };
            Condition::at_least(has_key_with(scope, key, value))
        }
    }
}

/// An attribute of the span: in a column of its own, in the map of its type, or among the others, where arrays
/// are whose elements may match.
fn span_attribute(key: &str, op: CompareOp, literal: &Literal) -> Condition {
    let promoted = PROMOTED_SPAN.iter().find(|promoted| promoted.key == key);
    let mut places = Vec::new();
    let mut or = |condition: Sql| places.push(condition);
    match literal {
        Literal::Str(text) => {
            if let Some(promoted) = promoted.filter(|promoted| promoted.kind != ColumnKind::Code) {
                let column = text_compared(promoted.column, op, text);
                let mut sql = Sql::new(promoted.column);
                sql.push(" != ''");
                if let Some(condition) = &column.sql {
                    sql.push(" AND ").append(condition);
                }
                or(sql);
            }
            let is_complete = promoted.is_some_and(|promoted| {
                promoted.kind != ColumnKind::Code && promoted.is_complete()
            });
            // What has a column is in the map only when it is empty.
            if !is_complete || literal_may_be_empty(op, text) {
                or(map_text_compared(key, op, text));
            }
        }
        Literal::Bool(_) | Literal::Status(_) | Literal::Kind(_) | Literal::Nil => {}
        Literal::Int(_) | Literal::Float(_) | Literal::Duration(_) => {
            let (Some(symbol), Some(number)) = (symbol(op), number(literal)) else {
                return Condition::UNKNOWN;
            };
            if let Some(promoted) = promoted.filter(|promoted| promoted.kind == ColumnKind::Code) {
                let mut sql = Sql::new(promoted.column);
                sql.push(" != 0 AND ").push(promoted.column).push(symbol);
                number.push_to(&mut sql);
                or(sql);
            }
            for (contains, value) in [
                ("mapContains(attr_int, ", "attr_int["),
                ("mapContains(attr_double, ", "attr_double["),
            ] {
                let mut sql = Sql::new(contains);
                sql.string(key)
                    .push(") AND ")
                    .push(value)
                    .string(key)
                    .push("]")
                    .push(symbol);
                number.push_to(&mut sql);
                or(sql);
            }
        }
    }
    let mut others = Sql::new("mapContains(attr_other, ");
    others.string(key).push(")");
    if let (Literal::Str(text), CompareOp::Eq) = (literal, op)
        && !never_escaped(text).is_empty()
    {
        // An element of an array.
        others
            .push(" AND position(attr_other[")
            .string(key)
            .push("], ")
            .string(never_escaped(text))
            .push(") > 0");
    }
    if let (Literal::Bool(value), CompareOp::Eq) = (literal, op) {
        others
            .push(" AND position(attr_other[")
            .string(key)
            .push(if *value {
                "], 'true') > 0"
            } else {
                "], 'false') > 0"
            });
    }
    or(others);
    let mut any = Sql::default();
    for place in &places {
        any.push(if any.is_empty() { "(" } else { " OR (" })
            .append(place)
            .push(")");
    }
    Condition {
        apart: places,
        ..Condition::at_least(any)
    }
}

/// Whether an empty text may match.
fn literal_may_be_empty(op: CompareOp, text: &str) -> bool {
    match op {
        CompareOp::Eq => text.is_empty(),
        _ => true,
    }
}

fn map_text_compared(key: &str, op: CompareOp, text: &str) -> Sql {
    let mut sql = Sql::new("mapContains(attr_str, ");
    sql.string(key).push(")");
    let condition = match symbol(op) {
        Some(symbol) => {
            let mut value = Sql::new("attr_str[");
            value.string(key).push("]").push(symbol).string(text);
            // The index of values knows only texts that are equal to one.
            if matches!(op, CompareOp::Eq) && !text.is_empty() {
                return value;
            }
            Some(value)
        }
        None => re2(text).map(|pattern| {
            let mut value = Sql::new(match op {
                CompareOp::NotMatch => "NOT match(attr_str[",
                _ => "match(attr_str[",
            });
            value.string(key).push("], ").string(&pattern).push(")");
            value
        }),
    };
    if let Some(condition) = condition {
        sql.push(" AND ").append(&condition);
    }
    sql
}

/// An attribute of the resource: its column, or the JSON that has all of them. ClickHouse looks for a text in
/// a dictionary-encoded column once for each entry, and reads JSON row by row.
fn resource_attribute(key: &str, op: CompareOp, literal: &Literal) -> Condition {
    if key == "service.name" {
        return match literal {
            Literal::Str(text) => text_compared("service", op, text),
            // A name that is no text is no service's.
            _ => Condition::at_least(has_key(Scope::Resource, key)),
        };
    }
    let promoted = PROMOTED_RESOURCE
        .iter()
        .find(|promoted| promoted.key == key && promoted.is_complete());
    if let (Some(promoted), Literal::Str(text)) = (promoted, literal)
        && !literal_may_be_empty(op, text)
    {
        let mut sql = Sql::new(promoted.column);
        sql.push(" = ").string(text).push(" OR (");
        // An array may have it.
        sql.push("position(resource, ")
            .string(&format!("\"{key}\":["))
            .push(") > 0)");
        return Condition::at_least(sql);
    }
    let mut sql = has_key(Scope::Resource, key);
    if let (CompareOp::Eq, Literal::Str(text)) = (op, literal)
        && !text.is_empty()
        && never_escaped(text) == text
    {
        sql.push(" AND position(resource, ")
            .string(&format!("\"{text}\""))
            .push(") > 0");
    }
    Condition::at_least(sql)
}

/// The condition that JSON holds a key, and a text that is part of its value.
fn key_and_value(column: &'static str, key: &str, value: &str) -> Sql {
    let mut sql = has_text(column, key);
    if !value.is_empty() {
        sql.push(" AND position(")
            .push(column)
            .push(", ")
            .string(value)
            .push(") > 0");
    }
    sql
}

/// The condition that a span may have an attribute.
pub(super) fn has_key(scope: Scope, key: &str) -> Sql {
    has_key_with(scope, key, "")
}

/// The same, where the value is stored in JSON with this text in it.
fn has_key_with(scope: Scope, key: &str, value: &str) -> Sql {
    match scope {
        Scope::Resource => has_text("resource", key),
        Scope::Instrumentation => key_and_value("scope_attributes", key, value),
        Scope::Event => {
            let mut sql = Sql::new("arrayExists(a -> ");
            sql.append(&key_and_value("a", key, value))
                .push(", events.attributes)");
            sql
        }
        Scope::Link => {
            let mut sql = Sql::new("arrayExists(a -> ");
            sql.append(&key_and_value("a", key, value))
                .push(", links.attributes)");
            sql
        }
        Scope::Span => {
            let mut sql = Sql::default();
            if let Some(promoted) = PROMOTED_SPAN.iter().find(|promoted| promoted.key == key) {
                sql.push(promoted.column).push(match promoted.kind {
                    ColumnKind::Code => " != 0 OR ",
                    _ => " != '' OR ",
                });
            }
            for map in [
                "mapContains(attr_str, ",
                "mapContains(attr_int, ",
                "mapContains(attr_double, ",
            ] {
                sql.push(map).string(key).push(") OR ");
            }
            // An attribute without a value is as one that is not there.
            sql.push("mapContains(attr_other, ")
                .string(key)
                .push(") AND attr_other[")
                .string(key)
                .push("] != 'null'");
            sql
        }
        Scope::Unscoped => {
            let mut sql = Sql::new("(");
            sql.append(&has_key(Scope::Span, key))
                .push(") OR ")
                .append(&has_key(Scope::Resource, key));
            sql
        }
    }
}
