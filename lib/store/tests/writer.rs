//! The writer against a real engine, with a proxy between them that loses, refuses and lies.
#![allow(clippy::expect_used)] // a test stops on the first surprise

mod common;

use common::proxy::{Action, Proxy};
use common::*;
use spanloom_otlp::record::{SpanKind, SpanRecord, SpanSink, StatusCode};
use spanloom_store::block::{
    AccountRow, BatchId, ConnectionType, HalfEdgeRow, RedRow, SpanBlock, TableId,
};
use spanloom_store::writer::{BatchHistory, Piece};
use spanloom_store::{Connection, RefusedRows, WriteOutcome, Writer, WriterConfig};
use std::time::{Duration, Instant};

const COUNTS: &str = "SELECT (SELECT count() FROM spans), \
    (SELECT sum(span_count) FROM trace_index), (SELECT sum(count) FROM red), \
    (SELECT sum(buckets[4]) FROM red), (SELECT count() FROM half_edges), \
    (SELECT sum(count) FROM red_hours), (SELECT sum(buckets[4]) FROM red_hours), \
    (SELECT sum(spans) FROM accounts)";

/// A batch with rows for every table.
fn whole_batch() -> spanloom_store::Frozen {
    let mut block = SpanBlock::new(&pool());
    fill(&mut block, 100);
    block.measures().push_red(&RedRow {
        minute: (T0 / SECOND) as u32,
        service: "shop",
        name: "GET /things",
        kind: SpanKind::Server,
        status: StatusCode::Unset,
        count: 100,
        duration_sum_ns: 1,
        duration_min_ns: 0,
        duration_max_ns: 1,
        buckets: &[(4, 100)],
    });
    block.measures().push_half(&HalfEdgeRow {
        time_ns: T0,
        trace_id: [1; 16],
        span_id: [2; 8],
        parent_span_id: [3; 8],
        kind: SpanKind::Client,
        service: "shop",
        duration_ns: 5,
        error: false,
        peer: "",
        connection_type: ConnectionType::Unset,
    });
    block.measures().account(AccountRow {
        minute: (T0 / SECOND) as u32,
        node: "node-1",
        agent: "collector",
        stage: "store",
        reason: "stored",
        spans: 100,
        bytes: 9,
    });
    block.freeze()
}

fn through(db: &Database, proxy: &Proxy) -> WriterConfig {
    let connection = Connection {
        url: proxy.url.clone(),
        ..db.connection.clone()
    };
    WriterConfig {
        first_pause: Duration::from_millis(10),
        longest_pause: Duration::from_millis(50),
        ..WriterConfig::new(connection, &db.options.database)
    }
}

/// The counts after a batch whose inserts fare as `script` says.
async fn check(
    what: &str,
    script: impl Fn(&str, usize) -> Action + Send + Sync + 'static,
    inserts_of_spans: usize,
) {
    let db = database().await;
    let proxy = Proxy::start(&db.connection.url, script).await;
    let writer = Writer::new(through(&db, &proxy));
    assert_eq!(
        writer.write(whole_batch()).await,
        WriteOutcome::Stored,
        "{what}"
    );
    assert_eq!(
        db.text(COUNTS).await,
        "100\t100\t100\t100\t1\t100\t100\t100",
        "{what}"
    );
    let seen = proxy.seen();
    for table in TableId::ALL.map(TableId::name) {
        let mut inserts = seen.iter().filter(|seen| seen.table == table);
        let first = inserts.next().expect("there was one");
        assert!(
            inserts.all(|next| next == first),
            "{what}: {table} was sent the same each time"
        );
    }
    let spans = seen.iter().filter(|seen| seen.table == "spans").count();
    let failures = proxy.failures();
    let of_spans = failures.iter().filter(|failure| failure.table == "spans");
    let expected = inserts_of_spans + of_spans.count();
    assert_eq!(spans, expected, "{what}: ClickHouse failed: {failures:?}");
}

#[tokio::test]
async fn a_lost_reply_makes_no_second_copy() {
    check(
        "each reply lost once",
        |_, n| {
            if n == 0 {
                Action::LoseReply
            } else {
                Action::Forward
            }
        },
        2,
    )
    .await;
    check(
        "each reply lost twice",
        |_, n| {
            if n < 2 {
                Action::LoseReply
            } else {
                Action::Forward
            }
        },
        3,
    )
    .await;
    check(
        "only the measures' replies are lost",
        |table, n| match (table, n) {
            ("red" | "half_edges" | "accounts", 0..3) => Action::LoseReply,
            _ => Action::Forward,
        },
        1,
    )
    .await;
}

