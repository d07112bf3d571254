//! What processing one request did: spans taken, refused, discarded, and what was changed on them,
//! each by reason. From it come the answer's `partial_success` and the metrics.

use std::fmt::Write as _;

use crate::codec::Ignored;

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $label:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The value of the label `reason` in metrics.
            pub fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            /// For the sender.
            pub fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

reasons! {
    /// Why a span is refused for good.
    Rejection {
        /// The trace id is not 16 bytes, or zero.
        TraceId => "invalid_trace_id", "the trace id is zero or not 16 bytes long";
        /// The span id is not 8 bytes, or zero.
        SpanId => "invalid_span_id", "the span id is zero or not 8 bytes long";
        /// The parent's id is neither empty nor 8 bytes.
        ParentSpanId => "invalid_parent_span_id", "the parent span id is neither empty nor 8 bytes long";
        /// There is no start time.
        NoStart => "no_start_time", "the start time is zero";
        /// It began before what is kept.
        TooOld => "too_old", "the start time is older than the retention";
        /// It begins too far in the future.
        InTheFuture => "in_the_future", "the start time is more than 24 hours in the future";
        /// Its attributes, events or links cannot be read.
        Malformed => "malformed", "the span is not valid OTLP";
        /// The store refused it.
        Store => "store", "ClickHouse rejected the row";
    }
}

reasons! {
    /// What is changed on a span that is kept.
    Change {
        /// Bytes that are not UTF-8 became U+FFFD.
        InvalidUtf8 => "invalid_utf8", "a string that is not valid UTF-8 was repaired";
        /// A value is nested too deep and was replaced.
        NestedTooDeep => "nested_too_deep", "a value nested more than 64 levels deep was replaced";
        /// A link without valid ids was left out.
        InvalidLink => "invalid_link", "a link with invalid IDs was dropped";
        /// The end lies before the start: the duration is zero.
        EndBeforeStart => "end_before_start", "the duration of a span that ends before it starts \
                                               was set to 0";
        /// The end lies too far in the future: the duration is zero.
        EndInTheFuture => "end_in_the_future", "the duration of a span that ends more than 24 \
                                                hours in the future was set to 0";
        /// A key came twice; the first counts.
        DuplicateKey => "duplicate_key", "of attributes with the same key, only the first was kept";
        /// Attributes beyond the limit were left out.
        AttributeCut => "attribute_limit", "attributes beyond the limit were dropped";
        /// Events beyond the limit were left out.
        EventCut => "event_limit", "events beyond the limit were dropped";
        /// Links beyond the limit were left out.
        LinkCut => "link_limit", "links beyond the limit were dropped";
        /// A value beyond the limit was cut.
        ValueCut => "value_limit", "values beyond the limit were truncated";
        /// A name, key or other text beyond the limit was cut.
        TextCut => "text_limit", "names or messages beyond the limit were truncated";
        /// Fields of JSON with unknown names were left out, and perhaps spans with them.
        UnknownField => "unknown_field", "fields with unknown names were ignored; names are lowerCamelCase, as in resourceSpans and scopeSpans";
        /// A sender that was not identified says who it is in terms of Kubernetes: left out.
        Claim => "unverified_identity", "k8s attributes of an unidentified sender were dropped";
        /// A rule hid a value or a part of it.
        Redacted => "redacted", "values were redacted";
    }
}

impl Change {
    /// Whether the sender should hear of it: it sent what it should not have. The rest is what the
    /// operator's rules ask for, or harmless.
    fn is_fault(self) -> bool {
        matches!(
            self,
            Self::InvalidUtf8 | Self::NestedTooDeep | Self::InvalidLink | Self::UnknownField
        )
    }
}

/// Counts of one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Spans written to the sink.
    pub kept: u64,
    /// Spans discarded by a `drop` filter.
    pub dropped: u64,
    /// Spans discarded because the pipeline is not enabled.
    pub disabled: u64,
    /// Spans of probes, among those kept.
    pub probes: u64,
    /// Spans left out by head sampling.
    pub sampled_out: u64,
    pub(crate) rejections: [u64; Rejection::ALL.len()],
    pub(crate) changes: [u64; Change::ALL.len()],
    /// One of the fields that were ignored.
    pub(crate) ignored: Option<Box<str>>,
}

impl Tally {
    /// A span is refused.
    #[cold]
    pub fn reject(&mut self, why: Rejection, spans: u64) {
        if let Some(count) = self.rejections.get_mut(why as usize) {
            *count += spans;
        }
    }

    /// Something on a span is changed, so many times.
    #[cold]
    pub fn change(&mut self, what: Change, times: u64) {
        if let Some(count) = self.changes.get_mut(what as usize) {
            *count += times;
        }
    }

    /// Fields of the body were ignored.
    pub(crate) fn ignored(&mut self, ignored: Ignored) {
        if ignored.fields > 0 {
            self.change(Change::UnknownField, ignored.fields);
            self.ignored = ignored.first.map(Into::into);
        }
    }

    /// Spans refused for this reason.
    pub fn rejected_for(&self, why: Rejection) -> u64 {
        self.rejections.get(why as usize).copied().unwrap_or(0)
    }

    /// How often this was done.
    pub fn changed(&self, what: Change) -> u64 {
        self.changes.get(what as usize).copied().unwrap_or(0)
    }

    /// Spans refused.
    pub fn rejected(&self) -> u64 {
        self.rejections.iter().sum()
    }

    /// Spans taken: kept, or discarded by a rule of the document.
    pub fn accepted(&self) -> u64 {
        self.kept + self.dropped + self.sampled_out + self.disabled
    }

    /// All spans that were looked at.
    pub fn all(&self) -> u64 {
        self.accepted() + self.rejected()
    }

    /// What the sender is told; empty when there is nothing to say.
    pub fn message(&self) -> String {
        let mut message = String::new();
        let mut say = |count: u64, text: &str| {
            if count > 0 {
                let separator = if message.is_empty() { "" } else { "; " };
                // Writing to a string cannot fail.
                let _ = write!(message, "{separator}{text} ({count})");
            }
        };
        for &why in Rejection::ALL {
            say(self.rejected_for(why), why.text());
        }
        for &what in Change::ALL.iter().filter(|what| what.is_fault()) {
            say(self.changed(what), what.text());
        }
        if let Some(name) = &self.ignored {
            let _ = write!(message, ", such as {name:?}");
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_the_sender_should_hear() {
        let mut tally = Tally {
            kept: 3,
            ..Tally::default()
        };
        assert_eq!(tally.message(), "");
        tally.change(Change::ValueCut, 5);
        tally.change(Change::DuplicateKey, 1);
        assert_eq!(tally.message(), "");
        tally.reject(Rejection::SpanId, 1);
        tally.reject(Rejection::SpanId, 1);
        tally.change(Change::InvalidUtf8, 4);
        assert_eq!(
            tally.message(),
            "the span id is zero or not 8 bytes long (2); a string that is not valid UTF-8 was \
             repaired (4)"
        );
        assert_eq!((tally.accepted(), tally.rejected()), (3, 2));
    }
}
