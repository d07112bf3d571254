//! Attribute keys: their numbers, where their values go, and what the tag catalogue knows of them.
//!
//! The table outlives its block, since keys hardly change; only the numbers that a block's maps give
//! to its keys are new each time. Most spans have the keys of one before, in the same order, so each
//! key remembers which came after it, and a lookup is mostly one comparison.

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::dictionary::hash;
use super::native;
use crate::schema::promoted::{self, Kind, PROMOTED_SPAN};

/// The four attribute maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MapColumn {
    Str = 0,
    Int = 1,
    Double = 2,
    Other = 3,
}

/// Where the values of a key go when they have the right type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Into the map of their type.
    Map,
    /// Text into the promoted column of names with this number.
    Name(usize),
    /// Text into the promoted column of texts with this number.
    Text(usize),
    /// Numbers of 1 to 65535 into the promoted column of codes with this number.
    Code(usize),
}

/// One key.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) hash: u64,
    start: usize,
    len: usize,
    pub(crate) place: Place,
    /// The key that last followed this one.
    next: u32,
    /// The key's number in each of the block's maps.
    local: [u32; 4],
    pub(crate) tag: TagState,
}

/// What the catalogue's collector keeps for a key.
#[derive(Debug, Default)]
pub(crate) struct TagState {
    /// The hash of the value seen last.
    pub(crate) last: u64,
    /// Distinct values in this block.
    pub(crate) distinct: u32,
    /// Up to this day the key has too many values to list.
    pub(crate) high_until: u32,
}

const NO_NUMBER: u32 = u32::MAX;

/// All keys that a block builder has met.
#[derive(Debug)]
pub(crate) struct Keys {
    state: RandomState,
    table: HashTable<u32>,
    keys: Vec<Key>,
    text: Vec<u8>,
    previous: u32,
}

/// When a sender makes up keys, the table is emptied with the block at this size.
const MAX_KEPT_BYTES: usize = 1 << 20;

impl Keys {
    pub(crate) fn new(state: RandomState) -> Self {
        let mut keys = Self {
            state,
            table: HashTable::new(),
            keys: Vec::new(),
            text: Vec::new(),
            previous: 0,
        };
        keys.add_promoted();
        keys
    }

    fn add_promoted(&mut self) {
        for (promoted, number) in promoted::numbered(&PROMOTED_SPAN) {
            let place = match promoted.kind {
                Kind::Name => Place::Name(number),
                Kind::Text => Place::Text(number),
                Kind::Code => Place::Code(number),
            };
            let number = self.find_or_add(promoted.key.as_bytes());
            if let Some(key) = self.keys.get_mut(number as usize) {
                key.place = place;
            }
        }
    }

    /// The number of a key, new or known.
    #[inline]
    pub(crate) fn intern(&mut self, text: &[u8]) -> u32 {
        let guess = self.keys.get(self.previous as usize).map_or(0, |k| k.next);
        let number = if self.get(guess) == text {
            guess
        } else {
            let number = self.find_or_add(text);
            if let Some(previous) = self.keys.get_mut(self.previous as usize) {
                previous.next = number;
            }
            number
        };
        self.previous = number;
        number
    }

    /// A span begins.
    #[inline]
    pub(crate) fn restart(&mut self) {
        self.previous = 0;
    }

    fn find_or_add(&mut self, text: &[u8]) -> u32 {
        let hash = hash(&self.state, text);
        let found = self.table.find(hash, |&number| self.get(number) == text);
        if let Some(&number) = found {
            return number;
        }
        let number = self.keys.len() as u32;
        let start = self.text.len();
        self.text.extend_from_slice(text);
        self.keys.push(Key {
            hash,
            start,
            len: text.len(),
            place: Place::Map,
            next: 0,
            local: [NO_NUMBER; 4],
            tag: TagState::default(),
        });
        let keys = &self.keys;
        self.table.insert_unique(hash, number, |&number| {
            keys.get(number as usize).map_or(0, |key| key.hash)
        });
        number
    }

