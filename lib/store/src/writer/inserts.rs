//! The way of a block into a table.

use bytes::Bytes;
use rand::RngExt;
use std::future::Future;
use std::time::Duration;

use super::WriterConfig;
use crate::block::TableId;
use crate::failure::{Failure, MAX_PARTITIONS};

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

    /// By what the next pause is multiplied: half to all of it, so that writers do not come back all at
    /// once.
    fn jitter(&self) -> f64 {
        rand::rng().random_range(0.5..=1.0)
    }
}

/// How many days one insert may have rows of.
const MAX_DAYS: &str = "100";

/// ClickHouse's HTTP interface.
#[derive(Debug)]
pub struct Http {
    client: clickhouse::Client,
    database: String,
    timeout: Duration,
}

impl Http {
    /// To the database that the configuration names.
    pub fn new(config: &WriterConfig) -> Self {
        let seconds = config.insert_timeout.as_secs().max(1);
        let client = config
            .connection
            .client()
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
            .with_setting("max_execution_time", seconds.to_string());
        Self {
            client,
            database: config.database.clone(),
            // The server must give up before we do: then its answer says what became of the insert.
            timeout: config.insert_timeout + Duration::from_secs(2),
        }
    }

    async fn send(
        &self,
        table: TableId,
        token: &str,
        body: Bytes,
    ) -> Result<(), clickhouse::error::Error> {
        let mut insert = self
            .client
            .insert_formatted_with(table.insert(&self.database))
            .with_setting("insert_deduplication_token", token)
            // What an insert feeds must recognise a repeat too, also of an insert that failed half way.
            .with_setting("deduplicate_blocks_in_dependent_materialized_views", "1")
            .with_timeouts(Some(self.timeout), Some(self.timeout));
        insert.send(body).await?;
        insert.end().await
    }
}

impl Inserts for Http {
    async fn insert(&self, table: TableId, token: &str, body: Bytes) -> Result<(), Failure> {
        let sent = self.send(table, token, body).await;
        sent.map_err(|error| Failure::of(&error))
    }
}
