//! The data path: admit, receive, process, measure, sample, batch, export.
//!
//! A request's way, file by file:
//!
//! 1. [`receive`] takes connections and requests (OTLP over gRPC and HTTP). Memory is reserved
//!    ([`admission`]) before a body is read; a request that finds none is refused at once.
//!    [`peers`] tells which pod sends, where somebody knows.
//! 2. `repeat` knows the requests of the last minutes: a repeated export gets the first one's
//!    outcome.
//! 3. `worker` threads decompress, and walk the spans in place through [`process`] (resource,
//!    kubernetes, drop, redact, limits), [`measure`] and head sampling, into the [`Batch`] that each thread owns.
//! 4. A batch that is full or old enough is frozen and handed to the [`Export`]; when that
//!    ends, each request in it is answered and its memory given back.
//!
//! The store is not known here: whoever starts the [`Server`] brings the batch and the export.
//!
//! Invariants: a request is answered with success only when all its spans are stored or counted as
//! refused or discarded; nothing waits in an unbounded queue, because every byte that waits is
//! reserved; tokio's threads do not decompress or walk spans.

pub mod admission;
pub mod batch;
mod buffers;
pub mod config;
mod decompress;
pub mod measure;
mod metrics;
pub mod outcome;
pub mod peers;
pub mod process;
pub mod receive;
mod repeat;
pub mod server;
pub mod tally;
mod worker;

pub use batch::{Batch, Export, ExportOutcome, RefusedRows};
pub use config::Config;
pub use outcome::Outcome;
pub use peers::{Peer, Peers, Pod};
pub use server::{Server, StartError};
