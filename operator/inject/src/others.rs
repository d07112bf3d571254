//! Other products that instrument pods. Two agents in one process, or an SDK between two collectors, are worse than
//! either, so such pods are left alone. A product's own webhook may come after ours: its annotations and labels count
//! as much as what it has done already.

use crate::Namespace;
use crate::pod::{Container, Pod};

/// A product, by what its users write and what it leaves.
struct Product {
    name: &'static str,
    /// Starts of keys of annotations and labels, each with the end of it; the value is not `false`.
    asks: &'static [(&'static str, &'static str)],
    /// Labels and annotations with one value.
    has: &'static [(&'static str, &'static str)],
    /// Starts of the names of containers that it adds.
    containers: &'static [&'static str],
}

const PRODUCTS: [Product; 4] = [
    Product {
        name: "OpenTelemetry Operator",
        asks: &[
            ("instrumentation.opentelemetry.io/inject-", ""),
            ("sidecar.opentelemetry.io/inject", ""),
        ],
        has: &[],
        containers: &["opentelemetry-auto-instrumentation", "otc-container"],
    },
    Product {
        name: "Datadog",
        asks: &[
            ("admission.datadoghq.com/", "-lib.version"),
            ("admission.datadoghq.com/", "-lib.custom-image"),
            ("internal.apm.datadoghq.com/applied-target", ""),
        ],
        has: &[("admission.datadoghq.com/enabled", "true")],
        containers: &["datadog-lib-", "datadog-init-apm-inject"],
    },
    Product {
        name: "Dash0",
        asks: &[],
        has: &[("dash0.com/instrumented", "true")],
        containers: &["dash0-instrumentation"],
    },
    Product {
        name: "Odigos",
        asks: &[("odigos.io/agents-meta-hash", "")],
        has: &[("odigos.io/inject-instrumentation", "true")],
        containers: &[],
    },
];

/// Names the product that instruments a pod, or will. What a namespace asks for, a pod may decline.
pub fn instrumented_by(pod: &Pod, namespace: &Namespace) -> Option<&'static str> {
    let of_pod = PRODUCTS.iter().find(|product| product.is_at(pod));
    let of_namespace = || {
        let mut asked = namespace.instrumented.iter();
        let is_taken = asked.any(|key| pod.annotation(key) != Some("false"));
        is_taken.then_some(&PRODUCTS[0])
    };
    of_pod.or_else(of_namespace).map(|product| product.name)
}

/// Whether an annotation of a namespace asks the OpenTelemetry Operator for its pods.
pub fn asks_for_pods(key: &str, value: &str) -> bool {
    PRODUCTS[0].is_meant(key, value)
}

impl Product {
    fn is_at(&self, pod: &Pod) -> bool {
        let mut said = pod.texts();
        let mut names = pod.containers().map(|container| container.name.as_str());
        said.any(|(key, value)| self.is_meant(key, value))
            || names.any(|name| self.containers.iter().any(|start| name.starts_with(start)))
    }

    fn is_meant(&self, key: &str, value: &str) -> bool {
        let is_key = |(start, end): &(&str, &str)| key.starts_with(start) && key.ends_with(end);
        self.has.contains(&(key, value)) || value != "false" && self.asks.iter().any(is_key)
    }
}

/// The containers of meshes and of other helpers, which are no apps: their names.
const HELPERS: [&str; 15] = [
    "istio-proxy",
    "istio-init",
    "istio-validation",
    "linkerd-proxy",
    "linkerd-init",
    "linkerd-debug",
    "kuma-sidecar",
    "kuma-init",
    "consul-dataplane",
    "envoy-sidecar",
    "envoy",
    "daprd",
    "vault-agent",
    "cloud-sql-proxy",
    "otc-container",
];

/// Whether a container is a mesh's or another helper's.
pub fn is_helper(container: &Container) -> bool {
    HELPERS.contains(&container.name.as_str())
}
