//! How full the store's volume is, looked up now and then for `/status` and the metrics.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use spanloom_store::access::Access;
use spanloom_store::volume::{self, Volume};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Between two looks. Every collector looks; a large cluster has hundreds.
const EVERY: Duration = Duration::from_secs(120);
/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The level as it was seen last. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Level {
    seen: Arc<Mutex<Option<Volume>>>,
    free_bytes: Gauge,
}

impl Level {
    /// The part of the volume that is used, in percent.
    pub(crate) fn used_percent(&self) -> Option<u8> {
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.map(|volume| volume.used_percent)
    }

    fn set(&self, volume: Volume) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(volume);
        self.free_bytes
            .set(i64::try_from(volume.free_bytes).unwrap_or(i64::MAX));
    }
}

/// The task that looks.
pub(crate) struct Watch {
    pub(crate) level: Level,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Watch {
    pub(crate) fn start(access: Access, registry: &mut Registry) -> Self {
        let level = Level::default();
        registry.register(
            "spanloom_store_free_bytes",
            "Free bytes of ClickHouse's fullest local disk, looked up every two minutes; 0 until then",
            level.free_bytes.clone(),
        );
        let stop = CancellationToken::new();
        let (ours, seen) = (stop.clone(), level.clone());
        let task = tokio::spawn(async move {
            let looking = look_again_and_again(access, seen);
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

async fn look_again_and_again(access: Access, level: Level) {
    let mut moves = access.moves();
    loop {
        let Ok(client) = access.client() else {
            moves.next().await;
            continue;
        };
        let client = client.with_product_info("spanloom", env!("CARGO_PKG_VERSION"));
        match tokio::time::timeout(PATIENCE, volume::fullest(&client)).await {
            Ok(Ok(Some(volume))) => level.set(volume),
            Ok(Ok(None)) => {}
            // A store that is away is told elsewhere; the level stays as it was.
            Ok(Err(error)) => tracing::debug!(%error, "cannot check the store's volume"),
            Err(_) => tracing::debug!("the check of the store's volume timed out"),
        }
        let pause = EVERY.mul_f64(rand::random_range(0.8..=1.2));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // Another server has another volume.
            () = moves.next() => {}
        }
    }
}
