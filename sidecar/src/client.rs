//! One connection to a collector: gRPC over HTTP/2 over TLS, framed here, since the two methods are all that is
//! ever called.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use h2::client::{Connection, SendRequest};
use h2::{Ping, PingPong, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use rustls::pki_types::ServerName;
use spanloom_tls::{ClientTls, HTTP2};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a connection may take to be made, with its handshakes.
const DIAL: Duration = Duration::from_secs(3);
/// How often a connection is asked whether it leads anywhere, and how long the answer may take.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_PATIENCE: Duration = Duration::from_secs(10);
/// How long the answer to a unary call may be, and a message of a stream.
const MAX_ANSWER: usize = 64 << 10;
const MAX_MESSAGE: usize = 1 << 20;
const WINDOW: u32 = 64 << 10;
/// gRPC's prefix: whether the message is compressed, and its length.
const PREFIX: usize = 5;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The call was not sent: there is no connection.
    #[error("cannot connect: {0}")]
    NotSent(String),
    /// The call may have arrived; what came of it is not known.
    #[error("the connection broke: {0}")]
    Unknown(String),
    /// The collector answered with this status.
    #[error("{message} (gRPC status {code})")]
    Status {
        /// A code of gRPC.
        code: u32,
        /// What it said.
        message: String,
    },
}

/// A connection. Dropped, it ends.
#[derive(Debug)]
pub struct Client {
    calls: SendRequest<Bytes>,
    base: String,
    over: CancellationToken,
    _end: DropGuard,
}

impl Client {
    /// Connects to `https://host:port`.
    ///
    /// # Errors
    /// [`CallError::NotSent`].
    pub async fn connect(uri: &Uri, tls: &ClientTls) -> Result<Self, CallError> {
        let dial = tokio::time::timeout(DIAL, dial(uri, tls));
        let (calls, connection) = dial
            .await
            .map_err(|_| CallError::NotSent(format!("timed out after {} s", DIAL.as_secs())))?
            .map_err(CallError::NotSent)?;
        let over = CancellationToken::new();
        tokio::spawn(drive(connection, over.clone()));
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        Ok(Self {
            calls,
            base: format!("https://{authority}"),
            _end: over.clone().drop_guard(),
            over,
        })
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    async fn begin(
        &self,
        method: &str,
        token: Option<&HeaderValue>,
        is_compressed: bool,
    ) -> Result<(h2::client::ResponseFuture, SendStream<Bytes>), CallError> {
        let not_sent = |error: &dyn std::fmt::Display| CallError::NotSent(error.to_string());
        let mut request = Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(format!("{}{method}", self.base))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if is_compressed {
            request = request.header("grpc-encoding", "zstd");
        }
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let request = request.body(()).map_err(|error| not_sent(&error))?;
        let ready = self.calls.clone().ready().await;
        let mut calls = ready.map_err(|error| not_sent(&error))?;
        calls
            .send_request(request, false)
            .map_err(|error| not_sent(&error))
    }

    /// A unary call with this message, which has its prefix.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(
        &self,
        method: &str,
        token: Option<&HeaderValue>,
        message: Bytes,
    ) -> Result<Bytes, CallError> {
        let is_compressed = message.first() == Some(&1);
        let (answer, mut stream) = self.begin(method, token, is_compressed).await?;
        // A refused call is answered before all of it is sent.
        let sending = send(&mut stream, message, true);
        let (head, mut body) = {
            tokio::pin!(answer, sending);
            let answer = tokio::select! {
                biased;
                answer = &mut answer => answer,
                sent = &mut sending => match sent {
                    Ok(()) => answer.await,
                    Err(error) => match tokio::time::timeout(PING_PATIENCE, answer).await {
                        Ok(answer) => answer,
                        Err(_) => Err(error),
                    },
                },
            };
            answer.map_err(|error| unknown(&error))?.into_parts()
        };
        check(&head.headers, false)?;
        let mut all = BytesMut::new();
        while let Some(data) = body.data().await {
            let data = data.map_err(|error| unknown(&error))?;
            let _ = body.flow_control().release_capacity(data.len());
            all.extend_from_slice(&data);
            if all.len() > MAX_ANSWER {
                return Err(CallError::Unknown("the answer is too long".to_owned()));
            }
        }
        let trailers = body.trailers().await.map_err(|error| unknown(&error))?;
        check(&trailers.unwrap_or_default(), true)?;
        if all.len() < PREFIX {
            return Ok(Bytes::new());
        }
        all.advance(PREFIX);
        Ok(all.freeze())
    }

    /// A call whose messages go both ways.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn open(
        &self,
        method: &str,
        token: Option<&HeaderValue>,
        first: &[u8],
    ) -> Result<Exchange, CallError> {
        let (answer, mut stream) = self.begin(method, token, false).await?;
        let sent = send(&mut stream, framed(first), false).await;
        sent.map_err(|error| unknown(&error))?;
        let (head, body) = answer.await.map_err(|error| unknown(&error))?.into_parts();
        check(&head.headers, false)?;
        Ok(Exchange {
            stream,
            body,
            heard: BytesMut::new(),
        })
    }
}

