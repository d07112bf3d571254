//! A client of gRPC with messages of its own, by the numbers that Grafana's have.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use http::Uri;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message;
use serde_json::{Value as Json, json};
use spanloom_tls::{ClientTls, Connector};
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

/// What a call brought: it succeeded.
#[derive(Debug)]
pub struct Sent<M> {
    pub head: MetadataMap,
    pub messages: Vec<M>,
    pub trailers: MetadataMap,
}

impl Sent<SearchResponse> {
    pub fn traces(&self) -> impl Iterator<Item = &FoundTrace> {
        self.messages.iter().flat_map(|message| &message.traces)
    }
}

/// A connection to a query service.
pub struct Client {
    http: HttpClient<Connector, tonic::body::Body>,
    origin: Uri,
    token: Option<String>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self::over(Connector::new(None), &format!("http://{address}"))
    }

    pub fn with_tls(address: SocketAddr, tls: ClientTls) -> Self {
        Self::over(Connector::new(Some(tls)), &format!("https://{address}"))
    }

    fn over(connector: Connector, origin: &str) -> Self {
        Self {
            http: HttpClient::builder(TokioExecutor::new())
                .http2_only(true)
                .build(connector),
            origin: origin.parse().unwrap(),
            token: None,
        }
    }

    pub fn with_token(mut self, token: Option<&str>) -> Self {
        self.token = token.map(str::to_owned);
        self
    }

    async fn call<A, M>(&self, method: &str, asked: A) -> Result<Sent<M>, Status>
    where
        A: Message + 'static,
        M: Message + Default + 'static,
    {
        let mut grpc = tonic::client::Grpc::with_origin(self.http.clone(), self.origin.clone());
        grpc.ready().await.unwrap();
        let mut request = Request::new(asked);
        if let Some(token) = &self.token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        let path = format!("/tempopb.StreamingQuerier/{method}");
        let path = path.parse().unwrap();
        let response = grpc
            .server_streaming(request, path, ProstCodec::<A, M>::new())
            .await?;
        let (head, mut stream, _) = response.into_parts();
        let mut messages = Vec::new();
        while let Some(message) = stream.message().await? {
            messages.push(message);
        }
        let trailers = stream.trailers().await?.unwrap_or_default();
        Ok(Sent {
            head,
            messages,
            trailers,
        })
    }

    pub async fn search(&self, asked: SearchRequest) -> Result<Sent<SearchResponse>, Status> {
        self.call("Search", asked).await
    }

    pub async fn range(&self, asked: QueryRequest) -> Result<Sent<RangeResponse>, Status> {
        self.call("MetricsQueryRange", asked).await
    }

    pub async fn instant(&self, asked: QueryRequest) -> Result<Sent<InstantResponse>, Status> {
        self.call("MetricsQueryInstant", asked).await
    }

    pub async fn tags(&self, asked: TagsRequest) -> Result<Sent<TagsResponse>, Status> {
        self.call("SearchTags", asked).await
    }

    pub async fn tags_v2(&self, asked: TagsRequest) -> Result<Sent<TagsV2Response>, Status> {
        self.call("SearchTagsV2", asked).await
    }

    pub async fn values(&self, asked: ValuesRequest) -> Result<Sent<ValuesResponse>, Status> {
        self.call("SearchTagValues", asked).await
    }

    pub async fn values_v2(&self, asked: ValuesRequest) -> Result<Sent<ValuesV2Response>, Status> {
        self.call("SearchTagValuesV2", asked).await
    }

    pub async fn unknown(&self, method: &str) -> Result<Sent<SearchResponse>, Status> {
        self.call(method, SearchRequest::default()).await
    }
}

