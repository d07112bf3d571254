//! `spanloom traceql check`: whether queries are TraceQL that can be run, without a server.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde::Serialize;
use spanloom_traceql::{CompiledQuery, Error, Position};

#[derive(Debug, Args)]
pub(crate) struct TraceqlArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say of each query, one a line, whether it is valid, and if not, where and why. Exits with 1 when any
    /// is not.
    Check(CheckArgs),
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
    /// The file of queries; standard input without it.
    file: Option<PathBuf>,
}

/// What is printed of a query.
#[derive(Debug, Serialize)]
struct Line<'q> {
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    query: &'q str,
}

pub(crate) fn run(args: TraceqlArgs) -> Result<ExitCode> {
    let Command::Check(args) = args.command;
    let text = read(args.file.as_deref())?;
    let mut out = io::stdout().lock();
    if check(&text, args.json, &mut out)? {
        Ok(ExitCode::SUCCESS)
    } else {
        Ok(ExitCode::FAILURE)
    }
}

fn read(file: Option<&Path>) -> Result<String> {
    match file {
        Some(file) => {
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
        }
        None => {
            let mut text = String::new();
            let read = io::stdin().read_to_string(&mut text);
            read.context("cannot read standard input")?;
            Ok(text)
        }
    }
}

/// Prints the verdict on each line that is not blank; says whether all are valid. `line` is the line of the
/// input.
fn check(text: &str, json: bool, out: &mut impl Write) -> Result<bool> {
    let mut all_valid = true;
    for (n, query) in text.lines().enumerate() {
        if query.trim().is_empty() {
            continue;
        }
        let error = CompiledQuery::new(query).err();
        all_valid &= error.is_none();
        let line = verdict(query, error.as_ref(), n);
        if json {
            serde_json::to_writer(&mut *out, &line)?;
            writeln!(out)?;
        } else {
            match error {
                None => writeln!(out, "valid: {query}")?,
                Some(error) => {
                    let at = Position {
                        line: line.line.unwrap_or(1),
                        ..error.at
                    };
                    writeln!(out, "{}: {query}", line.verdict)?;
                    writeln!(out, "  {}", Error { at, ..error })?;
                }
            }
        }
    }
    Ok(all_valid)
}

fn verdict<'q>(query: &'q str, error: Option<&Error>, n: usize) -> Line<'q> {
    Line {
        verdict: error.map_or("valid", |e| e.verdict().text()),
        line: error.map(|e| {
            e.at.line
                .saturating_add(u32::try_from(n).unwrap_or(u32::MAX))
        }),
        column: error.map(|e| e.at.column),
        message: error.map(Error::message),
        query,
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    fn checked(text: &str, json: bool) -> (bool, String) {
        let mut out = Vec::new();
        let valid = check(text, json, &mut out).unwrap();
        (valid, String::from_utf8(out).unwrap())
    }

    #[test]
    fn each_line_has_a_verdict() {
        let (valid, out) = checked("{ }\n\n  \n{ .a = }\n{ name > 3 }\n{ parent.a }\n", false);
        assert!(!valid);
        assert_eq!(
            out.lines()
                .filter(|l| !l.starts_with(' '))
                .collect::<Vec<_>>(),
            [
                "valid: { }",
                "parse_error: { .a = }",
                "invalid: { name > 3 }",
                "unsupported: { parent.a }"
            ]
        );
        assert!(
            out.contains("  line 4, column 8: expected a value, found `}`"),
            "{out}"
        );
        assert!(checked("{ } | rate()\n", false).0);
        assert_eq!(checked("\n", false), (true, String::new()));
    }

    #[test]
    fn json_has_one_object_a_line() {
        let (valid, out) = checked("{ }\r\n{ .a =", true);
        assert!(!valid);
        let lines: Vec<serde_json::Value> = out
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(
            lines[0],
            serde_json::json!({ "verdict": "valid", "query": "{ }" })
        );
        assert_eq!(lines[1]["verdict"], "parse_error");
        assert_eq!(lines[1]["line"], 2);
        assert_eq!(lines[1]["column"], 7);
        assert_eq!(lines[1]["query"], "{ .a =");
        assert_eq!(lines[1]["message"], "expected a value, found the end");
    }
}
