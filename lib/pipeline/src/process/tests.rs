mod identity;
mod modes;
mod pods;
mod property;
mod redaction;
mod rules;

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message as _;
use spanloom_otlp::OtlpSink;
use spanloom_rules::{KeyPattern, Limits, MAX_COUNT, RuleSet, ValuePattern};

use super::*;
use crate::measure::Measures;
use crate::tally::Rejection;

const NOW: u64 = 1_800_000_000_000_000_000;
const HOUR: u64 = 3600 * 1_000_000_000;

fn text(value: &str) -> Any {
    Any::StringValue(value.into())
}

fn attr(key: &str, value: Any) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..Default::default()
    }
}

fn array(items: Vec<Any>) -> Any {
    let values = items
        .into_iter()
        .map(|item| AnyValue { value: Some(item) })
        .collect();
    Any::ArrayValue(ArrayValue { values })
}

fn list(values: Vec<KeyValue>) -> Any {
    Any::KvlistValue(KeyValueList { values })
}

fn span() -> Span {
    Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        name: "GET".into(),
        start_time_unix_nano: NOW - HOUR,
        end_time_unix_nano: NOW - HOUR + 5,
        status: Some(Status::default()),
        ..Span::default()
    }
}

fn request(spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope_spans = ScopeSpans {
        scope: Some(InstrumentationScope {
            name: "lib".into(),
            ..Default::default()
        }),
        spans,
        schema_url: String::new(),
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![attr("service.name", text("shop"))],
                ..Resource::default()
            }),
            scope_spans: vec![scope_spans],
            schema_url: String::new(),
        }],
    }
}

struct Processed {
    request: ExportTraceServiceRequest,
    tally: Tally,
    measures: Measures,
    result: Result<(), DecodeError>,
}

impl Processed {
    fn spans(&self) -> Vec<&Span> {
        let resources = self.request.resource_spans.iter();
        resources
            .flat_map(|r| &r.scope_spans)
            .flat_map(|s| &s.spans)
            .collect()
    }

    fn attributes(&self) -> &[KeyValue] {
        &self.spans()[0].attributes
    }
}

fn with_rules(rules: RuleSet) -> Processing {
    Processing {
        rules,
        ..Processing::default()
    }
}

fn with_limits(limits: Limits) -> Processing {
    with_rules(RuleSet {
        limits,
        ..RuleSet::default()
    })
}

fn process_bytes(processing: &Processing, bytes: &[u8]) -> Processed {
    let mut processor = Processor::new(processing).unwrap();
    let mut tally = Tally::default();
    let mut sink = OtlpSink::new();
    let mut recorder = Recorder::default();
    let result = processor.process(bytes, NOW, &mut sink, &mut recorder, &mut tally);
    let request = ExportTraceServiceRequest::decode(&*sink.into_bytes()).unwrap();
    Processed {
        request,
        tally,
        measures: recorder.take(),
        result,
    }
}

fn process(processing: &Processing, spans: Vec<Span>) -> Processed {
    let processed = process_bytes(processing, &request(spans).encode_to_vec());
    processed.result.unwrap();
    processed
}

fn plain(spans: Vec<Span>) -> Processed {
    process(&Processing::default(), spans)
}

fn with_attributes(attributes: Vec<KeyValue>) -> Span {
    Span {
        attributes,
        ..span()
    }
}

#[test]
fn spans_that_cannot_be_taken() {
    let check = |change: &dyn Fn(&mut Span), why: Rejection| {
        let mut bad = span();
        change(&mut bad);
        let processed = plain(vec![span(), bad, span()]);
        assert_eq!(processed.spans().len(), 2, "{why:?}");
        assert_eq!(processed.tally.rejected_for(why), 1, "{why:?}");
        assert_eq!(processed.tally.rejected(), 1, "{why:?}");
        assert!(processed.tally.message().contains(why.text()));
        assert_eq!(
            processed
                .measures
                .red
                .iter()
                .map(|cell| cell.count)
                .sum::<u64>(),
            2
        );
    };
    check(&|s| s.trace_id = vec![0; 16], Rejection::TraceId);
    check(&|s| s.trace_id = vec![1; 15], Rejection::TraceId);
    check(&|s| s.trace_id = vec![1; 17], Rejection::TraceId);
    check(&|s| s.trace_id.clear(), Rejection::TraceId);
    check(&|s| s.span_id = vec![0; 8], Rejection::SpanId);
    check(&|s| s.span_id = vec![1; 16], Rejection::SpanId);
    check(&|s| s.parent_span_id = vec![1; 7], Rejection::ParentSpanId);
    check(&|s| s.start_time_unix_nano = 0, Rejection::NoStart);
    check(
        &|s| s.start_time_unix_nano = NOW - 7 * 24 * HOUR - 1,
        Rejection::TooOld,
    );
    check(&|s| s.start_time_unix_nano = 1, Rejection::TooOld);
    check(
        &|s| s.start_time_unix_nano = NOW + 24 * HOUR + 1,
        Rejection::InTheFuture,
    );
    check(
        &|s| s.start_time_unix_nano = u64::MAX,
        Rejection::InTheFuture,
    );
}