#[tokio::test]
async fn what_passes_is_repeated() {
    let once = |answer: Action| {
        move |_: &str, n: usize| {
            if n == 0 {
                answer.clone()
            } else {
                Action::Forward
            }
        }
    };
    check("the connection breaks", once(Action::LoseRequest), 2).await;
    check(
        "a proxy is overloaded",
        once(Action::Answer(503, None, "busy")),
        2,
    )
    .await;
    let memory = "Code: 241. DB::Exception: Memory limit exceeded. (MEMORY_LIMIT_EXCEEDED)";
    check("memory", once(Action::Answer(500, None, memory)), 2).await;
    let header = Some(("X-ClickHouse-Exception-Code", "252"));
    check(
        "too many parts, after status 200",
        once(Action::Answer(200, header, "")),
        2,
    )
    .await;
    let tagged = "\r\n__exception__\r\nPU1FNUFH98\r\nCode: 159. DB::Exception: Timeout exceeded\
                  \n48 PU1FNUFH98\r\n__exception__\r\n";
    let tag = Some(("X-ClickHouse-Exception-Tag", "PU1FNUFH98"));
    check(
        "an error in the body, after status 200",
        once(Action::Answer(200, tag, tagged)),
        2,
    )
    .await;
    let unknown = "Code: 60. DB::Exception: Unknown table. (UNKNOWN_TABLE)";
    check(
        "a table is away for a moment",
        once(Action::Answer(404, None, unknown)),
        2,
    )
    .await;
}

/// A batch of 300 spans whose names are those of `bad` at these rows.
fn with_bad_rows(bad: &[u64]) -> spanloom_store::Frozen {
    with_bad_rows_as(BatchId::random(), bad)
}

/// The same, under this id.
fn with_bad_rows_as(id: BatchId, bad: &[u64]) -> spanloom_store::Frozen {
    let mut block = SpanBlock::new(&pool());
    block.set_batch_id(id);
    resource(&mut block, "shop");
    for n in 0..300 {
        let name = if bad.contains(&n) { "bad" } else { "good" };
        block.span(&SpanRecord { name, ..span(n) });
    }
    block.freeze()
}

async fn check_bad_rows(bad: &[u64]) {
    let db = database().await;
    db.execute("ALTER TABLE spans ADD CONSTRAINT good CHECK name != 'bad'")
        .await;
    let writer = db.writer();
    let outcome = writer.write(with_bad_rows(bad)).await;
    let refused = match outcome {
        WriteOutcome::Stored => Vec::new(),
        WriteOutcome::Partial(refused) => refused,
        WriteOutcome::Unavailable(reason) => panic!("{reason}"),
    };
    let rows: Vec<u64> = refused
        .iter()
        .flat_map(|r| r.range.clone())
        .map(|n| n as u64)
        .collect();
    assert_eq!(rows, bad);
    let says_why = |refused: &RefusedRows| refused.reason.contains("Code: 469");
    assert!(refused.iter().all(says_why), "{refused:?}");
    let counts = "SELECT count(), uniqExact(span_id), countIf(name = 'bad') FROM spans";
    let stored = 300 - bad.len();
    assert_eq!(db.text(counts).await, format!("{stored}\t{stored}\t0"));
    let exporter = [("exporter", "clickhouse")];
    let failed = writer
        .metrics()
        .send_failed_spans
        .get_or_create(&exporter)
        .get();
    assert_eq!(failed, bad.len() as u64);
}

#[tokio::test]
async fn bad_rows_are_found_and_the_others_stored() {
    check_bad_rows(&[]).await;
    check_bad_rows(&[299]).await;
    check_bad_rows(&[0, 17, 18, 200]).await;
}

