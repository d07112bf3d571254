//! Operators and agents of different versions: what each makes of the other's words.

#![allow(clippy::unwrap_used)] // the helpers are tests too

use serde_json::{Value, json};
use spanloom_crds::agent::{
    AgentConfig, AgentStatus, CONFIG_VERSION, ConfigHead, FIRST_VERSION, NotUnderstood,
    PipelineRef, capability,
};
use spanloom_crds::resolved::Resolved;
use spanloom_crds::{parse_document, resolve};
use spanloom_rules::{CLASSES, ValuePattern};

/// The configuration as agents before capabilities read it: these types are as they were then.
mod first {
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub struct AgentConfig {
        pub version: u32,
        pub hash: String,
        pub generation: i64,
        pub enabled: bool,
        pub resolved: Resolved,
    }

    #[derive(Debug, Deserialize)]
    pub struct Resolved {
        pub processing: Processing,
        pub sampling: Sampling,
        pub storage: Storage,
    }

    #[derive(Debug, Deserialize)]
    pub struct Processing {
        pub resource: Vec<(String, String)>,
        pub kubernetes: Kubernetes,
        pub drop: Vec<String>,
        pub redact_keys: Vec<Key>,
        pub redact_values: Vec<Value>,
        pub limits: Limits,
    }

    #[derive(Debug, Deserialize)]
    pub struct Kubernetes {
        pub labels: Vec<String>,
        pub annotations: Vec<String>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    pub enum Key {
        Exact(String),
        Wildcard(String),
    }

    #[derive(Debug, PartialEq, Deserialize)]
    pub enum Value {
        Class(String),
        Regex(String),
    }

    #[derive(Debug, PartialEq, Deserialize)]
    pub struct Limits {
        pub attributes_per_span: u32,
        pub events_per_span: u32,
        pub links_per_span: u32,
        pub attribute_value_bytes: u32,
    }

    #[derive(Debug, Deserialize)]
    pub struct Sampling {
        pub ratio: f64,
    }

    #[derive(Debug, Deserialize)]
    pub struct Storage {
        pub retention: std::time::Duration,
    }

    /// What such an agent did with a configuration: another version than 1 it refused.
    pub fn read(text: &str) -> Option<AgentConfig> {
        let config: AgentConfig = serde_json::from_str(text).unwrap();
        (config.version == 1).then_some(config)
    }
}

fn resolved(spec: &str) -> Resolved {
    let yaml =
        format!("apiVersion: spanloom.dev/v1alpha1\nkind: TracingPipeline\nspec: {{{spec}}}\n");
    resolve(&parse_document(&yaml).unwrap_or_else(|e| panic!("{e}"))).unwrap()
}

fn config(enabled: bool, resolved: Resolved) -> AgentConfig {
    AgentConfig {
        hash: "h".to_owned(),
        generation: 7,
        ..AgentConfig::new(PipelineRef::default(), enabled, resolved)
    }
}

#[test]
fn each_field_requires_its_capability() {
    let check = |spec: &str, expect: &[&str]| {
        assert_eq!(config(true, resolved(spec)).requires, expect, "{spec}");
    };
    check("", &[]);
    check("processing: {limits: {attributesPerSpan: 128}}", &[]);
    check("storage: {external: {url: 'http://a'}}", &[]);
    check("processing: {resource: {a: b}}", &["processing.resource"]);
    check(
        "processing: {kubernetes: {labels: [a]}}",
        &["processing.kubernetes.labels"],
    );
    check(
        "processing: {kubernetes: {annotations: [a]}}",
        &["processing.kubernetes.annotations"],
    );
    check("processing: {drop: ['{ }']}", &["processing.drop"]);
    check(
        "processing: {redact: [{keys: [a]}, {keys: ['*.b']}]}",
        &["processing.redact.keys"],
    );
    check(
        "processing: {redact: [{values: jwt}, {values: '(x)'}, {values: '(y)'}]}",
        &["processing.redact.values", "processing.redact.values.jwt"],
    );
    check(
        "processing: {limits: {linksPerSpan: 1}}",
        &["processing.limits"],
    );
    check("sampling: {head: {ratio: 0.5}}", &["sampling.head"]);
    check("storage: {retention: {hot: 1h}}", &["storage.retention"]);
    assert_eq!(config(false, Resolved::default()).requires, ["enabled"]);
}

#[test]
fn this_program_understands_what_it_writes() {
    let understood = capability::understood();
    for name in capability::FIRST {
        assert!(understood.iter().any(|known| known == name), "{name}");
    }
    for class in CLASSES {
        let name = format!("processing.redact.values.{}", class.name);
        assert!(understood.contains(&name), "{name}");
    }
    let mut once = understood.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), understood.len());
}

const EVERYTHING: &str = "processing: {resource: {a: b}, kubernetes: {labels: [l], annotations: [n]}, \
    drop: ['{ .a = 1 }'], redact: [{keys: [k, '*.k']}, {values: email}, {values: '(x)'}], \
    limits: {eventsPerSpan: 3}}, sampling: {head: {ratio: 0.5}}, storage: {retention: {hot: 2h}}";

