//! The query service: the API over the store, and the web UI.
//!
//! A request comes in through [`Server`] and its `router`; `params` reads its query string (an
//! unknown or malformed parameter is a 400 that names it); `search`, `trace` and `rollup` each make
//! SQL from literals and bound parameters (`sql`), have `db` run it within the request's time and
//! memory, and turn rows into the answer. Every error becomes a `problem` document in one place.
//! `openapi` is made from the handlers' annotations and tested against the routes; `ui` serves the
//! page, which asks the same API.
//!
//! Where a directory of tokens is given, `auth` stands before all routes but the two of health. The
//! admin port (`health`, `probe`) has no tokens and tells nothing of anyone's traces.
//!
//! The crate reads ClickHouse only, and keeps nothing between requests.

mod app;
mod auth;
mod compress;
mod config;
mod db;
mod health;
mod ids;
mod metrics;
mod openapi;
mod params;
mod probe;
mod problem;
mod rollup;
mod router;
mod search;
mod server;
mod sql;
mod tally;
mod tempo;
mod times;
mod trace;
mod traceql;
mod ui;

pub use config::{Access, ClickHouseConfig, Limits, QueryConfig};
pub use metrics::Metrics;
pub use server::{Server, StartError};
pub use spanloom_program::Health;
