//! `compare()`: ClickHouse counts what is compared of each span by itself, where SQL says exactly which spans they are.
//! What only the span's trace says is in [`super::facts`].

use std::collections::BTreeSet;

use clickhouse::Row;
use serde::Deserialize;
use spanloom_store::schema::promoted::{Kind as ColumnKind, PROMOTED_SPAN};
use spanloom_traceql::{CompiledQuery, LeafIndex, MetricsFunction, OwnedValue, Scope, Window};

use super::aggregate::Column;
use super::{Run, bounds};
use crate::app::App;
use crate::db::{Db, DbError, Deadline, Flow, Text};
use crate::sql::Sql;
use crate::traceql::attribute;
use crate::traceql::condition::Condition;
use crate::traceql::rows::WEIGHT;
use crate::traceql::span::{Resources, kind_named, status_named, stored_value};

/// `compare()` stands alone in its query.
pub(super) const LEAF: LeafIndex = 0;

/// ClickHouse keeps the most frequent values of each attribute; more are for the evaluator.
const TOP_MAX: i64 = 1_000;

/// A comparison, as ClickHouse makes it.
#[derive(Debug)]
pub(super) struct Comparison {
    pub(super) condition: Condition,
    selection: Condition,
    /// When a span of the selection starts, in nanoseconds since 1970; the end is not part of it.
    window: Option<(i64, i64)>,
    top: i64,
}

/// The most counts of an attribute: one for each step of each value that is answered.
const COUNTS_MAX: usize = 1_000_000;

/// How ClickHouse compares for a query; none where it cannot.
pub(super) fn plan(query: &CompiledQuery, window: &Window) -> Option<Comparison> {
    let leaves = query.leaves();
    let leaf = leaves.first()?;
    let MetricsFunction::Compare {
        selection,
        top,
        window: selected,
    } = &leaf.pipeline.function
    else {
        return None;
    };
    let condition = Condition::of(leaf.filter?);
    let selection = Condition::of(selection);
    let counts = usize::try_from(*top).ok()?.checked_mul(window.steps())?;
    let is_exact = condition.is_exact() && selection.is_exact();
    // Each statement has the conditions several times.
    let is_short = !condition.is_long() && !selection.is_long();
    let is_small = *top <= TOP_MAX && counts <= COUNTS_MAX;
    (is_exact && is_short && is_small).then_some(Comparison {
        condition,
        selection,
        window: *selected,
        top: *top,
    })
}

/// Where pairs of a label and a value come from, as numbers in SQL.
mod source {
    /// What each span has; the label is whole.
    pub(super) const INTRINSIC: u8 = 1;
    /// Attributes that are texts.
    pub(super) const TEXT: u8 = 2;
    /// Attributes that are integers.
    pub(super) const INT: u8 = 3;
    /// Attributes that are doubles.
    pub(super) const DOUBLE: u8 = 4;
    /// Other attributes.
    pub(super) const OTHER: u8 = 5;
    /// Attributes that are texts and have a column of their own.
    pub(super) const COLUMN: u8 = 6;
    /// The same of integers.
    pub(super) const CODE: u8 = 7;
}

/// How many attributes of several types are counted at a time.
const MIXED_MAX: usize = 8;

/// The intrinsics that are compared, with what stands for each in SQL.
const INTRINSICS: &str = "SELECT toUInt8(1) AS source, arrayJoin([('name', toString(name)), \
    ('kind', toString(kind)), ('status', toString(status)), ('statusMessage', status_message), \
    ('instrumentation:name', toString(scope_name)), \
    ('instrumentation:version', toString(scope_version))]) AS pair, ";

