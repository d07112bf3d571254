//! Tempo's gRPC service, asked by a client of gRPC as Grafana's backend does.

mod client;

use std::collections::BTreeMap;
use std::time::Duration;

use spanloom_query::{Access, Limits};
use spanloom_tls::ClientTls;
use tonic::Code;

use self::client::{Client, QueryRequest, SearchRequest, Sent, TagsRequest, ValuesRequest};
use crate::harness::{Service, Span, T0, ask, serve, span};
use crate::tls::renew;

/// What a message may take.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

fn seconds(offset: i64) -> u32 {
    u32::try_from(T0 + offset).unwrap()
}

/// A search of the hours around [`T0`].
fn search(query: &str, limit: u32) -> SearchRequest {
    SearchRequest {
        query: query.to_owned(),
        limit,
        start: seconds(-7200),
        end: seconds(7200),
        ..SearchRequest::default()
    }
}

/// A query for metrics of the minutes around [`T0`].
fn series(query: &str) -> QueryRequest {
    let ns = |offset: i64| u64::try_from(T0 + offset).unwrap() * 1_000_000_000;
    QueryRequest {
        query: query.to_owned(),
        start: ns(-60),
        end: ns(60),
        ..QueryRequest::default()
    }
}

/// The ids of traces in the order in which they came, without zeros in front.
fn ids(sent: &Sent<client::SearchResponse>) -> Vec<String> {
    let traces = sent.messages.iter().flat_map(|message| &message.traces);
    let ids = traces.map(|trace| trace.trace_id.trim_start_matches('0').to_owned());
    ids.collect()
}

/// What each message says of the progress.
fn progress(sent: &Sent<client::SearchResponse>) -> Vec<(u32, u32)> {
    let metrics = sent.messages.iter().map(|message| message.metrics.unwrap());
    metrics
        .map(|metrics| (metrics.completed_jobs, metrics.total_jobs))
        .collect()
}

#[track_caller]
fn check_progress(sent: &Sent<client::SearchResponse>) {
    let progress = progress(sent);
    assert!(progress.is_sorted(), "{progress:?}");
    let (last, others) = progress.split_last().unwrap();
    assert_eq!(last.0, last.1, "{progress:?}");
    assert!(others.iter().all(|(done, all)| done < all), "{progress:?}");
}

#[tokio::test]
async fn a_search_answers_what_http_does() {
    let service = Service::start().await;
    let client = Client::new(service.address());
    service
        .insert(&[
            span(1, 1, 0, 0),
            span(1, 2, 1, 9_000).name("late").is("CLIENT", "ERROR"),
            span(2, 3, 0, 1_000).name("late"),
            span(3, 4, 0, 2_000).name("late").service("shop"),
            span(3, 5, 4, 2_001).name("late"),
        ])
        .await;
    let sent = client
        .search(search("{ name = \"late\" }", 10))
        .await
        .unwrap();
    check_progress(&sent);
    assert_eq!(ids(&sent), ["3", "2", "1"]);
    let path = format!(
        "/api/search?start={}&end={}&limit=10&q=%7B%20name%20%3D%20%22late%22%20%7D",
        T0 - 7200,
        T0 + 7200
    );
    let http = service.ask(&path).await.body;
    for (trace, json) in sent.traces().zip(http["traces"].as_array().unwrap()) {
        assert_eq!(trace.json(), *json);
    }
    assert_eq!(sent.head.get("content-type").unwrap(), "application/grpc");
    assert!(sent.head.get("content-encoding").is_none());
    assert_eq!(sent.trailers.get("x-spanloom-partial"), None);
    let inspected = sent.messages.last().unwrap().metrics.unwrap();
    assert_eq!(
        (inspected.inspected_traces, inspected.inspected_spans),
        (3, 5)
    );
    // The limit, and the older form.
    let sent = client
        .search(search("{ name = \"late\" }", 2))
        .await
        .unwrap();
    check_progress(&sent);
    assert_eq!(ids(&sent), ["3", "2"]);
    let older = SearchRequest {
        tags: BTreeMap::from([("service.name".to_owned(), "shop".to_owned())]),
        ..search("", 10)
    };
    assert_eq!(ids(&client.search(older).await.unwrap()), ["3"]);
    // What Grafana asks when a data source is saved; it draws the progress even where nothing is found.
    let now = u32::try_from(jiff::Timestamp::now().as_second()).unwrap();
    let saved = SearchRequest {
        start: now - 900,
        end: now,
        ..search("{}", 1)
    };
    let sent = client.search(saved).await.unwrap();
    check_progress(&sent);
    assert!(ids(&sent).is_empty());
}

