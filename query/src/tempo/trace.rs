//! `GET /api/v2/traces/{id}` and `GET /api/traces/{id}`: a whole trace.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Uri, header};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use crate::app::{App, Share};
use crate::db::{Deadline, Flow, Text};
use crate::params::Params;
use crate::problem::Problem;
use crate::search::page::Indexed;
use crate::sql::Sql;
use crate::tempo::encoded::{Encoded, Format, Piece};
use crate::tempo::error::Plain;
use crate::tempo::window::Range;
use crate::tempo::wire::{PartialStatus, TraceByIdMetrics, TraceByIdRest};
use crate::trace;
use crate::trace::outline::SpanRecord as _;
use crate::trace::rows::{CopiesRow, SpanRow, copies_sql, every_span_sql, unique_spans_sql};

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
    Ok((headers, body(&app, found, version, format)?).into_response())
}

/// A trace that was read, and the share of the memory for traces that it holds.
struct Found {
    trace: Encoded,
    truncated: bool,
    memory: Share,
}

/// More spans are not sorted: that takes longer than everything else, and clients sort them anyway.
const SORTED_SPANS: u64 = 5_000;

/// The rows of a trace, encoded as they come; none where it is not stored.
async fn read(app: &App, id: [u8; 16], format: Format) -> Result<Option<Found>, Problem> {
    let deadline = app.db.deadline();
    let Some(window) = trace::window(app, id, deadline).await? else {
        return Ok(None);
    };
    let is_large = window.spans > SORTED_SPANS && window.spans <= app.limits.trace_spans as u64;
    let copies = match is_large {
        true => copies(app, &window, deadline).await?,
        false => None,
    };
    if let Some(copies) = copies {
        let sql = every_span_sql(id, window.start_ns, window.end_ns);
        let found = read_rows(app, (id, format), &sql, copies, deadline).await?;
        if !found.truncated {
            return Ok(Some(found).filter(|found| found.trace.spans() > 0));
        }
    }
    // What is cut are the latest spans.
    let limit = app.limits.trace_spans + 1;
    let sql = unique_spans_sql(id, window.start_ns, window.end_ns, limit);
    let found = read_rows(app, (id, format), &sql, Copies::new(), deadline).await?;
    Ok(Some(found).filter(|found| found.trace.spans() > 0))
}

/// The end of each span that is stored several times; none once it was read.
type Copies = HashMap<([u8; 8], i8, Text), Option<i64>>;

/// Those of a trace; none where there are too many.
async fn copies(
    app: &App,
    window: &Indexed,
    deadline: Deadline,
) -> Result<Option<Copies>, Problem> {
    const MOST: usize = 10_000;
    let (start_ns, end_ns) = (window.start_ns, window.end_ns);
    let sql = copies_sql(window.trace_id, start_ns, end_ns, MOST);
    let rows: Vec<CopiesRow> = app.db.rows("trace_copies", &sql, deadline).await?;
    let is_all = rows.len() < MOST;
    let copies = rows.into_iter().map(|row| {
        let key = (row.span_id, row.kind_number, row.service_name);
        (key, Some(row.end_ns))
    });
    Ok(is_all.then(|| copies.collect()))
}

async fn read_rows(
    app: &App,
    (id, format): ([u8; 16], Format),
    sql: &Sql,
    mut copies: Copies,
    deadline: Deadline,
) -> Result<Found, Problem> {
    let limits = &app.limits;
    let mut found = Found {
        trace: Encoded::new(format, id),
        truncated: false,
        memory: Share::default(),
    };
    let mut is_refused = false;
    let read = app.db.each_wide("trace", sql, deadline, |row: SpanRow| {
        let bytes = found.trace.bytes();
        if found.trace.spans() >= limits.trace_spans || bytes > limits.trace_bytes {
            found.truncated = true;
            return Flow::Enough;
        }
        if !found.memory.grow_to(app, bytes) {
            is_refused = true;
            return Flow::Enough;
        }
        if !copies.is_empty() && !is_the_one(&mut copies, &row) {
            return Flow::More;
        }
        found.trace.add(row);
        Flow::More
    });
    read.await?;
    match is_refused {
        true => Err(trace::too_much()),
        false => Ok(found),
    }
}

/// Whether a row is the one that counts of its span's copies: the first of those that end last.
fn is_the_one(copies: &mut Copies, row: &SpanRow) -> bool {
    let key = (row.span_id, row.kind(), Text(row.service().to_owned()));
    match copies.get_mut(&key) {
        None => true,
        Some(end_ns) => end_ns.take_if(|end_ns| *end_ns == row.end_ns()).is_some(),
    }
}

/// An answer of more bytes is sent in pieces, and never compressed.
const WHOLE_BYTES: usize = 16 << 20;

fn body(app: &App, found: Found, version: Version, format: Format) -> Result<Body, Problem> {
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
    let (head_length, tail_length) = (head.len(), tail.len());
    let (head, tail) = (Piece::Plain(head.into()), Piece::Plain(tail.into()));
    let pieces = [head].into_iter().chain(pieces).chain([tail]);
    let mut memory = found.memory;
    if length <= WHOLE_BYTES {
        if !memory.grow_to(app, length) {
            return Err(trace::too_much());
        }
        let mut whole = Vec::with_capacity(length + tail_length + head_length);
        for piece in pieces {
            let piece = piece.open().map_err(|error| trace::internal(&error))?;
            whole.extend_from_slice(&piece);
        }
        return Ok(Body::from(whole));
    }
    let pieces = pieces.map(move |piece| {
        // Held until the last piece is sent.
        let _ = &memory;
        piece.open()
    });
    Ok(Body::from_stream(futures_util::stream::iter(pieces)))
}
