//! Bodies read, within admission and the size limit.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::answer::Refusal;
use crate::admission::{Budget, Expansion, Permit, Refused};
use crate::buffers::{Buffer, Buffers};
use crate::config::Connections;

/// A body, and the memory reserved for it.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) bytes: Buffer,
    pub(super) permit: Permit,
}

/// What a body must keep to.
pub(super) struct Reading<'s> {
    pub(super) budget: &'s Arc<Budget>,
    pub(super) expansion: &'s Expansion,
    pub(super) buffers: &'s Arc<Buffers>,
    /// Who sends it.
    pub(super) peer: IpAddr,
    pub(super) max_bytes: usize,
    pub(super) limits: &'s Connections,
    /// Whether its first 5 bytes are gRPC's prefix, which says how long the message is.
    pub(super) prefixed: bool,
}

/// Until a client has sent something, no more memory than this is laid out for it at once. The system
/// gives none of it before it is written to.
const MAX_TRUSTED_LEN: usize = 1 << 20;
/// What is taken beyond what has arrived, at least and at most: half of it.
const WINDOW: RangeInclusive<usize> = 16 << 10..=1 << 20;
/// gRPC's prefix: whether the message is compressed, and its length.
pub(super) const PREFIX: usize = 5;

impl Reading<'_> {
    /// Reads all of a body, within the time that one may take. `seen` is how long it is as far as is
    /// known, also when it is refused.
    pub(super) async fn read<B>(&self, body: &mut B, seen: &mut usize) -> Result<Received, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let patience = self.limits.body_timeout;
        let all = tokio::time::timeout(patience, self.read_all(body, seen)).await;
        all.unwrap_or(Err(Refusal::Stalled))
    }

    async fn read_all<B>(&self, body: &mut B, seen: &mut usize) -> Result<Received, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let promised = body.size_hint().exact();
        let promised = promised.map(|len| usize::try_from(len).unwrap_or(usize::MAX));
        // A client may promise anything.
        let mut see = |len: usize| *seen = (*seen).max(len.min(self.max()));
        see(promised.unwrap_or(0));
        if promised.is_some_and(|len| len > self.max()) {
            return Err(self.too_large());
        }
        let mut permit = self.budget.begin(self.peer);
        let mut expected = promised;
        if let Some(len) = promised {
            self.expect(&permit, len)?;
        }
        let mut bytes = self.buffers.take(0);
        let mut reserved = 0;
        let mut announced = false;
        let mut pace = Pace::new(self.limits);
        loop {
            let frame = tokio::select! {
                // What has arrived counts, however late we look.
                biased;
                frame = body.frame() => frame,
                () = permit.revoked() => return Err(Refusal::Full),
                () = pace.too_slow() => return Err(Refusal::Stalled),
            };
            let Some(frame) = frame else {
                break;
            };
            let frame = frame.map_err(|_| Refusal::ClientGone)?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            pace.arrived(data.len());
            let total = bytes.len() + data.len();
            see(total);
            if total > self.max() {
                return Err(self.too_large());
            }
            if self.prefixed
                && !announced
                && let Some(len) = message_len(&bytes, &data)
            {
                announced = true;
                see(len.saturating_add(PREFIX));
                if len > self.max_bytes {
                    return Err(self.too_large());
                }
                expected = Some(len + PREFIX);
                // Before anything is copied: most requests that find no memory end here.
                self.expect(&permit, len + PREFIX)?;
            }
            if total > reserved {
                // In growing steps, so that each byte is counted a few times at most.
                let window = (total / 2).clamp(*WINDOW.start(), *WINDOW.end());
                let wanted = total.saturating_add(window);
                reserved = expected.map_or(wanted, |len| wanted.min(len.max(total)));
                self.grow(&mut permit, reserved).await?;
            }
            if bytes.is_empty() {
                let expected = expected.unwrap_or(total).max(total);
                bytes.reserve(expected.min(MAX_TRUSTED_LEN.max(total)));
            }
            bytes.extend(&data);
        }
        permit.arrived()?;
        Ok(Received { bytes, permit })
    }

    fn max(&self) -> usize {
        self.max_bytes
            .saturating_add(if self.prefixed { PREFIX } else { 0 })
    }

    /// Refuses a body of this length at once if its beginning would find no room. Nothing is reserved.
    fn expect(&self, permit: &Permit, len: usize) -> Result<(), Refusal> {
        let beginning = self.expansion.estimate(len.min(MAX_TRUSTED_LEN));
        // An estimate is no reason to say that a request never fits.
        match permit.may_grow_to(beginning.min(self.budget.limit())) {
            true => Ok(()),
            false => Err(Refusal::Full),
        }
    }

    async fn grow(&self, permit: &mut Permit, wire: usize) -> Result<(), Refusal> {
        if wire > self.budget.limit() {
            return Err(Refused::NeverFits {
                limit: self.budget.limit(),
            }
            .into());
        }
        let estimate = self.expansion.estimate(wire).min(self.budget.limit());
        Ok(permit.grow_when_free(estimate).await?)
    }

    fn too_large(&self) -> Refusal {
        Refusal::TooLarge {
            limit: self.max_bytes,
        }
    }
}

