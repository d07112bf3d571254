//! Whether values make sense. Everything that does not is reported, not only the first.

mod cluster;
mod injection;

use crate::document::{
    API_VERSION, External, Injection, KIND, MAX_RETENTION_SECONDS, MIN_RETENTION_SECONDS, Metadata,
    Processing, Storage, TracingPipeline,
};
use crate::errors::{Path, Problem};
use crate::quantity::{Quantity, seconds};
use crate::rules;

struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, path: Path, text: impl Into<String>, advice: impl Into<String>) {
        self.0.push(Problem::new(path, text, advice));
    }
}

/// Whether the selectors of `injection` are ones that Kubernetes takes.
pub fn injection_is_valid(given: &Injection) -> bool {
    let mut problems = Problems(Vec::new());
    injection::injection(given, &Path::default(), &mut problems);
    problems.0.is_empty()
}

/// Everything in the document that makes no sense.
pub(crate) fn validate(document: &TracingPipeline) -> Vec<Problem> {
    let mut problems = Problems(Vec::new());
    if document.api_version != API_VERSION {
        let text = format!("must be {API_VERSION}, but is {:?}", document.api_version);
        problems.add(Path::of("apiVersion"), text, "");
    }
    if document.kind != KIND {
        let text = format!("must be {KIND}, but is {:?}", document.kind);
        problems.add(Path::of("kind"), text, "");
    }
    metadata(&document.metadata, &mut problems);
    processing(&document.spec.processing, &mut problems);
    if let Some(ratio) = document.spec.sampling.head.ratio
        && !(0.0..=1.0).contains(&ratio)
    {
        let text = format!("must be from 0 to 1, but is {ratio}");
        problems.add(
            Path::of("spec.sampling.head.ratio"),
            text,
            "use 0.1 to keep 10% of traces",
        );
    }
    storage(&document.spec.storage, &mut problems);
    let path = Path::of("spec.injection");
    injection::injection(&document.spec.injection, &path, &mut problems);
    cluster::cluster(&document.spec, &mut problems);
    problems.0
}

fn metadata(metadata: &Metadata, problems: &mut Problems) {
    for (field, value, longest) in [
        ("name", &metadata.name, 253),
        ("namespace", &metadata.namespace, 63),
    ] {
        if let Some(value) = value
            && !is_dns_name(value, longest, field == "name")
        {
            let text = format!("{value:?} is not a valid Kubernetes name");
            let advice = "use lower-case letters, digits and -";
            problems.add(Path::of("metadata").key(field), text, advice);
        }
    }
}

fn is_dns_name(name: &str, longest: usize, dots: bool) -> bool {
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !label.is_empty()
            && label.len() <= 253
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= longest
        && if dots {
            name.split('.').all(label)
        } else {
            label(name)
        }
}

fn processing(processing: &Processing, problems: &mut Problems) {
    let path = Path::of("spec.processing");
    if processing.resource.contains_key("") {
        let advice = "name the attribute, such as deployment.environment.name";
        problems.add(
            path.key("resource"),
            "an attribute has an empty key",
            advice,
        );
    }
    for (n, rule) in processing.redact.iter().enumerate() {
        let path = path.key("redact").index(n);
        if rule.keys.is_some() == rule.values.is_some() {
            let advice = "write {keys: [\"*.password\"]} or {values: email}, one rule each";
            problems.add(path.clone(), "needs either keys or values", advice);
        }
        if rule.keys.as_ref().is_some_and(Vec::is_empty) {
            let advice = "name at least one, such as \"*.password\"";
            problems.add(path.key("keys"), "has no key", advice);
        }
    }
    if let Some(size) = &processing.limits.attribute_value_bytes {
        sized(
            size,
            &path.key("limits").key("attributeValueBytes"),
            problems,
        );
    }
    problems.0.extend(rules::problems(processing));
}

fn sized(size: &Quantity, path: &Path, problems: &mut Problems) -> Option<u64> {
    let bytes = size.bytes();
    if let (None, Quantity::Text(text)) = (bytes, size) {
        let advice = "write 8192, 8Ki, 16k, 50Gi …";
        problems.add(
            path.clone(),
            format!("{text:?} is not a valid size"),
            advice,
        );
    }
    bytes
}