/// Attributes in maps. Arrays are one value, that is not shown; bytes and maps are not compared.
const MAPS: [&str; 4] = [
    "SELECT toUInt8(2) AS source, arrayJoin(CAST(attr_str, 'Array(Tuple(String, String))')) AS pair, ",
    "SELECT toUInt8(3) AS source, arrayJoin(arrayMap((k, v) -> (toString(k), toString(v)), \
     mapKeys(attr_int), mapValues(attr_int))) AS pair, ",
    "SELECT toUInt8(4) AS source, arrayJoin(arrayMap((k, v) -> (toString(k), toString(v)), \
     mapKeys(attr_double), mapValues(attr_double))) AS pair, ",
    "SELECT toUInt8(5) AS source, arrayJoin(arrayMap(p -> (p.1, if(startsWith(p.2, '['), '[', p.2)), \
     arrayFilter(p -> p.2 != 'null' AND (NOT startsWith(p.2, '{') OR startsWith(p.2, '{\"doubleValue\"')), \
     CAST(attr_other, 'Array(Tuple(String, String))')))) AS pair, ",
];

/// The values of an attribute, as far as they may be answered, and how many spans have it.
#[derive(Debug, Row, Deserialize)]
struct LabelRow {
    is_selected: u8,
    is_intrinsic: u8,
    label: Text,
    /// Where spans have it.
    places: Vec<u8>,
    sources: Vec<u8>,
    texts: Vec<Text>,
    /// Of each value the steps, and how often it is there.
    counts: Vec<Vec<(u32, f64)>>,
    total_steps: Vec<u32>,
    totals: Vec<f64>,
}

/// Spans of one resource and scope.
#[derive(Debug, Row, Deserialize)]
struct ResourceRow {
    step: u32,
    is_selected: u8,
    resource_json: Text,
    scope_json: Text,
    spans: u64,
    weight: f64,
}

