//! The `clickhouse` crate, unmodified, against the front: what all of Spanloom speaks through.
#![allow(clippy::unwrap_used)] // in the tests' helpers too

use clickhouse::{Client, Row};
use serde::{Deserialize, Serialize};
use spanloom_engine::testing::TestEngine;

fn client(engine: &TestEngine) -> Client {
    Client::default()
        .with_url(engine.url())
        .with_user(engine.user())
        .with_password(engine.password())
}

#[derive(Debug, Clone, PartialEq, Row, Serialize, Deserialize)]
struct Line {
    id: u64,
    text: String,
    tags: Vec<(String, i64)>,
}

fn lines(count: u64) -> Vec<Line> {
    (0..count)
        .map(|id| Line {
            id,
            text: format!("line {id}\n\n; SELECT 'x'"),
            tags: vec![("a".to_owned(), -1), ("ä".to_owned(), id as i64)],
        })
        .collect()
}

#[tokio::test]
async fn rows_there_and_back() {
    let engine = TestEngine::start().await;
    let client = client(&engine);
    client.query("CREATE DATABASE d").execute().await.unwrap();
    let client = client.with_database("d");
    client
        .query(
            "CREATE TABLE t (id UInt64, text String, tags Map(LowCardinality(String), Int64)) \
             ENGINE = MergeTree ORDER BY id",
        )
        .execute()
        .await
        .unwrap();
    let sent = lines(50_000);
    for client in [client.clone(), client.clone().with_validation(false)] {
        client.query("TRUNCATE TABLE t").execute().await.unwrap();
        let mut insert = client.insert::<Line>("t").await.unwrap();
        for line in &sent {
            insert.write(line).await.unwrap();
        }
        insert.end().await.unwrap();
        let got = client
            .query("SELECT ?fields FROM t ORDER BY id")
            .fetch_all::<Line>()
            .await
            .unwrap();
        assert_eq!(got.len(), sent.len());
        assert!(got == sent);
    }
    let count: u64 = client
        .query("SELECT count() FROM t WHERE text = {text:String}")
        .param("text", "line 7\n\n; SELECT 'x'")
        .fetch_one()
        .await
        .unwrap();
    assert_eq!(count, 1);
}

async fn table(engine: &TestEngine) -> Client {
    let client = client(engine);
    let name = format!("d{:016x}", rand::random::<u64>());
    client
        .query(&format!("CREATE DATABASE {name}"))
        .execute()
        .await
        .unwrap();
    let client = client.with_database(name);
    client
        .query(
            "CREATE TABLE t (id UInt64, text String, tags Map(String, Int64)) \
             ENGINE = MergeTree ORDER BY id",
        )
        .execute()
        .await
        .unwrap();
    client
}

#[tokio::test]
async fn an_insert_that_is_dropped() {
    let engine = TestEngine::start().await;
    let client = table(&engine).await;
    let mut insert = client.insert::<Line>("t").await.unwrap();
    // Enough that some of it has been sent.
    for line in lines(100_000) {
        insert.write(&line).await.unwrap();
    }
    drop(insert);
    let mut insert = client.insert::<Line>("t").await.unwrap();
    insert.write(&lines(1)[0]).await.unwrap();
    insert.end().await.unwrap();
    let count: u64 = client
        .query("SELECT count() FROM t")
        .fetch_one()
        .await
        .unwrap();
    assert_eq!(count, 1);
}

#[tokio::test]
async fn errors() {
    let engine = TestEngine::start().await;
    let client = table(&engine).await;
    let error = |result: clickhouse::error::Result<u64>| result.unwrap_err().to_string();
    let ask = |sql: &str| client.query(sql).fetch_one::<u64>();
    assert!(error(ask("SELECT nothing").await).contains("Code: 47."));
    let timeout = "SELECT count() FROM system.numbers WHERE NOT ignore(number)";
    let slow = client.clone().with_setting("max_execution_time", "1");
    assert!(error(slow.query(timeout).fetch_one().await).contains("Code: 159."));
    let wrong = client.clone().with_password("wrong");
    assert!(error(wrong.query("SELECT 1").fetch_one().await).contains("Code: 516."));
    // After the first rows. A compressed block comes whole, and the text with it.
    let error = late_error(&client).await;
    assert!(error.contains("Code: 395."), "{error}");
    // Without blocks the crate finds the text only where one of its reads ends with it; where a read
    // cuts it in two, the broken answer is what it tells. That the text is there: `errors::late` in
    // the tests of `http`.
    let plain = client.with_compression(clickhouse::Compression::None);
    let error = late_error(&plain).await;
    let told = error.contains("Code: 395.") || error.contains("error reading a body");
    assert!(told, "{error}");
}

/// The error of a query that fails after many rows.
async fn late_error(client: &clickhouse::Client) -> String {
    let late = "SELECT toUInt64(throwIf(number = 2000000, 'late')) FROM numbers(3000000)";
    let mut rows = client.query(late).fetch::<u64>().unwrap();
    loop {
        match rows.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a late error went unseen"),
            Err(error) => break error.to_string(),
        }
    }
}
