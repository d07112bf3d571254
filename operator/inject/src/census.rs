//! How many pods a pipeline selects, and what became of each: from their metadata alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::pod::Pod;
use crate::target::selecting;
use crate::{
    INJECT, LABEL_MANAGED_BY, MANAGER, Namespace, OUTCOME, PIPELINE, PipelineId, Reason, Target,
};

/// What is kept of a pod that runs, or will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// Its namespace.
    pub namespace: String,
    /// Its labels. Pods of one workload share them.
    pub labels: Arc<BTreeMap<String, String>>,
    /// What came of it, and for which pipeline, `namespace/name`, as its annotations say.
    pub outcome: Option<(Reason, String)>,
    /// Its annotation [`INJECT`].
    pub inject: Option<String>,
}

impl Noted {
    /// What is kept of a pod's metadata; nothing of our own pods, which are never injected.
    pub fn of(pod: Pod) -> Option<Self> {
        if pod.label(LABEL_MANAGED_BY) == Some(MANAGER) {
            return None;
        }
        let reason = match pod.is_mirror() {
            true => Some(Reason::MirrorPod),
            false => pod.annotation(OUTCOME).and_then(Reason::named),
        };
        let by = pod.annotation(PIPELINE).unwrap_or_default().to_owned();
        Some(Self {
            outcome: reason.map(|reason| (reason, by)),
            inject: pod.annotation(INJECT).map(str::to_owned),
            namespace: pod.metadata.namespace,
            labels: Arc::new(pod.metadata.labels),
        })
    }
}

/// The pods that a pipeline selects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of them.
    pub matched: u64,
    /// Those that were injected for it.
    pub injected: u64,
    /// Those that were created before it selected them, or while the webhook did not answer: they have to be created
    /// anew.
    pub outdated: u64,
    /// Those that were not injected, by reason.
    pub skipped: BTreeMap<Reason, u64>,
}

/// Counts the pods of each pipeline that injects. A pod that several select counts for the oldest; for the others it
/// is a conflict.
pub fn count<'p>(
    pods: impl Iterator<Item = &'p Noted>,
    namespace: impl Fn(&str) -> Option<Namespace>,
    targets: &[Target],
) -> BTreeMap<PipelineId, Counts> {
    let mut all: BTreeMap<PipelineId, Counts> = targets
        .iter()
        .map(|target| (target.id.clone(), Counts::default()))
        .collect();
    let mut known: BTreeMap<&str, Option<Namespace>> = BTreeMap::new();
    for pod in pods {
        let namespace = known
            .entry(&pod.namespace)
            .or_insert_with(|| namespace(&pod.namespace));
        let Some(namespace) = namespace.as_ref() else {
            continue;
        };
        let label = |key: &str| pod.labels.get(key).map(String::as_str);
        for (place, target) in selecting(targets, namespace, label).into_iter().enumerate() {
            let Some(counts) = all.get_mut(&target.id) else {
                continue;
            };
            counts.matched += 1;
            match &pod.outcome {
                _ if place > 0 => skip(counts, Reason::PipelineConflict),
                Some((Reason::Injected, by)) if *by == target.name() => counts.injected += 1,
                None if namespace.opts_out(pod.inject.as_deref()) => {
                    skip(counts, Reason::OptedOut);
                }
                Some((Reason::Injected, _)) | None => counts.outdated += 1,
                Some((reason, _)) => skip(counts, *reason),
            }
        }
    }
    all
}

fn skip(counts: &mut Counts, reason: Reason) {
    *counts.skipped.entry(reason).or_default() += 1;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use spanloom_crds::LabelSelector;

    fn target(name: &str, created: &str) -> Target {
        Target {
            id: ("tracing".to_owned(), name.to_owned()),
            created: created.to_owned(),
            only_own_namespace: false,
            excluded: Vec::new(),
            namespaces: LabelSelector {
                match_labels: [("trace".to_owned(), "yes".to_owned())].into(),
                ..LabelSelector::default()
            },
            pods: LabelSelector::default(),
            endpoint: String::new(),
        }
    }

    fn noted(namespace: &str, annotations: Value, labels: Value) -> Option<Noted> {
        let metadata =
            json!({"namespace": namespace, "annotations": annotations, "labels": labels});
        Noted::of(serde_json::from_value(json!({"metadata": metadata})).unwrap())
    }

    fn said(reason: &str, by: &str) -> Value {
        json!({"spanloom.dev/injection": reason, "spanloom.dev/injected-by": by})
    }

    #[test]
    fn each_pod_counts_once_for_each_pipeline_that_selects_it() {
        let pod = |annotations| noted("shop", annotations, json!({}));
        let pods = [
            pod(said("Injected", "tracing/old")),
            pod(said("Injected", "tracing/old")),
            pod(said("Injected", "tracing/gone")),
            pod(said("HostNetwork", "tracing/old")),
            pod(said("OptedOut", "tracing/old")),
            pod(said("OfAnotherVersion", "tracing/old")),
            pod(json!({})),
            // Created before the webhook was asked, and not to be injected anyway.
            pod(json!({"spanloom.dev/inject": "false"})),
            noted(
                "shop",
                json!({"kubernetes.io/config.mirror": "hash"}),
                json!({}),
            ),
            noted("other", json!({}), json!({})),
            noted("unknown", json!({}), json!({})),
            noted("shop", json!({}), json!({LABEL_MANAGED_BY: MANAGER})),
        ];
        let namespace = |name: &str| {
            let labels = match name {
                "shop" => [("trace".to_owned(), "yes".to_owned())].into(),
                "other" => BTreeMap::new(),
                _ => return None,
            };
            Some(Namespace {
                name: name.to_owned(),
                labels,
                ..Namespace::default()
            })
        };
        let targets = [
            target("young", "2026-02-01T00:00:00Z"),
            target("old", "2026-01-01T00:00:00Z"),
        ];
        let counts = count(pods.iter().flatten(), namespace, &targets);
        let of = |name: &str| &counts[&("tracing".to_owned(), name.to_owned())];
        let expected = Counts {
            matched: 9,
            injected: 2,
            outdated: 3,
            skipped: [
                (Reason::HostNetwork, 1),
                (Reason::OptedOut, 2),
                (Reason::MirrorPod, 1),
            ]
            .into(),
        };
        assert_eq!(*of("old"), expected);
        let expected = Counts {
            matched: 9,
            skipped: [(Reason::PipelineConflict, 9)].into(),
            ..Counts::default()
        };
        assert_eq!(*of("young"), expected);
    }
}
