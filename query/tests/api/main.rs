//! The API against the real engine: rows in, answers out, each answer checked against the OpenAPI
//! document.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests, too

mod access;
mod accounts;
mod agree;
mod encoding;
mod errors;
mod grpc;
mod harness;
mod plans;
mod probes;
mod rollups;
mod schema;
mod search;
mod tempo;
mod tls;
mod trace;
mod traceql;
