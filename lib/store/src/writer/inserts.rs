//! The way of a block into a table.

use bytes::Bytes;
use rand::RngExt;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::future::Future;
use std::time::Duration;

use super::WriterConfig;
use crate::access::{Access, NotKnown};
use crate::block::TableId;
use crate::failure::{Class, Failure, MAX_PARTITIONS};
use crate::schema::identifier;

/// Inserts blocks. There is one way in production ([`Http`]) and another in simulations.
pub trait Inserts: Send + Sync + 'static {
    /// Inserts a compressed Native block into a table, unless the server has one of this token already.
    ///
    /// # Errors
    /// When the server did not say that it has it; the failure says what that means.
    fn insert(
        &self,
        table: TableId,
        token: &str,
        body: Bytes,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Which of these spans are in `spans`.
    ///
    /// # Errors
    /// When the server did not say.
    fn look_up(
        &self,
        spans: &[SpanKey],
    ) -> impl Future<Output = Result<HashSet<SpanKey>, Failure>> + Send;

    /// By what the next pause is multiplied: half to all of it, so that writers do not come back all at
    /// once.
    fn jitter(&self) -> f64 {
        rand::rng().random_range(0.5..=1.0)
    }
}

/// A span by its trace and its own id, with its start in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // as in OTLP
pub struct SpanKey {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    pub start_ns: i64,
}

/// Spans that one query asks for: a query may be 256 KiB.
const ASKED: usize = 1_000;

/// How many days one insert may have rows of.
const MAX_DAYS: &str = "100";

/// ClickHouse's HTTP interface.
#[derive(Debug)]
pub struct Http {
    access: Access,
    database: String,
    execution_time: Duration,
    timeout: Duration,
}

impl Http {
    /// To the database that the configuration names.
    pub fn new(config: &WriterConfig) -> Self {
        Self {
            access: config.access.clone(),
            database: config.database.clone(),
            execution_time: config.insert_timeout.max(Duration::from_secs(1)),
            // The server must give up before we do: then its answer says what became of the insert.
            timeout: config.insert_timeout + Duration::from_secs(2),
        }
    }

    /// The client for an insert that begins now.
    fn client(&self) -> Result<clickhouse::Client, NotKnown> {
        let client = self.access.client()?;
        let client = client
            .with_product_info("spanloom", env!("CARGO_PKG_VERSION"))
            // Blocks come compressed; the server is told so by hand.
            .with_compression(clickhouse::Compression::None)
            .with_setting("decompress", "1")
            .with_setting("async_insert", "0")
            // On a cluster the tables are `Distributed`, which by default queue rows on the server that was
            // asked and answer before a shard has them: a server that is lost then takes acknowledged spans
            // with it. In the foreground an insert is answered when every shard it touches has its rows (one
            // replica of each, where the cluster says `internal_replication`). When one shard fails the whole
            // insert does, and is repeated under its token, which goes to the shards with the rows and keeps
            // those that have them from storing them again. Whoever wants more replicas to have a row
            // before the answer sets `insert_quorum` in the user's profile. Without a cluster it does nothing.
            .with_setting("distributed_foreground_insert", "1")
            // A shard that cannot be reached is an error, not left out.
            .with_setting("skip_unavailable_shards", "0")
            // Each day is a part of its own. Rows of more days are inserted one part after the other.
            .with_setting(MAX_PARTITIONS, MAX_DAYS)
            .with_setting("throw_on_max_partitions_per_insert_block", "1")
            .with_setting(
                "max_execution_time",
                self.execution_time.as_secs().to_string(),
            );
        Ok(client)
    }

    /// The ids of those of these spans that are stored, in hex.
    async fn ask(
        &self,
        client: &clickhouse::Client,
        spans: &[SpanKey],
    ) -> Result<HashSet<String>, clickhouse::error::Error> {
        let times = || spans.iter().map(|span| span.start_ns);
        let (first, last) = (times().min().unwrap_or(0), times().max().unwrap_or(0));
        let mut ids: Vec<String> = spans.iter().map(hex_of).collect();
        ids.sort_unstable();
        let of_traces = |id: &String| id.get(..32).map(str::to_owned);
        let mut traces: Vec<String> = ids.iter().filter_map(of_traces).collect();
        traces.dedup();
        let list = |ids: &[String]| format!("'{}'", ids.join("','"));
        let sql = format!(
            "SELECT DISTINCT concat(hex(trace_id), hex(span_id)) AS id FROM {}.{} \
             WHERE trace_id IN (SELECT toFixedString(unhex(arrayJoin([{}])), 16)) \
             AND time BETWEEN fromUnixTimestamp64Nano({first}) AND fromUnixTimestamp64Nano({last}) \
             AND id IN ({})",
            identifier(&self.database),
            identifier(TableId::Spans.name()),
            list(&traces),
            list(&ids),
        );
        let seconds = self.execution_time.as_secs().to_string();
        let query = client
            .query_raw(&sql)
            .with_setting("max_execution_time", seconds);
        let mut cursor = query.fetch_bytes("TabSeparated")?;
        let text = cursor.collect().await?;
        let text = String::from_utf8_lossy(&text);
        Ok(text.lines().map(str::to_owned).collect())
    }

    async fn send(
        &self,
        client: &clickhouse::Client,
        table: TableId,
        token: &str,
        body: Bytes,
    ) -> Result<(), clickhouse::error::Error> {
        let mut insert = client
            .insert_formatted_with(table.insert(&self.database))
            .with_setting("insert_deduplication_token", token)
            .with_timeouts(Some(self.timeout), Some(self.timeout));
        insert.send(body).await?;
        insert.end().await
    }
}

/// A failure without the server's answer, after which nothing is stored for certain.
fn passing(message: impl ToString) -> Failure {
    Failure {
        class: Class::Retry,
        code: None,
        absent: true,
        message: message.to_string(),
    }
}

/// A span's ids as ClickHouse writes them ([`Http::ask`]).
fn hex_of(span: &SpanKey) -> String {
    let mut text = String::with_capacity(48);
    for byte in span.trace_id.iter().chain(&span.span_id) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02X}");
    }
    text
}

impl Inserts for Http {
    async fn insert(&self, table: TableId, token: &str, body: Bytes) -> Result<(), Failure> {
        let client = self.client().map_err(passing)?;
        let sent = self.send(&client, table, token, body).await;
        sent.map_err(|error| Failure::of(&error))
    }

    async fn look_up(&self, spans: &[SpanKey]) -> Result<HashSet<SpanKey>, Failure> {
        // Without compression, which is for blocks.
        let client = self.access.client().map_err(passing)?;
        let mut found = HashSet::new();
        for spans in spans.chunks(ASKED) {
            let asked = tokio::time::timeout(self.timeout, self.ask(&client, spans)).await;
            let asked = asked
                .map_err(|_| passing("looking for a batch that was sent long ago timed out"))?;
            let ids = asked.map_err(|error| Failure::of(&error))?;
            let is_found = |span: &&SpanKey| ids.contains(&hex_of(span));
            found.extend(spans.iter().filter(is_found));
        }
        Ok(found)
    }
}
