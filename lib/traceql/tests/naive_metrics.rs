//! Series agree with what each function means, worked out value by value.

#![allow(clippy::unwrap_used)] // the helpers are tests too

mod common;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use common::arbitrary::{filters, traces};
use common::naive::{Naive, Val};
use common::owned::OwnedSpan;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use spanloom_traceql::{
    Body, CompareOp, CompiledQuery, Expr, Field, FieldRef, Intrinsic, Limits, Metrics, MetricsExpr,
    MetricsFunction, MetricsPipeline, Node, OverOp, OwnedValue, SecondStage, Trace, Window,
    parse_query,
};

const S: u64 = 1_000_000_000;
/// The spans start at 1 to 4 s: some before, some after.
const STEPS: std::ops::Range<u64> = 2..4;

/// Labels as text, and the value of each step.
type Expected = BTreeMap<String, Vec<Option<f64>>>;

fn expr(field: &FieldRef) -> Expr {
    Expr {
        node: Node::Field(field.field.clone()),
        at: field.at.0,
    }
}

fn text(value: &Val) -> String {
    match value {
        Val::Str(s) => s.clone(),
        Val::Int(n) => n.to_string(),
        // 1 and 1.0 are values of their own as labels.
        Val::Float(x) => format!("{x:?}"),
        Val::Bool(b) => b.to_string(),
        Val::Status(status) => status.text().to_owned(),
        Val::Kind(kind) => kind.text().to_owned(),
        Val::Other => "nil".to_owned(),
    }
}

fn shown(value: &OwnedValue) -> String {
    match value {
        OwnedValue::Float(x) => format!("{x:?}"),
        OwnedValue::Array(list) => {
            format!(
                "[{}]",
                list.iter().map(shown).collect::<Vec<_>>().join(", ")
            )
        }
        other => other.to_string(),
    }
}

/// What a span is grouped by: label and value, without the missing ones.
fn labels(naive: &Naive<'_>, function: &MetricsFunction, i: usize) -> Vec<String> {
    let pairs = function.by().iter().filter_map(|field| {
        let (values, is_array) = naive.all_values(&expr(field), i);
        let value = match values.as_slice() {
            [] if !is_array => return None,
            [Val::Other] if !is_array => return None,
            [one] if !is_array => text(one),
            list => format!("[{}]", list.iter().map(text).collect::<Vec<_>>().join(", ")),
        };
        Some(format!("{field}={value}"))
    });
    pairs.collect()
}

/// The numbers that a span adds; in seconds where they are durations.
fn numbers(naive: &Naive<'_>, field: &FieldRef, i: usize) -> Vec<Val> {
    let (values, is_array) = naive.all_values(&expr(field), i);
    let is_number = |v: &Val| matches!(v, Val::Int(_)) || matches!(v, Val::Float(x) if !x.is_nan());
    values
        .into_iter()
        .filter(|v| !is_array && is_number(v))
        .collect()
}

fn scale(field: &FieldRef) -> f64 {
    match field.field {
        Field::Intrinsic(
            Intrinsic::Duration | Intrinsic::TraceDuration | Intrinsic::EventTimeSinceStart,
        ) => 1e-9,
        _ => 1.0,
    }
}

fn float(v: &Val) -> f64 {
    match v {
        Val::Int(n) => *n as f64,
        Val::Float(x) => *x,
        _ => f64::NAN,
    }
}

/// The power of two that a number is not above, for those that have one.
fn bucket(v: &Val) -> Option<f64> {
    let x = float(v);
    if x <= 0.0 || matches!(v, Val::Int(n) if *n < 2) {
        return None;
    }
    let mut bucket = 2f64.powi(-20);
    while bucket < x {
        bucket *= 2.0;
    }
    Some(bucket)
}

fn quantile(mut buckets: Vec<f64>, q: f64) -> f64 {
    buckets.sort_by(f64::total_cmp);
    if buckets.is_empty() {
        return 0.0;
    }
    let wanted = ((q * buckets.len() as f64).ceil() as usize).max(1);
    let bucket = buckets[wanted - 1];
    let below = buckets.iter().filter(|b| **b < bucket).count();
    let within = buckets.iter().filter(|b| **b == bucket).count();
    if wanted == below + within {
        return bucket;
    }
    let before = if below == 0 {
        bucket / 2.0
    } else {
        buckets[below - 1]
    };
    before * (bucket / before).powf((wanted - below) as f64 / within as f64)
}

