//! Logs, the same from each of our programs: text for a person at a terminal, JSON lines elsewhere.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging to standard error. `SPANLOOM_LOG` decides what is logged, `default_level` where it is
/// not set or cannot be read. A second call changes nothing.
pub fn init(default_level: &str) {
    let filter =
        EnvFilter::try_from_env("SPANLOOM_LOG").unwrap_or_else(|_| EnvFilter::new(default_level));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // An error means that somebody, a test most likely, has set up logging before us.
    let _ = if std::io::stderr().is_terminal() {
        subscriber.try_init()
    } else {
        subscriber.json().flatten_event(true).try_init()
    };
}
