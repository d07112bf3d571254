//! What the end-to-end scenarios and `cargo xtask up` need to run Spanloom as a stranger would.
//!
//! [`spanloom`] starts the real program as a child, waits until it is ready and asks its API;
//! [`clients`] installs the official OpenTelemetry SDKs of other languages, once, into the user's
//! cache; [`expect`] brings what an SDK says it sent and what the API says it holds into one form; [`compat`] takes the chart that
//! an upgrade starts from out of git.
//! The scenarios themselves are in `tests/`.

pub mod clients;
pub mod compat;
pub mod expect;
pub mod spanloom;

use std::path::{Path, PathBuf};

/// The folder of the workspace: scenarios and clients are read from it.
pub fn workspace() -> &'static Path {
    // This crate lies one folder below the workspace.
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// `$XDG_CACHE_HOME/spanloom` or `~/.cache/spanloom`: what can be fetched or made again.
///
/// # Errors
/// When neither `XDG_CACHE_HOME` nor `HOME` is set.
pub fn cache_dir() -> anyhow::Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(cache) = set("XDG_CACHE_HOME") {
        return Ok(PathBuf::from(cache).join("spanloom"));
    }
    match set("HOME") {
        Some(home) => Ok(PathBuf::from(home).join(".cache/spanloom")),
        None => anyhow::bail!("HOME is not set, so there is no cache folder; set XDG_CACHE_HOME"),
    }
}
