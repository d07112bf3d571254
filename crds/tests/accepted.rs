//! What is read, and what each part makes of it.

use std::time::Duration;

use spanloom_crds::resolved::{
    KubernetesConfig, ProcessingConfig, Resolved, SamplingConfig, Server, StorageConfig,
};
use spanloom_crds::{TracingPipeline, laptop_notes, parse_document, resolve};
use spanloom_rules::{KeyPattern, Limits, RuleSet, ValuePattern};

const HEAD: &str = "apiVersion: spanloom.dev/v1alpha1\nkind: TracingPipeline\n";

#[track_caller]
fn read(rest: &str) -> TracingPipeline {
    let yaml = format!("{HEAD}{rest}");
    parse_document(&yaml).unwrap_or_else(|e| panic!("{yaml}\n{e}"))
}

#[track_caller]
fn resolved(rest: &str) -> Resolved {
    resolve(&read(rest)).unwrap_or_else(|e| panic!("{rest}\n{e}"))
}

#[test]
fn the_example() {
    let yaml = include_str!("../../docs/examples/pipeline.yaml");
    let document = parse_document(yaml).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(document.metadata.name.as_deref(), Some("prod"));
    assert_eq!(laptop_notes(&document), Vec::<String>::new());
    let resolved = resolve(&document).unwrap();
    assert_eq!(resolved.sampling, SamplingConfig::default());
    assert_eq!(resolved.storage, StorageConfig::default());
    assert_eq!(resolved.processing.rules.limits, Limits::default());
    assert_eq!(resolved.processing.rules.drop.len(), 2);
    // The part that is commented out is right as well.
    let external = yaml
        .replace("    managed: {}\n", "")
        .replace("    # external", "    external");
    let external = external.replace("    #   ", "      ");
    let Server::External { cluster, .. } =
        resolve(&parse_document(&external).unwrap_or_else(|e| panic!("{external}\n{e}")))
            .unwrap()
            .storage
            .server
    else {
        panic!("{external}");
    };
    assert_eq!(cluster.as_deref(), Some("prod"));
}

#[test]
fn defaults() {
    for empty in [
        "",
        "spec: {}",
        "spec:",
        "metadata:\nspec:\n  processing:\n  storage: {managed: }",
    ] {
        assert_eq!(read(empty), TracingPipeline::default(), "{empty}");
    }
    assert_eq!(
        parse_document(&format!("---\n{HEAD}---\n")).unwrap(),
        TracingPipeline::default()
    );
    let resolved = resolve(&TracingPipeline::default()).unwrap();
    assert_eq!(resolved, Resolved::default());
    assert_eq!(resolved.storage.retention, Duration::from_secs(7 * 86_400));
    assert_eq!(
        resolved.storage.server,
        Server::Managed { size_bytes: None }
    );
    assert_eq!(resolved.sampling.ratio, 1.0);
    assert_eq!(resolved.processing.rules.limits.value_bytes, 8192);
    assert_eq!(resolved.processing.rules.limits.attributes, 128);
}

#[test]
fn processing() {
    let resolved = resolved(
        "spec:
  processing:
    resource: {deployment.environment.name: production, a: ''}
    kubernetes: {labels: [app.kubernetes.io/version], annotations: [a/b]}
    redact:
      - keys: [http.request.header.authorization, '*.password']
      - values: creditCard
      - {values: '\\d{3}-\\d{2}-\\d{4}'}
      - {values: (secret)}
    drop: ['{ span.http.route = \"/healthz\" }']
    limits: {attributesPerSpan: 1, eventsPerSpan: 65536, attributeValueBytes: 16k}
  sampling: {head: {ratio: 0}}
",
    );
    assert_eq!(
        resolved.processing,
        ProcessingConfig {
            resource: vec![
                ("a".to_owned(), String::new()),
                (
                    "deployment.environment.name".to_owned(),
                    "production".to_owned()
                ),
            ],
            kubernetes: KubernetesConfig {
                labels: vec!["app.kubernetes.io/version".to_owned()],
                annotations: vec!["a/b".to_owned()],
                gateways: Vec::new(),
            },
            rules: RuleSet {
                drop: vec!["{ span.http.route = \"/healthz\" }".to_owned()],
                redact_keys: vec![
                    KeyPattern::Exact("http.request.header.authorization".to_owned()),
                    KeyPattern::Wildcard("*.password".to_owned()),
                ],
                redact_values: vec![
                    ValuePattern::Class("creditCard".to_owned()),
                    ValuePattern::Regex("\\d{3}-\\d{2}-\\d{4}".to_owned()),
                    ValuePattern::Regex("(secret)".to_owned()),
                ],
                limits: Limits {
                    attributes: 1,
                    events: 65_536,
                    links: 128,
                    value_bytes: 16_000,
                },
            },
        }
    );
    assert_eq!(resolved.sampling.ratio, 0.0);
}

