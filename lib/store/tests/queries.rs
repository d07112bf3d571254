//! The views look like the exporter's tables, and each usual query uses an index.
#![allow(clippy::expect_used)] // a test stops on the first surprise

mod common;

use common::*;
use spanloom_otlp::record::{SpanRecord, SpanSink};
use spanloom_store::WriteOutcome;
use spanloom_store::block::SpanBlock;

/// The columns of the exporter's tables, from its `traces_table.sql` and
/// `traces_id_ts_lookup_table.sql` at v0.161.0.
const OTEL_TRACES: &str = "
    Timestamp DateTime64(9),
    TraceId String,
    SpanId String,
    ParentSpanId String,
    TraceState String,
    SpanName LowCardinality(String),
    SpanKind LowCardinality(String),
    ServiceName LowCardinality(String),
    ResourceAttributes Map(LowCardinality(String), String),
    ScopeName String,
    ScopeVersion String,
    SpanAttributes Map(LowCardinality(String), String),
    Duration UInt64,
    StatusCode LowCardinality(String),
    StatusMessage String,
    Events Nested (
        Timestamp DateTime64(9),
        Name LowCardinality(String),
        Attributes Map(LowCardinality(String), String)
    ),
    Links Nested (
        TraceId String,
        SpanId String,
        TraceState String,
        Attributes Map(LowCardinality(String), String)
    )";
const TRACE_ID_TS: &str = "TraceId String, Start DateTime, End DateTime";

#[tokio::test]
async fn the_views_are_described_as_the_exporters_tables() {
    let db = database().await;
    for (view, columns) in [
        ("otel_traces", OTEL_TRACES),
        ("otel_traces_trace_id_ts", TRACE_ID_TS),
    ] {
        db.execute(&format!(
            "CREATE TABLE theirs_{view} ({columns}) ENGINE = Memory"
        ))
        .await;
        let names_and_types = |table: &str| {
            format!(
                "SELECT name, type FROM system.columns WHERE database = currentDatabase() \
                 AND table = '{table}' ORDER BY position"
            )
        };
        let ours = db.text(&names_and_types(view)).await;
        let theirs = db.text(&names_and_types(&format!("theirs_{view}"))).await;
        assert_eq!(ours, theirs);
        let described = |text: String| -> Vec<String> {
            text.lines()
                .map(|line| line.split('\t').take(2).collect::<Vec<_>>().join(" "))
                .collect()
        };
        let ours = described(db.text(&format!("DESCRIBE {view}")).await);
        let theirs = described(db.text(&format!("DESCRIBE theirs_{view}")).await);
        assert_eq!(ours, theirs);
    }
}

/// 100,000 spans over five hours, in three services, several names and some 25,000 traces.
async fn filled() -> Database {
    let db = database().await;
    let mut block = SpanBlock::new(&pool());
    for service in 0..3u64 {
        resource(&mut block, ["shop", "cart", "mail"][service as usize]);
        for n in 0..33_000u64 {
            let number = service * 33_000 + n;
            block.span(&SpanRecord {
                name: ["GET /a", "GET /b", "POST /c", "query"][n as usize % 4],
                start_ns: T0 + n * 500_000_000,
                duration_ns: number * 1_000,
                trace_id: (u128::from(number / 4) << 64 | u128::from(number * 77)).to_be_bytes(),
                ..span(number)
            });
        }
    }
    assert_eq!(
        db.writer().write(block.freeze()).await,
        WriteOutcome::Stored
    );
    db
}

/// Granules that a query reads after all indices, of how many.
async fn granules(db: &Database, sql: &str) -> (u64, u64) {
    let plan = db.text(&format!("EXPLAIN indexes = 1 {sql}")).await;
    let counts: Vec<(u64, u64)> = plan
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Granules: ")?.split_once('/'))
        .map(|(left, all)| {
            (
                left.parse().expect("a number"),
                all.parse().expect("a number"),
            )
        })
        .collect();
    let all = counts.iter().map(|count| count.1).max();
    let left = counts.iter().map(|count| count.0).min();
    (
        left.unwrap_or_else(|| panic!("{sql}: {plan}")),
        all.expect("as many"),
    )
}

