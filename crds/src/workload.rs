//! What a pod belongs to, as far as its own metadata tells: a ReplicaSet is named after its Deployment and
//! the hash in the pod's label, a Job after its CronJob and the time. So ReplicaSets and
//! Jobs need not be watched, and the webhook and the collectors name a pod's service alike.

use crate::resolved::KubernetesConfig;

/// The label of a Deployment's pods with which their ReplicaSet's name ends.
pub const TEMPLATE_HASH: &str = "pod-template-hash";

/// Where a pod is.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub pod: &'a str,
    /// Its uid.
    pub uid: &'a str,
    /// Its node's name.
    pub node: &'a str,
}

/// The resource attributes of a pod, in the order in which they are written: where it is, what it belongs to, and the
/// labels and annotations that are chosen. What is empty is left out.
pub fn attributes<'v>(
    place: Place<'_>,
    owners: &Owners,
    chosen: &KubernetesConfig,
    label: impl Fn(&str) -> Option<&'v str>,
    annotation: impl Fn(&str) -> Option<&'v str>,
) -> Vec<(Box<str>, Box<str>)> {
    let mut attributes = Vec::new();
    let mut set = |key: &str, value: &str| {
        if !value.is_empty() {
            attributes.push((key.into(), value.into()));
        }
    };
    set("k8s.namespace.name", place.namespace);
    set("k8s.pod.name", place.pod);
    set("k8s.pod.uid", place.uid);
    set("k8s.node.name", place.node);
    for (key, owner) in &owners.attributes {
        set(key, owner);
    }
    for key in &chosen.labels {
        set(
            &format!("k8s.pod.label.{key}"),
            label(key).unwrap_or_default(),
        );
    }
    for key in &chosen.annotations {
        let value = annotation(key).unwrap_or_default();
        set(&format!("k8s.pod.annotation.{key}"), value);
    }
    attributes
}

/// The owners of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owners {
    /// Nearest first: each a resource attribute's key and the owner's name.
    attributes: Vec<(&'static str, String)>,
    /// A controller for which there is no attribute.
    other: Option<String>,
}

impl Owners {
    /// The owners of a pod whose controller has this kind and name; `template_hash` is the pod's label
    /// [`TEMPLATE_HASH`].
    pub fn of(kind: &str, name: &str, template_hash: Option<&str>) -> Self {
        let mut owners = Vec::new();
        match kind {
            "ReplicaSet" => {
                let deployment = deployment(name, template_hash);
                owners.push(("k8s.replicaset.name", name.to_owned()));
                owners.extend(deployment.map(|name| ("k8s.deployment.name", name.to_owned())));
            }
            "Job" => {
                let cron = cron_job(name);
                owners.push(("k8s.job.name", name.to_owned()));
                owners.extend(cron.map(|name| ("k8s.cronjob.name", name.to_owned())));
            }
            "StatefulSet" => owners.push(("k8s.statefulset.name", name.to_owned())),
            "DaemonSet" => owners.push(("k8s.daemonset.name", name.to_owned())),
            "ReplicationController" => {
                owners.push(("k8s.replicationcontroller.name", name.to_owned()));
            }
            _ => {}
        }
        // A static pod's is its node.
        let is_other = owners.is_empty() && kind != "Node";
        Self {
            attributes: owners,
            other: is_other.then(|| name.to_owned()),
        }
    }

    /// What a person would call it: the name of the farthest owner.
    pub fn name(&self) -> Option<&str> {
        let farthest = self.attributes.last().map(|(_, name)| name);
        farthest.or(self.other.as_ref()).map(String::as_str)
    }
}

fn deployment<'n>(replica_set: &'n str, template_hash: Option<&str>) -> Option<&'n str> {
    let name = replica_set
        .strip_suffix(template_hash?)?
        .strip_suffix('-')?;
    (!name.is_empty()).then_some(name)
}

/// A CronJob's Jobs end in the minutes since 1970 of their time: eight digits until the year 2160.
fn cron_job(job: &str) -> Option<&str> {
    let (name, minutes) = job.rsplit_once('-')?;
    let scheduled = minutes.len() == 8 && minutes.bytes().all(|byte| byte.is_ascii_digit());
    (scheduled && !name.is_empty()).then_some(name)
}
