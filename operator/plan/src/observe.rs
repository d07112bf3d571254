//! What objects say of themselves, read from their JSON. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;
use spanloom_crds::agent::AgentStatus;

use crate::render::{APPLIED_HASH, REVISION};

/// A workload's numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Workload {
    /// It is there.
    pub exists: bool,
    /// Its controller has seen its latest form.
    pub observed: bool,
    /// Pods that should be.
    pub desired: i64,
    /// Pods of the latest form.
    pub updated: i64,
    /// Pods of earlier forms that are there beside them.
    pub outdated: i64,
    /// Pods that are ready, of whatever form.
    pub ready: i64,
    /// The hash of what was applied last.
    pub hash: Option<String>,
    /// Names its pod template.
    pub revision: Option<String>,
    /// Why it cannot make its pods, where it says so itself.
    pub failure: Option<String>,
}

impl Workload {
    /// Of a DaemonSet.
    pub fn of_daemon_set(object: Option<&Value>) -> Self {
        Self::of(
            object,
            "desiredNumberScheduled",
            "updatedNumberScheduled",
            "numberReady",
            false,
        )
    }

    /// Of a Deployment or a StatefulSet.
    pub fn of_replicas(object: Option<&Value>) -> Self {
        let workload = Self::of(object, "replicas", "updatedReplicas", "readyReplicas", true);
        let all = object.and_then(|object| object["status"]["replicas"].as_i64());
        Self {
            outdated: (all.unwrap_or(0) - workload.updated).max(0),
            ..workload
        }
    }

    fn of(
        object: Option<&Value>,
        desired: &str,
        updated: &str,
        ready: &str,
        desired_in_spec: bool,
    ) -> Self {
        let Some(object) = object else {
            return Self::default();
        };
        let status = &object["status"];
        let number = |value: &Value| value.as_i64().unwrap_or(0);
        let wanted = if desired_in_spec {
            &object["spec"]
        } else {
            status
        };
        Self {
            exists: true,
            observed: status["observedGeneration"].as_i64()
                >= object["metadata"]["generation"].as_i64(),
            desired: number(&wanted[desired]),
            updated: number(&status[updated]),
            outdated: 0,
            ready: number(&status[ready]),
            hash: object["metadata"]["annotations"][APPLIED_HASH]
                .as_str()
                .map(str::to_owned),
            revision: revision(&object["spec"]["template"]["metadata"]),
            failure: replica_failure(status),
        }
    }

    /// All pods are of the latest form and ready. While a new pod cannot start, the earlier ones go on, and
    /// are ready in its place.
    pub fn is_rolled_out(&self) -> bool {
        self.exists
            && self.observed
            && self.updated >= self.desired
            && self.outdated == 0
            && self.ready >= self.desired
    }
}

/// How a Job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// There is none.
    Missing,
    /// It is at work.
    Running,
    /// It ended well.
    Complete,
    /// It gave up.
    Failed,
}

impl JobState {
    /// Of a Job.
    pub fn of(object: Option<&Value>) -> Self {
        let Some(object) = object else {
            return Self::Missing;
        };
        let is = |type_: &str| {
            let conditions = object["status"]["conditions"].as_array();
            conditions.is_some_and(|conditions| {
                conditions
                    .iter()
                    .any(|c| c["type"] == type_ && c["status"] == "True")
            })
        };
        if is("Complete") {
            Self::Complete
        } else if is("Failed") {
            Self::Failed
        } else {
            Self::Running
        }
    }
}

/// The pods of a pipeline, by component.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pods(BTreeMap<String, Vec<Pod>>);

impl FromIterator<(String, Pod)> for Pods {
    fn from_iter<I: IntoIterator<Item = (String, Pod)>>(pods: I) -> Self {
        let mut all: BTreeMap<String, Vec<Pod>> = BTreeMap::new();
        for (component, pod) in pods {
            all.entry(component).or_default().push(pod);
        }
        Self(all)
    }
}

