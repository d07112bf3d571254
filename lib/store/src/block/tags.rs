//! The tag catalogue's rows: the keys and values that a batch has and the day has not seen.
//!
//! A batch lists each key and value once. When it is frozen, what this process has already stored for
//! the day is taken out again by the [`TagCache`](crate::tag_cache::TagCache) that all builders share.

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use spanloom_otlp::record::{Attr, Value};
use std::io::Write as _;
use std::ops::Range;

use super::dictionary::{Dictionary, hash};
use super::keys::Keys;
use super::native;
use crate::schema::tables::{TAG_SCOPE, TAG_TYPE};

/// Whose attribute it is, by the column's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Resource = 1,
    Span = 2,
    Event = 3,
    Link = 4,
    Instrumentation = 5,
}

/// The value's type, by the column's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    String = 1,
    Int = 2,
    Double = 3,
    Bool = 4,
    Other = 5,
}

/// A longer value is not listed.
pub(crate) const MAX_VALUE_BYTES: usize = 128;

/// A key with more values than this in one batch lists no more of them.
const MAX_VALUES_PER_BATCH: u32 = 100;

/// A batch's catalogue rows take no more than this, values and all.
const MAX_BYTES: usize = 1 << 20;

/// A key or value of the batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tag {
    /// What the cache knows it by.
    pub(crate) hash: u64,
    /// What the cache counts the values of: key, scope and day.
    pub(crate) key_hash: u64,
    /// The key's number in the builder's table.
    pub(crate) number: u32,
    day: u16,
    scope: u8,
    ty: u8,
    key: u32,
    /// Where the value lies.
    value: (u32, u32),
}

impl Tag {
    /// Whether the row names a value, or only the key.
    pub(crate) fn has_value(&self) -> bool {
        self.value.1 > 0
    }

    /// The day, for the builder to remember that the key has too many values.
    pub(crate) fn day(&self) -> u32 {
        u32::from(self.day)
    }
}

/// The rows of a batch.
#[derive(Debug, Default)]
pub(crate) struct Tags {
    pub(crate) rows: Vec<Tag>,
    seen: HashTable<u64>,
    keys: Dictionary,
    values: Vec<u8>,
    /// Keys and values that found no room.
    pub(crate) refused: u64,
}

/// An attribute that waits for the day of the spans it belongs to.
#[derive(Debug, Clone, Copy)]
enum HeldValue {
    Str(usize, usize),
    Int(i64),
    Bool(bool),
    Double,
    Other,
}

/// The attributes of the current resource and scope.
#[derive(Debug, Default)]
pub(crate) struct Held {
    rows: Vec<(u32, Scope, HeldValue)>,
    text: String,
    /// The day they were last noted for.
    noted: Option<u16>,
}

impl Held {
    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        self.text.clear();
        self.noted = None;
    }

    /// Replaces the attributes of a scope.
    pub(crate) fn replace(&mut self, keys: &mut Keys, scope: Scope, attributes: &[Attr<'_>]) {
        self.rows.retain(|&(_, other, _)| other != scope);
        self.noted = None;
        for attribute in attributes {
            let value = match attribute.value {
                Value::Str(text) if text.len() <= MAX_VALUE_BYTES => {
                    self.text.push_str(text);
                    HeldValue::Str(self.text.len() - text.len(), self.text.len())
                }
                Value::Str(_) => HeldValue::Str(usize::MAX, usize::MAX),
                Value::Int(n) => HeldValue::Int(n),
                Value::Bool(b) => HeldValue::Bool(b),
                Value::Double(_) => HeldValue::Double,
                _ => HeldValue::Other,
            };
            let number = keys.intern(attribute.key.as_bytes());
            self.rows.push((number, scope, value));
        }
    }

    /// Notes the attributes for a day, once.
    #[inline]
    pub(crate) fn note(&mut self, tags: &mut Tags, state: &RandomState, keys: &mut Keys, day: u16) {
        if self.noted != Some(day) {
            self.noted = Some(day);
            self.note_all(tags, state, keys, day);
        }
    }

    #[cold]
    fn note_all(&self, tags: &mut Tags, state: &RandomState, keys: &mut Keys, day: u16) {
        for &(number, scope, value) in &self.rows {
            let value = match value {
                HeldValue::Str(from, to) => Value::Str(self.text.get(from..to).unwrap_or_default()),
                HeldValue::Int(n) => Value::Int(n),
                HeldValue::Bool(b) => Value::Bool(b),
                HeldValue::Double => Value::Double(0.0),
                HeldValue::Other => Value::Empty,
            };
            tags.add((state, keys), number, scope, day, &value);
        }
    }
}

