//! Where pods run, and what they carry: the fields that collectors, the query service and the managed
//! store have in common. What nests in them is what a pod of Kubernetes has, field for field.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{in_order, rule};

/// The longest key of a label, annotation or taint: a prefix of 253 and a name of 63.
const KEY_BYTES: usize = 317;
/// The most terms, expressions or values of one list.
const MANY: usize = 64;

/// Where the pods of a component run, and what they carry.
#[derive(Debug, Clone, Copy)]
pub struct Scheduling<'a> {
    /// Labels of the nodes that may have one.
    pub node_selector: &'a BTreeMap<String, String>,
    /// Taints that are tolerated.
    pub tolerations: &'a [Toleration],
    /// Which nodes and neighbours are wanted.
    pub affinity: Option<&'a Affinity>,
    /// How pods are spread; `None` leaves the component's own.
    pub topology_spread_constraints: Option<&'a [TopologySpreadConstraint]>,
    /// The PriorityClass.
    pub priority_class_name: Option<&'a str>,
    /// Further labels of the pods.
    pub pod_labels: &'a BTreeMap<String, String>,
    /// Further annotations of the pods.
    pub pod_annotations: &'a BTreeMap<String, String>,
}

/// Declares the spec of a component with pods: its own fields, and those of [`Scheduling`].
macro_rules! with_scheduling {
    (
        $(#[$meta:meta])*
        pub struct $name:ident { $($fields:tt)* }
    ) => {
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        #[schemars(transform = in_order::<Self>)]
        $(#[$meta])*
        pub struct $name {
            $($fields)*
            /// Labels of the nodes that its pods may run on; without it, all nodes.
            #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
            #[schemars(extend("maxProperties" = 32, "x-kubernetes-map-type" = "atomic", "x-laptop" = ""))]
            pub node_selector: BTreeMap<String, String>,
            /// Taints that its pods tolerate.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            #[schemars(extend("maxItems" = 32, "x-kubernetes-list-type" = "atomic", "x-laptop" = ""))]
            pub tolerations: Vec<Toleration>,
            /// Affinity of its pods to nodes and to other pods.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(extend("x-laptop" = ""))]
            pub affinity: Option<Affinity>,
            /// How its pods are spread over nodes and zones, instead of Spanloom's default.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(extend("maxItems" = 16, "x-kubernetes-list-type" = "atomic", "x-laptop" = ""))]
            pub topology_spread_constraints: Option<Vec<TopologySpreadConstraint>>,
            /// The PriorityClass of its pods.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(extend("pattern" = NAME, "minLength" = 1, "maxLength" = 253, "x-laptop" = ""))]
            pub priority_class_name: Option<String>,
            /// Additional labels of its pods; labels set by Spanloom cannot be replaced.
            #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
            #[schemars(extend("maxProperties" = 32, "x-laptop" = ""))]
            pub pod_labels: BTreeMap<String, String>,
            /// Additional annotations of its pods; annotations set by Spanloom cannot be replaced.
            #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
            #[schemars(extend("maxProperties" = 32, "x-laptop" = ""))]
            pub pod_annotations: BTreeMap<String, String>,
        }

        impl $name {
            /// Where its pods run, and what they carry.
            pub fn scheduling(&self) -> Scheduling<'_> {
                Scheduling {
                    node_selector: &self.node_selector,
                    tolerations: &self.tolerations,
                    affinity: self.affinity.as_ref(),
                    topology_spread_constraints: self.topology_spread_constraints.as_deref(),
                    priority_class_name: self.priority_class_name.as_deref(),
                    pod_labels: &self.pod_labels,
                    pod_annotations: &self.pod_annotations,
                }
            }
        }
    };
}
pub(super) use with_scheduling;

/// Declares a type as a pod of Kubernetes has it.
macro_rules! pod_type {
    ($(#[$meta:meta])* pub struct $name:ident { $($fields:tt)* }) => {
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        #[schemars(transform = in_order::<Self>)]
        $(#[$meta])*
        pub struct $name { $($fields)* }
    };
}

pod_type! {
    /// A taint that a pod tolerates.
    #[schemars(extend("x-kubernetes-validations" = [
        rule(
            "!has(self.value) || !has(self.operator) || self.operator != 'Exists'",
            "value is not allowed with the operator Exists"
        ),
        rule(
            "has(self.key) || (has(self.operator) && self.operator == 'Exists')",
            "key is required with the operator Equal"
        ),
    ]))]
    pub struct Toleration {
        /// The taint's key; without it and with the operator `Exists`, all keys.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(extend("maxLength" = KEY_BYTES))]
        pub key: Option<String>,
        /// `Exists` or `Equal`, which is the default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub operator: Option<TolerationOperator>,
        /// The taint's value, with the operator `Equal`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(extend("maxLength" = 63))]
        pub value: Option<String>,
        /// The taint's effect; without it, all effects.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub effect: Option<TaintEffect>,
        /// How long a `NoExecute` taint is tolerated; without it, forever.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub toleration_seconds: Option<u32>,
    }
}

