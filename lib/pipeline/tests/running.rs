//! The pipeline as a whole: overload, repeats, batches, connections, start and stop.

#![allow(clippy::unwrap_used, clippy::expect_used)] // all of this is a test

mod common;

use std::time::Duration;

use common::*;
use prometheus_client::registry::Registry;
use spanloom_pipeline::config::{Listener, Processing};
use spanloom_pipeline::{Config, Server};
use spanloom_rules::{RuleSet, ValuePattern};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const HEALTH: &str = "/grpc.health.v1.Health/Check";

#[tokio::test(flavor = "multi_thread")]
async fn overload_is_refused_retryably_and_within_the_limit() {
    const LIMIT: usize = 300_000;
    let config = Config {
        memory_limit_bytes: LIMIT,
        max_request_bytes: 100_000,
        ..quick()
    };
    let p = std::sync::Arc::new(start_gated(config, Some(Semaphore::new(0))));
    let mut requests = JoinSet::new();
    for i in 0..60u64 {
        let p = std::sync::Arc::clone(&p);
        requests.spawn(async move {
            let body = spans(i * 1000 + 1, 300);
            if i % 2 == 0 {
                let answer = p.protobuf(body).await;
                if answer.status != 200 {
                    assert!([429, 503].contains(&answer.status), "{}", answer.status);
                    assert!(answer.header("retry-after").is_some());
                }
                answer.status == 200
            } else {
                let answer = p.export(&body).await;
                if answer.grpc_status() != 0 {
                    assert_eq!(answer.grpc_status(), 14);
                    assert!(answer.header("grpc-status-details-bin").is_some());
                }
                answer.grpc_status() == 0
            }
        });
    }
    // Until one has shown what it needs, requests are let in by an estimate of three times their
    // size; this store needs 1,000 bytes a span. So what is held may pass the limit by a few.
    let let_in = LIMIT / (3 * spans(1, 300).len()) + 1;
    let most = LIMIT.max(let_in * 300 * 1000);
    // Nothing is stored yet, so those that end now were refused, at once.
    let mut refused = 0;
    while refused < 40 {
        assert!(!requests.join_next().await.unwrap().unwrap());
        refused += 1;
        let held = p.server.admitted_bytes();
        assert!(held <= most, "{held} of {most}");
    }
    p.store.gate.as_ref().unwrap().add_permits(1000);
    let mut stored = 0;
    while let Some(answer) = requests.join_next().await {
        stored += usize::from(answer.unwrap());
    }
    assert!(stored >= 1, "nothing was let in");
    assert_eq!(p.store.len(), stored * 300);
    assert_eq!(p.server.admitted_bytes(), 0);
    // Once there is room again, anyone is let in.
    assert_eq!(p.protobuf(spans(1_000_000, 10)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_outlives_any_number_of_refusals() {
    let config = Config {
        memory_limit_bytes: 250_000,
        max_request_bytes: 600_000,
        ..quick()
    };
    let p = start_gated(config, Some(Semaphore::new(0)));
    let refused = async {
        p.store.begun(1).await;
        assert!(
            p.server.admitted_bytes() >= 250_000,
            "the first request fills the memory"
        );
        let client = grpc_client(p.grpc).await;
        // Longer than what may be sent of it before it is refused, and in pieces: some of it comes
        // after the answer has gone.
        let body = bytes::Bytes::from(framed(0, &[0; 400_000]));
        let mut calls = JoinSet::new();
        for i in 0..2500 {
            let (mut client, body) = (client.clone(), body.clone());
            calls.spawn(async move {
                grpc_call(&mut client, TRACES, &[], body)
                    .await
                    .grpc_status()
            });
            if i >= 50 {
                assert_eq!(calls.join_next().await.unwrap().unwrap(), 14);
            }
        }
        while let Some(status) = calls.join_next().await {
            assert_eq!(status.unwrap(), 14);
        }
        p.store.gate.as_ref().unwrap().add_permits(1);
    };
    let (first, ()) = tokio::join!(p.protobuf(spans(1, 400)), refused);
    assert_eq!((first.status, p.server.admitted_bytes()), (200, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_while_the_first_is_being_stored_joins_it() {
    let p = start_gated(quick(), Some(Semaphore::new(0)));
    let body = spans(1, 5);
    let release = async {
        p.store.begun(1).await;
        while p.metric("spanloom_receiver_repeats_total") < 2 {
            tokio::task::yield_now().await;
        }
        p.store.gate.as_ref().unwrap().add_permits(1);
    };
    let (first, second, third, ()) = tokio::join!(
        p.protobuf(body.clone()),
        p.export(&body),
        p.protobuf(body.clone()),
        release
    );
    assert_eq!(
        (first.status, second.grpc_status(), third.status),
        (200, 0, 200)
    );
    assert_eq!((p.store.len(), *p.store.batches.borrow()), (5, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_went_away_finds_its_spans_stored() {
    let p = start_gated(quick(), Some(Semaphore::new(0)));
    let body = spans(1, 5);
    let mut stream = TcpStream::connect(p.http).await.unwrap();
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream
        .write_all(&[head.as_bytes(), &body].concat())
        .await
        .unwrap();
    p.store.begun(1).await;
    drop(stream);
    p.store.gate.as_ref().unwrap().add_permits(1);
    assert_eq!(p.protobuf(body).await.status, 200);
    assert_eq!(p.store.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_share_a_batch() {
    let mut config = Config {
        workers: 1,
        ..quick()
    };
    config.batch.max_age = Duration::from_secs(3600);
    config.batch.max_rows = 40;
    let p = start(config);
    let requests = (0..4u64).map(|i| p.protobuf(spans(i * 100 + 1, 10)));
    let mut answered = 0;
    for answer in futures_util::future::join_all(requests).await {
        answered += usize::from(answer.status == 200);
    }
    assert_eq!(
        (answered, p.store.len(), *p.store.batches.borrow()),
        (4, 40, 1)
    );
    assert_eq!(*p.store.measured.lock().unwrap(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_worker_does_not_wait_for_the_age() {
    let mut config = Config {
        workers: 1,
        ..quick()
    };
    config.batch.max_age = Duration::from_secs(3600);
    config.batch.early_rows = 10;
    let p = start(config);
    assert_eq!(p.protobuf(spans(1, 10)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_answers_what_was_received() {
    let mut config = quick();
    config.batch.max_age = Duration::from_millis(100);
    let p = start(config);
    let mut client = grpc_client(p.grpc).await;
    let (grpc, http) = (p.grpc, p.http);
    let call = tokio::spawn(async move {
        grpc_call(&mut client, TRACES, &[], framed(0, &spans(1, 7)))
            .await
            .grpc_status()
    });
    let store = p.store.clone();
    while p.metric("spanloom_remembered_requests") == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(p.server.shutdown(Duration::from_secs(20)).await, Ok(()));
    assert_eq!((call.await.unwrap(), store.len()), (0, 7));
    for address in [grpc, http] {
        assert!(
            TcpStream::connect(address).await.is_err(),
            "it no longer listens"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_at_the_deadline() {
    let p = start_gated(quick(), Some(Semaphore::new(0)));
    let address = p.http;
    let request = tokio::spawn(async move {
        let headers = [("content-type", "application/x-protobuf")];
        request(
            address,
            http::Method::POST,
            "/v1/traces",
            &headers,
            spans(1, 7),
        )
        .await
    });
    p.store.begun(1).await;
    assert!(p.server.shutdown(Duration::from_millis(100)).await.is_err());
    assert_eq!(request.await.unwrap().status, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_port_is_named() {
    let p = start(quick());
    let config = Config {
        listeners: vec![Listener::grpc(p.grpc)],
        ..Config::default()
    };
    let export = FakeExport(p.store.clone());
    let result = Server::start(config, FakeBatch::default, export, &mut Registry::default());
    let error = result.err().unwrap().to_string();
    assert!(
        error.contains(&p.grpc.to_string()) && error.contains("in use"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_change_while_running() {
    let p = start(quick());
    assert_eq!(p.protobuf(spans(1, 1)).await.status, 200);
    let retention = Duration::ZERO;
    p.server
        .set_processing(&Processing {
            retention,
            ..Processing::default()
        })
        .unwrap();
    let mut old = span(2);
    old.start_time_unix_nano -= 1_000_000_000;
    assert!(!p.protobuf(request_of(vec![old])).await.body.is_empty());
    assert_eq!(p.store.len(), 1);
    let bad = RuleSet {
        redact_values: vec![ValuePattern::of("(")],
        ..RuleSet::default()
    };
    assert!(
        p.server
            .set_processing(&Processing {
                rules: bad,
                ..Default::default()
            })
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_limited_in_number_age_and_silence() {
    let mut config = quick();
    config.connections.max = 1;
    config.connections.header_timeout = Duration::from_millis(300);
    let p = start(config);
    let mut silent = TcpStream::connect(p.grpc).await.unwrap();
    while p.metric("spanloom_receiver_connections ") == 0 {
        tokio::task::yield_now().await;
    }
    let mut surplus = TcpStream::connect(p.grpc).await.unwrap();
    assert_eq!(
        surplus.read(&mut [0]).await.unwrap_or(0),
        0,
        "closed at once"
    );
    assert_eq!(p.metric("spanloom_receiver_connections_refused_total"), 1);
    // What the server says first is its HTTP/2 settings; then it waits in vain.
    let mut rest = Vec::new();
    let _ = silent.read_to_end(&mut rest).await;
    let mut config = quick();
    config.connections.max_age = Some(Duration::from_millis(50));
    let p = start(config);
    let mut client = grpc_client(p.grpc).await;
    assert_eq!(
        grpc_call(&mut client, TRACES, &[], framed(0, b""))
            .await
            .grpc_status(),
        0
    );
    let closed = async {
        while client.ready().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), closed)
        .await
        .expect("it was closed for its age");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_is_refused_until_there_are_rules() {
    let p = start(Config {
        hold: true,
        ..quick()
    });
    let answer = p.protobuf(spans(1, 1)).await;
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
    assert_eq!(p.export(&spans(1, 1)).await.grpc_status(), 14);
    let health = grpc(p.grpc, HEALTH, &[], framed(0, b"")).await;
    assert_eq!(health.message(), [0x08, 2]);
    p.server.set_processing(&Processing::default()).unwrap();
    // The same bytes: what was refused is not remembered.
    assert_eq!(p.protobuf(spans(1, 1)).await.status, 200);
    assert_eq!(p.store.len(), 1);
    let health = grpc(p.grpc, HEALTH, &[], framed(0, b"")).await;
    assert_eq!(health.message(), [0x08, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_sends_clients_away_and_serves_whoever_comes() {
    let p = start(quick());
    let mut client = grpc_client(p.grpc).await;
    let call = |id| framed(0, &spans(id, 1));
    assert_eq!(
        grpc_call(&mut client, TRACES, &[], call(1))
            .await
            .grpc_status(),
        0
    );
    assert_eq!(p.protobuf(spans(2, 1)).await.header("connection"), None);
    p.server.leave();
    let told = async {
        while client.ready().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), told)
        .await
        .expect("the client is told with GOAWAY");
    // Whoever has not heard of it, and comes after it, is served.
    let mut newcomer = grpc_client(p.grpc).await;
    for id in 3..6 {
        let answer = grpc_call(&mut newcomer, TRACES, &[], call(id)).await;
        assert_eq!(answer.grpc_status(), 0);
    }
    let answer = p.protobuf(spans(6, 1)).await;
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    let health = grpc(p.grpc, HEALTH, &[], framed(0, b"")).await;
    assert_eq!(health.message(), [0x08, 2]);
    assert_eq!(p.store.len(), 6);
}

fn named(id: u64, name: &str) -> Vec<u8> {
    let mut span = span(id);
    name.clone_into(&mut span.name);
    request_of(vec![span])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_anywhere_is_answered_and_counted_and_the_worker_goes_on() {
    let p = start(Config {
        workers: 1,
        ..quick()
    });
    let panics = || p.metric("spanloom_worker_panics_total");
    assert_eq!(p.protobuf(named(1, "panic")).await.status, 500);
    assert_eq!(panics(), 1);
    assert_eq!(p.protobuf(named(2, "panic when sealed")).await.status, 500);
    assert_eq!(panics(), 2);
    assert_eq!(p.protobuf(named(3, "panic when frozen")).await.status, 500);
    assert_eq!(panics(), 3);
    p.store.behave(|_| panic!("as the test asked"));
    assert_eq!(p.protobuf(spans(3, 1)).await.status, 503);
    assert_eq!(panics(), 4);
    p.store.behave(|_| spanloom_pipeline::ExportOutcome::Stored);
    assert_eq!(p.protobuf(spans(3, 1)).await.status, 200);
    assert_eq!((p.store.len(), p.server.admitted_bytes()), (1, 0));
    assert_eq!(p.server.control().broken(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn others_in_a_batch_that_cannot_be_frozen_are_told_to_retry() {
    let mut config = Config {
        workers: 1,
        ..quick()
    };
    config.batch.max_age = Duration::from_secs(3600);
    config.batch.max_rows = 2;
    let p = start(config);
    let (poisoned, other) = tokio::join!(
        p.protobuf(named(1, "panic when frozen")),
        p.protobuf(spans(2, 1))
    );
    assert_eq!((poisoned.status, other.status), (503, 503));
    let (second, third) = tokio::join!(p.protobuf(spans(2, 1)), p.protobuf(spans(3, 1)));
    assert_eq!((second.status, third.status, p.store.len()), (200, 200, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_is_told_soon_what_keeps_its_spans_from_being_stored() {
    let mut config = quick();
    config.connections.impaired_answer_timeout = Duration::from_millis(50);
    let p = start_gated(config, Some(Semaphore::new(0)));
    *p.store.trouble.lock().unwrap() = trouble("the store's disk is full", true);
    let body = spans(1, 10);
    // Its repeat waits for the same outcome.
    for _ in 0..2 {
        let answer = p.protobuf(body.clone()).await;
        assert_eq!(answer.status, 503);
        assert!(answer.header("retry-after").is_some());
        let said = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(said.contains("the store's disk is full"), "{said}");
    }
    let grpc = p.export(&body).await;
    assert_eq!(grpc.grpc_status(), 14);
    // One that passes is waited for.
    *p.store.trouble.lock().unwrap() = trouble("the store cannot be reached", false);
    let soon = Duration::from_secs(3);
    let waiting = tokio::time::timeout(soon, p.protobuf(body.clone())).await;
    assert!(waiting.is_err(), "it was answered");
    p.store.gate.as_ref().unwrap().add_permits(1000);
    assert_eq!(p.protobuf(body).await.status, 200);
    p.server.shutdown(Duration::from_secs(5)).await.unwrap();
    assert_eq!(p.store.len(), 10);
}
