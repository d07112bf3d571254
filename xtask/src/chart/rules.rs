//! What the house wants of the objects that the chart makes: the least rights, and pods that a
//! namespace which enforces Pod Security `restricted` takes.

use serde_json::Value;

/// All that the operator and the webhook may do in the whole cluster, and collectors in the last line. A right that
/// is added is added here, too, and so is looked at twice.
const CLUSTER_WIDE: &[(&str, &str, &str)] = &[
    ("spanloom.dev", "tracingpipelines", "get,list,watch"),
    ("spanloom.dev", "tracingpipelines", "list,watch"),
    ("spanloom.dev", "tracingpipelines/status", "get,patch"),
    ("events.k8s.io", "events", "create,patch"),
    (
        "apiextensions.k8s.io",
        "customresourcedefinitions/tracingpipelines.spanloom.dev",
        "get,patch",
    ),
    (
        "rbac.authorization.k8s.io",
        "clusterrolebindings/*-collectors",
        "get,patch",
    ),
    (
        "rbac.authorization.k8s.io",
        "clusterroles/*-collector",
        "bind",
    ),
    (
        "admissionregistration.k8s.io",
        "mutatingwebhookconfigurations/*-webhook",
        "get,patch",
    ),
    ("", "nodes", "get,list,watch"),
    ("", "namespaces", "list,watch"),
    ("", "pods", "list,watch"),
    ("", "pods", "get,list,watch"),
];

/// Rights that no role of ours has, in a namespace or in the cluster.
const NEVER: &[(&str, &str)] = &[
    ("secrets", "list"),
    ("secrets", "watch"),
    ("persistentvolumeclaims", "delete"),
    ("persistentvolumeclaims", "deletecollection"),
    ("pods", "create"),
    ("pods", "delete"),
    ("pods/exec", "create"),
    ("tracingpipelines", "patch"),
    ("tracingpipelines", "update"),
];

/// Verbs that give more than they say.
const MIGHTY: &[&str] = &["*", "escalate", "impersonate", "deletecollection"];

/// Every rule that an object breaks.
pub fn check(objects: &[Value]) -> Vec<String> {
    let mut broken = Vec::new();
    for object in objects {
        let name = format!(
            "{} {}",
            text(&object["kind"]),
            text(&object["metadata"]["name"])
        );
        let mut says: Vec<String> = Vec::new();
        match text(&object["kind"]) {
            // For people, by their own roles: none of our accounts is bound to it.
            "ClusterRole" if is_aggregated(object) => check_aggregated(object, &mut says),
            "ClusterRole" => {
                check_role(object, &mut says);
                check_cluster_wide(object, &mut says);
            }
            "Role" => check_role(object, &mut says),
            "Deployment" | "DaemonSet" | "StatefulSet" | "Job" => {
                check_pod(&object["spec"]["template"]["spec"], &mut says);
            }
            _ => {}
        }
        let kind = text(&object["kind"]);
        let cluster_scoped = kind.starts_with("Cluster") || kind.ends_with("WebhookConfiguration");
        if object["metadata"]["namespace"].is_null() != cluster_scoped {
            says.push("its namespace is not written out".to_owned());
        }
        if object["metadata"]["finalizers"].is_array() {
            says.push("has a finalizer, which would outlive the operator".to_owned());
        }
        broken.extend(says.into_iter().map(|say| format!("{name}: {say}")));
    }
    broken
}

/// Whether a role becomes part of the cluster's own `view`, `edit` or `admin`.
fn is_aggregated(role: &Value) -> bool {
    let labels = role["metadata"]["labels"].as_object();
    let mut keys = labels.into_iter().flat_map(|labels| labels.keys());
    keys.any(|key| key.starts_with("rbac.authorization.k8s.io/aggregate-to-"))
}

