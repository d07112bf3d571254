//! What is found, and what the list says of it: values of any type, several roots, copies in other batches.

use serde_json::{Value, json};

use super::otlp::{array, attribute, boolean, double, int, map, resource_spans, text, texts};
use super::{CLIENT, Field, INTERNAL, SERVER, attribute_of};

pub fn check(field: &Field<'_>) {
    values_of_other_types(field);
    resources_of_other_types(field);
    nested_values_and_odd_keys(field);
    two_roots(field);
    another_batch(field);
}

/// Each is found by what the trace shows, also where the key has a column of another type.
fn values_of_other_types(field: &Field<'_>) {
    let cases = [
        ("http.response.status_code", text("503"), "503"),
        ("http.response.status_code", double(503.0), "503"),
        ("http.response.status_code", int(70_000), "70000"),
        ("http.response.status_code", int(-1), "-1"),
        ("http.response.status_code", int(0), "0"),
        ("error.type", int(500), "500"),
        ("error.type", boolean(true), "true"),
        ("db.system.name", int(7), "7"),
        (
            "server.address",
            array(&[text("a"), text("b")]),
            r#"["a","b"]"#,
        ),
        ("http.route", text(""), ""),
        ("peer.service", double(1.5), "1.5"),
        // On a span, these have no column.
        ("service.name", text("of the span"), "of the span"),
        ("service.version", text("of the span"), "of the span"),
        ("k8s.pod.name", text("of the span"), "of the span"),
        ("own.number", int(3), "3"),
        ("own.number", double(3.0), "3"),
        ("own.number", int(3), "3.0"),
        ("own.number", text("3"), "3"),
        ("own.empty", text(""), ""),
        ("own.flag", boolean(false), "false"),
        ("own.list", array(&[text("x"), text("y")]), "x"),
        ("own.large", int(9_007_199_254_740_993), "9007199254740993"),
        ("own.least", int(i64::MIN), "-9223372036854775808"),
        ("own.zero", double(-0.0), "0"),
        ("own.small", double(1e-7), "0.0000001"),
        ("own.exponent", double(1e21), "1e21"),
    ];
    let spans: Vec<_> = cases
        .iter()
        .map(|(key, value, _)| field.alone("value", json!([attribute(key, value.clone())])))
        .collect();
    let sent: Vec<_> = spans.iter().map(|(_, span)| span.clone()).collect();
    field.store(&[("values", &sent)]);
    for ((key, value, wanted), (trace, _)) in cases.iter().zip(&spans) {
        let shown = attribute_of(&field.only_span(trace), key);
        let tag = format!("{key}={wanted}");
        assert!(field.has_tag(trace, &tag), "{tag}: {value}, {shown:?}");
    }
}

fn resources_of_other_types(field: &Field<'_>) {
    let cases = [
        ("service.version", int(2), "2"),
        ("service.version", double(1.5), "1.5"),
        ("k8s.node.name", boolean(true), "true"),
        ("own.resource", int(5), "5"),
        ("own.resource", text("q\"u\\o"), "q\"u\\o"),
        ("own.resource", text("ü😀"), "ü😀"),
        ("own.resource", text(""), ""),
    ];
    let mut resources = Vec::new();
    let mut traces = Vec::new();
    for (place, (key, value, _)) in cases.iter().enumerate() {
        let (trace, span) = field.alone("value", json!([]));
        let name = attribute(
            "service.name",
            text(&field.service(&format!("resource-{place}"))),
        );
        resources.push(resource_spans(
            vec![name, attribute(key, value.clone())],
            &[span],
        ));
        traces.push(trace);
    }
    field.store_resources(&resources);
    for ((key, value, wanted), trace) in cases.iter().zip(&traces) {
        let span = field.only_span(trace);
        let shown = attribute_of(&span["resource"], key);
        let tag = format!("{key}={wanted}");
        assert!(field.has_tag(trace, &tag), "{tag}: {value}, {shown:?}");
    }
}

