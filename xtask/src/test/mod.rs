//! `cargo xtask test`: all that CI runs, in stages that each say how long they took.
//!
//! The stages share what they compile: clippy and the tests see the same features (`--workspace
//! --all-targets`), and the end-to-end scenarios run the binaries that the build stage made.

mod cluster;
mod fuzz;
mod tools;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::cluster::packages;

/// The flags of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run this stage only; may be given more than once
    #[arg(long, value_name = "STAGE")]
    only: Vec<String>,
    /// Name the stages and stop
    #[arg(long)]
    list: bool,
    /// Run the remaining stages after one that failed
    #[arg(long)]
    keep_going: bool,
}

/// One step of the run.
struct Stage {
    name: &'static str,
    about: &'static str,
    run: fn() -> anyhow::Result<()>,
}

/// In the order of cost: what fails cheaply fails first.
const STAGES: &[Stage] = &[
    Stage {
        name: "fmt",
        about: "rustfmt finds nothing to change",
        run: fmt,
    },
    Stage {
        name: "tidy",
        about: "the house rules hold",
        run: tidy,
    },
    Stage {
        name: "deny",
        about: "licences, bans and sources of dependencies",
        run: deny,
    },
    Stage {
        name: "chart",
        about: "the chart renders to what Kubernetes and the house want",
        run: crate::chart::check,
    },
    Stage {
        name: "clippy",
        about: "no warning in any target",
        run: clippy,
    },
    Stage {
        name: "doc",
        about: "the documentation builds without a warning",
        run: doc,
    },
    Stage {
        name: "build",
        about: "every target of every crate",
        run: build,
    },
    Stage {
        name: "test",
        about: "unit, property and integration tests",
        run: test,
    },
    Stage {
        name: "control",
        about: "without a protection, tests fail",
        run: control,
    },
    Stage {
        name: "e2e",
        about: "real SDKs against the real program",
        run: e2e,
    },
    Stage {
        name: "cluster",
        about: "scenarios on a real Kubernetes",
        run: cluster::run,
    },
    Stage {
        name: "up",
        about: "`cargo xtask up --check`",
        run: up_check,
    },
    Stage {
        name: "fuzz",
        about: "every fuzz target for 30 seconds",
        run: fuzz::run,
    },
];

/// Runs the chosen stages and prints what each took.
///
/// # Errors
/// When a stage fails or is unknown.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if args.list {
        for stage in STAGES {
            println!("{:<8}{}", stage.name, stage.about);
        }
        return Ok(());
    }
    for name in &args.only {
        let known = STAGES.iter().any(|stage| stage.name == name);
        ensure!(
            known,
            "there is no stage {name:?}; `cargo xtask test --list` names them"
        );
    }
    let chosen =
        |stage: &&Stage| args.only.is_empty() || args.only.iter().any(|name| name == stage.name);
    let mut done: Vec<(&Stage, Duration, anyhow::Result<()>)> = Vec::new();
    for stage in STAGES.iter().filter(chosen) {
        println!("\n=== {}: {}", stage.name, stage.about);
        let begun = Instant::now();
        let result = (stage.run)();
        let elapsed = begun.elapsed();
        match &result {
            Ok(()) => println!("=== {} took {}", stage.name, seconds(elapsed)),
            Err(error) => {
                println!(
                    "=== {} FAILED after {}: {error:#}",
                    stage.name,
                    seconds(elapsed)
                );
            }
        }
        let failed = result.is_err();
        done.push((stage, elapsed, result));
        if failed && !args.keep_going {
            break;
        }
    }
    summarise(&done)
}

