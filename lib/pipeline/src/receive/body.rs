//! Bodies read, within admission and the size limit.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;

use super::answer::Refusal;
use crate::admission::{Budget, Expansion, Permit, Refused};
use crate::buffers::{Buffer, Buffers};

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
    pub(super) max_bytes: usize,
    /// How long it may take: what it promises is reserved meanwhile, so it cannot be long.
    pub(super) patience: Duration,
    /// Whether its first 5 bytes are gRPC's prefix, which says how long the message is.
    pub(super) prefixed: bool,
}

/// What is reserved for a body that does not say how long it is.
const UNKNOWN_LEN: usize = 16 << 10;
/// Until a client has sent something, no more memory than this is taken for it at once.
const MAX_TRUSTED_LEN: usize = 1 << 20;
/// gRPC's prefix: whether the message is compressed, and its length.
pub(super) const PREFIX: usize = 5;

impl Reading<'_> {
    /// Reads all of a body, within the time that one may take. `seen` is how long it is as far as is
    /// known, also when it is refused.
    pub(super) async fn read<B>(&self, body: &mut B, seen: &mut usize) -> Result<Received, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let all = tokio::time::timeout(self.patience, self.read_all(body, seen)).await;
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
        let estimate = self.expansion.estimate(promised.unwrap_or(UNKNOWN_LEN));
        let mut permit = self.admit(estimate)?;
        let mut reserved = promised.unwrap_or(UNKNOWN_LEN);
        let mut bytes = self
            .buffers
            .take(promised.unwrap_or(0).min(MAX_TRUSTED_LEN));
        let mut announced = false;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Refusal::ClientGone)?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let total = bytes.len() + data.len();
            see(total);
            if total > self.max() {
                return Err(self.too_large());
            }
            if total > reserved {
                // In doubling steps, so that each byte is counted a few times at most.
                reserved = (reserved * 2).clamp(total, self.max().max(total));
                self.grow(&mut permit, reserved)?;
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
                reserved = reserved.max(len + PREFIX);
                // Before anything is copied: most requests that find no memory end here.
                self.grow(&mut permit, reserved)?;
                let expected = (len + PREFIX).saturating_sub(bytes.len());
                bytes.reserve(expected.min(MAX_TRUSTED_LEN));
            }
            bytes.extend(&data);
        }
        Ok(Received { bytes, permit })
    }

    fn max(&self) -> usize {
        self.max_bytes
            .saturating_add(if self.prefixed { PREFIX } else { 0 })
    }

    fn admit(&self, bytes: usize) -> Result<Permit, Refusal> {
        // An estimate is no reason to say that a request never fits.
        Ok(self.budget.reserve(bytes.min(self.budget.limit()))?)
    }

    fn grow(&self, permit: &mut Permit, wire: usize) -> Result<(), Refusal> {
        if wire > self.budget.limit() {
            return Err(Refused::NeverFits {
                limit: self.budget.limit(),
            }
            .into());
        }
        let estimate = self.expansion.estimate(wire).min(self.budget.limit());
        Ok(permit.grow_to(estimate)?)
    }

    fn too_large(&self) -> Refusal {
        Refusal::TooLarge {
            limit: self.max_bytes,
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
pub(super) async fn drain(
    body: &mut hyper::body::Incoming,
    max: usize,
    patience: Duration,
) -> bool {
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
