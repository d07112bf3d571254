//! What makes passes happen: watches, the queue, and what all passes share.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, watcher};
use kube::runtime::{PredicateConfig, WatchStreamExt, predicates};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::Value;
use spanloom_crds::status::Status;
use spanloom_program::causes;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::cluster::{CLUSTER_ROLE_BINDING, Cluster, PIPELINE, api_text};
use crate::keep::AuthorityKeeper;
use crate::metrics::Metrics;
use crate::pipeline::Pipeline;
use crate::probe::Pods;
use crate::reconcile::{Discovered, Memories, Memory, ReconcileError, reconcile, serves_grafana};
use crate::render::{LABEL_MANAGED_BY, MANAGER, collectors_binding};
use crate::retry::{WatchBackoff, retry_after};
use crate::settings::Settings;

/// Changes within this time are one pass.
const DEBOUNCE: Duration = Duration::from_secs(1);
/// How often, at least, the cluster role binding is compared with the pipelines there are.
const BINDING_EVERY: Duration = Duration::from_secs(30);

/// What all passes share.
pub struct Context {
    /// What the release says.
    pub settings: Settings,
    /// The namespaces whose pipelines are served.
    pub namespaces: Vec<String>,
    /// The API.
    pub cluster: Cluster,
    /// The numbers.
    pub metrics: Metrics,
    /// The certificate authority.
    pub authorities: AuthorityKeeper,
    /// The way to pods.
    pub pods: Pods,
    events: Recorder,
    memories: Memories,
    grafana: Discovered,
    began: Notify,
}

impl Context {
    /// What passes need.
    pub fn new(client: Client, settings: Settings, metrics: Metrics) -> Self {
        let reporter = Reporter {
            controller: MANAGER.to_owned(),
            instance: Some(settings.pod_name.clone()).filter(|name| !name.is_empty()),
        };
        Self {
            namespaces: settings.namespaces(),
            events: Recorder::new(client.clone(), reporter),
            cluster: Cluster::new(client, metrics.clone()),
            settings,
            metrics,
            authorities: AuthorityKeeper::default(),
            pods: Pods::default(),
            memories: Memories::default(),
            grafana: Discovered::default(),
            began: Notify::new(),
        }
    }

    /// Changes what is remembered of a pipeline.
    pub(crate) fn remember(&self, namespace: &str, name: &str, change: impl FnOnce(&mut Memory)) {
        if let Ok(mut memories) = self.memories.lock() {
            let key = (namespace.to_owned(), name.to_owned());
            change(memories.entry(key).or_default());
        }
    }

    /// What is remembered of a pipeline.
    pub(crate) fn recall<T>(
        &self,
        pipeline: &Pipeline,
        look: impl FnOnce(&Memory) -> T,
    ) -> Option<T> {
        let memories = self.memories.lock().ok()?;
        let key = (pipeline.namespace.clone(), pipeline.name.clone());
        memories.get(&key).map(look)
    }

    /// A pass begins, so all pipelines are known by now.
    pub(crate) fn begins(&self) {
        self.began.notify_one();
    }

    /// Forgets pipelines that are gone.
    fn forget_all_but(&self, pipelines: &[(String, String)]) {
        let known: Vec<_> = match self.memories.lock() {
            Ok(memories) => memories.keys().cloned().collect(),
            Err(_) => return,
        };
        for key in known.iter().filter(|key| !pipelines.contains(key)) {
            self.forget(&key.0, &key.1);
        }
    }

    /// A pipeline is gone.
    pub(crate) fn forget(&self, namespace: &str, name: &str) {
        if let Ok(mut memories) = self.memories.lock() {
            memories.remove(&(namespace.to_owned(), name.to_owned()));
        }
        self.metrics.forget(namespace, name);
    }

    /// Whether the Grafana operator's kind is served.
    pub(crate) async fn serves_grafana(&self) -> bool {
        serves_grafana(&self.cluster, &self.grafana).await
    }

