//! Receivers beyond today's two: another format of bodies, senders known by a token, TLS.

#![allow(clippy::unwrap_used, clippy::expect_used)] // all of this is a test

mod common;

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::*;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use opentelemetry_proto::tonic::trace::v1::Span;
use rcgen::{CertificateParams, KeyPair};
use spanloom_pipeline::config::{Listener, Route};
use spanloom_pipeline::{Caller, Codec, CodecError, Config, Identify, Identity, Ignored, Pod};
use spanloom_tls::{ClientTls, Connector, ServerTls};

/// A span a line: its id and its name.
#[derive(Debug)]
struct Lines;

impl Codec for Lines {
    fn name(&self) -> &'static str {
        "lines"
    }

    fn content_type(&self) -> &'static str {
        "text/x-spans"
    }

    fn to_otlp<'b>(
        &self,
        body: &'b [u8],
        max_bytes: usize,
        _: &mut Ignored,
    ) -> Result<Cow<'b, [u8]>, CodecError> {
        let bad = |line: &str| CodecError::new(format!("{line:?} is not a span"));
        let text = std::str::from_utf8(body).map_err(|error| bad(&error.to_string()))?;
        let span_of = |line: &str| {
            let (id, name) = line.split_once(' ').ok_or_else(|| bad(line))?;
            Ok(Span {
                name: name.to_owned(),
                ..span(id.parse().map_err(|_| bad(line))?)
            })
        };
        let spans: Result<_, _> = text.lines().map(span_of).collect();
        let request = request_of(spans?);
        match request.len() <= max_bytes {
            true => Ok(Cow::Owned(request)),
            false => Err(CodecError::new("too many spans")),
        }
    }

    fn success(&self) -> StatusCode {
        StatusCode::ACCEPTED
    }

    fn accepted(&self, rejected: u64, _: &str) -> Vec<u8> {
        format!("without {rejected}").into_bytes()
    }

    fn failed(&self, code: i32, message: &str, _: Option<Duration>) -> Vec<u8> {
        format!("{code} {message}").into_bytes()
    }
}

