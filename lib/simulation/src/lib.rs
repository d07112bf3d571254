//! Runs the real log, batching, delivery and retries in virtual time, on a disk, a network and a store that fail
//! as a seed decides.
//!
//! [`run`] takes a seed to everything that happens: senders with their requests, what gets lost on the way,
//! when power fails and what is left on the disk then, how the store answers. A run is one thread and one paused
//! runtime of tokio, so a seed gives the same events in the same order whenever it is run
//! ([`Report::hash`]).
//!
//! | real | simulated |
//! |---|---|
//! | admission, repeats, workers, batcher, delivery, settlement, backlog | senders and the network (`sender`) |
//! | the log: segments, recovery, keys, dead letters | its disk and its clock (`disk`), the thread that commits (`process`) |
//! | blocks, tokens, the writer's rounds, pauses and cuts | ClickHouse (`store`) |
//!
//! At the end all is healed, and `checker` compares: what was acknowledged is in the store once, or among the
//! dead letters; nothing is there that was not sent; the rates count what the index has; log and memory are
//! empty; nothing is counted as lost.

#![forbid(unsafe_code)]

mod batch;
mod calendar;
mod checker;
mod disk;
mod life;
mod plan;
mod process;
mod random;
mod run;
mod sender;
mod store;
mod trace;
mod world;

pub use plan::{Control, Scale};
pub use random::Random;
pub use run::{Report, run};
pub use trace::TRACE;
