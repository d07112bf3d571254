//! Asking and telling the Kubernetes API, with every kind that the operator owns. Nothing here decides.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use kube::api::{ApiResource, DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::core::DynamicObject;
use kube::{Api, Client};
use serde_json::Value;

use crate::apply::{content_hash, is_applied};
use crate::metrics::Metrics;
use crate::render::{Desired, MANAGER, owned_selector};

/// A kind that the operator owns objects of.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    group: &'static str,
    version: &'static str,
    /// `kind`.
    pub kind: &'static str,
    plural: &'static str,
}

const fn kind(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
) -> Kind {
    Kind {
        group,
        version,
        kind,
        plural,
    }
}

/// Secrets: never listed or watched, only read by name.
pub const SECRET: Kind = kind("", "v1", "Secret", "secrets");
/// The Grafana operator's data source; not every API serves it.
pub const GRAFANA_DATASOURCE: Kind = kind(
    "grafana.integreatly.org",
    "v1beta1",
    "GrafanaDatasource",
    "grafanadatasources",
);
/// Claims of volumes: never deleted.
pub const VOLUME_CLAIM: Kind = kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims");
/// Pods: only read.
pub const POD: Kind = kind("", "v1", "Pod", "pods");
/// Cluster role bindings: one of them.
pub const CLUSTER_ROLE_BINDING: Kind = kind(
    "rbac.authorization.k8s.io",
    "v1",
    "ClusterRoleBinding",
    "clusterrolebindings",
);
/// Definitions of custom resources: one of them.
pub const CUSTOM_RESOURCE: Kind = kind(
    "apiextensions.k8s.io",
    "v1",
    "CustomResourceDefinition",
    "customresourcedefinitions",
);
/// Our own kind.
pub const PIPELINE: Kind = kind(
    "spanloom.dev",
    "v1alpha1",
    "TracingPipeline",
    "tracingpipelines",
);

/// The kinds that are listed by label and pruned.
pub const LISTED: [Kind; 10] = [
    kind("", "v1", "ConfigMap", "configmaps"),
    kind("", "v1", "Service", "services"),
    kind("", "v1", "ServiceAccount", "serviceaccounts"),
    kind("apps", "v1", "DaemonSet", "daemonsets"),
    kind("apps", "v1", "Deployment", "deployments"),
    kind("apps", "v1", "StatefulSet", "statefulsets"),
    kind("batch", "v1", "Job", "jobs"),
    kind(
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
    ),
    kind("rbac.authorization.k8s.io", "v1", "Role", "roles"),
    kind(
        "rbac.authorization.k8s.io",
        "v1",
        "RoleBinding",
        "rolebindings",
    ),
];

impl Kind {
    /// What the client needs to make URLs.
    pub fn resource(&self) -> ApiResource {
        let api_version = match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        };
        ApiResource {
            group: self.group.to_owned(),
            version: self.version.to_owned(),
            api_version,
            kind: self.kind.to_owned(),
            plural: self.plural.to_owned(),
        }
    }

    fn named(name: &str) -> Option<Self> {
        let others = [SECRET, GRAFANA_DATASOURCE];
        LISTED
            .into_iter()
            .chain(others)
            .find(|kind| kind.kind == name)
    }
}

/// An object's kind and name.
pub type Key = (String, String);
/// Objects of one pipeline, as they are.
pub type Owned = BTreeMap<Key, Value>;

/// Why the API was of no help.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The API refused, or could not be reached.
    #[error("{doing}: {}", api_text(error))]
    Api {
        /// What was to be done.
        doing: String,
        /// What the client says. Not a source: its text has all of the server's answer twice.
        error: Box<kube::Error>,
    },
    /// An object of that name belongs to someone else.
    #[error(
        "the {kind} {name} exists and is not this pipeline's; rename it or choose another name for \
         the pipeline"
    )]
    NotOurs {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
    /// An object cannot be read as what it should be; a bug of ours or of the server's.
    #[error("{what}: {source}")]
    Shape {
        /// Which object.
        what: String,
        /// What the reader says.
        source: serde_json::Error,
    },
}

impl ClusterError {
    /// The class of the error, for metrics and for how soon it is tried again.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NotOurs { .. } => ErrorClass::User,
            Self::Shape { .. } => ErrorClass::Bug,
            Self::Api { error, .. } => match &**error {
                kube::Error::Api(status) => match status.code {
                    409 => ErrorClass::Conflict,
                    403 | 401 => ErrorClass::Forbidden,
                    400 | 422 => ErrorClass::User,
                    _ => ErrorClass::Api,
                },
                _ => ErrorClass::Api,
            },
        }
    }
}

/// What kind of help an error needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// Someone else wrote at the same time: soon again.
    Conflict,
    /// The API is away or busy: again, later and later.
    Api,
    /// A right is missing: the release has to give it.
    Forbidden,
    /// The document or an object of the user's stands in the way.
    User,
    /// What should not happen.
    Bug,
}

