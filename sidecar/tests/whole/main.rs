//! The sidecar's program and a real collector, with TLS, tokens and the embedded ClickHouse; the API server is one
//! of the tests' own.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test stops on the first surprise

#[path = "../../../collector/tests/cluster/api.rs"]
#[allow(dead_code)] // The collector's tests break it.
mod api;
mod app;
mod identity;
#[path = "../../../collector/tests/cluster/objects.rs"]
mod objects;
mod rig;
mod tokens;

use futures_util as _; // of the API server
use http::StatusCode;
use prost::Message;

use app::{PROTOBUF, grpc, post, request};
use objects::config;
use rig::{DEADLINE, Rig, free_port, is_listening, until};

const REDACT: &str = "processing: {redact: [{keys: [password]}]}";
const STORED: &str = "SELECT count() FROM spans";
const MEASURED: &str = "SELECT toUInt64(sum(count)) FROM red";

fn unix_now() -> u64 {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// Waits until the sidecar has applied the configuration in force.
async fn applied(rig: &Rig) {
    until("the sidecar has applied the configuration", async || {
        rig.metric("spanloom_sidecars_connected") == Some(1.0)
            && rig.metric("spanloom_sidecars_outdated") == Some(0.0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_span_is_redacted_however_it_is_sent_and_signed_with_the_pod() {
    // No stream yet: what is inlined counts from the first span on.
    let mut rig = Rig::new(REDACT).await;
    rig.stop_collector().await;
    let sidecar = rig.sidecar(REDACT).await;
    let [one, two] = sidecar.ports;
    for port in [one, two] {
        assert_eq!(grpc(port, &request(&["by gRPC"])).await, "0");
        for path in ["/v1/traces", "/"] {
            let body = request(&["by HTTP"]).encode_to_vec();
            assert_eq!(
                post(port, path, PROTOBUF, body).await,
                Some(StatusCode::OK),
                "{path}"
            );
        }
    }
    let json = r#"{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "5b8efff798038103d269b633813fc60c",
        "spanId": "eee19b7ec3c1b174", "name": "in JSON", "kind": 2, "startTimeUnixNano": "NOW", "endTimeUnixNano": "NOW",
        "attributes": [{"key": "password", "value": {"stringValue": "hunter2"}}]}]}]}]}"#;
    let json = json.replace("NOW", &format!("{}000000000", unix_now()));
    let answer = post(one, "/", "application/json", json.into_bytes()).await;
    assert_eq!(answer, Some(StatusCode::OK));
    let other = post(one, "/v1/metrics", PROTOBUF, Vec::new()).await;
    assert_eq!(other, Some(StatusCode::NOT_FOUND));

    rig.start_collector().await;
    rig.reaches(STORED, 7).await;
    rig.reaches(MEASURED, 7).await;
    let hidden = "SELECT count() FROM otel_traces WHERE toString(SpanAttributes) LIKE '%hunter2%'";
    assert_eq!(rig.number(hidden).await, 0);
    let starred = "SELECT count() FROM otel_traces WHERE toString(SpanAttributes) LIKE '%***%'";
    assert_eq!(rig.number(starred).await, 7);
    let resource = rig
        .text("SELECT toString(resource) FROM spans WHERE name = 'by gRPC' LIMIT 1")
        .await;
    // What the app says of itself in terms of Kubernetes does not count; what the API server says does.
    for (known, is_there) in [
        ("web-1", true),
        ("uid-of-web-1", true),
        ("web-abc12", true),
        ("node-a", true),
        ("somebody-else", false),
        ("never", false),
    ] {
        assert_eq!(resource.contains(known), is_there, "{known}: {resource}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_reaches_the_next_span_by_the_stream() {
    let rig = Rig::new("").await;
    let mut sidecar = rig.sidecar("").await;
    applied(&rig).await;
    let [port, _] = sidecar.ports;
    assert_eq!(grpc(port, &request(&["before"])).await, "0");
    rig.reaches(STORED, 1).await;
    let begun = std::time::Instant::now();
    rig.put_config(&config(
        2,
        "processing: {redact: [{keys: [card]}]}, sampling: {head: {ratio: 1}}",
    ));
    until("it is in force", async || {
        let (collector, _) = rig.collector.as_ref().unwrap();
        collector.status()().config.generation == Some(2)
    })
    .await;
    // From here on: by the sidecar, or by the collector while the sidecar has not applied it.
    assert_eq!(grpc(port, &request(&["after"])).await, "0");
    applied(&rig).await;
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    rig.reaches(STORED, 2).await;
    let has = |name| {
        format!(
            "SELECT count() FROM otel_traces WHERE SpanName = '{name}' AND toString(SpanAttributes) LIKE '%4111%'"
        )
    };
    assert_eq!(rig.number(&has("before")).await, 1);
    assert_eq!(rig.number(&has("after")).await, 0);
    rig.reaches(MEASURED, 2).await;
    assert!(sidecar.is_running());

    // A restarted container begins with what the stream brought, not with what was inlined.
    let ports = sidecar.ports;
    sidecar.terminate().await;
    let again = rig.sidecar_on("sampling: {head: {ratio: 0}}", ports);
    until("it listens", async || is_listening(ports[0]).await).await;
    until("it takes spans", async || {
        grpc(ports[0], &request(&["again"])).await == "0"
    })
    .await;
    rig.reaches(STORED, 3).await;
    drop(again);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_restarts_loses_nothing() {
    let mut rig = Rig::new("").await;
    let sidecar = rig.sidecar("").await;
    applied(&rig).await;
    let [port, _] = sidecar.ports;
    let send = async |from: usize| {
        for number in from..from + 20 {
            let name = format!("operation {number}");
            assert_eq!(grpc(port, &request(&[name.as_str(); 25])).await, "0");
        }
    };
    send(0).await;
    rig.stop_collector().await;
    send(20).await;
    rig.start_collector().await;
    send(40).await;
    rig.reaches("SELECT uniqExact(span_id) FROM spans", 1500)
        .await;
    // Nothing twice either: what was repeated is recognised.
    rig.reaches(STORED, 1500).await;
    rig.reaches(MEASURED, 1500).await;
    until("nothing waits", async || {
        sidecar.metric("spanloom_sidecar_buffered_bytes").await == Some(0.0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_has_is_forwarded_before_it_ends() {
    let mut rig = Rig::new("").await;
    let mut sidecar = rig.sidecar("").await;
    applied(&rig).await;
    rig.stop_collector().await;
    assert_eq!(grpc(sidecar.ports[0], &request(&["last"; 100])).await, "0");
    let (ended, ()) = tokio::join!(sidecar.terminate(), rig.start_collector());
    let () = ended;
    rig.reaches(STORED, 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_ends_nothing_and_is_had_when_it_is_free() {
    let rig = Rig::new("").await;
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let ports = [holder.local_addr().unwrap().port(), free_port()];
    let mut sidecar = rig.sidecar_on("", ports);
    until("the free port is served", async || {
        is_listening(ports[1]).await
    })
    .await;
    until("failures are counted", async || {
        let failures = sidecar
            .metric("spanloom_receiver_bind_failures_total")
            .await;
        failures.is_some_and(|failures| failures >= 1.0)
    })
    .await;
    assert_eq!(grpc(ports[1], &request(&["one"])).await, "0");
    assert!(sidecar.is_running());
    drop(holder);
    until("the other one is served", async || {
        is_listening(ports[0]).await
    })
    .await;
    assert_eq!(grpc(ports[0], &request(&["two"])).await, "0");
    rig.reaches(STORED, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sampled_away_counts_all_the_same() {
    let spec = "sampling: {head: {ratio: 0.01}}";
    let rig = Rig::new(spec).await;
    let sidecar = rig.sidecar(spec).await;
    applied(&rig).await;
    for _ in 0..20 {
        assert_eq!(
            grpc(sidecar.ports[0], &request(&["sampled"; 100])).await,
            "0"
        );
    }
    // As at ratio 1: each span in a cell and a bucket, and each is one side of a call.
    rig.reaches(MEASURED, 2000).await;
    rig.reaches(
        "SELECT toUInt64(sum(arraySum(mapValues(buckets)))) FROM red",
        2000,
    )
    .await;
    rig.reaches("SELECT count() FROM half_edges", 2000).await;
    let accounted = "SELECT assumeNotNull(toUInt64((SELECT sum(spans) FROM accounts WHERE stage = 'sample' \
                     AND agent = 'web-1') + (SELECT count() FROM spans)))";
    rig.reaches(accounted, 2000).await;
    let stored = rig.number(STORED).await;
    // The mean is 20, and the deviation 4.5.
    assert!(stored < 60, "{stored}");
    let sampled =
        "SELECT toUInt64(sum(spans)) FROM accounts WHERE stage = 'sample' AND agent = 'web-1'";
    rig.reaches(sampled, 2000 - stored).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_buffer_pushes_back_and_takes_spans_again_later() {
    let mut rig = Rig::new("").await;
    let sidecar = rig.sidecar("").await;
    applied(&rig).await;
    rig.stop_collector().await;
    let mut accepted = 0;
    let begun = std::time::Instant::now();
    // Names that cannot be compressed.
    loop {
        let names: Vec<String> = (0..100)
            .map(|_| {
                (0..64)
                    .map(|_| format!("{:02x}", rand::random::<u8>()))
                    .collect()
            })
            .collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let body = request(&names).encode_to_vec();
        match post(sidecar.ports[1], "/v1/traces", PROTOBUF, body)
            .await
            .unwrap()
        {
            StatusCode::OK => accepted += 100,
            status => {
                assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
                break;
            }
        }
        assert!(begun.elapsed() < DEADLINE, "{accepted} spans fit");
    }
    assert!(accepted > 5_000, "{accepted}");
    rig.start_collector().await;
    rig.reaches(STORED, accepted).await;
    assert_eq!(grpc(sidecar.ports[0], &request(&["later"])).await, "0");
    rig.reaches(STORED, accepted + 1).await;
}
