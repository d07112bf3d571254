//! The webhook: answers the API server when a pod is created. It has no leader and no state of its own; each
//! replica answers from what its watches have told (`known`), without a call (`review`).
//!
//! Nothing that goes wrong here may hurt a pod: what cannot be answered well is answered with "as it is", and
//! where there is no answer, the API server creates the pod as it is.

mod known;
mod metrics;
mod review;
mod server;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use spanloom_plan::Release;
use spanloom_plan::webhook::webhook_names;
use spanloom_tls::ServerTls;

use crate::settings::ReleaseSettings;

pub use known::Known;
pub use metrics::Metrics;
pub use review::{ReviewError, answer};
pub use server::{Server, StartError};

/// What the release tells the webhook.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// The release itself.
    #[command(flatten)]
    pub of: ReleaseSettings,
    /// The address to answer the API server on.
    #[arg(long, env = "SPANLOOM_WEBHOOK_LISTEN", default_value = "[::]:8443")]
    pub listen: SocketAddr,
    /// The directory with `tls.crt`, `tls.key` and `ca.crt`.
    #[arg(
        long,
        env = "SPANLOOM_WEBHOOK_TLS_DIR",
        default_value = "/etc/spanloom/webhook-tls"
    )]
    pub tls_dir: PathBuf,
    /// How long to go on answering after SIGTERM, until the API server no longer sends requests here, in
    /// seconds.
    #[arg(
        long,
        env = "SPANLOOM_WEBHOOK_DRAIN_DELAY_SECONDS",
        default_value_t = 5
    )]
    pub drain_delay_seconds: u16,
}

impl Settings {
    /// What of the release the webhook needs.
    pub fn release(&self) -> Release {
        Release {
            namespace: self.of.namespace.clone(),
            name: self.of.release.clone(),
            namespaces: self.of.namespaces(),
            webhook: true,
            ..Release::default()
        }
    }

    /// How long to go on answering after SIGTERM.
    pub fn drain_delay(&self) -> Duration {
        Duration::from_secs(u64::from(self.drain_delay_seconds))
    }
}

/// Why the webhook is not ready: it does not know yet what there is, or the API server would not take its
/// certificate.
pub fn not_ready(settings: &Settings, known: &Known, tls: &ServerTls) -> Option<String> {
    known.not_ready().or_else(|| {
        let names = webhook_names(&settings.release());
        let ca = settings.tls_dir.join("ca.crt");
        let name = names.first()?;
        let wrong = tls.check(&ca, name).err()?;
        Some(wrong.to_string())
    })
}

/// All that an answer needs.
#[derive(Debug)]
pub struct Answerer {
    /// What the watches have told.
    pub known: Arc<Known>,
    /// The numbers.
    pub metrics: Metrics,
}
