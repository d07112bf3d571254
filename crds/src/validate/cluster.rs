//! Whether the values that only a cluster uses make sense.

use std::collections::{BTreeMap, HashSet};

use crate::document::{
    Collector, Images, Kubernetes, MAX_GATEWAYS, MAX_METADATA_KEYS, MAX_PATH, MAX_REPLICAS, Query,
    Resources, Scheduling, Spec, TolerationOperator,
};
use crate::errors::Path;
use crate::quantity::Amount;
use crate::validate::{Problems, is_dns_name, secret_name, sized};

/// The least size of a collector's log.
const MIN_LOG_BYTES: u64 = 256 << 20;
/// The least memory, in thousandths of a byte, that a collector's limit may give it.
const MIN_COLLECTOR_MEMORY_MILLI: u128 = (128 << 20) * 1_000;

pub(super) fn cluster(spec: &Spec, problems: &mut Problems) {
    let path = Path::of("spec");
    kubernetes(
        &spec.processing.kubernetes,
        &path.key("processing").key("kubernetes"),
        problems,
    );
    collector(&spec.collector, &path.key("collector"), problems);
    query(&spec.query, &path.key("query"), problems);
    images(&spec.images, &path.key("images"), problems);
    if let Some(managed) = &spec.storage.managed {
        let path = path.key("storage").key("managed");
        resources(managed.resources.as_ref(), &path, problems);
        if let Some(class) = &managed.storage_class_name {
            object_name(class, path.key("storageClassName"), problems);
        }
        scheduling(managed.scheduling(), &path, problems);
    }
}

fn object_name(name: &str, path: Path, problems: &mut Problems) {
    if !is_dns_name(name, 253, true) {
        let text = format!("{name:?} is not a valid Kubernetes name");
        problems.add(path, text, "use lower-case letters, digits and -");
    }
}

fn kubernetes(kubernetes: &Kubernetes, path: &Path, problems: &mut Problems) {
    if kubernetes.gateways.len() > MAX_GATEWAYS {
        let text = format!("has {} entries", kubernetes.gateways.len());
        let advice = format!("at most {MAX_GATEWAYS} are allowed");
        problems.add(path.key("gateways"), text, advice);
    }
    for (n, gateway) in kubernetes.gateways.iter().enumerate() {
        let path = path.key("gateways").index(n);
        if !is_dns_name(&gateway.namespace, 63, false) {
            let text = format!("{:?} is not a valid namespace", gateway.namespace);
            let advice = "use lower-case letters, digits and -";
            problems.add(path.key("namespace"), text, advice);
        }
        metadata_keys(&gateway.pod_labels, &path.key("podLabels"), problems);
    }
    for (field, keys) in [
        ("labels", &kubernetes.labels),
        ("annotations", &kubernetes.annotations),
    ] {
        let path = path.key(field);
        if keys.len() > MAX_METADATA_KEYS {
            let text = format!("has {} keys", keys.len());
            let advice = format!("at most {MAX_METADATA_KEYS} are allowed");
            problems.add(path.clone(), text, advice);
        }
        let mut seen = HashSet::new();
        for (n, key) in keys.iter().enumerate() {
            if !is_metadata_key(key) {
                let advice = "write a key such as app.kubernetes.io/version";
                problems.add(path.index(n), format!("{key:?} is not a valid key"), advice);
            } else if !seen.insert(key) {
                let text = format!("{key:?} is given twice");
                problems.add(path.index(n), text, "remove one");
            }
        }
    }
}

/// Whether it can be the key of a label or annotation: `prefix/name` or `name`.
fn is_metadata_key(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let outer = |c: char| c.is_ascii_alphanumeric();
    (1..=63).contains(&name.len())
        && name.chars().all(|c| outer(c) || "-_.".contains(c))
        && name.starts_with(outer)
        && name.ends_with(outer)
        && prefix.is_none_or(|prefix| is_dns_name(prefix, 253, true))
}

fn collector(collector: &Collector, path: &Path, problems: &mut Problems) {
    resources(collector.resources.as_ref(), path, problems);
    let limits = collector.resources.as_ref().map(|r| &r.limits);
    if let Some(memory) = limits.and_then(|limits| limits.get("memory"))
        && memory
            .milli()
            .is_some_and(|milli| milli < MIN_COLLECTOR_MEMORY_MILLI)
    {
        let path = path.key("resources").key("limits").key("memory");
        let advice = "use 128Mi or more";
        problems.add(path, "must be at least 128Mi", advice);
    }
    if let Some(surge) = &collector.max_surge
        && !is_surge(surge)
    {
        let text = format!("{:?} is not a valid number of nodes", surge.text());
        let advice = "write 1 or more, or a percentage from 1% to 100%";
        problems.add(path.key("maxSurge"), text, advice);
    }
    let log = collector.log.as_ref();
    if let Some(folder) = log.and_then(|log| log.host_path.as_ref())
        && !is_host_path(folder)
    {
        let text = format!("{folder:?} is not a valid directory for logs");
        let advice = "write an absolute path other than /, such as /var/lib/spanloom";
        problems.add(path.key("log").key("hostPath"), text, advice);
    }
    if let Some(size) = log.and_then(|log| log.size.as_ref()) {
        let path = path.key("log").key("size");
        if sized(size, &path, problems).is_some_and(|bytes| bytes < MIN_LOG_BYTES) {
            problems.add(path, "is less than 256Mi", "use 256Mi or more");
        }
    }
    scheduling(collector.scheduling(), path, problems);
}

