//! The list, the trace and the search agree: on a trace's name, on its spans, and on what they hold.

use serde_json::Value;

use crate::harness::{Service, Span, span};

async fn trace(service: &Service, id: u128) -> Value {
    let path = format!("/api/v1/traces/{id:x}");
    service.get("/api/v1/traces/{id}", &path).await
}

/// What a list and a trace both say.
fn said(answer: &Value) -> [String; 8] {
    [
        "rootService",
        "rootOperation",
        "rootMissing",
        "startUnixNano",
        "durationNs",
        "spanCount",
        "errorCount",
        "traceId",
    ]
    .map(|name| answer[name].to_string())
}

/// Checks that the list says of each trace what the trace itself says, and `name` of each.
async fn check_names(service: &Service, names: &[(u128, &str)]) {
    let list = service.search("limit=100").await;
    for &(id, name) in names {
        let trace = trace(service, id).await;
        let traces = list["traces"].as_array().unwrap();
        let listed = traces
            .iter()
            .find(|listed| listed["traceId"] == trace["traceId"]);
        assert_eq!(said(listed.unwrap()), said(&trace), "trace {id:x}");
        let missing = if trace["rootMissing"] == true {
            "!"
        } else {
            ""
        };
        let text = |key: &str| trace[key].as_str().unwrap().to_owned();
        let found = format!("{} {}{missing}", text("rootService"), text("rootOperation"));
        assert_eq!(found, name, "trace {id:x}");
    }
}

