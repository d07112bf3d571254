//! The configuration in force, and what became of the ones that came after it.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use spanloom_crds::agent::{ConfigHead, ConfigStatus};
use spanloom_crds::resolved::Server;
use spanloom_pipeline::process::Processor;
use spanloom_pipeline::server::Control;
use spanloom_store::access::{Access, AccessError};
use tokio::sync::watch;

use super::pods::PodIndex;
use crate::config::{self, Unreadable};
use crate::pace::{QUIET, batch_age};
use crate::sidecars::Publisher;

/// The hash that is reported for a configuration that does not even say its own.
const NO_HASH: &str = "unknown";

/// Puts configurations in force.
pub(super) struct Live {
    control: Control,
    store: Access,
    pods: Arc<PodIndex>,
    /// Tells sidecars.
    publisher: Option<Publisher>,
    state: Mutex<State>,
    applied: Counter,
    refused: Counter,
    watch_errors: Counter,
    generation: Gauge,
    refused_now: Gauge,
    gone: Gone,
}

#[derive(Default)]
struct State {
    status: ConfigStatus,
    /// Why there is none yet.
    waiting_for: Option<String>,
}

/// Why a configuration is not put in force.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error(transparent)]
    Processing(#[from] spanloom_pipeline::process::ProcessingError),
    #[error("cannot connect to ClickHouse: {0}")]
    Access(#[from] AccessError),
}

impl Live {
    pub(super) fn new(
        control: Control,
        store: Access,
        pods: Arc<PodIndex>,
        publisher: Option<Publisher>,
    ) -> Self {
        Self {
            control,
            store,
            pods,
            publisher,
            state: Mutex::default(),
            applied: Counter::default(),
            refused: Counter::default(),
            watch_errors: Counter::default(),
            generation: Gauge::default(),
            refused_now: Gauge::default(),
            gone: Gone::default(),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let mut count = |name: &str, help: &str, counter: &Counter<u64, AtomicU64>| {
            registry.register(format!("spanloom_config_{name}"), help, counter.clone());
        };
        count("applied", "Configurations applied", &self.applied);
        count("refused", "Configurations rejected", &self.refused);
        count(
            "watch_errors",
            "Failures of the watch of the configuration object",
            &self.watch_errors,
        );
        let mut level = |name: &str, help: &str, gauge: &Gauge| {
            registry.register(format!("spanloom_config_{name}"), help, gauge.clone());
        };
        level(
            "generation",
            "The generation of the pipeline whose configuration is applied",
            &self.generation,
        );
        level(
            "refused_now",
            "1 while the latest configuration is rejected and an older one is applied",
            &self.refused_now,
        );
    }

    /// So many collectors share the store, in text; none is said by an earlier operator.
    pub(super) fn share(&self, collectors: Option<&str>) {
        let collectors = collectors.and_then(|text| text.parse().ok()).unwrap_or(0);
        let has_log = self.control.undelivered().is_some();
        self.control.set_pace(batch_age(collectors, has_log), QUIET);
    }

    /// A configuration came.
    pub(super) fn take(&self, text: &str) {
        self.gone.set(false);
        let head: ConfigHead = serde_json::from_str(text).unwrap_or_default();
        {
            let state = self.state();
            let same = |hash: &Option<String>| hash.as_deref() == Some(&head.hash);
            // A watch that begins anew says again what is known.
            let known = !head.hash.is_empty()
                && match &state.status.refused {
                    Some(_) => same(&state.status.refused),
                    None => same(&state.status.applied),
                };
            if known {
                return;
            }
        }
        match self.apply(text) {
            Ok((generation, uses)) => {
                let hash = head.hash;
                tracing::info!(generation, hash, "applied a new configuration");
                self.applied.inc();
                self.refused_now.set(0);
                self.generation.set(generation);
                let mut state = self.state();
                state.waiting_for = None;
                state.status = ConfigStatus {
                    applied: Some(hash),
                    generation: Some(generation),
                    uses,
                    ..ConfigStatus::default()
                };
            }
            Err(error) => self.refuse(Some(head.hash), error.to_string()),
        }
    }

    /// Puts it in force. Returns the generation that it was made from and what it uses.
    fn apply(&self, text: &str) -> Result<(i64, Vec<String>), Refused> {
        let config = config::read_agent_config(text)?;
        let processing = config::agent_processing(&config);
        // The address of a managed store never changes: the pod is started with it.
        let place = match &config.resolved.storage.server {
            Server::External { url, .. } => Some(self.store.place(url)?),
            Server::Managed { .. } => None,
        };
        if let Some(publisher) = &self.publisher {
            // Sidecars are told before, and only of rules that can be applied: spans that they have processed by
            // the last ones are processed once more from then on, and none too little.
            Processor::new(&processing)?;
            publisher.publish(&config);
        }
        self.control.set_processing(&processing)?;
        if let Some(place) = place {
            self.store.move_to(place);
        }
        self.pods.select(&config.resolved.processing.kubernetes);
        Ok((config.generation, config.uses()))
    }

    /// What came cannot be used; what is in force stays.
    pub(super) fn refuse(&self, hash: Option<String>, why: String) {
        let hash = hash.filter(|hash| !hash.is_empty());
        tracing::error!(
            hash,
            why,
            "rejected a configuration; the last good one stays applied"
        );
        self.refused.inc();
        self.refused_now.set(1);
        let mut state = self.state();
        state.waiting_for = Some(format!("the configuration was rejected: {why}"));
        state.status.refused = Some(hash.unwrap_or_else(|| NO_HASH.to_owned()));
        state.status.error = Some(why);
    }

    /// The object is not there; what is in force stays.
    pub(super) fn missing(&self, why: String) {
        tracing::warn!(why, "the ConfigMap with the configuration does not exist");
        self.state().waiting_for = Some(why);
        self.gone.set(true);
    }

    /// Waits until the object has not existed for so long.
    pub(super) async fn is_gone_for(&self, time: Duration) {
        self.gone.lasts(time).await;
    }

    /// The object cannot be watched; what is in force stays.
    pub(super) fn broken(&self, why: String) {
        tracing::warn!(why, "the watch of the configuration failed; restarting it");
        self.watch_errors.inc();
        self.state().waiting_for = Some(why);
    }

    pub(super) fn status(&self) -> ConfigStatus {
        self.state().status.clone()
    }

    /// Why nothing is in force yet.
    pub(super) fn not_ready(&self) -> Option<String> {
        let state = self.state();
        if state.status.applied.is_some() {
            return None;
        }
        let why = state.waiting_for.as_deref();
        Some(why.unwrap_or("waiting for the configuration").to_owned())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What is set under it is set in whole values.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the object does not exist.
#[derive(Default)]
struct Gone(watch::Sender<bool>);

impl Gone {
    fn set(&self, is_gone: bool) {
        self.0.send_replace(is_gone);
    }

    /// Waits until it has been gone for so long without a break.
    async fn lasts(&self, time: Duration) {
        let mut gone = self.0.subscribe();
        loop {
            // The sender is ours, so it is there.
            let _ = gone.wait_for(|gone| *gone).await;
            let back = gone.wait_for(|gone| !*gone);
            if tokio::time::timeout(time, back).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_object_that_comes_back_is_not_gone() {
        let gone = Gone::default();
        gone.set(true);
        let wait = gone.lasts(Duration::from_secs(15));
        tokio::pin!(wait);
        let soon = Duration::from_secs(14);
        assert!(tokio::time::timeout(soon, &mut wait).await.is_err());
        gone.set(false);
        let later = Duration::from_secs(3600);
        assert!(tokio::time::timeout(later, &mut wait).await.is_err());
        gone.set(true);
        let start = tokio::time::Instant::now();
        wait.await;
        assert_eq!(start.elapsed(), Duration::from_secs(15));
    }
}