#[derive(Clone, PartialEq, Message)]
pub struct SearchRequest {
    #[prost(btree_map = "string, string", tag = "1")]
    pub tags: BTreeMap<String, String>,
    #[prost(uint32, tag = "4")]
    pub limit: u32,
    #[prost(uint32, tag = "5")]
    pub start: u32,
    #[prost(uint32, tag = "6")]
    pub end: u32,
    #[prost(string, tag = "8")]
    pub query: String,
    #[prost(uint32, tag = "9")]
    pub spans_per_span_set: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct SearchResponse {
    #[prost(message, repeated, tag = "1")]
    pub traces: Vec<FoundTrace>,
    #[prost(message, optional, tag = "2")]
    pub metrics: Option<SearchMetrics>,
}

#[derive(Clone, PartialEq, Message)]
pub struct FoundTrace {
    #[prost(string, tag = "1")]
    pub trace_id: String,
    #[prost(string, tag = "2")]
    pub root_service_name: String,
    #[prost(string, tag = "3")]
    pub root_trace_name: String,
    #[prost(uint64, tag = "4")]
    pub start_time_unix_nano: u64,
    #[prost(uint32, tag = "5")]
    pub duration_ms: u32,
    #[prost(message, repeated, tag = "7")]
    pub span_sets: Vec<SpanSet>,
    #[prost(btree_map = "string, message", tag = "8")]
    pub service_stats: BTreeMap<String, ServiceStats>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct ServiceStats {
    #[prost(uint32, tag = "1")]
    pub span_count: u32,
    #[prost(uint32, tag = "2")]
    pub error_count: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct SpanSet {
    #[prost(message, repeated, tag = "1")]
    pub spans: Vec<FoundSpan>,
    #[prost(uint32, tag = "2")]
    pub matched: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct FoundSpan {
    #[prost(string, tag = "1")]
    pub span_id: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(uint64, tag = "3")]
    pub start_time_unix_nano: u64,
    #[prost(uint64, tag = "4")]
    pub duration_nanos: u64,
    #[prost(message, repeated, tag = "5")]
    pub attributes: Vec<KeyValue>,
}

impl FoundTrace {
    /// As HTTP has it, for traces that have attributes of text alone.
    pub fn json(&self) -> Json {
        let sets = self.span_sets.iter().map(|set| {
            let spans: Vec<_> = set.spans.iter().map(FoundSpan::json).collect();
            json!({"spans": spans, "matched": set.matched})
        });
        let services = self.service_stats.iter().map(|(service, stats)| {
            let stats = match stats.error_count {
                0 => json!({"spanCount": stats.span_count}),
                errors => json!({"spanCount": stats.span_count, "errorCount": errors}),
            };
            (service.clone(), stats)
        });
        json!({
            "traceID": self.trace_id,
            "rootServiceName": self.root_service_name,
            "rootTraceName": self.root_trace_name,
            "startTimeUnixNano": self.start_time_unix_nano.to_string(),
            "durationMs": self.duration_ms,
            "spanSets": sets.collect::<Vec<_>>(),
            "serviceStats": services.collect::<serde_json::Map<_, _>>(),
        })
    }
}

impl FoundSpan {
    fn json(&self) -> Json {
        let mut json = json!({
            "spanID": self.span_id,
            "name": self.name,
            "startTimeUnixNano": self.start_time_unix_nano.to_string(),
            "durationNanos": self.duration_nanos.to_string(),
        });
        if !self.attributes.is_empty() {
            let attributes = self.attributes.iter();
            json["attributes"] = attributes
                .map(|one| json!({"key": one.key, "value": {"stringValue": text(one)}}))
                .collect();
        }
        json
    }
}

fn text(attribute: &KeyValue) -> String {
    match attribute.value.as_ref().unwrap().value.as_ref().unwrap() {
        Value::StringValue(text) => text.clone(),
        other => panic!("{other:?}"),
    }
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct SearchMetrics {
    #[prost(uint32, tag = "1")]
    pub inspected_traces: u32,
    #[prost(uint32, tag = "4")]
    pub completed_jobs: u32,
    #[prost(uint32, tag = "5")]
    pub total_jobs: u32,
    #[prost(uint64, tag = "7")]
    pub inspected_spans: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct QueryRequest {
    #[prost(string, tag = "1")]
    pub query: String,
    #[prost(uint64, tag = "2")]
    pub start: u64,
    #[prost(uint64, tag = "3")]
    pub end: u64,
    #[prost(uint64, tag = "4")]
    pub step: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct RangeResponse {
    #[prost(message, repeated, tag = "1")]
    pub series: Vec<TimeSeries>,
    #[prost(message, optional, tag = "2")]
    pub metrics: Option<SearchMetrics>,
    #[prost(int32, tag = "3")]
    pub status: i32,
    #[prost(string, tag = "4")]
    pub message: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<KeyValue>,
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    pub exemplars: Vec<Exemplar>,
}

impl TimeSeries {
    /// The text of its only label.
    pub fn label(&self) -> String {
        text(&self.labels[0])
    }
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Sample {
    #[prost(double, tag = "1")]
    pub value: f64,
    #[prost(int64, tag = "2")]
    pub timestamp_ms: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<KeyValue>,
    #[prost(double, tag = "2")]
    pub value: f64,
    #[prost(int64, tag = "3")]
    pub timestamp_ms: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct InstantResponse {
    #[prost(message, repeated, tag = "1")]
    pub series: Vec<InstantSeries>,
    #[prost(message, optional, tag = "2")]
    pub metrics: Option<SearchMetrics>,
}

#[derive(Clone, PartialEq, Message)]
pub struct InstantSeries {
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<KeyValue>,
    #[prost(double, tag = "2")]
    pub value: f64,
}

impl InstantSeries {
    /// The text of its only label.
    pub fn label(&self) -> String {
        text(&self.labels[0])
    }
}

#[derive(Clone, PartialEq, Message)]
pub struct TagsRequest {
    #[prost(string, tag = "1")]
    pub scope: String,
    #[prost(uint32, tag = "3")]
    pub start: u32,
    #[prost(uint32, tag = "4")]
    pub end: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct TagsResponse {
    #[prost(string, repeated, tag = "1")]
    pub tag_names: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TagsV2Response {
    #[prost(message, repeated, tag = "1")]
    pub scopes: Vec<TagScope>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TagScope {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, repeated, tag = "2")]
    pub tags: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ValuesRequest {
    #[prost(string, tag = "1")]
    pub tag_name: String,
    #[prost(string, tag = "2")]
    pub query: String,
    #[prost(uint32, tag = "4")]
    pub start: u32,
    #[prost(uint32, tag = "5")]
    pub end: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct ValuesResponse {
    #[prost(string, repeated, tag = "1")]
    pub tag_values: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ValuesV2Response {
    #[prost(message, repeated, tag = "1")]
    pub tag_values: Vec<TagValue>,
    #[prost(message, optional, tag = "2")]
    pub metrics: Option<ListMetrics>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TagValue {
    #[prost(string, tag = "1")]
    pub r#type: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct ListMetrics {
    #[prost(uint32, tag = "2")]
    pub total_jobs: u32,
    #[prost(uint32, tag = "3")]
    pub completed_jobs: u32,
}
