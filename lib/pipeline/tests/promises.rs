//! Clients that promise and do not send, or send too much at once: others get through all the same.

#![allow(clippy::unwrap_used, clippy::expect_used)] // all of this is a test

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use common::*;
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use http::Request;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use spanloom_pipeline::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

const PROTOBUF: &str = "application/x-protobuf";

/// A connection from another address of this machine.
async fn connect(from: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket
        .bind(SocketAddr::from(([127, 0, 0, from], 0)))
        .unwrap();
    socket.connect(to).await.unwrap()
}

async fn h2_client(from: u8, to: SocketAddr) -> SendRequest<Bytes> {
    let stream = connect(from, to).await;
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A request whose head promises much, and of which `first` is sent.
async fn promise(
    client: &SendRequest<Bytes>,
    path: &str,
    content_type: &str,
    first: Bytes,
) -> (ResponseFuture, SendStream<Bytes>) {
    let request = Request::post(format!("http://test{path}"))
        .header("content-type", content_type)
        .header("content-encoding", "gzip")
        .header("grpc-encoding", "gzip")
        .header("content-length", "30000000")
        .body(())
        .unwrap();
    let mut client = client.clone().ready().await.unwrap();
    let (answer, mut stream) = client.send_request(request, false).unwrap();
    if !first.is_empty() {
        stream.send_data(first, false).unwrap();
    }
    (answer, stream)
}

/// Exports from that address, each on its own connection.
async fn exports(p: &Pipeline, from: u8, first: u64, count: u64) {
    for id in (first..).take(usize::try_from(count).unwrap()) {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(connect(from, p.http).await))
                .await
                .unwrap();
        tokio::spawn(connection);
        let request = Request::post("/v1/traces")
            .header("host", "test")
            .header("content-type", PROTOBUF)
            .body(Full::new(Bytes::from(spans(id * 1000, 100))))
            .unwrap();
        let answer = collect(sender.send_request(request).await.unwrap()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let (mut client, connection) = hyper::client::conn::http2::handshake(
            TokioExecutor::new(),
            TokioIo::new(connect(from, p.grpc).await),
        )
        .await
        .unwrap();
        tokio::spawn(connection);
        let body = framed(0, &spans(id * 1000 + 500, 100));
        let answer = grpc_call(&mut client, TRACES, &[], body).await;
        assert_eq!(answer.grpc_status(), 0);
    }
}

fn small() -> Config {
    Config {
        memory_limit_bytes: 8 << 20,
        max_request_bytes: 32 << 20,
        ..quick()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn promises_of_one_address_leave_room_for_others() {
    let p = start(small());
    let mut held = Vec::new();
    for start in [0, 40_000] {
        // A gRPC message, or a body of HTTP, that has only begun.
        let message = [&[1, 1, 0xc9, 0xc3, 0x80][..], &vec![0; start]].concat();
        for _ in 0..5 {
            let grpc = h2_client(1, p.grpc).await;
            let http = h2_client(1, p.http).await;
            for _ in 0..50 {
                let first = Bytes::from(message.clone());
                held.push(promise(&grpc, TRACES, "application/grpc", first.clone()).await);
                held.push(promise(&http, "/v1/traces", PROTOBUF, first).await);
            }
        }
    }
    let mut plain = Vec::new();
    for _ in 0..500 {
        let mut stream = connect(1, p.http).await;
        let head = format!(
            "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: {PROTOBUF}\r\n\
             content-encoding: gzip\r\ncontent-length: 30000000\r\n\r\nsome of it"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        plain.push(stream);
    }
    exports(&p, 2, 1, 20).await;
    assert_eq!(p.store.len(), 20 * 200);
    assert!(p.server.admitted_bytes() <= 8 << 20);
    drop((held, plain));
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_of_one_address_leave_room_for_others() {
    let mut config = small();
    config.connections.max = 100;
    let p = start(config);
    let mut idle = Vec::new();
    for address in [p.http, p.grpc] {
        for _ in 0..100 {
            idle.push(connect(1, address).await);
        }
    }
    while p.metric("spanloom_receiver_connections ") < 200 {
        tokio::task::yield_now().await;
    }
    exports(&p, 2, 1, 10).await;
    assert!(p.metric("spanloom_receiver_connections_closed_total") > 0);
    assert_eq!(p.metric("spanloom_receiver_connections_refused_total"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_arriving_is_ended() {
    let mut config = small();
    config.connections.body_pace_time = Duration::from_millis(200);
    let p = start(config);
    let client = h2_client(1, p.grpc).await;
    let first = Bytes::from_static(&[0, 0, 1, 0, 0, 7]);
    let (answer, _stream) = promise(&client, TRACES, "application/grpc", first).await;
    let answer = answer.await.unwrap();
    assert_eq!(answer.headers().get("grpc-status").unwrap(), "14");
    let http = h2_client(1, p.http).await;
    let (answer, _stream) = promise(&http, "/v1/traces", PROTOBUF, Bytes::from_static(b"x")).await;
    assert_eq!(answer.await.unwrap().status(), 503);
    assert_eq!(p.server.admitted_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_large_requests_at_once_all_get_through_with_retries() {
    const SENDERS: u64 = 60;
    const SPANS: u64 = 8_000;
    let p = std::sync::Arc::new(start(Config {
        memory_limit_bytes: 8 << 20,
        max_request_bytes: 8 << 20,
        ..quick()
    }));
    let mut senders = JoinSet::new();
    for i in 0..SENDERS {
        let p = std::sync::Arc::clone(&p);
        senders.spawn(async move {
            let body = Bytes::from(spans(i * 100_000 + 1, SPANS));
            loop {
                let status = match i % 2 {
                    0 => p.protobuf(body.clone()).await.status,
                    _ => match p.export(&body).await.grpc_status() {
                        0 => 200,
                        14 => 429,
                        other => panic!("gRPC status {other}"),
                    },
                };
                match status {
                    200 => return,
                    429 | 503 => tokio::time::sleep(Duration::from_millis(50)).await,
                    other => panic!("status {other}"),
                }
            }
        });
    }
    while let Some(sent) = senders.join_next().await {
        sent.unwrap();
    }
    assert_eq!(p.store.len() as u64, SENDERS * SPANS);
    assert_eq!(p.server.admitted_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_too_large_is_told_so_over_http2() {
    let p = start(Config {
        max_request_bytes: 1 << 20,
        ..quick()
    });
    let client = h2_client(1, p.http).await;
    for length in [None, Some("5000000")] {
        let mut request = Request::post("http://test/v1/traces").header("content-type", PROTOBUF);
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        let mut ready = client.clone().ready().await.unwrap();
        let (answer, mut stream) = ready
            .send_request(request.body(()).unwrap(), false)
            .unwrap();
        let sending = tokio::spawn(async move {
            let mut left = 5_000_000_usize;
            while left > 0 {
                stream.reserve_capacity(left);
                match std::future::poll_fn(|context| stream.poll_capacity(context)).await {
                    Some(Ok(room)) => {
                        let part = room.min(left);
                        left -= part;
                        let data = Bytes::from(vec![0; part]);
                        if stream.send_data(data, left == 0).is_err() {
                            return;
                        }
                    }
                    _ => return,
                }
            }
        });
        let answer = tokio::time::timeout(Duration::from_secs(30), answer).await;
        assert_eq!(answer.expect("an answer").unwrap().status(), 413);
        sending.await.unwrap();
    }
    // The connection serves others.
    let (answer, mut stream) = {
        let request = Request::post("http://test/v1/traces")
            .header("content-type", PROTOBUF)
            .body(())
            .unwrap();
        let mut ready = client.clone().ready().await.unwrap();
        ready.send_request(request, false).unwrap()
    };
    stream.send_data(Bytes::from(spans(1, 10)), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_took_one_port_for_the_other_is_told_where_to_go() {
    let p = start(quick());
    let answer = grpc(p.http, TRACES, &[], framed(0, &spans(1, 1))).await;
    assert_eq!(answer.grpc_status(), 12);
    let message = answer.header("grpc-message").unwrap();
    let expected = format!("send OTLP over gRPC to port {}", p.grpc.port());
    assert!(message.contains(&expected), "{message}");
    let headers = [("content-type", PROTOBUF)];
    for body in [spans(1, 1), vec![0; 400_000]] {
        let answer = request(p.grpc, http::Method::POST, "/v1/traces", &headers, body).await;
        assert_eq!(answer.status, 400);
        let expected = format!("send OTLP over HTTP to port {}", p.http.port());
        assert!(answer.text().contains(&expected), "{}", answer.text());
    }
    // Neither is nothing at all an answer to what is no protocol of ours.
    let mut stream = TcpStream::connect(p.grpc).await.unwrap();
    stream
        .write_all(b"\x16\x03\x01 no HTTP\r\n\r\n")
        .await
        .unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert_eq!(
        p.metric(r#"spanloom_receiver_refused_requests_total{transport="grpc",reason="protocol""#),
        2
    );
    assert_eq!(p.store.len(), 0);
}