#[test]
fn spans_at_the_edge_are_taken() {
    let check = |change: &dyn Fn(&mut Span)| {
        let mut edge = span();
        change(&mut edge);
        let tally = plain(vec![edge]).tally;
        assert_eq!(
            (tally.kept, tally.rejected(), tally.message()),
            (1, 0, String::new())
        );
    };
    check(&|s| s.parent_span_id = vec![0; 8]);
    check(&|s| s.start_time_unix_nano = NOW - 7 * 24 * HOUR);
    check(&|s| {
        s.start_time_unix_nano = NOW + 24 * HOUR;
        s.end_time_unix_nano = NOW + 24 * HOUR;
    });
    check(&|s| s.name.clear());
    check(&|s| s.kind = 77);
}

#[test]
fn an_end_before_the_start_is_a_duration_of_zero() {
    let processed = plain(vec![Span {
        end_time_unix_nano: 0,
        ..span()
    }]);
    let stored = processed.spans()[0];
    assert_eq!(stored.end_time_unix_nano, stored.start_time_unix_nano);
    assert_eq!(processed.tally.changed(Change::EndBeforeStart), 1);
    assert_eq!(processed.tally.message(), "");
}

#[test]
fn text_that_is_not_utf8_is_repaired() {
    // prost cannot write such text: it is put in afterwards.
    let mut bytes = request(vec![with_attributes(vec![
        attr("PATCHKEY", text("PATCHVAL")),
        attr(
            "nested",
            array(vec![list(vec![attr("PATCHKEY", text("PATCHVAL"))])]),
        ),
    ])])
    .encode_to_vec();
    for i in 0..bytes.len() - 8 {
        if bytes[i..].starts_with(b"PATCH") {
            bytes[i] = 0xff;
        }
    }
    let processed = process_bytes(&Processing::default(), &bytes);
    processed.result.unwrap();
    let inner = list(vec![attr("\u{fffd}ATCHKEY", text("\u{fffd}ATCHVAL"))]);
    assert_eq!(
        processed.attributes(),
        [
            attr("\u{fffd}ATCHKEY", text("\u{fffd}ATCHVAL")),
            attr("nested", array(vec![inner]))
        ]
    );
    assert_eq!(processed.tally.changed(Change::InvalidUtf8), 4);
    assert_eq!(processed.tally.rejected(), 0);
    assert_eq!(
        processed.tally.message(),
        "a string that is not valid UTF-8 was repaired (4)"
    );
}

#[test]
fn of_equal_keys_the_first_counts() {
    for keys in [2usize, 40, 60, 127] {
        let mut attributes: Vec<_> = (0..keys)
            .map(|i| attr(&format!("key{i}"), Any::IntValue(i as i64)))
            .collect();
        let once = attributes.clone();
        attributes.extend((0..keys).map(|i| attr(&format!("key{i}"), text("again"))));
        let limits = Limits {
            attributes: 1000,
            ..Limits::default()
        };
        let processing = with_limits(limits);
        let processed = process(&processing, vec![with_attributes(attributes)]);
        assert_eq!(processed.attributes(), once);
        assert_eq!(processed.tally.changed(Change::DuplicateKey), keys as u64);
        assert_eq!(processed.spans()[0].dropped_attributes_count, 0);
    }
}

#[test]
fn a_hundred_thousand_attributes() {
    let attributes: Vec<_> = (0..100_000)
        .map(|i| attr(&format!("k{i}"), Any::IntValue(i)))
        .collect();
    let sent = with_attributes(attributes);
    let processed = plain(vec![Span {
        dropped_attributes_count: 3,
        ..sent.clone()
    }]);
    assert_eq!(processed.attributes(), &sent.attributes[..128]);
    assert_eq!(processed.spans()[0].dropped_attributes_count, 99_872 + 3);
    assert_eq!(processed.tally.changed(Change::AttributeCut), 99_872);
    let limits = Limits {
        attributes: MAX_COUNT,
        ..Limits::default()
    };
    let most = process(&with_limits(limits), vec![sent.clone()]);
    assert_eq!(most.attributes(), &sent.attributes[..MAX_COUNT]);
}

#[test]
fn values_and_texts_are_cut() {
    let limits = Limits {
        value_bytes: 10,
        ..Limits::default()
    };
    let processing = with_limits(limits);
    let processed = process(
        &processing,
        vec![Span {
            name: "n".repeat(1025),
            ..with_attributes(vec![
                attr("fits", text("0123456789")),
                attr("cut", text("0123456789a")),
                attr("é", text("01234567é9é")),
                attr("bytes", Any::BytesValue(vec![1; 11])),
                attr(&"k".repeat(2000), text("x")),
            ])
        }],
    );
    assert_eq!(
        processed.attributes(),
        [
            attr("fits", text("0123456789")),
            attr("cut", text("0123456789")),
            attr("é", text("01234567é")),
            attr("bytes", Any::BytesValue(vec![1; 10])),
            attr(&"k".repeat(1024), text("x")),
        ]
    );
    let stored = processed.spans()[0];
    assert_eq!(
        (stored.name.len(), stored.dropped_attributes_count),
        (1024, 3)
    );
    assert_eq!(processed.tally.changed(Change::ValueCut), 3);
    assert_eq!(processed.tally.changed(Change::TextCut), 2);
}

