//! Builds of the workspace's own programs.

use anyhow::{Context, bail};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Builds `binary` of `package` with a cargo profile and says where it is. `SPANLOOM_BENCH_BIN_DIR` names a
/// folder to take it from instead: to measure what another commit built.
pub fn binary(package: &str, binary: &str, profile: &str) -> anyhow::Result<PathBuf> {
    if let Some(folder) = std::env::var_os("SPANLOOM_BENCH_BIN_DIR") {
        let path = PathBuf::from(folder).join(binary);
        if !path.is_file() {
            bail!("SPANLOOM_BENCH_BIN_DIR has no {}", path.display());
        }
        return Ok(path);
    }
    eprintln!("building {binary} ({profile})");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "build",
            "--locked",
            "--profile",
            profile,
            "--package",
            package,
            "--bin",
            binary,
        ])
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(spanloom_e2e::workspace())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("run cargo")?;
    if !output.status.success() {
        bail!("building {binary} failed ({})", output.status);
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == binary)
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
        .with_context(|| format!("cargo built {binary} but did not say where"))
}
