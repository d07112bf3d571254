//! What a real Tempo answered, over traces that were sent to it: `e2e/golden`.

#![allow(clippy::unwrap_used)] // the helpers are tests too

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::owned::{Attributes, Event, Link, OwnedSpan, V};
use serde_json::{Map, Value, json};
use spanloom_traceql::{
    CompiledQuery, Kind, Limits, Metrics, OwnedValue, Series, Spanset, Status, Trace, Window,
};

fn golden(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../e2e/golden")
        .join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path:?}: {e}"))
}

fn hex(id: &Value) -> Vec<u8> {
    let digits = id.as_str().unwrap_or("");
    (0..digits.len() / 2)
        .map(|n| u8::from_str_radix(&digits[2 * n..2 * n + 2], 16).unwrap())
        .collect()
}

fn nanos(time: &Value) -> u64 {
    time.as_str().unwrap().parse().unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("").to_owned()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn value(value: &Value) -> V {
    let (form, value) = value.as_object().unwrap().iter().next().unwrap();
    match form.as_str() {
        "stringValue" => V::Str(text(value)),
        "intValue" => V::Int(value.as_str().unwrap().parse().unwrap()),
        "doubleValue" => V::Float(value.as_f64().unwrap()),
        "boolValue" => V::Bool(value.as_bool().unwrap()),
        "arrayValue" => V::Array(list(value, "values").iter().map(self::value).collect()),
        form => panic!("{form}"),
    }
}

fn attributes(of: &Value) -> Attributes {
    let pairs = list(of, "attributes").iter();
    pairs
        .map(|pair| (text(&pair["key"]), value(&pair["value"])))
        .collect()
}

fn span(span: &Value, resource: &Attributes, scope: &Value) -> OwnedSpan {
    let start = nanos(&span["startTimeUnixNano"]);
    OwnedSpan {
        name: text(&span["name"]),
        status: match span["status"]["code"].as_i64() {
            Some(1) => Status::Ok,
            Some(2) => Status::Error,
            _ => Status::Unset,
        },
        message: text(&span["status"]["message"]),
        kind: match span["kind"].as_i64() {
            Some(1) => Kind::Internal,
            Some(2) => Kind::Server,
            Some(3) => Kind::Client,
            Some(4) => Kind::Producer,
            Some(5) => Kind::Consumer,
            _ => Kind::Unspecified,
        },
        start,
        duration: nanos(&span["endTimeUnixNano"]) - start,
        trace_id: hex(&span["traceId"]),
        span_id: hex(&span["spanId"]),
        parent: hex(&span["parentSpanId"]),
        scope: (text(&scope["name"]), text(&scope["version"])),
        attributes: attributes(span),
        resource: resource.clone(),
        instrumentation: attributes(scope),
        events: list(span, "events")
            .iter()
            .map(|event| Event {
                name: text(&event["name"]),
                since_start: (nanos(&event["timeUnixNano"]) - start).cast_signed(),
                attributes: attributes(event),
            })
            .collect(),
        links: list(span, "links")
            .iter()
            .map(|link| Link {
                trace_id: hex(&link["traceId"]),
                span_id: hex(&link["spanId"]),
                attributes: attributes(link),
            })
            .collect(),
        weight: None,
    }
}

/// The traces by their names in the answers.
fn traces() -> BTreeMap<String, Vec<OwnedSpan>> {
    let names: BTreeMap<Vec<u8>, String> = golden("trace-ids.json")
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, id)| (hex(id), name.clone()))
        .collect();
    let mut traces: BTreeMap<String, Vec<OwnedSpan>> = BTreeMap::new();
    for resource in list(&golden("traces.json"), "resourceSpans") {
        let of_resource = attributes(&resource["resource"]);
        for scope in list(resource, "scopeSpans") {
            for json in list(scope, "spans") {
                let span = span(json, &of_resource, &scope["scope"]);
                traces
                    .entry(names[&span.trace_id].clone())
                    .or_default()
                    .push(span);
            }
        }
    }
    traces
}

/// A value as `check.py` reads it.
fn plain(value: &OwnedValue) -> Value {
    match value {
        OwnedValue::Str(s) => json!(s),
        OwnedValue::Int(n) => json!(n),
        OwnedValue::Float(x) => json!(x),
        OwnedValue::Bool(b) => json!(b),
        OwnedValue::Array(list) => {
            let values = list.iter().map(|v| match v {
                OwnedValue::Str(s) => format!("{{\"stringValue\": \"{s}\"}}"),
                other => panic!("{other:?}"),
            });
            json!(format!(
                "{{\"values\": [{}]}}",
                values.collect::<Vec<_>>().join(", ")
            ))
        }
        other => panic!("{other:?} is not plain"),
    }
}

fn pairs(list: &[(String, OwnedValue)]) -> Value {
    list.iter()
        .map(|(key, value)| (key.clone(), plain(value)))
        .collect::<Map<_, _>>()
        .into()
}

/// The answer for one trace in the form of `check.py`.
fn answer(trace: &Trace<'_, OwnedSpan>, sets: &[Spanset]) -> Value {
    let id = |index: usize| -> String {
        trace.spans()[index]
            .span_id
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect()
    };
    let mut spansets: Vec<Value> = sets
        .iter()
        .map(|set| {
            let spans: Map<String, Value> =
                set.spans.iter().map(|s| (id(s.index), pairs(&s.attributes))).collect();
            json!({ "matched": set.spans.len(), "attributes": pairs(&set.attributes), "spans": spans })
        })
        .collect();
    spansets.sort_by_key(Value::to_string);
    json!({
        "rootServiceName": trace.root_service(),
        "rootTraceName": trace.root_name(),
        "durationMs": trace.duration_ns() / 1_000_000,
        "spanSets": spansets,
    })
}

