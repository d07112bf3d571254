//! What asks and tells the API, against a server that fails, delays, hangs and refuses. Time is tokio's
//! own and paused, so minutes pass in moments.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod api;
mod injection;
mod leader;
mod passes;
