//! What a simulation of the pipeline sets: its calendar.

use std::time::Duration;

pub use crate::receive::direct::{Answer, Direct};

/// On this thread it is `since_1970` now, and the calendar goes as tokio's clock does; `None`: it is what the
/// machine says.
pub fn set_calendar(since_1970: Option<Duration>) {
    crate::clock::simulated::set(since_1970);
}
