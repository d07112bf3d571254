//! What the webhook knows of the cluster: the pipelines that inject, and of each namespace its labels. Of an object
//! nothing else is kept, so that a large cluster takes little memory.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Namespace as ApiNamespace;
use kube::Api;
use kube::ResourceExt;
use kube::core::{DynamicObject, ObjectMeta, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use spanloom_inject::{INJECT, Namespace, PipelineId, Target};
use spanloom_plan::webhook::target;
use spanloom_plan::{Pipeline, Release};
use tokio::task::JoinSet;

use super::Metrics;
use crate::kinds::PIPELINE;
use crate::retry::WatchBackoff;

/// Namespaces that are listed at a time.
const PAGE: u32 = 200;

/// What the watches have told.
#[derive(Debug, Default)]
pub struct Known {
    pipelines: RwLock<Listed<PipelineId, Target>>,
    namespaces: RwLock<Listed<String, Namespace>>,
    /// What is asked for at each pod: made anew when a pipeline changes.
    targets: RwLock<Arc<[Target]>>,
}

/// Objects of one kind, and whether all of them were listed.
#[derive(Debug)]
struct Listed<K, T> {
    objects: BTreeMap<K, T>,
    coming: BTreeMap<K, T>,
    is_listed: bool,
}

impl<K, T> Default for Listed<K, T> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            coming: BTreeMap::new(),
            is_listed: false,
        }
    }
}

impl<K: Ord, T> Listed<K, T> {
    /// What a watch said; `form` gives an object's key and, where it counts, what is kept of it.
    fn take<O>(&mut self, event: Event<O>, form: impl Fn(O) -> (K, Option<T>)) {
        match event {
            Event::Init => self.coming.clear(),
            Event::InitApply(object) => put(&mut self.coming, form(object)),
            Event::InitDone => {
                self.objects = std::mem::take(&mut self.coming);
                self.is_listed = true;
            }
            Event::Apply(object) => put(&mut self.objects, form(object)),
            Event::Delete(object) => {
                self.objects.remove(&form(object).0);
            }
        }
    }
}

fn put<K: Ord, T>(objects: &mut BTreeMap<K, T>, (key, formed): (K, Option<T>)) {
    match formed {
        Some(formed) => {
            objects.insert(key, formed);
        }
        None => {
            objects.remove(&key);
        }
    }
}

impl Known {
    /// The pipelines that inject.
    pub fn targets(&self) -> Arc<[Target]> {
        let targets = self.targets.read();
        Arc::clone(&targets.unwrap_or_else(PoisonError::into_inner))
    }

    /// A namespace.
    pub fn namespace(&self, name: &str) -> Option<Namespace> {
        let known = self.namespaces.read();
        let known = known.unwrap_or_else(PoisonError::into_inner);
        known.objects.get(name).cloned()
    }

    /// Why no pod can be decided about yet.
    pub fn not_ready(&self) -> Option<String> {
        let pipelines = self.pipelines.read();
        let pipelines = pipelines.unwrap_or_else(PoisonError::into_inner).is_listed;
        let namespaces = self.namespaces.read();
        let namespaces = namespaces.unwrap_or_else(PoisonError::into_inner).is_listed;
        let missing = match (pipelines, namespaces) {
            (true, true) => return None,
            (false, _) => "pipelines",
            (true, false) => "namespaces",
        };
        Some(format!("the {missing} have not been listed yet"))
    }

    /// What the watch of pipelines said.
    pub fn take_pipeline(&self, event: Event<DynamicObject>, release: &Release) {
        let mut known = self
            .pipelines
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        known.take(event, |object| {
            let id = (object.namespace().unwrap_or_default(), object.name_any());
            (id, read(object, release))
        });
        let targets: Arc<[Target]> = match known.is_listed {
            true => known.objects.values().cloned().collect(),
            false => return,
        };
        let mut all = self.targets.write().unwrap_or_else(PoisonError::into_inner);
        *all = targets;
    }

    /// What the watch of namespaces said.
    pub fn take_namespace(&self, event: Event<PartialObjectMeta<ApiNamespace>>) {
        let mut known = self
            .namespaces
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        known.take(event, |object| {
            let name = object.name_any();
            (name.clone(), Some(namespace(name, object.metadata)))
        });
    }

    /// Begins to watch; the tasks end with `tasks`.
    pub fn watch(
        self: &Arc<Self>,
        client: &kube::Client,
        release: &Release,
        metrics: &Metrics,
        tasks: &mut JoinSet<()>,
    ) {
        let pipelines = Api::<DynamicObject>::all_with(client.clone(), &PIPELINE.resource());
        let (known, release, failing) = (Arc::clone(self), release.clone(), metrics.clone());
        tasks.spawn(async move {
            let events = watcher(pipelines, watcher::Config::default());
            let mut events = std::pin::pin!(events.backoff(WatchBackoff::default()));
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => known.take_pipeline(event, &release),
                    // kube itself has warned; what is known stays.
                    Err(_) => failing.watch_failed(),
                }
            }
        });
        let namespaces = Api::<PartialObjectMeta<ApiNamespace>>::all(client.clone());
        let (known, failing) = (Arc::clone(self), metrics.clone());
        tasks.spawn(async move {
            let config = watcher::Config::default().page_size(PAGE);
            let events = watcher(namespaces, config);
            let mut events = std::pin::pin!(events.backoff(WatchBackoff::default()));
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => known.take_namespace(event),
                    Err(_) => failing.watch_failed(),
                }
            }
        });
    }
}

/// What is known of a pipeline that can be read, is served, and injects.
fn read(object: DynamicObject, release: &Release) -> Option<Target> {
    let value = serde_json::to_value(object).ok()?;
    let pipeline = Pipeline::read(&value).ok()?;
    release.serves(&pipeline.namespace).ok()?;
    target(&pipeline, release)
}

fn namespace(name: String, metadata: ObjectMeta) -> Namespace {
    let annotations = metadata.annotations.unwrap_or_default();
    Namespace {
        name,
        labels: metadata.labels.unwrap_or_default(),
        inject: annotations.get(INJECT).cloned(),
    }
}