/// How a toleration's value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TolerationOperator {
    /// Any value matches.
    Exists,
    /// The value must be equal.
    Equal,
}

/// What a taint does to pods that do not tolerate it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TaintEffect {
    /// New ones are not scheduled.
    NoSchedule,
    /// New ones are scheduled elsewhere if there is room.
    PreferNoSchedule,
    /// They are evicted.
    NoExecute,
}

pod_type! {
    /// Which nodes and neighbours a pod needs or prefers.
    pub struct Affinity {
        /// Which nodes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub node_affinity: Option<NodeAffinity>,
        /// Near which pods.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub pod_affinity: Option<PodAffinity>,
        /// Away from which pods.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub pod_anti_affinity: Option<PodAffinity>,
    }
}

pod_type! {
    /// Which nodes a pod needs or prefers.
    pub struct NodeAffinity {
        /// The node must match one of these terms.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub required_during_scheduling_ignored_during_execution: Option<NodeSelector>,
        /// Nodes that match are preferred.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(extend("maxItems" = MANY, "x-kubernetes-list-type" = "atomic"))]
        pub preferred_during_scheduling_ignored_during_execution: Vec<PreferredSchedulingTerm>,
    }
}

pod_type! {
    /// Terms of which a node matches one.
    pub struct NodeSelector {
        /// The terms.
        #[schemars(extend("minItems" = 1, "maxItems" = MANY, "x-kubernetes-list-type" = "atomic"))]
        pub node_selector_terms: Vec<NodeSelectorTerm>,
    }
}

pod_type! {
    /// Nodes that are preferred.
    pub struct PreferredSchedulingTerm {
        /// The weight, from 1 to 100.
        #[schemars(extend("minimum" = 1, "maximum" = 100))]
        pub weight: u32,
        /// Which.
        pub preference: NodeSelectorTerm,
    }
}

pod_type! {
    /// What a node must match, all of it.
    pub struct NodeSelectorTerm {
        /// Of its labels.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(extend("maxItems" = MANY, "x-kubernetes-list-type" = "atomic"))]
        pub match_expressions: Vec<NodeSelectorRequirement>,
        /// Of its fields.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(extend("maxItems" = MANY, "x-kubernetes-list-type" = "atomic"))]
        pub match_fields: Vec<NodeSelectorRequirement>,
    }
}

pod_type! {
    /// What a label or field of a node must be.
    pub struct NodeSelectorRequirement {
        /// The label's key, or the field.
        #[schemars(extend("minLength" = 1, "maxLength" = KEY_BYTES))]
        pub key: String,
        /// How it is compared.
        pub operator: NodeSelectorOperator,
        /// The values to compare with.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(extend("maxItems" = MANY, "x-kubernetes-list-type" = "atomic"))]
        pub values: Vec<String>,
    }
}

/// How a label of a node is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NodeSelectorOperator {
    /// The value is one of the given ones.
    #[default]
    In,
    /// The value is none of the given ones.
    NotIn,
    /// The key exists.
    Exists,
    /// The key does not exist.
    DoesNotExist,
    /// The value is a number greater than the given one.
    Gt,
    /// The value is a number less than the given one.
    Lt,
}

pod_type! {
    /// Near which pods, or away from which, a pod is scheduled.
    pub struct PodAffinity {
        /// Required terms.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(extend("maxItems" = MANY, "x-kubernetes-list-type" = "atomic"))]
        pub required_during_scheduling_ignored_during_execution: Vec<PodAffinityTerm>,
        /// Preferred terms.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(extend("maxItems" = MANY, "x-kubernetes-list-type" = "atomic"))]
        pub preferred_during_scheduling_ignored_during_execution: Vec<WeightedPodAffinityTerm>,
    }
}

