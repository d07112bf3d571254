//! The house rules that no other tool checks, over every file that git tracks.
//!
//! [`text`] looks at single files, [`words`] at what users read, [`manifests`] at what crates depend on,
//! [`links`] at pages. A rule
//! answers with sentences that name the place; no answer means that it holds.

mod links;
mod manifests;
mod text;
mod words;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

/// A tracked text file.
struct Source {
    /// Relative to the workspace, with slashes.
    path: String,
    text: String,
}

/// Every broken rule in the workspace.
///
/// # Errors
/// When git cannot list the files.
pub fn check(workspace: &Path) -> anyhow::Result<Vec<String>> {
    let sources = sources(workspace)?;
    ensure!(
        !sources.is_empty(),
        "git tracks no file in {}",
        workspace.display()
    );
    let mut broken: Vec<String> = sources.iter().flat_map(text::check).collect();
    broken.extend(sources.iter().flat_map(words::check));
    broken.extend(manifests::check(&sources));
    broken.extend(links::check(&sources));
    Ok(broken)
}

fn sources(workspace: &Path) -> anyhow::Result<Vec<Source>> {
    let output = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(workspace)
        .output()
        .context("cannot run git")?;
    ensure!(
        output.status.success(),
        "git ls-files ended with {}",
        output.status
    );
    let list = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
    let read = |path: &str| {
        // Deleted but not yet committed: nothing to look at. A picture can be linked to, and has no text.
        let bytes = std::fs::read(workspace.join(path)).ok()?;
        let text = String::from_utf8(bytes).unwrap_or_default();
        Some(Source {
            path: path.to_owned(),
            text,
        })
    };
    Ok(list.split_terminator('\0').filter_map(read).collect())
}

#[cfg(test)]
mod tests {
    use super::Source;

    pub(super) fn source(path: &str, text: &str) -> Source {
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    /// Each broken rule says what is expected, in order, and there are no others.
    pub(super) fn check_broken(broken: &[String], expected: &[&str]) {
        assert_eq!(broken.len(), expected.len(), "{broken:?}");
        for (broken, expected) in broken.iter().zip(expected) {
            assert!(
                broken.contains(expected),
                "{broken:?} does not say {expected:?}"
            );
        }
    }

    #[test]
    fn the_house_is_tidy() {
        let broken = super::check(spanloom_e2e::workspace()).unwrap();
        assert!(
            broken.is_empty(),
            "house rules are broken:\n  {}",
            broken.join("\n  ")
        );
    }
}
