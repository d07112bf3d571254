//! Queries that ClickHouse aggregates: filters that SQL says exactly, of spans by themselves, with functions that
//! count them or take their durations, by fields that are columns.

use std::collections::{BTreeSet, HashSet};

use clickhouse::Row;
use serde::Deserialize;
use spanloom_store::schema::promoted::{Kind as ColumnKind, PROMOTED_SPAN, Promoted};
use spanloom_traceql::{
    CompiledQuery, Exemplar, Field, FieldRef, Intrinsic, MetricsFunction, OverOp, OwnedValue,
    Partial, Scope,
};

use super::{Run, bounds};
use crate::db::{Db, DbError, Deadline, Flow, Text};
use crate::ids::hex;
use crate::sql::Sql;
use crate::traceql::condition::Condition;
use crate::traceql::rows::WEIGHT;
use crate::traceql::span::{Resources, kind_named, status_named, stored_value};

/// The most fields of a `by` that are columns.
const BY_MAX: usize = 4;

/// A pipeline of a query, as ClickHouse runs it.
#[derive(Debug)]
pub(super) struct Leaf {
    condition: Condition,
    by: Vec<Column>,
    taken: Taken,
}

/// What series are made by.
#[derive(Debug, Clone)]
pub(super) enum Column {
    Service,
    Name,
    Status,
    Kind,
    /// An attribute of the span, and the column that it has of its own.
    Span(String, Option<&'static Promoted>),
    /// An attribute of the resource.
    Resource(String),
}

impl Column {
    fn of(field: &FieldRef) -> Option<Self> {
        Some(match &field.field {
            Field::Intrinsic(Intrinsic::Name) => Self::Name,
            Field::Intrinsic(Intrinsic::Status) => Self::Status,
            Field::Intrinsic(Intrinsic::Kind) => Self::Kind,
            Field::Attribute {
                parent: false,
                scope,
                name,
            } => match scope {
                Scope::Resource if name == "service.name" => Self::Service,
                Scope::Resource => Self::Resource(name.clone()),
                Scope::Span => Self::of_span(name),
                _ => return None,
            },
            Field::Attribute { .. } | Field::Intrinsic(_) => return None,
        })
    }

    /// An attribute of the span.
    pub(super) fn of_span(key: &str) -> Self {
        let promoted = PROMOTED_SPAN.iter().find(|column| column.key == key);
        Self::Span(key.to_owned(), promoted)
    }

    /// What rows are grouped by: columns as they are, which ClickHouse groups by their numbers. An attribute of the
    /// span is a letter for its type and its text, or nothing where there is none.
    pub(super) fn grouped(&self) -> Sql {
        let (key, promoted) = match self {
            Self::Service => return Sql::new("service"),
            Self::Name => return Sql::new("name"),
            Self::Status => return Sql::new("status"),
            Self::Kind => return Sql::new("kind"),
            Self::Resource(_) => return Sql::new("resource"),
            Self::Span(key, promoted) => (key, promoted),
        };
        let mut sql = Sql::new("multiIf(");
        if let Some(promoted) = promoted {
            sql.push(promoted.column).push(match promoted.kind {
                ColumnKind::Code => " != 0, concat('i', toString(",
                _ => " != '', concat('s', toString(",
            });
            sql.push(promoted.column).push(")), ");
        }
        for (contains, value) in [
            ("mapContains(attr_str, ", "), concat('s', attr_str["),
            (
                "mapContains(attr_int, ",
                "), concat('i', toString(attr_int[",
            ),
            (
                "mapContains(attr_double, ",
                "), concat('d', toString(attr_double[",
            ),
            ("mapContains(attr_other, ", "), concat('o', attr_other["),
        ] {
            sql.push(contains).string(key).push(value).string(key);
            let is_number = value.contains("toString");
            sql.push(if is_number { "])), " } else { "]), " });
        }
        sql.push("'')");
        sql
    }

    /// The value of a text of [`Self::grouped`].
    fn value(&self, text: &Text, resources: &mut Resources) -> OwnedValue {
        match self {
            Self::Service | Self::Name => OwnedValue::Str(text.0.clone()),
            Self::Status => OwnedValue::Status(status_named(&text.0)),
            Self::Kind => OwnedValue::Kind(kind_named(&text.0)),
            Self::Resource(key) => resources.value(text, key),
            Self::Span(..) => {
                let mut chars = text.0.chars();
                let (kind, rest) = (chars.next(), chars.as_str());
                match kind {
                    Some('s') => OwnedValue::Str(rest.to_owned()),
                    Some('i') => rest.parse().map_or(OwnedValue::Nil, OwnedValue::Int),
                    Some('d') => rest.parse().map_or(OwnedValue::Nil, OwnedValue::Float),
                    Some('o') => stored_value(rest),
                    _ => OwnedValue::Nil,
                }
            }
        }
    }
}

/// What is taken of the spans of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Count,
    Min,
    Max,
    Sum,
    Avg,
    Buckets,
}

