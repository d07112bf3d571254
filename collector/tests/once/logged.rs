//! The program itself with a log: it is killed again and again, and each request that it answered with
//! success is stored once.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::*;

const PROGRAM: &str = env!("CARGO_BIN_EXE_spanloom-collector");

/// The program. It is killed when dropped.
struct Program {
    child: Child,
    http: SocketAddr,
    /// What it says after it has started.
    rest: Option<std::thread::JoinHandle<()>>,
}

impl Program {
    fn start(ground: &Ground, folder: &Path) -> Self {
        let any = "127.0.0.1:0";
        let mut child = Command::new(PROGRAM)
            .env("SPANLOOM_CLICKHOUSE_PASSWORD", &ground.store.password)
            .args([
                "run",
                "--otlp-grpc",
                any,
                "--otlp-http",
                any,
                "--metrics",
                any,
            ])
            .args(["--clickhouse-url", &ground.store.url])
            .args(["--clickhouse-user", &ground.store.user])
            .args(["--clickhouse-database", &ground.store.database])
            .arg("--log-folder")
            .arg(folder)
            .args(["--log-bytes", "67108864"])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines.find_map(|line| {
            let line: serde_json::Value = serde_json::from_str(&line.ok()?).ok()?;
            line["otlp_http"].as_str()?.parse().ok()
        });
        let rest = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                eprintln!("{line}");
            }
        });
        Self {
            http: address.expect("it says where it listens"),
            child,
            rest: Some(rest),
        }
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status();
        assert!(status.unwrap().success());
    }

    /// Waits for its end.
    fn ended(&mut self) -> std::process::ExitStatus {
        let status = self.child.wait().unwrap();
        if let Some(rest) = self.rest.take() {
            rest.join().unwrap();
        }
        status
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        self.ended();
    }
}

/// Sends a request once; says whether it was answered with success.
async fn try_post(address: SocketAddr, body: &[u8]) -> bool {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::post(format!("http://{address}/v1/traces"))
        .header("content-type", PROTOBUF)
        .body(Full::new(Bytes::from(body.to_vec())))
        .unwrap();
    match client.request(request).await {
        Ok(response) => response.status() == StatusCode::OK,
        Err(_) => false,
    }
}

/// How often it is killed. `cargo xtask faults` has more.
const KILLS: u64 = 8;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_is_stored_once_however_often_the_collector_is_killed() {
    let ground = Ground::with("").await;
    let folder = tempfile::tempdir().unwrap();
    let next = Arc::new(AtomicU64::new(1));
    for round in 0..KILLS {
        // In one round of two the store is away for a while.
        let mood = match round % 2 {
            0 => Mood::Honest,
            _ => Mood::Away,
        };
        ground.proxy.set(mood).await;
        let mut program = Program::start(&ground, folder.path());
        let answered = Arc::new(AtomicU64::new(0));
        let mut senders = tokio::task::JoinSet::new();
        let left: Arc<std::sync::Mutex<Vec<Vec<u8>>>> = Arc::default();
        for _ in 0..4 {
            let (next, answered, left) = (next.clone(), answered.clone(), left.clone());
            let http = program.http;
            senders.spawn(async move {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let body = request(seed << 40, 0);
                    if !try_post(http, &body).await {
                        left.lock().unwrap().push(body);
                        return;
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // Killed at another moment each time: after so many answers.
        let enough = 20 + 7 * round;
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while answered.load(Ordering::Relaxed) < enough {
            assert!(tokio::time::Instant::now() < deadline, "no answers");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        program.signal("-KILL");
        program.ended();
        while let Some(ended) = senders.join_next().await {
            ended.unwrap();
        }
        ground.proxy.set(Mood::Honest).await;
        // What was not answered is sent again, to the next one, as SDKs do.
        let mut program = Program::start(&ground, folder.path());
        let left = std::mem::take(&mut *left.lock().unwrap());
        for body in left {
            while !try_post(program.http, &body).await {
                assert!(tokio::time::Instant::now() < deadline, "no answer");
            }
        }
        program.signal("-KILL");
        program.ended();
    }
    let mut program = Program::start(&ground, folder.path());
    program.signal("-TERM");
    assert!(program.ended().success(), "not all was stored");
    let requests = next.load(Ordering::Relaxed) - 1;
    assert!(requests > 20 * KILLS, "{requests}");
    check_stored_once(&ground.direct, requests * SPANS).await;
}