    /// The key with this number.
    #[inline]
    pub(crate) fn key(&mut self, number: u32) -> Option<&mut Key> {
        self.keys.get_mut(number as usize)
    }

    /// The text of a key.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> &[u8] {
        self.keys
            .get(number as usize)
            .and_then(|key| self.text.get(key.start..key.start + key.len))
            .unwrap_or_default()
    }

    /// The block is done: its maps' numbers are void.
    pub(crate) fn next_block(&mut self) {
        if self.bytes() > MAX_KEPT_BYTES {
            *self = Self::new(self.state.clone());
            return;
        }
        for key in &mut self.keys {
            key.local = [NO_NUMBER; 4];
            key.tag.distinct = 0;
            key.tag.last = 0;
        }
        self.previous = 0;
    }

    pub(crate) fn bytes(&self) -> usize {
        self.text.len() + self.keys.len() * (size_of::<Key>() + 8)
    }
}

/// The keys of one map column: those that the block uses, and which key each pair has.
#[derive(Debug, Default)]
pub(crate) struct MapKeys {
    count: usize,
    encoded: Vec<u8>,
    pub(crate) indices: Vec<u32>,
}

impl MapKeys {
    /// Adds a pair's key.
    #[inline]
    pub(crate) fn push(&mut self, keys: &mut Keys, number: u32, map: MapColumn) {
        let local = match keys.keys.get(number as usize) {
            Some(key) if key.local[map as usize] != NO_NUMBER => key.local[map as usize],
            _ => self.add(keys, number, map),
        };
        self.indices.push(local);
    }

    #[cold]
    fn add(&mut self, keys: &mut Keys, number: u32, map: MapColumn) -> u32 {
        native::string(&mut self.encoded, keys.get(number));
        let local = self.count as u32;
        self.count += 1;
        if let Some(key) = keys.key(number) {
            key.local[map as usize] = local;
        }
        local
    }

    pub(crate) fn clear(&mut self) {
        self.count = 0;
        self.encoded.clear();
        self.indices.clear();
    }

    pub(crate) fn bytes(&self) -> usize {
        self.encoded.len() + self.indices.len() * 4
    }

    pub(crate) fn capacity(&self) -> usize {
        self.encoded.capacity() + self.indices.capacity() * 4
    }

    /// The data of the keys of these pairs.
    pub(crate) fn write(&self, out: &mut Vec<u8>, pairs: std::ops::Range<usize>) {
        let indices = self.indices.get(pairs).unwrap_or_default();
        native::low_cardinality(
            out,
            self.count,
            |out| out.extend_from_slice(&self.encoded),
            indices.iter().copied(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_numbers_and_places() {
        let mut keys = Keys::new(RandomState::default());
        let check = |keys: &mut Keys, text: &str, place: Place| {
            let number = keys.intern(text.as_bytes());
            assert_eq!(keys.get(number), text.as_bytes());
            assert_eq!(keys.key(number).map(|key| key.place), Some(place), "{text}");
            number
        };
        let cases = [
            ("http.route", Place::Name(1)),
            ("error.type", Place::Name(8)),
            ("url.path", Place::Text(0)),
            ("http.response.status_code", Place::Code(0)),
            ("", Place::Map),
            ("http.routes", Place::Map),
        ];
        let first = cases.map(|(text, place)| check(&mut keys, text, place));
        keys.next_block();
        let again = cases.map(|(text, place)| check(&mut keys, text, place));
        assert_eq!(first, again);
    }

    #[test]
    fn invented_keys_do_not_stay_for_ever() {
        let mut keys = Keys::new(RandomState::default());
        for n in 0..40_000 {
            keys.intern(format!("key {n}").as_bytes());
        }
        assert!(keys.bytes() > MAX_KEPT_BYTES);
        keys.next_block();
        assert!(keys.bytes() < 10_000);
        let number = keys.intern(b"http.route");
        assert_eq!(keys.key(number).map(|key| key.place), Some(Place::Name(1)));
    }
}