impl Run<'_> {
    /// Has ClickHouse compare.
    pub(super) async fn compare(
        &mut self,
        app: &App,
        query: &CompiledQuery,
        comparison: &Comparison,
        deadline: Deadline,
    ) -> Result<(), DbError> {
        let db = &app.db;
        self.compare_resources(db, comparison, deadline).await?;
        match self.compare_spans(db, comparison, deadline).await {
            Ok(()) => {}
            // The rest may be had all the same.
            Err(error) if error.is_limit() => {
                self.cut = Some(error.to_string());
            }
            Err(error) => return Err(error),
        }
        self.compare_facts(app, query, comparison, deadline).await
    }

    async fn compare_resources(
        &mut self,
        db: &Db,
        comparison: &Comparison,
        deadline: Deadline,
    ) -> Result<(), DbError> {
        let mut sql = Sql::new(
            "SELECT step, is_selected, toString(resource) AS resource_json, \
             toString(scope_attributes) AS scope_json, count() AS spans, toFloat64(sum(weight)) AS weight \
             FROM (SELECT resource, scope_attributes, ",
        );
        self.rest_of_select(comparison, &mut sql);
        sql.push(") GROUP BY step, is_selected, resource, scope_attributes");
        let mut resources = Resources::default();
        let read = db.each("traceql_compare", &sql, deadline, |row: ResourceRow| {
            self.inspected_spans += row.spans;
            let step = usize::try_from(row.step).unwrap_or(usize::MAX);
            for (scope, json) in [
                (Scope::Resource, &row.resource_json),
                (Scope::Instrumentation, &row.scope_json),
            ] {
                resources.compared(json, &mut |key, value| {
                    let pair = (attribute(scope, key), value);
                    self.metrics.observe_compared(
                        LEAF,
                        row.is_selected != 0,
                        pair,
                        step,
                        row.weight,
                    );
                });
            }
            if resources.is_large() {
                resources = Resources::default();
            }
            Flow::More
        });
        read.await
    }

    async fn compare_spans(
        &mut self,
        db: &Db,
        comparison: &Comparison,
        deadline: Deadline,
    ) -> Result<(), DbError> {
        let sql = labels_sql(comparison.top, &self.pairs_sql(comparison));
        let mut mixed = BTreeSet::new();
        let read = db.each("traceql_compare", &sql, deadline, |row: LabelRow| {
            match row.places.len() {
                0 | 1 => self.label(&row),
                _ if row.is_intrinsic != 0 => self.label(&row),
                _ => drop(mixed.insert((row.label, row.is_selected))),
            }
            Flow::More
        });
        read.await?;
        let labels: BTreeSet<&Text> = mixed.iter().map(|(label, _)| label).collect();
        let labels: Vec<&Text> = labels.into_iter().collect();
        for labels in labels.chunks(MIXED_MAX) {
            let sql = labels_sql(comparison.top, &self.mixed_sql(comparison, labels));
            let read = db.each("traceql_compare", &sql, deadline, |row: LabelRow| {
                let place = (row.label, row.is_selected);
                let is_mixed = mixed.contains(&place);
                let row = LabelRow {
                    label: place.0,
                    ..row
                };
                if is_mixed {
                    self.label(&row);
                }
                Flow::More
            });
            read.await?;
        }
        Ok(())
    }

    /// Adds the values of an attribute.
    fn label(&mut self, row: &LabelRow) {
        let is_selected = row.is_selected != 0;
        let name = match row.is_intrinsic {
            0 => attribute(Scope::Span, &row.label.0),
            _ => row.label.0.clone(),
        };
        let totals = row.total_steps.iter().zip(&row.totals);
        let mut totals: Vec<(u32, f64, f64)> = totals
            .map(|(step, total)| (*step, *total, *total))
            .collect();
        for ((source, text), counts) in row.sources.iter().zip(&row.texts).zip(&row.counts) {
            for (step, count) in counts {
                // ClickHouse sorts them.
                let place = totals.binary_search_by_key(step, |(known, ..)| *known);
                if let Some(total) = place.ok().and_then(|place| totals.get_mut(place)) {
                    total.1 -= count;
                }
                let pair = (name.clone(), value(*source, &row.label.0, &text.0));
                let step = usize::try_from(*step).unwrap_or(usize::MAX);
                self.metrics
                    .observe_compared(LEAF, is_selected, pair, step, *count);
            }
        }
        // What is less is of sums that are not exact.
        const LEAST: f64 = 1e-9;
        for (step, rest, total) in totals {
            if rest <= total * LEAST {
                continue;
            }
            let step = usize::try_from(step).unwrap_or(usize::MAX);
            self.metrics
                .observe_compared_rest(LEAF, is_selected, &name, step, rest);
        }
    }

    /// The rest of a statement that begins with some columns: those of each span, and which spans there are.
    fn rest_of_select(&self, comparison: &Comparison, sql: &mut Sql) {
        let (from_ns, to_ns) = bounds(&self.window);
        self.columns_of_span(comparison, sql);
        sql.push(" FROM spans WHERE tenant = '' AND ")
            .started_within(from_ns, to_ns);
        comparison.condition.and_to(sql);
    }

    /// The step of a span, whether it is selected, and its weight.
    pub(super) fn columns_of_span(&self, comparison: &Comparison, sql: &mut Sql) {
        let (from_ns, _) = bounds(&self.window);
        sql.push("toUInt32(intDiv(toUInt64(toUnixTimestamp64Nano(time) - ")
            .int(from_ns)
            .push("), toUInt64(")
            .uint(self.window.step_ns())
            .push("))) AS step, toUInt8(true");
        comparison.selection.and_to(sql);
        if let Some((start_ns, end_ns)) = comparison.window {
            sql.push(" AND toUnixTimestamp64Nano(time) >= ")
                .int(start_ns)
                .push(" AND toUnixTimestamp64Nano(time) < ")
                .int(end_ns);
        }
        sql.push(") AS is_selected, ")
            .push(if self.extrapolates { WEIGHT } else { "1." })
            .push(" AS weight");
    }

    /// All pairs of a label and a value, with how often each is there in each step.
    fn pairs_sql(&self, comparison: &Comparison) -> Sql {
        let mut columns = vec![Sql::new(INTRINSICS)];
        let mut texts =
            Sql::new("SELECT toUInt8(6) AS source, arrayJoin(arrayFilter(p -> p.2 != '', [");
        let mut is_first = true;
        for promoted in &PROMOTED_SPAN {
            if promoted.kind == ColumnKind::Code {
                let mut code = Sql::new("SELECT toUInt8(7) AS source, arrayJoin(if(");
                code.push(promoted.column)
                    .push(" != 0, [(")
                    .push("'")
                    .push(promoted.key)
                    .push("', toString(")
                    .push(promoted.column)
                    .push("))], [])) AS pair, ");
                columns.push(code);
                continue;
            }
            texts
                .push(if is_first { "('" } else { ", ('" })
                .push(promoted.key)
                .push("', toString(")
                .push(promoted.column)
                .push("))");
            is_first = false;
        }
        texts.push("])) AS pair, ");
        columns.push(texts);
        columns.extend(MAPS.map(Sql::new));
        let mut sql = Sql::default();
        for mut branch in columns {
            sql.push(if sql.is_empty() { "" } else { " UNION ALL " });
            self.rest_of_select(comparison, &mut branch);
            sql.push(
                "SELECT step, is_selected, source, pair.1 AS label, pair.2 AS text, \
                 toFloat64(sum(weight)) AS spans FROM (",
            )
            .append(&branch)
            .push(") GROUP BY step, is_selected, source, label, text");
        }
        sql
    }

    /// The same of these attributes alone, which spans store in several columns; the first value of a span counts.
    fn mixed_sql(&self, comparison: &Comparison, labels: &[&Text]) -> Sql {
        let mut sql = Sql::default();
        for Text(key) in labels {
            let mut branch = Sql::new("SELECT ");
            branch
                .append(&Column::of_span(key).grouped())
                .push(" AS value, ");
            self.rest_of_select(comparison, &mut branch);
            sql.push(if sql.is_empty() { "" } else { " UNION ALL " })
                .push(
                    "SELECT step, is_selected, toUInt8(1 + position('sido', substring(value, 1, 1))) AS source, ",
                )
                .string(key)
                .push(
                    " AS label, if(startsWith(value, 'o['), '[', substring(value, 2)) AS text, \
                     toFloat64(sum(weight)) AS spans FROM (",
                )
                .append(&branch)
                .push(
                    ") WHERE value NOT IN ('', 'onull') AND \
                     (NOT startsWith(value, 'o{') OR startsWith(value, 'o{\"doubleValue\"')) \
                     GROUP BY step, is_selected, source, label, text",
                );
        }
        sql
    }
}

