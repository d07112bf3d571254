//! How bodies are written: each format is a [`Codec`], which makes OTLP's protobuf of a request and
//! writes the answer.
//!
//! A codec is called once for a request, never for a span: what it makes is read in place like any other
//! request.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
pub use spanloom_otlp::json::Ignored;
use spanloom_otlp::{json, response};
use thiserror::Error;

use crate::admission::Expansion;
use crate::decompress::Encoding;

/// A format of requests and of their answers.
pub trait Codec: fmt::Debug + Send + Sync + 'static {
    /// Its name. Codecs of one name are one format: equal bodies are repeats of one request,
    /// wherever they are received.
    fn name(&self) -> &'static str;

    /// The media type of requests, without parameters, and of answers.
    fn content_type(&self) -> &'static str;

    /// Whether [`Codec::to_otlp`] makes new bytes, for which memory is reserved first.
    fn transcodes(&self) -> bool {
        true
    }

    /// The unpacked body as an `ExportTraceServiceRequest` of at most `max_bytes`. Fields of the body that are
    /// left out, though something is lost with them, are noted in `ignored`.
    ///
    /// # Errors
    /// When the body is not of this format.
    fn to_otlp<'b>(
        &self,
        body: &'b [u8],
        max_bytes: usize,
        ignored: &mut Ignored,
    ) -> Result<Cow<'b, [u8]>, CodecError>;

    /// What the unpacked body has, where it comes from a sidecar: then [`Codec::to_otlp`] is not asked.
    fn forwarded<'b>(&self, body: &'b [u8]) -> Option<Result<Forwarded<'b>, CodecError>> {
        let _ = body;
        None
    }

    /// How long an unpacked body may be.
    fn max_bytes(&self) -> usize {
        usize::MAX
    }

    /// The status of an answer to a request that was taken.
    fn success(&self) -> StatusCode {
        StatusCode::OK
    }

    /// The answer to a request that was taken: spans that were refused, and why; empty when there is
    /// nothing to say.
    fn accepted(&self, rejected: u64, message: &str) -> Vec<u8>;

    /// The answer to a request that was not taken: a code of gRPC, a message, and when a repeat can
    /// help.
    fn failed(&self, code: i32, message: &str, retry_after: Option<Duration>) -> Vec<u8>;
}

/// What a sidecar sends: spans that it has processed, and what it has measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded<'b> {
    /// The spans, as [records](spanloom_otlp::records); may be empty.
    pub records: Cow<'b, [u8]>,
    /// Measures of what it has sampled away, as a [bundle](crate::measure::bundle); may be empty.
    pub measures: Cow<'b, [u8]>,
    /// The uid of the pod that it says it is in. From a sender that is another pod nothing is taken.
    pub pod_uid: Cow<'b, str>,
    /// Whether it has applied the rules that are in force here. If not, they are applied once more: what it did
    /// already is not changed by that.
    pub is_current: bool,
}

/// Why a body is not of its codec's format, for the sender.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct CodecError(String);

impl CodecError {
    /// An error with this message, such as `the body is not OTLP in JSON: …`.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// OTLP in protobuf, which is read as it is.
#[derive(Debug, Clone, Copy)]
pub struct Protobuf;

impl Codec for Protobuf {
    fn name(&self) -> &'static str {
        "protobuf"
    }

    fn content_type(&self) -> &'static str {
        "application/x-protobuf"
    }

    fn transcodes(&self) -> bool {
        false
    }

    fn to_otlp<'b>(
        &self,
        body: &'b [u8],
        _: usize,
        _: &mut Ignored,
    ) -> Result<Cow<'b, [u8]>, CodecError> {
        Ok(Cow::Borrowed(body))
    }

    fn accepted(&self, rejected: u64, message: &str) -> Vec<u8> {
        response::export_response(rejected, message, response::Encoding::Protobuf)
    }

    fn failed(&self, code: i32, message: &str, retry_after: Option<Duration>) -> Vec<u8> {
        response::status(code, message, retry_after, response::Encoding::Protobuf)
    }
}

