//! ClickHouse's own clients, unmodified, against the front: clickhouse-connect (Python),
//! @clickhouse/client (Node.js), and the OpenTelemetry Collector's exporter (clickhouse-go).
//!
//! The clients are installed once, in pinned versions, in the user's cache folder.
#![allow(clippy::unwrap_used)] // in the tests' helpers too

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use spanloom_engine::testing::{TestEngine, otelcol, test_clients_dir};

const CLICKHOUSE_CONNECT: &str = "clickhouse-connect==1.12.0";
const CLICKHOUSE_CLIENT: &str = "@clickhouse/client@1.23.1";

/// Runs a program to its end; its output is part of the panic if it fails.
fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A folder for an installed client, made by `install` unless it was before.
fn installed(spec: &str, install: impl FnOnce(&Path)) -> PathBuf {
    let name: String = spec
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect();
    let folder = test_clients_dir().join(name.trim_matches('-'));
    std::fs::create_dir_all(&folder).unwrap();
    let lock = folder.join("lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(lock)
        .unwrap();
    lock.lock().unwrap();
    let done = folder.join("installed");
    if !done.exists() {
        install(&folder);
        std::fs::write(done, "").unwrap();
    }
    folder
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(name)
}

#[tokio::test]
async fn clickhouse_connect() {
    let engine = TestEngine::start().await;
    let folder = installed(CLICKHOUSE_CONNECT, |folder| {
        run(Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(folder.join("venv")));
        let pip = folder.join("venv/bin/pip");
        run(Command::new(pip).args(["install", "--quiet", CLICKHOUSE_CONNECT]));
    });
    let url = engine.url();
    let (host, port) = url.trim_start_matches("http://").split_once(':').unwrap();
    run(Command::new(folder.join("venv/bin/python"))
        .arg(script("clickhouse_connect_check.py"))
        .args([host, port, engine.user(), engine.password(), "from_python"]));
}

#[tokio::test]
async fn clickhouse_client() {
    let engine = TestEngine::start().await;
    let folder = installed(CLICKHOUSE_CLIENT, |folder| {
        std::fs::write(folder.join("package.json"), "{\"private\": true}").unwrap();
        run(Command::new("npm")
            .args([
                "install",
                "--no-audit",
                "--no-fund",
                "--no-save",
                CLICKHOUSE_CLIENT,
            ])
            .current_dir(folder));
    });
    // Beside its modules: Node.js looks for them from where the script is.
    let name = "clickhouse_client_check.mjs";
    let copy = folder.join(format!("{}-{name}", std::process::id()));
    std::fs::copy(script(name), &copy).unwrap();
    run(Command::new("node").arg(&copy).args([
        &engine.url(),
        engine.user(),
        engine.password(),
        "from_javascript",
    ]));
    std::fs::remove_file(copy).unwrap();
}

/// The Collector, ended with the test.
struct Collector(Child);

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const SPANS: &str = r#"{"resourceSpans": [{
    "resource": {"attributes": [
        {"key": "service.name", "value": {"stringValue": "shop"}},
        {"key": "answer", "value": {"intValue": "42"}}
    ]},
    "scopeSpans": [{"scope": {"name": "lib", "version": "1"}, "spans": [{
        "traceId": "0123456789abcdef0123456789abcdef", "spanId": "0123456789abcdef",
        "name": "GET /cart", "kind": 2,
        "startTimeUnixNano": "1770000000000000001", "endTimeUnixNano": "1770000000500000001",
        "attributes": [{"key": "http.route", "value": {"stringValue": "/cart"}}],
        "events": [{"timeUnixNano": "1770000000100000000", "name": "event",
            "attributes": [{"key": "n", "value": {"intValue": "1"}}]}],
        "links": [{"traceId": "ffffffffffffffffffffffffffffffff", "spanId": "ffffffffffffffff"}],
        "status": {"code": 2, "message": "failed"}
    }]}]
}]}"#;

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Starts the Collector with its exporter pointing at the engine; gives where it takes OTLP/HTTP.
fn collector(engine: &TestEngine, compress: &str, folder: &Path) -> (Collector, String) {
    let otlp = format!("127.0.0.1:{}", free_port());
    let config = serde_json::json!({
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": otlp}}}},
        "exporters": {"clickhouse": {
            "endpoint": engine.url(), "username": engine.user(), "password": engine.password(),
            "database": format!("from_collector_{compress}"), "create_schema": true,
            "compress": compress, "async_insert": true,
        }},
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["clickhouse"]}},
        },
    });
    // JSON is YAML.
    let path = folder.join(format!("{compress}.yaml"));
    std::fs::write(&path, config.to_string()).unwrap();
    let log = std::fs::File::create(folder.join(format!("{compress}.log"))).unwrap();
    let child = Command::new(otelcol())
        .arg("--config")
        .arg(path)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    (Collector(child), format!("http://{otlp}/v1/traces"))
}

async fn exported(engine: &TestEngine, compress: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (mut collector, url) = collector(engine, compress, folder.path());
    let log = || {
        std::fs::read_to_string(folder.path().join(format!("{compress}.log"))).unwrap_or_default()
    };
    let http = Client::builder(TokioExecutor::new()).build_http();
    let since = Instant::now();
    let waiting = |collector: &mut Collector| {
        assert!(
            collector.0.try_wait().unwrap().is_none(),
            "it ended: {}",
            log()
        );
        assert!(since.elapsed() < Duration::from_secs(60), "{}", log());
    };
    loop {
        let request = Request::post(&url).header("content-type", "application/json");
        let request = request
            .body(Full::new(Bytes::from_static(SPANS.as_bytes())))
            .unwrap();
        if http
            .request(request)
            .await
            .is_ok_and(|response| response.status() == 200)
        {
            break;
        }
        waiting(&mut collector);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let client = clickhouse::Client::default()
        .with_url(engine.url())
        .with_user(engine.user())
        .with_password(engine.password())
        .with_database(format!("from_collector_{compress}"));
    let row = loop {
        let row = client
            .query(
                "SELECT toString((TraceId, SpanName, ServiceName, Duration, \
                 SpanAttributes['http.route'], ResourceAttributes['answer'], Events.Name, \
                 Links.SpanId, StatusMessage)) FROM otel_traces",
            )
            .fetch_optional::<String>()
            .await;
        if let Ok(Some(row)) = row {
            break row;
        }
        waiting(&mut collector);
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(
        row,
        "('0123456789abcdef0123456789abcdef','GET /cart','shop',500000000,'/cart','42',\
         ['event'],['ffffffffffffffff'],'failed')"
    );
    // The view's table is filled a moment after the table itself.
    let ids = "SELECT count() FROM otel_traces_trace_id_ts";
    while client.query(ids).fetch_one::<u64>().await.unwrap() != 1 {
        waiting(&mut collector);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn collectors_exporter() {
    let engine = TestEngine::start().await;
    for compress in ["lz4", "none", "gzip"] {
        exported(&engine, compress).await;
    }
}
