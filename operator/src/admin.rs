//! The admin port: `/metrics`, `/healthz`, `/readyz`.
//!
//! Plain HTTP/1.1 and three paths, so it needs no router. Readiness is asked of the caller at each
//! request: what it says is what is true then.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The media type of the OpenMetrics text that `/metrics` answers with.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A scraper sends its request head at once; one that does not is cut off.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// More connections than this are not accepted until one ends: a scraper and two probes need three.
const CONNECTIONS_MAX: usize = 64;

/// Says why the program is not ready, or nothing when it is.
pub type NotReady = dyn Fn() -> Option<String> + Send + Sync;

/// The admin server; stops when dropped or asked to.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Admin {
    /// Listens on `address` and serves `registry` and the answer of `not_ready`.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn start(
        address: SocketAddr,
        registry: Arc<Registry>,
        not_ready: Arc<NotReady>,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, registry, not_ready, stop.clone()));
        Ok(Self {
            address,
            stop,
            task,
        })
    }

    /// Where it listens; the port is the real one when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening and ends open connections.
    pub async fn shutdown(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::warn!(%error, "the admin server ended abnormally");
        }
    }
}

async fn serve(
    listener: TcpListener,
    registry: Arc<Registry>,
    not_ready: Arc<NotReady>,
    stop: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    let (registry, not_ready) = (registry.clone(), not_ready.clone());
                    connections.spawn(async move {
                        let service = service_fn(move |request| {
                            let response = answer(&request, &registry, &*not_ready);
                            async move { Ok::<_, Infallible>(response) }
                        });
                        let served = hyper::server::conn::http1::Builder::new()
                            .timer(TokioTimer::new())
                            .header_read_timeout(HEAD_TIMEOUT)
                            .serve_connection(TokioIo::new(stream), service);
                        if let Err(error) = served.await {
                            tracing::debug!(%error, "an admin connection ended early");
                        }
                    });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: wait for one to come back.
                    tracing::warn!(%error, "cannot accept on the admin port");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

fn answer(
    request: &Request<Incoming>,
    registry: &Registry,
    not_ready: &NotReady,
) -> Response<Full<Bytes>> {
    let text =
        |status: StatusCode, body: String| respond(status, "text/plain; charset=utf-8", body);
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET is served here\n".into(),
        );
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n".into()),
        "/readyz" => match not_ready() {
            None => text(StatusCode::OK, "ok\n".into()),
            Some(reason) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("not ready: {reason}\n"),
            ),
        },
        "/metrics" => {
            let mut body = String::with_capacity(16 * 1024);
            match prometheus_client::encoding::text::encode(&mut body, registry) {
                Ok(()) => respond(StatusCode::OK, OPENMETRICS, body),
                Err(error) => text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!("cannot encode the metrics: {error}\n"),
                ),
            }
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "not found; this port serves /metrics, /healthz and /readyz\n".into(),
        ),
    }
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(content_type),
    );
    response
}
