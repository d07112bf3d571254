//! `cargo xtask up`: Spanloom on this machine, with a first trace in it.
//!
//! Builds the program, runs `spanloom up` as a child, sends one trace through the OpenTelemetry SDK
//! for Python and says where to look. With `--check` it does the same beside whatever else runs
//! here, reads the trace back and stops.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use spanloom_e2e::clients;
use spanloom_e2e::spanloom::{self, Addresses, Spanloom, UpOptions, children_of, is_alive};

/// How long Ctrl-C may take: `spanloom up` drains for 20 s at most.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// How long `--check` waits for everything to be up, the engine's download included.
const CHECK_READY_LIMIT: Duration = Duration::from_secs(900);

/// The flags of `cargo xtask up`; those of `spanloom up` go through to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Use free ports and an empty data directory, read the demo trace back, print `ok` and stop
    #[arg(long)]
    check: bool,
    /// With --check: take a picture of the demo trace in the web UI
    #[arg(long, value_name = "FILE", requires = "check")]
    screenshot: Option<PathBuf>,
    /// A file with a TracingPipeline
    #[arg(short = 'f', long = "file", value_name = "pipeline.yaml")]
    file: Option<PathBuf>,
    /// The data directory
    #[arg(long, value_name = "DIR", conflicts_with = "check")]
    data_dir: Option<PathBuf>,
    /// The address to receive OTLP over gRPC on [default: 127.0.0.1:4317]
    #[arg(long, value_name = "ADDR", conflicts_with = "check")]
    otlp_grpc: Option<SocketAddr>,
    /// The address to receive OTLP over HTTP on [default: 127.0.0.1:4318]
    #[arg(long, value_name = "ADDR", conflicts_with = "check")]
    otlp_http: Option<SocketAddr>,
    /// The address to serve the API and the web UI on [default: 127.0.0.1:3200]
    #[arg(long, value_name = "ADDR", conflicts_with = "check")]
    http: Option<SocketAddr>,
    /// Further arguments for `spanloom up`, after `--`
    #[arg(last = true, value_name = "ARGUMENTS")]
    rest: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// When a step fails, or `spanloom up` ends abnormally.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let signals = watch_signals()?;
    let binary = match std::env::var_os("SPANLOOM_BIN") {
        Some(_) => spanloom::binary()?,
        None => {
            eprintln!("building spanloom …");
            spanloom::build("fast")?
        }
    };
    eprintln!("installing the OpenTelemetry SDK for the demo trace …");
    let demo = spanloom_e2e::workspace().join("xtask/demo");
    let python = clients::python(&demo.join("requirements.txt"))?;

    let scratch = Scratch::new(args.check)?;
    let options = up_options(args, &scratch)?;
    refuse_busy_ports(&options.addresses)?;
    let mut up = Spanloom::spawn(&binary, &options)?;
    let ready_limit = args.check.then_some(CHECK_READY_LIMIT);
    let stopped = |signals: &Receiver<i32>| match signals.try_recv() {
        Ok(_) => bail!("stopped before spanloom was ready"),
        Err(_) => Ok(()),
    };
    if let Err(error) = up.wait_ready(ready_limit, || stopped(&signals)) {
        // Whatever the reason, leave nothing behind.
        up.signal(libc::SIGTERM);
        let _ = up.wait(STOP_LIMIT);
        return Err(error);
    }
    let sent = send_demo(&python, &demo.join("demo.py"), up.addresses().otlp_http)?;
    if args.check {
        check(up, &binary, &sent, args.screenshot.as_deref())
    } else {
        print_closing_lines(&up, &binary, &sent);
        run_until_stopped(up, &signals)
    }
}

fn up_options(args: &Args, scratch: &Scratch) -> anyhow::Result<UpOptions> {
    let defaults = if args.check {
        Addresses::any()
    } else {
        Addresses::defaults()
    };
    let mut arguments = args.rest.clone();
    if let Some(file) = &args.file {
        arguments.extend(["--file".to_owned(), file.display().to_string()]);
    }
    Ok(UpOptions {
        data_dir: scratch.path.clone().or_else(|| args.data_dir.clone()),
        addresses: Addresses {
            otlp_grpc: args.otlp_grpc.unwrap_or(defaults.otlp_grpc),
            otlp_http: args.otlp_http.unwrap_or(defaults.otlp_http),
            http: args.http.unwrap_or(defaults.http),
        },
        arguments,
        show: true,
    })
}

/// Another program on a port would answer for the one that is being started.
fn refuse_busy_ports(addresses: &Addresses) -> anyhow::Result<()> {
    for address in [addresses.otlp_grpc, addresses.otlp_http, addresses.http] {
        TcpListener::bind(address).with_context(|| {
            format!("cannot listen on {address}; is another Spanloom (or collector) running?")
        })?;
    }
    Ok(())
}

/// What the demo script says that it sent.
struct Sent {
    trace_id: String,
    spans: Vec<String>,
}

fn send_demo(python: &Path, script: &Path, otlp_http: SocketAddr) -> anyhow::Result<Sent> {
    let output = Command::new(python)
        .arg(script)
        .arg(format!("http://{otlp_http}"))
        // The SDK follows the environment's proxy, which cannot reach this machine's own addresses.
        .env("NO_PROXY", otlp_http.ip().to_string())
        // A machine that has just built all this may be busy for longer than the SDK's 10 s.
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run the demo")?;
    ensure!(
        output.status.success(),
        "the demo ended with {}",
        output.status
    );
    let said: Value = serde_json::from_slice(&output.stdout).context("the demo printed no JSON")?;
    let trace_id = said["traceId"]
        .as_str()
        .context("the demo named no trace")?
        .to_owned();
    let spans = said["spans"]
        .as_array()
        .context("the demo named no spans")?;
    let spans = spans
        .iter()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    Ok(Sent { trace_id, spans })
}

