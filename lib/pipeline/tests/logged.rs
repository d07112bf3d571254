//! With a log: senders are answered when it has their spans, and what the store did not take comes from it.

#![allow(clippy::unwrap_used, clippy::expect_used)] // all of this is a test

mod common;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::*;
use spanloom_log::Options;
use spanloom_log::disk::simulated::{Faults, SimulatedDisk};
use spanloom_log::disk::{Disk, RealClock};
use spanloom_pipeline::config::{Acknowledge, Processing};
use spanloom_pipeline::durable::DurableLog;
use spanloom_pipeline::{Config, ExportOutcome, RefusedRows};
use tokio::sync::Semaphore;

fn logged(folder: &Path, options: Options) -> (Config, Arc<DurableLog>) {
    let log = DurableLog::open(folder, options).unwrap();
    let config = Config {
        acknowledge: Acknowledge::Logged(Arc::clone(&log)),
        ..quick()
    };
    (config, log)
}

fn away() -> ExportOutcome {
    ExportOutcome::Unavailable("away".to_owned())
}

/// Waits until `is_so`; the store's exports are what it waits for.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn delivered(log: &DurableLog) {
    let is_empty = || log.status().undelivered_requests == 0;
    until("the log is delivered", is_empty).await;
}

fn ids(store: &Store) -> Vec<u64> {
    let stored = store.stored.lock().unwrap();
    let mut ids: Vec<_> = stored.iter().map(|id| u64::from_be_bytes(*id)).collect();
    ids.sort_unstable();
    ids
}

/// Ends a pipeline as a kill would: what is not stored stays in the log.
async fn kill(p: Pipeline, log: Arc<DurableLog>) {
    let ended = p.server.shutdown(Duration::ZERO).await;
    assert!(ended.is_err(), "nothing was left");
    drop(p.store);
    let log = Arc::into_inner(log).expect("the pipeline has let go of its log");
    drop(log);
}

