//! Rows that ClickHouse rejects for good are kept as dead letters, and stored once when they are replayed.

use std::net::SocketAddr;
use std::path::Path;

use http::StatusCode;
use prometheus_client::registry::Registry;
use spanloom_collector::{Collector, CollectorConfig, LogConfig, ReplayedLetters, replay_letters};
use spanloom_program::memory;

use super::{DEADLINE, Ground, PLENTY, PROTOBUF, SPANS, check_stored_once, number, post, request};

impl Ground {
    /// A collector with a log in this folder.
    async fn collector(&self, log: &Path) -> Collector {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = CollectorConfig {
            otlp_grpc: any,
            otlp_http: any,
            cors_origins: Vec::new(),
            memory: memory::Collector::of(PLENTY),
            store: self.store.clone(),
            document: self.document.clone(),
            agent: "collector-1".to_owned(),
            log: Some(LogConfig {
                folder: log.to_owned(),
                max_bytes: 64 << 20,
            }),
            sidecars: None,
        };
        let mut registry = Registry::default();
        Collector::start(config, &mut registry).await.unwrap()
    }

    /// Rows with these names are rejected from now on.
    async fn reject(&self, names: &str) {
        let drop = "ALTER TABLE spans DROP CONSTRAINT IF EXISTS good";
        let add = format!("ALTER TABLE spans ADD CONSTRAINT good CHECK name NOT IN ({names})");
        for sql in [drop, add.as_str()] {
            self.direct.query(sql).execute().await.unwrap();
        }
    }

    async fn replay(&self, log: &Path) -> ReplayedLetters {
        replay_letters(log, &self.store).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_stored_once_when_they_are_replayed() {
    let ground = Ground::with("").await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    ground.reject("'operation 1', 'operation 2'").await;
    let collector = ground.collector(&log).await;
    let body = request(0x1e77_e500, 0);
    let answer = post(collector.http_address(), PROTOBUF, body).await;
    assert_eq!(answer.status(), StatusCode::OK);
    collector.shutdown(DEADLINE).await.unwrap();
    let third = SPANS / 3;
    let spans = "SELECT count() FROM spans";
    assert_eq!(number(&ground.direct, spans).await, third);

    // A collector has the log open while its letters are replayed.
    let collector = ground.collector(&log).await;
    let before = std::fs::read(log.join("dead-letters")).unwrap();
    ground.reject("'operation 2'").await;
    let replayed = ground.replay(&log).await;
    assert_eq!(replayed.stored_spans, third, "{replayed:?}");
    assert_eq!(replayed.refused_spans, third);
    let reason = replayed.into_result().unwrap_err().to_string();
    assert!(reason.contains("good"), "{reason}");
    assert_eq!(number(&ground.direct, spans).await, 2 * third);

    // Killed after the rows were stored, and before their letters were taken out.
    std::fs::write(log.join("dead-letters"), before).unwrap();
    let replayed = ground.replay(&log).await;
    assert_eq!(
        (replayed.stored_spans, replayed.refused_spans),
        (third, third)
    );
    assert_eq!(number(&ground.direct, spans).await, 2 * third);

    // What is rejected again stays, and the collector's own letters are added to it.
    let replayed = ground.replay(&log).await;
    assert_eq!((replayed.stored_spans, replayed.refused_spans), (0, third));
    let body = request(0x0001_1e77_e500, 0);
    let answer = post(collector.http_address(), PROTOBUF, body).await;
    assert_eq!(answer.status(), StatusCode::OK);
    collector.shutdown(DEADLINE).await.unwrap();
    assert_eq!(number(&ground.direct, spans).await, 4 * third);

    ground.reject("'none'").await;
    let replayed = ground.replay(&log).await;
    assert_eq!(
        (replayed.stored_spans, replayed.refused_spans),
        (2 * third, 0)
    );
    replayed.into_result().unwrap();
    // In all tables: what was stored before is not counted again.
    check_stored_once(&ground.direct, 2 * SPANS).await;
    assert_eq!(ground.replay(&log).await, ReplayedLetters::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_stay_while_clickhouse_is_away() {
    let ground = Ground::with("").await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    ground.reject("'operation 1'").await;
    let collector = ground.collector(&log).await;
    let body = request(0x1e77_e501, 0);
    let answer = post(collector.http_address(), PROTOBUF, body).await;
    assert_eq!(answer.status(), StatusCode::OK);
    collector.shutdown(DEADLINE).await.unwrap();
    let before = std::fs::read(log.join("dead-letters")).unwrap();
    ground.proxy.set(super::Mood::Away).await;
    let replayed = ground.replay(&log).await;
    assert_eq!(replayed.left_letters, replayed.letters);
    replayed.into_result().unwrap_err();
    assert_eq!(std::fs::read(log.join("dead-letters")).unwrap(), before);
    ground.proxy.set(super::Mood::Honest).await;
    ground.reject("'none'").await;
    assert_eq!(ground.replay(&log).await.stored_spans, SPANS / 3);
}
