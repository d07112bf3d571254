//! Sidecars: their port, who they are, what they forward, and their configuration.
//!
//! 1. [`SidecarsConfig`] says where they are received. It is a listener of the pipeline like the others, with TLS.
//! 2. `token` checks the token that each shows against `keys`, the API server's, offline; `identify` finds the
//!    token's pod in the watch of this node's pods. What these say of a pod counts, whatever the sidecar says.
//! 3. `codec` reads what they forward: the pipeline takes the records and merges the measures.
//! 4. `configure` sends each its part of the configuration in force, and knows what each has applied.

mod codec;
mod configure;
mod identify;
mod keys;
mod token;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use spanloom_crds::agent::AgentConfig;
use spanloom_pipeline::config::{Listener, Route};
use spanloom_proto::sidecar::{FORWARD, MAX_FORWARD_BYTES};
use spanloom_tls::{HTTP2, ServerTls, TlsError};
use tokio_util::sync::CancellationToken;

pub(crate) use identify::PodsByToken;
pub use token::{Claims, TokenError};

/// Where sidecars are received.
#[derive(Debug, Clone)]
pub struct SidecarsConfig {
    /// The address; port 0 takes a free one.
    pub address: SocketAddr,
    /// The certificate chain, in PEM, read again when it changes.
    pub certificate_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
    /// The authorities that sidecars are to trust, in PEM, sent to them when they change; none: they keep those
    /// that they were started with.
    pub ca_file: Option<PathBuf>,
}

/// All that serves sidecars.
#[derive(Debug)]
pub(crate) struct Sidecars {
    config: SidecarsConfig,
    tls: ServerTls,
    keys: Arc<keys::Keys>,
    tokens: Arc<identify::Tokens>,
    hub: Arc<configure::Hub>,
}

impl Sidecars {
    pub(crate) fn new(
        config: SidecarsConfig,
        pods: Arc<dyn PodsByToken>,
        registry: &mut Registry,
    ) -> Result<Self, TlsError> {
        let tls = ServerTls::from_files(
            config.certificate_file.clone(),
            config.key_file.clone(),
            &[HTTP2],
        )?;
        let keys = Arc::<keys::Keys>::default();
        keys.register(registry);
        let tokens = identify::Tokens::new(Arc::clone(&keys), pods);
        tokens.register(registry);
        let hub = Arc::<configure::Hub>::default();
        hub.register(registry);
        Ok(Self {
            config,
            tls,
            keys,
            tokens,
            hub,
        })
    }

    /// Their listener.
    pub(crate) fn listener(&self) -> Listener {
        Listener {
            receiver: "sidecar",
            methods: vec![Route {
                path: FORWARD,
                codecs: vec![Arc::new(codec::Forward::new(self.hub.current()))],
            }],
            dialogues: vec![Arc::new(configure::Configure::new(Arc::clone(&self.hub)))],
            max_request_bytes: Some(MAX_FORWARD_BYTES),
            tls: Some(self.tls.clone()),
            identify: Some(Arc::clone(&self.tokens) as _),
            ..Listener::grpc(self.config.address)
        }
    }

    /// Who is told of each configuration, before it is in force.
    pub(crate) fn publisher(&self) -> Publisher {
        Publisher(Arc::clone(&self.hub))
    }

    /// Keeps the keys and the authorities up to date, until it is told to stop.
    pub(crate) async fn keep(self, client: kube::Client, stop: CancellationToken) {
        let work = async {
            let keys = self.keys.follow(client);
            match &self.config.ca_file {
                None => keys.await,
                Some(file) => {
                    tokio::join!(keys, self.hub.follow_authorities(file));
                }
            }
        };
        let _ = stop.run_until_cancelled(work).await;
    }
}

/// Tells sidecars of configurations.
#[derive(Debug, Clone)]
pub(crate) struct Publisher(Arc<configure::Hub>);

impl Publisher {
    /// This configuration is put in force now.
    pub(crate) fn publish(&self, config: &AgentConfig) {
        self.0.publish(config);
    }
}
