//! `GET /api/v2/search/tag/{name}/values` and `GET /api/search/tag/{name}/values`: the values of a key.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use clickhouse::Row;
use http::Uri;
use serde::Deserialize;
use serde_json::json;
use spanloom_traceql::{Expr, Field, Limits, Node, OwnedValue, Scope, Window, parse_lenient};

use crate::app::App;
use crate::db::{Deadline, Text};
use crate::params::{Params, SPAN_KINDS, SPAN_STATUSES};
use crate::problem::{Problem, ProblemKind};
use crate::sql::Sql;
use crate::tempo::error::Plain;
use crate::tempo::query;
use crate::tempo::search::last;
use crate::tempo::tags;
use crate::tempo::window::Range;
use crate::traceql::metrics::metrics;

const DAY_NS: i64 = 86_400_000_000_000;

/// The type of a value, as Grafana tells how to write it in a query, and its text.
pub type TypedText = (&'static str, String);

/// What has values.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tag {
    /// An attribute; in the catalogue under each of these scopes.
    Attribute(&'static [&'static str], String),
    /// Something that each span has: the SQL of its text.
    Column(&'static str),
    /// The name of a trace's root, or its service: the column of the index.
    Root(&'static str),
    /// One of a few words.
    Words(&'static [&'static str]),
    /// Numbers and ids, which nobody picks from a list.
    Unlisted,
}

impl Tag {
    fn named(name: &str) -> Self {
        let attribute = |scopes, key: &str| Self::Attribute(scopes, unquoted(key));
        let scopes: [(&str, &'static [&'static str]); 6] = [
            ("resource.", &["resource"]),
            ("span.", &["span"]),
            ("event.", &["event"]),
            ("link.", &["link"]),
            ("instrumentation.", &["instrumentation"]),
            (".", &["span", "resource"]),
        ];
        for (prefix, scopes) in scopes {
            if let Some(key) = name.strip_prefix(prefix) {
                return attribute(scopes, key);
            }
        }
        match name {
            "name" | "span:name" => Self::Column("toString(name)"),
            "statusMessage" | "span:statusMessage" => Self::Column("status_message"),
            "event:name" => Self::Column("arrayJoin(events.name)"),
            "instrumentation:name" => Self::Column("toString(scope_name)"),
            "instrumentation:version" => Self::Column("toString(scope_version)"),
            "rootName" | "trace:rootName" => Self::Root("root_name"),
            "rootServiceName" | "trace:rootService" => Self::Root("root_service"),
            "status" | "span:status" => Self::Words(&SPAN_STATUSES),
            "kind" | "span:kind" => Self::Words(&SPAN_KINDS),
            _ if tags::INTRINSICS.contains(&name) => Self::Unlisted,
            "span:childCount" | "nestedSetLeft" | "nestedSetRight" | "nestedSetParent" => {
                Self::Unlisted
            }
            // The older API has keys without a scope.
            key => attribute(&["span", "resource"], key),
        }
    }
}

impl Tag {
    /// What TraceQL calls it; none where values are not listed by what spans have.
    fn field(&self, name: &str) -> Option<String> {
        let scope = match self {
            Self::Attribute(["resource"], _) => Scope::Resource,
            Self::Attribute(["span"], _) => Scope::Span,
            Self::Attribute(["event"], _) => Scope::Event,
            Self::Attribute(["link"], _) => Scope::Link,
            Self::Attribute(["instrumentation"], _) => Scope::Instrumentation,
            Self::Attribute(..) => Scope::Unscoped,
            Self::Column(_) | Self::Root(_) | Self::Words(_) => return Some(name.to_owned()),
            Self::Unlisted => return None,
        };
        let Self::Attribute(_, key) = self else {
            return None;
        };
        let field = Field::Attribute {
            parent: false,
            scope,
            name: key.clone(),
        };
        Some(Node::Field(field).to_string())
    }
}