/// The names of the columns that series are made by.
const BY: [&str; BY_MAX] = ["by_0", "by_1", "by_2", "by_3"];

/// What spans are ordered by first.
const BUCKET_NS: i64 = 300_000_000_000;

/// A span as an example: its ids, start and duration.
const EXAMPLE: &str = "(s.trace_id, s.span_id, toUnixTimestamp64Nano(time), s.duration_ns)";

impl Leaf {
    /// The values that a row's series is made by, and the step.
    fn place(&self, row: &StepRow, resources: &mut Resources) -> (Vec<OwnedValue>, usize) {
        let texts = row.by_texts.iter().zip(&self.by);
        let by = texts.map(|(text, column)| column.value(text, resources));
        let step = usize::try_from(row.step).unwrap_or(usize::MAX);
        (by.collect(), step)
    }
}

/// How ClickHouse runs a query; none where it cannot run all of it.
pub(super) fn plan(query: &CompiledQuery) -> Option<Vec<Leaf>> {
    let leaves = query.leaves();
    leaves
        .iter()
        .map(|leaf| {
            let condition = Condition::of(leaf.filter?);
            if !condition.is_exact() {
                return None;
            }
            let function = &leaf.pipeline.function;
            let taken = match function {
                MetricsFunction::Rate { .. } | MetricsFunction::Count { .. } => Taken::Count,
                MetricsFunction::Over { op, .. } => match op {
                    OverOp::Min => Taken::Min,
                    OverOp::Max => Taken::Max,
                    OverOp::Sum => Taken::Sum,
                    OverOp::Avg => Taken::Avg,
                    OverOp::Histogram => Taken::Buckets,
                },
                MetricsFunction::Quantile { .. } => Taken::Buckets,
                MetricsFunction::Compare { .. } => return None,
            };
            let is_duration =
                |field: &FieldRef| matches!(field.field, Field::Intrinsic(Intrinsic::Duration));
            if !function.field().is_none_or(is_duration) {
                return None;
            }
            let by: Option<Vec<Column>> = function.by().iter().map(Column::of).collect();
            Some(Leaf {
                condition,
                by: by.filter(|by| by.len() <= BY_MAX)?,
                taken,
            })
        })
        .collect()
}

/// An aggregate of a step.
#[derive(Debug, Row, Deserialize)]
struct StepRow {
    step: u32,
    by_texts: Vec<Text>,
    exponent: i32,
    spans: u64,
    weight: f64,
    number: f64,
    trace_id: [u8; 16],
    span_id: [u8; 8],
    start_ns: i64,
    duration_ns: u64,
}

/// What is known of the spans that were counted, when examples of them are looked for.
#[derive(Debug, Default)]
struct Dense {
    /// How many there are.
    spans: u64,
    /// The steps that have some.
    steps: BTreeSet<u32>,
    /// The series, as far as they may have an example.
    series: HashSet<(Vec<Text>, i32)>,
}

