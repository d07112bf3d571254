//! One request of the API server and its answer: an AdmissionReview in, another out.

use std::panic::{AssertUnwindSafe, catch_unwind};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use spanloom_inject::pod::Pod;
use spanloom_inject::{Outcome, PipelineId, decide};

use super::Answerer;

/// Why a request cannot be answered. The API server then creates the pod as it is.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// The path names no pipeline.
    #[error("{0:?} is not a path of this webhook: expected /inject/NAMESPACE/PIPELINE")]
    Path(String),
    /// The body is no review.
    #[error("the body is not an AdmissionReview: {0}")]
    Body(#[from] serde_json::Error),
}

#[derive(Debug, Deserialize)]
struct Review {
    request: Request,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    dry_run: Option<bool>,
    #[serde(default)]
    object: Option<Pod>,
}

/// The reason in metrics of a pod that the pipeline does not select.
const NOT_SELECTED: &str = "NotSelected";
/// The reason in metrics of a pod that is admitted as it is because of a bug.
const ERROR: &str = "Error";

/// Answers the request for a pod that came to `path`.
///
/// # Errors
/// When the request is none.
pub fn answer(path: &str, body: &[u8], with: &Answerer) -> Result<Value, ReviewError> {
    let asked = asked(path).ok_or_else(|| ReviewError::Path(path.to_owned()))?;
    let Review { request } = serde_json::from_slice(body)?;
    let targets = with.known.targets();
    let known = targets.iter().map(|target| &target.id);
    let pipeline = known.clone().find(|id| **id == asked);
    // A namespace that was made a moment ago may not be known yet, and with it its labels.
    let namespace = with.known.namespace(&request.namespace);
    let namespace = namespace.filter(|_| request.operation == "CREATE");
    let decided = match namespace.zip(request.object.as_ref()) {
        None => Ok(Outcome::default()),
        Some((namespace, pod)) => catch_unwind(AssertUnwindSafe(|| {
            decide(pod, &namespace, &targets, &asked)
        })),
    };
    let (outcome, reason) = match decided {
        Ok(outcome) => {
            let reason = outcome.reason.map_or(NOT_SELECTED, |reason| reason.name());
            (outcome, reason)
        }
        Err(_) => {
            tracing::error!(
                namespace = request.namespace,
                "cannot decide about a pod; it is created as it is"
            );
            (Outcome::default(), ERROR)
        }
    };
    if request.dry_run != Some(true) {
        with.metrics.admitted(pipeline, reason);
    }
    Ok(response(&request.uid, &outcome, reason))
}

/// The pipeline that a path names.
fn asked(path: &str) -> Option<PipelineId> {
    let mut parts = path.strip_prefix("/inject/")?.split('/');
    let id = (parts.next()?.to_owned(), parts.next()?.to_owned());
    parts.next().is_none().then_some(id)
}

fn response(uid: &str, outcome: &Outcome, reason: &str) -> Value {
    let mut response = json!({
        "uid": uid, "allowed": true, "auditAnnotations": {"reason": reason},
    });
    if !outcome.patch.is_empty()
        && let Ok(patch) = serde_json::to_vec(&outcome.patch)
    {
        response["patchType"] = json!("JSONPatch");
        response["patch"] = json!(STANDARD.encode(patch));
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}