/// An absolute path below `/` that leads nowhere else.
fn is_host_path(path: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let is_part = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(inner);
    let parts = path.strip_prefix('/');
    path.len() <= MAX_PATH && parts.is_some_and(|parts| parts.split('/').all(is_part))
}

/// A number of nodes, or a percentage of them.
fn is_surge(surge: &Amount) -> bool {
    match surge {
        Amount::Number(number) => *number >= 1,
        Amount::Text(text) => text
            .strip_suffix('%')
            .and_then(|digits| digits.parse::<u8>().ok())
            .is_some_and(|percent| (1..=100).contains(&percent)),
    }
}

fn scheduling(scheduling: Scheduling<'_>, path: &Path, problems: &mut Problems) {
    for (n, toleration) in scheduling.tolerations.iter().enumerate() {
        let path = path.key("tolerations").index(n);
        let exists = toleration.operator == Some(TolerationOperator::Exists);
        if exists && toleration.value.is_some() {
            let text = "is not allowed with the operator Exists";
            problems.add(path.key("value"), text, "remove it");
        }
        if !exists && toleration.key.is_none() {
            let advice = "name the taint's key, or write operator: Exists";
            problems.add(path, "requires a key with the operator Equal", advice);
        }
    }
    if let Some(class) = scheduling.priority_class_name {
        object_name(class, path.key("priorityClassName"), problems);
    }
    for (field, pairs) in [
        ("podLabels", scheduling.pod_labels),
        ("podAnnotations", scheduling.pod_annotations),
    ] {
        metadata_keys(pairs, &path.key(field), problems);
    }
}

pub(super) fn metadata_keys(
    pairs: &BTreeMap<String, String>,
    path: &Path,
    problems: &mut Problems,
) {
    for key in pairs.keys().filter(|key| !is_metadata_key(key)) {
        let text = format!("{key:?} is not a valid key");
        let advice = "write a key such as example.com/team";
        problems.add(path.key(key), text, advice);
    }
}

fn query(query: &Query, path: &Path, problems: &mut Problems) {
    if let Some(replicas) = query.replicas
        && !(1..=MAX_REPLICAS).contains(&replicas)
    {
        let text = format!("must be from 1 to {MAX_REPLICAS}, but is {replicas}");
        let advice = "omit it for one replica, or if an autoscaler sets it";
        problems.add(path.key("replicas"), text, advice);
    }
    if let Some(auth) = &query.auth {
        let path = path.key("auth").key("tokensSecret");
        secret_name(&auth.tokens_secret.name, path, problems);
    }
    if let Some(tls) = &query.tls {
        secret_name(&tls.secret.name, path.key("tls").key("secret"), problems);
    }
    resources(query.resources.as_ref(), path, problems);
    scheduling(query.scheduling(), path, problems);
}

fn resources(resources: Option<&Resources>, path: &Path, problems: &mut Problems) {
    let Some(Resources { requests, limits }) = resources else {
        return;
    };
    let path = path.key("resources");
    amounts(requests, &path.key("requests"), problems);
    amounts(limits, &path.key("limits"), problems);
    for (name, request) in requests {
        let Some(limit) = limits.get(name) else {
            continue;
        };
        if let (Some(asked), Some(most)) = (request.milli(), limit.milli())
            && asked > most
        {
            let text = format!("is more than the limit {}", limit.text());
            problems.add(path.key("requests").key(name), text, "raise the limit");
        }
    }
}

fn amounts(amounts: &BTreeMap<String, Amount>, path: &Path, problems: &mut Problems) {
    for (name, amount) in amounts {
        if amount.milli().is_none() {
            let text = format!("{:?} is not a valid quantity", amount.text());
            problems.add(path.key(name), text, "write 100m, 0.5, 256Mi …");
        }
    }
}

fn images(images: &Images, path: &Path, problems: &mut Problems) {
    if let Some(registry) = &images.registry {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b"-._:/".contains(&b);
        let is_registry = !registry.is_empty()
            && registry.len() <= 200
            && registry.bytes().all(inner)
            && !registry.contains("//")
            && !registry.ends_with('/');
        if !is_registry {
            let text = format!("{registry:?} is not a valid registry");
            let advice = "write host/path, such as registry.example/mirror";
            problems.add(path.key("registry"), text, advice);
        }
    }
    for (n, secret) in images.pull_secrets.iter().enumerate() {
        secret_name(&secret.name, path.key("pullSecrets").index(n), problems);
    }
}
