//! Series: steps, labels, functions, second stages, arithmetic, exemplars, and what is aggregated elsewhere.

#![allow(clippy::expect_used, clippy::unwrap_used)] // the helpers are tests too

mod common;

use common::owned::{Event, OwnedSpan, V};
use spanloom_traceql::{
    CompiledQuery, Exemplar, Finished, Limits, Metrics, OwnedValue, Partial, Status, Trace,
    Truncated, Window, log2_bucket,
};

const S: u64 = 1_000_000_000;

/// The spans of a trace each: `name` starts at the second, lasts as many, and has `.n` and perhaps `.zone`.
fn spans() -> Vec<OwnedSpan> {
    let span = |id: u8, name: &str, start: u64, n: V, zone: &str| OwnedSpan {
        name: name.to_owned(),
        start: start * S,
        duration: u64::from(id) * S,
        trace_id: vec![id; 16],
        span_id: vec![id; 8],
        status: if id == 4 { Status::Error } else { Status::Ok },
        attributes: std::iter::once(("n".to_owned(), n))
            .chain((!zone.is_empty()).then(|| ("zone".to_owned(), V::Str(zone.to_owned()))))
            .collect(),
        resource: vec![("service.name".to_owned(), V::Str("shop".to_owned()))],
        ..OwnedSpan::default()
    };
    vec![
        span(1, "a", 101, V::Int(4), "x"),
        span(2, "a", 110, V::Float(1.5), "y"),
        span(3, "b", 111, V::Int(16), "x"),
        span(4, "b", 120, V::Str("no number".to_owned()), ""),
        span(5, "b", 131, V::Int(6), "y"),
        span(6, "late", 200, V::Int(7), "y"),
    ]
}

