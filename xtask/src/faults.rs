//! `cargo xtask faults` and `cargo xtask soak`: the scenarios of `collector/tests/once/faults` at full length, and
//! a table of what they found.

use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

use crate::test::{cargo, sh, with_faketime};

/// Flags of both commands.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Repeat what is random in a run: the seed that it printed
    #[arg(long, value_name = "HEX")]
    seed: Option<String>,
    /// Only the scenarios whose names contain this, such as `kills` or `disk_full` [default: all]
    name: Option<String>,
}

/// The flags of `cargo xtask soak`.
#[derive(Debug, clap::Args)]
pub struct SoakArgs {
    /// How long it lasts: a fault a minute
    #[arg(long, default_value_t = 20)]
    minutes: u64,
    /// Repeat the faults of a run: the seed that it printed
    #[arg(long, value_name = "HEX")]
    seed: Option<String>,
}

/// Runs every scenario at full length, one after the other.
///
/// # Errors
/// When one fails; the table is printed all the same.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let name = args.name.as_deref().unwrap_or("faults::");
    let names = [name, "--skip", "soak", "--skip", "control"];
    scenarios(&names, args.seed.as_deref(), ("SPANLOOM_FAULTS", "full"))
}

/// Runs the soak.
///
/// # Errors
/// When something is lost, doubled or invented; the table is printed all the same.
pub fn soak(args: &SoakArgs) -> anyhow::Result<()> {
    let minutes = args.minutes.to_string();
    scenarios(
        &["faults::soak"],
        args.seed.as_deref(),
        ("SPANLOOM_SOAK_MINUTES", &minutes),
    )
}

fn scenarios(names: &[&str], seed: Option<&str>, length: (&str, &str)) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let report = folder.path().join("report");
    // Of the whole workspace, for its features: nothing is compiled twice.
    let mut command = cargo(["test", "--workspace", "--locked", "--test", "once", "--"]);
    command
        .args(names)
        // One at a time: the memory of each is its own, and they do not slow each other down.
        .args(["--test-threads", "1", "--nocapture"])
        .env(length.0, length.1)
        .env("SPANLOOM_FAULTS_REPORT", &report);
    with_faketime(&mut command)?;
    if let Some(seed) = seed {
        command.env("SPANLOOM_FAULTS_SEED", seed);
    }
    let done = sh(command);
    print_table(&report)?;
    done
}

/// What a scenario found of one of its phases.
#[derive(Debug, Deserialize)]
struct Row {
    scenario: String,
    phase: String,
    sent: u64,
    acknowledged: u64,
    stored: u64,
    pushed_back: u64,
    lost: u64,
    doubled: u64,
    invented: u64,
    collector_peak_bytes: u64,
    engine_peak_bytes: u64,
    seed: String,
}

const HEAD: &str = "| scenario | phase | spans sent | acknowledged | stored | pushed back (requests) | lost | doubled \
    | invented | collector's peak MiB | engine's peak MiB | seed |";

fn print_table(report: &Path) -> anyhow::Result<()> {
    // None has come so far where there is no file.
    let text = std::fs::read_to_string(report).unwrap_or_default();
    println!("\n{HEAD}\n|---|---|---|---|---|---|---|---|---|---|---|---|");
    for line in text.lines() {
        let row = serde_json::from_str(line)
            .with_context(|| format!("cannot read a scenario's report: {line}"))?;
        println!("{}", in_table(&row));
    }
    println!(
        "\nLost, doubled and invented are sums over spans, half_edges, trace_index, red, red_hours and edges."
    );
    Ok(())
}

fn in_table(row: &Row) -> String {
    const MIB: u64 = 1 << 20;
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
        row.scenario,
        row.phase.trim(),
        row.sent,
        row.acknowledged,
        row.stored,
        row.pushed_back,
        row.lost,
        row.doubled,
        row.invented,
        row.collector_peak_bytes / MIB,
        row.engine_peak_bytes / MIB,
        row.seed,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_a_cell_for_each_column() {
        let line = r#"{"scenario": "disk full", "phase": "no space", "sent": 240, "acknowledged": 120,
            "stored": 120, "pushed_back": 3, "lost": 1, "doubled": 2, "invented": 4,
            "collector_peak_bytes": 2097152, "engine_peak_bytes": 3145728, "seconds": 1.5, "seed": "0x7"}"#;
        let row = in_table(&serde_json::from_str(line).unwrap());
        assert_eq!(
            row,
            "| disk full | no space | 240 | 120 | 120 | 3 | 1 | 2 | 4 | 2 | 3 | 0x7 |"
        );
        assert_eq!(HEAD.matches('|').count(), row.matches('|').count());
    }
}
