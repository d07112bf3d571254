//! Rules about what users read: the words of the field (the glossary of CONTRIBUTING.md), and lines of
//! prose that fit a screen.

use super::Source;

/// Lines of prose have fewer columns than this. Tables and code cannot be broken.
const COLUMNS: usize = 120;

/// Literal translations and quaint words, with what to write.
const PHRASES: &[(&str, &str)] = &[
    (" is no ", "is not a valid …"),
    ("there is no such", "… does not exist"),
    ("the document is", "the spec is"),
    ("a question", "a query"),
    ("the question", "the query"),
    ("questions", "queries"),
    ("whom", "who"),
    ("first page", "web UI"),
    ("data folder", "data directory"),
    ("begins anew", "restarting"),
    ("to be mended", "until … is fixed"),
    ("last words", "the last log lines"),
    ("all the way", "received, stored and returned"),
    ("means nothing", "has no effect"),
];

/// Programs whose messages, help and descriptions users read.
const PROGRAMS: &[&str] = &["cli/", "query/", "crds/", "operator/", "collector/"];

/// Every rule that `source` breaks.
pub fn check(source: &Source) -> Vec<String> {
    let Source { path, text } = source;
    if path.ends_with(".md") {
        check_page(path, text)
    } else if path.starts_with("charts/") && (path.ends_with(".yaml") || path.ends_with(".txt")) {
        phrases(path, text.lines().enumerate())
    } else if is_program(path) {
        // Comments are for people who read the code; a module of tests ends what users see.
        let code = text.lines().enumerate();
        let code = code.take_while(|(_, line)| line.trim() != "#[cfg(test)]");
        phrases(
            path,
            code.filter(|(_, line)| !line.trim_start().starts_with("//")),
        )
    } else {
        Vec::new()
    }
}

fn is_program(path: &str) -> bool {
    PROGRAMS.iter().any(|program| path.starts_with(program))
        && path.ends_with(".rs")
        && !path.contains("/tests")
}

fn check_page(path: &str, text: &str) -> Vec<String> {
    let prose: Vec<_> = prose(text).collect();
    let mut broken: Vec<String> = prose
        .iter()
        .filter(|(_, line)| !line.starts_with('|') && line.chars().count() >= COLUMNS)
        .map(|(index, _)| format!("{path}:{}: has {COLUMNS} columns or more", index + 1))
        .collect();
    // The glossary names the words that are not to be used.
    let is_glossary = |line: &str| path == "CONTRIBUTING.md" && line.starts_with('|');
    broken.extend(phrases(
        path,
        prose.into_iter().filter(|(_, line)| !is_glossary(line)),
    ));
    broken
}

/// The lines outside of blocks of code.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines().enumerate().filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    })
}

fn phrases<'a>(path: &str, lines: impl Iterator<Item = (usize, &'a str)>) -> Vec<String> {
    let mut broken = Vec::new();
    for (index, line) in lines {
        let lower = line.to_lowercase();
        for (phrase, instead) in PHRASES.iter().filter(|(phrase, _)| has(&lower, phrase)) {
            let phrase = phrase.trim();
            broken.push(format!(
                "{path}:{}: says `{phrase}`; write `{instead}`",
                index + 1
            ));
        }
    }
    broken
}

/// Whether a line has a phrase. "There is no …" and "is no longer" are plain English.
fn has(line: &str, phrase: &str) -> bool {
    line.match_indices(phrase).any(|(at, _)| {
        let before = line.get(..at).unwrap_or_default();
        let after = line.get(at + phrase.len()..).unwrap_or_default();
        phrase.trim() != "is no" || !(before.ends_with("there") || after.starts_with("longer"))
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check_broken, source};
    use super::*;

    fn check_text(path: &str, text: &str, expected: &[&str]) {
        check_broken(&check(&source(path, text)), expected);
    }

    #[test]
    fn quaint_words_are_found_where_users_read() {
        check_text(
            "docs/a.md",
            "x\n`5` is no duration.\n",
            &["a.md:2: says `is no`"],
        );
        check_text("README.md", "Questions are cut.\n", &["write `queries`"]);
        check_text(
            "docs/a.md",
            "There is no status. It is no longer set.\n",
            &[],
        );
        check_text("docs/a.md", "```\na question\n```\n", &[]);
        check_text("CONTRIBUTING.md", "| query | | a question |\n", &[]);
        check_text(
            "charts/spanloom/values.yaml",
            "# The data folder.\n",
            &["directory"],
        );
        check_text(
            "cli/src/up.rs",
            "say(\"{text} is no time\");\n",
            &["up.rs:1"],
        );
        check_text("query/src/db.rs", "/// A question.\n", &[]);
        check_text("query/src/db.rs", "#[cfg(test)]\nmod t { \"whom\" }\n", &[]);
        check_text("query/tests/api.rs", "a(\"the question\");\n", &[]);
        check_text("lib/otlp/src/lib.rs", "a(\"the question\");\n", &[]);
    }

    #[test]
    fn lines_of_prose_fit() {
        let long = "é".repeat(COLUMNS);
        check_text("docs/a.md", &format!("x\n{long}\n"), &["a.md:2: has 120"]);
        check_text("docs/a.md", &format!("|{long}|\n```\n{long}\n```\n"), &[]);
        check_text("docs/a.md", &format!("{}\n", "é".repeat(COLUMNS - 1)), &[]);
        check_text("docs/a.svg", &long, &[]);
    }
}
