//! What the scenarios have in common: starting `spanloom up`, sending spans, waiting.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use spanloom_e2e::spanloom::{Addresses, Spanloom, UpOptions, binary};

/// The engine's first download is part of it.
pub const READY_LIMIT: Duration = Duration::from_secs(600);

/// `spanloom up` drains for 20 s at most.
pub const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Options with ports of the system's choice and this data folder.
pub fn options(data_dir: &Path) -> UpOptions {
    UpOptions {
        data_dir: Some(data_dir.to_owned()),
        addresses: Addresses::any(),
        arguments: Vec::new(),
        show: false,
    }
}

/// `spanloom up` on ports of the system's choice, ready.
pub fn up(data_dir: &Path) -> Spanloom {
    up_with(&options(data_dir))
}

/// `spanloom up` with these options, ready.
pub fn up_with(options: &UpOptions) -> Spanloom {
    let mut up = Spanloom::spawn(&binary().unwrap(), options).unwrap();
    up.wait_ready(Some(READY_LIMIT), || Ok(())).unwrap();
    up
}

/// `spanloom up` that must end by itself: its exit code and what it said.
pub fn up_fails(options: &UpOptions) -> (i32, String) {
    let mut up = Spanloom::spawn(&binary().unwrap(), options).unwrap();
    let status = up.wait(READY_LIMIT).unwrap();
    (status.code().expect("ended by a signal"), up.stderr())
}

/// Runs `spanloom` with these arguments to its end.
pub fn spanloom(arguments: &[&str]) -> Output {
    Command::new(binary().unwrap())
        .args(arguments)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Standard output of a `spanloom` command that must succeed.
pub fn spanloom_prints(arguments: &[&str]) -> String {
    let output = spanloom(arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "spanloom {arguments:?}: {}\n{error}",
        output.status
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Nanoseconds since 1970.
pub fn now_ns() -> u64 {
    u64::try_from(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_nanos(),
    )
    .unwrap()
}

/// A span of a trace as OTLP/JSON; ids are the numbers' hexadecimal.
pub fn json_span(trace: u128, span: u64, parent: Option<u64>, name: &str) -> Value {
    let start = now_ns();
    let mut made = json!({
        "traceId": format!("{trace:032x}"),
        "spanId": format!("{span:016x}"),
        "name": name,
        "kind": 2,
        "startTimeUnixNano": start.to_string(),
        "endTimeUnixNano": (start + 5_000_000).to_string(),
    });
    if let Some(parent) = parent {
        made["parentSpanId"] = json!(format!("{parent:016x}"));
    }
    made
}

/// Sends spans of one service as OTLP/JSON and gives the status and body of the answer.
pub fn send_json(up: &Spanloom, service: &str, spans: &[Value]) -> (u16, String) {
    let request = json!({"resourceSpans": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]},
        "scopeSpans": [{"scope": {"name": "e2e"}, "spans": spans}],
    }]});
    let (status, body) = post_traces(up, "application/json", request.to_string().as_bytes());
    (status, String::from_utf8(body).unwrap())
}

/// Sends a body over OTLP/HTTP and gives the status and body of the answer.
pub fn post_traces(up: &Spanloom, content_type: &str, body: &[u8]) -> (u16, Vec<u8>) {
    static AGENT: LazyLock<ureq::Agent> = LazyLock::new(|| {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(30)))
            .proxy(None)
            .http_status_as_error(false);
        config.build().into()
    });
    let mut response = AGENT
        .post(format!("http://{}/v1/traces", up.addresses().otlp_http))
        .content_type(content_type)
        .send(body)
        .unwrap();
    let status = response.status().as_u16();
    (status, response.body_mut().read_to_vec().unwrap())
}

/// Sends spans that must be accepted.
pub fn store_json(up: &Spanloom, service: &str, spans: &[Value]) {
    let (status, body) = send_json(up, service, spans);
    assert_eq!(status, 200, "{body}");
}
