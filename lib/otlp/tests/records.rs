//! Records: what is written is read again, call by call, and nothing else is.

mod common;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use proptest::prelude::*;
use prost::Message as _;
use spanloom_otlp::ids::TraceId;
use spanloom_otlp::nested::Nested;
use spanloom_otlp::record::{
    Attr, EventRecord, LinkRecord, ResourceRecord, ScopeRecord, SpanKind, SpanRecord, SpanSink,
    StatusCode, Value,
};
use spanloom_otlp::records::{InvalidSpan, RecordWriter, RecordsError, pick, read, read_request};
use spanloom_otlp::{DecodeErrorKind, OtlpSink, write};

/// The calls that a sink gets, as text.
#[derive(Debug, Default, PartialEq)]
struct Calls(Vec<String>);

impl SpanSink for Calls {
    fn resource(&mut self, resource: &ResourceRecord<'_>) {
        self.0.push(format!("{resource:?}"));
    }

    fn scope(&mut self, scope: &ScopeRecord<'_>) {
        self.0.push(format!("{scope:?}"));
    }

    fn span(&mut self, span: &SpanRecord<'_>) {
        self.0.push(format!("{span:?}"));
    }
}

/// Records, and the calls that they are made of.
type Both = (RecordWriter, Calls);

fn resource<'a>(service: &'a str, attributes: &'a [Attr<'a>]) -> ResourceRecord<'a> {
    ResourceRecord {
        service,
        attributes,
        dropped_attributes_count: 3,
        schema_url: "https://example.com/resource",
    }
}

fn scope<'a>(name: &'a str, attributes: &'a [Attr<'a>]) -> ScopeRecord<'a> {
    ScopeRecord {
        name,
        version: "1.2",
        attributes,
        dropped_attributes_count: 4,
        schema_url: "https://example.com/scope",
    }
}

fn span<'a>() -> SpanRecord<'a> {
    SpanRecord {
        trace_id: [1; 16],
        span_id: [2; 8],
        parent_span_id: [0; 8],
        trace_state: "",
        flags: 0,
        name: "",
        kind: SpanKind::Unspecified,
        start_ns: 0,
        duration_ns: 0,
        status: StatusCode::Unset,
        status_message: "",
        attributes: &[],
        dropped_attributes_count: 0,
        events: &[],
        dropped_events_count: 0,
        links: &[],
        dropped_links_count: 0,
    }
}

/// Everything that a record can hold, with texts of this length.
fn everything(sink: &mut impl SpanSink, len: usize) {
    let text = "x".repeat(len);
    let mut array = Vec::new();
    write::message(&mut array, 1, |any| {
        write::value(any, &Value::Str(text.as_str()));
    });
    let attributes = [
        ("empty", Value::Empty),
        ("str", Value::Str(text.as_str())),
        ("bool", Value::Bool(true)),
        ("int", Value::Int(-1)),
        ("double", Value::Double(-0.0)),
        ("bytes", Value::Bytes(text.as_bytes())),
        ("array", Value::Array(Nested(&array))),
        ("list", Value::KvList(Nested(&[]))),
        ("", Value::Str("")),
        // A key that was cut may be another's.
        ("str", Value::Int(i64::MIN)),
    ];
    let attributes = attributes.map(|(key, value)| Attr { key, value });
    let event = EventRecord {
        time_ns: u64::MAX,
        name: &text,
        attributes: &attributes,
        dropped_attributes_count: u32::MAX,
    };
    let bare_event = EventRecord {
        time_ns: 0,
        name: "",
        attributes: &[],
        dropped_attributes_count: 0,
    };
    let link = LinkRecord {
        trace_id: [3; 16],
        span_id: [4; 8],
        trace_state: &text,
        flags: 0x0301,
        attributes: &attributes,
        dropped_attributes_count: 7,
    };
    sink.resource(&resource("not in the attributes", &attributes));
    sink.scope(&scope(&text, &attributes));
    sink.span(&span());
    sink.span(&SpanRecord {
        parent_span_id: [5; 8],
        trace_state: &text,
        flags: u32::MAX,
        name: &text,
        kind: SpanKind::Consumer,
        start_ns: 17,
        duration_ns: u64::MAX - 17,
        status: StatusCode::Error,
        status_message: &text,
        attributes: &attributes,
        dropped_attributes_count: 1,
        events: &[event, bare_event, event],
        dropped_events_count: 2,
        links: &[link, link],
        dropped_links_count: 3,
        ..span()
    });
    sink.span(&SpanRecord {
        status: StatusCode::Ok,
        events: &[bare_event],
        ..span()
    });
    // One with nothing in it, and a second one of the same resource.
    sink.scope(&scope("", &[]));
    sink.scope(&scope("again", &[]));
    sink.span(&span());
    sink.resource(&resource("unknown_service", &[]));
    sink.resource(&resource("shop", &attributes));
    sink.scope(&scope("", &[]));
    sink.span(&SpanRecord {
        links: &[link],
        ..span()
    });
}