fn lines() -> Listener {
    Listener {
        receiver: "lines",
        routes: vec![Route {
            path: "/spans",
            codecs: vec![Arc::new(Lines)],
        }],
        ..Listener::http(any_port())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_format_is_received_beside_otlp() {
    let mut config = quick();
    config.listeners.push(lines());
    let p = start(config);
    let address = p.server.addresses()[2];
    let post = |path: &'static str, kind: &'static str, body: &'static str| async move {
        let headers = [("content-type", kind)];
        request(address, Method::POST, path, &headers, body).await
    };
    let spans = "1 GET\n2 POST\n0 zero\n";
    let answer = post("/spans", "text/x-spans; charset=utf-8", spans).await;
    assert_eq!((answer.status, answer.text()), (202, "without 1"));
    assert_eq!(answer.header("content-type"), Some("text/x-spans"));
    assert_eq!(
        *p.store.stored.lock().unwrap(),
        [1u64, 2].map(u64::to_be_bytes)
    );
    // The same bytes again are a repeat; in another format they are not even spans.
    assert_eq!(post("/spans", "text/x-spans", spans).await.status, 202);
    assert_eq!(p.metric("spanloom_receiver_repeats_total"), 1);
    assert_eq!(p.protobuf(spans).await.status, 400);
    // Faults are answered in its own format.
    let check = |answer: Answer, status, text: &str| {
        assert_eq!((answer.status, answer.text()), (status, text));
    };
    check(
        post("/spans", "text/x-spans", "nonsense").await,
        400,
        "3 \"nonsense\" is not a span",
    );
    check(
        post("/spans", "application/json", "{}").await,
        415,
        "3 the content type \"application/json\" is not supported; use text/x-spans",
    );
    check(
        post("/v1/traces", "text/x-spans", spans).await,
        404,
        "12 path \"/v1/traces\" not found; send traces to /spans",
    );
    // And OTLP's receivers do not know it.
    assert_eq!(
        p.post(&[("content-type", "text/x-spans")], spans)
            .await
            .status,
        415
    );
    assert_eq!(p.protobuf(common::spans(10, 1)).await.status, 200);
    let accepted = r#"otelcol_receiver_accepted_spans_total{receiver="lines",transport="http"}"#;
    assert_eq!(p.metric(accepted), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_format_is_held_to_the_memory_limit() {
    let config = Config {
        listeners: vec![lines()],
        memory_limit_bytes: 10_000,
        max_request_bytes: 10_000,
        ..quick()
    };
    let p = start(config);
    let body = "1 GET\n".repeat(1_200);
    let headers = [("content-type", "text/x-spans")];
    let answer = request(p.http, Method::POST, "/spans", &headers, body).await;
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert_eq!(p.server.admitted_bytes(), 0);
}

/// Knows senders by the token that they show, one of them only after a while.
#[derive(Debug)]
struct Tokens;

impl Identify for Tokens {
    fn identify(&self, caller: Caller<'_>) -> Identity {
        let shown = caller.headers.get("authorization");
        let shown = shown.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        match shown {
            Some("shop's") => Identity::Pod(pod("shop")),
            Some("new one's") => Identity::Unsure,
            _ => Identity::Refused("its token is not valid".into()),
        }
    }

    fn wait<'a>(&'a self, _: Caller<'a>) -> Pin<Box<dyn Future<Output = Identity> + Send + 'a>> {
        Box::pin(async { Identity::Pod(pod("new")) })
    }
}

fn pod(service: &str) -> Arc<Pod> {
    Arc::new(Pod {
        service: Some(service.into()),
        ..Pod::default()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn senders_are_known_by_their_token() {
    let identify = |listener: Listener| Listener {
        identify: Some(Arc::new(Tokens)),
        ..listener
    };
    let p = start(Config {
        listeners: quick().listeners.into_iter().map(identify).collect(),
        ..quick()
    });
    let by = |token| ("authorization", token);
    // One by each transport; the second is known only after waiting.
    let known = p.export_with(&[by("Bearer shop's")], &spans(1, 1), 0).await;
    assert_eq!(known.grpc_status(), 0);
    let protobuf = ("content-type", "application/x-protobuf");
    let answer = p
        .post(&[protobuf, by("Bearer new one's")], spans(2, 1))
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(*p.store.services.lock().unwrap(), ["shop", "new"]);
    // Nothing is taken from others, on either.
    for token in ["Bearer forged", "Basic shop's", ""] {
        let answer = p.export_with(&[by(token)], &spans(3, 1), 0).await;
        assert_eq!(answer.grpc_status(), 16, "{token}");
        let answer = p.post(&[protobuf, by(token)], spans(3, 1)).await;
        assert_eq!((answer.status, answer.header("retry-after")), (401, None));
    }
    assert_eq!((p.store.len(), p.server.admitted_bytes()), (2, 0));
}

/// A certificate for this machine in a folder of its own, with its key.
fn certificate() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    std::fs::write(folder.path().join("tls.crt"), certificate).unwrap();
    std::fs::write(folder.path().join("tls.key"), key.serialize_pem()).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn receivers_may_have_tls() {
    let folder = certificate();
    let protocols = [spanloom_tls::HTTP2, spanloom_tls::HTTP1];
    let tls = ServerTls::open(folder.path(), &protocols).unwrap();
    let secure = |listener: Listener| Listener {
        tls: Some(tls.clone()),
        ..listener
    };
    let p = start(Config {
        listeners: quick().listeners.into_iter().map(secure).collect(),
        ..quick()
    });
    let trust = ClientTls::with_ca_file(folder.path().join("tls.crt")).unwrap();
    let dial = Connector::new(Some(trust));
    let http = Client::builder(TokioExecutor::new()).build(dial.clone());
    let post = Request::post(format!("https://localhost:{}/v1/traces", p.http.port()))
        .header("content-type", "application/x-protobuf")
        .body(Full::new(Bytes::from(spans(1, 1))))
        .unwrap();
    assert_eq!(collect(http.request(post).await.unwrap()).await.status, 200);
    let grpc = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build(dial);
    let call = Request::post(format!("https://localhost:{}{TRACES}", p.grpc.port()))
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(Full::new(Bytes::from(framed(0, &spans(2, 1)))))
        .unwrap();
    let answer = collect(grpc.request(call).await.unwrap()).await;
    assert_eq!((answer.grpc_status(), p.store.len()), (0, 2));
    // Plain text is not understood there.
    let plain = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let post = Request::post(format!("http://localhost:{}/v1/traces", p.http.port()));
    let post = post.body(Full::new(Bytes::from(spans(3, 1)))).unwrap();
    assert!(plain.request(post).await.is_err());
    assert_eq!(p.store.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_port_may_have_both_transports() {
    let mixed = |listener: Listener| Listener::mixed(listener.address);
    let p = start(Config {
        listeners: quick().listeners.into_iter().map(mixed).collect(),
        ..quick()
    });
    let plain = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    // Without an upgrade: HTTP/2 from its first byte, as gRPC is.
    let http2 = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http::<Full<Bytes>>();
    let mut id = 0;
    for port in p.server.addresses().iter().map(std::net::SocketAddr::port) {
        for (client, path) in [
            (&plain, "/v1/traces"),
            (&plain, "/"),
            (&http2, "/v1/traces"),
            (&http2, "/"),
        ] {
            id += 1;
            let post = Request::post(format!("http://localhost:{port}{path}"))
                .header("content-type", "application/x-protobuf")
                .body(Full::new(Bytes::from(spans(id, 1))))
                .unwrap();
            let answer = collect(client.request(post).await.unwrap()).await;
            assert_eq!(answer.status, 200, "{path}");
        }
        id += 1;
        let call = Request::post(format!("http://localhost:{port}{TRACES}"))
            .header("te", "trailers")
            .header("content-type", "application/grpc+proto")
            .body(Full::new(Bytes::from(framed(0, &spans(id, 1)))))
            .unwrap();
        let answer = collect(http2.request(call).await.unwrap()).await;
        assert_eq!(answer.grpc_status(), 0);
    }
    assert_eq!(p.store.len(), 10);
    let grpc = r#"otelcol_receiver_accepted_spans_total{receiver="otlp",transport="grpc"}"#;
    assert_eq!(p.metric(grpc), 2);
    // What is nowhere is said in the transport that asked.
    let post = Request::post(format!("http://localhost:{}/elsewhere", p.http.port()));
    let post = post.body(Full::new(Bytes::new())).unwrap();
    assert_eq!(
        collect(plain.request(post).await.unwrap()).await.status,
        404
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patient_listener_gets_its_port_when_it_is_free() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let patient = |listener: Listener| Listener {
        is_patient: true,
        ..listener
    };
    let mut listeners: Vec<_> = quick().listeners.into_iter().map(patient).collect();
    listeners[1].address = taken;
    let p = start(Config {
        listeners,
        ..quick()
    });
    assert_eq!(p.export(&spans(1, 1)).await.grpc_status(), 0);
    drop(holder);
    let begun = std::time::Instant::now();
    while tokio::net::TcpStream::connect(taken).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody listens");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(p.protobuf(spans(2, 1)).await.status, 200);
    assert!(p.metric("spanloom_receiver_bind_failures_total") >= 1);
}
