//! A hundred writers and one ClickHouse: they share a budget of parts, and all of it can be searched.
#![allow(clippy::expect_used)] // a test stops on the first surprise

mod common;

use std::sync::Arc;
use std::time::Instant;

use common::*;
use spanloom_otlp::record::{SpanKind, SpanSink, StatusCode};
use spanloom_store::block::{RedRow, SpanBlock, TableId};
use spanloom_store::pace::{self, PARTS_PER_SECOND};
use spanloom_store::{WriteOutcome, Writer};
use tokio::task::JoinSet;

const WRITERS: u32 = 100;
/// Batches of each writer, and the spans in each.
const BATCHES: u32 = 2;
const SPANS: u64 = 20;

/// A writer's batch: spans with ids of its own.
fn batch(block: &mut SpanBlock, first: u64) {
    resource(block, "shop");
    for number in first..first + SPANS {
        block.span(&span(number));
    }
    block.measures().push_red(&RedRow {
        minute: (T0 / SECOND) as u32,
        service: "shop",
        name: "GET /things",
        kind: SpanKind::Server,
        status: StatusCode::Unset,
        count: SPANS,
        duration_sum_ns: 1,
        duration_min_ns: 0,
        duration_max_ns: 1,
        buckets: &[(4, SPANS)],
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_writers_stay_within_their_budget_of_parts() {
    let db = Arc::new(database().await);
    let parts = "SELECT sum(value) FROM system.events WHERE event = 'MergeTreeDataWriterBlocks'";
    let count = async || db.text(parts).await.parse::<u64>().expect("a number");
    let before = count().await;
    let begun = Instant::now();
    let every = pace::share(WRITERS);
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let writer = Writer::new(db.writer_config());
        writers.spawn(async move {
            let mut block = SpanBlock::new(&pool());
            let mut next = tokio::time::Instant::now() + every * number / WRITERS;
            for round in 0..BATCHES {
                tokio::time::sleep_until(next).await;
                next += every;
                let first = u64::from(number * BATCHES + round) * SPANS + 1;
                batch(&mut block, first);
                assert_eq!(writer.write(block.freeze()).await, WriteOutcome::Stored);
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.expect("no writer panics");
    }
    let seconds = begun.elapsed().as_secs_f64();
    let made = count().await - before;
    // Each batch is a part of each table, but for those that it has nothing for.
    let batches = u64::from(WRITERS * BATCHES);
    assert!(made >= 3 * batches, "{made}");
    assert!(made <= TableId::ALL.len() as u64 * batches, "{made}");
    let per_second = made as f64 / seconds;
    assert!(
        per_second <= f64::from(PARTS_PER_SECOND) * 1.05,
        "{per_second} parts a second"
    );
    let all = batches * SPANS;
    let stored = "SELECT count(), uniqExact(span_id), (SELECT sum(count) FROM red), \
                  (SELECT sum(count) FROM red_hours) FROM spans";
    assert_eq!(db.text(stored).await, format!("{all}\t{all}\t{all}\t{all}"));
}