/// A process dies while it looks for the bad rows; the next one makes the batch again.
#[tokio::test]
async fn a_batch_made_again_is_stored_once_and_refused_alike() {
    let bad = [0, 17, 18, 200];
    let db = database().await;
    db.execute("ALTER TABLE spans ADD CONSTRAINT good CHECK name != 'bad'")
        .await;
    let id = BatchId::random();
    for survives in [1, 4, 9] {
        let stuck = Proxy::start(&db.connection.url, move |table, n| match table {
            "spans" if n >= survives => Action::LoseRequest,
            _ => Action::Forward,
        })
        .await;
        let writer = Writer::new(WriterConfig {
            keep_unknown_for: Duration::from_millis(200),
            ..through(&db, &stuck)
        });
        let outcome = writer.write(with_bad_rows_as(id, &bad)).await;
        assert!(
            matches!(outcome, WriteOutcome::Unavailable(_)),
            "{outcome:?}"
        );
    }
    let WriteOutcome::Partial(refused) = db.writer().write(with_bad_rows_as(id, &bad)).await else {
        panic!("the bad rows are refused")
    };
    let rows: Vec<usize> = refused.iter().flat_map(|r| r.range.clone()).collect();
    assert_eq!(rows, [0, 17, 18, 200]);
    let counts = "SELECT count(), uniqExact(span_id), countIf(name = 'bad') FROM spans";
    assert_eq!(db.text(counts).await, "296\t296\t0");
    let listed = "SELECT sum(span_count), count() FROM trace_index";
    assert_eq!(db.text(listed).await, "300\t75");
}

#[tokio::test]
async fn when_no_row_can_be_stored_nothing_is_thrown_away() {
    let db = database().await;
    // Of a batch alone, this looks like bad values.
    db.execute("ALTER TABLE spans MODIFY COLUMN status_message UInt8")
        .await;
    let all: Vec<u64> = (0..300).collect();
    let writer = Writer::new(WriterConfig {
        give_up_after: Duration::from_millis(300),
        keep_unknown_for: Duration::from_millis(300),
        ..db.writer_config()
    });
    let outcome = writer.write(with_bad_rows(&all)).await;
    assert!(
        matches!(outcome, WriteOutcome::Unavailable(_)),
        "{outcome:?}"
    );
    assert_eq!(db.text("SELECT count() FROM spans").await, "0");
}

/// A constraint is not the schema: batches with nothing but rows that violate it hold nothing up.
#[tokio::test]
async fn when_all_rows_violate_a_constraint_they_are_refused() {
    let db = database().await;
    db.execute("ALTER TABLE spans ADD CONSTRAINT good CHECK name != 'bad'")
        .await;
    let all: Vec<u64> = (0..300).collect();
    let outcome = db.writer().write(with_bad_rows(&all)).await;
    let WriteOutcome::Partial(refused) = outcome else {
        panic!("the bad rows are refused: {outcome:?}")
    };
    let rows: usize = refused.iter().map(|r| r.range.len()).sum();
    assert_eq!(rows, 300);
}

#[tokio::test]
async fn when_clickhouse_is_away_the_batch_is_given_up_in_time() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let connection = Connection {
        url: format!("http://{address}"),
        user: "u".to_owned(),
        password: String::new(),
        tls: None,
    };
    let writer = Writer::new(WriterConfig {
        give_up_after: Duration::from_millis(500),
        ..WriterConfig::new(connection, "spanloom")
    });
    let pool = pool();
    let start = Instant::now();
    let batches = (0..20).map(|_| writer.write(batch(&pool, 50)));
    for outcome in futures_util::future::join_all(batches).await {
        assert!(
            matches!(outcome, WriteOutcome::Unavailable(_)),
            "{outcome:?}"
        );
    }
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    let exporter = [("exporter", "clickhouse")];
    let metrics = writer.metrics();
    assert_eq!(
        metrics.send_failed_spans.get_or_create(&exporter).get(),
        20 * 50
    );
    assert_eq!(metrics.in_flight.get_or_create(&exporter).get(), 0);
    assert_eq!(metrics.uncertain_batches.get(), 0, "it was never unknown");
}

#[tokio::test]
async fn what_may_be_stored_is_repeated_for_longer() {
    let db = database().await;
    let proxy = Proxy::start(&db.connection.url, |table, n| match table {
        "red" if n < 8 => Action::LoseRequest,
        _ => Action::Forward,
    })
    .await;
    let writer = Writer::new(WriterConfig {
        give_up_after: Duration::from_millis(50),
        ..through(&db, &proxy)
    });
    assert_eq!(writer.write(whole_batch()).await, WriteOutcome::Stored);
    assert_eq!(
        db.text(COUNTS).await,
        "100\t100\t100\t100\t1\t100\t100\t100"
    );
    let never = Proxy::start(&db.connection.url, |_, _| Action::LoseRequest).await;
    let writer = Writer::new(WriterConfig {
        keep_unknown_for: Duration::from_millis(300),
        ..through(&db, &never)
    });
    let outcome = writer.write(whole_batch()).await;
    assert!(
        matches!(outcome, WriteOutcome::Unavailable(_)),
        "{outcome:?}"
    );
    assert_eq!(writer.metrics().uncertain_batches.get(), 1);
}

