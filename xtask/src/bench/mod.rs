//! `cargo xtask bench`: what one core takes in, how long answers and questions take, and which layout answers best.
//!
//! Standard output holds the result and nothing else; progress and notes go to standard error.

mod acknowledge;
mod build;
mod ingest;
mod load;
mod operator;
mod overload;
mod peers;
mod proc;
mod query;
mod report;
mod schema;
mod sink;
mod sql;
mod writers;

use anyhow::bail;
use std::process::Command;

/// The flags of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Spans into ClickHouse for each CPU second of the collector, beside its peers
    Ingest(ingest::Args),
    /// How long a sender waits for its answer, beside the disk's own sync
    Acknowledge(acknowledge::Args),
    /// Five times the peak load: memory, goodput and refusals
    Overload(overload::Args),
    /// How long our API takes to answer on 10 million spans
    Query(query::Args),
    /// What the operator needs in a cluster with many namespaces and pods
    Operator(operator::Args),
    /// Layouts of the table of spans: size, insert cost and answers
    Schema(schema::Args),
    /// Many collectors that write to one ClickHouse: parts, CPU, and when spans can be searched
    Writers(writers::Args),
}

/// Runs the benchmark.
pub fn run(args: Args) -> anyhow::Result<()> {
    if cfg!(debug_assertions) {
        // An unoptimised load generator would be the slowest part.
        return again_optimised();
    }
    match args.what {
        What::Ingest(args) => ingest::run(&args),
        What::Acknowledge(args) => acknowledge::run(&args),
        What::Overload(args) => overload::run(&args),
        What::Query(args) => query::run(&args),
        What::Operator(args) => operator::run(&args),
        What::Schema(args) => schema::run(&args),
        What::Writers(args) => writers::run(&args),
    }
}

/// Builds this program optimised and runs it with the same arguments.
fn again_optimised() -> anyhow::Result<()> {
    let program = build::binary("xtask", "xtask", "fast")?;
    if program.canonicalize()? == std::env::current_exe()?.canonicalize()? {
        // Else it would start itself for ever.
        bail!(
            "{} is not optimised; build it with cargo build --profile fast -p xtask",
            program.display()
        );
    }
    let status = Command::new(program)
        .args(std::env::args_os().skip(1))
        .status()?;
    match status.code() {
        Some(0) => Ok(()),
        code => std::process::exit(code.unwrap_or(1)),
    }
}

/// Prints the rows as one JSON array.
fn print_json<T: serde::Serialize>(rows: &[T]) -> anyhow::Result<()> {
    print(&(serde_json::to_string_pretty(rows)? + "\n"));
    Ok(())
}

/// Prints the result.
fn print(text: &str) {
    print!("{text}");
}
