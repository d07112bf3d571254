//! An app: requests with OTLP's official types, by each transport.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

pub const PROTOBUF: &str = "application/x-protobuf";

fn pair(key: &str, text: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(any_value::Value::StringValue(text.to_owned())),
        }),
        ..KeyValue::default()
    }
}

/// Server spans of these names, of a service that says it is another pod; each has a secret.
pub fn request(names: &[&str]) -> ExportTraceServiceRequest {
    let now = super::unix_now() * 1_000_000_000;
    let span = |name: &&str| Span {
        trace_id: rand::random::<u128>().to_be_bytes().to_vec(),
        span_id: rand::random::<u64>().to_be_bytes().to_vec(),
        name: (*name).to_owned(),
        kind: 2,
        start_time_unix_nano: now,
        end_time_unix_nano: now + 1_000_000,
        attributes: vec![
            pair("password", "hunter2"),
            pair("card", "4111111111111111"),
        ],
        ..Span::default()
    };
    let scope = ScopeSpans {
        spans: names.iter().map(span).collect(),
        ..ScopeSpans::default()
    };
    let resource = Resource {
        attributes: vec![
            pair("service.name", "checkout"),
            pair("k8s.pod.name", "somebody-else"),
            pair("k8s.cronjob.name", "never"),
        ],
        ..Resource::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![scope],
            ..ResourceSpans::default()
        }],
    }
}

/// Sends a body over HTTP/1.1; `None` where nobody listens.
pub async fn post(port: u16, path: &str, content_type: &str, body: Vec<u8>) -> Option<StatusCode> {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::post(format!("http://127.0.0.1:{port}{path}"))
        .header("content-type", content_type)
        .body(Full::from(body))
        .unwrap();
    let (head, body) = client.request(request).await.ok()?.into_parts();
    body.collect().await.ok()?;
    Some(head.status)
}

/// A page of the admin port.
pub async fn get(port: u16, path: &str) -> Option<String> {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let uri = format!("http://127.0.0.1:{port}{path}").parse().unwrap();
    let body = client
        .get(uri)
        .await
        .ok()?
        .into_body()
        .collect()
        .await
        .ok()?;
    String::from_utf8(body.to_bytes().to_vec()).ok()
}

/// Calls OTLP's method over gRPC; the status.
pub async fn grpc(port: u16, request: &ExportTraceServiceRequest) -> String {
    let message = request.encode_to_vec();
    let mut body = vec![0];
    body.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend_from_slice(&message);
    let head = Request::post(format!(
        "http://127.0.0.1:{port}/opentelemetry.proto.collector.trace.v1.TraceService/Export"
    ))
    .header("content-type", "application/grpc")
    .header("te", "trailers")
    .body(())
    .unwrap();
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .unwrap();
    let (calls, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut calls = calls.ready().await.unwrap();
    let (answer, mut stream) = calls.send_request(head, false).unwrap();
    stream.send_data(Bytes::from(body), true).unwrap();
    let (head, mut body) = answer.await.unwrap().into_parts();
    while let Some(data) = body.data().await {
        data.unwrap();
    }
    let trailers = body.trailers().await.unwrap().unwrap_or_default();
    drop(calls);
    connection.abort();
    let status = trailers
        .get("grpc-status")
        .or(head.headers.get("grpc-status"));
    status.unwrap().to_str().unwrap().to_owned()
}
