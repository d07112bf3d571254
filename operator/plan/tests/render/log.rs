//! The collectors' log.

use serde_json::json;
use spanloom_plan::render::render;

use super::{find, is_of_its_type, known, pipeline, release};

#[test]
fn a_log_on_the_node_is_used_by_one_pod_after_the_other() {
    let log = json!({"log": {"size": "1Gi", "hostPath": "/var/lib/spanloom"}, "maxSurge": 3});
    let objects = render(&pipeline(json!({"collector": log})), &release(), &known());
    let set = find(&objects, "DaemonSet", "prod-collector");
    is_of_its_type(set);
    assert_eq!(
        set["spec"]["updateStrategy"]["rollingUpdate"],
        json!({"maxSurge": 0, "maxUnavailable": 3})
    );
    let pod = &set["spec"]["template"]["spec"];
    let volumes = pod["volumes"].as_array().unwrap();
    let volume = volumes.iter().find(|volume| volume["name"] == "log");
    let directory = json!({"path": "/var/lib/spanloom", "type": "Directory"});
    assert_eq!(volume.unwrap()["hostPath"], directory);
    let container = &pod["containers"][0];
    let env = container["env"].as_array().unwrap();
    let at = |name: &str| env.iter().position(|env| env["name"] == name).unwrap();
    let folder = at("SPANLOOM_LOG_FOLDER");
    // No other pipeline has it, and no other node.
    assert_eq!(
        env[folder]["value"],
        "/var/lib/spanloom/log/tracing/prod/$(SPANLOOM_NODE_NAME)"
    );
    assert!(
        at("SPANLOOM_NODE_NAME") < folder,
        "only then it is filled in"
    );
    assert!(container["resources"]["requests"]["ephemeral-storage"].is_null());
    // It ends soon: its node has no other collector until then.
    let seconds = |name: &str| -> u64 {
        let value = env[at(name)]["value"].as_str().unwrap();
        value.parse().unwrap()
    };
    let drains = seconds("SPANLOOM_DRAIN_DELAY_SECONDS") + seconds("SPANLOOM_DRAIN_SECONDS");
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(drains < grace && grace <= 30, "{drains} {grace}");
    // With answers from ClickHouse there is no log.
    let stored = json!({"acknowledge": "Stored", "log": {"hostPath": "/var/lib/spanloom"}});
    let objects = render(
        &pipeline(json!({"collector": stored})),
        &release(),
        &known(),
    );
    let set = find(&objects, "DaemonSet", "prod-collector");
    assert_eq!(
        set["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"],
        0
    );
    assert!(!set.to_string().contains("hostPath"));
}
