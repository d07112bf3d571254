//! What a sidecar measures, stored by its collector.

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use spanloom_crds::TracingPipeline;
use spanloom_engine::testing::TestEngine;
use spanloom_pipeline::measure::{LeftOut, MergeLimits};
use spanloom_pipeline::process::{Mode, Origin};
use spanloom_store::{Connection, WriteOutcome, Writer, WriterConfig};

use super::*;
use crate::StoreAddress;

/// A database of its own, and who writes to it.
struct Store {
    writer: Writer,
    client: clickhouse::Client,
}

impl Store {
    async fn new(engine: &TestEngine) -> Self {
        let store = StoreAddress {
            url: engine.url(),
            user: engine.user().to_owned(),
            password: engine.password().to_owned(),
            credentials_dir: None,
            database: format!("foreign_{:016x}", rand::random::<u64>()),
            cluster: None,
            ca_file: None,
        };
        crate::migrate(&store, &TracingPipeline::default(), "test")
            .await
            .unwrap();
        let connection = Connection {
            url: store.url,
            user: store.user,
            password: store.password,
            tls: None,
        };
        Self {
            client: connection.client().with_database(&store.database),
            writer: Writer::new(WriterConfig::new(connection, store.database)),
        }
    }

    async fn write(&self, records: &[u8], measures: Measures) {
        let mut batch = StoreBatch(SpanBlock::new(&pool()));
        read(records, &mut batch).unwrap();
        let outcome = self.writer.write(batch.seal(measures)()).await;
        assert_eq!(outcome, WriteOutcome::Stored);
    }

    async fn text(&self, sql: &str) -> String {
        let query = self.client.query_raw(sql);
        let mut cursor = query.fetch_bytes("TabSeparated").unwrap();
        String::from_utf8(cursor.collect().await.unwrap().into()).unwrap()
    }

    /// What the rollups say.
    async fn rollups(&self) -> Vec<String> {
        for sql in [
            "SYSTEM REFRESH VIEW edges_rollup",
            "SYSTEM WAIT VIEW edges_rollup",
        ] {
            self.client.query_raw(sql).execute().await.unwrap();
        }
        let mut answers = Vec::new();
        for sql in [
            "SELECT minute, service, name, kind, status, sum(count), sum(duration_sum_ns), \
                sum(duration_total_ns), min(duration_min_ns), max(duration_max_ns), \
                sumMap(buckets) FROM red GROUP BY ALL ORDER BY ALL",
            "SELECT hour, service, name, kind, sum(count), sum(error_count), sumMap(buckets) \
                FROM red_hours GROUP BY ALL ORDER BY ALL",
            "SELECT time, hex(trace_id), hex(span_id), hex(parent_span_id), kind, service, duration_ns, error, peer, \
                connection_type FROM half_edges ORDER BY ALL",
            "SELECT minute, client, server, connection_type, count, error_count, \
                client_duration_sum_ns, server_duration_sum_ns, client_buckets, server_buckets \
                FROM edges FINAL ORDER BY ALL",
        ] {
            answers.push(self.text(sql).await);
        }
        answers
    }
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = any_value::Value::StringValue(value.to_owned());
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

const INTERNAL: i32 = 1;
const SERVER: i32 = 2;
const CLIENT: i32 = 3;

/// One end of a hundred calls, and a span below each.
fn spans_of(service: &str, kind: i32, now_ns: u64) -> ResourceSpans {
    let spans = (0..200u64).map(|n| {
        let call = n / 2;
        let mut trace_id = vec![7; 16];
        trace_id[8..].copy_from_slice(&call.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
        let client_id = call + 1;
        let (own, kind) = match (kind, n % 2) {
            (_, 1) => (10_000 * kind as u64 + n, INTERNAL),
            (CLIENT, _) => (client_id, CLIENT),
            _ => (1_000 + n, SERVER),
        };
        Span {
            trace_id,
            span_id: own.to_be_bytes().to_vec(),
            parent_span_id: match kind {
                CLIENT => Vec::new(),
                _ => client_id.to_be_bytes().to_vec(),
            },
            name: format!("GET /{}", n % 3),
            kind,
            start_time_unix_nano: now_ns - n * 700_000_000,
            end_time_unix_nano: now_ns - n * 700_000_000 + n * 100_000,
            attributes: vec![attribute("peer.service", "cart")],
            ..Span::default()
        }
    });
    ResourceSpans {
        resource: Some(Resource {
            attributes: vec![attribute("service.name", service)],
            ..Resource::default()
        }),
        scope_spans: vec![ScopeSpans {
            spans: spans.collect(),
            ..ScopeSpans::default()
        }],
        schema_url: String::new(),
    }
}

/// Runs a request through a processor; gives the records of what it keeps.
fn run(mode: Mode, ratio: f64, request: &[u8], now_ns: u64, recorder: &mut Recorder) -> Vec<u8> {
    let mut processor = Processor::new(&Processing {
        head_ratio: ratio,
        ..Processing::default()
    })
    .unwrap();
    let (mut writer, mut tally) = (RecordWriter::new(), Tally::default());
    let origin = Origin {
        mode,
        ..Origin::default()
    };
    let result = processor.process_from(origin, request, now_ns, &mut writer, recorder, &mut tally);
    assert_eq!((result, tally.rejected()), (Ok(()), 0));
    writer.finish()
}

/// Of ten spans the sidecar keeps about three. Rates, percentiles and the service graph do not know.
#[tokio::test]
async fn a_sidecars_measures_are_stored_as_if_its_spans_had_been_measured_here() {
    let engine = TestEngine::start().await;
    let now = std::time::UNIX_EPOCH.elapsed().unwrap();
    let now_ns = u64::try_from(now.as_nanos()).unwrap();
    let request = ExportTraceServiceRequest {
        resource_spans: vec![
            spans_of("shop", CLIENT, now_ns),
            spans_of("cart", SERVER, now_ns),
        ],
    }
    .encode_to_vec();

    let alone = Store::new(&engine).await;
    let mut recorder = Recorder::default();
    let records = run(Mode::Full, 1.0, &request, now_ns, &mut recorder);
    alone.write(&records, recorder.take()).await;

    let mut sidecar = Recorder::default();
    let records = run(Mode::MeasureSampledOut, 0.3, &request, now_ns, &mut sidecar);
    let mut bundle = Vec::new();
    sidecar.take().encode(&mut bundle);

    let together = Store::new(&engine).await;
    let mut recorder = Recorder::default();
    let records = run(Mode::Measure, 1.0, &records, now_ns, &mut recorder);
    let limits = MergeLimits {
        max_bytes: 1 << 20,
        oldest_ns: now_ns - 3_600_000_000_000,
        newest_ns: now_ns,
    };
    let left_out = recorder.merge(&Measures::decode(&bundle).unwrap(), &limits);
    assert_eq!(left_out, LeftOut::default());
    together.write(&records, recorder.take()).await;

    let kept = together.text("SELECT count() FROM spans").await;
    let kept: u64 = kept.trim().parse().unwrap();
    assert!((60..200).contains(&kept), "{kept} of 400 spans are kept");
    let (expect, found) = (alone.rollups().await, together.rollups().await);
    assert!(expect.iter().all(|answer| !answer.is_empty()), "{expect:?}");
    assert_eq!(found, expect);
}
