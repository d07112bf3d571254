//! Views over the bytes of an `ExportTraceServiceRequest`: nothing is copied or allocated.
//!
//! A view is made by one pass over its own message's fields: it keeps the scalars and where the
//! repeated fields lie; the iterators walk those parts alone. So an error deep inside shows when the
//! walk gets there, not before.
//!
//! What is read is what prost would read, with these differences:
//! - text is not checked to be UTF-8: that is left to the pipeline, which checks each distinct text once;
//! - values may nest as deep as [`MAX_NESTING_DEPTH`](crate::nested::MAX_NESTING_DEPTH) says (whoever
//!   follows them checks it), where prost gives up at 100 messages in each other;
//! - a list with content and then a further piece of it, or another value, in the same `AnyValue` is
//!   an error ([`SplitValue`](crate::DecodeErrorKind::SplitValue)); prost joins or replaces it;
//! - `Resource.entity_refs` is skipped unread.
//!
//! Like prost: of a scalar given twice the last counts; `resource`, `scope`, `status` and `value`
//! given twice are merged; unknown fields are skipped, groups too.

mod attribute;
mod request;
mod span;

use std::marker::PhantomData;

pub(crate) use attribute::any_value;
pub use attribute::{KeyValueView, MergedAttributes};
pub use request::{ResourceSpansView, ResourceView, ScopeSpansView, ScopeView, TracesView};
pub use span::{EventView, LinkView, SpanView};

use crate::error::{DecodeError, DecodeErrorKind};
pub use crate::wire::MAX_GROUP_DEPTH;
use crate::wire::{LEN, Reader, key};

/// A message that can be read in place. Only this module's views are.
pub trait Message<'a>: sealed::Parse<'a> {}
impl<'a, T: sealed::Parse<'a>> Message<'a> for T {}

pub(crate) mod sealed {
    use super::{DecodeError, Reader};

    pub trait Parse<'a>: Sized {
        fn parse(reader: Reader<'a>) -> Result<Self, DecodeError>;
    }
}

/// The attributes of a span, event or link.
pub type Attributes<'a> = Messages<'a, KeyValueView<'a>>;

/// Iterates over a repeated field. After an error it ends.
#[derive(Debug, Clone)]
pub struct Messages<'a, T> {
    reader: Reader<'a>,
    key: u32,
    item: PhantomData<fn() -> T>,
}

impl<'a, T> Messages<'a, T> {
    /// The messages of field `field` among the fields in `reader`.
    #[inline(always)]
    pub(crate) fn new(reader: Reader<'a>, field: u32) -> Self {
        Self {
            reader,
            key: key(field, LEN),
            item: PhantomData,
        }
    }
}

impl<'a, T: Message<'a>> Iterator for Messages<'a, T> {
    type Item = Result<T, DecodeError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let item = match self.reader.short_item(self.key) {
            Some(bytes) => T::parse(self.reader.over(bytes)),
            None => self.uncommon()?,
        };
        if item.is_err() {
            self.reader.stop();
        }
        Some(item)
    }
}

impl<'a, T: Message<'a>> Messages<'a, T> {
    /// The next item where it is long, or other fields lie before it.
    #[inline(never)]
    fn uncommon(&mut self) -> Option<Result<T, DecodeError>> {
        while !self.reader.is_empty() {
            return Some(match self.reader.key() {
                Ok(key) if key == self.key => self.reader.message().and_then(T::parse),
                Ok(key) if key >> 3 == self.key >> 3 => {
                    Err(self.reader.fail(DecodeErrorKind::WrongWireType(key >> 3)))
                }
                Ok(key) => match self.reader.skip(key) {
                    Ok(()) => continue,
                    Err(error) => Err(error),
                },
                Err(error) => Err(error),
            });
        }
        None
    }
}

/// The part of a message from the first to the last of a repeated field's items.
#[derive(Clone, Copy)]
struct Extent {
    /// Bytes left before the first item; 0 means none was seen.
    before: usize,
    /// Bytes left after the last.
    after: usize,
}

impl Extent {
    const NONE: Self = Self {
        before: 0,
        after: 0,
    };

    /// An item lay between `before` and `after` bytes from the end of the message.
    #[inline(always)]
    fn cover(&mut self, before: usize, after: usize) {
        if self.before == 0 {
            self.before = before;
        }
        self.after = after;
    }

    /// A cursor over this part of the message that `whole` stands at the start of.
    #[inline(always)]
    fn of<'a>(self, whole: Reader<'a>) -> Reader<'a> {
        whole.part(self.before, self.after)
    }
}
