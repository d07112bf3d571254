//! What a log still has to deliver when it is opened.

use std::collections::HashSet;
use std::ops::Range;

use crate::finding::{Finding, Problem};
use crate::index::{Index, KeptKey};
use crate::record::{BatchId, Key, Position};
use crate::survey::Survey;

/// What was found when a log was opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// The requests that are not stored, in the order in which they were appended. Their payloads are
    /// [read](crate::Log::read) one by one, since they may be more than memory holds.
    pub requests: Vec<RecoveredRequest>,
    /// The batches that are not stored, in the order in which they were made.
    pub batches: Vec<RecoveredBatch>,
    /// The keys of the requests of the last minutes, delivered or not.
    pub keys: Vec<Key>,
    /// What is wrong with the files.
    pub findings: Vec<Finding>,
}

/// A request that is not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredRequest {
    /// Where it is.
    pub position: Position,
    /// Its key.
    pub key: u128,
    /// When it was received, in milliseconds since 1970.
    pub received_at_ms: u64,
    /// Its spans.
    pub spans: u32,
    /// Bytes of its payload.
    pub payload_bytes: u64,
    /// The batch it is in.
    pub batch: Option<BatchId>,
}

/// A batch that is not stored. What it was is what is sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredBatch {
    /// Its id.
    pub id: BatchId,
    /// Its requests, in order.
    pub requests: Vec<Position>,
    /// Those of them that are damaged or lost. The rest is sent under the same tokens.
    pub missing: Vec<Position>,
    /// Its tokens.
    pub tokens: Vec<String>,
    /// The pieces it was last cut into; empty if it was not.
    pub pieces: Vec<Range<u32>>,
    /// When it was first sent, in milliseconds since 1970; `None` if the store cannot have it.
    pub sent_at_ms: Option<u64>,
    /// Rows that were refused for good.
    pub refused: Vec<Range<u32>>,
}

impl Recovered {
    pub(crate) fn new(survey: &Survey) -> Self {
        let mut seen = HashSet::new();
        let keys = survey.index.keys.iter().map(KeptKey::key);
        Self {
            requests: requests(&survey.index),
            batches: batches(&survey.index),
            keys: keys.filter(|key| seen.insert(key.key)).collect(),
            findings: survey.findings.clone(),
        }
    }

    /// Records that are lost for sure, and were not found to be by an earlier start. Records that were written and
    /// never acknowledged can be among them.
    pub fn lost_records(&self) -> u64 {
        self.new_problems().map(Problem::lost_records).sum()
    }

    /// Bytes that are damaged, of files that are there, and were not found to be by an earlier start.
    pub fn damaged_bytes(&self) -> u64 {
        self.new_problems().map(Problem::damaged_bytes).sum()
    }

    fn new_problems(&self) -> impl Iterator<Item = &Problem> {
        let new = self.findings.iter().filter(|finding| finding.is_new);
        new.map(|finding| &finding.problem)
    }
}

pub(crate) fn requests(index: &Index) -> Vec<RecoveredRequest> {
    let requests = index.requests.iter();
    requests
        .map(|(position, waiting)| RecoveredRequest {
            position: Position(*position),
            key: waiting.key,
            received_at_ms: waiting.received_at_ms,
            spans: waiting.spans,
            payload_bytes: waiting.payload_bytes,
            batch: waiting.batch,
        })
        .collect()
}

pub(crate) fn batches(index: &Index) -> Vec<RecoveredBatch> {
    let mut batches: Vec<_> = index.batches.iter().collect();
    batches.sort_by_key(|(_, batch)| batch.position);
    batches
        .into_iter()
        .map(|(id, batch)| RecoveredBatch {
            id: *id,
            requests: batch.requests.clone(),
            missing: batch.missing.clone(),
            tokens: batch.tokens.clone(),
            pieces: batch.pieces.clone(),
            sent_at_ms: batch.sent_at_ms,
            refused: batch.refused.clone(),
        })
        .collect()
}
