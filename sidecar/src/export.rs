//! Forwards batches to a collector: in order, a few at a time, each until there is an answer.
//!
//! A message that a collector may have taken is repeated to that one, which recognises it: measures that are
//! taken twice would count twice. Only when it stays silent is another one asked, and that is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prost::Message;
use spanloom_pipeline::durable::History;
use spanloom_pipeline::{Export, ExportOutcome, RefusedRows, Trouble};
use spanloom_proto::sidecar::FORWARD;
use spanloom_proto::sidecar::v1::ForwardResponse;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::batch::Frozen;
use crate::client::CallError;
use crate::link::{Connected, Link, Which};
use crate::metrics::Metrics;

/// Compressed bytes that may wait: ten seconds of 500 spans a second, of 1 KB each that compress to a third.
pub const BUFFER_BYTES: usize = 2 << 20;
/// Messages under way at a time.
const AT_A_TIME: usize = 4;
/// How long an answer may take. The collector asks for a repeat before that.
const ANSWER: Duration = Duration::from_secs(35);
/// The first pause before a repeat, and the longest.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// For how long a message is only repeated to the collector that may have it.
const LOYALTY: Duration = Duration::from_secs(60);

/// Codes of gRPC that no repeat can change.
const INVALID_ARGUMENT: u32 = 3;
const RESOURCE_EXHAUSTED: u32 = 8;
const UNIMPLEMENTED: u32 = 12;
const INTERNAL: u32 = 13;

/// Forwards to whoever the link leads to.
#[derive(Debug)]
pub struct Forward {
    link: Arc<Link>,
    metrics: Metrics,
    turns: Semaphore,
    waiting: Arc<AtomicUsize>,
}

/// Bytes that wait; given back on drop.
struct Held {
    bytes: usize,
    waiting: Arc<AtomicUsize>,
    metrics: Metrics,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.bytes, Ordering::Relaxed);
        self.metrics.buffered.dec_by(to_i64(self.bytes));
    }
}

fn to_i64(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl Forward {
    /// Forwards by this link.
    pub fn new(link: Arc<Link>, metrics: Metrics) -> Self {
        Self {
            link,
            metrics,
            turns: Semaphore::new(AT_A_TIME),
            waiting: Arc::default(),
        }
    }

    fn hold(&self, bytes: usize) -> Held {
        self.waiting.fetch_add(bytes, Ordering::Relaxed);
        self.metrics.buffered.inc_by(to_i64(bytes));
        Held {
            bytes,
            waiting: Arc::clone(&self.waiting),
            metrics: self.metrics.clone(),
        }
    }

    /// The connection for the next attempt.
    async fn way(&self, had: Option<(Which, Instant)>) -> Result<Connected, CallError> {
        let Some((which, since)) = had else {
            return self.link.connected().await;
        };
        if since.elapsed() < LOYALTY {
            return self.link.to(which).await;
        }
        let connected = self.link.connected().await?;
        if connected.which != which {
            self.metrics.possible_duplicates.inc();
        }
        Ok(connected)
    }

    async fn send(
        &self,
        batch: &Frozen,
        connected: &Connected,
    ) -> Result<ForwardResponse, CallError> {
        let token = self.link.token();
        let body = batch.body.clone();
        let call = connected.client.call(FORWARD, token.as_ref(), body);
        let Ok(answer) = tokio::time::timeout(ANSWER, call).await else {
            return Err(CallError::Unknown("there was no answer in time".to_owned()));
        };
        // An answer that cannot be read is success all the same, and has nothing to say.
        Ok(ForwardResponse::decode(answer?).unwrap_or_default())
    }
}

impl Export for Forward {
    type Frozen = Frozen;

    async fn export(&self, batch: Frozen, _: &History) -> ExportOutcome {
        let _held = self.hold(batch.body.len());
        // In order: the oldest first. It is never closed.
        let _turn = self.turns.acquire().await;
        let mut pause = PAUSE;
        // Who may have taken it, and since when.
        let mut had: Option<(Which, Instant)> = None;
        loop {
            let attempt = async {
                let connected = self.way(had).await?;
                let which = connected.which;
                let result = self.send(&batch, &connected).await;
                match &result {
                    Err(CallError::Unknown(_)) => {
                        had = Some((which, had.map_or_else(Instant::now, |(_, since)| since)));
                        self.link.drop_connection(&connected).await;
                    }
                    Err(CallError::NotSent(_)) => self.link.drop_connection(&connected).await,
                    Err(CallError::Status { .. }) => {}
                    Ok(_) if which == Which::Fallback => {
                        self.metrics.fallback_spans.inc_by(batch.spans as u64);
                    }
                    Ok(_) => {}
                }
                result
            };
            let error = match attempt.await {
                Ok(answer) => return taken(&answer, &batch, &self.metrics),
                Err(CallError::Status { code, message }) if is_final(code) => {
                    tracing::error!(
                        code,
                        message,
                        spans = batch.spans,
                        "the collector rejected a message"
                    );
                    return ExportOutcome::Partial(vec![RefusedRows {
                        range: 0..batch.spans,
                        reason: message,
                    }]);
                }
                Err(error) => error,
            };
            self.metrics.retries.inc();
            tracing::debug!(%error, "forwarding is repeated");
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.75..=1.25))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn held_bytes(&self, frozen: &Frozen) -> Option<usize> {
        Some(frozen.body.len())
    }

    fn is_full(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) >= BUFFER_BYTES
    }

    fn trouble(&self) -> Option<Trouble> {
        None
    }
}

fn is_final(code: u32) -> bool {
    matches!(
        code,
        INVALID_ARGUMENT | RESOURCE_EXHAUSTED | UNIMPLEMENTED | INTERNAL
    )
}

/// Spans that the collector has looked at and not taken are counted by it as well, with the reason.
fn taken(answer: &ForwardResponse, batch: &Frozen, metrics: &Metrics) -> ExportOutcome {
    if answer.rejected_spans > 0 {
        metrics.rejected_spans.inc_by(answer.rejected_spans);
        tracing::warn!(
            spans = answer.rejected_spans,
            of = batch.spans,
            reason = answer.message,
            "the collector did not take all spans"
        );
    }
    ExportOutcome::Stored
}
