//! The data path: admit, receive, process, measure, sample, batch, export.
//!
//! A request's way, file by file:
//!
//! 1. [`receive`] takes connections and requests at each [`Listener`](config::Listener): a transport,
//!    TLS or none, and who knows the senders ([`peers`]). Memory is reserved ([`admission`]) as a body
//!    arrives; a request that finds none is refused at once.
//! 2. `repeat` knows the requests of the last minutes: a repeated export gets the first one's
//!    outcome. `queue` gives the others to the workers.
//! 3. `intake`, on a `worker`'s thread, decompresses a body, has its [`codec`] make OTLP of it, and walks
//!    the spans in place through [`process`] (resource, kubernetes, drop, redact, limits), [`measure`] and
//!    head sampling, into the [`Batch`] that is open.
//! 4. `batcher` says when a batch is full or old enough, and freezes it; `delivery` hands it to the
//!    [`Export`].
//! 5. [`settlement`] ends requests: it answers their senders when the policy
//!    ([`Acknowledge`](settlement::Acknowledge)) says so, and when they are stored it gives back their
//!    memory and counts their spans, in metrics and in the `accounts`, which a later batch takes to the store.
//!
//! Each of these has of the others only what it needs; `server` makes and joins them.
//!
//! The store is not known here: whoever starts the [`Server`] brings the batch and the export.
//!
//! Invariants: a request is answered with success only when all its spans are stored or counted as
//! refused or discarded; nothing waits in an unbounded queue, because every byte that waits is
//! reserved; tokio's threads do not decompress or walk spans.

mod accounts;
pub mod admission;
pub mod batch;
mod batcher;
mod buffers;
mod clock;
pub mod codec;
pub mod config;
mod decompress;
mod delivery;
pub mod dialogue;
mod doors;
pub mod durable;
mod flight;
mod intake;
mod listener;
pub mod measure;
mod metrics;
pub mod outcome;
mod pace;
mod parts;
pub mod peers;
pub mod process;
mod queue;
pub mod receive;
mod repeat;
pub mod server;
pub mod settlement;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod tally;
mod worker;

pub use batch::{Batch, Export, ExportOutcome, Freeze, RefusedRows, Trouble};
pub use codec::{Codec, CodecError, Forwarded, Ignored};
pub use config::Config;
pub use dialogue::{Dialogue, Talk};
pub use outcome::Outcome;
pub use peers::{Caller, Identify, Identity, Pod};
pub use server::{Server, StartError};
