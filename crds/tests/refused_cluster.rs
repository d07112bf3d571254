//! What is refused of the fields that only a cluster uses.

use spanloom_crds::parse_document;

/// The only error of the document with this `spec`, which stands on line 4, begins so.
#[track_caller]
fn one(yaml: &str, expected: &str) {
    let yaml =
        format!("apiVersion: spanloom.dev/v1alpha1\nkind: TracingPipeline\nspec:\n  {yaml}\n");
    let errors = match parse_document(&yaml) {
        Ok(document) => panic!("{yaml}\nis read as {document:?}"),
        Err(errors) => errors,
    };
    assert_eq!(errors.0.len(), 1, "{yaml}\n{errors}");
    let found = errors.to_string();
    assert!(
        found.starts_with(expected),
        "expected: {expected}\n   found: {found}"
    );
}

#[test]
fn fields_of_a_cluster() {
    one(
        "enabled: 'yes'",
        "spec.enabled (line 4, column 12): must be true or false, but is the string \"yes\"",
    );
    one(
        "managementState: Paused",
        "spec.managementState (line 4, column 20): must be Managed or Unmanaged, but is the string",
    );
    one(
        "query: {replicas: 0}",
        "spec.query.replicas (line 4, column 21): must be from 1 to 100, but is 0",
    );
    one(
        "query: {auth: {}}",
        "spec.query.auth (line 4, column 17): the field tokensSecret is missing",
    );
    one(
        "query: {auth: {tokensSecret: {name: A}}}",
        "spec.query.auth.tokensSecret.name (line 4, column 39): \"A\" is not a valid Kubernetes name",
    );
    one(
        "collector: {resources: {limits: {memory: lots}}}",
        "spec.collector.resources.limits.memory (line 4, column 44): \"lots\" is not a valid quantity",
    );
    one(
        "collector: {resources: {requests: {cpu: 2}, limits: {cpu: 1500m}}}",
        "spec.collector.resources.requests.cpu (line 4, column 43): is more than the limit 1500m",
    );
    one(
        "collector: {resources: {limits: {memory: 64Mi}}}",
        "spec.collector.resources.limits.memory (line 4, column 44): must be at least 128Mi",
    );
    one(
        "collector: {tolerations: [{operator: Exists, value: x}]}",
        "spec.collector.tolerations[0].value (line 4, column 55): is not allowed with the operator Exists",
    );
    one(
        "collector: {tolerations: [{operator: Equal}]}",
        "spec.collector.tolerations[0] (line 4, column 29): requires a key with the operator Equal",
    );
    one(
        "collector: {log: {size: 255Mi}}",
        "spec.collector.log.size (line 4, column 27): is less than 256Mi; use 256Mi or more",
    );
    one(
        "collector: {log: {size: large}}",
        "spec.collector.log.size (line 4, column 27): \"large\" is not a valid size",
    );
    for path in [
        "/",
        "var/lib",
        "/var/",
        "/var//lib",
        "/var/../etc",
        "/.",
        "/a b",
        "/$(X)",
    ] {
        one(
            &format!("collector: {{log: {{hostPath: {path:?}}}}}"),
            &format!(
                "spec.collector.log.hostPath (line 4, column 31): {path:?} is not a valid directory for \
                 logs; write an absolute path"
            ),
        );
    }
    for surge in ["0", "0%", "101%", "some"] {
        one(
            &format!("collector: {{maxSurge: {surge}}}"),
            &format!(
                "spec.collector.maxSurge (line 4, column 25): {surge:?} is not a valid number of \
                 nodes; write 1"
            ),
        );
    }
    one(
        "query: {podLabels: {'a b': c}}",
        "spec.query.podLabels[\"a b\"] (line 4, column 30): \"a b\" is not a valid key",
    );
    one(
        "query: {affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {}}}}",
        "spec.query.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution (line 4, \
         column 85): the field nodeSelectorTerms is missing",
    );
    one(
        "storage: {managed: {topologySpreadConstraints: [{topologyKey: zone, maxSkew: 1, \
         whenUnsatisfiable: Never}]}}",
        "spec.storage.managed.topologySpreadConstraints[0].whenUnsatisfiable (line 4, column 102): must \
         be DoNotSchedule or ScheduleAnyway",
    );
    one(
        "processing: {kubernetes: {labels: [a, a]}}",
        "spec.processing.kubernetes.labels[1] (line 4, column 41): \"a\" is given twice",
    );
    one(
        "processing: {kubernetes: {annotations: ['a b']}}",
        "spec.processing.kubernetes.annotations[0] (line 4, column 43): \"a b\" is not a valid key",
    );
    one(
        "images: {registry: 'https://a.example'}",
        "spec.images.registry (line 4, column 22): \"https://a.example\" is not a valid registry",
    );
    one(
        "storage: {external: {url: 'http://a', tls: {caSecret: {name: s}}}}",
        "spec.storage.external.tls (line 4, column 46): is not allowed with http",
    );
}

/// The webhook configuration holds the selectors of all pipelines: one that Kubernetes does not take would hold up
/// the others.
#[test]
fn selectors_that_kubernetes_does_not_take() {
    for field in ["namespaceSelector", "podSelector"] {
        for (selector, path, at, problem) in [
            (
                "matchLabels: {/a: v}",
                "matchLabels[\"/a\"]",
                "v}",
                "\"/a\" is not a valid key",
            ),
            (
                "matchLabels: {a: b c}",
                "matchLabels.a",
                "b c",
                "\"b c\" is not a valid label value",
            ),
            (
                "matchExpressions: [{key: a, operator: In}]",
                "matchExpressions[0]",
                "{key",
                "requires values with the operators",
            ),
            (
                "matchExpressions: [{key: a, operator: Exists, values: [b]}]",
                "matchExpressions[0].values",
                "[b]",
                "is not allowed with the operators",
            ),
            (
                "matchExpressions: [{key: a, operator: NotIn, values: [b, -c]}]",
                "matchExpressions[0].values[1]",
                "-c",
                "\"-c\" is not a valid label value",
            ),
        ] {
            let yaml = format!("injection: {{{field}: {{{selector}}}}}");
            // Two spaces before it, and columns begin with 1.
            let column = yaml.find(at).unwrap() + 3;
            let place = format!("spec.injection.{field}.{path} (line 4, column {column})");
            one(&yaml, &format!("{place}: {problem}"));
        }
    }
}
