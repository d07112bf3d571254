//! The store's writer as the place where frozen batches go.

use std::sync::Arc;

use spanloom_pipeline::{Export, ExportOutcome, RefusedRows};
use spanloom_store::block::Frozen;
use spanloom_store::writer::{WriteOutcome, Writer};
use tokio_util::task::TaskTracker;

/// The writer, under the pipeline's name for it.
#[derive(Debug)]
pub(crate) struct StoreExport {
    writer: Arc<Writer>,
    /// Batches that were acknowledged and may not be stored yet; see
    /// [`CollectorConfig::acknowledge_early`](crate::CollectorConfig::acknowledge_early).
    early: Option<TaskTracker>,
}

impl StoreExport {
    pub(crate) fn new(writer: Arc<Writer>, acknowledge_early: bool) -> Self {
        Self {
            writer,
            early: acknowledge_early.then(TaskTracker::new),
        }
    }
}

impl Export for StoreExport {
    type Frozen = Frozen;

    async fn export(&self, batch: Frozen) -> ExportOutcome {
        if let Some(early) = &self.early {
            let writer = Arc::clone(&self.writer);
            early.spawn(async move { writer.write(batch).await });
            return ExportOutcome::Stored;
        }
        match self.writer.write(batch).await {
            WriteOutcome::Stored => ExportOutcome::Stored,
            WriteOutcome::Unavailable(reason) => ExportOutcome::Unavailable(reason),
            WriteOutcome::Partial(refused) => ExportOutcome::Partial(
                refused
                    .into_iter()
                    .map(|rows| RefusedRows {
                        range: rows.range,
                        reason: rows.reason,
                    })
                    .collect(),
            ),
        }
    }
}
