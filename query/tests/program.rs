//! The program as Kubernetes runs it: told by environment variables, ended by SIGTERM.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests, too

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longer than a loaded machine takes for anything here.
const PATIENCE: Duration = Duration::from_secs(120);

struct Program {
    child: Child,
    api: SocketAddr,
    admin: SocketAddr,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts it and waits until it says where it listens.
fn start(variables: &[(&str, &str)]) -> Program {
    let mut child = Command::new(env!("CARGO_BIN_EXE_spanloom-query"))
        .env_clear()
        .env("SPANLOOM_QUERY_LISTEN", "127.0.0.1:0")
        .env("SPANLOOM_QUERY_ADMIN_LISTEN", "127.0.0.1:0")
        .env("SPANLOOM_CLICKHOUSE_URL", "http://127.0.0.1:1")
        .env("SPANLOOM_CLICKHOUSE_USER", "u")
        .env("SPANLOOM_CLICKHOUSE_PASSWORD", "p")
        .env("SPANLOOM_CLICKHOUSE_DATABASE", "d")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let logs = BufReader::new(child.stderr.take().unwrap()).lines();
    let (says, heard) = mpsc::channel();
    // To the end: what it says after that must not fill the pipe.
    std::thread::spawn(move || {
        for line in logs.map_while(Result::ok) {
            let fields: Value = serde_json::from_str(&line).unwrap_or(Value::Null);
            if fields["message"] == "serving" {
                let _ = says.send(fields);
            }
        }
    });
    let serving = heard.recv_timeout(PATIENCE);
    let serving = serving.expect("it did not say that it serves");
    let address = |name: &str| {
        let said = serving[name].as_str().unwrap();
        let said = said.trim_start_matches("Some(").trim_end_matches(')');
        said.parse().unwrap()
    };
    Program {
        api: address("address"),
        admin: address("admin"),
        child,
    }
}

/// Status and body; none when there is no connection to be had.
fn get(address: SocketAddr, path: &str, token: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

fn terminate(program: &Program) {
    // The shell's own `kill`: not every machine has the program.
    let status = Command::new("sh")
        .args(["-c", &format!("kill -s TERM {}", program.child.id())])
        .status()
        .unwrap();
    assert!(status.success());
}

fn awaits(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn variables_are_read_and_sigterm_drains() {
    let tokens = tempfile::tempdir().unwrap();
    std::fs::write(tokens.path().join("people"), "first\n").unwrap();
    let mut program = start(&[
        ("SPANLOOM_QUERY_TOKENS_DIR", tokens.path().to_str().unwrap()),
        // Until the second signal.
        ("SPANLOOM_QUERY_DRAIN_DELAY_SECONDS", "600"),
    ]);
    let page = |program: &Program, token| get(program.api, "/ui/", token).map(|(status, _)| status);
    assert_eq!(page(&program, "first"), Some(200));
    assert_eq!(page(&program, "other"), Some(401));
    assert_eq!(
        get(program.admin, "/healthz", ""),
        Some((200, "ok\n".to_owned()))
    );
    let ready = |program: &Program| get(program.admin, "/readyz", "").unwrap();
    let (status, reason) = ready(&program);
    assert!(status == 503 && reason.contains("ClickHouse"), "{reason}");

    terminate(&program);
    awaits("it does not say that it ends", || {
        ready(&program).1.contains("shutting down")
    });
    // Those who have not heard of it are answered.
    assert_eq!(page(&program, "first"), Some(200));
    assert_eq!(
        get(program.admin, "/healthz", ""),
        Some((200, "ok\n".to_owned()))
    );

    terminate(&program);
    let mut ended = None;
    awaits("it does not end", || {
        ended = program.child.try_wait().unwrap();
        ended.is_some()
    });
    assert!(ended.unwrap().success(), "{ended:?}");
    assert_eq!(page(&program, "first"), None);
}

#[test]
fn what_it_cannot_use_is_named_and_it_ends() {
    for (variable, value, says) in [
        ("SPANLOOM_QUERY_TLS_DIR", "/nowhere", "/nowhere/tls.crt"),
        ("SPANLOOM_QUERY_LISTEN", "here", "here"),
        (
            "SPANLOOM_QUERY_DRAIN_DELAY_SECONDS",
            "-1",
            "drain-delay-seconds",
        ),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_spanloom-query"))
            .env_clear()
            .env("SPANLOOM_QUERY_LISTEN", "127.0.0.1:0")
            .env(variable, value)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(says), "{said}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_spanloom-query"))
        .env_clear()
        .env("SPANLOOM_QUERY_LISTEN", "127.0.0.1:0")
        .env("SPANLOOM_CLICKHOUSE_URL", "https://127.0.0.1:1")
        .env("SPANLOOM_CLICKHOUSE_CA_FILE", "/nowhere/ca.crt")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("/nowhere/ca.crt"),
        "{said}"
    );
}