/// Whether a body arrives fast enough. Only the time counts in which it is waited for.
struct Pace {
    least: usize,
    tick: Duration,
    /// Made when the body is waited for at all: most come at once.
    ticks: Option<Interval>,
    passed: u32,
    arrived: usize,
}

impl Pace {
    /// Time is counted in so many parts: after a long stop of ours one of them has passed, and not all.
    const PARTS: u32 = 10;

    fn new(limits: &Connections) -> Self {
        Self {
            least: limits.body_pace_bytes,
            tick: (limits.body_pace_time / Self::PARTS).max(Duration::from_millis(1)),
            ticks: None,
            passed: 0,
            arrived: 0,
        }
    }

    fn arrived(&mut self, bytes: usize) {
        self.arrived = self.arrived.saturating_add(bytes);
    }

    /// Resolves when too little came in time.
    async fn too_slow(&mut self) {
        let tick = self.tick;
        let ticks = self.ticks.get_or_insert_with(|| {
            let mut ticks = tokio::time::interval_at(Instant::now() + tick, tick);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        loop {
            ticks.tick().await;
            self.passed += 1;
            if self.passed >= Self::PARTS {
                if self.arrived < self.least {
                    return;
                }
                (self.passed, self.arrived) = (0, 0);
            }
        }
    }
}

/// The length in gRPC's prefix, once `before` and the `data` after it have all of that.
fn message_len(before: &[u8], data: &[u8]) -> Option<usize> {
    let mut prefix = before.iter().chain(data).skip(1);
    let mut next = || prefix.next().copied();
    let len = u32::from_be_bytes([next()?, next()?, next()?, next()?]);
    usize::try_from(len).ok()
}

/// Reads what is left of a body of at most `max` bytes and throws it away, so that a client that
/// sends before it listens sees its answer. Says whether the end was reached.
pub(super) async fn drain<B>(body: &mut B, max: usize, patience: Duration) -> bool
where
    B: Body<Data = Bytes> + Unpin,
{
    if body.size_hint().lower() > max as u64 {
        return false;
    }
    let all = async {
        let mut left = max;
        while let Some(Ok(frame)) = body.frame().await {
            let len = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(len) {
                Some(less) => left = less,
                None => return false,
            }
        }
        true
    };
    tokio::time::timeout(patience, all).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_may_come_in_pieces() {
        let check = |before: &[u8], data: &[u8], expect| {
            assert_eq!(message_len(before, data), expect, "{before:?} {data:?}");
        };
        check(b"", b"", None);
        check(b"", b"\x01\0\x01\x02", None);
        check(b"\x01\0", b"\x01", None);
        check(b"", b"\x01\0\x01\x02\x03", Some(0x1_02_03));
        check(b"\x01\0", b"\x01\x02\x03rest", Some(0x1_02_03));
        check(b"\x01\0\x01\x02\x03", b"rest", Some(0x1_02_03));
        check(b"\0\xff\xff\xff\xff", b"", Some(0xffff_ffff));
    }
}
