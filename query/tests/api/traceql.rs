//! `GET /api/v1/traces?q=`: searches by TraceQL in our own API.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use spanloom_query::Limits;

use crate::harness::{Answer, Service, Span, T0, at_ms, span};

/// Percent-encodes everything.
fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// The parameter `q`.
fn q(query: &str) -> String {
    format!("q={}", encode(query))
}

/// Trace ids of an answer, as numbers.
fn ids(answer: &Value) -> Vec<u128> {
    let traces = answer["traces"].as_array().unwrap().iter();
    traces
        .map(|trace| u128::from_str_radix(trace["traceId"].as_str().unwrap(), 16).unwrap())
        .collect()
}

#[tokio::test]
async fn a_list_shows_the_traces_and_what_matches() {
    let service = Service::start().await;
    service
        .insert(&[
            span(1, 0x11, 0, 0).takes_ms(40),
            span(1, 0x12, 0x11, 10)
                .service("db")
                .name("SELECT")
                .is("CLIENT", "ERROR")
                .with("attr_int", "map('rows', toInt64(3))"),
            span(2, 0x21, 0x99, 1_000).service("db").name("SELECT"),
            span(3, 0x31, 0, 2_000),
        ])
        .await;
    let query =
        "{ resource.service.name = \"db\" } | select(span.rows, status) | by(name) | count() > 0";
    let answer = service.search(&q(query)).await;
    assert_eq!(ids(&answer), [2, 1]);
    assert_eq!(answer["truncated"], false);
    for absent in ["partial", "nextCursor", "hint", "explain"] {
        assert_eq!(answer.get(absent), None, "{absent}");
    }
    let trace = &answer["traces"][1];
    // The same as in a search by parameters.
    let older = service.search("service=db").await["traces"][1].clone();
    for (name, value) in older.as_object().unwrap() {
        if name != "matches" {
            assert_eq!(&trace[name], value, "{name}");
        }
    }
    assert_eq!(older["matches"][0]["spans"][0]["name"], "SELECT");
    assert_eq!(trace["matchedSpanCount"], 1);
    let matched = &trace["matches"][0];
    assert_eq!(matched["spanCount"], 1);
    assert_eq!(
        matched["attributes"],
        json!([
            {"key": "by(name)", "type": "string", "value": "SELECT"},
            {"key": "count()", "type": "int", "value": "1"},
        ])
    );
    let span = &matched["spans"][0];
    assert_eq!(span["spanId"], "0000000000000012");
    assert_eq!(span["service"], "db");
    assert_eq!(span["name"], "SELECT");
    assert_eq!(span["startUnixNano"], at_ms(10).to_string());
    assert_eq!(span["durationNs"], "5000000");
    let attributes = span["attributes"].as_array().unwrap();
    let rows = json!({"key": "rows", "type": "int", "value": "3"});
    assert!(attributes.contains(&rows), "{attributes:?}");
    assert_eq!(answer["traces"][0]["rootMissing"], true);
    // At most three spans are shown, and all are counted.
    let many: Vec<_> = (1..=5).map(|id| span_of(4, id)).collect();
    service.insert(&many).await;
    let answer = service.search(&q("{ name = \"many\" }")).await;
    let matched = &answer["traces"][0]["matches"][0];
    assert_eq!(matched["spanCount"], 5);
    assert_eq!(matched["spans"].as_array().unwrap().len(), 3);
    let answer = service.search(&q("{ name = \"nothing\" }")).await;
    assert!(answer["hint"].as_str().unwrap().contains("no trace"));
}

fn span_of(trace: u128, id: u64) -> Span {
    span(trace, id, 0, i64::try_from(id).unwrap()).name("many")
}

