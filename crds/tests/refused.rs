//! What is refused, and what the errors say.

mod common;

use common::{refused, refused_spec, spec};
use proptest::prelude::*;
use spanloom_crds::{MAX_DOCUMENT_BYTES, parse_document};

const HEAD: &str = "apiVersion: spanloom.dev/v1alpha1\nkind: TracingPipeline\n";

#[test]
fn not_ours() {
    refused(
        "",
        &["the file is empty; start with apiVersion: spanloom.dev/v1alpha1"],
    );
    refused("# nothing\n---\n", &["the file is empty"]);
    refused("a: [", &["line 2, column 1: invalid YAML: "]);
    refused(
        "a: b: c",
        &["line 1, column 5: invalid YAML: mapping values"],
    );
    refused(
        "{a: 1, a: 2}",
        &["line 1, column 1: invalid YAML: duplicate"],
    );
    refused(
        "text",
        &["line 1, column 1: must be a map of fields, but is the string \"text\""],
    );
    refused(
        "[1]",
        &["line 1, column 1: must be a map of fields, but is a list"],
    );
    refused(
        &format!("{HEAD}---\n{HEAD}"),
        &["there is more than one YAML document; use one file for each"],
    );
    refused(
        "apiVersion: v1\nkind: Pod\nspec: {containers: []}",
        &[
            "apiVersion (line 1, column 13): must be spanloom.dev/v1alpha1, but is \"v1\"",
            "kind (line 2, column 7): must be TracingPipeline, but is \"Pod\"",
        ],
    );
    refused(
        "kind: TracingPipeline",
        &["line 1, column 1: the field apiVersion is missing"],
    );
    refused(
        "apiVersion: spanloom.dev/v1alpha1",
        &["line 1, column 1: the field kind is missing"],
    );
    let long = format!("{HEAD}#{}", "x".repeat(MAX_DOCUMENT_BYTES));
    refused(&long, &["the file has "]);
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    refused(&deep, &["line 1, column "]);
}

#[test]
fn unknown_fields() {
    refused(
        &format!("{HEAD}specs: {{}}\n"),
        &[
            "specs (line 3, column 1): unknown field; known fields here: apiVersion, kind, metadata, spec",
        ],
    );
    refused_spec(
        "procesing: {}\nsampling:\n  head:\n    ratio: 1\n    rate: 2\nstorage: {hot: 1d}",
        &[
            "spec.procesing (line 4, column 3): unknown field; known fields here: injection, processing, sampling, storage, enabled, managementState, collector, query, grafana, images",
            "spec.sampling.head.rate (line 8, column 7): unknown field; known fields here: ratio",
            "spec.storage.hot (line 9, column 13): unknown field; known fields here: managed, external, retention",
        ],
    );
    refused_spec(
        "processing: {redact: [{keys: [a]}, {key: b}]}",
        &[
            "spec.processing.redact[1].key (line 4, column 39): unknown field; known fields here: keys, values",
        ],
    );
    refused_spec(
        "storage: {external: {url: 'http://a', user: b}}",
        &["spec.storage.external.user (line 4, column 41): unknown field"],
    );
    refused(
        &format!("{HEAD}metadata: {{uid: x}}\n"),
        &[
            "metadata.uid (line 3, column 12): unknown field; known fields here: name, namespace, labels, annotations",
        ],
    );
    refused_spec(
        "1: x",
        &["spec (line 4, column 3): a field name must be a string, but is the number 1"],
    );
    refused_spec(
        "\"a.b\": x",
        &["spec[\"a.b\"] (line 4, column 3): unknown field"],
    );
}

#[test]
fn fields_that_come_later() {
    refused_spec(
        "sidecar: {}",
        &["spec.sidecar (line 4, column 3): not supported yet; remove it; known"],
    );
    let later = |yaml: &str, path: &str| {
        let errors = parse_document(&spec(yaml)).unwrap_err();
        assert_eq!(errors.0.len(), 1, "{errors}");
        assert_eq!(errors.0[0].path, path);
        assert_eq!(errors.0[0].problem, "not supported yet");
        assert!(errors.0[0].at.is_some());
    };
    later(
        "grafana: {datasources: true, alerts: true}",
        "spec.grafana.alerts",
    );
    later(
        "injection: {languages: [python]}",
        "spec.injection.languages",
    );
    later(
        "sampling: {tail: {decisionWait: 30s}}",
        "spec.sampling.tail",
    );
    later(
        "storage: {retention: {hot: 7d, cold: {for: 30d}}}",
        "spec.storage.retention.cold",
    );
    refused(
        &format!("{HEAD}status: {{}}\n"),
        &["status (line 3, column 1): not supported yet"],
    );
}