fn nested_values_and_odd_keys(field: &Field<'_>) {
    // Two conditions are of one span, not of one trace.
    let (apart, first) = field.alone("first", texts(&[("apart.x", "1")]));
    let mut second = field.span(&apart, &field.span_id(), "second", CLIENT, 1);
    second["attributes"] = texts(&[("apart.y", "2")]);
    let (together, both) = field.alone("both", texts(&[("apart.x", "1"), ("apart.y", "2")]));
    let (nested, mut span) = field.alone("nested", texts(&[("a=b", "c=d")]));
    let more = span["attributes"].as_array_mut().unwrap();
    more.push(attribute("list", array(&[text("p"), text("q")])));
    more.push(attribute("map", map(&[("k", text("v"))])));
    span["events"] = json!([{
        "timeUnixNano": span["startTimeUnixNano"],
        "name": "exception",
        "attributes": texts(&[("exception.type", "IOError")]),
    }]);
    span["status"] = json!({"code": 2, "message": "it broke"});
    field.store(&[("nested", &[first, second, both, span])]);

    let two = [("tag", "apart.x=1"), ("tag", "apart.y=2")];
    assert!(field.found(&together, &two).is_some());
    assert!(field.found(&apart, &two).is_none());
    for tag in [
        "list=p",
        "list=q",
        r#"list=["p","q"]"#,
        "map.k=v",
        "a=b=c=d",
        "exception.type=IOError",
        "scope.key=in scope",
        "error=true",
        "status.message=it broke",
    ] {
        assert!(field.has_tag(&nested, tag), "{tag}");
    }
    for tag in ["list=r", "map=v", "a=b", "exception.type=E"] {
        assert!(!field.has_tag(&nested, tag), "{tag}");
    }
    let service = field.service("nested");
    for (trace, status) in [(&nested, "error"), (&together, "unset")] {
        let query = [("service", &*service), ("status", status)];
        assert!(field.found(trace, &query).is_some(), "{status}");
    }
}

/// The list and the trace name one real span: the longer root, then the earlier.
fn two_roots(field: &Field<'_>) {
    for (longer, (service, name)) in [
        (false, ("aaa-first", "zz first")),
        (true, ("zzz-second", "aa second")),
    ] {
        let trace = field.trace_id();
        let first = field.span(&trace, &field.span_id(), "zz first", SERVER, 0);
        let mut second = field.span(&trace, &field.span_id(), "aa second", SERVER, 1000);
        if longer {
            let end = field.begun_ns + 1_002_000_000;
            second["endTimeUnixNano"] = json!(end.to_string());
        }
        field.store(&[("aaa-first", &[first])]);
        field.store(&[("zzz-second", &[second])]);
        let asked = field.service("aaa-first");
        let listed = field.found(&trace, &[("service", &asked)]).unwrap();
        for answer in [listed, field.trace(&trace)] {
            let named = (&answer["rootService"], &answer["rootOperation"]);
            assert_eq!(
                named,
                (&json!(field.service(service)), &json!(name)),
                "{answer}"
            );
        }
    }
}

/// A span that comes again in another request is shown once and called once; latency counts what came.
fn another_batch(field: &Field<'_>) {
    let trace = field.trace_id();
    let id = field.span_id();
    let mut copied = field.span(&trace, &id, "copied", CLIENT, 0);
    copied["attributes"] = texts(&[("peer.service", "copied-peer")]);
    copied["status"] = json!({"code": 2});
    let other = |name: &str| {
        let mut span = field.span(&trace, &field.span_id(), name, INTERNAL, 1);
        span["parentSpanId"] = json!(id);
        span
    };
    let again = [copied.clone(), other("c")];
    field.store(&[("copies", &[copied, other("b")])]);
    field.store(&[("copies", &again)]);
    // The same request is the same export.
    field.store(&[("copies", &again)]);

    let shown = field.trace(&trace);
    let service = field.service("copies");
    let listed = field.found(&trace, &[("service", &service)]).unwrap();
    for answer in [&shown, &listed] {
        let counts = (&answer["spanCount"], &answer["errorCount"]);
        assert_eq!(counts, (&json!(3), &json!(1)), "{answer}");
    }
    let spans = shown["spans"].as_array().unwrap();
    let duplicates = |span: &Value| span["duplicates"].as_u64().unwrap_or(0);
    assert_eq!(spans.iter().map(duplicates).collect::<Vec<_>>(), [1, 0, 0]);
    let rows = field.latency("copies", &[]);
    let counts = rows
        .iter()
        .map(|row| (row["operation"].as_str().unwrap(), &row["count"]));
    assert_eq!(
        counts.collect::<Vec<_>>(),
        [("b", &json!(1)), ("c", &json!(1)), ("copied", &json!(2))]
    );
}