/// Spreads what a number says over all bits.
#[inline]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0x9E37_79B9_7F4A_7C15) * u128::from(b ^ 0xD1B5_4A32_D192_ED03);
    (product as u64) ^ ((product >> 64) as u64)
}

impl Tags {
    /// Notes an attribute of a span (or of what is above or in it) of this day.
    #[inline]
    pub(crate) fn add(
        &mut self,
        (state, keys): (&RandomState, &mut Keys),
        number: u32,
        scope: Scope,
        day: u16,
        value: &Value<'_>,
    ) {
        let Some(key) = keys.key(number) else { return };
        let listed = key.tag.distinct < MAX_VALUES_PER_BATCH && u32::from(day) > key.tag.high_until;
        let (ty, value_hash) = match value {
            Value::Str(text) if listed && text.len() <= MAX_VALUE_BYTES => {
                (Type::String, hash(state, text.as_bytes()))
            }
            Value::Str(_) => (Type::String, 0),
            Value::Int(n) if listed => (Type::Int, mix(*n as u64, 7)),
            Value::Int(_) => (Type::Int, 0),
            Value::Bool(b) => (Type::Bool, u64::from(*b) + 1),
            Value::Double(_) => (Type::Double, 0),
            _ => (Type::Other, 0),
        };
        let place = (scope as u64) << 32 | (ty as u64) << 24 | u64::from(day);
        let key_hash = mix(key.hash, place);
        let tag = mix(key_hash, value_hash);
        if key.tag.last == tag {
            return;
        }
        key.tag.last = tag;
        if self.seen.find(tag, |&other| other == tag).is_some() {
            return;
        }
        let row = Tag {
            hash: tag,
            key_hash,
            number,
            day,
            scope: scope as u8,
            ty: ty as u8,
            key: 0,
            value: (0, 0),
        };
        let shown = if value_hash == 0 {
            &Value::Empty
        } else {
            value
        };
        self.note(keys, row, shown);
    }

    #[cold]
    fn note(&mut self, keys: &mut Keys, mut row: Tag, value: &Value<'_>) {
        if self.bytes() > MAX_BYTES {
            self.refused += 1;
            return;
        }
        self.seen.insert_unique(row.hash, row.hash, |&hash| hash);
        let start = self.values.len();
        match value {
            Value::Str(text) => self.values.extend_from_slice(text.as_bytes()),
            // Writing to memory does not fail.
            Value::Int(n) => drop(write!(self.values, "{n}")),
            Value::Bool(b) => drop(write!(self.values, "{b}")),
            _ => {}
        }
        row.value = (start as u32, (self.values.len() - start) as u32);
        row.key = self.keys.intern(keys.get(row.number));
        if row.has_value()
            && let Some(key) = keys.key(row.number)
        {
            key.tag.distinct += 1;
        }
        self.rows.push(row);
    }

    /// Notes all attributes.
    pub(crate) fn add_all(
        &mut self,
        (state, keys): (&RandomState, &mut Keys),
        scope: Scope,
        day: u16,
        attributes: &[Attr<'_>],
    ) {
        for attribute in attributes {
            let number = keys.intern(attribute.key.as_bytes());
            self.add((state, keys), number, scope, day, &attribute.value);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        self.seen.clear();
        self.keys.clear();
        self.values.clear();
        self.refused = 0;
    }

    pub(crate) fn bytes(&self) -> usize {
        self.rows.len() * (size_of::<Tag>() + 16) + self.keys.bytes() + self.values.len()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.rows.capacity() * size_of::<Tag>()
            + self.seen.capacity() * 9
            + self.keys.capacity()
            + self.values.capacity()
    }

    /// Appends a Native block of these rows.
    pub(crate) fn write(&self, range: Range<usize>, out: &mut Vec<u8>) {
        let rows = self.rows.get(range).unwrap_or_default();
        native::block(out, COLUMNS.len(), rows.len());
        native::column(out, "day", "Date");
        native::all(out, rows.iter().map(|tag| tag.day));
        native::column(out, "scope", TAG_SCOPE);
        native::all(out, rows.iter().map(|tag| tag.scope));
        self.keys
            .write_column(out, "key", rows.iter().map(|tag| tag.key));
        native::column(out, "type", TAG_TYPE);
        native::all(out, rows.iter().map(|tag| tag.ty));
        native::column(out, "value", "String");
        for tag in rows {
            let (start, len) = (tag.value.0 as usize, tag.value.1 as usize);
            native::string(out, self.values.get(start..start + len).unwrap_or_default());
        }
    }
}

/// The columns that [`Tags::write`] writes.
pub(crate) const COLUMNS: [&str; 5] = ["day", "scope", "key", "type", "value"];
