//! What a client may send of a call, watched from its side of HTTP/2: little of one that is refused,
//! all of one that is not.

#![allow(clippy::unwrap_used, clippy::expect_used)] // all of this is a test

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use common::*;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::Request;
use spanloom_pipeline::Config;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

const STREAM_WINDOW: usize = 256 << 10;
const STRAINED_WINDOW: usize = 64 << 10;

async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A call whose message is still to be sent.
async fn open(client: &SendRequest<Bytes>) -> (ResponseFuture, SendStream<Bytes>) {
    let request = Request::post(format!("http://test{TRACES}"))
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let mut client = client.clone().ready().await.unwrap();
    client.send_request(request, false).unwrap()
}

/// Sends as much as the server lets it. Says how much that was, and why the server stopped it.
async fn push(
    stream: &mut SendStream<Bytes>,
    mut data: Bytes,
    end: bool,
) -> (usize, Option<Reason>) {
    let mut sent = 0;
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = std::future::poll_fn(|context| stream.poll_capacity(context)).await;
        let Some(Ok(room)) = room else {
            let reason = std::future::poll_fn(|context| stream.poll_reset(context)).await;
            return (sent, Some(reason.unwrap()));
        };
        let part = data.split_to(room.min(data.len()));
        sent += part.len();
        stream.send_data(part, end && data.is_empty()).unwrap();
    }
    (sent, None)
}

async fn grpc_status(answer: ResponseFuture) -> String {
    let (head, mut body) = answer.await.unwrap().into_parts();
    while let Some(data) = body.data().await {
        data.unwrap();
    }
    let trailers = body.trailers().await.unwrap().unwrap_or_default();
    let status = head.headers.get("grpc-status");
    let status = status.or_else(|| trailers.get("grpc-status")).unwrap();
    status.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_refused_call_no_more_is_taken_than_a_window() {
    let config = Config {
        memory_limit_bytes: 250_000,
        max_request_bytes: 4_000_000,
        ..quick()
    };
    let p = start_gated(config, Some(Semaphore::new(0)));
    let refused = async {
        p.store.begun(1).await;
        let client = connect(p.grpc).await;
        let message = Bytes::from(framed(0, &vec![0; 3_000_000]));
        let mut least = usize::MAX;
        for _ in 0..20 {
            let (answer, mut stream) = open(&client).await;
            let (sent, stopped) = push(&mut stream, message.clone(), true).await;
            assert_eq!(stopped, Some(Reason::NO_ERROR));
            assert!(sent <= STREAM_WINDOW, "{sent}");
            assert_eq!(grpc_status(answer).await, "14");
            least = least.min(sent);
        }
        // By now the client has heard that memory is short.
        assert!(least <= STRAINED_WINDOW, "{least}");
        p.store.gate.as_ref().unwrap().add_permits(1);
    };
    let (first, ()) = tokio::join!(p.protobuf(spans(1, 400)), refused);
    assert_eq!((first.status, p.server.admitted_bytes()), (200, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_let_in_goes_on_when_the_window_narrows() {
    const LIMIT: usize = 1_500_000;
    let p = start(Config {
        memory_limit_bytes: LIMIT,
        max_request_bytes: LIMIT,
        ..quick()
    });
    let client = connect(p.grpc).await;
    let small_call = || async {
        let (answer, mut stream) = open(&client).await;
        push(&mut stream, framed(0, b"").into(), true).await;
        grpc_status(answer).await
    };
    // More than the narrow window, and so little of the wide one that the server asks for no more.
    let mut message = Bytes::from(framed(0, &spans(1, 8_000)));
    let first = message.split_to(80 << 10);
    assert!(message.len() > STRAINED_WINDOW, "{}", message.len());
    let (answer, mut stream) = open(&client).await;
    push(&mut stream, first, false).await;
    // What came before this has been read when it is answered.
    assert_eq!(small_call().await, "0");
    let free = LIMIT - p.server.admitted_bytes();
    // Short enough for the rest of it to be read after it is refused.
    let body = vec![0; (free / 2).min(500_000)];
    assert_eq!(p.protobuf(body).await.status, 429, "{free} bytes were free");
    // With this the client hears of it.
    assert_eq!(small_call().await, "0");
    let rest = async {
        push(&mut stream, message, true).await;
        grpc_status(answer).await
    };
    let status = tokio::time::timeout(Duration::from_secs(10), rest).await;
    assert_eq!(status.expect("the rest was asked for"), "0");
    assert_eq!(p.store.len(), 8_000);
}