fn named(trace: u128, id: u64, parent: u64, at_ms: i64, ms: u64, name: &str) -> Span {
    let (service, name) = name.split_once(' ').unwrap();
    span(trace, id, parent, at_ms)
        .service(service)
        .name(name)
        .takes_ms(ms)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_named_by_one_of_its_spans() {
    let service = Service::start().await;
    service
        .insert(&[
            // Two roots: the longer, and of equal ones the earlier. The index would mix them.
            named(1, 1, 0, 0, 9, "aaa zz"),
            named(1, 2, 0, 1_000, 10, "zzz aa"),
            named(2, 1, 0, 0, 9, "aaa zz"),
            named(2, 2, 0, 1_000, 9, "zzz aa"),
            // A child that is longer than its root.
            named(3, 1, 0, 0, 1, "web root"),
            named(3, 2, 1, 0, 99, "job long"),
            // No root: the entry, of two the longer.
            named(4, 2, 1, 0, 9, "web entry"),
            named(4, 3, 2, 1, 99, "job below"),
            named(4, 4, 9, 5, 10, "cart other"),
            // Only spans that name each other.
            named(5, 1, 2, 0, 9, "a one"),
            named(5, 2, 1, 5, 9, "b two"),
            // A server that shares its client's id, and names no parent either.
            named(6, 1, 0, 0, 9, "web call").is("CLIENT", "UNSET"),
            named(6, 1, 0, 1, 9, "api serve"),
            // Over hours, in several steps of the key.
            named(7, 1, 0, -3_600_000, 9, "web first"),
            named(7, 2, 1, 0, 9, "job last"),
            // Over a minute and more, on both sides of what is read before the index is known.
            named(8, 1, 0, -61_000, 9, "web first"),
            named(8, 2, 1, 0, 9, "job last"),
            named(9, 1, 0, -59_000, 9, "web first"),
            named(9, 2, 1, 0, 70_000, "job long"),
        ])
        .await;
    check_names(
        &service,
        &[
            (1, "zzz aa"),
            (2, "aaa zz"),
            (3, "web root"),
            (4, "cart other!"),
            (5, "a one!"),
            (6, "web call"),
            (7, "web first"),
            (8, "web first"),
            (9, "web first"),
        ],
    )
    .await;
}

/// Of a trace with more spans than a list reads, the index's sums are shown, and it is named by a query.
#[tokio::test(flavor = "multi_thread")]
async fn a_trace_too_large_for_a_list_is_named_all_the_same() {
    let service = Service::start().await;
    service
        .insert(&[
            named(1, 1, 0, 0, 9, "web short"),
            named(1, 2, 0, 5, 10, "api root"),
            named(2, 2, 9, 0, 10, "web entry"),
            named(2, 3, 9, 5, 9, "api other"),
        ])
        .await;
    for trace in ["01", "02"] {
        let leaves = format!(
            "INSERT INTO spans (trace_id, span_id, parent_span_id, time, duration_ns, service, name) \
             SELECT any(trace_id), toFixedString(leftPad(toString(number), 8, '0'), 8), \
             toFixedString(unhex('0000000000000002'), 8), min(time), 99000000, 'job', 'leaf' \
             FROM spans, numbers(50000) AS leaf WHERE hex(trace_id) LIKE '%{trace}' GROUP BY number"
        );
        service.sql(&leaves).await;
    }
    // One more that is read as ever.
    service.insert(&[named(3, 1, 0, 9, 9, "web small")]).await;
    let list = service.search("limit=100").await;
    let listed: Vec<_> = list["traces"].as_array().unwrap().iter().collect();
    let named = |listed: &Value| {
        ["rootService", "rootOperation", "rootMissing", "spanCount"]
            .map(|key| listed[key].to_string())
    };
    let mut names: Vec<_> = listed.into_iter().map(named).collect();
    names.sort();
    let expect = [
        ["\"api\"", "\"root\"", "false", "50002"],
        ["\"web\"", "\"entry\"", "true", "50002"],
        ["\"web\"", "\"small\"", "false", "1"],
    ];
    assert_eq!(names, expect);
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_count_once_and_spans_that_share_an_id_twice() {
    let service = Service::start().await;
    let copies = |n: usize, span: Span| vec![span; n];
    let mut spans = copies(3, span(1, 1, 0, 0).is("CLIENT", "ERROR"));
    spans.extend(copies(2, span(1, 2, 1, 1)));
    spans.push(span(1, 3, 1, 1));
    // The copy that ended last counts, with its status.
    spans.push(span(2, 1, 0, 0).takes_ms(1).is("SERVER", "ERROR"));
    spans.push(span(2, 1, 0, 0).takes_ms(9));
    // Zipkin's: a client and its server.
    spans.push(named(3, 1, 0, 0, 100, "web GET"));
    spans.push(named(3, 2, 1, 10, 80, "web call").is("CLIENT", "UNSET"));
    spans.push(named(3, 2, 1, 20, 60, "api GET"));
    spans.push(named(3, 3, 2, 30, 5, "api SELECT").is("CLIENT", "UNSET"));
    service.insert(&spans).await;
    let names = [(1, "cart GET /cart"), (2, "cart GET /cart"), (3, "web GET")];
    check_names(&service, &names).await;
    let counts = async |id| {
        let trace = trace(&service, id).await;
        (trace["spanCount"].clone(), trace["errorCount"].clone())
    };
    assert_eq!(counts(1).await, (3.into(), 1.into()));
    assert_eq!(counts(2).await, (1.into(), 0.into()));
    let shared = trace(&service, 3).await;
    let spans = shared["spans"].as_array().unwrap().iter();
    let shape = spans.map(|span| {
        let depth = usize::try_from(span["depth"].as_u64().unwrap()).unwrap();
        let text = |key: &str| span[key].as_str().unwrap().to_owned();
        assert_eq!(span.get("duplicates"), None);
        format!("{}{} {}", ".".repeat(depth), text("service"), text("name"))
    });
    assert_eq!(
        shape.collect::<Vec<_>>(),
        ["web GET", ".web call", "..api GET", "...api SELECT"]
    );
    assert_eq!(shared["services"], serde_json::json!(["api", "web"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_answer_says_what_to_try() {
    let service = Service::start().await;
    service.insert(&[span(1, 1, 0, 0)]).await;
    for (query, parts) in [
        ("service=nobody", &["service", "exactly"][..]),
        (
            "service=cart&status=error",
            &["service, status", "one span"],
        ),
        ("minDuration=9h", &["minDuration"]),
    ] {
        let answer = service.search(query).await;
        let hint = answer["hint"].as_str().unwrap();
        for part in parts {
            assert!(hint.contains(part), "{query}: {hint}");
        }
    }
    assert_eq!(service.search("service=cart").await.get("hint"), None);
}

/// A column of `spans`, and the SQL of what is in it.
type Place = (&'static str, fn(key: &str, json: &str) -> String);

/// Where values are as JSON, by the text that they are.
const JSON_PLACES: [Place; 4] = [
    ("resource", |key, json| format!("'{{\"{key}\":{json}}}'")),
    ("scope_attributes", |key, json| {
        format!("'{{\"{key}\":{json}}}'")
    }),
    ("events", |key, json| {
        format!("[(now64(9), 'e', '{{\"{key}\":{json}}}', toUInt32(0))]")
    }),
    ("links", |key, json| {
        format!(
            "[(toFixedString('', 16), toFixedString('', 8), '', toUInt32(0), \
             '{{\"{key}\":{json}}}', toUInt32(0))]"
        )
    }),
];

/// Keys that have no column, and some that have one of each kind.
const KEYS: [&str; 7] = [
    "my.key",
    "a=b",
    "http.route",
    "http.response.status_code",
    "service.version",
    "service.name",
    "error",
];

/// Values as the store holds them in JSON, and what finds them.
const VALUES: [(&str, &[&str]); 12] = [
    ("\"text\"", &["text"]),
    ("\"503\"", &["503"]),
    ("\"\"", &[""]),
    ("\"ü💡\"", &["ü💡"]),
    ("503", &["503", "503.0", "5.03e2"]),
    ("0", &["0"]),
    ("-9223372036854775808", &["-9223372036854775808"]),
    ("9007199254740993", &["9007199254740993"]),
    ("1.5", &["1.5", "1.50"]),
    ("503.0", &["503", "503.0", "5.03e2"]),
    ("true", &["true"]),
    ("[\"x\",7,false]", &["x", "7", "false", "[\"x\",7,false]"]),
];

/// A span whose attribute `key` is the value that is `json`, stored as the writer does.
fn with_attribute(span: Span, key: &str, json: &str) -> Span {
    let key = format!("'{key}'");
    if let Some(text) = json.strip_prefix('"') {
        let text = text.strip_suffix('"').unwrap();
        return match (key.as_str(), text) {
            ("'http.route'", text) if !text.is_empty() => {
                span.with("http_route", &format!("'{text}'"))
            }
            _ => span.with("attr_str", &format!("map({key}, '{text}')")),
        };
    }
    match json {
        "503" if key == "'http.response.status_code'" => {
            span.with("http_response_status_code", "503")
        }
        _ if json.parse::<i64>().is_ok() => {
            span.with("attr_int", &format!("map({key}, toInt64({json}))"))
        }
        _ if json.parse::<f64>().is_ok() => {
            span.with("attr_double", &format!("map({key}, {json})"))
        }
        _ => span.with("attr_other", &format!("map({key}, '{json}')")),
    }
}

/// The trace whose spans have the key, the value and the place of these numbers.
fn number(key: usize, value: usize, place: usize) -> u128 {
    ((key * VALUES.len() + value) * 5 + place + 1) as u128
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_finds_what_a_trace_shows() {
    let service = Service::start().await;
    let mut spans = Vec::new();
    for (k, key) in KEYS.iter().enumerate() {
        for (v, (json, _)) in VALUES.iter().enumerate() {
            spans.push(with_attribute(span(number(k, v, 0), 1, 0, 0), key, json));
            for (p, (column, sql)) in JSON_PLACES.iter().enumerate() {
                let made = span(number(k, v, p + 1), 1, 0, 0).with(column, &sql(key, json));
                // A resource's text has its column too.
                let made = match (*key, *column, json.trim_matches('"')) {
                    ("service.version", "resource", text) if json.starts_with('"') => {
                        made.with("service_version", &format!("'{text}'"))
                    }
                    ("service.name", "resource", text) if json.starts_with('"') => {
                        made.service(text)
                    }
                    // No service has such a name.
                    ("service.name", "resource", _) if json.starts_with('[') => continue,
                    _ => made,
                };
                spans.push(made);
            }
        }
    }
    // Inserted by their columns, since an insert's rows have the same.
    spans.sort_by_key(|span| span.more.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    service.insert(&spans).await;
    let encode = |text: &str| {
        let bytes = text.bytes().map(|byte| format!("%{byte:02x}"));
        bytes.collect::<String>()
    };
    for (k, key) in KEYS.iter().enumerate() {
        for text in VALUES.iter().flat_map(|(_, texts)| texts.iter()) {
            let tag = format!("{key}={text}");
            let mut found = Vec::new();
            let mut cursor = String::new();
            loop {
                let query = format!("limit=100&tag={}&cursor={cursor}", encode(&tag));
                let answer = service.search(&query).await;
                for trace in answer["traces"].as_array().unwrap() {
                    let id = trace["traceId"].as_str().unwrap();
                    found.push(u128::from_str_radix(id, 16).unwrap());
                }
                match answer["nextCursor"].as_str() {
                    Some(next) => next.clone_into(&mut cursor),
                    None => break,
                }
            }
            found.sort_unstable();
            let values = VALUES.iter().enumerate();
            let same = values.filter(|(_, (_, texts))| texts.contains(text));
            let mut expect: Vec<_> = same
                .flat_map(|(v, value)| (0..5).map(move |place| (v, place, value.0)))
                .filter(|(_, place, json)| {
                    !(*key == "service.name" && *place == 1 && json.starts_with('['))
                })
                .map(|(v, place, _)| number(k, v, place))
                .collect();
            expect.sort_unstable();
            assert_eq!(found, expect, "{tag}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_and_maps_are_found_by_tags() {
    let service = Service::start().await;
    service
        .insert(&[
            span(1, 1, 0, 0).is("SERVER", "ERROR"),
            span(2, 1, 0, 0).with("status_message", "'out of tea'"),
            span(3, 1, 0, 0).with("attr_other", "map('error', 'true')"),
            span(4, 1, 0, 0).with(
                "attr_other",
                r#"map('m', '{"kvlistValue":{"k":"v","in":{"kvlistValue":{"n":1}}}}')"#,
            ),
            span(5, 1, 0, 0).is("SERVER", "OK"),
            span(6, 1, 0, 0).with(
                "resource",
                r#"'{"service.name":"cart","r.m":{"kvlistValue":{"k":"v"}}}'"#,
            ),
        ])
        .await;
    for (tag, expect) in [
        ("error%3Dtrue", &[3, 1][..]),
        ("otel.status_code%3DERROR", &[1]),
        ("otel.status_code%3Dok", &[5]),
        ("otel.status_description%3Dout%20of%20tea", &[2]),
        ("status.message%3Dout%20of%20tea", &[2]),
        ("status.message%3Dtea", &[]),
        ("m.k%3Dv", &[4]),
        ("m.in.n%3D1", &[4]),
        ("r.m.k%3Dv", &[6]),
        ("m.k%3Dw", &[]),
        ("m%3Dv", &[]),
        ("k%3Dv", &[]),
    ] {
        let answer = service.search(&format!("tag={tag}")).await;
        let ids: Vec<_> = answer["traces"]
            .as_array()
            .unwrap()
            .iter()
            .map(|trace| u128::from_str_radix(trace["traceId"].as_str().unwrap(), 16).unwrap())
            .collect();
        assert_eq!(ids, expect, "{tag}");
    }
}
