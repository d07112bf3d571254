//! The configuration in force: from the environment or the last container first, then from the stream.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use spanloom_crds::agent::{ConfigHead, NotUnderstood};
use spanloom_crds::sidecar::SidecarConfig;
use spanloom_pipeline::process::{Processing, ProcessingError};
use spanloom_pipeline::server::Control;

use crate::pod::PodIdentity;

/// For how long after a change it is not said by which configuration spans were processed: longer than a request
/// takes whose processing began before the change.
const SETTLE: Duration = Duration::from_secs(1);

/// The hash of the configuration by which spans are processed now; empty where that is not one, or where a later
/// one was refused.
#[derive(Debug, Default)]
pub struct InForce(RwLock<Arc<str>>);

impl InForce {
    /// The hash.
    pub fn hash(&self) -> Arc<str> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, hash: &str) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = hash.into();
    }
}

/// Why a configuration is not put in force.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It is something else.
    #[error("it is not a valid configuration in JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A later version of the operator wrote it, and uses what this sidecar does not know.
    #[error(transparent)]
    NotUnderstood(#[from] NotUnderstood),
    /// Its rules cannot be applied.
    #[error(transparent)]
    Processing(#[from] ProcessingError),
}

/// A configuration that this sidecar understands.
pub fn read(text: &[u8]) -> Result<SidecarConfig, Refused> {
    let head: ConfigHead = serde_json::from_slice(text)?;
    head.check()?;
    Ok(serde_json::from_slice(text)?)
}

/// What a configuration does to spans. How old they may be is the collector's to say, which stores them.
pub fn processing(config: &SidecarConfig) -> Processing {
    let uid = &config.pipeline.uid;
    Processing {
        enabled: config.enabled,
        probe: (!uid.is_empty()).then(|| uid.clone()),
        resource: config.processing.resource.clone(),
        rules: config.processing.rules.clone(),
        head_ratio: config.sampling.ratio,
        retention: Duration::MAX,
    }
}

/// What became of the configurations that came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// The hash of the one in use.
    pub applied: String,
    /// The hash of the last one that was refused since then.
    pub refused: String,
    /// Why it was refused.
    pub error: String,
}

/// Puts configurations in force.
pub struct Live {
    control: Control,
    in_force: Arc<InForce>,
    pod: Arc<PodIdentity>,
    status: Mutex<Status>,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl Live {
    /// Nothing is in force yet.
    pub fn new(control: Control, in_force: Arc<InForce>, pod: Arc<PodIdentity>) -> Self {
        Self {
            control,
            in_force,
            pod,
            status: Mutex::default(),
        }
    }

    /// What became of the configurations.
    pub fn status(&self) -> Status {
        self.lock().clone()
    }

    /// Puts the first configuration in force, before there are spans.
    ///
    /// # Errors
    /// Why it is not.
    pub fn begin(&self, text: &[u8]) -> Result<(), Refused> {
        let config = self.apply(text)?;
        self.in_force.set(&config.hash);
        Ok(())
    }

    /// A configuration came. Returns whether it is a new one that was put in force.
    pub async fn take(&self, hash: &str, text: &[u8]) -> bool {
        let status = self.status();
        if !hash.is_empty() && (status.applied == hash && status.refused.is_empty()) {
            return false;
        }
        self.in_force.set("");
        match self.apply(text) {
            Ok(config) => {
                tracing::info!(hash = config.hash, "applied a new configuration");
                tokio::time::sleep(SETTLE).await;
                self.in_force.set(&config.hash);
                true
            }
            Err(error) => {
                let error = error.to_string();
                tracing::error!(
                    hash,
                    error,
                    "rejected a configuration; the last good one stays applied"
                );
                let mut status = self.lock();
                status.refused = hash.to_owned();
                status.error = error;
                false
            }
        }
    }

    fn apply(&self, text: &[u8]) -> Result<SidecarConfig, Refused> {
        let config = read(text)?;
        self.control.set_processing(&processing(&config))?;
        self.pod.select(&config.processing.kubernetes);
        *self.lock() = Status {
            applied: config.hash.clone(),
            ..Status::default()
        };
        Ok(config)
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        // What is set under it is set in whole values.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