fn finished(text: &str, limits: Limits) -> Finished {
    let query = CompiledQuery::new(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    let window = Window::range(105 * S, 140 * S, 10 * S).expect("a window");
    let mut metrics = Metrics::new(&query, window, limits);
    for span in spans() {
        metrics.observe(&Trace::new(&[span]));
    }
    metrics.finish()
}

/// The series as text: labels, then time and value of each sample that is not 0.
#[track_caller]
fn gives(text: &str, expected: &[&str]) {
    let finished = finished(text, Limits::default());
    let lines: Vec<String> = finished
        .series
        .iter()
        .map(|series| {
            let labels: Vec<String> = series
                .labels
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            let samples = series.samples.iter().filter(|(_, value)| *value != 0.0);
            let samples: Vec<String> = samples
                .map(|(ms, value)| format!("{}:{value}", ms / 1000))
                .collect();
            format!("{} {}", labels.join(","), samples.join(" "))
        })
        .collect();
    assert_eq!(lines, expected, "{text}");
}

#[test]
fn functions() {
    gives(
        "{ } | count_over_time()",
        &["__name__=count_over_time 110:2 120:2 140:1"],
    );
    gives("{ } | rate()", &["__name__=rate 110:0.2 120:0.2 140:0.1"]);
    gives("{ false } | rate()", &["__name__=rate "]);
    gives(
        "{ } | min_over_time(.n)",
        &["__name__=min_over_time 110:1.5 120:16 140:6"],
    );
    gives(
        "{ } | max_over_time(duration)",
        &["__name__=max_over_time 110:2 120:4 140:5"],
    );
    gives(
        "{ } | sum_over_time(.n)",
        &["__name__=sum_over_time 110:5.5 120:16 140:6"],
    );
    gives(
        "{ } | avg_over_time(.n)",
        &["__name__=avg_over_time 110:2.75 120:16 140:6"],
    );
    gives("{ name = \"none\" } | avg_over_time(.n)", &[]);
    gives("{ } | sum_over_time(.missing)", &[]);
    gives(
        "{ } | histogram_over_time(.n)",
        &[
            "__bucket=2 110:1",
            "__bucket=4 110:1",
            "__bucket=8 140:1",
            "__bucket=16 120:1",
        ],
    );
    gives(
        "{ } | histogram_over_time(duration)",
        &[
            "__bucket=1.073741824 110:1",
            "__bucket=2.147483648 110:1",
            "__bucket=4.294967296 120:2",
            "__bucket=8.589934592 140:1",
        ],
    );
    gives(
        "{ } | quantile_over_time(.n, 1)",
        &["p=1 110:4 120:16 140:8"],
    );
}

#[test]
fn labels() {
    gives(
        "{ } | count_over_time() by (name)",
        &["name=a 110:2", "name=b 120:2 140:1"],
    );
    gives(
        "{ } | count_over_time() by (.zone)",
        &[
            ".zone=nil 120:1",
            ".zone=x 110:1 120:1",
            ".zone=y 110:1 140:1",
        ],
    );
    gives(
        "{ } | count_over_time() by (.zone, name)",
        &[
            "name=b 120:1",
            ".zone=x,name=a 110:1",
            ".zone=x,name=b 120:1",
            ".zone=y,name=a 110:1",
            ".zone=y,name=b 140:1",
        ],
    );
    gives(
        "{ status = error } | count_over_time() by (span:status, trace:rootName, duration)",
        &["status=error,rootName=b,duration=4s 120:1"],
    );
    gives(
        "{ .zone != nil } | quantile_over_time(.n, 0.5, 1) by (.zone)",
        &[
            ".zone=x,p=0.5 110:4 120:16",
            ".zone=x,p=1 110:4 120:16",
            ".zone=y,p=0.5 110:2 140:8",
            ".zone=y,p=1 110:2 140:8",
        ],
    );
}

#[test]
fn second_stages() {
    gives(
        "{ } | count_over_time() by (.zone) | topk(1)",
        &[".zone=nil 120:1", ".zone=x 110:1", ".zone=y 140:1"],
    );
    gives(
        "{ } | count_over_time() by (name) > 1",
        &["name=a 110:2", "name=b 120:2"],
    );
    gives(
        "{ } | count_over_time() by (name) >= 1 | topk(1) < 2",
        &["name=b 140:1"],
    );
    gives(
        "{ } | max_over_time(duration) > 4500ms",
        &["__name__=max_over_time 140:5"],
    );
    gives(
        "{ } | count_over_time() by (name) | topk(5)",
        &["name=a 110:2", "name=b 120:2 140:1"],
    );
    // Of equal values the smallest are those with the last labels, the greatest those with the first.
    gives(
        "{ } | count_over_time() by (.zone) != 0 | bottomk(1)",
        &[".zone=x 120:1", ".zone=y 110:1 140:1"],
    );
}

#[test]
fn arithmetic() {
    let by_name = "({ } | count_over_time() by (name))";
    let errors = "({ status = error } | count_over_time() by (name))";
    gives(
        &format!("{by_name} * 2 + 1 > 1"),
        &["name=a 110:5", "name=b 120:5 140:3"],
    );
    gives(
        &format!("1 - {by_name}"),
        &[
            "name=a 100:1 110:-1 120:1 130:1 140:1",
            "name=b 100:1 110:1 120:-1 130:1",
        ],
    );
    gives(&format!("{errors} / {by_name}"), &["name=b 120:0.5"]);
    gives(
        &format!("{by_name} / ({{ }} | count_over_time())"),
        &["name=a 110:1", "name=b 120:1 140:1"],
    );
    gives(
        &format!("({{ }} | count_over_time()) / {by_name}"),
        &["name=a 110:1", "name=b 120:1 140:1"],
    );
    gives(
        &format!("{by_name} + ({{ }} | count_over_time() by (.zone))"),
        &[],
    );
    gives(
        "({ } | rate()) / ({ } | count_over_time())",
        &["__name__=(rate / count_over_time) 110:0.1 120:0.1 140:0.1"],
    );
    gives("({ } | rate()) * 10", &["__name__=rate 110:2 120:2 140:1"]);
    // A missing value counts as 0 where the other side has one.
    gives(
        &format!("({{ }} | count_over_time() by (name) > 1) - {by_name}"),
        &["name=a ", "name=b 140:-1"],
    );
}

#[test]
fn numbers_of_events() {
    let mut span = spans().remove(0);
    let event = |n: i64| Event {
        attributes: vec![("n".to_owned(), V::Int(n))],
        since_start: n * 1_000_000_000,
        ..Event::default()
    };
    span.events = vec![event(3), event(5)];
    let value = |text: &str| {
        let query = CompiledQuery::new(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let mut metrics = Metrics::new(
            &query,
            Window::instant(1, 200 * S).expect("a window"),
            Limits::default(),
        );
        metrics.observe(&Trace::new(std::slice::from_ref(&span)));
        metrics
            .finish()
            .series
            .first()
            .and_then(|series| series.samples.first())
            .map(|(_, value)| *value)
    };
    assert_eq!(value("{ } | sum_over_time(event.n)"), Some(8.0));
    assert_eq!(
        value("{ } | max_over_time(event:timeSinceStart)"),
        Some(5.0)
    );
    assert_eq!(value("{ } | avg_over_time(event.n)"), Some(4.0));
}

#[test]
fn exemplars() {
    let exemplars = |text: &str, limit: usize| -> Vec<(String, f64, i64)> {
        let limits = Limits {
            exemplars: limit,
            ..Limits::default()
        };
        let series = finished(text, limits).series;
        let all = series.into_iter().flat_map(|series| series.exemplars);
        all.map(|e| (e.labels[0].1.to_string(), e.value, e.timestamp_ms))
            .collect()
    };
    let id = |n: u8| format!("{n:02x}").repeat(16);
    assert_eq!(
        exemplars("{ } | max_over_time(duration) by (name)", 100),
        [(1, 101), (2, 110), (3, 111), (4, 120), (5, 131)].map(|(n, at)| (
            id(n),
            f64::from(n),
            at * 1_000
        ))
    );
    // Where the function takes no field, the value is the sample's.
    assert_eq!(exemplars("{ } | rate()", 1), [(id(1), 0.2, 101_000)]);
    assert_eq!(exemplars("{ } | count_over_time() > 1", 5).len(), 4);
    assert_eq!(exemplars("{ } | rate() with (exemplars = false)", 100), []);
    assert_eq!(exemplars("{ } | rate() with (exemplars = 3)", 0).len(), 3);
    assert_eq!(
        exemplars("{ } | histogram_over_time(duration)", 100).len(),
        5
    );
    let quantiles = exemplars("{ } | quantile_over_time(duration, 0.1, 1)", 100);
    assert_eq!(quantiles.len(), 5);
}

#[test]
fn too_many_series() {
    let limits = Limits {
        series: 2,
        ..Limits::default()
    };
    let finished = finished("{ } | rate() by (.zone, name)", limits);
    assert_eq!(
        (finished.series.len(), finished.truncated),
        (2, Some(Truncated::Series(2)))
    );
}

/// They are not answered as series, so there may be many more.
#[test]
fn too_many_values() {
    let query = "{ } | compare({ status = error }, 1)";
    let few = Limits {
        series: 1,
        ..Limits::default()
    };
    assert_eq!(finished(query, few).truncated, None);
    let limits = Limits {
        compared: 100,
        ..Limits::default()
    };
    let truncated = finished(query, limits).truncated;
    assert!(
        matches!(truncated, Some(Truncated::Values(_))),
        "{truncated:?}"
    );
}

#[test]
fn compared() {
    let finished = finished("{ } | compare({ status = error }, 1)", Limits::default());
    let total = |kind: &str, label: &str| -> f64 {
        let find = |series: &&spanloom_traceql::Series| {
            let [(_, meta), (name, _)] = series.labels.as_slice() else {
                return false;
            };
            meta.to_string() == kind && name == label
        };
        let series = finished.series.iter().find(find);
        series.map_or(0.0, |series| {
            series.samples.iter().map(|(_, value)| value).sum()
        })
    };
    assert_eq!(total("baseline_total", "name"), 4.0);
    assert_eq!(total("selection_total", "span.n"), 1.0);
    assert_eq!(total("selection", "span.n"), 1.0);
    assert_eq!(total("selection_total", "span.zone"), 0.0);
    // Two names of two spans each: the first by its order.
    assert_eq!(total("baseline", "name"), 2.0);
}

/// What is aggregated elsewhere gives the same series as the spans themselves.
#[test]
fn aggregates() {
    for (text, kind) in [
        ("{ } | rate() by (name)", 0),
        ("{ } | count_over_time() by (name)", 0),
        ("{ } | min_over_time(duration) by (name)", 1),
        ("{ } | max_over_time(duration) by (name)", 1),
        ("{ } | sum_over_time(duration) by (name)", 1),
        ("{ } | avg_over_time(duration) by (name)", 2),
        ("{ } | quantile_over_time(duration, 0.5, 0.9) by (name)", 3),
        ("{ } | histogram_over_time(duration) by (name)", 3),
    ] {
        let query = CompiledQuery::new(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let window = Window::range(105 * S, 140 * S, 10 * S).expect("a window");
        let limits = Limits {
            exemplars: 0,
            ..Limits::default()
        };
        let (mut of_spans, mut of_parts) = (
            Metrics::new(&query, window, limits),
            Metrics::new(&query, window, limits),
        );
        for span in spans() {
            of_spans.observe(&Trace::new(std::slice::from_ref(&span)));
            let Some(step) = window.step_of(span.start) else {
                continue;
            };
            let value = span.duration as f64;
            let partial = match kind {
                0 => Partial::Count(1.0),
                1 => Partial::Value(value),
                2 => Partial::Average {
                    sum: value,
                    count: 1.0,
                },
                _ => Partial::Bucket {
                    exponent: log2_bucket(value).expect("above 0"),
                    count: 1.0,
                },
            };
            of_parts.observe_aggregate(0, vec![OwnedValue::Str(span.name)], step, partial);
        }
        assert_eq!(of_spans.finish(), of_parts.finish(), "{text}");
    }
}

/// A span that stands for three counts as three do.
#[test]
fn sampled_spans_are_extrapolated() {
    let window = Window::range(105 * S, 140 * S, 10 * S).expect("a window");
    let weights = [1, 3, 2, 5, 1, 4];
    let weighted: Vec<OwnedSpan> = spans()
        .into_iter()
        .zip(weights)
        .map(|(span, weight)| OwnedSpan {
            weight: Some(weight),
            ..span
        })
        .collect();
    let run = |text: &str, spans: &[OwnedSpan], each: &dyn Fn(&OwnedSpan) -> u8| {
        let query = CompiledQuery::new(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let limits = Limits {
            exemplars: 0,
            ..Limits::default()
        };
        let mut metrics = Metrics::new(&query, window, limits);
        for span in spans {
            for _ in 0..each(span) {
                metrics.observe(&Trace::new(std::slice::from_ref(span)));
            }
        }
        metrics.finish()
    };
    for function in [
        "rate()",
        "count_over_time() by (name)",
        "sum_over_time(.n)",
        "avg_over_time(.n) by (name)",
        "min_over_time(duration)",
        "max_over_time(.n)",
        "histogram_over_time(duration)",
        "quantile_over_time(duration, .1, .5, .9) by (name)",
        "compare({ .zone = \"y\" })",
    ] {
        let plain = format!("{{ }} | {function}");
        let hinted = format!("{plain} with (extrapolate = true)");
        let repeated = run(&plain, &weighted, &|span| span.weight.unwrap_or(0));
        assert_eq!(run(&hinted, &weighted, &|_| 1), repeated, "{function}");
        let not = format!("{plain} with (extrapolate = false)");
        let unweighted = run(&plain, &spans(), &|_| 1);
        assert_eq!(run(&plain, &weighted, &|_| 1), unweighted, "{function}");
        assert_eq!(run(&not, &weighted, &|_| 1), unweighted, "{function}");
        assert_eq!(
            repeated == unweighted,
            function.starts_with("min") || function.starts_with("max"),
            "{function}: the weights change it"
        );
    }
}

#[test]
fn exemplars_from_elsewhere() {
    let query = CompiledQuery::new("{ } | rate() by (name)").expect("a query");
    let window = Window::range(105 * S, 140 * S, 10 * S).expect("a window");
    let mut metrics = Metrics::new(&query, window, Limits::default());
    let by = vec![OwnedValue::Str("a".to_owned())];
    let exemplar = |n: &str| Exemplar {
        labels: vec![("trace:id".to_owned(), OwnedValue::Str(n.to_owned()))],
        value: f64::NAN,
        timestamp_ms: 111_000,
    };
    metrics.observe_aggregate(0, by.clone(), 2, Partial::Count(5.0));
    metrics.observe_exemplar(0, &by, 2, exemplar("1"));
    metrics.observe_exemplar(0, &by, 2, exemplar("1"));
    metrics.observe_exemplar(0, &[], 2, exemplar("2"));
    // What does not fit is left out.
    metrics.observe_aggregate(0, vec![], 2, Partial::Count(5.0));
    metrics.observe_aggregate(1, by.clone(), 2, Partial::Count(5.0));
    metrics.observe_aggregate(0, by.clone(), 99, Partial::Count(5.0));
    metrics.observe_aggregate(0, by.clone(), 1, Partial::Value(5.0));
    let series = metrics.finish().series;
    assert_eq!(series.len(), 1);
    assert_eq!(series[0].samples[2], (120_000, 0.5));
    let exemplars: Vec<f64> = series[0].exemplars.iter().map(|e| e.value).collect();
    assert_eq!(exemplars, [0.5]);
}
