//! What there is, told by watches: the objects of ours in each served namespace, and their pods. A
//! change asks for a pass over the pipeline that it is of.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt;
use kube::core::DynamicObject;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::{self, watcher};
use serde_json::Value;
use spanloom_plan::Owned;
use spanloom_plan::observe::{Pod, Pods};
use spanloom_plan::owned::key_of;
use spanloom_plan::render::{LABEL_MANAGED_BY, MANAGER};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::cluster::{Cluster, api_text, with_type};
use crate::kinds::{Kind, PIPELINE, POD, WATCHED};
use crate::metrics::Metrics;
use crate::retry::WatchBackoff;
use crate::shelf::Shelf;

/// Passes that are asked for.
pub type Asked = mpsc::Sender<ObjectRef<DynamicObject>>;

/// What the watches have told.
#[derive(Debug)]
pub struct Watches {
    objects: HashMap<(String, Kind), Shelf<Value>>,
    pods: HashMap<String, Shelf<(String, Pod)>>,
}

/// A watch has nothing to tell yet.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch {kind} objects in the namespace {namespace} yet: {why}")]
pub struct NotWatched {
    kind: &'static str,
    namespace: String,
    why: String,
    is_refused: bool,
}

impl NotWatched {
    /// The API server refused it: a right is missing.
    pub fn is_refused(&self) -> bool {
        self.is_refused
    }
}

impl Watches {
    /// Begins to watch in these namespaces; the tasks end with `tasks`.
    pub fn start(
        cluster: &Cluster,
        metrics: &Metrics,
        namespaces: &[String],
        asked: &Asked,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let mut watches = Self {
            objects: HashMap::new(),
            pods: HashMap::new(),
        };
        for namespace in namespaces {
            let place = |kind| Place {
                kind,
                namespace: namespace.clone(),
                metrics: metrics.clone(),
                asked: asked.clone(),
            };
            for kind in WATCHED {
                let shelf = Shelf::default();
                let form = move |object| as_value(object, kind);
                tasks.spawn(follow(cluster.clone(), place(kind), shelf.clone(), form));
                watches.objects.insert((namespace.clone(), kind), shelf);
            }
            let shelf = Shelf::default();
            tasks.spawn(follow(cluster.clone(), place(POD), shelf.clone(), as_pod));
            watches.pods.insert(namespace.clone(), shelf);
        }
        watches
    }

    /// The watched objects of a pipeline.
    ///
    /// # Errors
    /// When a kind was not listed yet.
    pub fn owned(&self, namespace: &str, pipeline: &str) -> Result<Owned, NotWatched> {
        let mut owned = Owned::new();
        for kind in WATCHED {
            let shelf = self.objects.get(&(namespace.to_owned(), kind));
            for object in of(shelf, kind, namespace, pipeline)? {
                owned.insert(key_of(&object), Value::clone(&object));
            }
        }
        Ok(owned)
    }

    /// The pods of a pipeline.
    ///
    /// # Errors
    /// When they were not listed yet.
    pub fn pods(&self, namespace: &str, pipeline: &str) -> Result<Pods, NotWatched> {
        let pods = of(self.pods.get(namespace), POD, namespace, pipeline)?;
        Ok(pods.iter().map(|pod| (**pod).clone()).collect())
    }
}

fn of<T>(
    shelf: Option<&Shelf<T>>,
    kind: Kind,
    namespace: &str,
    pipeline: &str,
) -> Result<Vec<Arc<T>>, NotWatched> {
    let found = match shelf {
        Some(shelf) => shelf.of(pipeline),
        None => Err(None),
    };
    found.map_err(|why| NotWatched {
        kind: kind.kind,
        namespace: namespace.to_owned(),
        is_refused: why.is_some(),
        why: why.unwrap_or_else(|| "not listed yet".to_owned()),
    })
}

fn as_value(object: DynamicObject, kind: Kind) -> Option<Value> {
    let value = serde_json::to_value(object).ok()?;
    Some(with_type(value, kind))
}

fn as_pod(object: DynamicObject) -> Option<(String, Pod)> {
    let value = serde_json::to_value(object).ok()?;
    let component = &value["metadata"]["labels"]["app.kubernetes.io/component"];
    let component = component.as_str().unwrap_or_default().to_owned();
    Some((component, Pod::of(&value)))
}

/// What one watch is about.
struct Place {
    kind: Kind,
    namespace: String,
    metrics: Metrics,
    asked: Asked,
}

/// Follows one watch for ever. Its errors end here, counted: it is tried again later and later by
/// itself, and holds back no other.
async fn follow<T: PartialEq>(
    cluster: Cluster,
    place: Place,
    shelf: Shelf<T>,
    form: impl Fn(DynamicObject) -> Option<T>,
) {
    let Place {
        kind,
        namespace,
        metrics,
        asked,
    } = place;
    let ours = watcher::Config::default().labels(&format!("{LABEL_MANAGED_BY}={MANAGER}"));
    let api = cluster.api(kind, Some(&namespace));
    let mut events = std::pin::pin!(watcher(api, ours).backoff(WatchBackoff::default()));
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                metrics.failed("watch");
                if let Some(why) = refusal(&error) {
                    shelf.refused(why);
                }
                continue;
            }
        };
        for pipeline in shelf.take(event, &form) {
            let resource = PIPELINE.resource();
            let pass = ObjectRef::new_with(&pipeline, resource).within(&namespace);
            if asked.send(pass).await.is_err() {
                return;
            }
        }
    }
}

/// What the API server says that refuses a watch; none when it could not be asked.
fn refusal(error: &watcher::Error) -> Option<String> {
    match error {
        watcher::Error::InitialListFailed(error @ kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(error @ kube::Error::Api(status))
            if matches!(status.code, 401 | 403) =>
        {
            Some(api_text(error))
        }
        _ => None,
    }
}
