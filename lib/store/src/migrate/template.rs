//! The text of a migration: SQL with named placeholders.
//!
//! Statements end with `;` at the end of a line. A line that begins with `--` is a note and no part of
//! them. The placeholders are
//!
//! | placeholder | stands for |
//! |---|---|
//! | `${database}` | our database, in `` ` `` as a name or in `'` as text; escaped for the quotes it stands in |
//! | `${cluster}` | the ClickHouse cluster, likewise |
//! | `${retention_seconds}` | how long spans, measures and catalogue live |
//! | `${half_edges_seconds}` | how long half-edges live |
//! | `${half_edges_whole_ms}` | how long all half-edges of a minute are there for certain |
//! | `${deduplication_window}` | how many inserts a table remembers |

use crate::schema::SchemaOptions;
use crate::schema::render::escape;
use crate::schema::rollup::whole_ms;

/// The statements of a text, its placeholders filled in.
pub(super) fn statements(text: &str, options: &SchemaOptions) -> Vec<String> {
    let notes_left_out: Vec<&str> = text.lines().filter(|l| !l.starts_with("--")).collect();
    let text = notes_left_out.join("\n");
    text.split(";\n")
        .map(|statement| statement.trim().trim_end_matches(';'))
        .filter(|statement| !statement.is_empty())
        .map(|statement| fill(statement, options))
        .collect()
}

/// Fills in the placeholders, each of them once: what stands for one is not looked at again.
fn fill(text: &str, options: &SchemaOptions) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        filled.push_str(before);
        let quote = before.chars().next_back();
        let value = after
            .split_once('}')
            .and_then(|(name, after)| Some((value(name, quote, options)?, after)));
        match value {
            Some((value, after)) => {
                filled.push_str(&value);
                rest = after;
            }
            // Not one of ours; a test finds that in a migration.
            None => {
                filled.push_str("${");
                rest = after;
            }
        }
    }
    filled.push_str(rest);
    filled
}

fn value(name: &str, quote: Option<char>, options: &SchemaOptions) -> Option<String> {
    let quoted = |text: &str| {
        let quote = quote.filter(|quote| matches!(quote, '`' | '\''))?;
        Some(escape(text, quote))
    };
    match name {
        "database" => quoted(&options.database),
        "cluster" => quoted(options.cluster.as_deref()?),
        "retention_seconds" => Some(options.retention.as_secs().to_string()),
        "half_edges_seconds" => Some(options.half_edges_ttl.as_secs().to_string()),
        "half_edges_whole_ms" => Some(whole_ms(options.half_edges_ttl).to_string()),
        "deduplication_window" => Some(options.deduplication_window.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &[&str]) {
        let options = SchemaOptions {
            database: "a`b'c${cluster}".to_owned(),
            cluster: Some("d`'\\".to_owned()),
            ..SchemaOptions::default()
        };
        assert_eq!(statements(text, &options), expect, "{text}");
    }

    #[test]
    fn statements_are_cut_and_filled_in() {
        check("", &[]);
        check("-- a note\n", &[]);
        check("SELECT 1;\n", &["SELECT 1"]);
        check(
            "-- a;\n\nSELECT 1;\n\n-- b\nSELECT\n    -- stays\n    2;\n",
            &["SELECT 1", "SELECT\n    -- stays\n    2"],
        );
        check("SELECT ';' FROM t", &["SELECT ';' FROM t"]);
        check(
            "SELECT 1 FROM `${database}`.`t`",
            &["SELECT 1 FROM `a\\`b'c${cluster}`.`t`"],
        );
        check(
            "SELECT '${database}', '${cluster}'",
            &["SELECT 'a`b\\'c${cluster}', 'd`\\'\\\\'"],
        );
        check("ON CLUSTER `${cluster}`", &["ON CLUSTER `d\\`'\\\\`"]);
        check(
            "${retention_seconds} ${half_edges_seconds}",
            &["604800 7200"],
        );
        check(
            "${half_edges_whole_ms}/${deduplication_window}",
            &["6600000/20000"],
        );
    }

    #[test]
    fn what_cannot_be_filled_in_stays() {
        for text in [
            "${database}",
            "`x${cluster}`",
            "${}",
            "${retention",
            "${other}",
        ] {
            check(text, &[text]);
        }
    }
}
