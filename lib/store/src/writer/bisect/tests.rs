//! Batches that are cut, given up half way by a process that dies, and made again by the next one.

use std::collections::BTreeMap;
use std::sync::Arc;

use spanloom_otlp::record::{
    Attr, ResourceRecord, ScopeRecord, SpanKind, SpanRecord, SpanSink, StatusCode, Value,
};

use super::*;
use crate::block::{BatchId, BlockPool, BlockPoolOptions, SpanBlock};

const SPANS: usize = 40;

fn pool() -> Arc<BlockPool> {
    BlockPool::new(BlockPoolOptions::default())
}

/// Spans that are known by their numbers.
fn fill(block: &mut SpanBlock, spans: impl Iterator<Item = usize>) {
    block.resource(&ResourceRecord {
        service: "shop",
        attributes: &[],
        dropped_attributes_count: 0,
        schema_url: "",
    });
    block.scope(&ScopeRecord {
        name: "",
        version: "",
        attributes: &[],
        dropped_attributes_count: 0,
        schema_url: "",
    });
    for n in spans {
        let text = n.to_string();
        let attributes = [Attr {
            key: "n",
            value: Value::Str(&text),
        }];
        block.span(&SpanRecord {
            trace_id: [n as u8 + 1; 16],
            span_id: [n as u8 + 1; 8],
            parent_span_id: [0; 8],
            trace_state: "",
            flags: 0,
            name: "GET",
            kind: SpanKind::Server,
            start_ns: 1_795_219_200_000_000_000,
            duration_ns: 1,
            status: StatusCode::Unset,
            status_message: "",
            attributes: &attributes,
            dropped_attributes_count: 0,
            events: &[],
            dropped_events_count: 0,
            links: &[],
            dropped_links_count: 0,
        });
    }
}

/// The batch that has this id: the same spans each time.
fn batch(id: BatchId, pool: &Arc<BlockPool>) -> Frozen {
    let mut block = SpanBlock::new(pool);
    block.set_batch_id(id);
    fill(&mut block, 0..SPANS);
    block.freeze()
}

/// A table that drops an insert whose token it knows, and refuses one with a bad row.
#[derive(Default)]
struct Store {
    /// Of each token what was inserted under it.
    known: BTreeMap<String, Bytes>,
    stored: Vec<Range<usize>>,
    /// A token came again with other rows: they would be lost.
    lost: bool,
}

impl Store {
    fn insert(&mut self, piece: &Piece, bad: &[usize]) -> bool {
        if bad.iter().any(|row| piece.rows.contains(row)) {
            return false;
        }
        match self.known.get(&piece.token) {
            Some(body) => self.lost |= *body != piece.body,
            None => {
                self.known.insert(piece.token.clone(), piece.body.clone());
                self.stored.push(piece.rows.clone());
            }
        }
        true
    }

    fn rows(&self) -> Vec<usize> {
        let mut rows: Vec<usize> = self.stored.iter().cloned().flatten().collect();
        rows.sort_unstable();
        rows
    }
}

/// Inserts a table of the batch, `inserts` times at most. Says what is refused, and how many it took.
fn run(
    mut frozen: Frozen,
    id: TableId,
    store: &mut Store,
    bad: &[usize],
    inserts: usize,
) -> (Vec<RefusedRows>, usize) {
    let at = frozen.tables.iter().position(|table| table.id == id);
    let mut job = Job::new(frozen.tables.swap_remove(at.unwrap()));
    let mut done = 0;
    while done < inserts
        && let Some(piece) = job.next()
    {
        done += 1;
        if store.insert(piece, bad) {
            job.done();
        } else {
            assert!(job.bad_rows(&frozen, &failure(53)));
        }
    }
    (job.refused, done)
}

/// Whatever insert was the last before the process died: the batch made again ends like one that
/// was never interrupted.
fn check(bad: &[usize]) {
    let id = BatchId::random();
    let mut whole = Store::default();
    let (refused, inserts) = run(
        batch(id, &pool()),
        TableId::Spans,
        &mut whole,
        bad,
        usize::MAX,
    );
    let rows: Vec<usize> = refused.iter().flat_map(|r| r.range.clone()).collect();
    assert_eq!(rows, bad);
    for died_after in 0..=inserts {
        let mut store = Store::default();
        run(
            batch(id, &pool()),
            TableId::Spans,
            &mut store,
            bad,
            died_after,
        );
        let again = batch(id, &pool());
        let (refused_again, _) = run(again, TableId::Spans, &mut store, bad, usize::MAX);
        assert_eq!(refused_again, refused, "after {died_after} inserts");
        assert_eq!(store.rows(), whole.rows(), "after {died_after} inserts");
        assert_eq!(store.known, whole.known, "after {died_after} inserts");
        assert!(!store.lost);
    }
}

