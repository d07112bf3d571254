//! The pods of the whole cluster, of each only what its metadata says: how many a pipeline selects, and how many of
//! them were injected.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{Namespace as ApiNamespace, Pod as ApiPod};
use kube::core::{ObjectMeta, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use spanloom_inject::census::{Counts, Noted, count};
use spanloom_inject::others::asks_for_pods;
use spanloom_inject::pod::Pod;
use spanloom_inject::{INJECT, Namespace, PipelineId, Target};
use tokio::task::JoinSet;

use crate::listed::Listed;
use crate::retry::WatchBackoff;

/// Pods that are listed at a time: a page is held whole while it is read.
const PODS_A_PAGE: u32 = 200;
/// Namespaces that are listed at a time.
const NAMESPACES_A_PAGE: u32 = 200;
/// Pods that have ended are nobody's to create anew.
const RUNNING: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// What the watches have told. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Census(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    pods: Listed<(String, String), Noted>,
    namespaces: Listed<String, Namespace>,
    labels: Shared,
}

type Labels = BTreeMap<String, String>;

/// Labels that several pods have: those of one workload differ in nothing else.
#[derive(Debug, Default)]
struct Shared(HashSet<Arc<Labels>>, usize);

impl Shared {
    /// Has labels share the memory of equal ones.
    fn share(&mut self, labels: &mut Arc<Labels>) {
        match self.0.get(&**labels) {
            Some(known) => *labels = Arc::clone(known),
            None => {
                // Those of pods that are gone are looked for when there are twice as many as the last time.
                if self.0.len() > 2 * self.1 + 64 {
                    self.0.retain(|known| Arc::strong_count(known) > 1);
                    self.1 = self.0.len();
                }
                self.0.insert(Arc::clone(labels));
            }
        }
    }
}

impl Census {
    /// Begins to watch; the tasks end with `tasks`. `failed` is told of each watch that fails, which is tried again.
    pub fn start(
        client: &Client,
        failed: impl Fn() + Clone + Send + 'static,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let census = Self::default();
        let pods = Api::<PartialObjectMeta<ApiPod>>::all(client.clone());
        let config = watcher::Config::default()
            .fields(RUNNING)
            .page_size(PODS_A_PAGE);
        let kept = census.clone();
        tasks.spawn(follow(
            watcher(pods, config),
            failed.clone(),
            move |event| {
                kept.take_pod(event);
            },
        ));
        let kept = census.clone();
        tasks.spawn(follow(namespaces(client), failed, move |event| {
            kept.kept().namespaces.take(event, namespace);
        }));
        census
    }

    fn take_pod(&self, event: Event<PartialObjectMeta<ApiPod>>) {
        let mut kept = self.kept();
        let Kept { pods, labels, .. } = &mut *kept;
        pods.take(event, |pod: PartialObjectMeta<ApiPod>| {
            let key = (pod.namespace().unwrap_or_default(), pod.name_any());
            let (own, annotations) = (pod.metadata.labels, pod.metadata.annotations);
            let pod = Pod::of_metadata(
                key.0.clone(),
                own.unwrap_or_default(),
                annotations.unwrap_or_default(),
            );
            let mut noted = Noted::of(pod);
            if let Some(noted) = &mut noted {
                labels.share(&mut noted.labels);
            }
            (key, noted)
        });
    }

    /// The pods of each pipeline that injects; none until all pods and namespaces were listed.
    pub fn counts(&self, targets: &[Target]) -> Option<BTreeMap<PipelineId, Counts>> {
        let kept = self.kept();
        let (pods, namespaces) = (kept.pods.all()?, kept.namespaces.all()?);
        let known = |name: &str| namespaces.get(name).cloned();
        Some(count(pods.values(), known, targets))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // What is set under it is set in whole values.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is kept of a namespace.
pub(crate) fn namespace(object: PartialObjectMeta<ApiNamespace>) -> (String, Option<Namespace>) {
    let name = object.name_any();
    let ObjectMeta {
        labels,
        annotations,
        ..
    } = object.metadata;
    let mut annotations = annotations.unwrap_or_default();
    let namespace = Namespace {
        name: name.clone(),
        labels: labels.unwrap_or_default(),
        inject: annotations.remove(INJECT),
        instrumented: annotations
            .into_iter()
            .filter(|(key, value)| asks_for_pods(key, value))
            .map(|(key, _)| key)
            .collect(),
    };
    (name, Some(namespace))
}

/// The events of all namespaces.
pub(crate) fn namespaces(
    client: &Client,
) -> impl futures_util::Stream<Item = watcher::Result<Event<PartialObjectMeta<ApiNamespace>>>>
+ Send
+ use<> {
    let api = Api::<PartialObjectMeta<ApiNamespace>>::all(client.clone());
    watcher(api, watcher::Config::default().page_size(NAMESPACES_A_PAGE))
}

/// Follows one watch. Its errors end here: kube itself has warned, what is known stays, and it is tried again later
/// and later.
pub(crate) async fn follow<O>(
    events: impl futures_util::Stream<Item = watcher::Result<Event<O>>> + Send,
    failed: impl Fn(),
    take: impl Fn(Event<O>),
) where
    O: kube::Resource + Clone,
{
    let mut events = std::pin::pin!(events.backoff(WatchBackoff::default()));
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => take(event),
            Err(_) => failed(),
        }
    }
}