#[tokio::test]
async fn traces_are_sent_once_they_are_final() {
    let service = Service::start().await;
    let client = Client::new(service.address());
    // One a minute, whose last span is half an hour after the first: those that are found first are not the first.
    let mut spans = Vec::new();
    for minute in 0..40_u32 {
        let (trace, at) = (u128::from(minute) + 1, i64::from(minute) * 60_000);
        let id = u64::from(minute) * 2 + 1;
        spans.push(span(trace, id, 0, at - 3_600_000));
        let late = if minute % 2 == 0 { 1_800_000 } else { 1 };
        spans.push(span(trace, id + 1, id, at - 3_600_000 + late));
    }
    service.insert(&spans).await;
    let sent = client.search(search("{}", 25)).await.unwrap();
    check_progress(&sent);
    let newest = (16..=40).rev().map(|trace| format!("{trace:x}"));
    assert_eq!(ids(&sent), newest.collect::<Vec<_>>());
    let (_, early) = sent.messages.split_last().unwrap();
    assert!(
        early.iter().any(|message| !message.traces.is_empty()),
        "{:?}",
        progress(&sent)
    );
}

#[tokio::test]
async fn messages_are_of_a_mebibyte_at_most() {
    let service = Service::start().await;
    let client = Client::new(service.address());
    // Thirty traces of about 100 KB each in an answer, and one of 3 MB.
    let text = |kib: usize| format!("map('text', repeat('x', {}))", kib << 10);
    let large = |trace: u128, id: u64, parent: u64| -> Span {
        span(trace, id, parent, i64::from(u32::try_from(trace).unwrap()))
            .with("attr_str", &text(100))
    };
    let mut spans: Vec<_> = (1..=30).map(|trace| large(trace, 1, 0)).collect();
    spans.extend((1..=30).map(|id| large(99, id, id - 1)));
    service.insert(&spans).await;
    let query = "{ span.text != nil } | select(span.text)";
    let check = |sent: &Sent<client::SearchResponse>, traces: usize| {
        for message in &sent.messages {
            let size = prost::Message::encoded_len(message);
            assert!(size <= MESSAGE_BYTES_MAX, "{size}");
        }
        let mut ids = ids(sent);
        assert_eq!(ids.len(), traces);
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), traces);
    };
    let sent = client.search(search(query, 100)).await.unwrap();
    check(&sent, 31);
    assert!(sent.messages.len() >= 4, "{}", sent.messages.len());
    check_progress(&sent);
    // All spans of the last one do not fit: some are left out, and that is said.
    let all_spans = SearchRequest {
        spans_per_span_set: 100,
        ..search(query, 100)
    };
    let sent = client.search(all_spans).await.unwrap();
    check(&sent, 31);
    let why = sent.trailers.get("x-spanloom-partial").unwrap();
    assert!(why.to_str().unwrap().contains("too large"), "{why:?}");
    let (done, all) = *progress(&sent).last().unwrap();
    assert!(done < all);
    let cut = sent
        .traces()
        .find(|trace| trace.trace_id.ends_with("63"))
        .unwrap();
    let set = cut.span_sets.first().unwrap();
    assert_eq!(set.matched, 30);
    assert!((4..30).contains(&set.spans.len()), "{}", set.spans.len());
}

