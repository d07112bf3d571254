//! A batch as the collector makes it, with an id that the seed decides; the store's model is told what it is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spanloom_collector::batch::StoreBatch;
use spanloom_otlp::record::{ResourceRecord, ScopeRecord, SpanRecord, SpanSink};
use spanloom_pipeline::measure::Measures;
use spanloom_pipeline::{Batch, Freeze};
use spanloom_store::BlockPool;
use spanloom_store::block::{Frozen, SpanBlock};

use crate::life::Life;
use crate::random::Random;
use crate::store::{Made, Store};

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
            batch: StoreBatch(SpanBlock::new(&self.pool)),
            spans: Vec::new(),
            maker: Arc::clone(self),
        };
        let id = self.ids().id();
        batch.set_id(id);
        batch
    }
}

/// The collector's own batch.
#[derive(Debug)]
pub(crate) struct SimulatedBatch {
    batch: StoreBatch,
    spans: Vec<u64>,
    maker: Arc<Maker>,
}

impl SpanSink for SimulatedBatch {
    fn resource(&mut self, resource: &ResourceRecord<'_>) {
        self.batch.resource(resource);
    }

    fn scope(&mut self, scope: &ScopeRecord<'_>) {
        self.batch.scope(scope);
    }

    fn span(&mut self, span: &SpanRecord<'_>) {
        self.spans.push(u64::from_be_bytes(span.span_id));
        self.batch.span(span);
    }
}

impl Batch for SimulatedBatch {
    type Frozen = Frozen;

    fn id(&self) -> u128 {
        self.batch.id()
    }

    fn set_id(&mut self, id: u128) {
        self.batch.set_id(id);
    }

    fn rows(&self) -> usize {
        self.batch.rows()
    }

    fn bytes(&self) -> usize {
        self.batch.bytes()
    }

    fn seal(&mut self, mut measures: Measures) -> Freeze<Frozen> {
        // Nothing checks half-edges, and another insert would make other runs of the seeds that are kept.
        measures.half_edges.clear();
        let id = self.id();
        let stored = measures
            .accounts
            .iter()
            .filter(|row| (&*row.stage, &*row.reason) == ("store", "stored"));
        let made = Made {
            spans: std::mem::take(&mut self.spans),
            rates: measures.red.iter().map(|cell| cell.count).collect(),
            accounts: stored.map(|row| row.spans).sum(),
        };
        // What a dead process makes goes nowhere.
        if self.maker.life.is_alive() {
            self.maker.store.made(id, made);
        }
        let freeze = self.batch.seal(measures);
        let next = self.maker.ids().id();
        self.set_id(next);
        freeze
    }
}
