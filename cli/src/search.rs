//! `spanloom search`: the newest traces that match, as a table or as the API's JSON.

use std::fmt::{Display, Write};

use serde::Deserialize;

use crate::client::ServiceArgs;
use crate::render::{self, Output, Paint, Style};
use crate::window::WindowArgs;

/// `spanloom search`'s flags.
#[derive(Debug, clap::Args)]
pub struct SearchArgs {
    /// A TraceQL query, such as '{ status = error && duration > 1s }', instead of the conditions below.
    #[arg(conflicts_with_all = CONDITIONS)]
    query: Option<String>,
    /// Only spans of this service.
    #[arg(long)]
    service: Option<String>,
    /// Only spans with this name.
    #[arg(long)]
    operation: Option<String>,
    /// Only spans with this status: unset, ok or error.
    #[arg(long)]
    status: Option<String>,
    /// Only spans of this kind: internal, server, client, producer or consumer.
    #[arg(long)]
    kind: Option<String>,
    /// Only spans with this attribute: of the span, its resource, or one of its events or links.
    /// Repeat the flag for several attributes. error=true matches spans with status error.
    #[arg(long = "tag", value_name = "KEY=VALUE")]
    tags: Vec<String>,
    /// Minimum duration of a span, such as 100ms or 1.5s.
    #[arg(long, value_name = "DURATION")]
    min_duration: Option<String>,
    /// Maximum duration of a span.
    #[arg(long, value_name = "DURATION")]
    max_duration: Option<String>,
    #[command(flatten)]
    window: WindowArgs,
    /// Maximum number of traces to print, up to 100.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: u32,
    /// Continue after a previous page: its nextCursor, with the same --start and --end.
    #[arg(long, requires = "start", requires = "end")]
    cursor: Option<String>,
    /// Also print how the search was run, and what it read.
    #[arg(long)]
    explain: bool,
    /// The output format.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    service_args: ServiceArgs,
}

/// The flags that are conditions, which a query has in itself.
const CONDITIONS: [&str; 7] = [
    "service",
    "operation",
    "status",
    "kind",
    "tags",
    "min_duration",
    "max_duration",
];

#[derive(Debug, Deserialize)]
struct Answer {
    traces: Vec<Trace>,
    truncated: bool,
    #[serde(default)]
    partial: Option<Partial>,
    #[serde(default)]
    hint: Option<String>,
    #[serde(default)]
    explain: Option<Explanation>,
}

#[derive(Debug, Deserialize)]
struct Partial {
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Trace {
    trace_id: String,
    root_service: String,
    root_operation: String,
    #[serde(default)]
    root_missing: bool,
    start: String,
    duration_ns: String,
    span_count: u64,
    error_count: u64,
    #[serde(default)]
    matched_span_count: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Explanation {
    #[serde(default)]
    query: Option<String>,
    #[serde(default)]
    pushed_down: Option<String>,
    evaluated: Vec<String>,
    clickhouse: Reads,
    #[serde(default)]
    inspected: Option<Inspected>,
    duration_ns: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reads {
    queries: u64,
    rows_read: u64,
    bytes_read: u64,
    result_bytes: u64,
}

#[derive(Debug, Deserialize)]
struct Inspected {
    traces: u64,
    spans: u64,
}

/// Searches and prints.
///
/// # Errors
/// When the query service cannot be reached, or refuses the request.
pub fn run(args: SearchArgs) -> anyhow::Result<()> {
    args.service_args.show(
        "traces",
        &parameters(&args),
        args.output == Output::Json,
        table,
    )
}

fn parameters(args: &SearchArgs) -> Vec<(&'static str, String)> {
    let mut parameters = Vec::from(args.window.parameters());
    parameters.push(("limit", args.limit.to_string()));
    let optional = [
        ("q", &args.query),
        ("service", &args.service),
        ("operation", &args.operation),
        ("status", &args.status),
        ("kind", &args.kind),
        ("minDuration", &args.min_duration),
        ("maxDuration", &args.max_duration),
        ("cursor", &args.cursor),
    ];
    parameters.extend(
        optional
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.clone()?))),
    );
    parameters.extend(args.tags.iter().map(|tag| ("tag", tag.clone())));
    if args.explain {
        parameters.push(("explain", "true".to_owned()));
    }
    parameters
}

