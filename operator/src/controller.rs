//! What makes passes happen: the pipelines' own watch, what other watches and probes ask for, and time.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kube::core::DynamicObject;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{Predicate as _, PredicateConfig, WatchStreamExt, predicates};
use kube::{Api, Client, ResourceExt};
use spanloom_plan::release::{PipelineId, Release};
use spanloom_program::causes;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::census::Census;
use crate::cluster::{Cluster, ClusterError};
use crate::context::Context;
use crate::injection::keep_webhook;
use crate::keep::KeepError;
use crate::kinds::{CLUSTER_ROLE_BINDING, PIPELINE};
use crate::leadership::Leadership;
use crate::metrics::Metrics;
use crate::reconcile::{ReconcileError, reconcile};
use crate::retry::{WatchBackoff, retry_after};
use crate::watches::Watches;

/// Changes within this time are one pass.
const DEBOUNCE: Duration = Duration::from_secs(1);
/// Passes that can be requested before a request has to wait.
const ASKED: usize = 1_024;
/// How often the certificate authority's Secret is looked at.
const AUTHORITY_EVERY: Duration = Duration::from_secs(28);
/// How many of these looks the cluster role binding is looked at once, when no pipeline came or went.
const BINDING_EVERY: u32 = 5;

/// What the controller works with.
#[derive(Clone)]
pub struct Work {
    /// The way to the API server for calls.
    pub client: Client,
    /// The way for watches, which are open for minutes.
    pub watching: Client,
    /// What the release says.
    pub release: Release,
    /// This pod's name.
    pub pod_name: String,
    /// How many pipelines are worked on at the same time.
    pub concurrency: u16,
    /// The numbers.
    pub metrics: Metrics,
    /// Until when this process may write.
    pub leadership: Leadership,
}

/// Works on pipelines until `stop`.
pub async fn run(work: Work, stop: CancellationToken) {
    let (asked, mut passes) = mpsc::channel(ASKED);
    let passes = futures_util::stream::poll_fn(move |task| passes.poll_recv(task));
    let mut tasks = JoinSet::new();
    let metrics = work.metrics.clone();
    let watching = Cluster::new(work.watching, metrics.clone(), work.leadership.clone());
    let namespaces = &work.release.namespaces;
    let nodes_changed = Arc::new(Notify::new());
    let watches = Watches::start(
        &watching,
        &metrics,
        namespaces,
        &asked,
        nodes_changed.clone(),
        &mut tasks,
    );
    let context = Arc::new(Context::new(
        work.client,
        work.release,
        &work.pod_name,
        metrics,
        work.leadership,
        watches,
        asked,
    ));
    let resource = PIPELINE.resource();
    let (reader, writer) = {
        let writer = reflector::store::Writer::new(resource.clone());
        (writer.as_reader(), writer)
    };
    let api: Api<DynamicObject> = watching.api(PIPELINE, None);
    let (failing, changed) = (context.metrics.clone(), context.clone());
    // A status that we write ourselves is no reason for a pass.
    let pipelines = watcher(api, watcher::Config::default())
        .backoff(WatchBackoff::default())
        .reflect(writer)
        .inspect(move |event| {
            if let Ok(Event::InitDone | Event::Apply(_) | Event::Delete(_)) = event {
                changed.pipelines_changed.notify_one();
            }
        })
        .applied_objects()
        .predicate_filter(
            predicates::generation.combine(predicates::annotations),
            PredicateConfig::default(),
        )
        .filter_map(move |item| {
            if let Err(error) = &item {
                failing.failed("watch");
                // kube itself has warned.
                tracing::debug!("cannot watch pipelines yet: {}", causes(error));
            }
            std::future::ready(item.is_ok().then_some(item))
        });
    let config = Config::default()
        .debounce(DEBOUNCE)
        .concurrency(work.concurrency);
    tasks.spawn(keep_release(context.clone(), reader.clone()));
    if context.release.webhook {
        let failing = context.metrics.clone();
        let failed = move || failing.failed("watch");
        context.count_pods(Census::start(watching.client(), failed, &mut tasks));
    }
    tasks.spawn(keep_webhook(context.clone(), reader.clone()));
    tasks.spawn(follow_nodes(context.clone(), reader.clone(), nodes_changed));
    Controller::for_stream_with(pipelines, reader, resource)
        .with_config(config)
        .reconcile_on(passes)
        .graceful_shutdown_on(stop.cancelled_owned())
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
    tasks.shutdown().await;
}

