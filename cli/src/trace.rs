//! `spanloom trace ID`: a trace as a tree with bars, or as the API's JSON.

use std::fmt::Write;

use anyhow::bail;
use serde::Deserialize;

use crate::client::ServiceArgs;
use crate::render::{self, Paint, Style};

/// The output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// A tree with a bar for each span.
    Tree,
    /// The JSON response of the API.
    Json,
}

/// `spanloom trace`'s flags.
#[derive(Debug, clap::Args)]
pub struct TraceArgs {
    /// The trace ID: up to 32 hexadecimal digits; leading zeros may be omitted.
    #[arg(value_name = "ID")]
    id: String,
    /// The output format.
    #[arg(short, long, value_enum, default_value_t = Output::Tree)]
    output: Output,
    #[command(flatten)]
    service_args: ServiceArgs,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Trace {
    trace_id: String,
    start: String,
    start_unix_nano: String,
    duration_ns: String,
    span_count: u64,
    error_count: u64,
    truncated: bool,
    spans: Vec<Span>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Span {
    depth: usize,
    orphan: bool,
    clock_skew_ns: Option<String>,
    name: String,
    service: String,
    status: String,
    status_message: String,
    start_unix_nano: String,
    duration_ns: String,
}

/// Reads the trace and prints it.
///
/// # Errors
/// When the query service cannot be reached, or does not have the trace.
pub fn run(args: TraceArgs) -> anyhow::Result<()> {
    // The id becomes part of a path; anything else than digits would make another one.
    if args.id.is_empty() || !args.id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        bail!(
            "'{}' is not a valid trace ID: it must be 1 to 32 hexadecimal digits",
            render::clean(&args.id)
        );
    }
    let path = format!("traces/{}", args.id);
    args.service_args
        .show(&path, &[], args.output == Output::Json, tree)
}

fn tree(trace: &Trace, style: Style) -> String {
    let mut text = String::new();
    let errors = match trace.error_count {
        0 => String::new(),
        count => style.paint(Paint::Red, &format!("  {count} with errors")),
    };
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{}  {} UTC  {}  {} {}{errors}",
        style.paint(Paint::Bold, &render::clean(&trace.trace_id)),
        render::time(&render::clean(&trace.start)),
        render::duration(number(&trace.duration_ns)),
        trace.span_count,
        if trace.span_count == 1 {
            "span"
        } else {
            "spans"
        },
    );
    let layout = Layout::new(trace, style);
    let mut guides = Guides::new(trace.spans.iter().map(|span| span.depth));
    for (span, is_last) in trace.spans.iter().zip(last_siblings(&trace.spans)) {
        let guide = guides.next(span.depth, is_last);
        layout.line(&mut text, span, &guide);
    }
    if trace.truncated {
        let hint = "the trace is too large: only its earliest spans are shown";
        let _ = writeln!(text, "{}", style.paint(Paint::Red, hint));
    }
    text
}

