//! The API server's issuer and keys, kept up to date.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use kube::Client;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use serde::Deserialize;
use spanloom_program::causes;
use tokio::sync::{Notify, watch};

use super::token::Issuer;

/// How often the keys are read where nothing asks for them sooner.
const EVERY: Duration = Duration::from_secs(600);
/// How soon they are read again, after a failure or for a token with a key that is not known.
const AGAIN: Duration = Duration::from_secs(5);

/// The keys, none at first.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    issuer: RwLock<Option<Arc<Issuer>>>,
    /// A token has a key that is not known.
    wanted: Notify,
    changes: watch::Sender<()>,
    failures: Counter,
}

/// Why the keys are not read.
#[derive(Debug, thiserror::Error)]
enum KeysError {
    #[error("{0}")]
    Api(#[from] kube::Error),
    #[error("the request cannot be made: {0}")]
    Request(#[from] http::Error),
    #[error("the answer cannot be read: {0}")]
    Json(#[from] serde_json::Error),
}

#[derive(Debug, Deserialize)]
struct Discovery {
    issuer: String,
}

impl Keys {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "spanloom_sidecars_keys_failures",
            "Failures to read the keys of service accounts' tokens from the API server",
            self.failures.clone(),
        );
    }

    /// The issuer, once it is known.
    pub(super) fn issuer(&self) -> Option<Arc<Issuer>> {
        self.issuer
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Asks for the keys to be read again soon.
    pub(super) fn want(&self) {
        self.wanted.notify_one();
    }

    /// Changes when the keys do.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    pub(super) fn set(&self, issuer: Issuer) {
        *self.issuer.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(issuer));
        self.changes.send_replace(());
    }

    /// Reads them now and then. Never ends.
    pub(super) async fn follow(&self, client: Client) {
        loop {
            let pause = match read(&client).await {
                Ok(issuer) => {
                    self.set(issuer);
                    EVERY
                }
                Err(error) => {
                    self.failures.inc();
                    let error = causes(&error);
                    tracing::warn!(
                        error,
                        "cannot read the keys of tokens from the API server; the last ones stay in use"
                    );
                    AGAIN
                }
            };
            // Not sooner, whatever tokens are shown.
            tokio::time::sleep(AGAIN.min(pause)).await;
            let _ = tokio::time::timeout(pause.saturating_sub(AGAIN), self.wanted.notified()).await;
        }
    }
}

async fn read(client: &Client) -> Result<Issuer, KeysError> {
    let get = |path: &str| http::Request::get(path).body(Vec::new());
    let discovery = client
        .request_text(get("/.well-known/openid-configuration")?)
        .await?;
    let discovery: Discovery = serde_json::from_str(&discovery)?;
    let key_set = client.request_text(get("/openid/v1/jwks")?).await?;
    Ok(Issuer::new(discovery.issuer, &key_set)?)
}
