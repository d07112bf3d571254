//! `bench operator`: what the operator needs in an empty cluster, and in one with many namespaces and pods
//! that are none of its business.
//!
//! The pods are held back by a scheduling gate: the operator sees them as any others, and no node has to run
//! them. The cluster is that of `cargo xtask cluster`, and is started if it is not up.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use super::proc::{self, Running};
use super::{build, peers, report};
use crate::cluster::{self, Provider};

/// The flags of `bench operator`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON array and nothing else
    #[arg(long)]
    json: bool,
    /// Namespaces
    #[arg(long, default_value_t = 300)]
    namespaces: usize,
    /// Pods in them
    #[arg(long, default_value_t = 1000)]
    pods: usize,
    /// Seconds that are measured, before and with them
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

#[derive(Debug, Serialize)]
struct Row {
    namespaces: usize,
    pods: usize,
    rss_mib: f64,
    cpu_ms_per_minute: f64,
}

/// Where the operator leads.
const NAMESPACE: &str = "spanloom-bench";
/// The label of the namespaces that are made.
const LABEL: &str = "spanloom.dev/bench=operator";

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let program = build::binary("spanloom-operator", "spanloom-operator", "release")?;
    let was_up = cluster::is_up()?;
    let kubeconfig = cluster::up(Provider::Own)?;
    let measured = measure(args, &program, &kubeconfig);
    let removed = kubectl(
        &kubeconfig,
        &["delete", "namespace", "--selector", LABEL, "--wait=false"],
    );
    if !was_up {
        cluster::down(Provider::Own)?;
    }
    removed?;
    let rows = measured?;
    if args.json {
        return super::print_json(&rows);
    }
    let head = ["namespaces", "pods", "RSS (MiB)", "CPU (ms a minute)"];
    let mut table = vec![head.map(str::to_owned).to_vec()];
    table.extend(rows.iter().map(|row| {
        vec![
            row.namespaces.to_string(),
            row.pods.to_string(),
            row.rss_mib.to_string(),
            row.cpu_ms_per_minute.to_string(),
        ]
    }));
    super::print(&report::table(&table));
    Ok(())
}

fn measure(args: &Args, program: &Path, kubeconfig: &Path) -> anyhow::Result<Vec<Row>> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let file = folder.path().join("objects.json");
    // This operator would work on the pipelines of one that is installed.
    let definitions = kubectl(
        kubeconfig,
        &["get", "customresourcedefinitions", "--output=name"],
    )?;
    ensure!(
        !definitions.contains("tracingpipelines"),
        "Spanloom is installed on the cluster; run cargo xtask cluster down first"
    );
    apply(kubeconfig, &file, vec![namespace(NAMESPACE)])?;
    let log = folder.path().join("operator.log");
    let out = File::create(&log).context("make the log")?;
    let mut operator = Command::new(program);
    operator
        .arg("run")
        .env("KUBECONFIG", kubeconfig)
        .env("SPANLOOM_OPERATOR_NAMESPACE", NAMESPACE)
        .env(
            "SPANLOOM_OPERATOR_ADMIN",
            peers::free_address()?.to_string(),
        )
        .stdin(Stdio::null())
        .stdout(out.try_clone().context("make the log")?)
        .stderr(out);
    let operator = operator.spawn().context("start the operator")?;
    let mut operator = Running::new(operator);
    let leads = || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("\"working\""));
    ensure!(
        proc::wait(Duration::from_secs(60), leads),
        "the operator does not lead: {}",
        std::fs::read_to_string(&log).unwrap_or_default()
    );
    let counted =
        |args: &[&str]| -> anyhow::Result<usize> { Ok(kubectl(kubeconfig, args)?.lines().count()) };
    let mut rows = Vec::new();
    for filled in [false, true] {
        if filled {
            let names: Vec<_> = (0..args.namespaces).map(|n| format!("bench-{n}")).collect();
            apply(
                kubeconfig,
                &file,
                names.iter().map(|name| namespace(name)).collect(),
            )?;
            // A pod is taken once its namespace has an account for it.
            let accounts = || {
                let all = [
                    "get",
                    "serviceaccounts",
                    "--all-namespaces",
                    "--output=name",
                ];
                counted(&all).is_ok_and(|count| count >= args.namespaces)
            };
            ensure!(
                proc::wait(Duration::from_secs(300), accounts),
                "the namespaces have no service accounts"
            );
            let pods = (0..args.pods).map(|n| pod(&format!("bench-{}", n % args.namespaces), n));
            apply(kubeconfig, &file, pods.collect())?;
        }
        // What it was told of them is over.
        std::thread::sleep(Duration::from_secs(10));
        let before = proc::cpu_time(operator.pid())?;
        std::thread::sleep(Duration::from_secs(args.seconds));
        operator.check("the operator")?;
        let spent = proc::cpu_time(operator.pid())?.saturating_sub(before);
        let minutes = args.seconds as f64 / 60.0;
        rows.push(Row {
            namespaces: counted(&["get", "namespaces", "--output=name"])?,
            pods: counted(&["get", "pods", "--all-namespaces", "--output=name"])?,
            rss_mib: proc::memory_mib(operator.pid(), "VmRSS")?.round(),
            cpu_ms_per_minute: (spent.as_secs_f64() * 1000.0 / minutes).round(),
        });
    }
    Ok(rows)
}

fn namespace(name: &str) -> Value {
    let (key, value) = LABEL.split_once('=').unwrap_or((LABEL, ""));
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {key: value}}})
}

fn pod(namespace: &str, n: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("pod-{n}"), "namespace": namespace, "labels": {"app": "bench"}},
        "spec": {
            "schedulingGates": [{"name": "spanloom.dev/bench"}],
            "containers": [{"name": "app", "image": "example.test/app:1"}],
        },
    })
}

fn apply(kubeconfig: &Path, file: &Path, objects: Vec<Value>) -> anyhow::Result<()> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    std::fs::write(file, list.to_string()).context("write the objects")?;
    let file = file.to_string_lossy();
    kubectl(kubeconfig, &["apply", "--server-side", "--filename", &file])?;
    Ok(())
}

fn kubectl(kubeconfig: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    cluster::kubectl::with(kubeconfig, arguments)
}
