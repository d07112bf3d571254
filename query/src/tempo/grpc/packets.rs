//! Lists cut into messages. Clients of gRPC take messages of up to 4 MiB by default, and show the first while the
//! rest is on its way.

use prost::Message;

/// A message is at most as large.
pub const BYTES_MAX: usize = 1 << 20;

/// What a message has beside its list.
const OTHER_BYTES_MAX: usize = 4 << 10;

/// What the items of a message may take.
pub const ITEMS_BYTES_MAX: usize = BYTES_MAX - OTHER_BYTES_MAX;

/// A field's number and length before each item.
const FRAME_BYTES_MAX: usize = 6;

/// A list in parts that fit into a message each.
#[derive(Debug, PartialEq)]
pub struct Packets<T> {
    /// The parts; at least one, which may be empty.
    pub parts: Vec<Vec<T>>,
    /// Whether items were left out, for they do not fit into a message.
    pub left_out: bool,
}

impl<T: Message> Packets<T> {
    /// Cuts a list.
    pub fn of(items: impl IntoIterator<Item = T>) -> Self {
        Self::within(items, ITEMS_BYTES_MAX)
    }

    /// Cuts a list into parts of at most so many bytes.
    pub fn within(items: impl IntoIterator<Item = T>, most: usize) -> Self {
        let (mut parts, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut left_out = false;
        for item in items {
            let size = item_bytes(&item);
            if size > most {
                left_out = true;
                continue;
            }
            if bytes + size > most {
                parts.push(std::mem::take(&mut part));
                bytes = 0;
            }
            bytes += size;
            part.push(item);
        }
        parts.push(part);
        Self { parts, left_out }
    }

    /// Each part, and how far one is with it: what is done of so many jobs.
    pub fn with_progress(self, jobs: u32) -> impl Iterator<Item = (Vec<T>, u32)> {
        let count = u32::try_from(self.parts.len()).unwrap_or(u32::MAX).max(1);
        self.parts
            .into_iter()
            .zip(1_u32..)
            .map(move |(part, number)| {
                let done = u64::from(jobs) * u64::from(number) / u64::from(count);
                (part, u32::try_from(done).unwrap_or(jobs))
            })
    }
}

/// What an item takes in a message.
pub fn item_bytes(item: &impl Message) -> usize {
    item.encoded_len() + FRAME_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(lengths: &[usize], expect: &[usize], left_out: bool) {
        let items = lengths.iter().map(|length| "x".repeat(*length));
        let packets = Packets::within(items, 100);
        let counts: Vec<_> = packets.parts.iter().map(Vec::len).collect();
        assert_eq!((&counts[..], packets.left_out), (expect, left_out));
    }

    #[test]
    fn lists_are_cut_where_they_are_full() {
        check(&[], &[0], false);
        check(&[10], &[1], false);
        // A text of 42 takes two bytes more, and six in front of it.
        check(&[42, 42], &[2], false);
        check(&[42, 43], &[1, 1], false);
        check(&[10, 200, 10], &[2], true);
        check(&[200], &[0], true);
        check(&[80, 80, 3], &[1, 2], false);
    }

    #[test]
    fn progress_ends_with_all() {
        let items = ["x".repeat(80), "x".repeat(80), "x".repeat(80)];
        let done = |packets: Packets<String>| -> Vec<_> {
            packets.with_progress(100).map(|(_, done)| done).collect()
        };
        assert_eq!(done(Packets::within(items, 100)), [33, 66, 100]);
        assert_eq!(done(Packets::of([])), [100]);
    }
}
