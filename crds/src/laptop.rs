//! What a document says that means nothing on a laptop.

use crate::document::Collector;
use crate::document::{Grafana, Images, Kubernetes, Query, Spec, TracingPipeline};

/// One line that names the given fields which `spanloom up` does not use; none when there are none.
pub fn laptop_notes(document: &TracingPipeline) -> Vec<String> {
    let storage = &document.spec.storage;
    let mut fields = Vec::new();
    if document.metadata.namespace.is_some() {
        fields.push("metadata.namespace");
    }
    if storage
        .managed
        .as_ref()
        .is_some_and(|managed| managed.size.is_some())
    {
        fields.push("spec.storage.managed.size");
    }
    if storage
        .external
        .as_ref()
        .is_some_and(|external| external.credentials_secret.is_some())
    {
        fields.push(
            "spec.storage.external.credentialsSecret (use the environment variables \
             SPANLOOM_CLICKHOUSE_USER and SPANLOOM_CLICKHOUSE_PASSWORD)",
        );
    }
    fields.extend(cluster_only(&document.spec));
    if fields.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "on a laptop these fields mean nothing: {}",
        fields.join(", ")
    )]
}

/// The fields of a cluster's own that are given.
fn cluster_only(spec: &Spec) -> Vec<&'static str> {
    let managed = spec.storage.managed.as_ref();
    let external = spec.storage.external.as_ref();
    let given = [
        (
            "spec.storage.managed.storageClassName",
            managed.is_some_and(|m| m.storage_class_name.is_some()),
        ),
        (
            "spec.storage.managed.resources",
            managed.is_some_and(|m| m.resources.is_some()),
        ),
        (
            "spec.storage.external.tls.caSecret (use the environment variable \
             SPANLOOM_CLICKHOUSE_CA_FILE)",
            external.is_some_and(|e| e.tls.as_ref().is_some_and(|tls| tls.ca_secret.is_some())),
        ),
        ("spec.managementState", spec.management_state.is_some()),
        (
            "spec.processing.kubernetes",
            spec.processing.kubernetes != Kubernetes::default(),
        ),
        ("spec.collector", spec.collector != Collector::default()),
        ("spec.query", spec.query != Query::default()),
        ("spec.grafana", spec.grafana != Grafana::default()),
        ("spec.images", spec.images != Images::default()),
    ];
    given
        .into_iter()
        .filter_map(|(field, is_given)| is_given.then_some(field))
        .collect()
}
