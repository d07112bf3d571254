//! Whether pods are injected when they are created.

use spanloom_crds::InjectionMode;
use spanloom_crds::status::{InjectionCount, Status};
use spanloom_inject::census::Counts;

use super::{FALSE, Said, Seen, TRUE, UNKNOWN, said};
use crate::pipeline::Pipeline;
use crate::webhook::injects;

/// The webhook that injects pods, as far as it was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Webhook {
    /// The release has none.
    #[default]
    None,
    /// Its objects were not looked at yet.
    Unknown,
    /// Its Deployment or its configuration is not there.
    Missing,
    /// So many of its replicas are ready, and whether it has an entry for the pipeline.
    Seen {
        /// Ready replicas.
        ready: i64,
        /// Whether the API server asks it for the pipeline's pods.
        is_asked: bool,
    },
}

/// The condition `InjectionReady`.
pub(super) fn said_of(pipeline: &Pipeline, webhook: &Webhook) -> Said {
    if pipeline.spec.injection.mode() == InjectionMode::None {
        return said(TRUE, "Off", "injection.mode is None: no pods are injected");
    }
    if !pipeline.enabled() {
        return said(TRUE, "Off", "enabled is false: no pods are injected");
    }
    match webhook {
        Webhook::None => said(
            FALSE,
            "NoWebhook",
            "the release has no webhook, so no pods are injected; set the chart value webhook.enabled, or \
             injection.mode to None",
        ),
        Webhook::Unknown => said(UNKNOWN, "NotSeenYet", "the webhook has not been seen yet"),
        Webhook::Missing => said(
            FALSE,
            "WebhookMissing",
            "the webhook's Deployment or configuration does not exist, so no pods are injected; run helm upgrade to \
             create it",
        ),
        Webhook::Seen { ready: 0, .. } => said(
            FALSE,
            "WebhookNotReady",
            "no replica of the webhook is ready; pods that are created now are not injected",
        ),
        Webhook::Seen {
            is_asked: false, ..
        } => said(
            FALSE,
            "WaitingForConfiguration",
            "the webhook configuration has no entry for this pipeline yet",
        ),
        Webhook::Seen { .. } => said(TRUE, "Ready", "pods that the pipeline selects are injected"),
    }
}

/// The pods that are injected: as they are to be shown now, else as they were shown last.
pub(super) fn count_of(
    pipeline: &Pipeline,
    seen: &Seen,
    previous: &Status,
) -> Option<InjectionCount> {
    let is_counted = injects(pipeline) && seen.webhook != Webhook::None;
    let shown = seen.injection.as_ref().or(previous.injection.as_ref());
    shown.filter(|_| is_counted).cloned()
}

/// Counts as the status has them.
pub fn shown(counts: &Counts) -> InjectionCount {
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let skipped = counts.skipped.iter();
    InjectionCount {
        matched: number(counts.matched),
        injected: number(counts.injected),
        outdated: number(counts.outdated),
        skipped: skipped
            .map(|(reason, count)| (reason.name().to_owned(), number(*count)))
            .collect(),
        summary: format!("{}/{}", counts.injected, counts.matched),
    }
}
