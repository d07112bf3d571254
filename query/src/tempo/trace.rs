//! `GET /api/v2/traces/{id}` and `GET /api/traces/{id}`: a whole trace.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Uri, header};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use crate::app::{App, Share};
use crate::db::Flow;
use crate::params::Params;
use crate::problem::Problem;
use crate::tempo::encoded::{Encoded, Format};
use crate::tempo::error::Plain;
use crate::tempo::window::Range;
use crate::tempo::wire::{PartialStatus, TraceByIdMetrics, TraceByIdRest};
use crate::trace;
use crate::trace::rows::{Converter, SpanRow, unique_spans_sql};
use crate::trace::tree::Placed;

/// Of which version of the API an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    /// The trace alone.
    V1,
    /// The trace, and whether it is all of it.
    V2,
}

/// A trace in the newer form.
pub async fn v2(
    app: State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Plain> {
    answer(app, id, &headers, &uri, Version::V2).await
}

/// A trace in the older form.
pub async fn v1(
    app: State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Plain> {
    answer(app, id, &headers, &uri, Version::V1).await
}

async fn answer(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    headers: &HeaderMap,
    uri: &Uri,
    version: Version,
) -> Result<Response, Plain> {
    let range = Range::read(&Params::of_others(uri)?)?;
    let id = trace::id_in_path(id)?;
    let is_protobuf = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|text| text.contains("application/protobuf"));
    let format = match is_protobuf {
        true => Format::Protobuf,
        false => Format::Json,
    };
    let found = read(&app, id, format).await?;
    let found = match found {
        Some(found) => found,
        // Tempo answers so, and so its data source expects it; without a range there is the status for it.
        None if version == Version::V2 && range.is_some() => Found {
            trace: Encoded::new(format, id),
            truncated: false,
            memory: Share::default(),
        },
        None => return Err(trace::not_found(id).into()),
    };
    let kind = match format {
        Format::Protobuf => "application/protobuf",
        Format::Json => "application/json",
    };
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(kind))];
    Ok((headers, body(found, version, format)).into_response())
}

/// A trace that was read, and the share of the memory for traces that it holds.
struct Found {
    trace: Encoded,
    truncated: bool,
    memory: Share,
}

/// The rows of a trace, encoded as they come; none where it is not stored.
async fn read(app: &App, id: [u8; 16], format: Format) -> Result<Option<Found>, Problem> {
    let deadline = app.db.deadline();
    let Some(window) = trace::window(app, id, deadline).await? else {
        return Ok(None);
    };
    let limits = &app.limits;
    let sql = unique_spans_sql(id, window.start_ns, window.end_ns, limits.trace_spans + 1);
    let mut found = Found {
        trace: Encoded::new(format, id),
        truncated: false,
        memory: Share::default(),
    };
    let (mut converter, mut is_refused) = (Converter::default(), false);
    let read = app.db.each("trace", &sql, deadline, |row: SpanRow| {
        let bytes = found.trace.bytes();
        if found.trace.spans() >= limits.trace_spans || bytes > limits.trace_bytes {
            found.truncated = true;
            return Flow::Enough;
        }
        if !found.memory.grow_to(app, bytes) {
            is_refused = true;
            return Flow::Enough;
        }
        found.trace.add(converter.span(row, Placed::default(), 0));
        Flow::More
    });
    read.await?;
    match is_refused {
        true => Err(trace::too_much()),
        false => Ok(Some(found).filter(|found| found.trace.spans() > 0)),
    }
}

/// An answer of more bytes is sent in pieces, and never compressed.
const WHOLE_BYTES: usize = 16 << 20;

fn body(found: Found, version: Version, format: Format) -> Body {
    let truncated = found.truncated;
    let (length, pieces) = found.trace.finish();
    let message = match truncated {
        true => "the trace has more spans than one answer may hold; the earliest are here",
        false => "",
    };
    let (head, tail) = match (format, version) {
        (Format::Protobuf, Version::V1) => (Vec::new(), Vec::new()),
        (Format::Protobuf, Version::V2) => {
            // The field of the trace stands before the others.
            let mut head = Vec::new();
            encode_key(1, WireType::LengthDelimited, &mut head);
            encode_varint(length as u64, &mut head);
            let status = match truncated {
                true => PartialStatus::Partial,
                false => PartialStatus::Complete,
            };
            let rest = TraceByIdRest {
                metrics: Some(TraceByIdMetrics {}),
                status: status.into(),
                message: message.to_owned(),
            };
            (head, rest.encode_to_vec())
        }
        (Format::Json, Version::V1) => (b"{\"batches\":".to_vec(), b"}".to_vec()),
        (Format::Json, Version::V2) => {
            let tail = match truncated {
                true => format!(
                    "}},\"metrics\":{{}},\"status\":\"PARTIAL\",\"message\":\"{message}\"}}"
                ),
                false => "},\"metrics\":{}}".to_owned(),
            };
            (
                b"{\"trace\":{\"resourceSpans\":".to_vec(),
                tail.into_bytes(),
            )
        }
    };
    if length <= WHOLE_BYTES {
        let pieces = pieces.iter().map(AsRef::as_ref);
        let whole: Vec<&[u8]> = [head.as_slice()]
            .into_iter()
            .chain(pieces)
            .chain([tail.as_slice()])
            .collect();
        return Body::from(whole.concat());
    }
    let memory = found.memory;
    let ends = [Bytes::from(head)].into_iter().chain(pieces);
    let pieces = ends.chain([Bytes::from(tail)]).map(move |piece| {
        // Held until the last piece is sent.
        let _ = &memory;
        Ok::<_, Infallible>(piece)
    });
    Body::from_stream(futures_util::stream::iter(pieces))
}