/// Traces that overlap, start in the same nanosecond, match long after they started, once or twice, before, in and
/// after the window.
fn crowd() -> Vec<Span> {
    let mut spans = Vec::new();
    for trace in 1..=160_u128 {
        let n = i64::try_from(trace).unwrap();
        let start = -(n % 11) * (n % 5) * 90_000;
        spans.push(span(trace, 1, 0, start).service("other"));
        let later = [0, 1, 400, 60_000, 1_500_000, 6_000_000][usize::try_from(n % 6).unwrap()];
        spans.push(span(trace, 2, 1, start + later));
        if n % 4 == 0 {
            spans.push(span(trace, 3, 1, start + 30_000 * (n % 7)));
        }
    }
    spans
}

/// The traces with a span of `cart` in the window, in the order of answers.
fn expected(spans: &[Span], window_ms: (i64, i64)) -> Vec<u128> {
    let mut starts: BTreeMap<u128, (i64, bool)> = BTreeMap::new();
    for span in spans {
        let window = at_ms(window_ms.0)..=at_ms(window_ms.1);
        let matches = span.service == "cart" && window.contains(&span.start_ns);
        let (start, any) = starts.entry(span.trace).or_insert((span.start_ns, false));
        *start = span.start_ns.min(*start);
        *any |= matches;
    }
    let matching = starts.into_iter().filter(|(_, (_, any))| *any);
    let mut order: Vec<_> = matching.map(|(trace, (start, _))| (start, trace)).collect();
    order.sort_unstable_by(|one, other| other.cmp(one));
    order.into_iter().map(|(_, trace)| trace).collect()
}

