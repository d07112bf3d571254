//! Clients that send one span at a time, from an address of their choice.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

/// Keeps its connection.
pub struct Sender {
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
}

pub struct Answer {
    pub status: StatusCode,
    headers: HeaderMap,
}

impl Answer {
    /// Whether the connection ends with it.
    pub fn closes(&self) -> bool {
        self.headers
            .get(header::CONNECTION)
            .is_some_and(|value| value == "close")
    }
}

impl Sender {
    /// `from` is any address of this machine: all of 127.0.0.0/8 are.
    pub fn new(to: SocketAddr, from: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_local_address(Some(from.parse::<IpAddr>().unwrap()));
        Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            url: format!("http://{to}/v1/traces"),
        }
    }

    pub async fn exchange(&self, body: &[u8]) -> Answer {
        let request = Request::post(&self.url)
            .header("content-type", "application/x-protobuf")
            .body(Full::new(Bytes::copy_from_slice(body)))
            .unwrap();
        let (head, body) = self.client.request(request).await.unwrap().into_parts();
        body.collect().await.unwrap();
        Answer {
            status: head.status,
            headers: head.headers,
        }
    }

    pub async fn send(&self, body: &[u8]) -> StatusCode {
        self.exchange(body).await.status
    }
}

/// One server span of this name, of a resource with these attributes.
pub fn request(name: &str, resource: &[(&str, &str)]) -> Vec<u8> {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64;
    let span = Span {
        trace_id: rand::random::<u128>().to_be_bytes().to_vec(),
        span_id: rand::random::<u64>().to_be_bytes().to_vec(),
        name: name.to_owned(),
        kind: 2,
        start_time_unix_nano: now,
        end_time_unix_nano: now + 1_000_000,
        ..Span::default()
    };
    let attributes = resource.iter().map(|(key, text)| KeyValue {
        key: (*key).to_owned(),
        value: Some(AnyValue {
            value: Some(any_value::Value::StringValue((*text).to_owned())),
        }),
        ..KeyValue::default()
    });
    let resource = Resource {
        attributes: attributes.collect(),
        ..Resource::default()
    };
    let scope = ScopeSpans {
        spans: vec![span],
        ..ScopeSpans::default()
    };
    let resource_spans = ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![scope],
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![resource_spans],
    }
    .encode_to_vec()
}
