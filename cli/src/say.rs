//! What a person reads while a command runs: one line a step, with the time since its start.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use spanloom_program::with_causes;

/// Writes progress to standard error; standard output is kept for results.
#[derive(Debug, Clone)]
pub struct Say {
    colour: bool,
    begun: Instant,
}

impl Say {
    /// Starts the clock. Colours only where a person looks and has not said no (`NO_COLOR`).
    pub fn new() -> Self {
        Self {
            colour: colour(),
            begun: Instant::now(),
        }
    }

    /// One step, or one line of news from a long one.
    pub fn step(&self, text: &str) {
        let seconds = self.begun.elapsed().as_secs_f64();
        let (dim, plain) = if self.colour {
            ("\x1b[2m", "\x1b[0m")
        } else {
            ("", "")
        };
        line(&format!("{dim}{seconds:6.1}s{plain} {text}"));
    }
}

/// Why a command failed, causes included.
pub fn failure(error: &anyhow::Error) {
    let (red, plain) = if colour() {
        ("\x1b[1;31m", "\x1b[0m")
    } else {
        ("", "")
    };
    let error = with_causes(error.as_ref());
    line(&format!("{red}error:{plain} {error}"));
}

fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty())
}

fn line(text: &str) {
    // A closed standard error must not stop what is being done.
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}
