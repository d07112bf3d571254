//! The embedded ClickHouse: fetch libchdb, host it in a child process, and put in front of it an
//! HTTP interface that ClickHouse's own clients can use.
//!
//! Reading order:
//!
//! 1. [`fetch`]: gets `libchdb.so` from its package, checks its digest and caches it.
//! 2. [`Engine`]: starts and stops the child process that hosts the library.
//! 3. [`host`]: that child's `main`.
//! 4. `front`: its HTTP server; `ffi`: the only place that talks to the library.
//! 5. [`serve`]: the same without a parent and over TLS, for the image `spanloom-engine`.
//! 6. [`testing`]: an engine for tests, in a folder of its own.
//!
//! The front listens on loopback behind a password (in the image: on all addresses, over TLS). It refuses the SQL that reaches files and the
//! network, but it is not a security boundary: who may send it SQL may use the whole engine.

mod engine;
pub mod fetch;
mod ffi;
mod front;
pub mod host;
pub mod serve;
pub mod testing;

pub use engine::{Engine, EngineConfig, EngineError};
pub use fetch::library_cached;
