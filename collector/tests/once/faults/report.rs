//! What a scenario found: a row for each of its phases, in the table of `cargo xtask faults`.

use std::fs::OpenOptions;
use std::io::Write;

use super::check::Counts;
use super::load::Phase;

/// The file that rows are added to, each a line of JSON.
const REPORT: &str = "SPANLOOM_FAULTS_REPORT";

/// What was seen beside the counts.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub seed: u64,
    pub collector_peak_bytes: u64,
    pub engine_peak_bytes: u64,
    pub seconds: f64,
}

/// Adds a phase's row.
pub fn add(scenario: &str, phase: &Phase, counts: &Counts, seen: Seen) {
    let total = counts.total();
    let row = serde_json::json!({
        "scenario": scenario,
        "phase": phase.name,
        "sent": counts.sent,
        "acknowledged": counts.acknowledged,
        "stored": counts.stored,
        "pushed_back": phase.pushed_back,
        "lost": total.lost,
        "doubled": total.doubled,
        "invented": total.invented,
        "collector_peak_bytes": seen.collector_peak_bytes,
        "engine_peak_bytes": seen.engine_peak_bytes,
        "seconds": seen.seconds,
        "seed": format!("{:#x}", seen.seed),
    });
    eprintln!("{row}");
    let Some(path) = std::env::var_os(REPORT) else {
        return;
    };
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    writeln!(file, "{row}").unwrap();
}
