//! Control runs: collectors without one of their protections, which show that a test would notice.
//!
//! All of this exists only with the cargo feature `control-runs`, which no release has.

use std::time::Duration;

use clap::ValueEnum;
use spanloom_pipeline::Config as PipelineConfig;
use spanloom_pipeline::config::Acknowledge;
use spanloom_store::writer::WriterConfig;

/// A protection that can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protection {
    /// A collector that is told to stop answers and stores what it was sent. The program leaves it out.
    Draining,
    /// A request that is sent again and an insert that is repeated are recognised.
    Deduplication,
    /// An export is answered when it is stored.
    Storing,
}

pub(crate) fn leave_out(
    protections: &[Protection],
    pipeline: &mut PipelineConfig,
    writer: &mut WriterConfig,
) {
    if protections.contains(&Protection::Draining) {
        // So that a stop always meets exports that are stored and not yet answered.
        writer.hold_outcomes = Duration::from_millis(500);
    }
    if protections.contains(&Protection::Deduplication) {
        pipeline.repeats.ttl = Duration::ZERO;
        writer.deduplicate = false;
    }
    if protections.contains(&Protection::Storing) {
        pipeline.acknowledge = Acknowledge::InMemory;
    }
}
