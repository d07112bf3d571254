//! A span sent through every collector, and looked for at the query service. Also the way to a collector's
//! `/status`. Plain HTTP to pods, every answer bounded in time and size.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use spanloom_crds::agent::{AgentStatus, PROBE_ATTRIBUTE, PROBE_SERVICE};

use spanloom_plan::conditions::Probed;
use spanloom_plan::observe::Pod;

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(5);
/// How long a span may take from an agent to the query service.
const RETURN: Duration = Duration::from_secs(20);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(300);
/// How many pods are talked to at once.
const AT_ONCE: usize = 16;
/// The largest answer.
const ANSWER_BYTES: usize = 64 << 10;

/// The port that every program serves its own state on.
const ADMIN_PORT: u16 = 9464;
/// The port for OTLP over HTTP.
const OTLP_PORT: u16 = 4318;

/// Talks to pods.
#[derive(Debug, Clone)]
pub struct Pods {
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Default for Pods {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(Duration::from_secs(2)));
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(10))
            .build(connector);
        Self { client }
    }
}

impl Pods {
    async fn ask(
        &self,
        method: Method,
        url: String,
        body: Option<String>,
    ) -> Result<(StatusCode, Bytes), String> {
        let request = Request::builder()
            .method(method)
            .uri(&url)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|error| format!("{url} is not a valid address: {error}"))?;
        let answered = async {
            let response = self
                .client
                .request(request)
                .await
                .map_err(|error| error.to_string())?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES)
                .collect()
                .await;
            let body = body.map_err(|error| error.to_string())?.to_bytes();
            Ok::<_, String>((status, body))
        };
        match tokio::time::timeout(REQUEST, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(format!("{url}: {error}")),
            Err(_) => Err(format!("{url}: no response within {} s", REQUEST.as_secs())),
        }
    }

    /// What agents say of themselves, in the order of `pods`; none for one that does not answer.
    pub async fn statuses(&self, pods: &[Pod]) -> Vec<Option<AgentStatus>> {
        let asked = pods.iter().cloned().map(|pod| async move {
            let ip = pod.ip.as_deref()?;
            let url = format!("http://{}/status", authority(ip, ADMIN_PORT));
            let (status, body) = self.ask(Method::GET, url, None).await.ok()?;
            (status == StatusCode::OK)
                .then(|| serde_json::from_slice(&body).ok())
                .flatten()
        });
        futures_util::stream::iter(asked)
            .buffered(AT_ONCE)
            .collect()
            .await
    }

    /// Sends a span through each of `agents` and waits until `query` has them all.
    pub async fn probe(&self, pipeline_uid: &str, agents: &[Pod], query: &Pod) -> Probed {
        let Some(query_ip) = query.ip.as_deref() else {
            return Probed::NotYet;
        };
        let mut traces = HashMap::new();
        let sent = agents.iter().cloned().map(|pod| async move {
            let trace = format!("{:032x}", rand::random::<u128>().max(1));
            let taken = self.send(pipeline_uid, &pod, &trace).await;
            (pod, trace, taken)
        });
        let sent: Vec<_> = futures_util::stream::iter(sent)
            .buffered(AT_ONCE)
            .collect()
            .await;
        for (pod, trace, taken) in sent {
            if let Err(why) = taken {
                return Probed::Lost(format!(
                    "the collector {} did not accept a probe span: {why}",
                    pod.name
                ));
            }
            traces.insert(trace, pod.name);
        }
        let count = traces.len();
        let found = tokio::time::timeout(RETURN, self.look(query_ip, &mut traces)).await;
        if found.is_ok() {
            return Probed::All(count);
        }
        let mut names: Vec<_> = traces.into_values().collect();
        names.sort();
        Probed::Lost(format!(
            "probe spans sent through {} were not returned by {} within {} s",
            names.join(", "),
            query.name,
            RETURN.as_secs()
        ))
    }

    async fn send(&self, pipeline_uid: &str, pod: &Pod, trace: &str) -> Result<(), String> {
        let ip = pod.ip.as_deref().ok_or("the pod has no IP address")?;
        let url = format!("http://{}/v1/traces", authority(ip, OTLP_PORT));
        let body = span(pipeline_uid, &pod.name, trace).to_string();
        let (status, answer) = self.ask(Method::POST, url, Some(body)).await?;
        if status == StatusCode::OK {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&answer);
        let short: String = text.chars().take(200).collect();
        Err(format!("status {status}: {short}"))
    }

    /// Looks for traces until none is left to look for.
    async fn look(&self, query_ip: &str, traces: &mut HashMap<String, String>) {
        while !traces.is_empty() {
            let wanted: Vec<_> = traces.keys().cloned().collect();
            for trace in wanted {
                let url = format!("http://{}/probe/{trace}", authority(query_ip, ADMIN_PORT));
                let Ok((StatusCode::OK, body)) = self.ask(Method::GET, url, None).await else {
                    continue;
                };
                let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
                if answer["spans"].as_u64().is_some_and(|spans| spans > 0) {
                    traces.remove(&trace);
                }
            }
            if !traces.is_empty() {
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

/// An address with its port; IPv6 needs brackets.
fn authority(ip: &str, port: u16) -> String {
    if ip.contains(':') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    }
}

/// A request with one span.
fn span(pipeline_uid: &str, pod: &str, trace: &str) -> Value {
    let attribute = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let now = jiff::Timestamp::now().as_nanosecond();
    json!({"resourceSpans": [{
        "resource": {"attributes": [
            attribute("service.name", PROBE_SERVICE),
            attribute(PROBE_ATTRIBUTE, pipeline_uid),
        ]},
        "scopeSpans": [{"spans": [{
            "traceId": trace,
            "spanId": format!("{:016x}", rand::random::<u64>().max(1)),
            "name": format!("probe {pod}"), "kind": 1,
            "startTimeUnixNano": now.to_string(), "endTimeUnixNano": now.to_string(),
        }]}],
    }]})
}