fn expected(metrics: &MetricsPipeline, traces: &[Vec<OwnedSpan>]) -> Expected {
    // For each group and step the numbers of its spans, and how many spans there are.
    let mut cells: BTreeMap<Vec<String>, Vec<(Vec<Val>, usize)>> = BTreeMap::new();
    let function = &metrics.function;
    let steps = (STEPS.end - STEPS.start + 1) as usize;
    if function.by().is_empty() {
        cells.insert(vec![], vec![(vec![], 0); steps]);
    }
    for spans in traces {
        let naive = Naive::new(spans);
        let matched: BTreeSet<usize> = naive.search(&metrics.spans).into_iter().flatten().collect();
        for i in matched {
            let second = spans[i].start / S;
            if !(STEPS.start..=STEPS.end).contains(&second) {
                continue;
            }
            let found = function.field().map(|field| numbers(&naive, field, i));
            if found.as_ref().is_some_and(Vec::is_empty) {
                continue;
            }
            let group = cells
                .entry(labels(&naive, function, i))
                .or_insert_with(|| vec![(vec![], 0); steps]);
            let cell = &mut group[(second - STEPS.start) as usize];
            cell.0.extend(found.unwrap_or_default());
            cell.1 += 1;
        }
    }
    let mut series = Expected::new();
    for (labels, cells) in cells {
        let alone = match (labels.is_empty(), function.by().first()) {
            (true, Some(field)) => format!("{field}=nil"),
            (true, None) => format!("__name__={}", function.name()),
            (false, _) => labels.join(","),
        };
        let with = |label: String| {
            labels
                .iter()
                .cloned()
                .chain([label])
                .collect::<Vec<_>>()
                .join(",")
        };
        let scale = function.field().map_or(1.0, scale);
        let each = |f: &dyn Fn(Vec<f64>) -> f64| -> Vec<Option<f64>> {
            let of = |numbers: &[Val]| {
                (!numbers.is_empty()).then(|| f(numbers.iter().map(|n| float(n) * scale).collect()))
            };
            cells.iter().map(|(numbers, _)| of(numbers)).collect()
        };
        let values = match function {
            MetricsFunction::Rate { .. } | MetricsFunction::Count { .. } => {
                cells.iter().map(|(_, count)| Some(*count as f64)).collect()
            }
            MetricsFunction::Over {
                op: OverOp::Min, ..
            } => each(&|n| n.into_iter().fold(f64::INFINITY, f64::min)),
            MetricsFunction::Over {
                op: OverOp::Max, ..
            } => each(&|n| n.into_iter().fold(f64::NEG_INFINITY, f64::max)),
            MetricsFunction::Over {
                op: OverOp::Sum, ..
            } => each(&|n| n.iter().sum()),
            MetricsFunction::Over {
                op: OverOp::Avg, ..
            } => each(&|n| n.iter().sum::<f64>() / n.len() as f64),
            MetricsFunction::Over {
                op: OverOp::Histogram,
                ..
            } => {
                let all: Vec<f64> = cells
                    .iter()
                    .flat_map(|(n, _)| n)
                    .filter_map(bucket)
                    .collect();
                for end in all {
                    let count =
                        |n: &[Val]| n.iter().filter(|n| bucket(n) == Some(end)).count() as f64;
                    let values = cells.iter().map(|(n, _)| Some(count(n))).collect();
                    series.insert(with(format!("__bucket={:?}", end * scale)), values);
                }
                continue;
            }
            MetricsFunction::Quantile { quantiles, .. } => {
                if cells.iter().flat_map(|(n, _)| n).filter_map(bucket).count() == 0 {
                    continue;
                }
                for q in quantiles {
                    let of =
                        |n: &[Val]| quantile(n.iter().filter_map(bucket).collect(), *q) * scale;
                    let values = cells.iter().map(|(n, _)| Some(of(n))).collect();
                    series.insert(with(format!("p={q:?}")), values);
                }
                continue;
            }
            MetricsFunction::Compare { .. } => panic!("not here"),
        };
        series.insert(alone, values);
    }
    for stage in &metrics.second {
        let before = series.clone();
        for (labels, values) in &mut series {
            for (step, value) in values.iter_mut().enumerate() {
                *value = value.filter(|value| kept(stage, &before, labels, step, *value));
            }
        }
    }
    series.retain(|_, values| values.iter().any(Option::is_some));
    series
}

/// Whether a second stage keeps a value.
fn kept(stage: &SecondStage, all: &Expected, labels: &str, step: usize, value: f64) -> bool {
    let others = || {
        all.iter()
            .filter_map(|(l, values)| Some((l.as_str(), values[step]?)))
    };
    match stage {
        SecondStage::Compare(op, with) => match op {
            CompareOp::Gt => value > *with,
            CompareOp::Le => value <= *with,
            _ => value != *with,
        },
        SecondStage::TopK(limit, _) => {
            let ahead = |(l, v): &(&str, f64)| *v > value || (*v == value && *l < labels);
            others().filter(ahead).count() < *limit as usize
        }
        SecondStage::BottomK(limit, _) => {
            let ahead = |(l, v): &(&str, f64)| *v < value || (*v == value && *l > labels);
            others().filter(ahead).count() < *limit as usize
        }
    }
}

