//! A pod as the API server shows it to a webhook: fields that are missing, or are none, read as nothing.

use serde_json::Value;
use spanloom_crds::workload::{Owners, TEMPLATE_HASH};

/// The annotation of the API server's picture of a static pod.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// The label of nodes with their operating system.
const NODE_OS: &str = "kubernetes.io/os";

/// The lists of containers that a pod has.
pub const LISTS: [&str; 2] = ["initContainers", "containers"];

/// A pod.
#[derive(Debug, Clone, Copy)]
pub struct Pod<'a>(pub &'a Value);

impl<'a> Pod<'a> {
    /// A label.
    pub fn label(self, key: &str) -> Option<&'a str> {
        self.0["metadata"]["labels"].get(key)?.as_str()
    }

    /// An annotation.
    pub fn annotation(self, key: &str) -> Option<&'a str> {
        self.0["metadata"]["annotations"].get(key)?.as_str()
    }

    /// All labels, or all annotations, as `metadata` has them under this key.
    pub fn texts(self, key: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let map = self.0["metadata"][key].as_object();
        map.into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
    }

    /// Its name, which a pod with `generateName` does not have yet.
    pub fn name(self) -> Option<&'a str> {
        let name = self.0["metadata"]["name"].as_str();
        name.filter(|name| !name.is_empty())
    }

    /// The containers of one of [`LISTS`].
    pub fn list(self, list: &str) -> &'a [Value] {
        self.0["spec"][list].as_array().map_or(&[], Vec::as_slice)
    }

    /// The containers of all lists.
    pub fn containers(self) -> impl Iterator<Item = &'a Value> {
        LISTS.into_iter().flat_map(move |list| self.list(list))
    }

    /// Whether it is in its node's network.
    pub fn has_host_network(self) -> bool {
        self.0["spec"]["hostNetwork"] == true
    }

    /// Whether it is the API server's picture of a static pod.
    pub fn is_mirror(self) -> bool {
        self.annotation(MIRROR).is_some()
    }

    /// Whether it runs on Windows.
    pub fn is_on_windows(self) -> bool {
        let spec = &self.0["spec"];
        spec["os"]["name"] == "windows" || spec["nodeSelector"][NODE_OS] == "windows"
    }

    /// What it belongs to.
    pub fn owners(self) -> Owners {
        let owners = self.0["metadata"]["ownerReferences"].as_array();
        let mut owners = owners.into_iter().flatten();
        let controller = owners.find(|owner| owner["controller"] == true);
        let Some(controller) = controller else {
            return Owners::default();
        };
        let text = |key: &str| controller[key].as_str().unwrap_or_default();
        Owners::of(text("kind"), text("name"), self.label(TEMPLATE_HASH))
    }
}

/// A container's name.
pub fn name(container: &Value) -> &str {
    container["name"].as_str().unwrap_or_default()
}

/// A variable of a container, where it is set.
pub fn variable<'c>(container: &'c Value, name: &str) -> Option<&'c Value> {
    let variables = container["env"].as_array()?;
    variables.iter().find(|variable| variable["name"] == name)
}