/// The API's 64-bit integers are strings.
fn number(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

/// For each span, whether no sibling follows it. Walks once from the end, remembering at which
/// depths a sibling was met since the last shallower span.
fn last_siblings(spans: &[Span]) -> Vec<bool> {
    let mut met: Vec<bool> = Vec::new();
    let mut last: Vec<bool> = spans
        .iter()
        .rev()
        .map(|span| {
            met.truncate(span.depth + 1);
            met.resize(span.depth + 1, false);
            met.get_mut(span.depth)
                .is_none_or(|met| !std::mem::replace(met, true))
        })
        .collect();
    last.reverse();
    last
}

/// The lines that join children to their parents.
struct Guides {
    /// For each depth, whether a sibling of the span above is still to come.
    open: Vec<bool>,
}

impl Guides {
    /// Deeper spans are not indented further: their depth is written instead.
    const DEPTH_MAX: usize = 16;

    fn new(depths: impl Iterator<Item = usize>) -> Self {
        Self {
            open: vec![false; depths.max().unwrap_or(0).min(Self::DEPTH_MAX) + 1],
        }
    }

    fn next(&mut self, depth: usize, is_last: bool) -> String {
        if let Some(open) = self.open.get_mut(depth) {
            *open = !is_last;
        }
        if depth == 0 {
            return String::new();
        }
        let shown = depth.min(Self::DEPTH_MAX);
        let above = self.open.iter().take(shown).skip(1);
        let mut guide: String = above.map(|open| if *open { "│ " } else { "  " }).collect();
        guide.push_str(if is_last { "└ " } else { "├ " });
        if depth > Self::DEPTH_MAX {
            let _ = write!(guide, "({depth}) ");
        }
        guide
    }
}

/// The columns of a tree: names, bars on a common axis, durations.
struct Layout {
    style: Style,
    names: usize,
    bars: usize,
    begin_ns: u64,
    total_ns: u64,
}

impl Layout {
    const DURATION_WIDTH: usize = 9;

    fn new(trace: &Trace, style: Style) -> Self {
        let room = style.width.saturating_sub(Self::DURATION_WIDTH + 2);
        let bars = (room / 3).clamp(10, 60);
        Self {
            style,
            names: room.saturating_sub(bars).max(20),
            bars,
            begin_ns: number(&trace.start_unix_nano),
            total_ns: number(&trace.duration_ns).max(1),
        }
    }

    fn line(&self, text: &mut String, span: &Span, guide: &str) {
        let style = self.style;
        let failed = span.status == "error";
        let marks = marks(span);
        let room = self.names.saturating_sub(render::text_width(guide));
        let service = render::cut(&render::clean(&span.service), room);
        let rest = room - render::text_width(&service);
        let label = render::cut(&format!(" {}{marks}", render::clean(&span.name)), rest);
        let label = render::pad(&label, rest);
        let paint = render::service_paint(&span.service);
        let (label, bar) = match failed {
            true => (
                style.paint(Paint::Red, &label),
                style.paint(Paint::Red, &self.bar(span)),
            ),
            false => (label, style.paint(paint, &self.bar(span))),
        };
        let _ = writeln!(
            text,
            "{}{}{label} {bar} {:>width$}",
            style.paint(Paint::Dim, guide),
            style.paint(paint, &service),
            render::duration(number(&span.duration_ns)),
            width = Self::DURATION_WIDTH,
        );
    }

    /// The span's time as a bar, at least a sliver wide, padded to the column's width.
    fn bar(&self, span: &Span) -> String {
        /// Blocks by eighths of a column.
        const EIGHTHS: [char; 8] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];
        let columns = self.bars as u128;
        // Eighths of columns, rounded down; widened so that no product overflows.
        let scale = |ns: u64| u128::from(ns) * columns * 8 / u128::from(self.total_ns);
        let begin = scale(number(&span.start_unix_nano).saturating_sub(self.begin_ns)) / 8;
        let begin = begin.min(columns - 1);
        let length = scale(number(&span.duration_ns)).clamp(1, (columns - begin) * 8);
        let mut bar = " ".repeat(usize::try_from(begin).unwrap_or(0));
        bar.push_str(&"█".repeat(usize::try_from(length / 8).unwrap_or(0)));
        if let Some(eighths) = usize::try_from(length % 8)
            .ok()
            .and_then(|part| part.checked_sub(1))
        {
            bar.extend(EIGHTHS.get(eighths));
        }
        render::pad(&bar, self.bars)
    }
}

