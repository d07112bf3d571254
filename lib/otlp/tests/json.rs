//! OTLP/JSON: what the specification says, and protobuf to JSON and back.

mod common;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyOf;
use proptest::prelude::*;
use prost::Message as _;
use spanloom_otlp::json::{self, JsonErrorKind, to_protobuf};

const LIMIT: usize = 64 << 20;

fn read(text: &str) -> Result<ExportTraceServiceRequest, String> {
    let bytes = to_protobuf(text.as_bytes(), LIMIT).map_err(|e| e.to_string())?;
    assert_eq!(common::compare(&bytes), Ok(()), "{text}");
    ExportTraceServiceRequest::decode(bytes.as_slice()).map_err(|e| e.to_string())
}

fn span(fields: &str) -> Result<opentelemetry_proto::tonic::trace::v1::Span, String> {
    let text = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{fields}]}}]}}]}}"#);
    read(&text).map(|mut request| {
        request
            .resource_spans
            .remove(0)
            .scope_spans
            .remove(0)
            .spans
            .remove(0)
    })
}

fn value(text: &str) -> Result<Option<AnyOf>, String> {
    let span = span(&format!(
        r#"{{"attributes":[{{"key":"k","value":{text}}}]}}"#
    ))?;
    Ok(span.attributes[0].value.clone().unwrap_or_default().value)
}

