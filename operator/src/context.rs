//! What all passes share, and what is remembered of each pipeline between them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::Client;
use kube::core::DynamicObject;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use serde_json::Value;
use spanloom_crds::status::Status;
use spanloom_inject::Target;
use spanloom_inject::census::Counts;
use spanloom_plan::Pipeline;
use spanloom_plan::conditions::Webhook;
use spanloom_plan::release::{PipelineId, Release};
use spanloom_plan::render::MANAGER;
use spanloom_plan::retry::Refusals;
use spanloom_plan::steps::Settled;
use spanloom_plan::webhook::{has_entry, webhook_name};
use spanloom_program::causes;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::census::Census;
use crate::cluster::{Cluster, ClusterError};
use crate::keep::{AuthorityKeeper, Kept};
use crate::kinds::{DEPLOYMENT, GRAFANA_DATASOURCE, WEBHOOK_CONFIGURATION};
use crate::leadership::Leadership;
use crate::metrics::Metrics;
use crate::probing::Probes;
use crate::watches::{Asked, Watches};

/// How often the API is asked whether it serves the Grafana operator's kind.
const DISCOVER_EVERY: Duration = Duration::from_secs(120);

/// How often the webhook's objects are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What all passes share.
pub struct Context {
    /// What the release says.
    pub release: Release,
    /// The API.
    pub cluster: Cluster,
    /// The numbers.
    pub metrics: Metrics,
    /// The certificate authority.
    pub authorities: AuthorityKeeper,
    /// What the watches have told.
    pub watches: Watches,
    /// The way to pods, and the probes that are under way.
    pub probes: Probes,
    /// Where events are published.
    pub events: Recorder,
    /// Told when a pipeline is seen for the first time.
    pub came: Notify,
    /// Told when all pipelines have been listed, and when one of them changes, comes or goes.
    pub pipelines_changed: Notify,
    asked: Asked,
    memories: Mutex<HashMap<PipelineId, Memory>>,
    grafana: tokio::sync::Mutex<Option<(Instant, bool)>>,
    webhook: tokio::sync::Mutex<Option<(Instant, Option<WebhookObjects>)>>,
    injection: Mutex<Injection>,
}

/// What pods are counted with.
#[derive(Debug, Default)]
struct Injection {
    /// The pods; none where nothing is injected.
    census: Option<Census>,
    /// The pipelines that inject.
    targets: Arc<[Target]>,
    /// What was counted last.
    counts: Option<(Instant, BTreeMap<PipelineId, Counts>)>,
}

/// The objects of the webhook, as they were found.
#[derive(Debug, Default)]
pub struct WebhookObjects {
    deployment: Option<Value>,
    configuration: Option<Value>,
}

/// What is remembered of a pipeline between passes. Nothing in it is needed after a restart.
#[derive(Debug, Default)]
pub struct Memory {
    /// Objects that are read by name.
    pub kept: Kept,
    /// Objects that the server keeps in a form of its own.
    pub settled: Settled,
    /// Objects that were refused not long ago.
    pub refusals: Refusals,
    /// What events said of objects, by uid, and when they were looked at.
    pub told: BTreeMap<String, (Instant, Option<String>)>,
    /// The nodes that were Ready, and the named objects as they were.
    pub surroundings: Surroundings,
    /// The status that was written last, and the version of the pipeline that came of it.
    pub said: Option<(Status, u64)>,
    /// What each collector had counted, by its pod's uid, and when.
    pub counts: Option<(Instant, HashMap<String, u64>)>,
    /// When `spansPerSecond` was last changed.
    pub rate_shown: Option<Instant>,
    /// When `injection` was last changed.
    pub injection_shown: Option<Instant>,
    /// Passes in a row that failed.
    pub failures: u32,
}

/// What may have been the cause when a rollout failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The nodes that are Ready.
    pub ready: BTreeSet<String>,
    /// Names the objects that pods name, as they are.
    pub named: String,
}

impl Surroundings {
    /// Whether a node became Ready or a named object changed since; nothing is known at first.
    pub fn has_changed_since(&self, before: &Self) -> bool {
        *before != Self::default()
            && (self.named != before.named || !self.ready.is_subset(&before.ready))
    }
}

impl Context {
    /// What passes need. `asked` takes the passes that a probe asks for when it ends.
    pub fn new(
        client: Client,
        release: Release,
        pod_name: &str,
        metrics: Metrics,
        leadership: Leadership,
        watches: Watches,
        asked: Asked,
    ) -> Self {
        let reporter = Reporter {
            controller: MANAGER.to_owned(),
            instance: Some(pod_name.to_owned()).filter(|name| !name.is_empty()),
        };
        Self {
            events: Recorder::new(client.clone(), reporter),
            cluster: Cluster::new(client, metrics.clone(), leadership),
            release,
            metrics,
            watches,
            authorities: AuthorityKeeper::default(),
            probes: Probes::new(asked.clone()),
            asked,
            came: Notify::new(),
            pipelines_changed: Notify::new(),
            memories: Mutex::default(),
            grafana: tokio::sync::Mutex::default(),
            webhook: tokio::sync::Mutex::default(),
            injection: Mutex::default(),
        }
    }