impl Run<'_> {
    /// Has ClickHouse aggregate.
    pub(super) async fn aggregate(
        &mut self,
        db: &Db,
        leaves: &[Leaf],
        deadline: Deadline,
    ) -> Result<(), DbError> {
        let mut counted = Vec::new();
        for (number, leaf) in leaves.iter().enumerate() {
            counted.push(self.count(db, number, leaf, deadline).await?);
        }
        for (number, (leaf, dense)) in leaves.iter().zip(&counted).enumerate() {
            match self.examples(db, number, leaf, dense, deadline).await {
                Ok(()) => {}
                // The series are whole without them.
                Err(error) if error.is_limit() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether examples are read apart: of columns that are quickly read, ids take a third of the time, and of long
    /// steps the key of the table tells where a few are.
    fn are_ids_apart(&self, leaf: &Leaf) -> bool {
        let is_long = self.window.step_ns() >= BUCKET_NS.unsigned_abs();
        self.wants_exemplars && is_long && leaf.condition.is_quick()
    }

    async fn count(
        &mut self,
        db: &Db,
        number: usize,
        leaf: &Leaf,
        deadline: Deadline,
    ) -> Result<Dense, DbError> {
        let are_ids_apart = self.are_ids_apart(leaf);
        let are_ids_read = self.wants_exemplars && !are_ids_apart;
        let sql = self.sql(leaf, are_ids_read);
        let (mut exemplars, mut resources) = (Vec::new(), Resources::default());
        let mut dense = Dense::default();
        let read = db.each("traceql_metrics", &sql, deadline, |row: StepRow| {
            dense.spans += row.spans;
            if are_ids_apart {
                dense.steps.insert(row.step);
                if dense.series.len() < spanloom_traceql::MAX_EXEMPLARS {
                    dense.series.insert((row.by_texts.clone(), row.exponent));
                }
            }
            let (by, step) = leaf.place(&row, &mut resources);
            let partial = match leaf.taken {
                Taken::Count => Partial::Count(row.weight),
                Taken::Min | Taken::Max | Taken::Sum => Partial::Value(row.number),
                Taken::Avg => Partial::Average {
                    sum: row.number,
                    count: row.weight,
                },
                Taken::Buckets => Partial::Bucket {
                    exponent: row.exponent,
                    count: row.weight,
                },
            };
            self.metrics
                .observe_aggregate(number, by.clone(), step, partial);
            if are_ids_read {
                exemplars.push((by, step, exemplar(leaf, &row)));
            }
            Flow::More
        });
        let read = read.await;
        self.inspected_spans += dense.spans;
        read?;
        self.choose(number, &exemplars);
        Ok(dense)
    }

    /// Looks for examples, first in parts of the window, and in all of it where there is none.
    async fn examples(
        &mut self,
        db: &Db,
        number: usize,
        leaf: &Leaf,
        dense: &Dense,
        deadline: Deadline,
    ) -> Result<(), DbError> {
        if !self.are_ids_apart(leaf) || dense.spans == 0 {
            return Ok(());
        }
        let (mut exemplars, mut resources) = (Vec::new(), Resources::default());
        for part in [Some(dense), None] {
            let sql = self.examples_sql(leaf, part);
            let read = db.each("traceql_exemplars", &sql, deadline, |row: StepRow| {
                let (by, step) = leaf.place(&row, &mut resources);
                exemplars.push((by, step, exemplar(leaf, &row)));
                Flow::More
            });
            read.await?;
            if !exemplars.is_empty() {
                break;
            }
        }
        self.choose(number, &exemplars);
        Ok(())
    }

    /// Takes examples of all series and steps alike, whichever come first.
    fn choose(&mut self, number: usize, exemplars: &[(Vec<OwnedValue>, usize, Exemplar)]) {
        let most = spanloom_traceql::MAX_EXEMPLARS;
        let stride = exemplars.len().div_ceil(most).max(1);
        for offset in 0..stride {
            for (by, step, exemplar) in exemplars.iter().skip(offset).step_by(stride) {
                self.metrics
                    .observe_exemplar(number, by, *step, exemplar.clone());
            }
        }
    }

    /// The beginning of a statement whose rows are [`StepRow`]s: up to the count, which follows.
    fn select_sql(&self, leaf: &Leaf) -> Sql {
        let (from_ns, _) = bounds(&self.window);
        let mut sql = Sql::new("SELECT step, ");
        for (place, name) in BY.iter().take(leaf.by.len()).enumerate() {
            let begin = if place == 0 {
                "[toString("
            } else {
                ", toString("
            };
            sql.push(begin).push(name).push(")");
        }
        let is_one = leaf.by.is_empty();
        sql.push(if is_one { "[]::Array(String)" } else { "]" });
        sql.push(
            " AS by_texts, exponent, spans, weight, number, example.1 AS trace_id, example.2 AS span_id, \
             example.3 AS start_ns, example.4 AS duration_ns \
             FROM (SELECT toUInt32(intDiv(toUInt64(toUnixTimestamp64Nano(time) - ",
        );
        sql.int(from_ns)
            .push("), toUInt64(")
            .uint(self.window.step_ns())
            .push("))) AS step, ");
        for (column, name) in leaf.by.iter().zip(BY) {
            sql.append(&column.grouped())
                .push(" AS ")
                .push(name)
                .push(", ");
        }
        // The least power of two that a duration is not above; the logarithm may be a little too small.
        sql.push(match leaf.taken {
            Taken::Buckets => {
                "toInt32(ceil(log2(s.duration_ns)) + \
                 (exp2(ceil(log2(s.duration_ns))) < s.duration_ns)) AS exponent, "
            }
            _ => "toInt32(0) AS exponent, ",
        });
        sql
    }

    /// The end of a statement, from the example on: the table and the condition of the spans that count.
    fn where_sql(&self, leaf: &Leaf) -> Sql {
        let (from_ns, to_ns) = bounds(&self.window);
        let mut sql = Sql::new(" AS example FROM spans AS s WHERE tenant = '' AND ");
        sql.started_within(from_ns, to_ns);
        if leaf.taken == Taken::Buckets {
            sql.push(" AND s.duration_ns >= 2");
        }
        leaf.condition.and_to(&mut sql);
        sql
    }

    /// What series are made by.
    fn group_sql(leaf: &Leaf) -> Sql {
        let mut sql = Sql::new("step, exponent");
        for name in BY.iter().take(leaf.by.len()) {
            sql.push(", ").push(name);
        }
        sql
    }

    /// A span of each step and series; where it is known how many spans there are, of those in the beginning of enough
    /// steps.
    fn examples_sql(&self, leaf: &Leaf, dense: Option<&Dense>) -> Sql {
        let mut sql = self.select_sql(leaf);
        sql.push("toUInt64(1) AS spans, toFloat64(1) AS weight, toFloat64(0) AS number, ")
            .push(EXAMPLE)
            .append(&self.where_sql(leaf));
        if let Some(dense) = dense {
            self.in_beginnings(dense, &mut sql);
        }
        sql.push(" LIMIT 1 BY ")
            .append(&Self::group_sql(leaf))
            .push(" LIMIT 10000)");
        sql
    }

    /// Adds the condition that a span is in the beginning of one of some steps that have spans, so that about as many
    /// are looked at as are enough; the key of the table tells where these are.
    fn in_beginnings(&self, dense: &Dense, sql: &mut Sql) {
        const LOOKED_AT: u128 = 20_000;
        let (from_ns, _) = bounds(&self.window);
        let step_ns = self.window.step_ns();
        let wanted = spanloom_traceql::MAX_EXEMPLARS.div_ceil(dense.series.len().max(1)) * 2;
        let stride = dense.steps.len().div_ceil(wanted).max(1);
        let looked_at = LOOKED_AT * stride as u128;
        let part = u128::from(step_ns) * looked_at / u128::from(dense.spans.max(1));
        let part_ns = u64::try_from(part).unwrap_or(step_ns).clamp(1, step_ns);
        sql.push(" AND (toUnixTimestamp64Nano(time) - ")
            .int(from_ns)
            .push(") % ")
            .uint(step_ns)
            .push(" < ")
            .uint(part_ns);
        if part_ns == step_ns {
            return;
        }
        let signed_step_ns = i64::try_from(step_ns).unwrap_or(i64::MAX);
        sql.push(" AND toStartOfFiveMinutes(time) IN (toDateTime(0)");
        for step in dense.steps.iter().step_by(stride) {
            let start_ns = from_ns.saturating_add(signed_step_ns.saturating_mul((*step).into()));
            let first = start_ns.div_euclid(BUCKET_NS) * 300;
            // A step begins anywhere in its first bucket.
            for bucket in [first, first.saturating_add(300)] {
                sql.push(", toDateTime(")
                    .int(bucket.clamp(0, u32::MAX.into()))
                    .push(")");
            }
        }
        sql.push(")");
    }

    fn sql(&self, leaf: &Leaf, are_ids_read: bool) -> Sql {
        let mut sql = self.select_sql(leaf);
        sql.push("count() AS spans, toFloat64(");
        match self.extrapolates {
            true => sql.push("sum(").push(WEIGHT).push(")"),
            false => sql.push("count()"),
        };
        sql.push(") AS weight, ");
        sql.push(match leaf.taken {
            Taken::Count | Taken::Buckets => "toFloat64(0)",
            Taken::Min => "toFloat64(min(s.duration_ns))",
            Taken::Max => "toFloat64(max(s.duration_ns))",
            Taken::Sum | Taken::Avg => "sum(toFloat64(s.duration_ns)",
        });
        if matches!(leaf.taken, Taken::Sum | Taken::Avg) {
            if self.extrapolates {
                sql.push(" * ").push(WEIGHT);
            }
            sql.push(")");
        }
        sql.push(" AS number, ");
        match are_ids_read {
            true => sql.push("any(").push(EXAMPLE).push(")"),
            false => {
                sql.push("(toFixedString('', 16), toFixedString('', 8), toInt64(0), toUInt64(0))")
            }
        };
        sql.append(&self.where_sql(leaf))
            .push(" GROUP BY ")
            .append(&Self::group_sql(leaf))
            .push(")");
        sql
    }
}

/// A span of a step, as an example of it.
fn exemplar(leaf: &Leaf, row: &StepRow) -> Exemplar {
    let text = |bytes: &[u8]| OwnedValue::Str(hex(bytes));
    let mut labels = vec![
        ("trace:id".to_owned(), text(&row.trace_id)),
        ("span:id".to_owned(), text(&row.span_id)),
    ];
    let mut value = f64::NAN;
    if leaf.taken != Taken::Count {
        let ns = i64::try_from(row.duration_ns).unwrap_or(i64::MAX);
        labels.push(("duration".to_owned(), OwnedValue::Duration(ns).plain()));
        #[expect(clippy::cast_precision_loss)] // an example
        {
            value = ns as f64 / 1e9;
        }
    }
    Exemplar {
        labels,
        value,
        timestamp_ms: row.start_ns / 1_000_000,
    }
}
