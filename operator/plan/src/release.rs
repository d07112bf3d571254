//! The release: what Helm's values say, and what all its pipelines have in common.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::pipeline::Unusable;
use crate::render::collectors_binding;

/// What the release's NetworkPolicies let in, beside what Spanloom itself needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkPolicies {
    /// Who may query: peers of a NetworkPolicy; all pods without any.
    pub query_from: Vec<Value>,
    /// Who may read metrics: peers of a NetworkPolicy; all pods without any.
    pub metrics_from: Vec<Value>,
    /// The ports at which the API server is reached.
    pub api_server_ports: Vec<u16>,
}

/// What the release says that decides what is placed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Release {
    /// Its namespace: its pipelines may select any namespace, and its certificate authority is there.
    pub namespace: String,
    /// Its name, which the Lease and the cluster role binding carry.
    pub name: String,
    /// The namespaces whose pipelines are served, the release's first.
    pub namespaces: Vec<String>,
    /// The registry and path before `spanloom-<program>`.
    pub image_registry: String,
    /// The tag of the programs' images.
    pub image_tag: String,
    /// Digests of the programs' images, which count more than the tag, by program.
    pub image_digests: BTreeMap<String, String>,
    /// The architectures that the images are built for; pods go to nodes of these only.
    pub image_architectures: Vec<String>,
    /// When images are pulled.
    pub image_pull_policy: String,
    /// Secrets with the registry's credentials.
    pub image_pull_secrets: Vec<String>,
    /// The whole reference of the managed ClickHouse's image.
    pub clickhouse_image: String,
    /// What NetworkPolicies let in; there are none without it.
    pub network_policies: Option<NetworkPolicies>,
    /// Whether it has the webhook that injects pods.
    pub webhook: bool,
    /// How long a rollout of collectors may go without progress.
    pub rollout_deadline: Duration,
    /// How long a migration may take.
    pub migration_deadline: Duration,
}

/// A pipeline's namespace and name.
pub type PipelineId = (String, String);

impl Release {
    /// The image of a program of ours; `registry` is the pipeline's own choice.
    pub fn image(&self, program: &str, registry: Option<&str>) -> String {
        let registry = registry.unwrap_or(&self.image_registry);
        let registry = registry.trim_end_matches('/');
        match self.image_digests.get(program) {
            Some(digest) => format!("{registry}/spanloom-{program}@{digest}"),
            None => format!("{registry}/spanloom-{program}:{}", self.image_tag),
        }
    }

    /// Whether pipelines of a namespace are served.
    ///
    /// # Errors
    /// What the pipeline is told when they are not.
    pub fn serves(&self, namespace: &str) -> Result<(), Unusable> {
        if self.namespaces.iter().any(|served| served == namespace) {
            return Ok(());
        }
        Err(Unusable {
            reason: "NamespaceNotAllowed",
            message: format!(
                "pipelines are only allowed in the namespaces {}; add {namespace} to the chart \
                 value operator.pipelineNamespaces",
                self.namespaces.join(", ")
            ),
        })
    }

    /// The one cluster role binding as it should be, when it is not so: its subjects are the
    /// collectors of the served pipelines.
    pub fn binding(&self, pipelines: &[PipelineId], found: Option<&Value>) -> Option<Value> {
        let served: Vec<_> = pipelines
            .iter()
            .filter(|(namespace, _)| self.serves(namespace).is_ok())
            .cloned()
            .collect();
        let wanted = collectors_binding(&self.name, &served);
        let is_bound = found.is_some_and(|found| subjects(found) == subjects(&wanted));
        (!is_bound).then_some(wanted)
    }
}

fn subjects(binding: &Value) -> Vec<(&Value, &Value)> {
    let subjects = binding["subjects"].as_array().into_iter().flatten();
    subjects
        .map(|subject| (&subject["namespace"], &subject["name"]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release() -> Release {
        Release {
            name: "spanloom".to_owned(),
            namespaces: vec!["tracing".to_owned(), "shop".to_owned()],
            image_registry: "example.test/spanloom/".to_owned(),
            image_tag: "1.2.3".to_owned(),
            ..Release::default()
        }
    }

    #[test]
    fn pipelines_are_served_where_the_release_says() {
        assert_eq!(release().serves("shop"), Ok(()));
        let refused = release().serves("default").unwrap_err();
        assert_eq!(refused.reason, "NamespaceNotAllowed");
        assert!(refused.message.contains("tracing, shop; add default"));
    }

    #[test]
    fn a_pipeline_may_have_another_registry() {
        let image = |registry| release().image("query", registry);
        assert_eq!(image(None), "example.test/spanloom/spanloom-query:1.2.3");
        assert_eq!(image(Some("other/")), "other/spanloom-query:1.2.3");
        let pinned = Release {
            image_digests: [("query".to_owned(), "sha256:ab".to_owned())].into(),
            ..release()
        };
        let image = pinned.image("query", Some("other"));
        assert_eq!(image, "other/spanloom-query@sha256:ab");
        assert!(pinned.image("collector", None).ends_with(":1.2.3"));
    }

    #[test]
    fn the_binding_is_written_when_its_subjects_differ() {
        let id = |namespace: &str, name: &str| (namespace.to_owned(), name.to_owned());
        let pipelines = [id("tracing", "b"), id("default", "x"), id("shop", "a")];
        let wanted = release().binding(&pipelines, None).unwrap();
        let names: Vec<_> = subjects(&wanted)
            .into_iter()
            .map(|(namespace, name)| format!("{namespace}/{name}"))
            .collect();
        assert_eq!(
            names,
            ["\"shop\"/\"a-collector\"", "\"tracing\"/\"b-collector\""]
        );
        assert_eq!(release().binding(&pipelines, Some(&wanted)), None);
        assert!(release().binding(&pipelines[..1], Some(&wanted)).is_some());
    }
}
