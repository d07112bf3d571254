//! The checks of `charts/spanloom` and of what its operator places, and the one part of the chart that
//! is made: the values' table in its README.
//!
//! [`render`] asks helm for what the chart makes of several sets of values; [`rules`] looks at that
//! for what the house wants (least rights, `restricted` pods), [`variables`] for what the programs
//! know, and programs of others for what Kubernetes wants. [`readme`] and [`schema`] keep the three places that name the values alike.

mod flows;
mod readme;
mod render;
mod rules;
mod schema;
mod variables;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

/// What the operator places for some documents, as its own tests keep it.
const PLACED: &str = "operator/plan/tests/golden";

/// The flags of `cargo xtask chart`.
#[derive(Debug, clap::Subcommand)]
pub enum Args {
    /// Write the table of values in the chart's README anew, from values.yaml, and the schema of
    /// `pipeline.spec` in values.schema.json, from the CustomResourceDefinition
    Readme,
}

/// Runs a command on the chart.
///
/// # Errors
/// When a value has no description, or the README cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    match args {
        Args::Readme => {
            let text = readme::made(&folder())?;
            std::fs::write(folder().join("README.md"), text).context("cannot write the README")?;
            let text = schema::made(&folder())?;
            let path = folder().join("values.schema.json");
            std::fs::write(path, text).context("cannot write values.schema.json")
        }
    }
}

/// The chart.
pub fn folder() -> PathBuf {
    spanloom_e2e::workspace().join("charts/spanloom")
}

/// Everything that can be known of the chart without a cluster.
///
/// # Errors
/// When something is wrong with it; what has been printed before names it.
pub fn check() -> anyhow::Result<()> {
    check_versions()?;
    let folder = folder();
    ensure!(
        std::fs::read_to_string(folder.join("README.md"))? == readme::made(&folder)?,
        "charts/spanloom/README.md does not show values.yaml as it is now: run `cargo xtask chart readme`"
    );
    complain(
        "charts/spanloom/values.schema.json",
        schema::compare(&folder)?,
    )?;
    ensure!(
        std::fs::read_to_string(folder.join("values.schema.json"))? == schema::made(&folder)?,
        "charts/spanloom/values.schema.json does not have the schema of pipeline.spec as it is now: run \
         `cargo xtask chart readme`"
    );

    let out = tempfile::tempdir().context("cannot make a folder for what helm renders")?;
    let sets = render::all(&folder, out.path())?;
    for set in &sets {
        let broken = check_objects(&set.objects)?;
        complain(
            &format!("charts/spanloom, rendered with {}", set.name),
            broken,
        )?;
    }
    render::check_refusals(&folder)?;
    let earlier = tempfile::tempdir().context("cannot make a folder for what helm renders")?;
    render::check_earlier(&folder, earlier.path())?;

    let mut manifests: Vec<_> = sets.iter().map(|set| set.path.clone()).collect();
    manifests.extend(files(&folder.join("crds"))?);
    for path in files(&spanloom_e2e::workspace().join(PLACED))? {
        let text = std::fs::read_to_string(&path)?;
        let name = path.display().to_string();
        let broken = check_objects(&render::read(&text).with_context(|| name.clone())?)?;
        complain(&name, broken)?;
        manifests.push(path);
    }
    check_flows(&sets)?;
    // Of a pipeline without a wish; others may ask for what checkov does not like.
    let placed = spanloom_e2e::workspace().join(PLACED).join("minimal.yaml");
    std::fs::copy(&placed, out.path().join("placed.yaml"))
        .with_context(|| format!("cannot copy {}", placed.display()))?;
    let requirements = spanloom_e2e::workspace().join("xtask/chart/requirements.txt");
    let python = spanloom_e2e::clients::python(&requirements)?;
    validate(&python, &manifests)?;
    checkov(&python, out.path())
}

/// The network flows of the docs are those of the chart's policies and of what the operator places.
fn check_flows(sets: &[render::Rendered]) -> anyhow::Result<()> {
    let placed = spanloom_e2e::workspace().join(PLACED);
    let text = std::fs::read_to_string(placed.join("network-policies.yaml"))?;
    let mut objects = render::read(&text)?;
    // Values that name peers of their own are another cluster's business.
    let set = sets
        .iter()
        .find(|set| set.name.contains("network-policies"));
    objects.extend_from_slice(&set.context("no ci/network-policies.yaml")?.objects);
    let docs = std::fs::read_to_string(spanloom_e2e::workspace().join("docs/operate.md"))?;
    complain("docs/operate.md", flows::compare(&objects, &docs)?)
}

/// The chart, and what it installs, have the workspace's version.
fn check_versions() -> anyhow::Result<()> {
    let chart = std::fs::read_to_string(folder().join("Chart.yaml"))?;
    let chart: serde_json::Value = serde_yaml::from_str(&chart)?;
    for field in ["version", "appVersion"] {
        let version = env!("CARGO_PKG_VERSION");
        ensure!(
            chart[field] == version,
            "charts/spanloom/Chart.yaml says {field} {}, but the workspace is {version}",
            chart[field]
        );
    }
    Ok(())
}

fn check_objects(objects: &[serde_json::Value]) -> anyhow::Result<Vec<String>> {
    let mut broken = rules::check(objects);
    broken.extend(variables::check(objects, spanloom_e2e::workspace())?);
    Ok(broken)
}

fn complain(place: &str, broken: Vec<String>) -> anyhow::Result<()> {
    ensure!(broken.is_empty(), "{place}:\n  {}", broken.join("\n  "));
    Ok(())
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let name = folder.display();
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {name}"))?;
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        // Beside the objects is a file of ClickHouse.
        .filter(|path| path.extension().is_none_or(|extension| extension != "xml"))
        .collect();
    files.sort();
    ensure!(!files.is_empty(), "{name} is empty");
    Ok(files)
}

/// Strictly, against the API's own schemas, for each version of Kubernetes.
fn validate(python: &Path, manifests: &[PathBuf]) -> anyhow::Result<()> {
    let script = spanloom_e2e::workspace().join("xtask/chart/validate.py");
    let mut command = Command::new(python);
    command.arg(script).args(manifests);
    crate::test::sh(command).context("the chart makes objects that Kubernetes does not take")
}

/// Findings are mended, or explained in the configuration.
fn checkov(python: &Path, rendered: &Path) -> anyhow::Result<()> {
    let config = spanloom_e2e::workspace().join("xtask/chart/checkov.yaml");
    let mut command = Command::new(python.with_file_name("checkov"));
    command
        .arg("--skip-download")
        .arg("--config-file")
        .arg(config);
    // Without a key it must not ask any server.
    command.env_remove("BC_API_KEY").env("LOG_LEVEL", "ERROR");
    command.arg("--directory").arg(rendered);
    crate::test::sh(command).context("checkov finds something in what the chart makes")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_readme_and_the_schema_name_the_values() {
        let folder = super::folder();
        let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
        let made = super::readme::made(&folder).unwrap();
        assert!(readme == made, "run `cargo xtask chart readme`");
        let schema = std::fs::read_to_string(folder.join("values.schema.json")).unwrap();
        let made = super::schema::made(&folder).unwrap();
        assert!(schema == made, "run `cargo xtask chart readme`");
        assert_eq!(
            super::schema::compare(&folder).unwrap(),
            Vec::<String>::new()
        );
        super::check_versions().unwrap();
    }
}
