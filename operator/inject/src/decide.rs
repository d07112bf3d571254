//! The decision about one pod.

use crate::containers::chosen;
use crate::environment::{variables, was_injected};
use crate::others::instrumented_by;
use crate::patch::{Operation, add_members, append};
use crate::pod::Pod;
use crate::target::selecting;
use crate::{
    INJECT, LABEL_MANAGED_BY, MANAGER, Namespace, OUTCOME, PIPELINE, PipelineId, Reason,
    SKIPPED_CONTAINERS, Target,
};

/// How long a pod's annotations may be together: the API server refuses a pod with more.
const MAX_ANNOTATIONS_BYTES: usize = 256 << 10;

/// What comes of a pod.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// Why; none where the pipeline does not select the pod.
    pub reason: Option<Reason>,
    /// What is to be added to the pod.
    pub patch: Vec<Operation>,
    /// Containers that get nothing, though others may, with their reasons.
    pub skipped: Vec<(String, Reason)>,
}

impl Outcome {
    fn of(reason: Reason) -> Self {
        Self {
            reason: Some(reason),
            ..Self::default()
        }
    }
}

/// Decides about a pod that is being created in `namespace`, for the pipeline that was asked for. `targets` are all
/// pipelines that inject.
pub fn decide(pod: &Pod, namespace: &Namespace, targets: &[Target], asked: &PipelineId) -> Outcome {
    // Our own are traced by nobody, wherever they are.
    if pod.label(LABEL_MANAGED_BY) == Some(MANAGER) {
        return Outcome::default();
    }
    let selecting = selecting(targets, namespace, |key| pod.label(key));
    if !selecting.iter().any(|target| target.id == *asked) {
        return Outcome::default();
    }
    let Some(target) = selecting.into_iter().next() else {
        return Outcome::default();
    };
    if target.id != *asked {
        // The other one leaves its outcome on the pod.
        return Outcome::of(Reason::PipelineConflict);
    }
    if pod.is_mirror() {
        return Outcome::of(Reason::MirrorPod);
    }
    let mut outcome = match against(pod, namespace, target) {
        Some(reason) => Outcome::of(reason),
        None => inject(pod, namespace, target),
    };
    annotate(pod, target, &mut outcome);
    outcome
}

/// What speaks against a pod as a whole.
fn against(pod: &Pod, namespace: &Namespace, target: &Target) -> Option<Reason> {
    if namespace.opts_out(pod.annotation(INJECT)) {
        Some(Reason::OptedOut)
    } else if pod.is_on_windows() {
        Some(Reason::Windows)
    } else if pod.has_host_network() {
        Some(Reason::HostNetwork)
    } else if instrumented_by(pod, namespace).is_some() && !was_injected(pod, target) {
        Some(Reason::AlreadyInstrumented)
    } else {
        None
    }
}

fn inject(pod: &Pod, namespace: &Namespace, target: &Target) -> Outcome {
    let places = match chosen(pod) {
        Ok(places) => places,
        Err(reason) => return Outcome::of(reason),
    };
    let takes_env_from = pod.annotation(INJECT) == Some("true");
    let mut outcome = Outcome::default();
    for place in &places {
        let container = place.container;
        match variables(pod, namespace, target, container, takes_env_from) {
            Ok(new) => append(
                container.env.is_some(),
                &place.env(),
                new,
                &mut outcome.patch,
            ),
            Err(reason) => outcome.skipped.push((container.name.clone(), reason)),
        }
    }
    outcome.reason = match outcome.skipped.first() {
        Some((_, reason)) if outcome.skipped.len() == places.len() => Some(*reason),
        _ => Some(Reason::Injected),
    };
    outcome
}

/// Says on the pod what came of it.
fn annotate(pod: &Pod, target: &Target, outcome: &mut Outcome) {
    let Some(reason) = outcome.reason else {
        return;
    };
    let mut wanted = vec![
        (OUTCOME, reason.name().to_owned()),
        (PIPELINE, target.name()),
    ];
    let skipped = outcome.skipped.iter();
    let skipped: Vec<_> = skipped
        .map(|(container, reason)| format!("{container}={reason}"))
        .collect();
    if !skipped.is_empty() {
        wanted.push((SKIPPED_CONTAINERS, skipped.join(",")));
    }
    wanted.retain(|(key, value)| pod.annotation(key) != Some(value));
    let more: usize = wanted
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    if pod.annotations_bytes() + more > MAX_ANNOTATIONS_BYTES {
        return;
    }
    add_members(
        pod.metadata.annotations.is_some(),
        "/metadata/annotations",
        wanted,
        &mut outcome.patch,
    );
}