impl Pods {
    /// The uids of those whose events are worth a look: of each component the first that does not say why it
    /// cannot start.
    pub fn silent(&self) -> impl Iterator<Item = &str> {
        let of_each = self.0.values();
        of_each
            .filter_map(|pods| pods.iter().find(|pod| pod.is_silent && !pod.ending))
            .map(|pod| pod.uid.as_str())
    }

    /// Adds what a pod's events say to its trouble.
    pub fn explain(&mut self, uid: &str, text: &str) {
        let mut all = self.0.values_mut().flatten();
        let Some(pod) = all.find(|pod| pod.uid == uid) else {
            return;
        };
        let trouble = pod.trouble.take().unwrap_or_default();
        pod.trouble = Some(format!("{trouble}: {text}"));
    }

    /// Those of a component.
    pub fn of(&self, component: &str) -> &[Pod] {
        self.0.get(component).map_or(&[], Vec::as_slice)
    }
}

/// A pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// Its address, when it has one.
    pub ip: Option<String>,
    /// It takes traffic.
    pub ready: bool,
    /// It is being deleted.
    pub ending: bool,
    /// Why it is not ready, in words.
    pub trouble: Option<String>,
    /// Its containers cannot start, or not yet, and it does not say why: a volume or a network that is
    /// missing is only in its events.
    pub is_silent: bool,
    /// The node that it is on, or is meant for.
    pub node: Option<String>,
    /// Names the template that it was made from.
    pub revision: Option<String>,
    /// How often a container of it was started again.
    pub restarts: i64,
    /// When a container of it last ended with an error.
    pub last_crash: Option<Timestamp>,
    /// How a container of it last ended with an error, in words, also when it runs again.
    pub crash: Option<String>,
}

/// The longest text of someone else's that a message quotes.
const QUOTE: usize = 240;

impl Pod {
    /// Of a Pod.
    pub fn of(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let status = &object["status"];
        let conditions = status["conditions"].as_array();
        let condition = |type_: &str| {
            conditions
                .into_iter()
                .flatten()
                .find(|condition| condition["type"] == type_)
        };
        let ready = condition("Ready").is_some_and(|c| c["status"] == "True");
        let scheduled = condition("PodScheduled").filter(|c| c["status"] == "False");
        let trouble = if ready {
            None
        } else if status["reason"].is_string() {
            // Evicted, NodeLost, Preempted: what became of the whole pod.
            Some(quote(&status["reason"], &status["message"]))
        } else if let Some(condition) = scheduled {
            Some(quote(&condition["reason"], &condition["message"]))
        } else {
            containers(status)
        };
        let is_silent = !ready && scheduled.is_none() && is_being_made(status);
        Self {
            name: text(&object["metadata"]["name"]).unwrap_or_default(),
            uid: text(&object["metadata"]["uid"]).unwrap_or_default(),
            ip: text(&status["podIP"]),
            ready,
            ending: !object["metadata"]["deletionTimestamp"].is_null(),
            trouble,
            is_silent,
            node: text(&object["spec"]["nodeName"]).or_else(|| meant_for(&object["spec"])),
            revision: revision(&object["metadata"]),
            restarts: started(status)
                .filter_map(|c| c["restartCount"].as_i64())
                .sum(),
            last_crash: started(status).filter_map(last_crash).max(),
            crash: started(status).find_map(crash),
        }
    }

    /// Whether its containers end again and again, the last time after this.
    pub fn has_crashed_since(&self, since: Option<Timestamp>) -> bool {
        self.restarts >= 2
            && self
                .last_crash
                .is_some_and(|at| since.is_none_or(|s| at >= s))
    }
}

