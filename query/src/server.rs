//! The server: accepts connections up to a bound, and ends them in order. The admin port, where
//! there is one, is served beside the API's and a little longer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry;
use spanloom_program::{Health, Place, Places};
use spanloom_store::access::AccessError;
use spanloom_tls::{HTTP1, HTTP2, ServerTls, TlsError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::App;
use crate::auth::{self, Tokens};
use crate::config::QueryConfig;
use crate::db::Db;
use crate::health;
use crate::metrics::Metrics;
use crate::router::router;

/// A client sends its request's head at once; one that does not is cut off.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// The kubelet, Prometheus and the operator, each with a connection or two.
const ADMIN_CONNECTIONS: usize = 32;

/// What a port does with a connection for which there is no place.
#[derive(Debug, Clone)]
enum Room {
    /// It waits until one ends.
    Waits(Arc<Semaphore>),
    /// Another ends for it: who asks how the process is must not wait.
    Makes(Arc<Places>),
}

/// A connection's place on its port.
#[derive(Debug)]
enum Slot {
    Kept(#[expect(dead_code, reason = "held until the connection ends")] OwnedSemaphorePermit),
    Lent(Place),
}

impl Slot {
    /// Waits until another connection has the place.
    async fn lost(&self) {
        match self {
            Self::Kept(_) => std::future::pending().await,
            Self::Lent(place) => place.lost().await,
        }
    }
}

/// Why the server does not start.
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
    /// The credentials, or the authorities that ClickHouse's certificate is checked against, cannot be read.
    #[error("cannot connect to ClickHouse: {0}")]
    Store(AccessError),
}

/// A query service that runs.
#[derive(Debug)]
pub struct Server {
    api: Port,
    admin: Option<Port>,
    draining: Arc<AtomicBool>,
}

/// A port that is served.
#[derive(Debug)]
struct Port {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    /// Listens and serves. ClickHouse need not be there yet. `registry` is what `/metrics` shows
    /// and should hold `metrics`; `health` is what `/readyz` asks besides ClickHouse.
    ///
    /// # Errors
    /// When an address cannot be listened on, or the certificate cannot be used.
    pub async fn start(
        config: QueryConfig,
        metrics: Metrics,
        registry: Arc<Registry>,
        health: Health,
    ) -> Result<Self, StartError> {
        let room = Room::Waits(Arc::new(Semaphore::new(config.limits.connections)));
        let draining = Arc::new(AtomicBool::new(false));
        let ending = Arc::clone(&draining);
        let health = health.unless(move || {
            let is_ending = ending.load(Ordering::Relaxed);
            is_ending.then(|| "shutting down".to_owned())
        });
        let db = Db::new(&config.clickhouse, config.limits.clone(), metrics.clone())
            .map_err(StartError::Store)?;
        let app = App::new(db, config.limits, metrics.clone(), registry, health);
        let app = Arc::new(app);
        let mut routes = router(app.clone());
        if let Some(directory) = config.access.tokens_dir {
            let tokens = Arc::new(Tokens::open(directory, metrics));
            // Around the routes, not on them: a refused request must not learn which there are.
            routes = Router::new()
                .fallback_service(routes)
                .layer(axum::middleware::from_fn_with_state(tokens, auth::check));
        }
        let tls = config.access.tls_dir.as_deref();
        let tls = tls.map(|directory| ServerTls::open(directory, &[HTTP2, HTTP1]));
        let api = Port::open(config.listen, routes, tls.transpose()?, room).await?;
        let admin = match config.access.admin {
            None => None,
            Some(address) => {
                let room = Room::Makes(Places::new(ADMIN_CONNECTIONS));
                Some(Port::open(address, health::admin(app), None, room).await?)
            }
        };
        Ok(Self {
            api,
            admin,
            draining,
        })
    }

    /// Where it listens; the port is the real one when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.api.address
    }

    /// Where the admin port is, if there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|port| port.address)
    }

    /// From now on `/readyz` says that the server is ending; requests are still answered, since
    /// those who send them learn of it later.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Accepts no more, lets the requests that run end, and cuts them off after `deadline`.
    pub async fn shutdown(self, deadline: Duration) {
        self.drain();
        self.api.close(deadline).await;
        if let Some(admin) = self.admin {
            // Whoever asks how the process is has been answered, or will be by its end.
            admin.close(Duration::from_secs(1)).await;
        }
    }
}

