//! The `spanloom` command: `up` runs all of it on this machine, `search`, `trace` and `accounts` ask it,
//! `doctor` explains its files.

mod accounts;
mod client;
mod data_dir;
mod doctor;
mod render;
mod say;
mod search;
mod trace;
mod traceql;
mod up;
mod window;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Spanloom: distributed tracing in one command.
#[derive(Debug, Parser)]
#[command(name = "spanloom", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run all of Spanloom on this machine: receive spans, store them and serve queries.
    Up(up::UpArgs),
    /// Search for traces.
    Search(search::SearchArgs),
    /// Show a trace.
    Trace(trace::TraceArgs),
    /// Show what happened to the spans that were received: stored, refused, dropped or sampled out.
    Accounts(accounts::AccountsArgs),
    /// Explain what a part of Spanloom has on disk, or repair it.
    Doctor(doctor::DoctorArgs),
    /// Check TraceQL queries without a server.
    Traceql(traceql::TraceqlArgs),
    /// Host the embedded ClickHouse; `up` starts this by itself.
    #[command(name = "engine-host", hide = true)]
    EngineHost {
        /// Arguments from the parent process.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    spanloom_collector::memory::keep_freed_for_a_while();
    let done = match Cli::parse().command {
        Command::Up(args) => up::run(args),
        Command::Search(args) => search::run(args),
        Command::Trace(args) => trace::run(args),
        Command::Accounts(args) => accounts::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Traceql(args) => match traceql::run(args) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::EngineHost { args } => {
            spanloom_program::logs::init("warn");
            return spanloom_engine::host::run(args);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::failure(&error);
            ExitCode::FAILURE
        }
    }
}