/// A Deployment says what its ReplicaSet could not do.
fn replica_failure(status: &Value) -> Option<String> {
    let conditions = status["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let failed = conditions.find(|c| c["type"] == "ReplicaFailure" && c["status"] == "True")?;
    Some(quote(&failed["reason"], &failed["message"]))
}

fn revision(metadata: &Value) -> Option<String> {
    metadata["annotations"][REVISION]
        .as_str()
        .map(str::to_owned)
}

/// The node that a DaemonSet made a pod for, which is not on it yet.
fn meant_for(spec: &Value) -> Option<String> {
    let affinity = &spec["affinity"]["nodeAffinity"];
    let required = &affinity["requiredDuringSchedulingIgnoredDuringExecution"];
    let field = required["nodeSelectorTerms"].get(0)?["matchFields"].get(0)?;
    (field["key"] == "metadata.name").then_some(())?;
    field["values"].get(0)?.as_str().map(str::to_owned)
}

fn started(status: &Value) -> impl Iterator<Item = &Value> {
    status["containerStatuses"].as_array().into_iter().flatten()
}

/// How a container ended, where that was an error: the last time first.
fn failed_ends(container: &Value) -> impl Iterator<Item = (i64, &Value)> {
    let ends = [
        &container["state"]["terminated"],
        &container["lastState"]["terminated"],
    ];
    ends.into_iter().filter_map(|end| {
        let code = end["exitCode"].as_i64().filter(|code| *code != 0)?;
        Some((code, end))
    })
}

fn last_crash(container: &Value) -> Option<Timestamp> {
    failed_ends(container)
        .filter_map(|(_, end)| end["finishedAt"].as_str()?.parse().ok())
        .max()
}

fn crash(container: &Value) -> Option<String> {
    let (code, end) = failed_ends(container).next()?;
    let said = quote(&end["reason"], &end["message"]);
    Some(format!("exited with code {code}: {said}"))
}

/// Whether a pod's sandbox and volumes are still being made: no container has run yet.
fn is_being_made(status: &Value) -> bool {
    let waits = |container: &Value| {
        let waiting = &container["state"]["waiting"];
        let reason = waiting["reason"].as_str();
        matches!(reason, Some("ContainerCreating" | "PodInitializing"))
            && waiting["message"].is_null()
    };
    let all = |field: &str| {
        status[field]
            .as_array()
            .is_none_or(|all| all.iter().all(waits))
    };
    let is_pending = status["phase"].is_null() || status["phase"] == "Pending";
    is_pending
        && status["reason"].is_null()
        && all("containerStatuses")
        && all("initContainerStatuses")
}

/// What the containers of a pod that is not ready say.
fn containers(status: &Value) -> Option<String> {
    let Some(statuses) = status["containerStatuses"].as_array() else {
        let phase = status["phase"].as_str().unwrap_or("Pending");
        return (phase != "Succeeded")
            .then(|| format!("{phase}, its containers have not started yet"));
    };
    if status["phase"] == "Succeeded" {
        return None;
    }
    let init = status["initContainerStatuses"].as_array();
    for container in init.into_iter().flatten().chain(statuses) {
        if let Some(crash) = crash(container) {
            return Some(crash);
        }
        let state = &container["state"];
        if state["waiting"].is_object() {
            return Some(quote(
                &state["waiting"]["reason"],
                &state["waiting"]["message"],
            ));
        }
    }
    Some("running, not ready yet".to_owned())
}

/// A reason and a message as they are quoted: not too long, and in one line.
pub fn quote(reason: &Value, message: &Value) -> String {
    let reason = reason.as_str().unwrap_or("no reason given");
    match message.as_str().map(str::trim).filter(|m| !m.is_empty()) {
        None => reason.to_owned(),
        Some(message) => {
            // A program's last words say more than its first.
            let all: Vec<char> = message.chars().collect();
            let from = all.len().saturating_sub(QUOTE);
            let end: String = all.into_iter().skip(from).collect();
            format!("{reason}: {}", end.replace('\n', " "))
        }
    }
}

/// The first trouble among pods, with the pod's name.
pub fn trouble(pods: &[Pod]) -> Option<String> {
    first(pods, |pod| pod.trouble.as_deref())
}

/// The same among a Job's pods. One that runs again after an error is ready, and is in trouble still.
pub fn job_trouble(pods: &[Pod]) -> Option<String> {
    trouble(pods).or_else(|| first(pods, |pod| pod.crash.as_deref()))
}

fn first(pods: &[Pod], said: impl Fn(&Pod) -> Option<&str>) -> Option<String> {
    let mut pods = pods.iter().filter(|pod| !pod.ending);
    pods.find_map(|pod| said(pod).map(|text| format!("pod {}: {text}", pod.name)))
}

/// Why a Job failed, in Kubernetes' words: its pods may be gone.
pub fn job_failure(job: &Value) -> Option<String> {
    let conditions = job["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let failed = conditions.find(|c| c["type"] == "Failed" && c["status"] == "True")?;
    Some(quote(&failed["reason"], &failed["message"]))
}

/// An agent and what it said, when it answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// Its pod.
    pub pod: Pod,
    /// What it said of itself.
    pub status: Option<AgentStatus>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_says_where_it_is_and_how_often_it_crashed() {
        let pod = |value: Value| Pod::of(&value);
        let crashed = pod(json!({
            "metadata": {"annotations": {REVISION: "r"}}, "spec": {"nodeName": "a"},
            "status": {"containerStatuses": [{
                "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:00:09Z"}},
            }]},
        }));
        assert_eq!(crashed.node.as_deref(), Some("a"));
        assert_eq!(crashed.revision.as_deref(), Some("r"));
        let at = |text: &str| Some(text.parse().unwrap());
        assert!(crashed.has_crashed_since(None));
        assert!(crashed.has_crashed_since(at("2026-01-01T00:00:09Z")));
        assert!(!crashed.has_crashed_since(at("2026-01-01T00:00:10Z")));
        let once = Pod {
            restarts: 1,
            ..crashed
        };
        assert!(!once.has_crashed_since(None));
        let ended_well = pod(json!({"status": {"containerStatuses": [{
            "restartCount": 9, "state": {"running": {}},
            "lastState": {"terminated": {"exitCode": 0, "finishedAt": "2026-01-01T00:00:09Z"}},
        }]}}));
        assert!(!ended_well.has_crashed_since(None));
        let term = json!([{"matchFields": [{"key": "metadata.name", "values": ["b"]}]}]);
        let waits = pod(json!({"spec": {"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": term}}}}}));
        assert_eq!(waits.node.as_deref(), Some("b"));
        assert_eq!(pod(json!({})).node, None);
    }

    #[test]
    fn a_pod_of_an_earlier_form_is_none_of_the_latest() {
        let rolled_out = |replicas: i64, updated: i64, ready: i64| {
            let object = json!({
                "metadata": {"generation": 2}, "spec": {"replicas": 1},
                "status": {"observedGeneration": 2, "replicas": replicas,
                    "updatedReplicas": updated, "readyReplicas": ready},
            });
            Workload::of_replicas(Some(&object)).is_rolled_out()
        };
        assert!(rolled_out(1, 1, 1));
        assert!(!rolled_out(1, 0, 1));
        assert!(!rolled_out(1, 1, 0));
        // The new pod cannot start, so the earlier one stays: one of each, and one is ready.
        assert!(!rolled_out(2, 1, 1));
        assert!(!rolled_out(2, 1, 2));
        assert!(rolled_out(2, 2, 2));
    }

    #[test]
    fn of_pods_that_cannot_start_events_say_why() {
        let pod = |name: &str, status: Value| {
            let pod = Pod::of(&json!({"metadata": {"name": name, "uid": name}, "status": status}));
            ("query".to_owned(), pod)
        };
        let in_state = |state: Value| {
            json!({"phase": "Pending", "containerStatuses": [{"state": state}],
                "conditions": [{"type": "PodScheduled", "status": "True"}]})
        };
        let creating = || in_state(json!({"waiting": {"reason": "ContainerCreating"}}));
        let pulling = json!({"waiting": {"reason": "ErrImagePull", "message": "gone"}});
        let unscheduled = json!({"phase": "Pending",
            "conditions": [{"type": "PodScheduled", "status": "False"}]});
        let ready = json!({"phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}]});
        let silent = |pods: Vec<(String, Pod)>| -> Vec<String> {
            let pods: Pods = pods.into_iter().collect();
            pods.silent().map(str::to_owned).collect()
        };
        assert_eq!(
            silent(vec![pod("a", ready.clone()), pod("b", creating())]),
            ["b"]
        );
        assert_eq!(silent(vec![pod("a", json!({"phase": "Pending"}))]), ["a"]);
        // One of each component is enough.
        assert_eq!(
            silent(vec![pod("a", creating()), pod("b", creating())]),
            ["a"]
        );
        for says_why in [
            in_state(pulling),
            in_state(json!({"running": {}})),
            unscheduled,
            ready,
            json!({"phase": "Failed", "reason": "Evicted"}),
            json!({"phase": "Succeeded"}),
        ] {
            assert!(
                silent(vec![pod("a", says_why.clone())]).is_empty(),
                "{says_why}"
            );
        }
        let mut pods: Pods = [pod("a", creating())].into_iter().collect();
        pods.explain("a", "FailedMount: secret \"x\" not found");
        pods.explain("other", "nothing");
        assert_eq!(
            trouble(pods.of("query")).unwrap(),
            "pod a: ContainerCreating: FailedMount: secret \"x\" not found"
        );
    }

    #[test]
    fn a_pod_says_what_ails_it() {
        let pod = |status: Value| Pod::of(&json!({"metadata": {"name": "a"}, "status": status}));
        let trouble = |status: Value| pod(status).trouble.unwrap();
        assert!(pod(json!({"conditions": [{"type": "Ready", "status": "True"}]})).ready);
        assert_eq!(
            trouble(
                json!({"conditions": [{"type": "PodScheduled", "status": "False",
                "reason": "Unschedulable", "message": "0/2 nodes are available"}]})
            ),
            "Unschedulable: 0/2 nodes are available"
        );
        assert_eq!(
            trouble(json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"})),
            "Evicted: low on memory"
        );
        assert_eq!(
            trouble(json!({"containerStatuses": [{"state": {"waiting":
                {"reason": "ImagePullBackOff", "message": "back-off"}}}]})),
            "ImagePullBackOff: back-off"
        );
        assert_eq!(
            trouble(json!({"containerStatuses": [{
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "message": "x\ny"}},
            }]})),
            "exited with code 1: Error: x y"
        );
        // A Job's container that runs again is ready, and what it said when it failed is still true.
        let again = pod(json!({"conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"state": {"running": {}}, "lastState": {"terminated":
                {"exitCode": 1, "reason": "Error", "message": "wrong password"}}}]}));
        let pods = [again];
        assert_eq!(super::trouble(&pods), None);
        let said = job_trouble(&pods).unwrap();
        assert!(
            said.ends_with("exited with code 1: Error: wrong password"),
            "{said}"
        );
        let failed = json!({"status": {"conditions": [{"type": "Failed", "status": "True",
            "reason": "DeadlineExceeded", "message": "too long"}]}});
        assert_eq!(job_failure(&failed).unwrap(), "DeadlineExceeded: too long");
        assert_eq!(job_failure(&json!({})), None);
        // What keeps the first container from its work is said, not that the next one waits.
        let waits = json!({"state": {"waiting": {"reason": "PodInitializing"}}});
        let fails = json!({"state": {"waiting": {"reason": "ErrImagePull", "message": "gone"}}});
        let status = json!({"phase": "Pending", "initContainerStatuses": [fails],
            "containerStatuses": [waits]});
        assert_eq!(trouble(status.clone()), "ErrImagePull: gone");
        assert!(!pod(status).is_silent);
        let job = |type_: &str| {
            JobState::of(Some(
                &json!({"status": {"conditions": [{"type": type_, "status": "True"}]}}),
            ))
        };
        assert_eq!(job("Complete"), JobState::Complete);
        assert_eq!(job("Failed"), JobState::Failed);
        assert_eq!(job("SuccessCriteriaMet"), JobState::Running);
        assert_eq!(JobState::of(None), JobState::Missing);
    }
}