fn on_error(object: Arc<DynamicObject>, error: &ReconcileError, context: Arc<Context>) -> Action {
    let id = (object.namespace().unwrap_or_default(), object.name_any());
    let class = error.class();
    let failures = context.memory(&id, |memory| {
        memory.failures = memory.failures.saturating_add(1);
        memory.failures
    });
    context.metrics.failed(class.name());
    let (namespace, pipeline) = (&id.0, &id.1);
    tracing::warn!(
        namespace,
        pipeline,
        class = class.name(),
        "{}",
        causes(error)
    );
    Action::requeue(retry_after(class, failures))
}

/// Keeps what all pipelines of the release share: the certificate authority, and the one cluster role
/// binding, whose subjects are the collectors of the served pipelines.
async fn keep_release(context: Arc<Context>, pipelines: Store<DynamicObject>) {
    // Before the first pass it is not known which pipelines there are. (The store itself wakes only one
    // of those who wait for its list, and the controller waits, too.)
    context.came.notified().await;
    let mut bound = Vec::new();
    let mut looks = 0u32;
    loop {
        let now = ids(&pipelines);
        context.forget_all_but(&now);
        if now != bound || looks.is_multiple_of(BINDING_EVERY) {
            match bind(&context, &now).await {
                Ok(()) => bound = now,
                Err(error) => complain(&context, &error.into()),
            }
        }
        match keep_authority(&context, &pipelines).await {
            Ok(()) => {}
            Err(error) => complain(&context, &error.into()),
        }
        looks = looks.wrapping_add(1);
        tokio::select! {
            () = tokio::time::sleep(AUTHORITY_EVERY) => {}
            () = context.came.notified() => {}
        }
    }
}

fn complain(context: &Context, error: &ReconcileError) {
    context.metrics.failed(error.class().name());
    tracing::warn!("{}", causes(error));
}

fn ids(pipelines: &Store<DynamicObject>) -> Vec<PipelineId> {
    let all = pipelines.state();
    let id = |p: &Arc<DynamicObject>| (p.namespace().unwrap_or_default(), p.name_any());
    let mut ids: Vec<_> = all.iter().map(id).collect();
    ids.sort();
    ids
}

async fn bind(context: &Context, pipelines: &[PipelineId]) -> Result<(), ClusterError> {
    let (cluster, release) = (&context.cluster, &context.release);
    let name = format!("{}-collectors", release.name);
    let found = cluster.get(CLUSTER_ROLE_BINDING, None, &name).await?;
    if let Some(wanted) = release.binding(pipelines, found.as_ref()) {
        cluster
            .apply_shared(CLUSTER_ROLE_BINDING, None, &wanted)
            .await?;
    }
    Ok(())
}

/// Looks at the authority's Secret; when the authority is another one now, every pipeline hears of it.
async fn keep_authority(
    context: &Context,
    pipelines: &Store<DynamicObject>,
) -> Result<(), KeepError> {
    let (cluster, namespace) = (&context.cluster, &context.release.namespace);
    let now = jiff::Timestamp::now().as_second();
    if context.authorities.refresh(cluster, namespace, now).await? {
        ask_all(context, pipelines).await;
    }
    Ok(())
}

/// A node concerns every pipeline.
async fn follow_nodes(
    context: Arc<Context>,
    pipelines: Store<DynamicObject>,
    nodes_changed: Arc<Notify>,
) {
    loop {
        nodes_changed.notified().await;
        ask_all(&context, &pipelines).await;
        // Many nodes that come and go at once are one pass.
        tokio::time::sleep(DEBOUNCE).await;
    }
}

async fn ask_all(context: &Context, pipelines: &Store<DynamicObject>) {
    for (namespace, name) in ids(pipelines) {
        let pass = ObjectRef::new_with(&name, PIPELINE.resource()).within(&namespace);
        context.ask(pass).await;
    }
}
