//! Rules about single files: length, leftovers, and names that belong on nobody else's machine.

use super::Source;

/// A file is one idea; more lines than this are two.
const RUST_LINES_MAX: usize = 600;

/// A table of cases may be longer.
const TEST_LINES_MAX: usize = 1_000;

/// Words that mean "not finished". Written in halves, so that this file does not break its own rule.
const LEFTOVERS: &[&str] = &[
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("db", "g!("),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("#[ign", "ore"),
    concat!("<<<<", "<<< "),
    concat!(">>>>", ">>> "),
];

/// Package registries are reached through their clients' own settings, never by name.
const REGISTRY_HOSTS: &[&str] = &[
    concat!("crates", ".io"),
    concat!("npmjs", ".org"),
    concat!("npmjs", ".com"),
    concat!("pypi", ".org"),
    concat!("python", "hosted.org"),
    concat!("proxy.golang", ".org"),
    concat!("repo.maven", ".apache.org"),
];

/// Folders of one machine.
const MACHINE_PATHS: &[&str] = &[
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/wo", "rk/"),
];

/// Written by programs, or by others.
fn is_generated(path: &str) -> bool {
    path.ends_with(".lock")
        || path.ends_with("package-lock.json")
        || path.starts_with("fuzz/corpus/")
}

/// Every rule that `source` breaks.
pub fn check(source: &Source) -> Vec<String> {
    let Source { path, text } = source;
    if is_generated(path) || path == "LICENSE" {
        return Vec::new();
    }
    let mut broken = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut found = |what: String| broken.push(format!("{path}:{}: {what}", index + 1));
        for word in LEFTOVERS.iter().filter(|word| line.contains(**word)) {
            found(format!("`{word}` is not finished work"));
        }
        for host in REGISTRY_HOSTS.iter().filter(|host| line.contains(**host)) {
            found(format!("names the registry host `{host}`"));
        }
        for folder in MACHINE_PATHS
            .iter()
            .filter(|folder| names_path(line, folder))
        {
            found(format!("names the folder `{folder}` of one machine"));
        }
        if line.ends_with([' ', '\t', '\r']) && !path.ends_with(".svg") && !is_recorded(path) {
            found("ends with white space".to_owned());
        }
    }
    if !text.is_empty() && !text.ends_with('\n') && !is_recorded(path) {
        broken.push(format!("{path}: does not end with a line break"));
    }
    if path.ends_with(".rs") {
        check_rust(path, text, &mut broken);
    }
    broken
}

fn check_rust(path: &str, text: &str, broken: &mut Vec<String>) {
    // `tests.rs` beside a file: what it is for is that file.
    let is_tests = path.ends_with("/tests.rs");
    let lines_max = if is_tests {
        TEST_LINES_MAX
    } else {
        RUST_LINES_MAX
    };
    let lines = text.lines().count();
    if lines > lines_max {
        broken.push(format!(
            "{path}: {lines} lines; a file is one idea of {lines_max} at most"
        ));
    }
    let mut words = text
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with("#!["));
    if !is_tests && !words.next().is_some_and(|line| line.starts_with("//!")) {
        broken.push(format!(
            "{path}: does not start with what the file is for (//!)"
        ));
    }
}

/// Whether the folder is the start of a path, not the end of a longer one.
fn names_path(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line.get(..at).and_then(|head| head.chars().next_back());
        before.is_none_or(|c| {
            !(c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '~' | '}' | ')' | '/'))
        })
    })
}

/// Whether a file is what others answered: it is compared as it came.
fn is_recorded(path: &str) -> bool {
    path.starts_with("e2e/golden/") && !path.ends_with(".md") && !path.ends_with(".py")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check_broken, source};
    use super::*;

    fn check_lines(path: &str, text: &str, expected: &[&str]) {
        check_broken(&check(&source(path, text)), expected);
    }

    #[test]
    fn good_files_pass() {
        check_lines("a.rs", "//! A file.\n", &[]);
        check_lines("a.rs", "#![allow(x)]\n//! A file.\n", &[]);
        check_lines("docs/a.md", "# A page\n", &[]);
        check_lines("a/tests.rs", "use super::*;\n", &[]);
        check_lines("a.md", "", &[]);
        check_lines("Cargo.lock", concat!("crates", ".io \n"), &[]);
        check_lines("a.md", concat!("https://api/ro", "ot/x ~/ro", "ot/\n"), &[]);
    }

    #[test]
    fn each_rule_names_its_place() {
        check_lines("a.md", concat!("x\nTO", "DO later\n"), &["a.md:2"]);
        check_lines("a.md", concat!("see crates", ".io\n"), &["registry"]);
        check_lines("a.md", concat!("in `/ro", "ot/x`\n"), &["one machine"]);
        check_lines("a.md", concat!("/ho", "me/me\n"), &["one machine"]);
        check_lines("a.md", "x \n", &["white space"]);
        check_lines("a.md", "x", &["line break"]);
        check_lines("a.rs", "fn main() {}\n", &["what the file is for"]);
        let long = format!("//! Long.\n{}", "\n".repeat(RUST_LINES_MAX));
        check_lines("a.rs", &long, &["one idea"]);
    }
}
