//! What a document says that means nothing on a laptop.

use crate::document::TracingPipeline;

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
    if fields.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "on a laptop these fields mean nothing: {}",
        fields.join(", ")
    )]
}
