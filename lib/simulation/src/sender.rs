//! Senders: each sends its requests one after the other, and each again as long as it has no answer or is told
//! to, as SDKs do. Requests and answers get lost on the way.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use spanloom_pipeline::simulation::Answer;
use tokio::time::{Instant, sleep, timeout};

use crate::random::Random;
use crate::world::World;

/// For so long a request is sent again; the collector knows it for ten minutes.
const INSISTS: Duration = Duration::from_secs(480);
/// How long a sender waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE_MS: (u64, u64) = (200, 5_000);

/// What became of a request, as its sender knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) spans: Vec<u64>,
    /// It was told that all is well.
    pub(crate) is_acknowledged: bool,
    /// So many of its spans were refused for good, as it was told.
    pub(crate) rejected: u64,
}

/// Sends all requests of a sender; returns what became of them.
pub(crate) async fn run(world: World, number: u64, mut random: Random) -> Vec<Sent> {
    let mut all = Vec::new();
    let plan = &world.plan;
    let peer = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number as u32));
    for request in 0..plan.requests {
        sleep(random.millis(0, plan.pace_ms)).await;
        let first = (number + 1) * 1_000_000_000 + request * 1_000_000;
        let count = random.between(1, plan.spans);
        let spans: Vec<u64> = (first..first + count).collect();
        if random.chance(plan.bad) {
            let bad = random.pick(&spans).unwrap_or(first);
            world.store.refuse(bad);
        }
        let body = body(&world, number, &spans);
        let mut sent = Sent {
            spans,
            is_acknowledged: false,
            rejected: 0,
        };
        let mut pause = PAUSE_MS.0;
        let begun = Instant::now();
        for _ in 0..plan.attempts {
            if begun.elapsed() > INSISTS {
                break;
            }
            let answer = attempt(&world, peer, &body, &mut random).await;
            world
                .trace
                .note(format_args!("sender {number} request {request} {answer:?}"));
            match answer {
                Some(Answer::Accepted { rejected }) => {
                    sent.is_acknowledged = true;
                    sent.rejected = rejected;
                    break;
                }
                Some(Answer::Refused(why)) => {
                    world
                        .trace
                        .violation(format!("a good request was refused: {why}"));
                    break;
                }
                None | Some(Answer::Retry(_) | Answer::Closed) => {
                    sleep(random.millis(pause / 2, pause)).await;
                    pause = (pause * 2).min(PAUSE_MS.1);
                }
            }
        }
        all.push(sent);
    }
    all
}

/// Sends a request once; `None` when no answer came.
async fn attempt(world: &World, peer: IpAddr, body: &Bytes, random: &mut Random) -> Option<Answer> {
    let lost = world.plan.lost;
    sleep(random.millis(0, 5)).await;
    let (direct, life) = world.listener()?;
    if random.chance(lost) {
        sleep(PATIENCE).await;
        return None;
    }
    // A connection that breaks while the request is under way.
    let breaks = random.chance(lost / 2).then(|| random.millis(0, 500));
    let exchange = async {
        tokio::select! {
            biased;
            answer = direct.export(peer, body.clone()) => Some(answer),
            () = life.died() => None,
        }
    };
    let answer = timeout(breaks.unwrap_or(PATIENCE), exchange).await.ok()?;
    drop(direct);
    sleep(random.millis(0, 5)).await;
    match random.chance(lost) {
        true => {
            sleep(PATIENCE).await;
            None
        }
        false => answer,
    }
}

fn body(world: &World, sender: u64, spans: &[u64]) -> Bytes {
    let now = u64::try_from(world.calendar.now().as_nanos()).unwrap_or(u64::MAX);
    let text = |key: &str, value: String| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(any_value::Value::StringValue(value)),
        }),
        ..KeyValue::default()
    };
    let spans = spans.iter().map(|id| Span {
        trace_id: u128::from(*id).to_be_bytes().to_vec(),
        span_id: id.to_be_bytes().to_vec(),
        name: format!("operation {}", id % 3),
        kind: 2,
        start_time_unix_nano: now,
        end_time_unix_nano: now + 1_000_000,
        attributes: vec![text("user", format!("user {id}"))],
        ..Span::default()
    });
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", format!("service {sender}"))],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                spans: spans.collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    request.encode_to_vec().into()
}
