//! What events say of workloads whose pods say nothing: a quota or a policy keeps them from being made. Of
//! pods that cannot start and do not say why ([`Pods::silent`]), their own events are looked at.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::observe::{JobState, Pods, Workload, quote, trouble};
use crate::owned::{Key, Owned};

/// What the latest warning about each workload says.
pub type Told = BTreeMap<Key, String>;

/// The workloads that are not as they should be and none of whose pods says why, with their uids: their
/// events are worth a look.
pub fn silent(owned: &Owned, pods: &Pods) -> Vec<(Key, String)> {
    let mut silent = Vec::new();
    for (key, object) in owned {
        let is_well = match key.0.as_str() {
            "DaemonSet" => Workload::of_daemon_set(Some(object)).is_rolled_out(),
            "StatefulSet" => Workload::of_replicas(Some(object)).is_rolled_out(),
            "Job" => JobState::of(Some(object)) == JobState::Complete,
            _ => true,
        };
        let component = &object["metadata"]["labels"]["app.kubernetes.io/component"];
        let its_pods = pods.of(component.as_str().unwrap_or_default());
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        if !is_well && trouble(its_pods).is_none() && !uid.is_empty() {
            silent.push((key.clone(), uid.to_owned()));
        }
    }
    silent
}

/// What the latest of these events says. One about a node for a pod is not told: whose events are looked at
/// has a node by now.
pub fn latest(events: &[Value]) -> Option<String> {
    let time = |event: &Value| {
        ["lastTimestamp", "eventTime", "firstTimestamp"]
            .into_iter()
            .find_map(|field| event[field].as_str().map(str::to_owned))
            .or_else(|| {
                event["metadata"]["creationTimestamp"]
                    .as_str()
                    .map(str::to_owned)
            })
    };
    let warnings = events
        .iter()
        .filter(|event| event["type"] == "Warning" && event["reason"] != "FailedScheduling");
    let event = warnings.max_by_key(|event| time(event))?;
    Some(quote(&event["reason"], &event["message"]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Pod;
    use serde_json::json;

    fn workload(kind: &str, component: &str, status: Value) -> (Key, Value) {
        let object = json!({
            "metadata": {"uid": format!("uid-{component}"), "generation": 1,
                "labels": {"app.kubernetes.io/component": component}},
            "spec": {"replicas": 1}, "status": status,
        });
        ((kind.to_owned(), component.to_owned()), object)
    }

    #[test]
    fn only_workloads_that_say_nothing_themselves_are_looked_at() {
        let well = json!({"observedGeneration": 1, "updatedReplicas": 1, "readyReplicas": 1});
        let complete = json!({"conditions": [{"type": "Complete", "status": "True"}]});
        let owned: Owned = [
            workload(
                "StatefulSet",
                "clickhouse",
                json!({"observedGeneration": 1}),
            ),
            workload("StatefulSet", "other", well),
            workload("Job", "migrate", json!({})),
            workload("Job", "done", complete),
            workload("DaemonSet", "collector", json!({})),
            workload("ConfigMap", "x", json!({})),
        ]
        .into_iter()
        .collect();
        let names = |pods: &Pods| -> Vec<String> {
            silent(&owned, pods)
                .into_iter()
                .map(|(_, uid)| uid)
                .collect()
        };
        assert_eq!(
            names(&Pods::default()),
            ["uid-collector", "uid-migrate", "uid-clickhouse"]
        );
        let pod = Pod {
            trouble: Some("ImagePullBackOff".to_owned()),
            ..Pod::default()
        };
        let pods: Pods = [("collector".to_owned(), pod)].into_iter().collect();
        assert_eq!(names(&pods), ["uid-migrate", "uid-clickhouse"]);
    }

    #[test]
    fn the_latest_warning_counts() {
        let event = |type_: &str, time: &str, message: &str| {
            json!({"type": type_, "reason": "FailedCreate", "message": message,
                "lastTimestamp": time})
        };
        let events = [
            event("Warning", "2026-01-01T00:00:02Z", "exceeded quota: pods"),
            event("Warning", "2026-01-01T00:00:01Z", "older"),
            event("Normal", "2026-01-01T00:00:03Z", "made"),
            json!({"type": "Warning", "reason": "FailedScheduling",
                "lastTimestamp": "2026-01-01T00:00:04Z"}),
        ];
        assert_eq!(
            latest(&events).as_deref(),
            Some("FailedCreate: exceeded quota: pods")
        );
        assert_eq!(latest(&events[2..]), None);
    }
}