#[test]
fn types() {
    let one = |yaml: &str, expected: &str| refused_spec(yaml, &[expected]);
    one(
        "[]",
        "spec (line 4, column 3): must be a map of fields, but is a list",
    );
    one(
        "processing: 1",
        "spec.processing (line 4, column 15): must be a map of fields, but is the number 1",
    );
    one(
        "processing: {resource: {v: 1.5}}",
        "spec.processing.resource.v (line 4, column 30): must be a string, but is the number 1.5; put it in quotes",
    );
    one(
        "processing: {resource: {a.b: true}}",
        "spec.processing.resource[\"a.b\"] (line 4, column 32): must be a string, but is the boolean true",
    );
    one(
        "processing: {resource: {v: }}",
        "spec.processing.resource.v (line 4, column 30): must be a string, but is empty",
    );
    one(
        "processing: {resource: {1: x}}",
        "spec.processing.resource (line 4, column 26): a key must be a string, but is the number 1; put it in quotes",
    );
    one(
        "processing: {resource: [a]}",
        "spec.processing.resource (line 4, column 26): must be a map of strings to strings",
    );
    one(
        "processing: {drop: '{ }'}",
        "spec.processing.drop (line 4, column 22): must be a list, but is the string \"{ }\"",
    );
    one(
        "processing: {drop: [{ }]}",
        "spec.processing.drop[0] (line 4, column 23): must be a string, but is a map",
    );
    one(
        "processing: {drop: [a, ~]}",
        "spec.processing.drop[1] (line 4, column 26): must be a string, but is empty",
    );
    one(
        "processing: {redact: {keys: [a]}}",
        "spec.processing.redact (line 4, column 24): must be a list, but is a map",
    );
    one(
        "processing: {redact: [{keys: a}]}",
        "spec.processing.redact[0].keys (line 4, column 32): must be a list",
    );
    one(
        "processing: {limits: {attributesPerSpan: -1}}",
        "spec.processing.limits.attributesPerSpan (line 4, column 44): must be a non-negative \
         integer, but is the number -1",
    );
    one(
        "processing: {limits: {linksPerSpan: 1.5}}",
        "spec.processing.limits.linksPerSpan (line 4, column 39): must be a non-negative integer",
    );
    one(
        "processing: {limits: {linksPerSpan: '1'}}",
        "spec.processing.limits.linksPerSpan (line 4, column 39): must be a non-negative integer",
    );
    one(
        "processing: {limits: {attributeValueBytes: 1.5}}",
        "spec.processing.limits.attributeValueBytes (line 4, column 46): must be a size",
    );
    one(
        "sampling: {head: {ratio: half}}",
        "spec.sampling.head.ratio (line 4, column 28): must be a number, but is the string \"half\"",
    );
    one(
        "storage: {retention: {hot: 7}}",
        "spec.storage.retention.hot (line 4, column 30): must be a string, but is the number 7",
    );
    one(
        "storage: {external: {}}",
        "spec.storage.external (line 4, column 23): the field url is missing",
    );
    one(
        "storage: {external: {url: 'http://a', credentialsSecret: x}}",
        "spec.storage.external.credentialsSecret (line 4, column 60): must be a map of fields",
    );
    one(
        "storage: {managed: !big {}}",
        "spec.storage.managed (line 4, column ",
    );
}

#[test]
fn values() {
    let one = |yaml: &str, expected: &str| refused_spec(yaml, &[expected]);
    for ratio in ["1.5", "-0.1", ".nan", ".inf", "2"] {
        one(
            &format!("sampling: {{head: {{ratio: {ratio}}}}}"),
            "spec.sampling.head.ratio (line 4, column 28): must be from 0 to 1, but is ",
        );
    }
    let limit = |yaml: &str, expected: &str| {
        one(
            &format!("processing: {{limits: {{{yaml}}}}}"),
            &format!("spec.processing.limits.{expected}"),
        );
    };
    limit(
        "attributesPerSpan: 0",
        "attributesPerSpan (line 4, column 44): must be from 1 to 65536, but is 0; omit",
    );
    limit(
        "eventsPerSpan: 65537",
        "eventsPerSpan (line 4, column 40): must be from 1 to 65536",
    );
    limit(
        "attributeValueBytes: 0",
        "attributeValueBytes (line 4, column 46): must be from 1 byte to 16Mi, but is 0 bytes",
    );
    limit(
        "attributeValueBytes: 17Mi",
        "attributeValueBytes (line 4, column 46): must be from 1 byte to 16Mi",
    );
    limit(
        "attributeValueBytes: 8kb",
        "attributeValueBytes (line 4, column 46): \"8kb\" is not a valid size; write",
    );
    one(
        "processing: {resource: {'': x}}",
        "spec.processing.resource (line 4, column 26): an attribute has an empty key",
    );
}