/// Such a role is about pipelines, and nothing else.
fn check_aggregated(role: &Value, says: &mut Vec<String>) {
    for rule in list(&role["rules"]) {
        let is_ours = |resource: &&str| resource.starts_with("tracingpipelines");
        if strings(&rule["apiGroups"]) != ["spanloom.dev"]
            || !strings(&rule["resources"]).iter().all(is_ours)
            || strings(&rule["verbs"]).contains(&"*")
        {
            says.push("gives people more than pipelines".to_owned());
        }
    }
}

fn check_role(role: &Value, says: &mut Vec<String>) {
    for rule in list(&role["rules"]) {
        let (resources, verbs) = (strings(&rule["resources"]), strings(&rule["verbs"]));
        if resources.contains(&"*") || strings(&rule["apiGroups"]).contains(&"*") {
            says.push("names everything (*)".to_owned());
        }
        for verb in verbs.iter().filter(|verb| MIGHTY.contains(verb)) {
            says.push(format!("may {verb}"));
        }
        for (resource, verb) in NEVER {
            if resources.contains(resource) && verbs.contains(verb) {
                says.push(format!("may {verb} {resource}"));
            }
        }
        if verbs.contains(&"bind") && list(&rule["resourceNames"]).is_empty() {
            says.push("may bind any role".to_owned());
        }
    }
}

fn check_cluster_wide(role: &Value, says: &mut Vec<String>) {
    for rule in list(&role["rules"]) {
        let names = strings(&rule["resourceNames"]);
        for group in strings(&rule["apiGroups"]) {
            for resource in strings(&rule["resources"]) {
                let wanted: Vec<_> = match names.as_slice() {
                    [] => vec![resource.to_owned()],
                    names => names
                        .iter()
                        .map(|name| format!("{resource}/{name}"))
                        .collect(),
                };
                for object in wanted {
                    let verbs = strings(&rule["verbs"]).join(",");
                    let known = CLUSTER_WIDE.iter().any(|(g, object_known, v)| {
                        *g == group && *v == verbs && is_like(&object, object_known)
                    });
                    if !known {
                        says.push(format!("may {verbs} {group}/{object} in the whole cluster"));
                    }
                }
            }
        }
    }
}

/// Whether a text is the pattern, in which `*` stands for any text.
fn is_like(text: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => text == pattern,
        Some((head, tail)) => text
            .strip_prefix(head)
            .is_some_and(|rest| rest.ends_with(tail)),
    }
}

