//! Answers: short ones whole, with their status; long ones as they come out of the engine, with
//! memory for a few pieces only.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::encoding::{Coding, Encoder};
use super::error::ChError;
use super::native::Reframer;
use super::patience::Flushes;
use super::run::Runner;
use crate::ffi::Finished;

/// The body of every answer.
pub(crate) type ReplyBody = UnsyncBoxBody<Bytes, io::Error>;

/// An answer that is longer is sent while it is made.
const WHOLE: usize = 256 << 10;
/// How much is read from the engine at a time.
const PIECE: usize = 256 << 10;

/// What is done to the bytes of a result.
pub(crate) struct Shape {
    /// The framing of Native blocks for a client of this version.
    pub(crate) reframe: Option<u64>,
    /// ClickHouse's compressed blocks.
    pub(crate) compress: bool,
    /// HTTP's coding.
    pub(crate) coding: Option<Coding>,
    /// The result is collected before it is sent, to this many bytes.
    pub(crate) collect: Option<usize>,
}

/// A query under way. Dropping it before its end kills it.
pub(crate) struct Running {
    /// Where its rows come out.
    pub(crate) rows: pipe::Receiver,
    /// How it ended.
    pub(crate) outcome: oneshot::Receiver<Result<Finished, ChError>>,
    /// Its name.
    pub(crate) id: String,
    /// Cancelled when it has ended.
    pub(crate) ended: CancellationToken,
    /// Who can kill it.
    pub(crate) runner: Arc<Runner>,
    /// When it began.
    pub(crate) since: Instant,
}

impl Running {
    async fn finish(&mut self) -> Result<Finished, ChError> {
        (&mut self.outcome).await.unwrap_or_else(|_| {
            Err(ChError::new(
                super::error::code::LOGICAL_ERROR,
                "the query's thread is gone",
            ))
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended.is_cancelled() {
            return;
        }
        let (runner, id, ended) = (self.runner.clone(), self.id.clone(), self.ended.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { runner.kill_until_ended(&id, &ended).await });
        }
    }
}

/// The layers a result goes through.
struct Layers {
    reframer: Option<Reframer>,
    compress: bool,
    encoder: Encoder,
    scratch: Vec<u8>,
}

impl Layers {
    fn new(shape: &Shape) -> io::Result<Layers> {
        Ok(Layers {
            reframer: shape.reframe.map(Reframer::new),
            compress: shape.compress,
            encoder: Encoder::new(shape.coding)?,
            scratch: Vec::new(),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let framed;
        let bytes = match &mut self.reframer {
            Some(reframer) => {
                framed = reframer.push(bytes)?;
                framed.as_slice()
            }
            None => bytes,
        };
        self.write_plain(bytes)
    }

    /// Past the framing of blocks: for the text of a late error.
    fn write_plain(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.compress {
            return self.encoder.write(bytes);
        }
        self.scratch.clear();
        super::blocks::compress(bytes, &mut self.scratch);
        self.encoder.write(&self.scratch)
    }

    fn finish(&mut self) -> io::Result<Vec<u8>> {
        if let Some(mut reframer) = self.reframer.take() {
            let rest = reframer.finish()?;
            self.write_plain(&rest)?;
        }
        std::mem::replace(&mut self.encoder, Encoder::Plain(Vec::new())).finish()
    }
}

/// Makes the answer of a query that writes rows, or of any other.
pub(crate) async fn answer(
    mut running: Running,
    shape: Shape,
    mut headers: HeaderMap,
    flushes: Flushes,
) -> Result<Response<ReplyBody>, ChError> {
    let broken = |e: io::Error| {
        ChError::new(
            super::error::code::LOGICAL_ERROR,
            format!("the result was lost: {e}"),
        )
    };
    let mut layers = Layers::new(&shape).map_err(broken)?;
    let most = shape.collect.unwrap_or(WHOLE);
    let mut buffer = vec![0_u8; PIECE];
    let mut made = Vec::new();
    loop {
        let n = running.rows.read(&mut buffer).await.map_err(broken)?;
        if n == 0 {
            let finished = running.finish().await?;
            made.extend(layers.finish().map_err(broken)?);
            summary(&mut headers, &finished, running.since);
            if let Some(coding) = shape.coding {
                headers.insert(
                    http::header::CONTENT_ENCODING,
                    HeaderValue::from_static(coding.name()),
                );
            }
            return Ok(whole(StatusCode::OK, headers, made.into()));
        }
        layers
            .write(buffer.get(..n).unwrap_or_default())
            .map_err(broken)?;
        made.extend(layers.encoder.take(false).map_err(broken)?);
        if made.len() >= most {
            break;
        }
    }
    if shape.collect.is_some() {
        return Err(ChError::new(
            super::error::code::MEMORY_LIMIT_EXCEEDED,
            format!(
                "the result is larger than {most} bytes; send the query without \
                     wait_end_of_query"
            ),
        ));
    }
    if let Some(coding) = shape.coding {
        headers.insert(
            http::header::CONTENT_ENCODING,
            HeaderValue::from_static(coding.name()),
        );
    }
    let tag = exception_tag();
    if let Ok(value) = HeaderValue::from_str(&tag) {
        headers.insert(HeaderName::from_static("x-clickhouse-exception-tag"), value);
    }
    let first = Bytes::from(made);
    let stream = Rows {
        running,
        layers,
        buffer,
        tag,
        flushes,
        state: State::First(first),
    }
    .stream();
    let mut response = Response::new(StreamBody::new(stream).boxed_unsync());
    *response.headers_mut() = headers;
    Ok(response)
}

/// A long answer.
struct Rows {
    running: Running,
    layers: Layers,
    buffer: Vec<u8>,
    tag: String,
    flushes: Flushes,
    state: State,
}

/// How far a long answer has come.
enum State {
    /// These bytes were made before the status was sent.
    First(Bytes),
    /// Rows come.
    Middle,
    /// The last bytes have been given.
    End,
    /// The text of an error has been given; the connection is to be cut.
    Cut,
}

type Frames = Pin<Box<dyn Stream<Item = io::Result<Frame<Bytes>>> + Send>>;

impl Rows {
    fn stream(self) -> Frames {
        Box::pin(futures_util::stream::unfold(
            Some(self),
            |state| async move {
                let mut rows = state?;
                match rows.next().await {
                    Ok(Some(bytes)) => Some((Ok(Frame::data(bytes)), Some(rows))),
                    Ok(None) => None,
                    Err(error) => Some((Err(error), None)),
                }
            },
        ))
    }

    /// The next piece; an error drops the connection, so that the client sees the answer is not
    /// whole.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        match std::mem::replace(&mut self.state, State::Middle) {
            State::First(first) => return Ok(Some(first)),
            State::Middle => {}
            State::End => return Ok(None),
            State::Cut => {
                // The cut throws away what has not left yet.
                self.flushes.next().await;
                return Err(io::Error::other("the query failed after its first rows"));
            }
        }
        loop {
            let n = self.running.rows.read(&mut self.buffer).await?;
            if n == 0 {
                return self.end().await;
            }
            self.layers
                .write(self.buffer.get(..n).unwrap_or_default())?;
            let bytes = self.layers.encoder.take(false)?;
            if !bytes.is_empty() {
                return Ok(Some(bytes.into()));
            }
        }
    }

