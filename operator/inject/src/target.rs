//! Pipelines and namespaces, as far as an injection depends on them.

use std::collections::BTreeMap;

use spanloom_crds::{LabelSelector, LabelSelectorOperator as Operator, LabelSelectorRequirement};

/// A pipeline's namespace and name.
pub type PipelineId = (String, String);

/// A pipeline that injects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Which one.
    pub id: PipelineId,
    /// When it was created, RFC 3339 in UTC: of several that select a pod, the oldest injects it.
    pub created: String,
    /// Whether it may inject only into its own namespace.
    pub only_own_namespace: bool,
    /// Namespaces that are never injected.
    pub excluded: Vec<String>,
    /// The namespaces that it selects.
    pub namespaces: LabelSelector,
    /// The pods that it selects in them.
    pub pods: LabelSelector,
    /// Where traces are sent, a URL without a path that takes OTLP over gRPC and over HTTP.
    pub endpoint: String,
}

/// A namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotation [`INJECT`](crate::INJECT).
    pub inject: Option<String>,
    /// Its annotations that [ask for](crate::others::asks_for_pods) another product.
    pub instrumented: Vec<String>,
}

impl Target {
    /// Whether it selects a pod with these labels in this namespace.
    pub fn selects<'l>(
        &self,
        namespace: &'l Namespace,
        label: impl Fn(&str) -> Option<&'l str>,
    ) -> bool {
        (!self.only_own_namespace || self.id.0 == namespace.name)
            && !self.excluded.contains(&namespace.name)
            && matches(&self.namespaces, |key| {
                namespace.labels.get(key).map(String::as_str)
            })
            && matches(&self.pods, label)
    }

    /// Older ones come first.
    fn age(&self) -> (&str, &PipelineId) {
        (&self.created, &self.id)
    }

    /// Its `namespace/name`, as annotations have it.
    pub fn name(&self) -> String {
        let (namespace, name) = &self.id;
        format!("{namespace}/{name}")
    }
}

impl Namespace {
    /// Whether a pod with this annotation [`INJECT`](crate::INJECT) is not to be injected. What the pod says counts
    /// more than what its namespace says.
    pub fn opts_out(&self, pod: Option<&str>) -> bool {
        pod.or(self.inject.as_deref()) == Some("false")
    }
}

/// The pipelines that select a pod with these labels in this namespace, the oldest first: that one injects it.
pub fn selecting<'t, 'l>(
    targets: &'t [Target],
    namespace: &'l Namespace,
    label: impl Fn(&str) -> Option<&'l str> + Copy,
) -> Vec<&'t Target> {
    let selecting = targets.iter();
    let mut selecting: Vec<_> = selecting
        .filter(|target| target.selects(namespace, label))
        .collect();
    selecting.sort_by_key(|target| target.age());
    selecting
}

/// Whether labels are as a selector says, as Kubernetes means it: an empty selector takes all.
pub fn matches<'l>(selector: &LabelSelector, label: impl Fn(&str) -> Option<&'l str>) -> bool {
    let mut pairs = selector.match_labels.iter();
    pairs.all(|(key, value)| label(key) == Some(value.as_str()))
        && selector
            .match_expressions
            .iter()
            .all(|expression| satisfies(expression, &label))
}

fn satisfies<'l>(
    expression: &LabelSelectorRequirement,
    label: impl Fn(&str) -> Option<&'l str>,
) -> bool {
    let value = label(&expression.key);
    let is_in = |value: &str| expression.values.iter().any(|one| one == value);
    match expression.operator {
        Operator::In => value.is_some_and(is_in),
        // Also without the label.
        Operator::NotIn => !value.is_some_and(is_in),
        Operator::Exists => value.is_some(),
        Operator::DoesNotExist => value.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expression(operator: Operator, values: &[&str]) -> LabelSelector {
        LabelSelector {
            match_expressions: vec![LabelSelectorRequirement {
                key: "tier".to_owned(),
                operator,
                values: values.iter().map(|value| (*value).to_owned()).collect(),
            }],
            ..LabelSelector::default()
        }
    }

    #[test]
    fn selectors_mean_what_kubernetes_means() {
        let web = |key: &str| (key == "tier").then_some("web");
        let none = |_: &str| None;
        for (selector, with, without) in [
            (LabelSelector::default(), true, true),
            (expression(Operator::In, &["api", "web"]), true, false),
            (expression(Operator::In, &["api"]), false, false),
            (expression(Operator::NotIn, &["web"]), false, true),
            (expression(Operator::NotIn, &["api"]), true, true),
            (expression(Operator::Exists, &[]), true, false),
            (expression(Operator::DoesNotExist, &[]), false, true),
        ] {
            assert_eq!(matches(&selector, web), with, "{selector:?}");
            assert_eq!(matches(&selector, none), without, "{selector:?}");
        }
        let mut both = expression(Operator::Exists, &[]);
        both.match_labels = [("tier".to_owned(), "api".to_owned())].into();
        assert!(!matches(&both, web));
    }
}
