//! The table of values in the chart's README, made from the comments in values.yaml.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::Value;

/// The table stands between these lines.
const BEGIN: &str = "<!-- values: made by `cargo xtask chart readme` -->";
const END: &str = "<!-- end of values -->";

/// The README as it should be.
pub fn made(chart: &Path) -> anyhow::Result<String> {
    let values = std::fs::read_to_string(chart.join("values.yaml"))?;
    let readme = std::fs::read_to_string(chart.join("README.md"))?;
    let place = || format!("the README has no line `{BEGIN}`, or none `{END}` after it");
    let (head, rest) = readme.split_once(BEGIN).with_context(place)?;
    let (_, tail) = rest.split_once(END).with_context(place)?;
    Ok(format!("{head}{BEGIN}\n{}{END}{tail}", table(&values)?))
}

/// A key of values.yaml that has a comment.
struct Row {
    path: String,
    about: String,
    default: Value,
}

fn table(values: &str) -> anyhow::Result<String> {
    let mut text = "\n| value | default | what |\n|---|---|---|\n".to_owned();
    for Row {
        path,
        about,
        default,
    } in rows(values)?
    {
        let about = about.replace('|', "\\|");
        writeln!(text, "| `{path}` | `{default}` | {about} |")?;
    }
    text.push('\n');
    Ok(text)
}

/// Every key with a comment, in the file's order. One without must hold others that have.
fn rows(values: &str) -> anyhow::Result<Vec<Row>> {
    let root: Value = serde_yaml::from_str(values).context("values.yaml is not YAML")?;
    let mut rows: Vec<Row> = Vec::new();
    // The keys above a line, with how far each is indented.
    let mut above: Vec<(usize, String)> = Vec::new();
    let mut about: Vec<&str> = Vec::new();
    // Inside a value that was described as a whole.
    let mut described: Option<usize> = None;
    for (index, line) in values.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim();
        if described.is_some_and(|outer| indent > outer && !line.is_empty()) {
            continue;
        }
        described = None;
        if let Some(comment) = line.strip_prefix('#') {
            about.push(comment.trim());
            continue;
        }
        let Some((key, _)) = line.split_once(':') else {
            about.clear();
            continue;
        };
        above.retain(|(outer, _)| *outer < indent);
        above.push((indent, key.to_owned()));
        let keys: Vec<_> = above.iter().map(|(_, key)| key.as_str()).collect();
        let default = root.pointer(&format!("/{}", keys.join("/")));
        let default = default.with_context(|| format!("values.yaml:{}: not read", index + 1))?;
        let path = keys.join(".");
        if !about.is_empty() {
            described = Some(indent);
            rows.push(Row {
                path,
                about: std::mem::take(&mut about).join(" "),
                default: default.clone(),
            });
        } else if default.as_object().is_none_or(|map| map.is_empty()) {
            bail!(
                "values.yaml:{}: {path} has no comment that says what it is",
                index + 1
            );
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(values: &str, expect: &[(&str, &str, &str)]) {
        let rows = rows(values).unwrap();
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                (
                    row.path.as_str(),
                    row.about.as_str(),
                    row.default.to_string(),
                )
            })
            .collect();
        let rows: Vec<_> = rows.iter().map(|(p, a, d)| (*p, *a, d.as_str())).collect();
        assert_eq!(rows, expect);
    }

    #[test]
    fn comments_describe_the_key_below() {
        check("# A file.\n\n# One.\na: 1\n", &[("a", "One.", "1")]);
        check(
            "a:\n  # One, in\n  # two lines.\n  b: x\n  c:\n    # Two.\n    d: []\n# Three.\ne: {}\n",
            &[
                ("a.b", "One, in two lines.", "\"x\""),
                ("a.c.d", "Two.", "[]"),
                ("e", "Three.", "{}"),
            ],
        );
    }

    #[test]
    fn a_described_value_is_one_row() {
        check(
            "# All.\na:\n  b: 1\n  c:\n    d: 2\n# Next.\ne: 3\n",
            &[("a", "All.", r#"{"b":1,"c":{"d":2}}"#), ("e", "Next.", "3")],
        );
    }

    #[test]
    fn a_key_without_a_word_is_an_error() {
        for values in [
            "a: 1\n",
            "a:\n  b: 1\n",
            "# A.\na: 1\nb: 2\n",
            "# A file.\n\na: 1\n",
        ] {
            assert!(rows(values).is_err(), "{values}");
        }
    }
}
