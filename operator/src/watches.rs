//! What there is, told by watches: the objects of ours in each served namespace, and their pods. A
//! change asks for a pass over the pipeline that it is of.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use futures_util::StreamExt;
use kube::Api;
use kube::core::DynamicObject;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::{self, watcher};
use serde_json::Value;
use spanloom_plan::Owned;
use spanloom_plan::nodes::{Nodes, node_is_ready};
use spanloom_plan::observe::{Pod, Pods};
use spanloom_plan::owned::key_of;
use spanloom_plan::render::{LABEL_MANAGED_BY, MANAGER};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use crate::cluster::{Cluster, api_text, with_type};
use crate::kinds::{Kind, NODE, PIPELINE, POD, WATCHED};
use crate::metrics::Metrics;
use crate::retry::WatchBackoff;
use crate::shelf::Shelf;

/// Nodes that are listed at a time: a page is held whole while it is read, and a node is large.
const NODES_A_PAGE: u32 = 50;

/// Passes that are asked for.
pub type Asked = mpsc::Sender<ObjectRef<DynamicObject>>;

/// What the watches have told.
#[derive(Debug)]
pub struct Watches {
    objects: HashMap<(String, Kind), Shelf<Value>>,
    pods: HashMap<String, Shelf<(String, Pod)>>,
    nodes: Shelf<bool>,
}

/// A watch has nothing to tell yet.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch {kind} objects in namespace {namespace} yet: {why}")]
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
    /// Begins to watch in these namespaces; the tasks end with `tasks`. `nodes_changed` is told when a
    /// node becomes Ready, stops being so, comes or goes.
    pub fn start(
        cluster: &Cluster,
        metrics: &Metrics,
        namespaces: &[String],
        asked: &Asked,
        nodes_changed: Arc<Notify>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let mut watches = Self {
            objects: HashMap::new(),
            pods: HashMap::new(),
            nodes: Shelf::default(),
        };
        let failing = metrics.clone();
        let every = watcher::Config::default().page_size(NODES_A_PAGE);
        let api = cluster.api(NODE, None);
        let shelf = watches.nodes.clone();
        tasks.spawn(async move {
            let form = |object| as_value(object, NODE).map(|node| node_is_ready(&node));
            let told = |_: String| {
                let nodes_changed = nodes_changed.clone();
                async move {
                    nodes_changed.notify_one();
                    true
                }
            };
            follow(api, every, failing, shelf, form, told).await;
        });
        for namespace in namespaces {
            let ours =
                || watcher::Config::default().labels(&format!("{LABEL_MANAGED_BY}={MANAGER}"));
            let told = {
                let (asked, namespace) = (asked.clone(), namespace.clone());
                move |pipeline: String| {
                    let resource = PIPELINE.resource();
                    let pass = ObjectRef::new_with(&pipeline, resource).within(&namespace);
                    let asked = asked.clone();
                    async move { asked.send(pass).await.is_ok() }
                }
            };
            let api = |kind| cluster.api(kind, Some(namespace));
            for kind in WATCHED {
                let shelf = Shelf::default();
                let form = move |object| as_value(object, kind);
                let (failing, told) = (metrics.clone(), told.clone());
                tasks.spawn(follow(
                    api(kind),
                    ours(),
                    failing,
                    shelf.clone(),
                    form,
                    told,
                ));
                watches.objects.insert((namespace.clone(), kind), shelf);
            }
            let shelf = Shelf::default();
            let failing = metrics.clone();
            tasks.spawn(follow(
                api(POD),
                ours(),
                failing,
                shelf.clone(),
                as_pod,
                told,
            ));
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
            let found = match of(shelf, kind, namespace, pipeline) {
                Err(error) if error.is_refused() && kind.is_optional() => Vec::new(),
                found => found?,
            };
            for object in found {
                owned.insert(key_of(&object), Value::clone(&object));
            }
        }
        Ok(owned)
    }

    /// Which nodes are Ready; not known where the operator may not watch nodes.
    pub fn nodes(&self) -> Nodes {
        let Some(all) = self.nodes.all() else {
            return Nodes::default();
        };
        Nodes::of(all.into_iter().map(|(name, is_ready)| (name, *is_ready)))
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

/// Follows one watch until nobody listens to `told`, which hears of each pipeline with a change. Its
/// errors end here, counted: it is tried again later and later by itself, and holds back no other.
async fn follow<T: PartialEq, F: Future<Output = bool>>(
    api: Api<DynamicObject>,
    config: watcher::Config,
    metrics: Metrics,
    shelf: Shelf<T>,
    form: impl Fn(DynamicObject) -> Option<T>,
    told: impl Fn(String) -> F,
) {
    let mut events = std::pin::pin!(watcher(api, config).backoff(WatchBackoff::default()));
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
            if !told(pipeline).await {
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