#[tokio::test]
async fn each_usual_query_uses_an_index() {
    let db = filled().await;
    let id = db
        .text("SELECT lower(hex(trace_id)) FROM spans WHERE span_id = unhex('0000000000000100')")
        .await;
    let index = "SETTINGS max_rows_to_read = 0";
    let from = "toDateTime64('2026-11-21 02:00:00', 9)";
    let to = "toDateTime64('2026-11-21 03:00:00', 9)";
    let cases = [
        format!("SELECT * FROM spans WHERE trace_id = unhex('{id}')"),
        format!(
            "SELECT * FROM spans WHERE tenant = '' AND time >= {from} - 7200 AND time < {from} AND trace_id = unhex('{id}')"
        ),
        format!(
            "SELECT name FROM spans WHERE tenant = '' AND service = 'shop' AND name = 'query' AND time >= {from} AND time < {to}"
        ),
        format!(
            "SELECT name FROM spans WHERE tenant = '' AND time >= {from} AND time < {to} AND duration_ns > 90000000"
        ),
        format!("SELECT name FROM spans WHERE tenant = '' AND time >= {from} AND time < {to}"),
        "SELECT name FROM spans WHERE duration_ns > 98000000".to_owned(),
        format!("SELECT * FROM otel_traces WHERE TraceId = '{id}'"),
        format!(
            "SELECT SpanName FROM otel_traces WHERE ServiceName = 'shop' AND Timestamp >= {from} AND Timestamp < {to}"
        ),
    ];
    for sql in cases {
        let (left, all) = granules(&db, &format!("{sql} {index}")).await;
        assert!(all >= 12, "{sql}: only {all} granules");
        assert!(left * 2 <= all, "{sql}: {left} of {all} granules are read");
    }
    let small = [
        format!("SELECT * FROM trace_index WHERE tenant = '' AND trace_id = unhex('{id}')"),
        format!("SELECT min(Start), max(End) FROM otel_traces_trace_id_ts WHERE TraceId = '{id}'"),
    ];
    for sql in small {
        let (left, all) = granules(&db, &sql).await;
        assert!(
            left == 1 && all > 2,
            "{sql}: {left} of {all} granules are read"
        );
    }
    db.execute("INSERT INTO red (minute, service, name, count) \
        SELECT toDateTime('2026-11-21 00:00:00') + 60 * (number % 300), ['a', 'b', 'shop'][number % 3 + 1], toString(number), 1 \
        FROM numbers(100000)").await;
    db.execute("OPTIMIZE TABLE red FINAL").await;
    let red = "SELECT sum(count) FROM red WHERE tenant = '' AND minute >= toDateTime('2026-11-21 01:50:00') AND minute < toDateTime('2026-11-21 02:00:00')";
    let (left, all) = granules(&db, red).await;
    assert!(
        left * 3 <= all && all >= 12,
        "{left} of {all} granules are read"
    );
}

/// A condition on `time` alone does not bring the key's first expression to bear: the type of the one
/// is not that of the other. Searches name both.
#[tokio::test]
async fn a_condition_on_five_minutes_prunes_by_the_key() {
    let db = filled().await;
    db.execute("OPTIMIZE TABLE spans FINAL").await;
    let ten_minutes = "tenant = '' AND time >= toDateTime64('2026-11-21 02:00:00', 9) \
        AND time <= toDateTime64('2026-11-21 02:09:59', 9) \
        AND toStartOfFiveMinutes(time) >= toDateTime('2026-11-21 02:00:00') \
        AND toStartOfFiveMinutes(time) <= toDateTime('2026-11-21 02:05:00')";
    let (left, all) = granules(
        &db,
        &format!("SELECT name FROM spans WHERE {ten_minutes} SETTINGS use_skip_indexes = 0"),
    )
    .await;
    assert!(
        left <= 4 && all >= 40,
        "{left} of {all} granules are read for ten minutes of five hours"
    );
}

#[tokio::test]
async fn a_text_attribute_is_found_by_its_bloom_filter() {
    let db = database().await;
    // No value of one granule is in another.
    db.execute(
        "INSERT INTO spans (time, service, name, attr_str) \
         SELECT toDateTime64('2026-11-21 00:00:00', 9) + toIntervalMillisecond(number * 100), 'shop', \
         'GET', map('user.id', concat('u-', toString(intDiv(number, 2048)))) FROM numbers(100000)",
    )
    .await;
    db.execute("OPTIMIZE TABLE spans FINAL").await;
    let window = "tenant = '' AND time >= toDateTime64('2026-11-21 00:00:00', 9)";
    for (condition, most) in [
        ("attr_str['user.id'] = 'u-7'", 4),
        ("attr_str['user.id'] = 'u-7000'", 2),
        ("attr_str['user'] = 'u-7'", 2),
        (
            "(attr_str['user.id'] = '7' OR attr_int['user.id'] = 7 OR attr_double['user.id'] = 7)",
            2,
        ),
    ] {
        let sql = format!("SELECT name FROM spans WHERE {window} AND {condition}");
        let (left, all) = granules(&db, &sql).await;
        assert!(
            left <= most && all >= 40,
            "{condition}: {left} of {all} granules are read"
        );
    }
}