#[tokio::test(flavor = "multi_thread")]
async fn senders_are_answered_while_the_store_is_away_and_all_of_it_comes_later_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = new_store(None);
    store.behave(|_| away());
    let (config, log) = logged(folder.path(), Options::default());
    let p = start_on(config, Arc::clone(&store));
    for i in 0..20 {
        assert_eq!(p.protobuf(spans(i * 10 + 1, 10)).await.status, 200);
    }
    assert_eq!(store.len(), 0);
    assert_eq!(log.status().undelivered_requests, 20);
    store.behave(|_| ExportOutcome::Stored);
    delivered(&log).await;
    assert_eq!(ids(&store), (1..=200).collect::<Vec<_>>());
    assert_eq!(*store.measured.lock().unwrap(), 200);
    assert_eq!(p.metric("spanloom_lost_spans_total"), 0);
    p.server.shutdown(Duration::from_secs(5)).await.unwrap();
    assert_eq!(store.account("store", "stored"), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_process_delivers_what_the_last_one_left_and_knows_its_requests() {
    let folder = tempfile::tempdir().unwrap();
    let store = new_store(None);
    store.behave(|_| away());
    let (config, log) = logged(folder.path(), Options::default());
    let p = start_on(config, Arc::clone(&store));
    let bodies: Vec<_> = (0..20).map(|i| spans(i * 10 + 1, 10)).collect();
    for body in &bodies {
        assert_eq!(p.protobuf(body.clone()).await.status, 200);
    }
    store.begun(1).await;
    kill(p, log).await;

    store.behave(|_| ExportOutcome::Stored);
    let (config, log) = logged(folder.path(), Options::default());
    let p = start_on(config, Arc::clone(&store));
    for body in &bodies {
        assert_eq!(p.protobuf(body.clone()).await.status, 200);
    }
    delivered(&log).await;
    assert_eq!(ids(&store), (1..=200).collect::<Vec<_>>());
    assert_eq!(*store.measured.lock().unwrap(), 200);
    p.server.shutdown(Duration::from_secs(5)).await.unwrap();
    assert_eq!(ids(&store).len(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_answer_was_lost_is_sent_again_as_the_same_batch() {
    let folder = tempfile::tempdir().unwrap();
    let store = new_store(None);
    // It is stored, and the sender of the batch is told that it is not.
    let is_lost = Arc::new(AtomicBool::new(true));
    let (lost, seen) = (Arc::clone(&is_lost), Arc::default());
    let batches: Arc<std::sync::Mutex<Vec<Vec<[u8; 8]>>>> = seen;
    let sent = Arc::clone(&batches);
    store.behave(move |spans| {
        sent.lock().unwrap().push(spans.to_vec());
        match lost.load(Ordering::Relaxed) {
            true => away(),
            false => ExportOutcome::Stored,
        }
    });
    let (mut config, log) = logged(folder.path(), Options::default());
    config.workers = 1;
    config.batch.max_age = Duration::from_millis(50);
    let p = start_on(config, Arc::clone(&store));
    let mut answers = tokio::task::JoinSet::new();
    for i in 0..8 {
        let (http, body) = (p.http, spans(i * 10 + 1, 10));
        let headers = [("content-type", "application/x-protobuf")];
        answers.spawn(async move {
            request(http, http::Method::POST, "/v1/traces", &headers, body).await
        });
    }
    while let Some(answer) = answers.join_next().await {
        assert_eq!(answer.unwrap().status, 200);
    }
    store.begun(1).await;
    kill(p, log).await;
    let first = batches.lock().unwrap().first().unwrap().clone();

    is_lost.store(false, Ordering::Relaxed);
    batches.lock().unwrap().clear();
    let (config, log) = logged(folder.path(), Options::default());
    let p = start_on(config, Arc::clone(&store));
    delivered(&log).await;
    p.server.shutdown(Duration::from_secs(5)).await.unwrap();
    // The same rows in the same order, under one id.
    assert_eq!(batches.lock().unwrap().first().unwrap(), &first);
    assert_eq!(ids(&store), (1..=80).collect::<Vec<_>>());
    let all = store.batch_ids.lock().unwrap();
    let spans: usize = all.values().map(Vec::len).sum();
    assert_eq!(spans, 80);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sampling_left_out_is_measured_once_however_often_it_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let store = new_store(None);
    store.behave(|_| away());
    let sampled = Processing {
        head_ratio: 0.0,
        ..Processing::default()
    };
    let (mut config, log) = logged(folder.path(), Options::default());
    config.processing = sampled.clone();
    let p = start_on(config, Arc::clone(&store));
    assert_eq!(p.protobuf(spans(1, 50)).await.status, 200);
    store.begun(1).await;
    kill(p, log).await;
    store.behave(|_| ExportOutcome::Stored);
    let (mut config, log) = logged(folder.path(), Options::default());
    config.processing = sampled;
    let p = start_on(config, Arc::clone(&store));
    delivered(&log).await;
    assert_eq!((store.len(), *store.measured.lock().unwrap()), (0, 50));
    p.server.shutdown(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_log_pushes_back_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = new_store(None);
    store.behave(|_| away());
    *store.trouble.lock().unwrap() = trouble("the store's disk is full", true);
    let options = Options {
        max_bytes: 256 << 10,
        ..Options::default()
    };
    let (config, log) = logged(folder.path(), options);
    let p = start_on(config, Arc::clone(&store));
    let mut taken = HashSet::new();
    let (mut refused, mut told) = (0, 0);
    for i in 0..400 {
        let answer = p.protobuf(spans(i * 20 + 1, 20)).await;
        match answer.status {
            200 => drop(taken.insert(i)),
            503 => {
                refused += 1;
                assert!(answer.header("retry-after").is_some());
                let said = String::from_utf8_lossy(&answer.body).into_owned();
                // One that the log had no room for waits for the store itself.
                told += usize::from(said.contains("the store's disk is full"));
            }
            other => panic!("{other}"),
        }
    }
    assert!(
        refused > 50,
        "{refused} were refused, {} taken",
        taken.len()
    );
    assert!(told > refused / 2, "{told} of {refused} were told why");
    assert!(log.status().disk_bytes <= 256 << 10);
    let impairment = p.server.control().impairment().unwrap();
    assert!(
        impairment.contains("the store's disk is full"),
        "{impairment}"
    );
    *store.trouble.lock().unwrap() = None;
    store.behave(|_| ExportOutcome::Stored);
    delivered(&log).await;
    until("there is room again", || log.status().room_bytes > 16 << 10).await;
    assert_eq!(p.protobuf(spans(1_000_001, 1)).await.status, 200);
    p.server.shutdown(Duration::from_secs(5)).await.unwrap();
    let stored: HashSet<u64> = ids(&store).into_iter().collect();
    assert_eq!(stored.len(), store.len());
    for i in taken {
        assert!(
            (i * 20 + 1..=i * 20 + 20).all(|id| stored.contains(&id)),
            "request {i}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_disk_is_full_senders_are_told_to_retry_and_then_all_is_stored_once() {
    let disk = SimulatedDisk::default();
    let on: Arc<dyn Disk> = Arc::new(disk.clone());
    let log = DurableLog::open_with(Options::default(), |options| {
        let clock = Arc::new(RealClock::default());
        spanloom_log::Log::open_on(on, clock, Path::new("/log"), options)
    })
    .unwrap();
    let store = new_store(None);
    let config = Config {
        acknowledge: Acknowledge::Logged(Arc::clone(&log)),
        ..quick()
    };
    let p = start_on(config, Arc::clone(&store));
    assert_eq!(p.protobuf(spans(1, 10)).await.status, 200);
    delivered(&log).await;
    disk.set_faults(Faults {
        capacity_bytes: Some(0),
        ..Faults::default()
    });
    // The first one finds out, and has room in the reserve; the others are told.
    let begun = tokio::time::Instant::now();
    let bodies = [11, 21, 31].map(|first| spans(first, 10));
    let [first, others @ ..] = &bodies;
    assert_eq!(p.protobuf(first.clone()).await.status, 200);
    for body in others {
        let answer = p.protobuf(body.clone()).await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(answer.header("retry-after").is_some());
        assert!(answer.text().contains("disk"), "{}", answer.text());
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "told too late");
    disk.set_faults(Faults::default());
    for body in &bodies {
        // As soon as the log has tried again.
        while p.protobuf(body.clone()).await.status != 200 {
            assert!(begun.elapsed() < Duration::from_secs(20), "not taken");
        }
    }
    p.server.shutdown(Duration::from_secs(5)).await.unwrap();
    assert_eq!(ids(&store), (1..=40).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_free_while_the_store_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let store = new_store(None);
    store.behave(|_| away());
    let (mut config, log) = logged(folder.path(), Options::default());
    // A few batches' worth, with 1,000 bytes a span.
    config.memory_limit_bytes = 2_000_000;
    config.max_request_bytes = 500_000;
    config.batch.max_rows = 500;
    let p = start_on(config, Arc::clone(&store));
    for i in 0..100 {
        assert_eq!(p.protobuf(spans(i * 100 + 1, 100)).await.status, 200, "{i}");
    }
    until("exports have ended", || {
        p.server.admitted_bytes() < 1_000_000
    })
    .await;
    store.behave(|_| ExportOutcome::Stored);
    delivered(&log).await;
    p.server.shutdown(Duration::from_secs(5)).await.unwrap();
    assert_eq!(ids(&store), (1..=10_000).collect::<Vec<_>>());
}

/// Requests that arrive faster than the disk takes them wait for it: the log is not full.
#[tokio::test(flavor = "multi_thread")]
async fn large_requests_at_once_wait_for_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = new_store(None);
    let options = Options {
        // Less than two of them.
        buffer_bytes: 150_000,
        ..Options::default()
    };
    let (config, log) = logged(folder.path(), options);
    let p = Arc::new(start_on(config, Arc::clone(&store)));
    let mut senders = tokio::task::JoinSet::new();
    for i in 0..40 {
        let p = Arc::clone(&p);
        senders.spawn(async move { p.protobuf(spans(i * 100 + 1, 100)).await.status });
    }
    while let Some(status) = senders.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    delivered(&log).await;
    let p = Arc::into_inner(p).unwrap();
    p.server.shutdown(Duration::from_secs(5)).await.unwrap();
    assert_eq!(ids(&store), (1..=4_000).collect::<Vec<_>>());
}

/// While the store takes batches but does not answer, requests are acknowledged: the log has room.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_hangs_holds_no_sender_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = new_store(Some(Semaphore::new(0)));
    let (mut config, log) = logged(folder.path(), Options::default());
    config.memory_limit_bytes = 2_000_000;
    config.max_request_bytes = 500_000;
    // Fewer full batches than may be in flight are all of the memory.
    config.batch.max_bytes = 800_000;
    let p = start_on(config, Arc::clone(&store));
    // Ten times the memory, with 1,000 bytes a span.
    for i in 0..200 {
        let answer = p.protobuf(spans(i * 100 + 1, 100)).await;
        assert_eq!(answer.status, 200, "{i}");
    }
    assert_eq!(log.status().undelivered_requests, 200);
    store.gate.as_ref().unwrap().add_permits(1 << 20);
    delivered(&log).await;
    p.server.shutdown(Duration::from_secs(5)).await.unwrap();
    assert_eq!(ids(&store), (1..=20_000).collect::<Vec<_>>());
}

/// The same while more is sent than there is memory for: what waits is taken as fast as the log takes it, not a
/// request whenever a batch has waited for the store.
#[tokio::test(flavor = "multi_thread")]
async fn an_overload_is_taken_as_fast_as_the_log_takes_it() {
    const SENDERS: u64 = 32;
    const REQUESTS: u64 = 25;
    let folder = tempfile::tempdir().unwrap();
    let store = new_store(Some(Semaphore::new(0)));
    let (mut config, log) = logged(folder.path(), Options::default());
    config.memory_limit_bytes = 2_000_000;
    config.max_request_bytes = 500_000;
    let p = Arc::new(start_on(config, Arc::clone(&store)));
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..SENDERS {
        let p = Arc::clone(&p);
        senders.spawn(async move {
            for request in 0..REQUESTS {
                let body = spans((sender * REQUESTS + request) * 100 + 1, 100);
                while p.protobuf(body.clone()).await.status != 200 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        });
    }
    let all = tokio::time::timeout(Duration::from_secs(40), senders.join_all()).await;
    let taken = log.status().undelivered_requests;
    assert!(all.is_ok(), "{taken} of {} were taken", SENDERS * REQUESTS);
    store.gate.as_ref().unwrap().add_permits(1 << 20);
    delivered(&log).await;
    assert_eq!(
        ids(&store),
        (1..=SENDERS * REQUESTS * 100).collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_the_store_refuses_are_kept_aside() {
    let folder = tempfile::tempdir().unwrap();
    let store = new_store(None);
    store.behave(|_| {
        ExportOutcome::Partial(vec![RefusedRows {
            range: 1..3,
            reason: "bad".to_owned(),
        }])
    });
    let (config, log) = logged(folder.path(), Options::default());
    let p = start_on(config, Arc::clone(&store));
    assert_eq!(p.protobuf(spans(1, 5)).await.status, 200);
    until("the batch is settled", || {
        log.status().undelivered_requests == 0
    })
    .await;
    p.server.shutdown(Duration::from_secs(5)).await.unwrap();
    let report = spanloom_log::inspect(folder.path()).unwrap();
    let letters = report.dead_letters;
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].rows, &*letters[0].reason), (2, "bad"));
}

/// A request that we cannot make a batch of must not end the process, and every one that is started after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_makes_us_panic_is_kept_aside_and_others_are_stored() {
    let folder = tempfile::tempdir().unwrap();
    let store = new_store(None);
    let (mut config, log) = logged(folder.path(), Options::default());
    config.workers = 1;
    config.batch.max_rows = 3;
    config.batch.max_age = Duration::from_secs(3600);
    let p = start_on(config, Arc::clone(&store));
    let mut poisoned = span(2);
    "panic when frozen".clone_into(&mut poisoned.name);
    for body in [spans(1, 1), request_of(vec![poisoned]), spans(3, 1)] {
        assert_eq!(p.protobuf(body).await.status, 200);
    }
    until("all is settled", || log.status().undelivered_requests == 0).await;
    assert_eq!(p.server.control().broken(), None);
    p.server.shutdown(Duration::from_secs(5)).await.unwrap();
    assert_eq!(ids(&store), [1, 3]);
    let letters = spanloom_log::inspect(folder.path()).unwrap().dead_letters;
    assert_eq!(letters.len(), 1);
    assert!(letters[0].reason.contains("bug"), "{}", letters[0].reason);
}