impl Port {
    async fn open(
        asked: SocketAddr,
        routes: Router,
        tls: Option<ServerTls>,
        room: Room,
    ) -> Result<Self, StartError> {
        let failed = |error| StartError::Listen {
            address: asked,
            error,
        };
        let listener = spanloom_tls::listen(asked).and_then(TcpListener::from_std);
        let listener = listener.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, routes, tls, room, stop.clone()));
        Ok(Self {
            address,
            stop,
            task,
        })
    }

    async fn close(mut self, deadline: Duration) {
        self.stop.cancel();
        match tokio::time::timeout(deadline, &mut self.task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the query server exited unexpectedly"),
            Err(_) => {
                tracing::warn!(address = %self.address, "requests were aborted at the end of the \
                                                         drain timeout");
                self.task.abort();
            }
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    listener: TcpListener,
    routes: Router,
    tls: Option<ServerTls>,
    room: Room,
    stop: CancellationToken,
) {
    let graceful = GracefulShutdown::new();
    // Dropped with this task, so that no connection outlives it.
    let cut_off = CancellationToken::new();
    let _cut_off = cut_off.clone().drop_guard();
    let tracker = TaskTracker::new();
    while let Some((stream, slot)) = accept(&listener, &room, &stop).await {
        let (routes, tls, watcher) = (routes.clone(), tls.clone(), graceful.watcher());
        let (cut_off, stop) = (cut_off.clone(), stop.clone());
        tracker.spawn(async move {
            tokio::select! {
                () = converse(stream, routes, tls, watcher, &stop) => {}
                () = slot.lost() => {}
                () = cut_off.cancelled() => {}
            }
        });
    }
    drop(listener);
    graceful.shutdown().await;
    tracker.close();
    tracker.wait().await;
}

/// Answers a connection's requests until it ends.
async fn converse(
    stream: TcpStream,
    routes: Router,
    tls: Option<ServerTls>,
    watcher: Watcher,
    stop: &CancellationToken,
) {
    let ended = match tls {
        None => requests(stream, routes, watcher).await,
        Some(tls) => {
            let greeted = tokio::select! {
                greeted = tls.accept(stream) => greeted,
                // Nothing has been asked yet.
                () = stop.cancelled() => return,
            };
            match greeted {
                Ok(stream) => requests(stream, routes, watcher).await,
                Err(error) => Err(error.into()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error, "a connection was closed early");
    }
}

async fn requests<S>(
    stream: S,
    routes: Router,
    watcher: Watcher,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT);
    builder.http2().timer(TokioTimer::new());
    let service = TowerToHyperService::new(routes);
    let connection = builder
        .serve_connection(TokioIo::new(stream), service)
        .into_owned();
    watcher.watch(connection).await
}

/// The next connection with its slot; none when it is time to stop.
async fn accept(
    listener: &TcpListener,
    room: &Room,
    stop: &CancellationToken,
) -> Option<(TcpStream, Slot)> {
    loop {
        let accepted = async {
            Ok(match room {
                Room::Waits(slots) => {
                    let slot = slots.clone().acquire_owned().await;
                    let slot = slot.map_err(std::io::Error::other)?;
                    let (stream, _) = listener.accept().await?;
                    (stream, Slot::Kept(slot))
                }
                Room::Makes(places) => {
                    let (stream, from) = listener.accept().await?;
                    (stream, Slot::Lent(places.take(from.ip())))
                }
            })
        };
        let accepted: std::io::Result<_> = tokio::select! {
            () = stop.cancelled() => return None,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, slot)) => {
                // Answers are written whole; waiting for more to send only delays them.
                let _ = stream.set_nodelay(true);
                return Some((stream, slot));
            }
            Err(error) => {
                // Out of file descriptors, most likely: wait for one to come back.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