fn table(answer: &Answer, style: Style) -> String {
    let mut text = traces(answer, style);
    // Writing to a String cannot fail.
    if let Some(Partial { reason }) = &answer.partial {
        let warning = format!("traces may be missing: {}", render::clean(reason));
        let _ = writeln!(text, "{}", style.paint(Paint::Red, &warning));
    } else if answer.truncated {
        let hint = "more traces match; use a higher --limit or more conditions";
        let _ = writeln!(text, "{}", style.paint(Paint::Dim, hint));
    }
    if let Some(explanation) = &answer.explain {
        text.push_str(&explained(explanation, style));
    }
    text
}

fn traces(answer: &Answer, style: Style) -> String {
    if answer.traces.is_empty() {
        let hint = answer.hint.as_deref();
        let hint = hint.unwrap_or("no traces match; try a longer --since or fewer conditions");
        return format!("{}\n", render::clean(hint));
    }
    let mut text = String::new();
    // Older query services send this only for a query.
    let with_matches = answer.traces.iter().any(|t| t.matched_span_count.is_some());
    let matched = |count: &dyn Display| match with_matches {
        true => format!("{count:>7}  "),
        false => String::new(),
    };
    let heading = format!(
        "{:23}  {:32}  {:>9}  {:>6}  {:>6}  {}ROOT",
        "START (UTC)",
        "TRACE ID",
        "DURATION",
        "SPANS",
        "ERRORS",
        matched(&"MATCHED"),
    );
    let left = render::text_width(&heading) - "ROOT".len();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}", style.paint(Paint::Bold, &heading));
    for trace in &answer.traces {
        let errors = format!("{:>6}", trace.error_count);
        let errors = if trace.error_count > 0 {
            style.paint(Paint::Red, &errors)
        } else {
            style.paint(Paint::Dim, &errors)
        };
        let _ = writeln!(
            text,
            "{:23}  {:32}  {:>9}  {:>6}  {errors}  {}{}",
            render::time(&render::clean(&trace.start)),
            render::clean(&trace.trace_id),
            render::duration(trace.duration_ns.parse().unwrap_or(0)),
            trace.span_count,
            matched(&trace.matched_span_count.unwrap_or(0)),
            root(trace, style.width.saturating_sub(left), style),
        );
    }
    text
}

fn explained(explanation: &Explanation, style: Style) -> String {
    let mut text = format!("\n{}\n", style.paint(Paint::Bold, "EXPLANATION"));
    let mut line = |name: &str, value: &str| {
        let name = style.paint(Paint::Dim, &format!("{name:<11}"));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name}  {}", render::clean(value));
    };
    if let Some(query) = &explanation.query {
        line("query", query);
    }
    let all = "all spans of the time range";
    line(
        "ClickHouse",
        explanation.pushed_down.as_deref().unwrap_or(all),
    );
    if explanation.query.is_some() {
        let evaluated = match explanation.evaluated.as_slice() {
            [] => "nothing else".to_owned(),
            parts => parts.join("; "),
        };
        line("evaluator", &evaluated);
    }
    let Reads {
        queries,
        rows_read,
        bytes_read,
        result_bytes,
    } = explanation.clickhouse;
    let read = format!(
        "{queries} queries, {rows_read} rows and {} read, {} returned",
        render::bytes(bytes_read),
        render::bytes(result_bytes)
    );
    line("read", &read);
    if let Some(Inspected { traces, spans }) = &explanation.inspected {
        line("evaluated", &format!("{traces} traces, {spans} spans"));
    }
    let took = explanation.duration_ns.parse().unwrap_or(0);
    line("time", &render::duration(took));
    text
}