    /// An event for each condition that turned, or has another reason for being false.
    pub(crate) async fn tell(&self, object: &DynamicObject, previous: &Status, status: &Status) {
        let reference = ObjectReference {
            api_version: Some(PIPELINE.resource().api_version),
            kind: Some(PIPELINE.kind.to_owned()),
            name: object.metadata.name.clone(),
            namespace: object.metadata.namespace.clone(),
            uid: object.metadata.uid.clone(),
            ..ObjectReference::default()
        };
        let of = |status: &Status, type_: &str| {
            let found = status.conditions.iter().find(|c| c.type_ == type_);
            found.map(|c| (c.status.clone(), c.reason.clone()))
        };
        for condition in &status.conditions {
            let is_told = matches!(
                condition.type_.as_str(),
                "Accepted" | "AgentsReady" | "Ready"
            );
            let before = of(previous, &condition.type_);
            let now = (condition.status.clone(), condition.reason.clone());
            // Why it is not ready is said by the condition that is the reason.
            let is_same = match condition.type_.as_str() {
                "Ready" => before.as_ref().map(|(status, _)| status) == Some(&now.0),
                _ => before.as_ref() == Some(&now),
            };
            if !is_told || is_same {
                continue;
            }
            if condition.reason == "RolledBack" && condition.type_ == "AgentsReady" {
                self.metrics
                    .rolled_back(&object.namespace().unwrap_or_default(), &object.name_any());
            }
            let is_bad = matches!(
                condition.reason.as_str(),
                "RolledBack"
                    | "RolloutFailed"
                    | "ApplyFailed"
                    | "ProbeLost"
                    | "MigrationFailed"
                    | "NamespaceNotAllowed"
                    | "InvalidFilter"
                    | "InvalidSpec"
                    | "Unreadable"
            );
            let event = Event {
                type_: if is_bad {
                    EventType::Warning
                } else {
                    EventType::Normal
                },
                reason: condition.reason.clone(),
                note: Some(condition.message.chars().take(1_000).collect()),
                action: condition.type_.clone(),
                secondary: None,
            };
            match self.events.publish(&event, &reference).await {
                Ok(()) => self.metrics.wrote("Event", "publish"),
                Err(error) => {
                    // A namespace that is going away takes none any more.
                    tracing::info!("cannot publish an event: {}", api_text(&error));
                }
            }
        }
    }
}

/// Works on pipelines until `stop`.
pub async fn run(context: Arc<Context>, stop: CancellationToken) {
    let resource = PIPELINE.resource();
    let api: Api<DynamicObject> = context.cluster.api(PIPELINE, None);
    let (reader, writer) = {
        let writer = reflector::store::Writer::new(resource.clone());
        (writer.as_reader(), writer)
    };
    // A status that we write ourselves is no reason for a pass.
    let pipelines = watcher(api, watcher::Config::default())
        .backoff(WatchBackoff::default())
        .reflect(writer)
        .applied_objects()
        .predicate_filter(predicates::generation, PredicateConfig::default());
    let pipelines = without_errors(
        pipelines,
        context.metrics.clone(),
        PIPELINE.kind,
        String::new(),
    );
    let config = Config::default()
        .debounce(DEBOUNCE)
        .concurrency(context.settings.concurrency);
    let mut controller = Controller::for_stream_with(pipelines, reader.clone(), resource)
        .with_config(config)
        .graceful_shutdown_on(stop.clone().cancelled_owned());
    for namespace in &context.namespaces {
        controller = owns(controller, &context, namespace);
    }
    let binding = tokio::spawn(keep_binding(context.clone(), reader, stop.clone()));
    controller
        .run(reconcile, on_error, context)
        .for_each(|done| {
            match done {
                Ok((object, _)) => tracing::debug!(pipeline = %object.name, "passed"),
                // The pass itself has said so already; what is left are watches.
                Err(error) => tracing::debug!("{}", causes(&error)),
            }
            std::future::ready(())
        })
        .await;
    stop.cancel();
    if let Err(error) = binding.await {
        tracing::warn!(%error, "the binding's task ended abnormally");
    }
}

/// Passes when an object of ours changes: workloads with their status, the others by their metadata
/// alone.
fn owns(
    controller: Controller<DynamicObject>,
    context: &Context,
    namespace: &str,
) -> Controller<DynamicObject> {
    let client = context.cluster.client();
    let ours = || watcher::Config::default().labels(&format!("{LABEL_MANAGED_BY}={MANAGER}"));
    macro_rules! whole {
        ($controller:expr, $($kind:ty),*) => {{
            let controller = $controller;
            $(let controller = controller.owns_stream(without_errors(
                watcher(Api::<$kind>::namespaced(client.clone(), namespace), ours())
                    .backoff(WatchBackoff::default())
                    .touched_objects()
                    .predicate_filter(status_or_form::<$kind>, PredicateConfig::default()),
                context.metrics.clone(), stringify!($kind), namespace.to_owned(),
            ));)*
            controller
        }};
    }
    macro_rules! metadata {
        ($controller:expr, $($kind:ty),*) => {{
            let controller = $controller;
            $(let controller = controller.owns_stream(without_errors(
                watcher(Api::<PartialObjectMeta<$kind>>::namespaced(client.clone(), namespace), ours())
                    .backoff(WatchBackoff::default())
                    .touched_objects()
                    .predicate_filter(
                        predicates::resource_version::<PartialObjectMeta<$kind>>,
                        PredicateConfig::default(),
                    ),
                context.metrics.clone(), stringify!($kind), namespace.to_owned(),
            ));)*
            controller
        }};
    }
    let controller = whole!(controller, DaemonSet, Deployment, StatefulSet, Job);
    metadata!(
        controller,
        ConfigMap,
        Service,
        ServiceAccount,
        PodDisruptionBudget,
        Role,
        RoleBinding
    )
}

