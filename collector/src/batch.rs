//! A block of ClickHouse columns as the batch that pipeline workers fill.

use spanloom_otlp::record::{ResourceRecord, ScopeRecord, SpanRecord, SpanSink};
use spanloom_pipeline::measure::{self, Measures};
use spanloom_pipeline::{Batch, Freeze};
use spanloom_store::block::{
    AccountRow, BatchId, ConnectionType, Frozen, HalfEdgeRow, MeasureBlock, RedRow, SpanBlock, Text,
};

/// The block, under the pipeline's name for it.
#[derive(Debug)]
pub struct StoreBatch(pub SpanBlock);

impl SpanSink for StoreBatch {
    #[inline]
    fn resource(&mut self, resource: &ResourceRecord<'_>) {
        self.0.resource(resource);
    }

    #[inline]
    fn scope(&mut self, scope: &ScopeRecord<'_>) {
        self.0.scope(scope);
    }

    #[inline]
    fn span(&mut self, span: &SpanRecord<'_>) {
        self.0.span(span);
    }
}

impl Batch for StoreBatch {
    type Frozen = Frozen;

    fn id(&self) -> u128 {
        u128::from_be_bytes(self.0.batch_id().to_bytes())
    }

    fn set_id(&mut self, id: u128) {
        self.0.set_batch_id(BatchId::from_bytes(id.to_be_bytes()));
    }

    fn rows(&self) -> usize {
        self.0.rows()
    }

    fn bytes(&self) -> usize {
        self.0.bytes()
    }

    fn seal(&mut self, measures: Measures) -> Freeze<Frozen> {
        let mut sealed = self.0.seal();
        Box::new(move || {
            add(&measures, sealed.measures());
            sealed.freeze()
        })
    }
}

/// Adds what goes with a batch to its blocks.
fn add(measures: &Measures, block: &mut MeasureBlock) {
    let mut buckets = Vec::new();
    for cell in &measures.red {
        buckets.clear();
        buckets.extend(cell.buckets.iter());
        block.push_red(&RedRow {
            minute: cell.minute,
            service: measures.text(cell.service),
            name: measures.text(cell.name),
            kind: cell.kind,
            status: cell.status,
            count: cell.count,
            duration_sum_ns: cell.duration_sum_ns,
            duration_min_ns: cell.duration_min_ns,
            duration_max_ns: cell.duration_max_ns,
            buckets: &buckets,
        });
    }
    // One look-up for each text, not for each row.
    let texts: Vec<Text> = measures.texts.iter().map(|text| block.text(text)).collect();
    let empty = block.text("");
    let known = |id: measure::TextId| texts.get(id.0 as usize).copied().unwrap_or(empty);
    block.reserve_halves(measures.half_edges.len());
    for half in &measures.half_edges {
        block.push_half_known(&HalfEdgeRow {
            time_ns: half.time_ns,
            trace_id: half.trace_id,
            span_id: half.span_id,
            parent_span_id: half.parent_span_id,
            kind: half.kind,
            service: known(half.service),
            duration_ns: half.duration_ns,
            error: half.error,
            peer: known(half.peer),
            connection_type: match half.connection_type {
                measure::ConnectionType::Unset => ConnectionType::Unset,
                measure::ConnectionType::MessagingSystem => ConnectionType::MessagingSystem,
                measure::ConnectionType::Database => ConnectionType::Database,
            },
        });
    }
    for row in &measures.accounts {
        block.account(AccountRow {
            minute: row.minute,
            node: &row.node,
            agent: &row.agent,
            stage: &row.stage,
            reason: &row.reason,
            spans: row.spans,
            bytes: row.bytes,
        });
    }
}

#[cfg(test)]
mod tests;
