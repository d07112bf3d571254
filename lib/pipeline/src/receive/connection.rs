//! Connections: accepted, limited in number, age and silence, and closed in good order.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::{self, Builder};
use tokio::net::TcpListener;

use super::export::{Point, Receiver};
use super::http2::{self, Http2};
use super::slots::Slots;
use super::stream::Stream;
use super::{Inlet, Origin, Transport, http, mixed};
use crate::codec::Codings;
use crate::config::{Connections, Listener};
use crate::server::StartError;

/// A listener's socket.
pub(crate) struct Bound {
    /// None while a patient listener's address is taken.
    socket: Option<TcpListener>,
    address: SocketAddr,
    point: Arc<Point>,
}

/// How often a patient listener tries again.
const BIND_EVERY: Duration = Duration::from_secs(1);

impl Bound {
    pub(crate) fn bind(listener: &Listener, codings: &mut Codings) -> Result<Self, StartError> {
        let (socket, address) = match socket(listener.address) {
            Ok((socket, address)) => (Some(socket), address),
            Err(error) if listener.is_patient => {
                let address = listener.address;
                tracing::warn!(%address, %error, "the address cannot be listened on; trying again until it can");
                (None, address)
            }
            Err(error) => {
                return Err(StartError::Listen {
                    transport: listener.transport.name(),
                    address: listener.address,
                    error,
                });
            }
        };
        Ok(Self {
            socket,
            address,
            point: Arc::new(Point::new(listener, codings)),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn origin(&self) -> Origin {
        self.point.origin
    }

    /// Accepts connections until the pipeline closes.
    pub(crate) async fn serve(mut self, inlet: Arc<Inlet>) {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => tokio::select! {
                socket = bind_when_free(self.address, &inlet) => socket,
                () = inlet.doors.closing.cancelled() => return,
            },
        };
        let limits = &inlet.settings.connections;
        let slots = Slots::new(limits.max);
        let builder = Arc::new(builder(limits));
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                () = inlet.doors.closing.cancelled() => return,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    // Out of file descriptors, most likely: let some connections end.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Some(slot) = slots.admit(address.ip().to_canonical()) else {
                inlet.metrics.connections_refused.inc();
                continue;
            };
            // Answers are small and wait for nothing. Failing is only slower.
            let _ = stream.set_nodelay(true);
            let receiver = Receiver {
                inlet: Arc::clone(&inlet),
                point: Arc::clone(&self.point),
                address,
                line: Arc::clone(&slot.line),
            };
            let builder = Arc::clone(&builder);
            inlet.doors.connections.spawn(async move {
                let metrics = &receiver.inlet.metrics;
                metrics.connections.inc();
                let all = async {
                    if let Some(stream) = greeted(stream, &receiver).await {
                        connection(stream, &receiver, &builder).await;
                    }
                };
                tokio::select! {
                    () = all => {}
                    () = slot.line.closed.cancelled() => {
                        metrics.connections_closed.inc();
                    }
                }
                metrics.connections.dec();
                drop(slot);
            });
        }
    }
}

fn socket(address: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    let socket = spanloom_tls::listen(address)?;
    let address = socket.local_addr()?;
    Ok((TcpListener::from_std(socket)?, address))
}

/// Listens as soon as whoever has the address gives it up.
async fn bind_when_free(address: SocketAddr, inlet: &Inlet) -> TcpListener {
    loop {
        inlet.metrics.bind_failures.inc();
        tokio::time::sleep(BIND_EVERY).await;
        if let Ok((socket, _)) = socket(address) {
            tracing::info!(%address, "listening");
            return socket;
        }
    }
}

/// A connection whose client has made itself known as far as TLS wants it.
async fn greeted(stream: tokio::net::TcpStream, receiver: &Receiver) -> Option<Stream> {
    let patience = receiver.inlet.settings.connections.header_timeout;
    let accept = Stream::accept(stream, receiver.point.tls.as_ref());
    let accepted = tokio::select! {
        accepted = tokio::time::timeout(patience, accept) => accepted.ok()?,
        () = receiver.inlet.doors.closing.cancelled() => return None,
    };
    match accepted {
        Ok(stream) => Some(stream),
        Err(error) => {
            tracing::debug!(peer = %receiver.address, %error, "TLS handshake with a client failed");
            None
        }
    }
}