fn written(fill: impl FnOnce(&mut Both)) -> (Vec<u8>, Calls) {
    let mut both = (RecordWriter::new(), Calls::default());
    fill(&mut both);
    (both.0.finish(), both.1)
}

#[test]
fn what_is_written_is_read_call_by_call() {
    for len in [0, 1, 100, 127, 128, 5_000, 20_000, 70_000] {
        let (records, expect) = written(|both| everything(both, len));
        let mut calls = Calls::default();
        assert_eq!(read(&records, &mut calls), Ok(5));
        assert_eq!(calls.0.len(), expect.0.len());
        assert!(calls == expect, "with texts of {len} bytes");
    }
}

#[test]
fn records_are_a_request() {
    let mut both = (RecordWriter::new(), OtlpSink::new());
    everything(&mut both, 300);
    assert_eq!(both.0.spans(), 5);
    let records = both.0.finish();
    let decode = |bytes: &[u8]| ExportTraceServiceRequest::decode(bytes).unwrap();
    assert_eq!(decode(&records), decode(&both.1.into_bytes()));
}

#[test]
fn records_may_follow_other_bytes() {
    let mut writer = RecordWriter::append_to(b"frame".to_vec());
    everything(&mut writer, 10);
    let bytes = writer.finish();
    let (alone, _) = written(|both| everything(both, 10));
    assert_eq!(bytes.strip_prefix(b"frame"), Some(alone.as_slice()));
}

#[test]
fn a_span_without_a_resource_is_still_a_request() {
    let (records, _) = written(|both| both.span(&span()));
    let request = ExportTraceServiceRequest::decode(records.as_slice()).unwrap();
    assert_eq!(request.resource_spans[0].scope_spans[0].spans.len(), 1);
}

/// Version 1 as it was first written: it has to be read for ever.
const VERSION_1: &str = "807d010af6020a2c0a160a0c736572766963652e6e616d6512060a0473686f700a100a016e\
    120b18ffffffffffffffffff0110011a0172827d0573746f726512ba020a1c0a036c69621201321a100a016e120b18ff\
    ffffffffffffffff0120031a01731296020a100101010101010101010101010101010112080202020202020202\
    1a076f743d74683a38220803030303030303032a05474554202f3002390000b49376e2fa18410500b49376e2fa18\
    4a160a0c736572766963652e6e616d6512060a0473686f704a100a016e120b18ffffffffffffffffff0150045a38\
    0906000000000000001201651a160a0c736572766963652e6e616d6512060a0473686f701a100a016e120b18ffff\
    ffffffffffffff01200760086a520a1004040404040404040404040404040404120805050505050505051a03613d31\
    22160a0c736572766963652e6e616d6512060a0473686f7022100a016e120b18ffffffffffffffffff012809\
    3501000000700a7a0612026e6f1802850101010000";