#[test]
fn a_batch_made_again_is_cut_like_the_first() {
    check(&[]);
    check(&[0]);
    check(&[SPANS - 1]);
    check(&[3, 4, 20, 39]);
}

/// The catalogue's rows of a batch made again are others, since other tags are known by then. No insert
/// of theirs may be taken for one of the first attempt.
#[test]
fn a_cut_catalogue_is_never_taken_for_another() {
    let id = BatchId::random();
    let knowing = pool();
    // Another batch with half of these tags was stored.
    let mut other = SpanBlock::new(&knowing);
    fill(&mut other, (0..SPANS).step_by(2));
    other.freeze().tags_are_stored();
    let (few, all) = (batch(id, &knowing), batch(id, &pool()));
    assert_ne!(few.body(TableId::Tags), all.body(TableId::Tags));
    assert_eq!(few.token(TableId::Tags), all.token(TableId::Tags));
    let bad = [1];
    for died_after in 0..8 {
        let mut store = Store::default();
        run(
            batch(id, &knowing),
            TableId::Tags,
            &mut store,
            &bad,
            died_after,
        );
        run(
            batch(id, &pool()),
            TableId::Tags,
            &mut store,
            &bad,
            usize::MAX,
        );
        assert!(!store.lost, "after {died_after} inserts");
    }
}

/// The server may take what it refused before: a row that was bad is good once the schema is mended.
#[test]
fn a_batch_that_was_cut_stays_cut() {
    for died_after in 0..12 {
        let id = BatchId::random();
        let mut store = Store::default();
        let mut frozen = batch(id, &pool());
        let mut job = Job::new(frozen.tables.swap_remove(0));
        assert_eq!(job.id, TableId::Spans);
        let bad = [3, 20];
        let mut said = Vec::new();
        for _ in 0..died_after {
            let Some(piece) = job.next() else { break };
            match store.insert(piece, &bad) {
                true => job.done(),
                false => assert!(job.bad_rows(&frozen, &failure(53))),
            }
            said = job.cuts().to_vec();
        }
        let mut again = batch(id, &pool());
        let table = again.tables.swap_remove(0);
        let mut job = Job::resumed(&again, table, said);
        while let Some(piece) = job.next() {
            assert!(store.insert(piece, &[]));
            job.done();
        }
        assert_eq!(
            store.rows(),
            Vec::from_iter(0..SPANS),
            "after {died_after} inserts"
        );
        assert!(!store.lost);
    }
}

#[test]
fn cuts_that_are_not_of_the_batch_are_not_used() {
    let check = |known: &[Range<usize>], used: bool| {
        let mut frozen = batch(BatchId::random(), &pool());
        let table = frozen.tables.swap_remove(0);
        let job = Job::resumed(&frozen, table, known.to_vec());
        assert_eq!(job.cuts() == known && !known.is_empty(), used, "{known:?}");
    };
    check(&[], false);
    check(&[0..20, 20..SPANS], true);
    check(&[0..20, 20..30], false);
    check(&[0..20, 20..SPANS + 1], false);
    check(&[0..20, 21..SPANS], false);
    check(&[0..20, 20..20, 20..SPANS], false);
    check(&[20..SPANS, 0..20], false);
}

/// An insert that failed by an error of this number.
fn failure(code: u32) -> Failure {
    let text = format!("Code: {code}. DB::Exception: bad. (BAD)");
    Failure::of(&clickhouse::error::Error::BadResponse(text))
}

/// Tries to insert rows that are all bad; says whether each was refused, or the batch is held.
fn all_are_bad(code: u32) -> bool {
    let mut frozen = batch(BatchId::random(), &pool());
    let mut job = Job::new(frozen.tables.swap_remove(0));
    while job.next().is_some() {
        if !job.bad_rows(&frozen, &failure(code)) {
            return false;
        }
    }
    let rows: usize = job.refused.iter().map(|refused| refused.range.len()).sum();
    assert_eq!(rows, SPANS);
    true
}

#[test]
fn rows_that_all_violate_a_constraint_are_refused_and_hold_nothing_up() {
    assert!(all_are_bad(469));
    // It may be the schema.
    assert!(!all_are_bad(53));
}
