//! Batches on their way: each is frozen and handed to the export in a task of its own, and what comes of it
//! to settlement.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::batch::{Export, ExportOutcome, Freeze};
use crate::flight::Slot;
use crate::parts::Parts;
use crate::settlement::Lot;

/// Sends batches of all workers.
pub(crate) struct Delivery<E> {
    export: Arc<E>,
    parts: Arc<Parts>,
    runtime: Handle,
    exports: TaskTracker,
    abort: CancellationToken,
}

impl<E: Export> Delivery<E> {
    /// Exports run on `runtime`, `exports` knows them, and `abort` gives them up.
    pub(crate) fn new(
        export: Arc<E>,
        parts: Arc<Parts>,
        runtime: Handle,
        exports: TaskTracker,
        abort: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            export,
            parts,
            runtime,
            exports,
            abort,
        })
    }

    /// Sends a batch, once a log has its name if there is one.
    pub(crate) fn send(&self, freeze: Freeze<E::Frozen>, mut lot: Lot, slot: Slot) {
        let export = Arc::clone(&self.export);
        let parts = Arc::clone(&self.parts);
        let abort = self.abort.clone();
        let way = async move {
            let Some(frozen) = parts.block(freeze).await else {
                return lot.spoil();
            };
            if let Some(bytes) = export.held_bytes(&frozen) {
                lot.hold(bytes);
            }
            let sending = async {
                match lot.name().await {
                    Ok(history) => export.export(frozen, &history).await,
                    Err(why) => ExportOutcome::Unavailable(why),
                }
            };
            let outcome = tokio::select! {
                biased;
                outcome = sending => outcome,
                () = abort.cancelled() => {
                    ExportOutcome::Unavailable("the collector is stopping; try again".into())
                }
            };
            lot.settle(outcome);
            drop(slot);
        };
        self.exports.spawn_on(way, &self.runtime);
    }
}
