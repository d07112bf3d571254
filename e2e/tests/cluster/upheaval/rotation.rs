//! The operator's certificate authority is replaced while spans are stored and read: nobody notices.
//!
//! Two years are not waited for: the dates that the operator keeps beside its authorities are moved, and it is
//! started anew, since it looks at them every five minutes only. What it makes of them is its own.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::super::loss::{await_more, nodes, place_senders, stop_and_check};
use super::super::support::apps::{App, ask, try_fetch};
use super::super::support::install;
use super::super::support::kube::{apply, kubectl};
use super::super::support::namespace::Namespace;
use super::super::support::pipeline::Pipeline;
use super::super::support::{LIMIT, await_some, want};

const DAY: i64 = 86_400;

/// A pod on each node that trusts what the pipeline's clients do.
const CLIENTS: [&str; 2] = ["client-one", "client-two"];

/// A text in a Secret.
fn secret(namespace: &str, name: &str, key: &str) -> String {
    let template = format!("--output=go-template={{{{index .data \"{key}\" | base64decode}}}}");
    kubectl(&["--namespace", namespace, "get", "secret", name, &template])
}

/// What the operator keeps of its authorities.
fn authority() -> Value {
    let text = secret(install::NAMESPACE, "spanloom-ca", "authority.json");
    serde_json::from_str(&text).unwrap()
}

/// Puts other dates into it and has the operator look at them.
fn age(authority: &Value) {
    let patch = json!({"stringData": {"authority.json": authority.to_string()}});
    let system = |arguments: &[&str]| {
        kubectl(&[&["--namespace", install::NAMESPACE], arguments].concat());
    };
    system(&[
        "patch",
        "secret/spanloom-ca",
        "--type=merge",
        "--patch",
        &patch.to_string(),
    ]);
    let operator = "--selector=app.kubernetes.io/component=operator";
    system(&["delete", "pods", operator, "--wait=true"]);
    install::await_operator();
}

fn place_clients(namespace: &Namespace, nodes: &[String]) {
    for (name, node) in CLIENTS.iter().zip(nodes) {
        apply(&json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace.name()},
            "spec": {
                "nodeSelector": {"kubernetes.io/hostname": node},
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 0,
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "volumes": [{"name": "ca", "configMap": {"name": "traces-ca"}}],
                "containers": [{
                    "name": "client",
                    "image": "spanloom.test/demo-python:1",
                    "args": ["idle"],
                    "volumeMounts": [{"name": "ca", "mountPath": "/ca", "readOnly": true}],
                    "securityContext": {
                        "allowPrivilegeEscalation": false,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }],
            },
        }));
    }
    for name in CLIENTS {
        let pod = format!("pod/{name}");
        namespace.kubectl(&["wait", "--for=condition=Ready", &pod, "--timeout=120s"]);
    }
}

fn python(namespace: &Namespace, client: &str, script: &str) -> Result<String, String> {
    namespace.try_kubectl(&["exec", client, "--", "/usr/bin/python", "-c", script])
}

/// Waits until every client has the bundle with this certificate. A kubelet looks at a pod's volumes when
/// the pod changes, and else at its leisure.
fn await_trust(namespace: &Namespace, certificate: &str, round: &str) {
    let note = format!("example.com/look={round}");
    namespace.kubectl(&["annotate", "pods", "--all", &note]);
    for client in CLIENTS {
        await_some("the new bundle in the pods", LIMIT, || {
            let bundle = python(namespace, client, "print(open('/ca/ca.crt').read())")?;
            want(bundle.contains(certificate.trim()), || bundle.clone())
        });
    }
}

/// The store's certificate as it is served to each client, who must also find it good.
fn served(namespace: &Namespace) -> Result<Vec<String>, String> {
    let store = format!("traces-clickhouse.{}.svc", namespace.name());
    let script = format!("import ssl; print(ssl.get_server_certificate(('{store}', 8443)))");
    let mut all = Vec::new();
    for client in CLIENTS {
        all.push(python(namespace, client, &script)?);
        let pod = format!("pod/{client}");
        let url = format!("https://{store}:8443/ping");
        let answer = fetch_as(namespace, &pod, &url)?;
        want(answer.contains("\"status\": 200"), || answer.clone())?;
    }
    Ok(all)
}

fn fetch_as(namespace: &Namespace, pod: &str, url: &str) -> Result<String, String> {
    let fetch = [
        "exec",
        pod,
        "--",
        "/usr/bin/python",
        "/app/demo.py",
        "fetch",
    ];
    namespace.try_kubectl(&[&fetch[..], &[url, "--ca", "/ca/ca.crt"]].concat())
}

/// The text of a certificate, however its lines are broken.
fn plain(certificate: &str) -> String {
    certificate.split_whitespace().collect()
}

