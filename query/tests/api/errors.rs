//! What is refused, cut off, or cannot be answered.

use std::time::Duration;

use proptest::strategy::{Strategy, ValueTree};
use spanloom_query::{ClickHouseConfig, Limits};

use crate::harness::{Answer, Service, T0, ask, serve, span};
use crate::schema;

#[track_caller]
fn check_problem(path: &str, answer: &Answer, status: u16, parameter: Option<&str>) {
    assert_eq!(answer.status, status, "{path}: {}", answer.text);
    assert_eq!(answer.content_type, "application/problem+json", "{path}");
    assert_eq!(answer.body["status"], status, "{path}");
    assert_eq!(
        answer.body["parameter"].as_str(),
        parameter,
        "{path}: {}",
        answer.text
    );
    assert!(
        !answer.body["detail"].as_str().unwrap().is_empty(),
        "{path}"
    );
    let document = serde_json::from_str(&document()).unwrap();
    schema::check_answer(&document, "/api/v1/traces", "default", &answer.body);
}

/// The document does not depend on the store, so a service without one has it.
fn document() -> String {
    static DOCUMENT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let make = || {
        std::thread::spawn(|| {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let server = serve(nowhere(), Limits::default()).await;
                ask(server.address(), "GET", "/api/v1/openapi.json")
                    .await
                    .text
            })
        })
        .join()
        .unwrap()
    };
    DOCUMENT.get_or_init(make).clone()
}

