//! What a receiver answers: `ExportTraceServiceResponse` and `google.rpc.Status`, in both encodings.

use std::time::Duration;

use crate::value_json::{escape, print};
use crate::write;

/// How a body is encoded; an answer has its request's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `application/x-protobuf`, and gRPC.
    Protobuf,
    /// `application/json`.
    Json,
}

/// An `ExportTraceServiceResponse`. With nothing rejected and no message it has no
/// `partial_success`, which says full success; a message alone is a warning.
pub fn export_response(rejected: u64, message: &str, encoding: Encoding) -> Vec<u8> {
    let mut out = Vec::new();
    let full = rejected == 0 && message.is_empty();
    match encoding {
        Encoding::Protobuf if full => {}
        Encoding::Protobuf => write::message(&mut out, 1, |partial| {
            if rejected > 0 {
                write::uint(partial, 1, rejected);
            }
            if !message.is_empty() {
                write::bytes(partial, 2, message.as_bytes());
            }
        }),
        Encoding::Json if full => out.extend_from_slice(b"{}"),
        Encoding::Json => {
            out.extend_from_slice(br#"{"partialSuccess":{"#);
            if rejected > 0 {
                print(&mut out, format_args!(r#""rejectedSpans":"{rejected}""#));
            }
            if rejected > 0 && !message.is_empty() {
                out.push(b',');
            }
            if !message.is_empty() {
                out.extend_from_slice(br#""errorMessage":"#);
                escape(&mut out, message);
            }
            out.extend_from_slice(b"}}");
        }
    }
    out
}

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// A `google.rpc.Status`: a gRPC code, a message, and with a delay a `RetryInfo`, without which
/// clients do not repeat what was refused with `RESOURCE_EXHAUSTED`.
pub fn status(
    code: i32,
    message: &str,
    retry_delay: Option<Duration>,
    encoding: Encoding,
) -> Vec<u8> {
    let mut out = Vec::new();
    match encoding {
        Encoding::Protobuf => {
            write::uint(&mut out, 1, i64::from(code).cast_unsigned());
            write::bytes(&mut out, 2, message.as_bytes());
            if let Some(delay) = retry_delay {
                write::message(&mut out, 3, |any| {
                    write::bytes(any, 1, RETRY_INFO.as_bytes());
                    write::message(any, 2, |info| {
                        write::message(info, 1, |duration| {
                            write::uint(duration, 1, delay.as_secs());
                            write::uint(duration, 2, u64::from(delay.subsec_nanos()));
                        });
                    });
                });
            }
        }
        Encoding::Json => {
            print(&mut out, format_args!(r#"{{"code":{code},"message":"#));
            escape(&mut out, message);
            if let Some(delay) = retry_delay {
                let (seconds, nanos) = (delay.as_secs(), delay.subsec_nanos());
                print(
                    &mut out,
                    format_args!(
                        r#","details":[{{"@type":"{RETRY_INFO}","retryDelay":"{seconds}.{nanos:09}s"}}]"#
                    ),
                );
            }
            out.push(b'}');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use Encoding::{Json, Protobuf};
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
    use prost::Message as _;

    fn check_export(rejected: u64, message: &str, json: &str) {
        let text = String::from_utf8(export_response(rejected, message, Json)).unwrap();
        assert_eq!(text, json);
        let bytes = export_response(rejected, message, Protobuf);
        let response = ExportTraceServiceResponse::decode(bytes.as_slice()).unwrap();
        let partial = response.partial_success;
        assert_eq!(partial.is_none(), json == "{}");
        let partial = partial.unwrap_or_default();
        assert_eq!(
            (partial.rejected_spans, partial.error_message.as_str()),
            (rejected as i64, message)
        );
    }

    #[test]
    fn export_responses() {
        check_export(0, "", "{}");
        check_export(3, "", r#"{"partialSuccess":{"rejectedSpans":"3"}}"#);
        check_export(
            0,
            "a \"b\"",
            r#"{"partialSuccess":{"errorMessage":"a \"b\""}}"#,
        );
        check_export(
            300,
            "zero id",
            r#"{"partialSuccess":{"rejectedSpans":"300","errorMessage":"zero id"}}"#,
        );
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Any {
        #[prost(string, tag = "1")]
        type_url: String,
        #[prost(bytes = "vec", tag = "2")]
        value: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Status {
        #[prost(int32, tag = "1")]
        code: i32,
        #[prost(string, tag = "2")]
        message: String,
        #[prost(message, repeated, tag = "3")]
        details: Vec<Any>,
    }

    #[test]
    fn statuses() {
        let text = |delay| String::from_utf8(status(14, "full", delay, Json)).unwrap();
        assert_eq!(text(None), r#"{"code":14,"message":"full"}"#);
        assert_eq!(
            text(Some(Duration::from_millis(1500))),
            r#"{"code":14,"message":"full","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"1.500000000s"}]}"#
        );
        let bytes = status(8, "full", Some(Duration::from_millis(1500)), Protobuf);
        let decoded = Status::decode(bytes.as_slice()).unwrap();
        assert_eq!((decoded.code, decoded.message.as_str()), (8, "full"));
        assert_eq!(decoded.details[0].type_url, RETRY_INFO);
        // RetryInfo.retry_delay = Duration { seconds: 1, nanos: 500000000 }
        assert_eq!(
            decoded.details[0].value,
            [10, 8, 8, 1, 16, 0x80, 0xca, 0xb5, 0xee, 1]
        );
        let bytes = status(3, "", None, Protobuf);
        assert!(Status::decode(bytes.as_slice()).unwrap().details.is_empty());
    }
}
