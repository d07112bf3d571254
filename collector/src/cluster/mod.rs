//! A collector in a cluster: it watches its configuration object and the pods of its node.
//!
//! 1. [`Cluster`] says which object and which node, and how the API server is reached.
//! 2. `config_map` follows the object; `live` puts what it says in force, or refuses it and keeps the
//!    last good one.
//! 3. `pods` follows the node's pods and keeps of each what its spans are signed with (`identity`),
//!    by address.
//!
//! Both watches end with the collector and begin anew, with growing pauses, when they break; until
//! then the last known state holds. A collector that may not watch pods serves without enrichment.

mod config_map;
mod identity;
mod live;
mod pods;

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use prometheus_client::registry::Registry;
use spanloom_crds::agent::ConfigStatus;
use spanloom_pipeline::Identify;
use spanloom_pipeline::config::Listener;
use spanloom_pipeline::server::Control;
use spanloom_store::Access;
use spanloom_tls::TlsError;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use live::Live;
use pods::PodIndex;

use crate::sidecars::{Sidecars, SidecarsConfig};

/// How long the API server may be silent in a watch: it sends a bookmark about every minute, and ends a watch
/// after five. A connection that is silent for longer leads nowhere.
const WATCH_SILENCE: Duration = Duration::from_secs(330);

/// Where a collector in a cluster finds what it needs to know.
#[derive(Clone)]
pub struct Cluster {
    /// The way to the API server.
    pub client: Client,
    /// The namespace of the configuration object, a ConfigMap.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The node whose pods send to this collector.
    pub node: String,
}

/// Why the API server cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The object's name is not `namespace/name`.
    #[error("SPANLOOM_CONFIG_MAP must be namespace/name, but is {0:?}")]
    ObjectName(String),
    /// Nobody said which node this is.
    #[error("set SPANLOOM_NODE_NAME to the node's name (spec.nodeName, by the downward API)")]
    NoNode,
    /// Neither a pod's service account nor a kubeconfig was found.
    #[error(
        "cannot find the API server: {0}; in a pod this needs automountServiceAccountToken, \
         elsewhere a kubeconfig"
    )]
    Config(#[from] kube::config::InferConfigError),
    /// The client cannot be made.
    #[error("cannot create a Kubernetes client: {0}")]
    Client(#[from] kube::Error),
}

impl Cluster {
    /// The cluster that this pod runs in, or the one of the current kubeconfig.
    ///
    /// # Errors
    /// When there is neither, or `object` is not `namespace/name`.
    pub async fn infer(object: &str, node: Option<String>) -> Result<Self, ClusterError> {
        let (namespace, name) = object
            .split_once('/')
            .filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty())
            .ok_or_else(|| ClusterError::ObjectName(object.to_owned()))?;
        let node = node
            .filter(|node| !node.is_empty())
            .ok_or(ClusterError::NoNode)?;
        let mut config = kube::Config::infer().await?;
        config.read_timeout = Some(WATCH_SILENCE);
        let client = Client::try_from(config)?;
        Ok(Self {
            client,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            node,
        })
    }
}

/// The operator makes an object that was deleted again within this time.
const DELETED_AFTER: Duration = Duration::from_secs(15);

/// The watches, before there is a pipeline that they can tell.
pub(crate) struct Watches {
    cluster: Cluster,
    pods: Arc<PodIndex>,
    sidecars: Option<Sidecars>,
}

impl Watches {
    pub(crate) fn new(cluster: Cluster, registry: &mut Registry) -> Self {
        let pods = PodIndex::new(cluster.node.clone());
        pods.register(registry);
        Self {
            cluster,
            pods,
            sidecars: None,
        }
    }

    /// Who knows the senders.
    pub(crate) fn identify(&self) -> Arc<dyn Identify> {
        Arc::clone(&self.pods) as Arc<dyn Identify>
    }

    /// Receives sidecars, too: the listener for them.
    pub(crate) fn receive(
        &mut self,
        config: SidecarsConfig,
        registry: &mut Registry,
    ) -> Result<Listener, TlsError> {
        let pods = Arc::clone(&self.pods);
        let sidecars = Sidecars::new(config, pods, registry)?;
        let listener = sidecars.listener();
        self.sidecars = Some(sidecars);
        Ok(listener)
    }

    /// Begins to watch.
    pub(crate) fn start(
        self,
        control: Control,
        store: Access,
        registry: &mut Registry,
    ) -> Watching {
        let Self {
            cluster,
            pods,
            sidecars,
        } = self;
        let publisher = sidecars.as_ref().map(Sidecars::publisher);
        let live = Arc::new(Live::new(control, store, Arc::clone(&pods), publisher));
        live.register(registry);
        let stop = CancellationToken::new();
        let (ours, theirs) = (stop.clone(), stop.clone());
        let following = config_map::follow(cluster.clone(), Arc::clone(&live));
        let config = tokio::spawn(async move {
            let _ = ours.run_until_cancelled(following).await;
        });
        let keeping = pods::follow(cluster.client.clone(), Arc::clone(&pods));
        let keeper = tokio::spawn(async move {
            let _ = theirs.run_until_cancelled(keeping).await;
        });
        let mut tasks = vec![config, keeper];
        if let Some(sidecars) = sidecars {
            let keeping = sidecars.keep(cluster.client, stop.clone());
            tasks.push(tokio::spawn(keeping));
        }
        Watching {
            live,
            pods,
            stop,
            tasks,
        }
    }
}

/// The watches of a collector that runs.
pub(crate) struct Watching {
    live: Arc<Live>,
    pods: Arc<PodIndex>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Watching {
    /// How far the configuration was taken, and why the collector is not ready, each when asked.
    pub(crate) fn state(&self) -> State {
        State {
            live: Arc::clone(&self.live),
            pods: Arc::clone(&self.pods),
        }
    }

    /// Waits until the pipeline is deleted: its configuration object is gone, and does not come back as it
    /// does when only it was deleted.
    pub(crate) async fn pipeline_is_deleted(&self) {
        self.live.is_gone_for(DELETED_AFTER).await;
    }

    /// Ends the watches.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::warn!(%error, "a watch exited unexpectedly");
            }
        }
    }
}

/// What can be asked of the watches.
#[derive(Clone)]
pub(crate) struct State {
    live: Arc<Live>,
    pods: Arc<PodIndex>,
}

impl State {
    pub(crate) fn config(&self) -> ConfigStatus {
        self.live.status()
    }

    pub(crate) fn not_ready(&self) -> Option<String> {
        self.live.not_ready().or_else(|| self.pods.not_ready())
    }
}
