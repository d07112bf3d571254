//! A ClickHouse of one's own, with its own authority, user and database.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use super::support::apps::{App, ask};
use super::support::install;
use super::support::kube::{apply, kubectl};
use super::support::namespace::Namespace;
use super::support::pipeline::Pipeline;
use super::support::{LIMIT, await_some, want};

const NAME: &str = "clickhouse";
const USER: &str = "tracing";
const PASSWORD: &str = "only-for-this-test";

fn secret(namespace: &Namespace, name: &str, content: &Value) {
    apply(&json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace.name()},
        "stringData": content,
    }));
}

/// The image of ClickHouse that the operator starts.
fn image() -> String {
    let path = "--output=jsonpath={.spec.template.spec.containers[0].env}";
    let env = kubectl(&[
        "get",
        "--namespace",
        install::NAMESPACE,
        "deployment/spanloom-operator",
        path,
    ]);
    let env: Value = serde_json::from_str(&env).unwrap();
    let variables = env.as_array().into_iter().flatten();
    let mut image = variables
        .filter(|variable| variable["name"] == "SPANLOOM_OPERATOR_CLICKHOUSE_IMAGE")
        .filter_map(|variable| variable["value"].as_str());
    image.next().unwrap().to_owned()
}

/// Starts a server in a namespace; gives the certificate of its authority.
fn start(namespace: &Namespace) -> String {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(params, authority_key);
    let key = KeyPair::generate().unwrap();
    let host = format!("{NAME}.{}.svc", namespace.name());
    let params = CertificateParams::new([host]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let tls = json!({"tls.crt": certificate.pem(), "tls.key": key.serialize_pem()});
    secret(namespace, "tls", &tls);
    let labels = json!({"app": NAME});
    apply(&json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": namespace.name()},
        "spec": {"selector": labels, "ports": [{"port": 8443}]},
    }));
    apply(&json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": NAME, "namespace": namespace.name(), "labels": labels},
        "spec": {
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 5,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 101, "runAsGroup": 101, "fsGroup": 101,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": NAME,
                "image": image(),
                "imagePullPolicy": "IfNotPresent",
                "env": [
                    {"name": "CLICKHOUSE_USER", "value": USER},
                    {"name": "CLICKHOUSE_PASSWORD", "value": PASSWORD},
                ],
                "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "4Gi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [
                    {"name": "tls", "mountPath": "/etc/clickhouse-server/tls", "readOnly": true},
                    {"name": "data", "mountPath": "/var/lib/clickhouse"},
                    {"name": "tmp", "mountPath": "/tmp"},
                ],
            }],
            "volumes": [
                {"name": "tls", "secret": {"secretName": "tls", "defaultMode": 0o440}},
                {"name": "data", "emptyDir": {}},
                {"name": "tmp", "emptyDir": {}},
            ],
        },
    }));
    authority.pem()
}

#[test]
fn spans_go_to_a_clickhouse_of_ones_own() {
    let _installed = install::shared();
    let (owner, user) = (Namespace::new("clickhouse"), install::pipeline_namespace());
    let authority = start(&owner);
    let credentials = json!({"username": USER, "password": PASSWORD});
    secret(&user, "store", &credentials);
    secret(&user, "store-ca", &json!({"ca.crt": authority}));
    let url = format!("https://{NAME}.{}.svc:8443", owner.name());
    let external = json!({
        "url": url,
        "database": "shared",
        "credentialsSecret": {"name": "store"},
        "tls": {"caSecret": {"name": "store-ca"}},
    });
    let pipeline = Pipeline::ready(&user, &json!({"storage": {"external": external}}));

    App::python("app", "service")
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", pipeline.otlp_http())
        .place(&user);
    let answer = ask(&user, "app", "/work");
    let trace_id = answer["traceId"].as_str().unwrap();
    pipeline.await_trace(trace_id, 1);
    let headers = [
        format!("X-ClickHouse-User: {USER}"),
        format!("X-ClickHouse-Key: {PASSWORD}"),
    ];
    let sql = format!("SELECT count() FROM shared.spans WHERE trace_id = unhex('{trace_id}')");
    let count = await_some("ClickHouse's answer", LIMIT, || {
        let [name, key] = headers.each_ref().map(String::as_str);
        let options = ["--header", name, "--header", key, "--data", sql.as_str()];
        let answer = pipeline.fetch(&url, &options)?;
        want(answer.status == 200, || format!("{answer:?}"))?;
        Ok(answer.body)
    });
    assert_eq!(count.trim(), "1");
    let own = user.get(&["statefulsets,persistentvolumeclaims"]);
    assert_eq!(own["items"], json!([]), "a store of its own");
}