fn marks(span: &Span) -> String {
    let mut marks = String::new();
    if span.status == "error" {
        let message = render::clean(&span.status_message);
        let _ = match message.is_empty() {
            true => write!(marks, " [error]"),
            false => write!(marks, " [error: {message}]"),
        };
    }
    if span.orphan {
        marks.push_str(" [orphan]");
    }
    if let Some(skew) = &span.clock_skew_ns {
        let _ = write!(marks, " [clock skew {}]", render::duration(number(skew)));
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(depth: usize, name: &str, start: u64, length: u64) -> Span {
        Span {
            depth,
            orphan: false,
            clock_skew_ns: None,
            name: name.into(),
            service: "s".into(),
            status: "unset".into(),
            status_message: String::new(),
            start_unix_nano: start.to_string(),
            duration_ns: length.to_string(),
        }
    }

    fn trace(spans: Vec<Span>) -> Trace {
        Trace {
            trace_id: "ab".repeat(16),
            start: "2026-01-31T12:00:00.123456789Z".into(),
            start_unix_nano: "1000".into(),
            duration_ns: "1000".into(),
            span_count: spans.len() as u64,
            error_count: 0,
            truncated: false,
            spans,
        }
    }

    const PLAIN: Style = Style {
        width: 80,
        colour: false,
    };

    /// The names' column of each line, without the padding.
    #[track_caller]
    fn check_tree(depths: &[usize], expect: &[&str]) {
        let spans = depths
            .iter()
            .map(|depth| span(*depth, "n", 1000, 1))
            .collect();
        let text = tree(&trace(spans), PLAIN);
        let names = text.lines().skip(1).map(|line| {
            line.split_once("n ")
                .map_or(line, |(guide, _)| guide)
                .trim_end_matches(" ")
                .to_owned()
        });
        assert_eq!(names.collect::<Vec<_>>(), expect);
    }

    #[test]
    fn trees() {
        check_tree(&[0], &["s"]);
        check_tree(&[0, 1], &["s", "└ s"]);
        check_tree(&[0, 1, 1], &["s", "├ s", "└ s"]);
        check_tree(&[0, 1, 2, 1], &["s", "├ s", "│ └ s", "└ s"]);
        check_tree(&[0, 1, 2, 2, 0], &["s", "└ s", "  ├ s", "  └ s", "s"]);
        check_tree(&[0, 1, 2, 0, 1], &["s", "└ s", "  └ s", "s", "└ s"]);
    }

    #[test]
    fn lines_are_as_wide_as_the_terminal() {
        let mut spans = vec![
            span(0, &"x".repeat(300), 1000, 1000),
            span(1, "日本語", 1500, 0),
        ];
        spans.extend((2..100).map(|depth| span(depth, "deep", 1999, u64::MAX)));
        let text = tree(&trace(spans), PLAIN);
        for line in text.lines().skip(1) {
            assert_eq!(render::text_width(line.trim_end()), 80, "{line}");
        }
        assert!(text.contains("└ (99) s deep"), "{text}");
    }

    #[test]
    fn bars() {
        let layout = Layout {
            bars: 10,
            ..Layout::new(&trace(vec![]), PLAIN)
        };
        let bar = |start: u64, length: u64| layout.bar(&span(0, "", start, length));
        assert_eq!(bar(1000, 1000), "██████████");
        assert_eq!(bar(1500, 500), "     █████");
        assert_eq!(bar(1000, 50), "▌         ");
        assert_eq!(bar(1990, 0), "         ▏");
        assert_eq!(bar(0, 5000), "██████████");
        assert_eq!(bar(9000, 5000), "         █");
    }

    #[test]
    fn what_is_odd_is_marked() {
        let mut odd = span(0, "a\x1b", 1000, 10);
        odd.status = "error".into();
        odd.status_message = "no\nluck".into();
        odd.orphan = true;
        odd.clock_skew_ns = Some("2000".into());
        let style = Style {
            width: 160,
            colour: true,
        };
        let text = tree(&trace(vec![odd]), style);
        assert!(
            text.contains(r"a\u{1b} [error: no\nluck] [orphan] [clock skew 2.00 µs]"),
            "{text}"
        );
        assert!(text.contains("\x1b[31m"), "{text}");
    }

    #[test]
    fn a_long_chain_is_printed() {
        let spans = (0..100_000)
            .map(|depth| span(depth, "n", 1000, 1))
            .collect();
        assert_eq!(tree(&trace(spans), PLAIN).lines().count(), 100_001);
    }
}
