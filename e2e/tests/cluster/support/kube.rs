//! kubectl and helm as child processes.

use std::ffi::OsString;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn program(variable: &str, name: &str) -> OsString {
    std::env::var_os(variable).unwrap_or_else(|| name.into())
}

fn quiet(mut command: Command, input: Option<&str>) -> Output {
    // A proxy cannot reach addresses of this machine.
    for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
        command.env_remove(name);
    }
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

/// Reads a path of the API, such as a pod's or a Service's through the API server's proxy.
pub fn try_raw(path: &str) -> Result<String, String> {
    try_kubectl(&["get", "--raw", path], None)
}

/// As [`try_raw`], for a JSON document.
pub fn try_raw_json(path: &str) -> Result<Value, String> {
    let text = try_raw(path)?;
    serde_json::from_str(&text).map_err(|error| format!("{error} in {text}"))
}
