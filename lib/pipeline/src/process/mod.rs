//! What is done to each span between the wire and the batch, the same wherever it runs and always
//! in this order: resource, kubernetes, drop, redact, limits, measure, head sampling.
//!
//! A sidecar and a collector share these steps between them: [`Mode`] says which are still to be done.
//!
//! A request is walked once, in place. What must change is written to an arena that lives as
//! long as the request; what need not change is not touched, and steps without rules cost nothing.

mod attributes;
mod filter;
mod mode;
mod nested;
mod redact;
mod rules;
mod span;
pub(crate) mod text;

use std::borrow::Cow;
use std::sync::Arc;

use bumpalo::Bump;
use spanloom_otlp::record::{Attr, ResourceRecord, ScopeRecord, SpanSink, Value, service_of};
use spanloom_otlp::view::{ResourceSpansView, ScopeSpansView, TracesView};
use spanloom_otlp::{DecodeError, value_json};
use spanloom_rules::Redactor;

pub use mode::{Claims, Mode, Origin};
pub(crate) use rules::Rules;
pub use rules::{Processing, ProcessingError};

use crate::measure::Recorder;
use crate::peers::{self, Pod, Signature};
use crate::tally::{Change, Rejection, Tally};
use attributes::Keys;
pub(crate) use redact::{Decisions, KeyDecision};
use span::{Owner, RawOwner, Scratch};

pub use spanloom_otlp::record::UNKNOWN_SERVICE;

/// The service of probes' spans, as it is stored: lists and catalogues leave it out.
pub const PROBE_SERVICE: &str = "spanloom-probe";
/// The resource attribute of probes' spans.
pub const PROBE_ATTRIBUTE: &str = "spanloom.probe";

const SERVICE: &str = "service.name";
/// What says whose spans they are.
const IDENTITY: [&str; 4] = [
    SERVICE,
    "service.namespace",
    "service.version",
    "service.instance.id",
];

/// The arena is given back to the system when a request left it larger than this.
const MAX_IDLE_ARENA: usize = 1 << 20;

/// Processes requests; one per worker.
#[derive(Debug)]
pub struct Processor {
    rules: Arc<Rules>,
    decisions: Decisions,
    arena: Bump,
}

impl Processor {
    /// A processor with these rules.
    pub fn new(processing: &Processing) -> Result<Self, ProcessingError> {
        Ok(Self::with_rules(Arc::new(Rules::compile(processing)?)))
    }

    pub(crate) fn with_rules(rules: Arc<Rules>) -> Self {
        Self {
            rules,
            decisions: Decisions::new(),
            arena: Bump::new(),
        }
    }

    /// The rules that it applies.
    pub(crate) fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// Walks `request`, an `ExportTraceServiceRequest`, and writes its spans to `sink`.
    ///
    /// An error means that the bytes are not such a message from there on: the spans before it are
    /// counted in the tally, and have been written. `now_ns` is the time, nanoseconds since the
    /// Unix epoch.
    pub fn process<S: SpanSink>(
        &mut self,
        request: &[u8],
        now_ns: u64,
        sink: &mut S,
        recorder: &mut Recorder,
        tally: &mut Tally,
    ) -> Result<(), DecodeError> {
        self.process_from(Origin::default(), request, now_ns, sink, recorder, tally)
    }

