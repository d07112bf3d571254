//! What an agent must be able to do for a configuration: a name for each field and rule that
//! differs from what every agent does anyway.

use std::time::Duration;

use spanloom_rules::RuleSet;

use crate::resolved::{
    GatewayConfig, KubernetesConfig, ProcessingConfig, Resolved, SamplingConfig, Server,
    StorageConfig,
};

/// What the agents understand that know no capabilities. Frozen: later ones are not added here.
pub const FIRST: &[&str] = &[
    "enabled",
    "processing.resource",
    "processing.kubernetes.labels",
    "processing.kubernetes.annotations",
    "processing.drop",
    "processing.redact.keys",
    "processing.redact.values",
    "processing.redact.values.email",
    "processing.redact.values.creditCard",
    "processing.redact.values.ipv4",
    "processing.redact.values.jwt",
    "processing.redact.values.credentials",
    "processing.limits",
    "sampling.head",
    "storage.retention",
];

/// The capabilities that this content requires, in the order of its fields. Every field is named
/// here, so that one that is added does not compile before its capability is.
pub(super) fn required(enabled: bool, resolved: &Resolved) -> Vec<String> {
    let Resolved {
        processing,
        sampling: SamplingConfig { ratio },
        // Agents that do not take a changed address from here have it from their pods.
        storage: StorageConfig {
            server: _,
            retention,
        },
    } = resolved;
    let ProcessingConfig {
        resource,
        kubernetes:
            KubernetesConfig {
                labels,
                annotations,
                gateways,
            },
        rules,
    } = processing;
    let default = Resolved::default();
    let mut required = Vec::new();
    let mut add = |name: &str, is_used: bool| {
        if is_used {
            required.push(name.to_owned());
        }
    };
    add("enabled", !enabled);
    add("processing.resource", !resource.is_empty());
    add("processing.kubernetes.labels", !labels.is_empty());
    add("processing.kubernetes.annotations", !annotations.is_empty());
    add("processing.kubernetes.gateways", !gateways.is_empty());
    for name in rules.capabilities() {
        add(&format!("processing.{name}"), true);
    }
    add("sampling.head", *ratio != default.sampling.ratio);
    add("storage.retention", *retention != default.storage.retention);
    required
}

/// The capabilities that this program has: what a configuration would require that uses everything.
pub fn understood() -> Vec<String> {
    let text = || "x".to_owned();
    let everything = Resolved {
        processing: ProcessingConfig {
            resource: vec![(text(), text())],
            kubernetes: KubernetesConfig {
                labels: vec![text()],
                annotations: vec![text()],
                gateways: vec![GatewayConfig::default()],
            },
            rules: RuleSet::everything(),
        },
        sampling: SamplingConfig { ratio: 0.0 },
        storage: StorageConfig {
            server: Server::Managed { size_bytes: None },
            retention: Duration::ZERO,
        },
    };
    required(false, &everything)
}