    /// Asks for a pass over a pipeline.
    pub async fn ask(&self, pipeline: ObjectRef<DynamicObject>) {
        // With nobody left to ask, the operator ends.
        let _ = self.asked.send(pipeline).await;
    }

    /// Looks at what is remembered of a pipeline, and may change it.
    pub fn memory<T>(&self, id: &PipelineId, look: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memories = self.memories();
        if !memories.contains_key(id) {
            self.came.notify_one();
        }
        look(memories.entry(id.clone()).or_default())
    }

    fn memories(&self) -> MutexGuard<'_, HashMap<PipelineId, Memory>> {
        // What is set under it is set in whole values.
        self.memories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets pipelines that are gone.
    pub fn forget_all_but(&self, pipelines: &[PipelineId]) {
        let known: Vec<_> = self.memories().keys().cloned().collect();
        for id in known.iter().filter(|id| !pipelines.contains(id)) {
            self.forget(id);
        }
    }

    /// A pipeline is gone.
    pub fn forget(&self, id: &PipelineId) {
        self.memories().remove(id);
        self.probes.forget(id);
        self.metrics.forget(&id.0, &id.1);
    }

    /// Whether the API serves the Grafana operator's kind, asked now and then. An API that does not
    /// answer changes nothing.
    pub async fn serves_grafana(&self) -> bool {
        let mut discovered = self.grafana.lock().await;
        if let Some((when, is_served)) = *discovered
            && when.elapsed() < DISCOVER_EVERY
        {
            return is_served;
        }
        let before = discovered.is_some_and(|(_, is_served)| is_served);
        let is_served = match self.cluster.serves(GRAFANA_DATASOURCE).await {
            Ok(is_served) => is_served,
            Err(error) => {
                tracing::warn!("{}", causes(&error));
                before
            }
        };
        *discovered = Some((Instant::now(), is_served));
        is_served
    }

    /// The webhook as it is for a pipeline, looked at now and then.
    pub async fn webhook(&self, pipeline: &Pipeline) -> Webhook {
        if !self.release.webhook {
            return Webhook::None;
        }
        let mut seen = self.webhook.lock().await;
        let is_fresh = |(when, _): &(Instant, _)| when.elapsed() < LOOK_EVERY;
        if !seen.as_ref().is_some_and(is_fresh) {
            let before = seen.take().and_then(|(_, objects)| objects);
            let objects = match self.webhook_objects().await {
                Ok(objects) => Some(objects),
                // An API server that does not answer changes nothing.
                Err(error) => {
                    tracing::warn!("{}", causes(&error));
                    before
                }
            };
            *seen = Some((Instant::now(), objects));
        }
        let Some((_, Some(objects))) = &*seen else {
            return Webhook::Unknown;
        };
        match (&objects.deployment, &objects.configuration) {
            (Some(deployment), Some(configuration)) => Webhook::Seen {
                ready: deployment["status"]["readyReplicas"].as_i64().unwrap_or(0),
                is_asked: has_entry(pipeline, configuration),
            },
            _ => Webhook::Missing,
        }
    }

    /// The pods are counted from here.
    pub fn count_pods(&self, census: Census) {
        self.injection().census = Some(census);
    }

    /// These pipelines inject.
    pub fn set_targets(&self, targets: Arc<[Target]>) {
        let mut injection = self.injection();
        injection.targets = targets;
        injection.counts = None;
    }

    /// The pods that a pipeline selects, counted now and then; none until all are known.
    pub fn counts(&self, id: &PipelineId) -> Option<Counts> {
        let mut injection = self.injection();
        let Injection {
            census,
            targets,
            counts,
        } = &mut *injection;
        let is_fresh = |(when, _): &(Instant, _)| when.elapsed() < LOOK_EVERY;
        if !counts.as_ref().is_some_and(is_fresh) {
            *counts = Some((Instant::now(), census.as_ref()?.counts(targets)?));
        }
        let (_, counts) = counts.as_ref()?;
        counts.get(id).cloned()
    }

    fn injection(&self) -> MutexGuard<'_, Injection> {
        // What is set under it is set in whole values.
        self.injection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn webhook_objects(&self) -> Result<WebhookObjects, ClusterError> {
        let (name, namespace) = (webhook_name(&self.release), &self.release.namespace);
        Ok(WebhookObjects {
            deployment: self.cluster.get(DEPLOYMENT, Some(namespace), &name).await?,
            configuration: self.cluster.get(WEBHOOK_CONFIGURATION, None, &name).await?,
        })
    }
}