    /// The same, for a request that comes from there.
    pub fn process_from<'p, S: SpanSink>(
        &mut self,
        origin: impl Into<Origin<'p>>,
        request: &[u8],
        now_ns: u64,
        sink: &mut S,
        recorder: &mut Recorder,
        tally: &mut Tally,
    ) -> Result<(), DecodeError> {
        let Origin { mode, pod, claims } = origin.into();
        let rules = &*self.rules;
        let times = Times {
            now_ns,
            oldest_ns: now_ns.saturating_sub(rules.retention_ns),
        };
        let mut how = mode::Pass {
            rules,
            times: None,
            recorder: None,
            signature: None,
        };
        let measured = match mode {
            Mode::Processed => return mode::pass(request, how, sink, tally),
            _ if !rules.enabled => return discard(request, tally),
            Mode::Measure | Mode::Check => {
                how.times = Some(times);
                how.recorder = (mode == Mode::Measure).then_some(recorder);
                let decisions = &mut self.decisions;
                how.signature = pod.map(|pod| Signature::of(pod, rules, decisions));
                return mode::pass(request, how, sink, tally);
            }
            Mode::Full => Measured::All,
            Mode::MeasureSampledOut => Measured::SampledOut,
        };
        if self.arena.allocated_bytes() > MAX_IDLE_ARENA {
            self.arena = Bump::new();
        } else {
            self.arena.reset();
        }
        let filtered = !rules.drop.is_empty();
        let mut work = Work {
            rules,
            pod,
            claims,
            decisions: &mut self.decisions,
            arena: &self.arena,
            tally,
            keys: Keys::new(),
            decided: Vec::new(),
            hidden_keys: Vec::new(),
            measured,
            times,
            max: if filtered {
                usize::MAX
            } else {
                rules.limits.attributes
            },
        };
        let mut scratch = Scratch::default();
        for resource_spans in TracesView::new(request).resource_spans() {
            work.resource_spans(&resource_spans?, &mut scratch, sink, recorder)?;
        }
        Ok(())
    }
}

/// Whether a resource is a probe's: it knows the pipeline's uid, and has the name of no service.
pub(crate) fn is_probe(rules: &Rules, resource: &[Attr<'_>]) -> bool {
    let Some(probe) = &rules.probe else {
        return false;
    };
    let says = |key: &str, text: &str| {
        let mut attributes = resource.iter();
        attributes.any(|attribute| attribute.key == key && attribute.value == Value::Str(text))
    };
    says(PROBE_ATTRIBUTE, probe) && says("service.name", PROBE_SERVICE)
}

/// Counts the spans of a request and keeps none.
fn discard(request: &[u8], tally: &mut Tally) -> Result<(), DecodeError> {
    for resource_spans in TracesView::new(request).resource_spans() {
        for scope_spans in resource_spans?.scope_spans() {
            for span in scope_spans?.spans() {
                span?;
                tally.disabled += 1;
            }
        }
    }
    Ok(())
}

/// How far ahead of our clock a span may begin and end.
pub(crate) const FUTURE_NS: u64 = 24 * 3600 * 1_000_000_000;

/// When spans may begin.
#[derive(Debug, Clone, Copy)]
struct Times {
    now_ns: u64,
    oldest_ns: u64,
}

impl Times {
    #[inline]
    fn check(self, start_ns: u64) -> Result<(), Rejection> {
        if start_ns == 0 {
            return Err(Rejection::NoStart);
        }
        if start_ns < self.oldest_ns {
            return Err(Rejection::TooOld);
        }
        if self.is_far_ahead(start_ns) {
            return Err(Rejection::InTheFuture);
        }
        Ok(())
    }

    #[inline]
    fn is_far_ahead(self, time_ns: u64) -> bool {
        time_ns > self.now_ns.saturating_add(FUTURE_NS)
    }
}

/// Which spans are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measured {
    All,
    /// Those that head sampling leaves out.
    SampledOut,
}