#[tokio::test]
async fn what_takes_too_long_is_partial_or_refused() {
    let service = Service::start().await;
    service.insert(&[span(1, 1, 0, 0)]).await;
    slow(&service).await;
    let limits = Limits {
        concurrent_queries: 1,
        query_timeout: Duration::from_secs(1),
        ..Limits::default()
    };
    let server = serve(service.clickhouse(), limits).await;
    let client = Client::new(server.address());
    // One has the only slot until its time is over; what it found is an answer, and a trailer says what it is not.
    let calls = [(); 3].map(|()| client.search(search("{}", 5)));
    let answers = futures_util::future::join_all(calls).await;
    let (answered, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert!(!answered.is_empty() && !refused.is_empty());
    for sent in answered.into_iter().flatten() {
        let why = sent.trailers.get("x-spanloom-partial").unwrap();
        assert!(why.to_str().unwrap().contains("timed out"), "{why:?}");
        let (done, all) = *progress(&sent).last().unwrap();
        assert!(done < all);
    }
    for status in refused.into_iter().filter_map(Result::err) {
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(status.message().contains("too many concurrent queries"));
    }
}

/// From now on each span that is read takes three seconds.
async fn slow(service: &Service) {
    service.sql("RENAME TABLE spans TO real_spans").await;
    service
        .sql("CREATE VIEW spans AS SELECT * FROM real_spans WHERE sleepEachRow(3) = 0")
        .await;
}

#[tokio::test]
async fn series_are_those_of_http() {
    let service = Service::start().await;
    let client = Client::new(service.address());
    service
        .insert(&[
            span(1, 1, 0, 0),
            span(2, 2, 0, 1_000).service("shop"),
            span(3, 3, 0, 31_000).service("shop"),
        ])
        .await;
    let query = "{} | count_over_time() by (resource.service.name)";
    let asked = QueryRequest {
        step: 30_000_000_000,
        ..series(query)
    };
    let sent = client.range(asked).await.unwrap();
    let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let window = format!("start={}&end={}&q={encoded}", T0 - 60, T0 + 60);
    let http = service
        .ask(&format!("/api/metrics/query_range?{window}&step=30s"))
        .await;
    let expect = http.body["series"].as_array().unwrap();
    let last = sent.messages.last().unwrap();
    let metrics = last.metrics.unwrap();
    assert_eq!(
        (metrics.completed_jobs, last.status),
        (metrics.total_jobs, 0)
    );
    assert_eq!(last.series.len(), 2);
    for (series, json) in last.series.iter().zip(expect) {
        assert_eq!(series.label(), json["labels"][0]["value"]["stringValue"]);
        let samples = json["samples"].as_array().unwrap();
        assert_eq!(series.samples.len(), samples.len());
        for (sample, json) in series.samples.iter().zip(samples) {
            assert_eq!(sample.timestamp_ms.to_string(), json["timestampMs"]);
            assert_eq!(sample.value, json["value"].as_f64().unwrap_or(0.0));
        }
        assert!(!series.exemplars.is_empty());
    }
    let sent = client.instant(series(query)).await.unwrap();
    let [answer] = &sent.messages[..] else {
        panic!("{:?}", sent.messages);
    };
    let values: Vec<_> = answer
        .series
        .iter()
        .map(|series| (series.label(), series.value))
        .collect();
    assert_eq!(values, [("cart".to_owned(), 1.0), ("shop".to_owned(), 2.0)]);
    let metrics = answer.metrics.unwrap();
    assert_eq!(metrics.completed_jobs, metrics.total_jobs);
}

#[tokio::test]
async fn series_are_cut_into_messages_that_add_up() {
    let service = Service::start().await;
    let client = Client::new(service.address());
    let services = |id: u32| span(u128::from(id), u64::from(id), 0, 0).service(&format!("s{id}"));
    service
        .insert(&(1..=8).map(services).collect::<Vec<_>>())
        .await;
    // 20,000 steps of 6 ms in two minutes, for each of eight services.
    let asked = QueryRequest {
        step: 4_000_000,
        ..series("{} | count_over_time() by (resource.service.name)")
    };
    let sent = client.range(asked).await.unwrap();
    assert!(sent.messages.len() > 2);
    let mut samples: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let mut done = Vec::new();
    for message in &sent.messages {
        let size = prost::Message::encoded_len(message);
        assert!(size <= MESSAGE_BYTES_MAX, "{size}");
        for series in &message.series {
            let times = series.samples.iter().map(|sample| sample.timestamp_ms);
            samples.entry(series.label()).or_default().extend(times);
        }
        done.push(message.metrics.unwrap().completed_jobs);
    }
    assert_eq!(samples.len(), 8);
    for times in samples.values() {
        assert!(
            times.is_sorted() && times.len() >= 30_000,
            "{}",
            times.len()
        );
    }
    assert!(done.is_sorted() && done.last() == Some(&100), "{done:?}");
}

#[tokio::test]
async fn keys_and_values_are_those_of_http() {
    let service = Service::start().await;
    let client = Client::new(service.address());
    let tagged = span(1, 1, 0, 0).with("attr_str", "map('http.route', '/cart')");
    service.insert(&[tagged]).await;
    service
        .sql(&format!(
            "INSERT INTO tags (day, scope, key, type, value) SELECT toDate(toDateTime({T0})), \
             'span', 'http.route', 'string', '/cart'"
        ))
        .await;
    let intrinsic = TagsRequest {
        scope: "intrinsic".to_owned(),
        ..TagsRequest::default()
    };
    let http = service.ask("/api/v2/search/tags").await.body;
    let sent = client.tags_v2(TagsRequest::default()).await.unwrap();
    let scopes = sent.messages.iter().flat_map(|message| &message.scopes);
    let scopes: Vec<_> = scopes
        .map(|scope| serde_json::json!({"name": scope.name, "tags": scope.tags}))
        .collect();
    assert_eq!(serde_json::json!(scopes), http["scopes"]);
    let sent = client.tags_v2(intrinsic).await.unwrap();
    assert_eq!(sent.messages.first().unwrap().scopes.len(), 1);
    let http = service.ask("/api/search/tags").await.body;
    let sent = client.tags(TagsRequest::default()).await.unwrap();
    let names: Vec<_> = sent
        .messages
        .iter()
        .flat_map(|message| &message.tag_names)
        .collect();
    assert_eq!(serde_json::json!(names), http["tagNames"]);

    let of = |name: &str, query: &str| ValuesRequest {
        tag_name: name.to_owned(),
        query: query.to_owned(),
        start: seconds(-60),
        end: seconds(60),
    };
    let sent = client.values_v2(of("span.http.route", "")).await.unwrap();
    let [answer] = &sent.messages[..] else {
        panic!("{:?}", sent.messages);
    };
    let metrics = answer.metrics.unwrap();
    assert_eq!((metrics.completed_jobs, metrics.total_jobs), (1, 1));
    let values: Vec<_> = answer
        .tag_values
        .iter()
        .map(|one| (&*one.r#type, &*one.value))
        .collect();
    assert_eq!(values, [("string", "/cart")]);
    let sent = client
        .values_v2(of("span.http.route", "{ status = error }"))
        .await
        .unwrap();
    assert!(sent.messages.first().unwrap().tag_values.is_empty());
    let sent = client.values(of("name", "")).await.unwrap();
    assert_eq!(sent.messages.first().unwrap().tag_values, ["GET /cart"]);
}

#[tokio::test]
async fn what_is_wrong_has_the_code_and_the_words() {
    let service = Service::start().await;
    let client = Client::new(service.address());
    #[track_caller]
    fn check<T: std::fmt::Debug>(answer: Result<Sent<T>, tonic::Status>, code: Code, says: &str) {
        let status = answer.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(says), "{status:?}");
    }
    let invalid = Code::InvalidArgument;
    let said = "invalid TraceQL query: line 1, column 8";
    check(client.search(search("{ .a = }", 1)).await, invalid, said);
    let http = service.ask("/api/search?q=%7B%20.a%20%3D%20%7D").await.text;
    check(client.search(search("{ .a = }", 1)).await, invalid, &http);
    check(
        client.search(search("{} | rate()", 1)).await,
        invalid,
        "q: this is a metrics query",
    );
    let ends_nowhere = SearchRequest {
        end: 0,
        ..search("{}", 1)
    };
    check(
        client.search(ends_nowhere).await,
        invalid,
        "end: start and end",
    );
    check(
        client.range(series("{}")).await,
        invalid,
        "q: this is a search",
    );
    check(
        client.range(series("{} | histogram_over_time(name)")).await,
        invalid,
        "name",
    );
    check(client.range(series("")).await, invalid, "q: is required");
    let too_fine = QueryRequest {
        step: 1,
        ..series("{} | rate()")
    };
    check(client.range(too_fine).await, invalid, "step");
    check(
        client.instant(series("{}")).await,
        invalid,
        "q: this is a search",
    );
    let scope = TagsRequest {
        scope: "x".to_owned(),
        ..TagsRequest::default()
    };
    check(
        client.tags(scope.clone()).await,
        invalid,
        "scope: is not one of",
    );
    check(client.tags_v2(scope).await, invalid, "scope: is not one of");
    check(
        client.values(ValuesRequest::default()).await,
        invalid,
        "tagName",
    );
    check(
        client.values_v2(ValuesRequest::default()).await,
        invalid,
        "tagName",
    );

    let long = format!("{{ name = \"{}\" }}", "x".repeat(128 << 10));
    check(client.search(search(&long, 1)).await, invalid, "128 KiB");
    let longer = "x".repeat(1 << 20);
    check(
        client.search(search(&longer, 1)).await,
        Code::OutOfRange,
        "too large",
    );
    check(
        client.unknown("Missing").await,
        Code::Unimplemented,
        "no such method",
    );
    // Where something between speaks HTTP/1.1, it says what to do.
    let answer = service.ask("/tempopb.StreamingQuerier/Search").await;
    assert_eq!(
        (answer.status, &*answer.content_type),
        (200, "application/grpc")
    );
    assert_eq!(answer.headers["grpc-status"], "12");
    assert!(
        answer.headers["grpc-message"]
            .to_str()
            .unwrap()
            .contains("HTTP/2")
    );

    service.sql("DROP TABLE spans").await;
    check(
        client.search(search("{}", 1)).await,
        Code::Unavailable,
        "ClickHouse is unavailable",
    );
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_query() {
    const IN_FLIGHT: &str = "spanloom_query_clickhouse_in_flight ";
    let service = Service::start().await;
    service.insert(&[span(1, 1, 0, 0)]).await;
    slow(&service).await;
    // Each part takes its three seconds.
    service.sql("SYSTEM STOP MERGES real_spans").await;
    for _ in 0..20 {
        service
            .sql("INSERT INTO real_spans SELECT * FROM real_spans LIMIT 1")
            .await;
    }
    let address = service.address();
    let in_flight = async || {
        let metrics = ask(address, "GET", "/metrics").await.text;
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix(IN_FLIGHT));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    let config = service.clickhouse();
    let engine = clickhouse::Client::default()
        .with_url(config.url)
        .with_user(config.user)
        .with_password(config.password);
    let in_engine = async || {
        let sql = "SELECT count() FROM system.processes WHERE query LIKE '%newest_ns%' \
                   AND query NOT LIKE '%processes%'";
        engine.query(sql).fetch_one::<u64>().await.unwrap()
    };
    let client = Client::new(address);
    let call = tokio::spawn(async move { client.search(search("{}", 1)).await.map(drop) });
    while in_flight().await == 0 || in_engine().await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    call.abort();
    let ended = async {
        while in_flight().await > 0 || in_engine().await > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(15), ended)
        .await
        .expect("the query goes on without its client");
}

#[tokio::test]
async fn tokens_and_tls_are_those_of_http() {
    let folder = tempfile::tempdir().unwrap();
    let trust = folder.path().join("ca.crt");
    renew(folder.path(), &trust);
    let tokens = tempfile::tempdir().unwrap();
    std::fs::write(tokens.path().join("people"), "right").unwrap();
    let service = Service::start().await;
    service.insert(&[span(1, 1, 0, 0)]).await;
    let access = Access {
        tls_dir: Some(folder.path().to_owned()),
        tokens_dir: Some(tokens.path().to_owned()),
        admin: None,
    };
    let server = service.beside(access).await;
    let client = |token: Option<&str>| {
        let tls = ClientTls::with_ca_file(&trust).unwrap();
        Client::with_tls(server.address(), tls).with_token(token)
    };
    for token in [None, Some("wrong")] {
        let status = client(token).search(search("{}", 1)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        assert!(status.message().contains("Bearer"), "{status:?}");
        // Which methods there are is not told either.
        let status = client(token).unknown("Missing").await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
    }
    let sent = client(Some("right")).search(search("{}", 1)).await.unwrap();
    assert_eq!(ids(&sent), ["1"]);
}
