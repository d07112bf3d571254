//! What OTLP asks of a receiver, each line of the list one case, against a listening server.

#![allow(clippy::unwrap_used, clippy::expect_used)] // all of this is a test

mod common;

use std::io::Write as _;
use std::time::Duration;

use common::*;
use http::Method;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message as _;
use spanloom_pipeline::{Config, ExportOutcome, RefusedRows};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const UNAVAILABLE: i32 = 14;
const INVALID_ARGUMENT: i32 = 3;
const RESOURCE_EXHAUSTED: i32 = 8;
const UNIMPLEMENTED: i32 = 12;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 1).unwrap()
}

/// A `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(bytes = "vec", repeated, tag = "3")]
    details: Vec<Vec<u8>>,
}

impl Status {
    fn has_retry_info(&self) -> bool {
        let name = b"google.rpc.RetryInfo";
        self.details
            .iter()
            .any(|detail| detail.windows(name.len()).any(|part| part == name))
    }
}

fn status(answer: &Answer) -> Status {
    assert_eq!(
        answer.header("content-type"),
        Some("application/x-protobuf")
    );
    Status::decode(&*answer.body).unwrap()
}

fn partial(bytes: &[u8]) -> Option<ExportTracePartialSuccess> {
    ExportTraceServiceResponse::decode(bytes)
        .unwrap()
        .partial_success
}

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");