#[test]
fn a_new_authority_comes_into_use_unnoticed() {
    let _installed = install::alone();
    let namespace = install::pipeline_namespace();
    let pipeline = Pipeline::ready(&namespace, &json!({}));
    let nodes = nodes();
    place_clients(&namespace, &nodes);
    App::python("app", "service")
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", pipeline.otlp_http())
        .place(&namespace);
    let answer = ask(&namespace, "app", "/work");
    let trace_id = answer["traceId"].as_str().unwrap();
    pipeline.await_trace(trace_id, 1);
    place_senders(&pipeline, &nodes);

    let (is_over, answers) = (AtomicBool::new(false), AtomicU64::new(0));
    let url = format!("{}/api/v1/traces/{trace_id}", pipeline.query_url());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let answer = try_fetch(&namespace, "asker", &url, &[]).unwrap();
                assert_eq!(answer.status, 200, "{answer:?}");
                answers.fetch_add(1, Ordering::Relaxed);
                // Not all of the machine is for reading.
                std::thread::sleep(Duration::from_millis(500));
            }
        });
        let _over = Over(&is_over);
        rotate(&namespace, &|| {
            let before = answers.load(Ordering::Relaxed);
            await_some("two more answers to the reader", LIMIT, || {
                let now = answers.load(Ordering::Relaxed);
                // The first may have been on its way.
                want(now >= before + 2, || format!("{before}, then {now}"))
            });
        });
    });
    println!("{answers:?} answers in the meantime, each with the trace");

    // Who has kept a connection needs no trust. Everybody must make a new one after this.
    namespace.kubectl(&["delete", "pod/traces-clickhouse-0", "--wait=true"]);
    let store = "statefulset/traces-clickhouse";
    namespace.kubectl(&["rollout", "status", store, "--timeout=180s"]);
    pipeline.await_trace(trace_id, 1);
    await_more(&namespace);
    stop_and_check(&pipeline);
}

/// Ends the reader, also when the rest fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn rotate(namespace: &Namespace, read: &dyn Fn()) {
    let here = namespace.name();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_secs()).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let bundle = || {
        let map = namespace.get(&["configmap", "traces-ca"]);
        text(&map["data"]["ca.crt"])
    };
    let leaf = || secret(here, "traces-clickhouse-tls", "tls.crt");

    // The one in use comes near its end: the next one is published, and does not sign yet.
    let mut state = authority();
    let old = text(&state["current"]["certificate"]);
    assert!(
        bundle().contains(&old) && state["next"].is_null(),
        "{state}"
    );
    let old_leaf = leaf();
    let served_first = served(namespace).unwrap();
    assert!(
        served_first
            .iter()
            .all(|cert| plain(cert) == plain(&old_leaf))
    );
    state["current"]["ends"] = json!(now + 100 * DAY);
    age(&state);
    let (mut state, new) = await_some("the next authority", LIMIT, || {
        let state = authority();
        let next = state["next"]["certificate"].as_str().map(str::to_owned);
        let next = next.ok_or("not published yet")?;
        Ok((state, next))
    });
    await_some("a bundle with both", LIMIT, || {
        let bundle = bundle();
        want(bundle.contains(&old) && bundle.contains(&new), || {
            bundle.clone()
        })
    });
    assert_eq!(text(&state["current"]["certificate"]), old);
    assert_eq!(leaf(), old_leaf, "signed by one that nobody trusts yet");
    await_trust(namespace, &new, "1");
    read();

    // It was published long enough ago: it signs.
    state["next"]["made"] = json!(now - 2 * DAY);
    age(&state);
    let new_leaf = await_some("a new leaf", LIMIT, || {
        let new_leaf = leaf();
        want(new_leaf != old_leaf, || "the old one".to_owned())?;
        Ok(new_leaf)
    });
    let issuer = namespace.kubectl(&[
        "get",
        "secret/traces-clickhouse-tls",
        "--output=jsonpath={.metadata.annotations.spanloom\\.dev/certificate-issuer}",
    ]);
    assert_eq!(issuer, text(&state["next"]["name"]));
    namespace.kubectl(&[
        "annotate",
        "pods",
        "--all",
        "example.com/look=2",
        "--overwrite",
    ]);
    await_some("the new leaf being served, and trusted", LIMIT, || {
        let served = served(namespace)?;
        let is_new = served.iter().all(|cert| plain(cert) == plain(&new_leaf));
        want(is_new, || format!("{served:?}"))
    });
    read();
    // The old one stays trusted, but its key is gone.
    let bundle = bundle();
    assert!(bundle.contains(&old) && bundle.contains(&new), "{bundle}");
    let state = authority();
    assert_eq!(text(&state["current"]["certificate"]), new);
    assert_eq!(text(&state["previous"]["certificate"]), old);
    assert_eq!(state["previous"]["key"], "");
}
