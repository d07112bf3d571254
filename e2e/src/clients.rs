//! The official SDKs of other languages, installed once and kept in the user's cache.
//!
//! Each set of pinned packages has a folder named after a hash of its lock file, so a changed lock
//! is installed anew and an unchanged one is not. A lock keeps two test programs from installing the
//! same folder at once, and a marker file tells a finished folder from one that was broken off.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

/// The file that says an installation was finished.
const COMPLETE: &str = ".complete";

/// A Python interpreter that has the packages of the `requirements` file (pinned, with hashes).
///
/// # Errors
/// When Python or its `venv` module is missing, or a package cannot be installed.
pub fn python(requirements: &Path) -> anyhow::Result<PathBuf> {
    let version = output_of(Command::new("python3").arg("--version"))
        .context("Python 3.10 or newer is needed as `python3`")?;
    let folder = install("python", &[requirements], &version, |folder| {
        run(Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(folder))
        .context("cannot make a virtual environment (Debian: apt-get install python3-venv)")?;
        let mut pip = Command::new(folder.join("bin/python"));
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]);
        pip.args([
            "--no-deps",
            "--require-hashes",
            "--only-binary",
            ":all:",
            "-r",
        ]);
        run(pip.arg(requirements))
    })?;
    Ok(folder.join("bin/python"))
}

/// A `node_modules` folder with the packages of `folder`'s `package-lock.json`.
///
/// # Errors
/// When Node or npm is missing, or a package cannot be installed.
pub fn node_modules(client: &Path) -> anyhow::Result<PathBuf> {
    let version = output_of(Command::new("node").arg("--version"))
        .context("Node 20 or newer is needed as `node`")?;
    let (package, lock) = (
        client.join("package.json"),
        client.join("package-lock.json"),
    );
    let folder = install("node", &[&package, &lock], &version, |folder| {
        std::fs::create_dir_all(folder)?;
        std::fs::copy(&package, folder.join("package.json"))?;
        std::fs::copy(&lock, folder.join("package-lock.json"))?;
        let mut npm = Command::new("npm");
        npm.args([
            "ci",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--loglevel",
            "error",
        ]);
        run(npm.current_dir(folder))
    })?;
    Ok(folder.join("node_modules"))
}

/// The program of a folder with `go.mod`, `go.sum` and `main.go`.
///
/// # Errors
/// When Go is missing, or the program cannot be built.
pub fn go_program(source: &Path) -> anyhow::Result<PathBuf> {
    let version = output_of(Command::new("go").arg("version"))
        .context("Go 1.26 or newer is needed as `go`")?;
    let files = ["go.mod", "go.sum", "main.go"].map(|name| source.join(name));
    let [modules, sums, main] = &files;
    let folder = install("go", &[modules, sums, main], &version, |folder| {
        std::fs::create_dir_all(folder)?;
        let mut go = Command::new("go");
        go.args(["build", "-mod=readonly", "-o"])
            .arg(folder.join("program"));
        run(go
            .arg(".")
            .env("GOFLAGS", "-buildvcs=false")
            .current_dir(source))
    })?;
    Ok(folder.join("program"))
}

/// Runs `make` on the folder of these files unless an earlier run has finished it.
fn install(
    kind: &str,
    files: &[&Path],
    tool_version: &str,
    make: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    tool_version.hash(&mut hasher);
    for file in files {
        std::fs::read(file)
            .with_context(|| format!("cannot read {}", file.display()))?
            .hash(&mut hasher);
    }
    let parent = crate::cache_dir()?.join("test-clients");
    std::fs::create_dir_all(&parent)
        .with_context(|| format!("cannot make {}", parent.display()))?;
    let folder = parent.join(format!("{kind}-{:016x}", hasher.finish()));
    let lock = File::create(folder.with_extension("lock"))?;
    lock.lock().context("cannot lock the cache folder")?;
    if !folder.join(COMPLETE).is_file() {
        if folder.is_dir() {
            std::fs::remove_dir_all(&folder)?;
        }
        make(&folder).with_context(|| format!("cannot install into {}", folder.display()))?;
        File::create(folder.join(COMPLETE))?;
    }
    Ok(folder)
}

fn output_of(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}",
        output.status
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command to its end; what it printed becomes part of the error.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!(
            "{command:?} ended with {}:\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