#[tokio::test(flavor = "multi_thread")]
async fn every_way_in_stores_spans() {
    let p = start(quick());
    let mut next = 0;
    let mut body = || {
        next += 2;
        spans(next, 2)
    };
    let json = |id: u64| {
        format!(
            r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"traceId":"5B8EFFF798038103D269B633813FC60C",
            "spanId":"{id:016x}","name":"x","kind":2,"startTimeUnixNano":"{}","endTimeUnixNano":{},
            "unknown":{{"a":[1]}}}}]}}],"other":1}}]}}"#,
            now_ns(),
            now_ns()
        )
    };
    let check = |answer: Answer, content: &str, empty: &[u8]| {
        assert_eq!((answer.status, &*answer.body), (200, empty));
        assert_eq!(answer.header("content-type"), Some(content));
    };
    let encoded = |encoding| [PROTOBUF, ("content-encoding", encoding)];
    let content = "application/x-protobuf";
    check(p.protobuf(body()).await, content, b"");
    check(p.post(&encoded("gzip"), gzip(&body())).await, content, b"");
    check(p.post(&encoded("zstd"), zstd(&body())).await, content, b"");
    check(
        p.post(&encoded("deflate"), zlib(&body())).await,
        content,
        b"",
    );
    check(p.post(&encoded("identity"), body()).await, content, b"");
    let parameter = [("content-type", "application/x-protobuf; charset=utf-8")];
    check(p.post(&parameter, body()).await, content, b"");
    let two = [gzip(&body()), gzip(&body())].concat();
    check(p.post(&encoded("gzip"), two).await, content, b"");
    let content = "application/json";
    check(p.json(json(1001)).await, content, b"{}");
    let utf8 = [("content-type", "application/json; charset=utf-8")];
    check(p.post(&utf8, json(1002)).await, content, b"{}");
    let packed = [
        ("content-type", "application/json"),
        ("content-encoding", "gzip"),
    ];
    check(
        p.post(&packed, gzip(json(1003).as_bytes())).await,
        content,
        b"{}",
    );
    for (encoding, flag, message) in [
        ("identity", 0, body()),
        ("gzip", 1, gzip(&body())),
        ("zstd", 1, zstd(&body())),
        ("gzip", 0, body()),
    ] {
        let answer = p
            .export_with(&[("grpc-encoding", encoding)], &message, flag)
            .await;
        assert_eq!(
            (answer.status, answer.grpc_status()),
            (200, 0),
            "{encoding}"
        );
        assert_eq!(answer.message(), b"");
    }
    assert_eq!(p.store.len(), 8 * 2 + 3 + 4 * 2);
    let accepted = "otelcol_receiver_accepted_spans_total{receiver=\"otlp\",transport=";
    assert_eq!(p.metric(&format!("{accepted}\"http\"")), 8 * 2 + 3);
    assert_eq!(p.metric(&format!("{accepted}\"grpc\"")), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_request_succeeds() {
    let p = start(quick());
    assert_eq!(p.protobuf("").await.status, 200);
    assert_eq!(p.json("{}").await.text(), "{}");
    assert_eq!(
        p.post(&[PROTOBUF, ("content-encoding", "gzip")], gzip(b""))
            .await
            .status,
        200
    );
    assert_eq!(p.export(b"").await.grpc_status(), 0);
    assert_eq!(*p.store.batches.borrow(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_a_client_error_with_a_status() {
    let p = start(quick());
    for (headers, body) in [
        (vec![PROTOBUF], b"not protobuf".to_vec()),
        (vec![PROTOBUF], spans(1, 1)[..20].to_vec()),
        (
            vec![PROTOBUF, ("content-encoding", "gzip")],
            b"not gzip".to_vec(),
        ),
        (vec![PROTOBUF, ("content-encoding", "zstd")], gzip(b"x")),
    ] {
        let answer = p.post(&headers, body).await;
        let status = status(&answer);
        assert_eq!((answer.status, status.code), (400, INVALID_ARGUMENT));
        assert!(!status.message.is_empty() && !status.has_retry_info());
        assert_eq!(answer.header("retry-after"), None);
    }
    for body in [
        "{",
        "[]",
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"xyz"}]}]}]}"#,
    ] {
        let answer = p.json(body).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (400, Some("application/json"))
        );
        assert!(
            answer.text().starts_with(r#"{"code":3,"message":""#),
            "{}",
            answer.text()
        );
    }
    let answer = p.export(b"not protobuf").await;
    assert_eq!(
        (answer.status, answer.grpc_status()),
        (200, INVALID_ARGUMENT)
    );
    assert_eq!(answer.header("content-type"), Some("application/grpc"));
    // Two messages, half a message, none, an impossible flag, compression without a name.
    let one = framed(0, b"");
    for body in [
        [&one[..], &one].concat(),
        framed(0, b"xx")[..6].to_vec(),
        vec![],
        framed(2, b""),
    ] {
        assert_eq!(
            grpc(p.grpc, TRACES, &[], body).await.grpc_status(),
            INVALID_ARGUMENT
        );
    }
    assert_eq!(
        p.export_with(&[], b"x", 1).await.grpc_status(),
        INVALID_ARGUMENT
    );
    assert_eq!(p.store.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_methods_types_encodings_and_paths() {
    let p = start(quick());
    let answer = request(p.http, Method::GET, "/v1/traces", &[], "").await;
    assert_eq!(
        (answer.status, answer.header("allow")),
        (405, Some("POST, OPTIONS"))
    );
    for headers in [
        vec![("content-type", "text/plain")],
        vec![],
        vec![("content-type", "application/x-protobufx")],
        vec![PROTOBUF, ("content-encoding", "br")],
        vec![PROTOBUF, ("content-encoding", "gzip, gzip")],
    ] {
        let answer = p.post(&headers, spans(1, 1)).await;
        assert_eq!(
            (answer.status, status(&answer).code > 0),
            (415, true),
            "{headers:?}"
        );
    }
    for path in [
        "/v1/metrics",
        "/v1/logs",
        "/v1/profiles",
        "/",
        "/v1/tracesx",
    ] {
        let answer = request(p.http, Method::POST, path, &[PROTOBUF], "").await;
        assert_eq!(
            (answer.status, status(&answer).code),
            (404, UNIMPLEMENTED),
            "{path}"
        );
        assert!(status(&answer).message.contains("traces"));
    }
    // SDKs show the status line, and little else.
    let mut stream = TcpStream::connect(p.http).await.unwrap();
    let head =
        "POST /v1/logs HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.unwrap();
    let text = String::from_utf8_lossy(&text);
    let line = "HTTP/1.1 404 Spanloom receives only traces\r\n";
    assert!(text.starts_with(line), "{text}");
    assert!(text.contains("OTEL_LOGS_EXPORTER=none"), "{text}");
    let answer = p.export_with(&[("grpc-encoding", "snappy")], b"", 1).await;
    assert_eq!(answer.grpc_status(), UNIMPLEMENTED);
    assert_eq!(
        answer.header("grpc-accept-encoding"),
        Some("identity,gzip,zstd")
    );
    for path in [
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        "/no.such.Service/Method",
    ] {
        assert_eq!(
            grpc(p.grpc, path, &[], framed(0, b"")).await.grpc_status(),
            UNIMPLEMENTED
        );
    }
    let unsupported = "spanloom_receiver_unsupported_requests_total{transport=";
    assert_eq!(
        p.metric(&format!("{unsupported}\"grpc\",signal=\"metrics\"")),
        1
    );
    assert_eq!(
        p.metric(&format!("{unsupported}\"http\",signal=\"logs\"")),
        2
    );
    assert_eq!(p.store.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn size_limits_hold_before_and_after_decompression() {
    let p = start(Config {
        max_request_bytes: 100_000,
        ..quick()
    });
    let bomb = vec![0; 1_000_000];
    for (encoding, body) in [
        ("identity", vec![0; 100_001]),
        ("gzip", gzip(&bomb)),
        ("zstd", zstd(&bomb)),
        ("zstd", zstd::stream::encode_all(&*bomb, 1).unwrap()),
        ("gzip", [gzip(b"x"), gzip(&bomb)].concat()),
        ("deflate", zlib(&bomb)),
    ] {
        let answer = p
            .post(&[PROTOBUF, ("content-encoding", encoding)], body)
            .await;
        let status = status(&answer);
        assert_eq!(
            (answer.status, status.code),
            (413, RESOURCE_EXHAUSTED),
            "{encoding}"
        );
        assert!(!status.has_retry_info(), "clients would repeat it");
    }
    for (encoding, flag, message) in [("identity", 0, vec![0; 100_001]), ("gzip", 1, gzip(&bomb))] {
        let answer = p
            .export_with(&[("grpc-encoding", encoding)], &message, flag)
            .await;
        assert_eq!(answer.grpc_status(), RESOURCE_EXHAUSTED, "{encoding}");
    }
    let fits = spans(1, 1000);
    assert!(fits.len() < 100_000);
    assert_eq!(p.protobuf(fits).await.status, 200);
    assert_eq!(p.server.admitted_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn chunked_bodies_are_metered_as_they_come() {
    let p = start(Config {
        max_request_bytes: 100_000,
        ..quick()
    });
    let send = async |body: &[u8], stop_after: usize| {
        let mut stream = TcpStream::connect(p.http).await.unwrap();
        let head = "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n\
                    transfer-encoding: chunked\r\nconnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        for chunk in body.chunks(1000).take(stop_after) {
            stream
                .write_all(format!("{:x}\r\n", chunk.len()).as_bytes())
                .await
                .unwrap();
            stream.write_all(chunk).await.unwrap();
            stream.write_all(b"\r\n").await.unwrap();
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(send(&spans(1, 500), usize::MAX).await, "HTTP/1.1 200 OK");
    assert_eq!(p.store.len(), 500);
    assert_eq!(
        send(&vec![0; 150_000], usize::MAX).await,
        "HTTP/1.1 413 Payload Too Large"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn partial_success_counts_and_says_why() {
    let p = start(quick());
    let mut bad = span(2);
    bad.span_id = vec![0; 8];
    let mut old = span(3);
    old.start_time_unix_nano = 1;
    let body = request_of(vec![span(1), bad, old]);
    let reasons = "the span id is zero or not 8 bytes long (1); \
                   the start time is older than the retention (1)";
    let expect = ExportTracePartialSuccess {
        rejected_spans: 2,
        error_message: reasons.to_owned(),
    };
    assert_eq!(
        partial(&p.protobuf(body.clone()).await.body),
        Some(expect.clone())
    );
    // The repeat is told the same, and stores nothing.
    assert_eq!(
        partial(&p.protobuf(body.clone()).await.body),
        Some(expect.clone())
    );
    assert_eq!(partial(p.export(&body).await.message()), Some(expect));
    assert_eq!(p.store.len(), 1);
    let refused =
        "otelcol_receiver_refused_spans_total{receiver=\"otlp\",transport=\"http\",reason=";
    assert_eq!(p.metric(&format!("{refused}\"too_old\"")), 1);
    assert_eq!(p.metric("spanloom_receiver_repeats_total"), 2);
    // Full success has none.
    assert_eq!(partial(&p.protobuf(spans(10, 1)).await.body), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_utf8_is_a_warning() {
    let p = start(quick());
    let mut body = request_of(vec![span(1)]);
    let at = body.windows(3).position(|part| part == b"GET").unwrap();
    body[at] = 0xff;
    let partial = partial(&p.protobuf(body).await.body).unwrap();
    assert_eq!(partial.rejected_spans, 0);
    assert_eq!(
        partial.error_message,
        "a string that is not valid UTF-8 was repaired (1)"
    );
    assert_eq!(p.store.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_the_store_refuses_are_told_to_whose_they_are() {
    let mut config = quick();
    config.workers = 1;
    config.batch.max_age = Duration::from_millis(200);
    config.batch.max_rows = 5;
    let p = start(config);
    p.store.behave(|spans| {
        let refused = spans
            .iter()
            .position(|id| *id == 102u64.to_be_bytes())
            .unwrap();
        let reason = "value too long".to_owned();
        ExportOutcome::Partial(vec![RefusedRows {
            range: refused..refused + 1,
            reason,
        }])
    });
    let (first, second) = tokio::join!(p.protobuf(spans(1, 2)), p.protobuf(spans(100, 3)));
    assert_eq!(partial(&first.body), None);
    let expect = ExportTracePartialSuccess {
        rejected_spans: 1,
        error_message: "ClickHouse rejected the row (1): value too long".into(),
    };
    assert_eq!(partial(&second.body), Some(expect));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unavailable_store_is_retryable_everywhere() {
    let p = start(Config {
        retry_after: Duration::from_millis(1500),
        ..quick()
    });
    p.store
        .behave(|_| ExportOutcome::Unavailable("ClickHouse is away".into()));
    let answer = p.protobuf(spans(1, 1)).await;
    let told = status(&answer);
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("2"))
    );
    assert!(told.has_retry_info() && told.code == UNAVAILABLE);
    assert_eq!(told.message, "ClickHouse is away");
    let answer = p.export(&spans(1, 1)).await;
    assert_eq!(answer.grpc_status(), UNAVAILABLE);
    assert_eq!(answer.header("grpc-message"), Some("ClickHouse is away"));
    assert!(answer.header("grpc-status-details-bin").is_some());
    // The same bytes are not taken for a repeat once the store is back.
    p.store.behave(|_| ExportOutcome::Stored);
    assert_eq!(p.protobuf(spans(1, 1)).await.status, 200);
    assert_eq!(p.store.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn cors() {
    let mut config = quick();
    config.cors.allowed_origins = vec!["https://shop.example.com".into()];
    config.cors.allowed_headers = vec!["X-Trace".into()];
    let p = start(config);
    let preflight = [
        ("origin", "https://shop.example.com"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type,x-trace"),
    ];
    let answer = request(p.http, Method::OPTIONS, "/v1/traces", &preflight, "").await;
    assert_eq!(answer.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", "https://shop.example.com"),
        ("access-control-allow-methods", "POST"),
        (
            "access-control-allow-headers",
            "content-type, content-encoding, x-trace",
        ),
        ("access-control-max-age", "7200"),
        ("vary", "origin"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    let from = |origin| [PROTOBUF, ("origin", origin)];
    let answer = p.post(&from("https://shop.example.com"), spans(1, 1)).await;
    let allowed = answer.header("access-control-allow-origin");
    assert_eq!(
        (answer.status, allowed),
        (200, Some("https://shop.example.com"))
    );
    let answer = p.post(&from("https://evil.example.com"), spans(2, 1)).await;
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn health() {
    let p = start(quick());
    let check = async |message: &[u8]| {
        grpc(
            p.grpc,
            "/grpc.health.v1.Health/Check",
            &[],
            framed(0, message),
        )
        .await
    };
    let answer = check(b"").await;
    assert_eq!((answer.grpc_status(), answer.message()), (0, &[8, 1][..]));
    let name = b"opentelemetry.proto.collector.trace.v1.TraceService";
    let named = [&[0x0a, name.len() as u8], &name[..]].concat();
    assert_eq!(check(&named).await.message(), [8, 1]);
    assert_eq!(check(&[0x0a, 1, b'x']).await.grpc_status(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_at_its_deadline_and_its_repeat_joins() {
    let gate = tokio::sync::Semaphore::new(0);
    let p = start_gated(quick(), Some(gate));
    let body = spans(1, 3);
    let answer = p.export_with(&[("grpc-timeout", "100m")], &body, 0).await;
    assert_eq!(answer.grpc_status(), 4);
    let (again, ()) = tokio::join!(p.export(&body), async {
        p.store.begun(1).await;
        p.store.gate.as_ref().unwrap().add_permits(1);
    });
    assert_eq!(again.grpc_status(), 0);
    assert_eq!((p.store.len(), *p.store.batches.borrow()), (3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_breaks_a_worker_is_refused_alone() {
    let p = start(Config {
        workers: 1,
        ..quick()
    });
    let mut poison = span(1);
    poison.name = "panic".into();
    assert_eq!(p.protobuf(request_of(vec![poison])).await.status, 500);
    assert_eq!(p.protobuf(spans(2, 1)).await.status, 200);
    assert_eq!(
        (p.store.len(), p.metric("spanloom_worker_panics_total")),
        (1, 1)
    );
}
