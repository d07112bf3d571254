//! `bench writers`: many collectors that write to one ClickHouse, each a little.
//!
//! What such a cluster costs is not its spans but its inserts: each makes a part of its table, which is written,
//! merged and deleted. Writers pace themselves, or ClickHouse gathers their inserts (`async_insert`). A span can be
//! searched when its batch is stored: it has waited for the batch, and for the inserts.

use anyhow::Context;
use bytes::Bytes;
use serde::Serialize;
use spanloom_otlp::record::{
    ResourceRecord, ScopeRecord, SpanKind, SpanRecord, SpanSink, StatusCode,
};
use spanloom_store::block::{
    BlockPool, BlockPoolOptions, ConnectionType, HalfEdgeRow, RedRow, TableId,
};
use spanloom_store::failure::Failure;
use spanloom_store::migrate::{self, MigrateOptions};
use spanloom_store::writer::{Inserts, SpanKey};
use spanloom_store::{
    Connection, Frozen, SchemaOptions, SpanBlock, WriteOutcome, Writer, WriterConfig,
};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::task::JoinSet;

use super::proc;
use super::report;
use super::sink::Sink;

/// The flags of `bench writers`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON array and nothing else
    #[arg(long)]
    json: bool,
    /// How many writers, one run for each
    #[arg(long, value_delimiter = ',', default_value = "2,10,100")]
    writers: Vec<u32>,
    /// Spans a second of all writers together
    #[arg(long, default_value_t = 2_000.0)]
    spans_per_second: f64,
    /// How old a batch becomes, in milliseconds; without it, what collectors do in a cluster of that size
    #[arg(long)]
    age_ms: Option<u64>,
    /// Seconds of a run
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// How inserts are gathered
    #[arg(long, value_delimiter = ',', default_value = "collectors,clickhouse")]
    ways: Vec<Way>,
}

/// Who gathers what is inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    /// Each collector, as in production
    Collectors,
    /// ClickHouse, by asynchronous inserts with deduplication, of batches of 200 ms
    Clickhouse,
}

#[derive(Debug, Serialize)]
struct Row {
    writers: u32,
    way: &'static str,
    age_ms: u64,
    spans_per_second: f64,
    inserts_per_second: f64,
    parts_per_second: f64,
    active_parts: u64,
    idle_cpu_percent: f64,
    cpu_percent: f64,
    searchable_p50_ms: f64,
    searchable_p95_ms: f64,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let host = Sink::host()?;
    let mut rows = Vec::new();
    for &writers in &args.writers {
        for &way in &args.ways {
            eprintln!("{writers} writers, {way:?}");
            rows.push(measure(args, &host, writers, way)?);
        }
    }
    if args.json {
        return super::print_json(&rows);
    }
    super::print(&report::table(&cells(&rows)));
    Ok(())
}

const DATABASE: &str = "spanloom";
/// How long the engine is left alone to see what it does by itself.
const IDLE: Duration = Duration::from_secs(15);

