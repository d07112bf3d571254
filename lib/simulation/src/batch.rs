//! A batch as the collector makes it, with an id that the seed decides; the store's model is told what it is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spanloom_otlp::record::{ResourceRecord, ScopeRecord, SpanRecord, SpanSink};
use spanloom_pipeline::measure::Measures;
use spanloom_pipeline::{Batch, Export, ExportOutcome, RefusedRows};
use spanloom_store::block::{AccountRow, BatchId, Frozen, RedRow, SpanBlock};
use spanloom_store::{BlockPool, WriteOutcome, Writer};

use crate::life::Life;
use crate::random::Random;
use crate::store::{Made, Store, Way};

/// What all batches of a process are made with.
#[derive(Debug)]
pub(crate) struct Maker {
    pub(crate) pool: Arc<BlockPool>,
    pub(crate) store: Arc<Store>,
    pub(crate) ids: Mutex<Random>,
    pub(crate) life: Arc<Life>,
}

impl Maker {
    fn ids(&self) -> MutexGuard<'_, Random> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn batch(self: &Arc<Self>) -> SimulatedBatch {
        let mut batch = SimulatedBatch {
            block: SpanBlock::new(&self.pool),
            spans: Vec::new(),
            maker: Arc::clone(self),
        };
        let id = self.ids().id();
        batch.set_id(id);
        batch
    }
}

#[derive(Debug)]
pub(crate) struct SimulatedBatch {
    block: SpanBlock,
    spans: Vec<u64>,
    maker: Arc<Maker>,
}

impl SpanSink for SimulatedBatch {
    fn resource(&mut self, resource: &ResourceRecord<'_>) {
        self.block.resource(resource);
    }

    fn scope(&mut self, scope: &ScopeRecord<'_>) {
        self.block.scope(scope);
    }

    fn span(&mut self, span: &SpanRecord<'_>) {
        self.spans.push(u64::from_be_bytes(span.span_id));
        self.block.span(span);
    }
}

impl Batch for SimulatedBatch {
    type Frozen = Frozen;

    fn id(&self) -> u128 {
        u128::from_be_bytes(self.block.batch_id().to_bytes())
    }

    fn set_id(&mut self, id: u128) {
        self.block
            .set_batch_id(BatchId::from_bytes(id.to_be_bytes()));
    }

    fn rows(&self) -> usize {
        self.block.rows()
    }

    fn bytes(&self) -> usize {
        self.block.bytes()
    }

    fn freeze(&mut self, measures: Measures) -> Frozen {
        let id = self.id();
        let block = self.block.measures();
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
        let mut accounts = 0;
        for row in &measures.accounts {
            if (&*row.stage, &*row.reason) == ("store", "stored") {
                accounts += row.spans;
            }
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
        let made = Made {
            spans: std::mem::take(&mut self.spans),
            rates: measures.red.iter().map(|cell| cell.count).collect(),
            accounts,
        };
        // What a dead process makes goes nowhere.
        if self.maker.life.is_alive() {
            self.maker.store.made(id, made);
        }
        let frozen = self.block.freeze();
        let next = self.maker.ids().id();
        self.set_id(next);
        frozen
    }
}

/// The real writer, on its way to the model.
#[derive(Debug)]
pub(crate) struct SimulatedExport(pub(crate) Writer<Way>);

impl Export for SimulatedExport {
    type Frozen = Frozen;

    async fn export(&self, batch: Frozen) -> ExportOutcome {
        match self.0.write(batch).await {
            WriteOutcome::Stored => ExportOutcome::Stored,
            WriteOutcome::Unavailable(reason) => ExportOutcome::Unavailable(reason),
            WriteOutcome::Partial(refused) => {
                let refused = refused.into_iter().map(|rows| RefusedRows {
                    range: rows.range,
                    reason: rows.reason,
                });
                ExportOutcome::Partial(refused.collect())
            }
        }
    }
}
