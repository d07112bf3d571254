//! `bench query`: how long our API takes to answer, on 10 million spans over 24 hours.
//!
//! One client, one request at a time, each with other values; every kind of question is asked a few times
//! before it is timed. What is timed is the whole HTTP exchange.

mod fill;
mod questions;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::build;
use super::load::rng::Rng;
use super::peers;
use super::proc::{self, Running};
use super::report;
use super::sql::Sql;
use fill::Filled;
use questions::{QUESTIONS, Question, Window};

/// The flags of `bench query`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON array and nothing else
    #[arg(long)]
    json: bool,
    /// Spans in the database
    #[arg(long, default_value_t = 10_000_000)]
    spans: u64,
    /// Requests of each kind
    #[arg(long, default_value_t = 100)]
    requests: usize,
    /// Make the database anew even if there is a good one
    #[arg(long)]
    refill: bool,
    /// Only the kinds whose names contain this
    #[arg(long, default_value = "")]
    only: String,
    /// Ask nothing: print the URLs of ClickHouse and of the query service, and serve until Ctrl-C
    #[arg(long)]
    serve: bool,
}

/// Hours that the spans are spread over.
const HOURS: u64 = 24;
/// Requests of each kind before the timed ones.
const WARM_UP: usize = 10;

#[derive(Debug, Serialize)]
struct Row {
    query: &'static str,
    p50_ms: f64,
    p95_ms: f64,
    /// Items in the answer, on average.
    rows: f64,
    /// The most memory that the query service had meanwhile.
    peak_mib: f64,
}

/// A span that exists, to ask for.
#[derive(Debug, Clone, Deserialize)]
struct Sample {
    trace: String,
    service: String,
    operation: String,
    user: String,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let program = build::binary("spanloom-query", "spanloom-query", "release")?;
    let filled = fill::open(args.spans, HOURS, args.refill)?;
    let sql = filled.sink.sql.within(fill::DATABASE);
    // Warm: the spans of a service that just started would come from the disk.
    sql.run("SELECT * FROM spans FORMAT Null")?;
    let samples = samples(&sql, &filled, args.requests + WARM_UP)?;
    let listen = peers::free_address()?;
    let child = std::process::Command::new(program)
        .args(["--listen", &listen.to_string()])
        .args(["--clickhouse-url", &sql.url])
        .args(["--clickhouse-user", &sql.user])
        .args(["--clickhouse-database", &sql.database])
        .env("SPANLOOM_CLICKHOUSE_PASSWORD", &sql.password)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("start spanloom-query")?;
    let mut service = Running::new(child);
    if !proc::wait(Duration::from_secs(20), || {
        TcpStream::connect(listen).is_ok()
    }) {
        service.check("spanloom-query")?;
        bail!("spanloom-query did not listen within 20 s");
    }
    if args.serve {
        super::print(&format!(
            "ClickHouse: {}, user and password {:?}, database {}\nquery service: http://{listen}\n\
             {} spans from Unix second {}\n",
            sql.url, sql.user, sql.database, filled.spans, filled.start
        ));
        loop {
            service.check("spanloom-query")?;
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .into();
    let mut rows = Vec::new();
    for question in &QUESTIONS {
        if !question.name.contains(&args.only) {
            continue;
        }
        let asked = Asked {
            agent: &agent,
            base: &format!("http://{listen}"),
            pid: service.pid(),
            filled: &filled,
        };
        rows.push(asked.ask(question, &samples)?);
    }
    service.check("spanloom-query")?;
    if args.json {
        return super::print_json(&rows);
    }
    let head = ["query", "p50 ms", "p95 ms", "rows", "peak MiB"]
        .map(str::to_owned)
        .to_vec();
    let cells = rows.iter().map(|row| {
        let figures =
            [row.p50_ms, row.p95_ms, row.rows, row.peak_mib].map(|figure| format!("{figure:.1}"));
        std::iter::once(row.query.to_owned())
            .chain(figures)
            .collect()
    });
    super::print(&report::table(
        &std::iter::once(head).chain(cells).collect::<Vec<_>>(),
    ));
    Ok(())
}

/// Spans from all over the day.
fn samples(sql: &Sql, filled: &Filled, count: usize) -> anyhow::Result<Vec<Sample>> {
    let answer = sql.run(&format!(
        "SELECT lower(hex(trace_id)) AS trace, service, name AS operation, \
         attr_str['user.id'] AS user FROM spans WHERE time >= fromUnixTimestamp({}) \
         AND cityHash64(span_id) % {} = 0 ORDER BY cityHash64(trace_id) LIMIT {count} \
         FORMAT JSONEachRow",
        filled.start,
        (filled.spans / (4 * count as u64).max(1)).max(1),
    ))?;
    let samples = answer
        .text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<Vec<Sample>, _>>()
        .context("samples of spans")?;
    if samples.len() < count {
        bail!(
            "only {} spans to ask for; {count} are needed",
            samples.len()
        );
    }
    Ok(samples)
}

/// The service that is asked.
struct Asked<'a> {
    agent: &'a ureq::Agent,
    base: &'a str,
    pid: u32,
    filled: &'a Filled,
}

impl Asked<'_> {
    fn ask(&self, question: &Question, samples: &[Sample]) -> anyhow::Result<Row> {
        let mut rng = Rng::new(3);
        let before = statements(self.agent, self.base)?;
        let start = self.filled.start;
        let day = (start, start + HOURS * 3600);
        let mut times = Vec::new();
        let mut items = 0;
        let warm_up = question.part(WARM_UP).max(1);
        let requests = warm_up + question.part(samples.len().saturating_sub(WARM_UP)).max(1);
        proc::reset_peak(self.pid)?;
        for (index, sample) in samples.iter().take(requests).enumerate() {
            let from = day.0 + rng.below((HOURS - 1) * 3600);
            let window = Window {
                hour: (from, from + 3600),
                day,
                large_trace: &self.filled.large_trace,
            };
            let paths = (question.paths)(sample, &window);
            let started = Instant::now();
            let texts = self.get_all(&paths)?;
            let took = started.elapsed();
            if index >= warm_up {
                times.push(took.as_secs_f64() * 1e3);
                for (path, text) in paths.iter().zip(&texts) {
                    items += count(text, question.items).with_context(|| path.clone())?;
                }
            }
        }
        let row = Row {
            query: question.name,
            p50_ms: round(report::median(&times)),
            p95_ms: round(report::quantile(&times, 0.95)),
            rows: round(items as f64 / times.len().max(1) as f64),
            peak_mib: round(proc::memory_mib(self.pid, "VmHWM")?),
        };
        eprintln!(
            "{}: p50 {} ms, p95 {} ms, {} rows, peak {} MiB; by request: {}",
            row.query,
            row.p50_ms,
            row.p95_ms,
            row.rows,
            row.peak_mib,
            profile(&before, &statements(self.agent, self.base)?, requests)
        );
        Ok(row)
    }

