//! What helm makes of the chart.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::kubetools;

/// What the chart makes of a set of values.
pub struct Rendered {
    /// The file of values, or `the defaults`.
    pub name: String,
    /// Where the manifests are.
    pub path: PathBuf,
    /// The same, read.
    pub objects: Vec<Value>,
}

/// Values that must be refused, and what the refusal must name.
const REFUSED: &[(&str, &str)] = &[
    ("operator.replicas=3", "/operator/replicas"),
    ("operator.replica=1", "'replica' not allowed"),
    ("operator.resources.request.cpu=1", "'request' not allowed"),
    ("operator.leaseSeconds=1", "/operator/leaseSeconds"),
    (
        "operator.pipelineNamespaces={a,a}",
        "/operator/pipelineNamespaces",
    ),
    (
        "operator.pipelineNamespaces={A_B}",
        "/operator/pipelineNamespaces",
    ),
    ("images.pullPolicy=Sometimes", "/images/pullPolicy"),
    ("images.registry=ghcr.io/x/", "/images/registry"),
    ("images.pullSecrets=one", "/images/pullSecrets"),
    ("clickhouse.image=a b", "/clickhouse/image"),
    ("images.digests.query=sha256:ab", "/images/digests/query"),
    ("images.digests.quary=", "'quary' not allowed"),
    (
        "networkPolicies.apiServerPorts={a}",
        "/networkPolicies/apiServerPorts",
    ),
    ("pipeline.name=A_B", "/pipeline/name"),
    ("pipeline.spec=x", "/pipeline/spec"),
    (
        "pipeline.spec.samplin.head.ratio=1",
        "'samplin' not allowed",
    ),
    (
        "pipeline.spec.sampling.head.ratio=2",
        "/pipeline/spec/sampling/head/ratio",
    ),
    ("pipelines.enabled=true", "'pipelines' not allowed"),
    ("query.ingress.enabled=maybe", "/query/ingress/enabled"),
    (
        "query.ingress.enabled=true,query.ingress.host=a.example",
        "set pipeline.enabled=true",
    ),
    (
        "query.ingress.enabled=true,pipeline.enabled=true",
        "query.ingress.host",
    ),
    (
        "query.httpRoute.enabled=true,pipeline.enabled=true",
        "query.httpRoute.parentRefs",
    ),
    (
        "metrics.serviceMonitor.interval=often",
        "/metrics/serviceMonitor/interval",
    ),
];

/// Lints and renders the chart with its defaults and with each file of `ci/`; manifests are left in `out`.
pub fn all(chart: &Path, out: &Path) -> anyhow::Result<Vec<Rendered>> {
    let mut files = vec![None];
    let folder = chart.join("ci");
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        files.push(Some(entry?.path()));
    }
    files.sort();
    files
        .iter()
        .map(|file| one(chart, file.as_deref(), out))
        .collect()
}

/// Values that an earlier chart took are still taken: those that it was checked with.
pub fn check_earlier(chart: &Path, out: &Path) -> anyhow::Result<()> {
    let earlier = spanloom_e2e::compat::earlier_chart()?;
    for entry in std::fs::read_dir(earlier.join("ci"))? {
        one(chart, Some(&entry?.path()), out).context("values of the earlier chart")?;
    }
    Ok(())
}

fn one(chart: &Path, values: Option<&Path>, out: &Path) -> anyhow::Result<Rendered> {
    let name = values
        .and_then(Path::file_stem)
        .map(|stem| stem.to_string_lossy().into_owned());
    let name = name.unwrap_or_else(|| "the defaults".to_owned());
    let arguments: Vec<_> = values
        .iter()
        .flat_map(|file| [Path::new("--values"), file])
        .collect();
    let run = |words: &[&str]| helm(words, chart, &arguments);
    let linted = run(&["lint", "--strict"])?;
    ensure!(
        linted.status.success(),
        "helm lint with {name}:\n{}",
        said(&linted)
    );
    let rendered = run(&["template", "spanloom", "--namespace", "tracing"])?;
    ensure!(
        rendered.status.success(),
        "helm template with {name}:\n{}",
        said(&rendered)
    );
    let text = String::from_utf8(rendered.stdout).context("helm's output is not UTF-8")?;
    let objects =
        read(&text).with_context(|| format!("what helm renders with {name} is not YAML"))?;
    ensure!(!objects.is_empty(), "helm renders nothing with {name}");
    check_pipelines(&objects).with_context(|| format!("rendered with {name}"))?;
    let path = out.join(format!("{}.yaml", name.replace(' ', "-")));
    std::fs::write(&path, text)?;
    println!("with {name}: {} objects", objects.len());
    Ok(Rendered {
        name,
        path,
        objects,
    })
}

/// The objects in a stream of YAML documents.
pub fn read(text: &str) -> anyhow::Result<Vec<Value>> {
    let mut objects = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let object = Value::deserialize(document)?;
        objects.extend((!object.is_null()).then_some(object));
    }
    Ok(objects)
}

/// A pipeline of the release's own is one that the operator accepts.
fn check_pipelines(objects: &[Value]) -> anyhow::Result<()> {
    let pipelines = objects.iter();
    for pipeline in pipelines.filter(|object| object["kind"] == spanloom_crds::KIND) {
        // JSON is YAML.
        spanloom_crds::parse_document(&pipeline.to_string())?;
    }
    Ok(())
}

/// The schema, and the templates, say no to what cannot be meant.
pub fn check_refusals(chart: &Path) -> anyhow::Result<()> {
    for (set, expect) in REFUSED {
        let arguments = [Path::new("--set"), Path::new(set)];
        let output = helm(&["template", "spanloom"], chart, &arguments)?;
        let said = said(&output);
        ensure!(
            !output.status.success() && said.contains(expect),
            "--set {set} should be refused with a word about {expect:?}, but:\n{said}"
        );
    }
    println!("{} bad values are refused", REFUSED.len());
    Ok(())
}

fn helm(words: &[&str], chart: &Path, arguments: &[&Path]) -> anyhow::Result<Output> {
    let mut command = Command::new(kubetools::helm()?);
    command.args(words).arg(chart).args(arguments);
    // The user's own settings have no say.
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("HELM_") {
            command.env_remove(variable);
        }
    }
    command.output().context("cannot run helm")
}

fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&text).into_owned()
}
