//! One span: read, filtered, redacted, cut, measured, sampled and written.

use spanloom_otlp::DecodeError;
use spanloom_otlp::ids::not_zero;
use spanloom_otlp::record::{
    Attr, EventRecord, LinkRecord, ResourceRecord, ScopeRecord, SpanKind, SpanRecord, StatusCode,
};
use spanloom_otlp::sampling::{self, OtelState, Threshold};
use spanloom_otlp::view::{KeyValueView, SpanView};

use super::attributes::Collected;
use super::{Measured, Work, filter};
use crate::measure::{Recorder, TextId};
use crate::tally::{Change, Rejection};

/// What the spans of one scope have in common.
pub(super) struct Owner<'r> {
    pub(super) resource: ResourceRecord<'r>,
    pub(super) scope: ScopeRecord<'r>,
    /// Before redaction, for filters; empty where there are none.
    pub(super) raw: RawOwner<'r>,
    /// The service for the measures; none for a probe, which is stored as it is.
    pub(super) service: Option<TextId>,
}

/// What filters see of a resource and scope.
#[derive(Clone, Copy, Default)]
pub(super) struct RawOwner<'r> {
    pub(super) resource: &'r [Attr<'r>],
    pub(super) scope: &'r [Attr<'r>],
    pub(super) scope_name: &'r str,
    pub(super) scope_version: &'r str,
}

/// A span's lists, reused from span to span.
#[derive(Default)]
pub(super) struct Scratch<'r> {
    pub(super) attributes: Vec<Attr<'r>>,
    /// Attributes of all events and links.
    pub(super) inner: Vec<Attr<'r>>,
    pub(super) events: Vec<Inner<EventRecord<'r>>>,
    pub(super) links: Vec<Inner<LinkRecord<'r>>>,
    event_records: Vec<EventRecord<'r>>,
    link_records: Vec<LinkRecord<'r>>,
}

/// An event or link whose attributes are still being worked on.
pub(super) struct Inner<T> {
    pub(super) record: T,
    /// Where its attributes are in [`Scratch::inner`].
    pub(super) start: usize,
    pub(super) end: usize,
    collected: Collected,
}

