//! Attributes: checked, made unique, redacted and cut.

use foldhash::fast::RandomState;
use hashbrown::HashSet;
use spanloom_otlp::DecodeError;
use spanloom_otlp::nested::Nested;
use spanloom_otlp::record::{Attr, RawValue, Value};
use spanloom_otlp::view::KeyValueView;
use spanloom_rules::HIDDEN;

use super::nested::{self, Finding, Rewriter};
use super::redact::{self, KeyDecision};
use super::{Work, text};
use crate::tally::Change;

/// For so many places of a list it is remembered what was decided of the key there.
const MAX_DECIDED: usize = 64;

/// What stands where a value was nested too deep.
pub(crate) const TOO_DEEP: &str = "[nested too deep]";

/// Attributes collected, not yet redacted and cut.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Collected {
    /// Attributes that were left out because there are too many.
    pub(super) cut: u32,
    /// Whether one of them may have to be cut or looked into.
    pub(super) large: bool,
}

impl<'r> Work<'r, '_> {
    /// Appends attributes to `out`, up to `max` of them.
    #[inline]
    pub(super) fn collect(
        &mut self,
        attributes: impl Iterator<Item = Result<KeyValueView<'r>, DecodeError>>,
        max: usize,
        out: &mut Vec<Attr<'r>>,
    ) -> Result<Collected, DecodeError> {
        let start = out.len();
        let value_bytes = self.rules.limits.value_bytes;
        let text_bytes = self.rules.limits.text_bytes();
        let mut collected = Collected::default();
        self.keys.clear();
        for attribute in attributes {
            let KeyValueView { key, value } = attribute?;
            let so_far = out.get(start..).unwrap_or_default();
            if so_far.len() >= max {
                collected.cut = collected.cut.saturating_add(1);
                continue;
            }
            let key = self.text(key);
            if !self.keys.insert(key, so_far) {
                self.tally.change(Change::DuplicateKey, 1);
                continue;
            }
            collected.large |= key.len() > text_bytes;
            let value = match value {
                Value::Str(bytes) => {
                    collected.large |= bytes.len() > value_bytes;
                    Value::Str(self.text(bytes))
                }
                Value::Bytes(bytes) => {
                    collected.large |= bytes.len() > value_bytes;
                    Value::Bytes(bytes)
                }
                Value::Array(_) | Value::KvList(_) => {
                    collected.large = true;
                    self.nested(value)?
                }
                Value::Bool(bool) => Value::Bool(bool),
                Value::Int(int) => Value::Int(int),
                Value::Double(double) => Value::Double(double),
                Value::Empty => Value::Empty,
            };
            out.push(Attr { key, value });
        }
        Ok(collected)
    }

    /// Redacts and cuts what was collected; the first `protected` are never left out. Returns how many
    /// attributes stay and how many cuts were made, for the dropped count.
    #[inline]
    pub(super) fn finish(
        &mut self,
        collected: Collected,
        protected: usize,
        attributes: &mut [Attr<'r>],
    ) -> (usize, u32) {
        let max = self.rules.limits.attributes.max(protected);
        let kept = attributes.len().min(max);
        let beyond = attributes.len() - kept;
        let mut cut = collected
            .cut
            .saturating_add(u32::try_from(beyond).unwrap_or(u32::MAX));
        if cut > 0 {
            self.tally.change(Change::AttributeCut, u64::from(cut));
        }
        if collected.large || self.rules.redactor.is_some() {
            let kept = attributes.get_mut(..kept).unwrap_or_default();
            for (at, attribute) in kept.iter_mut().enumerate() {
                cut = cut.saturating_add(self.finish_one(at, attribute));
            }
            if !self.hidden_keys.is_empty() {
                self.name_hidden_keys(kept);
            }
        }
        (kept, cut)
    }

    fn finish_one(&mut self, at: usize, attribute: &mut Attr<'r>) -> u32 {
        let mut cuts = 0;
        let decision = self.key_decision(at, attribute.key);
        if decision != KeyDecision::Keep {
            self.tally.change(Change::Redacted, 1);
            attribute.value = Value::Str(HIDDEN);
            if decision == KeyDecision::HideBoth {
                // Its name is found when all others are known.
                attribute.key = "";
                self.hidden_keys.push(at);
            }
        }
        let limit = self.rules.limits.value_bytes;
        attribute.value = match attribute.value {
            Value::Str(value) => {
                let value = self.redacted(value);
                if value.len() > limit {
                    self.tally.change(Change::ValueCut, 1);
                    cuts = 1;
                }
                Value::Str(text::cut(value, limit))
            }
            Value::Bytes(bytes) => {
                let bytes = self.redacted_bytes(bytes);
                match bytes.get(..limit) {
                    Some(kept) if kept.len() < bytes.len() => {
                        self.tally.change(Change::ValueCut, 1);
                        cuts = 1;
                        Value::Bytes(kept)
                    }
                    _ => Value::Bytes(bytes),
                }
            }
            Value::Array(list) => {
                let (list, cut) = self.rewritten(attribute.key, list, false);
                cuts = cut;
                Value::Array(list)
            }
            Value::KvList(list) => {
                let (list, cut) = self.rewritten(attribute.key, list, true);
                cuts = cut;
                Value::KvList(list)
            }
            number @ (Value::Int(_) | Value::Double(_)) => self.redacted_number(number),
            other => other,
        };
        attribute.key = self.shortened(attribute.key);
        cuts
    }

    /// What is done with a key and its value. Spans of one kind have the same keys in the same order,
    /// so what was decided last for this place is mostly the answer.
    #[inline]
    fn key_decision(&mut self, at: usize, key: &'r str) -> KeyDecision {
        let Some(redactor) = &self.rules.redactor else {
            return KeyDecision::Keep;
        };
        if let Some(&(known, decision)) = self.decided.get(at)
            && is_same(known.as_bytes(), key.as_bytes())
        {
            return decision;
        }
        let decision = self.decisions.key(redactor, key);
        let known = self.decided.len();
        match self.decided.get_mut(at) {
            Some(place) => *place = (key, decision),
            None if at == known && at < MAX_DECIDED => {
                self.decided.push((key, decision));
            }
            None => {}
        }
        decision
    }

    /// Gives names to the keys that are hidden.
    #[cold]
    fn name_hidden_keys(&mut self, attributes: &mut [Attr<'r>]) {
        let mut n = 0;
        for at in std::mem::take(&mut self.hidden_keys) {
            let name = loop {
                n += 1;
                let name = redact::hidden_key(n);
                if attributes.iter().all(|attribute| attribute.key != name) {
                    break name;
                }
            };
            if let Some(attribute) = attributes.get_mut(at) {
                attribute.key = self.arena.alloc_str(&name);
            }
        }
    }

    fn redacted_bytes(&mut self, bytes: &'r [u8]) -> &'r [u8] {
        let Some(redactor) = &self.rules.redactor else {
            return bytes;
        };
        match self.decisions.hidden_bytes(redactor, bytes) {
            Some(hidden) => {
                self.tally.change(Change::Redacted, 1);
                self.arena.alloc_slice_copy(&hidden)
            }
            None => bytes,
        }
    }

    #[inline]
    fn redacted_number(&mut self, number: Value<'r>) -> Value<'r> {
        let Some(redactor) = &self.rules.redactor else {
            return number;
        };
        match self.decisions.hidden_number(redactor, &number) {
            Some(hidden) => {
                self.tally.change(Change::Redacted, 1);
                Value::Str(self.kept(hidden))
            }
            None => number,
        }
    }

    /// A nested value whose text is repaired; one that is too deep is replaced.
    fn nested(&mut self, value: RawValue<'r>) -> Result<Value<'r>, DecodeError> {
        let (list, pairs) = match value {
            Value::Array(list) => (list, false),
            Value::KvList(list) => (list, true),
            _ => return Ok(Value::Empty),
        };
        let list = match nested::inspect(value)? {
            Finding::Clean => list,
            Finding::TooDeep => {
                self.tally.change(Change::NestedTooDeep, 1);
                return Ok(Value::Str(TOO_DEEP));
            }
            Finding::InvalidText => {
                let mut rewriter = Rewriter {
                    redactor: None,
                    limit: usize::MAX,
                    cut: false,
                    repaired: 0,
                    redacted: 0,
                    path: String::new(),
                    starts: Vec::new(),
                };
                let repaired = rewriter.list(list, pairs)?;
                self.tally.change(Change::InvalidUtf8, rewriter.repaired);
                Nested(self.arena.alloc_slice_copy(&repaired))
            }
        };
        Ok(if pairs {
            Value::KvList(list)
        } else {
            Value::Array(list)
        })
    }

    /// A nested value redacted and cut, and whether it was cut.
    fn rewritten(&mut self, key: &str, list: Nested<'r>, pairs: bool) -> (Nested<'r>, u32) {
        let limit = self.rules.limits.value_bytes;
        if self.rules.redactor.is_none() && list.0.len() <= limit {
            return (list, 0);
        }
        let redactor = self.rules.redactor.as_ref();
        let mut rewriter = Rewriter {
            redactor: redactor.map(|redactor| (redactor, &mut *self.decisions)),
            limit,
            cut: false,
            repaired: 0,
            redacted: 0,
            path: key.to_owned(),
            starts: vec![0],
        };
        // It was inspected when it was collected, so it can be read.
        let bytes = rewriter.list(list, pairs).unwrap_or_default();
        let (cut, redacted) = (rewriter.cut, rewriter.redacted);
        if redacted > 0 {
            self.tally.change(Change::Redacted, redacted);
        }
        if cut {
            self.tally.change(Change::ValueCut, 1);
        }
        if !cut && redacted == 0 {
            return (list, 0);
        }
        (Nested(self.arena.alloc_slice_copy(&bytes)), u32::from(cut))
    }
}

/// Bits for hashes: enough that of a dozen keys two rarely share one.
const WORDS: usize = 16;

/// The keys seen among one owner's attributes.
#[derive(Debug)]
pub(super) struct Keys<'r> {
    /// A bit for each key's hash: a new bit proves a new key.
    bits: [u64; WORDS],
    /// All keys, once they are too many to compare with.
    many: HashSet<&'r str, RandomState>,
}

impl<'r> Keys<'r> {
    /// From this many keys on, a set is quicker than comparing.
    const MANY: usize = 48;

    pub(super) fn new() -> Self {
        Self {
            bits: [0; WORDS],
            many: HashSet::default(),
        }
    }

    fn clear(&mut self) {
        self.bits = [0; WORDS];
        if !self.many.is_empty() {
            self.many.clear();
        }
    }

    /// Notes a key; false if it is one of `so_far`, the attributes of the keys noted before.
    #[inline]
    fn insert(&mut self, key: &'r str, so_far: &[Attr<'r>]) -> bool {
        if so_far.len() >= Self::MANY {
            return self.insert_many(key, so_far);
        }
        let hash = hash(key.as_bytes());
        let bit = 1 << (hash % 64);
        let Some(word) = self.bits.get_mut(hash / 64 % WORDS) else {
            return true;
        };
        let maybe_seen = *word & bit != 0;
        *word |= bit;
        !maybe_seen || so_far.iter().all(|attribute| attribute.key != key)
    }

    #[cold]
    fn insert_many(&mut self, key: &'r str, so_far: &[Attr<'r>]) -> bool {
        if self.many.is_empty() {
            self.many
                .extend(so_far.iter().map(|attribute| attribute.key));
        }
        self.many.insert(key)
    }
}

/// Whether two keys are equal. Most have 8 to 32 bytes: their halves are compared, which overlap.
#[inline]
fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    fn halves<const N: usize>(bytes: &[u8]) -> Option<(&[u8; N], &[u8; N])> {
        bytes.first_chunk::<N>().zip(bytes.last_chunk::<N>())
    }
    match one.len() {
        8..=16 => halves::<8>(one) == halves::<8>(other),
        17..=32 => halves::<16>(one) == halves::<16>(other),
        _ => one == other,
    }
}

/// A cheap hash of a short text: its length, its start and its end.
#[inline]
fn hash(key: &[u8]) -> usize {
    let mixed = match (key.first_chunk::<8>(), key.last_chunk::<8>()) {
        (Some(first), Some(last)) => {
            u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last).rotate_left(29)
        }
        _ => key
            .iter()
            .fold(0, |hash, &byte| hash << 8 | u64::from(byte)),
    };
    let mixed = (mixed ^ key.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 54) as usize
}