/// One request's way through the rules. `'r` is the life of the request's bytes and arena.
struct Work<'r, 'w> {
    rules: &'r Rules,
    pod: Option<&'r Pod>,
    claims: Claims,
    decisions: &'w mut Decisions,
    arena: &'r Bump,
    tally: &'w mut Tally,
    keys: Keys<'r>,
    /// What was decided last of the keys at each place of a list.
    decided: Vec<(&'r str, KeyDecision)>,
    /// Places of keys that are hidden, in the list that is being worked on.
    hidden_keys: Vec<usize>,
    measured: Measured,
    times: Times,
    /// How many attributes are collected: all of them where a filter may look at them.
    max: usize,
}

impl<'r> Work<'r, '_> {
    fn resource_spans<S: SpanSink>(
        &mut self,
        view: &ResourceSpansView<'r>,
        scratch: &mut Scratch<'r>,
        sink: &mut S,
        recorder: &mut Recorder,
    ) -> Result<(), DecodeError> {
        let mut raw = RawOwner::default();
        let (resource, probe) = self.resource(view, &mut raw)?;
        let service = if probe {
            None
        } else {
            Some(recorder.text(resource.service))
        };
        // A resource or scope of which nothing is kept leaves no trace in the sink.
        let mut resource_written = false;
        for scope_spans in view.scope_spans() {
            let scope_spans = scope_spans?;
            let scope = self.scope(&scope_spans, &mut raw)?;
            let owner = Owner {
                resource,
                scope,
                raw,
                service,
            };
            let mut scope_written = false;
            for span in scope_spans.spans() {
                let span = span?;
                self.span(&span, &owner, scratch, recorder, |record| {
                    if !resource_written {
                        sink.resource(&owner.resource);
                        resource_written = true;
                    }
                    if !scope_written {
                        sink.scope(&owner.scope);
                        scope_written = true;
                    }
                    sink.span(record);
                });
            }
        }
        Ok(())
    }

    fn resource(
        &mut self,
        view: &ResourceSpansView<'r>,
        raw: &mut RawOwner<'r>,
    ) -> Result<(ResourceRecord<'r>, bool), DecodeError> {
        let mut list = Vec::new();
        // All of them: who sends is found wherever it stands.
        let mut collected = self.collect(view.resource.attributes(), usize::MAX, &mut list)?;
        self.name_in_text(&mut list);
        let probe = is_probe(self.rules, &list);
        if !probe {
            let pod = self.speaker(&mut list);
            let container = pod.and_then(|pod| pod.disown(&mut list));
            self.add_own(&mut list);
            if let Some(pod) = pod {
                pod.sign(container, &mut list);
                collected.large |= pod.exceeds(self.rules.limits.value_bytes);
            }
        }
        let protected = match list.len() > self.rules.limits.attributes {
            true => self.identity_first(&mut list),
            false => 0,
        };
        if !self.rules.drop.is_empty() {
            raw.resource = self.arena.alloc_slice_copy(&list);
        }
        let (attributes, cut) = self.settle(collected, protected, &mut list);
        let service = match probe {
            true => PROBE_SERVICE,
            false => service_of(attributes),
        };
        let record = ResourceRecord {
            service,
            attributes,
            dropped_attributes_count: view.resource.dropped_attributes_count.saturating_add(cut),
            schema_url: self.url(view.schema_url),
        };
        Ok((record, probe))
    }