impl<'r> Work<'r, '_> {
    /// Takes one span to `write`, or counts why not.
    #[inline]
    pub(super) fn span(
        &mut self,
        view: &SpanView<'r>,
        owner: &Owner<'r>,
        scratch: &mut Scratch<'r>,
        recorder: &mut Recorder,
        write: impl FnOnce(&SpanRecord<'_>),
    ) {
        let mut record = match self.frame(view) {
            Ok(record) => record,
            Err(why) => return self.tally.reject(why, 1),
        };
        let Ok(collected) = self.lists(view, scratch, &mut record) else {
            return self.tally.reject(Rejection::Malformed, 1);
        };
        if owner.service.is_some() && !self.rules.drop.is_empty() {
            let span = filter::Candidate {
                owner: &owner.raw,
                record: &record,
                scratch,
            };
            if self.rules.drop.iter().any(|filter| filter.matches(&span)) {
                self.tally.dropped += 1;
                return;
            }
        }
        record.name = self.label(record.name);
        record.status_message = self.label(record.status_message);
        record.trace_state = self.trace_state(record.trace_state);
        let (kept, cut) = self.finish(collected, 0, &mut scratch.attributes);
        record.dropped_attributes_count = record.dropped_attributes_count.saturating_add(cut);
        if !scratch.events.is_empty() {
            self.finish_events(scratch);
        }
        if !scratch.links.is_empty() {
            self.finish_links(scratch);
        }
        let record = SpanRecord {
            attributes: scratch.attributes.get(..kept).unwrap_or_default(),
            events: &scratch.event_records,
            links: &scratch.link_records,
            ..record
        };
        match owner.service {
            Some(service) => {
                if self.measured == Measured::All {
                    recorder.span(service, &record);
                }
                if !self.sample(record, write) && self.measured == Measured::SampledOut {
                    recorder.span(service, &record);
                }
            }
            None => {
                write(&record);
                self.tally.kept += 1;
                self.tally.probes += 1;
            }
        }
    }

    /// What a span is without its lists, if it can be taken.
    #[inline]
    fn frame(&mut self, view: &SpanView<'r>) -> Result<SpanRecord<'r>, Rejection> {
        let trace_id = not_zero(view.trace_id).ok_or(Rejection::TraceId)?;
        let span_id = not_zero(view.span_id).ok_or(Rejection::SpanId)?;
        let parent_span_id = match view.parent_span_id {
            [] => [0; 8],
            parent => parent.try_into().map_err(|_| Rejection::ParentSpanId)?,
        };
        let start_ns = view.start_ns;
        self.times.check(start_ns)?;
        let mut end_ns = view.end_ns;
        if end_ns < start_ns {
            self.tally.change(Change::EndBeforeStart, 1);
        } else if self.times.is_far_ahead(end_ns) {
            self.tally.change(Change::EndInTheFuture, 1);
            end_ns = start_ns;
        }
        Ok(SpanRecord {
            trace_id,
            span_id,
            parent_span_id,
            trace_state: self.text(view.trace_state),
            flags: view.flags,
            name: self.text(view.name),
            kind: SpanKind::from_i32(view.kind),
            start_ns,
            duration_ns: end_ns.saturating_sub(start_ns),
            status: StatusCode::from_i32(view.status_code),
            status_message: self.text(view.status_message),
            attributes: &[],
            dropped_attributes_count: view.dropped_attributes_count,
            events: &[],
            dropped_events_count: view.dropped_events_count,
            links: &[],
            dropped_links_count: view.dropped_links_count,
        })
    }

    /// Reads attributes, events and links.
    #[inline]
    fn lists(
        &mut self,
        view: &SpanView<'r>,
        scratch: &mut Scratch<'r>,
        record: &mut SpanRecord<'r>,
    ) -> Result<Collected, DecodeError> {
        scratch.attributes.clear();
        scratch.inner.clear();
        scratch.events.clear();
        scratch.event_records.clear();
        scratch.links.clear();
        scratch.link_records.clear();
        let collected = self.collect(view.attributes(), self.max, &mut scratch.attributes)?;
        self.events(view, scratch, record)?;
        self.links(view, scratch, record)?;
        Ok(collected)
    }

    fn events(
        &mut self,
        view: &SpanView<'r>,
        scratch: &mut Scratch<'r>,
        record: &mut SpanRecord<'r>,
    ) -> Result<(), DecodeError> {
        for event in view.events() {
            let event = event?;
            if scratch.events.len() >= self.rules.limits.events {
                self.tally.change(Change::EventCut, 1);
                record.dropped_events_count = record.dropped_events_count.saturating_add(1);
                continue;
            }
            let (start, end, collected) = self.inner(event.attributes(), &mut scratch.inner)?;
            let record = EventRecord {
                time_ns: event.time_ns,
                name: self.text(event.name),
                attributes: &[],
                dropped_attributes_count: event.dropped_attributes_count,
            };
            scratch.events.push(Inner {
                record,
                start,
                end,
                collected,
            });
        }
        Ok(())
    }

    fn links(
        &mut self,
        view: &SpanView<'r>,
        scratch: &mut Scratch<'r>,
        record: &mut SpanRecord<'r>,
    ) -> Result<(), DecodeError> {
        for link in view.links() {
            let link = link?;
            let ids = not_zero(link.trace_id).zip(not_zero(link.span_id));
            let fits = scratch.links.len() < self.rules.limits.links;
            let (Some((trace_id, span_id)), true) = (ids, fits) else {
                let why = if ids.is_none() {
                    Change::InvalidLink
                } else {
                    Change::LinkCut
                };
                self.tally.change(why, 1);
                record.dropped_links_count = record.dropped_links_count.saturating_add(1);
                continue;
            };
            let (start, end, collected) = self.inner(link.attributes(), &mut scratch.inner)?;
            let record = LinkRecord {
                trace_id,
                span_id,
                trace_state: self.text(link.trace_state),
                flags: link.flags,
                attributes: &[],
                dropped_attributes_count: link.dropped_attributes_count,
            };
            scratch.links.push(Inner {
                record,
                start,
                end,
                collected,
            });
        }
        Ok(())
    }

    /// Reads the attributes of an event or link; says where they are.
    fn inner(
        &mut self,
        attributes: impl Iterator<Item = Result<KeyValueView<'r>, DecodeError>>,
        out: &mut Vec<Attr<'r>>,
    ) -> Result<(usize, usize, Collected), DecodeError> {
        let start = out.len();
        let collected = self.collect(attributes, self.max, out)?;
        Ok((start, out.len(), collected))
    }

    fn finish_events(&mut self, scratch: &mut Scratch<'r>) {
        for event in &scratch.events {
            let attributes = scratch
                .inner
                .get_mut(event.start..event.end)
                .unwrap_or_default();
            let (attributes, cut) = self.settle(event.collected, 0, attributes);
            let mut record = event.record;
            record.name = self.label(record.name);
            record.attributes = attributes;
            record.dropped_attributes_count = record.dropped_attributes_count.saturating_add(cut);
            scratch.event_records.push(record);
        }
    }

    fn finish_links(&mut self, scratch: &mut Scratch<'r>) {
        for link in &scratch.links {
            let attributes = scratch
                .inner
                .get_mut(link.start..link.end)
                .unwrap_or_default();
            let (attributes, cut) = self.settle(link.collected, 0, attributes);
            let mut record = link.record;
            record.trace_state = self.trace_state(record.trace_state);
            record.attributes = attributes;
            record.dropped_attributes_count = record.dropped_attributes_count.saturating_add(cut);
            scratch.link_records.push(record);
        }
    }

    /// A trace state, redacted. What sampling reads of it stays: the numbers in `ot=th:…;rv:…`.
    #[inline]
    fn trace_state(&mut self, state: &'r str) -> &'r str {
        if state.is_empty() {
            return state;
        }
        let redacted = self.redacted(state);
        if redacted == state {
            return state;
        }
        let members = state.split(',').map(|member| {
            let Some(own) = member.trim().strip_prefix("ot=") else {
                return self.redacted(member).to_owned();
            };
            // One that is hidden is left out: `***` would make the others unreadable.
            let parts = own
                .split(';')
                .filter(|part| is_sampling(part) || self.redacted(part) == *part);
            format!("ot={}", parts.collect::<Vec<_>>().join(";"))
        });
        let members = members.collect::<Vec<_>>().join(",");
        self.arena.alloc_str(&members)
    }

    /// Finishes attributes and moves them to the arena, where they outlive the scratch.
    pub(super) fn settle(
        &mut self,
        collected: Collected,
        protected: usize,
        attributes: &mut [Attr<'r>],
    ) -> (&'r [Attr<'r>], u32) {
        let (kept, cut) = self.finish(collected, protected, attributes);
        let kept = attributes.get(..kept).unwrap_or_default();
        if kept.is_empty() {
            return (&[], cut);
        }
        (self.arena.alloc_slice_copy(kept), cut)
    }

    /// Writes the span if head sampling keeps its trace; says whether it does.
    #[inline]
    fn sample<'s>(
        &mut self,
        mut record: SpanRecord<'s>,
        write: impl FnOnce(&SpanRecord<'_>),
    ) -> bool
    where
        'r: 's,
    {
        if self.rules.threshold != Some(Threshold::ALWAYS) {
            let passed = self
                .rules
                .threshold
                .and_then(|own| sampling::sample(record.trace_state, &record.trace_id, own));
            let Some(passed) = passed else {
                self.tally.sampled_out += 1;
                return false;
            };
            if OtelState::parse(record.trace_state).threshold != Some(passed) {
                let state = sampling::update_tracestate(record.trace_state, passed);
                record.trace_state = self.arena.alloc_str(&state);
            }
        }
        write(&record);
        self.tally.kept += 1;
        true
    }
}

/// Whether a part of `ot=` in a trace state is a threshold or a random number: 14 hexadecimal digits at
/// most.
fn is_sampling(part: &str) -> bool {
    let number = part
        .strip_prefix("th:")
        .or_else(|| part.strip_prefix("rv:"));
    let is_number = |text: &str| text.len() <= 14 && text.bytes().all(|b| b.is_ascii_hexdigit());
    number.is_some_and(is_number)
}