/// A ClickHouse that is not there: the port is one that nobody can listen on.
fn nowhere() -> ClickHouseConfig {
    ClickHouseConfig {
        url: "http://127.0.0.1:1".to_owned(),
        user: "u".to_owned(),
        password: "p".to_owned(),
        credentials_dir: None,
        database: "d".to_owned(),
        ca_file: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input() {
    let server = serve(nowhere(), Limits::default()).await;
    const CASES: [(&str, u16, Option<&str>); 53] = [
        ("/api/v1/traces", 400, Some("start")),
        ("/api/v1/traces?start=1", 400, Some("end")),
        ("/api/v1/traces?end=1", 400, Some("start")),
        ("/api/v1/traces?start=&end=1", 400, Some("start")),
        ("/api/v1/traces?start=x&end=1", 400, Some("start")),
        ("/api/v1/traces?start=1&end=tomorrow", 400, Some("end")),
        ("/api/v1/traces?start=2&end=1", 400, Some("end")),
        ("/api/v1/traces?start=-1&end=1", 400, Some("start")),
        (
            "/api/v1/traces?start=1&end=99999999999999",
            400,
            Some("end"),
        ),
        ("/api/v1/traces?start=1&end=2&limit=0", 400, Some("limit")),
        ("/api/v1/traces?start=1&end=2&limit=101", 400, Some("limit")),
        ("/api/v1/traces?start=1&end=2&limit=-1", 400, Some("limit")),
        ("/api/v1/traces?start=1&end=2&limit=x", 400, Some("limit")),
        ("/api/v1/traces?start=1&end=2&limit=1.5", 400, Some("limit")),
        (
            "/api/v1/traces?start=1&end=2&status=bad",
            400,
            Some("status"),
        ),
        ("/api/v1/traces?start=1&end=2&status=2", 400, Some("status")),
        ("/api/v1/traces?start=1&end=2&kind=bad", 400, Some("kind")),
        ("/api/v1/traces?start=1&end=2&tag=x", 400, Some("tag")),
        ("/api/v1/traces?start=1&end=2&tag=%3Dx", 400, Some("tag")),
        (
            "/api/v1/traces?start=1&end=2&minDuration=5",
            400,
            Some("minDuration"),
        ),
        (
            "/api/v1/traces?start=1&end=2&minDuration=-5ms",
            400,
            Some("minDuration"),
        ),
        (
            "/api/v1/traces?start=1&end=2&maxDuration=1y",
            400,
            Some("maxDuration"),
        ),
        (
            "/api/v1/traces?start=1&end=2&minDuration=2s&maxDuration=1s",
            400,
            Some("maxDuration"),
        ),
        ("/api/v1/traces?start=1&end=2&cursor=x", 400, Some("cursor")),
        (
            "/api/v1/traces?start=1&end=2&cursor=%F0%9F%92%A1",
            400,
            Some("cursor"),
        ),
        ("/api/v1/traces?start=1&end=2&color=red", 400, Some("color")),
        (
            "/api/v1/traces?start=1&end=2&Service=x",
            400,
            Some("Service"),
        ),
        ("/api/v1/traces?start=1&end=2&start=1", 400, Some("start")),
        (
            "/api/v1/traces?start=1&end=2&service=a&service=b",
            400,
            Some("service"),
        ),
        ("/api/v1/traces?start=1&end=2&=x", 400, Some("")),
        ("/api/v1/traces/xyz", 400, Some("id")),
        ("/api/v1/traces/%20", 400, Some("id")),
        ("/api/v1/traces/%FF", 400, Some("id")),
        (
            "/api/v1/traces/0123456789abcdef0123456789abcdef0",
            400,
            Some("id"),
        ),
        ("/api/v1/traces/ab?start=1", 400, Some("start")),
        ("/api/v1/services?limit=1", 400, Some("limit")),
        ("/api/v1/services?start=x", 400, Some("start")),
        ("/api/v1/services/%FF/operations", 400, Some("service")),
        ("/api/v1/services/a/operations?x=1", 400, Some("x")),
        ("/api/v1/dependencies", 400, Some("start")),
        (
            "/api/v1/dependencies?start=1&end=2&service=a",
            400,
            Some("service"),
        ),
        ("/api/v1/latency?start=1", 400, Some("end")),
        ("/api/v1/latency?start=1&end=0", 400, Some("end")),
        ("/api/v1/accounts", 400, Some("start")),
        (
            "/api/v1/accounts?start=1&end=2&service=a",
            400,
            Some("service"),
        ),
        ("/api/v1/accounts?start=1&end=2&by=stage", 400, Some("by")),
        ("/api/v1/accounts?start=1&end=2&step=0s", 400, Some("step")),
        ("/api/v1/accounts?start=1&end=2&step=90s", 400, Some("step")),
        (
            "/api/v1/accounts?start=1&end=99999999&step=1m",
            400,
            Some("step"),
        ),
        ("/api/v1/openapi.json?x=1", 400, Some("x")),
        ("/api/v1/nothing", 404, None),
        ("/api/v1/traces/", 404, None),
        ("/ui/nothing", 404, None),
    ];
    for (path, status, parameter) in CASES {
        let answer = ask(server.address(), "GET", path).await;
        check_problem(path, &answer, status, parameter);
    }
    for method in ["POST", "PUT", "DELETE"] {
        let answer = ask(server.address(), method, "/api/v1/traces").await;
        check_problem(method, &answer, 405, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_clickhouse() {
    let server = serve(nowhere(), Limits::default()).await;
    for path in [
        "/api/v1/traces?start=1&end=2",
        "/api/v1/traces/ab",
        "/api/v1/services",
        "/api/v1/services/x/operations",
        "/api/v1/dependencies?start=1&end=2",
        "/api/v1/latency?start=1&end=2",
        "/api/v1/accounts?start=1&end=2",
    ] {
        let answer = ask(server.address(), "GET", path).await;
        check_problem(path, &answer, 503, None);
        assert_eq!(answer.headers["retry-after"], "5", "{path}");
    }
    assert_eq!(ask(server.address(), "GET", "/healthz").await.status, 200);
    let ready = ask(server.address(), "GET", "/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.text.starts_with("not ready: "), "{}", ready.text);
    let metrics = ask(server.address(), "GET", "/metrics").await.text;
    for line in [
        "spanloom_query_requests_total{route=\"/api/v1/traces/{id}\",status=\"503\"} 1",
        "spanloom_query_clickhouse_duration_seconds_count{query=\"traceql\",outcome=\"unavailable\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_served_and_nothing_else_is_a_page() {
    let server = serve(nowhere(), Limits::default()).await;
    let root = ask(server.address(), "GET", "/").await;
    assert_eq!(
        (root.status, root.headers["location"].to_str().unwrap()),
        (307, "/ui/")
    );
    let page = ask(server.address(), "GET", "/ui/").await;
    assert_eq!(
        (page.status, page.content_type.as_str()),
        (200, "text/html; charset=utf-8")
    );
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert_eq!(page.headers["x-content-type-options"], "nosniff");
    for file in ["app.css", "app.js", "format.js", "waterfall.js"] {
        let answer = ask(server.address(), "GET", &format!("/ui/{file}")).await;
        assert_eq!(answer.status, 200, "{file}");
        assert!(
            !answer.text.contains("innerHTML") && !answer.text.contains("://"),
            "{file}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_time_and_memory() {
    let limits = Limits {
        query_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let service = Service::with_limits(limits).await;
    service.insert(&[span(1, 1, 0, 0)]).await;
    // Each row of this table sleeps, so any read of it is slow.
    service.sql("RENAME TABLE spans TO real_spans").await;
    service
        .sql("CREATE VIEW spans AS SELECT * FROM real_spans WHERE sleepEachRow(2) = 0")
        .await;
    let path = "/api/v1/traces/1";
    let answer = service.ask(path).await;
    check_problem(path, &answer, 504, None);
    assert!(answer.text.contains("0.3 s"), "{}", answer.text);

    let limits = Limits {
        query_memory_bytes: 30_000_000,
        ..Limits::default()
    };
    let service = Service::with_limits(limits).await;
    service.sql("RENAME TABLE spans TO real_spans").await;
    service
        .sql(
            "CREATE VIEW spans AS SELECT * FROM real_spans WHERE length(arrayStringConcat(\
             arrayMap(x -> repeat('x', 1000), range(100000)))) = 0",
        )
        .await;
    service.sql("INSERT INTO real_spans (time, trace_id) SELECT now64(9), toString(number) FROM numbers(9)").await;
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_secs();
    let path = format!("/api/v1/traces?start={}&end={now}", now - 60);
    // A search says what it has found, and why it is not all.
    let answer = service.ask(&path).await;
    let reason = answer.body["partial"]["reason"].as_str();
    assert!(
        answer.status == 200 && reason.is_some_and(|reason| reason.contains("memory")),
        "{}",
        answer.text
    );

    let limits = Limits {
        result_bytes: 20_000,
        ..Limits::default()
    };
    let service = Service::with_limits(limits).await;
    service
        .sql(&format!(
            "INSERT INTO red (minute, service, name, count) SELECT \
             toStartOfMinute(toDateTime({T0})), 'cart', 'GET ' || toString(number), 1 \
             FROM numbers(1000)"
        ))
        .await;
    let path = format!("/api/v1/latency?start={T0}&end={}", T0 + 1);
    let answer = service.ask(&path).await;
    check_problem(&path, &answer, 422, None);
    assert!(answer.text.contains("found more"), "{}", answer.text);
    let one = format!("{path}&operation=GET%201");
    assert_eq!(service.ask(&one).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_traces_and_missing_tables() {
    let service = Service::start().await;
    let path = "/api/v1/traces/abc";
    let answer = service.ask(path).await;
    check_problem(path, &answer, 404, None);
    assert!(answer.text.contains("00000abc"), "{}", answer.text);
    assert_eq!(service.ask("/readyz").await.status, 200);
    service.sql("DROP TABLE trace_index").await;
    check_problem(path, &service.ask(path).await, 503, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_belong_to_their_search() {
    let service = Service::start().await;
    service.insert(&[span(1, 1, 0, 0), span(2, 1, 0, 0)]).await;
    let cursor = service.search("limit=1").await["nextCursor"]
        .as_str()
        .unwrap()
        .to_owned();
    let window = format!("start={}&end={}", T0 - 7200, T0 + 7200);
    let path = format!("/api/v1/traces?{window}&service=cart&cursor={cursor}");
    check_problem(&path, &service.ask(&path).await, 400, Some("cursor"));
    let path = format!("/api/v1/traces?start=1&end=2&cursor={cursor}");
    check_problem(&path, &service.ask(&path).await, 400, Some("cursor"));
    assert_eq!(
        service.search(&format!("limit=2&cursor={cursor}")).await["truncated"],
        false
    );
}

/// Percent-encodes everything.
fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn any_text_is_a_value_and_never_sql() {
    let service = Service::start().await;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut texts: Vec<String> = [
        "'",
        "\\",
        "\\'",
        "a\tb\nc",
        "{p0:String}",
        "?",
        "??",
        "\0",
        "💡",
        "--",
    ]
    .map(str::to_owned)
    .into();
    let any = proptest::string::string_regex("(?s).{1,40}").unwrap();
    texts.extend((0..60).map(|_| any.new_tree(&mut runner).unwrap().current()));
    // The bytes go in as hexadecimal digits, so that the insert does not test itself.
    let hex = |text: &str| {
        let digits: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        format!("unhex('{digits}')")
    };
    for (place, text) in texts.iter().enumerate() {
        let id = place as u64 + 1;
        let name = hex(text);
        service
            .sql(&format!(
                "INSERT INTO spans (time, service, name, trace_id, span_id, attr_str) SELECT \
                 fromUnixTimestamp64Nano(toInt64({T0}000000000)), {name}, {name}, \
                 toFixedString(unhex('{id:032x}'), 16), toFixedString(unhex('{id:016x}'), 8), \
                 map({name}, {name})"
            ))
            .await;
    }
    service.index().await;
    for (place, text) in texts.iter().enumerate() {
        let equal = texts.iter().filter(|other| *other == text).count();
        let encoded = encode(text);
        let mut queries = vec![format!("service={encoded}&operation={encoded}&limit=100")];
        // A tag's key ends at the first '='.
        if !text.contains('=') {
            queries.push(format!("tag={encoded}%3D{encoded}&limit=100"));
        }
        for query in queries {
            let found = service.search(&query).await;
            let traces = found["traces"].as_array().unwrap();
            assert_eq!(traces.len(), equal, "{text:?}: {found}");
            let own = format!("{:032x}", place + 1);
            assert!(
                traces.iter().any(|trace| trace["traceId"] == own),
                "{text:?}: {found}"
            );
            assert_eq!(traces[0]["rootService"], text.as_str());
        }
    }
}
