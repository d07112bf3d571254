//! Any text is refused or becomes protobuf that the views and prost read alike; protobuf turned to
//! JSON by prost's structs comes back the same.
#![no_main]

#[path = "../../lib/otlp/tests/common/compare.rs"]
#[allow(dead_code)]
mod compare;
#[path = "../../lib/otlp/tests/common/to_json.rs"]
mod to_json;

use libfuzzer_sys::fuzz_target;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use spanloom_otlp::json::to_protobuf;
use spanloom_otlp::value_json::parse_value;

const LIMIT: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(protobuf) = to_protobuf(bytes, LIMIT) {
        assert!(protobuf.len() <= LIMIT + 64);
        assert_eq!(compare::compare(&protobuf), Ok(()));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = parse_value(text);
    }
    if let Ok(request) = ExportTraceServiceRequest::decode(bytes) {
        let request = compare::normal(request);
        let json = to_json::request_json(&request).to_string();
        let protobuf = to_protobuf(json.as_bytes(), LIMIT).expect("this JSON follows the rules");
        let back = ExportTraceServiceRequest::decode(protobuf.as_slice()).expect("and is read");
        assert_eq!(to_json::request_json(&back).to_string(), json);
    }
});