/// Reads the demo trace back, then stops everything and looks that nothing is left.
fn check(
    up: Spanloom,
    binary: &Path,
    sent: &Sent,
    screenshot: Option<&Path>,
) -> anyhow::Result<()> {
    let trace = up.get_json(&format!("/api/v1/traces/{}", sent.trace_id))?;
    let spans = trace["spans"]
        .as_array()
        .context("the trace that came back has no spans")?;
    let mut came: Vec<&str> = spans
        .iter()
        .filter_map(|span| span["name"].as_str())
        .collect();
    let mut expected: Vec<&str> = sent.spans.iter().map(String::as_str).collect();
    came.sort_unstable();
    expected.sort_unstable();
    ensure!(
        came == expected,
        "sent the spans {expected:?}, but {came:?} came back"
    );

    let shown = Command::new(binary)
        .args(["trace", &sent.trace_id, "--url", &up.url()])
        .stdin(Stdio::null())
        .output()
        .context("cannot run spanloom trace")?;
    let text = String::from_utf8_lossy(&shown.stdout);
    ensure!(
        shown.status.success() && expected.iter().all(|name| text.contains(name)),
        "spanloom trace did not show the trace ({}):\n{text}{}",
        shown.status,
        String::from_utf8_lossy(&shown.stderr)
    );

    if let Some(file) = screenshot {
        take_screenshot(&up, sent, file)?;
    }

    let pid = up.pid();
    let children = children_of(pid);
    let (status, said) = up.interrupt(STOP_LIMIT)?;
    ensure!(
        status.success(),
        "spanloom up ended with {status} after Ctrl-C:\n{said}"
    );
    let left: Vec<_> = children
        .into_iter()
        .filter(|(pid, _)| is_alive(*pid))
        .collect();
    ensure!(
        left.is_empty(),
        "spanloom up left processes running: {left:?}"
    );
    println!("ok");
    Ok(())
}

/// The demo trace in the web UI, as a picture.
fn take_screenshot(up: &Spanloom, sent: &Sent, file: &Path) -> anyhow::Result<()> {
    eprintln!("installing a browser for the screenshot …");
    let folder = spanloom_e2e::workspace().join("xtask/screenshot");
    let modules = clients::node_modules(&folder)?;
    let url = format!("{}/ui/#/trace/{}", up.url(), sent.trace_id);
    let status = Command::new("node")
        .arg(folder.join("shot.mjs"))
        .arg(&modules)
        .arg(&url)
        .arg(file)
        .stdin(Stdio::null())
        .status()
        .context("cannot run node")?;
    ensure!(
        status.success(),
        "the browser ended with {status}; SPANLOOM_CHROME can name another one"
    );
    println!("{}", file.display());
    Ok(())
}

fn print_closing_lines(up: &Spanloom, binary: &Path, sent: &Sent) {
    let Addresses {
        otlp_grpc,
        otlp_http,
        http,
    } = up.addresses();
    // The path as a person in the workspace would type it.
    let program = binary
        .strip_prefix(spanloom_e2e::workspace())
        .unwrap_or(binary)
        .display();
    let url_flag = match Addresses::defaults().http == http {
        true => String::new(),
        false => format!(" --url http://{http}"),
    };
    println!();
    println!("  OTLP gRPC    http://{otlp_grpc}");
    println!("  OTLP HTTP    http://{otlp_http}");
    println!("  query        http://{http}/api/v1");
    println!("  UI           http://{http}/ui/");
    println!(
        "  demo trace   {}  ({} spans)",
        sent.trace_id,
        sent.spans.len()
    );
    println!("  show it      {program} trace {}{url_flag}", sent.trace_id);
    println!();
    println!("Press Ctrl-C to drain and stop; stored traces are kept.");
}

/// Passes signals on until the child has ended.
fn run_until_stopped(mut up: Spanloom, signals: &Receiver<i32>) -> anyhow::Result<()> {
    loop {
        match signals.recv_timeout(Duration::from_millis(200)) {
            Ok(signal) => up.signal(signal),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => bail!("the signal watcher ended"),
        }
        if let Some(status) = up.try_wait()? {
            ensure!(status.success(), "spanloom up ended with {status}");
            return Ok(());
        }
    }
}

/// SIGINT, SIGTERM and SIGHUP as messages, so that the child can be stopped before this program.
fn watch_signals() -> anyhow::Result<Receiver<i32>> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (sender, receiver) = channel();
    let watched = {
        // Registered here, not in the thread: from now on no signal ends this program.
        let _entered = runtime.enter();
        [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ]
        .map(|kind| signal(kind).map(|signal| (kind.as_raw_value(), signal)))
    };
    let [interrupt, terminate, hangup] = watched;
    let (mut interrupt, mut terminate, mut hangup) = (interrupt?, terminate?, hangup?);
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                let number = tokio::select! {
                    _ = interrupt.1.recv() => interrupt.0,
                    _ = terminate.1.recv() => terminate.0,
                    _ = hangup.1.recv() => hangup.0,
                };
                if sender.send(number).is_err() {
                    return;
                }
            }
        });
    });
    Ok(receiver)
}

/// A data folder that is gone afterwards, for `--check`.
struct Scratch {
    path: Option<PathBuf>,
}

impl Scratch {
    fn new(wanted: bool) -> anyhow::Result<Self> {
        if !wanted {
            return Ok(Self { path: None });
        }
        let path = std::env::temp_dir().join(format!("spanloom-check-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path: Some(path) })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // A folder left in the temporary folder is no reason to fail.
            let _ = std::fs::remove_dir_all(path);
        }
    }
}