/// The values that the spans have which a filter matches: they are what a count is made by.
async fn filtered(
    app: &App,
    filter: &Expr,
    field: &str,
    range: Range,
    deadline: Deadline,
) -> Result<Vec<TypedText>, Plain> {
    let text = format!("{filter} | count_over_time() by ({field})");
    let query = query::compile(&text)?;
    let range = match range {
        // Those of a day where nothing is said: more would be long in coming.
        Range::ALL => last(DAY_NS),
        range => range,
    };
    let time = |ns: i64| u64::try_from(ns).unwrap_or(0);
    let window = Window::instant(time(range.start_ns), time(range.end_ns).saturating_add(1));
    let window = window.map_err(|error| Problem::parameter("", error.to_string()))?;
    // More than are wanted: the first of those in their order are answered.
    let limits = Limits {
        exemplars: 0,
        ..Limits::default()
    };
    let answer = metrics(app, &query, window, limits, deadline).await?;
    let is_word = field.ends_with("status") || field.ends_with("kind");
    let is_intrinsic = !field.contains('.');
    let mut values = BTreeSet::new();
    for series in answer.finished.series {
        for (_, value) in series.labels {
            let kind = match &value {
                OwnedValue::Str(_) if is_word && is_intrinsic => "keyword",
                // What has no value is the text nil, as no attribute that is listed.
                OwnedValue::Str(text) if text == "nil" => continue,
                OwnedValue::Str(_) => "string",
                OwnedValue::Int(_) => "int",
                OwnedValue::Float(_) => "float",
                OwnedValue::Bool(_) => "bool",
                _ => continue,
            };
            let text = match value {
                OwnedValue::Float(number) => format!("{number:?}"),
                value => value.to_string(),
            };
            values.insert((kind, text));
        }
    }
    Ok(values.into_iter().collect())
}

/// A key in quotes is one that has other characters than TraceQL's names.
fn unquoted(key: &str) -> String {
    match key.strip_prefix('"').and_then(|key| key.strip_suffix('"')) {
        Some(inner) => inner.replace("\\\"", "\"").replace("\\\\", "\\"),
        None => key.to_owned(),
    }
}

