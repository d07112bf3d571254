//! What ClickHouse narrows down or aggregates is what the evaluator means: the same queries with and without a part that
//! ClickHouse cannot run, and that changes nothing, have the same answers.

mod alone;
mod compare;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::harness::{Service, Span, T0, at_ms, span};

/// Always false, and only for whoever knows the whole trace.
const NEVER: &str = "nestedSetLeft < -5";

/// A small generator, so that each run has the same cases (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[usize::try_from(self.below(list.len() as u64)).unwrap()]
    }
}

/// A span with a value of each kind, or none, wherever the store keeps it.
fn stored(random: &mut Random, trace: u128, id: u64, parent: u64) -> Span {
    let strings = [
        "map()",
        "map('s', 'a')",
        "map('s', 'b')",
        "map('s', '')",
        "map('http.route', '')",
    ];
    let ints = [
        "map()",
        "map('i', toInt64(0))",
        "map('i', toInt64(1))",
        "map('i', toInt64(2))",
    ];
    let doubles = [
        "map()",
        "map('d', 1.5)",
        "map('d', 2.)",
        "map('i', 1.)",
        "map('d', nan)",
    ];
    let others = [
        "map()",
        "map('b', 'true')",
        "map('b', 'false')",
        "map('s', '[\"a\",\"c\"]')",
        "map('i', '[1,7]')",
        "map('s', 'null')",
        "map('b', '[true]')",
    ];
    let of_map =
        |text: &str, kind: &str| format!("CAST({text}, 'Map(LowCardinality(String), {kind})')");
    // An array has no place in the column.
    let (pod, pod_json) = match random.of(&["p1", "p2", "", "array"]) {
        "" => ("", String::new()),
        "array" => ("", ",\"k8s.pod.name\":[\"p1\",\"p3\"]".to_owned()),
        pod => (pod, format!(",\"k8s.pod.name\":\"{pod}\"")),
    };
    let more = random.of(&[
        "",
        ",\"r\":\"a\"",
        ",\"r\":1",
        ",\"r\":[\"a\",\"b\"]",
        ",\"s\":\"b\"",
    ]);
    let service = random.of(&["cart", "pay"]);
    let start_ns = at_ms(i64::try_from(trace * 100 + u128::from(id)).unwrap());
    let time = |ns: i64| format!("fromUnixTimestamp64Nano(toInt64({ns}))");
    let near = format!(
        "[({}, 'e1', '', 0), ({}, 'e2', '', 0)]",
        time(start_ns + 2_000_000),
        time(start_ns)
    );
    let events = [
        "[]",
        "[(fromUnixTimestamp64Nano(toInt64(1780000021000000000)), 'e1', '{\"e\":\"a\"}', 0)]",
        "[(fromUnixTimestamp64Nano(toInt64(1780000021000000000)), 'e2', '{\"e\":2}', 0)]",
        &near,
    ];
    let links = [
        "[]",
        "[(toFixedString(unhex('0a'), 16), toFixedString(unhex('0b'), 8), '', 0, '', 0)]",
        "[(toFixedString(concat(repeat('\\0', 15), unhex('0a')), 16), \
         toFixedString(concat(repeat('\\0', 7), unhex('0a')), 8), '', 0, '{\"e\":\"a\"}', 0), \
         (toFixedString('', 16), toFixedString('', 8), '', 0, '', 0)]",
    ];
    let text = |text: &str| format!("'{text}'");
    let states = [
        "",
        "ot=th:8",
        "a=th:8, ot=rv:0123456789abcd;th:c ,b=1",
        "ot=th:",
        "ot=th:aab",
        "not=th:8",
    ];
    let kind = random.of(&["SERVER", "CLIENT", "INTERNAL"]);
    let status = random.of(&["UNSET", "OK", "ERROR"]);
    span(trace, id, parent, i64::try_from(trace * 100 + u128::from(id)).unwrap())
        .service(service)
        .name(random.of(&["a", "b", "ab"]))
        .is(kind, status)
        .takes_ms(random.below(4))
        .with("trace_state", &text(random.of(&states)))
        .with("status_message", &text(random.of(&["", "a", "b"])))
        .with("http_route", &text(random.of(&["", "a", "b"])))
        .with("http_response_status_code", random.of(&["0", "1", "200", "500"]))
        .with("k8s_pod_name", &text(pod))
        .with("resource", &text(&format!("{{\"service.name\":\"{service}\"{pod_json}{more}}}")))
        .with("scope_name", &text(random.of(&["", "a", "b"])))
        .with("scope_attributes", &text(random.of(&["", "{\"c\":\"a\"}", "{\"c\":1}"])))
        .with("attr_str", &of_map(random.of(&strings), "String"))
        .with("attr_int", &of_map(random.of(&ints), "Int64"))
        .with("attr_double", &of_map(random.of(&doubles), "Float64"))
        .with("attr_other", &of_map(random.of(&others), "String"))
        .with(
            "events",
            &format!(
                "CAST({}, 'Array(Tuple(time DateTime64(9), name LowCardinality(String), attributes String, \
                 dropped UInt32))')",
                random.of(&events)
            ),
        )
        .with(
            "links",
            &format!(
                "CAST({}, 'Array(Tuple(trace_id FixedString(16), span_id FixedString(8), trace_state String, \
                 flags UInt32, attributes String, dropped UInt32))')",
                random.of(&links)
            ),
        )
}

