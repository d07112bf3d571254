//! The views read what prost reads, but for the differences that `spanloom_otlp::view` documents.
#![no_main]

#[path = "../../lib/otlp/tests/common/compare.rs"]
#[allow(dead_code)]
mod compare;

use libfuzzer_sys::fuzz_target;
use spanloom_otlp::record::{Attr, Value};
use spanloom_otlp::value_json::{parse_attributes, write_attributes};
use spanloom_otlp::view::TracesView;

fuzz_target!(|bytes: &[u8]| {
    assert_eq!(compare::compare(bytes), Ok(()));
    stored_text(bytes);
});

/// Any value, also one that is malformed inside, has a text that can be read back.
fn stored_text(bytes: &[u8]) {
    let resources = TracesView::new(bytes)
        .resource_spans()
        .map_while(Result::ok);
    for item in resources.flat_map(|r| r.resource.attributes().map_while(Result::ok)) {
        let value = match item.value {
            Value::Str(_) => continue,
            Value::Empty => Value::Empty,
            Value::Bool(v) => Value::Bool(v),
            Value::Int(v) => Value::Int(v),
            Value::Double(v) => Value::Double(v),
            Value::Bytes(v) => Value::Bytes(v),
            Value::Array(v) => Value::Array(v),
            Value::KvList(v) => Value::KvList(v),
        };
        let mut text = Vec::new();
        write_attributes(&mut text, &[Attr { key: "k", value }]);
        let text = String::from_utf8(text).expect("JSON is UTF-8");
        let read = parse_attributes(&text).expect("what was written can be read");
        assert_eq!(read.len(), 1);
    }
}
