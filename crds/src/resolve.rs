//! From the document to what each part starts with.

use std::time::Duration;

use crate::document::{Gateway, Processing, Storage, TracingPipeline};
use crate::errors::{DocumentError, DocumentErrors};
use crate::quantity::seconds;
use crate::resolved::{
    GatewayConfig, KubernetesConfig, ProcessingConfig, Resolved, SamplingConfig, Server,
    StorageConfig,
};
use crate::rules::rule_set;
use crate::validate::validate;

/// What the document asks for, defaults filled in.
///
/// # Errors
/// What is wrong with it; a document of [`crate::parse_document`] is right.
pub fn resolve(document: &TracingPipeline) -> Result<Resolved, DocumentErrors> {
    let problems = validate(document);
    if !problems.is_empty() {
        let errors = problems
            .into_iter()
            .map(|p| DocumentError::from_problem(p, None));
        return Err(DocumentErrors(errors.collect()));
    }
    let spec = &document.spec;
    let default = SamplingConfig::default();
    Ok(Resolved {
        processing: processing(&spec.processing),
        sampling: SamplingConfig {
            ratio: spec.sampling.head.ratio.unwrap_or(default.ratio),
        },
        storage: storage(&spec.storage),
    })
}

fn processing(processing: &Processing) -> ProcessingConfig {
    ProcessingConfig {
        resource: processing
            .resource
            .iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect(),
        kubernetes: KubernetesConfig {
            labels: processing.kubernetes.labels.clone(),
            annotations: processing.kubernetes.annotations.clone(),
            gateways: processing.kubernetes.gateways.iter().map(gateway).collect(),
        },
        rules: rule_set(processing),
    }
}

fn gateway(gateway: &Gateway) -> GatewayConfig {
    let labels = gateway.pod_labels.iter();
    GatewayConfig {
        namespace: gateway.namespace.clone(),
        pod_labels: labels.map(|(k, v)| (k.clone(), v.clone())).collect(),
    }
}

fn storage(storage: &Storage) -> StorageConfig {
    let default = StorageConfig::default();
    let hot = storage.retention.hot.as_deref().and_then(seconds);
    let server = match &storage.external {
        Some(external) => Server::External {
            url: external.url.trim_end_matches('/').to_owned(),
            database: external
                .database
                .clone()
                .unwrap_or_else(|| "spanloom".to_owned()),
            credentials_secret: external.credentials_secret.as_ref().map(|s| s.name.clone()),
            cluster: external.cluster.clone(),
        },
        None => {
            let size = storage
                .managed
                .as_ref()
                .and_then(|managed| managed.size.as_ref());
            Server::Managed {
                size_bytes: size.and_then(|size| size.bytes()),
            }
        }
    };
    StorageConfig {
        server,
        retention: hot.map_or(default.retention, Duration::from_secs),
    }
}