/// A condition on a span.
fn condition(random: &mut Random, depth: u64) -> String {
    if depth > 0 && random.below(2) == 0 {
        let (left, right) = (condition(random, depth - 1), condition(random, depth - 1));
        return match random.below(5) {
            0 | 1 => format!("({left} && {right})"),
            2 | 3 => format!("({left} || {right})"),
            _ => format!("!({left})"),
        };
    }
    let texts = [
        "span.s",
        ".s",
        "span.http.route",
        ".http.route",
        "resource.r",
        "resource.service.name",
        "resource.k8s.pod.name",
        "name",
        "statusMessage",
        "event:name",
        "event.e",
        "link:spanID",
        "link:traceID",
        "instrumentation:name",
        "instrumentation.c",
        "span.nothing",
        "span.i",
    ];
    let numbers = [
        "span.i",
        ".i",
        "span.d",
        "span.http.response.status_code",
        "duration",
        "event.e",
        "event:timeSinceStart",
        "resource.r",
        "span.s",
    ];
    match random.below(9) {
        0..=2 => format!(
            "{} {} \"{}\"",
            random.of(&texts),
            random.of(&["=", "!=", "<", ">=", "="]),
            random.of(&["a", "b", "", "c", "cart", "p1", "e1", "0a"])
        ),
        3 => format!(
            "{} {} \"{}\"",
            random.of(&texts),
            random.of(&["=~", "!~"]),
            random.of(&["a|b", ".*", "[ab].*", "", "\\\\w", "p.", "c?art"])
        ),
        4 | 5 => format!(
            "{} {} {}",
            random.of(&numbers),
            random.of(&["=", "!=", "<", ">="]),
            random.of(&["0", "1", "1.0", "1.5", "2", "200", "2ms", "-1"])
        ),
        6 => random
            .of(&[
                "span.b",
                "span.b = true",
                "span.b != true",
                "!span.b",
                ".b = false",
                "false",
                "true",
            ])
            .to_owned(),
        7 => format!(
            "{} {} nil",
            random.of(&[
                "span.s",
                ".s",
                "span.b",
                "resource.r",
                "span.http.route",
                "span.d",
                "event.e"
            ]),
            random.of(&["=", "!="])
        ),
        _ => random
            .of(&[
                "status = error",
                "status != ok",
                "kind = server",
                "kind != client",
                "nestedSetParent < 0",
                "trace:duration > 4ms",
                "trace:duration <= 3ms",
                "span:parentID = \"\"",
                "span.i + 1 = 2",
                "span.i = span.d",
                ".http.response.status_code > .i",
            ])
            .to_owned(),
    }
}

fn encoded(query: &str) -> String {
    query.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

async fn ask(service: &Service, route: &str, query: &str) -> Value {
    let encoded = encoded(query);
    // The spans are in a long part of the window, whose conditions are looked for apart.
    let window = format!("start={}&end={}", T0 - 60, T0 + 600);
    let path = format!("/tempo/api/{route}?{window}&limit=1000&spss=0&q={encoded}");
    let answer = service.ask(&path).await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.text);
    answer.body
}

/// The spans that a search found.
async fn found(service: &Service, query: &str) -> BTreeSet<(String, String)> {
    let body = ask(service, "search", query).await;
    let mut found = BTreeSet::new();
    for trace in body["traces"].as_array().unwrap() {
        for set in trace["spanSets"].as_array().unwrap() {
            for span in set["spans"].as_array().unwrap() {
                found.insert((trace["traceID"].to_string(), span["spanID"].to_string()));
            }
        }
    }
    found
}

