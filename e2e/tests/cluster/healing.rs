//! What is deleted comes back, each object in turn, while spans are sent: nothing that was acknowledged is
//! lost.

use serde_json::{Value, json};

use super::loss::{await_more, nodes, place_senders, stop_and_check};
use super::support::install;
use super::support::kube::{kubectl, try_get};
use super::support::pipeline::Pipeline;
use super::support::{LIMIT, await_some, want};

/// What the operator places, in the order in which it is deleted.
const KINDS: [&str; 10] = [
    "configmaps",
    "services",
    "serviceaccounts",
    "roles",
    "rolebindings",
    "poddisruptionbudgets",
    "secrets",
    "deployments",
    "daemonsets",
    "statefulsets",
];

#[test]
fn what_is_deleted_comes_back_and_nothing_is_lost() {
    let _installed = install::shared();
    let namespace = install::pipeline_namespace();
    let pipeline = Pipeline::ready(&namespace, &json!({}));
    place_senders(&pipeline, &nodes());

    let selector = "--selector=spanloom.dev/pipeline=traces";
    for kind in KINDS {
        let found = namespace.get(&[kind, selector]);
        for object in found["items"].as_array().unwrap() {
            let name = object["metadata"]["name"].as_str().unwrap();
            let uid = &object["metadata"]["uid"];
            println!("deleting {kind}/{name}");
            namespace.kubectl(&["delete", kind, name, "--wait=false"]);
            await_some(&format!("another {kind}/{name}"), LIMIT, || {
                let now = namespace.try_get(&[kind, name])?;
                want(now["metadata"]["uid"] != *uid, || "the old one".to_owned())
            });
            pipeline.await_ready();
            await_more(&namespace);
        }
    }

    // The authority, of which the operator has a copy.
    let authority = || try_get(install::NAMESPACE, &["secret", "spanloom-ca"]);
    let content = |secret: &Value| secret["data"].clone();
    let before = content(&authority().unwrap());
    let in_system = ["--namespace", install::NAMESPACE];
    kubectl(&[&in_system[..], &["delete", "secret", "spanloom-ca"]].concat());
    let after = await_some("the authority's Secret", LIMIT, authority);
    assert_eq!(content(&after), before, "another authority");

    await_more(&namespace);
    stop_and_check(&pipeline);
}
