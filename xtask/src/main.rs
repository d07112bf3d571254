//! Developer commands: `cargo xtask up`, `cargo xtask cluster`, `cargo xtask test`, `cargo xtask faults`,
//! `cargo xtask bench`.
#![allow(clippy::print_stdout)] // a command for people

mod bench;
mod cache;
mod chart;
mod cluster;
mod faults;
mod images;
mod kubetools;
mod oci;
mod test;
mod tidy;
mod up;

use std::process::ExitCode;

use clap::Parser;

/// Spanloom's developer commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    /// Run Spanloom on this machine, with a demo trace in it
    Up(up::Args),
    /// A real Kubernetes on this machine: up, down, load, kubeconfig
    Cluster(cluster::Args),
    /// Make the programs' container images, as OCI archives
    Images(images::Args),
    /// Run all that CI runs
    Test(test::Args),
    /// Make what is made of the chart
    #[command(subcommand)]
    Chart(chart::Args),
    /// Break everything that can break, at full length, and count what is lost or doubled
    Faults(faults::Args),
    /// A long run with a random fault a minute
    Soak(faults::SoakArgs),
    /// Measure ingest and queries, beside the peers
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Up(args) => up::run(&args),
        Command::Cluster(args) => cluster::run(&args),
        Command::Images(args) => images::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Chart(args) => chart::run(&args),
        Command::Faults(args) => faults::run(&args),
        Command::Soak(args) => faults::soak(&args),
        Command::Bench(args) => bench::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