/// The series of a query of metrics, their values in millionths.
async fn series(service: &Service, query: &str) -> BTreeMap<String, i64> {
    let body = ask(service, "metrics/query", query).await;
    let series = body["series"].as_array().unwrap().iter();
    #[allow(clippy::cast_possible_truncation)] // small
    let value =
        |series: &Value| (series["value"].as_f64().unwrap_or(f64::NAN) * 1e6).round() as i64;
    series
        .map(|series| (series["labels"].to_string(), value(series)))
        .collect()
}

#[tokio::test]
async fn what_clickhouse_does_is_what_the_evaluator_means() {
    const SEARCHES: usize = 200;
    const METRICS: usize = 100;
    let service = Service::start().await;
    let mut random = Random(7);
    let mut spans = Vec::new();
    for trace in 1..=40 {
        for id in 1..=3 {
            let parent = if id == 1 { 0 } else { random.below(id) };
            spans.push(stored(
                &mut random,
                trace,
                trace as u64 * 10 + id,
                match parent {
                    0 => 0,
                    parent => trace as u64 * 10 + parent,
                },
            ));
        }
    }
    service.insert(&spans).await;
    let mut filled = 0;
    for _ in 0..SEARCHES {
        let condition = condition(&mut random, 2);
        let planned = found(&service, &format!("{{ {condition} }}")).await;
        let alone = found(&service, &format!("{{ ({condition}) || {NEVER} }}")).await;
        assert_eq!(planned, alone, "{condition}");
        filled += usize::from(!planned.is_empty());
    }
    assert!(
        filled * 2 > SEARCHES,
        "{filled} of {SEARCHES} found something"
    );
    let functions = [
        "count_over_time()",
        "rate()",
        "min_over_time(duration)",
        "max_over_time(duration)",
        "sum_over_time(duration)",
        "avg_over_time(duration)",
        "quantile_over_time(duration, .5, .9)",
        "histogram_over_time(duration)",
        "sum_over_time(span.i)",
        "compare({ status = error }, 5)",
    ];
    let by = [
        "",
        " by (name)",
        " by (resource.service.name, status)",
        " by (kind)",
        " by (span.s)",
        " by (span.i, span.b)",
        " by (span.d)",
        " by (span.http.route, resource.r)",
        " by (span.http.response.status_code)",
        " by (resource.k8s.pod.name)",
        " by (.i)",
    ];
    let mut filled = 0;
    for _ in 0..METRICS {
        let condition = condition(&mut random, 1);
        let function = match random.of(&functions) {
            // It has no series of its own.
            compare if compare.starts_with("compare") => compare.to_owned(),
            function => format!("{function}{}", random.of(&by)),
        };
        let function = function + random.of(&["", " with (extrapolate=true)"]);
        let planned = series(&service, &format!("{{ {condition} }} | {function}")).await;
        let alone = series(
            &service,
            &format!("{{ ({condition}) || {NEVER} }} | {function}"),
        )
        .await;
        assert_eq!(planned, alone, "{{ {condition} }} | {function}");
        filled += usize::from(!planned.is_empty());
    }
    assert!(filled * 2 > METRICS, "{filled} of {METRICS} had series");
}

/// Whole traces are read by chunks of the window, and each counts once, in however many of them it is.
#[tokio::test]
async fn a_trace_counts_once_in_however_many_chunks_it_is() {
    let service = Service::start().await;
    let hour = T0 / 3600 * 3600 - 3600;
    // Two spans each second, the second a child of the first, and a trace with a child of its root each minute.
    for (trace, id, parent, seconds, count) in [
        ("number + 1", "1", "0", "number", 3_600),
        ("number + 1", "2", "1", "number", 3_600),
        (
            "99999",
            "number + 1",
            "if(number = 0, 0, 1)",
            "60 * number + 30",
            60,
        ),
    ] {
        let fixed = |number: &str, digits: usize| {
            let bytes = digits / 2;
            format!(
                "toFixedString(unhex(leftPad(hex(toUInt64({number})), {digits}, '0')), {bytes})"
            )
        };
        service
            .sql(&format!(
                "INSERT INTO spans (time, trace_id, span_id, parent_span_id, service, name, duration_ns) SELECT \
                 fromUnixTimestamp64Nano(toInt64(({hour} + {seconds}) * 1000000000)), {}, {}, {}, 'cart', 'x', 5 \
                 FROM numbers({count})",
                fixed(trace, 32),
                fixed(id, 16),
                fixed(parent, 16),
            ))
            .await;
    }
    service
        .sql(
            "INSERT INTO trace_index (day, trace_id, start, end, span_count) SELECT toDate(min(time)), trace_id, \
             min(time), max(time), count() FROM spans GROUP BY trace_id",
        )
        .await;
    let query = encoded("{ } | count_over_time() by (span:childCount)");
    let path = format!(
        "/tempo/api/metrics/query?start={}&end={}&q={query}",
        hour - 1,
        hour + 3_600
    );
    let answer = service.ask(&path).await;
    let series = answer.body["series"].as_array().unwrap().iter();
    let counts = series.map(|series| {
        let children = series["labels"][0]["value"]["intValue"].to_string();
        (children, series["value"].as_f64().unwrap())
    });
    let counts: BTreeMap<String, f64> = counts.collect();
    let expect = [("\"0\"", 3_659.0), ("\"1\"", 3_600.0), ("\"59\"", 1.0)];
    let expect = expect.map(|(children, count)| (children.to_owned(), count));
    assert_eq!(counts, BTreeMap::from(expect), "{}", answer.text);
}

