//! The official SDKs for Python and JavaScript: every field that was sent comes back.

use std::process::{Command, Stdio};

use serde_json::Value;
use spanloom_e2e::spanloom::Spanloom;
use spanloom_e2e::{clients, expect, workspace};

use super::support::up;

/// Runs a client, reads its trace back and compares every field. `patience` is how long an export may
/// take: in seconds for Python, in milliseconds for Node.
fn sends_and_gets_back(
    up: &Spanloom,
    (command, patience): (&mut Command, &str),
    service: &str,
    literals: &[&str],
) {
    // The SDKs follow the environment's proxy, which cannot reach this machine's own addresses.
    let output = command
        .env("NO_PROXY", "127.0.0.1")
        // A busy machine may take longer than the SDKs' 10 s.
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", patience)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{error}",
        output.status
    );
    let sent: Value = serde_json::from_slice(&output.stdout).unwrap();
    let trace_id = sent["traceId"].as_str().unwrap();
    let (status, body) = up.get(&format!("/api/v1/traces/{trace_id}")).unwrap();
    assert_eq!(status, 200, "{body}");
    let trace: Value = serde_json::from_str(&body).unwrap();
    check_trace(&trace, &sent, service);
    // A client and a test that were wrong in the same way would agree; these are written out.
    for literal in literals {
        assert!(body.contains(literal), "{literal} is not in {body}");
    }
}

/// What the API says of a trace beside the fields that were sent.
pub fn check_trace(trace: &Value, sent: &Value, service: &str) {
    let came = trace["spans"].as_array().unwrap();
    let differences = expect::differences(sent["spans"].as_array().unwrap(), came);
    assert!(differences.is_empty(), "{}", differences.join("\n"));

    assert_eq!(trace["traceId"], sent["traceId"]);
    assert_eq!(trace["spanCount"], came.len());
    assert_eq!(trace["errorCount"], 1);
    assert_eq!(trace["truncated"], false);
    assert_eq!(trace["services"], serde_json::json!([service]));
    // Its parent is in another process that sends nothing here: a root, marked as an orphan.
    assert_eq!(came[0]["name"], "GET /orders/{id}");
    assert_eq!(
        (&came[0]["depth"], &came[0]["orphan"]),
        (&0.into(), &true.into())
    );
    for child in &came[1..] {
        assert_eq!(
            (&child["depth"], &child["orphan"]),
            (&1.into(), &false.into()),
            "{child}"
        );
        assert_eq!(child["service"], service);
    }
}

/// Integers that a double cannot hold, text that is not ASCII, and an exception.
const LITERALS: &[&str] = &[
    "größe 名前 🧵",
    "it broke: größer",
    "wrong valüe",
    "exception.stacktrace",
];

const PYTHON_LITERALS: &[&str] = &[
    r#"{"key":"int.beyond_double","type":"int","value":"9007199254740993"}"#,
    r#"{"key":"int.min","type":"int","value":"-9223372036854775808"}"#,
    r#"{"key":"bytes","type":"bytes","value":"AAH+/w=="}"#,
    r#"{"key":"double.nan","type":"double","value":"NaN"}"#,
    r#"{"key":"string.empty","type":"string","value":""}"#,
    r#"{"key":"empty","type":"empty","value":null}"#,
    r#""schemaUrl":"https://example.com/resource/1""#,
    r#""schemaUrl":"https://example.com/scope/1""#,
    r#""traceState":"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE""#,
];

const JAVASCRIPT_LITERALS: &[&str] = &[
    r#"{"key":"int.max_safe","type":"int","value":"9007199254740991"}"#,
    r#"{"key":"http.response.status_code","type":"int","value":"404"}"#,
    r#"{"key":"array.empty","type":"array","value":[]}"#,
    r#""schemaUrl":"https://example.com/scope/2""#,
];

#[test]
fn python_grpc_and_http() {
    let client = workspace().join("e2e/clients/python");
    let python = clients::python(&client.join("requirements.txt")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let up = up(folder.path());
    let addresses = up.addresses();
    let literals = [LITERALS, PYTHON_LITERALS].concat();
    for (protocol, address) in [("grpc", addresses.otlp_grpc), ("http", addresses.otlp_http)] {
        let mut command = Command::new(&python);
        command
            .arg(client.join("client.py"))
            .args([protocol, &format!("http://{address}")]);
        sends_and_gets_back(&up, (&mut command, "120"), "e2e-python-größe", &literals);
    }
}

#[test]
fn javascript_json_and_protobuf() {
    let client = workspace().join("e2e/clients/javascript");
    let modules = clients::node_modules(&client).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let up = up(folder.path());
    let endpoint = format!("http://{}", up.addresses().otlp_http);
    let literals = [LITERALS, JAVASCRIPT_LITERALS].concat();
    for protocol in ["json", "proto"] {
        let mut command = Command::new("node");
        command
            .arg(client.join("client.cjs"))
            .args([protocol, &endpoint]);
        command.env("NODE_PATH", &modules);
        sends_and_gets_back(
            &up,
            (&mut command, "120000"),
            "e2e-javascript-größe",
            &literals,
        );
    }
}
