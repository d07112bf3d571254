//! Running small commands: quietly, and with what they said in the error.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, bail};

/// Runs a command to its end and gives what it printed.
///
/// # Errors
/// When it cannot run or fails; with what it said.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let done = ended(command)?;
    if !done.status.success() {
        bail!(
            "`{}` ended with {}: {}{}",
            words(command),
            done.status,
            String::from_utf8_lossy(&done.stderr).trim(),
            String::from_utf8_lossy(&done.stdout).trim(),
        );
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Runs a command to its end.
///
/// # Errors
/// As [`output`].
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    output(command).map(|_| ())
}

/// Runs a line of words, split at blanks.
///
/// # Errors
/// As [`output`].
pub fn line(words: &str) -> anyhow::Result<String> {
    let mut words = words.split_whitespace();
    let program = words.next().context("no command")?;
    output(Command::new(program).args(words))
}

/// Whether a line of words succeeds.
pub fn succeeds(words: &str) -> bool {
    line(words).is_ok()
}

fn ended(command: &mut Command) -> anyhow::Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run `{}`", words(command)))
}

fn words(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// A program of this name in the folders that hold programs, those for administrators included:
/// they are not in everyone's `PATH`.
pub fn which(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/local/bin"].map(Into::into);
    std::env::split_paths(&path)
        .chain(more)
        .map(|folder| folder.join(name))
        .find(|program| is_program(program))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}
