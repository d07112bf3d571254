//! What a filter can read: attributes by scope, and intrinsics.

use crate::span::TraceFact;

/// Something that a filter reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Field {
    /// An attribute.
    Attribute {
        /// True for `parent.…`: the attribute of the parent span.
        parent: bool,
        /// Where to look.
        scope: Scope,
        /// Its key.
        name: String,
    },
    /// A property that every span, event, link, scope or trace has.
    Intrinsic(Intrinsic),
}

/// Where an attribute is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// `.key`: the span's, else the resource's.
    Unscoped,
    /// `span.key`
    Span,
    /// `resource.key`
    Resource,
    /// `event.key`: of any event
    Event,
    /// `link.key`: of any link
    Link,
    /// `instrumentation.key`: the instrumentation scope's
    Instrumentation,
}

impl Scope {
    /// What stands before the key.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Unscoped => ".",
            Self::Span => "span.",
            Self::Resource => "resource.",
            Self::Event => "event.",
            Self::Link => "link.",
            Self::Instrumentation => "instrumentation.",
        }
    }

    /// The scope called `word`, as in `span.key`.
    pub(crate) fn named(word: &str) -> Option<Self> {
        match word {
            "span" => Some(Self::Span),
            "resource" => Some(Self::Resource),
            "event" => Some(Self::Event),
            "link" => Some(Self::Link),
            "instrumentation" => Some(Self::Instrumentation),
            _ => None,
        }
    }
}

/// A property that is no attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // named by `Intrinsic::text`
pub enum Intrinsic {
    Name,
    Status,
    StatusMessage,
    Kind,
    Duration,
    SpanId,
    ParentId,
    TraceId,
    EventName,
    EventTimeSinceStart,
    LinkTraceId,
    LinkSpanId,
    InstrumentationName,
    InstrumentationVersion,
    ChildCount,
    TraceDuration,
    RootName,
    RootService,
    NestedSetLeft,
    NestedSetRight,
    NestedSetParent,
    Parent,
}

/// `span:childCount` as it was once written.
pub(crate) const OLD_CHILD_COUNT: &str = "childCount";

/// Every way to write an intrinsic; the first of each is the one that is printed.
const NAMES: &[(&str, Intrinsic)] = &[
    ("name", Intrinsic::Name),
    ("status", Intrinsic::Status),
    ("statusMessage", Intrinsic::StatusMessage),
    ("kind", Intrinsic::Kind),
    ("duration", Intrinsic::Duration),
    ("span:name", Intrinsic::Name),
    ("span:status", Intrinsic::Status),
    ("span:statusMessage", Intrinsic::StatusMessage),
    ("span:kind", Intrinsic::Kind),
    ("span:duration", Intrinsic::Duration),
    ("span:id", Intrinsic::SpanId),
    ("span:parentID", Intrinsic::ParentId),
    ("span:childCount", Intrinsic::ChildCount),
    // An old way that queries do not know: filters do, to say that it is about the trace.
    (OLD_CHILD_COUNT, Intrinsic::ChildCount),
    ("trace:id", Intrinsic::TraceId),
    ("traceDuration", Intrinsic::TraceDuration),
    ("trace:duration", Intrinsic::TraceDuration),
    ("rootName", Intrinsic::RootName),
    ("trace:rootName", Intrinsic::RootName),
    ("rootServiceName", Intrinsic::RootService),
    ("trace:rootService", Intrinsic::RootService),
    ("nestedSetLeft", Intrinsic::NestedSetLeft),
    ("nestedSetRight", Intrinsic::NestedSetRight),
    ("nestedSetParent", Intrinsic::NestedSetParent),
    ("parent", Intrinsic::Parent),
    ("event:name", Intrinsic::EventName),
    ("event:timeSinceStart", Intrinsic::EventTimeSinceStart),
    ("link:traceID", Intrinsic::LinkTraceId),
    ("link:spanID", Intrinsic::LinkSpanId),
    ("instrumentation:name", Intrinsic::InstrumentationName),
    ("instrumentation:version", Intrinsic::InstrumentationVersion),
];

impl Intrinsic {
    /// The intrinsic as it is written.
    pub fn text(self) -> &'static str {
        NAMES
            .iter()
            .find(|(_, i)| *i == self)
            .map_or("", |(text, _)| text)
    }

    /// The intrinsic written `text`.
    pub(crate) fn named(text: &str) -> Option<Self> {
        NAMES
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, i)| *i)
    }

    /// The intrinsics that start with `prefix`, for error messages.
    pub(crate) fn list(prefix: &str) -> String {
        let names: Vec<_> = NAMES
            .iter()
            .map(|(n, _)| *n)
            .filter(|n| n.starts_with(prefix))
            .collect();
        names.join(", ")
    }

    /// What the trace is asked for it.
    pub(crate) fn fact(self) -> Option<TraceFact> {
        Some(match self {
            Self::ChildCount => TraceFact::ChildCount,
            Self::TraceDuration => TraceFact::Duration,
            Self::RootName => TraceFact::RootName,
            Self::RootService => TraceFact::RootService,
            Self::NestedSetLeft => TraceFact::NestedSetLeft,
            Self::NestedSetRight => TraceFact::NestedSetRight,
            Self::NestedSetParent => TraceFact::NestedSetParent,
            _ => return None,
        })
    }

    /// True for what a single span cannot tell.
    pub fn needs_trace(self) -> bool {
        self == Self::Parent || self.fact().is_some()
    }
}
