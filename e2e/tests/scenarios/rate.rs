//! SDKs as they come, at rates that real services have: a batch processor sends one export at a time and drops what
//! it has no room for, so a slow answer loses spans in the client, unnoticed.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use spanloom_e2e::spanloom::{Spanloom, await_condition};
use spanloom_e2e::{clients, workspace};

use super::support::{spanloom_prints, up};

const SECONDS: &str = "5";
/// Accounts are written some seconds after the spans.
const LIMIT: Duration = Duration::from_secs(30);

/// What a client prints; it must succeed.
fn run(command: &mut Command) -> String {
    // The SDKs follow the environment's proxy, which cannot reach this machine's own addresses.
    let output = command
        .env("NO_PROXY", "127.0.0.1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{error}");
    format!("{}{error}", String::from_utf8_lossy(&output.stdout))
}

/// Spans that are stored, by the accounts.
fn stored(up: &Spanloom) -> u64 {
    let text = spanloom_prints(&["accounts", "-o", "json", "--url", &up.url()]);
    let accounts: Value = serde_json::from_str(&text).unwrap();
    let all = accounts["accounts"].as_array().unwrap();
    let stored = all
        .iter()
        .filter(|row| row["stage"] == "store" && row["reason"] == "stored");
    stored.map(|row| row["spans"].as_u64().unwrap()).sum()
}

/// How often a client may try. On a machine that others keep busy it drops spans whatever it is answered; where
/// answers are slow it drops a third of them each time.
const TRIES: usize = 3;

/// A client whose spans are all stored: how many it has finished is what `send` says.
fn loses_nothing(up: &Spanloom, client: &str, send: impl Fn() -> u64) {
    for _ in 0..TRIES {
        let before = stored(up);
        let sent = send();
        let all = await_condition(client, LIMIT, || stored(up) == before + sent);
        if all.is_ok() {
            return;
        }
        eprintln!("{client}: {} of {sent} are stored", stored(up) - before);
    }
    panic!("{client} loses spans");
}

#[test]
fn sdks_with_their_defaults_lose_nothing() {
    let client = workspace().join("e2e/clients/python");
    let python = clients::python(&client.join("requirements.txt")).unwrap();
    let telemetrygen = clients::go_program(&workspace().join("e2e/clients/telemetrygen")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let up = up(folder.path());
    let addresses = up.addresses();
    let (grpc, http) = (addresses.otlp_grpc, addresses.otlp_http);
    for (protocol, address) in [("grpc", grpc), ("http", http)] {
        loses_nothing(&up, &format!("the SDK for Python over {protocol}"), || {
            let endpoint = format!("http://{address}");
            let printed = run(Command::new(&python).arg(client.join("rate.py")).args([
                protocol,
                &endpoint,
                "rate-python",
                "4000",
                SECONDS,
            ]));
            let spans = printed.lines().next().unwrap().parse().unwrap();
            assert!(spans > 10_000, "{printed}");
            spans
        });
    }
    for (over, address) in [("--otlp-http=false", grpc), ("--otlp-http", http)] {
        loses_nothing(&up, &format!("telemetrygen {over}"), || {
            let printed = run(Command::new(&telemetrygen)
                .args(["--otlp-insecure", "--rate", "1000", "--workers", "2", over])
                .args(["--duration", &format!("{SECONDS}s"), "--otlp-endpoint"])
                .arg(address.to_string()));
            // Each worker says how many traces of two spans it has made.
            let traces = printed
                .lines()
                .filter(|line| line.contains("traces generated"))
                .filter_map(|line| line.split("\"traces\": ").nth(1))
                .map(|rest| rest.trim_end_matches('}').parse::<u64>().unwrap());
            let spans = 2 * traces.sum::<u64>();
            assert!(spans > 5_000, "{printed}");
            spans
        });
    }
}
