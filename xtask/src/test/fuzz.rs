//! Short runs of every fuzz target, from the committed corpus.
//!
//! cargo-fuzz works on stable Rust without a sanitizer. New inputs go to a scratch folder, so a run
//! never changes the checkout.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;

use anyhow::{Context, ensure};

use super::tools;

/// How long each target runs.
const SECONDS: u32 = 30;

/// Above this a target is said to use too much memory.
const MEMORY_MIB: u32 = 2048;

/// Builds all targets, then runs them, as many at once as there are cores.
pub fn run() -> anyhow::Result<()> {
    let cargo_fuzz = tools::cargo_fuzz()?;
    let targets = targets(&cargo_fuzz)?;
    ensure!(!targets.is_empty(), "fuzz/ has no targets");
    let mut build = Command::new(&cargo_fuzz);
    build.args(["fuzz", "build", "--sanitizer", "none"]);
    super::sh(build)?;

    let scratch = Scratch::new()?;
    let remaining = Mutex::new(targets.iter());
    let failed = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(targets.len());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(target) = next(&remaining) {
                    if let Err(error) = run_target(&cargo_fuzz, target, &scratch.path) {
                        println!("fuzz target {target} FAILED: {error:#}");
                        failed
                            .lock()
                            .map(|mut failed| failed.push(target.as_str()))
                            .ok();
                    }
                }
            });
        }
    });
    let failed = failed
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    ensure!(
        failed.is_empty(),
        "fuzz targets failed: {}",
        failed.join(", ")
    );
    Ok(())
}

/// A function of its own: the lock must not be held while a target runs.
fn next<'a>(remaining: &Mutex<std::slice::Iter<'a, String>>) -> Option<&'a String> {
    remaining.lock().ok()?.next()
}

fn targets(cargo_fuzz: &Path) -> anyhow::Result<Vec<String>> {
    let output = Command::new(cargo_fuzz)
        .args(["fuzz", "list"])
        .current_dir(spanloom_e2e::workspace())
        .output()
        .context("cannot run cargo-fuzz")?;
    ensure!(
        output.status.success(),
        "`cargo fuzz list` failed:\n{}",
        text(&output)
    );
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect())
}

fn run_target(cargo_fuzz: &Path, target: &str, scratch: &Path) -> anyhow::Result<()> {
    let found = scratch.join(target);
    std::fs::create_dir_all(&found)?;
    let mut command = Command::new(cargo_fuzz);
    command
        .args(["fuzz", "run", "--sanitizer", "none", target])
        .arg(&found);
    // libFuzzer writes to the first folder and only reads the others.
    let corpus = spanloom_e2e::workspace().join("fuzz/corpus").join(target);
    ensure!(
        corpus.is_dir(),
        "there is no corpus in {}",
        corpus.display()
    );
    command.arg(&corpus).arg("--");
    command.arg(format!("-max_total_time={SECONDS}"));
    command.arg(format!("-rss_limit_mb={MEMORY_MIB}"));
    command.args(["-timeout=10", "-print_final_stats=1"]);
    let output = command
        .current_dir(spanloom_e2e::workspace())
        .stdin(Stdio::null())
        .output()?;
    let text = text(&output);
    if !output.status.success() {
        let tail: Vec<_> = text.lines().rev().take(40).collect();
        let tail: Vec<_> = tail.into_iter().rev().collect();
        anyhow::bail!("{}:\n{}", output.status, tail.join("\n"));
    }
    let runs = text
        .lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))
        .map_or("?", str::trim);
    println!("fuzz target {target}: {runs} runs in {SECONDS} s, no failure");
    Ok(())
}

fn text(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&all).into_owned()
}

/// Where new inputs go; gone afterwards.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("spanloom-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A folder left in the temporary folder is no reason to fail.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