fn summarise(done: &[(&Stage, Duration, anyhow::Result<()>)]) -> anyhow::Result<()> {
    println!("\n{:<8}{:>10}  result", "stage", "time");
    for (stage, elapsed, result) in done {
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        println!("{:<8}{:>10}  {verdict}", stage.name, seconds(*elapsed));
    }
    let total = done.iter().map(|(_, elapsed, _)| *elapsed).sum();
    println!("{:<8}{:>10}", "total", seconds(total));
    let failed: Vec<_> = done
        .iter()
        .filter(|(_, _, result)| result.is_err())
        .map(|(s, ..)| s.name)
        .collect();
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

fn seconds(elapsed: Duration) -> String {
    format!("{:.1} s", elapsed.as_secs_f64())
}

fn fmt() -> anyhow::Result<()> {
    sh(cargo(["fmt", "--all", "--check"]))?;
    sh(cargo([
        "fmt",
        "--all",
        "--check",
        "--manifest-path",
        "fuzz/Cargo.toml",
    ]))
}

fn tidy() -> anyhow::Result<()> {
    let broken = crate::tidy::check(spanloom_e2e::workspace())?;
    ensure!(
        broken.is_empty(),
        "house rules are broken:\n  {}",
        broken.join("\n  ")
    );
    Ok(())
}

fn deny() -> anyhow::Result<()> {
    let deny = tools::cargo_deny()?;
    // A fresh machine has only what was built so far; the check is of what other systems need, too.
    sh(cargo(["fetch", "--locked"]))?;
    let mut command = Command::new(deny);
    // Advisories need the network; what is pinned does not change by itself.
    command.args([
        "--offline",
        "--locked",
        "check",
        "bans",
        "licenses",
        "sources",
    ]);
    sh(command)
}

fn clippy() -> anyhow::Result<()> {
    let mut command = cargo(["clippy", "--workspace", "--all-targets", "--locked"]);
    command.args(["--", "-D", "warnings"]);
    sh(command)
}

fn doc() -> anyhow::Result<()> {
    let mut command = cargo(["doc", "--workspace", "--no-deps", "--locked"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    sh(command)
}

fn build() -> anyhow::Result<()> {
    sh(cargo(["build", "--workspace", "--all-targets", "--locked"]))
}

/// Everything but the scenarios, which are a module of that name in the crate `e2e`.
fn test() -> anyhow::Result<()> {
    let mut command = cargo(["test", "--workspace", "--locked", "--no-fail-fast"]);
    command.args(["--", "--skip", "scenario::"]);
    with_faketime(&mut command)?;
    sh(with_program(command))
}

/// Names the library that sets a clock for one process. Where it is missing and cannot be installed, what needs it
/// is skipped; not in CI.
///
/// # Errors
/// In CI, when it is missing.
pub fn with_faketime(command: &mut Command) -> anyhow::Result<()> {
    let installed = packages::install_faketime();
    match (packages::faketime(), installed) {
        (Some(library), _) => {
            command.env("SPANLOOM_FAKETIME", library);
        }
        (None, Err(error)) if is_ci() => return Err(error),
        (None, Err(error)) => println!("no clock is set: {error:#}"),
        (None, Ok(())) => {}
    }
    Ok(())
}

/// Whether this is CI, where nothing is skipped.
pub fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|ci| ci == "true")
}

/// Programs whose protections can be switched off; see [`CONTROL`].
fn control() -> anyhow::Result<()> {
    let mut command = cargo(["test", "--workspace", "--locked"]);
    command.args(CONTROL);
    // The others pass with every protection, and have.
    command.args(["--", "control"]);
    sh(command)
}

/// What cargo builds for control runs. Of the whole workspace, for its features: only the collector and
/// what is below it that knows the feature is compiled twice.
pub const CONTROL: &[&str] = &[
    "--features",
    "spanloom-collector/control-runs",
    "--test",
    "once",
    "--test",
    "switches",
];

/// The scenario that runs alone.
const RATE: &str = "scenario::rate::sdks_with_their_defaults_lose_nothing";

fn e2e() -> anyhow::Result<()> {
    // Without the build stage before it, the program would be that of an earlier day.
    sh(cargo([
        "build",
        "--workspace",
        "--locked",
        "--bin",
        "spanloom",
    ]))?;
    // The whole workspace again, for its features: nothing is compiled twice. Clients at a steady rate lose
    // spans by themselves on a machine that is busy with others.
    for arguments in [
        ["--test-threads", "2", "--skip", "scenario::rate"],
        ["--test-threads", "1", "--exact", RATE],
    ] {
        let mut command = cargo(["test", "--workspace", "--locked", "--test", "scenarios"]);
        command.arg("--").args(arguments);
        sh(with_program(command))?;
    }
    Ok(())
}

fn up_check() -> anyhow::Result<()> {
    // Through cargo, as a person calls it: the build stage has linked this program anew, so the file
    // that runs here may be gone.
    sh(with_program(cargo(["xtask", "up", "--check"])))
}

/// Points at the program of the build stage, where it has made it.
fn with_program(mut command: Command) -> Command {
    let program = target_dir().join("debug/spanloom");
    if program.is_file() {
        command.env("SPANLOOM_BIN", program);
    }
    command
}

/// Where cargo puts what it makes.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => spanloom_e2e::workspace().join(folder),
        None => spanloom_e2e::workspace().join("target"),
    }
}

/// The cargo that runs this program.
pub fn cargo<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    command
}

/// Runs a command in the workspace, its output passed through.
pub fn sh(mut command: Command) -> anyhow::Result<()> {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(plain)
        .collect();
    let words = words.join(" ");
    println!("$ {words}");
    let status = command
        .current_dir(spanloom_e2e::workspace())
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot run {words}"))?;
    if !status.success() {
        bail!("`{words}` ended with {status}");
    }
    Ok(())
}

/// A program's path says little beside its name.
fn plain(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    match word.rsplit_once('/') {
        Some((_, name)) if word.starts_with('/') => name.to_owned(),
        _ => word.into_owned(),
    }
}
