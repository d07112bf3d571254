//! The chart that an upgrade starts from: `e2e/compat/chart` names its commit, git has it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

/// The folder of the chart in the commit that `e2e/compat/chart` names, taken out of git once.
///
/// # Errors
/// When the file names no commit, or git does not have it.
pub fn earlier_chart() -> anyhow::Result<PathBuf> {
    let file = crate::workspace().join("e2e/compat/chart");
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("cannot read {}", file.display()))?;
    chart_of(named(&text)?)
}

/// The commit in the file's one line that is not a comment.
fn named(text: &str) -> anyhow::Result<&str> {
    let lines = text.lines().map(str::trim);
    let lines: Vec<_> = lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    let is_commit = |word: &str| {
        word.len() == 40
            && word
                .bytes()
                .all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
    };
    match lines.as_slice() {
        [commit] if is_commit(commit) => Ok(commit),
        _ => bail!("e2e/compat/chart must hold one line: a commit's 40 hexadecimal digits"),
    }
}

fn chart_of(commit: &str) -> anyhow::Result<PathBuf> {
    let folder = crate::cache_dir()?.join("compat").join(commit);
    let chart = folder.join("charts/spanloom");
    if chart.is_dir() {
        return Ok(chart);
    }
    let parent = folder.parent().context("a cache folder at the root")?;
    std::fs::create_dir_all(parent)?;
    let work = parent.join(format!("{commit}.{}", std::process::id()));
    std::fs::create_dir_all(&work)?;
    let taken = take_out(commit, &work);
    if taken.is_ok() && !chart.is_dir() {
        // Another process may have been quicker: its folder holds the same.
        let _ = std::fs::rename(&work, &folder);
    }
    let _ = std::fs::remove_dir_all(&work);
    taken?;
    ensure!(chart.is_dir(), "cannot make {}", chart.display());
    Ok(chart)
}

fn take_out(commit: &str, folder: &Path) -> anyhow::Result<()> {
    let mut git = Command::new("git")
        .args(["archive", commit, "charts/spanloom"])
        .current_dir(crate::workspace())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run git")?;
    let archive = git.stdout.take().context("git has no output")?;
    let tar = Command::new("tar")
        .arg("-x")
        .arg("-C")
        .arg(folder)
        .stdin(archive)
        .status()
        .context("cannot run tar")?;
    let archived = git.wait().context("git has gone")?;
    ensure!(
        archived.success() && tar.success(),
        "git has no charts/spanloom of the commit {commit}, which e2e/compat/chart names: `git \
         fetch --unshallow` brings the whole history"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Option<&str>) {
        assert_eq!(named(text).ok(), expect, "{text:?}");
    }

    #[test]
    fn one_commit() {
        const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
        check(&format!("# Why.\n\n {COMMIT}\n"), Some(COMMIT));
        check("none", None);
        check("", None);
        check("main", None);
        check("0123456", None);
        check(&format!("{COMMIT}\n{COMMIT}\n"), None);
        check(&COMMIT.to_uppercase(), None);
    }

    #[test]
    fn what_git_does_not_have_is_named() {
        let commit = "0".repeat(40);
        let error = chart_of(&commit).unwrap_err().to_string();
        assert!(error.contains(&commit), "{error}");
    }

    #[test]
    fn the_named_chart_can_be_had() {
        let chart = earlier_chart().unwrap();
        assert!(chart.join("Chart.yaml").is_file());
    }

    #[test]
    fn a_chart_comes_out_of_git() {
        let log = Command::new("git")
            .args(["rev-list", "-1", "HEAD", "--", "charts/spanloom/Chart.yaml"])
            .current_dir(crate::workspace())
            .output()
            .unwrap();
        let commit = String::from_utf8(log.stdout).unwrap();
        let folder = tempfile::tempdir().unwrap();
        take_out(commit.trim(), folder.path()).unwrap();
        assert!(folder.path().join("charts/spanloom/Chart.yaml").is_file());
    }
}