/// A watch's objects. Its errors end here, counted and logged: each watch is tried again later and
/// later by itself, while the controller would hold back all of them for the error of one.
fn without_errors<T>(
    watch: impl Stream<Item = Result<T, watcher::Error>>,
    metrics: Metrics,
    kind: &'static str,
    namespace: String,
) -> impl Stream<Item = Result<T, watcher::Error>> {
    watch.filter_map(move |item| {
        if let Err(error) = &item {
            metrics.failed("watch");
            // kube itself has warned.
            tracing::debug!(kind, namespace, "cannot watch yet: {}", causes(error));
        }
        std::future::ready(item.is_ok().then_some(item))
    })
}

/// Every change counts.
fn status_or_form<K: Resource>(object: &K) -> Option<u64> {
    let version = object.meta().resource_version.as_deref()?;
    version.parse().ok()
}

fn on_error(object: Arc<DynamicObject>, error: &ReconcileError, context: Arc<Context>) -> Action {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let class = error.class();
    let mut failures = 0;
    context.remember(&namespace, &name, |memory| {
        failures = memory.failures;
        memory.failures = failures.saturating_add(1);
    });
    context.metrics.failed(class.name());
    tracing::warn!(%namespace, pipeline = %name, class = class.name(), "{}", causes(error));
    Action::requeue(retry_after(class, failures))
}

/// Keeps the one cluster role binding true: its subjects are the agents of the served pipelines.
/// Before the first pass it is not known which there are, so it begins with one.
async fn keep_binding(
    context: Arc<Context>,
    pipelines: Store<DynamicObject>,
    stop: CancellationToken,
) {
    let mut all_are_known = false;
    loop {
        tokio::select! {
            () = context.began.notified() => all_are_known = true,
            () = tokio::time::sleep(BINDING_EVERY) => {}
            () = stop.cancelled() => return,
        }
        if !all_are_known {
            continue;
        }
        if let Err(error) = binding(&context, &pipelines).await {
            context.metrics.failed(error.class().name());
            tracing::warn!("{}", causes(&error));
        }
    }
}

async fn binding(
    context: &Context,
    pipelines: &Store<DynamicObject>,
) -> Result<(), ReconcileError> {
    let mut served: Vec<_> = pipelines
        .state()
        .iter()
        .map(|pipeline| {
            (
                pipeline.namespace().unwrap_or_default(),
                pipeline.name_any(),
            )
        })
        .collect();
    context.forget_all_but(&served);
    served.retain(|(namespace, _)| context.namespaces.contains(namespace));
    let wanted = collectors_binding(&context.settings.release, &served);
    let name = wanted["metadata"]["name"].as_str().unwrap_or_default();
    let found = context
        .cluster
        .get(CLUSTER_ROLE_BINDING, None, name)
        .await?;
    let subjects = |object: &Value| {
        let subjects = object["subjects"].as_array().cloned().unwrap_or_default();
        subjects
            .iter()
            .map(|subject| (subject["namespace"].clone(), subject["name"].clone()))
            .map(|pair| format!("{pair:?}"))
            .collect::<Vec<_>>()
    };
    if found.is_some_and(|found| subjects(&found) == subjects(&wanted)) {
        return Ok(());
    }
    context
        .cluster
        .apply_shared(CLUSTER_ROLE_BINDING, None, &wanted)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_watch_that_fails_holds_back_no_other() {
        let metrics = Metrics::new(&mut prometheus_client::registry::Registry::default());
        let failing =
            futures_util::stream::iter([Ok(1), Err(watcher::Error::NoResourceVersion), Ok(2)]);
        let passed = without_errors(failing, metrics, "Job", "tracing".to_owned());
        let passed: Vec<_> = passed.map(Result::unwrap).collect().await;
        assert_eq!(passed, [1, 2]);
    }
}
