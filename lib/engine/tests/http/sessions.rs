//! Sessions keep what they set.

use super::support::{ask, sql};

async fn check(parameters: &str, sql: &str, expect: Result<&str, u32>) {
    let reply = ask(parameters, sql.to_owned()).await.send().await;
    let got = if reply.status == 200 {
        Ok(reply.text())
    } else {
        Err(reply.code())
    };
    assert_eq!(
        got,
        expect.map(str::to_owned),
        "{parameters} {sql}: {}",
        reply.text()
    );
}

#[tokio::test]
async fn what_they_keep() {
    let s = "session_id=keep";
    check("session_id=keep&session_check=1", "SELECT 1", Err(372)).await;
    check(s, "CREATE TEMPORARY TABLE t (a UInt8)", Ok("")).await;
    check(s, "INSERT INTO t VALUES (1), (2)", Ok("")).await;
    check(s, "SELECT sum(a) FROM t", Ok("3\n")).await;
    check(s, "SET max_threads = 3", Ok("")).await;
    check(
        "session_id=keep&max_threads=2",
        "SELECT getSetting('max_threads')",
        Ok("2\n"),
    )
    .await;
    check(s, "SELECT getSetting('max_threads')", Ok("3\n")).await;
    check("session_id=other", "SELECT * FROM t", Err(60)).await;
    check("", "SELECT * FROM t", Err(60)).await;
    // A failed query leaves nothing in the session's connection.
    let failing = "SELECT throwIf(number = 100000) FROM numbers(200000) FORMAT Null";
    check(s, failing, Err(395)).await;
    check(s, "SELECT sum(a) FROM t", Ok("3\n")).await;
    check("session_id=keep&session_timeout=99999", "SELECT 1", Err(36)).await;
    check("session_id=keep&close_session=1", "SELECT 1", Ok("1\n")).await;
    check("session_id=keep&session_check=1", "SELECT 1", Err(372)).await;
}

#[tokio::test]
async fn one_request_at_a_time() {
    let slow = tokio::spawn(async {
        ask("session_id=busy", "SELECT sleep(2), 'slow_in_session'")
            .await
            .send()
            .await
            .status
            .as_u16()
    });
    let running = "SELECT count() FROM system.processes WHERE query LIKE '%slow_in_session%' \
                   AND query NOT LIKE '%system.processes%'";
    while sql(running).await != "1\n" {
        assert!(!slow.is_finished(), "it never ran");
    }
    check("session_id=busy", "SELECT 1", Err(373)).await;
    assert_eq!(slow.await.unwrap(), 200);
    check("session_id=busy", "SELECT 1", Ok("1\n")).await;
}
