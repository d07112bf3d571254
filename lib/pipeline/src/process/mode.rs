//! How much of the way from the wire to the batch a processor goes with a request.

use spanloom_otlp::DecodeError;
use spanloom_otlp::record::{ResourceRecord, ScopeRecord, SpanRecord, SpanSink, service_of};
use spanloom_otlp::records::{InvalidSpan, read_request};

use super::{Rules, Times, UNKNOWN_SERVICE, is_probe};
use crate::measure::{Recorder, TextId};
use crate::peers::{Pod, Sender, Signature};
use crate::tally::{Rejection, Tally};

/// What is still to be done with a request's spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// All of it: they come from an application.
    #[default]
    Full,
    /// All of it, but for measuring the spans that are kept: they travel on to a collector, which measures
    /// them ([`Mode::Measure`]). What sampling leaves out goes nowhere, and is measured here. So a sidecar
    /// and its collector together measure each span once.
    MeasureSampledOut,
    /// Measuring: a sidecar has applied the rules. Spans are taken or refused, never changed.
    Measure,
    /// The same without measuring: the spans are measured from their records, which are kept.
    Check,
    /// Nothing: they were processed and measured before they were kept, and are written as they are,
    /// whatever their age and the rules of today. A span that was acknowledged is not refused now.
    Processed,
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy, Default)]
pub struct Origin<'p> {
    /// What is still to be done with its spans.
    pub mode: Mode,
    /// The pod that sent it, if it is known.
    pub pod: Option<&'p Pod>,
    /// What its word counts about the pods that its spans come from.
    pub claims: Claims,
}

/// What a sender's word counts about the pods that its spans come from: resource attributes under `k8s.`,
/// but for the cluster's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Claims {
    /// What is known of its pod stands in their place; if senders are not identified at all, they count.
    #[default]
    Replaced,
    /// It was not identified: they are left out.
    Removed,
    /// It may speak for others: they count, and where there are none it speaks for itself.
    Believed,
}

impl<'p> From<&'p Sender> for Origin<'p> {
    fn from(sender: &'p Sender) -> Self {
        let (pod, claims) = match sender {
            Sender::Unasked => (None, Claims::Replaced),
            Sender::Unknown => (None, Claims::Removed),
            Sender::Pod(pod) => (Some(&**pod), Claims::Replaced),
            Sender::Gateway(pod) => (Some(&**pod), Claims::Believed),
        };
        Self {
            pod,
            claims,
            ..Self::default()
        }
    }
}

impl<'p> From<Option<&'p Pod>> for Origin<'p> {
    fn from(pod: Option<&'p Pod>) -> Self {
        Self {
            pod,
            ..Self::default()
        }
    }
}

/// What is done to spans that were processed before.
pub(super) struct Pass<'w> {
    pub(super) rules: &'w Rules,
    /// When they may have begun; none: at any time.
    pub(super) times: Option<Times>,
    /// Where they are measured, if they are.
    pub(super) recorder: Option<&'w mut Recorder>,
    /// What the sender's pod is, whatever it says.
    pub(super) signature: Option<Signature<'w>>,
}

/// Hands spans that were processed before to `sink`.
pub(super) fn pass<S: SpanSink>(
    request: &[u8],
    how: Pass<'_>,
    sink: &mut S,
    tally: &mut Tally,
) -> Result<(), DecodeError> {
    let Pass {
        rules,
        times,
        recorder,
        signature,
    } = how;
    let mut passing = Passing {
        rules,
        times,
        sink,
        recorder,
        signature,
        tally,
        service: None,
        probe: false,
    };
    read_request(request, &mut passing, |passing, what| {
        passing.tally.reject(rejection(what), 1);
    })
}

fn rejection(what: InvalidSpan) -> Rejection {
    match what {
        InvalidSpan::TraceId => Rejection::TraceId,
        InvalidSpan::SpanId => Rejection::SpanId,
        InvalidSpan::ParentSpanId => Rejection::ParentSpanId,
        InvalidSpan::Link | InvalidSpan::Malformed(_) => Rejection::Malformed,
    }
}

/// Counts what passes on its way to the sink.
struct Passing<'w, S> {
    rules: &'w Rules,
    times: Option<Times>,
    sink: &'w mut S,
    recorder: Option<&'w mut Recorder>,
    signature: Option<Signature<'w>>,
    tally: &'w mut Tally,
    /// The current resource's service; none where spans are not measured.
    service: Option<TextId>,
    probe: bool,
}

impl<S: SpanSink> SpanSink for Passing<'_, S> {
    fn resource(&mut self, resource: &ResourceRecord<'_>) {
        self.probe = is_probe(self.rules, resource.attributes);
        let mut list = Vec::new();
        let mut resource = *resource;
        if let Some(signature) = self.signature.as_ref().filter(|_| !self.probe) {
            list.extend_from_slice(resource.attributes);
            signature.correct(&mut list);
            // As it is named in the attributes, which the pod may have given a name now.
            resource = ResourceRecord {
                service: match service_of(&list) {
                    UNKNOWN_SERVICE => resource.service,
                    service => service,
                },
                attributes: &list,
                ..resource
            };
        }
        self.service = match &mut self.recorder {
            Some(recorder) if !self.probe => Some(recorder.text(resource.service)),
            _ => None,
        };
        self.sink.resource(&resource);
    }

    fn scope(&mut self, scope: &ScopeRecord<'_>) {
        self.sink.scope(scope);
    }

    #[inline]
    fn span(&mut self, span: &SpanRecord<'_>) {
        let checked = self
            .times
            .map_or(Ok(()), |times| times.check(span.start_ns));
        if let Err(why) = checked {
            return self.tally.reject(why, 1);
        }
        if let (Some(recorder), Some(service)) = (&mut self.recorder, self.service) {
            recorder.span(service, span);
        }
        self.sink.span(span);
        self.tally.kept += 1;
        self.tally.probes += u64::from(self.probe);
    }
}
