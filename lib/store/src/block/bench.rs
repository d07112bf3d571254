//! A figure, not a check: `cargo test --release -p spanloom-store --lib ns_per_span -- --nocapture`.

use spanloom_otlp::record::{Attr, SpanKind, StatusCode};

use super::*;

fn attributes<'a>(n: u64, texts: &'a [String]) -> Vec<Attr<'a>> {
    let text = |i: u64| {
        texts
            .get(i as usize % texts.len())
            .map_or("", String::as_str)
    };
    vec![
        Attr {
            key: "http.request.method",
            value: Value::Str(["GET", "POST"][n as usize % 2]),
        },
        Attr {
            key: "http.route",
            value: Value::Str(text(n % 20)),
        },
        Attr {
            key: "url.path",
            value: Value::Str(text(n)),
        },
        Attr {
            key: "http.response.status_code",
            value: Value::Int(200),
        },
        Attr {
            key: "server.address",
            value: Value::Str("shop.example.com"),
        },
        Attr {
            key: "server.port",
            value: Value::Int(443),
        },
        Attr {
            key: "client.address",
            value: Value::Str(text(n * 7)),
        },
        Attr {
            key: "user_agent.original",
            value: Value::Str("Mozilla/5.0 (X11; Linux x86_64)"),
        },
        Attr {
            key: "network.protocol.version",
            value: Value::Str("1.1"),
        },
        Attr {
            key: "app.user.id",
            value: Value::Str(text(n * 3)),
        },
        Attr {
            key: "app.cart.total",
            value: Value::Double(n as f64 * 0.5),
        },
        Attr {
            key: "app.cached",
            value: Value::Bool(n.is_multiple_of(3)),
        },
    ]
}

/// Nanoseconds that this thread has run: unlike the time of day, this does not count what other
/// programs took.
fn cpu_ns() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns = stat.split(' ').next().and_then(|ns| ns.parse().ok());
    ns.unwrap_or(f64::NAN)
}

/// Few in a debug build, where this is only a test that it runs.
const SPANS: u64 = if cfg!(debug_assertions) { 200 } else { 10_000 };

#[test]
fn ns_per_span() {
    let pool = BlockPool::new(BlockPoolOptions::default());
    let mut block = SpanBlock::new(&pool);
    let texts: Vec<String> = (0..5_000)
        .map(|n| format!("/api/v1/things/{n:08}"))
        .collect();
    let resource: Vec<Attr<'_>> = texts
        .iter()
        .take(10)
        .zip([
            "service.name",
            "service.version",
            "host.name",
            "os.type",
            "k8s.pod.name",
            "a",
            "b",
            "c",
            "d",
            "e",
        ])
        .map(|(text, key)| Attr {
            key,
            value: Value::Str(text),
        })
        .collect();
    let spans: Vec<Vec<Attr<'_>>> = (0..SPANS).map(|n| attributes(n, &texts)).collect();
    let mut best = (f64::MAX, f64::MAX);
    for _ in 0..20 {
        let start = cpu_ns();
        for (n, attributes) in (0u64..).zip(&spans) {
            if n % 1_000 == 0 {
                block.resource(&ResourceRecord {
                    service: "shop",
                    attributes: &resource,
                    dropped_attributes_count: 0,
                    schema_url: "",
                });
                block.scope(&ScopeRecord {
                    name: "scope",
                    version: "1",
                    attributes: &[],
                    dropped_attributes_count: 0,
                    schema_url: "",
                });
            }
            let mut trace_id = [7; 16];
            trace_id[..8]
                .copy_from_slice(&(n / 8).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
            block.span(&SpanRecord {
                trace_id,
                span_id: n.wrapping_mul(0xD1B5_4A32_D192_ED03).to_le_bytes(),
                parent_span_id: [1; 8],
                trace_state: "",
                flags: 1,
                name: ["GET /a", "POST /b", "checkout", "query"][n as usize % 4],
                kind: SpanKind::Server,
                start_ns: 1_795_000_000_000_000_000 + n * 1_000_003,
                duration_ns: n * 977,
                status: StatusCode::Unset,
                status_message: "",
                attributes,
                dropped_attributes_count: 0,
                events: &[],
                dropped_events_count: 0,
                links: &[],
                dropped_links_count: 0,
            });
        }
        let built = (cpu_ns() - start) / SPANS as f64;
        let bytes = block.bytes();
        let start = cpu_ns();
        let frozen = block.freeze();
        let froze = (cpu_ns() - start) / SPANS as f64;
        best = (best.0.min(built), best.1.min(froze));
        frozen.tags_are_stored();
        println!(
            "{built:.0} ns/span built, {froze:.0} ns/span frozen, {} B/span in memory, {} compressed",
            bytes as u64 / SPANS,
            frozen.compressed_bytes() as u64 / SPANS
        );
    }
    println!("best: {:.0} + {:.0} ns/span", best.0, best.1);
}
