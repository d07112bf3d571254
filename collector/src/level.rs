//! How full the store's volume is, looked up now and then for `/status`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use spanloom_store::connection::Connection;
use spanloom_store::volume;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Between two looks. Every collector looks; a large cluster has hundreds.
const EVERY: Duration = Duration::from_secs(120);
/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Nothing is known yet.
const UNKNOWN: u8 = u8::MAX;

/// The level as it was seen last. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Level(Arc<AtomicU8>);

impl Level {
    /// The part of the volume that is used, in percent.
    pub(crate) fn used_percent(&self) -> Option<u8> {
        let used = self.0.load(Ordering::Relaxed);
        (used != UNKNOWN).then_some(used)
    }
}

/// The task that looks.
pub(crate) struct Watch {
    pub(crate) level: Level,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Watch {
    pub(crate) fn start(connection: Connection) -> Self {
        let level = Level(Arc::new(AtomicU8::new(UNKNOWN)));
        let stop = CancellationToken::new();
        let (ours, seen) = (stop.clone(), level.clone());
        let task = tokio::spawn(async move {
            let looking = look_again_and_again(connection, seen);
            let _ = ours.run_until_cancelled(looking).await;
        });
        Self { level, stop, task }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::warn!(%error, "the check of the store's volume exited unexpectedly");
        }
    }
}

async fn look_again_and_again(connection: Connection, level: Level) {
    let client = connection.client();
    loop {
        match tokio::time::timeout(PATIENCE, volume::used_percent(&client)).await {
            Ok(Ok(used)) => level.0.store(used.min(100), Ordering::Relaxed),
            // A store that is away is told elsewhere; the level stays as it was.
            Ok(Err(error)) => tracing::debug!(%error, "cannot check the store's volume"),
            Err(_) => tracing::debug!("the check of the store's volume timed out"),
        }
        tokio::time::sleep(EVERY.mul_f64(rand::random_range(0.8..=1.2))).await;
    }
}