#[tokio::test]
async fn spans_of_many_days_are_stored_in_inserts_of_few_parts() {
    const DAYS: u64 = 150;
    const DAY: u64 = 86_400 * SECOND;
    let db = database().await;
    let writer = db.writer();
    let mut block = SpanBlock::new(&pool());
    resource(&mut block, "shop");
    for day in 0..DAYS {
        let start_ns = T0 - day * DAY;
        block.span(&SpanRecord {
            start_ns,
            ..span(4 * day)
        });
        block.measures().push_red(&RedRow {
            minute: (start_ns / SECOND) as u32,
            service: "shop",
            name: "GET /things",
            kind: SpanKind::Server,
            status: StatusCode::Unset,
            count: 1,
            duration_sum_ns: 1,
            duration_min_ns: 0,
            duration_max_ns: 1,
            buckets: &[(4, 1)],
        });
    }
    assert_eq!(writer.write(block.freeze()).await, WriteOutcome::Stored);
    let counts = "SELECT (SELECT count() FROM spans), (SELECT sum(span_count) FROM trace_index), \
                  (SELECT sum(count) FROM red), (SELECT sum(count) FROM red_hours)";
    let all = [DAYS; 4].map(|count| count.to_string()).join("\t");
    assert_eq!(db.text(counts).await, all);
    // Two tables of that many days at least, a hundred of them at a time.
    let inserts = writer.metrics().bisect_inserts.get();
    assert!(inserts >= 2 * DAYS / 100, "{inserts}");
}

/// A batch that the server has stored and forgotten.
struct Forgotten;

impl BatchHistory for Forgotten {
    fn is_kept(&self) -> bool {
        true
    }

    fn may_be_forgotten(&self) -> bool {
        true
    }

    fn pieces(&self) -> Vec<Piece> {
        Vec::new()
    }

    async fn cut(&self, _: Vec<Piece>) -> Result<(), String> {
        Ok(())
    }
}

#[tokio::test]
async fn a_batch_that_the_server_has_forgotten_is_looked_for() {
    let db = database().await;
    let writer = db.writer();
    let write = async |history: &Forgotten| {
        // Each time with another id: the server knows nothing of it by its tokens.
        let outcome = writer.write_with(whole_batch(), history).await;
        assert_eq!(outcome, WriteOutcome::Stored);
    };
    let counts = "100\t100\t100\t100\t1\t100\t100\t100";
    // Nothing of it is there.
    write(&Forgotten).await;
    assert_eq!(db.text(COUNTS).await, counts);
    // All of it is.
    write(&Forgotten).await;
    assert_eq!(db.text(COUNTS).await, counts);
    // Some of it is, as where a client repeated a request elsewhere: the other tables may have nothing of it.
    db.execute("DELETE FROM spans WHERE reinterpretAsUInt64(reverse(span_id)) % 10 < 3")
        .await;
    let left = "SELECT count() < 100 AND count() > 0 FROM spans";
    assert_eq!(db.text(left).await, "1");
    write(&Forgotten).await;
    let again = "100\t200\t200\t200\t2\t200\t200\t200";
    assert_eq!(db.text(COUNTS).await, again);
    let unique = "SELECT uniqExact(trace_id, span_id) FROM spans";
    assert_eq!(db.text(unique).await, "100");
    assert_eq!(writer.metrics().looked_up.get(), 3);
}

#[tokio::test]
async fn the_spans_of_a_batch_that_may_come_again_are_last() {
    let db = database().await;
    let proxy = Proxy::start(&db.connection.url, |_, _| Action::Forward).await;
    let writer = Writer::new(through(&db, &proxy));
    let outcome = writer.write_with(whole_batch(), &Forgotten).await;
    assert_eq!(outcome, WriteOutcome::Stored);
    let tables = proxy.seen().into_iter().map(|seen| seen.table);
    let order: Vec<String> = tables.filter(|table| !table.is_empty()).collect();
    assert_eq!(order.last().map(String::as_str), Some("spans"), "{order:?}");
    assert_eq!(order.len(), TableId::ALL.len(), "{order:?}");
}
