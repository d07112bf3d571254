//! What is said of a change of conditions: an event for people who look at the pipeline, and a line in
//! the log for each.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::ResourceExt;
use kube::core::DynamicObject;
use kube::runtime::events::{Event, EventType};
use spanloom_crds::status::{Condition, Status};
use spanloom_plan::conditions::{Turned, turned};

use crate::cluster::api_text;
use crate::context::Context;
use crate::kinds::PIPELINE;

/// The longest note that the API takes, in characters, with room for those that are longer than a byte.
const NOTE: usize = 1_000;

/// Tells what is different from the status before.
pub async fn tell(context: &Context, object: &DynamicObject, before: &Status, now: &Status) {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let reference = ObjectReference {
        api_version: Some(PIPELINE.resource().api_version),
        kind: Some(PIPELINE.kind.to_owned()),
        name: Some(name.clone()),
        namespace: Some(namespace.clone()),
        uid: object.metadata.uid.clone(),
        ..ObjectReference::default()
    };
    for Turned {
        condition,
        is_bad,
        is_told,
    } in turned(before, now)
    {
        log(&namespace, &name, condition, is_bad);
        if condition.reason == "RolledBack" {
            context.metrics.rolled_back(&namespace, &name);
        }
        if !is_told {
            continue;
        }
        let event = Event {
            type_: if is_bad {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: condition.reason.clone(),
            note: Some(condition.message.chars().take(NOTE).collect()),
            action: condition.type_.clone(),
            secondary: None,
        };
        match context.events.publish(&event, &reference).await {
            Ok(()) => context.metrics.wrote("Event", "publish"),
            Err(error) => {
                // A namespace that is going away takes none any more.
                tracing::info!("cannot publish an event: {}", api_text(&error));
            }
        }
    }
}

fn log(namespace: &str, pipeline: &str, condition: &Condition, is_bad: bool) {
    let Condition {
        type_,
        status,
        reason,
        message,
        ..
    } = condition;
    if is_bad {
        tracing::warn!(
            namespace,
            pipeline,
            condition = type_,
            status,
            reason,
            "{message}"
        );
    } else {
        tracing::info!(
            namespace,
            pipeline,
            condition = type_,
            status,
            reason,
            "{message}"
        );
    }
}