/// Of many spans examples are looked for in parts of the window, and in all of it where these have none.
#[tokio::test]
async fn many_spans_have_exemplars() {
    let service = Service::start().await;
    let hour = T0 / 3600 * 3600 - 3600;
    // The first steps have none, and the others none in the beginning; then two steps have them all along.
    for (from, to) in [(hour + 1500, hour + 1700), (hour + 2100, hour + 2300)] {
        spread(&service, from, to).await;
    }
    check_exemplars(&service, hour).await;
    spread(&service, hour + 2400, hour + 3600).await;
    check_exemplars(&service, hour).await;
}

/// Stores 40,000 spans of four services within these seconds.
async fn spread(service: &Service, from: i64, to: i64) {
    let step = (to - from) * 1_000_000_000 / 40_000;
    service
        .sql(&format!(
            "INSERT INTO spans (time, trace_id, span_id, service, name, duration_ns) SELECT \
             fromUnixTimestamp64Nano(toInt64({from}000000000 + number * {step})), \
             toFixedString(unhex(leftPad(hex(number + {from}), 32, '0')), 16), \
             toFixedString(unhex(leftPad(hex(number + 1), 16, '0')), 8), \
             concat('s', toString(number % 4)), 'x', 5 FROM numbers(40000)"
        ))
        .await;
}

async fn check_exemplars(service: &Service, hour: i64) {
    for function in ["rate()", "quantile_over_time(duration, .9)"] {
        let query = format!("{{ }} | {function} by (resource.service.name)");
        let encoded = encoded(&query);
        let path = format!(
            "/tempo/api/metrics/query_range?start={hour}&end={}&step=600s&q={encoded}",
            hour + 3600
        );
        let answer = service.ask(&path).await;
        let series = answer.body["series"].as_array().unwrap();
        assert_eq!(series.len(), 4, "{}", answer.text);
        for series in series {
            let exemplars = series["exemplars"].as_array();
            assert!(exemplars.is_some_and(|list| !list.is_empty()), "{series}");
        }
    }
}

/// By the rules of OpenTelemetry's probability sampling: `th:8` is one of two.
#[tokio::test]
async fn a_sampled_span_counts_as_those_that_it_stands_for() {
    let service = Service::start().await;
    for (trace, (state, weight)) in [
        ("", 1.0),
        ("ot=th:0", 1.0),
        ("ot=th:8", 2.0),
        ("ot=th:c", 4.0),
        ("ot=th:fd70a4", 100.0),
        ("a=1, ot=rv:0123456789abcd;th:c ,b=2", 4.0),
        ("not=th:8", 1.0),
        ("ot=xth:8", 1.0),
        ("ot=th:", 1.0),
        ("ot=th:8x", 1.0),
        ("ot=th:ffffffffffffff", 72_057_594_037_927_936.0),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("span-{trace}");
        let made = span(trace as u128 + 1, 1, 0, 0).name(&name);
        service
            .insert(&[made.with("trace_state", &format!("'{state}'"))])
            .await;
        for filter in [
            format!("name = \"{name}\""),
            format!("name = \"{name}\" || {NEVER}"),
        ] {
            let query = format!("{{ {filter} }} | count_over_time() with (extrapolate=true)");
            let body = ask(&service, "metrics/query", &query).await;
            let count = body["series"][0]["value"].as_f64().unwrap();
            assert!((count / weight - 1.0).abs() < 1e-4, "{state}: {count}");
        }
    }
}