impl ErrorClass {
    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Api => "api",
            Self::Forbidden => "forbidden",
            Self::User => "user",
            Self::Bug => "bug",
        }
    }
}

/// The API.
pub struct Cluster {
    client: Client,
    metrics: Metrics,
    /// Objects that the server keeps in another form than ours: what we asked for, and what came of
    /// it. As long as both are the same there is nothing to write.
    settled: Mutex<Settled>,
}

/// Hashes of what was asked for and of what came of it, by namespace, kind and name.
type Settled = HashMap<(String, String, String), (String, String)>;

/// The most objects whose settled form is remembered: beyond it all are forgotten and learnt anew.
const SETTLED_MAX: usize = 10_000;

impl Cluster {
    /// Talks through `client` and counts what it writes.
    pub fn new(client: Client, metrics: Metrics) -> Self {
        Self {
            client,
            metrics,
            settled: Mutex::default(),
        }
    }

    /// The client itself.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The API of a kind in a namespace, or of the whole cluster.
    pub fn api(&self, kind: Kind, namespace: Option<&str>) -> Api<DynamicObject> {
        let resource = kind.resource();
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// One object; none when there is none.
    ///
    /// # Errors
    /// When the API does not answer or refuses.
    pub async fn get(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<Value>, ClusterError> {
        let found = self.api(kind, namespace).get_opt(name).await;
        let found = found.map_err(|e| failed("read", kind.kind, name, e))?;
        found.map(|object| to_value(object, kind, name)).transpose()
    }

    /// Objects with these labels.
    ///
    /// # Errors
    /// When the API does not answer or refuses.
    pub async fn list(
        &self,
        kind: Kind,
        namespace: &str,
        selector: &str,
    ) -> Result<Vec<Value>, ClusterError> {
        let list = self
            .api(kind, Some(namespace))
            .list(&ListParams::default().labels(selector))
            .await
            .map_err(|e| failed("list", kind.kind, selector, e))?;
        list.items
            .into_iter()
            .map(|object| {
                let name = object.metadata.name.clone().unwrap_or_default();
                let mut value = to_value(object, kind, &name)?;
                // The items of a list do not say what they are.
                value["kind"] = Value::String(kind.kind.to_owned());
                value["apiVersion"] = Value::String(kind.resource().api_version);
                Ok(value)
            })
            .collect()
    }

    /// What there is of a pipeline: the listed kinds by label, and these further objects by name.
    ///
    /// # Errors
    /// When the API does not answer or refuses.
    pub async fn owned(
        &self,
        namespace: &str,
        pipeline: &str,
        further: &[(Kind, String)],
        grafana_operator: bool,
    ) -> Result<Owned, ClusterError> {
        let selector = owned_selector(pipeline);
        let mut owned = Owned::new();
        let mut add = |kind: &str, object: Value| {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            owned.insert((kind.to_owned(), name.to_owned()), object);
        };
        let grafana = grafana_operator.then_some(GRAFANA_DATASOURCE);
        let kinds: Vec<_> = LISTED.into_iter().chain(grafana).collect();
        let lists = kinds
            .iter()
            .map(|kind| self.list(*kind, namespace, &selector));
        let lists = futures_util::future::try_join_all(lists).await?;
        for (kind, objects) in kinds.iter().zip(lists) {
            for object in objects {
                add(kind.kind, object);
            }
        }
        for (kind, name) in further {
            if let Some(object) = self.get(*kind, Some(namespace), name).await? {
                add(kind.kind, object);
            }
        }
        Ok(owned)
    }

    /// Makes an object as desired, if it is not so already. Says whether anything was written.
    ///
    /// # Errors
    /// When the API refuses, or an object of that name is not ours.
    pub async fn apply(
        &self,
        namespace: &str,
        owner_uid: &str,
        live: Option<&Value>,
        desired: &Desired,
    ) -> Result<bool, ClusterError> {
        let (kind, name) = (desired.kind(), desired.name());
        let Some(api_kind) = Kind::named(kind) else {
            return Ok(false);
        };
        let key = (namespace.to_owned(), kind.to_owned(), name.to_owned());
        match live {
            Some(live) => {
                if is_applied(live, &desired.object) || self.is_settled(&key, desired, live) {
                    return Ok(false);
                }
            }
            None => {
                // It may be there without our label: then it is ours only if it says so itself.
                let found = self.get(api_kind, Some(namespace), name).await?;
                if found.is_some_and(|found| !is_owned_by(&found, owner_uid)) {
                    return Err(ClusterError::NotOurs {
                        kind: kind.to_owned(),
                        name: name.to_owned(),
                    });
                }
            }
        }
        let api = self.api(api_kind, Some(namespace));
        let applied = api
            .patch(
                name,
                &PatchParams::apply(MANAGER).force(),
                &Patch::Apply(&desired.object),
            )
            .await
            .map_err(|e| failed("apply", kind, name, e))?;
        self.metrics.wrote(kind, "apply");
        let applied = to_value(applied, api_kind, name)?;
        if !is_applied(&applied, &desired.object) {
            self.settle(key, desired, &applied);
        }
        Ok(true)
    }

    fn is_settled(&self, key: &(String, String, String), desired: &Desired, live: &Value) -> bool {
        let asked = crate::hash::hash_of(&desired.object);
        let settled = self.settled.lock();
        settled.is_ok_and(|settled| {
            settled
                .get(key)
                .is_some_and(|(wanted, found)| *wanted == asked && *found == content_hash(live))
        })
    }

    fn settle(&self, key: (String, String, String), desired: &Desired, applied: &Value) {
        if let Ok(mut settled) = self.settled.lock() {
            if settled.len() >= SETTLED_MAX {
                settled.clear();
            }
            let asked = crate::hash::hash_of(&desired.object);
            settled.insert(key, (asked, content_hash(applied)));
        }
    }

    /// Applies an object that no pipeline owns.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn apply_shared(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        object: &Value,
    ) -> Result<Value, ClusterError> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let applied = self
            .api(kind, namespace)
            .patch(
                name,
                &PatchParams::apply(MANAGER).force(),
                &Patch::Apply(object),
            )
            .await
            .map_err(|e| failed("apply", kind.kind, name, e))?;
        self.metrics.wrote(kind.kind, "apply");
        to_value(applied, kind, name)
    }

