//! The operator writes what it owns, and nothing else: pipelines apart, foreign labels, no writes at rest.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::apps::{App, ask};
use super::support::install;
use super::support::kube::{kubectl, try_kubectl};
use super::support::namespace::Namespace;
use super::support::pipeline::{NAME, Pipeline, document};
use super::support::{LIMIT, await_some, want};

#[test]
fn two_pipelines_stay_apart() {
    let _installed = install::shared();
    let namespaces = [install::pipeline_namespace(), install::pipeline_namespace()];
    let pipelines = [0, 1].map(|index| {
        let spec = json!({"processing": {"resource": {"which": format!("number-{index}")}}});
        Pipeline::applied(&namespaces[index], &spec)
    });
    let mut traces = Vec::new();
    for pipeline in &pipelines {
        pipeline.await_ready();
        App::python("app", "service")
            .with("OTEL_EXPORTER_OTLP_ENDPOINT", pipeline.otlp_http())
            .place(pipeline.namespace);
        pipeline.place_asker();
        let answer = ask(pipeline.namespace, "app", "/work");
        traces.push(answer["traceId"].as_str().unwrap().to_owned());
    }
    for (index, pipeline) in pipelines.iter().enumerate() {
        let spans = pipeline.await_trace(&traces[index], 1);
        let text = spans[0].to_string();
        assert!(text.contains(&format!("number-{index}")), "{text}");
        let other = format!(
            "{}/api/v1/traces/{}",
            pipeline.query_url(),
            traces[1 - index]
        );
        let answer = pipeline.fetch(&other, &[]).unwrap();
        assert_eq!(answer.status, 404, "{answer:?}");
    }
    // One goes; the other does not notice.
    namespaces[0].kubectl(&["delete", "tracingpipeline", NAME, "--wait=true"]);
    await_some("an end of the first one's collectors", LIMIT, || {
        let left = namespaces[0].try_get(&["daemonsets"])?;
        want(left["items"] == json!([]), || left.to_string())
    });
    let answer = ask(&namespaces[1], "app", "/work");
    pipelines[1].await_trace(answer["traceId"].as_str().unwrap(), 1);
}

#[test]
fn what_the_document_drops_goes_and_what_others_added_stays() {
    let _installed = install::shared();
    let namespace = install::pipeline_namespace();
    let arch = kubectl(&[
        "get",
        "nodes",
        r"--output=jsonpath={.items[0].metadata.labels.kubernetes\.io/arch}",
    ]);
    let selector = json!({"collector": {"nodeSelector": {"kubernetes.io/arch": arch}}});
    let pipeline = Pipeline::ready(&namespace, &selector);
    let set = "daemonset/traces-collector";
    namespace.kubectl(&["label", set, "example.com/team=payments"]);
    namespace.kubectl(&["annotate", set, "example.com/note=ours"]);
    let selectors = || namespace.get(&[set])["spec"]["template"]["spec"]["nodeSelector"].clone();
    // Where the images run is always said.
    let os = json!({"kubernetes.io/os": "linux"});
    assert_eq!(selectors()["kubernetes.io/arch"], *arch);

    pipeline.apply(&json!({}));
    await_some("a document without the selector", LIMIT, || {
        want(selectors() == os, || selectors().to_string())
    });
    pipeline.await_ready();
    let metadata = namespace.get(&[set])["metadata"].clone();
    assert_eq!(metadata["labels"]["example.com/team"], "payments");
    assert_eq!(metadata["annotations"]["example.com/note"], "ours");

    // A person's restart is a person's: it is carried out and not taken back.
    namespace.kubectl(&["rollout", "restart", set]);
    namespace.kubectl(&["rollout", "status", set, "--timeout=180s"]);
    pipeline.await_ready();
    let template = namespace.get(&[set])["spec"]["template"]["metadata"].clone();
    let restarted = &template["annotations"]["kubectl.kubernetes.io/restartedAt"];
    assert!(restarted.is_string(), "{template}");
}

/// What the operator may have written, by kind and name.
fn objects(namespace: &Namespace) -> Objects {
    let kinds = "tracingpipelines,configmaps,secrets,services,serviceaccounts,daemonsets,\
                 deployments,statefulsets,poddisruptionbudgets,roles,rolebindings,jobs";
    let all = namespace.get(&[kinds]);
    let items = all["items"].as_array().unwrap().iter();
    items
        .map(|item| {
            let name = format!("{} {}", item["kind"], item["metadata"]["name"]);
            (name, item.clone())
        })
        .collect()
}

#[test]
fn a_second_apply_changes_nothing_and_nothing_is_written_at_rest() {
    let _installed = install::shared();
    let namespace = install::pipeline_namespace();
    let spec = json!({"processing": {"drop": ["{ name = \"never\" }"]}});
    let pipeline = Pipeline::ready(&namespace, &spec);
    let said = pipeline.apply(&spec);
    assert!(said.contains("unchanged"), "{said}");
    let text = document(namespace.name(), &spec).to_string();
    let differences = try_kubectl(&["diff", "--filename", "-"], Some(&text));
    assert_eq!(differences.as_deref(), Ok(""));

    let quiet = Duration::from_secs(15);
    let started = Instant::now();
    loop {
        let rested = await_rest(&namespace, quiet);
        match watch(&namespace, &rested, 2 * quiet) {
            Ok(()) => return,
            // A probe that was late on a busy machine: the kubelet wrote first.
            Err(change) if change.is_of_pods && started.elapsed() < LIMIT => {
                println!("once more: {}", change.text);
            }
            Err(change) => panic!("written at rest:\n{}", change.text),
        }
    }
}

type Objects = BTreeMap<String, Value>;

/// The objects, once nothing was written for `quiet`.
fn await_rest(namespace: &Namespace, quiet: Duration) -> Objects {
    let mut last = (Instant::now(), objects(namespace));
    await_some("rest", LIMIT, || {
        let now = objects(namespace);
        if now != last.1 {
            last = (Instant::now(), now);
        }
        // The first rate, of none, comes a minute after the pipeline.
        let pipeline = &last.1["\"TracingPipeline\" \"traces\""];
        let is_measured = pipeline["status"]["spansPerSecond"].is_number();
        want(is_measured && last.0.elapsed() > quiet, || {
            "still writing".to_owned()
        })
    });
    last.1
}

/// What was written although all was at rest.
struct Change {
    text: String,
    /// Pods became ready or unready, which Kubernetes writes to the status of their workload.
    is_of_pods: bool,
}

/// Looks at the objects for as long as `window`.
fn watch(namespace: &Namespace, rested: &Objects, window: Duration) -> Result<(), Change> {
    let started = Instant::now();
    while started.elapsed() < window {
        let now = objects(namespace);
        if now != *rested {
            let names = now.keys().chain(rested.keys());
            let changed = names.filter(|name| now.get(*name) != rested.get(*name));
            let lines: Vec<_> = changed
                .clone()
                .map(|name| format!("{name}: {:?}\nwas: {:?}", now.get(name), rested.get(name)))
                .collect();
            let ready = |objects: &Objects, name: &str| {
                let status = objects.get(name)?.get("status")?;
                let counts = ["replicas", "readyReplicas", "numberReady"];
                let counts = counts.map(|key| status.get(key).cloned());
                counts.iter().any(Option::is_some).then_some(counts)
            };
            // Where none is ready, there is no count of them.
            let is_of_pods = |name: &String| match (ready(&now, name), ready(rested, name)) {
                (Some(now), Some(before)) => now != before,
                _ => false,
            };
            return Err(Change {
                is_of_pods: changed.clone().any(is_of_pods),
                text: lines.join("\n"),
            });
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}
