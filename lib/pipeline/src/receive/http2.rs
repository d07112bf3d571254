//! A connection that speaks gRPC: HTTP/2 without the layers above it, since what a client may send
//! of a call that is refused is decided here.
//!
//! A client sends as much of a call as the stream's window lets it, before it sees that the call is
//! refused. The window is large while there is memory, so that few packets open it, and small when
//! there is not. The rest of a refused call is never asked for.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::http::header::CONTENT_LENGTH;
use ::http::request::Parts;
use ::http::{HeaderMap, Request, Response};
use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Ping, PingPong, RecvStream};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Interval};

use super::answer::AnswerBody;
use super::dialogue;
use super::export::Receiver;
use super::grpc;
use super::http;
use super::stream::Stream;
use crate::config::Connections;

/// What a client that speaks HTTP/2 begins with.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0";
/// How often it is looked whether a client may still send, beside when it did.
const GLANCE: Duration = Duration::from_millis(100);
/// While memory is short a connection's refusals are sent together, so often: most of what one costs is
/// the packet, and its client has to wait for much longer before it comes again.
const REFUSALS: Duration = Duration::from_millis(20);
/// A refused call that goes on for longer is reset, wherever it is.
const DISCARD_TIME: Duration = Duration::from_secs(10);

/// A connection, which ends when its client or its last call has.
pub(super) struct Http2 {
    connection: Connection<Stream, Bytes>,
    receiver: Receiver,
    /// Resolves when the client is not heard of any more.
    lost: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Whether there was a call.
    spoken: Arc<AtomicBool>,
    /// The stream window that the client was told.
    window: u32,
    opened: Instant,
}

impl Http2 {
    /// Greets a client; `None` when it does not greet back.
    pub(super) async fn open(
        stream: Stream,
        receiver: &Receiver,
        spoken: Arc<AtomicBool>,
    ) -> Option<Self> {
        let limits = &receiver.inlet.settings.connections;
        let handshake = builder(limits).handshake(stream);
        let mut connection = tokio::select! {
            greeted = tokio::time::timeout(limits.header_timeout, handshake) => greeted.ok()?.ok()?,
            () = receiver.inlet.doors.closing.cancelled() => return None,
        };
        let lost: Pin<Box<dyn Future<Output = ()> + Send>> = match connection.ping_pong() {
            Some(pings) => Box::pin(lost(
                pings,
                limits.keepalive_interval,
                limits.keepalive_timeout,
            )),
            None => Box::pin(std::future::pending()),
        };
        Some(Self {
            connection,
            receiver: receiver.clone(),
            lost,
            spoken,
            window: limits.http2_stream_window,
            opened: Instant::now(),
        })
    }

    /// Tells the client to call elsewhere; open calls are answered.
    pub(super) fn graceful_shutdown(&mut self) {
        self.connection.graceful_shutdown();
    }

    /// Tells the client how much of a call it may send, when that has changed.
    fn adjust(&mut self) {
        let limits = &self.receiver.inlet.settings.connections;
        let wanted = match self.receiver.inlet.budget.is_strained() {
            true => limits
                .strained_stream_window
                .min(limits.http2_stream_window),
            false => limits.http2_stream_window,
        };
        // While it has not confirmed the last change it is not told of another.
        if wanted != self.window && self.connection.set_initial_window_size(wanted).is_ok() {
            self.window = wanted;
        }
    }
}

impl Future for Http2 {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.lost.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        loop {
            match ready!(this.connection.poll_accept(context)) {
                Some(Ok((request, respond))) => {
                    this.spoken.store(true, Ordering::Relaxed);
                    this.adjust();
                    // From now on the connection is not idle.
                    let busy = this.receiver.line.call();
                    let call = call(this.receiver.clone(), this.opened, request, respond);
                    let call = async move {
                        call.await;
                        drop(busy);
                    };
                    this.receiver.inlet.doors.connections.spawn(call);
                }
                // How it ended is the client's business: its calls were answered or will be
                // repeated.
                Some(Err(_)) | None => return Poll::Ready(()),
            }
        }
    }
}

fn builder(limits: &Connections) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(limits.http2_stream_window)
        .initial_connection_window_size(limits.http2_connection_window)
        .max_frame_size(limits.http2_max_frame)
        .max_concurrent_streams(limits.http2_max_streams)
        .max_header_list_size(limits.max_header_bytes);
    builder
}

