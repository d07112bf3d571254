//! Where the API server asks: HTTPS, with bounds on connections, bodies and work at a time.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use spanloom_program::Places;
use spanloom_tls::{HTTP1, HTTP2, ServerTls, TlsError};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Answerer;
use super::review::answer;

/// The API server's replicas, each with a connection or two.
const CONNECTIONS_MAX: usize = 256;
/// The longest body. What the API server takes of its clients is 3 MiB.
const BODY_MAX: usize = 3 << 20;
/// Bodies at a time, in bytes: all, and of one address, so that no pod keeps the API server out.
const BODIES_MAX: usize = 16 << 20;
const BODIES_OF_ONE: usize = BODIES_MAX / 4;
/// Reviews that are read at a time: as many as there are threads. What is read of one takes up to ten times its bytes.
const AT_A_TIME: usize = 2;
/// How long a client may take for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take for a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(3);

/// Why the webhook does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error("cannot serve TLS: {0}")]
    Tls(#[from] TlsError),
}

/// A webhook that answers.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    tls: ServerTls,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

struct Shared {
    with: Answerer,
    turns: Semaphore,
    bodies: Bodies,
}

/// The bytes of bodies that are being received.
#[derive(Debug, Default)]
struct Bodies(Mutex<HashMap<IpAddr, usize>>);

/// Part of them; given back on drop.
struct Held<'a> {
    bodies: &'a Bodies,
    from: IpAddr,
    bytes: usize,
}

impl Bodies {
    /// Room for a body from this address; none when too many are being received.
    fn hold(&self, from: IpAddr, bytes: usize) -> Option<Held<'_>> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = held.values().sum();
        let own = held.get(&from).copied().unwrap_or(0);
        if all + bytes > BODIES_MAX || own + bytes > BODIES_OF_ONE {
            return None;
        }
        held.insert(from, own + bytes);
        Some(Held {
            bodies: self,
            from,
            bytes,
        })
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut held = self.bodies.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = held.get_mut(&self.from) {
            *bytes -= self.bytes;
            if *bytes == 0 {
                held.remove(&self.from);
            }
        }
    }
}

impl Server {
    /// Listens and answers, with the certificate in `tls_dir`.
    ///
    /// # Errors
    /// When the address cannot be listened on, or the certificate cannot be used.
    pub async fn start(
        listen: SocketAddr,
        tls_dir: &Path,
        with: Answerer,
    ) -> Result<Self, StartError> {
        let tls = ServerTls::open(tls_dir, &[HTTP2, HTTP1])?;
        let failed = |error| StartError::Listen {
            address: listen,
            error,
        };
        let listener = spanloom_tls::listen(listen).and_then(TcpListener::from_std);
        let listener = listener.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            with,
            turns: Semaphore::new(AT_A_TIME),
            bodies: Bodies::default(),
        });
        let task = tokio::spawn(serve(listener, tls.clone(), shared, stop.clone()));
        Ok(Self {
            address,
            tls,
            stop,
            task,
        })
    }

    /// Where it listens; the port is the real one when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate.
    pub fn tls(&self) -> &ServerTls {
        &self.tls
    }

    /// Accepts no more, and lets the requests that run end for up to `deadline`.
    pub async fn shutdown(mut self, deadline: Duration) {
        self.stop.cancel();
        if tokio::time::timeout(deadline, &mut self.task)
            .await
            .is_err()
        {
            self.task.abort();
        }
    }
}

async fn serve(
    listener: TcpListener,
    tls: ServerTls,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let places = Places::new(CONNECTIONS_MAX);
    let (graceful, connections) = (GracefulShutdown::new(), TaskTracker::new());
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: wait for one to come back.
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let place = places.take(from.ip());
        let watcher = graceful.watcher();
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            tokio::select! {
                () = connection(stream, from.ip(), tls, shared, watcher) => {}
                () = place.lost() => {}
            }
        });
    }
    connections.close();
    graceful.shutdown().await;
    connections.wait().await;
}

async fn connection(
    stream: TcpStream,
    from: IpAddr,
    tls: ServerTls,
    shared: Arc<Shared>,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let stream = match tls.accept(stream).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "a TLS handshake failed");
            return;
        }
    };
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(respond(request, from, &shared).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .max_concurrent_streams(250);
    let connection = builder
        .serve_connection(TokioIo::new(stream), service)
        .into_owned();
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(error = %error, "a connection was closed early");
    }
}

async fn respond(
    request: Request<Incoming>,
    from: IpAddr,
    shared: &Shared,
) -> Response<Full<Bytes>> {
    let metrics = &shared.with.metrics;
    if *request.method() != Method::POST {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only POST is supported");
    }
    let path = request.uri().path().to_owned();
    let unreadable = |status, why: &str| {
        metrics.admitted(None, "Unreadable");
        text(status, why)
    };
    let size = request.body().size_hint().upper();
    let size = size.and_then(|size| usize::try_from(size).ok());
    if size.is_some_and(|size| size > BODY_MAX) {
        let why = format!("the body is longer than {BODY_MAX} bytes");
        return unreadable(StatusCode::PAYLOAD_TOO_LARGE, &why);
    }
    let Some(_held) = shared.bodies.hold(from, size.unwrap_or(BODY_MAX)) else {
        metrics.admitted(None, "Overloaded");
        return text(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many requests at a time",
        );
    };
    let body = Limited::new(request.into_body(), BODY_MAX).collect();
    let body = match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) => {
            let why = format!("cannot read the body: {error}");
            return unreadable(StatusCode::BAD_REQUEST, &why);
        }
        Err(_) => {
            let why = "the body did not arrive in time";
            return unreadable(StatusCode::REQUEST_TIMEOUT, why);
        }
    };
    // It is never closed.
    let _turn = shared.turns.acquire().await;
    let started = Instant::now();
    let answered = answer(&path, &body, &shared.with);
    metrics.took(started.elapsed());
    match answered {
        Ok(review) => {
            let mut response = Response::new(Full::new(Bytes::from(review.to_string())));
            let json = header::HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        }
        Err(error) => unreadable(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *response.status_mut() = status;
    response
}
