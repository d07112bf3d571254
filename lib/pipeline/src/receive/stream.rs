//! A connection's bytes, in plain text or over TLS.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use spanloom_tls::{ServerTls, TlsStream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A connection that was accepted.
pub(super) struct Stream {
    io: Io,
    /// What was read to see what the client speaks, and is still to be read by who serves it.
    ahead: Vec<u8>,
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Greets a client, over TLS where that is wanted.
    pub(super) async fn accept(stream: TcpStream, tls: Option<&ServerTls>) -> io::Result<Self> {
        let io = match tls {
            None => Io::Plain(stream),
            Some(tls) => Io::Tls(Box::new(tls.accept(stream).await?)),
        };
        let ahead = Vec::new();
        Ok(Self { io, ahead })
    }

    /// Whether the client begins with `expected`; waits until that is known.
    pub(super) async fn begins_with(&mut self, expected: &[u8]) -> io::Result<bool> {
        let mut begun = Vec::with_capacity(expected.len());
        loop {
            if !expected.starts_with(&begun) || begun.len() == expected.len() {
                let same = begun == expected;
                self.ahead = begun;
                return Ok(same);
            }
            let mut rest = (&mut *self).take((expected.len() - begun.len()) as u64);
            if rest.read_buf(&mut begun).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Calls a method of whichever stream it is.
macro_rules! either {
    ($stream:expr, $method:ident($($argument:expr),*)) => {
        match &mut $stream.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).$method($($argument),*),
            Io::Tls(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut this = self;
        if !this.ahead.is_empty() {
            let len = this.ahead.len().min(buffer.remaining());
            buffer.put_slice(this.ahead.get(..len).unwrap_or_default());
            this.ahead.drain(..len);
            return Poll::Ready(Ok(()));
        }
        either!(this, poll_read(context, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, poll_write(context, data))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_shutdown(context))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, poll_write_vectored(context, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(stream) => stream.is_write_vectored(),
            Io::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
