//! `enabled: false` and back: senders are answered with success, nothing is stored, and it is counted.

use std::time::{Duration, Instant};

use serde_json::json;

use super::support::apps::{App, ask};
use super::support::install;
use super::support::pipeline::Pipeline;
use super::support::{LIMIT, await_some, want};

/// What the documentation promises.
const TAKES_EFFECT: Duration = Duration::from_secs(60);

#[test]
fn tracing_is_switched_off_and_on() {
    let _installed = install::shared();
    let namespace = install::pipeline_namespace();
    let pipeline = Pipeline::ready(&namespace, &json!({}));
    App::python("app", "sender")
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", pipeline.otlp_http())
        .with("RATE", "20")
        .place(&namespace);
    let stored = || -> Result<u64, String> {
        let text = pipeline
            .try_sql("SELECT count() FROM spanloom.spans WHERE service = 'app' FORMAT TSV")?;
        text.trim()
            .parse()
            .map_err(|error| format!("{error}: {text}"))
    };
    await_some("stored spans", LIMIT, || {
        want(stored()? > 0, || "none".to_owned())
    });

    pipeline.apply(&json!({"enabled": false}));
    let off = Instant::now();
    let mut last = stored().unwrap();
    let mut since = Instant::now();
    await_some("an end of what is stored", LIMIT, || {
        let now = stored()?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
        // 20 a second are sent: 5 s without one are not chance.
        want(since.elapsed() > Duration::from_secs(5), || {
            format!("{now} stored")
        })
    });
    let took = since - off;
    println!("off after {:.1} s", took.as_secs_f64());
    assert!(took < TAKES_EFFECT, "{took:?}");
    // Senders go on and are content.
    let acknowledged = || {
        ask(&namespace, "app", "/")["acknowledgedCount"]
            .as_u64()
            .unwrap()
    };
    let before = acknowledged();
    await_some("acknowledged spans", LIMIT, || {
        want(acknowledged() > before + 20, || "too few".to_owned())
    });
    assert_eq!(ask(&namespace, "app", "/")["refusedCount"], 0);
    assert_eq!(stored().unwrap(), last, "stored while switched off");

    pipeline.apply(&json!({"enabled": true}));
    let on = Instant::now();
    await_some("stored spans again", LIMIT, || {
        want(stored()? > last, || "none".to_owned())
    });
    assert!(on.elapsed() < TAKES_EFFECT, "{:?}", on.elapsed());
    pipeline.await_ready();
}
