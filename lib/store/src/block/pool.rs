//! The memory of batches, used again once they are stored.

use prometheus_client::registry::Registry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::compress::Compressor;
use super::measures::MeasureBlock;
use super::spans::SpanColumns;
use super::tags::Tags;
use super::traces::Traces;
use crate::tag_cache::TagCache;

/// All columns of a batch.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) spans: SpanColumns,
    pub(crate) traces: Traces,
    pub(crate) tags: Tags,
    pub(crate) measures: MeasureBlock,
}

impl Parts {
    pub(crate) fn bytes(&self) -> usize {
        self.spans.bytes() + self.traces.bytes() + self.tags.bytes() + self.measures.bytes()
    }

    fn capacity(&self) -> usize {
        self.spans.capacity()
            + self.traces.capacity()
            + self.tags.capacity()
            + self.measures.capacity()
    }

    fn clear(&mut self) {
        self.spans.clear();
        self.traces.clear();
        self.tags.clear();
        self.measures.clear();
    }
}

/// How much memory builders keep between batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockPoolOptions {
    /// Memory of empty columns kept for the next batches.
    pub kept_bytes: usize,
    /// Memory of the cache that keeps the tag catalogue from being written over and over.
    pub tag_cache_bytes: usize,
}

impl Default for BlockPoolOptions {
    fn default() -> Self {
        Self {
            kept_bytes: 64 << 20,
            tag_cache_bytes: 8 << 20,
        }
    }
}

/// What blocks are compressed with.
#[derive(Debug, Default)]
pub(crate) struct Press {
    /// Bytes that wait to be compressed.
    pub(crate) pending: Vec<u8>,
    pub(crate) compressor: Compressor,
}

/// Presses kept for the next batches, at most; a few hundred KiB each.
const KEPT_PRESSES: usize = 4;

/// Empty columns, and the tag cache: what all block builders of a process share.
#[derive(Debug)]
pub struct BlockPool {
    options: BlockPoolOptions,
    tags: Arc<TagCache>,
    empty: Mutex<Empty>,
    presses: Mutex<Vec<Press>>,
}

#[derive(Debug, Default)]
struct Empty {
    parts: Vec<Parts>,
    bytes: usize,
}

impl BlockPool {
    /// A pool with nothing in it.
    pub fn new(options: BlockPoolOptions) -> Arc<Self> {
        Arc::new(Self {
            options,
            tags: TagCache::new(options.tag_cache_bytes),
            empty: Mutex::default(),
            presses: Mutex::default(),
        })
    }

    /// Adds the tag catalogue's counters to a registry.
    pub fn register(&self, registry: &mut Registry) {
        let metrics = &self.tags.metrics;
        registry.register(
            "spanloom_store_tags_high_cardinality",
            "Attribute values left out of the tag catalogue because their key has too many",
            metrics.high_cardinality.clone(),
        );
        registry.register(
            "spanloom_store_tags_batch_full",
            "Attribute keys and values left out of the tag catalogue because a batch had too many",
            metrics.batch_full.clone(),
        );
        registry.register(
            "spanloom_store_tag_cache_evictions",
            "How often the older half of the tag catalogue's cache was evicted",
            metrics.evictions.clone(),
        );
    }

    pub(crate) fn tags(&self) -> &TagCache {
        &self.tags
    }

    fn lock(&self) -> MutexGuard<'_, Empty> {
        self.empty.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn presses(&self) -> MutexGuard<'_, Vec<Press>> {
        self.presses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn press(&self) -> Press {
        let kept = self.presses().pop();
        kept.unwrap_or_default()
    }

    pub(crate) fn put_press(&self, press: Press) {
        let mut presses = self.presses();
        if presses.len() < KEPT_PRESSES {
            presses.push(press);
        }
    }

    pub(crate) fn take(&self) -> Parts {
        let mut empty = self.lock();
        match empty.parts.pop() {
            Some(parts) => {
                empty.bytes = empty.bytes.saturating_sub(parts.capacity());
                parts
            }
            None => Parts::default(),
        }
    }

    /// Takes columns back, as far as there is room for them.
    pub(crate) fn put(&self, mut parts: Parts) {
        parts.clear();
        let mut bytes = parts.capacity();
        let excess = (self.lock().bytes + bytes).saturating_sub(self.options.kept_bytes);
        if excess > 0 {
            parts.spans.let_go(excess);
            bytes = parts.capacity();
        }
        let mut empty = self.lock();
        if empty.bytes + bytes <= self.options.kept_bytes {
            empty.bytes += bytes;
            empty.parts.push(parts);
        }
    }
}