/// OTLP in JSON.
#[derive(Debug, Clone, Copy)]
pub struct Json;

impl Codec for Json {
    fn name(&self) -> &'static str {
        "json"
    }

    fn content_type(&self) -> &'static str {
        "application/json"
    }

    fn to_otlp<'b>(
        &self,
        body: &'b [u8],
        max_bytes: usize,
        ignored: &mut Ignored,
    ) -> Result<Cow<'b, [u8]>, CodecError> {
        json::to_protobuf_noting(body, max_bytes, ignored)
            .map(Cow::Owned)
            .map_err(|error| CodecError::new(format!("the body is not OTLP in JSON: {error}")))
    }

    fn accepted(&self, rejected: u64, message: &str) -> Vec<u8> {
        response::export_response(rejected, message, response::Encoding::Json)
    }

    fn failed(&self, code: i32, message: &str, retry_after: Option<Duration>) -> Vec<u8> {
        response::status(code, message, retry_after, response::Encoding::Json)
    }
}

/// A codec at work: with what its requests are known to need.
#[derive(Debug)]
pub(crate) struct Coding {
    pub(crate) codec: Arc<dyn Codec>,
    number: u16,
    expansions: [Expansion; Encoding::ALL.len()],
}

impl Coding {
    /// What requests in this encoding are known to need.
    pub(crate) fn expansion(&self, encoding: Encoding) -> &Expansion {
        let [identity, gzip, deflate, zstd] = &self.expansions;
        match encoding {
            Encoding::Identity => identity,
            Encoding::Gzip => gzip,
            Encoding::Deflate => deflate,
            Encoding::Zstd => zstd,
        }
    }
}

/// All codecs of a pipeline, one for each name.
#[derive(Debug, Default)]
pub(crate) struct Codings(Vec<Arc<Coding>>);

impl Codings {
    /// The codec at work, the same for every receiver that has it.
    pub(crate) fn of(&mut self, codec: &Arc<dyn Codec>) -> Arc<Coding> {
        let known = self.0.iter();
        if let Some(coding) = known.clone().find(|one| one.codec.name() == codec.name()) {
            return Arc::clone(coding);
        }
        let coding = Arc::new(Coding {
            codec: Arc::clone(codec),
            // A receiver has a handful of codecs.
            number: u16::try_from(known.len()).unwrap_or(u16::MAX),
            // Until requests have shown it: columns and their copy, and what unpacking makes.
            expansions: Encoding::ALL.map(|encoding| match encoding {
                Encoding::Identity => Expansion::new(2),
                _ => Expansion::new(12),
            }),
        });
        self.0.push(Arc::clone(&coding));
        coding
    }
}

/// How a request's body is written.
#[derive(Debug, Clone)]
pub(crate) struct Form {
    pub(crate) encoding: Encoding,
    pub(crate) coding: Arc<Coding>,
}

impl Form {
    /// Two requests are repeats only if they are read in the same way.
    pub(crate) fn tag(&self) -> u64 {
        u64::from(self.coding.number) * Encoding::ALL.len() as u64 + self.encoding as u64
    }

    /// What such requests are known to need.
    pub(crate) fn expansion(&self) -> &Expansion {
        self.coding.expansion(self.encoding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_another_form_are_other_requests() {
        let mut codings = Codings::default();
        let protobuf = codings.of(&(Arc::new(Protobuf) as Arc<dyn Codec>));
        let json = codings.of(&(Arc::new(Json) as Arc<dyn Codec>));
        let again = codings.of(&(Arc::new(Protobuf) as Arc<dyn Codec>));
        assert!(Arc::ptr_eq(&protobuf, &again), "one format, one table");
        let mut tags = std::collections::HashSet::new();
        for coding in [&protobuf, &json] {
            for encoding in Encoding::ALL {
                let coding = Arc::clone(coding);
                assert!(tags.insert(Form { encoding, coding }.tag()), "{encoding:?}");
            }
        }
    }
}
