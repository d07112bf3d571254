//! An engine for tests: its own folder, its own port, gone when dropped.
#![allow(clippy::expect_used)] // a test that has no engine cannot go on

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use crate::{Engine, EngineConfig, fetch};

/// A running engine with a folder of its own, both gone when it is dropped.
#[derive(Debug)]
pub struct TestEngine {
    engine: Engine,
}

impl TestEngine {
    /// Starts one. Fetches the library and builds the host program if they are missing.
    ///
    /// # Panics
    ///
    /// If it does not start: there is nothing a test could do then.
    pub async fn start() -> TestEngine {
        // The child removes it: it outlives a test binary that keeps its engine in a static.
        let data = tempfile::Builder::new()
            .prefix("spanloom-test-")
            .tempdir()
            .expect("a temporary folder")
            .keep();
        let config = config(&data).await;
        TestEngine {
            engine: Engine::start_with(config, true)
                .await
                .expect("the engine starts"),
        }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        self.engine.url()
    }

    /// The user it lets in.
    pub fn user(&self) -> &str {
        self.engine.user()
    }

    /// That user's password.
    pub fn password(&self) -> &str {
        self.engine.password()
    }

    /// The engine itself.
    pub fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }
}

/// What a test engine is started with: for tests that start and stop it themselves.
///
/// # Panics
///
/// If the library cannot be fetched or the host program cannot be built.
pub async fn config(data_dir: &Path) -> EngineConfig {
    let library = fetch::library(|line| eprintln!("{line}"))
        .await
        .expect("the library");
    EngineConfig {
        data_dir: data_dir.to_owned(),
        listen: ([127, 0, 0, 1], 0).into(),
        user: "spanloom".to_owned(),
        password: format!("{:032x}", rand::random::<u128>()),
        memory_limit_bytes: 4 << 30,
        library,
        host_command: vec![host_program().into()],
    }
}

/// Where tests keep the clients of others that they install, for the next run.
///
/// # Panics
///
/// If neither `XDG_CACHE_HOME` nor `HOME` is set.
pub fn test_clients_dir() -> PathBuf {
    cache().join("test-clients")
}

/// The OpenTelemetry Collector with its ClickHouse exporter, built by its official builder from
/// `xtask/otelcol-builder.yaml` (two minutes, once) and kept where the benchmarks look for it.
///
/// # Panics
///
/// If it cannot be built: Go and a module proxy are needed.
pub fn otelcol() -> PathBuf {
    let folder = cache().join("otelcol");
    let program = folder.join(OTELCOL).join("otelcol");
    std::fs::create_dir_all(&folder).expect("a cache folder");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        // As the benchmarks name it.
        .open(folder.join(OTELCOL).with_extension("lock"))
        .expect("a lock file");
    lock.lock().expect("the lock");
    if program.is_file() {
        return program;
    }
    let work = tempfile::Builder::new()
        .prefix(".build-")
        .tempdir_in(&folder)
        .expect("a folder to build in");
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../xtask/otelcol-builder.yaml");
    let manifest = std::fs::read_to_string(manifest).expect("the builder's manifest");
    let source = work.path().join("source");
    // The output folder can be given in the manifest only.
    let output = format!("dist:\n  output_path: {}", source.display());
    let with_output = work.path().join("builder.yaml");
    std::fs::write(&with_output, manifest.replacen("dist:", &output, 1)).expect("the manifest");
    let built = Command::new("go")
        .args(["run", OTELCOL_BUILDER, "--config"])
        .arg(&with_output)
        .env("CGO_ENABLED", "0")
        .output()
        .expect("Go runs");
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "the Collector's builder: {said}");
    std::fs::create_dir_all(folder.join(OTELCOL)).expect("a cache folder");
    std::fs::rename(source.join("otelcol"), &program).expect("the program into the cache");
    program
}

/// The Collector's version, and how often the builder's manifest has changed since.
const OTELCOL: &str = "0.161.0-b1";
const OTELCOL_BUILDER: &str = "go.opentelemetry.io/collector/cmd/builder@v0.161.0";

fn cache() -> PathBuf {
    fetch::cache_root().expect("a cache folder")
}

/// The program `spanloom-engine-host`, built if need be: other crates' tests do not build it.
///
/// # Panics
///
/// If it cannot be built.
pub fn host_program() -> PathBuf {
    // Test binaries are in target/<profile>/deps; the program is one folder up.
    let test = std::env::current_exe().expect("the test's own path");
    let profile = test
        .ancestors()
        .find(|folder| folder.file_name().is_some_and(|name| name == "deps"))
        .and_then(Path::parent)
        .map_or_else(|| test.with_file_name(""), Path::to_path_buf);
    let program = profile.join("spanloom-engine-host");
    if is_fresh(&program) {
        return program;
    }
    let target = profile.parent().unwrap_or(&profile).to_owned();
    let name = profile
        .file_name()
        .map_or("debug".into(), |n| n.to_string_lossy().into_owned());
    let name = if name == "debug" {
        "dev".to_owned()
    } else {
        name
    };
    static BUILD: std::sync::Once = std::sync::Once::new();
    BUILD.call_once(|| {
        let status = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
            .args([
                "build",
                "--quiet",
                "-p",
                "spanloom-engine",
                "--bin",
                "spanloom-engine-host",
            ])
            .arg("--profile")
            .arg(&name)
            .arg("--target-dir")
            .arg(&target)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        let built = status.expect("cargo runs").success();
        assert!(
            built,
            "cargo build -p spanloom-engine --bin spanloom-engine-host failed"
        );
    });
    program
}

/// Whether the program is newer than what it is made from. Asking cargo each time would be right
/// too, but it compiles much again when it is asked for this crate alone.
fn is_fresh(program: &Path) -> bool {
    fn newest(folder: &Path) -> Option<SystemTime> {
        let mut latest = None;
        for entry in std::fs::read_dir(folder).ok()?.flatten() {
            let time = match entry.file_type().ok()?.is_dir() {
                true => newest(&entry.path()),
                false => entry.metadata().ok()?.modified().ok(),
            };
            latest = latest.max(time);
        }
        latest
    }
    let built = std::fs::metadata(program)
        .and_then(|data| data.modified())
        .ok();
    let source = newest(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    built.is_some() && built > source
}
