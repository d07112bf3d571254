//! What is refused, and how it is said.

use http::Method;
use http_body_util::BodyExt;

use super::support::{Ask, ask, engine, escape};

async fn check(ask: Ask, status: u16, code: u32, words: &str) {
    let reply = ask.send().await;
    let text = reply.text();
    assert_eq!(
        (reply.status.as_u16(), reply.code()),
        (status, code),
        "{text}"
    );
    assert!(text.starts_with(&format!("Code: {code}. DB::")), "{text}");
    assert!(text.contains(words), "{text}");
}

async fn query(sql: &str, status: u16, code: u32, words: &str) {
    check(ask("", sql.to_owned()).await, status, code, words).await;
}

#[tokio::test]
async fn of_the_engine() {
    query("SELECT * FROM nowhere", 404, 60, "UNKNOWN_TABLE").await;
    query("SELEC 1", 400, 62, "SYNTAX_ERROR").await;
    query("SELECT nothing", 404, 47, "UNKNOWN_IDENTIFIER").await;
    query("SELECT no_such_function()", 404, 46, "UNKNOWN_FUNCTION").await;
    query("SELECT 1 FORMAT Nothing", 404, 73, "UNKNOWN_FORMAT").await;
    query("SELECT throwIf(1, 'my words')", 500, 395, "my words").await;
    query(
        "SELECT sleepEachRow(1) FROM numbers(3) SETTINGS max_execution_time=0.1, max_block_size=1",
        408,
        159,
        "",
    )
    .await;
    query("SELECT {x:UInt8}", 500, 456, "").await;
    check(
        ask("nonsense=1", "SELECT 1").await,
        404,
        115,
        "UNKNOWN_SETTING",
    )
    .await;
    check(
        ask("database=nowhere", "SELECT 1").await,
        404,
        81,
        "UNKNOWN_DATABASE",
    )
    .await;
}

#[tokio::test]
async fn of_the_front() {
    query("", 400, 62, "Empty query").await;
    query("SELECT 1; SELECT 2", 400, 62, "Multi-statements").await;
    query(
        "SELECT * FROM file('/etc/passwd')",
        403,
        497,
        "ACCESS_DENIED",
    )
    .await;
    query("SELECT 1 INTO OUTFILE '/tmp/x'", 403, 497, "ACCESS_DENIED").await;
    query(
        "INSERT INTO t FROM INFILE '/etc/passwd' FORMAT CSV",
        403,
        497,
        "",
    )
    .await;
    check(
        ask("role=admin", "SELECT 1").await,
        404,
        511,
        "UNKNOWN_ROLE",
    )
    .await;
    check(ask("a%20b=1", "SELECT 1").await, 400, 36, "").await;
    check(ask("query=%zz", "").await, 400, 36, "").await;
    check(ask("default_format=a'b", "SELECT 1").await, 404, 73, "").await;
    check(
        ask("", "SELECT 1").await.method(Method::DELETE),
        405,
        48,
        "",
    )
    .await;
    check(
        ask("", "x").await.header("content-encoding", "br"),
        501,
        48,
        "",
    )
    .await;
    let long = format!("SELECT '{}'", "x".repeat(5 << 20));
    check(ask("", long).await, 413, 229, "QUERY_IS_TOO_LARGE").await;
}

#[tokio::test]
async fn users_and_passwords() {
    let (user, password) = (engine().await.user(), engine().await.password());
    let wrong = |ask: Ask| check(ask, 403, 516, "AUTHENTICATION_FAILED");
    let plain = || async { ask("query=SELECT+1", "").await.anonymous() };
    wrong(plain().await).await;
    wrong(plain().await.header("x-clickhouse-user", user)).await;
    let both = plain().await.header("x-clickhouse-user", user);
    wrong(both.header("x-clickhouse-key", "no")).await;
    let other = plain().await.header("x-clickhouse-user", "other");
    wrong(other.header("x-clickhouse-key", password)).await;
    wrong(
        ask(&format!("user={user}&password=no"), "SELECT 1")
            .await
            .anonymous(),
    )
    .await;
    wrong(plain().await.header("authorization", "Basic bm86bm8=")).await;
    wrong(plain().await.header("authorization", "Basic !")).await;
    let url = format!("user={}&password={password}", escape(user));
    assert_eq!(
        ask(&url, "SELECT 1").await.anonymous().send().await.status,
        200
    );
    use base64::Engine as _;
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    let basic = plain()
        .await
        .header("authorization", &format!("Basic {basic}"));
    assert_eq!(basic.send().await.status, 200);
}

/// An error after the first rows: the text in a block of its own, and no clean end.
#[tokio::test]
async fn late() {
    let query = "SELECT throwIf(number = 900000, 'too late') FROM numbers(1000000) FORMAT CSV";
    let response = ask("", query).await.start().await;
    assert_eq!(response.status(), 200);
    let tag = response.headers()["x-clickhouse-exception-tag"]
        .to_str()
        .unwrap()
        .to_owned();
    let mut body = response.into_body();
    let mut last = Vec::new();
    let broken = loop {
        match body.frame().await {
            None => break false,
            Some(Err(_)) => break true,
            Some(Ok(frame)) => {
                last.extend_from_slice(&frame.into_data().unwrap_or_default());
                let keep = last.len().saturating_sub(4096);
                last.drain(..keep);
            }
        }
    };
    assert!(broken, "the answer must not end as if it were whole");
    let text = String::from_utf8_lossy(&last).into_owned();
    let block = text
        .split("\r\n__exception__\r\n")
        .nth(1)
        .unwrap_or_default();
    assert!(block.starts_with(&format!("{tag}\r\nCode: 395.")), "{text}");
    assert!(block.contains("too late"), "{text}");
    let length: usize = block
        .rsplit('\n')
        .next()
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let message = block.split_once("\r\n").unwrap().1;
    let message = &message[..message.rfind('\n').unwrap() + 1];
    assert_eq!(length, message.len());
}
