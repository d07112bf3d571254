//! Measures from outside, such as those of a sidecar, become part of a batch's.

use super::{AccountRow, CellKey, HalfEdge, Measures, Recorder, buckets};

/// What measures from outside may add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MergeLimits {
    /// The recorder's memory, in all: what could take more is left out.
    pub max_bytes: usize,
    /// What happened before this time is left out, nanoseconds since the Unix epoch. Each day is a
    /// partition of the store, so a sender's measures must not span any number of them.
    pub oldest_ns: u64,
    /// What happened after this time is left out.
    pub newest_ns: u64,
}

impl MergeLimits {
    fn allow_time(&self, ns: u64) -> bool {
        (self.oldest_ns..=self.newest_ns).contains(&ns)
    }

    /// A minute is allowed where one of its spans could be.
    fn allow_minute(&self, minute: u32) -> bool {
        let start = u64::from(minute).saturating_mul(1_000_000_000);
        let end = start.saturating_add(super::NS_PER_MINUTE);
        end > self.oldest_ns && start <= self.newest_ns
    }
}

/// What was left out of measures that were merged, which the caller counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Spans that cells counted.
    pub spans: u64,
    /// Half-edges.
    pub half_edges: u64,
    /// Rows of the accounts.
    pub accounts: u64,
}

/// What a cell takes at most: its counts may come to reach over all buckets.
const CELL_BYTES: usize = super::CELL_BYTES + buckets::KEYS * size_of::<u32>();

fn texts_bytes(texts: [&str; 2]) -> usize {
    texts
        .map(|text| text.len() + super::TEXT_BYTES)
        .iter()
        .sum()
}

fn account_bytes(row: &AccountRow) -> usize {
    size_of::<AccountRow>() + row.node.len() + row.agent.len() + row.stage.len() + row.reason.len()
}

impl Recorder {
    /// Adds measures that were made elsewhere to those of this batch, as if its spans had been measured
    /// here.
    pub fn merge(&mut self, other: &Measures, limits: &MergeLimits) -> LeftOut {
        let mut left_out = LeftOut::default();
        for cell in &other.red {
            let texts = [other.text(cell.service), other.text(cell.name)];
            let fits = self.has_room(CELL_BYTES + texts_bytes(texts), limits);
            if !fits || !limits.allow_minute(cell.minute) {
                left_out.spans = left_out.spans.saturating_add(cell.count);
                continue;
            }
            let key = CellKey {
                minute: cell.minute,
                service: self.text(texts[0]),
                name: self.text(texts[1]),
                kind: cell.kind,
                status: cell.status,
            };
            let grown = match self.cell(key) {
                Some(sum) => {
                    sum.count = sum.count.saturating_add(cell.count);
                    sum.duration_sum_ns = sum.duration_sum_ns.saturating_add(cell.duration_sum_ns);
                    sum.duration_min_ns = sum.duration_min_ns.min(cell.duration_min_ns);
                    sum.duration_max_ns = sum.duration_max_ns.max(cell.duration_max_ns);
                    sum.buckets.add_all(&cell.buckets)
                }
                None => 0,
            };
            self.own_bytes += grown;
        }
        for half in &other.half_edges {
            let texts = [other.text(half.service), other.text(half.peer)];
            let fits = self.has_room(size_of::<HalfEdge>() + texts_bytes(texts), limits);
            if !fits || !limits.allow_time(half.time_ns) {
                left_out.half_edges += 1;
                continue;
            }
            let half = HalfEdge {
                service: self.text(texts[0]),
                peer: self.text(texts[1]),
                ..*half
            };
            self.measures.half_edges.push(half);
        }
        for row in &other.accounts {
            let bytes = account_bytes(row);
            if !self.has_room(bytes, limits) || !limits.allow_minute(row.minute) {
                left_out.accounts += 1;
                continue;
            }
            self.own_bytes += bytes;
            self.measures.accounts.push(row.clone());
        }
        left_out
    }

    fn has_room(&self, bytes: usize, limits: &MergeLimits) -> bool {
        self.bytes().saturating_add(bytes) <= limits.max_bytes
    }
}
