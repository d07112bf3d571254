//! The two programs that the tests need beside Rust: installed once, into the user's cache.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

/// Checks licences, bans and sources.
const CARGO_DENY: (&str, &str) = ("cargo-deny", "0.20.2");

/// Builds and runs fuzz targets.
const CARGO_FUZZ: (&str, &str) = ("cargo-fuzz", "0.13.2");

/// The pinned cargo-deny.
pub fn cargo_deny() -> anyhow::Result<PathBuf> {
    installed(CARGO_DENY)
}

/// The pinned cargo-fuzz.
pub fn cargo_fuzz() -> anyhow::Result<PathBuf> {
    installed(CARGO_FUZZ)
}

fn installed((name, version): (&str, &str)) -> anyhow::Result<PathBuf> {
    // A folder a version: another checkout with another version has its own.
    let root = spanloom_e2e::cache_dir()?
        .join("tools")
        .join(format!("{name}-{version}"));
    let program = root.join("bin").join(name);
    if !program.is_file() {
        let mut install = super::cargo(["install", name, "--version", version, "--locked"]);
        // A debug build: it runs for seconds, and compiles in half the time.
        install.args(["--debug", "--root"]).arg(&root);
        // Our own build's settings are not for it.
        for variable in [
            "RUSTFLAGS",
            "RUSTDOCFLAGS",
            "CARGO_TARGET_DIR",
            "CARGO_BUILD_TARGET",
        ] {
            install.env_remove(variable);
        }
        run_outside(install).with_context(|| format!("cannot install {name} {version}"))?;
    }
    Ok(program)
}

/// Outside the workspace, so that its `.cargo/config.toml` has no say.
fn run_outside(mut command: Command) -> anyhow::Result<()> {
    let status = command.current_dir(std::env::temp_dir()).status()?;
    anyhow::ensure!(status.success(), "cargo install ended with {status}");
    Ok(())
}
