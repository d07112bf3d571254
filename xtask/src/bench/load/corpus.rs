//! Seeded spans of a given encoded size: what twelve services of a shop would send.
//!
//! A request holds whole traces of ten spans, grouped by service as a node's collector would get them.
//! The same seed gives the same bytes.

use spanloom_otlp::OtlpSink;
use spanloom_otlp::record::{
    Attr, EventRecord, ResourceRecord, ScopeRecord, SpanKind, SpanRecord, SpanSink, StatusCode,
    Value,
};

use super::rng::Rng;

const SERVICES: [&str; 12] = [
    "frontend",
    "gateway",
    "cart",
    "checkout",
    "payment",
    "shipping",
    "catalog",
    "recommendation",
    "currency",
    "email",
    "inventory",
    "auth",
];
const VERBS: [&str; 8] = [
    "list", "get", "add", "remove", "quote", "search", "confirm", "refund",
];
const METHODS: [&str; 4] = ["GET", "POST", "PUT", "DELETE"];
const WORDS: [&str; 24] = [
    "select", "from", "where", "order", "tenant", "price", "stock", "user", "cache", "retry",
    "timeout", "upstream", "handler", "thread", "queue", "batch", "index", "commit", "region",
    "cluster", "worker", "session", "token", "basket",
];
const SPANS_PER_TRACE: usize = 10;

/// One encoded `ExportTraceServiceRequest` and the spans in it.
#[derive(Debug)]
pub struct Request {
    /// The protobuf bytes.
    pub bytes: Vec<u8>,
    /// Spans inside.
    pub spans: u64,
}

/// Spans to a request for spans of `payload_bytes`: fewer where they are large, as SDKs' batches are.
pub fn spans_per_request(payload_bytes: usize) -> usize {
    if payload_bytes > 4096 { 100 } else { 800 }
}

/// Makes `count` different requests of `total` spans, which are about `payload_bytes` each on the wire.
pub fn requests(
    seed: u64,
    count: usize,
    total: usize,
    payload_bytes: usize,
    now_ns: u64,
) -> Vec<Request> {
    let mut rng = Rng::new(seed);
    (0..count)
        .map(|_| request(&mut rng, total, payload_bytes, now_ns))
        .collect()
}

fn request(rng: &mut Rng, total: usize, payload_bytes: usize, now_ns: u64) -> Request {
    let mut spans: Vec<Span> = Vec::with_capacity(total);
    while spans.len() < total {
        let trace = rng.next();
        for place in 0..SPANS_PER_TRACE {
            spans.push(Span::new(rng, trace, place, now_ns));
        }
    }
    // Grouped by resource, as batches of one collector's many senders are.
    spans.sort_by_key(|span| (span.service, span.pod));
    let mut sink = OtlpSink::new();
    let mut last = None;
    for span in &spans {
        if last != Some((span.service, span.pod)) {
            last = Some((span.service, span.pod));
            write_resource(&mut sink, span.service, span.pod);
        }
        span.write(&mut sink, rng, payload_bytes);
    }
    Request {
        bytes: sink.into_bytes(),
        spans: spans.len() as u64,
    }
}

fn write_resource(sink: &mut OtlpSink, service: usize, pod: u64) {
    let name = name_of(&SERVICES, service);
    let pod_name = format!("{name}-6c9f8d7b5{service:x}-{pod}");
    let instance = format!("{:016x}", Rng::new((service as u64) << 8 | pod).next());
    let version = format!("1.{service}.{}", pod % 2);
    let node = format!("node-{}", pod % 3);
    let text = |key, value| Attr {
        key,
        value: Value::Str(value),
    };
    let attributes = [
        text("service.name", name),
        text("service.version", &version),
        text("service.namespace", "shop"),
        text("service.instance.id", &instance),
        text("deployment.environment.name", "production"),
        text("k8s.namespace.name", "shop"),
        text("k8s.pod.name", &pod_name),
        text("k8s.node.name", &node),
        text("telemetry.sdk.name", "opentelemetry"),
        text("telemetry.sdk.language", "java"),
        text("telemetry.sdk.version", "1.38.0"),
    ];
    sink.resource(&ResourceRecord {
        service: name,
        attributes: &attributes,
        dropped_attributes_count: 0,
        schema_url: "https://opentelemetry.io/schemas/1.37.0",
    });
    sink.scope(&ScopeRecord {
        name: "io.opentelemetry.netty-4.1",
        version: "2.10.0-alpha",
        attributes: &[],
        dropped_attributes_count: 0,
        schema_url: "",
    });
}

/// What decides a span, drawn before the spans are grouped.
struct Span {
    trace: u64,
    id: u64,
    parent: u64,
    service: usize,
    pod: u64,
    place: usize,
    start_ns: u64,
    draw: u64,
}

impl Span {
    fn new(rng: &mut Rng, trace: u64, place: usize, now_ns: u64) -> Self {
        let id = |place: usize| Rng::new(trace ^ (place as u64 + 1)).next() | 1;
        let parent = if place == 0 { 0 } else { id((place - 1) / 2) };
        Self {
            trace,
            id: id(place),
            parent,
            // A client span stays with the server span before it.
            service: (trace as usize % SERVICES.len() + 5 * (place / 2)) % SERVICES.len(),
            pod: trace >> 8 & 3,
            place,
            start_ns: now_ns.saturating_add(place as u64 * 700_000 + rng.below(500_000)),
            draw: rng.next(),
        }
    }