    /// Asks for all of them at once.
    fn get_all(&self, paths: &[String]) -> anyhow::Result<Vec<String>> {
        if let [path] = paths {
            return Ok(vec![self.get(path)?]);
        }
        std::thread::scope(|scope| {
            let asking: Vec<_> = paths
                .iter()
                .map(|path| scope.spawn(move || self.get(path)))
                .collect();
            let answers = asking.into_iter().map(|one| {
                one.join()
                    .unwrap_or_else(|_| bail!("a request's thread failed"))
            });
            answers.collect()
        })
    }

    fn get(&self, path: &str) -> anyhow::Result<String> {
        let mut response = self.agent.get(format!("{}{path}", self.base)).call()?;
        let text = response
            .body_mut()
            .with_config()
            .limit(1 << 30)
            .read_to_string()?;
        if response.status() != 200 {
            bail!("{path}: {} {text}", response.status());
        }
        let reason = response.headers().get("x-spanloom-partial");
        let reason = reason.and_then(|reason| reason.to_str().ok());
        if text.contains("\"PARTIAL\"") || reason.is_some() {
            let end: String = text.chars().rev().take(200).collect();
            let end: String = end.chars().rev().collect();
            bail!(
                "{path}: the answer is cut short: {}",
                reason.unwrap_or(&end)
            );
        }
        Ok(text)
    }
}

/// How often each of the service's ClickHouse queries ran, and its seconds.
type Statements = BTreeMap<String, (f64, f64)>;

/// What the service's own metrics say of its ClickHouse queries.
fn statements(agent: &ureq::Agent, base: &str) -> anyhow::Result<Statements> {
    let mut answer = agent.get(format!("{base}/metrics")).call()?;
    let text = answer.body_mut().read_to_string()?;
    let mut statements = Statements::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("spanloom_query_clickhouse_duration_seconds_") else {
            continue;
        };
        let name = rest
            .split("query=\"")
            .nth(1)
            .and_then(|name| name.split('"').next());
        let value = rest.rsplit(' ').next().and_then(|value| value.parse().ok());
        let (Some(name), Some(value)) = (name, value) else {
            continue;
        };
        let value: f64 = value;
        let (count, seconds) = statements.entry(name.to_owned()).or_default();
        if rest.starts_with("count{") {
            *count += value;
        } else if rest.starts_with("sum{") {
            *seconds += value;
        }
    }
    Ok(statements)
}

/// Runs of each ClickHouse query by request, and how long one took on average.
fn profile(before: &Statements, after: &Statements, requests: usize) -> String {
    let parts = after.iter().filter_map(|(name, (count, seconds))| {
        let (count_before, seconds_before) = before.get(name).copied().unwrap_or_default();
        let count = count - count_before;
        let ms = (seconds - seconds_before) * 1e3 / count;
        let each = count / requests as f64;
        (count > 0.0).then(|| format!("{name} {each:.1} x {ms:.1} ms"))
    });
    parts.collect::<Vec<_>>().join(", ")
}

/// How many items the answer's list has.
fn count(text: &str, list: &str) -> anyhow::Result<usize> {
    let value: Value = serde_json::from_str(text)?;
    let pointer = format!("/{}", list.replace('.', "/"));
    let items = value.pointer(&pointer).and_then(Value::as_array);
    let cut = text.get(..200).unwrap_or(text);
    Ok(items
        .with_context(|| format!("no list {list:?} in the answer {cut}"))?
        .len())
}

fn round(figure: f64) -> f64 {
    (figure * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped() {
        let check = |text, expected| assert_eq!(questions::escape(text), expected);
        check("cart", "cart");
        check("GET /a/{id}", "GET%20%2Fa%2F%7Bid%7D");
        check("user.id=u-1", "user.id%3Du-1");
        check("ü", "%C3%BC");
    }
}
