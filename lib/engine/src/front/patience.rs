//! A connection that is given up when its other end does not take what is sent to it, and that
//! tells when all of it has left.
//!
//! A client that asks for a long result and reads nothing would otherwise keep a query and its slot
//! for good; and an answer that ends in an error must not be cut before the error's text has gone.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

/// Tells when what was written before has been handed to the system.
#[derive(Clone)]
pub(crate) struct Flushes(watch::Receiver<u64>);

impl Flushes {
    /// Resolves after the next flush. In the body of an answer that is a flush of all its bytes so
    /// far: the server flushes when the body has none to give. A client that takes none of them
    /// ends the connection, and the waiting with it.
    pub(crate) async fn next(&mut self) {
        self.0.mark_unchanged();
        // The connection's end drops the body that waits here, so it needs no notice.
        let _ = self.0.changed().await;
    }
}

/// The connection, with a limit to each pause in its writing.
pub(crate) struct Patient<S> {
    stream: S,
    flushes: watch::Sender<u64>,
    patience: Duration,
    /// Runs while a write waits.
    pause: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    /// Wraps a connection.
    pub(crate) fn new(stream: S, patience: Duration) -> Patient<S> {
        Patient {
            stream,
            flushes: watch::Sender::new(0),
            patience,
            pause: None,
        }
    }

    /// For who must know that what was written has left.
    pub(crate) fn flushes(&self) -> Flushes {
        Flushes(self.flushes.subscribe())
    }

    /// Passes an outcome on, unless it has been pending for too long.
    fn limited<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.pause = None;
            return outcome;
        }
        let end = Instant::now() + self.patience;
        let pause = self
            .pause
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        ready!(pause.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client stopped reading",
        )))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.limited(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.limited(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        if outcome.is_ready() {
            self.flushes
                .send_modify(|count| *count = count.wrapping_add(1));
        }
        self.limited(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(context);
        self.limited(context, outcome)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn given_up() {
        let (near, mut far) = tokio::io::duplex(8);
        let mut near = Patient::new(near, Duration::from_millis(30));
        near.write_all(b"12345678").await.unwrap();
        let error = near.write_all(b"9").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // Each pause counts for itself.
        let mut buffer = [0_u8; 8];
        far.read_exact(&mut buffer).await.unwrap();
        near.write_all(b"9").await.unwrap();
    }

    #[tokio::test]
    async fn flushes_are_told() {
        let (near, _far) = tokio::io::duplex(8);
        let mut near = Patient::new(near, Duration::from_secs(60));
        let mut flushes = near.flushes();
        // One from before does not count.
        near.flush().await.unwrap();
        let mut next = std::pin::pin!(flushes.next());
        assert!(futures_util::poll!(&mut next).is_pending());
        near.flush().await.unwrap();
        next.await;
    }
}