#[test]
fn storage() {
    let one = |storage: &str, expected: &str| {
        refused_spec(
            &format!("storage: {{{storage}}}"),
            &[&format!("spec.storage{expected}")],
        );
    };
    one(
        "managed: {}, external: {url: 'http://a'}",
        " (line 4, column 12): has both managed and external",
    );
    one(
        "managed: {size: 50GiB}",
        ".managed.size (line 4, column 29): \"50GiB\" is not a valid size",
    );
    one(
        "managed: {size: 5Mi}",
        ".managed.size (line 4, column 29): is less than 1Gi",
    );
    for hot in ["7 days", "1.5h", "\"\"", "forever", "-1d"] {
        one(
            &format!("retention: {{hot: {hot}}}"),
            ".retention.hot (line 4, column 30): ",
        );
    }
    one(
        "retention: {hot: 30m}",
        ".retention.hot (line 4, column 30): must be at least 1h, but is 30m; write 7d, 36h",
    );
    one(
        "retention: {hot: 9999d}",
        ".retention.hot (line 4, column 30): must be at most 3650d",
    );
    let url = |url: &str, expected: &str| {
        one(
            &format!("external: {{url: '{url}'}}"),
            &format!(".external.url (line 4, column 29): {expected}"),
        );
    };
    url(
        "",
        "\"\" does not have the scheme http or https; write http://host:8123",
    );
    url(
        "tcp://host:9000",
        "\"tcp://host:9000\" does not have the scheme",
    );
    url(
        "clickhouse:8123",
        "\"clickhouse:8123\" does not have the scheme",
    );
    url("http://", "\"http://\" is not a valid server URL");
    url("http://:8123", "\"http://:8123\" is not a valid server URL");
    url(
        "http://a:port",
        "\"http://a:port\" is not a valid server URL",
    );
    url("http://a:0", "\"http://a:0\" is not a valid server URL");
    url("http://a b", "\"http://a b\" is not a valid server URL");
    url(
        "http://u:p@a:8123",
        "must not contain a user or password; name a credentialsSecret",
    );
    url(
        "http://a:8123/?database=x",
        "\"http://a:8123/?database=x\" has a query",
    );
    let external = |fields: &str, expected: &str| {
        one(
            &format!("external: {{url: 'http://a', {fields}}}"),
            &format!(".external.{expected}"),
        );
    };
    external(
        "database: a-b",
        "database (line 4, column 51): \"a-b\" is not a valid database name",
    );
    external(
        "database: 1a",
        "database (line 4, column 51): \"1a\" is not a valid database name",
    );
    external(
        "cluster: 'a b'",
        "cluster (line 4, column 50): \"a b\" is not a valid cluster name",
    );
    external(
        "credentialsSecret: {name: A}",
        "credentialsSecret.name (line 4, column 67): \"A\" is not a valid Kubernetes name",
    );
}

#[test]
fn metadata() {
    let yaml = format!("{HEAD}metadata: {{name: My_Pipeline, namespace: a.b}}\n");
    refused(
        &yaml,
        &[
            "metadata.name (line 3, column 18): \"My_Pipeline\" is not a valid Kubernetes name",
            "metadata.namespace (line 3, column 42): \"a.b\" is not a valid Kubernetes name",
        ],
    );
}

#[test]
fn everything_at_once() {
    refused_spec(
        "processing:\n  drop: ['{ .a == 1 }', '{ }', '{']\n  limits: {linksPerSpan: 0}\nsampling: {head: {ratio: 7}}\nstorage: {retention: {hot: 1s}}",
        &[
            "spec.processing.drop[0] (line 5, column 12): in the filter, ",
            "spec.processing.drop[2] (line 5, column 34): in the filter, line 1, column 2: ",
            "spec.processing.limits.linksPerSpan (line 6, column 28): ",
            "spec.sampling.head.ratio (line 7, column 28): ",
            "spec.storage.retention.hot (line 8, column 30): ",
        ],
    );
    let many: String = (0..100).map(|n| format!("x{n}: 1\n")).collect();
    let errors = parse_document(&spec(&many)).unwrap_err();
    assert_eq!(errors.0.len(), 51);
    assert!(errors.to_string().ends_with("… and 50 more errors"));
}

/// YAML of the document's own words, often nearly right.
fn nearly() -> impl Strategy<Value = String> {
    const WORDS: &[&str] = &[
        "processing",
        "resource",
        "redact",
        "keys",
        "values",
        "drop",
        "limits",
        "linksPerSpan",
        "attributeValueBytes",
        "sampling",
        "head",
        "ratio",
        "storage",
        "managed",
        "external",
        "url",
        "retention",
        "hot",
        "tail",
        "email",
        "7d",
        "8Ki",
        "1",
        "-0.5",
        "true",
        "~",
        "'{ .a = 1 }'",
        "&a x",
        "*a",
        "!t x",
        "http://a",
        "<<",
    ];
    let leaf = prop::sample::select(WORDS).prop_map(str::to_owned);
    let value = leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(|l| format!("[{}]", l.join(", "))),
            prop::collection::vec((prop::sample::select(WORDS), inner), 0..4).prop_map(|l| {
                let fields: Vec<_> = l.iter().map(|(k, v)| format!("{k}: {v}")).collect();
                format!("{{{}}}", fields.join(", "))
            }),
        ]
    });
    value.prop_map(|v| format!("{HEAD}spec: {v}\n"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_text_is_survived(yaml in "\\PC*") {
        let _ = parse_document(&yaml);
    }

    #[test]
    fn nearly_right_documents_are_survived(yaml in nearly()) {
        if let Err(errors) = parse_document(&yaml) {
            prop_assert!(!errors.0.is_empty());
            prop_assert_eq!(errors.to_string().lines().count(), errors.0.len());
        }
    }
}