/// The most frequent values of each attribute, those of equal number by their order, and the totals.
fn labels_sql(top: i64, pairs: &Sql) -> Sql {
    let mut sql = Sql::new(
        "SELECT is_selected, is_intrinsic, label, places, arrayMap(v -> v.5, top) AS sources, \
         arrayMap(v -> v.6, top) AS texts, arrayMap(v -> v.7, top) AS counts, \
         sums.1 AS total_steps, sums.2 AS totals FROM (\
         SELECT is_selected, toUInt8(source = 1) AS is_intrinsic, label, groupUniqArray(source) AS places, \
         groupArraySorted(",
    );
    // The order is that of values: arrays, whether they are true, integers, doubles, texts.
    sql.uint(top.unsigned_abs()).push(
        ")((-total, multiIf(source IN (3, 7), 2, source = 4, 3, source != 5, 7, text = '[', 0, \
         text IN ('true', 'false'), 1, 7), if(source IN (3, 7), toInt64OrZero(text), 0), \
         if(source = 4, toFloat64OrZero(text), 0), source, text, counts)) AS top, \
         sumMap(counts.1, counts.2) AS sums FROM (\
         SELECT is_selected, source, label, text, groupArray((step, spans)) AS counts, sum(spans) AS total FROM (",
    );
    sql.append(pairs).push(
        ") GROUP BY is_selected, source, label, text) GROUP BY is_selected, is_intrinsic, label)",
    );
    sql
}

/// The value of a text in SQL.
fn value(source: u8, label: &str, text: &str) -> OwnedValue {
    match (source, label) {
        (source::INTRINSIC, "kind") => OwnedValue::Kind(kind_named(text)),
        (source::INTRINSIC, "status") => OwnedValue::Status(status_named(text)),
        (source::INTRINSIC | source::TEXT | source::COLUMN, _) => OwnedValue::Str(text.to_owned()),
        (source::INT | source::CODE, _) => text.parse().map_or(OwnedValue::Nil, OwnedValue::Int),
        (source::DOUBLE, _) => text.parse().map_or(OwnedValue::Nil, OwnedValue::Float),
        (source::OTHER, _) if text != "[" => stored_value(text),
        _ => OwnedValue::Nil,
    }
}