/// All pages of a search, one after the other.
async fn pages(service: &Service, parameters: &str, count: usize) -> Vec<u128> {
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/api/v1/traces?{parameters}&cursor={cursor}");
        let answer = service.get("/api/v1/traces", &path).await;
        found.extend(ids(&answer));
        assert!(found.len() <= count, "{parameters}: pages do not end");
        assert_eq!(answer["truncated"], found.len() < count, "{parameters}");
        match answer["nextCursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return found,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_cover_every_trace_once_in_order() {
    let service = Service::start().await;
    let spans = crowd();
    service.insert(&spans).await;
    // All; then some start before the window, and some match after it.
    for window in [(-9_000_000, 9_000_000), (-1_500_000, -100_000)] {
        let expect = expected(&spans, window);
        assert!(expect.len() > 40, "{}", expect.len());
        for limit in [1, 7, 60] {
            // Found by ClickHouse, and by the evaluator among all traces.
            for query in [
                "{ resource.service.name = \"cart\" }",
                "{ resource.service.name = \"cart\" || nestedSetLeft < -5 }",
            ] {
                // Pages of one take long.
                if limit == 1 && (window.0 < -2_000_000 || query.contains("nested")) {
                    continue;
                }
                let parameters = format!(
                    "start={}&end={}&limit={limit}&{}",
                    T0 + window.0 / 1_000,
                    T0 + window.1 / 1_000,
                    q(query)
                );
                let found = pages(&service, &parameters, expect.len()).await;
                assert_eq!(found, expect, "{window:?}, limit {limit}, {query}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_traces_of_one_nanosecond_are_by_id() {
    let service = Service::start().await;
    // The trace of which the index knows nothing is found, too.
    let spans: Vec<_> = (1..=30_u128).map(|trace| span(trace, 1, 0, 0)).collect();
    service.insert(&spans).await;
    service
        .sql("DELETE FROM trace_index WHERE trace_id = toFixedString(unhex('0000000000000000000000000000000d'), 16)")
        .await;
    let expect: Vec<_> = (1..=30).rev().collect();
    for limit in [1, 4, 30] {
        let window = format!("start={}&end={}", T0 - 60, T0 + 60);
        let parameters = format!("{window}&limit={limit}&{}", q("{ }"));
        assert_eq!(pages(&service, &parameters, 30).await, expect, "{limit}");
        let parameters = format!("{window}&limit={limit}&{}", q("{ traceDuration >= 0s }"));
        assert_eq!(pages(&service, &parameters, 30).await, expect, "{limit}");
    }
}

#[track_caller]
fn check_refused(answer: &Answer, parameter: &str, says: &str) {
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert_eq!(answer.content_type, "application/problem+json");
    assert_eq!(answer.body["parameter"], parameter, "{}", answer.text);
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(detail.contains(says), "{detail}");
}

#[tokio::test]
async fn what_cannot_be_asked_is_said() {
    let service = Service::start().await;
    service.insert(&[span(1, 1, 0, 0), span(2, 1, 0, 0)]).await;
    let window = format!("start={}&end={}", T0 - 60, T0 + 60);
    let ask = async |query: &str, more: &str| {
        let path = format!("/api/v1/traces?{window}&{}{more}", q(query));
        service.ask(&path).await
    };
    let wrong = ask("{ .a = }", "").await;
    check_refused(&wrong, "q", "line 1, column 8: expected a value, found `}`");
    assert_eq!(
        (&wrong.body["line"], &wrong.body["column"]),
        (&json!(1), &json!(8))
    );
    check_refused(
        &ask("{ name > 3 }", "").await,
        "q",
        "only values of one type",
    );
    check_refused(
        &ask("{ } | rate()", "").await,
        "q",
        "/api/metrics/query_range",
    );
    check_refused(
        &ask("{ }", "&service=a&tag=a%3Db").await,
        "q",
        "service, tag",
    );
    check_refused(&ask("{ }", "&explain=1").await, "explain", "true or false");
    check_refused(&ask("{ }", "&limit=101").await, "limit", "100");
    check_refused(
        &service.ask(&format!("/api/v1/traces?{}", q("{ }"))).await,
        "start",
        "required",
    );

    let first = ask("{ name != \"x\" }", "&limit=1").await;
    let cursor = first.body["nextCursor"].as_str().unwrap();
    let more = format!("&cursor={cursor}");
    check_refused(&ask("{ }", &more).await, "cursor", "another search");
    let older = format!("/api/v1/traces?{window}&cursor={cursor}");
    check_refused(&service.ask(&older).await, "cursor", "another search");
    // How it is written, and how many are wanted, changes nothing.
    let next = ask("{name!=\"x\"}", &format!("{more}&limit=5")).await;
    assert_eq!(ids(&next.body), [1]);
}

#[tokio::test]
async fn explain_says_what_was_read_and_no_secret() {
    let service = Service::start().await;
    service.insert(&crowd()).await;
    let query = "{ resource.service.name = \"cart\" && traceDuration > 1ms }";
    let answer = service.search(&format!("{}&explain=true", q(query))).await;
    let explain = &answer["explain"];
    assert_eq!(explain["query"], query);
    assert_eq!(
        explain["pushedDown"],
        "(service = 'cart') AND (toUnixTimestamp64Nano(max(end)) - \
         toUnixTimestamp64Nano(min(start)) > 1000000)"
    );
    assert_eq!(explain["evaluated"], json!(["traceDuration > 1ms"]));
    let number = |place: &str| explain.pointer(place).unwrap().as_u64().unwrap();
    assert!(number("/clickhouse/queries") >= 3, "{explain}");
    assert!(number("/clickhouse/rowsRead") >= 160, "{explain}");
    assert!(
        number("/clickhouse/bytesRead") > number("/clickhouse/rowsRead"),
        "{explain}"
    );
    assert!(number("/clickhouse/resultBytes") > 0, "{explain}");
    assert!(number("/inspected/traces") >= 20, "{explain}");
    assert!(
        number("/inspected/spans") > number("/inspected/traces"),
        "{explain}"
    );
    assert!(
        explain["durationNs"]
            .as_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
            > 0
    );
    let config = service.clickhouse();
    for secret in [config.user, config.password, config.url] {
        assert!(!explain.to_string().contains(&secret), "{explain}");
    }
    let older = service.search("service=cart&explain=true").await["explain"].clone();
    assert!(
        older["pushedDown"]
            .as_str()
            .unwrap()
            .contains("service = 'cart'"),
        "{older}"
    );
    assert!(
        older["clickhouse"]["queries"].as_u64().unwrap() >= 2,
        "{older}"
    );
    assert_eq!(older["query"], "{ resource.service.name = \"cart\" }");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_is_cut_says_so() {
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
    let answer = service.search(&q("{ }")).await;
    assert_eq!(
        (&answer["traces"], &answer["truncated"]),
        (&json!([]), &json!(true))
    );
    let reason = answer["partial"]["reason"].as_str().unwrap();
    assert!(
        reason.contains("timed out") && reason.contains("shorter"),
        "{reason}"
    );
    assert_eq!((answer.get("nextCursor"), answer.get("hint")), (None, None));

    let limits = Limits {
        trace_bytes: 40_000,
        ..Limits::default()
    };
    let service = Service::with_limits(limits).await;
    let mut spans: Vec<_> = (1..=200).map(|id| span(9, id, 0, 1)).collect();
    spans.extend((1..=5).map(|trace| span(trace, 1, 0, 0)));
    service.insert(&spans).await;
    // One trace is left out; behind it, pages go on.
    let answer = service.search(&format!("{}&limit=2", q("{ }"))).await;
    assert_eq!(ids(&answer), [5, 4]);
    let reason = answer["partial"]["reason"].as_str().unwrap();
    assert!(reason.contains("too large"), "{reason}");
    let cursor = answer["nextCursor"].as_str().unwrap();
    let next = format!("{}&limit=10&cursor={cursor}", q("{ }"));
    assert_eq!(ids(&service.search(&next).await), [3, 2, 1]);
}

/// Keeps the events of a level and above as lines.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Line(String);
        impl tracing::field::Visit for Line {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn Debug) {
                write!(self.0, "{}={value:?} ", field.name()).unwrap();
            }
        }
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// Everything runs on this test's own thread, so that its log has nothing of others.
#[tokio::test(flavor = "current_thread")]
async fn slow_queries_are_in_the_log() {
    let log = Log::default();
    let _default = tracing::subscriber::set_default(log.clone());
    let limits = |slow_query| Limits {
        slow_query,
        ..Limits::default()
    };
    let service = Service::with_limits(limits(Duration::ZERO)).await;
    service.insert(&[span(1, 1, 0, 0)]).await;
    let window = format!("start={}&end={}", T0 - 60, T0 + 60);
    let search = q("{ name = \"GET /cart\" && traceDuration > 1ms }");
    let metrics = q("{ name = \"GET /cart\" } | rate()");
    for (path, says) in [
        (
            format!("/api/v1/traces?{window}&{search}"),
            [
                "route=\"/api/v1/traces\"",
                "evaluated=\"traceDuration > 1ms\"",
                "inspected_spans=1",
            ],
        ),
        (
            format!("/tempo/api/search?{window}&{search}"),
            [
                "route=\"/api/search\"",
                "pushed_down=\"(name = 'GET /cart') AND (",
                "rows_read=",
            ],
        ),
        (
            format!("/api/metrics/query_range?{window}&{metrics}"),
            [
                "route=\"/api/metrics/query_range\"",
                "evaluated=\"\"",
                "clickhouse_queries=1",
            ],
        ),
    ] {
        assert_eq!(service.ask(&path).await.status, 200, "{path}");
        let lines = std::mem::take(&mut *log.0.lock().unwrap());
        let slow: Vec<_> = lines
            .iter()
            .filter(|line| line.contains("slow query"))
            .collect();
        assert_eq!(slow.len(), 1, "{lines:?}");
        for part in says
            .iter()
            .chain(&["outcome=\"ok\"", "query=\"{ name", "seconds="])
        {
            assert!(slow[0].contains(part), "{part} is not in {}", slow[0]);
        }
    }
    let service = Service::with_limits(limits(Duration::from_secs(60))).await;
    let path = format!("/api/v1/traces?{window}&{search}");
    assert_eq!(service.ask(&path).await.status, 200);
    let lines = std::mem::take(&mut *log.0.lock().unwrap());
    assert!(
        !lines.iter().any(|line| line.contains("slow query")),
        "{lines:?}"
    );
}
