//! The sidecar: the pipeline of one pod. It receives the spans of the pod's containers on localhost, does what
//! must be done before they leave the pod, and forwards them to its collector.
//!
//! 1. [`config`] is its environment. What is wrong there never keeps it from running.
//! 2. The pipeline of `lib/pipeline` receives, processes and samples; an export is answered when its spans are in
//!    memory. [`pod`] says whose they are, [`live`] by which configuration they are processed.
//! 3. [`batch`] makes of them a message with the records of what is kept and the measures of what is not, and
//!    [`export`] sends it, with a bounded buffer, by the [`link`] to a collector ([`client`]).
//! 4. [`configure`] follows the collector's stream of configurations; the last good one is kept in [`state`].
//!
//! It never exits because something is missing, taken or refused: an app's pod must run all the same.

pub mod batch;
pub mod client;
pub mod config;
pub mod configure;
pub mod export;
pub mod link;
pub mod live;
pub mod metrics;
pub mod pod;
pub mod sidecar;
pub mod state;