/// Resolves when a ping is not answered.
async fn lost(mut pings: PingPong, interval: Duration, patience: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        match tokio::time::timeout(patience, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// When a connection's next refusals are sent.
fn next_refusals(opened: Instant) -> Instant {
    let passed = opened.elapsed().as_millis() / REFUSALS.as_millis() + 1;
    opened + REFUSALS * u32::try_from(passed).unwrap_or(u32::MAX)
}

/// Answers one call of a connection.
async fn call(
    receiver: Receiver,
    opened: Instant,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let (head, stream) = request.into_parts();
    let mut body = CallBody::new(stream, &head.headers);
    if let Some(dialogue) = receiver.point.dialogue(head.uri.path()) {
        return dialogue::hold(&receiver, dialogue, &head.headers, body, respond).await;
    }
    let answer = tokio::select! {
        answer = answer(&receiver, &head, &mut body) => answer,
        // The client takes its call back, or is gone.
        _ = std::future::poll_fn(|context| respond.poll_reset(context)) => return,
    };
    let inlet = &receiver.inlet;
    if !body.is_end_stream() && inlet.budget.is_strained() {
        let at = next_refusals(opened);
        // What comes until then needs no packet of its own to end the call.
        let _ = tokio::time::timeout_at(at, body.discard()).await;
        tokio::time::sleep_until(at).await;
    }
    // A client that is gone needs no answer.
    if send(&mut respond, answer).is_err() || body.is_end_stream() {
        return;
    }
    let rest = tokio::time::timeout(DISCARD_TIME, body.discard());
    tokio::select! {
        _ = rest => {}
        () = inlet.doors.closing.cancelled() => {}
    }
}

/// On a port with both transports the content type says which one a call is.
async fn answer(receiver: &Receiver, head: &Parts, body: &mut CallBody) -> Response<AnswerBody> {
    match receiver.over_grpc() {
        Some(receiver) if grpc::is_grpc(&head.headers) => grpc::answer(&receiver, head, body).await,
        Some(_) => http::answer_parts(receiver, head, body).await,
        None => grpc::answer(receiver, head, body).await,
    }
}

fn send(respond: &mut SendResponse<Bytes>, answer: Response<AnswerBody>) -> Result<(), h2::Error> {
    let (head, body) = answer.into_parts();
    let (data, trailers) = body.into_parts();
    let ends = data.is_none() && trailers.is_none();
    let mut stream = respond.send_response(Response::from_parts(head, ()), ends)?;
    // It is short, so it may wait for the client's window in our memory.
    if let Some(data) = data {
        stream.send_data(data, trailers.is_none())?;
    }
    match trailers {
        Some(trailers) => stream.send_trailers(trailers),
        None => Ok(()),
    }
}

/// The body of a call. When it is dropped before its end, the client is told to stop sending.
pub(super) struct CallBody {
    stream: RecvStream,
    /// What the head says of its length.
    length: Option<u64>,
    /// What was read last. The client may send as much again when more is asked for, and not if
    /// this was enough to refuse the call.
    read: usize,
    glances: Interval,
}

impl CallBody {
    fn new(stream: RecvStream, headers: &HeaderMap) -> Self {
        let length = headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        Self {
            stream,
            length,
            read: 0,
            glances: tokio::time::interval_at(Instant::now() + GLANCE, GLANCE),
        }
    }

    /// Takes what the client may still send, without letting it send more. Only then may the stream
    /// be reset: what comes for one that is forgotten counts as an attack, and after a thousand of
    /// those the connection ends, with all calls that are under way on it.
    async fn discard(&mut self) {
        while self.stream.flow_control().available_capacity() > 0 {
            tokio::select! {
                data = std::future::poll_fn(|context| self.stream.poll_data(context)) => {
                    if !matches!(data, Some(Ok(_))) {
                        return;
                    }
                }
                // The window may have been made narrower.
                _ = self.glances.tick() => {}
            }
        }
    }
}

impl Body for CallBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let read = std::mem::take(&mut self.read);
        if read > 0 {
            self.stream.flow_control().release_capacity(read)?;
        }
        let data = match self.stream.poll_data(context) {
            Poll::Ready(Some(data)) => data?,
            // Trailers say nothing in a request.
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {
                // h2 tells a client of room when some is made, if it is enough to be worth it. Where
                // the window is made narrower after that, the client waits for room we already have.
                while self.glances.poll_tick(context).is_ready() {
                    self.stream.flow_control().release_capacity(0)?;
                }
                return Poll::Pending;
            }
        };
        self.read = data.len();
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}
