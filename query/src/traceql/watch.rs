//! What a query costs: for those who ask it to be explained, and for the log when it takes long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use spanloom_traceql::CompiledQuery;

use crate::app::App;
use crate::db::DbError;
use crate::tally::{Read, Tally, counted};
use crate::traceql::plan::Plan;

/// A text in the log is cut to so many characters.
const LOGGED_CHARS_MAX: usize = 1_000;

/// A query as it is run.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The route, as the API's documents have it.
    pub route: &'static str,
    /// The query's text.
    pub text: &'a str,
    /// The same, compiled.
    pub query: &'a CompiledQuery,
    /// What was read before it could be run, and the time that this took.
    pub before: (Read, Duration),
}

/// What was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inspected {
    /// Traces, where whole ones are looked at.
    pub traces: u64,
    /// Spans.
    pub spans: u64,
}

/// What a query has cost.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// What ClickHouse read.
    pub read: Read,
    /// What was looked at.
    pub inspected: Inspected,
    /// The time.
    pub took: Duration,
}

/// Runs a query by `work`, and says what it cost. A query that takes long gets a line in the log, also when it fails
/// or its client has gone away.
///
/// # Errors
/// Those of `work`.
pub async fn watched<T>(
    app: &App,
    request: Request<'_>,
    inspected: impl FnOnce(&T) -> Inspected,
    work: impl Future<Output = Result<T, DbError>>,
) -> Result<(T, Cost), DbError> {
    let mut watch = Watch {
        threshold: app.limits.slow_query,
        request,
        begun: Instant::now(),
        tally: Arc::default(),
        inspected: Inspected::default(),
        outcome: "cancelled",
    };
    let result = counted(watch.tally.clone(), work).await;
    watch.outcome = match &result {
        Ok(answer) => {
            watch.inspected = inspected(answer);
            "ok"
        }
        Err(error) => error.label(),
    };
    let cost = watch.cost();
    Ok((result?, cost))
}

/// Writes the line when it is dropped.
struct Watch<'a> {
    threshold: Duration,
    request: Request<'a>,
    begun: Instant,
    tally: Arc<Tally>,
    inspected: Inspected,
    outcome: &'static str,
}

impl Watch<'_> {
    fn cost(&self) -> Cost {
        let (read, took) = self.request.before;
        Cost {
            read: read + self.tally.read(),
            inspected: self.inspected,
            took: took + self.begun.elapsed(),
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let Cost {
            read,
            inspected,
            took,
        } = self.cost();
        if took < self.threshold {
            return;
        }
        let Request {
            route, text, query, ..
        } = self.request;
        let plan = Plan::of(query);
        let pushed_down = plan.pushed_down.unwrap_or_default();
        tracing::warn!(
            route,
            query = cut(text),
            seconds = took.as_secs_f64(),
            outcome = self.outcome,
            clickhouse_queries = read.queries,
            rows_read = read.rows,
            bytes_read = read.bytes,
            inspected_traces = inspected.traces,
            inspected_spans = inspected.spans,
            pushed_down = cut(&pushed_down),
            evaluated = cut(&plan.evaluated.join("; ")),
            "slow query"
        );
    }
}

/// As much of a text as the log shall have.
fn cut(text: &str) -> &str {
    let end = text.char_indices().nth(LOGGED_CHARS_MAX);
    end.and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_in_the_log_are_bounded() {
        assert_eq!(cut("{ }"), "{ }");
        assert_eq!(cut(&"💡".repeat(5_000)).chars().count(), LOGGED_CHARS_MAX);
    }
}