fn storage(storage: &Storage, problems: &mut Problems) {
    let path = Path::of("spec.storage");
    if storage.managed.is_some() && storage.external.is_some() {
        let advice = "remove one of them; managed is a ClickHouse that Spanloom runs";
        problems.add(path.clone(), "has both managed and external", advice);
    }
    if let Some(size) = storage
        .managed
        .as_ref()
        .and_then(|managed| managed.size.as_ref())
    {
        let path = path.key("managed").key("size");
        if sized(size, &path, problems).is_some_and(|bytes| bytes < 1 << 30) {
            problems.add(path, "is less than 1Gi", "use 1Gi or more");
        }
    }
    if let Some(external) = &storage.external {
        check_external(external, &path.key("external"), problems);
    }
    if let Some(hot) = &storage.retention.hot {
        let path = path.key("retention").key("hot");
        let advice = "write 7d, 36h or 1d12h";
        match seconds(hot) {
            None => problems.add(path, format!("{hot:?} is not a valid duration"), advice),
            Some(s) if s < MIN_RETENTION_SECONDS => {
                problems.add(path, format!("must be at least 1h, but is {hot}"), advice);
            }
            Some(s) if s > MAX_RETENTION_SECONDS => {
                problems.add(path, format!("must be at most 3650d, but is {hot}"), advice);
            }
            Some(_) => {}
        }
    }
}

fn check_external(external: &External, path: &Path, problems: &mut Problems) {
    if let Err((text, advice)) = check_url(&external.url) {
        problems.add(path.key("url"), text, advice);
    }
    if let Some(database) = &external.database {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let starts = database.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !starts || !database.bytes().all(inner) || database.len() > 128 {
            let text = format!("{database:?} is not a valid database name");
            problems.add(path.key("database"), text, "use letters, digits and _");
        }
    }
    if let Some(cluster) = &external.cluster {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b"_.-{}".contains(&b);
        if cluster.is_empty() || cluster.len() > 128 || !cluster.bytes().all(inner) {
            let text = format!("{cluster:?} is not a valid cluster name");
            let advice = "use a name from ClickHouse's remote_servers, or {cluster}";
            problems.add(path.key("cluster"), text, advice);
        }
    }
    if let Some(secret) = &external.credentials_secret {
        secret_name(&secret.name, path.key("credentialsSecret"), problems);
    }
    if let Some(tls) = &external.tls {
        if external.url.starts_with("http://") {
            let advice = "remove it, or use https";
            problems.add(path.key("tls"), "is not allowed with http", advice);
        }
        if let Some(secret) = &tls.ca_secret {
            secret_name(&secret.name, path.key("tls").key("caSecret"), problems);
        }
    }
}

fn secret_name(name: &str, path: Path, problems: &mut Problems) {
    if !is_dns_name(name, 253, true) {
        let text = format!("{name:?} is not a valid Kubernetes name");
        let advice = "name a Secret in the pipeline's namespace";
        problems.add(path.key("name"), text, advice);
    }
}

fn check_url(url: &str) -> Result<(), (String, &'static str)> {
    let example = "write http://host:8123 or https://host:8443";
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    let Some(rest) = rest else {
        return Err((
            format!("{url:?} does not have the scheme http or https"),
            example,
        ));
    };
    let authority = rest.split('/').next().unwrap_or("");
    if authority.contains('@') {
        let advice = "name a credentialsSecret; on a laptop set SPANLOOM_CLICKHOUSE_USER and \
                      SPANLOOM_CLICKHOUSE_PASSWORD";
        return Err(("must not contain a user or password".to_owned(), advice));
    }
    if rest.contains(['?', '#']) {
        let advice = "remove it, and set the database in external.database";
        return Err((format!("{url:?} has a query or fragment"), advice));
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let host_ok = !host.is_empty()
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b));
    let port_ok = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    if !host_ok || !port_ok || rest.contains(char::is_whitespace) {
        return Err((format!("{url:?} is not a valid server URL"), example));
    }
    Ok(())
}