#[test]
fn expressions_that_only_stand_beside_each_other() {
    let values = |values: &[&str]| {
        let rules: String = values
            .iter()
            .map(|text| format!("    - values: '{text}'\n"))
            .collect();
        let rules = resolved(&format!("spec:\n  processing:\n    redact:\n{rules}"))
            .processing
            .rules;
        let redactor = rules.compile().unwrap().redactor.unwrap();
        redactor.hidden("a1 b2 C3").unwrap()
    };
    assert_eq!(values(&["a(?P<id>[0-9])", "b(?P<id>[0-9])"]), "*** *** C3");
    assert_eq!(values(&["(?x) a [0-9] # c", "(?i)c[0-9]"]), "*** b2 ***");
}

#[test]
fn storage() {
    let storage = |yaml: &str| resolved(&format!("spec: {{storage: {{{yaml}}}}}")).storage;
    assert_eq!(
        storage("managed: {size: 50Gi}, retention: {hot: 36h}"),
        StorageConfig {
            server: Server::Managed {
                size_bytes: Some(50 << 30)
            },
            retention: Duration::from_secs(36 * 3600),
        }
    );
    assert_eq!(
        storage("external: {url: 'https://ch.example:8443/'}").server,
        Server::External {
            url: "https://ch.example:8443".to_owned(),
            database: "spanloom".to_owned(),
            credentials_secret: None,
            cluster: None,
        }
    );
    assert_eq!(
        storage(
            "external: {url: 'http://[::1]:8123/proxy', database: t_1, cluster: '{cluster}', \
             credentialsSecret: {name: ch.creds}}"
        )
        .server,
        Server::External {
            url: "http://[::1]:8123/proxy".to_owned(),
            database: "t_1".to_owned(),
            credentials_secret: Some("ch.creds".to_owned()),
            cluster: Some("{cluster}".to_owned()),
        }
    );
    for (text, seconds) in [
        ("1h", 3600),
        ("2w", 1_209_600),
        ("1d12h", 129_600),
        ("3650d", 315_360_000),
    ] {
        let retention = storage(&format!("retention: {{hot: {text}}}")).retention;
        assert_eq!(retention, Duration::from_secs(seconds), "{text}");
    }
}

#[test]
fn a_document_made_in_code_is_checked_too() {
    let mut document = TracingPipeline::default();
    document.spec.sampling.head.ratio = Some(2.0);
    let errors = resolve(&document).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "spec.sampling.head.ratio: must be from 0 to 1, but is 2; use 0.1 to keep 10% of traces"
    );
}

#[test]
fn yaml_anchors_work() {
    let document = read("spec: {processing: {resource: {a: &x one, b: *x}}}");
    assert_eq!(document.spec.processing.resource["b"], "one");
}

#[test]
fn what_means_nothing_on_a_laptop() {
    let notes = |yaml: &str| laptop_notes(&read(yaml));
    assert_eq!(notes("metadata: {name: a}"), Vec::<String>::new());
    assert_eq!(
        notes("metadata: {namespace: tracing}\nspec: {storage: {managed: {size: 50Gi}}}"),
        [
            "these fields have no effect with spanloom up: metadata.namespace, spec.storage.managed.size"
        ]
    );
    assert_eq!(
        notes("spec: {storage: {external: {url: 'http://a', credentialsSecret: {name: s}}}}"),
        [
            "these fields have no effect with spanloom up: spec.storage.external.credentialsSecret (use the \
          environment variables SPANLOOM_CLICKHOUSE_USER and SPANLOOM_CLICKHOUSE_PASSWORD)"
        ]
    );
    assert_eq!(
        notes(
            "spec: {enabled: true, query: {replicas: 2}, collector: {resources: {limits: {cpu: 1}}}, \
             images: {registry: a.example/b}, managementState: Managed, grafana: {datasources: true}}"
        ),
        [
            "these fields have no effect with spanloom up: spec.managementState, spec.collector.resources, \
             spec.query, spec.grafana, spec.images"
        ]
    );
    assert_eq!(
        notes("spec: {storage: {external: {url: 'http://a', cluster: c}}}"),
        Vec::<String>::new()
    );
    assert_eq!(
        notes("spec: {collector: {log: {size: 1Gi, hostPath: /var/lib/spanloom.d}}}"),
        ["these fields have no effect with spanloom up: spec.collector.log.hostPath"]
    );
}
