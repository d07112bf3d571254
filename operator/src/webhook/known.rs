//! What the webhook knows of the cluster: the pipelines that inject, and of each namespace its labels. Of an object
//! nothing else is kept, so that a large cluster takes little memory.

use std::sync::{Arc, PoisonError, RwLock};

use k8s_openapi::api::core::v1::Namespace as ApiNamespace;
use kube::Api;
use kube::ResourceExt;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::{self, Event, watcher};
use spanloom_inject::{Namespace, PipelineId, Target};
use spanloom_plan::Release;
use spanloom_plan::webhook::Injecting;
use tokio::task::JoinSet;

use super::Metrics;
use crate::census::{follow, namespace, namespaces};
use crate::kinds::PIPELINE;
use crate::listed::Listed;

/// What the watches have told.
#[derive(Debug, Default)]
pub struct Known {
    pipelines: RwLock<Listed<PipelineId, Target>>,
    namespaces: RwLock<Listed<String, Namespace>>,
    /// What is asked for at each pod: made anew when a pipeline changes.
    targets: RwLock<Arc<[Target]>>,
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
        known.all()?.get(name).cloned()
    }

    /// Why no pod can be decided about yet.
    pub fn not_ready(&self) -> Option<String> {
        let pipelines = self.pipelines.read();
        let pipelines = pipelines.unwrap_or_else(PoisonError::into_inner);
        let namespaces = self.namespaces.read();
        let namespaces = namespaces.unwrap_or_else(PoisonError::into_inner);
        let missing = match (pipelines.all(), namespaces.all()) {
            (Some(_), Some(_)) => return None,
            (None, _) => "pipelines",
            (Some(_), None) => "namespaces",
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
        let Some(pipelines) = known.all() else {
            return;
        };
        let targets: Arc<[Target]> = pipelines.values().cloned().collect();
        let mut all = self.targets.write().unwrap_or_else(PoisonError::into_inner);
        *all = targets;
    }

    /// What the watch of namespaces said.
    pub fn take_namespace(&self, event: Event<PartialObjectMeta<ApiNamespace>>) {
        let mut known = self
            .namespaces
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        known.take(event, namespace);
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
        let failed = move || failing.watch_failed();
        let events = watcher(pipelines, watcher::Config::default());
        tasks.spawn(follow(events, failed.clone(), move |event| {
            known.take_pipeline(event, &release);
        }));
        let known = Arc::clone(self);
        tasks.spawn(follow(namespaces(client), failed, move |event| {
            known.take_namespace(event);
        }));
    }
}

/// What is known of a pipeline that injects.
fn read(object: DynamicObject, release: &Release) -> Option<Target> {
    let value = serde_json::to_value(object).ok()?;
    Some(Injecting::read(&value, release)?.target(release))
}
