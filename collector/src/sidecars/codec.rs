//! What sidecars forward.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use prost::Message;
use spanloom_pipeline::codec::Protobuf;
use spanloom_pipeline::codec::{Codec, CodecError, Forwarded, Ignored};
use spanloom_proto::sidecar::MAX_FORWARD_BYTES;
use spanloom_proto::sidecar::v1::{ForwardRequest, ForwardResponse};
use tokio::sync::watch;

use super::configure::Part;

/// Reads the messages of `Forward`.
#[derive(Debug)]
pub(super) struct Forward {
    /// The configuration in force.
    current: watch::Receiver<Option<Arc<Part>>>,
}

impl Forward {
    pub(super) fn new(current: watch::Receiver<Option<Arc<Part>>>) -> Self {
        Self { current }
    }

    fn is_current(&self, hash: &str) -> bool {
        let current = self.current.borrow();
        !hash.is_empty() && current.as_ref().is_some_and(|part| part.hash == hash)
    }
}

impl Codec for Forward {
    fn name(&self) -> &'static str {
        "sidecar"
    }

    fn content_type(&self) -> &'static str {
        "application/grpc"
    }

    fn to_otlp<'b>(
        &self,
        _: &'b [u8],
        _: usize,
        _: &mut Ignored,
    ) -> Result<Cow<'b, [u8]>, CodecError> {
        Err(CodecError::new("the message is a sidecar's"))
    }

    fn forwarded<'b>(&self, body: &'b [u8]) -> Option<Result<Forwarded<'b>, CodecError>> {
        // Copied once, so that the parts of the message need no copies of their own.
        let request = match ForwardRequest::decode(Bytes::copy_from_slice(body)) {
            Ok(request) => request,
            Err(error) => {
                let why = format!("the message is not a sidecar's: {error}");
                return Some(Err(CodecError::new(why)));
            }
        };
        if request.version == 0 {
            let why = "the message has no version";
            return Some(Err(CodecError::new(why)));
        }
        Some(Ok(Forwarded {
            is_current: self.is_current(&request.config_hash),
            records: Cow::Owned(request.records.into()),
            measures: Cow::Owned(request.measures.into()),
            pod_uid: Cow::Owned(request.pod_uid),
        }))
    }

    fn max_bytes(&self) -> usize {
        MAX_FORWARD_BYTES
    }

    fn success(&self) -> StatusCode {
        StatusCode::OK
    }

    fn accepted(&self, rejected: u64, message: &str) -> Vec<u8> {
        let response = ForwardResponse {
            rejected_spans: rejected,
            message: message.to_owned(),
        };
        response.encode_to_vec()
    }

    fn failed(&self, code: i32, message: &str, retry_after: Option<Duration>) -> Vec<u8> {
        Protobuf.failed(code, message, retry_after)
    }
}