/// The values with their types.
pub async fn v2(
    State(app): State<Arc<App>>,
    rest: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Json<serde_json::Value>, Plain> {
    let values = of_path(&app, rest, &uri).await?;
    let values: Vec<_> = values
        .into_iter()
        .map(|(kind, value)| json!({"type": kind, "value": value}))
        .collect();
    Ok(Json(json!({"tagValues": values, "metrics": {}})))
}

/// The values alone.
pub async fn v1(
    State(app): State<Arc<App>>,
    rest: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Json<serde_json::Value>, Plain> {
    let values = without_types(of_path(&app, rest, &uri).await?);
    Ok(Json(json!({"tagValues": values, "metrics": {}})))
}

/// The texts of values, each once, sorted.
pub fn without_types(values: Vec<TypedText>) -> BTreeSet<String> {
    values.into_iter().map(|(_, value)| value).collect()
}

async fn of_path(
    app: &App,
    rest: Result<Path<String>, PathRejection>,
    uri: &Uri,
) -> Result<Vec<TypedText>, Plain> {
    let Path(rest) = rest.map_err(|error| Problem::parameter("tag", error.body_text()))?;
    let Some(name) = rest.strip_suffix("/values").filter(|name| !name.is_empty()) else {
        let shown = shown(&rest);
        let detail =
            format!("tag {shown:?} not found; the path ends in the tag's name and /values");
        return Err(Problem::new(ProblemKind::NotFound, detail).into());
    };
    values(app, name, &Params::of_others(uri)?).await
}

/// The values of `name` that these parameters ask for.
///
/// # Errors
/// When a parameter cannot be used, or ClickHouse has no answer.
pub async fn values(app: &App, name: &str, params: &Params) -> Result<Vec<TypedText>, Plain> {
    let range = Range::read(params)?.unwrap_or(Range::ALL);
    let limit = tags::limit(params)?;
    let deadline = app.db.deadline();
    let tag = Tag::named(name);
    let filter = params.one("q").and_then(parse_lenient);
    let mut values = match tag {
        tag if filter.is_some() => match (filter, tag.field(name)) {
            (Some(filter), Some(field)) => filtered(app, &filter, &field, range, deadline).await?,
            _ => Vec::new(),
        },
        Tag::Words(words) => words
            .iter()
            .map(|word| ("keyword", (*word).to_owned()))
            .collect(),
        Tag::Unlisted => Vec::new(),
        Tag::Attribute(scopes, key) => {
            of_attribute(app, (scopes, &key), range, limit, deadline).await?
        }
        Tag::Column(column) => {
            let mut sql = Sql::new("SELECT DISTINCT ");
            sql.push(column)
                .push(" AS value FROM spans WHERE tenant = '' AND ")
                .started_within(range.start_ns, range.end_ns)
                .push(" ORDER BY value LIMIT ")
                .uint(limit);
            texts(app, &sql, deadline).await?
        }
        Tag::Root(column) if range != Range::ALL => {
            // Of several roots the last names the trace.
            let mut sql = Sql::new("SELECT DISTINCT root AS value FROM (SELECT argMax(");
            sql.push(match column {
                "root_service" => "toString(service)",
                _ => "toString(name)",
            });
            sql.push(
                ", (time, span_id)) AS root FROM spans WHERE tenant = '' \
                 AND parent_span_id = toFixedString('', 8) AND ",
            )
            .started_within(range.start_ns, range.end_ns)
            .push(" GROUP BY trace_id) ORDER BY value LIMIT ")
            .uint(limit);
            texts(app, &sql, deadline).await?
        }
        Tag::Root(column) => {
            let mut sql = Sql::new("SELECT DISTINCT ");
            sql.push(column)
                .push(" AS value FROM trace_index WHERE tenant = '' AND value != '' AND start <= ")
                .time(range.end_ns)
                .push(" AND end >= ")
                .time(range.start_ns)
                .push(" ORDER BY value LIMIT ")
                .uint(limit);
            texts(app, &sql, deadline).await?
        }
    };
    values.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(values)
}

fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

async fn texts(app: &App, sql: &Sql, deadline: Deadline) -> Result<Vec<TypedText>, Plain> {
    let rows: Vec<TextRow> = app.db.rows("tag_values", sql, deadline).await?;
    Ok(rows
        .into_iter()
        .map(|row| ("string", row.value.0))
        .collect())
}

#[derive(Debug, Row, Deserialize)]
struct TextRow {
    value: Text,
}

#[derive(Debug, Row, Deserialize)]
struct ValueRow {
    kind: Text,
    value: Text,
}

/// What the catalogue lists of an attribute; its doubles, which are not there, from the spans.
async fn of_attribute(
    app: &App,
    (scopes, key): (&[&str], &str),
    range: Range,
    limit: u64,
    deadline: Deadline,
) -> Result<Vec<TypedText>, Plain> {
    let mut sql = Sql::new("SELECT toString(type) AS kind, value FROM tags WHERE tenant = '' AND ");
    tags::days(&mut sql, range);
    sql.push(" AND key = ").string(key).push(" AND scope IN (");
    for (place, scope) in scopes.iter().enumerate() {
        sql.push(if place == 0 { "" } else { ", " }).string(scope);
    }
    sql.push(") GROUP BY kind, value ORDER BY value LIMIT ")
        .uint(limit);
    let rows: Vec<ValueRow> = app.db.rows("tag_values", &sql, deadline).await?;
    let has_doubles = rows.iter().any(|row| row.kind.0 == "double");
    let mut values: BTreeSet<TypedText> = BTreeSet::new();
    for ValueRow { kind, value } in rows {
        let kind = match kind.0.as_str() {
            "string" => "string",
            "int" => "int",
            "bool" => "bool",
            // The key alone is listed.
            _ => continue,
        };
        // A key of too many values is listed alone, without one.
        if !value.0.is_empty() {
            values.insert((kind, value.0));
        }
    }
    if has_doubles && scopes.contains(&"span") {
        let mut sql = Sql::new("SELECT DISTINCT attr_double[");
        sql.string(key)
            .push("] AS value FROM spans WHERE tenant = '' AND ")
            .started_within(range.start_ns, range.end_ns)
            .push(" AND mapContains(attr_double, ")
            .string(key)
            .push(") ORDER BY value LIMIT ")
            .uint(limit);
        let rows: Vec<f64> = app.db.rows("tag_values", &sql, deadline).await?;
        values.extend(
            rows.into_iter()
                .map(|number| ("float", format!("{number:?}"))),
        );
    }
    Ok(values.into_iter().collect())
}