    /// Changes part of an object, which stays someone else's.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn merge(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        patch: &Value,
    ) -> Result<(), ClusterError> {
        self.api(kind, Some(namespace))
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .map_err(|e| failed("change", kind.kind, name, e))?;
        self.metrics.wrote(kind.kind, "merge");
        Ok(())
    }

    /// Writes a pipeline's status.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn status(
        &self,
        namespace: &str,
        name: &str,
        status: &Value,
    ) -> Result<(), ClusterError> {
        let resource = PIPELINE.resource();
        let object = serde_json::json!({
            "apiVersion": resource.api_version, "kind": resource.kind,
            "metadata": {"name": name, "namespace": namespace}, "status": status,
        });
        self.api(PIPELINE, Some(namespace))
            .patch_status(
                name,
                &PatchParams::apply(MANAGER).force(),
                &Patch::Apply(&object),
            )
            .await
            .map_err(|e| failed("write the status of", PIPELINE.kind, name, e))?;
        self.metrics.wrote(PIPELINE.kind, "status");
        Ok(())
    }

    /// Deletes an object of the pipeline's that is no longer wanted; what it owns goes with it.
    ///
    /// # Errors
    /// When the API refuses. An object that is gone, or is another one by now, is no error.
    pub async fn delete(
        &self,
        namespace: &str,
        key: &Key,
        live: &Value,
    ) -> Result<(), ClusterError> {
        let (kind, name) = key;
        let Some(api_kind) = Kind::named(kind) else {
            return Ok(());
        };
        let uid = live["metadata"]["uid"].as_str().map(str::to_owned);
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid,
                resource_version: None,
            }),
            ..DeleteParams::background()
        };
        match self
            .api(api_kind, Some(namespace))
            .delete(name, &params)
            .await
        {
            Ok(_) => {
                self.metrics.wrote(kind, "delete");
                Ok(())
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(failed("delete", kind, name, error)),
        }
    }

    /// Whether the API serves this kind.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn serves(&self, kind: Kind) -> Result<bool, ClusterError> {
        let resource = kind.resource();
        match self
            .client
            .list_api_group_resources(&resource.api_version)
            .await
        {
            Ok(list) => Ok(list.resources.iter().any(|served| served.kind == kind.kind)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            Err(error) => Err(failed("look for", kind.kind, &resource.api_version, error)),
        }
    }
}

/// Whether an object's owner is the pipeline with this uid.
pub fn is_owned_by(object: &Value, uid: &str) -> bool {
    object["metadata"]["ownerReferences"]
        .as_array()
        .is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == uid))
}

pub(crate) fn failed(doing: &str, kind: &str, name: &str, error: kube::Error) -> ClusterError {
    ClusterError::Api {
        doing: format!("cannot {doing} the {kind} {name}"),
        error: Box::new(error),
    }
}

/// What a client's error says to a person.
pub fn api_text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        error => spanloom_program::causes(error),
    }
}

fn to_value(object: DynamicObject, kind: Kind, name: &str) -> Result<Value, ClusterError> {
    serde_json::to_value(object).map_err(|source| ClusterError::Shape {
        what: format!("the {} {name}", kind.kind),
        source,
    })
}