#[test]
fn a_first_agent_takes_what_it_understands() {
    let sent = serde_json::to_string(&config(false, resolved(EVERYTHING))).unwrap();
    let read = first::read(&sent).expect("is version 1");
    assert_eq!((read.hash.as_str(), read.generation), ("h", 7));
    assert!(!read.enabled);
    let first::Processing {
        resource,
        kubernetes,
        drop,
        redact_keys,
        redact_values,
        limits,
    } = read.resolved.processing;
    assert_eq!(resource, [("a".to_owned(), "b".to_owned())]);
    assert_eq!(
        (kubernetes.labels, kubernetes.annotations),
        (vec!["l".to_owned()], vec!["n".to_owned()])
    );
    assert_eq!(drop, ["{ .a = 1 }"]);
    assert_eq!(
        redact_keys,
        [
            first::Key::Exact("k".to_owned()),
            first::Key::Wildcard("*.k".to_owned()),
        ]
    );
    assert_eq!(
        redact_values,
        [
            first::Value::Class("email".to_owned()),
            first::Value::Regex("(x)".to_owned()),
        ]
    );
    let expected = first::Limits {
        attributes_per_span: 128,
        events_per_span: 3,
        links_per_span: 128,
        attribute_value_bytes: 8192,
    };
    assert_eq!(limits, expected);
    assert_eq!(read.resolved.sampling.ratio, 0.5);
    assert_eq!(read.resolved.storage.retention.as_secs(), 7200);
}

/// What the first agents would have taken for an expression.
#[test]
fn a_first_agent_refuses_a_rule_that_it_does_not_know() {
    let mut resolved = resolved(EVERYTHING);
    let later = ValuePattern::Class("iban".to_owned());
    resolved.processing.rules.redact_values.push(later);
    let config = config(true, resolved);
    assert_eq!(config.version, CONFIG_VERSION);
    assert!(first::read(&serde_json::to_string(&config).unwrap()).is_none());
}

#[test]
fn what_a_first_operator_wrote_is_understood() {
    let text = r#"{"version":1,"hash":"h","generation":7,"pipeline":{"name":"p","namespace":"n","uid":"u"},
        "enabled":true,"resolved":{"processing":{"resource":[["a","b"]],"kubernetes":{"labels":["l"],
        "annotations":[]},"drop":["{ .a = 1 }"],"redact_keys":[{"Exact":"k"}],"redact_values":[
        {"Class":"email"},{"Regex":"(x)"}],"limits":{"attributes_per_span":128,"events_per_span":3,
        "links_per_span":128,"attribute_value_bytes":8192}},"sampling":{"ratio":0.5},"storage":{
        "server":{"Managed":{"size_bytes":null}},"retention":{"secs":7200,"nanos":0}}}}"#;
    let head: ConfigHead = serde_json::from_str(text).unwrap();
    assert_eq!(head.check(), Ok(()));
    let read: AgentConfig = serde_json::from_str(text).unwrap();
    assert_eq!(
        read.resolved,
        resolved(
            "processing: {resource: {a: b}, kubernetes: {labels: [l]}, drop: ['{ .a = 1 }'], redact: [{keys: [k]}, \
             {values: email}, {values: '(x)'}], limits: {eventsPerSpan: 3}}, sampling: {head: {ratio: 0.5}}, \
             storage: {retention: {hot: 2h}}"
        )
    );
    assert!(read.requires.is_empty());
    assert!(read.uses().contains(&"processing.drop".to_owned()));
}

#[test]
fn what_is_not_understood_is_named() {
    let check = |text: Value, expect: Result<(), &str>| {
        let head: ConfigHead = serde_json::from_value(text).unwrap();
        let found = head.check().map_err(|error| error.to_string());
        assert_eq!(found, expect.map_err(str::to_owned), "{head:?}");
    };
    check(json!({"version": FIRST_VERSION}), Ok(()));
    check(
        json!({"version": CONFIG_VERSION, "requires": ["enabled"]}),
        Ok(()),
    );
    let version = |n| NotUnderstood::Version(n).to_string();
    check(json!({"version": 3, "requires": ["x"]}), Err(&version(3)));
    check(json!({}), Err(&version(0)));
    assert_eq!(
        version(3),
        "configuration version 3 is not supported, only 1 to 2; upgrade the collectors and the \
         operator together"
    );
    check(
        json!({"version": 2, "requires": ["sampling.tail", "enabled", "x"], "resolved": "of another kind"}),
        Err(
            "it requires sampling.tail, x, which this collector does not support; upgrade the \
             collectors",
        ),
    );
}

#[test]
fn what_a_first_agent_says_is_understood() {
    let said = json!({"config": {"applied": "h"}, "spansReceived": 1, "spansDiscarded": 2});
    let status: AgentStatus = serde_json::from_value(said).unwrap();
    assert_eq!(status.config.applied.as_deref(), Some("h"));
    assert!(status.understands.is_empty());
}
