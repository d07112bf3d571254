//! The pod that the sidecar is in: whoever sends is one of its containers.

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

use spanloom_crds::resolved::KubernetesConfig;
use spanloom_crds::sidecar::PodFacts;
use spanloom_crds::workload::{self, Owners, TEMPLATE_HASH, attributes};
use spanloom_pipeline::{Caller, Identify, Identity, Pod};

use crate::config::Place;

/// Knows every sender as the one pod.
#[derive(Debug)]
pub struct PodIdentity {
    place: Place,
    facts: PodFacts,
    pod: RwLock<Arc<Pod>>,
}

impl PodIdentity {
    /// The pod at this place, of which the webhook knows this.
    pub fn new(place: Place, facts: PodFacts) -> Arc<Self> {
        let pod = Arc::new(signature(&place, &facts, &KubernetesConfig::default()));
        Arc::new(Self {
            place,
            facts,
            pod: RwLock::new(pod),
        })
    }

    /// Which labels and annotations become attributes, from now on. Those that the webhook does not know are
    /// added by the collector.
    pub fn select(&self, chosen: &KubernetesConfig) {
        let pod = Arc::new(signature(&self.place, &self.facts, chosen));
        *self.pod.write().unwrap_or_else(PoisonError::into_inner) = pod;
    }

    fn pod(&self) -> Arc<Pod> {
        Arc::clone(&self.pod.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Identify for PodIdentity {
    fn identify(&self, _: Caller<'_>) -> Identity {
        Identity::Pod(self.pod())
    }

    fn wait<'a>(&'a self, _: Caller<'a>) -> Pin<Box<dyn Future<Output = Identity> + Send + 'a>> {
        Box::pin(ready(Identity::Pod(self.pod())))
    }
}

/// The attributes in the order in which a collector writes them.
fn signature(place: &Place, facts: &PodFacts, chosen: &KubernetesConfig) -> Pod {
    let hash = value(&facts.labels, TEMPLATE_HASH);
    let owners = facts
        .owner
        .as_ref()
        .map(|owner| Owners::of(&owner.kind, &owner.name, hash));
    let owners = owners.unwrap_or_default();
    let attributes = attributes(
        workload::Place {
            namespace: &place.namespace,
            pod: &place.pod,
            uid: &place.uid,
            node: &place.node,
        },
        &owners,
        chosen,
        |key| value(&facts.labels, key),
        |key| value(&facts.annotations, key),
    );
    let service = owners.name().unwrap_or(&place.pod);
    Pod {
        attributes,
        service: (!service.is_empty()).then(|| service.into()),
        containers: facts
            .containers
            .iter()
            .map(|name| name.as_str().into())
            .collect(),
        is_partial: false,
    }
}

fn value<'f>(pairs: &'f [(String, String)], key: &str) -> Option<&'f str> {
    let found = pairs.iter().find(|(known, _)| known == key);
    found.map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use spanloom_crds::sidecar::Owner;

    #[test]
    fn what_the_webhook_knows_is_written_as_a_collector_would() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let place = Place {
            pod: "web-5d4f8-x".to_owned(),
            uid: "u-1".to_owned(),
            namespace: "shop".to_owned(),
            node: "node-a".to_owned(),
        };
        let facts = PodFacts {
            labels: vec![pair("pod-template-hash", "5d4f8"), pair("team", "blue")],
            annotations: vec![pair("note", "x")],
            owner: Some(Owner {
                kind: "ReplicaSet".to_owned(),
                name: "web-5d4f8".to_owned(),
                uid: "o".to_owned(),
            }),
            containers: vec!["app".to_owned()],
        };
        let identity = PodIdentity::new(place, facts);
        identity.select(&KubernetesConfig {
            labels: vec!["team".to_owned(), "missing".to_owned()],
            annotations: vec!["note".to_owned()],
            gateways: Vec::new(),
        });
        let pod = identity.pod();
        let have: Vec<_> = pod.attributes.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(
            have,
            [
                ("k8s.namespace.name", "shop"),
                ("k8s.pod.name", "web-5d4f8-x"),
                ("k8s.pod.uid", "u-1"),
                ("k8s.node.name", "node-a"),
                ("k8s.replicaset.name", "web-5d4f8"),
                ("k8s.deployment.name", "web"),
                ("k8s.pod.label.team", "blue"),
                ("k8s.pod.annotation.note", "x"),
            ]
        );
        assert_eq!(pod.service.as_deref(), Some("web"));
    }
}
