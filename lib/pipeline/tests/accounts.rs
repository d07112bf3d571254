//! The accounts of where spans went, as they reach the store; and answers that come before it.

#![allow(clippy::unwrap_used, clippy::expect_used)] // all of this is a test

mod common;

use std::time::Duration;

use common::*;
use spanloom_pipeline::config::{AccountsConfig, Acknowledge, Processing};
use spanloom_pipeline::{Config, ExportOutcome, RefusedRows};
use tokio::sync::Semaphore;

/// Accounts that are written soon.
fn soon() -> Config {
    Config {
        accounts: AccountsConfig {
            node: "node-a".to_owned(),
            agent: "collector-1".to_owned(),
            age: Duration::from_millis(50),
        },
        ..quick()
    }
}

/// Waits until the accounts that are stored say so.
async fn until(p: &Pipeline, what: &str, mut done: impl FnMut() -> bool) {
    let waited = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), waited).await;
    assert!(
        waited.is_ok(),
        "{what}: {:?}",
        p.store.accounts.lock().unwrap()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_written_though_no_spans_follow() {
    let p = start(soon());
    assert_eq!(p.protobuf(spans(1, 5)).await.status, 200);
    until(&p, "stored", || p.store.account("store", "stored") == 5).await;
    let rows = p.store.accounts.lock().unwrap().clone();
    assert_eq!((&*rows[0].node, &*rows[0].agent), ("node-a", "collector-1"));
    assert_eq!(rows[0].bytes, spans(1, 5).len() as u64);
    // What was written is not written again.
    assert_eq!(p.server.shutdown(Duration::from_secs(20)).await, Ok(()));
    assert_eq!(p.store.account("store", "stored"), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_writes_what_the_last_batches_left() {
    let mut config = soon();
    config.accounts.age = Duration::from_secs(3600);
    let p = start(config);
    assert_eq!(p.protobuf(spans(1, 5)).await.status, 200);
    assert_eq!(p.store.account("store", "stored"), 0);
    assert_eq!(p.server.shutdown(Duration::from_secs(20)).await, Ok(()));
    assert_eq!(p.store.account("store", "stored"), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_span_is_in_the_accounts_once_whatever_became_of_it() {
    let p = start(Config {
        max_request_bytes: 100_000,
        ..soon()
    });
    p.server
        .set_processing(&Processing {
            head_ratio: 0.5,
            ..Processing::default()
        })
        .unwrap();
    let mut sent = 0;
    // The store is away now and then, and refuses a row of each batch.
    let calls = std::sync::atomic::AtomicUsize::new(0);
    p.store.behave(move |rows| {
        let call = calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if call % 3 == 1 {
            return ExportOutcome::Unavailable("away".to_owned());
        }
        match rows.is_empty() {
            true => ExportOutcome::Stored,
            false => ExportOutcome::Partial(vec![RefusedRows {
                range: 0..1,
                reason: "bad".to_owned(),
            }]),
        }
    });
    for n in 0..20u64 {
        let mut batch: Vec<_> = (1..=10).map(|id| span(n * 100 + id)).collect();
        for span in &mut batch {
            span.trace_id = rand::random::<[u8; 16]>().to_vec();
        }
        batch[0].trace_id.clear();
        batch[1].start_time_unix_nano = 1;
        let body = request_of(batch);
        loop {
            sent += 10;
            match p.protobuf(body.clone()).await.status {
                200 => break,
                status => assert_eq!(status, 503),
            }
        }
    }
    assert_eq!(p.protobuf(vec![0; 100_001]).await.status, 413);
    assert_eq!(
        p.export_with(&[("grpc-encoding", "br")], b"x", 0)
            .await
            .grpc_status(),
        12
    );
    let store = p.store.clone();
    store.behave(|_| ExportOutcome::Stored);
    assert_eq!(p.server.shutdown(Duration::from_secs(20)).await, Ok(()));
    let all: u64 = store
        .accounts
        .lock()
        .unwrap()
        .iter()
        .map(|row| row.spans)
        .sum();
    assert_eq!(all, sent, "{:?}", store.accounts.lock().unwrap());
    for (stage, reason, expect) in [
        ("process", "invalid_trace_id", 20),
        ("process", "too_old", 20),
    ] {
        assert_eq!(store.account(stage, reason), expect, "{reason}");
    }
    for (stage, reason) in [
        ("sample", "head_sampling"),
        ("store", "stored"),
        ("store", "refused"),
        ("store", "unavailable"),
    ] {
        assert!(store.account(stage, reason) > 0, "{reason}");
    }
    let rows = store.accounts.lock().unwrap();
    let refusals = rows.iter().filter(|row| row.stage == "receive");
    let mut refusals: Vec<_> = refusals.map(|row| (&*row.reason, row.bytes)).collect();
    refusals.sort_unstable();
    assert_eq!(refusals, [("encoding", 6), ("too_large", 100_000)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_memory_answers_do_not_wait_for_the_store_and_losses_are_counted() {
    let config = Config {
        acknowledge: Acknowledge::InMemory,
        ..soon()
    };
    let p = start_gated(config, Some(Semaphore::new(0)));
    assert_eq!(p.protobuf(spans(1, 5)).await.status, 200);
    assert_eq!(p.store.len(), 0);
    assert!(p.server.admitted_bytes() > 0, "the memory is still in use");
    p.store.behave(|rows| match rows.is_empty() {
        true => ExportOutcome::Stored,
        false => ExportOutcome::Unavailable("away".to_owned()),
    });
    p.store.gate.as_ref().unwrap().add_permits(1000);
    until(&p, "lost", || p.store.account("store", "lost") == 5).await;
    assert_eq!(
        p.metric(r#"spanloom_lost_spans_total{reason="unavailable"}"#),
        5
    );
    assert_eq!(p.server.admitted_bytes(), 0);
}