fn root(trace: &Trace, width: usize, style: Style) -> String {
    /// A narrow terminal wraps rather than hides what the trace is.
    const WIDTH_MIN: usize = 20;
    let width = width.max(WIDTH_MIN);
    // A trace whose root is not stored is named by its entry span.
    let mark = match trace.root_missing {
        true => " [root span not received]",
        false => "",
    };
    let service = render::cut(&render::clean(&trace.root_service), width);
    let operation = format!(" {}{mark}", render::clean(&trace.root_operation));
    let operation = render::cut(&operation, width - render::text_width(&service));
    format!(
        "{}{operation}",
        style.paint(render::service_paint(&trace.root_service), &service)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(root_service: &str, root_operation: &str) -> Answer {
        let trace = Trace {
            trace_id: "0123456789abcdef0123456789abcdef".into(),
            root_service: root_service.into(),
            root_operation: root_operation.into(),
            root_missing: false,
            start: "2026-01-31T12:00:00.123456789Z".into(),
            duration_ns: "12345678".into(),
            span_count: 7,
            error_count: 1,
            matched_span_count: None,
        };
        Answer {
            traces: vec![trace],
            truncated: false,
            partial: None,
            hint: None,
            explain: None,
        }
    }

    #[test]
    fn rows_fit_the_terminal() {
        let style = Style {
            width: 120,
            colour: false,
        };
        let text = table(&answer("cart", &"x".repeat(200)), style);
        let row = text.lines().nth(1).unwrap();
        assert_eq!(
            row.get(..92).unwrap(),
            "2026-01-31 12:00:00.123  0123456789abcdef0123456789abcdef    12.3 ms       7       1  cart x"
        );
        assert_eq!(render::text_width(row), 120);
    }

    #[test]
    fn a_query_stands_alone() {
        use clap::Parser as _;

        #[derive(Debug, clap::Parser)]
        struct Command {
            #[command(flatten)]
            args: SearchArgs,
        }
        let parse = |args: &[&str]| Command::try_parse_from([&["search"], args].concat());
        let args = parse(&["{ status = error }", "--since", "2h", "--explain"]).unwrap();
        let sent = parameters(&args.args);
        assert!(sent.contains(&("q", "{ status = error }".to_owned())));
        assert!(sent.contains(&("explain", "true".to_owned())));
        for (flag, value) in [
            ("--service", "cart"),
            ("--operation", "x"),
            ("--status", "error"),
            ("--kind", "server"),
            ("--tag", "a=b"),
            ("--min-duration", "1s"),
            ("--max-duration", "1s"),
        ] {
            assert!(parse(&[flag, value]).is_ok(), "{flag}");
            let error = parse(&["{ }", flag, value]).unwrap_err().to_string();
            assert!(
                error.contains(&format!("cannot be used with '{flag}")),
                "{error}"
            );
        }
    }

    #[test]
    fn what_matched_and_what_it_cost_is_shown() {
        let style = Style {
            width: 120,
            colour: false,
        };
        let mut answer = answer("cart", "GET");
        answer.traces[0].matched_span_count = Some(3);
        answer.truncated = true;
        answer.partial = Some(Partial {
            reason: "query timed out".to_owned(),
        });
        answer.explain = Some(Explanation {
            query: Some("{ name = \"a\" && traceDuration > 1s }".to_owned()),
            pushed_down: Some("((name = 'a'))".to_owned()),
            evaluated: vec!["traceDuration > 1s".to_owned()],
            clickhouse: Reads {
                queries: 3,
                rows_read: 1234,
                bytes_read: 5 << 20,
                result_bytes: 2048,
            },
            inspected: Some(Inspected {
                traces: 2,
                spans: 40,
            }),
            duration_ns: "12345678".to_owned(),
        });
        let text = table(&answer, style);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].ends_with("  ERRORS  MATCHED  ROOT"), "{text}");
        assert!(lines[1].ends_with("       1        3  cart GET"), "{text}");
        assert_eq!(
            lines[2..],
            [
                "traces may be missing: query timed out",
                "",
                "EXPLANATION",
                "query        { name = \"a\" && traceDuration > 1s }",
                "ClickHouse   ((name = 'a'))",
                "evaluator    traceDuration > 1s",
                "read         3 queries, 1234 rows and 5.00 MiB read, 2.00 KiB returned",
                "evaluated    2 traces, 40 spans",
                "time         12.3 ms",
            ]
        );
    }

    #[test]
    fn names_are_made_harmless() {
        let style = Style {
            width: 120,
            colour: false,
        };
        let text = table(&answer("a\x1b[2J", "b\nc"), style);
        assert!(text.contains(r"a\u{1b}[2J b\nc"), "{text}");
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn a_missing_root_is_told() {
        let style = Style {
            width: 120,
            colour: false,
        };
        let mut answer = answer("cart", "GET");
        assert!(!table(&answer, style).contains("not received"));
        answer.traces[0].root_missing = true;
        assert!(table(&answer, style).contains("cart GET [root span not received]"));
        answer.traces.clear();
        answer.hint = Some("try this".to_owned());
        assert_eq!(table(&answer, style), "try this\n");
    }
}
