//! Spanloom's own gRPC contracts: their messages, and the paths of their methods.
//!
//! [`sidecar`] is what sidecars and collectors say to each other. The contract is the `.proto` file below `proto/`;
//! the messages here are written after it, and a test compares the two: four messages do not need a compiler of
//! such files, and its dependencies, in each build. Both sides write gRPC's frames themselves (`lib/pipeline`'s
//! receiver and the sidecar's client), so there are no stubs either.

pub mod sidecar;
