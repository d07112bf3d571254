//! Where spans went: whatever becomes of them, the accounts say so, once.

use std::collections::BTreeMap;

use http::StatusCode;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

use super::{DEADLINE, Mood, PLENTY, Setup, now_ns, post};

/// A request of so many spans of this name, each a trace of its own.
fn request_of(name: &str, count: usize, change: impl Fn(&mut Span)) -> Vec<u8> {
    let spans = (0..count).map(|_| {
        let mut span = Span {
            trace_id: rand::random::<[u8; 16]>().to_vec(),
            span_id: rand::random::<[u8; 8]>().to_vec(),
            name: name.to_owned(),
            start_time_unix_nano: now_ns(),
            end_time_unix_nano: now_ns() + 1_000_000,
            ..Span::default()
        };
        change(&mut span);
        span
    });
    let scope = ScopeSpans {
        spans: spans.collect(),
        ..ScopeSpans::default()
    };
    let resource_spans = vec![ResourceSpans {
        scope_spans: vec![scope],
        ..ResourceSpans::default()
    }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

const MIXED: &str = "processing: {drop: ['{ name = \"noise\" }']}, sampling: {head: {ratio: 0.5}}";

#[tokio::test]
async fn whatever_becomes_of_spans_the_accounts_sum_to_what_was_sent() {
    let setup = Setup::with(MIXED, PLENTY).await;
    let constraint = "ALTER TABLE spans ADD CONSTRAINT good CHECK name != 'refused'";
    setup.direct.query(constraint).execute().await.unwrap();
    let (mut spans, mut bytes) = (0, 0);
    let mut send = async |body: &[u8], count: usize| {
        spans += count as u64;
        bytes += body.len() as u64;
        setup.send(body).await.status()
    };
    let nothing = |_: &mut Span| {};
    for body in [
        request_of("kept or sampled away", 400, nothing),
        request_of("noise", 30, nothing),
        // As few as a bisection finds one by one.
        request_of("refused", 4, nothing),
        request_of("no id", 20, |span| span.span_id.clear()),
        request_of("old", 10, |span| span.start_time_unix_nano = 1),
    ] {
        let count = ExportTraceServiceRequest::decode(&*body).unwrap();
        let count = count.resource_spans[0].scope_spans[0].spans.len();
        assert_eq!(send(&body, count).await, StatusCode::OK);
    }
    // Not stored, and sent again: that counts twice.
    let body = request_of("late", 50, nothing);
    setup.proxy.set(Mood::Away).await;
    assert_eq!(send(&body, 50).await, StatusCode::SERVICE_UNAVAILABLE);
    setup.proxy.set(Mood::Honest).await;
    assert_eq!(send(&body, 50).await, StatusCode::OK);
    // Refused before anybody looked for spans in it.
    let unknown = vec![b'x'; 1_000];
    let address = setup.collector.http_address();
    let answer = post(address, "text/plain", unknown).await;
    assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    bytes += 1_000;

    let Setup {
        proxy,
        collector,
        direct,
        ..
    } = setup;
    // The reply to what the stop writes is lost: the accounts are sent again.
    proxy.lose_replies(1);
    collector.shutdown(DEADLINE).await.unwrap();
    assert_eq!(proxy.done(), 1);
    let sql = "SELECT concat(stage, ' ', reason), toUInt64(sum(spans)), toUInt64(sum(bytes)) \
               FROM accounts WHERE node = 'collector-1' AND agent = 'collector-1' GROUP BY 1";
    let rows: Vec<(String, u64, u64)> = direct.query(sql).fetch_all().await.unwrap();
    let total = rows
        .iter()
        .fold((0, 0), |(spans, bytes), row| (spans + row.1, bytes + row.2));
    assert_eq!(total, (spans, bytes), "{rows:?}");
    let mut by_reason: BTreeMap<_, _> = rows.iter().map(|row| (&*row.0, row.1)).collect();
    let stored: u64 = direct
        .query("SELECT count() FROM spans")
        .fetch_one()
        .await
        .unwrap();
    assert_eq!(by_reason.remove("store stored"), Some(stored));
    let sampled = by_reason.remove("sample head_sampling").unwrap();
    let refused = by_reason.remove("store refused").unwrap_or(0);
    assert_eq!(stored + sampled + refused, 400 + 4 + 50);
    assert!(stored > 0 && sampled > 0, "{rows:?}");
    let expect = [
        ("process drop", 30),
        ("process invalid_span_id", 20),
        ("process too_old", 10),
        ("receive content_type", 0),
        ("store unavailable", 50),
    ];
    assert_eq!(by_reason, BTreeMap::from(expect));
}
