//! What a real Tempo answered (`e2e/golden`), asked again.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use spanloom_e2e::workspace;

use super::support::up;

/// The traces are searchable within this time.
const STORED_WITHIN: Duration = Duration::from_secs(30);

/// A script that sends the traces and compares the answers, with these arguments: whether it succeeded, and what it
/// printed.
fn run(script: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new("python3")
        .arg(workspace().join("e2e/golden").join(script))
        .args(arguments)
        .env("NO_PROXY", "127.0.0.1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8_lossy(&output.stdout);
    (output.status.success(), format!("{printed}{error}"))
}

#[test]
fn tempos_answers_are_ours() {
    let folder = tempfile::tempdir().unwrap();
    let up = up(folder.path());
    let addresses = up.addresses();
    let (sent, base) = run(
        "check.py",
        &["push", &format!("http://{}", addresses.otlp_http)],
    );
    assert!(sent, "{base}");
    let api = format!("http://{}/tempo", addresses.http);
    let question = ["check", base.trim(), &api, "-v"];
    // What the log has is stored a moment later.
    let until = Instant::now() + STORED_WITHIN;
    let (mut agrees, mut printed) = run("check.py", &question);
    while !agrees && Instant::now() < until {
        (agrees, printed) = run("check.py", &question);
    }
    let summary = printed.lines().last().unwrap_or_default();
    println!("{summary}");
    assert!(agrees, "{printed}");
}

#[test]
fn grafanas_requests_are_answered_alike() {
    let folder = tempfile::tempdir().unwrap();
    let up = up(folder.path());
    let addresses = up.addresses();
    let otlp = format!("http://{}", addresses.otlp_http);
    let api = format!("http://{}/tempo", addresses.http);
    let (agrees, printed) = run("replay.py", &[&otlp, &api]);
    assert!(agrees, "{printed}");
}
