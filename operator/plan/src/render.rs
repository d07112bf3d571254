//! What a pipeline needs, as Kubernetes objects. Pure functions: equal inputs give equal bytes, and
//! nothing is asked of the API here.
//!
//! Objects are JSON with exactly the fields that we own. A test reads each with the types of
//! `k8s-openapi` and finds a field that they do not have.

mod access;
mod collector;
mod common;
mod grafana;
mod network;
mod query;
mod scheduling;
mod store;
mod users;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use spanloom_crds::agent::{AgentConfig, COLLECTORS_KEY, CONFIG_KEY, about};

use crate::hash::hash_of;
use crate::leaf::Leaf;
use crate::pipeline::Pipeline;
use crate::release::Release;

pub use access::collectors_binding;
pub(crate) use collector::LOG_VOLUME;
pub use collector::wanted_surge;
pub(crate) use common::CREDENTIALS_VOLUME;
pub use common::{
    LABEL_MANAGED_BY, LABEL_PIPELINE, MANAGER, component_labels, labels, owned_selector,
};
pub use grafana::{Token, wants_data_source};
pub use store::{size_bytes, wanted_size};

/// The annotation that names what was applied last.
pub const APPLIED_HASH: &str = "spanloom.dev/applied-hash";

/// The annotation of a pod template, and so of its pods, that names the template.
pub const REVISION: &str = "spanloom.dev/revision";
/// The annotation of a pipeline by which a person asks that what was taken back is tried again now.
pub const RETRY: &str = "spanloom.dev/retry";

/// When an object may be applied: a stage waits until the one before it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Names, rights, configuration.
    Base,
    /// The managed store.
    Store,
    /// The schema, when the store is ready.
    Schema,
    /// The agents, when the schema is there.
    Agents,
    /// The query service, when the schema is there.
    Query,
}

/// An object that should be there.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// When it may be applied.
    pub stage: Stage,
    /// The object, with the annotation [`APPLIED_HASH`].
    pub object: Value,
}

impl Desired {
    fn new(stage: Stage, mut object: Value) -> Self {
        let hash = hash_of(&object);
        object["metadata"]["annotations"][APPLIED_HASH] = Value::String(hash);
        Self { stage, object }
    }

    /// `kind`.
    pub fn kind(&self) -> &str {
        self.object["kind"].as_str().unwrap_or_default()
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }
}

/// The configuration and the agents that last worked, to return to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastGood {
    /// Names both, as [`agents_hash`].
    pub hash: String,
    /// What the agents were told.
    pub config: AgentConfig,
    /// The DaemonSet as it was rendered.
    pub daemon_set: Value,
}

/// What the operator keeps and learns that is not in the document.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Known {
    /// The managed store's password.
    pub store_password: String,
    /// The managed store's certificate.
    pub store_leaf: Leaf,
    /// The certificate authorities that clients of the managed store trust, PEM.
    pub ca_bundle: String,
    /// A token for Grafana, when the query service asks for one.
    pub token: Option<Token>,
    /// What of the user's is missing, in words.
    pub missing: Option<String>,
    /// The query certificate's own authority, PEM, where its Secret names one.
    pub query_ca: Option<String>,
    /// Whether the API serves GrafanaDatasource.
    pub grafana_operator: bool,
    /// What worked last.
    pub last_good: Option<LastGood>,
    /// How many nodes may have two collectors at once, or theirs replaced; the spec's number without it.
    pub max_surge: Option<Value>,
    /// How many collectors there are.
    pub collectors: u32,
    /// The size that the store's volume claim was made with; a StatefulSet cannot change it.
    pub volume_size: Option<String>,
}

/// Everything that the pipeline needs, in the order in which it is applied.
pub fn render(pipeline: &Pipeline, release: &Release, known: &Known) -> Vec<Desired> {
    let mut objects = access::access(pipeline);
    let collectors = about(known.collectors).to_string();
    objects.push(config_map(
        pipeline,
        &pipeline.agent_config(),
        collectors.into(),
    ));
    objects.extend(collector::service(pipeline));
    objects.extend(network::policies(pipeline, release));
    if pipeline.runs_store() {
        objects.extend(store::store(pipeline, release, known));
    }
    objects.push(store::migrate(pipeline, release, known));
    objects.push(collector::daemon_set(pipeline, release, known));
    objects.extend(query::query(pipeline, release, known));
    objects.extend(grafana::grafana(pipeline, known));
    if let Some(last_good) = &known.last_good {
        objects.push(last_good_map(pipeline, last_good));
    }
    objects.sort_by_key(|object| object.stage);
    objects
}

/// Names the agents and what they are told, as they are in `objects`.
pub fn agents_hash(objects: &[Desired], config: &AgentConfig) -> String {
    let template = objects
        .iter()
        .find(|object| object.kind() == "DaemonSet")
        .map(|object| &object.object["spec"]["template"]);
    hash_of(&json!({"template": template, "config": config.hash}))
}

/// Puts the last good configuration and agents in the place of the new ones.
pub fn roll_back(pipeline: &Pipeline, objects: &mut [Desired], last_good: &LastGood) {
    for desired in objects {
        if desired.kind() == "DaemonSet" {
            let mut object = last_good.daemon_set.clone();
            // How fast they come back depends on the nodes as they are now.
            object["spec"]["updateStrategy"] = desired.object["spec"]["updateStrategy"].take();
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.remove("annotations");
            }
            *desired = Desired::new(desired.stage, object);
        } else if desired.kind() == "ConfigMap" && desired.name() == pipeline.object("collector") {
            let collectors = desired.object["data"][COLLECTORS_KEY].take();
            *desired = config_map(pipeline, &last_good.config, collectors);
        }
    }
}

/// The object that agents watch.
fn config_map(pipeline: &Pipeline, config: &AgentConfig, collectors: Value) -> Desired {
    let text = serde_json::to_string(config).unwrap_or_default();
    Desired::new(
        Stage::Base,
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": common::metadata(pipeline, "collector", "collector"),
            "data": {CONFIG_KEY: text, COLLECTORS_KEY: collectors},
        }),
    )
}

/// The name of the object that keeps what worked last.
pub fn last_good_name(pipeline: &Pipeline) -> String {
    pipeline.object("last-good")
}

/// The key in it.
pub const LAST_GOOD_KEY: &str = "last-good.json";

fn last_good_map(pipeline: &Pipeline, last_good: &LastGood) -> Desired {
    let text = serde_json::to_string(last_good).unwrap_or_default();
    Desired::new(
        Stage::Agents,
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": common::metadata(pipeline, "last-good", "collector"),
            "data": {LAST_GOOD_KEY: text},
        }),
    )
}

/// The query service's URL inside the cluster.
pub fn query_endpoint(pipeline: &Pipeline) -> String {
    grafana::query_url(pipeline)
}
