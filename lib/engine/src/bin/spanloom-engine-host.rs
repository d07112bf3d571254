//! The child process that hosts the embedded ClickHouse, as a program of its own: what tests use.
//! `spanloom engine-host` is the same.

fn main() -> std::process::ExitCode {
    spanloom_engine::host::run(std::env::args_os().skip(1))
}