#[test]
fn searches() {
    let traces = traces();
    let (answers, quirks) = (golden("tempo-answers.json"), golden("quirks.json"));
    let (mut same, mut right, mut wrong) = (0, 0, Vec::new());
    for (text, expected) in answers.as_object().unwrap() {
        let is_search = text.starts_with('{') || text.starts_with('(');
        if !is_search || expected["traces"].is_null() && quirks[text]["right"]["spans"].is_null() {
            continue;
        }
        let query = CompiledQuery::new(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let mut got = Map::new();
        for (name, spans) in &traces {
            let trace = Trace::new(spans);
            let sets = query.search(&trace);
            if !sets.is_empty() {
                got.insert(name.clone(), answer(&trace, &sets));
            }
        }
        if let Some(quirk) = quirks.get(text) {
            let spans: Map<String, Value> = got
                .iter()
                .map(|(name, answer)| {
                    let sets = list(answer, "spanSets").iter();
                    let ids =
                        sets.flat_map(|set| set["spans"].as_object().unwrap().keys().cloned());
                    (name.clone(), ids.collect::<Vec<_>>().into())
                })
                .collect();
            if quirk["right"]["spans"] == Value::from(spans) {
                right += 1;
            } else {
                wrong.push(format!("{text}\n   want {quirk}\n   got  {got:?}"));
            }
            continue;
        }
        let mut want = expected["traces"].as_object().unwrap().clone();
        for answer in want.values_mut() {
            let answer = answer.as_object_mut().unwrap();
            answer.remove("serviceStats");
            let sets = answer["spanSets"].as_array_mut().unwrap();
            sets.sort_by_key(Value::to_string);
        }
        if want == got {
            same += 1;
        } else {
            let names = want.keys().chain(got.keys());
            let first = names
                .clone()
                .find(|name| want.get(*name) != got.get(*name))
                .unwrap();
            wrong.push(format!(
                "{text} {first}\n   want {:?}\n   got  {:?}",
                want.get(first),
                got.get(first)
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(
        same > 100 && right > 6,
        "{same} are the same, {right} right"
    );
}

/// When the traces are, in seconds since 1970.
const BASE_S: u64 = 1_800_000_000;

/// The series of a query over all traces, from a minute before them to two minutes after.
fn series(text: &str, step_s: Option<u64>) -> Vec<Series> {
    const NS: u64 = 1_000_000_000;
    let query = CompiledQuery::new(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    let (start, end) = ((BASE_S - 60) * NS, (BASE_S + 120) * NS);
    let window = match step_s {
        Some(step) => Window::range(start, end, step * NS).unwrap(),
        None => Window::instant(start, end).unwrap(),
    };
    let mut metrics = Metrics::new(&query, window, Limits::default());
    for mut spans in traces().into_values() {
        for span in &mut spans {
            span.start += BASE_S * NS;
        }
        metrics.observe(&Trace::new(&spans));
    }
    let finished = metrics.finish();
    assert_eq!(finished.truncated, None);
    finished.series
}

/// Labels as `check.py` writes them: JSON with sorted keys and ASCII only.
fn labels(series: &Series) -> String {
    let mut pairs: Vec<String> = series
        .labels
        .iter()
        .map(|(key, value)| format!("{}: {}", json!(key), plain(value)))
        .collect();
    pairs.sort();
    let text = format!("{{{}}}", pairs.join(", "));
    let mut ascii = String::new();
    for unit in text.encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte) if byte.is_ascii() => ascii.push(byte as char),
            _ => ascii.push_str(&format!("\\u{unit:04x}")),
        }
    }
    ascii
}

fn rounded(value: f64) -> Value {
    json!((value * 1e9).round() / 1e9)
}

#[test]
fn metrics() {
    let (answers, quirks) = (golden("tempo-answers.json"), golden("quirks.json"));
    let (mut same, mut wrong) = (0, Vec::new());
    for (text, expected) in answers.as_object().unwrap() {
        let want = match quirks.get(text) {
            Some(quirk) => &quirk["right"]["series"],
            None => &expected["series"],
        };
        if want.is_null() {
            continue;
        }
        let range = text.strip_prefix("range ");
        let got = series(range.unwrap_or(text), range.map(|_| 30));
        let got: Map<String, Value> = got
            .iter()
            .map(|series| {
                let values = series.samples.iter();
                let value = match range {
                    None => rounded(series.samples[0].1),
                    Some(_) => values
                        .filter(|(_, value)| *value != 0.0)
                        .map(|(ms, value)| {
                            json!([ms / 1000 - BASE_S.cast_signed(), rounded(*value)])
                        })
                        .collect(),
                };
                (labels(series), value)
            })
            .collect();
        let want = want.as_object().unwrap();
        let as_much = if text.contains("compare(") {
            // Of equally many values Tempo shows any, and columns of its own where there is nothing.
            let known = |key: &&String| !key.contains("nil\"") && want.contains_key(*key);
            got.keys().filter(known).count() > 100
        } else if range.is_none() && text.contains("rate()") {
            // Recorded a second earlier or later, the value is another.
            want.keys().eq(got.keys())
        } else {
            *want == got
        };
        if as_much {
            same += 1;
        } else {
            wrong.push(format!("{text}\n   want {want:?}\n   got  {got:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(same >= 25, "{same} are the same");
}
