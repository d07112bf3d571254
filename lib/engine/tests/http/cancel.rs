//! Queries whose clients have gone.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;

use super::support::{ask, sql};

/// How many queries with this mark run.
async fn running(mark: &str) -> u64 {
    sql(&format!(
        "SELECT count() FROM system.processes WHERE query LIKE '%{mark}%' \
         AND query NOT LIKE '%system.processes%'"
    ))
    .await
    .trim()
    .parse()
    .unwrap()
}

async fn until(mark: &str, count: u64) {
    let since = Instant::now();
    while running(mark).await != count {
        assert!(
            since.elapsed() < Duration::from_secs(20),
            "{mark}: never {count}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn before_the_first_row() {
    let slow = "SELECT 'gone_early', count() FROM system.numbers WHERE NOT ignore(number)";
    let request = tokio::spawn(async move { ask("", slow).await.send().await });
    until("gone_early", 1).await;
    request.abort();
    until("gone_early", 0).await;
}

#[tokio::test]
async fn between_rows() {
    let endless = "SELECT 'gone_late', number FROM system.numbers FORMAT RowBinary";
    let mut response = ask("", endless).await.start().await;
    assert_eq!(response.status(), 200);
    let first = response.body_mut().frame().await.unwrap().unwrap();
    assert!(!first.into_data().unwrap().is_empty());
    until("gone_late", 1).await;
    drop(response);
    until("gone_late", 0).await;
}
