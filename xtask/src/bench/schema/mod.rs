//! `bench schema`: what a span costs and how fast questions are answered, for each layout of the table.
//!
//! Every layout is filled with the same spans in the same order, in inserts of the size that a collector
//! makes, then merged into one part, and asked the same questions. Insert and merge cost are CPU time of the
//! server; what it takes to read and compute the source's rows is taken off (the same insert into a Null
//! table). Rows and bytes read do not depend on the machine, times do.

mod layout;
mod questions;
pub mod source;

use anyhow::Context;
use serde::Serialize;
use std::time::Duration;

use super::proc;
use super::report;
use super::sink::Sink;
use super::sql::Sql;
use layout::Layout;
use questions::Parameters;
use source::Source;

/// The columns of the schema's own table, each with what it takes from the source.
pub fn spans_columns() -> Vec<(String, String)> {
    layout::layouts()
        .into_iter()
        .next()
        .map(|layout| layout.fill)
        .unwrap_or_default()
}

/// The flags of `bench schema`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON array and nothing else
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print a Markdown table
    #[arg(long)]
    markdown: bool,
    /// Spans in the table; as many to the hour as 10 million are to a day
    #[arg(long, default_value_t = 10_000_000)]
    spans: u64,
    /// Only layouts with one of these texts in their names
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

const SPANS_PER_HOUR: f64 = 10e6 / 24.0;
/// Sets of parameters for each question; each is asked twice, and the second time counts.
const PARAMETERS: usize = 5;
/// Rows to an insert.
const INSERT_ROWS: u64 = 50_000;

#[derive(Debug, Serialize)]
struct Row {
    layout: &'static str,
    bytes_per_span: f64,
    index_bytes_per_span: f64,
    insert_cpu_us_per_span: f64,
    merge_cpu_us_per_span: f64,
    questions: Vec<Asked>,
}

/// Medians over the parameters.
#[derive(Debug, Serialize)]
struct Asked {
    question: &'static str,
    ms: f64,
    read_rows: u64,
    read_mb: f64,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let host = Sink::host()?;
    let folder = tempfile::tempdir()?;
    let sink = Sink::start(&host, &folder.path().join("engine"))?;
    sink.sql.run("CREATE DATABASE bench")?;
    let sql = sink.sql.within("bench");
    let hours = (args.spans as f64 / SPANS_PER_HOUR).max(1.5);
    let source = Source {
        spans: args.spans,
        hours,
        start: "2026-01-01 00:00:00".to_owned(),
    };
    let wanted = |layout: &Layout| {
        args.only.is_empty()
            || args
                .only
                .iter()
                .any(|part| layout.name.contains(part.as_str()))
    };
    let mut layouts = layout::layouts();
    layouts.retain(wanted);
    for layout in &layouts {
        // A mistake shows now, not after half an hour.
        create(&sql, layout).with_context(|| format!("the layout {:?}", layout.name))?;
    }
    source.fill(&sql)?;
    let parameters = questions::parameters(&sql, &source, PARAMETERS)?;
    let mut rows = Vec::new();
    for layout in &layouts {
        let row = measure(&sink, &sql, layout, args.spans, &parameters)?;
        // As it comes: a run takes most of an hour, and may be broken off.
        eprint!("{}", report::table(&cells(std::slice::from_ref(&row))));
        rows.push(row);
    }
    if args.json {
        return super::print_json(&rows);
    }
    let cells = cells(&rows);
    super::print(&if args.markdown {
        report::markdown(&cells)
    } else {
        report::table(&cells)
    });
    Ok(())
}

/// An empty table in place of the one before.
fn create(sql: &Sql, layout: &Layout) -> anyhow::Result<()> {
    sql.run("DROP TABLE IF EXISTS layout")?;
    for statement in layout.create(&sql.database) {
        sql.run(&statement)?;
    }
    Ok(())
}

