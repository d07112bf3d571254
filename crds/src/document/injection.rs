//! Which pods are traced without a change to them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::LabelSelector;
use crate::schema::in_order;

/// The label by which a namespace asks to be traced, and its value.
pub const TRACE_LABEL: (&str, &str) = ("spanloom.dev/trace", "enabled");

/// Which pods get the configuration of their OpenTelemetry SDK from the operator's webhook. Has no effect
/// with `spanloom up`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
#[schemars(extend("x-later" = ["languages", "opentelemetryAnnotations", "restart"]))]
pub struct Injection {
    /// What is injected into pods when they are created: `Node` sets the environment of their
    /// containers, so that an OpenTelemetry SDK sends its spans to the collector on the pod's node; `None`
    /// injects nothing. Defaults to `Node`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "Node"))]
    pub mode: Option<InjectionMode>,
    /// The namespaces whose pods are injected. Defaults to those with the label
    /// `spanloom.dev/trace: enabled`. A pipeline outside the release's namespace injects only into its
    /// own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = trace_label()))]
    pub namespace_selector: Option<LabelSelector>,
    /// The pods that are injected in these namespaces; without it, all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
}

/// What is injected into pods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum InjectionMode {
    /// The environment, for the collector on the pod's node.
    #[default]
    Node,
    /// Nothing.
    None,
}

impl Injection {
    /// What is injected.
    pub fn mode(&self) -> InjectionMode {
        self.mode.unwrap_or_default()
    }

    /// The namespaces whose pods are injected.
    pub fn namespaces(&self) -> LabelSelector {
        self.namespace_selector.clone().unwrap_or_else(|| {
            let (key, value) = TRACE_LABEL;
            LabelSelector {
                match_labels: [(key.to_owned(), value.to_owned())].into(),
                ..LabelSelector::default()
            }
        })
    }

    /// The pods that are injected in these namespaces.
    pub fn pods(&self) -> LabelSelector {
        self.pod_selector.clone().unwrap_or_default()
    }
}

fn trace_label() -> Value {
    let (key, value) = TRACE_LABEL;
    json!({"matchLabels": {key: value}})
}
