//! What a pod's spans are signed with, from the object as the API server shows it.
//!
//! Only the fields below are read: whole pods of a large node would take more memory than all the
//! rest of an idle collector.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use kube::core::{NamespaceResourceScope, ObjectMeta};
use serde::{Deserialize, Deserializer};
use spanloom_crds::resolved::{GatewayConfig, KubernetesConfig};
use spanloom_crds::sidecar::CONTAINER;
use spanloom_crds::workload::{Owners, Place, TEMPLATE_HASH, attributes};
use spanloom_pipeline::Pod;

/// A pod, without what nobody here needs.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ApiPod {
    #[serde(deserialize_with = "lean_metadata")]
    pub(super) metadata: ObjectMeta,
    spec: PodSpec,
    status: PodStatus,
}

impl Resource for ApiPod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Metadata without `managedFields`, which are most of it.
fn lean_metadata<'de, D: Deserializer<'de>>(from: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Lean {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        labels: Option<BTreeMap<String, String>>,
        annotations: Option<BTreeMap<String, String>>,
        owner_references: Option<Vec<OwnerReference>>,
    }
    let lean = Lean::deserialize(from)?;
    Ok(ObjectMeta {
        name: lean.name,
        namespace: lean.namespace,
        uid: lean.uid,
        resource_version: lean.resource_version,
        labels: lean.labels,
        annotations: lean.annotations,
        owner_references: lean.owner_references,
        ..ObjectMeta::default()
    })
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    host_network: bool,
    containers: Vec<Container>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Container {
    name: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct PodStatus {
    phase: String,
    #[serde(rename = "podIP")]
    pod_ip: String,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct PodIp {
    ip: String,
}

/// A pod that may send.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) uid: String,
    pub(super) addresses: Vec<IpAddr>,
    /// None for a pod in its node's network: its address is the node's, and so is not its own.
    pub(super) pod: Option<Pod>,
    /// It may speak for others.
    pub(super) is_gateway: bool,
}

impl Known {
    /// What is known of a pod on `node`; nothing while it has no address, and when it has ended: its
    /// address may be another's by then.
    pub(super) fn of(pod: &ApiPod, node: &str, chosen: &KubernetesConfig) -> Option<Self> {
        let status = &pod.status;
        if matches!(status.phase.as_str(), "Succeeded" | "Failed") {
            return None;
        }
        let single = std::iter::once(&status.pod_ip);
        let texts = status.pod_ips.iter().map(|entry| &entry.ip).chain(single);
        let mut addresses: Vec<IpAddr> = texts.filter_map(|ip| ip.parse().ok()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let uid = pod.metadata.uid.clone()?;
        if addresses.is_empty() {
            return None;
        }
        Some(Self {
            uid,
            addresses,
            pod: (!pod.spec.host_network).then(|| identity(pod, node, chosen)),
            is_gateway: chosen.gateways.iter().any(|g| is_of(&pod.metadata, g)),
        })
    }
}

fn is_of(meta: &ObjectMeta, gateway: &GatewayConfig) -> bool {
    let has = |(key, value): &(String, String)| {
        let labels = meta.labels.as_ref();
        labels.and_then(|labels| labels.get(key)) == Some(value)
    };
    meta.namespace.as_ref() == Some(&gateway.namespace) && gateway.pod_labels.iter().all(has)
}

fn identity(pod: &ApiPod, node: &str, chosen: &KubernetesConfig) -> Pod {
    let meta = &pod.metadata;
    let name = meta.name.as_deref().unwrap_or_default();
    let owners = owners(meta);
    let place = Place {
        namespace: meta.namespace.as_deref().unwrap_or_default(),
        pod: name,
        uid: meta.uid.as_deref().unwrap_or_default(),
        node,
    };
    let attributes = attributes(
        place,
        &owners,
        chosen,
        |key| value(meta.labels.as_ref(), key),
        |key| value(meta.annotations.as_ref(), key),
    );
    let service = owners.name().unwrap_or(name);
    Pod {
        attributes,
        service: (!service.is_empty()).then(|| service.into()),
        containers: pod
            .spec
            .containers
            .iter()
            .map(|container| container.name.as_str())
            // It sends for the others.
            .filter(|name| *name != CONTAINER)
            .map(Into::into)
            .collect(),
        is_partial: false,
    }
}

fn value<'m>(map: Option<&'m BTreeMap<String, String>>, key: &str) -> Option<&'m str> {
    map?.get(key).map(String::as_str)
}

/// What the pod belongs to.
fn owners(meta: &ObjectMeta) -> Owners {
    let owners = meta.owner_references.iter().flatten();
    let controller = owners
        .into_iter()
        .find(|owner| owner.controller == Some(true));
    let labels = meta.labels.as_ref();
    let hash = labels.and_then(|labels| labels.get(TEMPLATE_HASH));
    controller.map_or_else(Owners::default, |owner| {
        Owners::of(&owner.kind, &owner.name, hash.map(String::as_str))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(metadata: Value, spec: Value, status: Value) -> ApiPod {
        let object = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status,
        });
        serde_json::from_value(object).unwrap()
    }

    fn running() -> Value {
        json!({"phase": "Running", "podIP": "10.1.0.7", "podIPs": [{"ip": "10.1.0.7"}, {"ip": "fd00::7"}]})
    }

    #[track_caller]
    fn check_workload(owner: Value, labels: Value, expect: &[(&str, &str)], service: &str) {
        let mut meta =
            json!({"name": "web-1", "namespace": "shop", "uid": "u-1", "labels": labels});
        if !owner.is_null() {
            meta["ownerReferences"] = json!([owner]);
        }
        let pod = pod(meta, json!({"containers": [{"name": "app"}]}), running());
        let known = Known::of(&pod, "node-a", &KubernetesConfig::default()).unwrap();
        let pod = known.pod.unwrap();
        let base = [
            ("k8s.namespace.name", "shop"),
            ("k8s.pod.name", "web-1"),
            ("k8s.pod.uid", "u-1"),
            ("k8s.node.name", "node-a"),
        ];
        let have: Vec<_> = pod.attributes.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(have, [&base, expect].concat());
        assert_eq!(pod.service.as_deref(), Some(service));
    }

    fn owner(kind: &str, name: &str) -> Value {
        json!({"apiVersion": "x/v1", "kind": kind, "name": name, "uid": "o", "controller": true})
    }

    #[test]
    fn workloads() {
        let hash = json!({"pod-template-hash": "5d4f8"});
        check_workload(
            owner("ReplicaSet", "web-5d4f8"),
            hash.clone(),
            &[
                ("k8s.replicaset.name", "web-5d4f8"),
                ("k8s.deployment.name", "web"),
            ],
            "web",
        );
        // A ReplicaSet of its own, and one of Argo's, which has another label.
        for labels in [hash, json!({"rollouts-pod-template-hash": "77"})] {
            let expect = [("k8s.replicaset.name", "web-77")];
            check_workload(owner("ReplicaSet", "web-77"), labels, &expect, "web-77");
        }
        for (kind, key) in [
            ("StatefulSet", "k8s.statefulset.name"),
            ("DaemonSet", "k8s.daemonset.name"),
            ("Job", "k8s.job.name"),
        ] {
            check_workload(owner(kind, "db-1"), json!({}), &[(key, "db-1")], "db-1");
        }
        check_workload(
            owner("Job", "night-29384750"),
            json!({}),
            &[
                ("k8s.job.name", "night-29384750"),
                ("k8s.cronjob.name", "night"),
            ],
            "night",
        );
        check_workload(owner("Node", "node-a"), json!({}), &[], "web-1");
        check_workload(Value::Null, json!({}), &[], "web-1");
        let mut not_in_charge = owner("StatefulSet", "db");
        not_in_charge["controller"] = json!(false);
        check_workload(not_in_charge, json!({}), &[], "web-1");
    }

    #[test]
    fn chosen_labels_and_annotations() {
        let meta = json!({
            "name": "p", "uid": "u", "labels": {"a/version": "1", "other": "x"},
            "annotations": {"team": "blue", "secret": "x"},
        });
        let chosen = KubernetesConfig {
            labels: vec!["a/version".into(), "missing".into()],
            annotations: vec!["team".into()],
            gateways: Vec::new(),
        };
        let known = Known::of(&pod(meta, json!({}), running()), "n", &chosen).unwrap();
        let pod = known.pod.unwrap();
        let have: Vec<_> = pod.attributes.iter().skip(3).cloned().collect();
        let expect = [
            ("k8s.pod.label.a/version", "1"),
            ("k8s.pod.annotation.team", "blue"),
        ];
        assert_eq!(have, expect.map(|(k, v)| (k.into(), v.into())));
    }

    #[test]
    fn who_counts() {
        let known = |spec: Value, status: Value| {
            let pod = pod(json!({"name": "p", "uid": "u"}), spec, status);
            Known::of(&pod, "n", &KubernetesConfig::default())
        };
        let found = known(
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            running(),
        )
        .unwrap();
        let expect: Vec<IpAddr> = ["10.1.0.7", "fd00::7"].map(|ip| ip.parse().unwrap()).into();
        assert_eq!(found.addresses, expect);
        assert_eq!(found.pod.unwrap().containers, ["a".into(), "b".into()]);
        let host = known(json!({"hostNetwork": true}), running()).unwrap();
        assert!(host.pod.is_none());
        for phase in ["Succeeded", "Failed"] {
            let status = json!({"phase": phase, "podIP": "10.1.0.7"});
            assert!(known(json!({}), status).is_none(), "{phase}");
        }
        assert!(known(json!({}), json!({"phase": "Pending"})).is_none());
    }
}
