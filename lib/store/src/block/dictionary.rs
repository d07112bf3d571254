//! The keys of one `LowCardinality(String)` column of a block.

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::{BuildHasher, Hasher};

use super::native;

/// The hash of some bytes.
#[inline]
pub(crate) fn hash(state: &RandomState, bytes: &[u8]) -> u64 {
    let mut hasher = state.build_hasher();
    hasher.write(bytes);
    hasher.finish()
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    hash: u64,
    start: usize,
    len: usize,
}

/// Texts by number; number 0 is the empty text. Kept as the strings that the block will hold.
#[derive(Debug, Default)]
pub(crate) struct Dictionary {
    state: RandomState,
    table: HashTable<u32>,
    entries: Vec<Entry>,
    encoded: Vec<u8>,
    /// Spans often repeat the text of the one before.
    last: u32,
}

impl Dictionary {
    /// The number of a text, new or known.
    #[inline]
    pub(crate) fn intern(&mut self, text: &[u8]) -> u32 {
        if text.is_empty() {
            return 0;
        }
        if self.get(self.last) == text {
            return self.last;
        }
        self.last = self.find_or_add(text);
        self.last
    }

    fn find_or_add(&mut self, text: &[u8]) -> u32 {
        if self.entries.is_empty() {
            self.add(0, b"");
        }
        let hash = hash(&self.state, text);
        let Self {
            table,
            entries,
            encoded,
            ..
        } = self;
        let found = table.find(hash, |&number| {
            entries.get(number as usize).is_some_and(|entry| {
                entry.hash == hash
                    && encoded.get(entry.start..entry.start + entry.len) == Some(text)
            })
        });
        if let Some(&number) = found {
            return number;
        }
        let number = self.add(hash, text);
        let entries = &self.entries;
        self.table.insert_unique(hash, number, |&number| {
            entries.get(number as usize).map_or(0, |entry| entry.hash)
        });
        number
    }

    fn add(&mut self, hash: u64, text: &[u8]) -> u32 {
        native::string(&mut self.encoded, text);
        let entry = Entry {
            hash,
            start: self.encoded.len() - text.len(),
            len: text.len(),
        };
        self.entries.push(entry);
        (self.entries.len() - 1) as u32
    }

    /// The text with this number.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> &[u8] {
        self.entries
            .get(number as usize)
            .and_then(|entry| self.encoded.get(entry.start..entry.start + entry.len))
            .unwrap_or_default()
    }

    /// Forgets all texts, keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.table.clear();
        self.entries.clear();
        self.encoded.clear();
        self.last = 0;
    }

    /// Memory in use.
    pub(crate) fn bytes(&self) -> usize {
        self.encoded.len() + self.entries.len() * (size_of::<Entry>() + 8)
    }

    /// Memory held.
    pub(crate) fn capacity(&self) -> usize {
        self.encoded.capacity()
            + self.entries.capacity() * size_of::<Entry>()
            + self.table.capacity() * 5
    }

    /// Writes a whole column.
    pub(crate) fn write_column(
        &self,
        out: &mut Vec<u8>,
        name: &str,
        indices: impl ExactSizeIterator<Item = u32>,
    ) {
        native::column(out, name, "LowCardinality(String)");
        native::low_cardinality_version(out);
        self.write_data(out, indices);
    }

    /// Writes the data without the version.
    pub(crate) fn write_data(
        &self,
        out: &mut Vec<u8>,
        indices: impl ExactSizeIterator<Item = u32>,
    ) {
        let keys = self.entries.len().max(1);
        let write = |out: &mut Vec<u8>| match self.entries.is_empty() {
            true => native::string(out, b""),
            false => out.extend_from_slice(&self.encoded),
        };
        native::low_cardinality(out, keys, write, indices);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_get_equal_numbers() {
        let mut dictionary = Dictionary::default();
        let long = "x".repeat(300);
        let texts = ["", "a", "b", "a", "", &long, "b", &long];
        let numbers: Vec<u32> = texts
            .iter()
            .map(|text| dictionary.intern(text.as_bytes()))
            .collect();
        assert_eq!(numbers, [0, 1, 2, 1, 0, 3, 2, 3]);
        for (text, &number) in texts.iter().zip(&numbers) {
            assert_eq!(dictionary.get(number), text.as_bytes());
        }
        dictionary.clear();
        assert_eq!(dictionary.intern(b"b"), 1);
        assert_eq!(dictionary.get(7), b"");
    }

    #[test]
    fn thousands_of_texts() {
        let mut dictionary = Dictionary::default();
        for round in 0..2 {
            for n in 0..70_000u32 {
                let number = dictionary.intern(format!("text {n}").as_bytes());
                assert_eq!(number, n + 1, "round {round}");
            }
        }
    }
}
