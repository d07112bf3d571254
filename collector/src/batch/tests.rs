//! Batches that are made again from their records, and measures that were made elsewhere.

mod foreign;

#[path = "../../../lib/otlp/tests/common/requests.rs"]
mod requests;

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use proptest::prelude::*;
use prost::Message as _;
use spanloom_otlp::records::{RecordWriter, read};
use spanloom_pipeline::measure::{AccountRow, Recorder};
use spanloom_pipeline::process::{Processing, Processor};
use spanloom_pipeline::tally::Tally;
use spanloom_rules::{KeyPattern, Limits, RuleSet, ValuePattern};
use spanloom_store::block::{BatchId, BlockPool, BlockPoolOptions, TableId};

use super::*;

const NOW: u64 = 1_800_000_000_000_000_000;

/// Ids and times with which a span is taken, most of the time.
fn mend(mut request: ExportTraceServiceRequest) -> ExportTraceServiceRequest {
    fn id(bytes: &mut Vec<u8>, len: usize) {
        if bytes.len() > 1 {
            bytes.resize(len, 3);
            bytes[0] |= 1;
        }
    }
    let spans = request
        .resource_spans
        .iter_mut()
        .flat_map(|resource| &mut resource.scope_spans)
        .flat_map(|scope| &mut scope.spans);
    for span in spans {
        let Span {
            trace_id,
            span_id,
            parent_span_id,
            links,
            ..
        } = span;
        id(trace_id, 16);
        id(span_id, 8);
        id(parent_span_id, 8);
        for link in links {
            id(&mut link.trace_id, 16);
            id(&mut link.span_id, 8);
        }
        // Three days.
        let ago = span.start_time_unix_nano % (72 * 3600 * 1_000_000_000);
        let duration = span.end_time_unix_nano % 1_000_000_000_000;
        span.start_time_unix_nano = NOW - ago;
        span.end_time_unix_nano = NOW - ago + duration;
    }
    request
}

fn some_requests() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let request = requests::request().prop_map(|request| mend(request).encode_to_vec());
    prop::collection::vec(request, 1..4)
}

fn rules() -> Processing {
    Processing {
        resource: vec![("a".into(), "b".into())],
        rules: RuleSet {
            redact_keys: vec![KeyPattern::of("a*")],
            redact_values: vec![ValuePattern::of("[a-z0-9]{3}")],
            limits: Limits {
                attributes: 3,
                events: 2,
                links: 2,
                value_bytes: 20,
            },
            ..RuleSet::default()
        },
        head_ratio: 0.7,
        ..Processing::default()
    }
}

fn pool() -> Arc<BlockPool> {
    BlockPool::new(BlockPoolOptions::default())
}

/// A batch of these requests, its records request by request, and its measures as bytes.
fn first(
    processing: &Processing,
    requests: &[Vec<u8>],
    pool: &Arc<BlockPool>,
) -> (Frozen, Vec<Vec<u8>>, Vec<u8>) {
    let mut processor = Processor::new(processing).unwrap();
    let (mut batch, mut recorder) = (StoreBatch(SpanBlock::new(pool)), Recorder::default());
    let mut records = Vec::new();
    for request in requests {
        let mut writer = RecordWriter::new();
        let mut sink = (&mut batch, &mut writer);
        let mut tally = Tally::default();
        let result = processor.process(request, NOW, &mut sink, &mut recorder, &mut tally);
        assert_eq!((result, tally.kept), (Ok(()), writer.spans()));
        records.push(writer.finish());
    }
    let mut measures = recorder.take();
    measures.accounts.push(AccountRow {
        minute: 60,
        node: "node".into(),
        agent: "agent".into(),
        stage: "store".into(),
        reason: "stored".into(),
        spans: 1,
        bytes: 2,
    });
    let mut bundle = Vec::new();
    measures.encode(&mut bundle);
    (batch.seal(measures)(), records, bundle)
}

/// The same batch, made of what was kept of it.
fn again(id: BatchId, records: &[Vec<u8>], bundle: &[u8], pool: &Arc<BlockPool>) -> Frozen {
    let mut batch = StoreBatch(SpanBlock::new(pool));
    batch.0.set_batch_id(id);
    for records in records {
        read(records, &mut batch).unwrap();
    }
    batch.seal(Measures::decode(bundle).unwrap())()
}

/// Equal blocks under equal tokens; the catalogue's only where the same tags are known.
fn same(first: &Frozen, again: &Frozen, tags_too: bool) {
    for table in TableId::ALL {
        if table == TableId::Tags && !tags_too {
            continue;
        }
        assert_eq!(first.token(table), again.token(table), "{table:?}");
        assert!(first.body(table) == again.body(table), "{table:?}");
    }
}

fn check(processing: &Processing, requests: &[Vec<u8>]) {
    let knowing = pool();
    let (batch, records, bundle) = first(processing, requests, &knowing);
    let id = batch.id();
    same(&batch, &again(id, &records, &bundle, &pool()), true);

    // Half of the tags are known, since another batch was stored; then all of them are.
    let (other, ..) = first(processing, &requests[..requests.len() / 2], &knowing);
    other.tags_are_stored();
    let few = again(id, &records, &bundle, &knowing);
    same(&batch, &few, false);
    if few.token(TableId::Tags).is_some() {
        assert_eq!(few.token(TableId::Tags), batch.token(TableId::Tags));
    }
    batch.tags_are_stored();
    let none = again(id, &records, &bundle, &knowing);
    same(&batch, &none, false);
    assert_eq!(none.token(TableId::Tags), None);

    // The same spans, sent on purpose a second time.
    let (second, ..) = first(processing, requests, &pool());
    for table in TableId::ALL {
        let (first, second) = (batch.token(table), second.token(table));
        assert!(first.is_none() || first != second, "{table:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_batch_is_made_again_from_its_records(requests in some_requests()) {
        check(&Processing::default(), &requests);
        check(&rules(), &requests);
    }
}