fn measure(
    sink: &Sink,
    sql: &Sql,
    layout: &Layout,
    spans: u64,
    parameters: &[Parameters],
) -> anyhow::Result<Row> {
    let cpu = || proc::cpu_time(sink.pid);
    create(sql, layout)?;
    sql.run("DROP TABLE IF EXISTS nothing")?;
    let (columns, sources): (Vec<&str>, Vec<&str>) = layout
        .fill
        .iter()
        .map(|(column, source)| (column.as_str(), source.as_str()))
        .unzip();
    let (columns, sources) = (columns.join(", "), sources.join(", "));
    let insert = |table: &str| {
        format!(
            "INSERT INTO {table} ({columns}) SELECT {sources} FROM source SETTINGS max_threads = 1, \
             max_insert_threads = 1, max_block_size = {INSERT_ROWS}, \
             max_insert_block_size = {INSERT_ROWS}, min_insert_block_size_rows = {INSERT_ROWS}, \
             optimize_on_insert = 0"
        )
    };
    let names_and_types = sql.run(
        "SELECT concat('`', name, '` ', type) FROM system.columns \
         WHERE database = currentDatabase() AND table = 'layout' ORDER BY position FORMAT TSVRaw",
    )?;
    let names_and_types = names_and_types.text.trim_end().replace('\n', ", ");
    sql.run(&format!(
        "CREATE TABLE nothing ({names_and_types}) ENGINE = Null"
    ))?;

    sql.run("SYSTEM STOP MERGES layout")?;
    let start = cpu()?;
    sql.run(&insert("nothing"))?;
    let computed = cpu()?;
    sql.run(&insert("layout"))?;
    let inserted = cpu()?;
    sql.run("SYSTEM START MERGES layout")?;
    sql.run("OPTIMIZE TABLE layout FINAL")?;
    let merged = cpu()?;
    let per_span = |cpu: Duration| cpu.as_secs_f64() * 1e6 / spans as f64;

    let size = |column: &str| {
        sql.number(&format!(
            "SELECT sum({column}) FROM system.parts WHERE active AND table = 'layout' \
             AND database = currentDatabase() FORMAT TSV"
        ))
    };
    let bytes = size("bytes_on_disk")?;
    let index_bytes = size("secondary_indices_compressed_bytes")?;
    Ok(Row {
        layout: layout.name,
        bytes_per_span: bytes as f64 / spans as f64,
        index_bytes_per_span: index_bytes as f64 / spans as f64,
        insert_cpu_us_per_span: per_span((inserted - computed).saturating_sub(computed - start)),
        merge_cpu_us_per_span: per_span(merged - inserted),
        questions: ask(sql, layout, parameters)?,
    })
}

fn ask(sql: &Sql, layout: &Layout, parameters: &[Parameters]) -> anyhow::Result<Vec<Asked>> {
    let mut answers = vec![Vec::new(); questions::NAMES.len()];
    for second_time in [false, true] {
        for parameters in parameters {
            let statements = questions::statements(&layout.words, parameters);
            for (statement, answers) in statements.iter().zip(&mut answers) {
                let answer = sql.run(statement)?;
                if second_time {
                    answers.push(answer);
                }
            }
        }
    }
    let asked = questions::NAMES
        .into_iter()
        .zip(&answers)
        .map(|(question, answers)| {
            let of = |f: fn(&super::sql::Answer) -> f64| {
                report::median(&answers.iter().map(f).collect::<Vec<_>>())
            };
            Asked {
                question,
                ms: of(|answer| answer.took.as_secs_f64() * 1e3),
                read_rows: of(|answer| answer.read_rows as f64) as u64,
                read_mb: of(|answer| answer.read_bytes as f64 / 1e6),
            }
        });
    Ok(asked.collect())
}

/// A line for each layout; a question's cell is `ms / thousand rows / MB`.
fn cells(rows: &[Row]) -> Vec<Vec<String>> {
    let head = [
        "layout",
        "bytes/span",
        "of it index",
        "insert µs",
        "merge µs",
    ];
    let head = head
        .into_iter()
        .chain(questions::NAMES)
        .map(str::to_owned)
        .collect();
    let line = |row: &Row| {
        let figures = [
            format!("{:.1}", row.bytes_per_span),
            format!("{:.2}", row.index_bytes_per_span),
            format!("{:.2}", row.insert_cpu_us_per_span),
            format!("{:.2}", row.merge_cpu_us_per_span),
        ];
        let asked = row.questions.iter().map(|asked| {
            format!(
                "{:.0} / {} / {:.1}",
                asked.ms,
                asked.read_rows / 1000,
                asked.read_mb
            )
        });
        std::iter::once(row.layout.to_owned())
            .chain(figures)
            .chain(asked)
            .collect()
    };
    std::iter::once(head).chain(rows.iter().map(line)).collect()
}
