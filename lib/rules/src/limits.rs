//! How large a span may be.

use serde::{Deserialize, Serialize};

use crate::error::{Collect, Place, Problem};

/// The most attributes, events or links that a limit may allow.
pub const MAX_COUNT: usize = 65_536;
/// The longest value that a limit may allow: within the largest request.
pub const MAX_VALUE_BYTES: usize = 16 << 20;

/// What is cut from spans. Each cut counts on the dropped counts of what it was cut from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Attributes of a span, event, link, scope or resource.
    #[serde(rename = "attributes_per_span")]
    pub attributes: usize,
    /// Events of a span.
    #[serde(rename = "events_per_span")]
    pub events: usize,
    /// Links of a span.
    #[serde(rename = "links_per_span")]
    pub links: usize,
    /// Bytes of a value. Names, keys and messages are cut at the same length, but not below 1 KiB.
    #[serde(rename = "attribute_value_bytes")]
    pub value_bytes: usize,
}

impl Limits {
    /// Bytes of a name, key or message.
    #[inline]
    pub fn text_bytes(&self) -> usize {
        self.value_bytes.max(1 << 10)
    }

    /// Notes the limits that are out of range.
    pub(crate) fn check(&self, errors: &mut Collect) {
        for (field, limit, max) in [
            ("attributesPerSpan", self.attributes, MAX_COUNT),
            ("eventsPerSpan", self.events, MAX_COUNT),
            ("linksPerSpan", self.links, MAX_COUNT),
        ] {
            if !(1..=max).contains(&limit) {
                errors.add(Place::Limit(field), Problem::Count(limit));
            }
        }
        if !(1..=MAX_VALUE_BYTES).contains(&self.value_bytes) {
            let problem = Problem::ValueBytes(self.value_bytes);
            errors.add(Place::Limit("attributeValueBytes"), problem);
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            attributes: 128,
            events: 128,
            links: 128,
            value_bytes: 8 << 10,
        }
    }
}