#[test]
fn version_1() {
    let attributes = [
        Attr {
            key: "service.name",
            value: Value::Str("shop"),
        },
        Attr {
            key: "n",
            value: Value::Int(-1),
        },
    ];
    let event = EventRecord {
        time_ns: 6,
        name: "e",
        attributes: &attributes,
        dropped_attributes_count: 7,
    };
    let link = LinkRecord {
        trace_id: [4; 16],
        span_id: [5; 8],
        trace_state: "a=1",
        flags: 1,
        attributes: &attributes,
        dropped_attributes_count: 9,
    };
    let (records, expect) = written(|both| {
        both.resource(&ResourceRecord {
            service: "store",
            attributes: &attributes,
            dropped_attributes_count: 1,
            schema_url: "r",
        });
        both.scope(&ScopeRecord {
            name: "lib",
            version: "2",
            attributes: &attributes[1..],
            dropped_attributes_count: 3,
            schema_url: "s",
        });
        both.span(&SpanRecord {
            parent_span_id: [3; 8],
            trace_state: "ot=th:8",
            flags: 257,
            name: "GET /",
            kind: SpanKind::Server,
            start_ns: 1_800_000_000_000_000_000,
            duration_ns: 5,
            status: StatusCode::Error,
            status_message: "no",
            attributes: &attributes,
            dropped_attributes_count: 4,
            events: &[event],
            dropped_events_count: 8,
            links: &[link],
            dropped_links_count: 10,
            ..span()
        });
    });
    let hex: String = records.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, VERSION_1);
    let mut calls = Calls::default();
    assert_eq!(read(&records, &mut calls), Ok(1));
    assert_eq!(calls, expect);
}

fn fails(bytes: &[u8], expect: RecordsError) {
    let mut calls = Calls::default();
    assert_eq!(read(bytes, &mut calls), Err(expect), "{bytes:?}");
}

#[test]
fn versions() {
    let (records, expect) = written(|both| everything(both, 10));
    let body = &records[3..];
    fails(&[], RecordsError::NoVersion);
    fails(body, RecordsError::NoVersion);
    fails(&[0x80, 0x7d], RecordsError::NoVersion);
    fails(&[0x80, 0x7d, 0], RecordsError::Version(0));
    fails(&[&[0x80, 0x7d, 2], body].concat(), RecordsError::Version(2));
    assert_eq!(
        RecordsError::Version(2).to_string(),
        "the records have version 2, this program reads versions up to 1"
    );
    // What a later version adds is skipped.
    let mut later = records.clone();
    write::uint(&mut later, 2001, 7);
    write::bytes(&mut later, 2002, b"new");
    let mut calls = Calls::default();
    assert_eq!(read(&later, &mut calls), Ok(5));
    assert!(calls == expect);
}

/// Of each resource's scopes the traces of their spans.
const TRACES: &[(&str, &[&[u8]])] = &[
    ("a", &[&[1, 2, 1], &[2]]),
    ("b", &[&[2, 3]]),
    ("c", &[&[3], &[1]]),
];

/// The spans of these traces, and what they belong to.
fn traces(sink: &mut impl SpanSink, kept: &[u8]) {
    let any = |scope: &[u8]| scope.iter().any(|trace| kept.contains(trace));
    for (service, scopes) in TRACES {
        if scopes.iter().any(|scope| any(scope)) {
            sink.resource(&resource(service, &[]));
        }
        for traces in scopes.iter().filter(|scope| any(scope)) {
            sink.scope(&scope("", &[]));
            for &trace in traces.iter().filter(|trace| kept.contains(trace)) {
                let trace_id = [trace; 16];
                sink.span(&SpanRecord { trace_id, ..span() });
            }
        }
    }
}

#[test]
fn the_spans_of_some_traces_are_picked() {
    let (records, _) = written(|both| traces(both, &[1, 2, 3]));
    let check = |kept: &[u8], spans: u64| {
        let mut picked = (RecordWriter::new(), Calls::default());
        let wanted = |id: TraceId| kept.contains(&id.0[0]);
        assert_eq!(pick(&records, wanted, &mut picked), Ok(spans));
        let (expect, calls) = written(|both| traces(both, kept));
        assert_eq!(picked.1, calls);
        // What is picked can be written like anything else.
        assert!(picked.0.finish() == expect);
    };
    check(&[], 0);
    check(&[1], 3);
    check(&[2], 3);
    check(&[1, 3], 5);
    check(&[1, 2, 3], 8);
}

