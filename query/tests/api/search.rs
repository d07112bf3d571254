//! `GET /api/v1/traces`.

use serde_json::Value;

use crate::harness::{Service, Span, T0, span};

/// Trace ids of an answer, as numbers.
fn ids(answer: &Value) -> Vec<u128> {
    let traces = answer["traces"].as_array().unwrap().iter();
    traces
        .map(|trace| u128::from_str_radix(trace["traceId"].as_str().unwrap(), 16).unwrap())
        .collect()
}

#[track_caller]
fn check_ids(query: &str, answer: &Value, expect: &[u128]) {
    assert_eq!(ids(answer), expect, "{query}");
}

fn shop() -> Vec<Span> {
    vec![
        span(1, 11, 0, 0)
            .with("attr_str", "map('user','ann','n','5')")
            .with("attr_int", "map('items',toInt64(3))")
            .with("http_route", "'/cart'")
            .with("http_response_status_code", "200")
            .with("service_version", "'1.0'")
            .with(
                "resource",
                r#"'{"cloud.zone":"z1","service.version":"1.0"}'"#,
            ),
        span(1, 12, 11, 1)
            .service("db")
            .name("SELECT")
            .takes_ms(1)
            .is("CLIENT", "UNSET"),
        span(2, 21, 0, 1000)
            .takes_ms(900)
            .is("SERVER", "ERROR")
            .with("attr_str", "map('user','bob','empty','')")
            .with("attr_int", "map('n',toInt64(5),'zero',toInt64(0))")
            .with("attr_double", "map('score',1.5)")
            .with("attr_other", "map('vip','true')")
            .with("http_route", "'/pay'")
            .with("http_response_status_code", "500")
            .with("service_version", "'1.1'")
            .with(
                "resource",
                r#"'{"cloud.zone":"z1","service.version":"1.1"}'"#,
            ),
        span(3, 31, 0, 2000)
            .service("mail")
            .name("send")
            .takes_ms(60)
            .is("CONSUMER", "OK"),
        span(4, 41, 99, 3000).service("mail").name("send"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn filters() {
    let service = Service::start().await;
    service.insert(&shop()).await;
    // A resource with values of all kinds; older than what the other cases look at.
    let resource = r#"{"host":"a/b\\"c","pid":7,"load":0.5,"spot":true,"blank":"","naïve":"💡","http.route":"/resource"}"#;
    let odd = span(5, 51, 0, -1)
        .service("odd")
        .with("resource", &format!("'{resource}'"));
    service
        .insert(&[odd.is("INTERNAL", "UNSET").takes_ms(30)])
        .await;
    const CASES: [(&str, &[u128]); 46] = [
        ("", &[4, 3, 2, 1, 5]),
        ("service=cart", &[2, 1]),
        ("service=db", &[1]),
        ("service=nobody", &[]),
        ("service=mail&operation=send", &[4, 3]),
        ("operation=SELECT", &[1]),
        ("service=cart&operation=SELECT", &[]),
        ("status=error", &[2]),
        ("status=OK", &[3]),
        ("status=unset", &[4, 1, 5]),
        ("kind=client", &[1]),
        ("kind=Consumer", &[3]),
        ("kind=producer", &[]),
        ("minDuration=60ms", &[3, 2]),
        ("minDuration=60ms&maxDuration=60ms", &[3]),
        ("maxDuration=1ms", &[1]),
        ("tag=user%3Dann", &[1]),
        ("tag=user%3DAnn", &[]),
        ("tag=user%3Dann&tag=n%3D5", &[1]),
        ("tag=n%3D5", &[2, 1]),
        ("tag=n%3D5.0", &[2]),
        ("tag=items%3D3", &[1]),
        ("tag=zero%3D0", &[2]),
        ("tag=score%3D1.5", &[2]),
        ("tag=vip%3Dtrue", &[2]),
        ("tag=vip%3Dfalse", &[]),
        ("tag=empty%3D", &[2]),
        ("tag=http.route%3D/cart", &[1]),
        ("tag=http.response.status_code%3D500", &[2]),
        ("tag=service.version%3D1.1", &[2]),
        ("tag=service.name%3Dmail", &[4, 3]),
        ("tag=cloud.zone%3Dz1", &[4, 3, 2, 1]),
        ("tag=cloud.zone%3Dz2", &[]),
        ("tag=host%3Da/b%22c", &[5]),
        ("tag=host%3Da", &[]),
        ("tag=pid%3D7", &[5]),
        ("tag=pid%3D07", &[5]),
        ("tag=load%3D0.50", &[5]),
        ("tag=spot%3Dtrue", &[5]),
        ("tag=spot%3Dfalse", &[]),
        ("tag=blank%3D", &[5]),
        ("tag=na%C3%AFve%3D%F0%9F%92%A1", &[5]),
        ("tag=http.route%3D/resource", &[5]),
        ("limit=2", &[4, 3]),
        ("tag=user%3D%27%20OR%201%3D1--", &[]),
        ("service=cart%00%0A%5C%27", &[]),
    ];
    for (query, expect) in CASES {
        check_ids(query, &service.search(query).await, expect);
    }
    let windows: [(i64, i64, &[u128]); 5] = [
        (0, 3, &[4, 3, 2, 1]),
        (0, 2, &[3, 2, 1]),
        (1, 1, &[2]),
        (-10, -1, &[]),
        (4, 9, &[]),
    ];
    for (start, end, expect) in windows {
        let path = format!("/api/v1/traces?start={}&end={}", T0 + start, T0 + end);
        check_ids(&path, &service.get("/api/v1/traces", &path).await, expect);
    }
}

/// The parameters are a query, that says the same.
#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_a_traceql_query() {
    let service = Service::start().await;
    service.insert(&shop()).await;
    for (parameters, query) in [
        (
            "service=cart&status=error&minDuration=1ms",
            "{ resource.service.name = \"cart\" && status = error && duration >= 1ms }",
        ),
        ("tag=user%3Dann", "{ span.user = \"ann\" }"),
        // As a number too, since a span has it as one.
        ("tag=n%3D5", "{ span.n = \"5\" || span.n = 5 }"),
        ("tag=zero%3D0", "{ span.zero = \"0\" || span.zero = 0 }"),
        ("tag=items%3Dx", "{ span.items = \"x\" }"),
        (
            "tag=cloud.zone%3Dz1",
            "{ span.cloud.zone = \"z1\" || resource.cloud.zone = \"z1\" }",
        ),
    ] {
        let explained = service.search(&format!("explain=true&{parameters}")).await;
        assert_eq!(explained["explain"]["query"], query, "{parameters}");
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let asked = service.search(&format!("q={encoded}")).await;
        assert_eq!(asked["traces"], explained["traces"], "{parameters}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_list_shows() {
    let service = Service::start().await;
    service.insert(&shop()).await;
    let answer = service.search("service=cart").await;
    assert_eq!(answer["truncated"], false);
    assert_eq!(answer.get("nextCursor"), None);
    let trace = &answer["traces"][1];
    assert_eq!(trace["rootService"], "cart");
    assert_eq!(trace["rootOperation"], "GET /cart");
    assert_eq!(trace["start"], "2026-05-28T20:27:00.000000000Z");
    assert_eq!(trace["startUnixNano"], format!("{T0}000000000"));
    assert_eq!(trace["durationNs"], "5000000");
    assert_eq!(trace["spanCount"], 2);
    assert_eq!(trace["errorCount"], 0);
    assert_eq!(answer["traces"][0]["errorCount"], 1);
    assert_eq!(trace["rootMissing"], false);
    // While no root is there, its entry span names it.
    let no_root = service.search("service=mail").await;
    let trace = &no_root["traces"][0];
    assert_eq!(trace["rootService"], "mail");
    assert_eq!(trace["rootOperation"], "send");
    assert_eq!(trace["rootMissing"], true);
}

/// Traces that overlap, share their newest nanosecond, and reach over many chunks of the window.
fn crowd() -> Vec<Span> {
    let mut spans = Vec::new();
    for trace in 1..=150_u128 {
        let n = i64::try_from(trace).unwrap();
        // Many equal times, spread over two hours.
        let newest = -(n % 13) * (n % 7) * 80_000;
        spans.push(span(trace, 1, 0, newest));
        // An older match of the same trace: an hour and more before, for some.
        spans.push(span(trace, 2, 1, newest - (n % 5) * 900_000));
        // A newer span that does not match.
        spans.push(span(trace, 3, 1, newest + 500).service("other"));
    }
    spans
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_cover_every_trace_once_in_order() {
    let service = Service::start().await;
    let spans = crowd();
    service.insert(&spans).await;
    let mut first = std::collections::BTreeMap::new();
    for span in &spans {
        let at = first.entry(span.trace).or_insert(span.start_ns);
        *at = span.start_ns.min(*at);
    }
    let mut expect: Vec<_> = first.into_iter().map(|(trace, at)| (at, trace)).collect();
    expect.sort_unstable_by(|one, other| other.cmp(one));
    let expect: Vec<_> = expect.into_iter().map(|(_, trace)| trace).collect();
    for limit in [1, 7, 50, 100] {
        let mut found = Vec::new();
        let mut cursor = String::new();
        loop {
            let window = format!("start={}&end={}", T0 - 20_000, T0 + 60);
            let query = format!("{window}&service=cart&limit={limit}&cursor={cursor}");
            let answer = service
                .get("/api/v1/traces", &format!("/api/v1/traces?{query}"))
                .await;
            let page = ids(&answer);
            assert_eq!(answer["truncated"], found.len() + page.len() < expect.len());
            found.extend(page);
            match answer["nextCursor"].as_str() {
                Some(next) => next.clone_into(&mut cursor),
                None => break,
            }
            assert!(
                found.len() <= expect.len(),
                "limit {limit}: pages do not end"
            );
        }
        assert_eq!(found, expect, "limit {limit}");
    }
}