    fn kind(&self) -> SpanKind {
        match self.place {
            7 | 9 => SpanKind::Internal,
            place if place % 2 == 0 && place < 8 => SpanKind::Server,
            _ => SpanKind::Client,
        }
    }

    fn write(&self, sink: &mut OtlpSink, rng: &mut Rng, payload_bytes: usize) {
        let draw = self.draw;
        let service = name_of(&SERVICES, self.service);
        let verb = name_of(&VERBS, (draw % 8).min(draw >> 8 & 7) as usize);
        let method = name_of(&METHODS, (draw >> 16 & 3) as usize);
        let failed = draw.is_multiple_of(100);
        let route = format!("/api/{service}/{{id}}/{verb}");
        let path = format!("/api/{service}/{}/{verb}", draw >> 20 & 0xffff);
        let name = format!("{method} {route}");
        let peer = format!("10.1.{}.{}", draw >> 32 & 15, draw >> 36 & 255);
        let user = format!("u-{}", self.trace % 50_000);
        let server = format!("{service}.shop");
        let text = |key, value| Attr {
            key,
            value: Value::Str(value),
        };
        let number = |key, value: u64| Attr {
            key,
            value: Value::Int(value.cast_signed()),
        };
        let mut attributes = vec![
            text("http.route", route.as_str()),
            text("http.request.method", method),
            number("http.response.status_code", if failed { 503 } else { 200 }),
            text("url.path", &path),
            text("url.scheme", "http"),
            text("server.address", &server),
            number("server.port", 8080),
            text("client.address", &peer),
            number("thread.id", draw >> 44 & 15),
            text("user.id", &user),
            number("retry", draw >> 48 & 1),
            Attr {
                key: "cache",
                value: Value::Bool(draw >> 49 & 1 == 1),
            },
        ];
        let texts = long_texts(rng, payload_bytes);
        attributes.extend(texts.iter().map(|(key, value)| text(key, value)));
        if self.place == 8 {
            attributes.push(text("db.system.name", "postgresql"));
        }
        let error = [
            text("exception.type", "TimeoutError"),
            text("exception.message", "upstream timed out after 2000 ms"),
        ];
        let events = [EventRecord {
            time_ns: self.start_ns + 1000,
            name: "exception",
            attributes: &error,
            dropped_attributes_count: 0,
        }];
        sink.span(&SpanRecord {
            trace_id: (u128::from(self.trace) << 64 | u128::from(!self.trace)).to_be_bytes(),
            span_id: self.id.to_be_bytes(),
            parent_span_id: self.parent.to_be_bytes(),
            trace_state: "",
            flags: 0x101,
            name: &name,
            kind: self.kind(),
            start_ns: self.start_ns,
            duration_ns: 1_000_000 + draw % 200_000_000,
            status: if failed {
                StatusCode::Error
            } else {
                StatusCode::Unset
            },
            status_message: if failed { "upstream timed out" } else { "" },
            attributes: &attributes,
            dropped_attributes_count: 0,
            events: if failed { &events } else { &[] },
            dropped_events_count: 0,
            links: &[],
            dropped_links_count: 0,
        });
    }
}

/// Attributes that bring a span to its size: text of the kinds that are long in life.
fn long_texts(rng: &mut Rng, payload_bytes: usize) -> Vec<(&'static str, String)> {
    // About what all other fields of a span take.
    let mut left = payload_bytes.saturating_sub(430);
    let kinds = [
        ("user_agent.original", 90),
        ("url.query", 110),
        ("code.stacktrace", 3800),
        ("http.request.body.text", 3000),
        ("db.query.text", usize::MAX),
    ];
    let mut texts = Vec::new();
    for (key, most) in kinds {
        let take = left.saturating_sub(key.len() + 10).min(most);
        if take < 24 {
            break;
        }
        texts.push((key, words(rng, take)));
        left = left.saturating_sub(take + key.len() + 10);
    }
    texts
}

/// Text of about `len` bytes that compresses as logs and queries do: known words, some numbers.
fn words(rng: &mut Rng, len: usize) -> String {
    let mut text = String::with_capacity(len + 12);
    while text.len() < len {
        let draw = rng.next();
        text.push_str(name_of(&WORDS, draw as usize % WORDS.len()));
        if draw >> 32 & 7 == 0 {
            text.push_str(&(draw >> 40 & 0xfff).to_string());
        }
        text.push(' ');
    }
    text.truncate(len);
    text
}

fn name_of<const N: usize>(names: &[&'static str; N], index: usize) -> &'static str {
    names.get(index % N).copied().unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(payload_bytes: usize) {
        let made = requests(
            7,
            2,
            spans_per_request(payload_bytes),
            payload_bytes,
            1_790_000_000_000_000_000,
        );
        for request in &made {
            let mean = request.bytes.len() as f64 / request.spans as f64;
            let off = (mean / payload_bytes as f64 - 1.0).abs();
            assert!(
                off < 0.1,
                "spans of {payload_bytes} bytes came out at {mean:.0}"
            );
        }
        let again = requests(
            7,
            2,
            spans_per_request(payload_bytes),
            payload_bytes,
            1_790_000_000_000_000_000,
        );
        assert!(made.iter().zip(&again).all(|(a, b)| a.bytes == b.bytes));
        assert_ne!(made[0].bytes, made[1].bytes);
    }

    #[test]
    fn sizes_are_as_asked_and_seeded() {
        check(500);
        check(1024);
        check(10_240);
    }
}