fn measure(args: &Args, host: &std::path::Path, writers: u32, way: Way) -> anyhow::Result<Row> {
    let folder = tempfile::tempdir()?;
    let sink = Sink::start(host, folder.path())?;
    let connection = Connection {
        url: sink.sql.url.clone(),
        user: sink.sql.user.clone(),
        password: sink.sql.password.clone(),
        tls: None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let options = SchemaOptions {
        database: DATABASE.to_owned(),
        ..SchemaOptions::default()
    };
    let migration = MigrateOptions {
        pipeline: "bench".to_owned(),
        patience: Duration::from_secs(60),
    };
    runtime
        .block_on(migrate::run(&connection, &options, &migration))
        .context("make the tables")?;

    let busy = |time: Duration, since: Duration| -> anyhow::Result<f64> {
        let used = proc::cpu_time(sink.pid)?.saturating_sub(since);
        Ok(used.as_secs_f64() / time.as_secs_f64() * 100.0)
    };
    // What starting and the tables left to do is done first.
    std::thread::sleep(IDLE / 2);
    let before = proc::cpu_time(sink.pid)?;
    std::thread::sleep(IDLE);
    let idle = busy(IDLE, before)?;

    let age = match (args.age_ms, way) {
        (Some(ms), _) => Duration::from_millis(ms),
        (None, Way::Clickhouse) => Duration::from_millis(200),
        (None, Way::Collectors) => Duration::from_millis(700),
    };
    let parts = "SELECT sum(value) FROM system.events WHERE event = 'MergeTreeDataWriterBlocks'";
    let parts_before = sink.sql.number(parts)?;
    let before = proc::cpu_time(sink.pid)?;
    let time = Duration::from_secs(args.seconds);
    let run = Run {
        writers,
        age,
        time,
        spans_per_second: args.spans_per_second,
    };
    let config = WriterConfig::new(connection.clone(), DATABASE);
    let (delays, inserts) = match way {
        Way::Collectors => {
            let writer = Writer::new(config);
            runtime.block_on(run.go(Arc::new(writer)))?
        }
        Way::Clickhouse => {
            let writer = Writer::with_inserts(Gathered::new(&connection), config);
            runtime.block_on(run.go(Arc::new(writer)))?
        }
    };
    let cpu = busy(time, before)?;
    let seconds = time.as_secs_f64();
    let made = sink.sql.number(parts)? - parts_before;
    let active = "SELECT count() FROM system.parts WHERE active AND database = 'spanloom'";
    Ok(Row {
        writers,
        way: match way {
            Way::Collectors => "collectors",
            Way::Clickhouse => "ClickHouse",
        },
        age_ms: age.as_millis() as u64,
        spans_per_second: delays.len() as f64 / seconds,
        inserts_per_second: inserts as f64 / seconds,
        parts_per_second: made as f64 / seconds,
        active_parts: sink.sql.number(active)?,
        idle_cpu_percent: idle,
        cpu_percent: cpu,
        searchable_p50_ms: report::quantile(&delays, 0.5),
        searchable_p95_ms: report::quantile(&delays, 0.95),
    })
}

#[derive(Debug, Clone, Copy)]
struct Run {
    writers: u32,
    age: Duration,
    time: Duration,
    spans_per_second: f64,
}

impl Run {
    /// Writes; returns how long each span waited until it could be searched, in milliseconds, and the number of
    /// inserts.
    async fn go<I: Inserts>(self, writer: Arc<Writer<I>>) -> anyhow::Result<(Vec<f64>, usize)> {
        let mut tasks = JoinSet::new();
        for number in 0..self.writers {
            tasks.spawn(self.write(Arc::clone(&writer), number));
        }
        let (mut delays, mut inserts) = (Vec::new(), 0);
        while let Some(done) = tasks.join_next().await {
            let (of_one, count) = done??;
            delays.extend(of_one);
            inserts += count;
        }
        Ok((delays, inserts))
    }

    /// One writer: a batch of each stretch of time, stored while the next one fills.
    async fn write<I: Inserts>(
        self,
        writer: Arc<Writer<I>>,
        number: u32,
    ) -> anyhow::Result<(Vec<f64>, usize)> {
        let pool = BlockPool::new(BlockPoolOptions::default());
        let started = Instant::now();
        let mut next = started + self.age * number / self.writers;
        let per_batch = self.spans_per_second / f64::from(self.writers) * self.age.as_secs_f64();
        // Writers do not have their spans all at once.
        let mut owed = per_batch * f64::from(number) / f64::from(self.writers);
        let mut sent = 0;
        let mut inserts = 0;
        let mut stores = JoinSet::new();
        while next < started + self.time {
            tokio::time::sleep_until(next.into()).await;
            next += self.age;
            owed += per_batch;
            let count = owed as u64;
            owed -= count as f64;
            if count == 0 {
                continue;
            }
            let frozen = batch(&pool, (number, sent), count);
            sent += count;
            inserts += TableId::ALL
                .into_iter()
                .filter(|&table| frozen.token(table).is_some())
                .count();
            let writer = Arc::clone(&writer);
            let due = next - self.age;
            stores.spawn(async move { (writer.write(frozen).await, due.elapsed(), count) });
        }
        let mut delays = Vec::new();
        while let Some(stored) = stores.join_next().await {
            let (outcome, took, count) = stored?;
            anyhow::ensure!(outcome == WriteOutcome::Stored, "{outcome:?}");
            // They came evenly while the batch was open.
            delays.extend((0..count).map(|span| {
                let waited = self.age.mul_f64((span as f64 + 0.5) / count as f64);
                (took + waited).as_secs_f64() * 1e3
            }));
        }
        Ok((delays, inserts))
    }
}

/// A batch of so many spans, with their measures.
fn batch(pool: &Arc<BlockPool>, (writer, first): (u32, u64), count: u64) -> Frozen {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let now_ns = now.as_nanos() as u64;
    let mut block = SpanBlock::new(pool);
    let service = format!("service-{}", writer % 20);
    block.resource(&ResourceRecord {
        service: &service,
        attributes: &[],
        dropped_attributes_count: 0,
        schema_url: "",
    });
    block.scope(&ScopeRecord {
        name: "bench",
        version: "",
        attributes: &[],
        dropped_attributes_count: 0,
        schema_url: "",
    });
    for number in first..first + count {
        let mut trace_id = [0; 16];
        trace_id[..4].copy_from_slice(&writer.to_be_bytes());
        trace_id[8..].copy_from_slice(&(number / 4).to_be_bytes());
        let name = ["GET /cart", "GET /thing", "POST /order", "SELECT"][number as usize % 4];
        block.span(&SpanRecord {
            trace_id,
            span_id: (number + 1).to_be_bytes(),
            parent_span_id: [0; 8],
            trace_state: "",
            flags: 0,
            name,
            kind: SpanKind::Server,
            start_ns: now_ns,
            duration_ns: 1_000_000,
            status: StatusCode::Unset,
            status_message: "",
            attributes: &[],
            dropped_attributes_count: 0,
            events: &[],
            dropped_events_count: 0,
            links: &[],
            dropped_links_count: 0,
        });
        block.measures().push_half(&HalfEdgeRow {
            time_ns: now_ns,
            trace_id,
            span_id: (number + 1).to_be_bytes(),
            parent_span_id: [0; 8],
            kind: SpanKind::Server,
            service: &*service,
            duration_ns: 1_000_000,
            error: false,
            peer: "",
            connection_type: ConnectionType::Unset,
        });
        if number < first + 4 {
            block.measures().push_red(&RedRow {
                minute: (now.as_secs() / 60 * 60) as u32,
                service: &service,
                name,
                kind: SpanKind::Server,
                status: StatusCode::Unset,
                count: count.div_ceil(4),
                duration_sum_ns: 1_000_000,
                duration_min_ns: 1_000_000,
                duration_max_ns: 1_000_000,
                buckets: &[(-8, count.div_ceil(4))],
            });
        }
    }
    block.freeze()
}

/// ClickHouse's asynchronous inserts, answered when they are in the table.
struct Gathered {
    client: clickhouse::Client,
}

impl Gathered {
    fn new(connection: &Connection) -> Self {
        let client = connection
            .client()
            .with_compression(clickhouse::Compression::None)
            .with_setting("decompress", "1")
            .with_setting("async_insert", "1")
            .with_setting("wait_for_async_insert", "1")
            .with_setting("async_insert_deduplicate", "1");
        Self { client }
    }
}

impl Inserts for Gathered {
    async fn insert(&self, table: TableId, token: &str, body: Bytes) -> Result<(), Failure> {
        let sent = async {
            let mut insert = self
                .client
                .insert_formatted_with(table.insert(DATABASE))
                .with_setting("insert_deduplication_token", token);
            insert.send(body).await?;
            insert.end().await
        };
        sent.await.map_err(|error| Failure::of(&error))
    }

    async fn look_up(&self, _: &[SpanKey]) -> Result<HashSet<SpanKey>, Failure> {
        // Nothing here is sent again after long.
        Ok(HashSet::new())
    }
}

fn cells(rows: &[Row]) -> Vec<Vec<String>> {
    let head = [
        "writers",
        "gathered by",
        "age ms",
        "spans/s",
        "inserts/s",
        "parts/s",
        "active parts",
        "idle CPU %",
        "CPU %",
        "p50 ms",
        "p95 ms",
    ];
    let mut cells = vec![head.map(str::to_owned).to_vec()];
    cells.extend(rows.iter().map(|row| {
        vec![
            row.writers.to_string(),
            row.way.to_owned(),
            row.age_ms.to_string(),
            format!("{:.1}", row.spans_per_second),
            format!("{:.1}", row.inserts_per_second),
            format!("{:.1}", row.parts_per_second),
            row.active_parts.to_string(),
            format!("{:.1}", row.idle_cpu_percent),
            format!("{:.1}", row.cpu_percent),
            format!("{:.0}", row.searchable_p50_ms),
            format!("{:.0}", row.searchable_p95_ms),
        ]
    }));
    cells
}