/// A call whose messages go both ways. Dropped, it ends.
#[derive(Debug)]
pub struct Exchange {
    stream: SendStream<Bytes>,
    body: RecvStream,
    heard: BytesMut,
}

impl Exchange {
    /// Sends a message.
    ///
    /// # Errors
    /// When the call has ended.
    pub async fn say(&mut self, message: &[u8]) -> Result<(), CallError> {
        let sent = send(&mut self.stream, framed(message), false).await;
        sent.map_err(|error| unknown(&error))
    }

    /// The next message.
    ///
    /// # Errors
    /// When the call has ended, and how.
    pub async fn hear(&mut self) -> Result<Bytes, CallError> {
        loop {
            if let Some(&[flag, a, b, c, d]) = self.heard.first_chunk::<PREFIX>() {
                let len = u32::from_be_bytes([a, b, c, d]) as usize;
                if flag != 0 || len > MAX_MESSAGE {
                    let why = "a message of the stream cannot be read";
                    return Err(CallError::Unknown(why.to_owned()));
                }
                if self.heard.len() >= PREFIX + len {
                    self.heard.advance(PREFIX);
                    return Ok(self.heard.split_to(len).freeze());
                }
            }
            let Some(data) = self.body.data().await else {
                let trailers = self.body.trailers().await;
                let trailers = trailers.map_err(|error| unknown(&error))?;
                check(&trailers.unwrap_or_default(), true)?;
                return Err(CallError::Unknown("the stream ended".to_owned()));
            };
            let data = data.map_err(|error| unknown(&error))?;
            let _ = self.body.flow_control().release_capacity(data.len());
            self.heard.extend_from_slice(&data);
        }
    }
}

fn unknown(error: &h2::Error) -> CallError {
    CallError::Unknown(error.to_string())
}

fn framed(message: &[u8]) -> Bytes {
    let mut data = Vec::with_capacity(PREFIX + message.len());
    data.push(0);
    data.extend_from_slice(
        &u32::try_from(message.len())
            .unwrap_or(u32::MAX)
            .to_be_bytes(),
    );
    data.extend_from_slice(message);
    data.into()
}

/// The status in an answer's head, where a failed call has it, or in its trailers.
fn check(headers: &HeaderMap, is_end: bool) -> Result<(), CallError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status").map(str::parse) {
        Some(Ok(0)) => Ok(()),
        None if !is_end => Ok(()),
        Some(Ok(code)) => Err(CallError::Status {
            code,
            message: text("grpc-message").unwrap_or_default().to_owned(),
        }),
        Some(Err(_)) | None => Err(CallError::Unknown("the answer has no status".to_owned())),
    }
}

async fn send(
    stream: &mut SendStream<Bytes>,
    mut data: Bytes,
    ends: bool,
) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = poll_fn(|context| stream.poll_capacity(context)).await;
        let Some(room) = room.transpose()? else {
            return Err(h2::Reason::CANCEL.into());
        };
        let piece = data.split_to(room.min(data.len()));
        let is_last = data.is_empty();
        stream.send_data(piece, ends && is_last)?;
    }
    Ok(())
}

type Tls = TlsStream<TcpStream>;

async fn dial(
    uri: &Uri,
    tls: &ClientTls,
) -> Result<(SendRequest<Bytes>, Connection<Tls, Bytes>), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let host = uri.host().ok_or("the URL has no host")?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(443)));
    let stream = stream.await.map_err(|error| text(&error))?;
    // Failing is only slower.
    let _ = stream.set_nodelay(true);
    let mut config = (*tls.config()).clone();
    config.alpn_protocols = vec![HTTP2.to_vec()];
    let name = ServerName::try_from(host.to_owned()).map_err(|error| text(&error))?;
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, stream);
    let stream = stream.await.map_err(|error| text(&error))?;
    h2::client::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(2 * WINDOW)
        .max_send_buffer_size(256 << 10)
        .handshake(stream)
        .await
        .map_err(|error| text(&error))
}

/// Moves a connection's bytes until it ends, leads nowhere any more, or nobody wants it.
async fn drive(mut connection: Connection<Tls, Bytes>, over: CancellationToken) {
    let pings = connection.ping_pong();
    tokio::select! {
        ended = connection => {
            if let Err(error) = ended {
                tracing::debug!(%error, "the connection to the collector ended");
            }
        }
        () = lost(pings) => tracing::warn!("the collector does not answer; connecting anew"),
        () = over.cancelled() => {}
    }
    over.cancel();
}

/// Resolves when a ping is not answered.
async fn lost(pings: Option<PingPong>) {
    let Some(mut pings) = pings else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(PING_EVERY).await;
        let ping = pings.ping(Ping::opaque());
        if !matches!(tokio::time::timeout(PING_PATIENCE, ping).await, Ok(Ok(_))) {
            return;
        }
    }
}
