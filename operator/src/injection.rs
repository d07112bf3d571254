//! Keeps what the webhook needs: its certificate, and its configuration in the API server, with one entry for each
//! pipeline that injects.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::core::DynamicObject;
use kube::runtime::reflector::Store;
use serde_json::{Value, json};
use spanloom_plan::Release;
use spanloom_plan::hash::hash_of;
use spanloom_plan::leaf::Leaf;
use spanloom_plan::render::{LABEL_MANAGED_BY, MANAGER};
use spanloom_plan::webhook::{Injecting, entries, webhook_name, webhook_names, webhook_secret};
use tokio::time::Instant;

use crate::certificates::Authority;
use crate::cluster::Cluster;
use crate::context::Context;
use crate::keep::{KeepError, leaf_of};
use crate::kinds::{SECRET, WEBHOOK_CONFIGURATION};

/// How often both are looked at when nothing has changed.
const LOOK_EVERY: Duration = Duration::from_secs(120);
/// How soon they are looked at again when that failed.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Changes within this time are one look.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// Keeps them for as long as the release has a webhook.
pub async fn keep_webhook(context: Arc<Context>, pipelines: Store<DynamicObject>) {
    if !context.release.webhook {
        return;
    }
    // Before they were listed it is not known which pipelines there are.
    context.pipelines_changed.notified().await;
    let mut done = None;
    let mut looked = Instant::now();
    loop {
        let all = injecting(&context.release, &pipelines);
        let targets = all.iter().map(|pipeline| pipeline.target(&context.release));
        context.set_targets(targets.collect());
        let is_look = done.is_none();
        let wait = match look(&context, &all, &mut done).await {
            Ok(()) => {
                if is_look {
                    looked = Instant::now();
                }
                LOOK_EVERY
            }
            Err(error) => {
                let class = error.class();
                context.metrics.failed(class.name());
                tracing::warn!("{}", spanloom_program::causes(&error));
                looked = Instant::now();
                RETRY_AFTER
            }
        };
        tokio::select! {
            // What others did to the objects is only seen by looking.
            () = tokio::time::sleep_until(looked + wait) => done = None,
            () = context.pipelines_changed.notified() => tokio::time::sleep(DEBOUNCE).await,
        }
    }
}

/// The pipelines for which pods are injected.
fn injecting(release: &Release, pipelines: &Store<DynamicObject>) -> Vec<Injecting> {
    let all = pipelines.state();
    let read = all.iter().filter_map(|object| {
        let value = serde_json::to_value(&**object).ok()?;
        Injecting::read(&value, release)
    });
    read.collect()
}

/// Looks at both, unless everything is as it was when that was done last.
async fn look(
    context: &Context,
    pipelines: &[Injecting],
    done: &mut Option<String>,
) -> Result<(), KeepError> {
    let (cluster, release) = (&context.cluster, &context.release);
    let now = jiff::Timestamp::now().as_second();
    let authority = context
        .authorities
        .authority(cluster, &release.namespace, now)
        .await?;
    let bundle = authority.bundle();
    let wanted = hash_of(&(entries(pipelines, release, &bundle, &Value::Null), &bundle));
    if done.as_ref() == Some(&wanted) {
        return Ok(());
    }
    keep_certificate(cluster, release, &authority, now).await?;
    let name = webhook_name(release);
    // Where the chart made none, or somebody deleted it, the operator may not make one.
    if let Some(found) = cluster.get(WEBHOOK_CONFIGURATION, None, &name).await?
        && let Some(entries) = entries(pipelines, release, &bundle, &found)
    {
        // As a whole: entries are nobody else's to add to. The version says that nothing changed in between.
        let version = &found["metadata"]["resourceVersion"];
        let patch = json!({"metadata": {"resourceVersion": version}, "webhooks": entries});
        cluster
            .merge(WEBHOOK_CONFIGURATION, None, &name, &patch)
            .await?;
        tracing::info!(name, "updated the webhook configuration");
    }
    *done = Some(wanted);
    Ok(())
}

/// Makes the webhook's certificate, when there is none that serves.
async fn keep_certificate(
    cluster: &Cluster,
    release: &Release,
    authority: &Authority,
    now: i64,
) -> Result<(), KeepError> {
    let (namespace, name) = (release.namespace.as_str(), webhook_secret(release));
    let names = webhook_names(release);
    let found = cluster.get(SECRET, Some(namespace), &name).await?;
    let kept = found.as_ref().and_then(leaf_of);
    if kept.is_some_and(|leaf| leaf.serves(&authority.current.name, &names, now)) {
        return Ok(());
    }
    let leaf = authority.leaf(&names, now)?;
    let secret = tls_secret(namespace, &name, &leaf, &authority.bundle());
    cluster
        .apply_shared(SECRET, Some(namespace), &secret)
        .await?;
    Ok(())
}

/// The certificate, and by whom it is trusted: the webhook checks itself before it says that it is ready.
fn tls_secret(namespace: &str, name: &str, leaf: &Leaf, ca_bundle: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {
            "name": name, "namespace": namespace, "annotations": leaf.annotations(),
            "labels": {"app.kubernetes.io/name": "spanloom", LABEL_MANAGED_BY: MANAGER},
        },
        "data": {
            "tls.crt": STANDARD.encode(&leaf.certificate),
            "tls.key": STANDARD.encode(&leaf.key),
            "ca.crt": STANDARD.encode(ca_bundle),
        },
    })
}
