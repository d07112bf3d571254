//! Carries out the steps of a plan. One that fails keeps no other from being carried out.

use serde_json::json;
use spanloom_plan::{Pipeline, Step};
use spanloom_program::causes;
use tokio::time::Instant;

use crate::cluster::{Cluster, ClusterError};
use crate::context::{Context, Memory};
use crate::kinds::VOLUME_CLAIM;

/// Carries out `steps`, and remembers what came of each. Returns the first failure, in words.
pub async fn act(context: &Context, pipeline: &Pipeline, steps: Vec<Step>) -> Option<String> {
    let id = (pipeline.namespace.clone(), pipeline.name.clone());
    let mut first = None;
    for step in steps {
        let done = carry_out(&context.cluster, pipeline, &step).await;
        if let Err(error) = &done {
            context.metrics.failed(error.class().name());
            tracing::warn!(
                pipeline = pipeline.name,
                namespace = pipeline.namespace,
                "{}",
                causes(error)
            );
            first.get_or_insert_with(|| causes(error));
        }
        context.memory(&id, |memory| remember(memory, &step, done));
    }
    first
}

async fn carry_out(
    cluster: &Cluster,
    pipeline: &Pipeline,
    step: &Step,
) -> Result<Option<serde_json::Value>, ClusterError> {
    let namespace = &pipeline.namespace;
    match step {
        Step::Apply { desired, is_new } => {
            let applied = cluster.apply(namespace, &pipeline.uid, desired, *is_new);
            Ok(Some(applied.await?))
        }
        Step::Delete { key, uid } => {
            cluster.delete(namespace, key, uid.as_deref()).await?;
            Ok(None)
        }
        Step::Grow { name, size } => {
            let patch = json!({"spec": {"resources": {"requests": {"storage": size}}}});
            cluster
                .merge(VOLUME_CLAIM, Some(namespace), name, &patch)
                .await?;
            Ok(None)
        }
    }
}

fn remember(
    memory: &mut Memory,
    step: &Step,
    done: Result<Option<serde_json::Value>, ClusterError>,
) {
    let key = step.key();
    let applied = match done {
        Ok(applied) => {
            memory.refusals.succeeded(&key);
            applied
        }
        Err(error) => {
            let (class, why) = (error.class(), causes(&error));
            let (wanted, now) = (step.wanted(), Instant::now().into_std());
            memory.refusals.failed(key, &wanted, class, &why, now);
            return;
        }
    };
    match step {
        Step::Apply { desired, .. } => {
            if let Some(applied) = &applied {
                memory.settled.applied(desired, applied);
            }
            memory.kept.wrote(&key, applied);
        }
        Step::Delete { .. } => memory.kept.wrote(&key, None),
        Step::Grow { .. } => memory.kept.claim_changed(),
    }
}
