//! `bench query`: how long our API takes to answer, on 10 million spans over 24 hours.
//!
//! One client, one request at a time, each with other values; every kind of question is asked a few times
//! before it is timed. What is timed is the whole HTTP exchange.

mod fill;

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
}

/// A span that exists, to ask for.
#[derive(Debug, Clone, Deserialize)]
struct Sample {
    trace: String,
    service: String,
    operation: String,
    user: String,
}

/// A kind of question: its name, the path for a sample and a window, and where the answer has its items.
struct Question {
    name: &'static str,
    path: fn(&Sample, &Window) -> String,
    items: &'static str,
}

/// The hour that is asked about, and the whole day, as Unix seconds.
#[derive(Debug, Clone, Copy)]
struct Window {
    hour: (u64, u64),
    day: (u64, u64),
}

const QUESTIONS: [Question; 6] = [
    Question {
        name: "trace_by_id",
        path: |sample, _| format!("/api/v1/traces/{}", sample.trace),
        items: "spans",
    },
    Question {
        name: "service_operation_1h",
        path: |sample, window| {
            let (service, operation) = (escape(&sample.service), escape(&sample.operation));
            search(window, &format!("service={service}&operation={operation}"))
        },
        items: "traces",
    },
    Question {
        name: "duration_1h",
        path: |_, window| search(window, "minDuration=900ms"),
        items: "traces",
    },
    Question {
        name: "attribute_1h",
        path: |sample, window| {
            search(
                window,
                &format!("tag={}", escape(&format!("user.id={}", sample.user))),
            )
        },
        items: "traces",
    },
    Question {
        name: "promoted_attribute_1h",
        path: |sample, window| {
            let tag = format!("server.address={}.shop.svc", sample.service);
            search(window, &format!("tag={}", escape(&tag)))
        },
        items: "traces",
    },
    Question {
        name: "percentiles_24h",
        path: |_, window| {
            format!(
                "/api/v1/latency?start={}&end={}",
                window.day.0, window.day.1
            )
        },
        items: "operations",
    },
];

fn search(window: &Window, what: &str) -> String {
    format!(
        "/api/v1/traces?{what}&start={}&end={}&limit=20",
        window.hour.0, window.hour.1
    )
}

/// Percent-encodes all but what is plain in a query.
fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let parts = text.bytes().map(|byte| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    parts.collect()
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
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .into();
    let mut rows = Vec::new();
    for question in &QUESTIONS {
        rows.push(ask(
            &agent,
            &format!("http://{listen}"),
            question,
            &samples,
            &filled,
        )?);
    }
    service.check("spanloom-query")?;
    if args.json {
        return super::print_json(&rows);
    }
    let head = ["query", "p50 ms", "p95 ms", "rows"]
        .map(str::to_owned)
        .to_vec();
    let cells = rows.iter().map(|row| {
        let figures = [row.p50_ms, row.p95_ms, row.rows].map(|figure| format!("{figure:.1}"));
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

fn ask(
    agent: &ureq::Agent,
    base: &str,
    question: &Question,
    samples: &[Sample],
    filled: &Filled,
) -> anyhow::Result<Row> {
    let mut rng = Rng::new(3);
    let before = statements(agent, base)?;
    let day = (filled.start, filled.start + HOURS * 3600);
    let mut times = Vec::new();
    let mut items = 0;
    for (index, sample) in samples.iter().enumerate() {
        let from = day.0 + rng.below((HOURS - 1) * 3600);
        let window = Window {
            hour: (from, from + 3600),
            day,
        };
        let path = (question.path)(sample, &window);
        let started = Instant::now();
        let mut response = agent.get(format!("{base}{path}")).call()?;
        let text = response
            .body_mut()
            .with_config()
            .limit(1 << 30)
            .read_to_string()?;
        let took = started.elapsed();
        if response.status() != 200 {
            bail!("{path}: {} {text}", response.status());
        }
        if index >= WARM_UP {
            times.push(took.as_secs_f64() * 1e3);
            items += count(&text, question.items).with_context(|| path)?;
        }
    }
    let row = Row {
        query: question.name,
        p50_ms: round(report::median(&times)),
        p95_ms: round(report::quantile(&times, 0.95)),
        rows: round(items as f64 / times.len().max(1) as f64),
    };
    eprintln!(
        "{}: p50 {} ms, p95 {} ms, {} rows; by request: {}",
        row.query,
        row.p50_ms,
        row.p95_ms,
        row.rows,
        profile(&before, &statements(agent, base)?, samples.len())
    );
    Ok(row)
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
    let items = value.get(list).and_then(Value::as_array);
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
        let check = |text, expected| assert_eq!(escape(text), expected);
        check("cart", "cart");
        check("GET /a/{id}", "GET%20%2Fa%2F%7Bid%7D");
        check("user.id=u-1", "user.id%3Du-1");
        check("ü", "%C3%BC");
    }
}