/// The profile `restricted`, and what we want beyond it.
fn check_pod(pod: &Value, says: &mut Vec<String>) {
    const VOLUMES: [&str; 8] = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    for key in ["hostNetwork", "hostPID", "hostIPC"] {
        if pod[key] == true {
            says.push(format!("has {key}"));
        }
    }
    let context = &pod["securityContext"];
    if context["runAsNonRoot"] != true || context["runAsUser"].as_u64().is_none_or(|id| id == 0) {
        says.push("may run as root".to_owned());
    }
    if context["seccompProfile"]["type"] != "RuntimeDefault" {
        says.push("has no seccomp profile".to_owned());
    }
    for volume in list(&pod["volumes"]) {
        let keys = volume.as_object().into_iter().flat_map(|map| map.keys());
        for kind in keys.filter(|key| *key != "name" && !VOLUMES.contains(&key.as_str())) {
            says.push(format!("mounts a {kind}"));
        }
    }
    let containers = ["containers", "initContainers", "ephemeralContainers"];
    for container in containers.iter().flat_map(|kind| list(&pod[kind])) {
        let name = text(&container["name"]);
        let mut wants = |so: bool, what: &str| {
            if !so {
                says.push(format!("container {name}: {what}"));
            }
        };
        let context = &container["securityContext"];
        wants(
            context["allowPrivilegeEscalation"] == false,
            "may gain privileges",
        );
        wants(
            context["readOnlyRootFilesystem"] == true,
            "may write to its image",
        );
        wants(context["privileged"] != true, "is privileged");
        wants(context["runAsNonRoot"] != false, "may run as root");
        let capabilities = &context["capabilities"];
        wants(
            strings(&capabilities["drop"]) == ["ALL"],
            "keeps capabilities",
        );
        wants(capabilities["add"].is_null(), "adds capabilities");
        let ports = list(&container["ports"]);
        wants(
            ports.iter().all(|port| port["hostPort"].is_null()),
            "has a host port",
        );
        let resources = &container["resources"];
        wants(!resources["requests"].is_null(), "requests nothing");
        wants(
            !resources["limits"]["memory"].is_null(),
            "has no memory limit",
        );
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn strings(value: &Value) -> Vec<&str> {
    list(value).iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check_one(object: Value, expect: &[&str]) {
        let broken = check(&[object]);
        let said: Vec<_> = broken
            .iter()
            .map(|say| say.split_once(": ").unwrap().1)
            .collect();
        assert_eq!(said, expect);
    }

    fn role(kind: &str, rules: Value) -> Value {
        let mut role = json!({"kind": kind, "metadata": {"name": "r"}, "rules": rules});
        if kind == "Role" {
            role["metadata"]["namespace"] = json!("n");
        }
        role
    }

    #[test]
    fn roles() {
        let secrets =
            |verbs: Value| json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": verbs}]);
        check_one(role("Role", secrets(json!(["get"]))), &[]);
        check_one(
            role("Role", secrets(json!(["get", "list"]))),
            &["may list secrets"],
        );
        check_one(role("Role", secrets(json!(["*"]))), &["may *"]);
        check_one(
            role("ClusterRole", secrets(json!(["get"]))),
            &["may get /secrets in the whole cluster"],
        );
        let all = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get"]}]);
        check_one(role("Role", all), &["names everything (*)"]);
        let bind = |names: Value| {
            json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"],
                    "resourceNames": names, "verbs": ["bind"]}])
        };
        check_one(role("ClusterRole", bind(json!(["x-collector"]))), &[]);
        check_one(
            role("ClusterRole", bind(json!(["admin"]))),
            &["may bind rbac.authorization.k8s.io/clusterroles/admin in the whole cluster"],
        );
        check_one(role("Role", bind(json!([]))), &["may bind any role"]);
    }

    fn deployment(change: impl FnOnce(&mut Value)) -> Value {
        let mut pod = json!({
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "c",
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                },
                "resources": {"requests": {"cpu": "1m"}, "limits": {"memory": "1Mi"}},
            }],
        });
        change(&mut pod);
        json!({
            "kind": "Deployment",
            "metadata": {"name": "d", "namespace": "n"},
            "spec": {"template": {"spec": pod}},
        })
    }

    #[test]
    fn pods() {
        check_one(deployment(|_| {}), &[]);
        check_one(
            deployment(|pod| pod["hostNetwork"] = json!(true)),
            &["has hostNetwork"],
        );
        check_one(
            deployment(|pod| pod["securityContext"] = json!({})),
            &["may run as root", "has no seccomp profile"],
        );
        check_one(
            deployment(|pod| pod["volumes"] = json!([{"name": "v", "hostPath": {"path": "/"}}])),
            &["mounts a hostPath"],
        );
        check_one(
            deployment(|pod| pod["containers"][0]["securityContext"] = json!({})),
            &[
                "container c: may gain privileges",
                "container c: may write to its image",
                "container c: keeps capabilities",
            ],
        );
        check_one(
            deployment(|pod| pod["containers"][0]["ports"] = json!([{"hostPort": 1}])),
            &["container c: has a host port"],
        );
    }

    #[test]
    fn every_object_says_where_it_is_and_goes_when_told() {
        check_one(
            json!({"kind": "Service", "metadata": {"name": "s"}}),
            &["its namespace is not written out"],
        );
        check_one(
            json!({"kind": "Service", "metadata": {"name": "s", "namespace": "n", "finalizers": ["x"]}}),
            &["has a finalizer, which would outlive the operator"],
        );
    }
}