fn builder(limits: &Connections) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.max_header_bytes.max(8192) as usize)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits.http2_stream_window)
        .initial_connection_window_size(limits.http2_connection_window)
        .max_frame_size(limits.http2_max_frame)
        .max_concurrent_streams(limits.http2_max_streams)
        .max_header_list_size(limits.max_header_bytes)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout);
    builder
}

/// Serves a connection until it ends.
async fn connection(stream: Stream, receiver: &Receiver, builder: &Builder<TokioExecutor>) {
    let said = Said::default();
    let mut stream = stream;
    let transport = receiver.point.origin.transport;
    let is_http2 = if transport == Transport::Grpc || receiver.point.beside.is_some() {
        match begins(&mut stream, receiver).await {
            Some(is_http2) => is_http2,
            None => return,
        }
    } else {
        false
    };
    match transport {
        Transport::Grpc if !is_http2 => mixed::http_on_grpc(stream, receiver).await,
        _ if is_http2 => {
            said.http2.store(true, Ordering::Relaxed);
            let Some(connection) = Http2::open(stream, receiver, Arc::clone(&said.anything)).await
            else {
                return;
            };
            let wind_down = |connection: Pin<&mut Http2>| connection.get_mut().graceful_shutdown();
            watch(pin!(connection), wind_down, receiver, &said).await;
        }
        _ => {
            let service = service_fn(|request: Request<Incoming>| {
                said.anything.store(true, Ordering::Relaxed);
                let http2 = request.version() == Version::HTTP_2;
                said.http2.fetch_or(http2, Ordering::Relaxed);
                let receiver = receiver.clone();
                async move { Ok::<_, Infallible>(http::answer(&receiver, request).await) }
            });
            let connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
            watch(
                connection,
                auto::Connection::graceful_shutdown,
                receiver,
                &said,
            )
            .await;
        }
    }
}

/// Whether a client speaks HTTP/2; `None` when it says nothing in time.
async fn begins(stream: &mut Stream, receiver: &Receiver) -> Option<bool> {
    let patience = receiver.inlet.settings.connections.header_timeout;
    let begins = stream.begins_with(http2::PREFACE);
    tokio::select! {
        begins = tokio::time::timeout(patience, begins) => begins.ok()?.ok(),
        () = receiver.inlet.doors.closing.cancelled() => None,
    }
}

/// What a connection has shown of itself.
#[derive(Default)]
struct Said {
    /// There was a request.
    anything: Arc<AtomicBool>,
    /// It speaks HTTP/2.
    http2: AtomicBool,
}

/// Drives a connection until it ends: by itself, by its age, in silence, or with the pipeline.
async fn watch<C: Future>(
    mut connection: Pin<&mut C>,
    wind_down: impl FnOnce(Pin<&mut C>),
    receiver: &Receiver,
    said: &Said,
) {
    let limits = &receiver.inlet.settings.connections;
    let mut silence = pin!(tokio::time::sleep(limits.header_timeout));
    let mut age = pin!(tokio::time::sleep(
        limits.max_age.map_or(Duration::MAX, jittered)
    ));
    let mut silent = true;
    let doors = &receiver.inlet.doors;
    // Whoever comes when it is known has no better place to go: it stays until the end.
    let mut asked = doors.leaving.is_cancelled();
    loop {
        tokio::select! {
            // It ended. How is the client's business: its requests were answered or will be
            // repeated.
            _ = connection.as_mut() => return,
            () = silence.as_mut(), if silent => {
                silent = false;
                if !said.anything.load(Ordering::Relaxed) {
                    return;
                }
            }
            () = age.as_mut() => break,
            () = doors.leaving.cancelled(), if !asked => {
                asked = true;
                if said.http2.load(Ordering::Relaxed) {
                    break;
                }
            }
            () = doors.closing.cancelled() => break,
        }
    }
    wind_down(connection.as_mut());
    // At the pipeline's end its own deadline counts; a request is answered before that or never.
    let _ = tokio::time::timeout(limits.max_age_grace, connection).await;
}

/// A tenth more or less, so that connections that began together do not end together.
fn jittered(age: Duration) -> Duration {
    age.mul_f64(rand::random_range(0.9..=1.1))
}
