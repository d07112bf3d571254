//! Asking and telling the Kubernetes API: every call is bounded in time, and writes end with this
//! process's time as the leader. Nothing here decides.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::core::DynamicObject;
use kube::{Api, Client};
use serde_json::Value;
use spanloom_plan::render::{Desired, MANAGER};
use spanloom_plan::retry::ErrorClass;
use spanloom_plan::{Key, is_owned_by};

use crate::kinds::{EVENT, Kind, PIPELINE};
use crate::leadership::{Leadership, NotLeading};
use crate::metrics::Metrics;

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
        "the {kind} {name} already exists and does not belong to this pipeline; rename it, or \
         choose another name for the pipeline"
    )]
    NotOurs {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
    /// The API server took the call and said nothing.
    #[error("{doing}: the API server did not respond within {seconds} s")]
    Slow {
        /// What was to be done.
        doing: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// Another replica may be at work.
    #[error("{doing}: {source}")]
    NotLeading {
        /// What was to be done.
        doing: String,
        /// Why not.
        source: NotLeading,
    },
    /// An object of a kind that is never written; a bug of ours.
    #[error("the operator does not manage objects of kind {kind}")]
    Unknown {
        /// The kind.
        kind: String,
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
            Self::Shape { .. } | Self::Unknown { .. } => ErrorClass::Bug,
            Self::Slow { .. } | Self::NotLeading { .. } => ErrorClass::Api,
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

/// How many events of an object are looked at.
const EVENTS: u32 = 50;
/// How long one call may take: more than the API server takes for anything that we ask, less than
/// anybody waits for.
const PATIENCE: Duration = Duration::from_secs(20);

/// The API.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    metrics: Metrics,
    leadership: Leadership,
}

/// What the API server says of a field that an applied object has and its definition does not.
const NOT_DECLARED: &str = "field not declared in schema";

/// The merge patch that makes `now` of `before`.
fn replacing(before: &Value, now: &Value) -> Value {
    let (Value::Object(before), Value::Object(now)) = (before, now) else {
        return now.clone();
    };
    let gone = before.keys().filter(|key| !now.contains_key(*key));
    let gone = gone.map(|key| (key.clone(), Value::Null));
    let kept = now.iter().map(|(key, value)| {
        let before = before.get(key).unwrap_or(&Value::Null);
        (key.clone(), replacing(before, value))
    });
    Value::Object(gone.chain(kept).collect())
}

impl Cluster {
    /// Talks through `client`, counts what it writes, and writes only while `leadership` lasts.
    pub fn new(client: Client, metrics: Metrics, leadership: Leadership) -> Self {
        Self {
            client,
            metrics,
            leadership,
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
        let api = self.api(kind, namespace);
        let doing = Doing("read", kind.kind, name);
        let found = self.call(doing, api.get_opt(name)).await?;
        found.map(|object| to_value(object, kind, name)).transpose()
    }

    /// The warnings about an object, some of them.
    ///
    /// # Errors
    /// When the API does not answer or refuses.
    pub async fn warnings(&self, namespace: &str, uid: &str) -> Result<Vec<Value>, ClusterError> {
        let api = self.api(EVENT, Some(namespace));
        let fields = format!("involvedObject.uid={uid},type=Warning");
        let params = ListParams::default().fields(&fields).limit(EVENTS);
        let doing = Doing("list", EVENT.kind, uid);
        let list = self.call(doing, api.list(&params)).await?;
        let events = list.items.into_iter();
        events.map(|event| to_value(event, EVENT, uid)).collect()
    }

    /// Makes an object as desired. `is_new` says that it was not seen: then an object that is there all
    /// the same, without our label, is ours only if it says so itself. Gives what came of it.
    ///
    /// # Errors
    /// When the API refuses, or an object of that name is not ours.
    pub async fn apply(
        &self,
        namespace: &str,
        owner_uid: &str,
        desired: &Desired,
        is_new: bool,
    ) -> Result<Value, ClusterError> {
        let (kind, name) = (desired.kind(), desired.name());
        let api_kind = written(kind)?;
        if is_new {
            let found = self.get(api_kind, Some(namespace), name).await?;
            if found.is_some_and(|found| !is_owned_by(&found, owner_uid)) {
                return Err(ClusterError::NotOurs {
                    kind: kind.to_owned(),
                    name: name.to_owned(),
                });
            }
        }
        self.apply_shared(api_kind, Some(namespace), &desired.object)
            .await
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
        let (api, params) = (
            self.api(kind, namespace),
            PatchParams::apply(MANAGER).force(),
        );
        let patch = Patch::Apply(object);
        let doing = Doing("apply", kind.kind, name);
        let applied = self.write(doing, api.patch(name, &params, &patch)).await?;
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
        namespace: Option<&str>,
        name: &str,
        patch: &Value,
    ) -> Result<(), ClusterError> {
        let (api, params) = (self.api(kind, namespace), PatchParams::default());
        let patch = Patch::Merge(patch);
        let doing = Doing("change", kind.kind, name);
        self.write(doing, api.patch(name, &params, &patch)).await?;
        self.metrics.wrote(kind.kind, "merge");
        Ok(())
    }

    /// Writes a pipeline's status. Gives the pipeline's version that came of it.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn status(
        &self,
        namespace: &str,
        name: &str,
        status: &Value,
    ) -> Result<Option<String>, ClusterError> {
        let resource = PIPELINE.resource();
        let object = serde_json::json!({
            "apiVersion": resource.api_version, "kind": resource.kind,
            "metadata": {"name": name, "namespace": namespace}, "status": status,
        });
        let (api, params) = (
            self.api(PIPELINE, Some(namespace)),
            PatchParams::apply(MANAGER).force(),
        );
        let patch = Patch::Apply(&object);
        let doing = || Doing("update the status of", PIPELINE.kind, name);
        let applied = self
            .write(doing(), api.patch_status(name, &params, &patch))
            .await;
        let written = match applied {
            // An earlier definition, which somebody else keeps, takes a merge and drops what it does not know.
            Err(error) if error.to_string().contains(NOT_DECLARED) => {
                let found = self.get(PIPELINE, Some(namespace), name).await?;
                let before = found.map(|found| found["status"].clone());
                let changed = replacing(&before.unwrap_or_default(), status);
                let patch = Patch::Merge(serde_json::json!({"status": changed}));
                let params = PatchParams {
                    field_manager: Some(MANAGER.to_owned()),
                    ..PatchParams::default()
                };
                self.write(doing(), api.patch_status(name, &params, &patch))
                    .await?
            }
            applied => applied?,
        };
        self.metrics.wrote(PIPELINE.kind, "status");
        Ok(written.metadata.resource_version)
    }

    /// Deletes an object of the pipeline's that is no longer wanted; what it owns goes with it.
    ///
    /// # Errors
    /// When the API refuses. An object that is gone, or is another one by now, is no error.
    pub async fn delete(
        &self,
        namespace: &str,
        (kind, name): &Key,
        uid: Option<&str>,
    ) -> Result<(), ClusterError> {
        let api = self.api(written(kind)?, Some(namespace));
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: uid.map(str::to_owned),
                resource_version: None,
            }),
            ..DeleteParams::background()
        };
        let deleted = async {
            match api.delete(name, &params).await {
                Ok(_) => Ok(true),
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
                Err(error) => Err(error),
            }
        };
        if self.write(Doing("delete", kind, name), deleted).await? {
            self.metrics.wrote(kind, "delete");
        }
        Ok(())
    }

    /// Whether the API serves this kind.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn serves(&self, kind: Kind) -> Result<bool, ClusterError> {
        let resource = kind.resource();
        let version = &resource.api_version;
        let served = async {
            match self.client.list_api_group_resources(version).await {
                Ok(list) => Ok(list.resources.iter().any(|served| served.kind == kind.kind)),
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
                Err(error) => Err(error),
            }
        };
        self.call(Doing("look for", kind.kind, version), served)
            .await
    }

    /// What a call gives, in bounded time.
    async fn call<T>(
        &self,
        doing: Doing<'_>,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ClusterError> {
        match tokio::time::timeout(PATIENCE, call).await {
            Ok(done) => done.map_err(|error| ClusterError::Api {
                doing: doing.to_string(),
                error: Box::new(error),
            }),
            Err(_) => Err(ClusterError::Slow {
                doing: doing.to_string(),
                seconds: PATIENCE.as_secs(),
            }),
        }
    }

    /// What a write gives, in bounded time and only while this process may write.
    async fn write<T>(
        &self,
        doing: Doing<'_>,
        write: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ClusterError> {
        match self.leadership.during(self.call(doing, write)).await {
            Ok(done) => done,
            Err(source) => Err(ClusterError::NotLeading {
                doing: doing.to_string(),
                source,
            }),
        }
    }
}

