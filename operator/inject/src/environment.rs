//! The variables that a container gets: about export only traces, so that an app's metrics and logs go where they
//! went. What is set already stays, whatever it is.

use serde_json::{Value, json};

use crate::pod::{Container, Pod, Variable};
use crate::{Namespace, Reason, Target};

/// The pod's name, for the values of other variables.
const POD_NAME: &str = "SPANLOOM_POD_NAME";
/// The service's name.
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
/// Attributes of the resource.
const RESOURCE_ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
/// Where traces go.
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
/// Where everything goes that has no endpoint of its own.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// Headers of exports: for an endpoint that somebody chose.
const HEADERS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
];
/// Parts of arguments that configure an exporter: of the agent for Java, and of `opentelemetry-instrument`.
const FLAGS: [&str; 3] = ["otel.exporter.otlp", "exporter_otlp", "exporter-otlp"];
/// The headers that carry a trace on.
const PROPAGATORS: &str = "OTEL_PROPAGATORS";

/// The label with an app's version.
const VERSION_LABEL: &str = "app.kubernetes.io/version";

/// The variables that a container does not have yet, in an order in which each is defined before it is used.
///
/// # Errors
/// Why it gets none.
pub fn variables(
    pod: &Pod,
    namespace: &Namespace,
    target: &Target,
    container: &Container,
    takes_env_from: bool,
) -> Result<Vec<Value>, Reason> {
    if has_own_endpoint(container, target) {
        return Err(Reason::OwnEndpoint);
    }
    // What we set counts more than what comes from there, and we cannot see it.
    if container.has_env_from() && !takes_env_from {
        return Err(Reason::EnvFromUnknown);
    }
    let mut wanted = vec![
        json!({"name": POD_NAME, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}),
    ];
    let mut set = |name: &str, value: String| wanted.push(json!({"name": name, "value": value}));
    if !names_service(container) {
        set(SERVICE_NAME, service_name(pod));
    }
    set(TRACES_ENDPOINT, target.endpoint.clone());
    set(PROPAGATORS, "tracecontext,baggage".to_owned());
    set(RESOURCE_ATTRIBUTES, resource(pod, namespace, container));
    let is_new = |entry: &Value| {
        let name = entry["name"].as_str().unwrap_or_default();
        container.variable(name).is_none()
    };
    wanted.retain(is_new);
    Ok(wanted)
}

/// Whether a container says itself where its traces go. Ours is no endpoint of its own: it was injected before.
fn has_own_endpoint(container: &Container, target: &Target) -> bool {
    if let Some(traces) = container.variable(TRACES_ENDPOINT) {
        return traces.value != target.endpoint;
    }
    let everything = container.variable(ENDPOINT);
    // By OpenTelemetry's specification an empty variable is one that is not set.
    let is_set = |variable: &Variable| variable.value_from || !variable.value.trim().is_empty();
    everything.is_some_and(is_set) || is_configured_elsewhere(container)
}

/// Whether a container has headers for an endpoint that is not seen here, or an endpoint among its arguments or in a
/// variable with arguments, such as `JAVA_TOOL_OPTIONS`. A variable of ours would override it.
fn is_configured_elsewhere(container: &Container) -> bool {
    let has_headers = HEADERS
        .iter()
        .any(|name| container.variable(name).is_some());
    let values = container.env.iter().flatten();
    let mut texts = values
        .map(|variable| &variable.value)
        .chain(&container.command)
        .chain(&container.args);
    has_headers || texts.any(|text| FLAGS.iter().any(|flag| text.contains(flag)))
}

/// Whether a pod was injected for a target before.
pub fn was_injected(pod: &Pod, target: &Target) -> bool {
    let endpoint = |container: &Container| {
        let traces = container.variable(TRACES_ENDPOINT);
        traces.is_some_and(|traces| traces.value == target.endpoint)
    };
    pod.containers().any(endpoint)
}

/// Whether a container's own attributes name its service, or may do so.
fn names_service(container: &Container) -> bool {
    let Some(attributes) = container.variable(RESOURCE_ATTRIBUTES) else {
        return false;
    };
    // What a reference stands for is not seen here.
    attributes.value_from
        || attributes.value.contains("$(")
        || attributes.value.split(',').any(|pair| {
            let key = pair.split('=').next().unwrap_or_default();
            key.trim() == "service.name"
        })
}

/// The name that the collector gives, too: of the farthest owner, else of the pod.
fn service_name(pod: &Pod) -> String {
    let owners = pod.owners();
    let name = owners.name().or(pod.name());
    name.map_or_else(|| reference(POD_NAME), str::to_owned)
}

fn reference(variable: &str) -> String {
    format!("$({variable})")
}

fn resource(pod: &Pod, namespace: &Namespace, container: &Container) -> String {
    let (namespace, container_name) = (&namespace.name, &container.name);
    let mut attributes = vec![("service.namespace", namespace.clone())];
    attributes.extend(version(pod, container).map(|version| ("service.version", version)));
    let instance = format!("{namespace}.{}.{container_name}", reference(POD_NAME));
    attributes.push(("service.instance.id", instance));
    // Which of the pod's containers sends, the collector cannot see.
    attributes.push(("k8s.container.name", container_name.clone()));
    let pairs = attributes
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    pairs.collect::<Vec<_>>().join(",")
}

/// What the label says, else the image's tag. Of both only what needs no escaping.
fn version(pod: &Pod, container: &Container) -> Option<String> {
    let image = container.image.split('@').next().unwrap_or_default();
    let tag = image
        .rsplit('/')
        .next()
        .and_then(|last| last.split_once(':'));
    let tag = tag.map(|(_, tag)| tag).filter(|tag| *tag != "latest");
    let version = pod.label(VERSION_LABEL).or(tag)?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._+".contains(&byte);
    let is_version = !version.is_empty() && version.bytes().all(is_plain);
    is_version.then(|| version.to_owned())
}