fn same(left: Option<f64>, right: Option<f64>) -> bool {
    match (left, right) {
        (Some(l), Some(r)) => (l - r).abs() <= 1e-9 * l.abs().max(1.0),
        (l, r) => l == r,
    }
}

fn agrees(what: &str, cases: u32, queries: BoxedStrategy<String>) {
    let (tried, filled) = (Cell::new(0u32), Cell::new(0u32));
    let mut runner = TestRunner::new(ProptestConfig::with_cases(cases));
    let several = prop::collection::vec(traces(), 1..4);
    let result = runner.run(&(several, queries), |(traces, text)| {
        let query = parse_query(&text).unwrap();
        let Body::Metrics {
            expr: MetricsExpr::Pipeline(pipeline),
            ..
        } = &query.body
        else {
            panic!("{text}");
        };
        let expected = expected(pipeline, &traces);
        // Only a comparison of three fields of events is over a limit.
        let Ok(compiled) = CompiledQuery::of(query.clone()) else {
            return Ok(());
        };
        let window = Window::range(STEPS.start * S, STEPS.end * S, S).unwrap();
        let mut metrics = Metrics::new(&compiled, window, Limits::default());
        // In any order: sums of these numbers are exact.
        traces
            .iter()
            .rev()
            .for_each(|spans| metrics.observe(&Trace::new(spans)));
        let mut got = Expected::new();
        for series in metrics.finish().series {
            let labels: Vec<String> = series
                .labels
                .iter()
                .map(|(k, v)| format!("{k}={}", shown(v)))
                .collect();
            let at = |step| {
                let sample = series
                    .samples
                    .iter()
                    .find(|(ms, _)| *ms == window.timestamp_ms(step));
                sample.map(|(_, value)| *value)
            };
            got.insert(labels.join(","), (0..window.steps()).map(at).collect());
        }
        let keys = |e: &Expected| e.keys().cloned().collect::<Vec<_>>();
        prop_assert_eq!(keys(&got), keys(&expected), "{}", &text);
        for (labels, values) in &expected {
            let pairs = values.iter().zip(&got[labels]);
            prop_assert!(
                pairs.clone().all(|(l, r)| same(*l, *r)),
                "{text} {labels}: {pairs:?}"
            );
        }
        tried.set(tried.get() + 1);
        filled.set(
            filled.get()
                + u32::from(
                    expected
                        .values()
                        .flatten()
                        .any(|v| v.is_some_and(|v| v != 0.0)),
                ),
        );
        Ok(())
    });
    result.unwrap_or_else(|e| panic!("{what}: {e}"));
    let (tried, filled) = (tried.get(), filled.get());
    assert!(
        filled * 5 >= tried,
        "{what}: only {filled} of {tried} queries answered something"
    );
}

fn by() -> impl Strategy<Value = &'static str> {
    select(vec![
        "",
        " by (name)",
        " by (.zone, kind)",
        " by (.n)",
        " by (event.n, .tags)",
        " by (.none)",
    ])
}

#[test]
fn functions() {
    for function in ["rate()", "count_over_time()"] {
        let queries = (filters(), by()).prop_map(move |(f, by)| format!("{f} | {function}{by}"));
        agrees(function, 100, queries.boxed());
    }
    for function in ["min", "max", "sum", "avg", "histogram", "quantile"] {
        let field = select(vec![
            ".n",
            "span.m",
            "duration",
            "event.n",
            "event:timeSinceStart",
            "traceDuration",
        ]);
        let q = if function == "quantile" {
            ", 0, 0.5, 0.9, 1"
        } else {
            ""
        };
        let queries = (filters(), field, by())
            .prop_map(move |(f, field, by)| format!("{f} | {function}_over_time({field}{q}){by}"));
        agrees(function, 100, queries.boxed());
    }
}

#[test]
fn second_stages() {
    for stage in [
        "| topk(1)",
        "| bottomk(1)",
        "| topk(2)",
        "| bottomk(2)",
        "> 1",
        "<= 1",
        "!= 0 | topk(1)",
    ] {
        let function = select(vec![
            "count_over_time()",
            "max_over_time(duration)",
            "sum_over_time(.m)",
        ]);
        let queries = (filters(), function)
            .prop_map(move |(f, function)| format!("{f} | {function} by (name) {stage}"));
        agrees(stage, 60, queries.boxed());
    }
}

#[test]
fn structure_and_pipelines() {
    let spans = select(vec![
        "{ } > { }",
        "{ } | by(name) | count() > 1",
        "({ } || { .b }) | { .n > 0 }",
        "{ } !>> { }",
    ]);
    let queries = (spans, by()).prop_map(|(spans, by)| format!("{spans} | rate(){by}"));
    agrees("structure", 150, queries.boxed());
}