    /// `service.name` is text, whatever it was sent as.
    fn name_in_text(&self, list: &mut [Attr<'r>]) {
        let named = list.iter_mut().find(|attribute| attribute.key == SERVICE);
        let Some(Attr { value, .. }) = named else {
            return;
        };
        let text = match *value {
            Value::Str(_) | Value::Empty => return,
            Value::Bool(bool) => bool.to_string(),
            Value::Int(int) => int.to_string(),
            Value::Double(double) => double.to_string(),
            Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Value::Array(_) | Value::KvList(_) => {
                let mut json = Vec::new();
                value_json::write_value(&mut json, value);
                String::from_utf8_lossy(&json).into_owned()
            }
        };
        *value = Value::Str(self.arena.alloc_str(&text));
    }

    /// The pod that a resource is signed with. What a sender that is not known claims is left out.
    fn speaker(&mut self, list: &mut Vec<Attr<'r>>) -> Option<&'r Pod> {
        match self.claims {
            Claims::Replaced => self.pod,
            Claims::Believed if list.iter().any(|said| peers::claims(said.key)) => None,
            Claims::Believed => self.pod,
            Claims::Removed => {
                let said = list.len();
                list.retain(|attribute| !peers::claims(attribute.key));
                let removed = said - list.len();
                if removed > 0 {
                    self.tally.change(Change::Claim, removed as u64);
                }
                None
            }
        }
    }

    /// Moves to the front what says whose the spans are, and what we add: no limit leaves it out.
    /// Returns how many these are.
    fn identity_first(&self, list: &mut [Attr<'r>]) -> usize {
        let own = |key: &str| {
            IDENTITY.contains(&key)
                || self.rules.resource.iter().any(|(own, _)| **own == *key)
                || self.pod.is_some_and(|pod| pod.says(key))
        };
        // A stable sort: the rest stays in the sender's order.
        list.sort_by_key(|attribute| !own(attribute.key));
        list.iter()
            .take_while(|attribute| own(attribute.key))
            .count()
    }

    /// Adds the attributes that the document gives to each resource.
    fn add_own(&self, list: &mut Vec<Attr<'r>>) {
        for (key, value) in &self.rules.resource {
            let own = Attr {
                key,
                value: Value::Str(value),
            };
            match list.iter_mut().find(|attribute| attribute.key == own.key) {
                Some(sent) => *sent = own,
                // In front, so that a limit cuts what was sent and not what the document adds.
                None => list.insert(0, own),
            }
        }
    }

    fn scope(
        &mut self,
        view: &ScopeSpansView<'r>,
        raw: &mut RawOwner<'r>,
    ) -> Result<ScopeRecord<'r>, DecodeError> {
        let mut list = Vec::new();
        let collected = self.collect(view.scope.attributes(), self.max, &mut list)?;
        let (name, version) = (self.text(view.scope.name), self.text(view.scope.version));
        if !self.rules.drop.is_empty() {
            raw.scope = self.arena.alloc_slice_copy(&list);
            (raw.scope_name, raw.scope_version) = (name, version);
        }
        let (attributes, cut) = self.settle(collected, 0, &mut list);
        Ok(ScopeRecord {
            name: self.label(name),
            version: self.label(version),
            attributes,
            dropped_attributes_count: view.scope.dropped_attributes_count.saturating_add(cut),
            schema_url: self.url(view.schema_url),
        })
    }

    /// Bytes as text, repaired if need be.
    #[inline]
    fn text(&mut self, bytes: &'r [u8]) -> &'r str {
        match text::utf8(bytes) {
            Some(text) => text,
            None => self.repaired(bytes),
        }
    }

    #[cold]
    fn repaired(&mut self, bytes: &[u8]) -> &'r str {
        self.tally.change(Change::InvalidUtf8, 1);
        self.arena.alloc_str(&String::from_utf8_lossy(bytes))
    }

    /// A schema's URL, redacted.
    fn url(&mut self, bytes: &'r [u8]) -> &'r str {
        let url = self.text(bytes);
        self.redacted(url)
    }

    /// A name or message, redacted and cut.
    #[inline]
    fn label(&mut self, text: &'r str) -> &'r str {
        let text = self.redacted(text);
        self.shortened(text)
    }

    #[inline(always)]
    fn redacted(&mut self, text: &'r str) -> &'r str {
        match &self.rules.redactor {
            Some(redactor) => self.redacted_by(redactor, text),
            None => text,
        }
    }

    fn redacted_by(&mut self, redactor: &Redactor, text: &'r str) -> &'r str {
        match self.decisions.hidden(redactor, text) {
            Some(hidden) => {
                self.tally.change(Change::Redacted, 1);
                self.kept(hidden)
            }
            None => text,
        }
    }

    /// A text that replaces another.
    #[inline]
    fn kept(&self, text: Cow<'static, str>) -> &'r str {
        match text {
            Cow::Borrowed(text) => text,
            Cow::Owned(text) => self.arena.alloc_str(&text),
        }
    }

    #[inline]
    fn shortened(&mut self, text: &'r str) -> &'r str {
        let max = self.rules.limits.text_bytes();
        if text.len() <= max {
            return text;
        }
        self.tally.change(Change::TextCut, 1);
        text::cut(text, max)
    }
}

#[cfg(test)]
mod tests;
