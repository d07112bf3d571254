//! Control runs: without a protection, what the other tests look at goes wrong.

use http::StatusCode;
use spanloom_collector::Collector;
use spanloom_collector::control::Protection;

use super::{DEADLINE, Mood, PLENTY, SPANS, Setup, TABLES, request};

async fn without(protection: Protection) -> Setup {
    Setup::started("", PLENTY, async |config, registry| {
        Collector::start_without(&[protection], None, config, registry).await
    })
    .await
}

#[tokio::test]
async fn without_deduplication_lost_replies_and_repeats_are_stored_again() {
    let setup = without(Protection::Deduplication).await;
    let body = request(1 << 40, 0);
    setup.proxy.lose_replies(TABLES);
    assert_eq!(setup.send(&body).await.status(), StatusCode::OK);
    let stored = setup.number("SELECT count() FROM spans").await;
    assert_eq!(stored, 2 * SPANS, "the insert was repeated");
    assert_eq!(setup.send(&body).await.status(), StatusCode::OK);
    let stored = setup.number("SELECT count() FROM spans").await;
    assert_eq!(stored, 3 * SPANS, "the request was repeated");
}

#[tokio::test]
async fn without_storing_what_was_acknowledged_is_lost_and_counted() {
    let setup = without(Protection::Storing).await;
    setup.proxy.set(Mood::Away).await;
    assert_eq!(
        setup.send(&request(1 << 40, 0)).await.status(),
        StatusCode::OK
    );
    setup.collector.shutdown(DEADLINE).await.unwrap();
    let stored: u64 = setup
        .direct
        .query("SELECT count() FROM spans")
        .fetch_one()
        .await
        .unwrap();
    assert_eq!(stored, 0);
    let mut metrics = String::new();
    prometheus_client::encoding::text::encode(&mut metrics, &setup.registry).unwrap();
    let lost = format!("spanloom_lost_spans_total{{reason=\"unavailable\"}} {SPANS}");
    assert!(metrics.contains(&lost), "{metrics}");
}
