//! `spanloom accounts`: what became of the spans that were received, as a table or as the API's JSON.

use std::fmt::Write;

use serde::Deserialize;

use crate::client::ServiceArgs;
use crate::render::{self, Output, Paint, Style};
use crate::window::WindowArgs;

/// `spanloom accounts`'s flags.
#[derive(Debug, clap::Args)]
pub struct AccountsArgs {
    /// Only collectors on this node.
    #[arg(long)]
    node: Option<String>,
    /// Only this collector, by the name of its pod.
    #[arg(long)]
    agent: Option<String>,
    /// Only this stage, such as receive, process, sample or store.
    #[arg(long)]
    stage: Option<String>,
    /// Only this reason, such as stored or head_sampling.
    #[arg(long)]
    reason: Option<String>,
    /// Show a row for each node or agent (collector); repeat the flag for both.
    #[arg(long, value_name = "COLUMN", value_enum)]
    by: Vec<By>,
    /// Step of the time series, in whole minutes, such as 1m or 1h; use it with --output json.
    #[arg(long, value_name = "DURATION")]
    step: Option<String>,
    #[command(flatten)]
    window: WindowArgs,
    /// The output format.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    service_args: ServiceArgs,
}

/// What accounts can be listed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum By {
    /// By node.
    Node,
    /// The agent.
    Agent,
}

#[derive(Debug, Deserialize)]
struct Answer {
    accounts: Vec<Account>,
    total: Total,
    truncated: bool,
}

#[derive(Debug, Deserialize)]
struct Account {
    node: Option<String>,
    agent: Option<String>,
    stage: String,
    reason: String,
    spans: u64,
    bytes: u64,
}

#[derive(Debug, Deserialize)]
struct Total {
    spans: u64,
    bytes: u64,
}

/// Asks and prints.
///
/// # Errors
/// When the service cannot be reached, or refuses the request.
pub fn run(args: AccountsArgs) -> anyhow::Result<()> {
    args.service_args.show(
        "accounts",
        &parameters(&args),
        args.output == Output::Json,
        table,
    )
}

fn parameters(args: &AccountsArgs) -> Vec<(&'static str, String)> {
    let mut parameters = Vec::from(args.window.parameters());
    let optional = [
        ("node", &args.node),
        ("agent", &args.agent),
        ("stage", &args.stage),
        ("reason", &args.reason),
        ("step", &args.step),
    ];
    let given = optional
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.clone()?)));
    parameters.extend(given);
    parameters.extend(args.by.iter().map(|by| {
        let by = match by {
            By::Node => "node",
            By::Agent => "agent",
        };
        ("by", by.to_owned())
    }));
    parameters
}

/// The columns of text, the amounts right of them, and all of it together below.
fn table(answer: &Answer, style: Style) -> String {
    if answer.accounts.is_empty() {
        return "no spans were received; try a longer --since or fewer conditions\n".to_owned();
    }
    let names = |account: &Account| {
        let names = [
            account.node.as_deref(),
            account.agent.as_deref(),
            Some(account.stage.as_str()),
            Some(account.reason.as_str()),
        ];
        names.map(|name| name.map(render::clean))
    };
    let rows: Vec<_> = answer.accounts.iter().map(names).collect();
    let headings = ["NODE", "AGENT", "STAGE", "REASON"];
    let mut widths = headings.map(str::len);
    for row in &rows {
        for (width, name) in widths.iter_mut().zip(row) {
            *width = (*width).max(name.as_deref().map_or(0, render::text_width));
        }
    }
    // All rows have the same columns.
    let shown = rows.first().map(|row| row.each_ref().map(Option::is_some));
    let shown = shown.unwrap_or_default();
    let names = |names: [&str; 4]| {
        let columns = names.into_iter().zip(widths).zip(shown);
        let columns = columns.filter(|(_, shown)| *shown);
        let mut line = String::new();
        for ((name, width), _) in columns {
            line.push_str(&render::pad(name, width));
            line.push_str("  ");
        }
        line
    };
    let mut text = String::new();
    let heading = format!(
        "{}{:>12}  {:>7}  {:>9}",
        names(headings),
        "SPANS",
        "SHARE",
        "BYTES"
    );
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}", style.paint(Paint::Bold, &heading));
    for (row, account) in rows.iter().zip(&answer.accounts) {
        let row = row
            .each_ref()
            .map(|name| name.as_deref().unwrap_or_default());
        let _ = writeln!(
            text,
            "{}{:>12}  {:>7}  {:>9}",
            names(row),
            account.spans,
            share(account.spans, answer.total.spans),
            render::bytes(account.bytes),
        );
    }
    let total = format!(
        "{}{:>12}  {:>7}  {:>9}",
        render::pad("total", render::text_width(&names([""; 4]))),
        answer.total.spans,
        "",
        render::bytes(answer.total.bytes),
    );
    let _ = writeln!(text, "{}", style.paint(Paint::Bold, &total));
    if answer.truncated {
        let hint = "more rows match than are shown; the total includes all of them";
        let _ = writeln!(text, "{}", style.paint(Paint::Dim, hint));
    }
    text
}

/// A part of all, in per cent; nothing of none.
fn share(spans: u64, of: u64) -> String {
    if of == 0 || spans == 0 {
        return String::new();
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let percent = spans as f64 / of as f64 * 100.0;
    match percent {
        ..0.1 => "< 0.1 %".to_owned(),
        _ => format!("{percent:.1} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(node: Option<&str>, stage: &str, reason: &str, spans: u64, bytes: u64) -> Account {
        Account {
            node: node.map(str::to_owned),
            agent: None,
            stage: stage.to_owned(),
            reason: reason.to_owned(),
            spans,
            bytes,
        }
    }

    #[track_caller]
    fn check(accounts: Vec<Account>, truncated: bool, expect: &str) {
        let total = Total {
            spans: accounts.iter().map(|account| account.spans).sum(),
            bytes: accounts.iter().map(|account| account.bytes).sum(),
        };
        let answer = Answer {
            accounts,
            total,
            truncated,
        };
        let style = Style {
            width: 80,
            colour: false,
        };
        assert_eq!(table(&answer, style), expect);
    }

    #[test]
    fn a_row_for_each_reason_and_all_of_it_below() {
        check(
            vec![
                account(None, "store", "stored", 812_040, 40 << 20),
                account(None, "sample", "head_sampling", 187_900, 9 << 20),
                account(None, "process", "drop", 60, 3_000),
                account(None, "receive", "memory", 0, 1 << 20),
            ],
            false,
            "STAGE    REASON                SPANS    SHARE      BYTES\n\
             store    stored               812040   81.2 %   40.0 MiB\n\
             sample   head_sampling        187900   18.8 %   9.00 MiB\n\
             process  drop                     60  < 0.1 %   2.93 KiB\n\
             receive  memory                    0            1.00 MiB\n\
             total                        1000000            50.0 MiB\n",
        );
    }

    #[test]
    fn nodes_are_a_column_where_they_were_asked_for() {
        check(
            vec![account(Some("n\x1b1"), "store", "stored", 1, 1)],
            true,
            "NODE      STAGE  REASON         SPANS    SHARE      BYTES\n\
             n\\u{1b}1  store  stored             1  100.0 %        1 B\n\
             total                               1                 1 B\n\
             more rows match than are shown; the total includes all of them\n",
        );
    }

    #[test]
    fn nothing_received() {
        check(
            Vec::new(),
            false,
            "no spans were received; try a longer --since or fewer conditions\n",
        );
    }
}
