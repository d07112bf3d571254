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

pub use known::Known;
pub use metrics::Metrics;
pub use review::{ReviewError, answer};
pub use server::{Server, StartError};

/// What the release tells the webhook.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// The release's namespace.
    #[arg(long, env = "SPANLOOM_OPERATOR_NAMESPACE")]
    pub namespace: String,
    /// The release's name.
    #[arg(long, env = "SPANLOOM_OPERATOR_RELEASE", default_value = "spanloom")]
    pub release: String,
    /// Additional namespaces in which pipelines are allowed, comma-separated.
    #[arg(
        long,
        env = "SPANLOOM_OPERATOR_PIPELINE_NAMESPACES",
        value_delimiter = ','
    )]
    pub pipeline_namespaces: Vec<String>,
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
    /// The address to serve /metrics, /healthz and /readyz on.
    #[arg(long, env = "SPANLOOM_OPERATOR_ADMIN", default_value = "[::]:9464")]
    pub admin: SocketAddr,
}

impl Settings {
    /// What of the release the webhook needs.
    pub fn release(&self) -> Release {
        Release {
            namespace: self.namespace.clone(),
            name: self.release.clone(),
            namespaces: crate::settings::namespaces(&self.namespace, &self.pipeline_namespaces),
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