    /// What follows the rows: the coding's last bytes, or why there are no more rows.
    async fn end(&mut self) -> io::Result<Option<Bytes>> {
        let bytes = match self.running.finish().await {
            Ok(_) => {
                self.state = State::End;
                self.layers.finish()?
            }
            Err(error) => {
                self.state = State::Cut;
                // In one piece, and in one compressed block: clients look for it there.
                let mut bytes = self.layers.encoder.take(true)?;
                self.layers
                    .write_plain(late_error(&self.tag, &error.text).as_bytes())?;
                bytes.extend(self.layers.encoder.take(true)?);
                bytes
            }
        };
        Ok(Some(bytes.into()).filter(|bytes: &Bytes| !bytes.is_empty()))
    }
}

fn exception_tag() -> String {
    let letters = b"abcdefghijklmnopqrstuvwxyz";
    (0..16)
        .map(|_| {
            letters
                .get(rand::random_range(0..letters.len()))
                .copied()
                .unwrap_or(b'a') as char
        })
        .collect()
}

/// How an error is told after the status has been sent.
fn late_error(tag: &str, text: &str) -> String {
    let text = format!("{}\n", text.trim_end());
    let length = text.len();
    format!("\r\n__exception__\r\n{tag}\r\n{text}{length} {tag}\r\n__exception__\r\n")
}

/// The header that says how much was read and written.
fn summary(headers: &mut HeaderMap, finished: &Finished, since: Instant) {
    let text = format!(
        "{{\"read_rows\":\"{}\",\"read_bytes\":\"{}\",\"written_rows\":\"{}\",\
         \"written_bytes\":\"{}\",\"total_rows_to_read\":\"0\",\"result_rows\":\"{}\",\
         \"result_bytes\":\"{}\",\"elapsed_ns\":\"{}\"}}",
        finished.rows_read,
        finished.bytes_read,
        finished.rows_written,
        finished.bytes_written,
        finished.rows_written,
        finished.bytes_written,
        since.elapsed().as_nanos(),
    );
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert(HeaderName::from_static("x-clickhouse-summary"), value);
    }
}

/// An answer whose bytes are all there.
pub(crate) fn whole(status: StatusCode, headers: HeaderMap, body: Bytes) -> Response<ReplyBody> {
    let body = Full::new(body)
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// An error as an answer.
pub(crate) fn failure(error: &ChError, mut headers: HeaderMap) -> Response<ReplyBody> {
    headers.insert(
        HeaderName::from_static("x-clickhouse-exception-code"),
        error.code.into(),
    );
    headers.insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=UTF-8"),
    );
    let status = error.status();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(http::header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    whole(status, headers, format!("{}\n", error.text).into())
}