pod_type! {
    /// Neighbours that are preferred.
    pub struct WeightedPodAffinityTerm {
        /// The weight, from 1 to 100.
        #[schemars(extend("minimum" = 1, "maximum" = 100))]
        pub weight: u32,
        /// Which.
        pub pod_affinity_term: PodAffinityTerm,
    }
}

pod_type! {
    /// Pods, and how far from them is near.
    pub struct PodAffinityTerm {
        /// Their labels.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub label_selector: Option<LabelSelector>,
        /// The node label whose value is equal where they are near.
        #[schemars(extend("minLength" = 1, "maxLength" = KEY_BYTES))]
        pub topology_key: String,
        /// Their namespaces; the pod's own without it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(extend("maxItems" = MANY, "x-kubernetes-list-type" = "atomic"))]
        pub namespaces: Vec<String>,
        /// Their namespaces, by label.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub namespace_selector: Option<LabelSelector>,
        /// Labels whose values are those of the pod itself.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(extend("maxItems" = MANY, "x-kubernetes-list-type" = "atomic"))]
        pub match_label_keys: Vec<String>,
        /// Labels whose values are not those of the pod itself.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(extend("maxItems" = MANY, "x-kubernetes-list-type" = "atomic"))]
        pub mismatch_label_keys: Vec<String>,
    }
}

pod_type! {
    /// Which labels objects have.
    pub struct LabelSelector {
        /// These, with these values.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        #[schemars(extend("maxProperties" = 32))]
        pub match_labels: BTreeMap<String, String>,
        /// And what these say.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(extend("maxItems" = MANY, "x-kubernetes-list-type" = "atomic"))]
        pub match_expressions: Vec<LabelSelectorRequirement>,
    }
}

pod_type! {
    /// What a label must be.
    #[schemars(extend("x-kubernetes-validations" = [rule(
        "(self.operator == 'In' || self.operator == 'NotIn') == (has(self.values) && size(self.values) > 0)",
        "values is required with the operators In and NotIn, and not allowed with Exists and DoesNotExist"
    )]))]
    pub struct LabelSelectorRequirement {
        /// Its key.
        #[schemars(extend("minLength" = 1, "maxLength" = KEY_BYTES))]
        pub key: String,
        /// How it is compared.
        pub operator: LabelSelectorOperator,
        /// The values to compare with.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(extend("maxItems" = MANY, "x-kubernetes-list-type" = "atomic"))]
        pub values: Vec<String>,
    }
}

/// How a label is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LabelSelectorOperator {
    /// The value is one of the given ones.
    #[default]
    In,
    /// The value is none of the given ones.
    NotIn,
    /// The key exists.
    Exists,
    /// The key does not exist.
    DoesNotExist,
}

pod_type! {
    /// How pods are spread.
    pub struct TopologySpreadConstraint {
        /// By how many pods two domains may differ.
        #[schemars(extend("minimum" = 1))]
        pub max_skew: u32,
        /// The node label whose values are the domains.
        #[schemars(extend("minLength" = 1, "maxLength" = KEY_BYTES))]
        pub topology_key: String,
        /// What is done with a pod that does not fit.
        pub when_unsatisfiable: WhenUnsatisfiable,
        /// Which pods are counted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub label_selector: Option<LabelSelector>,
        /// How many domains there must be.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(extend("minimum" = 1))]
        pub min_domains: Option<u32>,
        /// Whether nodes that the pod's affinity leaves out count.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub node_affinity_policy: Option<NodePolicy>,
        /// Whether nodes with taints that the pod does not tolerate count.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub node_taints_policy: Option<NodePolicy>,
        /// Labels whose values are those of the pod itself.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(extend("maxItems" = MANY, "x-kubernetes-list-type" = "atomic"))]
        pub match_label_keys: Vec<String>,
    }
}

/// What is done with a pod that does not fit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WhenUnsatisfiable {
    /// It is not scheduled.
    #[default]
    DoNotSchedule,
    /// It is scheduled anyway.
    ScheduleAnyway,
}

/// Whether nodes count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NodePolicy {
    /// They count only if they fit.
    Honor,
    /// They count.
    Ignore,
}
