//! A pod as the API server shows it to a webhook, without what nobody here needs: what is left out takes no memory,
//! however large a pod is.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use spanloom_crds::workload::{Owners, TEMPLATE_HASH};

/// The annotation of the API server's picture of a static pod.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// The label of nodes with their operating system.
const NODE_OS: &str = "kubernetes.io/os";

/// The lists of containers that a pod has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum List {
    /// `initContainers`
    Init,
    /// `containers`
    Main,
}

impl List {
    /// The field of the pod's spec.
    pub fn field(self) -> &'static str {
        match self {
            Self::Init => "initContainers",
            Self::Main => "containers",
        }
    }
}

/// A pod.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    #[serde(deserialize_with = "or_default")]
    pub(crate) metadata: Metadata,
    #[serde(deserialize_with = "or_default")]
    spec: Spec,
}

/// What its metadata says.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Metadata {
    #[serde(deserialize_with = "or_default")]
    name: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) namespace: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) labels: BTreeMap<String, String>,
    /// None: there is no such object yet.
    pub(crate) annotations: Option<BTreeMap<String, String>>,
    #[serde(deserialize_with = "or_default")]
    owner_references: Vec<Owner>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Owner {
    kind: String,
    name: String,
    #[serde(deserialize_with = "or_default")]
    controller: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    #[serde(deserialize_with = "or_default")]
    host_network: bool,
    #[serde(deserialize_with = "or_default")]
    os: Os,
    #[serde(deserialize_with = "or_default")]
    node_selector: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    init_containers: Vec<Container>,
    #[serde(deserialize_with = "or_default")]
    containers: Vec<Container>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Os {
    name: String,
}

/// A container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Its name.
    pub name: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) image: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) command: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) args: Vec<String>,
    /// None: there is no such list yet.
    pub(crate) env: Option<Vec<Variable>>,
    #[serde(deserialize_with = "or_default")]
    env_from: Vec<Something>,
}

/// A variable of a container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Variable {
    pub(crate) name: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) value: String,
    /// It comes from elsewhere.
    #[serde(deserialize_with = "is_there")]
    pub(crate) value_from: bool,
}

/// It is there, whatever it is.
#[derive(Debug, Clone, Copy)]
struct Something;

impl<'de> Deserialize<'de> for Something {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(from).map(|_| Self)
    }
}

/// What is `null` is as what is not there.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

fn is_there<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    Option::<Something>::deserialize(from).map(|found| found.is_some())
}

impl Pod {
    /// A pod of which only this is known.
    pub fn of_metadata(
        namespace: String,
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
    ) -> Self {
        let metadata = Metadata {
            namespace,
            labels,
            annotations: Some(annotations),
            ..Metadata::default()
        };
        Self {
            metadata,
            ..Self::default()
        }
    }

    /// A label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.metadata.labels.get(key).map(String::as_str)
    }

    /// An annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        let annotations = self.metadata.annotations.as_ref()?;
        annotations.get(key).map(String::as_str)
    }

    /// All labels and annotations.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        let annotations = self.metadata.annotations.iter().flatten();
        let all = self.metadata.labels.iter().chain(annotations);
        all.map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// How long its annotations are together, in bytes.
    pub fn annotations_bytes(&self) -> usize {
        let annotations = self.metadata.annotations.iter().flatten();
        annotations
            .map(|(key, value)| key.len() + value.len())
            .sum()
    }

    /// Its name, which a pod with `generateName` does not have yet.
    pub fn name(&self) -> Option<&str> {
        Some(self.metadata.name.as_str()).filter(|name| !name.is_empty())
    }

    /// The containers of a list.
    pub fn list(&self, list: List) -> &[Container] {
        match list {
            List::Init => &self.spec.init_containers,
            List::Main => &self.spec.containers,
        }
    }

    /// The containers of both lists.
    pub fn containers(&self) -> impl Iterator<Item = &Container> {
        let lists = [List::Init, List::Main].into_iter();
        lists.flat_map(|list| self.list(list))
    }

    /// Whether it is in its node's network.
    pub fn has_host_network(&self) -> bool {
        self.spec.host_network
    }

    /// Whether it is the API server's picture of a static pod.
    pub fn is_mirror(&self) -> bool {
        self.annotation(MIRROR).is_some()
    }

    /// Whether it runs on Windows.
    pub fn is_on_windows(&self) -> bool {
        let selected = self.spec.node_selector.get(NODE_OS);
        self.spec.os.name == "windows" || selected.is_some_and(|os| os == "windows")
    }

    /// What it belongs to.
    pub fn owners(&self) -> Owners {
        let mut owners = self.metadata.owner_references.iter();
        let controller = owners.find(|owner| owner.controller);
        controller.map_or_else(Owners::default, |owner| {
            Owners::of(&owner.kind, &owner.name, self.label(TEMPLATE_HASH))
        })
    }
}

impl Container {
    /// A variable, where it is set.
    pub(crate) fn variable(&self, name: &str) -> Option<&Variable> {
        let variables = self.env.as_ref()?;
        variables.iter().find(|variable| variable.name == name)
    }

    /// Whether it has variables from ConfigMaps or Secrets.
    pub(crate) fn has_env_from(&self) -> bool {
        !self.env_from.is_empty()
    }
}