#[test]
fn invalid_spans_are_named() {
    let check = |what: InvalidSpan, spoil: &dyn Fn(&mut ExportTraceServiceRequest)| {
        let (records, _) = written(|both| {
            both.resource(&resource("shop", &[]));
            both.scope(&scope("", &[]));
            both.span(&span());
            both.span(&span());
        });
        let mut request = ExportTraceServiceRequest::decode(records.as_slice()).unwrap();
        spoil(&mut request);
        let mut spoiled = records[..3].to_vec();
        request.encode(&mut spoiled).unwrap();
        fails(&spoiled, RecordsError::Span { number: 1, what });
        let mut refused = Vec::new();
        let mut calls = Calls::default();
        let result = read_request(&spoiled, &mut calls, |_, what| refused.push(what));
        assert_eq!((result, refused), (Ok(()), vec![what]));
        assert_eq!(calls.0.len(), 3, "the other span is taken");
    };
    fn last(r: &mut ExportTraceServiceRequest) -> &mut opentelemetry_proto::tonic::trace::v1::Span {
        &mut r.resource_spans[0].scope_spans[0].spans[1]
    }
    check(InvalidSpan::TraceId, &|r| last(r).trace_id = vec![0; 16]);
    check(InvalidSpan::TraceId, &|r| last(r).trace_id = vec![1; 15]);
    check(InvalidSpan::SpanId, &|r| last(r).span_id = Vec::new());
    check(InvalidSpan::ParentSpanId, &|r| {
        last(r).parent_span_id = vec![1; 7]
    });
    check(InvalidSpan::Link, &|r| {
        last(r).links = vec![Default::default()]
    });
}

#[test]
fn text_must_be_utf8() {
    let (mut records, _) = written(|both| {
        both.resource(&resource("shop", &[]));
        both.scope(&scope("name", &[]));
        both.span(&SpanRecord {
            name: "GET",
            ..span()
        });
    });
    let at = |records: &[u8], text: &[u8]| {
        let mut windows = records.windows(text.len());
        windows.position(|window| window == text).unwrap()
    };
    let name = at(&records, b"GET");
    records[name + 1] = 0xff;
    let mut calls = Calls::default();
    let Err(RecordsError::Span {
        number: 0,
        what: InvalidSpan::Malformed(error),
    }) = read(&records, &mut calls)
    else {
        panic!("it is refused")
    };
    assert_eq!((error.kind, error.offset), (DecodeErrorKind::NotUtf8, name));
    let service = at(&records, b"shop");
    records[service] = 0xff;
    let Err(RecordsError::Decode(error)) = read(&records, &mut calls) else {
        panic!("it is refused")
    };
    assert_eq!(
        (error.kind, error.offset),
        (DecodeErrorKind::NotUtf8, service)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever can be read at all is read the same from its records.
    #[test]
    fn records_of_records_are_the_same(
        request in common::request(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let mut bytes = request.encode_to_vec();
        if !bytes.is_empty() {
            for (index, byte) in damage {
                *index.get_mut(&mut bytes) = byte;
            }
        }
        let mut both = (RecordWriter::new(), Calls::default());
        let _ = read_request(&bytes, &mut both, |_, _| {});
        let records = both.0.finish();
        let mut again = (RecordWriter::new(), Calls::default());
        prop_assert!(read(&records, &mut again).is_ok());
        prop_assert_eq!(&again.1, &both.1);
        prop_assert_eq!(again.0.finish(), records);
    }

    #[test]
    fn no_bytes_panic(bytes in any::<Vec<u8>>(), len in 0usize..200, at in any::<prop::sample::Index>()) {
        let mut calls = Calls::default();
        let _ = read(&bytes, &mut calls);
        let (mut records, _) = written(|both| everything(both, len));
        let at = at.index(records.len());
        records.splice(at..(at + bytes.len()).min(records.len()), bytes);
        let _ = read(&records, &mut calls);
        records.truncate(at);
        let _ = read(&records, &mut calls);
    }
}
