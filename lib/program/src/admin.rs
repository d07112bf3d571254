//! The admin port: `/metrics`, `/healthz`, `/readyz`, and what a program adds.
//!
//! Plain HTTP/1.1 and a handful of paths, so it needs no router. Readiness is asked of the caller at each
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

use crate::Places;

/// The media type of the OpenMetrics text that `/metrics` answers with.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A scraper sends its request head at once; one that does not is cut off.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A scraper and two probes need three.
const CONNECTIONS_MAX: usize = 64;

/// Says why the program is not ready, or nothing when it is.
type NotReady = dyn Fn() -> Option<String> + Send + Sync;

/// What `/readyz` asks.
#[derive(Clone)]
pub struct Health {
    not_ready: Arc<NotReady>,
    impairment: Arc<NotReady>,
}

impl Health {
    /// Asks `not_ready`.
    pub fn new(not_ready: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        Self {
            not_ready: Arc::new(not_ready),
            impairment: Arc::new(|| None),
        }
    }

    /// Asks also for what is wrong with a program that is ready all the same: those who send to it need its
    /// answers.
    pub fn impaired_by(
        mut self,
        impairment: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.impairment = Arc::new(impairment);
        self
    }

    /// Another reason to be not ready, which is asked for first.
    pub fn unless(self, not_ready: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        let before = self.not_ready;
        Self {
            not_ready: Arc::new(move || not_ready().or_else(|| before())),
            ..self
        }
    }

    /// Why the program is not ready.
    pub fn not_ready(&self) -> Option<String> {
        (self.not_ready)()
    }

    /// The body of `/readyz` when the program is ready.
    pub fn ready_body(&self) -> String {
        match (self.impairment)() {
            None => "ok\n".to_owned(),
            Some(impairment) => format!("ok, but {impairment}\n"),
        }
    }
}

/// A page of a program's own: its JSON, or why there is none.
type Json = dyn Fn() -> Result<String, String> + Send + Sync;

/// What the admin port answers with.
pub struct Pages {
    registry: Arc<Registry>,
    health: Health,
    own: Vec<(&'static str, Box<Json>)>,
}

impl Pages {
    /// The metrics of `registry` and the answers of `health`.
    pub fn new(registry: Arc<Registry>, health: Health) -> Self {
        Self {
            registry,
            health,
            own: Vec::new(),
        }
    }

    /// With one more page at `path`; `json` makes it at each request.
    pub fn json(
        mut self,
        path: &'static str,
        json: impl Fn() -> Result<String, String> + Send + Sync + 'static,
    ) -> Self {
        self.own.push((path, Box::new(json)));
        self
    }
}

/// The admin server; stops when dropped or asked to.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Admin {
    /// Listens on `address` and serves `pages`.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn start(address: SocketAddr, pages: Pages) -> std::io::Result<Self> {
        let listener = TcpListener::from_std(spanloom_tls::listen(address)?)?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, Arc::new(pages), stop.clone()));
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
            tracing::warn!(%error, "the admin server exited unexpectedly");
        }
    }
}

