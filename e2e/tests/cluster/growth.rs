//! A larger volume for the managed store: where the StorageClass refuses, the pipeline says so and goes
//! on; where it allows, the claim grows in place.

use serde_json::{Value, json};

use super::support::apps::{App, ask};
use super::support::install;
use super::support::kube::{kubectl, try_kubectl};
use super::support::pipeline::Pipeline;
use super::support::{LIMIT, await_some, want};

const CLAIM: &str = "persistentvolumeclaim/data-traces-clickhouse-0";

/// Sets whether volumes of a class can grow; puts it back when the scenario ends.
struct Class {
    name: String,
    allowed: bool,
}

impl Class {
    fn of(claim: &Value) -> Self {
        let name = claim["spec"]["storageClassName"].as_str().unwrap();
        let path = "--output=jsonpath={.allowVolumeExpansion}";
        let allowed = kubectl(&["get", "storageclass", name, path]);
        Self {
            name: name.to_owned(),
            allowed: allowed == "true",
        }
    }

    fn allow(&self, allowed: bool) -> Result<String, String> {
        let patch = json!({"allowVolumeExpansion": allowed}).to_string();
        try_kubectl(
            &["patch", "storageclass", &self.name, "--patch", &patch],
            None,
        )
    }
}

impl Drop for Class {
    fn drop(&mut self) {
        let _ = self.allow(self.allowed);
    }
}

#[test]
fn a_volume_grows_where_its_class_allows() {
    let _installed = install::shared();
    let namespace = install::pipeline_namespace();
    let pipeline = Pipeline::ready(&namespace, &json!({}));
    App::python("app", "service")
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", pipeline.otlp_http())
        .place(&namespace);
    let claim = || namespace.get(&[CLAIM]);
    let requested = || claim()["spec"]["resources"]["requests"]["storage"].clone();
    let store = || namespace.get(&["pod/traces-clickhouse-0"])["metadata"]["uid"].clone();
    assert_eq!(requested(), "50Gi");
    let (before, store_before) = (claim(), store());
    let class = Class::of(&before);
    class.allow(false).unwrap();

    pipeline.apply(&json!({"storage": {"managed": {"size": "60Gi"}}}));
    let condition = pipeline.await_condition("Ready", "False", Some("ApplyFailed"));
    let message = condition["message"].as_str().unwrap();
    for word in ["data-traces-clickhouse-0", "resize"] {
        assert!(message.contains(word), "no {word:?} in {message:?}");
    }
    assert_eq!(requested(), "50Gi");
    await_some("an event that says so", LIMIT, || {
        let events = namespace.try_get(&["events", "--field-selector=reason=ApplyFailed"])?;
        want(
            events.to_string().contains("data-traces-clickhouse-0"),
            || events.to_string(),
        )
    });
    // Nothing else waits for it.
    let answer = ask(&namespace, "app", "/work");
    let trace_id = answer["traceId"].as_str().unwrap().to_owned();
    pipeline.await_trace(&trace_id, 1);

    class.allow(true).unwrap();
    await_some("a larger claim", LIMIT, || {
        let size = requested();
        want(size == "60Gi", || size.to_string())
    });
    pipeline.await_ready();
    assert_eq!(claim()["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(store(), store_before, "the store was placed anew");
    pipeline.await_trace(&trace_id, 1);
    // Smaller is refused: there is no way back.
    let smaller = json!({"storage": {"managed": {"size": "50Gi"}}});
    let refused = pipeline.try_apply(&smaller).unwrap_err();
    assert!(
        refused.contains("can be increased, not decreased"),
        "{refused}"
    );
}
