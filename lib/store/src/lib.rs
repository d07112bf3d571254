//! ClickHouse: schema and migrations, Native blocks, the writer.
//!
//! The pipeline drives a [`SpanBlock`] span by span; frozen, it is a compressed block
//! of columns for each table with the token under which that is inserted, and the
//! [`Writer`] sends it until ClickHouse has confirmed all of it. The schema is data
//! that renders to SQL; [`migrate`] applies it.

pub mod access;
pub mod block;
pub mod connection;
pub mod failure;
pub mod migrate;
pub mod schema;
pub mod tag_cache;
pub mod trouble;
pub mod volume;
pub mod writer;

pub use access::Access;
pub use block::{BlockPool, BlockPoolOptions, Frozen, SpanBlock};
pub use connection::Connection;
pub use schema::SchemaOptions;
pub use writer::{RefusedRows, WriteOutcome, Writer, WriterConfig};
