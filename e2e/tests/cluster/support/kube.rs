//! kubectl and helm as child processes, and a `kubectl proxy` for what is read again and again: a process
//! for each look would cost more than what is looked at.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

fn program(variable: &str, name: &str) -> OsString {
    std::env::var_os(variable).unwrap_or_else(|| name.into())
}

/// A proxy cannot reach addresses of this machine.
fn without_proxies(command: &mut Command) {
    for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
        command.env_remove(name);
    }
}

fn quiet(mut command: Command, input: Option<&str>) -> Output {
    without_proxies(&mut command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    // A program that ends early does not read it; its status tells.
    let _ = stdin.write_all(input.unwrap_or_default().as_bytes());
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn said(output: Output, words: &[&str]) -> Result<String, String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!(
        "`{}` ended with {}: {}{}",
        words.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim(),
        String::from_utf8_lossy(&output.stdout).trim(),
    ))
}

/// Runs kubectl; what it printed, or why it failed.
pub fn try_kubectl(arguments: &[&str], input: Option<&str>) -> Result<String, String> {
    let mut command = Command::new(program("SPANLOOM_KUBECTL", "kubectl"));
    command.args(arguments);
    said(quiet(command, input), arguments)
}

/// Runs kubectl, which must succeed.
pub fn kubectl(arguments: &[&str]) -> String {
    try_kubectl(arguments, None).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs helm; what it printed, or why it failed.
pub fn try_helm(arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program("SPANLOOM_HELM", "helm"));
    command.args(arguments);
    said(quiet(command, None), arguments)
}

/// Runs helm, which must succeed.
pub fn helm(arguments: &[&str]) -> String {
    try_helm(arguments).unwrap_or_else(|error| panic!("{error}"))
}

/// Applies documents as a person does.
pub fn apply(document: &Value) -> String {
    try_apply(document).unwrap_or_else(|error| panic!("{error}\n{document:#}"))
}

/// Applies documents; what the API server says.
pub fn try_apply(document: &Value) -> Result<String, String> {
    try_kubectl(&["apply", "--filename", "-"], Some(&document.to_string()))
}

/// An object of a kind in a namespace, as JSON.
pub fn try_get(namespace: &str, arguments: &[&str]) -> Result<Value, String> {
    let mut all = vec!["--namespace", namespace, "get", "--output", "json"];
    all.extend(arguments);
    let text = try_kubectl(&all, None)?;
    serde_json::from_str(&text).map_err(|error| format!("{error} in {text}"))
}

/// The API server behind a `kubectl proxy`.
struct Proxy {
    /// `http://127.0.0.1:<port>`
    url: String,
    agent: ureq::Agent,
    /// Its standard input closes when the test program ends; then it stops the proxy.
    _shell: Child,
}

fn proxy() -> &'static Proxy {
    static PROXY: OnceLock<Proxy> = OnceLock::new();
    PROXY.get_or_init(|| {
        let mut command = Command::new("sh");
        command
            .args(["-c", "\"$0\" proxy --port=0 & read -r _; kill \"$!\"; wait"])
            .arg(program("SPANLOOM_KUBECTL", "kubectl"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        without_proxies(&mut command);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        // "Starting to serve on 127.0.0.1:40123"
        let address = line.rsplit(' ').next().unwrap_or_default().trim();
        assert!(address.contains(':'), "`kubectl proxy` printed {line:?}");
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .proxy(None);
        Proxy {
            url: format!("http://{address}"),
            agent: config.build().into(),
            _shell: child,
        }
    })
}

/// Reads a path of the API, such as a pod's or a Service's through the API server's proxy.
pub fn try_raw(path: &str) -> Result<String, String> {
    let proxy = proxy();
    let failed = |error: ureq::Error| format!("GET {path}: {error}");
    let mut response = proxy
        .agent
        .get(format!("{}{path}", proxy.url))
        .call()
        .map_err(failed)?;
    let text = response.body_mut().read_to_string().map_err(failed)?;
    let status = response.status();
    if status.is_success() {
        Ok(text)
    } else {
        Err(format!("GET {path}: {status}: {text}"))
    }
}

/// As [`try_raw`], for a JSON document.
pub fn try_raw_json(path: &str) -> Result<Value, String> {
    let text = try_raw(path)?;
    serde_json::from_str(&text).map_err(|error| format!("{error} in {text}"))
}