#[test]
fn whole_requests() {
    let empty = |text| {
        assert_eq!(
            read(text),
            Ok(ExportTraceServiceRequest::default()),
            "{text}"
        )
    };
    empty("{}");
    empty(" {\n} ");
    empty(r#"{"resourceSpans":[]}"#);
    empty(r#"{"resourceSpans":null,"more":{"resourceSpans":[1,{"a":[]}]},"resource_spans":[{}]}"#);
    let bad = |text, expect: &str| {
        let error = read(text).unwrap_err();
        assert!(error.contains(expect), "{text}: {error}");
    };
    bad("", "ends where a value was expected");
    bad("[]", "expected an object");
    bad("{} {}", "text after the value");
    bad(
        r#"{"resourceSpans":{}}"#,
        "byte 18, resourceSpans: expected an array",
    );
    bad(
        r#"{"resourceSpans":[{},7]}"#,
        "resourceSpans[1]: expected an object",
    );
    bad(
        r#"{"resourceSpans":[{"resource":[]}]}"#,
        "resourceSpans[0].resource: expected an object",
    );
    bad(
        r#"{"resourceSpans":[],"resourceSpans":[]}"#,
        "more than one value",
    );
    bad("{\"resourceSpans\":[\n", "resourceSpans[0]: not JSON");
}

#[test]
fn not_utf8() {
    let error = to_protobuf(b"{\"a\":\"\xff\"}", LIMIT).unwrap_err();
    assert_eq!((error.kind, error.offset), (JsonErrorKind::NotUtf8, 6));
}

#[test]
fn ids() {
    let check = |text: &str, expect: Option<&[u8]>| {
        let id = span(&format!(r#"{{"traceId":{text}}}"#)).map(|span| span.trace_id);
        assert_eq!(id.as_deref().ok(), expect, "{text} {id:?}");
    };
    check(
        r#""5b8efff798038103d269b633813fc60c""#,
        Some(&[
            0x5b, 0x8e, 0xff, 0xf7, 0x98, 0x03, 0x81, 0x03, 0xd2, 0x69, 0xb6, 0x33, 0x81, 0x3f,
            0xc6, 0x0c,
        ]),
    );
    check(r#""aBCd""#, Some(&[0xab, 0xcd]));
    check(r#""""#, Some(&[]));
    check("null", Some(&[]));
    check(r#""abc""#, None);
    check(r#""xx""#, None);
    check(r#""éa""#, None);
    check("12", None);
}

#[test]
fn scalars() {
    let check = |fields: &str, ok: bool| assert_eq!(span(fields).is_ok(), ok, "{fields}");
    for kind in ["0", "3", "-1", "99", "3.0", "null"] {
        check(&format!(r#"{{"kind":{kind}}}"#), true);
    }
    for kind in [
        r#""SPAN_KIND_SERVER""#,
        r#""3""#,
        "3.5",
        "2147483648",
        "true",
        "{}",
        "[]",
    ] {
        check(&format!(r#"{{"kind":{kind}}}"#), false);
    }
    assert!(
        span(r#"{"status":{"code":"STATUS_CODE_OK"}}"#)
            .unwrap_err()
            .contains("status.code: expected an integer: OTLP/JSON")
    );
    let time = |text: &str| {
        span(&format!(r#"{{"startTimeUnixNano":{text}}}"#)).map(|s| s.start_time_unix_nano)
    };
    assert_eq!(
        time(r#""1544712660000000000""#),
        Ok(1_544_712_660_000_000_000)
    );
    assert_eq!(time("1544712660000000001"), Ok(1_544_712_660_000_000_001));
    assert_eq!(time("1.5e18"), Ok(1_500_000_000_000_000_000));
    assert_eq!(time(r#""18446744073709551615""#), Ok(u64::MAX));
    for bad in ["-1", r#""x""#, "1.5", "18446744073709551616", "true"] {
        assert!(time(bad).is_err(), "{bad}");
    }
    check(r#"{"droppedLinksCount":4294967295,"flags":"257"}"#, true);
    check(r#"{"droppedLinksCount":4294967296}"#, false);
    check(r#"{"flags":-1}"#, false);
    check(r#"{"name":5}"#, false);
    assert_eq!(
        span(r#"{"name":"a\u00e9\ud800"}"#).unwrap().name,
        "aé\u{fffd}"
    );
    let ignored = span(r#"{"start_time_unix_nano":"7","Name":"x","trace_id":"zz"}"#).unwrap();
    assert_eq!(ignored, Default::default(), "only lowerCamelCase counts");
}

#[test]
fn values() {
    let check = |text: &str, expect| assert_eq!(value(text), Ok(expect), "{text}");
    check("null", None);
    check("{}", None);
    check(r#"{"stringValue":null}"#, None);
    check(
        r#"{"stringValue":""}"#,
        Some(AnyOf::StringValue(String::new())),
    );
    check(r#"{"boolValue":false}"#, Some(AnyOf::BoolValue(false)));
    check(
        r#"{"intValue":"-9223372036854775808"}"#,
        Some(AnyOf::IntValue(i64::MIN)),
    );
    check(
        r#"{"intValue":9223372036854775807}"#,
        Some(AnyOf::IntValue(i64::MAX)),
    );
    // The JavaScript SDK's exporter writes every whole number like this.
    for (text, number) in [
        ("1.5e+300", 1.5e300),
        ("18446744073709552000", 2f64.powi(64)),
    ] {
        let text = format!(r#"{{"intValue":{text}}}"#);
        check(&text, Some(AnyOf::DoubleValue(number)));
    }
    check(r#"{"doubleValue":1}"#, Some(AnyOf::DoubleValue(1.0)));
    check(
        r#"{"doubleValue":"-Infinity"}"#,
        Some(AnyOf::DoubleValue(f64::NEG_INFINITY)),
    );
    check(r#"{"doubleValue":"2.5"}"#, Some(AnyOf::DoubleValue(2.5)));
    let bytes = |raw: &[u8]| Some(AnyOf::BytesValue(raw.to_vec()));
    check(r#"{"bytesValue":"+/8="}"#, bytes(&[0xfb, 0xff]));
    check(r#"{"bytesValue":"+/8"}"#, bytes(&[0xfb, 0xff]));
    check(r#"{"bytesValue":"-_8="}"#, bytes(&[0xfb, 0xff]));
    check(r#"{"bytesValue":""}"#, bytes(&[]));
    for bad in [
        r#"{"boolValue":"true"}"#,
        r#"{"intValue":1.5}"#,
        r#"{"intValue":"1e300"}"#,
        r#"{"intValue":true}"#,
        r#"{"doubleValue":"nan"}"#,
        r#"{"doubleValue":1e999}"#,
        r#"{"bytesValue":"+_"}"#,
        r#"{"bytesValue":"a"}"#,
        r#"{"stringValue":"a","intValue":1}"#,
        r#"{"arrayValue":[]}"#,
        r#""text""#,
    ] {
        assert!(value(bad).is_err(), "{bad}");
    }
    let Ok(Some(AnyOf::ArrayValue(list))) =
        value(r#"{"arrayValue":{"values":[null,{"intValue":1}]}}"#)
    else {
        panic!("an array was expected")
    };
    assert_eq!(list.values.len(), 2);
    assert_eq!(list.values[0].value, None);
}

#[test]
fn the_output_is_bounded() {
    let text = format!(r#"{{"resourceSpans":[{}]}}"#, vec!["{}"; 1000].join(","));
    assert_eq!(
        to_protobuf(text.as_bytes(), 4000).map(|bytes| bytes.len()),
        Ok(2000)
    );
    let error = to_protobuf(text.as_bytes(), 1000).unwrap_err();
    assert_eq!(error.kind, JsonErrorKind::TooLarge(1000));
    let text = format!(
        r#"{{"resourceSpans":[{{"schemaUrl":"{}"}}]}}"#,
        "x".repeat(5000)
    );
    let error = to_protobuf(text.as_bytes(), 1000).unwrap_err();
    assert_eq!(error.kind, JsonErrorKind::TooLarge(1000));
    assert_eq!(error.path, "resourceSpans[0].schemaUrl");
}

/// A value in as many lists.
fn nested(levels: usize, kv: bool) -> String {
    let (open, close) = match kv {
        true => (r#"{"kvlistValue":{"values":[{"value":"#, "}]}}"),
        false => (r#"{"arrayValue":{"values":["#, "]}}"),
    };
    format!("{}{{}}{}", open.repeat(levels), close.repeat(levels))
}

#[test]
fn depth() {
    for kv in [false, true] {
        let span = |levels| {
            let value = nested(levels, kv);
            format!(
                r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"attributes":[{{"value":{value}}}]}}]}}]}}]}}"#
            )
        };
        // As deep as the views follow; prost gives up earlier.
        let bytes = to_protobuf(span(64).as_bytes(), LIMIT).unwrap();
        assert!(common::viewed(&bytes).is_ok());
        let error = to_protobuf(span(5000).as_bytes(), LIMIT).unwrap_err();
        assert!(matches!(error.kind, JsonErrorKind::TooDeep(_)), "{error}");
    }
    let skipped = format!(r#"{{"other":{}"#, "[".repeat(1_000_000));
    let error = to_protobuf(skipped.as_bytes(), LIMIT).unwrap_err();
    assert!(matches!(error.kind, JsonErrorKind::TooDeep(_)), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn protobuf_to_json_and_back(request in common::request()) {
        let text = common::request_json(&request).to_string();
        prop_assert_eq!(read(&text), Ok(request));
    }

    #[test]
    fn damaged_text(
        request in common::request(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = common::request_json(&request).to_string().into_bytes();
        for (index, byte) in damage {
            *index.get_mut(&mut bytes) = byte;
        }
        if let Ok(protobuf) = to_protobuf(&bytes, LIMIT) {
            prop_assert!(common::viewed(&protobuf).is_ok());
        }
    }
}

#[test]
fn fields_under_which_spans_may_be_lost_are_noted() {
    let check = |json: &str, fields: u64, first: Option<&str>| {
        let mut ignored = json::Ignored::default();
        json::to_protobuf_noting(json.as_bytes(), 1 << 20, &mut ignored).unwrap();
        assert_eq!(
            (ignored.fields, ignored.first.as_deref()),
            (fields, first),
            "{json}"
        );
    };
    check(
        r#"{"resource_spans":[{"scope_spans":[]}]}"#,
        1,
        Some("resource_spans"),
    );
    check(r#"{"ResourceSpans": [] }"#, 1, Some("ResourceSpans"));
    check(
        r#"{"resourceSpans":[{"instrumentationLibrarySpans":[{"spans":[]}]}]}"#,
        1,
        Some("instrumentationLibrarySpans"),
    );
    check(
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"start_time_unix_nano":"5"}]}]}]}"#,
        1,
        Some("start_time_unix_nano"),
    );
    check(
        r#"{"spans":[{"name":"x"}],"traces":{"a":1}}"#,
        2,
        Some("spans"),
    );
    // What later versions may add is no reason to complain.
    check(
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"new":[{"a":1}]}],"note":"x"}]}]}"#,
        0,
        None,
    );
    check(
        r#"{"resource_spans":null,"more":[],"resourceSpans":[]}"#,
        0,
        None,
    );
    let long = format!(r#"{{"{}":[{{}}]}}"#, "é".repeat(100));
    check(&long, 1, Some(&"é".repeat(32)));
}
