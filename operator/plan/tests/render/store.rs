//! How pods log in to the store, and what another password or address does to them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use spanloom_plan::render::{Desired, Known, render};

use super::{find, golden_text, known, pipeline, release};

/// What a Secret says under a key.
fn secret_text(secret: &Value, key: &str) -> String {
    let data = secret["data"][key].as_str().unwrap_or_default();
    String::from_utf8(STANDARD.decode(data).unwrap()).unwrap()
}

#[test]
fn each_program_has_a_user_of_the_store() {
    let objects = render(&pipeline(json!({})), &release(), &known());
    let secret = find(&objects, "Secret", "prod-clickhouse");
    golden_text("users.xml", &secret_text(secret, "users.xml"));
    let pod = |kind: &str, name: &str| {
        let object = objects
            .iter()
            .find(|o| o.kind() == kind && o.name().starts_with(name));
        &object.unwrap().object["spec"]["template"]["spec"]
    };
    let text = |key: &Value| secret_text(secret, key.as_str().unwrap());
    let find = |list: &Value, key: &str, value: &str| {
        let list = list.as_array().unwrap();
        list.iter().find(|item| item[key] == value).unwrap().clone()
    };
    // A Job has them as variables, what runs for long as files.
    let job = |name: &str| {
        let env = &pod("Job", "prod-migrate")["containers"][0]["env"];
        text(&find(env, "name", name)["valueFrom"]["secretKeyRef"]["key"])
    };
    let file = |kind: &str, name: &str, path: &str| {
        let volume = find(&pod(kind, name)["volumes"], "name", "clickhouse");
        assert_eq!(volume["secret"]["secretName"], "prod-clickhouse");
        text(&find(&volume["secret"]["items"], "path", path)["key"])
    };
    assert_eq!(job("SPANLOOM_CLICKHOUSE_USER"), "spanloom");
    let mut passwords = vec![job("SPANLOOM_CLICKHOUSE_PASSWORD")];
    for (kind, name, user) in [
        ("DaemonSet", "prod-collector", "spanloom_collector"),
        ("Deployment", "prod-query", "spanloom_query"),
    ] {
        assert_eq!(file(kind, name, "username"), user);
        passwords.push(file(kind, name, "password"));
    }
    // What a volume's views were made with stays as it was.
    assert_eq!(passwords[0], "generated");
    passwords.sort();
    passwords.dedup();
    assert_eq!(passwords.len(), 3, "{passwords:?}");
}

/// A log that waits for another password, or another address, must not be replaced with its pod.
#[test]
fn another_password_or_address_of_the_store_rolls_no_collector() {
    let external = |url: &str| {
        let storage = json!({"external": {"url": url, "credentialsSecret": {"name": "ch"}}});
        render(&pipeline(json!({"storage": storage})), &release(), &known())
    };
    let moved = (
        external("https://one.example:8443"),
        external("http://two.example"),
    );
    let rotated = Known {
        store_password: "another".to_owned(),
        ..known()
    };
    let managed = |known: &Known| render(&pipeline(json!({})), &release(), known);
    let renewed = (managed(&known()), managed(&rotated));
    for (old, new) in [&moved, &renewed] {
        let of = |objects: &[Desired]| find(objects, "DaemonSet", "prod-collector").clone();
        assert_eq!(of(old), of(new));
        let job = |objects: &[Desired]| {
            let job = objects.iter().find(|o| o.kind() == "Job").unwrap();
            job.name().to_owned()
        };
        assert_ne!(job(old), job(new), "a Job has them for once");
    }
    let config = |objects: &[Desired]| find(objects, "ConfigMap", "prod-collector").clone();
    assert_ne!(config(&moved.0), config(&moved.1));
    let query = |objects: &[Desired]| find(objects, "Deployment", "prod-query").clone();
    assert_eq!(query(&renewed.0), query(&renewed.1));
}
