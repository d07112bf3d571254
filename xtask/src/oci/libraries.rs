//! The shared libraries that a program needs: what `ldd` names, and the loader itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::tree::Tree;
use crate::cluster::sh;

/// Puts a program and its libraries into the tree. Libraries keep their places, where the loader looks.
///
/// # Errors
/// When the program is not there or a library is missing.
pub fn add_program(tree: &mut Tree, path: &str, program: &Path) -> anyhow::Result<()> {
    tree.copy(path, program)?;
    add_libraries_of(tree, program)
}

/// Puts the libraries of a program, or of a library, into the tree.
///
/// # Errors
/// When one is missing.
pub fn add_libraries_of(tree: &mut Tree, program: &Path) -> anyhow::Result<()> {
    for library in of(program)? {
        let path = library
            .to_str()
            .with_context(|| format!("{} is not UTF-8", library.display()))?;
        if !tree.has(path) {
            tree.copy(path, &library)?;
        }
    }
    Ok(())
}

/// Where the libraries lie here; none for a static program.
fn of(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let said = match sh::output(Command::new("ldd").arg(program).env("LC_ALL", "C")) {
        Ok(said) => said,
        // It fails then, and says so.
        Err(error) if format!("{error:#}").contains("not a dynamic executable") => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error).context("cannot tell which libraries a program needs"),
    };
    parse(&said).with_context(|| format!("{} cannot run here", program.display()))
}

fn parse(said: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut libraries = Vec::new();
    for line in said.lines() {
        let line = line.trim();
        if line.contains("not found") {
            bail!("a library is missing: {line}");
        }
        // `libc.so.6 => /lib/libc.so.6 (0x…)`, or `/lib64/ld-linux-x86-64.so.2 (0x…)`
        let path = line.rsplit(" => ").next().unwrap_or(line);
        let path = path.split(" (").next().unwrap_or(path);
        if path.starts_with('/') {
            libraries.push(PathBuf::from(path));
        }
    }
    Ok(libraries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ldd_says_becomes_paths() {
        let said = "\tlinux-vdso.so.1 (0x00007fff)\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(parse(said).unwrap(), expected.map(PathBuf::from));
        assert_eq!(
            parse("\tstatically linked\n").unwrap(),
            Vec::<PathBuf>::new()
        );
        assert!(parse("\tlibx.so => not found\n").is_err());
    }
}