/// What is done to which object: kind and name.
#[derive(Debug, Clone, Copy)]
struct Doing<'a>(&'static str, &'a str, &'a str);

impl fmt::Display for Doing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} the {} {}", self.0, self.1, self.2)
    }
}

fn written(kind: &str) -> Result<Kind, ClusterError> {
    Kind::named(kind).ok_or_else(|| ClusterError::Unknown {
        kind: kind.to_owned(),
    })
}

/// What a client's error says to a person.
pub fn api_text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        error => spanloom_program::causes(error),
    }
}

fn to_value(object: DynamicObject, kind: Kind, name: &str) -> Result<Value, ClusterError> {
    let value = serde_json::to_value(object).map_err(|source| ClusterError::Shape {
        what: format!("the {} {name}", kind.kind),
        source,
    })?;
    Ok(with_type(value, kind))
}

/// The object with its kind, which the items of a list do not say, and without what takes much room
/// and nobody needs.
pub fn with_type(mut object: Value, kind: Kind) -> Value {
    object["kind"] = Value::String(kind.kind.to_owned());
    object["apiVersion"] = Value::String(kind.resource().api_version);
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_merge_patch_takes_away_what_is_gone() {
        let before = json!({"a": 1, "gone": 2, "in": {"b": 3, "gone": 4}, "list": [1, 2]});
        let now = json!({"a": 1, "in": {"b": 5}, "list": [3], "new": {"c": 6}});
        let expected = json!({
            "a": 1, "gone": null, "in": {"b": 5, "gone": null}, "list": [3], "new": {"c": 6},
        });
        assert_eq!(replacing(&before, &now), expected);
        assert_eq!(replacing(&Value::Null, &now), now);
    }
}
