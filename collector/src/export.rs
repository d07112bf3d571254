//! The store's writer as the place where frozen batches go.

use spanloom_pipeline::{Export, ExportOutcome, RefusedRows, Trouble};
use spanloom_store::block::Frozen;
use spanloom_store::writer::{Http, Inserts, WriteOutcome, Writer};

/// The writer, under the pipeline's name for it.
#[derive(Debug)]
pub struct StoreExport<I = Http>(pub Writer<I>);

impl<I: Inserts> Export for StoreExport<I> {
    type Frozen = Frozen;

    fn trouble(&self) -> Option<Trouble> {
        self.0.trouble().now().map(|kind| Trouble {
            message: kind.to_string(),
            lasts: kind.lasts(),
        })
    }

    async fn export(&self, batch: Frozen) -> ExportOutcome {
        match self.0.write(batch).await {
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
