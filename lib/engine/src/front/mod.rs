//! The HTTP front: ClickHouse's HTTP interface over the library.

mod auth;
mod blocks;
mod encoding;
mod error;
mod grants;
mod handler;
mod lexer;
mod multipart;
mod native;
mod native_type;
mod patience;
mod refuse;
mod reply;
mod request;
mod run;
mod session;
mod spool;
mod statement;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use spanloom_tls::ServerTls;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use patience::Patient;

pub(crate) use auth::Users;
pub(crate) use handler::Front;
pub(crate) use run::Runner;
pub(crate) use session::Sessions;
pub(crate) use spool::Budget;

/// More connections than this wait in the system's queue.
const MAX_CONNECTIONS: usize = 512;
/// How long a request's head may take to come, and a connection may idle.
const HEAD_PATIENCE: Duration = Duration::from_secs(60);
/// How long a client may take nothing of its answer.
const WRITE_PATIENCE: Duration = Duration::from_secs(300);

/// Serves until `stop`, over TLS if there is any, then ends the queries and the connections.
pub(crate) async fn serve(
    front: Arc<Front>,
    listener: TcpListener,
    tls: Option<ServerTls>,
    stop: CancellationToken,
) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let tasks = TaskTracker::new();
    let close = CancellationToken::new();
    let mut sweep = tokio::time::interval(Duration::from_secs(10));
    loop {
        let slot = tokio::select! {
            () = stop.cancelled() => break,
            slot = connections.clone().acquire_owned() => slot,
        };
        let Ok(slot) = slot else { break };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            _ = sweep.tick() => {
                front.sweep();
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: wait for some to come back.
                tracing::warn!("accept: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let (front, close, tls) = (front.clone(), close.clone(), tls.clone());
        tasks.spawn(async move {
            match tls {
                None => connection(front, stream, close).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => connection(front, stream, close).await,
                    Err(error) => tracing::debug!("a connection did not begin: {error}"),
                },
            }
            drop(slot);
        });
    }
    drop(listener);
    close.cancel();
    front.stop(Duration::from_secs(15)).await;
    tasks.close();
    let _ = tokio::time::timeout(Duration::from_secs(5), tasks.wait()).await;
}

async fn connection<S>(front: Arc<Front>, stream: S, close: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = Patient::new(stream, WRITE_PATIENCE);
    let flushes = stream.flushes();
    let service = service_fn(move |request| {
        let (front, flushes) = (front.clone(), flushes.clone());
        async move { Ok::<_, Infallible>(front.handle(request, flushes).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_headers(128)
        .max_buf_size(256 << 10)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = close.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection ended: {error}");
    }
}