#[test]
fn nested_values_are_cut() {
    let limits = Limits {
        value_bytes: 100,
        ..Limits::default()
    };
    let processing = with_limits(limits);
    let long = text(&"é".repeat(500));
    let many = array((0..500).map(Any::IntValue).collect());
    let deep = list(vec![
        attr("a", Any::IntValue(1)),
        attr("b", array(vec![long.clone(), long])),
    ]);
    for value in [many, deep] {
        let processed = process(&processing, vec![with_attributes(vec![attr("k", value)])]);
        let stored = processed.attributes()[0].value.clone().unwrap();
        let len = stored.encoded_len();
        assert!((60..=104).contains(&len), "{len}");
        assert_eq!(processed.tally.changed(Change::ValueCut), 1);
        assert_eq!(processed.spans()[0].dropped_attributes_count, 1);
    }
}

#[test]
fn nesting_is_limited() {
    let nest = |depth: usize| (0..depth).fold(text("x"), |inner, _| array(vec![inner]));
    // prost reads back no more than 100 messages in each other.
    let check = |depth: usize, kept: bool| {
        let bytes = request(vec![with_attributes(vec![attr("k", nest(depth))])]).encode_to_vec();
        let mut tally = Tally::default();
        let mut processor = Processor::new(&Processing::default()).unwrap();
        let mut sink = OtlpSink::new();
        let mut recorder = Recorder::default();
        processor
            .process(&bytes, NOW, &mut sink, &mut recorder, &mut tally)
            .unwrap();
        assert_eq!(tally.kept, 1);
        assert_eq!(
            tally.changed(Change::NestedTooDeep),
            u64::from(!kept),
            "{depth}"
        );
        let stored = sink.into_bytes();
        let marker = attributes::TOO_DEEP.as_bytes();
        assert_eq!(
            memchr::memmem::find(&stored, marker).is_none(),
            kept,
            "{depth}"
        );
    };
    check(1, true);
    check(64, true);
    check(65, false);
    check(300, false);
}

#[test]
fn events_and_links_are_limited() {
    let link = Link {
        trace_id: vec![3; 16],
        span_id: vec![4; 8],
        ..Link::default()
    };
    let bad = Link {
        span_id: vec![0; 8],
        ..link.clone()
    };
    let event = Event {
        name: "e".into(),
        ..Event::default()
    };
    let attributes = (0..5)
        .map(|i| attr(&format!("k{i}"), Any::IntValue(i)))
        .collect();
    let full = Event {
        attributes,
        ..event.clone()
    };
    let limits = Limits {
        attributes: 2,
        events: 2,
        links: 1,
        ..Limits::default()
    };
    let processed = process(
        &with_limits(limits),
        vec![Span {
            events: vec![event.clone(), full, event.clone(), event],
            links: vec![bad, link.clone(), link],
            dropped_events_count: 10,
            ..span()
        }],
    );
    let stored = processed.spans()[0];
    assert_eq!((stored.events.len(), stored.dropped_events_count), (2, 12));
    assert_eq!(stored.events[1].attributes.len(), 2);
    assert_eq!(stored.events[1].dropped_attributes_count, 3);
    assert_eq!((stored.links.len(), stored.dropped_links_count), (1, 2));
    assert_eq!(processed.tally.changed(Change::EventCut), 2);
    assert_eq!(processed.tally.changed(Change::LinkCut), 1);
    assert_eq!(processed.tally.changed(Change::InvalidLink), 1);
}

#[test]
fn damage_inside_a_span_costs_that_span() {
    let mut bytes = request(vec![
        span(),
        with_attributes(vec![attr("HERE", text("x"))]),
        span(),
    ])
    .encode_to_vec();
    let at = memchr::memmem::find(&bytes, b"HERE").unwrap();
    bytes[at - 1] = 200; // the key's length, beyond the attribute's end
    let processed = process_bytes(&Processing::default(), &bytes);
    assert_eq!(processed.result, Ok(()));
    assert_eq!(
        (
            processed.tally.kept,
            processed.tally.rejected_for(Rejection::Malformed)
        ),
        (2, 1)
    );
}

#[test]
fn a_cut_request_is_an_error() {
    let bytes = request(vec![span(), span()]).encode_to_vec();
    for len in [1, 10, bytes.len() - 1] {
        let processed = process_bytes(&Processing::default(), &bytes[..len]);
        assert!(processed.result.is_err(), "{len}");
        assert_eq!(processed.tally.kept, 0);
    }
    assert_eq!(process_bytes(&Processing::default(), &[]).result, Ok(()));
}

#[test]
fn retention_decides_what_is_too_old() {
    let retention = Duration::from_secs(60);
    let rules = Processing {
        retention,
        ..Processing::default()
    };
    assert_eq!(
        process(&rules, vec![span()])
            .tally
            .rejected_for(Rejection::TooOld),
        1
    );
}
