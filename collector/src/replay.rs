//! Replays the dead letters of a log: `spanloom-collector replay-dead-letters` and `spanloom doctor log --replay`.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
pub use spanloom_pipeline::durable::{ReplayError, ReplayedLetters};
use spanloom_store::access::AccessError;
use spanloom_store::block::{BlockPool, BlockPoolOptions, SpanBlock, TableId};
use spanloom_store::failure::Failure;
use spanloom_store::writer::{Http, Inserts, SpanKey, Writer, WriterConfig};

use crate::batch::StoreBatch;
use crate::config::StoreAddress;
use crate::export::StoreExport;

/// Somebody waits for the result.
const GIVE_UP_AFTER: Duration = Duration::from_secs(5);

/// Why dead letters are not replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayLettersError {
    /// The credentials, or the authorities that ClickHouse's certificate is checked against, cannot be read.
    #[error("cannot connect to ClickHouse: {0}")]
    Access(#[from] AccessError),
    /// The letters cannot be read, or not be changed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
}

/// Sends the rows that ClickHouse refused once more. A collector may have the log open.
///
/// # Errors
/// When the file of dead letters cannot be read or changed. Rows that ClickHouse does not take are in the result.
pub async fn replay_letters(
    folder: &Path,
    store: &StoreAddress,
) -> Result<ReplayedLetters, ReplayLettersError> {
    let mut config = WriterConfig::new(store.access()?, store.database.clone());
    config.keep_unknown_for = GIVE_UP_AFTER;
    let inserts = OnlySpans(Http::new(&config));
    let export = StoreExport(Writer::with_inserts(inserts, config));
    // Beside a collector there is little memory.
    let pool = BlockPool::new(BlockPoolOptions {
        kept_bytes: 8 << 20,
        tag_cache_bytes: 1 << 20,
    });
    let make_batch = move || StoreBatch(SpanBlock::new(&pool));
    let replayed = spanloom_pipeline::durable::replay_letters(folder, make_batch, &export).await;
    Ok(replayed?)
}

/// Inserts spans. What else was made of them is stored: only rows of `spans` become dead letters, and their batch
/// went into all other tables.
struct OnlySpans(Http);

impl Inserts for OnlySpans {
    async fn insert(&self, table: TableId, token: &str, body: Bytes) -> Result<(), Failure> {
        match table {
            TableId::Spans => self.0.insert(table, token, body).await,
            _ => Ok(()),
        }
    }

    async fn look_up(&self, spans: &[SpanKey]) -> Result<HashSet<SpanKey>, Failure> {
        self.0.look_up(spans).await
    }
}