async fn serve(listener: TcpListener, pages: Arc<Pages>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    let places = Places::new(CONNECTIONS_MAX);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    let pages = Arc::clone(&pages);
                    let place = places.take(from.ip());
                    connections.spawn(async move {
                        let service = service_fn(move |request| {
                            let response = answer(&request, &pages);
                            async move { Ok::<_, Infallible>(response) }
                        });
                        let served = hyper::server::conn::http1::Builder::new()
                            .timer(TokioTimer::new())
                            .header_read_timeout(HEAD_TIMEOUT)
                            .serve_connection(TokioIo::new(stream), service);
                        tokio::select! {
                            served = served => if let Err(error) = served {
                                tracing::debug!(%error, "a connection to the admin port was closed early");
                            },
                            () = place.lost() => {}
                        }
                    });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: wait for one to come back.
                    tracing::warn!(%error, "cannot accept connections on the admin port");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

fn answer(request: &Request<Incoming>, pages: &Pages) -> Response<Full<Bytes>> {
    let text =
        |status: StatusCode, body: String| respond(status, "text/plain; charset=utf-8", body);
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET is supported\n".into(),
        );
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n".into()),
        "/readyz" => match pages.health.not_ready() {
            None => text(StatusCode::OK, pages.health.ready_body()),
            Some(reason) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("not ready: {reason}\n"),
            ),
        },
        "/metrics" => {
            let mut body = String::with_capacity(16 * 1024);
            match prometheus_client::encoding::text::encode(&mut body, &pages.registry) {
                Ok(()) => respond(StatusCode::OK, OPENMETRICS, body),
                Err(error) => text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!("cannot encode the metrics: {error}\n"),
                ),
            }
        }
        path => match pages.own.iter().find(|(own, _)| *own == path) {
            Some((_, json)) => match json() {
                Ok(body) => respond(StatusCode::OK, "application/json", body),
                Err(reason) => text(StatusCode::INTERNAL_SERVER_ERROR, reason + "\n"),
            },
            None => text(StatusCode::NOT_FOUND, not_found(pages)),
        },
    }
}

fn not_found(pages: &Pages) -> String {
    let own: String = pages
        .own
        .iter()
        .map(|(path, _)| format!(", {path}"))
        .collect();
    format!("not found; this port serves /metrics, /healthz, /readyz{own}\n")
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn what_it_serves() {
        let pages = Pages::new(
            Arc::new(Registry::default()),
            Health::new(|| Some("no pods yet".to_owned())),
        )
        .json("/status", || Ok("{}".to_owned()))
        .json("/broken", || Err("cannot encode it".to_owned()));
        let admin = Admin::start(([127, 0, 0, 1], 0).into(), pages)
            .await
            .unwrap();
        for (path, status, body) in [
            ("/healthz", 200, "ok\n"),
            ("/readyz", 503, "not ready: no pods yet\n"),
            ("/metrics", 200, "# EOF\n"),
            ("/status", 200, "{}"),
            ("/broken", 500, "cannot encode it\n"),
            (
                "/",
                404,
                "not found; this port serves /metrics, /healthz, /readyz, /status, /broken\n",
            ),
        ] {
            let answer = get(admin.address(), path).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{answer}"
            );
            assert!(
                answer.ends_with(&format!("\r\n\r\n{body}")),
                "{path}: {answer}"
            );
        }
        admin.shutdown().await;
    }

    #[tokio::test]
    async fn a_program_that_is_ready_says_what_is_wrong_all_the_same() {
        let health = Health::new(|| None).impaired_by(|| Some("the disk is full".to_owned()));
        let pages = Pages::new(Arc::default(), health.clone());
        let admin = Admin::start(([127, 0, 0, 1], 0).into(), pages)
            .await
            .unwrap();
        let answer = get(admin.address(), "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.ends_with("ok, but the disk is full\n"), "{answer}");
        admin.shutdown().await;
        let ending = health.unless(|| Some("ending".to_owned()));
        assert_eq!(ending.not_ready().as_deref(), Some("ending"));
    }

    #[tokio::test]
    async fn connections_that_say_nothing_leave_room_for_others() {
        let pages = Pages::new(Arc::new(Registry::default()), Health::new(|| None));
        let admin = Admin::start(([127, 0, 0, 1], 0).into(), pages)
            .await
            .unwrap();
        let mut silent = Vec::new();
        for _ in 0..3 * CONNECTIONS_MAX {
            silent.push(TcpStream::connect(admin.address()).await.unwrap());
        }
        let answer = get(admin.address(), "/healthz");
        let answer = tokio::time::timeout(HEAD_TIMEOUT / 2, answer).await;
        let answer = answer.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        admin.shutdown().await;
    }
}
