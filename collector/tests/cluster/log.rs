//! A log that outlives its pod: the next one on the node has to wait for it, and then delivers it.

use std::fs;
use std::time::Duration;

use http::StatusCode;
use prometheus_client::registry::Registry;
use spanloom_collector::{Collector, LogConfig};
use spanloom_engine::testing::TestEngine;

use super::access::{await_stored, external};
use super::gate::Gate;
use super::sending::{Sender, request};
use super::{DEADLINE, ENGINE, Setup, cluster, config, until};

/// What a pod has left to drain its log, here: nothing goes out.
const SOON: Duration = Duration::from_millis(200);

#[tokio::test]
async fn the_next_pod_delivers_what_is_left_and_knows_the_repeats() {
    let engine = ENGINE.get_or_init(TestEngine::start).await;
    let gate = Gate::open(&engine.url(), "later", engine.password()).await;
    let temporary = tempfile::tempdir().unwrap();
    let setup = Setup::changed(|config| {
        config.store.password = "now".to_owned();
        config.log = Some(LogConfig {
            folder: temporary.path().join("tracing/prod/node-a"),
            max_bytes: 64 << 20,
        });
    })
    .await;
    setup.configure(&config(1, &external(&gate.url()))).await;
    setup.ready().await;
    let left = request("left", &[]);
    assert_eq!(setup.sender("127.0.0.1").send(&left).await, StatusCode::OK);
    until("the store refuses it", || gate.refused() > 0).await;

    let mut registry = Registry::default();
    let config = setup.config.clone();
    let mut start = Box::pin(Collector::start_in(
        cluster(&setup.api),
        config,
        &mut registry,
    ));
    // Long enough to find that it is in use, and to try again.
    let early = tokio::time::timeout(4 * SOON, &mut start).await;
    assert!(early.is_err(), "two have the log");
    let Setup {
        collector, direct, ..
    } = setup;
    // It ends with a log that is not stored.
    collector.shutdown(SOON).await.unwrap_err();
    let collector = start.await.unwrap();
    let setup = Setup {
        api: setup.api,
        config: setup.config,
        registry,
        collector,
        direct,
    };
    setup.ready().await;
    gate.change("now");
    await_stored(&setup, "left").await;
    // A client that had no answer sends it again.
    let again = Sender::new(setup.collector.http_address(), "127.0.0.1");
    assert_eq!(again.send(&left).await, StatusCode::OK);
    assert_eq!(again.send(&request("new", &[])).await, StatusCode::OK);
    await_stored(&setup, "left new").await;
    setup.collector.shutdown(DEADLINE).await.unwrap();
    let stored = "SELECT count() FROM spans";
    let stored: u64 = setup.direct.query(stored).fetch_one().await.unwrap();
    assert_eq!(stored, 2);
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_named() {
    let setup = Setup::new().await;
    let temporary = tempfile::tempdir().unwrap();
    let file = temporary.path().join("file");
    fs::write(&file, "").unwrap();
    let mut config = setup.config.clone();
    config.log = Some(LogConfig {
        folder: file.join("log"),
        max_bytes: 64 << 20,
    });
    let started = Collector::start_in(cluster(&setup.api), config, &mut Registry::default()).await;
    let error = started.err().unwrap().to_string();
    let expect = format!(
        "cannot open the log: cannot use {}",
        file.join("log").display()
    );
    assert!(error.starts_with(&expect), "{error}");
    assert!(
        error.contains("must be a folder that this user can write to"),
        "{error}"
    );
}
